//! Big sorted sets: a tree for the order, an index for the members, and an arena for the elements that both name.
//!
//! ```text
//! member -> index --\
//!                    handle (32 bits) -> arena: { score, member }
//! score, rank -> tree --/
//! ```
//!
//! Redis' skiplist and hash table take 85 bytes for an element with a member of 17 bytes; this takes about 47: 28 for
//! the element, 10 in the tree and 7 in the index. Everything grows and shrinks in small steps.
//!
//! Small sorted sets are `packed`; a `ZSetView` reads either.

mod arena;
mod build;
mod edit;
mod fetch;
mod index;
mod inner;
mod iter;
mod leaf;
mod long;
mod order;
pub mod packed;
mod random;
mod save;
mod tree;
mod view;

#[cfg(test)]
mod tests;

pub use build::Builder;
pub use edit::{Outcome, ZSetLimits, ZSetMut, into_value};
pub(super) use fetch::Fetch;
pub use index::CURSOR_BITS;
pub use iter::Iter;
pub use view::{ViewIter, ZSetView};

use super::entry::Encoding;
use super::object::Collection;
use super::save::{Slot, Sweep};
use arena::{Arena, Handle};
use index::{Index, Place};
use order::{Bound, order_key};
use std::ops::Range;
use tree::Tree;

/// After a removal, so many elements are moved at most, so that the arena can shrink.
const MOVES_PER_REMOVAL: usize = 2;

/// A sorted set of any size.
pub struct ZSet {
    arena: Arena,
    index: Index,
    tree: Tree,
    /// While it is saved, from the last element to the first: the element that was visited last. `None`: there was none.
    saving: Slot<Sweep<Option<(u64, Box<[u8]>)>>>,
}

/// What was found for a member. It is used up by the next change of the set.
#[derive(Clone, Copy)]
pub struct Spot {
    place: Place,
    handle: Option<Handle>,
}

impl Spot {
    /// Whether the set has the member.
    #[inline]
    pub fn is_present(&self) -> bool {
        self.handle.is_some()
    }
}

impl Default for ZSet {
    fn default() -> Self {
        ZSet::new()
    }
}

impl ZSet {
    pub fn new() -> ZSet {
        ZSet { arena: Arena::new(), index: Index::new(), tree: Tree::new(), saving: Slot::EMPTY }
    }

    /// Looks a member up, to read or to change it.
    #[inline]
    pub fn find(&self, member: &[u8]) -> Spot {
        let place = Place::of(member);
        Spot { place, handle: self.index.find(place, &self.arena, member) }
    }

    /// The score of a member that was looked up.
    #[inline]
    pub fn score_at(&self, spot: Spot) -> Option<f64> {
        spot.handle.map(|handle| self.arena.score(handle))
    }

    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.score_at(self.find(member))
    }

    /// Adds a member, or changes its score. `score` is a number.
    pub fn set(&mut self, spot: Spot, member: &[u8], score: f64) {
        debug_assert!(!score.is_nan());
        if !self.saving.is_empty() {
            self.save_before_change(spot, member, score);
        }
        let new_key = order_key(score);
        let Some(handle) = spot.handle else {
            let handle = self.arena.add(member, score);
            self.index.insert(spot.place, handle, &self.arena);
            self.tree.insert(new_key, handle, &self.arena);
            return;
        };
        let key = order_key(self.arena.score(handle));
        let keeps_place = key == new_key || self.tree.keep_or_remove(key, handle, new_key, &self.arena);
        self.arena.set_score(handle, score);
        if !keeps_place {
            self.tree.insert(new_key, handle, &self.arena);
        }
    }

    /// Adds a member, or changes its score. Returns whether it is new.
    pub fn insert(&mut self, member: &[u8], score: f64) -> bool {
        let spot = self.find(member);
        self.set(spot, member, score);
        !spot.is_present()
    }

    /// Removes a member. Returns its score if there was one.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let spot = self.find(member);
        let handle = spot.handle?;
        let score = self.arena.score(handle);
        self.remove_element(spot.place, handle);
        Some(score)
    }

    fn remove_element(&mut self, place: Place, handle: Handle) {
        if !self.saving.is_empty() {
            self.save_before_removal(handle);
        }
        let key = order_key(self.arena.score(handle));
        self.tree.remove(key, handle, &self.arena);
        self.index.remove(place, handle, &self.arena);
        self.arena.remove(handle);
        for _ in 0..MOVES_PER_REMOVAL {
            if !self.move_element() {
                break;
            }
        }
    }

    /// Moves an element out of the arena's last chunk if that is worth it.
    #[inline]
    fn move_element(&mut self) -> bool {
        let Some(old) = self.arena.next_to_move() else { return false };
        let Some(new) = self.arena.move_down(old) else { return false };
        let key = order_key(self.arena.score(old));
        self.tree.replace(key, old, new, &self.arena);
        self.index.replace(Place::of(self.arena.member(old)), old, new);
        self.arena.leave(old);
        true
    }

    /// Removes the element of a rank that exists. `removed` gets it before it goes.
    pub fn remove_rank(&mut self, rank: usize, removed: impl FnOnce(&[u8], f64)) {
        let (leaf, at) = self.tree.leaf_at(rank);
        let handle = leaf.handles()[at];
        let member = self.arena.member(handle);
        removed(member, self.arena.score(handle));
        let place = Place::of(member);
        self.remove_element(place, handle);
    }

    /// A member's rank and score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let handle = self.find(member).handle?;
        let score = self.arena.score(handle);
        let bound = Bound::Element { key: order_key(score), member };
        Some((self.tree.rank(bound, &self.arena) - 1, score))
    }

    /// How many elements have a lower score than this, or the same if `with` it.
    pub fn count_to_score(&self, score: f64, with: bool) -> usize {
        self.tree.rank(Bound::Score { key: order_key(score), with }, &self.arena)
    }

    /// In a set whose scores are all the same: how many members are less than this, or equal if `with` it.
    pub fn count_to_member(&self, member: &[u8], with: bool) -> usize {
        self.tree.rank(Bound::Member { member, with }, &self.arena)
    }

    /// The element of a rank that exists.
    pub fn at(&self, rank: usize) -> (&[u8], f64) {
        let (leaf, at) = self.tree.leaf_at(rank);
        let handle = leaf.handles()[at];
        (self.arena.member(handle), self.arena.score(handle))
    }

    /// The elements of some ranks, from both ends. The ranks exist.
    pub fn iter(&self, ranks: Range<usize>) -> Iter<'_> {
        Iter::new(self, ranks)
    }

    /// Visits about `count` elements, in the order of a scan. `cursor` is 0, or what the call before has returned; 0 is
    /// returned at the end. What is in the set from the first call to the last is visited at least once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        self.index.scan(cursor, count, &mut |handle| {
            visit(self.arena.member(handle), self.arena.score(handle));
        })
    }
}

impl Collection for ZSet {
    #[inline]
    fn len(&self) -> usize {
        self.tree.len()
    }

    fn heap_bytes(&self) -> usize {
        size_of::<ZSet>() + self.arena.heap_bytes() + self.index.heap_bytes() + self.tree.heap_bytes()
    }

    fn free_cost(&self) -> usize {
        self.tree.node_count() + self.index.segment_count() + self.arena.free_cost()
    }

    fn free_some(&mut self, budget: &mut usize) -> bool {
        self.tree.free_some(budget) && self.index.free_some(budget) && self.arena.free_some(budget)
    }

    fn duplicate(&self) -> ZSet {
        ZSet {
            arena: self.arena.duplicate(),
            index: self.index.duplicate(),
            tree: self.tree.clone(),
            saving: Slot::EMPTY,
        }
    }

    fn encoding(&self) -> Encoding {
        Encoding::Skiplist
    }
}
