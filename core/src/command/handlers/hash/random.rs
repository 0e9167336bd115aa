//! Some of the fields of a hash: random ones, and scans.

use super::READ_KEY;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::scan::{ScanOptions, TypeOption, parse_cursor};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{Digits, StringRef, hash_of};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::{Reply, Resp};
use crate::types::listpack::Item;

/// So many fields are drawn before the length of the reply is looked at.
const DRAWN_AT_ONCE: usize = 1000;

pub(super) const HRANDFIELD: Command =
    Command::keys("hrandfield", -2, hrandfield).flags(flag::READONLY).acl(acl::HASH).at(READ_KEY).docs(
        Docs::new("hash", "6.2.0", "Returns random fields of a hash")
            .complexity("O(N), where N is the number of fields returned")
            .arguments("key#0 [options{count:int [WITHVALUES]}]")
            .tips(&["nondeterministic_output"]),
    );

/// HRANDFIELD key [count [WITHVALUES]]. With a count: so many different fields, or all; with a negative one, so many
/// fields, of which some may be the same. Reply: without a count a field, or null. With one an array of fields; with
/// WITHVALUES each is followed by its value, in RESP3 in an array of the two. Errors: the count is no integer, or out of
/// range; syntax; WRONGTYPE. O(count), or O(fields).
fn hrandfield(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    if ctx.args.len() > 2 {
        return hrandfield_count(ctx);
    }

    let mut random = ctx.shard.random_numbers();
    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    let reply = &mut ctx.reply;
    match hash {
        Some(hash) => hash.draw(1, &mut random, &mut |field, _| StringRef::from(field).reply(reply)),
        None => reply.null(),
    }
    Ok(())
}

/// HRANDFIELD with a count: see [`hrandfield`].
fn hrandfield_count(ctx: &mut Ctx<'_>) -> CommandResult {
    let count = args::integer_in(ctx.arg(2), -i64::MAX..=i64::MAX)?;
    let with_values = ctx.args.len() > 3;
    if ctx.args.len() > 4 || (with_values && !args::is(ctx.arg(3), "withvalues")) {
        return Err(CommandError::SYNTAX);
    }
    // A reply has two elements a field then.
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::fixed("ERR value is out of range"));
    }

    let key = ctx.key(1);
    let (mut random, reply_bytes_max) = (ctx.shard.random_numbers(), ctx.reply_bytes_max());
    let entry = ctx.shard.lookup_read(ctx.call, key);
    let Some(hash) = entry.map(|entry| hash_of(entry.value())).transpose()? else {
        ctx.reply.empty_array();
        return Ok(());
    };

    let is_nested = with_values && ctx.call.resp == Resp::V3;
    let reply_field = |reply: &mut Reply<'_>, field: Item<'_>, value: Item<'_>| {
        if is_nested {
            reply.array(2);
        }
        StringRef::from(field).reply(reply);
        if with_values {
            StringRef::from(value).reply(reply);
        }
    };
    let reply_len = |fields: usize| if with_values && !is_nested { fields * 2 } else { fields };
    let wanted = count.unsigned_abs() as usize;
    let reply = &mut ctx.reply;
    if count >= 0 {
        reply.array(reply_len(wanted.min(hash.len())));
        hash.sample(wanted, &mut random, &mut |field, value| reply_field(reply, field, value));
        return Ok(());
    }
    let mark = reply.begin_about(reply_len(wanted));
    let mut drawn = 0;
    while drawn < wanted && reply.out.len() < reply_bytes_max {
        let block = DRAWN_AT_ONCE.min(wanted - drawn);
        hash.draw(block, &mut random, &mut |field, value| reply_field(reply, field, value));
        drawn += block;
    }
    reply.end_array(mark, reply_len(drawn));
    Ok(())
}

pub(super) const HSCAN: Command =
    Command::keys("hscan", -3, hscan).flags(flag::READONLY).acl(acl::HASH).at(READ_KEY).docs(
        Docs::new("hash", "2.8.0", "Iterates over the fields of a hash, some at each call")
            .complexity("O(1) for a call, O(N) for a whole iteration, where N is the number of fields")
            .arguments("key#0 cursor:int [MATCH pattern:pattern] [COUNT count:int]")
            .tips(&["nondeterministic_output"]),
    );

/// A call visits at most this many pages of a big hash for each field that it is to return.
const PAGES_PER_FIELD: u64 = 10;

/// HSCAN key cursor [MATCH pattern] [COUNT count]. Returns every field that exists from the first call to the last; a
/// field may be returned twice, and a call that is not the last may return none. A packed hash is returned by one call.
/// Reply: the next cursor, 0 at the end, and an array of fields, each followed by its value. Errors: invalid cursor;
/// WRONGTYPE; syntax. O(COUNT).
fn hscan(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut cursor = parse_cursor(ctx.arg(2))?;
    let key = ctx.key(1);
    let entry = ctx.shard.lookup_read(ctx.call, key);
    let Some(hash) = entry.map(|entry| hash_of(entry.value())).transpose()? else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.empty_array();
        return Ok(());
    };
    let options = ScanOptions::parse(ctx.args.slice(3..), TypeOption::Refused)?;

    let mut found = Vec::new();
    let mut reply = Reply::new(&mut found, ctx.call.resp);
    let mut digits = Digits::new();
    let (mut seen, mut count) = (0, 0);
    for _ in 0..options.count.saturating_mul(PAGES_PER_FIELD) {
        cursor = hash.scan(cursor, &mut |field, value| {
            seen += 1;
            let field = field.bytes(&mut digits);
            if options.pattern.matches(field) {
                count += 2;
                reply.bulk(field);
                StringRef::from(value).reply(&mut reply);
            }
        });
        if cursor == 0 || seen >= options.count {
            break;
        }
    }

    ctx.reply.array(2);
    ctx.reply.bulk_display(cursor);
    ctx.reply.array(count);
    ctx.reply.raw(&found);
    Ok(())
}
