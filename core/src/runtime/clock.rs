//! Time is handed to those who need it, so that a test or a simulator can make its own.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

/// Where a worker gets its time from.
pub trait Clock: Send + Sync {
    /// Unix time in milliseconds.
    fn wall_ms(&self) -> i64;
    /// Unix time in microseconds.
    fn wall_us(&self) -> i64;
    /// A steady count, cheap enough to be read at every command.
    fn ticks(&self) -> u64;
    /// Nanoseconds in so many ticks.
    fn ticks_to_nanos(&self, ticks: u64) -> u64;
    /// Bytes the calling thread has allocated, less those it has freed.
    fn thread_allocated_bytes(&self) -> i64;
    fn sleep(&self, duration: Duration);
}

/// The machine's clocks.
pub struct SystemClock {
    origin: Instant,
    /// Nanoseconds a tick, times 2^24.
    nanos_per_tick_q24: u64,
}

thread_local! {
    /// Where jemalloc counts what this thread allocates and frees. To ask for the addresses costs more than all else a
    /// turn does for its bookkeeping, so it is done once.
    static ALLOCATION_COUNTERS: Option<(ThreadLocal<u64>, ThreadLocal<u64>)> =
        allocatedp::read().ok().zip(deallocatedp::read().ok());
}

static SYSTEM: OnceLock<SystemClock> = OnceLock::new();

impl SystemClock {
    /// The process' clock. Measures the tick counter against the monotonic clock at its first use (10 ms).
    pub fn get() -> &'static SystemClock {
        SYSTEM.get_or_init(|| {
            let origin = Instant::now();
            let first = raw_ticks(origin);
            std::thread::sleep(Duration::from_millis(10));
            let nanos = origin.elapsed().as_nanos() as u64;
            let ticks = raw_ticks(origin).saturating_sub(first).max(1);
            SystemClock {
                origin,
                nanos_per_tick_q24: ((nanos as u128) << 24).div_euclid(ticks as u128) as u64,
            }
        })
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn raw_ticks(_origin: Instant) -> u64 {
    // SAFETY: rdtsc reads a counter and has no other effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn raw_ticks(origin: Instant) -> u64 {
    origin.elapsed().as_nanos() as u64
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        self.wall_us() / 1000
    }

    fn wall_us(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
    }

    #[inline]
    fn ticks(&self) -> u64 {
        raw_ticks(self.origin)
    }

    #[inline]
    fn ticks_to_nanos(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.nanos_per_tick_q24)) >> 24) as u64
    }

    fn thread_allocated_bytes(&self) -> i64 {
        ALLOCATION_COUNTERS.with(|counters| match counters {
            Some((allocated, freed)) => allocated.get().wrapping_sub(freed.get()) as i64,
            None => 0,
        })
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
