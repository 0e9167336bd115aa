//! A server in the test's own process, for unit tests of modules: [`FakeHost`].
//!
//! It keeps values in plain collections, and remembers what the module's commands replied and did. It checks more than a
//! server does: a key that is left open, or opened in two ways at once, is a panic. What the SDK asks of a server is all
//! there; a module that asks for more through [`abi`](crate::abi) panics.
//!
//! ```
//! use shardis_modules_api::fake::{FakeHost, FakeReply};
//! use shardis_modules_api::*;
//!
//! # struct Echo;
//! # impl Module for Echo {
//! #     const NAME: &'static str = "echo";
//! #     const VERSION: i32 = 1;
//! #     fn load(loader: &mut Loader<'_>, _args: Args<'_>) -> Result<(), Error> {
//! #         loader.command::<Say>()
//! #     }
//! # }
//! # struct Say;
//! # impl Command for Say {
//! #     const ROW: Row = Row::new("echo.say", 2);
//! #     fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
//! #         ctx.reply().string(args[1]);
//! #         Ok(())
//! #     }
//! # }
//! let mut host = FakeHost::load::<Echo>(&[]);
//! assert_eq!(host.call(&["echo.say", "hello"]), FakeReply::bytes("hello"));
//! ```
//!
//! # What happens outside of commands
//!
//! - Time stands still until [`advance_ms`](FakeHost::advance_ms): then timers fire, keys expire, and clients wait too long.
//! - A client that waits is a [`FakeClient`]: [`start`](FakeHost::start) begins a command, [`wait`](FakeHost::wait) gives its
//!   reply, however a thread, another command or the time brings it about.
//! - Values of the module's types are saved, loaded, copied, freed and so on one by one: [`save`](FakeHost::save) gives what
//!   was written, as [`Item`]s, which [`load_value`](FakeHost::load_value) takes, as they are or damaged.
//! - [`set_directive`](FakeHost::set_directive) is CONFIG SET, [`fire`](FakeHost::fire) an event of the server,
//!   [`info`](FakeHost::info) INFO.
//! - Other commands that the module calls are the module's own, CONFIG GET, and what the test makes of them
//!   ([`on_call`](FakeHost::on_call)).
//!
//! A module's statics (its directives, for one) are shared by all hosts of a process, that is, by all tests that run at once.

mod calls;
mod clients;
mod context;
mod directives;
mod events;
mod keys;
mod memory;
mod replies;
mod scans;
mod streams;
mod strings;
mod timers;
mod values;

pub use clients::FakeClient;
pub use replies::FakeReply;
pub use values::Item;

use crate::abi::*;
use crate::module::{Module, load};
use clients::{Clients, Server};
use context::FakeContext;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

/// A server for one module.
pub struct FakeHost {
    server: Arc<Server>,
}

/// What the server knows. Whoever holds the server's lock uses it.
#[derive(Default)]
struct State {
    commands: HashMap<String, FakeCommand>,
    /// The database.
    keys: BTreeMap<Vec<u8>, Value>,
    /// When keys expire, in milliseconds.
    expire_at_ms: BTreeMap<Vec<u8>, i64>,
    open_keys: Vec<(Vec<u8>, bool)>,
    now_ms: i64,
    types: Vec<&'static values::FakeType>,
    directives: directives::Directives,
    subscribers: events::Subscribers,
    timers: timers::Timers,
    clients: Clients,
    answer_call: Option<calls::AnswerCall>,
    done: Done,
}

struct FakeCommand {
    run: RedisModuleCmdFunc,
    arity: c_int,
}

/// What a call did besides replying.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Done {
    /// What goes to replicas and to the append-only file: commands with their arguments.
    pub replicated: Vec<Vec<Vec<u8>>>,
    /// Events, each with its key.
    pub notified: Vec<(String, Vec<u8>)>,
    /// Keys that were signalled as modified.
    pub modified: Vec<Vec<u8>>,
    /// Commands that were called, with their arguments.
    pub called: Vec<Vec<Vec<u8>>>,
    pub log: Vec<String>,
}

enum Value {
    String(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Zset(BTreeMap<Vec<u8>, f64>),
    Stream(streams::Stream),
    Module(values::ModuleValue),
}

impl FakeHost {
    /// A server with this module. Panics if the module does not load.
    pub fn load<M: Module>(arguments: &[&str]) -> FakeHost {
        match FakeHost::try_load::<M>(arguments) {
            Ok(host) => host,
            Err(log) => panic!("the module does not load: {log:?}"),
        }
    }

    /// A server with this module, or the log if it does not load.
    pub fn try_load<M: Module>(arguments: &[&str]) -> Result<FakeHost, Vec<String>> {
        let host = FakeHost { server: Arc::default() };
        host.locked(|state| state.directives.module = M::NAME);
        let result = host.in_context(arguments, |ctx| {
            // SAFETY: the context and the arguments are as a server gives them.
            unsafe { load::<M>(ctx, context::argv(ctx), context::argc(ctx)) }
        });
        let done = host.locked(|state| std::mem::take(&mut state.done));
        if result.0 == REDISMODULE_OK { Ok(host) } else { Err(done.log) }
    }

    /// Calls a command of the module. If its client waits, so does this, for 10 seconds at most.
    /// Panics if there is no command of this name, or no reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> FakeReply {
        let client = self.start(arguments);
        self.wait(&client)
    }

    /// What the last call did besides replying, and what happened since.
    pub fn done(&self) -> Done {
        self.locked(|state| state.done.clone())
    }

    /// The arity that the module gave a command.
    pub fn arity(&self, name: &str) -> Option<i32> {
        self.locked(|state| state.commands.get(name).map(|command| command.arity))
    }

    pub fn set_string(&mut self, key: &str, bytes: &[u8]) {
        self.set(key, Value::String(bytes.to_vec()));
    }

    /// None if the key holds something else, or nothing.
    pub fn string(&self, key: &str) -> Option<Vec<u8>> {
        self.locked(|state| match state.keys.get(key.as_bytes())? {
            Value::String(bytes) => Some(bytes.clone()),
            _ => None,
        })
    }

    pub fn set_zset(&mut self, key: &str, elements: &[(&str, f64)]) {
        let elements = elements.iter().map(|(element, score)| (element.as_bytes().to_vec(), *score));
        self.set(key, Value::Zset(elements.collect()));
    }

    /// The elements in order of their bytes. None if the key holds something else, or nothing.
    pub fn zset(&self, key: &str) -> Option<Vec<(String, f64)>> {
        self.locked(|state| {
            let Value::Zset(elements) = state.keys.get(key.as_bytes())? else { return None };
            let element =
                |(name, score): (&Vec<u8>, &f64)| (String::from_utf8_lossy(name).into_owned(), *score);
            Some(elements.iter().map(element).collect())
        })
    }

    pub fn set_list(&mut self, key: &str, elements: &[&str]) {
        let elements = elements.iter().map(|element| element.as_bytes().to_vec()).collect();
        self.set(key, Value::List(elements));
    }

    pub fn set_hash(&mut self, key: &str, fields: &[(&str, &str)]) {
        let fields =
            fields.iter().map(|(field, value)| (field.as_bytes().to_vec(), value.as_bytes().to_vec()));
        self.set(key, Value::Hash(fields.collect()));
    }

    pub fn set_set(&mut self, key: &str, elements: &[&str]) {
        let elements = elements.iter().map(|element| element.as_bytes().to_vec()).collect();
        self.set(key, Value::Set(elements));
    }

    pub fn is_there(&self, key: &str) -> bool {
        self.locked(|state| state.keys.contains_key(key.as_bytes()))
    }

    /// In how many milliseconds a key expires.
    pub fn expires_in_ms(&self, key: &str) -> Option<i64> {
        self.locked(|state| Some(state.expire_at_ms.get(key.as_bytes())? - state.now_ms))
    }

    /// As DEL: it says whether there was something. A value of a module's type is unlinked, and freed.
    pub fn delete(&mut self, key: &str) -> bool {
        self.locked(|state| state.delete(key.as_bytes()))
    }

    fn set(&mut self, key: &str, value: Value) {
        self.locked(|state| {
            state.delete(key.as_bytes());
            state.keys.insert(key.into(), value);
        });
    }

    /// What needs the server's lock, which no thread of the module has meanwhile.
    fn locked<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        self.server.lock();
        // SAFETY: the lock is held, and functions of the server keep no references to the state.
        let result = run(unsafe { self.server.state() });
        self.server.unlock();
        result
    }

    /// Runs a callback of the module, with a context of its own and the server's lock.
    fn in_context<A: AsRef<[u8]>, R>(
        &self,
        arguments: &[A],
        run: impl FnOnce(*mut RedisModuleCtx) -> R,
    ) -> (R, FakeContext) {
        self.server.lock();
        let mut context = FakeContext::new(&self.server, arguments);
        let result = run(context.as_ptr());
        self.server.unlock();
        (result, context)
    }
}

impl State {
    fn delete(&mut self, key: &[u8]) -> bool {
        self.expire_at_ms.remove(key);
        let Some(value) = self.keys.remove(key) else { return false };
        if let Value::Module(value) = &value {
            value.unlink(key);
        }
        true
    }
}

/// # Safety
/// `ctx` is a context of this server.
unsafe fn context<'a>(ctx: *mut RedisModuleCtx) -> &'a mut FakeContext {
    // SAFETY: as promised; functions of the server run one at a time and keep no references.
    unsafe { &mut *ctx.cast::<FakeContext>() }
}

/// # Safety
/// As for `context`, and the lock is held.
unsafe fn state<'a>(ctx: *mut RedisModuleCtx) -> &'a mut State {
    // SAFETY: as promised.
    unsafe { context(ctx).server.state() }
}

/// # Safety
/// `text` is a string of C.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: as promised.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// `strings` points to so many strings of this server.
unsafe fn all_bytes(strings: *const *mut RedisModuleString, count: usize) -> Vec<Vec<u8>> {
    // SAFETY: as promised.
    unsafe {
        let strings = if count == 0 { &[] } else { std::slice::from_raw_parts(strings, count) };
        strings.iter().map(|string| strings::bytes(*string).to_vec()).collect()
    }
}

/// # Safety
/// A module calls it: `name` is a string of C, and there is room for a pointer.
unsafe extern "C" fn get_api(name: *const c_char, place: *mut c_void) -> c_int {
    // SAFETY: as promised.
    let (name, place) = unsafe { (CStr::from_ptr(name), &mut *place.cast::<*const c_void>()) };
    let tables = [
        calls::SERVED,
        clients::SERVED,
        context::SERVED,
        directives::SERVED,
        events::SERVED,
        keys::SERVED,
        memory::SERVED,
        replies::SERVED,
        scans::SERVED,
        streams::SERVED,
        strings::SERVED,
        timers::SERVED,
        values::SERVED,
    ];
    match tables.into_iter().flatten().find(|served| served.name == name) {
        Some(served) => {
            *place = served.pointer;
            REDISMODULE_OK
        }
        None => REDISMODULE_ERR,
    }
}

#[cfg(test)]
mod tests;
