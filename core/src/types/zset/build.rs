//! Building a whole sorted set at once: members in any order, the tree at the end.

use super::arena::Handle;
use super::index::Place;
use super::order::order_key;
use super::tree::{First, Tree};
use super::{Spot, ZSet};
use smallvec::SmallVec;

/// A sorted set that is being built. Members can be looked up, but are in no order yet.
#[derive(Default)]
pub struct Builder {
    /// Its tree is empty.
    set: ZSet,
    handles: Vec<Handle>,
}

impl Builder {
    pub fn new() -> Builder {
        Builder::default()
    }

    pub fn len(&self) -> usize {
        self.handles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// Looks a member up, to read or to change it.
    #[inline]
    pub fn find(&self, member: &[u8]) -> Spot {
        self.set.find(member)
    }

    /// The score of a member that was looked up.
    #[inline]
    pub fn score_at(&self, spot: Spot) -> Option<f64> {
        self.set.score_at(spot)
    }

    /// Adds a member, or changes its score. `score` is a number.
    pub fn set(&mut self, spot: Spot, member: &[u8], score: f64) {
        match spot.handle {
            Some(handle) => self.set.arena.set_score(handle, score),
            None => {
                let handle = self.set.arena.add(member, score);
                self.set.index.insert(spot.place, handle, &self.set.arena);
                self.handles.push(handle);
            }
        }
    }

    /// Adds members, which are looked up together, so that their cache misses overlap. Returns false at one that is there.
    pub fn add_new(&mut self, members: &[(&[u8], f64)]) -> bool {
        let places: SmallVec<[Place; 16]> = members.iter().map(|(member, _)| Place::of(member)).collect();
        places.iter().for_each(|&place| self.set.index.prefetch_segment(place));
        places.iter().for_each(|&place| self.set.index.prefetch_slots(place));
        members.iter().zip(places).all(|(&(member, score), place)| {
            let handle = self.set.index.find(place, &self.set.arena, member);
            let is_new = handle.is_none();
            if is_new {
                self.set(Spot { place, handle }, member, score);
            }
            is_new
        })
    }

    /// Puts the members in order. That is fast if they came in order, or in reverse.
    pub fn finish(self) -> ZSet {
        let Builder { mut set, handles } = self;
        let arena = &set.arena;
        let mut elements: Vec<First> =
            handles.iter().map(|&handle| (order_key(arena.score(handle)), handle)).collect();
        drop(handles);
        let compare = |left: &First, right: &First| {
            left.0.cmp(&right.0).then_with(|| arena.member(left.1).cmp(arena.member(right.1)))
        };
        elements.sort_unstable_by(compare);
        set.tree = Tree::build(&elements);
        set
    }
}
