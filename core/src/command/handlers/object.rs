//! OBJECT: how a value is stored.

use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::config::MaxmemoryPolicy;
use crate::types::{Entry, ValueRef};

pub const COMMANDS: &[Command] = &[Command::container("object", SUBCOMMANDS).docs(
    Docs::new("generic", "2.2.3", "Tells how the value of a key is kept")
        .complexity("Depends on the subcommand"),
)];

const SUBCOMMANDS: &[Command] = &[ENCODING, FREQ, HELP, IDLETIME, REFCOUNT];

const KEY: &[KeySpec] = &[KeySpec::one(2, key_flag::RO)];

/// The entry of the key at argument 2. The look-up is not an access.
fn subject<'a>(ctx: &'a mut Ctx<'_>) -> Option<Entry<'a>> {
    let key = ctx.key(2);
    ctx.shard.lookup_read_untold(ctx.call, key)
}

const ENCODING: Command = Command::keys("encoding", 3, encoding)
    .flags(flag::READONLY)
    .acl(acl::KEYSPACE)
    .at(KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.2.3", "Returns the representation of the value of a key")
            .complexity("O(1)")
            .arguments("key#0")
            .tips(&["nondeterministic_output"]),
    );

/// OBJECT ENCODING key. Reply: string, Redis' name of the representation; null without a key. O(1).
fn encoding(ctx: &mut Ctx<'_>) -> CommandResult {
    match subject(ctx).map(|entry| entry.encoding().name()) {
        Some(name) => ctx.reply.bulk(name.as_bytes()),
        None => ctx.reply.null(),
    }
    Ok(())
}

const FREQ: Command =
    Command::keys("freq", 3, freq).flags(flag::READONLY).acl(acl::KEYSPACE).at(KEY).constant_time().docs(
        Docs::new("generic", "4.0.0", "Returns how frequently a key is accessed, on a logarithmic scale")
            .complexity("O(1)")
            .arguments("key#0")
            .tips(&["nondeterministic_output"]),
    );

/// OBJECT FREQ key. Reply: integer, how often the key was accessed of late, on a logarithmic scale; null without a key.
/// Errors: no LFU policy is selected. O(1).
fn freq(ctx: &mut Ctx<'_>) -> CommandResult {
    let Some(access) = subject(ctx).map(|entry| entry.access()) else {
        ctx.reply.null();
        return Ok(());
    };
    if ctx.shard.access.is_lfu() {
        ctx.reply.integer(i64::from(ctx.shard.access.frequency(access)));
        return Ok(());
    }
    Err(CommandError::fixed(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust.",
    ))
}

const IDLETIME: Command = Command::keys("idletime", 3, idletime)
    .flags(flag::READONLY)
    .acl(acl::KEYSPACE)
    .at(KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.2.3", "Returns the seconds since the last access to a key")
            .complexity("O(1)")
            .arguments("key#0")
            .tips(&["nondeterministic_output"]),
    );

/// OBJECT IDLETIME key. Reply: integer, seconds since the last access; null without a key. Errors: an LFU policy is
/// selected. O(1).
fn idletime(ctx: &mut Ctx<'_>) -> CommandResult {
    let Some(access) = subject(ctx).map(|entry| entry.access()) else {
        ctx.reply.null();
        return Ok(());
    };
    if ctx.shard.access.is_lfu() {
        return Err(CommandError::fixed(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }

    ctx.reply.integer(i64::from(ctx.shard.access.idle_s(access)));
    Ok(())
}

const REFCOUNT: Command = Command::keys("refcount", 3, refcount)
    .flags(flag::READONLY)
    .acl(acl::KEYSPACE)
    .at(KEY)
    .constant_time()
    .docs(
        Docs::new("generic", "2.2.3", "Returns the number of references to the value of a key")
            .complexity("O(1)")
            .arguments("key#0")
            .tips(&["nondeterministic_output"]),
    );

/// Redis keeps one object for each of these numbers, for all keys that have it as value.
const SHARED_INTEGERS: std::ops::Range<i64> = 0..10_000;

/// What OBJECT REFCOUNT says of an object that is shared and never freed.
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

/// OBJECT REFCOUNT key. Reply: integer, how many references Redis would have to the value: 1, or
/// [`SHARED_REFCOUNT`] for a small number; null without a key. O(1).
fn refcount(ctx: &mut Ctx<'_>) -> CommandResult {
    let shares = shares_integers(ctx);
    let count = subject(ctx).map(|entry| match entry.value() {
        ValueRef::Int(number) if shares && SHARED_INTEGERS.contains(&number) => SHARED_REFCOUNT,
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => 1,
    });

    match count {
        Some(count) => ctx.reply.integer(count),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// With an eviction policy that records accesses in the value, keys cannot share values.
fn shares_integers(ctx: &Ctx<'_>) -> bool {
    let config = &ctx.shard.config;
    let notes_access = match config.maxmemory_policy {
        MaxmemoryPolicy::VolatileLru
        | MaxmemoryPolicy::VolatileLfu
        | MaxmemoryPolicy::AllkeysLru
        | MaxmemoryPolicy::AllkeysLfu => true,
        MaxmemoryPolicy::VolatileRandom
        | MaxmemoryPolicy::VolatileTtl
        | MaxmemoryPolicy::AllkeysRandom
        | MaxmemoryPolicy::Noeviction => false,
    };
    config.maxmemory_bytes == 0 || !notes_access
}

const HELP: Command = Command::keys("help", 2, help)
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::KEYSPACE)
    .constant_time()
    .docs(Docs::new("generic", "6.2.0", "Returns what the subcommands do").complexity("O(1)"));

/// OBJECT HELP. Reply: array of status lines.
fn help(ctx: &mut Ctx<'_>) -> CommandResult {
    super::help::reply_help(
        &mut ctx.reply,
        "OBJECT",
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    );
    Ok(())
}
