//! Replies: values of one RESP version, written to the end of a byte buffer.
//!
//! A handler says what a value is (a map, a double, nothing) and this file says how the client's version spells it: RESP2
//! has no maps, sets, doubles, booleans or nulls of its own and gets Redis' customary stand-ins.
//!
//! The frequent replies are short, and there what costs is not the bytes but the calls: a header is put together in one
//! register, appended whole at a length known to the compiler, and then cut to size.
use std::fmt::{Display, Write as _};

use super::number::F64Text;
use crate::types::append::append_bulk;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Resp {
    #[default]
    V2,
    V3,
}

/// Writes replies of one RESP version to the end of a byte buffer.
pub struct Reply<'a> {
    pub out: &'a mut Vec<u8>,
    pub resp: Resp,
}

/// Where the header of an aggregate of yet unknown length will stand; made by [`Reply::begin`].
#[derive(Debug)]
#[must_use = "the reply is not well-formed before its end_* was called"]
pub struct Mark {
    at: usize,
    gap_len: usize,
}

/// Room for a type byte, the digits of an i64 and CRLF.
const HEADER_LEN_MAX: usize = 24;

impl<'a> Reply<'a> {
    pub fn new(out: &'a mut Vec<u8>, resp: Resp) -> Self {
        Self { out, resp }
    }

    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A status such as `PONG` or `QUEUED`; no line ends in it.
    #[inline]
    pub fn simple(&mut self, status: &str) {
        debug_assert!(!status.contains(['\r', '\n']), "a status is one line: {status:?}");
        self.line(b'+', status.as_bytes());
    }

    /// An error. `text` starts with its code (`ERR ...`, `WRONGTYPE ...`), without the dash. It may quote what the client
    /// sent: line ends at its end are left out and others become blanks.
    #[cold]
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let start = self.out.len() + 1;
        self.line(b'-', &text[..end]);
        for byte in &mut self.out[start..start + end] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        match short_header(b'$', bytes.len() as i64) {
            Some((header, len)) => append_bulk(self.out, header, len, bytes),
            None => self.long_bulk(bytes),
        }
    }

    #[inline(never)]
    fn long_bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(HEADER_LEN_MAX + bytes.len() + 2);
        self.header(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer as a string.
    #[inline(never)]
    pub fn bulk_i64(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// What `value` displays, as a string.
    pub fn bulk_display(&mut self, value: impl Display) {
        let mut text = String::new();
        write!(text, "{value}").expect("a String takes what is written");
        self.bulk(text.as_bytes());
    }

    /// No value: what GET replies for a missing key.
    #[inline]
    pub fn null(&mut self) {
        match self.resp {
            Resp::V2 => self.out.extend_from_slice(b"$-1\r\n"),
            Resp::V3 => self.out.extend_from_slice(b"_\r\n"),
        }
    }

    /// No array: what EXEC replies when a watched key has changed.
    #[inline]
    pub fn null_array(&mut self) {
        match self.resp {
            Resp::V2 => self.out.extend_from_slice(b"*-1\r\n"),
            Resp::V3 => self.out.extend_from_slice(b"_\r\n"),
        }
    }

    /// The header of an array; its `len` values follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    #[inline]
    pub fn empty_array(&mut self) {
        self.out.extend_from_slice(b"*0\r\n");
    }

    /// The header of a map; its `len` pairs of key and value follow.
    pub fn map(&mut self, len: usize) {
        let (prefix, len) = self.map_header(len);
        self.header(prefix, len);
    }

    /// The header of a set; its `len` values follow.
    pub fn set(&mut self, len: usize) {
        let prefix = self.set_prefix();
        self.header(prefix, len as i64);
    }

    /// The header of a message that answers no request; its `len` values follow.
    pub fn push(&mut self, len: usize) {
        match self.resp {
            Resp::V2 => self.header(b'*', len as i64),
            Resp::V3 => self.header(b'>', len as i64),
        }
    }

    /// The header of an attribute; its `len` pairs follow, and behind them the value it belongs to. RESP2 has nothing
    /// like it: the caller leaves it out there.
    pub fn attribute(&mut self, len: usize) {
        assert_eq!(self.resp, Resp::V3, "attributes are RESP3");
        self.header(b'|', len as i64);
    }

    /// A double with its 17 significant digits: scores.
    #[inline]
    pub fn double(&mut self, value: f64) {
        /// Integers below this have so few digits that they are printed whole.
        const WHOLE_MAX: u64 = 10u64.pow(15);
        let whole = value as i64;
        // Most scores are integers. Minus zero is not one.
        if self.resp == Resp::V2 && whole as f64 == value && whole != 0 && whole.unsigned_abs() < WHOLE_MAX {
            self.bulk_i64(whole);
        } else {
            self.number(F64Text::new(value).as_bytes());
        }
    }

    /// An integer of any size, in decimal digits.
    pub fn bignum(&mut self, digits: &[u8]) {
        match self.resp {
            Resp::V2 => self.bulk(digits),
            Resp::V3 => self.line(b'(', digits),
        }
    }

    /// A text for people. `format` has three letters: `txt`, `mkd`.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        assert_eq!(format.len(), 3, "a verbatim string's format has three letters");
        match self.resp {
            Resp::V2 => self.bulk(text),
            Resp::V3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.out.extend_from_slice(format.as_bytes());
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.resp, value) {
            (Resp::V2, false) => b":0\r\n",
            (Resp::V2, true) => b":1\r\n",
            (Resp::V3, false) => b"#f\r\n",
            (Resp::V3, true) => b"#t\r\n",
        });
    }

    /// An array of strings.
    pub fn bulk_array<T: AsRef<[u8]>>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    ) {
        let items = items.into_iter();
        self.array(items.len());
        for item in items {
            self.bulk(item.as_ref());
        }
    }

    /// Bytes that are a reply, or a part of one, already, in this version.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Starts an aggregate whose length is known only when its values are written. Ended by the `end_*` of its kind, with
    /// nothing before it taken out of the buffer.
    pub fn begin(&mut self) -> Mark {
        self.begin_about(0)
    }

    /// As `begin`, where the length will have as many digits as `len`, probably. A wrong guess costs moving the
    /// aggregate by a few bytes when it ends.
    pub fn begin_about(&mut self, len: usize) -> Mark {
        let mark = Mark { at: self.out.len(), gap_len: header_text(b'*', len as i64).1 };
        self.out.resize(mark.at + mark.gap_len, 0);
        mark
    }

    pub fn end_array(&mut self, mark: Mark, len: usize) {
        self.end(mark, b'*', len as i64);
    }

    pub fn end_map(&mut self, mark: Mark, len: usize) {
        let (prefix, len) = self.map_header(len);
        self.end(mark, prefix, len);
    }

    pub fn end_set(&mut self, mark: Mark, len: usize) {
        let prefix = self.set_prefix();
        self.end(mark, prefix, len as i64);
    }

    pub fn end_attribute(&mut self, mark: Mark, len: usize) {
        assert_eq!(self.resp, Resp::V3, "attributes are RESP3");
        self.end(mark, b'|', len as i64);
    }

    fn end(&mut self, mark: Mark, prefix: u8, len: i64) {
        let (text, text_len) = header_text(prefix, len);
        let values = mark.at + mark.gap_len..self.out.len();
        let end = mark.at + text_len + values.len();
        if end > self.out.len() {
            self.out.resize(end, 0);
        }
        if text_len != mark.gap_len {
            self.out.copy_within(values, mark.at + text_len);
        }
        self.out.truncate(end);
        self.out[mark.at..mark.at + text_len].copy_from_slice(&text[..text_len]);
    }

    fn map_header(&self, len: usize) -> (u8, i64) {
        match self.resp {
            Resp::V2 => (b'*', 2 * len as i64),
            Resp::V3 => (b'%', len as i64),
        }
    }

    fn set_prefix(&self) -> u8 {
        match self.resp {
            Resp::V2 => b'*',
            Resp::V3 => b'~',
        }
    }

    fn number(&mut self, text: &[u8]) {
        match self.resp {
            Resp::V2 => self.bulk(text),
            Resp::V3 => self.line(b',', text),
        }
    }

    #[inline]
    fn line(&mut self, prefix: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(prefix);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn header(&mut self, prefix: u8, value: i64) {
        let start = self.out.len();
        match short_header(prefix, value) {
            Some((word, len)) => {
                self.out.extend_from_slice(&word);
                self.out.truncate(start + len);
            }
            None => self.line(prefix, itoa::Buffer::new().format(value).as_bytes()),
        }
    }
}

/// `prefix`, `value` and CRLF, and how many of the bytes that is, for the values nearly every header has. The bytes are
/// put together in a register: stored one by one and read back together they would wait for each other.
#[inline]
fn short_header(prefix: u8, value: i64) -> Option<([u8; 8], usize)> {
    let (rest, digit_count) = match value {
        0..TABLED_MAX => (SHORT_LINES[value as usize], if value < 10 { 1 } else { 2 }),
        TABLED_MAX..1000 => (line_of(&[value / 100, value / 10 % 10, value % 10]), 3),
        _ => return None,
    };
    Some(((u64::from(prefix) | rest << 8).to_le_bytes(), digit_count + 3))
}

/// Below this a number's digits are looked up. A table of more numbers would take too much of the first cache.
const TABLED_MAX: i64 = 100;

/// The numbers, each with CRLF.
static SHORT_LINES: [u64; TABLED_MAX as usize] = {
    let mut lines = [0; TABLED_MAX as usize];
    let mut value = 0;
    while value < TABLED_MAX {
        let digits = [value / 10, value % 10];
        lines[value as usize] = line_of(if value < 10 { digits.split_at(1).1 } else { &digits });
        value += 1;
    }
    lines
};

/// Up to three digits and CRLF, the first in the lowest byte.
#[inline(always)]
const fn line_of(digits: &[i64]) -> u64 {
    let mut line = u16::from_le_bytes(*b"\r\n") as u64;
    let mut at = digits.len();
    while at > 0 {
        at -= 1;
        line = line << 8 | (b'0' as u64 + digits[at] as u64);
    }
    line
}

/// As [`short_header`], for any value.
fn header_text(prefix: u8, value: i64) -> ([u8; HEADER_LEN_MAX], usize) {
    let mut text = [0; HEADER_LEN_MAX];
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    let digits_end = 1 + digits.len();
    text[0] = prefix;
    text[1..digits_end].copy_from_slice(digits);
    text[digits_end..digits_end + 2].copy_from_slice(b"\r\n");
    (text, digits_end + 2)
}

#[cfg(test)]
mod tests;
