//! Reading a set: SISMEMBER, SMISMEMBER, SCARD, SMEMBERS, SSCAN.

use super::reply_member;
use crate::command::docs::Docs;
use crate::command::handlers::scan::{ScanOptions, TypeOption, parse_cursor};
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag, seeks_element};
use crate::command::typed::set_of;
use crate::command::{CommandResult, Ctx};
use crate::protocol::Reply;
use crate::types::listpack::Digits;

pub(super) const SISMEMBER: Command = Command::keys("sismember", 3, sismember)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .seeks(seeks_element)
    .docs(
        Docs::new("set", "1.0.0", "Tells whether a set has a member")
            .complexity("O(1)")
            .arguments("key#0 member"),
    );

/// SISMEMBER key member. Reply: 1, or 0 if the set does not have the member or does not exist. Errors: WRONGTYPE. O(1).
fn sismember(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let found = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => set_of(entry.value())?.contains(ctx.args.arg(2)),
        None => false,
    };

    ctx.reply.integer(i64::from(found));
    Ok(())
}

pub(super) const SMISMEMBER: Command = Command::keys("smismember", -3, smismember)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "6.2.0", "Tells which of the members a set has")
            .complexity("O(N), where N is the number of members")
            .arguments("key#0 member..."),
    );

/// SMISMEMBER key member [member ...]. Reply: array of integers, 1 for each member that the set has, 0 for others.
/// Errors: WRONGTYPE. O(members).
fn smismember(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let members = ctx.args.slice(2..);

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let set = entry.map(|entry| set_of(entry.value())).transpose()?;

    ctx.reply.array(members.len());
    for member in members {
        ctx.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

pub(super) const SCARD: Command = Command::keys("scard", 2, scard)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .docs(
        Docs::new("set", "1.0.0", "Returns the number of members of a set")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// SCARD key. Reply: integer, the number of members, 0 if there is no set. Errors: WRONGTYPE. O(1).
fn scard(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let len = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => set_of(entry.value())?.len(),
        None => 0,
    };

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const SMEMBERS: Command = Command::keys("smembers", 2, smembers)
    .flags(flag::READONLY)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "1.0.0", "Returns all members of a set")
            .complexity("O(N), where N is the number of members")
            .arguments("key#0")
            .tips(&["nondeterministic_output_order"]),
    );

/// SMEMBERS key. Reply: set of all members. Errors: WRONGTYPE. O(members).
fn smembers(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.set(0);
        return Ok(());
    };
    let set = set_of(entry.value())?;

    let reply = &mut ctx.reply;
    reply.set(set.len());
    set.each(|member| reply_member(reply, member));
    Ok(())
}

pub(super) const SSCAN: Command = Command::keys("sscan", -3, sscan)
    .flags(flag::READONLY)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("set", "2.8.0", "Iterates over the members of a set, some at each call")
            .complexity("O(1) for a call, O(N) for a whole iteration, where N is the number of members")
            .arguments("key#0 cursor:int [MATCH pattern:pattern] [COUNT count:int]")
            .tips(&["nondeterministic_output"]),
    );

/// SSCAN key cursor [MATCH pattern] [COUNT count]. Returns every member that is there from the first call to the last,
/// as SCAN does keys; a small set is returned by one call. Reply: the next cursor, 0 at the end, and an array of
/// members. Errors: invalid cursor; WRONGTYPE; syntax, if there is a set. O(COUNT).
fn sscan(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let mut cursor = parse_cursor(ctx.arg(2))?;

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.empty_array();
        return Ok(());
    };
    let set = set_of(entry.value())?;
    let options = ScanOptions::parse(ctx.args.slice(3..), TypeOption::Refused)?;

    let mut found = Vec::new();
    let mut reply = Reply::new(&mut found, ctx.call.resp);
    let (mut seen, mut count) = (0, 0);
    let mut digits = Digits::new();
    loop {
        cursor = set.scan(cursor, &mut |member| {
            seen += 1;
            let member = member.bytes(&mut digits);
            if options.pattern.matches(member) {
                count += 1;
                reply.bulk(member);
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
