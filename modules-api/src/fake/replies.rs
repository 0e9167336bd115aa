//! The replies of a fake server.

use super::context;
use crate::abi::*;
use crate::served;
use std::ffi::{c_char, c_int, c_long, c_longlong};
use std::mem::transmute;

/// A reply, as the SDK wrote it: types are those of RESP3.
#[derive(Debug, Clone, PartialEq)]
pub enum FakeReply {
    Integer(i64),
    Bytes(Vec<u8>),
    Simple(String),
    Error(String),
    Null,
    NullArray,
    Array(Vec<FakeReply>),
    Set(Vec<FakeReply>),
    /// Keys and values, in turn.
    Map(Vec<FakeReply>),
    Double(f64),
    Bool(bool),
    BigNumber(String),
    Verbatim(Vec<u8>),
}

impl FakeReply {
    pub fn bytes(bytes: impl AsRef<[u8]>) -> FakeReply {
        FakeReply::Bytes(bytes.as_ref().to_vec())
    }

    pub fn error(text: &str) -> FakeReply {
        FakeReply::Error(text.to_string())
    }
}

/// A reply under way: the collections that are open, each in the one before.
#[derive(Default)]
pub(super) struct Builder {
    open: Vec<Open>,
    whole: Vec<FakeReply>,
}

struct Open {
    collection: fn(Vec<FakeReply>) -> FakeReply,
    elements: Vec<FakeReply>,
    /// None until it is said.
    len: Option<usize>,
}

impl Builder {
    pub(super) fn add(&mut self, reply: FakeReply) {
        match self.open.last_mut() {
            Some(open) => open.elements.push(reply),
            None => self.whole.push(reply),
        }
        self.close_full();
    }

    fn begin(&mut self, collection: fn(Vec<FakeReply>) -> FakeReply, len: Option<usize>) {
        self.open.push(Open { collection, elements: Vec::new(), len });
        self.close_full();
    }

    fn end(&mut self, len: usize) {
        let open = self.open.last_mut().expect("no collection was begun");
        assert!(open.len.is_none(), "the length was said before");
        assert_eq!(open.elements.len(), len, "the length that is said, and the elements there are");
        open.len = Some(len);
        self.close_full();
    }

    fn close_full(&mut self) {
        if let Some(open) = self.open.pop_if(|open| open.len == Some(open.elements.len())) {
            self.add((open.collection)(open.elements));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.whole.is_empty()
    }

    pub(super) fn finish(&mut self) -> FakeReply {
        assert!(self.open.is_empty(), "a collection lacks elements");
        assert_eq!(self.whole.len(), 1, "a command replies once: {:?}", self.whole);
        self.whole.remove(0)
    }
}

/// Functions that add one reply: the arguments behind the context, and what they make.
macro_rules! replies {
    ($($function:ident($($argument:ident: $type:ty),*) => $reply:expr;)*) => {$(
        unsafe extern "C" fn $function(ctx: *mut RedisModuleCtx $(, $argument: $type)*) -> c_int {
            // SAFETY: the context is that of the call under way; bytes and texts are as long as the caller says.
            unsafe { context(ctx).replies.add($reply) };
            REDISMODULE_OK
        }
    )*};
}

/// # Safety
/// `bytes` points to `len` bytes.
unsafe fn copy(bytes: *const c_char, len: usize) -> Vec<u8> {
    // SAFETY: as promised.
    unsafe { crate::string::slice_of(bytes, len) }.to_vec()
}

replies! {
    integer(value: c_longlong) => FakeReply::Integer(value);
    buffer(bytes: *const c_char, len: usize) => FakeReply::Bytes(copy(bytes, len));
    string(string: *mut RedisModuleString) => FakeReply::bytes(super::strings::bytes(string));
    simple(text: *const c_char) => FakeReply::Simple(super::text(text));
    error(text: *const c_char) => FakeReply::Error(super::text(text));
    null() => FakeReply::Null;
    null_array() => FakeReply::NullArray;
    empty_array() => FakeReply::Array(Vec::new());
    double(value: f64) => FakeReply::Double(value);
    boolean(value: c_int) => FakeReply::Bool(value != 0);
    big_number(digits: *const c_char, len: usize) =>
        FakeReply::BigNumber(String::from_utf8_lossy(&copy(digits, len)).into_owned());
    verbatim(text: *const c_char, len: usize) => FakeReply::Verbatim(copy(text, len));
}

/// Functions that begin a collection of so many elements, each of so many replies, and that say the length later.
macro_rules! collections {
    ($($begin:ident $end:ident $collection:path, $replies_each:literal;)*) => {$(
        unsafe extern "C" fn $begin(ctx: *mut RedisModuleCtx, len: c_long) -> c_int {
            let len = usize::try_from(len).ok().map(|len| len * $replies_each);
            // SAFETY: the context is that of the call under way.
            unsafe { context(ctx).replies.begin($collection, len) };
            REDISMODULE_OK
        }

        unsafe extern "C" fn $end(ctx: *mut RedisModuleCtx, len: c_long) {
            let len = usize::try_from(len).expect("a length");
            // SAFETY: the context is that of the call under way.
            unsafe { context(ctx).replies.end(len * $replies_each) };
        }
    )*};
}

collections! {
    array end_array FakeReply::Array, 1;
    set end_set FakeReply::Set, 1;
    map end_map FakeReply::Map, 2;
}

/// A `long double` on the stack, where the SDK puts it: in the first 10 of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(16))]
struct OnStack([u8; 32]);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn long_double(ctx: *mut RedisModuleCtx, value: OnStack) -> c_int {
    let bytes: [u8; 10] = std::array::from_fn(|at| value.0[at]);
    // SAFETY: the context is that of the call under way.
    unsafe { context(ctx).replies.add(FakeReply::Double(crate::number::from_x87(bytes))) };
    REDISMODULE_OK
}

#[cfg(target_arch = "x86_64")]
type LongDoubleFn = unsafe extern "C" fn(*mut RedisModuleCtx, OnStack) -> c_int;

// SAFETY: whoever calls it has to know its true signature, for it cannot be called by the one in the table.
#[cfg(target_arch = "x86_64")]
const LONG_DOUBLE: signature::ReplyWithLongDouble = unsafe { transmute(long_double as LongDoubleFn) };

#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn no_long_double() {
    panic!("there is no long double here")
}

#[cfg(not(target_arch = "x86_64"))]
const LONG_DOUBLE: signature::ReplyWithLongDouble = no_long_double;

pub(super) static SERVED: &[Served] = served! {
    ReplyWithLongLong = integer,
    ReplyWithStringBuffer = buffer,
    ReplyWithString = string,
    ReplyWithSimpleString = simple,
    ReplyWithError = error,
    ReplyWithNull = null,
    ReplyWithNullArray = null_array,
    ReplyWithEmptyArray = empty_array,
    ReplyWithDouble = double,
    ReplyWithLongDouble = LONG_DOUBLE,
    ReplyWithBool = boolean,
    ReplyWithBigNumber = big_number,
    ReplyWithVerbatimString = verbatim,
    ReplyWithArray = array,
    ReplySetArrayLength = end_array,
    ReplyWithSet = set,
    ReplySetSetLength = end_set,
    ReplyWithMap = map,
    ReplySetMapLength = end_map,
};
