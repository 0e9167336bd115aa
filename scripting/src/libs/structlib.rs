//! `struct`: values laid out as in C structures (Roberto Ierusalimschy's struct 0.2, as Redis has it).
//!
//! A format is read up to its first zero byte:
//!
//! | option | meaning |
//! |---|---|
//! | `>` `<` | big endian, little endian (at the beginning) |
//! | `!n` | alignment to at most n bytes, a power of 2, by default 8; without it, to 1 |
//! | `b` `B` `h` `H` `l` `L` `T` | signed and unsigned integers of 1, 2, 8 bytes, a size |
//! | `in` `In` | integers of n bytes, by default 4, at most 32, of which 8 are significant |
//! | `f` `d` | floating point of 4 and 8 bytes |
//! | `s` | a string that a zero byte ends |
//! | `cn` | n bytes, by default 1; 0: the whole string; as many as the number before says |
//! | `x` | a zero byte |
//! | space | nothing |

use std::ffi::{CStr, c_int};

use mlua::ffi::lua_State;

use super::state::Decimal;
use super::workspace::{self, Buffer};
use super::{Function, State};

/// The largest integer, in bytes.
const INTEGER_LEN_MAX: usize = 32;
/// The alignment of `!` without a number, in bytes.
const NATURAL_ALIGNMENT: usize = 8;

/// Sets the global variable `struct` to the library.
///
/// # Safety
///
/// `raw` is a valid state with room for 10 values; no frame between here and the next protected call has anything to drop.
pub unsafe fn open(raw: *mut lua_State) {
    // SAFETY: as above.
    let state = unsafe { State::new(raw) };
    let functions: [(&CStr, Function); 3] = [(c"pack", pack), (c"unpack", unpack), (c"size", size)];
    state.push_table_for(functions.len() as c_int);
    workspace::push_kept(state);
    for (name, function) in functions {
        state.push_value(-1);
        state.push_function(function, 1);
        state.set_field_at(-3, name);
    }
    state.pop(1);
    state.set_global(c"struct");
}

/// What is left of a format, and what it has switched.
struct Format<'c> {
    state: State<'c>,
    rest: &'c [u8],
    is_big_endian: bool,
    /// In bytes, a power of 2.
    alignment: usize,
}

/// An option of a format with its size in bytes; 0 for those that have none.
#[derive(Clone, Copy)]
struct Item {
    option: u8,
    size: usize,
}

impl<'c> Format<'c> {
    /// The format in the first argument.
    fn check(state: State<'c>) -> Format<'c> {
        let rest = state.check_c_string(1);
        Format { state, rest, is_big_endian: cfg!(target_endian = "big"), alignment: 1 }
    }

    fn next(&mut self) -> Option<Item> {
        let (option, rest) = self.rest.split_first()?;
        self.rest = rest;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.number_or(1),
            b'i' | b'I' => {
                let size = self.number_or(4);
                if size > INTEGER_LEN_MAX {
                    let (size, limit) = (Decimal::new(size as i64), Decimal::new(INTEGER_LEN_MAX as i64));
                    self.state.error(&[
                        b"integral size ",
                        size.as_bytes(),
                        b" is larger than limit of ",
                        limit.as_bytes(),
                    ]);
                }
                size
            }
            _ => 0,
        };
        Some(Item { option: *option, size })
    }

    /// The number at the beginning of the rest. Error: it does not fit into 31 bits.
    fn number_or(&mut self, default: usize) -> usize {
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return default;
        }
        let mut number = 0_usize;
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            number = number * 10 + usize::from(digit - b'0');
            if number > i32::MAX as usize {
                self.state.error(&[b"integral size overflow"]);
            }
            self.rest = rest;
        }
        number
    }

    /// What to leave out before an item that would be at `position`.
    fn padding(&self, item: Item, position: usize) -> usize {
        if item.size == 0 || item.option == b'c' {
            return 0;
        }
        // For a power of 2 the distance to its next multiple; for others what this gives.
        let size = item.size.min(self.alignment);
        (size - (position & (size - 1))) & (size - 1)
    }

    /// Obeys an option that stands for no value. Error: it is none.
    fn switch(&mut self, option: u8) {
        match option {
            b' ' => {}
            b'>' => self.is_big_endian = true,
            b'<' => self.is_big_endian = false,
            b'!' => {
                let alignment = self.number_or(NATURAL_ALIGNMENT);
                if !alignment.is_power_of_two() {
                    let alignment = Decimal::new(alignment as i64);
                    self.state.error(&[b"alignment ", alignment.as_bytes(), b" is not a power of 2"]);
                }
                self.alignment = alignment;
            }
            _ => self.state.arg_error_of(1, &[b"invalid format option '", &[option], b"'"]),
        }
    }
}

/// pack(format, ...): the values as the format says. Errors: the format's; a value of another type; a string shorter than
/// its `cn`.
unsafe extern "C-unwind" fn pack(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    let mut format = Format::check(state);
    // It is also what a missing argument is told to be.
    state.push_nil();
    let mut packed = Buffer::of_bytes(state);
    let mut arg = 1;
    // Each is checked before the next, so that the first is missed.
    let mut next_arg = || {
        arg += 1;
        arg
    };

    while let Some(item) = format.next() {
        for _ in 0..format.padding(item, packed.len()) {
            packed.push(0);
        }
        match item.option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = state.check_number(next_arg());
                pack_integer(&mut packed, number, item.size, format.is_big_endian);
            }
            b'f' => {
                let bytes = (state.check_number(next_arg()) as f32).to_le_bytes();
                pack_bytes(&mut packed, bytes, format.is_big_endian);
            }
            b'd' => {
                let bytes = state.check_number(next_arg()).to_le_bytes();
                pack_bytes(&mut packed, bytes, format.is_big_endian);
            }
            b'x' => packed.push(0),
            b's' => {
                packed.extend(state.check_bytes(next_arg()));
                packed.push(0);
            }
            b'c' => {
                let string = state.check_bytes(next_arg());
                let len = if item.size == 0 { string.len() } else { item.size };
                let Some(bytes) = string.get(..len) else {
                    state.arg_error(next_arg(), c"string too short");
                };
                packed.extend(bytes);
            }
            option => format.switch(option),
        }
    }

    state.push_bytes(packed.as_slice());
    packed.keep();
    1
}

/// What is beyond 64 bits is zeros, of a negative number as well.
fn pack_integer(packed: &mut Buffer<'_, u8>, number: f64, size: usize, is_big_endian: bool) {
    let value = if number < 0.0 { (number as i64).cast_unsigned() } else { to_u64(number) };
    let mut bytes = [0; INTEGER_LEN_MAX];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    let bytes = &mut bytes[..size];
    if is_big_endian {
        bytes.reverse();
    }
    packed.extend(bytes);
}

fn pack_bytes<const LEN: usize>(
    packed: &mut Buffer<'_, u8>,
    mut little_endian: [u8; LEN],
    is_big_endian: bool,
) {
    if is_big_endian {
        little_endian.reverse();
    }
    packed.extend(&little_endian);
}

/// As x86 converts it: what is no number of 64 bits gives 0, NaN and what is too small 2^63.
fn to_u64(number: f64) -> u64 {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if number < TWO_TO_63 {
        if number > -TWO_TO_63 { (number as i64).cast_unsigned() } else { 1 << 63 }
    } else if number < 2.0 * TWO_TO_63 {
        number as u64
    } else if number.is_nan() {
        1 << 63
    } else {
        0
    }
}

/// unpack(format, data [, position]): the values, and the position behind them, both counted from 1. Errors: the format's;
/// not enough data; a position of 0.
unsafe extern "C-unwind" fn unpack(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    let mut format = Format::check(state);
    let data = state.check_bytes(2);
    let position = state.opt_integer(3, 1);
    if position == 0 {
        state.arg_error(3, c"offset must be 1 or greater");
    }
    // A negative one is far behind the data.
    let mut at = position.cast_unsigned() as usize - 1;
    let mut count = 0;

    while let Some(item) = format.next() {
        at = at.wrapping_add(format.padding(item, at));
        let rest = check_data(state, data, at, item.size);
        state.require_room(2, c"too many results");
        let bytes = &rest[..item.size];
        match item.option {
            b'x' => {}
            b'b' | b'h' | b'l' | b'i' => state.push_number(signed(bytes, format.is_big_endian)),
            b'B' | b'H' | b'L' | b'T' | b'I' => {
                state.push_number(integer(bytes, format.is_big_endian) as f64)
            }
            b'f' => state.push_number(f32::from_bits(integer(bytes, format.is_big_endian) as u32).into()),
            b'd' => state.push_number(f64::from_bits(integer(bytes, format.is_big_endian))),
            b'c' if item.size == 0 => {
                if count == 0 || !state.is_number(-1) {
                    state.error(&[b"format 'c0' needs a previous size"]);
                }
                let len = to_u64(state.number(-1)) as usize;
                state.pop(1);
                count -= 1;
                state.push_bytes(&check_data(state, data, at, len)[..len]);
                at += len;
            }
            b'c' => state.push_bytes(bytes),
            b's' => {
                let Some(len) = rest.iter().position(|byte| *byte == 0) else {
                    state.error(&[b"unfinished string in data"]);
                };
                state.push_bytes(&rest[..len]);
                at += len + 1;
            }
            option => {
                format.switch(option);
                continue;
            }
        }
        count += c_int::from(item.option != b'x');
        at += item.size;
    }

    state.push_integer((at as i64).wrapping_add(1));
    count + 1
}

/// The data from `at` on. Error: it is shorter than `len`.
fn check_data<'c>(state: State<'c>, data: &'c [u8], at: usize, len: usize) -> &'c [u8] {
    match data.get(at..) {
        Some(rest) if rest.len() >= len => rest,
        Some(_) | None => state.arg_error(2, c"data string too short"),
    }
}

/// The last 8 bytes, in the order of significance, of an integer.
fn integer(bytes: &[u8], is_big_endian: bool) -> u64 {
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if is_big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

/// The sign is the highest bit. In an integer of more than 8 bytes it is one of the lowest 8 that x86 shifts to.
fn signed(bytes: &[u8], is_big_endian: bool) -> f64 {
    let value = integer(bytes, is_big_endian);
    let sign_bit = (bytes.len() as u32).wrapping_mul(8).wrapping_sub(1);
    let mask = u64::MAX.wrapping_shl(sign_bit);
    let value = if value & mask == 0 { value } else { value | mask };
    value.cast_signed() as f64
}

/// size(format): the length of what `pack` makes of it. Errors: the format's; `s` or `c0` in it.
unsafe extern "C-unwind" fn size(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    let mut format = Format::check(state);
    let mut position = 0;

    while let Some(item) = format.next() {
        position += format.padding(item, position);
        if item.option == b's' {
            state.arg_error(1, c"option 's' has no fixed size");
        } else if item.option == b'c' && item.size == 0 {
            state.arg_error(1, c"option 'c0' has no fixed size");
        }
        // Letters and digits that are no options count as nothing here.
        if !item.option.is_ascii_alphanumeric() {
            format.switch(item.option);
        }
        position += item.size;
    }

    state.push_integer(position as i64);
    1
}
