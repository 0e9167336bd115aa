//! What a server and its modules agree on.
//!
//! A module is a shared library that exports `RedisModule_OnLoad`. It gets a context whose first field is a pointer to a
//! function, `GetApi`, and asks that function for every other one by name ("RedisModule_CreateCommand"). Nothing else
//! links a module to its server, so the same library loads into Redis and into Shardis.
//!
//! - [`abi`]: the C types, the constants, and one table of all functions with their signatures.
//! - `host` (with the feature of that name): what a server needs to fill that table.
//!
//! This crate depends on no other crate of Shardis, and modules depend on this crate alone.

pub mod abi;
#[cfg(feature = "host")]
pub mod host;
