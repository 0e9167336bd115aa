//! How long the commands take that scripts call. To read the clock before and after a command that takes constant time
//! takes half as long as the command. So of those one in a few is timed, and as much is charged for the next of its kind.

use crate::call::CommandId;
use crate::shard::stats::LONG_NANOS;
use crate::worker::timing::NOTED_BY_BATCH_NANOS;

/// One in so many is timed.
const SAMPLED_ONE_IN: u32 = 8;

/// What took longer is charged for itself alone: mostly, its thread was off its core.
const SAMPLE_NANOS_MAX: u64 = 100_000;

// Nothing is noted as slow that was not timed.
const _: () = assert!(SAMPLE_NANOS_MAX < NOTED_BY_BATCH_NANOS && SAMPLE_NANOS_MAX < LONG_NANOS);

/// How long the commands took that were timed last.
#[derive(Default)]
pub(super) struct Samples {
    /// By their numbers.
    of: Vec<Sample>,
    /// Calls that were not timed, all of one command, and have to be counted yet.
    untimed: CommandId,
    untimed_count: u64,
}

#[derive(Clone, Copy, Default)]
struct Sample {
    nanos: u32,
    /// For how many more it is charged.
    left: u32,
}

impl Samples {
    /// Whether a call of this command is not timed. It is to be counted later, by [`take_untimed`](Samples::take_untimed).
    /// False: others have to be counted before, or it is time to time one.
    #[inline(always)]
    pub(super) fn leave_untimed(&mut self, command: CommandId) -> bool {
        if self.untimed_count > 0 && self.untimed != command {
            return false;
        }
        let Some(sample) = self.of.get_mut(command.index()).filter(|sample| sample.left > 0) else {
            return false;
        };
        sample.left -= 1;
        self.untimed = command;
        self.untimed_count += 1;
        true
    }

    /// The calls that are to be counted: of which command, how many, and what is charged for each.
    #[inline]
    pub(super) fn take_untimed(&mut self) -> Option<(CommandId, u64, u64)> {
        if self.untimed_count == 0 {
            return None;
        }
        let nanos = self.of[self.untimed.index()].nanos;
        Some((self.untimed, std::mem::take(&mut self.untimed_count), u64::from(nanos)))
    }

    /// A call has taken so long.
    #[inline]
    pub(super) fn put(&mut self, command: CommandId, nanos: u64) {
        let at = command.index();
        if at >= self.of.len() {
            self.of.resize(at + 1, Sample::default());
        }
        if nanos <= SAMPLE_NANOS_MAX {
            self.of[at] = Sample { nanos: nanos as u32, left: SAMPLED_ONE_IN - 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_a_few_is_timed_and_what_took_long_is_charged_once() {
        let mut samples = Samples::default();
        let (get, set) = (CommandId(3), CommandId(7));

        assert!(!samples.leave_untimed(get));
        samples.put(get, 60);
        samples.put(set, SAMPLE_NANOS_MAX + 1);
        assert!(!samples.leave_untimed(set));

        assert!((1..SAMPLED_ONE_IN).all(|_| samples.leave_untimed(get)));
        assert!(!samples.leave_untimed(get));
        assert_eq!(samples.take_untimed(), Some((get, u64::from(SAMPLED_ONE_IN - 1), 60)));
        assert_eq!(samples.take_untimed(), None);
    }
}
