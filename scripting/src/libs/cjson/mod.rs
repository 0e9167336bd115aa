//! `cjson`: JSON as lua-cjson 2.1.0 reads and writes it.
//!
//! A module (`cjson`, and what `cjson.new` returns) has settings of its own, which last as long as its table: for `cjson` itself as
//! long as the state. null is a light userdata of address 0.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_State};

use super::{Function, State, workspace};

mod decode;
mod encode;
mod settings;

/// What a module's functions can set.
#[derive(Clone, Copy)]
struct Settings {
    /// Whether a sparse array is written as an object; otherwise it is an error.
    convert_sparse: bool,
    /// An array is sparse if its last index is more than this times its elements (0: none is) ...
    sparse_ratio: i32,
    /// ... and more than this.
    sparse_safe: i32,
    encode_max_depth: i32,
    decode_max_depth: i32,
    /// Digits of a number.
    precision: i32,
    keeps_buffer: bool,
    encode_invalid: InvalidNumbers,
    /// Whether hexadecimal, infinite and other numbers that are not JSON are read.
    decode_invalid: bool,
}

/// What is written for NaN and infinite numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InvalidNumbers {
    Error,
    AsIs,
    Null,
}

const DEFAULTS: Settings = Settings {
    convert_sparse: false,
    sparse_ratio: 2,
    sparse_safe: 10,
    encode_max_depth: 1000,
    decode_max_depth: 1000,
    precision: 14,
    keeps_buffer: true,
    encode_invalid: InvalidNumbers::Error,
    decode_invalid: true,
};

/// Sets the global variable `cjson` to the library.
///
/// # Safety
///
/// `raw` is a valid state with room for 10 values; no frame between here and the next protected call has anything to drop.
pub unsafe fn open(raw: *mut lua_State) {
    // SAFETY: as above.
    let state = unsafe { State::new(raw) };
    push_module(state);
    state.set_global(c"cjson");
}

/// Pushes a module with the default settings. There has to be room for 6 values.
fn push_module(state: State<'_>) {
    let functions: [(&CStr, Function); 10] = [
        (c"encode", encode::encode),
        (c"decode", decode::decode),
        (c"encode_sparse_array", settings::encode_sparse_array),
        (c"encode_max_depth", settings::encode_max_depth),
        (c"decode_max_depth", settings::decode_max_depth),
        (c"encode_number_precision", settings::encode_number_precision),
        (c"encode_keep_buffer", settings::encode_keep_buffer),
        (c"encode_invalid_numbers", settings::encode_invalid_numbers),
        (c"decode_invalid_numbers", settings::decode_invalid_numbers),
        (c"new", new),
    ];
    state.push_table();
    workspace::push_kept(state);
    state.push_userdata(DEFAULTS);
    for (name, function) in functions {
        state.push_value(-2);
        state.push_value(-2);
        state.push_function(function, 2);
        state.set_field_at(-4, name);
    }
    state.pop(2);

    state.push_light_userdata(std::ptr::null_mut());
    state.set_field(c"null");
    state.push_bytes(b"cjson");
    state.set_field(c"_NAME");
    state.push_bytes(b"2.1.0");
    state.set_field(c"_VERSION");
}

/// new(): a module with the default settings.
unsafe extern "C-unwind" fn new(raw: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its state; the values below have nothing to drop.
    let state = unsafe { State::new(raw) };
    if !state.has_room(6) {
        state.memory_error();
    }
    push_module(state);
    1
}

/// The settings of the running function's module.
fn settings_of(state: State<'_>) -> &mut Settings {
    let settings: *mut Settings = state.userdata(ffi::lua_upvalueindex(2)).cast();
    // SAFETY: the second upvalue of a module's functions is its settings, and lives as long as the function. Each function
    // calls this once, and calls no other function of the module.
    unsafe { &mut *settings }
}
