//! The append-only file of Redis 7: a directory with a manifest, a base, and files of commands behind it.
//!
//! ```text
//! appendonlydir/appendonly.aof.manifest      which files there are, in order
//!               appendonly.aof.1.base.rdb    the data set at one moment: an RDB file, or (.base.aof) commands
//!               appendonly.aof.1.incr.aof    the commands since then: requests in the wire format
//! ```
//!
//! A rewrite makes a new base, and a new file of commands that begins at the moment of the base. The files before them
//! are then *history*, which is removed. Before version 7 there was one file, which may begin with an RDB file.
//!
//! - [`manifest`]: the list of files
//! - [`read`]: the commands of a file, unit by unit
//! - [`rewrite`]: a base of commands
//! - [`check`]: what redis-check-aof says of a directory or a file, and how it repairs one

pub mod check;
pub mod manifest;
pub mod read;
pub mod rewrite;

pub use manifest::{FileInfo, FileKind, Manifest};
