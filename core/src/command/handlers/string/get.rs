//! Reading whole strings: GET and related commands.

use super::set::{Conditions, Expiry, Options};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, Merge, acl, flag};
use crate::command::typed::StringRef;
use crate::command::{Call, CommandResult, Ctx};
use crate::shard::effects::removal;
use crate::shard::event::Event;

pub(super) const GET: Command = Command::keys("get", 2, get)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Returns the string value of a key")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// GET key. Reply: the string, or null. Errors: WRONGTYPE. O(1).
fn get(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    match ctx.shard.lookup_read_inline(ctx.call, key) {
        Some(entry) => StringRef::of(entry.value())?.reply(&mut ctx.reply),
        None => ctx.reply.null(),
    }
    Ok(())
}

pub(super) const MGET: Command = Command::keys("mget", -2, mget)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RO | key_flag::ACCESS)])
    .merge(Merge::Gather)
    .docs(
        Docs::new("string", "1.0.0", "Returns the string values of several keys")
            .complexity("O(N), where N is the number of keys")
            .arguments("key#0...")
            .tips(&["request_policy:multi_shard"]),
    );

/// MGET key [key ...]. Reply: array of a string or null a key; null also if the value is not a string. O(keys).
fn mget(ctx: &mut Ctx<'_>) -> CommandResult {
    ctx.reply.array(ctx.args.len() - 1);
    let mut keys = ctx.key_run(1);
    while let Some((_, key)) = keys.next(ctx.shard) {
        match ctx.shard.lookup_read(ctx.call, key).map(|entry| StringRef::of(entry.value())) {
            Some(Ok(string)) => string.reply(&mut ctx.reply),
            Some(Err(_)) | None => ctx.reply.null(),
        }
    }
    Ok(())
}

pub(super) const STRLEN: Command = Command::keys("strlen", 2, strlen)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .docs(
        Docs::new("string", "2.2.0", "Returns the length of a string value")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// STRLEN key. Reply: integer, the length in bytes, 0 without a key. Errors: WRONGTYPE. O(1).
fn strlen(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let len = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => StringRef::of(entry.value())?.len_bytes(),
        None => 0,
    };

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const GETDEL: Command = Command::keys("getdel", 2, getdel)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::DELETE)])
    .constant_time()
    .docs(
        Docs::new("string", "6.2.0", "Returns the string value of a key and deletes the key")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// GETDEL key. Reply: the string that the key had, or null. Errors: WRONGTYPE. O(1).
fn getdel(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    get(ctx)?;

    if ctx.shard.delete(ctx.call, key, Event::DEL) {
        ctx.effect(&[removal(ctx.shard.config.lazyfree_lazy_user_del), key.bytes]);
    }
    Ok(())
}

pub(super) const GETEX: Command = Command::keys("getex", -2, getex)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec {
        notes: "RW and UPDATE because it changes the TTL",
        ..KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)
    }])
    .constant_time()
    .docs(
        Docs::new("string", "6.2.0", "Returns the string value of a key and changes its expiration")
            .complexity("O(1)")
            .arguments(
                "key#0 [expiration(EX seconds:int | PX milliseconds:int | EXAT unix-time-seconds:unix \
                 | PXAT unix-time-milliseconds:unix | PERSIST)]",
            ),
    );

/// GETEX key [EX seconds | PX ms | EXAT seconds | PXAT ms | PERSIST]. A point in time that has passed deletes the
/// key. Reply: the string, or null. Errors: syntax; WRONGTYPE; invalid expire time, if there is a key. O(1).
fn getex(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let options = Options::parse(ctx.args.slice(2..), Conditions::Refused)?;

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.null();
        return Ok(());
    };
    let had_expiry = entry.expire_at_ms().is_some();
    StringRef::of(entry.value())?.reply(&mut ctx.reply);

    match options.expiry {
        Expiry::None => {}
        Expiry::Persist => {
            if had_expiry {
                set_expire(ctx, None, Event::PERSIST);
                ctx.effect(&[b"PERSIST", key.bytes]);
            }
        }
        Expiry::Keep => unreachable!("KEEPTTL is refused where conditions are"),
        Expiry::In(..) | Expiry::At(..) => {
            let at_ms = options.expiry.at_ms(ctx.shard.wall_ms, "getex")?;
            if at_ms <= ctx.shard.now_ms {
                ctx.shard.delete(ctx.call, key, Event::DEL);
                ctx.effect(&[removal(ctx.shard.config.lazyfree_lazy_expire), key.bytes]);
            } else {
                set_expire(ctx, Some(at_ms), Event::EXPIRE);
                if ctx.notes_effects() {
                    ctx.effect(&[b"PEXPIREAT", key.bytes, itoa::Buffer::new().format(at_ms).as_bytes()]);
                }
            }
        }
    }
    Ok(())
}

/// Sets or removes the expiry of the key at argument 1, which was read before.
fn set_expire(ctx: &mut Ctx<'_>, at_ms: Option<i64>, event: Event) {
    let key = ctx.key(1);
    // The access was recorded when the key was read.
    let call = Call { no_touch: true, ..*ctx.call };
    if let Some(mut string) = ctx.shard.change(&call, key, event) {
        string.set_expire(at_ms);
    }
}
