//! A run: consecutive nodes that nothing is added to any more, one behind the other in one allocation.
//!
//! A node has some two kilobytes, and the allocator's sizes lie a quarter apart there, so nodes with allocations of their
//! own would waste a tenth of the memory. A run grows from one of these sizes to the next, up to [`RUN_BYTES_MAX`], where
//! it wastes less than a node, and the page that the allocator adds to long allocations (jemalloc lets them begin at
//! different places of a page, for the caches' sake) is a small share of it.
//!
//! Removing a node leaves a hole. When the holes make up a quarter of a run, what is left is copied to a new allocation.

use super::StreamId;
use super::node::{Node, NodeRef};

/// A run gets no longer than this, unless it is a single node: a size of the allocator.
const RUN_BYTES_MAX: usize = 512 << 10;

/// The share of a run that holes may take.
const HOLES_MAX: (usize, usize) = (1, 4);

/// The place of a node in its run.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) key: StreamId,
    start: u32,
    len: u32,
}

#[derive(Default)]
pub(super) struct Run {
    bytes: Vec<u8>,
    /// In the order of the keys, and of their places.
    slots: Vec<Slot>,
    /// Bytes of nodes that are still there.
    live_bytes: usize,
}

/// The least size of the allocator that holds `len` bytes: between two powers of two, it has three more, evenly spaced.
fn allocation_len(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(16);
    len.next_multiple_of(step)
}

impl Slot {
    #[inline]
    pub(super) fn node<'a>(&self, bytes: &'a [u8]) -> NodeRef<'a> {
        NodeRef::of(&bytes[self.start as usize..][..self.len as usize])
    }
}

impl Run {
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Which node is the last one that begins at `id` or before it.
    pub(super) fn find(&self, id: StreamId) -> Option<usize> {
        self.slots.partition_point(|slot| slot.key <= id).checked_sub(1)
    }

    /// Whether a node of `len` bytes may be added.
    pub(super) fn has_room_for(&self, len: usize) -> bool {
        self.bytes.len() + len <= RUN_BYTES_MAX
    }

    /// Adds a node behind the others.
    pub(super) fn push(&mut self, key: StreamId, node: NodeRef<'_>) {
        let node = node.as_bytes();
        let start = self.bytes.len();
        if start + node.len() > self.bytes.capacity() {
            self.bytes.reserve_exact(allocation_len(start + node.len()) - start);
        }
        self.bytes.extend_from_slice(node);
        self.slots.push(Slot { key, start: start as u32, len: node.len() as u32 });
        self.live_bytes += node.len();
    }

    pub(super) fn node(&self, at: usize) -> NodeRef<'_> {
        self.slots[at].node(&self.bytes)
    }

    /// Changes a node.
    pub(super) fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut Node) -> T) -> T {
        let Slot { start, len, .. } = self.slots[at];
        let place = start as usize..(start + len) as usize;
        let mut node = Node::of(self.bytes[place.clone()].to_vec());
        let result = change(&mut node);
        let changed = node.into_bytes();
        if changed.len() == place.len() {
            self.bytes[place].copy_from_slice(&changed);
        } else {
            self.replace(at, &changed);
        }
        result
    }

    /// Puts a node of another length in the place of one.
    #[cold]
    fn replace(&mut self, at: usize, changed: &[u8]) {
        let mut run = Run::default();
        for (n, slot) in self.slots.iter().enumerate() {
            let node = if n == at { NodeRef::of(changed) } else { slot.node(&self.bytes) };
            run.push(slot.key, node);
        }
        *self = run;
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.live_bytes -= self.slots.remove(at).len as usize;
        let (share, of) = HOLES_MAX;
        if (self.bytes.len() - self.live_bytes) * of > self.bytes.len() * share {
            *self = self.duplicate();
        }
    }

    /// A copy, without holes.
    pub(super) fn duplicate(&self) -> Run {
        let mut copy = Run { slots: Vec::with_capacity(self.slots.len()), ..Run::default() };
        copy.bytes.reserve_exact(self.live_bytes);
        self.slots.iter().for_each(|slot| copy.push(slot.key, slot.node(&self.bytes)));
        copy
    }
}
