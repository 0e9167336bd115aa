//! How a module's command runs: as a handler over its keys if the module is shard-safe, else as a program.

use super::command::ModuleCommand;
use super::context::{Access, Context, noted, run_with};
use super::module::Module;
use super::string::Arguments;
use crate::command::keys::{ChannelPositions, KeyPositions};
use crate::command::table::{CommandId, CommandTable};
use crate::command::{CommandError, CommandResult, Ctx, gate};
use crate::protocol::Argv;
use crate::runtime::crash::Callback;
use crate::shard::Shard;
use crate::worker::program::ProgramCtx;
use std::any::Any;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::RwLock;

/// Runs a command of a foreign module: see [`ProgramHandler`](crate::worker::program::ProgramHandler). One that was started
/// beside a busy program has locked nothing, and finds no keys.
pub(super) fn run_foreign(program: &mut ProgramCtx<'_>) -> CommandResult {
    let command = command_of(program.data);
    let (call, args, resp) = (*program.call, program.args, program.reply.resp);
    let mut reply = std::mem::take(program.reply.out);
    let start = reply.len();

    let access = match program.is_narrow() {
        true => Access::Nothing,
        false => Access::Program(NonNull::from(&mut *program).cast()),
    };
    let mut ctx = Context::new(command.module, access);
    ctx.command = Some(command);
    ctx.call = call;
    ctx.args = args;
    ctx.reply_to(&mut reply, resp);
    let has_run = run(&mut ctx, command, args);

    let errors = std::mem::take(&mut ctx.errors);
    let blocking = ctx.blocking.take();
    let redacted = std::mem::take(&mut ctx.redacted);
    drop(ctx);
    if !redacted.is_empty() {
        program.redact(&redacted);
    }
    let result = result_of(errors, &reply[start..], &program.worker().shard, call.command);
    if let Some(client) = blocking {
        client.reply_of_command(&mut reply);
        client.redact(redacted);
    }
    *program.reply.out = reply;
    if has_run { result } else { Err(gate::unknown(args)) }
}

/// Runs a command of a shard-safe module: see [`Native`](crate::command::table::Native).
pub(super) fn run_native(
    handler: &mut Ctx<'_>,
    table: &'static CommandTable,
    data: &'static (dyn Any + Send + Sync),
) -> CommandResult {
    let command = command_of(data);
    let (call, args, resp) = (*handler.call, handler.args, handler.reply.resp);
    let mut reply = std::mem::take(handler.reply.out);
    let start = reply.len();

    let access = Access::Native { ctx: NonNull::from(&mut *handler).cast(), table };
    let mut ctx = Context::new(command.module, access);
    ctx.command = Some(command);
    ctx.call = call;
    ctx.args = args;
    ctx.reply_to(&mut reply, resp);
    let has_run = run(&mut ctx, command, args);

    let mut errors = std::mem::take(&mut ctx.errors);
    drop(ctx);
    if errors.is_empty()
        && let Some(error) = reply[start..].strip_prefix(b"-")
    {
        // That of a command which the handler has called: it was not counted there.
        errors.push(CommandError::new(error.trim_ascii_end()));
    }
    let result = result_of(errors, &reply[start..], handler.shard, call.command);
    *handler.reply.out = reply;
    // The module says itself what is to be recorded.
    handler.no_effect();
    if has_run { result } else { Err(gate::unknown(args)) }
}

/// The outcome of a command that has replied with these errors, among others. An error that is all of its reply is that of
/// the command, which whoever runs it counts, once for all its shards. Errors within a reply are counted here.
fn result_of(
    mut errors: Vec<CommandError>,
    reply: &[u8],
    shard: &Shard,
    command: CommandId,
) -> CommandResult {
    let is_error = reply.first() == Some(&b'-');
    if is_error && let Some(error) = errors.pop() {
        return Err(error);
    }
    for error in &errors {
        shard.stats.error(error.code());
    }
    // The error of a command that a program has called, and passes on, was counted when that ran.
    if is_error || !errors.is_empty() {
        shard.stats.command(command).failed.add(1);
    }
    Ok(())
}

fn command_of(data: &'static (dyn Any + Send + Sync)) -> &'static ModuleCommand {
    data.downcast_ref::<ModuleCommand>().expect("a module's row holds its command")
}

/// Calls the command's callback. Returns false if its module was unloaded while the call waited, for locks or in a transaction:
/// then the client is told what it would be told if it called the command now. (Redis has forgotten the command by then, and
/// may crash.)
fn run(ctx: &mut Context<'_>, command: &'static ModuleCommand, args: Argv<'_>) -> bool {
    let function = command.function.expect("a command without a callback is a container");
    let arguments = Arguments::new(args.iter(), command.module);
    let mut argv = arguments.vector();
    // SAFETY: the module has registered the function as the callback of this command; the context and the arguments last
    // until it returns.
    let status =
        run_with(ctx, "command", |ctx| unsafe { function(ctx, argv.as_mut_ptr().cast(), arguments.len()) });
    ctx.finish();
    arguments.give_back();
    status.is_some()
}

/// Finds the keys of a command whose callback says which they are. It does nothing but name positions then, as in Redis.
///
/// It is asked whenever somebody wants to know the keys of a request: on the thread of any shard, before the request waits for
/// anything, and also when its module is not shard-safe and has its [turn](super::turn) elsewhere. A thread of the module may have
/// that for seconds, and a shard does not wait.
pub(super) const KEYS_BY_CALLBACK: fn(Argv<'_>, &mut KeyPositions) =
    |args, found| ask(args, "key positions", |ctx| ctx.key_positions = Some(found));

/// The same of its channels.
pub(super) const CHANNELS_BY_CALLBACK: fn(Argv<'_>, &mut ChannelPositions) =
    |args, found| ask(args, "channel positions", |ctx| ctx.channel_positions = Some(found));

/// Calls the callback of a command for what it says of the command's arguments.
fn ask<'a>(args: Argv<'a>, what: &'static str, asks: impl FnOnce(&mut Context<'a>)) {
    let Some(command) = find(args) else { return };
    let Some(function) = command.function else { return };
    let mut ctx = Context::new(command.module, Access::Nothing);
    ctx.command = Some(command);
    ctx.args = args;
    asks(&mut ctx);
    let arguments = Arguments::new(args.iter(), command.module);
    let mut argv = arguments.vector();
    let callback = Callback { what, ..command.callback };
    command.module.while_loaded(|| {
        // SAFETY: as in `run`.
        noted(callback, || unsafe { function(ctx.as_abi(), argv.as_mut_ptr().cast(), arguments.len()) })
    });
    ctx.finish();
    arguments.give_back();
}

/// The commands whose callbacks find their keys or channels, by their names.
static FINDERS: RwLock<BTreeMap<Vec<u8>, &'static ModuleCommand>> = RwLock::new(BTreeMap::new());

/// From now on the command is asked for its keys or channels. One that was loaded again replaces its predecessor.
pub(super) fn register_finder(command: &'static ModuleCommand) {
    let mut finders = FINDERS.write().expect("no holder of the list panics");
    finders.insert(command.full_name.to_bytes().to_vec(), command);
}

/// A module is unloaded: none of its commands is asked any more.
pub(super) fn forget_finders(module: &Module) {
    let mut finders = FINDERS.write().expect("no holder of the list panics");
    finders.retain(|_, command| !std::ptr::eq(command.module, module));
}

/// The command that a request calls, among those.
fn find(args: Argv<'_>) -> Option<&'static ModuleCommand> {
    let finders = FINDERS.read().expect("no holder of the list panics");
    let name = args.get(0)?.to_ascii_lowercase();
    if let Some(command) = finders.get(&name) {
        return Some(command);
    }
    let full_name = [&name, args.get(1)?.to_ascii_lowercase().as_slice()].join(&b'|');
    finders.get(&full_name).copied()
}
