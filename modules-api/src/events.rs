//! What happens in the server: events, and notifications of changed keys.

use crate::abi::*;
use crate::api::api;
use crate::callback::only_value;
use crate::context::{Context, NotifyClass, NotifyClasses};
use crate::current;
use crate::error::Error;
use crate::module::{Loader, Module};
use crate::string::ModuleStr;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// What a module can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum EventKind {
    ReplicationRoleChanged = REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
    Persistence = REDISMODULE_EVENT_PERSISTENCE,
    FlushDb = REDISMODULE_EVENT_FLUSHDB,
    Loading = REDISMODULE_EVENT_LOADING,
    ClientChange = REDISMODULE_EVENT_CLIENT_CHANGE,
    Shutdown = REDISMODULE_EVENT_SHUTDOWN,
    ReplicaChange = REDISMODULE_EVENT_REPLICA_CHANGE,
    MasterLinkChange = REDISMODULE_EVENT_MASTER_LINK_CHANGE,
    CronLoop = REDISMODULE_EVENT_CRON_LOOP,
    ModuleChange = REDISMODULE_EVENT_MODULE_CHANGE,
    LoadingProgress = REDISMODULE_EVENT_LOADING_PROGRESS,
    SwapDb = REDISMODULE_EVENT_SWAPDB,
    ForkChild = REDISMODULE_EVENT_FORK_CHILD,
    ReplAsyncLoad = REDISMODULE_EVENT_REPL_ASYNC_LOAD,
    EventLoop = REDISMODULE_EVENT_EVENTLOOP,
    Config = REDISMODULE_EVENT_CONFIG,
}

/// An event as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'e> {
    /// These directives were changed.
    Config {
        names: Vec<&'e CStr>,
    },
    /// `db` is None for all databases.
    FlushDb {
        is_over: bool,
        is_synchronous: bool,
        db: Option<i32>,
    },
    SwapDb {
        first: i32,
        second: i32,
    },
    Client {
        id: u64,
        is_connected: bool,
    },
    Module {
        name: &'e CStr,
        version: i32,
        is_loaded: bool,
    },
    Cron {
        hz: i32,
    },
    /// `progress` is out of 1024, if it is known.
    LoadingProgress {
        hz: i32,
        progress: Option<i32>,
    },
    /// An event that says nothing but which one it is: `REDISMODULE_SUBEVENT_*`.
    Other {
        kind: EventKind,
        subevent: u64,
    },
}

/// What is called at events of a kind.
pub(crate) type Listener = (EventKind, Arc<dyn Fn(&mut Context<'_>, &Event<'_>) + Send + Sync>);

/// The listeners of each module, by its name: a library may have several modules, and a server takes but one function for
/// each kind of event of a module.
static LISTENERS: Mutex<BTreeMap<&'static str, Vec<Listener>>> = Mutex::new(BTreeMap::new());

/// From now on, these are the listeners of a module.
pub(crate) fn set_listeners(module: &'static str, listeners: Vec<Listener>) {
    LISTENERS.lock().expect("no listener is called with the lock").insert(module, listeners);
}

impl Loader<'_> {
    /// Has a function called at each event of a kind. There may be several for one kind; they are called in this order.
    /// Errors: the server does not know the event.
    pub fn on_event<F>(&mut self, kind: EventKind, callback: F) -> Result<(), Error>
    where
        F: Fn(&mut Context<'_>, &Event<'_>) + Send + Sync + 'static,
    {
        let event = RedisModuleEvent { id: kind as u64, dataver: REDISMODULE_EVENT_DATA_VERSION };
        let (ctx, entry) = (self.context().as_ptr(), self.event_entry());
        // SAFETY: the context is that of OnLoad, and `entry` is a function for events. It takes the place of itself, if there
        // is another listener.
        match unsafe { api!(SubscribeToServerEvent)(ctx, event, entry) } {
            REDISMODULE_OK => {
                self.listeners().push((kind, Arc::new(callback)));
                Ok(())
            }
            _ => Err(Error::new(format!("ERR the server has no event {kind:?}"))),
        }
    }

    /// Has a function called when something happens to a key, for these classes of notifications: the class, the event
    /// ("hset") and the key. The function captures nothing. It is called within what changed the key, and is to read it only.
    pub fn on_keyspace_event<F>(
        &mut self,
        classes: impl Into<NotifyClasses>,
        _callback: F,
    ) -> Result<(), Error>
    where
        F: Fn(&mut Context<'_>, NotifyClass, &CStr, ModuleStr<'_>) + Copy + 'static,
    {
        let (ctx, classes) = (self.context().as_ptr(), classes.into().bits());
        // SAFETY: the context is that of OnLoad, and `on_keyspace_event` is a function for notifications.
        match unsafe { api!(SubscribeToKeyspaceEvents)(ctx, classes, Some(on_keyspace_event::<F>)) } {
            REDISMODULE_OK => Ok(()),
            _ => Err(Error::new("ERR the server does not notify of these classes")),
        }
    }
}

/// # Safety
/// The server calls it, as the function for events of the module `M`.
pub(crate) unsafe extern "C" fn on_event<M: Module>(
    ctx: *mut RedisModuleCtx,
    event: RedisModuleEvent,
    subevent: u64,
    data: *mut c_void,
) {
    let _callback = current::Callback::enter("server event");
    let ctx = NonNull::new(ctx).expect("an event has a context");
    // SAFETY: the context and the data are there until this returns.
    let (mut context, event) = unsafe {
        let Some(event) = event_of(event.id, subevent, data) else { return };
        (Context::of_callback(ctx), event)
    };
    let listeners = {
        let all = LISTENERS.lock().expect("no listener is called with the lock");
        all.get(M::NAME).cloned().unwrap_or_default()
    };
    for (_, listener) in listeners.iter().filter(|(kind, _)| *kind == event.kind()) {
        listener(&mut context, &event);
    }
}

impl Event<'_> {
    /// What kind of event it is.
    pub fn kind(&self) -> EventKind {
        match self {
            Event::Config { .. } => EventKind::Config,
            Event::FlushDb { .. } => EventKind::FlushDb,
            Event::SwapDb { .. } => EventKind::SwapDb,
            Event::Client { .. } => EventKind::ClientChange,
            Event::Module { .. } => EventKind::ModuleChange,
            Event::Cron { .. } => EventKind::CronLoop,
            Event::LoadingProgress { .. } => EventKind::LoadingProgress,
            Event::Other { kind, .. } => *kind,
        }
    }
}

/// None for an event that this crate does not know.
///
/// # Safety
/// `data` is that of an event with this id, and lives during `'e`.
unsafe fn event_of<'e>(id: u64, subevent: u64, data: *mut c_void) -> Option<Event<'e>> {
    let kinds = [
        EventKind::ReplicationRoleChanged,
        EventKind::Persistence,
        EventKind::FlushDb,
        EventKind::Loading,
        EventKind::ClientChange,
        EventKind::Shutdown,
        EventKind::ReplicaChange,
        EventKind::MasterLinkChange,
        EventKind::CronLoop,
        EventKind::ModuleChange,
        EventKind::LoadingProgress,
        EventKind::SwapDb,
        EventKind::ForkChild,
        EventKind::ReplAsyncLoad,
        EventKind::EventLoop,
        EventKind::Config,
    ];
    let kind = kinds.into_iter().find(|kind| *kind as u64 == id)?;
    // SAFETY: each event comes with its own structure, and what that points to lives as long.
    let event = unsafe {
        match kind {
            EventKind::Config => {
                let change = &*data.cast::<RedisModuleConfigChange>();
                let names = std::slice::from_raw_parts(change.config_names, change.num_changes as usize);
                Event::Config { names: names.iter().map(|name| CStr::from_ptr(*name)).collect() }
            }
            EventKind::FlushDb => {
                let info = &*data.cast::<RedisModuleFlushInfo>();
                Event::FlushDb {
                    is_over: subevent == REDISMODULE_SUBEVENT_FLUSHDB_END,
                    is_synchronous: info.sync != 0,
                    db: (info.dbnum >= 0).then_some(info.dbnum),
                }
            }
            EventKind::SwapDb => {
                let info = &*data.cast::<RedisModuleSwapDbInfo>();
                Event::SwapDb { first: info.dbnum_first, second: info.dbnum_second }
            }
            EventKind::ClientChange => Event::Client {
                id: (*data.cast::<RedisModuleClientInfo>()).id,
                is_connected: subevent == REDISMODULE_SUBEVENT_CLIENT_CHANGE_CONNECTED,
            },
            EventKind::ModuleChange => {
                let change = &*data.cast::<RedisModuleModuleChange>();
                Event::Module {
                    name: CStr::from_ptr(change.module_name),
                    version: change.module_version,
                    is_loaded: subevent == REDISMODULE_SUBEVENT_MODULE_LOADED,
                }
            }
            EventKind::CronLoop => Event::Cron { hz: (*data.cast::<RedisModuleCronLoopInfo>()).hz },
            EventKind::LoadingProgress => {
                let info = &*data.cast::<RedisModuleLoadingProgressInfo>();
                Event::LoadingProgress {
                    hz: info.hz,
                    progress: (info.progress >= 0).then_some(info.progress),
                }
            }
            EventKind::ReplicationRoleChanged
            | EventKind::Persistence
            | EventKind::Loading
            | EventKind::Shutdown
            | EventKind::ReplicaChange
            | EventKind::MasterLinkChange
            | EventKind::ForkChild
            | EventKind::ReplAsyncLoad
            | EventKind::EventLoop => Event::Other { kind, subevent },
        }
    };
    Some(event)
}

/// # Safety
/// The server calls it, as a function for notifications.
unsafe extern "C" fn on_keyspace_event<F>(
    ctx: *mut RedisModuleCtx,
    class: c_int,
    event: *const c_char,
    key: *mut RedisModuleString,
) -> c_int
where
    F: Fn(&mut Context<'_>, NotifyClass, &CStr, ModuleStr<'_>) + Copy + 'static,
{
    let _callback = current::Callback::enter("keyspace event");
    let (ctx, key, class) = (NonNull::new(ctx), NonNull::new(key), NotifyClass::of_bits(class));
    let (Some(ctx), Some(key), Some(class)) = (ctx, key, class) else { return REDISMODULE_OK };
    // SAFETY: all of it is there until this returns, and `on_keyspace_event` was given an `F`.
    unsafe {
        let (event, key) = (CStr::from_ptr(event), ModuleStr::from_raw(key));
        only_value::<F>()(&mut Context::of_callback(ctx), class, event, key);
    }
    REDISMODULE_OK
}
