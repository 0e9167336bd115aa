//! Collections that change in place, for [`ValueMut`](crate::types::ValueMut), and the look-up that adds an empty one.

use std::ops::Range;

use super::{Entry, EntryMut, SetExpire, Table};
use crate::types::entry::NewValue;
use crate::types::value_mut::ObjectMut;

/// Whether a look-up found its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Existing,
    Added,
    /// The key had expired: it was removed, and added anew.
    AddedAfterExpiry,
}

impl EntryMut<'_> {
    #[inline]
    pub(in crate::types) fn is_packed(&self) -> bool {
        self.ptr.is_packed()
    }

    /// The bytes of a packed collection.
    #[inline]
    pub(in crate::types) fn packed_bytes(&self) -> &[u8] {
        debug_assert!(self.is_packed());
        self.ptr.packed_bytes()
    }

    /// The bytes of a packed collection, mutable.
    #[inline]
    pub(in crate::types) fn packed_bytes_mut(&mut self) -> &mut [u8] {
        debug_assert!(self.is_packed());
        self.table.record_write(self.hash);
        // SAFETY: the callers have seen a packed collection, and the table is borrowed exclusively for the result's
        // lifetime.
        unsafe { self.ptr.packed_mut() }
    }

    /// Replaces `range` of a packed collection by `len` bytes, and returns these to be written. The entry moves to another
    /// cell if it has to.
    #[inline]
    pub(in crate::types) fn splice_packed(&mut self, range: Range<usize>, len: usize) -> &mut [u8] {
        if range.len() == len {
            return &mut self.packed_bytes_mut()[range];
        }
        let start = range.start;
        if self.ptr.is_big_packed() {
            // SAFETY: that is the kind of the value, and the table is borrowed exclusively.
            unsafe { self.ptr.splice_big(range, len, &mut self.table.outside) };
            return &mut self.packed_bytes_mut()[start..start + len];
        }
        // SAFETY: the callers have seen a packed collection, and the other kind was excluded; the table is borrowed
        // exclusively for the result's lifetime.
        if let Some(bytes) = unsafe { self.ptr.splice_inline(&range, len) } {
            self.table.record_write(self.hash);
            return bytes;
        }
        self.move_spliced(range, len);
        &mut self.packed_bytes_mut()[start..start + len]
    }

    fn move_spliced(&mut self, range: Range<usize>, len: usize) {
        let kind = self.ptr.packed_kind().expect("the callers have seen a packed collection");
        let body = self.ptr.spliced_body(kind, range, len);
        // SAFETY: an inline value points at nothing.
        unsafe { self.relocate(body, self.ptr.expire_at_ms()) };
    }

    /// The object that the value is.
    ///
    /// # Panics
    /// It is none.
    #[inline]
    pub(in crate::types) fn object_mut(&mut self) -> ObjectMut<'_> {
        assert!(self.ptr.is_object(), "the caller has seen an object");
        self.table.record_write(self.hash);
        // SAFETY: the entry owns the object, and the table is borrowed exclusively for the result's lifetime.
        let object = unsafe { &mut *self.ptr.object_ptr() };
        ObjectMut::new(object, &mut self.table.outside)
    }
}

impl Table {
    /// Looks a key up at `now_ms` (unix time), and adds it with the value that `new` makes if it does not exist or has
    /// expired.
    #[inline]
    pub fn get_or_add<'v>(
        &mut self,
        hash: u64,
        key: &[u8],
        now_ms: i64,
        new: impl FnOnce() -> NewValue<'v>,
    ) -> (EntryMut<'_>, Found) {
        let found = match self.locate(hash, key) {
            Some((segment, place, ptr)) if !Entry::new(ptr).is_expired(now_ms) => {
                return (EntryMut { table: self, segment, place, hash, ptr }, Found::Existing);
            }
            Some((segment, place, ptr)) => {
                let mut entry = EntryMut { table: self, segment, place, hash, ptr };
                entry.will_change();
                entry.remove().reported();
                Found::AddedAfterExpiry
            }
            None => Found::Added,
        };
        self.will_change(hash);
        self.add(hash, key, new(), SetExpire::Clear);
        (self.get_mut(hash, key).expect("it was added"), found)
    }
}
