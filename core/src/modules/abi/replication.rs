//! What a command leaves for replicas. A module says itself what that is: nothing is recorded of what it does to keys.

use super::fail_with;
use super::given::{Ctx, Text, server_functions};
use crate::command::table::Resolved;
use crate::modules::context::Context;
use crate::protocol::OwnedArgv;
use crate::runtime::os_error;
use crate::shard::effects::Readers;
use shardis_modules_api::abi::*;
use shardis_modules_api::host::Arguments;
use shardis_modules_api::served;
use std::ffi::{CStr, c_char, c_int};

pub(super) const SERVED: &[Served] = served! {
    ReplicateVerbatim = replicate_verbatim,
    RecordsEffects = records_effects,
};

server_functions! {
    /// Records a command, and counts a change.
    fn replicate(ctx: Ctx, name: Text, format: *const c_char, arguments: *mut Arguments) -> c_int {
        // SAFETY: the module passes a C string, and what that says.
        let words = unsafe { super::call::words(name.bytes(), CStr::from_ptr(format), arguments) };
        let Some((words, format)) = words else { return fail_with(os_error::BAD_FILE) };
        let is_known = |table: &'static crate::command::table::CommandTable| {
            let args = OwnedArgv::from_slices(&[&words[0]]);
            matches!(table.resolve(args.as_argv()), Resolved::Command(_))
        };
        if !ctx.table().is_some_and(is_known) {
            return REDISMODULE_ERR;
        }
        let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
        record(&mut ctx, format.readers(), words.into_iter());
        REDISMODULE_OK
    }

    fn records_effects(ctx: Ctx) -> c_int {
        c_int::from(ctx.shard().is_some_and(|shard| shard.effects.is_on()))
    }

    /// Records the command as the client has called it.
    fn replicate_verbatim(ctx: Ctx) -> c_int {
        let args = ctx.args;
        record(&mut ctx, Readers::ALL, args.iter());
        REDISMODULE_OK
    }
}

/// Counts a change, and records a command as its effect.
fn record<'a>(ctx: &mut Context<'static>, readers: Readers, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    let db = ctx.call.db;
    let of_program = ctx.program().map(|program| program.readers());
    let allowed = of_program.or_else(|| Some(ctx.shard()?.effects.readers())).unwrap_or(Readers::ALL);
    if let Some(shard) = ctx.shard() {
        shard.changed(1);
        let changes = shard.stats.dirty.get();
        shard.effects.add(db, readers.both(allowed), args, changes);
    }
}
