//! From Lua values to JSON.
//!
//! Not recursive: [`Frame`]s tell how far tables are written. A table is an array if all its keys are integers from 1 on, and at
//! least one is.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use mlua::ffi::lua_State;

use super::super::number::NUMBER_LEN_MAX;
use super::super::state::{Decimal, Type, type_name};
use super::super::workspace::{Buffer, Frame};
use super::super::{State, format_g};
use super::{InvalidNumbers, Settings, settings_of};

struct Encoder<'c> {
    state: State<'c>,
    settings: Settings,
    json: Buffer<'c, u8>,
    /// One for each table that is open. Its table is on Lua's stack, an object's with the key it has come to.
    frames: Buffer<'c, Frame>,
}

/// encode(value): the value as JSON. Errors: not one argument; what JSON has no form for; too deep; too sparse.
pub unsafe extern "C-unwind" fn encode(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    if state.top() != 1 {
        state.arg_error(1, c"expected 1 argument");
    }
    let settings = *settings_of(state);
    let mut json = Buffer::of_bytes(state);
    let mut frames = Buffer::of_frames(state);
    // The value to the top, so that a table and what comes of it are neighbours.
    state.insert(1);
    state.insert(1);
    json.moved_to(2);
    frames.moved_to(1);

    let mut encoder = Encoder { state, settings, json, frames };
    encoder.write_all();

    state.push_bytes(encoder.json.as_slice());
    encoder.frames.keep();
    if settings.keeps_buffer {
        encoder.json.keep();
    }
    1
}

impl Encoder<'_> {
    /// Writes the value at the top of the stack, and pops it.
    fn write_all(&mut self) {
        loop {
            if self.state.type_of(-1) == Type::Table {
                self.open_table();
            } else {
                self.write_scalar();
                self.state.pop(1);
            }
            if !self.move_on() {
                return;
            }
        }
    }

    /// Moves to the next value, and puts that at the top of the stack; ends tables on the way. `false`: there is none.
    fn move_on(&mut self) -> bool {
        while let Some(frame) = self.frames.last_mut() {
            let is_first = frame.done == 0;
            let has_more = if frame.is_map { self.state.next() } else { frame.done < frame.count };
            if !has_more {
                let end = if frame.is_map { b'}' } else { b']' };
                self.json.push(end);
                self.frames.pop();
                self.state.pop(1);
                continue;
            }

            // That of an object tells no more than whether it is the first.
            frame.done = frame.done.saturating_add(1);
            let (is_map, index) = (frame.is_map, frame.done);
            if !is_first {
                self.json.push(b',');
            }
            if is_map {
                self.write_key();
            } else {
                self.state.raw_get_index(index as c_int);
            }
            return true;
        }
        false
    }

    fn open_table(&mut self) {
        let depth = self.frames.len() as i64 + 1;
        if depth > i64::from(self.settings.encode_max_depth) || !self.state.has_room(3) {
            let depth = Decimal::new(depth);
            self.state.error(&[b"Cannot serialise, excessive nesting (", depth.as_bytes(), b")"]);
        }
        self.state.resolve_read_only();
        let count = self.array_len();
        let is_map = count <= 0;
        self.json.push(if is_map { b'{' } else { b'[' });
        self.frames.push(Frame { is_map, has_key: false, done: 0, count: count.unsigned_abs() });
        if is_map {
            self.state.push_nil();
        }
    }

    /// The last index of the table at the top if it is an array; 0 or less if it is an object. Error: too sparse.
    ///
    /// Indexes beyond 32 bits count as the least of all, which is what x86 makes of them in the C library.
    fn array_len(&self) -> i32 {
        let state = self.state;
        let mut last = 0_i32;
        let mut items = 0_i32;
        state.push_nil();
        while state.next() {
            let key = if state.type_of(-2) == Type::Number { state.number(-2) } else { 0.0 };
            state.pop(1);
            if key < 1.0 || key.floor() != key {
                state.pop(1);
                return -1;
            }
            if key > f64::from(last) {
                last = if key < 2_147_483_648.0 { key as i32 } else { i32::MIN };
            }
            items = items.wrapping_add(1);
        }

        let settings = &self.settings;
        let is_sparse = settings.sparse_ratio > 0
            && last > items.wrapping_mul(settings.sparse_ratio)
            && last > settings.sparse_safe;
        if is_sparse && !settings.convert_sparse {
            self.fail(Type::Table, b"excessively sparse array");
        }
        if is_sparse { -1 } else { last }
    }

    /// Writes the key below the top of the stack.
    fn write_key(&mut self) {
        match self.state.type_of(-2) {
            Type::Number => {
                self.json.push(b'"');
                self.write_number(self.state.number(-2));
                self.json.extend(b"\":");
            }
            Type::String => {
                self.write_string(self.state.bytes(-2));
                self.json.push(b':');
            }
            key @ (Type::None
            | Type::Nil
            | Type::Boolean
            | Type::LightUserdata
            | Type::Table
            | Type::Function
            | Type::Userdata
            | Type::Thread) => self.fail(key, b"table key must be a number or string"),
        }
    }

    /// Writes the value at the top of the stack, which is no table.
    fn write_scalar(&mut self) {
        match self.state.type_of(-1) {
            Type::String => self.write_string(self.state.bytes(-1)),
            Type::Number => self.write_number(self.state.number(-1)),
            Type::Boolean => self.json.extend(if self.state.boolean(-1) { b"true" } else { b"false" }),
            Type::Nil => self.json.extend(b"null"),
            Type::LightUserdata if self.state.userdata(-1).is_null() => self.json.extend(b"null"),
            other @ (Type::LightUserdata
            | Type::Userdata
            | Type::Function
            | Type::Thread
            | Type::Table
            | Type::None) => self.fail(other, b"type not supported"),
        }
    }

    fn write_number(&mut self, value: f64) {
        if !value.is_finite() {
            match self.settings.encode_invalid {
                InvalidNumbers::Error => self.fail(Type::Number, b"must not be NaN or Inf"),
                InvalidNumbers::Null => return self.json.extend(b"null"),
                // Without the sign that `%g` gives it.
                InvalidNumbers::AsIs if value.is_nan() => return self.json.extend(b"nan"),
                InvalidNumbers::AsIs => {}
            }
        }
        let mut text = [0; NUMBER_LEN_MAX];
        let len = format_g(value, self.settings.precision as usize, &mut text);
        self.json.extend(&text[..len]);
    }

    fn write_string(&mut self, string: &[u8]) {
        const BLOCK_LEN: usize = 256;
        self.json.push(b'"');
        for block in string.chunks(BLOCK_LEN) {
            self.json.reserve(block.len() * ESCAPE_LEN_MAX);
            let len = escape(block, self.json.spare());
            // SAFETY: `escape` wrote so many.
            unsafe { self.json.advance(len) };
        }
        self.json.push(b'"');
    }

    fn fail(&self, of: Type, reason: &[u8]) -> ! {
        self.state.error(&[b"Cannot serialise ", type_name(of), b": ", reason])
    }
}

/// The most bytes that one takes.
const ESCAPE_LEN_MAX: usize = 6;

/// Whether a byte stands for itself in a string. Non-ASCII does, whatever it means.
const fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\' && byte != b'/' && byte != 0x7f
}

/// What comes behind the backslash of a short escape; 0 for none. The others are written as `\u00XX`.
const fn short_escape(byte: u8) -> u8 {
    match byte {
        b'"' | b'\\' | b'/' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => 0,
    }
}

const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = is_plain(byte as u8);
        byte += 1;
    }
    plain
};

/// Writes the inside of a JSON string to `to`, which has room for each byte to be escaped. Returns the length.
fn escape(bytes: &[u8], to: &mut [MaybeUninit<u8>]) -> usize {
    const STEP: usize = 16;
    let mut len = 0;
    let mut steps = bytes.chunks_exact(STEP);
    for step in steps.by_ref() {
        // Without an early end, so that the compiler compares all 16 at once.
        if step.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
            for (to, byte) in to[len..len + STEP].iter_mut().zip(step) {
                to.write(*byte);
            }
            len += STEP;
        } else {
            len += escape_each(step, &mut to[len..]);
        }
    }
    len + escape_each(steps.remainder(), &mut to[len..])
}

fn escape_each(bytes: &[u8], to: &mut [MaybeUninit<u8>]) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut len = 0;
    for byte in bytes.iter().copied() {
        if PLAIN[usize::from(byte)] {
            to[len].write(byte);
            len += 1;
            continue;
        }
        let short = short_escape(byte);
        let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
        let escape = if short == 0 {
            [b'\\', b'u', b'0', b'0', digits[0], digits[1]]
        } else {
            [b'\\', short, 0, 0, 0, 0]
        };
        let escape_len = if short == 0 { ESCAPE_LEN_MAX } else { 2 };
        for (to, byte) in to[len..].iter_mut().zip(&escape[..escape_len]) {
            to.write(*byte);
        }
        len += escape_len;
    }
    len
}
