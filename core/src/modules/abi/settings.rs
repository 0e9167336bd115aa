//! Directives of modules.

use super::given::{Ctx, Text, abi_functions};
use super::{fail_with, status};
use crate::modules::settings::{self, Kind, NotRegistered};
use crate::modules::timers::Data;
use crate::runtime::os_error;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_void};

pub(super) const SERVED: &[Served] = served! {
    RegisterBoolConfig = register_bool_config,
    RegisterNumericConfig = register_numeric_config,
    RegisterStringConfig = register_string_config,
    RegisterEnumConfig = register_enum_config,
    LoadConfigs = load_configs,
};

abi_functions! {
    fn register_bool_config(
        ctx: Ctx, name: Text, default: c_int, flags: c_uint, get: RedisModuleConfigGetBoolFunc,
        set: RedisModuleConfigSetBoolFunc, apply: RedisModuleConfigApplyFunc, data: *mut c_void,
    ) -> c_int {
        register(&ctx, name, flags, Kind::Bool { default: default != 0, get, set }, apply, data)
    }

    fn register_numeric_config(
        ctx: Ctx, name: Text, default: c_longlong, flags: c_uint, min: c_longlong, max: c_longlong,
        get: RedisModuleConfigGetNumericFunc, set: RedisModuleConfigSetNumericFunc,
        apply: RedisModuleConfigApplyFunc, data: *mut c_void,
    ) -> c_int {
        register(&ctx, name, flags, Kind::Numeric { default, min, max, get, set }, apply, data)
    }

    fn register_string_config(
        ctx: Ctx, name: Text, default: *const c_char, flags: c_uint, get: RedisModuleConfigGetStringFunc,
        set: RedisModuleConfigSetStringFunc, apply: RedisModuleConfigApplyFunc, data: *mut c_void,
    ) -> c_int {
        // SAFETY: the module passes a C string, or NULL.
        let text = (!default.is_null()).then(|| unsafe { CStr::from_ptr(default) }.to_bytes().to_vec());
        register(&ctx, name, flags, Kind::Text { default: text, get, set }, apply, data)
    }

    fn register_enum_config(
        ctx: Ctx, name: Text, default: c_int, flags: c_uint, names: *mut *const c_char, values: *const c_int,
        len: c_int, get: RedisModuleConfigGetEnumFunc, set: RedisModuleConfigSetEnumFunc,
        apply: RedisModuleConfigApplyFunc, data: *mut c_void,
    ) -> c_int {
        let len = usize::try_from(len).unwrap_or(0);
        let named = |at: usize| {
            // SAFETY: the module passes so many C strings, and as many numbers.
            let (name, value) = unsafe { (CStr::from_ptr(*names.add(at)), *values.add(at)) };
            (name.to_string_lossy().into_owned(), value)
        };
        let names = (0..len).map(named).collect();
        register(&ctx, name, flags, Kind::Enum { default, names, get, set }, apply, data)
    }

    /// Gives the directives their values. To be called when all are registered.
    fn load_configs(ctx: Ctx) -> c_int {
        status(ctx.module.is_loading() && settings::load(&ctx))
    }
}

fn register(
    ctx: &Ctx,
    name: Text,
    flags: c_uint,
    kind: Kind,
    apply: RedisModuleConfigApplyFunc,
    data: *mut c_void,
) -> c_int {
    match settings::register(ctx.module, name.bytes(), flags, kind, apply, Data(data)) {
        Ok(()) => REDISMODULE_OK,
        Err(NotRegistered::Invalid) => fail_with(os_error::INVALID),
        Err(NotRegistered::Exists) => fail_with(os_error::ALREADY),
    }
}
