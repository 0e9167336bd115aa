//! Programs: commands that call other commands, as scripts and module commands do.
//!
//! A program runs on the shard of its keys, like any command over keys; keys of several shards are checked out to the
//! client's home. The commands that it calls go through the same table, admission and handlers as a client's commands,
//! and their effects are one unit. It may call commands over the keys that it was given.

use crate::command::Call;
use crate::protocol::Argv;
use crate::protocol::reply::Reply;

/// Runs the commands that a program calls.
pub trait ProgramHost {
    /// Runs the command `args` for a program. `program` is the program's own call, and `declared` its arguments, which
    /// declare its keys. Appends the reply, which may be an error.
    fn call(&mut self, program: &Call, declared: Argv<'_>, args: Argv<'_>, reply: &mut Vec<u8>);
}

/// What a program gets: its arguments, the reply to write, and a way to call commands.
pub struct ProgramCtx<'a> {
    pub host: &'a mut dyn ProgramHost,
    pub call: &'a Call,
    pub args: Argv<'a>,
    pub reply: Reply<'a>,
}

impl<'a> ProgramCtx<'a> {
    /// Argument `index`. Panics past the end, so it is called only after an arity or length check.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// Calls a command. Returns its reply, which may be an error.
    pub fn call(&mut self, args: Argv<'_>) -> Vec<u8> {
        let mut reply = Vec::new();
        self.host.call(self.call, self.args, args, &mut reply);
        reply
    }
}
