//! Changing lists elsewhere than at an end: LSET, LINSERT, LREM, LTRIM.

use super::{limits, range};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::list_of;
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::shard::event::Event;
use crate::types::list::{End, ListMut};

pub(super) const LSET: Command = Command::keys("lset", 4, lset)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::UPDATE)])
    .docs(
        Docs::new("list", "1.0.0", "Replaces the element at an index of a list")
            .complexity("O(N), where N is the number of nodes between the element and the nearer end")
            .arguments("key#0 index:int element"),
    );

/// LSET key index element. Reply: OK. Errors: no such key; WRONGTYPE; not an integer; no such index. O(nodes from the
/// nearer end).
fn lset(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx.shard);
    let (index, element) = (ctx.arg(2), ctx.arg(3));

    let mut guard = ctx.shard.change(ctx.call, key, Event::LSET).ok_or(CommandError::NO_SUCH_KEY)?;
    let list = list_of(guard.value())?;
    let index = list.index(args::integer(index)?);
    let index = index.ok_or(CommandError::fixed("ERR index out of range"))?;

    ListMut::new(guard.value_mut(), limits).set(index, element);
    drop(guard);

    ctx.reply.ok();
    Ok(())
}

pub(super) const LINSERT: Command = Command::keys("linsert", 5, linsert)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::INSERT)])
    .docs(
        Docs::new("list", "2.2.0", "Inserts an element before or after another one of a list")
            .complexity("O(N), where N is the number of elements before the pivot")
            .arguments("key#0 where(BEFORE | AFTER) pivot element"),
    );

/// LINSERT key BEFORE | AFTER pivot element. Reply: integer, the new length; 0 if there is no list, -1 if it does not
/// have the pivot. Errors: syntax; WRONGTYPE. O(elements before the pivot).
fn linsert(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx.shard);
    let is_after = if args::is(ctx.arg(2), "after") {
        true
    } else if args::is(ctx.arg(2), "before") {
        false
    } else {
        return Err(CommandError::SYNTAX);
    };
    let (pivot, element) = (ctx.arg(3), ctx.arg(4));

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::LINSERT) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let list = list_of(guard.value())?;
    let len = list.len();
    let Some(pivot) = list.position(pivot) else {
        ctx.reply.integer(-1);
        return Ok(());
    };

    ListMut::new(guard.value_mut(), limits).insert(pivot + usize::from(is_after), element);
    drop(guard);

    ctx.reply.integer(len as i64 + 1);
    Ok(())
}

pub(super) const LREM: Command = Command::keys("lrem", 4, lrem)
    .flags(flag::WRITE)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::DELETE)])
    .docs(
        Docs::new("list", "1.0.0", "Removes elements that equal a value from a list")
            .complexity("O(N), where N is the length of the list")
            .arguments("key#0 count:int element"),
    );

/// LREM key count element. Removes the first `count` matches; from the tail if it is negative; all if it is 0. Reply:
/// integer, how many were removed. Errors: not an integer; WRONGTYPE. O(length).
fn lrem(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx.shard);
    let count = args::integer(ctx.arg(2))?;
    let element = ctx.arg(3);
    let from = if count < 0 { End::Tail } else { End::Head };
    let removed_max = match count {
        0 => usize::MAX,
        _ => count.unsigned_abs() as usize,
    };

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::LREM) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let list = list_of(guard.value())?;

    let removed = match list.position(element) {
        Some(_) => ListMut::new(guard.value_mut(), limits).remove_equal(element, from, removed_max),
        None => 0,
    };
    guard.count(removed);
    drop(guard);

    ctx.reply.integer(removed as i64);
    Ok(())
}

pub(super) const LTRIM: Command = Command::keys("ltrim", 4, ltrim)
    .flags(flag::WRITE)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::DELETE)])
    .docs(
        Docs::new("list", "1.0.0", "Removes the elements outside of a range from a list")
            .complexity("O(N), where N is the number of nodes that are removed")
            .arguments("key#0 start:int stop:int"),
    );

/// LTRIM key start stop. Keeps the elements of the range. Reply: OK. Errors: not an integer; WRONGTYPE. O(nodes
/// removed).
fn ltrim(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx.shard);
    let (start, stop) = (args::integer(ctx.arg(2))?, args::integer(ctx.arg(3))?);

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::LTRIM) else {
        ctx.reply.ok();
        return Ok(());
    };
    let len = list_of(guard.value())?.len();
    let kept = range(start, stop, len);

    let removed = len - kept.len();
    if removed > 0 {
        let mut list = ListMut::new(guard.value_mut(), limits);
        list.remove(End::Tail, len - kept.end);
        list.remove(End::Head, kept.start);
        guard.count(removed);
    } else {
        // Redis reports the event even so.
        guard.count_none();
    }
    drop(guard);

    ctx.reply.ok();
    Ok(())
}
