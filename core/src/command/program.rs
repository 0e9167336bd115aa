//! Programs: commands that call other commands, as scripts and commands of modules do.
//!
//! A program runs on the shard of its keys, like any command over keys; where these are on several shards, they are
//! checked out to its client's. What it calls goes through the same table, admission and handlers as a client's
//! commands, and takes effect with the program as one. It may call commands over the keys that it has been given.

use crate::command::Call;
use crate::protocol::Argv;
use crate::protocol::reply::Reply;

/// Who runs the commands that a program calls.
pub trait ProgramHost {
    /// Runs a command for the program that `program` is the call of, and whose arguments are `declared`. Appends its
    /// reply, which may be an error.
    fn call(&mut self, program: &Call, declared: Argv<'_>, args: Argv<'_>, reply: &mut Vec<u8>);
}

/// What a program sees: its arguments, where to reply, and a way to call commands.
pub struct ProgramCtx<'a> {
    pub host: &'a mut dyn ProgramHost,
    pub call: &'a Call,
    pub args: Argv<'a>,
    pub reply: Reply<'a>,
}

impl<'a> ProgramCtx<'a> {
    /// Argument `index`; panics past the end, so only behind an arity or length check.
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
