//! The slow log: a slow command is logged on the shard that serves its client.

use super::Worker;
use crate::client::ClientId;
use crate::command::Call;
use crate::command::table::{CommandEntry, flag};
use crate::protocol::Argv;
use crate::shard::message::Message;
use crate::shard::slowlog::SlowLogEntry;

impl Worker {
    /// Logs a slow command. The entry is sent to the client's home, which knows the client's address and name.
    #[cold]
    pub(super) fn record_slow(&mut self, args: Argv<'_>, micros: u64, call: &Call, command: &CommandEntry) {
        let secrets = (command.row.secrets)(args);
        let id = self.globals.next_slowlog_id();
        let entry = SlowLogEntry::new(id, self.shard.now_ms / 1000, micros, args, &secrets);
        if call.home as usize == self.shard.index {
            self.keep_slow(call.client, entry);
        } else {
            self.send(call.home as usize, Message::Slow { client: call.client, entry: Box::new(entry) });
        }
    }

    /// What was done for a held client, outside of its command, counts as the command's.
    pub fn count_held(&mut self, call: &Call, args: Argv<'_>, nanos: u64) {
        let entry = self.table.entry(call.command);
        self.shard.stats.command(entry.id).nanos.add(nanos);
        if nanos >= self.time.slow_from_nanos && !entry.row.has(flag::SKIP_SLOWLOG) {
            self.record_slow(args, nanos / 1000, call, entry);
        }
    }

    /// Adds an entry to the slow log, for a client of this shard that may have disconnected since.
    pub(super) fn keep_slow(&mut self, client: ClientId, mut entry: SlowLogEntry) {
        if let Some(at) = self.find_client(client)
            && let Some(connection) = self.connections[at].as_deref()
        {
            entry.client_addr = connection.client.addr.clone();
            entry.client_name = connection.client.name.clone();
        }
        self.slowlog.push(entry);
    }
}
