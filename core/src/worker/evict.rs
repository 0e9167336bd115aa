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
//! (`maxmemory-eviction-tenacity`), and evicts the rest in its next turns. The replies to all commands of a turn leave at its end, so the
//! bound is one for the turn. Then a turn with many commands can add more than is removed. As memory must not grow without
//! end, commands do wait longer once memory has grown by [`GROWTH_PERCENT`] of the limit since the shard fell behind: a little for
//! each command, twice as long for each further such part, and for no command longer than Redis has each wait.
//!
//! What a big value takes counts as free when the value is removed; it is freed in slices (`garbage`). If more than
//! [`GARBAGE_BYTES_MAX`] wait for that, and the memory is needed, then that is freed before more keys are removed.

use super::Worker;
use crate::config::MaxmemoryPolicy;
use crate::shard::evict::{EvictionBoard, Look};
use crate::shard::message::Message;
use crate::worker::latency::event;
use smallvec::SmallVec;

/// A shard that is to free so much already is not asked for more.
const DEBT_BYTES_MAX: u64 = 64 << 10;

/// After so many steps, what others use is read again.
const STEPS_PER_LOOK: usize = 16;

/// After so many looks that found only keys that may not be removed, the next turn goes on: transactions may have locked them.
pub(super) const VAIN_LOOKS_MAX: usize = 8;

/// If memory has grown by so much of the limit while the shard was behind, commands wait longer.
const GROWTH_PERCENT: u8 = 1;
/// That is at least so much.
const GROWTH_BYTES_MIN: u64 = 128 << 10;
/// How long each command waits then: this long, about the time that it takes to remove a key, and twice as long for each further
/// part.
const COMMAND_NANOS: u64 = 1_500;
/// It comes to this in any case: in Redis a command that has no time at all waits until 16 keys are removed.
const COMMAND_NANOS_MIN: u64 = 16 * COMMAND_NANOS;

/// Removed values of a shard that are not freed yet may hold so much beyond the limit.
const GARBAGE_BYTES_MAX: u64 = 16 << 20;
/// At so much cost they are freed at a time: see `garbage`. (Of strings that is 256 KiB, which take 70 us.)
const GARBAGE_SLICE: usize = 64;

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
    /// The keys that could be removed were all locked.
    is_stuck: bool,
    /// How much too much there was when there was least of it, since the shard is behind.
    least_excess_bytes: u64,
    /// How long eviction may take in a turn, ...
    limit_nanos: u64,
    /// ... and has taken in this one, ...
    spent_nanos: u64,
    /// ... in which it has done a step, for which there is always time.
    has_stepped: bool,
}

impl Eviction {
    #[inline]
    pub(super) fn is_memory_full(&self) -> bool {
        self.is_memory_full
    }

    /// A turn has begun, which has its own time.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        self.spent_nanos = 0;
        self.has_stepped = false;
    }

    /// Whether it has had its time in this turn, of which it has taken `spent_nanos`.
    #[inline]
    fn is_time_up(&self, spent_nanos: u64, budget_nanos: u64) -> bool {
        self.has_stepped && spent_nanos > budget_nanos
    }

    /// How long eviction may have taken in this turn when it ends, before so many commands run. `part_bytes`: see
    /// [`GROWTH_PERCENT`].
    fn budget_nanos(&self, command_count: usize, excess_bytes: u64, part_bytes: u64) -> u64 {
        let grown_bytes =
            if self.is_behind { excess_bytes.saturating_sub(self.least_excess_bytes) } else { 0 };
        let Some(doublings) = (grown_bytes / part_bytes).checked_sub(1) else { return self.limit_nanos };
        let per_command = (COMMAND_NANOS << doublings.min(20)).min(self.limit_nanos.max(COMMAND_NANOS_MIN));
        self.limit_nanos
            .max(self.spent_nanos.saturating_add(per_command.saturating_mul(command_count as u64)))
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
        let not_counted = self.shard.free_bytes()
            + self.shard.bytes_not_counted_for_eviction()
            + self.output_not_counted_for_eviction();
        self.time.clock.thread_allocated_bytes() - not_counted as i64
    }

    /// What output takes that does not count: what is on its way to replicas, which evicted keys add to, as they do to the
    /// invalidations for clients that track.
    #[inline]
    fn output_not_counted_for_eviction(&self) -> u64 {
        self.replica_output_bytes() + self.invalidation_bytes()
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

    /// To be called before so many commands run, where no unit is under way: evicts keys if memory is full.
    #[inline]
    pub(super) fn make_room(&mut self, command_count: usize) {
        if self.limits_memory() {
            self.look_for_room(command_count);
        }
    }

    fn look_for_room(&mut self, command_count: usize) {
        if self.excess_bytes(self.owed_bytes()) > 0 || self.is_garbage_due() {
            self.evict_excess(command_count);
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
        self.eviction.is_stuck = false;
        self.note_exceeded();
    }

    /// Records that the next turn has to go on: so much is too much.
    fn fall_behind(&mut self, excess_bytes: u64, is_stuck: bool) {
        let eviction = &mut self.eviction;
        let least = if eviction.is_behind { eviction.least_excess_bytes } else { u64::MAX };
        eviction.least_excess_bytes = least.min(excess_bytes);
        eviction.is_memory_full = false;
        eviction.is_behind = true;
        eviction.is_stuck = is_stuck;
        self.note_exceeded();
    }

    /// Whether removed values that are not freed yet hold too much, and the memory is needed. Without eviction they are not
    /// those of keys that were removed for want of memory.
    fn is_garbage_due(&self) -> bool {
        let beyond = self.shard.garbage_bytes().saturating_sub(GARBAGE_BYTES_MAX);
        beyond > 0 && self.shard.config.maxmemory_policy != MaxmemoryPolicy::Noeviction && {
            let used = self.eviction.others_bytes + self.counted_memory() + beyond as i64;
            self.shard.config.beyond_maxmemory(used.max(0) as u64) > 0
        }
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

    /// Evicts what is too much, of this shard and others, as far as there is time before so many commands run.
    #[cold]
    fn evict_excess(&mut self, command_count: usize) {
        if self.shard.config.maxmemory_policy == MaxmemoryPolicy::Noeviction {
            self.end_eviction(true);
            return;
        }
        if !self.may_evict() {
            self.end_eviction(false);
            return;
        }
        let began_ticks = self.time.now_ticks();
        if self.must_close_clients() {
            // As in Redis these go first: at the end of the turn.
            return;
        }
        let owed_bytes = self.owed_bytes();
        let part_bytes = self.shard.config.maxmemory_share_bytes(GROWTH_PERCENT).max(GROWTH_BYTES_MIN);
        let budget_nanos =
            self.eviction.budget_nanos(command_count, self.excess_bytes(owed_bytes), part_bytes);
        if !self.eviction.is_time_up(self.eviction.spent_nanos, budget_nanos) {
            self.show_rank();
        }
        self.evict_until(began_ticks, budget_nanos, owed_bytes);
        self.end_eviction_slice(began_ticks);
    }

    /// The same until eviction has taken `budget_nanos` in this turn. Now it has since `began_ticks`, and before that what the
    /// turn has noted. Not every step is an eviction, so each looks at the time.
    fn evict_until(&mut self, began_ticks: u64, budget_nanos: u64, mut owed_bytes: u64) {
        let mut vain_looks = 0;
        for steps in 0.. {
            if steps % STEPS_PER_LOOK == 0 {
                // Others may have freed what they were asked for, or evict for the same reason at the same time.
                owed_bytes = self.owed_bytes();
                self.shard.stats.set_counted_memory(self.counted_memory());
                self.look_at_others_memory();
            }
            let excess_bytes = self.excess_bytes(owed_bytes);
            let frees_garbage = self.is_garbage_due();
            if excess_bytes == 0 && !frees_garbage {
                self.end_eviction(false);
                return;
            }
            let victim = if frees_garbage { Some(self.shard.index) } else { self.victim() };
            match victim {
                Some(shard) if shard == self.shard.index => {}
                Some(shard) => {
                    self.ask_to_evict(shard, excess_bytes);
                    self.end_eviction(false);
                    return;
                }
                None => {
                    self.end_eviction(self.has_nothing_to_evict());
                    return;
                }
            }
            if self.eviction.is_time_up(self.eviction_nanos(began_ticks), budget_nanos) {
                self.fall_behind(excess_bytes, false);
                return;
            }
            if frees_garbage {
                self.eviction.has_stepped = true;
                self.shard.free_garbage(GARBAGE_SLICE);
                continue;
            }
            if self.evicts_by_program() {
                self.begin_eviction();
                self.fall_behind(excess_bytes, false);
                return;
            }
            if !self.step_found_key(&mut vain_looks) {
                self.fall_behind(excess_bytes, true);
                return;
            }
            self.show_rank();
        }
    }

    /// Does a step of eviction. Returns whether there may be a key that can be removed: `vain_looks` have found none so far.
    fn step_found_key(&mut self, vain_looks: &mut usize) -> bool {
        self.eviction.has_stepped = true;
        match self.shard.find_victim() {
            Look::Found(victim) => {
                self.shard.evict_victim(&victim);
                *vain_looks = 0;
            }
            Look::Unfinished => {}
            Look::InVain => *vain_looks += 1,
        }
        *vain_looks < VAIN_LOOKS_MAX
    }

    /// How long eviction has taken in this turn, if it goes on since `began_ticks`.
    fn eviction_nanos(&self, began_ticks: u64) -> u64 {
        let slice_nanos = self.time.nanos(self.time.now_ticks().saturating_sub(began_ticks));
        self.eviction.spent_nanos.saturating_add(slice_nanos)
    }

    /// Notes what eviction has taken since `began_ticks`.
    fn end_eviction_slice(&mut self, began_ticks: u64) {
        let spent_nanos = self.eviction_nanos(began_ticks);
        self.sample_latency(event::EVICTION_CYCLE, spent_nanos - self.eviction.spent_nanos);
        self.eviction.spent_nanos = spent_nanos;
    }

    /// Notes how long a task has evicted that began then.
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
            // Asked in vain, it would owe what it cannot free, and commands would run that are to be refused.
            _ if self.evictable_len_of(shard) == 0 => EvictionBoard::NONE,
            rank if shard == own => rank,
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

    /// Whether what it has to evict is locked.
    pub(super) fn is_eviction_stuck(&self) -> bool {
        self.eviction.is_stuck
    }

    /// Evicts what other shards want to be freed here, as far as there is time, and what this one is behind with.
    pub(super) fn evict_wanted(&mut self) {
        let limit_nanos = self.eviction.limit_nanos;
        if self.eviction.is_time_up(self.eviction.spent_nanos, limit_nanos) {
            return;
        }
        let (own, began_ticks) = (self.shard.index, self.time.now_ticks());
        let (wanted, used) = (self.globals.evictions.wanted_bytes(own), self.counted_memory());
        if self.may_evict() && wanted > 0 && self.evicts_by_program() {
            self.begin_eviction();
            return;
        }
        let (mut freed, mut vain_looks) = (0, 0);
        while freed < wanted && !self.eviction.is_time_up(self.eviction_nanos(began_ticks), limit_nanos) {
            if !self.may_evict() || self.shard.evictable_len() == 0 || !self.step_found_key(&mut vain_looks) {
                freed = u64::MAX;
                break;
            }
            freed = (used - self.counted_memory()).max(0) as u64;
        }
        self.end_eviction_slice(began_ticks);
        self.tell_freed(freed);
        if self.eviction.is_behind {
            self.look_for_room(0);
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
mod tests;
