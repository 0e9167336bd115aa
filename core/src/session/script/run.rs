//! How a script or function runs: what it may do, and how the engine calls commands for it.

use crate::command::error::code_of;
use crate::command::{CommandError, CommandResult};
use crate::protocol::reply::Resp;
use crate::protocol::{ArgRange, Argv};
use crate::script::ScriptFlags;
use crate::shard::effects::Readers;
use crate::worker::program::{self, ProgramCtx};
use crate::worker::scripts::log_for_script;
use shardis_scripting::{
    Args, CallOptions, Control, Host, LogLevel, Place, ReplTargets, RunOptions, ScriptError,
};

/// What a script or a function may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permissions {
    is_read_only: bool,
    allows_oom: bool,
}

impl Permissions {
    /// What follows from the flags of what is to run. `is_read_only_call`: the command is EVAL_RO or the like.
    ///
    /// # Errors
    /// A command that only reads is to run what may write.
    pub(super) fn new(flags: ScriptFlags, is_read_only_call: bool) -> CommandResult<Permissions> {
        let is_compatible = flags.has(ScriptFlags::COMPATIBLE);
        if is_read_only_call && !is_compatible && !flags.is_read_only() {
            return Err(CommandError::fixed(
                "ERR Can not execute a script with write flag using *_ro command.",
            ));
        }
        Ok(Permissions {
            is_read_only: is_read_only_call || flags.is_read_only(),
            allows_oom: flags.has(ScriptFlags::ALLOW_OOM),
        })
    }
}

/// The server, as the engine sees it.
pub(super) struct Server<'c, 'a> {
    pub(super) ctx: &'c mut ProgramCtx<'a>,
    pub(super) permissions: Permissions,
    /// A failed call was counted for errors that the reply has in it.
    has_failed: bool,
}

/// So many arguments of a script, or of a command that it calls, are seen without an allocation.
const FEW_ARGS: usize = 8;

/// Hands on the arguments of a command that a script names, as those of a request.
#[inline(always)]
fn with_argv<T>(Args { bytes, places }: Args<'_>, act: impl FnOnce(Argv<'_>) -> T) -> T {
    let range_of = |place: &Place| ArgRange { start: place.start, len: place.len };
    if places.len() > FEW_ARGS {
        let ranges: Vec<ArgRange> = places.iter().map(range_of).collect();
        return act(Argv::new(bytes, &ranges));
    }
    let mut ranges = [ArgRange { start: 0, len: 0 }; FEW_ARGS];
    ranges.iter_mut().zip(places).for_each(|(to, from)| *to = range_of(from));
    act(Argv::new(bytes, &ranges[..places.len()]))
}

impl Host for Server<'_, '_> {
    fn call(&mut self, args: Args<'_>, options: CallOptions, reply: &mut Vec<u8>) -> Control {
        let options = program::CallOptions {
            resp: match options.resp {
                shardis_scripting::Resp::V2 => Resp::V2,
                shardis_scripting::Resp::V3 => Resp::V3,
            },
            readers: Readers {
                replicas: options.repl.0 & ReplTargets::REPLICAS.0 != 0,
                file: options.repl.0 & ReplTargets::AOF.0 != 0,
            },
            is_read_only: self.permissions.is_read_only,
            allows_oom: self.permissions.allows_oom,
            is_as_script: true,
        };
        with_argv(args, |argv| control(self.ctx.call_argv(argv, options, reply)))
    }

    fn tick(&mut self) -> Control {
        control(self.ctx.tick())
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        log_for_script(level, message);
    }

    /// Counts each error that is the script's own under its code, and a failed call for all of these; and a failed call for
    /// each one of a command. So does Redis.
    fn replied_error(&mut self, text: &[u8], already_counted: bool) {
        let command = self.ctx.call.command;
        let stats = &self.ctx.worker().shard.stats;
        if !already_counted {
            stats.error(code_of(text));
        }
        if already_counted || !std::mem::replace(&mut self.has_failed, true) {
            stats.command(command).failed.add(1);
        }
    }

    fn may_call(&mut self, args: Args<'_>) -> Option<bool> {
        with_argv(args, |argv| self.ctx.worker().may_call_from_script(argv))
    }
}

fn control(control: program::Control) -> Control {
    match control {
        program::Control::GoOn => Control::GoOn,
        program::Control::Stop(text) => Control::Stop(text),
    }
}

/// Runs what `start` begins, with the keys and the other arguments of the command, and replies.
///
/// # Errors
/// Those of what runs. An error of a command that it called stands in the statistics already.
pub(super) fn run(
    ctx: &mut ProgramCtx<'_>,
    permissions: Permissions,
    key_count: usize,
    start: impl FnOnce([&[&[u8]]; 2], RunOptions, &mut dyn Host, &mut Vec<u8>) -> Result<(), ScriptError>,
) -> CommandResult {
    let args = ctx.args.slice(3..);
    let mut few: [&[u8]; FEW_ARGS] = [&[]; FEW_ARGS];
    let many: Vec<&[u8]>;
    let args = if args.len() <= FEW_ARGS {
        few.iter_mut().zip(args).for_each(|(to, from)| *to = from);
        &few[..args.len()]
    } else {
        many = args.iter().collect();
        &many
    };
    let client_resp = match ctx.reply.resp {
        Resp::V2 => shardis_scripting::Resp::V2,
        Resp::V3 => shardis_scripting::Resp::V3,
    };

    let (keys, values) = args.split_at(key_count);
    let mut reply = std::mem::take(ctx.reply.out);
    let mut server = Server { ctx, permissions, has_failed: false };
    let outcome = start([keys, values], RunOptions { client_resp }, &mut server, &mut reply);

    *ctx.reply.out = reply;
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.already_counted => {
            ctx.reply.error(&error.text);
            let command = ctx.call.command;
            ctx.worker().shard.stats.command(command).failed.add(1);
            Ok(())
        }
        Err(error) => Err(CommandError::new(error.text)),
    }
}
