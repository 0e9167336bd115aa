//! Defragmentation. The server never moves what it has allocated, so no module is asked to, and nothing of this is called
//! by a module that waits to be asked. It is there for modules that take for granted that a server has it.

use super::given::{Ctx, Ours, Out, abi_functions};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_ulong, c_void};

pub(super) const SERVED: &[Served] = served! {
    RegisterDefragFunc = register_defrag_func,
    DefragAlloc = defrag_alloc,
    DefragRedisModuleString = defrag_redis_module_string,
    DefragShouldStop = defrag_should_stop,
    DefragCursorSet = defrag_cursor_set,
    DefragCursorGet = defrag_cursor_get,
    GetDbIdFromDefragCtx = get_db_id_from_defrag_ctx,
    GetKeyNameFromDefragCtx = get_key_name_from_defrag_ctx,
};

/// A defragmentation, of which there is none.
pub(super) enum Defrag {}

type DefragRef = Option<Ours<Defrag, RedisModuleDefragCtx>>;

abi_functions! {
    fn register_defrag_func(_ctx: Ctx, _callback: RedisModuleDefragFunc) -> c_int {
        REDISMODULE_OK
    }

    /// NULL: it stays where it is.
    fn defrag_alloc(_defrag: DefragRef, _memory: *mut c_void) -> *mut c_void {
        std::ptr::null_mut()
    }

    fn defrag_redis_module_string(
        _defrag: DefragRef, _string: *mut RedisModuleString,
    ) -> *mut RedisModuleString {
        std::ptr::null_mut()
    }

    fn defrag_should_stop(_defrag: DefragRef) -> c_int {
        1
    }

    fn defrag_cursor_set(_defrag: DefragRef, _cursor: c_ulong) -> c_int {
        REDISMODULE_ERR
    }

    fn defrag_cursor_get(_defrag: DefragRef, cursor: Out<c_ulong>) -> c_int {
        cursor.set(0);
        REDISMODULE_ERR
    }

    fn get_db_id_from_defrag_ctx(_defrag: DefragRef) -> c_int {
        -1
    }

    fn get_key_name_from_defrag_ctx(_defrag: DefragRef) -> *const RedisModuleString {
        std::ptr::null()
    }
}
