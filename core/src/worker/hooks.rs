//! What whoever extends the server is told of, and what it may change.
//!
//! Programs tell of what they do to keys ([`ProgramCtx::told_within`]). Of other events of keys the worker collects those of a turn, and
//! has a task started that tells of them; and others that tell of clients that come and go, and of the periodic work. A filter
//! sees each command of a client or a script before it is looked up.

use super::Worker;
use super::program::{ProgramCtx, Task};
use super::snapshot::Purpose;
use crate::client::{Client, ClientId};
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::event::EventClass;
use crate::shard::observe::{KEY_EVENTS_CLIENT, KeyNotice};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Who is told, once it wants to be, and of what.
#[derive(Default)]
pub struct Hooks {
    /// The classes of events of keys: see [`EventClass::bit`](crate::shard::event::EventClass::bit).
    event_classes: AtomicU32,
    key_events: OnceLock<OnKeyEvents>,
    filters: AtomicBool,
    filter: OnceLock<Filtering>,
    /// Anything of `server_events` is wanted.
    has_server_events: AtomicBool,
    server_events: Mutex<WorkerEvents>,
    /// What those that extend the server make of a snapshot that is loaded as it comes.
    load_support: OnceLock<fn() -> LoadSupport>,
    /// Somebody wants to be told when a client becomes another user.
    user_changes: OnceLock<OnUserChange>,
}

/// Makes the tasks that tell of events of the server; `None` for what nobody wants to be told of.
#[derive(Clone, Copy, Default)]
pub struct WorkerEvents {
    /// A client has connected, or its connection has ended.
    pub client: Option<fn(client: &Client, is_connected: bool) -> Task>,
    /// The first shard has done its periodic work, `hz` times a second.
    pub cron: Option<fn(hz: i32) -> Option<Task>>,
    /// A shard has ended a turn in which it served clients.
    pub iteration: Option<fn() -> Option<Task>>,
    /// A background save, or a rewrite of the append-only file.
    pub save: Option<fn(save: SaveEvent) -> Task>,
    /// The server has become a replica, or a master.
    pub role: Option<fn(is_replica: bool) -> Task>,
    /// The link to the server's master has come up, or gone down.
    pub link: Option<fn(is_up: bool) -> Task>,
    /// A replica gets the stream from here on, or has left that did.
    pub replica: Option<fn(is_online: bool) -> Task>,
    /// The snapshot of a master is loaded; `keeps_data`: beside the present data, whose place it takes when it is complete. Called on
    /// the thread of the link.
    pub snapshot: Option<fn(how: SnapshotEvent, keeps_data: bool)>,
}

impl WorkerEvents {
    fn has_some(&self) -> bool {
        let WorkerEvents { client, cron, iteration, save, role, link, replica, snapshot } = self;
        let of_clients = client.is_some() || cron.is_some() || iteration.is_some();
        let of_replicas = role.is_some() || link.is_some() || replica.is_some() || snapshot.is_some();
        of_clients || save.is_some() || of_replicas
    }
}

/// How far the loading of a master's snapshot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotEvent {
    Begins,
    Loaded,
    Failed,
}

/// Whether whoever extends the server can do with a snapshot that is loaded as it comes from a master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadSupport {
    /// It may be cut off, and the server goes on.
    pub handles_errors: bool,
    /// The data from before is there until it is complete.
    pub handles_async: bool,
}

/// How far a background save, or a rewrite of the append-only file, is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveEvent {
    Begins(Purpose),
    Ended,
    /// There is no file of it.
    Failed,
}

/// Makes of a client's command the one that runs in its place.
pub type Filtering = fn(ClientId, Argv<'_>) -> OwnedArgv;

/// Makes the task that tells that a client becomes another user, or goes; `None`: nobody wants to know it of this client.
pub type OnUserChange = fn(ClientId) -> Option<Task>;

/// Tells of what has happened to keys.
type OnKeyEvents = fn(&mut ProgramCtx<'_>, Vec<KeyNotice>);

impl Hooks {
    /// From the shards' next turns on, `on_events` is told of events of these classes. A later call may only change the
    /// classes.
    pub fn tell_key_events(&self, classes: u32, on_events: OnKeyEvents) {
        self.key_events.get_or_init(|| on_events);
        self.event_classes.store(classes, Ordering::Release);
    }

    /// What tells of events of keys, if anything does.
    pub(super) fn on_key_events(&self) -> Option<OnKeyEvents> {
        self.key_events.get().copied()
    }
}

impl Hooks {
    /// Has these events of the server told from now on, and no others.
    pub fn tell_server_events(&self, events: WorkerEvents) {
        *self.server_events.lock().unwrap_or_else(PoisonError::into_inner) = events;
        self.has_server_events.store(events.has_some(), Ordering::Release);
    }

    /// The events of the server that are told, if there are any.
    #[inline]
    fn server_events(&self) -> Option<WorkerEvents> {
        if !self.has_server_events.load(Ordering::Acquire) {
            return None;
        }
        Some(*self.server_events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who says what is supported. A later call may not give another function.
    pub fn ask_load_support(&self, support: fn() -> LoadSupport) {
        self.load_support.get_or_init(|| support);
    }

    /// What is supported by all.
    pub(super) fn load_support(&self) -> LoadSupport {
        let all = LoadSupport { handles_errors: true, handles_async: true };
        self.load_support.get().map_or(all, |support| support())
    }

    /// A task that tells of the link to the master, if anybody wants to know of that.
    pub(super) fn link_task(&self, is_up: bool) -> Option<Task> {
        self.server_events().and_then(|events| events.link).map(|on_link| on_link(is_up))
    }

    /// Tells how far the loading of a master's snapshot is.
    pub(super) fn tell_snapshot(&self, how: SnapshotEvent, keeps_data: bool) {
        if let Some(on_snapshot) = self.server_events().and_then(|events| events.snapshot) {
            on_snapshot(how, keeps_data);
        }
    }

    /// Has told from now on when clients become other users. A later call may not give another function.
    pub fn tell_user_changes(&self, on_change: OnUserChange) {
        self.user_changes.get_or_init(|| on_change);
    }

    /// Has commands filtered from now on, or no more. A later call may not give another function.
    pub fn filter_commands(&self, filter: Option<Filtering>) {
        if let Some(filter) = filter {
            self.filter.get_or_init(|| filter);
        }
        self.filters.store(filter.is_some(), Ordering::Release);
    }

    /// What filters commands, if anything does.
    #[inline]
    pub(super) fn filter(&self) -> Option<Filtering> {
        if self.filters.load(Ordering::Acquire) { self.filter.get().copied() } else { None }
    }
}

impl Worker {
    /// Whether commands are filtered before they are looked up.
    pub fn has_filters(&self) -> bool {
        self.globals.hooks.filter().is_some()
    }

    /// At the beginning of a turn: of what the shard has to tell.
    #[inline]
    pub(super) fn adopt_hooks(&mut self) {
        let classes = self.globals.hooks.event_classes.load(Ordering::Acquire);
        if classes != self.shard.observers.told_classes() {
            self.shard.set_expiry(self.shard.expire_paused, classes);
        }
    }

    /// Whether what commands do to keys is told within them, so that a script that calls some may come to any key.
    #[inline]
    pub fn tells_keys_within(&self) -> bool {
        self.shard.observers.told_classes() & EventClass::TOLD_WITHIN != 0
    }

    /// At the end of a turn: has what has happened to keys told that was not told within a program.
    #[inline]
    pub(super) fn tell_key_events(&mut self) {
        if self.shard.observers.has_due_expired() {
            self.remove_due_expired();
        }
        if self.shard.observers.has_notices() {
            let mut notices = self.shard.observers.take_notices();
            // Who has done something when it was told of something else is not told of that in turn, and on and on.
            notices.retain(|notice| !notice.is_by_told);
            if let Some(on_events) = self.globals.hooks.on_key_events().filter(|_| !notices.is_empty()) {
                let task = move |program: &mut ProgramCtx<'_>| on_events(program, notices);
                self.add_task_as(KEY_EVENTS_CLIENT, Box::new(task));
            }
        }
    }

    /// The client of a connection has come, or goes.
    #[inline]
    pub(super) fn tell_client_event(&mut self, at: usize, is_connected: bool) {
        let Some(on_client) = self.globals.hooks.server_events().and_then(|events| events.client) else {
            return;
        };
        let connection = self.connections[at].as_deref().filter(|connection| !connection.client.is_server);
        if let Some(connection) = connection {
            let task = on_client(&connection.client, is_connected);
            self.add_task(task);
        }
    }

    /// The client of a connection becomes another user, or goes.
    #[inline]
    pub(super) fn tell_user_change(&mut self, at: usize) {
        if let Some(on_change) = self.globals.hooks.user_changes.get()
            && let Some(connection) = self.connections[at].as_deref()
            && let Some(task) = on_change(connection.client.id)
        {
            self.add_task(task);
        }
    }

    /// At the end of a turn: has told that it ends, if clients were served in it.
    #[inline]
    pub(super) fn tell_iteration(&mut self) {
        if let Some(on_iteration) = self.globals.hooks.server_events().and_then(|events| events.iteration) {
            let input_bytes = self.shard.stats.input_bytes.get();
            if std::mem::replace(&mut self.input_bytes_told, input_bytes) != input_bytes
                && let Some(task) = on_iteration()
            {
                self.add_task(task);
            }
        }
    }

    /// A background save, or a rewrite, begins, or has ended.
    pub(super) fn tell_save(&mut self, save: SaveEvent) {
        if let Some(on_save) = self.globals.hooks.server_events().and_then(|events| events.save) {
            self.add_task(on_save(save));
        }
    }

    /// The server has become a replica, or a master.
    pub fn tell_role(&mut self, is_replica: bool) {
        if let Some(on_role) = self.globals.hooks.server_events().and_then(|events| events.role) {
            self.add_task(on_role(is_replica));
        }
    }

    /// The link to the master is up or down. Told once, whoever notices first.
    pub fn tell_link(&mut self, is_up: bool) {
        if self.globals.link.takes_event(is_up)
            && let Some(task) = self.globals.hooks.link_task(is_up)
        {
            self.add_task(task);
        }
    }

    /// A replica gets the stream from here on, or has left that did.
    pub(super) fn tell_replica(&mut self, is_online: bool) {
        if let Some(on_replica) = self.globals.hooks.server_events().and_then(|events| events.replica) {
            self.add_task(on_replica(is_online));
        }
    }

    /// The first shard has done its periodic work.
    pub(super) fn tell_cron(&mut self) {
        if let Some(on_cron) = self.globals.hooks.server_events().and_then(|events| events.cron)
            && let Some(task) = on_cron(i32::try_from(self.shard.config.hz).unwrap_or(i32::MAX))
        {
            self.add_task(task);
        }
    }
}
