//! Modules: libraries in C or Rust that add commands, loaded by the ABI of `redismodule.h`.
//!
//! A module gets a context, whose first field is a pointer to `GetApi`, and asks that for every function that it knows
//! ([`abi`]). The types of the ABI and the list of its functions are in the crate `shardis-modules-api`; what the functions
//! do is here.
//!
//! # Two kinds of modules
//!
//! *A foreign module* does not know of several threads: it relies on its callbacks running one at a time, and its commands
//! may open any key and call any command. A command of it is a wide program ([`crate::worker::program`]): on several
//! shards it takes the token before it starts, so that no two run at the same time in the process. Its code runs on a
//! stack of its own, and is suspended only where it waits for something: for a key of another shard that it opens, or for
//! the reply to a command that it calls there.
//!
//! *A shard-safe module* has declared (`Shardis_DeclareShardSafe`, which our SDK does) that its commands keep to the keys
//! that they declare, and that its callbacks may run on several threads. A command of it is a plain handler over keys
//! ([`Run::Native`](crate::command::table::Run)): it runs on the shard of its keys, or over checked-out ones, as our own
//! do, and at about their cost. It can neither block its client nor reach anything but its keys: functions that would have to
//! are refused, and the log says so once ([`refuse`](context::Context::refuse)). A command that needs that says so, by the
//! flag `blocking` or by `Shardis_SetCommandWide`: it is a wide program, too, but excludes no callbacks of its module.
//!
//! # One callback at a time
//!
//! Programs of foreign modules exclude each other by the token. Other callbacks of theirs (of a data type, a filter, a
//! directive) wait for their [turn](turn), which a program has while its code runs. What frees a value never waits: it is left to whoever
//! has the turn next. Commands of the server that may have to wait become [programs, too](guarded). Only a command that is asked for
//! the [positions of its keys](run) has no turn: it looks at its arguments alone.
//!
//! # What happens later
//!
//! A command may [block its client](blocked): its program ends, and another one replies later. On one shard nothing is done for
//! clients while a program of a module has yielded, as in Redis: see
//! [`suspend_before_clients`](crate::worker::program::ProgramCtx). [Threads] of a module use the
//! server through a program of theirs, while they have the lock. [Timers], ready descriptors and [events] of keys have a program started, too,
//! that calls the module. All these are [tasks](crate::worker::program::Task): wide programs that no client has called.
//!
//! # Built-in modules
//!
//! Some families of commands are shard-safe modules that are linked into the server ([`builtin`]). They are loaded through
//! the same entry as others when the process starts. Clients do not see that they are modules.
//!
//! # Life
//!
//! Loading a module ([`load`]) runs its `OnLoad`, which registers what the module has. Only when that has succeeded, its
//! commands are published, all at once, in a new command table. What is registered is never freed, because calls of it may
//! be under way on any shard; the library itself is closed when it is unloaded and [no shard](load) is in it any more.

pub mod abi;
mod blocked;
pub mod builtin;
mod call_reply;
mod command;
mod commands;
mod context;
mod data_type;
pub mod events;
mod filters;
mod guarded;
pub mod info;
mod key;
mod load;
mod module;
mod replication;
mod run;
pub mod server;
pub mod settings;
mod string;
mod threads;
mod timers;
mod turn;
mod users;

pub use commands::{COMMANDS, list_loaded};
pub use load::{load_configured, load_linked, table_with};
pub use module::{Module, has_types_that_take_turns, load_support, loaded, owner};
