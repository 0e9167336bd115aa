//! The ABI of Redis modules as Rust declarations: `redismodule.h` of Redis 7.0, and what 7.2 added to it.
//!
//! All names are those of the C header, so that what is known about one holds for the other and a search finds both.
//!
//! - [`types`](self): opaque types, callbacks, and structures that cross the boundary.
//! - [`constants`](self): flags and codes.
//! - [`functions`](FUNCTIONS): the table of all functions. Each has a type in [`signature`], a slot in [`Api`] (what a module
//!   fills), and an entry in [`FUNCTIONS`] (what a server goes by).
//! - [`reason_not_served`]: why a server lacks a function.

mod constants;
mod functions;
mod reasons;
mod types;

pub use constants::*;
pub use functions::*;
pub use reasons::{NOT_SERVED, reason_not_served};
pub use types::*;
