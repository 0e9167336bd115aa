//! The context of session commands: those over connections and over the server.

use super::client_line::write_line;
use super::{Connection, Worker};
use crate::call::Call;
use crate::client::Client;
use crate::command::CommandResult;
use crate::protocol::{Argv, Reply};
use crate::runtime::driver::ConnId;

/// The handler of a session command, as [`Run::Session`](crate::command::table::Run) holds it.
pub type SessionHandler = fn(&mut SessionCtx<'_>) -> CommandResult;

/// What a session command sees: the worker with all its connections, and which one called.
///
/// The connection's output buffer is in `reply` while the handler runs, and not in the connection.
pub struct SessionCtx<'a> {
    pub worker: &'a mut Worker,
    /// The calling connection's index at this worker. `None` on the other shards of a
    /// [`Scope::Every`](crate::command::table::Scope) command, and for a caller that has disconnected since.
    pub conn: Option<usize>,
    /// The client of a caller without a connection, a module: it lasts as long as the command. `None`: nothing has used it.
    pub own: Option<Box<Client>>,
    pub call: &'a Call,
    pub args: Argv<'a>,
    pub reply: Reply<'a>,
}

impl Worker {
    /// The line of CLIENT INFO of the client as which a module calls that, with these arguments.
    pub fn line_of_program(&self, args: Argv<'_>) -> Vec<u8> {
        let now_ms = self.shard.now_ms;
        let connection = Connection::new(ConnId::new(0, 0), Client::of_program(now_ms));
        let mut line = Vec::new();
        write_line(&mut line, &connection, self.table, now_ms, args.total_len_bytes(), false);
        line
    }
}

impl<'a> SessionCtx<'a> {
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// The calling client's session. Only for handlers that run at home ([`Scope::Session`](crate::command::table::Scope)).
    pub fn client(&mut self) -> &mut Client {
        let Some(at) = self.conn else {
            let (now_ms, db) = (self.worker.shard.now_ms, self.call.db);
            return self.own.get_or_insert_with(|| {
                let mut client = Box::new(Client::of_program(now_ms));
                client.db = db;
                client
            });
        };
        let connection = self.worker.connections[at].as_deref_mut();
        &mut connection.expect("a connection outlives its running command").client
    }
}
