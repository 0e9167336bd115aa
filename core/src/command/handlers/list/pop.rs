//! Taking from the ends: LPOP, RPOP, LMPOP, and the commands that block until there is something to take.

use super::{end, is_list, limits, pop_event, reply_item, reply_popped};
use crate::command::docs::Docs;
use crate::command::handlers::multi_pop::MultiPop;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::list_of;
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::types::list::{End, ListMut};

const POPPED: u32 = key_flag::RW | key_flag::ACCESS | key_flag::DELETE;

pub(super) const LPOP: Command = Command::keys("lpop", -2, lpop)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, POPPED)])
    .docs(
        Docs::new("list", "1.0.0", "Removes the first elements of a list and returns them")
            .complexity("O(N), where N is the number of elements that are returned")
            .arguments("key#0 [count:int@6.2.0]")
            .history(&[("6.2.0", "Argument `count`")]),
    );

/// LPOP key [count]. Reply: the element, or null; with a count an array of elements, or null. Errors: a negative
/// count; WRONGTYPE. O(count).
fn lpop(ctx: &mut Ctx<'_>) -> CommandResult {
    pop(ctx, End::Head, "lpop")
}

pub(super) const RPOP: Command = Command::keys("rpop", -2, rpop)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, POPPED)])
    .docs(
        Docs::new("list", "1.0.0", "Removes the last elements of a list and returns them")
            .complexity("O(N), where N is the number of elements that are returned")
            .arguments("key#0 [count:int@6.2.0]")
            .history(&[("6.2.0", "Argument `count`")]),
    );

/// RPOP key [count]. The last element comes first. Reply: the element, or null; with a count an array of elements, or
/// null. Errors: a negative count; WRONGTYPE. O(count).
fn rpop(ctx: &mut Ctx<'_>) -> CommandResult {
    pop(ctx, End::Tail, "rpop")
}

fn pop(ctx: &mut Ctx<'_>, end: End, command: &str) -> CommandResult {
    const NEGATIVE: CommandError = CommandError::fixed("ERR value is out of range, must be positive");
    let key = ctx.key(1);
    let limits = limits(ctx.shard);
    let count = match ctx.args.len() {
        2 => None,
        3 => Some(
            args::integer(ctx.arg(2)).ok().and_then(|count| usize::try_from(count).ok()).ok_or(NEGATIVE)?,
        ),
        _ => return Err(CommandError::wrong_arity(command)),
    };

    let Some(mut guard) = ctx.shard.change(ctx.call, key, pop_event(end)) else {
        match count {
            None => ctx.reply.null(),
            Some(_) => ctx.reply.null_array(),
        }
        return Ok(());
    };
    let list = list_of(guard.value())?;

    let popped = count.unwrap_or(1).min(list.len());
    match count {
        None => reply_item(&mut ctx.reply, list.peek(end).expect("a list has elements")),
        Some(_) => reply_popped(&mut ctx.reply, list, end, popped),
    }

    if popped > 0 {
        ListMut::new(guard.value_mut(), limits).remove(end, popped);
        guard.count(popped);
    }
    Ok(())
}

/// Takes from the list at argument `at`, if there is one, and replies with its key and what was taken: an element, or
/// with a count an array of elements. Records the effect of that. Returns whether there was something to take.
///
/// # Errors
/// WRONGTYPE.
fn pop_with_key(ctx: &mut Ctx<'_>, at: usize, end: End, count: Option<usize>) -> CommandResult<bool> {
    let key = ctx.key(at);
    let limits = limits(ctx.shard);
    let Some(mut guard) = ctx.shard.change(ctx.call, key, pop_event(end)) else { return Ok(false) };
    let list = list_of(guard.value())?;

    let popped = count.unwrap_or(1).min(list.len());
    ctx.reply.array(2);
    ctx.reply.bulk(key.bytes);
    match count {
        None => reply_item(&mut ctx.reply, list.peek(end).expect("a list has elements")),
        Some(_) => reply_popped(&mut ctx.reply, list, end, popped),
    }

    ListMut::new(guard.value_mut(), limits).remove(end, popped);
    guard.count(popped);
    drop(guard);

    if ctx.notes_effects() {
        let command: &[u8] = match end {
            End::Head => b"LPOP",
            End::Tail => b"RPOP",
        };
        match count {
            None => ctx.effect(&[command, key.bytes]),
            Some(_) => ctx.effect(&[command, key.bytes, itoa::Buffer::new().format(popped).as_bytes()]),
        }
    }
    Ok(true)
}

pub(super) const LMPOP: Command = Command::keys("lmpop", -4, lmpop)
    .flags(flag::WRITE | flag::MOVABLEKEYS)
    .acl(acl::LIST)
    .at(&[KeySpec::counted(1, POPPED)])
    .docs(
        Docs::new("list", "7.0.0", "Removes elements of the first list that exists and returns them")
            .complexity(
                "O(N+M), where N is the number of keys and M the number of elements that are returned",
            )
            .arguments("numkeys:int key#0... where(LEFT | RIGHT) [COUNT count:int]"),
    );

/// LMPOP numkeys key [key ...] LEFT | RIGHT [COUNT count]. Reply: array of the key and an array of elements, or null.
/// Errors: numkeys or count < 1; syntax; WRONGTYPE. O(keys + count).
fn lmpop(ctx: &mut Ctx<'_>) -> CommandResult {
    let MultiPop { keys, end, count } = MultiPop::parse(ctx.args, 1, end)?;

    for at in keys {
        if pop_with_key(ctx, at, end, Some(count))? {
            return Ok(());
        }
    }

    ctx.reply.null_array();
    Ok(())
}

pub(super) const BLPOP: Command = Command::blocking("blpop", -3, blpop)
    .flags(flag::WRITE | flag::NOSCRIPT)
    .acl(acl::LIST)
    .at(&[KeySpec::range(1, -2, 1, POPPED)])
    .ready(is_list)
    .docs(
        Docs::new("list", "2.0.0", "Removes the first element of a list and returns it, once there is one")
            .complexity("O(N), where N is the number of keys")
            .arguments("key#0... timeout:double")
            .history(&[("6.0.0", "The timeout may have decimals")]),
    );

/// BLPOP key [key ...] timeout. Takes from the first list that exists, or blocks until there is one. Reply: array of
/// the key and the element, or null after the timeout. Errors: a bad timeout; WRONGTYPE. O(keys).
fn blpop(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    blocking_pop(ctx, End::Head)
}

pub(super) const BRPOP: Command = Command::blocking("brpop", -3, brpop)
    .flags(flag::WRITE | flag::NOSCRIPT)
    .acl(acl::LIST)
    .at(&[KeySpec::range(1, -2, 1, POPPED)])
    .ready(is_list)
    .docs(
        Docs::new("list", "2.0.0", "Removes the last element of a list and returns it, once there is one")
            .complexity("O(N), where N is the number of keys")
            .arguments("key#0... timeout:double")
            .history(&[("6.0.0", "The timeout may have decimals")]),
    );

/// BRPOP key [key ...] timeout. Takes from the first list that exists, or blocks until there is one. Reply: array of
/// the key and the element, or null after the timeout. Errors: a bad timeout; WRONGTYPE. O(keys).
fn brpop(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    blocking_pop(ctx, End::Tail)
}

fn blocking_pop(ctx: &mut Ctx<'_>, end: End) -> CommandResult<Option<BlockRequest>> {
    let keys = 1..ctx.args.len() - 1;
    let deadline_ms = args::deadline_ms(ctx.arg(keys.end), ctx.shard.now_ms)?;

    for at in ctx.takes_from(keys.clone()) {
        if pop_with_key(ctx, at, end, None)? {
            return Ok(None);
        }
    }

    ctx.block(keys, deadline_ms, TimeoutReply::NullArray)
}

pub(super) const BLMPOP: Command = Command::blocking("blmpop", -5, blmpop)
    .flags(flag::WRITE | flag::MOVABLEKEYS)
    .acl(acl::LIST)
    .at(&[KeySpec::counted(2, POPPED)])
    .ready(is_list)
    .docs(
        Docs::new("list", "7.0.0", "Removes elements of a list and returns them, once there are some")
            .complexity(
                "O(N+M), where N is the number of keys and M the number of elements that are returned",
            )
            .arguments("timeout:double numkeys:int key#0... where(LEFT | RIGHT) [COUNT count:int]"),
    );

/// BLMPOP timeout numkeys key [key ...] LEFT | RIGHT [COUNT count]. Takes from the first list that exists, or blocks
/// until there is one. Reply: array of the key and an array of elements, or null after the timeout. Errors: numkeys or
/// count < 1; syntax; a bad timeout; WRONGTYPE. O(keys + count).
fn blmpop(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let MultiPop { keys, end, count } = MultiPop::parse(ctx.args, 2, end)?;
    let deadline_ms = args::deadline_ms(ctx.arg(1), ctx.shard.now_ms)?;

    for at in ctx.takes_from(keys.clone()) {
        if pop_with_key(ctx, at, end, Some(count))? {
            return Ok(None);
        }
    }

    ctx.block(keys, deadline_ms, TimeoutReply::NullArray)
}
