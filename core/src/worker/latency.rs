//! The latency monitor: what has taken long lately (`latency-monitor-threshold`, LATENCY).
//!
//! Samples of all shards, and of the thread that writes the append-only file, make one series for each event, so LATENCY
//! shows one view of the server. As in Redis a series keeps the worst sample of each of the last [`SAMPLES_MAX`] seconds in
//! which there were any. The series are locked only for what has exceeded the threshold; whether a command has is known from
//! the comparison that the slow log needs anyway.
//!
//! # Events
//!
//! Of Redis' events there are those that can be slow here:
//!
//! | event | what has taken long |
//! |---|---|
//! | `command`, `fast-command` | a command that is not, or is, among the fast ones; of a program also each command that it calls |
//! | `command-unblocking` | serving a client that was blocked |
//! | `expire-cycle` | removing expired keys, each time within a bounded share of the shard's time |
//! | `eviction-cycle` | removing keys to make room, each time within the bounds of `maxmemory-eviction-tenacity` |
//! | `aof-write`, and one of `aof-write-pending-fsync`, `-active-child`, `-alone` | a write to the append-only file, while it is being synchronized, while a snapshot is written, or otherwise |
//! | `aof-fsync-always` | its synchronization with `appendfsync always` |
//! | `aof-rename` | putting a new base and the manifest in place |
//! | any other | what modules measure |
//!
//! There are no others. `fork` and `while-blocked-cron`: no process forks, and no shard stops its periodic work for a script
//! or a save. `eviction-del`, `eviction-lazyfree`, `expire-del`: the memory of big values is always freed in slices, after
//! the command or the cycle. `aof-fstat`: the writer knows its file's length. `rdb-unlink-temp-file`: nobody waits for the
//! thread that does it. `active-defrag-cycle`: there is none. `module-acquire-GIL`: a module's command waits for its turn
//! without holding up its shard.

use crate::command::Call;
use crate::command::table::{CommandEntry, flag};
use crate::protocol::Argv;
use crate::runtime::clock::Clock;
use crate::worker::Worker;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many samples an event keeps.
pub const SAMPLES_MAX: usize = 160;

/// How many events there can be. The number is bounded because modules can name any.
const EVENTS_MAX: usize = 1024;

/// The names of the server's own events.
pub mod event {
    pub const COMMAND: &str = "command";
    pub const FAST_COMMAND: &str = "fast-command";
    pub const COMMAND_UNBLOCKING: &str = "command-unblocking";
    pub const EXPIRE_CYCLE: &str = "expire-cycle";
    pub const EVICTION_CYCLE: &str = "eviction-cycle";
    pub const AOF_WRITE: &str = "aof-write";
    pub const AOF_WRITE_PENDING_FSYNC: &str = "aof-write-pending-fsync";
    pub const AOF_WRITE_ACTIVE_CHILD: &str = "aof-write-active-child";
    pub const AOF_WRITE_ALONE: &str = "aof-write-alone";
    pub const AOF_FSYNC_ALWAYS: &str = "aof-fsync-always";
    pub const AOF_RENAME: &str = "aof-rename";
}

/// The worst of one second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Unix time.
    pub at_s: i64,
    pub latency_ms: u64,
}

/// The samples of one event, the oldest first. It has at least one.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Series {
    pub samples: VecDeque<Sample>,
    /// Since the last reset.
    pub latency_max_ms: u64,
}

impl Series {
    fn add(&mut self, sample: Sample) {
        self.latency_max_ms = self.latency_max_ms.max(sample.latency_ms);
        if let Some(last) = self.samples.back_mut().filter(|last| last.at_s == sample.at_s) {
            last.latency_ms = last.latency_ms.max(sample.latency_ms);
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

/// The series of all events, which all threads share.
#[derive(Default)]
pub struct LatencyMonitor {
    /// latency-monitor-threshold; 0: it is off.
    threshold_ms: AtomicU64,
    series: Mutex<BTreeMap<Vec<u8>, Series>>,
}

impl LatencyMonitor {
    pub fn set_threshold_ms(&self, threshold_ms: u64) {
        self.threshold_ms.store(threshold_ms, Ordering::Relaxed);
    }

    /// Records that something has taken so many milliseconds, if that is as long as the threshold.
    pub fn sample(&self, event: &str, latency_ms: u64, clock: &dyn Clock) {
        let threshold_ms = self.threshold_ms.load(Ordering::Relaxed);
        if threshold_ms > 0 && latency_ms >= threshold_ms {
            self.add(event.as_bytes(), latency_ms, clock);
        }
    }

    /// What a module has measured. As in Redis, all of it is recorded while the monitor is off.
    pub fn sample_of_module(&self, event: &[u8], latency_ms: u64, clock: &dyn Clock) {
        if latency_ms >= self.threshold_ms.load(Ordering::Relaxed) {
            self.add(event, latency_ms, clock);
        }
    }

    fn add(&self, event: &[u8], latency_ms: u64, clock: &dyn Clock) {
        let sample = Sample { at_s: clock.wall_ms() / 1000, latency_ms };
        let mut series = self.lock();
        if let Some(series) = series.get_mut(event) {
            series.add(sample);
        } else if series.len() < EVENTS_MAX {
            series.entry(event.to_vec()).or_default().add(sample);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The samples of an event, if there are any.
    pub fn series(&self, event: &[u8]) -> Option<Series> {
        self.lock().get(event).cloned()
    }

    /// All events, by name.
    pub fn all(&self) -> Vec<(Vec<u8>, Series)> {
        self.lock().iter().map(|(event, series)| (event.clone(), series.clone())).collect()
    }

    /// Forgets events for which `is_it` holds. Returns how many there were.
    pub fn reset(&self, is_it: impl Fn(&[u8]) -> bool) -> usize {
        let mut series = self.lock();
        let before = series.len();
        series.retain(|event, _| !is_it(event));
        before - series.len()
    }
}

impl Worker {
    /// Takes over what the configuration says of what is slow.
    pub(super) fn track_slowness(&mut self) {
        let config = &self.shard.config;
        let threshold_ms = config.latency_monitor_threshold_ms as u64;
        self.globals.latency.set_threshold_ms(threshold_ms);
        let slower_than_us = config.slowlog_log_slower_than_us;
        self.time.slow_from_nanos =
            u64::try_from(slower_than_us).map_or(u64::MAX, |us| us.saturating_mul(1000));
        let late_from_nanos = match threshold_ms {
            0 => u64::MAX,
            _ => threshold_ms.saturating_mul(1_000_000),
        };
        self.time.noted_from_nanos = self.time.slow_from_nanos.min(late_from_nanos);
    }

    /// To be called for a command that has taken as long as [`Timing::noted_from_nanos`](super::timing::Timing): for the
    /// latency monitor, and for the slow log.
    #[cold]
    pub(super) fn note_slow(&mut self, args: Argv<'_>, nanos: u64, call: &Call, entry: &CommandEntry) {
        self.note_late(nanos, entry);
        self.note_for_slowlog(args, nanos, call, entry);
    }

    /// The same for the latency monitor alone, for what does not go to the slow log.
    #[cold]
    pub(super) fn note_late(&self, nanos: u64, entry: &CommandEntry) {
        let event = if entry.row.has(flag::FAST) { event::FAST_COMMAND } else { event::COMMAND };
        self.sample_latency(event, nanos);
    }

    /// Records how long something has taken on this shard, if that is long.
    pub(super) fn sample_latency(&self, event: &str, nanos: u64) {
        self.globals.latency.sample(event, nanos / 1_000_000, self.time.clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(series: &Series) -> Vec<(i64, u64)> {
        series.samples.iter().map(|sample| (sample.at_s, sample.latency_ms)).collect()
    }

    #[test]
    fn a_series_has_the_worst_of_each_second_and_forgets_the_oldest() {
        let mut series = Series::default();
        for (at_s, latency_ms) in [(10, 5), (10, 7), (10, 6), (12, 3)] {
            series.add(Sample { at_s, latency_ms });
        }
        assert_eq!((samples(&series), series.latency_max_ms), (vec![(10, 7), (12, 3)], 7));

        for at_s in 100..100 + SAMPLES_MAX as i64 - 1 {
            series.add(Sample { at_s, latency_ms: 1 });
        }
        assert_eq!(
            (series.samples.len(), samples(&series)[0], series.latency_max_ms),
            (SAMPLES_MAX, (12, 3), 7)
        );
    }
}
