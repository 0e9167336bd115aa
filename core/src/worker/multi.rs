//! MULTI and WATCH: queues requests between MULTI and EXEC, and registers watched keys on their shards. EXEC is in
//! [`exec`](super::exec).

use super::Worker;
use super::pipeline::{Flow, Prepared, begin_request};
use crate::client::{ClientId, CommandQueue};
use crate::command::route;
use crate::command::table::{CommandEntry, CommandId, Scope, flag};
use crate::command::{Call, CommandError, gate};
use crate::protocol::Argv;
use crate::shard::message::Message;

impl Worker {
    /// An empty queue.
    pub fn take_command_queue(&mut self) -> Box<CommandQueue> {
        self.pools.take_command_queue()
    }

    /// Takes back a queue that is no longer needed, for reuse.
    pub(super) fn give_command_queue(&mut self, multi: Box<CommandQueue>) {
        self.pools.give_command_queue(multi);
    }

    /// Queues a request between MULTI and EXEC, or executes EXEC. `flags`: those by which admission judges it.
    pub(super) fn execute_in_multi(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        flags: u64,
        call: &Call,
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
        if self.enqueue(at, entry, flags, call, argv, known) {
            self.record_request(at, entry.id);
            self.reply_now(at, |reply| reply.simple("QUEUED"));
            self.end_request(at, Flow::Next)
        } else {
            self.close_now(at);
            Flow::Stop
        }
    }

    pub(super) fn record_request(&mut self, at: usize, id: CommandId) {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        begin_request(connection, id);
    }

    /// Queues a command. `flags`: those by which admission judges it. `known`: the hash and the shard of its key, if they
    /// were computed already. Returns false if the queue would exceed client-query-buffer-limit; the caller then closes
    /// the connection.
    fn enqueue(
        &mut self,
        at: usize,
        entry: &CommandEntry,
        flags: u64,
        call: &Call,
        argv: Argv<'_>,
        known: Option<(u64, usize)>,
    ) -> bool {
        let shards = self.shards();
        let db_count = self.shard.db_count();
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let limit_bytes = self.shard.config.client_query_buffer_limit_bytes;
        let len_bytes_max = connection.client.query_len_max_bytes(limit_bytes);
        let multi = connection.client.multi.as_deref_mut().expect("the caller has seen it");
        // Its EXEC will fail: what is queued until then would only take memory.
        if multi.has_failed {
            return true;
        }
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
        multi.add(self.table, entry, flags, call, argv, known, shards);
        if let Some(selects) = entry.row.selects
            && let Ok(db) = selects(argv, db_count)
        {
            multi.db = db;
        }
        true
    }

    /// WATCH: registers the keys on their shards, and records in the client which shards these are.
    pub(super) fn watch(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: Call,
        argv: Argv<'_>,
    ) -> Flow {
        let shards = route::key_shards(entry.row, argv, self.shard.shard_count);
        let is_home = shards.iter().all(|&shard| usize::from(shard) == self.shard.index);
        let is_free = self.locks_in_the_way(entry, argv, call.client).is_none();
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let is_queueing = connection.client.multi.is_some();
        let call = Call { in_exec: is_queueing, ..call };
        if is_queueing || is_home && is_free {
            if !is_queueing {
                connection.client.add_watched(&shards, argv);
            }
            return self.run_here(at, entry, &call, argv);
        }
        connection.client.add_watched(&shards, argv);
        self.begin_transaction(at, entry, call, argv);
        Flow::Stop
    }

    /// Removes all registrations of the keys that a connection's client watches.
    pub fn unwatch_all(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if !connection.client.watching.is_empty() {
            let client = connection.client.id;
            let shards = connection.client.take_watching();
            self.unwatch(client, &shards);
        }
    }

    /// Removes a client's registrations of watched keys on these shards.
    pub(super) fn unwatch(&mut self, client: ClientId, shards: &[u16]) {
        for &shard in shards {
            if usize::from(shard) == self.shard.index {
                self.shard.observers.change_watch(|watch| watch.remove(client));
            } else {
                self.send(usize::from(shard), Message::Unwatch { client });
            }
        }
    }

    /// Ends a connection's MULTI: drops the queued commands and unwatches all keys.
    pub fn discard(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if let Some(multi) = connection.client.multi.take() {
            self.give_command_queue(multi);
        }
        self.unwatch_all(at);
    }

    /// Handles a refused request between MULTI and EXEC: the EXEC to come will be refused as well. If the request is
    /// EXEC itself, the transaction is discarded, and the error returned that the client gets in place of `error`.
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
