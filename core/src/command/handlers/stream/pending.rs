//! Pending entries of a group: acknowledging and listing them.

use super::{READ, UPDATE, ids, read_group, reply_id};
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{stream_mut, stream_of};
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::protocol::{Argv, Reply};
use crate::types::stream::{Group, Pending, StreamId};
use smallvec::SmallVec;

pub(super) const XACK: Command =
    Command::keys("xack", -4, xack).flags(flag::WRITE | flag::FAST).acl(acl::STREAM).at(UPDATE).docs(
        Docs::new("stream", "5.0.0", "Acknowledges entries, which are no longer pending then")
            .complexity("O(1) for each entry")
            .arguments("key#0 group id..."),
    );

/// XACK key group id [id ...]. Reply: integer, how many of the entries were pending; 0 without a group. Errors:
/// WRONGTYPE; invalid IDs, if there is the group. O(log pending) for each ID.
fn xack(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, name) = (ctx.key(1), ctx.arg(2));

    // It counts as a read, too.
    let is_there = ctx.shard.lookup_read(ctx.call, key).is_some();
    let Some(mut guard) = ctx.shard.change_unobserved(ctx.call, key).filter(|_| is_there) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    if stream_of(guard.value())?.groups.get(name).is_none() {
        ctx.reply.integer(0);
        return Ok(());
    }
    let ids = ctx.args.iter().skip(3).map(|id| ids::strict(id, 0));
    let ids: SmallVec<[StreamId; 8]> = ids.collect::<CommandResult<_>>()?;

    let mut value = guard.value_mut();
    let mut object = value.object();
    let mut acknowledged = 0;
    if let Some(mut group) = stream_mut(&mut object).groups.get_mut(name) {
        acknowledged = ids.iter().filter(|&&id| group.remove_pending(id)).count();
    }
    drop(object);
    guard.count(acknowledged);

    ctx.reply.integer(acknowledged as i64);
    Ok(())
}

pub(super) const XPENDING: Command =
    Command::keys("xpending", -3, xpending).flags(flag::READONLY).acl(acl::STREAM).at(READ).docs(
        Docs::new("stream", "5.0.0", "Returns the pending entries of a consumer group")
            .complexity(
                "O(N), where N is the number of entries returned, or of those looked at with `IDLE`; without a range \
                 the number of consumers",
            )
            .arguments("key#0 group [filters{[IDLE min-idle-time:int@6.2.0] start end count:int [consumer]}]")
            .tips(&["nondeterministic_output"])
            .history(&[("6.2.0", "Option `IDLE`, and intervals without their ends")]),
    );

/// Which pending entries XPENDING lists.
struct Filter<'a> {
    min_idle_ms: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    /// `None`: the short form.
    ///
    /// # Errors
    /// Syntax; invalid values.
    fn parse(args: Argv<'a>) -> CommandResult<Option<Filter<'a>>> {
        let argc = args.len();
        if argc == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&argc) {
            return Err(CommandError::SYNTAX);
        }
        let (mut at, mut min_idle_ms) = (3, 0);
        if args::is(args.arg(at), "idle") {
            min_idle_ms = args::integer(args.arg(at + 1))?;
            if argc < 8 {
                return Err(CommandError::SYNTAX);
            }
            at += 2;
        }
        let count = args::integer(args.arg(at + 2))?.max(0) as usize;
        let start = ids::interval_start(args.arg(at))?;
        let end = ids::interval_end(args.arg(at + 1))?;
        Ok(Some(Filter { min_idle_ms, start, end, count, consumer: args.get(at + 3) }))
    }
}

/// XPENDING key group [[IDLE ms] start end count [consumer]]. Reply: array of the number of pending entries, the least
/// and the greatest ID of them, and for each consumer with any an array of its name and their number. With a range:
/// array of entries, each an array of ID, consumer, milliseconds since the delivery, and number of deliveries. Errors:
/// syntax; invalid IDs; WRONGTYPE; NOGROUP. O(consumers), or O(entries that are looked at).
fn xpending(ctx: &mut Ctx<'_>) -> CommandResult {
    let filter = Filter::parse(ctx.args)?;
    let (key, name, now_ms) = (ctx.key(1), ctx.arg(2), ctx.shard.wall_ms);

    let Ctx { shard, call, reply, .. } = ctx;
    let (_, group) = read_group(shard, call, key, name)?;

    let Some(filter) = filter else {
        reply_summary(reply, group);
        return Ok(());
    };
    match filter.consumer.map(|name| group.find_consumer(name)) {
        None => reply_pending(reply, group, group.pending_range(filter.start, filter.end), &filter, now_ms),
        Some(None) => reply.empty_array(),
        Some(Some(consumer)) => {
            let pending = group.pending_of(consumer, filter.start, filter.end);
            reply_pending(reply, group, pending, &filter, now_ms);
        }
    }
    Ok(())
}

fn reply_summary(reply: &mut Reply<'_>, group: &Group) {
    reply.array(4);
    reply.integer(group.pending_count() as i64);
    let mut pending = group.pending_range(StreamId::MIN, StreamId::MAX).map(|(id, _)| id);
    let Some(first) = pending.next() else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply_id(reply, first);
    reply_id(reply, pending.next_back().unwrap_or(first));
    let consumers = || group.consumers().filter(|(_, consumer)| consumer.pending_count() > 0);
    reply.array(consumers().count());
    for (_, consumer) in consumers() {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk_i64(consumer.pending_count() as i64);
    }
}

fn reply_pending<'a>(
    reply: &mut Reply<'_>,
    group: &Group,
    pending: impl Iterator<Item = (StreamId, &'a Pending)>,
    filter: &Filter<'_>,
    now_ms: i64,
) {
    let idle_ms = |pending: &Pending| now_ms.wrapping_sub(pending.delivery_time_ms);
    let is_idle = |pending: &Pending| filter.min_idle_ms == 0 || idle_ms(pending) >= filter.min_idle_ms;
    let mark = reply.begin();
    let mut replied = 0;
    for (id, pending) in pending.filter(|(_, pending)| is_idle(pending)).take(filter.count) {
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(group.consumer(pending.consumer).name());
        reply.integer(idle_ms(pending).max(0));
        reply.integer(pending.delivery_count as i64);
        replied += 1;
    }
    reply.end_array(mark, replied);
}
