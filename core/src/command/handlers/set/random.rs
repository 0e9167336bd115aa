//! Random members: SPOP removes them, SRANDMEMBER does not.

use super::{limits, reply_member};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::set_of;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::OwnedArgv;
use crate::shard::event::Event;
use crate::types::set::SetMut;
use std::ops::ControlFlow;

pub(super) const SPOP: Command = Command::keys("spop", -2, spop)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::DELETE)])
    .docs(
        Docs::new("set", "1.0.0", "Removes and returns random members of a set")
            .complexity("O(1) without the count, else O(N), where N is the count")
            .arguments("key#0 [count:int@3.2.0]")
            .tips(&["nondeterministic_output"])
            .history(&[("3.2.0", "Takes a count")]),
    );

/// SPOP key [count]. Reply: a random member, or null if there is no set; with a count, the set of so many different
/// members, or of all if there are no more. Errors: syntax; count negative or not an integer; WRONGTYPE. Effects: SREM
/// of each member, or DEL if a count takes them all. O(count).
fn spop(ctx: &mut Ctx<'_>) -> CommandResult {
    match ctx.args.len() {
        2 => pop_one(ctx),
        3 => pop_several(ctx),
        _ => Err(CommandError::SYNTAX),
    }
}

/// SPOP key. Reply: a random member, or null. Errors: WRONGTYPE. O(1).
fn pop_one(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let mut random = ctx.shard.random_numbers();

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::SPOP) else {
        ctx.reply.null();
        return Ok(());
    };
    set_of(guard.value())?;

    let member = SetMut::new(&mut guard.value_mut()).pop(&mut random);
    drop(guard);
    if ctx.notes_effects() {
        ctx.effect(&[b"SREM", key.bytes, &member]);
    }

    ctx.reply.bulk(&member);
    Ok(())
}

/// SPOP key count. Reply: set of so many members, or of all. Errors: count negative or not an integer; WRONGTYPE.
/// O(count).
fn pop_several(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx));
    let count = args::integer(ctx.arg(2)).ok().and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(CommandError::fixed("ERR value is out of range, must be positive"))?;
    let mut random = ctx.shard.random_numbers();

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::SPOP) else {
        ctx.reply.set(0);
        return Ok(());
    };
    let set = set_of(guard.value())?;
    let len = set.len();

    if count >= len {
        ctx.reply.set(len);
        set.each(|member| reply_member(&mut ctx.reply, member));
        SetMut::new(&mut guard.value_mut()).clear();
        guard.count(len);
        drop(guard);
        if ctx.notes_effects() {
            ctx.effect(&[b"DEL", key.bytes]);
        }
        return Ok(());
    }
    let mut popped = OwnedArgv::new();
    if count > 0 {
        let visit = &mut |member: &[u8]| popped.push_arg(member);
        SetMut::new(&mut guard.value_mut()).pop_several(count, limits, &mut random, visit);
        guard.count(count);
    }
    drop(guard);
    if ctx.notes_effects() {
        for member in popped.as_argv() {
            ctx.effect(&[b"SREM", key.bytes, member]);
        }
    }

    ctx.reply.set(popped.len());
    popped.as_argv().iter().for_each(|member| ctx.reply.bulk(member));
    Ok(())
}

pub(super) const SRANDMEMBER: Command = Command::keys("srandmember", -2, srandmember)
    .flags(flag::READONLY)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "1.0.0", "Returns random members of a set")
            .complexity("O(1) without the count, else O(N), where N is the absolute value of the count")
            .arguments("key#0 [count:int@2.6.0]")
            .tips(&["nondeterministic_output"])
            .history(&[("2.6.0", "Takes a count")]),
    );

/// SRANDMEMBER key [count]. Reply: a random member, or null if there is no set; with a count, an array of so many
/// different members, or of all if there are no more; with a negative count, an array of exactly so many, which may
/// repeat. Errors: syntax; count not an integer, or without a counterpart that is positive; WRONGTYPE. O(|count|).
fn srandmember(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let count = match ctx.args.len() {
        2 => None,
        3 => Some(args::integer_in(ctx.arg(2), -i64::MAX..=i64::MAX)?),
        _ => return Err(CommandError::SYNTAX),
    };
    let (mut random, reply_bytes_max) = (ctx.shard.random_numbers(), ctx.reply_bytes_max());
    let random = &mut random;

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        match count {
            Some(_) => ctx.reply.empty_array(),
            None => ctx.reply.null(),
        }
        return Ok(());
    };
    let set = set_of(entry.value())?;

    let reply = &mut ctx.reply;
    match count {
        None => reply_member(reply, set.random(random)),
        Some(count @ 0..) => {
            let count = (count as usize).min(set.len());
            reply.array(count);
            set.sample(count, random, |member| reply_member(reply, member));
        }
        Some(count) => {
            let mark = reply.begin_about(count.unsigned_abs() as usize);
            let mut drawn = 0;
            let _ = set.draw(count.unsigned_abs(), random, |member| {
                drawn += 1;
                reply_member(reply, member);
                // With a reply beyond this length the client is disconnected anyway.
                if reply.out.len() < reply_bytes_max {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            reply.end_array(mark, drawn);
        }
    }
    Ok(())
}
