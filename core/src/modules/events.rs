//! Events of the server and of keys, of which modules are told.
//!
//! Of the events of the server that there are, modules are told so far of changes of the configuration.
//!
//! Of events of keys all modules are told by a [task](crate::worker::program::Task), after what has caused them and before
//! its client has the reply. What a module does when it is told is a unit of its own.

use super::context::{Access, Context, run_with};
use super::module::Module;
use super::server;
use super::string::ModuleString;
use crate::shard::event::EventClass;
use crate::shard::observe::KeyNotice;
use crate::worker::Worker;
use crate::worker::program::Task;
use shardis_modules_api::abi::*;
use std::ffi::{CString, c_char, c_int, c_void};
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
    if event.id != REDISMODULE_EVENT_CONFIG {
        return false;
    }
    let mut all = SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.retain(|other| !std::ptr::eq(other.module, module) || other.event != event.id);
    all.extend(callback.map(|callback| Subscription { module, event: event.id, callback }));
    true
}

/// A module that is told of events of keys.
#[derive(Clone, Copy)]
struct KeySubscription {
    module: &'static Module,
    /// `REDISMODULE_NOTIFY_*`.
    classes: c_int,
    callback:
        unsafe extern "C" fn(*mut RedisModuleCtx, c_int, *const c_char, *mut RedisModuleString) -> c_int,
}

static KEY_SUBSCRIPTIONS: Mutex<Vec<KeySubscription>> = Mutex::new(Vec::new());

const CLASSES: [(EventClass, c_int); 10] = [
    (EventClass::Generic, REDISMODULE_NOTIFY_GENERIC),
    (EventClass::String, REDISMODULE_NOTIFY_STRING),
    (EventClass::List, REDISMODULE_NOTIFY_LIST),
    (EventClass::Set, REDISMODULE_NOTIFY_SET),
    (EventClass::Hash, REDISMODULE_NOTIFY_HASH),
    (EventClass::ZSet, REDISMODULE_NOTIFY_ZSET),
    (EventClass::Stream, REDISMODULE_NOTIFY_STREAM),
    (EventClass::Expired, REDISMODULE_NOTIFY_EXPIRED),
    (EventClass::New, REDISMODULE_NOTIFY_NEW),
    (EventClass::Module, REDISMODULE_NOTIFY_MODULE),
];

/// What the ABI calls a class.
fn number_of(class: EventClass) -> c_int {
    CLASSES.iter().find(|(known, _)| *known == class).map_or(0, |(_, number)| *number)
}

/// The class that the ABI calls so.
pub(super) fn class_of(number: c_int) -> EventClass {
    CLASSES.iter().find(|(_, known)| *known == number).map_or(EventClass::Module, |(class, _)| *class)
}

/// Has a module told of events of keys.
pub(super) fn subscribe_to_keys(
    module: &'static Module,
    classes: c_int,
    callback: RedisModuleNotificationFunc,
) -> bool {
    let Some(callback) = callback else { return false };
    let subscription = KeySubscription { module, classes, callback };
    KEY_SUBSCRIPTIONS.lock().expect("no holder of the list panics").push(subscription);
    tell_key_events();
    true
}

/// The classes of which any module is told.
pub(super) fn subscribed_classes() -> c_int {
    let all = KEY_SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.iter().fold(0, |classes, other| classes | other.classes)
}

/// Has the shards of a server that has started collect the events of which modules are told.
pub(super) fn tell_key_events() {
    let Some(globals) = server::globals() else { return };
    let wanted = subscribed_classes();
    let wanted = CLASSES.iter().filter(|(_, number)| number & wanted != 0);
    let classes = wanted.fold(0, |classes, (class, _)| classes | class.bit());
    globals.hooks.tell_key_events(classes, keys_changed);
}

/// What tells the modules of events of keys.
fn keys_changed(notices: Vec<KeyNotice>) -> Task {
    Box::new(move |program| {
        let all = KEY_SUBSCRIPTIONS.lock().expect("no holder of the list panics").clone();
        for KeyNotice { db, key, event } in notices {
            let class = number_of(event.class());
            let name = CString::new(event.name()).unwrap_or_default();
            for KeySubscription { module, callback, .. } in
                all.iter().filter(|other| other.classes & class != 0)
            {
                let key = ModuleString::new(&key);
                let mut ctx = Context::new(module, Access::Program(NonNull::from(&mut *program).cast()));
                ctx.call = *program.call;
                ctx.call.db = db;
                // SAFETY: the module has registered the function for this; the name and the key last until it returns.
                run_with(&mut ctx, |ctx| unsafe {
                    callback(ctx, class, name.as_ptr(), ModuleString::as_abi(key))
                });
                ctx.finish();
                // SAFETY: it was made above.
                unsafe { ModuleString::release(key) };
            }
        }
    })
}

/// A module is told of nothing any more.
pub(super) fn unsubscribe(module: &'static Module) {
    let mut keys = KEY_SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    keys.retain(|other| !std::ptr::eq(other.module, module));
    drop(keys);
    tell_key_events();
    let mut all = SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.retain(|other| !std::ptr::eq(other.module, module));
}

/// CONFIG SET has changed these directives. Shard-safe modules are told at once, others by a task.
pub fn config_changed(worker: &mut Worker, names: &[&[u8]]) {
    let all = SUBSCRIPTIONS.lock().expect("no holder of the list panics").clone();
    let told = all.into_iter().filter(|other| other.event == REDISMODULE_EVENT_CONFIG);
    let (at_once, later): (Vec<_>, Vec<_>) = told.partition(|other| other.module.is_shard_safe());
    let names: Vec<CString> =
        names.iter().filter_map(|name| CString::new(name.to_ascii_lowercase()).ok()).collect();
    at_once.iter().for_each(|other| tell_config(other, Access::Worker(NonNull::from(&mut *worker)), &names));
    if !later.is_empty() {
        worker.add_task(Box::new(move |program| {
            let access = Access::Program(NonNull::from(program).cast());
            later.iter().for_each(|other| tell_config(other, access, &names));
        }));
    }
}

fn tell_config(subscription: &Subscription, access: Access<'_>, names: &[CString]) {
    let &Subscription { module, event, callback } = subscription;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut data = RedisModuleConfigChange {
        version: 1,
        num_changes: pointers.len() as u32,
        config_names: pointers.as_mut_ptr(),
    };
    let mut ctx = Context::new(module, access);
    let event = RedisModuleEvent { id: event, dataver: 1 };
    let data = (&raw mut data).cast::<c_void>();
    // SAFETY: the module has registered the function as the callback of this event, and the data last until it returns.
    run_with(&mut ctx, |ctx| unsafe {
        callback(ctx, event, u64::from(REDISMODULE_SUBEVENT_CONFIG_CHANGE), data)
    });
    ctx.finish();
}
