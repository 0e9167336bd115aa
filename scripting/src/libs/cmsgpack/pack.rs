//! From Lua values to MessagePack.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::super::State;
use super::super::state::Type;
use super::super::workspace::Buffer;

/// A table that is nested so deep is written as nil.
const DEPTH_MAX: usize = 16;
/// For each level a key and a value, and some more.
const ROOM: c_int = 2 * DEPTH_MAX as c_int + 8;

/// pack(value, ...): the values one after another. Errors: no values; more than Lua has room for twice.
pub unsafe extern "C-unwind" fn pack(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    let count = state.top();
    if count == 0 {
        state.arg_error(0, c"MessagePack pack needs input.");
    }
    if !state.has_room(count) || !state.has_room(ROOM) {
        state.arg_error(0, c"Too many arguments for MessagePack pack.");
    }
    let mut packed = Buffer::of_bytes(state);

    for arg in 1..=count {
        state.push_value(arg);
        write_value(state, &mut packed, 0);
    }

    state.push_bytes(packed.as_slice());
    packed.keep();
    1
}

/// Writes the value at the top of the stack, and pops it.
fn write_value(state: State<'_>, packed: &mut Buffer<'_, u8>, depth: usize) {
    match state.type_of(-1) {
        Type::String => write_string(packed, state.bytes(-1)),
        Type::Boolean => packed.push(if state.boolean(-1) { 0xc3 } else { 0xc2 }),
        Type::Number => write_number(packed, state.number(-1)),
        Type::Table if depth < DEPTH_MAX => write_table(state, packed, depth),
        Type::Table
        | Type::Nil
        | Type::None
        | Type::LightUserdata
        | Type::Userdata
        | Type::Function
        | Type::Thread => packed.push(0xc0),
    }
    state.pop(1);
}

fn write_string(packed: &mut Buffer<'_, u8>, string: &[u8]) {
    let len = string.len();
    match len {
        0..=31 => packed.push(0xa0 | len as u8),
        32..=0xff => packed.extend(&[0xd9, len as u8]),
        0x100..=0xffff => write_with_u16(packed, 0xda, len as u16),
        _ => write_with_u32(packed, 0xdb, len as u32),
    }
    packed.extend(string);
}

fn write_number(packed: &mut Buffer<'_, u8>, value: f64) {
    if !(-TWO_TO_63..TWO_TO_63).contains(&value) || value.trunc() != value {
        return write_fraction(packed, value);
    }
    let integer = value as i64;
    match integer {
        0..=0x7f => packed.push(integer as u8),
        0x80..=0xff => packed.extend(&[0xcc, integer as u8]),
        0x100..=0xffff => write_with_u16(packed, 0xcd, integer as u16),
        0x1_0000..=0xffff_ffff => write_with_u32(packed, 0xce, integer as u32),
        0x1_0000_0000.. => write_with_u64(packed, 0xcf, integer as u64),
        -32..=-1 => packed.push(integer as u8),
        -128..=-33 => packed.extend(&[0xd0, integer as u8]),
        -0x8000..=-129 => write_with_u16(packed, 0xd1, integer as u16),
        -0x8000_0000..=-0x8001 => write_with_u32(packed, 0xd2, integer as u32),
        ..=-0x8000_0001 => write_with_u64(packed, 0xd3, integer as u64),
    }
}

/// From here on a number is no integer of 64 bits.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

/// In 4 bytes if they are enough for it.
fn write_fraction(packed: &mut Buffer<'_, u8>, value: f64) {
    let single = value as f32;
    if f64::from(single) == value {
        write_with_u32(packed, 0xca, single.to_bits());
    } else {
        write_with_u64(packed, 0xcb, value.to_bits());
    }
}

/// As an array if its keys are 1 to n, also for n = 0.
fn write_table(state: State<'_>, packed: &mut Buffer<'_, u8>, depth: usize) {
    state.resolve_read_only();
    if is_array(state) {
        let len = state.raw_len(-1);
        write_count(packed, len, 0x90, 0xdc);
        for index in 1..=len {
            state.raw_get_index(index as c_int);
            write_value(state, packed, depth + 1);
        }
        return;
    }

    state.push_nil();
    let mut count = 0;
    while state.next() {
        state.pop(1);
        count += 1;
    }
    write_count(packed, count, 0x80, 0xde);
    state.push_nil();
    while state.next() {
        // The key, which the search for the next one needs, stays below.
        state.push_value(-2);
        write_value(state, packed, depth + 1);
        write_value(state, packed, depth + 1);
    }
}

fn is_array(state: State<'_>) -> bool {
    let mut last = 0_i64;
    let mut count = 0_i64;
    state.push_nil();
    while state.next() {
        let key = if state.type_of(-2) == Type::Number { state.number(-2) } else { 0.0 };
        state.pop(1);
        if !(1.0..2_147_483_648.0).contains(&key) || key.trunc() != key {
            state.pop(1);
            return false;
        }
        last = last.max(key as i64);
        count += 1;
    }
    last == count
}

/// The beginning of a table: `short` with up to 15 in its low bits, or `long` for 16 bits and the one after for 32.
fn write_count(packed: &mut Buffer<'_, u8>, count: usize, short: u8, long: u8) {
    match count {
        0..=15 => packed.push(short | count as u8),
        16..=0xffff => write_with_u16(packed, long, count as u16),
        _ => write_with_u32(packed, long + 1, count as u32),
    }
}

fn write_with_u16(packed: &mut Buffer<'_, u8>, tag: u8, value: u16) {
    let [a, b] = value.to_be_bytes();
    packed.extend(&[tag, a, b]);
}

fn write_with_u32(packed: &mut Buffer<'_, u8>, tag: u8, value: u32) {
    let [a, b, c, d] = value.to_be_bytes();
    packed.extend(&[tag, a, b, c, d]);
}

fn write_with_u64(packed: &mut Buffer<'_, u8>, tag: u8, value: u64) {
    packed.push(tag);
    packed.extend(&value.to_be_bytes());
}
