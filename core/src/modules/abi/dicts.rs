//! Dictionaries in order of their keys, which modules use for data of their own.

use super::given::{Ctx, Out, Str, Text, abi_functions, bytes_at};
use super::status;
use crate::modules::string::ModuleString;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ops::Bound;

pub(super) const SERVED: &[Served] = served! {
    CreateDict = create_dict,
    FreeDict = free_dict,
    DictSize = dict_size,
    DictSetC = dict_set_c,
    DictReplaceC = dict_replace_c,
    DictSet = dict_set,
    DictReplace = dict_replace,
    DictGetC = dict_get_c,
    DictGet = dict_get,
    DictDelC = dict_del_c,
    DictDel = dict_del,
    DictIteratorStartC = dict_iterator_start_c,
    DictIteratorStart = dict_iterator_start,
    DictIteratorStop = dict_iterator_stop,
    DictIteratorReseekC = dict_iterator_reseek_c,
    DictIteratorReseek = dict_iterator_reseek,
    DictNextC = dict_next_c,
    DictPrevC = dict_prev_c,
    DictNext = dict_next,
    DictPrev = dict_prev,
    DictCompareC = dict_compare_c,
    DictCompare = dict_compare,
    MallocSizeDict = malloc_size_dict,
};

/// The data are pointers of the module.
type Map = BTreeMap<Vec<u8>, *mut c_void>;

/// A dictionary.
type Dict = super::given::Ours<Map, RedisModuleDict>;
/// A position in one.
type Iter = super::given::Ours<Position, RedisModuleDictIter>;

/// Where an iterator is. The module keeps the dictionary for longer than the iterator.
pub(super) struct Position {
    map: *const Map,
    /// The element it is at; `None`: it is past either end.
    current: Option<Vec<u8>>,
    /// The next step returns the current element, because it was looked up and not returned yet.
    is_fresh: bool,
}

/// A key that the module passes as a place and a length.
fn key<'a>(start: *mut c_void, len: usize) -> &'a [u8] {
    // SAFETY: the module passes so many bytes, which last for the call.
    unsafe { bytes_at(start.cast_const().cast(), len) }
}

abi_functions! {
    fn create_dict(_ctx: Option<Ctx>) -> *mut RedisModuleDict {
        Box::into_raw(Box::new(Map::new())).cast()
    }

    fn free_dict(_ctx: Option<Ctx>, dict: Dict) {
        // SAFETY: the module does not use it any more.
        drop(unsafe { Box::from_raw(dict.as_ptr()) });
    }

    fn dict_size(dict: Dict) -> u64 {
        dict.len() as u64
    }

    /// Adds an element, unless there is one of this key.
    fn dict_set_c(dict: Dict, start: *mut c_void, len: usize, data: *mut c_void) -> c_int {
        status(add(&mut dict, key(start, len), data))
    }

    /// Sets an element. It succeeds only if there was none, as in Redis.
    fn dict_replace_c(dict: Dict, start: *mut c_void, len: usize, data: *mut c_void) -> c_int {
        status(dict.insert(key(start, len).to_vec(), data).is_none())
    }

    fn dict_set(dict: Dict, name: Str, data: *mut c_void) -> c_int {
        status(add(&mut dict, name.bytes(), data))
    }

    fn dict_replace(dict: Dict, name: Str, data: *mut c_void) -> c_int {
        status(dict.insert(name.bytes().to_vec(), data).is_none())
    }

    fn dict_get_c(dict: Dict, start: *mut c_void, len: usize, is_missing: Out<c_int>) -> *mut c_void {
        get(&dict, key(start, len), &is_missing)
    }

    fn dict_get(dict: Dict, name: Str, is_missing: Out<c_int>) -> *mut c_void {
        get(&dict, name.bytes(), &is_missing)
    }

    fn dict_del_c(dict: Dict, start: *mut c_void, len: usize, old: *mut c_void) -> c_int {
        remove(&mut dict, key(start, len), old)
    }

    fn dict_del(dict: Dict, name: Str, old: *mut c_void) -> c_int {
        remove(&mut dict, name.bytes(), old)
    }

    fn dict_iterator_start_c(
        dict: Dict, operator: Text, start: *mut c_void, len: usize,
    ) -> *mut RedisModuleDictIter {
        begin(&dict, operator.bytes(), key(start, len))
    }

    fn dict_iterator_start(dict: Dict, operator: Text, name: Option<Str>) -> *mut RedisModuleDictIter {
        begin(&dict, operator.bytes(), name.as_ref().map_or(b"", |name| name.bytes()))
    }

    fn dict_iterator_stop(iter: Iter) {
        // SAFETY: the module does not use it any more.
        drop(unsafe { Box::from_raw(iter.as_ptr()) });
    }

    fn dict_iterator_reseek_c(iter: Iter, operator: Text, start: *mut c_void, len: usize) -> c_int {
        status(seek(&mut iter, operator.bytes(), key(start, len)))
    }

    fn dict_iterator_reseek(iter: Iter, operator: Text, name: Option<Str>) -> c_int {
        status(seek(&mut iter, operator.bytes(), name.as_ref().map_or(b"", |name| name.bytes())))
    }

    /// The key of the next element, which lasts until the iterator moves, and its data; NULL at the end.
    fn dict_next_c(iter: Iter, len: Out<usize>, data: Out<*mut c_void>) -> *mut c_void {
        step(&mut iter, true, &data);
        key_of(&iter, &len)
    }

    fn dict_prev_c(iter: Iter, len: Out<usize>, data: Out<*mut c_void>) -> *mut c_void {
        step(&mut iter, false, &data);
        key_of(&iter, &len)
    }

    fn dict_next(ctx: Option<Ctx>, iter: Iter, data: Out<*mut c_void>) -> *mut RedisModuleString {
        step(&mut iter, true, &data);
        string_of(ctx, &iter)
    }

    fn dict_prev(ctx: Option<Ctx>, iter: Iter, data: Out<*mut c_void>) -> *mut RedisModuleString {
        step(&mut iter, false, &data);
        string_of(ctx, &iter)
    }

    /// Whether the element that an iterator is at compares so with a key.
    fn dict_compare_c(iter: Iter, operator: Text, start: *mut c_void, len: usize) -> c_int {
        status(compare(&iter, operator.bytes(), key(start, len)))
    }

    fn dict_compare(iter: Iter, operator: Text, name: Str) -> c_int {
        status(compare(&iter, operator.bytes(), name.bytes()))
    }

    fn malloc_size_dict(dict: Dict) -> usize {
        let keys: usize = dict.keys().map(|key| key.capacity() + size_of::<(Vec<u8>, *mut c_void)>()).sum();
        size_of::<Map>() + keys
    }
}

fn add(map: &mut Map, key: &[u8], data: *mut c_void) -> bool {
    let is_new = !map.contains_key(key);
    if is_new {
        map.insert(key.to_vec(), data);
    }
    is_new
}

fn get(map: &Map, key: &[u8], is_missing: &Out<c_int>) -> *mut c_void {
    let found = map.get(key);
    is_missing.set(c_int::from(found.is_none()));
    found.copied().unwrap_or(std::ptr::null_mut())
}

/// `old`: the place of a pointer, or NULL.
fn remove(map: &mut Map, key: &[u8], old: *mut c_void) -> c_int {
    let removed = map.remove(key);
    // SAFETY: the module passes such a place.
    if let (Some(data), Some(place)) = (removed, unsafe { old.cast::<*mut c_void>().as_mut() }) {
        *place = data;
    }
    status(removed.is_some())
}

fn begin(map: &Map, operator: &[u8], key: &[u8]) -> *mut RedisModuleDictIter {
    let mut position = Position { map, current: None, is_fresh: false };
    seek(&mut position, operator, key);
    Box::into_raw(Box::new(position)).cast()
}

impl Position {
    fn map(&self) -> &Map {
        // SAFETY: the module keeps the dictionary for longer than the iterator.
        unsafe { &*self.map }
    }
}

/// Moves an iterator to the element that the operator names. Returns whether the operator is one.
fn seek(position: &mut Position, operator: &[u8], key: &[u8]) -> bool {
    let map = position.map();
    let from = |bound| map.range::<[u8], _>((bound, Bound::Unbounded)).next();
    let up_to = |bound| map.range::<[u8], _>((Bound::Unbounded, bound)).next_back();
    let found = match operator {
        b"^" => map.iter().next(),
        b"$" => map.iter().next_back(),
        b">" => from(Bound::Excluded(key)),
        b">=" => from(Bound::Included(key)),
        b"<" => up_to(Bound::Excluded(key)),
        b"<=" => up_to(Bound::Included(key)),
        b"=" | b"==" => map.get_key_value(key),
        _ => return false,
    };
    position.current = found.map(|(key, _)| key.clone());
    position.is_fresh = true;
    true
}

/// Moves an iterator by one element, unless it is at one that was not returned yet.
fn step(position: &mut Position, forward: bool, data: &Out<*mut c_void>) {
    if !std::mem::take(&mut position.is_fresh)
        && let Some(current) = position.current.take()
    {
        let map = position.map();
        let next = if forward {
            map.range::<[u8], _>((Bound::Excluded(&current[..]), Bound::Unbounded)).next()
        } else {
            map.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&current[..]))).next_back()
        };
        position.current = next.map(|(key, _)| key.clone());
    }
    if let Some(value) = position.current.as_ref().and_then(|key| position.map().get(key)) {
        data.set(*value);
    }
}

fn key_of(position: &Position, len: &Out<usize>) -> *mut c_void {
    let Some(key) = &position.current else { return std::ptr::null_mut() };
    len.set(key.len());
    key.as_ptr().cast_mut().cast()
}

fn string_of(ctx: Option<Ctx>, position: &Position) -> *mut RedisModuleString {
    let Some(key) = &position.current else { return std::ptr::null_mut() };
    let string = ModuleString::new(key);
    match ctx {
        Some(mut ctx) => ctx.keep_string(string),
        None => ModuleString::as_abi(string),
    }
}

fn compare(position: &Position, operator: &[u8], key: &[u8]) -> bool {
    let Some(current) = position.current.as_deref() else { return false };
    match operator {
        b">" => current > key,
        b">=" => current >= key,
        b"<" => current < key,
        b"<=" => current <= key,
        b"=" | b"==" => current == key,
        _ => false,
    }
}
