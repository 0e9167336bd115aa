//! What clients of a Redis Cluster send to its nodes. A server without cluster support refuses it.

use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[ASKING, READONLY, READWRITE];

const ASKING: Command = session("asking", 1, &(no_cluster as SessionHandler))
    .flags(flag::FAST)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("cluster", "3.0.0", "Announces a request for a slot that is being migrated")
            .complexity("O(1)"),
    );

const READONLY: Command = session("readonly", 1, &(no_cluster as SessionHandler))
    .flags(flag::FAST | flag::LOADING | flag::STALE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(Docs::new("cluster", "3.0.0", "Allows reading from a replica of a cluster").complexity("O(1)"));

const READWRITE: Command = session("readwrite", 1, &(no_cluster as SessionHandler))
    .flags(flag::FAST | flag::LOADING | flag::STALE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(Docs::new("cluster", "3.0.0", "Takes back READONLY").complexity("O(1)"));

/// ASKING, READONLY, READWRITE. Errors: always, as this server is no node of a cluster.
fn no_cluster(_ctx: &mut SessionCtx<'_>) -> CommandResult {
    Err(CommandError::fixed("ERR This instance has cluster support disabled"))
}
