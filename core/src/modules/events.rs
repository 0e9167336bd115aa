//! Events of the server, of which modules are told.
//!
//! A shard-safe module may be told on any thread, where the event happens. Of the events that there are, so far it is told of
//! changes of the configuration.

use super::context::{Access, Context, run_with};
use super::module::Module;
use crate::worker::Worker;
use shardis_modules_api::abi::*;
use std::ffi::{CString, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;

/// A module that is told of an event.
#[derive(Clone, Copy)]
struct Subscription {
    module: &'static Module,
    event: u64,
    callback: unsafe extern "C" fn(*mut RedisModuleCtx, RedisModuleEvent, u64, *mut c_void),
}

static SUBSCRIPTIONS: Mutex<Vec<Subscription>> = Mutex::new(Vec::new());

/// Has a module told of an event, or, without a callback, told no more. Returns whether modules are told of it.
pub(super) fn subscribe(
    module: &'static Module,
    event: RedisModuleEvent,
    callback: RedisModuleEventCallback,
) -> bool {
    if event.id != REDISMODULE_EVENT_CONFIG || !module.is_shard_safe() {
        return false;
    }
    let mut all = SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.retain(|other| !std::ptr::eq(other.module, module) || other.event != event.id);
    all.extend(callback.map(|callback| Subscription { module, event: event.id, callback }));
    true
}

/// A module is told of nothing any more.
pub(super) fn unsubscribe(module: &'static Module) {
    let mut all = SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.retain(|other| !std::ptr::eq(other.module, module));
}

/// CONFIG SET has changed these directives.
pub fn config_changed(worker: &mut Worker, names: &[&[u8]]) {
    let all = SUBSCRIPTIONS.lock().expect("no holder of the list panics").clone();
    let told = all.into_iter().filter(|other| other.event == REDISMODULE_EVENT_CONFIG);
    let names: Vec<CString> =
        names.iter().filter_map(|name| CString::new(name.to_ascii_lowercase()).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    for Subscription { module, event, callback } in told {
        let mut data = RedisModuleConfigChange {
            version: 1,
            num_changes: pointers.len() as u32,
            config_names: pointers.as_mut_ptr(),
        };
        let mut ctx = Context::new(module, Access::Worker(NonNull::from(&mut *worker)));
        let event = RedisModuleEvent { id: event, dataver: 1 };
        let data = (&raw mut data).cast::<c_void>();
        // SAFETY: the module has registered the function as the callback of this event, and the data last until it returns.
        run_with(&mut ctx, |ctx| unsafe {
            callback(ctx, event, u64::from(REDISMODULE_SUBEVENT_CONFIG_CHANGE), data)
        });
        ctx.finish();
    }
}
