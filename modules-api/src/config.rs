//! Directives of a module: `CONFIG SET module.name value`, and `module.name value` in the configuration file.
//!
//! A directive is a static, which the module reads like any other.

use crate::abi::*;
use crate::api::api;
use crate::context::Context;
use crate::error::Error;
use crate::module::{Loader, c_string};
use crate::string::{ModuleStr, ModuleString};
use std::ffi::{CString, c_char, c_int, c_longlong, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What is special about a directive; to be combined with [`and`](Self::and).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigFlags(c_uint);

impl ConfigFlags {
    pub const NONE: ConfigFlags = ConfigFlags(REDISMODULE_CONFIG_DEFAULT);
    /// It can be set at the start only.
    pub const IMMUTABLE: ConfigFlags = ConfigFlags(REDISMODULE_CONFIG_IMMUTABLE);
    /// Its value is not shown in logs.
    pub const SENSITIVE: ConfigFlags = ConfigFlags(REDISMODULE_CONFIG_SENSITIVE);
    /// It is not shown by CONFIG GET with a pattern.
    pub const HIDDEN: ConfigFlags = ConfigFlags(REDISMODULE_CONFIG_HIDDEN);
    /// It is a number of bytes, and may be written as `1mb`.
    pub const MEMORY: ConfigFlags = ConfigFlags(REDISMODULE_CONFIG_MEMORY);
    /// It cannot be set while the server loads its data.
    pub const DENY_LOADING: ConfigFlags = ConfigFlags(REDISMODULE_CONFIG_DENY_LOADING);

    pub const fn and(self, other: ConfigFlags) -> ConfigFlags {
        ConfigFlags(self.0 | other.0)
    }
}

/// A directive that is an integer.
pub struct NumericConfig {
    name: &'static str,
    default: i64,
    min: i64,
    max: i64,
    flags: ConfigFlags,
    value: AtomicI64,
}

impl NumericConfig {
    pub const fn new(
        name: &'static str,
        default: i64,
        min: i64,
        max: i64,
        flags: ConfigFlags,
    ) -> NumericConfig {
        assert!(min <= default && default <= max);
        NumericConfig { name, default, min, max, flags, value: AtomicI64::new(default) }
    }

    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// A directive that is yes or no.
pub struct BoolConfig {
    name: &'static str,
    default: bool,
    flags: ConfigFlags,
    value: AtomicBool,
}

impl BoolConfig {
    pub const fn new(name: &'static str, default: bool, flags: ConfigFlags) -> BoolConfig {
        BoolConfig { name, default, flags, value: AtomicBool::new(default) }
    }

    pub fn get(&self) -> bool {
        self.value.load(Ordering::Relaxed)
    }
}

/// A directive that is one of some words, each of which stands for a number.
pub struct EnumConfig {
    name: &'static str,
    default: i32,
    words: &'static [(&'static str, i32)],
    flags: ConfigFlags,
    value: AtomicI64,
}

impl EnumConfig {
    pub const fn new(
        name: &'static str,
        default: i32,
        words: &'static [(&'static str, i32)],
        flags: ConfigFlags,
    ) -> EnumConfig {
        EnumConfig { name, default, words, flags, value: AtomicI64::new(default as i64) }
    }

    pub fn get(&self) -> i32 {
        self.value.load(Ordering::Relaxed) as i32
    }
}

/// A directive that is a text.
pub struct StringConfig {
    name: &'static str,
    default: &'static str,
    flags: ConfigFlags,
    values: Mutex<StringValues>,
}

/// The server looks at the string that it was last given, and does not say until when. So the one before is kept, too.
struct StringValues {
    now: Option<ModuleString>,
    _before: Option<ModuleString>,
}

// SAFETY: a string's references are counted by the server where it sets the directive, and by nobody else: what was given
// away is read and not kept. Elsewhere only the bytes are read.
unsafe impl Send for StringValues {}

impl StringConfig {
    pub const fn new(name: &'static str, default: &'static str, flags: ConfigFlags) -> StringConfig {
        let values = Mutex::new(StringValues { now: None, _before: None });
        StringConfig { name, default, flags, values }
    }

    /// A copy of it.
    pub fn get(&self) -> Vec<u8> {
        let values = self.values.lock().expect("nothing panics with the lock");
        values.now.as_ref().map_or_else(|| self.default.as_bytes().to_vec(), |now| now.as_bytes().to_vec())
    }
}

/// A directive of any type.
pub trait Config: Sync + 'static {
    /// Registers it with the server; a directive of a name that is taken is refused.
    #[doc(hidden)]
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error>;
    #[doc(hidden)]
    fn name(&self) -> &'static str;
}

impl Loader<'_> {
    /// Registers a directive. Its value is what the configuration says, once the module is loaded.
    /// Errors: the server refuses it.
    pub fn config(&mut self, config: &'static dyn Config) -> Result<(), Error> {
        match config.register(self.context())? {
            REDISMODULE_OK => {
                self.set_has_configs();
                Ok(())
            }
            _ => Err(Error::new(format!("ERR the directive '{}' is refused", config.name()))),
        }
    }
}

fn data_of<T>(config: &'static T) -> *mut c_void {
    std::ptr::from_ref(config).cast_mut().cast()
}

impl Config for NumericConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        unsafe extern "C" fn get(_name: *const c_char, config: *mut c_void) -> c_longlong {
            // SAFETY: it was registered with a static of this type.
            unsafe { (*config.cast::<NumericConfig>()).get() }
        }
        unsafe extern "C" fn set(
            _name: *const c_char,
            value: c_longlong,
            config: *mut c_void,
            _error: *mut *mut RedisModuleString,
        ) -> c_int {
            // SAFETY: as above.
            unsafe { (*config.cast::<NumericConfig>()).value.store(value, Ordering::Relaxed) };
            REDISMODULE_OK
        }
        let name = c_string(self.name)?;
        // SAFETY: the context is that of OnLoad, and the server copies the name.
        Ok(unsafe {
            api!(RegisterNumericConfig)(
                ctx.as_ptr(),
                name.as_ptr(),
                self.default,
                self.flags.0,
                self.min,
                self.max,
                Some(get),
                Some(set),
                None,
                data_of(self),
            )
        })
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

impl Config for BoolConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        unsafe extern "C" fn get(_name: *const c_char, config: *mut c_void) -> c_int {
            // SAFETY: it was registered with a static of this type.
            unsafe { c_int::from((*config.cast::<BoolConfig>()).get()) }
        }
        unsafe extern "C" fn set(
            _name: *const c_char,
            value: c_int,
            config: *mut c_void,
            _error: *mut *mut RedisModuleString,
        ) -> c_int {
            // SAFETY: as above.
            unsafe { (*config.cast::<BoolConfig>()).value.store(value != 0, Ordering::Relaxed) };
            REDISMODULE_OK
        }
        let (name, default) = (c_string(self.name)?, c_int::from(self.default));
        // SAFETY: the context is that of OnLoad, and the server copies the name.
        Ok(unsafe {
            let register = api!(RegisterBoolConfig);
            register(
                ctx.as_ptr(),
                name.as_ptr(),
                default,
                self.flags.0,
                Some(get),
                Some(set),
                None,
                data_of(self),
            )
        })
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

impl Config for EnumConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        unsafe extern "C" fn get(_name: *const c_char, config: *mut c_void) -> c_int {
            // SAFETY: it was registered with a static of this type.
            unsafe { (*config.cast::<EnumConfig>()).get() }
        }
        unsafe extern "C" fn set(
            _name: *const c_char,
            value: c_int,
            config: *mut c_void,
            _error: *mut *mut RedisModuleString,
        ) -> c_int {
            // SAFETY: as above.
            unsafe { (*config.cast::<EnumConfig>()).value.store(value.into(), Ordering::Relaxed) };
            REDISMODULE_OK
        }
        let name = c_string(self.name)?;
        let words: Vec<CString> =
            self.words.iter().map(|(word, _)| c_string(word)).collect::<Result<_, _>>()?;
        let mut words: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
        let numbers: Vec<c_int> = self.words.iter().map(|(_, number)| *number).collect();
        let count = c_int::try_from(numbers.len()).unwrap_or(0);
        // SAFETY: the context is that of OnLoad. The server copies the name and the arrays.
        Ok(unsafe {
            api!(RegisterEnumConfig)(
                ctx.as_ptr(),
                name.as_ptr(),
                self.default,
                self.flags.0,
                words.as_mut_ptr(),
                numbers.as_ptr(),
                count,
                Some(get),
                Some(set),
                None,
                data_of(self),
            )
        })
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

impl Config for StringConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        unsafe extern "C" fn get(_name: *const c_char, config: *mut c_void) -> *mut RedisModuleString {
            // SAFETY: it was registered with a static of this type.
            let config = unsafe { &*config.cast::<StringConfig>() };
            let mut values = config.values.lock().expect("nothing panics with the lock");
            let now = values.now.get_or_insert_with(|| ModuleString::new(config.default.as_bytes()));
            now.as_str().as_ptr()
        }
        unsafe extern "C" fn set(
            _name: *const c_char,
            value: *mut RedisModuleString,
            config: *mut c_void,
            _error: *mut *mut RedisModuleString,
        ) -> c_int {
            // SAFETY: it was registered with a static of this type, and the value lives until this returns.
            unsafe {
                let config = &*config.cast::<StringConfig>();
                let value = ModuleStr::from_raw(NonNull::new(value).expect("a value")).as_bytes();
                let mut values = config.values.lock().expect("nothing panics with the lock");
                let before = values.now.replace(ModuleString::new(value));
                values._before = before;
            }
            REDISMODULE_OK
        }
        let (name, default) = (c_string(self.name)?, c_string(self.default)?);
        // SAFETY: the context is that of OnLoad, and the server copies the texts.
        Ok(unsafe {
            let register = api!(RegisterStringConfig);
            let (name, default) = (name.as_ptr(), default.as_ptr());
            register(ctx.as_ptr(), name, default, self.flags.0, Some(get), Some(set), None, data_of(self))
        })
    }

    fn name(&self) -> &'static str {
        self.name
    }
}
