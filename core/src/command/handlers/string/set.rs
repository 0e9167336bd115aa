//! Setting whole strings: SET with its options, and the older commands that are one of its forms.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeyPositions, KeySpec, key_flag};
use crate::command::table::{Command, Merge, acl, flag};
use crate::command::typed::{StringRef, encode};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::shard::event::Event;
use crate::types::SetExpire;

/// The unit of a time argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// What an option says of the key's expiry. The arguments are not looked at yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expiry<'a> {
    None,
    Keep,
    Persist,
    /// A time to live.
    In(Unit, &'a [u8]),
    /// A point in unix time.
    At(Unit, &'a [u8]),
}

impl Expiry<'_> {
    /// Whether the two are the same option: one that is repeated replaces the former.
    fn is_same_option(self, other: Expiry<'_>) -> bool {
        match (self, other) {
            (Expiry::In(unit, _), Expiry::In(other, _)) | (Expiry::At(unit, _), Expiry::At(other, _)) => {
                unit == other
            }
            _ => self == other,
        }
    }

    /// The point in time that `In` or `At` mean, in unix milliseconds; it may have passed.
    ///
    /// # Errors
    /// Not an integer; zero, negative or beyond 64 bits, with the name of the command.
    pub(super) fn at_ms(self, now_ms: i64, command: &str) -> CommandResult<i64> {
        let (unit, text, from_ms) = match self {
            Expiry::In(unit, text) => (unit, text, now_ms),
            Expiry::At(unit, text) => (unit, text, 0),
            Expiry::None | Expiry::Keep | Expiry::Persist => unreachable!("only a time has a time argument"),
        };
        let value = args::integer(text)?;
        let scale = match unit {
            Unit::Seconds => 1000,
            Unit::Milliseconds => 1,
        };
        let at_ms = Some(value).filter(|&value| value > 0).and_then(|value| value.checked_mul(scale));
        at_ms.and_then(|ms| ms.checked_add(from_ms)).ok_or_else(|| CommandError::invalid_expire_time(command))
    }
}

/// Whether a command takes NX, XX, GET and KEEPTTL, as SET does, or PERSIST instead, as GETEX does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditions {
    Taken,
    Refused,
}

/// When SET sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    Always,
    /// NX
    Absent,
    /// XX
    Present,
}

/// The options of SET and GETEX.
#[derive(Debug)]
pub(super) struct Options<'a> {
    when: When,
    /// GET: reply with the old value.
    get: bool,
    pub(super) expiry: Expiry<'a>,
}

impl<'a> Options<'a> {
    /// Reads the options that follow the key, or the value. They stand in any order and may be repeated; only what
    /// contradicts each other may not be combined.
    ///
    /// # Errors
    /// Syntax.
    pub(super) fn parse(args: Argv<'a>, conditions: Conditions) -> CommandResult<Options<'a>> {
        let sets = conditions == Conditions::Taken;
        let mut options = Options { when: When::Always, get: false, expiry: Expiry::None };
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            if sets && args::is(option, "nx") && options.when != When::Present {
                options.when = When::Absent;
            } else if sets && args::is(option, "xx") && options.when != When::Absent {
                options.when = When::Present;
            } else if sets && args::is(option, "get") {
                options.get = true;
            } else {
                let expiry = if sets && args::is(option, "keepttl") {
                    Expiry::Keep
                } else if !sets && args::is(option, "persist") {
                    Expiry::Persist
                } else {
                    timed(option, rest.next()).ok_or(CommandError::SYNTAX)?
                };
                if options.expiry != Expiry::None && !options.expiry.is_same_option(expiry) {
                    return Err(CommandError::SYNTAX);
                }
                options.expiry = expiry;
            }
        }
        Ok(options)
    }
}

/// EX, PX, EXAT and PXAT with their argument.
fn timed<'a>(option: &[u8], time: Option<&'a [u8]>) -> Option<Expiry<'a>> {
    let time = time?;
    if args::is(option, "ex") {
        Some(Expiry::In(Unit::Seconds, time))
    } else if args::is(option, "px") {
        Some(Expiry::In(Unit::Milliseconds, time))
    } else if args::is(option, "exat") {
        Some(Expiry::At(Unit::Seconds, time))
    } else if args::is(option, "pxat") {
        Some(Expiry::At(Unit::Milliseconds, time))
    } else {
        None
    }
}

pub(super) const SET: Command = Command::keys("set", -3, set)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec {
        notes: "RW and ACCESS due to the optional `GET` argument",
        ..KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE | key_flag::VARIABLE_FLAGS)
    }])
    .find_keys(set_keys)
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Sets the string value of a key, replacing a value of any type")
            .complexity("O(1)")
            .arguments(
                "key#0 value [condition(NX | XX)@2.6.12] [GET@6.2.0] \
                 [expiration(EX seconds:int@2.6.12 | PX milliseconds:int@2.6.12 \
                 | EXAT unix-time-seconds:unix@6.2.0 | PXAT unix-time-milliseconds:unix@6.2.0 \
                 | KEEPTTL@6.0.0)]",
            )
            .history(&[
                ("2.6.12", "Options `EX`, `PX`, `NX` and `XX`"),
                ("6.0.0", "Option `KEEPTTL`"),
                ("6.2.0", "Options `GET`, `EXAT` and `PXAT`"),
                ("7.0.0", "`NX` and `GET` may stand together"),
            ]),
    );

/// SET key value [NX | XX] [GET] [EX seconds | PX ms | EXAT seconds | PXAT ms | KEEPTTL]. Without KEEPTTL the key's
/// expiry is removed. Reply: OK, or null if NX or XX prevent it; with GET the old value or null. Errors: syntax;
/// invalid expire time; WRONGTYPE with GET. O(1).
fn set(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    if ctx.args.len() == 3 {
        ctx.shard.set(ctx.call, key, encode(ctx.arg(2)), SetExpire::Clear, Event::SET);
        ctx.reply.ok();
        return Ok(());
    }

    let options = Options::parse(ctx.args.slice(3..), Conditions::Taken)?;
    set_with(ctx, ctx.arg(2), &options, "set")
}

/// Sets the key at argument 1 as `options` tell, and replies as SET does.
fn set_with(ctx: &mut Ctx<'_>, value: &[u8], options: &Options<'_>, command: &str) -> CommandResult {
    let key = ctx.key(1);
    let expire = match options.expiry {
        Expiry::None => SetExpire::Clear,
        Expiry::Keep => SetExpire::Keep,
        Expiry::Persist => unreachable!("PERSIST is refused where conditions are taken"),
        Expiry::In(..) | Expiry::At(..) => SetExpire::At(options.expiry.at_ms(ctx.shard.wall_ms, command)?),
    };

    let found = if options.get {
        match ctx.shard.lookup_read(ctx.call, key) {
            Some(entry) => {
                StringRef::of(entry.value())?.reply(&mut ctx.reply);
                true
            }
            None => {
                ctx.reply.null();
                false
            }
        }
    } else {
        options.when != When::Always && ctx.shard.exists(ctx.call.db, key)
    };
    let sets = match options.when {
        When::Always => true,
        When::Absent => !found,
        When::Present => found,
    };

    if sets {
        ctx.shard.set(ctx.call, key, encode(value), expire, Event::SET);
        if ctx.notes_effects() {
            record_effect(ctx, value, options, expire);
        }
    }
    match (options.get, sets) {
        (true, _) => {}
        (false, true) => ctx.reply.ok(),
        (false, false) => ctx.reply.null(),
    }
    Ok(())
}

/// Records the effect: a time to live as an absolute time, and without GET, which concerns only the reply.
fn record_effect(ctx: &mut Ctx<'_>, value: &[u8], options: &Options<'_>, expire: SetExpire) {
    let key = ctx.arg(1);
    match expire {
        SetExpire::At(at_ms) => {
            let at_ms = itoa::Buffer::new().format(at_ms).to_owned();
            ctx.effect(&[b"SET", key, value, b"PXAT", at_ms.as_bytes()]);
        }
        SetExpire::Keep | SetExpire::Clear if options.get => {
            let options = ctx.args.iter().skip(3).filter(|option| !args::is(option, "get"));
            let words: Vec<&[u8]> = [b"SET", key, value].into_iter().chain(options).collect();
            ctx.effect(&words);
        }
        SetExpire::Keep | SetExpire::Clear => {}
    }
}

/// What SET does to its key depends on its GET option.
fn set_keys(args: Argv<'_>, found: &mut KeyPositions) {
    let get = args.iter().skip(3).any(|option| args::is(option, "get"));
    let flags = if get {
        key_flag::RW | key_flag::ACCESS | key_flag::UPDATE
    } else {
        key_flag::OW | key_flag::UPDATE
    };
    found.push((1, flags));
}

pub(super) const SETNX: Command = Command::keys("setnx", 3, setnx)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::OW | key_flag::INSERT)])
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Sets the string value of a key if the key does not exist")
            .complexity("O(1)")
            .arguments("key#0 value"),
    );

/// SETNX key value. Reply: 1 if it was set, 0 if the key existed. O(1).
fn setnx(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let sets = !ctx.shard.exists(ctx.call.db, key);
    if sets {
        ctx.shard.set(ctx.call, key, encode(ctx.arg(2)), SetExpire::Clear, Event::SET);
    }

    ctx.reply.integer(i64::from(sets));
    Ok(())
}

pub(super) const SETEX: Command = Command::keys("setex", 4, setex)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::OW | key_flag::UPDATE)])
    .constant_time()
    .docs(
        Docs::new("string", "2.0.0", "Sets the string value of a key and its time to live in seconds")
            .complexity("O(1)")
            .arguments("key#0 seconds:int value"),
    );

/// SETEX key seconds value. Reply: OK. Errors: invalid expire time. O(1).
fn setex(ctx: &mut Ctx<'_>) -> CommandResult {
    let expiry = Expiry::In(Unit::Seconds, ctx.arg(2));
    set_with(ctx, ctx.arg(3), &Options { when: When::Always, get: false, expiry }, "setex")
}

pub(super) const PSETEX: Command = Command::keys("psetex", 4, psetex)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::OW | key_flag::UPDATE)])
    .constant_time()
    .docs(
        Docs::new("string", "2.6.0", "Sets the string value of a key and its time to live in milliseconds")
            .complexity("O(1)")
            .arguments("key#0 milliseconds:int value"),
    );

/// PSETEX key milliseconds value. Reply: OK. Errors: invalid expire time. O(1).
fn psetex(ctx: &mut Ctx<'_>) -> CommandResult {
    let expiry = Expiry::In(Unit::Milliseconds, ctx.arg(2));
    set_with(ctx, ctx.arg(3), &Options { when: When::Always, get: false, expiry }, "psetex")
}

pub(super) const GETSET: Command = Command::keys("getset", 3, getset)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)])
    .constant_time()
    .docs(
        Docs::new("string", "1.0.0", "Sets the string value of a key and returns the old one")
            .complexity("O(1)")
            .arguments("key#0 value")
            .deprecated("6.2.0", "`SET` with `GET`"),
    );

/// GETSET key value: SET with GET. Reply: the old value, or null. Errors: WRONGTYPE. O(1).
fn getset(ctx: &mut Ctx<'_>) -> CommandResult {
    set_with(ctx, ctx.arg(2), &Options { when: When::Always, get: true, expiry: Expiry::None }, "getset")
}

pub(super) const MSET: Command = Command::keys("mset", -3, mset)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, -1, 2, key_flag::OW | key_flag::UPDATE)])
    .merge(Merge::AllOk)
    .docs(
        Docs::new("string", "1.0.1", "Sets the string values of several keys")
            .complexity("O(N), where N is the number of keys")
            .arguments("key_value{key#0 value}...")
            .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]),
    );

/// MSET key value [key value ...]. A key named twice gets the last value. Reply: OK. Errors: a key without a value.
/// O(keys).
fn mset(ctx: &mut Ctx<'_>) -> CommandResult {
    if ctx.args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("mset"));
    }

    set_pairs(ctx);

    ctx.reply.ok();
    Ok(())
}

fn set_pairs(ctx: &mut Ctx<'_>) {
    let mut keys = ctx.key_run(2);
    while let Some((at, key)) = keys.next(ctx.shard) {
        ctx.shard.set(ctx.call, key, encode(ctx.arg(at + 1)), SetExpire::Clear, Event::SET);
    }
}

pub(super) const MSETNX: Command = Command::keys("msetnx", -3, msetnx)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, -1, 2, key_flag::OW | key_flag::INSERT)])
    .docs(
        Docs::new("string", "1.0.1", "Sets the string values of several keys if none of the keys exists")
            .complexity("O(N), where N is the number of keys")
            .arguments("key_value{key#0 value}...")
            .tips(&["request_policy:multi_shard", "response_policy:agg_min"]),
    );

/// MSETNX key value [key value ...]. Sets all, or none if one of the keys exists. Reply: 1 or 0. Errors: a key
/// without a value. O(keys).
fn msetnx(ctx: &mut Ctx<'_>) -> CommandResult {
    let argc = ctx.args.len();
    if argc.is_multiple_of(2) {
        return Err(CommandError::wrong_arity("msetnx"));
    }

    for at in (1..argc).step_by(2) {
        let key = ctx.key(at);
        if ctx.shard.exists(ctx.call.db, key) {
            ctx.reply.integer(0);
            return Ok(());
        }
    }

    set_pairs(ctx);

    ctx.reply.integer(1);
    Ok(())
}
