//! How long calls of a command take: a histogram of each command on each shard, and the sum over all shards.
//!
//! Its buckets are those of the HDR histogram that Redis keeps (1 ns to 1 s, two significant digits): one for each
//! nanosecond up to 255, and from there 128 for each power of two. So LATENCY HISTOGRAM and INFO latencystats show what
//! Redis shows. A crate's histogram would do for the sum, but the counters themselves are written by one thread and read
//! by others, without a lock.

use super::stats::Counter;
use std::array;
use std::sync::OnceLock;

/// How many buckets a power of two has.
const OCTAVE_LEN: usize = 128;
/// The first octave is `0..128` nanoseconds; the last one begins at 2^29 nanoseconds.
const OCTAVES: usize = 24;
const BUCKETS: usize = OCTAVES * OCTAVE_LEN;

const NANOS_MIN: u64 = 1;
/// What takes longer counts as this.
const NANOS_MAX: u64 = 1_000_000_000;

const _: () = assert!(bucket_of(NANOS_MAX) < BUCKETS && bucket_of(NANOS_MAX) >= BUCKETS - OCTAVE_LEN);

/// By how many bits the latencies of a bucket may differ.
const fn shift_of(bucket: usize) -> u32 {
    (bucket / OCTAVE_LEN).saturating_sub(1) as u32
}

#[inline]
const fn bucket_of(nanos: u64) -> usize {
    let shift = u64::BITS - 8 - (nanos | 255).leading_zeros();
    shift as usize * OCTAVE_LEN + (nanos >> shift) as usize
}

/// The lowest latency of a bucket, in nanoseconds.
const fn bucket_start(bucket: usize) -> u64 {
    let shift = shift_of(bucket);
    ((bucket - shift as usize * OCTAVE_LEN) as u64) << shift
}

/// The highest latency of a bucket, in nanoseconds.
const fn bucket_last(bucket: usize) -> u64 {
    bucket_start(bucket) + (1 << shift_of(bucket)) - 1
}

/// Latencies of one command on one shard. An octave takes memory from its first call on.
pub struct LatencyHistogram([OnceLock<Box<[Counter; OCTAVE_LEN]>>; OCTAVES]);

impl LatencyHistogram {
    pub(super) fn new() -> LatencyHistogram {
        LatencyHistogram([const { OnceLock::new() }; OCTAVES])
    }

    fn octave(&self, octave: usize) -> &[Counter; OCTAVE_LEN] {
        self.0[octave].get_or_init(|| Box::new(array::from_fn(|_| Counter::default())))
    }

    /// Records so many calls that have each taken `nanos`.
    #[inline]
    pub(super) fn record(&self, count: u64, nanos: u64) {
        let bucket = bucket_of(nanos.clamp(NANOS_MIN, NANOS_MAX));
        self.octave(bucket / OCTAVE_LEN)[bucket % OCTAVE_LEN].add(count);
    }

    fn counters(&self) -> impl Iterator<Item = (usize, &Counter)> {
        let octaves = self.0.iter().enumerate();
        octaves.filter_map(|(octave, counters)| Some((octave, counters.get()?))).flat_map(
            |(octave, counters)| {
                counters.iter().enumerate().map(move |(at, counter)| (octave * OCTAVE_LEN + at, counter))
            },
        )
    }

    /// Counts on from where another has come to. Nothing was counted here yet.
    pub(super) fn continue_from(&self, other: &LatencyHistogram) {
        for (bucket, counter) in other.counters().filter(|(_, counter)| counter.get() > 0) {
            self.octave(bucket / OCTAVE_LEN)[bucket % OCTAVE_LEN].set(counter.get());
        }
    }

    pub(super) fn reset(&self) {
        self.counters().for_each(|(_, counter)| counter.set(0));
    }
}

/// Latencies of one command, as counted by one shard or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyCounts {
    /// By bucket.
    counts: Vec<u64>,
    total: u64,
}

impl LatencyCounts {
    /// The sum of histograms; `None` if there was no call.
    pub fn of<'a>(histograms: impl Iterator<Item = &'a LatencyHistogram>) -> Option<LatencyCounts> {
        let mut sum = LatencyCounts { counts: Vec::new(), total: 0 };
        for (bucket, counter) in histograms.flat_map(LatencyHistogram::counters) {
            if sum.counts.is_empty() {
                sum.counts.resize(BUCKETS, 0);
            }
            sum.counts[bucket] += counter.get();
            sum.total += counter.get();
        }
        (sum.total > 0).then_some(sum)
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency at or below which `percentile` percent of the calls lie, in nanoseconds: the highest one of its bucket,
    /// or, for 0, the lowest one.
    pub fn percentile_nanos(&self, percentile: f64) -> u64 {
        let rank = ((percentile.min(100.0) / 100.0 * self.total as f64 + 0.5) as u64).max(1);
        let mut passed = 0;
        let is_it = |&(_, &count): &(usize, &u64)| {
            passed += count;
            passed >= rank
        };
        let (bucket, _) = self.counts.iter().enumerate().find(is_it).expect("the rank is within the total");
        if percentile == 0.0 { bucket_start(bucket) } else { bucket_last(bucket) }
    }

    /// The cumulative distribution: after each power of two from 1024 ns on, the bucket's latency in microseconds, and how
    /// many calls took no longer. Where no call was added, there is none.
    pub fn distribution(&self) -> Vec<(u64, u64)> {
        let mut distribution = Vec::new();
        let (mut passed, mut shown) = (0, 0);
        let mut level = 1024;
        for (bucket, count) in self.counts.iter().enumerate() {
            passed += count;
            // A level's own bucket counts to it, as in Redis.
            let is_level = bucket_start(bucket) == level;
            if is_level {
                level *= 2;
            }
            if (is_level || bucket + 1 == BUCKETS) && passed > shown {
                shown = passed;
                distribution.push((bucket_last(bucket) / 1000, passed));
            }
        }
        distribution
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(latencies: &[(u64, u64)]) -> LatencyCounts {
        let histogram = LatencyHistogram::new();
        latencies.iter().for_each(|&(nanos, count)| histogram.record(count, nanos));
        LatencyCounts::of([&histogram].into_iter()).expect("there are calls")
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        assert_eq!((bucket_start(0), bucket_last(255)), (0, 255));
        for bucket in 1..BUCKETS {
            assert_eq!(bucket_start(bucket), bucket_last(bucket - 1) + 1, "{bucket}");
            for nanos in [bucket_start(bucket), bucket_last(bucket)] {
                assert_eq!(bucket_of(nanos), bucket, "{nanos}");
            }
            // Two significant digits.
            assert!(bucket_last(bucket) - bucket_start(bucket) <= bucket_start(bucket) / 100, "{bucket}");
        }
    }

    #[test]
    fn a_percentile_is_the_end_of_the_bucket_it_falls_in() {
        let of_100 = counts(&[(3, 99), (1030, 1)]);
        let percentiles = [0.0, 1.0, 50.0, 99.0, 99.4, 99.5, 100.0, 200.0];
        assert_eq!(
            percentiles.map(|percentile| of_100.percentile_nanos(percentile)),
            [3, 3, 3, 3, 3, 1031, 1031, 1031]
        );
        assert_eq!(counts(&[(1030, 1)]).percentile_nanos(0.0), 1024);
    }

    #[test]
    fn what_takes_no_time_or_too_long_counts_as_the_least_and_the_longest() {
        let both = counts(&[(0, 1), (u64::MAX, 1)]);
        assert_eq!((both.percentile_nanos(0.0), both.percentile_nanos(100.0)), (1, 1_002_438_655));
    }

    /// The figures of hdr_histogram's logarithmic iteration.
    #[test]
    fn the_distribution_has_a_step_for_each_power_of_two_with_calls() {
        assert_eq!(counts(&[(1, 1)]).distribution(), [(1, 1)]);
        assert_eq!(counts(&[(1031, 1), (1032, 1), (2047, 1)]).distribution(), [(1, 1), (2, 3)]);
        assert_eq!(counts(&[(30_000, 2), (33_100, 1)]).distribution(), [(33, 2), (66, 3)]);
        assert_eq!(counts(&[(500, 1), (u64::MAX, 4)]).distribution(), [(1, 1), (1_073_741, 5)]);
        assert_eq!(counts(&[(50_100_000, 1)]).distribution(), [(67_633, 1)]);
    }

    #[test]
    fn shards_add_up_and_a_reset_leaves_nothing() {
        let (one, other) = (LatencyHistogram::new(), LatencyHistogram::new());
        one.record(3, 5000);
        other.record(1, 5000);
        other.record(1, 70);
        let sum = LatencyCounts::of([&one, &other].into_iter()).expect("there are calls");
        assert_eq!((sum.total(), sum.percentile_nanos(1.0)), (5, 70));

        let heir = LatencyHistogram::new();
        heir.continue_from(&other);
        assert_eq!(LatencyCounts::of([&heir].into_iter()), LatencyCounts::of([&other].into_iter()));

        one.reset();
        assert_eq!(LatencyCounts::of([&one].into_iter()), None);
    }
}
