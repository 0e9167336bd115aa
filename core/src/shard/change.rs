//! Changing keys: every command that writes does it through this module.
//!
//! Every change has an [`Event`], a number of changes that it counts as (Redis' `dirty`), and a client that made it.
//! Replacing or removing a whole value is one call: [`Shard::set`], [`Shard::put`], [`Shard::delete`],
//! [`Shard::move_key`]. A command that changes a value in place does so through a [`ChangeGuard`]:
//!
//! ```text
//! if let Some(mut value) = ctx.shard.change(ctx.call, key, Event::INCRBY) {
//!     value.set_int(sum);
//! }
//! ```
//!
//! A command that may create its key gets the guard from [`Shard::change_or_add`]. A collection is changed through
//! [`ChangeGuard::value_mut`].
//!
//! Before the change the entry's bucket is stamped for snapshots. When the guard is dropped, and if something was
//! changed, the change is counted and the key's observers are notified ([`observe`](super::observe)). A collection
//! that has become empty is removed, which is an event of its own (`del`). If nothing was changed, dropping the guard
//! does nothing, except that a key that it was to create is removed again.
//!
//! No other way for a command leads to an entry, and builds with debug assertions check after each command that all
//! writes to the tables were made here ([`Shard::assert_all_signalled`]).

use super::Shard;
use super::event::Event;
use super::expire::signal_expired;
use super::observe::{Audience, KeyChange, KeyEvent};
use crate::call::{Call, Key};
use crate::shard::stats::ShardStats;
use crate::types::module::KeyPlace;
use crate::types::table::{Found, Live};
use crate::types::{
    EntryMut, NewValue, Object, OwnedEntry, OwnedValue, PackedKind, SetExpire, ValueMut, ValueRef,
};
use std::ops::Range;

/// A value that is being changed in place. See the module's documentation.
pub struct ChangeGuard<'a> {
    /// `None` only while the guard is dropped.
    entry: Option<EntryMut<'a>>,
    call: &'a Call,
    key: Key<'a>,
    event: Event,
    /// How many changes it counts as; 0: nothing has changed so far.
    changes: u32,
    /// The key was added for this change.
    is_new: bool,
    /// Observers are notified although no change is counted.
    is_uncounted: bool,
    /// Observers are notified of nothing but that the key is new.
    is_unobserved: bool,
    now_ms: i64,
    stats: &'a ShardStats,
    /// The observers to notify; `None`: the shard has none. Boxed, because nearly always there are none, and a guard that
    /// is handed over is copied.
    audience: Option<Box<Audience<'a>>>,
}

const _: () = assert!(size_of::<ChangeGuard<'_>>() <= 120);

impl<'a> ChangeGuard<'a> {
    #[inline]
    fn entry(&self) -> &EntryMut<'_> {
        self.entry.as_ref().expect("the entry exists until the guard is dropped")
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

    /// The value as a collection that can be changed in place. If it turns out that there is nothing to change, the
    /// caller tells so by [`ChangeGuard::count`].
    #[inline]
    pub fn value_mut(&mut self) -> ValueMut<'_, 'a> {
        ValueMut::new(change(&mut self.entry, &mut self.changes))
    }

    /// The value as a string of which a range can be changed in place: see [`EntryMut::string_mut`].
    #[inline]
    pub fn string_mut(&mut self, len_min: usize, changed: Range<usize>) -> &mut [u8] {
        change(&mut self.entry, &mut self.changes).string_mut(len_min, changed)
    }

    /// Sets how many changes it counts as, if that is not one: the members that SADD has added. With 0, observers are
    /// not notified.
    pub fn count(&mut self, changes: usize) {
        self.changes = u32::try_from(changes).unwrap_or(u32::MAX);
    }

    /// Counts no change, but notifies observers: of a change that is counted for another key (LMOVE), or that may change
    /// nothing (LTRIM).
    pub fn count_none(&mut self) {
        self.changes = self.changes.max(1);
        self.is_uncounted = true;
    }

    /// Counts no change, and notifies no observers, but of a new key, because the caller does both: a module says itself when it
    /// has changed a key.
    pub fn be_unobserved(&mut self) {
        self.is_unobserved = true;
        self.is_uncounted = true;
    }

    /// Sets or clears the expiry.
    pub fn set_expire(&mut self, at_ms: Option<i64>) {
        change(&mut self.entry, &mut self.changes).set_expire(at_ms);
        if at_ms.is_some()
            && self.call.client != 0
            && let Some(local_expires) =
                self.audience.as_mut().and_then(|audience| audience.local_expires.as_deref_mut())
        {
            local_expires.note(self.call.db, self.key.bytes);
        }
    }

    #[cold]
    fn notify(&mut self, event: Event, kind: KeyEvent, is_there: bool) {
        if let Some(audience) = &mut self.audience {
            let change = KeyChange::by(self.call, self.call.db, self.key, event, kind);
            audience.notify(&change, is_there);
        }
    }

    /// Removes a key that was added for a change that did not happen.
    #[cold]
    fn remove_unused(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.remove().take_writes();
        }
    }

    /// Removes a collection that has become empty.
    #[cold]
    fn remove_emptied(&mut self) {
        if self.is_unobserved {
            self.audience = None;
        }
        if self.is_new {
            self.notify(Event::NEW, KeyEvent::Notified, true);
        }
        self.notify(self.event, KeyEvent::Modified, false);
        if let Some(entry) = self.entry.take() {
            entry.remove().take_writes();
        }
        self.notify(Event::DEL, KeyEvent::Notified, false);
    }
}

/// The entry, of which at least one change counts from here on.
#[inline]
fn change<'b, 'a>(entry: &'b mut Option<EntryMut<'a>>, changes: &mut u32) -> &'b mut EntryMut<'a> {
    *changes = (*changes).max(1);
    let entry = entry.as_mut().expect("the entry exists until the guard is dropped");
    entry.will_change();
    entry
}

impl Drop for ChangeGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(entry) = &mut self.entry else { return };
        entry.take_writes();
        if self.changes == 0 {
            if self.is_new {
                self.remove_unused();
            }
            return;
        }
        if !self.is_uncounted {
            self.stats.dirty.add(u64::from(self.changes));
        }
        if entry.is_emptied() {
            self.remove_emptied();
        } else if self.audience.is_some() {
            let is_there = !entry.entry().is_expired(self.now_ms);
            if self.is_new {
                self.notify(Event::NEW, KeyEvent::Notified, is_there);
            }
            if self.is_unobserved {
                return;
            }
            let is_for_waits = self.is_new || !is_there || self.event == Event::XADD;
            let kind = if is_for_waits { KeyEvent::Modified } else { KeyEvent::Edited };
            self.notify(self.event, kind, is_there);
        }
    }
}

impl Shard {
    /// Looks a key up to change its value in place. Records the access, unless the client has set CLIENT NO-TOUCH.
    #[inline]
    pub fn change<'a>(&'a mut self, call: &'a Call, key: Key<'a>, event: Event) -> Option<ChangeGuard<'a>> {
        let removes_expired = self.writes_remove_expired();
        let db = &mut self.dbs[call.db as usize];
        match db.live_mut(key.hash, key.bytes, self.now_ms, removes_expired) {
            Live::Entry(entry) => {
                if !call.no_touch && entry.entry().access() != self.access.unchanged() {
                    entry.touch(self.access.touched(entry.entry().access()));
                }
                let audience = (self.observers.is_on() | self.is_writable_replica).then(|| {
                    Box::new(Audience {
                        observers: &mut self.observers,
                        blocking: &mut self.blocking,
                        locks: &mut self.locks,
                        running: self.running,
                        local_expires: self.is_writable_replica.then_some(&mut self.local_expires),
                    })
                });
                Some(ChangeGuard {
                    entry: Some(entry),
                    call,
                    key,
                    event,
                    changes: 0,
                    is_new: false,
                    is_uncounted: false,
                    is_unobserved: false,
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

    /// Looks a key up to change its value in place, and adds it with an empty collection if it does not exist. As for
    /// [`Shard::change`], a key of another type is returned too: the caller looks at its type before the change.
    #[inline]
    pub fn change_or_add<'a>(
        &'a mut self,
        call: &'a Call,
        key: Key<'a>,
        event: Event,
        kind: PackedKind,
    ) -> ChangeGuard<'a> {
        self.change_or_add_with(call, key, event, || NewValue::Packed(kind, kind.empty()))
    }

    /// As [`Shard::change_or_add`], with an object.
    pub fn change_or_add_object<'a>(
        &'a mut self,
        call: &'a Call,
        key: Key<'a>,
        event: Event,
        new: impl FnOnce() -> Box<Object>,
    ) -> ChangeGuard<'a> {
        self.change_or_add_with(call, key, event, || NewValue::Object(new()))
    }

    #[inline]
    fn change_or_add_with<'a>(
        &'a mut self,
        call: &'a Call,
        key: Key<'a>,
        event: Event,
        new: impl FnOnce() -> NewValue<'static>,
    ) -> ChangeGuard<'a> {
        let removes_expired = self.writes_remove_expired();
        let db = &mut self.dbs[call.db as usize];
        let (entry, found) = db.get_or_add(key.hash, key.bytes, self.now_ms, new);
        // While expired keys are kept (CLIENT PAUSE), the expired one is replaced without an effect of its own.
        if found == Found::AddedAfterExpiry && removes_expired {
            let lazy = self.config.lazyfree_lazy_expire;
            signal_expired(&self.stats, &mut self.effects, &mut self.observers, lazy, call.db, key);
        }
        if found == Found::Existing && !call.no_touch && entry.entry().access() != self.access.unchanged() {
            entry.touch(self.access.touched(entry.entry().access()));
        }
        let audience = (self.observers.is_on() | self.is_writable_replica).then(|| {
            Box::new(Audience {
                observers: &mut self.observers,
                blocking: &mut self.blocking,
                locks: &mut self.locks,
                running: self.running,
                local_expires: self.is_writable_replica.then_some(&mut self.local_expires),
            })
        });
        ChangeGuard {
            entry: Some(entry),
            call,
            key,
            event,
            changes: 0,
            is_new: found != Found::Existing,
            is_uncounted: false,
            is_unobserved: false,
            now_ms: self.now_ms,
            stats: &self.stats,
            audience,
        }
    }

    /// Looks a key up to change what does not concern those who observe its value: WATCH and blocked clients see nothing
    /// of the consumer groups of a stream. Notifications are up to the caller.
    pub fn change_unobserved<'a>(&'a mut self, call: &'a Call, key: Key<'a>) -> Option<ChangeGuard<'a>> {
        let mut guard = self.change(call, key, Event::XGROUP_SETID)?;
        guard.audience = None;
        Some(guard)
    }

    /// Sets a key, whether it exists or not. Counts one change. An expiry set with it is an event of its own. Returns
    /// whether the key is new.
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

    /// Sets a key as [`Shard::set`] does, but counts no change and notifies no observers, but of a new key: see
    /// [`ChangeGuard::be_unobserved`].
    pub fn set_unobserved(&mut self, call: &Call, key: Key<'_>, value: NewValue<'_>, expire: SetExpire) {
        let is_new = self.store(call, key, value, expire);
        if is_new && self.observers.is_on() {
            self.notify_event(call, call.db, key, Event::NEW);
        }
    }

    /// Sets a key. Returns whether it is new.
    #[inline]
    fn store(&mut self, call: &Call, key: Key<'_>, value: NewValue<'_>, expire: SetExpire) -> bool {
        let removes_expired = self.writes_remove_expired();
        let db = &mut self.dbs[call.db as usize];
        let is_new = match db.live_mut(key.hash, key.bytes, self.now_ms, removes_expired) {
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
                    // Expired keys are kept at present (CLIENT PAUSE), but this one is replaced by a new key.
                    db.remove(key.hash, key.bytes);
                }
                db.add(key.hash, key.bytes, value, expire);
                true
            }
        };
        db.mark_signalled();
        if let SetExpire::At(_) = expire {
            self.note_local_expire(call, call.db, key);
        }
        is_new
    }

    /// A key has got a time to live.
    #[inline]
    fn note_local_expire(&mut self, call: &Call, db: u32, key: Key<'_>) {
        if self.is_writable_replica && call.client != 0 {
            self.local_expires.note(db, key.bytes);
        }
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

    /// Puts an entry in under its key, and replaces what is there. Counts one change.
    pub fn put(&mut self, call: &Call, db: u32, hash: u64, entry: OwnedEntry, event: Event) {
        let bytes = entry.key.clone();
        let key = Key { bytes: &bytes, hash };
        // Removes the present entry if it has expired.
        self.exists(db, key);
        if entry.expire_at_ms.is_some() {
            self.note_local_expire(call, db, key);
        }
        self.dbs[db as usize].put(hash, entry);
        self.dbs[db as usize].mark_signalled();
        self.changed(1);
        self.notify_event(call, db, key, Event::NEW);
        self.signal_modified(call, db, key, event);
    }

    /// Moves a key, with its value and expiry, to another name or database, and replaces what is there. Counts one
    /// change, which is an event of both keys: `from` and `to` are a database, a key and an event each. Returns
    /// whether the key existed.
    pub fn move_key(&mut self, call: &Call, from: (u32, Key<'_>, Event), to: (u32, Key<'_>, Event)) -> bool {
        let ((from_db, from, from_event), (to_db, to, to_event)) = (from, to);
        if !self.exists(from_db, from) {
            return false;
        }
        let taken = self.dbs[from_db as usize].take(from.hash, from.bytes);
        let Some((entry, saved)) = taken else { return false };
        self.dbs[from_db as usize].mark_signalled();
        if let OwnedValue::Object(object) = &entry.value
            && let Object::Module(module) = &**object
        {
            module.moved_from(KeyPlace::of(from_db, from.bytes));
        }
        self.exists(to_db, to);
        let entry = OwnedEntry { key: to.bytes.into(), ..entry };
        if entry.expire_at_ms.is_some() {
            self.note_local_expire(call, to_db, to);
        }
        self.dbs[to_db as usize].put_taken(to.hash, entry, saved);
        self.dbs[to_db as usize].mark_signalled();
        self.changed(1);
        self.notify_event(call, to_db, to, Event::NEW);
        self.signal_modified(call, from_db, from, from_event);
        self.signal_modified(call, to_db, to, to_event);
        true
    }

    /// The value of a key may be changed from here on, until the unit ends, without this module's doing: by a module, to
    /// which it belongs.
    pub fn will_change(&mut self, db: u32, key: Key<'_>) {
        self.dbs[db as usize].before_change(key.hash).save_module_value(key.hash, key.bytes);
    }

    /// Deletes a key. Counts one change if it existed and had not expired, and returns whether that was so.
    pub fn delete(&mut self, call: &Call, key: Key<'_>, event: Event) -> bool {
        if !self.delete_unobserved(call, key) {
            return false;
        }
        self.changed(1);
        self.signal_modified(call, call.db, key, event);
        true
    }

    /// The same, but counts no change and notifies no observers: see [`ChangeGuard::be_unobserved`].
    pub fn delete_unobserved(&mut self, call: &Call, key: Key<'_>) -> bool {
        let removes_expired = self.writes_remove_expired();
        let db = &mut self.dbs[call.db as usize];
        match db.live_mut(key.hash, key.bytes, self.now_ms, removes_expired) {
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
        true
    }

    /// Removes a key to make room. No client has done it, and it counts as no change.
    pub(super) fn evict(&mut self, db: u32, key: Key<'_>) {
        self.dbs[db as usize].evict(key.hash, key.bytes);
        self.dbs[db as usize].mark_signalled();
        self.stats.evicted_keys.add(1);
        self.signal_modified(&Call::default(), db, key, Event::EVICTED);
        if self.observers.has_to_publish() {
            // Otherwise what is to be published would take the room of the keys.
            self.publish_events();
        }
        self.effects.removed(db, key.bytes, self.config.lazyfree_lazy_eviction);
        self.effects.end_apart();
    }

    /// Counts `n` changes of the data set since the last save.
    #[inline]
    pub fn changed(&mut self, n: u64) {
        self.stats.dirty.add(n);
    }

    /// Checks that every write to the tables was reported to the keys' observers. For builds with debug assertions,
    /// after each command.
    #[inline]
    pub fn assert_all_signalled(&self) {
        debug_assert!(
            self.dbs.iter().all(|db| !db.table().has_writes()),
            "a key was changed without its observers being notified"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::types::Blob;
    use std::sync::Arc;

    fn shard() -> Shard {
        Shard::new(0, 1, Arc::new(Config::default()), Arc::new(ShardStats::new(0, 16)), 1)
    }

    fn key(name: &str) -> Key<'_> {
        Key { bytes: name.as_bytes(), hash: crate::types::hash_key(name.as_bytes()) }
    }

    #[test]
    fn a_guard_counts_the_changes_it_is_told_and_none_if_nothing_was_changed() {
        let (mut shard, call) = (shard(), Call::default());
        shard.set(&call, key("a"), NewValue::Int(1), SetExpire::Clear, Event::SET);
        assert_eq!(shard.stats.dirty.get(), 1);
        drop(shard.change(&call, key("a"), Event::INCRBY).expect("the key exists"));
        assert_eq!(shard.stats.dirty.get(), 1);
        let mut guard = shard.change(&call, key("a"), Event::INCRBY).expect("the key exists");
        guard.set_int(2);
        guard.count(5);
        drop(guard);
        let mut guard = shard.change(&call, key("a"), Event::INCRBY).expect("the key exists");
        guard.set_int(2);
        guard.count(0);
        drop(guard);
        assert_eq!(shard.stats.dirty.get(), 6);
        assert!(shard.change(&call, key("b"), Event::INCRBY).is_none());
        shard.assert_all_signalled();
    }

    /// The bytes of a list of one element, `a`.
    const ONE: [u8; 10] = [10, 0, 0, 0, 1, 0, 0x81, b'a', 2, 0xFF];

    #[test]
    fn a_collection_is_added_by_its_first_change_and_removed_by_its_last() {
        let (mut shard, call) = (shard(), Call::default());
        // Nothing is put in: the key does not come to be.
        let mut guard = shard.change_or_add(&call, key("a"), Event::SET, PackedKind::List);
        assert!(guard.is_new);
        guard.value_mut();
        guard.count(0);
        drop(guard);
        drop(shard.change_or_add(&call, key("a"), Event::SET, PackedKind::List));
        assert_eq!((shard.key_count(0), shard.stats.dirty.get()), (0, 0));

        let mut guard = shard.change_or_add(&call, key("a"), Event::SET, PackedKind::List);
        guard.value_mut().packed().splice(0..7, 10).copy_from_slice(&ONE);
        guard.count(3);
        drop(guard);
        assert_eq!((shard.key_count(0), shard.stats.dirty.get()), (1, 3));

        let mut guard = shard.change_or_add(&call, key("a"), Event::SET, PackedKind::List);
        assert!(!guard.is_new);
        assert_eq!(guard.value(), ValueRef::Packed(PackedKind::List, &ONE));
        guard.value_mut().packed().splice(0..10, 7).copy_from_slice(PackedKind::List.empty());
        drop(guard);
        assert_eq!((shard.key_count(0), shard.stats.dirty.get()), (0, 4));
        shard.assert_all_signalled();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "without its observers being notified")]
    fn a_change_that_was_not_signalled_is_found_after_the_command() {
        let mut shard = shard();
        shard.dbs[0].add(key("a").hash, b"a", NewValue::Int(1), SetExpire::Clear);
        shard.assert_all_signalled();
    }
}
