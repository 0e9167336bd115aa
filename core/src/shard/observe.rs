//! Who wants to know which keys change.
//!
//! Whatever happens to a key is told here, in [`Audience::notify`]: changes by the door ([`change`](super::change)), keys
//! that are removed because their time is up, and databases that are emptied or swapped. Nearly always nobody wants to
//! know, which is one branch to see.
//!
//! Observers are those who watch a key for their EXEC, and those who wait for one ([`blocking`](super::blocking)). What
//! happens to a key on its way out of the tables concerns only the former.
//!
//! A guest, the key of another shard that is checked out to this one, has its observers at home. While guests are here,
//! what happens to keys is written down instead, and its owner is told with the check-in.

use super::event::Event;
use super::lock::{LockRequestId, LockTable};
use super::watch::Watch;
use super::{Blocking, Shard};
use crate::call::{Call, ClientId, Key};

/// What an event means to those who observe the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyEvent {
    /// It has another value or expiry, is new, or was deleted.
    Modified,
    /// Its time was up, and it was removed.
    Expired,
    /// Another name for what was told as a change, or will be in a moment (`expire` behind `set`): for notifications only.
    Notified,
}

/// What happened to a key, and who did it.
#[derive(Clone, Copy)]
pub struct KeyChange<'a> {
    pub db: u32,
    pub key: Key<'a>,
    pub event: Event,
    /// 0: no client.
    pub client: ClientId,
    pub kind: KeyEvent,
}

/// What happened to a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedOutEvent {
    pub db: u32,
    pub hash: u64,
    pub key: Box<[u8]>,
    pub event: Event,
    pub client: ClientId,
    pub kind: KeyEvent,
}

/// The observers of one shard's keys.
#[derive(Default)]
pub struct Observers {
    watch: Watch,
    /// Commands wait for keys, or have.
    blocks: bool,
    /// While guests are here: what happened to them.
    checked_out: Option<Vec<CheckedOutEvent>>,
    /// Whether there is anybody to tell.
    is_on: bool,
}

impl Observers {
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Changes who watches what.
    pub fn change_watch<T>(&mut self, change: impl FnOnce(&mut Watch) -> T) -> T {
        let result = change(&mut self.watch);
        self.set_on();
        result
    }

    /// Guests are here from now on.
    pub fn begin_checked_out(&mut self) {
        debug_assert!(self.checked_out.is_none(), "one transaction's guests at a time");
        self.checked_out = Some(Vec::new());
        self.set_on();
    }

    /// The guests go home. Returns what happened to them, in order.
    pub fn end_checked_out(&mut self) -> Vec<CheckedOutEvent> {
        let events = self.checked_out.take().expect("they came");
        self.set_on();
        events
    }

    /// Whether there is anybody to tell: the one branch of those who change keys.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    fn set_on(&mut self) {
        self.is_on = self.checked_out.is_some() || self.blocks || !self.watch.is_empty();
    }

    /// A command waits for a key.
    pub(super) fn set_blocks(&mut self, blocks: bool) {
        self.blocks = blocks;
        self.set_on();
    }

    /// Whether a key that has changed is to be offered to those who wait for it.
    fn offers(&self) -> bool {
        self.blocks && self.checked_out.is_none()
    }

    /// A key whose time is up was removed.
    #[inline]
    pub(super) fn expired(&mut self, db: u32, key: Key<'_>) {
        if self.is_on {
            self.note(&KeyChange { db, key, event: Event::EXPIRED, client: 0, kind: KeyEvent::Expired });
        }
    }

    /// Keyspace notifications and tracking begin here, too, as soon as there are some.
    #[cold]
    fn note(&mut self, change: &KeyChange<'_>) {
        let KeyChange { db, key, event, client, kind } = *change;
        match &mut self.checked_out {
            Some(events) => {
                events.push(CheckedOutEvent {
                    db,
                    hash: key.hash,
                    key: key.bytes.into(),
                    event,
                    client,
                    kind,
                });
            }
            None => {
                self.watch.note(db, key, kind);
                self.set_on();
            }
        }
    }
}

/// All who may have to be told, apart from the tables: an entry may be borrowed meanwhile.
pub(super) struct Audience<'a> {
    pub(super) observers: &'a mut Observers,
    pub(super) blocking: &'a mut Blocking,
    pub(super) locks: &'a mut LockTable,
    pub(super) running: Option<LockRequestId>,
}

impl Audience<'_> {
    /// Something has happened to a key. `is_there`: it is there now.
    #[cold]
    pub(super) fn notify(&mut self, change: &KeyChange<'_>, is_there: bool) {
        self.observers.note(change);
        if change.kind == KeyEvent::Modified && self.observers.offers() {
            if is_there {
                self.serve_waits(change.db, change.key);
            }
            self.observers.set_blocks(!self.blocking.is_empty());
        }
    }
}

impl Shard {
    pub(super) fn audience(&mut self) -> Audience<'_> {
        Audience {
            observers: &mut self.observers,
            blocking: &mut self.blocking,
            locks: &mut self.locks,
            running: self.running,
        }
    }

    /// Tells whoever observes the key that it has changed. Counts nothing.
    #[inline]
    pub(super) fn signal_modified(&mut self, call: &Call, db: u32, key: Key<'_>, event: Event) {
        if self.observers.is_on {
            self.notify_observers(&KeyChange {
                db,
                key,
                event,
                client: call.client,
                kind: KeyEvent::Modified,
            });
        }
    }

    /// Tells another event of a key, which was told to have changed.
    #[inline]
    pub(super) fn notify_event(&mut self, call: &Call, db: u32, key: Key<'_>, event: Event) {
        if self.observers.is_on {
            self.notify_observers(&KeyChange {
                db,
                key,
                event,
                client: call.client,
                kind: KeyEvent::Notified,
            });
        }
    }

    #[cold]
    fn notify_observers(&mut self, change: &KeyChange<'_>) {
        let is_there = change.kind == KeyEvent::Modified
            && self.observers.offers()
            && self.exists(change.db, change.key);
        self.audience().notify(change, is_there);
    }

    /// Tells the observers of keys of this shard what happened to them while they were guests of another one.
    pub(super) fn tell_checked_out_events(&mut self, events: &[CheckedOutEvent]) {
        for CheckedOutEvent { db, hash, key, event, client, kind } in events {
            let key = Key { bytes: key, hash: *hash };
            if self.observers.is_on {
                self.notify_observers(&KeyChange {
                    db: *db,
                    key,
                    event: *event,
                    client: *client,
                    kind: *kind,
                });
            }
        }
    }

    /// A client watches a key from now on.
    pub fn watch(&mut self, client: ClientId, db: u32, key: Key<'_>) {
        let found = super::watch::state(self.dbs[db as usize].table(), key, self.now_ms);
        self.observers.change_watch(|watch| watch.add(client, db, key, found));
    }

    /// Whether nothing that a client watches here has changed.
    pub fn watched_keys_unchanged(&self, client: ClientId) -> bool {
        let find =
            |db: u32, key: Key<'_>| super::watch::state(self.dbs[db as usize].table(), key, self.now_ms);
        self.observers.watch.is_unchanged(client, find)
    }

    /// Tells the observers that a database is about to have other keys: those of database `by`, or none.
    pub(super) fn will_replace(&mut self, db: u32, by: Option<u32>) {
        if !self.observers.is_on {
            return;
        }
        let now_ms = self.now_ms;
        let state = |db: u32, key: Key<'_>| super::watch::state(self.dbs[db as usize].table(), key, now_ms);
        let new_state = |key: Key<'_>| by.and_then(|by| state(by, key));
        self.observers.watch.replace(db, &|key| state(db, key), &new_state);
        self.observers.set_on();
    }

    /// Swaps two databases. Counts no change.
    pub fn swap_dbs(&mut self, first: u32, second: u32) {
        if first != second {
            self.will_replace(first, Some(second));
            self.will_replace(second, Some(first));
        }
        self.dbs.swap(first as usize, second as usize);
        [first, second].into_iter().for_each(|db| self.signal_all(db));
    }
}
