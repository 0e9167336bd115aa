//! XINFO: what there is to know of a stream, its groups and their consumers.

use super::{read, reply_entries, reply_entry, reply_id};
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::protocol::Reply;
use crate::types::stream::{Entry, Group, Stream, StreamId};

pub(super) const XINFO: Command = Command::container("xinfo", SUBCOMMANDS).docs(
    Docs::new("stream", "5.0.0", "Tells what is known of a stream").complexity("Depends on the subcommand"),
);

const SUBCOMMANDS: &[Command] = &[CONSUMERS, GROUPS, HELP, STREAM];

const KEY: &[KeySpec] = &[KeySpec::one(2, key_flag::RO | key_flag::ACCESS)];

/// The stream at argument 2.
///
/// # Errors
/// No such key; WRONGTYPE.
macro_rules! subject {
    ($ctx:ident) => {{
        let key = $ctx.key(2);
        read($ctx.shard, $ctx.call, key)?.ok_or(CommandError::NO_SUCH_KEY)?
    }};
}

const CONSUMERS: Command =
    Command::keys("consumers", 4, consumers).flags(flag::READONLY).acl(acl::STREAM).at(KEY).docs(
        Docs::new("stream", "5.0.0", "Returns the consumers of a group")
            .complexity("O(N), where N is the number of consumers")
            .arguments("key#0 groupname")
            .tips(&["nondeterministic_output"]),
    );

/// XINFO CONSUMERS key group. Reply: array of maps, one a consumer: name, number of pending entries, milliseconds since
/// its last command. Errors: no such key; WRONGTYPE; NOGROUP. O(consumers).
fn consumers(ctx: &mut Ctx<'_>) -> CommandResult {
    let (name, now_ms) = (ctx.arg(3), ctx.shard.wall_ms);
    let key = ctx.arg(2);
    let stream = subject!(ctx);
    let group = stream.groups.get(name).ok_or_else(|| {
        let text = ["NOGROUP No such consumer group '", "' for key name '", "'"];
        CommandError::quoting_two(text, [name, key])
    })?;

    let reply = &mut ctx.reply;
    reply.array(group.consumer_count());
    for (_, consumer) in group.consumers() {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        reply.bulk(b"pending");
        reply.integer(consumer.pending_count() as i64);
        reply.bulk(b"idle");
        reply.integer(now_ms.saturating_sub(consumer.seen_time_ms).max(0));
    }
    Ok(())
}

const GROUPS: Command =
    Command::keys("groups", 3, groups).flags(flag::READONLY).acl(acl::STREAM).at(KEY).docs(
        Docs::new("stream", "5.0.0", "Returns the consumer groups of a stream")
            .complexity("O(N), where N is the number of groups")
            .arguments("key#0")
            .history(&[("7.0.0", "Fields `entries-read` and `lag`")]),
    );

/// XINFO GROUPS key. Reply: array of maps, one a group. Errors: no such key; WRONGTYPE. O(groups).
fn groups(ctx: &mut Ctx<'_>) -> CommandResult {
    let Stream { log, groups } = subject!(ctx);

    let reply = &mut ctx.reply;
    reply.array(groups.len());
    for (name, group) in groups.iter() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.integer(group.consumer_count() as i64);
        reply.bulk(b"pending");
        reply.integer(group.pending_count() as i64);
        reply.bulk(b"last-delivered-id");
        reply_id(reply, group.last_id());
        reply.bulk(b"entries-read");
        reply_known(reply, group.entries_read());
        reply.bulk(b"lag");
        reply_known(reply, log.lag(group));
    }
    Ok(())
}

/// A count, or null if it is not known.
fn reply_known(reply: &mut Reply<'_>, count: Option<i64>) {
    match count {
        Some(count) => reply.integer(count),
        None => reply.null(),
    }
}

const STREAM: Command =
    Command::keys("stream", -3, stream).flags(flag::READONLY).acl(acl::STREAM).at(KEY).docs(
        Docs::new("stream", "5.0.0", "Returns what is known of a stream")
            .complexity("O(N), where N is the number of nodes, or of what is returned with `FULL`")
            .arguments("key#0 [full'FULL'{[COUNT count:int]}]")
            .history(&[
                ("6.0.0", "Option `FULL`"),
                (
                    "7.0.0",
                    "Fields `max-deleted-entry-id`, `entries-added`, `recorded-first-entry-id`, `entries-read` and \
                     `lag`",
                ),
            ]),
    );

/// XINFO STREAM key [FULL [COUNT count]]. Reply: map; with FULL it contains entries, groups, consumers and what is
/// pending, up to `count` of each (0: all). Errors: syntax; no such key; WRONGTYPE. O(nodes), or O(what is returned).
fn stream(ctx: &mut Ctx<'_>) -> CommandResult {
    const COUNT_DEFAULT: usize = 10;
    let argv = ctx.args;
    let stream = subject!(ctx);
    let syntax = || CommandError::wrong_subcommand("XINFO", argv.arg(1));
    let count = match argv.len() {
        3 => None,
        4 | 6 if !args::is(argv.arg(3), "full") => return Err(syntax()),
        4 => Some(COUNT_DEFAULT),
        6 if args::is(argv.arg(4), "count") => {
            Some(usize::try_from(args::integer(argv.arg(5))?).unwrap_or(COUNT_DEFAULT))
        }
        _ => return Err(syntax()),
    };

    let reply = &mut ctx.reply;
    match count {
        None => reply_stream(reply, stream),
        Some(0) => reply_stream_full(reply, stream, usize::MAX),
        Some(count) => reply_stream_full(reply, stream, count),
    }
    Ok(())
}

/// The fields that both forms begin with.
fn reply_counts(reply: &mut Reply<'_>, stream: &Stream) {
    let log = &stream.log;
    reply.bulk(b"length");
    reply.integer(log.len() as i64);
    reply.bulk(b"radix-tree-keys");
    reply.integer(log.node_count() as i64);
    reply.bulk(b"radix-tree-nodes");
    reply.integer(log.radix_tree_nodes() as i64);
    reply.bulk(b"last-generated-id");
    reply_id(reply, log.last_id);
    reply.bulk(b"max-deleted-entry-id");
    reply_id(reply, log.max_deleted_id);
    reply.bulk(b"entries-added");
    reply.integer(log.entries_added as i64);
    reply.bulk(b"recorded-first-entry-id");
    reply_id(reply, log.first_id());
}

fn reply_stream(reply: &mut Reply<'_>, stream: &Stream) {
    fn reply_edge(reply: &mut Reply<'_>, entry: Option<Entry<'_>>) {
        match entry {
            Some(entry) => reply_entry(reply, &entry),
            None => reply.null(),
        }
    }
    reply.map(10);
    reply_counts(reply, stream);
    reply.bulk(b"groups");
    reply.integer(stream.groups.len() as i64);
    reply.bulk(b"first-entry");
    reply_edge(reply, stream.log.range(StreamId::MIN, StreamId::MAX).next());
    reply.bulk(b"last-entry");
    reply_edge(reply, stream.log.last());
}

fn reply_stream_full(reply: &mut Reply<'_>, stream: &Stream, count: usize) {
    reply.map(9);
    reply_counts(reply, stream);
    reply.bulk(b"entries");
    let entries = stream.log.range(StreamId::MIN, StreamId::MAX);
    reply_entries(reply, entries, Some(count as u64), stream.log.len());
    reply.bulk(b"groups");
    reply.array(stream.groups.len());
    for (name, group) in stream.groups.iter() {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"last-delivered-id");
        reply_id(reply, group.last_id());
        reply.bulk(b"entries-read");
        reply_known(reply, group.entries_read());
        reply.bulk(b"lag");
        reply_known(reply, stream.log.lag(group));
        reply.bulk(b"pel-count");
        reply.integer(group.pending_count() as i64);
        reply.bulk(b"pending");
        reply.array(group.pending_count().min(count));
        for (id, pending) in group.pending_range(StreamId::MIN, StreamId::MAX).take(count) {
            reply.array(4);
            reply_id(reply, id);
            reply.bulk(group.consumer(pending.consumer).name());
            reply.integer(pending.delivery_time_ms);
            reply.integer(pending.delivery_count as i64);
        }
        reply_consumers_full(reply, group, count);
    }
}

fn reply_consumers_full(reply: &mut Reply<'_>, group: &Group, count: usize) {
    reply.bulk(b"consumers");
    reply.array(group.consumer_count());
    for (id, consumer) in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        reply.bulk(b"seen-time");
        reply.integer(consumer.seen_time_ms);
        reply.bulk(b"pel-count");
        reply.integer(consumer.pending_count() as i64);
        reply.bulk(b"pending");
        reply.array(consumer.pending_count().min(count));
        for (id, pending) in group.pending_of(id, StreamId::MIN, StreamId::MAX).take(count) {
            reply.array(3);
            reply_id(reply, id);
            reply.integer(pending.delivery_time_ms);
            reply.integer(pending.delivery_count as i64);
        }
    }
}

const HELP: Command = Command::keys("help", 2, help)
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::STREAM)
    .constant_time()
    .docs(Docs::new("stream", "5.0.0", "Returns what the subcommands do").complexity("O(1)"));

/// XINFO HELP. Reply: array of status lines.
fn help(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "XINFO",
        &[
            "CONSUMERS <key> <groupname>",
            "    Show consumers of <groupname>.",
            "GROUPS <key>",
            "    Show the stream consumer groups.",
            "STREAM <key> [FULL [COUNT <count>]",
            "    Show information about the stream.",
        ],
    );
    Ok(())
}
