//! Some of the fields of a hash: random ones, and scans.

use super::READ_KEY;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::scan::{ScanOptions, TypeOption, parse_cursor};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{Digits, StringRef, hash_of};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::{Reply, Resp};
use crate::shard::splitmix64;
use crate::types::listpack::Item;

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

    let mut random = ctx.shard.random();
    let entry = ctx.shard.lookup_read(ctx.call, key);
    let hash = entry.map(|entry| hash_of(entry.value())).transpose()?;

    let reply = &mut ctx.reply;
    match hash {
        Some(hash) => hash.draw(1, &mut || splitmix64(&mut random), &mut |field, _| {
            StringRef::from(field).reply(reply);
        }),
        None => reply.null(),
    }
    Ok(())
}

fn hrandfield_count(ctx: &mut Ctx<'_>) -> CommandResult {
    let count = args::integer(ctx.arg(2))?;
    if count == i64::MIN {
        return Err(CommandError::fixed(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    let with_values = ctx.args.len() > 3;
    if ctx.args.len() > 4 || (with_values && !args::is(ctx.arg(3), "withvalues")) {
        return Err(CommandError::SYNTAX);
    }
    // A reply has two elements a field then.
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::fixed("ERR value is out of range"));
    }

    let key = ctx.key(1);
    let mut random = ctx.shard.random();
    let entry = ctx.shard.lookup_read(ctx.call, key);
    let Some(hash) = entry.map(|entry| hash_of(entry.value())).transpose()? else {
        ctx.reply.empty_array();
        return Ok(());
    };

    let wanted = count.unsigned_abs() as usize;
    let replied = if count < 0 { wanted } else { wanted.min(hash.len()) };
    let (reply, resp) = (&mut ctx.reply, ctx.call.resp);
    reply.array(if with_values && resp == Resp::V2 { replied * 2 } else { replied });
    let mut random = || splitmix64(&mut random);
    let mut visit = |field: Item<'_>, value: Item<'_>| {
        if with_values && resp == Resp::V3 {
            reply.array(2);
        }
        StringRef::from(field).reply(reply);
        if with_values {
            StringRef::from(value).reply(reply);
        }
    };
    if count < 0 {
        hash.draw(wanted as u64, &mut random, &mut visit);
    } else if replied == hash.len() {
        hash.for_each(&mut visit);
    } else {
        hash.sample(wanted, &mut random, &mut visit);
    }
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
