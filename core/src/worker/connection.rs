//! A connection as its worker sees it: the session, the bytes in and out, and the replies still awaited.

use crate::client::{Client, ReplyMode};
use crate::protocol::request::RequestParser;
use crate::runtime::driver::ConnId;
use crate::shard::message::ReplyId;
use std::collections::VecDeque;
use std::ops::Range;

/// The place of one reply in a connection's output order.
pub(super) enum PendingReply {
    /// Another shard, or a lock, still has the command. `discard`: CLIENT REPLY left its reply out.
    Waiting { discard: bool },
    /// Replies that are complete and wait for those before them: these bytes of the connection's `ready`. No bytes may
    /// be anywhere, for its reply, which CLIENT REPLY left out, does not keep the buffer.
    Ready(Range<usize>),
}

/// Why a connection's requests are not executed at present. They stay in its query buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StallReason {
    /// A command over several shards runs; it is alone in its connection's pipeline.
    Transaction,
    /// A command that may wait for a key runs elsewhere, or stands behind a lock.
    Blocking,
    /// It waits for a key.
    Blocked,
    /// The next command starts when all earlier replies are there.
    Pending,
    /// CLIENT PAUSE.
    Paused,
    /// The driver reads a big argument straight into the query buffer.
    Filling,
    /// Its replies of this turn are many bytes: see [`Worker::watch_output`](super::Worker).
    Output,
}

/// A connection waits with further requests when it awaits `pending_max` replies from other shards. That begins
/// here, grows by one with each reply up to the maximum, and falls to the minimum with a big one: what a client
/// that does not read has under way stays bounded in bytes, although nobody knows a reply's length beforehand.
const PENDING_START: usize = 16;
const PENDING_MAX: usize = 1024;
const PENDING_MIN: usize = 16;
const BIG_REPLY_BYTES: usize = 16 << 10;
const _: () = assert!(PENDING_MIN <= PENDING_START && PENDING_START <= PENDING_MAX);

/// A connection has about so many bytes of replies in a turn: a pipeline of small requests may have any amount of them.
pub(super) const OUTPUT_TURN_BYTES: usize = 256 << 10;

/// In `ready` there may be so many bytes besides twice those that wait, before they are moved together.
const READY_SLACK_BYTES: usize = 64 << 10;

/// The buffer that a busy connection gets for its next replies, and the least that any gets.
pub const REPLY_BUFFER_BYTES_MAX: usize = 16 << 10;
pub(super) const REPLY_BUFFER_BYTES_MIN: usize = 1 << 10;

/// What Redis' reply blocks hold (PROTO_REPLY_CHUNK_BYTES and what its allocator adds), and what their heads take.
const REPLY_BLOCK_BYTES: usize = (20 << 10) - 16;
const REPLY_BLOCK_HEAD_BYTES: usize = 40;

/// What a connection that is active may count on in the driver's receive buffers, which all connections share.
const RECEIVE_SHARE_BYTES: usize = 16 << 10;

/// A connection counts as active for so long after its last request.
pub(super) const ACTIVE_MS: i64 = 2000;

/// How far the other side has ended a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Peer {
    /// It sends nothing any more; all that it has sent is here.
    pub(super) has_ended_input: bool,
    /// It takes nothing any more.
    pub(super) is_deaf: bool,
}

impl Peer {
    pub(super) fn has_ended(self) -> bool {
        self.has_ended_input || self.is_deaf
    }
}

pub struct Connection {
    pub(super) conn: ConnId,
    pub client: Client,
    /// Bytes received and not yet executed; begins with a request's first byte.
    pub(super) query: Vec<u8>,
    /// The most that `query` held since the cron looked last.
    pub(super) query_peak_bytes: usize,
    /// Bytes that are being executed from: they lie in the driver's buffer, or were taken out of `query`.
    pub(super) in_hand_bytes: usize,
    pub(super) parser: RequestParser,
    /// Replies in order, ready to leave.
    pub(super) out: Vec<u8>,
    /// How much room `out` is given when there is no spare buffer. The cron fits it to the replies.
    pub(super) reply_buffer_bytes: usize,
    /// The longest output lately, and since when.
    pub(super) reply_peak_bytes: usize,
    pub(super) reply_peak_since_ms: i64,
    /// Of the output that there is, so much is of earlier turns.
    pub(super) earlier_output_bytes: usize,
    /// Bytes the driver has and has not sent yet.
    pub(super) sending_bytes: usize,
    pub(super) pending: VecDeque<PendingReply>,
    /// The replies in `pending` that are complete, one behind the other in the order in which they came, and some that
    /// have left. Lent by the worker, while there are any.
    pub(super) ready: Vec<u8>,
    /// How many of these bytes have not left.
    ready_bytes: usize,
    /// Running number of the next slot.
    pub(super) next_place: u64,
    pub(super) pending_max: usize,
    pub(super) stall: Option<StallReason>,
    /// While filling: how long `query` is when the big argument is complete.
    pub(super) fill_to_bytes: usize,
    /// Receiving is suspended because requests pile up while they are held.
    pub(super) receiving_paused: bool,
    pub(super) peer: Peer,
    /// Close when everything has been sent.
    pub(super) close_after_reply: bool,
    /// In the worker's list of connections with something to send.
    pub(super) is_dirty: bool,
    /// In the group of inputs under way.
    pub(super) is_gathered: bool,
    /// Its output is held back until then, for the replies that come behind it; monotonic clock.
    pub(super) deferred_until_nanos: Option<u64>,
    /// Since when the output has been above its soft limit; wall clock in milliseconds.
    pub(super) over_soft_limit_since_ms: Option<i64>,
}

impl Connection {
    pub(super) fn new(conn: ConnId, client: Client) -> Connection {
        Connection {
            conn,
            reply_peak_since_ms: client.created_at_ms,
            client,
            query: Vec::new(),
            query_peak_bytes: 0,
            in_hand_bytes: 0,
            parser: RequestParser::default(),
            out: Vec::new(),
            reply_buffer_bytes: REPLY_BUFFER_BYTES_MAX,
            reply_peak_bytes: REPLY_BUFFER_BYTES_MAX,
            earlier_output_bytes: 0,
            sending_bytes: 0,
            pending: VecDeque::new(),
            ready: Vec::new(),
            ready_bytes: 0,
            next_place: 0,
            pending_max: PENDING_START,
            stall: None,
            fill_to_bytes: 0,
            receiving_paused: false,
            peer: Peer::default(),
            close_after_reply: false,
            is_dirty: false,
            is_gathered: false,
            deferred_until_nanos: None,
            over_soft_limit_since_ms: None,
        }
    }

    /// A connection outside any driver, to be looked at.
    #[cfg(test)]
    pub fn for_test(client: Client) -> Connection {
        Connection::new(ConnId::new(0, 1), client)
    }

    /// Bytes received and not done with; while a command runs, those it came with are among them.
    pub fn query_len_bytes(&self) -> usize {
        self.query.len() + self.in_hand_bytes
    }

    /// Room for more input that is kept for the connection: in its own buffer, and, while it is active, in the
    /// driver's.
    pub fn query_free_bytes(&self, now_ms: i64) -> usize {
        let own = self.query.capacity() - self.query.len();
        let is_active = now_ms - self.client.active_at_ms < ACTIVE_MS;
        let share = if is_active { RECEIVE_SHARE_BYTES.saturating_sub(self.in_hand_bytes) } else { 0 };
        own + share
    }

    /// Room that the connection gets for its next replies.
    pub fn reply_buffer_bytes(&self) -> usize {
        self.reply_buffer_bytes
    }

    /// The most of that room that was used lately.
    pub fn reply_peak_bytes(&self) -> usize {
        self.reply_peak_bytes.min(self.reply_buffer_bytes)
    }

    /// Whether CLIENT PAUSE holds one of its commands.
    pub fn is_paused(&self) -> bool {
        self.stall == Some(StallReason::Paused)
    }

    /// The requests that CLIENT PAUSE holds; the first of them is whole.
    pub fn paused_query(&self) -> Option<&[u8]> {
        self.is_paused().then_some(&self.query)
    }

    /// Whether one of its commands waits for a key.
    pub fn is_blocked(&self) -> bool {
        self.stall == Some(StallReason::Blocked)
    }

    /// Whether it ends when its replies are sent.
    pub fn is_closing(&self) -> bool {
        self.close_after_reply
    }

    pub fn is_receiving(&self) -> bool {
        !self.receiving_paused
    }

    pub fn is_sending(&self) -> bool {
        self.sending_bytes > 0
    }

    /// Bytes of replies that are ready and have not reached the socket, those that wait for earlier ones included.
    pub fn output_len_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes + self.ready_bytes
    }

    /// Bytes of replies that could be sent and have not reached the socket.
    pub(super) fn unsent_len_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes
    }

    /// With so much output the connection is looked at after every command: see `Worker::watch_output`.
    #[inline]
    pub(super) fn watched_bytes(&self, limit_near_bytes: usize) -> usize {
        limit_near_bytes.min(self.earlier_output_bytes + OUTPUT_TURN_BYTES)
    }

    /// What Redis would count of the replies against client-output-buffer-limit: not those in the fixed reply buffer, but
    /// what does not fit there any more, in blocks.
    pub fn output_list_bytes(&self) -> usize {
        let beyond = self.output_len_bytes().saturating_sub(self.reply_buffer_bytes);
        beyond.div_ceil(REPLY_BLOCK_BYTES) * (REPLY_BLOCK_BYTES + REPLY_BLOCK_HEAD_BYTES)
    }

    /// Memory of the connection's buffers.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of::<Connection>()
            + self.query.capacity()
            + self.out.capacity()
            + self.sending_bytes
            + self.ready.capacity()
            + self.pending.capacity() * std::mem::size_of::<PendingReply>()
            + self.client.queued().map_or(0, |queued| queued.memory_bytes)
    }

    /// The peer takes nothing any more: neither what is ready nor what will be.
    pub(super) fn drop_output(&mut self) {
        self.peer.is_deaf = true;
        self.out = Vec::new();
        self.sending_bytes = 0;
    }

    /// Reserves the next place in the reply order.
    pub(super) fn await_reply(&mut self, index: usize) -> ReplyId {
        let discard = !self.takes_reply();
        self.reserve(index, discard)
    }

    /// The same for one that holds only what the client is to get, whatever it says now.
    pub(super) fn await_cut_reply(&mut self, index: usize) -> ReplyId {
        self.reserve(index, false)
    }

    fn reserve(&mut self, index: usize, discard: bool) -> ReplyId {
        self.pending.push_back(PendingReply::Waiting { discard });
        let place = self.next_place;
        self.next_place += 1;
        ReplyId { conn: index as u32, generation: self.conn.generation(), place }
    }

    /// Whether the running command's reply goes to the client.
    #[inline]
    pub(super) fn takes_reply(&self) -> bool {
        matches!(self.client.reply_mode, ReplyMode::On | ReplyMode::SkipNext)
    }

    /// Lends `ready` a buffer, if it has none. It goes back when all that is in it has left: see
    /// [`fulfil`](Self::fulfil).
    #[inline]
    pub(super) fn make_ready_room(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.ready.capacity() == 0 {
            self.ready = spare.pop().unwrap_or_default();
        }
    }

    /// Lends `out` a buffer, if it has none: replies from elsewhere grow it piece by piece.
    #[inline]
    pub(super) fn make_output_room(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.out.capacity() == 0 {
            self.out = spare.pop().unwrap_or_else(|| Vec::with_capacity(self.reply_buffer_bytes));
        }
    }

    /// Appends a reply that is already complete, behind those that are awaited.
    pub(super) fn queue_ready(&mut self, reply: &[u8]) {
        let start = self.ready.len();
        self.ready.extend_from_slice(reply);
        self.record_ready(start);
    }

    /// What stands in `ready` from `start` on are complete replies that go behind all others.
    pub(super) fn record_ready(&mut self, start: usize) {
        let end = self.ready.len();
        self.ready_bytes += end - start;
        match self.pending.back_mut() {
            Some(PendingReply::Ready(range)) if range.end == start => range.end = end,
            _ => {
                self.pending.push_back(PendingReply::Ready(start..end));
                self.next_place += 1;
            }
        }
    }

    /// Fills an awaited place. Everything at the head that is now complete moves to the output. Returns the buffer of
    /// complete replies when nothing is left in it.
    pub(super) fn fulfil(&mut self, place: u64, reply: &[u8]) -> Option<Vec<u8>> {
        let head = self.next_place - self.pending.len() as u64;
        let index = (place - head) as usize;
        let PendingReply::Waiting { discard } = self.pending[index] else {
            panic!("place {place} was fulfilled twice");
        };
        self.pending_max =
            if reply.len() > BIG_REPLY_BYTES { PENDING_MIN } else { (self.pending_max + 1).min(PENDING_MAX) };
        let reply = if discard { &[] } else { reply };
        if index > 0 {
            let start = self.ready.len();
            self.ready.extend_from_slice(reply);
            self.ready_bytes += reply.len();
            self.pending[index] = PendingReply::Ready(start..self.ready.len());
            return None;
        }
        self.out.extend_from_slice(reply);
        self.pending.pop_front();
        while let Some(PendingReply::Ready(range)) = self.pending.front() {
            self.ready_bytes -= range.len();
            if !range.is_empty() {
                self.out.extend_from_slice(&self.ready[range.clone()]);
            }
            self.pending.pop_front();
        }
        if self.ready_bytes > 0 {
            self.compact_ready();
            return None;
        }
        (!self.ready.is_empty()).then(|| {
            self.ready.clear();
            std::mem::take(&mut self.ready)
        })
    }

    /// Moves the replies in `ready` together when most of it has left.
    fn compact_ready(&mut self) {
        if self.ready.len() <= 2 * self.ready_bytes + READY_SLACK_BYTES {
            return;
        }
        let mut together = Vec::with_capacity(2 * self.ready_bytes);
        for slot in &mut self.pending {
            if let PendingReply::Ready(range) = slot
                && range.start < range.end
            {
                let start = together.len();
                together.extend_from_slice(&self.ready[range.clone()]);
                *range = start..together.len();
            }
        }
        self.ready = together;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// Replies leave in the order of their places, whatever the order in which they come.
    #[test]
    fn replies_leave_in_order_and_the_room_for_those_that_wait_is_bounded() {
        let mut rng = Rng::new(1);
        let mut below = |limit: usize| rng.below(limit);
        let mut connection = Connection::for_test(Client::new(1, 0, true));
        let (mut expected, mut awaited) = (Vec::new(), Vec::new());
        let mut returned = 0;
        for n in 0..20_000u32 {
            let reply =
                if below(8) == 0 { Vec::new() } else { format!("{n}").repeat(1 + below(300)).into_bytes() };
            expected.extend_from_slice(&reply);
            if below(3) == 0 && !connection.pending.is_empty() {
                connection.queue_ready(&reply);
            } else {
                awaited.push((connection.await_reply(0).place, reply));
            }
            let is_last = n == 19_999;
            while awaited.len() > 20 || is_last && !awaited.is_empty() {
                let (place, reply) = awaited.remove(below(awaited.len()));
                returned += u32::from(connection.fulfil(place, &reply).is_some());
            }
            assert!(connection.ready.len() <= 2 * connection.ready_bytes + READY_SLACK_BYTES + 2 * 1500);
        }
        assert!(connection.out == expected && connection.pending.is_empty());
        assert_eq!((connection.ready.len(), connection.ready_bytes), (0, 0));
        assert!(returned > 0);
    }
}
