//! One core's keyspace: its databases, its lock table, its counters. Synchronous and without I/O, so that a
//! simulator can drive any number of shards from one seed.
//!
//! Time is given, never asked for: `now_ms` is set by the worker at each turn.

pub mod expire;
pub mod lock;
pub mod message;
pub mod slot;
pub mod stats;
pub mod txn;

use crate::command::{Call, Key};
use crate::config::Config;
use crate::shard::lock::LockTable;
use crate::shard::stats::ShardStats;
use crate::types::table::{Entry, EntryMut, NewValue, OwnedEntry, Place, SetExpire, Table};
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
    pub config: Arc<Config>,
    pub stats: Arc<ShardStats>,
    /// Wall clock of this turn, unix time in milliseconds.
    pub now_ms: i64,
    /// What entries store as their time of access: see [`access_clock`].
    pub access_clock: u32,
    pub expire: expire::ActiveExpire,
    /// Whether keys disappear when their time is up (CLIENT PAUSE WRITE keeps them, logically expired).
    pub expire_paused: bool,
    random: u64,
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
            config,
            stats,
            now_ms: 0,
            access_clock: 0,
            expire: expire::ActiveExpire::default(),
            expire_paused: false,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64 * 2 + 1),
        }
    }

    /// Whether this shard owns the key.
    #[inline]
    pub fn owns(&self, key: &[u8]) -> bool {
        slot::shard_of(key, self.shard_count) == self.index
    }

    /// The next of the shard's random numbers (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[inline]
    fn is_expired(&self, expire_at_ms: Option<i64>) -> bool {
        expire_at_ms.is_some_and(|at| self.now_ms > at)
    }

    /// Finds a key that is there and alive. One whose time is up is deleted on the way.
    #[inline]
    fn find(&mut self, db: u32, key: Key<'_>) -> Option<Place> {
        let table = &self.dbs[db as usize].table;
        let place = table.find(key.hash, key.bytes)?;
        let expire_at_ms = table.at(place).expire_at_ms();
        if self.is_expired(expire_at_ms) {
            self.expire_found(db, key);
            return None;
        }
        Some(place)
    }

    #[cold]
    fn expire_found(&mut self, db: u32, key: Key<'_>) {
        if self.expire_paused {
            return;
        }
        self.dbs[db as usize].table.remove(key.hash, key.bytes);
        self.stats.expired_keys.add(1);
    }

    /// Looks a key up to read it: counts a hit or a miss, and notes the access.
    #[inline]
    pub fn read(&mut self, call: &Call, key: Key<'_>) -> Option<Entry<'_>> {
        let Some(place) = self.find(call.db, key) else {
            self.stats.keyspace_misses.add(1);
            return None;
        };
        self.stats.keyspace_hits.add(1);
        let table = &mut self.dbs[call.db as usize].table;
        if !call.no_touch {
            table.touch(place, self.access_clock);
        }
        Some(table.at(place))
    }

    /// Looks a key up to change it in place.
    #[inline]
    pub fn write(&mut self, call: &Call, key: Key<'_>) -> Option<EntryMut<'_>> {
        let place = self.find(call.db, key)?;
        let table = &mut self.dbs[call.db as usize].table;
        table.touch(place, self.access_clock);
        Some(table.at_mut(place))
    }

    /// Looks a key up without a trace in counters or access clocks (OBJECT, TTL, TYPE).
    #[inline]
    pub fn peek(&mut self, db: u32, key: Key<'_>) -> Option<Entry<'_>> {
        let place = self.find(db, key)?;
        Some(self.dbs[db as usize].table.at(place))
    }

    /// Whether the key is there.
    pub fn exists(&mut self, db: u32, key: Key<'_>) -> bool {
        self.find(db, key).is_some()
    }

    /// Sets a key, whatever was there. Counts one change.
    #[inline]
    pub fn set(&mut self, call: &Call, key: Key<'_>, value: NewValue<'_>, expire: SetExpire) {
        let table = &mut self.dbs[call.db as usize].table;
        table.set(key.hash, key.bytes, value, expire, self.access_clock);
        self.changed(1);
    }

    /// Deletes a key. Counts a change if it was there and alive.
    pub fn delete(&mut self, call: &Call, key: Key<'_>) -> bool {
        if self.find(call.db, key).is_none() {
            return false;
        }
        self.dbs[call.db as usize].table.remove(key.hash, key.bytes);
        self.changed(1);
        true
    }

    /// Gives a key another time to live, or none. Counts a change; false if the key is not there.
    pub fn set_expire(&mut self, db: u32, key: Key<'_>, expire_at_ms: Option<i64>) -> bool {
        let changed = self.dbs[db as usize].table.set_expire(key.hash, key.bytes, expire_at_ms);
        self.changed(u64::from(changed));
        changed
    }

    /// Takes a living entry out, with all it has.
    pub fn take(&mut self, db: u32, key: Key<'_>) -> Option<OwnedEntry> {
        self.find(db, key)?;
        self.dbs[db as usize].table.take(key.hash, key.bytes)
    }

    /// Puts an entry in under `key`, in place of what is there. Counts no change.
    pub fn put(&mut self, db: u32, hash: u64, entry: OwnedEntry) {
        self.dbs[db as usize].table.put(hash, entry);
    }

    /// Counts `n` changes of the data set since the last save.
    #[inline]
    pub fn changed(&mut self, n: u64) {
        self.stats.dirty.add(n);
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
