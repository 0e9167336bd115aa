//! Random input for unit tests, the same again for the same seed.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64.
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs `test` with a fresh seed, or with `SHARDIS_TEST_SEED`; a failure is told with its seed.
pub(crate) fn with_seed(test: impl FnOnce(&mut Rng)) {
    struct TellSeed(u64);
    impl Drop for TellSeed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("again with SHARDIS_TEST_SEED={}", self.0);
            }
        }
    }
    let seed = match std::env::var("SHARDIS_TEST_SEED") {
        Ok(seed) => seed.parse().expect("SHARDIS_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one("seed"),
    };
    let _tell_seed = TellSeed(seed);
    test(&mut Rng::new(seed));
}
