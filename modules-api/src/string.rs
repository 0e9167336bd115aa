//! Strings of the server: borrowed ([`ModuleStr`]) and owned ([`ModuleString`]), and the arguments of a command.

use crate::abi::{RedisModuleStreamID, RedisModuleString};
use crate::api::api;
use crate::error::Error;
use crate::number;
use std::ffi::c_char;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// A string of the server, borrowed: an argument of a command, a field, a value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct ModuleStr<'a> {
    string: NonNull<RedisModuleString>,
    _borrow: PhantomData<&'a RedisModuleString>,
}

impl<'a> ModuleStr<'a> {
    /// # Safety
    /// `string` is a string of the server that nobody frees or changes during `'a`.
    pub unsafe fn from_raw(string: NonNull<RedisModuleString>) -> ModuleStr<'a> {
        ModuleStr { string, _borrow: PhantomData }
    }

    /// The pointer that the ABI knows it by.
    pub fn as_ptr(self) -> *mut RedisModuleString {
        self.string.as_ptr()
    }

    /// Its bytes, where they are.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        let mut len = 0;
        // SAFETY: the string lives and does not change during `'a`.
        unsafe {
            let bytes = api!(StringPtrLen)(self.as_ptr(), &raw mut len);
            slice_of(bytes, len)
        }
    }

    /// Its bytes up to the first zero, where they are: what Redis' own error texts quote of an argument.
    pub fn as_c_bytes(self) -> &'a [u8] {
        self.as_bytes().split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Whether it is this word, in whatever case.
    #[inline]
    pub fn is_word(self, word: &str) -> bool {
        self.as_bytes().eq_ignore_ascii_case(word.as_bytes())
    }

    /// The integer it stands for, by Redis' rules: decimal digits without leading zeros, a space or a plus sign.
    /// Errors: "ERR value is not an integer or out of range".
    #[inline]
    pub fn to_integer(self) -> Result<i64, Error> {
        number::parse_integer(self.as_bytes()).ok_or(Error::NOT_AN_INTEGER)
    }

    /// The number it stands for; infinite is one, NaN is none. Errors: "ERR value is not a valid float".
    pub fn to_float(self) -> Result<f64, Error> {
        let mut value = 0.0;
        // SAFETY: the string lives, and there is room for the number.
        let result = unsafe { api!(StringToDouble)(self.as_ptr(), &raw mut value) };
        if result == 0 && !value.is_nan() { Ok(value) } else { Err(Error::NOT_A_FLOAT) }
    }

    /// The id of a stream's entry. Errors: Redis' text for invalid ids.
    pub fn to_stream_id(self) -> Result<RedisModuleStreamID, Error> {
        let mut id = RedisModuleStreamID::default();
        // SAFETY: the string lives, and there is room for the id.
        match unsafe { api!(StringToStreamID)(self.as_ptr(), &raw mut id) } {
            0 => Ok(id),
            _ => Err(Error::from_text(c"ERR Invalid stream ID specified as stream command argument")),
        }
    }

    /// Another reference to it, which stays when the borrow ends.
    pub fn to_owned(self) -> ModuleString {
        // SAFETY: the string lives. Without a context, the reference is ours to give back.
        let held = unsafe { api!(HoldString)(std::ptr::null_mut(), self.as_ptr()) };
        ModuleString::from_server(held)
    }
}

/// By their bytes.
impl PartialEq for ModuleStr<'_> {
    fn eq(&self, other: &ModuleStr<'_>) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ModuleStr<'_> {}

impl fmt::Debug for ModuleStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A string of the server that this module holds a reference to. It stays on its thread: the server counts references to it,
/// too, and not atomically.
pub struct ModuleString {
    string: NonNull<RedisModuleString>,
}

impl ModuleString {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> ModuleString {
        // SAFETY: the server copies the bytes. Without a context, the string is ours to free.
        let made =
            unsafe { api!(CreateString)(std::ptr::null_mut(), bytes.as_ptr().cast::<c_char>(), bytes.len()) };
        ModuleString::from_server(made)
    }

    /// Takes over a reference. NULL is a bug of the server.
    pub(crate) fn from_server(string: *mut RedisModuleString) -> ModuleString {
        ModuleString { string: NonNull::new(string).expect("the server gives a string") }
    }

    pub fn as_str(&self) -> ModuleStr<'_> {
        ModuleStr { string: self.string, _borrow: PhantomData }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl Drop for ModuleString {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and used no more.
        unsafe { api!(FreeString)(std::ptr::null_mut(), self.string.as_ptr()) };
    }
}

impl fmt::Debug for ModuleString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// The arguments of a command, its name first: a slice of strings that live as long as the call.
#[derive(Debug, Clone, Copy)]
pub struct Args<'c>(&'c [ModuleStr<'c>]);

impl<'c> Args<'c> {
    /// # Safety
    /// `argv` points to `argc` strings of the server, which nobody frees or changes during `'c`.
    pub(crate) unsafe fn from_raw(argv: *mut *mut RedisModuleString, argc: i32) -> Args<'c> {
        let count = usize::try_from(argc).unwrap_or(0);
        if count == 0 {
            return Args(&[]);
        }
        // SAFETY: as promised; a `ModuleStr` is such a pointer, and none is NULL.
        Args(unsafe { std::slice::from_raw_parts(argv.cast::<ModuleStr<'c>>(), count) })
    }

    pub fn as_slice(self) -> &'c [ModuleStr<'c>] {
        self.0
    }

    /// The index of the argument that this reference points to, if it points into these.
    pub(crate) fn index_of(self, argument: &ModuleStr<'_>) -> Option<usize> {
        let distance = (&raw const *argument).addr().checked_sub(self.0.as_ptr().addr())?;
        let index = distance / size_of::<ModuleStr<'_>>();
        (index < self.0.len()).then_some(index)
    }
}

impl<'c> Deref for Args<'c> {
    type Target = [ModuleStr<'c>];

    fn deref(&self) -> &[ModuleStr<'c>] {
        self.0
    }
}

/// # Safety
/// `bytes` points to `len` bytes that nobody changes during `'a`; it may be NULL if there are none.
pub(crate) unsafe fn slice_of<'a>(bytes: *const c_char, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: as promised.
    unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) }
}
