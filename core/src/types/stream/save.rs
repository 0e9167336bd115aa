//! Saving a stream: its nodes in the order of their keys, then its counters and groups. A node that is about to change is copied
//! until its turn has come; of the groups, all are before the first of them changes. See [`save`](crate::types::save).

use super::log::Counters;
use super::node::NodeRef;
use super::{Groups, Stream, StreamId};
use crate::types::save::{Element, Held, Record};
use std::collections::{BTreeMap, HashSet};

/// How far the entries of a stream are written.
pub(super) struct LogSweep {
    record: Record,
    counters: Counters,
    /// The key of the node that was written last.
    last: Option<StreamId>,
    /// Nodes behind it as they were.
    kept: BTreeMap<StreamId, Box<[u8]>>,
    kept_bytes: usize,
    /// The keys of nodes behind it that are new.
    noted: HashSet<StreamId>,
}

/// The groups of a stream that is saved as they were, if they have changed since.
pub(super) struct GroupsAside {
    groups: Option<Groups>,
    held: Held,
}

impl GroupsAside {
    #[cold]
    pub(super) fn keep(groups: &mut Groups) {
        let copy =
            groups.saving.get().is_some_and(|aside| aside.groups.is_none()).then(|| groups.duplicate());
        if let (Some(aside), Some(copy)) = (groups.saving.get_mut(), copy) {
            aside.held.set(copy.heap_bytes());
            aside.groups = Some(copy);
        }
    }
}

/// What a kept node takes, about.
fn cost(node: &[u8]) -> usize {
    node.len() + 2 * size_of::<(StreamId, Box<[u8]>)>()
}

impl LogSweep {
    fn is_behind(&self, key: StreamId) -> bool {
        self.last.is_none_or(|last| key > last)
    }

    /// A node is about to change.
    #[cold]
    pub(super) fn keep(&mut self, key: StreamId, node: NodeRef<'_>) {
        let is_old = self.is_behind(key) && !self.noted.contains(&key) && !self.record.is_complete();
        if is_old && !self.kept.contains_key(&key) {
            self.kept_bytes += cost(node.as_bytes());
            self.kept.insert(key, node.as_bytes().into());
            self.record.count_held(self.kept_bytes);
        }
    }

    /// There is no node of this key any more.
    pub(super) fn forget(&mut self, key: StreamId) {
        self.noted.remove(&key);
    }

    /// A node is new. Its key may be one of before: XSETID can set the last ID of an empty stream back.
    #[cold]
    pub(super) fn note_new(&mut self, key: StreamId) {
        if self.is_behind(key) {
            self.noted.insert(key);
        }
    }
}

impl Stream {
    pub(in crate::types) fn begin_saving(&mut self, record: Record) {
        self.groups.saving.set(GroupsAside { groups: None, held: record.held_elsewhere() });
        self.log.nodes.saving.set(LogSweep {
            record,
            counters: self.log.counters(),
            last: None,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            noted: HashSet::new(),
        });
    }

    pub(in crate::types) fn record(&self) -> Option<&Record> {
        self.log.nodes.saving.get().map(|sweep| &sweep.record)
    }

    pub(in crate::types) fn end_saving(&mut self) -> Option<Record> {
        self.groups.saving.take();
        self.log.nodes.saving.take().into_inner().map(|sweep| sweep.record)
    }

    /// Writes node after node until `is_over` says that it is enough, which is asked before each, and returns what is written.
    pub(in crate::types) fn save_some(&mut self, is_over: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut saving = self.log.nodes.saving.take();
        let Some(sweep) = saving.get_mut() else { return Vec::new() };
        while !sweep.record.is_complete() && !is_over() {
            if sweep.record.is_last() {
                let aside = self.groups.saving.get().and_then(|aside| aside.groups.as_ref());
                sweep.record.write(Element::Groups(sweep.counters, aside.unwrap_or(&self.groups)));
                break;
            }
            let mut present = self.log.nodes.after(sweep.last);
            while let Some((key, _)) = present.filter(|(key, _)| sweep.noted.contains(key)) {
                present = self.log.nodes.after(Some(key));
            }
            let kept =
                sweep.kept.first_entry().filter(|kept| present.is_none_or(|(key, _)| *kept.key() <= key));
            if let Some(kept) = kept {
                let (key, node) = kept.remove_entry();
                sweep.kept_bytes -= cost(&node);
                sweep.record.write(Element::Entries(key, NodeRef::of(&node)));
                sweep.last = Some(key);
            } else {
                let (key, node) = present.expect("what is not kept is in the stream");
                sweep.record.write(Element::Entries(key, node));
                sweep.last = Some(key);
            }
        }
        let written = sweep.record.take();
        sweep.record.count_held(sweep.kept_bytes);
        self.log.nodes.saving = saving;
        written
    }
}
