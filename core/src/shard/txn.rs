//! Transactions over keys of several shards: how they are ordered, and the messages they take.
//!
//! # The algorithm: ordered two-phase locking along a chain
//!
//! A transaction is one command, or one EXEC, over keys that live on shards `s1 < s2 < ... < sk`. Its *home*, the shard
//! of its client, sends one [`TxnMessage::Lock`] to `s1`. A shard that receives it puts the transaction into its [lock
//! table](crate::shard::lock) on all its keys at once. When it is granted there, the shard passes the message on to the
//! next one. When the last shard has granted it, all locks are held: that is the *lock point*, the moment at which the
//! transaction takes effect. The last shard then tells the others ([`TxnMessage::Go`]), and every shard does its share:
//! it runs a list of commands over its own keys, releases its locks, and sends the replies home ([`TxnMessage::Done`]).
//!
//! Two optimisations save messages and work when the keys are free, which is nearly always the case:
//!
//! - *Home locks ahead.* If its own keys are free, home locks them before it sends the message, and the chain skips it.
//!   If the transaction then has to wait at a shard before home, it must not hold locks of a shard that comes later in
//!   order: home is told to release them ([`TxnMessage::Yield`]), and locks its keys again when its turn comes.
//! - *The last shard locks nothing.* If its keys are free and it has no work in a later stage, it does its share at
//!   once, as it would run a command of its own.
//!
//! So a transaction over two shards, one of them home, takes two messages: one to the other shard, and one back with
//! its outcome.
//!
//! A transaction with all its keys on one shard needs none of this: it runs there at once, or waits in the lock table
//! for its turn. That costs a command one branch, which checks that the table is empty.
//!
//! # What runs where
//!
//! A command over keys of one shard is in that shard's list. A *fan-out* (MGET, DEL, FLUSHALL) is in the lists of all
//! its shards, with each shard's keys, and home merges their replies into one by the row's merge rule. So a command
//! over several shards is handled as an EXEC of one command, at no extra cost.
//!
//! Any other command over keys of several shards (RENAME, COPY, MSETNX) is a *check-out*: each shard takes the locked
//! entries out of its tables and sends them home as owned values. Home puts them into its own tables, runs the
//! ordinary handler over them, takes out what is then there under these keys, and sends it back with a list of what
//! changed ([`TxnMessage::CheckIn`]). Home's own entries stay where they are, locked. Between putting them in and taking them out nothing else runs at home, so no
//! other command sees the checked-out entries.
//!
//! An EXEC that contains a check-out, or a command over its session, is cut into *stages* there. The first stage starts
//! at the lock point, each later one when home has the outcomes of the one before ([`TxnMessage::Step`]). A shard keeps
//! its locks until it has done its share of the last stage in which it has one.
//!
//! Several commands and EXECs over several shards that a client sends without waiting for replies may run as one
//! transaction: a [coalesced pipeline](crate::worker). It is a single stage, also if check-outs are among its commands.
//! Then the keys of all of these are checked out together, and home runs one after the other. A command that uses one
//! of these keys although it could run on its own shard runs at home as well, with all of its keys, and so does one
//! that uses a key of such a command. The remaining commands have no key in common with those that run at home, so
//! every shard can run its own of them at any time while the locks are held.
//!
//! # What a handler over keys of several shards looks like
//!
//! Like any other. It is written against [`Ctx`](crate::command::Ctx): the keys that its row declares are in
//! `ctx.shard` when it runs, whichever shard owns them. This is a command that reads two keys and writes a third, as
//! SUNIONSTORE does. Neither the handler nor its row mentions shards:
//!
//! ```text
//! const JOIN: Command =
//!     Command::keys("tjoin", 4, join).flags(flag::WRITE | flag::DENYOOM).acl(acl::STRING).at(&[
//!         KeySpec::range(1, 1, 1, key_flag::RO | key_flag::ACCESS),
//!         KeySpec::one(3, key_flag::OW | key_flag::UPDATE),
//!     ]);
//!
//! fn join(ctx: &mut Ctx<'_>) -> CommandResult {
//!     let mut words = words_at(ctx, 1)?;
//!     words.extend(words_at(ctx, 2)?);
//!
//!     store(ctx, 3, &words);
//!
//!     ctx.reply.integer(words.len() as i64);
//!     Ok(())
//! }
//! ```
//!
//! `words_at` is `ctx.shard.lookup_read(ctx.call, ctx.key(at))` and a conversion. `store` is `ctx.shard.set` or, if
//! there is nothing to store, `ctx.shard.delete`. (A value is changed in place through the guard that
//! `ctx.shard.change` returns: see [`change`](crate::shard::change).) These calls take care of effects,
//! notifications, WATCH, and clients blocked on the written key, on the shard that owns the key. (The tests have
//! these commands, in `core/tests/sim/rows.rs`, and run them over one shard and several, alone, in EXEC, and under
//! WATCH.)
//!
//! A handler must not touch a key that its row does not declare: the key would not be there. Only a command whose
//! work on one key does not depend on the others may have a merge rule other than
//! [`Merge::CheckOut`](crate::command::table::Merge); it then runs on the shards that own its keys.
//!
//! A blocking command (BLPOP, BLMOVE) that has found nothing returns what it wants to wait for. Whether it then
//! blocks, on which shards, and how it is served is not the handler's concern:
//!
//! ```text
//! const BTAKE: Command = Command::blocking("btake", -3, btake)
//!     .flags(flag::WRITE)
//!     .acl(acl::STRING)
//!     .at(&[KeySpec::range(1, -2, 1, TAKEN)]);
//!
//! fn btake(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
//!     let keys = 1..ctx.args.len() - 1;
//!     let deadline_ms = args::deadline_ms(ctx.arg(keys.end), ctx.shard.now_ms)?;
//!
//!     for at in ctx.takes_from(keys.clone()) {
//!         if let Some(word) = take_first(ctx, at)? {
//!             ctx.effect(&[b"TTAKE", ctx.args.arg(at)]);
//!             ctx.reply.array(2);
//!             ctx.reply.bulk(ctx.args.arg(at));
//!             ctx.reply.bulk(&word);
//!             return Ok(None);
//!         }
//!     }
//!
//!     ctx.block(keys, deadline_ms, TimeoutReply::NullArray)
//! }
//! ```
//!
//! [`Ctx::takes_from`](crate::command::Ctx::takes_from) gives all keys at the first run, and when the command is
//! woken the one key that it was woken for. Its [effect](crate::command::Ctx::effect) names the key that it took
//! from, because on a replica another of the keys might be the first that exists. What it returns by
//! [`Ctx::block`](crate::command::Ctx::block) also says what the client gets at the timeout, and at once in EXEC,
//! where commands never block. A command that cannot use every value (BLPOP cannot pop from a string) has its own
//! [`ready`](crate::command::table::Command::ready). A mover (BMOVE in the tests) differs in one more key spec. What
//! happens while the command is blocked is described in [`blocking`](crate::shard::blocking).
//!
//! # Programs
//!
//! A program may hold its keys for long, or ask for more while it holds some. How transactions give way to it, and why
//! that is correct, is described in [`token`](crate::shard::token).
//!
//! # WATCH
//!
//! Watched keys are [registered](crate::shard::watch) on their shards, and an EXEC takes these shards into its chain
//! with shared locks on the watched keys. When a shard grants its locks, it checks whether its watched keys are
//! unchanged; the result so far travels with the plan. If a key has changed on any shard, the last shard tells all
//! others so, and nothing runs on any of them.
//!
//! # Why this is correct
//!
//! *No deadlock.* A transaction that waits at shard `s` waits for transactions that arrived at `s` before it. Each of
//! these runs, or waits at `s` for still earlier ones, or holds its locks at `s` and waits at a shard behind `s`. At
//! the highest shard where any transaction waits, the first in order of arrival holds its locks and waits at no later
//! shard, so it can run: some transaction always makes progress. A transaction past its lock point waits for no other
//! any more: home moves it on by messages alone, even if its client has disconnected. A request for a shard's whole
//! keyspace takes its place in the same order. There are two exceptions to the order. One is a command that is woken
//! for a key and takes over its lock; [`blocking`](crate::shard::blocking) says why that is harmless. The other is
//! the locks that home takes ahead of its turn. They are held out of order for no longer than a message takes: an
//! earlier shard at which the transaction has to wait tells home to release them. (The transaction may reach home in
//! its turn before that message does. Then home keeps the locks, which are now held in order, and ignores the
//! message.)
//!
//! *No starvation.* Every shard grants in order of arrival, and no request is overtaken. Nothing is retried because
//! of other transactions' locks, with one exception: the locks that home took ahead are released and requested again
//! once at most, and only before its turn. A coalesced pipeline that is refused continues as single transactions,
//! which are never refused for that reason. A command that was woken and found its key taken keeps its place among
//! the waiters.
//!
//! *No reordering.* A shard's share runs while all locks of the transaction are held, and every other command that
//! touches one of these keys queues up behind them, so the order of the lock points is a serial order. A shard may
//! release its locks before other shards have done their shares, because nothing is locked after a release. The order
//! is also strict: the lock point lies between the client's call and the reply. Within one connection a transaction
//! starts when all earlier replies of the connection are there, and nothing else of the connection starts before it
//! has ended. So it cannot overtake its own client's other commands or be overtaken by them, although the messages
//! that lock its keys and those that carry such commands travel separately.

use crate::call::queue::Queue;
use crate::call::{Call, ClientId, ProgramKind};
use crate::protocol::OwnedArgv;
use crate::pubsub::OpenMessages;
use crate::shard::blocking::{NewWait, OfferId};
use crate::shard::checkout::MovedEntry;
use crate::shard::effects::Readers;
use crate::shard::lock::LockSet;
use crate::shard::message::ReplyId;
use crate::shard::observe::CheckedOutEvent;
use smallvec::SmallVec;

/// Identifies a transaction: its home shard, and that shard's running number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TxnId {
    pub home: u32,
    pub number: u64,
}

/// The commands that a shard runs in a stage; on the way back, with their replies.
#[derive(Default)]
pub struct ShardBatch {
    pub queue: Queue,
    /// Hashes of the commands' keys: see [`Queued::hash_count`](crate::call::queue::Queued::hash_count).
    pub hashes: Vec<u64>,
    /// The replies, concatenated.
    pub replies: Vec<u8>,
    /// For each command: where its reply ends, and how many nanoseconds it ran; the mean of several that take constant time.
    pub ran: Vec<(usize, u64)>,
    /// The command at this place has closed the client's connection (CLIENT KILL of itself): the client gets no replies
    /// to the commands behind it.
    pub closed_by: Option<u32>,
    /// What the commands of a call have published: it leaves with what else the program publishes.
    pub messages: OpenMessages,
}

impl ShardBatch {
    /// What its commands look up, for prefetching: databases and hashes.
    pub fn look_ups(&self) -> impl Iterator<Item = (u32, u64)> + Clone {
        // Nearly always all commands use one database, and a wrong one only makes the prefetch useless.
        let db = self.queue.commands().first().map_or(0, |queued| queued.call.db);
        self.hashes.iter().map(move |&hash| (db, hash))
    }

    /// Adds the hashes of the next keys of the last command.
    pub fn push_hashes(&mut self, hashes: impl ExactSizeIterator<Item = u64>) {
        let last = self.queue.commands_mut().last_mut().expect("a command was begun");
        last.hash_count += hashes.len() as u32;
        self.hashes.extend(hashes);
    }

    /// Empties the batch for reuse.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.hashes.clear();
        self.replies.clear();
        self.replies.shrink_to(REPLY_BYTES_KEPT_MAX);
        self.ran.clear();
        self.closed_by = None;
        self.messages = OpenMessages::default();
    }
}

/// A batch that is kept for reuse keeps no larger reply buffer than this.
const REPLY_BYTES_KEPT_MAX: usize = 64 << 10;

/// A key that is checked out: database, hash, key.
pub type CheckedOutKey = (u32, u64, Vec<u8>);

/// What a shard does in a stage.
pub enum Work {
    /// Only holds its locks.
    Nothing,
    /// Runs these commands.
    Run(Box<ShardBatch>),
    /// Runs the commands of the list, if there is one, and hands over entries, which will be checked in later.
    CheckOut(Box<CheckOut>),
}

/// The entries that a shard hands over, and what else it does in the same stage.
pub struct CheckOut {
    pub keys: Vec<CheckedOutKey>,
    /// None of these commands uses one of the keys.
    pub list: Option<Box<ShardBatch>>,
}

/// One shard's role in a transaction: its locks, and its share of the first stage.
pub struct Participant {
    pub locks: LockSet,
    /// The client watches keys there: these are locked too, and must be unchanged.
    pub watches: bool,
    pub work: Work,
    /// The locks are kept after this work: the shard has work in a later stage, or a check-in will follow.
    pub keeps_locks: bool,
}

/// A transaction on its way along its shards.
pub struct Plan {
    pub id: TxnId,
    /// The client whose watched keys are checked.
    pub client: ClientId,
    /// In ascending order of shards. Each shard takes its own out when it has locked it.
    pub participants: Vec<Option<Participant>>,
    /// The shards of the participants.
    pub shards: SmallVec<[u16; 8]>,
    /// The participant at which this round has begun: the first, or where it has waited for a program with the token.
    pub first: usize,
    /// The participant that is to be locked next.
    pub next: usize,
    /// Home holds its locks, whether its turn has come or not.
    pub is_home_ahead: bool,
    /// The transaction may run: on all shards so far the watched keys are unchanged and, if it is a coalesced pipeline,
    /// no client is blocked on a key that it changes.
    pub may_run: bool,
    /// The version of the users by which it was judged. `None`: it is not judged again.
    pub users_version: Option<u64>,
    /// It is a coalesced pipeline. A client blocked on a key that it changes would have to be served between its
    /// commands, so in that case it is refused.
    pub is_coalesced: bool,
    /// How many pieces its [effects](crate::shard::effects) have if they are recorded; 0: it has no effects.
    pub pieces: u32,
    /// For a blocked command that is being served: the key that was offered to it. See
    /// [`blocking`](crate::shard::blocking).
    pub offer: Option<OfferId>,
    /// How often it has met a program, given back all its locks, and started anew.
    pub round: u32,
    /// It holds the token, up to its lock point.
    pub has_token: bool,
    /// It is part of a wide transaction: see [`token`](crate::shard::token).
    pub wide: PartOfWide,
    /// It is refused if it waits while a program is over busy-reply-threshold.
    pub is_refused_while_busy: bool,
}

/// What a plan has to do with a wide transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartOfWide {
    No,
    /// It begins one, which keeps the token to its end.
    Beginning,
    /// It adds the locks of a call to those of one.
    Call(CallOf),
}

impl PartOfWide {
    pub fn call(self) -> Option<CallOf> {
        match self {
            PartOfWide::Call(call) => Some(call),
            PartOfWide::No | PartOfWide::Beginning => None,
        }
    }
}

/// A call: a command that a program of a wide transaction calls on other shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallOf {
    /// The wide transaction.
    pub txn: TxnId,
    /// Its place among the commands that are called. The effects are in this order.
    pub number: u32,
    /// The transaction's effects are recorded.
    pub is_recorded: bool,
    /// For whom the command leaves effects.
    pub readers: Readers,
    /// There is no command: the entries of its keys are checked out to home, and stay there until the program ends or calls a
    /// command on other shards.
    pub stays: bool,
    /// It happens at the time of the program, on all shards.
    pub now_ms: i64,
}

impl Plan {
    /// The participant to be locked after the current one; `None`: the current one is the last.
    pub fn next_shard(&self) -> Option<usize> {
        let len = self.shards.len();
        let mut behind = (1..len).map(|steps| (self.next + steps) % len).take_while(|&at| at != self.first);
        behind.find(|&at| !self.is_home_ahead || u32::from(self.shards[at]) != self.id.home)
    }
}

/// The entries that a shard hands over, in the order of its keys.
pub struct CheckedOutEntries {
    pub entries: Vec<Option<MovedEntry>>,
    /// The commands that it has run besides.
    pub ran: Option<Box<ShardBatch>>,
    /// How many pieces the transaction's effects have; 0: they are not recorded.
    pub pieces: u32,
}

/// Checked-out entries on their way back to their shard.
pub struct CheckIn {
    pub id: TxnId,
    pub entries: Vec<Option<MovedEntry>>,
    /// What happened to the keys, for their observers.
    pub events: Vec<CheckedOutEvent>,
    /// The command has found nothing, and its client blocks on keys of this shard.
    pub wait: Option<NewWait>,
    pub keeps_locks: bool,
}

/// The result of a shard's share of a stage.
pub enum Outcome {
    /// It had nothing to do but to hold its locks.
    Nothing,
    /// It has run its commands.
    Ran(Box<ShardBatch>),
    /// It hands over checked-out entries.
    Entries(Box<CheckedOutEntries>),
    /// The transaction may not run (see [`Plan::may_run`]): nothing was done on any shard, and it is over.
    Refused,
    /// It may not run yet, because the users have changed: nothing was done on any shard, and it starts anew.
    UsersChanged,
}

/// What becomes of a transaction at its lock point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockPoint {
    Run,
    /// See [`Outcome::Refused`].
    Refused,
    /// See [`Outcome::UsersChanged`].
    UsersChanged,
}

/// A call of a program that was sent to the shard of its declared keys, where it turned out that it may touch others.
pub struct Misplaced {
    pub reply_id: ReplyId,
    pub call: Call,
    pub args: OwnedArgv,
}

pub enum TxnMessage {
    /// Lock your keys, then pass the plan on.
    Lock(Box<Plan>),
    /// To home: the transaction has to wait at an earlier shard. Release the locks that you took ahead, and take them
    /// again when the plan comes to you.
    Yield { id: TxnId },
    /// The transaction has met a program at another shard in this round of its plan: release the locks that it holds on
    /// your shard, and take them again when the plan comes to you.
    GiveBack { id: TxnId, round: u32 },
    /// The transaction is refused before its lock point: release the locks that it holds on your shard, and forget it. `client`
    /// watches keys no more.
    Cancel { id: TxnId, client: ClientId },
    /// To home: the same, because a program of this kind is over busy-reply-threshold.
    Busy { id: TxnId, kind: ProgramKind },
    /// To home: the transaction has given back its locks, and starts anew.
    Restarted { id: TxnId },
    /// The transaction is suspended in the midst of a program: who waits for its locks gives way.
    Mark { id: TxnId },
    /// The wide transaction has ended, or home's last stage: release its locks. `pieces`: how many pieces its effects have; 0: no shard records
    /// them.
    End { id: TxnId, pieces: u32 },
    /// All locks are held: do your share of the first stage or, unless it is to run, release your locks. `pieces`: how
    /// many pieces the effects have; 0: no shard records them. `done`, to home alone: the share that the sender has
    /// done.
    Go { id: TxnId, lock_point: LockPoint, pieces: u32, done: Option<(usize, Outcome)> },
    /// Do this, and release your locks afterwards unless `keeps_locks`.
    Step { id: TxnId, work: Work, keeps_locks: bool },
    /// Shard `shard` has done its share.
    Done { id: TxnId, shard: usize, outcome: Outcome },
    /// Put these entries back under their keys, and notify the keys' observers. Then release your locks as for `Step`.
    CheckIn(Box<CheckIn>),
    /// To the client's home: this program has turned out to be wide.
    PlaceAgain(Box<Misplaced>),
    /// Run this without any lock, and answer with `Done` (CLIENT LIST, CONFIG RESETSTAT).
    Run { id: TxnId, shard_batch: Box<ShardBatch> },
}
