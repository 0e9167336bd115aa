//! What a shard does as a participant of transactions: it grants locks in order, does its share of each stage, and
//! releases the locks.

use super::super::Worker;
use super::super::exec::ExecCaller;
use super::super::run::Invocation;
use super::{ParkedCommand, ParkedQueue, Waiter};
use crate::client::ClientId;
use crate::pubsub::OpenMessages;
use crate::shard::effects::PieceId;
use crate::shard::lock::programs::Grant;
use crate::shard::lock::{LockRequestId, LockSet};
use crate::shard::message::Message;
use crate::shard::txn::{
    CallOf, CheckIn, CheckOut, CheckedOutEntries, LockPoint, Outcome, ShardBatch, TxnId, TxnMessage, Work,
};
use std::sync::atomic::{Ordering, fence};

/// More keys than this are not prefetched: the first ones would be evicted from the caches again before their look-up.
const FETCHED_KEYS_MAX: usize = 128;

impl Worker {
    /// Queues a command behind the locks on its keys.
    pub(in crate::worker) fn park(&mut self, locks: LockSet, command: ParkedCommand) {
        self.wait(locks, command.call.client, Waiter::Command(Box::new(command)));
    }

    /// Queues an EXEC behind the locks on its keys.
    pub(in crate::worker) fn park_queue(&mut self, locks: LockSet, parked: ParkedQueue) {
        self.wait(locks, parked.call.client, Waiter::Queue(Box::new(parked)));
    }

    fn wait(&mut self, locks: LockSet, client: ClientId, waiter: Waiter) {
        // What clients are told of it comes behind what they are told of earlier ones.
        let in_turn = self.is_observed();
        let (lock_request, grant) = self.shard.locks.request_by_unit(locks, client, in_turn);
        self.shard.stats.lock_waits.add(1);
        self.transact.waiting.insert(lock_request, (waiter, self.time.ticks));
        // It may have been parked only because others wait outside the lines.
        if grant == Grant::Now {
            self.transact.granted.push(lock_request);
            self.resume_granted();
        }
    }

    /// The lock point is reached: does this shard's share of the first stage, or, if the transaction must not run,
    /// releases the locks.
    pub(super) fn go(&mut self, id: TxnId, lock_point: LockPoint, pieces: u32) -> Outcome {
        let held = self.transact.held.get_mut(&id).expect("Go is sent after all locks were granted");
        held.pieces = pieces;
        let watcher = held.watcher.take().filter(|_| lock_point != LockPoint::UsersChanged);
        let work = std::mem::replace(&mut held.work, Work::Nothing);
        let keeps_locks = held.keeps_locks;
        if let Some(client) = watcher {
            self.shard.observers.change_watch(|watch| watch.remove(client));
        }
        let outcome = match lock_point {
            LockPoint::Run => return self.step(id, work, keeps_locks),
            LockPoint::Refused => Outcome::Refused,
            LockPoint::UsersChanged => Outcome::UsersChanged,
        };
        self.release_participant(id);
        outcome
    }

    /// Does this shard's share of a stage.
    pub(super) fn step(&mut self, id: TxnId, work: Work, keeps_locks: bool) -> Outcome {
        let outcome = match work {
            Work::Nothing => Outcome::Nothing,
            Work::Run(list) => Outcome::Ran(self.run_list(id, list)),
            Work::CheckOut(check_out) => {
                let CheckOut { keys, list } = *check_out;
                let ran = list.map(|list| self.run_list(id, list));
                let entries = self.shard.check_out(&keys);
                let held = self.transact.held.get_mut(&id).expect("checked-out keys are locked");
                let (pieces, call) = (held.pieces, held.call);
                match call.filter(|call| call.stays) {
                    None => held.checked_out.extend(keys),
                    Some(call) => {
                        // They come back to the wide transaction.
                        self.release_participant(id);
                        let wide = self.transact.held.get_mut(&call.txn);
                        wide.expect("it holds its locks to its end").checked_out.extend(keys);
                    }
                }
                return Outcome::Entries(Box::new(CheckedOutEntries { entries, ran, pieces }));
            }
        };
        if !keeps_locks {
            self.release_participant(id);
        }
        outcome
    }

    /// Runs this shard's commands of a stage, under the locks of their transaction.
    fn run_list(&mut self, id: TxnId, mut list: Box<ShardBatch>) -> Box<ShardBatch> {
        let held = self.transact.held.get(&id).expect("a transaction that runs holds its locks");
        let (is_recorded, call) = (held.pieces != 0, held.call);
        self.shard.running = Some(held.lock_request);
        match call {
            Some(call) => self.run_call(call, id, &mut list),
            None => self.run_share(id, &mut list, is_recorded),
        }
        self.shard.running = None;
        list
    }

    /// Runs this shard's commands of a stage. `is_recorded`: their effects are recorded.
    pub(super) fn run_share(&mut self, id: TxnId, shard_batch: &mut ShardBatch, is_recorded: bool) {
        if is_recorded {
            self.resume_piece(id, false);
        }
        self.run_shard_batch(id, shard_batch);
        if is_recorded {
            self.shard.effects.suspend_piece();
        }
    }

    /// Runs the commands of a shard batch. They are counted at home, as a command over several shards counts once.
    pub(super) fn run_shard_batch(&mut self, id: TxnId, shard_batch: &mut ShardBatch) {
        let are_fetched = shard_batch.hashes.len() <= FETCHED_KEYS_MAX;
        if are_fetched {
            self.shard.prefetch(shard_batch.look_ups());
        }
        let conn = self.local_caller(id);
        let ShardBatch { queue, hashes, replies, ran, closed_by, .. } = shard_batch;
        let mut hashes = if are_fetched { &hashes[..] } else { &[] };
        let is_unit = self.shard.begin_publishing();
        // Commands that take constant time are timed together, as on the fast path; those from here on have not been.
        let mut timed = ran.len();
        for (queued, args) in queue.iter() {
            let entry = self.table.entry(queued.call.command);
            if !entry.row.is_constant_time {
                self.share_time(&mut ran[timed..]);
                timed = ran.len();
            }
            let fetched = hashes.split_off(..queued.hash_count as usize).unwrap_or_default();
            self.shard.effects.set_order(queued.place);
            let command = Invocation::new(entry, &queued.call, args, conn);
            let command = Invocation { fetched, is_counted: false, ..command };
            self.run_for_client_or_master(&command, replies);
            if self.shard.has_flushed_all {
                self.end_flush();
            }
            ran.push((replies.len(), 0));
            if !entry.row.is_constant_time {
                self.share_time(&mut ran[timed..]);
                timed = ran.len();
            }
            if entry.row.is_over_session()
                && closed_by.is_none()
                && conn.is_some_and(|at| self.is_closing(at))
            {
                *closed_by = Some(queued.place);
            }
        }
        self.share_time(&mut ran[timed..]);
        if is_unit {
            self.shard.end_publishing();
        }
    }

    /// Charges the time since the clock was read to these commands, each the mean. `ran`: see [`ShardBatch`].
    fn share_time(&mut self, ran: &mut [(usize, u64)]) {
        if ran.is_empty() {
            return;
        }
        let nanos = self.time.take_nanos() / ran.len() as u64;
        ran.iter_mut().for_each(|(_, of_command)| *of_command = nanos);
    }

    /// Puts checked-out entries back.
    pub(super) fn check_in(&mut self, returned: CheckIn) {
        let CheckIn { id, entries, events, wait, keeps_locks } = returned;
        let held = self.transact.held.get_mut(&id).expect("a transaction that checks in holds its locks");
        let keys = std::mem::take(&mut held.checked_out);
        let (lock_request, offer) = (held.lock_request, held.offer);
        self.shard.running = Some(lock_request);
        self.shard.check_in(&keys, entries, &events);
        self.shard.running = None;
        if !events.is_empty() {
            self.publish_handoffs();
            fence(Ordering::Release);
            self.shard.stats.check_ins_taken.add(1);
        }
        if let Some(wait) = wait {
            let (id, wait) = *wait;
            self.shard.wait(id, wait);
        }
        if let Some(offer) = offer {
            self.take_offer_back(offer, lock_request);
        }
        if keeps_locks {
            self.resume_next_call(id);
        } else {
            self.release_participant(id);
        }
    }

    /// From here on, effects are recorded in this shard's piece of the transaction's effects.
    pub(in crate::worker) fn resume_piece(&mut self, txn: TxnId, over_checked_out: bool) {
        let changes = self.shard.stats.dirty.get();
        self.shard.effects.resume_piece(PieceId { txn, over_checked_out }, changes);
    }

    /// Sends the outcome of this shard's share home.
    pub(super) fn done(&mut self, id: TxnId, outcome: Outcome) {
        let shard = self.shard.index;
        if id.home as usize == shard {
            self.collect(id, shard, outcome);
        } else {
            self.send(id.home as usize, Message::Txn(TxnMessage::Done { id, shard, outcome }));
        }
    }

    /// Runs this shard's share of a call.
    fn run_call(&mut self, call: CallOf, id: TxnId, list: &mut ShardBatch) {
        let now_ms = self.begin_effects_of_call(call, false);
        self.shard.resume_publishing(OpenMessages::default());
        self.run_shard_batch(id, list);
        list.messages = self.shard.suspend_publishing();
        self.end_effects_of_call(call, now_ms);
    }

    /// Releases this shard's locks: it has no more work for the transaction.
    pub(super) fn release_participant(&mut self, id: TxnId) {
        let held = self.transact.held.remove(&id).expect("only granted locks are released");
        if let Some(call) = held.call {
            self.end_call_here(call);
            return;
        }
        if held.pieces != 0 {
            self.end_piece(PieceId { txn: id, over_checked_out: false }, held.pieces);
        }
        let held_nanos = self.time.nanos(self.time.now_ticks().saturating_sub(held.granted_at_ticks));
        self.shard.stats.lock_held_max_nanos.max(held_nanos);
        self.release(held.lock_request);
    }

    /// Releases locks, and resumes the waiters that are granted theirs.
    pub(in crate::worker) fn release(&mut self, lock_request: LockRequestId) {
        self.shard.locks.release(lock_request, &mut self.transact.granted);
        self.resume_granted();
    }

    /// Resumes the waiters that were granted their locks. Those may release them at once, and so on without bound:
    /// waiters that are granted in a nested call are resumed by the outermost one.
    pub(super) fn resume_granted(&mut self) {
        if std::mem::replace(&mut self.transact.is_releasing, true) {
            return;
        }
        let mut next = 0;
        loop {
            self.take_lock_events();
            let Some(&lock_request) = self.transact.granted.get(next) else { break };
            next += 1;
            // What ran before may have changed keys that clients are blocked on.
            self.serve_due_first();
            let Some((waiter, since_ticks)) = self.transact.waiting.remove(&lock_request) else {
                if !self.program_is_granted(lock_request) {
                    self.shard.blocking.granted(lock_request);
                }
                continue;
            };
            let waited_nanos = self.time.nanos_since(since_ticks);
            self.shard.stats.lock_wait_nanos.add(waited_nanos);
            self.shard.stats.lock_wait_max_nanos.max(waited_nanos);
            if self.transact.units_with_token.remove(&lock_request) {
                self.return_token();
            }
            match waiter {
                Waiter::Plan(plan) => self.plan_granted(lock_request, plan),
                Waiter::Command(command) => {
                    if self.run_parked(lock_request, *command) {
                        self.release(lock_request);
                    }
                }
                Waiter::Queue(parked) => {
                    let ParkedQueue { home, reply_id, call, queue, watches, user } = *parked;
                    let queue = self.without_refused(&user, home, &call, queue);
                    let mut reply = self.pools.take_buffer();
                    self.shard.running = Some(lock_request);
                    let calls = queue.calls();
                    self.run_exec(&call, watches, queue.len(), calls, ExecCaller::Elsewhere, &mut reply);
                    self.shard.running = None;
                    self.answer(home, reply_id, &reply);
                    self.pools.give_buffer(reply);
                    self.release(lock_request);
                }
            }
        }
        self.transact.granted.clear();
        self.transact.is_releasing = false;
    }
}
