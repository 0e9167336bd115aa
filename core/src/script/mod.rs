//! Scripts and libraries of functions: what the process knows of them, the same for all shards.
//!
//! - [`shebang`] and [`flags`]: what they declare of themselves
//! - [`registry`]: the scripts, by their SHA-1, of EVAL and SCRIPT LOAD
//! - [`library`]: the libraries with their functions
//! - [`compiled`]: what a shard has compiled of them
//!
//! # One cache for all shards
//!
//! The process has one [`Registry`]. Whatever changes in it changes at one moment for all shards: a shard asks it, by a
//! counter or by a mark on the script itself, before it runs anything that it has compiled. So after the reply to SCRIPT
//! FLUSH no shard knows a script any more, and after the reply to FUNCTION LOAD each shard calls the new function. What a
//! shard has compiled is its own, and is made when it first runs a script or a function.

pub mod compiled;
pub mod flags;
pub mod library;
pub mod registry;
pub mod shebang;

pub use compiled::Scripts;
pub use flags::ScriptFlags;
pub use library::{Function, FunctionSet, Functions, Library};
pub use registry::{Script, ScriptRegistry, Sha};

/// The scripts and the libraries of the process.
#[derive(Default)]
pub struct Registry {
    pub scripts: ScriptRegistry,
    pub functions: Functions,
}
