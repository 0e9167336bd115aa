//! Home's side of a transaction: collects what the shards return, stage by stage, and replies.

use super::stage::{self, StageKind};
use super::{Block, HomeTxn, SPARE_SHARD_BATCHES_MAX, SerialFallback, Start, merge};
use crate::command::error::code_of;
use crate::command::placement::Placement;
use crate::command::table::{CommandId, Run, Scope, flag};
use crate::command::{Call, Ctx};
use crate::protocol::{OwnedArgv, Reply, Resp};
use crate::pubsub::OpenMessages;
use crate::shard::checkout::MovedEntry;
use crate::shard::effects::PieceId;
use crate::shard::message::{Message, ReplyId};
use crate::shard::observe::CheckedOutEvent;
use crate::shard::program_stats::ProgramCounts;
use crate::shard::slot::shard_of;
use crate::shard::txn::{
    CheckIn, CheckOut, CheckedOutKey, Outcome, PartOfWide, ShardBatch, TxnId, TxnMessage, Work,
};
use crate::types::hash_key;
use crate::worker::Worker;
use crate::worker::acl::may_change_rights;
use crate::worker::blocked::CheckedOutWaits;
use crate::worker::program::{CheckedOut, EndedStage};
use crate::worker::run::Invocation;
use smallvec::SmallVec;
use std::collections::{HashSet, VecDeque};
use std::ops::Range;

/// Reads the replies of a shard batch in order.
struct Replies<'a> {
    shard_batch: &'a ShardBatch,
    next: usize,
}

impl<'a> Replies<'a> {
    /// The next command's reply, and the nanoseconds that it ran.
    fn next(&mut self) -> (&'a [u8], u64) {
        let start = if self.next == 0 { 0 } else { self.shard_batch.ran[self.next - 1].0 };
        let (end, nanos) = self.shard_batch.ran[self.next];
        self.next += 1;
        (&self.shard_batch.replies[start..end], nanos)
    }
}

/// For each shard: the commands that it has run.
type ShardBatches = SmallVec<[Option<Box<ShardBatch>>; 8]>;

/// The keys of a shard that were moved here.
fn moved(keys: &Option<Vec<CheckedOutKey>>) -> &[CheckedOutKey] {
    keys.as_deref().unwrap_or_default()
}

/// What the shards have done in a stage: the commands that they have run, and the entries that they hand over.
fn take_outcomes(txn: &mut HomeTxn) -> (ShardBatches, Vec<Vec<Option<MovedEntry>>>) {
    let mut shard_batches = ShardBatches::new();
    let mut all_entries = Vec::new();
    for outcome in std::mem::take(&mut txn.outcomes) {
        let (shard_batch, entries) = match outcome {
            Some(Outcome::Ran(shard_batch)) => (Some(shard_batch), Vec::new()),
            Some(Outcome::Entries(checked_out)) => {
                txn.pieces = checked_out.pieces;
                (checked_out.ran, checked_out.entries)
            }
            Some(Outcome::Nothing) | None => (None, Vec::new()),
            Some(Outcome::Refused | Outcome::UsersChanged) => {
                unreachable!("nothing of a refused transaction runs")
            }
        };
        shard_batches.push(shard_batch);
        if txn.stage.kind == StageKind::CheckOut {
            all_entries.push(entries);
        }
    }
    (shard_batches, all_entries)
}

impl Worker {
    /// The calling connection, if it is one of this shard and still open.
    pub(super) fn local_caller(&self, id: TxnId) -> Option<usize> {
        if id.home as usize != self.shard.index {
            return None;
        }
        self.caller(self.transact.home.get(&id.number)?)
    }

    fn caller(&self, txn: &HomeTxn) -> Option<usize> {
        self.connection_of(txn.reply_id)
    }

    /// Takes in a shard's outcome. The last one ends the stage.
    pub(super) fn collect(&mut self, id: TxnId, shard: usize, outcome: Outcome) {
        let txn = self.transact.home.get_mut(&id.number).expect("a transaction ends after its last outcome");
        let place = stage::place_of(&txn.shards, shard as u16);
        assert!(txn.outcomes[place].replace(outcome).is_none(), "a shard answers once");
        txn.missing -= 1;
        if txn.missing > 0 {
            return;
        }
        let mut txn = self.transact.home.remove(&id.number).expect("it was there just now");
        if txn.outcomes.iter().any(|outcome| matches!(outcome, Some(Outcome::UsersChanged))) {
            self.begin_anew(id, *txn);
            return;
        }
        if txn.outcomes.iter().any(|outcome| matches!(outcome, Some(Outcome::Refused))) {
            if txn.is_coalesced {
                self.fall_back_to_serial(*txn);
                return;
            }
            self.refuse_wide(id);
            self.shard.stats.exec_aborted_by_watch.add(1);
            if self.wants_reply(&txn) {
                txn.reply.clear();
                Reply::new(&mut txn.reply, txn.call.resp).null_array();
            }
            self.finish(id, txn);
            return;
        }
        if txn.derives_keys && self.check_out_derived(id, &mut txn) {
            self.transact.home.insert(id.number, txn);
            return;
        }
        if self.end_stage(id, &mut txn) {
            self.begin_next_stage(id, txn);
        } else {
            self.transact.home.insert(id.number, txn);
        }
    }

    /// A stage has ended: begins the next ones, up to one that does not end at once.
    fn begin_next_stage(&mut self, id: TxnId, mut txn: Box<HomeTxn>) {
        while let Some(stage) = stage::stage_from(txn.multi.routes.placements(), txn.stage.commands.end) {
            txn.stage = stage;
            if self.begin_stage(id, &mut txn) || !self.end_stage(id, &mut txn) {
                self.transact.home.insert(id.number, txn);
                return;
            }
        }
        self.finish(id, txn);
    }

    /// Sends the shards their work of a later stage. Returns whether there is any to wait for.
    fn begin_stage(&mut self, id: TxnId, txn: &mut HomeTxn) -> bool {
        if txn.is_exec {
            self.follow_session(txn);
        }
        txn.outcomes = txn.shards.iter().map(|_| None).collect();
        for (n, work) in self.stage_works(txn).into_iter().enumerate() {
            if !matches!(work, Work::Nothing) {
                txn.missing += 1;
                let keeps_locks = txn.keeps_locks(n);
                let step = TxnMessage::Step { id, work, keeps_locks };
                self.send(usize::from(txn.shards[n]), Message::Txn(step));
            }
        }
        txn.missing > 0
    }

    /// Has the commands of the present stage run as their client is by now.
    fn follow_session(&mut self, txn: &mut HomeTxn) {
        let Some(at) = self.caller(txn) else { return };
        let Some(client) = self.connections[at].as_deref().map(|connection| &connection.client) else {
            return;
        };
        let (resp, no_touch, has_named_user) = (client.resp, client.no_touch, client.has_named_user());
        let (mut db, db_count) = (client.db, self.shard.db_count());
        for at in txn.stage.commands.clone() {
            let queued = &mut txn.multi.queue.commands_mut()[at];
            queued.call = Call { db, resp, no_touch, has_named_user, ..queued.call };
            if let Some(selects) = self.table.entry(queued.call.command).row.selects
                && txn.refusal(at).is_none()
            {
                db = selects(txn.multi.queue.args(at), db_count).unwrap_or(db);
            }
        }
    }

    /// A command of an EXEC has run, as a stage by itself. If it may have changed the rights of those behind it, judges them
    /// anew, up to the next such command.
    fn judge_behind(&mut self, txn: &mut HomeTxn, at: usize) {
        let Some(conn) = self.caller(txn) else { return };
        let entry_at = |at: usize| self.table.entry(txn.multi.queue.commands()[at].call.command);
        if !txn.is_exec || !may_change_rights(entry_at(at)) {
            return;
        }
        let mut refused = Vec::new();
        for at in at + 1..txn.multi.queue.len() {
            let entry = self.table.entry(txn.multi.queue.commands()[at].call.command);
            match self.refusal_in_exec(conn, entry, txn.multi.queue.args(at)) {
                Some(error) => refused.push((at, error)),
                None if may_change_rights(entry) => break,
                None => {}
            }
        }
        txn.refused = refused;
    }

    /// If a command is one of [`HomeTxn::refused`]: replies why, and returns true.
    fn replies_refusal(&self, txn: &mut HomeTxn, at: usize) -> bool {
        let Some(error) = txn.refusal(at).cloned() else { return false };
        let resp = txn.multi.queue.commands()[at].call.resp;
        Reply::new(&mut txn.reply, resp).error(error.as_bytes());
        self.shard.stats.error(error.code());
        true
    }

    /// All shards have done their shares of the stage: makes the replies of its commands. False: its program was
    /// suspended, and the stage ends later.
    fn end_stage(&mut self, id: TxnId, txn: &mut HomeTxn) -> bool {
        let start = txn.reply.len();
        let was_closed = txn.is_closed;
        let first = txn.stage.commands.start;
        if txn.stage.kind == StageKind::CheckOut && txn.refusal(first).is_none() && self.is_of_programs(txn) {
            return self.run_program_stage(id, txn);
        }
        match txn.stage.kind {
            StageKind::Lists => {
                let (shard_batches, _) = take_outcomes(txn);
                self.make_replies(txn, shard_batches);
            }
            StageKind::CheckOut => self.run_checked_out(id, txn),
            StageKind::Session => self.run_session_stage(id, txn),
        }
        if txn.stage.kind == StageKind::Session && txn.refusal(first).is_none() {
            self.judge_behind(txn, first);
            txn.is_closed |= self.caller(txn).is_some_and(|at| self.is_closing(at));
        }
        if was_closed || !self.wants_reply(txn) {
            txn.reply.truncate(start);
        }
        true
    }

    /// Whether the present stage is a program, or several of a coalesced pipeline: they share a stage with nothing else.
    fn is_of_programs(&self, txn: &HomeTxn) -> bool {
        let call = &txn.multi.queue.commands()[txn.stage.commands.start].call;
        matches!(self.table.entry(call.command).row.run, Run::Program(_))
    }

    /// All entries that the programs of the stage need have arrived: runs them over these. False: one was suspended, and the
    /// stage ends later.
    fn run_program_stage(&mut self, id: TxnId, txn: &mut HomeTxn) -> bool {
        let at = txn.stage.commands.start;
        let keys = std::mem::take(&mut txn.keys);
        let (_, entries) = take_outcomes(txn);
        let (is_recorded, is_wide) = (txn.pieces != 0, txn.wide == PartOfWide::Beginning);
        let events = Vec::new();
        let brought = Vec::new();
        let has_more = at + 1 < txn.stage.commands.end;
        let checked_out = Box::new(CheckedOut {
            txn: id,
            at,
            has_more,
            is_recorded,
            is_wide,
            keys,
            entries,
            are_in_tables: false,
            events,
            brought,
        });
        self.run_programs(txn, checked_out)
    }

    /// Runs the programs of a stage. False: one was suspended.
    fn run_programs(&mut self, txn: &mut HomeTxn, mut checked_out: Box<CheckedOut>) -> bool {
        let began_ticks = self.time.ticks;
        loop {
            let at = checked_out.at;
            let call = txn.multi.queue.commands()[at].call;
            let entry = self.table.entry(call.command);
            let program = Invocation::new(entry, &call, txn.multi.queue.args(at), self.caller(txn));
            let Some(ended) = self.start_stage_program(&program, checked_out) else { return false };
            let goes_on = !self.time.clock.ends_slice(self.time.nanos_since(began_ticks));
            match self.end_program_of_stage(txn, ended, goes_on) {
                Some(next) => checked_out = next,
                None => return true,
            }
        }
    }

    /// A program of a stage has ended. The next one is to run over the keys that are returned. `None`: it was the last one, or
    /// the stage does not go on; the keys go back, and the other programs run behind the transaction.
    fn end_program_of_stage(
        &mut self,
        txn: &mut HomeTxn,
        ended: EndedStage,
        goes_on: bool,
    ) -> Option<Box<CheckedOut>> {
        let EndedStage { mut checked_out, reply, ran_nanos, is_misplaced, hold } = ended;
        let Range { start: first, end } = txn.stage.commands;
        txn.waits |= hold.is_some();
        txn.hold = hold;
        if !is_misplaced && !txn.is_closed && self.wants_reply(txn) {
            txn.reply.extend_from_slice(&reply);
        }
        self.pools.give_buffer(reply);
        txn.ran_nanos += ran_nanos;
        let next = if is_misplaced { checked_out.at } else { checked_out.at + 1 };
        if !is_misplaced && next < end && goes_on {
            checked_out.at = next;
            checked_out.has_more = next + 1 < end;
            return Some(checked_out);
        }
        self.judge_behind(txn, first);
        if checked_out.are_in_tables {
            self.take_out_of_tables(&mut checked_out);
        }
        let CheckedOut { txn: id, keys, entries, events, brought, .. } = *checked_out;
        self.send_brought_back(id, brought, &events);
        self.check_in_all(id, txn, &keys, entries, events, CheckedOutWaits::default());
        if !txn.is_coalesced {
            txn.is_misplaced = is_misplaced;
        } else if next < end {
            let (multi, reply) = (std::mem::take(&mut txn.multi), std::mem::take(&mut txn.reply));
            txn.behind = Some(Box::new(SerialFallback { multi, blocks: VecDeque::new(), next, reply }));
        }
        None
    }

    /// A program has ended that was suspended as part of a stage of a transaction, which goes on. Other programs of the stage
    /// have waited for long enough with their keys locked.
    pub(in crate::worker) fn program_stage_ended(&mut self, ended: EndedStage) {
        let id = ended.checked_out.txn;
        let mut txn = self.transact.home.remove(&id.number).expect("a transaction waits for its program");
        self.end_program_of_stage(&mut txn, ended, false);
        self.begin_next_stage(id, txn);
    }

    /// Whether the client gets the transaction's replies at this point. Always true if no session command in it can
    /// change that: whether the client gets the reply as a whole is decided elsewhere then.
    pub(super) fn wants_reply(&self, txn: &HomeTxn) -> bool {
        !txn.multi.has_session || self.caller(txn).is_none_or(|at| self.wants_reply_at(at))
    }

    /// Makes the replies of the stage's commands in order: merges those of the shards that have run them, and runs the
    /// others, whose keys are here. Returns what a blocking command among these waits for.
    fn make_replies(&mut self, txn: &mut HomeTxn, shard_batches: ShardBatches) -> CheckedOutWaits {
        let mut waits = CheckedOutWaits::default();
        let mut replies: SmallVec<[Option<Replies<'_>>; 8]> = shard_batches
            .iter()
            .map(|shard_batch| shard_batch.as_deref().map(|shard_batch| Replies { shard_batch, next: 0 }))
            .collect();
        let blocks = std::mem::take(&mut txn.blocks);
        let mut blocks = blocks.iter();
        let mut block = blocks.next();
        let mut block_began_nanos = 0;
        let closed_by = shard_batches.iter().flatten().find_map(|shard_batch| shard_batch.closed_by);
        for at in txn.stage.commands.clone() {
            let start = txn.reply.len();
            if let Some(block) = block
                && block.first == at
            {
                self.begin_block(block, &mut txn.reply);
                block_began_nanos = txn.ran_nanos;
            }
            if !self.replies_refusal(txn, at) {
                if txn.multi.routes.placement(at).is_checked_out() {
                    waits = self.run_over_entries(txn, at);
                } else {
                    self.merge_command(txn, at, &mut replies);
                }
            }
            if closed_by.is_some_and(|place| at > place as usize) {
                txn.reply.truncate(start);
            }
            if let Some(ended) = block
                && ended.first + ended.len == at + 1
            {
                self.count_exec(ended.exec, txn.ran_nanos - block_began_nanos);
                block = blocks.next();
            }
        }
        drop(replies);
        txn.is_closed |= closed_by.is_some();
        for mut shard_batch in shard_batches.into_iter().flatten() {
            txn.messages.append(&mut shard_batch.messages);
            if self.transact.spare_shard_batches.len() < SPARE_SHARD_BATCHES_MAX {
                shard_batch.clear();
                self.transact.spare_shard_batches.push(shard_batch);
            }
        }
        waits
    }

    /// Writes the replies to MULTI and to the commands that follow it, and the header of the reply to EXEC.
    fn begin_block(&self, block: &Block, reply: &mut Vec<u8>) {
        let stats = &self.shard.stats;
        stats.command(block.multi).record(0, self.shard.config.latency_tracking);
        stats.commands_processed.add(1);
        let mut reply = Reply::new(reply, Resp::V2);
        reply.ok();
        (0..block.len).for_each(|_| reply.simple("QUEUED"));
        reply.array(block.len);
    }

    fn count_exec(&self, exec: CommandId, ran_nanos: u64) {
        let stats = &self.shard.stats;
        stats.command(exec).record(ran_nanos, self.shard.config.latency_tracking);
        stats.commands_processed.add(1);
        if ran_nanos >= self.time.noted_from_nanos {
            self.note_late(ran_nanos, self.table.entry(exec));
        }
    }

    /// Writes the reply to a command, merged from those of the shards that have run it.
    fn merge_command(&mut self, txn: &mut HomeTxn, at: usize, replies: &mut [Option<Replies<'_>>]) {
        let placement = txn.multi.routes.placement(at);
        if placement == Placement::SessionPrecomputed {
            self.run_session(txn, at);
            return;
        }
        let start = txn.reply.len();
        let mut nanos = 0;
        let mut reply_of = |shard: u16| {
            let list = replies[stage::place_of(&txn.shards, shard)].as_mut();
            let (reply, share_nanos) = list.expect("it has run the command").next();
            nanos += share_nanos;
            reply
        };
        match placement {
            Placement::One(shard) => txn.reply.extend_from_slice(reply_of(shard as u16)),
            Placement::Anywhere => txn.reply.extend_from_slice(reply_of(txn.shards[0])),
            _ => {
                let keys = txn.multi.routes.keys(at);
                let shards = stage::command_shards(placement, keys, &txn.shards);
                let shares: SmallVec<[&[u8]; 8]> = shards.iter().map(|&shard| reply_of(shard)).collect();
                let entry = self.table.entry(txn.multi.queue.commands()[at].call.command);
                merge(entry, txn.multi.queue.args(at), &shards, keys, &shares, &mut txn.reply);
            }
        }
        txn.ran_nanos += nanos;
        self.count_command(txn, at, start, nanos);
    }

    /// How long the transaction has been under way without running.
    fn waited_by(&self, txn: &HomeTxn) -> u64 {
        let elapsed = self.time.nanos_since(txn.started_at_ticks);
        elapsed.saturating_sub(txn.ran_nanos)
    }

    /// Counts a command that shards have run as part of a transaction. Its reply begins at `start`.
    fn count_command(&mut self, txn: &HomeTxn, at: usize, start: usize, nanos: u64) {
        let call = &txn.multi.queue.commands()[at].call;
        let entry = self.table.entry(call.command);
        let stats = &self.shard.stats;
        let command = stats.command(entry.id);
        command.record(nanos, self.shard.config.latency_tracking);
        stats.commands_processed.add(1);
        if let Some(error) = txn.reply[start..].strip_prefix(b"-") {
            command.failed.add(1);
            stats.error(code_of(error));
        }
        if self.is_monitored() {
            self.show_command(&Invocation::new(entry, call, txn.multi.queue.args(at), None));
        }
        if nanos >= self.time.noted_from_nanos {
            self.note_slow(txn.multi.queue.args(at), nanos, call, entry);
        }
    }

    /// The lock point has decided how many pieces the effects have. Entries that are checked out tell that, too.
    pub(super) fn note_pieces(&mut self, id: TxnId, pieces: u32) {
        if let Some(txn) = self.transact.home.get_mut(&id.number)
            && txn.last_session_write.is_some()
        {
            txn.pieces = pieces;
        }
    }

    /// Runs the command of a stage over the session. What it writes is recorded with what home runs over checked-out entries.
    fn run_session_stage(&mut self, id: TxnId, txn: &mut HomeTxn) {
        let at = txn.stage.commands.start;
        let queued = &txn.multi.queue.commands()[at];
        let is_recorded = txn.pieces != 0 && self.table.entry(queued.call.command).row.has(flag::WRITE);
        if is_recorded {
            self.resume_piece(id, true);
            self.shard.effects.set_order(queued.place);
        }
        if !self.replies_refusal(txn, at) {
            self.run_session(txn, at);
        }
        if is_recorded {
            self.shard.effects.suspend_piece();
        }
        if txn.last_session_write != Some(at) || txn.wide != PartOfWide::No {
            return;
        }
        let home = stage::place_of(&txn.shards, self.shard.index as u16);
        if txn.last_stages[home] == Some(at) {
            // A message, because entries that were checked out from here may be on their way back.
            self.shard.stats.check_ins_sent.add(1);
            self.send(self.shard.index, Message::Txn(TxnMessage::End { id, pieces: txn.pieces }));
        }
    }

    /// Runs a command over the session, unless the client has disconnected.
    fn run_session(&mut self, txn: &mut HomeTxn, at: usize) {
        let Some(conn) = self.caller(txn) else { return };
        let Some(connection) = self.connections[conn].as_deref() else { return };
        let client = &connection.client;
        let queued = txn.multi.queue.commands()[at].call;
        let call = Call { db: client.db, resp: client.resp, no_touch: client.no_touch, ..queued };
        let entry = self.table.entry(call.command);
        let command = Invocation::new(entry, &call, txn.multi.queue.args(at), Some(conn));
        txn.ran_nanos += self.run(&command, &mut txn.reply).nanos;
    }

    /// The first keys of a check-out have arrived: asks the command which others it needs, checks these out, and has the
    /// shards without any release their locks. Returns whether there is anything to wait for.
    fn check_out_derived(&mut self, id: TxnId, txn: &mut HomeTxn) -> bool {
        txn.derives_keys = false;
        (_, txn.held_entries) = take_outcomes(txn);
        for (keys, entries) in txn.keys.iter().zip(&mut txn.held_entries) {
            self.shard.receive_checked_out(moved(keys), std::mem::take(entries));
        }
        let names = self.derived_keys(txn);
        // Not left in the tables: a shard shows only its own keys while it waits.
        for (keys, entries) in txn.keys.iter().zip(&mut txn.held_entries) {
            *entries = self.shard.send_checked_out_back(moved(keys));
        }

        let db = txn.multi.queue.commands()[txn.stage.commands.start].call.db;
        let mut seen: HashSet<(u32, &[u8]), ahash::RandomState> = HashSet::default();
        seen.extend(txn.keys.iter().flatten().flatten().map(|(db, _, key)| (*db, key.as_slice())));
        let mut more: Vec<Vec<CheckedOutKey>> = vec![Vec::new(); txn.shards.len()];
        for name in names.iter().filter(|name| seen.insert((db, name))) {
            let place = stage::place_of(&txn.shards, shard_of(name, self.shard.shard_count) as u16);
            more[place].push((db, hash_key(name), name.clone()));
        }
        drop(seen);
        txn.outcomes = txn.shards.iter().map(|_| None).collect();
        for (n, more) in more.into_iter().enumerate() {
            let work = match &mut txn.keys[n] {
                None if more.is_empty() => Work::Nothing,
                Some(_) if more.is_empty() => continue,
                keys => {
                    keys.get_or_insert_default().extend_from_slice(&more);
                    Work::CheckOut(Box::new(CheckOut { keys: more, list: None }))
                }
            };
            txn.missing += 1;
            let step = TxnMessage::Step { id, work, keeps_locks: txn.keeps_locks(n) };
            self.send(usize::from(txn.shards[n]), Message::Txn(step));
        }
        txn.missing > 0
    }

    /// The names of the keys that the command of the present stage needs besides those that were checked out.
    fn derived_keys(&mut self, txn: &HomeTxn) -> Vec<Vec<u8>> {
        let at = txn.stage.commands.start;
        if txn.refusal(at).is_some() {
            return Vec::new();
        }
        let call = &txn.multi.queue.commands()[at].call;
        let derived = self.table.entry(call.command).row.derived_keys.expect("its placement says so");
        let args = txn.multi.queue.args(at);
        let mut unused = Vec::new();
        let reply = Reply::new(&mut unused, call.resp);
        (derived.find)(&mut Ctx {
            shard: &mut self.shard,
            call,
            args,
            fetched: &[],
            served_from: None,
            reply,
        })
    }

    /// All entries have arrived: runs the handlers over them, and sends the keys back as these left them.
    fn run_checked_out(&mut self, id: TxnId, txn: &mut HomeTxn) {
        let keys = std::mem::take(&mut txn.keys);
        let (shard_batches, entries) = take_outcomes(txn);
        if let Some(call) = txn.wide.call().filter(|call| call.stays) {
            self.keep_brought(call, &txn.shards, keys, entries);
            return;
        }
        self.shard.observers.begin_checked_out(Vec::new());
        let mut held_entries = std::mem::take(&mut txn.held_entries).into_iter();
        for (keys, mut entries) in keys.iter().zip(entries) {
            let mut first = held_entries.next().unwrap_or_default();
            first.append(&mut entries);
            self.shard.receive_checked_out(moved(keys), first);
        }
        let now_ms = txn.wide.call().map(|call| self.begin_effects_of_call(call, true));
        if now_ms.is_none() && txn.pieces != 0 {
            self.resume_piece(id, true);
        }
        self.shard.resume_publishing(OpenMessages::default());
        let waits = self.make_replies(txn, shard_batches);
        if now_ms.is_some() {
            txn.messages.append(&mut self.shard.suspend_publishing());
        } else {
            self.shard.end_publishing();
        }
        match txn.wide.call().zip(now_ms) {
            Some((call, now_ms)) => self.end_effects_of_call(call, now_ms),
            None if txn.pieces != 0 => self.shard.effects.suspend_piece(),
            None => {}
        }
        let events = self.shard.observers.end_checked_out();
        let entries = keys.iter().map(|keys| self.shard.send_checked_out_back(moved(keys))).collect();
        self.check_in_all(id, txn, &keys, entries, events, waits);
    }

    /// Sends the checked-out keys back to their shards. `keys` and `entries`: for each shard that takes part.
    fn check_in_all(
        &mut self,
        id: TxnId,
        txn: &HomeTxn,
        keys: &[Option<Vec<CheckedOutKey>>],
        entries: Vec<Vec<Option<MovedEntry>>>,
        events: Vec<CheckedOutEvent>,
        mut waits: CheckedOutWaits,
    ) {
        let mut events_of: SmallVec<[Vec<CheckedOutEvent>; 8]> =
            txn.shards.iter().map(|_| Vec::new()).collect();
        for event in events {
            let shard = shard_of(&event.key, self.shard.shard_count) as u16;
            // Those of keys that were brought to a wide transaction go back with them.
            if let Some(n) = txn.shards.iter().position(|&other| other == shard) {
                events_of[n].push(event);
            }
        }
        for (n, (keys, entries)) in keys.iter().zip(entries).enumerate() {
            if keys.is_none() {
                continue;
            }
            let shard = usize::from(txn.shards[n]);
            let events = std::mem::take(&mut events_of[n]);
            if !events.is_empty() {
                self.shard.stats.check_ins_sent.add(1);
            }
            // `txn.keys` is empty now, so this depends on later stages only.
            let keeps_locks = txn.keeps_locks(n);
            let wait = waits.take(shard);
            let returned = CheckIn { id, entries, events, wait, keeps_locks };
            self.send(shard, Message::Txn(TxnMessage::CheckIn(Box::new(returned))));
        }
    }

    /// Runs a command over checked-out entries.
    fn run_over_entries(&mut self, txn: &mut HomeTxn, at: usize) -> CheckedOutWaits {
        let call = txn.multi.queue.commands()[at].call;
        let entry = self.table.entry(call.command);
        let args = txn.multi.queue.args(at);
        if txn.pieces != 0 {
            self.shard.effects.set_order(txn.multi.queue.commands()[at].place);
        }
        if txn.is_coalesced || call.in_exec {
            txn.ran_nanos += self.run(&Invocation::new(entry, &call, args, None), &mut txn.reply).nanos;
            return CheckedOutWaits::default();
        }
        let started_at_ticks = self.time.ticks;
        let run = self.run_over_checked_out(entry, &call, args, txn.reply_id, txn.offer, &mut txn.reply);
        txn.ran_nanos += self.time.nanos_since(started_at_ticks);
        txn.waits = !run.has_replied;
        run.waits
    }

    /// A transaction has started anew. If it has ended meanwhile, that is not counted.
    pub(super) fn count_restart(&mut self, id: TxnId) {
        if let Some(txn) = self.transact.home.get_mut(&id.number) {
            txn.restarts += 1;
        }
    }

    /// Ends a transaction: sends the reply, if the client is still connected, or continues with the serial fallback.
    pub(super) fn finish(&mut self, id: TxnId, txn: Box<HomeTxn>) {
        if let PartOfWide::Call(call) = txn.wide {
            self.end_call(call, *txn);
            return;
        }
        if txn.wide == PartOfWide::Beginning {
            self.end_wide(id, txn.pieces);
        } else if txn.pieces != 0 {
            self.end_piece(PieceId { txn: id, over_checked_out: true }, txn.pieces);
        }
        let waited = self.waited_by(&txn);
        let stats = &self.shard.stats;
        if txn.restarts > 0
            && let Some(name) = self.first_program(&txn.multi.queue)
        {
            let counts = ProgramCounts { restarts: txn.restarts, ..ProgramCounts::default() };
            stats.programs.count(name, &counts);
        }
        if txn.is_transaction() {
            stats.transaction_wait_nanos.add(waited * txn.count);
            stats.transaction_wait_max_nanos.max(waited);
        }
        if txn.is_exec {
            self.count_exec(txn.entry.id, txn.ran_nanos);
            let caller = self.caller(&txn);
            let db = caller.map_or(txn.call.db, |at| self.db_of(at, &txn.call));
            self.show_exec(&Call { db, ..txn.call });
            if let Some(at) = caller {
                self.set_executing(at, None);
            }
        }
        // The messages that unwatch a disconnected client's keys may have arrived before its WATCH did.
        if matches!(txn.entry.row.scope, Scope::Watch) && self.caller(&txn).is_none() {
            self.unwatch(txn.call.client, &txn.shards);
        }
        let HomeTxn { entry, call, reply_id, mut reply, multi, waits, behind, is_misplaced, hold, .. } = *txn;
        if is_misplaced {
            let call = multi.queue.commands()[0].call;
            self.begin_wide_for(reply_id, self.table.entry(call.command), call, multi.queue.args(0), behind);
            self.give_command_queue(multi);
            self.pools.give_buffer(reply);
            return;
        }
        if let Some(hold) = hold {
            let args = OwnedArgv::from_argv(multi.queue.args(0));
            self.begin_hold(reply_id, entry, call, args, hold);
        }
        self.give_command_queue(multi);
        if let Some(mut behind) = behind {
            behind.reply.append(&mut reply);
            self.pools.give_buffer(reply);
            self.run_serially(reply_id, behind);
            return;
        }
        if !waits {
            self.fulfil(reply_id, &reply);
        }
        self.pools.give_buffer(reply);
    }

    /// Runs the commands and EXECs of a refused coalesced pipeline one by one.
    pub(super) fn fall_back_to_serial(&mut self, txn: HomeTxn) {
        let HomeTxn { reply_id, multi, blocks, reply, .. } = txn;
        self.shard.stats.transaction_retries.add(1);
        self.run_serially(
            reply_id,
            Box::new(SerialFallback { multi, blocks: blocks.into(), next: 0, reply }),
        );
    }

    /// Starts the next command or EXEC of a serial fallback. After the last one, sends the replies.
    pub(super) fn run_serially(&mut self, reply_id: ReplyId, mut behind: Box<SerialFallback>) {
        self.refuse_next_serially(reply_id, &mut behind);
        let first = behind.next;
        if first == behind.multi.queue.len() {
            self.fulfil(reply_id, &behind.reply);
            self.pools.give_buffer(behind.reply);
            self.give_command_queue(behind.multi);
            return;
        }
        let block = behind.blocks.pop_front_if(|block| block.first == first);
        behind.next += block.map_or(1, |block| block.len);
        let call = behind.multi.queue.commands()[first].call;
        let entry = self.table.entry(block.map_or(call.command, |block| block.multi));
        if block.is_none() && self.is_wide(entry, behind.multi.queue.args(first)) {
            let args = OwnedArgv::from_argv(behind.multi.queue.args(first));
            self.begin_wide_for(reply_id, entry, call, args.as_argv(), Some(behind));
            return;
        }
        let mut multi = self.take_command_queue();
        for at in first..behind.next {
            let refused = if block.is_some() { self.refusal_serially(reply_id, &behind, at) } else { None };
            let (queued, args) = (behind.multi.queue.commands()[at], behind.multi.queue.args(at));
            let refused = refused.map(|error| self.call_refused(&queued.call, &error));
            let (call, args) = match &refused {
                Some((call, args)) => (*call, args.as_argv()),
                None => (queued.call, args),
            };
            multi.queue.push_args(call, (at - first) as u32, args);
            multi.routes.add(self.table.entry(call.command), args, None, self.shards());
        }
        multi.routes.check_out_overlapping(&multi.queue, self.shard.shard_count);
        let blocks = block.map(|block| Block { first: 0, ..block }).into_iter().collect();
        let needs = multi.routes.needs(self.table, &multi.queue, self.shard.shard_count);
        // It was counted with the coalesced pipeline.
        let start = Start { counted: 1, blocks, behind: Some(behind), ..Start::one(entry, call, multi) };
        self.send_plan(reply_id, start, needs, &[], None);
    }
}
