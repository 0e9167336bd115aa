//! Commands over keys of any type.

mod flush;
mod relocate;
mod walk;

use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, Merge, acl, flag};
use crate::command::{Call, CommandResult, Ctx};
use crate::shard::event::Event;

pub const COMMANDS: &[Command] = &[
    DEL,
    EXISTS,
    TOUCH,
    TYPE,
    UNLINK,
    flush::FLUSHALL,
    flush::FLUSHDB,
    relocate::COPY,
    relocate::MOVE,
    relocate::RENAME,
    relocate::RENAMENX,
    relocate::SWAPDB,
    walk::DBSIZE,
    walk::KEYS,
    walk::RANDOMKEY,
    walk::SCAN,
];

const DEL: Command = Command::keys("del", -2, del)
    .flags(flag::WRITE)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RM | key_flag::DELETE)])
    .merge(Merge::Sum)
    .docs(
        Docs::new("generic", "1.0.0", "Deletes keys")
            .complexity("O(N), where N is the number of keys; O(M) for a key with M elements")
            .arguments("key#0...")
            .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    );

const UNLINK: Command = Command::keys("unlink", -2, del)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RM | key_flag::DELETE)])
    .merge(Merge::Sum)
    .docs(
        Docs::new("generic", "4.0.0", "Deletes keys and leaves freeing big values for later")
            .complexity("O(1) for each key, then O(N) for N allocations, behind the reply")
            .arguments("key#0...")
            .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    );

/// DEL key [key ...], also as UNLINK: either frees a value of one allocation at once. Reply: integer, how many keys
/// existed. O(keys).
fn del(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut count = 0;
    let mut keys = ctx.key_run(1);
    while let Some((_, key)) = keys.next(ctx.shard) {
        count += i64::from(ctx.shard.delete(ctx.call, key, Event::DEL));
    }

    ctx.reply.integer(count);
    Ok(())
}

const EXISTS: Command = Command::keys("exists", -2, exists)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO)])
    .merge(Merge::Sum)
    .docs(
        Docs::new("generic", "1.0.0", "Counts which of the keys exist")
            .complexity("O(N), where N is the number of keys")
            .arguments("key#0...")
            .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
            .history(&[("3.0.3", "Takes several keys")]),
    );

/// EXISTS key [key ...]. Reply: integer, how many of the keys exist; one that is named twice counts twice. O(keys).
fn exists(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut count = 0;
    let mut keys = ctx.key_run(1);
    while let Some((_, key)) = keys.next(ctx.shard) {
        count += i64::from(ctx.shard.lookup_read_notouch(ctx.call, key).is_some());
    }

    ctx.reply.integer(count);
    Ok(())
}

const TOUCH: Command = Command::keys("touch", -2, touch)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO)])
    .merge(Merge::Sum)
    .docs(
        Docs::new("generic", "3.2.1", "Notes an access to keys and counts which of them exist")
            .complexity("O(N), where N is the number of keys")
            .arguments("key#0...")
            .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    );

/// TOUCH key [key ...]. Records an access, even with CLIENT NO-TOUCH. Reply: integer, how many keys existed. O(keys).
fn touch(ctx: &mut Ctx<'_>) -> CommandResult {
    let call = Call { no_touch: false, ..*ctx.call };

    let mut count = 0;
    let mut keys = ctx.key_run(1);
    while let Some((_, key)) = keys.next(ctx.shard) {
        count += i64::from(ctx.shard.lookup_read(&call, key).is_some());
    }

    ctx.reply.integer(count);
    Ok(())
}

const TYPE: Command = Command::keys("type", 2, type_of)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Returns the type of the value of a key")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// TYPE key. Reply: status, the type's name, or `none`. O(1).
fn type_of(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let name = ctx
        .shard
        .lookup_read_notouch(ctx.call, key)
        .map_or("none", |entry| entry.value().value_type().name());

    ctx.reply.simple(name);
    Ok(())
}
