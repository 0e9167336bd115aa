//! Looking up what is there and alive.

use super::{Entry, EntryMut, Table};

/// What a look-up found, an [`Entry`] or an [`EntryMut`].
pub enum Live<E> {
    Entry(E),
    /// Its time is up; `removed`: and it is gone now.
    Expired {
        removed: bool,
    },
    Missing,
}

impl<E> Live<E> {
    /// Whether the look-up removed the key.
    pub fn is_removed(&self) -> bool {
        matches!(self, Live::Expired { removed: true })
    }
}

impl Table {
    /// Looks a key up at `now_ms` (unix time). A key whose expiry lies before that is not there any more, and is
    /// removed if `remove`.
    #[inline]
    pub fn live(&mut self, hash: u64, key: &[u8], now_ms: i64, remove: bool) -> Live<Entry<'_>> {
        if self.directory.is_empty() {
            return Live::Missing;
        }
        // SAFETY: the directory's segments are live.
        let Some(entry) = (unsafe { (*self.directory.segment(hash)).find(hash, key) }) else {
            return Live::Missing;
        };
        if entry.expire_at_ms().is_some_and(|at_ms| now_ms > at_ms) {
            if remove {
                self.remove(hash, key);
            }
            return Live::Expired { removed: remove };
        }
        Live::Entry(Entry::new(entry))
    }

    /// As [`Table::live`], to change what is found.
    #[inline]
    pub fn live_mut(&mut self, hash: u64, key: &[u8], now_ms: i64, remove: bool) -> Live<EntryMut<'_>> {
        let Some(entry) = self.get_mut(hash, key) else { return Live::Missing };
        if entry.expire_at_ms().is_some_and(|at_ms| now_ms > at_ms) {
            if remove {
                entry.table.remove(hash, key);
            }
            return Live::Expired { removed: remove };
        }
        Live::Entry(entry)
    }
}
