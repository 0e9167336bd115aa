//! Removing members: by name, rank, score or order.

use super::bounds::{Bounds, By};
use super::seeks_order;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::zset_of;
use crate::command::{CommandResult, Ctx};
use crate::shard::event::Event;
use crate::types::zset::ZSetMut;

const KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::DELETE)];

pub(super) const ZREM: Command = Command::keys("zrem", -3, zrem)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .seeks(seeks_order)
    .docs(
        Docs::new("sorted-set", "1.2.0", "Removes members from a sorted set")
            .complexity(
                "O(M*log(N)), where N is the number of members and M the number of those that are removed",
            )
            .arguments("key#0 member...")
            .history(&[("2.4.0", "Takes several members")]),
    );

/// ZREM key member [member ...]. Reply: integer, how many were there. Errors: WRONGTYPE. O(members * log N).
fn zrem(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let mut removed = 0;
    if let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::ZREM) {
        zset_of(guard.value())?;
        let mut value = guard.value_mut();
        let mut set = ZSetMut::new(&mut value);
        removed = ctx.args.iter().skip(2).filter(|member| set.remove(member)).count();
        guard.count(removed);
    }

    ctx.reply.integer(removed as i64);
    Ok(())
}

pub(super) const ZREMRANGEBYRANK: Command =
    Command::keys("zremrangebyrank", 4, zremrangebyrank).flags(flag::WRITE).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "2.0.0", "Removes the members of a range of ranks")
            .complexity("O(log(N)+M), where N is the number of members and M the number of those removed")
            .arguments("key#0 start:int stop:int"),
    );

/// ZREMRANGEBYRANK key start stop. Reply: integer, how many were removed. Errors: not an integer; WRONGTYPE.
/// O(removed * log N).
fn zremrangebyrank(ctx: &mut Ctx<'_>) -> CommandResult {
    remove_range(ctx, By::Rank, Event::ZREMRANGEBYRANK)
}

pub(super) const ZREMRANGEBYSCORE: Command = Command::keys("zremrangebyscore", 4, zremrangebyscore)
    .flags(flag::WRITE)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .docs(
        Docs::new("sorted-set", "1.2.0", "Removes the members of a range of scores")
            .complexity("O(log(N)+M), where N is the number of members and M the number of those removed")
            .arguments("key#0 min:double max:double"),
    );

/// ZREMRANGEBYSCORE key min max. Reply: integer, how many were removed. Errors: not a number; WRONGTYPE.
/// O(removed * log N).
fn zremrangebyscore(ctx: &mut Ctx<'_>) -> CommandResult {
    remove_range(ctx, By::Score, Event::ZREMRANGEBYSCORE)
}

pub(super) const ZREMRANGEBYLEX: Command =
    Command::keys("zremrangebylex", 4, zremrangebylex).flags(flag::WRITE).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "2.8.9", "Removes the members between two strings")
            .complexity("O(log(N)+M), where N is the number of members and M the number of those removed")
            .arguments("key#0 min max"),
    );

/// ZREMRANGEBYLEX key min max, in a set whose scores are all the same. Reply: integer, how many were removed. Errors:
/// not such bounds; WRONGTYPE. O(removed * log N).
fn zremrangebylex(ctx: &mut Ctx<'_>) -> CommandResult {
    remove_range(ctx, By::Member, Event::ZREMRANGEBYLEX)
}

fn remove_range(ctx: &mut Ctx<'_>, by: By, event: Event) -> CommandResult {
    let key = ctx.key(1);
    let bounds = Bounds::parse(by, ctx.args.arg(2), ctx.args.arg(3))?;

    let mut removed = 0;
    if let Some(mut guard) = ctx.shard.change(ctx.call, key, event) {
        let ranks = bounds.ranks(zset_of(guard.value())?, false);
        removed = ranks.len();
        if removed > 0 {
            ZSetMut::new(&mut guard.value_mut()).remove_ranks(ranks, false, |_, _| {});
            guard.count(removed);
        }
    }

    ctx.reply.integer(removed as i64);
    Ok(())
}
