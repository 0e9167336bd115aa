//! Keys that hold streams.

use super::fail_with;
use super::given::{Key, Out, server_functions};
use crate::command::handlers::stream::trim::default_limit;
use crate::command::typed::{Digits, StringRef, stream_mut};
use crate::modules::key::{ModuleKey, StreamWalk, Walk};
use crate::modules::string::ModuleString;
use crate::runtime::os_error;
use crate::types::stream::{AppendError, Log, NewEntry, NewId, NodeLimits, Precision, StreamId, TrimTo};
use crate::types::{Object, ValueRef, ValueType};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_long, c_longlong};

pub(super) const SERVED: &[Served] = served! {
    StreamAdd = stream_add,
    StreamDelete = stream_delete,
    StreamIteratorStart = stream_iterator_start,
    StreamIteratorStop = stream_iterator_stop,
    StreamIteratorNextID = stream_iterator_next_id,
    StreamIteratorNextField = stream_iterator_next_field,
    StreamIteratorDelete = stream_iterator_delete,
    StreamTrimByLength = stream_trim_by_length,
    StreamTrimByID = stream_trim_by_id,
};

fn from_abi(id: RedisModuleStreamID) -> StreamId {
    StreamId { ms: id.ms, seq: id.seq }
}

fn to_abi(id: StreamId) -> RedisModuleStreamID {
    RedisModuleStreamID { ms: id.ms, seq: id.seq }
}

/// The entries of the key, if it holds a stream.
///
/// # Errors
/// `errno`: it is not open to write though it is to be changed; it does not exist; it holds something else.
fn log(key: &mut ModuleKey, writes: bool) -> Result<&Log, c_int> {
    if writes && !key.is_writable() {
        return Err(os_error::BAD_FILE);
    }
    match key.value() {
        None => Err(os_error::NO_ENTRY),
        Some(ValueRef::Object(Object::Stream(stream))) => Ok(&stream.log),
        Some(_) => Err(os_error::NOT_SUPPORTED),
    }
}

/// A change of the stream, which exists.
fn change<T>(key: &mut ModuleKey, act: impl FnOnce(&mut Log) -> T) -> T {
    let mut guard = key.change().expect("it was a stream just now");
    let mut value = guard.value_mut();
    act(&mut stream_mut(&mut value.object()).log)
}

server_functions! {
    fn stream_add(
        key: Option<Key>, flags: c_int, id: Out<RedisModuleStreamID>, argv: *mut *mut RedisModuleString,
        field_count: i64,
    ) -> c_int {
        let is_auto = flags & REDISMODULE_STREAM_ADD_AUTOID != 0;
        let given = id.get().map(from_abi);
        let is_valid = flags & !REDISMODULE_STREAM_ADD_AUTOID == 0
            && field_count > 0
            && (is_auto || given.is_some_and(|id| id != StreamId::MIN));
        let Some(mut key) = key.filter(|_| is_valid) else { return fail_with(os_error::INVALID) };
        if !key.is_writable() {
            return fail_with(os_error::BAD_FILE);
        }
        match key.value_type() {
            None => {}
            Some(ValueType::Stream) => {
                if log(&mut key, true).is_ok_and(|log| log.last_id == StreamId::MAX) {
                    return fail_with(os_error::FILE_TOO_BIG);
                }
            }
            Some(_) => return fail_with(os_error::NOT_SUPPORTED),
        }
        let mut entry = NewEntry::default();
        for at in 0..2 * field_count as usize {
            // SAFETY: the module passes so many names and values.
            entry.push(unsafe { &*(*argv.add(at)).cast::<ModuleString>() }.bytes());
        }
        let shard = key.parts().0;
        let limits = NodeLimits {
            max_bytes: shard.config.stream_node_max_bytes,
            max_entries: shard.config.stream_node_max_entries as u64,
        };
        let new_id = match given {
            Some(given) if !is_auto => NewId::Exactly(given),
            Some(_) | None => NewId::Now { ms: shard.wall_ms as u64 },
        };
        let appended = {
            key.wakes = true;
            let mut guard = key.change_or_add_stream();
            let mut value = guard.value_mut();
            let appended = stream_mut(&mut value.object()).log.append(new_id, &entry, limits);
            guard.count(usize::from(appended.is_ok()));
            appended
        };
        match appended {
            Ok(added) => {
                id.set(to_abi(added));
                REDISMODULE_OK
            }
            Err(AppendError::IdTooSmall) => fail_with(os_error::DOMAIN),
            Err(AppendError::TooLarge) => fail_with(os_error::RANGE),
        }
    }

    fn stream_delete(key: Option<Key>, id: Out<RedisModuleStreamID>) -> c_int {
        let (Some(mut key), Some(id)) = (key, id.get()) else { return fail_with(os_error::INVALID) };
        let is_there = log(&mut key, true).map(|log| log.get(from_abi(id)).is_some());
        match is_there {
            Ok(true) => {}
            Ok(false) => return fail_with(os_error::NO_ENTRY),
            Err(errno) => return fail_with(errno),
        }
        change(&mut key, |log| log.delete(std::iter::once(from_abi(id))));
        REDISMODULE_OK
    }

    fn stream_iterator_start(
        key: Option<Key>, flags: c_int, start: Out<RedisModuleStreamID>, end: Out<RedisModuleStreamID>,
    ) -> c_int {
        const KNOWN: c_int = REDISMODULE_STREAM_ITERATOR_EXCLUSIVE | REDISMODULE_STREAM_ITERATOR_REVERSE;
        let Some(mut key) = key.filter(|_| flags & !KNOWN == 0) else { return fail_with(os_error::INVALID) };
        if let Err(errno) = log(&mut key, false) {
            return fail_with(errno);
        }
        if matches!(key.walk, Walk::Stream(_)) {
            return fail_with(os_error::BAD_FILE);
        }
        let mut start = start.get().map_or(StreamId::MIN, from_abi);
        let mut end = end.get().map_or(StreamId::MAX, from_abi);
        if flags & REDISMODULE_STREAM_ITERATOR_EXCLUSIVE != 0 {
            match (start.next(), end.previous()) {
                (Some(next), Some(previous)) => (start, end) = (next, previous),
                (None, _) | (_, None) => return fail_with(os_error::DOMAIN),
            }
        }
        key.walk = Walk::Stream(StreamWalk {
            start,
            end,
            is_reverse: flags & REDISMODULE_STREAM_ITERATOR_REVERSE != 0,
            current: None,
            is_at_end: false,
            fields: Vec::new().into_iter(),
        });
        REDISMODULE_OK
    }

    fn stream_iterator_stop(key: Option<Key>) -> c_int {
        let Some(mut key) = key else { return fail_with(os_error::INVALID) };
        if let Err(errno) = walk(&mut key) {
            return fail_with(errno);
        }
        key.stop_walk();
        REDISMODULE_OK
    }

    fn stream_iterator_next_id(key: Option<Key>, id: Out<RedisModuleStreamID>, field_count: Out<c_long>) -> c_int {
        let Some(mut key) = key else { return fail_with(os_error::INVALID) };
        let range = match walk(&mut key) {
            Ok(walk) => rest(walk),
            Err(errno) => return fail_with(errno),
        };
        let found = range.and_then(|(start, end, is_reverse)| next_entry(&mut key, start, end, is_reverse));
        let Ok(walk) = walk(&mut key) else { return fail_with(os_error::BAD_FILE) };
        let Some((next, fields)) = found else {
            (walk.current, walk.is_at_end) = (None, true);
            walk.fields = Vec::new().into_iter();
            return fail_with(os_error::NO_ENTRY);
        };
        walk.current = Some(next);
        if walk.is_reverse {
            walk.end = next;
        } else {
            walk.start = next;
        }
        id.set(to_abi(next));
        field_count.set(fields.len() as c_long);
        walk.fields = fields.into_iter();
        REDISMODULE_OK
    }

    fn stream_iterator_next_field(
        key: Option<Key>, name: Out<*mut RedisModuleString>, value: Out<*mut RedisModuleString>,
    ) -> c_int {
        let Some(mut key) = key else { return fail_with(os_error::INVALID) };
        let field = match walk(&mut key) {
            Ok(walk) => walk.fields.next(),
            Err(errno) => return fail_with(errno),
        };
        let Some((name_bytes, value_bytes)) = field else { return fail_with(os_error::NO_ENTRY) };
        let ctx = key.context();
        name.set(ctx.keep_string(ModuleString::from_vec(name_bytes)));
        value.set(ctx.keep_string(ModuleString::from_vec(value_bytes)));
        REDISMODULE_OK
    }

    /// Deletes the entry that the walk is at.
    fn stream_iterator_delete(key: Option<Key>) -> c_int {
        let Some(mut key) = key else { return fail_with(os_error::INVALID) };
        if !key.is_writable() {
            return fail_with(os_error::BAD_FILE);
        }
        let current = match walk(&mut key) {
            Ok(walk) => {
                walk.fields = Vec::new().into_iter();
                walk.current
            }
            Err(errno) => return fail_with(errno),
        };
        let is_there = |id: &StreamId| log(&mut key, true).is_ok_and(|log| log.get(*id).is_some());
        let Some(current) = current.filter(is_there) else { return fail_with(os_error::NO_ENTRY) };
        change(&mut key, |log| log.delete(std::iter::once(current)));
        REDISMODULE_OK
    }

    /// Trims to a length. Returns how many entries were removed.
    fn stream_trim_by_length(key: Option<Key>, flags: c_int, length: c_longlong) -> c_longlong {
        match u64::try_from(length) {
            Ok(length) => trim(key, flags, TrimTo::Len(length)),
            Err(_) => {
                fail_with(os_error::INVALID);
                -1
            }
        }
    }

    /// Removes the entries before an ID. Returns how many.
    fn stream_trim_by_id(key: Option<Key>, flags: c_int, id: Out<RedisModuleStreamID>) -> c_longlong {
        match id.get() {
            Some(id) => trim(key, flags, TrimTo::MinId(from_abi(id))),
            None => {
                fail_with(os_error::INVALID);
                -1
            }
        }
    }
}

fn walk(key: &mut ModuleKey) -> Result<&mut StreamWalk, c_int> {
    match key.value_type() {
        Some(ValueType::Stream) => {}
        None => return Err(os_error::NO_ENTRY),
        Some(_) => return Err(os_error::NOT_SUPPORTED),
    }
    match &mut key.walk {
        Walk::Stream(walk) => Ok(walk),
        Walk::None | Walk::ZSet { .. } => Err(os_error::BAD_FILE),
    }
}

/// What is left of a walk: from where to where, and whether backwards.
fn rest(walk: &StreamWalk) -> Option<(StreamId, StreamId, bool)> {
    let StreamWalk { start, end, is_reverse, current, is_at_end, .. } = *walk;
    if is_at_end {
        return None;
    }
    match (current, is_reverse) {
        (None, _) => Some((start, end, is_reverse)),
        (Some(current), false) => Some((current.next()?, end, false)),
        (Some(current), true) => Some((start, current.previous()?, true)),
    }
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn next_entry(
    key: &mut ModuleKey,
    start: StreamId,
    end: StreamId,
    is_reverse: bool,
) -> Option<(StreamId, Fields)> {
    let log = log(key, false).ok()?;
    if start > end {
        return None;
    }
    let entry = if is_reverse { log.range_back(start, end).next() } else { log.range(start, end).next() }?;
    let text = |item| StringRef::from(item).bytes(&mut Digits::new()).to_vec();
    let fields = entry.fields().map(|(name, value)| (text(name), text(value))).collect();
    Some((entry.id, fields))
}

fn trim(key: Option<Key>, flags: c_int, to: TrimTo) -> c_longlong {
    let Some(mut key) = key.filter(|_| flags & !REDISMODULE_STREAM_TRIM_APPROX == 0) else {
        fail_with(os_error::INVALID);
        return -1;
    };
    if let Err(errno) = log(&mut key, true) {
        fail_with(errno);
        return -1;
    }
    let is_approximate = flags & REDISMODULE_STREAM_TRIM_APPROX != 0;
    let limit = default_limit(&key.parts().0.config);
    let precision = if is_approximate { Precision::Nodes { limit } } else { Precision::Exact };
    change(&mut key, |log| log.trim(to, precision)) as c_longlong
}
