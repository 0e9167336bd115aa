//! Blocked clients: home's side of [`shard::blocking`](crate::shard::blocking), and the handoff of this shard's keys to
//! the clients blocked on them.

use super::Worker;
use super::connection::{Connection, StallReason};
use super::pipeline::Flow;
use super::program::{Hold, HoldEnd, KEY_WAITS, WaitForKeys};
use super::run::{Invocation, ReplyTo, Started};
use super::transact::ParkedCommand;
use crate::client::ClientId;
use crate::command::admission::Refusal;
use crate::command::error::code_of;
use crate::command::table::{CommandEntry, CommandId, flag};
use crate::command::{Call, CommandError, Ctx, keys};
use crate::protocol::reply::Reply;
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::blocking::{
    BlockRequest, NewWait, Next, OfferId, ReadReplies, TimeoutReply, Verdict, Wait, WaitId, WaitMessage,
};
use crate::shard::lock::{KeyLock, LockRequestId, LockSet};
use crate::shard::message::{Message, ReplyId};
use crate::shard::slot::shard_of;
use ahash::AHashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The reply to a blocking command that CLIENT UNBLOCK ... ERROR ends.
const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

/// The reply to blocking commands of clients of a master that becomes a replica.
const INSTANCE_CHANGED: &[u8] =
    b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n";

/// A blocking command of one of this shard's clients, from the call to the reply.
struct Blocked {
    entry: &'static CommandEntry,
    call: Call,
    reply_id: ReplyId,
    args: OwnedArgv,
    /// `None`: it has not run yet, or its outcome is not known yet.
    waiting: Option<Waiting>,
}

/// The wait of a blocking command that found nothing to take.
struct Waiting {
    /// The positions of the awaited keys among the arguments.
    keys: Range<u32>,
    deadline_ms: Option<i64>,
    on_timeout: TimeoutReply,
    /// The shards of these keys, on which it waits.
    shards: SmallVec<[usize; 2]>,
    /// An offer was accepted, and its outcome is not known yet.
    is_being_served: bool,
    /// Shards that have offered a key since then, and were told that the client is busy.
    turned_away: SmallVec<[usize; 2]>,
    /// It is a program that has ended and holds its client.
    hold: Option<Box<Hold>>,
}

/// The blocking commands of a shard's clients: each client has at most one.
#[derive(Default)]
pub(super) struct BlockedClients {
    by_connection: AHashMap<u32, Blocked>,
    /// (deadline, connection) of those that wait.
    deadlines: BTreeSet<(i64, u32)>,
    waiting_count: u64,
    /// How many of them [are being served](Waiting::is_being_served).
    served_count: u64,
}

impl BlockedClients {
    /// The earliest deadline, unix time in milliseconds.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|&(deadline_ms, _)| deadline_ms)
    }

    /// How many clients are blocked. Those that are being served are not any more for whoever counts: their replies are on
    /// their way.
    pub(super) fn waiting_count(&self) -> u64 {
        self.waiting_count - self.served_count
    }

    /// How many of them wait no longer than until some time.
    pub(super) fn deadline_count(&self) -> u64 {
        self.deadlines.len() as u64
    }

    fn get(&mut self, reply_id: ReplyId) -> Option<&mut Blocked> {
        self.by_connection.get_mut(&reply_id.conn).filter(|blocked| blocked.reply_id == reply_id)
    }
}

/// The outcome of a command that ran over checked-out entries.
pub(super) struct CheckedOutRun {
    pub(super) has_replied: bool,
    pub(super) waits: CheckedOutWaits,
}

/// Waits to be registered at the shards that own the checked-out keys, with the number of each shard.
#[derive(Default)]
pub(super) struct CheckedOutWaits(SmallVec<[(usize, NewWait); 2]>);

impl CheckedOutRun {
    fn without_waits(has_replied: bool) -> CheckedOutRun {
        CheckedOutRun { has_replied, waits: CheckedOutWaits::default() }
    }
}

impl CheckedOutWaits {
    /// Takes the wait for a shard.
    pub(super) fn take(&mut self, shard: usize) -> Option<NewWait> {
        let at = self.0.iter().position(|(other, _)| *other == shard)?;
        Some(self.0.swap_remove(at).1)
    }
}

// Clients that are held.
impl Worker {
    /// Blocks a client whose program has ended and holds it.
    pub(super) fn block_held(
        &mut self,
        reply_id: ReplyId,
        entry: &'static CommandEntry,
        call: Call,
        args: OwnedArgv,
        hold: Box<Hold>,
    ) {
        self.end_wait(reply_id.conn as usize);
        let args = hold.on.keys.as_ref().map_or(args, |keys| keys.args.clone());
        let keys = if hold.on.keys.is_some() { 1..args.len() as u32 } else { 0..0 };
        let ends_with_key = hold.on.keys.as_ref().is_some_and(|keys| keys.ends_with_key);
        self.stall_for_blocking(entry, call, reply_id, args.clone());
        let request = BlockRequest {
            keys: keys.clone(),
            deadline_ms: hold.on.deadline_ms,
            on_timeout: TimeoutReply::Null,
            args: None,
            ends_with_key,
        };
        let home = self.shard.index;
        self.record_wait(home, reply_id, request);
        let blocked = self.blocked.get(reply_id).expect("it was recorded just now");
        let waiting = blocked.waiting.as_mut().expect("it waits");
        waiting.hold = Some(hold);
        let shards = waiting.shards.clone();
        let call = Call { command: self.table.hidden(KEY_WAITS[0].name).id, ..call };
        let id = WaitId { home: home as u32, reply_id };
        for shard in shards {
            let is_there =
                |at: &u32| shard_of(args.as_argv().arg(*at as usize), self.shard.shard_count) == shard;
            let positions = keys.clone().filter(is_there).collect();
            let wait = Wait { call, args: args.clone(), positions, ends_with_key, is_tried: true };
            self.send(shard, Message::Wait(Box::new(WaitMessage::Register { new: Box::new((id, wait)) })));
        }
    }

    fn is_held(&mut self, reply_id: ReplyId) -> bool {
        let waiting = self.blocked.get(reply_id).and_then(|blocked| blocked.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.hold.is_some())
    }

    /// Takes a client's hold, whose end is decided. Nothing else ends the wait until the client has its reply.
    pub(super) fn take_hold(&mut self, reply_id: ReplyId) -> Option<(Box<Hold>, Call)> {
        let blocked = self.blocked.get(reply_id)?;
        let waiting = blocked.waiting.as_mut()?;
        let hold = waiting.hold.take()?;
        let was_being_served = std::mem::replace(&mut waiting.is_being_served, true);
        let (call, deadline_ms) = (blocked.call, waiting.deadline_ms);
        self.blocked.served_count += u64::from(!was_being_served);
        if let Some(deadline_ms) = deadline_ms {
            self.blocked.deadlines.remove(&(deadline_ms, reply_id.conn));
        }
        Some((hold, call))
    }
}

// From the call of a blocking command to its wait.
impl Worker {
    /// Sends a blocking command to `shard`, which owns its keys.
    pub(super) fn send_blocking(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
        shard: usize,
    ) -> Flow {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let reply_id = connection.await_reply(at);
        self.stall_for_blocking(entry, call, reply_id, OwnedArgv::from_argv(args));
        self.batch(shard, reply_id, &call, args);
        Flow::Stop
    }

    /// Stalls a connection until the reply to its blocking command comes, and records the command.
    pub(super) fn stall_for_blocking(
        &mut self,
        entry: &'static CommandEntry,
        call: Call,
        reply_id: ReplyId,
        args: OwnedArgv,
    ) {
        let connection =
            self.connections[reply_id.conn as usize].as_deref_mut().expect("its command is being executed");
        connection.stall = Some(StallReason::Blocking);
        let blocked = Blocked { entry, call, reply_id, args, waiting: None };
        let earlier = self.blocked.by_connection.insert(reply_id.conn, blocked);
        debug_assert!(earlier.is_none(), "a client is blocked in one command");
    }

    /// Registers the wait of a command on keys of this shard, and tells its home.
    pub(super) fn wait_here(
        &mut self,
        home: usize,
        reply_id: ReplyId,
        call: Call,
        args: Argv<'_>,
        mut request: BlockRequest,
    ) {
        let id = WaitId { home: home as u32, reply_id };
        // WAIT is blocked on no key.
        if !request.keys.is_empty() {
            let positions = request.keys.clone().collect();
            let args = request.args.take().unwrap_or_else(|| OwnedArgv::from_argv(args));
            let ends_with_key = request.ends_with_key;
            self.shard.wait(id, Wait { call, args, positions, ends_with_key, is_tried: false });
        }
        if home == self.shard.index {
            self.record_wait(home, reply_id, request);
            self.end_wait_of_master(reply_id);
        } else {
            self.send(home, Message::Wait(Box::new(WaitMessage::Waits { reply_id, request })));
        }
    }

    /// At home: a command waits at shard `from`; or, if its keys are on several shards, at all of these as soon as they
    /// have been told.
    fn record_wait(&mut self, from: usize, reply_id: ReplyId, request: BlockRequest) {
        let (index, shard_count) = (self.shard.index, self.shard.shard_count);
        let Some(blocked) = self.blocked.get(reply_id) else {
            // The client has disconnected.
            self.forget_wait(from, WaitId { home: index as u32, reply_id });
            return;
        };
        let args = blocked.args.as_argv();
        let mut shards: SmallVec<[usize; 2]> =
            request.keys.clone().map(|position| shard_of(args.arg(position as usize), shard_count)).collect();
        shards.sort_unstable();
        shards.dedup();
        let waits_for_replicas = request.on_timeout == TimeoutReply::Replicas;
        let replicas_wanted = waits_for_replicas.then(|| args.arg(1).to_vec());
        blocked.waiting = Some(Waiting {
            keys: request.keys,
            deadline_ms: request.deadline_ms,
            on_timeout: request.on_timeout,
            shards,
            is_being_served: false,
            turned_away: SmallVec::new(),
            hold: None,
        });
        self.blocked.waiting_count += 1;
        self.blocked.deadlines.extend(request.deadline_ms.map(|deadline_ms| (deadline_ms, reply_id.conn)));
        if let Some(wanted) = replicas_wanted {
            self.await_replicas(reply_id, &wanted);
        }
        let connection = self.connections[reply_id.conn as usize].as_deref_mut();
        let connection = connection.expect("the wait of a client that disconnects is removed");
        connection.stall = Some(StallReason::Blocked);
        if connection.peer.has_ended() || connection.receiving_paused {
            self.runnable.push(reply_id.conn);
        }
    }

    /// Runs a command over checked-out entries. A blocking command that finds nothing leaves waits for the shards that
    /// own the keys. With an `offer` it takes from the offered key only.
    pub(super) fn run_over_checked_out(
        &mut self,
        entry: &'static CommandEntry,
        call: &Call,
        argv: Argv<'_>,
        reply_id: ReplyId,
        offer: Option<OfferId>,
        reply: &mut Vec<u8>,
    ) -> CheckedOutRun {
        if let Some(offer) = offer {
            return CheckedOutRun::without_waits(self.run_offered(
                entry,
                call,
                argv,
                offer,
                Some(reply_id),
                reply,
            ));
        }
        let Some(mut request) = self.run(&Invocation::new(entry, call, argv, None), reply).waits else {
            return CheckedOutRun::without_waits(true);
        };
        let generation = self.connections[reply_id.conn as usize].as_deref().map(|c| c.conn.generation());
        if generation != Some(reply_id.generation) {
            return CheckedOutRun::without_waits(true);
        }
        if self.may_not_wait(entry) {
            self.begin_end_by_role(reply_id, entry.id);
            reply.extend_from_slice(INSTANCE_CHANGED);
            return CheckedOutRun::without_waits(true);
        }
        let home = self.shard.index;
        let id = WaitId { home: home as u32, reply_id };
        let keys = request.keys.clone();
        let ends_with_key = request.ends_with_key;
        let args = request.args.take().unwrap_or_else(|| OwnedArgv::from_argv(argv));
        self.stall_for_blocking(entry, *call, reply_id, args.clone());
        self.record_wait(home, reply_id, request);
        let shard_count = self.shard.shard_count;
        let owner = |position: u32| shard_of(argv.arg(position as usize), shard_count);
        let waiting = self.blocked.get(reply_id).and_then(|blocked| blocked.waiting.as_ref());
        let shards = waiting.map(|waiting| waiting.shards.clone()).unwrap_or_default();
        let waits = shards.into_iter().map(|shard| {
            let positions = keys.clone().filter(|&position| owner(position) == shard).collect();
            let wait = Wait { call: *call, args: args.clone(), positions, ends_with_key, is_tried: false };
            (shard, Box::new((id, wait)))
        });
        CheckedOutRun { has_replied: false, waits: CheckedOutWaits(waits.collect()) }
    }

    /// A command that has waited for its locks is not allowed any more.
    #[cold]
    fn refuse_parked(
        &mut self,
        lock_request: LockRequestId,
        entry: &CommandEntry,
        home: usize,
        reply_id: ReplyId,
        error: &CommandError,
    ) {
        self.give_up_token_of(lock_request);
        let reply = self.refused_reply(entry, error);
        self.answer(home, reply_id, &reply);
    }

    /// Runs a command that has waited for its locks. Returns whether these are to be released.
    pub(super) fn run_parked(&mut self, lock_request: LockRequestId, command: ParkedCommand) -> bool {
        let ParkedCommand { home, reply_id, call, args, user } = command;
        let entry = self.table.entry(call.command);
        if let Some(error) = self.refusal_after_wait(&user, &call, home, entry, args.as_argv()) {
            self.refuse_parked(lock_request, entry, home, reply_id, &error);
            return true;
        }
        let conn = if home == self.shard.index { self.connection_of(reply_id) } else { None };
        let command = Invocation::new(entry, &call, args.as_argv(), conn);
        let mut reply = self.pools.take_buffer();
        self.shard.running = Some(lock_request);
        let started = self.run_unit(&command, ReplyTo::Place { home, reply_id }, &mut reply);
        self.shard.running = None;
        if started == Started::Replied {
            self.answer(home, reply_id, &reply);
        }
        self.pools.give_buffer(reply);
        started != Started::Suspended
    }
}

// At home: how a wait ends.
impl Worker {
    /// Handles a message about waits from shard `from`.
    pub(super) fn handle_wait(&mut self, from: usize, message: WaitMessage) {
        match message {
            WaitMessage::Waits { reply_id, request } => {
                self.record_wait(from, reply_id, request);
                self.end_wait_of_master(reply_id);
            }
            WaitMessage::Offer { wait, offer } => self.take_offer(wait, offer),
            WaitMessage::Read { replies, hold } => {
                self.take_read(&replies);
                if let Some(hold) = hold {
                    self.send(from, Message::Wait(Box::new(WaitMessage::Taken { hold })));
                }
            }
            WaitMessage::Taken { hold } => {
                if self.shard.blocking.take_read(hold) {
                    self.release(hold);
                }
            }
            WaitMessage::Nothing { wait } => self.came_to_nothing(wait.reply_id),
            WaitMessage::Answer { wait, offer, verdict } => self.end_offer(wait, offer, verdict),
            WaitMessage::Again { wait } => self.shard.signal_again(wait),
            WaitMessage::Register { new } => {
                let (id, wait) = *new;
                self.shard.wait(id, wait);
                // The keys may have changed while this was on its way.
                self.shard.signal_again(id);
            }
            WaitMessage::Forget { wait } => {
                self.shard.blocking.forget(wait);
            }
            WaitMessage::Yield { offer } => {
                if let Some(lock_request) = self.shard.blocking.lend(offer) {
                    self.release(lock_request);
                }
            }
        }
    }

    /// Answers the offer of a key to one of this shard's clients.
    fn take_offer(&mut self, wait: WaitId, offer: OfferId) {
        // It may have lost the right to it before it was known to wait.
        if self.blocked.get(wait.reply_id).is_some() {
            self.refuse_blocked(wait.reply_id.conn as usize);
        }
        let verdict = match self.blocked.get(wait.reply_id).and_then(|blocked| blocked.waiting.as_mut()) {
            None => Verdict::Gone,
            // Also while a program tries another key for it: that may come to nothing, and the client keeps its place.
            Some(Waiting { hold: Some(hold), .. }) => {
                let WaitForKeys { args, on_ready, .. } =
                    hold.on.keys.as_ref().expect("it waits at the shards of its keys");
                let tries = on_ready(args.as_argv().arg(offer.position as usize).to_vec());
                self.add_task(Box::new(move |program| {
                    if program.worker().begin_try(wait.reply_id) {
                        tries(program);
                    }
                    program.worker().end_try(wait, offer);
                }));
                return;
            }
            Some(waiting) if waiting.is_being_served => {
                waiting.turned_away.push(offer.shard as usize);
                Verdict::Busy
            }
            Some(waiting) => {
                waiting.is_being_served = true;
                self.blocked.served_count += 1;
                Verdict::Accept
            }
        };
        if verdict == Verdict::Accept && self.serve_by_transaction(wait.reply_id, offer) {
            return;
        }
        self.send(
            offer.shard as usize,
            Message::Wait(Box::new(WaitMessage::Answer { wait, offer, verdict })),
        );
    }

    /// A program that was offered a key for a held client begins. False: the client's wait has ended meanwhile.
    fn begin_try(&mut self, reply_id: ReplyId) -> bool {
        let waiting = self.blocked.get(reply_id).and_then(|blocked| blocked.waiting.as_mut());
        let begins = waiting.is_some_and(|waiting| {
            let begins = waiting.hold.is_some() && !waiting.is_being_served;
            waiting.is_being_served |= begins;
            begins
        });
        self.blocked.served_count += u64::from(begins);
        begins
    }

    /// It has ended: the key is for the next.
    fn end_try(&mut self, wait: WaitId, offer: OfferId) {
        // If it has ended the client's hold, another task replies, and the client is being served until then.
        if self.is_held(wait.reply_id) {
            self.wait_on(wait.reply_id);
        }
        let verdict = Verdict::Busy;
        if offer.shard as usize == self.shard.index {
            // Not by message: nobody is to come to the key in between.
            self.end_offer(wait, offer, verdict);
        } else {
            self.send(
                offer.shard as usize,
                Message::Wait(Box::new(WaitMessage::Answer { wait, offer, verdict })),
            );
        }
    }

    /// Ends the waits of commands that have read something elsewhere.
    fn take_read(&mut self, replies: &ReadReplies) {
        for (reply_id, reply) in replies.iter() {
            // Another key may have served it meanwhile, or it has ended in another way.
            if self.blocked.get(reply_id).is_some_and(|blocked| blocked.waiting.is_some()) {
                self.fulfil(reply_id, reply);
            }
        }
    }

    /// If the command needs further keys besides the one on offer (BLMOVE its destination), starts a transaction over
    /// all of these, without the other keys that it is blocked on. Returns whether it did.
    fn serve_by_transaction(&mut self, reply_id: ReplyId, offer: OfferId) -> bool {
        let Some(Blocked { entry, call, args, waiting: Some(waiting), .. }) = self.blocked.get(reply_id)
        else {
            return false;
        };
        let mut positions = keys::positions(entry.row, args.as_argv());
        let is_needed = |at: u32| at == offer.position || !waiting.keys.contains(&at);
        positions.retain(|(at, _)| is_needed(*at as u32));
        if positions.len() <= 1 {
            return false;
        }
        let (entry, call, args) = (*entry, *call, args.clone());
        self.begin_offered(reply_id, entry, call, args.as_argv(), &positions, offer);
        true
    }

    /// An offer was accepted, but there was nothing to take when the command ran: the client stays blocked.
    fn came_to_nothing(&mut self, reply_id: ReplyId) {
        if self.blocked.get(reply_id).is_some_and(|blocked| blocked.waiting.is_some()) {
            self.shard.stats.transaction_retries.add(1);
            self.wait_on(reply_id);
            self.end_wait_of_master(reply_id);
        }
    }

    /// A client was not served, and goes on waiting.
    fn wait_on(&mut self, reply_id: ReplyId) {
        let home = self.shard.index as u32;
        let now_ms = self.shard.now_ms;
        let Some(blocked) = self.blocked.get(reply_id) else { return };
        let Some(waiting) = blocked.waiting.as_mut() else { return };
        let was_being_served = std::mem::take(&mut waiting.is_being_served);
        let turned_away = std::mem::take(&mut waiting.turned_away);
        let deadline_ms = waiting.deadline_ms;
        self.blocked.served_count -= u64::from(was_being_served);
        if let Some(deadline_ms) = deadline_ms {
            if deadline_ms <= now_ms {
                self.end_by_time(reply_id);
                return;
            }
            // The deadline may have passed meanwhile, which removed it, and the clock have been set back since.
            self.blocked.deadlines.insert((deadline_ms, reply_id.conn));
        }
        if self.connections[reply_id.conn as usize].as_deref().is_some_and(|c| c.peer.has_ended()) {
            self.runnable.push(reply_id.conn);
        }
        let wait = WaitId { home, reply_id };
        for shard in turned_away {
            self.send(shard, Message::Wait(Box::new(WaitMessage::Again { wait })));
        }
    }

    /// Ends the waits whose deadline has passed.
    pub(super) fn end_waits_in_time(&mut self) {
        while let Some(&(deadline_ms, at)) = self.blocked.deadlines.first() {
            if deadline_ms > self.shard.now_ms {
                return;
            }
            // If the client is being served at the moment, the outcome of that ends the wait.
            self.blocked.deadlines.pop_first();
            let blocked = self.blocked.by_connection.get(&at).expect("a wait that ends removes its deadline");
            let reply_id = blocked.reply_id;
            if blocked.waiting.as_ref().is_some_and(|waiting| !waiting.is_being_served) {
                self.end_by_time(reply_id);
            }
        }
    }

    /// The wait of a blocked connection, and whether it is being served.
    pub fn wait_of(&self, at: usize) -> Option<(WaitId, bool)> {
        let blocked = self.blocked.by_connection.get(&(at as u32))?;
        let waiting = blocked.waiting.as_ref()?;
        let id = WaitId { home: self.shard.index as u32, reply_id: blocked.reply_id };
        Some((id, waiting.is_being_served))
    }

    /// The command that a connection is blocked in.
    pub(super) fn blocked_command(&self, at: usize) -> Option<&'static CommandEntry> {
        let blocked = self.blocked.by_connection.get(&(at as u32))?;
        blocked.waiting.is_some().then_some(blocked.entry)
    }

    fn end_by_time(&mut self, reply_id: ReplyId) {
        if self.is_held(reply_id) {
            self.end_hold(reply_id, HoldEnd::TimedOut);
            return;
        }
        let blocked = self.blocked.get(reply_id).expect("the caller has seen that it waits");
        let (resp, waiting) = (blocked.call.resp, blocked.waiting.as_ref());
        let on_timeout = waiting.expect("the caller has seen that it waits").on_timeout;
        let mut reply = self.pools.take_buffer();
        match on_timeout {
            TimeoutReply::Replicas => {
                Reply::new(&mut reply, resp).integer(self.replicas_that_have(reply_id));
            }
            TimeoutReply::Null | TimeoutReply::NullArray => {
                on_timeout.write(&mut Reply::new(&mut reply, resp))
            }
        }
        self.fulfil(reply_id, &reply);
        self.pools.give_buffer(reply);
    }

    /// CLIENT UNBLOCK: ends a client's wait, as if it had timed out or with an error. False if it is not blocked.
    pub fn unblock(&mut self, client: ClientId, with_error: bool) -> bool {
        let Some(at) = self.find_client(client) else { return false };
        let Some(blocked) = self.blocked.by_connection.get_mut(&(at as u32)) else { return false };
        let (reply_id, command) = (blocked.reply_id, blocked.entry.id);
        match &blocked.waiting {
            Some(Waiting { hold: Some(hold), .. }) if !hold.on.may_time_out => return false,
            Some(waiting) if !waiting.is_being_served => {}
            // It is being served, or its command has not found out yet whether it has to wait.
            Some(_) | None => return false,
        }
        if with_error {
            self.shard.stats.command(command).failed.add(1);
            self.shard.stats.error(code_of(&UNBLOCKED[1..]));
            self.fulfil(reply_id, UNBLOCKED);
        } else {
            self.end_by_time(reply_id);
        }
        true
    }

    /// This server becomes a replica: ends the waits of all clients, and their connections. Those that are being served get
    /// their replies.
    pub(super) fn unblock_all(&mut self) {
        let blocked: Vec<_> = self.blocked.by_connection.values().map(|blocked| blocked.reply_id).collect();
        for reply_id in blocked {
            self.end_wait_by_role(reply_id);
        }
    }

    /// Whether a command that has begun on a master finds that this is a replica now: what the master sends would serve it.
    fn may_not_wait(&self, entry: &CommandEntry) -> bool {
        entry.row.has(flag::WRITE) && self.shard.is_replica && self.shard.config.replica_read_only
    }

    /// The same for a command that waits already: it was on its way to a shard, or was being served, when the others were unblocked.
    fn end_wait_of_master(&mut self, reply_id: ReplyId) {
        let entry = self.blocked.get(reply_id).map(|blocked| blocked.entry);
        if entry.is_some_and(|entry| self.may_not_wait(entry)) {
            self.end_wait_by_role(reply_id);
        }
    }

    fn end_wait_by_role(&mut self, reply_id: ReplyId) {
        let Some(Blocked { entry, waiting: Some(waiting), .. }) = self.blocked.get(reply_id) else { return };
        if waiting.is_being_served || waiting.hold.is_some() {
            return;
        }
        let command = entry.id;
        self.begin_end_by_role(reply_id, command);
        self.fulfil(reply_id, INSTANCE_CHANGED);
    }

    /// Counts a command that ends with [`INSTANCE_CHANGED`], which is the last that its connection gets.
    fn begin_end_by_role(&mut self, reply_id: ReplyId, command: CommandId) {
        self.shard.stats.command(command).failed.add(1);
        self.shard.stats.error(code_of(&INSTANCE_CHANGED[1..]));
        self.close_after_reply(reply_id.conn as usize);
    }

    /// Ends a client's wait with an error if its user may not call the command any more. A client that is being served gets
    /// its reply.
    pub(super) fn refuse_blocked(&mut self, at: usize) {
        let is_restricted = |it: &Connection| it.client.is_restricted();
        if !self.connections[at].as_deref().is_some_and(is_restricted) {
            return;
        }
        let Some(blocked) = self.blocked.by_connection.get(&(at as u32)) else { return };
        let waiting = blocked.waiting.as_ref();
        if waiting.is_none_or(|waiting| waiting.is_being_served || waiting.hold.is_some()) {
            return;
        }
        let (reply_id, entry, resp) = (blocked.reply_id, blocked.entry, blocked.call.resp);
        let Err(Refusal::Denied(denied)) = self.check_rights(at, entry, blocked.args.as_argv()) else {
            return;
        };
        let error = denied.error(&entry.full_name);
        self.shard.stats.command(entry.id).failed.add(1);
        self.shard.stats.error(error.code());
        let mut reply = self.pools.take_buffer();
        Reply::new(&mut reply, resp).error(error.as_bytes());
        self.fulfil(reply_id, &reply);
        self.pools.give_buffer(reply);
    }

    /// Removes a connection's blocking command, if it has one, when its reply has come or the connection is closed.
    pub(super) fn end_wait(&mut self, at: usize) {
        let Some(blocked) = self.blocked.by_connection.remove(&(at as u32)) else { return };
        let Some(waiting) = blocked.waiting else { return };
        self.blocked.waiting_count -= 1;
        self.blocked.served_count -= u64::from(waiting.is_being_served);
        if let Some(hold) = waiting.hold {
            self.end_taken_hold(blocked.reply_id, blocked.call, hold, HoldEnd::Gone);
        }
        if let Some(deadline_ms) = waiting.deadline_ms {
            self.blocked.deadlines.remove(&(deadline_ms, at as u32));
        }
        if waiting.on_timeout == TimeoutReply::Replicas {
            self.forget_replica_wait(blocked.reply_id);
        }
        let id = WaitId { home: self.shard.index as u32, reply_id: blocked.reply_id };
        for shard in waiting.shards {
            self.forget_wait(shard, id);
        }
    }

    fn forget_wait(&mut self, shard: usize, wait: WaitId) {
        if shard == self.shard.index {
            self.shard.blocking.forget(wait);
        } else {
            self.send(shard, Message::Wait(Box::new(WaitMessage::Forget { wait })));
        }
    }
}

// At the shard of the keys: their handoff.
impl Worker {
    /// Hands off the keys that have changed to the clients blocked on them, as far as that is possible at once.
    pub(super) fn serve_due(&mut self) {
        self.shard.signal_expired_keys();
        while let Some(lock) = self.shard.blocking.next_due(&self.shard.locks) {
            self.serve(lock);
            self.deliver_local();
        }
    }

    /// Offers the key of a lock to the next waiter that would take something, or releases the lock if there is none.
    /// Waiters that only read are served on the way.
    fn serve(&mut self, lock: u64) {
        // In the order of the shards: simulations must be repeatable.
        let mut read = BTreeMap::new();
        let ended = self.offer_next(lock, &mut read);
        self.send_read(read);
        if let Some(lock_request) = ended {
            self.release(lock_request);
        }
    }

    /// Sends the replies of waits that only read to their homes. The lock of their handoff is still held.
    fn send_read(&mut self, read: BTreeMap<u32, ReadReplies>) {
        let here = self.shard.index as u32;
        let others = read.keys().filter(|&&home| home != here).count();
        let hold = (others > 0).then(|| self.shard.hold_for_readers(others));
        for (home, replies) in read {
            let hold = hold.filter(|_| home != here);
            self.send(home as usize, Message::Wait(Box::new(WaitMessage::Read { replies, hold })));
        }
    }

    /// As `serve`, but leaves the replies of those that only read to be sent, by home, and the lock to be released, which it
    /// returns if the handoff has ended.
    fn offer_next(&mut self, lock: u64, read: &mut BTreeMap<u32, ReadReplies>) -> Option<LockRequestId> {
        loop {
            match self.shard.blocking.next(lock) {
                Next::Pause => return None,
                Next::End(lock_request) => return Some(lock_request),
                Next::Ask { wait, position } => {
                    if !self.is_ready(wait, position) {
                        self.shard.blocking.pass(lock, wait);
                        continue;
                    }
                    if self.only_reads(wait) {
                        self.serve_reader(lock, wait, position, read.entry(wait.home).or_default());
                        continue;
                    }
                    let number = self.make_offer(lock, wait);
                    let offer = OfferId { shard: self.shard.index as u32, lock, number, position };
                    let message = WaitMessage::Offer { wait, offer };
                    self.send(wait.home as usize, Message::Wait(Box::new(message)));
                    return None;
                }
            }
        }
    }

    /// Offers the key of a lock to a wait. Returns the offer's number.
    fn make_offer(&mut self, lock: u64, wait: WaitId) -> u64 {
        if !self.shard.blocking.get(wait).expect("only waits are asked").is_tried {
            return self.shard.blocking.offer(lock, wait);
        }
        let (number, lock_request) = self.shard.blocking.offer_to_program(lock, wait);
        self.mark_as_program(lock_request);
        number
    }

    /// Whether a waiting command would take something from one of its keys.
    fn is_ready(&mut self, id: WaitId, position: u32) -> bool {
        let wait = self.shard.blocking.get(id).expect("only waits are asked");
        if wait.is_tried && wait.ends_with_key {
            // The module is asked whatever is in the key, and if nothing is.
            return true;
        }
        let (call, args) = (wait.call, wait.args.clone());
        let ready = self.table.entry(call.command).row.ready;
        let mut unused = Vec::new();
        let reply = Reply::new(&mut unused, call.resp);
        let args = args.as_argv();
        let ctx =
            &mut Ctx { shard: &mut self.shard, call: &call, args, fetched: &[], served_from: None, reply };
        let is_ready = ready(ctx, position as usize);
        // No command has run, but the look-up may have found an expired key and removed it.
        self.shard.effects.end_apart();
        is_ready
    }

    /// Whether a waiting command only reads.
    fn only_reads(&self, id: WaitId) -> bool {
        let wait = self.shard.blocking.get(id).expect("only waits are asked");
        !self.table.entry(wait.call.command).row.has(flag::WRITE)
    }

    /// Runs a waiting command that only reads, and forgets its wait.
    fn serve_reader(&mut self, lock: u64, id: WaitId, position: u32, replies: &mut ReadReplies) {
        let wait = self.shard.blocking.get(id).expect("only waits are asked");
        let (call, args) = (wait.call, wait.args.clone());
        let entry = self.table.entry(call.command);
        let mut reply = self.pools.take_buffer();
        // It was counted when it was called.
        let command = Invocation {
            served_from: Some(position),
            is_counted: false,
            ..Invocation::new(entry, &call, args.as_argv(), None)
        };
        if self.run(&command, &mut reply).waits.is_none() {
            self.shard.blocking.forget(id);
            replies.push(id.reply_id, &reply);
        } else {
            self.shard.blocking.pass(lock, id);
        }
        self.pools.give_buffer(reply);
    }

    /// Handles home's answer to an offer.
    fn end_offer(&mut self, id: WaitId, offer: OfferId, verdict: Verdict) {
        match verdict {
            Verdict::Busy => {}
            Verdict::Gone => {
                self.shard.blocking.forget(id);
            }
            Verdict::Accept => self.serve_here(id, offer),
        }
        self.shard.end_offer(offer);
    }

    /// Runs a blocked command over the key on offer, the only one it needs.
    fn serve_here(&mut self, id: WaitId, offer: OfferId) {
        let wait = self.shard.blocking.get(id).expect("home removes a wait only after it was served");
        let (call, args) = (wait.call, wait.args.clone());
        let entry = self.table.entry(call.command);
        let mut reply = self.pools.take_buffer();
        if self.run_offered(entry, &call, args.as_argv(), offer, None, &mut reply) {
            self.shard.blocking.forget(id);
            self.answer(id.home as usize, id.reply_id, &reply);
        } else {
            self.send(id.home as usize, Message::Wait(Box::new(WaitMessage::Nothing { wait: id })));
        }
        self.pools.give_buffer(reply);
    }

    /// Runs a command that has waited, and takes only from the key on offer. `reply_id`: given at home, where it runs
    /// over checked-out entries. Returns whether it has replied; if not, it stays blocked.
    fn run_offered(
        &mut self,
        entry: &'static CommandEntry,
        call: &Call,
        args: Argv<'_>,
        offer: OfferId,
        reply_id: Option<ReplyId>,
        reply: &mut Vec<u8>,
    ) -> bool {
        // If the client has disconnected, nothing is taken: the key is for the next waiter.
        if reply_id.is_some_and(|reply_id| self.blocked.get(reply_id).is_none()) {
            return false;
        }
        // It was counted when it was called.
        let command = Invocation {
            served_from: Some(offer.position),
            is_counted: false,
            ..Invocation::new(entry, call, args, None)
        };
        let has_replied = self.run(&command, reply).waits.is_none();
        match (reply_id, has_replied) {
            // The shards of its keys must be told before the entries are checked in there.
            (Some(reply_id), true) => self.end_wait(reply_id.conn as usize),
            (Some(reply_id), false) => self.came_to_nothing(reply_id),
            (None, _) => {}
        }
        has_replied
    }

    /// For a transaction that was started by an offer of this shard: takes over the lock on the key on offer, and locks
    /// the other keys it wants here. `None`: that is not possible at once, and the lock on the key on offer is
    /// released.
    pub(super) fn lock_with_offer(&mut self, offer: OfferId, wanted: &LockSet) -> Option<LockRequestId> {
        if offer.shard as usize != self.shard.index {
            return None;
        }
        let lock_request = self.shard.blocking.lend(offer)?;
        let LockSet::Keys(wanted) = wanted else { unreachable!("a command with an offer names its keys") };
        let others: SmallVec<[KeyLock; 4]> =
            wanted.iter().copied().filter(|key| key.id != offer.lock).collect();
        if self.shard.locks.extend(lock_request, &others) {
            return Some(lock_request);
        }
        self.release(lock_request);
        None
    }

    /// The transaction that was offered a key has to wait for locks on this shard. If this shard comes before the
    /// offer's in the order of locking, has the lock on the key on offer released.
    pub(super) fn yield_offer(&mut self, offer: OfferId) {
        let shard = offer.shard as usize;
        if shard > self.shard.index {
            self.send(shard, Message::Wait(Box::new(WaitMessage::Yield { offer })));
        }
    }

    /// Takes back the lock on the key on offer when the transaction over it has ended. `lock_request` still holds its
    /// locks.
    pub(super) fn take_offer_back(&mut self, offer: OfferId, lock_request: LockRequestId) {
        self.shard.take_back(offer.lock, lock_request);
        self.shard.blocking.end_offer(offer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::driver::{ConnId, Events};
    use crate::worker::IoRequest;
    use crate::worker::tests::{first_of, plain_connection};

    /// Its wait begins at the shard of the key, and home hears of that when it has become a replica: what the master pushes later must
    /// not serve it.
    #[test]
    fn a_client_whose_command_was_under_way_when_the_role_changed_does_not_wait() {
        for (words, waits) in [("BLPOP", false), ("XREAD", true)] {
            let (mut worker, _) = first_of(2);
            let conn = ConnId::new(0, 0);
            worker.connected(conn, 0, plain_connection());
            let key = (0..).map(|n| format!("key:{n}")).find(|key| shard_of(key.as_bytes(), 2) == 1).unwrap();
            let (request, keys) = match words {
                "BLPOP" => (format!("BLPOP {key} 0\r\n"), 1..2),
                _ => (format!("XREAD BLOCK 0 STREAMS {key} $\r\n"), 4..5),
            };
            worker.begin_turn();
            worker.received(conn, request.as_bytes());
            worker.end_turn();
            worker.requests.clear();
            let reply_id = worker.blocked.by_connection[&0].reply_id;
            worker.globals.link.begin_as_replica();
            worker.follow_role();
            let request = BlockRequest {
                keys,
                deadline_ms: None,
                on_timeout: TimeoutReply::NullArray,
                args: None,
                ends_with_key: false,
            };
            worker.handle_wait(1, WaitMessage::Waits { reply_id, request });
            worker.end_turn();
            let is_told =
                |request: &IoRequest| matches!(request, IoRequest::Send(_, said) if said == INSTANCE_CHANGED);
            assert_eq!(worker.requests.iter().any(is_told), !waits, "{words}");
            assert_eq!(worker.wait_of(0).is_some(), waits, "{words}");
        }
    }
}
