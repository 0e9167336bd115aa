//! Buffers kept for reuse, so that a request allocates nothing.

use super::pipeline::Prepared;
use crate::client::CommandQueue;
use crate::protocol::ArgRange;

/// How many reply buffers are kept, and the capacity up to which one is.
const BUFFERS_MAX: usize = 64;
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The number of arguments up to which a group's vector of them is kept: SADD with 100,000 members would keep megabytes.
const GROUP_ARGS_MAX: usize = 4096;

/// How many command queues are kept.
const MULTIS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Pools {
    pub(super) buffers: Vec<Vec<u8>>,
    #[allow(clippy::vec_box, reason = "they move between here and the clients in their boxes")]
    multis: Vec<Box<CommandQueue>>,
    /// The vectors to which groups of requests are parsed. Several can be in use at once: requests of a connection that
    /// did not fit into a gathered group are parsed while that group is being executed.
    groups: Vec<(Vec<Prepared>, Vec<ArgRange>)>,
}

impl Pools {
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() != 0 && buffer.capacity() <= BUFFER_BYTES_MAX && self.buffers.len() < BUFFERS_MAX
        {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    pub(super) fn take_command_queue(&mut self) -> Box<CommandQueue> {
        self.multis.pop().unwrap_or_default()
    }

    pub(super) fn give_command_queue(&mut self, mut multi: Box<CommandQueue>) {
        if self.multis.len() < MULTIS_MAX {
            multi.clear();
            self.multis.push(multi);
        }
    }

    /// Empty vectors for a group.
    #[inline]
    pub(super) fn take_group(&mut self) -> (Vec<Prepared>, Vec<ArgRange>) {
        self.groups.pop().unwrap_or_default()
    }

    #[inline]
    pub(super) fn give_group(&mut self, mut prepared: Vec<Prepared>, mut args: Vec<ArgRange>) {
        prepared.clear();
        args.clear();
        args.shrink_to(GROUP_ARGS_MAX);
        self.groups.push((prepared, args));
    }
}
