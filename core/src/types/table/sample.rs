//! Samples: a few entries at a random place, among which eviction chooses.
//!
//! Where few keys have an expiry, a sample of those that have one goes through much of the table. So it is taken in steps of
//! bounded length, and each continues where the last one has stopped.

use super::super::directory::end_of_prefix;
use super::super::entry::EntryPtr;
use super::super::hashing::slanted;
use super::super::segment::{NEVER, SEGMENT_SLOTS};
use super::{Entry, Table};
use crate::types::{below, prefetch};
use smallvec::SmallVec;

/// Which entries a sample is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sampled {
    All,
    /// Those with an expiry.
    Volatile,
}

/// A sample that is being taken. Keys that come and go in the meantime may be part of it or not.
pub struct Sample {
    sampled: Sampled,
    /// How many more entries it is to have.
    wanted: usize,
    /// It starts with the segment of this hash, and ends there at the latest.
    first: u64,
    /// The next segment is that of this hash.
    hash: u64,
    has_wrapped: bool,
}

impl Sample {
    /// A sample of up to `wanted` entries whose places follow each other, from a random one on. (Places are given by hashes,
    /// so neighbours have nothing else in common.)
    pub fn new(sampled: Sampled, wanted: usize, random: &mut dyn FnMut() -> u64) -> Sample {
        let first = slanted(random());
        Sample { sampled, wanted, first, hash: first, has_wrapped: false }
    }
}

impl Table {
    /// Visits the next entries of a sample. Looks at no more segments than `segments_left`, and subtracts those it has looked
    /// at. Returns whether the sample is complete: it has as many entries as were wanted, or the table has no more. The same
    /// entry may be visited twice in a table of few entries.
    pub fn sample(
        &self,
        sample: &mut Sample,
        segments_left: &mut usize,
        random: &mut dyn FnMut() -> u64,
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> bool {
        let is_volatile = sample.sampled == Sampled::Volatile;
        let total = if is_volatile { self.expires_len() } else { self.len() };
        sample.wanted = sample.wanted.min(total);
        let mut found: SmallVec<[EntryPtr; 16]> = SmallVec::new();
        let is_complete = loop {
            if found.len() == sample.wanted || sample.has_wrapped && sample.hash > sample.first {
                break true;
            }
            if *segments_left == 0 {
                break false;
            }
            *segments_left -= 1;
            let (page_expiry_ms, page_depth) = self.directory.page_expiry(sample.hash);
            let next = if is_volatile && page_expiry_ms == NEVER {
                end_of_prefix(sample.hash, page_depth)
            } else {
                // SAFETY: the directory's segments are live.
                let segment = unsafe { &*self.directory.segment(sample.hash) };
                if !is_volatile || segment.expires_len() > 0 {
                    let start = below(SEGMENT_SLOTS, random());
                    let missing = sample.wanted - found.len();
                    segment.slots_from(start, is_volatile).take(missing).for_each(|entry| {
                        prefetch(entry.cell().as_ptr().cast());
                        found.push(entry);
                    });
                }
                end_of_prefix(sample.hash, segment.depth())
            };
            match next {
                Some(next) => sample.hash = next,
                // All hashes from here to the first have been visited, or it is the only segment.
                None if sample.has_wrapped => break true,
                None => (sample.hash, sample.has_wrapped) = (0, true),
            }
        };
        sample.wanted -= found.len();
        found.into_iter().for_each(|entry| visit(Entry::new(entry)));
        is_complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NewValue, SetExpire, hash_key};
    use std::collections::BTreeMap;

    fn table(len: usize, is_volatile: impl Fn(usize) -> bool) -> Table {
        let mut table = Table::new();
        for number in 0..len {
            let key = format!("key:{number}");
            let expire = if is_volatile(number) { SetExpire::At(1_000_000) } else { SetExpire::Clear };
            table.set(hash_key(key.as_bytes()), key.as_bytes(), NewValue::Int(number as i64), expire);
        }
        table
    }

    /// How often each key came in so many samples of five.
    fn draw(table: &Table, sampled: Sampled, samples: usize) -> BTreeMap<Vec<u8>, usize> {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        };
        let mut drawn = BTreeMap::new();
        for number in 0..samples {
            let mut count = 0;
            let mut sample = Sample::new(sampled, 5, &mut random);
            // In steps of different length.
            while !table.sample(&mut sample, &mut (1 + number % 4), &mut random, &mut |entry| {
                *drawn.entry(entry.key().to_vec()).or_default() += 1;
                count += 1;
            }) {}
            assert!(count <= 5);
        }
        drawn
    }

    #[test]
    fn every_entry_comes_about_equally_often() {
        const LEN: usize = if cfg!(miri) { 50 } else { 5000 };
        const SAMPLES: usize = LEN * 10;
        let drawn = draw(&table(LEN, |_| false), Sampled::All, SAMPLES);
        assert_eq!(drawn.len(), LEN);
        let mean = SAMPLES * 5 / LEN;
        let far = drawn.values().filter(|&&times| times < mean / 4 || times > mean * 4).count();
        assert!(far < (LEN / 50).max(2), "{far} of {LEN}");
    }

    #[test]
    fn a_sample_of_those_with_an_expiry_finds_the_only_one() {
        let drawn = draw(
            &table(if cfg!(miri) { 800 } else { 30_000 }, |number| number == 777),
            Sampled::Volatile,
            20,
        );
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [(b"key:777".to_vec(), 20)]);
        assert!(draw(&table(100, |_| false), Sampled::Volatile, 5).is_empty());
        assert!(draw(&Table::new(), Sampled::All, 5).is_empty());
    }

    #[test]
    fn a_step_looks_at_so_many_segments_and_the_next_one_continues_there() {
        const LEN: usize = if cfg!(miri) { 3000 } else { 100_000 };
        let volatile = |number: usize| number % (LEN / 4) == 1;
        let table = table(LEN, volatile);
        let mut seed = 0u64;
        let mut random = || {
            seed += 1;
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        };
        let mut sample = Sample::new(Sampled::Volatile, 100, &mut random);
        let (mut found, mut steps, mut is_complete) = (BTreeMap::<Vec<u8>, usize>::new(), 0, false);
        while !is_complete {
            let mut segments_left = 3;
            is_complete = table.sample(&mut sample, &mut segments_left, &mut random, &mut |entry| {
                *found.entry(entry.key().to_vec()).or_default() += 1;
            });
            assert!(is_complete || segments_left == 0, "a step ends early only if the sample is complete");
            steps += 1;
        }
        let expected: BTreeMap<Vec<u8>, usize> = (0..LEN)
            .filter(|&number| volatile(number))
            .map(|n| (format!("key:{n}").into_bytes(), 1))
            .collect();
        assert_eq!(found, expected, "a walk through the table finds each once");
        assert!(steps > 2, "{steps}");
    }

    #[test]
    fn a_sample_of_a_table_that_is_empty_meanwhile_is_complete() {
        let mut table = table(1000, |number| number == 7);
        let mut sample = Sample::new(Sampled::Volatile, 5, &mut || 1);
        table.clear();
        assert!(table.sample(&mut sample, &mut 1, &mut || 1, &mut |_| panic!("there is no entry")));
    }

    #[test]
    fn a_small_table_is_visited_whole() {
        assert_eq!(draw(&table(3, |_| false), Sampled::All, 20).len(), 3);
    }
}
