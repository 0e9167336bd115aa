//! Streams: a log of entries, each with an ID and fields, and the consumer groups that read it.
//!
//! - `id`: the IDs of entries
//! - `node`: consecutive entries in one listpack, in Redis' layout
//! - `run`: several nodes in one allocation; `nodes`: the nodes of a stream, in order
//! - `log`: the entries, with the rules of adding, deleting and trimming
//! - `groups`: consumer groups, their consumers and pending entries
//! - `lag`: how far a group is behind
//! - `radix`: what XINFO reports of a radix tree

mod groups;
mod id;
mod lag;
mod log;
mod node;
mod nodes;
mod radix;
mod run;
mod save;

pub use groups::{Consumer, ConsumerId, Group, GroupMut, Groups, Pending};
pub use id::{IdText, StreamId};
pub use log::{AppendError, Counters, Log, NewId, Precision, TrimTo};
pub use node::{Entry, Fields, NewEntry, NodeEntries, NodeLimits, NodeRef};
pub use nodes::{Range, RangeBack};
pub use save::{ConsumerHead, GroupHead};

use crate::types::{Collection, Encoding};

/// A stream. It exists without entries, too.
#[derive(Default)]
pub struct Stream {
    pub log: Log,
    pub groups: Groups,
}

impl Collection for Stream {
    fn len(&self) -> usize {
        self.log.len() as usize
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Stream>() + self.log.nodes.heap_bytes() + self.groups.heap_bytes()
    }

    fn free_cost(&self) -> usize {
        1 + self.log.nodes.free_cost() + self.groups.free_cost()
    }

    fn free_some(&mut self, budget: &mut usize) -> bool {
        self.log.nodes.free_some(budget) && self.groups.free_some(budget)
    }

    fn duplicate(&self) -> Stream {
        Stream { log: self.log.duplicate(), groups: self.groups.duplicate() }
    }

    fn encoding(&self) -> Encoding {
        Encoding::Stream
    }
}

#[cfg(test)]
mod tests;
