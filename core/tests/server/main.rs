//! The binary from outside, on both backends, with one shard and several: what the official suite cannot see.

mod admin;
mod crowds;
mod faults;
mod harness;
mod process;
mod sharding;
mod stream;
