//! The one hash of a key: routed once, carried along, and recomputed only where a segment of a table splits.
//!
//! It is keyed with a seed drawn at start, so that a client cannot choose keys that collide. All shards of a
//! process share the seed, because entries travel between shards and their hash with them. The tables use the
//! high bits for the directory, the low 16 for the bucket and the next 8 for the tag, so all bits must be good.

use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

use ahash::RandomState;

static SEED: OnceLock<RandomState> = OnceLock::new();

/// Hashes a key, in the same way on all shards for the life of the process.
#[inline]
pub fn hash_key(key: &[u8]) -> u64 {
    let mut hasher = SEED.get_or_init(RandomState::new).build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// Fixes the seed, so that a simulated run can be replayed. Answers whether it took effect: it does not once a
/// key has been hashed.
pub fn fix_hash_seed(seed: u64) -> bool {
    SEED.set(RandomState::with_seeds(seed, !seed, seed.rotate_left(21), seed.rotate_left(42))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_that_choose_directory_bucket_and_tag_are_evenly_spread() {
        let key_count = 64 * 1024;
        let mut high = [0u32; 64];
        let mut low = [0u32; 64];
        let mut tag = [0u32; 64];
        for n in 0..key_count {
            let hash = hash_key(format!("key:{n:012}").as_bytes());
            high[(hash >> 58) as usize] += 1;
            low[(hash & 63) as usize] += 1;
            tag[((hash >> 16) & 63) as usize] += 1;
        }
        let expected = f64::from(key_count) / 64.0;
        for counts in [high, low, tag] {
            let chi2: f64 = counts.iter().map(|&seen| (f64::from(seen) - expected).powi(2) / expected).sum();
            // 63 degrees of freedom: beyond 150 lies less than one seed in 10^8.
            assert!(chi2 < 150.0, "chi2 {chi2}");
        }
    }
}
