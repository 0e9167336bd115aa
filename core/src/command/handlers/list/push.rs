//! Adding at the ends: LPUSH, RPUSH, LPUSHX, RPUSHX.

use super::{limits, push_event};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::list_of;
use crate::command::{CommandResult, Ctx};
use crate::protocol::Argv;
use crate::shard::change::ChangeGuard;
use crate::types::PackedKind;
use crate::types::list::{End, Limits, ListMut};

const INSERTED: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::INSERT)];
const COMPLEXITY: &str = "O(N), where N is the number of elements that are added";

pub(super) const LPUSH: Command = Command::keys("lpush", -3, lpush)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::LIST)
    .at(INSERTED)
    .docs(
        Docs::new(
            "list",
            "1.0.0",
            "Adds elements at the head of a list, and creates the list if there is none",
        )
        .complexity(COMPLEXITY)
        .arguments("key#0 element...")
        .history(&[("2.4.0", "Several elements")]),
    );

/// LPUSH key element [element ...]. The last element becomes the first of the list. Reply: integer, the new length.
/// Errors: WRONGTYPE. O(elements).
fn lpush(ctx: &mut Ctx<'_>) -> CommandResult {
    push(ctx, End::Head)
}

pub(super) const RPUSH: Command = Command::keys("rpush", -3, rpush)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::LIST)
    .at(INSERTED)
    .docs(
        Docs::new(
            "list",
            "1.0.0",
            "Adds elements at the tail of a list, and creates the list if there is none",
        )
        .complexity(COMPLEXITY)
        .arguments("key#0 element...")
        .history(&[("2.4.0", "Several elements")]),
    );

/// RPUSH key element [element ...]. Reply: integer, the new length. Errors: WRONGTYPE. O(elements).
fn rpush(ctx: &mut Ctx<'_>) -> CommandResult {
    push(ctx, End::Tail)
}

fn push(ctx: &mut Ctx<'_>, end: End) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx.shard);

    let mut list = ctx.shard.change_or_add(ctx.call, key, push_event(end), PackedKind::List);
    let len = push_all(&mut list, end, ctx.args.slice(2..), limits)?;
    drop(list);

    ctx.reply.integer(len as i64);
    Ok(())
}

/// Adds elements at an end. Returns the new length.
///
/// # Errors
/// WRONGTYPE.
#[inline]
fn push_all(
    guard: &mut ChangeGuard<'_>,
    end: End,
    elements: Argv<'_>,
    limits: Limits,
) -> CommandResult<usize> {
    let len = list_of(guard.value())?.len();
    let mut list = ListMut::new(guard.value_mut(), limits);
    match elements.len() {
        1 => list.push(end, elements.arg(0)),
        _ => list.push_all(end, elements.iter()),
    }
    guard.count(elements.len());
    Ok(len + elements.len())
}

pub(super) const LPUSHX: Command = Command::keys("lpushx", -3, lpushx)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::LIST)
    .at(INSERTED)
    .docs(
        Docs::new("list", "2.2.0", "Adds elements at the head of a list that exists")
            .complexity(COMPLEXITY)
            .arguments("key#0 element...")
            .history(&[("4.0.0", "Several elements")]),
    );

/// LPUSHX key element [element ...]. Reply: integer, the new length; 0 if there is no list. Errors: WRONGTYPE.
/// O(elements).
fn lpushx(ctx: &mut Ctx<'_>) -> CommandResult {
    push_if_there(ctx, End::Head)
}

pub(super) const RPUSHX: Command = Command::keys("rpushx", -3, rpushx)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::LIST)
    .at(INSERTED)
    .docs(
        Docs::new("list", "2.2.0", "Adds elements at the tail of a list that exists")
            .complexity(COMPLEXITY)
            .arguments("key#0 element...")
            .history(&[("4.0.0", "Several elements")]),
    );

/// RPUSHX key element [element ...]. Reply: integer, the new length; 0 if there is no list. Errors: WRONGTYPE.
/// O(elements).
fn rpushx(ctx: &mut Ctx<'_>) -> CommandResult {
    push_if_there(ctx, End::Tail)
}

fn push_if_there(ctx: &mut Ctx<'_>, end: End) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx.shard);

    let len = match ctx.shard.change(ctx.call, key, push_event(end)) {
        Some(mut list) => push_all(&mut list, end, ctx.args.slice(2..), limits)?,
        None => 0,
    };

    ctx.reply.integer(len as i64);
    Ok(())
}
