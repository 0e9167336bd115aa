//! Shardis: a Redis-compatible in-memory server whose cores share nothing.
//!
//! ```text
//!            core 0                          core 1
//!   ┌───────────────────────┐       ┌───────────────────────┐
//!   │ driver (io_uring or   │       │ driver                │   runtime/
//!   │   epoll): sockets     │       │                       │
//!   ├───────────────────────┤ mesh  ├───────────────────────┤
//!   │ worker: connections,  │◄─────►│ worker                │   worker/
//!   │   pipelines, batches  │ rings │                       │
//!   ├───────────────────────┤       ├───────────────────────┤
//!   │ shard: tables, locks  │       │ shard                 │   shard/, types/
//!   └───────────────────────┘       └───────────────────────┘
//! ```
//!
//! One thread a shard; a shard owns the keys of a range of hash slots, and the connections it was given.
//!
//! The straight line of a request: driver → `worker::pipeline` (parse) → `command::table` (look up) →
//! `command::gate` (may it run) → `command::route` (where) → the handler here, or the mesh and the handler
//! there → reply buffer → driver. A key of this shard skips the mesh and nothing else.
//!
//! Invariants:
//! - No shard reads another's memory, but for counters ([`shard::stats`]) and the configuration.
//! - A worker and a shard never wait, never ask for the time, never touch a socket: they are handed all that.
//! - A handler over keys knows neither its client nor its shard's number.

/// The version of Redis whose behaviour this is.
pub const REDIS_VERSION: &str = "7.0.15";

/// Our own version.
pub const SHARDIS_VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod call;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod metrics;
pub mod protocol;
pub mod runtime;
pub mod server;

pub mod shard;
pub mod types;
pub mod worker;
