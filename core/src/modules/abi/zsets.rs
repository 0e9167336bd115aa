//! Keys that hold sorted sets.
//!
//! A walk over a range is over ranks: it begins with the ranks of the range's ends, and keeps where it is.

use super::given::{Key, Out, Str, server_functions};
use super::status;
use crate::command::typed::{Digits, StringRef};
use crate::modules::key::{ModuleKey, Walk};
use crate::modules::string::ModuleString;
use crate::types::listpack::Item;
use crate::types::zset::{Outcome, ZSetLimits, ZSetMut, ZSetView};
use crate::types::{PackedKind, ValueType};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_char, c_int, c_void};
use std::ops::Range;

pub(super) const SERVED: &[Served] = served! {
    ZsetAdd = zset_add,
    ZsetIncrby = zset_incrby,
    ZsetScore = zset_score,
    ZsetRem = zset_rem,
    ZsetRangeStop = zset_range_stop,
    ZsetFirstInScoreRange = zset_first_in_score_range,
    ZsetLastInScoreRange = zset_last_in_score_range,
    ZsetFirstInLexRange = zset_first_in_lex_range,
    ZsetLastInLexRange = zset_last_in_lex_range,
    ZsetRangeCurrentElement = zset_range_current_element,
    ZsetRangeCurrentBuffer = zset_range_current_buffer,
    ZsetRangeNext = zset_range_next,
    ZsetRangePrev = zset_range_prev,
    ZsetRangeEndReached = zset_range_end_reached,
    ZsetVisitScoreRange = zset_visit_score_range,
};

fn limits(key: &mut ModuleKey) -> ZSetLimits {
    let config = &key.parts().0.config;
    ZSetLimits {
        len_max: config.zset_max_listpack_entries,
        member_len_max: config.zset_max_listpack_value_bytes,
    }
}

fn view(key: &mut ModuleKey) -> Option<ZSetView<'_>> {
    key.value().and_then(ZSetView::of)
}

/// Sets the score of a member, or adds to it. `flags`: the ABI's, in and out. Returns the new score; `None`: that is not
/// possible.
fn update(key: Option<Key>, score: f64, member: &Str, flags: &Out<c_int>, increment: bool) -> Option<f64> {
    let mut key = key.filter(|key| key.is_writable())?;
    if !matches!(key.value_type(), None | Some(ValueType::ZSet)) || score.is_nan() {
        return None;
    }
    let given = flags.get().unwrap_or(0);
    let has = |flag: c_int| given & flag != 0;
    let (present, absent) = (has(REDISMODULE_ZADD_XX), has(REDISMODULE_ZADD_NX));
    let (greater, less) = (has(REDISMODULE_ZADD_GT), has(REDISMODULE_ZADD_LT));
    if (present && absent) || (greater && (less || absent)) || (less && absent) {
        return None;
    }
    let limits = limits(&mut key);
    let mut last = None;
    let mut is_nan = false;
    let outcome = {
        let mut guard = key.change_or_add(PackedKind::ZSet);
        let mut value = guard.value_mut();
        let outcome = ZSetMut::new(&mut value).update(member.bytes(), limits, |old| {
            let Some(old) = old else {
                last = (!present).then_some(score);
                return last;
            };
            let new = if increment { old + score } else { score };
            is_nan = new.is_nan();
            let keeps = absent || is_nan || (greater && new <= old) || (less && new >= old);
            last = Some(if keeps { old } else { new });
            (!keeps).then_some(new)
        });
        guard.count(usize::from(matches!(outcome, Outcome::Added | Outcome::Changed)));
        outcome
    };
    if is_nan {
        return None;
    }
    flags.set(match outcome {
        Outcome::Added => REDISMODULE_ZADD_ADDED,
        Outcome::Changed => REDISMODULE_ZADD_UPDATED,
        Outcome::Unchanged => 0,
        Outcome::Skipped => REDISMODULE_ZADD_NOP,
    });
    Some(last.unwrap_or(0.0))
}

server_functions! {
    fn zset_add(key: Option<Key>, score: f64, member: Str, flags: Out<c_int>) -> c_int {
        status(update(key, score, &member, &flags, false).is_some())
    }

    fn zset_incrby(key: Option<Key>, by: f64, member: Str, flags: Out<c_int>, new_score: Out<f64>) -> c_int {
        let new = update(key, by, &member, &flags, true);
        new.into_iter().for_each(|score| new_score.set(score));
        status(new.is_some())
    }

    fn zset_score(key: Option<Key>, member: Str, score: Out<f64>) -> c_int {
        let Some(mut key) = key else { return REDISMODULE_ERR };
        let found = view(&mut key).and_then(|set| set.score(member.bytes()));
        found.into_iter().for_each(|value| score.set(value));
        status(found.is_some())
    }

    /// Removes a member. It being absent is no error.
    fn zset_rem(key: Option<Key>, member: Str, deleted: Out<c_int>) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        if !matches!(key.value_type(), None | Some(ValueType::ZSet)) {
            return REDISMODULE_ERR;
        }
        let is_there = view(&mut key).is_some_and(|set| set.score(member.bytes()).is_some());
        if let Some(mut guard) = key.change().filter(|_| is_there) {
            let mut value = guard.value_mut();
            ZSetMut::new(&mut value).remove(member.bytes());
        }
        deleted.set(c_int::from(is_there));
        REDISMODULE_OK
    }

    fn zset_range_stop(key: Option<Key>) {
        if let Some(mut key) = key {
            key.stop_walk();
        }
    }

    fn zset_first_in_score_range(key: Option<Key>, min: f64, max: f64, min_ex: c_int, max_ex: c_int) -> c_int {
        begin(key, false, |set| score_range(set, min, max, min_ex != 0, max_ex != 0))
    }

    fn zset_last_in_score_range(key: Option<Key>, min: f64, max: f64, min_ex: c_int, max_ex: c_int) -> c_int {
        begin(key, true, |set| score_range(set, min, max, min_ex != 0, max_ex != 0))
    }

    fn zset_first_in_lex_range(key: Option<Key>, min: Str, max: Str) -> c_int {
        begin(key, false, |set| lex_range(set, min.bytes(), max.bytes()))
    }

    fn zset_last_in_lex_range(key: Option<Key>, min: Str, max: Str) -> c_int {
        begin(key, true, |set| lex_range(set, min.bytes(), max.bytes()))
    }

    fn zset_range_current_element(key: Option<Key>, score: Out<f64>) -> *mut RedisModuleString {
        let Some(mut key) = key else { return std::ptr::null_mut() };
        let Some((member, value)) = current(&mut key) else { return std::ptr::null_mut() };
        score.set(value);
        let bytes = StringRef::from(member).bytes(&mut Digits::new()).to_vec();
        key.context().keep_string(ModuleString::from_vec(bytes))
    }

    /// The bytes of the member that a walk is at, which last until the key is used again.
    fn zset_range_current_buffer(key: Option<Key>, len: Out<usize>, score: Out<f64>) -> *const c_char {
        let Some(mut key) = key else { return std::ptr::null() };
        let Some((member, value)) = current(&mut key) else { return std::ptr::null() };
        score.set(value);
        let number = match member {
            Item::Str(bytes) => {
                len.set(bytes.len());
                return if bytes.is_empty() { c"".as_ptr() } else { bytes.as_ptr().cast() };
            }
            Item::Int(number) => number,
        };
        let text = key.keep_digits(number);
        len.set(text.len());
        text.as_ptr().cast()
    }

    /// Calls a function with each element of a range, until it returns 0. It must not use the key.
    fn zset_visit_score_range(
        key: Option<Key>, min: f64, max: f64, min_ex: c_int, max_ex: c_int, visitor: ShardisZsetVisitor,
        data: *mut c_void,
    ) -> c_int {
        let (Some(mut key), Some(visitor)) = (key, visitor) else { return REDISMODULE_ERR };
        let Some(set) = view(&mut key) else { return REDISMODULE_ERR };
        let Some(ranks) = score_range(set, min, max, min_ex != 0, max_ex != 0) else { return REDISMODULE_ERR };
        let mut digits = Digits::new();
        for (member, score) in set.iter(ranks) {
            let bytes = StringRef::from(member).bytes(&mut digits);
            // SAFETY: the module gave the function and its data; the bytes live until it returns.
            if unsafe { visitor(data, bytes.as_ptr().cast(), bytes.len(), score) } == 0 {
                break;
            }
        }
        REDISMODULE_OK
    }

    fn zset_range_next(key: Option<Key>) -> c_int {
        key.map_or(0, |mut key| step(&mut key, |at| at.checked_add(1)))
    }

    fn zset_range_prev(key: Option<Key>) -> c_int {
        key.map_or(0, |mut key| step(&mut key, |at| at.checked_sub(1)))
    }

    fn zset_range_end_reached(key: Option<Key>) -> c_int {
        let is_within = key.is_some_and(|key| matches!(key.walk, Walk::ZSet { at: Some(_), .. }));
        c_int::from(!is_within)
    }
}

/// Begins a walk over a range, at its first element or at its last.
fn begin(key: Option<Key>, at_last: bool, range: impl FnOnce(ZSetView<'_>) -> Option<Range<usize>>) -> c_int {
    let Some(mut key) = key else { return REDISMODULE_ERR };
    key.stop_walk();
    let Some(ranks) = view(&mut key).and_then(range) else { return REDISMODULE_ERR };
    let at = if at_last { ranks.end.checked_sub(1) } else { Some(ranks.start) };
    let at = at.filter(|at| ranks.contains(at));
    key.walk = Walk::ZSet { ranks, at };
    REDISMODULE_OK
}

fn score_range(set: ZSetView<'_>, min: f64, max: f64, min_ex: bool, max_ex: bool) -> Option<Range<usize>> {
    if min.is_nan() || max.is_nan() {
        return None;
    }
    Some(set.count_to_score(min, min_ex)..set.count_to_score(max, !max_ex))
}

/// One end of a range of members: `-`, `+`, `[member` or `(member`.
fn lex_range(set: ZSetView<'_>, min: &[u8], max: &[u8]) -> Option<Range<usize>> {
    let end = |text: &[u8], is_max: bool| match text.split_first()? {
        (b'-', []) => Some(0),
        (b'+', []) => Some(set.len()),
        (b'[', member) => Some(set.count_to_member(member, is_max)),
        (b'(', member) => Some(set.count_to_member(member, !is_max)),
        _ => None,
    };
    Some(end(min, false)?..end(max, true)?)
}

/// The element that a walk is at.
fn current(key: &mut ModuleKey) -> Option<(Item<'_>, f64)> {
    let Walk::ZSet { at: Some(at), .. } = key.walk else { return None };
    let set = view(key)?;
    // The module may have removed elements.
    (at < set.len()).then(|| set.at(at))
}

/// Moves a walk. Returns whether it is within its range then.
fn step(key: &mut ModuleKey, next: impl FnOnce(usize) -> Option<usize>) -> c_int {
    let Walk::ZSet { ranks, at } = &mut key.walk else { return 0 };
    *at = at.and_then(next).filter(|at| ranks.contains(at));
    c_int::from(at.is_some())
}
