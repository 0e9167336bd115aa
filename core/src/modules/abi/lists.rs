//! Keys that hold lists. What they report besides, they report by `errno`, as the ABI says.

use super::fail_with;
use super::given::{Key, Str, server_functions};
use super::strings::invalid;
use crate::command::handlers::list::limits;
use crate::modules::key::ModuleKey;
use crate::modules::string::ModuleString;
use crate::runtime::os_error;
use crate::types::list::{End, ListMut, ListRef};
use crate::types::listpack::Item;
use crate::types::{PackedKind, ValueType};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_long};

pub(super) const SERVED: &[Served] = served! {
    ListPush = list_push,
    ListPop = list_pop,
    ListGet = list_get,
    ListSet = list_set,
    ListInsert = list_insert,
    ListDelete = list_delete,
};

fn end(place: c_int) -> End {
    if place == REDISMODULE_LIST_HEAD { End::Head } else { End::Tail }
}

fn to_vec(item: Item<'_>) -> Vec<u8> {
    match item {
        Item::Int(number) => itoa::Buffer::new().format(number).as_bytes().to_vec(),
        Item::Str(bytes) => bytes.to_vec(),
    }
}

/// The list and its length, if the key holds one.
///
/// # Errors
/// `errno`: it is not open to write though it is to be changed; it does not exist; it holds something else.
fn list_len(key: &mut ModuleKey, writes: bool) -> Result<usize, c_int> {
    if writes && !key.is_writable() {
        return Err(os_error::BAD_FILE);
    }
    match key.value() {
        None => Err(os_error::NO_ENTRY),
        Some(value) => ListRef::of(value).map(ListRef::len).ok_or(os_error::NOT_SUPPORTED),
    }
}

/// The element at an index, which counts from the end if it is negative.
fn element(key: &mut ModuleKey, index: c_long) -> Result<Vec<u8>, c_int> {
    list_len(key, false)?;
    let list = key.value().and_then(ListRef::of).expect("it was a list just now");
    let at = list.index(index).ok_or(os_error::DOMAIN)?;
    let mut found = None;
    list.walk(at, |item| {
        found = Some(to_vec(item));
        false
    });
    found.ok_or(os_error::DOMAIN)
}

/// A change of the list.
fn change(key: &mut ModuleKey, act: impl FnOnce(&mut ListMut<'_, '_>)) {
    let limits = limits(key.parts().0);
    let mut guard = key.change().expect("it was a list just now");
    act(&mut ListMut::new(guard.value_mut(), limits));
}

server_functions! {
    fn list_push(key: Option<Key>, place: c_int, element: Str) -> c_int {
        let Some(mut key) = key else { return invalid() };
        if !key.is_writable() {
            return fail_with(os_error::BAD_FILE);
        }
        if !matches!(key.value_type(), None | Some(ValueType::List)) {
            return fail_with(os_error::NOT_SUPPORTED);
        }
        let limits = limits(key.parts().0);
        let mut guard = key.change_or_add(PackedKind::List);
        ListMut::new(guard.value_mut(), limits).push(end(place), element.bytes());
        REDISMODULE_OK
    }

    fn list_pop(key: Option<Key>, place: c_int) -> *mut RedisModuleString {
        let Some(mut key) = key else {
            invalid();
            return std::ptr::null_mut();
        };
        let index = if end(place) == End::Head { 0 } else { -1 };
        let popped = list_len(&mut key, true).and_then(|_| element(&mut key, index));
        match popped {
            Ok(bytes) => {
                change(&mut key, |list| list.remove(end(place), 1));
                key.context().keep_string(ModuleString::from_vec(bytes))
            }
            Err(errno) => {
                fail_with(errno);
                std::ptr::null_mut()
            }
        }
    }

    fn list_get(key: Option<Key>, index: c_long) -> *mut RedisModuleString {
        let Some(mut key) = key else {
            invalid();
            return std::ptr::null_mut();
        };
        match element(&mut key, index) {
            Ok(bytes) => key.context().keep_string(ModuleString::from_vec(bytes)),
            Err(errno) => {
                fail_with(errno);
                std::ptr::null_mut()
            }
        }
    }

    fn list_set(key: Option<Key>, index: c_long, value: Option<Str>) -> c_int {
        let (Some(mut key), Some(value)) = (key, value) else { return invalid() };
        if let Err(errno) = list_len(&mut key, true).and_then(|_| element(&mut key, index)) {
            return fail_with(errno);
        }
        let at = position(&mut key, index);
        change(&mut key, |list| list.set(at, value.bytes()));
        REDISMODULE_OK
    }

    /// Inserts before the element at a non-negative index, or behind that at a negative one; at either end, too.
    fn list_insert(key: Option<Key>, index: c_long, value: Option<Str>) -> c_int {
        let (Some(mut key), Some(value)) = (key, value) else { return invalid() };
        if key.is_writable() && key.value_type().is_none() && (index == 0 || index == -1) {
            let limits = limits(key.parts().0);
            let mut guard = key.change_or_add(PackedKind::List);
            ListMut::new(guard.value_mut(), limits).push(End::Tail, value.bytes());
            return REDISMODULE_OK;
        }
        let len = match list_len(&mut key, true) {
            Ok(len) => len as c_long,
            Err(errno) => return fail_with(errno),
        };
        let at = if index < 0 { len + index + 1 } else { index };
        if !(0..=len).contains(&at) {
            return fail_with(os_error::DOMAIN);
        }
        change(&mut key, |list| list.insert(at as usize, value.bytes()));
        REDISMODULE_OK
    }

    fn list_delete(key: Option<Key>, index: c_long) -> c_int {
        let Some(mut key) = key else { return invalid() };
        if let Err(errno) = list_len(&mut key, true).and_then(|_| element(&mut key, index)) {
            return fail_with(errno);
        }
        let at = position(&mut key, index);
        change(&mut key, |list| list.remove_at(at));
        REDISMODULE_OK
    }
}

/// The place of an index that exists.
fn position(key: &mut ModuleKey, index: c_long) -> usize {
    let list = key.value().and_then(ListRef::of).expect("it was a list just now");
    list.index(index).expect("the element was there just now")
}
