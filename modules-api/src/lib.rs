//! What a server and its modules agree on.
//!
//! A module is a shared library that exports `RedisModule_OnLoad`. It gets a context whose first field is a pointer to a
//! function, `GetApi`, and asks that function for every other one by name ("RedisModule_CreateCommand"). Nothing else
//! links a module to its server, so the same library loads into Redis and into Shardis.
//!
//! - [`abi`]: the C types, the constants, and one table of all functions with their signatures.
//! - `host` (with the feature of that name): what a server needs to fill that table.
//! - `fake` (with the feature of that name): a server for unit tests of modules.
//! - Everything else is for modules: a safe interface over the table.
//!
//! This crate depends on no other crate of Shardis, and modules depend on this crate alone.
//!
//! # A module
//!
//! ```
//! use shardis_modules_api::*;
//!
//! struct Counters;
//!
//! impl Module for Counters {
//!     const NAME: &'static str = "counters";
//!     const VERSION: i32 = 1;
//!
//!     fn load(loader: &mut Loader<'_>, _args: Args<'_>) -> Result<(), Error> {
//!         loader.command::<Count>()
//!     }
//! }
//!
//! module!(export Counters);
//!
//! /// COUNT key. Adds one to the last byte of a string. Reply: integer, the new value.
//! struct Count;
//!
//! impl Command for Count {
//!     const ROW: Row = Row {
//!         flags: "write deny-oom fast",
//!         keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE))],
//!         summary: "Counts.",
//!         ..Row::new("counters.count", 2)
//!     };
//!
//!     fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
//!         let mut key = ctx.open_for_writing(&args[1])?;
//!         let mut bytes = key.string_mut()?;
//!         if bytes.is_empty() {
//!             bytes.resize(1)?;
//!         }
//!         let count = bytes[0].wrapping_add(1);
//!         bytes[0] = count;
//!         drop(key);
//!
//!         ctx.replicate_verbatim();
//!         ctx.notify(NotifyClass::String, c"counters.count", &args[1]);
//!         ctx.reply().integer(count.into());
//!         Ok(())
//!     }
//! }
//! ```
//!
//! Its `Cargo.toml` has `crate-type = ["cdylib"]`. The server wants the library's file to be executable; cargo makes it so.
//! `examples/tour` in this crate is a module that uses most of what there is.
//!
//! # Commands
//!
//! A command is a type with a [`Row`] and a function ([`Command`]). The row says where its keys are. Shardis runs the command
//! on the thread that has them, in parallel with others, and so a command opens no key but those: any other is an error.
//! `args` begins with the command's name, and has as many elements as the row's arity says.
//!
//! [`Context::open`] gives a [`Key`] to read, [`Context::open_for_writing`] a [`WriteKey`]. Any number of keys may be open for
//! reading, or one for writing, so that bytes that are read in place cannot change below their reader; the compiler sees to
//! it.
//!
//! A key that was changed says so to those who watch or track it when it is closed; one that was only opened does not.
//!
//! A command that changed something says how that is to be repeated elsewhere, mostly with
//! [`Context::replicate_verbatim`], and tells watchers of the keyspace with [`Context::notify`].
//!
//! # Values, directives, events, threads
//!
//! A [`DataType`] says how values of a module's own type are saved, loaded, copied and freed; a static [`TypeHandle`] stands for
//! the type, and [`Key::value`] and [`WriteKey::value_mut`] find values by it. Directives are statics, too
//! ([`NumericConfig`] and others). [`Loader`] registers all of that, and what is called at events of the server
//! ([`Loader::on_event`]), when keys change ([`Loader::on_keyspace_event`]) and for INFO ([`Loader::on_info`]). A command may
//! start a timer ([`Context::start_timer`]), or have its client wait for an answer from a thread ([`Context::block_client`]) or for
//! keys ([`Context::block_client_on_keys`]).
//!
//! # Tests
//!
//! With the feature `fake`, for `[dev-dependencies]`, there is a server in the test's own process, `fake::FakeHost`: it calls a
//! command and gives the reply and what the command did.
//!
//! # Panics
//!
//! A panic ends the server: there is no way to go on with half a command. The message names the module and the command.

pub mod abi;
#[cfg(feature = "host")]
pub mod host;

mod api;
mod blocked;
mod call;
mod callback;
mod command;
mod config;
mod context;
mod current;
mod data_type;
mod docs;
mod error;
mod events;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod info;
mod io;
mod key;
mod module;
mod number;
mod reply;
mod scan;
mod string;
mod timer;

pub use blocked::{BlockedClient, LockedContext, ThreadContext};
pub use call::{CallOptions, CallReply, CallValue, Elements, Entries};
pub use command::{Argument, ArgumentKind, Begin, Command, Find, FindKeys, KeyFlags, KeySpec, Row};
pub use config::{BoolConfig, Config, ConfigFlags, EnumConfig, NumericConfig, StringConfig};
pub use context::{Context, LogLevel, NotifyClass};
pub use current::{current_callback, name_module_in_panics};
pub use data_type::{DataType, TypeHandle};
pub use error::{CommandResult, Error};
pub use events::{Event, EventKind};
pub use info::Info;
pub use io::{Aof, Defrag, Digest, Loading, Saver};
pub use key::{
    AddOptions, Added, End, Hash, HashMut, Key, KeyKind, List, ListMut, ScoreBound, ScoreRange, Stream,
    StreamMut, StreamRange, StringMut, WriteKey, Zset, ZsetMut, ZsetRange,
};
pub use module::{Loader, Module, load, unload};
pub use number::parse_integer;
pub use reply::Reply;
pub use string::{Args, ModuleStr, ModuleString};
pub use timer::Timer;
