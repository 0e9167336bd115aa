//! Programs that run for longer than busy-reply-threshold: from then on other commands are refused, and the program may be
//! ended.
//!
//! Only the time counts in which a program runs, or a module's thread that has the lock, not that in which it waits for its next
//! slice. How many are over the threshold is counted for the whole process ([`BusyPrograms`]), so that every shard refuses
//! commands: see [`admission`](crate::command::admission). Those that wait for locks already are refused in the next turn of
//! their shard, which comes within [`TURN_INTERVAL_MS_MAX`](crate::worker::TURN_INTERVAL_MS_MAX).

use super::frame::{Frame, program_name};
use super::{ProgramKind, Programs};
use crate::command::CommandError;
use crate::command::admission::busy_error;
use crate::protocol::{Argv, Reply, Resp};
use crate::runtime::log;
use crate::worker::Worker;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The programs of the process that are over the threshold.
#[derive(Default)]
pub struct BusyPrograms {
    /// How many there are of each kind: a count in some bits of one word.
    counts: AtomicU64,
    /// What others are told while a module's command is, without the error's code; empty: it has not said.
    reply: Mutex<Vec<u8>>,
}

const COUNT_BITS: u32 = 20;

/// In this order a kind is named if programs of several are busy.
const KINDS: [ProgramKind; 3] = [ProgramKind::Script, ProgramKind::Function, ProgramKind::Module];

/// One program of a kind.
fn one(kind: ProgramKind) -> u64 {
    match kind {
        ProgramKind::Script => 1,
        ProgramKind::Function => 1 << COUNT_BITS,
        ProgramKind::Module => 1 << (2 * COUNT_BITS),
        ProgramKind::Command => unreachable!("it is never over the threshold"),
    }
}

impl BusyPrograms {
    /// What the programs over the threshold are; `None`: there are none.
    #[inline(always)]
    pub fn kind(&self) -> Option<ProgramKind> {
        let counts = self.counts.load(Ordering::Relaxed);
        if counts == 0 { None } else { first_kind(counts) }
    }

    fn add(&self, kind: ProgramKind) {
        self.counts.fetch_add(one(kind), Ordering::Relaxed);
    }

    fn remove(&self, kind: ProgramKind) {
        self.counts.fetch_sub(one(kind), Ordering::Relaxed);
    }

    /// What others are told while the module's command that runs is over the threshold. No other module's runs.
    pub(super) fn set_reply(&self, text: &[u8]) {
        let mut reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        reply.clear();
        // An error is one line.
        reply.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    }

    fn error(&self, kind: ProgramKind) -> CommandError {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            ProgramKind::Module if !reply.is_empty() => CommandError::new([b"BUSY ", &reply[..]].concat()),
            ProgramKind::Module | ProgramKind::Script | ProgramKind::Function | ProgramKind::Command => {
                busy_error(kind)
            }
        }
    }
}

#[cold]
fn first_kind(counts: u64) -> Option<ProgramKind> {
    KINDS.into_iter().find(|&kind| counts / one(kind) % (1 << COUNT_BITS) != 0)
}

/// What came of ending the programs of a kind. Of the outcomes of several shards the greatest one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Killed {
    /// No program is over the threshold.
    NoneIsBusy,
    /// Only scripts, or functions, are.
    Other(ProgramKind),
    /// All have written.
    AllWrote,
    Some,
}

const NOT_BUSY: CommandError = CommandError::fixed("NOTBUSY No scripts in execution right now.");
const UNKILLABLE: CommandError = CommandError::fixed(
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script \
     termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
);

impl Killed {
    /// The outcomes, by their numbers in the shards' replies.
    const ALL: [Killed; 5] = [
        Killed::NoneIsBusy,
        Killed::Other(ProgramKind::Script),
        Killed::Other(ProgramKind::Function),
        Killed::AllWrote,
        Killed::Some,
    ];

    /// Writes one shard's outcome for [`merge_killed`].
    pub fn write(self, reply: &mut Reply<'_>) {
        let number = Killed::ALL.iter().position(|&outcome| outcome == self).expect("all are listed");
        reply.integer(number as i64);
    }
}

/// The rule by which the shards' outcomes become the reply to SCRIPT KILL or FUNCTION KILL.
pub fn merge_killed(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let outcome_of = |reply: &&[u8]| {
        let digit = reply.get(1).copied().unwrap_or(b'0');
        Killed::ALL[usize::from(digit.wrapping_sub(b'0')).min(Killed::ALL.len() - 1)]
    };
    let mut reply = Reply::new(out, Resp::V2);
    match replies.iter().map(outcome_of).max() {
        Some(Killed::Some) => reply.ok(),
        Some(Killed::AllWrote) => reply.error(UNKILLABLE.as_bytes()),
        Some(Killed::Other(kind)) => reply.error(busy_error(kind).as_bytes()),
        Some(Killed::NoneIsBusy) | None => reply.error(NOT_BUSY.as_bytes()),
    }
}

impl Worker {
    /// Whether the running program, which has run for `ran_nanos`, has just passed the threshold.
    /// `args`: its own arguments.
    pub(super) fn becomes_busy(&mut self, ran_nanos: u64, args: Argv<'_>) -> bool {
        let threshold_nanos = (self.shard.config.busy_reply_threshold_ms as u64).saturating_mul(1_000_000);
        if threshold_nanos == 0 || ran_nanos < threshold_nanos {
            return false;
        }
        let frame = self.programs.running();
        let kind = frame.kind;
        if kind == ProgramKind::Command || frame.busy_as.is_some() {
            return false;
        }
        frame.busy_as = Some(kind);
        let name = program_name(frame.entry, args).in_log();
        let killer = match kind {
            ProgramKind::Script => "SCRIPT KILL",
            ProgramKind::Function => "FUNCTION KILL",
            ProgramKind::Module | ProgramKind::Command => "no",
        };
        log::warning(format_args!(
            "Slow script detected: still in execution after {} milliseconds. You can try killing the script using the \
             {killer} command. Script name is: {name}.",
            ran_nanos / 1_000_000
        ));
        self.globals.busy_programs.add(kind);
        true
    }

    /// What others are told while a program of this kind is over the threshold.
    pub fn busy_error(&self, kind: ProgramKind) -> CommandError {
        self.globals.busy_programs.error(kind)
    }

    /// A program has ended that was over the threshold as one of this kind.
    pub(super) fn ends_busy(&self, kind: ProgramKind) {
        self.globals.busy_programs.remove(kind);
    }

    /// What the programs are for which other commands are refused.
    pub fn busy_program(&self) -> Option<ProgramKind> {
        self.conditions().busy
    }

    /// Ends the programs of a kind on this shard that are over the threshold and have not written.
    pub fn kill_programs(&mut self, kind: ProgramKind) -> Killed {
        let text = match kind {
            ProgramKind::Script => "Script killed by user with SCRIPT KILL.",
            ProgramKind::Function => "Script killed by user with FUNCTION KILL.",
            ProgramKind::Module | ProgramKind::Command => return Killed::NoneIsBusy,
        };
        let mut outcome = Killed::NoneIsBusy;
        let Programs { ready, calling, awaiting_locks, waiting, .. } = &mut self.programs;
        let suspended = ready.iter_mut().chain(calling.values_mut()).chain(awaiting_locks.values_mut());
        let suspended = suspended.chain(waiting);
        // As in Redis, a module's command counts for nothing here, but a script that it has called does.
        let is_busy_script = |frame: &&mut Box<Frame>| frame.busy_as.is_some() && frame.kind.is_script();
        for frame in suspended.filter(is_busy_script) {
            outcome = outcome.max(if frame.kind != kind {
                Killed::Other(frame.kind)
            } else if frame.has_written {
                Killed::AllWrote
            } else {
                frame.stopped = Some(text);
                Killed::Some
            });
        }
        self.resume_killed();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    #[test]
    fn programs_are_counted_by_kind() {
        let busy = BusyPrograms::default();
        assert_eq!(busy.kind(), None);
        busy.add(ProgramKind::Function);
        busy.add(ProgramKind::Function);
        busy.add(ProgramKind::Script);
        assert_eq!(busy.kind(), Some(ProgramKind::Script));
        busy.remove(ProgramKind::Script);
        busy.remove(ProgramKind::Function);
        assert_eq!(busy.kind(), Some(ProgramKind::Function));
        busy.remove(ProgramKind::Function);
        assert_eq!(busy.kind(), None);
    }

    #[test]
    fn one_shard_that_has_killed_a_program_is_enough() {
        let merged = |outcomes: &[Killed]| {
            let replies: Vec<Vec<u8>> = outcomes
                .iter()
                .map(|outcome| {
                    let mut bytes = Vec::new();
                    outcome.write(&mut Reply::new(&mut bytes, Resp::V2));
                    bytes
                })
                .collect();
            let replies: Vec<&[u8]> = replies.iter().map(Vec::as_slice).collect();
            let mut out = Vec::new();
            merge_killed(&replies, OwnedArgv::new().as_argv(), &mut out);
            String::from_utf8(out).expect("it is text")
        };
        assert_eq!(merged(&[Killed::NoneIsBusy, Killed::Some, Killed::AllWrote]), "+OK\r\n");
        assert!(
            merged(&[Killed::AllWrote, Killed::Other(ProgramKind::Function)]).starts_with("-UNKILLABLE ")
        );
        assert!(merged(&[Killed::NoneIsBusy, Killed::NoneIsBusy]).starts_with("-NOTBUSY "));
        let other = merged(&[Killed::NoneIsBusy, Killed::Other(ProgramKind::Function)]);
        assert!(other.contains("FUNCTION KILL"), "{other}");
    }
}
