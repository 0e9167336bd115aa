//! What modules want to be called for later: timers, and descriptors that become ready.
//!
//! One thread waits for all of it ([`Watcher`]), and has a [task](crate::worker::program::Task) of the first shard call the
//! callbacks.

use super::context::{Access, Context, run_with, with_current};
use super::module::Module;
use super::{server, threads};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::watcher::{Interest, Seen, Watcher};
use crate::worker::program::{ProgramCtx, Task};
use shardis_modules_api::abi::*;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What a module gets back in its callback.
#[derive(Clone, Copy)]
pub(super) struct Data(pub(super) *mut c_void);

// SAFETY: the server only hands it back; what it points to is the module's affair.
unsafe impl Send for Data {}

#[derive(Clone, Copy)]
struct Timer {
    module: &'static Module,
    callback: RedisModuleTimerProc,
    data: Data,
    db: u32,
}

/// The timers that have not fired, by when they do, in microseconds on the steady clock, and their numbers.
#[derive(Default)]
struct Timers {
    waiting: BTreeMap<(u64, RedisModuleTimerID), Timer>,
    last_id: RedisModuleTimerID,
}

/// What a descriptor is watched for: at index 0 reading, at 1 writing.
#[derive(Clone, Copy)]
struct Watched {
    module: &'static Module,
    callbacks: [Option<(RedisModuleEventLoopFunc, Data)>; 2],
}

static TIMERS: Mutex<Option<Timers>> = Mutex::new(None);
static DESCRIPTORS: Mutex<BTreeMap<RawFd, Watched>> = Mutex::new(BTreeMap::new());

const MASKS: [c_int; 2] = [REDISMODULE_EVENTLOOP_READABLE, REDISMODULE_EVENTLOOP_WRITABLE];

/// Which shard's tasks call the callbacks.
const SHARD: usize = 0;

fn timers<T>(act: impl FnOnce(&mut Timers) -> T) -> T {
    act(TIMERS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

fn descriptors() -> MutexGuard<'static, BTreeMap<RawFd, Watched>> {
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The steady clock.
fn now_us() -> u64 {
    let clock = SystemClock::get();
    clock.ticks_to_nanos(clock.ticks()) / 1000
}

fn watcher() -> io::Result<&'static Watcher> {
    static WATCHER: OnceLock<Arc<Watcher>> = OnceLock::new();
    if let Some(watcher) = WATCHER.get() {
        return Ok(watcher);
    }
    let watcher = Watcher::start(Box::new(|seen| {
        let task: Task = match seen {
            Seen::Alarm => Box::new(fire),
            Seen::Ready { fd, is_readable, is_writable } => {
                Box::new(move |program| report(program, fd, [is_readable, is_writable]))
            }
        };
        start(task);
    }))?;
    Ok(WATCHER.get_or_init(|| watcher))
}

fn start(task: Task) {
    if let Some(globals) = server::globals() {
        globals.outside[SHARD].start(task);
    }
}

/// Has the alarm given when the next timer fires.
fn set_alarm() {
    let next_us = timers(|timers| timers.waiting.first_key_value().map(|(&(at_us, _), _)| at_us));
    let left = next_us.map(|at_us| Duration::from_micros(at_us.saturating_sub(now_us())));
    match watcher() {
        Ok(watcher) => watcher.set_alarm(left),
        Err(error) => {
            crate::runtime::log::warning(format_args!("The timers of modules do not run: {error}"));
        }
    }
}

/// Has a callback called once, after so many milliseconds.
pub(super) fn create(
    module: &'static Module,
    db: u32,
    after_ms: i64,
    callback: RedisModuleTimerProc,
    data: *mut c_void,
) -> RedisModuleTimerID {
    let at_us = now_us().saturating_add(u64::try_from(after_ms).unwrap_or(0).saturating_mul(1000));
    let timer = Timer { module, callback, data: Data(data), db };
    let (id, is_next) = timers(|timers| {
        timers.last_id += 1;
        timers.waiting.insert((at_us, timers.last_id), timer);
        let first = timers.waiting.first_key_value();
        (timers.last_id, first.is_some_and(|(&(_, id), _)| id == timers.last_id))
    });
    if is_next {
        set_alarm();
    }
    id
}

/// A module's timer that has not fired: how many milliseconds are left, and its data.
pub(super) fn find(module: &'static Module, id: RedisModuleTimerID) -> Option<(u64, *mut c_void)> {
    timers(|timers| {
        let (&(at_us, _), timer) = timers.waiting.iter().find(|((_, other), _)| *other == id)?;
        let is_own = std::ptr::eq(timer.module, module);
        is_own.then(|| (at_us.saturating_sub(now_us()) / 1000, timer.data.0))
    })
}

/// Stops a module's timer, and returns its data. `None`: there is none, or it has fired.
pub(super) fn stop(module: &'static Module, id: RedisModuleTimerID) -> Option<*mut c_void> {
    timers(|timers| {
        let (&key, timer) = timers.waiting.iter().find(|((_, other), _)| *other == id)?;
        let (is_own, data) = (std::ptr::eq(timer.module, module), timer.data.0);
        is_own.then(|| {
            timers.waiting.remove(&key);
            data
        })
    })
}

/// Whether a module has timers that have not fired.
pub(super) fn has_any(module: &Module) -> bool {
    timers(|timers| timers.waiting.values().any(|timer| std::ptr::eq(timer.module, module)))
}

/// Calls the callbacks of the timers that are due.
fn fire(program: &mut ProgramCtx<'_>) {
    let next = || {
        timers(|timers| {
            let &(at_us, id) = timers.waiting.first_key_value()?.0;
            if at_us > now_us() { None } else { timers.waiting.remove(&(at_us, id)) }
        })
    };
    while let Some(Timer { module, callback, data, db }) = next() {
        let Some(callback) = callback else { continue };
        call(program, module, db, "timer", |ctx| {
            // SAFETY: the module has given the function to be called with this.
            unsafe { callback(ctx, data.0) }
        });
    }
    set_alarm();
}

/// Runs a callback that is no command's, in a program. `what`: what it is called for.
pub(super) fn call(
    program: &mut ProgramCtx<'_>,
    module: &'static Module,
    db: u32,
    what: &'static str,
    callback: impl FnOnce(*mut RedisModuleCtx),
) {
    let mut ctx = Context::new(module, Access::Program(NonNull::from(&mut *program).cast()));
    ctx.call.db = db;
    run_with(&mut ctx, what, callback);
    ctx.finish();
}

/// Has a callback called whenever a descriptor is ready for what the mask says.
///
/// # Errors
/// The descriptor cannot be watched.
pub(super) fn watch(
    fd: RawFd,
    mask: c_int,
    callback: RedisModuleEventLoopFunc,
    data: *mut c_void,
) -> io::Result<()> {
    let module = with_current(|ctx| ctx.module).unwrap_or_else(threads::nobody);
    let mut all = descriptors();
    let watched = all.entry(fd).or_insert(Watched { module, callbacks: [None; 2] });
    for (place, bit) in watched.callbacks.iter_mut().zip(MASKS) {
        if mask & bit != 0 {
            *place = Some((callback, Data(data)));
        }
    }
    let interest = interest(watched);
    let outcome = watcher().and_then(|watcher| watcher.watch(fd, interest));
    if outcome.is_err() {
        all.remove(&fd);
    }
    outcome
}

fn interest(watched: &Watched) -> Interest {
    Interest { readable: watched.callbacks[0].is_some(), writable: watched.callbacks[1].is_some() }
}

/// A descriptor is not watched any more for what the mask says.
pub(super) fn unwatch(fd: RawFd, mask: c_int) {
    let mut all = descriptors();
    let Some(watched) = all.get_mut(&fd) else { return };
    for (place, bit) in watched.callbacks.iter_mut().zip(MASKS) {
        if mask & bit != 0 {
            *place = None;
        }
    }
    let Ok(watcher) = watcher() else { return };
    if watched.callbacks.iter().any(Option::is_some) {
        // It may have been closed, and then is not ready any more.
        let _ = watcher.watch(fd, interest(watched));
    } else {
        all.remove(&fd);
        watcher.forget(fd);
    }
}

/// A descriptor is ready, for reading or for writing.
fn report(program: &mut ProgramCtx<'_>, fd: RawFd, is_ready: [bool; 2]) {
    for (at, bit) in MASKS.into_iter().enumerate() {
        let watched = descriptors().get(&fd).copied();
        let Some(Watched { module, callbacks }) = watched.filter(|_| is_ready[at]) else { continue };
        let Some((Some(callback), data)) = callbacks[at] else { continue };
        call(program, module, 0, "event loop", |_ctx| {
            // SAFETY: the module has given the function to be called with this.
            unsafe { callback(fd, data.0, bit) }
        });
    }
    if let (Some(watched), Ok(watcher)) = (descriptors().get(&fd), watcher()) {
        // As in `unwatch`.
        let _ = watcher.watch(fd, interest(watched));
    }
}

/// Has a callback called once, by the server.
pub(super) fn call_soon(callback: RedisModuleEventLoopOneShotFunc, data: *mut c_void) {
    let module = with_current(|ctx| ctx.module).unwrap_or_else(threads::nobody);
    let data = Data(data);
    let Some(callback) = callback else { return };
    start(Box::new(move |program| {
        call(program, module, 0, "one-shot event", |_ctx| {
            // The whole of it moves in here.
            let data = data;
            // SAFETY: the module has given the function to be called with this.
            unsafe { callback(data.0) }
        });
    }));
}

/// A module is unloaded.
pub(super) fn forget(module: &Module) {
    timers(|timers| timers.waiting.retain(|_, timer| !std::ptr::eq(timer.module, module)));
    let mut all = descriptors();
    let own: Vec<RawFd> =
        all.iter().filter(|(_, watched)| std::ptr::eq(watched.module, module)).map(|(&fd, _)| fd).collect();
    for fd in own {
        all.remove(&fd);
        if let Ok(watcher) = watcher() {
            watcher.forget(fd);
        }
    }
}
