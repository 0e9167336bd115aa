//! Calls of other commands, and their replies.

use crate::abi::{
    REDISMODULE_REPLY_ARRAY, REDISMODULE_REPLY_BIG_NUMBER, REDISMODULE_REPLY_BOOL, REDISMODULE_REPLY_DOUBLE,
    REDISMODULE_REPLY_ERROR, REDISMODULE_REPLY_INTEGER, REDISMODULE_REPLY_MAP, REDISMODULE_REPLY_NULL,
    REDISMODULE_REPLY_SET, REDISMODULE_REPLY_STRING, REDISMODULE_REPLY_VERBATIM_STRING, RedisModuleCallReply,
};
use crate::api::api;
use crate::context::Context;
use crate::error::Error;
use crate::string::{ModuleStr, ModuleString, slice_of};
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// How a command is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallOptions {
    /// Propagate it to replicas and to the append-only file.
    pub replicate: bool,
    /// Have the reply in RESP3's types.
    pub resp3: bool,
    /// Refuse commands that write.
    pub refuse_writes: bool,
    /// Refuse commands that use memory when the server has no more (`deny-oom`).
    pub refuse_when_out_of_memory: bool,
    /// Refuse what scripts may not call, and what a script could not at this time.
    pub as_script: bool,
}

impl CallOptions {
    /// The letters of `Call`'s format, behind the one that stands for the arguments. Errors are replies ("E").
    fn format(self) -> [u8; 8] {
        let mut format = *b"vE\0\0\0\0\0\0";
        let letters = [
            (self.replicate, b'!'),
            (self.resp3, b'3'),
            (self.refuse_writes, b'W'),
            (self.refuse_when_out_of_memory, b'M'),
            (self.as_script, b'S'),
        ];
        let wanted = letters.into_iter().filter(|(is_wanted, _)| *is_wanted);
        for (place, (_, letter)) in format[2..].iter_mut().zip(wanted) {
            *place = letter;
        }
        format
    }
}

/// The reply of a called command, or a part of one.
pub struct CallReply<'r> {
    reply: NonNull<RedisModuleCallReply>,
    /// A part is freed with the whole.
    is_whole: bool,
    _whole: PhantomData<&'r RedisModuleCallReply>,
}

/// A reply taken apart by its type.
#[derive(Debug)]
pub enum CallValue<'r> {
    Null,
    Integer(i64),
    Double(f64),
    Bool(bool),
    /// Simple, bulk and verbatim strings, and big numbers.
    Bytes(&'r [u8]),
    Error(&'r [u8]),
    Array(Elements<'r>),
    Set(Elements<'r>),
    Map(Entries<'r>),
}

impl Context<'_> {
    /// Calls a command. One that is not [wide](crate::Row::is_wide) can call plain commands over keys that it declares itself, and
    /// CONFIG GET.
    /// Errors: what the command answered, and what stood against calling it.
    pub fn call(
        &mut self,
        name: &CStr,
        arguments: &[ModuleStr<'_>],
        options: CallOptions,
    ) -> Result<CallReply<'static>, Error> {
        let format = options.format();
        // The server may keep these strings, and then counts references to them when this thread has given the lock back.
        let copies: Vec<ModuleString> = match self.is_of_thread() {
            true => arguments.iter().map(|argument| ModuleString::new(argument.as_bytes())).collect(),
            false => Vec::new(),
        };
        let copied: Vec<ModuleStr<'_>> = copies.iter().map(ModuleString::as_str).collect();
        let arguments = if self.is_of_thread() { &copied } else { arguments };
        // SAFETY: "v" takes an array of strings and its length, and the format ends with a zero, for there are fewer letters
        // than places. No key is open, for `self` is borrowed mutably.
        let reply = unsafe {
            let format = format.as_ptr().cast::<c_char>();
            api!(Call)(self.as_ptr(), name.as_ptr(), format, arguments.as_ptr(), arguments.len())
        };
        let Some(reply) = NonNull::new(reply) else {
            return Err(Error::from_text(c"ERR the command cannot be called"));
        };
        let reply = CallReply { reply, is_whole: true, _whole: PhantomData };
        if let CallValue::Error(text) = reply.value() {
            return Err(Error::new(text));
        }
        Ok(reply)
    }
}

impl CallReply<'_> {
    pub fn as_ptr(&self) -> *mut RedisModuleCallReply {
        self.reply.as_ptr()
    }

    pub fn value(&self) -> CallValue<'_> {
        // SAFETY: the reply lives, and each function is asked about replies of its type only.
        unsafe {
            match api!(CallReplyType)(self.as_ptr()) {
                REDISMODULE_REPLY_INTEGER => CallValue::Integer(api!(CallReplyInteger)(self.as_ptr())),
                REDISMODULE_REPLY_DOUBLE => CallValue::Double(api!(CallReplyDouble)(self.as_ptr())),
                REDISMODULE_REPLY_BOOL => CallValue::Bool(api!(CallReplyBool)(self.as_ptr()) != 0),
                REDISMODULE_REPLY_STRING => CallValue::Bytes(self.bytes()),
                REDISMODULE_REPLY_ERROR => CallValue::Error(self.bytes()),
                REDISMODULE_REPLY_BIG_NUMBER => {
                    let mut len = 0;
                    let bytes = api!(CallReplyBigNumber)(self.as_ptr(), &raw mut len);
                    CallValue::Bytes(slice_of(bytes, len))
                }
                REDISMODULE_REPLY_VERBATIM_STRING => {
                    let (mut len, mut format) = (0, std::ptr::null::<c_char>());
                    let bytes = api!(CallReplyVerbatim)(self.as_ptr(), &raw mut len, &raw mut format);
                    CallValue::Bytes(slice_of(bytes, len))
                }
                REDISMODULE_REPLY_ARRAY => CallValue::Array(self.elements(false)),
                REDISMODULE_REPLY_SET => CallValue::Set(self.elements(true)),
                REDISMODULE_REPLY_MAP => {
                    CallValue::Map(Entries { of: self.part(), next: 0, len: self.len() })
                }
                REDISMODULE_REPLY_NULL => CallValue::Null,
                kind => panic!("the server's reply has an unknown type, {kind}"),
            }
        }
    }

    /// # Safety
    /// It is a string or an error.
    unsafe fn bytes(&self) -> &[u8] {
        let mut len = 0;
        // SAFETY: the reply lives, and keeps its bytes.
        unsafe { slice_of(api!(CallReplyStringPtr)(self.as_ptr(), &raw mut len), len) }
    }

    fn len(&self) -> usize {
        // SAFETY: the reply lives.
        unsafe { api!(CallReplyLength)(self.as_ptr()) }
    }

    fn part(&self) -> CallReply<'_> {
        CallReply { reply: self.reply, is_whole: false, _whole: PhantomData }
    }

    fn elements(&self, is_set: bool) -> Elements<'_> {
        Elements { of: self.part(), is_set, next: 0, len: self.len() }
    }
}

impl Drop for CallReply<'_> {
    fn drop(&mut self) {
        if self.is_whole {
            // SAFETY: it is ours, and its parts borrow it.
            unsafe { api!(FreeCallReply)(self.as_ptr()) };
        }
    }
}

impl std::fmt::Debug for CallReply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value().fmt(f)
    }
}

/// The elements of an array or a set.
pub struct Elements<'r> {
    of: CallReply<'r>,
    is_set: bool,
    next: usize,
    len: usize,
}

impl<'r> Iterator for Elements<'r> {
    type Item = CallReply<'r>;

    fn next(&mut self) -> Option<CallReply<'r>> {
        if self.next == self.len {
            return None;
        }
        let at = self.next;
        self.next += 1;
        // SAFETY: the whole lives during `'r`, and has an element there.
        let element = unsafe {
            match self.is_set {
                true => api!(CallReplySetElement)(self.of.as_ptr(), at),
                false => api!(CallReplyArrayElement)(self.of.as_ptr(), at),
            }
        };
        Some(CallReply { reply: NonNull::new(element)?, is_whole: false, _whole: PhantomData })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len - self.next, Some(self.len - self.next))
    }
}

impl ExactSizeIterator for Elements<'_> {}

impl std::fmt::Debug for Elements<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} elements", self.len)
    }
}

/// The keys and values of a map.
pub struct Entries<'r> {
    of: CallReply<'r>,
    next: usize,
    len: usize,
}

impl<'r> Iterator for Entries<'r> {
    type Item = (CallReply<'r>, CallReply<'r>);

    fn next(&mut self) -> Option<(CallReply<'r>, CallReply<'r>)> {
        if self.next == self.len {
            return None;
        }
        let at = self.next;
        self.next += 1;
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the whole lives during `'r`, and has an entry there.
        unsafe { api!(CallReplyMapElement)(self.of.as_ptr(), at, &raw mut key, &raw mut value) };
        let part =
            |reply| Some(CallReply { reply: NonNull::new(reply)?, is_whole: false, _whole: PhantomData });
        Some((part(key)?, part(value)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len - self.next, Some(self.len - self.next))
    }
}

impl ExactSizeIterator for Entries<'_> {}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries", self.len)
    }
}
