//! Files and payloads, written down byte by byte where the writer is another server.

use super::file::{FileReader, Item, SavedAccess};
use super::module::Modules;
use super::read::{ReadError, ReadResult, Reader};
use super::value::{Limits, PackedLimits, read_value};
use super::window::{FileError, for_each_item};
use super::write::{Writer, end_of_file};
use super::{ValueKind, dump};
use crate::persist::crc64::Crc64;
use crate::testing::{Rng, with_seed};
use crate::types::set::SetRef;
use crate::types::stream::StreamId;
use crate::types::zset::ZSet;
use crate::types::{Collection, Object, OwnedValue, PackedKind, ValueRef};
use std::collections::BTreeMap;

fn read(kind: ValueKind, bytes: &[u8]) -> ReadResult<OwnedValue> {
    read_with(kind, bytes, &Limits::default())
}

fn read_with(kind: ValueKind, bytes: &[u8], limits: &Limits) -> ReadResult<OwnedValue> {
    let mut reader = Reader::new(bytes, 0);
    let value = read_value(&mut reader, kind, limits, &Modules::none())?;
    assert!(reader.is_at_end(), "all of it was read");
    Ok(value)
}

/// The value of a form that reads can be compared with.
pub(super) fn value_ref(value: &OwnedValue) -> ValueRef<'_> {
    match value {
        OwnedValue::Int(number) => ValueRef::Int(*number),
        OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) => ValueRef::Str(bytes),
        OwnedValue::Packed(kind, bytes) => ValueRef::Packed(*kind, bytes),
        OwnedValue::Object(object) => ValueRef::Object(object),
    }
}

/// Its payload, and what that is read as.
fn round(value: &OwnedValue, limits: &Limits) -> OwnedValue {
    let mut payload = Vec::new();
    Writer::new(&mut payload, true).value(value_ref(value));
    dump::seal(&mut payload, 0);
    let opened = dump::open(&payload, true).expect("its own payload");
    dump::read(opened, limits, &Modules::none()).expect("its own payload")
}

/// A string as a file has it.
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out, false).string(bytes);
    out
}

fn strings(count: u64, items: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, false);
    writer.length(count);
    items.iter().for_each(|item| writer.string(item.as_bytes()));
    out
}

/// A listpack of these elements, which are written down with their encoding and length behind, as a string.
fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    elements.iter().for_each(|element| bytes.extend_from_slice(element));
    bytes.push(0xFF);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..6].copy_from_slice(&(elements.len() as u16).to_le_bytes());
    string(&bytes)
}

/// A ziplist of these entries, which are written down with the length before and their encoding, as a string.
fn ziplist(entries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 10];
    let mut last = bytes.len();
    for entry in entries {
        last = bytes.len();
        bytes.extend_from_slice(entry);
    }
    bytes.push(0xFF);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..8].copy_from_slice(&(last as u32).to_le_bytes());
    bytes[8..10].copy_from_slice(&(entries.len() as u16).to_le_bytes());
    string(&bytes)
}

/// The pairs of a listpack of pairs, or of a big hash or sorted set.
fn pairs(value: &OwnedValue) -> BTreeMap<String, String> {
    use crate::types::hash::HashRef;
    let mut found = BTreeMap::new();
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    if let Some(hash) = HashRef::of(value_ref(value)) {
        hash.for_each(|field, content| {
            found.insert(text(&field.to_vec()), text(&content.to_vec()));
        });
    } else if let OwnedValue::Packed(PackedKind::ZSet, bytes) = value {
        let items: Vec<String> = listpack_items(bytes);
        items.chunks(2).for_each(|pair| drop(found.insert(pair[0].clone(), pair[1].clone())));
    } else if let OwnedValue::Object(object) = value
        && let Object::ZSet(zset) = &**object
    {
        members(zset).into_iter().for_each(|(member, score)| drop(found.insert(member, score)));
    }
    found
}

fn members(zset: &ZSet) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    zset.iter(0..zset.len()).map(|(member, score)| (text(member), score.to_string())).collect()
}

fn listpack_items(bytes: &[u8]) -> Vec<String> {
    let listpack = crate::types::listpack::Listpack::new(bytes);
    listpack.iter().map(|(_, item)| item.to_vec().escape_ascii().to_string()).collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn strings_become_integers_if_they_are_some() {
    assert_eq!(read(ValueKind::String, &string(b"12")), Ok(OwnedValue::Int(12)));
    assert_eq!(read(ValueKind::String, b"\x0212"), Ok(OwnedValue::Int(12)));
    assert_eq!(read(ValueKind::String, b"\x03012"), Ok(OwnedValue::Str(b"012".to_vec())));
    let long = "abc".repeat(100).into_bytes();
    assert_eq!(round(&OwnedValue::Str(long.clone()), &Limits::default()), OwnedValue::Str(long));
    assert_eq!(round(&OwnedValue::Int(i64::MIN), &Limits::default()), OwnedValue::Int(i64::MIN));
}

#[test]
fn small_collections_are_packed_and_others_are_not() {
    let limits = Limits {
        hash: PackedLimits { entries: 2, value_bytes: 4 },
        zset: PackedLimits { entries: 2, value_bytes: 4 },
        set: crate::types::set::SetLimits::new(3),
        ..Limits::default()
    };
    let is_packed = |kind, bytes: &[u8]| match read_with(kind, bytes, &limits).expect("a sound value") {
        OwnedValue::Packed(kind, _) => Some(kind),
        _ => None,
    };
    assert_eq!(is_packed(ValueKind::Hash, &strings(2, &["a", "1", "b", "2"])), Some(PackedKind::Hash));
    assert_eq!(is_packed(ValueKind::Hash, &strings(3, &["a", "1", "b", "2", "c", "3"])), None);
    assert_eq!(is_packed(ValueKind::Hash, &strings(2, &["a", "1", "b", "12345"])), None);
    assert_eq!(is_packed(ValueKind::Set, &strings(3, &["3", "1", "2"])), Some(PackedKind::IntSet));
    assert_eq!(is_packed(ValueKind::Set, &strings(2, &["1", "a"])), Some(PackedKind::Set));
    let zset = |member: &str| [&[1][..], &string(member.as_bytes()), &1.5f64.to_le_bytes()].concat();
    assert_eq!(is_packed(ValueKind::ZSet2, &zset("abcd")), Some(PackedKind::ZSet));
    assert_eq!(is_packed(ValueKind::ZSet2, &zset("abcde")), None);
}

#[test]
fn hashes_of_all_versions_are_the_same() {
    let wanted = expected(&[("a", "1"), ("b", "xy")]);
    let zipmap = string(b"\x02\x01a\x01\x001\x01b\x02\x01xy-\xFF");
    let ziplist = ziplist(&[b"\0\x01a", b"\x03\xF2", b"\x02\x01b", b"\x03\x02xy"]);
    let listpack = listpack(&[b"\x81a\x02", b"\x01\x01", b"\x81b\x02", b"\x82xy\x03"]);
    for (kind, bytes) in [
        (ValueKind::Hash, strings(2, &["b", "xy", "a", "1"])),
        (ValueKind::HashZipmap, zipmap),
        (ValueKind::HashZiplist, ziplist),
        (ValueKind::HashListpack, listpack),
    ] {
        let value = read(kind, &bytes).expect(kind.name());
        assert!(matches!(value, OwnedValue::Packed(PackedKind::Hash, _)), "{kind:?}");
        assert_eq!(pairs(&value), wanted, "{kind:?}");
    }
}

#[test]
fn sorted_sets_of_all_versions_are_in_order() {
    let text = [&[2][..], &string(b"b"), b"\x032.5", &string(b"a"), &[255]].concat();
    let doubles =
        [&[2][..], &string(b"b"), &2.5f64.to_le_bytes(), &string(b"a"), &f64::NEG_INFINITY.to_le_bytes()]
            .concat();
    for (kind, bytes) in [(ValueKind::ZSet, text), (ValueKind::ZSet2, doubles)] {
        let OwnedValue::Packed(PackedKind::ZSet, packed) = read(kind, &bytes).expect("a sound value") else {
            panic!("it is small");
        };
        assert_eq!(listpack_items(&packed), ["a", "-inf", "b", "2.5"]);
    }
    // Out of order in the file.
    let listpack = listpack(&[b"\x81b\x02", b"\x02\x01", b"\x81a\x02", b"\x83-10\x04"]);
    let value = read(ValueKind::ZSetListpack, &listpack).expect("a sound value");
    assert_eq!(pairs(&value), expected(&[("a", "-10"), ("b", "2")]));
    assert!(matches!(&value, OwnedValue::Packed(_, bytes) if listpack_items(bytes)[0] == "a"));
}

#[test]
fn integers_that_are_no_shortest_ones_are_made_so() {
    // `a`, and 1 in 16 bits, and the string `12`.
    let listpack = listpack(&[b"\x81a\x02", b"\xF1\x01\0\x03", b"\x81b\x02", b"\x8212\x03"]);
    let value = read(ValueKind::HashListpack, &listpack).expect("a sound value");
    assert_eq!(pairs(&value), expected(&[("a", "1"), ("b", "12")]));
    let canonical = self::listpack(&[b"\x81a\x02", b"\x01\x01", b"\x81b\x02", b"\x0C\x01"]);
    assert_eq!(value, OwnedValue::Packed(PackedKind::Hash, canonical[1..].to_vec()));
}

#[test]
fn sets_of_all_versions_have_their_members() {
    let intset = string(b"\x02\0\0\0\x03\0\0\0\x01\0\x02\0\x03\0");
    let ints = read(ValueKind::SetIntset, &intset).expect("a sound value");
    assert!(matches!(ints, OwnedValue::Packed(PackedKind::IntSet, _)));
    let listpack = listpack(&[b"\x81a\x02", b"\x01\x01"]);
    let few = read(ValueKind::SetListpack, &listpack).expect("a sound value");
    let set = SetRef::of(value_ref(&few)).expect("a set");
    assert!(set.contains(b"a") && set.contains(b"1") && set.len() == 2);
}

#[test]
fn a_collection_without_elements_is_an_empty_key() {
    let empty_listpack = listpack(&[]);
    for (kind, bytes) in [
        (ValueKind::Hash, vec![0]),
        (ValueKind::Set, vec![0]),
        (ValueKind::ZSet2, vec![0]),
        (ValueKind::List, vec![0]),
        (ValueKind::HashListpack, empty_listpack.clone()),
        (ValueKind::ZSetListpack, empty_listpack.clone()),
        (ValueKind::ListQuicklist2, [&[1, 2][..], &empty_listpack].concat()),
        (ValueKind::HashZiplist, ziplist(&[])),
        (ValueKind::ListZiplist, ziplist(&[])),
    ] {
        assert_eq!(read(kind, &bytes), Err(ReadError::EmptyKey), "{kind:?}");
    }
}

#[test]
fn what_is_there_twice_is_damage() {
    let twice = listpack(&[b"\x81a\x02", b"\x01\x01", b"\x81a\x02", b"\x02\x01"]);
    for (kind, bytes) in [
        (ValueKind::Hash, strings(2, &["a", "1", "a", "2"])),
        (ValueKind::Set, strings(2, &["a", "a"])),
        (ValueKind::Set, strings(2, &["1", "1"])),
        (ValueKind::HashListpack, twice.clone()),
        (ValueKind::ZSetListpack, twice),
        (ValueKind::SetIntset, string(b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0")),
    ] {
        assert!(matches!(read(kind, &bytes), Err(ReadError::Damaged { .. })), "{kind:?}");
    }
    let nan = [&[1][..], &string(b"a"), &f64::NAN.to_le_bytes()].concat();
    assert!(matches!(read(ValueKind::ZSet2, &nan), Err(ReadError::Damaged { .. })));
    let odd = listpack(&[b"\x81a\x02"]);
    assert!(matches!(read(ValueKind::HashListpack, &odd), Err(ReadError::Damaged { .. })));
}

/// A file of one string with an expiry and a counter, and one without.
fn sample_file(version: &str) -> Vec<u8> {
    let mut bytes = version.as_bytes().to_vec();
    let mut writer = Writer::new(&mut bytes, true);
    writer.aux("redis-ver", "7.0.15");
    writer.select_db(3);
    writer.resize_db(2, 1);
    writer.record(b"a", ValueRef::Int(7), Some(1_700_000_000_000), SavedAccess::Frequency(9));
    writer.record(b"b", ValueRef::Str(b"hello"), None, SavedAccess::IdleSeconds(100));
    let mut checksum = Crc64::new();
    checksum.update(&bytes);
    bytes.extend_from_slice(&end_of_file(Some(checksum)));
    bytes
}

fn items(bytes: &[u8]) -> Result<Vec<String>, FileError> {
    let mut found = Vec::new();
    let mut reader = FileReader::new(true);
    for_each_item(&mut &bytes[..], &mut reader, |item, _| {
        found.push(match item {
            Item::Record(record) => {
                let value = record.read_value(&Limits::default(), &Modules::none())?;
                let key = record.key.into_vec()?;
                let key = key.escape_ascii();
                format!("{} {key} {value:?} {:?} {:?}", record.db, record.expire_at_ms, record.access)
            }
            other => format!("{other:?}"),
        });
        Ok::<(), FileError>(())
    })?;
    Ok(found)
}

#[test]
fn a_file_has_its_items() {
    let found = items(&sample_file("REDIS0010")).expect("a sound file");
    assert_eq!(found[0], "Header { version: 10 }");
    assert_eq!(found[2..4], ["SelectDb { db: 3 }", "ResizeDb { keys: 2, expires: 1 }"]);
    assert_eq!(found[4], "3 a Int(7) Some(1700000000000) Frequency(9)");
    assert_eq!(found[5], "3 b Str([104, 101, 108, 108, 111]) None IdleSeconds(100)");
    assert_eq!(found[6], "End");
}

/// Gives one byte at a time, and fails at its end, as a connection does that is cut off.
struct Trickle<'a>(&'a [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let (&first, rest) = self.0.split_first().ok_or(std::io::ErrorKind::ConnectionReset)?;
        (buf[0], self.0) = (first, rest);
        Ok(1)
    }
}

#[test]
fn what_comes_slowly_is_read_as_it_comes() {
    let bytes = sample_file("REDIS0010");
    for len in [0, 9, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let expected = {
            let (mut reader, mut at, mut count) = (FileReader::new(true), 0, 0);
            while let Ok((_, item_len)) = reader.next(&bytes[at..len]) {
                (at, count) = (at + item_len, count + 1);
            }
            count
        };
        let mut count = 0;
        let outcome = for_each_item(&mut Trickle(&bytes[..len]), &mut FileReader::new(true), |_, _| {
            count += 1;
            Ok::<(), FileError>(())
        });
        assert_eq!(outcome.is_ok(), len == bytes.len(), "{outcome:?}");
        assert_eq!(count, expected, "{len}");
    }
}

#[test]
fn versions_are_read_or_refused_by_name() {
    for version in ["REDIS0001", "REDIS0011", "VALKEY080"] {
        assert!(items(&sample_file(version)).is_ok(), "{version}");
    }
    for version in ["REDIS0012", "REDIS0000", "REDIS0080", "VALKEY079", "VALKEY081"] {
        assert!(matches!(items(&sample_file(version)), Err(FileError::Read(ReadError::Version { .. }))));
    }
    for other in ["HELLO0010", "REDIS00x0"] {
        let found = items(&sample_file(other));
        assert!(matches!(found, Err(FileError::Read(ReadError::Damaged { offset: 0, .. }))));
    }
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for (byte, what) in [(246, "functions"), (6, "module"), (22, "time to live")] {
        let bytes = [b"REDIS0010".as_slice(), &[byte, 0, 0, 0]].concat();
        match items(&bytes) {
            Err(FileError::Read(ReadError::Unsupported { offset: 9, what: said })) => {
                assert!(said.contains(what), "{said}");
            }
            other => panic!("{byte}: {other:?}"),
        }
    }
}

#[test]
fn each_damaged_byte_is_found_by_the_checksum_or_before() {
    let sound = sample_file("REDIS0010");
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        assert!(items(&damaged).is_err(), "byte {at}");
        assert!(items(&sound[..at]).is_err(), "{at} bytes");
    }
    // A checksum of zero means that there is none.
    let mut unchecked = sound.clone();
    let checksum_at = unchecked.len() - 8;
    unchecked[checksum_at..].fill(0);
    assert!(items(&unchecked).is_ok());
}

#[test]
fn random_collections_come_back() {
    with_seed(random_collections);
}

fn random_collections(rng: &mut Rng) {
    let limits = Limits::default();
    for _ in 0..200 {
        let count = 1 + rng.next() % 700;
        let long = if rng.next() % 4 == 0 { 90 } else { 10 };
        let text =
            |rng: &mut Rng| format!("{}{}", "x".repeat((rng.next() % long) as usize), rng.next() % 5000);
        let mut hash = super::build::HashBuilder::new(&limits, count as usize);
        let mut zset = super::build::ZSetBuilder::new(&limits, count as usize);
        let mut model = BTreeMap::new();
        for _ in 0..count {
            model.insert(text(rng), rng.next() % 100);
        }
        for (field, score) in &model {
            assert!(hash.add(field.as_bytes(), score.to_string().as_bytes()));
            assert!(zset.add(field.as_bytes(), *score as f64));
        }
        let wanted: BTreeMap<String, String> =
            model.into_iter().map(|(field, score)| (field, score.to_string())).collect();
        let hash = hash.finish().expect("no field is there twice");
        let zset = zset.finish().expect("no member is there twice");
        assert_eq!(pairs(&round(&hash, &limits)), wanted);
        assert_eq!(pairs(&round(&zset, &limits)), wanted);
    }
}

/// Values of all kinds and forms, as a file has them.
fn samples() -> Vec<(ValueKind, Vec<u8>)> {
    let zset = |count: u64| {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, false).length(count);
        for n in 0..count {
            let mut writer = Writer::new(&mut bytes, true);
            writer.string(format!("member{n}").as_bytes());
            writer.double(n as f64 / 3.0);
        }
        bytes
    };
    let names: Vec<String> = (0..600).map(|n| format!("name{n}")).collect();
    let many: Vec<&str> = names.iter().map(String::as_str).collect();
    let listpack = listpack(&[b"\x81a\x02", b"\x01\x01", b"\x81b\x02", b"\xC0\xFF\x02"]);
    let ziplist = ziplist(&[b"\0\x01a", b"\x03\xF2", b"\x02\x01b", b"\x03\xC0\x10\x27"]);
    vec![
        (ValueKind::String, string("compressible ".repeat(30).as_bytes())),
        (ValueKind::List, strings(3, &["a", "1", "b"])),
        (ValueKind::Set, strings(600, &many)),
        (ValueKind::Hash, strings(300, &many)),
        (ValueKind::Hash, strings(2, &["a", "1", "b", "2"])),
        (ValueKind::ZSet2, zset(3)),
        (ValueKind::ZSet2, zset(300)),
        (ValueKind::HashZipmap, string(b"\x02\x01a\x01\x001\x01b\x02\x01xy-\xFF")),
        (ValueKind::ListZiplist, ziplist.clone()),
        (ValueKind::HashZiplist, ziplist.clone()),
        (ValueKind::ZSetZiplist, ziplist.clone()),
        (ValueKind::ListQuicklist, [&[2][..], &ziplist, &ziplist].concat()),
        (ValueKind::ListQuicklist2, [&[2, 2][..], &listpack, &[1], &string(b"plain")].concat()),
        (ValueKind::HashListpack, listpack.clone()),
        (ValueKind::ZSetListpack, listpack.clone()),
        (ValueKind::SetListpack, listpack),
        (ValueKind::SetIntset, string(b"\x02\0\0\0\x03\0\0\0\x01\0\x02\0\x03\0")),
        (ValueKind::Stream, stream(ValueKind::Stream)),
        (ValueKind::Stream2, stream(ValueKind::Stream2)),
        (ValueKind::Stream3, stream(ValueKind::Stream3)),
    ]
}

#[test]
fn whatever_the_bytes_nothing_panics_and_what_is_read_is_sound() {
    with_seed(|rng| {
        let samples = samples();
        for (kind, bytes) in &samples {
            read(*kind, bytes).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        }
        for _ in 0..20_000 {
            let (kind, sound) = rng.pick(&samples);
            let mut damaged = sound.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(damaged.len());
                match rng.below(4) {
                    0 => damaged.truncate(at.max(1)),
                    1 => damaged.insert(at, rng.next() as u8),
                    2 => damaged[at] ^= 1 << rng.below(8),
                    _ => damaged[at] = rng.next() as u8,
                }
            }
            let mut reader = Reader::new(&damaged, 0);
            if let Ok(value) = read_value(&mut reader, *kind, &Limits::default(), &Modules::none()) {
                let again = round(&value, &Limits::default());
                assert_eq!(value_ref(&again).value_type(), value_ref(&value).value_type());
                let mut skipper = Reader::new(&damaged, 0);
                assert_eq!(super::skip::skip_value(&mut skipper, *kind), Ok(()));
                assert_eq!(skipper.position(), reader.position());
            }
        }
    });
}

/// A stream of a node of two entries, one of them pending, as the versions have it.
fn stream(kind: ValueKind) -> Vec<u8> {
    // Two entries, none deleted, one field `f`; then the entries 5-1 and 6-0 with values 1 and `x`.
    let node = listpack(&[
        b"\x02\x01",
        b"\x00\x01",
        b"\x01\x01",
        b"\x81f\x02",
        b"\x00\x01", // master entry
        b"\x02\x01",
        b"\x00\x01",
        b"\x00\x01",
        b"\x01\x01",
        b"\x04\x01", // 5-1
        b"\x02\x01",
        b"\x01\x01",
        b"\xDF\xFF\x02",
        b"\x81x\x02",
        b"\x04\x01", // 6-0
    ]);
    let id = |ms: u64, seq: u64| [ms.to_be_bytes(), seq.to_be_bytes()].concat();
    let mut bytes = [&[1][..], &string(&id(5, 1)), &node, &[2, 6, 0]].concat();
    if kind != ValueKind::Stream {
        bytes.extend_from_slice(&[5, 1, 4, 0, 3]);
    }
    bytes.extend_from_slice(&[&[1][..], &string(b"group"), &[5, 1]].concat());
    if kind != ValueKind::Stream {
        bytes.push(1);
    }
    bytes.extend_from_slice(&[&[1][..], &id(5, 1), &1000i64.to_le_bytes(), &[1]].concat());
    bytes.extend_from_slice(&[&[1][..], &string(b"alice"), &2000i64.to_le_bytes()].concat());
    if kind == ValueKind::Stream3 {
        bytes.extend_from_slice(&2000i64.to_le_bytes());
    }
    bytes.extend_from_slice(&[&[1][..], &id(5, 1)].concat());
    bytes
}

#[test]
fn streams_of_all_versions_are_the_same() {
    for kind in [ValueKind::Stream, ValueKind::Stream2, ValueKind::Stream3] {
        let value = read(kind, &stream(kind)).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let OwnedValue::Object(object) = &value else { panic!("a stream is an object") };
        let Object::Stream(found) = &**object else { panic!("it is a stream") };
        assert_eq!((found.log.len(), found.log.first_id().ms, found.log.last_id.ms), (2, 5, 6));
        assert_eq!(found.log.entries_added, if kind == ValueKind::Stream { 2 } else { 3 });
        let group = found.groups.get(b"group").expect("it is there");
        assert_eq!((group.pending_count(), group.consumer_count()), (1, 1));
        let (_, alice) = group.consumers().next().expect("she is there");
        assert_eq!((alice.name(), alice.seen_time_ms, alice.pending_count()), (&b"alice"[..], 2000, 1));
        let mut written = Vec::new();
        assert_eq!(super::objects::write(&mut Writer::new(&mut written, false), object), ValueKind::Stream2);
        if kind == ValueKind::Stream2 {
            assert_eq!(written, stream(kind));
        }
    }
}

/// Found by restoring damaged payloads: an entry that was added later came before the others, in a node of its own, and
/// the stream could not be restored from its own payload.
#[test]
fn the_last_id_of_a_stream_is_not_less_than_that_of_its_last_entry() {
    let mut bytes = stream(ValueKind::Stream2);
    let len_at = bytes.windows(3).position(|bytes| bytes == [2, 6, 0]).expect("the length and the last ID");
    bytes[len_at + 1] = 3;
    let value = read(ValueKind::Stream2, &bytes).expect("Redis takes it, too");
    let OwnedValue::Object(object) = &value else { panic!("a stream is an object") };
    let Object::Stream(found) = &**object else { panic!("it is a stream") };
    assert_eq!(found.log.last_id, StreamId { ms: 6, seq: 0 });
}

#[test]
fn a_stream_that_contradicts_itself_is_damage() {
    let sound = stream(ValueKind::Stream2);
    let is_damaged = |bytes: &[u8]| {
        let outcome = read(ValueKind::Stream2, bytes);
        assert!(outcome.is_err(), "{outcome:?}");
    };
    // Another length; a pending entry of no consumer; a consumer's that the group does not have.
    let mut longer = sound.clone();
    let len_at = sound.windows(3).position(|bytes| bytes == [2, 6, 0]).expect("the length and the last ID");
    longer[len_at] = 3;
    is_damaged(&longer);
    let mut unowned = sound.clone();
    let last = unowned.len() - 17;
    unowned.truncate(last);
    unowned.push(0);
    is_damaged(&unowned);
    let mut foreign = sound.clone();
    let last = foreign.len() - 1;
    foreign[last] = 9;
    is_damaged(&foreign);
}

#[test]
fn libraries_of_functions_stand_among_the_items_and_in_a_payload_of_their_own() {
    let texts = [&b"#!lua name=a\n"[..], b"#!lua name=b\nredis.register_function('f', redis.error_reply)"];
    let mut libraries = Vec::new();
    texts.iter().for_each(|text| Writer::new(&mut libraries, true).library(text));

    let file = [b"REDIS0004", &libraries[..], &[255]].concat();
    let mut found = Vec::new();
    let outcome = for_each_item(&mut &file[..], &mut FileReader::new(true), |item, _| {
        if let Item::Library { text } = item {
            found.push(text.into_vec()?);
        }
        Ok::<(), FileError>(())
    });
    assert!(outcome.is_ok() && found == texts, "{outcome:?} {found:?}");

    let mut payload = libraries.clone();
    dump::seal(&mut payload, 0);
    assert_eq!(dump::read_libraries(dump::open(&payload, true).unwrap()).unwrap(), texts);
    assert_eq!(dump::read_libraries(b""), Ok(Vec::new()));
    assert_eq!(dump::read_libraries(&[0, 1, b'x']), Err(dump::NoLibrary::Other));
    assert_eq!(dump::read_libraries(&[246, 1, b'x']), Err(dump::NoLibrary::OldFormat));
    let damaged = dump::read_libraries(&libraries[..libraries.len() - 1]);
    assert_eq!(damaged, Err(dump::NoLibrary::Damaged));
}
