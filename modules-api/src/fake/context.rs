//! Contexts of a fake server, and what a module asks of them: commands, effects, the log.

use super::clients::Server;
use super::{FakeCommand, FakeReply, all_bytes, context, replies, state, strings, text};
use crate::abi::*;
use crate::served;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::sync::Arc;

/// A context: the first field is the ABI's.
#[repr(C)]
pub(super) struct FakeContext {
    get_api: signature::GetApi,
    pub(super) server: Arc<Server>,
    pub(super) arguments: Vec<*mut RedisModuleString>,
    pub(super) replies: replies::Builder,
    /// The client that the command has wait.
    pub(super) blocked: Option<u64>,
    /// What `GetBlockedClientPrivateData` and `GetBlockedClientReadyKey` give, for the callbacks of such a client.
    pub(super) private_data: *mut c_void,
    pub(super) ready_key: *mut RedisModuleString,
}

impl FakeContext {
    pub(super) fn new<A: AsRef<[u8]>>(server: &Arc<Server>, arguments: &[A]) -> FakeContext {
        FakeContext {
            get_api: super::get_api,
            server: Arc::clone(server),
            arguments: arguments.iter().map(|argument| strings::make(argument.as_ref())).collect(),
            replies: replies::Builder::default(),
            blocked: None,
            private_data: std::ptr::null_mut(),
            ready_key: std::ptr::null_mut(),
        }
    }

    /// The pointer that the module knows it by.
    pub(super) fn as_ptr(&mut self) -> *mut RedisModuleCtx {
        std::ptr::from_mut(self).cast()
    }
}

impl Drop for FakeContext {
    fn drop(&mut self) {
        for string in self.arguments.iter().chain([&self.ready_key]).filter(|string| !string.is_null()) {
            // SAFETY: they were made for this context.
            unsafe { strings::free(*string) };
        }
    }
}

/// The arguments of a context, as a command gets them.
pub(super) fn argv(ctx: *mut RedisModuleCtx) -> *mut *mut RedisModuleString {
    // SAFETY: callers have a context. The module reads the arguments, and the server through the context does nothing else.
    unsafe { context(ctx).arguments.as_ptr().cast_mut() }
}

pub(super) fn argc(ctx: *mut RedisModuleCtx) -> c_int {
    // SAFETY: callers have a context.
    c_int::try_from(unsafe { context(ctx) }.arguments.len()).expect("few arguments")
}

// The functions of the server. They are called as the ABI says: with the context of the call under way, with strings and keys
// that this server gave, and with strings of C.

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
    class: c_int,
    event: *const c_char,
    key: *mut RedisModuleString,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        let event_and_key = (text(event), strings::bytes(key).to_vec());
        state(ctx).done.notified.push(event_and_key);
        super::events::notify(&context(ctx).server, class, event, key);
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

/// A client that speaks RESP3.
unsafe extern "C" fn get_context_flags(ctx: *mut RedisModuleCtx) -> c_int {
    // SAFETY: see above.
    let may_not_wait = unsafe { state(ctx) }.clients.may_not_wait;
    let deny = if may_not_wait { REDISMODULE_CTX_FLAGS_DENY_BLOCKING } else { 0 };
    REDISMODULE_CTX_FLAGS_MASTER | REDISMODULE_CTX_FLAGS_RESP3 | deny
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

pub(super) static SERVED: &[Served] = served! {
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
