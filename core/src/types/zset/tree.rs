//! Tree: the elements in order, as a B+tree that knows how many elements lie below each node.
//!
//! An inner node has for each child the child's first element (score and handle) and its number of elements, so that a
//! descent finds a score, a member or a rank. The first element of a child is always one that is there. So removing the
//! first element of a leaf changes the nodes above it.
//!
//! A full leaf shares with a neighbour that has room before it is split, which keeps leaves fuller than splits alone
//! do. At both ends of the tree a split leaves the old leaf nearly full: scores often are times, or counters.
//!
//! The height is a logarithm, so recursion over it has a depth of a few.

use super::arena::{Arena, Handle};
use super::inner::{FANOUT, Inner};
use super::leaf::{LEAF_LEN, Leaf};
use super::order::Bound;

#[derive(Clone)]
pub(super) enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

/// A node's first element.
pub(super) type First = (u64, Handle);

impl Node {
    pub(super) fn is_full(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() == LEAF_LEN,
            Node::Inner(inner) => inner.len() == FANOUT,
        }
    }

    /// Its entries: elements of a leaf, children of an inner node.
    pub(super) fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(inner) => inner.len(),
        }
    }

    pub(super) fn len_max(&self) -> usize {
        match self {
            Node::Leaf(_) => LEAF_LEN,
            Node::Inner(_) => FANOUT,
        }
    }

    /// Its elements.
    pub(super) fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(inner) => inner.count(),
        }
    }

    pub(super) fn first(&self, arena: &Arena) -> Option<First> {
        match self {
            Node::Leaf(leaf) => (leaf.len() > 0).then(|| (leaf.key(0, arena), leaf.handles()[0])),
            Node::Inner(inner) => inner.first(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Node::Leaf(_) => size_of::<Leaf>(),
            Node::Inner(_) => size_of::<Inner>(),
        }
    }

    /// Removes an element that is there, unless it keeps its place with a score of `new_key`, and that is seen at once:
    /// then it gets the score.
    fn take_out(&mut self, key: u64, handle: Handle, new_key: Option<u64>, arena: &Arena) -> TakenOut {
        let inner = match self {
            Node::Leaf(leaf) => {
                let at = leaf.find(key, handle);
                if new_key.is_some_and(|new_key| leaf.change_within(at, new_key)) {
                    return TakenOut::Kept;
                }
                leaf.remove(at);
                return TakenOut::Removed { freed_bytes: 0 };
            }
            Node::Inner(inner) => inner,
        };
        let at = inner.child_of(Bound::Element { key, member: arena.member(handle) }, arena);
        let taken_out = inner.child_mut(at).take_out(key, handle, new_key, arena);
        let TakenOut::Removed { freed_bytes } = taken_out else { return taken_out };
        inner.removed_from(at, (key, handle), arena);
        let dropped_bytes = inner.merge_around(at, arena).map_or(0, |dropped| dropped.bytes());
        TakenOut::Removed { freed_bytes: freed_bytes + dropped_bytes }
    }

    /// Fetches what a descent through it reads first.
    pub(super) fn prefetch(&self) {
        match self {
            Node::Leaf(leaf) => leaf.prefetch(),
            Node::Inner(inner) => inner.prefetch_keys(),
        }
    }
}

/// What became of an element that was to be taken out.
enum TakenOut {
    /// It has its new score where it is.
    Kept,
    /// So many bytes of nodes are no longer needed.
    Removed { freed_bytes: usize },
}

#[derive(Clone)]
pub(super) struct Tree {
    root: Node,
    len: usize,
    /// Bytes of all nodes.
    bytes: usize,
}

impl Tree {
    pub(super) fn new() -> Self {
        Tree { root: Node::Leaf(Leaf::new()), len: 0, bytes: size_of::<Leaf>() }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Adds an element that is not there yet.
    pub(super) fn insert(&mut self, key: u64, handle: Handle, arena: &Arena) {
        self.len += 1;
        if self.root.is_full() {
            let root = std::mem::replace(&mut self.root, Node::Leaf(Leaf::new()));
            self.root = Node::Inner(Inner::above(root, arena));
            self.bytes += size_of::<Inner>();
        }
        let bound = Bound::Element { key, member: arena.member(handle) };
        let mut edge = Edge { first: true, last: true };
        let mut node = &mut self.root;
        loop {
            let inner = match node {
                Node::Leaf(leaf) => return leaf.insert(key, handle, arena),
                Node::Inner(inner) => inner,
            };
            let mut at = inner.child_of(bound, arena);
            if inner.child(at).is_full() {
                if inner.share(at, edge, arena) {
                    // A neighbour had room.
                } else {
                    self.bytes += inner.child(at).bytes();
                    inner.split(at, edge, arena);
                }
                at = inner.child_of(bound, arena);
            }
            edge.first &= at == 0;
            edge.last &= at + 1 == inner.len();
            inner.added_to(at, (key, handle), bound, arena);
            node = inner.child_mut(at);
        }
    }

    /// Removes an element that is there. The arena still has it, with this score.
    pub(super) fn remove(&mut self, key: u64, handle: Handle, arena: &Arena) {
        self.take_out(key, handle, None, arena);
    }

    /// Changes the score of an element from `key` to `new_key` if it is seen at once that it keeps its place; removes it
    /// otherwise. Returns whether it keeps its place. The arena still has it, with the old score.
    pub(super) fn keep_or_remove(&mut self, key: u64, handle: Handle, new_key: u64, arena: &Arena) -> bool {
        self.take_out(key, handle, Some(new_key), arena)
    }

    fn take_out(&mut self, key: u64, handle: Handle, new_key: Option<u64>, arena: &Arena) -> bool {
        let TakenOut::Removed { freed_bytes } = self.root.take_out(key, handle, new_key, arena) else {
            return true;
        };
        self.len -= 1;
        self.bytes -= freed_bytes;
        loop {
            let Node::Inner(inner) = &mut self.root else { return false };
            match inner.len() {
                0 => {
                    self.root = Node::Leaf(Leaf::new());
                    self.bytes += size_of::<Leaf>();
                }
                1 => {
                    let child = inner.pop_child();
                    self.root = child;
                }
                _ => return false,
            }
            self.bytes -= size_of::<Inner>();
        }
    }

    /// Replaces the handle of an element that has moved. The arena has the element under both handles.
    pub(super) fn replace(&mut self, key: u64, old: Handle, new: Handle, arena: &Arena) {
        let bound = Bound::Element { key, member: arena.member(old) };
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.child_of(bound, arena);
                    inner.replace_first(at, old, new);
                    node = inner.child_mut(at);
                }
                Node::Leaf(leaf) => {
                    let at = leaf.find(key, old);
                    leaf.replace(at, new);
                    return;
                }
            }
        }
    }

    /// How many elements lie before a bound.
    pub(super) fn rank(&self, bound: Bound<'_>, arena: &Arena) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.child_of(bound, arena);
                    rank += inner.count_before(at);
                    node = inner.child(at);
                }
                Node::Leaf(leaf) => return rank + leaf.position(bound, arena),
            }
        }
    }

    /// The leaf of a rank, and the place in it. There are more elements than `rank`.
    #[inline]
    pub(super) fn leaf_at(&self, rank: usize) -> (&Leaf, usize) {
        let mut node = &self.root;
        let mut rank = rank;
        loop {
            match node {
                Node::Inner(inner) => {
                    let (at, before) = inner.child_at(rank);
                    rank -= before;
                    node = inner.child(at);
                }
                Node::Leaf(leaf) => return (leaf, rank),
            }
        }
    }

    /// Makes a tree of elements in order.
    pub(super) fn build(elements: &[First]) -> Tree {
        /// Leaves and nodes are not filled to the last place, so that the first insertion does not split them.
        const LEAF_FILL: usize = LEAF_LEN - 4;
        const INNER_FILL: usize = FANOUT - 4;
        if elements.is_empty() {
            return Tree::new();
        }
        let mut bytes = 0;
        let mut level: Vec<(Node, First)> = Vec::with_capacity(elements.len().div_ceil(LEAF_FILL));
        for some in chunks_evenly(elements, LEAF_FILL) {
            let mut leaf = Leaf::new();
            leaf.fill(some);
            bytes += size_of::<Leaf>();
            level.push((Node::Leaf(leaf), some[0]));
        }
        while level.len() > 1 {
            let node_count = level.len().div_ceil(INNER_FILL);
            let (mut children, len) = (level.into_iter(), 0);
            let total = children.len();
            level = Vec::with_capacity(node_count);
            let mut taken = len;
            for node in 0..node_count {
                let end = total * (node + 1) / node_count;
                let inner = Inner::of(children.by_ref().take(end - taken));
                taken = end;
                bytes += size_of::<Inner>();
                let first = inner.first().expect("a node has children");
                level.push((Node::Inner(inner), first));
            }
        }
        let (root, _) = level.pop().expect("there is a root");
        Tree { root, len: elements.len(), bytes }
    }

    /// Frees nodes, each for a cost of one. Returns whether only an empty root is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        self.len = 0;
        while *budget > 0 {
            let Node::Inner(inner) = &mut self.root else {
                self.root = Node::Leaf(Leaf::new());
                self.bytes = size_of::<Leaf>();
                return true;
            };
            self.bytes -= inner.free_last();
            *budget -= 1;
            if inner.len() == 0 {
                self.root = Node::Leaf(Leaf::new());
            }
        }
        false
    }

    /// About how many nodes there are.
    pub(super) fn node_count(&self) -> usize {
        self.bytes / size_of::<Leaf>()
    }
}

/// Whether a node is the first, or the last, of its level.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) first: bool,
    pub(super) last: bool,
}

/// Divides elements into as few chunks of at most `len_max` as possible, of nearly equal lengths.
fn chunks_evenly<T>(elements: &[T], len_max: usize) -> impl Iterator<Item = &[T]> {
    let count = elements.len().div_ceil(len_max);
    (0..count).map(move |at| &elements[elements.len() * at / count..elements.len() * (at + 1) / count])
}

#[cfg(test)]
impl Tree {
    /// Checks the nodes' counts and first elements, and what is counted.
    pub(super) fn check(&self, arena: &Arena) {
        let (mut bytes, mut nodes) = (0, vec![&self.root]);
        while let Some(node) = nodes.pop() {
            bytes += node.bytes();
            if let Node::Inner(inner) = node {
                assert!(inner.len() > 0);
                inner.check(arena);
                nodes.extend((0..inner.len()).map(|at| inner.child(at)));
            }
        }
        assert_eq!((self.bytes, self.len), (bytes, self.root.count()));
    }
}
