//! SLOWLOG: the commands that took long. Each shard keeps the log of its own clients; here they become one.
//!
//! The ids rise over all shards, so the newest entries of the whole server are found by merging the shards' newest.

use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::number::parse_i64;
use crate::protocol::{Argv, Reply, Resp, split_array};
use crate::session::session;
use crate::shard::slowlog::SlowLogEntry;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[SLOWLOG];

const SLOWLOG: Command = Command::container("slowlog", &[GET, HELP, LEN, RESET]).docs(
    Docs::new("server", "2.2.12", "A container for slow log commands").complexity("Depends on subcommand."),
);

const READER: u64 = flag::ADMIN | flag::LOADING | flag::STALE;

const GET: Command = session("get", -2, &(get as SessionHandler))
    .flags(READER)
    .scope(Scope::Custom(get_scope))
    .merge(Merge::With(merge_entries))
    .docs(
        Docs::new("server", "2.2.12", "Shows the newest entries of the slow log")
            .complexity("O(N) where N is the number of entries returned")
            .arguments("[count:int]")
            .tips(&["request_policy:all_nodes", "nondeterministic_output"])
            .history(&[("4.0.0", "Added client IP address, port and name to the reply.")]),
    );

/// How many entries are shown if SLOWLOG GET does not say.
const COUNT_DEFAULT: usize = 10;

/// The number of entries asked for. Errors: not a number, or below -1, which means all.
fn parse_count(args: Argv<'_>) -> CommandResult<usize> {
    let Some(text) = args.get(2) else { return Ok(COUNT_DEFAULT) };
    if args.len() > 3 {
        return Err(CommandError::wrong_subcommand("SLOWLOG", args.arg(1)));
    }
    match parse_i64(text) {
        Some(-1) => Ok(usize::MAX),
        Some(count) if count >= 0 => Ok(count as usize),
        Some(_) | None => Err(CommandError::fixed("ERR count should be greater than or equal to -1")),
    }
}

fn get_scope(args: Argv<'_>, _shard_count: usize) -> Scope {
    if parse_count(args).is_ok() { Scope::Every(KeyspaceLock::None) } else { Scope::Session }
}

/// SLOWLOG GET [count]. Reply: array of entries, newest first: id, unix time, microseconds, arguments, client address,
/// client name. Errors: a bad count. O(entries shown).
fn get(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let count = parse_count(ctx.args)?.min(ctx.worker.shard.config.slowlog_max_len as usize);

    // For the merge: how many entries there may be at most, then this shard's.
    ctx.reply.array(2);
    ctx.reply.integer(count as i64);
    let shown = count.min(ctx.worker.slowlog.len());
    ctx.reply.array(shown);
    for entry in ctx.worker.slowlog.iter().take(shown) {
        write_entry(&mut ctx.reply, entry);
    }
    Ok(())
}

fn write_entry(reply: &mut Reply<'_>, entry: &SlowLogEntry) {
    reply.array(6);
    reply.integer(entry.id as i64);
    reply.integer(entry.at_s);
    reply.integer(entry.micros as i64);
    reply.bulk_array(&entry.args);
    reply.bulk(entry.client_addr.as_bytes());
    reply.bulk(&entry.client_name);
}

/// The newest of all shards' entries.
fn merge_entries(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let mut count = 0;
    let mut entries: Vec<(i64, &[u8])> = Vec::new();
    for reply in replies {
        let mut parts = split_array(reply).expect("a shard answers with count and entries");
        count = parts.next().and_then(integer).expect("the count is an integer") as usize;
        for entry in parts.next().and_then(split_array).expect("the entries are an array") {
            let id = split_array(entry).and_then(|mut fields| integer(fields.next()?));
            entries.push((id.expect("an entry begins with its id"), entry));
        }
    }
    entries.sort_unstable_by_key(|&(id, _)| std::cmp::Reverse(id));
    entries.truncate(count);
    let mut reply = Reply::new(out, Resp::V2);
    reply.array(entries.len());
    entries.iter().for_each(|(_, entry)| reply.raw(entry));
}

fn integer(reply: &[u8]) -> Option<i64> {
    parse_i64(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

const LEN: Command = session("len", 2, &(len as SessionHandler))
    .flags(READER)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::With(merge_lens))
    .constant_time()
    .docs(Docs::new("server", "2.2.12", "Counts the entries of the slow log").complexity("O(1)").tips(&[
        "request_policy:all_nodes",
        "response_policy:agg_sum",
        "nondeterministic_output",
    ]));

/// SLOWLOG LEN. Reply: integer. O(1).
fn len(ctx: &mut SessionCtx<'_>) -> CommandResult {
    // For the merge: how many entries there may be at most, then this shard's number.
    ctx.reply.array(2);
    ctx.reply.integer(ctx.worker.shard.config.slowlog_max_len as i64);
    ctx.reply.integer(ctx.worker.slowlog.len() as i64);
    Ok(())
}

/// Entries beyond slowlog-max-len are there on the shards, but not for anybody to see.
fn merge_lens(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let (mut len_max, mut sum) = (0, 0);
    for reply in replies {
        let mut parts = split_array(reply).expect("a shard answers with two integers").map_while(integer);
        len_max = parts.next().expect("the first is the limit");
        sum += parts.next().expect("the second is the length");
    }
    Reply::new(out, Resp::V2).integer(sum.min(len_max));
}

const RESET: Command = session("reset", 2, &(reset as SessionHandler))
    .flags(READER)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::AllOk)
    .docs(
        Docs::new("server", "2.2.12", "Empties the slow log")
            .complexity("O(N) where N is the number of entries in the slowlog")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    );

/// SLOWLOG RESET. Reply: OK. O(entries).
fn reset(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.slowlog.clear();
    ctx.reply.ok();
    Ok(())
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "6.2.0", "Explains the subcommands").complexity("O(1)"));

/// SLOWLOG HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Show the newest <count> entries (default: 10; -1: all). An entry is made of:",
            "    id, unix time, time in microseconds, array of arguments, address of the client,",
            "    name of the client",
            "LEN",
            "    Count the entries.",
            "RESET",
            "    Drop all entries.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn shard_reply(count: i64, ids: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Resp::V2);
        reply.array(2);
        reply.integer(count);
        reply.array(ids.len());
        for &id in ids {
            let args = OwnedArgv::from_slices(&["GET", "k"]);
            write_entry(&mut reply, &SlowLogEntry::new(id, 100, 5, args.as_argv(), &[]));
        }
        out
    }

    fn ids(reply: &[u8]) -> Vec<i64> {
        split_array(reply)
            .unwrap()
            .map(|entry| split_array(entry).unwrap().next().and_then(integer).unwrap())
            .collect()
    }

    #[test]
    fn the_newest_entries_of_all_shards_come_first() {
        let args = OwnedArgv::from_slices(&["SLOWLOG", "GET", "3"]);
        let mut out = Vec::new();
        merge_entries(
            &[&shard_reply(3, &[9, 4, 1]), &shard_reply(3, &[]), &shard_reply(3, &[7, 6])],
            args.as_argv(),
            &mut out,
        );
        assert_eq!(ids(&out), [9, 7, 6]);
    }

    #[test]
    fn the_length_does_not_exceed_the_limit() {
        let args = OwnedArgv::from_slices(&["SLOWLOG", "LEN"]);
        let replies = [&b"*2\r\n:10\r\n:7\r\n"[..], b"*2\r\n:10\r\n:8\r\n"];
        let mut out = Vec::new();
        merge_lens(&replies, args.as_argv(), &mut out);
        assert_eq!(out, b":10\r\n");
        out.clear();
        merge_lens(&replies[..1], args.as_argv(), &mut out);
        assert_eq!(out, b":7\r\n");
    }

    #[test]
    fn a_count_is_minus_one_or_more() {
        let parse = |count: &str| parse_count(OwnedArgv::from_slices(&["SLOWLOG", "GET", count]).as_argv());
        assert_eq!(parse("-1"), Ok(usize::MAX));
        assert_eq!(parse("0"), Ok(0));
        for bad in ["-2", "x", ""] {
            assert_eq!(parse(bad).unwrap_err().text(), "ERR count should be greater than or equal to -1");
        }
    }
}
