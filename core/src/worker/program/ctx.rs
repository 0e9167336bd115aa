//! What the handler of a program sees.

use super::Reach;
use super::stack::Lent;
use crate::command::Call;
use crate::protocol::{Argv, Reply, Resp};
use crate::worker::Worker;

/// What a program gets: its arguments, the reply to write, the worker, and a way to call commands.
pub struct ProgramCtx<'a> {
    pub call: &'a Call,
    pub args: Argv<'a>,
    pub reply: Reply<'a>,
    pub(super) lent: Lent<'a>,
}

/// How a program calls a command.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// The protocol version of the reply.
    pub resp: Resp,
    /// The command's writes are recorded as effects.
    pub is_recorded: bool,
    /// A command that writes is refused.
    pub is_read_only: bool,
    /// The command may run when memory is full.
    pub allows_oom: bool,
}

/// Whether a program may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Control {
    GoOn,
    /// It has to end now, with this error: it was killed, or its run must not count. It is told so again at each further
    /// tick and call, until it has returned.
    Stop(&'static str),
}

impl<'a> ProgramCtx<'a> {
    /// Argument `index`. Panics past the end, so it is called only after an arity or length check.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// The worker. What is kept of it does not outlive the next call or tick, in which other work may run.
    pub fn worker(&mut self) -> &mut Worker {
        self.lent.worker()
    }

    /// Whether what has this reach may run here. If not, it came to be after the call was placed, when there was nothing of
    /// its name, or something that keeps to its declared keys: its keys are not all there. The caller answers as if there
    /// were nothing yet, which was so at a moment after the call.
    pub fn reaches(&mut self, reach: Reach) -> bool {
        let worker = self.lent.worker();
        reach == Reach::Declared || worker.shard.shard_count == 1 || worker.wide_caller().is_some()
    }

    /// Calls the command `args`, which has at least a name, and appends its reply to `reply`. It may be an error: also of a
    /// command that does not exist, or that the program may not call. The program may be suspended meanwhile.
    pub fn call(&mut self, args: &[&[u8]], options: CallOptions, reply: &mut Vec<u8>) -> Control {
        let declared = self.args;
        let worker = self.lent.worker();
        if let Some(text) = worker.programs.running().stopped {
            return Control::Stop(text);
        }
        worker.call_for_program(declared, args, options, reply);
        if worker.programs.running().awaits_call {
            self.suspend();
            let frame = self.lent.worker().programs.running();
            frame.awaits_call = false;
            reply.append(&mut frame.called_reply);
        } else if worker.ends_slice() {
            self.suspend();
        }
        self.control()
    }

    /// To be called now and then by a program that computes. The program may be suspended meanwhile.
    pub fn tick(&mut self) -> Control {
        let worker = self.lent.worker();
        worker.read_program_clock();
        if worker.ends_slice() {
            self.suspend();
        }
        self.control()
    }

    fn control(&mut self) -> Control {
        match self.lent.worker().programs.running().stopped {
            Some(text) => Control::Stop(text),
            None => Control::GoOn,
        }
    }

    fn suspend(&mut self) {
        let declared = self.args;
        self.lent.worker().show_program(declared);
        self.lent.worker().want_locks(declared);
        self.lent.suspend();
    }
}
