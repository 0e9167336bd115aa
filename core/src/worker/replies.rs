//! Replies in the order of their requests: to the output, or behind those that are still awaited.

use super::Worker;
use super::connection::StallReason;
use super::pipeline::Flow;
use crate::protocol::reply::Reply;
use crate::shard::message::ReplyId;

/// A connection with this much output has its limit looked at after every command, not only at the end of the turn: a
/// pipeline of small requests may have any amount of replies.
pub(super) const OUTPUT_WATCHED_BYTES: usize = 1 << 20;

impl Worker {
    /// A connection's output, or a new buffer if it has none, to be put back in its place.
    #[inline]
    pub(super) fn take_output(&mut self, at: usize) -> Vec<u8> {
        let Some(connection) = self.connections[at].as_deref_mut() else { return Vec::new() };
        connection.make_output_room(&mut self.pools.buffers);
        std::mem::take(&mut connection.out)
    }

    /// Writes a reply in its place: to the output, or behind the replies that are still awaited.
    pub(super) fn reply_now(&mut self, at: usize, write: impl FnOnce(&mut Reply<'_>)) {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        if !connection.takes_reply() {
            return;
        }
        let resp = connection.client.resp;
        if connection.pending.is_empty() {
            write(&mut Reply::new(&mut connection.out, resp));
        } else {
            connection.make_ready_room(&mut self.pools.buffers);
            let start = connection.ready.len();
            write(&mut Reply::new(&mut connection.ready, resp));
            connection.record_ready(start);
        }
        self.mark_dirty(at);
    }

    /// A buffer for the reply to a connection's request: its output, if the reply goes there directly.
    #[inline]
    pub(super) fn lend_output(&mut self, at: usize) -> (bool, Vec<u8>) {
        let connection = self.connections[at].as_deref().expect("its requests are being executed");
        let direct = connection.pending.is_empty();
        let out = if direct { self.take_output(at) } else { self.pools.buffers.pop().unwrap_or_default() };
        (direct, out)
    }

    /// Puts the buffer back without a reply.
    pub(super) fn put_output_back(&mut self, at: usize, direct: bool, out: Vec<u8>) {
        match self.connections[at].as_deref_mut() {
            Some(connection) if direct => connection.out = out,
            Some(_) | None => self.pools.give_buffer(out),
        }
    }

    /// Puts the buffer back, with a reply from `start` on.
    #[inline]
    pub(super) fn take_back_output(
        &mut self,
        at: usize,
        direct: bool,
        start: usize,
        mut out: Vec<u8>,
    ) -> Flow {
        let Some(connection) = self.connections[at].as_deref_mut() else { return Flow::Stop };
        if !connection.takes_reply() {
            out.truncate(start);
        }
        if direct {
            // What the handler itself pushed to its connection stands behind its reply.
            if !connection.out.is_empty() {
                out.extend_from_slice(&connection.out);
            }
            connection.out = out;
        } else {
            connection.make_ready_room(&mut self.pools.buffers);
            connection.queue_ready(&out);
            self.pools.give_buffer(out);
        }
        let Some(connection) = self.connections[at].as_deref() else { return Flow::Stop };
        if connection.output_len_bytes() >= OUTPUT_WATCHED_BYTES && self.check_output_limit(at) {
            return Flow::Stop;
        }
        self.mark_dirty(at);
        Flow::Next
    }

    pub(super) fn mark_dirty(&mut self, at: usize) {
        if let Some(connection) = self.connections[at].as_deref_mut()
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(at as u32);
        }
    }

    /// The connection that awaits a reply, if it is still there.
    #[inline]
    pub(super) fn connection_of(&self, reply_id: ReplyId) -> Option<usize> {
        let at = reply_id.conn as usize;
        let connection = self.connections[at].as_deref()?;
        (connection.conn.generation() == reply_id.generation).then_some(at)
    }

    /// A reply from elsewhere for a connection of this shard. The connection may have left meanwhile.
    pub(super) fn fulfil(&mut self, reply_id: ReplyId, reply: &[u8]) {
        let Some(at) = self.connection_of(reply_id) else { return };
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        connection.make_output_room(&mut self.pools.buffers);
        if connection.pending.len() > 1 {
            connection.make_ready_room(&mut self.pools.buffers);
        }
        let emptied = connection.fulfil(reply_id.place, reply);
        let was_waiting = matches!(connection.stall, Some(StallReason::Blocking | StallReason::Blocked));
        let go_on = match connection.stall {
            Some(StallReason::Pending) => connection.pending.is_empty(),
            Some(StallReason::Transaction | StallReason::Blocking | StallReason::Blocked) => true,
            Some(StallReason::Paused | StallReason::Filling) | None => false,
        };
        if let Some(buffer) = emptied {
            self.pools.give_buffer(buffer);
        }
        if was_waiting {
            self.end_wait(at);
        }
        self.mark_dirty(at);
        if go_on {
            self.release_stall(at);
        }
    }
}
