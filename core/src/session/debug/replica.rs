//! DEBUG's verbs about replication. Most are the server's own, which it runs when it becomes a replica, loads its master's snapshot, or
//! becomes a master, because they have to lock the keys of all shards: see `worker/link`.

use super::aof::only_server;
use crate::command::{CommandError, CommandResult, args};
use crate::protocol::number::parse_i64;
use crate::runtime::log;
use crate::shard::lazyfree::Freeing;
use crate::worker::snapshot::Purpose;
use crate::worker::{SessionCtx, Worker};

/// REPLICA-BEGIN. What this server does itself is no part of the replication stream any more. Runs twice. Reply: OK.
pub(super) fn begin(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    ctx.worker.end_own_stream();
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-CUT. Disconnects the replicas of this server. Reply: OK.
pub(super) fn cut(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    ctx.worker.cut_replicas();
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-LOAD KEEP|FLUSH. The shard begins to load what it is offered, beside its keys; with FLUSH these, and all libraries, are
/// removed, and who replicates from this server has to begin anew. Reply: OK.
pub(super) fn load(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let worker = &mut *ctx.worker;
    if args::is(ctx.args.arg(2), "flush") {
        detach_readers(worker);
        let freeing = if worker.shard.config.replica_lazy_flush { Freeing::Later } else { Freeing::Now };
        worker.shard.flush_all(freeing);
        worker.drop_libraries();
    }
    worker.load_aside();
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-SWAP. What was loaded takes the place of all keys and libraries. Who replicates from this server has to begin anew.
/// Reply: OK.
pub(super) fn swap(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let worker = &mut *ctx.worker;
    detach_readers(worker);
    worker.adopt_aside();
    if worker.shard.index == 0 {
        // Without a file that was made of it, it is not saved.
        worker.shard.changed(1);
    }
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-DISCARD. Drops what was loaded. Reply: OK.
pub(super) fn discard(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    ctx.worker.discard_aside();
    ctx.reply.ok();
    Ok(())
}

/// The data that is saved, replicated and written to the append-only file goes away.
fn detach_readers(worker: &mut Worker) {
    worker.cancel_snapshot(&[Purpose::Save, Purpose::Rewrite]);
    worker.cut_replicas();
    worker.shard.effects.end_file();
}

/// REPLICATE word ... Replicas get these words as a request, and this server does nothing. Reply: OK.
pub(super) fn replicate(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let words = ctx.args.iter().skip(2);
    let shard = &mut ctx.worker.shard;
    shard.effects.add_for_replicas(ctx.call.db, words, shard.stats.dirty.get());
    ctx.reply.ok();
    Ok(())
}

/// CHANGE-REPL-ID. The history goes on under a new name, and under no other. Reply: OK.
pub(super) fn change_id(ctx: &mut SessionCtx<'_>) -> CommandResult {
    log::notice(format_args!("Changing replication IDs after receiving change-repl-id"));
    let now_ms = ctx.worker.clock().wall_ms();
    ctx.worker.globals.stream.renew_id(now_ms);
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-OFFSET. What this server does itself will continue its master's stream. Reply: OK.
pub(super) fn take_offset(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    ctx.worker.continue_stream();
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-PROMOTE number. From here on what this server does itself is recorded for replicas. Reply: OK.
pub(super) fn promote(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let number = parse_i64(ctx.arg(2)).ok_or(CommandError::NOT_INTEGER)?;
    let shard = &mut ctx.worker.shard;
    shard.effects.begin_sync(number as u64, shard.stats.dirty.get());
    ctx.reply.ok();
    Ok(())
}
