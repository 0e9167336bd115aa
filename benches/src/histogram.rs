//! Log-linear histogram of latencies: 128 linear steps in every power of two, so a quantile is at most 0.8 % high,
//! recording is a shift and an increment, and merging is an addition. The idea is HdrHistogram's.

/// Steps to a power of two, as a power of two. Values under twice that are exact.
const STEP_BITS: u32 = 7;
const STEPS: usize = 1 << STEP_BITS;
/// Values from 2^VALUE_BITS on are counted as the largest one: 18 minutes in nanoseconds.
const VALUE_BITS: u32 = 40;
const BUCKETS: usize = (VALUE_BITS - STEP_BITS + 1) as usize * STEPS;

#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

#[inline]
fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    // The number of low bits that the bucket does not tell apart.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    ((shift as usize) << STEP_BITS) + (value >> shift) as usize
}

/// The largest value that falls into `bucket`.
fn highest_of(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = (bucket >> STEP_BITS) - 1;
    let step = (bucket - (shift << STEP_BITS)) as u64;
    ((step + 1) << shift) - 1
}

impl Histogram {
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket_of(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest value recorded, exactly; 0 when empty.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that at least the share `quantile` (0..=1) of the records does not exceed; 0 when empty.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = ((self.total as f64 * quantile).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    #[test]
    fn every_value_lies_in_a_bucket_whose_highest_value_is_at_most_one_step_away() {
        let mut previous = None;
        for bucket in 0..BUCKETS {
            let highest = highest_of(bucket);
            assert_eq!(bucket_of(highest), bucket);
            if let Some(previous) = previous {
                assert_eq!(bucket_of(previous + 1), bucket, "no gap after {previous}");
            }
            previous = Some(highest);
        }
        assert_eq!(previous, Some((1 << VALUE_BITS) - 1));
    }

    #[test]
    fn quantiles_agree_with_a_sorted_list() {
        let mut rng = Rng::with_seed(7);
        let mut histogram = Histogram::default();
        let mut values: Vec<u64> = (0..10_000).map(|_| rng.u64(..) >> (24 + rng.u64(..36))).collect();
        values.iter().for_each(|&value| histogram.record(value));
        values.sort_unstable();
        for quantile in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((values.len() as f64 * quantile).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let got = histogram.quantile(quantile);
            assert!(got >= exact, "quantile {quantile}: {got} < {exact}");
            assert!(got as f64 <= exact as f64 * 1.008 + 1.0, "quantile {quantile}: {got} for {exact}");
        }
        assert_eq!(histogram.max(), *values.last().unwrap());
    }

    #[test]
    fn merging_is_recording_both() {
        let (mut left, mut right, mut both) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for value in 0..5_000u64 {
            if value % 3 == 0 { &mut left } else { &mut right }.record(value * 37);
            both.record(value * 37);
        }
        left.merge(&right);
        assert_eq!(left.counts, both.counts);
        assert_eq!((left.count(), left.max()), (both.count(), both.max()));
    }

    #[test]
    fn an_empty_histogram_says_zero_and_a_huge_value_is_kept() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max(), histogram.count()), (0, 0, 0));
        histogram.record(u64::MAX);
        assert_eq!(
            (histogram.max(), histogram.count(), histogram.quantile(0.5)),
            (u64::MAX, 1, (1 << VALUE_BITS) - 1)
        );
    }
}
