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
    /// The last write is told by the answer.
    #[inline]
    fn reported(&mut self) {
        #[cfg(debug_assertions)]
        {
            self.writes -= 1;
        }
    }

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
        let entry = Entry::new(entry);
        if entry.is_expired(now_ms) {
            if remove {
                self.will_change(hash);
                self.remove(hash, key);
                self.reported();
            }
            return Live::Expired { removed: remove };
        }
        Live::Entry(entry)
    }

    /// As [`Table::live`], to change what is found.
    #[inline]
    pub fn live_mut(&mut self, hash: u64, key: &[u8], now_ms: i64, remove: bool) -> Live<EntryMut<'_>> {
        let Some(mut entry) = self.get_mut(hash, key) else { return Live::Missing };
        if entry.entry().is_expired(now_ms) {
            if remove {
                entry.will_change();
                entry.remove().reported();
            }
            return Live::Expired { removed: remove };
        }
        Live::Entry(entry)
    }
}
