//! Removing and returning the members of the lowest or highest scores: ZPOPMIN, ZPOPMAX, ZMPOP, and the forms that wait
//! for a member.

use super::{Scores, reply_element, reply_elements_header, reply_member};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::multi_pop::MultiPop;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::zset_of;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Resp;
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::shard::event::Event;
use crate::types::zset::{ZSetMut, ZSetView};
use std::ops::Range;

const POPPED: u32 = key_flag::RW | key_flag::ACCESS | key_flag::DELETE;

/// From which end members are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Min,
    Max,
}

impl End {
    fn parse(arg: &[u8]) -> Option<End> {
        if args::is(arg, "min") {
            Some(End::Min)
        } else if args::is(arg, "max") {
            Some(End::Max)
        } else {
            None
        }
    }

    fn event(self) -> Event {
        match self {
            End::Min => Event::ZPOPMIN,
            End::Max => Event::ZPOPMAX,
        }
    }

    /// The command that repeats it on a replica.
    fn command(self) -> &'static [u8] {
        match self {
            End::Min => b"ZPOPMIN",
            End::Max => b"ZPOPMAX",
        }
    }
}

/// How the members are returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// Members and scores in turn.
    Flat,
    /// An array of elements.
    Elements,
    /// The key, a member, its score.
    KeyAndElement,
    /// The key, and an array of pairs.
    KeyAndPairs,
}

/// What was popped.
struct Popped {
    /// The argument that is the key.
    key: usize,
    count: usize,
}

/// Pops up to `count` members of the first key, of some arguments, that exists, and replies with them. `None`, and no
/// reply, if there is no such key.
///
/// # Errors
/// WRONGTYPE: that key has another type.
fn pop(
    ctx: &mut Ctx<'_>,
    keys: Range<usize>,
    end: End,
    count: usize,
    form: Form,
) -> CommandResult<Option<Popped>> {
    for at in keys {
        let key = ctx.key(at);
        let Some(mut guard) = ctx.shard.change(ctx.call, key, end.event()) else { continue };
        let len = zset_of(guard.value())?.len();
        let popped = count.min(len);
        let reply = &mut ctx.reply;
        match form {
            Form::Flat => reply.array(popped * 2),
            Form::Elements => reply_elements_header(reply, popped, Scores::With),
            Form::KeyAndElement => {
                reply.array(1 + popped * 2);
                reply.bulk(key.bytes);
            }
            Form::KeyAndPairs => {
                reply.array(2);
                reply.bulk(key.bytes);
                reply.array(popped);
            }
        }
        if popped > 0 {
            let (ranks, reverse) = match end {
                End::Min => (0..popped, false),
                End::Max => (len - popped..len, true),
            };
            let mut value = guard.value_mut();
            ZSetMut::new(&mut value).remove_ranks(ranks, reverse, |member, score| match form {
                Form::Elements => reply_element(reply, member, score, Scores::With),
                Form::Flat | Form::KeyAndElement => {
                    reply_member(reply, member);
                    reply.double(score);
                }
                Form::KeyAndPairs => {
                    reply.array(2);
                    reply_member(reply, member);
                    reply.double(score);
                }
            });
            guard.count(popped);
        }
        return Ok(Some(Popped { key: at, count: popped }));
    }
    Ok(None)
}

/// Records ZPOPMIN or ZPOPMAX with a count as the effect.
fn record_effect(ctx: &mut Ctx<'_>, end: End, popped: &Popped) {
    if ctx.notes_effects() {
        let key = ctx.arg(popped.key);
        ctx.effect(&[end.command(), key, itoa::Buffer::new().format(popped.count).as_bytes()]);
    }
}

pub(super) const ZPOPMIN: Command = Command::keys("zpopmin", -2, zpopmin)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, POPPED)])
    .docs(
        Docs::new("sorted-set", "5.0.0", "Removes and returns the members of the lowest scores")
            .complexity("O(log(N)*M), where N is the number of members and M the number of those popped")
            .arguments("key#0 [count:int]"),
    );

/// ZPOPMIN key [count]. Reply: array of members and scores, without a count of one; with a count RESP3 has an array for
/// each. Errors: syntax; count negative or not an integer; WRONGTYPE. O(count * log N).
fn zpopmin(ctx: &mut Ctx<'_>) -> CommandResult {
    pop_some(ctx, End::Min)
}

pub(super) const ZPOPMAX: Command = Command::keys("zpopmax", -2, zpopmax)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, POPPED)])
    .docs(
        Docs::new("sorted-set", "5.0.0", "Removes and returns the members of the highest scores")
            .complexity("O(log(N)*M), where N is the number of members and M the number of those popped")
            .arguments("key#0 [count:int]"),
    );

/// ZPOPMAX key [count]: as ZPOPMIN, from the other end. O(count * log N).
fn zpopmax(ctx: &mut Ctx<'_>) -> CommandResult {
    pop_some(ctx, End::Max)
}

fn pop_some(ctx: &mut Ctx<'_>, end: End) -> CommandResult {
    let count = match ctx.args.len() {
        2 => None,
        3 => {
            let count = args::integer(ctx.arg(2)).ok().and_then(|count| usize::try_from(count).ok());
            Some(count.ok_or(CommandError::fixed("ERR value is out of range, must be positive"))?)
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let form = if count.is_some() && ctx.reply.resp == Resp::V3 { Form::Elements } else { Form::Flat };

    let popped = pop(ctx, 1..2, end, count.unwrap_or(1), form)?;

    if popped.is_none() {
        ctx.reply.empty_array();
    }
    Ok(())
}

pub(super) const ZMPOP: Command = Command::keys("zmpop", -4, zmpop)
    .flags(flag::WRITE | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::counted(1, POPPED)])
    .docs(
        Docs::new("sorted-set", "7.0.0", "Removes and returns members of the first sorted set that exists")
            .complexity("O(K) + O(M*log(N)), where K is the number of keys, N that of members and M that of popped ones")
            .arguments("numkeys:int key#0... where(MIN | MAX) [COUNT count:int]"),
    );

/// ZMPOP numkeys key [key ...] MIN | MAX [COUNT count]. Reply: array of the first key that exists and an array of pairs
/// of member and score, or a null array. Errors: numkeys or count not positive; syntax; WRONGTYPE. Effects: ZPOPMIN or
/// ZPOPMAX with a count. O(keys + count * log N).
fn zmpop(ctx: &mut Ctx<'_>) -> CommandResult {
    let MultiPop { keys, end, count } = MultiPop::parse(ctx.args, 1, End::parse)?;

    match pop(ctx, keys, end, count, Form::KeyAndPairs)? {
        Some(popped) => record_effect(ctx, end, &popped),
        None => ctx.reply.null_array(),
    }
    Ok(())
}

/// Whether the key at an argument is a sorted set: what the blocked commands wait for.
fn is_zset(ctx: &mut Ctx<'_>, position: usize) -> bool {
    let key = ctx.key(position);
    ctx.shard.exists(ctx.call.db, key)
        && ctx
            .shard
            .lookup_stored(ctx.call.db, key)
            .is_some_and(|entry| ZSetView::of(entry.value()).is_some())
}

const WAITED_KEYS: &[KeySpec] = &[KeySpec::range(1, -2, 1, POPPED)];

const fn waiting(
    name: &'static str,
    run: fn(&mut Ctx<'_>) -> CommandResult<Option<BlockRequest>>,
    docs: Docs,
) -> Command {
    Command::blocking(name, -3, run)
        .flags(flag::WRITE | flag::NOSCRIPT | flag::FAST)
        .acl(acl::SORTEDSET)
        .at(WAITED_KEYS)
        .ready(is_zset)
        .docs(
            docs.complexity("O(log(N)), where N is the number of members")
                .arguments("key#0... timeout:double")
                .history(&[("6.0.0", "`timeout` may have fractions")]),
        )
}

pub(super) const BZPOPMIN: Command = waiting(
    "bzpopmin",
    bzpopmin,
    Docs::new(
        "sorted-set",
        "5.0.0",
        "Waits for a member of several sorted sets, and pops that of the lowest score",
    ),
);

/// BZPOPMIN key [key ...] timeout. Pops from the first key that exists, or waits until one does. Reply: array of key,
/// member and score, or a null array after the timeout (seconds). Errors: timeout; WRONGTYPE. Effects: ZPOPMIN.
/// O(keys + log N).
fn bzpopmin(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    pop_or_wait(ctx, End::Min)
}

pub(super) const BZPOPMAX: Command = waiting(
    "bzpopmax",
    bzpopmax,
    Docs::new(
        "sorted-set",
        "5.0.0",
        "Waits for a member of several sorted sets, and pops that of the highest score",
    ),
);

/// BZPOPMAX key [key ...] timeout: as BZPOPMIN, from the other end. O(keys + log N).
fn bzpopmax(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    pop_or_wait(ctx, End::Max)
}

fn pop_or_wait(ctx: &mut Ctx<'_>, end: End) -> CommandResult<Option<BlockRequest>> {
    let keys = 1..ctx.args.len() - 1;
    let deadline_ms = args::deadline_ms(ctx.arg(keys.end), ctx.shard.now_ms)?;

    let from = ctx.takes_from(keys.clone());
    let Some(popped) = pop(ctx, from, end, 1, Form::KeyAndElement)? else {
        return ctx.block(keys, deadline_ms, TimeoutReply::NullArray);
    };
    if ctx.notes_effects() {
        let key = ctx.arg(popped.key);
        ctx.effect(&[end.command(), key]);
    }
    Ok(None)
}

pub(super) const BZMPOP: Command = Command::blocking("bzmpop", -5, bzmpop)
    .flags(flag::WRITE | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::counted(2, POPPED)])
    .ready(is_zset)
    .docs(
        Docs::new("sorted-set", "7.0.0", "Waits for members of several sorted sets, and pops them")
            .complexity("O(K) + O(M*log(N)), where K is the number of keys, N that of members and M that of popped ones")
            .arguments("timeout:double numkeys:int key#0... where(MIN | MAX) [COUNT count:int]"),
    );

/// BZMPOP timeout numkeys key [key ...] MIN | MAX [COUNT count]: ZMPOP that waits until one of the keys exists, if none
/// does. Reply: as ZMPOP, a null array after the timeout. Errors: as ZMPOP; timeout. O(keys + count * log N).
fn bzmpop(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let MultiPop { keys, end, count } = MultiPop::parse(ctx.args, 2, End::parse)?;
    let deadline_ms = args::deadline_ms(ctx.arg(1), ctx.shard.now_ms)?;

    let from = ctx.takes_from(keys.clone());
    match pop(ctx, from, end, count, Form::KeyAndPairs)? {
        Some(popped) => {
            record_effect(ctx, end, &popped);
            Ok(None)
        }
        None => ctx.block(keys, deadline_ms, TimeoutReply::NullArray),
    }
}
