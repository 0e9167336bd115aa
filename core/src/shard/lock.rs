//! The lock table of one shard: who holds or waits for which keys, in order of arrival.
//!
//! Only work that spans several shards holds locks for longer than its own run, so the table is empty
//! nearly always, and a command of one shard pays one branch to see that. What finds its keys locked waits
//! here too, in the same order, so that nobody is overtaken.
//!
//! A request takes its place on all its keys at once. On a key, requests stand in order of arrival; one is
//! granted there when nothing stands before it, or when it and all before it are shared. A request for the
//! whole keyspace is granted when every earlier request has been released, and later ones line up behind it.
//!
//! What a request holds can go on as a request of its own ([`LockTable::split`]): it keeps its place, so nobody
//! gets in between when the rest is released. That is how a key is kept for those who block on it.

use ahash::AHashMap;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Number of a request at one shard, ascending with its arrival.
pub type Ticket = u64;

/// One key a request wants, and how. `id` is the key's hash, in all databases: two keys of one hash share a
/// lock, which is only stricter.
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

struct Intent {
    ticket: Ticket,
    exclusive: bool,
    granted: bool,
}

struct Request {
    keys: SmallVec<[KeyLock; 4]>,
    /// How many of `keys` are not granted yet.
    blocked_on: usize,
}

#[derive(Default)]
pub struct LockTable {
    next_ticket: Ticket,
    keys: AHashMap<u64, VecDeque<Intent>>,
    requests: AHashMap<Ticket, Request>,
    /// The request for the whole keyspace that is held, or waits for the requests before it.
    barrier: Option<(Ticket, bool)>,
    /// What arrived behind the barrier.
    deferred: VecDeque<(Ticket, LockSet)>,
}

impl LockTable {
    /// Whether nobody holds or waits for anything: the one branch on the fast path.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.barrier.is_none()
    }

    /// Requests that are held or wait.
    pub fn len(&self) -> usize {
        self.requests.len() + usize::from(self.barrier.is_some()) + self.deferred.len()
    }

    /// Whether work that would hold `keys` for an instant has to queue up instead.
    pub fn conflicts(&self, keys: &[KeyLock]) -> bool {
        self.barrier.is_some()
            || keys.iter().any(|key| match self.keys.get(&key.id) {
                None => false,
                Some(queue) => key.exclusive || queue.iter().any(|intent| intent.exclusive),
            })
    }

    /// Queues a request. Returns its ticket and whether it is granted at once; if not, a later
    /// [`LockTable::release`] names the ticket.
    pub fn request(&mut self, set: LockSet) -> (Ticket, bool) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if self.barrier.is_some() {
            self.deferred.push_back((ticket, set));
            return (ticket, false);
        }
        let granted = self.admit(ticket, set);
        (ticket, granted)
    }

    fn admit(&mut self, ticket: Ticket, set: LockSet) -> bool {
        match set {
            LockSet::Whole => {
                let granted = self.requests.is_empty();
                self.barrier = Some((ticket, granted));
                granted
            }
            LockSet::Keys(keys) => {
                let keys = merged(keys);
                let mut blocked_on = 0;
                for key in &keys {
                    let queue = self.keys.entry(key.id).or_default();
                    let granted =
                        queue.is_empty() || !key.exclusive && queue.iter().all(|intent| !intent.exclusive);
                    blocked_on += usize::from(!granted);
                    queue.push_back(Intent { ticket, exclusive: key.exclusive, granted });
                }
                self.requests.insert(ticket, Request { keys, blocked_on });
                blocked_on == 0
            }
        }
    }

    /// Whether `ticket` holds or waits for something.
    pub fn knows(&self, ticket: Ticket) -> bool {
        self.requests.contains_key(&ticket) || self.barrier.is_some_and(|(holder, _)| holder == ticket)
    }

    /// The keys on which the granted `ticket` holds exclusive locks; of the whole keyspace, none.
    pub fn exclusive_keys(&self, ticket: Ticket) -> impl Iterator<Item = u64> {
        let keys = self.requests.get(&ticket).map_or(&[][..], |request| &request.keys);
        keys.iter().filter(|key| key.exclusive).map(|key| key.id)
    }

    /// Makes the exclusive lock on `id` that the granted `ticket` holds, by itself or as a part of the whole keyspace,
    /// a request of its own, which is granted and outlives `ticket`. `None`, and nothing happens, where `ticket` does
    /// not hold it, not exclusively, or no more.
    pub fn split(&mut self, ticket: Ticket, id: u64) -> Option<Ticket> {
        let new = self.next_ticket;
        let key = KeyLock { id, exclusive: true };
        if self.barrier == Some((ticket, true)) {
            // Whoever else stands on the key was split off before.
            if self.keys.contains_key(&id) {
                return None;
            }
            self.keys.entry(id).or_default().push_back(Intent {
                ticket: new,
                exclusive: true,
                granted: true,
            });
        } else {
            let request = self.requests.get_mut(&ticket).filter(|request| request.blocked_on == 0)?;
            let at = request.keys.iter().position(|held| *held == key)?;
            request.keys.remove(at);
            let queue = self.keys.get_mut(&id).expect("a request stands on each of its keys");
            queue.front_mut().expect("it stands there first").ticket = new;
        }
        self.next_ticket += 1;
        self.requests.insert(new, Request { keys: SmallVec::from_slice(&[key]), blocked_on: 0 });
        Some(new)
    }

    /// Adds `keys` to what the granted `ticket` holds, if nobody who holds or waits for one of them is in the way. All
    /// or, with `false`, none. Nobody waits longer for it: a request for the whole keyspace behind `ticket` waits anyway.
    pub fn extend(&mut self, ticket: Ticket, keys: &[KeyLock]) -> bool {
        let request = self.requests.get_mut(&ticket).expect("an extended ticket was requested");
        debug_assert_eq!(request.blocked_on, 0, "only what is granted is extended");
        let wanted: SmallVec<[KeyLock; 4]> = merged(SmallVec::from_slice(keys));
        let is_free = |key: &KeyLock| match self.keys.get(&key.id) {
            None => true,
            Some(queue) => !key.exclusive && queue.iter().all(|intent| !intent.exclusive),
        };
        let whole_is_held = self.barrier.is_some_and(|(_, held)| held);
        if whole_is_held || !wanted.iter().all(is_free) {
            return false;
        }
        for key in wanted {
            debug_assert!(request.keys.iter().all(|held| held.id != key.id), "it does not hold the key yet");
            let intent = Intent { ticket, exclusive: key.exclusive, granted: true };
            self.keys.entry(key.id).or_default().push_back(intent);
            request.keys.push(key);
        }
        true
    }

    /// Gives up what `ticket` holds, and appends to `granted` the tickets that now hold all they want, in
    /// order of arrival.
    pub fn release(&mut self, ticket: Ticket, granted: &mut Vec<Ticket>) {
        let first_new = granted.len();
        if self.barrier.is_some_and(|(holder, _)| holder == ticket) {
            self.barrier = None;
        } else {
            let request = self.requests.remove(&ticket).expect("a released ticket was requested");
            for key in &request.keys {
                self.leave(key.id, ticket, granted);
            }
        }
        self.open_barrier(granted);
        granted[first_new..].sort_unstable();
    }

    fn leave(&mut self, id: u64, ticket: Ticket, granted: &mut Vec<Ticket>) {
        let queue = self.keys.get_mut(&id).expect("a request stands on each of its keys");
        let at = queue.iter().position(|intent| intent.ticket == ticket).expect("it stands there once");
        queue.remove(at);
        if queue.is_empty() {
            self.keys.remove(&id);
            return;
        }
        for (place, intent) in queue.iter_mut().enumerate() {
            if intent.exclusive && place > 0 {
                break;
            }
            if !intent.granted {
                intent.granted = true;
                let request = self.requests.get_mut(&intent.ticket).expect("an intent belongs to a request");
                request.blocked_on -= 1;
                if request.blocked_on == 0 {
                    granted.push(intent.ticket);
                }
            }
            if intent.exclusive {
                break;
            }
        }
    }

    fn open_barrier(&mut self, granted: &mut Vec<Ticket>) {
        if let Some((ticket, held)) = &mut self.barrier {
            if !*held && self.requests.is_empty() {
                *held = true;
                granted.push(*ticket);
            }
            return;
        }
        while self.barrier.is_none() {
            let Some((ticket, set)) = self.deferred.pop_front() else { return };
            if self.admit(ticket, set) {
                granted.push(ticket);
            }
        }
    }
}

/// A key named twice is wanted once, exclusively if either wants it so.
fn merged(mut keys: SmallVec<[KeyLock; 4]>) -> SmallVec<[KeyLock; 4]> {
    keys.sort_unstable_by_key(|key| (key.id, !key.exclusive));
    keys.dedup_by_key(|key| key.id);
    keys
}

#[cfg(test)]
mod tests;
