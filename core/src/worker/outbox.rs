//! Messages that have not been handed to the mesh yet, and for each shard the batch of commands that grows during a
//! turn.

use crate::shard::message::{Batch, Message};
use std::collections::VecDeque;

/// How many batches are kept for reuse.
const SPARE_BATCHES_MAX: usize = 64;

/// A worker's messages that have not been handed to the mesh.
pub struct Outbox {
    /// The shard of the worker that sends them.
    shard: usize,
    /// For other shards, with the number of each. Messages for the same shard keep their order.
    messages: Vec<(usize, Message)>,
    /// For this shard itself.
    local: VecDeque<Message>,
    /// For each shard the batch that grows this turn.
    batches: Vec<Option<Box<Batch>>>,
    /// The shards that have one.
    open: Vec<u16>,
    #[allow(clippy::vec_box, reason = "batches travel in their boxes")]
    spare: Vec<Box<Batch>>,
}

impl Outbox {
    pub(super) fn new(shard: usize, shard_count: usize) -> Outbox {
        Outbox {
            shard,
            messages: Vec::new(),
            local: VecDeque::new(),
            batches: (0..shard_count).map(|_| None).collect(),
            open: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Adds a message for a shard, this one included.
    #[inline]
    pub(super) fn send(&mut self, to: usize, message: Message) {
        if to == self.shard {
            self.local.push_back(message);
        } else {
            self.messages.push((to, message));
        }
    }

    /// Whether there is a message for this shard itself.
    #[inline]
    pub(super) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    /// The next message for this shard itself.
    #[inline]
    pub(super) fn next_local(&mut self) -> Option<Message> {
        self.local.pop_front()
    }

    /// Takes the messages for other shards, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (usize, Message)> {
        self.messages.drain(..)
    }

    /// The batch that grows for a shard, if there is one.
    #[inline]
    pub(super) fn growing_batch(&self, shard: usize) -> Option<&Batch> {
        self.batches[shard].as_deref()
    }

    /// The batch that grows for a shard; a new one if there was none.
    #[inline]
    pub(super) fn batch(&mut self, shard: usize) -> &mut Batch {
        let (spare, open) = (&mut self.spare, &mut self.open);
        self.batches[shard].get_or_insert_with(|| {
            open.push(shard as u16);
            let batch = spare.pop().unwrap_or_default();
            // As a rule the next one is begun soon.
            spare.last().into_iter().for_each(Batch::prefetch_header);
            batch
        })
    }

    /// Takes out the batch for a shard.
    #[inline]
    pub(super) fn take_batch(&mut self, shard: usize) -> Option<Box<Batch>> {
        self.batches[shard].take()
    }

    /// Takes the list of shards for which batches grow. To be returned empty by `give_open`, for its allocation.
    #[inline]
    pub(super) fn take_open(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.open)
    }

    #[inline]
    pub(super) fn give_open(&mut self, open: Vec<u16>) {
        debug_assert!(open.is_empty() && self.open.is_empty());
        self.open = open;
    }

    /// An empty batch that is not tied to a shard.
    #[inline]
    pub(super) fn spare_batch(&mut self) -> Box<Batch> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back a batch that is no longer needed, for reuse.
    #[inline]
    pub(super) fn give_batch(&mut self, mut batch: Box<Batch>) {
        if self.spare.len() < SPARE_BATCHES_MAX {
            batch.clear();
            self.spare.push(batch);
        }
    }
}
