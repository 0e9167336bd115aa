//! Giving way to programs, and the token: see [`crate::shard::token`].

use super::super::Worker;
use super::{Waiter, Wish};
use crate::shard::lock::programs::{Grant, LockEvent, MEETINGS_MAX, Owner};
use crate::shard::lock::{KeyLock, LockRequestId, LockSet};
use crate::shard::message::Message;
use crate::shard::token::{RUN_MAX, TOKEN_SHARD, TokenMessage};
use crate::shard::txn::{Participant, Plan, TxnId, TxnMessage};
use smallvec::SmallVec;

// A plan that meets a program.
impl Worker {
    /// A plan has met a program on this shard: has all other shards release the locks that it holds there. The plan
    /// keeps this shard's share, and the others theirs.
    pub(super) fn give_way(&mut self, plan: &mut Plan) {
        self.shard.stats.transaction_retries.add(1);
        for (at, &shard) in plan.shards.iter().enumerate() {
            if at != plan.next && plan.participants[at].is_none() {
                let message = TxnMessage::GiveBack { id: plan.id, round: plan.round };
                self.send(usize::from(shard), Message::Txn(message));
            }
        }
        if let Some(offer) = plan.offer {
            self.yield_offer(offer);
        }
        plan.is_home_ahead = false;
        if plan.has_token {
            // It goes on from here as soon as the program has ended: its next round.
            plan.first = plan.next;
            plan.round += 1;
            self.send(plan.id.home as usize, Message::Txn(TxnMessage::Restarted { id: plan.id }));
        }
    }

    /// A transaction has met a program at another shard: releases the locks that it holds here. It will request them
    /// again. `round`: of the plan that met the program.
    pub(super) fn give_back(&mut self, id: TxnId, round: u32) {
        // The plan may have come here in its next round before this message.
        if self.transact.held.get(&id).is_none_or(|held| held.round != round) {
            return;
        }
        let held = self.transact.held.remove(&id).expect("it was there just now");
        let participant = Participant {
            locks: self.shard.locks.set_of(held.lock_request),
            watches: held.watcher.is_some(),
            work: held.work,
            keeps_locks: held.keeps_locks,
        };
        self.transact.yielded.insert(id, participant);
        self.release(held.lock_request);
    }

    /// The programs that a plan has met on this shard have ended: it starts anew at its first shard or, if it has met programs
    /// too often, here and with the token. `locks`: this shard's.
    fn start_anew(&mut self, mut plan: Box<Plan>, locks: LockSet) {
        plan.participants[plan.next].as_mut().expect("a plan that waits keeps this shard's share").locks =
            locks;
        plan.round += 1;
        self.send(plan.id.home as usize, Message::Txn(TxnMessage::Restarted { id: plan.id }));
        if plan.round >= MEETINGS_MAX {
            // It begins here then, where it may have to wait once more, and holds nothing elsewhere while it does.
            plan.first = plan.next;
            self.ask_for_token(Wish::Plan(plan));
        } else {
            plan.next = 0;
            self.send(usize::from(plan.shards[0]), Message::Txn(TxnMessage::Lock(plan)));
        }
    }

    /// Tells the owners of lock requests what has happened to these.
    pub(super) fn take_lock_events(&mut self) {
        while let Some(lock_request) = self.shard.blocking.lend_to_token_holder(&self.shard.locks) {
            self.shard.locks.release(lock_request, &mut self.transact.granted);
        }
        for event in self.shard.locks.take_events() {
            match event {
                LockEvent::Away(lock_request) => {
                    let (waiter, since_ticks) = self
                        .transact
                        .waiting
                        .remove(&lock_request)
                        .expect("a request that waits has a waiter");
                    let Waiter::Plan(mut plan) = waiter else { unreachable!("only plans are told") };
                    self.give_way(&mut plan);
                    self.transact.waiting.insert(lock_request, (Waiter::Plan(plan), since_ticks));
                }
                LockEvent::Again(lock_request, locks) => {
                    let (waiter, _) = self
                        .transact
                        .waiting
                        .remove(&lock_request)
                        .expect("a request that waits has a waiter");
                    let Waiter::Plan(plan) = waiter else { unreachable!("only plans are told") };
                    self.start_anew(plan, locks);
                }
                LockEvent::NeedsToken(lock_request) => self.ask_for_token(Wish::Unit(lock_request)),
            }
        }
    }
}

// Programs.
impl Worker {
    /// A program of this shard is suspended: locks the keys that it has touched or may touch, which are free, until
    /// [`Worker::end_program_hold`].
    pub fn hold_for_program(&mut self, keys: SmallVec<[KeyLock; 4]>) -> LockRequestId {
        let (lock_request, grant) = self.shard.locks.request_by(LockSet::Keys(keys), Owner::Plan);
        assert!(grant == Grant::Now, "what runs as a unit has its keys for itself");
        self.mark_as_program(lock_request);
        self.deliver_local();
        lock_request
    }

    /// A program that was suspended has ended: releases its keys.
    pub fn end_program_hold(&mut self, lock_request: LockRequestId) {
        self.release(lock_request);
        self.deliver_local();
    }

    /// The owner of the granted `lock_request` is a program that is being suspended: those who wait behind it give way.
    pub(in crate::worker) fn mark_as_program(&mut self, lock_request: LockRequestId) {
        self.shard.locks.mark(lock_request, &mut self.transact.granted);
        self.resume_granted();
    }

    /// A transaction of this shard is being suspended in the midst of a program: all shards that may hold locks for it mark
    /// these.
    pub(in crate::worker) fn mark_transaction(&mut self, id: TxnId) {
        let shards = 0..self.shard.shard_count;
        for shard in shards {
            self.send(shard, Message::Txn(TxnMessage::Mark { id }));
        }
    }

    /// A transaction is suspended in the midst of a program.
    pub(super) fn mark_participant(&mut self, id: TxnId) {
        if let Some(held) = self.transact.held.get(&id) {
            self.mark_as_program(held.lock_request);
        }
    }
}

// The token.
impl Worker {
    /// Asks for the token; [`Worker::use_token`] goes on when it is there.
    pub(super) fn ask_for_token(&mut self, wish: Wish) {
        self.transact.wishes.push_back(wish);
        self.shard.stats.token_waiting.set(self.transact.wishes.len() as u64);
        self.ask_if_wanted();
    }

    /// Asks for the token if anything wants it and it was not asked for.
    fn ask_if_wanted(&mut self) {
        if !self.transact.is_token_ours && !self.transact.wishes.is_empty() {
            self.transact.is_token_ours = true;
            let shard = self.shard.index;
            self.send(TOKEN_SHARD, Message::Token(TokenMessage::Ask { shard }));
        }
    }

    /// What held the token on this shard needs it no more: it is for the next that wants it here, or returned.
    pub(in crate::worker) fn return_token(&mut self) {
        if self.transact.token_uses < RUN_MAX && !self.transact.wishes.is_empty() {
            self.use_token(true);
            return;
        }
        self.transact.is_token_ours = !self.transact.wishes.is_empty();
        let again = self.transact.is_token_ours.then_some(self.shard.index);
        self.send(TOKEN_SHARD, Message::Token(TokenMessage::Return { again }));
    }

    /// Returns the token for a transaction whose plan has brought it here.
    pub(super) fn return_token_of_plan(&mut self) {
        self.send(TOKEN_SHARD, Message::Token(TokenMessage::Return { again: None }));
    }

    /// Handles a message about the token.
    pub(in crate::worker) fn handle_token(&mut self, message: TokenMessage) {
        let (next, was_held) = match message {
            TokenMessage::Ask { shard } => (self.transact.token.ask(shard), false),
            TokenMessage::Return { again } => (self.transact.token.give_back(again), true),
            TokenMessage::Granted { was_held } => {
                self.transact.token_uses = 0;
                self.use_token(was_held);
                return;
            }
        };
        if let Some(shard) = next {
            self.send(shard, Message::Token(TokenMessage::Granted { was_held }));
        }
    }

    /// This shard has the token, for what has wanted it first. `was_held`: it was another's when that asked.
    fn use_token(&mut self, was_held: bool) {
        let wish = self.transact.wishes.pop_front();
        self.shard.stats.token_waiting.set(self.transact.wishes.len() as u64);
        self.transact.token_uses += 1;
        match wish {
            // All that wanted it was refused meanwhile.
            None => self.return_token(),
            Some(Wish::Plan(mut plan)) => {
                // It takes the token along.
                plan.has_token = true;
                self.send(usize::from(plan.shards[plan.first]), Message::Txn(TxnMessage::Lock(plan)));
                self.transact.is_token_ours = false;
                self.ask_if_wanted();
            }
            Some(Wish::Unit(lock_request)) => {
                self.transact.units_with_token.insert(lock_request);
                if self.shard.locks.admit_with_token(lock_request, &mut self.transact.granted) {
                    self.transact.granted.push(lock_request);
                }
                self.resume_granted();
            }
            Some(Wish::Start(start)) => self.start_wide(*start, was_held),
            Some(Wish::Program(command, since_ticks)) => {
                self.start_wide_unit(command, since_ticks, was_held);
            }
        }
    }
}
