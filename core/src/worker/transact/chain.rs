//! The lock chain: a transaction locks its keys on one shard after the other, up to the lock point, at which it holds
//! all its locks. Why there is no deadlock, and which order results, is explained in [`crate::shard::txn`].

use super::super::Worker;
use super::{HeldParticipant, Waiter};
use crate::shard::Shard;
use crate::shard::blocking::Blocking;
use crate::shard::effects::PieceId;
use crate::shard::lock::programs::{Grant, MEETINGS_WITH_TOKEN_MAX, Owner};
use crate::shard::lock::{KeyLock, LockRequestId, LockSet};
use crate::shard::message::Message;
use crate::shard::txn::{LockPoint, Outcome, PartOfWide, Participant, Plan, TxnId, TxnMessage, Work};

/// Whether a client is blocked on one of the keys that a transaction locks exclusively.
fn is_any_awaited(keys: &[KeyLock], blocking: &Blocking) -> bool {
    !blocking.is_empty() && keys.iter().any(|key| key.exclusive && blocking.is_awaited(key.id))
}

impl Worker {
    /// Takes home's locks before the plan is sent, if they are free.
    pub(super) fn lock_ahead(&mut self, plan: &mut Plan) {
        let home = self.shard.index as u16;
        let Some(at) = plan.shards.iter().position(|&shard| shard == home) else { return };
        // The first shard in order is locked at once anyway. Watched keys are checked only once, in turn, and a key on
        // offer is locked already.
        if at == 0
            || plan.offer.is_some()
            || plan.has_token
            || plan.participants[at].as_ref().is_none_or(|participant| participant.watches)
        {
            return;
        }

        let mut participant = plan.participants[at].take().expect("the plan was not sent yet");
        let locks = match std::mem::replace(&mut participant.locks, LockSet::Whole) {
            LockSet::Keys(keys) => self.shard.locks.request_now(keys).map_err(LockSet::Keys),
            LockSet::Whole => Err(LockSet::Whole),
        };
        match locks {
            Ok(lock_request) => {
                plan.is_home_ahead = true;
                self.hold_participant(lock_request, plan, participant, true);
            }
            Err(locks) => plan.participants[at] = Some(Participant { locks, ..participant }),
        }
    }

    /// The plan of a transaction arrives at this shard: requests its locks here.
    pub(super) fn lock_participant(&mut self, mut plan: Box<Plan>) {
        let Some(mut participant) =
            plan.participants[plan.next].take().or_else(|| self.transact.yielded.remove(&plan.id))
        else {
            // Home still holds its locks, and the message to release them (`Yield`) is late. It is void now: this is
            // the transaction's turn at home.
            // The same goes for locks of an earlier round (`GiveBack`).
            let held = self.transact.held.get_mut(&plan.id);
            let held = held.expect("locks taken ahead are held, or were released");
            held.is_ahead = false;
            held.round = plan.round;
            self.pass_plan_on(plan);
            return;
        };
        if let PartOfWide::Call(call) = plan.wide {
            self.lock_for_call(plan, participant, call);
            return;
        }
        let mut locks = std::mem::replace(&mut participant.locks, LockSet::Whole);
        if participant.watches
            && let LockSet::Keys(keys) = &mut locks
        {
            keys.extend(self.shard.observers.watch().locks(plan.client));
        }
        if let Some(offer) = plan.offer
            && let Some(lock_request) = self.lock_with_offer(offer, &locks)
        {
            self.participant_granted(lock_request, plan, participant);
            return;
        }
        if plan.next_shard().is_none()
            && plan.offer.is_none()
            && plan.wide == PartOfWide::No
            && !participant.keeps_locks
            && let LockSet::Keys(keys) = &locks
            && matches!(participant.work, Work::Run(_))
            && !self.shard.locks.conflicts(keys)
        {
            self.run_at_once(plan, participant, keys);
            return;
        }
        let granted = &mut self.transact.granted;
        let may_give_way = plan.wide == PartOfWide::No && plan.round < MEETINGS_WITH_TOKEN_MAX;
        let (lock_request, grant) = match plan.has_token {
            false => self.shard.locks.request_by(locks, Owner::Plan),
            true if may_give_way => self.shard.locks.request_first_outside(locks, granted),
            true => {
                let (lock_request, is_granted) = match plan.wide {
                    PartOfWide::No => self.shard.locks.request_first_by_plan(locks, granted),
                    _ => self.shard.locks.request_first(locks, granted),
                };
                (lock_request, if is_granted { Grant::Now } else { Grant::Later })
            }
        };
        if grant == Grant::Now {
            self.participant_granted(lock_request, plan, participant);
        } else {
            self.plan_waits(lock_request, plan, participant, grant);
        }
        self.resume_granted();
    }

    /// A plan has to wait on this shard for its locks.
    pub(super) fn plan_waits(
        &mut self,
        lock_request: LockRequestId,
        mut plan: Box<Plan>,
        participant: Participant,
        grant: Grant,
    ) {
        self.shard.stats.lock_waits.add(1);
        let at = plan.next;
        plan.participants[at] = Some(participant);
        if grant == Grant::Outside {
            self.give_way(&mut plan);
        } else {
            if let Some(offer) = plan.offer {
                self.yield_offer(offer);
            }
            let home = plan.id.home as usize;
            if plan.is_home_ahead && home > self.shard.index {
                plan.is_home_ahead = false;
                self.send(home, Message::Txn(TxnMessage::Yield { id: plan.id }));
            }
        }
        self.transact.waiting.insert(lock_request, (Waiter::Plan(plan), self.time.ticks));
    }

    /// At home: releases the locks taken ahead, because the transaction waits at an earlier shard. It will request them
    /// again in its turn.
    pub(super) fn yield_participant(&mut self, id: TxnId) {
        // The plan may have arrived here before this message.
        if self.transact.held.get(&id).is_none_or(|held| !held.is_ahead) {
            return;
        }
        let held = self.transact.held.remove(&id).expect("it was there just now");
        self.shard.stats.transaction_retries.add(1);
        let HeldParticipant { lock_request, work, keeps_locks, .. } = held;
        let locks = LockSet::Keys(self.shard.locks.held_by(lock_request).into());
        self.transact.yielded.insert(id, Participant { locks, watches: false, work, keeps_locks });
        self.release(lock_request);
    }

    /// A plan that waited on this shard is granted its locks.
    pub(super) fn plan_granted(&mut self, lock_request: LockRequestId, mut plan: Box<Plan>) {
        let at = plan.next;
        let participant = plan.participants[at].take().expect("a waiting plan keeps this shard's share");
        self.participant_granted(lock_request, plan, participant);
    }

    /// This shard's locks are granted: checks the watched keys and passes the plan on.
    pub(super) fn participant_granted(
        &mut self,
        lock_request: LockRequestId,
        mut plan: Box<Plan>,
        participant: Participant,
    ) {
        self.ask_watches(&mut plan, &participant);
        self.hold_participant(lock_request, &mut plan, participant, false);
        self.pass_plan_on(plan);
    }

    /// Checks whether the keys that the client watches here are unchanged. It watches them up to the lock point.
    fn ask_watches(&self, plan: &mut Plan, participant: &Participant) {
        if participant.watches {
            plan.may_run &= self.shard.watched_keys_unchanged(plan.client);
        }
    }

    fn hold_participant(
        &mut self,
        lock_request: LockRequestId,
        plan: &mut Plan,
        participant: Participant,
        is_ahead: bool,
    ) {
        let Shard { locks, blocking, .. } = &self.shard;
        plan.may_run &= !(plan.is_coalesced && is_any_awaited(locks.held_by(lock_request), blocking));
        let held = HeldParticipant {
            lock_request,
            granted_at_ticks: self.time.ticks,
            watcher: participant.watches.then_some(plan.client),
            round: plan.round,
            work: participant.work,
            keeps_locks: participant.keeps_locks,
            is_ahead,
            checked_out: Vec::new(),
            pieces: 0,
            offer: plan.offer.filter(|offer| offer.shard as usize == self.shard.index),
            call: plan.wide.call(),
            has_open_call: false,
            next_call: None,
        };
        if let PartOfWide::Call(call) = plan.wide {
            self.hold_for_call(lock_request, call);
        }
        self.transact.held.insert(plan.id, held);
    }

    /// This shard holds its locks: passes the plan to the next shard. If this is the last one, all shards begin to
    /// work.
    fn pass_plan_on(&mut self, mut plan: Box<Plan>) {
        match plan.next_shard() {
            Some(next) => {
                plan.next = next;
                let shard = usize::from(plan.shards[next]);
                self.send(shard, Message::Txn(TxnMessage::Lock(plan)));
            }
            None => {
                let lock_point = self.decide_lock_point(&plan);
                let pieces = self.announce(&plan, lock_point);
                let outcome = self.go(plan.id, lock_point, pieces);
                self.answer_home(&plan, lock_point, pieces, outcome);
            }
        }
    }

    /// The last shard, when all others hold their locks and its own keys are free: its work is done at once and ends
    /// before anything else runs here, so, as for any command of this shard alone, there is no need to lock the keys.
    fn run_at_once(&mut self, mut plan: Box<Plan>, participant: Participant, keys: &[KeyLock]) {
        self.ask_watches(&mut plan, &participant);
        plan.may_run &= !(plan.is_coalesced && is_any_awaited(keys, &self.shard.blocking));
        let lock_point = self.decide_lock_point(&plan);
        if participant.watches && lock_point != LockPoint::UsersChanged {
            self.shard.observers.change_watch(|watch| watch.remove(plan.client));
        }
        let pieces = self.announce(&plan, lock_point);
        let outcome = match participant.work {
            _ if lock_point == LockPoint::UsersChanged => Outcome::UsersChanged,
            Work::Run(mut shard_batch) if lock_point == LockPoint::Run => {
                self.run_share(plan.id, &mut shard_batch, pieces != 0);
                if pieces != 0 {
                    self.end_piece(PieceId { txn: plan.id, over_checked_out: false }, pieces);
                }
                Outcome::Ran(shard_batch)
            }
            _ => Outcome::Refused,
        };
        self.answer_home(&plan, lock_point, pieces, outcome);
    }

    /// The lock point: tells all other shards but home to begin. Returns how many pieces the effects have; 0: they are
    /// not recorded.
    fn announce(&mut self, plan: &Plan, lock_point: LockPoint) -> u32 {
        let id = plan.id;
        if plan.has_token && plan.wide == PartOfWide::No {
            self.return_token_of_plan();
        }
        // Those of a call are recorded if those of its transaction are.
        let is_recorded = plan.wide.call().is_some() || self.shard.effects.is_on();
        let pieces = if lock_point == LockPoint::Run && is_recorded { plan.pieces } else { 0 };
        for shard in plan.shards.iter().map(|&shard| usize::from(shard)) {
            if shard != self.shard.index && shard != id.home as usize {
                self.send(shard, Message::Txn(TxnMessage::Go { id, lock_point, pieces, done: None }));
            }
        }
        pieces
    }

    /// The last shard has done its share: tells home of the lock point and of the outcome in one message.
    fn answer_home(&mut self, plan: &Plan, lock_point: LockPoint, pieces: u32, outcome: Outcome) {
        let (id, home) = (plan.id, plan.id.home as usize);
        if home != self.shard.index && plan.shards.contains(&(home as u16)) {
            let done = Some((self.shard.index, outcome));
            self.send(home, Message::Txn(TxnMessage::Go { id, lock_point, pieces, done }));
        } else {
            if home == self.shard.index {
                self.note_pieces(id, pieces);
            }
            self.done(id, outcome);
        }
    }
}
