//! Reading hashes.

use super::{LOOKED_AT_KEY, READ_KEY};
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag, seeks_element};
use crate::command::typed::{StringRef, hash_of};
use crate::command::{CommandResult, Ctx};
use crate::types::hash::HashRef;

const ONE_FIELD_FLAGS: u64 = flag::READONLY | flag::FAST;

pub(super) const HGET: Command = Command::keys("hget", 3, hget)
    .flags(ONE_FIELD_FLAGS)
    .acl(acl::HASH)
    .at(READ_KEY)
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("hash", "2.0.0", "Returns the value of a field of a hash")
            .complexity("O(1)")
            .arguments("key#0 field"),
    );

/// HGET key field. Reply: string, or null. Errors: WRONGTYPE. O(1).
fn hget(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    match hash.and_then(|hash| hash.get(ctx.args.arg(2))) {
        Some(value) => StringRef::from(value).reply(&mut ctx.reply),
        None => ctx.reply.null(),
    }
    Ok(())
}

pub(super) const HMGET: Command =
    Command::keys("hmget", -3, hmget).flags(ONE_FIELD_FLAGS).acl(acl::HASH).at(READ_KEY).docs(
        Docs::new("hash", "2.0.0", "Returns the values of several fields of a hash")
            .complexity("O(N), where N is the number of fields asked for")
            .arguments("key#0 field..."),
    );

/// HMGET key field [field ...]. Reply: array of the values, with a null for each field that does not exist. Errors:
/// WRONGTYPE. O(fields).
fn hmget(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    ctx.reply.array(ctx.args.len() - 2);
    for field in ctx.args.iter().skip(2) {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => StringRef::from(value).reply(&mut ctx.reply),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

pub(super) const HEXISTS: Command = Command::keys("hexists", 3, hexists)
    .flags(ONE_FIELD_FLAGS)
    .acl(acl::HASH)
    .at(LOOKED_AT_KEY)
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("hash", "2.0.0", "Tells whether a hash has a field")
            .complexity("O(1)")
            .arguments("key#0 field"),
    );

/// HEXISTS key field. Reply: 1 or 0. Errors: WRONGTYPE. O(1).
fn hexists(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    let is_there = hash.is_some_and(|hash| hash.get(ctx.args.arg(2)).is_some());
    ctx.reply.integer(i64::from(is_there));
    Ok(())
}

pub(super) const HSTRLEN: Command = Command::keys("hstrlen", 3, hstrlen)
    .flags(ONE_FIELD_FLAGS)
    .acl(acl::HASH)
    .at(LOOKED_AT_KEY)
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("hash", "3.2.0", "Returns the length of the value of a field of a hash")
            .complexity("O(1)")
            .arguments("key#0 field"),
    );

/// HSTRLEN key field. Reply: integer, the length of the value in bytes, 0 without the field. Errors: WRONGTYPE. O(1).
fn hstrlen(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    let value = hash.and_then(|hash| hash.get(ctx.args.arg(2)));
    ctx.reply.integer(value.map_or(0, |value| value.len_bytes() as i64));
    Ok(())
}

pub(super) const HLEN: Command = Command::keys("hlen", 2, hlen)
    .flags(ONE_FIELD_FLAGS)
    .acl(acl::HASH)
    .at(LOOKED_AT_KEY)
    .constant_time()
    .docs(
        Docs::new("hash", "2.0.0", "Returns the number of fields of a hash")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// HLEN key. Reply: integer, the number of fields, 0 without the key. Errors: WRONGTYPE. O(1).
fn hlen(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    ctx.reply.integer(hash.map_or(0, |hash| hash.len() as i64));
    Ok(())
}

pub(super) const HGETALL: Command =
    Command::keys("hgetall", 2, hgetall).flags(flag::READONLY).acl(acl::HASH).at(READ_KEY).docs(
        Docs::new("hash", "2.0.0", "Returns all fields of a hash and their values")
            .complexity("O(N), where N is the number of fields")
            .arguments("key#0")
            .tips(&["nondeterministic_output_order"]),
    );

/// HGETALL key. Reply: map of the fields, empty without the key. Errors: WRONGTYPE. O(fields).
fn hgetall(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    ctx.reply.map(hash.map_or(0, HashRef::len));
    let reply = &mut ctx.reply;
    if let Some(hash) = hash {
        hash.for_each(|field, value| {
            StringRef::from(field).reply(reply);
            StringRef::from(value).reply(reply);
        });
    }
    Ok(())
}

pub(super) const HKEYS: Command =
    Command::keys("hkeys", 2, hkeys).flags(flag::READONLY).acl(acl::HASH).at(READ_KEY).docs(
        Docs::new("hash", "2.0.0", "Returns all fields of a hash")
            .complexity("O(N), where N is the number of fields")
            .arguments("key#0")
            .tips(&["nondeterministic_output_order"]),
    );

/// HKEYS key. Reply: array of the fields. Errors: WRONGTYPE. O(fields).
fn hkeys(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    ctx.reply.array(hash.map_or(0, HashRef::len));
    let reply = &mut ctx.reply;
    if let Some(hash) = hash {
        hash.for_each(|field, _| StringRef::from(field).reply(reply));
    }
    Ok(())
}

pub(super) const HVALS: Command =
    Command::keys("hvals", 2, hvals).flags(flag::READONLY).acl(acl::HASH).at(READ_KEY).docs(
        Docs::new("hash", "2.0.0", "Returns the values of all fields of a hash")
            .complexity("O(N), where N is the number of fields")
            .arguments("key#0")
            .tips(&["nondeterministic_output_order"]),
    );

/// HVALS key. Reply: array of the values. Errors: WRONGTYPE. O(fields).
fn hvals(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    ctx.reply.array(hash.map_or(0, HashRef::len));
    let reply = &mut ctx.reply;
    if let Some(hash) = hash {
        hash.for_each(|_, value| StringRef::from(value).reply(reply));
    }
    Ok(())
}
