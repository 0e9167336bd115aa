//! Wide transactions: those with a program that may touch keys which it has not declared. Why they cannot deadlock, and
//! what they look like to others, is described in [`crate::shard::token`].
//!
//! A wide transaction holds the token from before its first lock to its end. Its program runs at home. A command that it
//! calls runs there at once if all its keys are home's and free, or in the transaction's hand. Otherwise it is a *call*: a
//! transaction of one command, whose locks are added on each shard to those of the wide transaction. The program is
//! suspended until the reply is there. All locks are kept to the end ([`TxnMessage::End`]).

use super::super::Worker;
use super::super::connection::StallReason;
use super::super::program::program_name;
use super::super::run::{Invocation, ReplyTo};
use super::ParkedCommand;
use super::{HeldParticipant, HomeTxn, SerialFallback, Start, Waiter, Wish};
use crate::client::CommandQueue;
use crate::command::Call;
use crate::command::keys::KeyPositions;
use crate::command::placement::{Need, Placement};
use crate::command::queue::Queue;
use crate::command::route;
use crate::command::table::{CommandEntry, KeyspaceLock, Run, Scope, flag};
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::checkout::MovedEntry;
use crate::shard::effects::{PieceId, Readers};
use crate::shard::lock::programs::Grant;
use crate::shard::lock::{KeyLock, LockRequestId, LockSet};
use crate::shard::message::{Message, ReplyId};
use crate::shard::observe::CheckedOutEvent;
use crate::shard::program_stats::{ProgramCounts, ProgramName};
use crate::shard::slot::shard_of;
use crate::shard::txn::{
    CallOf, CheckIn, CheckedOutKey, Misplaced, PartOfWide, Participant, Plan, TxnId, TxnMessage, Work,
};
use crate::types::hashing::hash_key;
use crate::worker::program::Brought;
use smallvec::SmallVec;
use std::sync::atomic::{Ordering, fence};

/// The row under which keys are brought to a program.
const BRINGING_ROW: &[u8] = b"exists";

/// Home's side of a wide transaction.
pub(super) struct Wide {
    reply_id: ReplyId,
    /// The shards that hold locks for it: those that take part, and those of its calls.
    shards: SmallVec<[u16; 8]>,
    /// How many commands its programs have called.
    call_count: u32,
}

/// What is needed to start a wide transaction when the token is there.
pub(super) struct WideStart {
    pub(super) reply_id: ReplyId,
    pub(super) start: Start,
    pub(super) needs: Vec<Need>,
    pub(super) watching: SmallVec<[u16; 8]>,
    asked_at_ticks: u64,
}

/// Where a command runs that a program calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::worker) enum CallPlace {
    /// Its keys are here, and in the program's hand: it can run at once.
    Here,
    /// It was sent to where its keys are. [`Worker::program_called`] will have the reply.
    Elsewhere,
}

/// A program that calls a command: which transaction it belongs to, and as which of its commands.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct WideCaller {
    pub(in crate::worker) txn: TxnId,
    pub(in crate::worker) place: u32,
    /// The transaction's effects are recorded.
    pub(in crate::worker) is_recorded: bool,
    /// For whom the command leaves effects.
    pub(in crate::worker) readers: Readers,
    /// The program's time.
    pub(in crate::worker) now_ms: i64,
}

// At home.
impl Worker {
    /// Starts a program of a connection that may touch any key. The connection is stalled until it has ended.
    pub(in crate::worker) fn begin_wide(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
    ) {
        let start = self.wide_start(entry, call, args);
        self.begin(at, start, &[]);
    }

    fn wide_start(&mut self, entry: &'static CommandEntry, call: Call, args: Argv<'_>) -> Start {
        let mut multi = self.take_command_queue();
        multi.queue.push(call, 0, args);
        // Its keys are locked as it comes to them.
        multi.routes.add_check_out(args, &KeyPositions::new(), self.shards());
        Start { wide: PartOfWide::Beginning, ..Start::one(entry, call, multi) }
    }

    /// Sends a program home that has turned out to be wide: it has not run.
    pub(in crate::worker) fn send_to_place_again(
        &mut self,
        home: usize,
        reply_id: ReplyId,
        command: &Invocation<'_>,
    ) {
        if home == self.shard.index {
            self.stall_for_program(reply_id);
        }
        let misplaced = Misplaced { reply_id, call: *command.call, args: OwnedArgv::from_argv(command.args) };
        self.send(home, Message::Txn(TxnMessage::PlaceAgain(Box::new(misplaced))));
    }

    /// Starts a program as a wide one. The connection that waits for its reply executes no further requests until that is
    /// there.
    pub(super) fn place_again(&mut self, misplaced: Misplaced) {
        let Misplaced { reply_id, call, args } = misplaced;
        self.stall_for_program(reply_id);
        let entry = self.table.entry(call.command);
        self.begin_wide_for(reply_id, entry, call, args.as_argv(), None);
    }

    /// Starts a program as a wide one, whose connection is stalled already. `behind`: what runs after it.
    pub(super) fn begin_wide_for(
        &mut self,
        reply_id: ReplyId,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
        behind: Option<Box<SerialFallback>>,
    ) {
        let start = Start { behind, ..self.wide_start(entry, call, args) };
        let needs = start.multi.routes.needs(self.table, &start.multi.queue, self.shard.shard_count);
        self.await_token(reply_id, start, needs, &[]);
    }

    /// Starts a task, as a wide program whose reply goes to `nobody`.
    pub(in crate::worker) fn begin_task(
        &mut self,
        nobody: ReplyId,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
    ) {
        let mut multi = self.take_command_queue();
        multi.queue.push(call, 0, args);
        multi.routes.add_check_out(args, &KeyPositions::new(), self.shards());
        let needs = multi.routes.needs(self.table, &multi.queue, self.shard.shard_count);
        let start = Start { wide: PartOfWide::Beginning, ..Start::one(entry, call, multi) };
        self.await_token(nobody, start, needs, &[]);
        self.deliver_local();
    }

    /// Has a wide transaction start as soon as it has the token.
    pub(super) fn await_token(
        &mut self,
        reply_id: ReplyId,
        start: Start,
        mut needs: Vec<Need>,
        watching: &[u16],
    ) {
        // Home holds a lock, if only on no key, as long as the transaction lasts. So a reader of the effects attaches
        // before all of its writes or after them.
        needs[self.shard.index].takes_part = true;
        let watching = SmallVec::from_slice(watching);
        let asked_at_ticks = self.time.ticks;
        let start = WideStart { reply_id, start, needs, watching, asked_at_ticks };
        self.ask_for_token(Wish::Start(Box::new(start)));
    }

    /// The token is there. `was_held`: it was another's when it was asked for.
    pub(super) fn start_wide(&mut self, start: WideStart, was_held: bool) {
        let WideStart { reply_id, start, needs, watching, asked_at_ticks } = start;
        let name = self.first_program(&start.multi.queue);
        if let Some(name) = name.clone().filter(|_| was_held) {
            let token_wait_nanos = self.time.nanos_since(asked_at_ticks);
            let counts = ProgramCounts { token_waits: 1, token_wait_nanos, ..ProgramCounts::default() };
            self.shard.stats.programs.count(name, &counts);
        }
        self.shard.stats.programs.set_token_holder(name);
        let takes_part = |shard: &usize| needs[*shard].takes_part;
        let shards = (0..needs.len()).filter(takes_part).map(|shard| shard as u16).collect();
        let id = self.send_plan(reply_id, start, needs, &watching, None);
        self.transact.wide.insert(id, Wide { reply_id, shards, call_count: 0 });
    }

    /// What the first program of a queue is called.
    pub(super) fn first_program(&self, queue: &Queue) -> Option<ProgramName> {
        queue.iter().find_map(|(queued, args)| {
            let entry = self.table.entry(queued.call.command);
            matches!(entry.row.run, Run::Program(_)).then(|| program_name(entry, args))
        })
    }

    /// A program of a wide transaction calls a command, which is over keys. Locks its keys and returns [`CallPlace::Here`] if
    /// that is possible at once, or sends it to where its keys are.
    pub(in crate::worker) fn place_call(
        &mut self,
        caller: WideCaller,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
    ) -> CallPlace {
        self.count_call_of(caller.txn).expect("it lasts as long as its program");
        let mut multi = self.take_command_queue();
        let placement = multi.routes.add(entry, args, None, self.shards());
        let walks = matches!(route::scope(entry.row, args, self.shard.shard_count), Scope::Walk { .. });
        let needs_all = walks || entry.row.has(flag::TOUCHES_ARBITRARY_KEYS) || entry.row.derives_keys(args);
        let is_here = match placement {
            Placement::Anywhere | Placement::Session | Placement::SessionPrecomputed => true,
            Placement::One(_) | Placement::CheckOut | Placement::Split
                if !entry.row.has(flag::TOUCHES_ARBITRARY_KEYS)
                    && !entry.row.derives_keys(args)
                    && self.are_brought(&multi, args, call.db, entry) =>
            {
                let home = self.shard.index as u16;
                let keys = multi.routes.keys(0).iter().filter(|key| key.shard == home);
                let locks = keys.map(|key| KeyLock { id: key.hash, exclusive: true }).collect();
                self.take_in_hand(caller.txn, locks)
            }
            Placement::One(shard) if shard == self.shard.index => {
                let keys = multi.routes.keys(0).iter();
                let locks = keys.map(|key| KeyLock { id: key.hash, exclusive: true }).collect();
                !needs_all && self.take_in_hand(caller.txn, locks)
            }
            Placement::Every(KeyspaceLock::None) => {
                multi.routes.clear();
                multi.routes.add_every(KeyspaceLock::All);
                false
            }
            Placement::One(_)
            | Placement::Every(KeyspaceLock::All)
            | Placement::Split
            | Placement::CheckOut
            | Placement::CheckOutDerived => false,
        };
        if is_here {
            self.give_command_queue(multi);
            return CallPlace::Here;
        }
        multi.queue.push_args(call, caller.place, args);
        if placement == Placement::Split && self.is_observed() {
            // What it publishes is in the order of its changes.
            let CommandQueue { queue, routes, .. } = &mut *multi;
            routes.check_out_all(queue, self.shard.shard_count);
        }
        self.give_brought_back(caller.txn);
        self.send_call(caller, entry, call, multi, false);
        CallPlace::Elsewhere
    }

    /// Sends a call to the shards of its keys. `stays`: see [`CallOf`].
    fn send_call(
        &mut self,
        caller: WideCaller,
        entry: &'static CommandEntry,
        call: Call,
        multi: Box<CommandQueue>,
        stays: bool,
    ) {
        let mut needs = multi.routes.needs(self.table, &multi.queue, self.shard.shard_count);
        needs.iter_mut().for_each(Need::make_exclusive);
        if let Placement::One(shard) = multi.routes.placement(0) {
            let walks = matches!(
                route::scope(entry.row, multi.queue.args(0), self.shard.shard_count),
                Scope::Walk { .. }
            );
            needs[shard].whole |= walks;
        }
        let wide = self.transact.wide.get_mut(&caller.txn).expect("it lasts as long as its program");
        if stays {
            wide.call_count += 1;
        }
        for shard in (0..needs.len()).filter(|&shard| needs[shard].takes_part).map(|shard| shard as u16) {
            if !wide.shards.contains(&shard) {
                wide.shards.push(shard);
            }
        }
        let reply_id = wide.reply_id;
        let WideCaller { txn, is_recorded, readers, now_ms, place: _ } = caller;
        let number = wide.call_count;
        let wide = PartOfWide::Call(CallOf { txn, number, is_recorded, readers, stays, now_ms });
        let start = Start { wide, counted: 1, ..Start::one(entry, call, multi) };
        self.send_plan(reply_id, start, needs, &[], None);
    }

    /// Has a key of another shard here for the running program: see [`ProgramCtx::bring`]. Returns whether the program has to
    /// be suspended until it is.
    ///
    /// [`ProgramCtx::bring`]: crate::worker::program::ProgramCtx::bring
    pub(in crate::worker) fn bring_key(&mut self, db: u32, key: &[u8]) -> bool {
        self.bring_keys(db, &[key])
    }

    /// The same of several keys.
    pub(in crate::worker) fn bring_keys(&mut self, db: u32, keys: &[&[u8]]) -> bool {
        let Some(caller) = self.wide_caller() else { return false };
        let mut missing = false;
        for &key in keys {
            let hash = hash_key(key);
            missing |= if shard_of(key, self.shard.shard_count) == self.shard.index {
                let lock = KeyLock { id: hash, exclusive: true };
                !self.take_in_hand(caller.txn, SmallVec::from_slice(&[lock]))
            } else {
                !self.has_brought(db, hash, key)
            };
        }
        if !missing {
            return false;
        }
        // Those that are here already go back first, and come again with the new ones: a shard hands over what it does only
        // while nothing of it is away. Those of another database come when they are used again.
        let mut all: Vec<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
        for Brought { keys: brought, .. } in self.brought().into_iter().flatten() {
            all.extend(brought.iter().filter(|(other, ..)| *other == db).map(|(_, _, key)| key.clone()));
        }
        all.sort_unstable();
        all.dedup();
        self.give_brought_back(caller.txn);
        self.send_for(caller, db, &all);
        self.await_call();
        true
    }

    /// The number of the running program's next call, if its calls have numbers.
    pub(in crate::worker) fn next_call_number(&mut self) -> Option<u32> {
        let caller = self.wide_caller()?;
        self.count_call_of(caller.txn)
    }

    /// The same of a program of this transaction: `None` if that is not wide.
    pub(in crate::worker) fn count_call_of(&mut self, txn: TxnId) -> Option<u32> {
        let wide = self.transact.wide.get_mut(&txn)?;
        wide.call_count += 1;
        let number = wide.call_count;
        self.shard.effects.set_call_number(number);
        Some(number)
    }

    /// Whether all keys of a command that are not this shard's were brought to the running program, and there are any.
    fn are_brought(&mut self, multi: &CommandQueue, args: Argv<'_>, db: u32, entry: &CommandEntry) -> bool {
        let home = self.shard.index as u16;
        if self.brought().is_none_or(|brought| brought.is_empty()) || entry.row.other_db.is_some() {
            return false;
        }
        let db_count = self.shard.db_count();
        multi.routes.keys(0).iter().filter(|key| key.shard != home).all(|key| {
            let at = key.arg as usize;
            let db = (entry.row.key_db)(args, at, db, db_count);
            self.has_brought(db, key.hash, args.arg(at))
        })
    }

    /// Whether a key of another shard was brought to the running program.
    fn has_brought(&mut self, db: u32, hash: u64, key: &[u8]) -> bool {
        let is_it = |other: &CheckedOutKey| other.0 == db && other.1 == hash && other.2 == key;
        self.brought().is_some_and(|brought| brought.iter().any(|brought| brought.keys.iter().any(is_it)))
    }

    /// Sends a call that brings keys here.
    fn send_for(&mut self, caller: WideCaller, db: u32, keys: &[Vec<u8>]) {
        // Any row over several keys will do: it does not run.
        let entry =
            self.table.by_full_name(BRINGING_ROW).expect("it is one of ours, and nobody renames it away");
        let call = Call { command: entry.id, db, in_exec: true, ..Call::default() };
        let mut multi = self.take_command_queue();
        let words: Vec<&[u8]> = std::iter::once(BRINGING_ROW).chain(keys.iter().map(Vec::as_slice)).collect();
        let args = OwnedArgv::from_slices(&words);
        let positions: KeyPositions = (1..args.len()).map(|at| (at, 0)).collect();
        multi.queue.push_args(call, caller.place, args.as_argv());
        multi.routes.add_check_out(args.as_argv(), &positions, self.shards());
        self.send_call(caller, entry, call, multi, true);
    }

    /// The entries that a program has sent for are here: it keeps them. Those of this shard stay in the tables.
    pub(super) fn keep_brought(
        &mut self,
        call: CallOf,
        shards: &[u16],
        keys: Vec<Option<Vec<CheckedOutKey>>>,
        entries: Vec<Vec<Option<MovedEntry>>>,
    ) {
        let home = self.shard.index;
        let places = shards.iter().map(|&shard| usize::from(shard)).zip(keys).zip(entries);
        let brought = places.filter(|((shard, keys), _)| *shard != home && keys.is_some());
        let brought = brought.map(|((shard, keys), entries)| {
            let keys = keys.expect("the others are filtered out");
            Brought { shard, keys, entries }
        });
        let brought = brought.collect();
        self.program_got(call.txn, brought);
    }

    /// The running program calls a command on other shards: what was brought to it goes back there first.
    fn give_brought_back(&mut self, txn: TxnId) {
        let Some(brought) = self.brought().map(std::mem::take).filter(|brought| !brought.is_empty()) else {
            return;
        };
        let with_entries = |brought: Brought| {
            let entries = self.shard.send_checked_out_back(&brought.keys);
            Brought { entries, ..brought }
        };
        let brought: Vec<Brought> = brought.into_iter().map(with_entries).collect();
        let events = self.shard.observers.end_checked_out();
        let shard_count = self.shard.shard_count;
        let goes = |event: &CheckedOutEvent| {
            let shard = shard_of(&event.key, shard_count);
            brought.iter().any(|brought| brought.shard == shard)
        };
        let (going, staying): (Vec<_>, Vec<_>) = events.into_iter().partition(goes);
        self.send_brought_back(txn, brought, &going);
        self.shard.observers.begin_checked_out(staying);
    }

    /// Sends brought keys back to their shards, which keep them locked for the wide transaction.
    pub(super) fn send_brought_back(&mut self, id: TxnId, brought: Vec<Brought>, events: &[CheckedOutEvent]) {
        for Brought { shard, entries, .. } in brought {
            let is_there = |event: &&CheckedOutEvent| shard_of(&event.key, self.shard.shard_count) == shard;
            let events: Vec<CheckedOutEvent> = events.iter().filter(is_there).cloned().collect();
            if !events.is_empty() {
                self.shard.stats.check_ins_sent.add(1);
            }
            let returned = CheckIn { id, entries, events, wait: None, keeps_locks: true };
            self.send(shard, Message::Txn(TxnMessage::CheckIn(Box::new(returned))));
        }
    }

    /// Locks keys of this shard for a wide transaction of it, if they are free.
    fn take_in_hand(&mut self, txn: TxnId, mut keys: SmallVec<[KeyLock; 4]>) -> bool {
        let lock_request = self.transact.held[&txn].lock_request;
        keys.retain(|key| !self.shard.locks.is_in_hand(lock_request, *key));
        if keys.is_empty() {
            return true;
        }
        if self.shard.locks.conflicts(&keys) {
            return false;
        }
        self.extend_free(lock_request, LockSet::Keys(keys));
        true
    }

    /// Adds keys that are free to what a program holds.
    pub(in crate::worker) fn extend_free(&mut self, lock_request: LockRequestId, keys: LockSet) {
        let is_granted = self.shard.locks.extend_first(lock_request, keys, &mut self.transact.granted);
        debug_assert!(is_granted, "the keys are free");
    }

    /// Has a suspended program, which holds the token, wait for further locks: [`Worker::program_is_granted`].
    pub(in crate::worker) fn extend_waiting(&mut self, lock_request: LockRequestId, locks: LockSet) {
        let granted = &mut self.transact.granted;
        if self.shard.locks.extend_first(lock_request, locks, granted) {
            granted.push(lock_request);
        }
        self.resume_granted();
    }

    /// A call has ended.
    pub(super) fn end_call(&mut self, call: CallOf, txn: HomeTxn) {
        self.give_command_queue(txn.multi);
        self.program_called(call.txn, txn.reply, txn.messages);
    }

    /// A wide transaction has ended: releases its locks on all shards, and returns the token.
    pub(super) fn end_wide(&mut self, id: TxnId, pieces: u32) {
        let Some(wide) = self.transact.wide.remove(&id) else { return };
        let is_recorded = pieces != 0;
        let pieces = if is_recorded { wide.shards.len() as u32 + 1 } else { 0 };
        if is_recorded {
            self.end_piece(PieceId { txn: id, over_checked_out: true }, pieces);
        }
        for shard in wide.shards {
            self.shard.stats.check_ins_sent.add(1);
            self.send(usize::from(shard), Message::Txn(TxnMessage::End { id, pieces }));
        }
        self.shard.stats.programs.set_token_holder(None);
        self.return_token();
    }

    /// A wide transaction may not run: no shard has done anything.
    pub(super) fn refuse_wide(&mut self, id: TxnId) {
        if self.transact.wide.remove(&id).is_some() {
            self.shard.stats.programs.set_token_holder(None);
            self.return_token();
        }
    }
}

// On a server of one shard.
impl Worker {
    /// Whether a wide unit that comes now has to wait for the token: if not, it may begin without.
    #[inline]
    pub(in crate::worker) fn must_await_token(&self) -> bool {
        !self.shard.locks.is_empty() || self.transact.is_token_wanted()
    }

    /// A wide unit finds locks on the shard: it waits for the token, and then for its declared keys. Its connection is
    /// stalled until it has ended.
    pub(in crate::worker) fn await_token_as_unit(&mut self, command: &Invocation<'_>, to: ReplyTo) {
        let (home, reply_id) = self.place_of_reply(command, to);
        self.stall_for_program(reply_id);
        let args = OwnedArgv::from_argv(command.args);
        let user = self.globals.acl.user_of(command.call);
        let parked = ParkedCommand { home, reply_id, call: *command.call, args, user };
        self.shard.stats.lock_waits.add(1);
        self.ask_for_token(Wish::Program(Box::new(parked), self.time.ticks));
    }

    /// The connection that waits for the reply to a wide program executes no further requests until that is there: the
    /// program may come to their keys.
    pub(in crate::worker) fn stall_for_program(&mut self, reply_id: ReplyId) {
        if let Some(at) = self.connection_of(reply_id)
            && let Some(connection) = self.connections[at].as_deref_mut()
        {
            connection.stall.get_or_insert(StallReason::Transaction);
        }
    }

    /// The token is there.
    pub(super) fn start_wide_unit(&mut self, command: Box<ParkedCommand>, since_ticks: u64, was_held: bool) {
        let entry = self.table.entry(command.call.command);
        let args = command.args.as_argv();
        let name = program_name(entry, args);
        if was_held {
            let token_wait_nanos = self.time.nanos_since(since_ticks);
            let counts = ProgramCounts { token_waits: 1, token_wait_nanos, ..ProgramCounts::default() };
            self.shard.stats.programs.count(name.clone(), &counts);
        }
        self.shard.stats.programs.set_token_holder(Some(name));
        let locks = self.locks_of_unit(entry, args);
        let granted = &mut self.transact.granted;
        let (lock_request, is_granted) = self.shard.locks.request_first(locks, granted);
        self.transact.waiting.insert(lock_request, (Waiter::Command(command), since_ticks));
        self.transact.program_with_token = Some(lock_request);
        if is_granted {
            self.transact.granted.push(lock_request);
        }
        self.resume_granted();
    }
}

// At the shards of the keys.
impl Worker {
    /// The plan of a call arrives at this shard: adds its locks to those of the wide transaction.
    pub(super) fn lock_for_call(&mut self, mut plan: Box<Plan>, mut participant: Participant, call: CallOf) {
        // The entries that the last call or stage has checked out come back from home, and the plan may come from another
        // shard.
        let waits_for_entries =
            |held: &&mut HeldParticipant| held.has_open_call || !held.checked_out.is_empty();
        if let Some(held) = self.transact.held.get_mut(&call.txn).filter(waits_for_entries) {
            let at = plan.next;
            plan.participants[at] = Some(participant);
            held.next_call = Some(plan);
            return;
        }
        let locks = std::mem::replace(&mut participant.locks, LockSet::Whole);
        let granted = &mut self.transact.granted;
        let (lock_request, is_granted) = match self.transact.held.get(&call.txn) {
            Some(held) => {
                let lock_request = held.lock_request;
                (lock_request, self.shard.locks.extend_first(lock_request, locks, granted))
            }
            None => self.shard.locks.request_first(locks, granted),
        };
        if is_granted {
            self.participant_granted(lock_request, plan, participant);
        } else {
            self.plan_waits(lock_request, plan, participant, Grant::Later);
        }
        self.resume_granted();
    }

    /// The locks of a call are granted here: they are the wide transaction's.
    pub(super) fn hold_for_call(&mut self, lock_request: LockRequestId, call: CallOf) {
        let granted_at_ticks = self.time.ticks;
        let held = self.transact.held.entry(call.txn).or_insert_with(|| HeldParticipant {
            lock_request,
            granted_at_ticks,
            watcher: None,
            round: 0,
            work: Work::Nothing,
            keeps_locks: true,
            is_ahead: false,
            checked_out: Vec::new(),
            pieces: 0,
            offer: None,
            call: None,
            has_open_call: false,
            next_call: None,
        });
        held.has_open_call = true;
        self.transact.has_stepped = true;
    }

    /// A call has ended on this shard.
    pub(super) fn end_call_here(&mut self, call: CallOf) {
        let held = self.transact.held.get_mut(&call.txn).expect("it holds its locks to its end");
        held.has_open_call = false;
        self.resume_next_call(call.txn);
    }

    /// The entries of a transaction are back: a call that has come before them goes on.
    pub(super) fn resume_next_call(&mut self, id: TxnId) {
        let plan = self.transact.held.get_mut(&id).and_then(|held| held.next_call.take());
        if let Some(plan) = plan {
            self.send(self.shard.index, Message::Txn(TxnMessage::Lock(plan)));
        }
    }

    /// From here on, it is the time of a call, and effects are recorded for it: in this shard's piece of the wide transaction's
    /// effects, or in the piece of what home runs over checked-out entries. Returns this shard's time, for
    /// [`end_effects_of_call`](Self::end_effects_of_call).
    pub(super) fn begin_effects_of_call(&mut self, call: CallOf, over_checked_out: bool) -> i64 {
        let now_ms = self.shard.now_ms;
        self.shard.set_now(call.now_ms);
        if call.is_recorded {
            self.resume_piece(call.txn, over_checked_out);
            self.shard.effects.set_call_number(call.number);
        }
        self.shard.effects.record_for(call.readers);
        now_ms
    }

    pub(super) fn end_effects_of_call(&mut self, call: CallOf, now_ms: i64) {
        self.shard.set_now(now_ms);
        self.shard.effects.record_for(Readers::ALL);
        if call.is_recorded {
            self.shard.effects.suspend_piece();
        }
    }

    /// A wide transaction has ended.
    pub(super) fn end_participant(&mut self, id: TxnId, pieces: u32) {
        let held = self.transact.held.get_mut(&id).expect("it holds its locks to its end");
        held.pieces = pieces;
        self.publish_handoffs();
        self.release_participant(id);
        fence(Ordering::Release);
        self.shard.stats.check_ins_taken.add(1);
    }
}
