//! How long commands take. The clock is read once per command, or once for several that take constant time, which are charged
//! the mean: they run from the end of the ones before to their own.

use super::fast_path::Tally;
use crate::runtime::clock::{Clock, CycleRate, cycles};

/// Where commands that take so long are noted, the clock is read for each batch: a slow command is looked for in it.
pub(super) const NOTED_BY_BATCH_NANOS: u64 = 1_000_000;

/// A batch of more bytes, of arguments and replies, is timed alone: a single value may be slow to copy.
const CARRIED_BYTES_MAX: usize = 16 << 10;

pub(super) struct Timing {
    pub(super) clock: &'static dyn Clock,
    /// The clock's rate, if its ticks are those of the processor's counter.
    cycle_rate: Option<CycleRate>,
    /// See [`Clock::unasked_ticks`].
    pub(super) unasked_ticks: u64,
    /// Ticks of the clock at the end of the last command: the start of the next one.
    pub(super) ticks: u64,
    /// The clock has been read since the driver last waited.
    pub(super) turn_begun: bool,
    /// A command that took this long or longer goes to the slow log.
    pub(super) slow_from_nanos: u64,
    /// One that took this long or longer goes to the slow log or to the latency monitor.
    pub(super) noted_from_nanos: u64,
    /// Another batch of commands comes before anything else runs.
    pub(super) batch_follows: bool,
    /// Commands of earlier batches that have not been counted and timed. The batch that follows does it.
    carried: Tally,
}

impl Timing {
    pub(super) fn new(clock: &'static dyn Clock) -> Timing {
        Timing {
            clock,
            cycle_rate: clock.cycle_rate(),
            unasked_ticks: clock.unasked_ticks(),
            ticks: 0,
            turn_begun: false,
            slow_from_nanos: 0,
            noted_from_nanos: 0,
            batch_follows: false,
            carried: Tally::default(),
        }
    }

    /// Keeps the tally of a batch for the batch that follows: with many shards most hold a command or two, and reading the
    /// clock costs as much as running one. Returns whether it does; if not, it has to be timed now.
    #[inline]
    pub(super) fn carry(&mut self, tally: &Tally, len_bytes: usize) -> bool {
        let carries =
            self.batch_follows && !tally.is_mixed() && len_bytes <= CARRIED_BYTES_MAX && self.may_share();
        if carries {
            self.carried = tally.as_carried();
        }
        carries
    }

    /// Whether commands that take constant time may be charged what others of their kind took, and need not be timed.
    #[inline]
    pub(super) fn may_share(&self) -> bool {
        self.noted_from_nanos >= NOTED_BY_BATCH_NANOS
    }

    /// The tally with which a batch begins.
    #[inline]
    pub(super) fn take_carried(&mut self) -> Tally {
        std::mem::take(&mut self.carried)
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
