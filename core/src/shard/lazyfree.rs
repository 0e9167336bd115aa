//! Lazy freeing: what FLUSHALL ASYNC removes gives its memory back afterwards, a slice a turn, and so does every value
//! that takes long to free, however it was removed.
//!
//! Redis hands it to another thread. Here memory stays with the thread that allocated it, whose allocator caches and
//! accounts for it; a slice is short enough that nobody waits for it.

use super::Shard;
use crate::types::DetachedTable;
use std::collections::VecDeque;

/// Entries whose memory is freed in one turn.
const SLICE_ENTRIES: usize = 256;

/// What is to be freed now is freed in slices, too, where it is more than so many entries: nobody else is to wait for it
/// longer.
const NOW_ENTRIES_MAX: usize = 64 * SLICE_ENTRIES;

/// When memory is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freeing {
    Now,
    Later,
}

/// The tables that are yet to be freed, and how many keys each counts in INFO's lazy freeing.
#[derive(Default)]
pub struct LazyFree {
    tables: VecDeque<(DetachedTable, u64)>,
}

impl Shard {
    /// Removes all keys of a database. Returns how many there were. Counts no change.
    pub fn flush_db(&mut self, db: u32, freeing: Freeing) -> u64 {
        self.will_replace(db, None);
        let db = &mut self.dbs[db as usize];
        let key_count = db.table().len() as u64;
        let mut detached = db.detach();
        match freeing {
            Freeing::Later if key_count > 0 => {
                self.lazyfree.tables.push_back((detached, key_count));
                self.stats.lazyfree_pending_objects.add(key_count);
            }
            Freeing::Later => {}
            Freeing::Now => {
                if !detached.free_some(NOW_ENTRIES_MAX) {
                    self.lazyfree.tables.push_back((detached, 0));
                }
            }
        }
        key_count
    }

    /// Whether there is memory to be freed.
    #[inline]
    pub fn is_freeing(&self) -> bool {
        !self.lazyfree.tables.is_empty() || self.dbs.iter().any(|db| db.garbage_len() > 0)
    }

    /// Frees a slice of it.
    pub fn free_slice(&mut self) {
        if let Some(db) = self.dbs.iter_mut().find(|db| db.garbage_len() > 0) {
            db.free_garbage(SLICE_ENTRIES);
            return;
        }
        let Some((table, key_count)) = self.lazyfree.tables.front_mut() else { return };
        if table.free_some(SLICE_ENTRIES) {
            self.stats.lazyfree_pending_objects.set(self.stats.lazyfree_pending_objects.get() - *key_count);
            self.stats.lazyfreed_objects.add(*key_count);
            self.lazyfree.tables.pop_front();
        }
    }
}
