//! Clients that modules have blocked: they get their replies later, from a callback of the module or from one of its
//! threads.
//!
//! The server's side of it is a [hold](crate::worker::program::HoldId). However that ends, a program runs on the client's
//! shard, which calls the module's callbacks and replies. A blocked client, as the module has it, lasts until both have
//! come: the end of the hold, and the module's `UnblockClient` or `AbortBlock`.

use super::command::ModuleCommand;
use super::context::{Access, Context, run_with};
use super::module::Module;
use super::server;
use super::string::{Arguments, ModuleString};
use crate::call::Call;
use crate::command::CommandError;
use crate::protocol::OwnedArgv;
use crate::runtime::clock::{Clock, SystemClock};
use crate::worker::program::{HoldEnd, HoldId, HoldOn, ProgramCtx, Task, WaitForKeys, redact};
use shardis_modules_api::abi::*;
use smallvec::SmallVec;
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is called when the wait of a client ends.
#[derive(Clone, Copy)]
pub(super) struct Callbacks {
    pub(super) reply: RedisModuleCmdFunc,
    pub(super) timeout: RedisModuleCmdFunc,
    pub(super) free: RedisModuleFreePrivDataFunc,
}

/// A client that a module has blocked.
pub(super) struct BlockedClient {
    pub(super) module: &'static Module,
    command: Option<&'static ModuleCommand>,
    call: Call,
    args: OwnedArgv,
    /// Which of them the slow log does not show.
    redacted: Mutex<SmallVec<[usize; 2]>>,
    /// The client's.
    pub(super) shard: usize,
    waits_for_keys: bool,
    callbacks: Callbacks,
    disconnect: Mutex<RedisModuleDisconnectFunc>,
    pub(super) data: AtomicPtr<c_void>,
    /// What the command has replied that has blocked the client.
    first_reply: Mutex<Vec<u8>>,
    /// What was replied outside of callbacks. Of several threads that reply, one has the client at a time.
    written: UnsafeCell<Vec<u8>>,
    /// The errors that the module has replied with outside of the command, until they are counted.
    errors: Mutex<Vec<CommandError>>,
    phase: Mutex<Phase>,
    /// How long the module has worked for the client outside of its command; and since when it does, in ticks.
    worked_nanos: AtomicU64,
    began_ticks: AtomicU64,
}

/// How far it is.
#[derive(Clone, Copy)]
struct Phase {
    /// The client is held; `None`: it is not any more, or never was.
    hold: Option<HoldId>,
    /// The module has unblocked it.
    is_unblocked: bool,
    reply_by: ReplyBy,
    has_disconnected: bool,
}

/// What replies when the module has ended the wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReplyBy {
    ReplyCallback,
    TimeoutCallback,
    /// No callback is called: the reply is written, or there is none.
    Nothing,
}

// SAFETY: what is changed of it is atomic, under a lock, or used by one thread at a time: by the module, which sees to that
// itself, and then by the shard.
unsafe impl Send for BlockedClient {}
// SAFETY: as above.
unsafe impl Sync for BlockedClient {}

/// A blocked client. The module has one of these as a pointer, until [`finish`].
#[derive(Clone)]
pub(super) struct Handle(Arc<BlockedClient>);

/// For whom a callback is called.
#[derive(Clone)]
pub(super) struct On {
    pub(super) client: Handle,
    pub(super) why: Why,
    /// The key that has become ready.
    pub(super) key: Option<NonNull<ModuleString>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Reply,
    TimedOut,
    /// To free the module's data.
    Free,
    /// It is no callback, but a thread of the module.
    Thread,
}

impl Deref for Handle {
    type Target = BlockedClient;

    fn deref(&self) -> &BlockedClient {
        &self.0
    }
}

impl Handle {
    pub(super) fn as_abi(&self) -> *mut RedisModuleBlockedClient {
        Arc::as_ptr(&self.0).cast_mut().cast()
    }

    /// `None` for NULL.
    pub(super) fn from_abi(client: *mut RedisModuleBlockedClient) -> Option<Handle> {
        if client.is_null() {
            return None;
        }
        let client = client.cast_const().cast::<BlockedClient>();
        // SAFETY: the module passes what it was given, and has not given it up.
        Some(Handle(unsafe {
            Arc::increment_strong_count(client);
            Arc::from_raw(client)
        }))
    }

    pub(super) fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The keys for which a client waits, and whether it is to be asked also when one of them was removed.
#[derive(Clone, Copy, Default)]
pub(super) struct Keys<'a> {
    pub(super) names: &'a [&'a [u8]],
    pub(super) ends_with_key: bool,
}

/// Blocks the client of the command that runs. `keys`: it waits for these as well. A client that cannot wait is not held:
/// see [`BlockedClient::is_held`]. `None`: the callback belongs to no program.
pub(super) fn block(
    ctx: &mut Context<'static>,
    callbacks: Callbacks,
    timeout_ms: i64,
    data: *mut c_void,
    keys: Keys<'_>,
) -> Option<Handle> {
    let (module, command, call, args) = (ctx.module, ctx.command, ctx.call, ctx.args);
    let worker = ctx.program_for("BlockClient")?.worker();
    let shard = worker.shard.index;
    let now_ms = worker.shard.now_ms;
    let reply_by = ReplyBy::ReplyCallback;
    let phase = Phase { hold: None, is_unblocked: false, reply_by, has_disconnected: false };
    let client = BlockedClient {
        module,
        command,
        call,
        args: OwnedArgv::from_argv(args),
        redacted: Mutex::default(),
        shard,
        waits_for_keys: !keys.names.is_empty(),
        callbacks,
        disconnect: Mutex::new(None),
        data: AtomicPtr::new(data),
        first_reply: Mutex::new(Vec::new()),
        written: UnsafeCell::new(Vec::new()),
        errors: Mutex::new(Vec::new()),
        phase: Mutex::new(phase),
        worked_nanos: AtomicU64::new(0),
        began_ticks: AtomicU64::new(0),
    };
    let client = Arc::new(client);
    // The module's: see `finish`.
    let _ = Arc::into_raw(Arc::clone(&client));
    let handle = Handle(client);
    let (for_keys, for_end) = (handle.clone(), handle.clone());
    module.blocked_clients.fetch_add(1, Ordering::Relaxed);
    let hold_on = HoldOn {
        deadline_ms: (timeout_ms > 0).then(|| now_ms.saturating_add(timeout_ms)),
        may_time_out: callbacks.timeout.is_some(),
        keys: (!keys.names.is_empty()).then(|| {
            let on_ready = Box::new(move |key| try_serve(for_keys.clone(), key));
            WaitForKeys::new(keys.names, keys.ends_with_key, on_ready)
        }),
        on_end: Box::new(move |end| ended(for_end, end)),
    };
    let hold = ctx.program().and_then(|program| program.hold_client(hold_on));
    handle.phase().hold = hold;
    if hold.is_some() {
        ctx.blocking = Some(handle.clone());
    }
    Some(handle)
}

impl BlockedClient {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client waits, or will when its command has ended.
    pub(super) fn is_held(&self) -> bool {
        self.phase().hold.is_some()
    }

    pub(super) fn has_disconnected(&self) -> bool {
        self.phase().has_disconnected
    }

    pub(super) fn waits_for_keys(&self) -> bool {
        self.waits_for_keys
    }

    pub(super) fn call(&self) -> Call {
        self.call
    }

    pub(super) fn on_disconnect(&self, callback: RedisModuleDisconnectFunc) {
        *self.disconnect.lock().unwrap_or_else(PoisonError::into_inner) = callback;
    }

    /// What was replied so far outside of callbacks.
    #[allow(clippy::mut_from_ref, reason = "one thread has it at a time, as the ABI asks")]
    pub(super) fn written(&self) -> &mut Vec<u8> {
        // SAFETY: the module has one thread reply at a time, and the shard takes the reply when the module has unblocked the
        // client.
        unsafe { &mut *self.written.get() }
    }

    /// What the command itself has replied comes first.
    pub(super) fn reply_of_command(&self, reply: &mut Vec<u8>) {
        self.first_reply.lock().unwrap_or_else(PoisonError::into_inner).append(reply);
    }

    /// The slow log does not show these arguments of the command.
    pub(super) fn redact(&self, positions: SmallVec<[usize; 2]>) {
        *self.redacted.lock().unwrap_or_else(PoisonError::into_inner) = positions;
    }

    fn errors(&self) -> MutexGuard<'_, Vec<CommandError>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module has replied with an error, which is counted when the client gets it.
    pub(super) fn has_replied_with(&self, error: CommandError) {
        self.errors().push(error);
    }

    pub(super) fn begin_work(&self) {
        self.began_ticks.store(SystemClock::get().ticks(), Ordering::Relaxed);
    }

    /// Returns whether it was begun.
    pub(super) fn end_work(&self) -> bool {
        let began = self.began_ticks.swap(0, Ordering::Relaxed);
        if began == 0 {
            return false;
        }
        let clock = SystemClock::get();
        let nanos = clock.ticks_to_nanos(clock.ticks().saturating_sub(began));
        self.worked_nanos.fetch_add(nanos, Ordering::Relaxed);
        true
    }
}

/// The module unblocks a client. Returns whether it may do that now.
pub(super) fn unblock(client: &Handle) -> bool {
    if client.waits_for_keys {
        // Without a key that is ready, its wait ends as if its time were over.
        if client.callbacks.timeout.is_none() {
            return false;
        }
        client.phase().reply_by = ReplyBy::TimeoutCallback;
    }
    end_hold(client);
    true
}

/// The module gives a client up: no callback of it is called. In the command that has blocked it, the command replies.
pub(super) fn abort(ctx: Option<&mut Context<'static>>, client: &Handle) {
    client.on_disconnect(None);
    client.phase().reply_by = ReplyBy::Nothing;
    let is_its_own = |ctx: &&mut Context<'static>| ctx.blocking.as_ref().is_some_and(|own| own.is(client));
    if let Some(ctx) = ctx.filter(is_its_own) {
        ctx.blocking = None;
        let hold = client.phase().hold.take();
        if let (Some(hold), Some(program)) = (hold, ctx.program()) {
            program.forget_hold(hold);
        }
    }
    end_hold(client);
}

fn end_hold(client: &Handle) {
    let mut phase = client.phase();
    if std::mem::replace(&mut phase.is_unblocked, true) {
        return;
    }
    let hold = phase.hold;
    drop(phase);
    let Some(globals) = server::globals() else { return };
    let outside = &globals.outside[client.shard];
    match hold {
        Some(hold) => outside.release(hold),
        None => {
            let client = client.clone();
            outside.start(Box::new(move |program| finish(&client, program)));
        }
    }
}

/// The wait of a client has ended: what is to be done.
fn ended(client: Handle, end: HoldEnd) -> Task {
    let mut phase = client.phase();
    phase.hold = None;
    phase.has_disconnected |= end == HoldEnd::Gone;
    // A client that waits for keys is unblocked by the end of its wait; another is the module's until that unblocks it.
    let is_last = phase.is_unblocked || client.waits_for_keys;
    phase.is_unblocked |= client.waits_for_keys;
    let reply_by = phase.reply_by;
    drop(phase);
    Box::new(move |program| {
        match (end, reply_by) {
            (HoldEnd::Released, ReplyBy::ReplyCallback) => {
                reply(&client, program, client.callbacks.reply, Why::Reply);
            }
            (HoldEnd::Released, ReplyBy::TimeoutCallback) | (HoldEnd::TimedOut, _) => {
                reply(&client, program, client.callbacks.timeout, Why::TimedOut);
            }
            (HoldEnd::Released, ReplyBy::Nothing) => {
                write_first(&client, program);
                write(&client, program);
            }
            (HoldEnd::Gone, _) => tell_disconnected(&client, program),
        }
        if is_last {
            finish(&client, program);
        }
    })
}

/// Replies what a callback replies, and then what was replied outside of callbacks.
fn reply(client: &Handle, program: &mut ProgramCtx<'_>, callback: RedisModuleCmdFunc, why: Why) {
    let began_ticks = SystemClock::get().ticks();
    write_first(client, program);
    let start = program.reply.out.len();
    call_back(client, program, callback, why, None);
    write(client, program);
    count(client, program, began_ticks, start);
}

/// Counts what was done for a client that gets its reply, whose part that is none of the command begins at `start`.
fn count(client: &Handle, program: &mut ProgramCtx<'_>, began_ticks: u64, start: usize) {
    let clock = SystemClock::get();
    let nanos = clock.ticks_to_nanos(clock.ticks().saturating_sub(began_ticks));
    let nanos = nanos + client.worked_nanos.load(Ordering::Relaxed);
    let errors = std::mem::take(&mut *client.errors());
    // One that a called command has replied with was counted when that ran.
    let has_failed = !errors.is_empty() || program.reply.out[start..].starts_with(b"-");
    let worker = program.worker();
    let redacted = client.redacted.lock().unwrap_or_else(PoisonError::into_inner);
    if redacted.is_empty() {
        worker.count_held(&client.call, client.args.as_argv(), nanos, has_failed);
    } else {
        let shown = redact(client.args.as_argv(), &redacted);
        worker.count_held(&client.call, shown.as_argv(), nanos, has_failed);
    }
    errors.iter().for_each(|error| worker.shard.stats.error(error.code()));
}

fn write_first(client: &Handle, program: &mut ProgramCtx<'_>) {
    program.reply.out.append(&mut client.first_reply.lock().unwrap_or_else(PoisonError::into_inner));
}

fn write(client: &Handle, program: &mut ProgramCtx<'_>) {
    program.reply.out.append(client.written());
}

/// Calls a callback that may reply. Returns its status.
fn call_back(
    client: &Handle,
    program: &mut ProgramCtx<'_>,
    callback: RedisModuleCmdFunc,
    why: Why,
    key: Option<NonNull<ModuleString>>,
) -> c_int {
    let Some(callback) = callback else { return REDISMODULE_OK };
    let mut reply = std::mem::take(program.reply.out);
    let mut ctx = Context::new(client.module, Access::Program(NonNull::from(&mut *program).cast()));
    ctx.command = client.command;
    ctx.call = client.call;
    ctx.args = client.args.as_argv();
    ctx.on = Some(On { client: client.clone(), why, key });
    ctx.reply_to(&mut reply, client.call.resp);
    let arguments = Arguments::new(client.args.as_argv().iter(), client.module);
    let mut argv = arguments.vector();
    let what = match why {
        Why::TimedOut => "timeout of a blocked client",
        Why::Reply | Why::Free | Why::Thread => "reply to a blocked client",
    };
    // SAFETY: the module has given the function as a callback of this client; the context and the arguments last until it
    // returns.
    let status =
        run_with(&mut ctx, what, |ctx| unsafe { callback(ctx, argv.as_mut_ptr().cast(), arguments.len()) });
    ctx.finish();
    arguments.give_back();
    client.errors().append(&mut ctx.errors);
    drop(ctx);
    *program.reply.out = reply;
    // A module that has blocked clients is not unloaded.
    status.unwrap_or(REDISMODULE_ERR)
}

fn tell_disconnected(client: &Handle, program: &mut ProgramCtx<'_>) {
    let callback = client.disconnect.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(callback) = callback else { return };
    let mut ctx = Context::new(client.module, Access::Program(NonNull::from(program).cast()));
    ctx.call = client.call;
    // SAFETY: the module has given the function as a callback of this client.
    run_with(&mut ctx, "disconnection of a blocked client", |ctx| unsafe { callback(ctx, client.as_abi()) });
    ctx.finish();
}

/// A key has changed for which a client waits: asks the module whether it has got what it waits for.
fn try_serve(client: Handle, key: Vec<u8>) -> Task {
    Box::new(move |program| {
        let phase = *client.phase();
        let Some(hold) = phase.hold.filter(|_| !phase.is_unblocked) else { return };
        let name = ModuleString::new(&key);
        let began_ticks = SystemClock::get().ticks();
        let status = call_back(&client, program, client.callbacks.reply, Why::Reply, NonNull::new(name));
        // SAFETY: it was made above, and the callback has ended.
        unsafe { ModuleString::release(name) };
        if status != REDISMODULE_OK {
            program.reply.out.clear();
            client.errors().clear();
            return;
        }
        count(&client, program, began_ticks, 0);
        client.written().append(program.reply.out);
        let mut phase = client.phase();
        (phase.reply_by, phase.is_unblocked) = (ReplyBy::Nothing, true);
        drop(phase);
        program.worker().release_hold(hold);
    })
}

/// Frees what the module has for the client, and the client.
fn finish(client: &Handle, program: &mut ProgramCtx<'_>) {
    let data = client.data.load(Ordering::Relaxed);
    if let Some(free) = client.callbacks.free.filter(|_| !data.is_null()) {
        let mut ctx = Context::new(client.module, Access::Program(NonNull::from(program).cast()));
        ctx.call = client.call;
        ctx.on = Some(On { client: client.clone(), why: Why::Free, key: None });
        // SAFETY: the module has given the function to free this.
        run_with(&mut ctx, "free of a blocked client's data", |ctx| unsafe { free(ctx, data) });
        ctx.finish();
    }
    client.module.blocked_clients.fetch_sub(1, Ordering::Relaxed);
    // SAFETY: it is the module's, which was made in `block`. The module has unblocked the client, or was told of the end of
    // one that waits for keys: it does not use it any more.
    unsafe { Arc::decrement_strong_count(Arc::as_ptr(&client.0)) };
}
