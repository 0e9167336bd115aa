//! Adding, removing and moving members: SADD, SREM, SMOVE.

use super::limits;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag, seeks_element};
use crate::command::typed::set_of;
use crate::command::{CommandResult, Ctx};
use crate::shard::event::Event;
use crate::types::set::{SetMut, first_form};

pub(super) const SADD: Command = Command::keys("sadd", -3, sadd)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::INSERT)])
    .seeks(seeks_element)
    .docs(
        Docs::new("set", "1.0.0", "Adds members to a set")
            .complexity("O(N), where N is the number of members to add")
            .arguments("key#0 member...")
            .history(&[("2.4.0", "Takes several members")]),
    );

/// SADD key member [member ...]. Reply: integer, how many of the members are new. Errors: WRONGTYPE. O(members).
fn sadd(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, limits) = (ctx.key(1), limits(ctx));

    let mut guard = ctx.shard.change_or_add(ctx.call, key, Event::SADD, first_form(ctx.arg(2)));
    set_of(guard.value())?;

    let added = SetMut::new(&mut guard.value_mut()).add(ctx.args.slice(2..).iter(), limits);
    guard.count(added);
    drop(guard);

    ctx.reply.integer(added as i64);
    Ok(())
}

pub(super) const SREM: Command = Command::keys("srem", -3, srem)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::SET)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::DELETE)])
    .seeks(seeks_element)
    .docs(
        Docs::new("set", "1.0.0", "Removes members from a set, and the set with its last member")
            .complexity("O(N), where N is the number of members to remove")
            .arguments("key#0 member...")
            .history(&[("2.4.0", "Takes several members")]),
    );

/// SREM key member [member ...]. Reply: integer, how many members were removed. Errors: WRONGTYPE. O(members).
fn srem(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let mut removed = 0;
    if let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::SREM) {
        set_of(guard.value())?;
        let mut value = guard.value_mut();
        let mut set = SetMut::new(&mut value);
        for member in ctx.args.slice(2..) {
            removed += usize::from(set.remove(member));
            if set.get().is_empty() {
                break;
            }
        }
        guard.count(removed);
    }

    ctx.reply.integer(removed as i64);
    Ok(())
}

pub(super) const SMOVE: Command = Command::keys("smove", 4, smove)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::SET)
    .at(&[
        KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::DELETE),
        KeySpec::one(2, key_flag::RW | key_flag::INSERT),
    ])
    .constant_time()
    .docs(
        Docs::new("set", "1.0.0", "Moves a member from one set to another")
            .complexity("O(1)")
            .arguments("source#0 destination#1 member"),
    );

/// SMOVE source destination member. Reply: 1, or 0 if the source does not have the member. Errors: WRONGTYPE, of the
/// destination only if there is a source. O(1).
fn smove(ctx: &mut Ctx<'_>) -> CommandResult {
    let (source, destination, member) = (ctx.key(1), ctx.key(2), ctx.arg(3));
    let limits = limits(ctx);

    let source_guard = ctx.shard.change(ctx.call, source, Event::SREM);
    let found = source_guard.map(|guard| set_of(guard.value()).map(|set| set.contains(member)));
    let destination_guard = ctx.shard.change(ctx.call, destination, Event::SADD);
    let is_set = destination_guard.map(|guard| set_of(guard.value()).map(|_| ()));
    let Some(found) = found else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let found = found?;
    is_set.transpose()?;

    if found && source.bytes != destination.bytes {
        if let Some(mut guard) = ctx.shard.change(ctx.call, source, Event::SREM) {
            SetMut::new(&mut guard.value_mut()).remove(member);
        }
        let mut guard = ctx.shard.change_or_add(ctx.call, destination, Event::SADD, first_form(member));
        let added = SetMut::new(&mut guard.value_mut()).add(std::iter::once(member), limits);
        guard.count(added);
    }

    ctx.reply.integer(i64::from(found));
    Ok(())
}
