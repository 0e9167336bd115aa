//! The libraries that Redis gives its scripts beside those of Lua: [`cjson`], [`cmsgpack`], [`structlib`] (`struct` in
//! Lua) and [`bit`], with the results of Redis 7.0 to the byte.
//!
//! Each has an `open`, which sets the global variable. Functions are registered in the order in which Redis
//! registers them, because that decides the order in which `pairs` visits them.
//!
//! # Errors
//!
//! Lua raises an error by `longjmp`, over all frames between the function that raises it and the protected call. So no
//! frame of these libraries may hold a value that has to be dropped: all of them work on `Copy` values, on slices of
//! strings that lie on Lua's stack, and on memory that belongs to Lua.
//!
//! # Order of `pairs`
//!
//! What a script sees of a table's order depends on how the table grew. Therefore decoders fill tables in the order of the
//! input and do not reserve room in them.
//!
//! # What differs from Redis
//!
//! - The place in that order of keys that are strings of more than 31 bytes. Lua 5.1.5 hashes of those every second byte or
//!   fewer, and Redis has patched it to hash all; so objects with such keys are written in another order as well.
//! - How deep may be nested where a script has raised cjson's limits to thousands: one or two levels less (of 3,999 or
//!   7,998), for [`workspace`] takes values of Lua's stack.
//! - A result of more than 2 GiB is an error of memory, where Redis ends.
//!
//! Otherwise `examples/libs_differ` finds nothing, which compares random calls with a server's.

pub mod bit;
pub mod cjson;
pub mod cmsgpack;
pub mod structlib;

mod number;
mod state;
mod workspace;

pub use state::State;

use number::format_g;
use state::Function;
