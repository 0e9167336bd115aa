//! Command filters: functions of modules that see each command before it is looked up, and may change its arguments.
//!
//! The filters of a foreign module are callbacks like others: one at a time runs. So with one every command waits for its
//! turn.

use super::context::in_turn_while_loaded;
use super::module::Module;
use super::server;
use super::string::ModuleString;
use crate::client::ClientId;
use crate::protocol::{Argv, OwnedArgv};
use crate::worker::hooks::Filtering;
use shardis_modules_api::abi::*;
use std::ffi::c_int;
use std::sync::RwLock;

/// A filter that a module has registered. It is never freed.
pub(super) struct Filter {
    module: &'static Module,
    callback: unsafe extern "C" fn(*mut RedisModuleCommandFilterCtx),
    /// `REDISMODULE_CMDFILTER_*`.
    flags: c_int,
}

/// In the order in which they were registered.
static FILTERS: RwLock<Vec<&'static Filter>> = RwLock::new(Vec::new());

/// `RedisModuleCommandFilterCtx`: a command that is filtered.
pub(super) struct Filtered {
    pub(super) args: Vec<*mut ModuleString>,
    pub(super) client: ClientId,
}

/// Registers a filter. `None`: there is no function.
pub(super) fn register(
    module: &'static Module,
    callback: RedisModuleCommandFilterFunc,
    flags: c_int,
) -> Option<&'static Filter> {
    let filter: &'static Filter = Box::leak(Box::new(Filter { module, callback: callback?, flags }));
    FILTERS.write().expect("no holder of the filters panics").push(filter);
    tell_server();
    Some(filter)
}

/// Returns whether it was there.
pub(super) fn unregister(module: &Module, filter: *const Filter) -> bool {
    let mut filters = FILTERS.write().expect("no holder of the filters panics");
    let before = filters.len();
    filters.retain(|other| !(std::ptr::eq(*other, filter) && std::ptr::eq(other.module, module)));
    let was_there = filters.len() < before;
    drop(filters);
    tell_server();
    was_there
}

/// A module is unloaded.
pub(super) fn forget(module: &Module) {
    FILTERS
        .write()
        .expect("no holder of the filters panics")
        .retain(|other| !std::ptr::eq(other.module, module));
    tell_server();
}

/// How many filters a module has.
pub(super) fn count(module: &Module) -> usize {
    let filters = FILTERS.read().expect("no holder of the filters panics");
    filters.iter().filter(|filter| std::ptr::eq(filter.module, module)).count()
}

/// Has the shards of a server that has started filter commands, if there are filters.
pub(super) fn tell_server() {
    let Some(globals) = server::globals() else { return };
    let is_empty = FILTERS.read().expect("no holder of the filters panics").is_empty();
    let filter: Filtering = |client, args| filtered(None, client, args);
    globals.hooks.filter_commands((!is_empty).then_some(filter));
}

/// What the filters make of a command. `caller`: the module that calls it. `None`: there are no filters for it.
pub(super) fn filtered_call(caller: &Module, client: ClientId, args: Argv<'_>) -> Option<OwnedArgv> {
    let filters = FILTERS.read().expect("no holder of the filters panics");
    let is_empty = filters.is_empty();
    drop(filters);
    (!is_empty).then(|| filtered(Some(caller), client, args))
}

fn filtered(caller: Option<&Module>, client: ClientId, args: Argv<'_>) -> OwnedArgv {
    let filters = FILTERS.read().expect("no holder of the filters panics").clone();
    let mut command = Filtered { args: args.iter().map(ModuleString::new).collect(), client };
    for Filter { module, callback, flags } in filters {
        let is_own = caller.is_some_and(|caller| std::ptr::eq(caller, *module));
        if is_own && flags & REDISMODULE_CMDFILTER_NOSELF != 0 {
            continue;
        }
        let pointer = std::ptr::from_mut(&mut command).cast();
        // SAFETY: the module has registered the function for this; the command lasts until it returns.
        in_turn_while_loaded(module, "command filter", || unsafe { callback(pointer) });
    }
    let mut changed = OwnedArgv::new();
    for string in command.args {
        // SAFETY: the command has a reference to each of its arguments, which ends here.
        unsafe {
            changed.push_arg((*string).bytes());
            ModuleString::release(string);
        }
    }
    changed
}
