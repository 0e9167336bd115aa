//! SAVE, BGSAVE, BGREWRITEAOF and LASTSAVE: snapshots of all shards, in one file.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::{Argv, Reply, Resp};
use crate::session::session;
use crate::worker::snapshot::Wanted;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[BGREWRITEAOF, BGSAVE, LASTSAVE, SAVE];

const LASTSAVE: Command = session("lastsave", 1, &(lastsave as SessionHandler))
    .flags(flag::LOADING | flag::STALE | flag::FAST)
    .acl(acl::ADMIN | acl::DANGEROUS)
    .constant_time()
    .docs(
        Docs::new("server", "1.0.0", "Tells when the data set was saved last")
            .complexity("O(1)")
            .tips(&["nondeterministic_output"]),
    );

/// LASTSAVE. Reply: integer, the unix time in seconds of the last successful save, or of the start. O(1).
fn lastsave(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let saved_at_s = ctx.worker.globals.persistence.last_save_at_s();

    ctx.reply.integer(saved_at_s);
    Ok(())
}

const SAVE: Command = session("save", 1, &(save as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::With(merge_save))
    .docs(
        Docs::new("server", "1.0.0", "Saves the data set to disk, and waits for it")
            .complexity("O(N), where N is the number of keys in all databases"),
    );

/// SAVE. Each shard writes its keys, as of one moment, to the file. Reply: OK. Errors: a background save is running; the
/// file cannot be written; the log says why. O(bytes).
fn save(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.take_snapshot(Wanted::SaveAtOnce, ctx.call.in_exec)?;

    let outcome = ctx.worker.save_part(&mut |_| {});

    if outcome.is_some() {
        ctx.worker.globals.persistence.count_save();
    }
    match outcome {
        Some(Err(_)) => Err(CommandError::fixed("ERR")),
        Some(Ok(())) | None => {
            ctx.reply.ok();
            Ok(())
        }
    }
}

/// The shard that was done last knows of an error.
fn merge_save(replies: &[&[u8]], _: Argv<'_>, out: &mut Vec<u8>) {
    match replies.iter().find(|reply| reply.starts_with(b"-")) {
        Some(error) => out.extend_from_slice(error),
        None => Reply::new(out, Resp::V2).ok(),
    }
}

const BGSAVE: Command = session("bgsave", -1, &(bgsave as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::With(merge_same))
    .constant_time()
    .docs(
        Docs::new("server", "1.0.0", "Saves the data set to disk while commands go on")
            .complexity("O(1)")
            .arguments("[SCHEDULE@3.2.2]")
            .history(&[("3.2.2", "Option `SCHEDULE`")]),
    );

/// BGSAVE [SCHEDULE]. Begins a snapshot of this moment, which all shards then write to the file in slices. In an EXEC it is
/// scheduled, because the snapshot is not to have half of that. Reply: a status. Errors: syntax; one is under way, or a
/// rewrite of the append-only file, without SCHEDULE. O(1).
fn bgsave(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let wanted = match ctx.args.len() {
        1 => Wanted::Save,
        2 if args::is(ctx.arg(1), "schedule") => Wanted::ScheduledSave,
        _ => return Err(CommandError::SYNTAX),
    };

    let status = ctx.worker.take_snapshot(wanted, ctx.call.in_exec)?;

    ctx.reply.simple(status);
    Ok(())
}

const BGREWRITEAOF: Command = session("bgrewriteaof", 1, &(bgrewriteaof as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::With(merge_same))
    .constant_time()
    .docs(
        Docs::new("server", "1.0.0", "Writes the append-only file anew while commands go on")
            .complexity("O(1)"),
    );

/// BGREWRITEAOF. Begins a snapshot of this moment, which becomes the base of the append-only file, and a file of commands
/// behind it. In an EXEC, and while a save is under way, it is scheduled. Without an append-only file a base is written all the
/// same. Reply: a status. Errors: a rewrite is under way. O(1).
fn bgrewriteaof(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let status = ctx.worker.take_snapshot(Wanted::Rewrite, ctx.call.in_exec)?;

    ctx.reply.simple(status);
    Ok(())
}

/// All shards reply the same.
fn merge_same(replies: &[&[u8]], _: Argv<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(replies[0]);
}
