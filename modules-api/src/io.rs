//! What a value of a module's type is written to and read from.

use crate::abi::{RedisModuleDefragCtx, RedisModuleDigest, RedisModuleIO};
use crate::api::api;
use crate::memory::ServerBytes;
use crate::string::{ModuleStr, ModuleString, slice_of};
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;

/// Defines a wrapper of a pointer that the server gives to a callback.
macro_rules! handles {
    ($($(#[doc = $doc:literal])* $name:ident($raw:ty);)*) => {$(
        $(#[doc = $doc])*
        pub struct $name<'a> {
            raw: *mut $raw,
            _call: PhantomData<&'a ()>,
        }

        impl $name<'_> {
            /// # Safety
            /// The pointer is the server's, and valid during the callback.
            pub(crate) unsafe fn from_raw<'a>(raw: *mut $raw) -> $name<'a> {
                $name { raw, _call: PhantomData }
            }
        }
    )*};
}

handles! {
    /// Where a value is saved.
    Saver(RedisModuleIO);
    /// What a value is loaded from. Each function gives None if there is no such thing there, or no more.
    Loading(RedisModuleIO);
    /// An append-only file that is being rewritten.
    Aof(RedisModuleIO);
    /// The digest of a value.
    Digest(RedisModuleDigest);
    /// The defragmentation of a value.
    Defrag(RedisModuleDefragCtx);
}

impl Saver<'_> {
    pub fn unsigned(&mut self, value: u64) {
        // SAFETY: the file is open.
        unsafe { api!(SaveUnsigned)(self.raw, value) };
    }

    pub fn signed(&mut self, value: i64) {
        // SAFETY: the file is open.
        unsafe { api!(SaveSigned)(self.raw, value) };
    }

    pub fn double(&mut self, value: f64) {
        // SAFETY: the file is open.
        unsafe { api!(SaveDouble)(self.raw, value) };
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        // SAFETY: the file is open, and the bytes live.
        unsafe { api!(SaveStringBuffer)(self.raw, bytes.as_ptr().cast::<c_char>(), bytes.len()) };
    }
}

impl Loading<'_> {
    pub fn unsigned(&mut self) -> Option<u64> {
        // SAFETY: the file is open.
        let value = unsafe { api!(LoadUnsigned)(self.raw) };
        self.unless_failed(value)
    }

    pub fn signed(&mut self) -> Option<i64> {
        // SAFETY: the file is open.
        let value = unsafe { api!(LoadSigned)(self.raw) };
        self.unless_failed(value)
    }

    pub fn double(&mut self) -> Option<f64> {
        // SAFETY: the file is open.
        let value = unsafe { api!(LoadDouble)(self.raw) };
        self.unless_failed(value)
    }

    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        let mut len = 0;
        // SAFETY: the file is open. The server allocates the bytes for us.
        unsafe {
            let bytes = api!(LoadStringBuffer)(self.raw, &raw mut len);
            if bytes.is_null() {
                return None;
            }
            let copy = slice_of(bytes, len).to_vec();
            api!(Free)(bytes.cast::<c_void>());
            self.unless_failed(copy)
        }
    }

    fn unless_failed<T>(&self, value: T) -> Option<T> {
        // SAFETY: the file is open.
        (unsafe { api!(IsIOError)(self.raw) } == 0).then_some(value)
    }
}

impl Aof<'_> {
    /// Emits a command, with these arguments.
    pub fn emit(&mut self, name: &CStr, arguments: &[&[u8]]) {
        let owned: Vec<ModuleString> = arguments.iter().map(|argument| ModuleString::new(argument)).collect();
        let strings: Vec<ModuleStr<'_>> = owned.iter().map(ModuleString::as_str).collect();
        // SAFETY: the file is open, and "v" takes an array of strings and its length.
        unsafe {
            api!(EmitAOF)(self.raw, name.as_ptr(), c"v".as_ptr(), strings.as_ptr(), strings.len());
        }
    }
}

impl Digest<'_> {
    /// Adds an element to the sequence under way.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // SAFETY: the digest is under way, and the bytes live.
        unsafe { api!(DigestAddStringBuffer)(self.raw, bytes.as_ptr().cast::<c_char>(), bytes.len()) };
    }

    /// Adds an element to the sequence under way.
    pub fn integer(&mut self, value: i64) {
        // SAFETY: the digest is under way.
        unsafe { api!(DigestAddLongLong)(self.raw, value) };
    }

    /// Ends a sequence: its elements count in their order, the sequences in none.
    pub fn end_sequence(&mut self) {
        // SAFETY: the digest is under way.
        unsafe { api!(DigestEndSequence)(self.raw) };
    }
}

impl Defrag<'_> {
    /// Whether it has taken long enough for now.
    pub fn should_stop(&self) -> bool {
        // SAFETY: the defragmentation is under way.
        unsafe { api!(DefragShouldStop)(self.raw) != 0 }
    }

    /// Keeps where it was stopped.
    pub fn set_cursor(&mut self, cursor: u64) {
        // SAFETY: the defragmentation is under way.
        unsafe { api!(DefragCursorSet)(self.raw, cursor) };
    }

    /// Where it was stopped, or 0.
    pub fn cursor(&self) -> u64 {
        let mut cursor = 0;
        // SAFETY: the defragmentation is under way, and there is room for the cursor.
        unsafe { api!(DefragCursorGet)(self.raw, &raw mut cursor) };
        cursor
    }

    /// Moves bytes to where memory is less fragmented, if the server finds that worth while.
    pub fn bytes(&mut self, bytes: &mut ServerBytes) {
        if bytes.is_empty() {
            return;
        }
        // SAFETY: the block is the bytes' own, and they are borrowed by nobody else. The server gives NULL if it stays where
        // it is; if not, it has moved what was in it, and freed it.
        unsafe {
            let moved = api!(DefragAlloc)(self.raw, bytes.block());
            bytes.moved_to(moved);
        }
    }
}
