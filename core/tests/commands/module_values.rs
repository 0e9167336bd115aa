//! Values of modules, with a type that no module has: what the server does with a value that it does not understand.

use super::stub_type::StubType;
use super::types::module::{KeyPlace, ModuleValue};
use super::types::{NewValue, Object, SetExpire, ValueRef, hash_key};
use super::*;
use shardis_core::call::{Call, Key};
use shardis_core::persist::rdb::check::check;
use shardis_core::persist::rdb::module::write_aux;
use shardis_core::persist::rdb::write::{Writer, end_of_file};
use shardis_core::persist::rdb::{FileReader, file::SavedAccess};
use shardis_core::shard::event::Event;
use shardis_core::shard::slot::shard_of;
use shardis_core::types::module::AuxPlace;
use shardis_core::worker::load::Duplicates;
use std::sync::Arc;

/// DUMP's payload of the value -1111, `MyString` of the official test module `datatype`, by redis-server 7.0.15.
const OF_DATATYPE: &[u8] =
    b"\x07\x81\xb5\xeb-\xff\xff\xdd\xb4\x01\x02\x81\xff\xff\xff\xff\xff\xff\xfb\xa9\x05\x08MyString\
                             \x00\n\x00\xa2\xa7<\x92\x91\xf5^\xb9";

/// A file that redis-server 7.0.15 wrote with the official test modules `datatype` and `testrdb`: the string `plain`, two
/// values, and data of `testrdb` before and after the keys.
const FILE_OF_REDIS: &str = "524544495330303130fa0972656469732d76657206372e302e3135fa0a72656469732d62697473c040fa05637469\
                             6d65c298cf0a6bfa08757365642d6d656dc2382e1600fa08616f662d62617365c000f781b5eb2dfffadd6c01020\
                             102010502673100fe00fb03000005706c61696e0178070362696781b5eb2dffffddb40102817fffffffffffffff\
                             05017800070564746b657981b5eb2dffffddb4010281fffffffffffffba905084d79537472696e6700f781b5eb2\
                             dfffadd6c01020202010502673200fface90c187128072e";

fn file_of_redis() -> Vec<u8> {
    let digits: Vec<u8> = FILE_OF_REDIS.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A server with a type, which is `datatype`'s by its name.
fn with_type(server: &mut Server) -> &'static StubType {
    let of = StubType::new("test___dt");
    assert!(server.cluster.workers[0].shard.module_types.add(of));
    of
}

/// Stores a value as a module's command would.
fn store(server: &mut Server, of: &'static StubType, db: u32, key: &str, number: i64, text: &str) {
    let shard_count = server.cluster.workers.len();
    let shard = &mut server.cluster.workers[shard_of(key.as_bytes(), shard_count)].shard;
    let value = ModuleValue::new(of, of.make((number, text.as_bytes().to_vec())));
    let key = Key { bytes: key.as_bytes(), hash: hash_key(key.as_bytes()) };
    let call = Call { db, ..Call::default() };
    shard.set(&call, key, NewValue::Object(Box::new(Object::Module(value))), SetExpire::Clear, Event::SET);
}

/// The value of a key.
fn stored(server: &Server, of: &StubType, db: u32, key: &str) -> Option<(i64, String)> {
    let shard_count = server.cluster.workers.len();
    let shard = &server.cluster.workers[shard_of(key.as_bytes(), shard_count)].shard;
    let key = Key { bytes: key.as_bytes(), hash: hash_key(key.as_bytes()) };
    match shard.lookup_stored(db, key)?.value() {
        ValueRef::Object(Object::Module(value)) => {
            let (number, text) = of.value(value.ptr());
            Some((number, String::from_utf8(text).expect("it is text")))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_has_its_types_name_and_is_of_the_wrong_type_for_other_commands() {
    on_one_and_three_shards(|server| {
        let of = with_type(server);
        store(server, of, 0, "a", 1, "text");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        server.expect(&[
            ("TYPE a", "+test___dt"),
            ("OBJECT ENCODING a", "$3\r\nraw"),
            ("OBJECT REFCOUNT a", ":1"),
            ("SCAN 0 TYPE test___dt COUNT 100000", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na"),
            ("GET a", wrong),
            ("LPUSH a 1", wrong),
            ("SORT a", wrong),
            ("XADD a * f v", wrong),
            ("SUNION a b", wrong),
            ("APPEND a x", wrong),
            ("EXPIRE a 100", ":1"),
            ("PERSIST a", ":1"),
            ("TYPE a", "+test___dt"),
            ("SET a x", "+OK"),
            ("TYPE a", "+string"),
        ]);
        assert_eq!(of.len(), 0);
        assert_eq!(of.take_log(), ["unlink 0:a"]);
    });
}

#[test]
fn a_value_is_moved_between_keys_databases_and_shards_as_it_is() {
    on_one_and_three_shards(|server| {
        let of = with_type(server);
        store(server, of, 0, "a", 1, "text");
        // Keys on shards 0, 1 and 2 of three.
        server.expect(&[
            ("RENAME a b", "+OK"),
            ("RENAME b c", "+OK"),
            ("MOVE c 1", ":1"),
            ("SWAPDB 1 2", "+OK"),
            ("SELECT 2", "+OK"),
            ("TPROGRAM 2 c a / RENAME c a", "*1\r\n+OK"),
            ("DEL a", ":1"),
        ]);
        let log = of.take_log();
        assert_eq!(log, ["unlink 0:a", "unlink 0:b", "unlink 0:c", "unlink 2:c", "unlink 2:a"]);
        assert_eq!(of.len(), 0);
    });
}

#[test]
fn a_value_is_copied_by_its_type_or_not_at_all() {
    on_one_and_three_shards(|server| {
        let of = with_type(server);
        store(server, of, 0, "a", 1, "text");
        store(server, of, 0, "b", 42, "text");
        server.expect(&[
            ("COPY a c DB 3", ":1"),
            ("COPY b a", ":0"),
            ("COPY b a REPLACE", "-ERR module key failed to copy"),
            ("EXISTS a b", ":2"),
        ]);
        assert_eq!(of.take_log(), ["copy 0:a 3:c", "copy 0:b 0:a"]);
        assert_eq!(stored(server, of, 3, "c"), Some((1, "text".to_owned())));
        server.expect(&[("FLUSHALL", "+OK")]);
        server.cluster.settle();
        assert_eq!((of.len(), of.take_log()), (0, Vec::new()), "FLUSHALL unlinks nothing");
    });
}

#[test]
fn a_payload_of_redis_is_restored_by_its_type_and_dumped_as_it_was() {
    on_one_and_three_shards(|server| {
        let none = server.call_bytes(&[b"RESTORE", b"a", b"0", OF_DATATYPE]);
        assert_eq!(none, b"-ERR Bad data format\r\n", "there is no such type");

        let of = with_type(server);
        assert_eq!(server.call_bytes(&[b"RESTORE", b"a", b"0", OF_DATATYPE]), b"+OK\r\n");
        assert_eq!(stored(server, of, 0, "a"), Some((-1111, "MyString".to_owned())));
        let dumped = server.call_bytes(&[b"DUMP", b"a"]);
        assert_eq!(dumped, [b"$41\r\n", OF_DATATYPE, b"\r\n"].concat());
        assert_eq!(of.take_log(), ["load 1 0:a", "save 0:a"]);

        // Something else than the module reads, less than it reads, and more.
        server.expect(&[("DEBUG SET-SKIP-CHECKSUM-VALIDATION 1", "+OK")]);
        let (id, footer) = (&OF_DATATYPE[..10], &OF_DATATYPE[31..]);
        for body in [
            &b"\x05\x01x\x05\x01x\x00"[..],
            b"\x02\x01\x00",
            b"\x02\x01\x05\x01x\x02\x01\x00",
            b"\x02\x01\x05",
        ] {
            let payload = [id, body, footer].concat();
            let reply = server.call_bytes(&[b"RESTORE", b"b", b"0", &payload]);
            assert_eq!(reply, b"-ERR Bad data format\r\n", "{}", body.escape_ascii());
        }
        assert_eq!(of.len(), 1, "what was read before that is freed");
    });
}

#[test]
fn memory_and_digest_are_the_types_to_tell() {
    on_one_and_three_shards(|server| {
        let of = with_type(server);
        store(server, of, 0, "a", 1, "text");
        let usage = |server: &mut Server, words: &str| -> usize {
            server.call(words)[1..].trim_end().parse().expect("a number")
        };
        assert!((1_005_004..1_005_300).contains(&usage(server, "MEMORY USAGE a")));
        assert!((1_002_004..1_002_300).contains(&usage(server, "MEMORY USAGE a SAMPLES 2")));
        assert!((1_000_004..1_000_300).contains(&usage(server, "MEMORY USAGE a SAMPLES 0")));

        let digest = server.call("DEBUG DIGEST-VALUE a");
        store(server, of, 0, "b", 1, "text");
        assert_eq!(server.call("DEBUG DIGEST-VALUE b"), digest);
        store(server, of, 0, "b", 2, "text");
        assert_ne!(server.call("DEBUG DIGEST-VALUE b"), digest);
    });
}

#[test]
fn a_value_that_takes_long_to_free_is_freed_later() {
    on_one_and_three_shards(|server| {
        let of = with_type(server);
        for (key, effort) in [("a", 1000), ("b", 0), ("c", 64)] {
            store(server, of, 0, key, effort, "text");
        }
        server.expect(&[("DEL a b c", ":3")]);
        // Each turn frees a slice.
        (0..4).for_each(|_| server.cluster.tick());
        assert_eq!(of.len(), 0);
        assert_eq!(server.sum(|stats| stats.lazyfreed_objects.get()), 2);
    });
}

#[test]
fn a_file_of_redis_is_loaded_with_what_its_modules_have_besides() {
    on_one_and_three_shards(|server| {
        let of = with_type(server);
        let other = StubType::new("test__rdb");
        assert!(server.cluster.workers[0].shard.module_types.add(other));
        assert!(
            !server.cluster.workers[0].shard.module_types.add(StubType::new("test__rdb")),
            "the name is taken"
        );
        let bytes = file_of_redis();
        for worker in &mut server.cluster.workers {
            let mut reader = FileReader::new(true);
            worker.reload(&mut &bytes[..], &mut reader, Duplicates::Refused).expect("a sound file");
        }
        assert_eq!(stored(server, of, 0, "dtkey"), Some((-1111, "MyString".to_owned())));
        assert_eq!(stored(server, of, 0, "big"), Some((i64::MAX, "x".to_owned())));
        server.expect(&[("GET plain", "$1\r\nx"), ("DBSIZE", ":3")]);
        assert_eq!(other.aux(), (b"g1".to_vec(), b"g2".to_vec()));
        assert_eq!(other.take_log(), ["load_aux 1 BeforeKeys", "load_aux 1 AfterKeys"]);
    });
}

#[test]
fn a_file_with_values_of_a_module_that_is_missing_is_refused_and_names_it() {
    let mut server = Server::new(1);
    let bytes = file_of_redis();
    let refusal = |server: &mut Server| {
        let mut reader = FileReader::new(true);
        let outcome = server.cluster.workers[0].reload(&mut &bytes[..], &mut reader, Duplicates::Replaced);
        outcome.expect_err("a type is missing").to_string()
    };
    let text = refusal(&mut server);
    assert_eq!(text, "The RDB file contains AUX module data I can't load: no matching module 'test__rdb'");
    server.cluster.workers[0].shard.module_types.add(StubType::new("test__rdb"));
    let text = refusal(&mut server);
    assert_eq!(text, "The RDB file contains module data I can't load: no matching module type 'test___dt'");
    with_type(&mut server);
    let mut reader = FileReader::new(true);
    server.cluster.workers[0]
        .reload(&mut &bytes[..], &mut reader, Duplicates::Replaced)
        .expect("all are there");
}

#[test]
fn what_is_written_is_what_redis_writes() {
    let types = Arc::new(shardis_core::types::module::ModuleTypes::new());
    let (of, aux) = (StubType::new("test___dt"), StubType::new("test__rdb"));
    assert!(types.add(of) && types.add(aux));
    aux.set_aux(b"g1", b"g2");

    let mut file = file_of_redis();
    // Behind what the server says of itself, and before the checksum.
    let start = 0x50;
    file.drain(..start);
    file.truncate(file.len() - 9);
    let mut written = Vec::new();
    write_aux(&types, AuxPlace::BeforeKeys, true, &mut written);
    let mut writer = Writer::new(&mut written, true);
    writer.select_db(0);
    writer.resize_db(3, 0);
    writer.record(b"plain", ValueRef::Str(b"x"), None, SavedAccess::None);
    for (key, value) in [("big", (i64::MAX, "x")), ("dtkey", (-1111, "MyString"))] {
        let ptr = of.make((value.0, value.1.as_bytes().to_vec()));
        let object = Object::Module(ModuleValue::new(of, ptr));
        Writer::new(&mut written, true).at(KeyPlace::of(0, key.as_bytes())).record(
            key.as_bytes(),
            ValueRef::Object(&object),
            None,
            SavedAccess::None,
        );
    }
    write_aux(&types, AuxPlace::AfterKeys, true, &mut written);
    assert_eq!(written.escape_ascii().to_string(), file.escape_ascii().to_string());
    assert_eq!(end_of_file(None).len(), 9);
    assert_eq!((of.len(), of.take_log()), (0, vec!["save 0:big".to_owned(), "save 0:dtkey".to_owned()]));
}

#[test]
fn values_of_modules_are_walked_by_check_rdb_without_the_modules() {
    let bytes = file_of_redis();
    let mut said = Vec::new();
    let end = check(&mut &bytes[..], "dump.rdb", 0, &mut said).expect("it is written to a vector");
    assert_eq!(end, Some(bytes.len() as u64));
    // As redis-check-rdb 7.0.15 says it.
    let expected = "[offset 0] Checking RDB file dump.rdb\n\
                    [offset 27] AUX FIELD redis-ver = '7.0.15'\n\
                    [offset 41] AUX FIELD redis-bits = '64'\n\
                    [offset 53] AUX FIELD ctime = '1795870616'\n\
                    [offset 68] AUX FIELD used-mem = '1453624'\n\
                    [offset 80] AUX FIELD aof-base = '0'\n\
                    [offset 92] MODULE AUX for: test__rdb\n\
                    [offset 101] Selecting DB ID 0\n\
                    [offset 190] MODULE AUX for: test__rdb\n\
                    [offset 206] Checksum OK\n\
                    [offset 206] \\o/ RDB looks OK! \\o/\n\
                    [info] 3 keys read\n\
                    [info] 0 expires\n\
                    [info] 0 already expired\n";
    assert_eq!(String::from_utf8(said).expect("it is text"), expected);

    let mut damaged = bytes;
    // The opcode of the string of `dtkey`.
    let at = damaged.windows(9).position(|window| window == b"\x08MyString").expect("it is there") - 1;
    damaged[at] = 9;
    let mut said = Vec::new();
    let end = check(&mut &damaged[..], "dump.rdb", 0, &mut said).expect("it is written to a vector");
    assert_eq!(end, None);
}
