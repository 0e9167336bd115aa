//! MULTI, EXEC, DISCARD, WATCH, UNWATCH. What they begin is done by the worker; these are the rows, and the short replies.

use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[DISCARD, EXEC, MULTI, UNWATCH, WATCH];

const ANYTIME: u64 = flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::ALLOW_BUSY;

const MULTI: Command = session("multi", 1, &(multi as SessionHandler))
    .flags(ANYTIME | flag::RUNS_IN_MULTI)
    .acl(acl::TRANSACTION)
    .scope(Scope::Multi)
    .constant_time()
    .docs(
        Docs::new("transactions", "1.2.0", "Begins a transaction: the commands behind it are queued")
            .complexity("O(1)"),
    );

/// MULTI. Reply: OK. Errors: the client has begun one already. O(1).
fn multi(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.client().multi.is_some() {
        return Err(CommandError::fixed("ERR MULTI calls can not be nested"));
    }

    let mut multi = ctx.worker.take_command_queue();
    multi.db = ctx.client().db;
    ctx.client().multi = Some(multi);

    ctx.reply.ok();
    Ok(())
}

const EXEC: Command = session("exec", 1, &(exec as SessionHandler))
    .flags(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SKIP_SLOWLOG)
    .acl(acl::TRANSACTION)
    .scope(Scope::Exec)
    .docs(
        Docs::new("transactions", "1.2.0", "Runs the queued commands as one")
            .complexity("Depends on commands in the transaction"),
    );

/// EXEC. Reply: array of the replies to the queued commands, or null if a watched key has changed. Errors: no MULTI
/// before it; a command could not be queued. This is the handler for the errors: the worker runs queues.
fn exec(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.client().multi.is_none() {
        return Err(CommandError::fixed("ERR EXEC without MULTI"));
    }

    let at = ctx.conn.expect("a session command runs beside its connection");
    ctx.worker.discard(at);

    ctx.worker.shard.stats.exec_aborted_by_error.add(1);
    Err(CommandError::fixed("EXECABORT Transaction discarded because of previous errors."))
}

const DISCARD: Command = session("discard", 1, &(discard as SessionHandler))
    .flags(ANYTIME | flag::RUNS_IN_MULTI)
    .acl(acl::TRANSACTION)
    .docs(
        Docs::new("transactions", "2.0.0", "Ends a transaction without running the queued commands")
            .complexity("O(N), when N is the number of queued commands"),
    );

/// DISCARD. Also forgets what the client watches. Reply: OK. Errors: no MULTI before it. O(watched keys).
fn discard(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.client().multi.is_none() {
        return Err(CommandError::fixed("ERR DISCARD without MULTI"));
    }

    let at = ctx.conn.expect("a session command runs beside its connection");
    ctx.worker.discard(at);

    ctx.reply.ok();
    Ok(())
}

const WATCH: Command = Command::keys("watch", -2, watch)
    .flags(ANYTIME | flag::RUNS_IN_MULTI)
    .acl(acl::TRANSACTION)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO)])
    .scope(Scope::Watch)
    .merge(Merge::AllOk)
    .docs(
        Docs::new("transactions", "2.2.0", "Has the next EXEC run only if the keys have not changed by then")
            .complexity("O(1) for every key.")
            .arguments("key#0..."),
    );

/// WATCH key [key ...]. Reply: OK. Errors: a transaction has begun. O(keys).
fn watch(ctx: &mut Ctx<'_>) -> CommandResult {
    if ctx.call.in_exec {
        return Err(CommandError::fixed("ERR WATCH inside MULTI is not allowed"));
    }

    for at in 1..ctx.args.len() {
        ctx.shard.watch(ctx.call.client, ctx.call.db, ctx.key(at));
    }

    ctx.reply.ok();
    Ok(())
}

const UNWATCH: Command = session("unwatch", 1, &(unwatch as SessionHandler))
    .flags(ANYTIME)
    .acl(acl::TRANSACTION)
    .constant_time()
    .docs(Docs::new("transactions", "2.2.0", "Forgets what the client watches").complexity("O(1)"));

/// UNWATCH. Reply: OK. O(watched keys).
fn unwatch(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let at = ctx.conn.expect("a session command runs beside its connection");
    ctx.worker.unwatch_all(at);

    ctx.reply.ok();
    Ok(())
}
