//! Bytes in the server's memory.

use crate::api::api;
use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

/// Bytes of a fixed length that the server allocates: it counts them to its memory, for `maxmemory` and INFO, and moves them
/// when it defragments ([`Defrag::bytes`](crate::Defrag::bytes)). What Rust allocates it knows nothing of.
pub struct ServerBytes {
    /// Dangling if there are no bytes.
    bytes: NonNull<u8>,
    len: usize,
}

// SAFETY: it is the only owner of its block, and the server allocates and frees on any thread.
unsafe impl Send for ServerBytes {}
// SAFETY: through a shared reference, the bytes are only read.
unsafe impl Sync for ServerBytes {}

impl ServerBytes {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> ServerBytes {
        if bytes.is_empty() {
            return ServerBytes { bytes: NonNull::dangling(), len: 0 };
        }
        // SAFETY: the server gives a block of this length, or ends, and nobody else has it.
        unsafe {
            let block = NonNull::new(api!(Alloc)(bytes.len()).cast::<u8>()).expect("the server gives memory");
            block.copy_from_nonoverlapping(NonNull::from(bytes).cast::<u8>(), bytes.len());
            ServerBytes { bytes: block, len: bytes.len() }
        }
    }

    /// The block as the server knows it; NULL if there is none.
    pub(crate) fn block(&mut self) -> *mut c_void {
        if self.len == 0 { std::ptr::null_mut() } else { self.bytes.as_ptr().cast() }
    }

    /// The server moved the bytes, unless this is NULL.
    pub(crate) fn moved_to(&mut self, block: *mut c_void) {
        if let Some(block) = NonNull::new(block) {
            self.bytes = block.cast();
        }
    }
}

impl Deref for ServerBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block has so many bytes, which only change through a mutable borrow.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }
}

impl Clone for ServerBytes {
    fn clone(&self) -> ServerBytes {
        ServerBytes::new(self)
    }
}

impl Drop for ServerBytes {
    fn drop(&mut self) {
        // SAFETY: the block is this one's own. NULL frees nothing.
        unsafe { api!(Free)(self.block()) };
    }
}

impl fmt::Debug for ServerBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}
