//! Threads of modules: the contexts that they use, and the lock under which they use the server.
//!
//! A thread that takes the lock (`ThreadSafeContextLock`) has a [task](crate::worker::program::Task) of its own, from then
//! until it gives the lock up. The task is a program on a shard. It is suspended while the thread computes, and so stops
//! nobody but those who want the keys that it has used, and other programs of modules. What the thread asks of the server is
//! run by the task, on its shard, while the thread waits for the result: see [`on_server`].

use super::context::{Access, Context, is_in_callback};
use super::module::Module;
use super::{server, turn};
use crate::runtime::crash::{self, Callback};
use crate::runtime::os_error;
use crate::worker::program::{ProgramCtx, new_ticket};
use shardis_modules_api::abi::RedisModuleCtx;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// What a thread asks the server to do.
struct Request(Box<dyn FnOnce()>);

// SAFETY: the thread that has made it waits until it has run.
unsafe impl Send for Request {}

/// Where a thread that has the lock, or waits for it, and its task meet.
struct Link {
    /// By this number the task is woken.
    ticket: u64,
    shard: usize,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    /// The task has not begun: the thread waits for the lock.
    Starting,
    /// The thread has the lock, and asks for nothing.
    Idle,
    /// The thread waits until this has run.
    Asked(Request),
    /// It runs.
    Runs,
    /// The thread has given up the lock.
    Left,
}

thread_local! {
    /// Of a thread that has the lock.
    static HELD: Cell<Option<NonNull<Link>>> = const { Cell::new(None) };
    /// On a shard's thread: the task whose thread has asked for what runs.
    static SERVING: Cell<Option<NonNull<ProgramCtx<'static>>>> = const { Cell::new(None) };
}

/// A thread has the lock, or waits for it.
static IS_WANTED: AtomicBool = AtomicBool::new(false);

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }

    /// The thread's side: waits for its task.
    fn wait_until_idle(&self) {
        let mut state = self.state();
        while !matches!(*state, State::Idle) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread's side: has its task do something.
    fn ask(&self, request: Request) {
        self.set(State::Asked(request));
        self.wake_task();
        self.wait_until_idle();
    }

    fn wake_task(&self) {
        if let Some(globals) = server::globals() {
            globals.outside[self.shard].resume(self.ticket);
        }
    }

    /// The task: serves its thread until that gives up the lock.
    fn serve(&self, program: &mut ProgramCtx<'_>) {
        self.set(State::Idle);
        loop {
            let mut state = self.state();
            match std::mem::replace(&mut *state, State::Runs) {
                State::Asked(request) => {
                    drop(state);
                    let outer = SERVING.replace(Some(NonNull::from(&mut *program).cast()));
                    (request.0)();
                    SERVING.set(outer);
                    self.set(State::Idle);
                }
                State::Left => return,
                idle @ (State::Starting | State::Idle | State::Runs) => {
                    *state = idle;
                    drop(state);
                    program.wait_outside(self.ticket);
                }
            }
        }
    }
}

/// The program which a thread has asked for what runs at the moment.
pub(super) fn serving() -> Option<NonNull<ProgramCtx<'static>>> {
    SERVING.get()
}

/// Does something during which the program may be suspended, and others of this shard run.
pub(super) fn set_aside<T>(act: impl FnOnce() -> T) -> T {
    let serving = SERVING.take();
    let result = act();
    SERVING.set(serving);
    result
}

/// Does something that uses the server: at once on a thread of a shard; for a thread that has the lock, by its task.
#[inline]
pub(super) fn on_server<T>(act: impl FnOnce() -> T) -> T {
    match HELD.get() {
        None => act(),
        Some(link) => have_done(link, act),
    }
}

#[cold]
fn have_done<T>(link: NonNull<Link>, act: impl FnOnce() -> T) -> T {
    // SAFETY: the thread keeps it until it gives up the lock.
    let link = unsafe { link.as_ref() };
    let mut result = None;
    // The error number is the thread's own.
    let request: Box<dyn FnOnce() + '_> = Box::new(|| result = Some((act(), os_error::last())));
    // SAFETY: it is run, and so dropped, before `ask` returns, and what it refers to lives as long.
    let request =
        Request(unsafe { std::mem::transmute::<Box<dyn FnOnce() + '_>, Box<dyn FnOnce()>>(request) });
    // The task's callbacks are the thread's own.
    turn::pause(|| link.ask(request));
    let (result, errno) = result.expect("the task has run it");
    os_error::set(errno);
    result
}

/// Takes the lock for this thread of a module, on behalf of a client of this shard. A callback, which has it already, goes on.
pub(super) fn lock(shard: usize, module: &'static Module) {
    if is_in_callback() || HELD.get().is_some() {
        return;
    }
    let Some(globals) = server::globals() else { return };
    IS_WANTED.store(true, Ordering::Relaxed);
    let ticket = new_ticket();
    let link = Arc::new(Link { ticket, shard, state: Mutex::new(State::Starting), changed: Condvar::new() });
    let of_task = Arc::clone(&link);
    globals.outside[shard].start(Box::new(move |program| of_task.serve(program)));
    link.wait_until_idle();
    turn::begin();
    crash::set_current_callback(Some(Callback { module: module.name(), what: "thread with the lock" }));
    HELD.set(NonNull::new(Arc::into_raw(link).cast_mut()));
}

/// Takes the lock if no other thread has it or waits for it. Returns whether it was taken.
pub(super) fn try_lock(shard: usize, module: &'static Module) -> bool {
    let is_taken = IS_WANTED.swap(true, Ordering::Relaxed);
    if !is_taken {
        lock(shard, module);
    }
    !is_taken
}

/// Gives up the lock of this thread.
pub(super) fn unlock() {
    let Some(link) = HELD.take() else { return };
    // SAFETY: it was made by `into_raw`, and is not used any more.
    let link = unsafe { Arc::from_raw(link.as_ptr().cast_const()) };
    crash::set_current_callback(None);
    turn::end();
    IS_WANTED.store(false, Ordering::Relaxed);
    link.set(State::Left);
    link.wake_task();
}

/// A context for a thread of a module. It lasts until the module frees it.
pub(super) fn new_context(module: &'static Module) -> Box<Context<'static>> {
    Box::new(Context::new(module, Access::Thread))
}

/// Frees a context of a thread.
///
/// # Safety
/// It was made by [`new_context`], and is not used any more.
pub(super) unsafe fn free_context(ctx: *mut RedisModuleCtx) {
    // SAFETY: as promised.
    let mut ctx = unsafe { Box::from_raw(ctx.cast::<Context<'static>>()) };
    on_server(|| ctx.finish());
}

/// The module of a context that belongs to none.
pub(super) fn nobody() -> &'static Module {
    static NOBODY: OnceLock<&'static Module> = OnceLock::new();
    NOBODY.get_or_init(|| Module::new(b"", Vec::new(), None))
}
