//! Fields of hashes that are numbers.

use super::limits;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag, seeks_element};
use crate::command::typed::{Digits, StringRef, hash_of};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::extended::Extended;
use crate::protocol::number::parse_i64;
use crate::shard::event::Event;
use crate::types::PackedKind;
use crate::types::hash::HashMut;

const COUNTER_FLAGS: u64 = flag::WRITE | flag::DENYOOM | flag::FAST;
const COUNTER_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)];

pub(super) const HINCRBY: Command = Command::keys("hincrby", 4, hincrby)
    .flags(COUNTER_FLAGS)
    .acl(acl::HASH)
    .at(COUNTER_KEY)
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("hash", "2.0.0", "Increments the integer value of a field of a hash by a number")
            .complexity("O(1)")
            .arguments("key#0 field increment:int"),
    );

/// HINCRBY key field increment. A field that does not exist is 0. Reply: integer, the sum. Errors: WRONGTYPE; the value
/// or the increment is no integer; the sum is beyond 64 bits. O(1).
fn hincrby(ctx: &mut Ctx<'_>) -> CommandResult {
    let increment = args::integer(ctx.arg(3))?;
    let (key, field, limits) = (ctx.key(1), ctx.arg(2), limits(ctx));

    let mut guard = ctx.shard.change_or_add(ctx.call, key, Event::HINCRBY, PackedKind::Hash);
    let value = match hash_of(guard.value())?.get(field) {
        Some(value) => parse_i64(StringRef::from(value).bytes(&mut Digits::new()))
            .ok_or(CommandError::fixed("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = value.checked_add(increment).ok_or(CommandError::OVERFLOW)?;

    HashMut::new(guard.value_mut(), limits).set(field, Digits::new().format(sum).as_bytes());
    drop(guard);

    ctx.reply.integer(sum);
    Ok(())
}

pub(super) const HINCRBYFLOAT: Command = Command::keys("hincrbyfloat", 4, hincrbyfloat)
    .flags(COUNTER_FLAGS)
    .acl(acl::HASH)
    .at(COUNTER_KEY)
    .constant_time()
    .docs(
        Docs::new("hash", "2.6.0", "Increments the floating point value of a field of a hash by a number")
            .complexity("O(1)")
            .arguments("key#0 field increment:double"),
    );

/// HINCRBYFLOAT key field increment. Adds in the x87 extended format; a field that does not exist is 0. Reply: string,
/// the sum in decimals. Errors: WRONGTYPE; the value is no float; the increment is none or not finite; the sum is not
/// finite. O(1).
fn hincrbyfloat(ctx: &mut Ctx<'_>) -> CommandResult {
    let increment = Extended::parse(ctx.arg(3)).ok_or(CommandError::NOT_FLOAT)?;
    if !increment.is_finite() {
        return Err(CommandError::fixed("ERR value is NaN or Infinity"));
    }
    let (key, field, limits) = (ctx.key(1), ctx.arg(2), limits(ctx));

    let mut guard = ctx.shard.change_or_add(ctx.call, key, Event::HINCRBYFLOAT, PackedKind::Hash);
    let value = hash_of(guard.value())?.get(field);
    let sum = match value {
        Some(value) => Extended::parse(StringRef::from(value).bytes(&mut Digits::new()))
            .ok_or(CommandError::fixed("ERR hash value is not a float"))?
            .checked_add(increment)
            .ok_or(CommandError::fixed("ERR increment would produce NaN or Infinity"))?,
        None => increment,
    };

    let sum = sum.to_human();
    HashMut::new(guard.value_mut(), limits).set(field, sum.as_bytes());
    drop(guard);

    // The effect is the sum, because a replica may not have this format to compute the same.
    ctx.effect(&[b"HSET", key.bytes, field, sum.as_bytes()]);
    ctx.reply.bulk(sum.as_bytes());
    Ok(())
}
