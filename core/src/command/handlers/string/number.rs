//! Strings that are numbers: INCR and related commands.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{Digits, StringRef};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::extended::Extended;
use crate::shard::event::Event;
use crate::types::{NewValue, SetExpire};

const COUNTER_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)];
const COUNTER_FLAGS: u64 = flag::WRITE | flag::DENYOOM | flag::FAST;

pub(super) const INCR: Command = Command::keys("incr", 2, incr)
    .flags(COUNTER_FLAGS)
    .acl(acl::STRING)
    .at(COUNTER_KEY)
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Increments the integer value of a key by one")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// INCR key. See [`add`]. O(1).
fn incr(ctx: &mut Ctx<'_>) -> CommandResult {
    add(ctx, 1)
}

pub(super) const DECR: Command = Command::keys("decr", 2, decr)
    .flags(COUNTER_FLAGS)
    .acl(acl::STRING)
    .at(COUNTER_KEY)
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Decrements the integer value of a key by one")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// DECR key. See [`add`]. O(1).
fn decr(ctx: &mut Ctx<'_>) -> CommandResult {
    add(ctx, -1)
}

pub(super) const INCRBY: Command = Command::keys("incrby", 3, incrby)
    .flags(COUNTER_FLAGS)
    .acl(acl::STRING)
    .at(COUNTER_KEY)
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Increments the integer value of a key by a number")
            .complexity("O(1)")
            .arguments("key#0 increment:int"),
    );

/// INCRBY key increment. See [`add`]. Errors also: the increment is no integer. O(1).
fn incrby(ctx: &mut Ctx<'_>) -> CommandResult {
    let increment = args::integer(ctx.arg(2))?;
    add(ctx, increment)
}

pub(super) const DECRBY: Command = Command::keys("decrby", 3, decrby)
    .flags(COUNTER_FLAGS)
    .acl(acl::STRING)
    .at(COUNTER_KEY)
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Decrements the integer value of a key by a number")
            .complexity("O(1)")
            .arguments("key#0 decrement:int"),
    );

/// DECRBY key decrement. See [`add`]. Errors also: the decrement is no integer, or the one whose negative is none.
/// O(1).
fn decrby(ctx: &mut Ctx<'_>) -> CommandResult {
    let decrement = args::integer(ctx.arg(2))?;
    let increment = decrement.checked_neg().ok_or(CommandError::fixed("ERR decrement would overflow"))?;
    add(ctx, increment)
}

/// Adds to the number at argument 1, 0 without a key; the expiry stays. Reply: the sum. Errors: WRONGTYPE; the value is
/// no integer; the sum is beyond 64 bits.
#[inline]
fn add(ctx: &mut Ctx<'_>, increment: i64) -> CommandResult {
    let key = ctx.key(1);

    let sum = if let Some(mut number) = ctx.shard.change(ctx.call, key, Event::INCRBY) {
        let value = StringRef::of(number.value())?.integer()?;
        let sum = value.checked_add(increment).ok_or(CommandError::OVERFLOW)?;
        number.set_int(sum);
        sum
    } else {
        ctx.shard.set(ctx.call, key, NewValue::Int(increment), SetExpire::Clear, Event::INCRBY);
        increment
    };

    ctx.reply.integer(sum);
    Ok(())
}

pub(super) const INCRBYFLOAT: Command = Command::keys("incrbyfloat", 3, incrbyfloat)
    .flags(COUNTER_FLAGS)
    .acl(acl::STRING)
    .at(COUNTER_KEY)
    .constant_time()
    .docs(
        Docs::new("string", "2.6.0", "Increments the floating point value of a key by a number")
            .complexity("O(1)")
            .arguments("key#0 increment:double"),
    );

/// INCRBYFLOAT key increment. Adds in the x87 extended format; the expiry stays. Reply: string, the sum in decimals.
/// Errors: WRONGTYPE; the value or the increment is no float; the sum is not finite. O(1).
fn incrbyfloat(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let increment = Extended::parse(ctx.arg(2));

    // Stored as the bytes that it is shown as, also where it is a whole number.
    let sum = if let Some(mut number) = ctx.shard.change(ctx.call, key, Event::INCRBYFLOAT) {
        let value = StringRef::of(number.value())?;
        let sum = float_sum(Extended::parse(value.bytes(&mut Digits::new())), increment)?;
        number.set(NewValue::Str(sum.as_bytes()));
        sum
    } else {
        let sum = float_sum(Extended::parse(b"0"), increment)?;
        let value = NewValue::Str(sum.as_bytes());
        ctx.shard.set(ctx.call, key, value, SetExpire::Clear, Event::INCRBYFLOAT);
        sum
    };

    // The effect is the sum, because a replica may not have this format to compute the same.
    ctx.effect(&[b"SET", key.bytes, sum.as_bytes(), b"KEEPTTL"]);
    ctx.reply.bulk(sum.as_bytes());
    Ok(())
}

/// The sum in decimals.
///
/// # Errors
/// One of the two is no float; the sum is not finite.
fn float_sum(value: Option<Extended>, increment: Option<Extended>) -> CommandResult<String> {
    let (Some(value), Some(increment)) = (value, increment) else { return Err(CommandError::NOT_FLOAT) };
    let sum = value.checked_add(increment);
    let sum = sum.ok_or(CommandError::fixed("ERR increment would produce NaN or Infinity"))?;
    Ok(sum.to_human())
}
