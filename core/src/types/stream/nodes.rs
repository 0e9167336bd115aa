//! The nodes of a stream, ordered by their keys: the ID of the first entry that was added to each.
//!
//! The last node is kept apart from the tree, because XADD adds to it.

use super::StreamId;
use super::node::{Entry, Node, NodeEntries};
use std::collections::{BTreeMap, btree_map};

#[derive(Default)]
pub(super) struct Nodes {
    before_last: BTreeMap<StreamId, Node>,
    last: Option<(StreamId, Node)>,
    /// Bytes allocated by the listpacks.
    listpack_bytes: usize,
}

/// The bytes of a B-tree for each of its elements: its nodes are a little more than half full if elements are added in
/// order.
pub(super) const fn tree_bytes<K, V>() -> usize {
    2 * (size_of::<K>() + size_of::<V>())
}

/// What a node costs besides its listpack.
const NODE_BYTES: usize = tree_bytes::<StreamId, Node>();

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.before_last.len() + usize::from(self.last.is_some())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.listpack_bytes + self.before_last.len() * NODE_BYTES
    }

    /// All nodes with their keys, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (StreamId, &Node)> {
        let last = self.last.iter().map(|(key, node)| (*key, node));
        self.before_last.iter().map(|(&key, node)| (key, node)).chain(last)
    }

    pub(super) fn first(&self) -> Option<(StreamId, &Node)> {
        let first = self.before_last.first_key_value().map(|(&key, node)| (key, node));
        first.or_else(|| self.last())
    }

    #[inline]
    pub(super) fn last(&self) -> Option<(StreamId, &Node)> {
        self.last.as_ref().map(|(key, node)| (*key, node))
    }

    /// The key of the last node that begins at `id` or before it.
    pub(super) fn key_at(&self, id: StreamId) -> Option<StreamId> {
        match self.last() {
            Some((key, _)) if key <= id => Some(key),
            _ => self.before_last.range(..=id).next_back().map(|(&key, _)| key),
        }
    }

    /// Adds a node behind all others, whose keys are smaller.
    pub(super) fn push(&mut self, key: StreamId, node: Node) {
        self.listpack_bytes += node.capacity();
        if let Some((key, mut node)) = self.last.replace((key, node)) {
            // What it had allocated for further entries.
            let capacity = node.capacity();
            node.shrink_to_fit();
            self.listpack_bytes -= capacity - node.capacity();
            self.before_last.insert(key, node);
        }
    }

    /// Changes the last node.
    #[inline]
    pub(super) fn change_last<T>(&mut self, change: impl FnOnce(StreamId, &mut Node) -> T) -> Option<T> {
        let (key, node) = self.last.as_mut()?;
        let capacity = node.capacity();
        let result = change(*key, node);
        self.listpack_bytes = self.listpack_bytes - capacity + node.capacity();
        Some(result)
    }

    /// Changes the node of a key, which exists.
    pub(super) fn change<T>(&mut self, key: StreamId, change: impl FnOnce(&mut Node) -> T) -> T {
        let node = match &mut self.last {
            Some((last_key, node)) if *last_key == key => node,
            _ => self.before_last.get_mut(&key).expect("the caller found the node"),
        };
        let capacity = node.capacity();
        let result = change(node);
        self.listpack_bytes = self.listpack_bytes - capacity + node.capacity();
        result
    }

    pub(super) fn remove(&mut self, key: StreamId) {
        let removed = match &self.last {
            Some((last_key, _)) if *last_key == key => {
                std::mem::replace(&mut self.last, self.before_last.pop_last())
            }
            _ => self.before_last.remove_entry(&key),
        };
        let (_, node) = removed.expect("the caller found the node");
        self.listpack_bytes -= node.capacity();
    }

    pub(super) fn clear(&mut self) {
        *self = Nodes::default();
    }

    pub(super) fn duplicate(&self) -> Nodes {
        let mut copy = Nodes::default();
        for (key, node) in self.iter() {
            // A clone allocates no more than it needs.
            copy.push(key, node.clone());
        }
        copy
    }

    /// The entries from `start` to `end`.
    #[inline]
    pub(super) fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        let last = self.last();
        let is_in_last = last.is_some_and(|(key, _)| key <= start);
        // The first node may begin before `start`.
        let first_key = if is_in_last { None } else { self.key_at(start) };
        let before_last = match (is_in_last, first_key) {
            (true, _) => self.before_last.range(StreamId::MAX..),
            (false, Some(key)) => self.before_last.range(key..),
            (false, None) => self.before_last.range(StreamId::MIN..),
        };
        Range { before_last, last, current: None, start, end }
    }

    /// The entries from `end` back to `start`.
    pub(super) fn range_back(&self, start: StreamId, end: StreamId) -> RangeBack<'_> {
        let last = self.last().filter(|(key, _)| *key <= end);
        RangeBack { before_last: self.before_last.range(..=end), last, current: None, start, end }
    }
}

/// Entries in the order of their IDs.
pub struct Range<'a> {
    before_last: btree_map::Range<'a, StreamId, Node>,
    last: Option<(StreamId, &'a Node)>,
    current: Option<NodeEntries<'a>>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            for entry in self.current.iter_mut().flatten() {
                if entry.id > self.end {
                    return None;
                }
                if entry.id >= self.start {
                    return Some(entry);
                }
            }
            let next = self.before_last.next().map(|(&key, node)| (key, node));
            let (key, node) = next.or_else(|| self.last.take())?;
            self.current = Some(node.entries(key));
        }
    }
}

/// Entries in the reverse order of their IDs.
pub struct RangeBack<'a> {
    before_last: btree_map::Range<'a, StreamId, Node>,
    last: Option<(StreamId, &'a Node)>,
    current: Option<NodeEntries<'a>>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for RangeBack<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            while let Some(entry) = self.current.as_mut().and_then(DoubleEndedIterator::next_back) {
                if entry.id < self.start {
                    return None;
                }
                if entry.id <= self.end {
                    return Some(entry);
                }
            }
            let next = self.last.take();
            let (key, node) =
                next.or_else(|| self.before_last.next_back().map(|(&key, node)| (key, node)))?;
            self.current = Some(node.entries(key));
        }
    }
}
