//! The keys of a fake server.

use super::streams::Walk;
use super::strings::{self, bytes};
use super::{State, Value, state};
use crate::abi::*;
use crate::served;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::transmute;

/// An open key.
struct FakeKey {
    state: *mut State,
    name: Vec<u8>,
    is_writable: bool,
    iterated: Option<Iterated>,
}

/// What is walked over in a key.
pub(super) enum Iterated {
    Zset(Range),
    Stream(Walk),
}

/// Elements of a sorted set with their scores, and which of them is the current one.
pub(super) struct Range {
    elements: Vec<(Vec<u8>, f64)>,
    at: usize,
}

impl FakeKey {
    fn state(&mut self) -> &mut State {
        // SAFETY: the host outlives its keys, and its functions run one at a time.
        unsafe { &mut *self.state }
    }

    fn value(&mut self) -> Option<&mut Value> {
        let name = self.name.clone();
        self.state().keys.get_mut(&name)
    }

    /// The value to be written; made if there is none.
    fn value_or(&mut self, empty: Value) -> &mut Value {
        assert!(self.is_writable, "a key that is open for reading is written");
        let name = self.name.clone();
        self.state().keys.entry(name).or_insert(empty)
    }

    fn remove(&mut self) -> Option<Value> {
        assert!(self.is_writable, "a key that is open for reading is deleted");
        let name = self.name.clone();
        self.state().expire_at_ms.remove(&name);
        self.state().keys.remove(&name)
    }

    /// Something was put into it, which clients may wait for.
    fn set_ready(&mut self) {
        let name = self.name.clone();
        self.state().clients.set_ready(&name);
    }

    fn range(&mut self) -> Option<&mut Range> {
        match &mut self.iterated {
            Some(Iterated::Zset(range)) => Some(range),
            Some(Iterated::Stream(_)) | None => None,
        }
    }

    /// A collection without elements is no key.
    fn remove_if_empty(&mut self) {
        let is_empty = match self.value() {
            Some(Value::List(list)) => list.is_empty(),
            Some(Value::Hash(hash)) => hash.is_empty(),
            Some(Value::Set(set)) => set.is_empty(),
            Some(Value::Zset(zset)) => zset.is_empty(),
            Some(Value::String(_) | Value::Stream(_) | Value::Module(_)) | None => false,
        };
        if is_empty {
            self.remove();
        }
    }
}

/// # Safety
/// `key` was opened here, and is not closed during `'a`.
unsafe fn fake<'a>(key: *mut RedisModuleKey) -> &'a mut FakeKey {
    // SAFETY: as promised; functions of the server run one at a time and keep no references.
    unsafe { &mut *key.cast::<FakeKey>() }
}

// What other types of values need of an open key. It was opened here, and is not closed meanwhile; what is given is used before
// the next function of the server is called.

pub(super) unsafe fn value<'a>(key: *mut RedisModuleKey) -> Option<&'a mut Value> {
    // SAFETY: see above.
    unsafe { fake(key) }.value()
}

/// The value to be written; made if there is none.
pub(super) unsafe fn value_or<'a>(key: *mut RedisModuleKey, empty: Value) -> &'a mut Value {
    // SAFETY: see above.
    unsafe { fake(key) }.value_or(empty)
}

pub(super) unsafe fn replace(key: *mut RedisModuleKey, value: Value) {
    // SAFETY: see above.
    let key = unsafe { fake(key) };
    assert!(key.is_writable, "a key that is open for reading is written");
    let name = key.name.clone();
    key.state().replace(&name, value);
}

pub(super) unsafe fn set_ready(key: *mut RedisModuleKey) {
    // SAFETY: see above.
    unsafe { fake(key) }.set_ready();
}

pub(super) unsafe fn start_iteration(key: *mut RedisModuleKey, iterated: Iterated) {
    // SAFETY: see above.
    let key = unsafe { fake(key) };
    assert!(key.iterated.is_none(), "an iteration was started and not stopped");
    key.iterated = Some(iterated);
}

pub(super) unsafe fn iterated<'a>(key: *mut RedisModuleKey) -> Option<&'a mut Iterated> {
    // SAFETY: see above.
    unsafe { fake(key) }.iterated.as_mut()
}

pub(super) unsafe extern "C" fn stop_iteration(key: *mut RedisModuleKey) {
    // SAFETY: see above.
    unsafe { fake(key) }.iterated = None;
}

unsafe extern "C" fn open_key(
    ctx: *mut RedisModuleCtx,
    name: *mut RedisModuleString,
    mode: c_int,
) -> *mut RedisModuleKey {
    // SAFETY: context and name are those of a call under way.
    let (state, name) = unsafe { (state(ctx), bytes(name).to_vec()) };
    let is_writable = mode & REDISMODULE_WRITE != 0;
    let is_open = state.open_keys.iter().any(|(open, writable)| *open == name && (is_writable || *writable));
    assert!(!is_open, "{:?} is open already", String::from_utf8_lossy(&name));
    if !is_writable && !state.keys.contains_key(&name) {
        return std::ptr::null_mut();
    }
    state.open_keys.push((name.clone(), is_writable));
    Box::into_raw(Box::new(FakeKey { state, name, is_writable, iterated: None })).cast()
}

unsafe extern "C" fn close_key(key: *mut RedisModuleKey) {
    // SAFETY: the key was opened here, and is not used any more.
    let mut key = unsafe { Box::from_raw(key.cast::<FakeKey>()) };
    let this = (key.name.clone(), key.is_writable);
    let open = &mut key.state().open_keys;
    let at = open.iter().position(|open| *open == this).expect("it is open");
    open.remove(at);
}

unsafe extern "C" fn key_type(key: *mut RedisModuleKey) -> c_int {
    if key.is_null() {
        return REDISMODULE_KEYTYPE_EMPTY;
    }
    // SAFETY: the key is open.
    match unsafe { fake(key) }.value() {
        None => REDISMODULE_KEYTYPE_EMPTY,
        Some(Value::String(_)) => REDISMODULE_KEYTYPE_STRING,
        Some(Value::List(_)) => REDISMODULE_KEYTYPE_LIST,
        Some(Value::Hash(_)) => REDISMODULE_KEYTYPE_HASH,
        Some(Value::Set(_)) => REDISMODULE_KEYTYPE_SET,
        Some(Value::Zset(_)) => REDISMODULE_KEYTYPE_ZSET,
        Some(Value::Stream(_)) => REDISMODULE_KEYTYPE_STREAM,
        Some(Value::Module(_)) => REDISMODULE_KEYTYPE_MODULE,
    }
}

unsafe extern "C" fn value_length(key: *mut RedisModuleKey) -> usize {
    if key.is_null() {
        return 0;
    }
    // SAFETY: the key is open.
    match unsafe { fake(key) }.value() {
        None => 0,
        Some(Value::String(bytes)) => bytes.len(),
        Some(Value::List(list)) => list.len(),
        Some(Value::Hash(hash)) => hash.len(),
        Some(Value::Set(set)) => set.len(),
        Some(Value::Zset(zset)) => zset.len(),
        Some(Value::Stream(stream)) => stream.entries.len(),
        Some(Value::Module(_)) => 1,
    }
}

unsafe extern "C" fn delete_key(key: *mut RedisModuleKey) -> c_int {
    // SAFETY: the key is open.
    let key = unsafe { fake(key) };
    assert!(key.is_writable, "a key that is open for reading is deleted");
    let name = key.name.clone();
    key.state().delete(&name);
    REDISMODULE_OK
}

unsafe extern "C" fn get_expire(key: *mut RedisModuleKey) -> mstime_t {
    // SAFETY: the key is open.
    let key = unsafe { fake(key) };
    let name = key.name.clone();
    let state = key.state();
    state.expire_at_ms.get(&name).map_or(REDISMODULE_NO_EXPIRE, |at_ms| at_ms - state.now_ms)
}

unsafe extern "C" fn set_expire(key: *mut RedisModuleKey, expire_ms: mstime_t) -> c_int {
    // SAFETY: the key is open.
    let key = unsafe { fake(key) };
    let name = key.name.clone();
    let in_ms = (expire_ms != REDISMODULE_NO_EXPIRE).then_some(expire_ms);
    if key.state().set_expire(&name, in_ms) { REDISMODULE_OK } else { REDISMODULE_ERR }
}

unsafe extern "C" fn string_dma(key: *mut RedisModuleKey, len: *mut usize, mode: c_int) -> *mut c_char {
    // SAFETY: the key is open, and there is room for the length.
    unsafe {
        let key = fake(key);
        assert!(
            mode & REDISMODULE_WRITE == 0 || key.is_writable,
            "a key that is open for reading is written"
        );
        *len = 0;
        match key.value() {
            None => std::ptr::without_provenance_mut(1),
            Some(Value::String(bytes)) => {
                *len = bytes.len();
                bytes.as_mut_ptr().cast()
            }
            Some(_) => std::ptr::null_mut(),
        }
    }
}

unsafe extern "C" fn string_truncate(key: *mut RedisModuleKey, len: usize) -> c_int {
    // SAFETY: the key is open.
    let key = unsafe { fake(key) };
    if len > 512 << 20 {
        return REDISMODULE_ERR;
    }
    if len == 0 && key.value().is_none() {
        return REDISMODULE_OK;
    }
    match key.value_or(Value::String(Vec::new())) {
        Value::String(bytes) => {
            bytes.resize(len, 0);
            REDISMODULE_OK
        }
        _ => REDISMODULE_ERR,
    }
}

unsafe extern "C" fn string_set(key: *mut RedisModuleKey, string: *mut RedisModuleString) -> c_int {
    // SAFETY: the key is open, and the string lives.
    unsafe { replace(key, Value::String(bytes(string).to_vec())) };
    REDISMODULE_OK
}

unsafe extern "C" fn zset_add(
    key: *mut RedisModuleKey,
    score: f64,
    element: *mut RedisModuleString,
    flags: *mut c_int,
) -> c_int {
    // SAFETY: the key is open, the element lives, and the flags are there.
    let (key, element, flags) = unsafe { (fake(key), bytes(element).to_vec(), &mut *flags) };
    if score.is_nan() {
        return REDISMODULE_ERR;
    }
    let options = std::mem::take(flags);
    let is = |option: c_int| options & option != 0;
    let Value::Zset(zset) = key.value_or(Value::Zset(Default::default())) else { return REDISMODULE_ERR };
    *flags = match zset.get(&element) {
        None if is(REDISMODULE_ZADD_XX) => REDISMODULE_ZADD_NOP,
        None => REDISMODULE_ZADD_ADDED,
        Some(old)
            if is(REDISMODULE_ZADD_NX)
                || is(REDISMODULE_ZADD_GT) && score <= *old
                || is(REDISMODULE_ZADD_LT) && score >= *old =>
        {
            REDISMODULE_ZADD_NOP
        }
        Some(old) if *old == score => 0,
        Some(_) => REDISMODULE_ZADD_UPDATED,
    };
    if *flags & (REDISMODULE_ZADD_ADDED | REDISMODULE_ZADD_UPDATED) != 0 {
        zset.insert(element, score);
        key.set_ready();
    }
    key.remove_if_empty();
    REDISMODULE_OK
}

unsafe extern "C" fn zset_incr(
    key: *mut RedisModuleKey,
    increment: f64,
    element: *mut RedisModuleString,
    flags: *mut c_int,
    new_score: *mut f64,
) -> c_int {
    // SAFETY: the key is open, the element lives, and flags and score are there.
    unsafe {
        let mut old = 0.0;
        if zset_score(key, element, &raw mut old) != REDISMODULE_OK {
            old = 0.0;
        }
        *new_score = old + increment;
        zset_add(key, *new_score, element, flags)
    }
}

unsafe extern "C" fn zset_score(
    key: *mut RedisModuleKey,
    element: *mut RedisModuleString,
    score: *mut f64,
) -> c_int {
    // SAFETY: the key is open, the element lives, and there is room for the score.
    unsafe {
        let found = match fake(key).value() {
            Some(Value::Zset(zset)) => zset.get(bytes(element)).copied(),
            _ => None,
        };
        match found {
            Some(found) => {
                *score = found;
                REDISMODULE_OK
            }
            None => REDISMODULE_ERR,
        }
    }
}

unsafe extern "C" fn zset_rem(
    key: *mut RedisModuleKey,
    element: *mut RedisModuleString,
    deleted: *mut c_int,
) -> c_int {
    // SAFETY: the key is open, the element lives, and there is room for the answer.
    unsafe {
        let key = fake(key);
        assert!(key.is_writable, "a key that is open for reading is written");
        *deleted = match key.value() {
            Some(Value::Zset(zset)) => c_int::from(zset.remove(bytes(element)).is_some()),
            _ => 0,
        };
        key.remove_if_empty();
    }
    REDISMODULE_OK
}

/// The elements with scores in a range, in order of score and element.
fn start_range(key: &mut FakeKey, min: f64, max: f64, min_excluded: c_int, max_excluded: c_int) {
    let is_in = |score: f64| {
        (if min_excluded != 0 { score > min } else { score >= min })
            && (if max_excluded != 0 { score < max } else { score <= max })
    };
    let Some(Value::Zset(zset)) = key.value() else { return };
    let mut elements: Vec<(Vec<u8>, f64)> = zset
        .iter()
        .filter(|(_, score)| is_in(**score))
        .map(|(element, score)| (element.clone(), *score))
        .collect();
    // Elements of one score stay in the order of their bytes.
    elements.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert!(key.iterated.is_none(), "an iteration was started and not stopped");
    key.iterated = Some(Iterated::Zset(Range { elements, at: 0 }));
}

unsafe extern "C" fn zset_first(
    key: *mut RedisModuleKey,
    min: f64,
    max: f64,
    min_excluded: c_int,
    max_excluded: c_int,
) -> c_int {
    // SAFETY: the key is open.
    start_range(unsafe { fake(key) }, min, max, min_excluded, max_excluded);
    REDISMODULE_OK
}

unsafe extern "C" fn zset_last(
    key: *mut RedisModuleKey,
    min: f64,
    max: f64,
    min_excluded: c_int,
    max_excluded: c_int,
) -> c_int {
    // SAFETY: the key is open.
    let key = unsafe { fake(key) };
    start_range(key, min, max, min_excluded, max_excluded);
    if let Some(range) = key.range() {
        range.at = range.elements.len().wrapping_sub(1);
    }
    REDISMODULE_OK
}

unsafe extern "C" fn zset_next(key: *mut RedisModuleKey) -> c_int {
    // SAFETY: the key is open.
    match unsafe { fake(key) }.range() {
        Some(range) => {
            range.at = range.at.wrapping_add(1);
            c_int::from(range.at < range.elements.len())
        }
        None => 0,
    }
}

unsafe extern "C" fn zset_prev(key: *mut RedisModuleKey) -> c_int {
    // SAFETY: the key is open.
    match unsafe { fake(key) }.range() {
        Some(range) => {
            range.at = range.at.wrapping_sub(1);
            c_int::from(range.at < range.elements.len())
        }
        None => 0,
    }
}

unsafe extern "C" fn zset_current(
    key: *mut RedisModuleKey,
    len: *mut usize,
    score: *mut f64,
) -> *const c_char {
    // SAFETY: the key is open, and there is room for length and score.
    unsafe {
        match fake(key).range().and_then(|range| range.elements.get(range.at)) {
            Some((element, found)) => {
                *len = element.len();
                *score = *found;
                element.as_ptr().cast()
            }
            None => std::ptr::null(),
        }
    }
}

unsafe extern "C" fn zset_visit(
    key: *mut RedisModuleKey,
    min: f64,
    max: f64,
    min_excluded: c_int,
    max_excluded: c_int,
    visitor: ShardisZsetVisitor,
    data: *mut c_void,
) -> c_int {
    let visitor = visitor.expect("there is a visitor");
    // SAFETY: the key is open, and the visitor takes its data and each element.
    unsafe {
        if zset_first(key, min, max, min_excluded, max_excluded) != REDISMODULE_OK {
            return REDISMODULE_ERR;
        }
        let Some(Iterated::Zset(range)) = fake(key).iterated.take() else { return REDISMODULE_ERR };
        for (element, score) in &range.elements {
            if visitor(data, element.as_ptr().cast(), element.len(), *score) == 0 {
                break;
            }
        }
        REDISMODULE_OK
    }
}

unsafe extern "C" fn list_push(
    key: *mut RedisModuleKey,
    end: c_int,
    element: *mut RedisModuleString,
) -> c_int {
    // SAFETY: the key is open, and the element lives.
    let (key, element) = unsafe { (fake(key), bytes(element).to_vec()) };
    let Value::List(list) = key.value_or(Value::List(Default::default())) else { return REDISMODULE_ERR };
    if end == REDISMODULE_LIST_HEAD {
        list.push_front(element);
    } else {
        list.push_back(element);
    }
    key.set_ready();
    REDISMODULE_OK
}

/// The place of an element; negative indices count from the tail.
fn place(len: usize, index: c_long) -> Option<usize> {
    let len = c_long::try_from(len).expect("a length of what is in memory");
    usize::try_from(if index < 0 { index + len } else { index }).ok()
}

unsafe extern "C" fn list_set(
    key: *mut RedisModuleKey,
    index: c_long,
    element: *mut RedisModuleString,
) -> c_int {
    // SAFETY: the key is open, and the element lives.
    unsafe {
        let Some(Value::List(list)) = value(key) else { return REDISMODULE_ERR };
        match place(list.len(), index).and_then(|at| list.get_mut(at)) {
            Some(old) => {
                *old = bytes(element).to_vec();
                REDISMODULE_OK
            }
            None => REDISMODULE_ERR,
        }
    }
}

/// The element has this index then: -1 is the tail.
unsafe extern "C" fn list_insert(
    key: *mut RedisModuleKey,
    index: c_long,
    element: *mut RedisModuleString,
) -> c_int {
    // SAFETY: the key is open, and the element lives.
    unsafe {
        let Value::List(list) = value_or(key, Value::List(Default::default())) else {
            return REDISMODULE_ERR;
        };
        match place(list.len() + 1, index).filter(|at| *at <= list.len()) {
            Some(at) => {
                list.insert(at, bytes(element).to_vec());
                REDISMODULE_OK
            }
            None => {
                fake(key).remove_if_empty();
                REDISMODULE_ERR
            }
        }
    }
}

unsafe extern "C" fn list_delete(key: *mut RedisModuleKey, index: c_long) -> c_int {
    // SAFETY: the key is open.
    unsafe {
        let Some(Value::List(list)) = value(key) else { return REDISMODULE_ERR };
        let removed = place(list.len(), index).and_then(|at| list.remove(at));
        fake(key).remove_if_empty();
        if removed.is_some() { REDISMODULE_OK } else { REDISMODULE_ERR }
    }
}

unsafe extern "C" fn list_pop(key: *mut RedisModuleKey, end: c_int) -> *mut RedisModuleString {
    // SAFETY: the key is open.
    let key = unsafe { fake(key) };
    assert!(key.is_writable, "a key that is open for reading is written");
    let popped = match key.value() {
        Some(Value::List(list)) if end == REDISMODULE_LIST_HEAD => list.pop_front(),
        Some(Value::List(list)) => list.pop_back(),
        _ => None,
    };
    key.remove_if_empty();
    popped.map_or(std::ptr::null_mut(), |element| strings::make(&element))
}

unsafe extern "C" fn list_get(key: *mut RedisModuleKey, index: c_long) -> *mut RedisModuleString {
    // SAFETY: the key is open.
    let Some(Value::List(list)) = unsafe { fake(key) }.value() else { return std::ptr::null_mut() };
    let element = place(list.len(), index).and_then(|at| list.get(at));
    element.map_or(std::ptr::null_mut(), |element| strings::make(element))
}

/// `HashGet` with one field and NULL behind, as the SDK calls it.
unsafe extern "C" fn hash_get(
    key: *mut RedisModuleKey,
    flags: c_int,
    field: *mut RedisModuleString,
    place: *mut *mut RedisModuleString,
    _end: *mut RedisModuleString,
) -> c_int {
    // SAFETY: the key is open, the field lives, and there is room for the value, or with this flag for an integer.
    unsafe {
        let value = match fake(key).value() {
            Some(Value::Hash(hash)) => hash.get(bytes(field)),
            _ => None,
        };
        if flags & REDISMODULE_HASH_EXISTS != 0 {
            *place.cast::<c_int>() = c_int::from(value.is_some());
        } else {
            *place = value.map_or(std::ptr::null_mut(), |value| strings::make(value));
        }
    }
    REDISMODULE_OK
}

/// `HashSet` with one field and NULL behind, as the SDK calls it.
unsafe extern "C" fn hash_set(
    key: *mut RedisModuleKey,
    _flags: c_int,
    field: *mut RedisModuleString,
    value: *mut RedisModuleString,
    _end: *mut RedisModuleString,
) -> c_int {
    // SAFETY: the key is open, field and value live, unless the value is that which stands for deletion.
    unsafe {
        let key = fake(key);
        let Value::Hash(hash) = key.value_or(Value::Hash(Default::default())) else { return 0 };
        let is_changed = if value.addr() == 1 {
            hash.remove(bytes(field)).is_some()
        } else {
            hash.insert(bytes(field).to_vec(), bytes(value).to_vec());
            true
        };
        key.remove_if_empty();
        c_int::from(is_changed)
    }
}

type HashGetFn = unsafe extern "C" fn(
    *mut RedisModuleKey,
    c_int,
    *mut RedisModuleString,
    *mut *mut RedisModuleString,
    *mut RedisModuleString,
) -> c_int;
type HashSetFn = unsafe extern "C" fn(
    *mut RedisModuleKey,
    c_int,
    *mut RedisModuleString,
    *mut RedisModuleString,
    *mut RedisModuleString,
) -> c_int;

// SAFETY: on Linux, the first integers and pointers of a call go into registers, whether the function declares them or has
// `...` for them. The SDK calls it with exactly these.
const HASH_GET: signature::HashGet = unsafe { transmute(hash_get as HashGetFn) };
// SAFETY: as above.
const HASH_SET: signature::HashSet = unsafe { transmute(hash_set as HashSetFn) };

pub(super) static SERVED: &[Served] = served! {
    OpenKey = open_key,
    CloseKey = close_key,
    KeyType = key_type,
    ValueLength = value_length,
    DeleteKey = delete_key,
    UnlinkKey = delete_key,
    GetExpire = get_expire,
    SetExpire = set_expire,
    StringDMA = string_dma,
    StringTruncate = string_truncate,
    StringSet = string_set,
    ZsetAdd = zset_add,
    ZsetIncrby = zset_incr,
    ZsetScore = zset_score,
    ZsetRem = zset_rem,
    ZsetFirstInScoreRange = zset_first,
    ZsetLastInScoreRange = zset_last,
    ZsetRangeStop = stop_iteration,
    ZsetRangeNext = zset_next,
    ZsetRangePrev = zset_prev,
    ZsetRangeCurrentBuffer = zset_current,
    ZsetVisitScoreRange = zset_visit,
    ListPush = list_push,
    ListPop = list_pop,
    ListGet = list_get,
    ListSet = list_set,
    ListInsert = list_insert,
    ListDelete = list_delete,
    HashGet = HASH_GET,
    HashSet = HASH_SET,
};
