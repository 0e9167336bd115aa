//! The binary from outside, on both backends, with one shard and several: what the official suite cannot see.

mod acl;
mod admin;
mod aof;
mod application;
mod background;
mod builtin_modules;
mod crash;
mod crowds;
mod ends;
mod eviction;
mod faults;
mod handover;
mod harness;
mod link;
mod migrate;
mod modules;
mod output;
mod process;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../common/random.rs"]
mod random;
mod rdb;
mod redis;
mod replication;
#[path = "../common/replies.rs"]
mod replies;
mod rewrite;
mod scripts;
mod scripts_data;
mod scripts_jobs;
mod scripts_limits;
mod sentinel;
mod sharding;
mod snapshot_load;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod tracking;
