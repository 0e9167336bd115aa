//! Reading: the number of members, scores, ranks, and the sizes of ranges.

use super::bounds::{Bounds, By};
use super::seeks_order;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag, seeks_element};
use crate::command::typed::zset_of;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Reply;

const KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)];

pub(super) const ZCARD: Command = Command::keys("zcard", 2, zcard)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .docs(
        Docs::new("sorted-set", "1.2.0", "Returns the number of members of a sorted set")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// ZCARD key. Reply: integer, the number of members, 0 if there is no set. Errors: WRONGTYPE. O(1).
fn zcard(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let len = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => zset_of(entry.value())?.len(),
        None => 0,
    };

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const ZSCORE: Command = Command::keys("zscore", 3, zscore)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("sorted-set", "1.2.0", "Returns the score of a member")
            .complexity("O(1)")
            .arguments("key#0 member"),
    );

/// ZSCORE key member. Reply: the score, or null. Errors: WRONGTYPE. O(1).
fn zscore(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let score = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => zset_of(entry.value())?.score(ctx.args.arg(2)),
        None => None,
    };

    reply_score(&mut ctx.reply, score);
    Ok(())
}

fn reply_score(reply: &mut Reply<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

pub(super) const ZMSCORE: Command = Command::keys("zmscore", -3, zmscore)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .docs(
        Docs::new("sorted-set", "6.2.0", "Returns the scores of members")
            .complexity("O(N), where N is the number of members asked for")
            .arguments("key#0 member..."),
    );

/// ZMSCORE key member [member ...]. Reply: array of the scores, null for who is not there. Errors: WRONGTYPE.
/// O(members).
fn zmscore(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let set = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => Some(zset_of(entry.value())?),
        None => None,
    };

    let reply = &mut ctx.reply;
    reply.array(ctx.args.len() - 2);
    for member in ctx.args.iter().skip(2) {
        reply_score(reply, set.and_then(|set| set.score(member)));
    }
    Ok(())
}

pub(super) const ZRANK: Command = Command::keys("zrank", -3, zrank)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .seeks(seeks_order)
    .docs(
        Docs::new("sorted-set", "2.0.0", "Returns the rank of a member, from the lowest score on")
            .complexity("O(log(N))")
            .arguments("key#0 member [WITHSCORE@7.2.0]")
            .history(&[("7.2.0", "Option `WITHSCORE`")]),
    );

/// ZRANK key member [WITHSCORE]. Reply: integer, how many members are before it, or null; with WITHSCORE an array of
/// that and the score, or a null array. Errors: syntax; WRONGTYPE. O(log N).
fn zrank(ctx: &mut Ctx<'_>) -> CommandResult {
    rank(ctx, "zrank", false)
}

pub(super) const ZREVRANK: Command = Command::keys("zrevrank", -3, zrevrank)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .seeks(seeks_order)
    .docs(
        Docs::new("sorted-set", "2.0.0", "Returns the rank of a member, from the highest score on")
            .complexity("O(log(N))")
            .arguments("key#0 member [WITHSCORE@7.2.0]")
            .history(&[("7.2.0", "Option `WITHSCORE`")]),
    );

/// ZREVRANK key member [WITHSCORE]. Reply: integer, how many members are behind it, as ZRANK. O(log N).
fn zrevrank(ctx: &mut Ctx<'_>) -> CommandResult {
    rank(ctx, "zrevrank", true)
}

fn rank(ctx: &mut Ctx<'_>, command: &str, reverse: bool) -> CommandResult {
    let key = ctx.key(1);
    let with_score = match ctx.args.len() {
        3 => false,
        4 if args::is(ctx.arg(3), "withscore") => true,
        4 => return Err(CommandError::SYNTAX),
        _ => return Err(CommandError::wrong_arity(command)),
    };

    let found = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => {
            let set = zset_of(entry.value())?;
            let found = set.rank(ctx.args.arg(2));
            found.map(|(rank, score)| (if reverse { set.len() - 1 - rank } else { rank }, score))
        }
        None => None,
    };

    let reply = &mut ctx.reply;
    match (found, with_score) {
        (Some((rank, _)), false) => reply.integer(rank as i64),
        (Some((rank, score)), true) => {
            reply.array(2);
            reply.integer(rank as i64);
            reply.double(score);
        }
        (None, false) => reply.null(),
        (None, true) => reply.null_array(),
    }
    Ok(())
}

pub(super) const ZCOUNT: Command =
    Command::keys("zcount", 4, zcount).flags(flag::READONLY | flag::FAST).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "2.0.0", "Returns how many members have scores of a range")
            .complexity("O(log(N)), where N is the number of members")
            .arguments("key#0 min:double max:double"),
    );

/// ZCOUNT key min max. Reply: integer, how many scores lie in the range. Errors: not a number; WRONGTYPE. O(log N).
fn zcount(ctx: &mut Ctx<'_>) -> CommandResult {
    count_range(ctx, By::Score)
}

pub(super) const ZLEXCOUNT: Command = Command::keys("zlexcount", 4, zlexcount)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .docs(
        Docs::new("sorted-set", "2.8.9", "Returns how many members lie between two strings")
            .complexity("O(log(N)), where N is the number of members")
            .arguments("key#0 min max"),
    );

/// ZLEXCOUNT key min max, of a set whose scores are all the same. Reply: integer, how many members lie in the range.
/// Errors: not such bounds; WRONGTYPE. O(log N).
fn zlexcount(ctx: &mut Ctx<'_>) -> CommandResult {
    count_range(ctx, By::Member)
}

fn count_range(ctx: &mut Ctx<'_>, by: By) -> CommandResult {
    let key = ctx.key(1);
    let bounds = Bounds::parse(by, ctx.args.arg(2), ctx.args.arg(3))?;

    let count = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => bounds.ranks(zset_of(entry.value())?, false).len(),
        None => 0,
    };

    ctx.reply.integer(count as i64);
    Ok(())
}
