//! The lock table of one shard: which requests hold which keys or wait for them, in order of arrival.
//!
//! Only work that spans several shards holds locks for longer than its own run, so the table is nearly always empty,
//! and a command of one shard pays one branch to see that. A command that finds its keys locked waits here too, in the
//! same order, so that no request is overtaken.
//!
//! A request is queued on all its keys at once. On a key, requests are queued in order of arrival. A request is
//! granted there when it is the first, or when it and all before it are shared. A request for the whole keyspace is
//! granted when every earlier request has been released, and later ones queue up behind it.
//!
//! A key that a request holds can be split off into a request of its own ([`LockTable::split`]). The new request
//! keeps the place in the queue, so no other request gets the key when the rest is released. That is how a changed
//! key is kept for the clients blocked on it.

use ahash::AHashMap;
use smallvec::SmallVec;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Number of a request at one shard, ascending with its arrival.
pub type LockRequestId = u64;

/// A key that a request wants, shared or exclusively. `id` is the key's hash, whatever its database: two keys of one
/// hash share a lock, which is stricter than needed but never wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyLock {
    pub id: u64,
    pub exclusive: bool,
}

/// What a request wants to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockSet {
    Keys(SmallVec<[KeyLock; 4]>),
    /// The shard's whole keyspace, all databases.
    Whole,
}

#[derive(Clone, Copy)]
struct Intent {
    lock_request: LockRequestId,
    exclusive: bool,
    granted: bool,
}

/// The requests on a key, in order of arrival; there is at least one. Nearly always there is only one, which costs no
/// allocation and little room in the table.
struct Line {
    first: Intent,
    #[allow(clippy::box_collection, reason = "nearly always None, which a Box keeps small")]
    others: Option<Box<VecDeque<Intent>>>,
}

impl Line {
    fn iter(&self) -> impl Iterator<Item = &Intent> {
        std::iter::once(&self.first).chain(self.others.iter().flat_map(|others| others.iter()))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Intent> {
        std::iter::once(&mut self.first).chain(self.others.iter_mut().flat_map(|others| others.iter_mut()))
    }

    fn last(&self) -> &Intent {
        self.others.as_ref().and_then(|others| others.back()).unwrap_or(&self.first)
    }

    /// Whether a request can share the key with those that are queued on it.
    fn lets_share(&self, exclusive: bool) -> bool {
        !exclusive && self.iter().all(|intent| !intent.exclusive)
    }

    /// Removes `lock_request`, which is queued here. Returns whether any request is left; if not, the caller removes
    /// the line.
    fn remove(&mut self, lock_request: LockRequestId) -> bool {
        if self.first.lock_request == lock_request {
            return match self.others.as_mut().and_then(|others| others.pop_front()) {
                Some(next) => {
                    self.first = next;
                    true
                }
                None => false,
            };
        }
        let others = self.others.as_mut().expect("a request is queued on each of its keys");
        let at = others.iter().position(|intent| intent.lock_request == lock_request);
        others.remove(at.expect("a request is queued on each of its keys"));
        true
    }
}

/// The lines by their keys' hashes, which need no further hashing.
type Lines = HashMap<u64, Line, BuildHasherDefault<AsItIs>>;

/// A hasher for numbers that are hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed, which are u64");
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

struct Request {
    keys: SmallVec<[KeyLock; 4]>,
    /// How many of `keys` are not granted yet.
    blocked_on: usize,
}

#[derive(Default)]
pub struct LockTable {
    next_request_id: LockRequestId,
    keys: Lines,
    requests: AHashMap<LockRequestId, Request>,
    /// The first request for the whole keyspace, and whether it is granted or still waits for the requests before it.
    barrier: Option<(LockRequestId, bool)>,
    /// The requests that arrived behind the barrier.
    deferred: VecDeque<(LockRequestId, LockSet)>,
}

impl LockTable {
    /// Whether nothing is locked or waited for: the one branch on the fast path.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.barrier.is_none()
    }

    /// How many requests are granted or wait.
    pub fn len(&self) -> usize {
        self.requests.len() + usize::from(self.barrier.is_some()) + self.deferred.len()
    }

    /// Whether a command that wants `keys` only for the moment of its run has to queue up instead.
    pub fn conflicts(&self, keys: &[KeyLock]) -> bool {
        self.barrier.is_some() || !keys.iter().all(|key| self.is_free(key))
    }

    /// Whether no request on the key conflicts with `wanted`.
    fn is_free(&self, wanted: &KeyLock) -> bool {
        self.keys.get(&wanted.id).is_none_or(|line| line.lets_share(wanted.exclusive))
    }

    /// Queues a request. Returns its id and whether it is granted at once; if not, a later [`LockTable::release`]
    /// returns the id.
    pub fn request(&mut self, set: LockSet) -> (LockRequestId, bool) {
        let lock_request = self.next_request_id;
        self.next_request_id += 1;
        if self.barrier.is_some() {
            self.deferred.push_back((lock_request, set));
            return (lock_request, false);
        }
        let granted = self.admit(lock_request, set);
        (lock_request, granted)
    }

    fn admit(&mut self, lock_request: LockRequestId, set: LockSet) -> bool {
        match set {
            LockSet::Whole => {
                let granted = self.requests.is_empty();
                self.barrier = Some((lock_request, granted));
                granted
            }
            LockSet::Keys(mut keys) => {
                let blocked_on = self.stand_on_all(lock_request, &keys).unwrap_or_else(|| {
                    keys = merged(std::mem::take(&mut keys));
                    self.stand_on_all(lock_request, &keys).expect("every key occurs once now")
                });
                self.requests.insert(lock_request, Request { keys, blocked_on });
                blocked_on == 0
            }
        }
    }

    /// Makes a request only if it is granted at once. Returns its id; `Err`: the keys, one of which is locked.
    pub fn request_now(
        &mut self,
        keys: SmallVec<[KeyLock; 4]>,
    ) -> Result<LockRequestId, SmallVec<[KeyLock; 4]>> {
        if self.conflicts(&keys) {
            return Err(keys);
        }
        let (lock_request, granted) = self.request(LockSet::Keys(keys));
        debug_assert!(granted, "there is no conflict");
        Ok(lock_request)
    }

    /// Puts `lock_request` at the ends of the lines of all `keys`. Returns for how many keys it has to wait. `None`:
    /// a key occurs twice, and nothing was done.
    fn stand_on_all(&mut self, lock_request: LockRequestId, keys: &[KeyLock]) -> Option<usize> {
        let mut blocked_on = 0;
        for (n, key) in keys.iter().enumerate() {
            match self.stand(key.id, lock_request, key.exclusive) {
                Some(granted) => blocked_on += usize::from(!granted),
                None => {
                    keys[..n].iter().for_each(|key| self.step_back(key.id, lock_request));
                    return None;
                }
            }
        }
        Some(blocked_on)
    }

    /// Puts `lock_request` at the end of a key's line. Returns whether it is granted there; `None`: it is there
    /// already.
    fn stand(&mut self, id: u64, lock_request: LockRequestId, exclusive: bool) -> Option<bool> {
        match self.keys.entry(id) {
            Entry::Vacant(free) => {
                free.insert(Line { first: Intent { lock_request, exclusive, granted: true }, others: None });
                Some(true)
            }
            Entry::Occupied(mut line) => {
                let line = line.get_mut();
                if line.last().lock_request == lock_request {
                    return None;
                }
                let granted = line.lets_share(exclusive);
                line.others.get_or_insert_default().push_back(Intent { lock_request, exclusive, granted });
                Some(granted)
            }
        }
    }

    /// Removes `lock_request` from the end of a line, where no request waits behind it.
    fn step_back(&mut self, id: u64, lock_request: LockRequestId) {
        let line = self.keys.get_mut(&id).expect("it was queued there");
        if !line.remove(lock_request) {
            self.keys.remove(&id);
        }
    }

    /// Whether `lock_request` exists: it is granted, or it waits and is not behind a barrier.
    pub fn knows(&self, lock_request: LockRequestId) -> bool {
        self.requests.contains_key(&lock_request)
            || self.barrier.is_some_and(|(holder, _)| holder == lock_request)
    }

    /// The keys that the granted `lock_request` holds; empty for the whole keyspace.
    pub fn held_by(&self, lock_request: LockRequestId) -> &[KeyLock] {
        self.requests.get(&lock_request).map_or(&[], |request| &request.keys)
    }

    /// Splits the exclusive lock on `id` off the granted `lock_request`, which holds it by itself or as a part of the
    /// whole keyspace: it becomes a granted request of its own, which outlives `lock_request`. `None`, and nothing is
    /// done, if `lock_request` does not hold the lock exclusively, or not any more.
    pub fn split(&mut self, lock_request: LockRequestId, id: u64) -> Option<LockRequestId> {
        let new = self.next_request_id;
        let key = KeyLock { id, exclusive: true };
        if self.barrier == Some((lock_request, true)) {
            // If there is a request on the key, it was split off before.
            if self.keys.contains_key(&id) {
                return None;
            }
            let granted = self.stand(id, new, true);
            debug_assert_eq!(granted, Some(true), "the key is free");
        } else {
            let request = self.requests.get_mut(&lock_request).filter(|request| request.blocked_on == 0)?;
            let at = request.keys.iter().position(|held| *held == key)?;
            request.keys.remove(at);
            // The holder of an exclusive lock is the first in its line.
            self.keys.get_mut(&id).expect("a request is queued on each of its keys").first.lock_request = new;
        }
        self.next_request_id += 1;
        self.requests.insert(new, Request { keys: SmallVec::from_slice(&[key]), blocked_on: 0 });
        Some(new)
    }

    /// Adds `keys` to what the granted `lock_request` holds, if no request that holds or awaits one of them
    /// conflicts. Adds all of them and returns true, or none and returns false. This is fair: the keys were free, and
    /// a request for the whole keyspace that is queued behind `lock_request` has to wait for its release anyway.
    pub fn extend(&mut self, lock_request: LockRequestId, keys: &[KeyLock]) -> bool {
        let request = self.requests.get(&lock_request).expect("a request that is extended exists");
        debug_assert_eq!(request.blocked_on, 0, "only granted requests are extended");
        let wanted: SmallVec<[KeyLock; 4]> = merged(SmallVec::from_slice(keys));
        let whole_is_held = self.barrier.is_some_and(|(_, held)| held);
        if whole_is_held || !wanted.iter().all(|key| self.is_free(key)) {
            return false;
        }
        for key in &wanted {
            let granted = self.stand(key.id, lock_request, key.exclusive);
            debug_assert_eq!(granted, Some(true), "it was free just now");
        }
        let request = self.requests.get_mut(&lock_request).expect("it was there just now");
        debug_assert!(wanted.iter().all(|key| request.keys.iter().all(|held| held.id != key.id)));
        request.keys.extend(wanted);
        true
    }

    /// Releases the granted `lock_request`, and appends to `granted` the requests that are granted thereby, in order of
    /// arrival.
    pub fn release(&mut self, lock_request: LockRequestId, granted: &mut Vec<LockRequestId>) {
        let first_new = granted.len();
        if self.barrier.is_some_and(|(holder, _)| holder == lock_request) {
            self.barrier = None;
        } else {
            let request = self.requests.remove(&lock_request).expect("a request that is released exists");
            for key in &request.keys {
                self.leave(key.id, lock_request, granted);
            }
        }
        self.open_barrier(granted);
        granted[first_new..].sort_unstable();
    }

    fn leave(&mut self, id: u64, lock_request: LockRequestId, granted: &mut Vec<LockRequestId>) {
        let Entry::Occupied(mut line) = self.keys.entry(id) else {
            panic!("a request is queued on each of its keys");
        };
        if !line.get_mut().remove(lock_request) {
            line.remove();
            return;
        }
        for (place, intent) in line.get_mut().iter_mut().enumerate() {
            if intent.exclusive && place > 0 {
                break;
            }
            if !intent.granted {
                intent.granted = true;
                let request =
                    self.requests.get_mut(&intent.lock_request).expect("an intent belongs to a request");
                request.blocked_on -= 1;
                if request.blocked_on == 0 {
                    granted.push(intent.lock_request);
                }
            }
            if intent.exclusive {
                break;
            }
        }
    }

    fn open_barrier(&mut self, granted: &mut Vec<LockRequestId>) {
        if let Some((lock_request, held)) = &mut self.barrier {
            if !*held && self.requests.is_empty() {
                *held = true;
                granted.push(*lock_request);
            }
            return;
        }
        while self.barrier.is_none() {
            let Some((lock_request, set)) = self.deferred.pop_front() else { return };
            if self.admit(lock_request, set) {
                granted.push(lock_request);
            }
        }
    }
}

/// Merges repeated keys: a key that occurs twice is wanted once, exclusively if one of the two is.
fn merged(mut keys: SmallVec<[KeyLock; 4]>) -> SmallVec<[KeyLock; 4]> {
    keys.sort_unstable_by_key(|key| (key.id, !key.exclusive));
    keys.dedup_by_key(|key| key.id);
    keys
}

#[cfg(test)]
mod tests;
