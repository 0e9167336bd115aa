//! `cmsgpack`: MessagePack as lua-cmsgpack 0.4.0 reads and writes it: without `bin` and extension types.

use std::ffi::CStr;

use mlua::ffi::lua_State;

use super::{Function, State, workspace};

mod pack;
mod unpack;

/// Sets the global variable `cmsgpack` to the library.
///
/// # Safety
///
/// `raw` is a valid state with room for 10 values; no frame between here and the next protected call has anything to drop.
pub unsafe fn open(raw: *mut lua_State) {
    // SAFETY: as above.
    let state = unsafe { State::new(raw) };
    let functions: [(&CStr, Function); 4] = [
        (c"pack", pack::pack),
        (c"unpack", unpack::unpack),
        (c"unpack_one", unpack::unpack_one),
        (c"unpack_limit", unpack::unpack_limit),
    ];
    state.push_table();
    workspace::push_kept(state);
    for (name, function) in functions {
        state.push_value(-1);
        state.push_function(function, 1);
        state.set_field_at(-3, name);
    }
    state.pop(1);

    let about: [(&CStr, &[u8]); 4] = [
        (c"_NAME", b"cmsgpack"),
        (c"_VERSION", b"lua-cmsgpack 0.4.0"),
        (c"_COPYRIGHT", b"Copyright (C) 2012, Salvatore Sanfilippo"),
        (c"_DESCRIPTION", b"MessagePack C implementation for Lua"),
    ];
    for (name, text) in about {
        state.push_bytes(text);
        state.set_field(name);
    }
    state.set_global(c"cmsgpack");
}
