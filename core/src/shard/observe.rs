//! Who wants to know which keys change.
//!
//! Every change of a key goes through [`Shard::modified`] or [`Shard::touched`], and a key that is removed because its
//! time is up through [`Observers::expired`]. Nearly always nobody wants to know, which is one branch to see.
//!
//! Observers are those who watch a key for their EXEC, and those who wait for one ([`blocking`](super::blocking)). What
//! happens to a key on its way out of the tables concerns only the former.
//!
//! A guest, the key of another shard that is checked out to this one, has its observers at home. While guests are here,
//! what happens to keys is written down instead, and its owner is told with the check-in.

use super::Shard;
use super::watch::Watch;
use crate::call::ClientId;
use crate::call::Key;

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyEvent {
    /// It has another value or expiry, is new, or was deleted.
    Touched,
    /// Its time was up, and it was removed.
    Expired,
}

/// What happened to a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestEvent {
    pub db: u32,
    pub hash: u64,
    pub key: Box<[u8]>,
    pub event: KeyEvent,
}

/// The observers of one shard's keys.
#[derive(Default)]
pub struct Observers {
    watch: Watch,
    /// Commands wait for keys, or have.
    blocks: bool,
    /// While guests are here: what happened to them.
    guests: Option<Vec<GuestEvent>>,
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
    pub fn guests_come(&mut self) {
        debug_assert!(self.guests.is_none(), "one transaction's guests at a time");
        self.guests = Some(Vec::new());
        self.set_on();
    }

    /// The guests go home. Returns what happened to them, in order.
    pub fn guests_go(&mut self) -> Vec<GuestEvent> {
        let events = self.guests.take().expect("they came");
        self.set_on();
        events
    }

    fn set_on(&mut self) {
        self.is_on = self.guests.is_some() || self.blocks || !self.watch.is_empty();
    }

    /// A command waits for a key.
    pub(super) fn set_blocks(&mut self, blocks: bool) {
        self.blocks = blocks;
        self.set_on();
    }

    /// A key whose time is up was removed.
    #[inline]
    pub fn expired(&mut self, db: u32, key: Key<'_>) {
        if self.is_on {
            self.tell(db, key, KeyEvent::Expired);
        }
    }

    #[cold]
    fn tell(&mut self, db: u32, key: Key<'_>, event: KeyEvent) {
        match &mut self.guests {
            Some(events) => events.push(GuestEvent { db, hash: key.hash, key: key.bytes.into(), event }),
            None => {
                self.watch.note(db, key, event);
                self.set_on();
            }
        }
    }
}

impl Shard {
    /// Counts one change of the data set, and tells whoever observes the key.
    #[inline]
    pub fn modified(&mut self, db: u32, key: Key<'_>) {
        self.changed(1);
        self.touched(db, key);
    }

    /// Tells whoever observes the key that it has changed. Counts nothing.
    #[inline]
    pub fn touched(&mut self, db: u32, key: Key<'_>) {
        if self.observers.is_on {
            self.tell(db, key);
        }
    }

    #[cold]
    fn tell(&mut self, db: u32, key: Key<'_>) {
        self.observers.tell(db, key, KeyEvent::Touched);
        if self.observers.blocks && self.observers.guests.is_none() {
            self.signal(db, key);
            self.observers.set_blocks(!self.blocking.is_empty());
        }
    }

    /// Tells the observers of keys of this shard what happened to them while they were guests of another one.
    pub fn guest_events(&mut self, events: &[GuestEvent]) {
        for GuestEvent { db, hash, key, event } in events {
            let key = Key { bytes: key, hash: *hash };
            match event {
                KeyEvent::Touched => self.touched(*db, key),
                KeyEvent::Expired => self.observers.expired(*db, key),
            }
        }
    }

    /// A client watches a key from now on.
    pub fn watch(&mut self, client: ClientId, db: u32, key: Key<'_>) {
        let found = super::watch::state(&self.dbs[db as usize].table, key, self.now_ms);
        self.observers.change_watch(|watch| watch.add(client, db, key, found));
    }

    /// Whether nothing that a client watches here has changed.
    pub fn watch_holds(&self, client: ClientId) -> bool {
        let find =
            |db: u32, key: Key<'_>| super::watch::state(&self.dbs[db as usize].table, key, self.now_ms);
        self.observers.watch.holds(client, find)
    }

    /// Tells the observers that a database is about to lose all its keys.
    pub(super) fn will_flush(&mut self, db: u32) {
        if self.observers.is_on {
            let table = &self.dbs[db as usize].table;
            self.observers.watch.replace(db, &|key| super::watch::state(table, key, self.now_ms), &|_| None);
            self.observers.set_on();
        }
    }

    /// Swaps two databases.
    pub fn swap_dbs(&mut self, first: u32, second: u32) {
        if first != second && self.observers.is_on {
            let now_ms = self.now_ms;
            for (db, other) in [(first, second), (second, first)] {
                let (old, new) = (&self.dbs[db as usize].table, &self.dbs[other as usize].table);
                let old_state = |key: Key<'_>| super::watch::state(old, key, now_ms);
                let new_state = |key: Key<'_>| super::watch::state(new, key, now_ms);
                self.observers.watch.replace(db, &old_state, &new_state);
            }
            self.observers.set_on();
        }
        self.dbs.swap(first as usize, second as usize);
        [first, second].into_iter().for_each(|db| self.signal_all(db));
    }
}
