//! A sequence that fails, made small: calls, then settings, then arguments go away as long as it still fails.

use super::run::Difference;
use super::sequence::{Over, Sequence};

/// Runs that are spent on one failure.
const RUNS_MAX: usize = 600;

/// How often a failure may fail to show again.
const TRIES_MAX: usize = 3;

/// A small sequence and how it fails.
pub struct Shrunk {
    pub sequence: Sequence,
    pub difference: Difference,
    /// It fails only with several calls in one pipeline.
    pub only_in_a_pipeline: bool,
}

/// `run` tells how a sequence fails, with or without pipelines. None: it does not fail again.
pub fn shrink(
    sequence: &Sequence,
    mut run: impl FnMut(&Sequence, bool) -> Option<Difference>,
) -> Option<Shrunk> {
    let alone = run(sequence, true);
    let one_by_one = alone.is_some();
    let difference = alone.or_else(|| (0..TRIES_MAX).find_map(|_| run(sequence, false)))?;
    let mut best =
        Best { sequence: sequence.clone(), difference, one_by_one, runs_left: RUNS_MAX, run: &mut run };
    best.cut_behind();
    best.drop_calls();
    for at in (0..best.sequence.settings.len()).rev() {
        let mut candidate = best.sequence.clone();
        candidate.settings.remove(at);
        best.take_if_it_fails(candidate);
    }
    best.drop_arguments();
    best.drop_calls();
    Some(Shrunk { sequence: best.sequence, difference: best.difference, only_in_a_pipeline: !one_by_one })
}

struct Best<'a> {
    sequence: Sequence,
    difference: Difference,
    one_by_one: bool,
    runs_left: usize,
    run: &'a mut dyn FnMut(&Sequence, bool) -> Option<Difference>,
}

impl Best<'_> {
    fn take_if_it_fails(&mut self, candidate: Sequence) -> bool {
        if self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let Some(difference) = (self.run)(&candidate, self.one_by_one) else { return false };
        self.sequence = candidate;
        self.difference = difference;
        self.cut_behind();
        true
    }

    /// What comes behind the difference has no part in it.
    fn cut_behind(&mut self) {
        self.sequence.calls.truncate(self.difference.at + 1);
    }

    fn drop_calls(&mut self) {
        let mut step = self.sequence.calls.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.sequence.calls.len() {
                let mut candidate = self.sequence.clone();
                let end = (at + step).min(candidate.calls.len());
                candidate.calls.drain(at..end);
                if !self.take_if_it_fails(candidate) {
                    at += step;
                }
            }
            if step == 1 {
                return;
            }
            step = step.div_ceil(2);
        }
    }

    fn drop_arguments(&mut self) {
        let mut at = 0;
        while at < self.sequence.calls.len() {
            let mut arg = self.sequence.calls[at].args.len();
            while arg > 1 {
                arg -= 1;
                let mut candidate = self.sequence.clone();
                // A call that blocks keeps its shape: another one might not come back.
                if at >= candidate.calls.len() || arg >= candidate.calls[at].args.len() {
                    break;
                }
                if candidate.calls[at].over == Over::Waiter {
                    break;
                }
                candidate.calls[at].args.remove(arg);
                self.take_if_it_fails(candidate);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::Call;
    use super::*;

    #[test]
    fn what_is_not_needed_goes_away() {
        let lines = ["SET a 1", "GET a", "DEL b", "INCR a", "GET c", "APPEND a x y", "GET a"];
        let settings = vec![("one", "1"), ("two", "2")];
        let sequence = Sequence {
            seed: 1,
            resp: 2,
            compares_replies: true,
            settings,
            calls: lines.map(Call::of_words).to_vec(),
        };

        // It fails at an APPEND behind an INCR.
        let shrunk = shrink(&sequence, |candidate, _| {
            let has = |name: &[u8]| candidate.calls.iter().position(|call| call.name() == name);
            let (incr, append) = (has(b"INCR")?, has(b"APPEND")?);
            let difference = || Difference::new(append, String::new(), String::new(), "x", String::new());
            (incr < append && !candidate.settings.is_empty()).then(difference)
        })
        .expect("it fails");

        let left: Vec<String> = shrunk.sequence.calls.iter().map(Call::line).collect();
        assert_eq!(left, ["INCR", "APPEND"]);
        assert_eq!(shrunk.sequence.settings.len(), 1);
    }

    #[test]
    fn what_does_not_fail_again_is_not_shrunk() {
        let sequence = Sequence {
            seed: 1,
            resp: 2,
            compares_replies: true,
            settings: Vec::new(),
            calls: vec![Call::of_words("GET a")],
        };

        assert!(shrink(&sequence, |_, _| None).is_none());
    }
}
