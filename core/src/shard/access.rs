//! The 24 bits in which a key stores its last accesses, for OBJECT and for eviction.
//!
//! Under an LFU policy these are, as in Redis, 16 bits of minutes and an 8-bit counter. Each access increments the
//! counter with a probability that falls as the counter grows, so that 255 stands for millions of accesses. The
//! counter decays with time. Under any other policy the bits are the time of the last access in seconds, which wraps
//! around after 194 days.

use crate::config::{Config, MaxmemoryPolicy};
use crate::persist::rdb::file::SavedAccess;
use crate::types::ACCESS_MAX;

/// The counter of a new key. It is not 0, so that a new key is not evicted before it can be accessed.
const LFU_COUNTER_NEW: u32 = 5;
const LFU_COUNTER_MAX: u32 = 255;

/// The access bits of the present time. See the module's documentation.
#[derive(Clone)]
pub struct Access {
    /// Seconds of unix time in 24 bits.
    clock: u32,
    /// Minutes of unix time in 16 bits.
    minutes: u32,
    is_lfu: bool,
    /// lfu-log-factor
    log_factor: u32,
    /// lfu-decay-time, in minutes; 0: never.
    decay_min: u32,
    random: u64,
}

impl Access {
    pub(super) fn new(config: &Config, seed: u64) -> Access {
        let mut access =
            Access { clock: 0, minutes: 0, is_lfu: false, log_factor: 0, decay_min: 0, random: seed };
        access.adopt_config(config);
        access
    }

    pub(super) fn adopt_config(&mut self, config: &Config) {
        self.is_lfu = match config.maxmemory_policy {
            MaxmemoryPolicy::VolatileLfu | MaxmemoryPolicy::AllkeysLfu => true,
            MaxmemoryPolicy::VolatileLru
            | MaxmemoryPolicy::AllkeysLru
            | MaxmemoryPolicy::VolatileRandom
            | MaxmemoryPolicy::VolatileTtl
            | MaxmemoryPolicy::AllkeysRandom
            | MaxmemoryPolicy::Noeviction => false,
        };
        self.log_factor = config.lfu_log_factor;
        self.decay_min = config.lfu_decay_time_min;
    }

    /// Sets the time. Returns whether a new second has begun.
    #[inline]
    pub(super) fn set_now(&mut self, now_ms: i64) -> bool {
        let clock = (now_ms / 1000) as u32 & ACCESS_MAX;
        if clock == self.clock {
            return false;
        }
        self.clock = clock;
        self.minutes = (now_ms / 60_000) as u32 & 0xFFFF;
        true
    }

    /// Seconds of unix time, as a key's last access is stored if no LFU policy is selected.
    pub fn clock(&self) -> u32 {
        self.clock
    }

    /// Whether an LFU policy is selected: accesses are counted, and not dated.
    pub fn is_lfu(&self) -> bool {
        self.is_lfu
    }

    /// The access bits of a new key.
    pub fn of_new(&self) -> u32 {
        if self.is_lfu { self.minutes << 8 | LFU_COUNTER_NEW } else { self.clock }
    }

    /// A key that has these access bits need not be touched at an access.
    #[inline]
    pub(super) fn unchanged(&self) -> u32 {
        if self.is_lfu { u32::MAX } else { self.clock }
    }

    /// The access bits of a key after an access.
    #[inline]
    pub(super) fn touched(&mut self, access: u32) -> u32 {
        if self.is_lfu { self.counted(access) } else { self.clock }
    }

    #[cold]
    fn counted(&mut self, access: u32) -> u32 {
        let counter = self.frequency(access);
        let above_new = f64::from(counter.saturating_sub(LFU_COUNTER_NEW));
        let chance = 1.0 / (above_new * f64::from(self.log_factor) + 1.0);
        let random = (super::splitmix64(&mut self.random) >> 11) as f64 / (1u64 << 53) as f64;
        let rises = counter < LFU_COUNTER_MAX && random < chance;
        self.minutes << 8 | (counter + u32::from(rises))
    }

    /// OBJECT FREQ: a key's counter, less the decay since it was last touched.
    pub fn frequency(&self, access: u32) -> u32 {
        let (touched_min, counter) = (access >> 8, access & 0xFF);
        // As in Redis, one minute too few if the clock has wrapped around.
        let elapsed = if self.minutes >= touched_min {
            self.minutes - touched_min
        } else {
            0xFFFF - touched_min + self.minutes
        };
        counter.saturating_sub(elapsed.checked_div(self.decay_min).unwrap_or(0))
    }

    /// OBJECT IDLETIME: seconds since a key was touched.
    pub fn idle_s(&self, access: u32) -> u32 {
        // The clock wraps around.
        self.clock.wrapping_sub(access) & ACCESS_MAX
    }

    /// What a file says of a key with these access bits: what the policy for eviction goes by.
    pub(super) fn saved(&self, policy: MaxmemoryPolicy, access: u32) -> SavedAccess {
        match policy {
            MaxmemoryPolicy::VolatileLfu | MaxmemoryPolicy::AllkeysLfu => {
                SavedAccess::Frequency(self.frequency(access) as u8)
            }
            MaxmemoryPolicy::VolatileLru | MaxmemoryPolicy::AllkeysLru => {
                SavedAccess::IdleSeconds(u64::from(self.idle_s(access)))
            }
            MaxmemoryPolicy::VolatileRandom
            | MaxmemoryPolicy::VolatileTtl
            | MaxmemoryPolicy::AllkeysRandom
            | MaxmemoryPolicy::Noeviction => SavedAccess::None,
        }
    }

    /// The access bits of a key that was touched so many seconds ago, if no LFU policy is selected.
    pub fn idle_since(&self, idle_s: u64) -> u32 {
        let idle_s = idle_s.min(u64::from(ACCESS_MAX)) as u32;
        self.clock.wrapping_sub(idle_s) & ACCESS_MAX
    }

    /// The access bits of a key with this counter, under an LFU policy.
    pub fn with_frequency(&self, counter: u8) -> u32 {
        self.minutes << 8 | u32::from(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lfu(log_factor: u32, decay_min: u32) -> Access {
        let config = Config {
            maxmemory_policy: MaxmemoryPolicy::AllkeysLfu,
            lfu_log_factor: log_factor,
            lfu_decay_time_min: decay_min,
            ..Config::default()
        };
        let mut access = Access::new(&config, 7);
        access.set_now(1_700_000_000_000);
        access
    }

    #[test]
    fn a_high_counter_grows_more_slowly() {
        let mut access = lfu(10, 1);
        let mut bits = access.of_new();
        assert_eq!(access.frequency(bits), 5);
        bits = access.touched(bits);
        assert_eq!(access.frequency(bits), 6, "the first access always counts");
        (0..1000).for_each(|_| bits = access.touched(bits));
        // Redis' table for a factor of 10 says 18 after a thousand.
        assert!((14..=24).contains(&access.frequency(bits)), "{}", access.frequency(bits));
        let mut always = lfu(0, 1);
        bits = always.of_new();
        (0..1000).for_each(|_| bits = always.touched(bits));
        assert_eq!(always.frequency(bits), 255);
    }

    #[test]
    fn bits_can_be_made_of_what_a_file_says() {
        let mut lru = Access::new(&Config::default(), 7);
        lru.set_now(1_700_000_000_000);
        assert_eq!(lru.idle_s(lru.idle_since(3600)), 3600);
        assert_eq!(lru.idle_s(lru.idle_since(u64::MAX)), ACCESS_MAX);
        let lfu = lfu(10, 1);
        assert_eq!(lfu.frequency(lfu.with_frequency(200)), 200);
    }

    #[test]
    fn a_counter_decays_by_one_in_each_decay_time() {
        let mut access = lfu(10, 2);
        let bits = access.minutes << 8 | 10;
        access.set_now(1_700_000_000_000 + 7 * 60_000);
        assert_eq!(access.frequency(bits), 7);
        access.set_now(1_700_000_000_000 + 60 * 60_000);
        assert_eq!(access.frequency(bits), 0);
        access.decay_min = 0;
        assert_eq!(access.frequency(bits), 10, "a decay time of 0 means never");
    }
}
