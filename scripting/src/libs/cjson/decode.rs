//! From JSON to Lua values.
//!
//! Not recursive: [`Frame`]s tell how far tables are read. A zero byte ends the text. In what it takes for a number or an
//! escape this is as lenient and as strict as lua-cjson is.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::super::State;
use super::super::number;
use super::super::state::Decimal;
use super::super::workspace::{Buffer, Frame};
use super::settings_of;

/// What a text consists of.
#[derive(Clone, Copy)]
enum Token<'t> {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Colon,
    Comma,
    /// Of the text.
    End,
    /// The bytes lie in the text.
    Plain(&'t [u8]),
    /// The bytes lie in the decoder's buffer, until the next such string.
    Unescaped,
    Number(f64),
    Boolean(bool),
    Null,
    Error(&'static str),
}

/// What a byte begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    Nothing,
    Space,
    Punctuation,
    End,
    String,
    Number,
    /// true, false, null, or a number that is not JSON's.
    Word,
}

const BEGINS: [Begins; 256] = {
    let mut begins = [Begins::Nothing; 256];
    let mut byte = 0;
    while byte < 256 {
        begins[byte] = match byte as u8 {
            0 => Begins::End,
            b' ' | b'\t' | b'\n' | b'\r' => Begins::Space,
            b'{' | b'}' | b'[' | b']' | b':' | b',' => Begins::Punctuation,
            b'"' => Begins::String,
            b'-' | b'0'..=b'9' => Begins::Number,
            b't' | b'f' | b'n' | b'N' | b'i' | b'I' | b'+' => Begins::Word,
            _ => Begins::Nothing,
        };
        byte += 1;
    }
    begins
};

struct Decoder<'c> {
    state: State<'c>,
    max_depth: i32,
    /// Whether numbers are read that are not JSON's.
    allows_invalid: bool,
    /// With a zero behind it.
    text: &'c [u8],
    /// Where the next token is looked for.
    at: usize,
    /// Where the last one began.
    token_at: usize,
    unescaped: Buffer<'c, u8>,
    /// One for each table that is open. Its table is on Lua's stack, an object's with the key whose value is read.
    frames: Buffer<'c, Frame>,
}

/// decode(text): the value. Errors: not one argument, no string; UTF-16, UTF-32; not JSON; too deep.
pub unsafe extern "C-unwind" fn decode(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    if state.top() != 1 {
        state.arg_error(1, c"expected 1 argument");
    }
    let len = state.check_bytes(1).len();
    let text = state.bytes_and_zero(1);
    if len >= 2 && (text[0] == 0 || text[1] == 0) {
        state.error(&[b"JSON parser does not support UTF-16 or UTF-32"]);
    }
    let settings = settings_of(state);
    let mut decoder = Decoder {
        state,
        max_depth: settings.decode_max_depth,
        allows_invalid: settings.decode_invalid,
        text,
        at: 0,
        token_at: 0,
        unescaped: Buffer::of_bytes(state),
        frames: Buffer::of_frames(state),
    };

    decoder.read_all();

    decoder.unescaped.keep();
    decoder.frames.keep();
    1
}

impl<'c> Decoder<'c> {
    /// Reads the text and pushes its value.
    fn read_all(&mut self) {
        let mut next = Some(self.next_token());
        while let Some(token) = next {
            next = self.begin_value(token).or_else(|| self.end_value());
        }
        match self.next_token() {
            Token::End => {}
            other => self.fail("the end", other),
        }
    }

    /// Pushes the value that `token` begins, of a table without what is in it. Returns the token that begins its first
    /// element; `None` if the value is complete.
    fn begin_value(&mut self, token: Token<'c>) -> Option<Token<'c>> {
        match token {
            Token::Plain(bytes) => self.state.push_bytes(bytes),
            Token::Unescaped => self.state.push_bytes(self.unescaped.as_slice()),
            Token::Number(value) => self.state.push_number(value),
            Token::Boolean(value) => self.state.push_boolean(value),
            Token::Null => self.state.push_light_userdata(std::ptr::null_mut()),
            Token::ObjectBegin => {
                self.push_table(3);
                let first = self.next_token();
                if !matches!(first, Token::ObjectEnd) {
                    self.frames.push(Frame { is_map: true, has_key: false, done: 0, count: 0 });
                    return Some(self.read_key(first));
                }
            }
            Token::ArrayBegin => {
                self.push_table(2);
                let first = self.next_token();
                if !matches!(first, Token::ArrayEnd) {
                    self.frames.push(Frame { is_map: false, has_key: false, done: 0, count: 0 });
                    return Some(first);
                }
            }
            Token::ObjectEnd
            | Token::ArrayEnd
            | Token::Colon
            | Token::Comma
            | Token::End
            | Token::Error(_) => self.fail("value", token),
        }
        None
    }

    /// Puts the complete value at the top of the stack into its table, and that, if it is complete, into its own. Returns
    /// the token that begins the next value; `None` if there is none.
    fn end_value(&mut self) -> Option<Token<'c>> {
        while let Some(frame) = self.frames.last_mut() {
            let is_map = frame.is_map;
            if is_map {
                self.state.raw_set();
            } else {
                frame.done += 1;
                self.state.raw_set_index(frame.done as c_int);
            }
            match self.next_token() {
                Token::ObjectEnd if is_map => self.frames.pop(),
                Token::ArrayEnd if !is_map => self.frames.pop(),
                Token::Comma => {
                    let token = self.next_token();
                    return Some(if is_map { self.read_key(token) } else { token });
                }
                other => self.fail(if is_map { "comma or object end" } else { "comma or array end" }, other),
            }
        }
        None
    }

    /// Pushes a key and returns the token behind its colon.
    fn read_key(&mut self, token: Token<'c>) -> Token<'c> {
        match token {
            Token::Plain(bytes) => self.state.push_bytes(bytes),
            Token::Unescaped => self.state.push_bytes(self.unescaped.as_slice()),
            other => self.fail("object key string", other),
        }
        match self.next_token() {
            Token::Colon => self.next_token(),
            other => self.fail("colon", other),
        }
    }

    fn push_table(&mut self, room: c_int) {
        let depth = self.frames.len() as i64 + 1;
        if depth > i64::from(self.max_depth) || !self.state.has_room(room) {
            let (depth, at) = (Decimal::new(depth), Decimal::new(self.at as i64));
            self.state.error(&[
                b"Found too many nested data structures (",
                depth.as_bytes(),
                b") at character ",
                at.as_bytes(),
            ]);
        }
        self.state.push_table();
    }

    fn next_token(&mut self) -> Token<'c> {
        // The zero at the end is no space, and nothing moves past it.
        while BEGINS[usize::from(self.text[self.at])] == Begins::Space {
            self.at += 1;
        }
        self.token_at = self.at;
        let byte = self.text[self.at];
        match BEGINS[usize::from(byte)] {
            Begins::Punctuation => {
                self.at += 1;
                punctuation(byte)
            }
            Begins::String => {
                self.at += 1;
                self.string()
            }
            Begins::Number if !self.allows_invalid && is_invalid_number(&self.text[self.at..]) => {
                Token::Error("invalid number")
            }
            Begins::Number => self.number(),
            Begins::Word => self.word(),
            Begins::End => Token::End,
            Begins::Nothing | Begins::Space => Token::Error("invalid token"),
        }
    }

    fn number(&mut self) -> Token<'c> {
        let (value, len) = number::parse(&self.text[self.at..]);
        if len == 0 {
            return Token::Error("invalid number");
        }
        self.at += len;
        Token::Number(value)
    }

    fn word(&mut self) -> Token<'c> {
        let rest = &self.text[self.at..];
        let words =
            [(&b"true"[..], Token::Boolean(true)), (b"false", Token::Boolean(false)), (b"null", Token::Null)];
        for (word, token) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return token;
            }
        }
        if self.allows_invalid && is_invalid_number(rest) {
            self.number()
        } else {
            Token::Error("invalid token")
        }
    }

    /// The string whose first byte is at `at`.
    fn string(&mut self) -> Token<'c> {
        let plain = self.plain_bytes();
        self.at += plain.len();
        if self.text[self.at] == b'"' {
            self.at += 1;
            return Token::Plain(plain);
        }

        self.unescaped.clear();
        self.unescaped.extend(plain);
        loop {
            match self.text[self.at] {
                b'"' => {
                    self.at += 1;
                    return Token::Unescaped;
                }
                b'\\' => {
                    if let Err(error) = self.unescape() {
                        self.token_at = self.at;
                        return Token::Error(error);
                    }
                }
                _ => {
                    self.token_at = self.at;
                    return Token::Error("unexpected end of string");
                }
            }
            let plain = self.plain_bytes();
            self.unescaped.extend(plain);
            self.at += plain.len();
        }
    }

    /// The bytes from `at` up to a quote, a backslash, or a zero.
    fn plain_bytes(&self) -> &'c [u8] {
        const STEP: usize = 16;
        let is_end = |byte: u8| byte == b'"' || byte == b'\\' || byte == 0;
        let rest = &self.text[self.at..];
        let mut len = 0;
        for step in rest.chunks_exact(STEP) {
            // Without an early end, so that the compiler compares all 16 at once.
            if step.iter().fold(false, |ends, byte| ends | is_end(*byte)) {
                break;
            }
            len += STEP;
        }
        while !is_end(rest[len]) {
            len += 1;
        }
        &rest[..len]
    }

    /// Reads the escape at `at`.
    fn unescape(&mut self) -> Result<(), &'static str> {
        let code = self.text[self.at + 1];
        let byte = match code {
            b'"' | b'\\' | b'/' => code,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0c,
            b'r' => b'\r',
            b'u' => {
                let (character, len) =
                    unicode_escape(&self.text[self.at..]).ok_or("invalid unicode escape code")?;
                self.unescaped.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += len;
                return Ok(());
            }
            _ => return Err("invalid escape code"),
        };
        self.unescaped.push(byte);
        self.at += 2;
        Ok(())
    }

    fn fail(&self, expected: &'static str, found: Token<'c>) -> ! {
        let found = match found {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Plain(_) | Token::Unescaped => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Error(error) => error,
        };
        let at = Decimal::new(self.token_at as i64 + 1);
        let (expected, found) = (expected.as_bytes(), found.as_bytes());
        self.state.error(&[b"Expected ", expected, b" but found ", found, b" at character ", at.as_bytes()])
    }
}

fn punctuation(byte: u8) -> Token<'static> {
    match byte {
        b'{' => Token::ObjectBegin,
        b'}' => Token::ObjectEnd,
        b'[' => Token::ArrayBegin,
        b']' => Token::ArrayEnd,
        b':' => Token::Colon,
        _ => Token::Comma,
    }
}

/// Whether a number that begins `text` is one that C reads and JSON does not know: a plus, zeros before digits, hexadecimal,
/// infinite, NaN.
fn is_invalid_number(text: &[u8]) -> bool {
    let rest = match text {
        [b'+', ..] => return true,
        [b'-', rest @ ..] | rest => rest,
    };
    match rest {
        [b'0', b'x' | b'X' | b'0'..=b'9', ..] => true,
        [0..=b'9', ..] => false,
        [a, b, c, ..] => matches!([a | 0x20, b | 0x20, c | 0x20], [b'i', b'n', b'f'] | [b'n', b'a', b'n']),
        _ => false,
    }
}

/// The character of the `\uXXXX`, or the two that make a pair, that `text` begins with, and its length.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    const LEN: usize = 6;
    let unit = hex_unit(text)?;
    if !(0xd800..0xe000).contains(&unit) {
        return Some((char::from_u32(unit)?, LEN));
    }
    let low = hex_unit(&text[LEN..])?;
    let is_pair = unit < 0xdc00 && (0xdc00..0xe000).contains(&low);
    let code = 0x1_0000 + ((unit & 0x3ff) << 10) + (low & 0x3ff);
    if is_pair { Some((char::from_u32(code)?, 2 * LEN)) } else { None }
}

/// The number of a `\uXXXX`.
fn hex_unit(text: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = text else { return None };
    let digits = digits.get(..4)?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}
