//! Look-ups that treat expired keys as missing.

use super::{Entry, EntryMut, Table};

/// The outcome of a look-up; `E` is an [`Entry`] or an [`EntryMut`].
pub enum Live<E> {
    Entry(E),
    /// The key has expired. `removed`: the look-up has removed it.
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
    /// The last write need not be accounted for by [`Table::take_writes`]: the look-up's result reports it.
    #[inline]
    pub(super) fn reported(&mut self) {
        #[cfg(debug_assertions)]
        {
            self.writes -= 1;
        }
    }

    /// Looks a key up at `now_ms` (unix time). A key whose expiry lies before that counts as missing, and is removed if
    /// `remove`.
    #[inline(always)]
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
                self.remove_expired(hash, key);
            }
            return Live::Expired { removed: remove };
        }
        Live::Entry(entry)
    }

    #[cold]
    fn remove_expired(&mut self, hash: u64, key: &[u8]) {
        self.will_change(hash);
        self.remove(hash, key);
        self.reported();
    }

    /// As [`Table::live`], for changing the entry. Inline, because an [`EntryMut`] is too big to be handed over.
    #[inline(always)]
    pub fn live_mut(&mut self, hash: u64, key: &[u8], now_ms: i64, remove: bool) -> Live<EntryMut<'_>> {
        let Some(entry) = self.get_mut(hash, key) else { return Live::Missing };
        if entry.entry().is_expired(now_ms) {
            if remove {
                remove_expired(entry);
            }
            return Live::Expired { removed: remove };
        }
        Live::Entry(entry)
    }
}

#[cold]
fn remove_expired(mut entry: EntryMut<'_>) {
    entry.will_change();
    entry.remove().reported();
}
