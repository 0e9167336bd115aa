//! Setting and removing fields of hashes.

use super::limits;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag, seeks_element};
use crate::command::typed::hash_of;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::shard::event::Event;
use crate::types::PackedKind;
use crate::types::hash::HashMut;

const SET_FLAGS: u64 = flag::WRITE | flag::DENYOOM | flag::FAST;
const SET_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::UPDATE)];

pub(super) const HSET: Command =
    Command::keys("hset", -4, hset).flags(SET_FLAGS).acl(acl::HASH).at(SET_KEY).seeks(seeks_element).docs(
        Docs::new("hash", "2.0.0", "Sets fields of a hash")
            .complexity("O(N), where N is the number of fields to set")
            .arguments("key#0 field_value{field value}...")
            .history(&[("4.0.0", "Several fields and values")]),
    );

/// HSET key field value [field value ...]. Adds the key if it does not exist. Reply: integer, how many of the fields are
/// new. Errors: a field without a value; WRONGTYPE. O(fields).
fn hset(ctx: &mut Ctx<'_>) -> CommandResult {
    let added = set_pairs(ctx, "hset")?;

    ctx.reply.integer(added as i64);
    Ok(())
}

pub(super) const HMSET: Command =
    Command::keys("hmset", -4, hmset).flags(SET_FLAGS).acl(acl::HASH).at(SET_KEY).docs(
        Docs::new("hash", "2.0.0", "Sets several fields of a hash")
            .complexity("O(N), where N is the number of fields to set")
            .arguments("key#0 field_value{field value}...")
            .deprecated("4.0.0", "`HSET` with multiple field-value pairs"),
    );

/// HMSET key field value [field value ...]: HSET. Reply: OK. Errors as HSET. O(fields).
fn hmset(ctx: &mut Ctx<'_>) -> CommandResult {
    set_pairs(ctx, "hmset")?;

    ctx.reply.ok();
    Ok(())
}

/// Sets the fields from argument 2 on. Returns how many of them are new. `command` is for the error.
fn set_pairs(ctx: &mut Ctx<'_>, command: &str) -> CommandResult<usize> {
    if !ctx.args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity(command));
    }
    let (key, limits) = (ctx.key(1), limits(ctx));

    let mut guard = ctx.shard.change_or_add(ctx.call, key, Event::HSET, PackedKind::Hash);
    hash_of(guard.value())?;

    let mut fields = HashMut::new(guard.value_mut(), limits);
    let mut added = 0;
    for at in (2..ctx.args.len()).step_by(2) {
        added += usize::from(fields.set(ctx.args.arg(at), ctx.args.arg(at + 1)));
    }
    guard.count(ctx.args.len() / 2 - 1);
    Ok(added)
}

pub(super) const HSETNX: Command = Command::keys("hsetnx", 4, hsetnx)
    .flags(SET_FLAGS)
    .acl(acl::HASH)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::INSERT)])
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("hash", "2.0.0", "Sets a field of a hash if the field does not exist")
            .complexity("O(1)")
            .arguments("key#0 field value"),
    );

/// HSETNX key field value. Reply: 1 if it was set, 0 if the field existed. Errors: WRONGTYPE. O(1).
fn hsetnx(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx));

    let mut guard = ctx.shard.change_or_add(ctx.call, key, Event::HSET, PackedKind::Hash);
    let sets = hash_of(guard.value())?.get(ctx.args.arg(2)).is_none();

    if sets {
        HashMut::new(guard.value_mut(), limits).set(ctx.args.arg(2), ctx.args.arg(3));
    }
    drop(guard);

    ctx.reply.integer(i64::from(sets));
    Ok(())
}

pub(super) const HDEL: Command = Command::keys("hdel", -3, hdel)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::HASH)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::DELETE)])
    .seeks(seeks_element)
    .docs(
        Docs::new("hash", "2.0.0", "Removes fields of a hash")
            .complexity("O(N), where N is the number of fields to remove")
            .arguments("key#0 field...")
            .history(&[("2.4.0", "Several fields")]),
    );

/// HDEL key field [field ...]. A hash without fields is removed. Reply: integer, how many of the fields existed. Errors:
/// WRONGTYPE. O(fields).
fn hdel(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx));

    let mut removed = 0;
    if let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::HDEL) {
        hash_of(guard.value())?;

        let mut fields = HashMut::new(guard.value_mut(), limits);
        removed = ctx.args.iter().skip(2).filter(|field| fields.remove(field)).count();
        guard.count(removed);
    }

    ctx.reply.integer(removed as i64);
    Ok(())
}
