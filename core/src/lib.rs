//! Shardis: a Redis-compatible in-memory server whose cores share nothing.
pub mod config;
pub mod protocol;
pub mod runtime;
pub mod types;
