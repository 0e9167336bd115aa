//! The configuration of a fake server: directives of its module, and of the server itself.

use super::{FakeHost, State, state, strings, text};
use crate::abi::*;
use crate::events::Event;
use crate::served;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_longlong, c_uint, c_void};

#[derive(Default)]
pub(super) struct Directives {
    pub(super) module: &'static str,
    /// Those of the module, by their whole names.
    own: BTreeMap<String, Directive>,
    /// Those of the server that a test has set.
    of_server: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Directive {
    kind: Kind,
    apply: RedisModuleConfigApplyFunc,
    data: *mut c_void,
}

/// The type of a directive, with its default value.
#[derive(Clone)]
enum Kind {
    Number {
        default: i64,
        min: i64,
        max: i64,
        get: RedisModuleConfigGetNumericFunc,
        set: RedisModuleConfigSetNumericFunc,
    },
    Bool {
        default: c_int,
        get: RedisModuleConfigGetBoolFunc,
        set: RedisModuleConfigSetBoolFunc,
    },
    Word {
        default: c_int,
        words: Vec<(String, c_int)>,
        get: RedisModuleConfigGetEnumFunc,
        set: RedisModuleConfigSetEnumFunc,
    },
    Text {
        default: String,
        get: RedisModuleConfigGetStringFunc,
        set: RedisModuleConfigSetStringFunc,
    },
}

impl FakeHost {
    /// CONFIG SET of a directive, of the module (`module.name`) or of the server. The module is told as by a server.
    /// Errors: why the module refuses the value.
    pub fn set_directive(&mut self, name: &str, value: &str) -> Result<(), String> {
        let own = self.locked(|state| state.directives.own.get(name).cloned());
        match own {
            Some(directive) => {
                let (result, _) = self.in_context::<&[u8], _>(&[], |ctx| {
                    directive.set(name, value)?;
                    directive.apply(ctx)
                });
                result?;
            }
            None => self.locked(|state| {
                state.directives.of_server.insert(name.to_string(), value.to_string());
            }),
        }
        let name = CString::new(name).expect("a name has no zero in it");
        self.fire(&Event::Config { names: vec![&name] });
        Ok(())
    }

    /// CONFIG GET of a directive of the module, or of one that the test has set.
    pub fn directive(&self, name: &str) -> Option<String> {
        self.in_context::<&[u8], _>(&[], |ctx| {
            // SAFETY: the context is one.
            unsafe { value(ctx, name) }
        })
        .0
    }
}

/// The value of a directive.
///
/// # Safety
/// `ctx` is a context, and the lock is held.
pub(super) unsafe fn value(ctx: *mut RedisModuleCtx, name: &str) -> Option<String> {
    // SAFETY: as promised.
    let state = unsafe { state(ctx) };
    match state.directives.own.get(name).cloned() {
        Some(directive) => Some(directive.get(name)),
        None => state.directives.of_server.get(name).cloned(),
    }
}

impl Directive {
    fn get(&self, name: &str) -> String {
        let name = CString::new(name).expect("a name has no zero in it");
        const HAS_GET: &str = "a directive has a function that gets it";
        // SAFETY: the functions are called with the data of the directive.
        unsafe {
            let (name, data) = (name.as_ptr(), self.data);
            match &self.kind {
                Kind::Number { get, .. } => get.expect(HAS_GET)(name, data).to_string(),
                Kind::Bool { get, .. } => {
                    if get.expect(HAS_GET)(name, data) != 0 { "yes" } else { "no" }.to_string()
                }
                Kind::Word { words, get, .. } => {
                    let number = get.expect(HAS_GET)(name, data);
                    let word = words.iter().find(|(_, of_word)| *of_word == number);
                    word.map_or_else(String::new, |(word, _)| word.clone())
                }
                Kind::Text { get, .. } => {
                    String::from_utf8_lossy(strings::bytes(get.expect(HAS_GET)(name, data))).into_owned()
                }
            }
        }
    }

    /// Sets the directive. Errors: the value is none of its type, or the module refuses it.
    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let name = CString::new(name).expect("a name has no zero in it");
        let mut error = std::ptr::null_mut();
        const HAS_SET: &str = "a directive has a function that sets it";
        // SAFETY: the functions are called with the data of the directive, and there is room for an error.
        let result = unsafe {
            let (name, data, error) = (name.as_ptr(), self.data, &raw mut error);
            match &self.kind {
                Kind::Number { min, max, set, .. } => {
                    let number = value.parse().ok().filter(|number| (*min..=*max).contains(number));
                    let number = number
                        .ok_or_else(|| format!("argument must be between {min} and {max} inclusive"))?;
                    set.expect(HAS_SET)(name, number, data, error)
                }
                Kind::Bool { set, .. } => match value {
                    "yes" => set.expect(HAS_SET)(name, 1, data, error),
                    "no" => set.expect(HAS_SET)(name, 0, data, error),
                    _ => return Err("argument must be 'yes' or 'no'".to_string()),
                },
                Kind::Word { words, set, .. } => match words.iter().find(|(word, _)| word == value) {
                    Some((_, number)) => set.expect(HAS_SET)(name, *number, data, error),
                    None => return Err("argument(s) must be one of the directive's words".to_string()),
                },
                Kind::Text { set, .. } => {
                    let value = strings::make(value.as_bytes());
                    let result = set.expect(HAS_SET)(name, value, data, error);
                    strings::free(value);
                    result
                }
            }
        };
        // SAFETY: an error is a string that the module gave away.
        if result == REDISMODULE_OK { Ok(()) } else { Err(unsafe { taken(error) }) }
    }

    /// Tells the module that the directive was set.
    fn apply(&self, ctx: *mut RedisModuleCtx) -> Result<(), String> {
        let Some(apply) = self.apply else { return Ok(()) };
        let mut error = std::ptr::null_mut();
        // SAFETY: the context is one, the data is that of the directive, and an error is a string that the module gave away.
        unsafe {
            match apply(ctx, self.data, &raw mut error) {
                REDISMODULE_OK => Ok(()),
                _ => Err(taken(error)),
            }
        }
    }

    fn set_default(&self, name: &str) -> Result<(), String> {
        let default = match &self.kind {
            Kind::Number { default, .. } => default.to_string(),
            Kind::Bool { default, .. } => if *default != 0 { "yes" } else { "no" }.to_string(),
            Kind::Word { default, words, .. } => {
                let word = words.iter().find(|(_, number)| number == default);
                word.map_or_else(String::new, |(word, _)| word.clone())
            }
            Kind::Text { default, .. } => default.clone(),
        };
        self.set(name, &default)
    }
}

/// The text of a string, which is freed.
///
/// # Safety
/// `string` is NULL, or a string of this server that the caller has a reference to.
unsafe fn taken(string: *mut RedisModuleString) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as promised.
    unsafe {
        let text = String::from_utf8_lossy(strings::bytes(string)).into_owned();
        strings::free(string);
        text
    }
}

impl State {
    fn register(
        &mut self,
        name: String,
        kind: Kind,
        apply: RedisModuleConfigApplyFunc,
        data: *mut c_void,
    ) -> c_int {
        let name = format!("{}.{name}", self.directives.module);
        if self.directives.own.contains_key(&name) {
            return REDISMODULE_ERR;
        }
        self.directives.own.insert(name, Directive { kind, apply, data });
        REDISMODULE_OK
    }
}

// The functions of the server, called with the context of the call under way and with strings of C.

unsafe extern "C" fn register_number(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    default: c_longlong,
    _flags: c_uint,
    min: c_longlong,
    max: c_longlong,
    get: RedisModuleConfigGetNumericFunc,
    set: RedisModuleConfigSetNumericFunc,
    apply: RedisModuleConfigApplyFunc,
    data: *mut c_void,
) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx).register(text(name), Kind::Number { default, min, max, get, set }, apply, data) }
}

unsafe extern "C" fn register_bool(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    default: c_int,
    _flags: c_uint,
    get: RedisModuleConfigGetBoolFunc,
    set: RedisModuleConfigSetBoolFunc,
    apply: RedisModuleConfigApplyFunc,
    data: *mut c_void,
) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx).register(text(name), Kind::Bool { default, get, set }, apply, data) }
}

unsafe extern "C" fn register_word(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    default: c_int,
    _flags: c_uint,
    words: *mut *const c_char,
    numbers: *const c_int,
    count: c_int,
    get: RedisModuleConfigGetEnumFunc,
    set: RedisModuleConfigSetEnumFunc,
    apply: RedisModuleConfigApplyFunc,
    data: *mut c_void,
) -> c_int {
    let count = usize::try_from(count).expect("a number of words");
    // SAFETY: see above; the arrays have so many elements.
    unsafe {
        let words = (0..count).map(|at| (text(*words.add(at)), *numbers.add(at))).collect();
        state(ctx).register(text(name), Kind::Word { default, words, get, set }, apply, data)
    }
}

unsafe extern "C" fn register_text(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    default: *const c_char,
    _flags: c_uint,
    get: RedisModuleConfigGetStringFunc,
    set: RedisModuleConfigSetStringFunc,
    apply: RedisModuleConfigApplyFunc,
    data: *mut c_void,
) -> c_int {
    // SAFETY: see above.
    unsafe { state(ctx).register(text(name), Kind::Text { default: text(default), get, set }, apply, data) }
}

/// There is no file with a configuration: directives get their default values.
unsafe extern "C" fn load_configs(ctx: *mut RedisModuleCtx) -> c_int {
    // SAFETY: see above.
    let own = unsafe { state(ctx) }.directives.own.clone();
    for (name, directive) in &own {
        if let Err(error) = directive.set_default(name) {
            // SAFETY: see above.
            unsafe { state(ctx) }.done.log.push(format!("{name}: {error}"));
            return REDISMODULE_ERR;
        }
    }
    REDISMODULE_OK
}

pub(super) static SERVED: &[Served] = served! {
    RegisterNumericConfig = register_number,
    RegisterBoolConfig = register_bool,
    RegisterEnumConfig = register_word,
    RegisterStringConfig = register_text,
    LoadConfigs = load_configs,
};
