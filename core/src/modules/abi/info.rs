//! What modules ask of the server as a whole, and of its configuration.

use super::given::{Ctx, Ours, Out, Str, Text, abi_functions, server_functions};
use super::status;
use crate::config::Config;
use crate::modules::info::InfoText;
use crate::modules::string::ModuleString;
use crate::protocol::number::{parse_f64, parse_i64};
use crate::protocol::{Reply, Resp};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{CString, c_char, c_int, c_longlong, c_ulonglong};

pub(super) const SERVED: &[Served] = served! {
    GetServerInfo = get_server_info,
    FreeServerInfo = free_server_info,
    ServerInfoGetField = server_info_get_field,
    ServerInfoGetFieldC = server_info_get_field_c,
    ServerInfoGetFieldSigned = server_info_get_field_signed,
    ServerInfoGetFieldUnsigned = server_info_get_field_unsigned,
    ServerInfoGetFieldDouble = server_info_get_field_double,
    RegisterInfoFunc = register_info_func,
    InfoAddSection = info_add_section,
    InfoBeginDictField = info_begin_dict_field,
    InfoEndDictField = info_end_dict_field,
    InfoAddFieldString = info_add_field_string,
    InfoAddFieldCString = info_add_field_c_string,
    InfoAddFieldDouble = info_add_field_double,
    InfoAddFieldLongLong = info_add_field_long_long,
    InfoAddFieldULongLong = info_add_field_u_long_long,
};

/// The part of INFO that a module writes.
type Info = Ours<InfoText<'static>, RedisModuleInfoCtx>;

/// The server's INFO, taken apart.
struct ServerInfo(Vec<(String, CString)>);

impl ServerInfo {
    fn field(&self, name: &str) -> Option<&CString> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

abi_functions! {
    fn free_server_info(_ctx: Option<Ctx>, info: *mut RedisModuleServerInfoData) {
        // SAFETY: the module passes what it was given, and does not use it any more.
        drop(unsafe { Box::from_raw(info.cast::<ServerInfo>()) });
    }

    fn server_info_get_field(
        ctx: Option<Ctx>, info: *mut RedisModuleServerInfoData, name: Text,
    ) -> *mut RedisModuleString {
        // SAFETY: the module passes what it was given.
        let info = unsafe { &*info.cast::<ServerInfo>() };
        let Some(value) = info.field(&name.to_str()) else { return std::ptr::null_mut() };
        let string = ModuleString::new(value.to_bytes());
        match ctx {
            Some(mut ctx) => ctx.keep_string(string),
            None => ModuleString::as_abi(string),
        }
    }

    fn server_info_get_field_c(info: *mut RedisModuleServerInfoData, name: Text) -> *const c_char {
        // SAFETY: the module passes what it was given.
        let info = unsafe { &*info.cast::<ServerInfo>() };
        info.field(&name.to_str()).map_or(std::ptr::null(), |value| value.as_ptr())
    }

    fn server_info_get_field_signed(
        info: *mut RedisModuleServerInfoData, name: Text, error: Out<c_int>,
    ) -> c_longlong {
        number(info, &name, &error, parse_i64).unwrap_or(0)
    }

    fn server_info_get_field_unsigned(
        info: *mut RedisModuleServerInfoData, name: Text, error: Out<c_int>,
    ) -> c_ulonglong {
        let parse = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        number(info, &name, &error, parse).unwrap_or(0)
    }

    fn server_info_get_field_double(
        info: *mut RedisModuleServerInfoData, name: Text, error: Out<c_int>,
    ) -> f64 {
        number(info, &name, &error, parse_f64).unwrap_or(0.0)
    }
}

server_functions! {
    /// A section of INFO; all of it without a name.
    fn get_server_info(ctx: Option<Ctx>, section: Text) -> *mut RedisModuleServerInfoData {
        let mut args: Vec<&[u8]> = vec![b"INFO"];
        if !section.bytes().is_empty() {
            args.push(section.bytes());
        }
        let text = ctx.and_then(|mut ctx| ctx.ask("GetServerInfo", &args)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let fields = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_string(), CString::new(value).ok()?))
        });
        Box::into_raw(Box::new(ServerInfo(fields.collect()))).cast()
    }
}

// What modules add to it.
abi_functions! {
    /// Has a function called that adds to INFO.
    fn register_info_func(ctx: Ctx, callback: RedisModuleInfoFunc) -> c_int {
        ctx.module.add_to_info(callback);
        REDISMODULE_OK
    }

    fn info_add_section(info: Info, name: Text) -> c_int {
        status(info.begin_section(name.bytes()))
    }

    fn info_begin_dict_field(info: Info, name: Text) -> c_int {
        status(info.begin_dict(name.bytes()))
    }

    fn info_end_dict_field(info: Info) -> c_int {
        status(info.end_dict())
    }

    fn info_add_field_string(info: Info, name: Text, value: Str) -> c_int {
        status(info.field(name.bytes(), value.bytes()))
    }

    fn info_add_field_c_string(info: Info, name: Text, value: Text) -> c_int {
        status(info.field(name.bytes(), value.bytes()))
    }

    fn info_add_field_double(info: Info, name: Text, value: f64) -> c_int {
        status(info.double(name.bytes(), value))
    }

    fn info_add_field_long_long(info: Info, name: Text, value: c_longlong) -> c_int {
        status(info.field(name.bytes(), itoa::Buffer::new().format(value).as_bytes()))
    }

    fn info_add_field_u_long_long(info: Info, name: Text, value: c_ulonglong) -> c_int {
        status(info.field(name.bytes(), itoa::Buffer::new().format(value).as_bytes()))
    }
}

/// A field as a number. `error` is set to whether it is there and one.
fn number<T>(
    info: *mut RedisModuleServerInfoData,
    name: &Text,
    error: &Out<c_int>,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Option<T> {
    // SAFETY: the module passes what it was given.
    let info = unsafe { &*info.cast::<ServerInfo>() };
    let parsed = info.field(&name.to_str()).and_then(|value| parse(value.to_bytes()));
    error.set(if parsed.is_some() { REDISMODULE_OK } else { REDISMODULE_ERR });
    parsed
}

/// Answers CONFIG GET for callbacks that cannot call commands over the server. `None`: it is another command.
pub(super) fn ask_configuration(config: &Config, args: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let [name, sub, patterns @ ..] = args else { return None };
    if !name.eq_ignore_ascii_case(b"config") || !sub.eq_ignore_ascii_case(b"get") || patterns.is_empty() {
        return None;
    }
    let found = config.get_matching(patterns);
    let mut reply = Reply::new(out, Resp::V2);
    reply.map(found.len());
    for (name, value) in &found {
        reply.bulk(name);
        reply.bulk(value);
    }
    Some(())
}
