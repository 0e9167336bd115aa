//! A sorted set to read, whether it is small or big.

use super::packed::{Packed, PackedMut};
use super::{Builder, ZSet, packed};
use crate::types::entry::{PackedKind, ValueRef};
use crate::types::listpack::{self, Item};
use crate::types::object::{Collection, Object};
use std::ops::Range;

/// A sorted set to read. Members are numbers where a small set stores them as such.
#[derive(Clone, Copy)]
pub enum ZSetView<'a> {
    Packed(Packed<'a>),
    Big(&'a ZSet),
}

/// The elements of some ranks, from both ends.
pub enum ViewIter<'a> {
    Packed(packed::Iter<'a>),
    Big(super::Iter<'a>),
}

impl<'a> ZSetView<'a> {
    /// `None` if the value is of another type.
    #[inline]
    pub fn of(value: ValueRef<'a>) -> Option<ZSetView<'a>> {
        match value {
            ValueRef::Packed(PackedKind::ZSet, bytes) => Some(ZSetView::Packed(Packed::new(bytes))),
            ValueRef::Object(Object::ZSet(set)) => Some(ZSetView::Big(set)),
            ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => None,
        }
    }

    #[inline]
    pub fn len(self) -> usize {
        match self {
            ZSetView::Packed(packed) => packed.len(),
            ZSetView::Big(set) => set.len(),
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            ZSetView::Packed(packed) => packed.find(member).map(|pos| packed.score_at(pos)),
            ZSetView::Big(set) => set.score(member),
        }
    }

    /// A member's rank and score.
    pub fn rank(self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            ZSetView::Packed(packed) => packed.rank(member),
            ZSetView::Big(set) => set.rank(member),
        }
    }

    /// How many elements have a lower score than this, or the same if `with` it.
    pub fn count_to_score(self, score: f64, with: bool) -> usize {
        match self {
            ZSetView::Packed(packed) => packed.count_to_score(score, with),
            ZSetView::Big(set) => set.count_to_score(score, with),
        }
    }

    /// In a set whose scores are all the same: how many members are less than this, or equal if `with` it.
    pub fn count_to_member(self, member: &[u8], with: bool) -> usize {
        match self {
            ZSetView::Packed(packed) => packed.count_to_member(member, with),
            ZSetView::Big(set) => set.count_to_member(member, with),
        }
    }

    /// The element of a rank that exists.
    pub fn at(self, rank: usize) -> (Item<'a>, f64) {
        match self {
            ZSetView::Packed(packed) => packed.at(rank),
            ZSetView::Big(set) => {
                let (member, score) = set.at(rank);
                (Item::Str(member), score)
            }
        }
    }

    /// The elements of some ranks, from both ends. The ranks exist.
    pub fn iter(self, ranks: Range<usize>) -> ViewIter<'a> {
        match self {
            ZSetView::Packed(packed) => ViewIter::Packed(packed.iter(ranks)),
            ZSetView::Big(set) => ViewIter::Big(set.iter(ranks)),
        }
    }

    /// Calls `visit` with the elements of some ranks, in order or, if `reverse`, from the last one on.
    #[inline]
    pub fn for_each(self, ranks: Range<usize>, reverse: bool, mut visit: impl FnMut(Item<'a>, f64)) {
        match (self, reverse) {
            (ZSetView::Packed(packed), false) => {
                packed.iter(ranks).for_each(|(member, score)| visit(member, score));
            }
            (ZSetView::Packed(packed), true) => {
                packed.iter(ranks).rev().for_each(|(member, score)| visit(member, score));
            }
            (ZSetView::Big(set), false) => {
                set.iter(ranks).for_each(|(member, score)| visit(Item::Str(member), score));
            }
            (ZSetView::Big(set), true) => {
                set.iter(ranks).rev().for_each(|(member, score)| visit(Item::Str(member), score));
            }
        }
    }

    /// A big set of the same elements.
    pub fn to_big(self) -> ZSet {
        let mut builder = Builder::new();
        let mut digits = listpack::Digits::new();
        self.for_each(0..self.len(), false, |member, score| {
            let member = member.bytes(&mut digits);
            builder.set(builder.find(member), member, score);
        });
        builder.finish()
    }

    /// The bytes of a small set of the same elements.
    pub fn to_packed(self) -> Vec<u8> {
        let mut bytes = listpack::EMPTY.to_vec();
        let mut digits = listpack::Digits::new();
        self.for_each(0..self.len(), false, |member, score| {
            PackedMut::new(&mut bytes).push(Item::of(member.bytes(&mut digits)), score);
        });
        bytes
    }
}

impl<'a> Iterator for ViewIter<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            ViewIter::Packed(iter) => iter.next(),
            ViewIter::Big(iter) => iter.next().map(|(member, score)| (Item::Str(member), score)),
        }
    }
}

impl DoubleEndedIterator for ViewIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            ViewIter::Packed(iter) => iter.next_back(),
            ViewIter::Big(iter) => iter.next_back().map(|(member, score)| (Item::Str(member), score)),
        }
    }
}
