//! MULTI, EXEC and WATCH on the request path: requests are queued, and EXEC sends the queue where its keys are.
//!
//! Most transactions have all their keys on one shard, and then are like a single command: at home the queue runs at
//! once, into the connection's output; elsewhere it travels in the turn's batch, as one, and nothing of the connection
//! waits for it. Only what needs several shards, or the session between other things, is a [transaction](super::transact).

use super::Worker;
use super::connection::{Connection, Hold};
use super::pipeline::{Flow, Prepared, begin_request};
use super::transact::ParkedQueue;
use crate::client::{ClientId, Multi, QueueSize, Reach, WatchedShards};
use crate::command::queue::Queue;
use crate::command::route::{self, Route};
use crate::command::table::{CommandId, Entry, Run, Scope, flag};
use crate::command::{Call, CommandError, gate};
use crate::protocol::{Argv, Reply};
use crate::shard::lock::LockSet;
use crate::shard::message::{Batch, BatchedCommand, Message};

/// Queues kept for reuse.
const SPARE_MULTIS_MAX: usize = 64;

/// Where an EXEC runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// At home, at once or behind locks.
    Here,
    /// On another shard.
    There(usize),
    /// Over several shards.
    Over,
}

impl Worker {
    /// An empty queue.
    pub fn take_multi(&mut self) -> Box<Multi> {
        self.spare_multis.pop().unwrap_or_default()
    }

    /// Takes a queue back that is done with.
    pub(super) fn give_multi(&mut self, mut multi: Box<Multi>) {
        if self.spare_multis.len() < SPARE_MULTIS_MAX {
            multi.clear();
            self.spare_multis.push(multi);
        }
    }

    /// A request between MULTI and EXEC that does not run at once, or EXEC itself.
    pub(super) fn execute_in_multi(
        &mut self,
        at: usize,
        entry: &'static Entry,
        call: Call,
        argv: Argv<'_>,
        prepared: Option<&Prepared>,
    ) -> Flow {
        if matches!(entry.row.scope, Scope::Exec) {
            return self.execute_exec(at, entry, call, argv);
        }
        if entry.row.has(flag::NO_MULTI) {
            self.shard.stats.command(entry.id).rejected.add(1);
            let error = CommandError::fixed("ERR Command not allowed inside a transaction");
            return self.reject(at, argv, &error);
        }
        let known = prepared.and_then(Prepared::key);
        if self.enqueue(at, entry, call, argv, known) {
            self.note_request(at, entry.id);
            self.reply_now(at, |reply| reply.simple("QUEUED"));
            self.end_request(at, Flow::Next)
        } else {
            self.close_now(at);
            Flow::Stop
        }
    }

    fn note_request(&mut self, at: usize, id: CommandId) {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        begin_request(connection, id);
    }

    /// Queues a command; `known` are hash and shard of its key, where they are. False: the client queues too much.
    fn enqueue(
        &mut self,
        at: usize,
        entry: &Entry,
        call: Call,
        argv: Argv<'_>,
        known: Option<(u64, usize)>,
    ) -> bool {
        let shards = self.shards();
        let db_count = self.shard.dbs.len();
        let len_bytes_max = self.shard.config.client_query_buffer_limit_bytes;
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let multi = connection.client.multi.as_deref_mut().expect("the caller has seen it");
        let request_len_bytes = argv.bytes().len();
        let len_bytes = multi.queue.args_len_bytes() + request_len_bytes;
        if len_bytes as u64 > len_bytes_max || !multi.queue.has_room(request_len_bytes) {
            crate::runtime::log::warning(format_args!(
                "Closing client that reached max query buffer length: id={} addr={} (queued after MULTI)",
                connection.client.id, connection.client.addr
            ));
            self.shard.stats.client_query_limit_disconnections.add(1);
            return false;
        }
        multi.add(self.table, entry, call, argv, known, shards);
        if let Some(selects) = entry.row.selects
            && let Ok(db) = selects(argv, db_count)
        {
            multi.db = db;
        }
        true
    }

    /// EXEC behind MULTI.
    fn execute_exec(&mut self, at: usize, entry: &'static Entry, call: Call, argv: Argv<'_>) -> Flow {
        self.serve_due_first();
        let connection = self.connections[at].as_deref().expect("its requests are being executed");
        let multi = connection.client.multi.as_deref().expect("the caller has seen it");
        if multi.has_failed {
            // The row's own handler says so, and tidies up.
            self.note_request(at, entry.id);
            let flow = self.run_here(at, entry, &call, argv);
            return self.end_request(at, flow);
        }
        let way = self.way(connection, multi);
        let waits = !connection.pending.is_empty() && (way == Way::Over || multi.has_session);
        let connection = self.connections[at].as_deref_mut().expect("it was there just now");
        if waits {
            connection.hold = Some(Hold::Pending);
            return Flow::Retry;
        }
        let multi = connection.client.multi.take().expect("it was there just now");
        let watching = std::mem::take(&mut connection.client.watching);
        let watches = !watching.is_empty();
        self.note_request(at, entry.id);
        let flow = match way {
            Way::Here => self.exec_here(at, &call, watches, multi),
            Way::There(shard) => {
                self.shard.stats.count_transaction(1);
                let connection = self.connections[at].as_deref_mut().expect("it was there just now");
                let token = connection.await_reply(at);
                self.batch_exec(shard, token, call, &multi.queue, watches);
                self.give_multi(multi);
                Flow::Next
            }
            Way::Over => {
                self.begin_exec(at, entry, call, multi, &watching);
                Flow::Stop
            }
        };
        self.end_request(at, flow)
    }

    /// Before a command it is the turn of those who wait for what the last one has changed.
    fn serve_due_first(&mut self) {
        if self.shard.blocking.has_due() {
            self.serve_due();
        }
    }

    fn way(&self, connection: &Connection, multi: &Multi) -> Way {
        let home = self.shard.index;
        let watching = &connection.client.watching;
        let target = match multi.reach {
            Reach::One(shard) => shard,
            Reach::Nowhere => watching.first().map_or(home, |&shard| usize::from(shard)),
            Reach::Several => return Way::Over,
        };
        if watching.iter().any(|&shard| usize::from(shard) != target) {
            return Way::Over;
        }
        // The session cannot wait for locks, or go anywhere, while its requests go on.
        let watcher = (!watching.is_empty()).then_some(connection.client.id);
        if (multi.has_session || multi.has_every)
            && (target != home || self.exec_locks(watcher, multi.queue.calls()).is_some())
        {
            return Way::Over;
        }
        if target == home { Way::Here } else { Way::There(target) }
    }

    /// The locks that an EXEC has to wait for on this shard, if there are any in its way. `watcher`: its client, if that
    /// watches keys.
    fn exec_locks<'a>(
        &self,
        watcher: Option<ClientId>,
        commands: impl Iterator<Item = (&'a Call, Argv<'a>)>,
    ) -> Option<LockSet> {
        if self.shard.locks.is_empty() {
            return None;
        }
        let mut locks = route::queue_locks(self.table, commands, self.shard.shard_count);
        let conflicts = match &mut locks {
            LockSet::Whole => true,
            LockSet::Keys(keys) => {
                keys.extend(
                    watcher.into_iter().flat_map(|client| self.shard.observers.watch().locks(client)),
                );
                self.shard.locks.conflicts(keys)
            }
        };
        conflicts.then_some(locks)
    }

    /// Runs an EXEC at home, at once unless its keys are locked.
    fn exec_here(&mut self, at: usize, call: &Call, watches: bool, multi: Box<Multi>) -> Flow {
        self.shard.stats.count_transaction(1);
        if let Some(locks) = self.exec_locks(watches.then_some(call.client), multi.queue.calls()) {
            let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
            let token = connection.await_reply(at);
            let home = self.shard.index;
            let parked = ParkedQueue { home, token, call: *call, queue: multi.queue, watches };
            self.park_queue(locks, parked);
            return Flow::Next;
        }
        let (direct, mut out) = self.lend_output(at);
        let mut start = out.len();
        if multi.has_session || multi.has_every {
            self.set_executing(at, Some(&multi));
            self.run_mixed_exec(at, call, watches, &multi.queue, &mut out);
            self.set_executing(at, None);
            // What the client does not get has been left out.
            start = out.len();
        } else {
            self.run_exec(call, watches, multi.queue.len(), multi.queue.calls(), Some(at), &mut out);
        }
        self.give_multi(multi);
        self.take_back_output(at, direct, start, out)
    }

    /// Notes what a client's EXEC runs, for those who look at the client meanwhile.
    pub(super) fn set_executing(&mut self, at: usize, multi: Option<&Multi>) {
        if let Some(connection) = self.connections[at].as_deref_mut() {
            connection.client.executing = multi.map(QueueSize::of);
        }
    }

    /// Runs the commands of an EXEC over this shard's keys, unless its client `watches` something that has changed.
    pub(super) fn run_exec<'a>(
        &mut self,
        exec: &Call,
        watches: bool,
        len: usize,
        commands: impl Iterator<Item = (&'a Call, Argv<'a>)>,
        conn: Option<usize>,
        out: &mut Vec<u8>,
    ) {
        if !self.begin_exec_here(exec, watches, len, out) {
            return;
        }
        let started_at_ticks = self.ticks;
        for (call, args) in commands {
            self.run(self.table.entry(call.command), call, args, conn, out);
        }
        self.end_exec_here(exec, started_at_ticks);
    }

    /// The same, at home, with commands over the session or over every shard, of which there is one, among others.
    fn run_mixed_exec(&mut self, at: usize, exec: &Call, watches: bool, queue: &Queue, out: &mut Vec<u8>) {
        let mut start = out.len();
        let begins = self.begin_exec_here(exec, watches, queue.len(), out);
        if !self.is_heard_at(at) {
            out.truncate(start);
        }
        if !begins {
            return;
        }
        let started_at_ticks = self.ticks;
        for (queued, args) in queue.calls() {
            start = out.len();
            let was_closing = self.is_closing(at);
            let entry = self.table.entry(queued.command);
            let client = match self.connections[at].as_deref() {
                Some(connection) if connection.client.id == exec.client => &connection.client,
                // It has killed itself: what is over keys runs all the same.
                Some(_) | None if matches!(entry.row.run, Run::Session(_)) => continue,
                Some(_) | None => {
                    self.run(entry, queued, args, None, out);
                    continue;
                }
            };
            let call = Call { resp: client.resp, no_touch: client.no_touch, ..*queued };
            match route::route(entry, args, self.shard.index, self.shard.shard_count) {
                Route::Every(_) => self.run_every(entry, &call, args, Some(at), out),
                Route::Session | Route::One(_) | Route::Walk { .. } | Route::Many | Route::Watch => {
                    self.run(entry, &call, args, Some(at), out);
                }
            }
            if was_closing || !self.is_heard_at(at) {
                out.truncate(start);
            }
        }
        self.end_exec_here(exec, started_at_ticks);
    }

    /// Whether a connection's client gets replies at this point, as far as CLIENT REPLY goes.
    pub(super) fn is_heard_at(&self, at: usize) -> bool {
        self.connections[at].as_deref().is_none_or(Connection::takes_reply)
    }

    /// Whether a connection ends when its replies are sent.
    pub(super) fn is_closing(&self, at: usize) -> bool {
        self.connections[at].as_deref().is_some_and(Connection::is_closing)
    }

    /// Whether what the client watches here is as it was. If so the reply to its EXEC is begun; else it is complete.
    ///
    /// One that watches nothing does not ask: what is noted here is then of an earlier EXEC of the same client, which
    /// waits for a lock still.
    fn begin_exec_here(&mut self, exec: &Call, watches: bool, len: usize, out: &mut Vec<u8>) -> bool {
        let mut reply = Reply::new(out, exec.resp);
        if watches {
            let holds = self.shard.watch_holds(exec.client);
            self.shard.observers.change_watch(|watch| watch.remove(exec.client));
            if !holds {
                reply.null_array();
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
        if self.shard.effects.is_local() {
            self.shard.effects.end_local();
        }
        let nanos = self.ticks_to_nanos(self.ticks.saturating_sub(started_at_ticks));
        self.shard.stats.commands_processed.add(1);
        self.shard.stats.command(exec.command).record(nanos, self.shard.config.latency_tracking);
    }

    /// Runs an EXEC of another shard's client, or parks it. Returns whether it has run.
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
        let BatchedCommand { token, call, .. } = exec;
        if let Some(locks) = self.exec_locks(watches.then_some(call.client), batch.calls(commands)) {
            let mut queue = Queue::default();
            for (place, (call, args)) in batch.calls(commands).enumerate() {
                queue.push_args(*call, place as u32, args);
            }
            let parked = ParkedQueue { home: from, token: *token, call: *call, queue, watches };
            self.park_queue(locks, parked);
            return false;
        }
        self.run_exec(call, watches, commands.len(), batch.calls(commands), None, replies);
        true
    }

    /// WATCH: notes on which shards the keys are, and registers them there.
    pub(super) fn watch(&mut self, at: usize, entry: &'static Entry, call: Call, argv: Argv<'_>) -> Flow {
        let shards = route::key_shards(entry.row, argv, self.shard.shard_count);
        let is_home = shards.iter().all(|&shard| usize::from(shard) == self.shard.index);
        let is_free = self.shard.locks.is_empty() || !self.must_park(entry, argv);
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let is_queueing = connection.client.multi.is_some();
        let call = Call { in_exec: is_queueing, ..call };
        if is_queueing || is_home && is_free {
            if !is_queueing {
                add_shards(&mut connection.client.watching, &shards);
            }
            return self.run_here(at, entry, &call, argv);
        }
        add_shards(&mut connection.client.watching, &shards);
        self.begin_transaction(at, entry, call, argv);
        Flow::Stop
    }

    /// A connection's client watches nothing any more.
    pub fn unwatch_all(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if !connection.client.watching.is_empty() {
            let client = connection.client.id;
            let shards: WatchedShards = std::mem::take(&mut connection.client.watching);
            self.unwatch(client, &shards);
        }
    }

    /// A client watches nothing on these shards any more.
    pub(super) fn unwatch(&mut self, client: ClientId, shards: &[u16]) {
        for &shard in shards {
            if usize::from(shard) == self.shard.index {
                self.shard.observers.change_watch(|watch| watch.remove(client));
            } else {
                self.send(usize::from(shard), Message::Unwatch { client });
            }
        }
    }

    /// Ends a connection's MULTI, and forgets what it has queued and watches.
    pub fn discard(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if let Some(multi) = connection.client.multi.take() {
            self.give_multi(multi);
        }
        self.unwatch_all(at);
    }

    /// A request was refused: an EXEC will be that follows, and one that is the request ends the transaction. Returns
    /// the error that the client gets instead.
    #[cold]
    pub(super) fn fail_multi(
        &mut self,
        at: usize,
        argv: Argv<'_>,
        error: &CommandError,
    ) -> Option<CommandError> {
        let connection = self.connections[at].as_deref_mut()?;
        if let Some(multi) = connection.client.multi.as_deref_mut() {
            multi.has_failed = true;
        }
        let is_exec =
            gate::named(self.table, argv).is_some_and(|entry| matches!(entry.row.scope, Scope::Exec));
        if !is_exec {
            return None;
        }
        self.discard(at);
        self.shard.stats.exec_aborted_by_error.add(1);
        let reason = error.as_bytes().strip_prefix(b"ERR ").unwrap_or(error.as_bytes());
        Some(CommandError::quoting("EXECABORT Transaction discarded because of: ", reason, ""))
    }
}

fn add_shards(watching: &mut WatchedShards, shards: &[u16]) {
    watching.extend_from_slice(shards);
    watching.sort_unstable();
    watching.dedup();
}
