//! One core's keyspace: its databases, its lock table, its counters. Synchronous and without I/O, so that a
//! simulator can drive any number of shards from one seed.
//!
//! Time is given, never asked for: `now_ms` is set by the worker at each turn.

pub mod blocking;
pub mod effects;
pub mod expire;
pub mod lazyfree;
pub mod lock;
pub mod message;
pub mod observe;
pub mod slowlog;
pub mod stats;
pub mod txn;
pub mod watch;

pub use crate::call::slot;
use crate::call::{Call, Key};
use crate::config::Config;
use crate::shard::blocking::Blocking;
use crate::shard::effects::EffectLog;
use crate::shard::lock::{LockTable, Ticket};
use crate::shard::observe::Observers;
use crate::shard::stats::ShardStats;
use crate::types::table::Live;
use crate::types::{Entry, EntryMut, NewValue, OwnedEntry, SetExpire, Table};
use std::sync::Arc;

/// A numbered database (SELECT) of one shard.
pub struct Db {
    pub table: Table,
    /// Estimated mean time to live of its volatile keys, in milliseconds.
    pub avg_ttl_ms: u64,
}

/// One shard's state.
pub struct Shard {
    pub index: usize,
    pub shard_count: usize,
    pub dbs: Vec<Db>,
    pub locks: LockTable,
    /// What its writes did, for the readers of the effect stream.
    pub effects: EffectLog,
    /// Who wants to know which of its keys change.
    pub observers: Observers,
    /// The locks under which commands run at present; `None` for a command of this shard alone, which needs none.
    pub running: Option<Ticket>,
    /// Who waits for which key.
    pub blocking: Blocking,
    pub config: Arc<Config>,
    pub stats: Arc<ShardStats>,
    /// Wall clock of this turn, unix time in milliseconds.
    pub now_ms: i64,
    /// What entries store as their time of access: see [`access_clock`].
    pub access_clock: u32,
    pub expire: expire::ActiveExpire,
    lazyfree: lazyfree::LazyFree,
    /// Whether keys disappear when their time is up (CLIENT PAUSE WRITE keeps them, logically expired).
    pub expire_paused: bool,
    random: u64,
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Seconds of unix time in the 24 bits an entry has for them: wraps around after 194 days.
pub fn access_clock(now_ms: i64) -> u32 {
    (now_ms / 1000) as u32 & 0x00FF_FFFF
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
        let dbs = (0..config.databases).map(|_| Db { table: Table::new(), avg_ttl_ms: 0 }).collect();
        Shard {
            index,
            shard_count,
            dbs,
            locks: LockTable::default(),
            effects: EffectLog::default(),
            observers: Observers::default(),
            running: None,
            blocking: Blocking::default(),
            config,
            stats,
            now_ms: 0,
            access_clock: 0,
            expire: expire::ActiveExpire::default(),
            lazyfree: lazyfree::LazyFree::default(),
            expire_paused: false,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64 * 2 + 1),
        }
    }

    /// Whether this shard owns the key.
    #[inline]
    pub fn owns(&self, key: &[u8]) -> bool {
        slot::shard_of(key, self.shard_count) == self.index
    }

    /// The next of the shard's random numbers.
    pub fn random(&mut self) -> u64 {
        splitmix64(&mut self.random)
    }

    /// A random key of a database, each as likely as any other; its time may be up.
    pub fn random_key(&mut self, db: u32) -> Option<Vec<u8>> {
        let table = &self.dbs[db as usize].table;
        table.random(&mut || splitmix64(&mut self.random)).map(|entry| entry.key().to_vec())
    }

    /// Looks a key up to read it: counts a hit or a miss, and notes the access.
    #[inline]
    pub fn read(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        let (stats, access_clock) = (&self.stats, self.access_clock);
        let table = &mut self.dbs[call.db as usize].table;
        let entry = match table.live(key.hash, key.bytes, self.now_ms, !self.expire_paused) {
            Live::Entry(entry) => entry,
            gone => {
                stats.keyspace_misses.add(1);
                if gone.is_removed() {
                    stats.expired_keys.add(1);
                    self.effects.expired(call.db, key.bytes, self.config.lazyfree_lazy_expire);
                    self.observers.expired(call.db, key);
                }
                return None;
            }
        };
        stats.keyspace_hits.add(1);
        if !call.no_touch && entry.access() != access_clock {
            entry.touch(access_clock);
        }
        Some(entry)
    }

    /// Looks a key up to learn about it without an access: counts a hit or a miss only (EXISTS, TYPE, TTL, OBJECT).
    #[inline]
    pub fn glance(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        self.read(&Call { no_touch: true, ..*call }, key)
    }

    /// Looks a key up to change it in place. Who does so says it to [`Shard::modified`].
    #[inline]
    pub fn write(&mut self, call: &Call, key: Key<'_>) -> Option<EntryMut<'_>> {
        let table = &mut self.dbs[call.db as usize].table;
        match table.live_mut(key.hash, key.bytes, self.now_ms, !self.expire_paused) {
            Live::Entry(entry) => {
                entry.touch(self.access_clock);
                Some(entry)
            }
            gone => {
                if gone.is_removed() {
                    self.stats.expired_keys.add(1);
                    self.effects.expired(call.db, key.bytes, self.config.lazyfree_lazy_expire);
                    self.observers.expired(call.db, key);
                }
                None
            }
        }
    }

    /// Looks a key up without a trace in hits, misses or access clocks.
    #[inline]
    pub fn peek(&mut self, db: u32, key: Key<'_>) -> Option<Entry<'_>> {
        let table = &mut self.dbs[db as usize].table;
        match table.live(key.hash, key.bytes, self.now_ms, !self.expire_paused) {
            Live::Entry(entry) => Some(entry),
            gone => {
                if gone.is_removed() {
                    self.stats.expired_keys.add(1);
                    self.effects.expired(db, key.bytes, self.config.lazyfree_lazy_expire);
                    self.observers.expired(db, key);
                }
                None
            }
        }
    }

    /// Fetches from memory what look-ups, each of a hash in a database, will need. In loops of their own, one a level of the
    /// table, because only so many instructions can be under way: between other work fewer misses, also those of address
    /// translation, would overlap.
    #[inline]
    pub fn prefetch(&self, lookups: impl Iterator<Item = (u32, u64)> + Clone) {
        for (db, hash) in lookups.clone() {
            self.dbs[db as usize].table.prefetch_bucket(hash);
        }
        for (db, hash) in lookups {
            self.dbs[db as usize].table.prefetch_entry(hash);
        }
    }

    /// Whether the key is there. One whose time is up is removed on the way, here as in all look-ups.
    #[inline]
    pub fn exists(&mut self, db: u32, key: Key<'_>) -> bool {
        self.peek(db, key).is_some()
    }

    /// Sets a key, whatever was there. Counts one change. Returns whether the key is new.
    #[inline]
    pub fn set(&mut self, call: &Call, key: Key<'_>, value: NewValue<'_>, expire: SetExpire) -> bool {
        let is_new = self.dbs[call.db as usize].table.set(key.hash, key.bytes, value, expire);
        self.modified(call.db, key);
        is_new
    }

    /// Deletes a key. Counts a change if it was there and alive.
    pub fn delete(&mut self, call: &Call, key: Key<'_>) -> bool {
        if !self.exists(call.db, key) {
            return false;
        }
        self.dbs[call.db as usize].table.remove(key.hash, key.bytes);
        self.modified(call.db, key);
        true
    }

    /// Gives a key another time to live, or none. Counts a change; false if the key is not there.
    pub fn set_expire(&mut self, db: u32, key: Key<'_>, expire_at_ms: Option<i64>) -> bool {
        let changed = self.dbs[db as usize].table.set_expire(key.hash, key.bytes, expire_at_ms);
        if changed {
            self.modified(db, key);
        }
        changed
    }

    /// Takes a living entry out, with all it has. Counts no change, and tells nobody: who means it does.
    pub fn take(&mut self, db: u32, key: Key<'_>) -> Option<OwnedEntry> {
        if !self.exists(db, key) {
            return None;
        }
        self.dbs[db as usize].table.take(key.hash, key.bytes)
    }

    /// Puts an entry in under its key, in place of what is there. Counts no change, and tells nobody.
    pub fn put(&mut self, db: u32, hash: u64, entry: OwnedEntry) {
        self.dbs[db as usize].table.put(hash, entry);
    }

    /// Counts `n` changes of the data set since the last save. A change of one key is [`Shard::modified`].
    #[inline]
    pub fn changed(&mut self, n: u64) {
        self.stats.dirty.add(n);
    }

    /// Sets the time: all that follows happens at `now_ms`.
    #[inline]
    pub fn set_now(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        let access_clock = access_clock(now_ms);
        if access_clock != self.access_clock {
            self.access_clock = access_clock;
            self.dbs.iter_mut().for_each(|db| db.table.set_new_access(access_clock, false));
        }
    }

    /// What the tables take beside the entries: the index and free room.
    pub fn table_memory_bytes(&self) -> u64 {
        self.dbs.iter().map(|db| db.table.memory().overhead() as u64).sum()
    }

    /// Whether a table has asked for memory since this was called last.
    pub fn take_growth(&mut self) -> bool {
        self.dbs.iter_mut().fold(false, |grown, db| grown | db.table.take_growth())
    }

    /// [`Table::back_by_huge_page`] for the first table that has something to do.
    pub fn back_by_huge_page(&mut self) -> bool {
        self.dbs.iter_mut().any(|db| db.table.back_by_huge_page())
    }

    /// Room for more entries that the tables hold.
    pub fn table_free_bytes(&self) -> u64 {
        self.dbs.iter().filter(|db| !db.table.is_empty()).map(|db| db.table.memory().free() as u64).sum()
    }

    /// Writes what INFO keyspace shows. Called once a turn, before replies leave.
    pub fn publish(&self) {
        for (db, stats) in self.dbs.iter().zip(&self.stats.dbs) {
            let keys = db.table.len() as u64;
            if keys != 0 || stats.keys.get() != 0 {
                stats.keys.set(keys);
                stats.expires.set(db.table.expires_len() as u64);
                stats.avg_ttl_ms.set(db.avg_ttl_ms);
            }
        }
    }
}
