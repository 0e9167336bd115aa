//! Clients that wait for a reply while a module works on it elsewhere, and threads that use the server meanwhile.

use crate::abi::{
    REDISMODULE_ERR, REDISMODULE_OK, RedisModuleBlockedClient, RedisModuleCtx, RedisModuleString,
};
use crate::api::api;
use crate::callback::only_value;
use crate::context::Context;
use crate::current;
use crate::error::{CommandResult, Error};
use crate::string::ModuleStr;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Mutex;

type Answer = Box<dyn FnOnce(&mut Context<'_>) -> CommandResult + Send>;

/// A client that waits. Whoever has it answers, on whatever thread; if it is dropped, the client gets an error.
pub struct BlockedClient {
    client: NonNull<RedisModuleBlockedClient>,
}

type Disconnected = Box<dyn FnOnce() + Send>;

/// What is called when a client that waits disconnects, by the server's pointer to the client. It is taken out before the
/// client is unblocked, so that a later client at the same address has none of it.
static DISCONNECTED: Mutex<BTreeMap<usize, Disconnected>> = Mutex::new(BTreeMap::new());

fn take_disconnected(client: NonNull<RedisModuleBlockedClient>) -> Option<Disconnected> {
    let mut waiting = DISCONNECTED.lock().expect("nothing panics with the lock");
    waiting.remove(&client.addr().get())
}

// SAFETY: the server lets any thread unblock a client.
unsafe impl Send for BlockedClient {}

impl Context<'_> {
    /// Has the client wait, at most so many milliseconds if it is said. `on_timeout`, which captures nothing, replies when these
    /// are over. The command replies nothing then.
    /// Errors: the client cannot wait, within a transaction or a script; the command has not the flag `blocking`.
    pub fn block_client<F>(&mut self, timeout_ms: Option<i64>, _on_timeout: F) -> Result<BlockedClient, Error>
    where
        F: Fn(&mut Context<'_>) -> CommandResult + Copy + 'static,
    {
        self.check_wide("blocking")?;
        if self.may_not_block() {
            return Err(Error::from_text(c"ERR the command cannot wait here"));
        }
        // SAFETY: the context is that of the command under way; the functions are those for its client, and `free_answer`
        // takes what `unblock` gives.
        let client = unsafe {
            api!(BlockClient)(
                self.as_ptr(),
                Some(answer),
                Some(time_out::<F>),
                Some(free_answer),
                timeout_ms.unwrap_or(0),
            )
        };
        match NonNull::new(client) {
            Some(client) => Ok(BlockedClient { client }),
            None => Err(Error::from_text(c"ERR the client cannot wait")),
        }
    }
}

impl Context<'_> {
    /// Has the client wait until `serve` can serve it, at most so many milliseconds if it is said. `serve` is called whenever
    /// something was put into one of the keys, with that key and with `data`: it replies and gives true, or gives false and
    /// the client waits on. Neither function captures anything.
    /// Errors: the client cannot wait, within a transaction or a script; the command has not the flag `blocking`.
    pub fn block_client_on_keys<T, S, F>(
        &mut self,
        keys: &[ModuleStr<'_>],
        timeout_ms: Option<i64>,
        data: T,
        _serve: S,
        _on_timeout: F,
    ) -> Result<(), Error>
    where
        T: Send + Sync + 'static,
        S: Fn(&mut Context<'_>, ModuleStr<'_>, &T) -> Result<bool, Error> + Copy + 'static,
        F: Fn(&mut Context<'_>) -> CommandResult + Copy + 'static,
    {
        self.check_wide("blocking")?;
        if self.may_not_block() {
            return Err(Error::from_text(c"ERR the command cannot wait here"));
        }
        let data = Box::into_raw(Box::new(data));
        let count = c_int::try_from(keys.len()).map_err(|_| Error::SYNTAX)?;
        // SAFETY: as for `block_client`; the server does not change the array of keys, and the functions take such data.
        let client = unsafe {
            api!(BlockClientOnKeys)(
                self.as_ptr(),
                Some(serve::<T, S>),
                Some(time_out::<F>),
                Some(free_data::<T>),
                timeout_ms.unwrap_or(0),
                keys.as_ptr().cast_mut().cast(),
                count,
                data.cast::<c_void>(),
            )
        };
        if client.is_null() {
            // SAFETY: the server did not take it.
            drop(unsafe { Box::from_raw(data) });
            return Err(Error::from_text(c"ERR the client cannot wait"));
        }
        Ok(())
    }

    /// Says that something was put into a key of a module's type, for clients that wait for it. For the server's own types it
    /// says so itself.
    pub fn signal_key_as_ready(&self, key: &ModuleStr<'_>) {
        // SAFETY: the context is that of the callback under way, and the key's name lives.
        unsafe { api!(SignalKeyAsReady)(self.as_ptr(), key.as_ptr()) };
    }
}

/// # Safety
/// The server calls it for a client that waits for keys, when one of them is ready.
unsafe extern "C" fn serve<T, S>(
    ctx: *mut RedisModuleCtx,
    _argv: *mut *mut RedisModuleString,
    _argc: c_int,
) -> c_int
where
    T: Send + Sync + 'static,
    S: Fn(&mut Context<'_>, ModuleStr<'_>, &T) -> Result<bool, Error> + Copy + 'static,
{
    let _callback = current::Callback::enter("client that waits for keys");
    // SAFETY: the context, the key's name and the data are there until this returns, and `block_client_on_keys` was given an
    // `S` and a `T`.
    unsafe {
        let key = NonNull::new(api!(GetBlockedClientReadyKey)(ctx)).expect("a key is ready");
        let data = &*api!(GetBlockedClientPrivateData)(ctx).cast::<T>();
        let mut context = Context::of_callback(NonNull::new(ctx).expect("a client has a context"));
        match only_value::<S>()(&mut context, ModuleStr::from_raw(key), data) {
            Ok(true) => REDISMODULE_OK,
            Ok(false) => REDISMODULE_ERR,
            Err(error) => {
                context.reply().error(&error);
                REDISMODULE_OK
            }
        }
    }
}

/// # Safety
/// The server calls it with what `block_client_on_keys` gave, once.
unsafe extern "C" fn free_data<T>(_ctx: *mut RedisModuleCtx, data: *mut c_void) {
    let _callback = current::Callback::enter("end of a client that waits for keys");
    // SAFETY: as promised.
    drop(unsafe { Box::from_raw(data.cast::<T>()) });
}

impl BlockedClient {
    /// Has the client answered: `answer` replies, soon, on the client's thread. If the client has gone or its time is over,
    /// it is dropped.
    pub fn unblock(self, answer: impl FnOnce(&mut Context<'_>) -> CommandResult + Send + 'static) {
        let answer: Answer = Box::new(answer);
        let data = Box::into_raw(Box::new(Some(answer)));
        drop(take_disconnected(self.client));
        // SAFETY: the client was not unblocked yet. `answer` and `free_answer` take such data.
        let result = unsafe { api!(UnblockClient)(self.client.as_ptr(), data.cast::<c_void>()) };
        if result != REDISMODULE_OK {
            // SAFETY: the server did not take it.
            drop(unsafe { Box::from_raw(data) });
        }
        std::mem::forget(self);
    }

    /// Has a function called if the client disconnects while it waits: there is nobody to work for then. The client is to be
    /// unblocked all the same. The context stands for the server's lock.
    pub fn on_disconnect(&mut self, _ctx: &Context<'_>, action: impl FnOnce() + Send + 'static) {
        let mut waiting = DISCONNECTED.lock().expect("nothing panics with the lock");
        waiting.insert(self.client.addr().get(), Box::new(action));
        // SAFETY: the client waits, the server does nothing else meanwhile, and `disconnected` is a function for that.
        unsafe { api!(SetDisconnectCallback)(self.client.as_ptr(), Some(disconnected)) };
    }

    /// What happens from here to [`stop_measuring`](Self::stop_measuring) counts as the command's time, in SLOWLOG and in
    /// INFO's commandstats.
    pub fn start_measuring(&mut self) {
        // SAFETY: the client waits.
        unsafe { api!(BlockedClientMeasureTimeStart)(self.client.as_ptr()) };
    }

    /// Ends what [`start_measuring`](Self::start_measuring) began. Several such times are added.
    pub fn stop_measuring(&mut self) {
        // SAFETY: the client waits.
        unsafe { api!(BlockedClientMeasureTimeEnd)(self.client.as_ptr()) };
    }

    /// A context for a thread that works on the answer.
    pub fn thread_context(&self) -> ThreadContext {
        // SAFETY: the client waits.
        ThreadContext::from_server(unsafe { api!(GetThreadSafeContext)(self.client.as_ptr()) })
    }
}

impl Drop for BlockedClient {
    fn drop(&mut self) {
        let client = BlockedClient { client: self.client };
        client.unblock(|_ctx| Err(Error::from_text(c"ERR the module gave no answer")));
    }
}

/// # Safety
/// The server calls it for a client that waits and disconnects.
unsafe extern "C" fn disconnected(_ctx: *mut RedisModuleCtx, client: *mut RedisModuleBlockedClient) {
    let _callback = current::Callback::enter("disconnection of a blocked client");
    if let Some(action) = NonNull::new(client).and_then(take_disconnected) {
        action();
    }
}

/// # Safety
/// The server calls it for a client that was unblocked.
unsafe extern "C" fn answer(
    ctx: *mut RedisModuleCtx,
    _argv: *mut *mut RedisModuleString,
    _argc: c_int,
) -> c_int {
    let _callback = current::Callback::enter("answer of a blocked client");
    // SAFETY: the context is there until this returns, and the data is that of `unblock`.
    unsafe {
        let data = api!(GetBlockedClientPrivateData)(ctx).cast::<Option<Answer>>();
        let mut context = Context::of_callback(NonNull::new(ctx).expect("a client has a context"));
        if let Some(answer) = data.as_mut().and_then(Option::take)
            && let Err(error) = answer(&mut context)
        {
            context.reply().error(&error);
        }
    }
    REDISMODULE_OK
}

/// # Safety
/// The server calls it for a client whose time is over.
unsafe extern "C" fn time_out<F>(
    ctx: *mut RedisModuleCtx,
    _argv: *mut *mut RedisModuleString,
    _argc: c_int,
) -> c_int
where
    F: Fn(&mut Context<'_>) -> CommandResult + Copy + 'static,
{
    let _callback = current::Callback::enter("timeout of a blocked client");
    let ctx = NonNull::new(ctx).expect("a client has a context");
    // SAFETY: the context is there until this returns, and `block_client` was given an `F`.
    let (mut context, on_timeout) = unsafe { (Context::of_callback(ctx), only_value::<F>()) };
    if let Err(error) = on_timeout(&mut context) {
        context.reply().error(&error);
    }
    REDISMODULE_OK
}

/// # Safety
/// The server calls it with what `unblock` gave, once.
unsafe extern "C" fn free_answer(_ctx: *mut RedisModuleCtx, data: *mut c_void) {
    let _callback = current::Callback::enter("end of a blocked client");
    if !data.is_null() {
        // SAFETY: as promised.
        drop(unsafe { Box::from_raw(data.cast::<Option<Answer>>()) });
    }
}

/// The context of a thread that the module started.
pub struct ThreadContext {
    ctx: NonNull<RedisModuleCtx>,
}

// SAFETY: it is made for a thread other than the one that it was made on, and what it can do without the lock is nothing.
unsafe impl Send for ThreadContext {}

impl Context<'_> {
    /// A context for a thread that works for no client.
    pub fn thread_context(&self) -> ThreadContext {
        // SAFETY: the context is that of the callback under way.
        ThreadContext::from_server(unsafe { api!(GetDetachedThreadSafeContext)(self.as_ptr()) })
    }
}

impl ThreadContext {
    fn from_server(ctx: *mut RedisModuleCtx) -> ThreadContext {
        ThreadContext { ctx: NonNull::new(ctx).expect("the server gives a context") }
    }

    /// Waits for the server's lock: while it is held, this thread uses the server as a command does, and commands wait.
    pub fn lock(&mut self) -> LockedContext<'_> {
        // SAFETY: the context is ours, and not locked: the lock borrows it.
        unsafe {
            api!(ThreadSafeContextLock)(self.ctx.as_ptr());
            LockedContext { context: Context::of_thread(self.ctx), _thread: PhantomData }
        }
    }

    /// The same, without waiting: None if something else has the lock.
    pub fn try_lock(&mut self) -> Option<LockedContext<'_>> {
        // SAFETY: as for `lock`.
        unsafe {
            let is_locked = api!(ThreadSafeContextTryLock)(self.ctx.as_ptr()) == REDISMODULE_OK;
            let context = || LockedContext { context: Context::of_thread(self.ctx), _thread: PhantomData };
            is_locked.then(context)
        }
    }
}

impl Drop for ThreadContext {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and not locked.
        unsafe { api!(FreeThreadSafeContext)(self.ctx.as_ptr()) };
    }
}

/// The server, while this thread has its lock. It stays on this thread.
pub struct LockedContext<'t> {
    context: Context<'t>,
    _thread: PhantomData<*mut ()>,
}

impl<'t> Deref for LockedContext<'t> {
    type Target = Context<'t>;

    fn deref(&self) -> &Context<'t> {
        &self.context
    }
}

impl<'t> DerefMut for LockedContext<'t> {
    fn deref_mut(&mut self) -> &mut Context<'t> {
        &mut self.context
    }
}

impl Drop for LockedContext<'_> {
    fn drop(&mut self) {
        // SAFETY: the lock was taken, and what borrows the context is gone.
        unsafe { api!(ThreadSafeContextUnlock)(self.context.as_ptr()) };
    }
}
