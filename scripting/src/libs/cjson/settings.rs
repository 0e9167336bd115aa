//! The functions that read and change a module's settings. Each takes new values, of which nil (or none) leaves a setting as it
//! is, and returns what is then in force.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::super::State;
use super::super::state::{Decimal, Type};
use super::{InvalidNumbers, settings_of};

/// Defines functions that Lua calls, with the number of their arguments.
macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($state:ident, $args:literal) $body:block)*) => {$(
        $(#[$doc])*
        pub unsafe extern "C-unwind" fn $name(raw: *mut lua_State) -> c_int {
            // SAFETY: Lua calls this with its state; the values below have nothing to drop.
            let $state = unsafe { State::new(raw) };
            if $state.top() > $args {
                $state.arg_error($args + 1, c"found too many arguments");
            }
            $state.set_top($args);
            $body
        }
    )*};
}

functions! {
    /// encode_sparse_array([convert [, ratio [, safe]]])
    fn encode_sparse_array(state, 3) {
        let settings = settings_of(state);
        set_boolean(state, 1, &mut settings.convert_sparse);
        set_integer(state, 2, &mut settings.sparse_ratio, 0, i32::MAX);
        set_integer(state, 3, &mut settings.sparse_safe, 0, i32::MAX);
        3
    }
    /// encode_max_depth([depth])
    fn encode_max_depth(state, 1) {
        set_integer(state, 1, &mut settings_of(state).encode_max_depth, 1, i32::MAX)
    }
    /// decode_max_depth([depth])
    fn decode_max_depth(state, 1) {
        set_integer(state, 1, &mut settings_of(state).decode_max_depth, 1, i32::MAX)
    }
    /// encode_number_precision([digits])
    fn encode_number_precision(state, 1) {
        set_integer(state, 1, &mut settings_of(state).precision, 1, 14)
    }
    /// encode_keep_buffer([keep])
    fn encode_keep_buffer(state, 1) {
        set_boolean(state, 1, &mut settings_of(state).keeps_buffer)
    }
    /// encode_invalid_numbers([false | true | "null"])
    fn encode_invalid_numbers(state, 1) {
        let setting = &mut settings_of(state).encode_invalid;
        if let Some(option) = check_option(state, 1, &[b"off", b"on", b"null"]) {
            *setting = [InvalidNumbers::Error, InvalidNumbers::AsIs, InvalidNumbers::Null][option];
        }
        match setting {
            InvalidNumbers::Error => state.push_boolean(false),
            InvalidNumbers::AsIs => state.push_boolean(true),
            InvalidNumbers::Null => state.push_bytes(b"null"),
        }
        1
    }
    /// decode_invalid_numbers([allow])
    fn decode_invalid_numbers(state, 1) {
        set_boolean(state, 1, &mut settings_of(state).decode_invalid)
    }
}

/// Sets what an argument asks for and pushes what is then in force.
fn set_boolean(state: State<'_>, arg: c_int, setting: &mut bool) -> c_int {
    if let Some(option) = check_option(state, arg, &[b"off", b"on"]) {
        *setting = option == 1;
    }
    state.push_boolean(*setting);
    1
}

/// As [`set_boolean`]. Errors name the first argument, whichever it is.
fn set_integer(state: State<'_>, arg: c_int, setting: &mut i32, least: i32, most: i32) -> c_int {
    if state.type_of(arg) != Type::Nil {
        // Of a larger integer the low 32 bits.
        let value = state.check_integer(arg) as i32;
        if !(least..=most).contains(&value) {
            let (least, most) = (Decimal::new(least.into()), Decimal::new(most.into()));
            state.arg_error_of(
                1,
                &[b"expected integer between ", least.as_bytes(), b" and ", most.as_bytes()],
            );
        }
        *setting = value;
    }
    state.push_integer((*setting).into());
    1
}

/// The number of the option that an argument names, `true` for 1 and `false` for 0. `None` for nil.
fn check_option(state: State<'_>, arg: c_int, options: &[&[u8]]) -> Option<usize> {
    match state.type_of(arg) {
        Type::Nil => None,
        Type::Boolean => Some(usize::from(state.boolean(arg))),
        Type::None
        | Type::LightUserdata
        | Type::Number
        | Type::String
        | Type::Table
        | Type::Function
        | Type::Userdata
        | Type::Thread => {
            let name = state.check_c_string(arg);
            let option = options.iter().position(|option| *option == name);
            option.or_else(|| state.arg_error_of(arg, &[b"invalid option '", name, b"'"]))
        }
    }
}
