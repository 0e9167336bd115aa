//! Segment: 4 KiB of the table, and the unit by which it grows and shrinks.
//!
//! After "Dash: Scalable Hashing on Persistent Memory" (Lu et al., VLDB 2020). A segment is a small fixed hash table:
//! HOME_COUNT buckets of one cache line each, and a few stash buckets. An entry belongs to one home bucket and lives,
//! in order of preference, there, in the next bucket ("displaced"), or in any stash bucket. That fills a segment to
//! about .96 before an insertion fails and the segment splits.
//!
//! A bucket holds 9 entries:
//!
//! ```text
//! tags    meta   pointers
//! 9 x 1   1      9 x 6       = 64 bytes
//! ```
//!
//! A tag is 8 bits of the entry's hash, or 0 if there is no entry: one SSE2 comparison finds the candidates, and only
//! these are dereferenced. `meta` counts the bucket's own entries that live elsewhere, so that a miss seldom looks
//! further. Pointers are 48 bits, which is what user space has on the machines we run on; entries are 8-byte
//! aligned, so three more bits are free for flags.
//!
//! A home bucket also has a version, for snapshots, and a mark: a lower bound of the first expiry among its entries.
//! So the expiry cycle reads two cache lines to find out which of some 350 entries to look at.

use super::entry::EntryPtr;
use super::hashing::hash_key;
use std::mem::MaybeUninit;

/// Entries in a bucket.
pub(super) const SLOT_COUNT: usize = 9;
/// Buckets that entries belong to.
pub(super) const HOME_COUNT: usize = 55;
const STASH_COUNT: usize = 5;
const BUCKET_COUNT: usize = HOME_COUNT + STASH_COUNT;
/// All slots of a segment.
pub(super) const SEGMENT_SLOTS: usize = BUCKET_COUNT * SLOT_COUNT;

/// `meta` has 4 bits to count the entries of a bucket that are stashed.
const STASHED_MAX: u8 = 15;

/// The entry lives in the bucket after its home.
const DISPLACED: u64 = 1;
/// The entry has a time to live.
const EXPIRES: u64 = 2;
const FLAGS: u64 = 0b111;
const SLOT_BITS: u32 = 48;

/// The mark of a bucket without an expiry.
const MARK_NONE: u16 = u16::MAX;
const MARK_MAX: u16 = MARK_NONE - 1;
/// A mark counts units of 128 ms, and so reaches 2.3 hours from the segment's base. A later expiry gets the highest
/// mark; the entry is looked at when that is due, and marked anew.
const MARK_SHIFT: u32 = 7;
/// The base is moved to the present time when this much of the reach is used up.
const MARK_REBASE: i64 = (MARK_MAX as i64) / 2;

/// A bound that is never reached: there is no expiry.
pub(super) const NEVER: i64 = i64::MAX;

const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(size_of::<Segment>() == 4096);
const _: () = assert!(cfg!(target_pointer_width = "64") && cfg!(target_endian = "little"));

/// The home bucket of a hash.
#[inline]
pub(super) fn home_of(hash: u64) -> usize {
    ((hash & 0xffff) as usize * HOME_COUNT) >> 16
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    let tag = (hash >> 16) as u8;
    // 0 means that there is no entry.
    tag + u8::from(tag == 0)
}

#[inline]
fn next_home(home: usize) -> usize {
    if home + 1 == HOME_COUNT { 0 } else { home + 1 }
}

#[inline]
fn previous_home(home: usize) -> usize {
    if home == 0 { HOME_COUNT - 1 } else { home - 1 }
}

/// Where an entry is in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: usize,
    pub(super) slot: usize,
}

/// A set of slots of one bucket.
#[derive(Clone, Copy)]
struct Slots(u32);

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

#[repr(C, align(64))]
#[derive(Clone)]
struct Bucket {
    tags: [u8; SLOT_COUNT],
    /// Low half: entries of this home bucket that are displaced. High half: that are stashed.
    meta: u8,
    slots: [[u8; 6]; SLOT_COUNT],
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; SLOT_COUNT], meta: 0, slots: [[0; 6]; SLOT_COUNT] };

    /// The slots with this tag; 0: those without an entry.
    #[inline]
    fn matching(&self, tag: u8) -> Slots {
        const ALL: u32 = (1 << SLOT_COUNT) - 1;
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8};
            // SAFETY: SSE2 is part of x86-64. The 16 bytes loaded are the first of the bucket's 64, and it is aligned.
            let mask = unsafe {
                let tags = _mm_load_si128(std::ptr::from_ref(self).cast());
                _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8))) as u32
            };
            Slots(mask & ALL)
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let mask = self.tags.iter().rev().fold(0, |mask, &seen| mask << 1 | u32::from(seen == tag));
            Slots(mask & ALL)
        }
    }

    #[inline]
    fn used(&self) -> Slots {
        Slots(self.matching(0).0 ^ ((1 << SLOT_COUNT) - 1))
    }

    #[inline]
    fn first_free(&self) -> Option<usize> {
        self.matching(0).next()
    }

    /// The address and the flags in a slot.
    #[inline]
    fn get(&self, slot: usize) -> u64 {
        debug_assert!(slot < SLOT_COUNT);
        // Six bytes are read as the upper part of the eight that end with them, which lie in the bucket as well.
        // SAFETY: 8 + 6 * slot + 8 <= 64.
        let word = unsafe { std::ptr::from_ref(self).byte_add(8 + 6 * slot).cast::<u64>().read_unaligned() };
        word >> (u64::BITS - SLOT_BITS)
    }

    #[inline]
    fn set(&mut self, slot: usize, word: u64) {
        debug_assert!(word >> SLOT_BITS == 0, "user space addresses have 48 bits");
        self.slots[slot].copy_from_slice(&word.to_le_bytes()[..6]);
    }

    #[inline]
    fn entry(&self, slot: usize) -> EntryPtr {
        // SAFETY: called for used slots only, and these hold the address of a live entry.
        unsafe { EntryPtr::from_address((self.get(slot) & !FLAGS) as usize) }
    }

    fn displaced_count(&self) -> u8 {
        self.meta & 0xf
    }

    fn stashed_count(&self) -> u8 {
        self.meta >> 4
    }

    /// The used slots whose entries belong to the bucket before this one.
    fn displaced_here(&self) -> Slots {
        Slots(
            self.used()
                .filter(|&slot| self.get(slot) & DISPLACED != 0)
                .fold(0, |mask, slot| mask | 1 << slot),
        )
    }

    fn put(&mut self, slot: usize, tag: u8, word: u64) {
        debug_assert_eq!(self.tags[slot], 0);
        self.tags[slot] = tag;
        self.set(slot, word);
    }

    /// Empties a slot and returns what it held.
    fn pull(&mut self, slot: usize) -> (u8, u64) {
        let tag = std::mem::replace(&mut self.tags[slot], 0);
        debug_assert_ne!(tag, 0);
        (tag, self.get(slot))
    }
}

#[repr(C, align(64))]
#[derive(Clone)]
pub(super) struct Segment {
    /// The bits of the hash above `64 - depth` that all entries share, in place; the rest is 0.
    prefix: u64,
    /// Lower bound of the first expiry, or NEVER.
    next_expiry_ms: i64,
    /// The time from which the marks count.
    mark_base_ms: i64,
    len: u16,
    expires_len: u16,
    depth: u8,
    /// The version of the last snapshot during which a home bucket was changed.
    versions: [u16; HOME_COUNT],
    marks: [u16; HOME_COUNT],
    buckets: [Bucket; BUCKET_COUNT],
}

/// There is no room around the home bucket of an entry: the segment has to split.
#[derive(Debug)]
pub(super) struct Full;

impl Segment {
    pub(super) fn new(version: u16, now_ms: i64) -> Self {
        Self {
            prefix: 0,
            next_expiry_ms: NEVER,
            mark_base_ms: now_ms,
            len: 0,
            expires_len: 0,
            depth: 0,
            versions: [version; HOME_COUNT],
            marks: [MARK_NONE; HOME_COUNT],
            buckets: [const { Bucket::EMPTY }; BUCKET_COUNT],
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    pub(super) fn depth(&self) -> u32 {
        u32::from(self.depth)
    }

    #[inline]
    pub(super) fn prefix(&self) -> u64 {
        self.prefix
    }

    /// How many of its entries have an expiry.
    #[inline]
    pub(super) fn expires_len(&self) -> usize {
        usize::from(self.expires_len)
    }

    #[inline]
    pub(super) fn next_expiry_ms(&self) -> i64 {
        self.next_expiry_ms
    }

    #[cfg(debug_assertions)]
    pub(super) fn version(&self, home: usize) -> u16 {
        self.versions[home]
    }

    /// Gives a home bucket a version. Returns whether it had another one.
    #[inline]
    pub(super) fn stamp(&mut self, home: usize, version: u16) -> bool {
        std::mem::replace(&mut self.versions[home], version) != version
    }

    pub(super) fn reset_versions(&mut self) {
        self.versions = [0; HOME_COUNT];
    }

    /// The cache line that a look-up of `hash` reads first.
    #[inline]
    pub(super) fn first_line(segment: *const Self, hash: u64) -> *const u8 {
        let offset = std::mem::offset_of!(Self, buckets) + home_of(hash) * size_of::<Bucket>();
        segment.cast::<u8>().wrapping_add(offset)
    }

    /// Calls `visit` with the entries that may be the one with this hash, mostly one or none.
    #[inline(always)]
    pub(super) fn candidates(&self, hash: u64, mut visit: impl FnMut(EntryPtr)) {
        let (home, tag) = (home_of(hash), tag_of(hash));
        let mut visit_in = |bucket: usize| {
            let bucket = &self.buckets[bucket];
            let matching = bucket.matching(tag);
            matching.for_each(|slot| visit(bucket.entry(slot)));
            matching.0 != 0
        };
        let meta = &self.buckets[home];
        if visit_in(home) || meta.displaced_count() > 0 && visit_in(next_home(home)) {
            return;
        }
        if meta.stashed_count() > 0 {
            (HOME_COUNT..BUCKET_COUNT).for_each(|bucket| _ = visit_in(bucket));
        }
    }

    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<EntryPtr> {
        let bucket = &self.buckets[home_of(hash)];
        for slot in bucket.matching(tag_of(hash)) {
            let entry = bucket.entry(slot);
            if entry.key_is_inline(key) {
                return Some(entry);
            }
        }
        if bucket.meta == 0 {
            return None;
        }
        self.find_away(hash, key).map(|place| self.entry(place))
    }

    #[inline]
    pub(super) fn find_place(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let home = home_of(hash);
        let bucket = &self.buckets[home];
        for slot in bucket.matching(tag_of(hash)) {
            if bucket.entry(slot).key_is(key) {
                return Some(Place { bucket: home, slot });
            }
        }
        if bucket.meta == 0 {
            return None;
        }
        self.find_away(hash, key)
    }

    /// Looks for an entry that is not in its home bucket.
    #[inline(never)]
    fn find_away(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let home = home_of(hash);
        let tag = tag_of(hash);
        let meta = &self.buckets[home];
        let find_in = |bucket: usize| {
            let found = &self.buckets[bucket];
            let slot = found.matching(tag).find(|&slot| found.entry(slot).key_is(key))?;
            Some(Place { bucket, slot })
        };
        if meta.displaced_count() > 0
            && let Some(place) = find_in(next_home(home))
        {
            return Some(place);
        }
        if meta.stashed_count() == 0 {
            return None;
        }
        (HOME_COUNT..BUCKET_COUNT).find_map(find_in)
    }

    #[inline]
    pub(super) fn entry(&self, place: Place) -> EntryPtr {
        self.buckets[place.bucket].entry(place.slot)
    }

    /// Adds an entry whose key is not in the segment.
    pub(super) fn insert(&mut self, hash: u64, entry: EntryPtr) -> Result<Place, Full> {
        let expires = entry.has_expire();
        let word = entry.address() as u64 | if expires { EXPIRES } else { 0 };
        assert!(entry.address() as u64 >> SLOT_BITS == 0, "user space addresses have 48 bits");
        let place = self.insert_word(home_of(hash), tag_of(hash), word)?;
        self.len += 1;
        self.expires_len += u16::from(expires);
        Ok(place)
    }

    /// Finds a slot for the word of an entry with this home bucket.
    #[inline]
    fn insert_word(&mut self, home: usize, tag: u8, word: u64) -> Result<Place, Full> {
        if let Some(slot) = self.buckets[home].first_free() {
            self.buckets[home].put(slot, tag, word & !DISPLACED);
            return Ok(Place { bucket: home, slot });
        }
        self.insert_away(home, tag, word)
    }

    fn insert_away(&mut self, home: usize, tag: u8, word: u64) -> Result<Place, Full> {
        let next = next_home(home);
        if let Some(slot) = self.buckets[next].first_free() {
            self.buckets[next].put(slot, tag, word | DISPLACED);
            self.buckets[home].meta += 1;
            return Ok(Place { bucket: next, slot });
        }
        // An entry displaced to here may have room at home again.
        let previous = previous_home(home);
        if let Some(free) = self.buckets[previous].first_free()
            && let Some(slot) = self.buckets[home].displaced_here().next()
        {
            let (moved_tag, moved) = self.buckets[home].pull(slot);
            self.buckets[previous].put(free, moved_tag, moved & !DISPLACED);
            self.buckets[previous].meta -= 1;
            self.buckets[home].put(slot, tag, word & !DISPLACED);
            return Ok(Place { bucket: home, slot });
        }
        // An entry of the next bucket can make room by being displaced itself.
        let after = next_home(next);
        if let Some(free) = self.buckets[after].first_free() {
            let bucket = &self.buckets[next];
            let at_home = bucket.used().find(|&slot| bucket.get(slot) & DISPLACED == 0);
            if let Some(slot) = at_home {
                let (moved_tag, moved) = self.buckets[next].pull(slot);
                self.buckets[after].put(free, moved_tag, moved | DISPLACED);
                self.buckets[next].meta += 1;
                self.buckets[next].put(slot, tag, word | DISPLACED);
                self.buckets[home].meta += 1;
                return Ok(Place { bucket: next, slot });
            }
        }
        if self.buckets[home].stashed_count() < STASHED_MAX {
            for bucket in HOME_COUNT..BUCKET_COUNT {
                if let Some(slot) = self.buckets[bucket].first_free() {
                    self.buckets[bucket].put(slot, tag, word & !DISPLACED);
                    self.buckets[home].meta += 1 << 4;
                    return Ok(Place { bucket, slot });
                }
            }
        }
        Err(Full)
    }

    /// Points a slot at the rewritten entry, whose expiry may have been set or removed. Returns by how much the number of
    /// entries with an expiry has changed; if it has not, the segment's first line is not read, which is seldom in a cache.
    #[inline]
    pub(super) fn replace(&mut self, place: Place, entry: EntryPtr) -> isize {
        let bucket = &mut self.buckets[place.bucket];
        let old = bucket.get(place.slot);
        let expires = if entry.has_expire() { EXPIRES } else { 0 };
        let new = entry.address() as u64 | (old & DISPLACED) | expires;
        if new == old {
            return 0;
        }
        assert!(entry.address() as u64 >> SLOT_BITS == 0, "user space addresses have 48 bits");
        bucket.set(place.slot, new);
        let change = i16::from(expires != 0) - i16::from(old & EXPIRES != 0);
        if change != 0 {
            self.expires_len = self.expires_len.wrapping_add_signed(change);
        }
        change.into()
    }

    /// Empties a slot. The entry is the caller's to free.
    pub(super) fn remove(&mut self, home: usize, place: Place) -> EntryPtr {
        let entry = self.entry(place);
        let (_, word) = self.buckets[place.bucket].pull(place.slot);
        self.forget_away(home, place, word);
        self.len -= 1;
        self.expires_len -= u16::from(word & EXPIRES != 0);
        entry
    }

    /// Updates `home`'s counts when an entry leaves a place.
    fn forget_away(&mut self, home: usize, place: Place, word: u64) {
        if place.bucket >= HOME_COUNT {
            self.buckets[home].meta -= 1 << 4;
        } else if word & DISPLACED != 0 {
            debug_assert_eq!(home, previous_home(place.bucket));
            self.buckets[home].meta -= 1;
        }
    }

    /// Visits all entries that belong to a home bucket, wherever they live. Nothing else of the segment may be
    /// changed through `visit` (it has no way to).
    pub(super) fn visit_home(&self, home: usize, visit: &mut dyn FnMut(Place, EntryPtr)) {
        let bucket = &self.buckets[home];
        for slot in bucket.used() {
            if bucket.get(slot) & DISPLACED == 0 {
                visit(Place { bucket: home, slot }, bucket.entry(slot));
            }
        }
        if bucket.displaced_count() > 0 {
            let next = next_home(home);
            for slot in self.buckets[next].displaced_here() {
                visit(Place { bucket: next, slot }, self.buckets[next].entry(slot));
            }
        }
        if bucket.stashed_count() > 0 {
            for stash in HOME_COUNT..BUCKET_COUNT {
                for slot in self.buckets[stash].used() {
                    let entry = self.buckets[stash].entry(slot);
                    if home_of(hash_key(entry.key())) == home {
                        visit(Place { bucket: stash, slot }, entry);
                    }
                }
            }
        }
    }

    /// Visits all entries.
    pub(super) fn visit_all(&self, visit: &mut dyn FnMut(EntryPtr)) {
        for bucket in &self.buckets {
            for slot in bucket.used() {
                visit(bucket.entry(slot));
            }
        }
    }

    /// The entry in the slot of this number (below SEGMENT_SLOTS), if there is one.
    pub(super) fn slot(&self, number: usize) -> Option<EntryPtr> {
        let bucket = &self.buckets[number / SLOT_COUNT];
        let slot = number % SLOT_COUNT;
        (bucket.tags[slot] != 0).then(|| bucket.entry(slot))
    }

    /// The entries from the slot of this number (below SEGMENT_SLOTS) on, and then those before it. `volatile`: only
    /// those with an expiry.
    pub(super) fn slots_from(&self, start: usize, volatile: bool) -> impl Iterator<Item = EntryPtr> {
        (start..SEGMENT_SLOTS).chain(0..start).filter_map(move |number| {
            let bucket = &self.buckets[number / SLOT_COUNT];
            let slot = number % SLOT_COUNT;
            let is_wanted = bucket.tags[slot] != 0 && (!volatile || bucket.get(slot) & EXPIRES != 0);
            is_wanted.then(|| bucket.entry(slot))
        })
    }

    /// The entry with this number (below `len`) in the order of the slots.
    pub(super) fn nth(&self, mut number: usize) -> Option<EntryPtr> {
        for bucket in &self.buckets {
            let used = bucket.used().0.count_ones() as usize;
            if number < used {
                return bucket.used().nth(number).map(|slot| bucket.entry(slot));
            }
            number -= used;
        }
        None
    }

    /// Splits into two by the next bit of the hash: the entries with a 1 go to `upper`, which is memory for a segment.
    /// It starts as a copy, and then each half drops what belongs to the other: so nothing has to find a new place,
    /// and a split cannot fail.
    pub(super) fn split(&mut self, upper: &mut MaybeUninit<Self>) {
        let bit = 63 - self.depth();
        let mut upper_slots = [0u32; BUCKET_COUNT];
        let mut stash_homes = [[0u8; SLOT_COUNT]; STASH_COUNT];
        // All keys of a bucket are fetched from memory at once rather than one after the other.
        let prefetch = |bucket: &Bucket| {
            bucket.used().for_each(|slot| super::prefetch(bucket.entry(slot).cell().as_ptr()))
        };
        prefetch(&self.buckets[0]);
        for (number, bucket) in self.buckets.iter().enumerate() {
            if let Some(following) = self.buckets.get(number + 1) {
                prefetch(following);
            }
            for slot in bucket.used() {
                let hash = hash_key(bucket.entry(slot).key());
                upper_slots[number] |= ((hash >> bit & 1) as u32) << slot;
                if number >= HOME_COUNT {
                    stash_homes[number - HOME_COUNT][slot] = home_of(hash) as u8;
                }
            }
        }
        self.depth += 1;
        let upper = upper.write(self.clone());
        upper.prefix |= 1 << bit;
        let lower_slots = upper_slots.map(|slots| !slots);
        self.keep_only(&lower_slots, &stash_homes);
        upper.keep_only(&upper_slots, &stash_homes);
        // The entries have just been read, so that it costs little to make the bounds exact again.
        self.mark_anew();
        upper.mark_anew();
    }

    /// Computes the marks from the entries.
    fn mark_anew(&mut self) {
        self.marks = [MARK_NONE; HOME_COUNT];
        self.next_expiry_ms = NEVER;
        if self.expires_len == 0 {
            return;
        }
        for number in 0..BUCKET_COUNT {
            for slot in self.buckets[number].used() {
                if let Some(at_ms) = self.buckets[number].entry(slot).expire_at_ms() {
                    self.record_expiry(self.home_at(Place { bucket: number, slot }), at_ms);
                }
            }
        }
    }

    /// The home of the entry in a place.
    fn home_at(&self, place: Place) -> usize {
        let bucket = &self.buckets[place.bucket];
        if place.bucket >= HOME_COUNT {
            home_of(hash_key(bucket.entry(place.slot).key()))
        } else if bucket.get(place.slot) & DISPLACED != 0 {
            previous_home(place.bucket)
        } else {
            place.bucket
        }
    }

    fn keep_only(&mut self, keep: &[u32; BUCKET_COUNT], stash_homes: &[[u8; SLOT_COUNT]; STASH_COUNT]) {
        for number in 0..BUCKET_COUNT {
            for slot in self.buckets[number].used() {
                if keep[number] & 1 << slot != 0 {
                    continue;
                }
                let place = Place { bucket: number, slot };
                let home = if number >= HOME_COUNT {
                    usize::from(stash_homes[number - HOME_COUNT][slot])
                } else {
                    previous_home(number)
                };
                self.remove(home, place);
            }
        }
        // There is room again, so stashed entries may move to their home bucket or the next one.
        for (stash, homes) in stash_homes.iter().enumerate() {
            for slot in self.buckets[HOME_COUNT + stash].used() {
                let home = usize::from(homes[slot]);
                let (tag, word) = self.buckets[HOME_COUNT + stash].pull(slot);
                self.buckets[home].meta -= 1 << 4;
                let found = self.insert_word(home, tag, word);
                debug_assert!(found.is_ok(), "at worst the place just left is found again");
            }
        }
    }

    /// Merges the two halves of a split again, if all entries find room.
    pub(super) fn merged(lower: &Self, upper: &Self) -> Option<Self> {
        let mut merged = lower.clone();
        merged.depth -= 1;
        merged.len += upper.len;
        merged.expires_len += upper.expires_len;
        for home in 0..HOME_COUNT {
            merged.versions[home] = lower.versions[home].min(upper.versions[home]);
            if upper.marks[home] != MARK_NONE {
                merged.record_mark(home, upper.mark_time(home));
            }
        }
        merged.next_expiry_ms = lower.next_expiry_ms.min(upper.next_expiry_ms);
        for (number, bucket) in upper.buckets.iter().enumerate() {
            for slot in bucket.used() {
                let home = upper.home_at(Place { bucket: number, slot });
                merged.insert_word(home, bucket.tags[slot], bucket.get(slot)).ok()?;
            }
        }
        Some(merged)
    }

    /// Records the expiry of an entry of a home bucket. Returns whether it is the segment's first.
    #[inline]
    pub(super) fn record_expiry(&mut self, home: usize, at_ms: i64) -> bool {
        self.record_mark(home, at_ms);
        let is_first = at_ms < self.next_expiry_ms;
        if is_first {
            self.next_expiry_ms = at_ms;
        }
        is_first
    }

    fn record_mark(&mut self, home: usize, at_ms: i64) {
        self.marks[home] = self.marks[home].min(self.mark_of(at_ms));
    }

    /// The mark of a time: rounded down, so that it stays a lower bound.
    fn mark_of(&self, at_ms: i64) -> u16 {
        let units = at_ms.saturating_sub(self.mark_base_ms) >> MARK_SHIFT;
        units.clamp(0, i64::from(MARK_MAX)) as u16
    }

    /// The time that a mark stands for: nothing in the bucket expires before it. Mark 0 may stand for anything
    /// before the base.
    fn mark_time(&self, home: usize) -> i64 {
        match self.marks[home] {
            MARK_NONE => NEVER,
            0 => i64::MIN,
            mark => self.mark_base_ms.saturating_add(i64::from(mark) << MARK_SHIFT),
        }
    }

    /// The home buckets in which an entry may have expired, by their marks.
    pub(super) fn due_homes(&mut self, now_ms: i64) -> [bool; HOME_COUNT] {
        self.rebase(now_ms);
        std::array::from_fn(|home| self.mark_time(home) <= now_ms)
    }

    /// Looks at the entries with a time to live of every bucket whose mark says that one may be due. Takes out those
    /// that are due and for which `decide` returns true, and adds them to `removed`, for the caller to free. Returns
    /// how many entries were looked at.
    pub(super) fn expire_due(
        &mut self,
        now_ms: i64,
        decide: &mut dyn FnMut(EntryPtr) -> bool,
        removed: &mut Vec<EntryPtr>,
    ) -> usize {
        let due = self.due_homes(now_ms);
        for home in (0..HOME_COUNT).filter(|&home| due[home]) {
            let bucket = &self.buckets[home];
            for slot in bucket.used().filter(|&slot| bucket.get(slot) & EXPIRES != 0) {
                super::prefetch(bucket.entry(slot).cell().as_ptr());
            }
        }
        let mut looked_at = 0;
        let mut first_ms = NEVER;
        let mut group = Vec::with_capacity(SLOT_COUNT);
        for (home, is_due) in due.into_iter().enumerate() {
            if !is_due {
                first_ms = first_ms.min(self.mark_time(home));
                continue;
            }
            let mut home_first_ms = NEVER;
            group.clear();
            self.visit_home(home, &mut |place, entry| {
                if let Some(at_ms) = entry.expire_at_ms() {
                    group.push((place, entry, at_ms));
                }
            });
            looked_at += group.len();
            for &(place, entry, at_ms) in &group {
                if at_ms <= now_ms && decide(entry) {
                    self.remove(home, place);
                    removed.push(entry);
                } else {
                    home_first_ms = home_first_ms.min(at_ms);
                }
            }
            self.marks[home] = if home_first_ms == NEVER { MARK_NONE } else { self.mark_of(home_first_ms) };
            first_ms = first_ms.min(home_first_ms);
        }
        self.next_expiry_ms = first_ms;
        looked_at
    }

    /// Moves the base of the marks to the present time if it lies too far back, or ahead because the clock was set
    /// back.
    fn rebase(&mut self, now_ms: i64) {
        if (0..=MARK_REBASE).contains(&(now_ms.saturating_sub(self.mark_base_ms) >> MARK_SHIFT)) {
            return;
        }
        let times: [i64; HOME_COUNT] = std::array::from_fn(|home| self.mark_time(home));
        self.mark_base_ms = now_ms;
        for (home, &at_ms) in times.iter().enumerate() {
            self.marks[home] = if at_ms == NEVER { MARK_NONE } else { self.mark_of(at_ms) };
        }
    }
}
