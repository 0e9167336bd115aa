//! Keys that hold strings.

use super::given::{Key, Out, Str, server_functions};
use crate::command::typed::encode;
use crate::types::{NewValue, ValueRef};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_char, c_int};

pub(super) const SERVED: &[Served] = served! {
    StringSet = string_set,
    StringDMA = string_dma,
    StringTruncate = string_truncate,
};

/// What an empty string points to. Nothing is written there, because it has no bytes.
static EMPTY: [u8; 1] = [0];

server_functions! {
    /// Sets the key to a string. Its expiry is removed.
    fn string_set(key: Option<Key>, string: Str) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        key.stop_walk();
        key.set(encode(string.bytes()));
        REDISMODULE_OK
    }

    /// The bytes of the string, which may be changed in place if the key is open for that. They stay where they are until
    /// the key is changed otherwise. NULL for a value of another type.
    fn string_dma(key: Option<Key>, len: Out<usize>, mode: c_int) -> *mut c_char {
        let Some(mut key) = key else { return std::ptr::null_mut() };
        len.set(0);
        if mode & REDISMODULE_WRITE != 0 && key.is_writable() {
            let Some(mut guard) = key.change() else { return no_bytes() };
            return match text_len(guard.value()) {
                None => std::ptr::null_mut(),
                Some(0) => no_bytes(),
                Some(current_len) => {
                    len.set(current_len);
                    guard.string_mut(current_len, 0..current_len).as_mut_ptr().cast()
                }
            };
        }
        match key.value() {
            None => no_bytes(),
            Some(ValueRef::Str([])) => no_bytes(),
            Some(ValueRef::Str(bytes)) => {
                len.set(bytes.len());
                bytes.as_ptr().cast_mut().cast()
            }
            Some(ValueRef::Int(number)) => {
                let digits = key.keep_digits(number);
                len.set(digits.len());
                digits.as_ptr().cast_mut().cast()
            }
            Some(ValueRef::Packed(..) | ValueRef::Object(_)) => std::ptr::null_mut(),
        }
    }

    /// Makes the string so long: cuts it, or fills it up with zeros. Length 0 removes no key that is there, and adds none.
    fn string_truncate(key: Option<Key>, new_len: usize) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        if key.parts().0.string_len_max() < new_len as u64 {
            return REDISMODULE_ERR;
        }
        let Some(mut guard) = key.change() else {
            if new_len > 0 {
                key.set(NewValue::OwnedRaw(vec![0; new_len]));
            }
            return REDISMODULE_OK;
        };
        let Some(len) = text_len(guard.value()) else { return REDISMODULE_ERR };
        if new_len > len {
            guard.string_mut(new_len, new_len..new_len);
        } else if new_len < len {
            let shorter = guard.string_mut(0, 0..0)[..new_len].to_vec();
            guard.set(NewValue::OwnedRaw(shorter));
        }
        REDISMODULE_OK
    }
}

/// What an empty string points to.
fn no_bytes() -> *mut c_char {
    EMPTY.as_ptr().cast_mut().cast()
}

/// The length of a string, or of the digits of a number. `None`: the value is neither.
fn text_len(value: ValueRef<'_>) -> Option<usize> {
    match value {
        ValueRef::Int(number) => Some(itoa::Buffer::new().format(number).len()),
        ValueRef::Str(bytes) => Some(bytes.len()),
        ValueRef::Packed(..) | ValueRef::Object(_) => None,
    }
}
