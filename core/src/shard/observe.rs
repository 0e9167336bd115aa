//! The observers of a shard's keys, which are notified of changes.
//!
//! Changes made through [`change`](super::change) are reported in [`Audience::notify`], the removal of expired keys
//! in [`Observers::expired`], and databases that are emptied or swapped in [`Shard::will_replace`]. Nearly always
//! there are no observers, which costs one branch to see.
//!
//! Observers are clients that WATCH a key, those that have read it and track that ([`tracking`](super::tracking)), and clients
//! that are blocked on one ([`blocking`](super::blocking)). The
//! latter are notified, as in Redis, when a key comes to be, is replaced or removed, and when a stream gets an entry. They
//! could have used a value that was there before: what else changes it (XSETID and then XTRIM) is not for them.
//!
//! What happens to keys is also told to modules, and published to the subscribers of keyspace notifications
//! (notify-keyspace-events), in the order in which it happens. An event is published with the unit that it belongs to, before
//! anything else leaves the shard that could be a consequence of it.
//!
//! A checked-out entry is in the tables of its transaction's home for a while, but its observers are on the shard that
//! owns its key. While home holds checked-out entries, events are recorded instead, and the check-in takes them to the
//! owner. They are published at home, where they happen.

use super::event::{Event, EventClass};
use super::expire::LocalExpires;
use super::lock::{LockRequestId, LockTable};
use super::tracking::Tracking;
use super::watch::Watch;
use super::{Blocking, Shard};
use crate::call::{Call, ClientId, Key};
use crate::config::NotifyEvents;
use crate::pubsub::{Delivery, Kind, OpenMessages};
use crate::types::Table;

/// What an event means to those who observe the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyEvent {
    /// It is new, has another value, has got a new entry (XADD), or was deleted: clients that are blocked on it may have
    /// something to get.
    Modified,
    /// It has changed in another way: a value that nobody was served from is still there.
    Edited,
    /// It had expired, and was removed.
    Expired,
    /// A further event of a change that is reported as `Modified` separately (`expire` after `set`): for
    /// notifications only.
    Notified,
}

/// What happened to a key, and which client did it.
#[derive(Clone, Copy)]
pub struct KeyChange<'a> {
    pub db: u32,
    pub key: Key<'a>,
    pub event: Event,
    /// 0: no client.
    pub client: ClientId,
    /// A script of that client did.
    is_by_script: bool,
    pub kind: KeyEvent,
    /// It was published, and others were told, where it happened: the key's entry was checked out.
    is_published: bool,
    is_told: bool,
}

impl<'a> KeyChange<'a> {
    /// A change by the client of a call.
    pub(super) fn by(call: &Call, db: u32, key: Key<'a>, event: Event, kind: KeyEvent) -> KeyChange<'a> {
        let (client, is_by_script) = (call.client, call.in_script);
        KeyChange { db, key, event, client, is_by_script, kind, is_published: false, is_told: false }
    }

    /// What happens by itself.
    fn by_nobody(db: u32, key: Key<'a>, event: Event, kind: KeyEvent) -> KeyChange<'a> {
        let (is_by_script, is_published, is_told) = (false, false, false);
        KeyChange { db, key, event, client: 0, is_by_script, kind, is_published, is_told }
    }
}

/// What happened to a key while its entry was checked out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedOutEvent {
    pub db: u32,
    pub hash: u64,
    pub key: Box<[u8]>,
    pub what: CheckedOutWhat,
}

/// See [`CheckedOutEvent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckedOutWhat {
    /// As in [`KeyChange`].
    Happened { event: Event, client: ClientId, is_by_script: bool, kind: KeyEvent, is_told: bool },
    /// A client of shard `home` has read it, and is to be told when it changes.
    Read { client: ClientId, home: u16 },
    /// It is to be offered to the commands blocked on it: see [`Shard::signal_waits`].
    Signalled,
}

/// As this client those run who are told of events of keys.
pub const KEY_EVENTS_CLIENT: ClientId = ClientId::MAX;

/// An event of a key, for those who are told of all of its class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyNotice {
    pub db: u32,
    pub key: Box<[u8]>,
    pub event: Event,
    /// One of those who are told has done it, when it was told of something.
    pub is_by_told: bool,
}

impl KeyNotice {
    fn held_bytes(&self) -> usize {
        self.key.len() + size_of::<KeyNotice>()
    }
}

/// A key that has expired and was not removed yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DueExpired {
    pub db: u32,
    pub key: Box<[u8]>,
    /// A command has found it.
    pub was_looked_up: bool,
}

/// More keys are not noted as expired at a time.
pub const DUE_EXPIRED_MAX: usize = 256;

/// The observers of one shard's keys.
#[derive(Default)]
pub struct Observers {
    watch: Watch,
    tracking: Tracking,
    /// Whether commands are blocked on keys. Stays set after the last one has gone, until the next change of a key.
    blocks: bool,
    /// While checked-out entries of other shards are here: what happened to them.
    checked_out: Option<Vec<CheckedOutEvent>>,
    /// Keys that have expired while commands were blocked on keys, until these are told.
    expired_awaited: Vec<(u32, Box<[u8]>)>,
    /// The classes of events that are collected for whoever is told of them: [`EventClass::bit`].
    ///
    /// [`EventClass::bit`]: super::event::EventClass::bit
    told_classes: u32,
    notices: Vec<KeyNotice>,
    /// The keys that have expired and are to be removed by a program, because its removal is told within it.
    due_expired: Vec<DueExpired>,
    /// What these take, about.
    notices_bytes: usize,
    /// The classes of events that are published (notify-keyspace-events).
    published_classes: u32,
    to_publish: Vec<KeyNotice>,
    /// Whether there are observers, or events are recorded.
    is_on: bool,
}

impl Observers {
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Changes the watched keys.
    pub fn change_watch<T>(&mut self, change: impl FnOnce(&mut Watch) -> T) -> T {
        let result = change(&mut self.watch);
        self.set_on();
        result
    }

    #[inline]
    pub fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// Changes who is told of changes.
    pub fn change_tracking<T>(&mut self, change: impl FnOnce(&mut Tracking) -> T) -> T {
        let result = change(&mut self.tracking);
        self.set_on();
        result
    }

    /// Records that the client of a call has read a checked-out entry. Returns false if none is here.
    pub(super) fn record_read(&mut self, call: &Call, key: Key<'_>) -> bool {
        let Some(events) = &mut self.checked_out else { return false };
        let what = CheckedOutWhat::Read { client: call.client, home: call.home };
        events.push(CheckedOutEvent { db: call.db, hash: key.hash, key: key.bytes.into(), what });
        true
    }

    /// Begins to record events: checked-out entries of other shards are here from now on. `earlier`: what happened to them
    /// when they were here before.
    pub fn begin_checked_out(&mut self, earlier: Vec<CheckedOutEvent>) {
        debug_assert!(self.checked_out.is_none(), "one transaction's checked-out entries at a time");
        self.checked_out = Some(earlier);
        self.set_on();
    }

    /// Ends the recording: the checked-out entries go back. Returns what happened to them, in order.
    pub fn end_checked_out(&mut self) -> Vec<CheckedOutEvent> {
        let events = self.checked_out.take().expect("recording was begun");
        self.set_on();
        events
    }

    /// Whether a change has to be reported: the one branch that every change of a key pays.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    fn set_on(&mut self) {
        let classes = self.told_classes | self.published_classes;
        let has_observers =
            self.blocks || classes != 0 || !self.watch.is_empty() || !self.tracking.is_empty();
        self.is_on = self.checked_out.is_some() || has_observers;
    }

    /// Sets whether commands are blocked on keys.
    pub(super) fn set_blocks(&mut self, blocks: bool) {
        self.blocks = blocks;
        self.set_on();
    }

    pub fn told_classes(&self) -> u32 {
        self.told_classes
    }

    /// Sets of which classes of events notices are collected.
    pub fn tell_classes(&mut self, classes: u32) {
        self.told_classes = classes;
        self.set_on();
    }

    /// Sets which classes of events are published.
    pub(super) fn publish_classes(&mut self, classes: u32) {
        self.published_classes = classes;
        self.set_on();
    }

    /// Whether events are published.
    #[inline]
    pub fn publishes(&self) -> bool {
        self.published_classes != 0
    }

    /// Whether there are events that have not been published yet.
    #[inline]
    pub fn has_to_publish(&self) -> bool {
        !self.to_publish.is_empty()
    }

    /// Whether it is told that a key has expired.
    pub fn tells_expired(&self) -> bool {
        self.told_classes & EventClass::Expired.bit() != 0
    }

    /// Whether it is told that a key was evicted.
    pub fn tells_evicted(&self) -> bool {
        self.told_classes & EventClass::Evicted.bit() != 0
    }

    /// A key has expired, and its removal is told. Not noted if many are already, or if a look-up finds the last one again.
    #[cold]
    pub(super) fn note_expired(&mut self, db: u32, key: &[u8], was_looked_up: bool) {
        let is_known = |last: &DueExpired| was_looked_up && last.db == db && *last.key == *key;
        if !self.is_expiry_full() && !self.due_expired.last().is_some_and(is_known) {
            self.due_expired.push(DueExpired { db, key: key.into(), was_looked_up });
        }
    }

    pub fn is_expiry_full(&self) -> bool {
        self.due_expired.len() >= DUE_EXPIRED_MAX
    }

    #[inline]
    pub fn has_due_expired(&self) -> bool {
        !self.due_expired.is_empty()
    }

    pub fn take_due_expired(&mut self) -> Vec<DueExpired> {
        std::mem::take(&mut self.due_expired)
    }

    #[inline]
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The memory of the notices that nobody has been told yet, about.
    pub fn notices_bytes(&self) -> usize {
        self.notices_bytes
    }

    pub fn take_notices(&mut self) -> Vec<KeyNotice> {
        self.notices_bytes = 0;
        std::mem::take(&mut self.notices)
    }

    /// Puts notices back that were taken, before those that have come since.
    pub fn return_notices(&mut self, mut earlier: Vec<KeyNotice>) {
        self.notices_bytes += earlier.iter().map(KeyNotice::held_bytes).sum::<usize>();
        earlier.append(&mut self.notices);
        self.notices = earlier;
    }

    /// A key that was to be read is not there.
    #[inline]
    pub(super) fn missed(&mut self, call: &Call, key: Key<'_>) {
        self.tell(&KeyChange::by(call, call.db, key, Event::KEY_MISS, KeyEvent::Notified));
    }

    /// A key was loaded from a file.
    #[inline]
    pub(super) fn loaded(&mut self, db: u32, key: Key<'_>) {
        self.tell(&KeyChange::by_nobody(db, key, Event::LOADED, KeyEvent::Notified));
    }

    /// Something has happened that is no change, and for those only who are told of its class.
    #[inline]
    fn tell(&mut self, what: &KeyChange<'_>) {
        if (self.told_classes | self.published_classes) & what.event.class().bit() != 0 {
            self.note(what);
        }
    }

    /// A key is to be offered to the commands blocked on it. Returns whether it is checked out, so that its owner will do so.
    pub(super) fn record_signal(&mut self, db: u32, key: Key<'_>) -> bool {
        let Some(events) = &mut self.checked_out else { return false };
        let what = CheckedOutWhat::Signalled;
        events.push(CheckedOutEvent { db, hash: key.hash, key: key.bytes.into(), what });
        true
    }

    /// Whether a changed key is to be offered to the commands blocked on it.
    fn offers(&self) -> bool {
        self.blocks && self.checked_out.is_none()
    }

    /// An expired key was removed.
    #[inline]
    pub(super) fn expired(&mut self, db: u32, key: Key<'_>) {
        if self.is_on {
            self.note(&KeyChange::by_nobody(db, key, Event::EXPIRED, KeyEvent::Expired));
            if self.offers() {
                self.expired_awaited.push((db, key.bytes.into()));
            }
        }
    }

    #[inline]
    pub(super) fn has_expired_awaited(&self) -> bool {
        !self.expired_awaited.is_empty()
    }

    pub(super) fn take_expired_awaited(&mut self) -> Vec<(u32, Box<[u8]>)> {
        std::mem::take(&mut self.expired_awaited)
    }

    /// Notifies the watching clients and collects notices, or records the event.
    #[cold]
    fn note(&mut self, change: &KeyChange<'_>) {
        let KeyChange { db, key, event, client, is_by_script, kind, is_published, mut is_told } = *change;
        let is_of = |classes: u32| classes & event.class().bit() != 0 && !event.name().is_empty();
        if is_of(self.published_classes) && !is_published {
            self.to_publish.push(KeyNotice { db, key: key.bytes.into(), event, is_by_told: false });
        }
        if is_of(self.told_classes) && !is_told {
            let is_by_told = client == KEY_EVENTS_CLIENT;
            let notice = KeyNotice { db, key: key.bytes.into(), event, is_by_told };
            self.notices_bytes += notice.held_bytes();
            self.notices.push(notice);
            // The owner of a checked-out entry does not tell it again.
            is_told = true;
        }
        match &mut self.checked_out {
            Some(events) => {
                let what = CheckedOutWhat::Happened { event, client, is_by_script, kind, is_told };
                events.push(CheckedOutEvent { db, hash: key.hash, key: key.bytes.into(), what });
            }
            None => {
                self.watch.note(db, key, kind);
                if kind != KeyEvent::Notified {
                    self.tracking.changed(key.bytes, client, is_by_script);
                }
                self.set_on();
            }
        }
    }
}

/// The parts of a shard that a change of a key concerns, without its tables: the caller may still borrow the entry.
pub(super) struct Audience<'a> {
    pub(super) observers: &'a mut Observers,
    pub(super) blocking: &'a mut Blocking,
    pub(super) locks: &'a mut LockTable,
    pub(super) running: Option<LockRequestId>,
    /// On a writable replica, where a change may give the key a time to live.
    pub(super) local_expires: Option<&'a mut LocalExpires>,
}

impl Audience<'_> {
    /// Something has happened to a key. `is_there`: it exists now.
    #[cold]
    pub(super) fn notify(&mut self, change: &KeyChange<'_>, is_there: bool) {
        self.observers.note(change);
        match change.kind {
            KeyEvent::Modified | KeyEvent::Expired if self.observers.offers() => {
                self.serve_waits(change.db, change.key, is_there);
                self.observers.set_blocks(!self.blocking.is_empty());
            }
            KeyEvent::Modified | KeyEvent::Expired | KeyEvent::Edited | KeyEvent::Notified => {}
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
            local_expires: None,
        }
    }

    /// Notifies the key's observers that it has changed. Does not count the change.
    #[inline]
    pub fn signal_modified(&mut self, call: &Call, db: u32, key: Key<'_>, event: Event) {
        if self.observers.is_on {
            self.notify_observers(&KeyChange::by(call, db, key, event, KeyEvent::Modified));
        }
    }

    /// The same for a change that has nothing for those who are blocked on the key.
    pub fn signal_edited(&mut self, call: &Call, db: u32, key: Key<'_>, event: Event) {
        if self.observers.is_on {
            self.notify_observers(&KeyChange::by(call, db, key, event, KeyEvent::Edited));
        }
    }

    /// Reports a further event of a key that is reported as changed separately.
    #[inline]
    pub fn notify_event(&mut self, call: &Call, db: u32, key: Key<'_>, event: Event) {
        if self.observers.is_on {
            self.notify_observers(&KeyChange::by(call, db, key, event, KeyEvent::Notified));
        }
    }

    #[cold]
    fn notify_observers(&mut self, change: &KeyChange<'_>) {
        let is_there = change.kind == KeyEvent::Modified
            && self.observers.offers()
            && self.lookup_stored(change.db, change.key).is_some();
        self.audience().notify(change, is_there);
    }

    /// Notifies the observers of keys of this shard of what happened to them while they were checked out.
    pub(super) fn tell_checked_out_events(&mut self, events: &[CheckedOutEvent]) {
        for CheckedOutEvent { db, hash, key, what } in events {
            let (db, key) = (*db, Key { bytes: key, hash: *hash });
            match *what {
                CheckedOutWhat::Read { client, home } => {
                    self.observers.change_tracking(|tracking| tracking.read(key.bytes, client, home));
                }
                CheckedOutWhat::Happened { event, client, is_by_script, kind, is_told }
                    if self.observers.is_on =>
                {
                    let is_published = true;
                    let change =
                        KeyChange { db, key, event, client, is_by_script, kind, is_published, is_told };
                    self.notify_observers(&change);
                }
                CheckedOutWhat::Happened { .. } => {}
                CheckedOutWhat::Signalled => self.signal_waits(db, key),
            }
        }
    }

    /// Publishes what has happened to keys since the last call: to the channel of the key, and to that of the event.
    #[cold]
    pub fn publish_events(&mut self) {
        let events = self.config.notify_keyspace_events;
        for KeyNotice { db, key, event, .. } in std::mem::take(&mut self.observers.to_publish) {
            let name = event.name().as_bytes();
            if events.contains(NotifyEvents::KEYSPACE) {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), &key].concat();
                self.publisher.publish_uncounted(Kind::Channel, &channel, name);
            }
            if events.contains(NotifyEvents::KEYEVENT) {
                let channel = [format!("__keyevent@{db}__:").as_bytes(), name].concat();
                self.publisher.publish_uncounted(Kind::Channel, &channel, &key);
            }
        }
    }

    /// Publishes a message, behind what has happened to keys before. Returns how many clients get it.
    pub fn publish_message(&mut self, kind: Kind, channel: &[u8], message: &[u8]) -> u64 {
        if self.observers.has_to_publish() {
            self.publish_events();
        }
        self.publisher.publish(kind, channel, message)
    }

    /// Shows a command to those who watch all commands.
    pub fn publish_command(&mut self, line: &[u8]) {
        self.publisher.publish_uncounted(Kind::Commands, b"", line);
    }

    /// What is published from here on belongs together, up to [`Shard::end_publishing`]. Returns whether that has to follow:
    /// not within such a unit.
    pub fn begin_publishing(&mut self) -> bool {
        if self.observers.has_to_publish() {
            self.publish_events();
        }
        self.publisher.begin_unit()
    }

    pub fn end_publishing(&mut self) {
        if self.observers.has_to_publish() {
            self.publish_events();
        }
        self.publisher.end_unit();
    }

    /// The unit is interrupted. Returns what it has published so far, for [`Shard::resume_publishing`].
    pub fn suspend_publishing(&mut self) -> OpenMessages {
        if self.observers.has_to_publish() {
            self.publish_events();
        }
        self.publisher.suspend_unit()
    }

    pub fn resume_publishing(&mut self, open: OpenMessages) {
        if self.observers.has_to_publish() {
            self.publish_events();
        }
        self.publisher.resume_unit(open);
    }

    /// Whether there is something to be sent to subscribers.
    #[inline]
    pub fn has_published(&self) -> bool {
        self.observers.has_to_publish() || self.publisher.has_something()
    }

    /// Takes what has been published, with the shard that each delivery goes to.
    pub fn take_published(&mut self) -> Vec<(usize, Delivery)> {
        if self.observers.has_to_publish() {
            self.publish_events();
        }
        self.publisher.take_ready()
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

    /// Notifies the watching clients that the keys of a database are about to be replaced: by those of database `by`,
    /// or none. [`Shard::track_replaced`] is for those that track.
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

    /// The same of a database whose place this table takes.
    pub(super) fn will_be_loaded(&mut self, db: u32, new: &Table) {
        if !self.observers.is_on {
            return;
        }
        let now_ms = self.now_ms;
        let state = |key: Key<'_>| super::watch::state(self.dbs[db as usize].table(), key, now_ms);
        let new_state = |key: Key<'_>| super::watch::state(new, key, now_ms);
        self.observers.watch.replace(db, &state, &new_state);
        self.observers.set_on();
    }

    /// Swaps two databases. Counts no change.
    pub fn swap_dbs(&mut self, first: u32, second: u32) {
        if first != second {
            self.track_replaced();
            self.will_replace(first, Some(second));
            self.will_replace(second, Some(first));
        }
        self.dbs.swap(first as usize, second as usize);
        [first, second].into_iter().for_each(|db| self.dbs[db as usize].set_number(db));
        [first, second].into_iter().for_each(|db| self.signal_all(db));
    }
}
