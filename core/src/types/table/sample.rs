//! Samples: a few entries at a random place, among which eviction chooses.

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

impl Table {
    /// Visits up to `count` entries whose places follow each other, from a random one on. (Places are given by hashes, so
    /// neighbours have nothing else in common.) The same entry may be visited twice in a table of few entries.
    pub fn sample(
        &self,
        sampled: Sampled,
        count: usize,
        random: &mut dyn FnMut() -> u64,
        visit: &mut dyn FnMut(Entry<'_>),
    ) {
        let is_volatile = sampled == Sampled::Volatile;
        let total = if is_volatile { self.expires_len() } else { self.len() };
        if total == 0 {
            return;
        }
        let count = count.min(total);
        let mut found: SmallVec<[EntryPtr; 16]> = SmallVec::new();
        let first = slanted(random());
        let (mut hash, mut has_wrapped) = (first, false);
        while found.len() < count && !(has_wrapped && hash > first) {
            let (page_expiry_ms, page_depth) = self.directory.page_expiry(hash);
            let next = if is_volatile && page_expiry_ms == NEVER {
                end_of_prefix(hash, page_depth)
            } else {
                // SAFETY: the directory's segments are live.
                let segment = unsafe { &*self.directory.segment(hash) };
                let start = below(SEGMENT_SLOTS, random());
                segment.slots_from(start, is_volatile).take(count - found.len()).for_each(|entry| {
                    prefetch(entry.cell().as_ptr().cast());
                    found.push(entry);
                });
                end_of_prefix(hash, segment.depth())
            };
            match next {
                Some(next) => hash = next,
                // All hashes from here to the first have been visited, or it is the only segment.
                None if has_wrapped => break,
                None => (hash, has_wrapped) = (0, true),
            }
        }
        found.into_iter().for_each(|entry| visit(Entry::new(entry)));
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
        for _ in 0..samples {
            let mut count = 0;
            table.sample(sampled, 5, &mut random, &mut |entry| {
                *drawn.entry(entry.key().to_vec()).or_default() += 1;
                count += 1;
            });
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
    fn a_small_table_is_visited_whole() {
        assert_eq!(draw(&table(3, |_| false), Sampled::All, 20).len(), 3);
    }
}
