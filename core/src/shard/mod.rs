//! One core's keyspace: its databases, its lock table, its counters. Synchronous and without I/O, so that a
//! simulator can drive any number of shards from one seed.
//!
//! Time is given, never asked for: `now_ms` is set by the worker at each turn.

pub mod access;
pub mod blocking;
pub mod change;
pub mod checkout;
mod db;
pub mod effects;
pub mod event;
pub mod evict;
pub mod expire;
pub mod latency;
pub mod lazyfree;
pub mod load;
pub mod lock;
pub mod message;
pub mod observe;
pub mod program_stats;
pub mod slowlog;
pub mod snapshot;
pub mod stats;
pub mod token;
pub mod tracking;
pub mod txn;
pub mod watch;

pub use crate::call::slot;
use crate::call::{Call, Key};
use crate::config::Config;
use crate::pubsub::{Directory, Publisher};
use crate::shard::access::Access;
use crate::shard::blocking::Blocking;
use crate::shard::db::Databases;
use crate::shard::effects::EffectLog;
use crate::shard::event::EventClass;
use crate::shard::expire::signal_expired;
use crate::shard::lock::{LockRequestId, LockTable};
use crate::shard::observe::Observers;
use crate::shard::stats::ShardStats;
use crate::types::list::Limits;
use crate::types::module::ModuleTypes;
use crate::types::table::Live;
use crate::types::{Entry, Prefetches};
use ahash::AHashSet;
use smallvec::SmallVec;
use std::sync::Arc;

/// One shard's state.
pub struct Shard {
    pub index: usize,
    pub shard_count: usize,
    /// Commands change them through the `change` module alone. `db` lists the few other modules that do.
    dbs: Databases,
    /// What is loaded beside them, to take their place: see [`load`].
    aside: Databases,
    /// The keys whose entries are checked out to other shards: databases and hashes.
    checked_out: AHashSet<(u32, u64)>,
    pub locks: LockTable,
    /// The effects of its writes, for the readers of the effect stream.
    pub effects: EffectLog,
    /// The observers of its keys: watching and blocked clients.
    pub observers: Observers,
    /// The lock request under which commands run at present; `None` for a command of this shard alone, which needs
    /// none.
    pub running: Option<LockRequestId>,
    /// The commands that are blocked on its keys.
    pub blocking: Blocking,
    /// What it publishes.
    pub publisher: Publisher,
    pub config: Arc<Config>,
    pub stats: Arc<ShardStats>,
    /// Wall clock of this turn, unix time in milliseconds, by which keys expire: 0 while commands of the master or of an
    /// append-only file run, to which no key has expired.
    pub now_ms: i64,
    /// The same also while these run: for times that values keep, and for what is given as a time from now on.
    pub wall_ms: i64,
    /// An append-only file is being loaded. Then no key has expired, and what the server itself had written is taken as it is.
    pub is_replaying: bool,
    /// What entries store of their last access.
    pub access: Access,
    pub expire: expire::ActiveExpire,
    lazyfree: lazyfree::LazyFree,
    eviction: evict::EvictionPool,
    snapshot: Option<Box<snapshot::ShardSnapshot>>,
    /// How many have begun.
    snapshots_begun: u64,
    /// Simulations lower them.
    pub snapshot_limits: snapshot::SnapshotLimits,
    /// Whether expired keys are kept, though they count as missing: during a CLIENT PAUSE, as in Redis.
    pub expire_paused: bool,
    /// The same for look-ups, which also leave them to a program while their removal is told: see
    /// [`Observers::tells_expired`].
    reads_keep_expired: bool,
    /// The data is a master's.
    pub is_replica: bool,
    /// The same, and clients may write. Then a write takes an expired key away all the same.
    pub is_writable_replica: bool,
    local_expires: expire::LocalExpires,
    /// Lines for the log, as a shard has none. The worker writes them at the end of the turn.
    pub warnings: Vec<String>,
    /// The types of values that modules have registered, on all shards the same.
    pub module_types: Arc<ModuleTypes>,
    /// RESTORE takes payloads whatever their checksum (DEBUG SET-SKIP-CHECKSUM-VALIDATION).
    pub skips_checksums: bool,
    /// FLUSHALL has emptied the databases, and what the worker does then has not been done yet.
    pub has_flushed_all: bool,
    /// A list element longer than this is a node by itself: DEBUG QUICKLIST-PACKED-THRESHOLD.
    pub list_element_bytes_max: usize,
    random: u64,
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Shard {
    /// A shard with empty databases. `seed` starts its random numbers.
    pub fn new(
        index: usize,
        shard_count: usize,
        config: Arc<Config>,
        stats: Arc<ShardStats>,
        seed: u64,
    ) -> Shard {
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64 * 2 + 1);
        let access = Access::new(&config, seed);
        let mut observers = Observers::default();
        observers.publish_classes(EventClass::published(config.notify_keyspace_events));
        Shard {
            index,
            shard_count,
            dbs: Databases::new(config.databases as u32),
            aside: Databases::default(),
            checked_out: AHashSet::default(),
            locks: LockTable::default(),
            effects: EffectLog::default(),
            observers,
            running: None,
            blocking: Blocking::default(),
            publisher: Publisher::new(Arc::new(Directory::new(shard_count))),
            config,
            stats,
            now_ms: 0,
            wall_ms: 0,
            is_replaying: false,
            access,
            expire: expire::ActiveExpire::default(),
            lazyfree: lazyfree::LazyFree::default(),
            eviction: evict::EvictionPool::default(),
            snapshot: None,
            snapshots_begun: 0,
            snapshot_limits: snapshot::SnapshotLimits::default(),
            expire_paused: false,
            reads_keep_expired: false,
            is_replica: false,
            is_writable_replica: false,
            local_expires: expire::LocalExpires::default(),
            warnings: Vec::new(),
            module_types: Arc::default(),
            skips_checksums: false,
            has_flushed_all: false,
            list_element_bytes_max: Limits::ELEMENT_BYTES_MAX,
            random: seed,
        }
    }

    /// Whether this shard owns the key.
    #[inline]
    pub fn owns(&self, key: &[u8]) -> bool {
        slot::shard_of(key, self.shard_count) == self.index
    }

    /// The shard's next random number.
    pub fn random(&mut self) -> u64 {
        splitmix64(&mut self.random)
    }

    /// Random numbers that can be drawn while the shard is borrowed.
    pub fn random_numbers(&mut self) -> impl FnMut() -> u64 + use<> {
        let mut state = self.random();
        move || splitmix64(&mut state)
    }

    /// Whether a write removes an expired key that it meets.
    #[inline]
    fn writes_remove_expired(&self) -> bool {
        !self.expire_paused || self.is_writable_replica
    }

    /// Looks a key up to read it: counts a hit or a miss, and records the access.
    #[inline]
    pub fn lookup_read(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        self.lookup_read_inline(call, key)
    }

    /// The same without a call, for the commands that do little else.
    #[inline(always)]
    pub fn lookup_read_inline(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        let db = self.dbs.for_lookup(call.db as usize);
        let entry = match db.live(key.hash, key.bytes, self.now_ms, !self.reads_keep_expired) {
            Live::Entry(entry) => entry,
            gone => {
                self.stats.keyspace_misses.add(1);
                self.observers.missed(call, key);
                if let Live::Expired { removed } = gone {
                    let lazy = self.config.lazyfree_lazy_expire;
                    let (effects, observers) = (&mut self.effects, &mut self.observers);
                    match removed {
                        true => signal_expired(&self.stats, effects, observers, lazy, call.db, key),
                        false if self.expire_paused => {}
                        false => observers.note_expired(call.db, key.bytes, true),
                    }
                }
                return None;
            }
        };
        self.stats.keyspace_hits.add(1);
        if !call.no_touch && entry.access() != self.access.unchanged() {
            entry.touch(self.access.touched(entry.access()));
        }
        Some(entry)
    }

    /// Looks several keys up, each as [`Shard::lookup_read`] does, for commands that read them together.
    pub fn lookup_read_all(&mut self, call: &Call, keys: &[Key<'_>]) -> SmallVec<[Option<Entry<'_>>; 8]> {
        let is_there: SmallVec<[bool; 8]> =
            keys.iter().map(|&key| self.lookup_read(call, key).is_some()).collect();
        let stored = |(&key, is_there)| self.lookup_stored(call.db, key).filter(|_| is_there);
        keys.iter().zip(is_there).map(stored).collect()
    }

    /// Looks a key up without recording an access, but counts a hit or a miss (EXISTS, TYPE, TTL).
    #[inline]
    pub fn lookup_read_notouch(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        self.lookup_read(&Call { no_touch: true, ..*call }, key)
    }

    /// The same for commands that tell nobody that there is no such key (OBJECT).
    pub fn lookup_read_untold(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        let is_there = self.exists(call.db, key);
        let counted = if is_there { &self.stats.keyspace_hits } else { &self.stats.keyspace_misses };
        counted.add(1);
        self.lookup_stored(call.db, key).filter(|_| is_there)
    }

    /// Looks a key up without counting a hit or a miss, or recording an access.
    #[inline]
    pub fn lookup_silent(&mut self, db: u32, key: Key<'_>) -> Option<Entry<'_>> {
        let number = db;
        let db = self.dbs.for_lookup(db as usize);
        match db.live(key.hash, key.bytes, self.now_ms, !self.reads_keep_expired) {
            Live::Entry(entry) => Some(entry),
            gone => {
                if let Live::Expired { removed } = gone {
                    let lazy = self.config.lazyfree_lazy_expire;
                    let (effects, observers) = (&mut self.effects, &mut self.observers);
                    match removed {
                        true => signal_expired(&self.stats, effects, observers, lazy, number, key),
                        false if self.expire_paused => {}
                        false => observers.note_expired(number, key.bytes, true),
                    }
                }
                None
            }
        }
    }

    /// Sets whether expired keys are kept, and of which classes of events notices are collected.
    pub fn set_expiry(&mut self, is_paused: bool, told_classes: u32) {
        self.expire_paused = is_paused;
        if told_classes != self.observers.told_classes() {
            self.observers.tell_classes(told_classes);
        }
        self.reads_keep_expired = is_paused || self.observers.tells_expired();
    }

    /// Removes a key if it has expired, and expired keys are not kept.
    pub fn remove_if_expired(&mut self, db: u32, key: Key<'_>) {
        let removes_expired = !self.expire_paused;
        if self.dbs[db as usize].live(key.hash, key.bytes, self.now_ms, removes_expired).is_removed() {
            let lazy = self.config.lazyfree_lazy_expire;
            signal_expired(&self.stats, &mut self.effects, &mut self.observers, lazy, db, key);
        }
    }

    /// Looks a key up without any side effect, and also finds an expired one that is still stored (MEMORY USAGE, DEBUG
    /// OBJECT).
    pub fn lookup_stored(&self, db: u32, key: Key<'_>) -> Option<Entry<'_>> {
        self.dbs[db as usize].table().get(key.hash, key.bytes)
    }

    /// Prefetches what look-ups, each of a hash in a database, will need. A loop of its own for each level of the table
    /// lets more cache and TLB misses overlap, because the processor can have only so many instructions in flight.
    #[inline]
    pub fn prefetch(&self, lookups: impl Iterator<Item = (u32, u64)>) {
        let mut prefetches = Prefetches::default();
        for (db, hash) in lookups {
            prefetches.begin(self.dbs[db as usize].table(), hash);
        }
        prefetches.finish();
    }

    /// Whether the key exists. As every look-up, it removes the key if that has expired.
    #[inline]
    pub fn exists(&mut self, db: u32, key: Key<'_>) -> bool {
        self.lookup_silent(db, key).is_some()
    }

    /// How many databases there are.
    pub fn db_count(&self) -> usize {
        self.dbs.len()
    }

    /// How many keys of this shard a database has, including expired ones that are still stored, and those that are
    /// checked out to another shard.
    pub fn key_count(&self, db: u32) -> usize {
        self.dbs[db as usize].len()
    }

    /// Has so many keys of a database not counted: those by which a program that is suspended has made it grow.
    pub fn hide_growth(&mut self, db: u32, len: isize) {
        self.dbs[db as usize].hidden_len += len;
    }

    /// Visits all keys of a database, also expired ones that are still stored, in no particular order.
    pub fn for_each_key(&self, db: u32, visit: &mut dyn FnMut(Entry<'_>)) {
        self.dbs[db as usize].table().for_each(visit);
    }

    /// Visits the keys at a scan cursor, also expired ones that are still stored. Returns the next cursor; 0 is both
    /// the beginning and the end.
    pub fn scan(&self, db: u32, place: u64, visit: &mut dyn FnMut(Entry<'_>)) -> u64 {
        self.dbs[db as usize].table().scan(place, visit)
    }

    /// Sets the clock: everything that follows happens at `now_ms`. 0: to what follows no key has expired, while the wall clock
    /// stays as it is.
    #[inline]
    pub fn set_now(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        if now_ms == 0 {
            return;
        }
        self.wall_ms = now_ms;
        if self.access.set_now(now_ms) {
            self.set_new_access();
        }
    }

    /// How long a string may be at most, in bytes.
    #[inline]
    pub fn string_len_max(&self) -> u64 {
        if self.is_replaying { u64::MAX } else { self.config.proto_max_bulk_len_bytes }
    }

    /// Takes over another configuration.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.access.adopt_config(&config);
        self.set_new_access();
        self.observers.publish_classes(EventClass::published(config.notify_keyspace_events));
        if config.maxmemory_policy != self.config.maxmemory_policy {
            self.eviction.clear();
        }
        self.config = config;
    }

    fn set_new_access(&mut self) {
        let (access, is_lfu) = (self.access.of_new(), self.access.is_lfu());
        self.dbs.iter_mut().for_each(|db| db.set_new_access(access, is_lfu));
    }

    /// The memory of the tables' indexes.
    pub fn index_bytes(&self) -> u64 {
        self.dbs.iter().map(|db| db.table().memory().index() as u64).sum()
    }

    /// Whether a table has allocated memory since the last call.
    pub fn take_growth(&mut self) -> bool {
        self.dbs.iter_mut().fold(false, |grown, db| grown | db.take_growth())
    }

    /// Calls [`Table::back_by_huge_page`](crate::types::Table::back_by_huge_page) on the first table that has something
    /// to do.
    pub fn back_by_huge_page(&mut self) -> bool {
        self.dbs.iter_mut().any(|db| db.back_by_huge_page())
    }

    /// Publishes the counters that INFO keyspace shows, and looks for garbage. Called once a turn, before replies leave.
    /// Returns the bytes that the tables hold for more entries.
    pub fn publish(&mut self) -> u64 {
        let mut garbage_len = 0;
        for (db, stats) in self.dbs.used().iter().zip(&self.stats.dbs) {
            let keys = db.len() as u64;
            if keys != 0 || stats.keys.get() != 0 {
                stats.keys.set(keys);
                stats.expires.set(db.table().expires_len() as u64);
                stats.avg_ttl_ms.set(db.avg_ttl_ms);
            }
            garbage_len += db.garbage_len() as u64;
        }
        self.lazyfree.has_garbage = garbage_len > 0;
        self.stats.garbage_objects.set(garbage_len);
        self.free_bytes()
    }

    /// The bytes that the tables hold for more entries.
    pub fn free_bytes(&self) -> u64 {
        self.dbs.used().iter().map(|db| db.table().memory().free() as u64).sum()
    }

    /// What is only still to be freed, and what is recorded of evicted keys until the end of the turn: more evictions would only
    /// add to it.
    pub fn bytes_not_counted_for_eviction(&self) -> u64 {
        self.garbage_bytes() + (self.effects.held_bytes() + self.observers.notices_bytes()) as u64
    }

    /// What removed values hold that are not freed yet.
    pub fn garbage_bytes(&self) -> u64 {
        self.dbs.used().iter().map(|db| db.table().garbage_bytes() as u64).sum()
    }
}
