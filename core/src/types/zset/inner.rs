//! Inner: a node above others, with the first element and the number of elements of each child.

use super::arena::{Arena, Handle};
use super::leaf::{LEAF_LEN, Leaf};
use super::order::Bound;
use super::tree::{Edge, First, Node};
use crate::types::{prefetch, prefetch_all};

pub(super) const FANOUT: usize = 32;

#[derive(Clone)]
pub(super) struct Inner {
    /// The scores and handles of the children's first elements.
    keys: [u64; FANOUT],
    handles: [Handle; FANOUT],
    /// The children's numbers of elements.
    counts: [u32; FANOUT],
    children: [Option<Node>; FANOUT],
    len: u8,
}

/// Neighbours are merged if they fill no more than this share of one.
const MERGED_SHARE: (usize, usize) = (7, 8);
/// A leaf shares with a neighbour that has at least this much room.
const SHARED_ROOM_MIN: usize = LEAF_LEN / 8;

impl Inner {
    /// The node above a root that is to be split.
    pub(super) fn above(root: Node, arena: &Arena) -> Box<Inner> {
        let first = root.first(arena).expect("a full node has a first element");
        Inner::of(std::iter::once((root, first)))
    }

    pub(super) fn of(children: impl Iterator<Item = (Node, First)>) -> Box<Inner> {
        let mut inner = Box::new(Inner {
            keys: [0; FANOUT],
            handles: [0; FANOUT],
            counts: [0; FANOUT],
            children: [const { None }; FANOUT],
            len: 0,
        });
        for (child, first) in children {
            let len = inner.len();
            inner.insert_child(len, child, first);
        }
        inner
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn count(&self) -> usize {
        self.count_before(self.len())
    }

    /// The number of elements in the children before `at`.
    #[inline]
    pub(super) fn count_before(&self, at: usize) -> usize {
        self.counts[..at].iter().map(|&count| count as usize).sum()
    }

    pub(super) fn first(&self) -> Option<First> {
        (self.len > 0).then(|| (self.keys[0], self.handles[0]))
    }

    #[inline]
    pub(super) fn child(&self, at: usize) -> &Node {
        self.children[at].as_ref().expect("a place below the length has a child")
    }

    #[inline]
    pub(super) fn child_mut(&mut self, at: usize) -> &mut Node {
        self.children[at].as_mut().expect("a place below the length has a child")
    }

    /// The child that a bound lies in: the last one whose first element lies before it, or the first one.
    #[inline]
    pub(super) fn child_of(&self, bound: Bound<'_>, arena: &Arena) -> usize {
        let len = self.len();
        let Some(key) = bound.key() else {
            return self.handles[1..len].partition_point(|&handle| bound.is_behind_member(handle, arena));
        };
        let keys = &self.keys[1..len];
        let start = keys.partition_point(|&other| other < key);
        if keys.get(start) != Some(&key) {
            return start;
        }
        let equal = keys[start..].partition_point(|&other| other == key);
        let handles = &self.handles[1 + start..1 + start + equal];
        start + handles.partition_point(|&handle| bound.is_behind_equal(handle, arena))
    }

    /// About where [`Inner::child_of`] leads to, by the keys alone.
    #[inline]
    pub(super) fn child_near(&self, key: u64) -> usize {
        self.keys[1..self.len()].partition_point(|&other| other < key)
    }

    /// Fetches what tells the child of a score.
    pub(super) fn prefetch_keys(&self) {
        prefetch_all(&self.keys);
        prefetch(&raw const self.len);
    }

    /// Fetches what is known of a child, which may be changed.
    pub(super) fn prefetch_child(&self, at: usize) {
        prefetch((&raw const self.children[at]).cast());
        prefetch((&raw const self.counts[at]).cast());
        prefetch((&raw const self.handles[at]).cast());
    }

    /// The child with the element of a rank, and how many elements lie in those before it.
    #[inline]
    pub(super) fn child_at(&self, rank: usize) -> (usize, usize) {
        let mut before = 0;
        for (at, &count) in self.counts[..self.len()].iter().enumerate() {
            if rank < before + count as usize {
                return (at, before);
            }
            before += count as usize;
        }
        unreachable!("the rank is below the number of elements")
    }

    /// Notes that an element comes to a child.
    pub(super) fn added_to(&mut self, at: usize, element: First, bound: Bound<'_>, arena: &Arena) {
        self.counts[at] += 1;
        // Only before the first child's first element there is room that belongs to no child.
        let is_first = at == 0
            && (element.0 < self.keys[0]
                || element.0 == self.keys[0] && !bound.is_behind_equal(self.handles[0], arena));
        if is_first {
            (self.keys[0], self.handles[0]) = element;
        }
    }

    /// Notes that an element was removed from a child.
    pub(super) fn removed_from(&mut self, at: usize, element: First, arena: &Arena) {
        self.counts[at] -= 1;
        if self.handles[at] == element.1
            && let Some(first) = self.child(at).first(arena)
        {
            (self.keys[at], self.handles[at]) = first;
        }
    }

    pub(super) fn replace_first(&mut self, at: usize, old: Handle, new: Handle) {
        if self.handles[at] == old {
            self.handles[at] = new;
        }
    }

    fn insert_child(&mut self, at: usize, child: Node, first: First) {
        let len = self.len();
        self.keys.copy_within(at..len, at + 1);
        self.handles.copy_within(at..len, at + 1);
        self.counts.copy_within(at..len, at + 1);
        self.children[at..=len].rotate_right(1);
        (self.keys[at], self.handles[at]) = first;
        self.counts[at] = child.count() as u32;
        self.children[at] = Some(child);
        self.len += 1;
    }

    fn remove_child(&mut self, at: usize) -> Node {
        let len = self.len();
        let child = self.children[at].take().expect("a place below the length has a child");
        self.keys.copy_within(at + 1..len, at);
        self.handles.copy_within(at + 1..len, at);
        self.counts.copy_within(at + 1..len, at);
        self.children[at..len].rotate_left(1);
        self.len -= 1;
        child
    }

    pub(super) fn pop_child(&mut self) -> Node {
        self.remove_child(self.len() - 1)
    }

    /// Sets what is known of a child anew.
    fn refresh(&mut self, at: usize, arena: &Arena) {
        let child = self.child(at);
        let (first, count) = (child.first(arena).expect("a child has an element"), child.count());
        (self.keys[at], self.handles[at]) = first;
        self.counts[at] = count as u32;
    }

    /// Two neighbouring leaves, `at` and the next; `None` if they are no leaves.
    fn leaves(&mut self, at: usize) -> Option<(&mut Leaf, &mut Leaf)> {
        match &mut self.children[at..at + 2] {
            [Some(Node::Leaf(left)), Some(Node::Leaf(right))] => Some((left, right)),
            _ => None,
        }
    }

    /// Moves elements from the full leaf `at` to a neighbour with room. Returns whether there was one. At the edges of
    /// the tree, where scores may come in order, it is better to split.
    pub(super) fn share(&mut self, at: usize, edge: Edge, arena: &Arena) -> bool {
        let len = self.len();
        if !matches!(self.child(at), Node::Leaf(_)) || (edge.first && at == 0) || (edge.last && at + 1 == len)
        {
            return false;
        }
        let room = |at: usize| LEAF_LEN - self.child(at).len();
        let right = if at + 1 < len { room(at + 1) } else { 0 };
        let left = if at > 0 { room(at - 1) } else { 0 };
        let moved = left.max(right).div_ceil(2);
        if moved < SHARED_ROOM_MIN {
            return false;
        }
        let lower = if right >= left { at } else { at - 1 };
        let Some((lower_leaf, upper_leaf)) = self.leaves(lower) else { return false };
        if lower == at {
            lower_leaf.move_to_next(LEAF_LEN - moved, upper_leaf, arena);
        } else {
            upper_leaf.move_to_previous(moved, lower_leaf, arena);
        }
        self.refresh(lower, arena);
        self.refresh(lower + 1, arena);
        true
    }

    /// Splits the full child `at`. This node is not full.
    pub(super) fn split(&mut self, at: usize, edge: Edge, arena: &Arena) {
        let child_len = self.child(at).len();
        // Ascending, or descending, scores fill the half that is left behind no further.
        let cut = if edge.last && at + 1 == self.len() {
            child_len - child_len / 8
        } else if edge.first && at == 0 {
            child_len / 8
        } else {
            child_len / 2
        };
        let right = match self.child_mut(at) {
            Node::Leaf(leaf) => Node::Leaf(leaf.split_off(cut, arena)),
            Node::Inner(inner) => Node::Inner(inner.split_off(cut)),
        };
        let first = right.first(arena).expect("both halves have elements");
        self.counts[at] = self.child(at).count() as u32;
        self.insert_child(at + 1, right, first);
    }

    fn split_off(&mut self, at: usize) -> Box<Inner> {
        let firsts: Vec<First> =
            (at..self.len()).map(|child| (self.keys[child], self.handles[child])).collect();
        let children = self.children[at..].iter_mut().filter_map(Option::take);
        let right = Inner::of(children.zip(firsts));
        self.len = at as u8;
        right
    }

    /// After a removal from child `at`: merges it with a neighbour if both fit into one, and drops it if it is empty.
    /// Returns the node that is no longer needed.
    pub(super) fn merge_around(&mut self, at: usize, arena: &Arena) -> Option<Node> {
        let len = self.child(at).len();
        if len == 0 {
            return Some(self.remove_child(at));
        }
        let len_max = self.child(at).len_max();
        if len > len_max / 2 {
            return None;
        }
        let fits =
            |other: usize| (self.child(other).len() + len) * MERGED_SHARE.1 <= len_max * MERGED_SHARE.0;
        let lower = if at + 1 < self.len() && fits(at + 1) {
            at
        } else if at > 0 && fits(at - 1) {
            at - 1
        } else {
            return None;
        };
        let mut upper = self.remove_child(lower + 1);
        match (self.child_mut(lower), &mut upper) {
            (Node::Leaf(lower), Node::Leaf(upper)) => upper.move_to_previous(upper.len(), lower, arena),
            (Node::Inner(lower), Node::Inner(upper)) => lower.append(upper),
            _ => unreachable!("the children of a node have the same height"),
        }
        self.counts[lower] = self.child(lower).count() as u32;
        Some(upper)
    }

    fn append(&mut self, other: &mut Inner) {
        for at in 0..other.len() {
            let child = other.children[at].take().expect("a place below the length has a child");
            let len = self.len();
            self.insert_child(len, child, (other.keys[at], other.handles[at]));
        }
        other.len = 0;
    }

    /// Frees the last leaf below it, or a node that has become empty. Returns the bytes of that.
    pub(super) fn free_last(&mut self) -> usize {
        let mut node = self;
        loop {
            let last = node.len() - 1;
            let is_next = match node.child(last) {
                Node::Inner(inner) => inner.len() > 0,
                Node::Leaf(_) => false,
            };
            if !is_next {
                return match node.remove_child(last) {
                    Node::Leaf(leaf) => size_of_val(&*leaf),
                    Node::Inner(inner) => size_of_val(&*inner),
                };
            }
            let Node::Inner(inner) = node.child_mut(last) else { unreachable!("seen above") };
            node = inner;
        }
    }
}

#[cfg(test)]
impl Inner {
    /// Checks what it knows of its children.
    pub(super) fn check(&self, arena: &Arena) {
        for at in 0..self.len() {
            let child = self.child(at);
            assert_eq!(child.first(arena), Some((self.keys[at], self.handles[at])));
            assert_eq!(child.count(), self.counts[at] as usize);
        }
    }
}
