//! The binary from outside, on both backends, with one shard and several: what the official suite cannot see.

mod admin;
mod aof;
mod application;
mod builtin_modules;
mod crowds;
mod ends;
mod faults;
mod harness;
mod modules;
mod output;
mod process;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../common/random.rs"]
mod random;
mod rdb;
mod scripts;
mod scripts_data;
mod scripts_jobs;
mod scripts_limits;
mod sharding;
mod stream;
