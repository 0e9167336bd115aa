//! What a server needs to serve the ABI, besides its own functions.
//!
//! A server writes an `extern "C"` function for each name and lists them with [`served!`](crate::served). Rust cannot define a
//! function with `...`, nor one that takes a `long double` by value. Those are defined in `variadic.c`: each calls the
//! server's function of the same name in [`Targets`], with [`Arguments`] instead of the `...` and a pointer instead of the
//! `long double`. [`SERVED`] lists them.
//!
//! No function may unwind: an `extern "C"` function aborts the process when it panics.

use crate::abi::*;
use crate::served;
use std::ffi::{c_char, c_int, c_longlong, c_void};

/// What a C caller gave in place of `...`, taken one by one.
#[repr(C)]
pub struct Arguments {
    _data: [u8; 0],
    _marker: std::marker::PhantomData<*mut u8>,
}

/// The bytes of a `long double`: on x86-64 the ten of the x87 format, on aarch64 those of an IEEE binary128.
#[repr(C, align(16))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LongDoubleBytes(pub [u8; 16]);

/// How a `long double` is written.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongDoubleStyle {
    /// `%.17Lg`.
    General,
    /// `%.17Lf`: Redis shows it to clients so, without the zeros at its end.
    Fixed,
    /// `%La`: hexadecimal and exact, as in RDB files.
    Hex,
}

/// The server's functions behind the entry points of `variadic.c`. The first arguments and results are those of the table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Targets {
    pub call: unsafe extern "C" fn(
        *mut RedisModuleCtx,
        *const c_char,
        *const c_char,
        *mut Arguments,
    ) -> *mut RedisModuleCallReply,
    pub replicate:
        unsafe extern "C" fn(*mut RedisModuleCtx, *const c_char, *const c_char, *mut Arguments) -> c_int,
    pub emit_aof: unsafe extern "C" fn(*mut RedisModuleIO, *const c_char, *const c_char, *mut Arguments),
    pub create_string_printf:
        unsafe extern "C" fn(*mut RedisModuleCtx, *const c_char, *mut Arguments) -> *mut RedisModuleString,
    pub reply_with_error_format:
        unsafe extern "C" fn(*mut RedisModuleCtx, *const c_char, *mut Arguments) -> c_int,
    pub log: unsafe extern "C" fn(*mut RedisModuleCtx, *const c_char, *const c_char, *mut Arguments),
    pub log_io_error: unsafe extern "C" fn(*mut RedisModuleIO, *const c_char, *const c_char, *mut Arguments),
    pub hash_set: unsafe extern "C" fn(*mut RedisModuleKey, c_int, *mut Arguments) -> c_int,
    pub hash_get: unsafe extern "C" fn(*mut RedisModuleKey, c_int, *mut Arguments) -> c_int,
    pub create_string_from_long_double:
        unsafe extern "C" fn(*mut RedisModuleCtx, *const LongDoubleBytes, c_int) -> *mut RedisModuleString,
    pub reply_with_long_double: unsafe extern "C" fn(*mut RedisModuleCtx, *const LongDoubleBytes) -> c_int,
    pub save_long_double: unsafe extern "C" fn(*mut RedisModuleIO, *const LongDoubleBytes),
    pub load_long_double: unsafe extern "C" fn(*mut RedisModuleIO, *mut LongDoubleBytes),
}

/// The entry points of `variadic.c`, with the signatures of the table.
#[allow(non_snake_case, reason = "the names of the functions")]
mod entry {
    use super::*;

    unsafe extern "C" {
        #[link_name = "shardis_module_Call"]
        pub fn Call(
            ctx: *mut RedisModuleCtx,
            cmdname: *const c_char,
            fmt: *const c_char,
            ...
        ) -> *mut RedisModuleCallReply;
        #[link_name = "shardis_module_Replicate"]
        pub fn Replicate(ctx: *mut RedisModuleCtx, cmdname: *const c_char, fmt: *const c_char, ...) -> c_int;
        #[link_name = "shardis_module_EmitAOF"]
        pub fn EmitAOF(io: *mut RedisModuleIO, cmdname: *const c_char, fmt: *const c_char, ...);
        #[link_name = "shardis_module_CreateStringPrintf"]
        pub fn CreateStringPrintf(
            ctx: *mut RedisModuleCtx,
            fmt: *const c_char,
            ...
        ) -> *mut RedisModuleString;
        #[link_name = "shardis_module_ReplyWithErrorFormat"]
        pub fn ReplyWithErrorFormat(ctx: *mut RedisModuleCtx, fmt: *const c_char, ...) -> c_int;
        #[link_name = "shardis_module_Log"]
        pub fn Log(ctx: *mut RedisModuleCtx, level: *const c_char, fmt: *const c_char, ...);
        #[link_name = "shardis_module_LogIOError"]
        pub fn LogIOError(io: *mut RedisModuleIO, levelstr: *const c_char, fmt: *const c_char, ...);
        #[link_name = "shardis_module_HashSet"]
        pub fn HashSet(key: *mut RedisModuleKey, flags: c_int, ...) -> c_int;
        #[link_name = "shardis_module_HashGet"]
        pub fn HashGet(key: *mut RedisModuleKey, flags: c_int, ...) -> c_int;
        #[link_name = "shardis_module_CreateStringFromLongDouble"]
        pub fn CreateStringFromLongDouble();
        #[link_name = "shardis_module_ReplyWithLongDouble"]
        pub fn ReplyWithLongDouble();
        #[link_name = "shardis_module_SaveLongDouble"]
        pub fn SaveLongDouble();
        #[link_name = "shardis_module_LoadLongDouble"]
        pub fn LoadLongDouble();
    }
}

unsafe extern "C" {
    fn shardis_module_next_pointer(arguments: *mut Arguments) -> *mut c_void;
    fn shardis_module_next_size(arguments: *mut Arguments) -> usize;
    fn shardis_module_next_long_long(arguments: *mut Arguments) -> c_longlong;
    fn shardis_module_format(
        arguments: *mut Arguments,
        buffer: *mut c_char,
        capacity: usize,
        format: *const c_char,
    ) -> c_int;
    fn shardis_module_long_double_format(
        value: *const LongDoubleBytes,
        style: LongDoubleStyle,
        buffer: *mut c_char,
        capacity: usize,
    ) -> c_int;
    fn shardis_module_long_double_parse(text: *const c_char, value: *mut LongDoubleBytes) -> usize;
    fn shardis_module_set_targets(targets: *const Targets);
}

/// The functions that `variadic.c` serves, once [`set_targets`] was called.
pub static SERVED: &[Served] = served! {
    Call = entry::Call,
    Replicate = entry::Replicate,
    EmitAOF = entry::EmitAOF,
    CreateStringPrintf = entry::CreateStringPrintf,
    ReplyWithErrorFormat = entry::ReplyWithErrorFormat,
    Log = entry::Log,
    LogIOError = entry::LogIOError,
    HashSet = entry::HashSet,
    HashGet = entry::HashGet,
    CreateStringFromLongDouble = entry::CreateStringFromLongDouble,
    ReplyWithLongDouble = entry::ReplyWithLongDouble,
    SaveLongDouble = entry::SaveLongDouble,
    LoadLongDouble = entry::LoadLongDouble,
};

/// Says what the entry points of `variadic.c` call.
///
/// # Safety
/// No other thread calls this, or an entry point, at the same time: it is for the start of the server.
pub unsafe fn set_targets(targets: &Targets) {
    // SAFETY: C copies the structure, which has the same layout there; nobody else is there to read it meanwhile.
    unsafe { shardis_module_set_targets(targets) };
}

impl Arguments {
    /// The next argument, any pointer.
    ///
    /// # Safety
    /// The caller gave a pointer next. `self` is what a target got, during its call.
    pub unsafe fn pointer(&mut self) -> *mut c_void {
        // SAFETY: as promised.
        unsafe { shardis_module_next_pointer(self) }
    }

    /// The next argument, a `size_t`.
    ///
    /// # Safety
    /// The caller gave a `size_t` next. `self` is what a target got, during its call.
    pub unsafe fn size(&mut self) -> usize {
        // SAFETY: as promised.
        unsafe { shardis_module_next_size(self) }
    }

    /// The next argument, a `long long`.
    ///
    /// # Safety
    /// The caller gave a `long long` next. `self` is what a target got, during its call.
    pub unsafe fn long_long(&mut self) -> c_longlong {
        // SAFETY: as promised.
        unsafe { shardis_module_next_long_long(self) }
    }

    /// The text that C's printf makes of `format` and the arguments from here on.
    ///
    /// # Safety
    /// `format` is a string of C, and the caller gave what it asks for. `self` is what a target got, during its call.
    pub unsafe fn format(&mut self, format: *const c_char) -> Vec<u8> {
        let mut text = vec![0; 256];
        loop {
            // SAFETY: as promised, and C writes at most as many bytes as there are.
            let len = unsafe {
                shardis_module_format(self, text.as_mut_ptr().cast::<c_char>(), text.len(), format)
            };
            // A format that C rejects gives nothing.
            let len = usize::try_from(len).unwrap_or(0);
            // There is room for the text only if there is room for the zero behind it.
            if len < text.len() {
                text.truncate(len);
                return text;
            }
            text.resize(len + 1, 0);
        }
    }
}

impl LongDoubleBytes {
    /// Writes the number as C does.
    pub fn format(&self, style: LongDoubleStyle) -> Vec<u8> {
        // The longest number in `%.17Lf` has 4933 digits before the point.
        let mut text = vec![0; 5 * 1024];
        // SAFETY: C writes at most as many bytes as there are.
        let len = unsafe {
            shardis_module_long_double_format(self, style, text.as_mut_ptr().cast::<c_char>(), text.len())
        };
        text.truncate(usize::try_from(len).unwrap_or(0));
        text
    }

    /// Reads a number as C's `strtold` does, if it takes the whole text.
    pub fn parse(text: &[u8]) -> Option<LongDoubleBytes> {
        let with_zero = [text, b"\0"].concat();
        let mut value = LongDoubleBytes::default();
        // SAFETY: the text ends with a zero, and there is room for the number.
        let taken =
            unsafe { shardis_module_long_double_parse(with_zero.as_ptr().cast::<c_char>(), &raw mut value) };
        (!text.is_empty() && taken == text.len()).then_some(value)
    }
}

#[cfg(test)]
mod tests;
