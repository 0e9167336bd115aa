//! A connection: its client's session, its input and output buffers, and its pending replies.

use crate::client::{Client, ReplyMode, Tracking};
use crate::protocol::request::RequestParser;
use crate::pubsub::Subscriptions;
use crate::runtime::driver::ConnId;
use crate::runtime::tls::PeerCertificate;
use crate::shard::message::ReplyId;
use crate::shard::tracking::Redirected;
use crate::worker::client_memory::Counted;
use crate::worker::handoffs::WaitBehind;
use std::collections::VecDeque;
use std::ops::Range;

/// An entry in a connection's queue of replies that cannot be sent yet.
pub(super) enum PendingReply {
    /// The command runs on another shard, or waits for a lock or a key. `discard`: the client does not get the reply
    /// (CLIENT REPLY).
    Waiting { discard: bool },
    /// Complete replies that must be sent after those before them: this range of the connection's `ready`. An empty
    /// range (a discarded reply) may lie outside of it, as it does not keep the buffer alive.
    Ready(Range<usize>),
}

/// Why a connection's requests are not executed at present. They remain in its query buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StallReason {
    /// A command or EXEC over several shards is running, or, with a single shard, one that has to wait. No other request of the
    /// connection runs at the same time.
    Transaction,
    /// A blocking command runs on another shard, or waits for a lock.
    Blocking,
    /// The client is blocked on keys.
    Blocked,
    /// The next command must not start before all earlier replies have come.
    Pending,
    /// CLIENT PAUSE.
    Paused,
    /// The driver reads a big argument directly into the query buffer.
    Filling,
    /// It has produced much output in this turn: see [`Worker::watch_output`](super::Worker).
    Output,
    /// INFO comes behind what is under way on other shards: see `worker/handoffs`.
    Handoffs,
    /// It has changed the users, and other shards have not adopted them yet: see `worker/acl`.
    Users,
}

/// A connection waits with further requests when it awaits `pending_max` replies from other shards. That begins
/// here, grows by one with each reply up to the maximum, and falls to the minimum or below with a big one, or a big request: what a
/// client that does not read has under way stays bounded in bytes, although a reply's length is not known beforehand.
const PENDING_START: usize = 16;
const PENDING_MAX: usize = 1024;
const PENDING_MIN: usize = 16;
pub(super) const BIG_REPLY_BYTES: usize = 16 << 10;
pub(super) const BIG_REQUEST_BYTES: usize = 16 << 10;
const _: () = assert!(PENDING_MIN <= PENDING_START && PENDING_START <= PENDING_MAX);

/// The bytes of big requests, or of big replies, that a connection has under way between the shards, about; a single one
/// may be longer.
const UNDER_WAY_BYTES: usize = 4 << 20;

/// The `pending_max` of a connection whose last request or reply was so long.
fn pending_max_of_big(len_bytes: usize) -> usize {
    (UNDER_WAY_BYTES / len_bytes.max(1)).clamp(1, PENDING_MIN)
}

/// A reply from another shard.
pub(super) enum ReplyBytes<'a> {
    Lent(&'a [u8]),
    /// In a buffer of its own, which the connection may keep.
    Given(Vec<u8>),
}

impl ReplyBytes<'_> {
    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            ReplyBytes::Lent(bytes) => bytes,
            ReplyBytes::Given(bytes) => bytes,
        }
    }

    #[inline(always)]
    fn append_to(self, out: &mut Vec<u8>) {
        match self {
            ReplyBytes::Given(bytes) if out.is_empty() => *out = bytes,
            other => out.extend_from_slice(other.as_slice()),
        }
    }
}

/// A connection stops executing requests in a turn after about this many bytes of replies: a pipeline of small requests
/// may have replies of any length.
pub(super) const OUTPUT_TURN_BYTES: usize = 256 << 10;

/// `ready` is compacted when it is longer than this plus twice the bytes that are still waiting.
const READY_SLACK_BYTES: usize = 64 << 10;

/// The largest and the smallest reply buffer of a connection.
pub(super) const REPLY_BUFFER_BYTES_MAX: usize = 16 << 10;
pub(super) const REPLY_BUFFER_BYTES_MIN: usize = 1 << 10;

/// The capacity of one of Redis' reply blocks (PROTO_REPLY_CHUNK_BYTES, rounded up by its allocator), and the size of
/// its header.
const REPLY_BLOCK_BYTES: usize = (20 << 10) - 16;
const REPLY_BLOCK_HEAD_BYTES: usize = 40;

/// The share of the driver's receive buffers, which all connections use, that is accounted to an active connection.
const RECEIVE_SHARE_BYTES: usize = 16 << 10;

/// A connection counts as active for this long after its last input.
pub(super) const ACTIVE_MS: i64 = 2000;

/// An invalidation that waits until it may be redirected: see [`shard::tracking`](crate::shard::tracking).
pub(super) struct HeldRedirect {
    /// All replies before this place must have been sent.
    place: u64,
    /// Once these are in the output: how many bytes the connection has sent then, in its life.
    sent_bytes: Option<u64>,
    pub(super) redirected: (u16, Box<Redirected>),
}

/// Which directions of a connection its peer has ended.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Peer {
    /// It sends no more; everything that it has sent has been received.
    pub(super) has_ended_input: bool,
    /// It takes no more output.
    pub(super) is_deaf: bool,
}

/// The longest time between the receipt of a request and the moment when its reply, and all before it, are handed to the driver.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct WaitMeter {
    /// When the first of the requests came whose replies are still owed, in ticks.
    owed_since_ticks: Option<u64>,
    longest_ticks: u64,
}

impl WaitMeter {
    pub(super) fn begin(&mut self, now_ticks: u64) {
        self.owed_since_ticks.get_or_insert(now_ticks);
    }

    /// Nothing is owed any more.
    pub(super) fn end(&mut self, now_ticks: u64) {
        if let Some(since_ticks) = self.owed_since_ticks.take() {
            self.longest_ticks = self.longest_ticks.max(now_ticks.saturating_sub(since_ticks));
        }
    }
}

impl Peer {
    pub(super) fn has_ended(self) -> bool {
        self.has_ended_input || self.is_deaf
    }
}

pub struct Connection {
    pub(super) conn: ConnId,
    pub client: Client,
    /// What a peer that speaks TLS has shown, if it was asked for it.
    pub certificate: Option<PeerCertificate>,
    /// Bytes received and not yet executed; begins with a request's first byte.
    pub(super) query: Vec<u8>,
    /// The maximal length of `query` since the cron last looked at the connection.
    pub(super) query_peak_bytes: usize,
    /// Length of the input being executed, which is in the driver's buffer or was taken out of `query`.
    pub(super) in_hand_bytes: usize,
    pub(super) parser: RequestParser,
    /// Replies in order, ready to be sent.
    pub(super) out: Vec<u8>,
    /// The capacity of a new `out` when there is no spare buffer. The cron adapts it to the length of the output.
    pub(super) reply_buffer_bytes: usize,
    /// The peak of the output's length, and since when it is measured.
    pub(super) reply_peak_bytes: usize,
    pub(super) reply_peak_since_ms: i64,
    /// How much of the present output is from earlier turns.
    pub(super) earlier_output_bytes: usize,
    /// With `appendfsync always`, how much of `out` may be sent when a ticket is safe: tickets in order, each with an end in
    /// `out`. See `worker/aof`.
    held: Vec<(u64, usize)>,
    /// Bytes that were passed to the driver and have not been sent yet.
    pub(super) sending_bytes: usize,
    /// The capacity of their buffer.
    pub(super) sending_capacity: usize,
    /// By how much the buffers of its output have grown for invalidations that it has not got yet.
    pub(super) invalidation_bytes: usize,
    pub(super) pending: VecDeque<PendingReply>,
    /// The complete replies in `pending`, in the order in which they came, and some that were moved to `out` already. A
    /// buffer from the worker's pool while there are any.
    pub(super) ready: Vec<u8>,
    /// How many of these bytes were not moved to `out`.
    ready_bytes: usize,
    /// The number of the next entry of `pending`.
    pub(super) next_place: u64,
    pub(super) pending_max: usize,
    /// All replies in `pending` come from this shard, to which their requests were sent in order.
    pub(super) awaits_only: Option<usize>,
    pub(super) stall: Option<StallReason>,
    /// While the driver reads a big argument: the length of `query` at which the read ends.
    pub(super) fill_to_bytes: usize,
    /// Meanwhile: how much of `query` the driver has.
    pub(super) in_driver_bytes: usize,
    /// While `query` ends within an argument: its length when the argument is whole.
    pub(super) arg_end_bytes: usize,
    /// How it is counted for `maxmemory-clients`.
    pub(super) counted: Option<Counted>,
    /// Receiving is suspended because too many bytes have piled up while requests are stalled.
    pub(super) receiving_paused: bool,
    pub(super) peer: Peer,
    /// Close when everything has been sent.
    pub(super) close_after_reply: bool,
    /// How many changes of the users it has made that other shards have not adopted yet. Its output waits for them.
    pub(super) open_user_changes: u32,
    /// It is in the worker's list of connections with output to send.
    pub(super) is_dirty: bool,
    /// Its input is part of the group that is being gathered.
    pub(super) is_gathered: bool,
    /// The server's own: its requests run as transactions of as many of them as possible, one after the other.
    pub(super) joins_requests: bool,
    /// Its output is deferred until then, to be sent together with pending replies; monotonic clock.
    pub(super) deferred_until_nanos: Option<u64>,
    /// How long its requests take, from when that is asked for the first time (DEBUG LONGEST-WAIT).
    pub(super) wait_meter: Option<WaitMeter>,
    /// Invalidations for the client that its client redirects to, until what comes before them has been sent.
    pub(super) redirects: VecDeque<HeldRedirect>,
    /// What its next request waits for on other shards.
    pub(super) waits_behind: Option<WaitBehind>,
    /// Since when the output has been above its soft limit; wall clock in milliseconds.
    pub(super) over_soft_limit_since_ms: Option<i64>,
}

impl Connection {
    pub(super) fn new(conn: ConnId, client: Client) -> Connection {
        Connection {
            conn,
            reply_peak_since_ms: client.created_at_ms,
            client,
            certificate: None,
            query: Vec::new(),
            query_peak_bytes: 0,
            in_hand_bytes: 0,
            parser: RequestParser::default(),
            out: Vec::new(),
            reply_buffer_bytes: REPLY_BUFFER_BYTES_MAX,
            reply_peak_bytes: REPLY_BUFFER_BYTES_MAX,
            earlier_output_bytes: 0,
            held: Vec::new(),
            sending_bytes: 0,
            sending_capacity: 0,
            invalidation_bytes: 0,
            pending: VecDeque::new(),
            ready: Vec::new(),
            ready_bytes: 0,
            next_place: 0,
            pending_max: PENDING_START,
            awaits_only: None,
            stall: None,
            fill_to_bytes: 0,
            arg_end_bytes: 0,
            in_driver_bytes: 0,
            counted: None,
            receiving_paused: false,
            peer: Peer::default(),
            close_after_reply: false,
            open_user_changes: 0,
            is_dirty: false,
            is_gathered: false,
            joins_requests: false,
            deferred_until_nanos: None,
            wait_meter: None,
            redirects: VecDeque::new(),
            waits_behind: None,
            over_soft_limit_since_ms: None,
        }
    }

    /// A connection without a driver.
    #[cfg(test)]
    pub fn for_test(client: Client) -> Connection {
        Connection::new(ConnId::new(0, 1), client)
    }

    /// Bytes received and not executed yet, including the input that is being executed. Of a request with a big argument,
    /// only that, and the length of the arguments before it apart, as Redis has taken these out of its buffer by then.
    pub fn query_len_bytes(&self) -> (usize, usize) {
        if self.stall == Some(StallReason::Filling) {
            let (arg_start, args_len_bytes) = self.parser.begun_arg();
            ((self.query.len() + self.in_driver_bytes).saturating_sub(arg_start), args_len_bytes)
        } else {
            (self.query.len() + self.in_hand_bytes, 0)
        }
    }

    /// Free space for input: in the connection's own buffer and, while it is active, its share of the driver's.
    pub fn query_free_bytes(&self, now_ms: i64) -> usize {
        let own = self.query.capacity() - self.query.len();
        let is_active = now_ms - self.client.active_at_ms < ACTIVE_MS;
        let share = if is_active { RECEIVE_SHARE_BYTES.saturating_sub(self.in_hand_bytes) } else { 0 };
        own + share
    }

    /// The capacity that the connection gets for its next replies.
    pub fn reply_buffer_bytes(&self) -> usize {
        self.reply_buffer_bytes
    }

    /// The peak use of that capacity.
    pub fn reply_peak_bytes(&self) -> usize {
        self.reply_peak_bytes.min(self.reply_buffer_bytes)
    }

    /// The longest time that a request has taken since this was asked last, in ticks. It is measured from the first time on.
    pub fn take_longest_wait_ticks(&mut self) -> u64 {
        std::mem::take(&mut self.wait_meter.get_or_insert_default().longest_ticks)
    }

    /// Whether one of its commands is stalled by CLIENT PAUSE.
    pub fn is_paused(&self) -> bool {
        self.stall == Some(StallReason::Paused)
    }

    /// The requests that are stalled by CLIENT PAUSE; the first of them is complete.
    pub fn paused_query(&self) -> Option<&[u8]> {
        self.is_paused().then_some(&self.query)
    }

    /// Whether all that it has received has run, and has been answered.
    pub(super) fn has_run_all(&self) -> bool {
        self.query.is_empty() && self.pending.is_empty() && self.stall.is_none()
    }

    /// Whether its client is blocked on keys.
    pub fn is_blocked(&self) -> bool {
        self.stall == Some(StallReason::Blocked)
    }

    /// Whether it will be closed when its replies have been sent.
    pub fn is_closing(&self) -> bool {
        self.close_after_reply
    }

    pub fn is_receiving(&self) -> bool {
        !self.receiving_paused
    }

    pub fn is_sending(&self) -> bool {
        self.sending_bytes > 0
    }

    /// Bytes of complete replies that were not sent yet, including those that wait for earlier replies.
    pub fn output_len_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes + self.ready_bytes
    }

    /// The capacity of the buffers of its output.
    pub(super) fn output_capacity_bytes(&self) -> usize {
        self.out.capacity() + self.sending_capacity + self.ready.capacity()
    }

    /// Bytes of replies that could be sent and were not sent yet.
    pub(super) fn unsent_len_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes
    }

    /// The length of output from which on the connection is checked after every command: see `Worker::watch_output`.
    #[inline]
    pub(super) fn watched_bytes(&self, limit_near_bytes: usize) -> usize {
        limit_near_bytes.min(self.earlier_output_bytes + OUTPUT_TURN_BYTES)
    }

    /// What Redis would count against client-output-buffer-limit: not the replies in the static reply buffer, but the
    /// blocks of the reply list, for what does not fit there.
    pub fn output_list_bytes(&self) -> usize {
        self.output_list_len() * (REPLY_BLOCK_BYTES + REPLY_BLOCK_HEAD_BYTES)
    }

    /// The blocks of Redis' reply list that the output would fill.
    pub fn output_list_len(&self) -> usize {
        self.output_len_bytes().saturating_sub(self.reply_buffer_bytes).div_ceil(REPLY_BLOCK_BYTES)
    }

    /// Memory of the connection and its buffers. As in Redis it has room for its usual replies also where it has none to
    /// send, and for the whole of a big argument from the beginning.
    pub fn memory_bytes(&self) -> usize {
        let output_bytes = self.output_capacity_bytes();
        std::mem::size_of::<Connection>()
            + self.arg_end_bytes.max(self.query.capacity())
            + output_bytes.max(self.reply_buffer_bytes + self.output_list_bytes())
            + self.client.watched_bytes
            + self.pending.capacity() * std::mem::size_of::<PendingReply>()
            + self.client.queued().map_or(0, |queued| queued.memory_bytes)
            + self.client.subscriptions.as_deref().map_or(0, Subscriptions::memory_bytes)
            + self.client.tracking.as_deref().map_or(0, Tracking::memory_bytes)
            + self.redirects.capacity() * std::mem::size_of::<HeldRedirect>()
    }

    /// Keeps input for later. The buffer of an argument that is on its way grows to its length rather than beyond it.
    pub(super) fn keep_input(&mut self, bytes: &[u8]) {
        let len = self.query.len() + bytes.len();
        let grown = 2 * len.max(self.query.capacity());
        if len > self.query.capacity() && (len..=grown).contains(&self.arg_end_bytes) {
            self.query.reserve_exact(self.arg_end_bytes - self.query.len());
        }
        self.query.extend_from_slice(bytes);
    }

    /// Takes the output that is safe when `safe_seq` is, and marks the rest. What has come since the last call has this
    /// ticket. `None`: all of it is held back.
    pub(super) fn take_safe_output(&mut self, ticket: u64, safe_seq: u64) -> Option<Vec<u8>> {
        if ticket <= safe_seq {
            self.held.clear();
            return Some(std::mem::take(&mut self.out));
        }
        let len = self.out.len();
        match self.held.last_mut() {
            Some((last, end)) if *last == ticket => *end = len,
            _ => self.held.push((ticket, len)),
        }
        let safe_count = self.held.partition_point(|&(ticket, _)| ticket <= safe_seq);
        let (_, end) = *self.held.get(safe_count.checked_sub(1)?)?;
        let end = end.min(len);
        self.held.drain(..safe_count);
        self.held.iter_mut().for_each(|(_, mark)| *mark = mark.saturating_sub(end));
        let rest = self.out.split_off(end);
        let safe = std::mem::replace(&mut self.out, rest);
        (!safe.is_empty()).then_some(safe)
    }

    /// Drops all output, present and future, because the peer takes no more.
    pub(super) fn drop_output(&mut self) {
        self.peer.is_deaf = true;
        self.out = Vec::new();
        (self.sending_bytes, self.sending_capacity) = (0, 0);
    }

    /// Adds a pending reply as the next one in order, and returns its id.
    pub(super) fn await_reply(&mut self, index: usize) -> ReplyId {
        let discard = !self.takes_reply();
        self.reserve(index, discard)
    }

    /// The same for a reply that is sent as it comes, whatever CLIENT REPLY says now: the transaction leaves out the
    /// parts that the client must not get.
    pub(super) fn await_cut_reply(&mut self, index: usize) -> ReplyId {
        self.reserve(index, false)
    }

    /// The same for a request that is sent to another shard with the batch of the turn.
    pub(super) fn await_reply_from(&mut self, index: usize, shard: usize) -> ReplyId {
        let is_only = self.pending.is_empty() || self.awaits_only == Some(shard);
        let reply_id = self.await_reply(index);
        self.awaits_only = is_only.then_some(shard);
        reply_id
    }

    fn reserve(&mut self, index: usize, discard: bool) -> ReplyId {
        self.awaits_only = None;
        self.pending.push_back(PendingReply::Waiting { discard });
        let place = self.next_place;
        self.next_place += 1;
        ReplyId { conn: index as u32, generation: self.conn.generation(), place }
    }

    /// It has sent a request of so many bytes, more than [`BIG_REQUEST_BYTES`], for another shard.
    pub(super) fn record_big_request(&mut self, len_bytes: usize) {
        self.pending_max = pending_max_of_big(len_bytes);
    }

    /// Whether CLIENT REPLY lets the client get the reply to the running command.
    #[inline]
    pub(super) fn takes_reply(&self) -> bool {
        matches!(self.client.reply_mode, ReplyMode::On | ReplyMode::SkipNext)
    }

    /// Gives `ready` a buffer from the pool, if it has none. [`fulfil`](Self::fulfil) returns it when it is empty
    /// again.
    #[inline]
    pub(super) fn make_ready_room(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.ready.capacity() == 0 {
            self.ready = spare.pop().unwrap_or_default();
        }
    }

    /// Gives `out` a buffer from the pool, if it has none, as replies of other shards are appended piece by piece.
    #[inline]
    pub(super) fn make_output_room(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.out.capacity() == 0 {
            self.out = spare.pop().unwrap_or_else(|| Vec::with_capacity(self.reply_buffer_bytes));
        }
    }

    /// The place of what is to come behind all replies whose commands may have read anything.
    ///
    /// `reads_later`: the last of them blocks, and reads when it is served, if at all.
    fn place_behind_reads(&self, reads_later: bool) -> u64 {
        if reads_later && self.pending.len() == 1 { self.next_place - 1 } else { self.next_place }
    }

    /// The place of the first reply that is still pending.
    fn first_pending_place(&self) -> u64 {
        self.next_place - self.pending.len() as u64
    }

    /// Adds a message that is no reply behind all replies whose commands may have read anything. The client gets it whatever
    /// CLIENT REPLY says.
    pub(super) fn push_behind_reads(&mut self, reads_later: bool, message: &[u8], spare: &mut Vec<Vec<u8>>) {
        if self.place_behind_reads(reads_later) == self.first_pending_place() {
            self.make_output_room(spare);
            self.out.extend_from_slice(message);
        } else {
            self.make_ready_room(spare);
            self.queue_ready(message);
        }
    }

    /// Holds a message for the shard of another client back until all replies whose commands may have read anything have been sent.
    pub(super) fn redirect_behind_reads(&mut self, reads_later: bool, to: u16, redirected: Box<Redirected>) {
        let place = self.place_behind_reads(reads_later);
        self.redirects.push_back(HeldRedirect { place, sent_bytes: None, redirected: (to, redirected) });
    }

    /// Takes the next of these if its time has come.
    pub(super) fn next_redirect(&mut self) -> Option<(u16, Box<Redirected>)> {
        let first_pending = self.first_pending_place();
        let sent_bytes = self.client.output_total_bytes;
        let with_output = sent_bytes + (self.sending_bytes + self.out.len()) as u64;
        let next = self.redirects.front_mut()?;
        if next.place > first_pending {
            return None;
        }
        let is_sent = sent_bytes >= *next.sent_bytes.get_or_insert(with_output);
        if is_sent || self.peer.is_deaf {
            self.redirects.pop_front().map(|held| held.redirected)
        } else {
            None
        }
    }

    /// Adds a complete reply after all pending ones.
    pub(super) fn queue_ready(&mut self, reply: &[u8]) {
        let start = self.ready.len();
        self.ready.extend_from_slice(reply);
        self.record_ready(start);
    }

    /// Records that the bytes of `ready` from `start` on are complete replies, which come after all pending ones.
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

    /// Completes a pending reply. All complete replies at the head of the queue move to the output. Returns the buffer
    /// of complete replies when it is empty. Inline, because what kind of reply it is then is known.
    #[inline(always)]
    pub(super) fn fulfil(&mut self, place: u64, reply: ReplyBytes<'_>) -> Option<Vec<u8>> {
        let head = self.next_place - self.pending.len() as u64;
        let index = (place - head) as usize;
        let pending = &mut self.pending[index];
        let PendingReply::Waiting { discard } = *pending else {
            panic!("place {place} was fulfilled twice");
        };
        let len_bytes = reply.as_slice().len();
        self.pending_max = match len_bytes {
            0..=BIG_REPLY_BYTES => (self.pending_max + 1).min(PENDING_MAX),
            _ => pending_max_of_big(len_bytes),
        };
        let reply = if discard { ReplyBytes::Lent(&[]) } else { reply };
        if index > 0 {
            let start = self.ready.len();
            reply.append_to(&mut self.ready);
            self.ready_bytes += self.ready.len() - start;
            *pending = PendingReply::Ready(start..self.ready.len());
            return None;
        }
        reply.append_to(&mut self.out);
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

    /// Compacts `ready` when most of it was moved to the output.
    #[inline(never)]
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

    /// Replies are sent in the order of the requests, whatever the order in which they come.
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
                returned += u32::from(connection.fulfil(place, ReplyBytes::Lent(&reply)).is_some());
            }
            assert!(connection.ready.len() <= 2 * connection.ready_bytes + READY_SLACK_BYTES + 2 * 1500);
        }
        assert!(connection.out == expected && connection.pending.is_empty());
        assert_eq!((connection.ready.len(), connection.ready_bytes), (0, 0));
        assert!(returned > 0);
    }

    #[test]
    fn a_reply_in_a_buffer_of_its_own_keeps_it() {
        let mut connection = Connection::for_test(Client::new(1, 0, true));
        let places: Vec<u64> = (0..3).map(|_| connection.await_reply(0).place).collect();
        let (first, second) = (vec![b'a'; 20_000], vec![b'b'; 30_000]);
        let addresses = (first.as_ptr(), second.as_ptr());
        connection.fulfil(places[1], ReplyBytes::Given(second));
        assert_eq!(connection.ready.as_ptr(), addresses.1);
        connection.fulfil(places[0], ReplyBytes::Given(first));
        assert_eq!((connection.out.len(), connection.ready.len()), (50_000, 0));
        connection.fulfil(places[2], ReplyBytes::Given(b"c".to_vec()));
        assert!(connection.out.ends_with(b"bc") && connection.out.starts_with(b"a"));

        connection.out = Vec::new();
        let only = connection.await_reply(0).place;
        let reply = vec![b'd'; 20_000];
        let address = reply.as_ptr();
        connection.fulfil(only, ReplyBytes::Given(reply));
        assert_eq!(connection.out.as_ptr(), address);
    }

    #[test]
    fn the_buffer_of_an_argument_grows_to_its_length_and_not_for_a_length_that_is_only_announced() {
        let mut connection = Connection::for_test(Client::new(1, 0, true));
        connection.arg_end_bytes = 1000;
        connection.keep_input(&[b'a'; 100]);
        connection.query.reserve_exact(500);
        assert_eq!(connection.query.capacity(), 600);
        connection.keep_input(&[b'a'; 510]);
        assert_eq!(connection.query.capacity(), 1000);

        connection.query = Vec::new();
        connection.arg_end_bytes = 1 << 30;
        connection.keep_input(&[b'a'; 100]);
        connection.keep_input(&[b'a'; 100]);
        assert!(connection.query.capacity() < 1000);
    }

    #[test]
    fn output_that_is_held_back_leaves_in_order_as_far_as_it_is_safe() {
        let mut connection = Connection::for_test(Client::new(1, 0, true));
        let say = |connection: &mut Connection, text: &str, ticket, safe_seq| {
            connection.out.extend_from_slice(text.as_bytes());
            connection
                .take_safe_output(ticket, safe_seq)
                .map(|out| String::from_utf8_lossy(&out).into_owned())
        };
        assert_eq!(say(&mut connection, "a", 3, 3).as_deref(), Some("a"));
        assert_eq!(say(&mut connection, "b", 4, 3), None);
        assert_eq!(say(&mut connection, "c", 4, 3), None);
        assert_eq!(say(&mut connection, "d", 6, 3), None);
        assert_eq!(say(&mut connection, "e", 7, 4).as_deref(), Some("bc"));
        assert_eq!(say(&mut connection, "", 7, 5), None);
        assert_eq!(say(&mut connection, "", 7, 6).as_deref(), Some("d"));
        assert_eq!(say(&mut connection, "f", 7, 9).as_deref(), Some("ef"));
        connection.out.extend_from_slice(b"gone");
        assert_eq!(connection.take_safe_output(10, 9), None);
        connection.out.clear();
        assert_eq!(say(&mut connection, "", 11, 10), None, "nothing is left to be sent");
    }

    #[test]
    fn the_longer_requests_and_replies_are_the_fewer_are_under_way() {
        let allowed = [16 << 10, 256 << 10, 1 << 20, 4 << 20, 512 << 20].map(pending_max_of_big);
        assert_eq!(allowed, [16, 16, 4, 1, 1]);
    }
}
