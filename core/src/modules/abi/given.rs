//! What modules pass, as Rust types.
//!
//! [`abi_functions!`] makes an `extern "C"` function of one whose parameters are of these types. Behind each of them stands
//! what the ABI asks of the module: see [`super`].

use crate::modules::call_reply::CallReply;
use crate::modules::command::ModuleCommand;
use crate::modules::context::Context;
use crate::modules::key::ModuleKey;
use crate::modules::string::ModuleString;
use shardis_modules_api::abi::*;
use std::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_uint, c_ulonglong};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A parameter of a function of the ABI.
pub(super) trait Given {
    /// As C passes it.
    type Raw;

    /// # Safety
    /// The module has passed it, and keeps to the rules of the ABI: see [`super`].
    unsafe fn take(raw: Self::Raw) -> Self;
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl Given for $type {
            type Raw = $type;

            unsafe fn take(raw: $type) -> $type {
                raw
            }
        })*
    };
}

plain!(
    c_int,
    c_long,
    c_ulonglong,
    RedisModuleEvent,
    RedisModuleEventCallback,
    usize,
    f32,
    f64,
    RedisModuleCmdFunc,
    RedisModuleFreePrivDataFunc,
    RedisModuleDisconnectFunc,
    RedisModuleCommandFilterFunc,
    RedisModuleUserChangedFunc,
    RedisModuleDefragFunc,
    RedisModuleNotificationFunc,
    RedisModuleInfoFunc,
    RedisModuleScanCB,
    RedisModuleScanKeyCB,
    RedisModuleEventLoopFunc,
    RedisModuleEventLoopOneShotFunc,
    RedisModuleConfigGetStringFunc,
    RedisModuleConfigSetStringFunc,
    RedisModuleConfigGetNumericFunc,
    RedisModuleConfigSetNumericFunc,
    RedisModuleConfigGetBoolFunc,
    RedisModuleConfigSetBoolFunc,
    RedisModuleConfigApplyFunc,
    c_uint,
    ShardisZsetVisitor
);
const _: () = assert!(size_of::<c_long>() == size_of::<c_longlong>(), "one implementation stands for both");

impl<T> Given for *mut T {
    type Raw = *mut T;

    unsafe fn take(raw: *mut T) -> *mut T {
        raw
    }
}

impl<T> Given for *const T {
    type Raw = *const T;

    unsafe fn take(raw: *const T) -> *const T {
        raw
    }
}

/// Something of ours that a module has a pointer to, as the opaque type `C`.
pub(super) struct Ours<T, C>(NonNull<T>, PhantomData<*mut C>);

impl<T, C> Ours<T, C> {
    pub(super) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T, C> Given for Ours<T, C> {
    type Raw = *mut C;

    unsafe fn take(raw: *mut C) -> Ours<T, C> {
        Ours(NonNull::new(raw.cast()).expect("the ABI does not allow NULL here"), PhantomData)
    }
}

/// The same, which may be NULL.
impl<T, C> Given for Option<Ours<T, C>> {
    type Raw = *mut C;

    unsafe fn take(raw: *mut C) -> Option<Ours<T, C>> {
        NonNull::new(raw.cast()).map(|pointer| Ours(pointer, PhantomData))
    }
}

impl<T, C> Deref for Ours<T, C> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the module passes what it was given, alive.
        unsafe { self.0.as_ref() }
    }
}

impl<T, C> DerefMut for Ours<T, C> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; the module runs on one thread at a time with each of these.
        unsafe { self.0.as_mut() }
    }
}

/// A context.
pub(super) type Ctx = Ours<Context<'static>, RedisModuleCtx>;
/// A string.
pub(super) type Str = Ours<ModuleString, RedisModuleString>;
/// An open key.
pub(super) type Key = Ours<ModuleKey, RedisModuleKey>;
/// The reply of a command that the module has called.
pub(super) type Reply = Ours<CallReply, RedisModuleCallReply>;
/// A command.
pub(super) type Cmd = Ours<ModuleCommand, RedisModuleCommand>;

/// A string that is only read.
pub(super) struct ConstStr(NonNull<ModuleString>);

impl Given for ConstStr {
    type Raw = *const RedisModuleString;

    unsafe fn take(raw: *const RedisModuleString) -> ConstStr {
        ConstStr(NonNull::new(raw.cast_mut().cast()).expect("the ABI does not allow NULL here"))
    }
}

impl Deref for ConstStr {
    type Target = ModuleString;

    fn deref(&self) -> &ModuleString {
        // SAFETY: the module passes what it was given, alive.
        unsafe { self.0.as_ref() }
    }
}

/// A C string; empty if it is NULL.
#[derive(Clone, Copy)]
pub(super) struct Text(&'static CStr);

impl Given for Text {
    type Raw = *const c_char;

    unsafe fn take(raw: *const c_char) -> Self {
        if raw.is_null() {
            return Text(c"");
        }
        // SAFETY: the module passes a C string, which lasts for the call.
        Text(unsafe { CStr::from_ptr(raw) })
    }
}

impl Text {
    pub(super) fn as_c(&self) -> &CStr {
        self.0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.to_bytes()
    }

    pub(super) fn to_str(self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

/// Where the module wants something written; it may not want it.
pub(super) struct Out<T>(Option<NonNull<T>>);

impl<T> Given for Out<T> {
    type Raw = *mut T;

    unsafe fn take(raw: *mut T) -> Out<T> {
        Out(NonNull::new(raw))
    }
}

impl<T: Copy> Out<T> {
    pub(super) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn set(&self, value: T) {
        if let Some(place) = self.0 {
            // SAFETY: the module passes the place of such a value.
            unsafe { place.write(value) };
        }
    }

    /// What stands there now, for what is passed in and out.
    pub(super) fn get(&self) -> Option<T> {
        // SAFETY: as above; the module has initialized it, if the ABI asks for that.
        self.0.map(|place| unsafe { place.read() })
    }
}

/// Bytes at a place that the module names, with their length.
///
/// # Safety
/// There are so many bytes, which last for the call.
pub(super) unsafe fn bytes_at<'a>(start: *const c_char, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: as promised.
    unsafe { std::slice::from_raw_parts(start.cast(), len) }
}

/// Makes `extern "C"` functions of functions whose parameters are [`Given`].
macro_rules! abi_functions {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {
        $(
            $(#[$attribute])*
            pub(super) unsafe extern "C" fn $name(
                $($arg: <$type as $crate::modules::abi::given::Given>::Raw),*
            ) $(-> $result)? {
                $(
                    // SAFETY: a module has passed it.
                    #[allow(unused_mut, reason = "some are changed")]
                    let mut $arg = unsafe { <$type as $crate::modules::abi::given::Given>::take($arg) };
                )*
                $body
            }
        )*
    };
}
pub(super) use abi_functions;

/// The same for functions that use the server: a thread of a module, if it has the lock, has them run by its task. See
/// [`on_server`](crate::modules::threads::on_server).
macro_rules! server_functions {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {
        $crate::modules::abi::given::abi_functions! {
            $(
                $(#[$attribute])*
                fn $name($($arg: $type),*) $(-> $result)? {
                    $crate::modules::threads::on_server(move || { $body })
                }
            )*
        }
    };
}
pub(super) use server_functions;
