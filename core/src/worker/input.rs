//! The input of connections: the query buffer, which keeps what was not executed yet, and the end of stalls.

use super::IoRequest;
use super::Worker;
use super::connection::StallReason;
use crate::runtime::driver::ConnId;

/// If at least this much of an argument is missing, the driver reads it directly into the query buffer.
const BIG_ARG_BYTES: usize = 32 << 10;

/// The length of the first such read. Each further one may be as long as what has arrived so far.
const FILL_STEP_BYTES_MIN: usize = 256 << 10;

/// While requests are stalled, receiving is suspended when the query buffer is longer than this.
const HELD_QUERY_BYTES_MAX: usize = 1 << 20;

/// The same while memory is limited: what is held counts as used, and so takes room from keys.
const HELD_QUERY_BYTES_MAX_OF_LIMITED: usize = 128 << 10;
const _: () = assert!(HELD_QUERY_BYTES_MAX_OF_LIMITED <= HELD_QUERY_BYTES_MAX);

impl Worker {
    /// Takes bytes from a client. Only those that are not executed at once are copied to the query buffer.
    pub(super) fn take_input(&mut self, at: usize, bytes: &[u8]) {
        if self.record_input(at, bytes) {
            let consumed = self.process(at, bytes);
            self.keep_rest(at, &bytes[consumed..]);
        } else {
            let Some(connection) = self.connections[at].as_deref_mut() else { return };
            if connection.close_after_reply {
                return;
            }
            connection.keep_input(bytes);
            if connection.stall.is_none() {
                self.process_query(at);
            }
        }
        self.after_input(at);
    }

    /// Counts received bytes. Returns whether their requests can be executed in place, from the driver's buffer.
    #[inline]
    pub(super) fn record_input(&mut self, at: usize, bytes: &[u8]) -> bool {
        let Some(connection) = self.connections[at].as_deref_mut() else { return false };
        connection.client.input_total_bytes += bytes.len() as u64;
        connection.client.active_at_ms = self.shard.now_ms;
        self.client_memory.touch(at);
        if let Some(meter) = &mut connection.wait_meter {
            meter.begin(self.time.ticks);
        }
        // What a master has sent is counted where it came in, and what is in a file has come over no network.
        if !connection.client.is_server {
            self.shard.stats.input_bytes.add(bytes.len() as u64);
        }
        self.shard.stats.reads_processed.add(1);
        let direct =
            !connection.close_after_reply && connection.stall.is_none() && connection.query.is_empty();
        if direct {
            connection.in_hand_bytes = bytes.len();
        }
        direct
    }

    /// Keeps bytes that are not a complete request yet, or must not run yet, in the query buffer.
    #[inline]
    pub(super) fn keep_rest(&mut self, at: usize, rest: &[u8]) {
        if let Some(connection) = self.connections[at].as_deref_mut() {
            connection.in_hand_bytes = 0;
            if !rest.is_empty() && !connection.close_after_reply {
                connection.keep_input(rest);
            }
        }
    }

    /// Executes the requests in the query buffer.
    pub(super) fn process_query(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let mut query = std::mem::take(&mut connection.query);
        connection.query_peak_bytes = connection.query_peak_bytes.max(query.len());
        connection.in_hand_bytes = query.len();
        connection.arg_end_bytes = 0;
        let consumed = self.process(at, &query);
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        connection.in_hand_bytes = 0;
        // The buffer keeps its capacity, for the next big argument; the cron frees it if none comes.
        query.drain(..consumed);
        connection.query = query;
    }

    /// The length of a query buffer from which on a stalled connection receives nothing.
    pub(super) fn held_query_bytes_max(&self) -> usize {
        if self.shard.config.has_maxmemory() { HELD_QUERY_BYTES_MAX_OF_LIMITED } else { HELD_QUERY_BYTES_MAX }
    }

    /// Enforces the limits on the length of the query buffer.
    pub(super) fn after_input(&mut self, at: usize) {
        if self.connections[at].as_deref().is_none_or(|connection| connection.query.is_empty()) {
            return;
        }
        let held_bytes_max = self.held_query_bytes_max();
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let limit_bytes = self.shard.config.client_query_buffer_limit_bytes;
        let query_len_max = connection.client.query_len_max_bytes(limit_bytes);
        let stats = &self.shard.stats;
        stats.client_input_max_bytes.max(connection.query.len() as u64);
        if connection.query.len() as u64 > query_len_max {
            stats.client_query_limit_disconnections.add(1);
            crate::runtime::log::warning(format_args!(
                "Closing client that reached max query buffer length: id={} addr={}",
                connection.client.id, connection.client.addr
            ));
            self.close_now(at);
            return;
        }
        // The input of a blocked client is still read, as in Redis, so that the end of the connection is noticed even
        // after much more input.
        let holds_back = connection
            .stall
            .is_some_and(|stall| !matches!(stall, StallReason::Filling | StallReason::Blocked));
        if holds_back && connection.query.len() > held_bytes_max && !connection.receiving_paused {
            connection.receiving_paused = true;
            self.requests.push(IoRequest::Pause(connection.conn));
        }
        if connection.stall == Some(StallReason::Output) && connection.query.len() > held_bytes_max {
            self.yielded.push(at as u32);
        }
    }

    /// Lets the driver read the rest of big arguments directly into the query buffers. At the end of a turn, because
    /// until then the driver may still deliver received bytes in the ordinary way.
    pub(super) fn start_fills(&mut self) {
        for at in std::mem::take(&mut self.fills) {
            let Some(connection) = self.connections[at as usize].as_deref_mut() else { continue };
            if connection.stall != Some(StallReason::Filling) {
                continue;
            }
            let want = connection.fill_to_bytes.saturating_sub(connection.query.len());
            if want == 0 {
                self.release_stall(at as usize);
                continue;
            }
            let buf = std::mem::take(&mut connection.query);
            connection.in_driver_bytes = buf.len();
            self.filling.push((connection.conn, buf.len()));
            self.requests.push(IoRequest::RecvExact { conn: connection.conn, buf, want });
        }
    }

    pub(super) fn fill_big_arg(&mut self, at: usize, buf: &[u8], done: usize, missing: Option<usize>) {
        let Some(missing) = missing else { return };
        let limit = self.shard.config.client_query_buffer_limit_bytes;
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let arrived = buf.len() - done;
        connection.arg_end_bytes = arrived + missing;
        if missing < BIG_ARG_BYTES {
            return;
        }
        if (arrived + missing) as u64 > limit || connection.peer.has_ended_input {
            return;
        }
        connection.stall = Some(StallReason::Filling);
        // In steps as long as what has arrived, so that a client that only announces a big length takes little memory.
        connection.fill_to_bytes = arrived + missing.min(arrived.max(FILL_STEP_BYTES_MIN));
        self.fills.push(at as u32);
    }

    /// Notes how much of the big arguments has come that the driver is reading.
    pub fn note_fills(&mut self, filled_bytes: impl Fn(ConnId) -> usize) {
        let connections = &mut self.connections;
        self.filling.retain(|&(conn, begin)| match connections[conn.index()].as_deref_mut() {
            Some(connection) if connection.conn == conn && connection.in_driver_bytes > 0 => {
                connection.in_driver_bytes = begin + filled_bytes(conn);
                true
            }
            _ => false,
        });
    }

    /// Ends a connection's stall: its requests are tried again in this turn, unless they wait for something else now.
    pub(super) fn release_stall(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if connection.open_user_changes > 0 {
            connection.stall = Some(StallReason::Users);
            return;
        }
        connection.stall = None;
        self.runnable.push(at as u32);
    }

    /// Executes the requests of connections whose stall has ended.
    pub(super) fn resume_runnable(&mut self) {
        loop {
            if self.shard.has_due_waits() {
                self.serve_due();
            }
            let Some(at) = self.runnable.pop() else { return };
            let at = at as usize;
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            if connection.stall.is_none() && !connection.query.is_empty() {
                self.process_query(at);
                self.after_input(at);
            }
            self.end_if_done(at);
            if self.connections[at].as_deref().is_none_or(|connection| !connection.receiving_paused) {
                continue;
            }
            let held_bytes_max = self.held_query_bytes_max();
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            let may_receive = match connection.stall {
                None | Some(StallReason::Output) => connection.query.len() <= held_bytes_max,
                Some(stall) => stall == StallReason::Blocked,
            };
            if may_receive {
                connection.receiving_paused = false;
                self.requests.push(IoRequest::Resume(connection.conn));
            }
        }
    }
}
