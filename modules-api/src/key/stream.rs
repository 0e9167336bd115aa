//! Streams.

use crate::abi::{
    REDISMODULE_OK, REDISMODULE_STREAM_ADD_AUTOID, REDISMODULE_STREAM_ITERATOR_REVERSE,
    REDISMODULE_STREAM_TRIM_APPROX, RedisModuleKey, RedisModuleStreamID,
};
use crate::api::api;
use crate::error::Error;
use crate::string::{ModuleStr, ModuleString};
use std::ffi::{c_int, c_long, c_longlong};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A stream, for reading.
pub struct Stream<'a> {
    key: NonNull<RedisModuleKey>,
    _key: PhantomData<&'a mut ()>,
}

impl Stream<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>) -> Stream<'a> {
        Stream { key, _key: PhantomData }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        // SAFETY: the key is open.
        unsafe { api!(ValueLength)(self.key.as_ptr()) }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries from one id to another, both included; without ids, from the first and to the last.
    pub fn range(
        &mut self,
        start: Option<RedisModuleStreamID>,
        end: Option<RedisModuleStreamID>,
    ) -> StreamRange<'_> {
        StreamRange::start(self.key, 0, start, end)
    }

    /// The same, from the last.
    pub fn range_backwards(
        &mut self,
        start: Option<RedisModuleStreamID>,
        end: Option<RedisModuleStreamID>,
    ) -> StreamRange<'_> {
        StreamRange::start(self.key, REDISMODULE_STREAM_ITERATOR_REVERSE, start, end)
    }
}

/// Entries of a stream in order of their ids, one after the other: each with its fields.
pub struct StreamRange<'a> {
    key: NonNull<RedisModuleKey>,
    is_open: bool,
    _key: PhantomData<&'a mut ()>,
}

/// A field of a stream's entry, and its value.
pub type StreamField = (ModuleString, ModuleString);

impl StreamRange<'_> {
    fn start<'a>(
        key: NonNull<RedisModuleKey>,
        flags: c_int,
        start: Option<RedisModuleStreamID>,
        end: Option<RedisModuleStreamID>,
    ) -> StreamRange<'a> {
        let pointer = |id: &mut Option<RedisModuleStreamID>| match id {
            Some(id) => std::ptr::from_mut(id),
            None => std::ptr::null_mut(),
        };
        let (mut start, mut end) = (start, end);
        // SAFETY: the key is open and holds a stream. It is borrowed, so that this is the only range over it. The server
        // copies the ids.
        let result =
            unsafe { api!(StreamIteratorStart)(key.as_ptr(), flags, pointer(&mut start), pointer(&mut end)) };
        StreamRange { key, is_open: result == REDISMODULE_OK, _key: PhantomData }
    }
}

impl Iterator for StreamRange<'_> {
    type Item = (RedisModuleStreamID, Vec<StreamField>);

    fn next(&mut self) -> Option<Self::Item> {
        if !self.is_open {
            return None;
        }
        let (mut id, mut field_count) = (RedisModuleStreamID::default(), 0 as c_long);
        // SAFETY: the range was started, and what it gives is ours.
        unsafe {
            let next = api!(StreamIteratorNextID)(self.key.as_ptr(), &raw mut id, &raw mut field_count);
            if next != REDISMODULE_OK {
                return None;
            }
            let mut fields = Vec::with_capacity(usize::try_from(field_count).unwrap_or(0));
            loop {
                let (mut field, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
                let next = api!(StreamIteratorNextField)(self.key.as_ptr(), &raw mut field, &raw mut value);
                if next != REDISMODULE_OK {
                    return Some((id, fields));
                }
                fields.push((ModuleString::from_server(field), ModuleString::from_server(value)));
            }
        }
    }
}

impl Drop for StreamRange<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // SAFETY: the range was started, and the key is still open.
            unsafe { api!(StreamIteratorStop)(self.key.as_ptr()) };
        }
    }
}

/// A stream, for writing.
pub struct StreamMut<'a> {
    key: NonNull<RedisModuleKey>,
    is_changed: &'a mut bool,
}

impl StreamMut<'_> {
    pub(super) fn new<'a>(key: NonNull<RedisModuleKey>, is_changed: &'a mut bool) -> StreamMut<'a> {
        StreamMut { key, is_changed }
    }

    /// Adds an entry with these fields, each followed by its value. Without an id, the server makes one. Gives its id.
    /// Errors: the id is not greater than that of the last entry, or the fields are not pairs.
    pub fn add(
        &mut self,
        id: Option<RedisModuleStreamID>,
        fields: &[ModuleStr<'_>],
    ) -> Result<RedisModuleStreamID, Error> {
        let flags = if id.is_none() { REDISMODULE_STREAM_ADD_AUTOID } else { 0 };
        let mut id = id.unwrap_or_default();
        let pairs = i64::try_from(fields.len() / 2).unwrap_or(0);
        if fields.is_empty() || !fields.len().is_multiple_of(2) {
            return Err(Error::from_text(c"ERR wrong number of fields for a stream's entry"));
        }
        // SAFETY: the key is open for writing and holds a stream or nothing. The server copies the fields, and does not
        // change the array.
        let result = unsafe {
            let fields = fields.as_ptr().cast_mut().cast();
            api!(StreamAdd)(self.key.as_ptr(), flags, &raw mut id, fields, pairs)
        };
        match result {
            REDISMODULE_OK => {
                *self.is_changed = true;
                Ok(id)
            }
            _ => Err(Error::from_text(
                c"ERR The ID specified in XADD is equal or smaller than the target stream top item",
            )),
        }
    }

    /// Removes an entry. Says whether it was there.
    pub fn remove(&mut self, id: RedisModuleStreamID) -> bool {
        let mut id = id;
        // SAFETY: the key is open for writing.
        let is_removed = unsafe { api!(StreamDelete)(self.key.as_ptr(), &raw mut id) } == REDISMODULE_OK;
        *self.is_changed |= is_removed;
        is_removed
    }

    /// Leaves the last `len` entries, or some more if it may be approximate, which is cheaper. Gives how many went.
    pub fn trim(&mut self, len: usize, may_approximate: bool) -> usize {
        let flags = if may_approximate { REDISMODULE_STREAM_TRIM_APPROX } else { 0 };
        let len = c_longlong::try_from(len).unwrap_or(c_longlong::MAX);
        // SAFETY: the key is open for writing.
        let removed = unsafe { api!(StreamTrimByLength)(self.key.as_ptr(), flags, len) };
        *self.is_changed |= removed > 0;
        usize::try_from(removed).unwrap_or(0)
    }
}
