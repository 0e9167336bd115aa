//! Fetching from memory what several look-ups will need, in two stages: first the buckets of all, then the entries that the
//! buckets hold. The segments that the first stage has found are kept for the second one.

use super::{EntryPtr, Segment, Table};
use crate::types::prefetch;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// How many look-ups are fetched together. With more of them, the second stage of the first ones comes before the first stage
/// of the others.
const LOOKUPS_MAX: usize = 64;

/// Look-ups between the two stages. They may be of several tables.
pub struct Prefetches<'a> {
    /// The segment and the hash of each.
    begun: [MaybeUninit<(*const Segment, u64)>; LOOKUPS_MAX],
    len: usize,
    _tables: PhantomData<&'a Table>,
}

impl Default for Prefetches<'_> {
    #[inline(always)]
    fn default() -> Self {
        Self { begun: [const { MaybeUninit::uninit() }; LOOKUPS_MAX], len: 0, _tables: PhantomData }
    }
}

impl<'a> Prefetches<'a> {
    /// First stage: fetches the cache lines in which a look-up of `hash` starts.
    #[inline(always)]
    pub fn begin(&mut self, table: &'a Table, hash: u64) {
        if table.directory.is_empty() {
            return;
        }
        if self.len == LOOKUPS_MAX {
            self.finish();
        }
        let segment = table.directory.segment(hash);
        let line = Segment::first_line(segment, hash);
        prefetch(line);
        prefetch(line.wrapping_add(64));
        self.begun[self.len].write((segment, hash));
        self.len += 1;
    }

    /// Second stage, of all begun: fetches what they may find.
    #[inline(always)]
    pub fn finish(&mut self) {
        let fetch = |entry: EntryPtr| {
            let entry = entry.cell().as_ptr();
            prefetch(entry);
            prefetch(entry.wrapping_add(64));
            // An entry of usual size that begins near the end of a line reaches into a third one.
            if entry.addr() % 64 > 40 {
                prefetch(entry.wrapping_add(128));
            }
        };
        for begun in &self.begun[..self.len] {
            // SAFETY: `begin` has written the first `len` of them, and the segments of a table that is borrowed are live.
            unsafe {
                let (segment, hash) = begun.assume_init();
                (*segment).candidates(hash, fetch);
            }
        }
        self.len = 0;
    }
}
