//! The script engine: Lua 5.1 with Redis' sandbox and API, behind a [`Host`] that runs the commands.
//!
//! The crate knows nothing of shards, connections or keys.

mod host;
mod keys;

pub use host::{CallOptions, Control, Host, LogLevel, ReplTargets, Resp, TICK_INSTRUCTIONS};
pub use keys::{
    Begin, CallFacts, Commands, Find, KeyGroup, KeyUse, LibraryKeyUse, Reason, library_key_use,
    script_key_use,
};
