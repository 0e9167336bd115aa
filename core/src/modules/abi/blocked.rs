//! Clients that wait for a module, and threads of modules.

use super::given::{Ctx, Str, abi_functions, server_functions};
use super::{fail_with, status};
use crate::modules::blocked::{self, Callbacks, Handle, Keys, Why};
use crate::modules::context::{Context, with_current};
use crate::modules::module::Module;
use crate::modules::string::ModuleString;
use crate::modules::threads;
use crate::runtime::os_error;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_longlong, c_void};
use std::sync::atomic::Ordering;

pub(super) const SERVED: &[Served] = served! {
    BlockClient = block_client,
    BlockClientOnKeys = block_client_on_keys,
    BlockClientOnKeysWithFlags = block_client_on_keys_with_flags,
    UnblockClient = unblock_client,
    AbortBlock = abort_block,
    SetDisconnectCallback = set_disconnect_callback,
    IsBlockedReplyRequest = is_blocked_reply_request,
    IsBlockedTimeoutRequest = is_blocked_timeout_request,
    GetBlockedClientPrivateData = get_blocked_client_private_data,
    GetBlockedClientReadyKey = get_blocked_client_ready_key,
    GetBlockedClientHandle = get_blocked_client_handle,
    BlockedClientDisconnected = blocked_client_disconnected,
    BlockClientGetPrivateData = block_client_get_private_data,
    BlockClientSetPrivateData = block_client_set_private_data,
    BlockedClientMeasureTimeStart = blocked_client_measure_time_start,
    BlockedClientMeasureTimeEnd = blocked_client_measure_time_end,
    SignalKeyAsReady = signal_key_as_ready,
    GetThreadSafeContext = get_thread_safe_context,
    GetDetachedThreadSafeContext = get_detached_thread_safe_context,
    FreeThreadSafeContext = free_thread_safe_context,
    ThreadSafeContextLock = thread_safe_context_lock,
    ThreadSafeContextTryLock = thread_safe_context_try_lock,
    ThreadSafeContextUnlock = thread_safe_context_unlock,
};

server_functions! {
    /// Has the client of the command wait. NULL outside of commands, and in one that keeps to its keys.
    fn block_client(
        ctx: Ctx, reply: RedisModuleCmdFunc, timeout: RedisModuleCmdFunc, free: RedisModuleFreePrivDataFunc,
        timeout_ms: c_longlong,
    ) -> *mut RedisModuleBlockedClient {
        block(&mut ctx, Callbacks { reply, timeout, free }, timeout_ms, std::ptr::null_mut(), Keys::default())
    }

    /// The same, until one of the keys has changed and `reply` says that the client has got what it waits for.
    fn block_client_on_keys(
        ctx: Ctx, reply: RedisModuleCmdFunc, timeout: RedisModuleCmdFunc, free: RedisModuleFreePrivDataFunc,
        timeout_ms: c_longlong, keys: *mut *mut RedisModuleString, len: c_int, data: *mut c_void,
    ) -> *mut RedisModuleBlockedClient {
        let keys = Keys { names: &names(keys, len), ends_with_key: false };
        block(&mut ctx, Callbacks { reply, timeout, free }, timeout_ms, data, keys)
    }

    /// The same. By the flag `REDISMODULE_BLOCK_UNBLOCK_DELETED`, `reply` is called also when one of the keys was removed.
    fn block_client_on_keys_with_flags(
        ctx: Ctx, reply: RedisModuleCmdFunc, timeout: RedisModuleCmdFunc, free: RedisModuleFreePrivDataFunc,
        timeout_ms: c_longlong, keys: *mut *mut RedisModuleString, len: c_int, data: *mut c_void, flags: c_int,
    ) -> *mut RedisModuleBlockedClient {
        let ends_with_key = flags & REDISMODULE_BLOCK_UNBLOCK_DELETED != 0;
        let keys = Keys { names: &names(keys, len), ends_with_key };
        block(&mut ctx, Callbacks { reply, timeout, free }, timeout_ms, data, keys)
    }

    /// Has the clients look at a key that wait for it.
    fn signal_key_as_ready(ctx: Ctx, key: Str) {
        let db = ctx.call.db;
        ctx.bring(db, key.bytes());
        ctx.signal_modified(key.bytes());
    }
}

abi_functions! {
    /// The client gets its reply. It may be called on any thread.
    fn unblock_client(client: *mut RedisModuleBlockedClient, data: *mut c_void) -> c_int {
        let Some(client) = Handle::from_abi(client) else { return fail_with(os_error::INVALID) };
        if client.waits_for_keys() {
            return match blocked::unblock(&client) {
                true => REDISMODULE_OK,
                false => fail_with(os_error::NOT_SUPPORTED),
            };
        }
        client.data.store(data, Ordering::Relaxed);
        status(blocked::unblock(&client))
    }

    /// The client is given up: no callback is called.
    fn abort_block(client: *mut RedisModuleBlockedClient) -> c_int {
        let Some(client) = Handle::from_abi(client) else { return REDISMODULE_ERR };
        if with_current(|ctx| blocked::abort(Some(ctx), &client)).is_none() {
            blocked::abort(None, &client);
        }
        REDISMODULE_OK
    }

    fn set_disconnect_callback(client: *mut RedisModuleBlockedClient, callback: RedisModuleDisconnectFunc) {
        if let Some(client) = Handle::from_abi(client) {
            client.on_disconnect(callback);
        }
    }

    fn is_blocked_reply_request(ctx: Ctx) -> c_int {
        c_int::from(ctx.on.as_ref().is_some_and(|on| on.why == Why::Reply))
    }

    fn is_blocked_timeout_request(ctx: Ctx) -> c_int {
        c_int::from(ctx.on.as_ref().is_some_and(|on| on.why == Why::TimedOut))
    }

    fn get_blocked_client_private_data(ctx: Ctx) -> *mut c_void {
        ctx.on.as_ref().map_or(std::ptr::null_mut(), |on| on.client.data.load(Ordering::Relaxed))
    }

    fn get_blocked_client_ready_key(ctx: Ctx) -> *mut RedisModuleString {
        let key = ctx.on.as_ref().and_then(|on| on.key);
        key.map_or(std::ptr::null_mut(), |key| ModuleString::as_abi(key.as_ptr()))
    }

    fn get_blocked_client_handle(ctx: Ctx) -> *mut RedisModuleBlockedClient {
        ctx.on.as_ref().map_or(std::ptr::null_mut(), |on| on.client.as_abi())
    }

    /// Whether the client has gone before the module has unblocked it.
    fn blocked_client_disconnected(ctx: Ctx) -> c_int {
        c_int::from(ctx.on.as_ref().is_some_and(|on| on.client.has_disconnected()))
    }

    fn block_client_get_private_data(client: *mut RedisModuleBlockedClient) -> *mut c_void {
        Handle::from_abi(client).map_or(std::ptr::null_mut(), |client| client.data.load(Ordering::Relaxed))
    }

    fn block_client_set_private_data(client: *mut RedisModuleBlockedClient, data: *mut c_void) {
        if let Some(client) = Handle::from_abi(client) {
            client.data.store(data, Ordering::Relaxed);
        }
    }

    /// From now on the module works for the client: that counts as the command's time.
    fn blocked_client_measure_time_start(client: *mut RedisModuleBlockedClient) -> c_int {
        let Some(client) = Handle::from_abi(client) else { return REDISMODULE_ERR };
        client.begin_work();
        REDISMODULE_OK
    }

    fn blocked_client_measure_time_end(client: *mut RedisModuleBlockedClient) -> c_int {
        status(Handle::from_abi(client).is_some_and(|client| client.end_work()))
    }

    /// A context for a thread. What it replies is for the blocked client, if there is one.
    fn get_thread_safe_context(client: *mut RedisModuleBlockedClient) -> *mut RedisModuleCtx {
        let Some(client) = Handle::from_abi(client) else {
            let module = with_current(|ctx| ctx.module).unwrap_or_else(threads::nobody);
            return Box::leak(threads::new_context(module)).as_abi();
        };
        let ctx = Box::leak(threads::new_context(client.module));
        ctx.call = client.call();
        ctx.reply_to(client.written(), client.call().resp);
        ctx.on = Some(blocked::On { client, why: Why::Thread, key: None });
        ctx.as_abi()
    }

    /// A context for a thread, with the database of another. It replies to nobody.
    fn get_detached_thread_safe_context(ctx: Ctx) -> *mut RedisModuleCtx {
        let detached = Box::leak(threads::new_context(ctx.module));
        detached.call.db = ctx.call.db;
        detached.as_abi()
    }

    fn free_thread_safe_context(ctx: *mut RedisModuleCtx) {
        // SAFETY: the module passes a context of a thread, which it does not use any more.
        unsafe { threads::free_context(ctx) };
    }

    fn thread_safe_context_lock(ctx: Option<Ctx>) {
        let module = module_of(&ctx);
        threads::lock(shard_of(ctx), module);
    }

    /// Takes the lock unless another thread has it.
    fn thread_safe_context_try_lock(ctx: Option<Ctx>) -> c_int {
        let module = module_of(&ctx);
        if threads::try_lock(shard_of(ctx), module) { REDISMODULE_OK } else { fail_with(os_error::BUSY) }
    }

    fn thread_safe_context_unlock(_ctx: Option<Ctx>) {
        threads::unlock();
    }
}

/// The shard on which a thread's task runs: that of the client for which the thread works.
fn shard_of(ctx: Option<Ctx>) -> usize {
    ctx.and_then(|ctx| ctx.on.as_ref().map(|on| on.client.shard)).unwrap_or(0)
}

/// The module whose thread has this context.
fn module_of(ctx: &Option<Ctx>) -> &'static Module {
    ctx.as_ref().map_or_else(threads::nobody, |ctx| ctx.module)
}

fn block(
    ctx: &mut Context<'static>,
    callbacks: Callbacks,
    timeout_ms: c_longlong,
    data: *mut c_void,
    keys: Keys<'_>,
) -> *mut RedisModuleBlockedClient {
    let (in_exec, in_script) = (ctx.call.in_exec, ctx.call.in_script);
    let Some(client) = blocked::block(ctx, callbacks, timeout_ms, data, keys) else {
        return std::ptr::null_mut();
    };
    if !client.is_held() {
        let error = match in_script {
            true => "ERR Blocking module command called from Lua script",
            false if in_exec => "ERR Blocking module command called from transaction",
            false => "ERR Blocking module command called where no client can wait",
        };
        if let Some(mut reply) = ctx.reply() {
            reply.error(error.as_bytes());
        }
    }
    client.as_abi()
}

fn names<'a>(keys: *mut *mut RedisModuleString, len: c_int) -> Vec<&'a [u8]> {
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: the module passes so many strings, which last for the call.
    (0..len).map(|at| unsafe { (*(*keys.add(at)).cast::<ModuleString>()).bytes() }).collect()
}
