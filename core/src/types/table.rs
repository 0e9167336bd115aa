//! Table: one numbered database of one shard.
//!
//! ```text
//! Directory --> Segment (4 KiB, some 350 entries) --> entry (one allocation in the table's Slab)
//! ```
//!
//! The table grows by splitting one segment of 4 KiB in two, and shrinks by merging two, so no operation ever moves
//! more than a segment's entries, and there is never a second table to look into, as during Redis' rehashing.
//!
//! *Load.* A segment splits when an insertion finds no room, at about .95, and its halves start at half of that. As
//! hashes are slanted (see `hashing`), segments are in all stages between at any time, and the load of the whole table
//! stays near its mean of .69 whatever the number of keys.
//!
//! *Versions.* While a snapshot is taken, a home bucket (see `segment`) is stamped with the snapshot's version when its
//! entries are saved: at the latest before its first change, for which [`Table::will_change`] must be called. See
//! `snapshot`.
//!
//! *Access.* The 24 bits of an entry that LRU and LFU use are kept here and interpreted by the shard. They can be
//! written through a shared [`Entry`]: a GET that updates its key's clock is still a read.

mod collections;
mod expire;
mod live;
mod prefetch;
mod sample;
mod scan;
mod snapshot;
mod strings;

pub use collections::Found;
pub use live::Live;
pub use sample::{Sample, Sampled};

use std::marker::PhantomData;

use super::directory::Directory;
use super::entry::{
    Body, Encoding, EntryPtr, NewValue, OutsideBytes, OwnedEntry, OwnedValue, Shape, ValueRef,
};
use super::garbage::{BYTES_PER_COST, Garbage};
use super::hashing::hash_key;
use super::module::KeyPlace;
use super::object::Object;
use super::segment::{NEVER, Place, SEGMENT_SLOTS, Segment, home_of};
use super::slab::{CHUNK_LEN, Slab, rounded};

pub use expire::ExpireProgress;
pub use prefetch::Prefetches;
pub use scan::SCAN_CURSOR_BITS;
pub use snapshot::{EntryWriter, Saved, SavedElsewhere, TableSnapshot};

/// A segment that has shrunk to this length tries to merge with its buddy,
const MERGE_TRY_LEN: usize = SEGMENT_SLOTS / 4;
/// which it does if both together leave enough room to grow before the next split.
const MERGE_LEN_MAX: usize = SEGMENT_SLOTS / 2;
/// The attempt is made at one in so many removals only, because looking at the buddy costs a cache miss.
const MERGE_TRY_EVERY: usize = 8;

const _: () = assert!(MERGE_TRY_LEN * 2 <= MERGE_LEN_MAX && MERGE_LEN_MAX < SEGMENT_SLOTS * 3 / 4);

/// A keyspace. See the module's documentation.
pub struct Table {
    directory: Directory,
    slab: Slab,
    len: usize,
    expires_len: usize,
    /// Bytes that values own outside of their entries.
    outside: OutsideBytes,
    /// Removed values that take long to free.
    garbage: Garbage,
    /// Lower bound of the first expiry, or NEVER.
    next_expiry_ms: i64,
    /// The time of the last expiry cycle; the marks of new segments count from it.
    last_now_ms: i64,
    /// The hash at which the expiry cycle continues.
    expire_cursor: u64,
    /// The version of the snapshot that is under way, or 0.
    snapshot_version: u16,
    snapshot: Option<Box<TableSnapshot>>,
    new_access: u32,
    overwrite_keeps_access: bool,
    /// The database's number, which modules are told.
    number: u32,
    /// Writes that were not accounted for yet: see [`Table::take_writes`].
    #[cfg(debug_assertions)]
    writes: u64,
}

/// How the expiry of a key changes when its value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpire {
    Keep,
    Clear,
    /// Unix time in milliseconds.
    At(i64),
}

/// Bytes that a table has from the global allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableMemory {
    /// The index's upper levels.
    pub directory: usize,
    /// The index's lower level; a part of `slab`.
    pub segments: usize,
    /// Entries in use; a part of `slab`.
    pub entries: usize,
    /// What the allocator of entries and segments holds, used or free.
    pub slab: usize,
    /// What values own outside of their entries: strings too big to be inline.
    pub external: usize,
}

impl TableMemory {
    pub fn total(&self) -> usize {
        self.directory + self.slab + self.external
    }

    /// Room for more entries.
    pub fn free(&self) -> usize {
        self.slab - self.entries - self.segments
    }

    /// By which entries are found: what is neither an entry nor room for one.
    pub fn index(&self) -> usize {
        self.directory + self.segments
    }
}

/// A key and its value, borrowed from a table.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    ptr: EntryPtr,
    table: PhantomData<&'a Table>,
}

impl<'a> Entry<'a> {
    /// The table must be borrowed for 'a, and the entry be one of its.
    #[inline]
    fn new(ptr: EntryPtr) -> Self {
        Self { ptr, table: PhantomData }
    }

    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.ptr.key()
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'a> {
        self.ptr.value()
    }

    pub fn encoding(&self) -> Encoding {
        self.ptr.encoding()
    }

    /// Unix time in milliseconds.
    #[inline]
    pub fn expire_at_ms(&self) -> Option<i64> {
        self.ptr.expire_at_ms()
    }

    /// Whether it has expired at `now_ms` (unix time). A key still exists in the millisecond of its expiry.
    #[inline]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expire_at_ms().is_some_and(|at_ms| now_ms > at_ms)
    }

    /// The 24 bits of LRU or LFU.
    #[inline]
    pub fn access(&self) -> u32 {
        self.ptr.access()
    }

    /// Sets the 24 bits of LRU or LFU.
    #[inline]
    pub fn touch(&self, access: u32) {
        self.ptr.set_access(access);
    }

    /// Memory used by this key: its entry and what that points at, without its share of the index.
    pub fn alloc_size(&self) -> usize {
        rounded(self.ptr.len()) + self.ptr.outside_bytes()
    }
}

/// A key and its value that can be changed. Reading goes through [`EntryMut::entry`].
pub struct EntryMut<'a> {
    table: &'a mut Table,
    segment: *mut Segment,
    place: Place,
    hash: u64,
    ptr: EntryPtr,
}

impl<'a> EntryMut<'a> {
    #[inline]
    pub fn entry(&self) -> Entry<'_> {
        Entry::new(self.ptr)
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        self.ptr.key()
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        self.ptr.value()
    }

    #[inline]
    pub fn expire_at_ms(&self) -> Option<i64> {
        self.ptr.expire_at_ms()
    }

    #[inline]
    pub fn touch(&self, access: u32) {
        self.ptr.set_access(access);
    }

    /// Replaces the value by an integer and keeps the expiry.
    #[inline]
    pub fn set_int(&mut self, number: i64) {
        if self.ptr.overwrite_int(number) {
            self.table.record_write(self.hash);
            return;
        }
        self.set(NewValue::Int(number));
    }

    /// Replaces the value and keeps the expiry.
    pub fn set(&mut self, value: NewValue<'_>) {
        let at_ms = self.ptr.expire_at_ms();
        let mut keep = Vec::new();
        let body = Body::choose(value, self.ptr.key(), &mut keep);
        self.rewrite(body, at_ms, self.ptr.access());
    }

    /// Sets or clears the expiry.
    pub fn set_expire(&mut self, at_ms: Option<i64>) {
        match at_ms {
            Some(at_ms) if self.ptr.has_expire() => {
                self.ptr.overwrite_expire(at_ms);
                self.table.record_write(self.hash);
                self.table.record_expiry(self.hash, self.segment, at_ms);
            }
            None if !self.ptr.has_expire() => {}
            // SAFETY: the entry's own value is what moves to the new cell.
            _ => unsafe {
                let body = self.ptr.take_body(&mut self.table.outside);
                self.relocate(body, at_ms);
            },
        }
    }

    /// To be called before the entry is changed: see [`Table::will_change`].
    #[inline]
    pub fn will_change(&mut self) {
        self.table.will_change_at(self.segment, self.hash);
    }

    /// Whether nothing is left of a collection. A string is never empty in this sense.
    #[inline]
    pub fn is_emptied(&self) -> bool {
        self.ptr.is_emptied()
    }

    /// Replaces value, access bits and, unless it is [`SetExpire::Keep`], the expiry.
    #[inline(always)]
    pub fn overwrite(mut self, value: NewValue<'_>, expire: SetExpire, access: u32) {
        let at_ms = match expire {
            SetExpire::Keep => self.ptr.expire_at_ms(),
            SetExpire::Clear => None,
            SetExpire::At(at_ms) => Some(at_ms),
        };
        if let NewValue::Str(bytes) = value
            && self.ptr.overwrite_alike(bytes, access, at_ms)
        {
            self.table.record_write(self.hash);
            if let SetExpire::At(at_ms) = expire {
                self.table.record_expiry(self.hash, self.segment, at_ms);
            }
            return;
        }
        self.overwrite_unlike(value, at_ms, access);
    }

    /// Replaces the value by one of another length or kind.
    #[inline(never)]
    fn overwrite_unlike(&mut self, value: NewValue<'_>, expire_at_ms: Option<i64>, access: u32) {
        let mut keep = Vec::new();
        self.rewrite(Body::choose(value, self.ptr.key(), &mut keep), expire_at_ms, access);
    }

    /// Removes the entry. Returns its table.
    pub fn remove(self) -> &'a mut Table {
        let EntryMut { table, segment, place, hash, ptr } = self;
        // SAFETY: the segment is the table's, which is borrowed exclusively, and the entry is at that place.
        let entry = unsafe { (*segment).remove(home_of(hash), place) };
        debug_assert_eq!(entry.cell(), ptr.cell());
        table.forget(entry);
        table.record_write(hash);
        table.free_entry(entry);
        table.merge_if_small(hash);
        table
    }

    /// See [`Table::take_writes`].
    pub fn take_writes(&mut self) -> u64 {
        self.table.take_writes()
    }

    /// Rewrites the entry, in place if its size class stays the same. `body` must not lie in the entry.
    fn rewrite(&mut self, body: Body<'_>, expire_at_ms: Option<i64>, access: u32) {
        let old = self.ptr;
        let key = old.key();
        let shape = Shape::of(key.len(), &body, expire_at_ms.is_some());
        let old_len = old.len();
        let table = &mut *self.table;
        // SAFETY: the old value is read no more: the entry is overwritten or freed below.
        if let Some(value) = unsafe { old.take_garbage(&mut table.outside) } {
            table.discard(value, key);
        }
        if rounded(shape.len) == rounded(old_len) {
            // SAFETY: the cell has room, as both lengths round to the same; the old value was taken.
            unsafe { old.rewrite(&shape, access, expire_at_ms, body, &mut table.outside) };
        } else {
            let cell = table.slab.allocate(shape.len);
            // SAFETY: the new cell is of that length, the old entry is live until it is freed, and was allocated with
            // its length.
            unsafe {
                self.ptr = EntryPtr::write(cell, &shape, access, expire_at_ms, key, body, &mut table.outside);
                table.slab.free(old.cell(), old_len);
            }
        }
        self.replaced(expire_at_ms);
    }

    /// Updates the index after the entry was rewritten.
    #[inline]
    fn replaced(&mut self, expire_at_ms: Option<i64>) {
        // SAFETY: the segment is the table's, which is borrowed exclusively.
        let segment = unsafe { &mut *self.segment };
        let expires_change = segment.replace(self.place, self.ptr);
        self.table.expires_len = self.table.expires_len.wrapping_add_signed(expires_change);
        self.table.record_write(self.hash);
        if let Some(at_ms) = expire_at_ms {
            self.table.record_expiry(self.hash, self.segment, at_ms);
        }
    }

    /// Writes the entry to another cell. Unlike that of `rewrite`, the body may lie in the entry, or be its own.
    ///
    /// # Safety
    /// What the old value points at was taken, into this body or elsewhere.
    unsafe fn relocate(&mut self, body: Body<'_>, expire_at_ms: Option<i64>) {
        let old = self.ptr;
        let (key, old_len) = (old.key(), old.len());
        let shape = Shape::of(key.len(), &body, expire_at_ms.is_some());
        let (access, table) = (old.access(), &mut *self.table);
        let cell = table.slab.allocate(shape.len);
        // SAFETY: the new cell is of that length and apart from the old entry, which was allocated with its length.
        unsafe {
            self.ptr = EntryPtr::write(cell, &shape, access, expire_at_ms, key, body, &mut table.outside);
            table.slab.free(old.cell(), old_len);
        }
        self.replaced(expire_at_ms);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// An empty table, which has nothing allocated yet.
    pub const fn new() -> Self {
        Self {
            directory: Directory::new(),
            slab: Slab::new(),
            len: 0,
            expires_len: 0,
            outside: OutsideBytes::NONE,
            garbage: Garbage::new(),
            next_expiry_ms: NEVER,
            last_now_ms: 0,
            expire_cursor: 0,
            snapshot_version: 0,
            snapshot: None,
            new_access: 0,
            overwrite_keeps_access: false,
            number: 0,
            #[cfg(debug_assertions)]
            writes: 0,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keys that have a time to live.
    pub fn expires_len(&self) -> usize {
        self.expires_len
    }

    /// Sets the access bits that new entries get. With `overwrite_keeps` (for LFU) an overwritten key keeps its own.
    #[inline]
    pub fn set_new_access(&mut self, access: u32, overwrite_keeps: bool) {
        self.new_access = access;
        self.overwrite_keeps_access = overwrite_keeps;
    }

    /// Sets the database's number: 0 if it is not set.
    pub fn set_number(&mut self, number: u32) {
        self.number = number;
    }

    /// Looks a key up. `hash` is its [`hash_key`], here and everywhere.
    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<Entry<'_>> {
        debug_assert_eq!(hash, hash_key(key));
        if self.directory.is_empty() {
            return None;
        }
        // SAFETY: the directory's segments are live.
        unsafe { (*self.directory.segment(hash)).find(hash, key).map(Entry::new) }
    }

    #[inline(always)]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<EntryMut<'_>> {
        let (segment, place, ptr) = self.locate(hash, key)?;
        Some(EntryMut { table: self, segment, place, hash, ptr })
    }

    /// Where a key is, and its entry.
    #[inline(always)]
    fn locate(&self, hash: u64, key: &[u8]) -> Option<(*mut Segment, Place, EntryPtr)> {
        debug_assert_eq!(hash, hash_key(key));
        if self.directory.is_empty() {
            return None;
        }
        let segment = self.directory.segment(hash);
        // SAFETY: the directory's segments are live.
        unsafe {
            let place = (*segment).find_place(hash, key)?;
            Some((segment, place, (*segment).entry(place)))
        }
    }

    /// Sets the value of a key, whether it exists or not. Returns whether it is new.
    pub fn set(&mut self, hash: u64, key: &[u8], value: NewValue<'_>, expire: SetExpire) -> bool {
        let (new_access, overwrite_keeps) = (self.new_access, self.overwrite_keeps_access);
        if let Some(entry) = self.get_mut(hash, key) {
            let access = if overwrite_keeps { entry.ptr.access() } else { new_access };
            entry.overwrite(value, expire, access);
            return false;
        }
        self.add(hash, key, value, expire);
        true
    }

    /// Adds a key that does not exist.
    pub fn add(&mut self, hash: u64, key: &[u8], value: NewValue<'_>, expire: SetExpire) {
        let mut keep = Vec::new();
        let at_ms = match expire {
            SetExpire::Keep | SetExpire::Clear => None,
            SetExpire::At(at_ms) => Some(at_ms),
        };
        self.insert(hash, key, Body::choose(value, key, &mut keep), at_ms, self.new_access);
    }

    fn insert(&mut self, hash: u64, key: &[u8], body: Body<'_>, expire_at_ms: Option<i64>, access: u32) {
        let shape = Shape::of(key.len(), &body, expire_at_ms.is_some());
        let cell = self.slab.allocate(shape.len);
        // SAFETY: the cell is new and of that length.
        let entry =
            unsafe { EntryPtr::write(cell, &shape, access, expire_at_ms, key, body, &mut self.outside) };
        if self.directory.is_empty() {
            self.directory.start(Segment::new(self.snapshot_version, self.last_now_ms), &mut self.slab);
        }
        let segment = loop {
            let segment = self.directory.segment(hash);
            // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
            if unsafe { (*segment).insert(hash, entry).is_ok() } {
                break segment;
            }
            self.directory.split(hash, &mut self.slab);
        };
        self.len += 1;
        self.record_write(hash);
        if let Some(at_ms) = expire_at_ms {
            self.expires_len += 1;
            self.record_expiry(hash, segment, at_ms);
        }
    }

    /// Counts that an entry was added, changed or removed, in builds with debug assertions.
    #[inline]
    fn record_write(&mut self, hash: u64) {
        #[cfg(debug_assertions)]
        {
            // SAFETY: the directory's segments are live.
            let version = || unsafe { (*self.directory.segment(hash)).version(home_of(hash)) };
            let is_stamped = self.snapshot_version == 0 || version() == self.snapshot_version;
            debug_assert!(is_stamped, "will_change is called before each change");
            self.writes += 1;
        }
        let _ = hash;
    }

    /// How many entries were added, changed or removed since the last call. By calling this, the code that made the
    /// changes confirms that it has signalled them; see [`Table::has_writes`]. Counted in builds with debug assertions;
    /// 0 in others.
    #[inline]
    pub fn take_writes(&mut self) -> u64 {
        #[cfg(debug_assertions)]
        return std::mem::take(&mut self.writes);
        #[cfg(not(debug_assertions))]
        0
    }

    /// Whether there are writes that [`Table::take_writes`] has not returned yet.
    pub fn has_writes(&self) -> bool {
        #[cfg(debug_assertions)]
        return self.writes > 0;
        #[cfg(not(debug_assertions))]
        false
    }

    /// Lowers the bounds of bucket, segment, page and table to an expiry, where they are higher.
    #[inline]
    fn record_expiry(&mut self, hash: u64, segment: *mut Segment, at_ms: i64) {
        // SAFETY: the segment is this table's, which is borrowed exclusively.
        let is_first = unsafe { (*segment).record_expiry(home_of(hash), at_ms) };
        if is_first && self.directory.record_expiry(hash, at_ms) {
            self.next_expiry_ms = self.next_expiry_ms.min(at_ms);
        }
    }

    /// How many removed values wait to be freed.
    #[inline]
    pub fn garbage_len(&self) -> usize {
        self.garbage.len()
    }

    /// Their bytes, about.
    #[inline]
    pub fn garbage_bytes(&self) -> usize {
        self.garbage.bytes()
    }

    /// Frees removed values up to a cost of `budget`: an element of a collection costs 1, as does a page of a string.
    /// Returns whether none is left.
    pub fn free_garbage(&mut self, mut budget: usize) -> bool {
        self.garbage.free_some(&mut budget)
    }

    /// Removes a key. Returns whether it existed.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let Some(entry) = self.unlink(hash, key) else { return false };
        self.free_entry(entry);
        self.merge_if_small(hash);
        true
    }

    /// As [`Table::remove`], but frees no other garbage, however much there is.
    pub fn evict(&mut self, hash: u64, key: &[u8]) -> bool {
        self.garbage.set_defers_all(true);
        let existed = self.remove(hash, key);
        self.garbage.set_defers_all(false);
        existed
    }

    /// Removes a key and returns its entry. A string too big to be inline is not copied. If a snapshot has not completely written
    /// the value, the caller puts it in elsewhere and calls [`Table::take_record_over`] there.
    pub fn take(&mut self, hash: u64, key: &[u8]) -> Option<(OwnedEntry, Option<Box<SavedElsewhere>>)> {
        let entry = self.unlink(hash, key)?;
        let (expire_at_ms, access) = (entry.expire_at_ms(), entry.access());
        let entry_len = entry.len();
        // SAFETY: the entry is out of the index and freed next, with the length it was allocated with.
        let value = unsafe {
            let value = entry.take_value(&mut self.outside);
            self.slab.free(entry.cell(), entry_len);
            value
        };
        self.merge_if_small(hash);
        let saved = self.take_record(&value, key);
        Some((OwnedEntry { key: key.into(), value, expire_at_ms, access }, saved))
    }

    /// Inserts an entry, or replaces the one with its key.
    pub fn put(&mut self, hash: u64, entry: OwnedEntry) {
        let OwnedEntry { key, value, expire_at_ms, access } = entry;
        self.put_parts(hash, &key, value.into(), expire_at_ms, access);
    }

    /// The same, of an entry that is not put together yet.
    pub fn put_parts(
        &mut self,
        hash: u64,
        key: &[u8],
        value: NewValue<'_>,
        expire_at_ms: Option<i64>,
        access: u32,
    ) {
        let expire = expire_at_ms.map_or(SetExpire::Clear, SetExpire::At);
        let defaults = (self.new_access, self.overwrite_keeps_access);
        self.set_new_access(access, false);
        self.set(hash, key, value, expire);
        (self.new_access, self.overwrite_keeps_access) = defaults;
    }

    /// Sets or clears the expiry of a key. Returns whether the key exists.
    pub fn set_expire(&mut self, hash: u64, key: &[u8], at_ms: Option<i64>) -> bool {
        let Some(mut entry) = self.get_mut(hash, key) else { return false };
        entry.set_expire(at_ms);
        true
    }

    /// Takes a key's entry out of the index.
    fn unlink(&mut self, hash: u64, key: &[u8]) -> Option<EntryPtr> {
        debug_assert_eq!(hash, hash_key(key));
        if self.directory.is_empty() {
            return None;
        }
        // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
        let segment = unsafe { &mut *self.directory.segment(hash) };
        let place = segment.find_place(hash, key)?;
        let entry = segment.remove(home_of(hash), place);
        self.forget(entry);
        self.record_write(hash);
        Some(entry)
    }

    fn forget(&mut self, entry: EntryPtr) {
        self.len -= 1;
        self.expires_len -= usize::from(entry.has_expire());
    }

    /// Frees an entry that is out of the index.
    fn free_entry(&mut self, entry: EntryPtr) {
        let len = entry.len();
        // SAFETY: nothing points at the entry any more, and its value is not read again.
        if let Some(value) = unsafe { entry.take_garbage(&mut self.outside) } {
            self.discard(value, entry.key());
        }
        // SAFETY: as above, and it was allocated with its length.
        unsafe { self.slab.free(entry.cell(), len) };
    }

    /// Frees a value that was removed from its key, now or later.
    fn discard(&mut self, mut value: OwnedValue, key: &[u8]) {
        if let OwnedValue::Object(object) = &mut value
            && let Object::Module(module) = &mut **object
        {
            module.removed_from(KeyPlace::of(self.number, key));
        }
        if let Some(value) = self.keep_unsaved(value, key) {
            self.garbage.discard(value);
        }
    }

    /// After a removal: merges the segment of `hash` with its buddy if both have become small enough.
    #[inline]
    fn merge_if_small(&mut self, hash: u64) {
        // SAFETY: the directory's segments are live.
        let len = unsafe { (*self.directory.segment(hash)).len() };
        if len <= MERGE_TRY_LEN && len % MERGE_TRY_EVERY == 0 {
            self.merge(hash);
        }
    }

    fn merge(&mut self, hash: u64) {
        while self.snapshot_version == 0 && self.directory.merge(hash, MERGE_LEN_MAX, &mut self.slab) {}
    }

    /// Removes all keys, at once.
    pub fn clear(&mut self) {
        drop(self.detach());
    }

    /// Removes all keys and returns the memory that they used, to be freed in slices or on another thread. A snapshot that
    /// is under way goes on over what is returned.
    pub fn detach(&mut self) -> DetachedTable {
        let mut empty = Self::new();
        empty.last_now_ms = self.last_now_ms;
        empty.number = self.number;
        empty.set_new_access(self.new_access, self.overwrite_keeps_access);
        #[cfg(test)]
        {
            empty.slab.plain = self.slab.plain;
        }
        let old = std::mem::replace(self, empty);
        DetachedTable { table: old, next: Some(0), slot: 0 }
    }

    /// Whether the table has allocated a chunk of memory since the last call.
    pub fn take_growth(&mut self) -> bool {
        self.slab.take_growth()
    }

    /// Moves 2 MiB of the table's memory to a huge page: see `slab`. This takes a tenth of a millisecond, or several
    /// milliseconds if memory is hard to get, so it is to be called when the table has stopped growing. Returns whether
    /// there was anything to do.
    pub fn back_by_huge_page(&mut self) -> bool {
        self.slab.back_by_huge_page()
    }

    /// What the table has allocated.
    pub fn memory(&self) -> TableMemory {
        TableMemory {
            directory: self.directory.bytes(),
            segments: self.slab.block_bytes(),
            entries: self.slab.used_bytes() - self.slab.block_bytes(),
            slab: self.slab.reserved_bytes(),
            external: self.outside.get(),
        }
    }

    /// Whether some memory can only be freed by visiting the entries.
    fn needs_visit(&self) -> bool {
        self.outside != OutsideBytes::NONE || self.slab.large_count() > 0
    }

    /// Frees what an entry holds outside of the slab's chunks.
    ///
    /// # Safety
    /// The entry is not used again: the table is being freed.
    unsafe fn free_outside(&mut self, entry: EntryPtr) {
        let len = entry.len();
        // SAFETY: as promised by the caller; the entry was allocated with its length.
        let value = unsafe {
            let value = entry.take_garbage(&mut self.outside);
            self.slab.free_if_large(entry.cell(), len);
            value
        };
        if let Some(value) = value {
            self.garbage.discard(value);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.needs_visit() {
            drop(self.detach());
        }
        self.directory.free(&mut self.slab);
    }
}

/// The contents of a table, to be freed in slices: see [`Table::detach`]. Dropping it frees the rest at once.
pub struct DetachedTable {
    table: Table,
    /// The first hash of the segment whose entries are being freed. None: all are.
    next: Option<u64>,
    /// The first slot of that segment that was not looked at.
    slot: usize,
}

/// The cost of freeing a chunk, in the units of `OwnedValue::free_cost`.
const CHUNK_COST: usize = CHUNK_LEN / BYTES_PER_COST;

impl DetachedTable {
    /// For a snapshot, which is to be complete before anything is freed: see [`Table::walk_snapshot`].
    pub fn contents(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Frees a part that costs about as much as `budget` (> 0) entries, or elements of collections. Returns whether
    /// everything is freed.
    pub fn free_some(&mut self, mut budget: usize) -> bool {
        if !self.free_entries(&mut budget) {
            return false;
        }
        self.table.directory.free(&mut self.table.slab);
        loop {
            if self.table.slab.is_released() {
                return true;
            }
            if budget == 0 {
                return false;
            }
            // SAFETY: nothing in a chunk is used any more: entries hold nothing outside, and the index is gone.
            unsafe { self.table.slab.release_chunk() };
            budget = budget.saturating_sub(CHUNK_COST);
        }
    }

    /// Frees what entries own outside of the slab's chunks. Returns whether that is done.
    fn free_entries(&mut self, budget: &mut usize) -> bool {
        loop {
            if !self.table.garbage.free_some(budget) {
                return false;
            }
            let Some(hash) = self.next.filter(|_| self.table.needs_visit()) else { return true };
            if *budget == 0 {
                return false;
            }
            let segment = self.table.directory.segment(hash);
            while *budget > 0 && self.slot < SEGMENT_SLOTS && self.table.garbage.len() == 0 {
                // SAFETY: the directory's segments are live, and so are their entries. Each is freed once, as each slot
                // is visited once.
                unsafe {
                    if let Some(entry) = (*segment).slot(self.slot) {
                        self.table.free_outside(entry);
                        *budget -= 1;
                    }
                }
                self.slot += 1;
            }
            if self.slot == SEGMENT_SLOTS {
                self.slot = 0;
                // SAFETY: the directory's segments are live.
                self.next = super::directory::end_of_prefix(hash, unsafe { (*segment).depth() });
                // Looking at empty slots has a cost, too.
                *budget = budget.saturating_sub(1);
            }
        }
    }
}

impl Drop for DetachedTable {
    fn drop(&mut self) {
        let is_freed = self.free_some(usize::MAX);
        debug_assert!(is_freed && !self.table.needs_visit());
    }
}

// SAFETY: all that a table points at is its own, and nothing of it is tied to the thread that made it. It is not
// Sync: an entry's access bits are written through shared references.
unsafe impl Send for Table {}

#[cfg(test)]
mod tests;
