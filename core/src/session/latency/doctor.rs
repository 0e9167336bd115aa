//! LATENCY DOCTOR: the events in figures, and advice by what they are.

use crate::config::{AppendFsync, Config};
use crate::worker::latency::{Sample, Series, event};
use std::io::Write;

/// What may help; shown in this order, each once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Advice {
    SlowlogOn,
    SlowlogFiner,
    SlowlogLook,
    Scheduler,
    LocalDisk,
    DiskContention,
    NoFsyncOnRewrite,
    RelaxFsync,
    Hz,
    Eviction,
}

impl Advice {
    fn text(self, config: &Config) -> String {
        let threshold_us = config.latency_monitor_threshold_ms.saturating_mul(1000);
        match self {
            Advice::SlowlogOn => format!(
                "The slow log is off, so it is not known which commands were slow: CONFIG SET \
                 slowlog-log-slower-than {threshold_us} turns it on."
            ),
            Advice::SlowlogFiner => format!(
                "The slow log has only what is slower than some of these events: CONFIG SET \
                 slowlog-log-slower-than {threshold_us} lets it have all of them."
            ),
            Advice::SlowlogLook => {
                "SLOWLOG GET shows which commands were slow. Those over many elements hold up their shard: use \
                 them on smaller values, or in portions (SCAN instead of KEYS)."
                    .to_owned()
            }
            Advice::Scheduler => {
                "Even commands that take constant time were slow, so the system did not let the server run: see \
                 whether the machine has more to do than it has processors for, whether it swaps, whether there \
                 are more shards than processors, and what `redis-cli --intrinsic-latency 100` measures on it."
                    .to_owned()
            }
            Advice::LocalDisk => {
                "The disk is slow: the append-only file belongs on a local disk, best on an SSD.".to_owned()
            }
            Advice::DiskContention => {
                "The disk is busy with other work: see which other processes use it.".to_owned()
            }
            Advice::NoFsyncOnRewrite => {
                "Writes were slow while a snapshot was written: if it may cost some seconds of changes in a crash, \
                 CONFIG SET no-appendfsync-on-rewrite yes keeps the two apart."
                    .to_owned()
            }
            Advice::RelaxFsync => {
                "With appendfsync always each reply to a change waits for the disk. With everysec none does."
                    .to_owned()
            }
            Advice::Hz => format!(
                "Many keys expire at the same time. CONFIG SET hz 100 (now {}) removes them in smaller portions.",
                config.hz
            ),
            Advice::Eviction => {
                "Memory is full, and much has to be evicted at once. That comes from a lower maxmemory, or from \
                 commands that make big values."
                    .to_owned()
            }
        }
    }
}

/// What an event suggests.
fn advice_for(event: &[u8], config: &Config) -> Vec<Advice> {
    const SLOW_COMMAND: &[u8] = event::COMMAND.as_bytes();
    let named = |name: &str| event == name.as_bytes();
    if event == SLOW_COMMAND || named(event::COMMAND_UNBLOCKING) {
        let slowlog = match config.slowlog_log_slower_than_us {
            ..0 => Some(Advice::SlowlogOn),
            us if us / 1000 > config.latency_monitor_threshold_ms => Some(Advice::SlowlogFiner),
            _ => None,
        };
        return slowlog.into_iter().chain([Advice::SlowlogLook]).collect();
    }
    if named(event::FAST_COMMAND) {
        return vec![Advice::Scheduler];
    }
    if named(event::AOF_WRITE_PENDING_FSYNC) {
        return vec![Advice::LocalDisk, Advice::DiskContention];
    }
    if named(event::AOF_WRITE_ACTIVE_CHILD) {
        return vec![Advice::LocalDisk, Advice::NoFsyncOnRewrite];
    }
    if named(event::AOF_WRITE_ALONE) || named(event::AOF_RENAME) {
        return vec![Advice::LocalDisk];
    }
    if named(event::AOF_FSYNC_ALWAYS) && config.appendfsync == AppendFsync::Always {
        return vec![Advice::RelaxFsync];
    }
    if named(event::EXPIRE_CYCLE) && config.hz < 100 {
        return vec![Advice::Hz];
    }
    if named(event::EVICTION_CYCLE) {
        return vec![Advice::Eviction];
    }
    Vec::new()
}

/// The samples of an event in figures.
#[derive(PartialEq, Debug)]
struct Figures {
    count: u64,
    mean_ms: u64,
    /// Of the samples from their mean, on average.
    mean_deviation_ms: u64,
    /// Seconds from the oldest sample until now, for each sample.
    period_s: f64,
}

impl Figures {
    fn of(series: &Series, now_s: i64) -> Figures {
        let count = series.samples.len().max(1) as u64;
        let latencies = || series.samples.iter().map(|sample| sample.latency_ms);
        let mean_ms = latencies().sum::<u64>() / count;
        let mean_deviation_ms =
            latencies().map(|latency_ms| latency_ms.abs_diff(mean_ms)).sum::<u64>() / count;
        let since_s = series.samples.front().map_or(0, |&Sample { at_s, .. }| now_s - at_s);
        Figures { count, mean_ms, mean_deviation_ms, period_s: since_s.max(1) as f64 / count as f64 }
    }
}

/// The text of LATENCY DOCTOR. The line of an event has Redis' form.
pub(super) fn report(events: &[(Vec<u8>, Series)], config: &Config, now_s: i64) -> Vec<u8> {
    if events.is_empty() {
        let text: &[u8] = match config.latency_monitor_threshold_ms {
            0 => {
                b"The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> has it record \
                  whatever takes as long as that.\n"
            }
            _ => b"Nothing has taken as long as latency-monitor-threshold since the monitor was turned on or reset.\n",
        };
        return text.to_vec();
    }

    let mut report = b"These have taken long:\n\n".to_vec();
    let mut advices = Vec::new();
    for (number, (event, series)) in (1..).zip(events) {
        let Figures { count, mean_ms, mean_deviation_ms, period_s } = Figures::of(series, now_s);
        write!(report, "{number}. ").expect("memory takes all");
        report.extend_from_slice(event);
        let worst_ms = series.latency_max_ms;
        writeln!(
            report,
            ": {count} latency spikes (average {mean_ms}ms, mean deviation {mean_deviation_ms}ms, period \
             {period_s:.2} sec). Worst all time event {worst_ms}ms."
        )
        .expect("memory takes all");
        advices.extend(advice_for(event, config));
    }
    advices.sort_unstable();
    advices.dedup();
    if !advices.is_empty() {
        report.extend_from_slice(b"\nThis may help:\n\n");
    }
    for advice in advices {
        writeln!(report, "- {}", advice.text(config)).expect("memory takes all");
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[(i64, u64)]) -> Series {
        let latency_max_ms = samples.iter().map(|&(_, latency_ms)| latency_ms).max().unwrap_or(0);
        let samples = samples.iter().map(|&(at_s, latency_ms)| Sample { at_s, latency_ms });
        Series { samples: samples.collect(), latency_max_ms }
    }

    fn config(threshold_ms: i64) -> Config {
        Config { latency_monitor_threshold_ms: threshold_ms, ..Config::default() }
    }

    fn report_of(events: &[(&str, &[(i64, u64)])], config: &Config) -> String {
        let events: Vec<(Vec<u8>, Series)> =
            events.iter().map(|(event, samples)| (event.as_bytes().to_vec(), series(samples))).collect();
        String::from_utf8(report(&events, config, 1000)).expect("a report is text")
    }

    #[test]
    fn without_samples_it_says_whether_the_monitor_is_on() {
        assert!(report_of(&[], &config(0)).starts_with("The latency monitor is off."));
        assert!(report_of(&[], &config(5)).starts_with("Nothing has taken"));
    }

    #[test]
    fn an_event_is_shown_in_figures_with_advice() {
        let report = report_of(
            &[("command", &[(900, 300), (950, 400), (999, 500)]), ("of-a-module", &[(1000, 7)])],
            &config(20),
        );
        let line = "1. command: 3 latency spikes (average 400ms, mean deviation 66ms, period 33.33 sec). Worst all \
                    time event 500ms.\n";
        assert!(report.contains(line), "{report}");
        assert!(
            report.contains(
                "2. of-a-module: 1 latency spikes (average 7ms, mean deviation 0ms, period 1.00 sec)"
            )
        );
        assert!(report.contains("- SLOWLOG GET shows"), "{report}");
        assert!(!report.contains("slowlog-log-slower-than"), "{report}");
    }

    #[test]
    fn advice_depends_on_the_configuration_and_is_given_once() {
        let events: &[(&str, &[(i64, u64)])] = &[
            ("aof-fsync-always", &[(1, 9)]),
            ("aof-write-alone", &[(1, 9)]),
            ("aof-rename", &[(1, 9)]),
            ("command", &[(1, 9)]),
            ("expire-cycle", &[(1, 9)]),
        ];
        let report = report_of(events, &config(5));
        assert!(report.contains("slowlog-log-slower-than 5000 lets"), "{report}");
        assert!(report.contains("CONFIG SET hz 100 (now 10)"), "{report}");
        assert!(!report.contains("appendfsync always"), "{report}");
        assert_eq!(report.matches("local disk").count(), 1, "{report}");

        let other =
            Config { slowlog_log_slower_than_us: -1, appendfsync: AppendFsync::Always, hz: 100, ..config(5) };
        let report = report_of(events, &other);
        assert!(report.contains("The slow log is off"), "{report}");
        assert!(report.contains("appendfsync always") && !report.contains("CONFIG SET hz"), "{report}");
    }
}
