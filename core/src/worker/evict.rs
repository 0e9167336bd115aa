//! Making room: keys are evicted before commands run while more memory is in use than `maxmemory` allows. Which keys, is
//! the matter of [`shard::evict`](crate::shard::evict).
//!
//! A shard compares what all shards use with the limit before each group of requests. Of itself it knows what it uses at
//! that moment, of the others what they published last. If that is too much, the shard with the most dispensable key gives
//! it up. Is that another shard, it is asked to, and what it was asked for counts as freed from then on. A shard that owes
//! [`DEBT_BYTES_MAX`] is not asked for more: then this shard removes keys of its own, so that memory does not grow however
//! slow the other is. Commands that need memory are refused only if no shard has a key that may be removed.
//!
//! As in Redis, a shard spends no more than a bounded time on this before it goes on to serve clients
//! (`maxmemory-eviction-tenacity`), and evicts the rest in its next turns.

use super::Worker;
use crate::config::MaxmemoryPolicy;
use crate::shard::evict::EvictionBoard;
use crate::shard::message::Message;
use crate::worker::latency::event;
use smallvec::SmallVec;

/// A shard that is to free so much already is not asked for more.
const DEBT_BYTES_MAX: u64 = 64 << 10;

/// After so many keys the clock is read, and what others use.
const KEYS_PER_LOOK: usize = 16;

/// The time limits of `maxmemory-eviction-tenacity`, in nanoseconds: up to 10 proportional, and from there growing by 15 % a
/// step. 100: without limit.
const TENACITY_STEP_NANOS: f64 = 50_000.0;
const TENACITY_GROWTH: f64 = 1.15;

fn limit_nanos(tenacity: u32) -> u64 {
    match tenacity {
        0..=10 => (TENACITY_STEP_NANOS * f64::from(tenacity)) as u64,
        11..=99 => (TENACITY_STEP_NANOS * 10.0 * TENACITY_GROWTH.powi(tenacity as i32 - 10))
            .min(u64::MAX as f64) as u64,
        _ => u64::MAX,
    }
}

/// A shard's state of eviction.
#[derive(Default)]
pub(super) struct Eviction {
    /// What all but this shard used at the beginning of the turn, less what does not count.
    others_bytes: i64,
    /// More is in use than is allowed, and there is nothing to remove.
    is_memory_full: bool,
    /// The time was up before enough was removed.
    is_behind: bool,
    limit_nanos: u64,
}

impl Eviction {
    #[inline]
    pub(super) fn is_memory_full(&self) -> bool {
        self.is_memory_full
    }
}

impl Worker {
    /// Takes over what the configuration says.
    pub(super) fn track_eviction(&mut self) {
        let config = &self.shard.config;
        self.eviction.limit_nanos = limit_nanos(config.maxmemory_eviction_tenacity);
        self.globals.evictions.show(self.shard.index, EvictionBoard::UNKNOWN);
        if self.limits_memory() {
            self.look_at_others_memory();
        } else {
            self.end_eviction(false);
        }
    }

    /// Whether keys are evicted, or writes refused, when memory is full. A replica leaves that to its master, unless it is told
    /// otherwise.
    #[inline]
    pub(super) fn limits_memory(&self) -> bool {
        let config = &self.shard.config;
        config.has_maxmemory() && !(self.shard.is_replica && config.replica_ignore_maxmemory)
    }

    /// Reads what the other shards use. Once a turn.
    pub(super) fn look_at_others_memory(&mut self) {
        self.eviction.others_bytes = self.globals.counted_memory_without(self.shard.index);
    }

    /// What this shard uses now, of what counts.
    pub(super) fn counted_memory(&self) -> i64 {
        let not_counted = self.shard.free_bytes() + self.shard.bytes_not_counted_for_eviction();
        self.time.clock.thread_allocated_bytes() - not_counted as i64
    }

    /// What shards were asked to free and have not freed yet. To be read before what they use: they publish that first.
    fn owed_bytes(&self) -> u64 {
        (0..self.shard.shard_count).map(|shard| self.globals.evictions.wanted_bytes(shard)).sum()
    }

    /// How much more than allowed is in use, without what shards owe.
    fn excess_bytes(&self, owed_bytes: u64) -> u64 {
        let used = (self.eviction.others_bytes + self.counted_memory()).max(0) as u64;
        self.shard.config.beyond_maxmemory(used).saturating_sub(owed_bytes)
    }

    /// To be called before commands run, where no unit is under way: evicts keys if memory is full.
    #[inline]
    pub(super) fn make_room(&mut self) {
        if self.limits_memory() {
            self.look_for_room();
        }
    }

    fn look_for_room(&mut self) {
        if self.excess_bytes(self.owed_bytes()) > 0 {
            self.evict_excess();
            // What the next command changes is told behind its reply.
            self.spread_invalidations();
        } else if self.eviction.is_memory_full || self.eviction.is_behind {
            self.end_eviction(false);
        }
    }

    /// Records that nothing more is to be evicted. `is_memory_full`: because nothing can be.
    fn end_eviction(&mut self, is_memory_full: bool) {
        self.eviction.is_memory_full = is_memory_full;
        self.eviction.is_behind = false;
        self.note_exceeded();
    }

    /// More is to be evicted, later.
    fn be_behind(&mut self) {
        self.eviction.is_memory_full = false;
        self.eviction.is_behind = true;
        self.note_exceeded();
    }

    /// Has the statistics say for how long the shard has been behind.
    fn note_exceeded(&self) {
        let stats = &self.shard.stats;
        let now_ms = self.shard.now_ms.max(1) as u64;
        match (self.eviction.is_behind, stats.eviction_exceeded_since_ms.get()) {
            (true, 0) => stats.eviction_exceeded_since_ms.set(now_ms),
            (false, since_ms @ 1..) => {
                stats.eviction_exceeded_ms.add(now_ms.saturating_sub(since_ms));
                stats.eviction_exceeded_since_ms.set(0);
            }
            (true, _) | (false, 0) => {}
        }
    }

    /// Whether keys may be evicted at present: not while clients are paused, nor while the keys are being loaded.
    fn may_evict(&self) -> bool {
        !self.are_clients_paused(self.shard.now_ms)
            && !self.globals.persistence.loading.is_under_way()
            && !self.shard.is_replaying
    }

    /// Evicts what is too much, of this shard and others, as far as there is time.
    #[cold]
    fn evict_excess(&mut self) {
        if self.shard.config.maxmemory_policy == MaxmemoryPolicy::Noeviction {
            self.end_eviction(true);
            return;
        }
        if !self.may_evict() {
            self.end_eviction(false);
            return;
        }
        if self.must_close_clients() {
            // As in Redis these go first: at the end of the turn.
            return;
        }
        let (clock, began_ticks) = (self.time.clock, self.time.clock.ticks());
        let mut owed_bytes = 0;
        self.show_rank();
        for looks in 0.. {
            if looks % KEYS_PER_LOOK == 0 {
                // Others may have freed what they were asked for, or evict for the same reason at the same time.
                owed_bytes = self.owed_bytes();
                self.shard.stats.set_counted_memory(self.counted_memory());
                self.look_at_others_memory();
                if looks > 0 && clock.nanos_since(began_ticks) > self.eviction.limit_nanos {
                    self.be_behind();
                    break;
                }
            }
            let excess_bytes = self.excess_bytes(owed_bytes);
            if excess_bytes == 0 {
                self.end_eviction(false);
                break;
            }
            match self.victim() {
                Some(shard) if shard == self.shard.index => {
                    if self.evicts_by_program() {
                        self.begin_eviction();
                        self.be_behind();
                        break;
                    }
                    self.shard.evict_one();
                    self.show_rank();
                }
                Some(shard) => {
                    self.ask_to_evict(shard, excess_bytes);
                    self.end_eviction(false);
                    break;
                }
                None => {
                    self.end_eviction(self.has_nothing_to_evict());
                    break;
                }
            }
        }
        self.sample_eviction(began_ticks);
    }

    pub(super) fn sample_eviction(&self, began_ticks: u64) {
        self.sample_latency(event::EVICTION_CYCLE, self.time.clock.nanos_since(began_ticks));
    }

    /// Shows the others how dispensable this shard's next candidate is.
    fn show_rank(&mut self) {
        let rank = self.shard.eviction_rank();
        self.globals.evictions.show(self.shard.index, rank);
    }

    /// The shard whose key is to go next: the one with the most dispensable key, among those that do not owe much already.
    fn victim(&mut self) -> Option<usize> {
        let (own, board) = (self.shard.index, &self.globals.evictions);
        let may_be_asked = |shard: usize| shard == own || board.wanted_bytes(shard) < DEBT_BYTES_MAX;
        if self.shard.evicts_at_random() {
            return self.random_victim();
        }
        let rank = |shard: usize| match board.rank(shard) {
            rank if shard == own => rank,
            // Asked in vain, it would owe what it cannot free, and commands would run that are to be refused.
            _ if self.evictable_len_of(shard) == 0 => EvictionBoard::NONE,
            // It has got keys since it looked.
            EvictionBoard::NONE => EvictionBoard::UNKNOWN,
            rank => rank,
        };
        let ranks = (0..self.shard.shard_count).map(|shard| (rank(shard), shard == own, shard));
        let best = ranks.filter(|&(rank, _, shard)| rank != EvictionBoard::NONE && may_be_asked(shard)).max();
        best.map(|(_, _, shard)| shard)
    }

    /// A shard, each as likely as the number of its keys that may be evicted.
    fn random_victim(&mut self) -> Option<usize> {
        let (own, board) = (self.shard.index, &self.globals.evictions);
        let may_be_asked = |&shard: &usize| shard == own || board.wanted_bytes(shard) < DEBT_BYTES_MAX;
        let shards: SmallVec<[usize; 16]> = (0..self.shard.shard_count).filter(may_be_asked).collect();
        let counts: SmallVec<[u64; 16]> = shards.iter().map(|&shard| self.evictable_len_of(shard)).collect();
        let total: u64 = counts.iter().sum();
        let mut chosen = ((u128::from(self.shard.random()) * u128::from(total)) >> 64) as u64;
        let at = counts.iter().position(|&count| {
            let is_it = chosen < count;
            chosen = chosen.saturating_sub(count);
            is_it
        })?;
        Some(shards[at])
    }

    /// Whether no shard has a key that may be evicted, as far as that is known.
    fn has_nothing_to_evict(&self) -> bool {
        (0..self.shard.shard_count).all(|shard| self.evictable_len_of(shard) == 0)
    }

    /// How many keys of a shard may be evicted: of another one, by what it has published.
    fn evictable_len_of(&self, shard: usize) -> u64 {
        if shard == self.shard.index {
            self.shard.evictable_len()
        } else {
            self.shard.published_evictable_len(&self.globals.stats[shard])
        }
    }

    fn ask_to_evict(&mut self, shard: usize, bytes: u64) {
        if self.globals.evictions.ask(shard, bytes) {
            self.send(shard, Message::Evict);
        }
    }

    /// Whether the shard has more to evict, for others or for itself.
    #[inline]
    pub(super) fn must_evict_more(&self) -> bool {
        self.limits_memory()
            && (self.eviction.is_behind || self.globals.evictions.wanted_bytes(self.shard.index) > 0)
    }

    /// Evicts what other shards want to be freed here, as far as there is time.
    pub(super) fn evict_wanted(&mut self) {
        let (own, board) = (self.shard.index, &self.globals.evictions);
        let (clock, began_ticks) = (self.time.clock, self.time.clock.ticks());
        let (wanted, used) = (board.wanted_bytes(own), self.counted_memory());
        if self.may_evict() && wanted > 0 && self.evicts_by_program() {
            self.begin_eviction();
            return;
        }
        let mut freed = 0;
        for looks in 1.. {
            if freed >= wanted {
                break;
            }
            if !self.may_evict() || !self.shard.evict_one() {
                freed = u64::MAX;
                break;
            }
            freed = (used - self.counted_memory()).max(0) as u64;
            if looks % KEYS_PER_LOOK == 0 && clock.nanos_since(began_ticks) > self.eviction.limit_nanos {
                break;
            }
        }
        self.sample_eviction(began_ticks);
        self.tell_freed(freed);
        if self.eviction.is_behind {
            self.look_for_room();
        }
    }

    /// Who wants this shard to free memory counts on it no more.
    pub(super) fn tell_freed(&mut self, freed_bytes: u64) {
        // They must see that it is free.
        self.publish();
        self.globals.evictions.freed(self.shard.index, freed_bytes);
        self.show_rank();
    }

    /// Whether a key of this shard is to go next, for itself or for others.
    pub(super) fn must_evict_own(&mut self) -> bool {
        if !self.limits_memory() || !self.may_evict() {
            return false;
        }
        self.look_at_others_memory();
        self.globals.evictions.wanted_bytes(self.shard.index) > 0
            || self.excess_bytes(self.owed_bytes()) > 0 && self.victim() == Some(self.shard.index)
    }

    /// Whether it has taken as long as it may at a time.
    pub(super) fn has_evicted_for_long(&self, began_ticks: u64) -> bool {
        self.time.clock.nanos_since(began_ticks) > self.eviction.limit_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_eviction_grows_with_the_tenacity() {
        assert_eq!([0, 1, 10].map(limit_nanos), [0, 50_000, 500_000]);
        assert_eq!(limit_nanos(11), 575_000);
        assert!(limit_nanos(99) > 100_000_000_000 && limit_nanos(99) < u64::MAX);
        assert_eq!(limit_nanos(100), u64::MAX);
    }
}
