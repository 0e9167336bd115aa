//! From a histogram of the registers to the number of elements: Otmar Ertl, "New cardinality estimation algorithms for
//! HyperLogLog sketches" (2017), section 4, the improved raw estimator. It needs no table of corrections and is exact
//! enough over the whole range.

use crate::hash::PATTERN_BITS;
use crate::registers::{Histogram, REGISTER_COUNT};

/// 1 / (2 ln 2).
const ALPHA_INFINITY: f64 = 0.721_347_520_444_481_7;

/// The number of different elements, rounded. Registers above the greatest value that an element can give count as empty
/// of information, as in Redis.
pub fn cardinality(histogram: &Histogram) -> u64 {
    let count = REGISTER_COUNT as f64;
    let saturated = f64::from(histogram[PATTERN_BITS as usize + 1]);
    let mut sum = count * tau((count - saturated) / count);
    for value in (1..=PATTERN_BITS as usize).rev() {
        sum = (sum + f64::from(histogram[value])) * 0.5;
    }
    sum += count * sigma(f64::from(histogram[0]) / count);
    (ALPHA_INFINITY * count * count / sum).round() as u64
}

/// x + x^2 + 2 x^4 + 4 x^8 + ..., until it no longer grows.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let mut factor = 1.0;
    let mut sum = x;
    loop {
        x *= x;
        let before = sum;
        sum += x * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

/// (1 - x - (1 - x^(1/2))^2 / 2 - (1 - x^(1/4))^2 / 4 - ...) / 3, until it no longer shrinks.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let mut factor = 1.0;
    let mut sum = 1.0 - x;
    loop {
        x = x.sqrt();
        let before = sum;
        factor *= 0.5;
        sum -= (1.0 - x).powi(2) * factor;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    #[test]
    fn nothing_counts_as_nothing_and_full_registers_as_endless() {
        let mut histogram = [0; 64];
        histogram[0] = REGISTER_COUNT as u32;
        assert_eq!(cardinality(&histogram), 0);
        histogram = [0; 64];
        histogram[PATTERN_BITS as usize + 1] = REGISTER_COUNT as u32;
        assert_eq!(cardinality(&histogram), u64::MAX);
    }

    #[test]
    fn the_error_stays_within_three_standard_errors() {
        let mut registers = [0u8; REGISTER_COUNT];
        let mut added = 0u32;
        for target in [1u32, 10, 100, 1000, 10_000, 100_000, 1_000_000] {
            while added < target {
                let (index, value) = hash::place(&added.to_be_bytes());
                registers[index] = registers[index].max(value);
                added += 1;
            }
            let mut histogram = [0; 64];
            registers.iter().for_each(|value| histogram[*value as usize] += 1);
            let error = (cardinality(&histogram) as f64 - f64::from(target)).abs();
            let allowed = 3.0 * 1.04 / 128.0 * f64::from(target);
            assert!(error <= allowed, "{target}: off by {error}");
        }
    }
}
