//! Random numbers for tests, by a seed that is printed.

use std::time::SystemTime;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// By the seed in GEO_SEED, or a new one.
    pub fn fresh(test: &str) -> Self {
        let given = std::env::var("GEO_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.map_or(1, |since| since.as_nanos() as u64)
        });
        println!("{test}: GEO_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// 0 to end - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// In 0.0..1.0.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
