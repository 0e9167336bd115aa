//! The strings of a fake server: bytes with a count of references.

use crate::abi::*;
use crate::served;
use std::cell::Cell;
use std::ffi::{c_char, c_int};

struct FakeString {
    bytes: Vec<u8>,
    references: Cell<usize>,
}

pub(super) fn make(bytes: &[u8]) -> *mut RedisModuleString {
    let string = FakeString { bytes: bytes.to_vec(), references: Cell::new(1) };
    Box::into_raw(Box::new(string)).cast()
}

/// # Safety
/// `string` was made here, and is freed after `'a`.
pub(super) unsafe fn bytes<'a>(string: *const RedisModuleString) -> &'a [u8] {
    // SAFETY: as promised.
    unsafe { &(*string.cast::<FakeString>()).bytes }
}

/// Gives a reference back.
///
/// # Safety
/// `string` was made here, and this reference is the caller's.
pub(super) unsafe fn free(string: *mut RedisModuleString) {
    // SAFETY: as promised; the last reference is the box.
    unsafe {
        let string = string.cast::<FakeString>();
        let references = (*string).references.get() - 1;
        (*string).references.set(references);
        if references == 0 {
            drop(Box::from_raw(string));
        }
    }
}

unsafe extern "C" fn create_string(
    _ctx: *mut RedisModuleCtx,
    bytes: *const c_char,
    len: usize,
) -> *mut RedisModuleString {
    // SAFETY: the caller gives so many bytes.
    make(unsafe { crate::string::slice_of(bytes, len) })
}

unsafe extern "C" fn free_string(_ctx: *mut RedisModuleCtx, string: *mut RedisModuleString) {
    // SAFETY: the caller gives its reference back.
    unsafe { free(string) };
}

unsafe extern "C" fn hold_string(
    _ctx: *mut RedisModuleCtx,
    string: *mut RedisModuleString,
) -> *mut RedisModuleString {
    // SAFETY: the string was made here.
    unsafe {
        let references = &(*string.cast::<FakeString>()).references;
        references.set(references.get() + 1);
    }
    string
}

unsafe extern "C" fn string_ptr_len(string: *const RedisModuleString, len: *mut usize) -> *const c_char {
    // SAFETY: the string was made here, and there is room for the length.
    unsafe {
        let bytes = bytes(string);
        *len = bytes.len();
        bytes.as_ptr().cast()
    }
}

unsafe extern "C" fn string_to_double(string: *const RedisModuleString, value: *mut f64) -> c_int {
    // SAFETY: the string was made here, and there is room for the number.
    unsafe {
        match std::str::from_utf8(bytes(string)).ok().and_then(|text| text.parse::<f64>().ok()) {
            Some(parsed) => {
                *value = parsed;
                REDISMODULE_OK
            }
            None => REDISMODULE_ERR,
        }
    }
}

/// Ids as "ms-seq", without the shorter forms that commands take.
unsafe extern "C" fn string_to_stream_id(
    string: *const RedisModuleString,
    id: *mut RedisModuleStreamID,
) -> c_int {
    // SAFETY: the string was made here, and there is room for the id.
    unsafe {
        let parts = std::str::from_utf8(bytes(string)).ok().and_then(|text| text.split_once('-'));
        match parts.map(|(ms, seq)| (ms.parse(), seq.parse())) {
            Some((Ok(ms), Ok(seq))) => {
                *id = RedisModuleStreamID { ms, seq };
                REDISMODULE_OK
            }
            _ => REDISMODULE_ERR,
        }
    }
}

pub(super) static SERVED: &[Served] = served! {
    CreateString = create_string,
    FreeString = free_string,
    HoldString = hold_string,
    StringPtrLen = string_ptr_len,
    StringToDouble = string_to_double,
    StringToStreamID = string_to_stream_id,
};
