//! Sorted sets.

use crate::abi::{
    REDISMODULE_OK, REDISMODULE_ZADD_ADDED, REDISMODULE_ZADD_GT, REDISMODULE_ZADD_LT, REDISMODULE_ZADD_NOP,
    REDISMODULE_ZADD_NX, REDISMODULE_ZADD_UPDATED, REDISMODULE_ZADD_XX, RedisModuleKey,
};
use crate::api::{api, api_if_there};
use crate::error::Error;
use crate::string::{ModuleStr, ModuleString, slice_of};
use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::ptr::NonNull;

/// A sorted set, for reading.
pub struct Zset<'a> {
    key: NonNull<RedisModuleKey>,
    _key: PhantomData<&'a mut ()>,
}

/// An end of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScoreBound {
    Inclusive(f64),
    Exclusive(f64),
}

/// Scores from one to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    pub min: ScoreBound,
    pub max: ScoreBound,
}

impl ScoreRange {
    pub const ALL: ScoreRange = ScoreRange {
        min: ScoreBound::Inclusive(f64::NEG_INFINITY),
        max: ScoreBound::Inclusive(f64::INFINITY),
    };
}

impl ScoreBound {
    fn parts(self) -> (f64, c_int) {
        match self {
            ScoreBound::Inclusive(score) => (score, 0),
            ScoreBound::Exclusive(score) => (score, 1),
        }
    }
}

impl Zset<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>) -> Zset<'a> {
        Zset { key, _key: PhantomData }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        // SAFETY: the key is open.
        unsafe { api!(ValueLength)(self.key.as_ptr()) }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of an element.
    #[inline]
    pub fn score(&self, element: ModuleStr<'_>) -> Option<f64> {
        score(self.key, element)
    }

    /// The elements with scores in a range, from the lowest.
    pub fn range(&mut self, range: ScoreRange) -> ZsetRange<'_> {
        ZsetRange::start(self.key, range, false)
    }

    /// Calls a function with each element whose score is in a range and its score, from the lowest, until it breaks off.
    pub fn visit<F: FnMut(&[u8], f64) -> ControlFlow<()>>(&mut self, range: ScoreRange, mut visitor: F) {
        let Some(visit) = api_if_there!(ZsetVisitScoreRange) else {
            let mut elements = self.range(range);
            while let Some((element, score)) = elements.next() {
                if visitor(element, score).is_break() {
                    return;
                }
            }
            return;
        };
        let ((min, min_excluded), (max, max_excluded)) = (range.min.parts(), range.max.parts());
        let data = (&raw mut visitor).cast::<c_void>();
        // SAFETY: the key is open and borrowed, so that the visitor cannot use it. `data` is the visitor that `visit_with`
        // expects, and outlives the call.
        unsafe {
            let key = self.key.as_ptr();
            visit(key, min, max, min_excluded, max_excluded, Some(visit_with::<F>), data);
        }
    }

    /// The elements with scores in a range, from the highest.
    pub fn range_backwards(&mut self, range: ScoreRange) -> ZsetRange<'_> {
        ZsetRange::start(self.key, range, true)
    }
}

/// # Safety
/// `data` is a visitor of this type that nothing else uses, and `element` points to `len` bytes.
unsafe extern "C" fn visit_with<F: FnMut(&[u8], f64) -> ControlFlow<()>>(
    data: *mut c_void,
    element: *const c_char,
    len: usize,
    score: f64,
) -> c_int {
    // SAFETY: as promised.
    let (visitor, element) = unsafe { (&mut *data.cast::<F>(), slice_of(element, len)) };
    c_int::from(visitor(element, score).is_continue())
}

fn score(key: NonNull<RedisModuleKey>, element: ModuleStr<'_>) -> Option<f64> {
    let mut score = 0.0;
    // SAFETY: the key is open, the element lives, and there is room for the score.
    let result = unsafe { api!(ZsetScore)(key.as_ptr(), element.as_ptr(), &raw mut score) };
    (result == REDISMODULE_OK).then_some(score)
}

/// Elements of a sorted set in order of their scores, one after the other.
pub struct ZsetRange<'a> {
    key: NonNull<RedisModuleKey>,
    is_backwards: bool,
    is_started: bool,
    /// Keeps the element, for a server that gives it as a string only.
    element: Option<ModuleString>,
    _key: PhantomData<&'a mut ()>,
}

impl ZsetRange<'_> {
    fn start<'a>(key: NonNull<RedisModuleKey>, range: ScoreRange, is_backwards: bool) -> ZsetRange<'a> {
        let ((min, min_excluded), (max, max_excluded)) = (range.min.parts(), range.max.parts());
        // SAFETY: the key is open and holds a sorted set. It is borrowed, so that this is the only range over it.
        unsafe {
            let first = match is_backwards {
                true => api!(ZsetLastInScoreRange),
                false => api!(ZsetFirstInScoreRange),
            };
            first(key.as_ptr(), min, max, min_excluded, max_excluded);
        }
        ZsetRange { key, is_backwards, is_started: false, element: None, _key: PhantomData }
    }

    /// The next element and its score. The bytes are those in the set, where the server lets us see them.
    #[allow(clippy::should_implement_trait, reason = "what it gives is borrowed until the next call")]
    #[inline]
    pub fn next(&mut self) -> Option<(&[u8], f64)> {
        let key = self.key.as_ptr();
        // SAFETY: the range was started, and the key is borrowed until it is stopped.
        unsafe {
            if std::mem::replace(&mut self.is_started, true) {
                let go_on = match self.is_backwards {
                    true => api!(ZsetRangePrev),
                    false => api!(ZsetRangeNext),
                };
                if go_on(key) == 0 {
                    return None;
                }
            }
            let mut score = 0.0;
            if let Some(current) = api_if_there!(ZsetRangeCurrentBuffer) {
                let mut len = 0;
                let bytes = current(key, &raw mut len, &raw mut score);
                return (!bytes.is_null()).then(|| (slice_of(bytes, len), score));
            }
            let element = api!(ZsetRangeCurrentElement)(key, &raw mut score);
            self.element = (!element.is_null()).then(|| ModuleString::from_server(element));
            self.element.as_ref().map(|element| (element.as_bytes(), score))
        }
    }
}

impl Drop for ZsetRange<'_> {
    fn drop(&mut self) {
        // SAFETY: the range was started, and the key is still open.
        unsafe { api!(ZsetRangeStop)(self.key.as_ptr()) };
    }
}

/// When a score is set: ZADD's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddOptions {
    /// NX: of new elements only.
    pub only_new: bool,
    /// XX: of elements that are there only.
    pub only_existing: bool,
    /// GT: if it is greater than what is there.
    pub only_greater: bool,
    /// LT: if it is less than what is there.
    pub only_less: bool,
}

impl AddOptions {
    fn flags(self) -> c_int {
        let flag = |is_set: bool, flag: c_int| if is_set { flag } else { 0 };
        flag(self.only_new, REDISMODULE_ZADD_NX)
            | flag(self.only_existing, REDISMODULE_ZADD_XX)
            | flag(self.only_greater, REDISMODULE_ZADD_GT)
            | flag(self.only_less, REDISMODULE_ZADD_LT)
    }
}

/// What became of an element that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    New,
    /// It was there, with another score.
    Updated,
    /// It was there, with the same score.
    Unchanged,
    /// The options were against it.
    Refused,
}

impl Added {
    fn of(flags: c_int) -> Added {
        if flags & REDISMODULE_ZADD_ADDED != 0 {
            Added::New
        } else if flags & REDISMODULE_ZADD_UPDATED != 0 {
            Added::Updated
        } else if flags & REDISMODULE_ZADD_NOP != 0 {
            Added::Refused
        } else {
            Added::Unchanged
        }
    }
}

/// A sorted set, for writing.
pub struct ZsetMut<'a> {
    key: NonNull<RedisModuleKey>,
    is_changed: &'a mut bool,
}

impl ZsetMut<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>, is_changed: &'a mut bool) -> ZsetMut<'a> {
        ZsetMut { key, is_changed }
    }

    /// The score of an element.
    pub fn score(&self, element: ModuleStr<'_>) -> Option<f64> {
        score(self.key, element)
    }

    /// Adds an element, or sets its score. Errors: the score is NaN.
    #[inline]
    pub fn add(&mut self, score: f64, element: ModuleStr<'_>, options: AddOptions) -> Result<Added, Error> {
        let mut flags = options.flags();
        // SAFETY: the key is open for writing and holds a sorted set or nothing; the element lives.
        match unsafe { api!(ZsetAdd)(self.key.as_ptr(), score, element.as_ptr(), &raw mut flags) } {
            REDISMODULE_OK => Ok(self.note(Added::of(flags))),
            _ => Err(Error::NOT_A_FLOAT),
        }
    }

    /// Adds to the score of an element, which is 0 if it is not there. Gives the new score.
    /// Errors: it would be NaN.
    pub fn add_to_score(
        &mut self,
        increment: f64,
        element: ModuleStr<'_>,
        options: AddOptions,
    ) -> Result<(Added, f64), Error> {
        let (mut flags, mut new) = (options.flags(), 0.0);
        // SAFETY: as for `add`, and there is room for the score.
        let result = unsafe {
            api!(ZsetIncrby)(self.key.as_ptr(), increment, element.as_ptr(), &raw mut flags, &raw mut new)
        };
        match result {
            REDISMODULE_OK => Ok((self.note(Added::of(flags)), new)),
            _ => Err(Error::from_text(c"ERR resulting score is not a number (NaN)")),
        }
    }

    /// Removes an element. Says whether it was there.
    pub fn remove(&mut self, element: ModuleStr<'_>) -> bool {
        let mut deleted = 0;
        // SAFETY: as for `add`.
        unsafe { api!(ZsetRem)(self.key.as_ptr(), element.as_ptr(), &raw mut deleted) };
        *self.is_changed |= deleted != 0;
        deleted != 0
    }

    fn note(&mut self, added: Added) -> Added {
        *self.is_changed |= matches!(added, Added::New | Added::Updated);
        added
    }
}
