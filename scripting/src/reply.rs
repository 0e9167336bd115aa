//! Replies of commands as Lua values, and the value that a script returns as a reply.
//!
//! A table's kind is decided by its fields, read without metamethods, in this order: `err`, `ok`, `double`, `map`,
//! `set`, `big_number`, `verbatim_string`; any other is an array up to its first nil.

// The functions are called by the engine or by Lua with a valid state whose stack they leave as their docs say.
#![allow(unsafe_op_in_unsafe_fn, reason = "nearly every line calls the C API; the contract stands above")]

use std::ffi::{CStr, c_int};

use crate::ffi::*;
use crate::host::{Host, Resp};
use crate::layout::{self, Seen};
use crate::run::one_line;
use crate::vm::{ScriptError, push_error};

// Replies of commands.

/// How deep the arrays of a command's reply may be nested.
const REPLY_DEPTH_MAX: u32 = 128;

/// A reply that is being read. It owns nothing, because a Lua error may cross its reader.
struct Reader<'a> {
    rest: &'a [u8],
    resp: Resp,
}

impl<'a> Reader<'a> {
    /// The line up to its CRLF, which is passed over.
    fn line(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| byte == b'\r').expect("the host's reply is whole");
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 2..];
        line
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let bytes = &self.rest[..len];
        self.rest = &self.rest[len + 2..];
        bytes
    }
}

fn integer(line: &[u8]) -> i64 {
    let (digits, is_negative) = line.strip_prefix(b"-").map_or((line, false), |digits| (digits, true));
    // Summed up below zero, where the least integer has room.
    let sum = digits.iter().fold(0_i64, |sum, digit| {
        assert!(digit.is_ascii_digit(), "the host's reply has a number there");
        sum * 10 - i64::from(digit - b'0')
    });
    if is_negative { sum } else { -sum }
}

/// The bytes of a reply that is one string.
fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let [b'$', b'0'..=b'9', rest @ .., b'\r', b'\n'] = reply else { return None };
    let len_end = rest.iter().position(|&byte| byte == b'\r')?;
    rest.get(len_end + 2..)
}

/// Pushes the value of the whole reply `reply`, which is RESP2 or RESP3, on an empty stack. An error is a table with `err` that is marked as counted.
pub(crate) unsafe fn push(lua: *mut lua_State, reply: &[u8], resp: Resp) {
    // Counters and strings are called for most.
    if let [b':', digits @ .., b'\r', b'\n'] = reply {
        return layout::leave_number(lua, integer(digits) as f64);
    }
    if let Some(text) = bulk(reply) {
        return push_bytes(lua, text);
    }
    let mut reader = Reader { rest: reply, resp };
    push_value(lua, &mut reader, 0);
}

unsafe fn push_value(lua: *mut lua_State, reader: &mut Reader, depth: u32) {
    luaL_checkstack_(lua, 6, c"too deep reply".as_ptr());
    if depth > REPLY_DEPTH_MAX {
        raise_text(lua, c"too deep reply");
    }
    let line = reader.line();
    let (&kind, line) = line.split_first().expect("the host's reply has a type");
    match kind {
        b'$' => match usize::try_from(integer(line)) {
            Ok(len) => push_bytes(lua, reader.bytes(len)),
            Err(_) => lua_pushboolean(lua, 0),
        },
        b':' => lua_pushnumber(lua, integer(line) as f64),
        b'+' => push_tagged(lua, c"ok", line),
        b'-' => push_error(lua, line, true),
        b'*' => match c_int::try_from(integer(line)) {
            Ok(len) if len >= 0 => {
                // In RESP3 a null is nil, and then room that is made for it would show in the array's length.
                lua_createtable(lua, if reader.resp == Resp::V2 { len } else { 0 }, 0);
                for index in 1..=len {
                    push_value(lua, reader, depth + 1);
                    lua_rawseti_(lua, -2, index);
                }
            }
            _ => lua_pushboolean(lua, 0),
        },
        b'%' => {
            let len = integer(line) as c_int;
            lua_createtable(lua, 0, 1);
            lua_createtable(lua, 0, len);
            for _ in 0..len {
                push_value(lua, reader, depth + 1);
                push_value(lua, reader, depth + 1);
                lua_rawset(lua, -3);
            }
            set_raw_field(lua, c"map");
        }
        b'~' => {
            let len = integer(line) as c_int;
            lua_createtable(lua, 0, 1);
            lua_createtable(lua, 0, len);
            for _ in 0..len {
                push_value(lua, reader, depth + 1);
                lua_pushboolean(lua, 1);
                lua_rawset(lua, -3);
            }
            set_raw_field(lua, c"set");
        }
        b',' => {
            lua_createtable(lua, 0, 1);
            lua_pushnumber(lua, double(line));
            set_raw_field(lua, c"double");
        }
        b'(' => push_tagged(lua, c"big_number", line),
        b'#' => lua_pushboolean(lua, c_int::from(line == b"t")),
        b'_' => lua_pushnil(lua),
        b'=' => {
            let text = reader.bytes(integer(line) as usize);
            let (format, text) = text.split_at(4);
            lua_createtable(lua, 0, 1);
            lua_createtable(lua, 0, 2);
            push_bytes(lua, &format[..3]);
            set_raw_field(lua, c"format");
            push_bytes(lua, text);
            set_raw_field(lua, c"string");
            set_raw_field(lua, c"verbatim_string");
        }
        b'|' => {
            // An attribute stands before the value that it is of, and is left out.
            for _ in 0..2 * integer(line) {
                push_value(lua, reader, depth + 1);
                lua_settop(lua, -2);
            }
            push_value(lua, reader, depth);
        }
        other => panic!("the host's reply has the type {other}"),
    }
}

unsafe fn push_tagged(lua: *mut lua_State, field: &CStr, text: &[u8]) {
    lua_createtable(lua, 0, 1);
    push_bytes(lua, text);
    set_raw_field(lua, field);
}

fn double(line: &[u8]) -> f64 {
    std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
        .expect("the host's reply has a number there")
}

// The value that a script returns.

/// The client's version, which is written, and the version that the script has set.
#[derive(Clone, Copy)]
pub(crate) struct Versions {
    pub(crate) client: Resp,
    pub(crate) script: Resp,
}

/// An aggregate that is being written. Its table lies on the stack.
pub(crate) enum Frame {
    Array {
        next: c_int,
        len: c_int,
    },
    /// The last key lies on the stack, and above it the value if that is to be written next.
    Map {
        value_is_next: bool,
    },
    Set,
}

/// What Lua lets a function have on its stack (LUAI_MAXCSTACK); how deep a reply may be nested depends on it in Redis.
const LUA_STACK_SLOTS_MAX: c_int = 8_000;

/// Appends the value on top, which stays there, if it is a string or a number. Returns whether it is.
pub(crate) unsafe fn append_plain(lua: *mut lua_State, out: &mut Vec<u8>) -> bool {
    match layout::seen(lua, layout::value_count(lua) - 1) {
        Seen::String(text) => append_bulk(out, text),
        Seen::Number(number) => append_line(out, b':', lua_integer(number)),
        Seen::Address(_) | Seen::Other => return false,
    }
    true
}

/// If the value on top is an error table, the error, as the reply of the script.
pub(crate) unsafe fn returned_error(lua: *mut lua_State) -> Option<ScriptError> {
    let top = lua_gettop(lua);
    if lua_type(lua, top) != LUA_TTABLE {
        return None;
    }
    raw_field(lua, top, c"err");
    let text = if lua_type(lua, -1) == LUA_TSTRING {
        bytes_at(lua, -1).map(|text| trim_line_end(until_nul(text)).to_vec())
    } else {
        None
    };
    raw_field(lua, top, c"ignore_error_stats_update");
    let already_counted = lua_toboolean(lua, -1) != 0;
    lua_settop(lua, top);
    text.map(|text| ScriptError { text: one_line(text), already_counted })
}

/// Appends the value on top, which is popped, and tells the host of the errors in it. Nothing here raises an error: no run is on, so no allocation is refused.
pub(crate) unsafe fn append(
    lua: *mut lua_State,
    versions: Versions,
    frames: &mut Vec<Frame>,
    host: &mut dyn Host,
    out: &mut Vec<u8>,
) {
    frames.clear();
    append_value(lua, versions, frames, host, out);
    while let Some(frame) = frames.last_mut() {
        match frame {
            Frame::Array { next, len } => {
                if next > len {
                    frames.pop();
                    lua_settop(lua, -2);
                    continue;
                }
                lua_rawgeti_(lua, -1, *next);
                *next += 1;
                append_value(lua, versions, frames, host, out);
            }
            Frame::Map { value_is_next } => {
                if *value_is_next {
                    *value_is_next = false;
                    append_value(lua, versions, frames, host, out);
                } else if lua_next(lua, -2) != 0 {
                    *value_is_next = true;
                    lua_pushvalue(lua, -2);
                    append_value(lua, versions, frames, host, out);
                } else {
                    // The table, and the one that has it as a field.
                    frames.pop();
                    lua_settop(lua, -3);
                }
            }
            Frame::Set => {
                if lua_next(lua, -2) != 0 {
                    lua_settop(lua, -2);
                    lua_pushvalue(lua, -1);
                    append_value(lua, versions, frames, host, out);
                } else {
                    frames.pop();
                    lua_settop(lua, -3);
                }
            }
        }
    }
}

/// Appends the value on top: whole, and pops it; or the header of an aggregate, whose frame and tables then lie on top.
unsafe fn append_value(
    lua: *mut lua_State,
    versions: Versions,
    frames: &mut Vec<Frame>,
    host: &mut dyn Host,
    out: &mut Vec<u8>,
) {
    let client = versions.client;
    if lua_gettop(lua) + 4 > LUA_STACK_SLOTS_MAX || lua_checkstack(lua, 4) == 0 {
        out.extend_from_slice(b"-ERR reached lua stack limit\r\n");
        lua_settop(lua, -2);
        return;
    }
    match lua_type(lua, -1) {
        LUA_TSTRING => append_bulk(out, bytes_at(lua, -1).unwrap_or_default()),
        LUA_TNUMBER => append_line(out, b':', lua_integer(lua_tonumber(lua, -1))),
        LUA_TBOOLEAN => {
            let value = lua_toboolean(lua, -1) != 0;
            match (versions.script, client) {
                (Resp::V2, _) if value => out.extend_from_slice(b":1\r\n"),
                (Resp::V2, _) => append_null(out, client),
                (Resp::V3, Resp::V2) => append_line(out, b':', i64::from(value)),
                (Resp::V3, Resp::V3) => out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
            }
        }
        LUA_TTABLE => return append_table(lua, client, frames, host, out),
        _ => append_null(out, client),
    }
    lua_settop(lua, -2);
}

unsafe fn append_table(
    lua: *mut lua_State,
    client: Resp,
    frames: &mut Vec<Frame>,
    host: &mut dyn Host,
    out: &mut Vec<u8>,
) {
    let table = lua_gettop(lua);
    if push_field(lua, table, c"err", LUA_TSTRING) {
        let text = trim_line_end(until_nul(bytes_at(lua, -1).unwrap_or_default()));
        append_text(out, b'-', text);
        raw_field(lua, table, c"ignore_error_stats_update");
        host.replied_error(text, lua_toboolean(lua, -1) != 0);
    } else if push_field(lua, table, c"ok", LUA_TSTRING) {
        append_text(out, b'+', until_nul(bytes_at(lua, -1).unwrap_or_default()));
    } else if push_field(lua, table, c"double", LUA_TNUMBER) {
        append_double(out, lua_tonumber(lua, -1), client);
    } else if push_field(lua, table, c"map", LUA_TTABLE) {
        let len = count_fields(lua);
        match client {
            Resp::V2 => append_line(out, b'*', 2 * len),
            Resp::V3 => append_line(out, b'%', len),
        }
        lua_pushnil(lua);
        frames.push(Frame::Map { value_is_next: false });
        return;
    } else if push_field(lua, table, c"set", LUA_TTABLE) {
        append_line(out, if client == Resp::V3 { b'~' } else { b'*' }, count_fields(lua));
        lua_pushnil(lua);
        frames.push(Frame::Set);
        return;
    } else if push_field(lua, table, c"big_number", LUA_TSTRING) {
        let text = bytes_at(lua, -1).unwrap_or_default();
        match client {
            Resp::V2 => append_bulk(out, &one_line(text.to_vec())),
            Resp::V3 => append_text(out, b'(', text),
        }
    } else if push_field(lua, table, c"verbatim_string", LUA_TTABLE) {
        if !append_verbatim(lua, client, out) {
            lua_settop(lua, table);
            return append_array(lua, frames, out);
        }
    } else {
        return append_array(lua, frames, out);
    }
    lua_settop(lua, table - 1);
}

/// Pushes a field if it is of the type; else nothing.
unsafe fn push_field(lua: *mut lua_State, table: c_int, name: &CStr, lua_type_of_it: c_int) -> bool {
    raw_field(lua, table, name);
    if lua_type(lua, -1) == lua_type_of_it {
        return true;
    }
    lua_settop(lua, table);
    false
}

/// How many fields the table on top has.
unsafe fn count_fields(lua: *mut lua_State) -> i64 {
    let mut count = 0;
    lua_pushnil(lua);
    while lua_next(lua, -2) != 0 {
        lua_settop(lua, -2);
        count += 1;
    }
    count
}

unsafe fn append_array(lua: *mut lua_State, frames: &mut Vec<Frame>, out: &mut Vec<u8>) {
    let mut len = 0;
    loop {
        lua_rawgeti_(lua, -1, len + 1);
        let is_end = lua_type(lua, -1) == LUA_TNIL;
        lua_settop(lua, -2);
        if is_end {
            break;
        }
        len += 1;
    }
    append_line(out, b'*', i64::from(len));
    frames.push(Frame::Array { next: 1, len });
}

/// Appends the table on top as a verbatim string, if its fields are strings.
unsafe fn append_verbatim(lua: *mut lua_State, client: Resp, out: &mut Vec<u8>) -> bool {
    let table = lua_gettop(lua);
    raw_field(lua, table, c"format");
    raw_field(lua, table, c"string");
    if lua_type(lua, -2) != LUA_TSTRING || lua_type(lua, -1) != LUA_TSTRING {
        return false;
    }
    let format = bytes_at(lua, -2).unwrap_or_default();
    let text = bytes_at(lua, -1).unwrap_or_default();
    match client {
        Resp::V2 => append_bulk(out, text),
        Resp::V3 => {
            append_line(out, b'=', text.len() as i64 + 4);
            // The format has three bytes: cut, or filled with spaces.
            let mut padded = *b"   :";
            for (to, from) in padded[..3].iter_mut().zip(format) {
                *to = *from;
            }
            out.extend_from_slice(&padded);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
    true
}

/// A number as an integer, as a C cast does it on x86-64: what does not fit is the least one.
fn lua_integer(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

fn append_line(out: &mut Vec<u8>, kind: u8, number: i64) {
    let mut line = [0; 1 + INTEGER_LEN_MAX + 2];
    let digits_end = line.len() - 2;
    line[digits_end..].copy_from_slice(b"\r\n");
    let start = write_integer(&mut line[..digits_end], number) - 1;
    line[start] = kind;
    out.extend_from_slice(&line[start..]);
}

/// Appends the decimal digits of `number`.
pub(crate) fn append_integer(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0; INTEGER_LEN_MAX];
    let start = write_integer(&mut digits, number);
    out.extend_from_slice(&digits[start..]);
}

/// The longest number, with its sign.
const INTEGER_LEN_MAX: usize = 20;

/// Writes the decimal digits of `number` to the end of `room`, which has [`INTEGER_LEN_MAX`]. Returns where they begin.
fn write_integer(room: &mut [u8], number: i64) -> usize {
    let mut start = room.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        room[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        room[start] = b'-';
    }
    start
}

fn append_text(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// Whether a client gets this reply to a command as it is if a script returns it, in either version of the protocol.
#[inline]
pub(crate) fn is_same_for_clients(reply: &[u8]) -> bool {
    matches!(reply, [b'$', b'0'..=b'9', ..])
}

/// Redis takes statuses and errors for strings of C.
pub(crate) fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The text of an error without the line ends after it.
pub(crate) fn trim_line_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r' | b'\n'] = text {
        text = rest;
    }
    text
}

/// The same without those before it, too.
pub(crate) fn trim_line_ends(text: &[u8]) -> &[u8] {
    let mut text = trim_line_end(text);
    while let [b'\r' | b'\n', rest @ ..] = text {
        text = rest;
    }
    text
}

fn append_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    append_line(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn append_null(out: &mut Vec<u8>, client: Resp) {
    out.extend_from_slice(match client {
        Resp::V2 => b"$-1\r\n",
        Resp::V3 => b"_\r\n",
    });
}

fn append_double(out: &mut Vec<u8>, number: f64, client: Resp) {
    let mut text = Vec::with_capacity(NUMBER_LEN_MAX);
    append_number(&mut text, number);
    match client {
        Resp::V2 => append_bulk(out, &text),
        Resp::V3 => append_text(out, b',', &text),
    }
}

/// The longest that [`append_number`] appends, with a NUL.
const NUMBER_LEN_MAX: usize = 32;

/// 10^15.
const WHOLE_PRINTED_ALIKE_BELOW: u64 = 1_000_000_000_000_000;

/// Appends a number with 17 significant digits (`%.17g`), as Redis hands it to a command.
pub(crate) fn append_number(out: &mut Vec<u8>, number: f64) {
    // Whole numbers of 15 digits and fewer look the same.
    let whole = number as i64;
    let is_whole = whole as f64 == number && (whole != 0 || number.is_sign_positive());
    if is_whole && whole.unsigned_abs() < WHOLE_PRINTED_ALIKE_BELOW {
        return append_integer(out, whole);
    }
    let mut text = [0_u8; NUMBER_LEN_MAX];
    // SAFETY: the buffer has its length; the format takes one double.
    let len = unsafe { libc::snprintf(text.as_mut_ptr().cast(), text.len(), c"%.17g".as_ptr(), number) };
    out.extend_from_slice(&text[..usize::try_from(len).expect("a number has a length").min(text.len() - 1)]);
}
