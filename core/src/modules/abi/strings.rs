//! Strings: making, reading and comparing them.

use super::given::{ConstStr, Ctx, Out, Reply, Str, abi_functions, bytes_at};
use super::{fail_with, status};
use crate::modules::string::ModuleString;
use crate::protocol::number::{F64Text, parse_f64, parse_i64};
use crate::types::stream::StreamId;
use shardis_modules_api::abi::*;
use shardis_modules_api::host::{Arguments, LongDoubleBytes, LongDoubleStyle};
use shardis_modules_api::served;
use std::ffi::{c_char, c_int, c_longlong, c_ulonglong, c_void};

pub(super) const SERVED: &[Served] = served! {
    CreateString = create_string,
    CreateStringFromLongLong = create_string_from_long_long,
    CreateStringFromULongLong = create_string_from_ulong_long,
    CreateStringFromDouble = create_string_from_double,
    CreateStringFromString = create_string_from_string,
    CreateStringFromStreamID = create_string_from_stream_id,
    CreateStringFromCallReply = create_string_from_call_reply,
    FreeString = free_string,
    RetainString = retain_string,
    HoldString = hold_string,
    TrimStringAllocation = trim_string_allocation,
    StringPtrLen = string_ptr_len,
    StringToLongLong = string_to_long_long,
    StringToULongLong = string_to_ulong_long,
    StringToDouble = string_to_double,
    StringToLongDouble = string_to_long_double,
    StringToStreamID = string_to_stream_id,
    StringAppendBuffer = string_append_buffer,
    StringCompare = string_compare,
};

/// A new string, which the context frees if the module wants that. Without a context it is the module's.
fn keep(ctx: Option<Ctx>, bytes: &[u8]) -> *mut RedisModuleString {
    let string = ModuleString::new(bytes);
    match ctx {
        Some(mut ctx) => ctx.keep_string(string),
        None => ModuleString::as_abi(string),
    }
}

abi_functions! {
    fn create_string(ctx: Option<Ctx>, start: *const c_char, len: usize) -> *mut RedisModuleString {
        // SAFETY: the module passes so many bytes.
        keep(ctx, unsafe { bytes_at(start, len) })
    }

    fn create_string_from_long_long(ctx: Option<Ctx>, number: c_longlong) -> *mut RedisModuleString {
        keep(ctx, itoa::Buffer::new().format(number).as_bytes())
    }

    fn create_string_from_ulong_long(ctx: Option<Ctx>, number: c_ulonglong) -> *mut RedisModuleString {
        keep(ctx, itoa::Buffer::new().format(number).as_bytes())
    }

    fn create_string_from_double(ctx: Option<Ctx>, number: f64) -> *mut RedisModuleString {
        keep(ctx, F64Text::new(number).as_bytes())
    }

    fn create_string_from_string(ctx: Option<Ctx>, string: ConstStr) -> *mut RedisModuleString {
        keep(ctx, string.bytes())
    }

    fn create_string_from_stream_id(ctx: Option<Ctx>, id: *const RedisModuleStreamID) -> *mut RedisModuleString {
        // SAFETY: the module passes an ID.
        let RedisModuleStreamID { ms, seq } = unsafe { *id };
        keep(ctx, StreamId { ms, seq }.text().as_bytes())
    }

    /// The text of a string, an error, a status or an integer; NULL for other replies.
    fn create_string_from_call_reply(reply: Reply) -> *mut RedisModuleString {
        match reply.text() {
            Some(text) => ModuleString::as_abi(ModuleString::new(&text)),
            None => std::ptr::null_mut(),
        }
    }

    fn free_string(ctx: Option<Ctx>, string: Str) {
        let string = string.as_ptr();
        if let Some(mut ctx) = ctx {
            ctx.forget_string(string);
        }
        // SAFETY: the module gives up its reference.
        unsafe { ModuleString::release(string) };
    }

    /// Lets the module keep a string beyond its callback.
    fn retain_string(ctx: Option<Ctx>, string: Str) {
        // A string that the context would have freed is the module's now.
        let pointer = string.as_ptr();
        if let Some(mut ctx) = ctx {
            let before = ctx.automatic.as_ref().map_or(0, |automatic| automatic.strings.len());
            ctx.forget_string(pointer);
            let after = ctx.automatic.as_ref().map_or(0, |automatic| automatic.strings.len());
            if after < before {
                return;
            }
        }
        string.retain();
    }

    /// The same, and leaves open whether it returns the same string.
    fn hold_string(_ctx: Option<Ctx>, string: Str) -> *mut RedisModuleString {
        string.retain();
        ModuleString::as_abi(string.as_ptr())
    }

    fn trim_string_allocation(_string: Str) {}

    fn string_ptr_len(string: *const RedisModuleString, len: Out<usize>) -> *const c_char {
        const NULL_TEXT: &[u8] = b"(NULL string reply referenced in module)\0";
        // SAFETY: the module passes a string, or NULL.
        let Some(string) = (unsafe { string.cast::<ModuleString>().as_ref() }) else {
            len.set(NULL_TEXT.len() - 1);
            return NULL_TEXT.as_ptr().cast();
        };
        len.set(string.len());
        string.as_c()
    }

    fn string_to_long_long(string: ConstStr, number: Out<c_longlong>) -> c_int {
        let parsed = parse_i64(string.bytes());
        parsed.into_iter().for_each(|value| number.set(value));
        status(parsed.is_some())
    }

    fn string_to_ulong_long(string: ConstStr, number: Out<c_ulonglong>) -> c_int {
        let bytes = string.bytes();
        let is_canonical = bytes == b"0" || (!bytes.starts_with(b"0") && bytes.iter().all(u8::is_ascii_digit));
        let parsed = std::str::from_utf8(bytes).ok().filter(|_| is_canonical).and_then(|text| text.parse().ok());
        parsed.into_iter().for_each(|value: u64| number.set(value));
        status(parsed.is_some())
    }

    fn string_to_double(string: ConstStr, number: Out<f64>) -> c_int {
        let parsed = parse_f64(string.bytes());
        parsed.into_iter().for_each(|value| number.set(value));
        status(parsed.is_some())
    }

    fn string_to_long_double(string: ConstStr, number: *mut c_void) -> c_int {
        let Some(value) = LongDoubleBytes::parse(string.bytes()) else { return REDISMODULE_ERR };
        // SAFETY: the module passes the place of a long double.
        unsafe { *number.cast::<LongDoubleBytes>() = value };
        REDISMODULE_OK
    }

    fn string_to_stream_id(string: ConstStr, id: Out<RedisModuleStreamID>) -> c_int {
        let parsed = parse_id(string.bytes());
        parsed.into_iter().for_each(|value| id.set(value));
        status(parsed.is_some())
    }

    fn string_append_buffer(_ctx: Option<Ctx>, string: Str, start: *const c_char, len: usize) -> c_int {
        if !string.is_unshared() {
            return REDISMODULE_ERR;
        }
        // SAFETY: the module passes so many bytes.
        string.append(unsafe { bytes_at(start, len) });
        REDISMODULE_OK
    }

    fn string_compare(a: Str, b: Str) -> c_int {
        a.bytes().cmp(b.bytes()) as c_int
    }

    fn create_string_printf(ctx: Option<Ctx>, format: *const c_char, arguments: *mut Arguments) -> *mut RedisModuleString {
        // SAFETY: the module passes a format and what it asks for.
        let text = unsafe { (*arguments).format(format) };
        keep(ctx, &text)
    }

    fn create_string_from_long_double(
        ctx: Option<Ctx>, number: *const LongDoubleBytes, is_human: c_int,
    ) -> *mut RedisModuleString {
        // SAFETY: the entry point passes a number.
        let number = unsafe { *number };
        keep(ctx, &long_double_text(number, is_human != 0))
    }
}

/// A long double in decimals: for people without an exponent, and without zeros at the end.
pub(super) fn long_double_text(number: LongDoubleBytes, is_human: bool) -> Vec<u8> {
    if !is_human {
        return number.format(LongDoubleStyle::General);
    }
    let mut text = number.format(LongDoubleStyle::Fixed);
    if text.contains(&b'.') {
        let end = text.iter().rposition(|&byte| byte != b'0').map_or(0, |last| last + 1);
        text.truncate(end);
        if text.last() == Some(&b'.') {
            text.pop();
        }
    }
    if text == b"-0" {
        text.remove(0);
    }
    text
}

/// An ID of a stream as XADD takes it: `-`, `+`, milliseconds, or milliseconds and a number.
fn parse_id(text: &[u8]) -> Option<RedisModuleStreamID> {
    let number = |text: &[u8]| {
        let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(text).ok().filter(|_| is_number)?.parse::<u64>().ok()
    };
    match text {
        b"-" => return Some(RedisModuleStreamID { ms: 0, seq: 0 }),
        b"+" => return Some(RedisModuleStreamID { ms: u64::MAX, seq: u64::MAX }),
        _ => {}
    }
    match text.iter().position(|&byte| byte == b'-') {
        None => number(text).map(|ms| RedisModuleStreamID { ms, seq: 0 }),
        Some(at) => Some(RedisModuleStreamID { ms: number(&text[..at])?, seq: number(&text[at + 1..])? }),
    }
}

/// Used where the ABI reports a mistake of the caller by `errno`.
pub(super) fn invalid() -> c_int {
    fail_with(crate::runtime::os_error::INVALID)
}
