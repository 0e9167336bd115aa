//! The script engine: Lua 5.1 with Redis' sandbox and API, behind a [`Host`] that runs the commands.
//!
//! The crate knows nothing of shards, connections or keys. A [`Vm`] compiles scripts ([`Vm::compile`]) and loads
//! libraries ([`Vm::load_library`]), and runs them ([`Vm::run`], [`Vm::call_function`]). A run calls back into its
//! [`Host`]; the host may suspend the stack on which it was called and let other runs of the same VM begin, go on and
//! end meanwhile. So every run has a C stack of its own, of [`STACK_BYTES`], if it can be suspended.
//!
//! The VM is the unpatched Lua 5.1.5. What Redis gets by patching it (read-only tables) and what 5.1.5 has holes in is
//! dealt with in what a script is given: see `readonly`, `base` and `chunk`. A memory limit ends a run
//! ([`VmOptions::run_limit_bytes`]), and so does the host ([`Control::Stop`]): whatever the script catches. The bytecode of a script
//! is changed before it runs, so that it finds `redis.call` and its keys without looking them up: see `fold`.
//!
//! Like Redis, a server has two VMs: one for EVAL, and one for functions, which FUNCTION FLUSH makes anew. They share a
//! [`Random`]. What outlives a run within a VM: the locals of a library, cjson's settings, and the generator's state.

mod alloc;
mod api;
mod args;
mod base;
mod chunk;
mod ffi;
mod fold;
mod host;
mod keys;
mod layout;
mod library;
pub mod libs;
mod random;
mod readonly;
mod reply;
mod run;
mod sandbox;
mod vm;

pub use args::{Args, Place};
pub use host::{CallOptions, Control, Host, LogLevel, ReplTargets, Resp, TICK_INSTRUCTIONS};
pub use keys::{
    Begin, CallFacts, Commands, Find, KeyGroup, KeyTemplate, KeyUse, LibraryKeyUse, Reason, library_key_use,
    script_key_use,
};
pub use library::{Function, FunctionFlags, Library, LoadError};
pub use random::Random;
pub use vm::{CompileError, RunOptions, Script, ScriptError, Vm, VmOptions};

/// How long a C stack has to be on which a script runs, guard pages not counted.
pub const STACK_BYTES: usize = 4 << 20;
