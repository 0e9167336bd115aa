//! The entries of a stream, and what it remembers of those that are gone.

use super::StreamId;
use super::node::{Entry, LEN_BYTES_MAX, NewEntry, Node, NodeLimits, NodeRef};
use super::nodes::{Nodes, Range, RangeBack};
use crate::types::listpack::Damage;

/// The entries of a stream.
#[derive(Default)]
pub struct Log {
    pub(super) nodes: Nodes,
    len: u64,
    /// The ID of the first entry; `MIN` if there is none.
    first_id: StreamId,
    /// The greatest ID that was ever given, or that XSETID has set.
    pub last_id: StreamId,
    /// The greatest ID that XDEL has deleted.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// What a stream remembers besides its entries and groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    pub len: u64,
    pub first_id: StreamId,
    pub last_id: StreamId,
    pub max_deleted_id: StreamId,
    pub entries_added: u64,
}

/// Why an entry is not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// Its ID is not greater than the last one.
    IdTooSmall,
    /// It does not fit into a node.
    TooLarge,
}

/// Which ID a new entry gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewId {
    /// `*`: the time, or the ID that follows the last one if the clock is behind it.
    Now {
        ms: u64,
    },
    /// `ms-*`: the next number in that millisecond.
    InMillisecond(u64),
    Exactly(StreamId),
}

/// Down to what a stream is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrimTo {
    /// That many entries.
    Len(u64),
    /// The entries from that ID on.
    MinId(StreamId),
}

/// How exactly a stream is trimmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    Exact,
    /// Only whole nodes are removed, and no more than this many entries; 0: any number.
    Nodes {
        limit: u64,
    },
}

impl Log {
    /// How many entries there are.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ID of the first entry; `MIN` if there is none.
    #[inline]
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    pub fn counters(&self) -> Counters {
        let Log { len, first_id, last_id, max_deleted_id, entries_added, .. } = *self;
        Counters { len, first_id, last_id, max_deleted_id, entries_added }
    }

    /// The ID that a new entry would get.
    ///
    /// # Errors
    /// It is not greater than the last one.
    #[inline]
    pub fn next_id(&self, new: NewId) -> Result<StreamId, AppendError> {
        let id = match new {
            NewId::Now { ms } if ms > self.last_id.ms => Some(StreamId { ms, seq: 0 }),
            NewId::Now { .. } => self.last_id.next(),
            NewId::InMillisecond(ms) if ms == self.last_id.ms => {
                self.last_id.seq.checked_add(1).map(|seq| StreamId { ms, seq })
            }
            NewId::InMillisecond(ms) => Some(StreamId { ms, seq: 0 }),
            NewId::Exactly(id) => Some(id),
        };
        id.filter(|&id| id > self.last_id).ok_or(AppendError::IdTooSmall)
    }

    /// Adds an entry. Returns its ID.
    ///
    /// # Errors
    /// The stream is as it was.
    #[inline]
    pub fn append(
        &mut self,
        new: NewId,
        entry: &NewEntry<'_>,
        limits: NodeLimits,
    ) -> Result<StreamId, AppendError> {
        let id = self.next_id(new)?;
        if entry.len_bytes() > LEN_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }

        let push = |first_id, node: &mut Node| node.push_if_fits(first_id, id, entry, limits);
        if self.nodes.change_last(push) != Some(true) {
            self.nodes.push(id, Node::of_one(id, entry));
        }

        self.entries_added = self.entries_added.wrapping_add(1);
        self.last_id = id;
        self.len += 1;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(id)
    }

    /// The entries from `start` to `end`, both included.
    #[inline]
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        self.nodes.range(start, end)
    }

    /// The entries from `end` back to `start`, both included.
    pub fn range_back(&self, start: StreamId, end: StreamId) -> RangeBack<'_> {
        self.nodes.range_back(start, end)
    }

    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// The last entry.
    pub fn last(&self) -> Option<Entry<'_>> {
        self.range_back(StreamId::MIN, StreamId::MAX).next()
    }

    /// Deletes entries. Returns how many of them were there.
    pub fn delete(&mut self, ids: impl Iterator<Item = StreamId>) -> u64 {
        let (mut deleted, mut is_first_deleted) = (0, false);
        for id in ids {
            if self.delete_one(id) {
                deleted += 1;
                is_first_deleted |= id == self.first_id;
                self.max_deleted_id = self.max_deleted_id.max(id);
            }
        }
        if is_first_deleted {
            self.find_first();
        }
        deleted
    }

    fn delete_one(&mut self, id: StreamId) -> bool {
        let Some((key, node)) = self.nodes.find(id) else { return false };
        if node.count() == 1 && node.entries(key).next().is_some_and(|only| only.id == id) {
            self.nodes.remove(key);
        } else if !self.nodes.change(key, |node| node.delete(key, id)) {
            return false;
        }
        self.len -= 1;
        true
    }

    fn find_first(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX).next();
        self.first_id = first.map_or(StreamId::MIN, |entry| entry.id);
    }

    /// Removes entries from the beginning. Returns how many.
    pub fn trim(&mut self, to: TrimTo, precision: Precision) -> u64 {
        if let TrimTo::Len(len) = to
            && self.len <= len
        {
            return 0;
        }
        let (limit, is_exact) = match precision {
            Precision::Exact | Precision::Nodes { limit: 0 } => (u64::MAX, precision == Precision::Exact),
            Precision::Nodes { limit } => (limit, false),
        };
        let mut removed = 0;
        while let Some((key, node)) = self.nodes.first() {
            let entries = node.count();
            let is_whole = match to {
                TrimTo::Len(len) if self.len <= len => break,
                TrimTo::Len(len) => self.len - entries >= len,
                TrimTo::MinId(min_id) if is_exact => {
                    node.entries(key).next_back().is_none_or(|last| last.id < min_id)
                }
                TrimTo::MinId(min_id) => node.last_id(key) < min_id,
            };
            if entries.saturating_add(removed) > limit {
                break;
            }
            if !is_whole {
                removed += if is_exact { self.trim_within(key, to) } else { 0 };
                break;
            }
            self.nodes.remove(key);
            self.len -= entries;
            removed += entries;
        }
        if removed > 0 {
            self.find_first();
        }
        removed
    }

    /// Removes entries from the first node, but not all of them.
    fn trim_within(&mut self, key: StreamId, to: TrimTo) -> u64 {
        let stream_len = self.len;
        let removed = self.nodes.change(key, |node| {
            node.delete_first(key, |id, deleted| match to {
                TrimTo::Len(len) => stream_len - deleted > len,
                TrimTo::MinId(min_id) => id < min_id,
            })
        });
        self.len -= removed;
        removed
    }

    /// The nodes with their keys, in order, for DUMP and RDB files.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (StreamId, NodeRef<'_>)> {
        self.nodes.iter()
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a node that was read from a file. Without `deep`, only its master entry is looked at.
    ///
    /// # Errors
    /// It is damaged, has no entry, or does not follow the nodes so far.
    pub fn push_node(&mut self, key: StreamId, bytes: Vec<u8>, deep: bool) -> Result<(), Damage> {
        let (node, entries) = Node::from_listpack(bytes, key, deep)?;
        if self.nodes.last().is_some_and(|(last_key, _)| last_key >= key) {
            return Err(Damage { offset: 0, what: "a stream node that is not behind the one before" });
        }
        if self.nodes.last().is_none() {
            self.first_id = node.as_ref().entries(key).next().map_or(key, |entry| entry.id);
        }
        self.nodes.push(key, node);
        self.len += entries;
        Ok(())
    }

    pub(super) fn duplicate(&self) -> Log {
        let Log { len, first_id, last_id, max_deleted_id, entries_added, .. } = *self;
        Log { nodes: self.nodes.duplicate(), len, first_id, last_id, max_deleted_id, entries_added }
    }
}
