//! Lua's stack as it lies in memory. The C API takes a function call for each look at a value, and a call of a command
//! takes a dozen looks.
//!
//! The structures are those of Lua 5.1.5 (lobject.h, lstate.h), as far as they are needed, on a machine with pointers of 64
//! bits. The version is the one that this crate builds; [`check`] compares what is read here with what the API says.

// The functions are called from a C function of `lua`, or with the contract of their caller.
#![allow(unsafe_op_in_unsafe_fn, reason = "every line follows Lua's pointers; the contract stands above")]

use std::ffi::{c_int, c_void};

use crate::ffi::*;

/// `TValue`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    content: Content,
    kind: c_int,
}

/// `Value`.
#[repr(C)]
#[derive(Clone, Copy)]
union Content {
    object: *mut c_void,
    number: f64,
}

/// `TString`. Its bytes lie behind it.
#[repr(C)]
struct Text {
    next: *mut c_void,
    kind: u8,
    marked: u8,
    is_reserved_word: u8,
    hash: u32,
    len: usize,
}

/// `lua_State`.
#[repr(C)]
struct State {
    next: *mut c_void,
    kind: u8,
    marked: u8,
    status: u8,
    top: *mut Value,
    base: *mut Value,
    global: *mut Global,
    call: *mut CallInfo,
}

/// `global_State`.
#[repr(C)]
struct Global {
    strings: *mut c_void,
    string_count: u32,
    string_slots: c_int,
    allocate: *mut c_void,
    allocator_data: *mut c_void,
}

/// `CallInfo`.
#[repr(C)]
struct CallInfo {
    base: *mut Value,
    function: *mut Value,
    top: *mut Value,
    saved_pc: *const u32,
    result_count: c_int,
    tail_calls: c_int,
}

/// `Table`.
#[repr(C)]
struct Table {
    next: *mut c_void,
    kind: u8,
    marked: u8,
    flags: u8,
    node_count_log2: u8,
    metatable: *mut c_void,
    array: *mut Value,
    nodes: *mut c_void,
    last_free: *mut c_void,
    gray_next: *mut c_void,
    array_len: c_int,
}

const _: () = assert!(size_of::<Value>() == 16 && size_of::<Text>() == 24 && size_of::<Table>() == 64);

unsafe fn state<'a>(lua: *mut lua_State) -> &'a State {
    &*lua.cast::<State>()
}

/// What the allocator of the VM is handed.
#[inline(always)]
pub(crate) unsafe fn allocator_data(lua: *mut lua_State) -> *mut c_void {
    (*state(lua).global).allocator_data
}

/// How many values the running function has on its stack.
#[inline(always)]
pub(crate) unsafe fn value_count(lua: *mut lua_State) -> usize {
    let state = state(lua);
    state.top.offset_from_unsigned(state.base)
}

/// How many results the caller of the running C function uses; -1: all.
#[inline(always)]
pub(crate) unsafe fn wanted_results(lua: *mut lua_State) -> c_int {
    (*state(lua).call).result_count
}

/// A value of a thread, as far as it can be seen without the API.
pub(crate) enum Seen<'a> {
    /// As long as it stays on the stack.
    String(&'a [u8]),
    Number(f64),
    Other,
}

/// The value at `index`, from 0, of the running function's stack, which has it.
#[inline(always)]
pub(crate) unsafe fn seen<'a>(lua: *mut lua_State, index: usize) -> Seen<'a> {
    let value = &*state(lua).base.add(index);
    match value.kind {
        LUA_TSTRING => {
            let text = value.content.object.cast::<Text>();
            Seen::String(std::slice::from_raw_parts(text.add(1).cast(), (*text).len))
        }
        LUA_TNUMBER => Seen::Number(value.content.number),
        _ => Seen::Other,
    }
}

/// Leaves a number alone on the running function's stack.
#[inline(always)]
pub(crate) unsafe fn leave_number(lua: *mut lua_State, number: f64) {
    let state = &mut *lua.cast::<State>();
    // There is room for more (LUA_MINSTACK).
    *state.base = Value { content: Content { number }, kind: LUA_TNUMBER };
    state.top = state.base.add(1);
}

/// The hash part of the table at the absolute `index`, from 1. All tables without one have the same.
pub(crate) unsafe fn hash_part(lua: *mut lua_State, index: c_int) -> *mut c_void {
    (*table(lua, index)).nodes
}

/// Whether the table at the absolute `index` has neither a metatable nor another hash part than this, and `len` places in its array part.
pub(crate) unsafe fn has_parts(
    lua: *mut lua_State,
    index: c_int,
    hash_part: *mut c_void,
    len: usize,
) -> bool {
    let table = &*table(lua, index);
    table.metatable.is_null() && table.nodes == hash_part && table.array_len as usize == len
}

/// Takes all values out of the array part of the table at the absolute `index`.
pub(crate) unsafe fn clear_array_part(lua: *mut lua_State, index: c_int) {
    let table = &*table(lua, index);
    for place in 0..table.array_len as usize {
        (*table.array.add(place)).kind = LUA_TNIL;
    }
}

unsafe fn table(lua: *mut lua_State, index: c_int) -> *mut Table {
    (*state(lua).base.add(index as usize - 1)).content.object.cast()
}

/// Whether the structures are those of the Lua that is linked.
pub(crate) unsafe fn check(lua: *mut lua_State, allocator_data: *mut c_void) {
    let top = lua_gettop(lua);
    push_bytes(lua, b"layout");
    lua_pushnumber(lua, 1.5);
    lua_createtable(lua, 3, 0);
    lua_pushnumber(lua, 7.0);
    lua_rawseti_(lua, -2, 3);
    let [text, number, list] = [1, 2, 3].map(|above| top + above);
    let is_seen = matches!(seen(lua, text as usize - 1), Seen::String(b"layout"))
        && matches!(seen(lua, number as usize - 1), Seen::Number(1.5))
        && matches!(seen(lua, list as usize - 1), Seen::Other)
        && value_count(lua) == list as usize
        && has_parts(lua, list, hash_part(lua, list), 3)
        && self::allocator_data(lua) == allocator_data;
    clear_array_part(lua, list);
    lua_rawgeti_(lua, list, 3);
    assert!(is_seen && lua_type(lua, -1) == LUA_TNIL, "the linked Lua is the one that is built here");
    lua_settop(lua, top);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static WANTED: RefCell<Vec<c_int>> = const { RefCell::new(Vec::new()) };
    }

    unsafe extern "C-unwind" fn note_wanted(lua: *mut lua_State) -> c_int {
        WANTED.with_borrow_mut(|wanted| wanted.push(wanted_results(lua)));
        leave_number(lua, 3.0);
        1
    }

    #[test]
    fn a_function_knows_how_many_results_are_used_and_leaves_a_number() {
        let source = b"f(1, 2) local a = f('x') local b, c = f() return a + f(), b, c";
        // SAFETY: the state is this test's own, and the values are where they were put.
        let (result, value_count) = unsafe {
            let lua = luaL_newstate();
            lua_pushcclosure(lua, note_wanted, 0);
            lua_setglobal(lua, c"f".as_ptr());
            crate::run::anchor_chunk_name(lua, c"@test".as_ptr());
            crate::chunk::load(lua, source, c"@test").expect("it compiles");
            lua_call(lua, 0, 1);
            let found = (lua_tonumber(lua, -1), value_count(lua));
            lua_close(lua);
            found
        };

        assert_eq!((result, value_count), (6.0, 2));
        assert_eq!(WANTED.take(), [0, 1, 2, 1]);
    }
}
