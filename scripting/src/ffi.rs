//! Lua's C API as the engine uses it.
//!
//! A Lua error is a `longjmp`: it leaves the Rust functions between `lua_error` and the protected call without
//! running destructors. So a function that calls what may raise holds nothing that has one; buffers belong to the
//! [`crate::run::Run`].

use std::ffi::{CStr, c_char, c_int, c_void};

pub(crate) use mlua::ffi::*;

unsafe extern "C-unwind" {
    /// Counts the C calls of `from` as calls of `to` as well, so that nested coroutines share one limit.
    pub(crate) fn lua_setlevel(from: *mut lua_State, to: *mut lua_State);
    /// For the collector: an object that it has finished with has got to refer to one that it has not seen (lgc.h).
    pub(crate) fn luaC_barrierf(lua: *mut lua_State, object: *mut c_void, referred: *mut c_void);
}

/// Pushes the string `bytes`.
#[inline]
pub(crate) unsafe fn push_bytes(lua: *mut lua_State, bytes: &[u8]) {
    // SAFETY: the slice is readable; the caller holds a valid state with room on its stack.
    unsafe { lua_pushlstring_(lua, bytes.as_ptr().cast::<c_char>(), bytes.len()) }
}

/// The string at `index`, which is a string or a number; a number is changed to a string in place.
#[inline]
pub(crate) unsafe fn bytes_at<'a>(lua: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    let mut len = 0;
    // SAFETY: the slice is valid while the value stays on the stack; callers use it only then.
    unsafe {
        let start = lua_tolstring(lua, index, &mut len);
        if start.is_null() { None } else { Some(std::slice::from_raw_parts(start.cast(), len)) }
    }
}

/// Pushes the value of the field `name` of the table at `index`, without metamethods. `index` is absolute.
#[inline]
pub(crate) unsafe fn raw_field(lua: *mut lua_State, index: c_int, name: &CStr) {
    // SAFETY: as for any call of the API; the caller has a table at `index`.
    unsafe {
        push_bytes(lua, name.to_bytes());
        lua_rawget_(lua, index);
    }
}

/// Sets the field `name` of the table below the top to the value on top, which is popped, without metamethods.
pub(crate) unsafe fn set_raw_field(lua: *mut lua_State, name: &CStr) {
    // SAFETY: as above; the table lies at -2.
    unsafe {
        push_bytes(lua, name.to_bytes());
        lua_insert(lua, -2);
        lua_rawset(lua, -3);
    }
}

/// Sets the field `name` of the table on top to a function.
pub(crate) unsafe fn set_function(lua: *mut lua_State, name: &CStr, function: lua_CFunction) {
    // SAFETY: as above; the table lies on top.
    unsafe {
        lua_pushcclosure(lua, function, 0);
        set_raw_field(lua, name);
    }
}

/// Raises an error with the position of the calling Lua function before it.
pub(crate) unsafe fn raise_text(lua: *mut lua_State, text: &CStr) -> c_int {
    // SAFETY: the format takes one string.
    unsafe { luaL_error(lua, c"%s".as_ptr(), text.as_ptr()) }
}
