//! Lazy freeing: the memory of keys that FLUSHALL ASYNC removes, and of every value that takes long to free, is freed
//! after the reply, one slice a turn.
//!
//! Redis hands this to another thread. Here the thread that allocated the memory frees it, because its allocator caches
//! it and accounts for it. A slice is short enough not to delay commands noticeably.

use super::Shard;
use crate::types::DetachedTable;
use std::collections::VecDeque;

/// Entries whose memory is freed in one turn.
const SLICE_ENTRIES: usize = 256;

/// How many entries of a database FLUSHALL SYNC frees before its reply. The rest is freed in slices, so that other
/// clients do not wait longer than that.
const NOW_ENTRIES_MAX: usize = 64 * SLICE_ENTRIES;

/// When memory is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freeing {
    Now,
    Later,
}

/// The tables that are still to be freed, and how many keys each counts for in INFO's lazyfree fields.
#[derive(Default)]
pub struct LazyFree {
    tables: VecDeque<(DetachedTable, u64)>,
    /// Whether a table had garbage at the end of the last turn.
    pub(super) has_garbage: bool,
}

impl LazyFree {
    /// Frees a table in slices. It counts as so many pending objects until then.
    pub(super) fn free_later(&mut self, table: DetachedTable, key_count: u64) {
        self.tables.push_back((table, key_count));
    }
}

impl Shard {
    /// Removes all keys of all databases. Returns how many there were. Does not count as a change.
    pub fn flush_all(&mut self, freeing: Freeing) -> u64 {
        self.track_replaced();
        self.forget_local_expires();
        (0..self.db_count() as u32).map(|db| self.empty_db(db, freeing)).sum()
    }

    /// The same for a database.
    pub fn flush_db(&mut self, db: u32, freeing: Freeing) -> u64 {
        self.track_replaced();
        self.empty_db(db, freeing)
    }

    fn empty_db(&mut self, db: u32, freeing: Freeing) -> u64 {
        self.will_replace(db, None);
        let number = db;
        let db = &mut self.dbs[db as usize];
        let key_count = db.table().len() as u64;
        let detached = db.detach();
        self.free_detached(detached, key_count, freeing);
        self.signal_all(number);
        key_count
    }

    /// Frees what was in a database, or, if a snapshot has not saved it yet, has it freed when that is done.
    pub(super) fn free_detached(&mut self, detached: DetachedTable, key_count: u64, freeing: Freeing) {
        let counted = if freeing == Freeing::Later { key_count } else { 0 };
        self.stats.lazyfree_pending_objects.add(counted);
        if let Err(mut detached) = self.keep_for_snapshot(detached, counted) {
            match freeing {
                Freeing::Later if key_count > 0 => self.lazyfree.free_later(detached, counted),
                Freeing::Later => {}
                Freeing::Now => {
                    if !detached.free_some(NOW_ENTRIES_MAX) {
                        self.lazyfree.free_later(detached, counted);
                    }
                }
            }
        }
    }

    /// Whether there is memory left to free.
    #[inline]
    pub fn is_freeing(&self) -> bool {
        !self.lazyfree.tables.is_empty() || self.lazyfree.has_garbage
    }

    /// Frees removed values up to a cost of `budget`: see [`Table::free_garbage`](crate::types::Table::free_garbage). Returns
    /// whether there were any.
    pub fn free_garbage(&mut self, budget: usize) -> bool {
        let Some(db) = self.dbs.iter_mut().find(|db| db.garbage_len() > 0) else { return false };
        let before = db.garbage_len();
        db.free_garbage(budget);
        self.stats.lazyfreed_objects.add((before - db.garbage_len()) as u64);
        true
    }

    /// Frees a slice of that memory.
    pub fn free_slice(&mut self) {
        if self.free_garbage(SLICE_ENTRIES) {
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
