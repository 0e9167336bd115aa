//! Saving a stream: its nodes in the order of their keys, then its counters and groups. See [`save`](crate::types::save).
//!
//! A node that is about to change is copied until its turn has come. Of a group, what is not pending entries is copied at the
//! beginning. A pending entry that changes is kept as it was; so what was pending at the beginning is what is kept, and
//! what is pending and not kept. A group that is removed is kept as a whole.

use super::groups::{ConsumerId, Group, Pending};
use super::log::Counters;
use super::node::NodeRef;
use super::{Groups, Stream, StreamId};
use crate::types::save::{Element, Held, Record};
use std::collections::{BTreeMap, HashSet};

/// So many pending entries are looked at before it is asked again whether it is enough.
const PAGE_LEN: usize = if cfg!(test) { 3 } else { 128 };

/// What is written of a group before its pending entries.
#[derive(Clone, Debug)]
pub struct GroupHead {
    pub name: Box<[u8]>,
    pub last_id: StreamId,
    pub entries_read: Option<i64>,
    pub pending_count: usize,
    pub consumers: Vec<ConsumerHead>,
}

/// What is written of a consumer before its pending entries.
#[derive(Clone, Debug)]
pub struct ConsumerHead {
    id: ConsumerId,
    pub name: Box<[u8]>,
    pub seen_time_ms: i64,
    pub pending_count: usize,
}

/// The pending entries of a group that have changed: as they were, or `None` if there were none.
pub(super) struct PendingAside {
    before: BTreeMap<StreamId, Option<Pending>>,
    held: Held,
}

impl PendingAside {
    pub(super) fn keep(&mut self, id: StreamId, before: Option<&Pending>) {
        self.before.entry(id).or_insert_with(|| before.copied());
        self.held.set(self.before.len() * 2 * size_of::<(StreamId, Option<Pending>)>());
    }
}

/// How far the groups of a stream are written.
pub(super) struct GroupsSweep {
    heads: Vec<GroupHead>,
    /// Groups that were removed.
    removed: BTreeMap<Box<[u8]>, Group>,
    /// The group that is written at present.
    at: usize,
    stage: Stage,
}

/// What is written next of a group.
#[derive(Clone, Copy)]
enum Stage {
    Head,
    /// The pending entries from this ID on.
    Pending(StreamId),
    Consumers,
    Consumer(usize),
    ConsumerPending(usize, StreamId),
}

impl GroupsSweep {
    fn new(groups: &Groups) -> GroupsSweep {
        let head = |(name, group): (&[u8], &Group)| GroupHead {
            name: name.into(),
            last_id: group.last_id(),
            entries_read: group.entries_read(),
            pending_count: group.pending_count(),
            consumers: group
                .consumers()
                .map(|(id, consumer)| ConsumerHead {
                    id,
                    name: consumer.name().into(),
                    seen_time_ms: consumer.seen_time_ms,
                    pending_count: consumer.pending_count(),
                })
                .collect(),
        };
        let heads = groups.iter().map(head).collect();
        GroupsSweep { heads, removed: BTreeMap::new(), at: 0, stage: Stage::Head }
    }

    /// A group was removed. If there was one of its name before, that one counts.
    pub(super) fn keep(&mut self, name: &[u8], group: Group) {
        if self.heads.iter().any(|head| *head.name == *name) {
            self.removed.entry(name.into()).or_insert(group);
        }
    }

    /// Writes the next piece. Returns whether there was one.
    fn step(&mut self, groups: &Groups, emit: &mut dyn FnMut(Element<'_>)) -> bool {
        let Some(head) = self.heads.get(self.at) else { return false };
        let group = self.removed.get(&head.name).or_else(|| groups.get(&head.name));
        let group = group.expect("a group that is removed is kept");
        let next = match self.stage {
            Stage::Head => {
                emit(Element::Group(head));
                Some(Stage::Pending(StreamId::MIN))
            }
            Stage::Pending(start) => {
                let (page, next) = page(group, None, start);
                emit(Element::Pending(&page));
                Some(next.map_or(Stage::Consumers, Stage::Pending))
            }
            Stage::Consumers => {
                emit(Element::Consumers(head));
                (!head.consumers.is_empty()).then_some(Stage::Consumer(0))
            }
            Stage::Consumer(at) => {
                emit(Element::Consumer(head, &head.consumers[at]));
                Some(Stage::ConsumerPending(at, StreamId::MIN))
            }
            Stage::ConsumerPending(at, start) => {
                let consumer = &head.consumers[at];
                let (page, next) = page(group, Some(consumer.id), start);
                emit(Element::ConsumerPending(head, consumer, &page));
                match next {
                    Some(start) => Some(Stage::ConsumerPending(at, start)),
                    None => (at + 1 < head.consumers.len()).then_some(Stage::Consumer(at + 1)),
                }
            }
        };
        self.stage = next.unwrap_or(Stage::Head);
        self.at += usize::from(next.is_none());
        true
    }
}

/// Some of the entries that were pending at the beginning, of a group or of a consumer, from an ID on; and the ID with which
/// it goes on.
fn page(
    group: &Group,
    consumer: Option<ConsumerId>,
    start: StreamId,
) -> (Vec<(StreamId, Pending)>, Option<StreamId>) {
    let mut ids: Box<dyn Iterator<Item = StreamId>> = match consumer {
        Some(consumer) => Box::new(group.ids_of(consumer, start)),
        None => Box::new(group.pending_range(start, StreamId::MAX).map(|(id, _)| id)),
    };
    let before = group.saving.get().map(|aside| &aside.before);
    let mut kept = before.map(|before| before.range(start..)).into_iter().flatten();
    let (mut next_id, mut next_kept) = (ids.next(), kept.next());
    let mut page = Vec::new();
    for _ in 0..PAGE_LEN {
        let kept_id = next_kept.map(|(&id, _)| id);
        let Some(id) = [next_id, kept_id].into_iter().flatten().min() else { return (page, None) };
        let found = match next_kept {
            Some((&kept_id, before)) if kept_id == id => {
                next_kept = kept.next();
                before.filter(|before| consumer.is_none_or(|consumer| before.consumer == consumer))
            }
            _ => group.pending(id).copied(),
        };
        if next_id == Some(id) {
            next_id = ids.next();
        }
        page.extend(found.map(|pending| (id, pending)));
    }
    let rest = [next_id, next_kept.map(|(&id, _)| id)];
    (page, rest.into_iter().flatten().min())
}

/// How far the entries of a stream are written.
pub(super) struct LogSweep {
    record: Record,
    /// Until they are written.
    counters: Option<Counters>,
    /// The key of the node that was written last.
    last: Option<StreamId>,
    /// Nodes behind it as they were.
    kept: BTreeMap<StreamId, Box<[u8]>>,
    kept_bytes: usize,
    /// The keys of nodes behind it that are new.
    noted: HashSet<StreamId>,
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
        self.groups.saving.set(GroupsSweep::new(&self.groups));
        for group in self.groups.iter_mut() {
            group.saving.set(PendingAside { before: BTreeMap::new(), held: record.held_elsewhere() });
        }
        self.log.nodes.saving.set(LogSweep {
            record,
            counters: Some(self.log.counters()),
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
        self.groups.iter_mut().for_each(|group| drop(group.saving.take()));
        self.log.nodes.saving.take().into_inner().map(|sweep| sweep.record)
    }

    /// Writes node after node until `is_over` says that it is enough, which is asked before each, and returns what is written.
    pub(in crate::types) fn save_some(&mut self, is_over: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut saving = self.log.nodes.saving.take();
        let Some(sweep) = saving.get_mut() else { return Vec::new() };
        while !sweep.record.is_complete() && !is_over() {
            if sweep.record.is_last() {
                self.save_groups(sweep);
                continue;
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

    /// Writes a piece of what follows the entries.
    fn save_groups(&mut self, sweep: &mut LogSweep) {
        let mut saving = self.groups.saving.take();
        let groups = saving.get_mut().expect("it is there while the stream is saved");
        if let Some(counters) = sweep.counters.take() {
            sweep.record.write_within(Element::Counters(counters, groups.heads.len()));
        }
        let record = &mut sweep.record;
        if !groups.step(&self.groups, &mut |element| record.write_within(element)) {
            record.end_part();
        }
        self.groups.saving = saving;
    }

    /// Visits what it consists of, as [`Stream::save_some`] writes it.
    pub(in crate::types) fn each_element(&self, visit: &mut dyn FnMut(Element<'_>)) {
        self.log.nodes().for_each(|(key, node)| visit(Element::Entries(key, node)));
        let mut groups = GroupsSweep::new(&self.groups);
        visit(Element::Counters(self.log.counters(), groups.heads.len()));
        while groups.step(&self.groups, visit) {}
    }
}
