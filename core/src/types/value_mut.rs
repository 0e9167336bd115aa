//! ValueMut: a value that is changed in place.
//!
//! A family of commands asks which form the value has ([`ValueMut::value`]), and changes a packed collection as a
//! [`Blob`] ([`ValueMut::packed`]) or an object through [`ValueMut::object`]. The entry moves to another cell, and the
//! packed bytes to an allocation of their own, whenever their length demands it. [`ValueMut::set`] replaces the value
//! by another form.

use std::ops::{Deref, DerefMut, Range};

use super::blob::Blob;
use super::entry::{NewValue, OutsideBytes, ValueRef};
use super::object::{Collection, Object};
use super::table::EntryMut;

/// A value that is being changed. See the module's documentation.
pub struct ValueMut<'b, 'a> {
    entry: &'b mut EntryMut<'a>,
}

impl<'b, 'a> ValueMut<'b, 'a> {
    /// The caller has called [`EntryMut::will_change`].
    #[inline]
    pub fn new(entry: &'b mut EntryMut<'a>) -> ValueMut<'b, 'a> {
        ValueMut { entry }
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        self.entry.value()
    }

    /// The bytes of a packed collection.
    ///
    /// # Panics
    /// The value is none.
    #[inline]
    pub fn packed(&mut self) -> PackedMut<'_, 'a> {
        assert!(self.entry.is_packed(), "the caller has seen a packed collection");
        PackedMut { entry: self.entry }
    }

    /// The object, whose memory is counted anew when the result is dropped.
    ///
    /// # Panics
    /// The value is none.
    #[inline]
    pub fn object(&mut self) -> ObjectMut<'_> {
        self.entry.object_mut()
    }

    /// Replaces the value and keeps the expiry.
    pub fn set(&mut self, value: NewValue<'_>) {
        self.entry.set(value);
    }
}

/// A packed collection that is being changed.
pub struct PackedMut<'b, 'a> {
    entry: &'b mut EntryMut<'a>,
}

impl Blob for PackedMut<'_, '_> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.entry.packed_bytes()
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.entry.packed_bytes_mut()
    }

    #[inline]
    fn splice(&mut self, range: Range<usize>, len: usize) -> &mut [u8] {
        self.entry.splice_packed(range, len)
    }
}

/// An object that is being changed.
pub struct ObjectMut<'b> {
    object: &'b mut Object,
    /// The bytes it is counted with at present.
    counted: usize,
    outside: &'b mut OutsideBytes,
}

impl<'b> ObjectMut<'b> {
    pub(super) fn new(object: &'b mut Object, outside: &'b mut OutsideBytes) -> ObjectMut<'b> {
        ObjectMut { counted: object.heap_bytes(), object, outside }
    }
}

impl Deref for ObjectMut<'_> {
    type Target = Object;

    #[inline]
    fn deref(&self) -> &Object {
        self.object
    }
}

impl DerefMut for ObjectMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Object {
        self.object
    }
}

impl Drop for ObjectMut<'_> {
    fn drop(&mut self) {
        self.outside.recount(self.counted, self.object.heap_bytes());
    }
}
