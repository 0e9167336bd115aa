//! Lua's stack as it lies in memory. The C API takes a function call for each look at a value, and a call of a command
//! takes a dozen looks.
//!
//! The structures are those of Lua 5.1.5 (lobject.h, lstate.h), as far as they are needed, on a machine with pointers of 64
//! bits. The version is the one that this crate builds; [`check`] compares what is read here with what the API says.

// The functions are called from a C function of `lua`, or with the contract of their caller.
#![allow(unsafe_op_in_unsafe_fn, reason = "every line follows Lua's pointers; the contract stands above")]

use std::ffi::{c_int, c_void};

use crate::ffi::*;
use crate::fold::{Known, Place, is_tail_call};

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
    saved_pc: *const u32,
    stack_last: *mut Value,
    stack: *mut Value,
    end_call: *mut CallInfo,
    first_call: *mut CallInfo,
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

/// `LClosure`.
#[repr(C)]
struct Function {
    next: *mut c_void,
    kind: u8,
    marked: u8,
    is_of_c: u8,
    upvalue_count: u8,
    gray_next: *mut c_void,
    globals: *mut c_void,
    prototype: *mut Prototype,
}

/// `Proto`.
#[repr(C)]
struct Prototype {
    next: *mut c_void,
    kind: u8,
    marked: u8,
    constants: *mut Value,
    code: *mut u32,
    functions: *mut *mut Prototype,
    lines: *mut c_int,
    local_variables: *mut c_void,
    upvalue_names: *mut c_void,
    source: *mut c_void,
    upvalue_name_count: c_int,
    constant_count: c_int,
    code_len: c_int,
    line_count: c_int,
    function_count: c_int,
}

/// What all objects of the collector begin with (`GCheader`).
#[repr(C)]
struct Object {
    next: *mut c_void,
    kind: u8,
    marked: u8,
}

/// Bits of `marked`: not seen by the collector in this cycle or the next, and finished with.
const WHITE_BITS: u8 = 0b11;
const BLACK_BIT: u8 = 0b100;

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

/// Whether the running C function was called by `return f(...)` in the function that the thread runs, so that its result is that of
/// the run.
#[inline(always)]
pub(crate) unsafe fn is_last_call(lua: *mut lua_State) -> bool {
    let state = state(lua);
    let caller = state.call.sub(1);
    caller == state.first_call.add(1) && is_tail_call(*(*caller).saved_pc.sub(1))
}

/// A value of a thread, as far as it can be seen without the API.
pub(crate) enum Seen<'a> {
    /// As long as it stays on the stack.
    String(&'a [u8]),
    Number(f64),
    /// Light userdata.
    Address(*mut c_void),
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
        LUA_TLIGHTUSERDATA => Seen::Address(value.content.object),
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

/// A constant of a function that [`crate::fold`] has added. It lives as long as the function.
pub(crate) struct Slot {
    pub(crate) known: Known,
    prototype: *mut Prototype,
    constant: usize,
}

/// The constants that were added to the Lua function at the absolute `index`, and to those within it.
pub(crate) unsafe fn slots(lua: *mut lua_State, index: c_int, places: &[Vec<Place>]) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut places = places.iter();
    if !places.as_slice().is_empty() {
        add_slots(prototype(lua, index), &mut places, &mut slots);
    }
    assert!(places.next().is_none(), "there is one for each function");
    slots
}

unsafe fn add_slots(
    prototype: *mut Prototype,
    places: &mut std::slice::Iter<'_, Vec<Place>>,
    slots: &mut Vec<Slot>,
) {
    for place in places.next().expect("there is one for each function") {
        let (known, constant) = (place.known, place.constant as usize);
        assert!(constant < (*prototype).constant_count as usize, "the function was folded");
        slots.push(Slot { known, prototype, constant });
    }
    for at in 0..(*prototype).function_count as usize {
        add_slots(*(*prototype).functions.add(at), places, slots);
    }
}

/// Sets a constant to the value on top of the stack, which stays there.
#[inline]
pub(crate) unsafe fn set_slot(lua: *mut lua_State, slot: &Slot) {
    let value = *state(lua).top.sub(1);
    *(*slot.prototype).constants.add(slot.constant) = value;
    if value.kind >= LUA_TSTRING {
        let object = value.content.object;
        let is_white = (*object.cast::<Object>()).marked & WHITE_BITS != 0;
        if (*slot.prototype).marked & BLACK_BIT != 0 && is_white {
            luaC_barrierf(lua, slot.prototype.cast(), object);
        }
    }
}

/// Sets a constant to nil.
#[inline]
pub(crate) unsafe fn clear_slot(slot: &Slot) {
    (*(*slot.prototype).constants.add(slot.constant)).kind = LUA_TNIL;
}

/// Takes the value on top of the stack away.
#[inline]
pub(crate) unsafe fn pop(lua: *mut lua_State) {
    let state = &mut *lua.cast::<State>();
    state.top = state.top.sub(1);
}

unsafe fn prototype(lua: *mut lua_State, index: c_int) -> *mut Prototype {
    let value = &*state(lua).base.add(index as usize - 1);
    (*value.content.object.cast::<Function>()).prototype
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
        && self::allocator_data(lua) == allocator_data
        && state(lua).call == state(lua).first_call
        && (state(lua).stack..state(lua).stack_last).contains(&state(lua).base);
    clear_array_part(lua, list);
    lua_rawgeti_(lua, list, 3);
    let is_cleared = lua_type(lua, -1) == LUA_TNIL;
    let is_seen = is_seen && is_cleared && is_prototype_seen(lua);
    assert!(is_seen, "the linked Lua is the one that is built here");
    lua_settop(lua, top);
}

/// Compiles a function, and looks at it. It stays on the stack.
unsafe fn is_prototype_seen(lua: *mut lua_State) -> bool {
    crate::run::anchor_chunk_name(lua, c"@layout".as_ptr());
    crate::chunk::load(lua, b"return 7, function() return 'within' end", c"@layout").expect("it compiles");
    let prototype = &*prototype(lua, lua_gettop(lua));
    let within = &**prototype.functions;
    let (seven, text) = (&*prototype.constants, &*within.constants);
    let counts = |it: &Prototype| (it.constant_count, it.function_count);
    counts(prototype) == (1, 1)
        && counts(within) == (1, 0)
        && prototype.line_count == prototype.code_len
        && (seven.kind, seven.content.number) == (LUA_TNUMBER, 7.0)
        && text.kind == LUA_TSTRING
        && (*text.content.object.cast::<Text>()).len == 6
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
