//! The nodes of a big list, in blocks.
//!
//! A block holds up to 64 nodes and knows how many elements these have, so an element is found by its index by skipping
//! blocks, and a node inserted or removed in the middle moves few others.

use super::node::{End, Node};
use super::save::NodeSweep;
use crate::types::save::Slot;
use std::collections::VecDeque;

const BLOCK_LEN_MAX: usize = 64;

#[derive(Clone, Default)]
struct Block {
    /// Never empty.
    nodes: Vec<Node>,
    /// How many elements the nodes have.
    len: usize,
}

/// The place of a node. It changes when nodes are inserted or removed before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) block: usize,
    node: usize,
}

#[derive(Default)]
pub(super) struct Nodes {
    blocks: VecDeque<Block>,
    /// How many elements the nodes have.
    len: usize,
    count: usize,
    /// The bytes that nodes own.
    node_bytes: usize,
    pub(super) saving: Slot<NodeSweep>,
}

impl Clone for Nodes {
    fn clone(&self) -> Nodes {
        let blocks = self.blocks.clone();
        // Copied bytes have no spare capacity.
        let node_bytes = blocks.iter().flat_map(|block| &block.nodes).map(Node::heap_bytes).sum();
        Nodes { blocks, node_bytes, saving: Slot::EMPTY, ..*self }
    }
}

impl Nodes {
    /// How many elements there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many nodes there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What it owns, without the room in blocks that is not used.
    pub(super) fn heap_bytes(&self) -> usize {
        self.node_bytes + self.count * size_of::<Node>() + self.blocks.capacity() * size_of::<Block>()
    }

    pub(super) fn end(&self, end: End) -> Option<Place> {
        match end {
            End::Head => (!self.blocks.is_empty()).then_some(Place { block: 0, node: 0 }),
            End::Tail => {
                let block = self.blocks.len().checked_sub(1)?;
                Some(Place { block, node: self.blocks[block].nodes.len() - 1 })
            }
        }
    }

    #[inline]
    pub(super) fn at(&self, place: Place) -> &Node {
        &self.blocks[place.block].nodes[place.node]
    }

    pub(super) fn next(&self, place: Place) -> Option<Place> {
        let Place { block, node } = place;
        if node + 1 < self.blocks[block].nodes.len() {
            return Some(Place { block, node: node + 1 });
        }
        (block + 1 < self.blocks.len()).then_some(Place { block: block + 1, node: 0 })
    }

    pub(super) fn prev(&self, place: Place) -> Option<Place> {
        let Place { block, node } = place;
        if node > 0 {
            return Some(Place { block, node: node - 1 });
        }
        let block = block.checked_sub(1)?;
        Some(Place { block, node: self.blocks[block].nodes.len() - 1 })
    }

    /// The neighbour in the direction away from `end`.
    pub(super) fn away_from(&self, end: End, place: Place) -> Option<Place> {
        match end {
            End::Head => self.next(place),
            End::Tail => self.prev(place),
        }
    }

    /// The node of element `index`, and the element's index within it. Found from the nearer end.
    pub(super) fn locate(&self, index: usize) -> Option<(Place, usize)> {
        if index >= self.len {
            return None;
        }
        if index < self.len / 2 {
            let mut rest = index;
            for (block, Block { nodes, len }) in self.blocks.iter().enumerate() {
                if rest >= *len {
                    rest -= len;
                    continue;
                }
                for (node, inner) in nodes.iter().enumerate() {
                    if rest < inner.len() {
                        return Some((Place { block, node }, rest));
                    }
                    rest -= inner.len();
                }
            }
        } else {
            // How many elements from this one to the end of what has not been skipped.
            let mut rest = self.len - index;
            for (block, Block { nodes, len }) in self.blocks.iter().enumerate().rev() {
                if rest > *len {
                    rest -= len;
                    continue;
                }
                for (node, inner) in nodes.iter().enumerate().rev() {
                    if rest <= inner.len() {
                        return Some((Place { block, node }, inner.len() - rest));
                    }
                    rest -= inner.len();
                }
            }
        }
        unreachable!("the lengths add up")
    }

    /// Changes a node.
    #[inline]
    pub(super) fn change<R>(&mut self, place: Place, change: impl FnOnce(&mut Node) -> R) -> R {
        if !self.saving.is_empty() {
            self.keep(place);
        }
        let block = &mut self.blocks[place.block];
        let node = &mut block.nodes[place.node];
        let (len, bytes) = (node.len(), node.heap_bytes());
        let result = change(node);
        block.len = block.len - len + node.len();
        self.len = self.len - len + node.len();
        self.node_bytes = self.node_bytes - bytes + node.heap_bytes();
        result
    }

    pub(super) fn push(&mut self, end: End, node: Node) {
        let at_end = match end {
            End::Head => self.blocks.front(),
            End::Tail => self.blocks.back(),
        };
        if at_end.is_none_or(|block| block.nodes.len() >= BLOCK_LEN_MAX) {
            match end {
                End::Head => self.blocks.push_front(Block::default()),
                End::Tail => self.blocks.push_back(Block::default()),
            }
        }
        let place = match end {
            End::Head => Place { block: 0, node: 0 },
            End::Tail => {
                let block = self.blocks.len() - 1;
                Place { block, node: self.blocks[block].nodes.len() }
            }
        };
        self.put(place, node);
    }

    /// Inserts a node before the one at `place`. Returns its place.
    pub(super) fn insert_before(&mut self, place: Place, node: Node) -> Place {
        let Place { block, node: mut index } = place;
        let mut to = block;
        if self.blocks[block].nodes.len() >= BLOCK_LEN_MAX {
            let nodes = self.blocks[block].nodes.split_off(BLOCK_LEN_MAX / 2);
            let len = nodes.iter().map(Node::len).sum();
            self.blocks[block].len -= len;
            self.blocks.insert(block + 1, Block { nodes, len });
            if index > BLOCK_LEN_MAX / 2 {
                (to, index) = (block + 1, index - BLOCK_LEN_MAX / 2);
            }
        }
        let place = Place { block: to, node: index };
        self.put(place, node);
        place
    }

    /// Inserts a node after the one at `place`. Returns its place.
    pub(super) fn insert_after(&mut self, place: Place, node: Node) -> Place {
        self.insert_before(Place { node: place.node + 1, ..place }, node)
    }

    fn put(&mut self, place: Place, node: Node) {
        self.len += node.len();
        self.count += 1;
        self.node_bytes += node.heap_bytes();
        let block = &mut self.blocks[place.block];
        block.len += node.len();
        block.nodes.insert(place.node, node);
    }

    /// Removes a node. Returns the place of the node after it; the places before it stay as they are.
    pub(super) fn remove(&mut self, place: Place) -> Option<Place> {
        self.take(place).1
    }

    /// Takes a node out, as `remove` does.
    pub(super) fn take(&mut self, place: Place) -> (Node, Option<Place>) {
        if !self.saving.is_empty() {
            self.keep(place);
        }
        let Place { block: at, node } = place;
        let block = &mut self.blocks[at];
        let removed = block.nodes.remove(node);
        block.len -= removed.len();
        self.len -= removed.len();
        self.count -= 1;
        self.node_bytes -= removed.heap_bytes();
        let left = block.nodes.len();
        if left == 0 {
            self.blocks.remove(at);
            return (removed, (at < self.blocks.len()).then_some(Place { block: at, node: 0 }));
        }
        let next = if node < left { Some(place) } else { self.next(Place { block: at, node: left - 1 }) };
        (removed, next)
    }

    /// The place of the node with this ordinal, which is there, looked for from a place on that is near it.
    pub(super) fn place_of_ordinal(&self, ordinal: u32, near: usize) -> Place {
        let blocks = &self.blocks;
        let near = near.min(blocks.len().saturating_sub(1));
        let in_block = |block: usize| {
            let node = blocks.get(block)?.nodes.iter().position(|node| node.ordinal == ordinal)?;
            Some(Place { block, node })
        };
        let distances = 0..=blocks.len();
        let mut places = distances.flat_map(|by| {
            let before = near.checked_sub(by).and_then(in_block);
            before.or_else(|| in_block(near + by))
        });
        places.next().expect("a node that is not kept is in the list")
    }

    /// Numbers the nodes from 1 on.
    pub(super) fn number(&mut self) {
        let nodes = self.blocks.iter_mut().flat_map(|block| &mut block.nodes);
        (1..).zip(nodes).for_each(|(ordinal, node)| node.ordinal = ordinal);
    }

    /// While the list is saved: keeps a copy of a node that is about to change and is still to be written.
    #[cold]
    fn keep(&mut self, place: Place) {
        let node = &mut self.blocks[place.block].nodes[place.node];
        let ordinal = std::mem::take(&mut node.ordinal);
        if let Some(sweep) = self.saving.get_mut() {
            sweep.keep(ordinal, node);
        }
    }

    /// All nodes in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.blocks.iter().flat_map(|block| &block.nodes)
    }

    /// Checks what is counted.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.blocks.iter().all(|block| (1..=BLOCK_LEN_MAX).contains(&block.nodes.len())));
        let len = |block: &Block| block.nodes.iter().map(Node::len).sum::<usize>();
        assert!(self.blocks.iter().all(|block| block.len == len(block)));
        assert_eq!(self.len, self.blocks.iter().map(len).sum::<usize>());
        assert_eq!(self.count, self.iter().count());
        assert_eq!(self.node_bytes, self.iter().map(Node::heap_bytes).sum::<usize>());
    }
}
