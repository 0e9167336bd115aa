//! Work over several shards: the coordinator at home, and each shard's part. The algorithm and its argument
//! stand in [`crate::shard::txn`].

use super::Worker;
use super::connection::Hold;
use crate::command::Call;
use crate::command::route;
use crate::command::table::{Entry, KeyspaceLock, Merge, flag};
use crate::protocol::skip::{Elements, skip_reply, split_array};
use crate::protocol::{Argv, OwnedArgv};
use crate::protocol::{Reply, Resp};
use crate::shard::blocking::{NewWait, OfferId};
use crate::shard::lock::{LockSet, Ticket};
use crate::shard::message::{Message, ParkedCommand, Token};
use crate::shard::observe::GuestEvent;
use crate::shard::slot::shard_of;
use crate::shard::txn::{Outcome, Part, Plan, TxnId, TxnKind, TxnMessage, Work};
use crate::types::OwnedEntry;
use crate::types::hash::hash_key;
use ahash::AHashMap;

/// A transaction at its home.
struct HomeTxn {
    entry: &'static Entry,
    call: Call,
    token: Token,
    args: OwnedArgv,
    kind: TxnKind,
    shards: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    /// For a check-out: the keys of each shard, in the order of `shards`.
    keys: Vec<Vec<(u32, u64, Vec<u8>)>>,
    started_at_ticks: u64,
    /// The command has waited, and this key was offered to it.
    offer: Option<OfferId>,
}

/// A part whose locks this shard has granted.
struct HeldPart {
    ticket: Ticket,
    call: Call,
    work: Work,
    offer: Option<OfferId>,
}

/// What waits in the lock table.
enum Waiter {
    Plan(Box<Plan>),
    Command(Box<ParkedCommand>),
}

#[derive(Default)]
pub(super) struct Transactions {
    next_number: u64,
    home: AHashMap<u64, HomeTxn>,
    held: AHashMap<TxnId, HeldPart>,
    waiting: AHashMap<Ticket, Waiter>,
    /// While locks are released: who is granted and has not gone on yet.
    granted: Vec<Ticket>,
    is_releasing: bool,
}

impl Worker {
    /// Queues a command behind the locks on its keys.
    pub(super) fn park(&mut self, entry: &Entry, command: ParkedCommand) {
        let locks = if entry.row.has(flag::TOUCHES_ARBITRARY_KEYS) {
            LockSet::Whole
        } else {
            LockSet::Keys(route::instant_locks(entry.row, command.args.as_argv()))
        };
        let (ticket, granted) = self.shard.locks.request(locks);
        assert!(!granted, "a command is parked only behind a conflict");
        self.shard.stats.lock_waits.add(1);
        self.transact.waiting.insert(ticket, Waiter::Command(Box::new(command)));
    }

    /// Starts a command whose keys live on several shards. The connection is held until it has ended.
    pub(super) fn begin_transaction(&mut self, at: usize, entry: &'static Entry, call: Call, args: Argv<'_>) {
        let (kind, parts) =
            route::plan(entry.row, args, call.db, self.shard.dbs.len(), self.shard.shard_count);
        self.begin(at, entry, call, args, kind, parts);
    }

    /// Starts a command that runs on every shard.
    pub(super) fn begin_every(
        &mut self,
        at: usize,
        entry: &'static Entry,
        call: Call,
        args: Argv<'_>,
        lock: KeyspaceLock,
    ) {
        let shards = 0..self.shard.shard_count;
        if lock == KeyspaceLock::All {
            let parts = shards
                .map(|shard| {
                    let work = Work::Run(OwnedArgv::from_argv(args));
                    Some(Part { shard, locks: LockSet::Whole, work })
                })
                .collect();
            self.begin(at, entry, call, args, TxnKind::FanOut, parts);
            return;
        }
        let token = self.hold_for_transaction(at);
        let args_owned = OwnedArgv::from_argv(args);
        let id = self.register(
            token,
            entry,
            call,
            args_owned,
            TxnKind::FanOut,
            shards.clone().collect(),
            Vec::new(),
        );
        for shard in shards {
            let args = OwnedArgv::from_argv(args);
            self.send(shard, Message::Txn(TxnMessage::Run { id, call, args }));
        }
        self.deliver_local();
    }

    fn begin(
        &mut self,
        at: usize,
        entry: &'static Entry,
        call: Call,
        args: Argv<'_>,
        kind: TxnKind,
        parts: Vec<Option<Part>>,
    ) {
        let token = self.hold_for_transaction(at);
        // What this connection sent to the shards before must arrive there before the locks.
        self.flush_batches();
        self.start(token, entry, call, OwnedArgv::from_argv(args), kind, parts, None);
        self.deliver_local();
    }

    /// The connection's next reply is that of a transaction, and nothing of it runs before.
    fn hold_for_transaction(&mut self, at: usize) -> Token {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        connection.hold = Some(Hold::Transaction);
        connection.await_reply(at)
    }

    /// Sends a transaction on its way. `offer`: its command has waited, and this key was offered to it.
    #[allow(clippy::too_many_arguments, reason = "each is a field of the transaction")]
    pub(super) fn start(
        &mut self,
        token: Token,
        entry: &'static Entry,
        call: Call,
        args: OwnedArgv,
        kind: TxnKind,
        parts: Vec<Option<Part>>,
        offer: Option<OfferId>,
    ) {
        let shards: Vec<usize> = parts.iter().flatten().map(|part| part.shard).collect();
        let keys = parts
            .iter()
            .flatten()
            .map(|part| match &part.work {
                Work::CheckOut(keys) => keys.clone(),
                Work::Run(_) => Vec::new(),
            })
            .collect();
        let id = self.register(token, entry, call, args, kind, shards.clone(), keys);
        let first = shards[0];
        self.transact.home.get_mut(&id.number).expect("it was registered").offer = offer;
        let plan = Box::new(Plan { id, call, kind, parts, shards, next: 0, offer });
        self.send(first, Message::Txn(TxnMessage::Lock(plan)));
    }

    #[allow(clippy::too_many_arguments, reason = "each is a field of the transaction")]
    fn register(
        &mut self,
        token: Token,
        entry: &'static Entry,
        call: Call,
        args: OwnedArgv,
        kind: TxnKind,
        shards: Vec<usize>,
        keys: Vec<Vec<(u32, u64, Vec<u8>)>>,
    ) -> TxnId {
        let number = self.transact.next_number;
        self.transact.next_number += 1;
        self.shard.stats.transactions.add(1);
        self.shard.stats.transaction_shards.add(shards.len() as u64);
        let txn = HomeTxn {
            entry,
            call,
            token,
            args,
            kind,
            outcomes: shards.iter().map(|_| None).collect(),
            missing: shards.len(),
            shards,
            keys,
            started_at_ticks: self.ticks,
            offer: None,
        };
        self.transact.home.insert(number, txn);
        TxnId { home: self.shard.index as u32, number }
    }

    /// A message about a transaction, from any shard.
    pub(super) fn handle_txn(&mut self, message: TxnMessage) {
        match message {
            TxnMessage::Lock(plan) => self.lock_part(plan),
            TxnMessage::Go(id) => self.run_held(id, true),
            TxnMessage::Done { id, shard, outcome } => self.collect(id, shard, outcome),
            TxnMessage::CheckIn { id, entries, events, wait } => self.check_in(id, entries, &events, wait),
            TxnMessage::Run { id, call, args } => {
                let entry = self.table.entry(call.command);
                let mut reply = Vec::new();
                let conn = self.local_caller(&id);
                self.is_echo = id.home as usize != self.shard.index;
                self.run(entry, &call, args.as_argv(), conn, &mut reply);
                self.is_echo = false;
                self.done(id, Outcome::Reply(reply));
            }
        }
    }

    /// The calling connection, where the command runs at its home.
    fn local_caller(&self, id: &TxnId) -> Option<usize> {
        if id.home as usize != self.shard.index {
            return None;
        }
        let token = self.transact.home.get(&id.number)?.token;
        let connection = self.connections[token.conn as usize].as_deref()?;
        (connection.conn.generation() == token.generation).then_some(token.conn as usize)
    }

    fn lock_part(&mut self, mut plan: Box<Plan>) {
        let locks = {
            let part = plan.parts[plan.next].as_mut().expect("a part is locked once");
            std::mem::replace(&mut part.locks, LockSet::Whole)
        };
        if let Some(offer) = plan.offer
            && let Some(ticket) = self.lock_with_offer(offer, &locks)
        {
            self.part_granted(ticket, plan);
            return;
        }
        let (ticket, granted) = self.shard.locks.request(locks);
        if granted {
            self.part_granted(ticket, plan);
        } else {
            self.shard.stats.lock_waits.add(1);
            if let Some(offer) = plan.offer {
                self.yield_offer(offer);
            }
            self.transact.waiting.insert(ticket, Waiter::Plan(plan));
        }
    }

    /// This shard's locks are granted: pass the plan on, or, if it is the last shard, let everybody run.
    fn part_granted(&mut self, ticket: Ticket, mut plan: Box<Plan>) {
        let part = plan.parts[plan.next].take().expect("a part is granted once");
        let offer = plan.offer.filter(|offer| offer.shard as usize == self.shard.index);
        self.transact.held.insert(plan.id, HeldPart { ticket, call: plan.call, work: part.work, offer });
        plan.next += 1;
        if plan.next < plan.shards.len() {
            let next = plan.shards[plan.next];
            self.send(next, Message::Txn(TxnMessage::Lock(plan)));
            return;
        }
        for &shard in &plan.shards[..plan.shards.len() - 1] {
            self.send(shard, Message::Txn(TxnMessage::Go(plan.id)));
        }
        self.run_held(plan.id, false);
    }

    /// All locks of the transaction are held everywhere: run this shard's part. `is_echo`: another shard's part
    /// stands for the command in the statistics and in the slow log.
    fn run_held(&mut self, id: TxnId, is_echo: bool) {
        let held = self.transact.held.get_mut(&id).expect("Go follows the grant");
        let (ticket, call) = (held.ticket, held.call);
        match std::mem::replace(&mut held.work, Work::CheckOut(Vec::new())) {
            Work::Run(args) => {
                self.transact.held.remove(&id);
                let entry = self.table.entry(call.command);
                let mut reply = Vec::new();
                let conn = self.local_caller(&id);
                self.is_echo = is_echo;
                self.shard.running = Some(ticket);
                self.run(entry, &call, args.as_argv(), conn, &mut reply);
                self.shard.running = None;
                self.is_echo = false;
                self.release(ticket);
                self.done(id, Outcome::Reply(reply));
            }
            Work::CheckOut(keys) => {
                let entries = keys
                    .iter()
                    .map(|(db, hash, key)| {
                        self.shard.take(*db, crate::command::Key { bytes: key, hash: *hash })
                    })
                    .collect();
                self.done(id, Outcome::Entries(entries));
                let held = self.transact.held.get_mut(&id).expect("it is held until the check-in");
                held.work = Work::CheckOut(keys);
            }
        }
    }

    fn done(&mut self, id: TxnId, outcome: Outcome) {
        let shard = self.shard.index;
        self.send(id.home as usize, Message::Txn(TxnMessage::Done { id, shard, outcome }));
    }

    /// Home gets a shard's outcome; the last one completes the transaction.
    fn collect(&mut self, id: TxnId, shard: usize, outcome: Outcome) {
        let txn = self.transact.home.get_mut(&id.number).expect("a transaction ends after its last outcome");
        let place = txn.shards.iter().position(|&other| other == shard).expect("it is one of its shards");
        assert!(txn.outcomes[place].replace(outcome).is_none(), "a shard answers once");
        txn.missing -= 1;
        if txn.missing > 0 {
            return;
        }
        let mut txn = self.transact.home.remove(&id.number).expect("it was there just now");
        let waited = self.clock.ticks_to_nanos(self.ticks.saturating_sub(txn.started_at_ticks));
        self.shard.stats.transaction_wait_nanos.add(waited);
        self.shard.stats.transaction_wait_max_nanos.max(waited);
        let mut reply = Vec::new();
        let has_replied = match txn.kind {
            TxnKind::FanOut => {
                merge_fan_out(&mut txn, self.shard.shard_count, &mut reply);
                true
            }
            TxnKind::CheckOut => self.run_checked_out(id, &mut txn, &mut reply),
        };
        if has_replied {
            self.fulfil(txn.token, &reply);
        }
    }

    /// All entries are here: run the handler over them, and send back what it left. False if there is no reply: the
    /// command waits for one of the keys.
    fn run_checked_out(&mut self, id: TxnId, txn: &mut HomeTxn, reply: &mut Vec<u8>) -> bool {
        self.shard.observers.guests_come();
        for (keys, outcome) in txn.keys.iter().zip(&mut txn.outcomes) {
            let Some(Outcome::Entries(entries)) = outcome else { unreachable!("a check-out yields entries") };
            for ((db, hash, _), entry) in keys.iter().zip(std::mem::take(entries)) {
                if let Some(entry) = entry {
                    self.shard.put(*db, *hash, entry);
                }
            }
        }
        let mut run = self.run_over_guests(txn.entry, &txn.call, &txn.args, txn.token, txn.offer, reply);
        let events = self.shard.observers.guests_go();
        for (keys, &shard) in txn.keys.iter().zip(&txn.shards) {
            let entries = keys
                .iter()
                .map(|(db, hash, key)| self.shard.dbs[*db as usize].table.take(*hash, key))
                .collect();
            let of_shard = |event: &&GuestEvent| shard_of(&event.key, self.shard.shard_count) == shard;
            let events = events.iter().filter(of_shard).cloned().collect();
            let wait = run.take_wait(shard);
            self.send(shard, Message::Txn(TxnMessage::CheckIn { id, entries, events, wait }));
        }
        run.has_replied
    }

    fn check_in(
        &mut self,
        id: TxnId,
        entries: Vec<Option<OwnedEntry>>,
        events: &[GuestEvent],
        wait: Option<NewWait>,
    ) {
        let held = self.transact.held.remove(&id).expect("what is checked in was checked out");
        let Work::CheckOut(keys) = held.work else { unreachable!("a check-in answers a check-out") };
        for ((db, hash, key), entry) in keys.iter().zip(entries) {
            debug_assert_eq!(*hash, hash_key(key));
            if let Some(entry) = entry {
                self.shard.put(*db, *hash, entry);
            }
        }
        self.shard.running = Some(held.ticket);
        self.shard.guest_events(events);
        self.shard.running = None;
        if let Some(wait) = wait {
            let (id, wait) = *wait;
            self.shard.wait(id, wait);
        }
        if let Some(offer) = held.offer {
            self.take_offer_back(offer, held.ticket);
        }
        self.release(held.ticket);
    }

    /// Gives up locks, and lets those go on who waited for them. They may give up theirs at once: who is granted then
    /// goes on in the outermost call, however many stand one behind the other.
    pub(super) fn release(&mut self, ticket: Ticket) {
        self.shard.locks.release(ticket, &mut self.transact.granted);
        if std::mem::replace(&mut self.transact.is_releasing, true) {
            return;
        }
        let mut next = 0;
        while let Some(&ticket) = self.transact.granted.get(next) {
            next += 1;
            match self.transact.waiting.remove(&ticket) {
                None => self.shard.blocking.granted(ticket),
                Some(Waiter::Plan(plan)) => self.part_granted(ticket, plan),
                Some(Waiter::Command(command)) => {
                    self.run_parked(ticket, *command);
                    self.release(ticket);
                }
            }
        }
        self.transact.granted.clear();
        self.transact.is_releasing = false;
    }

    /// A command for every shard, where there is only this one.
    pub(super) fn run_every_here(
        &mut self,
        at: usize,
        entry: &'static Entry,
        call: &Call,
        args: Argv<'_>,
    ) -> super::pipeline::Flow {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let token = connection.await_reply(at);
        let mut reply = Vec::new();
        self.run(entry, call, args, Some(at), &mut reply);
        let mut merged = Vec::new();
        merge(entry, args, &[], vec![reply], 1, &mut merged);
        self.fulfil(token, &merged);
        super::pipeline::Flow::Next
    }
}

fn merge_fan_out(txn: &mut HomeTxn, shard_count: usize, out: &mut Vec<u8>) {
    let replies = txn
        .outcomes
        .iter_mut()
        .map(|outcome| match outcome.take() {
            Some(Outcome::Reply(reply)) => reply,
            Some(Outcome::Entries(_)) | None => unreachable!("every shard of a fan-out replies"),
        })
        .collect();
    merge(txn.entry, txn.args.as_argv(), &txn.shards, replies, shard_count, out);
}

/// Makes one reply of several, by the row's rule. The first error among them is the reply, whatever the rule.
fn merge(
    entry: &Entry,
    args: Argv<'_>,
    shards: &[usize],
    replies: Vec<Vec<u8>>,
    shard_count: usize,
    out: &mut Vec<u8>,
) {
    if let Some(error) = replies.iter().find(|reply| reply.first() == Some(&b'-')) {
        out.extend_from_slice(error);
        return;
    }
    match entry.row.merge {
        Merge::Sum => {
            let sum: i64 = replies.iter().map(|reply| integer(reply)).sum();
            Reply::new(out, Resp::V2).integer(sum);
        }
        Merge::AllOk => out.extend_from_slice(&replies[0]),
        Merge::Gather => {
            let order = route::gather_order(entry.row, args, shard_count);
            let mut left: Vec<_> = replies.iter().map(|reply| elements(reply)).collect();
            Reply::new(out, Resp::V2).array(order.len());
            for shard in order {
                let place = shards.iter().position(|&other| other == shard).expect("it has keys there");
                out.extend_from_slice(left[place].next().expect("an element for every key"));
            }
        }
        Merge::ConcatArrays => {
            let count = replies.iter().map(|reply| elements(reply).count()).sum();
            Reply::new(out, Resp::V2).array(count);
            for reply in &replies {
                elements(reply).for_each(|element| out.extend_from_slice(element));
            }
        }
        Merge::With(rule) => rule(&replies, args, out),
        Merge::CheckOut => {
            debug_assert_eq!(skip_reply(&replies[0]), Some(replies[0].len()));
            out.extend_from_slice(&replies[0]);
        }
    }
}

/// The elements of an array reply of our own.
fn elements(reply: &[u8]) -> Elements<'_> {
    split_array(reply).expect("a gathered command replies with an array")
}

/// The value of an integer reply.
fn integer(reply: &[u8]) -> i64 {
    let digits = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    let value = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    value.expect("a summed command replies with an integer")
}
