//! The nodes of a stream, ordered by their keys: the ID of the first entry that was added to each.
//!
//! The last node is kept apart from the others, because XADD adds to it. These are put together to runs, which a tree
//! orders by the key that the first node of each has, or had.

use super::StreamId;
use super::node::{Entry, Node, NodeEntries, NodeRef};
use super::run::{Run, Slot};
use super::save::LogSweep;
use crate::types::save;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::slice;

#[derive(Default)]
pub(super) struct Nodes {
    runs: BTreeMap<StreamId, Run>,
    /// The last node, with its key.
    last: Option<(StreamId, Node)>,
    /// How many nodes there are in runs.
    in_runs: usize,
    /// Bytes allocated by the nodes.
    node_bytes: usize,
    /// While the stream is saved.
    pub(super) saving: save::Slot<LogSweep>,
}

/// The bytes of a B-tree for each of its elements: its nodes are a little more than half full if elements are added in
/// order.
pub(super) const fn tree_bytes<K, V>() -> usize {
    2 * (size_of::<K>() + size_of::<V>())
}

/// The cost of freeing a run, for each of these bytes: a page.
const BYTES_PER_COST: usize = 4 << 10;

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.in_runs + usize::from(self.last.is_some())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.node_bytes + self.runs.len() * tree_bytes::<StreamId, Run>()
    }

    /// All nodes with their keys, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (StreamId, NodeRef<'_>)> {
        let in_runs = self
            .runs
            .values()
            .flat_map(|run| run.slots().iter().map(|slot| (slot.key, slot.node(run.bytes()))));
        in_runs.chain(self.last())
    }

    pub(super) fn first(&self) -> Option<(StreamId, NodeRef<'_>)> {
        let first = self.runs.first_key_value().map(|(_, run)| (run.slots()[0].key, run.node(0)));
        first.or_else(|| self.last())
    }

    #[inline]
    pub(super) fn last(&self) -> Option<(StreamId, NodeRef<'_>)> {
        self.last.as_ref().map(|(key, node)| (*key, node.as_ref()))
    }

    /// The last node that begins at `id` or before it.
    pub(super) fn find(&self, id: StreamId) -> Option<(StreamId, NodeRef<'_>)> {
        if let Some(last) = self.last().filter(|(key, _)| *key <= id) {
            return Some(last);
        }
        let (_, run) = self.runs.range(..=id).next_back()?;
        let at = run.find(id)?;
        Some((run.slots()[at].key, run.node(at)))
    }

    /// The first node whose key is greater.
    pub(super) fn after(&self, key: Option<StreamId>) -> Option<(StreamId, NodeRef<'_>)> {
        let Some(key) = key else { return self.first() };
        let before = self.runs.range(..=key).next_back();
        let in_run = before.and_then(|(_, run)| {
            let at = run.find(key).map_or(0, |at| at + 1);
            run.slots().get(at).map(|slot| (slot.key, slot.node(run.bytes())))
        });
        let behind = || {
            let (_, run) = self.runs.range((Bound::Excluded(key), Bound::Unbounded)).next()?;
            Some((run.slots()[0].key, run.node(0)))
        };
        in_run.or_else(behind).or_else(|| self.last().filter(|(last_key, _)| *last_key > key))
    }

    /// While the stream is saved.
    #[cold]
    fn save_before_removal(&mut self, key: StreamId) {
        let mut saving = self.saving.take();
        if let (Some(sweep), Some((_, node))) = (saving.get_mut(), self.find(key)) {
            sweep.keep(key, node);
            sweep.forget(key);
        }
        self.saving = saving;
    }

    /// Adds a node behind all others, whose keys are smaller.
    pub(super) fn push(&mut self, key: StreamId, node: Node) {
        if let Some(sweep) = self.saving.get_mut() {
            sweep.note_new(key);
        }
        self.node_bytes += node.capacity();
        if let Some((key, node)) = self.last.replace((key, node)) {
            self.node_bytes -= node.capacity();
            self.push_to_run(key, node.as_ref());
        }
    }

    fn push_to_run(&mut self, key: StreamId, node: NodeRef<'_>) {
        self.in_runs += 1;
        let len = node.as_bytes().len();
        if let Some(mut run) = self.runs.last_entry().filter(|run| run.get().has_room_for(len)) {
            let run = run.get_mut();
            self.node_bytes -= run.heap_bytes();
            run.push(key, node);
            self.node_bytes += run.heap_bytes();
            return;
        }
        let mut run = Run::default();
        run.push(key, node);
        self.node_bytes += run.heap_bytes();
        self.runs.insert(key, run);
    }

    /// Changes the last node.
    #[inline]
    pub(super) fn change_last<T>(&mut self, change: impl FnOnce(StreamId, &mut Node) -> T) -> Option<T> {
        let (key, node) = self.last.as_mut()?;
        if let Some(sweep) = self.saving.get_mut() {
            sweep.keep(*key, node.as_ref());
        }
        let capacity = node.capacity();
        let result = change(*key, node);
        self.node_bytes = self.node_bytes - capacity + node.capacity();
        Some(result)
    }

    /// Changes the node of a key, which exists.
    pub(super) fn change<T>(&mut self, key: StreamId, change: impl FnOnce(&mut Node) -> T) -> T {
        if self.is_last(key) {
            return self.change_last(|_, node| change(node)).expect("there is a last node");
        }
        let (run_key, at) = self.place(key);
        let run = self.runs.get_mut(&run_key).expect("found just now");
        if let Some(sweep) = self.saving.get_mut() {
            sweep.keep(key, run.node(at));
        }
        self.node_bytes -= run.heap_bytes();
        let result = run.change(at, change);
        self.node_bytes += run.heap_bytes();
        result
    }

    fn is_last(&self, key: StreamId) -> bool {
        self.last.as_ref().is_some_and(|(last_key, _)| *last_key == key)
    }

    /// The run of a key that exists there, and its place in it.
    fn place(&self, key: StreamId) -> (StreamId, usize) {
        let found = self.runs.range(..=key).next_back();
        let (run_key, run) = found.expect("the caller found the node");
        (*run_key, run.find(key).expect("the caller found the node"))
    }

    /// Removes the node of a key, which exists.
    pub(super) fn remove(&mut self, key: StreamId) {
        if !self.saving.is_empty() {
            self.save_before_removal(key);
        }
        if self.is_last(key) {
            self.remove_last();
        } else {
            let (run_key, at) = self.place(key);
            self.remove_from_run(run_key, at);
        }
    }

    fn remove_from_run(&mut self, run_key: StreamId, at: usize) {
        let run = self.runs.get_mut(&run_key).expect("the caller found the run");
        self.in_runs -= 1;
        self.node_bytes -= run.heap_bytes();
        run.remove(at);
        if run.is_empty() {
            self.runs.remove(&run_key);
        } else {
            self.node_bytes += run.heap_bytes();
        }
    }

    /// Removes the last node. The one before becomes the last one.
    fn remove_last(&mut self) {
        self.node_bytes -= self.last.take().map_or(0, |(_, node)| node.capacity());
        let Some((&run_key, run)) = self.runs.last_key_value() else { return };
        let at = run.len() - 1;
        let (slot, node) = (run.slots()[at], Node::of(run.node(at).as_bytes().to_vec()));
        self.remove_from_run(run_key, at);
        self.node_bytes += node.capacity();
        self.last = Some((slot.key, node));
    }

    /// How much work it is to free them.
    pub(super) fn free_cost(&self) -> usize {
        self.runs.len() + self.node_bytes / BYTES_PER_COST
    }

    /// Frees as much as `budget` allows, and subtracts the cost. Returns whether nothing is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while *budget > 0
            && let Some((_, run)) = self.runs.pop_first()
        {
            self.in_runs -= run.len();
            self.node_bytes -= run.heap_bytes();
            *budget = budget.saturating_sub(1 + run.heap_bytes() / BYTES_PER_COST);
        }
        if self.runs.is_empty() {
            *self = Nodes::default();
        }
        self.runs.is_empty()
    }

    pub(super) fn duplicate(&self) -> Nodes {
        let runs: BTreeMap<StreamId, Run> =
            self.runs.iter().map(|(&key, run)| (key, run.duplicate())).collect();
        let last = self.last.clone();
        let last_bytes = last.as_ref().map_or(0, |(_, node)| node.capacity());
        let node_bytes = runs.values().map(Run::heap_bytes).sum::<usize>() + last_bytes;
        Nodes { runs, last, in_runs: self.in_runs, node_bytes, saving: save::Slot::EMPTY }
    }

    /// The entries from `start` to `end`.
    #[inline]
    pub(super) fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        let last = self.last();
        if last.is_some_and(|(key, _)| key <= start) {
            let runs = self.runs.range(StreamId::MAX..);
            return Range { runs, slots: RunSlots::none(), last, current: None, start, end };
        }
        // The first node may begin before `start`.
        let first_run = self.runs.range(..=start).next_back();
        let mut runs = self.runs.range(first_run.map_or(StreamId::MIN, |(&key, _)| key)..);
        let slots = match first_run {
            Some((_, run)) => {
                runs.next();
                RunSlots { bytes: run.bytes(), slots: run.slots()[run.find(start).unwrap_or(0)..].iter() }
            }
            None => RunSlots::none(),
        };
        Range { runs, slots, last, current: None, start, end }
    }

    /// The entries from `end` back to `start`.
    pub(super) fn range_back(&self, start: StreamId, end: StreamId) -> RangeBack<'_> {
        let last = self.last().filter(|(key, _)| *key <= end);
        RangeBack { runs: self.runs.range(..=end), slots: RunSlots::none(), last, current: None, start, end }
    }
}

/// Nodes of a run.
struct RunSlots<'a> {
    bytes: &'a [u8],
    slots: slice::Iter<'a, Slot>,
}

impl<'a> RunSlots<'a> {
    fn none() -> RunSlots<'a> {
        RunSlots { bytes: &[], slots: [].iter() }
    }

    fn of(run: &'a Run) -> RunSlots<'a> {
        RunSlots { bytes: run.bytes(), slots: run.slots().iter() }
    }

    fn next(&mut self) -> Option<(StreamId, NodeRef<'a>)> {
        self.slots.next().map(|slot| (slot.key, slot.node(self.bytes)))
    }

    fn next_back(&mut self) -> Option<(StreamId, NodeRef<'a>)> {
        self.slots.next_back().map(|slot| (slot.key, slot.node(self.bytes)))
    }
}

/// Entries in the order of their IDs.
pub struct Range<'a> {
    runs: btree_map::Range<'a, StreamId, Run>,
    slots: RunSlots<'a>,
    last: Option<(StreamId, NodeRef<'a>)>,
    current: Option<NodeEntries<'a>>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Range<'a> {
    fn next_node(&mut self) -> Option<(StreamId, NodeRef<'a>)> {
        loop {
            if let Some(node) = self.slots.next() {
                return Some(node);
            }
            match self.runs.next() {
                Some((_, run)) => self.slots = RunSlots::of(run),
                None => return self.last.take(),
            }
        }
    }
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
            let (key, node) = self.next_node()?;
            self.current = Some(node.entries(key));
        }
    }
}

/// Entries in the reverse order of their IDs.
pub struct RangeBack<'a> {
    runs: btree_map::Range<'a, StreamId, Run>,
    slots: RunSlots<'a>,
    last: Option<(StreamId, NodeRef<'a>)>,
    current: Option<NodeEntries<'a>>,
    start: StreamId,
    end: StreamId,
}

impl<'a> RangeBack<'a> {
    fn next_node(&mut self) -> Option<(StreamId, NodeRef<'a>)> {
        if let Some(last) = self.last.take() {
            return Some(last);
        }
        loop {
            if let Some(node) = self.slots.next_back() {
                return Some(node);
            }
            self.slots = RunSlots::of(self.runs.next_back()?.1);
        }
    }
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
            let (key, node) = self.next_node()?;
            // Nodes of the last run that begin behind the end.
            if key <= self.end {
                self.current = Some(node.entries(key));
            }
        }
    }
}

#[cfg(test)]
impl Nodes {
    /// As `heap_bytes`, counted anew.
    pub(super) fn counted_heap_bytes(&self) -> usize {
        let last = self.last.as_ref().map_or(0, |(_, node)| node.capacity());
        let runs: usize = self.runs.values().map(Run::heap_bytes).sum();
        last + runs + self.runs.len() * tree_bytes::<StreamId, Run>()
    }
}
