//! What a script finds: the globals of scripts, of functions, and of a library that is being loaded.
//!
//! Lua's own libraries are opened in the main thread, whose globals no script sees. Their tables, changed where
//! [`crate::base`] says, are shared by all runs behind proxies. Each idle run of the kind [`Kind::Script`] has globals
//! of its own, because KEYS and ARGV are globals; functions share one table, for they get KEYS and ARGV as arguments.

// The functions are called with the main thread of a VM whose stack has room; no run is on, so nothing raises.
#![allow(unsafe_op_in_unsafe_fn, reason = "nearly every line calls the C API; the contract stands above")]

use std::ffi::{CStr, c_int};

use crate::api::{self, Stage};
use crate::ffi::*;
use crate::run::{Run, anchor_chunk_name};
use crate::vm::{Kind, Shared};
use crate::{base, chunk, libs, readonly};

/// What the registry keeps.
#[derive(Clone, Copy, Default)]
pub(crate) struct Refs {
    pub(crate) keys_name: c_int,
    pub(crate) argv_name: c_int,
    /// What `getmetatable("")` answers.
    pub(crate) string_metatable: c_int,
    /// The real globals of functions, and what a function finds as `_G`.
    pub(crate) function_globals: c_int,
    function_globals_shown: c_int,
    /// The real globals while a library is loaded.
    loading_globals: c_int,
    /// What the globals of a script are copied from.
    script_globals: c_int,
    /// Refuses to read a global that is not there; and what `getmetatable(_G)` answers.
    globals_metatable: c_int,
    globals_metatable_shown: c_int,
    error_handler: c_int,
}

/// Lua's base functions that a script gets.
const BASE_FUNCTIONS: [&CStr; 22] = [
    c"_VERSION",
    c"assert",
    c"collectgarbage",
    c"error",
    c"gcinfo",
    c"getmetatable",
    c"ipairs",
    c"load",
    c"loadstring",
    c"next",
    c"pairs",
    c"pcall",
    c"rawequal",
    c"rawget",
    c"rawset",
    c"select",
    c"setmetatable",
    c"tonumber",
    c"tostring",
    c"type",
    c"unpack",
    c"xpcall",
];

/// The error handler of all runs, as a chunk that answers it. Its name and lines show in the text of the error that an
/// error handler raises, and are Redis'.
const ERROR_HANDLER: &[u8] = include_bytes!("err_handler.lua");

pub(crate) unsafe fn build(main: *mut lua_State, shared: &Shared, redis_version: &str) {
    let mut stock = base::Stock::default();
    let mut refs = Refs::default();
    for open in [luaopen_base as lua_CFunction, luaopen_string, luaopen_table, luaopen_math, luaopen_debug] {
        lua_pushcclosure(main, open, 0);
        push_bytes(main, b"");
        lua_call(main, 1, 0);
    }
    for open in [libs::cjson::open, libs::cmsgpack::open, libs::structlib::open, libs::bit::open] {
        open(main);
    }
    lua_pushvalue(main, LUA_GLOBALSINDEX);
    refs.error_handler = load_error_handler(main);
    base::amend_base(main, &mut stock);

    // The libraries, which scripts and functions share.
    lua_createtable(main, 0, 16);
    for name in BASE_FUNCTIONS {
        raw_field(main, 1, name);
        set_raw_field(main, name);
    }
    for (name, amend) in [
        (c"string", Library::String),
        (c"table", Library::Table),
        (c"math", Library::Math),
        (c"coroutine", Library::Coroutine),
        (c"cjson", Library::Unchanged),
        (c"cmsgpack", Library::Unchanged),
        (c"struct", Library::Unchanged),
        (c"bit", Library::Unchanged),
    ] {
        raw_field(main, 1, name);
        match amend {
            Library::String => base::amend_string(main, &mut stock),
            Library::Table => base::amend_table(main, &mut stock),
            Library::Math => base::amend_math(main),
            Library::Coroutine => base::amend_coroutine(main),
            Library::Unchanged => {}
        }
        readonly::protect(main);
        set_raw_field(main, name);
    }
    shared.stock.set(stock);

    refs.keys_name = reference_to(main, b"KEYS");
    refs.argv_name = reference_to(main, b"ARGV");
    lua_createtable(main, 0, 1);
    raw_field(main, 2, c"string");
    set_raw_field(main, c"__index");
    readonly::protect(main);
    refs.string_metatable = luaL_ref(main, LUA_REGISTRYINDEX);

    lua_createtable(main, 0, 1);
    set_function(main, c"__index", refuse_global);
    lua_pushvalue(main, -1);
    refs.globals_metatable = luaL_ref(main, LUA_REGISTRYINDEX);
    readonly::protect(main);
    refs.globals_metatable_shown = luaL_ref(main, LUA_REGISTRYINDEX);

    // Functions.
    push_copy(main, 2);
    push_redis(main, Stage::Function, redis_version, &refs);
    set_raw_field(main, c"redis");
    lua_pushvalue(main, -1);
    push_globals(main, &refs);
    refs.function_globals_shown = luaL_ref(main, LUA_REGISTRYINDEX);
    refs.function_globals = luaL_ref(main, LUA_REGISTRYINDEX);

    lua_createtable(main, 0, 1);
    push_redis(main, Stage::Loading, redis_version, &refs);
    set_raw_field(main, c"redis");
    lua_rawgeti_(main, LUA_REGISTRYINDEX, refs.globals_metatable);
    lua_setmetatable(main, -2);
    refs.loading_globals = luaL_ref(main, LUA_REGISTRYINDEX);

    // Scripts.
    push_redis(main, Stage::Script, redis_version, &refs);
    set_raw_field(main, c"redis");
    lua_rawgeti_(main, LUA_REGISTRYINDEX, refs.error_handler);
    set_raw_field(main, c"__redis__err__handler");
    refs.script_globals = luaL_ref(main, LUA_REGISTRYINDEX);

    shared.refs.set(refs);
    lua_settop(main, 0);
}

enum Library {
    String,
    Table,
    Math,
    Coroutine,
    Unchanged,
}

/// A reference to the string.
unsafe fn reference_to(lua: *mut lua_State, text: &[u8]) -> c_int {
    push_bytes(lua, text);
    luaL_ref(lua, LUA_REGISTRYINDEX)
}

/// The globals of the base library lie on top.
unsafe fn load_error_handler(lua: *mut lua_State) -> c_int {
    let globals = lua_gettop(lua);
    anchor_chunk_name(lua, c"@err_handler_def".as_ptr());
    chunk::load(lua, ERROR_HANDLER, c"@err_handler_def").expect("the handler compiles");
    raw_field(lua, globals, c"debug");
    raw_field(lua, globals + 3, c"getinfo");
    lua_remove(lua, globals + 3);
    raw_field(lua, globals, c"type");
    raw_field(lua, globals, c"tostring");
    lua_call(lua, 3, 1);
    let handler = luaL_ref(lua, LUA_REGISTRYINDEX);
    lua_settop(lua, globals);
    handler
}

/// Pushes a read-only `redis` table.
unsafe fn push_redis(lua: *mut lua_State, stage: Stage, redis_version: &str, refs: &Refs) {
    api::push_table(lua, stage, redis_version);
    if stage == Stage::Loading {
        lua_rawgeti_(lua, LUA_REGISTRYINDEX, refs.globals_metatable);
        lua_setmetatable(lua, -2);
    }
    readonly::protect(lua);
}

/// Pushes a copy of the table at `index`.
unsafe fn push_copy(lua: *mut lua_State, index: c_int) {
    lua_createtable(lua, 0, 40);
    lua_pushnil(lua);
    while lua_next(lua, index) != 0 {
        lua_pushvalue(lua, -2);
        lua_insert(lua, -2);
        lua_rawset(lua, -4);
    }
}

/// Replaces the real globals on top by what a script sees of them, and makes that their `_G`.
unsafe fn push_globals(lua: *mut lua_State, refs: &Refs) {
    let real = lua_gettop(lua);
    lua_rawgeti_(lua, LUA_REGISTRYINDEX, refs.globals_metatable);
    lua_setmetatable(lua, real);
    lua_pushvalue(lua, real);
    readonly::protect(lua);
    lua_rawgeti_(lua, LUA_REGISTRYINDEX, refs.globals_metatable_shown);
    readonly::set_shown_metatable(lua);
    lua_insert(lua, real);
    lua_pushvalue(lua, real);
    set_raw_field(lua, c"_G");
    lua_settop(lua, real);
}

/// Pushes the globals of a library that is about to be loaded.
pub(crate) unsafe fn push_library_globals(lua: *mut lua_State, shared: &Shared) {
    let refs = shared.refs.get();
    lua_rawgeti_(lua, LUA_REGISTRYINDEX, refs.loading_globals);
    readonly::protect(lua);
    lua_rawgeti_(lua, LUA_REGISTRYINDEX, refs.globals_metatable_shown);
    readonly::set_shown_metatable(lua);
}

/// A run with a new thread.
pub(crate) unsafe fn new_run(shared: &Shared, kind: Kind) -> Box<Run> {
    let main = shared.main.get();
    let refs = shared.refs.get();
    let thread = lua_newthread(main);
    let id = shared.runs_made.get() + 1;
    shared.runs_made.set(id);
    let mut run = Box::new(Run::new(id, kind, thread, luaL_ref(main, LUA_REGISTRYINDEX)));
    match kind {
        Kind::Script => {
            lua_rawgeti_(main, LUA_REGISTRYINDEX, refs.script_globals);
            push_copy(main, 1);
            lua_pushvalue(main, -1);
            run.real_globals_ref = luaL_ref(main, LUA_REGISTRYINDEX);
            push_globals(main, &refs);
            lua_pushvalue(main, -1);
            run.globals_ref = luaL_ref(main, LUA_REGISTRYINDEX);
        }
        Kind::Function => lua_rawgeti_(main, LUA_REGISTRYINDEX, refs.function_globals_shown),
    }
    lua_xmove(main, thread, 1);
    lua_replace(thread, LUA_GLOBALSINDEX);
    lua_rawgeti_(thread, LUA_REGISTRYINDEX, refs.error_handler);
    lua_settop(thread, run.kept_slots);
    lua_settop(main, 0);
    run
}

/// The `__index` of globals.
unsafe extern "C-unwind" fn refuse_global(lua: *mut lua_State) -> c_int {
    if !matches!(lua_type(lua, 2), LUA_TSTRING | LUA_TNUMBER) {
        return raise_text(lua, c"Second argument to luaProtectedTableError must be a string or number");
    }
    lua_pushvalue(lua, 2);
    luaL_error(
        lua,
        c"Script attempted to access nonexistent global variable '%s'".as_ptr(),
        lua_tolstring(lua, -1, std::ptr::null_mut()),
    )
}
