//! Expiry: EXPIRE and related commands.
//!
//! A key exists until the end of the millisecond of its expiry. A key that is given an expiry in the past is deleted at
//! once.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::shard::effects::removal;
use crate::shard::event::Event;

pub const COMMANDS: &[Command] =
    &[EXPIRE, EXPIREAT, EXPIRETIME, PERSIST, PEXPIRE, PEXPIREAT, PEXPIRETIME, PTTL, TTL];

const WRITTEN_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::UPDATE)];
const READ_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)];

const SECONDS: i64 = 1000;
const MILLISECONDS: i64 = 1;

const EXPIRE: Command = Command::keys("expire", -3, expire)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(WRITTEN_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Sets the time to live of a key in seconds")
            .complexity("O(1)")
            .arguments("key#0 seconds:int [condition(NX | XX | GT | LT)@7.0.0]")
            .history(&[("7.0.0", "Options `NX`, `XX`, `GT` and `LT`")]),
    );

/// EXPIRE key seconds [NX | XX | GT | LT]. See [`expire_at`]. O(1).
fn expire(ctx: &mut Ctx<'_>) -> CommandResult {
    expire_at(ctx, SECONDS, ctx.shard.wall_ms, "expire")
}

const PEXPIRE: Command = Command::keys("pexpire", -3, pexpire)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(WRITTEN_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.6.0", "Sets the time to live of a key in milliseconds")
            .complexity("O(1)")
            .arguments("key#0 milliseconds:int [condition(NX | XX | GT | LT)@7.0.0]")
            .history(&[("7.0.0", "Options `NX`, `XX`, `GT` and `LT`")]),
    );

/// PEXPIRE key milliseconds [NX | XX | GT | LT]. See [`expire_at`]. O(1).
fn pexpire(ctx: &mut Ctx<'_>) -> CommandResult {
    expire_at(ctx, MILLISECONDS, ctx.shard.wall_ms, "pexpire")
}

const EXPIREAT: Command = Command::keys("expireat", -3, expireat)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(WRITTEN_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "1.2.0", "Sets the expiration of a key to a unix time in seconds")
            .complexity("O(1)")
            .arguments("key#0 unix-time-seconds:unix [condition(NX | XX | GT | LT)@7.0.0]")
            .history(&[("7.0.0", "Options `NX`, `XX`, `GT` and `LT`")]),
    );

/// EXPIREAT key unix-time-seconds [NX | XX | GT | LT]. See [`expire_at`]. O(1).
fn expireat(ctx: &mut Ctx<'_>) -> CommandResult {
    expire_at(ctx, SECONDS, 0, "expireat")
}

const PEXPIREAT: Command = Command::keys("pexpireat", -3, pexpireat)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(WRITTEN_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.6.0", "Sets the expiration of a key to a unix time in milliseconds")
            .complexity("O(1)")
            .arguments("key#0 unix-time-milliseconds:unix [condition(NX | XX | GT | LT)@7.0.0]")
            .history(&[("7.0.0", "Options `NX`, `XX`, `GT` and `LT`")]),
    );

/// PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]. See [`expire_at`]. O(1).
fn pexpireat(ctx: &mut Ctx<'_>) -> CommandResult {
    expire_at(ctx, MILLISECONDS, 0, "pexpireat")
}

/// Sets the expiry of the key at argument 1 to the time at argument 2, counted in `unit_ms` from `from_ms`, if the
/// options from argument 3 on allow it. Reply: 1, or 0 without a key or if the options prevent it. Errors: invalid
/// options; not an integer; beyond 64 bits of milliseconds, with the name of the command.
fn expire_at(ctx: &mut Ctx<'_>, unit_ms: i64, from_ms: i64, command: &str) -> CommandResult {
    let key = ctx.key(1);
    let options = Options::parse(ctx)?;
    let time = args::integer(ctx.arg(2))?;
    let at_ms = time.checked_mul(unit_ms).and_then(|ms| ms.checked_add(from_ms));
    let at_ms = at_ms.ok_or_else(|| CommandError::invalid_expire_time(command))?;

    let now_ms = ctx.shard.now_ms;
    let Some(mut value) = ctx
        .shard
        .change(ctx.call, key, Event::EXPIRE)
        .filter(|value| options.allow(at_ms, value.expire_at_ms()))
    else {
        ctx.reply.integer(0);
        return Ok(());
    };
    if at_ms <= now_ms {
        drop(value);
        ctx.shard.delete(ctx.call, key, Event::DEL);
        ctx.effect(&[removal(ctx.shard.config.lazyfree_lazy_expire), key.bytes]);
    } else {
        value.set_expire(Some(at_ms));
        drop(value);
        if ctx.notes_effects() {
            record_effect(ctx, at_ms);
        }
    }

    ctx.reply.integer(1);
    Ok(())
}

/// Records the effect: PEXPIREAT with the absolute time, whichever the command.
fn record_effect(ctx: &mut Ctx<'_>, at_ms: i64) {
    let mut digits = itoa::Buffer::new();
    let head = [b"PEXPIREAT", ctx.arg(1), digits.format(at_ms).as_bytes()];
    let words: Vec<&[u8]> = head.into_iter().chain(ctx.args.iter().skip(3)).collect();
    ctx.effect(&words);
}

/// The condition under which EXPIRE sets.
#[derive(Clone, Copy, Default)]
struct Options {
    /// NX: only if there is no expiry.
    absent: bool,
    /// XX: only if there is one.
    present: bool,
    /// GT: only if it is later than the present one; no expiry counts as infinitely late.
    later: bool,
    /// LT: only if it is earlier than the present one.
    sooner: bool,
}

impl Options {
    fn parse(ctx: &Ctx<'_>) -> CommandResult<Options> {
        let mut options = Options::default();
        for option in ctx.args.iter().skip(3) {
            let chosen = if args::is(option, "nx") {
                &mut options.absent
            } else if args::is(option, "xx") {
                &mut options.present
            } else if args::is(option, "gt") {
                &mut options.later
            } else if args::is(option, "lt") {
                &mut options.sooner
            } else {
                return Err(CommandError::quoting("ERR Unsupported option ", option, ""));
            };
            *chosen = true;
        }
        if options.absent && (options.present || options.later || options.sooner) {
            return Err(CommandError::fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if options.later && options.sooner {
            return Err(CommandError::fixed("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(options)
    }

    fn allow(self, at_ms: i64, old_at_ms: Option<i64>) -> bool {
        match old_at_ms {
            None => !self.present && !self.later,
            Some(old) => !self.absent && (!self.later || at_ms > old) && (!self.sooner || at_ms < old),
        }
    }
}

const PERSIST: Command = Command::keys("persist", 2, persist)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(WRITTEN_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.2.0", "Removes the expiration of a key")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// PERSIST key. Removes the expiry. Reply: 1 if the key had one, else 0. O(1).
fn persist(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let volatile = ctx.shard.change(ctx.call, key, Event::PERSIST);
    let volatile = volatile.filter(|value| value.expire_at_ms().is_some());
    let persisted = volatile.map(|mut value| value.set_expire(None)).is_some();

    ctx.reply.integer(i64::from(persisted));
    Ok(())
}

const TTL: Command = Command::keys("ttl", 2, ttl)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(READ_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Returns the time to live of a key in seconds")
            .complexity("O(1)")
            .arguments("key#0")
            .tips(&["nondeterministic_output"])
            .history(&[("2.8.0", "The reply -2")]),
    );

/// TTL key. Reply: see [`reply_time`]. O(1).
fn ttl(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_time(ctx, SECONDS, ctx.shard.now_ms)
}

const PTTL: Command = Command::keys("pttl", 2, pttl)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(READ_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.6.0", "Returns the time to live of a key in milliseconds")
            .complexity("O(1)")
            .arguments("key#0")
            .tips(&["nondeterministic_output"])
            .history(&[("2.8.0", "The reply -2")]),
    );

/// PTTL key. Reply: see [`reply_time`]. O(1).
fn pttl(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_time(ctx, MILLISECONDS, ctx.shard.now_ms)
}

const EXPIRETIME: Command = Command::keys("expiretime", 2, expiretime)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(READ_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "7.0.0", "Returns the expiration of a key as a unix time in seconds")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// EXPIRETIME key. Reply: see [`reply_time`]. O(1).
fn expiretime(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_time(ctx, SECONDS, 0)
}

const PEXPIRETIME: Command = Command::keys("pexpiretime", 2, pexpiretime)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(READ_KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "7.0.0", "Returns the expiration of a key as a unix time in milliseconds")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// PEXPIRETIME key. Reply: see [`reply_time`]. O(1).
fn pexpiretime(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_time(ctx, MILLISECONDS, 0)
}

/// Replies with the expiry of the key at argument 1 as time since `from_ms`, in `unit_ms`, rounded; -1 without an
/// expiry, -2 without a key.
fn reply_time(ctx: &mut Ctx<'_>, unit_ms: i64, from_ms: i64) -> CommandResult {
    let key = ctx.key(1);

    let time = match ctx.shard.lookup_read_notouch(ctx.call, key).map(|entry| entry.expire_at_ms()) {
        None => -2,
        Some(None) => -1,
        // Unsigned, so that rounding up the last representable time does not overflow.
        Some(Some(at_ms)) => {
            let ms = at_ms.saturating_sub(from_ms).max(0) as u64;
            ((ms + unit_ms as u64 / 2) / unit_ms as u64) as i64
        }
    };

    ctx.reply.integer(time);
    Ok(())
}
