//! Scripts and functions: EVAL and FCALL, which run them, and SCRIPT and FUNCTION, which keep them.
//!
//! - [`eval`]: EVAL, EVALSHA, FCALL and their read-only forms
//! - [`run`]: how the engine's [`Host`](shardis_scripting::Host) calls commands
//! - [`cache`]: SCRIPT
//! - [`function`]: FUNCTION
//! - [`kill`]: their subcommand KILL

mod cache;
mod eval;
mod function;
mod kill;
mod run;

use crate::command::table::Command;

pub const COMMANDS: &[Command] = &[
    eval::EVAL,
    eval::EVALSHA,
    eval::EVALSHA_RO,
    eval::EVAL_RO,
    eval::FCALL,
    eval::FCALL_RO,
    eval::EVAL_MADE,
    eval::EVAL_RO_MADE,
    eval::EVALSHA_MADE,
    eval::EVALSHA_RO_MADE,
    eval::FCALL_MADE,
    eval::FCALL_RO_MADE,
    function::FUNCTION,
    cache::SCRIPT,
];
