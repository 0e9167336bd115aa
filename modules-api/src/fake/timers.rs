//! The time of a fake server, and the timers of its module.

use super::{FakeHost, Value, state};
use crate::abi::*;
use crate::served;
use std::ffi::{c_int, c_void};

#[derive(Default)]
pub(super) struct Timers {
    last_id: u64,
    running: Vec<Timer>,
}

#[derive(Clone, Copy)]
struct Timer {
    id: u64,
    at_ms: i64,
    fire: RedisModuleTimerProc,
    data: *mut c_void,
}

impl FakeHost {
    /// Time goes on, step by step: timers fire, keys expire, clients have waited too long.
    pub fn advance_ms(&mut self, ms: i64) {
        let end_ms = self.locked(|state| state.now_ms) + ms;
        loop {
            let next = self.locked(|state| {
                let first = state.timers.running.iter().filter(|timer| timer.at_ms <= end_ms);
                let first = first.min_by_key(|timer| (timer.at_ms, timer.id)).copied()?;
                state.timers.running.retain(|timer| timer.id != first.id);
                Some(first)
            });
            self.pass_until(next.map_or(end_ms, |timer| timer.at_ms));
            let Some(timer) = next else { return };
            let fire = timer.fire.expect("a timer has a function");
            self.in_context::<&[u8], _>(&[], |ctx| {
                // SAFETY: the context is one, and the data is that of the timer, which fires once.
                unsafe { fire(ctx, timer.data) };
            });
            self.serve();
        }
    }

    /// How many timers are running.
    pub fn timer_count(&self) -> usize {
        self.locked(|state| state.timers.running.len())
    }

    fn pass_until(&mut self, now_ms: i64) {
        let expired: Vec<Vec<u8>> = self.locked(|state| {
            state.now_ms = now_ms;
            let is_over = |(_, at_ms): &(&Vec<u8>, &i64)| **at_ms <= now_ms;
            let expired: Vec<_> =
                state.expire_at_ms.iter().filter(is_over).map(|(key, _)| key.clone()).collect();
            for key in &expired {
                state.delete(key);
            }
            expired
        });
        for key in expired {
            self.notify(crate::NotifyClass::Expired, "expired", &String::from_utf8_lossy(&key));
        }
        self.time_out();
    }
}

impl super::State {
    /// Has a key expire in so many milliseconds, or never. Says whether there is such a key.
    pub(super) fn set_expire(&mut self, key: &[u8], in_ms: Option<i64>) -> bool {
        if !self.keys.contains_key(key) {
            return false;
        }
        match in_ms {
            Some(in_ms) => self.expire_at_ms.insert(key.to_vec(), self.now_ms + in_ms),
            None => self.expire_at_ms.remove(key),
        };
        true
    }

    /// Gives a key another value, which does not expire.
    pub(super) fn replace(&mut self, key: &[u8], value: Value) {
        self.delete(key);
        self.keys.insert(key.to_vec(), value);
    }
}

// The functions of the server, called with the context of the call under way.

unsafe extern "C" fn create_timer(
    ctx: *mut RedisModuleCtx,
    period_ms: mstime_t,
    fire: RedisModuleTimerProc,
    data: *mut c_void,
) -> RedisModuleTimerID {
    // SAFETY: see above.
    let state = unsafe { state(ctx) };
    state.timers.last_id += 1;
    let (id, at_ms) = (state.timers.last_id, state.now_ms + period_ms);
    state.timers.running.push(Timer { id, at_ms, fire, data });
    id
}

unsafe extern "C" fn stop_timer(
    ctx: *mut RedisModuleCtx,
    id: RedisModuleTimerID,
    data: *mut *mut c_void,
) -> c_int {
    // SAFETY: see above; there is room for the data.
    unsafe {
        let timers = &mut state(ctx).timers.running;
        let Some(at) = timers.iter().position(|timer| timer.id == id) else { return REDISMODULE_ERR };
        *data = timers.remove(at).data;
    }
    REDISMODULE_OK
}

unsafe extern "C" fn get_timer_info(
    ctx: *mut RedisModuleCtx,
    id: RedisModuleTimerID,
    remaining_ms: *mut u64,
    data: *mut *mut c_void,
) -> c_int {
    // SAFETY: see above; there is room for time and data.
    unsafe {
        let state = state(ctx);
        let Some(timer) = state.timers.running.iter().find(|timer| timer.id == id) else {
            return REDISMODULE_ERR;
        };
        *remaining_ms = u64::try_from(timer.at_ms - state.now_ms).unwrap_or(0);
        *data = timer.data;
    }
    REDISMODULE_OK
}

pub(super) static SERVED: &[Served] = served! {
    CreateTimer = create_timer,
    StopTimer = stop_timer,
    GetTimerInfo = get_timer_info,
};
