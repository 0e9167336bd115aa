//! Intersections, unions and differences: SINTER, SUNION, SDIFF, their counterparts that store the result, SINTERCARD.

use super::{limits, reply_member};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::set_of;
use crate::command::{Call, CommandError, CommandResult, Ctx, Key};
use crate::shard::Shard;
use crate::shard::event::Event;
use crate::types::SetExpire;
use crate::types::set::algebra::{difference_is_by_removal, intersect, subtract, unite};
use crate::types::set::{SetBuilder, SetLimits, SetRef};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};

/// The keys of the sets, and of a destination before them.
const STORE_KEYS: &[KeySpec] = &[
    KeySpec::one(1, key_flag::OW | key_flag::UPDATE),
    KeySpec::range(2, -1, 1, key_flag::RO | key_flag::ACCESS),
];

type Keys<'a> = SmallVec<[Key<'a>; 8]>;
type Sets<'a> = SmallVec<[Option<SetRef<'a>>; 8]>;

fn keys_at<'a>(ctx: &Ctx<'a>, range: Range<usize>) -> Keys<'a> {
    let keys: Keys<'a> = range.map(|at| ctx.key(at)).collect();
    ctx.shard.prefetch(keys.iter().map(|key| (ctx.call.db, key.hash)));
    keys
}

/// The sets of these keys; `None` for a key that does not exist.
///
/// # Errors
/// WRONGTYPE: one of the keys has another type.
fn sets_of<'s>(shard: &'s mut Shard, call: &Call, keys: &[Key<'_>]) -> CommandResult<Sets<'s>> {
    let mut exist = SmallVec::<[bool; 8]>::new();
    for key in keys {
        let entry = shard.lookup_read(call, *key);
        exist.push(entry.is_some());
        if let Some(entry) = entry {
            set_of(entry.value())?;
        }
    }
    // All have been looked up, and the shard does not change any more: now they can be borrowed together.
    let shard = &*shard;
    keys.iter()
        .zip(exist)
        .map(|(key, exists)| {
            let entry = if exists { shard.lookup_stored(call.db, *key) } else { None };
            entry.map(|entry| set_of(entry.value())).transpose()
        })
        .collect()
}

/// The sets, if all of them exist.
fn all<'s>(sets: Sets<'s>) -> Option<SmallVec<[SetRef<'s>; 8]>> {
    sets.into_iter().collect()
}

/// Those of the sets that exist.
fn existing<'s>(sets: Sets<'s>) -> SmallVec<[SetRef<'s>; 8]> {
    sets.into_iter().flatten().collect()
}

/// Stores a result at the key at argument 1, or deletes that key if the result is empty. Reply: its number of members.
fn store(ctx: &mut Ctx<'_>, result: SetBuilder, event: Event) {
    let key = ctx.key(1);
    let len = result.get().len();
    if len == 0 {
        ctx.shard.delete(ctx.call, key, Event::DEL);
    } else {
        ctx.shard.set(ctx.call, key, result.into_value().into(), SetExpire::Clear, event);
    }
    ctx.reply.integer(len as i64);
}

pub(super) const SINTER: Command = Command::keys("sinter", -2, sinter)
    .flags(flag::READONLY)
    .acl(acl::SET)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "1.0.0", "Returns the intersection of sets")
            .complexity("O(N*M), where N is the size of the smallest set and M the number of sets")
            .arguments("key#0...")
            .tips(&["nondeterministic_output_order"]),
    );

/// SINTER key [key ...]. Reply: set of the members that all sets have. Errors: WRONGTYPE. O(smallest set * sets).
fn sinter(ctx: &mut Ctx<'_>) -> CommandResult {
    let keys = keys_at(ctx, 1..ctx.args.len());

    let sets = sets_of(ctx.shard, ctx.call, &keys)?;
    let Some(mut sets) = all(sets) else {
        ctx.reply.set(0);
        return Ok(());
    };

    let reply = &mut ctx.reply;
    let mark = reply.begin_about(sets.iter().map(|set| set.len()).min().unwrap_or(0));
    let mut count = 0;
    let _: ControlFlow<()> = intersect(&mut sets, |member| {
        count += 1;
        reply_member(reply, member);
        ControlFlow::Continue(())
    });
    reply.end_set(mark, count);
    Ok(())
}

pub(super) const SINTERCARD: Command = Command::keys("sintercard", -3, sintercard)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::SET)
    .at(&[KeySpec::counted(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "7.0.0", "Returns the size of the intersection of sets")
            .complexity("O(N*M), where N is the size of the smallest set and M the number of sets")
            .arguments("numkeys:int key#0... [LIMIT limit:int]"),
    );

/// SINTERCARD numkeys key [key ...] [LIMIT limit]. With a limit other than 0, counts no further. Reply: integer, how
/// many members all sets have. Errors: numkeys not positive, or more than there are arguments; limit negative or not
/// an integer; syntax; WRONGTYPE. O(smallest set * sets).
fn sintercard(ctx: &mut Ctx<'_>) -> CommandResult {
    let key_count = args::integer(ctx.arg(1)).ok().filter(|count| *count > 0);
    let key_count = key_count.ok_or(CommandError::fixed("ERR numkeys should be greater than 0"))?;
    if key_count > ctx.args.len() as i64 - 2 {
        return Err(CommandError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    let keys_end = 2 + key_count as usize;
    let mut limit = 0;
    let mut rest = ctx.args.slice(keys_end..).iter();
    while let Some(option) = rest.next() {
        let value = rest.next().filter(|_| args::is(option, "limit")).ok_or(CommandError::SYNTAX)?;
        let number = args::integer(value).ok().and_then(|limit| u64::try_from(limit).ok());
        limit = number.ok_or(CommandError::fixed("ERR LIMIT can't be negative"))?;
    }
    let keys = keys_at(ctx, 2..keys_end);

    let sets = sets_of(ctx.shard, ctx.call, &keys)?;

    let mut count = 0u64;
    if let Some(mut sets) = all(sets) {
        let _ = intersect(&mut sets, |_| {
            count += 1;
            if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    ctx.reply.integer(count as i64);
    Ok(())
}

pub(super) const SINTERSTORE: Command = Command::keys("sinterstore", -3, sinterstore)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::SET)
    .at(&[
        KeySpec::one(1, key_flag::RW | key_flag::UPDATE),
        KeySpec::range(2, -1, 1, key_flag::RO | key_flag::ACCESS),
    ])
    .docs(
        Docs::new("set", "1.0.0", "Stores the intersection of sets in a key")
            .complexity("O(N*M), where N is the size of the smallest set and M the number of sets")
            .arguments("destination#0 key#1..."),
    );

/// SINTERSTORE destination key [key ...]. Replaces the destination, or deletes it if the result is empty. Reply:
/// integer, the number of members stored. Errors: WRONGTYPE of a key that is not the destination. O(smallest set * sets).
fn sinterstore(ctx: &mut Ctx<'_>) -> CommandResult {
    let (keys, limits) = (keys_at(ctx, 2..ctx.args.len()), limits(ctx));

    let sets = sets_of(ctx.shard, ctx.call, &keys)?;

    let mut result = SetBuilder::new(limits);
    if let Some(mut sets) = all(sets) {
        let _: ControlFlow<()> = intersect(&mut sets, |member| {
            result.add(member);
            ControlFlow::Continue(())
        });
    }
    store(ctx, result, Event::SINTERSTORE);
    Ok(())
}

pub(super) const SUNION: Command = Command::keys("sunion", -2, sunion)
    .flags(flag::READONLY)
    .acl(acl::SET)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "1.0.0", "Returns the union of sets")
            .complexity("O(N), where N is the number of members of all sets")
            .arguments("key#0...")
            .tips(&["nondeterministic_output_order"]),
    );

/// SUNION key [key ...]. Reply: set of the members that any of the sets has. Errors: WRONGTYPE. O(members of all sets).
fn sunion(ctx: &mut Ctx<'_>) -> CommandResult {
    let keys = keys_at(ctx, 1..ctx.args.len());

    let mut sets = existing(sets_of(ctx.shard, ctx.call, &keys)?);

    let reply = &mut ctx.reply;
    let mark = reply.begin_about(sets.iter().map(|set| set.len()).max().unwrap_or(0));
    let mut count = 0;
    unite(&mut sets, |member| {
        count += 1;
        reply_member(reply, member);
    });
    reply.end_set(mark, count);
    Ok(())
}

pub(super) const SUNIONSTORE: Command = Command::keys("sunionstore", -3, sunionstore)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::SET)
    .at(STORE_KEYS)
    .docs(
        Docs::new("set", "1.0.0", "Stores the union of sets in a key")
            .complexity("O(N), where N is the number of members of all sets")
            .arguments("destination#0 key#1..."),
    );

/// SUNIONSTORE destination key [key ...]. Replaces the destination, or deletes it if the result is empty. Reply:
/// integer, the number of members stored. Errors: WRONGTYPE of a key that is not the destination. O(members of all
/// sets).
fn sunionstore(ctx: &mut Ctx<'_>) -> CommandResult {
    let (keys, limits) = (keys_at(ctx, 2..ctx.args.len()), limits(ctx));

    let result = united(existing(sets_of(ctx.shard, ctx.call, &keys)?), limits);

    store(ctx, result, Event::SUNIONSTORE);
    Ok(())
}

/// The union as a new set.
fn united(mut sets: SmallVec<[SetRef<'_>; 8]>, limits: SetLimits) -> SetBuilder {
    sets.sort_by_key(|set| Reverse(set.len()));
    let Some((largest, others)) = sets.split_first() else { return SetBuilder::new(limits) };
    let mut result = SetBuilder::from_copy(*largest, limits);
    others.iter().for_each(|set| result.add_all(*set));
    result
}

pub(super) const SDIFF: Command = Command::keys("sdiff", -2, sdiff)
    .flags(flag::READONLY)
    .acl(acl::SET)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "1.0.0", "Returns the difference of the first set and the others")
            .complexity("O(N), where N is the number of members of all sets")
            .arguments("key#0...")
            .tips(&["nondeterministic_output_order"]),
    );

/// SDIFF key [key ...]. Reply: set of the members of the first set that none of the others has. Errors: WRONGTYPE.
/// O(members of all sets).
fn sdiff(ctx: &mut Ctx<'_>) -> CommandResult {
    let keys = keys_at(ctx, 1..ctx.args.len());

    let mut sets = sets_of(ctx.shard, ctx.call, &keys)?;
    let Some(first) = sets.remove(0) else {
        ctx.reply.set(0);
        return Ok(());
    };
    let mut others = existing(sets);

    let by_removal = difference_is_by_removal(first, &others);
    let reply = &mut ctx.reply;
    let mark = reply.begin_about(first.len());
    let mut count = 0;
    subtract(first, &mut others, by_removal, |member| {
        count += 1;
        reply_member(reply, member);
    });
    reply.end_set(mark, count);
    Ok(())
}

pub(super) const SDIFFSTORE: Command = Command::keys("sdiffstore", -3, sdiffstore)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::SET)
    .at(STORE_KEYS)
    .docs(
        Docs::new("set", "1.0.0", "Stores the difference of the first set and the others in a key")
            .complexity("O(N), where N is the number of members of all sets")
            .arguments("destination#0 key#1..."),
    );

/// SDIFFSTORE destination key [key ...]. Replaces the destination, or deletes it if the result is empty. Reply:
/// integer, the number of members stored. Errors: WRONGTYPE of a key that is not the destination. O(members of all
/// sets).
fn sdiffstore(ctx: &mut Ctx<'_>) -> CommandResult {
    let (keys, limits) = (keys_at(ctx, 2..ctx.args.len()), limits(ctx));

    let result = subtracted(sets_of(ctx.shard, ctx.call, &keys)?, limits);

    store(ctx, result, Event::SDIFFSTORE);
    Ok(())
}

/// The difference as a new set.
fn subtracted(mut sets: Sets<'_>, limits: SetLimits) -> SetBuilder {
    let Some(first) = sets.remove(0) else { return SetBuilder::new(limits) };
    let mut others = existing(sets);
    let by_removal = difference_is_by_removal(first, &others);
    // By removal, Redis begins with a copy of the first set, whose encoding the result keeps.
    let is_table = by_removal && !SetBuilder::stays_intset(first, limits);
    let mut result = if is_table { SetBuilder::new_table() } else { SetBuilder::new(limits) };
    subtract(first, &mut others, by_removal, |member| {
        result.add(member);
    });
    result
}
