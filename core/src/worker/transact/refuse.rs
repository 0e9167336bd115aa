//! Refuses what waits for locks or for the token while a program is over busy-reply-threshold, as all that comes then is
//! refused. Commands, EXECs and programs that have begun are past that; what has not begun has done nothing yet.
//!
//! A transaction over several shards is refused by the shard on which it waits: that tells the other shards to forget it
//! ([`TxnMessage::Cancel`]), and home to reply ([`TxnMessage::Busy`]). Messages about it that are late (`GiveBack`, `Yield`)
//! find nothing and are void.

use super::super::Worker;
use super::{HeldParticipant, ParkedCommand, Waiter, WideStart, Wish};
use crate::client::ClientId;
use crate::command::admission::ProgramKind;
use crate::command::table::{CommandEntry, Scope, flag};
use crate::command::{Call, CommandError};
use crate::protocol::{Reply, Resp};
use crate::shard::lock::LockRequestId;
use crate::shard::message::{Message, ReplyId};
use crate::shard::txn::{PartOfWide, Plan, TxnId, TxnMessage};
use std::collections::VecDeque;

impl Worker {
    /// Replies BUSY to what waits on this shard. Called in each turn while a program of this kind is busy: the last of them were
    /// admitted, at their homes, before it was.
    pub(in crate::worker) fn refuse_waiting(&mut self, kind: ProgramKind) {
        let is_refused = |waiter: &Waiter| match waiter {
            Waiter::Plan(plan) => plan.is_refused_while_busy,
            Waiter::Command(command) => self.is_refused_while_busy(command),
            Waiter::Queue(_) => true,
        };
        let waiting = self.transact.waiting.iter().filter(|(_, (waiter, _))| is_refused(waiter));
        let mut waiting: Vec<LockRequestId> = waiting.map(|(&lock_request, _)| lock_request).collect();
        waiting.sort_unstable();
        for lock_request in waiting {
            // It may have been granted because another one was withdrawn.
            let Some((waiter, _)) = self.transact.waiting.remove(&lock_request) else { continue };
            self.shard.locks.withdraw(lock_request, &mut self.transact.granted);
            if self.transact.units_with_token.remove(&lock_request) {
                self.return_token();
            }
            self.give_up_token_of(lock_request);
            self.refuse_wish_of(lock_request);
            match waiter {
                Waiter::Plan(plan) => self.cancel_plan(&plan, kind),
                Waiter::Command(command) => self.refuse_command(&command, kind),
                Waiter::Queue(parked) => {
                    if parked.watches {
                        self.shard.observers.change_watch(|watch| watch.remove(parked.call.client));
                    }
                    let reply = self.busy_reply(self.table.entry(parked.call.command), true, kind);
                    self.answer(parked.home, parked.reply_id, &reply);
                }
            }
            self.resume_granted();
        }
        self.refuse_wishes(kind);
        self.deliver_local();
    }

    /// A wide unit that holds the token for these locks does not start.
    pub(in crate::worker) fn give_up_token_of(&mut self, lock_request: LockRequestId) {
        if self.transact.take_program_with_token(lock_request) {
            self.return_token();
        }
    }

    fn is_refused_while_busy(&self, command: &ParkedCommand) -> bool {
        !self.table.entry(command.call.command).row.has(flag::ALLOW_BUSY)
    }

    /// What waits for the token outside the lines was refused, and wants it no more.
    fn refuse_wish_of(&mut self, lock_request: LockRequestId) {
        let is_its = |wish: &Wish| matches!(wish, Wish::Unit(waiting) if *waiting == lock_request);
        if let Some(at) = self.transact.wishes.iter().position(is_its) {
            self.transact.wishes.remove(at);
            self.shard.stats.token_waiting.set(self.transact.wishes.len() as u64);
        }
    }

    /// Refuses what waits for the token, and holds nothing.
    fn refuse_wishes(&mut self, kind: ProgramKind) {
        let wishes = std::mem::take(&mut self.transact.wishes);
        let is_refused = |wish: &Wish| match wish {
            Wish::Plan(plan) => plan.is_refused_while_busy,
            Wish::Start(_) => true,
            Wish::Program(command, _) => self.is_refused_while_busy(command),
            // It is in the lock table, and was refused there.
            Wish::Unit(_) => false,
        };
        let (refused, kept): (VecDeque<Wish>, VecDeque<Wish>) = wishes.into_iter().partition(is_refused);
        self.transact.wishes = kept;
        self.shard.stats.token_waiting.set(self.transact.wishes.len() as u64);
        for wish in refused {
            match wish {
                Wish::Plan(plan) => self.cancel_plan(&plan, kind),
                Wish::Start(start) => self.refuse_start(*start, kind),
                Wish::Program(command, _) => self.refuse_command(&command, kind),
                Wish::Unit(_) => unreachable!("it is not refused here"),
            }
        }
    }

    fn refuse_command(&mut self, command: &ParkedCommand, kind: ProgramKind) {
        let reply = self.busy_reply(self.table.entry(command.call.command), false, kind);
        self.answer(command.home, command.reply_id, &reply);
    }

    /// Refuses a wide transaction that has not sent its plan.
    fn refuse_start(&mut self, start: WideStart, kind: ProgramKind) {
        let WideStart { reply_id, start, watching, .. } = start;
        let Call { client, command, .. } = start.call;
        let is_exec = matches!(self.table.entry(command).row.scope, Scope::Exec);
        if is_exec {
            self.end_executing(reply_id);
            self.unwatch(client, &watching);
        }
        self.give_command_queue(start.multi);
        let reply = self.busy_reply(start.entry, is_exec, kind);
        match start.behind {
            None => self.fulfil(reply_id, &reply),
            Some(mut behind) => {
                behind.reply.extend_from_slice(&reply);
                self.run_serially(reply_id, behind);
            }
        }
    }

    /// Refuses a transaction whose plan is on this shard and waits.
    fn cancel_plan(&mut self, plan: &Plan, kind: ProgramKind) {
        let (id, client) = (plan.id, plan.client);
        for (participant, &shard) in plan.participants.iter().zip(&plan.shards) {
            match participant {
                None => self.send(usize::from(shard), Message::Txn(TxnMessage::Cancel { id, client })),
                Some(participant) if participant.watches => self.unwatch(client, &[shard]),
                Some(_) => {}
            }
        }
        // That of a wide transaction is home's.
        if plan.has_token && plan.wide == PartOfWide::No {
            self.return_token_of_plan();
        }
        self.send(id.home as usize, Message::Txn(TxnMessage::Busy { id, kind }));
    }

    /// A transaction was refused at another shard: releases the locks that it holds here.
    pub(super) fn cancel_participant(&mut self, id: TxnId, client: ClientId) {
        let watches = match self.transact.held.remove(&id) {
            Some(HeldParticipant { lock_request, watcher, .. }) => {
                self.release(lock_request);
                watcher.is_some()
            }
            None => self.transact.yielded.remove(&id).is_some_and(|participant| participant.watches),
        };
        if watches {
            self.shard.observers.change_watch(|watch| watch.remove(client));
        }
    }

    /// At home: a transaction was refused.
    pub(super) fn refuse_transaction(&mut self, id: TxnId, kind: ProgramKind) {
        let txn = self.transact.home.remove(&id.number).expect("it has not reached its lock point");
        self.refuse_wide(id);
        let mut txn = *txn;
        if txn.is_coalesced {
            self.fall_back_to_serial(txn);
            return;
        }
        let is_exec = txn.is_exec || !txn.blocks.is_empty();
        if std::mem::take(&mut txn.is_exec) {
            self.end_executing(txn.reply_id);
        }
        let wants_reply = self.wants_reply(&txn);
        txn.reply.clear();
        let error = self.busy_reply(txn.entry, is_exec, kind);
        if wants_reply {
            if let Some(block) = txn.blocks.first() {
                let mut reply = Reply::new(&mut txn.reply, Resp::V2);
                reply.ok();
                (0..block.len).for_each(|_| reply.simple("QUEUED"));
            }
            txn.reply.extend_from_slice(&error);
        }
        self.finish(id, Box::new(txn));
    }

    fn end_executing(&mut self, reply_id: ReplyId) {
        if let Some(at) = self.connection_of(reply_id) {
            self.set_executing(at, None);
        }
    }

    /// The reply to a command that is refused, which is counted. `is_exec`: it is an EXEC.
    fn busy_reply(&self, entry: &CommandEntry, is_exec: bool, kind: ProgramKind) -> Vec<u8> {
        let mut error = self.busy_error(kind);
        if is_exec {
            self.shard.stats.exec_aborted_by_error.add(1);
            let reason = "EXECABORT Transaction discarded because of: ";
            error = CommandError::quoting(reason, error.as_bytes(), "");
        }
        self.refused_reply(entry, &error)
    }
}
