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
//! on the thread that has them, in parallel with others, and so a command opens no key but those: any other is an error. One that
//! needs more says so in its row: see [what needs more than keys](#what-needs-more-than-keys).
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
//! # Keys and their values
//!
//! | In the key | To read | To change | Besides |
//! |---|---|---|---|
//! | string | [`Key::string`]: its bytes, in place | [`WriteKey::string_mut`], [`WriteKey::set_string`] | |
//! | list | [`Key::list`] | [`WriteKey::list_mut`] | |
//! | hash | [`Key::hash`] | [`WriteKey::hash_mut`] | [`Key::scan`] gives all fields |
//! | set | [`Key::scan`] gives all elements | [`Context::call`] | the API of modules has no functions for sets |
//! | sorted set | [`Key::zset`], by element or by [`ScoreRange`] | [`WriteKey::zset_mut`] | |
//! | stream | [`Key::stream`], by ids | [`WriteKey::stream_mut`] | |
//! | a module's own type | [`Key::value`] | [`WriteKey::value_mut`], [`WriteKey::set_value`] | [`DataType`] |
//!
//! # Types of values
//!
//! A type is a struct that implements [`DataType`]: how a value is saved and loaded, how it is made again by commands, how
//! much memory it takes, how it is copied. A static [`TypeHandle`] stands for it. Keys hold such values as they hold strings:
//! they expire, are dumped, copied and deleted.
//!
//! ```
//! use shardis_modules_api::*;
//!
//! /// The highest number that was seen.
//! struct Peak(i64);
//!
//! static PEAK: TypeHandle<Peak> = TypeHandle::new();
//!
//! impl DataType for Peak {
//!     const NAME: &'static str = "doc--peak";
//!     const VERSION: i32 = 0;
//!
//!     fn save(&self, to: &mut Saver<'_>) {
//!         to.signed(self.0);
//!     }
//!
//!     fn load(from: &mut Loading<'_>, _version: i32) -> Option<Peak> {
//!         Some(Peak(from.signed()?))
//!     }
//!
//!     fn rewrite(&self, key: ModuleStr<'_>, aof: &mut Aof<'_>) {
//!         aof.emit(c"doc.peak", &[key.as_bytes(), self.0.to_string().as_bytes()]);
//!     }
//! }
//!
//! /// DOC.PEAK key number. Reply: integer, the highest number so far. Errors: WRONGTYPE.
//! struct See;
//!
//! impl Command for See {
//!     const ROW: Row = Row {
//!         flags: "write deny-oom fast",
//!         keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
//!         ..Row::new("doc.peak", 3)
//!     };
//!
//!     fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
//!         let number = args[2].to_integer()?;
//!
//!         let mut key = ctx.open_for_writing(&args[1])?;
//!         let before = key.value(&PEAK)?.map(|peak| peak.0);
//!         let peak = before.map_or(number, |before| before.max(number));
//!         if before != Some(peak) {
//!             key.set_value(&PEAK, Peak(peak))?;
//!         }
//!         drop(key);
//!         if before != Some(peak) {
//!             ctx.replicate_verbatim();
//!         }
//!
//!         ctx.reply().integer(peak);
//!         Ok(())
//!     }
//! }
//!
//! # struct Doc;
//! # impl Module for Doc {
//! #     const NAME: &'static str = "doc";
//! #     const VERSION: i32 = 1;
//! #     fn load(loader: &mut Loader<'_>, _args: Args<'_>) -> Result<(), Error> {
//! #         loader.data_type(&PEAK)?;
//! #         loader.command::<See>()
//! #     }
//! # }
//! # #[cfg(feature = "fake")]
//! # {
//! use shardis_modules_api::fake::{FakeHost, FakeReply, Item};
//!
//! let mut host = FakeHost::load::<Doc>(&[]);
//! assert_eq!(host.call(&["doc.peak", "k", "3"]), FakeReply::Integer(3));
//! assert_eq!(host.call(&["doc.peak", "k", "2"]), FakeReply::Integer(3));
//! assert_eq!(host.save("k"), [Item::Signed(3)]);
//! # }
//! ```
//!
//! # The configuration
//!
//! Directives of a module are statics: [`NumericConfig`], [`BoolConfig`], [`EnumConfig`], [`StringConfig`]. The module reads
//! them whenever it wants; a check may refuse values, and a function may be called when one was set. Directives of the server
//! are read by [`Context::directive`], and followed by a [`ServerNumber`].
//!
//! # What happens in the server
//!
//! While it is loaded, a module says what it wants to be told of: events of the server ([`Loader::on_event`]), changes of
//! keys ([`Loader::on_keyspace_event`]), and that a client asks for INFO ([`Loader::on_info`]).
//!
//! # Other commands
//!
//! [`Context::call`] calls any command; its reply is a [`CallValue`], which is matched by its type. A command that is run in
//! parallel with others calls only plain commands over keys that it declares itself.
//!
//! # What needs more than keys
//!
//! A command keeps to its keys, and runs in parallel with others, unless its row says otherwise. In Shardis a command that does
//! not say so is refused the following with an error, and the log names it; in Redis every command can do all of it.
//!
//! | What | What the row has to say |
//! |---|---|
//! | [`Context::block_client`], [`Context::block_client_on_keys`] | `flags: "blocking"` |
//! | [`Context::call`] of a command with other keys, or of one that is no plain one over its keys: EVAL, DBSIZE, BLPOP, most of CONFIG | `is_wide: true` |
//! | [`Context::open`] of other keys | `is_wide: true` |
//! | [`Context::scan`] of all keys | `is_wide: true` |
//! | Of the ABI, without this crate's help: DbSize, RandomKey, ResetDataset, GetServerInfo, Yield, AddPostNotificationJob, RedactClientCommandArgument, and what is about clients (GetClientInfoById, AuthenticateClientWithUser) | either |
//!
//! Either has Shardis run the command as it runs scripts: in turn with others of its kind, beside commands that keep to their keys. A
//! module that is not shard-safe at all says so ([`Module::SHARD_SAFE`]). Then all of its commands run so, none of its callbacks runs
//! beside another, and the rows need not say anything. Timers, events, threads that have the lock, and the functions that answer
//! blocked clients can do everything always.
//!
//! # Time and threads
//!
//! [`Context::start_timer`] has a function called once. [`Context::block_client`], of a command with the flag `blocking`, has the
//! client wait: the [`BlockedClient`]
//! goes to a thread, which answers whenever it can. A thread that needs the server meanwhile has a [`ThreadContext`], whose
//! lock makes a [`Context`] of it. [`Context::block_client_on_keys`] has the client wait for something to be put into a key.
//! All of that is `Send` or is not as the server's rules say, so the compiler knows what may go to a thread.
//!
//! # Tests
//!
//! With the feature `fake`, for `[dev-dependencies]`, there is a server in the test's own process, `fake::FakeHost`: it calls
//! commands, saves and loads values, sets directives, lets time pass, and tells what the module did.
//!
//! # Panics
//!
//! A panic ends the server: there is no way to go on with half a command. It does not unwind into the server. The message
//! names the module, the callback, and the command, type or directive that it is of. A panic on a thread that the module has
//! started ends that thread; a client that it was to answer gets an error.

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
mod directive;
mod docs;
mod error;
mod events;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod info;
mod io;
mod key;
mod memory;
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
pub use context::{Context, LogLevel, NotifyClass, NotifyClasses};
pub use current::{current_callback, name_module_in_panics};
pub use data_type::{DataType, TypeHandle};
pub use directive::ServerNumber;
pub use error::{CommandResult, Error};
pub use events::{Event, EventKind};
pub use info::Info;
pub use io::{Aof, Defrag, Digest, Loading, Saver};
pub use key::{
    AddOptions, Added, End, Hash, HashMut, Key, KeyKind, List, ListMut, ScoreBound, ScoreRange, Stream,
    StreamMut, StreamRange, StringMut, WriteKey, Zset, ZsetMut, ZsetRange,
};
pub use memory::ServerBytes;
pub use module::{Loader, Module, load, unload};
pub use number::parse_integer;
pub use reply::Reply;
pub use string::{Args, ModuleStr, ModuleString};
pub use timer::Timer;
