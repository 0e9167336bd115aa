//! Moving an element from one list to another: LMOVE and RPOPLPUSH, and the commands that block until there is one.

use super::{end, is_list, limits, pop_event, push_event};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{Digits, list_of};
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::types::PackedKind;
use crate::types::list::{End, ListMut};
use smallvec::SmallVec;

const SOURCE_AND_DESTINATION: &[KeySpec] = &[
    KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::DELETE),
    KeySpec::one(2, key_flag::RW | key_flag::INSERT),
];

/// An element of at most so many bytes is moved without an allocation.
const SHORT_ELEMENT_BYTES: usize = 128;

pub(super) const LMOVE: Command = Command::keys("lmove", 5, lmove)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::LIST)
    .at(SOURCE_AND_DESTINATION)
    .constant_time()
    .docs(
        Docs::new(
            "list",
            "6.2.0",
            "Moves an element from an end of a list to an end of another and returns it",
        )
        .complexity("O(1)")
        .arguments("source#0 destination#1 wherefrom(LEFT | RIGHT) whereto(LEFT | RIGHT)"),
    );

/// From and to which end LMOVE and BLMOVE move an element.
///
/// # Errors
/// Syntax.
fn ends(ctx: &Ctx<'_>) -> CommandResult<(End, End)> {
    end(ctx.arg(3)).zip(end(ctx.arg(4))).ok_or(CommandError::SYNTAX)
}

/// LMOVE source destination LEFT | RIGHT LEFT | RIGHT. Reply: the element, or null if there is no source. Errors:
/// syntax; WRONGTYPE. O(1).
fn lmove(ctx: &mut Ctx<'_>) -> CommandResult {
    let (from, to) = ends(ctx)?;

    if !transfer(ctx, from, to)? {
        ctx.reply.null();
    }
    Ok(())
}

pub(super) const RPOPLPUSH: Command = Command::keys("rpoplpush", 3, rpoplpush)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::LIST)
    .at(SOURCE_AND_DESTINATION)
    .constant_time()
    .docs(
        Docs::new("list", "1.2.0", "Moves the last element of a list to the head of another and returns it")
            .complexity("O(1)")
            .arguments("source#0 destination#1")
            .deprecated("6.2.0", "`LMOVE` with `RIGHT` and `LEFT`"),
    );

/// RPOPLPUSH source destination: LMOVE source destination RIGHT LEFT. Reply: the element, or null if there is no
/// source. Errors: WRONGTYPE. O(1).
fn rpoplpush(ctx: &mut Ctx<'_>) -> CommandResult {
    if !transfer(ctx, End::Tail, End::Head)? {
        ctx.reply.null();
    }
    Ok(())
}

/// Moves an element from the list at argument 1 to that at argument 2, and replies with it. Returns whether there was
/// one.
///
/// # Errors
/// WRONGTYPE.
fn transfer(ctx: &mut Ctx<'_>, from: End, to: End) -> CommandResult<bool> {
    let (source, destination) = (ctx.key(1), ctx.key(2));
    let limits = limits(ctx.shard);

    let Some(guard) = ctx.shard.change(ctx.call, source, pop_event(from)) else { return Ok(false) };
    let item = list_of(guard.value())?.peek(from).expect("a list has elements");
    let element: SmallVec<[u8; SHORT_ELEMENT_BYTES]> = SmallVec::from_slice(item.bytes(&mut Digits::new()));
    drop(guard);

    // It is added before it is removed, also where both lists are one. So that list stays, and the events come in Redis'
    // order.
    let mut guard = ctx.shard.change_or_add(ctx.call, destination, push_event(to), PackedKind::List);
    list_of(guard.value())?;
    ListMut::new(guard.value_mut(), limits).push(to, &element);
    guard.count_none();
    drop(guard);
    let mut guard = ctx.shard.change(ctx.call, source, pop_event(from)).expect("it was there");
    ListMut::new(guard.value_mut(), limits).remove(from, 1);
    drop(guard);

    ctx.reply.bulk(&element);
    Ok(true)
}

pub(super) const BLMOVE: Command = Command::blocking("blmove", 6, blmove)
    .flags(flag::WRITE | flag::DENYOOM | flag::NOSCRIPT)
    .acl(acl::LIST)
    .at(SOURCE_AND_DESTINATION)
    .ready(is_list)
    .constant_time()
    .docs(
        Docs::new(
            "list",
            "6.2.0",
            "Moves an element from a list to another and returns it, once there is one",
        )
        .complexity("O(1)")
        .arguments("source#0 destination#1 wherefrom(LEFT | RIGHT) whereto(LEFT | RIGHT) timeout:double"),
    );

/// BLMOVE source destination LEFT | RIGHT LEFT | RIGHT timeout. Blocks while there is no source. Reply: the element, or
/// null after the timeout. Errors: syntax; a bad timeout; WRONGTYPE. O(1).
fn blmove(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let (from, to) = ends(ctx)?;
    let deadline_ms = args::deadline_ms(ctx.arg(5), ctx.shard.now_ms)?;

    if transfer(ctx, from, to)? {
        ctx.effect(&[b"LMOVE", ctx.arg(1), ctx.arg(2), ctx.arg(3), ctx.arg(4)]);
        return Ok(None);
    }

    block(ctx, deadline_ms)
}

pub(super) const BRPOPLPUSH: Command = Command::blocking("brpoplpush", 4, brpoplpush)
    .flags(flag::WRITE | flag::DENYOOM | flag::NOSCRIPT)
    .acl(acl::LIST)
    .at(SOURCE_AND_DESTINATION)
    .ready(is_list)
    .constant_time()
    .docs(
        Docs::new(
            "list",
            "2.2.0",
            "Moves the last element of a list to the head of another, once there is one",
        )
        .complexity("O(1)")
        .arguments("source#0 destination#1 timeout:double")
        .history(&[("6.0.0", "The timeout may have decimals")])
        .deprecated("6.2.0", "`BLMOVE` with `RIGHT` and `LEFT`"),
    );

/// BRPOPLPUSH source destination timeout: BLMOVE source destination RIGHT LEFT timeout. Reply: the element, or null
/// after the timeout. Errors: a bad timeout; WRONGTYPE. O(1).
fn brpoplpush(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let deadline_ms = args::deadline_ms(ctx.arg(3), ctx.shard.now_ms)?;

    if transfer(ctx, End::Tail, End::Head)? {
        ctx.effect(&[b"RPOPLPUSH", ctx.arg(1), ctx.arg(2)]);
        return Ok(None);
    }

    block(ctx, deadline_ms)
}

/// Blocks until there is a source. In an EXEC the reply is the null of LMOVE, and not that of a timeout.
fn block(ctx: &mut Ctx<'_>, deadline_ms: Option<i64>) -> CommandResult<Option<BlockRequest>> {
    if ctx.call.in_exec {
        ctx.reply.null();
        return Ok(None);
    }
    ctx.block(1..2, deadline_ms, TimeoutReply::NullArray)
}
