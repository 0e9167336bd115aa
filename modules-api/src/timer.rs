//! Timers: a function that is called once, after a while.

use crate::abi::{REDISMODULE_OK, RedisModuleCtx, RedisModuleTimerID};
use crate::api::api;
use crate::context::Context;
use crate::current;
use std::ffi::c_void;
use std::ptr::NonNull;

type Action = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// A timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer(RedisModuleTimerID);

impl Context<'_> {
    /// Has `action` called in so many milliseconds.
    pub fn start_timer(&self, in_ms: i64, action: impl FnOnce(&mut Context<'_>) + Send + 'static) -> Timer {
        let action: Action = Box::new(action);
        let data = Box::into_raw(Box::new(action)).cast::<c_void>();
        // SAFETY: the context is that of the callback under way; `fire` takes such data.
        Timer(unsafe { api!(CreateTimer)(self.as_ptr(), in_ms, Some(fire), data) })
    }

    /// Stops a timer. Says whether it was still running.
    pub fn stop_timer(&self, timer: Timer) -> bool {
        let mut data = std::ptr::null_mut();
        // SAFETY: the context is that of the callback under way. Data that comes back is that of `start_timer`, and is not
        // given to `fire` any more.
        unsafe {
            let is_stopped = api!(StopTimer)(self.as_ptr(), timer.0, &raw mut data) == REDISMODULE_OK;
            if is_stopped {
                drop(Box::from_raw(data.cast::<Action>()));
            }
            is_stopped
        }
    }
}

impl Context<'_> {
    /// In how many milliseconds a timer is going to fire. None if it has fired or was stopped.
    pub fn timer_remaining_ms(&self, timer: Timer) -> Option<u64> {
        let (mut remaining_ms, mut data) = (0, std::ptr::null_mut());
        // SAFETY: the context is that of the callback under way, and there is room for both.
        let result =
            unsafe { api!(GetTimerInfo)(self.as_ptr(), timer.0, &raw mut remaining_ms, &raw mut data) };
        (result == REDISMODULE_OK).then_some(remaining_ms)
    }
}

/// # Safety
/// The server calls it, as a timer's function with data of `start_timer`.
unsafe extern "C" fn fire(ctx: *mut RedisModuleCtx, data: *mut c_void) {
    let _callback = current::Callback::enter("timer");
    let ctx = NonNull::new(ctx).expect("a timer has a context");
    // SAFETY: the data was made by `start_timer`, and a timer fires once.
    unsafe {
        let action = *Box::from_raw(data.cast::<Action>());
        action(&mut Context::of_callback(ctx));
    }
}
