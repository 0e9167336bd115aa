//! Hashes.

use crate::abi::{
    REDISMODULE_HASH_COUNT_ALL, REDISMODULE_HASH_EXISTS, REDISMODULE_HASH_NONE, RedisModuleKey,
    RedisModuleString,
};
use crate::api::api;
use crate::string::{ModuleStr, ModuleString};
use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A hash, for reading.
pub struct Hash<'a> {
    key: NonNull<RedisModuleKey>,
    _key: PhantomData<&'a ()>,
}

impl Hash<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>) -> Hash<'a> {
        Hash { key, _key: PhantomData }
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        // SAFETY: the key is open.
        unsafe { api!(ValueLength)(self.key.as_ptr()) }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of a field's value.
    pub fn get(&self, field: ModuleStr<'_>) -> Option<ModuleString> {
        get(self.key, field)
    }

    pub fn has(&self, field: ModuleStr<'_>) -> bool {
        let mut exists: c_int = 0;
        // SAFETY: with this flag, each field is followed by a pointer to an integer; NULL ends them.
        unsafe {
            let end = std::ptr::null::<RedisModuleString>();
            api!(HashGet)(self.key.as_ptr(), REDISMODULE_HASH_EXISTS, field.as_ptr(), &raw mut exists, end);
        }
        exists != 0
    }
}

fn get(key: NonNull<RedisModuleKey>, field: ModuleStr<'_>) -> Option<ModuleString> {
    let mut value: *mut RedisModuleString = std::ptr::null_mut();
    // SAFETY: without flags, each field is followed by a pointer to where its value goes; NULL ends them.
    unsafe {
        let end = std::ptr::null::<RedisModuleString>();
        api!(HashGet)(key.as_ptr(), REDISMODULE_HASH_NONE, field.as_ptr(), &raw mut value, end);
    }
    (!value.is_null()).then(|| ModuleString::from_server(value))
}

/// A hash, for writing.
pub struct HashMut<'a> {
    key: NonNull<RedisModuleKey>,
    is_changed: &'a mut bool,
}

impl HashMut<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>, is_changed: &'a mut bool) -> HashMut<'a> {
        HashMut { key, is_changed }
    }

    /// A copy of a field's value.
    pub fn get(&self, field: ModuleStr<'_>) -> Option<ModuleString> {
        get(self.key, field)
    }

    /// Sets a field. Says whether it is new.
    pub fn set(&mut self, field: ModuleStr<'_>, value: ModuleStr<'_>) -> bool {
        let is_new = get(self.key, field).is_none();
        self.change(field, value.as_ptr());
        is_new
    }

    /// Removes a field. Says whether it was there.
    pub fn remove(&mut self, field: ModuleStr<'_>) -> bool {
        // The value that stands for "delete it".
        self.change(field, std::ptr::without_provenance_mut(1)) > 0
    }

    fn change(&mut self, field: ModuleStr<'_>, value: *mut RedisModuleString) -> c_int {
        // SAFETY: the key is open for writing and holds a hash or nothing. Each field is followed by its value; NULL ends
        // them.
        let changed = unsafe {
            let end = std::ptr::null::<RedisModuleString>();
            api!(HashSet)(self.key.as_ptr(), REDISMODULE_HASH_COUNT_ALL, field.as_ptr(), value, end)
        };
        *self.is_changed |= changed > 0;
        changed
    }
}
