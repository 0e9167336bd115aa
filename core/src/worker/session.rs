//! What commands over connections and over the server see.

use super::{Connection, Worker};
use crate::call::Call;
use crate::client::Client;
use crate::command::CommandResult;
use crate::protocol::{Argv, Reply};

/// The function behind a row over the session: what [`Run::Session`](crate::command::table::Run) holds.
pub type SessionHandler = fn(&mut SessionCtx<'_>) -> CommandResult;

/// What a command over its connection sees: the worker with all its connections, and which one called.
///
/// The connection's output is lent to `reply` while the handler runs.
pub struct SessionCtx<'a> {
    pub worker: &'a mut Worker,
    /// The calling connection's index at this worker. `None` on the other shards of a
    /// [`Scope::Every`](crate::command::table::Scope) command, and for a caller that left meanwhile.
    pub conn: Option<usize>,
    pub call: &'a Call,
    pub args: Argv<'a>,
    pub reply: Reply<'a>,
}

impl<'a> SessionCtx<'a> {
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// The calling connection. Only for handlers that run at home ([`Scope::Session`](crate::command::table::Scope)).
    pub fn connection(&mut self) -> &mut Connection {
        let at = self.conn.expect("a session command runs beside its connection");
        self.worker.connections[at].as_deref_mut().expect("a connection outlives its running command")
    }

    /// The calling client's session; as [`SessionCtx::connection`].
    pub fn client(&mut self) -> &mut Client {
        &mut self.connection().client
    }
}
