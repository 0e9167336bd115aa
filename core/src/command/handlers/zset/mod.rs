//! Sorted set commands. The forms of a sorted set are in [`types::zset`](crate::types::zset).

mod add;
mod algebra;
mod bounds;
mod pop;
mod random;
mod range;
mod read;
mod remove;
mod scan;

use crate::command::Ctx;
use crate::command::table::Command;
use crate::protocol::{Argv, Reply, Resp};
use crate::types::fetch::Sought;
use crate::types::listpack::Item;
use crate::types::zset::ZSetLimits;

pub const COMMANDS: &[Command] = &[
    add::ZADD,
    add::ZINCRBY,
    algebra::ZDIFF,
    algebra::ZDIFFSTORE,
    algebra::ZINTER,
    algebra::ZINTERCARD,
    algebra::ZINTERSTORE,
    algebra::ZUNION,
    algebra::ZUNIONSTORE,
    pop::BZMPOP,
    pop::BZPOPMAX,
    pop::BZPOPMIN,
    pop::ZMPOP,
    pop::ZPOPMAX,
    pop::ZPOPMIN,
    random::ZRANDMEMBER,
    range::ZRANGE,
    range::ZRANGEBYLEX,
    range::ZRANGEBYSCORE,
    range::ZRANGESTORE,
    range::ZREVRANGE,
    range::ZREVRANGEBYLEX,
    range::ZREVRANGEBYSCORE,
    read::ZCARD,
    read::ZCOUNT,
    read::ZLEXCOUNT,
    read::ZMSCORE,
    read::ZRANK,
    read::ZREVRANK,
    read::ZSCORE,
    remove::ZREM,
    remove::ZREMRANGEBYLEX,
    remove::ZREMRANGEBYRANK,
    remove::ZREMRANGEBYSCORE,
    scan::ZSCAN,
];

fn limits(ctx: &Ctx<'_>) -> ZSetLimits {
    let config = &ctx.shard.config;
    ZSetLimits {
        len_max: config.zset_max_listpack_entries,
        member_len_max: config.zset_max_listpack_value_bytes,
    }
}

/// [`Seeks`](crate::command::table::Seeks) of commands whose member follows the key, and whose place they look up, too.
fn seeks_order(args: Argv<'_>) -> Option<(&[u8], Sought)> {
    (args.len() > 2).then(|| (args.arg(2), Sought::Order))
}

#[inline]
fn reply_member(reply: &mut Reply<'_>, member: Item<'_>) {
    match member {
        Item::Int(number) => reply.bulk_i64(number),
        Item::Str(bytes) => reply.bulk(bytes),
    }
}

/// Whether elements are returned with their scores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scores {
    With,
    Without,
}

/// The header of an array of elements. With scores, RESP2 has them between the members, RESP3 an array for each
/// element, as maps would lose the order.
fn reply_elements_header(reply: &mut Reply<'_>, len: usize, scores: Scores) {
    let len = elements_len(reply, len, scores);
    reply.array(len);
}

/// How many elements a reply has for `len` members, with their scores or without.
fn elements_len(reply: &Reply<'_>, len: usize, scores: Scores) -> usize {
    if scores == Scores::With && reply.resp == Resp::V2 { 2 * len } else { len }
}

/// One of these elements.
#[inline]
fn reply_element(reply: &mut Reply<'_>, member: Item<'_>, score: f64, scores: Scores) {
    match scores {
        Scores::Without => reply_member(reply, member),
        Scores::With => {
            if reply.resp == Resp::V3 {
                reply.array(2);
            }
            reply_member(reply, member);
            reply.double(score);
        }
    }
}
