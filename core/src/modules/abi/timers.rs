//! Timers, and the event loop.

use super::fail_with;
use super::given::{Ctx, Out, abi_functions};
use super::status;
use crate::modules::{server, timers};
use crate::runtime::os_error;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_void};

pub(super) const SERVED: &[Served] = served! {
    CreateTimer = create_timer,
    StopTimer = stop_timer,
    GetTimerInfo = get_timer_info,
    EventLoopAdd = event_loop_add,
    EventLoopDel = event_loop_del,
    EventLoopAddOneShot = event_loop_add_one_shot,
};

const MASK: c_int = REDISMODULE_EVENTLOOP_READABLE | REDISMODULE_EVENTLOOP_WRITABLE;

abi_functions! {
    /// Calls a function once, after so many milliseconds.
    fn create_timer(
        ctx: Ctx, after_ms: mstime_t, callback: RedisModuleTimerProc, data: *mut c_void,
    ) -> RedisModuleTimerID {
        timers::create(ctx.module, ctx.call.db, after_ms, callback, data)
    }

    fn stop_timer(ctx: Ctx, id: RedisModuleTimerID, data: Out<*mut c_void>) -> c_int {
        let stopped = timers::stop(ctx.module, id);
        if let Some(given) = stopped {
            data.set(given);
        }
        status(stopped.is_some())
    }

    fn get_timer_info(
        ctx: Ctx, id: RedisModuleTimerID, left_ms: Out<u64>, data: Out<*mut c_void>,
    ) -> c_int {
        let found = timers::find(ctx.module, id);
        if let Some((left, given)) = found {
            left_ms.set(left);
            data.set(given);
        }
        status(found.is_some())
    }

    /// Calls a function whenever a descriptor is ready for reading or writing, as the mask says.
    fn event_loop_add(
        fd: c_int, mask: c_int, callback: RedisModuleEventLoopFunc, data: *mut c_void,
    ) -> c_int {
        if !is_in_range(fd) {
            return fail_with(os_error::RANGE);
        }
        if callback.is_none() || mask & !MASK != 0 {
            return fail_with(os_error::INVALID);
        }
        match timers::watch(fd, mask, callback, data) {
            Ok(()) => succeed(),
            Err(error) => fail_with(error.raw_os_error().unwrap_or(os_error::INVALID)),
        }
    }

    fn event_loop_del(fd: c_int, mask: c_int) -> c_int {
        if !is_in_range(fd) {
            return fail_with(os_error::RANGE);
        }
        if mask & !MASK != 0 {
            return fail_with(os_error::INVALID);
        }
        timers::unwatch(fd, mask);
        succeed()
    }

    /// Calls a function once, soon. It may be called on any thread.
    fn event_loop_add_one_shot(callback: RedisModuleEventLoopOneShotFunc, data: *mut c_void) -> c_int {
        if callback.is_none() {
            return fail_with(os_error::INVALID);
        }
        timers::call_soon(callback, data);
        succeed()
    }
}

/// Descriptors besides those of clients, in a process that has as many clients as it may.
const OWN_DESCRIPTORS: usize = 128;

/// Whether the server may have such a descriptor.
fn is_in_range(fd: c_int) -> bool {
    let clients_max = server::globals().map_or(usize::MAX, |globals| globals.config().1.maxclients as usize);
    usize::try_from(fd).is_ok_and(|fd| fd < clients_max.saturating_add(OWN_DESCRIPTORS))
}

/// These functions clear the error number when they succeed.
fn succeed() -> c_int {
    os_error::set(0);
    REDISMODULE_OK
}
