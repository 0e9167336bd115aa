//! Full synchronizations: when one begins, and with whom.
//!
//! A replica that needs the whole data set waits for a barrier: a unit over all shards under which each begins its part of a
//! snapshot and leaves an item in the stream, so that the snapshot is of an exact position. All replicas that wait at
//! that moment and want the same share the snapshot. With repl-diskless-sync it waits for more of them, for
//! repl-diskless-sync-delay, and its chunks go to the replicas as they are made; otherwise it is the file of a background save,
//! which is sent when it is complete. One that wants no keys needs the barrier alone.

use super::{STREAM_SHARD, Worker};
use crate::command::CommandResult;
use crate::command::docs::Docs;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, flag};
use crate::worker::snapshot::Wanted;
use crate::worker::{SessionCtx, SessionHandler};
use std::sync::atomic::Ordering;

/// A full synchronization that was started is taken as lost if it has not begun by then.
const START_PATIENCE_MS: i64 = 10_000;

const BARRIER_NAME: &str = "syncbarrier";

/// The row of the barrier.
pub const SYNC_BARRIER: &[Command] = &[Command::session(BARRIER_NAME, 1, &(run_barrier as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::SKIP_SLOWLOG)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::AllOk)
    .hidden()
    .docs(Docs::new("server", "7.0.0", "Begins a full synchronization").complexity("O(1)").internal())];

/// One shard's share. O(1).
fn run_barrier(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.globals.stream.sync_started_at_ms.store(0, Ordering::Relaxed);
    let outcome = ctx.worker.take_snapshot(Wanted::Synchronization, false);
    ctx.worker.stream.holds_feed = false;
    outcome.map(drop)
}

impl Worker {
    /// On the merging shard: starts a full synchronization, if one is due.
    pub(in crate::worker) fn begin_due_sync(&mut self) {
        let globals = &self.globals.stream;
        let now_ms = self.shard.now_ms;
        if self.shard.index != STREAM_SHARD || !globals.has_waiting() {
            return;
        }
        let started_at_ms = globals.sync_started_at_ms.load(Ordering::Relaxed);
        let persistence = &self.globals.persistence;
        if persistence.loading.is_on() || now_ms - started_at_ms < START_PATIENCE_MS {
            return;
        }
        // A replica has a snapshot to give between two runs of its master's stream.
        let link = &self.globals.link;
        if link.is_replica() && !(link.is_up() && self.is_between_runs()) {
            return;
        }
        let can_save = !persistence.snapshots.is_under_way();
        if globals.due_sync(&self.shard.config, now_ms, can_save).is_some() {
            globals.sync_started_at_ms.store(now_ms, Ordering::Relaxed);
            self.stream.holds_feed = link.is_replica();
            link.mark_sync_db();
            let table = self.table;
            self.begin_every_for_nobody(table.hidden(BARRIER_NAME));
        }
    }
}
