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
//! # How a request is processed
//!
//! A GET that comes in a pipeline, or with requests of other connections, takes the *fast path*:
//!
//! 1. The driver hands over what it received from several connections (`Worker::received_many`, `worker/events.rs`).
//! 2. `Worker::parse_group` (`worker/pipeline.rs`) parses up to 32 requests ([`protocol::request`]), looks each
//!    command up ([`command::table`]), hashes its key and finds the key's shard; the table's buckets are fetched from
//!    memory.
//! 3. `Worker::run_fast_path` (`worker/fast_path.rs`) determines once for all requests of a connection which of them
//!    admission has to check ([`command::admission`]), and runs the others that are over one key. For a key of this
//!    shard, `Worker::run_untimed` (`worker/run.rs`) calls the handler, which writes its reply into the connection's
//!    output. A request over a key of another shard is added to the batch that leaves for that shard at the end of
//!    the turn (`worker/remote.rs`). There it runs in the same way, and its reply comes back in the same allocation
//!    and takes its place in the order of replies.
//! 4. At the end of the turn each connection's output leaves by one send.
//!
//! Everything else goes one by one through `Worker::execute` (`worker/pipeline.rs`): admission, route
//! ([`command::route`]), and then it runs here (`Worker::start`, behind locks if there are any), on another shard or,
//! over several shards, as a transaction ([`shard::txn`], `worker/transact/`). Consecutive requests over several
//! shards in a pipeline may run together (`worker/coalesce.rs`).
//!
//! # Rooms
//!
//! A room names only rooms below it; `core/tests/tidy` sees to that. From the ground up: `types`, `protocol`;
//! `config`, `call`; `runtime`, `persist`, `pubsub`; `shard`; `command`; `acl`; `client`, `script`; `worker`; `modules`;
//! `session`; `server`.
//! (Within `shard/`, files add to `Shard` each in an `impl` of its own, and name each other.)
//!
//! # Invariants
//!
//! - No shard reads another's memory, but for counters ([`shard::stats`]), the configuration, and the directory of
//!   subscriptions ([`pubsub`]).
//! - A worker and a shard never wait, never ask for the time, never touch a socket: they are handed all that.
//! - A handler over keys knows neither its client nor its shard's number.
//! - Whether a command may run is decided in [`command::admission`] alone; every command runs by `worker/run.rs`,
//!   and a program on a frame of `worker/program`.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | packed | of a small collection: a listpack or an intset, which lies in its key's entry or beside it |
//! | object | the big form of a collection, which its key's entry points at |
//! | home | of a client or a transaction: the shard that serves the connection |
//! | fast path | a tight loop over requests of one key each, which makes the checks they have in common only once |
//! | batch | the commands of a turn for one other shard, in one message |
//! | coalesced pipeline | pipelined requests of one connection over several shards, run as one transaction |
//! | barrier | of a snapshot: the unit over all shards under which each begins its part; the snapshot is of that moment |
//! | unit | what runs atomically on a shard: a command by itself, or an EXEC; its effects stay together in the stream |
//! | transaction | an EXEC, or one command, that locks keys of several shards |
//! | participant | a shard that takes part in a transaction |
//! | stage | commands of a transaction that its participants run without messages to each other in between |
//! | check-out | the entries of a command's keys move to home, as owned values; the command runs there, and they move back |
//! | effect | a command that repeats what a write did; replicas and the append-only file read the merged stream of all shards' effects |
//! | part | of the stream: what goes to one file of commands, from one barrier of a rewrite to the next |
//! | backlog | the last part of the stream for replicas, in memory once for all of them |
//! | full synchronization | a replica gets a snapshot, and the stream from exactly there |
//! | link | of a replica: its connection to its master, and what applies the master's stream |
//! | run | of a master's stream: commands that one shard alone runs, one after the other, or one unit over several shards |
//! | ticket | how much of the stream must be on disk before a shard may show what it knows (`appendfsync always`) |
//! | position | of a message of pub/sub: its place in the order in which a shard delivers what all shards publish |
//! | invalidation | tells a client that keys have changed that it has read and keeps (CLIENT TRACKING) |
//! | handoff | the offering of a changed key to the clients blocked on it, in order of arrival |
//! | program | a command that calls other commands |
//! | frame | a program under way, on a stack of its own |
//! | slice | what a frame runs at a time, about a millisecond; then it is suspended |
//! | narrow, wide | of a program: it provably touches only its declared keys; it may touch any |
//! | token | whoever holds it, one in the process, may wait for keys in any order while it holds others |
//! | foreign module | one that knows nothing of several threads: its commands are wide programs |
//! | shard-safe module | one whose commands keep to their declared keys, and so run like our own |
//! | script, library | Lua code that EVAL runs; Lua code that has registered functions, which FCALL runs |

pub use config::REDIS_VERSION;

/// Our own version.
pub const SHARDIS_VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod acl;
pub mod call;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod metrics;
pub mod modules;
pub mod persist;
pub mod protocol;
pub mod pubsub;
pub mod runtime;
pub mod script;
pub mod server;
pub mod session;
pub mod shard;
#[cfg(test)]
mod testing;
pub mod types;
pub mod worker;
