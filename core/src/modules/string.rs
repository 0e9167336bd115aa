//! `RedisModuleString`: a counted string. Modules keep strings for as long as they hold a reference, and expect that a zero
//! stands behind the bytes.
//!
//! The arguments of a command are strings that borrow the bytes of the request, and get a copy of their own only when a
//! module asks for a C string or keeps the string beyond its call. They come from a pool of the thread, so that a call
//! allocates nothing.

use shardis_modules_api::abi::RedisModuleString;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_char;
use std::sync::atomic::{AtomicU32, Ordering};

/// A counted string.
pub(super) struct ModuleString {
    references: AtomicU32,
    /// The bytes: those of `owned`, or bytes that outlive the present use.
    start: Cell<*const u8>,
    len: Cell<usize>,
    is_owned: Cell<bool>,
    /// Its reader goes by the length, and needs no zero behind the bytes.
    is_read_by_len: Cell<bool>,
    /// With a zero at the end, if `is_owned`. Kept between the uses of a pooled string.
    owned: UnsafeCell<Vec<u8>>,
}

/// So many strings are kept for the next arguments.
const POOL_MAX: usize = 64;

/// A pooled string keeps no larger buffer than this.
const POOLED_BYTES_MAX: usize = 4 << 10;

thread_local! {
    static POOL: RefCell<Vec<Box<ModuleString>>> = const { RefCell::new(Vec::new()) };
}

impl ModuleString {
    fn empty() -> Box<ModuleString> {
        Box::new(ModuleString {
            references: AtomicU32::new(1),
            start: Cell::new(std::ptr::null()),
            len: Cell::new(0),
            is_owned: Cell::new(false),
            is_read_by_len: Cell::new(false),
            owned: UnsafeCell::new(Vec::new()),
        })
    }

    /// A string with a copy of these bytes, and one reference.
    pub(super) fn new(bytes: &[u8]) -> *mut ModuleString {
        ModuleString::from_vec(bytes.to_vec())
    }

    /// The same, without a copy.
    pub(super) fn from_vec(bytes: Vec<u8>) -> *mut ModuleString {
        let string = ModuleString::empty();
        string.set(bytes);
        Box::into_raw(string)
    }

    /// An argument: a string that borrows bytes until [`give_back`](ModuleString::give_back). `is_read_by_len`: the module
    /// is one of our SDK, which goes by the length of a string.
    pub(super) fn lend(bytes: &[u8], is_read_by_len: bool) -> *mut ModuleString {
        let string = POOL.with(|pool| pool.borrow_mut().pop()).unwrap_or_else(ModuleString::empty);
        string.start.set(bytes.as_ptr());
        string.len.set(bytes.len());
        string.is_owned.set(false);
        string.is_read_by_len.set(is_read_by_len);
        Box::into_raw(string)
    }

    /// Ends the loan of an argument. If the module has kept a reference, the string gets bytes of its own.
    ///
    /// # Safety
    /// `string` comes from [`lend`](ModuleString::lend), and what it borrows is still there.
    pub(super) unsafe fn give_back(string: *mut ModuleString) {
        // SAFETY: it is alive, because the caller's reference is.
        let this = unsafe { &*string };
        if this.references.load(Ordering::Acquire) != 1 {
            this.own();
            // SAFETY: the caller's reference ends here.
            return unsafe { ModuleString::release(string) };
        }
        // SAFETY: this is the last reference, and the string was made by a box.
        let mut string = unsafe { Box::from_raw(string) };
        if string.owned.get_mut().capacity() <= POOLED_BYTES_MAX {
            POOL.with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < POOL_MAX {
                    pool.push(string);
                }
            });
        }
    }

    /// Adds a reference.
    pub(super) fn retain(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a reference, and frees the string with the last one.
    ///
    /// # Safety
    /// The caller gives up a reference that it had.
    pub(super) unsafe fn release(string: *mut ModuleString) {
        // SAFETY: it is alive, because the caller's reference is.
        if unsafe { &*string }.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: that was the last reference, and the string was made by a box.
            drop(unsafe { Box::from_raw(string) });
        }
    }

    /// Whether nobody else has a reference.
    pub(super) fn is_unshared(&self) -> bool {
        self.references.load(Ordering::Acquire) == 1
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        if self.len.get() == 0 {
            return &[];
        }
        // SAFETY: `start` and `len` are those of bytes that are there for as long as the string is used.
        unsafe { std::slice::from_raw_parts(self.start.get(), self.len.get()) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    /// The bytes with a zero behind them, if the reader needs that.
    pub(super) fn as_c(&self) -> *const c_char {
        if self.is_read_by_len.get() && self.len.get() > 0 {
            return self.start.get().cast();
        }
        self.own();
        self.start.get().cast()
    }

    /// Copies the bytes, unless they are its own.
    fn own(&self) {
        if !self.is_owned.get() {
            // SAFETY: nobody refers to the buffer, because it is not in use.
            let owned = unsafe { &mut *self.owned.get() };
            owned.clear();
            owned.reserve(self.len.get() + 1);
            owned.extend_from_slice(self.bytes());
            owned.push(0);
            self.start.set(owned.as_ptr());
            self.is_owned.set(true);
        }
    }

    fn set(&self, mut bytes: Vec<u8>) {
        self.len.set(bytes.len());
        bytes.push(0);
        self.start.set(bytes.as_ptr());
        // SAFETY: the string has just been made, or its only holder changes it: nobody reads the old buffer.
        unsafe { *self.owned.get() = bytes };
        self.is_owned.set(true);
    }

    /// Appends bytes. The caller has the only reference.
    pub(super) fn append(&self, more: &[u8]) {
        let mut bytes = self.bytes().to_vec();
        bytes.extend_from_slice(more);
        self.set(bytes);
    }

    /// The bytes of memory that it takes.
    pub(super) fn alloc_bytes(&self) -> usize {
        // SAFETY: the buffer is only looked at.
        size_of::<ModuleString>() + unsafe { (*self.owned.get()).capacity() }
    }

    pub(super) fn as_abi(string: *mut ModuleString) -> *mut RedisModuleString {
        string.cast()
    }
}
