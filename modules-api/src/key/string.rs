//! The bytes of a string, changed in place.

use crate::abi::{REDISMODULE_OK, REDISMODULE_READ, REDISMODULE_WRITE, RedisModuleKey};
use crate::api::api;
use crate::error::Error;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The bytes of a string in its key: a slice that can be changed, and made longer or shorter. Borrowing it mutably counts as
/// a change.
pub struct StringMut<'a> {
    key: NonNull<RedisModuleKey>,
    bytes: &'a mut [u8],
    is_changed: &'a mut bool,
}

impl StringMut<'_> {
    /// The key is open for writing, and borrowed for as long as this lives.
    #[inline]
    pub(super) fn of<'a>(
        key: NonNull<RedisModuleKey>,
        is_changed: &'a mut bool,
    ) -> Result<StringMut<'a>, Error> {
        Ok(StringMut { key, bytes: bytes_of(key).ok_or(Error::WRONG_TYPE)?, is_changed })
    }

    /// Makes it so long, with zeros behind what was there or without its end. A key that held nothing holds a string then,
    /// unless the length is 0.
    /// Errors: the string would be longer than the server allows.
    pub fn resize(&mut self, len: usize) -> Result<(), Error> {
        self.bytes = &mut [];
        // SAFETY: the key is open for writing, and its bytes are not borrowed.
        let result = unsafe { api!(StringTruncate)(self.key.as_ptr(), len) };
        self.bytes = bytes_of(self.key).unwrap_or_default();
        match result {
            REDISMODULE_OK => {
                *self.is_changed = true;
                Ok(())
            }
            _ => Err(Error::from_text(c"ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
        }
    }
}

/// None if the key holds something else.
#[inline]
fn bytes_of<'a>(key: NonNull<RedisModuleKey>) -> Option<&'a mut [u8]> {
    let mut len = 0;
    // SAFETY: the key is open for writing, and borrowed, so that these bytes are this caller's alone. Without a value the
    // server gives a pointer to nothing.
    unsafe {
        let bytes = api!(StringDMA)(key.as_ptr(), &raw mut len, REDISMODULE_READ | REDISMODULE_WRITE);
        match (bytes.is_null(), len) {
            (true, _) => None,
            (false, 0) => Some(&mut []),
            (false, len) => Some(std::slice::from_raw_parts_mut(bytes.cast::<u8>(), len)),
        }
    }
}

impl Deref for StringMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for StringMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        *self.is_changed = true;
        self.bytes
    }
}
