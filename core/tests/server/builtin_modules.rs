//! The modules that are linked into the server: clients see their commands as Redis' own.

use crate::harness::{SETUPS, Server, leave_out};
use crate::redis::Redis;
use crate::replies::strings;

/// The keys are those of the key specs, though the command may open another: of several STOREs, the last one counts.
#[test]
fn keys_of_a_command_that_may_store_are_shown_as_by_redis() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    for (request, keys) in [
        ("GEORADIUS k 0 0 1 m", "k"),
        ("GEORADIUS k 0 0 1 m STORE", "k"),
        ("GEORADIUS k 0 0 1 m STORE a", "k a"),
        ("GEORADIUS k 0 0 1 m STORE a STORE b", "k a"),
        ("GEORADIUS k 0 0 1 m STOREDIST a STORE b", "k b a"),
        ("GEORADIUSBYMEMBER k m 1 m STOREDIST a STOREDIST b", "k a"),
        ("SORT k STORE a STORE b", "k b"),
        ("XREAD STREAMS a b 0 0", "a b"),
    ] {
        let mut args = vec!["COMMAND", "GETKEYS"];
        args.extend(request.split(' '));
        let expected: String = keys.split(' ').map(|key| format!("${}\r\n{key}\r\n", key.len())).collect();
        let expected = format!("*{}\r\n{expected}", keys.split(' ').count());
        assert_eq!(client.call(&args), expected, "{request}");
    }
    assert_eq!(client.call(&["GEOADD", "k", "1", "1", "m"]), ":1\r\n");
    let stores = ["GEORADIUS", "k", "1", "1", "1", "m", "STORE", "a", "STORE", "b"];
    assert_eq!(client.call(&stores), ":1\r\n");
    assert_eq!(client.call(&["EXISTS", "a"]), ":0\r\n");
    assert_eq!(client.call(&["EXISTS", "b"]), ":1\r\n");
}

/// First key, last key and step of COMMAND INFO, as Redis 7.0.15 has them for commands with several groups of keys.
#[test]
fn clients_without_key_specs_find_the_same_keys_as_in_redis() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    for (command, range, moves) in [
        ("sinterstore", (1, -1, 1), false),
        ("sunionstore", (1, -1, 1), false),
        ("sdiffstore", (1, -1, 1), false),
        ("pfmerge", (1, -1, 1), false),
        ("pfcount", (1, -1, 1), false),
        ("bitop", (2, -1, 1), false),
        ("smove", (1, 2, 1), false),
        ("rename", (1, 2, 1), false),
        ("mset", (1, -1, 2), false),
        ("zunionstore", (1, 1, 1), true),
        ("georadius", (1, 1, 1), true),
        ("geosearchstore", (1, 2, 1), false),
        ("eval", (0, 0, 0), true),
    ] {
        let info = client.call(&["COMMAND", "INFO", command]);
        let flags_end =
            info.find("\r\n:").and_then(|arity| Some(arity + 3 + info[arity + 3..].find("\r\n:")?));
        let (before, after) = info.split_at(flags_end.expect("the first key follows the flags"));
        let (first, last, step) = range;
        assert!(after.starts_with(&format!("\r\n:{first}\r\n:{last}\r\n:{step}\r\n")), "{command}: {after}");
        assert_eq!(before.contains("+movablekeys"), moves, "{command}: {before}");
    }
}

#[test]
fn errors_quote_arguments_with_the_bytes_that_the_client_has_sent() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    assert_eq!(client.call(&["PFADD", "h", "a"]), ":1\r\n");
    for (argument, quoted) in [(&b"\xff"[..], &b"\xff"[..]), (b"a\0b", b"a")] {
        client.request(&[b"PFDEBUG", argument, b"h"]);
        assert_eq!(client.reply(), [b"-ERR Unknown PFDEBUG subcommand '", quoted, b"'\r\n"].concat());
    }
}

#[test]
fn keys_that_they_add_are_announced_as_new() {
    let server = Server::start_with(SETUPS[0], &[]);
    let (mut client, mut listener) = (server.connect(), server.connect());
    client.call(&["CONFIG", "SET", "notify-keyspace-events", "En"]);
    listener.call(&["SUBSCRIBE", "__keyevent@0__:new"]);
    for request in [
        "SETBIT a 1 1",
        "SETBIT a 2 1",
        "BITFIELD b SET u8 0 1",
        "BITOP NOT c a",
        "SETEX i 100 x",
        "BITOP OR i a c",
        "RPUSH j x",
        "BITOP OR j a c",
        "SETEX k 100 x",
        "BITOP OR k a k",
        "PFADD d x",
        "PFMERGE e d",
        "GEOADD f 1 1 m",
        "GEOADD f 1 1 n",
        "GEORADIUS f 1 1 1 m STORE g",
        "GEOSEARCHSTORE h f FROMMEMBER m BYRADIUS 1 m",
    ] {
        let reply = client.call(&request.split(' ').collect::<Vec<_>>());
        assert!(!reply.starts_with('-'), "{request}: {reply}");
    }
    for key in ["a", "b", "c", "i", "j", "k", "d", "e", "f", "g", "h"] {
        let message = format!("*3\r\n$7\r\nmessage\r\n$18\r\n__keyevent@0__:new\r\n$1\r\n{key}\r\n");
        assert_eq!(String::from_utf8_lossy(&listener.reply()), message);
    }
    for key in ["i", "j", "k"] {
        assert_eq!(client.call(&["TYPE", key]), "+string\r\n");
        assert_eq!(client.call(&["TTL", key]), ":-1\r\n", "{key}");
    }
}

#[test]
fn commands_for_tests_are_documented_as_such() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    for command in ["pfdebug", "pfselftest"] {
        let docs = client.call(&["COMMAND", "DOCS", command]);
        assert!(docs.contains("$9\r\ndoc_flags\r\n*1\r\n+syscmd\r\n"), "{docs}");
    }
    assert!(!client.call(&["COMMAND", "DOCS", "pfadd"]).contains("doc_flags"));
}

/// Those of the modules geo, HyperLogLog and bitmap.
const COMMANDS: [&str; 22] = [
    "geoadd",
    "geodist",
    "geohash",
    "geopos",
    "georadius",
    "georadius_ro",
    "georadiusbymember",
    "georadiusbymember_ro",
    "geosearch",
    "geosearchstore",
    "pfadd",
    "pfcount",
    "pfdebug",
    "pfmerge",
    "pfselftest",
    "bitcount",
    "bitfield",
    "bitfield_ro",
    "bitop",
    "bitpos",
    "getbit",
    "setbit",
];

/// The next value of a reply, a line for each of its parts. Arrays of words, which are sets in RESP3, are sorted.
fn described<'a>(lines: &mut impl Iterator<Item = &'a str>, depth: usize) -> String {
    let line = lines.next().expect("there is more of the reply");
    let indent = " ".repeat(depth);
    let Some(count) = line.strip_prefix('*').and_then(|count| count.parse::<usize>().ok()) else {
        let text = if line.starts_with('$') && line != "$-1" { lines.next() } else { None };
        return format!("{indent}{line} {}\n", text.unwrap_or_default());
    };
    let mut parts: Vec<String> = (0..count).map(|_| described(lines, depth + 1)).collect();
    if parts.iter().all(|part| part.trim_start().starts_with('+')) {
        parts.sort_unstable();
    }
    format!("{indent}{line}\n{}", parts.concat())
}

#[test]
fn command_info_and_docs_and_acl_cat_say_what_redis_says() {
    let Some(redis) = Redis::start("builtin-modules", &[]) else { return };
    let server = Server::start_with(SETUPS[0], &[]);
    let (mut ours, mut theirs) = (server.connect(), redis.connect());
    if !theirs.call(&["INFO", "server"]).contains("redis_version:7.0.15\r\n") {
        leave_out("redis-server is not 7.0.15");
        return;
    }
    for command in COMMANDS {
        for request in [["COMMAND", "INFO", command], ["COMMAND", "DOCS", command]] {
            let [ours, theirs] = [&mut ours, &mut theirs].map(|client| {
                let reply = client.call(&request);
                assert!(reply.contains(command), "{request:?}: {reply}");
                described(&mut reply.split("\r\n"), 0)
            });
            assert_eq!(ours, theirs, "{request:?}");
        }
    }
    for category in strings(&theirs.call(&["ACL", "CAT"])).into_iter().flatten() {
        let [ours, theirs] = [&mut ours, &mut theirs].map(|client| {
            let all = strings(&client.call(&["ACL", "CAT", &category]));
            let mut listed: Vec<String> =
                all.into_iter().flatten().filter(|name| COMMANDS.contains(&name.as_str())).collect();
            listed.sort_unstable();
            listed
        });
        assert_eq!(ours, theirs, "{category}");
    }
    let geo = strings(&ours.call(&["ACL", "CAT", "geo"])).len();
    assert_eq!(geo, 10, "the categories are those of the commands");
}

/// A HyperLogLog in the sparse form, whose cardinality has to be counted.
fn sparse_of(opcodes: &[u8]) -> Vec<u8> {
    [&b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80"[..], opcodes].concat()
}

/// A run that goes past the last register made Redis before 7.4.5 write beyond its buffers (CVE-2025-32023).
#[test]
fn malformed_hyperloglogs_are_errors_of_every_command() {
    /// The registers from here to the end, of 16384.
    const ALL: [u8; 2] = [0x7f, 0xff];
    const ALL_BUT_ONE: [u8; 2] = [0x7f, 0xfe];
    let corrupted: [Vec<u8>; 10] = [
        sparse_of(&[]),
        sparse_of(&ALL_BUT_ONE),
        sparse_of(&[ALL, ALL].concat()),
        // It ends within an opcode.
        sparse_of(&[0x7f]),
        sparse_of(&[&ALL_BUT_ONE[..], &[0x7f]].concat()),
        // A value, and a run of values, that begin within and behind the last register.
        sparse_of(&[&ALL_BUT_ONE[..], &[0xff]].concat()),
        sparse_of(&[&ALL[..], &[0x80]].concat()),
        sparse_of(&[0x3f; 300]),
        // Runs of which a 32-bit sum overflows, to a small and to a negative number.
        sparse_of(&[&ALL.repeat(1 << 18)[..], &ALL].concat()),
        sparse_of(&[&ALL.repeat((1 << 17) + 1)[..], &[0x80]].concat()),
    ];
    let foreign: [Vec<u8>; 5] = [
        b"HYLL".to_vec(),
        [&b"HYLM"[..], &sparse_of(&ALL)[4..]].concat(),
        // No encoding has this number.
        [&b"HYLL\x02"[..], &sparse_of(&ALL)[5..]].concat(),
        // Of the dense form, a byte too few and one too many.
        [&b"HYLL"[..], &[0; 12 + 12288 - 1]].concat(),
        [&b"HYLL"[..], &[0; 12 + 12288 + 1]].concat(),
    ];
    let corrupted = corrupted.map(|string| (string, "-INVALIDOBJ Corrupted HLL object detected\r\n"));
    let foreign =
        foreign.map(|string| (string, "-WRONGTYPE Key is not a valid HyperLogLog string value.\r\n"));
    for setup in [SETUPS[0], SETUPS[3]] {
        let server = Server::start_with(setup, &[]);
        let mut client = server.connect();
        // On three shards of three.
        let [bad, good, new] = ["key0", "key1", "key2"];
        assert_eq!(client.call(&["PFADD", good, "a", "b", "c"]), ":1\r\n");
        for (string, error) in corrupted.iter().chain(&foreign) {
            for request in [
                &["PFADD", bad, "a"][..],
                &["PFADD", bad, "a", "b", "c", "d", "e", "f", "g", "h"],
                &["PFCOUNT", bad],
                &["PFCOUNT", good, bad],
                &["PFMERGE", bad],
                &["PFMERGE", bad, good],
                &["PFMERGE", good, bad],
                &["PFMERGE", new, good, bad],
                &["PFDEBUG", "GETREG", bad],
                &["PFDEBUG", "DECODE", bad],
                &["PFDEBUG", "ENCODING", bad],
                &["PFDEBUG", "TODENSE", bad],
            ] {
                client.request(&[b"SET", bad.as_bytes(), string]);
                assert_eq!(client.reply(), b"+OK\r\n");
                let what = || format!("{setup:?} {request:?} {} bytes", string.len());
                assert_eq!(client.call(request), *error, "{}", what());
                client.request(&[b"GET", bad.as_bytes()]);
                let kept = client.reply();
                assert!(kept.ends_with(&[&string[..], b"\r\n"].concat()), "{}", what());
                assert_eq!(client.call(&["EXISTS", new]), ":0\r\n", "{}", what());
                assert_eq!(client.call(&["PFCOUNT", good]), ":3\r\n", "{}", what());
            }
        }
        assert_eq!(client.call(&["PFSELFTEST"]), "+OK\r\n");
    }
}
