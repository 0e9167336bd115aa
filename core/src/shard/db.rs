//! A numbered database (SELECT) of one shard: its table, and the only way to change it.
//!
//! Everybody may read the [table](Db::table). Who changes an entry comes by [`Db::before_change`], or has looked it up with
//! [`Db::live_mut`] and says [`EntryMut::will_change`]: that is the point before a change, where a snapshot can save what
//! is there. And it says that it has told those who must know of it ([`Db::mark_signalled`]): builds with debug assertions check
//! behind each command that nobody forgot. Both are the business of [`change`](super::change), which is the door for
//! commands; what moves entries without changing them ([`checkout`](super::checkout)) and what removes those whose time is
//! up ([`expire`](super::expire)) stand beside it.

use crate::types::table::Live;
use crate::types::{DetachedTable, Entry, EntryMut, ExpireProgress, NewValue, OwnedEntry, SetExpire, Table};

/// A database. See the module's documentation.
pub(super) struct Db {
    table: Table,
    /// Estimated mean time to live of its volatile keys, in milliseconds.
    pub(super) avg_ttl_ms: u64,
    /// How many of its entries are checked out to other shards.
    pub(super) checked_out_len: usize,
}

impl Db {
    pub(super) fn new() -> Db {
        Db { table: Table::new(), avg_ttl_ms: 0, checked_out_len: 0 }
    }

    #[inline]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// How many keys it has, those included that are checked out.
    pub(super) fn len(&self) -> usize {
        self.table.len() + self.checked_out_len
    }

    #[inline]
    pub(super) fn live(&mut self, hash: u64, key: &[u8], now_ms: i64, remove: bool) -> Live<Entry<'_>> {
        self.table.live(hash, key, now_ms, remove)
    }

    /// As [`Db::live`], to change what is found: who does says [`EntryMut::will_change`] before.
    #[inline]
    pub(super) fn live_mut(
        &mut self,
        hash: u64,
        key: &[u8],
        now_ms: i64,
        remove: bool,
    ) -> Live<EntryMut<'_>> {
        self.table.live_mut(hash, key, now_ms, remove)
    }

    /// The key of this hash is about to be added, changed or removed.
    #[inline]
    fn before_change(&mut self, hash: u64) -> &mut Table {
        self.table.will_change(hash);
        &mut self.table
    }

    /// Adds a key that is not there.
    #[inline]
    pub(super) fn add(&mut self, hash: u64, key: &[u8], value: NewValue<'_>, expire: SetExpire) {
        self.before_change(hash).add(hash, key, value, expire);
    }

    /// Puts an entry in, in place of the one of its key.
    pub(super) fn put(&mut self, hash: u64, entry: OwnedEntry) {
        self.before_change(hash).put(hash, entry);
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) {
        self.before_change(hash).remove(hash, key);
    }

    /// Takes an entry out, be its time up or not.
    pub(super) fn take(&mut self, hash: u64, key: &[u8]) -> Option<OwnedEntry> {
        self.before_change(hash).take(hash, key)
    }

    /// Takes all entries out.
    pub(super) fn detach(&mut self) -> DetachedTable {
        self.avg_ttl_ms = 0;
        self.table.detach()
    }

    /// Those who must know of the last changes know.
    #[inline]
    pub(super) fn mark_signalled(&mut self) {
        self.table.take_writes();
    }

    /// [`Table::expire_due`].
    pub(super) fn expire_due(
        &mut self,
        now_ms: i64,
        limit: usize,
        due: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> ExpireProgress {
        self.table.expire_due(now_ms, limit, due)
    }

    /// What entries to come store as their last access.
    pub(super) fn set_new_access(&mut self, access: u32, overwrite_keeps: bool) {
        self.table.set_new_access(access, overwrite_keeps);
    }

    /// [`Table::garbage_len`].
    #[inline]
    pub(super) fn garbage_len(&self) -> usize {
        self.table.garbage_len()
    }

    /// [`Table::free_garbage`].
    pub(super) fn free_garbage(&mut self, budget: usize) {
        self.table.free_garbage(budget);
    }

    pub(super) fn take_growth(&mut self) -> bool {
        self.table.take_growth()
    }

    pub(super) fn back_by_huge_page(&mut self) -> bool {
        self.table.back_by_huge_page()
    }
}
