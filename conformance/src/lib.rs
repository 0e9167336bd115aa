//! Judges a server binary from outside, by the official Redis 7.0.15 test suite and by comparison with a real Redis: it
//! links nothing of Shardis.
//!
//! ```text
//!  cargo conformance                                    cargo verify            cargo differ
//!        |                                                   |  (the workspace's own tests, then `differ`)
//!        +------------------------+--------------------------+
//!                                 v
//!   suite      gets the pristine 7.0.15 tests (REDIS_SRC, else Debian's source package), checks their hash
//!   catalogue  names.tsv, files.tsv: what real Redis runs; the denominator, never what happened to run here
//!   expect     expectations.tsv: every test that does not pass or is not run, with the reason
//!   run        lanes (a tree, a port block each) take files, longest first
//!     lane       one copy of the suite with our binary as src/redis-server
//!     harness    one file = one process group, an outer time limit, its raw output kept
//!     output     what the harness printed -> verdicts (vary: the random names of some files)
//!     sentinel   the same two for the files about Sentinel, with a runner and an output of their own
//!     judge      verdicts against the catalogue and the expectations -> counts and problems
//!   report     a table a file, the problems, one closing line
//! ```
//!
//! `differ` sends random commands to a real Redis and to ours, and compares; or has each follow the other as a replica.
//!
//! A run of the suite is clean when every test of the catalogue did what was expected of it. An unexpected failure, an
//! unexpected pass, a test that never reported, a name that real Redis does not have, a reason nobody wrote and a
//! broken harness are each a problem, and one problem fails the run: the list of what does not work can only shrink.
//!
//! The same path, given a real `redis-server`, must pass everything: that is the control which proves the harness.
#![deny(unsafe_code)]

pub mod catalogue;
pub mod command;
pub mod differ;
pub mod expect;
pub mod harness;
pub mod interrupt;
pub mod judge;
pub mod lane;
pub mod loaded;
pub mod output;
pub mod place;
pub mod report;
pub mod run;
pub mod sentinel;
pub mod server;
pub mod suite;
pub mod update;
pub mod vary;
pub mod verify;

use std::fmt;

/// What stops a run altogether, for the person who started it: what happened, and what to do about it.
/// A test that fails is never a `Trouble`.
#[derive(Debug)]
pub struct Trouble(pub String);

impl Trouble {
    pub fn new(message: impl Into<String>) -> Self {
        Trouble(message.into())
    }

    /// For `map_err`: puts what was being done in front of what the system said.
    pub fn doing<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Trouble {
        move |cause| Trouble(format!("{what}: {cause}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub type Result<T> = std::result::Result<T, Trouble>;
