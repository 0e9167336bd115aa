//! Work over several shards: what a worker knows of it, and how it begins. `home` drives a transaction from the shard
//! of its client, `part` is each shard's part in it, `stage` says what runs together, `merge` makes replies. The
//! algorithm and its argument stand in [`crate::shard::txn`].

mod home;
mod merge;
mod part;
mod stage;

pub(super) use merge::merge;

use super::Worker;
use super::connection::Hold;
use crate::client::{Multi, WatchedShards};
use crate::command::Call;
use crate::command::keys::{self, KeyPositions};
use crate::command::queue::Queue;
use crate::command::route::{self, Need, Placement};
use crate::command::table::{CommandTable, Entry, KeyspaceLock, flag};
use crate::protocol::Argv;
use crate::shard::blocking::OfferId;
use crate::shard::lock::Ticket;
use crate::shard::message::{Message, ParkedCommand, Token};
use crate::shard::txn::{CheckedOutKey, Outcome, Part, Plan, Portion, TxnId, TxnMessage, Work};
use ahash::AHashMap;
use smallvec::SmallVec;
use stage::{Lists, Stage, StageKind};

/// A transaction at its home.
struct HomeTxn {
    /// The command that the client waits for: EXEC, or the one that the queue consists of.
    entry: &'static Entry,
    call: Call,
    is_exec: bool,
    token: Token,
    multi: Box<Multi>,
    /// For each queued command.
    placements: Vec<Placement>,
    /// The shards that take part, in ascending order.
    shards: SmallVec<[u16; 8]>,
    /// For each shard: with which command the last stage begins in which it has work.
    last_stages: Vec<Option<usize>>,
    stage: Stage,
    /// What the shards returned of the stage.
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    /// What is checked out, for each shard.
    keys: Vec<Vec<CheckedOutKey>>,
    /// The reply as far as there is any.
    reply: Vec<u8>,
    ran_nanos: u64,
    started_at_ticks: u64,
    /// For a command that has waited: the key that was offered to it, and the arguments that are the keys it needs now.
    offer: Option<(OfferId, KeyPositions)>,
    /// The command has found nothing and waits: there is no reply.
    waits: bool,
    /// What goes after it.
    behind: Option<Box<Stragglers>>,
    /// What home runs over guests is one of so many pieces of the effects; 0: they are not noted, or not known yet to be.
    pieces: u32,
}

/// What a transaction begins with.
struct Start {
    token: Token,
    entry: &'static Entry,
    call: Call,
    multi: Box<Multi>,
    placements: Vec<Placement>,
}

/// A convoy that was refused: its commands go one by one, each as a transaction.
struct Stragglers {
    multi: Box<Multi>,
    placements: Vec<Placement>,
    /// Those before have ended.
    next: usize,
    /// Their replies.
    reply: Vec<u8>,
}

/// A part whose locks this shard has granted.
struct HeldPart {
    ticket: Ticket,
    granted_at_ticks: u64,
    /// Its share of the first stage.
    work: Work,
    stays: bool,
    checked_out: Vec<CheckedOutKey>,
    /// How many pieces the transaction's effects have; 0: they are not noted, or it is not known yet.
    pieces: u32,
    /// Its lock on the key that was offered is lent.
    offer: Option<OfferId>,
}

/// An EXEC that waits for a lock, kept with all it needs to run later.
pub(super) struct ParkedQueue {
    /// The shard of its client.
    pub(super) home: usize,
    pub(super) token: Token,
    pub(super) call: Call,
    pub(super) queue: Queue,
    /// Its client watches keys here.
    pub(super) watches: bool,
}

/// What waits in the lock table.
enum Waiter {
    Plan(Box<Plan>),
    Command(Box<ParkedCommand>),
    Queue(Box<ParkedQueue>),
}

#[derive(Default)]
pub(super) struct Transactions {
    next_number: u64,
    home: AHashMap<u64, Box<HomeTxn>>,
    held: AHashMap<TxnId, HeldPart>,
    /// Who waits, and since when.
    waiting: AHashMap<Ticket, (Waiter, u64)>,
    /// While locks are released: who is granted and has not gone on yet.
    granted: Vec<Ticket>,
    is_releasing: bool,
    #[allow(clippy::vec_box, reason = "they travel in their boxes")]
    spare_portions: Vec<Box<Portion>>,
}

/// Portions kept for reuse.
const SPARE_PORTIONS_MAX: usize = 64;

impl Worker {
    /// Starts a command whose keys live on several shards. The connection is held until it has ended.
    pub(super) fn begin_transaction(&mut self, at: usize, entry: &'static Entry, call: Call, args: Argv<'_>) {
        let mut multi = self.take_multi();
        multi.queue.push(call, 0, args);
        let placements = vec![route::place(entry, args, self.shard.index, self.shard.shard_count)];
        self.begin(at, entry, call, multi, placements, &[]);
    }

    /// Starts a command that has waited, over the key that was offered to it and others at `positions`.
    pub(super) fn begin_offered(
        &mut self,
        token: Token,
        entry: &'static Entry,
        call: Call,
        args: Argv<'_>,
        positions: KeyPositions,
        offer: OfferId,
    ) {
        let mut multi = self.take_multi();
        multi.queue.push(call, 0, args);
        let mut needs = vec![Need::default(); self.shard.shard_count];
        route::add_key_needs(args, &positions, true, &mut needs);
        let start = Start { token, entry, call, multi, placements: vec![Placement::CheckOut] };
        self.send_plan(start, needs, &[], Some((offer, positions)));
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
        let mut multi = self.take_multi();
        multi.queue.push(call, 0, args);
        let placements = vec![Placement::Every(lock)];
        if lock == KeyspaceLock::All {
            self.begin(at, entry, call, multi, placements, &[]);
            return;
        }
        let shards = (0..self.shard.shard_count as u16).collect();
        let token = self.hold_for_transaction(at);
        let start = Start { token, entry, call, multi, placements };
        let (id, works) = self.register(start, shards, None);
        for (shard, work) in works.into_iter().enumerate() {
            let Work::Run(portion) = work else { unreachable!("it runs on every shard") };
            self.send(shard, Message::Txn(TxnMessage::Run { id, portion }));
        }
        self.deliver_local();
    }

    /// Starts an EXEC over several shards, of those on which its client watches keys among others.
    pub(super) fn begin_exec(
        &mut self,
        at: usize,
        entry: &'static Entry,
        call: Call,
        multi: Box<Multi>,
        watching: &WatchedShards,
    ) {
        let (home, shard_count) = (self.shard.index, self.shard.shard_count);
        let placements = multi.queue.iter().map(|(queued, args)| {
            route::place(self.table.entry(queued.call.command), args, home, shard_count)
        });
        let placements = placements.collect();
        self.begin(at, entry, call, multi, placements, watching);
    }

    /// Starts a queue of commands. What comes of them is one reply behind the other, or, for EXEC, an array of them.
    pub(super) fn begin(
        &mut self,
        at: usize,
        entry: &'static Entry,
        call: Call,
        multi: Box<Multi>,
        placements: Vec<Placement>,
        watching: &[u16],
    ) {
        let mut needs = vec![Need::default(); self.shard.shard_count];
        for ((queued, args), &placement) in multi.queue.iter().zip(&placements) {
            route::add_needs(self.table.entry(queued.call.command), args, placement, &mut needs);
        }
        watching.iter().for_each(|&shard| needs[usize::from(shard)].takes_part = true);
        if !needs.iter().any(|need| need.takes_part) {
            needs[self.shard.index].takes_part = true;
        }
        let token = self.hold_for_transaction(at);
        // What this connection sent to the shards before must arrive there before the locks.
        self.flush_batches();
        self.send_plan(Start { token, entry, call, multi, placements }, needs, watching, None);
        self.deliver_local();
    }

    /// The connection's next reply is that of a transaction, and nothing of it runs before.
    fn hold_for_transaction(&mut self, at: usize) -> Token {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        connection.hold = Some(Hold::Transaction);
        connection.await_reply(at)
    }

    /// Sends a transaction on its way.
    fn send_plan(
        &mut self,
        start: Start,
        mut needs: Vec<Need>,
        watching: &[u16],
        offer: Option<(OfferId, KeyPositions)>,
    ) -> TxnId {
        let client = start.call.client;
        let offer_id = offer.as_ref().map(|&(id, _)| id);
        let shards: SmallVec<[u16; 8]> =
            (0..needs.len()).filter(|&shard| needs[shard].takes_part).map(|shard| shard as u16).collect();
        let (id, works) = self.register(start, shards.clone(), offer);
        let txn = &self.transact.home[&id.number];
        let pieces = txn.pieces_of_effects(self.table);
        let parts = shards.iter().zip(works).enumerate().map(|(n, (&shard, work))| {
            Some(Part {
                shard: usize::from(shard),
                locks: std::mem::take(&mut needs[usize::from(shard)]).into_lock_set(),
                watches: watching.contains(&shard),
                stays: txn.stays(n),
                work,
            })
        });
        let parts = parts.collect();
        let is_convoy = txn.is_convoy();
        let plan =
            Plan { id, client, parts, shards, next: 0, holds: true, is_convoy, pieces, offer: offer_id };
        let first = usize::from(plan.shards[0]);
        self.send(first, Message::Txn(TxnMessage::Lock(Box::new(plan))));
        id
    }

    /// Notes a transaction. Returns its name, and for each shard its share of the first stage.
    fn register(
        &mut self,
        start: Start,
        shards: SmallVec<[u16; 8]>,
        offer: Option<(OfferId, KeyPositions)>,
    ) -> (TxnId, Vec<Work>) {
        let Start { token, entry, call, multi, placements } = start;
        let number = self.transact.next_number;
        self.transact.next_number += 1;
        self.shard.stats.count_transaction(shards.len());
        let is_exec = matches!(entry.row.scope, crate::command::table::Scope::Exec);
        let mut reply = self.take_buffer();
        if is_exec {
            crate::protocol::Reply::new(&mut reply, call.resp).array(multi.queue.len());
        }
        let first = stage::stage_from(&placements, 0);
        let is_only_stage = first.as_ref().is_none_or(|stage| stage.commands.len() == placements.len());
        let last_stages = if is_only_stage {
            vec![Some(0); shards.len()]
        } else {
            stage::last_stages(self.table, &multi.queue, &placements, &shards, self.shard.shard_count)
        };
        let mut txn = Box::new(HomeTxn {
            entry,
            call,
            is_exec,
            token,
            multi,
            placements,
            last_stages,
            stage: first.unwrap_or(Stage { kind: StageKind::Lists, commands: 0..0 }),
            outcomes: shards.iter().map(|_| None).collect(),
            missing: shards.len(),
            keys: Vec::new(),
            shards,
            reply,
            ran_nanos: 0,
            started_at_ticks: self.ticks,
            offer,
            waits: false,
            behind: None,
            pieces: 0,
        });
        let works = self.stage_works(&mut txn);
        self.transact.home.insert(number, txn);
        (TxnId { home: self.shard.index as u32, number }, works)
    }

    /// For each shard its share of the transaction's stage.
    fn stage_works(&mut self, txn: &mut HomeTxn) -> Vec<Work> {
        let shard_count = self.shard.shard_count;
        let works = txn.shards.iter().map(|_| Work::Nothing).collect();
        match txn.stage.kind {
            StageKind::Session => works,
            StageKind::CheckOut => {
                let at = txn.stage.commands.start;
                let queued = txn.multi.queue.commands()[at];
                let row = self.table.entry(queued.call.command).row;
                let (db, db_count) = (queued.call.db, self.shard.dbs.len());
                let args = txn.multi.queue.args(at);
                let positions = match &txn.offer {
                    Some((_, positions)) => positions.clone(),
                    None => keys::positions(row, args),
                };
                let mut keys = route::check_out_keys(row, args, &positions, db, db_count, shard_count);
                txn.keys =
                    txn.shards.iter().map(|&shard| std::mem::take(&mut keys[usize::from(shard)])).collect();
                let work = |keys: &Vec<CheckedOutKey>| match keys.is_empty() {
                    true => Work::Nothing,
                    false => Work::CheckOut(keys.clone()),
                };
                txn.keys.iter().map(work).collect()
            }
            StageKind::Lists => {
                let spare = &mut self.transact.spare_portions;
                let mut lists = Lists { shards: &txn.shards, works, spare };
                let range = txn.stage.commands.clone();
                for (at, (queued, args)) in txn.multi.queue.iter().enumerate() {
                    if range.contains(&at) {
                        let row = self.table.entry(queued.call.command).row;
                        lists.add(row, queued, args, txn.placements[at], shard_count);
                    }
                }
                lists.works
            }
        }
    }

    /// A message about a transaction, from any shard.
    pub(super) fn handle_txn(&mut self, message: TxnMessage) {
        match message {
            TxnMessage::Lock(plan) => self.lock_part(plan),
            TxnMessage::Go { id, holds, pieces } => self.go(id, holds, pieces),
            TxnMessage::Step { id, work, stays } => self.step(id, work, stays),
            TxnMessage::Done { id, shard, outcome } => self.collect(id, shard, outcome),
            TxnMessage::CheckIn { id, entries, events, wait, stays } => {
                self.check_in(id, entries, &events, wait, stays);
            }
            TxnMessage::Run { id, mut portion } => {
                self.run_portion(id, &mut portion);
                self.done(id, Outcome::Ran(portion));
            }
        }
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
        let mut merged = Vec::new();
        self.run_every(entry, call, args, Some(at), &mut merged);
        self.fulfil(token, &merged);
        super::pipeline::Flow::Next
    }

    /// The same into `out`.
    pub(super) fn run_every(
        &mut self,
        entry: &'static Entry,
        call: &Call,
        args: Argv<'_>,
        conn: Option<usize>,
        out: &mut Vec<u8>,
    ) {
        let mut reply = self.take_buffer();
        self.run(entry, call, args, conn, &mut reply);
        merge(entry, args, &[0], &[&reply], 1, out);
        self.give_buffer(reply);
    }
}

impl HomeTxn {
    /// Whether it consists of commands that its client sent one by one.
    fn is_convoy(&self) -> bool {
        !self.is_exec && self.placements.len() > 1
    }

    /// How many pieces its effects have, if they are noted; 0: it changes nothing.
    fn pieces_of_effects(&self, table: &CommandTable) -> u32 {
        const WRITES: u64 = flag::WRITE | flag::MAY_REPLICATE;
        let mut commands = self.multi.queue.commands().iter();
        if !commands.any(|queued| table.entry(queued.call.command).row.flags & WRITES != 0) {
            return 0;
        }
        let over_guests = self.placements.contains(&Placement::CheckOut);
        (self.shards.len() + usize::from(over_guests)) as u32
    }

    /// Whether the `n`th shard keeps its locks when it has done its share of the current stage.
    fn stays(&self, n: usize) -> bool {
        let later = self.last_stages[n].is_some_and(|last| last > self.stage.commands.start);
        later || self.keys.get(n).is_some_and(|keys| !keys.is_empty())
    }
}
