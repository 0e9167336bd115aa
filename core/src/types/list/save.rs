//! Saving a list: node after node. A node that is about to change is copied until its turn has come. See
//! [`save`](crate::types::save).

use super::List;
use super::node::Node;
use crate::types::save::{Element, Record};
use std::collections::BTreeMap;

/// How far a list is written.
pub(super) struct NodeSweep {
    record: Record,
    /// The ordinal of the node that was written last.
    last: u32,
    /// Nodes behind it as they were, by their ordinals.
    kept: BTreeMap<u32, Node>,
    kept_bytes: usize,
    /// About where in the list the next node is.
    block: usize,
}

impl NodeSweep {
    /// A node of this ordinal is about to change.
    pub(super) fn keep(&mut self, ordinal: u32, node: &Node) {
        if ordinal > self.last {
            let copy = node.clone();
            self.kept_bytes += cost(&copy);
            self.kept.insert(ordinal, copy);
            self.record.count_held(self.kept_bytes);
        }
    }
}

/// What a kept node takes, about.
fn cost(node: &Node) -> usize {
    node.heap_bytes() + 2 * size_of::<Node>()
}

impl List {
    pub(in crate::types) fn begin_saving(&mut self, record: Record) {
        self.nodes.number();
        let sweep = NodeSweep { record, last: 0, kept: BTreeMap::new(), kept_bytes: 0, block: 0 };
        self.nodes.saving.set(sweep);
    }

    pub(in crate::types) fn record(&self) -> Option<&Record> {
        self.nodes.saving.get().map(|sweep| &sweep.record)
    }

    pub(in crate::types) fn end_saving(&mut self) -> Option<Record> {
        self.nodes.saving.take().into_inner().map(|sweep| sweep.record)
    }

    /// Writes node after node until `is_over` says that it is enough, which is asked before each, and returns what is written.
    pub(in crate::types) fn save_some(&mut self, is_over: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut saving = self.nodes.saving.take();
        let Some(sweep) = saving.get_mut() else { return Vec::new() };
        let mut buffer = Vec::new();
        while !sweep.record.is_complete() && !is_over() {
            sweep.last += 1;
            if let Some(node) = sweep.kept.remove(&sweep.last) {
                sweep.kept_bytes -= cost(&node);
                sweep.record.write(Element::Node(node.read(&mut buffer)));
            } else {
                let place = self.nodes.place_of_ordinal(sweep.last, sweep.block);
                sweep.block = place.block;
                sweep.record.write(Element::Node(self.nodes.at(place).read(&mut buffer)));
            }
        }
        let written = sweep.record.take();
        sweep.record.count_held(sweep.kept_bytes);
        self.nodes.saving = saving;
        written
    }
}
