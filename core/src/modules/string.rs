//! `RedisModuleString`: a counted string. Modules keep strings for as long as they hold a reference, and expect that a zero
//! stands behind the bytes.
//!
//! The arguments of a command are strings that borrow the bytes of the request, and get a copy of their own only when a
//! module asks for a C string or keeps the string beyond its call. They come from a pool of the thread, so that a call
//! allocates nothing.

use super::module::Module;
use shardis_modules_api::abi::RedisModuleString;
use smallvec::SmallVec;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_int};
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

/// Strings, each made by a box, of which nobody else has a reference.
#[derive(Default)]
struct Idle(Vec<*mut ModuleString>);

impl Drop for Idle {
    fn drop(&mut self) {
        for &string in &self.0 {
            // SAFETY: it was made by a box, and nobody else has a reference.
            drop(unsafe { Box::from_raw(string) });
        }
    }
}

thread_local! {
    /// The strings for the next arguments. While a call has them, this is empty, and a call within that one makes others.
    static POOL: Cell<Idle> = const { Cell::new(Idle(Vec::new())) };
}

/// The arguments of a call, as the module gets them: strings that borrow bytes until [`give_back`](Arguments::give_back).
pub(super) struct Arguments {
    /// The first `len` are lent.
    strings: Idle,
    len: usize,
    module: &'static Module,
}

impl Arguments {
    #[inline]
    pub(super) fn new<'b>(args: impl Iterator<Item = &'b [u8]>, module: &'static Module) -> Arguments {
        let is_read_by_len = module.is_shard_safe();
        let mut strings = POOL.take();
        let mut len = 0;
        for arg in args {
            if len == strings.0.len() {
                strings.0.push(Box::into_raw(ModuleString::empty()));
            }
            // SAFETY: it is alive, because this has a reference.
            unsafe { &*strings.0[len] }.lend(arg, is_read_by_len);
            len += 1;
        }
        Arguments { strings, len, module }
    }

    /// A vector for the callback, which may change it.
    #[inline]
    pub(super) fn vector(&self) -> SmallVec<[*mut ModuleString; 8]> {
        SmallVec::from_slice(&self.strings.0[..self.len])
    }

    pub(super) fn len(&self) -> c_int {
        self.len as c_int
    }

    /// The callback has ended, and the bytes are still there. A string of which the module has kept a reference gets bytes of
    /// its own.
    ///
    /// # Panics
    /// The module has freed one. That is seen as long as the memory has not been used again.
    #[inline]
    pub(super) fn give_back(mut self) {
        for place in &mut self.strings.0[..self.len] {
            // SAFETY: it is alive, because this has a reference.
            let string = unsafe { &**place };
            let references = string.references.load(Ordering::Acquire);
            assert_ne!(
                references,
                0,
                "the module {:?} has freed an argument, which is not its own",
                self.module.name()
            );
            if references != 1 {
                string.own();
                // SAFETY: the reference ends here, and another string takes its place.
                unsafe { ModuleString::release(*place) };
                *place = Box::into_raw(ModuleString::empty());
            } else if string.is_owned.get() {
                string.shrink();
            }
        }
        if self.strings.0.len() > POOL_MAX {
            let rest = Idle(self.strings.0.split_off(POOL_MAX));
            drop(rest);
        }
        POOL.set(self.strings);
    }
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

    /// Makes it borrow bytes for a call. `is_read_by_len`: the module is one of our SDK, which goes by the length of a string.
    #[inline]
    fn lend(&self, bytes: &[u8], is_read_by_len: bool) {
        self.start.set(bytes.as_ptr());
        self.len.set(bytes.len());
        self.is_owned.set(false);
        self.is_read_by_len.set(is_read_by_len);
    }

    /// Adds a reference.
    pub(super) fn retain(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a reference, and frees the string with the last one.
    ///
    /// # Safety
    /// The caller gives up a reference that it had.
    ///
    /// # Panics
    /// It had none. That is seen as long as the memory has not been used again; the report names the module.
    pub(super) unsafe fn release(string: *mut ModuleString) {
        // SAFETY: it is alive, because the caller's reference is.
        match unsafe { &*string }.references.fetch_sub(1, Ordering::AcqRel) {
            // SAFETY: that was the last reference, and the string was made by a box.
            1 => drop(unsafe { Box::from_raw(string) }),
            0 => panic!("a module has freed a string once more than it may"),
            _ => {}
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

    /// Frees a big buffer. The caller has the only reference, and the bytes are not used any more.
    fn shrink(&self) {
        // SAFETY: nobody else refers to the buffer.
        let owned = unsafe { &mut *self.owned.get() };
        if owned.capacity() > POOLED_BYTES_MAX {
            *owned = Vec::new();
        }
        self.is_owned.set(false);
        self.len.set(0);
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
