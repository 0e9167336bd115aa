//! Lists.

use crate::abi::{REDISMODULE_LIST_HEAD, REDISMODULE_LIST_TAIL, REDISMODULE_OK, RedisModuleKey};
use crate::api::api;
use crate::string::{ModuleStr, ModuleString};
use std::ffi::{c_int, c_long};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum End {
    Head = REDISMODULE_LIST_HEAD,
    Tail = REDISMODULE_LIST_TAIL,
}

/// A list, for reading. Indices count from the head, negative ones from the tail: -1 is the last element.
pub struct List<'a> {
    key: NonNull<RedisModuleKey>,
    _key: PhantomData<&'a ()>,
}

impl List<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>) -> List<'a> {
        List { key, _key: PhantomData }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        // SAFETY: the key is open.
        unsafe { api!(ValueLength)(self.key.as_ptr()) }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of an element. One after the other costs no more than walking the list.
    pub fn get(&self, index: i64) -> Option<ModuleString> {
        get(self.key, index)
    }
}

fn get(key: NonNull<RedisModuleKey>, index: i64) -> Option<ModuleString> {
    // SAFETY: the key is open.
    let element = unsafe { api!(ListGet)(key.as_ptr(), index as c_long) };
    (!element.is_null()).then(|| ModuleString::from_server(element))
}

/// A list, for writing.
pub struct ListMut<'a> {
    key: NonNull<RedisModuleKey>,
    is_changed: &'a mut bool,
}

impl ListMut<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>, is_changed: &'a mut bool) -> ListMut<'a> {
        ListMut { key, is_changed }
    }

    /// A copy of an element.
    pub fn get(&self, index: i64) -> Option<ModuleString> {
        get(self.key, index)
    }

    pub fn push(&mut self, end: End, element: ModuleStr<'_>) {
        // SAFETY: the key is open for writing and holds a list or nothing; the element lives.
        unsafe { api!(ListPush)(self.key.as_ptr(), end as c_int, element.as_ptr()) };
        *self.is_changed = true;
    }

    pub fn pop(&mut self, end: End) -> Option<ModuleString> {
        // SAFETY: the key is open for writing. The element is ours.
        let element = unsafe { api!(ListPop)(self.key.as_ptr(), end as c_int) };
        *self.is_changed |= !element.is_null();
        (!element.is_null()).then(|| ModuleString::from_server(element))
    }

    /// Replaces an element. Says whether there was one.
    pub fn set(&mut self, index: i64, element: ModuleStr<'_>) -> bool {
        // SAFETY: as for `push`.
        let result = unsafe { api!(ListSet)(self.key.as_ptr(), index as c_long, element.as_ptr()) };
        self.changed(result)
    }

    /// Inserts an element, so that it has this index then. Says whether the list is long enough for that.
    pub fn insert(&mut self, index: i64, element: ModuleStr<'_>) -> bool {
        // SAFETY: as for `push`.
        let result = unsafe { api!(ListInsert)(self.key.as_ptr(), index as c_long, element.as_ptr()) };
        self.changed(result)
    }

    /// Removes an element. Says whether there was one.
    pub fn remove(&mut self, index: i64) -> bool {
        // SAFETY: as for `push`.
        let result = unsafe { api!(ListDelete)(self.key.as_ptr(), index as c_long) };
        self.changed(result)
    }

    fn changed(&mut self, result: c_int) -> bool {
        *self.is_changed |= result == REDISMODULE_OK;
        result == REDISMODULE_OK
    }
}
