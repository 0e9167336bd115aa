//! The payload of DUMP: a value as in a file, the version in two bytes, and the checksum of both. That of FUNCTION DUMP has
//! libraries of functions instead of the value.

use super::module::Modules;
use super::read::{ReadError, ReadResult, Reader};
use super::value::{Limits, read_value};
use super::{REDIS_VERSION_MAX, VALKEY_VERSION, VERSION, ValueKind, opcode};
use crate::persist::crc64::crc64;
use crate::types::OwnedValue;

const FOOTER_LEN: usize = 10;

/// Appends the footer to a value, which begins at `start`.
pub fn seal(payload: &mut Vec<u8>, start: usize) {
    payload.extend_from_slice(&VERSION.to_le_bytes());
    let checksum = crc64(&payload[start..]);
    payload.extend_from_slice(&checksum.to_le_bytes());
}

/// The value of a payload with its type, or `None` if its version or checksum is wrong.
pub fn open(payload: &[u8], check_checksum: bool) -> Option<&[u8]> {
    let value_len = payload.len().checked_sub(FOOTER_LEN)?;
    let (value, footer) = payload.split_at(value_len);
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    if version > REDIS_VERSION_MAX && version != VALKEY_VERSION {
        return None;
    }
    let (checked, checksum) = payload.split_at(value_len + 2);
    (!check_checksum || crc64(checked).to_le_bytes() == checksum).then_some(value)
}

/// Reads the value of a payload.
///
/// # Errors
/// Damage, a type that is not read, and a collection without elements. What stands behind the value is not looked at, as in
/// Redis.
pub fn read(value: &[u8], limits: &Limits, modules: &Modules<'_>) -> ReadResult<OwnedValue> {
    let mut reader = Reader::new(value, 0);
    let kind = ValueKind::of(reader.byte()?).map_err(|what| match what {
        Some(what) => ReadError::Unsupported { offset: 0, what },
        None => reader.damaged("an unknown type of value"),
    })?;
    read_value(&mut reader, kind, limits, modules)
}

/// What a payload of FUNCTION DUMP is instead of libraries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoLibrary {
    /// Something else, such as a value.
    Other,
    /// A library in the format of release candidates of Redis 7.0.
    OldFormat,
    Damaged,
}

/// The texts of the libraries of a payload.
///
/// # Errors
/// It has something else besides.
pub fn read_libraries(libraries: &[u8]) -> Result<Vec<Vec<u8>>, NoLibrary> {
    let mut reader = Reader::new(libraries, 0);
    let mut texts = Vec::new();
    while !reader.is_at_end() {
        match reader.byte() {
            Ok(opcode::LIBRARY) => {}
            Ok(opcode::LIBRARY_PRE_GA) => return Err(NoLibrary::OldFormat),
            Ok(_) => return Err(NoLibrary::Other),
            Err(_) => return Err(NoLibrary::Damaged),
        }
        let text = reader.string().and_then(|text| text.into_vec());
        texts.push(text.map_err(|_| NoLibrary::Damaged)?);
    }
    Ok(texts)
}
