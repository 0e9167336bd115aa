//! Scripts and functions on this shard: what they need of the worker besides the commands that they call.

use super::Worker;
use crate::REDIS_VERSION;
use crate::command::CommandResult;
use crate::runtime::clock::Clock;
use crate::runtime::{host, log};
use crate::script::compiled::CompiledFunction;
use crate::script::shebang::LibraryHeader;
use crate::script::{Library, Scripts};
use crate::worker::Globals;
use shardis_scripting::{Args, CallOptions, Control, Host, LogLevel, Random, VmOptions};
use std::sync::Arc;

/// How long the code of a library may run when it is loaded.
const LOAD_MS_MAX: i64 = 500;

/// The scripts and functions of a shard. `seed`: of their `math.random`.
pub(super) fn new_scripts(globals: &'static Globals, seed: u64) -> Scripts {
    let random = Random::from_state(seed);
    let options = VmOptions { random, redis_version: REDIS_VERSION, run_limit_bytes: usize::MAX };
    Scripts::new(&globals.scripts, options)
}

impl Worker {
    /// Takes over what the configuration says of scripts.
    pub(super) fn limit_scripts(&mut self) {
        let config = &self.shard.config;
        let limit_bytes = match config.script_memory_limit_bytes {
            0 => config.default_script_limit_bytes(host::total_memory_bytes()),
            limit_bytes => limit_bytes,
        };
        self.scripts.set_run_limit_bytes(usize::try_from(limit_bytes).unwrap_or(usize::MAX));
    }

    /// Runs the code of a library that may become one of the process'.
    ///
    /// # Errors
    /// It cannot be compiled, fails, takes too long, or registers no function.
    pub fn load_library(&mut self, header: LibraryHeader, text: &[u8]) -> CommandResult<Arc<Library>> {
        let mut host = LoadHost::new(self.clock());
        self.scripts.load_library(header, text, &mut host)
    }

    /// A function, to be called on this shard.
    ///
    /// # Errors
    /// There is none; the code of its library fails on this shard.
    pub fn callable_function(&mut self, name: &[u8]) -> CommandResult<CompiledFunction> {
        let mut host = LoadHost::new(self.clock());
        self.scripts.callable(name, &mut host)
    }
}

/// What a library that is loaded may do: log.
struct LoadHost {
    clock: &'static dyn Clock,
    until_ms: i64,
}

impl LoadHost {
    fn new(clock: &'static dyn Clock) -> LoadHost {
        LoadHost { clock, until_ms: clock.wall_ms() + LOAD_MS_MAX }
    }
}

impl Host for LoadHost {
    /// Not called: a library has no `redis.call` while it is loaded.
    fn call(&mut self, _args: Args<'_>, _options: CallOptions, reply: &mut Vec<u8>) -> Control {
        reply.extend_from_slice(b"-ERR A library cannot call commands while it is loaded\r\n");
        Control::GoOn
    }

    fn tick(&mut self) -> Control {
        if self.clock.wall_ms() < self.until_ms {
            return Control::GoOn;
        }
        Control::Stop("ERR FUNCTION LOAD timeout")
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        log_for_script(level, message);
    }

    /// Not called: loading has no reply.
    fn replied_error(&mut self, _text: &[u8], _already_counted: bool) {}

    /// Not called either.
    fn may_call(&mut self, _args: Args<'_>) -> Option<bool> {
        Some(false)
    }
}

/// Writes what a script logs.
pub fn log_for_script(level: LogLevel, message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    match level {
        LogLevel::Debug => log::debug(format_args!("{text}")),
        LogLevel::Verbose => log::verbose(format_args!("{text}")),
        LogLevel::Notice => log::notice(format_args!("{text}")),
        LogLevel::Warning => log::warning(format_args!("{text}")),
    }
}
