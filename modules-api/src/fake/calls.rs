//! Commands that the module of a fake server calls, and their replies.

use super::context::{FakeContext, argc, argv};
use super::{FakeHost, FakeReply, all_bytes, context, state};
use crate::abi::*;
use crate::served;
use std::ffi::{CStr, c_char, c_int, c_longlong};
use std::mem::transmute;

/// What a test makes of commands that the module calls.
pub(super) type AnswerCall = Box<dyn FnMut(&[Vec<u8>]) -> Option<FakeReply> + Send>;

impl FakeHost {
    /// Has a function answer commands that the module calls, with their arguments. What it has no answer for is a command of
    /// the module itself, CONFIG GET, or unknown.
    pub fn on_call(&mut self, answer: impl FnMut(&[Vec<u8>]) -> Option<FakeReply> + Send + 'static) {
        self.locked(|state| state.answer_call = Some(Box::new(answer)));
    }
}

/// A reply, or a part of it, as the module has it.
struct Part {
    reply: FakeReply,
    parts: Vec<Part>,
}

impl Part {
    fn of(reply: FakeReply) -> Part {
        let elements = match &reply {
            FakeReply::Array(elements) | FakeReply::Set(elements) | FakeReply::Map(elements) => &elements[..],
            _ => &[],
        };
        Part { parts: elements.iter().cloned().map(Part::of).collect(), reply }
    }
}

/// # Safety
/// `reply` is one of this server, or a part of one, that was not freed.
unsafe fn part<'a>(reply: *mut RedisModuleCallReply) -> &'a Part {
    // SAFETY: as promised.
    unsafe { &*reply.cast::<Part>() }
}

/// Runs a called command.
///
/// # Safety
/// `ctx` is a context, and the lock is held.
unsafe fn answer(ctx: *mut RedisModuleCtx, command: &[Vec<u8>]) -> FakeReply {
    // SAFETY: as promised; no reference to the state is kept while a command runs.
    unsafe {
        state(ctx).done.called.push(command.to_vec());
        // It is taken out while it runs, for it is a part of the state.
        if let Some(mut by_test) = state(ctx).answer_call.take() {
            let answered = by_test(command);
            state(ctx).answer_call = Some(by_test);
            if let Some(reply) = answered {
                return reply;
            }
        }
        let name = String::from_utf8_lossy(&command[0]).to_ascii_lowercase();
        if let Some(run) =
            state(ctx).commands.get(&name).map(|own| own.run.expect("a command has a function"))
        {
            let mut inner = FakeContext::new(&context(ctx).server, command);
            let inner_ctx = inner.as_ptr();
            run(inner_ctx, argv(inner_ctx), argc(inner_ctx));
            return inner.replies.finish();
        }
        match command {
            [_, get, directive] if name == "config" && get.eq_ignore_ascii_case(b"get") => {
                let directive = String::from_utf8_lossy(directive).into_owned();
                let value = super::directives::value(ctx, &directive);
                let pair = value.map(|value| vec![FakeReply::bytes(&directive), FakeReply::bytes(value)]);
                FakeReply::Array(pair.unwrap_or_default())
            }
            _ => FakeReply::Error(format!("ERR unknown command '{name}'")),
        }
    }
}

// The functions of the server: with the context of the call under way, strings of C, and replies that were not freed.

/// `Call` with a format that begins with "v", as the SDK calls it.
unsafe extern "C" fn call(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    format: *const c_char,
    arguments: *const *mut RedisModuleString,
    count: usize,
) -> *mut RedisModuleCallReply {
    // SAFETY: see above.
    unsafe {
        assert!(CStr::from_ptr(format).to_bytes().starts_with(b"v"), "the SDK gives arguments as an array");
        let mut command = vec![CStr::from_ptr(name).to_bytes().to_vec()];
        command.extend(all_bytes(arguments, count));
        let reply = answer(ctx, &command);
        Box::into_raw(Box::new(Part::of(reply))).cast()
    }
}

unsafe extern "C" fn free_reply(reply: *mut RedisModuleCallReply) {
    // SAFETY: it was given by `call`, and is used no more.
    drop(unsafe { Box::from_raw(reply.cast::<Part>()) });
}

unsafe extern "C" fn type_of(reply: *mut RedisModuleCallReply) -> c_int {
    // SAFETY: see above.
    match unsafe { part(reply) }.reply {
        FakeReply::Integer(_) => REDISMODULE_REPLY_INTEGER,
        FakeReply::Bytes(_) | FakeReply::Simple(_) => REDISMODULE_REPLY_STRING,
        FakeReply::Error(_) => REDISMODULE_REPLY_ERROR,
        FakeReply::Null | FakeReply::NullArray => REDISMODULE_REPLY_NULL,
        FakeReply::Array(_) => REDISMODULE_REPLY_ARRAY,
        FakeReply::Set(_) => REDISMODULE_REPLY_SET,
        FakeReply::Map(_) => REDISMODULE_REPLY_MAP,
        FakeReply::Double(_) => REDISMODULE_REPLY_DOUBLE,
        FakeReply::Bool(_) => REDISMODULE_REPLY_BOOL,
        FakeReply::BigNumber(_) => REDISMODULE_REPLY_BIG_NUMBER,
        FakeReply::Verbatim(_) => REDISMODULE_REPLY_VERBATIM_STRING,
    }
}

unsafe extern "C" fn integer(reply: *mut RedisModuleCallReply) -> c_longlong {
    // SAFETY: see above.
    match unsafe { part(reply) }.reply {
        FakeReply::Integer(value) => value,
        _ => panic!("the reply is no integer"),
    }
}

unsafe extern "C" fn double(reply: *mut RedisModuleCallReply) -> f64 {
    // SAFETY: see above.
    match unsafe { part(reply) }.reply {
        FakeReply::Double(value) => value,
        _ => panic!("the reply is no double"),
    }
}

unsafe extern "C" fn boolean(reply: *mut RedisModuleCallReply) -> c_int {
    // SAFETY: see above.
    match unsafe { part(reply) }.reply {
        FakeReply::Bool(value) => c_int::from(value),
        _ => panic!("the reply is neither true nor false"),
    }
}

/// The bytes of strings, errors, big numbers and texts.
unsafe extern "C" fn bytes(reply: *mut RedisModuleCallReply, len: *mut usize) -> *const c_char {
    // SAFETY: see above; there is room for the length.
    unsafe {
        let bytes = match &part(reply).reply {
            FakeReply::Bytes(bytes) | FakeReply::Verbatim(bytes) => &bytes[..],
            FakeReply::Simple(text) | FakeReply::Error(text) | FakeReply::BigNumber(text) => text.as_bytes(),
            _ => panic!("the reply has no bytes"),
        };
        *len = bytes.len();
        bytes.as_ptr().cast()
    }
}

unsafe extern "C" fn verbatim(
    reply: *mut RedisModuleCallReply,
    len: *mut usize,
    format: *mut *const c_char,
) -> *const c_char {
    // SAFETY: see above; there is room for length and format.
    unsafe {
        *format = c"txt".as_ptr();
        bytes(reply, len)
    }
}

unsafe extern "C" fn length(reply: *mut RedisModuleCallReply) -> usize {
    // SAFETY: see above.
    let part = unsafe { part(reply) };
    match part.reply {
        FakeReply::Map(_) => part.parts.len() / 2,
        _ => part.parts.len(),
    }
}

unsafe extern "C" fn element(reply: *mut RedisModuleCallReply, index: usize) -> *mut RedisModuleCallReply {
    // SAFETY: see above. The module does not change a reply.
    match unsafe { part(reply) }.parts.get(index) {
        Some(element) => std::ptr::from_ref(element).cast_mut().cast(),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn map_element(
    reply: *mut RedisModuleCallReply,
    index: usize,
    key: *mut *mut RedisModuleCallReply,
    value: *mut *mut RedisModuleCallReply,
) -> c_int {
    // SAFETY: see above; there is room for both.
    unsafe {
        *key = element(reply, 2 * index);
        *value = element(reply, 2 * index + 1);
        if (*value).is_null() { REDISMODULE_ERR } else { REDISMODULE_OK }
    }
}

unsafe extern "C" fn reply_with(ctx: *mut RedisModuleCtx, reply: *mut RedisModuleCallReply) -> c_int {
    // SAFETY: see above.
    unsafe { context(ctx).replies.add(part(reply).reply.clone()) };
    REDISMODULE_OK
}

type CallWithArray = unsafe extern "C" fn(
    *mut RedisModuleCtx,
    *const c_char,
    *const c_char,
    *const *mut RedisModuleString,
    usize,
) -> *mut RedisModuleCallReply;

// SAFETY: on Linux, the first integers and pointers of a call go into registers, whether the function declares them or has
// `...` for them. The SDK calls it with exactly these.
const CALL: signature::Call = unsafe { transmute(call as CallWithArray) };

pub(super) static SERVED: &[Served] = served! {
    Call = CALL,
    FreeCallReply = free_reply,
    CallReplyType = type_of,
    CallReplyInteger = integer,
    CallReplyDouble = double,
    CallReplyBool = boolean,
    CallReplyStringPtr = bytes,
    CallReplyBigNumber = bytes,
    CallReplyVerbatim = verbatim,
    CallReplyLength = length,
    CallReplyArrayElement = element,
    CallReplySetElement = element,
    CallReplyMapElement = map_element,
    ReplyWithCallReply = reply_with,
};
