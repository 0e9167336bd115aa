//! Work over keys of several shards: how it is ordered, and the messages it takes.
//!
//! # The algorithm: ordered two-phase locking along a chain
//!
//! A transaction is one command (later: one EXEC or script) whose keys live on shards `s1 < s2 < ... < sk`.
//! Its *home*, the shard of its client, sends one [`TxnMessage::Lock`] to `s1`. A shard that receives it
//! puts the transaction into its [lock table](crate::shard::lock) on all its keys at once; when it is granted
//! there, the shard passes the message on to the next one. When the last shard has granted it, all locks are
//! held: that is the moment at which the transaction takes effect. Then, by its kind:
//!
//! - *fan-out* (MGET, DEL, FLUSHALL): the last shard runs its part at once and tells the others to run theirs
//!   ([`TxnMessage::Go`]); each releases its locks and sends its reply home ([`TxnMessage::Done`]). With two
//!   shards, one of them home, that is two messages in all.
//! - *check-out* (RENAME, COPY, MSETNX): each shard takes the locked entries out of its tables and sends them
//!   home as owned values. Home puts them into its own tables, runs the ordinary handler over them, takes
//!   out what is then there under these keys, and sends it back ([`TxnMessage::CheckIn`]); only then the
//!   locks go. Between put and take nothing else runs at home, so nobody sees the guests.
//!
//! *No deadlock.* A transaction that waits at shard `s` waits for transactions which arrived at `s` before it.
//! Each of these runs, or waits at `s` for still earlier ones, or holds `s` and waits at a shard behind `s`.
//! At the highest shard where anybody waits, the first in order waits for nobody; so somebody always moves.
//!
//! *No starvation.* On every shard the order of arrival decides, nobody is overtaken, and nothing is retried.
//!
//! *No reordering.* A shard's part runs while all locks of the transaction are held, and every other command
//! that touches one of these keys queues up behind them, so the order of the lock points is a serial order.
//! It is strict: the lock point lies between the client's call and the reply. Within one connection a
//! transaction starts when all earlier replies of the connection are there, and nothing of the connection
//! starts before it has ended, so it cannot overtake, or be overtaken by, its own client's commands, though
//! its locks travel on other ways than these.

use crate::command::Call;
use crate::protocol::OwnedArgv;
use crate::shard::blocking::{NewWait, OfferId};
use crate::shard::lock::LockSet;
use crate::shard::observe::GuestEvent;
use crate::types::OwnedEntry;

/// A transaction's name: its home shard, and that shard's running number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TxnId {
    pub home: u32,
    pub number: u64,
}

/// How a transaction does its work once it holds its locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxnKind {
    FanOut,
    CheckOut,
}

/// The share of one shard in a transaction.
pub struct Part {
    pub shard: usize,
    pub locks: LockSet,
    pub work: Work,
}

/// What a shard does with its share.
pub enum Work {
    /// Runs the command over these arguments.
    Run(OwnedArgv),
    /// Hands over the entries of these keys: (database, hash, key).
    CheckOut(Vec<(u32, u64, Vec<u8>)>),
}

/// A transaction on its way along its shards.
pub struct Plan {
    pub id: TxnId,
    pub call: Call,
    pub kind: TxnKind,
    /// In ascending order of shards. A part is taken out by its shard when it is granted.
    pub parts: Vec<Option<Part>>,
    pub shards: Vec<usize>,
    /// The part to be locked next.
    pub next: usize,
    /// For a command that has waited: the key that was offered to it. See [`blocking`](crate::shard::blocking).
    pub offer: Option<OfferId>,
}

/// What a shard returned: its reply, or its entries in the order of its keys.
pub enum Outcome {
    Reply(Vec<u8>),
    Entries(Vec<Option<OwnedEntry>>),
}

pub enum TxnMessage {
    /// Lock your part, then pass it on.
    Lock(Box<Plan>),
    /// All locks are held: run your part.
    Go(TxnId),
    /// Shard `shard` has run its part.
    Done { id: TxnId, shard: usize, outcome: Outcome },
    /// Put these back under their keys, tell the keys' observers, and release the locks. `wait`: the command has found
    /// nothing, and waits.
    CheckIn { id: TxnId, entries: Vec<Option<OwnedEntry>>, events: Vec<GuestEvent>, wait: Option<NewWait> },
    /// Run this without any lock and answer with `Done` (CLIENT LIST, CONFIG RESETSTAT).
    Run { id: TxnId, call: Call, args: OwnedArgv },
}
