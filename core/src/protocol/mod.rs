//! RESP, both ways: requests become argument vectors, replies become bytes. This room knows no command.
//!
//! The way in: [`RequestParser`] finds the requests of a client's bytes and describes each as [`ArgRange`]s over them,
//! so an argument is copied only where it is kept. [`Argv`] is what a handler reads;
//! [`OwnedArgv`] is the same request once it must outlive the buffer (MULTI's queue, another shard, the AOF).
//!
//! The way out: [`Reply`] writes values of one RESP version to the end of a byte buffer. [`skip_reply`] and
//! [`split_array`] read such bytes back, to merge the replies of several shards into one.
//!
//! [`number`] reads and prints numbers by Redis' rules, and [`extended`] does the same for the C `long double` in which
//! INCRBYFLOAT reckons.
pub mod argv;
pub mod extended;
pub mod inline;
pub mod number;
pub mod reply;
pub mod request;
pub mod skip;

pub use argv::{ArgRange, Argv, OwnedArgv, until_nul};
pub use reply::{Mark, Reply, Resp};
pub use request::{Beginning, Limits, Parsed, ProtocolError, RequestParser};
pub use skip::{skip_reply, split_array};
