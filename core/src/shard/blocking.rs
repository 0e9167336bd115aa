//! Commands that wait for a key (BLPOP and its kin): who waits on which key of this shard, in which order, and which
//! key is being given to whom.
//!
//! A blocking command runs first like any other. Where it finds nothing to take, its handler returns a [`BlockRequest`]
//! ([`Ctx::block`](crate::command::Ctx::block)), and, before anything else can touch the keys, a *wait* is left on each
//! of them at the shard that owns it. The client's own shard, its *home*, keeps the deadline and decides all that can
//! happen to a wait but once: to be served, to run out of time, to be ended by CLIENT UNBLOCK or by the client's leaving.
//!
//! # Serving
//!
//! 1. A command changes a key that has waits ([`Shard::signal`]). The shard locks the key for those who wait, in the midst
//!    of that command: out of the command's own lock if it runs under one ([`LockTable::split`]), so that nobody who
//!    queues for the key gets in between. When the command, or the transaction around it, has ended, the *service* of the
//!    key begins, before any other command of this shard runs.
//! 2. The key is *offered* to its waits in the order in which they came, one at a time, to those whose row says that they
//!    would take something ([`ready`](crate::command::table::Command::ready)). An offer goes to the wait's home.
//! 3. Home accepts if the wait is still alive and nothing else is on offer to it just now; from then on it cannot be
//!    ended otherwise. A command that needs this key alone runs here, under the service's lock. One that needs more keys
//!    (BLMOVE its destination) is run from its home as an ordinary transaction over them, which the service's lock is
//!    handed to, and which hands it back when it ends.
//! 4. Home then ends the wait, and the other shards forget it. The service goes on with the next wait, and gives the lock
//!    up when nobody is left who would take something.
//!
//! *Exactly once.* Only home accepts, and it accepts one offer at a time: the next one not before it knows that the
//! first came to nothing.
//!
//! *First come, first served.* A key is offered in the order of arrival, and not to the next one before the answer of the
//! first is known. A wait that is being served by one key is passed over by the others; should the first come to nothing
//! (a transaction that found its key emptied), the others are told to offer again, at its old place.
//!
//! *Nobody is forgotten.* A wait is registered under the locks of the run that found nothing, so each later change of the
//! key signals it. Who is passed over has had the key looked at for him after the last change.
//!
//! *No deadlock.* Home answers an offer at once, so a service's lock is not held for long, but for step 3: there a
//! transaction arrives at its shards in their order (see [`txn`](crate::shard::txn)) while it holds one already. At the
//! shards behind that one this is what every transaction does. At a shard before it, or for another key of the same
//! shard, it may find a lock taken by somebody who waits for what it holds. Then the service's lock is given up, and
//! the transaction takes its place in the ordinary order ([`WaitMessage::Yield`]). So nobody waits for an earlier shard
//! while he holds a later one. What was given up may be taken by who comes in between; the run then finds nothing and the
//! client goes on waiting.

use super::Shard;
use super::observe::Audience;
use crate::call::{Call, Key};
use crate::protocol::{OwnedArgv, Reply};
use crate::shard::lock::{KeyLock, LockRequestId, LockSet, LockTable};
use crate::shard::message::ReplyId;
use crate::types::hash::hash_key;
use ahash::AHashMap;
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;
use std::ops::Range;

/// A wait's name: the client's shard, and the reply it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WaitId {
    pub home: u32,
    pub reply_id: ReplyId,
}

/// A key on offer: by which lock's service at which shard, under which running number there, and the argument of the
/// waiting command that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfferId {
    pub shard: u32,
    pub lock: u64,
    pub number: u64,
    pub position: u32,
}

/// What a blocking command wants that found nothing to take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockRequest {
    /// The arguments that are the awaited keys.
    pub keys: Range<u32>,
    /// Until when; unix time in milliseconds. `None`: for ever.
    pub deadline_ms: Option<i64>,
    pub on_timeout: TimeoutReply,
}

/// What the client of a blocking command gets when its time is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutReply {
    Null,
    NullArray,
}

impl TimeoutReply {
    pub fn write(self, reply: &mut Reply<'_>) {
        match self {
            TimeoutReply::Null => reply.null(),
            TimeoutReply::NullArray => reply.null_array(),
        }
    }
}

/// What home says to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Run the command for this key, at once.
    Accept,
    /// Another key is on offer to it. Pass it over; its place stays.
    Busy,
    /// It waits no more.
    Gone,
}

/// What shards say to each other about waits.
pub enum WaitMessage {
    /// To home: your client's command found nothing, and waits here.
    Waits { reply_id: ReplyId, request: BlockRequest },
    /// To home: a key is there for it.
    Offer { wait: WaitId, offer: OfferId },
    /// To the shard that offered.
    Answer { wait: WaitId, offer: OfferId, verdict: Verdict },
    /// To home: you accepted, but there was nothing to take. It goes on waiting.
    Nothing { wait: WaitId },
    /// To a shard that was told `Busy`: offer again what you have.
    Again { wait: WaitId },
    /// To a shard where it stands: it waits no more.
    Forget { wait: WaitId },
    /// To the shard that offered: the transaction which is to take the key has to wait at an earlier shard.
    Yield { offer: OfferId },
}

/// A command that waits on keys of this shard.
pub struct Wait {
    pub call: Call,
    pub args: OwnedArgv,
    /// Those of the awaited arguments that are keys of this shard.
    pub positions: SmallVec<[u32; 2]>,
}

/// A wait on its way to a shard.
pub type NewWait = Box<(WaitId, Wait)>;

/// The waits on one key, in order of arrival.
struct Queue {
    db: u32,
    key: Box<[u8]>,
    waits: VecDeque<WaitId>,
    /// The key has changed, and not everybody has been asked since.
    is_signalled: bool,
    /// So many at the front have been passed over since then.
    passed: usize,
}

/// Where a service's lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LockState {
    Held(LockRequestId),
    /// Requested, and not granted yet.
    Awaited(LockRequestId),
    /// A transaction has it, or has given it up: it hands it back when it ends.
    Lent,
}

/// The giving away of the keys of one lock.
struct Handoff {
    lock_state: LockState,
    /// The locks under which the key was changed: their holder has to end first.
    after: Option<LockRequestId>,
    offer: Option<(u64, WaitId)>,
}

/// Keys of one hash share a lock, and so a service.
#[derive(Default)]
struct KeyWaiters {
    queues: SmallVec<[Queue; 1]>,
    handoff: Option<Handoff>,
}

/// The waits on the keys of one shard.
#[derive(Default)]
pub struct Blocking {
    waiters_by_lock: AHashMap<u64, KeyWaiters>,
    waits: AHashMap<WaitId, Wait>,
    /// Locks whose service may be able to go on.
    due: VecDeque<u64>,
    next_offer: u64,
    /// How many services there are.
    handoff_count: usize,
}

/// What a service does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing, for the time being.
    Pause,
    /// See whether this wait would take the key at argument `position`.
    Ask { wait: WaitId, position: u32 },
    /// Nobody is left: release the lock.
    End(LockRequestId),
}

impl Blocking {
    /// Whether nobody waits for anything, nor is being served: the one branch for those who change keys.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiters_by_lock.is_empty()
    }

    /// How many services are under way: keys that have changed, and whose waiting clients have not all been asked yet.
    pub fn handoff_count(&self) -> usize {
        self.handoff_count
    }

    /// Commands that wait here.
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    fn wait(&mut self, id: WaitId, wait: Wait) {
        for &position in &wait.positions {
            let key = wait.args.as_argv().arg(position as usize);
            let queue = self.waiters_by_lock.entry(hash_key(key)).or_default().queue(wait.call.db, key);
            // BLPOP k k waits once.
            if queue.waits.back() != Some(&id) {
                queue.waits.push_back(id);
            }
        }
        let earlier = self.waits.insert(id, wait);
        assert!(earlier.is_none(), "a command waits once");
    }

    /// Takes a wait out, wherever it stands.
    pub fn forget(&mut self, id: WaitId) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        for &position in &wait.positions {
            let key = wait.args.as_argv().arg(position as usize);
            let lock = hash_key(key);
            let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { continue };
            if let Some(queue) = waiters.queues.iter_mut().find(|queue| queue.is(wait.call.db, key)) {
                queue.remove(id);
            }
            self.tidy(lock);
        }
        Some(wait)
    }

    /// Whether commands wait for a key with this lock.
    pub fn is_awaited(&self, lock: u64) -> bool {
        self.waiters_by_lock.contains_key(&lock)
    }

    /// The waits on a key, in order.
    pub fn waits_on(&self, db: u32, key: &[u8]) -> Vec<WaitId> {
        let queues = self.waiters_by_lock.get(&hash_key(key)).map(|waiters| &waiters.queues);
        let queue = queues.and_then(|queues| queues.iter().find(|queue| queue.is(db, key)));
        queue.map_or(Vec::new(), |queue| queue.waits.iter().copied().collect())
    }

    /// What a wait was left with.
    pub fn get(&self, id: WaitId) -> Option<&Wait> {
        self.waits.get(&id)
    }

    /// The awaited keys of a database that are on this shard.
    pub fn keys_of(&self, db: u32) -> Vec<Box<[u8]>> {
        let queues = self.waiters_by_lock.values().flat_map(|waiters| &waiters.queues);
        let mut keys: Vec<_> = queues.filter(|queue| queue.db == db).map(|queue| queue.key.clone()).collect();
        // In an order that is the same in each run of a simulation.
        keys.sort_unstable();
        keys
    }

    /// Whether a service may go on whose time has come.
    #[inline]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// A service that may go on: what it waited for has ended.
    pub fn next_due(&mut self, locks: &LockTable) -> Option<u64> {
        let waiters_by_lock = &self.waiters_by_lock;
        let is_free = |lock: &u64| {
            let handoff = waiters_by_lock.get(lock).and_then(|waiters| waiters.handoff.as_ref());
            handoff.and_then(|handoff| handoff.after).is_none_or(|lock_request| !locks.knows(lock_request))
        };
        let at = self.due.iter().position(is_free)?;
        self.due.remove(at)
    }

    /// Notes that a key has changed. Returns whether a service has to begin for it.
    fn record_change(&mut self, db: u32, key: Key<'_>) -> bool {
        let Some(waiters) = self.waiters_by_lock.get_mut(&key.hash) else { return false };
        let Some(queue) = waiters.queues.iter_mut().find(|queue| queue.is(db, key.bytes)) else {
            return false;
        };
        queue.is_signalled = true;
        queue.passed = 0;
        waiters.handoff.is_none()
    }

    fn begin_handoff(&mut self, lock: u64, lock_state: LockState, after: Option<LockRequestId>) {
        let waiters = self.waiters_by_lock.get_mut(&lock).expect("a service is for those who wait");
        waiters.handoff = Some(Handoff { lock_state, after, offer: None });
        self.handoff_count += 1;
        self.due.push_back(lock);
    }

    /// What the service of a lock does next. After [`Next::End`] there is no such service any more.
    pub fn next(&mut self, lock: u64) -> Next {
        let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { return Next::Pause };
        let Some(handoff) = waiters.handoff.as_ref() else { return Next::Pause };
        let LockState::Held(lock_request) = handoff.lock_state else { return Next::Pause };
        if handoff.offer.is_some() {
            return Next::Pause;
        }
        for queue in waiters.queues.iter_mut().filter(|queue| queue.is_signalled) {
            if let Some(&id) = queue.waits.get(queue.passed) {
                let wait = &self.waits[&id];
                let args = wait.args.as_argv();
                let is_it = |&position: &u32| args.arg(position as usize) == &*queue.key;
                let position = wait.positions.iter().copied().find(is_it).expect("it waits for this key");
                return Next::Ask { wait: id, position };
            }
            queue.is_signalled = false;
            queue.passed = 0;
        }
        waiters.handoff = None;
        self.handoff_count -= 1;
        self.tidy(lock);
        Next::End(lock_request)
    }

    /// The wait that [`Blocking::next`] named is passed over, if it stands there still.
    pub fn pass(&mut self, lock: u64, id: WaitId) {
        let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { return };
        let queue = waiters.queues.iter_mut().find(|queue| queue.is_signalled);
        if let Some(queue) = queue.filter(|queue| queue.waits.get(queue.passed) == Some(&id)) {
            queue.passed += 1;
        }
    }

    /// Offers the key of a lock to the wait that [`Blocking::next`] named. Returns the offer's number.
    pub fn offer(&mut self, lock: u64, id: WaitId) -> u64 {
        let number = self.next_offer;
        self.next_offer += 1;
        self.handoff(lock).expect("it is offered in a service").offer = Some((number, id));
        number
    }

    /// Ends an offer: whom it was made to has taken the key, or is passed over if it stands there still. The service
    /// may go on then.
    ///
    /// # Panics
    /// There is no such offer: every offer is answered once.
    pub fn end_offer(&mut self, offer: OfferId) {
        let handoff = self.handoff(offer.lock).expect("a service lasts while there is an offer");
        let made = handoff.offer.take().filter(|made| made.0 == offer.number);
        let (_, id) = made.expect("an offer is answered once");
        self.pass(offer.lock, id);
        self.due.push_back(offer.lock);
    }

    /// Lends the lock of a service for the transaction that accepted this offer. `None` if it was given up before, or the
    /// offer is an earlier one.
    pub fn lend(&mut self, offer: OfferId) -> Option<LockRequestId> {
        let handoff = self.handoff(offer.lock)?;
        let LockState::Held(lock_request) = handoff.lock_state else { return None };
        if handoff.offer.is_none_or(|made| made.0 != offer.number) {
            return None;
        }
        handoff.lock_state = LockState::Lent;
        Some(lock_request)
    }

    /// The lock of a service is back, under this ticket.
    fn give_back(&mut self, lock: u64, lock_state: LockState) {
        let handoff = self.handoff(lock).expect("a service lasts while its lock is lent");
        debug_assert_eq!(handoff.lock_state, LockState::Lent);
        handoff.lock_state = lock_state;
    }

    /// A ticket has been granted that a service awaited.
    pub fn granted(&mut self, lock_request: LockRequestId) {
        let awaited = |waiters: &KeyWaiters| {
            waiters
                .handoff
                .as_ref()
                .is_some_and(|handoff| handoff.lock_state == LockState::Awaited(lock_request))
        };
        let lock = self.waiters_by_lock.iter().find(|(_, waiters)| awaited(waiters)).map(|(&lock, _)| lock);
        let lock = lock.expect("who waits for a lock has a waiter");
        self.handoff(lock).expect("it was found").lock_state = LockState::Held(lock_request);
        self.due.push_back(lock);
    }

    fn handoff(&mut self, lock: u64) -> Option<&mut Handoff> {
        self.waiters_by_lock.get_mut(&lock)?.handoff.as_mut()
    }

    /// Nothing is kept of keys that nobody waits for.
    fn tidy(&mut self, lock: u64) {
        let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { return };
        waiters.queues.retain(|queue| !queue.waits.is_empty());
        if waiters.queues.is_empty() && waiters.handoff.is_none() {
            self.waiters_by_lock.remove(&lock);
        }
    }
}

impl KeyWaiters {
    fn queue(&mut self, db: u32, key: &[u8]) -> &mut Queue {
        let at = self.queues.iter().position(|queue| queue.is(db, key)).unwrap_or_else(|| {
            let waits = VecDeque::new();
            self.queues.push(Queue { db, key: key.into(), waits, is_signalled: false, passed: 0 });
            self.queues.len() - 1
        });
        &mut self.queues[at]
    }
}

impl Queue {
    fn is(&self, db: u32, key: &[u8]) -> bool {
        self.db == db && *self.key == *key
    }

    fn remove(&mut self, id: WaitId) {
        // The front is the likely place: that one was served.
        if let Some(at) = self.waits.iter().position(|&other| other == id) {
            self.waits.remove(at);
            self.passed -= usize::from(at < self.passed);
        }
    }
}

impl Shard {
    /// Has a command wait on its keys of this shard, behind those who do already.
    pub fn wait(&mut self, id: WaitId, wait: Wait) {
        self.blocking.wait(id, wait);
        self.observers.set_blocks(true);
    }

    /// A key has changed on which commands may wait: if they do, and it is there, it is locked for them, and they are
    /// served as soon as what runs now has ended.
    #[cold]
    fn signal(&mut self, db: u32, key: Key<'_>) {
        if self.exists(db, key) {
            self.audience().serve_waits(db, key);
        }
    }

    /// The databases' contents are others than before: each awaited key of `db` that is there now has changed.
    pub fn signal_all(&mut self, db: u32) {
        if self.blocking.is_empty() {
            return;
        }
        for key in self.blocking.keys_of(db) {
            self.signal(db, Key { bytes: &key, hash: hash_key(&key) });
        }
    }

    /// The keys of a wait are offered to it again, if they are there. Whether they are is seen when they are locked for
    /// it: one that seems not to be there may be checked out, and come back as it was.
    pub fn signal_again(&mut self, id: WaitId) {
        let Some(wait) = self.blocking.get(id) else { return };
        let (db, args, positions) = (wait.call.db, wait.args.clone(), wait.positions.clone());
        for position in positions {
            let key = args.as_argv().arg(position as usize);
            self.audience().serve_waits(db, Key { bytes: key, hash: hash_key(key) });
        }
    }

    /// What a service lent comes back out of the locks of the transaction that had it.
    pub fn take_back(&mut self, lock: u64, lock_request: LockRequestId) {
        let lock_state = self.locks.split(lock_request, lock).map(LockState::Held);
        let lock_state = lock_state.unwrap_or_else(|| request_for_handoff(&mut self.locks, lock));
        self.blocking.give_back(lock, lock_state);
    }
}

impl Audience<'_> {
    /// Has those who wait for a key be asked, unless they are already.
    pub(super) fn serve_waits(&mut self, db: u32, key: Key<'_>) {
        if !self.blocking.record_change(db, key) {
            return;
        }
        let kept = self
            .running
            .and_then(|lock_request| self.locks.split(lock_request, key.hash))
            .map(LockState::Held);
        let lock_state = kept.unwrap_or_else(|| request_for_handoff(self.locks, key.hash));
        self.blocking.begin_handoff(key.hash, lock_state, self.running);
    }
}

fn request_for_handoff(locks: &mut LockTable, lock: u64) -> LockState {
    let key = KeyLock { id: lock, exclusive: true };
    match locks.request(LockSet::Keys(smallvec![key])) {
        (lock_request, true) => LockState::Held(lock_request),
        (lock_request, false) => LockState::Awaited(lock_request),
    }
}

#[cfg(test)]
mod tests;
