//! The slow log: a slow command is logged on the shard that serves its client.

use super::Worker;
use crate::client::ClientId;
use crate::command::Call;
use crate::command::table::{CommandEntry, flag};
use crate::protocol::Argv;
use crate::shard::message::Message;
use crate::shard::slowlog::SlowLogEntry;
use crate::worker::latency::event;

/// What a script calls is nobody's request.
const SCRIPTS_ADDR: &str = "?:0";

impl Worker {
    /// Logs a command if it was slow. The entry is sent to the client's home, which knows the client's address and name.
    pub(super) fn note_for_slowlog(
        &mut self,
        args: Argv<'_>,
        nanos: u64,
        call: &Call,
        command: &CommandEntry,
    ) {
        if nanos < self.time.slow_from_nanos || command.row.has(flag::SKIP_SLOWLOG) {
            return;
        }
        let micros = nanos / 1000;
        let secrets = (command.row.secrets)(args);
        let id = self.globals.next_slowlog_id();
        let mut entry = SlowLogEntry::new(id, self.shard.now_ms / 1000, micros, args, &secrets);
        if call.in_script {
            entry.client_addr = SCRIPTS_ADDR.to_string();
        }
        if usize::from(call.home) == self.shard.index {
            self.keep_slow(call.client, entry);
        } else {
            self.send(usize::from(call.home), Message::Slow { client: call.client, entry: Box::new(entry) });
        }
    }

    /// What was done for a held client, outside of its command, counts as the command's.
    pub fn count_held(&mut self, call: &Call, args: Argv<'_>, nanos: u64, has_failed: bool) {
        let entry = self.table.entry(call.command);
        let command = self.shard.stats.command(entry.id);
        command.record_later(nanos, self.shard.config.latency_tracking);
        command.failed.add(u64::from(has_failed));
        if nanos >= self.time.noted_from_nanos {
            self.sample_latency(event::COMMAND_UNBLOCKING, nanos);
            self.note_for_slowlog(args, nanos, call, entry);
        }
    }

    /// Adds an entry to the slow log, for a client of this shard that may have disconnected since.
    pub(super) fn keep_slow(&mut self, client: ClientId, mut entry: SlowLogEntry) {
        if entry.client_addr.is_empty()
            && let Some(at) = self.find_client(client)
            && let Some(connection) = self.connections[at].as_deref()
        {
            entry.client_addr = connection.client.addr.clone();
            entry.client_name = connection.client.name.clone();
        }
        self.slowlog.push(entry);
    }
}
