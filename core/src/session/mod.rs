//! Commands over connections and over the server: rows and their functions, a file a family. They see the worker that
//! serves the client, with all its connections ([`SessionCtx`]).
//!
//! Their functions have four beats, as those over keys: parse, look up, act, reply.

pub mod acl;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
mod digest;
pub mod info;
pub mod latency;
pub mod memory;
pub mod migrate;
pub mod pubsub;
pub mod replication;
pub mod save;
pub mod script;
pub mod server;
pub mod slowlog;
pub mod transaction;

use crate::acl::absent;
use crate::command::handlers;
use crate::command::handlers::{dump, expire, hash, keyspace, list, object, set, sort, stream, string, zset};
use crate::command::table::Command;
use crate::modules;
use crate::worker::acl::REFUSED;
use crate::worker::program::{KEY_WAITS, TASKS};
use crate::worker::{SYNC_BARRIER, SessionHandler};

/// All rows of this build, those over keys included.
pub const FAMILIES: &[&[Command]] = &[
    absent::COMMANDS,
    acl::COMMANDS,
    client::COMMANDS,
    cluster::COMMANDS,
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    dump::COMMANDS,
    expire::COMMANDS,
    hash::COMMANDS,
    info::COMMANDS,
    keyspace::COMMANDS,
    latency::COMMANDS,
    list::COMMANDS,
    memory::COMMANDS,
    migrate::COMMANDS,
    migrate::STEPS,
    modules::COMMANDS,
    object::COMMANDS,
    handlers::pubsub::COMMANDS,
    pubsub::COMMANDS,
    replication::COMMANDS,
    save::COMMANDS,
    script::COMMANDS,
    server::COMMANDS,
    slowlog::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    stream::COMMANDS,
    string::COMMANDS,
    transaction::COMMANDS,
    zset::COMMANDS,
    KEY_WAITS,
    TASKS,
    SYNC_BARRIER,
    REFUSED,
];

/// A command over its connection or its worker.
const fn session(name: &'static str, arity: i32, run: &'static SessionHandler) -> Command {
    Command::session(name, arity, run)
}
