//! Work over keys of several shards: how it is ordered, and the messages it takes.
//!
//! # The algorithm: ordered two-phase locking along a chain
//!
//! A transaction is one command, or one EXEC, over keys that live on shards `s1 < s2 < ... < sk`. Its *home*, the shard
//! of its client, sends one [`TxnMessage::Lock`] to `s1`. A shard that receives it puts the transaction into its [lock
//! table](crate::shard::lock) on all its keys at once; when it is granted there, the shard passes the message on to the
//! next one. When the last shard has granted it, all locks are held: that is the *lock point*, the moment at which the
//! transaction takes effect. Now the last shard tells the others ([`TxnMessage::Go`]), and all do their work: each runs a
//! list of commands over its own keys, releases its locks, and sends the replies home ([`TxnMessage::Done`]).
//!
//! Two things spare messages and work where nobody is in the way, which is nearly always:
//!
//! - *Home goes ahead.* If its own keys are free, home locks them before it sends the message, and the chain leaves it out.
//!   If the transaction then has to wait at a shard before home, it must not hold what comes later in order: home is told
//!   to give its locks up ([`TxnMessage::Yield`]), and is locked in its turn.
//! - *The last shard locks nothing.* If its keys are free, it does its work at once, as it would for a command of its own.
//!
//! So a transaction over two shards, one of them home, is two messages: there, and back with the last shard's outcome.
//!
//! A transaction with all its keys on one shard needs none of this: it runs there at once, or stands in the lock table
//! until it is its turn. That costs a command one branch, to see that the table is empty.
//!
//! # What runs where
//!
//! A command over keys of one shard stands in that shard's list; a *fan-out* (MGET, DEL, FLUSHALL) in the lists of all
//! its shards, with each shard's keys, and home makes one reply of theirs by the row's merge rule. So a command over
//! several shards is an EXEC of one command, and costs nothing for it.
//!
//! Any other command over keys of several shards (RENAME, COPY, MSETNX) is a *check-out*: each shard takes the locked
//! entries out of its tables and sends them home as owned values. Home puts them into its own tables, runs the ordinary
//! handler over them, takes out what is then there under these keys, and sends it back with word of what changed
//! ([`TxnMessage::CheckIn`]). Between put and take nothing else runs at home, so nobody sees the guests.
//!
//! An EXEC with a check-out in its midst, or with a command over its session, is cut into *stages* there. The first one
//! starts at the lock point, the others when home has what came of the one before ([`TxnMessage::Step`]); a shard keeps
//! its locks until it has done its share of the last stage in which it has one.
//!
//! What a client sends ahead without waiting, several commands and EXECs over several shards, may go as one transaction:
//! a [convoy](crate::worker).
//!
//! # How a handler over keys of several shards looks
//!
//! Like any other. It is written against [`Ctx`](crate::command::Ctx): the keys that its row declares are in
//! `ctx.shard` when it runs, wherever they live. A command that reads two keys and writes a third, as SUNIONSTORE, is
//! this, and there is nothing in it, or in its row, about shards:
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
//! `words_at` is `ctx.shard.lookup_read(ctx.call, ctx.key(at))` and a conversion, `store` is `ctx.shard.set` or, for nothing,
//! `ctx.shard.delete`. (A value that changes in place is held by the guard of `ctx.shard.change` meanwhile: see
//! [`change`](crate::shard::change).) Effects, notifications, WATCH and those who wait for the written key are served by
//! these calls, on whichever shard the key is at home. (The tests have these commands, in `core/tests/sim/rows.rs`, and
//! run them over one shard and several, alone, in EXEC, and under WATCH.)
//!
//! What a handler must not do is to touch a key which its row does not declare: it would not be there. And only a row
//! whose work on one key does not depend on the others says a merge rule other than
//! [`Merge::CheckOut`](crate::command::table::Merge), and then runs where its keys are.
//!
//! One that waits (BLPOP, BLMOVE) says so where it has found nothing, and says what it would wait for; whether it waits
//! then, on which shards, and who serves it, is not its concern:
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
//! [`Ctx::takes_from`](crate::command::Ctx::takes_from) is all keys at the first run, and the one that is there when it
//! is woken. Its [effect](crate::command::Ctx::effect) names the key that it took from: at another time another one may
//! be the first that is there. What it returns by [`Ctx::block`](crate::command::Ctx::block) says also what the client gets
//! when the time is up, and in EXEC, where nobody waits, at once. A row that would not take whatever is there (BLPOP of a string) has a
//! [`ready`](crate::command::table::Command::ready) of its own. A mover (BMOVE in the tests) differs in one more key spec.
//! The way of a wait is [`blocking`](crate::shard::blocking)'s.
//!
//! # WATCH
//!
//! Watched keys are [registered](crate::shard::watch) on their shards, and an EXEC takes these shards into its chain
//! with shared locks on the watched keys. Each says, when it grants, whether the keys are as they were; what they said
//! so far travels with the plan. If one says no, the last shard says so to all, and nothing runs anywhere.
//!
//! # Why this is right
//!
//! *No deadlock.* A transaction that waits at shard `s` waits for transactions which arrived at `s` before it.
//! Each of these runs, or waits at `s` for still earlier ones, or holds `s` and waits at a shard behind `s`.
//! At the highest shard where anybody waits, the first in order waits for nobody; so somebody always moves. What has
//! passed its lock point waits for nobody any more: home drives it on by messages alone, also when its client has left.
//! A claim to the whole keyspace of a shard stands in the same order. There are two exceptions to the order. One is a
//! command that is woken for a key and takes over its lock; why that is harmless stands in
//! [`blocking`](crate::shard::blocking). The other is what home has locked ahead of its turn, for no longer than a message
//! takes: a transaction that has to wait at an earlier shard has sent word to give it up. (It may come to home in its
//! turn before that word does. Then it keeps what it has, and the word is not for it any more.)
//!
//! *No starvation.* On every shard the order of arrival decides, and nobody is overtaken. Nothing is run again because
//! of others' locks: a transaction gives up its place at home once at most, and only before its turn there. A coalesced pipeline that is
//! refused goes on as single transactions, which are not; a command that was woken and found its key taken keeps its place
//! among those who wait.
//!
//! *No reordering.* A shard's share runs while all locks of the transaction are held, and every other command
//! that touches one of these keys queues up behind them, so the order of the lock points is a serial order. A shard
//! that releases its locks before others have done their shares breaks nothing: nothing is locked after a release.
//! It is strict: the lock point lies between the client's call and the reply. Within one connection a
//! transaction starts when all earlier replies of the connection are there, and nothing of the connection
//! starts before it has ended, so it cannot overtake, or be overtaken by, its own client's commands, though
//! its locks travel on other ways than these.

use crate::call::ClientId;
use crate::call::queue::Queue;
use crate::shard::blocking::{NewWait, OfferId};
use crate::shard::lock::LockSet;
use crate::shard::observe::CheckedOutEvent;
use crate::types::OwnedEntry;
use smallvec::SmallVec;

/// A transaction's name: its home shard, and that shard's running number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TxnId {
    pub home: u32,
    pub number: u64,
}

/// The commands that a shard runs, and later, on its way back, what came of them.
#[derive(Default)]
pub struct ShardBatch {
    pub queue: Queue,
    /// Hashes of the commands' keys: see [`Queued::hash_count`](crate::call::queue::Queued::hash_count).
    pub hashes: Vec<u64>,
    /// The replies, one behind the other.
    pub replies: Vec<u8>,
    /// For each command: where its reply ends, and how many nanoseconds it ran.
    pub ran: Vec<(usize, u64)>,
    /// The client has closed its connection by the command at this place (CLIENT KILL of itself): of those behind it, it
    /// gets no reply.
    pub closed_by: Option<u32>,
}

impl ShardBatch {
    /// What its commands look up: databases and hashes.
    pub fn look_ups(&self) -> impl Iterator<Item = (u32, u64)> + Clone {
        // Mostly they are of one database, and it is but a hint.
        let db = self.queue.commands().first().map_or(0, |queued| queued.call.db);
        self.hashes.iter().map(move |&hash| (db, hash))
    }

    /// Notes the hashes of the next keys of the last command.
    pub fn push_hashes(&mut self, hashes: impl ExactSizeIterator<Item = u64>) {
        let last = self.queue.commands_mut().last_mut().expect("a command was begun");
        last.hash_count += hashes.len() as u32;
        self.hashes.extend(hashes);
    }

    /// Empties it for its next use.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.hashes.clear();
        self.replies.clear();
        self.replies.shrink_to(REPLY_BYTES_KEPT_MAX);
        self.ran.clear();
        self.closed_by = None;
    }
}

/// A portion that is kept for reuse has no more room for replies than this.
const REPLY_BYTES_KEPT_MAX: usize = 64 << 10;

/// A key that is checked out: database, hash, key.
pub type CheckedOutKey = (u32, u64, Vec<u8>);

/// What a shard does in a stage.
pub enum Work {
    /// Nothing but hold its locks.
    Nothing,
    /// Runs these commands.
    Run(Box<ShardBatch>),
    /// Hands over the entries of these keys, which will be checked in.
    CheckOut(Vec<CheckedOutKey>),
}

/// The part of one shard in a transaction: its locks, and its share of the first stage.
pub struct Participant {
    pub locks: LockSet,
    /// The client watches keys there: they are locked, too, and must be as they were.
    pub watches: bool,
    pub work: Work,
    /// There is more to do after this work, or it is to be checked in: the locks stay.
    pub keeps_locks: bool,
}

/// A transaction on its way along its shards.
pub struct Plan {
    pub id: TxnId,
    /// Whose WATCHes are asked for.
    pub client: ClientId,
    /// In ascending order of shards. A part is taken out by its shard when it is granted.
    pub participants: Vec<Option<Participant>>,
    /// The shards of the parts.
    pub shards: SmallVec<[u16; 8]>,
    /// The part to be locked next.
    pub next: usize,
    /// Home holds its locks, whether its turn has come or not.
    pub is_home_ahead: bool,
    /// It may run: what is watched is as it was, on all shards so far, and nobody is in the way of a coalesced pipeline.
    pub may_run: bool,
    /// Commands of a pipeline that go together. Who waits for a key of theirs would have to be served between them: then
    /// they do not.
    pub is_coalesced: bool,
    /// How many pieces its [effects](crate::shard::effects) have, if they are noted; 0: it has none.
    pub pieces: u32,
    /// For a command that has waited: the key that was offered to it. See [`blocking`](crate::shard::blocking).
    pub offer: Option<OfferId>,
}

impl Plan {
    /// The part to be locked behind the one whose turn it is; `None`: there is none.
    pub fn next_shard(&self) -> Option<usize> {
        let mut behind = self.next + 1..self.shards.len();
        behind.find(|&at| !self.is_home_ahead || u32::from(self.shards[at]) != self.id.home)
    }
}

/// The entries that a shard hands over, in the order of its keys.
pub struct CheckedOutEntries {
    pub entries: Vec<Option<OwnedEntry>>,
    /// How many pieces the effects have; 0: they are not noted.
    pub pieces: u32,
}

/// Checked-out entries on their way back to their shard.
pub struct CheckIn {
    pub id: TxnId,
    pub entries: Vec<Option<OwnedEntry>>,
    /// For the observers of the keys.
    pub events: Vec<CheckedOutEvent>,
    /// The command has found nothing, and waits.
    pub wait: Option<NewWait>,
    pub keeps_locks: bool,
}

/// What a shard returned of its share in a stage.
pub enum Outcome {
    /// It had nothing to do but to hold its locks.
    Nothing,
    /// It has run its commands.
    Ran(Box<ShardBatch>),
    Entries(Box<CheckedOutEntries>),
    /// It does not hold, here or elsewhere: nothing was done, and all is over.
    Refused,
}

pub enum TxnMessage {
    /// Lock your part, then pass it on.
    Lock(Box<Plan>),
    /// To home: what you have locked ahead is waited for at an earlier shard. Give it up, and lock it in its turn.
    Yield { id: TxnId },
    /// All locks are held: do your share of the first stage, or, if it does not `hold`, let go. `pieces`: of the effects;
    /// 0: they are not noted, on no shard. `done`, to home: that shard has done its share.
    Go { id: TxnId, may_run: bool, pieces: u32, done: Option<(usize, Outcome)> },
    /// Do this; if nothing more `stays` to be done, release your locks behind it.
    Step { id: TxnId, work: Work, keeps_locks: bool },
    /// Shard `shard` has done its share.
    Done { id: TxnId, shard: usize, outcome: Outcome },
    /// Put these back under their keys, and tell the keys' observers. Then as `Step`.
    CheckIn(Box<CheckIn>),
    /// Run this without any lock and answer with `Done` (CLIENT LIST, CONFIG RESETSTAT).
    Run { id: TxnId, shard_batch: Box<ShardBatch> },
}
