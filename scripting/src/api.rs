//! The `redis` table: what a script calls the server by.

// Every function here is called by Lua with a valid state; what it calls is the C API, on values that it has checked.
// Nothing in them has a destructor when a Lua error may cross them.
#![allow(unsafe_op_in_unsafe_fn, reason = "nearly every line calls the C API; the contract stands above")]

use std::ffi::c_int;

use crate::ffi::*;
use crate::host::{LogLevel, ReplTargets, Resp};
use crate::layout::{self, Seen};
use crate::reply;
use crate::run::{Run, check_ending};
use crate::vm::{Shared, push_error};

/// Which `redis` table is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Script,
    Function,
    /// While a library is loaded.
    Loading,
}

/// Pushes the `redis` table.
pub(crate) unsafe fn push_table(lua: *mut lua_State, stage: Stage, redis_version: &str) {
    lua_createtable(lua, 0, 32);
    set_function(lua, c"log", log);
    for (name, level) in [(c"LOG_DEBUG", 0), (c"LOG_VERBOSE", 1), (c"LOG_NOTICE", 2), (c"LOG_WARNING", 3)] {
        lua_pushnumber(lua, f64::from(level));
        set_raw_field(lua, name);
    }
    push_bytes(lua, redis_version.as_bytes());
    set_raw_field(lua, c"REDIS_VERSION");
    lua_pushnumber(lua, f64::from(version_number(redis_version)));
    set_raw_field(lua, c"REDIS_VERSION_NUM");
    if stage == Stage::Loading {
        return set_function(lua, c"register_function", crate::library::register_function);
    }
    for (name, function) in [
        (c"call", call as lua_CFunction),
        (c"pcall", pcall),
        (c"error_reply", error_reply),
        (c"status_reply", status_reply),
        (c"sha1hex", sha1hex),
        (c"setresp", setresp),
        (c"set_repl", set_repl),
        (c"acl_check_cmd", acl_check_cmd),
    ] {
        set_function(lua, name, function);
    }
    for (name, targets) in [
        (c"REPL_NONE", ReplTargets::NONE),
        (c"REPL_AOF", ReplTargets::AOF),
        (c"REPL_SLAVE", ReplTargets::REPLICAS),
        (c"REPL_REPLICA", ReplTargets::REPLICAS),
        (c"REPL_ALL", ReplTargets::ALL),
    ] {
        lua_pushnumber(lua, f64::from(targets.0));
        set_raw_field(lua, name);
    }
    if stage == Stage::Script {
        set_function(lua, c"replicate_commands", replicate_commands);
        set_function(lua, c"breakpoint", breakpoint);
        set_function(lua, c"debug", debug);
    }
}

/// 7.0.15 is 0x07000F.
fn version_number(version: &str) -> u32 {
    version
        .split('.')
        .fold(0, |number, part| (number << 8) | part.parse::<u32>().expect("a version is of numbers"))
}

/// The run that is on. Raises an error where there is none. A pointer, because Lua's allocator counts in the run too.
unsafe fn current_run(lua: *mut lua_State, shared: &Shared) -> *mut Run {
    let run = shared.current.get();
    if run.is_null() {
        raise(lua, b"ERR redis functions can only be called by a script that runs");
    }
    run
}

/// Raises an error object.
#[cold]
unsafe fn raise(lua: *mut lua_State, text: &[u8]) -> ! {
    push_error(lua, text, false);
    lua_error(lua)
}

unsafe extern "C-unwind" fn call(lua: *mut lua_State) -> c_int {
    run_command(lua, true)
}

unsafe extern "C-unwind" fn pcall(lua: *mut lua_State) -> c_int {
    run_command(lua, false)
}

const NOT_AN_ARGUMENT: &[u8] = b"ERR Lua redis lib command arguments must be strings or integers";

/// Takes the arguments of the Lua function as those of a command. The error otherwise.
unsafe fn take_args(lua: *mut lua_State, run: *mut Run) -> Result<(), &'static [u8]> {
    let argc = layout::value_count(lua);
    if argc == 0 {
        return Err(b"ERR Please specify at least one argument for this redis lib call");
    }
    let args = &mut (*run).args;
    args.clear();
    for index in 0..argc {
        let has_room = match layout::seen(lua, index) {
            Seen::String(text) => args.add(|bytes| bytes.extend_from_slice(text)),
            Seen::Number(number) => args.add(|bytes| reply::append_number(bytes, number)),
            Seen::Address(address) => match Run::element((*run).lists, address) {
                Some(element) => args.add(|bytes| bytes.extend_from_slice(element)),
                None => return Err(NOT_AN_ARGUMENT),
            },
            Seen::Other => return Err(NOT_AN_ARGUMENT),
        };
        if !has_room {
            return Err(b"ERR Lua redis lib command arguments are longer than 4 GiB");
        }
    }
    Ok(())
}

unsafe fn run_command(lua: *mut lua_State, raises: bool) -> c_int {
    let shared = Shared::of(lua);
    let run = current_run(lua, shared);
    check_ending(lua, shared);
    if let Err(text) = take_args(lua, run) {
        push_error(lua, text, false);
    } else {
        (*run).call(shared);
        check_ending(lua, shared);
        let reply: &[u8] = &(*run).reply;
        let is_error = reply.first() == Some(&b'-');
        if !is_error && layout::wanted_results(lua) == 0 {
            return 0;
        }
        // Thousands of arguments leave no room for the reply.
        lua_settop(lua, 0);
        if lua == (*run).thread && reply::is_same_for_clients(reply) && layout::is_last_call(lua) {
            (*run).passes_reply_on = true;
            lua_pushboolean(lua, 1);
            return 1;
        }
        reply::push(lua, reply, (*run).resp);
        if !is_error {
            return 1;
        }
    }
    if raises {
        lua_error(lua)
    }
    1
}

/// Pushes a table with one string field, as `redis.error_reply` and `redis.status_reply` answer it.
unsafe extern "C-unwind" fn status_reply(lua: *mut lua_State) -> c_int {
    if lua_gettop(lua) != 1 || lua_type(lua, 1) != LUA_TSTRING {
        push_error(lua, b"ERR wrong number or type of arguments", false);
        return 1;
    }
    lua_createtable(lua, 0, 1);
    lua_pushvalue(lua, 1);
    set_raw_field(lua, c"ok");
    1
}

unsafe extern "C-unwind" fn error_reply(lua: *mut lua_State) -> c_int {
    if lua_gettop(lua) != 1 || lua_type(lua, 1) != LUA_TSTRING {
        push_error(lua, b"ERR wrong number or type of arguments", false);
        return 1;
    }
    let text = bytes_at(lua, 1).unwrap_or_default();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    // The code ends with the first space; a text without one has no code.
    let (code, message) = match text.iter().position(|&byte| byte == b' ') {
        Some(at) => text.split_at(at + 1),
        None => (&b"ERR "[..], text),
    };
    lua_createtable(lua, 0, 1);
    push_bytes(lua, code);
    push_bytes(lua, reply::trim_line_ends(message));
    lua_concat(lua, 2);
    set_raw_field(lua, c"err");
    1
}

unsafe extern "C-unwind" fn sha1hex(lua: *mut lua_State) -> c_int {
    if lua_gettop(lua) != 1 {
        raise(lua, b"ERR wrong number of arguments");
    }
    let digest = sha1_smol::Sha1::from(bytes_at(lua, 1).unwrap_or_default()).digest().bytes();
    let mut digits = [0; 40];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(digest) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    push_bytes(lua, &digits);
    1
}

unsafe extern "C-unwind" fn log(lua: *mut lua_State) -> c_int {
    let argc = lua_gettop(lua);
    if argc < 2 {
        raise(lua, b"ERR redis.log() requires two arguments or more.");
    }
    if lua_isnumber(lua, 1) == 0 {
        raise(lua, b"ERR First argument must be a number (log level).");
    }
    let level = match lua_tonumber(lua, 1) as i64 {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => raise(lua, b"ERR Invalid debug level."),
    };
    let shared = Shared::of(lua);
    let run = current_run(lua, shared);
    let run = &mut *run;
    // The buffer is not used here otherwise: a reply is read before the script goes on.
    run.reply.clear();
    let mut is_first = true;
    for index in 2..=argc {
        if let Some(text) = bytes_at(lua, index) {
            if !is_first {
                run.reply.push(b' ');
            }
            is_first = false;
            run.reply.extend_from_slice(text);
        }
    }
    run.log(level);
    0
}

unsafe extern "C-unwind" fn setresp(lua: *mut lua_State) -> c_int {
    if lua_gettop(lua) != 1 {
        raise(lua, b"ERR redis.setresp() requires one argument.");
    }
    let run = current_run(lua, Shared::of(lua));
    (*run).resp = match lua_tonumber(lua, 1) as i64 {
        2 => Resp::V2,
        3 => Resp::V3,
        _ => raise(lua, b"ERR RESP version must be 2 or 3."),
    };
    0
}

unsafe extern "C-unwind" fn set_repl(lua: *mut lua_State) -> c_int {
    if lua_gettop(lua) != 1 {
        raise(lua, b"ERR redis.set_repl() requires two arguments.");
    }
    let run = current_run(lua, Shared::of(lua));
    let targets = lua_tonumber(lua, 1) as i64;
    if targets & !i64::from(ReplTargets::ALL.0) != 0 {
        raise(lua, b"ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.");
    }
    (*run).repl = ReplTargets(targets as u8);
    0
}

/// Effects are what is replicated since Redis 7.0, so there is nothing to choose.
unsafe extern "C-unwind" fn replicate_commands(lua: *mut lua_State) -> c_int {
    lua_pushboolean(lua, 1);
    1
}

/// Whether a debugger stopped there: there is none.
unsafe extern "C-unwind" fn breakpoint(lua: *mut lua_State) -> c_int {
    lua_pushboolean(lua, 0);
    1
}

/// Prints in the debugger: there is none.
unsafe extern "C-unwind" fn debug(_: *mut lua_State) -> c_int {
    0
}

unsafe extern "C-unwind" fn acl_check_cmd(lua: *mut lua_State) -> c_int {
    let run = current_run(lua, Shared::of(lua));
    if let Err(text) = take_args(lua, run) {
        raise(lua, text);
    }
    match (*run).may_call() {
        Some(may_call) => lua_pushboolean(lua, c_int::from(may_call)),
        None => raise(lua, b"ERR Invalid command passed to redis.acl_check_cmd()"),
    }
    1
}
