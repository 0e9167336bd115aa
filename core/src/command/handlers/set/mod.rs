//! Set commands. The forms of a set, and what all have in common, are in [`types::set`](crate::types::set).

mod algebra;
mod member;
mod random;
mod read;

use crate::command::Ctx;
use crate::command::table::Command;
use crate::protocol::Reply;
use crate::types::set::{Member, SetLimits};

pub const COMMANDS: &[Command] = &[
    algebra::SDIFF,
    algebra::SDIFFSTORE,
    algebra::SINTER,
    algebra::SINTERCARD,
    algebra::SINTERSTORE,
    algebra::SUNION,
    algebra::SUNIONSTORE,
    member::SADD,
    member::SMOVE,
    member::SREM,
    random::SPOP,
    random::SRANDMEMBER,
    read::SCARD,
    read::SISMEMBER,
    read::SMEMBERS,
    read::SMISMEMBER,
    read::SSCAN,
];

fn limits(ctx: &Ctx<'_>) -> SetLimits {
    SetLimits::new(ctx.shard.config.set_max_intset_entries)
}

#[inline]
fn reply_member(reply: &mut Reply<'_>, member: Member<'_>) {
    match member {
        Member::Int(number) => reply.bulk_i64(number),
        Member::Bytes(bytes) => reply.bulk(bytes),
    }
}
