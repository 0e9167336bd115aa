//! Directives of a module: `CONFIG SET module.name value`, and `module.name value` in the configuration file.
//!
//! A directive is a static, which the module reads like any other.
//!
//! ```
//! use shardis_modules_api::*;
//!
//! static LIMIT: NumericConfig = NumericConfig::new("limit", 10, 0, 100, ConfigFlags::NONE)
//!     .checked(|limit| if limit % 2 == 0 { Ok(()) } else { Err(Error::new("ERR the limit is to be even")) })
//!     .applied(|ctx| ctx.log(LogLevel::Notice, "there is a new limit"));
//!
//! fn load(loader: &mut Loader<'_>) -> Result<(), Error> {
//!     loader.config(&LIMIT)
//! }
//!
//! assert_eq!(LIMIT.get(), 10);
//! ```

use crate::abi::*;
use crate::api::api;
use crate::context::Context;
use crate::current;
use crate::error::Error;
use crate::module::{Loader, c_string};
use crate::string::{ModuleStr, ModuleString};
use std::ffi::{CString, c_char, c_int, c_longlong, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// What directives of all types have.
pub struct Directive {
    name: &'static str,
    flags: ConfigFlags,
    applied: Option<fn(&mut Context<'_>)>,
}

impl Directive {
    const fn new(name: &'static str, flags: ConfigFlags) -> Directive {
        Directive { name, flags, applied: None }
    }
}

/// Refuses a value before it is set; Redis shows the text behind its own words.
type Check<V> = Option<fn(V) -> Result<(), Error>>;
type BytesCheck = Option<fn(&[u8]) -> Result<(), Error>>;

/// Defines what can be said of a directive besides its type.
macro_rules! options {
    ($config:ty, $value:ty) => {
        impl $config {
            /// Has a function look at each new value: its error refuses the value, and says why.
            pub const fn checked(mut self, check: fn($value) -> Result<(), Error>) -> Self {
                self.check = Some(check);
                self
            }

            /// Has a function called when the directive was set, after all others of the same CONFIG SET.
            pub const fn applied(mut self, applied: fn(&mut Context<'_>)) -> Self {
                self.directive.applied = Some(applied);
                self
            }
        }
    };
}

options!(NumericConfig, i64);
options!(BoolConfig, bool);
options!(EnumConfig, i32);
options!(StringConfig, &[u8]);

/// A directive that is an integer.
pub struct NumericConfig {
    directive: Directive,
    default: i64,
    min: i64,
    max: i64,
    check: Check<i64>,
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
        let directive = Directive::new(name, flags);
        NumericConfig { directive, default, min, max, check: None, value: AtomicI64::new(default) }
    }

    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// A directive that is yes or no.
pub struct BoolConfig {
    directive: Directive,
    default: bool,
    check: Check<bool>,
    value: AtomicI64,
}

impl BoolConfig {
    pub const fn new(name: &'static str, default: bool, flags: ConfigFlags) -> BoolConfig {
        let directive = Directive::new(name, flags);
        BoolConfig { directive, default, check: None, value: AtomicI64::new(default as i64) }
    }

    pub fn get(&self) -> bool {
        self.value.load(Ordering::Relaxed) != 0
    }
}

/// A directive that is one of some words, each of which stands for a number.
pub struct EnumConfig {
    directive: Directive,
    default: i32,
    words: &'static [(&'static str, i32)],
    check: Check<i32>,
    value: AtomicI64,
}

impl EnumConfig {
    pub const fn new(
        name: &'static str,
        default: i32,
        words: &'static [(&'static str, i32)],
        flags: ConfigFlags,
    ) -> EnumConfig {
        let directive = Directive::new(name, flags);
        EnumConfig { directive, default, words, check: None, value: AtomicI64::new(default as i64) }
    }

    pub fn get(&self) -> i32 {
        self.value.load(Ordering::Relaxed) as i32
    }
}

/// A directive that is a text.
pub struct StringConfig {
    directive: Directive,
    default: &'static str,
    check: BytesCheck,
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
        StringConfig { directive: Directive::new(name, flags), default, check: None, values }
    }

    /// A copy of it.
    pub fn get(&self) -> Vec<u8> {
        let values = self.values.lock().expect("nothing panics with the lock");
        values.now.as_ref().map_or_else(|| self.default.as_bytes().to_vec(), |now| now.as_bytes().to_vec())
    }
}

/// A directive of any type. Modules use those of this crate.
pub trait Config: Sealed + Sync + 'static {
    /// Registers it with the server; a directive of a name that is taken is refused.
    #[doc(hidden)]
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error>;
}

/// What directives share, which only those of this crate have: it is not exported.
pub trait Sealed {
    fn directive(&self) -> &Directive;
}

impl Loader<'_> {
    /// Registers a directive. Its value is what the configuration says, once the module is loaded.
    /// Errors: the server refuses it.
    pub fn config<C: Config>(&mut self, config: &'static C) -> Result<(), Error> {
        match config.register(self.context())? {
            REDISMODULE_OK => {
                self.set_has_configs();
                Ok(())
            }
            _ => Err(Error::new(format!("ERR the directive '{}' is refused", config.directive().name))),
        }
    }
}

/// A directive whose value is kept as a number.
trait Scalar: Config {
    fn value(&self) -> &AtomicI64;
    /// Errors: the directive is not to have this value.
    fn check(&self, value: i64) -> Result<(), Error>;
}

/// Defines how a directive is kept as a number, and how a number is one of its values.
macro_rules! scalar {
    ($config:ty, $of_number:expr) => {
        impl Scalar for $config {
            fn value(&self) -> &AtomicI64 {
                &self.value
            }

            fn check(&self, value: i64) -> Result<(), Error> {
                self.check.map_or(Ok(()), |check| check($of_number(value)))
            }
        }
    };
}

scalar!(NumericConfig, |value: i64| value);
scalar!(BoolConfig, |value: i64| value != 0);
scalar!(EnumConfig, |value: i64| value as i32);

macro_rules! sealed {
    ($($config:ty),*) => {$(
        impl Sealed for $config {
            fn directive(&self) -> &Directive {
                &self.directive
            }
        }
    )*};
}

sealed!(NumericConfig, BoolConfig, EnumConfig, StringConfig);

fn data_of<C>(config: &'static C) -> *mut c_void {
    std::ptr::from_ref(config).cast_mut().cast()
}

/// The directive behind the data of a callback.
///
/// # Safety
/// `data` is that of a directive of this type.
unsafe fn config_of<C: Config>(data: *mut c_void) -> &'static C {
    // SAFETY: as promised; directives are statics.
    unsafe { &*data.cast::<C>() }
}

/// Tells the server why a value is refused. It puts its own words and code in front.
///
/// # Safety
/// `place` has room for a string, which the server frees.
unsafe fn refuse(place: *mut *mut RedisModuleString, error: &Error) -> c_int {
    let text = error.to_string();
    let text = text.strip_prefix("ERR ").unwrap_or(&text);
    // SAFETY: as promised. Without a context, the string is the server's to free.
    unsafe {
        *place = api!(CreateString)(std::ptr::null_mut(), text.as_ptr().cast::<c_char>(), text.len());
    }
    REDISMODULE_ERR
}

/// Sets a directive, unless its check is against it.
///
/// # Safety
/// As for `config_of` and `refuse`.
unsafe fn set_scalar<C: Scalar>(value: i64, data: *mut c_void, error: *mut *mut RedisModuleString) -> c_int {
    // SAFETY: as promised.
    let config = unsafe { config_of::<C>(data) };
    let _callback = current::Callback::enter_for(config.directive().name, "check of a directive");
    match config.check(value) {
        Ok(()) => {
            config.value().store(value, Ordering::Relaxed);
            REDISMODULE_OK
        }
        // SAFETY: as promised.
        Err(refused) => unsafe { refuse(error, &refused) },
    }
}

// What the server calls for a directive of the type `C`, with the data that it was registered with.

unsafe extern "C" fn get_long<C: Scalar>(_name: *const c_char, data: *mut c_void) -> c_longlong {
    // SAFETY: it was registered with a static of this type.
    unsafe { config_of::<C>(data) }.value().load(Ordering::Relaxed)
}

unsafe extern "C" fn get_int<C: Scalar>(_name: *const c_char, data: *mut c_void) -> c_int {
    // SAFETY: it was registered with a static of this type.
    unsafe { config_of::<C>(data) }.value().load(Ordering::Relaxed) as c_int
}

unsafe extern "C" fn set_long<C: Scalar>(
    _name: *const c_char,
    value: c_longlong,
    data: *mut c_void,
    error: *mut *mut RedisModuleString,
) -> c_int {
    // SAFETY: it was registered with a static of this type, and there is room for an error.
    unsafe { set_scalar::<C>(value, data, error) }
}

unsafe extern "C" fn set_int<C: Scalar>(
    _name: *const c_char,
    value: c_int,
    data: *mut c_void,
    error: *mut *mut RedisModuleString,
) -> c_int {
    // SAFETY: it was registered with a static of this type, and there is room for an error.
    unsafe { set_scalar::<C>(value.into(), data, error) }
}

unsafe extern "C" fn apply<C: Config>(
    ctx: *mut RedisModuleCtx,
    data: *mut c_void,
    _error: *mut *mut RedisModuleString,
) -> c_int {
    // SAFETY: it was registered with a static of this type.
    let directive = unsafe { config_of::<C>(data) }.directive();
    let _callback = current::Callback::enter_for(directive.name, "application of a directive");
    if let (Some(applied), Some(ctx)) = (directive.applied, NonNull::new(ctx)) {
        // SAFETY: the context lives until this returns.
        applied(&mut unsafe { Context::of_callback(ctx) });
    }
    REDISMODULE_OK
}

/// The function that is called when a directive of this type was set, if anything is to be done then.
fn apply_of<C: Config>(config: &C) -> RedisModuleConfigApplyFunc {
    match config.directive().applied {
        Some(_) => Some(apply::<C>),
        None => None,
    }
}

unsafe extern "C" fn get_string(_name: *const c_char, data: *mut c_void) -> *mut RedisModuleString {
    // SAFETY: it was registered with a static of this type.
    let config = unsafe { config_of::<StringConfig>(data) };
    let mut values = config.values.lock().expect("nothing panics with the lock");
    let now = values.now.get_or_insert_with(|| ModuleString::new(config.default.as_bytes()));
    now.as_str().as_ptr()
}

unsafe extern "C" fn set_string(
    _name: *const c_char,
    value: *mut RedisModuleString,
    data: *mut c_void,
    error: *mut *mut RedisModuleString,
) -> c_int {
    // SAFETY: it was registered with a static of this type, and the value lives until this returns.
    let (config, value) = unsafe {
        let value = ModuleStr::from_raw(NonNull::new(value).expect("a directive has a value"));
        (config_of::<StringConfig>(data), value.as_bytes())
    };
    let _callback = current::Callback::enter_for(config.directive.name, "check of a directive");
    if let Some(Err(refused)) = config.check.map(|check| check(value)) {
        // SAFETY: there is room for an error.
        return unsafe { refuse(error, &refused) };
    }
    let mut values = config.values.lock().expect("nothing panics with the lock");
    let before = values.now.replace(ModuleString::new(value));
    values._before = before;
    REDISMODULE_OK
}

impl Config for NumericConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        let name = c_string(self.directive.name)?;
        // SAFETY: the context is that of OnLoad, the server copies the name, and the functions take such data.
        Ok(unsafe {
            api!(RegisterNumericConfig)(
                ctx.as_ptr(),
                name.as_ptr(),
                self.default,
                self.directive.flags.0,
                self.min,
                self.max,
                Some(get_long::<Self>),
                Some(set_long::<Self>),
                apply_of(self),
                data_of(self),
            )
        })
    }
}

impl Config for BoolConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        let name = c_string(self.directive.name)?;
        // SAFETY: the context is that of OnLoad, the server copies the name, and the functions take such data.
        Ok(unsafe {
            api!(RegisterBoolConfig)(
                ctx.as_ptr(),
                name.as_ptr(),
                c_int::from(self.default),
                self.directive.flags.0,
                Some(get_int::<Self>),
                Some(set_int::<Self>),
                apply_of(self),
                data_of(self),
            )
        })
    }
}

impl Config for EnumConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        let name = c_string(self.directive.name)?;
        let words: Vec<CString> =
            self.words.iter().map(|(word, _)| c_string(word)).collect::<Result<_, _>>()?;
        let mut words: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
        let numbers: Vec<c_int> = self.words.iter().map(|(_, number)| *number).collect();
        let count = c_int::try_from(numbers.len()).unwrap_or(0);
        // SAFETY: the context is that of OnLoad, the server copies name and arrays, and the functions take such data.
        Ok(unsafe {
            api!(RegisterEnumConfig)(
                ctx.as_ptr(),
                name.as_ptr(),
                self.default,
                self.directive.flags.0,
                words.as_mut_ptr(),
                numbers.as_ptr(),
                count,
                Some(get_int::<Self>),
                Some(set_int::<Self>),
                apply_of(self),
                data_of(self),
            )
        })
    }
}

impl Config for StringConfig {
    fn register(&'static self, ctx: &Context<'_>) -> Result<c_int, Error> {
        let (name, default) = (c_string(self.directive.name)?, c_string(self.default)?);
        // SAFETY: the context is that of OnLoad, the server copies the texts, and the functions take such data.
        Ok(unsafe {
            api!(RegisterStringConfig)(
                ctx.as_ptr(),
                name.as_ptr(),
                default.as_ptr(),
                self.directive.flags.0,
                Some(get_string),
                Some(set_string),
                apply_of(self),
                data_of(self),
            )
        })
    }
}
