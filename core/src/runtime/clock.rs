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
    /// Nanoseconds from a reading of [`ticks`](Clock::ticks) to now.
    fn nanos_since(&self, began_ticks: u64) -> u64 {
        self.ticks_to_nanos(self.ticks().saturating_sub(began_ticks))
    }
    /// The rate of the ticks, if they are those of [`cycles`]: so who asks often needs no virtual call.
    fn cycle_rate(&self) -> Option<CycleRate> {
        None
    }
    /// How long the calling thread has run: without what other threads had of its core in the meantime.
    fn thread_cpu_nanos(&self) -> u64 {
        self.ticks_to_nanos(self.ticks())
    }
    /// Whether a program that has had its shard for so long gives way to the shard's other work.
    fn ends_slice(&self, ran_nanos: u64) -> bool {
        ran_nanos >= SLICE_NANOS
    }
    /// For so many ticks from the beginning of a program's slice, [`ends_slice`](Clock::ends_slice) says no.
    fn unasked_ticks(&self) -> u64 {
        0
    }
    /// Whether a slice of a snapshot, which may last so long, is over.
    fn ends_snapshot_slice(&self, ran_nanos: u64, nanos_max: u64) -> bool {
        ran_nanos >= nanos_max
    }
    /// Bytes the calling thread has allocated, less those it has freed.
    fn thread_allocated_bytes(&self) -> i64;
    fn sleep(&self, duration: Duration);
}

/// How long a program has its shard at a time.
const SLICE_NANOS: u64 = 1_000_000;

/// How long a cycle of the processor's counter is.
#[derive(Clone, Copy, Debug)]
pub struct CycleRate {
    /// Nanoseconds a tick, times 2^24.
    nanos_per_tick_q24: u64,
}

impl CycleRate {
    #[inline(always)]
    pub fn nanos(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.nanos_per_tick_q24)) >> 24) as u64
    }

    /// The ticks in so many nanoseconds, less than 2^40.
    pub fn ticks(self, nanos: u64) -> u64 {
        (nanos << 24) / self.nanos_per_tick_q24.max(1)
    }
}

/// The machine's clocks. Ticks are the processor's time stamp counter where that runs at one rate in all states and on
/// all cores (which the processor says), else the monotonic clock's nanoseconds.
pub struct SystemClock {
    origin: Instant,
    counts_cycles: bool,
    rate: CycleRate,
}

thread_local! {
    /// Where jemalloc counts what this thread allocates and frees. To ask for the addresses costs more than all else a
    /// turn does for its bookkeeping, so it is done once.
    static ALLOCATION_COUNTERS: Option<(ThreadLocal<u64>, ThreadLocal<u64>)> =
        allocatedp::read().ok().zip(deallocatedp::read().ok());
}

static SYSTEM: OnceLock<SystemClock> = OnceLock::new();

/// How long the counter is compared with the monotonic clock, once a process.
const CALIBRATION: Duration = Duration::from_millis(10);

impl SystemClock {
    /// The process' clock. The first call takes as long as the calibration.
    pub fn get() -> &'static SystemClock {
        SYSTEM.get_or_init(|| {
            let mut clock = SystemClock {
                origin: Instant::now(),
                counts_cycles: has_invariant_counter(),
                rate: CycleRate { nanos_per_tick_q24: 1 << 24 },
            };
            if clock.counts_cycles {
                let (first_ticks, first) = clock.sample();
                std::thread::sleep(CALIBRATION);
                let (last_ticks, last) = clock.sample();
                let ticks = last_ticks.saturating_sub(first_ticks).max(1);
                let nanos = last.duration_since(first).as_nanos();
                clock.rate.nanos_per_tick_q24 = ((nanos << 24) / u128::from(ticks)) as u64;
            }
            clock
        })
    }

    /// Both clocks at one moment: of several tries that during which the least time passed, because the thread may be
    /// taken off its core between the two readings.
    fn sample(&self) -> (u64, Instant) {
        let tries = (0..5).map(|_| {
            let before = self.ticks();
            let now = Instant::now();
            let after = self.ticks();
            (after.wrapping_sub(before), before + after.wrapping_sub(before) / 2, now)
        });
        let (_, ticks, now) = tries.min_by_key(|(length, ..)| *length).expect("five tries");
        (ticks, now)
    }
}

#[cfg(target_arch = "x86_64")]
/// The processor's time stamp counter.
#[inline(always)]
pub fn cycles() -> u64 {
    // SAFETY: rdtsc reads a counter and has no other effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "x86_64")]
fn has_invariant_counter() -> bool {
    use core::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx & INVARIANT != 0
}

#[cfg(not(target_arch = "x86_64"))]
pub fn cycles() -> u64 {
    unreachable!("only asked for where the counter is known")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_invariant_counter() -> bool {
    false
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
        if self.counts_cycles { cycles() } else { self.origin.elapsed().as_nanos() as u64 }
    }

    #[inline]
    fn ticks_to_nanos(&self, ticks: u64) -> u64 {
        self.rate.nanos(ticks)
    }

    fn cycle_rate(&self) -> Option<CycleRate> {
        self.counts_cycles.then_some(self.rate)
    }

    fn unasked_ticks(&self) -> u64 {
        if self.counts_cycles { self.rate.ticks(SLICE_NANOS) } else { 0 }
    }

    fn thread_cpu_nanos(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes one timespec, the local above. Of this thread's own clock it knows, so that it cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_nanoseconds_of_the_monotonic_clock() {
        let clock = SystemClock::get();
        // The share of time in which this thread was off its core between two readings goes down with each try.
        let agrees = (0..20).any(|_| {
            let (first_ticks, first) = clock.sample();
            std::thread::sleep(Duration::from_millis(20));
            let (last_ticks, last) = clock.sample();
            let nanos = clock.ticks_to_nanos(last_ticks - first_ticks) as f64;
            let expected = last.duration_since(first).as_nanos() as f64;
            (nanos / expected - 1.0).abs() < 0.02
        });
        assert!(agrees);
    }

    #[test]
    fn wall_clock_units_agree() {
        let clock = SystemClock::get();
        let (before, us, after) = (clock.wall_ms(), clock.wall_us(), clock.wall_ms());
        assert!(before <= us / 1000 && us / 1000 <= after);
    }
}
