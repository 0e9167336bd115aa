//! Random elements.

use super::ZSetView;
use crate::types::below;
use crate::types::listpack::Item;
use ahash::AHashSet;
use std::ops::ControlFlow;

/// If more than one in so many elements is to be chosen, all are walked over.
const WALKED_SHARE: usize = 4;

/// `random` returns random numbers.
impl<'a> ZSetView<'a> {
    /// A random element. The set is not empty.
    pub fn random(self, random: &mut impl FnMut() -> u64) -> (Item<'a>, f64) {
        self.at(below(self.len(), random()))
    }

    /// Calls `visit` with `count` different random elements; there are as many.
    pub fn sample(
        self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>, f64),
    ) {
        let len = self.len();
        if count > len / WALKED_SHARE {
            // Knuth's algorithm S: each element is chosen with the probability that the rest of the choice leaves it.
            let (mut left, mut wanted) = (len, count);
            self.for_each(0..len, false, |member, score| {
                if below(left, random()) < wanted {
                    visit(member, score);
                    wanted -= 1;
                }
                left -= 1;
            });
            return;
        }
        let mut chosen = AHashSet::with_capacity(count);
        while chosen.len() < count {
            let rank = below(len, random());
            if chosen.insert(rank) {
                let (member, score) = self.at(rank);
                visit(member, score);
            }
        }
    }

    /// Calls `visit` with `count` random elements, each chosen from all, until it breaks. The set is not empty.
    pub fn draw(
        self,
        count: u64,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>, f64) -> ControlFlow<()>,
    ) {
        let elements: Vec<(Item<'a>, f64)> = match self {
            ZSetView::Packed(packed) => packed.iter(0..packed.len()).collect(),
            ZSetView::Big(_) => Vec::new(),
        };
        for _ in 0..count {
            let (member, score) = match self {
                ZSetView::Packed(_) => elements[below(elements.len(), random())],
                ZSetView::Big(_) => self.random(random),
            };
            if visit(member, score).is_break() {
                return;
            }
        }
    }
}
