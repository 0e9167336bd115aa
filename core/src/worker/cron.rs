//! The worker's periodic and time-driven work: expiry, idle clients, sampled rates, the end of a pause.

use super::Worker;
use super::connection::{ACTIVE_MS, Connection, REPLY_BUFFER_BYTES_MAX, REPLY_BUFFER_BYTES_MIN, StallReason};
use crate::shard::stats::ShardStats;
use crate::worker::latency::event;
use crate::worker::snapshot::SNAPSHOT_SHARD;
use std::sync::atomic::Ordering;

/// A worker with nothing to do still takes a turn this often.
pub const TURN_INTERVAL_MS_MAX: i64 = 100;

/// While the writer of the append-only file is behind, whether it has caught up is looked at this often.
const WRITER_LOOK_MS: i64 = 5;

/// Rates (ops per second) are sampled this often.
const SAMPLE_INTERVAL_MS: i64 = 100;

/// A rate is the mean of this many samples.
const SAMPLES: usize = 16;

/// A query buffer larger than this is shrunk when it is much larger than the recent input.
const QUERY_BUFFER_KEPT_BYTES: usize = 32 << 10;

/// INFO shows the largest client buffers of at most this recent past.
const RECENT_MS: i64 = 8000;

/// Tables that have not grown for this long are moved to huge pages.
const GROWTH_REST_MS: i64 = 2000;

/// At most one in this many parts of the time is spent on that while there are no commands, ...
const HUGE_PAGE_SHARE_IDLE: u64 = 2;
/// ... while there are commands, which have to wait for it, ...
const HUGE_PAGE_SHARE_BUSY: u64 = 50;
/// ... and while there are commands and each move takes long, as contiguous memory is hard to get.
const HUGE_PAGE_SHARE_STALLING: u64 = 5000;
const HUGE_PAGE_STALL_NANOS: u64 = 1_500_000;

#[derive(Default)]
pub(super) struct Cron {
    next_at_ms: i64,
    /// The connection that was looked at last.
    next_client: usize,
    /// Memory of the connections looked at since the start of this round.
    walked_bytes: u64,
    /// When the statistics of the largest client buffers are reset next.
    recent_until_ms: i64,
    sampled_at_ms: i64,
    /// When a table last allocated memory.
    grown_at_ms: i64,
    /// When the next chunk may be moved to a huge page if there are no commands, when even if there are, and how many
    /// commands had been processed at the last check.
    huge_page_at_ms: i64,
    huge_page_stall_at_ms: i64,
    commands_at_huge_page: u64,
    ops: Rate,
    input: Rate,
    output: Rate,
    repl_input: Rate,
    repl_output: Rate,
}

/// A counter's increase per second, averaged over the last samples.
#[derive(Default)]
struct Rate {
    last: u64,
    samples: [u64; SAMPLES],
    next: usize,
}

impl Rate {
    fn sample(&mut self, value: u64, elapsed_ms: i64) -> u64 {
        let per_second = value.saturating_sub(self.last) * 1000 / elapsed_ms.max(1) as u64;
        self.last = value;
        self.samples[self.next] = per_second;
        self.next = (self.next + 1) % SAMPLES;
        self.samples.iter().sum::<u64>() / SAMPLES as u64
    }
}

impl Worker {
    /// In how many milliseconds the worker needs its next turn even if no event comes.
    pub fn idle_ms(&self) -> i64 {
        if self.shard.is_freeing() {
            return 0;
        }
        if self.must_evict_more() && !self.is_eviction_stuck() {
            return 0;
        }
        let snapshot_wait_ms = self.snapshot_wait_ms();
        if !self.runnable.is_empty()
            || self.has_ready_programs()
            || self.has_seen_handoffs_end()
            || self.owes_turn()
            || self.outlet.looks_again
            || !self.paused.is_empty() && self.pause().is_none()
            || snapshot_wait_ms == Some(0)
        {
            return 0;
        }
        if !self.deferred.is_empty()
            || !self.behind_handoffs.is_empty()
            || snapshot_wait_ms.is_some()
            || self.must_evict_more()
        {
            return 1;
        }
        let deadline_ms = self.blocked.next_deadline_ms().unwrap_or(i64::MAX);
        let next_at_ms = self.cron.next_at_ms.min(self.cron.huge_page_at_ms).min(deadline_ms);
        let longest_ms = if self.outlet.is_behind { WRITER_LOOK_MS } else { TURN_INTERVAL_MS_MAX };
        (next_at_ms - self.shard.now_ms).clamp(0, longest_ms)
    }

    /// Whether expired keys are removed that nobody looks up.
    pub(super) fn expires_actively(&self) -> bool {
        self.globals.active_expire.load(Ordering::Relaxed) && !self.shard.expire_paused
    }

    /// Looks for expired keys, for a part of the time between two cycles.
    pub(super) fn run_expire_cycle(&mut self, interval_ms: i64) {
        let (clock, started) = (self.time.clock, self.time.clock.ticks());
        let elapsed_nanos = || clock.nanos_since(started);
        self.shard.run_active_expire(interval_ms, elapsed_nanos);
        self.sample_latency(event::EXPIRE_CYCLE, elapsed_nanos());
    }

    pub(super) fn run_cron(&mut self) {
        self.watch_shutdown();
        self.watch_failover();
        self.watch_promotion();
        if self.shard.is_freeing() {
            self.shard.free_slice();
        }
        if self.must_evict_more() {
            self.evict_wanted();
        }
        if self.snapshot_part.is_some() {
            self.run_snapshot();
        }
        if self.shard.index == SNAPSHOT_SHARD && self.globals.persistence.snapshots.is_under_way() {
            self.end_snapshot();
        }
        if self.is_rewrite_requested() {
            self.begin_due_snapshot();
        }
        if self.blocked.next_deadline_ms().is_some() {
            self.end_waits_in_time();
        }
        if let Some(kind) = self.busy_program() {
            self.refuse_waiting(kind);
        }
        if !self.paused.is_empty() && self.pause().is_none() {
            self.wake_paused();
        }
        if self.has_seen_handoffs_end() {
            self.wake_behind_handoffs();
        }
        if self.shard.now_ms >= self.cron.huge_page_at_ms {
            self.use_huge_pages();
        }
        if self.shard.now_ms < self.cron.next_at_ms {
            return;
        }
        let interval_ms = (1000 / i64::from(self.shard.config.hz.max(1))).clamp(1, TURN_INTERVAL_MS_MAX);
        self.cron.next_at_ms = self.shard.now_ms + interval_ms;
        if self.globals.is_cron_paused() {
            return;
        }
        self.make_room(0);
        if self.shard.index == 0 {
            self.globals.record_memory();
            self.begin_due_snapshot();
            self.tell_cron();
        }
        self.shard.stats.index_bytes.set(self.shard.index_bytes());
        self.track_expiry();
        if self.expires_actively() {
            self.run_expire_cycle(interval_ms);
        } else if self.globals.active_expire.load(Ordering::Relaxed) && self.shard.is_replica {
            self.shard.run_local_expire();
        }
        self.sample_rates();
        self.run_stream_cron();
        if self.shard.now_ms >= self.cron.recent_until_ms {
            self.cron.recent_until_ms = self.shard.now_ms + RECENT_MS;
            self.shard.stats.client_input_max_bytes.set(0);
            self.shard.stats.client_output_max_bytes.set(0);
        }
        self.check_clients(interval_ms);
        if !self.paused.is_empty() {
            let left_ms = self.globals.pause_until_ms() - self.shard.now_ms;
            if left_ms > 0 {
                self.cron.next_at_ms = self.cron.next_at_ms.min(self.shard.now_ms + left_ms);
            }
        }
    }

    /// Moves a chunk of the tables to a huge page if these have stopped growing, and schedules the next one.
    fn use_huge_pages(&mut self) {
        let now_ms = self.shard.now_ms;
        self.cron.huge_page_at_ms = now_ms + TURN_INTERVAL_MS_MAX;
        if self.shard.take_growth() {
            self.cron.grown_at_ms = now_ms;
        }
        let commands = self.shard.stats.commands_processed.get();
        let is_idle = commands == std::mem::replace(&mut self.cron.commands_at_huge_page, commands);
        if now_ms - self.cron.grown_at_ms < GROWTH_REST_MS
            || self.globals.is_cron_paused()
            || !is_idle && now_ms < self.cron.huge_page_stall_at_ms
        {
            return;
        }
        // Where other threads have their share of the core, a move that they interrupt must not look like a stall.
        let started = self.time.clock.thread_cpu_nanos();
        if self.shard.back_by_huge_page() {
            let spent_nanos = self.time.clock.thread_cpu_nanos().saturating_sub(started);
            let busy_share = match spent_nanos {
                HUGE_PAGE_STALL_NANOS.. => HUGE_PAGE_SHARE_STALLING,
                _ => HUGE_PAGE_SHARE_BUSY,
            };
            let after = |share: u64| now_ms + (spent_nanos * (share - 1)).div_ceil(1_000_000).max(1) as i64;
            self.cron.huge_page_stall_at_ms = after(busy_share);
            self.cron.huge_page_at_ms = self.cron.huge_page_at_ms.min(after(HUGE_PAGE_SHARE_IDLE));
        }
    }

    fn sample_rates(&mut self) {
        let elapsed_ms = self.shard.now_ms - self.cron.sampled_at_ms;
        if elapsed_ms < SAMPLE_INTERVAL_MS {
            return;
        }
        self.cron.sampled_at_ms = self.shard.now_ms;
        let stats = &self.shard.stats;
        stats.ops_per_sec.set(self.cron.ops.sample(stats.commands_processed.get(), elapsed_ms));
        stats.input_bytes_per_sec.set(self.cron.input.sample(stats.input_bytes.get(), elapsed_ms));
        stats.output_bytes_per_sec.set(self.cron.output.sample(stats.output_bytes.get(), elapsed_ms));
        let repl_output = self.cron.repl_output.sample(stats.repl_output_bytes.get(), elapsed_ms);
        stats.repl_output_bytes_per_sec.set(repl_output);
        // What comes from a master is counted once for all shards.
        if self.shard.index == 0 {
            let bytes = self.globals.link.input_bytes();
            stats.repl_input_bytes_per_sec.set(self.cron.repl_input.sample(bytes, elapsed_ms));
        }
    }

    /// Looks at a share of the connections, so that each is visited once a second: closes idle ones and shrinks unused
    /// buffers.
    fn check_clients(&mut self, interval_ms: i64) {
        let count = self.connections.len();
        if count == 0 {
            return;
        }
        let share = (count as i64 * interval_ms / 1000).max(5.min(count as i64)) as usize;
        let timeout_ms = i64::from(self.shard.config.timeout_s) * 1000;
        for _ in 0..share {
            self.cron.next_client = (self.cron.next_client + 1) % count;
            let at = self.cron.next_client;
            if at == 0 {
                self.shard.stats.clients_bytes.set(std::mem::take(&mut self.cron.walked_bytes));
            }
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            let idle_ms = self.shard.now_ms - connection.client.active_at_ms;
            if timeout_ms > 0
                && idle_ms > timeout_ms
                && connection.stall.is_none()
                && !connection.client.is_replica()
                && !connection.client.is_server
            {
                crate::runtime::log::verbose(format_args!("Closing idle client"));
                self.close_now(at);
                continue;
            }
            if connection.stall != Some(StallReason::Filling) {
                give_query_room_back(connection, idle_ms);
            }
            if self.globals.reply_buffers_resize.load(Ordering::Relaxed) {
                let peak_reset_ms = self.globals.reply_peak_reset_ms.load(Ordering::Relaxed);
                fit_reply_buffer(connection, self.shard.now_ms, peak_reset_ms, &self.shard.stats);
            }
            self.cron.walked_bytes += connection.memory_bytes() as u64;
            self.client_memory.touch(at);
            if connection.sending_bytes > 0 {
                self.check_output_limit(at);
            }
        }
    }

    /// Sleeps until the time that DEBUG SLEEP has set for all shards.
    pub(super) fn wait_out_stall(&mut self) {
        // Not by the shard's clock, which stands still while an append-only file is loaded.
        if let Some(left) = self.globals.stall_left(self.time.clock.wall_ms()) {
            self.time.clock.sleep(left);
            self.shard.set_now(self.time.clock.wall_ms());
            self.time.ticks = self.time.clock.ticks();
        }
    }

    /// Publishes this shard's statistics for other shards. Called once a turn, before replies are sent.
    pub fn publish(&mut self) {
        // Free space in the tables does not count as used memory: INFO shows it in the difference to the allocator's
        // numbers.
        let free_bytes = self.shard.publish();
        let used = self.time.clock.thread_allocated_bytes() - free_bytes as i64;
        self.shard.stats.set_used_memory(used);
        let counted = if self.shard.config.has_maxmemory() { self.counted_memory() } else { used };
        self.shard.stats.set_counted_memory(counted);
        self.shard.stats.replica_output_bytes.set(self.replica_output_bytes());
        let (script_vm_bytes, function_vm_bytes) = self.scripts.vm_bytes();
        self.shard.stats.script_vm_bytes.set(script_vm_bytes as u64);
        self.shard.stats.function_vm_bytes.set(function_vm_bytes as u64);
        self.publish_handoffs();
        let deadline_count = self.blocked.deadline_count();
        if self.shard.stats.clients_with_deadline.get() != deadline_count {
            self.shard.stats.clients_with_deadline.set(deadline_count);
        }
        let waiting_count = self.blocked.waiting_count() + self.shutdowns.len() as u64;
        if !self.paused.is_empty() || self.shard.stats.blocked_clients.get() != waiting_count {
            let paused = self.paused.iter().filter(|&&at| {
                self.connections[at as usize].as_deref().is_some_and(|connection| connection.is_paused())
            });
            self.shard.stats.blocked_clients.set(paused.count() as u64 + waiting_count);
        }
    }

    /// Executes the requests again that CLIENT PAUSE has stalled. Those that are still paused are stalled again.
    pub(super) fn wake_paused(&mut self) {
        for at in std::mem::take(&mut self.paused) {
            let at = at as usize;
            if let Some(connection) = self.connections[at].as_deref()
                && connection.stall == Some(StallReason::Paused)
            {
                self.release_stall(at);
            }
        }
    }
}

/// Frees an idle connection's query buffer, and shrinks a big one to the peak of the recent input.
fn give_query_room_back(connection: &mut Connection, idle_ms: i64) {
    let capacity = connection.query.capacity();
    if connection.query.is_empty() && idle_ms > ACTIVE_MS {
        connection.query = Vec::new();
    } else if capacity > QUERY_BUFFER_KEPT_BYTES && connection.query_peak_bytes < capacity / 2 {
        connection.query.shrink_to(connection.query_peak_bytes);
    }
    connection.query_peak_bytes = connection.query.len();
}

/// Grows or shrinks the capacity for replies by the peak of the output, which is reset every `peak_reset_ms` (negative:
/// never).
fn fit_reply_buffer(connection: &mut Connection, now_ms: i64, peak_reset_ms: i64, stats: &ShardStats) {
    let (room, peak) = (connection.reply_buffer_bytes, connection.reply_peak_bytes);
    if room > REPLY_BUFFER_BYTES_MIN && peak < room / 2 {
        connection.reply_buffer_bytes = REPLY_BUFFER_BYTES_MIN.max(peak + 1);
        stats.reply_buffer_shrinks.add(1);
    } else if room < REPLY_BUFFER_BYTES_MAX && peak >= room {
        connection.reply_buffer_bytes = REPLY_BUFFER_BYTES_MAX.min(room * 2);
        stats.reply_buffer_expands.add(1);
    }
    if peak_reset_ms >= 0 && now_ms - connection.reply_peak_since_ms > peak_reset_ms {
        connection.reply_peak_bytes = connection.out.len();
        connection.reply_peak_since_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Key};
    use crate::client::Client;
    use crate::runtime::clock::Clock;
    use crate::shard::event::Event;
    use crate::types::{NewValue, hash_key};
    use crate::worker::tests::worker_alone;
    use std::time::Duration;

    #[test]
    fn the_room_for_replies_follows_their_length() {
        let stats = ShardStats::new(0, 0);
        let mut connection = Connection::for_test(Client::new(1, 0, true));
        assert_eq!(connection.reply_buffer_bytes(), REPLY_BUFFER_BYTES_MAX);

        // The first call only resets the initial peak; the second one shrinks the buffer.
        fit_reply_buffer(&mut connection, 200, 100, &stats);
        assert_eq!(connection.reply_buffer_bytes(), REPLY_BUFFER_BYTES_MAX);
        fit_reply_buffer(&mut connection, 300, 100, &stats);
        assert_eq!(connection.reply_buffer_bytes(), REPLY_BUFFER_BYTES_MIN);

        connection.reply_peak_bytes = 40_000;
        for _ in 0..4 {
            fit_reply_buffer(&mut connection, 300, -1, &stats);
        }
        assert_eq!(connection.reply_buffer_bytes(), REPLY_BUFFER_BYTES_MAX);
        assert_eq!((stats.reply_buffer_shrinks.get(), stats.reply_buffer_expands.get()), (1, 4));
    }

    #[test]
    fn a_big_query_buffer_shrinks_while_the_client_is_busy_and_goes_when_it_is_idle() {
        let mut connection = Connection::for_test(Client::new(1, 0, true));
        connection.query = Vec::with_capacity(400_000);
        connection.query_peak_bytes = 400_000;

        give_query_room_back(&mut connection, 0);
        assert!(connection.query.capacity() >= 400_000, "it was in use since the last call");
        connection.query_peak_bytes = 5_000;
        give_query_room_back(&mut connection, 0);
        assert!((5_000..100_000).contains(&connection.query.capacity()));
        give_query_room_back(&mut connection, ACTIVE_MS + 1);
        assert_eq!(connection.query.capacity(), 0);
    }

    /// How long it takes, from `GROWTH_REST_MS` after the last growth on, until all chunks of a table were moved to
    /// huge pages, if each move takes `move_nanos` and commands come until `busy_ms`.
    fn moved_after_ms(move_nanos: u64, busy_ms: i64) -> i64 {
        let (mut worker, clock) = worker_alone();
        clock.look_nanos.store(move_nanos, Ordering::Relaxed);
        for key in (0..100_000u32).map(u32::to_le_bytes) {
            let key = Key { bytes: &key, hash: hash_key(&key) };
            worker.shard.set_uncounted(&Call::default(), key, NewValue::Str(&[7; 64]), Event::SET);
        }
        let mut moved_at_ms = 0;
        while clock.wall_ms() < 100_000 {
            let stall_at_ms = worker.cron.huge_page_stall_at_ms;
            worker.before_wait();
            worker.begin_turn();
            worker.shard.stats.commands_processed.add(u64::from(clock.wall_ms() < busy_ms));
            worker.end_turn();
            if worker.cron.huge_page_stall_at_ms != stall_at_ms {
                moved_at_ms = clock.wall_ms();
            }
            clock.sleep(Duration::from_millis(worker.idle_ms().max(1) as u64));
        }
        moved_at_ms - GROWTH_REST_MS
    }

    #[test]
    fn a_table_at_rest_is_moved_to_huge_pages_and_sooner_without_commands() {
        // There are at least three chunks.
        let (idle_ms, busy_ms) = (moved_after_ms(1_000_000, 0), moved_after_ms(1_000_000, 100_000));
        assert!((0..200).contains(&idle_ms), "{idle_ms}");
        assert!((2 * 49..2000).contains(&busy_ms), "{busy_ms}");
        let (idle_ms, busy_ms) = (moved_after_ms(6_000_000, 0), moved_after_ms(6_000_000, 100_000));
        assert!((0..600).contains(&idle_ms), "{idle_ms}");
        assert!((2 * 29_000..).contains(&busy_ms), "{busy_ms}");
        // When no more commands come, the moves continue at once, without waiting for the time set for a busy server.
        let interrupted_ms = moved_after_ms(6_000_000, 5000);
        assert!((3000..3600).contains(&interrupted_ms), "{interrupted_ms}");
    }
}
