//! Callbacks that carry no data: functions, and closures that capture nothing.

use std::ptr::NonNull;

/// The value of a type that has one only. A function's or such a closure's type says all there is to know, so the entry point
/// for C that is made for the type can call it.
///
/// # Safety
/// There was a value of this type: the caller was given one.
pub(crate) unsafe fn only_value<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0, "a callback captures nothing") };
    // SAFETY: a value without bytes can be read from any aligned place, and as it may be copied, there may be another.
    unsafe { NonNull::<F>::dangling().read() }
}
