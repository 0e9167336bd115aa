//! DEBUG's verbs that the server itself runs when it becomes a replica, loads its master's snapshot, or becomes a master: they have
//! to lock the keys of all shards. See `worker/link`.

use super::aof::only_server;
use crate::command::{CommandError, CommandResult};
use crate::persist::rdb::file::FileReader;
use crate::protocol::number::parse_i64;
use crate::runtime::disk::{Disk, SystemDisk};
use crate::shard::lazyfree::Freeing;
use crate::worker::SessionCtx;
use crate::worker::load::Duplicates;
use crate::worker::snapshot::Purpose;

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

/// REPLICA-EMPTY. Removes all keys and libraries. Reply: OK.
pub(super) fn empty(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    ctx.worker.shard.flush_all(Freeing::Now);
    ctx.worker.drop_libraries();
    ctx.reply.ok();
    Ok(())
}

/// REPLICA-LOAD. Puts the RDB file in the place of all keys and libraries, each shard its own. Who replicates from this server has
/// to begin anew. Reply: OK, also if that fails; the link knows of it.
pub(super) fn load(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let worker = &mut *ctx.worker;
    worker.cancel_snapshot(&[Purpose::Save, Purpose::Rewrite]);
    worker.cut_replicas();
    worker.shard.effects.end_file();
    let freeing = if worker.shard.config.replica_lazy_flush { Freeing::Later } else { Freeing::Now };
    worker.shard.flush_all(freeing);
    worker.drop_libraries();

    let mut load = || -> Result<(), String> {
        let config = worker.shard.config.clone();
        let file = SystemDisk.reader(config.dbfilename.as_path());
        let mut source = file.map_err(|error| error.to_string())?;
        let mut reader = FileReader::new(config.rdbchecksum);
        let outcome = worker.reload(&mut source, &mut reader, Duplicates::Refused);
        outcome.map_err(|error| error.to_string())
    };
    if let Err(why) = load() {
        worker.globals.link.set_load_error(why);
    }
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
