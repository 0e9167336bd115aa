//! Consumer groups: how far each has read, and which entries are pending: delivered to one of its consumers, and not
//! acknowledged.
//!
//! A group has its pending entries in the order of their IDs, with what is known of their delivery; a consumer has the
//! IDs of its own. Consumers are named by numbers, which stay the same as long as they exist.

use super::StreamId;
use super::nodes::tree_bytes;
use super::save::{GroupsSweep, PendingAside};
use crate::types::save::Slot;
use std::collections::{BTreeMap, BTreeSet};

/// The groups of a stream, by name.
#[derive(Default)]
pub struct Groups {
    by_name: BTreeMap<Box<[u8]>, Group>,
    /// What the groups own.
    bytes: usize,
    /// While the stream is saved.
    pub(super) saving: Slot<GroupsSweep>,
}

/// A consumer of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerId(u32);

/// A delivery that is not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    pub consumer: ConsumerId,
    pub delivery_time_ms: i64,
    pub delivery_count: u64,
}

#[derive(Clone)]
pub struct Consumer {
    name: Box<[u8]>,
    /// When it last called a command.
    pub seen_time_ms: i64,
    pending: BTreeSet<StreamId>,
}

#[derive(Clone, Default)]
pub struct Group {
    /// The last entry that was delivered to the group.
    last_id: StreamId,
    /// How many entries the group has read, of all that were ever added; `None`: unknown.
    entries_read: Option<i64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers_by_name: BTreeMap<Box<[u8]>, ConsumerId>,
    consumers: Vec<Option<Consumer>>,
    free_consumers: Vec<ConsumerId>,
    /// While the stream is saved.
    pub(super) saving: Slot<PendingAside>,
}

/// A group to change. It keeps the account of what the groups own.
pub struct GroupMut<'a> {
    group: &'a mut Group,
    bytes: &'a mut usize,
}

const PENDING_BYTES: usize = tree_bytes::<StreamId, Pending>() + tree_bytes::<StreamId, ()>();

/// What a consumer costs, with its name, which is kept twice.
fn consumer_bytes(name: &[u8]) -> usize {
    2 * name.len() + tree_bytes::<Box<[u8]>, ConsumerId>() + size_of::<Option<Consumer>>()
}

fn group_bytes(name: &[u8]) -> usize {
    name.len() + tree_bytes::<Box<[u8]>, Group>()
}

impl Groups {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// The groups, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Group)> {
        self.by_name.iter().map(|(name, group)| (&**name, group))
    }

    pub fn get(&self, name: &[u8]) -> Option<&Group> {
        self.by_name.get(name)
    }

    pub fn get_mut(&mut self, name: &[u8]) -> Option<GroupMut<'_>> {
        let group = self.by_name.get_mut(name)?;
        Some(GroupMut { group, bytes: &mut self.bytes })
    }

    /// Creates a group. `None`: there is one of that name.
    pub fn create(
        &mut self,
        name: &[u8],
        last_id: StreamId,
        entries_read: Option<i64>,
    ) -> Option<GroupMut<'_>> {
        if self.by_name.contains_key(name) {
            return None;
        }
        self.bytes += group_bytes(name);
        let group = self.by_name.entry(name.into()).or_default();
        group.last_id = last_id;
        group.entries_read = entries_read;
        Some(GroupMut { group, bytes: &mut self.bytes })
    }

    /// Removes a group. Returns whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(group) = self.by_name.remove(name) else { return false };
        self.bytes -= group_bytes(name);
        self.bytes -= group.pending.len() * PENDING_BYTES;
        self.bytes -= group.consumers().map(|(_, consumer)| consumer_bytes(&consumer.name)).sum::<usize>();
        if let Some(sweep) = self.saving.get_mut() {
            sweep.keep(name, group);
        }
        true
    }

    /// How many groups, consumers and pending entries there are.
    pub(super) fn free_cost(&self) -> usize {
        self.bytes / PENDING_BYTES
    }

    /// Frees as much as `budget` allows, and subtracts the cost. Returns whether nothing is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while let Some(mut first) = self.by_name.first_entry() {
            if !first.get_mut().free_some(budget) {
                return false;
            }
            first.remove();
        }
        self.bytes = 0;
        true
    }

    pub(super) fn duplicate(&self) -> Groups {
        Groups { by_name: self.by_name.clone(), bytes: self.bytes, saving: Slot::EMPTY }
    }

    /// For a stream that is saved.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.by_name.values_mut()
    }
}

impl Group {
    #[inline]
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    #[inline]
    pub fn entries_read(&self) -> Option<i64> {
        self.entries_read
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    pub fn pending(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// The pending entries from `start` to `end`, both included.
    pub fn pending_range(
        &self,
        start: StreamId,
        end: StreamId,
    ) -> impl DoubleEndedIterator<Item = (StreamId, &Pending)> {
        // An interval whose end is before its start is empty.
        let range = (start <= end).then(|| self.pending.range(start..=end));
        range.into_iter().flatten().map(|(&id, pending)| (id, pending))
    }

    pub fn consumer_count(&self) -> usize {
        self.consumers_by_name.len()
    }

    /// The consumers, in the order of their names.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, &Consumer)> {
        self.consumers_by_name.values().map(|&id| (id, self.consumer(id)))
    }

    #[inline]
    pub fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        self.consumers_by_name.get(name).copied()
    }

    #[inline]
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.consumers[id.0 as usize].as_ref().expect("a consumer's number is used while it exists")
    }

    /// The pending entries of a consumer from `start` to `end`, both included.
    pub fn pending_of(
        &self,
        consumer: ConsumerId,
        start: StreamId,
        end: StreamId,
    ) -> impl Iterator<Item = (StreamId, &Pending)> {
        let range = (start <= end).then(|| self.consumer(consumer).pending.range(start..=end));
        range.into_iter().flatten().map(|&id| (id, &self.pending[&id]))
    }

    /// The IDs of a consumer's pending entries from `start` on. None if there is no such consumer any more.
    pub(super) fn ids_of(&self, consumer: ConsumerId, start: StreamId) -> impl Iterator<Item = StreamId> {
        let consumer = self.consumers.get(consumer.0 as usize).and_then(Option::as_ref);
        consumer.into_iter().flat_map(move |consumer| consumer.pending.range(start..)).copied()
    }

    /// As [`Groups::free_some`].
    fn free_some(&mut self, budget: &mut usize) -> bool {
        while *budget > 0 && self.pending.pop_first().is_some() {
            *budget -= 1;
        }
        while *budget > 0
            && let Some(consumer) = self.consumers.last_mut()
        {
            *budget -= 1;
            let has_more = consumer.as_mut().is_some_and(|consumer| consumer.pending.pop_first().is_some());
            if !has_more {
                self.consumers.pop();
            }
        }
        while *budget > 0 && self.consumers_by_name.pop_first().is_some() {
            *budget -= 1;
        }
        *budget > 0
    }
}

impl Consumer {
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }
}

impl std::ops::Deref for GroupMut<'_> {
    type Target = Group;

    #[inline]
    fn deref(&self) -> &Group {
        self.group
    }
}

impl GroupMut<'_> {
    /// Sets how far the group has read.
    #[inline]
    pub fn set_read(&mut self, last_id: StreamId, entries_read: Option<i64>) {
        self.group.last_id = last_id;
        self.group.entries_read = entries_read;
    }

    /// Creates a consumer. `None`: there is one of that name.
    pub fn create_consumer(&mut self, name: &[u8], now_ms: i64) -> Option<ConsumerId> {
        if self.group.consumers_by_name.contains_key(name) {
            return None;
        }
        *self.bytes += consumer_bytes(name);
        let consumer = Some(Consumer { name: name.into(), seen_time_ms: now_ms, pending: BTreeSet::new() });
        let id = match self.group.free_consumers.pop() {
            Some(id) => {
                self.group.consumers[id.0 as usize] = consumer;
                id
            }
            None => {
                self.group.consumers.push(consumer);
                ConsumerId(u32::try_from(self.group.consumers.len() - 1).expect("fewer than 2^32 consumers"))
            }
        };
        self.group.consumers_by_name.insert(name.into(), id);
        Some(id)
    }

    /// Removes a consumer, and its pending entries with it. Returns how many these were, or `None` if there is no such
    /// consumer.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.group.consumers_by_name.remove(name)?;
        let consumer = self.group.consumers[id.0 as usize].take().expect("a named consumer exists");
        self.group.free_consumers.push(id);
        for pending_id in &consumer.pending {
            self.keep_pending(*pending_id);
            self.group.pending.remove(pending_id);
        }
        *self.bytes -= consumer_bytes(name) + consumer.pending.len() * PENDING_BYTES;
        Some(consumer.pending.len())
    }

    /// The consumer has called a command.
    #[inline]
    pub fn see_consumer(&mut self, id: ConsumerId, now_ms: i64) {
        self.consumer_mut(id).seen_time_ms = now_ms;
    }

    fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.group.consumers[id.0 as usize].as_mut().expect("a consumer's number is used while it exists")
    }

    /// While the stream is saved: a delivery is about to change, or to be made or acknowledged.
    #[inline]
    fn keep_pending(&mut self, id: StreamId) {
        if let Some(aside) = self.group.saving.get_mut() {
            aside.keep(id, self.group.pending.get(&id));
        }
    }

    /// An entry is pending from now on, or is pending as told: it may have been before, at another consumer.
    pub fn set_pending(&mut self, id: StreamId, pending: Pending) {
        self.keep_pending(id);
        match self.group.pending.insert(id, pending) {
            Some(before) if before.consumer == pending.consumer => return,
            Some(before) => {
                self.consumer_mut(before.consumer).pending.remove(&id);
            }
            None => *self.bytes += PENDING_BYTES,
        }
        self.consumer_mut(pending.consumer).pending.insert(id);
    }

    /// An entry is no longer pending. Returns whether it was.
    pub fn remove_pending(&mut self, id: StreamId) -> bool {
        self.keep_pending(id);
        let Some(pending) = self.group.pending.remove(&id) else { return false };
        self.consumer_mut(pending.consumer).pending.remove(&id);
        *self.bytes -= PENDING_BYTES;
        true
    }
}
