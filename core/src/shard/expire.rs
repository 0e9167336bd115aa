//! Active expiry: removes expired keys that no command looks up.
//!
//! The tables keep, for each segment, a lower bound of the next expiry in it. So a cycle visits only segments in
//! which a key may have expired, and finds every expired key in one pass. It stops when its share of time is used up,
//! and the next cycle continues there.

use super::Shard;
use crate::call::Key;
use crate::shard::effects::EffectLog;
use crate::shard::lock::{KeyLock, LockTable};
use crate::shard::observe::Observers;
use crate::shard::stats::ShardStats;
use crate::types::hashing::hash_key;
use std::collections::BTreeSet;
use std::ops::Bound;

/// A cycle takes at most this percentage of the time between two cycles with the least `active-expire-effort`, and as much
/// more for each step of it.
const CYCLE_PERCENT_MAX: u64 = 25;
const CYCLE_PERCENT_STEP: u64 = 2;

/// How many expired keys are removed before the clock is read again.
const STEP_KEYS: usize = 64;

/// How many keys of [`LocalExpires`] a cycle looks at.
const LOCAL_STEP_KEYS: usize = 1024;

/// Where the next cycle continues.
#[derive(Default)]
pub struct ActiveExpire {
    next_db: usize,
}

/// On a replica that clients may write to: the keys to which they have given a time to live. Its master knows nothing of these,
/// so the replica has to remove them itself, and it must not remove any that are its master's.
#[derive(Default)]
pub struct LocalExpires {
    keys: BTreeSet<(u32, Box<[u8]>)>,
    /// Where the next cycle continues.
    next: Option<(u32, Box<[u8]>)>,
}

impl LocalExpires {
    pub(super) fn note(&mut self, db: u32, key: &[u8]) {
        self.keys.insert((db, key.into()));
    }

    /// The next keys, up to so many, in a circle.
    fn take_next(&mut self, count_max: usize) -> Vec<(u32, Box<[u8]>)> {
        let from = self.next.take().map_or(Bound::Unbounded, Bound::Included);
        let mut behind = self.keys.range((from, Bound::Unbounded)).cloned();
        let taken = behind.by_ref().take(count_max).collect();
        self.next = behind.next();
        taken
    }
}

/// An expired key was removed: counts it, records its deletion as an effect, and notifies its observers.
#[cold]
pub(super) fn signal_expired(
    stats: &ShardStats,
    effects: &mut EffectLog,
    observers: &mut Observers,
    lazy_free: bool,
    db: u32,
    key: Key<'_>,
) {
    stats.expired_keys.add(1);
    effects.removed(db, key.bytes, lazy_free);
    observers.expired(db, key);
}

/// Whether a transaction has locked a key, or waits for its lock.
pub(super) fn is_locked(locks: &LockTable, key: Key<'_>) -> bool {
    !locks.is_empty() && locks.conflicts(&[KeyLock { id: key.hash, exclusive: true }])
}

/// After this many expired keys that could not be removed, RANDOMKEY returns one of them, as it does on a replica of
/// Redis. It meets that many only while keys must not be removed: during a CLIENT PAUSE, or while transactions have
/// locked them.
const RANDOM_TRIES: usize = 100;

impl Shard {
    /// A random key of a database, uniformly distributed. Expired keys that it meets are removed, except those that a
    /// transaction has locked.
    pub fn random_key(&mut self, db: u32) -> Option<Vec<u8>> {
        let mut chosen = None;
        for _ in 0..RANDOM_TRIES {
            let random = &mut self.random;
            let entry = self.dbs[db as usize].table().random(&mut || super::splitmix64(random))?;
            let is_expired = entry.is_expired(self.now_ms);
            let key = entry.key().to_vec();
            if is_expired {
                let key = Key { bytes: &key, hash: hash_key(&key) };
                // A caller that runs under locks has locked the whole keyspace, because it names no keys.
                if self.running.is_some() || !is_locked(&self.locks, key) {
                    self.exists(db, key);
                }
            }
            chosen = Some(key);
            if !is_expired {
                break;
            }
        }
        chosen
    }

    /// Runs one cycle, `interval_ms` after the last one. `elapsed_nanos` returns the time since the cycle began.
    pub fn run_active_expire(&mut self, interval_ms: i64, elapsed_nanos: impl Fn() -> u64) {
        let effort = u64::from(self.config.active_expire_effort).saturating_sub(1);
        let percent_max = CYCLE_PERCENT_MAX + CYCLE_PERCENT_STEP * effort;
        let budget_nanos = interval_ms.max(1) as u64 * 1_000_000 * percent_max / 100;
        let mut elapsed = 0;
        for _ in 0..self.dbs.len() {
            let db = self.expire.next_db;
            while self.expire_step(db) {
                self.effects.end_apart();
                if self.observers.is_expiry_full() {
                    // A program removes these first.
                    return;
                }
                elapsed = elapsed_nanos();
                if elapsed > budget_nanos {
                    self.stats.expired_time_cap_reached.add(1);
                    self.stats.expire_cycle_micros.add(elapsed / 1000);
                    return;
                }
            }
            self.effects.end_apart();
            self.expire.next_db = (db + 1) % self.dbs.len();
        }
        self.stats.expire_cycle_micros.add(elapsed / 1000);
    }

    /// Removes those keys whose time to live clients of a writable replica have set, and that have expired: see
    /// [`LocalExpires`]. To be called in place of [`Shard::run_active_expire`] on a replica.
    pub fn run_local_expire(&mut self) {
        for (db, bytes) in self.local_expires.take_next(LOCAL_STEP_KEYS) {
            let key = Key { bytes: &bytes, hash: hash_key(&bytes) };
            let expire_at_ms = self.lookup_stored(db, key).map(|entry| entry.expire_at_ms());
            let is_expired = match expire_at_ms {
                Some(Some(at_ms)) => at_ms < self.now_ms,
                Some(None) | None => {
                    self.local_expires.keys.remove(&(db, bytes));
                    continue;
                }
            };
            // A locked key is left to the next cycle.
            if is_expired && !is_locked(&self.locks, key) {
                self.dbs[db as usize].remove(key.hash, key.bytes);
                self.dbs[db as usize].mark_signalled();
                let lazy = self.config.lazyfree_lazy_expire;
                signal_expired(&self.stats, &mut self.effects, &mut self.observers, lazy, db, key);
                self.local_expires.keys.remove(&(db, bytes));
            }
        }
        self.effects.end_apart();
        self.stats.local_expires.set(self.local_expires.keys.len() as u64);
    }

    /// Forgets the keys that [`Shard::run_local_expire`] would look at: they are no more, or this is no replica any more.
    pub fn forget_local_expires(&mut self) {
        self.local_expires = LocalExpires::default();
        self.stats.local_expires.set(0);
    }

    /// Removes some expired keys of a database. Returns whether there may be more.
    fn expire_step(&mut self, db: usize) -> bool {
        if self.dbs[db].table().expires_len() == 0 {
            return false;
        }
        let (locks, stats, now_ms) = (&self.locks, &self.stats, self.now_ms);
        let (effects, lazy_free) = (&mut self.effects, self.config.lazyfree_lazy_expire);
        let observers = &mut self.observers;
        let is_told = observers.tells_expired();
        // A key exists until the end of the millisecond of its expiry.
        let progress = self.dbs[db].expire_due(now_ms - 1, STEP_KEYS, &mut |entry| {
            let key = Key { bytes: entry.key(), hash: hash_key(entry.key()) };
            // A locked key is left to the next cycle.
            let free = !is_locked(locks, key);
            if free && is_told {
                observers.note_expired(db as u32, key.bytes, false);
            } else if free {
                signal_expired(stats, effects, observers, lazy_free, db as u32, key);
            }
            free && !is_told
        });
        progress.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::config::Config;
    use crate::shard::event::Event;
    use crate::types::{NewValue, SetExpire};
    use std::cell::Cell;
    use std::sync::Arc;

    #[test]
    fn a_writable_replica_removes_only_keys_whose_time_its_own_clients_have_set() {
        let mut shard = Shard::new(0, 1, Arc::new(Config::default()), Arc::new(ShardStats::new(0, 16)), 1);
        shard.set_now(1000);
        shard.set_expiry(true, 0);
        shard.is_writable_replica = true;
        let (master, client) = (Call::default(), Call { client: 7, db: 3, ..Call::default() });
        let key = |name: &'static str| Key { bytes: name.as_bytes(), hash: hash_key(name.as_bytes()) };
        let at = SetExpire::At(2000);
        shard.set(&Call { db: 3, ..master }, key("of the master"), NewValue::Int(1), at, Event::SET);
        for name in ["a", "b", "c"] {
            shard.set(&client, key(name), NewValue::Int(1), at, Event::SET);
        }
        shard.change(&client, key("b"), Event::PERSIST).expect("it is there").set_expire(None);
        shard.delete(&client, key("c"), Event::DEL);
        shard.run_local_expire();
        assert_eq!((shard.key_count(3), shard.stats.local_expires.get()), (3, 1));
        shard.set_now(3000);
        assert!(shard.lookup_read(&client, key("a")).is_none());
        assert_eq!(shard.key_count(3), 3, "a look-up removes nothing");
        shard.run_local_expire();
        assert_eq!((shard.key_count(3), shard.stats.local_expires.get()), (2, 0));
        assert!(shard.is_stored(3, key("of the master")) && shard.is_stored(3, key("b")));
        // A write takes what has expired for gone, whoever has set its time.
        assert!(shard.change(&client, key("of the master"), Event::INCRBY).is_none());
        assert_eq!(shard.key_count(3), 1);
    }

    #[test]
    fn a_cycle_ends_when_its_share_of_the_time_is_used_up() {
        for (effort, steps) in [(1, 26), (10, 44)] {
            let config = Config { active_expire_effort: effort, ..Config::default() };
            let mut shard = Shard::new(0, 1, Arc::new(config), Arc::new(ShardStats::new(0, 16)), 1);
            shard.set_now(1000);
            for number in 0..60_000_i64 {
                let name = number.to_string();
                let key = Key { bytes: name.as_bytes(), hash: hash_key(name.as_bytes()) };
                shard.set(&Call::default(), key, NewValue::Int(number), SetExpire::At(2000), Event::SET);
            }
            shard.set_now(3000);
            let elapsed_ms = Cell::new(0);
            shard.run_active_expire(100, || {
                elapsed_ms.set(elapsed_ms.get() + 1);
                elapsed_ms.get() * 1_000_000
            });
            assert_eq!(
                (elapsed_ms.get(), shard.stats.expired_time_cap_reached.get()),
                (steps, 1),
                "{effort}"
            );
            assert!(shard.key_count(0) > 0);
        }
    }
}
