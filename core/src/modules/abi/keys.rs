//! Keys of any type, and the keyspace.

use super::given::{Ctx, Key, Out, Str, server_functions};
use super::status;
use crate::call;
use crate::command::typed::StringRef;
use crate::modules::context::with_current;
use crate::modules::key::ModuleKey;
use crate::modules::string::ModuleString;
use crate::types::hash::HashRef;
use crate::types::hashing::hash_key;
use crate::types::list::ListRef;
use crate::types::set::SetRef;
use crate::types::zset::ZSetView;
use crate::types::{Collection, Object, ValueRef, ValueType};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_longlong, c_ulonglong};

pub(super) const SERVED: &[Served] = served! {
    KeyExists = key_exists,
    OpenKey = open_key,
    CloseKey = close_key,
    KeyType = key_type,
    ValueLength = value_length,
    DeleteKey = delete_key,
    UnlinkKey = delete_key,
    GetExpire = get_expire,
    SetExpire = set_expire,
    GetAbsExpire = get_abs_expire,
    SetAbsExpire = set_abs_expire,
    SignalModifiedKey = signal_modified_key,
    GetKeyNameFromModuleKey = get_key_name_from_module_key,
    GetDbIdFromModuleKey = get_db_id_from_module_key,
    ResetDataset = reset_dataset,
    GetLRU = get_lru,
    SetLRU = set_lru,
    GetLFU = get_lfu,
    SetLFU = set_lfu,
    DbSize = db_size,
    RandomKey = random_key,
};

server_functions! {
    fn key_exists(ctx: Ctx, name: Str) -> c_int {
        let db = ctx.call.db;
        ctx.bring(db, name.bytes());
        let key = call::Key { bytes: name.bytes(), hash: hash_key(name.bytes()) };
        c_int::from(ctx.shard().is_some_and(|shard| shard.exists(db, key)))
    }

    fn open_key(ctx: Ctx, name: Str, mode: c_int) -> *mut RedisModuleKey {
        let db = ctx.call.db;
        ctx.bring(db, name.bytes());
        let Some(key) = ModuleKey::open(&mut ctx, name.as_ptr(), mode) else { return std::ptr::null_mut() };
        if let Some(automatic) = &mut ctx.automatic {
            automatic.keys.push(key);
        }
        key.cast()
    }

    fn close_key(key: Option<Key>) {
        let Some(mut key) = key else { return };
        let pointer = key.as_ptr();
        key.context().forget_key(pointer);
        // SAFETY: the module does not use it any more.
        unsafe { ModuleKey::close(pointer) };
    }

    fn key_type(key: Option<Key>) -> c_int {
        let Some(mut key) = key else { return REDISMODULE_KEYTYPE_EMPTY };
        match key.value_type() {
            None => REDISMODULE_KEYTYPE_EMPTY,
            Some(ValueType::String) => REDISMODULE_KEYTYPE_STRING,
            Some(ValueType::List) => REDISMODULE_KEYTYPE_LIST,
            Some(ValueType::Hash) => REDISMODULE_KEYTYPE_HASH,
            Some(ValueType::Set) => REDISMODULE_KEYTYPE_SET,
            Some(ValueType::ZSet) => REDISMODULE_KEYTYPE_ZSET,
            Some(ValueType::Stream) => REDISMODULE_KEYTYPE_STREAM,
            Some(ValueType::Module(_)) => REDISMODULE_KEYTYPE_MODULE,
        }
    }

    /// The length of a string, the number of elements of a collection; 0 for what is not there.
    fn value_length(key: Option<Key>) -> usize {
        let Some(mut key) = key else { return 0 };
        key.value().map_or(0, length)
    }

    fn delete_key(key: Option<Key>) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        key.delete();
        REDISMODULE_OK
    }

    /// The milliseconds that the key has left to live.
    fn get_expire(key: Option<Key>) -> mstime_t {
        let Some(mut key) = key else { return REDISMODULE_NO_EXPIRE };
        let now_ms = key.parts().0.wall_ms;
        let at_ms = key.entry().and_then(|entry| entry.expire_at_ms());
        at_ms.map_or(REDISMODULE_NO_EXPIRE, |at_ms| (at_ms - now_ms).max(0))
    }

    fn set_expire(key: Option<Key>, left_ms: mstime_t) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        if left_ms < 0 && left_ms != REDISMODULE_NO_EXPIRE {
            return REDISMODULE_ERR;
        }
        let now_ms = key.parts().0.wall_ms;
        let at_ms = (left_ms != REDISMODULE_NO_EXPIRE).then(|| now_ms.saturating_add(left_ms));
        status(key.set_expire(at_ms))
    }

    fn get_abs_expire(key: Option<Key>) -> mstime_t {
        let Some(mut key) = key else { return REDISMODULE_NO_EXPIRE };
        key.entry().and_then(|entry| entry.expire_at_ms()).unwrap_or(REDISMODULE_NO_EXPIRE)
    }

    fn set_abs_expire(key: Option<Key>, at_ms: mstime_t) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        if at_ms < 0 && at_ms != REDISMODULE_NO_EXPIRE {
            return REDISMODULE_ERR;
        }
        status(key.set_expire((at_ms != REDISMODULE_NO_EXPIRE).then_some(at_ms)))
    }

    /// How long the key was not used, in milliseconds; -1 under an LFU policy.
    fn get_lru(key: Option<Key>, idle_ms: Out<mstime_t>) -> c_int {
        idle_ms.set(-1);
        let Some(mut key) = key else { return REDISMODULE_ERR };
        let Some(access) = key.entry().map(|entry| entry.access()) else { return REDISMODULE_ERR };
        let clock = &key.parts().0.access;
        if !clock.is_lfu() {
            idle_ms.set(mstime_t::from(clock.idle_s(access)) * 1000);
        }
        REDISMODULE_OK
    }

    fn set_lru(key: Option<Key>, idle_ms: mstime_t) -> c_int {
        let Some(mut key) = key else { return REDISMODULE_ERR };
        let clock = &key.parts().0.access;
        if clock.is_lfu() || idle_ms < 0 {
            return REDISMODULE_ERR;
        }
        let access = clock.idle_since(idle_ms as u64 / 1000);
        touch(&mut key, access)
    }

    /// How often the key is used, on a logarithmic scale; -1 unless the policy is LFU.
    fn get_lfu(key: Option<Key>, frequency: Out<c_longlong>) -> c_int {
        frequency.set(-1);
        let Some(mut key) = key else { return REDISMODULE_ERR };
        let Some(access) = key.entry().map(|entry| entry.access()) else { return REDISMODULE_ERR };
        let clock = &key.parts().0.access;
        if clock.is_lfu() {
            frequency.set(c_longlong::from(clock.frequency(access)));
        }
        REDISMODULE_OK
    }

    fn set_lfu(key: Option<Key>, frequency: c_longlong) -> c_int {
        let Some(mut key) = key else { return REDISMODULE_ERR };
        let clock = &key.parts().0.access;
        let Some(counter) = u8::try_from(frequency).ok().filter(|_| clock.is_lfu()) else { return REDISMODULE_ERR };
        let access = clock.with_frequency(counter);
        touch(&mut key, access)
    }

    fn signal_modified_key(ctx: Ctx, name: Str) -> c_int {
        ctx.signal_modified(name.bytes());
        REDISMODULE_OK
    }

    fn get_key_name_from_module_key(key: Option<Key>) -> *const RedisModuleString {
        key.map_or(std::ptr::null(), |key| key.name().cast_const().cast())
    }

    fn get_db_id_from_module_key(key: Option<Key>) -> c_int {
        key.map_or(-1, |key| key.db() as c_int)
    }

    /// Removes all keys.
    fn reset_dataset(_restart_aof: c_int, in_background: c_int) {
        let mode: &[u8] = if in_background != 0 { b"ASYNC" } else { b"SYNC" };
        with_current(|ctx| ctx.ask("ResetDataset", &[b"FLUSHALL", mode]));
    }

    fn db_size(ctx: Ctx) -> c_ulonglong {
        let text = ctx.ask("DbSize", &[b"DBSIZE"]).unwrap_or_default();
        std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The name of some key; NULL if there is none.
    fn random_key(ctx: Ctx) -> *mut RedisModuleString {
        match ctx.ask("RandomKey", &[b"RANDOMKEY"]) {
            Some(name) => ctx.keep_string(ModuleString::new(&name)),
            None => std::ptr::null_mut(),
        }
    }
}

fn touch(key: &mut ModuleKey, access: u32) -> c_int {
    let Some(entry) = key.entry() else { return REDISMODULE_ERR };
    entry.touch(access);
    REDISMODULE_OK
}

/// How long a value is.
fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Int(number) => StringRef::Int(number).len_bytes(),
        ValueRef::Str(bytes) => bytes.len(),
        ValueRef::Packed(..) => match value.value_type() {
            ValueType::List => ListRef::of(value).map_or(0, ListRef::len),
            ValueType::Hash => HashRef::of(value).map_or(0, HashRef::len),
            ValueType::Set => SetRef::of(value).map_or(0, SetRef::len),
            ValueType::ZSet => ZSetView::of(value).map_or(0, ZSetView::len),
            ValueType::String | ValueType::Stream | ValueType::Module(_) => 0,
        },
        ValueRef::Object(Object::Module(_)) => 0,
        ValueRef::Object(object) => object.len(),
    }
}
