//! Directives of modules, which CONFIG GET and CONFIG SET know under the name `module.directive`. Their values are the
//! modules': callbacks read and set them.

use super::context::{Access, Context, in_turn_while_loaded, run_with};
use super::module::{Module, every};
use super::string::ModuleString;
use super::timers::Data;
use crate::config::{Config, SetError, Why, parse_memory};
use crate::protocol::inline::quote;
use crate::protocol::number::parse_i64;
use crate::runtime::log;
use crate::types::glob::glob_matches_nocase;
use crate::worker::Worker;
use shardis_modules_api::abi::*;
use std::ffi::{CString, c_int, c_longlong, c_uint};
use std::ptr::NonNull;

/// A directive of a module. It is never freed.
pub(super) struct Setting {
    module: &'static Module,
    /// Without the module's.
    name: CString,
    /// `module.name`
    full_name: String,
    /// `REDISMODULE_CONFIG_*`.
    flags: c_uint,
    kind: Kind,
    apply: RedisModuleConfigApplyFunc,
    data: Data,
}

// SAFETY: its functions may be called on any thread, and its data is only handed to them.
unsafe impl Sync for Setting {}

pub(super) enum Kind {
    Bool {
        default: bool,
        get: RedisModuleConfigGetBoolFunc,
        set: RedisModuleConfigSetBoolFunc,
    },
    Numeric {
        default: c_longlong,
        min: c_longlong,
        max: c_longlong,
        get: RedisModuleConfigGetNumericFunc,
        set: RedisModuleConfigSetNumericFunc,
    },
    Text {
        default: Option<Vec<u8>>,
        get: RedisModuleConfigGetStringFunc,
        set: RedisModuleConfigSetStringFunc,
    },
    Enum {
        default: c_int,
        /// In the order in which they were given.
        names: Vec<(String, c_int)>,
        get: RedisModuleConfigGetEnumFunc,
        set: RedisModuleConfigSetEnumFunc,
    },
}

/// A value, as it is handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Number(c_longlong),
    Text(Option<Vec<u8>>),
}

const KNOWN_FLAGS: c_uint = REDISMODULE_CONFIG_IMMUTABLE
    | REDISMODULE_CONFIG_SENSITIVE
    | REDISMODULE_CONFIG_HIDDEN
    | REDISMODULE_CONFIG_PROTECTED
    | REDISMODULE_CONFIG_DENY_LOADING
    | REDISMODULE_CONFIG_MEMORY
    | REDISMODULE_CONFIG_BITFLAGS;

/// Why a directive is not registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotRegistered {
    /// The module is not being loaded, or the name or the flags are wrong.
    Invalid,
    Exists,
}

/// Registers a directive of a module that is being loaded.
///
/// # Errors
/// It is not valid, or there is one of this name.
pub(super) fn register(
    module: &'static Module,
    name: &[u8],
    flags: c_uint,
    kind: Kind,
    apply: RedisModuleConfigApplyFunc,
    data: Data,
) -> Result<(), NotRegistered> {
    let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let bits_fit = flags & REDISMODULE_CONFIG_MEMORY == 0 || matches!(kind, Kind::Numeric { .. });
    let bits_fit =
        bits_fit && (flags & REDISMODULE_CONFIG_BITFLAGS == 0 || matches!(kind, Kind::Enum { .. }));
    let name_fits = !name.is_empty() && name.iter().all(is_valid);
    if !module.is_loading() || flags & !KNOWN_FLAGS != 0 || !bits_fit || !name_fits {
        return Err(NotRegistered::Invalid);
    }
    let name = CString::new(name).map_err(|_| NotRegistered::Invalid)?;
    let full_name = format!("{}.{}", module.name().to_string_lossy(), name.to_string_lossy());
    if module.settings().iter().any(|other| other.full_name.eq_ignore_ascii_case(&full_name)) {
        return Err(NotRegistered::Exists);
    }
    module.add_setting(Box::leak(Box::new(Setting { module, name, full_name, flags, kind, apply, data })));
    Ok(())
}

impl Setting {
    fn has(&self, flag: c_uint) -> bool {
        self.flags & flag != 0
    }

    fn default(&self) -> Value {
        match &self.kind {
            Kind::Bool { default, .. } => Value::Number(c_longlong::from(*default)),
            Kind::Numeric { default, .. } => Value::Number(*default),
            Kind::Text { default, .. } => Value::Text(default.clone()),
            Kind::Enum { default, .. } => Value::Number(c_longlong::from(*default)),
        }
    }

    /// Calls one of the module's functions, in its turn. `None`: the module is unloaded.
    fn call<T>(&self, callback: impl FnOnce() -> T) -> Option<T> {
        in_turn_while_loaded(self.module, "directive", callback)
    }

    fn get(&self) -> Value {
        let (name, data) = (self.name.as_ptr(), self.data.0);
        // SAFETY (of all four): the module has given the function to be called with this.
        let value = self.call(|| match &self.kind {
            // SAFETY: as above.
            Kind::Bool { get, .. } => Value::Number(get.map_or(0, |get| unsafe { get(name, data) }).into()),
            // SAFETY: as above.
            Kind::Numeric { get, .. } => Value::Number(get.map_or(0, |get| unsafe { get(name, data) })),
            // SAFETY: as above.
            Kind::Enum { get, .. } => Value::Number(get.map_or(0, |get| unsafe { get(name, data) }).into()),
            Kind::Text { get, .. } => {
                // SAFETY: as above. What it returns is the module's own string.
                let string = get.and_then(|get| NonNull::new(unsafe { get(name, data) }));
                // SAFETY: it is alive until the module sets another.
                Value::Text(
                    string.map(|string| unsafe { string.cast::<ModuleString>().as_ref() }.bytes().to_vec()),
                )
            }
        });
        value.unwrap_or_else(|| self.default())
    }

    /// # Errors
    /// The module refuses the value, in its own words.
    fn set(&self, value: &Value) -> Result<(), Why> {
        let (name, data) = (self.name.as_ptr(), self.data.0);
        let mut error = std::ptr::null_mut();
        let status = self.call(|| match (&self.kind, value) {
            (Kind::Bool { set: Some(set), .. }, Value::Number(number)) => {
                // SAFETY: the module has given the function to be called with this.
                unsafe { set(name, *number as c_int, data, &raw mut error) }
            }
            (Kind::Numeric { set: Some(set), .. }, Value::Number(number)) => {
                // SAFETY: as above.
                unsafe { set(name, *number, data, &raw mut error) }
            }
            (Kind::Enum { set: Some(set), .. }, Value::Number(number)) => {
                // SAFETY: as above.
                unsafe { set(name, *number as c_int, data, &raw mut error) }
            }
            (Kind::Text { set: Some(set), .. }, Value::Text(text)) => {
                let string = text.as_ref().map(|text| ModuleString::new(text));
                let given = string.map_or(std::ptr::null_mut(), ModuleString::as_abi);
                // SAFETY: as above. The module retains the string if it keeps it.
                let status = unsafe { set(name, given, data, &raw mut error) };
                if let Some(string) = string {
                    // SAFETY: it was made above.
                    unsafe { ModuleString::release(string) };
                }
                status
            }
            _ => REDISMODULE_OK,
        });
        outcome(status.unwrap_or(REDISMODULE_ERR), error)
    }

    /// Has the module do what follows from the new value.
    ///
    /// # Errors
    /// It refuses, in its own words.
    fn apply(&self, access: Access<'_>) -> Result<(), Why> {
        let Some(apply) = self.apply else { return Ok(()) };
        let mut error = std::ptr::null_mut();
        let mut ctx = Context::new(self.module, access);
        // SAFETY: the module has given the function to be called with this.
        let status = run_with(&mut ctx, "apply of a directive", |ctx| unsafe {
            apply(ctx, self.data.0, &raw mut error)
        });
        ctx.finish();
        outcome(status.unwrap_or(REDISMODULE_ERR), error)
    }

    /// Reads a value as it is typed.
    ///
    /// # Errors
    /// Redis' for each kind.
    fn parse(&self, text: &[u8]) -> Result<Value, Why> {
        match &self.kind {
            Kind::Bool { .. } => match text.to_ascii_lowercase().as_slice() {
                b"yes" => Ok(Value::Number(1)),
                b"no" => Ok(Value::Number(0)),
                _ => Err("argument must be 'yes' or 'no'".into()),
            },
            Kind::Numeric { min, max, .. } => {
                let number = if self.has(REDISMODULE_CONFIG_MEMORY) {
                    let number = parse_memory(text).and_then(|bytes| c_longlong::try_from(bytes).ok());
                    number.ok_or(Why::from("argument must be a memory value"))?
                } else {
                    parse_i64(text).ok_or(Why::from("argument couldn't be parsed into an integer"))?
                };
                if !(*min..=*max).contains(&number) {
                    return Err(format!("argument must be between {min} and {max} inclusive").into());
                }
                Ok(Value::Number(number))
            }
            Kind::Text { .. } => Ok(Value::Text(Some(text.to_vec()))),
            Kind::Enum { names, .. } => self.parse_names(text, names),
        }
    }

    fn parse_names(&self, text: &[u8], names: &[(String, c_int)]) -> Result<Value, Why> {
        let is_bits = self.has(REDISMODULE_CONFIG_BITFLAGS);
        let value_of = |word: &[u8]| {
            let found = names.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word));
            found.map(|(_, value)| *value)
        };
        let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let value = match is_bits {
            true => words.map(value_of).try_fold(0, |all, value| Some(all | value?)),
            false => value_of(text),
        };
        value.map(|value| Value::Number(value.into())).ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
            let argument = if is_bits { "argument(s)" } else { "argument" };
            format!("{argument} must be one of the following: {}", known.join(", ")).into()
        })
    }

    /// A value as it is shown.
    fn text(&self, value: &Value) -> Vec<u8> {
        match (&self.kind, value) {
            (Kind::Bool { .. }, Value::Number(number)) => if *number == 0 { "no" } else { "yes" }.into(),
            (Kind::Enum { names, .. }, Value::Number(number)) => {
                self.names_of(*number as c_int, names).into_bytes()
            }
            (_, Value::Number(number)) => number.to_string().into_bytes(),
            (_, Value::Text(text)) => text.clone().unwrap_or_default(),
        }
    }

    /// The name of a value; of several bits, those that make it up, in their order.
    fn names_of(&self, value: c_int, names: &[(String, c_int)]) -> String {
        if let Some((name, _)) = names.iter().find(|(_, known)| *known == value) {
            return name.clone();
        }
        if !self.has(REDISMODULE_CONFIG_BITFLAGS) {
            return "unknown".to_string();
        }
        let mut left = value;
        let mut found = Vec::new();
        for (name, bits) in names.iter().filter(|(_, bits)| *bits != 0) {
            if left & bits == *bits {
                left &= !bits;
                found.push(name.as_str());
            }
        }
        found.join(" ")
    }
}

/// What a callback says: an error is a string of the caller's.
fn outcome(status: c_int, error: *mut RedisModuleString) -> Result<(), Why> {
    let text = NonNull::new(error.cast::<ModuleString>()).map(|error| {
        // SAFETY: the module has made the string for the caller.
        let text = String::from_utf8_lossy(unsafe { error.as_ref() }.bytes()).into_owned();
        // SAFETY: as above.
        unsafe { ModuleString::release(error.as_ptr()) };
        text
    });
    if status == REDISMODULE_OK { Ok(()) } else { Err(text.unwrap_or_default().into()) }
}

fn find(name: &[u8]) -> Option<&'static Setting> {
    every()
        .into_iter()
        .flat_map(Module::settings)
        .find(|setting| setting.full_name.as_bytes().eq_ignore_ascii_case(name))
}

/// Gives the directives of a module the values that were set for it, or their defaults: `LoadConfigs`.
pub(super) fn load(ctx: &Context<'_>) -> bool {
    let module = ctx.module;
    let mut given = module.given_settings();
    if let Access::Starting { config, .. } = ctx.access() {
        given.extend(config.module_settings.iter().cloned());
    }
    module.load_settings();
    module.settings().into_iter().all(|setting| {
        let is_it = |(name, _): &&(Vec<u8>, Vec<u8>)| name.eq_ignore_ascii_case(setting.full_name.as_bytes());
        let text = given.iter().rev().find(is_it).map(|(_, text)| text);
        let value = text.map_or_else(|| Ok(setting.default()), |text| setting.parse(text));
        let outcome = value.and_then(|value| setting.set(&value));
        if let Err(why) = &outcome {
            let why = String::from_utf8_lossy(why.as_bytes()).into_owned();
            log::warning(format_args!("Issue during loading of configuration {} : {why}", setting.full_name));
        }
        outcome.is_ok()
    })
}

/// Why a module whose `OnLoad` has succeeded is not loaded all the same.
pub(super) fn trouble(module: &Module) -> Option<&'static str> {
    let settings = module.settings();
    if !settings.is_empty() && !module.has_loaded_settings() {
        return Some(
            "Module Configurations were not set, likely a missing LoadConfigs call. Unloading the module.",
        );
    }
    let is_known = |(name, _): &(Vec<u8>, Vec<u8>)| {
        settings.iter().any(|setting| setting.full_name.as_bytes().eq_ignore_ascii_case(name))
    };
    let all_known = module.given_settings().iter().all(is_known);
    (!all_known).then_some("Module Configurations were not found, likely a wrong name. Unloading the module.")
}

/// Whether the configuration names directives of modules that are not loaded.
pub(super) fn has_unknown(config: &Config) -> bool {
    config.module_settings.iter().any(|(name, _)| find(name).is_none())
}

/// CONFIG GET: the directives of modules that match any of the patterns.
pub fn get_matching(patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let settings = every().into_iter().flat_map(Module::settings);
    let matches = |setting: &&Setting| {
        let name = setting.full_name.as_bytes();
        patterns.iter().any(|pattern| {
            let is_glob = pattern.iter().any(|byte| b"*?[".contains(byte));
            let is_shown = !(is_glob && setting.has(REDISMODULE_CONFIG_HIDDEN));
            is_shown && glob_matches_nocase(pattern, name)
        })
    };
    settings
        .filter(|setting| matches(&setting))
        .map(|setting| (setting.full_name.clone().into_bytes(), setting.text(&setting.get())))
        .collect()
}

/// Whether a module has a directive of this name.
pub fn is_known(name: &[u8]) -> bool {
    name.contains(&b'.') && find(name).is_some()
}

/// Directives of modules that are being changed: dropped without [`Changing::keep`], they have their former values again.
pub struct Changing {
    former: Vec<(&'static Setting, Value)>,
}

/// CONFIG SET of directives of modules.
///
/// # Errors
/// Redis', for each rule that is broken; the modules' own. Nothing has changed then.
pub fn change(pairs: &[(&[u8], &[u8])], may_set_protected: bool) -> Result<Changing, SetError> {
    let failed = |name: &[u8], why: Why| SetError::Failed { name: name.to_vec(), why };
    let mut values = Vec::new();
    for (at, (name, text)) in pairs.iter().enumerate() {
        let setting = find(name).ok_or(SetError::Unknown { name: name.to_vec() })?;
        if setting.has(REDISMODULE_CONFIG_IMMUTABLE) {
            return Err(failed(name, "can't set immutable config".into()));
        }
        if setting.has(REDISMODULE_CONFIG_PROTECTED) && !may_set_protected {
            return Err(failed(name, "can't set protected config".into()));
        }
        if pairs[..at].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(failed(name, "duplicate parameter".into()));
        }
        values.push((*name, setting, setting.parse(text).map_err(|why| failed(name, why))?));
    }
    let mut changing = Changing { former: Vec::new() };
    for (name, setting, value) in values {
        let former = setting.get();
        if former != value {
            changing.former.push((setting, former));
            setting.set(&value).map_err(|why| failed(name, why))?;
        }
    }
    Ok(changing)
}

impl Changing {
    /// Has the modules do what follows, and keeps the new values.
    ///
    /// # Errors
    /// A module's own. The former values are there again then.
    pub fn keep(mut self, worker: &mut Worker) -> Result<(), SetError> {
        for at in 0..self.former.len() {
            let setting = self.former[at].0;
            let access = Access::Worker(NonNull::from(&mut *worker));
            let failed = |why| SetError::Failed { name: setting.full_name.clone().into_bytes(), why };
            setting.apply(access).map_err(failed)?;
        }
        self.former.clear();
        Ok(())
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        for (setting, former) in self.former.drain(..).rev() {
            // It was the module's own value.
            let _ = setting.set(&former);
        }
    }
}

/// What the configuration file says of the modules that are loaded: the lines `loadmodule`, and the directives that are not
/// at their default.
pub fn lines() -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for module in super::loaded() {
        let mut line = [&b"loadmodule "[..], &module.path].concat();
        for arg in &module.args {
            line.push(b' ');
            line.extend(quote(arg));
        }
        lines.push(line);
        for setting in module.settings() {
            let value = setting.get();
            if value != setting.default() {
                lines.push([setting.full_name.as_bytes(), b" ", &quote(&setting.text(&value))].concat());
            }
        }
    }
    lines
}
