//! Iteration over elements in order, from both ends.

use super::ZSet;
use super::leaf::Leaf;
use std::ops::Range;

/// How far ahead elements are fetched into the cache.
const AHEAD: usize = 8;

/// The elements of a range of ranks: members with their scores.
pub struct Iter<'a> {
    set: &'a ZSet,
    ranks: Range<usize>,
    /// The leaf that the next element lies in, and the element's place.
    front: Option<(&'a Leaf, usize)>,
    /// The same for the next element from the end.
    back: Option<(&'a Leaf, usize)>,
}

impl<'a> Iter<'a> {
    pub(super) fn new(set: &'a ZSet, ranks: Range<usize>) -> Iter<'a> {
        Iter { set, ranks, front: None, back: None }
    }

    fn element(&self, leaf: &'a Leaf, at: usize) -> (&'a [u8], f64) {
        let handle = leaf.handles()[at];
        (self.set.arena.member(handle), self.set.arena.score(handle))
    }

    fn fetch(&self, leaf: &Leaf, places: Range<usize>) {
        for &handle in leaf.handles().get(places).unwrap_or_default() {
            self.set.arena.prefetch(handle);
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rank = self.ranks.next()?;
        let (leaf, at) = match self.front {
            Some((leaf, at)) => (leaf, at),
            None => {
                let (leaf, at) = self.set.tree.leaf_at(rank);
                self.fetch(leaf, at..leaf.len().min(at + AHEAD).min(at + 1 + self.ranks.len()));
                (leaf, at)
            }
        };
        if self.ranks.len() >= AHEAD {
            self.fetch(leaf, at + AHEAD..at + AHEAD + 1);
        }
        self.front = (at + 1 < leaf.len()).then_some((leaf, at + 1));
        Some(self.element(leaf, at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let rank = self.ranks.next_back()?;
        let (leaf, at) = match self.back {
            Some((leaf, at)) => (leaf, at),
            None => {
                let (leaf, at) = self.set.tree.leaf_at(rank);
                self.fetch(leaf, at.saturating_sub(AHEAD.min(self.ranks.len()))..at + 1);
                (leaf, at)
            }
        };
        if self.ranks.len() >= AHEAD && at >= AHEAD {
            self.fetch(leaf, at - AHEAD..at - AHEAD + 1);
        }
        self.back = at.checked_sub(1).map(|before| (leaf, before));
        Some(self.element(leaf, at))
    }
}

impl ExactSizeIterator for Iter<'_> {}
