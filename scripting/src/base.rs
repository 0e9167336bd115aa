//! Functions of Lua's own libraries that a script gets in another version: those that would show a proxy
//! ([`crate::readonly`]), those that catch errors ([`crate::run`]), and those that Lua 5.1.5 has holes in.
//!
//! Where the original does the work, it is called by its address in the same frame.

// Every function here is called by Lua with a valid state, or with the contract of its caller; what it calls is the
// C API, on values that it has checked.
#![allow(unsafe_op_in_unsafe_fn, reason = "nearly every line calls the C API; the contract stands above")]

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::chunk::Pieces;
use crate::ffi::*;
use crate::readonly;
use crate::run::check_ending;
use crate::vm::Shared;

/// The originals that are called.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stock {
    rawget: Option<lua_CFunction>,
    rawset: Option<lua_CFunction>,
    setmetatable: Option<lua_CFunction>,
    getmetatable: Option<lua_CFunction>,
    xpcall: Option<lua_CFunction>,
    unpack: Option<lua_CFunction>,
    insert: Option<lua_CFunction>,
    foreach: Option<lua_CFunction>,
    find: Option<lua_CFunction>,
    r#match: Option<lua_CFunction>,
    gmatch: Option<lua_CFunction>,
    gsub: Option<lua_CFunction>,
}

/// Takes the field `name` of the table on top for the original that is called.
unsafe fn stock_function(lua: *mut lua_State, name: &CStr) -> Option<lua_CFunction> {
    raw_field(lua, lua_gettop(lua), name);
    let function = lua_tocfunction(lua, -1);
    lua_settop(lua, -2);
    function
}

/// Changes the globals of Lua's base library, which lie on top of the stack.
pub(crate) unsafe fn amend_base(lua: *mut lua_State, stock: &mut Stock) {
    stock.rawget = stock_function(lua, c"rawget");
    stock.rawset = stock_function(lua, c"rawset");
    stock.setmetatable = stock_function(lua, c"setmetatable");
    stock.getmetatable = stock_function(lua, c"getmetatable");
    stock.xpcall = stock_function(lua, c"xpcall");
    stock.unpack = stock_function(lua, c"unpack");
    let functions: [(&CStr, lua_CFunction); 12] = [
        (c"next", next),
        (c"rawget", rawget),
        (c"rawset", rawset),
        (c"setmetatable", setmetatable),
        (c"getmetatable", getmetatable),
        (c"pcall", pcall),
        (c"xpcall", xpcall),
        (c"unpack", unpack),
        (c"load", load),
        (c"loadstring", loadstring),
        (c"collectgarbage", collectgarbage),
        (c"gcinfo", gcinfo),
    ];
    for (name, function) in functions {
        set_function(lua, name, function);
    }
    raw_field(lua, lua_gettop(lua), c"next");
    lua_pushcclosure(lua, pairs, 1);
    set_raw_field(lua, c"pairs");
}

/// Changes the table library, which lies on top.
pub(crate) unsafe fn amend_table(lua: *mut lua_State, stock: &mut Stock) {
    stock.insert = stock_function(lua, c"insert");
    stock.foreach = stock_function(lua, c"foreach");
    set_function(lua, c"insert", table_insert);
    set_function(lua, c"foreach", table_foreach);
}

/// Changes the math library, which lies on top.
pub(crate) unsafe fn amend_math(lua: *mut lua_State) {
    set_function(lua, c"random", math_random);
    set_function(lua, c"randomseed", math_randomseed);
}

/// Changes the string library, which lies on top.
pub(crate) unsafe fn amend_string(lua: *mut lua_State, stock: &mut Stock) {
    stock.find = stock_function(lua, c"find");
    stock.r#match = stock_function(lua, c"match");
    stock.gmatch = stock_function(lua, c"gmatch");
    stock.gsub = stock_function(lua, c"gsub");
    for (name, function) in [
        (c"find", string_find as lua_CFunction),
        (c"match", string_match),
        (c"gmatch", string_gmatch),
        (c"gfind", string_gmatch),
        (c"gsub", string_gsub),
    ] {
        set_function(lua, name, function);
    }
}

/// Changes the coroutine library, which lies on top.
pub(crate) unsafe fn amend_coroutine(lua: *mut lua_State) {
    set_function(lua, c"resume", coroutine_resume);
    set_function(lua, c"running", coroutine_running);
    set_function(lua, c"wrap", coroutine_wrap);
}

unsafe fn call_stock(lua: *mut lua_State, function: Option<lua_CFunction>) -> c_int {
    let function = function.expect("the library has the function");
    function(lua)
}

// Tables.

unsafe extern "C-unwind" fn next(lua: *mut lua_State) -> c_int {
    luaL_checktype(lua, 1, LUA_TTABLE);
    lua_settop(lua, 2);
    readonly::resolve(lua, 1);
    if lua_next(lua, 1) != 0 {
        return 2;
    }
    lua_pushnil(lua);
    1
}

unsafe extern "C-unwind" fn pairs(lua: *mut lua_State) -> c_int {
    luaL_checktype(lua, 1, LUA_TTABLE);
    // `next`, the only upvalue.
    lua_pushvalue(lua, lua_upvalueindex(1));
    lua_pushvalue(lua, 1);
    lua_pushnil(lua);
    3
}

unsafe extern "C-unwind" fn rawget(lua: *mut lua_State) -> c_int {
    readonly::resolve(lua, 1);
    call_stock(lua, Shared::of(lua).stock.get().rawget)
}

unsafe extern "C-unwind" fn rawset(lua: *mut lua_State) -> c_int {
    if lua_gettop(lua) >= 3 && readonly::is_read_only(lua, 1) {
        return readonly::refuse(lua);
    }
    call_stock(lua, Shared::of(lua).stock.get().rawset)
}

unsafe extern "C-unwind" fn setmetatable(lua: *mut lua_State) -> c_int {
    if matches!(lua_type(lua, 2), LUA_TNIL | LUA_TTABLE) && readonly::is_read_only(lua, 1) {
        return readonly::refuse(lua);
    }
    call_stock(lua, Shared::of(lua).stock.get().setmetatable)
}

unsafe extern "C-unwind" fn getmetatable(lua: *mut lua_State) -> c_int {
    let shared = Shared::of(lua);
    if lua_type(lua, 1) == LUA_TSTRING {
        lua_rawgeti_(lua, LUA_REGISTRYINDEX, shared.refs.get().string_metatable);
        return 1;
    }
    if readonly::push_shown_metatable(lua, 1) {
        return 1;
    }
    call_stock(lua, shared.stock.get().getmetatable)
}

unsafe extern "C-unwind" fn table_insert(lua: *mut lua_State) -> c_int {
    let argc = lua_gettop(lua);
    if readonly::is_read_only(lua, 1) && (argc == 2 || argc == 3) {
        if argc == 3 {
            luaL_checknumber(lua, 2);
        }
        return readonly::refuse(lua);
    }
    call_stock(lua, Shared::of(lua).stock.get().insert)
}

unsafe extern "C-unwind" fn table_foreach(lua: *mut lua_State) -> c_int {
    readonly::resolve(lua, 1);
    call_stock(lua, Shared::of(lua).stock.get().foreach)
}

/// The original computes the number of elements in an `int` that can overflow (CVE-2025-46817).
unsafe extern "C-unwind" fn unpack(lua: *mut lua_State) -> c_int {
    luaL_checktype(lua, 1, LUA_TTABLE);
    let first = luaL_optinteger(lua, 2, 1) as c_int;
    let last =
        if lua_type(lua, 3) <= LUA_TNIL { lua_objlen(lua, 1) as i64 } else { luaL_checkinteger(lua, 3) };
    let count = i64::from(last as c_int) - i64::from(first) + 1;
    if count > i64::from(UNPACK_MAX) {
        return raise_text(lua, c"too many results to unpack");
    }
    call_stock(lua, Shared::of(lua).stock.get().unpack)
}

/// More values than fit in Lua's stack (LUAI_MAXCSTACK).
const UNPACK_MAX: c_int = 8_000;

// Errors.

/// Redis' pcall: an error table becomes its text.
unsafe extern "C-unwind" fn pcall(lua: *mut lua_State) -> c_int {
    let argc = lua_gettop(lua);
    if argc == 0 {
        lua_pushboolean(lua, 0);
        push_bytes(lua, b"attempt to call a boolean value");
        return 2;
    }
    luaL_checkstack_(lua, 1, c"too many arguments".as_ptr());
    lua_pushboolean(lua, 1);
    lua_insert(lua, 1);
    let status = lua_pcall(lua, argc - 1, LUA_MULTRET, 0);
    check_ending(lua, Shared::of(lua));
    if status == LUA_OK {
        return lua_gettop(lua);
    }
    if lua_type(lua, -1) == LUA_TTABLE {
        lua_getfield_(lua, -1, c"err".as_ptr());
        if lua_isstring(lua, -1) != 0 {
            lua_replace(lua, -2);
        } else {
            lua_settop(lua, -2);
        }
    }
    lua_pushboolean(lua, 0);
    lua_replace(lua, 1);
    lua_gettop(lua)
}

unsafe extern "C-unwind" fn xpcall(lua: *mut lua_State) -> c_int {
    let shared = Shared::of(lua);
    let count = call_stock(lua, shared.stock.get().xpcall);
    check_ending(lua, shared);
    count
}

// Chunks.

/// Answers the compiled function, or nil and the error.
unsafe fn answer_load(lua: *mut lua_State, status: c_int) -> c_int {
    check_ending(lua, Shared::of(lua));
    if status == LUA_OK {
        return 1;
    }
    lua_pushnil(lua);
    lua_insert(lua, -2);
    2
}

struct StringSource {
    start: *const c_char,
    len: usize,
    pieces: Pieces,
}

unsafe extern "C-unwind" fn read_string(
    lua: *mut lua_State,
    source: *mut c_void,
    len: *mut usize,
) -> *const c_char {
    let source = &mut *source.cast::<StringSource>();
    let piece = match source.pieces.take_held_back() {
        Some(piece) => piece,
        None if source.start.is_null() => (std::ptr::null(), 0),
        None => {
            let start = std::mem::replace(&mut source.start, std::ptr::null());
            match source.pieces.next(start, source.len) {
                Some(piece) => piece,
                None => return raise_too_long(lua),
            }
        }
    };
    *len = piece.1;
    piece.0
}

unsafe fn raise_too_long(lua: *mut lua_State) -> *const c_char {
    push_bytes(lua, b"chunk too long");
    lua_error(lua)
}

unsafe extern "C-unwind" fn loadstring(lua: *mut lua_State) -> c_int {
    let mut len = 0;
    let start = luaL_checklstring(lua, 1, &mut len);
    let name = luaL_optlstring(lua, 2, start, std::ptr::null_mut());
    lua_settop(lua, 2);
    // The parser's own string of the name ends at a NUL: it is this one that has to be anchored.
    crate::run::anchor_chunk_name(lua, name);
    let mut source = StringSource { start, len, pieces: Pieces::NONE };
    let status = lua_load(lua, read_string, (&raw mut source).cast(), name);
    answer_load(lua, status)
}

/// The function, the name, the piece that is being read, and the anchored name.
const LOAD_PIECE: c_int = 3;
const LOAD_ANCHOR: c_int = 4;

unsafe extern "C-unwind" fn read_pieces(
    lua: *mut lua_State,
    pieces: *mut c_void,
    len: *mut usize,
) -> *const c_char {
    let pieces = &mut *pieces.cast::<Pieces>();
    if let Some(piece) = pieces.take_held_back() {
        *len = piece.1;
        return piece.0;
    }
    luaL_checkstack_(lua, 2, c"too many nested functions".as_ptr());
    lua_pushvalue(lua, 1);
    lua_call(lua, 0, 1);
    check_ending(lua, Shared::of(lua));
    if lua_type(lua, -1) == LUA_TNIL {
        *len = 0;
        return std::ptr::null();
    }
    if lua_isstring(lua, -1) == 0 {
        raise_text(lua, c"reader function must return a string");
    }
    lua_replace(lua, LOAD_PIECE);
    let mut piece_len = 0;
    let start = lua_tolstring(lua, LOAD_PIECE, &mut piece_len);
    match pieces.next(start, piece_len) {
        Some(piece) => {
            *len = piece.1;
            piece.0
        }
        None => raise_too_long(lua),
    }
}

unsafe extern "C-unwind" fn load(lua: *mut lua_State) -> c_int {
    let name = luaL_optlstring(lua, 2, c"=(load)".as_ptr(), std::ptr::null_mut());
    luaL_checktype(lua, 1, LUA_TFUNCTION);
    lua_settop(lua, LOAD_ANCHOR - 1);
    crate::run::anchor_chunk_name(lua, name);
    let mut pieces = Pieces::NONE;
    let status = lua_load(lua, read_pieces, (&raw mut pieces).cast(), name);
    answer_load(lua, status)
}

/// Only what a script may see: the collector belongs to the VM.
unsafe extern "C-unwind" fn collectgarbage(lua: *mut lua_State) -> c_int {
    const OPTIONS: [&CStr; 7] =
        [c"stop", c"restart", c"collect", c"count", c"step", c"setpause", c"setstepmul"];
    let mut names = [std::ptr::null(); OPTIONS.len() + 1];
    for (name, option) in names.iter_mut().zip(OPTIONS) {
        *name = option.as_ptr();
    }
    let shared = Shared::of(lua);
    let option = luaL_checkoption(lua, 1, c"collect".as_ptr(), names.as_ptr());
    let argument = luaL_optinteger(lua, 2, 0);
    match option {
        2 => {
            lua_gc(lua, LUA_GCCOLLECT, 0);
            lua_pushnumber(lua, 0.0);
        }
        3 => lua_pushnumber(lua, shared.held_bytes() as f64 / 1024.0),
        4 => {
            let finished = lua_gc(lua, LUA_GCSTEP, argument as c_int);
            lua_pushboolean(lua, finished);
        }
        5 => lua_pushnumber(lua, shared.gc_pause.replace(argument) as f64),
        6 => lua_pushnumber(lua, shared.gc_step_multiplier.replace(argument) as f64),
        _ => lua_pushnumber(lua, 0.0),
    }
    1
}

/// The kibibytes that the VM holds.
unsafe extern "C-unwind" fn gcinfo(lua: *mut lua_State) -> c_int {
    lua_pushnumber(lua, (Shared::of(lua).held_bytes() >> 10) as f64);
    1
}

// Math.

unsafe extern "C-unwind" fn math_random(lua: *mut lua_State) -> c_int {
    let fraction = Shared::of(lua).random.next_fraction();
    let (low, high, last_arg) = match lua_gettop(lua) {
        0 => {
            lua_pushnumber(lua, fraction);
            return 1;
        }
        1 => (1, luaL_checkinteger(lua, 1) as c_int, 1),
        2 => (luaL_checkinteger(lua, 1) as c_int, luaL_checkinteger(lua, 2) as c_int, 2),
        _ => return raise_text(lua, c"wrong number of arguments"),
    };
    if low > high {
        return luaL_argerror(lua, last_arg, c"interval is empty".as_ptr());
    }
    // The width is an `int` in Redis.
    let width = high.wrapping_sub(low).wrapping_add(1);
    lua_pushnumber(lua, (fraction * f64::from(width)).floor() + f64::from(low));
    1
}

unsafe extern "C-unwind" fn math_randomseed(lua: *mut lua_State) -> c_int {
    let seed = luaL_checkinteger(lua, 1) as c_int;
    Shared::of(lua).random.seed(seed);
    0
}

// Strings.

/// How many items that the matcher goes into recursively a pattern may have: its recursion has no limit in Lua 5.1.
/// See [`crate::STACK_BYTES`].
const PATTERN_ITEMS_MAX: usize = 4_000;

unsafe fn check_pattern(lua: *mut lua_State) {
    if lua_type(lua, 2) != LUA_TSTRING {
        return;
    }
    let pattern = bytes_at(lua, 2).unwrap_or_default();
    if pattern.len() > PATTERN_ITEMS_MAX
        && pattern.iter().filter(|byte| matches!(byte, b'?' | b'*' | b'+' | b'-' | b'(' | b')')).count()
            > PATTERN_ITEMS_MAX
    {
        raise_text(lua, c"pattern too complex");
    }
}

unsafe extern "C-unwind" fn string_find(lua: *mut lua_State) -> c_int {
    if lua_toboolean(lua, 4) == 0 {
        check_pattern(lua);
    }
    call_stock(lua, Shared::of(lua).stock.get().find)
}

unsafe extern "C-unwind" fn string_match(lua: *mut lua_State) -> c_int {
    check_pattern(lua);
    call_stock(lua, Shared::of(lua).stock.get().r#match)
}

unsafe extern "C-unwind" fn string_gmatch(lua: *mut lua_State) -> c_int {
    check_pattern(lua);
    call_stock(lua, Shared::of(lua).stock.get().gmatch)
}

unsafe extern "C-unwind" fn string_gsub(lua: *mut lua_State) -> c_int {
    check_pattern(lua);
    call_stock(lua, Shared::of(lua).stock.get().gsub)
}

// Coroutines.

/// Every how many resumptions the host gets control: a coroutine's instructions are counted anew each time.
const RESUMES_PER_TICK: u32 = 64;

/// Why a coroutine cannot be resumed, or `None` if it can.
unsafe fn not_suspended(lua: *mut lua_State, coroutine: *mut lua_State) -> Option<&'static [u8]> {
    if lua == coroutine {
        return Some(b"cannot resume running coroutine");
    }
    match lua_status(coroutine) {
        LUA_YIELD => None,
        LUA_OK => {
            let mut frame = std::mem::MaybeUninit::<lua_Debug>::uninit();
            if lua_getstack(coroutine, 0, frame.as_mut_ptr()) > 0 {
                Some(b"cannot resume normal coroutine")
            } else if lua_gettop(coroutine) == 0 {
                Some(b"cannot resume dead coroutine")
            } else {
                None
            }
        }
        _ => Some(b"cannot resume dead coroutine"),
    }
}

/// Resumes `coroutine` with the `argc` values on top. Answers how many results lie on top, or -1 with the error there.
unsafe fn resume(lua: *mut lua_State, coroutine: *mut lua_State, argc: c_int) -> c_int {
    let shared = Shared::of(lua);
    let run = shared.current.get();
    if !run.is_null() {
        (*run).resumes += 1;
        if (*run).resumes.is_multiple_of(RESUMES_PER_TICK) {
            (*run).tick(shared);
        }
    }
    check_ending(lua, shared);
    if lua_checkstack(coroutine, argc) == 0 {
        raise_text(lua, c"too many arguments to resume");
    }
    if let Some(why) = not_suspended(lua, coroutine) {
        push_bytes(lua, why);
        return -1;
    }
    lua_xmove(lua, coroutine, argc);
    lua_setlevel(lua, coroutine);
    let status = lua_resume_(coroutine, argc);
    check_ending(lua, shared);
    if status != LUA_OK && status != LUA_YIELD {
        lua_xmove(coroutine, lua, 1);
        return -1;
    }
    let count = lua_gettop(coroutine);
    if lua_checkstack(lua, count + 1) == 0 {
        raise_text(lua, c"too many results to resume");
    }
    lua_xmove(coroutine, lua, count);
    count
}

unsafe extern "C-unwind" fn coroutine_resume(lua: *mut lua_State) -> c_int {
    let coroutine = lua_tothread(lua, 1);
    if coroutine.is_null() {
        return luaL_argerror(lua, 1, c"coroutine expected".as_ptr());
    }
    let count = resume(lua, coroutine, lua_gettop(lua) - 1);
    lua_pushboolean(lua, c_int::from(count >= 0));
    let results = if count < 0 { 1 } else { count };
    lua_insert(lua, -(results + 1));
    results + 1
}

unsafe extern "C-unwind" fn resume_wrapped(lua: *mut lua_State) -> c_int {
    let coroutine = lua_tothread(lua, lua_upvalueindex(1));
    let count = resume(lua, coroutine, lua_gettop(lua));
    if count >= 0 {
        return count;
    }
    if lua_isstring(lua, -1) != 0 {
        luaL_where(lua, 1);
        lua_insert(lua, -2);
        lua_concat(lua, 2);
    }
    lua_error(lua)
}

unsafe extern "C-unwind" fn coroutine_wrap(lua: *mut lua_State) -> c_int {
    let coroutine = lua_newthread(lua);
    if lua_type(lua, 1) != LUA_TFUNCTION || lua_iscfunction(lua, 1) != 0 {
        return luaL_argerror(lua, 1, c"Lua function expected".as_ptr());
    }
    lua_pushvalue(lua, 1);
    lua_xmove(lua, coroutine, 1);
    lua_pushcclosure(lua, resume_wrapped, 1);
    1
}

/// The thread of a run is no coroutine to its script.
unsafe extern "C-unwind" fn coroutine_running(lua: *mut lua_State) -> c_int {
    let run = Shared::of(lua).current.get();
    if !run.is_null() && (*run).thread == lua {
        lua_pushnil(lua);
    } else {
        lua_pushthread(lua);
    }
    1
}
