//! Transactions over several shards whose locks are granted when the users are others than those by which they were judged. Which
//! shard grants the last lock does not know all that is to run, so nothing runs anywhere: home judges the transaction again, and
//! starts it anew. What its client watches it goes on watching. And the reply to whatever is refused after a wait.

use super::super::Worker;
use super::{HomeTxn, SerialFallback, Start};
use crate::acl::User;
use crate::call::AclContext;
use crate::command::placement::Need;
use crate::command::table::CommandEntry;
use crate::command::{Call, CommandError};
use crate::protocol::{OwnedArgv, Reply, Resp};
use crate::shard::message::ReplyId;
use crate::shard::txn::{LockPoint, PartOfWide, Plan, TxnId};
use std::sync::Arc;

/// A command that waits for a lock, with everything it needs to run later.
pub(in crate::worker) struct ParkedCommand {
    /// The shard of its client.
    pub(in crate::worker) home: usize,
    pub(in crate::worker) reply_id: ReplyId,
    pub(in crate::worker) call: Call,
    pub(in crate::worker) args: OwnedArgv,
    /// Its client's user. What that may do counts when it runs.
    pub(in crate::worker) user: Arc<User>,
}

impl Worker {
    /// All locks of a plan are granted: what becomes of it.
    pub(super) fn decide_lock_point(&self, plan: &Plan) -> LockPoint {
        if !plan.may_run {
            LockPoint::Refused
        } else if plan.users_version.is_some_and(|version| version != self.globals.acl.version()) {
            LockPoint::UsersChanged
        } else {
            LockPoint::Run
        }
    }

    /// By which users a transaction was judged; `None`: it is not judged when it has its locks.
    pub(super) fn version_to_judge_by(&self, reply_id: ReplyId, start: &Start) -> Option<u64> {
        let is_of_client = reply_id != ReplyId::NOBODY && start.call.client != 0;
        (is_of_client && start.wide.call().is_none()).then_some(self.users_version)
    }

    /// The client's user of what waits at home.
    fn user_at_home(&self, reply_id: ReplyId, call: &Call) -> Arc<User> {
        match self.connection_of(reply_id).and_then(|at| self.connections[at].as_deref()) {
            Some(connection) => Arc::clone(connection.client.user()),
            None => self.globals.acl.user_of(call),
        }
    }

    /// What the shards need for a transaction that is about to start.
    pub(super) fn needs_of(&self, start: &Start, watching: &[u16]) -> Vec<Need> {
        let mut needs = start.multi.routes.needs(self.table, &start.multi.queue, self.shard.shard_count);
        // A program in an EXEC may call a module's, which opens keys of the only shard without locking them.
        if self.shard.shard_count == 1
            && start.wide == PartOfWide::Beginning
            && self.has_programs_of_modules()
        {
            needs[0].whole = true;
        }
        watching.iter().for_each(|&shard| needs[usize::from(shard)].takes_part = true);
        needs[self.shard.index].takes_part |= self.last_session_write(&start.multi).is_some();
        needs
    }

    /// At home: the users have changed, and nothing of a transaction was done. Judges it again, and starts it anew.
    pub(super) fn begin_anew(&mut self, id: TxnId, txn: HomeTxn) {
        self.refuse_wide(id);
        if txn.is_coalesced {
            self.fall_back_to_serial(txn);
            return;
        }
        let HomeTxn { entry, call, is_exec, wide, reply_id, multi, blocks, count, watching, .. } = txn;
        let behind = txn.behind;
        self.pools.give_buffer(txn.reply);
        let (user, home) = (self.user_at_home(reply_id, &call), self.shard.index);
        let multi = if is_exec || !blocks.is_empty() {
            self.without_refused_at_home(&user, &call, multi)
        } else {
            let queued = self.table.entry(multi.queue.commands()[0].call.command);
            if let Some(error) = self.refusal_after_wait(&user, &call, home, queued, multi.queue.args(0)) {
                let mut reply = self.refused_reply(queued, &error);
                self.unwatch(call.client, &watching);
                self.give_command_queue(multi);
                match behind {
                    None => self.fulfil(reply_id, &reply),
                    Some(mut behind) => {
                        behind.reply.append(&mut reply);
                        self.run_serially(reply_id, behind);
                    }
                }
                return;
            }
            multi
        };
        self.shard.stats.transaction_retries.add(1);
        let one = Start::one(entry, call, multi);
        let mut start = Start { blocks, counted: count, wide, behind, ..one };
        self.gather(&mut start);
        let needs = self.needs_of(&start, &watching);
        if wide == PartOfWide::Beginning {
            self.await_token(reply_id, start, needs, &watching);
        } else {
            self.send_plan(reply_id, start, needs, &watching, None);
        }
    }

    /// Passes over the next commands of a serial fallback that their client may not call any more.
    pub(super) fn refuse_next_serially(&mut self, reply_id: ReplyId, behind: &mut SerialFallback) {
        while let Some(queued) = behind.multi.queue.commands().get(behind.next) {
            let call = queued.call;
            if behind.blocks.front().is_some_and(|block| block.first == behind.next) {
                return;
            }
            let (user, home) = (self.user_at_home(reply_id, &call), self.shard.index);
            let (entry, args) = (self.table.entry(call.command), behind.multi.queue.args(behind.next));
            let Some(error) = self.refusal_after_wait(&user, &call, home, entry, args) else { return };
            behind.reply.append(&mut self.refused_reply(entry, &error));
            behind.next += 1;
        }
    }

    /// The error of a queued command of an EXEC of a serial fallback, if its client may not call it any more.
    pub(super) fn refusal_serially(
        &mut self,
        reply_id: ReplyId,
        behind: &SerialFallback,
        at: usize,
    ) -> Option<CommandError> {
        let call = behind.multi.queue.commands()[at].call;
        let user = self.user_at_home(reply_id, &call);
        let entry = self.table.entry(call.command);
        let now = self.restricted_after_wait(&user, &call)?;
        let (home, args) = (self.shard.index, behind.multi.queue.args(at));
        self.judge_after_wait(&user, &now, &call, home, entry, args, AclContext::Multi)
    }

    /// The reply to a command that is refused after it has waited, which is counted.
    pub(in crate::worker) fn refused_reply(&self, entry: &CommandEntry, error: &CommandError) -> Vec<u8> {
        self.shard.stats.command(entry.stands_for.unwrap_or(entry.id)).rejected.add(1);
        self.shard.stats.error(error.code());
        let mut reply = Vec::new();
        Reply::new(&mut reply, Resp::V2).error(error.as_bytes());
        reply
    }
}
