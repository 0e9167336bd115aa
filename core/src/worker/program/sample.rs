//! How long the commands take that scripts call. To read the clock before and after a command that takes constant time
//! takes half as long as the command. So of those one in a few is timed, and as much is charged for the next of its kind.

use crate::call::CommandId;
use crate::shard::stats::LONG_NANOS;
use crate::worker::timing::NOTED_BY_BATCH_NANOS;

/// One in so many is timed.
const SAMPLED_ONE_IN: u32 = 8;

/// What took longer is charged for itself alone: mostly, its thread was off its core.
const SAMPLE_NANOS_MAX: u32 = 100_000;

// Nothing is noted as slow that was not timed.
const _: () =
    assert!((SAMPLE_NANOS_MAX as u64) < NOTED_BY_BATCH_NANOS && (SAMPLE_NANOS_MAX as u64) < LONG_NANOS);

/// The last time of each command, by its number.
#[derive(Default)]
pub(super) struct Samples(Vec<Sample>);

#[derive(Clone, Copy, Default)]
struct Sample {
    nanos: u32,
    /// For how many more it is charged.
    left: u32,
}

impl Samples {
    /// What is charged for a call of this command; `None`: it is to be timed.
    #[inline]
    pub(super) fn take(&mut self, command: CommandId) -> Option<u64> {
        let sample = self.0.get_mut(command.index()).filter(|sample| sample.left > 0)?;
        sample.left -= 1;
        Some(u64::from(sample.nanos))
    }

    /// A call has taken so long.
    #[inline]
    pub(super) fn put(&mut self, command: CommandId, nanos: u64) {
        let at = command.index();
        if at >= self.0.len() {
            self.0.resize(at + 1, Sample::default());
        }
        if nanos <= u64::from(SAMPLE_NANOS_MAX) {
            self.0[at] = Sample { nanos: nanos as u32, left: SAMPLED_ONE_IN - 1 };
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

        assert_eq!(samples.take(get), None);
        samples.put(get, 60);
        assert_eq!(samples.take(set), None);
        samples.put(set, u64::from(SAMPLE_NANOS_MAX) + 1);

        assert!((1..SAMPLED_ONE_IN).all(|_| samples.take(get) == Some(60)));
        assert_eq!((samples.take(get), samples.take(set)), (None, None));
    }
}
