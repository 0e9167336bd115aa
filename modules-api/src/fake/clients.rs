//! The lock of a fake server, clients that wait, and contexts for threads.

use super::context::{FakeContext, argc, argv};
use super::{FakeHost, FakeReply, State, all_bytes, context, state, strings};
use crate::abi::*;
use crate::served;
use std::cell::UnsafeCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a test waits for a thread of its module, by the clock.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What threads share.
#[derive(Default)]
pub(super) struct Server {
    is_locked: Mutex<bool>,
    unlocked: Condvar,
    /// Used by whoever holds the lock.
    state: UnsafeCell<State>,
    unblocked: Mutex<Vec<Unblocked>>,
    has_unblocked: Condvar,
}

/// A client that a thread has unblocked, with what its answer is made of.
struct Unblocked {
    client: u64,
    private_data: *mut c_void,
}

// SAFETY: the state is used with the lock; the pointers in it, and those of unblocked clients, are the module's, which says
// that its data may go to other threads.
unsafe impl Send for Server {}
// SAFETY: as above.
unsafe impl Sync for Server {}

impl Server {
    /// Waits for the lock. A thread that has it does not ask for it again.
    pub(super) fn lock(&self) {
        let mut is_locked = self.is_locked.lock().expect("nothing panics with the mutex");
        while *is_locked {
            is_locked = self.unlocked.wait(is_locked).expect("nothing panics with the mutex");
        }
        *is_locked = true;
    }

    fn try_lock(&self) -> bool {
        let mut is_locked = self.is_locked.lock().expect("nothing panics with the mutex");
        !std::mem::replace(&mut *is_locked, true)
    }

    pub(super) fn unlock(&self) {
        *self.is_locked.lock().expect("nothing panics with the mutex") = false;
        self.unlocked.notify_one();
    }

    /// # Safety
    /// The lock is held, and no other reference to the state is in use.
    #[allow(clippy::mut_from_ref, reason = "the lock stands for the mutable borrow")]
    pub(super) unsafe fn state(&self) -> &mut State {
        // SAFETY: as promised.
        unsafe { &mut *self.state.get() }
    }
}

/// The clients that wait.
#[derive(Default)]
pub(super) struct Clients {
    /// Commands cannot wait, as within a transaction.
    pub(super) may_not_wait: bool,
    last_id: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Replies that were given and not asked for yet.
    replies: BTreeMap<u64, FakeReply>,
    /// Keys that something was put into.
    ready_keys: BTreeSet<Vec<u8>>,
}

impl Clients {
    /// Something was put into a key.
    pub(super) fn set_ready(&mut self, key: &[u8]) {
        self.ready_keys.insert(key.to_vec());
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// A client that waits.
#[derive(Clone)]
struct Waiting {
    reply: RedisModuleCmdFunc,
    time_out: RedisModuleCmdFunc,
    free: RedisModuleFreePrivDataFunc,
    disconnected: RedisModuleDisconnectFunc,
    arguments: Vec<Vec<u8>>,
    /// None: for ever.
    until_ms: Option<i64>,
    /// What it waits for, with the data of its command; without keys, it waits for a thread.
    keys: Vec<Vec<u8>>,
    private_data: *mut c_void,
    /// The module's pointer to it.
    handle: *mut RedisModuleBlockedClient,
    /// Its time is over, or it disconnected: it gets no answer any more.
    is_gone: bool,
}

/// What the module has as a blocked client.
struct Handle {
    server: Arc<Server>,
    client: u64,
}

/// A client of a [`FakeHost`] whose command was started.
#[derive(Debug, PartialEq, Eq)]
pub struct FakeClient(u64);

impl FakeHost {
    /// Begins a command of the module, whose client may have to wait. Panics if there is none of this name.
    pub fn start<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> FakeClient {
        let name = String::from_utf8_lossy(arguments[0].as_ref()).to_ascii_lowercase();
        let run = self.locked(|state| {
            state.done = Default::default();
            let command = state.commands.get(&name).unwrap_or_else(|| panic!("no command {name}"));
            command.run.expect("a command has a function")
        });
        let (_, mut context) = self.in_context(arguments, |ctx| {
            // SAFETY: the context and the arguments are as a server gives them.
            unsafe { run(ctx, argv(ctx), argc(ctx)) }
        });
        let client = self.locked(|state| {
            assert!(state.open_keys.is_empty(), "keys were left open: {:?}", state.open_keys);
            let id = context.blocked.unwrap_or_else(|| state.clients.next_id());
            if context.blocked.is_none() {
                state.clients.replies.insert(id, context.replies.finish());
            } else {
                assert!(context.replies.is_empty(), "a command that has its client wait replies nothing");
            }
            FakeClient(id)
        });
        self.serve();
        client
    }

    /// The reply to a client's command; None while the client waits. It is given once.
    pub fn reply(&mut self, client: &FakeClient) -> Option<FakeReply> {
        self.serve();
        self.locked(|state| state.clients.replies.remove(&client.0))
    }

    /// Waits for the reply to a client's command. Panics after 10 seconds.
    pub fn wait(&mut self, client: &FakeClient) -> FakeReply {
        loop {
            if let Some(reply) = self.reply(client) {
                return reply;
            }
            let unblocked = self.server.unblocked.lock().expect("nothing panics with the mutex");
            let waited =
                self.server.has_unblocked.wait_timeout_while(unblocked, WAIT_MAX, |all| all.is_empty());
            let (unblocked, waited) = waited.expect("nothing panics with the mutex");
            drop(unblocked);
            assert!(!waited.timed_out(), "the client waits, and nothing answers it");
        }
    }

    /// Whether commands cannot have their clients wait, as within a transaction or a script.
    pub fn set_may_not_wait(&mut self, may_not_wait: bool) {
        self.locked(|state| state.clients.may_not_wait = may_not_wait);
    }

    /// The client goes while it waits. Panics if it does not wait.
    pub fn disconnect(&mut self, client: FakeClient) {
        let waiting = self.locked(|state| {
            let waiting = state.clients.waiting.get_mut(&client.0).expect("the client waits");
            waiting.is_gone = true;
            waiting.clone()
        });
        if let Some(disconnected) = waiting.disconnected {
            self.in_context(&waiting.arguments, |ctx| {
                // SAFETY: the context is one, and the client is that of the callback.
                unsafe { disconnected(ctx, waiting.handle) };
            });
        }
        if !waiting.keys.is_empty() {
            self.end(client.0, waiting.private_data);
        }
    }

    /// Gives answers to the clients that are unblocked, and serves those whose keys are ready.
    pub(super) fn serve(&mut self) {
        let unblocked =
            std::mem::take(&mut *self.server.unblocked.lock().expect("nothing panics with the mutex"));
        for Unblocked { client, private_data } in unblocked {
            let waiting = self.locked(|state| state.clients.waiting[&client].clone());
            if !waiting.is_gone {
                self.answer(client, &waiting, waiting.reply, private_data, None);
            }
            self.end(client, private_data);
        }
        while let Some(key) = self.locked(|state| state.clients.ready_keys.pop_first()) {
            let waiting: Vec<(u64, Waiting)> = self.locked(|state| {
                let of_key = state.clients.waiting.iter().filter(|(_, waiting)| waiting.keys.contains(&key));
                of_key.map(|(id, waiting)| (*id, waiting.clone())).collect()
            });
            for (client, waiting) in waiting {
                let data = waiting.private_data;
                let is_there = self.locked(|state| state.keys.contains_key(&key));
                if is_there && self.answer(client, &waiting, waiting.reply, data, Some(&key)) {
                    self.end(client, data);
                }
            }
        }
    }

    /// Has the clients that have waited too long replied so.
    pub(super) fn time_out(&mut self) {
        let late: Vec<(u64, Waiting)> = self.locked(|state| {
            let now_ms = state.now_ms;
            let is_late =
                |waiting: &Waiting| !waiting.is_gone && waiting.until_ms.is_some_and(|at| at <= now_ms);
            let late = state.clients.waiting.iter_mut().filter(|(_, waiting)| is_late(waiting));
            late.map(|(id, waiting)| {
                waiting.is_gone = true;
                (*id, waiting.clone())
            })
            .collect()
        });
        for (client, waiting) in late {
            self.answer(client, &waiting, waiting.time_out, waiting.private_data, None);
            if !waiting.keys.is_empty() {
                self.end(client, waiting.private_data);
            }
        }
    }

    /// Runs a callback that replies. Says whether it did.
    fn answer(
        &mut self,
        client: u64,
        waiting: &Waiting,
        callback: RedisModuleCmdFunc,
        private_data: *mut c_void,
        ready_key: Option<&[u8]>,
    ) -> bool {
        let callback = callback.expect("a client that waits has its callbacks");
        let (result, mut context) = self.in_context(&waiting.arguments, |ctx| {
            // SAFETY: the context and the arguments are as a server gives them.
            unsafe {
                context(ctx).private_data = private_data;
                context(ctx).ready_key = ready_key.map_or(std::ptr::null_mut(), strings::make);
                callback(ctx, argv(ctx), argc(ctx))
            }
        });
        if result != REDISMODULE_OK {
            assert!(context.replies.is_empty(), "a client that is not served gets no reply");
            return false;
        }
        let reply = context.replies.finish();
        self.locked(|state| state.clients.replies.insert(client, reply));
        true
    }

    /// The client waits no more: the module frees its data.
    fn end(&mut self, client: u64, private_data: *mut c_void) {
        let waiting = self.locked(|state| state.clients.waiting.remove(&client).expect("the client waits"));
        if let Some(free) = waiting.free
            && !private_data.is_null()
        {
            self.in_context(&waiting.arguments, |ctx| {
                // SAFETY: the data is that of this client, and is used no more.
                unsafe { free(ctx, private_data) };
            });
        }
        // SAFETY: it was made for this client, which the module may not use any more.
        drop(unsafe { Box::from_raw(waiting.handle.cast::<Handle>()) });
    }
}

// The functions of the server: with the context of the call under way, strings of this server, and clients that wait.

#[allow(clippy::too_many_arguments, reason = "it is what `BlockClientOnKeys` takes")]
unsafe fn block(
    ctx: *mut RedisModuleCtx,
    reply: RedisModuleCmdFunc,
    time_out: RedisModuleCmdFunc,
    free: RedisModuleFreePrivDataFunc,
    timeout_ms: mstime_t,
    keys: Vec<Vec<u8>>,
    private_data: *mut c_void,
) -> *mut RedisModuleBlockedClient {
    // SAFETY: see above.
    let (context, state) = unsafe { (context(ctx), state(ctx)) };
    let client = state.clients.next_id();
    let handle = Handle { server: Arc::clone(&context.server), client };
    let handle = Box::into_raw(Box::new(handle)).cast::<RedisModuleBlockedClient>();
    // SAFETY: see above.
    let arguments = unsafe { all_bytes(context.arguments.as_ptr(), context.arguments.len()) };
    let until_ms = (timeout_ms > 0).then(|| state.now_ms + timeout_ms);
    let waiting = Waiting {
        reply,
        time_out,
        free,
        disconnected: None,
        arguments,
        until_ms,
        keys,
        private_data,
        handle,
        is_gone: false,
    };
    state.clients.waiting.insert(client, waiting);
    context.blocked = Some(client);
    handle
}

unsafe extern "C" fn block_client(
    ctx: *mut RedisModuleCtx,
    reply: RedisModuleCmdFunc,
    time_out: RedisModuleCmdFunc,
    free: RedisModuleFreePrivDataFunc,
    timeout_ms: mstime_t,
) -> *mut RedisModuleBlockedClient {
    // SAFETY: see above.
    unsafe { block(ctx, reply, time_out, free, timeout_ms, Vec::new(), std::ptr::null_mut()) }
}

unsafe extern "C" fn block_client_on_keys(
    ctx: *mut RedisModuleCtx,
    reply: RedisModuleCmdFunc,
    time_out: RedisModuleCmdFunc,
    free: RedisModuleFreePrivDataFunc,
    timeout_ms: mstime_t,
    keys: *mut *mut RedisModuleString,
    key_count: c_int,
    private_data: *mut c_void,
) -> *mut RedisModuleBlockedClient {
    // SAFETY: see above.
    unsafe {
        let keys = all_bytes(keys, usize::try_from(key_count).expect("a number of keys"));
        block(ctx, reply, time_out, free, timeout_ms, keys, private_data)
    }
}

unsafe extern "C" fn signal_key_as_ready(ctx: *mut RedisModuleCtx, key: *mut RedisModuleString) {
    // SAFETY: see above.
    unsafe { state(ctx).clients.set_ready(strings::bytes(key)) };
}

/// Any thread may call it, with or without the lock.
unsafe extern "C" fn unblock_client(
    client: *mut RedisModuleBlockedClient,
    private_data: *mut c_void,
) -> c_int {
    // SAFETY: the client waits, and its handle is freed once this was seen.
    let (server, client) = unsafe {
        let handle = &*client.cast::<Handle>();
        (Arc::clone(&handle.server), handle.client)
    };
    let mut unblocked = server.unblocked.lock().expect("nothing panics with the mutex");
    assert!(!unblocked.iter().any(|other| other.client == client), "a client is unblocked twice");
    unblocked.push(Unblocked { client, private_data });
    server.has_unblocked.notify_all();
    REDISMODULE_OK
}

unsafe extern "C" fn get_private_data(ctx: *mut RedisModuleCtx) -> *mut c_void {
    // SAFETY: see above.
    unsafe { context(ctx) }.private_data
}

unsafe extern "C" fn get_ready_key(ctx: *mut RedisModuleCtx) -> *mut RedisModuleString {
    // SAFETY: see above.
    unsafe { context(ctx) }.ready_key
}

unsafe extern "C" fn set_disconnect_callback(
    client: *mut RedisModuleBlockedClient,
    callback: RedisModuleDisconnectFunc,
) {
    // SAFETY: the client waits. Its command is running, with the lock.
    unsafe {
        let handle = &*client.cast::<Handle>();
        if let Some(waiting) = handle.server.state().clients.waiting.get_mut(&handle.client) {
            waiting.disconnected = callback;
        }
    }
}

unsafe extern "C" fn measure_time(_client: *mut RedisModuleBlockedClient) -> c_int {
    REDISMODULE_OK
}

fn thread_context(server: &Arc<Server>) -> *mut RedisModuleCtx {
    Box::into_raw(Box::new(FakeContext::new::<&[u8]>(server, &[]))).cast()
}

unsafe extern "C" fn get_thread_safe_context(client: *mut RedisModuleBlockedClient) -> *mut RedisModuleCtx {
    // SAFETY: the client waits.
    thread_context(unsafe { &(*client.cast::<Handle>()).server })
}

unsafe extern "C" fn get_detached_context(ctx: *mut RedisModuleCtx) -> *mut RedisModuleCtx {
    // SAFETY: see above.
    thread_context(unsafe { &context(ctx).server })
}

unsafe extern "C" fn free_thread_safe_context(ctx: *mut RedisModuleCtx) {
    // SAFETY: it was made by `thread_context`, and is used no more.
    drop(unsafe { Box::from_raw(ctx.cast::<FakeContext>()) });
}

unsafe extern "C" fn lock_context(ctx: *mut RedisModuleCtx) {
    // SAFETY: the context is the thread's.
    unsafe { context(ctx) }.server.lock();
}

unsafe extern "C" fn try_lock_context(ctx: *mut RedisModuleCtx) -> c_int {
    // SAFETY: the context is the thread's.
    if unsafe { context(ctx) }.server.try_lock() { REDISMODULE_OK } else { REDISMODULE_ERR }
}

unsafe extern "C" fn unlock_context(ctx: *mut RedisModuleCtx) {
    // SAFETY: the context is the thread's, which has the lock.
    unsafe { context(ctx) }.server.unlock();
}

pub(super) static SERVED: &[Served] = served! {
    BlockClient = block_client,
    BlockClientOnKeys = block_client_on_keys,
    SignalKeyAsReady = signal_key_as_ready,
    UnblockClient = unblock_client,
    GetBlockedClientPrivateData = get_private_data,
    GetBlockedClientReadyKey = get_ready_key,
    SetDisconnectCallback = set_disconnect_callback,
    BlockedClientMeasureTimeStart = measure_time,
    BlockedClientMeasureTimeEnd = measure_time,
    GetThreadSafeContext = get_thread_safe_context,
    GetDetachedThreadSafeContext = get_detached_context,
    FreeThreadSafeContext = free_thread_safe_context,
    ThreadSafeContextLock = lock_context,
    ThreadSafeContextTryLock = try_lock_context,
    ThreadSafeContextUnlock = unlock_context,
};
