//! Transactions over several shards: their state at a worker, and how they begin. `home` drives a transaction from the
//! shard of its client, `chain` locks its keys on one shard after the other, `participant` does the work of each shard,
//! `stage` decides which commands run together, `merge` merges replies. The algorithm, and why it is right, is
//! described in [`crate::shard::txn`].

mod chain;
mod home;
mod merge;
mod participant;
mod refuse;
mod rights;
mod stage;
mod wide;
mod yielding;

pub(super) use merge::merge;
pub(super) use rights::ParkedCommand;
pub(super) use wide::{CallPlace, WideCaller};

use super::Worker;
use super::connection::StallReason;
use super::program::Hold;
use crate::acl::User;
use crate::client::{ClientId, CommandQueue, WatchedShards};
use crate::command::keys::KeyPositions;
use crate::command::placement::{Need, Placement, Shards, add_check_out_keys};
use crate::command::queue::{Queue, Queued};
use crate::command::table::{CommandEntry, CommandId, CommandTable, KeyspaceLock, Run, Scope, flag};
use crate::command::{Call, CommandError};
use crate::protocol::{Argv, OwnedArgv, Reply};
use crate::pubsub::OpenMessages;
use crate::shard::blocking::OfferId;
use crate::shard::checkout::MovedEntry;
use crate::shard::lock::LockRequestId;
use crate::shard::message::{Message, ReplyId};
use crate::shard::token::Token;
use crate::shard::txn::{
    CallOf, CheckOut, CheckedOutKey, Outcome, PartOfWide, Participant, Plan, ShardBatch, TxnId, TxnMessage,
    Work,
};
use ahash::{AHashMap, AHashSet};
use smallvec::SmallVec;
use stage::{Lists, Stage, StageKind};
use std::collections::VecDeque;
use std::sync::Arc;
use wide::{Wide, WideStart};

/// The state of a transaction at its home.
struct HomeTxn {
    /// The command that the client called: EXEC, or the only command of the queue. Of a coalesced pipeline, the first.
    entry: &'static CommandEntry,
    call: Call,
    is_exec: bool,
    /// It is a [coalesced pipeline](super::coalesce).
    is_coalesced: bool,
    /// It is a wide transaction, or a call of one.
    wide: PartOfWide,
    reply_id: ReplyId,
    /// The queued commands and their routes.
    multi: Box<CommandQueue>,
    /// The EXECs among them, in order.
    blocks: Vec<Block>,
    /// The shards that take part, in ascending order.
    shards: SmallVec<[u16; 8]>,
    /// For each shard: the first command of the last stage in which it has work.
    last_stages: Vec<Option<usize>>,
    /// The last command over the session that writes (FUNCTION LOAD). Each of these is a stage, up to whose end home holds its
    /// locks: nobody begins to read the effects before the last of them is there.
    last_session_write: Option<usize>,
    stage: Stage,
    /// By place: the commands that the client may not call any more, for one before them has changed its rights, and what it
    /// is told. They take their turns and keep their locks, but are not run.
    refused: Vec<(usize, CommandError)>,
    /// The shards' outcomes of the present stage, and how many are missing.
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    /// For each shard whose keys are checked out in this stage: those that have to be moved. Home's own do not.
    keys: Vec<Option<Vec<CheckedOutKey>>>,
    /// The command of the present stage has yet to say which further keys it needs.
    derives_keys: bool,
    /// For each shard: the entries of its first keys, while the further ones are checked out.
    held_entries: Vec<Vec<Option<MovedEntry>>>,
    /// The reply so far.
    reply: Vec<u8>,
    /// How many transactions it is in the statistics.
    count: u64,
    ran_nanos: u64,
    started_at_ticks: u64,
    /// For a blocked command: the key that was offered to it.
    offer: Option<OfferId>,
    /// The shards on which its client watches keys up to the lock point.
    watching: WatchedShards,
    /// How often it has given back its locks and started anew.
    restarts: u64,
    /// It is a program that has not run, and is to be placed again as a wide one.
    is_misplaced: bool,
    /// The command has found nothing and blocks, or holds its client: there is no reply.
    waits: bool,
    /// The program has held its client.
    hold: Option<Box<Hold>>,
    /// One of the commands has closed the client's connection: those behind it get no reply.
    is_closed: bool,
    /// The rest of a coalesced pipeline, which runs after this transaction.
    behind: Option<Box<SerialFallback>>,
    /// Of a call: what its commands have published.
    messages: OpenMessages,
    /// How many pieces the effects consist of, one of them from what home runs over checked-out entries or over the session.
    /// 0: the effects are not recorded, or that is not known yet.
    pieces: u32,
}

/// A MULTI and its commands up to the EXEC, as part of a coalesced pipeline.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Its commands in the queue; at least one.
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) multi: CommandId,
    pub(super) exec: CommandId,
}

/// What is needed to start a transaction.
pub(super) struct Start {
    pub(super) entry: &'static CommandEntry,
    pub(super) call: Call,
    /// With the routes of all queued commands.
    pub(super) multi: Box<CommandQueue>,
    pub(super) blocks: Vec<Block>,
    /// It consists of more than one command or EXEC.
    pub(super) is_coalesced: bool,
    /// As how many transactions it has been counted; 0: it has not been, and counts as one.
    pub(super) counted: u64,
    pub(super) wide: PartOfWide,
    /// All its commands run at home in one stage.
    pub(super) is_gathered: bool,
    /// What runs after it.
    pub(super) behind: Option<Box<SerialFallback>>,
}

impl Start {
    fn one(entry: &'static CommandEntry, call: Call, multi: Box<CommandQueue>) -> Start {
        Start {
            entry,
            call,
            multi,
            blocks: Vec::new(),
            is_coalesced: false,
            counted: 0,
            wide: PartOfWide::No,
            is_gathered: false,
            behind: None,
        }
    }
}

/// A coalesced pipeline that was refused, or the rest of one whose programs have had the shard for long enough, or of which one
/// has turned out to be wide: its commands and EXECs run one by one, each as a transaction.
pub(super) struct SerialFallback {
    multi: Box<CommandQueue>,
    blocks: VecDeque<Block>,
    /// The commands before this one have ended.
    next: usize,
    /// The replies to those.
    reply: Vec<u8>,
}

/// A transaction whose locks this shard has granted.
struct HeldParticipant {
    lock_request: LockRequestId,
    granted_at_ticks: u64,
    /// The client whose watched keys it has locked here. It watches them until the lock point.
    watcher: Option<ClientId>,
    /// The round of its plan: see [`Plan::round`].
    round: u32,
    /// This shard's share of the first stage.
    work: Work,
    keeps_locks: bool,
    /// Home has locked ahead: the plan has not come to this shard yet.
    is_ahead: bool,
    checked_out: Vec<CheckedOutKey>,
    /// How many pieces the transaction's effects have; 0: they are not recorded, or that is not known yet.
    pieces: u32,
    /// The key of this shard that was offered to it. The lock on it belongs to the handoff and is given back in the
    /// end.
    offer: Option<OfferId>,
    /// It is a call: the locks belong to the wide transaction.
    call: Option<CallOf>,
    /// It is a wide transaction, one of whose calls has not ended here: entries that it has checked out are on their way
    /// back.
    has_open_call: bool,
    /// The next call, which has come before those entries.
    next_call: Option<Box<Plan>>,
}

/// An EXEC that waits for its locks, with all that it needs to run later.
pub(super) struct ParkedQueue {
    /// The shard of its client.
    pub(super) home: usize,
    pub(super) reply_id: ReplyId,
    pub(super) call: Call,
    pub(super) queue: Queue,
    /// The client watches keys on this shard.
    pub(super) watches: bool,
    /// See [`ParkedCommand`].
    pub(super) user: Arc<User>,
}

/// What waits in the lock table.
enum Waiter {
    Plan(Box<Plan>),
    Command(Box<ParkedCommand>),
    Queue(Box<ParkedQueue>),
}

/// What the token is wanted for.
enum Wish {
    /// A transaction that has met programs too often.
    Plan(Box<Plan>),
    /// A command or EXEC of this shard that has.
    Unit(LockRequestId),
    /// A wide transaction.
    Start(Box<WideStart>),
    /// A wide unit, and since when it waits, in ticks.
    Program(Box<ParkedCommand>, u64),
}

#[derive(Default)]
pub(super) struct Transactions {
    next_number: u64,
    home: AHashMap<u64, Box<HomeTxn>>,
    /// The wide transactions of this shard's clients.
    wide: AHashMap<TxnId, Wide>,
    held: AHashMap<TxnId, HeldParticipant>,
    /// This shard's share of transactions whose locks it has released again, until their turn comes.
    yielded: AHashMap<TxnId, Participant>,
    /// What waits for each lock request, and since when, in ticks.
    waiting: AHashMap<LockRequestId, (Waiter, u64)>,
    /// While locks are released: the requests granted so far, in order. Emptied when all of them were resumed.
    granted: Vec<LockRequestId>,
    is_releasing: bool,
    /// At the shard that keeps it.
    token: Token,
    /// What this shard wants the token for, in order.
    wishes: VecDeque<Wish>,
    /// This shard has the token, or has asked for it. (A plan that has taken it along does not count.)
    is_token_ours: bool,
    /// For how many holders it was here since it came.
    token_uses: u32,
    /// In this turn a wide transaction of another shard has taken a step here.
    has_stepped: bool,
    /// Units that hold the token until they are granted their locks.
    units_with_token: AHashSet<LockRequestId>,
    /// The wide unit that holds the token, until it starts.
    program_with_token: Option<LockRequestId>,
    #[allow(clippy::vec_box, reason = "they travel in their boxes")]
    spare_shard_batches: Vec<Box<ShardBatch>>,
}

impl Transactions {
    /// Whether a wide unit that is about to start under these locks holds the token, which is its own from then on.
    pub(super) fn take_program_with_token(&mut self, lock_request: LockRequestId) -> bool {
        self.program_with_token.take_if(|waiting| *waiting == lock_request).is_some()
    }

    /// On the only shard: whether anything has the token, or wants it.
    #[inline]
    fn is_token_wanted(&self) -> bool {
        self.is_token_ours || self.token.is_held()
    }

    /// On the only shard: takes the token, which is free.
    pub(super) fn take_free_token(&mut self) {
        assert!(!std::mem::replace(&mut self.is_token_ours, true), "nobody waits for the token");
        self.token_uses = 1;
        self.token.take_free();
    }
}

impl Worker {
    /// Whether the next message is to be expected within microseconds: a wide transaction goes back and forth between shards, and each of
    /// its steps waits for the one before. Asked at the end of a turn.
    #[inline]
    pub fn expects_messages(&mut self) -> bool {
        std::mem::take(&mut self.transact.has_stepped)
            || self.transact.is_token_ours && self.shard.shard_count > 1
    }
}

/// How many shard batches are kept for reuse.
const SPARE_SHARD_BATCHES_MAX: usize = 64;

impl Worker {
    /// Starts a command whose keys are on several shards. The connection is stalled until it has ended.
    pub(super) fn begin_transaction(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
    ) {
        let multi = self.queue_of(entry, call, args);
        self.begin(at, Start::one(entry, call, multi), &[]);
    }

    /// A queue of one command.
    fn queue_of(&mut self, entry: &CommandEntry, call: Call, args: Argv<'_>) -> Box<CommandQueue> {
        let mut multi = self.take_command_queue();
        multi.queue.push(call, 0, args);
        multi.routes.add(entry, args, None, self.shards());
        multi
    }

    pub(super) fn shards(&self) -> Shards {
        Shards { home: self.shard.index, count: self.shard.shard_count }
    }

    /// Starts a blocked command, over the key that was offered to it and the others at `positions`.
    pub(super) fn begin_offered(
        &mut self,
        reply_id: ReplyId,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
        positions: &KeyPositions,
        offer: OfferId,
    ) {
        let mut multi = self.take_command_queue();
        multi.queue.push(call, 0, args);
        multi.routes.add_check_out(args, positions, self.shards());
        let needs = multi.routes.needs(self.table, &multi.queue, self.shard.shard_count);
        self.send_plan(reply_id, Start::one(entry, call, multi), needs, &[], Some(offer));
    }

    /// Starts a command that runs on every shard.
    pub(super) fn begin_every(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: Call,
        args: Argv<'_>,
        lock: KeyspaceLock,
    ) {
        let mut multi = self.take_command_queue();
        multi.queue.push(call, 0, args);
        multi.routes.add_every(lock);
        let start = Start::one(entry, call, multi);
        if lock == KeyspaceLock::All {
            self.begin(at, start, &[]);
            return;
        }
        let shards = (0..self.shard.shard_count as u16).collect();
        let reply_id = self.stall_for_transaction(at, false);
        let (id, works) = self.register(reply_id, start, shards, None);
        for (shard, work) in works.into_iter().enumerate() {
            let Work::Run(shard_batch) = work else { unreachable!("it runs on every shard") };
            self.send(shard, Message::Txn(TxnMessage::Run { id, shard_batch }));
        }
        self.deliver_local();
    }

    /// Starts a command without arguments on every shard, with the whole keyspace locked, for no client.
    pub(super) fn begin_every_for_nobody(&mut self, entry: &'static CommandEntry) {
        let call = Call { command: entry.id, home: self.shard.index as u16, ..Call::default() };
        let args = OwnedArgv::from_slices(&[entry.row.name]);
        let mut multi = self.take_command_queue();
        multi.queue.push(call, 0, args.as_argv());
        multi.routes.add_every(KeyspaceLock::All);
        let needs = multi.routes.needs(self.table, &multi.queue, self.shard.shard_count);
        self.send_plan(ReplyId::NOBODY, Start::one(entry, call, multi), needs, &[], None);
        self.deliver_local();
    }

    /// Starts an EXEC over several shards. The shards on which its client watches keys take part.
    pub(super) fn begin_exec(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: Call,
        mut multi: Box<CommandQueue>,
        watching: &WatchedShards,
    ) {
        multi.complete_routes(self.table, self.shards());
        self.set_executing(at, Some(&multi));
        let mut start = Start::one(entry, call, multi);
        let is_wide = start.multi.queue.iter().any(|(queued, args)| {
            let entry = self.table.entry(queued.call.command);
            self.may_be_wide_in_exec(entry, args)
        });
        if is_wide {
            start.wide = PartOfWide::Beginning;
        }
        self.begin(at, start, watching);
    }

    /// Starts a queue of commands. Their replies are sent one after the other, or, for EXEC, as an array.
    pub(super) fn begin(&mut self, at: usize, mut start: Start, watching: &[u16]) {
        self.gather(&mut start);
        let needs = self.needs_of(&start, watching);
        let reply_id = self.stall_for_transaction(at, start.multi.has_session);
        // Earlier commands of this connection must arrive at the shards before the transaction does.
        self.flush_batches();
        if start.wide == PartOfWide::Beginning {
            self.await_token(reply_id, start, needs, watching);
        } else {
            self.send_plan(reply_id, start, needs, watching, None);
        }
        self.deliver_local();
    }

    /// Stalls a connection until the reply to its transaction has come. `chooses_replies`: the transaction may contain
    /// CLIENT REPLY and so decide itself which replies the client gets; otherwise that is known now.
    fn stall_for_transaction(&mut self, at: usize, chooses_replies: bool) -> ReplyId {
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        connection.stall = Some(StallReason::Transaction);
        if chooses_replies { connection.await_cut_reply(at) } else { connection.await_reply(at) }
    }

    /// While somebody listens to events of keys or to commands, has the commands of a transaction run at home, one after the
    /// other: then what they publish is in their order, and nothing comes between. With one that cannot run among them, each
    /// of the others is checked out by itself, and what they publish is in their order.
    fn gather(&mut self, start: &mut Start) {
        // A program is a stage by itself, and WATCH is about the shards of its keys.
        let stays = |queued: &Queued| {
            let row = self.table.entry(queued.call.command).row;
            matches!(row.run, Run::Program(_)) || matches!(row.scope, Scope::Watch)
        };
        if self.is_observed()
            && start.wide == PartOfWide::No
            && !start.multi.queue.commands().iter().any(stays)
        {
            let CommandQueue { queue, routes, .. } = &mut *start.multi;
            start.is_gathered = routes.check_out_all(queue, self.shard.shard_count);
            if !start.is_gathered && !start.is_coalesced && start.blocks.is_empty() {
                routes.check_out_each(queue, self.shard.shard_count);
            }
        }
    }

    /// Registers a transaction and sends its plan to the first shard.
    fn send_plan(
        &mut self,
        reply_id: ReplyId,
        start: Start,
        mut needs: Vec<Need>,
        watching: &[u16],
        offer: Option<OfferId>,
    ) -> TxnId {
        let (client, wide) = (start.call.client, start.wide);
        // A blocked client has its rights looked at when a key is offered to it.
        let users_version = self.version_to_judge_by(reply_id, &start).filter(|_| offer.is_none());
        // Commands without keys, as a coalesced pipeline may have one behind another that runs alone, run at home.
        if !needs.iter().any(|need| need.takes_part) {
            needs[self.shard.index].takes_part = true;
        }
        let shards: SmallVec<[u16; 8]> =
            (0..needs.len()).filter(|&shard| needs[shard].takes_part).map(|shard| shard as u16).collect();
        if start.counted == 0 {
            self.shard.stats.count_transaction(shards.len());
        }
        let (id, works) = self.register(reply_id, start, shards.clone(), offer);
        self.transact.home.get_mut(&id.number).expect("it is registered").watching = watching.into();
        let txn = &self.transact.home[&id.number];
        let pieces = match wide {
            PartOfWide::Call(call) => u32::from(call.is_recorded),
            PartOfWide::No | PartOfWide::Beginning => txn.pieces_of_effects(self.table),
        };
        let participants = shards.iter().zip(works).enumerate().map(|(n, (&shard, work))| {
            Some(Participant {
                locks: std::mem::take(&mut needs[usize::from(shard)]).into_lock_set(),
                watches: watching.contains(&shard),
                keeps_locks: txn.keeps_locks(n),
                work,
            })
        });
        let participants = participants.collect();
        let is_coalesced = txn.is_coalesced;
        // EXEC may be called while a program is busy, but not what it runs.
        let is_one = !txn.is_exec && !is_coalesced && txn.blocks.is_empty();
        let is_refusable = !is_one || !txn.entry.row.has(flag::ALLOW_BUSY);
        let mut plan = Box::new(Plan {
            id,
            client,
            participants,
            shards,
            first: 0,
            next: 0,
            is_home_ahead: false,
            may_run: true,
            users_version,
            is_coalesced,
            pieces,
            offer,
            round: 0,
            has_token: wide != PartOfWide::No,
            wide,
            // A client that waits for a key goes on waiting, and a program that is under way has been admitted.
            is_refused_while_busy: is_refusable && offer.is_none() && wide.call().is_none(),
        });
        self.lock_ahead(&mut plan);
        self.send(usize::from(plan.shards[0]), Message::Txn(TxnMessage::Lock(plan)));
        id
    }

    /// Registers a transaction at home. Returns its id, and for each shard its share of the first stage.
    fn register(
        &mut self,
        reply_id: ReplyId,
        start: Start,
        shards: SmallVec<[u16; 8]>,
        offer: Option<OfferId>,
    ) -> (TxnId, Vec<Work>) {
        let Start { entry, call, multi, blocks, is_coalesced, counted, wide, is_gathered, behind } = start;
        let number = self.transact.next_number;
        self.transact.next_number += 1;
        let is_exec = matches!(entry.row.scope, Scope::Exec);
        let placements = multi.routes.placements();
        let has_one_stage = is_coalesced || !blocks.is_empty() || is_gathered;
        let first = if has_one_stage {
            Some(stage::only_stage(placements))
        } else {
            stage::stage_from(placements, 0)
        };
        let is_only_stage = first.as_ref().is_none_or(|stage| stage.commands.len() == multi.routes.len());
        let mut last_stages = if is_only_stage {
            vec![Some(0); shards.len()]
        } else {
            stage::last_stages(&multi.routes, &shards)
        };
        let home = shards.iter().position(|&shard| usize::from(shard) == self.shard.index);
        let last_session_write = self.last_session_write(&multi).filter(|_| home.is_some());
        if let Some(home) = home {
            last_stages[home] = last_stages[home].max(last_session_write);
        }
        let mut txn = Box::new(HomeTxn {
            entry,
            call,
            is_exec,
            is_coalesced,
            wide,
            reply_id,
            multi,
            blocks,
            count: counted.max(1),
            last_stages,
            last_session_write,
            stage: first.unwrap_or(Stage { kind: StageKind::Lists, commands: 0..0 }),
            refused: Vec::new(),
            outcomes: shards.iter().map(|_| None).collect(),
            missing: shards.len(),
            keys: Vec::new(),
            derives_keys: false,
            held_entries: Vec::new(),
            shards,
            reply: self.pools.take_buffer(),
            ran_nanos: 0,
            started_at_ticks: self.time.ticks,
            offer,
            watching: WatchedShards::new(),
            restarts: 0,
            is_misplaced: false,
            waits: false,
            hold: None,
            is_closed: false,
            behind,
            messages: OpenMessages::default(),
            pieces: 0,
        });
        if is_exec && self.wants_reply(&txn) {
            Reply::new(&mut txn.reply, call.resp).array(txn.multi.queue.len());
        }
        let works = self.stage_works(&mut txn);
        self.transact.home.insert(number, txn);
        (TxnId { home: self.shard.index as u32, number }, works)
    }

    /// The place in a queue of the last command over the session that writes.
    fn last_session_write(&self, multi: &CommandQueue) -> Option<usize> {
        let writes = |at: &usize| {
            let command = multi.queue.commands()[*at].call.command;
            multi.routes.placement(*at) == Placement::Session
                && self.table.entry(command).row.has(flag::WRITE)
        };
        (0..multi.routes.len()).rev().find(writes)
    }

    /// For each shard its share of the present stage.
    fn stage_works(&mut self, txn: &mut HomeTxn) -> Vec<Work> {
        let works = txn.shards.iter().map(|_| Work::Nothing).collect();
        if txn.stage.kind == StageKind::Session {
            return works;
        }
        let CommandQueue { queue, routes, .. } = &*txn.multi;
        let home = self.shard.index;
        let (mut keys, mut has_own) = (Vec::new(), false);
        if txn.stage.kind == StageKind::CheckOut {
            keys.resize_with(self.shard.shard_count, Vec::new);
        }
        let spare = &mut self.transact.spare_shard_batches;
        let mut lists = Lists { shards: &txn.shards, works, spare };
        let is_refused = |at: usize| txn.refused.iter().any(|(refused, _)| *refused == at);
        for at in txn.stage.commands.clone() {
            if routes.placement(at).is_checked_out() {
                txn.derives_keys = routes.placement(at) == Placement::CheckOutDerived;
                let call = queue.commands()[at].call;
                let row = self.table.entry(call.command).row;
                let db_count = self.shard.db_count();
                // A program of a wide transaction comes to its keys, even to those that it declares.
                if txn.wide != PartOfWide::Beginning || !matches!(row.run, Run::Program(_)) {
                    let (args, routed) = (queue.args(at), routes.keys(at));
                    has_own |= add_check_out_keys(row, args, routed, home, call.db, db_count, &mut keys);
                }
            } else if is_refused(at) {
                lists.add_nothing(routes, at);
            } else {
                lists.add(queue, routes, at);
            }
        }
        let mut works = lists.works;
        if txn.stage.kind == StageKind::CheckOut {
            let keys_of = |&shard: &u16| {
                if usize::from(shard) == home {
                    // They stay where they are, locked.
                    return has_own.then(Vec::new);
                }
                let mut keys = std::mem::take(&mut keys[usize::from(shard)]);
                if keys.is_empty() {
                    return None;
                }
                keys.sort_unstable();
                keys.dedup();
                Some(keys)
            };
            txn.keys = txn.shards.iter().map(keys_of).collect();
            if txn.keys.iter().all(Option::is_none) {
                // A program without keys; or in a wide transaction, in which home takes part.
                let is_wide = txn.wide == PartOfWide::Beginning;
                let home = txn.shards.iter().position(|&shard| usize::from(shard) == self.shard.index);
                txn.keys[home.filter(|_| is_wide).unwrap_or(0)] = Some(Vec::new());
            }
            for (work, keys) in works.iter_mut().zip(&txn.keys) {
                let Some(keys) = keys else { continue };
                let list = match std::mem::replace(work, Work::Nothing) {
                    Work::Run(list) => Some(list),
                    Work::Nothing | Work::CheckOut(_) => None,
                };
                *work = Work::CheckOut(Box::new(CheckOut { keys: keys.clone(), list }));
            }
        }
        works
    }

    /// Handles a message about a transaction, from any shard.
    pub(super) fn handle_txn(&mut self, message: TxnMessage) {
        match message {
            TxnMessage::Lock(plan) => self.lock_participant(plan),
            TxnMessage::Yield { id } => self.yield_participant(id),
            TxnMessage::GiveBack { id, round } => self.give_back(id, round),
            TxnMessage::Cancel { id, client } => self.cancel_participant(id, client),
            TxnMessage::Busy { id, kind } => self.refuse_transaction(id, kind),
            TxnMessage::Restarted { id } => self.count_restart(id),
            TxnMessage::Mark { id } => self.mark_participant(id),
            TxnMessage::End { id, pieces } => self.end_participant(id, pieces),
            TxnMessage::Go { id, lock_point, pieces, done } => {
                if done.is_some() {
                    self.note_pieces(id, pieces);
                }
                let outcome = self.go(id, lock_point, pieces);
                self.done(id, outcome);
                if let Some((shard, outcome)) = done {
                    self.collect(id, shard, outcome);
                }
            }
            TxnMessage::Step { id, work, keeps_locks } => {
                let outcome = self.step(id, work, keeps_locks);
                self.done(id, outcome);
            }
            TxnMessage::Done { id, shard, outcome } => self.collect(id, shard, outcome),
            TxnMessage::CheckIn(returned) => self.check_in(*returned),
            TxnMessage::PlaceAgain(misplaced) => self.place_again(*misplaced),
            TxnMessage::Run { id, mut shard_batch } => {
                self.serve_due_first();
                self.run_shard_batch(id, &mut shard_batch);
                self.done(id, Outcome::Ran(shard_batch));
            }
        }
    }
}

impl HomeTxn {
    /// Why a command is not run.
    fn refusal(&self, at: usize) -> Option<&CommandError> {
        self.refused.iter().find(|(refused, _)| *refused == at).map(|(_, error)| error)
    }

    /// How many pieces its effects consist of, if they are recorded; 0: no command of it writes.
    fn pieces_of_effects(&self, table: &CommandTable) -> u32 {
        // What a module's command records is the module's matter, whatever it says of it.
        const WRITES: u64 = flag::WRITE | flag::MAY_REPLICATE | flag::MODULE;
        let mut commands = self.multi.queue.commands().iter();
        if !commands.any(|queued| table.entry(queued.call.command).row.flags & WRITES != 0) {
            return 0;
        }
        let over_checked_out = self.multi.routes.placements().iter().any(|at| at.is_checked_out());
        let has_homes_own = over_checked_out || self.last_session_write.is_some();
        (self.shards.len() + usize::from(has_homes_own)) as u32
    }

    /// Whether it takes locks. A command that runs on every shard without locks (CLIENT LIST) counts as no transaction.
    fn is_transaction(&self) -> bool {
        self.wide.call().is_none()
            && (self.is_exec || self.multi.routes.placements() != [Placement::Every(KeyspaceLock::None)])
    }

    /// Whether the `n`th shard keeps its locks after its share of the present stage.
    fn keeps_locks(&self, n: usize) -> bool {
        let now = self.stage.commands.start;
        let later = self.last_stages[n].is_some_and(|last| last > now);
        let is_homes = self.shards[n] == self.call.home;
        later
            || is_homes && self.stage.kind == StageKind::Session && self.last_session_write >= Some(now)
            || self.wide == PartOfWide::Beginning
            || self.derives_keys
            || self.keys.get(n).is_some_and(Option::is_some)
    }
}
