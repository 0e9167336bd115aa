//! Keys that hold hashes.

use super::given::{Key, server_functions};
use super::{fail_with, status};
use crate::command::typed::{Digits, StringRef};
use crate::modules::key::ModuleKey;
use crate::modules::string::ModuleString;
use crate::runtime::os_error;
use crate::types::hash::{HashLimits, HashMut, HashRef};
use crate::types::{PackedKind, ValueType};
use shardis_modules_api::abi::*;
use shardis_modules_api::host::Arguments;
use shardis_modules_api::served;
use std::ffi::{CStr, c_char, c_int};

pub(super) const SERVED: &[Served] = served! {};

/// The header's `REDISMODULE_HASH_DELETE`: stands for a string, and has the field removed.
const HASH_DELETE: usize = 1;

/// The next field of the arguments; `None` at their end.
///
/// # Safety
/// The module has passed pairs that end with NULL.
unsafe fn next_field(arguments: *mut Arguments, is_text: bool) -> Option<Vec<u8>> {
    // SAFETY: as promised.
    let field = unsafe { (*arguments).pointer() };
    if field.is_null() {
        return None;
    }
    if is_text {
        // SAFETY: with CFIELDS a field is a C string.
        return Some(unsafe { CStr::from_ptr(field.cast::<c_char>()) }.to_bytes().to_vec());
    }
    // SAFETY: without, it is a string of ours.
    Some(unsafe { &*field.cast::<ModuleString>() }.bytes().to_vec())
}

fn limits(key: &mut ModuleKey) -> HashLimits {
    let config = &key.parts().0.config;
    HashLimits {
        len: config.hash_max_listpack_entries as usize,
        string_len_bytes: config.hash_max_listpack_value_bytes as usize,
    }
}

fn has_field(key: &mut ModuleKey, field: &[u8]) -> bool {
    key.value().and_then(HashRef::of).is_some_and(|hash| hash.get(field).is_some())
}

server_functions! {
    /// Sets or removes fields. Returns how many existed before, with COUNT_ALL also those that are new.
    fn hash_set(key: Option<Key>, flags: c_int, arguments: *mut Arguments) -> c_int {
        const KNOWN: c_int = REDISMODULE_HASH_NX | REDISMODULE_HASH_XX | REDISMODULE_HASH_CFIELDS | REDISMODULE_HASH_COUNT_ALL;
        let Some(mut key) = key.filter(|_| flags & !KNOWN == 0) else {
            fail_with(os_error::INVALID);
            return 0;
        };
        if !key.is_writable() {
            fail_with(os_error::BAD_FILE);
            return 0;
        }
        if !matches!(key.value_type(), None | Some(ValueType::Hash)) {
            fail_with(os_error::NOT_SUPPORTED);
            return 0;
        }
        let (absent, present) = (flags & REDISMODULE_HASH_NX != 0, flags & REDISMODULE_HASH_XX != 0);
        let limits = limits(&mut key);
        let mut count = 0;
        // SAFETY: the module passes pairs of a field and a value, and NULL behind them.
        while let Some(field) = unsafe { next_field(arguments, flags & REDISMODULE_HASH_CFIELDS != 0) } {
            // SAFETY: as above.
            let value = unsafe { (*arguments).pointer() };
            let exists = has_field(&mut key, &field);
            if (present && !exists) || (absent && exists) {
                continue;
            }
            if value.addr() == HASH_DELETE {
                count += c_int::from(exists);
                if let Some(mut guard) = key.change().filter(|_| exists) {
                    HashMut::new(guard.value_mut(), limits).remove(&field);
                }
                continue;
            }
            // SAFETY: any other value is a string.
            let value = unsafe { &*value.cast::<ModuleString>() }.bytes();
            let mut guard = key.change_or_add(PackedKind::Hash);
            HashMut::new(guard.value_mut(), limits).set(&field, value);
            count += c_int::from(exists || flags & REDISMODULE_HASH_COUNT_ALL != 0);
        }
        if count == 0 {
            fail_with(os_error::NO_ENTRY);
        }
        count
    }

    /// Reads fields: their values, NULL for those that are not there; with EXISTS only whether they are.
    fn hash_get(key: Option<Key>, flags: c_int, arguments: *mut Arguments) -> c_int {
        if let Some(key) = &mut key
            && !matches!(key.value_type(), None | Some(ValueType::Hash))
        {
            return REDISMODULE_ERR;
        }
        // SAFETY: the module passes pairs of a field and a place, and NULL behind them.
        while let Some(field) = unsafe { next_field(arguments, flags & REDISMODULE_HASH_CFIELDS != 0) } {
            // SAFETY: as above.
            let place = unsafe { (*arguments).pointer() };
            if flags & REDISMODULE_HASH_EXISTS != 0 {
                let exists = key.as_mut().is_some_and(|key| has_field(key, &field));
                // SAFETY: with EXISTS the place is that of an int.
                unsafe { place.cast::<c_int>().write(c_int::from(exists)) };
                continue;
            }
            let value = key.as_mut().and_then(|key| field_value(key, &field));
            let value = match (value, &mut key) {
                (Some(value), Some(key)) => key.context().keep_string(ModuleString::from_vec(value)),
                (Some(_), None) | (None, _) => std::ptr::null_mut(),
            };
            // SAFETY: without, it is that of a string.
            unsafe { place.cast::<*mut RedisModuleString>().write(value) };
        }
        status(true)
    }
}

fn field_value(key: &mut ModuleKey, field: &[u8]) -> Option<Vec<u8>> {
    let value = key.value().and_then(HashRef::of)?.get(field)?;
    Some(StringRef::from(value).bytes(&mut Digits::new()).to_vec())
}
