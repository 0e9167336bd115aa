//! What whoever extends the server is told of, and what it may change.
//!
//! The worker collects what has happened to keys in a turn, and has a task started that tells of it. A filter sees each
//! command of a client or a script before it is looked up.

use super::Worker;
use super::program::Task;
use crate::client::ClientId;
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::observe::{KEY_EVENTS_CLIENT, KeyNotice};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Who is told, once it wants to be, and of what.
#[derive(Default)]
pub struct Hooks {
    /// The classes of events of keys: see [`EventClass::bit`](crate::shard::event::EventClass::bit).
    event_classes: AtomicU32,
    key_events: OnceLock<OnKeyEvents>,
    filters: AtomicBool,
    filter: OnceLock<Filtering>,
}

/// Makes of a client's command the one that runs in its place.
pub type Filtering = fn(ClientId, Argv<'_>) -> OwnedArgv;

/// Makes the task that tells of what has happened to keys of a shard.
type OnKeyEvents = fn(Vec<KeyNotice>) -> Task;

impl Hooks {
    /// From the shards' next turns on, `on_events` is told of events of these classes. A later call may only change the
    /// classes.
    pub fn tell_key_events(&self, classes: u32, on_events: OnKeyEvents) {
        self.key_events.get_or_init(|| on_events);
        self.event_classes.store(classes, Ordering::Release);
    }
}

impl Hooks {
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
    /// At the beginning of a turn: of what the shard has to tell.
    #[inline]
    pub(super) fn adopt_hooks(&mut self) {
        let classes = self.globals.hooks.event_classes.load(Ordering::Acquire);
        if classes != self.shard.observers.told_classes() {
            self.shard.observers.tell_classes(classes);
        }
    }

    /// At the end of a turn: has what has happened to keys told.
    #[inline]
    pub(super) fn tell_key_events(&mut self) {
        if self.shard.observers.has_notices() {
            let notices = self.shard.observers.take_notices();
            if let Some(on_events) = self.globals.hooks.key_events.get() {
                self.add_task_as(KEY_EVENTS_CLIENT, on_events(notices));
            }
        }
    }
}
