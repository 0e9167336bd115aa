//! The pure rooms of `shardis-core`, from the same files: data structures, protocol, directives, and the encodings of what
//! is written to disk.
//!
//! They know no operating system and no other room, so they build in seconds, without jemalloc, Lua and io_uring. That
//! is what Miri needs, which runs no C code, and what the address sanitizer needs, which brings its own allocator:
//!
//! ```text
//! cd core/pure
//! cargo +nightly miri test -- types::        # the unit tests of the structures
//! ```
//!
//! Tests that would take Miri long do less there, or are left out. `protocol`, `persist` and `config` have no `unsafe` code.
//!
//! The fuzz targets of `core/fuzz` are linked with it as well.

// The unit tests of the directives look at the rest of the server.
#[cfg(not(test))]
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/persist/mod.rs"]
pub mod persist;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[cfg(test)]
#[path = "../../src/testing.rs"]
mod testing;
#[path = "../../src/types/mod.rs"]
pub mod types;
