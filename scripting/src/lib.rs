//! The script engine: Lua 5.1 with Redis' sandbox and API, behind a [`Host`] that runs the commands.
//!
//! The crate knows nothing of shards, connections or keys.

mod host;

pub use host::{CallOptions, Control, Host, LogLevel, ReplTargets, Resp, TICK_INSTRUCTIONS};
