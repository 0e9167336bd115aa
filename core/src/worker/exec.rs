//! EXEC: sends the queued commands to the shard of their keys and runs them there.
//!
//! Most transactions have all their keys on one shard, and are then handled like a single command. If that shard is
//! home, the queue runs at once and writes its replies into the connection's output. If it is another shard, the queue
//! is sent in the turn's batch, and the connection's later requests need not wait for it. Only an EXEC with keys on
//! several shards, or one that mixes session commands with keys elsewhere, is a [transaction](super::transact).

use super::Worker;
use super::acl::may_change_rights;
use super::connection::{Connection, StallReason};
use super::pipeline::Flow;
use super::run::Invocation;
use super::transact::ParkedQueue;
use crate::client::{ClientId, CommandQueue, QueueSize, ShardSpan};
use crate::command::queue::Queue;
use crate::command::route::{self, Route};
use crate::command::table::{CommandEntry, flag};
use crate::command::{Call, admission};
use crate::protocol::{Argv, Reply};
use crate::shard::lock::LockSet;
use crate::shard::message::{Batch, BatchedCommand};

/// Where an EXEC runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ExecRoute {
    /// At home, at once or when its locks are granted.
    Local,
    /// On another shard.
    Remote(usize),
    /// Over several shards.
    MultiShard,
}

/// Whether an EXEC that runs on this shard needs its client's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExecCaller {
    /// No: none of its commands is over the session. The client may be connected to any shard.
    Elsewhere,
    /// Some of its commands are over the session, or for every shard. The index of the connection, on this shard.
    Session(usize),
}

impl Worker {
    /// EXEC after MULTI.
    pub(super) fn execute_exec(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: &Call,
        argv: Argv<'_>,
    ) -> Flow {
        self.recheck_queue(at);
        let call = &self.exec_to_show(call, argv);
        let connection = self.connections[at].as_deref().expect("its requests are being executed");
        let multi = connection.client.multi.as_deref().expect("the caller has seen it");
        if multi.has_failed {
            // EXEC's own handler replies EXECABORT and discards the transaction.
            self.record_request(at, entry.id);
            let flow = self.run_here(at, entry, call, argv);
            return self.end_request(at, flow);
        }
        let route = self.exec_route(connection, multi);
        let is_over_shards = route == ExecRoute::MultiShard;
        let waits = !connection.pending.is_empty()
            && (admission::exec_waits_for_replies(is_over_shards, multi.has_session)
                || multi.flags & flag::PUBSUB != 0
                || self.is_observed()
                    && route != connection.awaits_only.map_or(ExecRoute::MultiShard, ExecRoute::Remote));
        let connection = self.connections[at].as_deref_mut().expect("it was there just now");
        if waits {
            connection.stall = Some(StallReason::Pending);
            return Flow::Retry;
        }
        let multi = connection.client.multi.take().expect("it was there just now");
        let watching = connection.client.take_watching();
        let watches = !watching.is_empty();
        self.record_request(at, entry.id);
        let flow = match route {
            ExecRoute::Local => self.exec_here(at, call, watches, multi),
            ExecRoute::Remote(shard) => {
                self.shard.stats.count_transaction(1);
                let connection = self.connections[at].as_deref_mut().expect("it was there just now");
                let reply_id = connection.await_reply_from(at, shard);
                self.batch_exec(shard, reply_id, *call, &multi.queue, watches);
                self.give_command_queue(multi);
                Flow::Next
            }
            ExecRoute::MultiShard => {
                self.begin_exec(at, entry, *call, multi, &watching);
                // One that needed only this shard may have ended.
                let connection = self.connections[at].as_deref();
                let is_stalled = connection.is_none_or(|connection| connection.stall.is_some());
                if is_stalled { Flow::Stop } else { Flow::Next }
            }
        };
        self.end_request(at, flow)
    }

    fn exec_route(&self, connection: &Connection, multi: &CommandQueue) -> ExecRoute {
        let home = self.shard.index;
        let watching = &connection.client.watching;
        let target = match multi.span {
            ShardSpan::One(shard) => shard,
            ShardSpan::None => watching.first().map_or(home, |&shard| usize::from(shard)),
            ShardSpan::Many => return ExecRoute::MultiShard,
        };
        if watching.iter().any(|&shard| usize::from(shard) != target) {
            return ExecRoute::MultiShard;
        }
        // A queue that needs the session can neither wait in the lock table nor be sent to another shard while the
        // connection's later requests run, so it is a transaction, which stalls the connection.
        let client = connection.client.id;
        if (multi.has_session || multi.has_every)
            && (target != home
                || self.exec_locks(client, !watching.is_empty(), multi.queue.calls()).is_some())
        {
            return ExecRoute::MultiShard;
        }
        if target == home { ExecRoute::Local } else { ExecRoute::Remote(target) }
    }

    /// The locks that an EXEC needs on this shard if it has to wait for them; `None`: it can run now. `watches`:
    /// its client watches keys.
    fn exec_locks<'a>(
        &self,
        client: ClientId,
        watches: bool,
        commands: impl Iterator<Item = (&'a Call, Argv<'a>)>,
    ) -> Option<LockSet> {
        if self.shard.locks.is_empty() {
            return None;
        }
        let mut locks =
            route::queue_locks(self.table, commands, self.shard.shard_count, self.has_suspended_programs());
        let conflicts = match &mut locks {
            LockSet::Whole => true,
            LockSet::Keys(keys) => {
                if watches {
                    keys.extend(self.shard.observers.watch().locks(client));
                }
                self.shard.locks.is_in_the_way(keys, client) || self.must_run_in_turn(client)
            }
        };
        conflicts.then_some(locks)
    }

    /// Runs an EXEC at home, at once unless its keys are locked.
    fn exec_here(&mut self, at: usize, call: &Call, watches: bool, multi: Box<CommandQueue>) -> Flow {
        self.shard.stats.count_transaction(1);
        if let Some(locks) = self.exec_locks(call.client, watches, multi.queue.calls()) {
            let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
            let reply_id = connection.await_reply(at);
            let home = self.shard.index;
            let user = self.globals.acl.user_of(call);
            let parked = ParkedQueue { home, reply_id, call: *call, queue: multi.queue, watches, user };
            self.park_queue(locks, parked);
            return if self.stall_in_order(at) { Flow::Stop } else { Flow::Next };
        }
        let (direct, mut out) = self.lend_output(at);
        let start = out.len();
        let is_mixed = multi.has_session || multi.has_every;
        if is_mixed {
            self.set_executing(at, Some(&multi));
        }
        let caller = if is_mixed { ExecCaller::Session(at) } else { ExecCaller::Elsewhere };
        self.run_exec(call, watches, multi.queue.len(), multi.queue.calls(), caller, &mut out);
        self.give_command_queue(multi);
        if !is_mixed {
            return self.take_back_output(at, direct, start, out);
        }
        self.set_executing(at, None);
        // `run_exec` has already removed the replies that the client does not get.
        let end = out.len();
        self.take_back_output(at, direct, end, out)
    }

    /// Records the queue that a client's EXEC runs, for CLIENT LIST and INFO while it does.
    pub(super) fn set_executing(&mut self, at: usize, multi: Option<&CommandQueue>) {
        if let Some(connection) = self.connections[at].as_deref_mut() {
            connection.client.executing = multi.map(QueueSize::of);
        }
    }

    /// Runs an EXEC as a unit, unless its client `watches` keys and one of them has changed. The caller has called
    /// [`serve_due_first`](Self::serve_due_first).
    pub(super) fn run_exec<'a>(
        &mut self,
        exec: &Call,
        watches: bool,
        len: usize,
        commands: impl Iterator<Item = (&'a Call, Argv<'a>)>,
        caller: ExecCaller,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let begins = self.begin_exec_here(exec, watches, len, out);
        self.drop_unwanted_reply(caller, false, start, out);
        if !begins {
            return;
        }
        let started_at_ticks = self.time.ticks;
        let is_unit = self.shard.begin_publishing();
        let mut has_changed_rights = false;
        for (call, args) in commands {
            let entry = self.table.entry(call.command);
            match caller {
                ExecCaller::Elsewhere => {
                    self.run(&Invocation::new(entry, call, args, None), out);
                }
                ExecCaller::Session(at) => {
                    if !has_changed_rights || !self.is_refused_in_session(at, exec, entry, args, out) {
                        self.run_in_session(at, exec, call, args, out);
                        has_changed_rights |= may_change_rights(entry);
                    }
                }
            }
        }
        if is_unit {
            self.shard.end_publishing();
        }
        let db = match caller {
            ExecCaller::Session(at) => self.db_of(at, exec),
            ExecCaller::Elsewhere => exec.db,
        };
        self.end_exec_here(&Call { db, ..*exec }, started_at_ticks);
    }

    /// The database that the client of an EXEC is at, which may have changed since the EXEC was called.
    pub(super) fn db_of(&self, at: usize, exec: &Call) -> u32 {
        let client = self.connections[at].as_deref().map(|connection| &connection.client);
        client.filter(|client| client.id == exec.client).map_or(exec.db, |client| client.db)
    }

    /// Whether a command stands behind one that has taken the right to it from its client, which gets an error then.
    fn is_refused_in_session(
        &mut self,
        at: usize,
        exec: &Call,
        entry: &CommandEntry,
        args: Argv<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let client = self.connections[at].as_deref().map(|connection| &connection.client);
        let Some(resp) = client.filter(|client| client.id == exec.client).map(|client| client.resp) else {
            return false;
        };
        let Some(error) = self.refusal_in_exec(at, entry, args) else { return false };
        let start = out.len();
        self.shard.stats.error(error.code());
        Reply::new(out, resp).error(error.as_bytes());
        self.drop_unwanted_reply(ExecCaller::Session(at), self.is_closing(at), start, out);
        true
    }

    /// Runs one command of an EXEC that contains session commands or, where there is a single shard, commands for every
    /// shard.
    fn run_in_session(&mut self, at: usize, exec: &Call, queued: &Call, args: Argv<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let was_closing = self.is_closing(at);
        let entry = self.table.entry(queued.command);
        let client = match self.connections[at].as_deref() {
            Some(connection) if connection.client.id == exec.client => &connection.client,
            // The client has killed its own connection. As in Redis, its remaining commands over keys still run.
            Some(_) | None if entry.row.is_over_session() => return,
            Some(_) | None => {
                self.run(&Invocation::new(entry, queued, args, None), out);
                return;
            }
        };
        let call = Call {
            db: client.db,
            resp: client.resp,
            no_touch: client.no_touch,
            has_named_user: client.has_named_user(),
            ..*queued
        };
        let command = Invocation::new(entry, &call, args, Some(at));
        match route::route(entry, args, self.shard.index, self.shard.shard_count) {
            Route::Every(_) => self.run_every(&command, out),
            Route::Session | Route::One(_) | Route::Walk { .. } | Route::Many | Route::Watch => {
                self.run(&command, out);
            }
        }
        self.drop_unwanted_reply(ExecCaller::Session(at), was_closing, start, out);
    }

    /// Removes a reply that the client does not get because of an earlier command of the same EXEC: CLIENT REPLY, or a
    /// CLIENT KILL of itself.
    fn drop_unwanted_reply(&self, caller: ExecCaller, was_closing: bool, start: usize, out: &mut Vec<u8>) {
        if let ExecCaller::Session(at) = caller
            && (was_closing || !self.wants_reply_at(at))
        {
            out.truncate(start);
        }
    }

    /// Whether CLIENT REPLY lets a connection's client get replies at this point.
    pub(super) fn wants_reply_at(&self, at: usize) -> bool {
        self.connections[at].as_deref().is_none_or(Connection::takes_reply)
    }

    /// Whether a connection will be closed when its replies have been sent.
    pub(super) fn is_closing(&self, at: usize) -> bool {
        self.connections[at].as_deref().is_some_and(Connection::is_closing)
    }

    /// Begins the reply to an EXEC and returns true; or, if a key that the client watches here has changed, writes the
    /// complete reply and returns false.
    ///
    /// If the client watches nothing (`watches` is false), its registrations on this shard must not be looked at: they
    /// belong to an earlier EXEC of the same client that still waits for a lock.
    fn begin_exec_here(&mut self, exec: &Call, watches: bool, len: usize, out: &mut Vec<u8>) -> bool {
        let mut reply = Reply::new(out, exec.resp);
        if watches {
            let holds = self.shard.watched_keys_unchanged(exec.client);
            self.shard.observers.change_watch(|watch| watch.remove(exec.client));
            if !holds {
                reply.null_array();
                self.show_exec(exec);
                self.shard.stats.exec_aborted_by_watch.add(1);
                self.shard.stats.commands_processed.add(1);
                self.shard.stats.command(exec.command).record(0, self.shard.config.latency_tracking);
                return false;
            }
        }
        reply.array(len);
        if self.shard.effects.is_on() {
            self.shard.effects.begin_local();
        }
        true
    }

    fn end_exec_here(&mut self, exec: &Call, started_at_ticks: u64) {
        self.show_exec(exec);
        if self.shard.effects.is_local() {
            self.shard.effects.end_local();
        }
        let nanos = self.time.nanos_since(started_at_ticks);
        self.shard.stats.commands_processed.add(1);
        self.shard.stats.command(exec.command).record(nanos, self.shard.config.latency_tracking);
        if nanos >= self.time.noted_from_nanos {
            self.note_late(nanos, self.table.entry(exec.command));
        }
    }

    /// Runs an EXEC of another shard's client, or parks it until its locks are granted. Returns whether it has run.
    pub(super) fn execute_remote_exec(
        &mut self,
        from: usize,
        exec: &BatchedCommand,
        watches: bool,
        batch: &Batch,
        commands: &[BatchedCommand],
        replies: &mut Vec<u8>,
    ) -> bool {
        self.serve_due_first();
        let BatchedCommand { reply_id, call, .. } = exec;
        if let Some(locks) = self.exec_locks(call.client, watches, batch.calls(commands)) {
            let mut queue = Queue::default();
            for (place, (call, args)) in batch.calls(commands).enumerate() {
                queue.push_args(*call, place as u32, args);
            }
            let user = self.globals.acl.user_of(call);
            let parked = ParkedQueue { home: from, reply_id: *reply_id, call: *call, queue, watches, user };
            self.park_queue(locks, parked);
            return false;
        }
        let calls = batch.calls(commands);
        self.run_exec(call, watches, commands.len(), calls, ExecCaller::Elsewhere, replies);
        true
    }
}
