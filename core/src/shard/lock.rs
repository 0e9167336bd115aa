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
//!
//! A program may hold its keys for long, and behind its requests nobody queues up: see [`programs`].

pub mod programs;

use self::programs::{Grant, LockEvent, Outside, Owner};
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
    owner: Owner,
    /// The request that it was split off.
    split_off: Option<LockRequestId>,
}

/// The first request for the whole keyspace.
struct Barrier {
    id: LockRequestId,
    /// If not, it still waits for the requests before it.
    granted: bool,
    owner: Owner,
}

/// A request that arrived behind the barrier.
struct Deferred {
    id: LockRequestId,
    set: LockSet,
    owner: Owner,
}

#[derive(Default)]
pub struct LockTable {
    next_request_id: LockRequestId,
    keys: Lines,
    requests: AHashMap<LockRequestId, Request>,
    barrier: Option<Barrier>,
    deferred: VecDeque<Deferred>,
    /// How many of the requests, the barrier included, are programs'.
    program_count: usize,
    /// Those of them that are of plans with the token, as long as no program of theirs was suspended: they end soon, unless they wait
    /// for programs themselves.
    plans_with_token: SmallVec<[LockRequestId; 2]>,
    /// The requests that wait outside the lines until programs have ended, in order of arrival.
    outside: Vec<Outside>,
    /// What the owners of requests have to be told.
    events: Vec<LockEvent>,
}

impl LockTable {
    /// Whether nothing is locked or waited for: the one branch on the fast path.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.barrier.is_none() && self.outside.is_empty()
    }

    /// How many requests are granted or wait.
    pub fn len(&self) -> usize {
        self.requests.len() + usize::from(self.barrier.is_some()) + self.deferred.len() + self.outside.len()
    }

    /// Whether a command that wants `keys` only for the moment of its run has to queue up instead.
    pub fn conflicts(&self, keys: &[KeyLock]) -> bool {
        self.barrier.is_some() || !keys.iter().all(|key| self.is_free(key))
    }

    /// Whether no request on the key conflicts with `wanted`.
    fn is_free(&self, wanted: &KeyLock) -> bool {
        self.keys.get(&wanted.id).is_none_or(|line| line.lets_share(wanted.exclusive))
    }

    /// Queues a request, which stays in its lines whatever it meets there, as a handoff's does. Returns its id and whether
    /// it is granted at once; if not, a later [`LockTable::release`] returns the id.
    pub fn request(&mut self, set: LockSet) -> (LockRequestId, bool) {
        let (lock_request, grant) = self.request_by(set, Owner::Handoff);
        (lock_request, grant == Grant::Now)
    }

    fn next_id(&mut self) -> LockRequestId {
        let lock_request = self.next_request_id;
        self.next_request_id += 1;
        lock_request
    }

    /// Puts a request into its lines, or makes it the barrier. Returns whether it is granted.
    fn admit(&mut self, lock_request: LockRequestId, set: LockSet, owner: Owner) -> bool {
        debug_assert!(self.barrier.is_none());
        match set {
            LockSet::Whole => {
                let granted = self.requests.is_empty();
                self.barrier = Some(Barrier { id: lock_request, granted, owner });
                granted
            }
            LockSet::Keys(mut keys) => {
                let blocked_on = self.stand_on_all(lock_request, &keys).unwrap_or_else(|| {
                    keys = merged(std::mem::take(&mut keys));
                    self.stand_on_all(lock_request, &keys).expect("every key occurs once now")
                });
                self.requests.insert(lock_request, Request { keys, blocked_on, owner, split_off: None });
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
        let (lock_request, grant) = self.request_by(LockSet::Keys(keys), Owner::Plan);
        debug_assert!(grant == Grant::Now, "there is no conflict");
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
                let first = Intent { lock_request, exclusive, granted: true };
                free.insert(Line { first, others: None });
                Some(true)
            }
            Entry::Occupied(mut line) => {
                let line = line.get_mut();
                if line.last().lock_request == lock_request {
                    return None;
                }
                let granted = line.lets_share(exclusive);
                let intent = Intent { lock_request, exclusive, granted };
                line.others.get_or_insert_default().push_back(intent);
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
        self.requests.contains_key(&lock_request) || self.is_barrier(lock_request)
    }

    /// The keys that the granted `lock_request` holds; empty for the whole keyspace.
    pub fn held_by(&self, lock_request: LockRequestId) -> &[KeyLock] {
        self.requests.get(&lock_request).map_or(&[], |request| &request.keys)
    }

    /// What `lock_request` holds or waits for in its lines.
    pub fn set_of(&self, lock_request: LockRequestId) -> LockSet {
        if self.is_barrier(lock_request) {
            LockSet::Whole
        } else {
            LockSet::Keys(self.held_by(lock_request).into())
        }
    }

    fn is_barrier(&self, lock_request: LockRequestId) -> bool {
        self.barrier.as_ref().is_some_and(|barrier| barrier.id == lock_request)
    }

    /// Splits the exclusive lock on `id` off the granted `lock_request`, which holds it by itself or as a part of the
    /// whole keyspace: it becomes a granted request of its own, which outlives `lock_request`. `None`, and nothing is
    /// done, if `lock_request` does not hold the lock exclusively, or not any more.
    pub fn split(&mut self, lock_request: LockRequestId, id: u64) -> Option<LockRequestId> {
        let key = KeyLock { id, exclusive: true };
        let new = self.next_request_id;
        let request = self.requests.get_mut(&lock_request).filter(|request| request.blocked_on == 0);
        let held = request.and_then(|request| {
            let at = request.keys.iter().position(|held| *held == key)?;
            request.keys.swap_remove(at);
            Some(request.owner)
        });
        let of = if let Some(of) = held {
            // The holder of an exclusive lock is the first in its line.
            self.keys.get_mut(&id).expect("a request is queued on each of its keys").first.lock_request = new;
            of
        } else {
            let barrier = self.barrier.as_ref();
            let barrier = barrier.filter(|barrier| barrier.id == lock_request && barrier.granted)?;
            let of = barrier.owner;
            // If there is a request on the key, it was split off before.
            if self.keys.contains_key(&id) {
                return None;
            }
            let granted = self.stand(id, new, true);
            debug_assert_eq!(granted, Some(true), "the key is free");
            of
        };
        // The handoff waits for the end of the program.
        let owner = if of == Owner::Program { of } else { Owner::Handoff };
        self.next_request_id += 1;
        self.program_count += usize::from(owner == Owner::Program);
        let split_off = Some(lock_request);
        let keys = SmallVec::from_slice(&[key]);
        self.requests.insert(new, Request { keys, blocked_on: 0, owner, split_off });
        Some(new)
    }

    /// Makes a granted request without keys, which keeps nothing but requests for the whole keyspace waiting. The caller
    /// holds another request, so that none of these is granted now.
    pub fn hold_off_whole(&mut self) -> LockRequestId {
        debug_assert!(self.barrier.as_ref().is_none_or(|barrier| !barrier.granted));
        let lock_request = self.next_id();
        let keys = SmallVec::new();
        let request = Request { keys, blocked_on: 0, owner: Owner::Handoff, split_off: None };
        self.requests.insert(lock_request, request);
        lock_request
    }

    /// Adds `keys` to what the granted `lock_request` holds, if no request that holds or awaits one of them
    /// conflicts. Adds all of them and returns true, or none and returns false. This is fair: the keys were free, and
    /// a request for the whole keyspace that is queued behind `lock_request` has to wait for its release anyway. If that
    /// is a program's, it is one for these keys as well.
    pub fn extend(&mut self, lock_request: LockRequestId, keys: &[KeyLock]) -> bool {
        let request = self.requests.get(&lock_request).expect("a request that is extended exists");
        debug_assert_eq!(request.blocked_on, 0, "only granted requests are extended");
        let wanted: SmallVec<[KeyLock; 4]> = merged(SmallVec::from_slice(keys));
        let whole_is_held = self.barrier.as_ref().is_some_and(|barrier| barrier.granted);
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
    /// arrival. If it was a program's, see [`LockTable::take_events`].
    pub fn release(&mut self, lock_request: LockRequestId, granted: &mut Vec<LockRequestId>) {
        let first_new = granted.len();
        let mut is_program = false;
        if let Some(barrier) = self.barrier.take_if(|barrier| barrier.id == lock_request) {
            is_program = barrier.owner == Owner::Program;
        }
        if let Some(request) = self.requests.remove(&lock_request) {
            is_program = request.owner == Owner::Program;
            for key in &request.keys {
                if self.leave(key.id, lock_request) {
                    self.grant(key.id, granted);
                }
            }
        }
        self.open_barrier(granted);
        if is_program {
            self.program_count -= 1;
            self.program_ended(lock_request);
        }
        if !self.outside.is_empty() {
            self.let_in(granted);
        }
        granted[first_new..].sort_unstable();
    }

    /// Removes a request from a line. Returns whether any other is left there.
    fn leave(&mut self, id: u64, lock_request: LockRequestId) -> bool {
        let Entry::Occupied(mut line) = self.keys.entry(id) else {
            panic!("a request is queued on each of its keys");
        };
        let is_left = line.get_mut().remove(lock_request);
        if !is_left {
            line.remove();
        }
        is_left
    }

    /// Grants what can be granted in a line, from which a request was removed, and appends the requests that hold all
    /// their keys now to `granted`.
    fn grant(&mut self, id: u64, granted: &mut Vec<LockRequestId>) {
        let Some(line) = self.keys.get_mut(&id) else { return };
        for (place, intent) in line.iter_mut().enumerate() {
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
        if let Some(barrier) = &self.barrier {
            let id = barrier.id;
            let is_free = match barrier.owner {
                Owner::Program => !self.is_held_by_other(id),
                Owner::Plan | Owner::Unit(_) | Owner::Handoff => self.requests.is_empty(),
            };
            if let Some(barrier) = self.barrier.as_mut().filter(|barrier| is_free && !barrier.granted) {
                barrier.granted = true;
                granted.push(id);
            }
            return;
        }
        while self.barrier.is_none() {
            let Some(Deferred { id, set, owner }) = self.deferred.pop_front() else { return };
            let grant = match owner {
                Owner::Program => self.place_first(id, set, granted),
                Owner::Plan | Owner::Unit(_) | Owner::Handoff => self.admit_or_defer(id, set, owner),
            };
            self.note_deferred(id, owner, grant, granted);
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
