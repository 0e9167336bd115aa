//! Listpack: a sequence of strings and integers in one allocation, walkable from both ends. The layout is Redis'
//! (listpack.c, and antirez' listpack specification), so DUMP and RDB files take these bytes as they are.
//!
//! ```text
//! total bytes   elements   element ...                        end
//! u32           u16        [encoding, contents, backlen]      0xFF
//!
//! encoding      contents                        encoding      contents
//! 0xxxxxxx      7-bit unsigned integer          11110000      u32 length, string
//! 10xxxxxx      string of up to 63 bytes        11110001      i16
//! 110xxxxx +8   13-bit integer                  11110010      i24
//! 1110xxxx +8   string of up to 4095 bytes      11110011      i32
//!                                               11110100      i64
//! ```
//!
//! Numbers are little-endian; the two 12- and 13-bit encodings have their high bits first. 65,535 elements mean that
//! their number is unknown. The backlen is the length of encoding and contents, 7 bits a byte, high bits first, with
//! the top bit set in all bytes but the first one: read from its end, it leads to the element before.
//!
//! A string that is a strict decimal integer is stored as an integer, in the smallest encoding. So equal elements have
//! equal bytes, and [`Listpack::find`] compares bytes.
//!
//! [`Listpack`] reads bytes that are a listpack: what comes from outside passes [`validate`] first. It panics on
//! others, but reads nothing outside of them.

mod check;
mod edit;

pub use check::{Damage, validate};
pub use edit::ListpackMut;

use crate::types::decimal::parse_i64;
use crate::types::same_bytes;

/// The listpack without elements.
pub const EMPTY: [u8; 7] = [7, 0, 0, 0, 0, 0, END];

/// A listpack gets no longer than this; what does not fit goes into a structure of another kind. Redis has the same
/// limit.
pub const LEN_BYTES_MAX: usize = 1 << 30;

const HEADER_LEN: usize = 6;
const END: u8 = 0xFF;
/// The number of elements from which on it is unknown.
const COUNT_UNKNOWN: usize = u16::MAX as usize;

const STR_6: u8 = 0x80;
const INT_13: u8 = 0xC0;
const STR_12: u8 = 0xE0;
const STR_32: u8 = 0xF0;
const INT_16: u8 = 0xF1;
const INT_24: u8 = 0xF2;
const INT_32: u8 = 0xF3;
const INT_64: u8 = 0xF4;

/// The length of an element with its backlen, by its first byte; 0 if that does not tell.
const ELEMENT_LEN: [u8; 256] = {
    let mut lens = [0; 256];
    let mut first = 0;
    while first < 256 {
        lens[first] = match first as u8 {
            ..STR_6 => 2,
            first @ STR_6..INT_13 => 2 + (first & 0x3F),
            INT_13..STR_12 => 3,
            INT_16 => 4,
            INT_24 => 5,
            INT_32 => 6,
            INT_64 => 10,
            STR_12..=STR_32 | 0xF5.. => 0,
        };
        first += 1;
    }
    lens
};

/// The length of the backlen of an element whose encoding and contents have `len` bytes.
#[inline]
fn backlen_len(len: usize) -> usize {
    match len {
        ..128 => 1,
        // Redis' bounds: one less than what fits.
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// An element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    Int(i64),
    /// Not the digits of an integer: [`Item::of`] sees to that.
    Str(&'a [u8]),
}

/// A buffer for the digits of an element that is an integer.
pub type Digits = itoa::Buffer;

impl<'a> Item<'a> {
    /// The element that `bytes` are stored as.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Item<'a> {
        match parse_i64(bytes) {
            Some(number) => Item::Int(number),
            None => Item::Str(bytes),
        }
    }

    #[inline]
    pub fn bytes<'b>(self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Item::Int(number) => digits.format(number).as_bytes(),
            Item::Str(bytes) => bytes,
        }
    }

    pub fn to_vec(self) -> Vec<u8> {
        self.bytes(&mut Digits::new()).to_vec()
    }

    pub fn len_bytes(self) -> usize {
        self.bytes(&mut Digits::new()).len()
    }
}

impl<'a> From<&'a [u8]> for Item<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Item::of(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Item<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Item::of(bytes)
    }
}

impl From<i64> for Item<'_> {
    #[inline]
    fn from(number: i64) -> Self {
        Item::Int(number)
    }
}

/// An element as it is stored.
struct Encoded<'a> {
    /// The encoding, with the contents of an integer, or the length of a string.
    head: [u8; 9],
    head_len: usize,
    string: &'a [u8],
}

impl<'a> Encoded<'a> {
    #[inline]
    fn of(item: Item<'a>) -> Self {
        let mut head = [0; 9];
        let (head_len, string) = match item {
            Item::Int(number) => (Self::integer(&mut head, number), &[][..]),
            Item::Str(string) => (Self::string(&mut head, string.len()), string),
        };
        Self { head, head_len, string }
    }

    #[inline]
    fn integer(head: &mut [u8; 9], number: i64) -> usize {
        let (encoding, len) = match number {
            0..128 => (number as u8, 1),
            -4096..4096 => {
                let bits = number as u16;
                head[1] = bits as u8;
                head[0] = INT_13 | ((bits >> 8) as u8 & 0x1F);
                return 2;
            }
            -0x8000..0x8000 => (INT_16, 3),
            -0x80_0000..0x80_0000 => (INT_24, 4),
            -0x8000_0000..0x8000_0000 => (INT_32, 5),
            _ => (INT_64, 9),
        };
        head[1..].copy_from_slice(&number.to_le_bytes());
        head[0] = encoding;
        len
    }

    #[inline]
    fn string(head: &mut [u8; 9], len: usize) -> usize {
        match len {
            ..64 => {
                head[0] = STR_6 | len as u8;
                1
            }
            64..4096 => {
                head[0] = STR_12 | (len >> 8) as u8;
                head[1] = len as u8;
                2
            }
            _ => {
                let len = u32::try_from(len).expect("strings are shorter than 4 GiB");
                head[0] = STR_32;
                head[1..5].copy_from_slice(&len.to_le_bytes());
                5
            }
        }
    }

    /// Encoding and contents.
    #[inline]
    fn body_len(&self) -> usize {
        self.head_len + self.string.len()
    }

    /// With the backlen.
    #[inline]
    fn len(&self) -> usize {
        self.body_len() + backlen_len(self.body_len())
    }

    /// Writes the element to the beginning of `to`. Returns its length.
    #[inline]
    fn write(&self, to: &mut [u8]) -> usize {
        let body_len = self.body_len();
        to[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
        to[self.head_len..body_len].copy_from_slice(self.string);
        let backlen = backlen_len(body_len);
        let mut rest = body_len;
        for (n, byte) in to[body_len..body_len + backlen].iter_mut().enumerate().rev() {
            *byte = (rest & 0x7F) as u8 | if n > 0 { 0x80 } else { 0 };
            rest >>= 7;
        }
        body_len + backlen
    }

    /// Whether the element at `pos` is this one.
    #[inline]
    fn is_at(&self, bytes: &[u8], pos: usize) -> bool {
        let string_at = pos + self.head_len;
        bytes[pos] == self.head[0]
            && bytes[pos + 1..string_at] == self.head[1..self.head_len]
            && bytes[string_at..string_at + self.string.len()] == *self.string
    }
}

/// The bytes that an element takes.
pub fn entry_len(element: &[u8]) -> usize {
    Encoded::of(Item::of(element)).len()
}

/// The bytes that an element takes, in its shortest encoding.
#[inline]
pub fn item_len(item: Item<'_>) -> usize {
    Encoded::of(item).len()
}

/// A listpack to read. Elements are named by their positions, which are offsets into the bytes.
#[derive(Clone, Copy)]
pub struct Listpack<'a>(&'a [u8]);

impl<'a> Listpack<'a> {
    /// `bytes` are a valid listpack.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len() >= EMPTY.len() && bytes.last() == Some(&END), "not a listpack");
        Self(bytes)
    }

    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub fn bytes_len(self) -> usize {
        self.0.len()
    }

    /// The number of elements. O(1) below 65,535.
    #[inline]
    pub fn len(self) -> usize {
        match count_in_header(self.0) {
            COUNT_UNKNOWN => self.iter().count(),
            count => count,
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.len() == EMPTY.len()
    }

    /// The position behind the last element.
    #[inline]
    pub fn end(self) -> usize {
        self.0.len() - 1
    }

    #[inline]
    pub fn first(self) -> Option<usize> {
        (!self.is_empty()).then_some(HEADER_LEN)
    }

    #[inline]
    pub fn last(self) -> Option<usize> {
        self.prev(self.end())
    }

    /// The position of the element after the one at `pos`.
    #[inline]
    pub fn next(self, pos: usize) -> Option<usize> {
        let next = self.after(pos);
        (next < self.end()).then_some(next)
    }

    /// The position of the element before `pos`, which may be the end.
    #[inline]
    pub fn prev(self, pos: usize) -> Option<usize> {
        (pos > HEADER_LEN).then(|| self.before(pos))
    }

    /// The end of the element at `pos`.
    #[inline]
    fn after(self, pos: usize) -> usize {
        match ELEMENT_LEN[self.0[pos] as usize] {
            0 => self.after_long(pos),
            len => pos + len as usize,
        }
    }

    #[inline]
    fn after_long(self, pos: usize) -> usize {
        let body_len = match self.0[pos] {
            first @ STR_12..STR_32 => 2 + (usize::from(first & 0x0F) << 8 | usize::from(self.0[pos + 1])),
            STR_32 => 5 + self.u32_at(pos + 1) as usize,
            other => panic!("no listpack element begins with {other:#x}"),
        };
        pos + body_len + backlen_len(body_len)
    }

    /// The beginning of the element that ends at `pos`.
    #[inline]
    fn before(self, pos: usize) -> usize {
        let (body_len, backlen_at) = decode_backlen(self.0, pos).expect("an element ends with its backlen");
        backlen_at - body_len
    }

    fn u32_at(self, pos: usize) -> u32 {
        u32::from_le_bytes(self.array_at(pos))
    }

    #[inline]
    fn array_at<const N: usize>(self, pos: usize) -> [u8; N] {
        *self.0[pos..].first_chunk().expect("an element lies within its listpack")
    }

    /// The element at `pos`.
    #[inline]
    pub fn at(self, pos: usize) -> Item<'a> {
        let string = |at: usize, len: usize| Item::Str(&self.0[at..at + len]);
        match self.0[pos] {
            first @ ..STR_6 => Item::Int(i64::from(first)),
            first @ STR_6..INT_13 => string(pos + 1, usize::from(first & 0x3F)),
            first @ INT_13..STR_12 => {
                let bits = i16::from_be_bytes([first << 3, 0]) | i16::from(self.0[pos + 1]) << 3;
                Item::Int(i64::from(bits >> 3))
            }
            first @ STR_12..STR_32 => {
                string(pos + 2, usize::from(first & 0x0F) << 8 | usize::from(self.0[pos + 1]))
            }
            STR_32 => string(pos + 5, self.u32_at(pos + 1) as usize),
            INT_16 => Item::Int(i64::from(i16::from_le_bytes(self.array_at(pos + 1)))),
            INT_24 => {
                let [low, middle, high] = self.array_at(pos + 1);
                Item::Int(i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8))
            }
            INT_32 => Item::Int(i64::from(i32::from_le_bytes(self.array_at(pos + 1)))),
            INT_64 => Item::Int(i64::from_le_bytes(self.array_at(pos + 1))),
            other => panic!("no listpack element begins with {other:#x}"),
        }
    }

    /// The position of element `index`, which counts from the end if it is negative. It is walked to from the nearer end.
    pub fn seek(self, index: isize) -> Option<usize> {
        let count = count_in_header(self.0);
        let mut index = index;
        if count != COUNT_UNKNOWN {
            let from_start = if index < 0 { index + count as isize } else { index };
            if !(0..count as isize).contains(&from_start) {
                return None;
            }
            let is_behind = from_start as usize > count / 2;
            index = if is_behind { from_start - count as isize } else { from_start };
        }
        if index >= 0 {
            let mut pos = self.first()?;
            for _ in 0..index {
                pos = self.next(pos)?;
            }
            Some(pos)
        } else {
            let mut pos = self.end();
            for _ in index..0 {
                pos = self.prev(pos)?;
            }
            Some(pos)
        }
    }

    /// Element `index`, which counts from the end if it is negative.
    #[inline]
    pub fn get(self, index: isize) -> Option<Item<'a>> {
        self.seek(index).map(|pos| self.at(pos))
    }

    /// The position of the first element that equals `needle`, from position `from` on. Between two elements that are
    /// looked at, `skip` are passed over: with 1, the fields of a hash are looked at and not its values.
    #[inline]
    pub fn find(self, needle: &[u8], from: usize, skip: usize) -> Option<usize> {
        let bytes = self.0;
        let end = self.end();
        let mut pos = from;
        let needle = Encoded::of(Item::of(needle));
        let (first, string) = (needle.head[0], needle.string);
        let is_short = needle.head_len == 1;
        while pos < end {
            if bytes[pos] == first {
                let is_found = if is_short {
                    same_bytes(&bytes[pos + 1..pos + 1 + string.len()], string)
                } else {
                    needle.is_at(bytes, pos)
                };
                if is_found {
                    return Some(pos);
                }
            }
            pos = self.after(pos);
            for _ in 0..skip {
                if pos >= end {
                    return None;
                }
                pos = self.after(pos);
            }
        }
        None
    }

    /// All elements with their positions.
    #[inline]
    pub fn iter(self) -> Iter<'a> {
        Iter { listpack: self, front: HEADER_LEN, back: self.end() }
    }

    /// The elements from position `from` on.
    #[inline]
    pub fn iter_from(self, from: usize) -> Iter<'a> {
        Iter { listpack: self, front: from, back: self.end() }
    }

    /// The elements up to the one at `to`.
    #[inline]
    pub fn iter_to(self, to: usize) -> Iter<'a> {
        Iter { listpack: self, front: HEADER_LEN, back: self.after(to) }
    }
}

/// The elements of a listpack with their positions, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    listpack: Listpack<'a>,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (usize, Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let pos = self.front;
        self.front = self.listpack.after(pos);
        Some((pos, self.listpack.at(pos)))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = self.listpack.before(self.back);
        Some((self.back, self.listpack.at(self.back)))
    }
}

#[inline]
fn count_in_header(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[4], bytes[5]]))
}

/// The backlen that ends at `end`: what it tells, and where it begins.
#[inline]
fn decode_backlen(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    let mut len = 0;
    for n in 0..5 {
        let at = end.checked_sub(1 + n)?;
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((len, at));
        }
    }
    None
}

#[cfg(test)]
mod tests;
