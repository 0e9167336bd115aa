//! Events of the server and of keys, of which modules are told.
//!
//! *Events of the server.* What a command is about to do, or has done, its own program tells ([`guarded`](super::guarded)): that a
//! database is flushed or swapped, that the data set is saved. A [task](crate::worker::program::Task) tells of what happens by
//! itself: clients come and go, time passes. What comes from no shard is told by the thread that it comes from: that files are
//! loaded. Child processes do not exist, so nothing is told of them, but a module may ask for it.
//!
//! *Events of keys.* While a module listens, each command that changes keys is a program ([`guarded`](super::guarded)), whose keys are
//! brought to where it runs. What a program's call of a command has done to keys, it tells the modules before the call returns
//! ([`ProgramCtx::told_within`]). So what a module does then is of one unit with the command, and is recorded before it, as in Redis,
//! which tells while the command runs; and it is recorded for those only for whom the call is. Keys that expire or are evicted are
//! removed by programs, too ([`removal`](crate::worker::program)).
//!
//! Of what no such program does, modules are told by a task behind it, and what they do then is a unit of its own: of a blocking
//! command that is served, a key that is not there, what comes from a master or an append-only file, and, on several shards, of
//! commands over several databases or with keys that no argument names (MOVE, SORT with BY).

use super::abi::describe_client;
use super::context::{Access, Context, run_with};
use super::module::Module;
use super::string::ModuleString;
use super::{replication, server};
use crate::client::Client;
use crate::shard::event::EventClass;
use crate::shard::observe::{KEY_EVENTS_CLIENT, KeyNotice};
use crate::worker::Worker;
use crate::worker::hooks::{SaveEvent, WorkerEvents};
use crate::worker::load::{LoadKind, OnProgress};
use crate::worker::program::{ProgramCtx, Task};
use crate::worker::snapshot::Purpose;
use shardis_modules_api::abi::*;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A module that is told of an event.
#[derive(Clone, Copy)]
struct Subscription {
    module: &'static Module,
    event: u64,
    callback: unsafe extern "C" fn(*mut RedisModuleCtx, RedisModuleEvent, u64, *mut c_void),
}

static SUBSCRIPTIONS: Mutex<Vec<Subscription>> = Mutex::new(Vec::new());

/// The events that any module has subscribed to, a bit for each.
static SUBSCRIBED: AtomicU32 = AtomicU32::new(0);

/// How many subevents each event has, in the order of their numbers.
const SUBEVENTS: [u64; 17] = [2, 6, 2, 5, 2, 0, 2, 2, 0, 2, 2, 0, 3, 2, 3, 2, 1];

/// Has a module told of an event, or, without a callback, told no more. Returns whether there is such an event.
pub(super) fn subscribe(
    module: &'static Module,
    event: RedisModuleEvent,
    callback: RedisModuleEventCallback,
) -> bool {
    if event.id >= SUBEVENTS.len() as u64 {
        return false;
    }
    let mut all = SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.retain(|other| !std::ptr::eq(other.module, module) || other.event != event.id);
    all.extend(callback.map(|callback| Subscription { module, event: event.id, callback }));
    tell_server_events(&all);
    true
}

/// Whether there is such a subevent.
pub(super) fn is_known(event: u64, subevent: u64) -> bool {
    let count = usize::try_from(event).ok().and_then(|event| SUBEVENTS.get(event));
    // An event without subevents has one, number 0.
    count.is_some_and(|&count| subevent < count.max(1))
}

/// Whether any module is told of an event.
pub(super) fn is_told(event: u64) -> bool {
    SUBSCRIBED.load(Ordering::Relaxed) & (1 << event) != 0
}

/// Has the shards of a server that has started say what modules are told of.
fn tell_server_events(all: &[Subscription]) {
    let subscribed = all.iter().fold(0, |bits, other| bits | 1 << other.event);
    SUBSCRIBED.store(subscribed, Ordering::Relaxed);
    if let Some(globals) = server::globals() {
        globals.hooks.tell_server_events(WorkerEvents {
            client: is_told(REDISMODULE_EVENT_CLIENT_CHANGE).then_some(client_changed),
            cron: is_told(REDISMODULE_EVENT_CRON_LOOP).then_some(cron_ran),
            iteration: is_told(REDISMODULE_EVENT_EVENTLOOP).then_some(iterated),
            save: is_told(REDISMODULE_EVENT_PERSISTENCE).then_some(saved),
            role: is_told(REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED).then_some(replication::role_changed),
            link: is_told(REDISMODULE_EVENT_MASTER_LINK_CHANGE).then_some(replication::link_changed),
            replica: is_told(REDISMODULE_EVENT_REPLICA_CHANGE).then_some(replication::replica_changed),
            snapshot: (is_told(REDISMODULE_EVENT_LOADING) || is_told(REDISMODULE_EVENT_REPL_ASYNC_LOAD))
                .then_some(replication::snapshot_loads),
        });
        let on_progress: Option<OnProgress> =
            if is_told(REDISMODULE_EVENT_LOADING_PROGRESS) { Some(loading_progressed) } else { None };
        globals.persistence.loading.tell_progress(on_progress);
    }
}

/// The server has started: see [`subscribe`] and [`subscribe_to_keys`].
pub(super) fn serve() {
    tell_server_events(&SUBSCRIPTIONS.lock().expect("no holder of the list panics"));
    tell_key_events();
}

/// Tells the modules of an event, in an order. `data` points to what the event has.
pub(super) fn tell(access: Access<'_>, event: u64, subevent: u64, data: *mut c_void) {
    if !is_told(event) {
        return;
    }
    let all = SUBSCRIPTIONS.lock().expect("no holder of the list panics").clone();
    all.iter().filter(|other| other.event == event).for_each(|other| call(other, access, subevent, data));
}

fn call(subscription: &Subscription, access: Access<'_>, subevent: u64, data: *mut c_void) {
    let &Subscription { module, event, callback } = subscription;
    let mut ctx = Context::new(module, access);
    let event = RedisModuleEvent { id: event, dataver: REDISMODULE_EVENT_DATA_VERSION };
    // SAFETY: the module has registered the function as the callback of this event, and the data last until it returns.
    run_with(&mut ctx, "server event", |ctx| unsafe { callback(ctx, event, subevent, data) });
    ctx.finish();
}

pub(super) fn of_program<'a>(program: &mut ProgramCtx<'a>) -> Access<'a> {
    Access::Program(NonNull::from(program))
}

/// A flush of a database (`None`: of all) begins, or has ended.
pub(super) fn flushes(program: &mut ProgramCtx<'_>, db: Option<u32>, is_now: bool, has_ended: bool) {
    let dbnum = db.map_or(-1, |db| db as i32);
    let mut data = RedisModuleFlushInfo { version: 1, sync: i32::from(is_now), dbnum };
    let subevent =
        if has_ended { REDISMODULE_SUBEVENT_FLUSHDB_END } else { REDISMODULE_SUBEVENT_FLUSHDB_START };
    tell(of_program(program), REDISMODULE_EVENT_FLUSHDB, subevent, (&raw mut data).cast());
}

/// Two databases have changed places.
pub(super) fn swapped(program: &mut ProgramCtx<'_>, first: i32, second: i32) {
    let mut data = RedisModuleSwapDbInfo { version: 1, dbnum_first: first, dbnum_second: second };
    tell(of_program(program), REDISMODULE_EVENT_SWAPDB, 0, (&raw mut data).cast());
}

/// Saving begins or has ended: `REDISMODULE_SUBEVENT_PERSISTENCE_*`.
pub(super) fn saves(program: &mut ProgramCtx<'_>, subevent: u64) {
    tell(of_program(program), REDISMODULE_EVENT_PERSISTENCE, subevent, std::ptr::null_mut());
}

/// A background save, or a rewrite of the append-only file, begins or has ended.
fn saved(save: SaveEvent) -> Task {
    let subevent = match save {
        SaveEvent::Begins(Purpose::Save) => REDISMODULE_SUBEVENT_PERSISTENCE_RDB_START,
        SaveEvent::Begins(Purpose::Rewrite) => REDISMODULE_SUBEVENT_PERSISTENCE_AOF_START,
        SaveEvent::Ended => REDISMODULE_SUBEVENT_PERSISTENCE_ENDED,
        SaveEvent::Failed => REDISMODULE_SUBEVENT_PERSISTENCE_FAILED,
    };
    Box::new(move |program| saves(program, subevent))
}

/// A save to which somebody waits begins or has ended, outside of a program: DEBUG RELOAD, and a new append-only file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Saving {
    Rdb,
    Aof,
    Ended,
}

/// See [`Saving`]. Modules are told on the thread that saves, and cannot use the keys meanwhile.
pub fn tell_saving(saving: Saving) {
    let subevent = match saving {
        Saving::Rdb => REDISMODULE_SUBEVENT_PERSISTENCE_SYNC_RDB_START,
        Saving::Aof => REDISMODULE_SUBEVENT_PERSISTENCE_SYNC_AOF_START,
        Saving::Ended => REDISMODULE_SUBEVENT_PERSISTENCE_ENDED,
    };
    tell(Access::Nothing, REDISMODULE_EVENT_PERSISTENCE, subevent, std::ptr::null_mut());
}

/// A module was loaded or unloaded.
pub(super) fn module_changed(program: &mut ProgramCtx<'_>, module: &Module, is_loaded: bool) {
    let name = module.name();
    let mut data =
        RedisModuleModuleChange { version: 1, module_name: name.as_ptr(), module_version: module.version() };
    let subevent =
        if is_loaded { REDISMODULE_SUBEVENT_MODULE_LOADED } else { REDISMODULE_SUBEVENT_MODULE_UNLOADED };
    tell(of_program(program), REDISMODULE_EVENT_MODULE_CHANGE, subevent, (&raw mut data).cast());
}

/// A client has connected, or its connection has ended.
fn client_changed(client: &Client, is_connected: bool) -> Task {
    let described = describe_client(client);
    let subevent = if is_connected {
        REDISMODULE_SUBEVENT_CLIENT_CHANGE_CONNECTED
    } else {
        REDISMODULE_SUBEVENT_CLIENT_CHANGE_DISCONNECTED
    };
    Box::new(move |program| {
        let mut data = described;
        tell(of_program(program), REDISMODULE_EVENT_CLIENT_CHANGE, subevent, (&raw mut data).cast());
    })
}

/// The server does its periodic work, `hz` times a second. `None`: the modules have not been told of the last time yet.
fn cron_ran(hz: i32) -> Option<Task> {
    once(&CRON_IS_DUE, move |program| {
        let mut data = RedisModuleCronLoopInfo { version: 1, hz };
        tell(of_program(program), REDISMODULE_EVENT_CRON_LOOP, 0, (&raw mut data).cast());
    })
}

/// A shard has served clients, and may sleep before it goes on. Modules are told of both at once.
fn iterated() -> Option<Task> {
    once(&ITERATION_IS_DUE, |program| {
        for subevent in
            [REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP, REDISMODULE_SUBEVENT_EVENTLOOP_AFTER_SLEEP]
        {
            tell(of_program(program), REDISMODULE_EVENT_EVENTLOOP, subevent, std::ptr::null_mut());
        }
    })
}

static CRON_IS_DUE: AtomicBool = AtomicBool::new(false);
static ITERATION_IS_DUE: AtomicBool = AtomicBool::new(false);

/// A task, unless the last one of its kind has not run yet.
fn once(is_due: &'static AtomicBool, act: impl FnOnce(&mut ProgramCtx<'_>) + Send + 'static) -> Option<Task> {
    if is_due.swap(true, Ordering::Relaxed) {
        return None;
    }
    Some(Box::new(move |program| {
        is_due.store(false, Ordering::Relaxed);
        act(program);
    }))
}

/// What is loaded, or how that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loading {
    Rdb,
    Aof,
    /// The snapshot of a master.
    Replication,
    Ended,
    Failed,
}

/// Files are loaded, or were. Modules are told on the thread that loads them, and cannot use the keys meanwhile.
pub fn tell_loading(loading: Loading) {
    let subevent = match loading {
        Loading::Rdb => REDISMODULE_SUBEVENT_LOADING_RDB_START,
        Loading::Aof => REDISMODULE_SUBEVENT_LOADING_AOF_START,
        Loading::Replication => REDISMODULE_SUBEVENT_LOADING_REPL_START,
        Loading::Ended => REDISMODULE_SUBEVENT_LOADING_ENDED,
        Loading::Failed => REDISMODULE_SUBEVENT_LOADING_FAILED,
    };
    tell(Access::Nothing, REDISMODULE_EVENT_LOADING, subevent, std::ptr::null_mut());
}

/// More of a file was loaded. Modules are told as of [`Loading`].
fn loading_progressed(kind: LoadKind, progress: i32) {
    let subevent = match kind {
        LoadKind::Rdb => REDISMODULE_SUBEVENT_LOADING_PROGRESS_RDB,
        LoadKind::Commands => REDISMODULE_SUBEVENT_LOADING_PROGRESS_AOF,
    };
    let hz = server::globals().map_or(0, |globals| i32::try_from(globals.config().1.hz).unwrap_or(i32::MAX));
    let mut data = RedisModuleLoadingProgressInfo { version: 1, hz, progress };
    tell(Access::Nothing, REDISMODULE_EVENT_LOADING_PROGRESS, subevent, (&raw mut data).cast());
}

/// The shards have ended, and with them all keys: the process ends after this.
pub fn tell_shutdown() {
    tell(Access::Nothing, REDISMODULE_EVENT_SHUTDOWN, 0, std::ptr::null_mut());
}

/// A module that is told of events of keys.
#[derive(Clone, Copy)]
struct KeySubscription {
    module: &'static Module,
    /// `REDISMODULE_NOTIFY_*`.
    classes: c_int,
    callback:
        unsafe extern "C" fn(*mut RedisModuleCtx, c_int, *const c_char, *mut RedisModuleString) -> c_int,
    /// The callback runs. It is one of a program that may come to any key, of which there is one at a time.
    is_active: &'static AtomicBool,
}

static KEY_SUBSCRIPTIONS: Mutex<Vec<KeySubscription>> = Mutex::new(Vec::new());

const CLASSES: [(EventClass, c_int); 13] = [
    (EventClass::Generic, REDISMODULE_NOTIFY_GENERIC),
    (EventClass::String, REDISMODULE_NOTIFY_STRING),
    (EventClass::List, REDISMODULE_NOTIFY_LIST),
    (EventClass::Set, REDISMODULE_NOTIFY_SET),
    (EventClass::Hash, REDISMODULE_NOTIFY_HASH),
    (EventClass::ZSet, REDISMODULE_NOTIFY_ZSET),
    (EventClass::Stream, REDISMODULE_NOTIFY_STREAM),
    (EventClass::Expired, REDISMODULE_NOTIFY_EXPIRED),
    (EventClass::Evicted, REDISMODULE_NOTIFY_EVICTED),
    (EventClass::New, REDISMODULE_NOTIFY_NEW),
    (EventClass::Module, REDISMODULE_NOTIFY_MODULE),
    (EventClass::KeyMiss, REDISMODULE_NOTIFY_KEY_MISS),
    (EventClass::Loaded, REDISMODULE_NOTIFY_LOADED),
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
    let is_active: &'static AtomicBool = Box::leak(Box::default());
    let subscription = KeySubscription { module, classes, callback, is_active };
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
    globals.hooks.tell_key_events(classes, tell_keys);
}

/// Whether modules are told of what commands do to keys.
pub(super) fn are_changes_told() -> bool {
    let wanted = subscribed_classes();
    let classes = CLASSES.iter().filter(|(class, _)| class.bit() & EventClass::TOLD_WITHIN != 0);
    classes.fold(0, |all, (_, number)| all | number) & wanted != 0
}

/// Tells the modules of events of keys. As in Redis none is told of what its callback does, or what others do who are told of
/// that: those who do something else are.
fn tell_keys(program: &mut ProgramCtx<'_>, notices: Vec<KeyNotice>) {
    let all = KEY_SUBSCRIPTIONS.lock().expect("no holder of the list panics").clone();
    for KeyNotice { db, key, event, .. } in notices {
        let class = number_of(event.class());
        let name = CString::new(event.name()).unwrap_or_default();
        let wants = |other: &&KeySubscription| other.classes & class != 0;
        for KeySubscription { module, callback, is_active, .. } in all.iter().filter(wants) {
            if is_active.swap(true, Ordering::Relaxed) {
                continue;
            }
            let key = ModuleString::new(&key);
            let mut ctx = Context::new(module, Access::Program(NonNull::from(&mut *program).cast()));
            ctx.call = *program.call;
            (ctx.call.client, ctx.call.db) = (KEY_EVENTS_CLIENT, db);
            // SAFETY: the module has registered the function for this; the name and the key last until it returns.
            run_with(&mut ctx, "key event", |ctx| unsafe {
                callback(ctx, class, name.as_ptr(), ModuleString::as_abi(key))
            });
            ctx.finish();
            // SAFETY: it was made above.
            unsafe { ModuleString::release(key) };
            is_active.store(false, Ordering::Relaxed);
        }
    }
}

/// A module is told of nothing any more.
pub(super) fn unsubscribe(module: &'static Module) {
    let mut keys = KEY_SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    keys.retain(|other| !std::ptr::eq(other.module, module));
    drop(keys);
    tell_key_events();
    let mut all = SUBSCRIPTIONS.lock().expect("no holder of the list panics");
    all.retain(|other| !std::ptr::eq(other.module, module));
    tell_server_events(&all);
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
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut data = RedisModuleConfigChange {
        version: 1,
        num_changes: pointers.len() as u32,
        config_names: pointers.as_mut_ptr(),
    };
    let subevent = u64::from(REDISMODULE_SUBEVENT_CONFIG_CHANGE);
    call(subscription, access, subevent, (&raw mut data).cast());
}
