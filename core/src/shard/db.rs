//! A numbered database (SELECT) of one shard: its table, and the only way to change it.
//!
//! The [table](Db::table) may be read freely. Code that changes an entry goes through [`Db::before_change`], or looks
//! the entry up with [`Db::live_mut`] and calls [`EntryMut::will_change`]: at this point before the change a snapshot
//! can save the present entry. Afterwards it notifies the key's observers and calls [`Db::mark_signalled`]: builds
//! with debug assertions check after each command that this was not forgotten. Commands leave both to
//! [`change`](super::change). Besides it, only [`checkout`](super::checkout), which moves entries without changing
//! them, and [`expire`](super::expire), which removes expired ones, change the table.

use crate::types::table::{EntryWriter, Found, Live, SavedElsewhere, TableSnapshot};
use crate::types::{DetachedTable, Entry, EntryMut, ExpireProgress, NewValue, OwnedEntry, SetExpire, Table};
use std::num::NonZeroU16;
use std::ops::{Deref, Index, IndexMut};

/// A shard's databases. It is known which may hold something: most clients use the first one alone, and what is done in
/// every turn is not done for the others.
#[derive(Default)]
pub(super) struct Databases {
    all: Vec<Db>,
    /// Those from this number on have never been changed.
    used_len: usize,
}

impl Databases {
    pub(super) fn new(count: u32) -> Databases {
        Databases { all: (0..count).map(Db::new).collect(), used_len: 0 }
    }

    /// The first ones, up to the last that has ever been changed.
    #[inline]
    pub(super) fn used(&self) -> &[Db] {
        debug_assert!(self.all[self.used_len..].iter().all(Db::is_unused));
        &self.all[..self.used_len]
    }

    /// A database for a look-up, which adds nothing to it.
    #[inline(always)]
    pub(super) fn for_lookup(&mut self, number: usize) -> &mut Db {
        &mut self.all[number]
    }

    /// All of them, to take something from each, or to set it up.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Db> {
        self.all.iter_mut()
    }

    pub(super) fn into_all(self) -> Vec<Db> {
        self.all
    }

    pub(super) fn swap(&mut self, first: usize, second: usize) {
        self.used_len = self.used_len.max(first + 1).max(second + 1);
        self.all.swap(first, second);
    }
}

impl Deref for Databases {
    type Target = [Db];

    #[inline]
    fn deref(&self) -> &[Db] {
        &self.all
    }
}

impl Index<usize> for Databases {
    type Output = Db;

    #[inline]
    fn index(&self, number: usize) -> &Db {
        &self.all[number]
    }
}

impl IndexMut<usize> for Databases {
    #[inline]
    fn index_mut(&mut self, number: usize) -> &mut Db {
        self.used_len = self.used_len.max(number + 1);
        &mut self.all[number]
    }
}

/// A database. See the module's documentation.
pub(super) struct Db {
    table: Table,
    /// Estimated mean time to live of its keys with an expiry, in milliseconds.
    pub(super) avg_ttl_ms: u64,
    /// How many of its entries are checked out to other shards.
    pub(super) checked_out_len: usize,
    /// How many more keys than before suspended programs have made of it; they count only after their ends.
    pub(super) hidden_len: isize,
}

impl Db {
    pub(super) fn new(number: u32) -> Db {
        let mut db = Db { table: Table::new(), avg_ttl_ms: 0, checked_out_len: 0, hidden_len: 0 };
        db.set_number(number);
        db
    }

    /// Whether nothing has ever been put into it.
    fn is_unused(&self) -> bool {
        self.len() == 0 && self.garbage_len() == 0 && self.table.memory().free() == 0
    }

    /// Sets its number, which SWAPDB changes.
    pub(super) fn set_number(&mut self, number: u32) {
        self.table.set_number(number);
    }

    #[inline]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// How many keys it has, including those that are checked out, and as if suspended programs had not begun.
    pub(super) fn len(&self) -> usize {
        (self.table.len() + self.checked_out_len).saturating_add_signed(-self.hidden_len)
    }

    #[inline(always)]
    pub(super) fn live(&mut self, hash: u64, key: &[u8], now_ms: i64, remove: bool) -> Live<Entry<'_>> {
        self.table.live(hash, key, now_ms, remove)
    }

    /// As [`Db::live`], for changes: the caller calls [`EntryMut::will_change`] before it changes the entry.
    #[inline(always)]
    pub(super) fn live_mut(
        &mut self,
        hash: u64,
        key: &[u8],
        now_ms: i64,
        remove: bool,
    ) -> Live<EntryMut<'_>> {
        self.table.live_mut(hash, key, now_ms, remove)
    }

    /// [`Table::get_or_add`]. The caller calls [`EntryMut::will_change`] before it changes an entry that existed.
    #[inline]
    pub(super) fn get_or_add<'v>(
        &mut self,
        hash: u64,
        key: &[u8],
        now_ms: i64,
        new: impl FnOnce() -> NewValue<'v>,
    ) -> (EntryMut<'_>, Found) {
        self.table.get_or_add(hash, key, now_ms, new)
    }

    /// The key of this hash is about to be added, changed or removed.
    #[inline]
    pub(super) fn before_change(&mut self, hash: u64) -> &mut Table {
        self.table.will_change(hash);
        &mut self.table
    }

    /// Adds a key that does not exist.
    #[inline]
    pub(super) fn add(&mut self, hash: u64, key: &[u8], value: NewValue<'_>, expire: SetExpire) {
        self.before_change(hash).add(hash, key, value, expire);
    }

    /// Puts an entry in, and replaces the present one of its key.
    pub(super) fn put(&mut self, hash: u64, entry: OwnedEntry) {
        self.before_change(hash).put(hash, entry);
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) {
        self.before_change(hash).remove(hash, key);
    }

    /// Removes a key to make room: see [`Table::evict`].
    pub(super) fn evict(&mut self, hash: u64, key: &[u8]) {
        self.before_change(hash).evict(hash, key);
    }

    /// Takes an entry out, whether it has expired or not: see [`Table::take`].
    pub(super) fn take(
        &mut self,
        hash: u64,
        key: &[u8],
    ) -> Option<(OwnedEntry, Option<Box<SavedElsewhere>>)> {
        self.before_change(hash).take(hash, key)
    }

    /// Puts in what [`Db::take`] has taken out, of this database or another one.
    pub(super) fn put_taken(&mut self, hash: u64, entry: OwnedEntry, saved: Option<Box<SavedElsewhere>>) {
        let key = saved.is_some().then(|| entry.key.clone());
        self.put(hash, entry);
        if let (Some(saved), Some(key)) = (saved, key) {
            self.table.take_record_over(*saved, hash, &key);
        }
    }

    /// Takes all entries out.
    pub(super) fn detach(&mut self) -> DetachedTable {
        self.avg_ttl_ms = 0;
        self.table.detach()
    }

    /// The observers of the last changes have been notified.
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

    /// Sets the access bits of new entries.
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

    /// [`Table::begin_snapshot`], if there are keys.
    pub(super) fn begin_snapshot(
        &mut self,
        version: NonZeroU16,
        writer: impl FnOnce() -> Box<dyn EntryWriter>,
    ) {
        if !self.table.is_empty() {
            self.table.begin_snapshot(version, writer());
        }
    }

    /// [`Table::walk_snapshot`].
    pub(super) fn walk_snapshot(&mut self, is_over: &mut dyn FnMut() -> bool) -> bool {
        self.table.walk_snapshot(is_over)
    }

    /// For the values that are not completely saved.
    pub(super) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// [`Table::snapshot_mut`].
    pub(super) fn snapshot_mut(&mut self) -> Option<&mut TableSnapshot> {
        self.table.snapshot_mut()
    }

    /// [`Table::end_snapshot`].
    pub(super) fn end_snapshot(&mut self) {
        self.table.end_snapshot();
    }

    /// [`Table::reset_versions`].
    pub(super) fn reset_versions(&mut self) {
        self.table.reset_versions();
    }

    pub(super) fn take_growth(&mut self) -> bool {
        self.table.take_growth()
    }

    pub(super) fn back_by_huge_page(&mut self) -> bool {
        self.table.back_by_huge_page()
    }
}
