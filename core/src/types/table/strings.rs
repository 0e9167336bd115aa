//! Strings that change in place: APPEND, SETRANGE, SETBIT and the like.

use super::super::entry::{Body, ValueRef};
use super::EntryMut;
use std::ops::Range;

impl EntryMut<'_> {
    /// The value as a mutable string of which a range will be changed, zero-padded to at least `len_min`. Its encoding is
    /// `raw` from here on, an integer becomes its digits, and the expiry is kept. O(1) amortised over the bytes added.
    ///
    /// # Panics
    /// The value is a collection.
    pub fn string_mut(&mut self, len_min: usize, changed: Range<usize>) -> &mut [u8] {
        self.table.record_write(self.hash);
        if self.ptr.is_big() {
            if self.table.is_in_snapshot()
                && let ValueRef::Str(bytes) = self.ptr.value()
            {
                self.table.keep_text(self.ptr.key(), bytes, changed);
            }
            // SAFETY: the value is a big string, and the table is borrowed exclusively for the result's lifetime.
            return unsafe { self.ptr.big_mut(len_min, &mut self.table.outside) };
        }
        let mut digits = itoa::Buffer::new();
        let old = match self.ptr.value() {
            ValueRef::Int(number) => digits.format(number).as_bytes(),
            ValueRef::Str(bytes) => {
                // SAFETY: the value is an inline string, and the table is borrowed exclusively for the result's
                // lifetime; `bytes` is used only if there was no room.
                if let Some(bytes) = unsafe { self.ptr.inline_mut(len_min) } {
                    return bytes;
                }
                bytes
            }
            ValueRef::Packed(..) | ValueRef::Object(_) => unreachable!("the caller has seen a string"),
        };
        let body = Body::grown(self.ptr.key().len(), old, old.len().max(len_min));
        // SAFETY: the old value is an integer or an inline string, which point at nothing.
        unsafe { self.relocate(body, self.ptr.expire_at_ms()) };
        // SAFETY: the table is borrowed exclusively for the result's lifetime, and the value is of the kind that is
        // checked.
        unsafe {
            if self.ptr.is_big() {
                self.ptr.big_mut(0, &mut self.table.outside)
            } else {
                self.ptr.inline_mut(0).expect("a string always has room for itself")
            }
        }
    }
}
