//! Read-only tables without a patched Lua.
//!
//! What a script gets is a proxy: an empty table whose metatable reads from the real table (`__index`) and refuses to
//! write (`__newindex`). The real table is never handed to a script. Lua's own functions that work on a table without
//! its metatable (`next`, `rawset`, `table.insert`, ...) are replaced where a proxy would show ([`crate::base`]). The
//! metatable is hidden; at `[1]` it carries an address that no script can make, by which a proxy is known.

use std::ffi::{c_int, c_void};

use crate::ffi::*;

/// What marks the metatable of a proxy: its address.
static PROXY_TAG: u8 = 0;

const TAG_SLOT: c_int = 1;
const REAL_SLOT: c_int = 2;
const METATABLE_SLOT: c_int = 3;

fn tag() -> *mut c_void {
    (&raw const PROXY_TAG).cast_mut().cast()
}

/// Replaces the table on top by a proxy of it.
pub(crate) unsafe fn protect(lua: *mut lua_State) {
    // SAFETY: the caller has a table on top; the stack has room for five values more.
    unsafe {
        lua_createtable(lua, 0, 0);
        lua_createtable(lua, 3, 2);
        lua_pushlightuserdata(lua, tag());
        lua_rawseti_(lua, -2, TAG_SLOT);
        lua_pushvalue(lua, -3);
        lua_rawseti_(lua, -2, REAL_SLOT);
        lua_pushvalue(lua, -3);
        set_raw_field(lua, c"__index");
        lua_pushcclosure(lua, refuse_assignment, 0);
        set_raw_field(lua, c"__newindex");
        lua_setmetatable(lua, -2);
        lua_remove(lua, -2);
    }
}

/// Makes the proxy below the top read from the table on top, which is popped.
pub(crate) unsafe fn set_real_table(lua: *mut lua_State) {
    // SAFETY: the caller has a proxy at -2 and a table on top.
    unsafe {
        lua_getmetatable(lua, -2);
        lua_pushvalue(lua, -2);
        lua_rawseti_(lua, -2, REAL_SLOT);
        lua_insert(lua, -2);
        set_raw_field(lua, c"__index");
        lua_settop(lua, -2);
    }
}

/// Makes the value on top, which is popped, what `getmetatable` answers for the proxy below it.
pub(crate) unsafe fn set_shown_metatable(lua: *mut lua_State) {
    // SAFETY: the caller has a proxy at -2.
    unsafe {
        lua_getmetatable(lua, -2);
        lua_insert(lua, -2);
        lua_rawseti_(lua, -2, METATABLE_SLOT);
        lua_settop(lua, -2);
    }
}

/// Pushes the metatable if the value at `index` is a proxy.
unsafe fn push_proxy_metatable(lua: *mut lua_State, index: c_int) -> bool {
    // SAFETY: `index` is valid, and the stack has room for two values.
    unsafe {
        if lua_type(lua, index) != LUA_TTABLE || lua_getmetatable(lua, index) == 0 {
            return false;
        }
        lua_rawgeti_(lua, -1, TAG_SLOT);
        let is_proxy = lua_touserdata(lua, -1) == tag();
        lua_settop(lua, if is_proxy { -2 } else { -3 });
        is_proxy
    }
}

/// Whether the value at `index` is a read-only table.
pub(crate) unsafe fn is_read_only(lua: *mut lua_State, index: c_int) -> bool {
    // SAFETY: as for `push_proxy_metatable`.
    unsafe {
        let is_proxy = push_proxy_metatable(lua, index);
        if is_proxy {
            lua_settop(lua, -2);
        }
        is_proxy
    }
}

/// If the value at the absolute `index` is a proxy, puts the real table in its place. For functions that read a
/// table without its metatable, and hand it to nobody.
pub(crate) unsafe fn resolve(lua: *mut lua_State, index: c_int) {
    // SAFETY: as for `push_proxy_metatable`.
    unsafe {
        if push_proxy_metatable(lua, index) {
            lua_rawgeti_(lua, -1, REAL_SLOT);
            lua_replace(lua, index);
            lua_settop(lua, -2);
        }
    }
}

/// Pushes what `getmetatable` answers if the value at `index` is a proxy.
pub(crate) unsafe fn push_shown_metatable(lua: *mut lua_State, index: c_int) -> bool {
    // SAFETY: as for `push_proxy_metatable`.
    unsafe {
        let is_proxy = push_proxy_metatable(lua, index);
        if is_proxy {
            lua_rawgeti_(lua, -1, METATABLE_SLOT);
            lua_remove(lua, -2);
        }
        is_proxy
    }
}

unsafe extern "C-unwind" fn refuse_assignment(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { raise_text(lua, c"Attempt to modify a readonly table") }
}

/// Raises what Redis raises when a C function writes to a read-only table: the text without a position.
pub(crate) unsafe fn refuse(lua: *mut lua_State) -> c_int {
    // SAFETY: called from a function that Lua called.
    unsafe {
        push_bytes(lua, b"Attempt to modify a readonly table");
        lua_error(lua)
    }
}
