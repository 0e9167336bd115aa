//! Replies of a command.

use super::given::{Ctx, Reply, Str, Text, abi_functions, bytes_at};
use super::strings::long_double_text;
use crate::command::CommandError;
use crate::modules::blocked::Why;
use crate::protocol;
use crate::protocol::reply::Resp;
use shardis_modules_api::abi::*;
use shardis_modules_api::host::{Arguments, LongDoubleBytes};
use shardis_modules_api::served;
use std::ffi::{c_char, c_int, c_long, c_longlong};

pub(super) const SERVED: &[Served] = served! {
    WrongArity = wrong_arity,
    ReplyWithLongLong = reply_with_long_long,
    ReplyWithError = reply_with_error,
    ReplyWithSimpleString = reply_with_simple_string,
    ReplyWithArray = reply_with_array,
    ReplyWithMap = reply_with_map,
    ReplyWithSet = reply_with_set,
    ReplyWithAttribute = reply_with_attribute,
    ReplyWithNullArray = reply_with_null_array,
    ReplyWithEmptyArray = reply_with_empty_array,
    ReplySetArrayLength = reply_set_array_length,
    ReplySetMapLength = reply_set_map_length,
    ReplySetSetLength = reply_set_set_length,
    ReplySetAttributeLength = reply_set_attribute_length,
    ReplyWithStringBuffer = reply_with_string_buffer,
    ReplyWithCString = reply_with_c_string,
    ReplyWithString = reply_with_string,
    ReplyWithEmptyString = reply_with_empty_string,
    ReplyWithVerbatimString = reply_with_verbatim_string,
    ReplyWithVerbatimStringType = reply_with_verbatim_string_type,
    ReplyWithNull = reply_with_null,
    ReplyWithBool = reply_with_bool,
    ReplyWithDouble = reply_with_double,
    ReplyWithBigNumber = reply_with_big_number,
    ReplyWithCallReply = reply_with_call_reply,
};

/// Replies, if there is anyone to reply to.
#[inline]
fn reply(mut ctx: Ctx, write: impl FnOnce(&mut protocol::Reply<'_>)) -> c_int {
    if let Some(mut reply) = ctx.reply() {
        write(&mut reply);
    }
    REDISMODULE_OK
}

/// Begins an aggregate, whose length may follow.
fn begin(mut ctx: Ctx, len: c_long, write: impl FnOnce(&mut protocol::Reply<'_>, usize)) -> c_int {
    let Some(mut reply) = ctx.reply() else { return REDISMODULE_OK };
    if len == REDISMODULE_POSTPONED_LEN {
        let mark = reply.begin();
        ctx.open_lengths.push(mark);
    } else {
        write(&mut reply, usize::try_from(len).unwrap_or(0));
    }
    REDISMODULE_OK
}

/// Sets the length of the aggregate that was begun last.
fn end(
    mut ctx: Ctx,
    len: c_long,
    write: impl FnOnce(&mut protocol::Reply<'_>, protocol::reply::Mark, usize),
) {
    let Some(mark) = ctx.open_lengths.pop() else { return };
    if let Some(mut reply) = ctx.reply() {
        write(&mut reply, mark, usize::try_from(len).unwrap_or(0));
    }
}

abi_functions! {
    fn wrong_arity(ctx: Ctx) -> c_int {
        let text = match ctx.command {
            // The name is that of the command, not the one that the client has used.
            Some(command) => {
                let name = command.full_name.to_string_lossy();
                format!("ERR wrong number of arguments for '{name}' command")
            }
            None => "ERR wrong number of arguments".to_string(),
        };
        reply_error(ctx, text.as_bytes())
    }

    fn reply_with_long_long(ctx: Ctx, number: c_longlong) -> c_int {
        reply(ctx, |reply| reply.integer(number))
    }

    fn reply_with_error(ctx: Ctx, text: Text) -> c_int {
        reply_error(ctx, text.bytes())
    }

    fn reply_with_simple_string(ctx: Ctx, text: Text) -> c_int {
        reply(ctx, |reply| {
            let line: Vec<u8> = text.bytes().iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect();
            reply.raw(b"+");
            reply.raw(&line);
            reply.raw(b"\r\n");
        })
    }

    fn reply_with_array(ctx: Ctx, len: c_long) -> c_int {
        begin(ctx, len, |reply, len| reply.array(len))
    }

    fn reply_with_map(ctx: Ctx, len: c_long) -> c_int {
        begin(ctx, len, |reply, len| reply.map(len))
    }

    fn reply_with_set(ctx: Ctx, len: c_long) -> c_int {
        begin(ctx, len, |reply, len| reply.set(len))
    }

    fn reply_with_attribute(ctx: Ctx, len: c_long) -> c_int {
        if ctx.resp() == Resp::V2 {
            return REDISMODULE_ERR;
        }
        begin(ctx, len, |reply, len| reply.attribute(len))
    }

    fn reply_with_null_array(ctx: Ctx) -> c_int {
        reply(ctx, |reply| reply.null_array())
    }

    fn reply_with_empty_array(ctx: Ctx) -> c_int {
        reply(ctx, |reply| reply.empty_array())
    }

    fn reply_set_array_length(ctx: Ctx, len: c_long) {
        end(ctx, len, |reply, mark, len| reply.end_array(mark, len));
    }

    fn reply_set_map_length(ctx: Ctx, len: c_long) {
        end(ctx, len, |reply, mark, len| reply.end_map(mark, len));
    }

    fn reply_set_set_length(ctx: Ctx, len: c_long) {
        end(ctx, len, |reply, mark, len| reply.end_set(mark, len));
    }

    fn reply_set_attribute_length(ctx: Ctx, len: c_long) {
        if ctx.resp() == Resp::V3 {
            end(ctx, len, |reply, mark, len| reply.end_attribute(mark, len));
        }
    }

    fn reply_with_string_buffer(ctx: Ctx, start: *const c_char, len: usize) -> c_int {
        // SAFETY: the module passes so many bytes.
        reply(ctx, |reply| reply.bulk(unsafe { bytes_at(start, len) }))
    }

    fn reply_with_c_string(ctx: Ctx, text: Text) -> c_int {
        reply(ctx, |reply| reply.bulk(text.bytes()))
    }

    fn reply_with_string(ctx: Ctx, string: Str) -> c_int {
        reply(ctx, |reply| reply.bulk(string.bytes()))
    }

    fn reply_with_empty_string(ctx: Ctx) -> c_int {
        reply(ctx, |reply| reply.bulk(b""))
    }

    fn reply_with_verbatim_string(ctx: Ctx, start: *const c_char, len: usize) -> c_int {
        // SAFETY: the module passes so many bytes.
        reply(ctx, |reply| reply.verbatim("txt", unsafe { bytes_at(start, len) }))
    }

    fn reply_with_verbatim_string_type(ctx: Ctx, start: *const c_char, len: usize, format: Text) -> c_int {
        // A format has three letters.
        let format: String = format.to_str().chars().chain("   ".chars()).take(3).collect();
        // SAFETY: the module passes so many bytes.
        reply(ctx, |reply| reply.verbatim(&format, unsafe { bytes_at(start, len) }))
    }

    fn reply_with_null(ctx: Ctx) -> c_int {
        reply(ctx, |reply| reply.null())
    }

    fn reply_with_bool(ctx: Ctx, value: c_int) -> c_int {
        reply(ctx, |reply| reply.boolean(value != 0))
    }

    fn reply_with_double(ctx: Ctx, number: f64) -> c_int {
        reply(ctx, |reply| reply.double(number))
    }

    fn reply_with_big_number(ctx: Ctx, start: *const c_char, len: usize) -> c_int {
        // SAFETY: the module passes so many bytes.
        reply(ctx, |reply| reply.bignum(unsafe { bytes_at(start, len) }))
    }

    /// Replies with what another command has replied. It fails if that has parts that the client's protocol lacks.
    fn reply_with_call_reply(ctx: Ctx, called: Reply) -> c_int {
        if ctx.resp() == Resp::V2 && called.is_resp3() {
            return REDISMODULE_ERR;
        }
        reply(ctx, |reply| reply.raw(called.proto()))
    }

    fn reply_with_error_format(ctx: Ctx, format: *const c_char, arguments: *mut Arguments) -> c_int {
        // SAFETY: the module passes a format and what it asks for.
        let text = unsafe { (*arguments).format(format) };
        reply_error(ctx, &text)
    }

    /// A number as people write it: in RESP2 as a string.
    fn reply_with_long_double(ctx: Ctx, number: *const LongDoubleBytes) -> c_int {
        // SAFETY: the entry point passes a number.
        let text = long_double_text(unsafe { *number }, true);
        reply(ctx, |reply| match reply.resp {
            Resp::V2 => reply.bulk(&text),
            Resp::V3 => {
                reply.raw(b",");
                reply.raw(&text);
                reply.raw(b"\r\n");
            }
        })
    }
}

/// Replies with an error. The errors of a command are counted when it has ended, those of a thread when the client gets the reply.
fn reply_error(mut ctx: Ctx, text: &[u8]) -> c_int {
    if let Some(on) = ctx.on.as_ref().filter(|on| on.why == Why::Thread) {
        on.client.has_replied_with(CommandError::new(text));
    } else if ctx.command.is_some() {
        ctx.errors.push(CommandError::new(text));
    }
    reply(ctx, |reply| reply.error(text))
}
