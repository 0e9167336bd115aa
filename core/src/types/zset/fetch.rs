//! Fetching what the next look-ups and changes of a big sorted set need from memory, a level at a time.
//!
//! To find a member and change its score takes some twenty cache lines, most of them one after the other: the index'
//! segment, its slots, the element, and then two paths down the tree. [`Fetch::step`] goes one of these levels further;
//! done for several members in turn, their cache misses overlap.

use super::ZSet;
use super::arena::{Arena, Handle};
use super::index::Place;
use super::order::order_key;
use super::tree::Node;
use crate::types::fetch::Sought;

/// A member that is about to be looked up.
pub(in crate::types) struct Fetch<'a> {
    set: &'a ZSet,
    place: Place,
    /// Whether its path through the tree is fetched, too.
    with_order: bool,
    level: Level,
    /// The paths to where it is, and to where it will be.
    old: Option<Path<'a>>,
    new: Option<Path<'a>>,
}

/// What has been fetched to find the member.
#[derive(Clone, Copy)]
enum Level {
    Segment,
    Slots,
    Element(Option<Handle>),
    Found,
}

impl<'a> Fetch<'a> {
    #[inline]
    pub(in crate::types) fn new(set: &'a ZSet, member: &[u8], sought: Sought) -> Fetch<'a> {
        let place = Place::of(member);
        set.index.prefetch_segment(place);
        let (with_order, new_score) = match sought {
            Sought::Element => (false, None),
            Sought::Order => (true, None),
            Sought::NewScore(score) => (true, Some(score)),
        };
        let new = new_score.map(|score| Path::new(set.tree.root(), order_key(score)));
        Fetch { set, place, with_order, level: Level::Segment, old: None, new }
    }

    /// Fetches what is needed next, by what has been fetched before. Returns whether there is more.
    #[inline]
    pub(in crate::types) fn step(&mut self) -> bool {
        let ZSet { arena, index, tree, saving: _ } = self.set;
        let is_found = matches!(self.level, Level::Found);
        self.level = match self.level {
            Level::Segment => {
                index.prefetch_slots(self.place);
                Level::Slots
            }
            Level::Slots => {
                let handle = index.probable(self.place);
                handle.into_iter().for_each(|handle| arena.prefetch(handle));
                Level::Element(handle)
            }
            Level::Element(handle) => {
                if let Some(handle) = handle.filter(|_| self.with_order) {
                    self.old = Some(Path::new(tree.root(), order_key(arena.score(handle))));
                }
                Level::Found
            }
            Level::Found => Level::Found,
        };
        for path in [&mut self.old, &mut self.new] {
            if path.as_mut().is_some_and(|path| !path.step(arena)) {
                *path = None;
            }
        }
        !is_found || self.old.is_some() || self.new.is_some()
    }
}

/// A descent to the place of a score.
struct Path<'a> {
    /// Its keys, or if it is a leaf all of it, have been fetched.
    node: &'a Node,
    /// The child to go on with, if that has been found.
    child: Option<usize>,
    key: u64,
}

impl<'a> Path<'a> {
    #[inline]
    fn new(root: &'a Node, key: u64) -> Path<'a> {
        root.prefetch();
        Path { node: root, child: None, key }
    }

    #[inline]
    fn step(&mut self, arena: &Arena) -> bool {
        match (self.node, self.child.take()) {
            (Node::Inner(inner), None) => {
                let at = inner.child_near(self.key);
                inner.prefetch_child(at);
                self.child = Some(at);
                true
            }
            (Node::Inner(inner), Some(at)) => {
                self.node = inner.child(at);
                self.node.prefetch();
                true
            }
            (Node::Leaf(leaf), _) => {
                leaf.prefetch_equal(self.key, arena);
                false
            }
        }
    }
}
