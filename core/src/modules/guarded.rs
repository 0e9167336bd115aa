//! Commands of the server that have modules called.
//!
//! COPY, DUMP, RESTORE, MEMORY USAGE and SAVE may come to a value of a module's type, whose callbacks then do the work; and
//! modules may want to be told of a flush, a swap of databases or a save. A module that is not shard-safe sees one callback at a
//! time, and a thread of it may have the [turn](super::turn) for long. So that no shard waits for that, these commands become
//! programs as soon as such a module is loaded: they take the token, as the module's own commands do, and whatever else has the
//! turn then has it only for the length of a callback. Such a program runs what the command was before its row was replaced
//! ([`CommandTable::replacing`]), and tells the modules before and after it.
//!
//! While a module is told of what is done to keys, so are all commands that change keys, and do not block: they have what they have
//! done told before they end, and what the modules do then is of one unit with them. Modules may come to any key then. A script that
//! may write is a wide program meanwhile, and one that keeps to its declared keys otherwise. When nobody is told any more, the
//! commands are what they were.
//!
//! A script that keeps to its declared keys, and a shard-safe module, call the command as it was before: they are no wide
//! programs. A value of a foreign module's type may have them wait for its turn. DEBUG, which is for tests, does so as well. A
//! background save waits until the turn is free, and nobody else waits because of it.

use super::commands::handler;
use super::events;
use super::module::Module;
use crate::command::CommandResult;
use crate::command::table::{Command, CommandTable, Run, Scope, flag};
use crate::command::{args, keys};
use crate::protocol::number::parse_i64;
use crate::worker::program::{ProgramCtx, ProgramHandler};
use shardis_modules_api::abi::{
    REDISMODULE_EVENT_FLUSHDB, REDISMODULE_EVENT_PERSISTENCE, REDISMODULE_EVENT_SWAPDB,
    REDISMODULE_SUBEVENT_PERSISTENCE_ENDED, REDISMODULE_SUBEVENT_PERSISTENCE_FAILED,
    REDISMODULE_SUBEVENT_PERSISTENCE_SYNC_RDB_START,
};

static AS_IT_WAS: ProgramHandler = handler(run_as_it_was);
static FLUSHALL: ProgramHandler = handler(flushall);
static FLUSHDB: ProgramHandler = handler(flushdb);
static SAVE: ProgramHandler = handler(save);
static SWAPDB: ProgramHandler = handler(swapdb);

/// The commands, `container|subcommand` for one that is a subcommand.
static GUARDED: [(&str, &ProgramHandler); 8] = [
    ("copy", &AS_IT_WAS),
    ("dump", &AS_IT_WAS),
    ("flushall", &FLUSHALL),
    ("flushdb", &FLUSHDB),
    ("memory|usage", &AS_IT_WAS),
    ("restore", &AS_IT_WAS),
    ("save", &SAVE),
    ("swapdb", &SWAPDB),
];

/// Whether these commands have to be programs once the module is loaded.
fn is_needed_for(module: &Module) -> bool {
    let is_told = [REDISMODULE_EVENT_FLUSHDB, REDISMODULE_EVENT_PERSISTENCE, REDISMODULE_EVENT_SWAPDB];
    !module.is_shard_safe() || is_told.into_iter().any(events::is_told)
}

/// A table in which the commands are programs that have to be, once these modules are loaded.
///
/// # Errors
/// There are too many commands.
pub(super) fn as_needed(
    mut table: CommandTable,
    modules: &[&'static Module],
) -> Result<CommandTable, String> {
    if modules.iter().any(|module| is_needed_for(module)) {
        table = guard(table)?;
    }
    as_told(&table)
}

/// A copy of a table in which all commands that change keys are programs that tell the modules of it, or none, as modules want to
/// be told now.
///
/// # Errors
/// There are too many commands.
pub(super) fn as_told(table: &CommandTable) -> Result<CommandTable, String> {
    if !events::are_changes_told() {
        return Ok(table.restoring(|row| row.has(flag::TELLS_KEYS)));
    }

    let tells = |row: &Command| {
        let is_over_keys =
            matches!(row.scope, Scope::Keys) && matches!(row.run, Run::Keys(_) | Run::Native(_));
        row.has(flag::WRITE) && is_over_keys && !row.is_hidden
    };
    let new = |row: &Command| {
        if !tells(row) {
            return Command { ..*row };
        }
        let row = guarded(row, &AS_IT_WAS);
        Command { flags: row.flags | flag::TELLS_KEYS, is_constant_time: false, ..row }
    };
    let plain = |row: &Command| if tells(row) { unlogged(row) } else { Command { ..*row } };
    let mut rows = Vec::new();
    for entry in table.all().filter(|entry| entry.parent.is_none() && entry.plain.is_none()) {
        let row = entry.row;
        if !tells(row) && !row.subcommands.iter().any(tells) {
            continue;
        }
        let subcommands_by = |change: &dyn Fn(&Command) -> Command| -> &'static [Command] {
            row.subcommands.iter().map(change).collect::<Vec<_>>().leak()
        };
        let new = Command { subcommands: subcommands_by(&new), ..new(row) };
        let plain = Command { subcommands: subcommands_by(&plain), ..plain(row) };
        rows.push((leaked(new), leaked(plain)));
    }
    table.replacing(&rows)
}

/// A copy of a table in which these commands are programs.
///
/// # Errors
/// There are too many commands.
fn guard(table: CommandTable) -> Result<CommandTable, String> {
    let mut rows = Vec::new();
    for (name, handler) in GUARDED {
        let (top, sub) = name.split_once('|').map_or((name, None), |(top, sub)| (top, Some(sub)));
        let Some(entry) = table.by_own_name(top.as_bytes()).filter(|entry| entry.plain.is_none()) else {
            continue;
        };
        let row = entry.row;
        let (new, plain) = match sub {
            None => (guarded(row, handler), unlogged(row)),
            Some(sub) => {
                let with = |change: &dyn Fn(&Command) -> Command| -> Command {
                    let of = |row: &Command| if row.name == sub { change(row) } else { Command { ..*row } };
                    let subcommands = row.subcommands.iter().map(of).collect::<Vec<_>>().leak();
                    Command { subcommands, ..*row }
                };
                (with(&|row| guarded(row, handler)), with(&unlogged))
            }
        };
        rows.push((leaked(new), leaked(plain)));
    }
    table.replacing(&rows)
}

fn leaked(row: Command) -> &'static Command {
    Box::leak(Box::new(row))
}

fn guarded(row: &Command, handler: &'static ProgramHandler) -> Command {
    Command { run: Run::Program(handler), scope: Scope::Keys, ..*row }
}

/// The row that runs within the program, which is what the slow log has.
fn unlogged(row: &Command) -> Command {
    Command { flags: row.flags | flag::SKIP_SLOWLOG, ..*row }
}

/// Runs the command as it was before it was replaced, and replies what that replies. Returns whether it has succeeded.
fn run_plain(ctx: &mut ProgramCtx<'_>) -> bool {
    let mut reply = Vec::new();
    // A program that has been stopped returns, and so does this one.
    let _ = ctx.call_plain(&mut reply);
    let has_failed = reply.first() == Some(&b'-');
    if has_failed {
        // The error itself was counted when it came up.
        let command = ctx.call.command;
        ctx.worker().shard.stats.command(command).failed.add(1);
    }
    ctx.reply.raw(&reply);
    !has_failed
}

/// COPY, DUMP, MEMORY USAGE, RESTORE; and what changes keys.
fn run_as_it_was(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    bring_keys(ctx);
    run_plain(ctx);
    Ok(())
}

/// Has the keys of a command here, if what happens to them is to be told by this program.
fn bring_keys(ctx: &mut ProgramCtx<'_>) {
    let (call, args) = (*ctx.call, ctx.args);
    let worker = ctx.worker();
    let row = worker.table.entry(call.command).row;
    let db_count = worker.shard.db_count();
    let is_told = row.has(flag::WRITE) && worker.tells_keys_within();
    if worker.shard.shard_count == 1 || !is_told || row.other_db.is_some() {
        return;
    }
    let (mut keys, mut is_of_one_db) = (Vec::new(), true);
    keys::each(row, args, |at, _| {
        keys.push(args.arg(at));
        is_of_one_db &= (row.key_db)(args, at, call.db, db_count) == call.db;
    });
    // One with keys in several databases runs where these are.
    if is_of_one_db && ctx.bring_all(call.db, &keys) {
        ctx.await_brought();
    }
}

/// FLUSHALL [ASYNC | SYNC].
fn flushall(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    flush(ctx, None);
    Ok(())
}

/// FLUSHDB [ASYNC | SYNC].
fn flushdb(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let db = ctx.call.db;
    flush(ctx, Some(db));
    Ok(())
}

fn flush(ctx: &mut ProgramCtx<'_>, db: Option<u32>) {
    let is_later = ctx.worker().shard.config.lazyfree_lazy_user_flush;
    let is_now = match ctx.args.get(1) {
        None => Some(!is_later),
        Some(word) if args::is(word, "sync") => Some(true),
        Some(word) if args::is(word, "async") => Some(false),
        Some(_) => None,
    };
    // What is a syntax error flushes nothing.
    let is_now = is_now.filter(|_| ctx.args.len() <= 2);
    if let Some(is_now) = is_now {
        events::flushes(ctx, db, is_now, false);
    }
    run_plain(ctx);
    if let Some(is_now) = is_now {
        events::flushes(ctx, db, is_now, true);
    }
}

/// SWAPDB db1 db2.
fn swapdb(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let db = |at: usize| parse_i64(ctx.arg(at)).and_then(|db| i32::try_from(db).ok());
    let dbs = db(1).zip(db(2));
    let has_swapped = run_plain(ctx);
    if let Some((first, second)) = dbs.filter(|_| has_swapped) {
        events::swapped(ctx, first, second);
    }
    Ok(())
}

/// SAVE.
fn save(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    events::saves(ctx, REDISMODULE_SUBEVENT_PERSISTENCE_SYNC_RDB_START);
    let has_saved = run_plain(ctx);
    let outcome = match has_saved {
        true => REDISMODULE_SUBEVENT_PERSISTENCE_ENDED,
        false => REDISMODULE_SUBEVENT_PERSISTENCE_FAILED,
    };
    events::saves(ctx, outcome);
    Ok(())
}
