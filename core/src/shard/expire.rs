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

/// A cycle takes at most this percentage of the time between two cycles with the least `active-expire-effort`, and as much
/// more for each step of it.
const CYCLE_PERCENT_MAX: u64 = 25;
const CYCLE_PERCENT_STEP: u64 = 2;

/// How many expired keys are removed before the clock is read again.
const STEP_KEYS: usize = 64;

/// Where the next cycle continues.
#[derive(Default)]
pub struct ActiveExpire {
    next_db: usize,
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

    /// Removes some expired keys of a database. Returns whether there may be more.
    fn expire_step(&mut self, db: usize) -> bool {
        if self.dbs[db].table().expires_len() == 0 {
            return false;
        }
        let (locks, stats, now_ms) = (&self.locks, &self.stats, self.now_ms);
        let (effects, lazy_free) = (&mut self.effects, self.config.lazyfree_lazy_expire);
        let observers = &mut self.observers;
        // A key exists until the end of the millisecond of its expiry.
        let progress = self.dbs[db].expire_due(now_ms - 1, STEP_KEYS, &mut |entry| {
            let key = Key { bytes: entry.key(), hash: hash_key(entry.key()) };
            // A locked key is left to the next cycle.
            let free = !is_locked(locks, key);
            if free {
                signal_expired(stats, effects, observers, lazy_free, db as u32, key);
            }
            free
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
