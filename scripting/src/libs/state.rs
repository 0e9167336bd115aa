//! The Lua state as a C function sees it: thin methods over Lua's API, so that the libraries are written without `unsafe`.
//!
//! Methods that return `!`, and all those that allocate, may raise a Lua error (see the errors of the module above).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;

use mlua::ffi;

use crate::readonly;

/// A function that Lua can call.
pub type Function = ffi::lua_CFunction;

/// The state of the running C function. `'c` is the time of its call.
#[derive(Clone, Copy)]
pub struct State<'c> {
    raw: *mut ffi::lua_State,
    call: PhantomData<&'c ()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    None,
    Nil,
    Boolean,
    LightUserdata,
    Number,
    String,
    Table,
    Function,
    Userdata,
    Thread,
}

impl<'c> State<'c> {
    /// # Safety
    ///
    /// `raw` is a valid state for all of `'c`, and no frame between here and the next protected call has anything to drop.
    /// Whoever pushes more than `LUA_MINSTACK` (20) values asks for room first; indexes are of values that are there, and
    /// of the type that the method says.
    pub unsafe fn new(raw: *mut ffi::lua_State) -> State<'c> {
        State { raw, call: PhantomData }
    }

    pub fn raw(self) -> *mut ffi::lua_State {
        self.raw
    }

    /// The number of values on the stack.
    pub fn top(self) -> c_int {
        // SAFETY: the state is valid (`new`); that holds for all calls below.
        unsafe { ffi::lua_gettop(self.raw) }
    }

    /// Cuts the stack to `top` values, or fills it up to them with nil.
    pub fn set_top(self, top: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_settop(self.raw, top) }
    }

    pub fn pop(self, count: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_settop(self.raw, -count - 1) }
    }

    /// Moves the value at the top below what is at `index`.
    pub fn insert(self, index: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_insert(self.raw, index) }
    }

    /// Makes room for `count` more values. `false`: there would be more than a C function may have (8,000).
    pub fn has_room(self, count: c_int) -> bool {
        // SAFETY: `new`.
        unsafe { ffi::lua_checkstack(self.raw, count) != 0 }
    }

    /// Makes room for `count` more values. Error: `stack overflow (WHERE)`.
    pub fn require_room(self, count: c_int, place: &CStr) {
        // SAFETY: `new`; `place` ends with a zero.
        unsafe { ffi::luaL_checkstack_(self.raw, count, place.as_ptr()) }
    }

    pub fn type_of(self, index: c_int) -> Type {
        // SAFETY: `new`.
        match unsafe { ffi::lua_type(self.raw, index) } {
            ffi::LUA_TNIL => Type::Nil,
            ffi::LUA_TBOOLEAN => Type::Boolean,
            ffi::LUA_TLIGHTUSERDATA => Type::LightUserdata,
            ffi::LUA_TNUMBER => Type::Number,
            ffi::LUA_TSTRING => Type::String,
            ffi::LUA_TTABLE => Type::Table,
            ffi::LUA_TFUNCTION => Type::Function,
            ffi::LUA_TUSERDATA => Type::Userdata,
            ffi::LUA_TTHREAD => Type::Thread,
            _ => Type::None,
        }
    }

    pub fn boolean(self, index: c_int) -> bool {
        // SAFETY: `new`.
        unsafe { ffi::lua_toboolean(self.raw, index) != 0 }
    }

    pub fn number(self, index: c_int) -> f64 {
        // SAFETY: `new`.
        unsafe { ffi::lua_tonumber(self.raw, index) }
    }

    /// Whether there is a number, or a string that reads as one.
    pub fn is_number(self, index: c_int) -> bool {
        // SAFETY: `new`.
        unsafe { ffi::lua_isnumber(self.raw, index) != 0 }
    }

    /// The bytes of the string at `index`, valid while it is on the stack. A number there is turned into a string.
    pub fn bytes(self, index: c_int) -> &'c [u8] {
        let mut len = 0;
        // SAFETY: `new`.
        let start = unsafe { ffi::lua_tolstring(self.raw, index, &raw mut len) };
        // SAFETY: the value is a string or a number; Lua has the string at `start`, `len` bytes, and does not move it.
        unsafe { std::slice::from_raw_parts(start.cast(), len) }
    }

    /// As [`State::bytes`], with the zero that Lua keeps behind every string.
    pub fn bytes_and_zero(self, index: c_int) -> &'c [u8] {
        let bytes = self.bytes(index);
        // SAFETY: Lua ends its strings with a zero, which is not counted in their length.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len() + 1) }
    }

    /// If the table at the top is one that scripts cannot change, puts the table in its place that it shows the fields of.
    pub fn resolve_read_only(self) {
        // SAFETY: `new`; the table is there.
        unsafe { readonly::resolve(self.raw, self.top()) }
    }

    /// The number of elements of the table at `index`, without metamethods.
    pub fn raw_len(self, index: c_int) -> usize {
        // SAFETY: `new`.
        unsafe { ffi::lua_objlen(self.raw, index) }
    }

    /// The block of the userdata at `index`, light or full; null for anything else.
    pub fn userdata(self, index: c_int) -> *mut c_void {
        // SAFETY: `new`.
        unsafe { ffi::lua_touserdata(self.raw, index) }
    }

    pub fn push_nil(self) {
        // SAFETY: `new`.
        unsafe { ffi::lua_pushnil(self.raw) }
    }

    pub fn push_boolean(self, value: bool) {
        // SAFETY: `new`.
        unsafe { ffi::lua_pushboolean(self.raw, c_int::from(value)) }
    }

    pub fn push_number(self, value: f64) {
        // SAFETY: `new`.
        unsafe { ffi::lua_pushnumber(self.raw, value) }
    }

    pub fn push_integer(self, value: i64) {
        // SAFETY: `new`.
        unsafe { ffi::lua_pushinteger(self.raw, value) }
    }

    pub fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: `new`; Lua copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.raw, bytes.as_ptr().cast(), bytes.len()) }
    }

    #[allow(clippy::not_unsafe_ptr_arg_deref, reason = "Lua keeps the address, and reads nothing through it")]
    pub fn push_light_userdata(self, address: *mut c_void) {
        // SAFETY: `new`.
        unsafe { ffi::lua_pushlightuserdata(self.raw, address) }
    }

    /// Pushes a new block of `T` that Lua owns and frees without dropping it.
    pub fn push_userdata<T: Copy>(self, value: T) -> *mut T {
        const { assert!(align_of::<T>() <= align_of::<usize>()) }
        // SAFETY: `new`; Lua aligns userdata for any C type.
        unsafe {
            let block: *mut T = ffi::lua_newuserdata(self.raw, size_of::<T>()).cast();
            block.write(value);
            block
        }
    }

    /// Pushes an empty table without room for anything.
    pub fn push_table(self) {
        // SAFETY: `new`.
        unsafe { ffi::lua_createtable(self.raw, 0, 0) }
    }

    /// Pushes an empty table with room for `count` named fields.
    pub fn push_table_for(self, count: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_createtable(self.raw, 0, count) }
    }

    /// Pushes the value at `index` once more.
    pub fn push_value(self, index: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_pushvalue(self.raw, index) }
    }

    /// Replaces the `upvalues` values at the top by a function that has them.
    pub fn push_function(self, function: Function, upvalues: c_int) {
        // SAFETY: `new`; `function` is one that Lua may call.
        unsafe { ffi::lua_pushcclosure(self.raw, function, upvalues) }
    }

    /// Sets a field of the table below the top to the value at the top, and pops that.
    pub fn set_field(self, name: &CStr) {
        // SAFETY: `new`; `name` ends with a zero.
        unsafe { ffi::lua_setfield(self.raw, -2, name.as_ptr()) }
    }

    /// Sets the global variable to the value at the top, and pops that.
    pub fn set_global(self, name: &CStr) {
        // SAFETY: `new`; `name` ends with a zero.
        unsafe { ffi::lua_setfield(self.raw, ffi::LUA_GLOBALSINDEX, name.as_ptr()) }
    }

    /// As [`State::set_field`], of the table at `index`.
    pub fn set_field_at(self, index: c_int, name: &CStr) {
        // SAFETY: `new`; `name` ends with a zero.
        unsafe { ffi::lua_setfield(self.raw, index, name.as_ptr()) }
    }

    /// `table[key] = value`, without metamethods; value, key and table are the last three. Pops value and key.
    /// Error: the key is nil or NaN.
    pub fn raw_set(self) {
        // SAFETY: `new`.
        unsafe { ffi::lua_rawset(self.raw, -3) }
    }

    /// `table[index] = value`, without metamethods; value and table are the last two. Pops the value.
    pub fn raw_set_index(self, index: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_rawseti_(self.raw, -2, index) }
    }

    /// Pushes `table[index]`, without metamethods; the table is at the top.
    pub fn raw_get_index(self, index: c_int) {
        // SAFETY: `new`.
        unsafe { ffi::lua_rawgeti_(self.raw, -1, index) }
    }

    /// Replaces the key at the top by the next key and its value in the table below it; pops the key if there is none.
    pub fn next(self) -> bool {
        // SAFETY: `new`.
        unsafe { ffi::lua_next(self.raw, -2) != 0 }
    }

    /// A string argument. Error: it is neither a string nor a number.
    pub fn check_bytes(self, arg: c_int) -> &'c [u8] {
        // SAFETY: `new`.
        unsafe { ffi::luaL_checklstring(self.raw, arg, std::ptr::null_mut()) };
        self.bytes(arg)
    }

    /// As [`State::check_bytes`], up to the first zero byte.
    pub fn check_c_string(self, arg: c_int) -> &'c [u8] {
        let bytes = self.check_bytes(arg);
        let len = bytes.iter().position(|byte| *byte == 0);
        &bytes[..len.unwrap_or(bytes.len())]
    }

    /// A number argument. Error: it is neither a number nor a string that reads as one.
    pub fn check_number(self, arg: c_int) -> f64 {
        // SAFETY: `new`.
        unsafe { ffi::luaL_checknumber(self.raw, arg) }
    }

    /// As [`State::check_number`], without the fraction; any value for what is out of range.
    pub fn check_integer(self, arg: c_int) -> i64 {
        // SAFETY: `new`.
        unsafe { ffi::luaL_checkinteger(self.raw, arg) }
    }

    /// As [`State::check_integer`]; `default` if the argument is nil or not there.
    pub fn opt_integer(self, arg: c_int, default: i64) -> i64 {
        // SAFETY: `new`.
        unsafe { ffi::luaL_optinteger(self.raw, arg, default) }
    }

    /// Raises `bad argument #ARG to 'NAME' (MESSAGE)`.
    pub fn arg_error(self, arg: c_int, message: &CStr) -> ! {
        // SAFETY: `new`; `message` ends with a zero.
        unsafe { ffi::luaL_argerror(self.raw, arg, message.as_ptr()) };
        unreachable!("luaL_argerror does not return")
    }

    /// As [`State::arg_error`], with a message in parts, which may have no zeros in them.
    pub fn arg_error_of(self, arg: c_int, parts: &[&[u8]]) -> ! {
        self.make_room_for_message();
        self.push_parts(parts);
        let message: *const c_char = self.bytes_and_zero(-1).as_ptr().cast();
        // SAFETY: `new`; Lua's string at the top ends with a zero.
        unsafe { ffi::luaL_argerror(self.raw, arg, message) };
        unreachable!("luaL_argerror does not return")
    }

    /// Raises an error that begins with the place in the script from which the function was called.
    pub fn error(self, parts: &[&[u8]]) -> ! {
        self.make_room_for_message();
        // SAFETY: `new`.
        unsafe { ffi::luaL_where(self.raw, 1) };
        self.push_parts(parts);
        // SAFETY: `new`; there are two strings.
        unsafe {
            ffi::lua_concat(self.raw, 2);
            ffi::lua_error(self.raw)
        }
    }

    /// Raises what Lua raises when memory runs out.
    pub fn memory_error(self) -> ! {
        self.make_room_for_message();
        self.push_bytes(b"not enough memory");
        // SAFETY: `new`.
        unsafe { ffi::lua_error(self.raw) }
    }

    fn push_parts(self, parts: &[&[u8]]) {
        self.push_bytes(b"");
        for part in parts {
            self.push_bytes(part);
            // SAFETY: `new`; there are two strings.
            unsafe { ffi::lua_concat(self.raw, 2) };
        }
    }

    /// Gives up values at the top if the stack is full: the error ends the function that has them.
    fn make_room_for_message(self) {
        if !self.has_room(4) {
            self.pop(4);
        }
    }
}

/// The name of a type in error messages.
pub fn type_name(of: Type) -> &'static [u8] {
    match of {
        Type::None => b"no value",
        Type::Nil => b"nil",
        Type::Boolean => b"boolean",
        Type::LightUserdata | Type::Userdata => b"userdata",
        Type::Number => b"number",
        Type::String => b"string",
        Type::Table => b"table",
        Type::Function => b"function",
        Type::Thread => b"thread",
    }
}

/// The bytes of an integer in decimal, for a part of an error message.
pub struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

impl Decimal {
    pub fn new(value: i64) -> Decimal {
        let mut decimal = Decimal { bytes: [0; 20], start: 20 };
        let mut rest = value.unsigned_abs();
        loop {
            decimal.start -= 1;
            decimal.bytes[decimal.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            decimal.start -= 1;
            decimal.bytes[decimal.start] = b'-';
        }
        decimal
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
