//! Data types: registering them, their values in keys, and what their callbacks use.

use super::fail_with;
use super::given::{ConstStr, Ctx, Key, Ours, Out, Str, Text, abi_functions, bytes_at, server_functions};
use crate::modules::data_type::{DataType, DigestIo, Io, KeyOptions, Target};
use crate::modules::server;
use crate::modules::string::ModuleString;
use crate::persist::rdb::module::{load_alone, save_alone};
use crate::runtime::{allocator, log, os_error};
use crate::types::module::{ModulePtr, ModuleType, ModuleValue};
use crate::types::{NewValue, Object, ValueRef};
use shardis_modules_api::abi::*;
use shardis_modules_api::host::{Arguments, LongDoubleBytes, LongDoubleStyle};
use shardis_modules_api::served;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};

/// What a value is saved to or loaded from.
type IoRef = Ours<Io<'static>, RedisModuleIO>;
type Digest = Ours<DigestIo<'static>, RedisModuleDigest>;
type Keys = Ours<KeyOptions<'static>, RedisModuleKeyOptCtx>;
/// A data type, which lives for ever.
type Type = Ours<DataType, RedisModuleType>;

pub(super) const SERVED: &[Served] = served! {
    GetTypeMethodVersion = get_type_method_version,
    CreateDataType = create_data_type,
    ModuleTypeSetValue = module_type_set_value,
    ModuleTypeReplaceValue = module_type_replace_value,
    ModuleTypeGetType = module_type_get_type,
    ModuleTypeGetValue = module_type_get_value,
    GetDbIdFromOptCtx = get_db_id_from_opt_ctx,
    GetToDbIdFromOptCtx = get_to_db_id_from_opt_ctx,
    GetKeyNameFromOptCtx = get_key_name_from_opt_ctx,
    GetToKeyNameFromOptCtx = get_to_key_name_from_opt_ctx,
    IsIOError = is_io_error,
    SaveUnsigned = save_unsigned,
    LoadUnsigned = load_unsigned,
    SaveSigned = save_signed,
    LoadSigned = load_signed,
    SaveString = save_string,
    SaveStringBuffer = save_string_buffer,
    LoadString = load_string,
    LoadStringBuffer = load_string_buffer,
    SaveDouble = save_double,
    LoadDouble = load_double,
    SaveFloat = save_float,
    LoadFloat = load_float,
    LoadDataTypeFromString = load_data_type_from_string,
    LoadDataTypeFromStringEncver = load_data_type_from_string_encver,
    SaveDataTypeToString = save_data_type_to_string,
    GetContextFromIO = get_context_from_io,
    GetKeyNameFromIO = get_key_name_from_io,
    GetDbIdFromIO = get_db_id_from_io,
    DigestAddStringBuffer = digest_add_string_buffer,
    DigestAddLongLong = digest_add_long_long,
    DigestEndSequence = digest_end_sequence,
    GetDbIdFromDigest = get_db_id_from_digest,
    GetKeyNameFromDigest = get_key_name_from_digest,
};

abi_functions! {
    /// The newest version of the callbacks' structure that is known.
    fn get_type_method_version() -> c_int {
        REDISMODULE_TYPE_METHOD_VERSION as c_int
    }

    /// Registers a data type, while the module is loaded. It fails for a name that is taken or is none.
    fn create_data_type(
        ctx: Ctx, name: Text, encver: c_int, methods: *mut RedisModuleTypeMethods,
    ) -> *mut RedisModuleType {
        // SAFETY: the module passes the structure of the version that it begins with.
        let methods = unsafe { DataType::methods_of(methods) };
        let encver = u16::try_from(encver).unwrap_or(u16::MAX);
        let of = match ctx.module.is_loading() && methods.version != 0 {
            true => DataType::new(ctx.module, name.bytes(), encver, methods),
            false => None,
        };
        match of.filter(|of| ctx.add_type(*of)) {
            Some(of) => std::ptr::from_ref(of).cast_mut().cast(),
            None => {
                fail_with(os_error::INVALID);
                std::ptr::null_mut()
            }
        }
    }

    fn get_db_id_from_opt_ctx(keys: Keys) -> c_int {
        keys.from_db()
    }

    fn get_to_db_id_from_opt_ctx(keys: Keys) -> c_int {
        keys.to_db()
    }

    fn get_key_name_from_opt_ctx(keys: Keys) -> *const RedisModuleString {
        keys.from_key().cast_const().cast()
    }

    fn get_to_key_name_from_opt_ctx(keys: Keys) -> *const RedisModuleString {
        keys.to_key().cast_const().cast()
    }

    fn is_io_error(io: IoRef) -> c_int {
        c_int::from(matches!(&io.target, Target::Load(source) if source.has_failed()))
    }

    fn save_unsigned(io: IoRef, number: u64) {
        if let Target::Save(sink) = &mut io.target {
            sink.unsigned(number);
        }
    }

    fn load_unsigned(io: IoRef) -> u64 {
        unsigned(&mut io)
    }

    fn save_signed(io: IoRef, number: i64) {
        if let Target::Save(sink) = &mut io.target {
            sink.unsigned(number as u64);
        }
    }

    fn load_signed(io: IoRef) -> i64 {
        unsigned(&mut io) as i64
    }

    fn save_string(io: IoRef, string: Str) {
        if let Target::Save(sink) = &mut io.target {
            sink.string(string.bytes());
        }
    }

    fn save_string_buffer(io: IoRef, start: *const c_char, len: usize) {
        if let Target::Save(sink) = &mut io.target {
            // SAFETY: the module passes so many bytes.
            sink.string(unsafe { bytes_at(start, len) });
        }
    }

    /// NULL if it cannot be read.
    fn load_string(io: IoRef) -> *mut RedisModuleString {
        string(&mut io).map_or(std::ptr::null_mut(), |bytes| ModuleString::as_abi(ModuleString::from_vec(bytes)))
    }

    /// A copy that the module frees; NULL if it cannot be read.
    fn load_string_buffer(io: IoRef, len: Out<usize>) -> *mut c_char {
        let Some(bytes) = string(&mut io) else { return std::ptr::null_mut() };
        let copy = allocator::or_abort(allocator::allocate(bytes.len().max(1)), bytes.len());
        // SAFETY: it has been allocated for so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast(), bytes.len()) };
        len.set(bytes.len());
        copy.cast()
    }

    fn save_double(io: IoRef, number: f64) {
        if let Target::Save(sink) = &mut io.target {
            sink.double(number);
        }
    }

    fn load_double(io: IoRef) -> f64 {
        match &mut io.target {
            Target::Load(source) => source.double().unwrap_or(0.0),
            Target::Save(_) | Target::Rewrite { .. } => 0.0,
        }
    }

    fn save_float(io: IoRef, number: f32) {
        if let Target::Save(sink) = &mut io.target {
            sink.float(number);
        }
    }

    fn load_float(io: IoRef) -> f32 {
        match &mut io.target {
            Target::Load(source) => source.float().unwrap_or(0.0),
            Target::Save(_) | Target::Rewrite { .. } => 0.0,
        }
    }

    /// A value that was written by `SaveDataTypeToString`; NULL if it is not read.
    fn load_data_type_from_string(string: ConstStr, of: *const RedisModuleType) -> *mut c_void {
        load(&string, of, 0)
    }

    fn load_data_type_from_string_encver(
        string: ConstStr, of: *const RedisModuleType, encver: c_int,
    ) -> *mut c_void {
        load(&string, of, encver)
    }

    fn save_data_type_to_string(
        ctx: Option<Ctx>, value: *mut c_void, of: *const RedisModuleType,
    ) -> *mut RedisModuleString {
        // SAFETY: the module passes a type that it has registered; these live for ever.
        let of = unsafe { &*of.cast::<DataType>() };
        let string = ModuleString::from_vec(save_alone(of, ModulePtr(value)));
        match ctx {
            Some(mut ctx) => ctx.keep_string(string),
            None => ModuleString::as_abi(string),
        }
    }

    fn get_context_from_io(io: IoRef) -> *mut RedisModuleCtx {
        io.context()
    }

    fn get_key_name_from_io(io: IoRef) -> *const RedisModuleString {
        io.key().cast_const().cast()
    }

    fn get_db_id_from_io(io: IoRef) -> c_int {
        io.db()
    }

    fn digest_add_string_buffer(digest: Digest, start: *const c_char, len: usize) {
        // SAFETY: the module passes so many bytes.
        digest.sink.element(unsafe { bytes_at(start, len) });
    }

    fn digest_add_long_long(digest: Digest, number: c_longlong) {
        digest.sink.element(itoa::Buffer::new().format(number).as_bytes());
    }

    fn digest_end_sequence(digest: Digest) {
        digest.sink.end_of_sequence();
    }

    fn get_db_id_from_digest(digest: Digest) -> c_int {
        digest.db()
    }

    fn get_key_name_from_digest(digest: Digest) -> *const RedisModuleString {
        digest.key().cast_const().cast()
    }

    /// The text is as C's `%La` writes it.
    fn save_long_double(io: IoRef, value: *const LongDoubleBytes) {
        if let Target::Save(sink) = &mut io.target {
            // SAFETY: the entry point passes the bytes of the argument.
            let text = unsafe { *value }.format(LongDoubleStyle::Hex);
            sink.string(&text);
        }
    }

    fn load_long_double(io: IoRef, value: *mut LongDoubleBytes) {
        let number = string(&mut io).and_then(|text| LongDoubleBytes::parse(&text)).unwrap_or_default();
        // SAFETY: the entry point passes the place of the result.
        unsafe { *value = number };
    }

    /// A command of `aof_rewrite`, with which one can make the value anew.
    fn emit_aof(io: IoRef, name: Text, format: *const c_char, arguments: *mut Arguments) {
        // SAFETY: the module passes C strings, and what the format says.
        let (format, words) = unsafe {
            let format = CStr::from_ptr(format);
            (format, super::call::words(name.bytes(), format, arguments))
        };
        let of = io.of.name();
        let is_known = server::globals().is_some_and(|globals| globals.knows_command(name.bytes()));
        let Target::Rewrite { emit, has_failed } = &mut io.target else { return };
        match words {
            Some((words, _)) if is_known => {
                let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
                emit(&words);
            }
            Some(_) => {
                *has_failed = true;
                let name = name.bytes().escape_ascii();
                log::warning(format_args!(
                    "AOF method for module data type '{of}' tried to emit unknown command '{name}'"
                ));
            }
            None => {
                *has_failed = true;
                let format = format.to_bytes().escape_ascii();
                log::warning(format_args!(
                    "AOF method for module data type '{of}' tried to call RedisModule_EmitAOF() with wrong format \
                     specifiers '{format}'"
                ));
            }
        }
    }

    fn log_io_error(io: IoRef, level: Text, format: *const c_char, arguments: *mut Arguments) {
        // SAFETY: the module passes a format and what it asks for.
        let text = unsafe { (*arguments).format(format) };
        super::log::write(io.of.name().to_string(), &level, &text);
    }
}

server_functions! {
    /// Gives a key, which is open to write, a value.
    fn module_type_set_value(key: Option<Key>, of: Type, value: *mut c_void) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        let value = ModuleValue::new(type_of(&of), ModulePtr(value));
        key.set(NewValue::Object(Box::new(Object::Module(value))));
        REDISMODULE_OK
    }

    /// Exchanges a value of this type for another, which neither frees nor copies anything.
    fn module_type_replace_value(
        key: Option<Key>, of: Type, value: *mut c_void, old: Out<*mut c_void>,
    ) -> c_int {
        let Some(mut key) = key.filter(|key| key.is_writable()) else { return REDISMODULE_ERR };
        if !matches!(key.value(), Some(ValueRef::Object(Object::Module(value))) if is_of(value, &of)) {
            return REDISMODULE_ERR;
        }
        let Some(mut guard) = key.change() else { return REDISMODULE_ERR };
        let mut changed = guard.value_mut();
        let mut object = changed.object();
        let Object::Module(present) = &mut *object else { return REDISMODULE_ERR };
        old.set(present.replace(ModulePtr(value)).0);
        REDISMODULE_OK
    }

    /// The type of a key's value; NULL for what is no module's.
    fn module_type_get_type(key: Option<Key>) -> *mut RedisModuleType {
        let Some(mut key) = key else { return std::ptr::null_mut() };
        match key.value() {
            Some(ValueRef::Object(Object::Module(value))) => {
                // A type of ours is a `DataType`, whose address the module got.
                std::ptr::from_ref(value.module_type()).cast::<DataType>().cast_mut().cast()
            }
            _ => std::ptr::null_mut(),
        }
    }

    fn module_type_get_value(key: Option<Key>) -> *mut c_void {
        let Some(mut key) = key else { return std::ptr::null_mut() };
        match key.value() {
            Some(ValueRef::Object(Object::Module(value))) => value.ptr().0,
            _ => std::ptr::null_mut(),
        }
    }
}

fn type_of(of: &Type) -> &'static DataType {
    // SAFETY: types live for ever.
    unsafe { &*of.as_ptr() }
}

fn is_of(value: &ModuleValue, of: &Type) -> bool {
    value.module_type().id().is_same_type(of.id())
}

fn unsigned(io: &mut IoRef) -> u64 {
    match &mut io.target {
        Target::Load(source) => source.unsigned().unwrap_or(0),
        Target::Save(_) | Target::Rewrite { .. } => 0,
    }
}

fn string(io: &mut IoRef) -> Option<Vec<u8>> {
    match &mut io.target {
        Target::Load(source) => source.string(),
        Target::Save(_) | Target::Rewrite { .. } => None,
    }
}

fn load(string: &ConstStr, of: *const RedisModuleType, encver: c_int) -> *mut c_void {
    // SAFETY: the module passes a type that it has registered; these live for ever.
    let of = unsafe { &*of.cast::<DataType>() };
    let encver = u16::try_from(encver).unwrap_or(0);
    load_alone(of, string.bytes(), encver).map_or(std::ptr::null_mut(), |value| value.0)
}
