//! Notes: a data type of a module that knows the crate `redis-module` alone.

use redis_module::native_types::RedisType;
use redis_module::{
    Context, NextArg, RedisError, RedisResult, RedisString, RedisValue, raw, redis_module,
};
use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;

/// The value: lines of text.
#[derive(Clone, Default)]
struct Notes(Vec<String>);

const VERSION: i32 = 1;

static NOTES: RedisType = RedisType::new(
    "notes-tst",
    VERSION,
    raw::RedisModuleTypeMethods {
        version: raw::REDISMODULE_TYPE_METHOD_VERSION as u64,
        rdb_load: Some(load),
        rdb_save: Some(save),
        aof_rewrite: None,
        free: Some(free),
        mem_usage: Some(mem_usage),
        digest: None,
        aux_load: None,
        aux_save: None,
        aux_save2: None,
        aux_save_triggers: 0,
        free_effort: None,
        unlink: None,
        copy: Some(copy),
        defrag: None,
        copy2: None,
        free_effort2: None,
        mem_usage2: None,
        unlink2: None,
    },
);

fn read(rdb: *mut raw::RedisModuleIO) -> Option<Notes> {
    let len = raw::load_unsigned(rdb).ok()?;
    let lines = (0..len).map(|_| {
        let line = raw::load_string_buffer(rdb).ok()?;
        String::from_utf8(line.as_ref().to_vec()).ok()
    });
    lines.collect::<Option<_>>().map(Notes)
}

unsafe extern "C" fn load(rdb: *mut raw::RedisModuleIO, version: c_int) -> *mut c_void {
    if version != VERSION {
        return null_mut();
    }
    read(rdb).map_or(null_mut(), |notes| Box::into_raw(Box::new(notes)).cast())
}

unsafe extern "C" fn save(rdb: *mut raw::RedisModuleIO, value: *mut c_void) {
    // SAFETY: the server passes a value of this type.
    let notes = unsafe { &*value.cast::<Notes>() };
    raw::save_unsigned(rdb, notes.0.len() as u64);
    notes.0.iter().for_each(|line| raw::save_string(rdb, line));
}

unsafe extern "C" fn copy(
    _from: *mut raw::RedisModuleString,
    _to: *mut raw::RedisModuleString,
    value: *const c_void,
) -> *mut c_void {
    // SAFETY: as above.
    let notes = unsafe { &*value.cast::<Notes>() };
    Box::into_raw(Box::new(notes.clone())).cast()
}

unsafe extern "C" fn free(value: *mut c_void) {
    // SAFETY: as above; nobody uses it any more.
    drop(unsafe { Box::from_raw(value.cast::<Notes>()) });
}

unsafe extern "C" fn mem_usage(value: *const c_void) -> usize {
    // SAFETY: as above.
    unsafe { &*value.cast::<Notes>() }.0.iter().map(String::len).sum()
}

/// NOTES.ADD key text ...: the number of notes.
fn add(ctx: &Context, args: Vec<RedisString>) -> RedisResult {
    let mut args = args.into_iter().skip(1);
    let key = ctx.open_key_writable(&args.next_arg()?);
    let lines: Vec<String> = args.map(|line| line.to_string()).collect();
    if lines.is_empty() {
        return Err(RedisError::WrongArity);
    }
    let len = match key.get_value::<Notes>(&NOTES)? {
        Some(notes) => {
            notes.0.extend(lines);
            notes.0.len()
        }
        None => {
            let len = lines.len();
            key.set_value(&NOTES, Notes(lines))?;
            len
        }
    };
    ctx.replicate_verbatim();
    Ok(RedisValue::Integer(len as i64))
}

/// NOTES.GET key ...: all notes of all keys.
fn get(ctx: &Context, args: Vec<RedisString>) -> RedisResult {
    let mut all = Vec::new();
    for key in args.iter().skip(1) {
        let key = ctx.open_key(key);
        if let Some(notes) = key.get_value::<Notes>(&NOTES)? {
            all.extend(notes.0.iter().cloned().map(RedisValue::BulkString));
        }
    }
    Ok(RedisValue::Array(all))
}

/// NOTES.MOVE from to: renames a key by a call, whatever shards the two are on.
fn rename(ctx: &Context, args: Vec<RedisString>) -> RedisResult {
    let [_, from, to] = &args[..] else { return Err(RedisError::WrongArity) };
    ctx.call("RENAME", &[from, to])
}

redis_module! {
    name: "notes",
    version: 1,
    allocator: (redis_module::alloc::RedisAlloc, redis_module::alloc::RedisAlloc),
    data_types: [NOTES],
    commands: [
        ["notes.add", add, "write deny-oom", 1, 1, 1, ""],
        ["notes.get", get, "readonly", 1, -1, 1, ""],
        ["notes.move", rename, "write", 1, 2, 1, ""],
    ],
}
