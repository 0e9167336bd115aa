//! Entry: a key, its value and what is known about them, in one allocation.
//!
//! ```text
//! flags  access  key length    value length       expire   key   value
//! 1      3       1, 2 or 4     0, 1, 2 or 4       0 or 8   n     m
//! ```
//!
//! `flags` tells the widths of the rest, so a small string costs 6 bytes on top of its key and value, and 8 more
//! with a time to live. Fields are not aligned. The value is one of
//!
//! - a string, inline up to `SLAB_SIZE_MAX` for the entry, told apart in `Str` (`embstr` or `raw` by its length)
//!   and `Raw` (`raw` whatever its length: what APPEND and SETRANGE leave behind),
//! - an integer of 1, 2, 4 or 8 bytes, with no value length,
//! - a big string: pointer, length and capacity of an allocation of its own, so that APPEND is amortised O(1).
//!
//! The other data types plug in as one more kind, `Object`: its value is an 8-byte owned pointer to a boxed enum
//! (list, hash, set, sorted set, stream), and small collections as one kind each whose bytes are inline like a
//! string's. Three of the eight kinds are taken.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::slab::{SLAB_SIZE_MAX, rounded};

/// Longest string that OBJECT ENCODING calls `embstr`.
pub const EMBSTR_LEN_MAX: usize = 44;

/// The access field is 24 bits wide: an LRU clock, or an LFU counter with its clock.
pub const ACCESS_MAX: u32 = (1 << 24) - 1;

const KIND_MASK: u8 = 0b111;
const KIND_INT: u8 = 0;
const KIND_STR: u8 = 1;
const KIND_RAW: u8 = 2;
const KIND_BIG: u8 = 3;
const HAS_EXPIRE: u8 = 1 << 3;
const KEY_CODE_SHIFT: u32 = 4;
const VALUE_CODE_SHIFT: u32 = 6;

const ACCESS_AT: usize = 1;
const KEY_LEN_AT: usize = 4;
const EXPIRE_LEN: usize = 8;
const BIG_LEN: usize = size_of::<BigString>();

/// Where the key starts, by flags.
static KEY_AT: [u8; 256] = {
    let mut table = [0; 256];
    let mut flags = 0;
    while flags < 256 {
        table[flags] = key_at(flags as u8) as u8;
        flags += 1;
    }
    table
};

const fn length_width(code: u8) -> usize {
    1 << (code & 0b11)
}

const fn value_len_at(flags: u8) -> usize {
    KEY_LEN_AT + length_width((flags >> KEY_CODE_SHIFT) & 0b11)
}

const fn expire_at(flags: u8) -> usize {
    let has_value_len = matches!(flags & KIND_MASK, KIND_STR | KIND_RAW);
    value_len_at(flags) + if has_value_len { length_width(flags >> VALUE_CODE_SHIFT) } else { 0 }
}

const fn key_at(flags: u8) -> usize {
    expire_at(flags) + if flags & HAS_EXPIRE != 0 { EXPIRE_LEN } else { 0 }
}

fn length_code(len: usize) -> u8 {
    match len {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        _ => {
            assert!(u32::try_from(len).is_ok(), "no string comes near 4 GiB");
            2
        }
    }
}

fn int_code(value: i64) -> u8 {
    if i8::try_from(value).is_ok() {
        0
    } else if i16::try_from(value).is_ok() {
        1
    } else if i32::try_from(value).is_ok() {
        2
    } else {
        3
    }
}

/// A value as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRef<'a> {
    Int(i64),
    Str(&'a [u8]),
}

/// A value to store. Whether a string is a canonical integer is for the caller to find out.
#[derive(Debug)]
pub enum NewValue<'a> {
    Int(i64),
    /// `embstr` up to [`EMBSTR_LEN_MAX`] bytes, else `raw`.
    Str(&'a [u8]),
    /// `raw`, whatever its length.
    Raw(&'a [u8]),
    /// As `Str`, without a copy when it is long.
    Owned(Vec<u8>),
    /// As `Raw`, without a copy when it is long.
    OwnedRaw(Vec<u8>),
}

/// A value that has left its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    Int(i64),
    Str(Vec<u8>),
    /// Reports `raw`, whatever its length.
    Raw(Vec<u8>),
}

impl From<OwnedValue> for NewValue<'_> {
    fn from(value: OwnedValue) -> Self {
        match value {
            OwnedValue::Int(number) => NewValue::Int(number),
            OwnedValue::Str(bytes) => NewValue::Owned(bytes),
            OwnedValue::Raw(bytes) => NewValue::OwnedRaw(bytes),
        }
    }
}

/// An entry that has left its table and can travel to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    pub key: Box<[u8]>,
    pub value: OwnedValue,
    pub expire_at_ms: Option<i64>,
    pub access: u32,
}

/// What OBJECT ENCODING reports of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringEncoding {
    Int,
    Embstr,
    Raw,
}

impl StringEncoding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Embstr => "embstr",
            Self::Raw => "raw",
        }
    }
}

/// A string in an allocation of its own: a `Vec<u8>` taken apart, because it lies unaligned in its entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct BigString {
    ptr: *mut u8,
    len: usize,
    capacity: usize,
}

impl BigString {
    fn from_vec(mut bytes: Vec<u8>) -> Self {
        // A quarter of slack is APPEND's; more than that is somebody's read buffer.
        if bytes.capacity() - bytes.len() > bytes.len() / 4 {
            bytes.shrink_to_fit();
        }
        Self::from_grown_vec(bytes)
    }

    fn from_grown_vec(bytes: Vec<u8>) -> Self {
        let mut bytes = ManuallyDrop::new(bytes);
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len(), capacity: bytes.capacity() }
    }

    /// # Safety
    /// No other copy of this `BigString` is used from here on.
    unsafe fn into_vec(self) -> Vec<u8> {
        // SAFETY: the parts come from a Vec<u8>, and by the caller's promise they make one only once.
        unsafe { Vec::from_raw_parts(self.ptr, self.len, self.capacity) }
    }
}

/// A value on its way into an entry: the kind and place are decided.
pub(super) enum Body<'a> {
    Int(i64),
    /// A string of `len` bytes: `bytes`, and zeros after them.
    Inline {
        raw: bool,
        bytes: &'a [u8],
        len: usize,
    },
    Big(BigString),
}

impl<'a> Body<'a> {
    /// Decides where the value of `key` goes. Consumes an owned value, whose bytes `keep` holds if they go inline.
    pub(super) fn choose(value: NewValue<'a>, key: &[u8], keep: &'a mut Vec<u8>) -> Self {
        match value {
            NewValue::Int(number) => Body::Int(number),
            NewValue::Str(bytes) => Self::choose_borrowed(bytes, key, false),
            NewValue::Raw(bytes) => Self::choose_borrowed(bytes, key, true),
            NewValue::Owned(bytes) => Self::choose_owned(bytes, key, false, keep),
            NewValue::OwnedRaw(bytes) => Self::choose_owned(bytes, key, true, keep),
        }
    }

    fn choose_borrowed(bytes: &'a [u8], key: &[u8], raw: bool) -> Self {
        if fits_inline(key.len(), bytes.len()) {
            Body::Inline { raw, bytes, len: bytes.len() }
        } else {
            Body::Big(BigString::from_vec(bytes.to_vec()))
        }
    }

    fn choose_owned(bytes: Vec<u8>, key: &[u8], raw: bool, keep: &'a mut Vec<u8>) -> Self {
        if fits_inline(key.len(), bytes.len()) {
            *keep = bytes;
            Body::Inline { raw, bytes: keep, len: keep.len() }
        } else {
            Body::Big(BigString::from_vec(bytes))
        }
    }

    /// The string `bytes` grown to `len` by zeros. If it is big, it has room to grow further.
    pub(super) fn grown(key_len: usize, bytes: &'a [u8], len: usize) -> Self {
        debug_assert!(bytes.len() <= len);
        if fits_inline(key_len, len) {
            return Body::Inline { raw: true, bytes, len };
        }
        let mut big = Vec::with_capacity(grown_capacity(len));
        big.extend_from_slice(bytes);
        big.resize(len, 0);
        Body::Big(BigString::from_grown_vec(big))
    }

    /// Bytes outside the entry.
    pub(super) fn external_bytes(&self) -> usize {
        match self {
            Body::Big(big) => big.capacity,
            Body::Int(_) | Body::Inline { .. } => 0,
        }
    }
}

/// Room for a string of `len` bytes that grows: twice as much, and from 1 MiB on an eighth, so that appending stays
/// O(1) amortised without wasting half of a big string.
fn grown_capacity(len: usize) -> usize {
    const DOUBLED_LEN_MAX: usize = 1 << 20;
    len + len.min(DOUBLED_LEN_MAX).max(len / 8)
}

/// Whether a string is kept inside its entry. The longest header is assumed, so that a change of its widths never
/// changes the answer. Beside a long key, a string no longer than an `embstr` is inline too.
fn fits_inline(key_len: usize, value_len: usize) -> bool {
    const HEADER_LEN_MAX: usize = KEY_LEN_AT + 4 + 2 + EXPIRE_LEN;
    value_len <= EMBSTR_LEN_MAX || HEADER_LEN_MAX + key_len + value_len <= SLAB_SIZE_MAX
}

/// The layout of an entry to be written.
pub(super) struct Shape {
    flags: u8,
    /// Length in bytes, before rounding.
    pub(super) len: usize,
}

impl Shape {
    #[inline]
    pub(super) fn of(key_len: usize, body: &Body<'_>, has_expire: bool) -> Self {
        let (kind, value_code, value_len) = match body {
            Body::Int(number) => (KIND_INT, int_code(*number), length_width(int_code(*number))),
            Body::Inline { raw, len, .. } => {
                (if *raw { KIND_RAW } else { KIND_STR }, length_code(*len), *len)
            }
            Body::Big(_) => (KIND_BIG, 0, BIG_LEN),
        };
        let mut flags = kind | length_code(key_len) << KEY_CODE_SHIFT | value_code << VALUE_CODE_SHIFT;
        if has_expire {
            flags |= HAS_EXPIRE;
        }
        Self { flags, len: key_at(flags) + key_len + value_len }
    }
}

/// A live entry. Copies of the pointer are made freely within this room; the table sees to it that one is not used
/// after its entry was freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryPtr(NonNull<u8>);

// All functions of EntryPtr read or write an entry that is live and whole, as the type says: whoever makes one
// (`write`, `from_address`) promises that.
impl EntryPtr {
    /// # Safety
    /// The address is that of a live entry (whose provenance the slab exposed).
    #[inline]
    pub(super) unsafe fn from_address(address: usize) -> Self {
        let ptr = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the caller promises a live entry.
        Self(unsafe { NonNull::new_unchecked(ptr) })
    }

    #[inline]
    pub(super) fn address(self) -> usize {
        self.0.as_ptr().addr()
    }

    #[inline]
    pub(super) fn cell(self) -> NonNull<u8> {
        self.0
    }

    /// Writes an entry of `shape`, which was made for this key and body.
    ///
    /// # Safety
    /// `cell` has room for `shape.len` bytes, and whatever was there before is no longer used. `key` and the bytes of
    /// `body` lie outside the cell.
    #[inline]
    pub(super) unsafe fn write(
        cell: NonNull<u8>,
        shape: &Shape,
        access: u32,
        expire_at_ms: Option<i64>,
        key: &[u8],
        body: Body<'_>,
    ) -> Self {
        let entry = Self(cell);
        // SAFETY: all offsets are below `shape.len`, which the caller says the cell has.
        unsafe {
            entry.write_header(shape, access, expire_at_ms, key.len());
            entry.at(key_at(shape.flags)).copy_from_nonoverlapping(key.as_ptr(), key.len());
            entry.write_body(shape, key.len(), body);
        }
        entry
    }

    /// As `write` to a cell that holds an entry of the same key: keeps the key.
    ///
    /// # Safety
    /// As for `write`; what the old value points at was taken before.
    #[inline]
    pub(super) unsafe fn rewrite(
        self,
        shape: &Shape,
        access: u32,
        expire_at_ms: Option<i64>,
        body: Body<'_>,
    ) {
        let key_len = self.key_len();
        let (old_key_at, new_key_at) = (key_at(self.flags()), key_at(shape.flags));
        // SAFETY: both places of the key are within the cell, and may overlap; the rest as in `write`.
        unsafe {
            if old_key_at != new_key_at {
                self.at(new_key_at).copy_from(self.at(old_key_at), key_len);
            }
            self.write_header(shape, access, expire_at_ms, key_len);
            self.write_body(shape, key_len, body);
        }
    }

    /// # Safety
    /// The cell has room for `shape.len` bytes.
    #[inline]
    unsafe fn write_header(self, shape: &Shape, access: u32, expire_at_ms: Option<i64>, key_len: usize) {
        let flags = shape.flags;
        debug_assert_eq!(flags & HAS_EXPIRE != 0, expire_at_ms.is_some());
        // SAFETY: the header is part of `shape.len`.
        unsafe {
            self.0.write(flags);
            self.set_access(access);
            self.write_len(KEY_LEN_AT, flags >> KEY_CODE_SHIFT, key_len);
            if let Some(at_ms) = expire_at_ms {
                self.at(expire_at(flags)).cast::<i64>().write_unaligned(at_ms);
            }
        }
    }

    /// # Safety
    /// The cell has room for `shape.len` bytes, and the bytes of `body` lie outside it.
    #[inline]
    unsafe fn write_body(self, shape: &Shape, key_len: usize, body: Body<'_>) {
        let flags = shape.flags;
        // SAFETY: the value is part of `shape.len`.
        unsafe {
            let value = self.at(key_at(flags) + key_len);
            match body {
                Body::Int(number) => Self::write_int(value, flags >> VALUE_CODE_SHIFT, number),
                Body::Inline { bytes, len, .. } => {
                    self.write_len(value_len_at(flags), flags >> VALUE_CODE_SHIFT, len);
                    value.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                    value.add(bytes.len()).write_bytes(0, len - bytes.len());
                }
                Body::Big(big) => value.cast::<BigString>().write_unaligned(big),
            }
        }
    }

    /// # Safety
    /// `offset` is within the entry.
    #[inline]
    unsafe fn at(self, offset: usize) -> *mut u8 {
        // SAFETY: as promised by the caller.
        unsafe { self.0.as_ptr().add(offset) }
    }

    #[inline]
    fn flags(self) -> u8 {
        // SAFETY: the entry is live, and byte 0 is its flags.
        unsafe { self.0.read() }
    }

    /// # Safety
    /// A length of that width lies at `offset`.
    #[inline]
    unsafe fn read_len(self, offset: usize, code: u8) -> usize {
        // SAFETY: as promised by the caller.
        unsafe {
            match code & 0b11 {
                0 => usize::from(self.at(offset).read()),
                1 => usize::from(self.at(offset).cast::<u16>().read_unaligned()),
                _ => self.at(offset).cast::<u32>().read_unaligned() as usize,
            }
        }
    }

    /// # Safety
    /// The entry has room for a length of that width at `offset`.
    #[inline]
    unsafe fn write_len(self, offset: usize, code: u8, len: usize) {
        // SAFETY: as promised by the caller.
        unsafe {
            match code & 0b11 {
                0 => self.at(offset).write(len as u8),
                1 => self.at(offset).cast::<u16>().write_unaligned(len as u16),
                _ => self.at(offset).cast::<u32>().write_unaligned(len as u32),
            }
        }
    }

    /// # Safety
    /// `value` has room for an integer of that width.
    #[inline]
    unsafe fn write_int(value: *mut u8, code: u8, number: i64) {
        // SAFETY: as promised by the caller.
        unsafe {
            match code & 0b11 {
                0 => value.cast::<i8>().write_unaligned(number as i8),
                1 => value.cast::<i16>().write_unaligned(number as i16),
                2 => value.cast::<i32>().write_unaligned(number as i32),
                _ => value.cast::<i64>().write_unaligned(number),
            }
        }
    }

    #[inline]
    fn key_len(self) -> usize {
        // SAFETY: every entry has a key length there.
        unsafe { self.read_len(KEY_LEN_AT, self.flags() >> KEY_CODE_SHIFT) }
    }

    /// The key. The lifetime is the caller's to bound by the entry's.
    #[inline]
    pub(super) fn key<'a>(self) -> &'a [u8] {
        // SAFETY: the key's bytes lie there and change only when the entry is freed or rewritten, which needs the
        // table exclusively.
        unsafe {
            let start = self.at(usize::from(KEY_AT[usize::from(self.flags())]));
            std::slice::from_raw_parts(start, self.key_len())
        }
    }

    #[inline]
    pub(super) fn key_is(self, key: &[u8]) -> bool {
        same_bytes(self.key(), key)
    }

    #[inline]
    fn value_at(self) -> *mut u8 {
        // SAFETY: the value follows the key.
        unsafe { self.at(usize::from(KEY_AT[usize::from(self.flags())]) + self.key_len()) }
    }

    #[inline]
    fn inline_len(self) -> usize {
        let flags = self.flags();
        // SAFETY: asked of inline strings only, which have a value length there.
        unsafe { self.read_len(value_len_at(flags), flags >> VALUE_CODE_SHIFT) }
    }

    fn big(self) -> BigString {
        debug_assert_eq!(self.flags() & KIND_MASK, KIND_BIG);
        // SAFETY: asked of big strings only.
        unsafe { self.value_at().cast::<BigString>().read_unaligned() }
    }

    #[inline]
    pub(super) fn value<'a>(self) -> ValueRef<'a> {
        let flags = self.flags();
        match flags & KIND_MASK {
            KIND_STR | KIND_RAW => {
                // SAFETY: an inline string's bytes lie there, and change only with the table borrowed exclusively.
                ValueRef::Str(unsafe { std::slice::from_raw_parts(self.value_at(), self.inline_len()) })
            }
            KIND_INT => ValueRef::Int(self.int(flags)),
            kind => {
                debug_assert_eq!(kind, KIND_BIG);
                let big = self.big();
                // SAFETY: the parts are those of a Vec<u8> that lives as long as the entry.
                ValueRef::Str(unsafe { std::slice::from_raw_parts(big.ptr, big.len) })
            }
        }
    }

    fn int(self, flags: u8) -> i64 {
        let value = self.value_at();
        // SAFETY: an integer of the width that the flags tell lies there.
        unsafe {
            match flags >> VALUE_CODE_SHIFT {
                0 => i64::from(value.cast::<i8>().read_unaligned()),
                1 => i64::from(value.cast::<i16>().read_unaligned()),
                2 => i64::from(value.cast::<i32>().read_unaligned()),
                _ => value.cast::<i64>().read_unaligned(),
            }
        }
    }

    pub(super) fn encoding(self) -> StringEncoding {
        match self.flags() & KIND_MASK {
            KIND_INT => StringEncoding::Int,
            KIND_STR if self.inline_len() <= EMBSTR_LEN_MAX => StringEncoding::Embstr,
            _ => StringEncoding::Raw,
        }
    }

    #[inline]
    pub(super) fn has_expire(self) -> bool {
        self.flags() & HAS_EXPIRE != 0
    }

    #[inline]
    pub(super) fn expire_at_ms(self) -> Option<i64> {
        let flags = self.flags();
        if flags & HAS_EXPIRE == 0 {
            return None;
        }
        // SAFETY: the flag says that the expiry lies there.
        Some(unsafe { self.at(expire_at(flags)).cast::<i64>().read_unaligned() })
    }

    /// Overwrites an inline `Str` by another of the same length, which is what most SETs of a key that is there are.
    /// Answers whether it did; otherwise nothing has changed.
    #[inline]
    pub(super) fn overwrite_alike(self, bytes: &[u8], access: u32, expire_at_ms: Option<i64>) -> bool {
        let flags = self.flags();
        if flags & (KIND_MASK | HAS_EXPIRE) != KIND_STR | if expire_at_ms.is_some() { HAS_EXPIRE } else { 0 }
            || self.inline_len() != bytes.len()
        {
            return false;
        }
        self.set_access(access);
        if let Some(at_ms) = expire_at_ms {
            self.overwrite_expire(at_ms);
        }
        // SAFETY: an inline string of that length lies there. `bytes` is no part of it: nobody can hold a table's
        // string and set one at once.
        unsafe { self.value_at().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Overwrites the expiry of an entry that has one.
    pub(super) fn overwrite_expire(self, at_ms: i64) {
        debug_assert!(self.has_expire());
        // SAFETY: the flag says that the expiry lies there.
        unsafe { self.at(expire_at(self.flags())).cast::<i64>().write_unaligned(at_ms) };
    }

    #[inline]
    pub(super) fn access(self) -> u32 {
        // SAFETY: flags and access are the entry's first four bytes.
        unsafe { u32::from_le(self.0.cast::<u32>().read_unaligned()) >> 8 }
    }

    #[inline]
    pub(super) fn set_access(self, access: u32) {
        debug_assert!(access <= ACCESS_MAX);
        let bytes = access.to_le_bytes();
        // SAFETY: the access field is the three bytes after the flags; no reference to them is ever made.
        unsafe { self.at(ACCESS_AT).copy_from_nonoverlapping(bytes.as_ptr(), 3) };
    }

    /// Length of the entry, before rounding.
    pub(super) fn len(self) -> usize {
        let flags = self.flags();
        let value_len = match flags & KIND_MASK {
            KIND_INT => length_width(flags >> VALUE_CODE_SHIFT),
            KIND_STR | KIND_RAW => self.inline_len(),
            _ => BIG_LEN,
        };
        key_at(flags) + self.key_len() + value_len
    }

    /// Bytes outside the entry.
    pub(super) fn external_bytes(self) -> usize {
        if self.flags() & KIND_MASK == KIND_BIG { self.big().capacity } else { 0 }
    }

    /// The value, to be written to another entry.
    ///
    /// # Safety
    /// The caller frees or overwrites this entry without touching what its value points at: the copy owns that.
    pub(super) unsafe fn body<'a>(self) -> Body<'a> {
        let flags = self.flags();
        match flags & KIND_MASK {
            KIND_INT => Body::Int(self.int(flags)),
            KIND_BIG => Body::Big(self.big()),
            kind => {
                let len = self.inline_len();
                // SAFETY: an inline string's bytes lie there until the entry is freed.
                let bytes = unsafe { std::slice::from_raw_parts(self.value_at(), len) };
                Body::Inline { raw: kind == KIND_RAW, bytes, len }
            }
        }
    }

    /// Whether the value is a string in an allocation of its own.
    pub(super) fn is_big(self) -> bool {
        self.flags() & KIND_MASK == KIND_BIG
    }

    /// The bytes of a big string, to be changed, grown to at least `len_min` by zeros.
    ///
    /// # Safety
    /// The value is a big string, and nothing else refers to it for 'a.
    pub(super) unsafe fn big_mut<'a>(self, len_min: usize) -> &'a mut [u8] {
        let big = self.big();
        // SAFETY: the parts are used by the vector only until they are written back. The allocation lives as long
        // as the entry, and by the caller's promise nothing else refers to it.
        unsafe {
            let mut bytes = big.into_vec();
            if bytes.len() < len_min {
                if bytes.capacity() < len_min {
                    bytes.reserve_exact(grown_capacity(len_min) - bytes.len());
                }
                bytes.resize(len_min, 0);
            }
            let big = BigString::from_grown_vec(bytes);
            self.value_at().cast::<BigString>().write_unaligned(big);
            std::slice::from_raw_parts_mut(big.ptr, big.len)
        }
    }

    /// The bytes of an inline string, to be changed, grown to at least `len_min` by zeros and from now on `raw`; None
    /// if the entry has no room for that.
    ///
    /// # Safety
    /// The value is an inline string, and nothing else refers to it for 'a.
    pub(super) unsafe fn inline_mut<'a>(self, len_min: usize) -> Option<&'a mut [u8]> {
        let flags = self.flags();
        let old_len = self.inline_len();
        let len = old_len.max(len_min);
        let entry_len = self.len();
        let has_room = fits_inline(self.key_len(), len)
            && length_code(len) == flags >> VALUE_CODE_SHIFT
            && rounded(entry_len - old_len + len) == rounded(entry_len);
        if !has_room {
            return None;
        }
        // SAFETY: the cell is as long as its rounded length, which stays the same.
        unsafe {
            self.0.write((flags & !KIND_MASK) | KIND_RAW);
            self.write_len(value_len_at(flags), flags >> VALUE_CODE_SHIFT, len);
            self.value_at().add(old_len).write_bytes(0, len - old_len);
            Some(std::slice::from_raw_parts_mut(self.value_at(), len))
        }
    }

    /// Takes the allocation outside the entry, if there is one.
    ///
    /// # Safety
    /// The entry's value is not read again; the entry is freed or overwritten next.
    pub(super) unsafe fn take_external(self) -> Option<Vec<u8>> {
        if self.flags() & KIND_MASK != KIND_BIG {
            return None;
        }
        // SAFETY: by the caller's promise, the parts in the entry are not used again.
        Some(unsafe { self.big().into_vec() })
    }

    /// Takes the value out of an entry.
    ///
    /// # Safety
    /// As [`EntryPtr::take_external`].
    pub(super) unsafe fn take_value(self) -> OwnedValue {
        let is_raw = self.flags() & KIND_MASK == KIND_RAW;
        // SAFETY: the caller makes the same promise.
        if let Some(bytes) = unsafe { self.take_external() } {
            return OwnedValue::Str(bytes);
        }
        match self.value() {
            ValueRef::Int(number) => OwnedValue::Int(number),
            ValueRef::Str(bytes) if is_raw => OwnedValue::Raw(bytes.to_vec()),
            ValueRef::Str(bytes) => OwnedValue::Str(bytes.to_vec()),
        }
    }
}

/// Whether two strings are equal. Keys are mostly short, and a call to memcmp costs more than comparing them.
#[inline]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    if !(8..=32).contains(&len) {
        return a == b;
    }
    let word = |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let mut difference = (word(a, 0) ^ word(b, 0)) | (word(a, len - 8) ^ word(b, len - 8));
    if len > 16 {
        difference |= (word(a, 8) ^ word(b, 8)) | (word(a, len - 16) ^ word(b, len - 16));
    }
    difference == 0
}
