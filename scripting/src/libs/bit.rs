//! `bit`: operations on the 32 bits of a number (BitOp 1.0.2).
//!
//! Arguments are taken modulo 2^32, a fraction to the nearest integer; results are signed.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::{Function, State};

/// 2^52 + 2^51: its sum with a number has the number's integer in its lowest bits.
const TO_LOW_BITS: f64 = 6_755_399_441_055_744.0;

/// Sets the global variable `bit` to the library.
///
/// # Safety
///
/// `raw` is a valid state with room for 10 values; no frame between here and the next protected call has anything to drop.
pub unsafe fn open(raw: *mut lua_State) {
    // SAFETY: as above.
    let state = unsafe { State::new(raw) };
    let functions: [(&std::ffi::CStr, Function); 12] = [
        (c"tobit", tobit),
        (c"bnot", bnot),
        (c"band", band),
        (c"bor", bor),
        (c"bxor", bxor),
        (c"lshift", lshift),
        (c"rshift", rshift),
        (c"arshift", arshift),
        (c"rol", rol),
        (c"ror", ror),
        (c"bswap", bswap),
        (c"tohex", tohex),
    ];
    state.push_table_for(functions.len() as c_int);
    for (name, function) in functions {
        state.push_function(function, 0);
        state.set_field(name);
    }
    state.set_global(c"bit");
}

fn check_bits(state: State<'_>, arg: c_int) -> u32 {
    (state.check_number(arg) + TO_LOW_BITS).to_bits() as u32
}

fn push_bits(state: State<'_>, bits: u32) -> c_int {
    state.push_number(f64::from(bits.cast_signed()));
    1
}

/// Defines functions that Lua calls.
macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($state:ident) $body:block)*) => {$(
        $(#[$doc])*
        unsafe extern "C-unwind" fn $name(raw: *mut lua_State) -> c_int {
            // SAFETY: Lua calls this with its state; the values below have nothing to drop.
            let $state = unsafe { State::new(raw) };
            $body
        }
    )*};
}

functions! {
    /// tobit(x)
    fn tobit(state) { push_bits(state, check_bits(state, 1)) }
    /// bnot(x)
    fn bnot(state) { push_bits(state, !check_bits(state, 1)) }
    /// band(x, ...)
    fn band(state) { fold(state, |left, right| left & right) }
    /// bor(x, ...)
    fn bor(state) { fold(state, |left, right| left | right) }
    /// bxor(x, ...)
    fn bxor(state) { fold(state, |left, right| left ^ right) }
    /// lshift(x, n): n modulo 32, as all of these.
    fn lshift(state) { shift(state, u32::wrapping_shl) }
    /// rshift(x, n): zeros come in.
    fn rshift(state) { shift(state, u32::wrapping_shr) }
    /// arshift(x, n): the sign's bit comes in.
    fn arshift(state) { shift(state, |bits, by| bits.cast_signed().wrapping_shr(by).cast_unsigned()) }
    /// rol(x, n)
    fn rol(state) { shift(state, |bits, by| bits.rotate_left(by % 32)) }
    /// ror(x, n)
    fn ror(state) { shift(state, |bits, by| bits.rotate_right(by % 32)) }
    /// bswap(x)
    fn bswap(state) { push_bits(state, check_bits(state, 1).swap_bytes()) }
    /// tohex(x [, n]): the lowest |n| digits, at most 8 and by default; capital letters if n < 0.
    fn tohex(state) {
        let bits = check_bits(state, 1);
        let count = if state.top() < 2 { 8 } else { check_bits(state, 2).cast_signed() };

        let letters = if count < 0 { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
        let len = count.unsigned_abs().min(8) as usize;
        let mut digits = [0; 8];
        for (at, digit) in digits[..len].iter_mut().rev().enumerate() {
            *digit = letters[(bits >> (4 * at) & 0xf) as usize];
        }

        state.push_bytes(&digits[..len]);
        1
    }
}

fn fold(state: State<'_>, operation: fn(u32, u32) -> u32) -> c_int {
    let mut bits = check_bits(state, 1);
    // From the last on, so that of several bad arguments the last is told.
    for arg in (2..=state.top()).rev() {
        bits = operation(bits, check_bits(state, arg));
    }
    push_bits(state, bits)
}

fn shift(state: State<'_>, operation: fn(u32, u32) -> u32) -> c_int {
    let bits = check_bits(state, 1);
    let by = check_bits(state, 2);
    push_bits(state, operation(bits, by))
}
