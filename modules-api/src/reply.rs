//! The reply of a command, written piece by piece to the client.

use crate::abi::{REDISMODULE_POSTPONED_LEN, RedisModuleCtx};
use crate::api::api;
use crate::call::CallReply;
use crate::error::Error;
use crate::string::ModuleStr;
use std::ffi::{CStr, c_char, c_int, c_long};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Writes the reply. An array, a set or a map says its length first and is followed by its elements; of a map, each is a key
/// and a value. The same calls make RESP2 or RESP3, as the client has it: a map becomes an array there, and so on.
#[derive(Clone, Copy)]
pub struct Reply<'c> {
    ctx: NonNull<RedisModuleCtx>,
    _call: PhantomData<&'c ()>,
}

/// What a server is asked to write without anything it could refuse.
macro_rules! replies {
    ($($(#[doc = $doc:literal])* $method:ident($($argument:ident: $type:ty),*) = $function:ident($($value:expr),*);)*) => {$(
        $(#[doc = $doc])*
        #[inline]
        pub fn $method(self $(, $argument: $type)*) {
            // SAFETY: the context is that of the call under way, and what else is given outlives this one.
            unsafe { api!($function)(self.ctx.as_ptr() $(, $value)*) };
        }
    )*};
}

impl<'c> Reply<'c> {
    pub(crate) fn new(ctx: NonNull<RedisModuleCtx>) -> Reply<'c> {
        Reply { ctx, _call: PhantomData }
    }

    replies! {
        integer(value: i64) = ReplyWithLongLong(value);
        /// A bulk string of these bytes.
        bytes(bytes: &[u8]) = ReplyWithStringBuffer(bytes.as_ptr().cast::<c_char>(), bytes.len());
        /// A bulk string.
        string(string: ModuleStr<'_>) = ReplyWithString(string.as_ptr());
        /// A simple string: no line breaks.
        simple(text: &CStr) = ReplyWithSimpleString(text.as_ptr());
        ok() = ReplyWithSimpleString(c"OK".as_ptr());
        error(error: &Error) = ReplyWithError(error.text().as_ptr());
        null() = ReplyWithNull();
        /// In RESP2 the null of arrays, `*-1`; in RESP3 the one null.
        null_array() = ReplyWithNullArray();
        empty_array() = ReplyWithEmptyArray();
        array(len: usize) = ReplyWithArray(length(len));
        map(len: usize) = ReplyWithMap(length(len));
        set(len: usize) = ReplyWithSet(length(len));
        /// An array whose length is said behind its elements, by [`end_array`](Self::end_array).
        begin_array() = ReplyWithArray(REDISMODULE_POSTPONED_LEN);
        end_array(len: usize) = ReplySetArrayLength(length(len));
        begin_map() = ReplyWithMap(REDISMODULE_POSTPONED_LEN);
        end_map(len: usize) = ReplySetMapLength(length(len));
        begin_set() = ReplyWithSet(REDISMODULE_POSTPONED_LEN);
        end_set(len: usize) = ReplySetSetLength(length(len));
        /// In RESP2 a bulk string.
        double(value: f64) = ReplyWithDouble(value);
        /// In RESP2 an integer, 0 or 1.
        bool(value: bool) = ReplyWithBool(c_int::from(value));
        /// A number of any length, as its digits.
        big_number(digits: &str) = ReplyWithBigNumber(digits.as_ptr().cast::<c_char>(), digits.len());
        /// Text to be shown as it is. In RESP2 a bulk string.
        verbatim(text: &[u8]) = ReplyWithVerbatimString(text.as_ptr().cast::<c_char>(), text.len());
    }

    /// A number as Redis shows coordinates: with up to 17 digits behind the point and no exponent. In RESP2 a bulk string.
    #[cfg(target_arch = "x86_64")]
    pub fn human_double(self, value: f64) {
        /// A `long double` is passed in 16 bytes of the stack, aligned to 16. So is the beginning of this.
        #[repr(C, align(16))]
        struct OnStack([u8; 32]);
        type ReplyWithLongDouble = unsafe extern "C" fn(*mut RedisModuleCtx, OnStack) -> c_int;

        let mut argument = OnStack([0; 32]);
        argument.0[..10].copy_from_slice(&crate::number::to_x87(value));
        // SAFETY: this is how C passes a `long double` here, and the function has no other signature in C.
        unsafe {
            let function = std::mem::transmute::<
                crate::abi::signature::ReplyWithLongDouble,
                ReplyWithLongDouble,
            >(api!(ReplyWithLongDouble));
            function(self.ctx.as_ptr(), argument);
        }
    }

    /// A number as Redis shows coordinates. Without a way to pass a `long double` it is written as any other.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn human_double(self, value: f64) {
        self.double(value);
    }

    /// What a called command replied.
    pub fn call_reply(self, reply: &CallReply<'_>) {
        // SAFETY: the context is that of the call under way, and the reply lives.
        unsafe { api!(ReplyWithCallReply)(self.ctx.as_ptr(), reply.as_ptr()) };
    }
}

fn length(len: usize) -> c_long {
    c_long::try_from(len).expect("a length of what is in memory")
}
