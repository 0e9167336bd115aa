//! Random numbers of a printed seed.

use std::hash::{BuildHasher, RandomState};

/// xorshift64*.
pub struct Random(u64);

impl Random {
    /// With a fresh seed, or the one in the environment's SEED; prints it.
    pub fn new(test: &str) -> Random {
        let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("{test}: SEED={seed}");
        Random(seed | 1)
    }

    /// Any 64 bits.
    pub fn any(&mut self) -> i64 {
        (self.below(1 << 32) << 32 | self.below(1 << 32)) as i64
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 31) % bound
    }
}
