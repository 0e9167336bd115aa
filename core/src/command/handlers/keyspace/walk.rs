//! Commands over keys that no argument names: KEYS, SCAN, RANDOMKEY, DBSIZE.

use crate::command::docs::Docs;
use crate::command::handlers::scan::{Pattern, ScanOptions, TypeOption, parse_cursor};
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandResult, Ctx, Key};
use crate::protocol::number::parse_i64;
use crate::protocol::{Argv, Reply, Resp, split_array};
use crate::types::{SCAN_CURSOR_BITS, hash_key};

pub(super) const KEYS: Command = Command::keys("keys", 2, keys)
    .flags(flag::READONLY)
    .acl(acl::KEYSPACE | acl::DANGEROUS)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::ConcatArrays)
    .docs(
        Docs::new("generic", "1.0.0", "Returns all keys that match a pattern")
            .complexity("O(N), where N is the number of keys in the database")
            .arguments("pattern:pattern")
            .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    );

/// KEYS pattern. Reply: array of the keys that match the glob pattern, in no order. O(all keys).
fn keys(ctx: &mut Ctx<'_>) -> CommandResult {
    let pattern = Pattern::new(ctx.arg(1));
    let now_ms = ctx.shard.now_ms;

    let mark = ctx.reply.begin();
    let mut count = 0;
    let reply = &mut ctx.reply;
    ctx.shard.for_each_key(ctx.call.db, &mut |entry| {
        if pattern.matches(entry.key()) && !entry.is_expired(now_ms) {
            count += 1;
            reply.bulk(entry.key());
        }
    });
    ctx.reply.end_array(mark, count);
    Ok(())
}

pub(super) const SCAN: Command = Command::keys("scan", -2, scan)
    .flags(flag::READONLY | flag::TOUCHES_ARBITRARY_KEYS)
    .acl(acl::KEYSPACE)
    .scope(Scope::Custom(scan_scope))
    .merge(Merge::With(merge_scans))
    .docs(
        Docs::new("generic", "2.8.0", "Iterates over the keys, some at each call")
            .complexity("O(1) for a call, O(N) for a whole iteration, where N is the number of keys")
            .arguments("cursor:int [MATCH pattern:pattern] [COUNT count:int] [TYPE type@6.0.0]")
            .tips(&["nondeterministic_output", "request_policy:special"])
            .history(&[("6.0.0", "Option `TYPE`")]),
    );

/// SCAN's cursor: a shard, and a place in its table. Shards are scanned one after the other.
///
/// The number that a client sees has the shard in the bits above the place; it is 0 at the beginning, and so also at
/// the end. If the database has no more keys than the first call is to return, that call scans all shards at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    shard: usize,
    place: u64,
}

impl Cursor {
    fn parse(text: &[u8]) -> CommandResult<Cursor> {
        let number = parse_cursor(text)?;
        Ok(Cursor {
            shard: (number >> SCAN_CURSOR_BITS) as usize,
            place: number & ((1 << SCAN_CURSOR_BITS) - 1),
        })
    }

    fn is_beginning(self) -> bool {
        self.number() == 0
    }

    fn number(self) -> u64 {
        (self.shard as u64) << SCAN_CURSOR_BITS | self.place
    }

    /// Where the scan continues after this shard's last place: at the next shard, or at the end.
    fn next_shard(self, shard_count: usize) -> Cursor {
        let shard = self.shard + 1;
        Cursor { shard: if shard < shard_count { shard } else { 0 }, place: 0 }
    }
}

/// A cursor of a shard that does not exist was not returned by SCAN: on any shard, the scan ends.
fn scan_scope(args: Argv<'_>, shard_count: usize) -> Scope {
    let Ok(cursor) = Cursor::parse(args.arg(1)) else { return Scope::Shard(0) };
    if cursor.is_beginning()
        && let Ok(options) = ScanOptions::parse(args.slice(2..), TypeOption::Taken)
    {
        return Scope::Walk { shard: 0, keys_max: options.count };
    }
    Scope::Shard(if cursor.shard < shard_count { cursor.shard } else { 0 })
}

/// Merges the shards' replies up to the first shard that has not been scanned to its end; there the scan continues.
fn merge_scans(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let mut next: &[u8] = b"$1\r\n0\r\n";
    let mut keys: Vec<&[u8]> = Vec::new();
    for (shard, reply) in replies.iter().enumerate() {
        let mut parts = split_array(reply).expect("a shard replies with an array");
        let (cursor, found) =
            (parts.next().expect("of two elements"), parts.next().expect("of two elements"));
        keys.extend(split_array(found).expect("the second is an array"));
        let digits = cursor.split(|&byte| byte == b'\n').nth(1).expect("the first is a bulk string");
        let digits = digits.strip_suffix(b"\r").expect("as every line");
        if Cursor::parse(digits).is_ok_and(|cursor| cursor.shard == shard && !cursor.is_beginning()) {
            next = cursor;
            break;
        }
    }
    Reply::new(out, Resp::V2).array(2);
    out.extend_from_slice(next);
    Reply::new(out, Resp::V2).array(keys.len());
    keys.into_iter().for_each(|key| out.extend_from_slice(key));
}

/// A call visits at most this many buckets for every key that it is to return.
const SCAN_BUCKETS_PER_KEY: u64 = 10;

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]. Returns every key that exists from the first call to the
/// last; a key may be returned twice, and a call that is not the last may return none. Expired keys that it meets are
/// removed. Reply: the next cursor, 0 at the end, and an array of keys. Errors: invalid cursor; syntax. O(COUNT).
fn scan(ctx: &mut Ctx<'_>) -> CommandResult {
    let cursor = Cursor::parse(ctx.arg(1))?;
    let options = ScanOptions::parse(ctx.args.slice(2..), TypeOption::Taken)?;

    if cursor.shard != ctx.shard.index && !cursor.is_beginning() {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.empty_array();
        return Ok(());
    }
    let now_ms = ctx.shard.now_ms;
    let mut found = Vec::new();
    let mut seen = 0;
    let mut count = 0;
    let mut expired: Vec<Vec<u8>> = Vec::new();
    let mut reply = Reply::new(&mut found, ctx.call.resp);
    let mut alive = 0;
    let mut place = cursor.place;
    for _ in 0..options.count.saturating_mul(SCAN_BUCKETS_PER_KEY) {
        place = ctx.shard.scan(ctx.call.db, place, &mut |entry| {
            seen += 1;
            if !options.pattern.matches(entry.key()) {
                return;
            }
            if entry.is_expired(now_ms) {
                expired.push(entry.key().to_vec());
                return;
            }
            alive += 1;
            if options.admits(entry) {
                count += 1;
                reply.bulk(entry.key());
            }
        });
        if place == 0 || seen >= options.count {
            break;
        }
    }
    if options.type_name.is_some() {
        // With TYPE, Redis looks each key up to compare its type.
        ctx.shard.stats.keyspace_hits.add(alive);
        ctx.shard.stats.keyspace_misses.add(expired.len() as u64);
    }
    for key in &expired {
        ctx.shard.exists(ctx.call.db, Key { bytes: key, hash: hash_key(key) });
    }

    let here = Cursor { shard: ctx.shard.index, place };
    let next = if place == 0 { here.next_shard(ctx.shard.shard_count) } else { here };
    ctx.reply.array(2);
    ctx.reply.bulk_display(next.number());
    ctx.reply.array(count);
    ctx.reply.raw(&found);
    Ok(())
}

pub(super) const RANDOMKEY: Command = Command::keys("randomkey", 1, randomkey)
    .flags(flag::READONLY | flag::TOUCHES_ARBITRARY_KEYS | flag::AFTER_HANDOFFS)
    .acl(acl::KEYSPACE)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::With(choose_key))
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Returns a random key")
            .complexity("O(1)")
            .tips(&["request_policy:all_shards", "nondeterministic_output"]),
    );

/// RANDOMKEY. Reply, of all shards together: a uniformly distributed random key, or null. Of one shard, for
/// [`choose_key`]: how many keys it has, a random number, and its choice. It takes no locks, so each shard chooses at
/// a different moment, after the client's earlier commands; a key that is checked out then is not chosen. In EXEC all
/// shards choose at the same moment. O(1).
fn randomkey(ctx: &mut Ctx<'_>) -> CommandResult {
    let db = ctx.call.db;

    let chosen = ctx.shard.random_key(db);

    let len = if chosen.is_some() { ctx.shard.key_count(db) } else { 0 };
    ctx.reply.array(3);
    ctx.reply.integer(len as i64);
    // 63 bits, so that it is not negative as an integer reply.
    ctx.reply.integer((ctx.shard.random() >> 1) as i64);
    match chosen {
        Some(key) => ctx.reply.bulk(&key),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// Chooses one of the shards' choices, with a probability proportional to the shard's number of keys.
fn choose_key(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let mut total = 0;
    let mut random = 0u64;
    let mut choices = Vec::with_capacity(replies.len());
    for reply in replies {
        let mut elements = split_array(reply).expect("every shard replies with an array");
        let mut next = || elements.next().expect("of three elements");
        let (len, shard_random, key) = (number(next()), number(next()), next());
        total += len;
        random = random.rotate_left(1) ^ shard_random;
        choices.push((len, key));
    }
    let mut at = if total == 0 { 0 } else { random % total };
    let chosen = choices.iter().find(|(len, _)| {
        let is_here = at < *len;
        at = at.saturating_sub(*len);
        is_here
    });
    // Without any key all shards return null, so any reply will do.
    let (_, key) = chosen.unwrap_or(&choices[0]);
    out.extend_from_slice(key);
}

fn number(reply: &[u8]) -> u64 {
    let digits = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    let number = digits.and_then(parse_i64).and_then(|number| u64::try_from(number).ok());
    number.expect("a count is an integer that is not negative")
}

pub(super) const DBSIZE: Command = Command::keys("dbsize", 1, dbsize)
    .flags(flag::READONLY | flag::FAST | flag::AFTER_HANDOFFS)
    .acl(acl::KEYSPACE)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::Sum)
    .constant_time()
    .docs(
        Docs::new("server", "1.0.0", "Returns the number of keys in the selected database")
            .complexity("O(1)")
            .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    );

/// DBSIZE. Reply: integer, the number of keys, including expired ones that are still stored. It takes no locks, so
/// each shard counts at a different moment, after the client's earlier commands; a checked-out key counts on the
/// shard that owns it. In EXEC all shards count at the same moment. O(1).
fn dbsize(ctx: &mut Ctx<'_>) -> CommandResult {
    let len = ctx.shard.key_count(ctx.call.db);

    ctx.reply.integer(len as i64);
    Ok(())
}
