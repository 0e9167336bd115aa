//! Eviction: which keys are removed when memory is full (`maxmemory-policy`).
//!
//! As in Redis, the key to remove is the best of a small pool, to which each removal adds a few random keys
//! (`maxmemory-samples`). They are looked for in steps of bounded length, because keys that may be removed can be far between.
//! A key's *rank* says how dispensable it is, the higher the more: by the time of its last access,
//! how rarely it is accessed, or its expiry. Ranks do not depend on when they were determined, so the pool's can be compared
//! with each other, and with those of other shards. Unlike in Redis, a key that was accessed after it came into the pool
//! is not removed.
//!
//! All shards share one budget, `maxmemory`: a shard that needs room has the most dispensable key of all removed, whosever
//! it is. For that each shard shows the rank of its best candidate on the [`EvictionBoard`], where others also leave how
//! much they want it to free. How the shards ask each other is the worker's matter.

use super::access::Access;
use super::expire::is_locked;
use super::lock::KeyLock;
use super::stats::{DbStats, ShardStats};
use super::{Shard, splitmix64};
use crate::call::Key;
use crate::config::MaxmemoryPolicy;
use crate::types::table::{Sample, Sampled};
use crate::types::{Entry, below, hash_key};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many candidates are kept.
const POOL_LEN: usize = 16;

/// A step looks at no more than so many segments of tables. (An empty one costs a cache miss.)
const STEP_SEGMENTS: usize = 128;

/// A policy by what it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Criterion {
    LastAccess,
    Frequency,
    Expiry,
    Random,
}

/// `None`: no key is ever removed.
fn criterion(policy: MaxmemoryPolicy) -> Option<(Sampled, Criterion)> {
    Some(match policy {
        MaxmemoryPolicy::AllkeysLru => (Sampled::All, Criterion::LastAccess),
        MaxmemoryPolicy::AllkeysLfu => (Sampled::All, Criterion::Frequency),
        MaxmemoryPolicy::AllkeysRandom => (Sampled::All, Criterion::Random),
        MaxmemoryPolicy::VolatileLru => (Sampled::Volatile, Criterion::LastAccess),
        MaxmemoryPolicy::VolatileLfu => (Sampled::Volatile, Criterion::Frequency),
        MaxmemoryPolicy::VolatileTtl => (Sampled::Volatile, Criterion::Expiry),
        MaxmemoryPolicy::VolatileRandom => (Sampled::Volatile, Criterion::Random),
        MaxmemoryPolicy::Noeviction => return None,
    })
}

impl Criterion {
    /// How dispensable a key is. Above [`EvictionBoard::NONE`] and below [`EvictionBoard::UNKNOWN`].
    fn rank(self, entry: Entry<'_>, access: &Access, now_ms: i64) -> u64 {
        let rank = match self {
            Criterion::LastAccess => {
                let accessed_s = (now_ms / 1000).saturating_sub(i64::from(access.idle_s(entry.access())));
                u64::MAX / 2 - accessed_s.max(0) as u64
            }
            Criterion::Frequency => u64::from(u8::MAX) - u64::from(access.frequency(entry.access())),
            Criterion::Expiry => {
                u64::MAX / 2 - entry.expire_at_ms().unwrap_or(i64::MAX / 2).max(0) as u64 / 2
            }
            Criterion::Random => 0,
        };
        rank.clamp(EvictionBoard::NONE + 1, EvictionBoard::UNKNOWN - 1)
    }
}

/// A key that may be removed.
struct Candidate {
    rank: u64,
    db: u32,
    hash: u64,
    key: Box<[u8]>,
}

/// A shard's candidates.
#[derive(Default)]
pub(super) struct EvictionPool {
    /// In the order of their ranks.
    candidates: Vec<Candidate>,
    /// The look for candidates that is under way: the database in which it is, and the sample that is being taken of that.
    look: Option<(usize, Sample)>,
}

/// A key that is to be removed.
pub struct Victim {
    pub db: u32,
    hash: u64,
    pub key: Box<[u8]>,
}

/// What became of a step of the look for a key to remove.
pub enum Look {
    Found(Victim),
    /// It is not over.
    Unfinished,
    /// No key may be removed at present: there is none, or transactions have locked them.
    InVain,
}

impl EvictionPool {
    /// The candidates of another policy are worth nothing.
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
        self.look = None;
    }

    fn consider(&mut self, db: u32, key: &[u8], rank: u64) {
        let is_full = self.candidates.len() == POOL_LEN;
        if is_full && rank <= self.candidates[0].rank {
            return;
        }
        let hash = hash_key(key);
        let is_it = |known: &Candidate| known.hash == hash && known.db == db && *known.key == *key;
        if self.candidates.iter().any(is_it) {
            return;
        }
        let at = self.candidates.partition_point(|known| known.rank <= rank);
        self.candidates.insert(at, Candidate { rank, db, hash, key: key.into() });
        if is_full {
            self.candidates.remove(0);
        }
    }
}

impl Shard {
    /// How many keys the policy allows to be removed, as of now.
    pub fn evictable_len(&self) -> u64 {
        let Some((sampled, _)) = criterion(self.config.maxmemory_policy) else { return 0 };
        let tables = self.dbs.used().iter().map(|db| db.table());
        tables
            .map(|table| if sampled == Sampled::All { table.len() } else { table.expires_len() } as u64)
            .sum()
    }

    /// The same of another shard, by the statistics that it publishes once a turn.
    pub fn published_evictable_len(&self, of: &ShardStats) -> u64 {
        let Some((sampled, _)) = criterion(self.config.maxmemory_policy) else { return 0 };
        let count = |db: &DbStats| if sampled == Sampled::All { db.keys.get() } else { db.expires.get() };
        of.dbs.iter().map(count).sum()
    }

    /// Whether any key is as good as another.
    pub fn evicts_at_random(&self) -> bool {
        criterion(self.config.maxmemory_policy).is_some_and(|(_, criterion)| criterion == Criterion::Random)
    }

    /// Looks for candidates a step further, and if that is done, takes the most dispensable key of this shard. After finitely many
    /// steps, one does not return [`Look::Unfinished`].
    pub fn find_victim(&mut self) -> Look {
        let Some((sampled, criterion)) = criterion(self.config.maxmemory_policy) else { return Look::InVain };
        if !self.look_for_candidates(sampled, criterion) {
            return Look::Unfinished;
        }
        while let Some(Candidate { rank, db, hash, key: bytes }) = self.eviction.candidates.pop() {
            let key = Key { bytes: &bytes, hash };
            let Some(entry) = self.lookup_stored(db, key) else { continue };
            let is_as_it_was = criterion.rank(entry, &self.access, self.now_ms) >= rank;
            let is_sampled = sampled == Sampled::All || entry.expire_at_ms().is_some();
            // What is here only for a transaction belongs to another shard.
            if is_as_it_was && is_sampled && self.owns(key.bytes) && !self.is_locked_for_others(key) {
                return Look::Found(Victim { db, hash, key: bytes });
            }
        }
        Look::InVain
    }

    /// Removes a key that was found just now.
    pub fn evict_victim(&mut self, victim: &Victim) {
        self.evict(victim.db, Key { bytes: &victim.key, hash: victim.hash });
    }

    /// Removes a key that was found before, if it is still there.
    pub fn evict_if_there(&mut self, db: u32, key: Key<'_>) {
        if self.lookup_stored(db, key).is_some() {
            self.evict(db, key);
        }
    }

    /// Whether others than the program that runs have locked a key, or wait for its lock.
    fn is_locked_for_others(&self, key: Key<'_>) -> bool {
        let lock = KeyLock { id: key.hash, exclusive: true };
        is_locked(&self.locks, key) && !self.running.is_some_and(|own| self.locks.is_in_hand(own, lock))
    }

    /// The rank of the best candidate, for the board. If none is known, looks for some, a step further.
    pub fn eviction_rank(&mut self) -> u64 {
        let Some((sampled, criterion)) = criterion(self.config.maxmemory_policy) else {
            return EvictionBoard::NONE;
        };
        let knows_all = !self.eviction.candidates.is_empty() || self.look_for_candidates(sampled, criterion);
        let unknown = if knows_all { EvictionBoard::NONE } else { EvictionBoard::UNKNOWN };
        self.eviction.candidates.last().map_or(unknown, |best| best.rank)
    }

    /// Adds random keys of each database to the pool. Returns whether that is done, or has to be continued.
    fn look_for_candidates(&mut self, sampled: Sampled, criterion: Criterion) -> bool {
        let count = match criterion {
            Criterion::Random => 1,
            Criterion::LastAccess | Criterion::Frequency | Criterion::Expiry => {
                self.config.maxmemory_samples as usize
            }
        };
        let (access, now_ms, pool) = (&self.access, self.now_ms, &mut self.eviction);
        let random = &mut self.random;
        let mut segments_left = STEP_SEGMENTS;
        let (first, mut sample) = pool.look.take().unzip();
        for (number, db) in self.dbs.used().iter().enumerate().skip(first.unwrap_or(0)) {
            let mut consider = |entry: Entry<'_>| {
                pool.consider(number as u32, entry.key(), criterion.rank(entry, access, now_ms));
            };
            let mut next = || splitmix64(random);
            let mut taken = sample.take().unwrap_or_else(|| Sample::new(sampled, count, &mut next));
            if !db.table().sample(&mut taken, &mut segments_left, &mut next, &mut consider) {
                pool.look = Some((number, taken));
                return false;
            }
        }
        if criterion == Criterion::Random && pool.candidates.len() > 1 {
            // They are all alike, so that a database with few keys would lose them as soon as one with many.
            let chosen = below(pool.candidates.len(), splitmix64(random));
            let last = pool.candidates.len() - 1;
            pool.candidates.swap(chosen, last);
        }
        true
    }
}

/// What the shards tell each other about eviction.
pub struct EvictionBoard {
    places: Box<[Place]>,
}

#[derive(Default)]
#[repr(align(128))]
struct Place {
    rank: AtomicU64,
    wanted_bytes: AtomicU64,
}

impl EvictionBoard {
    /// The rank of a shard that has no key to remove.
    pub const NONE: u64 = 0;
    /// The rank of a shard that has not looked for candidates since the policy was set.
    pub const UNKNOWN: u64 = u64::MAX;

    pub fn new(shard_count: usize) -> EvictionBoard {
        let unknown = || Place { rank: AtomicU64::new(EvictionBoard::UNKNOWN), ..Place::default() };
        EvictionBoard { places: (0..shard_count).map(|_| unknown()).collect() }
    }

    pub fn rank(&self, shard: usize) -> u64 {
        self.places[shard].rank.load(Ordering::Relaxed)
    }

    /// A shard shows the rank of its best candidate.
    pub fn show(&self, shard: usize, rank: u64) {
        self.places[shard].rank.store(rank, Ordering::Relaxed);
    }

    /// How much a shard is still to free for others, in bytes.
    pub fn wanted_bytes(&self, shard: usize) -> u64 {
        self.places[shard].wanted_bytes.load(Ordering::Acquire)
    }

    /// Asks a shard to free so many bytes more. Returns whether it was to free nothing before, so that it has to be told.
    pub fn ask(&self, shard: usize, bytes: u64) -> bool {
        self.places[shard].wanted_bytes.fetch_add(bytes, Ordering::Relaxed) == 0
    }

    /// A shard has freed so many bytes of what others wanted of it, and published what it uses now.
    pub fn freed(&self, shard: usize, bytes: u64) {
        let left = |wanted: u64| Some(wanted.saturating_sub(bytes));
        let _ = self.places[shard].wanted_bytes.fetch_update(Ordering::Release, Ordering::Relaxed, left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::config::Config;
    use crate::shard::event::Event;
    use crate::shard::lock::LockSet;
    use crate::types::{NewValue, SetExpire};
    use std::sync::Arc;

    const START_MS: i64 = 1_700_000_000_000;

    fn shard(policy: MaxmemoryPolicy) -> Shard {
        shard_with(Config { maxmemory_policy: policy, ..Config::default() })
    }

    fn shard_with(config: Config) -> Shard {
        let mut shard = Shard::new(0, 1, Arc::new(config), Arc::new(ShardStats::new(0, 16)), 1);
        shard.set_now(START_MS);
        shard
    }

    fn name(number: usize) -> Vec<u8> {
        format!("key:{number}").into_bytes()
    }

    fn add(shard: &mut Shard, number: usize, expire: SetExpire) {
        let name = name(number);
        let key = Key { bytes: &name, hash: hash_key(&name) };
        shard.set(&Call::default(), key, NewValue::Int(1), expire, Event::SET);
    }

    fn read(shard: &mut Shard, number: usize) {
        let name = name(number);
        shard.lookup_read(&Call::default(), Key { bytes: &name, hash: hash_key(&name) });
    }

    /// Steps until a key is removed, or the look for one was in vain. Returns how many steps there were, and whether one is.
    fn steps(shard: &mut Shard) -> (usize, bool) {
        let mut steps = 1;
        loop {
            match shard.find_victim() {
                Look::Found(victim) => {
                    shard.evict_victim(&victim);
                    return (steps, true);
                }
                Look::Unfinished => steps += 1,
                Look::InVain => return (steps, false),
            }
        }
    }

    fn evict_one(shard: &mut Shard) -> bool {
        steps(shard).1
    }

    fn has(shard: &Shard, number: usize) -> bool {
        let name = name(number);
        shard.lookup_stored(0, Key { bytes: &name, hash: hash_key(&name) }).is_some()
    }

    /// Of 2,000 keys, of which the upper half is worth more, 700 are removed. Returns how many of the upper half were.
    fn losses_of_the_better_half(shard: &mut Shard) -> usize {
        for _ in 0..700 {
            assert!(evict_one(shard));
        }
        assert_eq!((shard.stats.evicted_keys.get(), shard.key_count(0)), (700, 1300));
        (1000..2000).filter(|&number| !has(shard, number)).count()
    }

    #[test]
    fn under_lru_those_go_that_were_read_last_the_longest_ago() {
        let mut shard = shard(MaxmemoryPolicy::AllkeysLru);
        (0..2000).for_each(|number| add(&mut shard, number, SetExpire::Clear));
        shard.set_now(START_MS + 10_000);
        (1000..2000).for_each(|number| read(&mut shard, number));
        let lost = losses_of_the_better_half(&mut shard);
        assert!(lost < 20, "{lost}");
    }

    #[test]
    fn under_lfu_those_go_that_are_read_least() {
        let mut shard = shard(MaxmemoryPolicy::AllkeysLfu);
        (0..2000).for_each(|number| add(&mut shard, number, SetExpire::Clear));
        for _ in 0..50 {
            (1000..2000).for_each(|number| read(&mut shard, number));
        }
        let lost = losses_of_the_better_half(&mut shard);
        assert!(lost < 20, "{lost}");
    }

    #[test]
    fn under_ttl_those_go_that_expire_first() {
        let mut shard = shard(MaxmemoryPolicy::VolatileTtl);
        (0..2000)
            .for_each(|number| add(&mut shard, number, SetExpire::At(START_MS + 1000 * (1 + number as i64))));
        let lost = losses_of_the_better_half(&mut shard);
        assert!(lost < 20, "{lost}");
    }

    #[test]
    fn a_volatile_policy_takes_only_keys_that_expire() {
        use MaxmemoryPolicy::{VolatileLfu, VolatileLru, VolatileRandom, VolatileTtl};
        for policy in [VolatileLfu, VolatileLru, VolatileRandom, VolatileTtl] {
            let mut shard = shard(policy);
            let expires = |number: usize| number % 3 == 0;
            for number in 0..600 {
                let expire =
                    if expires(number) { SetExpire::At(START_MS + 1_000_000) } else { SetExpire::Clear };
                add(&mut shard, number, expire);
            }
            assert_eq!(shard.evictable_len(), 200);
            let mut count = 0;
            while evict_one(&mut shard) {
                count += 1;
            }
            assert_eq!((count, shard.evictable_len(), shard.eviction_rank()), (200, 0, EvictionBoard::NONE));
            assert!((0..600).all(|number| has(&shard, number) != expires(number)), "{policy:?}");
        }
    }

    #[test]
    fn a_candidate_that_is_read_stays() {
        // So many that each sample has all keys.
        let maxmemory_samples = 8;
        let maxmemory_policy = MaxmemoryPolicy::AllkeysLru;
        let mut shard = shard_with(Config { maxmemory_samples, maxmemory_policy, ..Config::default() });
        (0..8).for_each(|number| add(&mut shard, number, SetExpire::Clear));
        shard.eviction_rank();
        shard.set_now(START_MS + 5000);
        (0..7).for_each(|number| read(&mut shard, number));
        assert!(evict_one(&mut shard));
        assert_eq!((0..8).filter(|&number| !has(&shard, number)).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn random_eviction_spares_no_key() {
        let mut shard = shard(MaxmemoryPolicy::AllkeysRandom);
        (0..100).for_each(|number| add(&mut shard, number, SetExpire::Clear));
        (0..100).for_each(|_| assert!(evict_one(&mut shard)));
        assert!(!evict_one(&mut shard));
        assert_eq!(shard.key_count(0), 0);
    }

    /// A look for the few keys with a time to live among many was one step, of milliseconds.
    #[test]
    fn keys_that_are_far_between_are_found_in_several_steps() {
        const LEN: usize = 120_000;
        let config = Config {
            maxmemory_policy: MaxmemoryPolicy::VolatileTtl,
            maxmemory_samples: 64,
            ..Config::default()
        };
        let mut shard = shard_with(config);
        let expires = |number: usize| number % 3_000 == 0;
        for number in 0..LEN {
            let at_ms = START_MS + 1000 * (1 + number as i64);
            add(&mut shard, number, if expires(number) { SetExpire::At(at_ms) } else { SetExpire::Clear });
        }
        // The sample has all of them, so that they go in order, and each look goes through most of the table.
        for number in (0..LEN).filter(|&number| expires(number)) {
            let is_last = number + 3_000 == LEN;
            let (steps, is_evicted) = steps(&mut shard);
            assert!(is_evicted && !has(&shard, number), "{number}");
            assert!(steps > 1 || number > LEN / 2, "{number}: {steps} steps");
            assert_eq!(shard.evictable_len() == 0, is_last);
        }
        assert_eq!(steps(&mut shard), (1, false));
    }

    #[test]
    fn the_rank_is_unknown_while_the_look_goes_on_and_a_new_policy_begins_a_new_one() {
        let mut shard = shard(MaxmemoryPolicy::VolatileTtl);
        for number in 0..120_000 {
            let expire = if number == 0 { SetExpire::At(START_MS + 1000) } else { SetExpire::Clear };
            add(&mut shard, number, expire);
        }
        shard.eviction.look = Some((0, Sample::new(Sampled::Volatile, 1, &mut || 0)));
        let mut ranks = Vec::new();
        while ranks.last().is_none_or(|&rank| rank == EvictionBoard::UNKNOWN) {
            ranks.push(shard.eviction_rank());
        }
        assert!(ranks.last().is_some_and(|&rank| rank != EvictionBoard::NONE));

        shard.eviction.look = Some((15, Sample::new(Sampled::Volatile, 1, &mut || 0)));
        shard.set_config(Arc::new(Config {
            maxmemory_policy: MaxmemoryPolicy::AllkeysRandom,
            ..Config::default()
        }));
        assert!(shard.eviction.look.is_none());
    }

    #[test]
    fn keys_that_are_locked_end_a_look_in_vain() {
        let mut shard = shard(MaxmemoryPolicy::AllkeysLru);
        (0..100).for_each(|number| add(&mut shard, number, SetExpire::Clear));
        let (request, is_granted) = shard.locks.request(LockSet::Whole);
        assert!(is_granted);
        assert!((0..10).all(|_| !evict_one(&mut shard)));
        assert_eq!(shard.key_count(0), 100);
        shard.locks.release(request, &mut Vec::new());
        assert!(evict_one(&mut shard));
    }

    /// What the removed value holds counts as free at once, but is freed later.
    #[test]
    fn a_big_value_is_not_freed_by_the_eviction() {
        let mut shard = shard(MaxmemoryPolicy::AllkeysRandom);
        let name = name(1);
        let key = Key { bytes: &name, hash: hash_key(&name) };
        const LEN: usize = 8 << 20;
        shard.set(&Call::default(), key, NewValue::Owned(vec![0; LEN]), SetExpire::Clear, Event::SET);
        assert!(evict_one(&mut shard));
        let held_bytes = shard.garbage_bytes();
        assert!(held_bytes >= LEN as u64 && shard.bytes_not_counted_for_eviction() >= held_bytes);
        assert!(shard.free_garbage(64));
        let freed_bytes = held_bytes - shard.garbage_bytes();
        assert!((60 * 4096..=64 * 4096).contains(&freed_bytes), "{freed_bytes}");
        while shard.free_garbage(64) {}
        assert_eq!(shard.garbage_bytes(), 0);
    }

    #[test]
    fn without_a_policy_nothing_goes() {
        let mut shard = shard(MaxmemoryPolicy::Noeviction);
        add(&mut shard, 1, SetExpire::At(START_MS + 1000));
        assert!(!evict_one(&mut shard));
        assert_eq!((shard.evictable_len(), shard.eviction_rank()), (0, EvictionBoard::NONE));
    }

    #[test]
    fn what_is_wanted_of_a_shard_adds_up_and_goes_down() {
        let board = EvictionBoard::new(2);
        assert_eq!((board.rank(1), board.wanted_bytes(1)), (EvictionBoard::UNKNOWN, 0));
        assert!(board.ask(1, 100));
        assert!(!board.ask(1, 50));
        board.freed(1, 120);
        assert_eq!(board.wanted_bytes(1), 30);
        board.freed(1, 1000);
        assert!(board.ask(1, 1));
    }
}
