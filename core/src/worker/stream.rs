//! Transport of the effect stream to replicas: from every shard to the shard that merges the streams, from there to the
//! shards that serve readers, and into the readers' output. The append-only file gets it another way: see `aof`.
//!
//! Each shard sends its [batch](EffectBatch) of effects at the end of a turn. The merging shard forwards the merged
//! stream once a turn. No sender waits for its receiver: both ends count the bytes in transit, and readers are
//! disconnected when more bytes pile up than client-output-buffer-limit allows for replicas.

use super::Worker;
use super::persistence::snapshot_without_keys;
use crate::client::{ClientId, ReplicaPhase, ReplyMode};
use crate::command::Call;
use crate::command::table::{CommandEntry, Run, Scope, flag};
use crate::config::Config;
use crate::protocol::Argv;
use crate::shard::effects::merger::Delivery;
use crate::shard::effects::{Consumer, EffectBatch, Merger, TakenBatch};
use crate::shard::message::{Message, StreamMessage};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The shard that merges.
pub const STREAM_SHARD: usize = 0;

/// The state of the stream that all shards share.
pub struct StreamGlobals {
    next_seq: AtomicU64,
    /// Length of the stream so far.
    offset: AtomicU64,
    /// For each shard: how many of the bytes that it sent to the merger have arrived. Written by the merging shard.
    merged_bytes: Vec<AtomicU64>,
    /// For each shard: how many of the bytes sent to it for its readers have arrived. Written by that shard.
    delivered_bytes: Vec<AtomicU64>,
    /// The readers. Written when one attaches, disconnects, or acknowledges an offset.
    replicas: Mutex<Vec<ReplicaInfo>>,
    /// Rises with every change of `replicas`.
    replicas_version: AtomicU64,
}

/// A replica as INFO and ROLE show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaInfo {
    pub client: ClientId,
    /// As it was told by REPLCONF ip-address: any bytes.
    pub ip: Vec<u8>,
    pub port: u16,
    /// It gets the stream; before that it waits for the stream to begin.
    pub is_online: bool,
    /// The offset that it acknowledged last (REPLCONF ACK).
    pub ack_offset: u64,
    /// When it last did so, or began to read; unix time in milliseconds.
    pub ack_at_ms: i64,
}

impl StreamGlobals {
    pub fn new(shard_count: usize) -> StreamGlobals {
        let counters = || (0..shard_count).map(|_| AtomicU64::new(0)).collect();
        StreamGlobals {
            next_seq: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            merged_bytes: counters(),
            delivered_bytes: counters(),
            replicas: Mutex::new(Vec::new()),
            replicas_version: AtomicU64::new(0),
        }
    }

    /// Length of the stream so far, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    pub fn replicas(&self) -> Vec<ReplicaInfo> {
        self.replicas.lock().expect("no holder of the replicas panics").clone()
    }

    /// How many replicas read the stream and sent an acknowledgement within min-replicas-max-lag.
    pub fn good_replicas(&self, config: &Config, now_ms: i64) -> usize {
        let lag_max_ms = i64::from(config.min_replicas_max_lag_s) * 1000;
        let is_good = |replica: &&ReplicaInfo| replica.is_online && now_ms - replica.ack_at_ms <= lag_max_ms;
        self.replicas.lock().expect("no holder of the replicas panics").iter().filter(is_good).count()
    }

    pub fn add_replica(&self, replica: ReplicaInfo) {
        self.change_replicas(|replicas| replicas.push(replica));
    }

    fn change_replicas(&self, change: impl FnOnce(&mut Vec<ReplicaInfo>)) {
        let mut replicas = self.replicas.lock().expect("no holder of the replicas panics");
        change(&mut replicas);
        self.replicas_version.fetch_add(1, Ordering::Release);
    }

    /// Changes the record of a replica, if it is still connected.
    pub fn change_replica(&self, client: ClientId, change: impl FnOnce(&mut ReplicaInfo)) {
        self.change_replicas(|replicas| {
            if let Some(replica) = replicas.iter_mut().find(|replica| replica.client == client) {
                change(replica);
            }
        });
    }

    fn forget_replica(&self, client: ClientId) {
        self.change_replicas(|replicas| replicas.retain(|replica| replica.client != client));
    }
}

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
    /// Connections of this shard that read the stream.
    readers: Vec<u32>,
    /// Bytes sent to the merger.
    sent_bytes: u64,
    /// Used on the merging shard only.
    merger: Merger,
    /// On the merging shard: the bytes sent to each shard for its readers.
    passed_bytes: Vec<u64>,
    /// On the merging shard: when the readers were last sent a PING.
    pinged_at_ms: i64,
    known_replicas: RefCell<KnownReplicas>,
}

impl Stream {
    pub(super) fn new(shard_count: usize) -> Stream {
        Stream {
            readers: Vec::new(),
            sent_bytes: 0,
            merger: Merger::new(Consumer::Replicas, shard_count),
            passed_bytes: vec![0; shard_count],
            pinged_at_ms: 0,
            known_replicas: RefCell::default(),
        }
    }
}

/// How many bytes may pile up at each of the places where the stream is buffered for readers.
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
        let version = globals.replicas_version.load(Ordering::Acquire);
        if version != known.version {
            let replicas = globals.replicas.lock().expect("no holder of the replicas panics");
            let online = replicas.iter().filter(|replica| replica.is_online);
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
        if index == STREAM_SHARD && self.stream.merger.has_deliveries() {
            self.pass_on();
        }
    }

    /// On the merging shard: takes in a shard's batch.
    pub(super) fn merge_effects(&mut self, from: usize, seq: u64, batch: Arc<EffectBatch>) {
        let arrived = &self.globals.stream.merged_bytes[from];
        arrived.store(arrived.load(Ordering::Relaxed) + batch.len_bytes() as u64, Ordering::Relaxed);
        let merger = &mut self.stream.merger;
        merger.push(seq, batch);
        if merger.is_read() && merger.held_bytes() as u64 > pile_bytes_max(&self.shard.config) {
            merger.cut(|_| true);
        }
    }

    /// On the merging shard: sends the new part of the stream to the shards that serve readers.
    fn pass_on(&mut self) {
        let limit = pile_bytes_max(&self.shard.config);
        for shard in 0..self.shard.shard_count {
            let delivered = self.globals.stream.delivered_bytes[shard].load(Ordering::Relaxed);
            if self.stream.passed_bytes[shard] - delivered > limit {
                self.stream.merger.cut(|home| home == shard);
            }
        }
        let deliveries = self.stream.merger.take();
        self.globals.stream.offset.store(self.stream.merger.offset(), Ordering::Relaxed);
        for delivery in deliveries {
            match delivery {
                Delivery::Bytes(bytes) => {
                    let bytes = Arc::new(bytes);
                    for home in self.stream.merger.homes() {
                        self.stream.passed_bytes[home] += bytes.len() as u64;
                        self.tell(home, StreamMessage::Bytes(Arc::clone(&bytes)));
                    }
                }
                Delivery::Attach { reader, offset } => {
                    self.tell(reader.home, StreamMessage::Attach { client: reader.client, offset });
                }
                Delivery::Cut(reader) => self.tell(reader.home, StreamMessage::Cut { client: reader.client }),
                Delivery::NewPart { .. } => unreachable!("this merger works for replicas"),
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
            StreamMessage::Bytes(bytes) => {
                let delivered = &self.globals.stream.delivered_bytes[self.shard.index];
                delivered.store(delivered.load(Ordering::Relaxed) + bytes.len() as u64, Ordering::Relaxed);
                for n in 0..self.stream.readers.len() {
                    let at = self.stream.readers[n] as usize;
                    let connection = self.connections[at]
                        .as_deref_mut()
                        .expect("a reader that disconnects is removed from the list");
                    // A connection that is closing after its last reply must not get more output, or it never closes.
                    if !connection.close_after_reply {
                        connection.out.extend_from_slice(&bytes);
                        self.mark_dirty(at);
                    }
                }
            }
            StreamMessage::Attach { client, offset } => self.begin_reader(client, offset),
            StreamMessage::Cut { client } => {
                let Some(at) = self.find_client(client) else { return };
                crate::runtime::log::warning(format_args!(
                    "Client id={client} is cut off: the effect stream has piled up before it."
                ));
                self.shard.stats.client_output_limit_disconnections.add(1);
                self.close_now(at);
            }
            StreamMessage::Detach { client } => {
                self.shard.effects.detach(client);
                if self.shard.index == STREAM_SHARD {
                    self.stream.merger.detach(client);
                }
            }
        }
    }

    /// Registers a client that has asked for the stream. The message that the stream begins may arrive before the
    /// client's own shard has run its share of the request, so whichever comes first calls this.
    pub fn introduce_reader(&mut self, at: usize) {
        let connection = self.connections[at].as_deref_mut().expect("it has asked");
        let client = &mut connection.client;
        if client.is_replica() {
            return;
        }
        // A reply would appear in the middle of the stream.
        client.reply_mode = ReplyMode::Off;
        let psync = client.last_command.is_some_and(|id| self.table.entry(id).row.name == "psync");
        let replica = client.replica.get_or_insert_default();
        replica.phase = ReplicaPhase::Asked { psync };
        let port = replica.listening_port;
        let ip = match &replica.ip[..] {
            b"" => client.addr.rsplit_once(':').map_or("", |(ip, _)| ip.trim_matches(['[', ']'])).into(),
            ip => ip.to_vec(),
        };
        let shown = String::from_utf8_lossy(&ip);
        crate::runtime::log::notice(format_args!("Replica {shown}:{port} asks for synchronization"));
        let ack_at_ms = self.shard.now_ms;
        let replica = ReplicaInfo { client: client.id, ip, port, is_online: false, ack_offset: 0, ack_at_ms };
        self.globals.stream.add_replica(replica);
        self.shard.stats.sync_full.add(1);
    }

    /// Starts to send the stream to this client, after a snapshot of the data set as of `offset`.
    fn begin_reader(&mut self, client: ClientId, offset: u64) {
        let Some(at) = self.find_client(client) else {
            self.detach_reader(client);
            return;
        };
        self.introduce_reader(at);
        self.stream.readers.push(at as u32);
        let now_ms = self.shard.now_ms;
        let replication_id = self.globals.replication_id();
        let connection = self.connections[at].as_deref_mut().expect("it was found");
        let replica = connection.client.replica.get_or_insert_default();
        if replica.phase == (ReplicaPhase::Asked { psync: true }) {
            let line = format!("+FULLRESYNC {replication_id} {offset}\r\n");
            connection.out.extend_from_slice(line.as_bytes());
        }
        replica.phase = ReplicaPhase::Reading;
        let snapshot = snapshot_without_keys(self.globals, self.shard.config.rdbcompression, now_ms, false);
        connection.out.extend_from_slice(format!("${}\r\n", snapshot.len()).as_bytes());
        connection.out.extend_from_slice(&snapshot);
        self.globals.stream.change_replica(client, |replica| {
            replica.is_online = true;
            replica.ack_at_ms = now_ms;
        });
        self.mark_dirty(at);
    }

    /// Removes a reader whose connection is closed.
    pub(super) fn end_reader(&mut self, at: usize, client: ClientId) {
        self.globals.stream.forget_replica(client);
        // A reader that the stream has not begun for is not in the list; `begin_reader` will not find it and detach it.
        if let Some(place) = self.stream.readers.iter().position(|&reader| reader as usize == at) {
            self.stream.readers.swap_remove(place);
            self.detach_reader(client);
        }
    }

    fn detach_reader(&mut self, client: ClientId) {
        for shard in 0..self.shard.shard_count {
            self.tell(shard, StreamMessage::Detach { client });
        }
    }

    /// Sends the readers a PING every repl-ping-replica-period seconds.
    pub(super) fn ping_readers(&mut self) {
        let now_ms = self.shard.now_ms;
        let period_ms = i64::from(self.shard.config.repl_ping_replica_period_s) * 1000;
        if !self.stream.merger.is_read() {
            self.stream.pinged_at_ms = now_ms;
        } else if now_ms - self.stream.pinged_at_ms >= period_ms {
            self.stream.pinged_at_ms = now_ms;
            self.stream.merger.write(&[b"PING"]);
        }
    }
}
