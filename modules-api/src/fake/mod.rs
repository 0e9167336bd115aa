//! A server in the test's own process, for unit tests of modules: [`FakeHost`].
//!
//! It keeps strings, lists, hashes and sorted sets in plain collections, and remembers what the module's commands replied and
//! did. It serves what commands over such keys need; any other function of the server is missing, and a module that calls it
//! panics. It checks more than a server does: a key that is left open, or opened in two ways at once, is a panic.
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

mod keys;
mod replies;
mod strings;

pub use replies::FakeReply;

use crate::abi::*;
use crate::module::{Module, load};
use crate::served;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;

/// A server for one module, on one thread.
pub struct FakeHost {
    state: Box<State>,
}

/// What the server knows.
#[derive(Default)]
struct State {
    commands: HashMap<String, FakeCommand>,
    /// The database.
    keys: BTreeMap<Vec<u8>, Value>,
    open_keys: Vec<(Vec<u8>, bool)>,
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
    pub log: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    String(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Zset(BTreeMap<Vec<u8>, f64>),
}

/// A context: the first field is the ABI's.
#[repr(C)]
struct FakeContext {
    get_api: signature::GetApi,
    state: *mut State,
    arguments: Vec<*mut RedisModuleString>,
    replies: replies::Builder,
}

impl FakeHost {
    /// A server with this module. Panics if the module does not load.
    pub fn load<M: Module>(arguments: &[&str]) -> FakeHost {
        let mut host = FakeHost { state: Box::default() };
        let result = host.with_context(arguments, |ctx, argv, argc| {
            // SAFETY: the context and the arguments are as a server gives them.
            unsafe { load::<M>(ctx, argv, argc) }
        });
        assert_eq!(result.0, REDISMODULE_OK, "the module does not load: {:?}", host.state.done.log);
        host.state.done = Done::default();
        host
    }

    /// Calls a command of the module. Panics if there is none of this name.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> FakeReply {
        let name = String::from_utf8_lossy(arguments[0].as_ref()).to_ascii_lowercase();
        let command = self.state.commands.get(&name).unwrap_or_else(|| panic!("no command {name}"));
        let run = command.run.expect("a command has a function");
        self.state.done = Done::default();
        let (_, mut replies) = self.with_context(arguments, |ctx, argv, argc| {
            // SAFETY: the context and the arguments are as a server gives them.
            unsafe { run(ctx, argv, argc) }
        });
        assert!(self.state.open_keys.is_empty(), "keys were left open: {:?}", self.state.open_keys);
        replies.finish()
    }

    /// What the last call did besides replying.
    pub fn done(&self) -> &Done {
        &self.state.done
    }

    /// The arity that the module gave a command.
    pub fn arity(&self, name: &str) -> Option<i32> {
        self.state.commands.get(name).map(|command| command.arity)
    }

    pub fn set_string(&mut self, key: &str, bytes: &[u8]) {
        self.state.keys.insert(key.into(), Value::String(bytes.to_vec()));
    }

    /// None if the key holds something else, or nothing.
    pub fn string(&self, key: &str) -> Option<&[u8]> {
        match self.state.keys.get(key.as_bytes())? {
            Value::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn set_zset(&mut self, key: &str, elements: &[(&str, f64)]) {
        let elements = elements.iter().map(|(element, score)| (element.as_bytes().to_vec(), *score));
        self.state.keys.insert(key.into(), Value::Zset(elements.collect()));
    }

    /// The elements in order of their bytes. None if the key holds something else, or nothing.
    pub fn zset(&self, key: &str) -> Option<Vec<(String, f64)>> {
        let Value::Zset(elements) = self.state.keys.get(key.as_bytes())? else { return None };
        Some(
            elements
                .iter()
                .map(|(name, score)| (String::from_utf8_lossy(name).into_owned(), *score))
                .collect(),
        )
    }

    pub fn set_list(&mut self, key: &str, elements: &[&str]) {
        let elements = elements.iter().map(|element| element.as_bytes().to_vec()).collect();
        self.state.keys.insert(key.into(), Value::List(elements));
    }

    pub fn is_there(&self, key: &str) -> bool {
        self.state.keys.contains_key(key.as_bytes())
    }

    fn with_context<A: AsRef<[u8]>, R>(
        &mut self,
        arguments: &[A],
        run: impl FnOnce(*mut RedisModuleCtx, *mut *mut RedisModuleString, c_int) -> R,
    ) -> (R, replies::Builder) {
        let arguments = arguments.iter().map(|argument| strings::make(argument.as_ref())).collect();
        let state = std::ptr::from_mut(&mut *self.state);
        let mut context = FakeContext { get_api, state, arguments, replies: replies::Builder::default() };
        // The arguments are reached through the context, too, so this is a pointer to them and no borrow.
        let (argv, argc) = (context.arguments.as_ptr().cast_mut(), context.arguments.len());
        let ctx = (&raw mut context).cast::<RedisModuleCtx>();
        let result = run(ctx, argv, c_int::try_from(argc).expect("few arguments"));
        for argument in &context.arguments {
            // SAFETY: they were made above.
            unsafe { strings::free(*argument) };
        }
        (result, context.replies)
    }
}

/// # Safety
/// `ctx` is a context of `with_context`.
unsafe fn context<'a>(ctx: *mut RedisModuleCtx) -> &'a mut FakeContext {
    // SAFETY: as promised; functions of the server run one at a time and keep no references.
    unsafe { &mut *ctx.cast::<FakeContext>() }
}

/// # Safety
/// As for `context`.
unsafe fn state<'a>(ctx: *mut RedisModuleCtx) -> &'a mut State {
    // SAFETY: as promised; the host outlives its contexts.
    unsafe { &mut *context(ctx).state }
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

// The functions of the server. They are called as the ABI says: with the context of the call under way, with strings and keys
// that this server gave, and with strings of C.

unsafe extern "C" fn get_api(name: *const c_char, place: *mut c_void) -> c_int {
    // SAFETY: see above.
    let (name, place) = unsafe { (CStr::from_ptr(name), &mut *place.cast::<*const c_void>()) };
    let tables = [SERVED, keys::SERVED, replies::SERVED, strings::SERVED];
    match tables.into_iter().flatten().find(|served| served.name == name) {
        Some(served) => {
            *place = served.pointer;
            REDISMODULE_OK
        }
        None => REDISMODULE_ERR,
    }
}

unsafe extern "C" fn is_module_name_busy(_name: *const c_char) -> c_int {
    0
}

unsafe extern "C" fn set_module_attribs(
    _ctx: *mut RedisModuleCtx,
    _name: *const c_char,
    _version: c_int,
    _api_version: c_int,
) {
}

unsafe extern "C" fn set_module_options(_ctx: *mut RedisModuleCtx, _options: c_int) {}

unsafe extern "C" fn create_command(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    run: RedisModuleCmdFunc,
    _flags: *const c_char,
    _first: c_int,
    _last: c_int,
    _step: c_int,
) -> c_int {
    // SAFETY: see above.
    let (state, name) = unsafe { (state(ctx), text(name)) };
    if state.commands.contains_key(&name) {
        return REDISMODULE_ERR;
    }
    state.commands.insert(name, FakeCommand { run, arity: 0 });
    REDISMODULE_OK
}

unsafe extern "C" fn get_command(ctx: *mut RedisModuleCtx, name: *const c_char) -> *mut RedisModuleCommand {
    // SAFETY: see above.
    let command = unsafe { state(ctx).commands.get_mut(&text(name)) };
    command.map_or(std::ptr::null_mut(), |command| std::ptr::from_mut(command).cast())
}

unsafe extern "C" fn set_command_info(
    command: *mut RedisModuleCommand,
    info: *const RedisModuleCommandInfo,
) -> c_int {
    // SAFETY: the command is one of `get_command`, which nobody removed.
    unsafe { (*command.cast::<FakeCommand>()).arity = (*info).arity };
    REDISMODULE_OK
}

unsafe extern "C" fn wrong_arity(ctx: *mut RedisModuleCtx) -> c_int {
    // SAFETY: see above.
    let context = unsafe { context(ctx) };
    // SAFETY: see above; the name is the first argument.
    let name = unsafe { String::from_utf8_lossy(strings::bytes(context.arguments[0])).to_ascii_lowercase() };
    let error = format!("ERR wrong number of arguments for '{name}' command");
    context.replies.add(FakeReply::Error(error));
    REDISMODULE_OK
}

unsafe extern "C" fn is_keys_position_request(_ctx: *mut RedisModuleCtx) -> c_int {
    0
}

unsafe extern "C" fn replicate_verbatim(ctx: *mut RedisModuleCtx) -> c_int {
    // SAFETY: see above.
    unsafe {
        let arguments = &context(ctx).arguments;
        let command = all_bytes(arguments.as_ptr(), arguments.len());
        state(ctx).done.replicated.push(command);
    }
    REDISMODULE_OK
}

/// `Replicate` with the format "v", as the SDK calls it.
unsafe extern "C" fn replicate(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    format: *const c_char,
    arguments: *const *mut RedisModuleString,
    count: usize,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        assert_eq!(CStr::from_ptr(format), c"v");
        let mut command = vec![CStr::from_ptr(name).to_bytes().to_vec()];
        command.extend(all_bytes(arguments, count));
        state(ctx).done.replicated.push(command);
    }
    REDISMODULE_OK
}

/// `Log` with the format "%s", as the SDK calls it.
unsafe extern "C" fn log(
    ctx: *mut RedisModuleCtx,
    level: *const c_char,
    _format: *const c_char,
    line: *const c_char,
) {
    // SAFETY: see above; the log has no place without a context.
    unsafe {
        if !ctx.is_null() {
            let line = format!("{}: {}", text(level), text(line));
            state(ctx).done.log.push(line);
        }
    }
}

unsafe extern "C" fn notify(
    ctx: *mut RedisModuleCtx,
    _class: c_int,
    event: *const c_char,
    key: *mut RedisModuleString,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        let event = (text(event), strings::bytes(key).to_vec());
        state(ctx).done.notified.push(event);
    }
    REDISMODULE_OK
}

unsafe extern "C" fn signal_modified_key(ctx: *mut RedisModuleCtx, key: *mut RedisModuleString) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx).done.modified.push(strings::bytes(key).to_vec()) };
    REDISMODULE_OK
}

unsafe extern "C" fn get_selected_db(_ctx: *mut RedisModuleCtx) -> c_int {
    0
}

unsafe extern "C" fn get_client_id(_ctx: *mut RedisModuleCtx) -> u64 {
    1
}

/// A client that speaks RESP3 and cannot wait.
unsafe extern "C" fn get_context_flags(_ctx: *mut RedisModuleCtx) -> c_int {
    REDISMODULE_CTX_FLAGS_MASTER | REDISMODULE_CTX_FLAGS_RESP3 | REDISMODULE_CTX_FLAGS_DENY_BLOCKING
}

type NoVariadics5 = unsafe extern "C" fn(
    *mut RedisModuleCtx,
    *const c_char,
    *const c_char,
    *const *mut RedisModuleString,
    usize,
) -> c_int;
type NoVariadics4 = unsafe extern "C" fn(*mut RedisModuleCtx, *const c_char, *const c_char, *const c_char);

// SAFETY: on Linux, the first integers and pointers of a call go into registers, whether the function declares them or has
// `...` for them. The SDK calls it with exactly these.
const REPLICATE: signature::Replicate = unsafe { transmute(replicate as NoVariadics5) };
// SAFETY: as above.
const LOG: signature::Log = unsafe { transmute(log as NoVariadics4) };

static SERVED: &[Served] = served! {
    IsModuleNameBusy = is_module_name_busy,
    SetModuleAttribs = set_module_attribs,
    SetModuleOptions = set_module_options,
    CreateCommand = create_command,
    GetCommand = get_command,
    SetCommandInfo = set_command_info,
    WrongArity = wrong_arity,
    IsKeysPositionRequest = is_keys_position_request,
    ReplicateVerbatim = replicate_verbatim,
    Replicate = REPLICATE,
    Log = LOG,
    NotifyKeyspaceEvent = notify,
    SignalModifiedKey = signal_modified_key,
    GetSelectedDb = get_selected_db,
    GetClientId = get_client_id,
    GetContextFlags = get_context_flags,
};

#[cfg(test)]
mod tests;
