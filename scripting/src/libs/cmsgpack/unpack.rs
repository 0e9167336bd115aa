//! From MessagePack to Lua values.
//!
//! Not recursive: [`Frame`]s tell how far tables are read. How deep they may be nested is for Lua's stack to say.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::super::State;
use super::super::state::Decimal;
use super::super::workspace::{Buffer, Frame};

/// The values that Lua grants a C function.
const STACK_LEN_MAX: c_int = 8000;

enum Fault {
    MissingBytes,
    BadFormat,
}

/// unpack(packed): all values.
pub unsafe extern "C-unwind" fn unpack(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    unpack_part(state, 0, 0)
}

/// unpack_one(packed [, offset]): where the next value begins (-1: there is none), and the value at the offset in bytes.
pub unsafe extern "C-unwind" fn unpack_one(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    let offset = state.opt_integer(2, 0);
    unpack_part(state, 1, offset)
}

/// unpack_limit(packed, limit [, offset]): as unpack_one, with at most `limit` values.
pub unsafe extern "C-unwind" fn unpack_limit(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    let limit = state.check_integer(2);
    let offset = state.opt_integer(3, 0);
    unpack_part(state, limit, offset)
}

/// Neither limit nor offset: all values, without where the next one begins. Errors tell of numbers their low 32 bits.
fn unpack_part(state: State<'_>, limit: i64, offset: i64) -> c_int {
    let packed = state.check_bytes(1);
    let told = |value: i64| Decimal::new(i64::from(value as i32));
    if offset < 0 || limit < 0 {
        let (offset, len) = (told(offset), told(packed.len() as i64));
        state.error(&[
            b"Invalid request to unpack with offset of ",
            offset.as_bytes(),
            b" and limit of ",
            len.as_bytes(),
            b".",
        ]);
    }
    if offset > packed.len() as i64 {
        let (offset, len) = (told(offset), told(packed.len() as i64));
        state.error(&[
            b"Start offset ",
            offset.as_bytes(),
            b" greater than input length ",
            len.as_bytes(),
            b".",
        ]);
    }
    let is_all = limit == 0 && offset == 0;
    state.set_top(1);

    let mut decoder = Decoder { state, rest: &packed[offset as usize..], frames: None, arrays: 0 };
    let mut count = 0;
    while !decoder.rest.is_empty() && (is_all || i64::from(count) < limit) {
        match decoder.read_value() {
            Ok(()) => count += 1,
            Err(Fault::MissingBytes) => state.error(&[b"Missing bytes in input."]),
            Err(Fault::BadFormat) => state.error(&[b"Bad data format in input."]),
        }
    }

    if let Some(frames) = decoder.frames {
        if state.has_room(1) {
            frames.keep();
        }
    }
    if !is_all {
        state.require_room(1, c"in function mp_unpack_full");
        let next = packed.len() - decoder.rest.len();
        state.push_integer(if decoder.rest.is_empty() { -1 } else { next as i64 });
        state.insert(-1 - count);
        count += 1;
    }
    count
}

struct Decoder<'c> {
    state: State<'c>,
    rest: &'c [u8],
    /// One for each table that is open. Its table is on Lua's stack, a map's with the key whose value is read.
    frames: Option<Buffer<'c, Frame>>,
    /// How many of them are arrays.
    arrays: c_int,
}

impl<'c> Decoder<'c> {
    /// Reads a value from the beginning of the rest, and pushes it.
    fn read_value(&mut self) -> Result<(), Fault> {
        loop {
            let is_complete = self.begin_value()?;
            if is_complete && !self.end_value() {
                return Ok(());
            }
        }
    }

    /// Reads a value, of a table no more than its size. `false`: it is a table, and what is in it comes next.
    fn begin_value(&mut self) -> Result<bool, Fault> {
        let [tag] = self.take()?;
        self.require_room(b"too many return values at once; use unpack_one or unpack_limit instead.");
        let state = self.state;
        match tag {
            0x00..=0x7f => state.push_integer(tag.into()),
            0x80..=0x8f => return Ok(self.open_table(true, u32::from(tag & 0xf))),
            0x90..=0x9f => return Ok(self.open_table(false, u32::from(tag & 0xf))),
            0xa0..=0xbf => state.push_bytes(self.take_string(usize::from(tag & 0x1f))?),
            0xc0 => state.push_nil(),
            0xc2 => state.push_boolean(false),
            0xc3 => state.push_boolean(true),
            0xca => state.push_number(f32::from_be_bytes(self.take()?).into()),
            0xcb => state.push_number(f64::from_be_bytes(self.take()?)),
            0xcc => state.push_integer(u8::from_be_bytes(self.take()?).into()),
            0xcd => state.push_integer(u16::from_be_bytes(self.take()?).into()),
            0xce => state.push_integer(u32::from_be_bytes(self.take()?).into()),
            // Also without a sign it is read as if it had one.
            0xcf | 0xd3 => state.push_integer(i64::from_be_bytes(self.take()?)),
            0xd0 => state.push_integer(i8::from_be_bytes(self.take()?).into()),
            0xd1 => state.push_integer(i16::from_be_bytes(self.take()?).into()),
            0xd2 => state.push_integer(i32::from_be_bytes(self.take()?).into()),
            0xd9 => {
                let len = u8::from_be_bytes(self.take()?);
                state.push_bytes(self.take_string(len.into())?);
            }
            0xda => {
                let len = u16::from_be_bytes(self.take()?);
                state.push_bytes(self.take_string(len.into())?);
            }
            0xdb => {
                let len = u32::from_be_bytes(self.take()?);
                state.push_bytes(self.take_string(len as usize)?);
            }
            0xdc => {
                let count = u16::from_be_bytes(self.take()?);
                return Ok(self.open_table(false, count.into()));
            }
            0xdd => {
                let count = u32::from_be_bytes(self.take()?);
                return Ok(self.open_table(false, count));
            }
            0xde => {
                let count = u16::from_be_bytes(self.take()?);
                return Ok(self.open_table(true, count.into()));
            }
            0xdf => {
                let count = u32::from_be_bytes(self.take()?);
                return Ok(self.open_table(true, count));
            }
            0xc1 | 0xc4..=0xc9 | 0xd4..=0xd8 => return Err(Fault::BadFormat),
            0xe0..=0xff => state.push_integer(tag.cast_signed().into()),
        }
        Ok(true)
    }

    /// Puts the complete value at the top of the stack into its table, and that, if it is complete, into its own.
    /// `false`: it is in none.
    fn end_value(&mut self) -> bool {
        let Some(frames) = &mut self.frames else { return false };
        while let Some(frame) = frames.last_mut() {
            if frame.is_map && !frame.has_key {
                frame.has_key = true;
                return true;
            }
            frame.done += 1;
            if frame.is_map {
                self.state.raw_set();
                frame.has_key = false;
            } else {
                self.state.raw_set_index(frame.done as c_int);
            }
            if frame.done < frame.count {
                return true;
            }
            self.arrays -= c_int::from(!frame.is_map);
            frames.pop();
        }
        false
    }

    /// Pushes a table; if something is to be read into it, returns `false`.
    fn open_table(&mut self, is_map: bool, count: u32) -> bool {
        self.state.push_table();
        if !is_map {
            self.require_room(b"in function mp_decode_to_lua_array");
        }
        if count == 0 {
            return true;
        }
        let state = self.state;
        let frames = self.frames.get_or_insert_with(|| frames_below_values(state));
        frames.push(Frame { is_map, has_key: false, done: 0, count });
        self.arrays += c_int::from(!is_map);
        false
    }

    /// Makes room for one more value. Error where lua-cmsgpack has it, which holds the index of each open array on the
    /// stack, and no frames.
    fn require_room(&self, place: &[u8]) {
        let used = self.state.top() + self.arrays - c_int::from(self.frames.is_some());
        if used >= STACK_LEN_MAX || !self.state.has_room(1) {
            self.state.error(&[b"stack overflow (", place, b")"]);
        }
    }

    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::MissingBytes)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take_string(&mut self, len: usize) -> Result<&'c [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::MissingBytes)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// A buffer for frames above the argument and below all values, so that these are together at the end.
fn frames_below_values(state: State<'_>) -> Buffer<'_, Frame> {
    if !state.has_room(3) {
        state.memory_error();
    }
    let mut frames = Buffer::of_frames(state);
    state.insert(2);
    frames.moved_to(2);
    frames
}
