//! Blocking commands (BLPOP and the like): which clients wait for which keys of this shard, in which order, and which
//! key is being offered to which of them.
//!
//! A blocking command first runs like any other. If it finds nothing to take, its handler returns a [`BlockRequest`]
//! ([`Ctx::block`](crate::command::Ctx::block)), and, before anything else can touch the keys, a *wait* is registered
//! for each of them at the shard that owns it. The client's own shard, its *home*, keeps the deadline, and it alone
//! decides how the wait ends, which happens once: the client is served, times out, is unblocked by CLIENT UNBLOCK, or
//! disconnects.
//!
//! # Handing a key to the clients blocked on it
//!
//! 1. A command changes a key that has waits ([`Shard::signal`]). The shard locks the key for the waiters while that
//!    command still runs. If the command runs under a lock of its own, the new lock is split off from it
//!    ([`LockTable::split`]), so that no request that is queued for the key gets in between. When the command, or the
//!    transaction it belongs to, has ended, the *handoff* of the key begins, before any other command of this shard
//!    runs.
//! 2. The key is *offered* to its waits one at a time, in order of arrival, skipping those whose command could not
//!    use the value ([`ready`](crate::command::table::Command::ready)). An offer goes to the wait's home.
//! 3. Home accepts if the wait still exists and no other offer to it is pending. From then on the wait cannot end in
//!    another way. A command that needs only this key runs on this shard, under the handoff's lock. A command that
//!    needs more keys (BLMOVE also needs its destination) is run from its home as an ordinary transaction over them.
//!    It takes the handoff's lock over, and gives it back when it ends.
//! 4. Home then ends the wait, and the other shards forget it. The handoff continues with the next wait, and releases
//!    the lock when no waiter is left that could use the key.
//!
//! # Waits that only read
//!
//! XREAD takes nothing, so its waiters need no order among them, and nobody else has to wait for them. When a handoff
//! comes to such a wait, the command runs at once, on the shard of the key, and the wait is forgotten there. The replies
//! go to their homes, in one message for each shard ([`WaitMessage::Read`]). Home passes a reply on if the client still
//! waits. If it does not, nothing is lost: the command has changed nothing.
//!
//! Until the other shards have taken these messages, requests for the whole keyspace are held off on the shard of the key
//! ([`LockTable::hold_off_whole`]), and the handoff counts as under way. So CLIENT UNBLOCK, which locks the whole keyspace
//! while any handoff is under way, does not end a wait that has been served already.
//!
//! # Offers to programs
//!
//! A client that a module has blocked on keys is not served by a command, but by a *try*: a program of its home, in which
//! the module looks whether the key has what it waits for. Home answers such an offer when the program has ended, and the
//! lock is kept for it until then. The program first waits for the [token](crate::shard::token). So the lock is marked as a
//! program's, behind which nobody waits while holding anything; and whoever has the token and comes to this key gets it:
//! the handoff lends it the lock ([`Blocking::lend_to_token_holder`]), as it does for the program itself in its turn. When the
//! offer has been answered, the handoff requests the lock again, before others can, if it was the program that had it.
//!
//! So a wide program might come between a change of the key and the try, and yet have been called by whoever had the reply to
//! that change. With several shards such programs therefore do not begin while there are tries
//! ([`Blocking::tried_handoff_count`]), for a limited time.
//!
//! # Keys that go
//!
//! XREADGROUP waits for a consumer group, and so ends with an error when its key is removed or replaced by another type.
//! Such waits (`ends_with_key`) are offered a key that does not exist any more, too; so are those of modules that ask for it.
//! All others wait on.
//!
//! # Why this is correct
//!
//! *Exactly once.* Only home accepts offers, and it accepts one at a time: the next one only after it knows that the
//! first one came to nothing.
//!
//! *First come, first served.* A key is offered in order of arrival, and to the next wait only after the answer of
//! the one before is known. A wait that is being served from one key is passed over by the others. If the first one
//! comes to nothing (a transaction found its key emptied), the others are told to offer again, and the wait has kept
//! its place.
//!
//! *No wait is missed.* A wait is registered under the locks of the run that found nothing, so each later change of the
//! key signals it. A wait that is passed over has had the key checked for it after the last change.
//!
//! *No deadlock.* Home answers an offer at once, so a handoff's lock is held only briefly, except in step 3: there a
//! transaction arrives at its shards in their order (see [`txn`](crate::shard::txn)) while it holds one lock already.
//! At the shards behind that lock's shard this is what every transaction does. At a shard before it, or for another
//! key of the same shard, the transaction may find a lock held by one that waits for the handoff's lock. In that case
//! the handoff's lock is released, and the transaction requests it again in the ordinary order
//! ([`WaitMessage::Yield`]). So no transaction waits at an earlier shard while it holds locks of a later one. Another
//! command may take the key meanwhile. Then the blocked command finds nothing when it runs, and its client stays
//! blocked.
//!
//! An offer to a program is pending for as long as that runs, and waits for the token. But whoever has the token does not
//! wait for it, and neither does another handoff: home answers that the client is busy.

use super::Shard;
use super::observe::Audience;
use crate::call::{Call, Key};
use crate::protocol::{OwnedArgv, Reply};
use crate::shard::lock::{KeyLock, LockRequestId, LockSet, LockTable};
use crate::shard::message::ReplyId;
use crate::types::hashing::hash_key;
use ahash::AHashMap;
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;
use std::ops::Range;

/// Identifies a wait: the client's shard, and the reply it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WaitId {
    pub home: u32,
    pub reply_id: ReplyId,
}

/// Identifies an offer of a key: the shard, the lock whose handoff offers it, a running number of the shard, and which
/// argument of the blocked command the key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfferId {
    pub shard: u32,
    pub lock: u64,
    pub number: u64,
    pub position: u32,
}

/// What a blocking command that found nothing to take wants to wait for.
#[derive(Clone, PartialEq, Eq)]
pub struct BlockRequest {
    /// The arguments that are the awaited keys.
    pub keys: Range<u32>,
    /// When it times out; unix time in milliseconds. `None`: never.
    pub deadline_ms: Option<i64>,
    pub on_timeout: TimeoutReply,
    /// What the command waits with instead of its arguments, if they mean something else later (`$` of XREAD). The keys
    /// are the same.
    pub args: Option<OwnedArgv>,
    /// It also ends when a key is removed.
    pub ends_with_key: bool,
}

/// What the client of a blocking command gets at the timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutReply {
    Null,
    NullArray,
    /// How many replicas have what the client has written (WAIT).
    Replicas,
}

impl TimeoutReply {
    pub fn write(self, reply: &mut Reply<'_>) {
        match self {
            TimeoutReply::Null => reply.null(),
            TimeoutReply::NullArray => reply.null_array(),
            // Home replaces it by the number. In an EXEC nobody has been asked.
            TimeoutReply::Replicas => reply.integer(0),
        }
    }
}

/// Home's answer to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Run the command for this key, at once.
    Accept,
    /// An earlier offer to it is pending. Pass it over; it keeps its place.
    Busy,
    /// The wait has ended.
    Gone,
}

/// Messages between shards about waits.
pub enum WaitMessage {
    /// To home: your client's command found nothing, and waits here.
    Waits { reply_id: ReplyId, request: BlockRequest },
    /// To home: this wait is offered a key.
    Offer { wait: WaitId, offer: OfferId },
    /// To the shard that made the offer.
    Answer { wait: WaitId, offer: OfferId, verdict: Verdict },
    /// To home: what waits that only read have read. `hold`: what is to be named when it is taken, unless home is the shard
    /// that has sent it.
    Read { replies: ReadReplies, hold: Option<LockRequestId> },
    /// To the shard that has sent them: these replies were taken.
    Taken { hold: LockRequestId },
    /// To home: you accepted, but there was nothing to take. The client stays blocked.
    Nothing { wait: WaitId },
    /// To a shard that was told `Busy`: offer the wait its keys again.
    Again { wait: WaitId },
    /// To a shard of keys: this wait is for them.
    Register { new: NewWait },
    /// To a shard where the wait is registered: it has ended.
    Forget { wait: WaitId },
    /// To the shard that made the offer: the transaction that is to take the key has to wait at an earlier shard, so
    /// release the key's lock.
    Yield { offer: OfferId },
}

/// The replies to commands that have waited and only read.
#[derive(Default)]
pub struct ReadReplies {
    bytes: Vec<u8>,
    /// Each reply ends at this offset.
    ends: Vec<(ReplyId, usize)>,
}

impl ReadReplies {
    pub fn push(&mut self, reply_id: ReplyId, reply: &[u8]) {
        self.bytes.extend_from_slice(reply);
        self.ends.push((reply_id, self.bytes.len()));
    }

    pub fn iter(&self) -> impl Iterator<Item = (ReplyId, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(reply_id, end)| {
            let reply = &self.bytes[start..end];
            start = end;
            (reply_id, reply)
        })
    }
}

/// A command that is blocked on keys of this shard.
pub struct Wait {
    pub call: Call,
    pub args: OwnedArgv,
    /// The awaited arguments that are keys of this shard.
    pub positions: SmallVec<[u32; 2]>,
    /// See [`BlockRequest`].
    pub ends_with_key: bool,
    /// It is not served by its command, but by a try: see the [module's docs](self).
    pub is_tried: bool,
}

/// A wait on its way to a shard.
pub type NewWait = Box<(WaitId, Wait)>;

/// The waits on one key, in order of arrival.
struct Queue {
    db: u32,
    key: Box<[u8]>,
    waits: VecDeque<WaitId>,
    /// How many of the waits end when the key is removed.
    ends_with_key: usize,
    /// How many of the waits are served by tries.
    tried: usize,
    /// The key has changed, and not all waits have been asked since.
    is_signalled: bool,
    /// How many waits at the front have been passed over since the change.
    passed: usize,
}

/// The state of a handoff's lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LockState {
    Held(LockRequestId),
    /// Requested, and not granted yet.
    Awaited(LockRequestId),
    /// The transaction that accepted the offer has it, or has released it early. It comes back when the transaction
    /// ends.
    Lent,
}

/// The offering of the keys of one lock to the clients blocked on them.
struct Handoff {
    lock_state: LockState,
    /// The lock request under which the key was changed: it has to be released first.
    after: Option<LockRequestId>,
    offer: Option<PendingOffer>,
    /// When it began, waits that are served by tries were among those of its keys.
    has_tries: bool,
}

#[derive(Clone, Copy)]
struct PendingOffer {
    number: u64,
    wait: WaitId,
    /// A program tries it: see the [module's docs](self).
    is_to_program: bool,
}

/// The waits for the keys of one hash. These keys share a lock, and so a handoff.
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
    /// Locks whose handoff may be able to continue.
    due: VecDeque<u64>,
    /// Locks whose handoff comes behind that of another: see [`Blocking::next`].
    paused: Vec<u64>,
    next_offer: u64,
    /// The locks on offer to programs, which the handoff still holds.
    on_offer_to_programs: Vec<u64>,
    /// How many handoffs there are.
    handoff_count: usize,
    /// How many of them have tries.
    tried_handoff_count: usize,
    /// Replies of waits that only read, on their way: what holds off requests for the whole keyspace meanwhile, and how
    /// many shards have not taken theirs.
    on_their_way: Vec<(LockRequestId, usize)>,
}

/// What a handoff does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing for now.
    Pause,
    /// Check whether this wait could use the key at argument `position`.
    Ask { wait: WaitId, position: u32 },
    /// No wait is left to ask: release the lock.
    End(LockRequestId),
}

impl Blocking {
    /// Whether there are no waits and no handoffs.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiters_by_lock.is_empty()
    }

    /// How many handoffs are under way: changed keys whose blocked clients have not all been asked yet, or whose readers'
    /// shards have not all taken what was read for them.
    pub fn handoff_count(&self) -> usize {
        self.handoff_count + self.on_their_way.len()
    }

    /// How many handoffs under way may be to clients whose waits are served by tries.
    pub fn tried_handoff_count(&self) -> usize {
        self.tried_handoff_count
    }

    /// One more shard has taken its readers' replies. Returns whether it was the last one.
    pub fn take_read(&mut self, hold: LockRequestId) -> bool {
        let at = self.on_their_way.iter().position(|(other, _)| *other == hold);
        let at = at.expect("each shard takes its replies once");
        self.on_their_way[at].1 -= 1;
        let is_last = self.on_their_way[at].1 == 0;
        if is_last {
            self.on_their_way.swap_remove(at);
        }
        is_last
    }

    /// How many commands are blocked on keys of this shard.
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    fn wait(&mut self, id: WaitId, wait: Wait) {
        for &position in &wait.positions {
            let key = wait.args.as_argv().arg(position as usize);
            let queue = self.waiters_by_lock.entry(hash_key(key)).or_default().queue(wait.call.db, key);
            // BLPOP k k waits for k once.
            if queue.waits.back() != Some(&id) {
                queue.waits.push_back(id);
                queue.ends_with_key += usize::from(wait.ends_with_key);
                queue.tried += usize::from(wait.is_tried);
            }
        }
        let earlier = self.waits.insert(id, wait);
        assert!(earlier.is_none(), "a blocked command is registered once");
    }

    /// Removes a wait from all its keys.
    pub fn forget(&mut self, id: WaitId) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        for &position in &wait.positions {
            let key = wait.args.as_argv().arg(position as usize);
            let lock = hash_key(key);
            let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { continue };
            if let Some(queue) = waiters.queues.iter_mut().find(|queue| queue.is(wait.call.db, key)) {
                let is_removed = queue.remove(id);
                queue.ends_with_key -= usize::from(is_removed && wait.ends_with_key);
                queue.tried -= usize::from(is_removed && wait.is_tried);
            }
            self.tidy(lock);
        }
        Some(wait)
    }

    /// Whether commands are blocked on a key with this lock.
    pub fn is_awaited(&self, lock: u64) -> bool {
        self.waiters_by_lock.contains_key(&lock)
    }

    /// The waits on a key, in order of arrival.
    pub fn waits_on(&self, db: u32, key: &[u8]) -> Vec<WaitId> {
        let queues = self.waiters_by_lock.get(&hash_key(key)).map(|waiters| &waiters.queues);
        let queue = queues.and_then(|queues| queues.iter().find(|queue| queue.is(db, key)));
        queue.map_or(Vec::new(), |queue| queue.waits.iter().copied().collect())
    }

    /// The registered wait of this id.
    pub fn get(&self, id: WaitId) -> Option<&Wait> {
        self.waits.get(&id)
    }

    /// The awaited keys of a database that are on this shard.
    pub fn keys_of(&self, db: u32) -> Vec<Box<[u8]>> {
        let queues = self.waiters_by_lock.values().flat_map(|waiters| &waiters.queues);
        let mut keys: Vec<_> = queues.filter(|queue| queue.db == db).map(|queue| queue.key.clone()).collect();
        // The same order in every run: simulations must be repeatable, and the order of the map is random.
        keys.sort_unstable();
        keys
    }

    /// Whether a handoff may be able to continue.
    #[inline]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes the next handoff that can continue: the command or transaction that changed its key has ended.
    pub fn next_due(&mut self, locks: &LockTable) -> Option<u64> {
        let waiters_by_lock = &self.waiters_by_lock;
        let is_free = |lock: &u64| {
            let handoff = waiters_by_lock.get(lock).and_then(|waiters| waiters.handoff.as_ref());
            handoff.and_then(|handoff| handoff.after).is_none_or(|lock_request| !locks.knows(lock_request))
        };
        let at = self.due.iter().position(is_free)?;
        self.due.remove(at)
    }

    /// Records that a key has changed, or (unless `is_there`) was removed. Returns whether a handoff has to begin for it.
    fn record_change(&mut self, db: u32, key: Key<'_>, is_there: bool) -> bool {
        let Some(waiters) = self.waiters_by_lock.get_mut(&key.hash) else { return false };
        let Some(queue) = waiters.queues.iter_mut().find(|queue| queue.is(db, key.bytes)) else {
            return false;
        };
        if !is_there && queue.ends_with_key == 0 {
            return false;
        }
        queue.is_signalled = true;
        queue.passed = 0;
        waiters.handoff.is_none()
    }

    fn begin_handoff(&mut self, lock: u64, lock_state: LockState, after: Option<LockRequestId>) {
        let waiters = self.waiters_by_lock.get_mut(&lock).expect("a handoff has waiters");
        let has_tries = waiters.queues.iter().any(|queue| queue.tried != 0);
        waiters.handoff = Some(Handoff { lock_state, after, offer: None, has_tries });
        self.handoff_count += 1;
        self.tried_handoff_count += usize::from(has_tries);
        self.due.push_back(lock);
    }

    /// What the handoff of a lock does next. [`Next::End`] ends the handoff.
    ///
    /// As in Redis, all clients that can be served from a key are served before the next key is offered. So a handoff pauses
    /// while another one has a pending offer, if the next wait is for both keys. (The answer comes at once. A handoff whose
    /// lock is lent to a transaction, or kept for a program, is not waited for.)
    pub fn next(&mut self, lock: u64) -> Next {
        let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { return Next::Pause };
        let Some(handoff) = waiters.handoff.as_ref() else { return Next::Pause };
        let LockState::Held(lock_request) = handoff.lock_state else { return Next::Pause };
        if handoff.offer.is_some() {
            return Next::Pause;
        }
        let mut found = None;
        for queue in waiters.queues.iter_mut().filter(|queue| queue.is_signalled) {
            if let Some(&id) = queue.waits.get(queue.passed) {
                let wait = &self.waits[&id];
                let args = wait.args.as_argv();
                let is_it = |&position: &u32| args.arg(position as usize) == &*queue.key;
                let position = wait.positions.iter().copied().find(is_it).expect("the wait is for this key");
                found = Some((id, position));
                break;
            }
            queue.is_signalled = false;
            queue.passed = 0;
        }
        if let Some((wait, position)) = found {
            if self.comes_behind_another(lock, wait) {
                self.paused.push(lock);
                return Next::Pause;
            }
            return Next::Ask { wait, position };
        }
        let waiters = self.waiters_by_lock.get_mut(&lock).expect("it was there just now");
        let has_tries = waiters.handoff.take().is_some_and(|handoff| handoff.has_tries);
        self.handoff_count -= 1;
        self.tried_handoff_count -= usize::from(has_tries);
        self.tidy(lock);
        Next::End(lock_request)
    }

    /// Whether a wait is also for another key of this shard, and that is on offer to some client.
    fn comes_behind_another(&self, lock: u64, id: WaitId) -> bool {
        let wait = &self.waits[&id];
        let args = wait.args.as_argv();
        let is_on_offer = |&position: &u32| {
            let other = hash_key(args.arg(position as usize));
            let handoff = self.waiters_by_lock.get(&other).and_then(|waiters| waiters.handoff.as_ref());
            let is_pending = |handoff: &Handoff| {
                handoff.offer.is_some_and(|offer| !offer.is_to_program)
                    && matches!(handoff.lock_state, LockState::Held(_))
            };
            other != lock && handoff.is_some_and(is_pending)
        };
        wait.positions.len() > 1 && wait.positions.iter().any(is_on_offer)
    }

    /// Lets the handoffs continue that came behind another, which has no pending offer any more.
    fn resume_paused(&mut self) {
        self.due.extend(self.paused.drain(..));
    }

    /// Passes the wait that [`Blocking::next`] named over, if it still exists.
    pub fn pass(&mut self, lock: u64, id: WaitId) {
        let Some(waiters) = self.waiters_by_lock.get_mut(&lock) else { return };
        let queue = waiters.queues.iter_mut().find(|queue| queue.is_signalled);
        if let Some(queue) = queue.filter(|queue| queue.waits.get(queue.passed) == Some(&id)) {
            queue.passed += 1;
        }
    }

    /// Offers the key of a lock to the wait that [`Blocking::next`] named. Returns the offer's number.
    pub fn offer(&mut self, lock: u64, wait: WaitId) -> u64 {
        self.make_offer(lock, wait, false).0
    }

    /// The same for a wait that a program will try. Returns also the lock request, which is to be marked as a program's.
    pub fn offer_to_program(&mut self, lock: u64, wait: WaitId) -> (u64, LockRequestId) {
        self.on_offer_to_programs.push(lock);
        self.make_offer(lock, wait, true)
    }

    fn make_offer(&mut self, lock: u64, wait: WaitId, is_to_program: bool) -> (u64, LockRequestId) {
        let number = self.next_offer;
        self.next_offer += 1;
        let handoff = self.handoff(lock).expect("an offer is part of a handoff");
        handoff.offer = Some(PendingOffer { number, wait, is_to_program });
        let LockState::Held(lock_request) = handoff.lock_state else {
            unreachable!("only what is held is offered")
        };
        (number, lock_request)
    }

    /// Ends an offer, so that the handoff may continue: the wait it was made to has been served and is gone, or it is
    /// passed over.
    ///
    /// # Panics
    /// There is no such offer: every offer is answered once.
    pub fn end_offer(&mut self, offer: OfferId) {
        let handoff = self.handoff(offer.lock).expect("a handoff lasts while an offer is pending");
        let made = handoff.offer.take().filter(|made| made.number == offer.number);
        let made = made.expect("an offer is answered once");
        if made.is_to_program {
            self.on_offer_to_programs.retain(|lock| *lock != offer.lock);
        }
        self.pass(offer.lock, made.wait);
        self.due.push_front(offer.lock);
        self.resume_paused();
    }

    /// Lends the lock of a handoff to the transaction that accepted this offer. `None` if the lock was released before,
    /// or the offer is not the pending one.
    pub fn lend(&mut self, offer: OfferId) -> Option<LockRequestId> {
        let handoff = self.handoff(offer.lock)?;
        let LockState::Held(lock_request) = handoff.lock_state else { return None };
        if handoff.offer.is_none_or(|made| made.number != offer.number) {
            return None;
        }
        handoff.lock_state = LockState::Lent;
        self.resume_paused();
        Some(lock_request)
    }

    /// Lends a lock that is on offer to a program to the holder of the token, who waits for it: that may be the program
    /// itself, or one before it. `None`: it waits for none.
    pub fn lend_to_token_holder(&mut self, locks: &LockTable) -> Option<LockRequestId> {
        for at in 0..self.on_offer_to_programs.len() {
            let handoff = self.handoff(self.on_offer_to_programs[at]);
            let handoff = handoff.expect("a handoff lasts while an offer is pending");
            let LockState::Held(lock_request) = handoff.lock_state else {
                unreachable!("a lock that is lent is removed from the list")
            };
            if locks.keeps_program_waiting(lock_request) {
                handoff.lock_state = LockState::Lent;
                self.on_offer_to_programs.swap_remove(at);
                return Some(lock_request);
            }
        }
        None
    }

    /// Takes the lent lock of a handoff back, in its new state.
    fn give_back(&mut self, lock: u64, lock_state: LockState) {
        let handoff = self.handoff(lock).expect("a handoff lasts while its lock is lent");
        debug_assert_eq!(handoff.lock_state, LockState::Lent);
        handoff.lock_state = lock_state;
    }

    /// A lock request has been granted that a handoff awaits.
    pub fn granted(&mut self, lock_request: LockRequestId) {
        let awaited = |waiters: &KeyWaiters| {
            waiters
                .handoff
                .as_ref()
                .is_some_and(|handoff| handoff.lock_state == LockState::Awaited(lock_request))
        };
        let lock = self.waiters_by_lock.iter().find(|(_, waiters)| awaited(waiters)).map(|(&lock, _)| lock);
        let lock = lock.expect("a granted request without a waiter belongs to a handoff");
        self.handoff(lock).expect("found just now").lock_state = LockState::Held(lock_request);
        self.due.push_back(lock);
    }

    fn handoff(&mut self, lock: u64) -> Option<&mut Handoff> {
        self.waiters_by_lock.get_mut(&lock)?.handoff.as_mut()
    }

    /// Drops what is kept for the keys of a lock if no command waits for them any more.
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
            let key = key.into();
            self.queues.push(Queue {
                db,
                key,
                waits,
                ends_with_key: 0,
                tried: 0,
                is_signalled: false,
                passed: 0,
            });
            self.queues.len() - 1
        });
        &mut self.queues[at]
    }
}

impl Queue {
    fn is(&self, db: u32, key: &[u8]) -> bool {
        self.db == db && *self.key == *key
    }

    /// Returns whether it was there.
    fn remove(&mut self, id: WaitId) -> bool {
        // It is nearly always at the front, because the first wait is served first.
        let Some(at) = self.waits.iter().position(|&other| other == id) else { return false };
        self.waits.remove(at);
        self.passed -= usize::from(at < self.passed);
        true
    }
}

impl Shard {
    /// Blocks a command on its keys of this shard, behind those that are blocked on them already.
    pub fn wait(&mut self, id: WaitId, wait: Wait) {
        self.blocking.wait(id, wait);
        self.observers.set_blocks(true);
    }

    /// A key has changed on which commands may be blocked. If some are that the change concerns, it is locked for them,
    /// and its handoff begins as soon as what runs now has ended.
    #[cold]
    fn signal(&mut self, db: u32, key: Key<'_>) {
        // One that has expired is removed when it is looked at for the first wait, after the command that signals it.
        let is_there = self.lookup_stored(db, key).is_some();
        self.audience().serve_waits(db, key, is_there);
    }

    /// For a change that observers are not told of: has the key offered to the commands blocked on it, which are on its own
    /// shard.
    pub fn signal_waits(&mut self, db: u32, key: Key<'_>) {
        if !self.observers.record_signal(db, key) && !self.blocking.is_empty() {
            self.signal(db, key);
        }
    }

    /// Replies of waits that only read are about to leave for other shards, so many, under the lock of a handoff. Holds
    /// off requests for the whole keyspace until these have taken them.
    pub fn hold_for_readers(&mut self, shards: usize) -> LockRequestId {
        let hold = self.locks.hold_off_whole();
        self.blocking.on_their_way.push((hold, shards));
        hold
    }

    /// Whether keys may have to be handed off.
    #[inline]
    pub fn has_due_waits(&self) -> bool {
        self.blocking.has_due() || self.observers.has_expired_awaited()
    }

    /// Tells the commands blocked on keys that have expired of that.
    pub fn signal_expired_keys(&mut self) {
        for (db, key) in self.observers.take_expired_awaited() {
            self.signal(db, Key { bytes: &key, hash: hash_key(&key) });
        }
    }

    /// The contents of `db` were swapped with those of another database, or removed: each awaited key counts as
    /// changed.
    pub fn signal_all(&mut self, db: u32) {
        if self.blocking.is_empty() {
            return;
        }
        for key in self.blocking.keys_of(db) {
            self.signal(db, Key { bytes: &key, hash: hash_key(&key) });
        }
    }

    /// Offers the keys of a wait to it again. Whether a key exists is checked only once it is locked: before that, a
    /// key that seems missing may be checked out, and come back unchanged.
    pub fn signal_again(&mut self, id: WaitId) {
        let Some(wait) = self.blocking.get(id) else { return };
        let (db, args, positions) = (wait.call.db, wait.args.clone(), wait.positions.clone());
        for position in positions {
            let key = args.as_argv().arg(position as usize);
            self.audience().serve_waits(db, Key { bytes: key, hash: hash_key(key) }, true);
        }
    }

    /// Ends an offer that no transaction has accepted: see [`Blocking::end_offer`]. If the holder of the token was lent the
    /// lock, it is requested anew.
    pub fn end_offer(&mut self, offer: OfferId) {
        let handoff = self.blocking.handoff(offer.lock).expect("a handoff lasts while an offer is pending");
        if handoff.lock_state == LockState::Lent {
            let lock_state = request_for_handoff(&mut self.locks, offer.lock);
            self.blocking.give_back(offer.lock, lock_state);
        }
        self.blocking.end_offer(offer);
    }

    /// Takes the lent lock of a handoff back from the transaction that had it: the lock is split off the transaction's
    /// locks, or requested anew if the transaction does not hold it any more.
    pub fn take_back(&mut self, lock: u64, lock_request: LockRequestId) {
        let lock_state = self.locks.split(lock_request, lock).map(LockState::Held);
        let lock_state = lock_state.unwrap_or_else(|| request_for_handoff(&mut self.locks, lock));
        self.blocking.give_back(lock, lock_state);
    }
}

impl Audience<'_> {
    /// Begins the handoff of a changed key to the commands blocked on it, unless there are none or it has one already.
    pub(super) fn serve_waits(&mut self, db: u32, key: Key<'_>, is_there: bool) {
        if !self.blocking.record_change(db, key, is_there) {
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
