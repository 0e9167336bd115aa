//! RDB files and DUMP payloads of any bytes: no bytes do harm, and what was read is written and read again as it was.
//!
//! Input: a byte for the kind of input, then a file behind its header, or the value of a payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::persist::rdb::dump;
use shardis_pure::persist::rdb::file::{FileReader, Item};
use shardis_pure::persist::rdb::module::Modules;
use shardis_pure::persist::rdb::read::ReadError;
use shardis_pure::persist::rdb::value::Limits;
use shardis_pure::persist::rdb::window::{FileError, for_each_item};
use shardis_pure::persist::rdb::write::Writer;
use shardis_pure::types::{OwnedValue, ValueRef};

fn value_ref(value: &OwnedValue) -> ValueRef<'_> {
    match value {
        OwnedValue::Int(number) => ValueRef::Int(*number),
        OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) => ValueRef::Str(bytes),
        OwnedValue::Packed(kind, bytes) => ValueRef::Packed(*kind, bytes),
        OwnedValue::Object(object) => ValueRef::Object(object),
    }
}

fn written(value: &OwnedValue) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, true).value(value_ref(value));
    bytes
}

/// What was read is written, and read again, without a change.
fn check_identity(value: &OwnedValue) {
    let once = written(value);
    let again = dump::read(&once, &Limits::default(), &Modules::none()).expect("what was written can be read");
    assert_eq!(value_ref(value).value_type(), value_ref(&again).value_type());
    // The order of a big collection's elements may be another one.
    assert_eq!(once.len(), written(&again).len());
}

fn read_file(header: &[u8], rest: &[u8]) {
    let bytes = [header, rest].concat();
    let mut reader = FileReader::new(false);
    let outcome = for_each_item(&mut &bytes[..], &mut reader, |item, _| {
        if let Item::Record(record) = item {
            record.key.into_vec().map_err(FileError::Read)?;
            match record.read_value(&Limits::default(), &Modules::none()) {
                Ok(value) => check_identity(&value),
                Err(ReadError::EmptyKey | ReadError::NoModule { .. }) => {}
                Err(error) => return Err(FileError::Read(error)),
            }
        }
        Ok(())
    });
    let _ = outcome;
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    match kind % 4 {
        0 => read_file(b"REDIS0010", rest),
        1 => read_file(b"REDIS0003", rest),
        2 => read_file(b"VALKEY080", rest),
        _ => {
            if let Ok(value) = dump::read(rest, &Limits::default(), &Modules::none()) {
                check_identity(&value);
            }
        }
    }
});
