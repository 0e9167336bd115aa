//! ZRANDMEMBER.

use super::{Scores, elements_len, reply_element, reply_elements_header, reply_member};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::zset_of;
use crate::command::{CommandError, CommandResult, Ctx};
use std::ops::ControlFlow;

pub(super) const ZRANDMEMBER: Command = Command::keys("zrandmember", -2, zrandmember)
    .flags(flag::READONLY)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("sorted-set", "6.2.0", "Returns random members of a sorted set")
            .complexity("O(N), where N is the number of members returned")
            .arguments("key#0 [options{count:int [WITHSCORES]}]")
            .tips(&["nondeterministic_output"]),
    );

/// ZRANDMEMBER key [count [WITHSCORES]]. Reply: a random member, or null if there is no set; with a count, an array of so
/// many different members, or of all if there are no more; with a negative count, an array of exactly so many, which
/// may repeat. Errors: syntax; count not an integer, or so great that its double is none; WRONGTYPE. O(|count|), at
/// most O(N) if it is positive.
fn zrandmember(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let request = if ctx.args.len() > 2 { Some(parse(ctx)?) } else { None };
    let (mut random, reply_bytes_max) = (ctx.shard.random_numbers(), ctx.reply_bytes_max());

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        match request {
            Some(_) => ctx.reply.empty_array(),
            None => ctx.reply.null(),
        }
        return Ok(());
    };
    let set = zset_of(entry.value())?;

    let reply = &mut ctx.reply;
    match request {
        None => reply_member(reply, set.random(&mut random).0),
        Some((count @ 0.., scores)) => {
            let count = (count as usize).min(set.len());
            reply_elements_header(reply, count, scores);
            set.sample(count, &mut random, |member, score| reply_element(reply, member, score, scores));
        }
        Some((count, scores)) => {
            let count = count.unsigned_abs();
            let mark = reply.begin_about(count as usize);
            let mut drawn = 0;
            set.draw(count, &mut random, |member, score| {
                drawn += 1;
                reply_element(reply, member, score, scores);
                // With a reply beyond this length the client is disconnected anyway.
                if reply.out.len() < reply_bytes_max {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            reply.end_array(mark, elements_len(reply, drawn, scores));
        }
    }
    Ok(())
}

/// The count, and whether scores are returned.
fn parse(ctx: &Ctx<'_>) -> CommandResult<(i64, Scores)> {
    let count = args::integer_in(ctx.arg(2), -i64::MAX..=i64::MAX)?;
    match ctx.args.len() {
        3 => Ok((count, Scores::Without)),
        4 if args::is(ctx.arg(3), "withscores") => {
            if count.unsigned_abs() > i64::MAX as u64 / 2 {
                return Err(CommandError::fixed("ERR value is out of range"));
            }
            Ok((count, Scores::With))
        }
        _ => Err(CommandError::SYNTAX),
    }
}
