//! WATCH on one shard: which clients watch which of its keys, and which clients' keys have changed.
//!
//! Keys are watched themselves, and not by a version of their bucket, so no EXEC fails because of another key. When a
//! key has changed, its watching clients are marked and their keys are forgotten: one change is enough to fail the
//! EXEC.
//!
//! A key that has expired but is still stored when it is watched counts as missing, as it does for every command: its
//! removal later is no change. A key that expires after it is watched has changed, whether it is removed already or
//! not, so the check before EXEC also compares expiry times with the clock.

use super::observe::KeyEvent;
use crate::call::ClientId;
use crate::call::Key;
use crate::shard::lock::KeyLock;
use crate::types::Table;
use ahash::AHashMap;
use smallvec::SmallVec;

/// The state of a key that is stored in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Alive,
    /// It has expired.
    Stale,
}

/// Looks up without removing anything.
pub(super) fn state(table: &Table, key: Key<'_>, now_ms: i64) -> Option<Found> {
    let entry = table.get(key.hash, key.bytes)?;
    Some(if entry.is_expired(now_ms) { Found::Stale } else { Found::Alive })
}

/// A key, and the clients that watch it.
struct Watched {
    db: u32,
    key: Box<[u8]>,
    watchers: SmallVec<[Watcher; 1]>,
}

struct Watcher {
    client: ClientId,
    /// The key had expired already when it was watched.
    was_stale: bool,
}

/// The keys that a client watches.
#[derive(Default)]
struct Watches {
    has_changed: bool,
    keys: Vec<(u32, u64, Box<[u8]>)>,
    /// The hashes of the keys, when one has changed: an EXEC locks them all the same, so that it fails behind what has
    /// changed them, and not while that is still under way.
    changed: Vec<u64>,
}

/// The watched keys of one shard.
#[derive(Default)]
pub struct Watch {
    /// By their hash: two keys of one hash share a list.
    keys: AHashMap<u64, SmallVec<[Watched; 1]>>,
    clients: AHashMap<ClientId, Watches>,
}

impl Watch {
    /// Whether no key is watched.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many clients watch keys here, including those whose keys have changed since.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// The clients that watch a key here that has changed. A key that expires counts only when it is removed.
    pub fn clients_of_changed(&self) -> impl Iterator<Item = ClientId> {
        self.clients.iter().filter(|(_, watches)| watches.has_changed).map(|(&client, _)| client)
    }

    /// A client watches a key from now on. `found`: the key's present state.
    pub fn add(&mut self, client: ClientId, db: u32, key: Key<'_>, found: Option<Found>) {
        let watches = self.clients.entry(client).or_default();
        let is_known =
            watches.keys.iter().any(|(other_db, _, other)| *other_db == db && **other == *key.bytes);
        if watches.has_changed || is_known {
            return;
        }
        watches.keys.push((db, key.hash, key.bytes.into()));
        let watcher = Watcher { client, was_stale: found == Some(Found::Stale) };
        let list = self.keys.entry(key.hash).or_default();
        match list.iter_mut().find(|watched| watched.db == db && *watched.key == *key.bytes) {
            Some(watched) => watched.watchers.push(watcher),
            None => {
                list.push(Watched { db, key: key.bytes.into(), watchers: SmallVec::from_iter([watcher]) });
            }
        }
    }

    /// A client watches no keys any more.
    pub fn remove(&mut self, client: ClientId) {
        if let Some(watches) = self.clients.remove(&client) {
            self.forget(client, &watches.keys);
        }
    }

    fn forget(&mut self, client: ClientId, keys: &[(u32, u64, Box<[u8]>)]) {
        for (db, hash, key) in keys {
            let Some(list) = self.keys.get_mut(hash) else { continue };
            if let Some(at) = list.iter().position(|watched| watched.db == *db && watched.key == *key) {
                list[at].watchers.retain(|watcher| watcher.client != client);
                if list[at].watchers.is_empty() {
                    list.swap_remove(at);
                }
            }
            if list.is_empty() {
                self.keys.remove(hash);
            }
        }
    }

    /// Whether none of the keys that the client watches here has changed. `find` returns a key's present state.
    pub fn is_unchanged(&self, client: ClientId, find: impl Fn(u32, Key<'_>) -> Option<Found>) -> bool {
        let Some(watches) = self.clients.get(&client) else { return true };
        let expired_since = |(db, hash, bytes): &(u32, u64, Box<[u8]>)| {
            let key = Key { bytes, hash: *hash };
            find(*db, key) == Some(Found::Stale) && !self.was_stale(client, *db, key)
        };
        !watches.has_changed && !watches.keys.iter().any(expired_since)
    }

    fn was_stale(&self, client: ClientId, db: u32, key: Key<'_>) -> bool {
        let list = self.keys.get(&key.hash).map_or(&[][..], |list| list);
        let watched = list.iter().find(|watched| watched.db == db && *watched.key == *key.bytes);
        let mut watchers = watched.into_iter().flat_map(|watched| &watched.watchers);
        watchers.any(|watcher| watcher.client == client && watcher.was_stale)
    }

    /// The shared locks that keep the client's watched keys unchanged.
    pub fn locks(&self, client: ClientId) -> impl Iterator<Item = KeyLock> {
        let watches = self.clients.get(&client).into_iter();
        let hashes = watches.flat_map(|watches| {
            watches.keys.iter().map(|&(_, hash, _)| hash).chain(watches.changed.iter().copied())
        });
        hashes.map(|id| KeyLock { id, exclusive: false })
    }

    /// Something has happened to a key.
    pub(super) fn note(&mut self, db: u32, key: Key<'_>, event: KeyEvent) {
        let Some(list) = self.keys.get_mut(&key.hash) else { return };
        let Some(watched) = list.iter_mut().find(|watched| watched.db == db && *watched.key == *key.bytes)
        else {
            return;
        };
        let mut changed: SmallVec<[ClientId; 1]> = SmallVec::new();
        for watcher in &mut watched.watchers {
            match event {
                KeyEvent::Expired if watcher.was_stale => watcher.was_stale = false,
                KeyEvent::Expired | KeyEvent::Modified | KeyEvent::Edited => changed.push(watcher.client),
                KeyEvent::Notified => {}
            }
        }
        changed.into_iter().for_each(|client| self.has_changed(client));
    }

    /// All keys of a database are about to be replaced by others, or by none. `old` and `new` return the state of a key
    /// before and after.
    pub(super) fn replace(
        &mut self,
        db: u32,
        old: &dyn Fn(Key<'_>) -> Option<Found>,
        new: &dyn Fn(Key<'_>) -> Option<Found>,
    ) {
        let mut changed: SmallVec<[ClientId; 4]> = SmallVec::new();
        for (hash, list) in &mut self.keys {
            for watched in list.iter_mut().filter(|watched| watched.db == db) {
                let key = Key { bytes: &watched.key, hash: *hash };
                let (old, new) = (old(key), new(key));
                for watcher in &mut watched.watchers {
                    let was_there = old.is_some() && !watcher.was_stale;
                    if was_there || new == Some(Found::Alive) {
                        changed.push(watcher.client);
                    } else {
                        watcher.was_stale = new == Some(Found::Stale);
                    }
                }
            }
        }
        changed.into_iter().for_each(|client| self.has_changed(client));
    }

    fn has_changed(&mut self, client: ClientId) {
        let Some(watches) = self.clients.get_mut(&client) else { return };
        watches.has_changed = true;
        let keys = std::mem::take(&mut watches.keys);
        watches.changed.extend(keys.iter().map(|(_, hash, _)| hash));
        self.forget(client, &keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash_key;

    fn key(bytes: &[u8]) -> Key<'_> {
        Key { bytes, hash: hash_key(bytes) }
    }

    fn alive(_: u32, _: Key<'_>) -> Option<Found> {
        Some(Found::Alive)
    }

    fn stale(_: u32, _: Key<'_>) -> Option<Found> {
        Some(Found::Stale)
    }

    #[test]
    fn only_watchers_of_the_key_in_its_database_are_marked() {
        let mut watch = Watch::default();
        watch.add(1, 0, key(b"a"), Some(Found::Alive));
        watch.add(2, 1, key(b"a"), Some(Found::Alive));
        watch.add(3, 0, key(b"b"), None);
        watch.add(3, 0, key(b"b"), None);

        watch.note(0, key(b"a"), KeyEvent::Modified);

        assert!(
            !watch.is_unchanged(1, alive) && watch.is_unchanged(2, alive) && watch.is_unchanged(3, alive)
        );
        assert_eq!((watch.locks(1).count(), watch.locks(3).count()), (1, 1));
        [1, 2, 3].into_iter().for_each(|client| watch.remove(client));
        assert!(watch.is_empty() && watch.client_count() == 0);
        assert!(watch.is_unchanged(1, alive), "a client without watched keys sees no change");
    }

    #[test]
    fn a_key_that_expires_has_changed_unless_it_had_expired_when_it_was_watched() {
        let mut watch = Watch::default();
        watch.add(1, 0, key(b"a"), Some(Found::Alive));
        watch.add(2, 0, key(b"a"), Some(Found::Stale));
        assert!(!watch.is_unchanged(1, stale), "even before it is removed");
        assert!(watch.is_unchanged(2, stale));

        watch.note(0, key(b"a"), KeyEvent::Expired);
        assert!(!watch.is_unchanged(1, alive) && watch.is_unchanged(2, |_, _| None));

        watch.note(0, key(b"a"), KeyEvent::Modified);
        assert!(!watch.is_unchanged(2, alive), "now it exists");
    }

    #[test]
    fn a_replaced_key_has_changed_if_it_existed_before_or_exists_now() {
        use Found::{Alive, Stale};
        for (watched, old, new, holds) in [
            (None, None, None, true),
            (None, None, Some(Alive), false),
            (None, None, Some(Stale), true),
            (Some(Alive), Some(Alive), None, false),
            (Some(Alive), Some(Alive), Some(Alive), false),
            (Some(Alive), Some(Stale), None, false),
            (Some(Stale), Some(Stale), None, true),
            (Some(Stale), Some(Stale), Some(Stale), true),
            (Some(Stale), Some(Stale), Some(Alive), false),
        ] {
            let mut watch = Watch::default();
            watch.add(1, 3, key(b"a"), watched);
            watch.add(2, 4, key(b"a"), watched);

            watch.replace(3, &|_| old, &|_| new);

            assert_eq!(watch.is_unchanged(1, |_, _| new), holds, "{watched:?}: {old:?} -> {new:?}");
            assert!(watch.is_unchanged(2, |_, _| watched), "another database");
        }
    }
}
