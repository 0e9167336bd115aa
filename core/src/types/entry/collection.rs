//! Entries whose value is a collection: packed bytes that are edited in place, and objects.

use std::ops::Range;

use super::header::{Kind, PackedKind};
use super::{BigString, Body, Encoding, EntryPtr, OutsideBytes, fits_inline};
use crate::types::blob::Blob;
use crate::types::object::{Collection, Object};
use crate::types::slab::rounded;

impl PackedKind {
    /// The bytes of a collection without elements.
    pub fn empty(self) -> &'static [u8] {
        match self {
            // Total length of 7 bytes, no elements, end.
            PackedKind::List | PackedKind::Hash | PackedKind::ZSet | PackedKind::Set => {
                &[7, 0, 0, 0, 0, 0, 0xFF]
            }
            // Integers of 2 bytes, none of them.
            PackedKind::IntSet => &[2, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    pub(super) fn encoding(self) -> Encoding {
        match self {
            PackedKind::List => Encoding::Quicklist,
            PackedKind::Hash | PackedKind::ZSet => Encoding::Listpack,
            PackedKind::IntSet => Encoding::Intset,
            // Redis 7.0 has no other representation for a set of strings.
            PackedKind::Set => Encoding::Hashtable,
        }
    }
}

impl EntryPtr {
    /// As [`EntryPtr::put_outside`], for an object.
    ///
    /// # Safety
    /// `value` has room for a pointer.
    pub(super) unsafe fn put_object(value: *mut u8, object: Box<Object>, outside: &mut OutsideBytes) {
        outside.0 += object.heap_bytes();
        // SAFETY: as promised by the caller.
        unsafe { value.cast::<*mut Object>().write_unaligned(Box::into_raw(object)) };
    }

    /// As [`EntryPtr::take_outside`], for an object.
    ///
    /// # Safety
    /// The value is an object, and not read again before another was written.
    pub(super) unsafe fn take_object(self, outside: &mut OutsideBytes) -> Box<Object> {
        // SAFETY: the pointer comes from `put_object`, and by the caller's promise it is not used again.
        let object = unsafe { Box::from_raw(self.object_ptr()) };
        outside.0 -= object.heap_bytes();
        object
    }

    pub(in crate::types) fn object_ptr(self) -> *mut Object {
        debug_assert_eq!(self.header().kind(), Kind::Object);
        // SAFETY: called for objects only, whose entry holds a pointer.
        unsafe { self.value_at().cast::<*mut Object>().read_unaligned() }
    }

    /// Whether the value is a collection without elements, whose key is to be removed.
    #[inline]
    pub(in crate::types) fn is_emptied(self) -> bool {
        self.header().is_collection() && self.is_empty_collection()
    }

    fn is_empty_collection(self) -> bool {
        match self.header().kind() {
            Kind::Int | Kind::Str | Kind::Raw | Kind::BigString => false,
            Kind::Packed(kind) => self.inline_len() == kind.empty().len(),
            Kind::BigPacked(kind) => self.big().len == kind.empty().len(),
            // SAFETY: the entry owns the object, which changes only with the table borrowed exclusively.
            Kind::Object => unsafe { &*self.object_ptr() }.is_emptied(),
        }
    }

    pub(in crate::types) fn is_object(self) -> bool {
        self.header().kind() == Kind::Object
    }

    #[inline]
    pub(in crate::types) fn is_packed(self) -> bool {
        self.header().is_packed()
    }

    /// The bytes of a packed collection.
    #[inline]
    pub(in crate::types) fn packed_bytes<'a>(self) -> &'a [u8] {
        if self.is_big_packed() { self.big_bytes() } else { self.inline_bytes() }
    }

    /// What kind of packed collection the value is, if it is one.
    pub(in crate::types) fn packed_kind(self) -> Option<PackedKind> {
        match self.header().kind() {
            Kind::Packed(kind) | Kind::BigPacked(kind) => Some(kind),
            Kind::Int | Kind::Str | Kind::Raw | Kind::BigString | Kind::Object => None,
        }
    }

    /// The bytes of a packed collection, mutable.
    ///
    /// # Safety
    /// The value is a packed collection, and nothing else refers to it for 'a.
    #[inline]
    pub(in crate::types) unsafe fn packed_mut<'a>(self) -> &'a mut [u8] {
        let (start, len) = if self.is_big_packed() {
            let big = self.big();
            (big.ptr, big.len)
        } else {
            (self.value_at(), self.inline_len())
        };
        // SAFETY: the bytes are initialized and live as long as the entry, and by the caller's promise nothing else
        // refers to them.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    #[inline]
    pub(in crate::types) fn is_big_packed(self) -> bool {
        self.header().is_big_packed()
    }

    /// [`Blob::splice`] of a packed collection in an allocation of its own. Afterwards the bytes of the range are
    /// unspecified.
    ///
    /// # Safety
    /// The value is such a collection, and nothing else refers to it.
    pub(in crate::types) unsafe fn splice_big(
        self,
        range: Range<usize>,
        len: usize,
        outside: &mut OutsideBytes,
    ) {
        // SAFETY: the parts are used by the vector only until they are written back.
        unsafe {
            let mut bytes = self.take_outside(outside).into_vec();
            Blob::splice(&mut bytes, range, len);
            Self::put_outside(self.value_at(), BigString::from_grown_vec(bytes), outside);
        }
    }

    /// [`Blob::splice`] of a packed collection within its entry. `None`, and nothing is changed, if its cell has no room for
    /// the result.
    ///
    /// # Safety
    /// The value is such a collection, and nothing else refers to it for 'a.
    #[inline]
    pub(in crate::types) unsafe fn splice_inline<'a>(
        self,
        range: &Range<usize>,
        len: usize,
    ) -> Option<&'a mut [u8]> {
        let header = self.header();
        let (key_len, old_len) = (self.key_len(), self.inline_len());
        assert!(range.start <= range.end && range.end <= old_len, "{range:?} of {old_len} bytes");
        let new_len = old_len - range.len() + len;
        let value_at = header.key_at() + key_len;
        let has_room = fits_inline(key_len, new_len)
            && header.has_room_for_len(new_len)
            && rounded(value_at + old_len) == rounded(value_at + new_len);
        if !has_room {
            return None;
        }
        // SAFETY: the cell is as long as its rounded length, which stays the same, so both places of the bytes after the
        // range are within it, and so are the bytes in between.
        unsafe {
            let value = self.at(value_at);
            self.write_len(header.value_len_at(), header.value_width(), new_len);
            value.add(range.start + len).copy_from(value.add(range.end), old_len - range.end);
            Some(std::slice::from_raw_parts_mut(value.add(range.start), len))
        }
    }

    /// The body of a packed collection whose `range` is replaced by `len` bytes, to be written to another cell. It
    /// borrows from this entry.
    pub(in crate::types) fn spliced_body<'a>(
        self,
        kind: PackedKind,
        range: Range<usize>,
        len: usize,
    ) -> Body<'a> {
        let bytes = self.inline_bytes();
        let (before, after) = (&bytes[..range.start], &bytes[range.end..]);
        if fits_inline(self.key_len(), before.len() + len + after.len()) {
            return Body::Spliced { kind, before, gap: len, after };
        }
        let mut all = bytes.to_vec();
        Blob::splice(&mut all, range, len);
        Body::Big(Kind::BigPacked(kind), BigString::from_grown_vec(all))
    }
}
