//! What time demands of a worker: expiry, idle clients, sampled rates, the end of a pause.

use super::Worker;
use super::connection::Hold;
use std::sync::atomic::Ordering;

/// A worker with nothing to do still takes a turn this often.
pub const TURN_INTERVAL_MS_MAX: i64 = 100;

/// Rates (ops per second) are sampled this often.
const SAMPLE_INTERVAL_MS: i64 = 100;

/// A rate is the mean of this many samples.
const SAMPLES: usize = 16;

#[derive(Default)]
pub(super) struct Cron {
    next_at_ms: i64,
    /// Where the walk over the connections goes on.
    next_client: usize,
    sampled_at_ms: i64,
    ops: Rate,
    input: Rate,
    output: Rate,
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
    /// When the worker wants its next turn even if nothing happens, in milliseconds from now.
    pub fn idle_ms(&self) -> i64 {
        if self.shard.is_freeing() {
            return 0;
        }
        if !self.deferred.is_empty() {
            return 1;
        }
        (self.cron.next_at_ms - self.shard.now_ms).clamp(0, TURN_INTERVAL_MS_MAX)
    }

    pub(super) fn run_cron(&mut self) {
        if self.shard.is_freeing() {
            self.shard.free_slice();
        }
        if !self.paused.is_empty() && self.globals.pause(self.shard.now_ms).is_none() {
            self.wake_paused();
        }
        if self.shard.now_ms < self.cron.next_at_ms {
            return;
        }
        let interval_ms = (1000 / i64::from(self.shard.config.hz.max(1))).clamp(1, TURN_INTERVAL_MS_MAX);
        self.cron.next_at_ms = self.shard.now_ms + interval_ms;
        let used = self.clock.thread_allocated_bytes();
        self.shard.stats.set_used_memory(used);
        if self.shard.index == 0 {
            self.globals.peak_memory_bytes.fetch_max(self.globals.used_memory(), Ordering::Relaxed);
        }
        self.shard.expire_paused = self.globals.pause(self.shard.now_ms).is_some();
        if self.globals.active_expire.load(Ordering::Relaxed) && !self.shard.expire_paused {
            self.shard.run_active_expire(self.clock, interval_ms);
        }
        self.sample_rates();
        self.check_clients(interval_ms);
        if !self.paused.is_empty() {
            let left_ms = self.globals.pause_until_ms() - self.shard.now_ms;
            self.cron.next_at_ms = self.cron.next_at_ms.min(self.shard.now_ms + left_ms.max(1));
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
    }

    /// Looks at a share of the connections, so that each is seen once a second: idle ones are closed, and
    /// buffers of those that have gone quiet are given back.
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
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            let idle_ms = self.shard.now_ms - connection.client.active_at_ms;
            if timeout_ms > 0 && idle_ms > timeout_ms && connection.hold.is_none() {
                crate::runtime::log::verbose(format_args!("Closing idle client"));
                self.close_now(at);
                continue;
            }
            if connection.query.is_empty() && idle_ms > 2000 && connection.hold != Some(Hold::Filling) {
                connection.query = Vec::new();
            }
            if connection.sending_bytes > 0 {
                self.check_output_limit(at);
            }
        }
    }

    /// Lets the clients go on that CLIENT PAUSE held, as far as it does not hold them any more.
    pub(super) fn wake_paused(&mut self) {
        for at in std::mem::take(&mut self.paused) {
            let at = at as usize;
            if let Some(connection) = self.connections[at].as_deref()
                && connection.hold == Some(Hold::Paused)
            {
                self.release_hold(at);
            }
        }
    }
}
