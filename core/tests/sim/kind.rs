//! What a run is about, and what its clients do.

use crate::history::Waiting;
use shardis_core::types::ValueType;

/// What the clients of a run do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Anything.
    Mixed,
    /// Only commands with a single key block, and no client disconnects: blocked clients are served exactly as in
    /// Redis.
    Simple,
    /// Many clients block on few keys, and time out or disconnect soon.
    Crowd,
    /// Transactions and WATCH, in pipelines.
    Transactions,
}

/// What the requests of a run may affect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// Keys of one database, on several shards.
    Keys,
    /// Also other databases, the whole keyspace, the session and other clients, on one shard or several.
    Server,
    /// As `Server`, with Redis' commands over values of this type beside strings. With sets and hashes, clients block on
    /// lists.
    Type(ValueType),
    /// Programs that are over busy-reply-threshold, so that other requests are refused, and SCRIPT KILL. Nobody blocks, watches
    /// keys or selects a database.
    Busy,
    /// As `Server`, with programs that hold their clients until keys are there (HTAKE).
    Held,
    /// As `Server`, with commands of a [module](crate::module), and with FLUSHALL and the like as programs, which they are when
    /// such a module is loaded.
    Modules,
}

/// The kinds of runs, in turn.
pub const KINDS: [Kind; 5] = [Kind::Simple, Kind::Crowd, Kind::Mixed, Kind::Crowd, Kind::Transactions];

impl Kind {
    pub fn waiting(self) -> Waiting {
        match self {
            Kind::Simple => Waiting::AtOnce,
            Kind::Mixed | Kind::Crowd | Kind::Transactions => Waiting::SomeTime,
        }
    }
}
