//! Transport of the effect stream to replicas: from every shard to the shard that merges the streams, from there into the
//! [`backlog`], and to the shards that serve replicas ([`serve`]). The append-only file gets it another way: see `aof`.
//!
//! Each shard sends its [batch](EffectBatch) of effects at the end of a turn. The merging shard appends the merged
//! stream to the backlog once a turn. No sender waits for its receiver: both ends count the bytes in transit, and when more
//! of them pile up than client-output-buffer-limit allows for replicas, the stream is given up, and all replicas begin anew.
//!
//! The stream begins with the first full synchronization ([`sync`]), and goes on until no replica has been there for
//! repl-backlog-ttl; or, if none of those that were there had the whole data set, until the last one leaves. After a gap it
//! has another name, as no replica could read on.

mod backlog;
mod payload;
mod replicas;
mod serve;
mod sync;
mod wait;

pub(in crate::worker) use payload::{Payload, push_to_all};
pub use replicas::{REPLICATION_ID_LEN, ReplicaInfo, ReplicaState, ReplicationIds, StreamGlobals, Sync};
pub(in crate::worker) use serve::AwaitingPromotion;
pub use serve::show as show_replicas;
pub use sync::SYNC_BARRIER;

use self::serve::LocalReplica;
use self::wait::{AskedPosition, ReplicaWait};
use super::Worker;
use crate::command::Call;
use crate::command::table::{CommandEntry, Run, Scope, flag};
use crate::config::Config;
use crate::protocol::Argv;
use crate::runtime::log;
use crate::shard::effects::merger::Delivery;
use crate::shard::effects::{Consumer, EffectBatch, Merger, TakenBatch};
use crate::shard::message::{Message, StreamMessage};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The shard that merges.
pub const STREAM_SHARD: usize = 0;

/// The merger gets a buffer back that is no longer than this.
const REUSED_BYTES_MAX: usize = 64 << 10;

/// What a worker knows of the replicas that read the stream: asked for by every write where min-replicas-to-write is set,
/// so without the lock, but when something has changed.
#[derive(Default)]
struct KnownReplicas {
    version: u64,
    /// When those that are online have acknowledged last.
    ack_at_ms: Vec<i64>,
}

/// A worker's own state of the stream.
pub(super) struct Stream {
    /// The replicas that this shard serves.
    replicas: Vec<LocalReplica>,
    /// Bytes sent to the merger.
    sent_bytes: u64,
    /// Used on the merging shard only.
    merger: Merger,
    /// On the merging shard: when the replicas were last sent a PING.
    pinged_at_ms: i64,
    /// On the merging shard: since when there has been no replica.
    abandoned_at_ms: Option<i64>,
    /// On the merging shard: a replica that has the whole data set has read the stream, and may come back.
    is_resumable: bool,
    known_replicas: RefCell<KnownReplicas>,
    /// When the log said last that what a master sends cannot be written to disk; unix time in milliseconds.
    pub(super) disk_error_told_at_ms: i64,
    /// Clients of this shard that wait for replicas.
    waits: Vec<ReplicaWait>,
    /// On the merging shard.
    asked_positions: Vec<AskedPosition>,
    /// There: a client waits for acknowledgements that were not asked for yet.
    wants_ack: bool,
    /// There: the stream of this server's own effects is ending, because it becomes a replica.
    is_ending: bool,
    /// There: the next part of a master's stream is not to be applied, as a full synchronization begins here.
    pub(super) holds_feed: bool,
}

impl Stream {
    pub(super) fn new() -> Stream {
        Stream {
            replicas: Vec::new(),
            sent_bytes: 0,
            merger: Merger::new(Consumer::Replicas),
            pinged_at_ms: 0,
            abandoned_at_ms: None,
            is_resumable: false,
            known_replicas: RefCell::default(),
            disk_error_told_at_ms: 0,
            waits: Vec::new(),
            asked_positions: Vec::new(),
            wants_ack: false,
            is_ending: false,
            holds_feed: false,
        }
    }
}

/// How many bytes may pile up at each of the places where the stream is buffered for replicas.
pub(super) fn pile_bytes_max(config: &Config) -> u64 {
    match config.client_output_buffer_limit.replica.hard_bytes {
        0 => u64::MAX,
        // As in Redis, a limit below the size of the backlog is ignored.
        hard_bytes => hard_bytes.max(config.repl_backlog_size_bytes),
    }
}

impl Worker {
    /// How many replicas read the stream and sent an acknowledgement within min-replicas-max-lag.
    pub(super) fn good_replicas(&self) -> usize {
        let globals = &self.globals.stream;
        let mut known = self.stream.known_replicas.borrow_mut();
        // Read before the list: if that changes meanwhile it is read again.
        let version = globals.version();
        if version != known.version {
            let replicas = globals.replicas();
            let online = replicas.iter().filter(|replica| replica.is_online());
            known.ack_at_ms = online.map(|replica| replica.ack_at_ms).collect();
            known.version = version;
        }
        let lag_max_ms = i64::from(self.shard.config.min_replicas_max_lag_s) * 1000;
        let now_ms = self.shard.now_ms;
        known.ack_at_ms.iter().filter(|&&ack_at_ms| now_ms - ack_at_ms <= lag_max_ms).count()
    }

    /// Records the effect of a command that has run. Called only while there are readers.
    #[cold]
    pub(super) fn record_effects(&mut self, entry: &CommandEntry, call: &Call, args: Argv<'_>) {
        let has_effect = match (entry.row.run, entry.row.scope) {
            // A command that every shard runs is one effect: only one shard records it.
            (Run::Keys(_) | Run::Native(_) | Run::Blocking(_), Scope::Every(_)) => {
                self.shard.index == STREAM_SHARD
            }
            (Run::Keys(_) | Run::Native(_) | Run::Blocking(_), _) => true,
            // Libraries of functions have changed.
            (Run::Session(_), Scope::Session) => entry.row.has(flag::WRITE),
            // These change keys only through other commands, which are recorded.
            (Run::Session(_) | Run::Program(_) | Run::Container, _) => false,
        };
        let changes = self.shard.stats.dirty.get();
        let apart = entry.row.has(flag::TOUCHES_ARBITRARY_KEYS);
        self.shard.effects.end_command(call.db, has_effect.then_some(args), changes, apart);
    }

    /// Sends the effects of this turn to the merging shard, and to the thread that writes the append-only file. Must
    /// happen before replies and messages leave: see [`crate::shard::effects`].
    pub(super) fn flush_effects(&mut self) {
        let globals = &self.globals.stream;
        let index = self.shard.index;
        if self.shard.effects.has_replicas() {
            let under_way = self.stream.sent_bytes - globals.merged_bytes[index].load(Ordering::Relaxed);
            if under_way > pile_bytes_max(&self.shard.config) {
                self.shard.effects.lose();
            }
        }
        // Sequentially consistent, so that a batch sent as a consequence of this one, over the mesh or by way of a
        // client, gets a higher number.
        if let Some(TakenBatch { batch, for_replicas, for_file }) = self.shard.effects.take() {
            let len_bytes = batch.len_bytes() as u64;
            self.shard.stats.effect_bytes.add(len_bytes);
            let seq = for_replicas.then(|| globals.next_seq.fetch_add(1, Ordering::SeqCst));
            if for_file {
                self.append_to_file(Arc::clone(&batch));
            }
            if let Some(seq) = seq {
                self.stream.sent_bytes += len_bytes;
                if index == STREAM_SHARD {
                    self.merge_effects(index, seq, batch);
                } else {
                    self.send(STREAM_SHARD, Message::Effects { seq, batch });
                }
            }
        }
        self.publish_ticket();
        if !self.stream.waits.is_empty() {
            self.ask_positions();
        }
        if index == STREAM_SHARD {
            self.answer_positions();
            if self.stream.wants_ack {
                self.ask_for_ack();
            }
            if self.stream.merger.has_deliveries() {
                self.pass_on();
            }
        }
        if !self.stream.replicas.is_empty() {
            self.serve_replicas();
        }
    }

    /// On the merging shard: takes in a shard's batch.
    pub(super) fn merge_effects(&mut self, from: usize, seq: u64, batch: Arc<EffectBatch>) {
        let arrived = &self.globals.stream.merged_bytes[from];
        arrived.store(arrived.load(Ordering::Relaxed) + batch.len_bytes() as u64, Ordering::Relaxed);
        let merger = &mut self.stream.merger;
        merger.push(seq, batch);
        if merger.is_read() && merger.held_bytes() as u64 > pile_bytes_max(&self.shard.config) {
            merger.lose();
        }
    }

    /// On the merging shard: the length of the stream, if all that clients have written is in it. They were paused when the shards
    /// had taken so many `turns`: a shard pauses its clients from its next turn on.
    pub(super) fn settled_offset(&self, turns: &[u64]) -> Option<u64> {
        if !self.globals.have_turned_since(turns) {
            self.globals.ring_all();
            return None;
        }
        let merger = &self.stream.merger;
        let is_settled = self.globals.stream.next_seq.load(Ordering::SeqCst) <= merger.written_seq();
        let is_passed_on = !merger.has_deliveries() && !self.shard.effects.has_batch();
        (is_settled && is_passed_on).then(|| self.globals.stream.offset())
    }

    /// On the merging shard: appends the new part of the stream, and tells the shards that serve replicas.
    fn pass_on(&mut self) {
        let globals = &self.globals.stream;
        let mut has_grown = false;
        for delivery in self.stream.merger.take() {
            match delivery {
                Delivery::Bytes(bytes) => {
                    has_grown = true;
                    globals.backlog.append(&bytes);
                    // One that grew by a burst would stay that long.
                    if bytes.capacity() <= REUSED_BYTES_MAX {
                        self.stream.merger.reuse(bytes);
                    }
                }
                Delivery::Sync { number, offset } => {
                    debug_assert_eq!(offset, globals.backlog.end());
                    globals.backlog.begin();
                    globals.set_begun(number, offset);
                    self.tell_servers(&|| StreamMessage::Synced { number, offset });
                }
                Delivery::Lost { last_number } => {
                    log::warning(format_args!(
                        "The effect stream has piled up, and is given up: all replicas are disconnected."
                    ));
                    self.end_stream();
                    self.tell_all(&|| StreamMessage::Lost { last_number });
                }
                Delivery::NewPart { .. } => unreachable!("this merger works for replicas"),
            }
        }
        if has_grown {
            self.trim_stream();
            self.tell_servers(&|| StreamMessage::Grown);
        }
    }

    /// repl-backlog-size may have changed.
    pub(super) fn track_backlog(&self) {
        if self.shard.index == STREAM_SHARD && self.globals.stream.backlog.is_active() {
            self.trim_stream();
        }
    }

    /// Drops what is not kept for those that come back, nor needed by a replica that is here.
    pub(super) fn trim_stream(&self) {
        let stream = &self.globals.stream;
        stream.backlog.trim(self.shard.config.repl_backlog_size_bytes, stream.needed_from());
    }

    /// The stream ends here, and what comes later is another one.
    fn end_stream(&mut self) {
        self.globals.stream.backlog.end_keeping();
        self.globals.stream.renew_id(self.shard.now_ms);
        (self.stream.abandoned_at_ms, self.stream.is_resumable) = (None, false);
    }

    /// One shard's share in becoming a replica: what it does itself is no part of the stream any more. To be called twice on all
    /// shards: after the first time the merging shard has all of it.
    pub fn end_own_stream(&mut self) {
        let last_number = self.globals.stream.last_sync();
        self.shard.effects.end_syncs(last_number);
        if self.shard.index == STREAM_SHARD && std::mem::replace(&mut self.stream.is_ending, true) {
            self.stream.is_ending = false;
            self.stream.merger.end(last_number);
        }
    }

    /// On the merging shard: what this server does itself from here on continues the stream where it is.
    pub fn continue_stream(&mut self) {
        debug_assert_eq!(self.shard.index, STREAM_SHARD);
        let offset = self.globals.stream.backlog.end();
        self.stream.merger.set_offset(offset);
        self.stream.is_resumable = true;
        if self.globals.stream.replica_count() == 0 {
            // Not the shard's time, which stands still for the server's own commands on a replica.
            self.stream.abandoned_at_ms = Some(self.time.clock.wall_ms());
        }
    }

    /// One shard's share in a full synchronization of a replica's replicas. The stream stands still.
    pub(super) fn begin_sync_of_master(&mut self, number: u64) {
        if self.shard.index != STREAM_SHARD {
            return;
        }
        let stream = &self.globals.stream;
        stream.backlog.begin();
        let offset = stream.backlog.end();
        stream.set_begun(number, offset);
        self.tell_servers(&|| StreamMessage::Synced { number, offset });
    }

    fn tell_all(&mut self, message: &dyn Fn() -> StreamMessage) {
        (0..self.shard.shard_count).for_each(|shard| self.tell(shard, message()));
    }

    /// Tells the shards that serve replicas.
    pub(super) fn tell_servers(&mut self, message: &dyn Fn() -> StreamMessage) {
        for shard in 0..self.shard.shard_count {
            if self.globals.stream.served[shard].load(Ordering::SeqCst) > 0 {
                self.tell(shard, message());
            }
        }
    }

    /// As [`Worker::send`], but a message for this shard is handled at once.
    fn tell(&mut self, shard: usize, message: StreamMessage) {
        if shard == self.shard.index {
            self.handle_stream(message);
        } else {
            self.send(shard, Message::Stream(message));
        }
    }

    pub(super) fn handle_stream(&mut self, message: StreamMessage) {
        match message {
            // Replicas are served at the end of each turn.
            StreamMessage::Grown => {}
            StreamMessage::Asked => self.begin_due_sync(),
            StreamMessage::Synced { number, offset } => self.begin_receiving(number, offset),
            StreamMessage::Lost { last_number } => {
                self.shard.effects.end_syncs(last_number);
                let lost = self.cut_replicas();
                self.shard.stats.client_output_limit_disconnections.add(lost);
            }
            StreamMessage::Ended { last_number } => self.shard.effects.end_syncs(last_number),
            StreamMessage::Online => self.stream.is_resumable = true,
            StreamMessage::Left => self.replica_has_left(),
            StreamMessage::AskPosition { home, reply_id, seq } => {
                self.take_asked_position(home as usize, reply_id, seq);
            }
            StreamMessage::Position { reply_id, offset } => self.take_position(reply_id, offset),
            StreamMessage::Acknowledged => self.end_replica_waits(),
        }
    }

    /// On the merging shard: a replica has left.
    fn replica_has_left(&mut self) {
        self.trim_stream();
        if self.globals.stream.replica_count() > 0 || self.globals.link.is_replica() {
            return;
        }
        if !self.stream.is_resumable {
            self.abandon_stream();
        } else if self.stream.abandoned_at_ms.is_none() {
            self.stream.abandoned_at_ms = Some(self.shard.now_ms);
        }
    }

    /// Nobody will read on.
    fn abandon_stream(&mut self) {
        let last_number = self.globals.stream.last_sync();
        let was_active = self.globals.stream.backlog.is_active();
        self.stream.merger.end(last_number);
        if was_active {
            self.end_stream();
        }
        self.tell_all(&|| StreamMessage::Ended { last_number });
    }

    /// On the merging shard, at regular times: sends the replicas a PING every repl-ping-replica-period seconds, begins full
    /// synchronizations, and ends a stream that nobody comes back to.
    pub(super) fn run_stream_cron(&mut self) {
        let now_ms = self.shard.now_ms;
        self.check_replicas();
        if self.shard.index != STREAM_SHARD {
            return;
        }
        self.begin_due_sync();
        if self.globals.stream.replica_count() > 0 || self.globals.link.is_replica() {
            self.stream.abandoned_at_ms = None;
        }
        let ttl_ms = self.shard.config.repl_backlog_ttl_s.saturating_mul(1000);
        if let Some(since_ms) = self.stream.abandoned_at_ms
            && ttl_ms > 0
            && now_ms - since_ms > ttl_ms
        {
            log::notice(format_args!(
                "Replication backlog freed after {} seconds without connected replicas.",
                ttl_ms / 1000
            ));
            self.abandon_stream();
        }
        let period_ms = i64::from(self.shard.config.repl_ping_replica_period_s) * 1000;
        // It would move the end of the stream, for which a replica is waited.
        let holds_still = self.globals.failover.is_on() || self.globals.shutdown.until_ms().is_some();
        if !self.stream.merger.is_read() || self.globals.stream.replica_count() == 0 || holds_still {
            self.stream.pinged_at_ms = now_ms;
        } else if now_ms - self.stream.pinged_at_ms >= period_ms {
            self.stream.pinged_at_ms = now_ms;
            self.stream.merger.write(&[b"PING"]);
        }
    }
}
