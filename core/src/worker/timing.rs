//! How long commands take. The clock is read once per command: a command runs from the end of the one before to its own
//! end.

use crate::runtime::clock::{Clock, CycleRate, cycles};

pub(super) struct Timing {
    pub(super) clock: &'static dyn Clock,
    /// The clock's rate, if its ticks are those of the processor's counter.
    cycle_rate: Option<CycleRate>,
    /// Ticks of the clock at the end of the last command: the start of the next one.
    pub(super) ticks: u64,
    /// The clock has been read since the driver last waited.
    pub(super) turn_begun: bool,
    /// A command that took this long or longer goes to the slow log.
    pub(super) slow_from_nanos: u64,
    /// One that took this long or longer goes to the slow log or to the latency monitor.
    pub(super) noted_from_nanos: u64,
}

impl Timing {
    pub(super) fn new(clock: &'static dyn Clock) -> Timing {
        Timing {
            clock,
            cycle_rate: clock.cycle_rate(),
            ticks: 0,
            turn_begun: false,
            slow_from_nanos: 0,
            noted_from_nanos: 0,
        }
    }

    /// Ticks of the clock now. The processor's counter is read inline, as this is called at every command.
    #[inline(always)]
    pub(super) fn now_ticks(&self) -> u64 {
        if self.cycle_rate.is_some() { cycles() } else { self.clock.ticks() }
    }

    #[inline(always)]
    pub(super) fn nanos(&self, ticks: u64) -> u64 {
        match self.cycle_rate {
            Some(rate) => rate.nanos(ticks),
            None => self.clock.ticks_to_nanos(ticks),
        }
    }

    /// Nanoseconds from a point in time to the end of the last command.
    #[inline]
    pub(super) fn nanos_since(&self, started_at_ticks: u64) -> u64 {
        self.nanos(self.ticks.saturating_sub(started_at_ticks))
    }

    /// Nanoseconds since the last command ended. The next one starts now.
    #[inline(always)]
    pub(super) fn take_nanos(&mut self) -> u64 {
        let now = self.now_ticks();
        let nanos = self.nanos(now.saturating_sub(self.ticks));
        self.ticks = now;
        nanos
    }
}
