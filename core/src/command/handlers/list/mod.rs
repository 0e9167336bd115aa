//! List commands.
//!
//! [`ListRef`] reads a list, and [`ListMut`](crate::types::list::ListMut) changes it, whether it is packed in its entry
//! or big. What a command pops is written into the reply before it is removed.

mod edit;
mod pop;
mod push;
mod read;
mod transfer;

use crate::command::table::Command;
use crate::command::{Ctx, args};
use crate::protocol::Reply;
use crate::shard::Shard;
use crate::shard::event::Event;
use crate::types::ValueType;
use crate::types::list::{End, Limits, ListRef};
use crate::types::listpack::Item;
use std::ops::Range;

pub const COMMANDS: &[Command] = &[
    edit::LINSERT,
    edit::LREM,
    edit::LSET,
    edit::LTRIM,
    pop::BLMPOP,
    pop::BLPOP,
    pop::BRPOP,
    pop::LMPOP,
    pop::LPOP,
    pop::RPOP,
    push::LPUSH,
    push::LPUSHX,
    push::RPUSH,
    push::RPUSHX,
    read::LINDEX,
    read::LLEN,
    read::LPOS,
    read::LRANGE,
    transfer::BLMOVE,
    transfer::BRPOPLPUSH,
    transfer::LMOVE,
    transfer::RPOPLPUSH,
];

/// The limits of packed lists, and of the nodes of lists that become big.
#[inline]
pub fn limits(shard: &Shard) -> Limits {
    let config = &shard.config;
    Limits::new(config.list_max_listpack_size, config.list_compress_depth, shard.list_element_bytes_max)
}

/// LEFT or RIGHT.
fn end(arg: &[u8]) -> Option<End> {
    if args::is(arg, "left") {
        Some(End::Head)
    } else if args::is(arg, "right") {
        Some(End::Tail)
    } else {
        None
    }
}

const fn push_event(end: End) -> Event {
    match end {
        End::Head => Event::LPUSH,
        End::Tail => Event::RPUSH,
    }
}

const fn pop_event(end: End) -> Event {
    match end {
        End::Head => Event::LPOP,
        End::Tail => Event::RPOP,
    }
}

/// The elements from `start` to `stop`, included, which count from the end if they are negative.
fn range(start: i64, stop: i64, len: usize) -> Range<usize> {
    let from_start = |index: i64| if index < 0 { index + len as i64 } else { index };
    let start = from_start(start).max(0);
    let stop = from_start(stop).min(len as i64 - 1);
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

#[inline]
fn reply_item(reply: &mut Reply<'_>, item: Item<'_>) {
    match item {
        Item::Int(number) => reply.bulk_i64(number),
        Item::Str(bytes) => reply.bulk(bytes),
    }
}

/// Replies with an array of the elements in `range`.
fn reply_range(reply: &mut Reply<'_>, list: ListRef<'_>, range: Range<usize>) {
    let mut left = range.len();
    reply.array(left);
    if left > 0 {
        list.walk(range.start, |item| {
            reply_item(reply, item);
            left -= 1;
            left > 0
        });
    }
}

/// Replies with an array of the first `count` elements from an end, of which there are so many.
fn reply_popped(reply: &mut Reply<'_>, list: ListRef<'_>, end: End, count: usize) {
    if end == End::Head || count == 0 {
        return reply_range(reply, list, 0..count);
    }
    let mut left = count;
    reply.array(left);
    list.walk_back(list.len() - 1, |item| {
        reply_item(reply, item);
        left -= 1;
        left > 0
    });
}

/// Whether a blocked list command could use the key at an argument.
fn is_list(ctx: &mut Ctx<'_>, position: usize) -> bool {
    let key = ctx.key(position);
    let entry = ctx.shard.lookup_silent(ctx.call.db, key);
    entry.is_some_and(|entry| entry.value().value_type() == ValueType::List)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_list() {
        for (start, stop, expected) in [
            (0, -1, 0..5),
            (-100, 100, 0..5),
            (1, 3, 1..4),
            (-2, -1, 3..5),
            (3, 1, 0..0),
            (5, 9, 0..0),
            (-3, -4, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (0, i64::MIN, 0..0),
        ] {
            assert_eq!(range(start, stop, 5), expected, "{start} {stop}");
        }
        assert_eq!(range(0, -1, 0), 0..0);
    }
}
