//! The functions of the ABI, a file for each theme, and `GetApi`, by which a module finds them.
//!
//! The signatures are those of the table in `shardis-modules-api`: another does not compile. A function that is not listed
//! in [`served`] answers "not found", as one that an older Redis lacks.
//!
//! # What is relied upon
//!
//! A module is C code. It passes back what it was given: contexts, keys, strings and replies that are alive, C strings that
//! end, and room for what is to be written where it asks for that. The functions here rely on it, as those of Redis do, and
//! take these arguments as the types of [`given`].

mod blocked;
mod call;
mod channels;
mod clients;
mod commands;
mod context;
mod defrag;
mod dicts;
mod filters;
mod given;
mod hashes;
mod info;
mod keys;
mod lists;
mod log;
mod memory;
mod replication;
mod replies;
mod scan;
mod settings;
mod streams;
mod string_keys;
mod strings;
mod timers;
mod types;
mod users;
mod zsets;

pub(super) use clients::describe_client;

use crate::runtime::os_error;
use shardis_modules_api::abi::{FUNCTIONS, REDISMODULE_ERR, REDISMODULE_OK, Served, reason_not_served};
use shardis_modules_api::host;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::sync::OnceLock;

/// The functions that are served, by theme.
const SERVED: &[&[Served]] = &[
    blocked::SERVED,
    channels::SERVED,
    clients::SERVED,
    commands::SERVED,
    context::SERVED,
    defrag::SERVED,
    dicts::SERVED,
    filters::SERVED,
    hashes::SERVED,
    info::SERVED,
    keys::SERVED,
    lists::SERVED,
    log::SERVED,
    memory::SERVED,
    replies::SERVED,
    replication::SERVED,
    scan::SERVED,
    settings::SERVED,
    streams::SERVED,
    string_keys::SERVED,
    strings::SERVED,
    timers::SERVED,
    types::SERVED,
    users::SERVED,
    zsets::SERVED,
    call::SERVED,
];

/// The pointer to a function.
#[derive(Clone, Copy)]
struct Function(*const c_void);

// SAFETY: a function can be called on any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// All functions that are served, by name.
fn served() -> &'static HashMap<&'static CStr, Function> {
    static ALL: OnceLock<HashMap<&'static CStr, Function>> = OnceLock::new();
    ALL.get_or_init(|| {
        let targets = host::Targets {
            call: call::call,
            replicate: replication::replicate,
            emit_aof: types::emit_aof,
            create_string_printf: strings::create_string_printf,
            reply_with_error_format: replies::reply_with_error_format,
            log: log::log,
            log_io_error: types::log_io_error,
            hash_set: hashes::hash_set,
            hash_get: hashes::hash_get,
            create_string_from_long_double: strings::create_string_from_long_double,
            reply_with_long_double: replies::reply_with_long_double,
            save_long_double: types::save_long_double,
            load_long_double: types::load_long_double,
        };
        // SAFETY: this runs once, before any module has a function.
        unsafe { host::set_targets(&targets) };
        let all = SERVED.iter().flat_map(|theme| theme.iter()).chain(host::SERVED);
        all.map(|served| (served.name, Function(served.pointer))).collect()
    })
}

/// `GetApi`: stores the pointer of the function of a name at `pointer`.
pub(super) unsafe extern "C" fn get_api(name: *const c_char, pointer: *mut c_void) -> c_int {
    // SAFETY: the module passes a C string.
    let name = unsafe { CStr::from_ptr(name) };
    let Some(function) = served().get(name) else { return REDISMODULE_ERR };
    // SAFETY: the module passes the place of a pointer.
    unsafe { *pointer.cast::<*const c_void>() = function.0 };
    REDISMODULE_OK
}

/// What `shardis --module-api` prints: a line for each function.
pub fn describe() -> String {
    let mut text = String::new();
    for function in FUNCTIONS {
        let name = function.name.to_string_lossy();
        let state = match served().contains_key(function.name) {
            true => "served",
            false => reason_not_served(&name).expect("each of them has one"),
        };
        writeln!(text, "{name}: {state}").expect("a String takes what is written");
    }
    text
}

/// Fails with an error number, as C functions do.
fn fail_with(errno: c_int) -> c_int {
    os_error::set(errno);
    REDISMODULE_ERR
}

/// As the ABI says it.
fn status(is_ok: bool) -> c_int {
    if is_ok { REDISMODULE_OK } else { REDISMODULE_ERR }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_served_or_it_is_said_why_not() {
        for function in FUNCTIONS {
            let name = function.name.to_string_lossy();
            let is_served = served().contains_key(function.name);
            assert_ne!(is_served, reason_not_served(&name).is_some(), "{name}");
        }
        assert!(describe().contains("RedisModule_ACLCheckKeyPermissions: served\n"));
    }
}
