//! Open keys: what is in them, by type.
//!
//! [`Key`] is open for reading, [`WriteKey`] for both. Each type of value has two views, one that reads and one that writes. A
//! view of a type that the key does not hold is Redis' WRONGTYPE error; a key that holds nothing has no view for reading, and
//! any for writing: the first element makes the value, and removing the last one removes the key.

mod hash;
mod list;
mod stream;
mod string;
mod zset;

pub use hash::{Hash, HashMut};
pub use list::{End, List, ListMut};
pub use stream::{Stream, StreamMut, StreamRange};
pub use string::StringMut;
pub use zset::{AddOptions, Added, ScoreBound, ScoreRange, Zset, ZsetMut, ZsetRange};

use crate::abi::{
    REDISMODULE_KEYTYPE_EMPTY, REDISMODULE_KEYTYPE_HASH, REDISMODULE_KEYTYPE_LIST,
    REDISMODULE_KEYTYPE_MODULE, REDISMODULE_KEYTYPE_SET, REDISMODULE_KEYTYPE_STREAM,
    REDISMODULE_KEYTYPE_STRING, REDISMODULE_KEYTYPE_ZSET, REDISMODULE_NO_EXPIRE, REDISMODULE_OK,
    REDISMODULE_READ, RedisModuleCtx, RedisModuleKey,
};
use crate::api::api;
use crate::error::Error;
use crate::string::{ModuleStr, ModuleString, slice_of};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Nothing: there is no such key.
    Empty,
    String,
    List,
    Hash,
    Set,
    Zset,
    Stream,
    /// A value of a module's type.
    Module,
}

/// A key, open for reading.
pub struct Key<'k> {
    /// None if there is nothing in it.
    key: Option<NonNull<RedisModuleKey>>,
    /// The bytes, if it is a string and open for reading only.
    bytes: Option<NonNull<[u8]>>,
    _context: PhantomData<&'k ()>,
}

impl<'k> Key<'k> {
    /// # Safety
    /// `key` is NULL or an open key, ours to close, and nothing is open for writing during `'k`.
    pub(crate) unsafe fn from_raw(key: *mut RedisModuleKey) -> Key<'k> {
        let mut key = Key { key: NonNull::new(key), bytes: None, _context: PhantomData };
        // Asked for at once: Redis puts another value in place of one that it cannot lend the bytes of, and if the key is
        // open a second time, that one would be left with the value that is gone.
        if let Some(raw) = key.key {
            let mut len = 0;
            // SAFETY: the key is open. There is something in it, because it is open for reading only.
            let bytes = unsafe { api!(StringDMA)(raw.as_ptr(), &raw mut len, REDISMODULE_READ) };
            key.bytes = NonNull::new(bytes).map(|bytes| NonNull::slice_from_raw_parts(bytes.cast(), len));
        }
        key
    }

    /// The pointer that the ABI knows it by; NULL if there is nothing in it.
    pub fn as_ptr(&self) -> *mut RedisModuleKey {
        self.key.map_or(std::ptr::null_mut(), NonNull::as_ptr)
    }

    pub fn kind(&self) -> KeyKind {
        // SAFETY: the key is open, or NULL, which is empty.
        match unsafe { api!(KeyType)(self.as_ptr()) } {
            REDISMODULE_KEYTYPE_EMPTY => KeyKind::Empty,
            REDISMODULE_KEYTYPE_STRING => KeyKind::String,
            REDISMODULE_KEYTYPE_LIST => KeyKind::List,
            REDISMODULE_KEYTYPE_HASH => KeyKind::Hash,
            REDISMODULE_KEYTYPE_SET => KeyKind::Set,
            REDISMODULE_KEYTYPE_ZSET => KeyKind::Zset,
            REDISMODULE_KEYTYPE_STREAM => KeyKind::Stream,
            REDISMODULE_KEYTYPE_MODULE => KeyKind::Module,
            kind => panic!("the server's key has an unknown type, {kind}"),
        }
    }

    /// The length of its value: bytes of a string, elements of anything else; 0 if there is none.
    pub fn len(&self) -> usize {
        // SAFETY: the key is open, or NULL.
        unsafe { api!(ValueLength)(self.as_ptr()) }
    }

    pub fn is_empty(&self) -> bool {
        self.kind() == KeyKind::Empty
    }

    /// Milliseconds until the key expires.
    pub fn expires_in_ms(&self) -> Option<i64> {
        // SAFETY: the key is open.
        let expire = unsafe { api!(GetExpire)(self.key?.as_ptr()) };
        (expire != REDISMODULE_NO_EXPIRE).then_some(expire)
    }

    /// The bytes of a string, where they are. Errors: WRONGTYPE.
    #[inline]
    pub fn string(&self) -> Result<Option<&[u8]>, Error> {
        let Some(key) = self.key else { return Ok(None) };
        if let Some(bytes) = self.bytes {
            // SAFETY: the bytes stay as they are while the key is borrowed: nothing is open for writing.
            return Ok(Some(unsafe { bytes.as_ref() }));
        }
        let mut len = 0;
        // SAFETY: the key is open. Its bytes stay as they are while it is borrowed: nothing is open for writing.
        unsafe {
            let bytes = api!(StringDMA)(key.as_ptr(), &raw mut len, REDISMODULE_READ);
            if bytes.is_null() {
                return Err(Error::WRONG_TYPE);
            }
            // A key that is open for writing may hold nothing.
            if len == 0 && self.kind() == KeyKind::Empty {
                return Ok(None);
            }
            Ok(Some(slice_of(bytes, len)))
        }
    }

    /// A list. Errors: WRONGTYPE.
    pub fn list(&self) -> Result<Option<List<'_>>, Error> {
        Ok(self.typed(KeyKind::List)?.map(List::new))
    }

    /// A hash. Errors: WRONGTYPE.
    pub fn hash(&self) -> Result<Option<Hash<'_>>, Error> {
        Ok(self.typed(KeyKind::Hash)?.map(Hash::new))
    }

    /// A sorted set. A range over it takes the key for itself, hence `&mut`. Errors: WRONGTYPE.
    pub fn zset(&mut self) -> Result<Option<Zset<'_>>, Error> {
        Ok(self.typed(KeyKind::Zset)?.map(Zset::new))
    }

    /// A stream. A range over it takes the key for itself, hence `&mut`. Errors: WRONGTYPE.
    pub fn stream(&mut self) -> Result<Option<Stream<'_>>, Error> {
        Ok(self.typed(KeyKind::Stream)?.map(Stream::new))
    }

    pub(crate) fn typed(&self, kind: KeyKind) -> Result<Option<NonNull<RedisModuleKey>>, Error> {
        let found = self.kind();
        if found == KeyKind::Empty {
            Ok(None)
        } else if found == kind {
            Ok(self.key)
        } else {
            Err(Error::WRONG_TYPE)
        }
    }
}

impl Drop for Key<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // SAFETY: the key is ours, and what borrows it is gone.
            unsafe { api!(CloseKey)(key.as_ptr()) };
        }
    }
}

/// A key, open for reading and writing. If it was changed, the transactions that watch it and the clients that track it learn
/// of that when it is closed.
pub struct WriteKey<'k> {
    key: Key<'k>,
    ctx: NonNull<RedisModuleCtx>,
    name: ModuleStr<'k>,
    is_changed: bool,
}

impl<'k> Deref for WriteKey<'k> {
    type Target = Key<'k>;

    fn deref(&self) -> &Key<'k> {
        &self.key
    }
}

impl<'k> WriteKey<'k> {
    /// # Safety
    /// `key` is the key of that name, open for writing and ours to close. During `'k` no key is opened by this context; what
    /// else is open is of other names and for reading.
    pub(crate) unsafe fn from_raw(
        ctx: NonNull<RedisModuleCtx>,
        name: ModuleStr<'k>,
        key: *mut RedisModuleKey,
    ) -> WriteKey<'k> {
        assert!(!key.is_null(), "the server opens any key for writing");
        let key = Key { key: NonNull::new(key), bytes: None, _context: PhantomData };
        WriteKey { key, ctx, name, is_changed: false }
    }

    pub(crate) fn set_changed(&mut self) {
        self.is_changed = true;
    }

    /// Says that nothing is changed after all, though it looks so: its bytes were borrowed to be changed, and were not.
    pub fn set_unchanged(&mut self) {
        self.is_changed = false;
    }

    /// The bytes of a string, to be changed in place; no bytes if the key holds nothing. Errors: WRONGTYPE.
    #[inline]
    pub fn string_mut(&mut self) -> Result<StringMut<'_>, Error> {
        StringMut::of(self.raw(), &mut self.is_changed)
    }

    /// Makes it a string, whatever it was; its time to live goes.
    pub fn set_string(&mut self, bytes: &[u8]) {
        let string = ModuleString::new(bytes);
        // SAFETY: the key is open for writing, and nobody iterates over it. The server takes a reference of its own.
        unsafe { api!(StringSet)(self.raw().as_ptr(), string.as_str().as_ptr()) };
        self.is_changed = true;
    }

    /// A list. Errors: WRONGTYPE.
    pub fn list_mut(&mut self) -> Result<ListMut<'_>, Error> {
        self.key.typed(KeyKind::List)?;
        Ok(ListMut::new(self.raw(), &mut self.is_changed))
    }

    /// A hash. Errors: WRONGTYPE.
    pub fn hash_mut(&mut self) -> Result<HashMut<'_>, Error> {
        self.key.typed(KeyKind::Hash)?;
        Ok(HashMut::new(self.raw(), &mut self.is_changed))
    }

    /// A sorted set. Errors: WRONGTYPE.
    pub fn zset_mut(&mut self) -> Result<ZsetMut<'_>, Error> {
        self.key.typed(KeyKind::Zset)?;
        Ok(ZsetMut::new(self.raw(), &mut self.is_changed))
    }

    /// A stream. Errors: WRONGTYPE.
    pub fn stream_mut(&mut self) -> Result<StreamMut<'_>, Error> {
        self.key.typed(KeyKind::Stream)?;
        Ok(StreamMut::new(self.raw(), &mut self.is_changed))
    }

    /// Deletes it. Says whether there was something.
    pub fn delete(&mut self) -> bool {
        let is_there = !self.is_empty();
        // SAFETY: the key is open for writing.
        let is_deleted = is_there && unsafe { api!(DeleteKey)(self.raw().as_ptr()) } == REDISMODULE_OK;
        self.is_changed |= is_deleted;
        is_deleted
    }

    /// Deletes it, and has its value freed in the background if that is much work.
    pub fn unlink(&mut self) -> bool {
        let is_there = !self.is_empty();
        // SAFETY: the key is open for writing.
        let is_deleted = is_there && unsafe { api!(UnlinkKey)(self.raw().as_ptr()) } == REDISMODULE_OK;
        self.is_changed |= is_deleted;
        is_deleted
    }

    /// Has it expire in so many milliseconds, or never. Says whether there is something that could.
    pub fn set_expire_ms(&mut self, expire_ms: Option<i64>) -> bool {
        let expire = expire_ms.unwrap_or(REDISMODULE_NO_EXPIRE);
        // SAFETY: the key is open for writing.
        let is_set = unsafe { api!(SetExpire)(self.raw().as_ptr(), expire) } == REDISMODULE_OK;
        self.is_changed |= is_set;
        is_set
    }

    pub(crate) fn raw(&mut self) -> NonNull<RedisModuleKey> {
        self.key.key.expect("a key for writing is not NULL")
    }
}

impl Drop for WriteKey<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_changed {
            // SAFETY: the context is that of the callback under way, and the name lives.
            unsafe { api!(SignalModifiedKey)(self.ctx.as_ptr(), self.name.as_ptr()) };
        }
    }
}
