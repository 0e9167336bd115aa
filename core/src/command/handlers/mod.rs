//! Commands over keys: rows and their functions, a file a family.
//!
//! A handler has four beats: parse, look up, act, reply. It returns an error only when it has changed
//! nothing. It says nothing about shards: its keys are there when it runs.

pub mod dump;
pub mod expire;
pub mod hash;
pub mod help;
pub mod keyspace;
pub mod list;
mod multi_pop;
pub mod object;
pub mod pubsub;
mod scan;
pub mod set;
pub mod sort;
pub mod stream;
pub mod string;
pub mod zset;
