//! The door by which commands change keys.
//!
//! Every change has an [`Event`], a number of changes that it counts as (Redis' `dirty`), and a client that made it. What
//! replaces or removes a whole value is one call: [`Shard::set`], [`Shard::put`], [`Shard::delete`], [`Shard::move_key`].
//! What changes a value in place holds a [`ChangeGuard`] meanwhile:
//!
//! ```text
//! if let Some(mut value) = ctx.shard.change(ctx.call, key, Event::INCRBY) {
//!     value.set_int(sum);
//! }
//! ```
//!
//! Before the change the entry's bucket is stamped for snapshots. When the guard ends, and if something was changed, the
//! change is counted, those who observe the key are told ([`observe`](super::observe)), and a collection of which nothing
//! is left is removed, which is an event of its own (`del`). A guard by which nothing was changed says nothing.
//!
//! Nobody else can reach an entry to change it, and a build with debug assertions checks behind each command that all
//! writes to the tables came this way ([`Shard::assert_all_signalled`]).

use super::event::Event;
use super::expire::signal_expired;
use super::observe::{Audience, KeyChange, KeyEvent};
use super::{ClientId, Shard};
use crate::call::{Call, Key};
use crate::shard::stats::ShardStats;
use crate::types::table::Live;
use crate::types::{EntryMut, NewValue, OwnedEntry, SetExpire, ValueRef};

/// A value that is being changed in place. See the module's documentation.
pub struct ChangeGuard<'a> {
    /// There until the guard ends.
    entry: Option<EntryMut<'a>>,
    db: u32,
    key: Key<'a>,
    event: Event,
    client: ClientId,
    /// How many changes it counts as; 0: nothing has changed so far.
    changes: u64,
    now_ms: i64,
    stats: &'a ShardStats,
    /// Whom to tell, if there is anybody.
    audience: Option<Audience<'a>>,
}

impl ChangeGuard<'_> {
    #[inline]
    fn entry(&self) -> &EntryMut<'_> {
        self.entry.as_ref().expect("it is there until the guard ends")
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        self.entry().value()
    }

    /// Unix time in milliseconds.
    #[inline]
    pub fn expire_at_ms(&self) -> Option<i64> {
        self.entry().expire_at_ms()
    }

    /// Replaces the value by an integer and keeps the expiry.
    #[inline]
    pub fn set_int(&mut self, number: i64) {
        change(&mut self.entry, &mut self.changes).set_int(number);
    }

    /// Replaces the value and keeps the expiry.
    #[inline]
    pub fn set(&mut self, value: NewValue<'_>) {
        change(&mut self.entry, &mut self.changes).set(value);
    }

    /// The value as a string to be changed: see [`EntryMut::string_mut`].
    #[inline]
    pub fn string_mut(&mut self, len_min: usize) -> &mut [u8] {
        change(&mut self.entry, &mut self.changes).string_mut(len_min)
    }

    /// Says how many changes it counts as, where that is not one: the members that SADD has added. None: nobody is told.
    pub fn count(&mut self, changes: u64) {
        self.changes = changes;
    }

    /// Sets or clears the expiry.
    pub fn set_expire(&mut self, at_ms: Option<i64>) {
        change(&mut self.entry, &mut self.changes).set_expire(at_ms);
    }

    #[cold]
    fn notify(&mut self, event: Event, kind: KeyEvent, is_there: bool) {
        if let Some(audience) = &mut self.audience {
            let change = KeyChange { db: self.db, key: self.key, event, client: self.client, kind };
            audience.notify(&change, is_there);
        }
    }

    /// Removes a collection of which nothing is left.
    #[cold]
    fn remove_emptied(&mut self) {
        self.notify(self.event, KeyEvent::Modified, false);
        if let Some(entry) = self.entry.take() {
            entry.remove().take_writes();
        }
        self.notify(Event::DEL, KeyEvent::Notified, false);
    }
}

/// The entry, which changes from here on.
#[inline]
fn change<'b, 'a>(entry: &'b mut Option<EntryMut<'a>>, changes: &mut u64) -> &'b mut EntryMut<'a> {
    *changes = (*changes).max(1);
    let entry = entry.as_mut().expect("it is there until the guard ends");
    entry.will_change();
    entry
}

impl Drop for ChangeGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(entry) = &mut self.entry else { return };
        entry.take_writes();
        if self.changes == 0 {
            return;
        }
        self.stats.dirty.add(self.changes);
        if entry.is_emptied() {
            self.remove_emptied();
        } else if self.audience.is_some() {
            let is_there = !entry.entry().is_expired(self.now_ms);
            self.notify(self.event, KeyEvent::Modified, is_there);
        }
    }
}

impl Shard {
    /// Looks a key up to change its value in place. Notes the access, unless the call does not touch keys.
    #[inline]
    pub fn change<'a>(&'a mut self, call: &Call, key: Key<'a>, event: Event) -> Option<ChangeGuard<'a>> {
        let db = &mut self.dbs[call.db as usize];
        match db.live_mut(key.hash, key.bytes, self.now_ms, !self.expire_paused) {
            Live::Entry(entry) => {
                if !call.no_touch && entry.entry().access() != self.access.unchanged() {
                    entry.touch(self.access.touched(entry.entry().access()));
                }
                let audience = self.observers.is_on().then_some(Audience {
                    observers: &mut self.observers,
                    blocking: &mut self.blocking,
                    locks: &mut self.locks,
                    running: self.running,
                });
                Some(ChangeGuard {
                    entry: Some(entry),
                    db: call.db,
                    key,
                    event,
                    client: call.client,
                    changes: 0,
                    now_ms: self.now_ms,
                    stats: &self.stats,
                    audience,
                })
            }
            gone => {
                if gone.is_removed() {
                    let lazy = self.config.lazyfree_lazy_expire;
                    signal_expired(&self.stats, &mut self.effects, &mut self.observers, lazy, call.db, key);
                }
                None
            }
        }
    }

    /// Sets a key, whatever was there. Counts one change. An expiry given with it is an event of its own. Returns whether
    /// the key is new.
    #[inline]
    pub fn set(
        &mut self,
        call: &Call,
        key: Key<'_>,
        value: NewValue<'_>,
        expire: SetExpire,
        event: Event,
    ) -> bool {
        let is_new = self.store(call, key, value, expire);
        self.changed(1);
        if self.observers.is_on() {
            self.signal_set(call, key, expire, event, is_new);
        }
        is_new
    }

    /// Sets a key as [`Shard::set`] does, and counts no change: DEBUG POPULATE.
    pub fn set_uncounted(&mut self, call: &Call, key: Key<'_>, value: NewValue<'_>, event: Event) {
        let is_new = self.store(call, key, value, SetExpire::Clear);
        if self.observers.is_on() {
            self.signal_set(call, key, SetExpire::Clear, event, is_new);
        }
    }

    /// Sets a key. Returns whether it is new.
    #[inline]
    fn store(&mut self, call: &Call, key: Key<'_>, value: NewValue<'_>, expire: SetExpire) -> bool {
        let db = &mut self.dbs[call.db as usize];
        let is_new = match db.live_mut(key.hash, key.bytes, self.now_ms, !self.expire_paused) {
            Live::Entry(mut entry) => {
                entry.will_change();
                let access = self.access.touched(entry.entry().access());
                entry.overwrite(value, expire, access);
                false
            }
            gone => {
                if gone.is_removed() {
                    let lazy = self.config.lazyfree_lazy_expire;
                    signal_expired(&self.stats, &mut self.effects, &mut self.observers, lazy, call.db, key);
                } else if let Live::Expired { .. } = gone {
                    // Expired keys are kept just now: this one is gone all the same.
                    db.remove(key.hash, key.bytes);
                }
                db.add(key.hash, key.bytes, value, expire);
                true
            }
        };
        db.mark_signalled();
        is_new
    }

    #[cold]
    fn signal_set(&mut self, call: &Call, key: Key<'_>, expire: SetExpire, event: Event, is_new: bool) {
        if is_new {
            self.notify_event(call, call.db, key, Event::NEW);
        }
        self.signal_modified(call, call.db, key, event);
        if let SetExpire::At(_) = expire {
            self.notify_event(call, call.db, key, Event::EXPIRE);
        }
    }

    /// Puts an entry in under its key, in place of what is there. Counts one change.
    pub fn put(&mut self, call: &Call, db: u32, hash: u64, entry: OwnedEntry, event: Event) {
        let bytes = entry.key.clone();
        let key = Key { bytes: &bytes, hash };
        // What is there may be there in name only.
        self.exists(db, key);
        self.dbs[db as usize].put(hash, entry);
        self.dbs[db as usize].mark_signalled();
        self.changed(1);
        self.notify_event(call, db, key, Event::NEW);
        self.signal_modified(call, db, key, event);
    }

    /// Moves a key to another name or database, in place of what is there, with all it has. Counts one change, of two
    /// keys: `from` and `to` are a database, a key and an event each. Returns whether there was such a key.
    pub fn move_key(&mut self, call: &Call, from: (u32, Key<'_>, Event), to: (u32, Key<'_>, Event)) -> bool {
        let ((from_db, from, from_event), (to_db, to, to_event)) = (from, to);
        if !self.exists(from_db, from) {
            return false;
        }
        let Some(entry) = self.dbs[from_db as usize].take(from.hash, from.bytes) else { return false };
        self.dbs[from_db as usize].mark_signalled();
        self.exists(to_db, to);
        self.dbs[to_db as usize].put(to.hash, OwnedEntry { key: to.bytes.into(), ..entry });
        self.dbs[to_db as usize].mark_signalled();
        self.changed(1);
        self.notify_event(call, to_db, to, Event::NEW);
        self.signal_modified(call, from_db, from, from_event);
        self.signal_modified(call, to_db, to, to_event);
        true
    }

    /// Deletes a key. Counts one change if it was there and alive, and returns whether it was.
    pub fn delete(&mut self, call: &Call, key: Key<'_>, event: Event) -> bool {
        let db = &mut self.dbs[call.db as usize];
        match db.live_mut(key.hash, key.bytes, self.now_ms, !self.expire_paused) {
            Live::Entry(mut entry) => {
                entry.will_change();
                entry.remove().take_writes();
            }
            gone => {
                if gone.is_removed() {
                    let lazy = self.config.lazyfree_lazy_expire;
                    signal_expired(&self.stats, &mut self.effects, &mut self.observers, lazy, call.db, key);
                }
                return false;
            }
        }
        self.changed(1);
        self.signal_modified(call, call.db, key, event);
        true
    }

    /// Counts `n` changes of the data set since the last save.
    #[inline]
    pub fn changed(&mut self, n: u64) {
        self.stats.dirty.add(n);
    }

    /// Checks that all that was written to the tables was told to those who must know. For builds with debug assertions,
    /// behind each command.
    #[inline]
    pub fn assert_all_signalled(&self) {
        debug_assert!(
            self.dbs.iter().all(|db| !db.table().has_writes()),
            "a key was changed, and not by the door"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::sync::Arc;

    fn shard() -> Shard {
        Shard::new(0, 1, Arc::new(Config::default()), Arc::new(ShardStats::new(0, 16)), 1)
    }

    fn key(name: &str) -> Key<'_> {
        Key { bytes: name.as_bytes(), hash: crate::types::hash_key(name.as_bytes()) }
    }

    #[test]
    fn a_guard_counts_as_many_changes_as_it_is_told_and_one_that_changed_nothing_none() {
        let (mut shard, call) = (shard(), Call::default());
        shard.set(&call, key("a"), NewValue::Int(1), SetExpire::Clear, Event::SET);
        assert_eq!(shard.stats.dirty.get(), 1);
        drop(shard.change(&call, key("a"), Event::INCRBY).expect("it is there"));
        assert_eq!(shard.stats.dirty.get(), 1);
        let mut guard = shard.change(&call, key("a"), Event::INCRBY).expect("it is there");
        guard.set_int(2);
        guard.count(5);
        drop(guard);
        let mut guard = shard.change(&call, key("a"), Event::INCRBY).expect("it is there");
        guard.set_int(2);
        guard.count(0);
        drop(guard);
        assert_eq!(shard.stats.dirty.get(), 6);
        assert!(shard.change(&call, key("b"), Event::INCRBY).is_none());
        shard.assert_all_signalled();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "not by the door")]
    fn a_change_that_passes_the_door_by_is_found_behind_the_command() {
        let mut shard = shard();
        shard.dbs[0].add(key("a").hash, b"a", NewValue::Int(1), SetExpire::Clear);
        shard.assert_all_signalled();
    }
}
