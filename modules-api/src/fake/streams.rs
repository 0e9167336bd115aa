//! The streams of a fake server.

use super::keys::{self, Iterated};
use super::{Value, all_bytes, strings};
use crate::abi::*;
use crate::served;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_long, c_longlong};

/// Fields and their values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<RedisModuleStreamID, Fields>,
    /// The greatest id that there ever was.
    last_id: RedisModuleStreamID,
}

/// Entries that are walked over, and the fields of the current one that were not given yet.
pub(super) struct Walk {
    entries: std::vec::IntoIter<(RedisModuleStreamID, Fields)>,
    fields: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

// The functions of the server: keys are open, and there is room for what they give.

unsafe extern "C" fn add(
    key: *mut RedisModuleKey,
    flags: c_int,
    id: *mut RedisModuleStreamID,
    fields: *mut *mut RedisModuleString,
    pair_count: c_long,
) -> c_int {
    // SAFETY: see above; there are so many pairs of strings.
    unsafe {
        let texts = all_bytes(fields, 2 * usize::try_from(pair_count).expect("a number of pairs"));
        let Value::Stream(stream) = keys::value_or(key, Value::Stream(Stream::default())) else {
            return REDISMODULE_ERR;
        };
        if flags & REDISMODULE_STREAM_ADD_AUTOID != 0 {
            *id = RedisModuleStreamID { seq: stream.last_id.seq + 1, ..stream.last_id };
        } else if *id <= stream.last_id {
            return REDISMODULE_ERR;
        }
        stream.last_id = *id;
        let fields = texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        stream.entries.insert(*id, fields);
        keys::set_ready(key);
    }
    REDISMODULE_OK
}

unsafe extern "C" fn delete(key: *mut RedisModuleKey, id: *mut RedisModuleStreamID) -> c_int {
    // SAFETY: see above.
    let is_removed = unsafe {
        match keys::value(key) {
            Some(Value::Stream(stream)) => stream.entries.remove(&*id).is_some(),
            _ => false,
        }
    };
    if is_removed { REDISMODULE_OK } else { REDISMODULE_ERR }
}

unsafe extern "C" fn trim(key: *mut RedisModuleKey, _flags: c_int, len: c_longlong) -> c_longlong {
    // SAFETY: see above.
    let Some(Value::Stream(stream)) = (unsafe { keys::value(key) }) else { return -1 };
    let mut removed = 0;
    while stream.entries.len() as c_longlong > len && stream.entries.pop_first().is_some() {
        removed += 1;
    }
    removed
}

unsafe extern "C" fn start(
    key: *mut RedisModuleKey,
    flags: c_int,
    first: *mut RedisModuleStreamID,
    last: *mut RedisModuleStreamID,
) -> c_int {
    // SAFETY: see above; the ids may be NULL.
    unsafe {
        let Some(Value::Stream(stream)) = keys::value(key) else { return REDISMODULE_ERR };
        let first = first.as_ref().copied().unwrap_or_default();
        let last = last.as_ref().copied().unwrap_or(RedisModuleStreamID { ms: u64::MAX, seq: u64::MAX });
        let in_range = stream.entries.iter().filter(|(id, _)| (first..=last).contains(id));
        let mut entries: Vec<_> = in_range.map(|(id, fields)| (*id, fields.clone())).collect();
        if flags & REDISMODULE_STREAM_ITERATOR_REVERSE != 0 {
            entries.reverse();
        }
        let walk = Walk { entries: entries.into_iter(), fields: Vec::new().into_iter() };
        keys::start_iteration(key, Iterated::Stream(walk));
    }
    REDISMODULE_OK
}

unsafe extern "C" fn stop(key: *mut RedisModuleKey) -> c_int {
    // SAFETY: see above.
    unsafe { keys::stop_iteration(key) };
    REDISMODULE_OK
}

unsafe extern "C" fn next_id(
    key: *mut RedisModuleKey,
    id: *mut RedisModuleStreamID,
    field_count: *mut c_long,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        let Some(Iterated::Stream(walk)) = keys::iterated(key) else { return REDISMODULE_ERR };
        let Some((next, fields)) = walk.entries.next() else { return REDISMODULE_ERR };
        *id = next;
        *field_count = fields.len() as c_long;
        walk.fields = fields.into_iter();
    }
    REDISMODULE_OK
}

unsafe extern "C" fn next_field(
    key: *mut RedisModuleKey,
    field: *mut *mut RedisModuleString,
    value: *mut *mut RedisModuleString,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        let Some(Iterated::Stream(walk)) = keys::iterated(key) else { return REDISMODULE_ERR };
        let Some((next_field, next_value)) = walk.fields.next() else { return REDISMODULE_ERR };
        *field = strings::make(&next_field);
        *value = strings::make(&next_value);
    }
    REDISMODULE_OK
}

pub(super) static SERVED: &[Served] = served! {
    StreamAdd = add,
    StreamDelete = delete,
    StreamTrimByLength = trim,
    StreamIteratorStart = start,
    StreamIteratorStop = stop,
    StreamIteratorNextID = next_id,
    StreamIteratorNextField = next_field,
};
