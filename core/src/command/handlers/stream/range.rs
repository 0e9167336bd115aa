//! Reading a stream from one ID to another.

use super::{READ, ids, read, reply_entries};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::types::stream::StreamId;

pub(super) const XLEN: Command = Command::keys("xlen", 2, xlen)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::STREAM)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .docs(
        Docs::new("stream", "5.0.0", "Returns the number of entries of a stream")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// XLEN key. Reply: integer, the number of entries; 0 without a key. Errors: WRONGTYPE. O(1).
fn xlen(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let len = read(ctx.shard, ctx.call, key)?.map_or(0, |stream| stream.log.len());

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const XRANGE: Command =
    Command::keys("xrange", -4, xrange).flags(flag::READONLY).acl(acl::STREAM).at(READ).docs(
        Docs::new("stream", "5.0.0", "Returns the entries of a stream between two IDs")
            .complexity("O(N), where N is the number of entries returned")
            .arguments("key#0 start end [COUNT count:int]")
            .history(&[("6.2.0", "The ends of the interval may be excluded")]),
    );

/// XRANGE key start end [COUNT count]. `-` and `+` are the least and the greatest ID, `(` excludes one. Reply: array of
/// entries; empty without a key; null for a count of 0. Errors: invalid IDs; syntax; WRONGTYPE. O(log n + entries).
fn xrange(ctx: &mut Ctx<'_>) -> CommandResult {
    let start = ids::interval_start(ctx.arg(2))?;
    let end = ids::interval_end(ctx.arg(3))?;
    reply_range(ctx, start, end, false)
}

pub(super) const XREVRANGE: Command =
    Command::keys("xrevrange", -4, xrevrange).flags(flag::READONLY).acl(acl::STREAM).at(READ).docs(
        Docs::new("stream", "5.0.0", "Returns the entries of a stream between two IDs, in reverse order")
            .complexity("O(N), where N is the number of entries returned")
            .arguments("key#0 end start [COUNT count:int]")
            .history(&[("6.2.0", "The ends of the interval may be excluded")]),
    );

/// XREVRANGE key end start [COUNT count]: XRANGE backwards. O(log n + entries).
fn xrevrange(ctx: &mut Ctx<'_>) -> CommandResult {
    let start = ids::interval_start(ctx.arg(3))?;
    let end = ids::interval_end(ctx.arg(2))?;
    reply_range(ctx, start, end, true)
}

fn reply_range(ctx: &mut Ctx<'_>, start: StreamId, end: StreamId, backwards: bool) -> CommandResult {
    let count = parse_count(ctx)?;
    let key = ctx.key(1);

    let Ctx { shard, call, reply, .. } = ctx;
    let Some(stream) = read(shard, call, key)? else {
        reply.empty_array();
        return Ok(());
    };

    let len = stream.log.len();
    match count {
        Some(0) => reply.null_array(),
        _ if start > end => reply.empty_array(),
        _ if backwards => {
            reply_entries(reply, stream.log.range_back(start, end), count, len);
        }
        _ => {
            reply_entries(reply, stream.log.range(start, end), count, len);
        }
    }
    Ok(())
}

/// The last COUNT option, negative ones as 0; `None`: there is none. A count of -1 does not exist.
fn parse_count(ctx: &Ctx<'_>) -> CommandResult<Option<u64>> {
    let mut count = None;
    let mut at = 4;
    while at < ctx.args.len() {
        if !args::is(ctx.arg(at), "count") || at + 1 == ctx.args.len() {
            return Err(CommandError::SYNTAX);
        }
        count = Some(args::integer(ctx.arg(at + 1))?.max(0) as u64);
        at += 2;
    }
    Ok(count)
}
