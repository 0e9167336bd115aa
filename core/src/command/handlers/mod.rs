//! The rows and their functions, a file a family.
//!
//! A handler has four beats: parse, look up, act, reply. It returns an error only when it has changed
//! nothing. It says nothing about shards: its keys are there when it runs.

pub mod client;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
pub mod expire;
mod help;
pub mod info;
pub mod keyspace;
pub mod memory;
pub mod object;
pub mod replication;
pub mod server;
pub mod slowlog;
pub mod string;
pub mod transaction;

use crate::command::table::Command;

/// All rows of this build.
pub const FAMILIES: &[&[Command]] = &[
    client::COMMANDS,
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    expire::COMMANDS,
    info::COMMANDS,
    keyspace::COMMANDS,
    memory::COMMANDS,
    object::COMMANDS,
    replication::COMMANDS,
    server::COMMANDS,
    slowlog::COMMANDS,
    string::COMMANDS,
    transaction::COMMANDS,
];
