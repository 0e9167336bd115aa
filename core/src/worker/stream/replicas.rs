//! The replicas of all shards, and what the process knows of the stream that they read.

use super::backlog::Backlog;
use super::payload::Payload;
use crate::client::ClientId;
use crate::config::Config;
use crate::worker::link::Master;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The length of a replication id.
pub const REPLICATION_ID_LEN: usize = 40;

/// The state of the stream that all shards share.
pub struct StreamGlobals {
    pub(super) next_seq: AtomicU64,
    /// For each shard: how many of the bytes that it sent to the merger have arrived. Written by the merging shard.
    pub(super) merged_bytes: Vec<AtomicU64>,
    pub backlog: Backlog,
    ids: Mutex<ReplicationIds>,
    /// Written when one comes, leaves, goes on, or acknowledges an offset.
    replicas: Mutex<Vec<ReplicaInfo>>,
    /// Rises with every change of `replicas`.
    replicas_version: AtomicU64,
    replica_count: AtomicUsize,
    /// How many wait for a full synchronization to begin.
    waiting_count: AtomicUsize,
    /// For each shard: how many replicas it serves.
    pub(super) served: Vec<AtomicUsize>,
    /// For each shard: how many of its clients wait for replicas.
    pub(super) waits: Vec<AtomicUsize>,
    /// The number of the last full synchronization that was begun.
    last_sync: AtomicU64,
    /// When one was started that has not begun yet; 0: none. Unix time in milliseconds.
    pub(super) sync_started_at_ms: AtomicI64,
    /// How many names were made from the seed.
    names_made: AtomicU64,
    seed: u64,
}

/// By which names the history of the data set is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicationIds {
    pub id: String,
    /// The one before, which is valid up to `second_offset`; all zeros: there is none.
    pub id2: String,
    /// The offset of the first byte that only the present name has, from 1 on; -1: there is no second name.
    pub second_offset: i64,
}

impl ReplicationIds {
    /// Of a history that has no other name.
    fn new(id: String) -> ReplicationIds {
        ReplicationIds { id, id2: "0".repeat(REPLICATION_ID_LEN), second_offset: -1 }
    }
}

/// How far a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaState {
    /// It waits for the barrier of a full synchronization.
    Waits,
    /// Its snapshot is being written.
    InSnapshot,
    /// It gets its snapshot from a file.
    Receives,
    /// It gets the stream.
    Online,
}

impl ReplicaState {
    /// As INFO names it.
    pub fn name(self) -> &'static str {
        match self {
            ReplicaState::Online => "online",
            ReplicaState::Receives => "send_bulk",
            ReplicaState::Waits | ReplicaState::InSnapshot => "wait_bgsave",
        }
    }
}

/// What a replica wants of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    pub keys: bool,
    pub functions: bool,
    /// It can tell the end of a snapshot whose length is not known beforehand.
    pub takes_mark: bool,
}

/// What the shard that serves a replica shares with others.
pub struct ReplicaLink {
    /// What stands behind this place in the stream is still needed.
    pub(super) cursor: AtomicU64,
    /// The full synchronization that it takes part in; 0: none.
    pub(super) sync_number: AtomicU64,
    pub(super) payload: Arc<Payload>,
}

/// A replica as INFO and ROLE show it.
#[derive(Clone)]
pub struct ReplicaInfo {
    pub client: ClientId,
    pub home: usize,
    /// As it was told by REPLCONF ip-address: any bytes.
    pub ip: Vec<u8>,
    pub port: u16,
    pub state: ReplicaState,
    /// The offset that it acknowledged last (REPLCONF ACK).
    pub ack_offset: u64,
    /// When it last did so, or began to read; unix time in milliseconds.
    pub ack_at_ms: i64,
    pub(super) asked_at_ms: i64,
    pub(super) request: SnapshotRequest,
    pub(super) link: Arc<ReplicaLink>,
}

impl ReplicaInfo {
    pub fn is_online(&self) -> bool {
        self.state == ReplicaState::Online
    }

    /// How long ago it has acknowledged something, in seconds; 0 while it does not do so yet.
    pub fn lag_s(&self, now_ms: i64) -> i64 {
        if self.is_online() { (now_ms - self.ack_at_ms).max(0) / 1000 } else { 0 }
    }

    /// Where other servers find it.
    pub fn place(&self) -> Master {
        Master { host: String::from_utf8_lossy(&self.ip).into_owned(), port: self.port }
    }

    /// Whether that is there.
    pub fn is_at(&self, place: &Master) -> bool {
        self.port == place.port && self.ip.eq_ignore_ascii_case(place.host.as_bytes())
    }
}

/// A full synchronization that begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sync {
    pub number: u64,
    pub keys: bool,
    /// The snapshot goes to the replicas as it is made, not by way of a file.
    pub is_diskless: bool,
    /// This server is a replica itself: the stream is its master's, and stands still meanwhile.
    pub is_of_master: bool,
}

impl StreamGlobals {
    pub fn new(shard_count: usize, seed: u64, run_id: &str) -> StreamGlobals {
        StreamGlobals {
            next_seq: AtomicU64::new(0),
            merged_bytes: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
            backlog: Backlog::default(),
            ids: Mutex::new(ReplicationIds::new(run_id.chars().rev().collect())),
            replicas: Mutex::new(Vec::new()),
            replicas_version: AtomicU64::new(0),
            replica_count: AtomicUsize::new(0),
            waiting_count: AtomicUsize::new(0),
            served: (0..shard_count).map(|_| AtomicUsize::new(0)).collect(),
            waits: (0..shard_count).map(|_| AtomicUsize::new(0)).collect(),
            last_sync: AtomicU64::new(0),
            sync_started_at_ms: AtomicI64::new(0),
            names_made: AtomicU64::new(0),
            seed,
        }
    }

    /// Length of the stream so far, in bytes.
    pub fn offset(&self) -> u64 {
        self.backlog.end()
    }

    pub fn ids(&self) -> ReplicationIds {
        self.ids.lock().expect("no holder of the ids panics").clone()
    }

    /// The history goes on under another name, and the one before is forgotten.
    pub fn renew_id(&self, now_ms: i64) {
        let id = self.new_name(now_ms);
        *self.ids.lock().expect("no holder of the ids panics") = ReplicationIds::new(id);
    }

    /// The history goes on under another name; the one before is valid up to here.
    pub fn shift_id(&self, now_ms: i64) {
        self.take_over_id(self.new_name(now_ms));
    }

    /// The same, with a name that somebody else has given.
    pub(in crate::worker) fn take_over_id(&self, id: String) {
        let second_offset = self.backlog.end() as i64 + 1;
        let mut ids = self.ids.lock().expect("no holder of the ids panics");
        let id2 = std::mem::take(&mut ids.id);
        *ids = ReplicationIds { id, id2, second_offset };
    }

    /// From here on the stream is this history, from this offset on.
    pub fn set_history(&self, id: String, offset: u64) {
        *self.ids.lock().expect("no holder of the ids panics") = ReplicationIds::new(id);
        self.backlog.restart(offset);
    }

    /// The number of a full synchronization that begins.
    pub fn next_sync(&self) -> u64 {
        self.last_sync.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A name of 40 hexadecimal digits that nobody else has.
    pub(super) fn new_name(&self, now_ms: i64) -> String {
        let number = self.names_made.fetch_add(1, Ordering::Relaxed);
        let random = ahash::RandomState::with_seeds(self.seed, !self.seed, now_ms as u64, number);
        let digits = (0..3u64).map(|part| format!("{:016x}", random.hash_one((part, now_ms, number))));
        let mut name: String = digits.collect();
        name.truncate(REPLICATION_ID_LEN);
        name
    }

    fn list(&self) -> MutexGuard<'_, Vec<ReplicaInfo>> {
        self.replicas.lock().expect("no holder of the replicas panics")
    }

    pub fn replicas(&self) -> Vec<ReplicaInfo> {
        self.list().clone()
    }

    pub(super) fn version(&self) -> u64 {
        self.replicas_version.load(Ordering::Acquire)
    }

    pub fn replica_count(&self) -> usize {
        self.replica_count.load(Ordering::Acquire)
    }

    /// How many replicas read the stream and sent an acknowledgement within min-replicas-max-lag.
    pub fn good_replicas(&self, config: &Config, now_ms: i64) -> usize {
        let lag_max_ms = i64::from(config.min_replicas_max_lag_s) * 1000;
        let is_good =
            |replica: &&ReplicaInfo| replica.is_online() && now_ms - replica.ack_at_ms <= lag_max_ms;
        self.list().iter().filter(is_good).count()
    }

    /// How many replicas have acknowledged so much of the stream.
    pub(super) fn acknowledged(&self, offset: u64) -> usize {
        let has_it = |replica: &&ReplicaInfo| replica.is_online() && replica.ack_offset >= offset;
        self.list().iter().filter(has_it).count()
    }

    pub(super) fn add_replica(&self, replica: ReplicaInfo) {
        self.served[replica.home].fetch_add(1, Ordering::SeqCst);
        self.change_replicas(|replicas| replicas.push(replica));
    }

    pub(super) fn forget_replica(&self, client: ClientId) {
        self.change_replicas(|replicas| {
            let Some(at) = replicas.iter().position(|replica| replica.client == client) else { return };
            let replica = replicas.remove(at);
            replica.link.payload.close();
            self.served[replica.home].fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn change_replicas<T>(&self, change: impl FnOnce(&mut Vec<ReplicaInfo>) -> T) -> T {
        let mut replicas = self.list();
        let outcome = change(&mut replicas);
        let waiting = replicas.iter().filter(|replica| replica.state == ReplicaState::Waits).count();
        self.waiting_count.store(waiting, Ordering::Release);
        self.replica_count.store(replicas.len(), Ordering::Release);
        self.replicas_version.fetch_add(1, Ordering::Release);
        outcome
    }

    /// Changes the record of a replica, if it is still connected.
    pub(super) fn change_replica(&self, client: ClientId, change: impl FnOnce(&mut ReplicaInfo)) {
        self.change_replicas(|replicas| {
            if let Some(replica) = replicas.iter_mut().find(|replica| replica.client == client) {
                change(replica);
            }
        });
    }

    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting_count.load(Ordering::Acquire) > 0
    }

    /// The number of the last full synchronization that was begun.
    pub(super) fn last_sync(&self) -> u64 {
        self.last_sync.load(Ordering::SeqCst)
    }

    /// Where the stream is still needed from by replicas that are connected.
    pub(in crate::worker) fn needed_from(&self) -> u64 {
        let cursor = |replica: &ReplicaInfo| replica.link.cursor.load(Ordering::Acquire);
        self.list().iter().map(cursor).min().unwrap_or(u64::MAX)
    }

    /// What a full synchronization would be that may begin now. `can_save`: no snapshot is under way.
    pub(super) fn due_sync(&self, config: &Config, now_ms: i64, can_save: bool) -> Option<Sync> {
        let replicas = self.list();
        let waiting = || replicas.iter().filter(|replica| replica.state == ReplicaState::Waits);
        let is_diskless = |replica: &ReplicaInfo| {
            !replica.request.keys || config.repl_diskless_sync && replica.request.takes_mark
        };
        let delay_ms = i64::from(config.repl_diskless_sync_delay_s) * 1000;
        let count_max = config.repl_diskless_sync_max_replicas as usize;
        let is_due = |replica: &&ReplicaInfo| {
            let has_waited = now_ms - replica.asked_at_ms >= delay_ms;
            let are_many = || {
                let alike = waiting().filter(|other| other.request.keys && is_diskless(other)).count();
                count_max > 0 && alike >= count_max
            };
            match replica.request.keys {
                true => can_save && (!is_diskless(replica) || has_waited || are_many()),
                // Nothing has to be saved.
                false => true,
            }
        };
        let first = waiting().find(is_due)?;
        let is_diskless = is_diskless(first);
        Some(Sync { number: 0, keys: first.request.keys, is_diskless, is_of_master: false })
    }

    /// Begins a full synchronization for all replicas that wait for one like it, if one is due.
    pub(in crate::worker) fn take_due_sync(
        &self,
        config: &Config,
        now_ms: i64,
        can_save: bool,
    ) -> Option<Sync> {
        let sync = self.due_sync(config, now_ms, can_save)?;
        let number = self.next_sync();
        self.change_replicas(|replicas| {
            for replica in replicas.iter_mut().filter(|replica| replica.state == ReplicaState::Waits) {
                let takes_mark = config.repl_diskless_sync && replica.request.takes_mark;
                if replica.request.keys == sync.keys && (!sync.keys || takes_mark == sync.is_diskless) {
                    replica.state = ReplicaState::InSnapshot;
                    replica.link.sync_number.store(number, Ordering::SeqCst);
                }
            }
        });
        Some(Sync { number, ..sync })
    }

    /// Where the snapshot of a full synchronization goes.
    pub(in crate::worker) fn payloads_of(&self, number: u64) -> Vec<Arc<Payload>> {
        let replicas = self.list();
        let members =
            replicas.iter().filter(|replica| replica.link.sync_number.load(Ordering::SeqCst) == number);
        members.map(|replica| Arc::clone(&replica.link.payload)).collect()
    }

    /// The snapshot of a full synchronization is in a file, from which the replicas get it.
    pub(in crate::worker) fn set_receiving(&self, number: u64) {
        self.change_replicas(|replicas| {
            for replica in replicas.iter_mut() {
                if replica.link.sync_number.load(Ordering::SeqCst) == number
                    && replica.state == ReplicaState::InSnapshot
                {
                    replica.state = ReplicaState::Receives;
                }
            }
        });
    }

    /// A full synchronization reads the stream from this offset on.
    pub(super) fn set_begun(&self, number: u64, offset: u64) {
        for replica in self.list().iter() {
            if replica.link.sync_number.load(Ordering::SeqCst) == number {
                replica.link.cursor.store(offset, Ordering::SeqCst);
            }
        }
    }
}
