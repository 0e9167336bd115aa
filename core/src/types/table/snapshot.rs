//! A snapshot of the table, taken while it changes.
//!
//! From [`Table::begin_snapshot`] on, each home bucket is saved once: its entries are passed to an [`EntryWriter`] and
//! the bucket is stamped with the snapshot's version. That happens when [`Table::walk_snapshot`] reaches the bucket, or
//! before the bucket's first change, whichever comes first. So a bucket that is not stamped has exactly the entries, with
//! the values, that it had when the snapshot began; and one that is stamped is never saved again.
//!
//! - The walk goes through the buckets in the order of their hashes. Its position is a hash and the number of a bucket,
//!   which stay valid when segments split: both halves of a split keep the versions of their buckets, so what the walk
//!   meets a second time is stamped.
//! - Segments are not merged during a snapshot.
//! - A bucket may be saved before anything in it really changes: saving early changes nothing in what is saved.

use std::num::NonZeroU16;

use super::super::directory::end_of_prefix;
use super::super::segment::{HOME_COUNT, Segment, home_of};
use super::{Entry, Table};

/// Writes entries down. The table knows nothing of the format.
pub trait EntryWriter: Send {
    /// Appends an entry to `out`, which is empty at first, and again whenever its contents were taken.
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>);
}

/// What a snapshot of a table has saved so far and is yet to be taken.
pub struct TableSnapshot {
    writer: Box<dyn EntryWriter>,
    /// Where the walk continues: a hash, and the home bucket in its segment. `None`: at the end.
    next: Option<(u64, usize)>,
    walked: Vec<u8>,
    forced: Vec<u8>,
    saved: Saved,
}

/// What was saved since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub entries: u64,
    /// The memory of those entries that had to be saved because their bucket was about to change.
    pub forced_bytes: u64,
}

impl TableSnapshot {
    /// What the walk has written, once it is at least `len_min` bytes (> 0).
    pub fn take_walked(&mut self, len_min: usize) -> Option<Vec<u8>> {
        take(&mut self.walked, len_min)
    }

    /// The same for what was saved because it was about to change.
    pub fn take_forced(&mut self, len_min: usize) -> Option<Vec<u8>> {
        take(&mut self.forced, len_min)
    }

    /// What was saved since the last call.
    pub fn take_saved(&mut self) -> Saved {
        std::mem::take(&mut self.saved)
    }

    /// Saves the entries of a home bucket.
    fn save(&mut self, segment: &Segment, home: usize, is_forced: bool) {
        let TableSnapshot { writer, walked, forced, saved, .. } = self;
        let out = if is_forced { forced } else { walked };
        segment.visit_home(home, &mut |_, entry| {
            let entry = Entry::new(entry);
            writer.write(entry, out);
            saved.entries += 1;
            if is_forced {
                saved.forced_bytes += entry.alloc_size() as u64;
            }
        });
    }
}

fn take(bytes: &mut Vec<u8>, len_min: usize) -> Option<Vec<u8>> {
    (bytes.len() >= len_min.max(1)).then(|| std::mem::take(bytes))
}

impl Table {
    /// Begins a snapshot. The version must not have been used since the last [`Table::reset_versions`], and no snapshot may
    /// be under way. A table without entries has nothing to save and takes no part.
    pub fn begin_snapshot(&mut self, version: NonZeroU16, writer: Box<dyn EntryWriter>) {
        assert!(self.snapshot.is_none(), "a table has one snapshot at a time");
        if self.is_empty() {
            return;
        }
        self.snapshot_version = version.get();
        let (walked, forced, saved) = (Vec::new(), Vec::new(), Saved::default());
        self.snapshot = Some(Box::new(TableSnapshot { writer, next: Some((0, 0)), walked, forced, saved }));
    }

    /// The snapshot that is under way.
    pub fn snapshot_mut(&mut self) -> Option<&mut TableSnapshot> {
        self.snapshot.as_deref_mut()
    }

    #[inline]
    pub fn is_in_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Saves bucket after bucket until `is_over` says that it is enough, which is asked before each. Returns whether all
    /// is saved.
    pub fn walk_snapshot(&mut self, is_over: &mut dyn FnMut() -> bool) -> bool {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return true };
        while let Some((hash, home)) = snapshot.next {
            if is_over() {
                return false;
            }
            // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
            let segment = unsafe { &mut *self.directory.segment(hash) };
            if segment.stamp(home, self.snapshot_version) {
                snapshot.save(segment, home, false);
            }
            snapshot.next = match home + 1 {
                HOME_COUNT => end_of_prefix(hash, segment.depth()).map(|hash| (hash, 0)),
                home => Some((hash, home)),
            };
        }
        true
    }

    /// Ends the snapshot, complete or not. What was not taken is lost.
    pub fn end_snapshot(&mut self) {
        self.snapshot_version = 0;
        self.snapshot = None;
    }

    /// Clears all versions, to be called when their numbers are used up. Not during a snapshot.
    pub fn reset_versions(&mut self) {
        debug_assert_eq!(self.snapshot_version, 0);
        for segment in self.directory.segments() {
            // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
            unsafe { (*segment).reset_versions() };
        }
    }

    /// To be called before the entry of a key is added, changed or removed: during a snapshot, the first change of a bucket
    /// has its entries saved.
    #[inline]
    pub fn will_change(&mut self, hash: u64) {
        // A table that takes part in a snapshot has segments.
        if self.snapshot_version == 0 {
            return;
        }
        let segment = self.directory.segment(hash);
        self.will_change_at(segment, hash);
    }

    /// The same where the segment is known.
    #[inline]
    pub(super) fn will_change_at(&mut self, segment: *mut Segment, hash: u64) {
        let version = self.snapshot_version;
        // SAFETY: the segment is one of the table's, which is borrowed exclusively.
        if version != 0 && unsafe { (*segment).stamp(home_of(hash), version) } {
            self.save_before_change(segment, home_of(hash));
        }
    }

    #[cold]
    #[inline(never)]
    fn save_before_change(&mut self, segment: *mut Segment, home: usize) {
        let snapshot = self.snapshot.as_deref_mut().expect("a table with a version has a snapshot");
        // SAFETY: the segment is one of the table's, which is borrowed exclusively.
        snapshot.save(unsafe { &*segment }, home, true);
    }

    /// During a snapshot: saves the buckets of a segment in which an entry may have expired.
    pub(super) fn save_before_expiry(&mut self, segment: *mut Segment, now_ms: i64) {
        let version = self.snapshot_version;
        if version == 0 {
            return;
        }
        // SAFETY: the segment is one of the table's, which is borrowed exclusively.
        let due = unsafe { (*segment).due_homes(now_ms) };
        for home in (0..HOME_COUNT).filter(|&home| due[home]) {
            // SAFETY: as above.
            if unsafe { (*segment).stamp(home, version) } {
                self.save_before_change(segment, home);
            }
        }
    }
}
