//! Command filters.

use super::given::{Ctx, Ours, Str, abi_functions};
use super::status;
use crate::modules::filters::{self, Filter, Filtered};
use crate::modules::string::ModuleString;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_ulonglong};

pub(super) const SERVED: &[Served] = served! {
    RegisterCommandFilter = register_command_filter,
    UnregisterCommandFilter = unregister_command_filter,
    CommandFilterArgsCount = command_filter_args_count,
    CommandFilterArgGet = command_filter_arg_get,
    CommandFilterArgInsert = command_filter_arg_insert,
    CommandFilterArgReplace = command_filter_arg_replace,
    CommandFilterArgDelete = command_filter_arg_delete,
    CommandFilterGetClientId = command_filter_get_client_id,
};

type FilteredRef = Ours<Filtered, RedisModuleCommandFilterCtx>;

abi_functions! {
    /// Has a function called with each command, before it is looked up.
    fn register_command_filter(
        ctx: Ctx, callback: RedisModuleCommandFilterFunc, flags: c_int,
    ) -> *mut RedisModuleCommandFilter {
        let filter = filters::register(ctx.module, callback, flags);
        filter.map_or(std::ptr::null_mut(), |filter| std::ptr::from_ref(filter).cast_mut().cast())
    }

    fn unregister_command_filter(ctx: Ctx, filter: *mut RedisModuleCommandFilter) -> c_int {
        status(filters::unregister(ctx.module, filter.cast_const().cast::<Filter>()))
    }

    fn command_filter_args_count(command: FilteredRef) -> c_int {
        command.args.len() as c_int
    }

    /// The argument; NULL if there is none at this position.
    fn command_filter_arg_get(command: FilteredRef, at: c_int) -> *mut RedisModuleString {
        let found = usize::try_from(at).ok().and_then(|at| command.args.get(at));
        found.map_or(std::ptr::null_mut(), |&string| ModuleString::as_abi(string))
    }

    /// Inserts an argument, which is the command's from here on.
    fn command_filter_arg_insert(command: FilteredRef, at: c_int, arg: Str) -> c_int {
        let at = usize::try_from(at).ok().filter(|&at| at <= command.args.len());
        if let Some(at) = at {
            command.args.insert(at, arg.as_ptr());
        }
        status(at.is_some())
    }

    /// Replaces an argument; the new one is the command's from here on.
    fn command_filter_arg_replace(command: FilteredRef, at: c_int, arg: Str) -> c_int {
        let place = usize::try_from(at).ok().and_then(|at| command.args.get_mut(at));
        let replaced = place.map(|place| std::mem::replace(place, arg.as_ptr()));
        if let Some(string) = replaced {
            // SAFETY: the reference was the command's.
            unsafe { ModuleString::release(string) };
        }
        status(replaced.is_some())
    }

    fn command_filter_arg_delete(command: FilteredRef, at: c_int) -> c_int {
        let at = usize::try_from(at).ok().filter(|&at| at < command.args.len());
        if let Some(at) = at {
            // SAFETY: the reference was the command's.
            unsafe { ModuleString::release(command.args.remove(at)) };
        }
        status(at.is_some())
    }

    fn command_filter_get_client_id(command: FilteredRef) -> c_ulonglong {
        command.client
    }
}
