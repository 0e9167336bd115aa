//! FLUSHDB and FLUSHALL.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::shard::lazyfree::Freeing;

pub(super) const FLUSHDB: Command = Command::keys("flushdb", -1, flushdb)
    .flags(flag::WRITE)
    .acl(acl::KEYSPACE | acl::DANGEROUS)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::AllOk)
    .docs(
        Docs::new("server", "1.0.0", "Removes all keys of the selected database")
            .complexity("O(N), where N is the number of keys in the database")
            .arguments("[async(ASYNC@4.0.0 | SYNC@6.2.0)]")
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .history(&[("4.0.0", "Option `ASYNC`"), ("6.2.0", "Option `SYNC`")]),
    );

/// FLUSHDB [ASYNC | SYNC]. Empties the selected database. Reply: OK. Errors: syntax. O(keys), with ASYNC behind the
/// reply.
fn flushdb(ctx: &mut Ctx<'_>) -> CommandResult {
    let freeing = freeing(ctx)?;

    let removed = ctx.shard.flush_db(ctx.call.db, freeing);

    ctx.shard.changed(removed);
    ctx.shard.effects.force();
    ctx.reply.ok();
    Ok(())
}

pub(super) const FLUSHALL: Command = Command::keys("flushall", -1, flushall)
    .flags(flag::WRITE)
    .acl(acl::KEYSPACE | acl::DANGEROUS)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::AllOk)
    .docs(
        Docs::new("server", "1.0.0", "Removes all keys of all databases")
            .complexity("O(N), where N is the number of keys in all databases")
            .arguments("[async(ASYNC@4.0.0 | SYNC@6.2.0)]")
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .history(&[("4.0.0", "Option `ASYNC`"), ("6.2.0", "Option `SYNC`")]),
    );

/// FLUSHALL [ASYNC | SYNC]. Empties all databases, and the RDB file, too, if there are save points. Reply: OK. Errors: syntax.
/// O(keys), with ASYNC behind the reply.
fn flushall(ctx: &mut Ctx<'_>) -> CommandResult {
    let freeing = freeing(ctx)?;

    let removed = ctx.shard.flush_all(freeing);

    ctx.shard.changed(removed);
    ctx.shard.has_flushed_all = true;
    ctx.shard.effects.force();
    ctx.reply.ok();
    Ok(())
}

/// When the memory is to be freed, by the option or else by lazyfree-lazy-user-flush.
fn freeing(ctx: &Ctx<'_>) -> CommandResult<Freeing> {
    match ctx.args.len() {
        1 if ctx.shard.config.lazyfree_lazy_user_flush => Ok(Freeing::Later),
        1 => Ok(Freeing::Now),
        2 if args::is(ctx.arg(1), "async") => Ok(Freeing::Later),
        2 if args::is(ctx.arg(1), "sync") => Ok(Freeing::Now),
        _ => Err(CommandError::SYNTAX),
    }
}
