//! Stateless iteration over the keyspace: SCAN, RANDOMKEY.
//!
//! A scan visits the home buckets of all segments: bucket 0 of every segment in the order of their hashes, then bucket
//! 1 of every segment, and so on. An entry's bucket number and hash never change, so its position in that order is the
//! same however the table grows and shrinks meanwhile. The cursor is such a position: a bucket number and the top bits
//! of a hash. So a scan returns each key that exists from its beginning to its end exactly once, except that after a
//! merge it may return some keys of the merged segment again.

use super::super::directory::{DEPTH_MAX, end_of_prefix};
use super::super::hashing::slanted;
use super::super::segment::{HOME_COUNT, SEGMENT_SLOTS};
use super::{Entry, Table};
use crate::types::below;

const BUCKET_BITS: u32 = 6;
/// Cursors stay below 2^SCAN_CURSOR_BITS: the bits above are the caller's, for the number of a shard.
pub const SCAN_CURSOR_BITS: u32 = BUCKET_BITS + DEPTH_MAX;

const _: () = assert!(HOME_COUNT <= 1 << BUCKET_BITS);

/// How many random slots of a segment are tried before one of its entries is chosen by its number.
const RANDOM_TRIES: usize = 16;

impl Table {
    /// Visits the entries of one bucket, and returns the cursor of the next; 0 is both the first and the end.
    /// Any number is a valid cursor.
    pub fn scan(&self, cursor: u64, visit: &mut dyn FnMut(Entry<'_>)) -> u64 {
        let home = (cursor >> DEPTH_MAX) as usize;
        if self.directory.is_empty() || home >= HOME_COUNT {
            return 0;
        }
        let hash = cursor << (u64::BITS - DEPTH_MAX);
        // SAFETY: the directory's segments are live.
        let segment = unsafe { &*self.directory.segment(hash) };
        segment.visit_home(home, &mut |_, entry| visit(Entry::new(entry)));
        match end_of_prefix(hash, segment.depth()) {
            Some(next) => (home as u64) << DEPTH_MAX | next >> (u64::BITS - DEPTH_MAX),
            None if home + 1 < HOME_COUNT => (home as u64 + 1) << DEPTH_MAX,
            None => 0,
        }
    }

    /// Visits all entries, in no particular order.
    pub fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>)) {
        for segment in self.directory.segments() {
            // SAFETY: the directory's segments are live.
            unsafe { (*segment).visit_all(&mut |entry| visit(Entry::new(entry))) };
        }
    }

    /// A random entry, each about as likely as any other: a segment is chosen with the probability of a hash to fall
    /// into it, which is about its share of the keys, and then one of its entries with equal probability.
    pub fn random(&self, random: &mut dyn FnMut() -> u64) -> Option<Entry<'_>> {
        if self.is_empty() {
            return None;
        }
        let mut hash = slanted(random());
        // Keys deleted one by one may have left segments empty, but not all of them.
        loop {
            // SAFETY: the directory's segments are live.
            let segment = unsafe { &*self.directory.segment(hash) };
            if segment.len() > 0 {
                for _ in 0..RANDOM_TRIES {
                    if let Some(entry) = segment.slot(below(SEGMENT_SLOTS, random())) {
                        return Some(Entry::new(entry));
                    }
                }
                return segment.nth(below(segment.len(), random())).map(Entry::new);
            }
            hash = end_of_prefix(hash, segment.depth()).unwrap_or(0);
        }
    }
}
