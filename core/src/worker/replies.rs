//! Replies in the order of the requests: they go to the output, or wait behind pending replies.

use super::Worker;
use super::connection::{OUTPUT_TURN_BYTES, ReplyBytes, StallReason};
use super::pipeline::Flow;
use crate::protocol::reply::{Reply, Resp};
use crate::runtime::log;
use crate::shard::message::ReplyId;
use crate::worker::client_line::write_line;
use crate::worker::divergence::{self, Sender};

impl Worker {
    /// Takes a connection's output buffer, or a new one if it has none. The caller puts it back.
    #[inline]
    pub(super) fn take_output(&mut self, at: usize) -> Vec<u8> {
        let Some(connection) = self.connections[at].as_deref_mut() else { return Vec::new() };
        connection.make_output_room(&mut self.pools.buffers);
        std::mem::take(&mut connection.out)
    }

    /// Writes a reply in its place: to the output, or behind the pending replies.
    pub(super) fn reply_now(&mut self, at: usize, write: impl FnOnce(&mut Reply<'_>)) {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        if !connection.takes_reply() {
            if connection.client.is_replica() {
                let mut reply = Vec::new();
                write(&mut Reply::new(&mut reply, Resp::V2));
                self.replica_replied(at, &reply);
            }
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

    /// A buffer for the reply to a connection's request. It is the connection's output if the reply can go there
    /// directly.
    #[inline]
    pub(super) fn lend_output(&mut self, at: usize) -> (bool, Vec<u8>) {
        let connection = self.connections[at].as_deref().expect("its requests are being executed");
        let direct = connection.pending.is_empty();
        let out = if direct { self.take_output(at) } else { self.pools.buffers.pop().unwrap_or_default() };
        (direct, out)
    }

    /// Returns the buffer without a reply in it.
    pub(super) fn put_output_back(&mut self, at: usize, direct: bool, out: Vec<u8>) {
        match self.connections[at].as_deref_mut() {
            Some(connection) if direct => {
                let since = std::mem::replace(&mut connection.out, out);
                connection.out.extend_from_slice(&since);
            }
            Some(_) | None => self.pools.give_buffer(out),
        }
    }

    /// Returns the buffer, with a reply from `start` on.
    #[inline]
    pub(super) fn take_back_output(
        &mut self,
        at: usize,
        direct: bool,
        start: usize,
        mut out: Vec<u8>,
    ) -> Flow {
        let Some(connection) = self.connections[at].as_deref_mut() else { return Flow::Stop };
        let is_dropped = !connection.takes_reply();
        if is_dropped && out.len() > start && connection.client.is_replica() {
            self.replica_replied(at, &out[start..]);
        }
        if is_dropped {
            out.truncate(start);
        }
        let Some(connection) = self.connections[at].as_deref_mut() else { return Flow::Stop };
        if direct {
            // What was published meanwhile, or the handler has added itself, comes before the reply.
            if !connection.out.is_empty() {
                out.splice(start..start, connection.out.drain(..));
            }
            connection.out = out;
        } else {
            connection.make_ready_room(&mut self.pools.buffers);
            connection.queue_ready(&out);
            self.pools.give_buffer(out);
        }
        let Some(connection) = self.connections[at].as_deref() else { return Flow::Stop };
        let is_watched =
            connection.output_len_bytes() >= connection.watched_bytes(self.output_limit_near_bytes);
        self.mark_dirty(at);
        if is_watched && !self.watch_output(at) { Flow::Stop } else { Flow::Next }
    }

    /// For a connection with much output, after each command: closes it if the output is over its limit. Otherwise,
    /// stalls it after much output in this turn, so that other connections are served and output does not pile up; see
    /// [`release_output_stall`](Self::release_output_stall). Returns whether it may execute further requests at once.
    pub(super) fn watch_output(&mut self, at: usize) -> bool {
        if self.check_output_limit(at) {
            return false;
        }
        let Some(connection) = self.connections[at].as_deref_mut() else { return false };
        if connection.stall.is_some() || connection.output_len_bytes() < connection.watched_bytes(usize::MAX)
        {
            return true;
        }
        connection.stall = Some(StallReason::Output);
        self.yielded.push(at as u32);
        false
    }

    /// A replica has called something that has a reply, which would appear in the midst of its stream: it is no replica.
    #[cold]
    fn replica_replied(&mut self, at: usize, reply: &[u8]) {
        let Some(connection) = self.connections[at].as_deref().filter(|it| !it.close_after_reply) else {
            return;
        };
        let name = connection.client.last_command.map(|id| self.table.entry(id).full_name.as_str());
        let mut line = Vec::new();
        write_line(&mut line, connection, self.table, self.shard.now_ms, 0, false);
        log::warning(format_args!(
            "Replica generated a reply to command '{}', disconnecting it: {}",
            name.unwrap_or("<unknown>"),
            String::from_utf8_lossy(line.trim_ascii_end())
        ));
        if let [b'-', error @ ..] = reply {
            let error = String::from_utf8_lossy(error.trim_ascii_end());
            divergence::tell(self.globals, Sender::Replica, name, &error);
        }
        self.close_after_reply(at);
    }

    /// At the end of a turn: lets the connections that were stalled for their output in it continue in the next turn,
    /// where possible.
    pub(super) fn release_yielded(&mut self) {
        let mut yielded = std::mem::take(&mut self.yielded);
        yielded.drain(..).for_each(|at| self.release_output_stall(at as usize));
        self.yielded = yielded;
    }

    /// Resumes a connection that was stalled for its output, unless it has to wait until that has been sent.
    pub(super) fn release_output_stall(&mut self, at: usize) {
        let held_bytes_max = self.held_query_bytes_max();
        let limit = &self.shard.config.client_output_buffer_limit.normal;
        // With a limit, Redis disconnects a client that requests more than it reads. If the client were stalled, its
        // output would never reach the limit.
        let is_limited = limit.hard_bytes != 0 || limit.soft_bytes != 0;
        let Some(connection) = self.connections[at].as_deref() else { return };
        if connection.stall != Some(StallReason::Output) {
            return;
        }
        let may_go_on = is_limited
            || connection.peer.has_ended()
            || connection.unsent_len_bytes() < OUTPUT_TURN_BYTES
            // A client that reads only after it has sent all its requests would wait for us while we wait for it.
            || connection.receiving_paused
            || connection.query.len() > held_bytes_max;
        if may_go_on {
            let connection = self.connections[at].as_deref_mut().expect("it was there just now");
            connection.earlier_output_bytes = connection.output_len_bytes();
            self.release_stall(at);
        }
    }

    pub(super) fn mark_dirty(&mut self, at: usize) {
        if let Some(connection) = self.connections[at].as_deref_mut()
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(at as u32);
        }
    }

    /// Has the running command of a connection reply later, by [`Worker::answer`].
    pub fn reply_later(&mut self, at: usize) -> ReplyId {
        self.connections[at].as_deref_mut().expect("it has called").await_reply(at)
    }

    /// The connection that waits for a reply, if it is still open.
    #[inline]
    pub(super) fn connection_of(&self, reply_id: ReplyId) -> Option<usize> {
        let at = reply_id.conn as usize;
        // That of a task, and of what the server itself calls, is beyond all connections.
        let connection = self.connections.get(at)?.as_deref()?;
        (connection.conn.generation() == reply_id.generation).then_some(at)
    }

    /// Completes a pending reply of a connection of this shard. The connection may have been closed since.
    pub(super) fn fulfil(&mut self, reply_id: ReplyId, reply: &[u8]) {
        self.fulfil_by(reply_id, ReplyBytes::Lent(reply));
    }

    /// The same with a reply in a buffer of its own, which is handed on if possible.
    pub(super) fn fulfil_owned(&mut self, reply_id: ReplyId, reply: Vec<u8>) {
        self.fulfil_by(reply_id, ReplyBytes::Given(reply));
    }

    #[inline(always)]
    fn fulfil_by(&mut self, reply_id: ReplyId, reply: ReplyBytes<'_>) {
        let Some(at) = self.connection_of(reply_id) else { return };
        let Some(mut connection) = self.connections[at].as_deref_mut() else { return };
        if connection.client.is_replica() && !reply.as_slice().is_empty() {
            self.replica_replied(at, reply.as_slice());
            let Some(still_open) = self.connections[at].as_deref_mut() else { return };
            connection = still_open;
        }
        if matches!(reply, ReplyBytes::Lent(_)) {
            connection.make_output_room(&mut self.pools.buffers);
            if connection.pending.len() > 1 {
                connection.make_ready_room(&mut self.pools.buffers);
            }
        }
        let emptied = connection.fulfil(reply_id.place, reply);
        let was_waiting = matches!(connection.stall, Some(StallReason::Blocking | StallReason::Blocked));
        let go_on = match connection.stall {
            Some(StallReason::Pending) => connection.pending.is_empty(),
            Some(StallReason::Transaction | StallReason::Blocking | StallReason::Blocked) => true,
            Some(
                StallReason::Paused
                | StallReason::Filling
                | StallReason::Output
                | StallReason::Handoffs
                | StallReason::Users,
            )
            | None => false,
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
