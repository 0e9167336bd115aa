//! The server, for functions of the ABI that get no context.

use super::module::{Module, every};
use super::{events, filters};
use crate::runtime::clock::{Clock, SystemClock};
use crate::types::module::ModuleType;
use crate::worker::Globals;
use std::sync::OnceLock;

static SERVER: OnceLock<&'static Globals> = OnceLock::new();

/// The server of this process. Later calls change nothing.
pub fn serve(globals: &'static Globals) {
    let _ = SERVER.set(globals);
    every().into_iter().flat_map(Module::types).for_each(|of| {
        globals.module_types.add(of);
    });
    events::serve();
    filters::tell_server();
}

/// The server; `None`: it has not started.
pub(super) fn globals() -> Option<&'static Globals> {
    SERVER.get().copied()
}

/// The types of a module that could not be loaded are gone.
pub(super) fn forget_types(module: &Module) {
    if let Some(globals) = SERVER.get() {
        module.types().into_iter().for_each(|of| globals.module_types.remove(of.id()));
    }
}

/// The part of maxmemory that is in use; 0 without a limit.
pub(super) fn used_memory_ratio() -> f32 {
    SERVER.get().map_or(0.0, |globals| {
        let used = globals.used_memory();
        globals.config().1.maxmemory_ratio(used)
    })
}

/// Whether clients are paused at present.
pub(super) fn is_paused() -> bool {
    SERVER.get().is_some_and(|globals| globals.pause_until_ms() > SystemClock::get().wall_ms())
}
