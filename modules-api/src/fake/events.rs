//! What a fake server tells its module: events, changes of keys, and INFO.

use super::clients::Server;
use super::context::FakeContext;
use super::{FakeHost, state, text};
use crate::abi::*;
use crate::context::NotifyClass;
use crate::events::Event;
use crate::served;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_longlong, c_void};
use std::sync::Arc;

/// Whom the module wants to be called.
#[derive(Default)]
pub(super) struct Subscribers {
    /// By the id of the event.
    of_events: BTreeMap<u64, RedisModuleEventCallback>,
    /// By the classes of notifications.
    of_keyspace: Vec<(c_int, RedisModuleNotificationFunc)>,
    of_info: RedisModuleInfoFunc,
}

impl FakeHost {
    /// Tells the module of an event, if it wants to be told.
    pub fn fire(&mut self, event: &Event<'_>) {
        match event {
            Event::Config { names } => {
                let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
                let mut change = RedisModuleConfigChange {
                    version: REDISMODULE_EVENT_DATA_VERSION,
                    num_changes: u32::try_from(names.len()).expect("few names"),
                    config_names: names.as_mut_ptr(),
                };
                self.fire_with(event, REDISMODULE_SUBEVENT_CONFIG_CHANGE, &raw mut change);
            }
            Event::FlushDb { is_over, is_synchronous, db } => {
                let subevent = if *is_over {
                    REDISMODULE_SUBEVENT_FLUSHDB_END
                } else {
                    REDISMODULE_SUBEVENT_FLUSHDB_START
                };
                let mut flush = RedisModuleFlushInfo {
                    version: REDISMODULE_EVENT_DATA_VERSION,
                    sync: i32::from(*is_synchronous),
                    dbnum: db.unwrap_or(-1),
                };
                self.fire_with(event, subevent, &raw mut flush);
            }
            Event::SwapDb { first, second } => {
                let mut swap = RedisModuleSwapDbInfo {
                    version: REDISMODULE_EVENT_DATA_VERSION,
                    dbnum_first: *first,
                    dbnum_second: *second,
                };
                self.fire_with(event, 0, &raw mut swap);
            }
            Event::Client { id, is_connected } => {
                let subevent = match is_connected {
                    true => REDISMODULE_SUBEVENT_CLIENT_CHANGE_CONNECTED,
                    false => REDISMODULE_SUBEVENT_CLIENT_CHANGE_DISCONNECTED,
                };
                let mut client = RedisModuleClientInfo {
                    version: REDISMODULE_EVENT_DATA_VERSION,
                    flags: 0,
                    id: *id,
                    addr: [0; 46],
                    port: 0,
                    db: 0,
                };
                self.fire_with(event, subevent, &raw mut client);
            }
            Event::Module { name, version, is_loaded } => {
                let subevent = match is_loaded {
                    true => REDISMODULE_SUBEVENT_MODULE_LOADED,
                    false => REDISMODULE_SUBEVENT_MODULE_UNLOADED,
                };
                let mut change = RedisModuleModuleChange {
                    version: REDISMODULE_EVENT_DATA_VERSION,
                    module_name: name.as_ptr(),
                    module_version: *version,
                };
                self.fire_with(event, subevent, &raw mut change);
            }
            Event::Cron { hz } => {
                let mut cron = RedisModuleCronLoopInfo { version: REDISMODULE_EVENT_DATA_VERSION, hz: *hz };
                self.fire_with(event, 0, &raw mut cron);
            }
            Event::LoadingProgress { hz, progress } => {
                let mut info = RedisModuleLoadingProgressInfo {
                    version: REDISMODULE_EVENT_DATA_VERSION,
                    hz: *hz,
                    progress: progress.unwrap_or(-1),
                };
                self.fire_with(event, REDISMODULE_SUBEVENT_LOADING_PROGRESS_RDB, &raw mut info);
            }
            Event::Other { subevent, .. } => self.fire_with(event, *subevent, std::ptr::null_mut::<c_void>()),
        }
    }

    fn fire_with<T>(&mut self, event: &Event<'_>, subevent: u64, data: *mut T) {
        let id = event.kind() as u64;
        let Some(callback) = self.locked(|state| state.subscribers.of_events.get(&id).copied().flatten())
        else {
            return;
        };
        self.in_context::<&[u8], _>(&[], |ctx| {
            let event = RedisModuleEvent { id, dataver: REDISMODULE_EVENT_DATA_VERSION };
            // SAFETY: the context is one, and the data is what this event comes with.
            unsafe { callback(ctx, event, subevent, data.cast()) };
        });
        self.serve();
    }

    /// Something happens to a key: the module is told, if it wants to be.
    pub fn notify(&mut self, class: NotifyClass, event: &str, key: &str) {
        let event = CString::new(event).expect("the name of an event has no zero in it");
        self.in_context(&[key], |ctx| {
            // SAFETY: the context is one, and its argument is the key.
            unsafe {
                let context = super::context(ctx);
                notify(&context.server, class as c_int, event.as_ptr(), context.arguments[0]);
            }
        });
        self.serve();
    }

    /// The fields that the module adds to INFO, by their names there (`module_field`).
    pub fn info(&mut self) -> BTreeMap<String, String> {
        let mut info = FakeInfo::default();
        let (callback, module) = self.locked(|state| (state.subscribers.of_info, state.directives.module));
        if let Some(callback) = callback {
            self.in_context::<&[u8], _>(&[], |_ctx| {
                // SAFETY: the functions for INFO take this.
                unsafe { callback((&raw mut info).cast(), 0) };
            });
        }
        assert!(info.group.is_none(), "a field with fields was begun and not ended");
        info.fields.into_iter().map(|(name, value)| (format!("{module}_{name}"), value)).collect()
    }
}

/// Tells the module of what happened to a key.
///
/// # Safety
/// The lock is held; `event` is a string of C and `key` one of this server.
pub(super) unsafe fn notify(
    server: &Arc<Server>,
    class: c_int,
    event: *const c_char,
    key: *mut RedisModuleString,
) {
    // SAFETY: as promised.
    let subscribers = unsafe { server.state() }.subscribers.of_keyspace.clone();
    for (classes, callback) in subscribers {
        if let Some(callback) = callback
            && classes & class != 0
        {
            let mut context = FakeContext::new::<&[u8]>(server, &[]);
            // SAFETY: as promised.
            unsafe { callback(context.as_ptr(), class, event, key) };
        }
    }
}

/// What a module adds its fields to.
#[derive(Default)]
struct FakeInfo {
    fields: Vec<(String, String)>,
    /// A field that has fields, and is under way.
    group: Option<(String, Vec<String>)>,
}

impl FakeInfo {
    fn add(&mut self, name: String, value: String) {
        match &mut self.group {
            Some((_, fields)) => fields.push(format!("{name}={value}")),
            None => self.fields.push((name, value)),
        }
    }
}

/// # Safety
/// `ctx` is that of INFO under way.
unsafe fn info<'a>(ctx: *mut RedisModuleInfoCtx) -> &'a mut FakeInfo {
    // SAFETY: as promised.
    unsafe { &mut *ctx.cast::<FakeInfo>() }
}

// The functions of the server, called with the context of the call under way, or of INFO, and with strings of C.

unsafe extern "C" fn subscribe_to_event(
    ctx: *mut RedisModuleCtx,
    event: RedisModuleEvent,
    callback: RedisModuleEventCallback,
) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx) }.subscribers.of_events.insert(event.id, callback);
    REDISMODULE_OK
}

unsafe extern "C" fn subscribe_to_keyspace(
    ctx: *mut RedisModuleCtx,
    classes: c_int,
    callback: RedisModuleNotificationFunc,
) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx) }.subscribers.of_keyspace.push((classes, callback));
    REDISMODULE_OK
}

unsafe extern "C" fn register_info(ctx: *mut RedisModuleCtx, callback: RedisModuleInfoFunc) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx) }.subscribers.of_info = callback;
    REDISMODULE_OK
}

unsafe extern "C" fn add_section(_ctx: *mut RedisModuleInfoCtx, _name: *const c_char) -> c_int {
    REDISMODULE_OK
}

unsafe extern "C" fn add_text(
    ctx: *mut RedisModuleInfoCtx,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: see above.
    unsafe { info(ctx).add(text(name), text(value)) };
    REDISMODULE_OK
}

unsafe extern "C" fn add_integer(
    ctx: *mut RedisModuleInfoCtx,
    name: *const c_char,
    value: c_longlong,
) -> c_int {
    // SAFETY: see above.
    unsafe { info(ctx).add(text(name), value.to_string()) };
    REDISMODULE_OK
}

unsafe extern "C" fn add_double(ctx: *mut RedisModuleInfoCtx, name: *const c_char, value: f64) -> c_int {
    // SAFETY: see above.
    unsafe { info(ctx).add(text(name), value.to_string()) };
    REDISMODULE_OK
}

unsafe extern "C" fn begin_group(ctx: *mut RedisModuleInfoCtx, name: *const c_char) -> c_int {
    // SAFETY: see above.
    let (info, name) = unsafe { (info(ctx), text(name)) };
    assert!(info.group.is_none(), "a field with fields stands in another one");
    info.group = Some((name, Vec::new()));
    REDISMODULE_OK
}

unsafe extern "C" fn end_group(ctx: *mut RedisModuleInfoCtx) -> c_int {
    // SAFETY: see above.
    let info = unsafe { info(ctx) };
    let (name, fields) = info.group.take().expect("a field with fields was begun");
    info.fields.push((name, fields.join(",")));
    REDISMODULE_OK
}

pub(super) static SERVED: &[Served] = served! {
    SubscribeToServerEvent = subscribe_to_event,
    SubscribeToKeyspaceEvents = subscribe_to_keyspace,
    RegisterInfoFunc = register_info,
    InfoAddSection = add_section,
    InfoAddFieldCString = add_text,
    InfoAddFieldLongLong = add_integer,
    InfoAddFieldDouble = add_double,
    InfoBeginDictField = begin_group,
    InfoEndDictField = end_group,
};
