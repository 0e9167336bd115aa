//! Entry: a key, its value and their metadata, in one allocation.
//!
//! ```text
//! header  access  key length    value length   expire   key   value
//! 1       3       1, 2 or 4     0, 1 or 2      0 or 8   n     m
//! ```
//!
//! The [`header`] tells the kind of the value and the widths of the rest, so a small string costs 6 bytes on top of its
//! key and value, and 8 more with a time to live. Fields are not aligned. The value is one of
//!
//! - a string, inline if the entry is no longer than `SLAB_SIZE_MAX`: `Str` (`embstr` or `raw` by its length), or `Raw`
//!   (`raw` whatever its length: the result of APPEND and SETRANGE),
//! - an integer of 1, 2, 4 or 8 bytes, with no value length,
//! - a big string: pointer, length and capacity of an allocation of its own, so that APPEND is amortised O(1),
//! - a *packed* collection, in Redis' listpack or intset layout: inline like a string, or like a big string,
//! - an *object*, the big form of a collection: an 8-byte owned pointer.
//!
//! What a value owns outside of its entry is written and taken only by `EntryPtr::put_outside`, `EntryPtr::take_outside`
//! and their counterparts for objects, which count its bytes.

mod collection;
mod header;

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::object::{Collection, Object, ValueType};
use super::slab::{SLAB_SIZE_MAX, rounded};
use super::{same_bytes, same_bytes_inline};
use header::{BIG_STRING_LEN, HEADER_LEN_MAX, Header, KEY_LEN_AT, Kind, OBJECT_LEN};

pub use header::PackedKind;

/// Longest string that OBJECT ENCODING calls `embstr`.
const EMBSTR_LEN_MAX: usize = 44;

/// The access field is 24 bits wide: an LRU clock, or an LFU counter with its clock.
pub const ACCESS_MAX: u32 = (1 << 24) - 1;

const ACCESS_AT: usize = 1;

const _: () = assert!(size_of::<BigString>() == BIG_STRING_LEN);

/// Bytes that the values of a table own outside of their entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::types) struct OutsideBytes(usize);

impl OutsideBytes {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn get(self) -> usize {
        self.0
    }

    /// Something that was counted with `counted` bytes has `bytes` now.
    pub(super) fn recount(&mut self, counted: usize, bytes: usize) {
        self.0 = self.0 - counted + bytes;
    }
}

/// A value as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRef<'a> {
    Int(i64),
    Str(&'a [u8]),
    /// A small collection: a listpack or an intset.
    Packed(PackedKind, &'a [u8]),
    Object(&'a Object),
}

impl ValueRef<'_> {
    pub fn value_type(self) -> ValueType {
        match self {
            ValueRef::Int(_) | ValueRef::Str(_) => ValueType::String,
            ValueRef::Packed(PackedKind::List, _) => ValueType::List,
            ValueRef::Packed(PackedKind::Hash, _) => ValueType::Hash,
            ValueRef::Packed(PackedKind::ZSet, _) => ValueType::ZSet,
            ValueRef::Packed(PackedKind::IntSet | PackedKind::Set, _) => ValueType::Set,
            ValueRef::Object(object) => object.value_type(),
        }
    }
}

/// A value to store. The caller decides whether a string is a canonical integer.
#[derive(Debug)]
pub enum NewValue<'a> {
    Int(i64),
    /// `embstr` up to 44 bytes, else `raw`.
    Str(&'a [u8]),
    /// `raw`, whatever its length.
    Raw(&'a [u8]),
    /// As `Str`, without a copy when it is long.
    Owned(Vec<u8>),
    /// As `Raw`, without a copy when it is long.
    OwnedRaw(Vec<u8>),
    Packed(PackedKind, &'a [u8]),
    /// As `Packed`, without a copy when it is long.
    OwnedPacked(PackedKind, Vec<u8>),
    Object(Box<Object>),
}

/// A value that was taken out of its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    Int(i64),
    Str(Vec<u8>),
    /// Reports `raw`, whatever its length.
    Raw(Vec<u8>),
    Packed(PackedKind, Vec<u8>),
    Object(Box<Object>),
}

impl OwnedValue {
    /// What a snapshot has still to write of it is not needed any more.
    pub(crate) fn end_saving(&mut self) {
        if let OwnedValue::Object(object) = self {
            object.end_saving();
        }
    }
}

impl From<OwnedValue> for NewValue<'_> {
    fn from(value: OwnedValue) -> Self {
        match value {
            OwnedValue::Int(number) => NewValue::Int(number),
            OwnedValue::Str(bytes) => NewValue::Owned(bytes),
            OwnedValue::Raw(bytes) => NewValue::OwnedRaw(bytes),
            OwnedValue::Packed(kind, bytes) => NewValue::OwnedPacked(kind, bytes),
            OwnedValue::Object(object) => NewValue::Object(object),
        }
    }
}

/// An entry that was taken out of its table and can be put into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    pub key: Box<[u8]>,
    pub value: OwnedValue,
    pub expire_at_ms: Option<i64>,
    pub access: u32,
}

/// What OBJECT ENCODING reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Int,
    Embstr,
    Raw,
    Quicklist,
    Listpack,
    Hashtable,
    Intset,
    Skiplist,
    Stream,
}

impl Encoding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Embstr => "embstr",
            Self::Raw => "raw",
            Self::Quicklist => "quicklist",
            Self::Listpack => "listpack",
            Self::Hashtable => "hashtable",
            Self::Intset => "intset",
            Self::Skiplist => "skiplist",
            Self::Stream => "stream",
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
        // Spare capacity of up to a quarter is kept for a later APPEND. More of it is what a read buffer left, and is
        // freed.
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
    /// A value of `len` bytes: `bytes`, and zeros after them.
    Inline {
        kind: Kind,
        bytes: &'a [u8],
        len: usize,
    },
    /// The bytes of a packed collection with `gap` bytes between `before` and `after`, to be written later.
    Spliced {
        kind: PackedKind,
        before: &'a [u8],
        gap: usize,
        after: &'a [u8],
    },
    /// A big string or a big packed collection.
    Big(Kind, BigString),
    Object(Box<Object>),
}

impl<'a> Body<'a> {
    /// Decides where the value of `key` is stored. Consumes an owned value; if it is to be inline, `keep` holds its
    /// bytes until they are written.
    pub(super) fn choose(value: NewValue<'a>, key: &[u8], keep: &'a mut Vec<u8>) -> Self {
        match value {
            NewValue::Int(number) => Body::Int(number),
            NewValue::Str(bytes) => Self::choose_borrowed(bytes, key, Kind::Str),
            NewValue::Raw(bytes) => Self::choose_borrowed(bytes, key, Kind::Raw),
            NewValue::Owned(bytes) => Self::choose_owned(bytes, key, Kind::Str, keep),
            NewValue::OwnedRaw(bytes) => Self::choose_owned(bytes, key, Kind::Raw, keep),
            NewValue::Packed(kind, bytes) => Self::choose_borrowed(bytes, key, Kind::Packed(kind)),
            NewValue::OwnedPacked(kind, bytes) => Self::choose_owned(bytes, key, Kind::Packed(kind), keep),
            NewValue::Object(object) => Body::Object(object),
        }
    }

    fn choose_borrowed(bytes: &'a [u8], key: &[u8], kind: Kind) -> Self {
        if fits_inline(key.len(), bytes.len()) {
            Body::Inline { kind, bytes, len: bytes.len() }
        } else {
            Body::Big(big_kind(kind), BigString::from_vec(bytes.to_vec()))
        }
    }

    fn choose_owned(bytes: Vec<u8>, key: &[u8], kind: Kind, keep: &'a mut Vec<u8>) -> Self {
        if fits_inline(key.len(), bytes.len()) {
            *keep = bytes;
            Body::Inline { kind, bytes: keep, len: keep.len() }
        } else {
            Body::Big(big_kind(kind), BigString::from_vec(bytes))
        }
    }

    /// The string `bytes`, zero-padded to `len`. If it is big, it has room to grow further.
    pub(super) fn grown(key_len: usize, bytes: &'a [u8], len: usize) -> Self {
        debug_assert!(bytes.len() <= len);
        if fits_inline(key_len, len) {
            return Body::Inline { kind: Kind::Raw, bytes, len };
        }
        let mut big = Vec::with_capacity(grown_capacity(len));
        big.extend_from_slice(bytes);
        big.resize(len, 0);
        Body::Big(Kind::BigString, BigString::from_grown_vec(big))
    }
}

/// The kind of a value that would be inline if it were not too long.
fn big_kind(kind: Kind) -> Kind {
    match kind {
        Kind::Packed(packed) => Kind::BigPacked(packed),
        Kind::Int | Kind::Str | Kind::Raw | Kind::BigString | Kind::Object | Kind::BigPacked(_) => {
            Kind::BigString
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
    value_len <= EMBSTR_LEN_MAX || HEADER_LEN_MAX + key_len + value_len <= SLAB_SIZE_MAX
}

/// The layout of an entry to be written.
pub(super) struct Shape {
    header: Header,
    /// Length in bytes, before rounding.
    pub(super) len: usize,
}

impl Shape {
    #[inline]
    pub(super) fn of(key_len: usize, body: &Body<'_>, has_expire: bool) -> Self {
        let (header, value_len) = match body {
            Body::Int(number) => {
                let header = Header::of_int(*number, key_len, has_expire);
                (header, 1 << header.int_width())
            }
            Body::Inline { kind, len, .. } => (Header::of_inline(*kind, *len, key_len, has_expire), *len),
            Body::Spliced { kind, before, gap, after } => {
                let len = before.len() + gap + after.len();
                (Header::of_inline(Kind::Packed(*kind), len, key_len, has_expire), len)
            }
            Body::Big(kind, _) => (Header::of_pointer(*kind, key_len, has_expire), BIG_STRING_LEN),
            Body::Object(_) => (Header::of_pointer(Kind::Object, key_len, has_expire), OBJECT_LEN),
        };
        Self { header, len: header.key_at() + key_len + value_len }
    }
}

/// A pointer to a live entry. Copies of it are made freely within `types`; the table makes sure that none is used after
/// its entry was freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryPtr(NonNull<u8>);

// All functions of EntryPtr read or write an entry that is live and complete: the callers of the functions that make an
// EntryPtr (`write`, `from_address`) promise that.
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
        outside: &mut OutsideBytes,
    ) -> Self {
        let entry = Self(cell);
        // SAFETY: all offsets are below `shape.len`, which the caller says the cell has.
        unsafe {
            entry.write_header(shape, access, expire_at_ms, key.len());
            entry.at(shape.header.key_at()).copy_from_nonoverlapping(key.as_ptr(), key.len());
            entry.write_body(shape, key.len(), body, outside);
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
        outside: &mut OutsideBytes,
    ) {
        let key_len = self.key_len();
        let (old_key_at, new_key_at) = (self.header().key_at(), shape.header.key_at());
        // SAFETY: both places of the key are within the cell, and may overlap; the rest as in `write`.
        unsafe {
            if old_key_at != new_key_at {
                self.at(new_key_at).copy_from(self.at(old_key_at), key_len);
            }
            self.write_header(shape, access, expire_at_ms, key_len);
            self.write_body(shape, key_len, body, outside);
        }
    }

    /// # Safety
    /// The cell has room for `shape.len` bytes.
    #[inline]
    unsafe fn write_header(self, shape: &Shape, access: u32, expire_at_ms: Option<i64>, key_len: usize) {
        let header = shape.header;
        debug_assert_eq!(header.has_expire(), expire_at_ms.is_some());
        // SAFETY: the header is part of `shape.len`.
        unsafe {
            self.0.write(header.0);
            self.set_access(access);
            self.write_len(KEY_LEN_AT, header.key_width(), key_len);
            if let Some(at_ms) = expire_at_ms {
                self.at(header.expire_at()).cast::<i64>().write_unaligned(at_ms);
            }
        }
    }

    /// # Safety
    /// The cell has room for `shape.len` bytes, and the bytes of `body` lie outside it.
    #[inline]
    unsafe fn write_body(self, shape: &Shape, key_len: usize, body: Body<'_>, outside: &mut OutsideBytes) {
        let header = shape.header;
        // SAFETY: the value is part of `shape.len`.
        unsafe {
            let value = self.at(header.key_at() + key_len);
            match body {
                Body::Int(number) => Self::write_int(value, header.int_width(), number),
                Body::Inline { bytes, len, .. } => {
                    self.write_len(header.value_len_at(), header.value_width(), len);
                    value.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                    value.add(bytes.len()).write_bytes(0, len - bytes.len());
                }
                Body::Spliced { before, gap, after, .. } => {
                    let len = before.len() + gap + after.len();
                    self.write_len(header.value_len_at(), header.value_width(), len);
                    value.copy_from_nonoverlapping(before.as_ptr(), before.len());
                    value.add(before.len()).write_bytes(0, gap);
                    value.add(before.len() + gap).copy_from_nonoverlapping(after.as_ptr(), after.len());
                }
                Body::Big(_, big) => Self::put_outside(value, big, outside),
                Body::Object(object) => Self::put_object(value, object, outside),
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

    /// Writes what a value points at, which the entry owns from here on.
    ///
    /// # Safety
    /// `value` has room for it.
    unsafe fn put_outside(value: *mut u8, big: BigString, outside: &mut OutsideBytes) {
        outside.0 += big.capacity;
        // SAFETY: as promised by the caller.
        unsafe { value.cast::<BigString>().write_unaligned(big) };
    }

    /// What the entry owns outside of itself, of which its new owner is the caller.
    ///
    /// # Safety
    /// The entry's value is not read again before another was written.
    unsafe fn take_outside(self, outside: &mut OutsideBytes) -> BigString {
        let big = self.big();
        outside.0 -= big.capacity;
        big
    }

    #[inline]
    fn header(self) -> Header {
        // SAFETY: the entry is live, and byte 0 is its header.
        Header(unsafe { self.0.read() })
    }

    /// # Safety
    /// A length of that width lies at `offset`.
    #[inline]
    unsafe fn read_len(self, offset: usize, width: u8) -> usize {
        // SAFETY: as promised by the caller.
        unsafe {
            match width {
                0 => usize::from(self.at(offset).read()),
                1 => usize::from(self.at(offset).cast::<u16>().read_unaligned()),
                _ => self.at(offset).cast::<u32>().read_unaligned() as usize,
            }
        }
    }

    /// # Safety
    /// The entry has room for a length of that width at `offset`.
    #[inline]
    unsafe fn write_len(self, offset: usize, width: u8, len: usize) {
        // SAFETY: as promised by the caller.
        unsafe {
            match width {
                0 => self.at(offset).write(len as u8),
                1 => self.at(offset).cast::<u16>().write_unaligned(len as u16),
                _ => self.at(offset).cast::<u32>().write_unaligned(len as u32),
            }
        }
    }

    /// # Safety
    /// `value` has room for an integer of that width.
    #[inline]
    unsafe fn write_int(value: *mut u8, width: u8, number: i64) {
        // SAFETY: as promised by the caller.
        unsafe {
            match width {
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
        unsafe { self.read_len(KEY_LEN_AT, self.header().key_width()) }
    }

    /// The key. The lifetime is the caller's to bound by the entry's.
    #[inline]
    pub(super) fn key<'a>(self) -> &'a [u8] {
        // SAFETY: the key's bytes lie there and change only when the entry is freed or rewritten, which needs the
        // table exclusively.
        unsafe {
            let start = self.at(self.header().key_at());
            std::slice::from_raw_parts(start, self.key_len())
        }
    }

    #[inline]
    pub(super) fn key_is(self, key: &[u8]) -> bool {
        same_bytes(self.key(), key)
    }

    /// The same without a call, for keys of usual lengths.
    #[inline(always)]
    pub(super) fn key_is_inline(self, key: &[u8]) -> bool {
        same_bytes_inline(self.key(), key)
    }

    #[inline]
    fn value_at(self) -> *mut u8 {
        // SAFETY: the value follows the key.
        unsafe { self.at(self.header().key_at() + self.key_len()) }
    }

    #[inline]
    fn inline_len(self) -> usize {
        let header = self.header();
        // SAFETY: called for inline values only, which have a value length there.
        unsafe { self.read_len(header.value_len_at(), header.value_width()) }
    }

    #[inline]
    fn inline_bytes<'a>(self) -> &'a [u8] {
        // SAFETY: called for inline values only. Their bytes lie there, and change only with the table borrowed
        // exclusively.
        unsafe { std::slice::from_raw_parts(self.value_at(), self.inline_len()) }
    }

    fn big(self) -> BigString {
        debug_assert!(matches!(self.header().kind(), Kind::BigString | Kind::BigPacked(_)));
        // SAFETY: called for these kinds only.
        unsafe { self.value_at().cast::<BigString>().read_unaligned() }
    }

    #[inline(always)]
    pub(super) fn value<'a>(self) -> ValueRef<'a> {
        // Nearly every value is an inline string, for which this one comparison is enough.
        if self.header().is_inline_string() { ValueRef::Str(self.inline_bytes()) } else { self.any_value() }
    }

    /// The value, whatever it is.
    #[inline(never)]
    fn any_value<'a>(self) -> ValueRef<'a> {
        let header = self.header();
        match header.kind() {
            Kind::Int => ValueRef::Int(self.int(header)),
            Kind::Str | Kind::Raw => ValueRef::Str(self.inline_bytes()),
            Kind::BigString => ValueRef::Str(self.big_bytes()),
            Kind::Packed(kind) => ValueRef::Packed(kind, self.inline_bytes()),
            Kind::BigPacked(kind) => ValueRef::Packed(kind, self.big_bytes()),
            // SAFETY: the entry owns the object, which changes only with the table borrowed exclusively.
            Kind::Object => ValueRef::Object(unsafe { &*self.object_ptr() }),
        }
    }

    /// The bytes of a big string or a big packed collection.
    fn big_bytes<'a>(self) -> &'a [u8] {
        let big = self.big();
        // SAFETY: the parts are those of a Vec<u8> that lives as long as the entry.
        unsafe { std::slice::from_raw_parts(big.ptr, big.len) }
    }

    fn int(self, header: Header) -> i64 {
        let value = self.value_at();
        // SAFETY: an integer of the width that the header tells lies there.
        unsafe {
            match header.int_width() {
                0 => i64::from(value.cast::<i8>().read_unaligned()),
                1 => i64::from(value.cast::<i16>().read_unaligned()),
                2 => i64::from(value.cast::<i32>().read_unaligned()),
                _ => value.cast::<i64>().read_unaligned(),
            }
        }
    }

    pub(super) fn encoding(self) -> Encoding {
        match self.header().kind() {
            Kind::Int => Encoding::Int,
            Kind::Str if self.inline_len() <= EMBSTR_LEN_MAX => Encoding::Embstr,
            Kind::Str | Kind::Raw | Kind::BigString => Encoding::Raw,
            Kind::Packed(kind) | Kind::BigPacked(kind) => kind.encoding(),
            // SAFETY: the entry owns the object.
            Kind::Object => unsafe { &*self.object_ptr() }.encoding(),
        }
    }

    #[inline]
    pub(super) fn has_expire(self) -> bool {
        self.header().has_expire()
    }

    #[inline]
    pub(super) fn expire_at_ms(self) -> Option<i64> {
        let header = self.header();
        if !header.has_expire() {
            return None;
        }
        // SAFETY: the header says that the expiry lies there.
        Some(unsafe { self.at(header.expire_at()).cast::<i64>().read_unaligned() })
    }

    /// Overwrites an inline `Str` by another of the same length, as most SETs of an existing key do. Returns whether it
    /// did; otherwise nothing has changed.
    #[inline]
    pub(super) fn overwrite_alike(self, bytes: &[u8], access: u32, expire_at_ms: Option<i64>) -> bool {
        if !self.header().is_str(expire_at_ms.is_some()) || self.inline_len() != bytes.len() {
            return false;
        }
        self.set_access(access);
        if let Some(at_ms) = expire_at_ms {
            self.overwrite_expire(at_ms);
        }
        // SAFETY: an inline string of that length lies there. `bytes` is no part of it: a string of
        // the table cannot be borrowed while the table is changed.
        unsafe { self.value_at().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Overwrites an integer by another of the same width, as most INCRs do. Returns whether it did; otherwise nothing has
    /// changed.
    #[inline]
    pub(super) fn overwrite_int(self, number: i64) -> bool {
        let header = self.header();
        if header != Header::of_int(number, self.key_len(), header.has_expire()) {
            return false;
        }
        // SAFETY: an integer of the width that the header tells lies there.
        unsafe { Self::write_int(self.value_at(), header.int_width(), number) };
        true
    }

    /// Overwrites the expiry of an entry that has one.
    pub(super) fn overwrite_expire(self, at_ms: i64) {
        debug_assert!(self.has_expire());
        // SAFETY: the header says that the expiry lies there.
        unsafe { self.at(self.header().expire_at()).cast::<i64>().write_unaligned(at_ms) };
    }

    #[inline]
    pub(super) fn access(self) -> u32 {
        // SAFETY: header and access are the entry's first four bytes.
        unsafe { u32::from_le(self.0.cast::<u32>().read_unaligned()) >> 8 }
    }

    #[inline]
    pub(super) fn set_access(self, access: u32) {
        debug_assert!(access <= ACCESS_MAX);
        let bytes = access.to_le_bytes();
        // SAFETY: the access field is the three bytes after the header; no reference to them is ever made.
        unsafe { self.at(ACCESS_AT).copy_from_nonoverlapping(bytes.as_ptr(), 3) };
    }

    /// Length of the entry, before rounding.
    pub(super) fn len(self) -> usize {
        let header = self.header();
        let value_len = if header.is_inline_string() {
            self.inline_len()
        } else {
            header.value_len(|| self.inline_len())
        };
        header.key_at() + self.key_len() + value_len
    }

    /// Bytes outside the entry.
    pub(super) fn outside_bytes(self) -> usize {
        match self.header().kind() {
            Kind::Int | Kind::Str | Kind::Raw | Kind::Packed(_) => 0,
            Kind::BigString | Kind::BigPacked(_) => self.big().capacity,
            // SAFETY: the entry owns the object.
            Kind::Object => unsafe { &*self.object_ptr() }.heap_bytes(),
        }
    }

    /// The value, to be written to another entry.
    ///
    /// # Safety
    /// The caller writes the body and then frees or overwrites this entry, whose value is not read again.
    pub(super) unsafe fn take_body<'a>(self, outside: &mut OutsideBytes) -> Body<'a> {
        let header = self.header();
        match header.kind() {
            Kind::Int => Body::Int(self.int(header)),
            kind @ (Kind::Str | Kind::Raw | Kind::Packed(_)) => {
                let bytes = self.inline_bytes();
                Body::Inline { kind, bytes, len: bytes.len() }
            }
            kind @ (Kind::BigString | Kind::BigPacked(_)) => {
                // SAFETY: by the caller's promise the value is not read again.
                Body::Big(kind, unsafe { self.take_outside(outside) })
            }
            // SAFETY: as above.
            Kind::Object => Body::Object(unsafe { self.take_object(outside) }),
        }
    }

    /// Whether the value is a string in an allocation of its own.
    pub(super) fn is_big(self) -> bool {
        self.header().kind() == Kind::BigString
    }

    /// The bytes of a big string, mutable, zero-padded to at least `len_min`.
    ///
    /// # Safety
    /// The value is a big string, and nothing else refers to it for 'a.
    pub(super) unsafe fn big_mut<'a>(self, len_min: usize, outside: &mut OutsideBytes) -> &'a mut [u8] {
        // SAFETY: the parts are used by the vector only until they are written back. The allocation lives as long
        // as the entry, and by the caller's promise nothing else refers to it.
        unsafe {
            let mut bytes = self.take_outside(outside).into_vec();
            if bytes.len() < len_min {
                if bytes.capacity() < len_min {
                    bytes.reserve_exact(grown_capacity(len_min) - bytes.len());
                }
                bytes.resize(len_min, 0);
            }
            let big = BigString::from_grown_vec(bytes);
            Self::put_outside(self.value_at(), big, outside);
            std::slice::from_raw_parts_mut(big.ptr, big.len)
        }
    }

    /// The bytes of an inline string, mutable, zero-padded to at least `len_min`; its encoding is `raw` from now on.
    /// None if the entry has no room for that.
    ///
    /// # Safety
    /// The value is an inline string, and nothing else refers to it for 'a.
    pub(super) unsafe fn inline_mut<'a>(self, len_min: usize) -> Option<&'a mut [u8]> {
        let header = self.header().with_kind(Kind::Raw);
        let old_len = self.inline_len();
        let len = old_len.max(len_min);
        let entry_len = self.len();
        let has_room = fits_inline(self.key_len(), len)
            && header.has_room_for_len(len)
            && rounded(entry_len - old_len + len) == rounded(entry_len);
        if !has_room {
            return None;
        }
        // SAFETY: the cell is as long as its rounded length, which stays the same.
        unsafe {
            self.0.write(header.0);
            self.write_len(header.value_len_at(), header.value_width(), len);
            self.value_at().add(old_len).write_bytes(0, len - old_len);
            Some(std::slice::from_raw_parts_mut(self.value_at(), len))
        }
    }

    /// Takes what the entry owns outside of itself, if anything, as a value to be freed.
    ///
    /// # Safety
    /// The entry's value is not read again; the entry is freed or overwritten next.
    pub(super) unsafe fn take_garbage(self, outside: &mut OutsideBytes) -> Option<OwnedValue> {
        match self.header().kind() {
            Kind::Int | Kind::Str | Kind::Raw | Kind::Packed(_) => None,
            Kind::BigString | Kind::BigPacked(_) => {
                // SAFETY: by the caller's promise, the parts in the entry are not used again.
                Some(OwnedValue::Str(unsafe { self.take_outside(outside).into_vec() }))
            }
            // SAFETY: as above.
            Kind::Object => Some(OwnedValue::Object(unsafe { self.take_object(outside) })),
        }
    }

    /// Takes the value out of an entry.
    ///
    /// # Safety
    /// As [`EntryPtr::take_garbage`].
    pub(super) unsafe fn take_value(self, outside: &mut OutsideBytes) -> OwnedValue {
        let header = self.header();
        match header.kind() {
            Kind::Int => OwnedValue::Int(self.int(header)),
            Kind::Str => OwnedValue::Str(self.inline_bytes().to_vec()),
            Kind::Raw => OwnedValue::Raw(self.inline_bytes().to_vec()),
            Kind::Packed(kind) => OwnedValue::Packed(kind, self.inline_bytes().to_vec()),
            // SAFETY: the caller makes the same promise.
            Kind::BigString => OwnedValue::Str(unsafe { self.take_outside(outside).into_vec() }),
            Kind::BigPacked(kind) => {
                // SAFETY: as above.
                OwnedValue::Packed(kind, unsafe { self.take_outside(outside).into_vec() })
            }
            // SAFETY: as above.
            Kind::Object => OwnedValue::Object(unsafe { self.take_object(outside) }),
        }
    }
}
