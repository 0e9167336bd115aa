//! The server's log, and assertions.

use super::given::{Ctx, Text, abi_functions};
use crate::modules::server;
use crate::runtime::clock::SystemClock;
use crate::runtime::log;
use shardis_modules_api::abi::*;
use shardis_modules_api::host::Arguments;
use shardis_modules_api::served;
use std::ffi::{c_char, c_int, c_longlong};

pub(super) const SERVED: &[Served] = served! {
    _Assert = assert,
    LatencyAddSample = latency_add_sample,
};

abi_functions! {
    /// Ends the process with a report.
    fn assert(condition: Text, file: Text, line: c_int) {
        panic!("a module's assertion has failed: {} at {}:{line}", condition.to_str(), file.to_str());
    }

    /// LATENCY shows it, unless it is below latency-monitor-threshold.
    fn latency_add_sample(event: Text, latency_ms: c_longlong) {
        // Redis keeps 32 bits of it.
        let latency_ms = latency_ms.clamp(0, i64::from(u32::MAX)) as u64;
        if let Some(globals) = server::globals() {
            globals.latency.sample_of_module(event.bytes(), latency_ms, SystemClock::get());
        }
    }

    fn log(ctx: Option<Ctx>, level: Text, format: *const c_char, arguments: *mut Arguments) {
        // SAFETY: the module passes a format and what it asks for.
        let text = unsafe { (*arguments).format(format) };
        let module = ctx.as_ref().map(|ctx| ctx.module);
        write(module.map_or("module".to_string(), |module| module.name().to_string_lossy().into_owned()), &level, &text);
    }
}

/// Writes a line of a module.
pub(super) fn write(name: String, level: &Text, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match level.bytes() {
        b"debug" => log::debug(format_args!("<{name}> {text}")),
        b"notice" => log::notice(format_args!("<{name}> {text}")),
        b"warning" => log::warning(format_args!("<{name}> {text}")),
        _ => log::verbose(format_args!("<{name}> {text}")),
    }
}
