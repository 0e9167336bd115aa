//! The hash of a key: computed once when its request is routed, passed along, and recomputed only when a segment of a
//! table splits.
//!
//! It is keyed with a seed drawn at start, so that a client cannot choose keys that collide. All shards of a
//! process share the seed, because entries travel between shards and their hash with them. The tables use the
//! high bits for the directory, the low 16 for the bucket and the next 8 for the tag, so all bits must be good.
//!
//! The high bits are uneven on purpose. With evenly spread hashes all segments of a table are equally full and split at
//! about the same time, so the load of the whole table swings by a factor of two as it grows. So hashes are shifted
//! towards the upper end: a hash x, as a fraction of the range, becomes about log2(1 + x), which makes the density
//! double from one end to the other. Then at any time some segments have just split and others are about to, and the
//! index takes as much memory per key at 10 million keys as at 15. (To split each segment at a different length would
//! be no solution: segments that split early waste memory.)

use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use ahash::RandomState;

static SEED: OnceLock<RandomState> = OnceLock::new();

/// Hashes a key, in the same way on all shards for the life of the process.
#[inline]
pub fn hash_key(key: &[u8]) -> u64 {
    KeyHasher::new().hash(key)
}

/// Hashes a string with the same seed, evenly: for the elements of collections.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    KeyHasher::new().hash_evenly(bytes)
}

/// Hashes keys in a loop, each as [`hash_key`] does, but without a call and with one look at the seed.
#[derive(Clone, Copy)]
pub struct KeyHasher(&'static RandomState);

impl KeyHasher {
    #[inline]
    pub fn new() -> KeyHasher {
        KeyHasher(SEED.get_or_init(RandomState::new))
    }

    #[inline(always)]
    pub fn hash(self, key: &[u8]) -> u64 {
        slanted(self.hash_evenly(key))
    }

    #[inline(always)]
    fn hash_evenly(self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Maps an evenly distributed 64-bit number to the distribution of hashes. x + x(1 - x)/3 has the slopes 4/3 and 2/3 at
/// its ends and is close to log2(1 + x).
#[inline]
pub(super) fn slanted(even: u64) -> u64 {
    const THIRD: u64 = u64::MAX / 3;
    let product = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
    even + product(product(even, !even), THIRD)
}

/// Sets the seed, so that a simulated run can be replayed. Returns whether it took effect: it does not once a key has
/// been hashed.
pub fn fix_hash_seed(seed: u64) -> bool {
    SEED.set(RandomState::with_seeds(seed, !seed, seed.rotate_left(21), seed.rotate_left(42))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "statistics of many hashes, and nothing unsafe")]
    fn the_bits_that_choose_bucket_and_tag_are_even_and_those_of_the_directory_double() {
        let key_count = 64 * 1024;
        let mut high = [0u32; 64];
        let mut low = [0u32; 64];
        let mut tag = [0u32; 64];
        for n in 0..key_count {
            let hash = hash_key(format!("key:{n:012}").as_bytes());
            high[(hash >> 58) as usize] += 1;
            low[((hash & 0xffff) >> 10) as usize] += 1;
            tag[((hash >> 16) & 63) as usize] += 1;
        }
        let even = |_| f64::from(key_count) / 64.0;
        let doubling = |at: usize| {
            f64::from(key_count) * (2f64.powf((at + 1) as f64 / 64.0) - 2f64.powf(at as f64 / 64.0))
        };
        let chi2 = |counts: [u32; 64], expected: &dyn Fn(usize) -> f64| -> f64 {
            let terms = counts.iter().enumerate();
            terms.map(|(at, &seen)| (f64::from(seen) - expected(at)).powi(2) / expected(at)).sum()
        };
        // 63 degrees of freedom: beyond 150 lies less than one seed in 10^8. The slant is an approximation.
        assert!(chi2(low, &even) < 150.0, "low {low:?}");
        assert!(chi2(tag, &even) < 150.0, "tag {tag:?}");
        assert!(chi2(high, &doubling) < 400.0, "high {high:?} {}", chi2(high, &doubling));
    }

    #[test]
    fn keys_hash_alike_in_a_loop_and_one_by_one() {
        let hasher = KeyHasher::new();
        let long = [7; 100];
        assert!((0..long.len()).all(|len| hasher.hash(&long[..len]) == hash_key(&long[..len])));
    }

    #[test]
    fn the_slant_keeps_the_order_and_both_ends() {
        assert_eq!((slanted(0), slanted(u64::MAX)), (0, u64::MAX));
        let step = u64::MAX / 1000;
        assert!((0..1000).all(|at| slanted(at * step) < slanted((at + 1) * step)));
    }
}
