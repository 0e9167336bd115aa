//! The programs under way, as FUNCTION STATS and MONITOR show them.

use super::{ProgramKind, Programs};
use crate::command::Call;
use crate::command::table::CommandEntry;
use crate::protocol::{Argv, OwnedArgv};
use crate::worker::Worker;

/// A program under way.
pub struct RunningProgram<'a> {
    /// Its own arguments, its command's name included.
    pub args: Argv<'a>,
    /// How long it has run.
    pub ran_ms: u64,
}

impl Worker {
    /// The running program is about to be suspended: from now on others may look at it.
    pub(super) fn show_program(&mut self, args: Argv<'_>) {
        self.programs.running().shown_args.get_or_insert_with(|| OwnedArgv::from_argv(args));
    }

    /// The script that runs, if it is to be shown before the commands that it calls, and was not yet.
    pub(in crate::worker) fn take_unshown_script(&mut self) -> Option<(&'static CommandEntry, Call)> {
        let frame = self.programs.running();
        let is_script = frame.kind.is_script() && frame.depth == 0;
        (is_script && !std::mem::replace(&mut frame.is_shown, true)).then_some((frame.entry, frame.call))
    }

    /// Of the programs of a kind that are under way on this shard, the one that has run for the longest time.
    pub fn running_program(&self, kind: ProgramKind) -> Option<RunningProgram<'_>> {
        let Programs { ready, calling, awaiting_locks, waiting, .. } = &self.programs;
        let suspended = ready.iter().chain(calling.values()).chain(awaiting_locks.values()).chain(waiting);
        let of_kind = suspended.filter(|frame| frame.kind == kind);
        let longest = of_kind.max_by_key(|frame| frame.ran_nanos)?;
        let args = longest.shown_args.as_ref()?.as_argv();
        Some(RunningProgram { args, ran_ms: longest.ran_nanos / 1_000_000 })
    }
}
