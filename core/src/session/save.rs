//! SAVE and LASTSAVE: snapshots of all shards, in one file.

use crate::command::docs::Docs;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::{Argv, Reply, Resp};
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[LASTSAVE, SAVE];

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

/// SAVE. Each shard writes its keys, as of one moment, to the file. Reply: OK. Errors: the file cannot be written; the log
/// says why. O(bytes).
fn save(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let outcome = ctx.worker.save_part(&mut |_| {});

    match outcome {
        Some(Err(_)) => Err(CommandError::fixed("ERR")),
        Some(Ok(())) | None => {
            if outcome.is_some() {
                ctx.worker.globals.persistence.count_save();
            }
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
