//! DEBUG: what tests and people in trouble use. The gate lets it through only where enable-debug-command says so.
//!
//! One command with many verbs, as in Redis: a table of its own says which arguments a verb takes and where it runs.

mod aof;
mod reload;
mod replica;

use super::config::{rewrite_file, user_lines};
use super::digest::{self, DbDigest, Digest};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, flag};
use crate::command::{CommandError, CommandResult, Key};
use crate::config::{Append, parse_memory};
use crate::modules::events::{self, Loading, Saving};
use crate::persist::rdb::file::FileReader;
use crate::persist::rdb::window::FileError;
use crate::persist::rdb::write::Writer;
use crate::protocol::number::{parse_f64, parse_i64};
use crate::protocol::{Argv, Reply, Resp, split_array, until_nul};
use crate::runtime::{files, host, log};
use crate::session::session;
use crate::shard::event::Event;
use crate::shard::lazyfree::Freeing;
use crate::shard::slot::shard_of;
use crate::types::glob::glob_matches;
use crate::types::hashing::hash_key;
use crate::types::list::Limits;
use crate::types::module::{AuxPlace, KeyPlace};
use crate::types::{NewValue, ValueRef};
use crate::worker::REPLY_PEAK_RESET_MS;
use crate::worker::load::{Duplicates, LoadError};
use crate::worker::{SessionCtx, SessionHandler, Worker};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const COMMANDS: &[Command] = &[DEBUG];

const DEBUG: Command = session("debug", -2, &(debug as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::PROTECTED)
    .scope(Scope::Custom(debug_scope))
    .unlisted_key(debug_key)
    .merge(Merge::With(merge_debug))
    .docs(
        Docs::new("server", "1.0.0", "A container for debugging commands")
            .complexity("Depends on subcommand.")
            .internal(),
    );

/// Where a verb runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At home, with the session.
    Home,
    /// On the shard that owns the key in argument 2.
    KeysShard,
    /// On all shards, each with all its keys locked.
    AllShards,
}

struct Verb {
    name: &'static str,
    /// How many arguments there may be, DEBUG and the verb included.
    argc: RangeInclusive<usize>,
    place: Place,
    run: fn(&mut SessionCtx<'_>) -> CommandResult,
}

const fn verb(
    name: &'static str,
    argc: RangeInclusive<usize>,
    place: Place,
    run: fn(&mut SessionCtx<'_>) -> CommandResult,
) -> Verb {
    Verb { name, argc, place, run }
}

static VERBS: [Verb; 37] = [
    verb("aof-flush-sleep", 3..=3, Place::Home, aof::flush_sleep),
    verb("aof-part", 3..=4, Place::AllShards, aof::begin_part),
    verb("aof-reload", 2..=2, Place::AllShards, aof::reload_base),
    verb("assert", 2..=2, Place::Home, assert),
    verb("change-repl-id", 2..=2, Place::Home, replica::change_id),
    verb("config-rewrite-force-all", 2..=2, Place::Home, config_rewrite_force_all),
    verb("digest", 2..=2, Place::AllShards, digest_keyspace),
    verb("digest-value", 2..=usize::MAX, Place::AllShards, digest_value),
    verb("error", 3..=3, Place::Home, error),
    verb("help", 2..=2, Place::Home, help),
    verb("loadaof", 2..=2, Place::Home, aof::load),
    verb("log", 3..=3, Place::Home, write_log),
    verb("longest-wait", 2..=2, Place::Home, longest_wait),
    verb("object", 3..=3, Place::KeysShard, object),
    verb("panic", 2..=2, Place::Home, panic),
    verb("pause-cron", 3..=3, Place::Home, pause_cron),
    verb("populate", 3..=5, Place::AllShards, populate),
    verb("protocol", 3..=3, Place::Home, protocol),
    verb("quicklist-packed-threshold", 3..=3, Place::AllShards, quicklist_packed_threshold),
    verb("reload", 2..=usize::MAX, Place::AllShards, reload),
    verb("reload-begin", 3..=3, Place::AllShards, reload::begin_part),
    verb("replica-begin", 2..=2, Place::AllShards, replica::begin),
    verb("replica-cut", 2..=2, Place::AllShards, replica::cut),
    verb("replica-discard", 2..=2, Place::AllShards, replica::discard),
    verb("replica-load", 3..=3, Place::AllShards, replica::load),
    verb("replica-offset", 2..=2, Place::Home, replica::take_offset),
    verb("replica-promote", 3..=3, Place::AllShards, replica::promote),
    verb("replica-swap", 2..=2, Place::AllShards, replica::swap),
    verb("replicate", 3..=usize::MAX, Place::Home, replica::replicate),
    verb("replybuffer", 4..=4, Place::Home, replybuffer),
    verb("segfault", 2..=2, Place::Home, segfault),
    verb("set-active-expire", 3..=3, Place::Home, set_active_expire),
    verb("set-disable-deny-scripts", 3..=3, Place::Home, set_disable_deny_scripts),
    verb("set-skip-checksum-validation", 3..=3, Place::AllShards, set_skip_checksum_validation),
    verb("sleep", 3..=3, Place::Home, sleep),
    verb("stringmatch-test", 2..=2, Place::Home, stringmatch_test),
    verb("structsize", 2..=2, Place::Home, structsize),
];

fn find_verb(args: Argv<'_>) -> CommandResult<&'static Verb> {
    let name = args.arg(1);
    let known = VERBS.iter().find(|verb| args::is(name, verb.name));
    known.filter(|verb| verb.argc.contains(&args.len())).ok_or_else(|| unknown(name))
}

fn unknown(name: &[u8]) -> CommandError {
    CommandError::wrong_subcommand("DEBUG", name)
}

fn debug_scope(args: Argv<'_>, shard_count: usize) -> Scope {
    match find_verb(args).map(|verb| verb.place) {
        Ok(Place::KeysShard) => Scope::Shard(shard_of(args.arg(2), shard_count)),
        Ok(Place::AllShards) if reload::is_by_thread(args) => Scope::Session,
        Ok(Place::AllShards) if check_arguments(args).is_ok() => Scope::Every(KeyspaceLock::All),
        // Also what is wrong: it is refused once, at home.
        Ok(Place::AllShards | Place::Home) | Err(_) => Scope::Session,
    }
}

/// Checks the arguments of a verb that runs on all shards.
///
/// # Errors
/// Those of the verb.
fn check_arguments(args: Argv<'_>) -> CommandResult {
    let verb = args.arg(1);
    if args::is(verb, "populate") {
        Population::parse(args)?;
    } else if args::is(verb, "quicklist-packed-threshold") {
        packed_threshold(args.arg(2))?;
    } else if args::is(verb, "reload") {
        Reload::parse(args)?;
    }
    Ok(())
}

/// The key that a verb reads.
fn debug_key(args: Argv<'_>) -> Option<usize> {
    find_verb(args).is_ok_and(|verb| verb.place == Place::KeysShard).then_some(2)
}

/// DEBUG verb [argument ...].
fn debug(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let verb = find_verb(ctx.args)?;
    (verb.run)(ctx)
}

/// Digests add up; other replies of all shards are the same.
fn merge_debug(replies: &[&[u8]], args: Argv<'_>, out: &mut Vec<u8>) {
    let verb = args.arg(1);
    let mut reply = Reply::new(out, Resp::V2);
    if args::is(verb, "digest") {
        merge_digests(replies).write(&mut reply);
    } else if args::is(verb, "digest-value") {
        let mut sums = vec![Digest::default(); args.len() - 2];
        for shard in replies {
            let digests = split_array(shard).expect("a shard answers with a digest a key");
            sums.iter_mut().zip(digests).for_each(|(sum, share)| sum.add_share(Digest::parse(share)));
        }
        reply.array(sums.len());
        sums.iter().for_each(|sum| sum.write(&mut reply));
    } else {
        // The same of all shards, unless one has failed.
        reply.raw(replies.iter().find(|reply| reply.starts_with(b"-")).unwrap_or(&replies[0]));
    }
}

/// A number as C's atoi reads it, for switches: what is no number is 0.
fn switch(text: &[u8]) -> bool {
    parse_i64(text).unwrap_or(0) != 0
}

/// SLEEP seconds. Nothing happens on any shard meanwhile. Reply: OK.
fn sleep(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let seconds = parse_f64(ctx.arg(2)).unwrap_or(0.0).max(0.0);
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);

    // The other shards sit it out when they next have something to do; this one sleeps here, in its command.
    let duration_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    ctx.worker.globals.stall(ctx.worker.shard.now_ms.saturating_add(duration_ms));
    ctx.worker.clock().sleep(duration);
    // What it delayed in an EXEC may have expired when the keys are offered to blocked clients.
    let now_ms = ctx.worker.clock().wall_ms();
    ctx.worker.shard.set_now(now_ms);

    ctx.reply.ok();
    Ok(())
}

/// The longest list element that is kept in a listpack. 0: Redis' default.
///
/// # Errors
/// The threshold is no size, or too big.
fn packed_threshold(arg: &[u8]) -> CommandResult<usize> {
    const THRESHOLD_MAX: u64 = (1 << 32) - (1 << 20);
    match parse_memory(arg) {
        Some(0) => Ok(Limits::ELEMENT_BYTES_MAX),
        Some(threshold @ 1..=THRESHOLD_MAX) => Ok(threshold as usize - 1),
        Some(_) | None => {
            Err(CommandError::fixed("ERR argument must be a memory value bigger than 1 and smaller than 4gb"))
        }
    }
}

/// QUICKLIST-PACKED-THRESHOLD size. Elements of new big lists that have so many bytes are nodes by themselves. Reply:
/// OK. Errors: no size.
fn quicklist_packed_threshold(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.shard.list_element_bytes_max = packed_threshold(ctx.arg(2))?;

    ctx.reply.ok();
    Ok(())
}

/// OBJECT key. Reply: a status that describes the entry. Errors: no such key.
fn object(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let key = ctx.arg(2);
    let shard = &ctx.worker.shard;
    // Also one whose time is up.
    let entry = shard.lookup_stored(ctx.call.db, Key { bytes: key, hash: hash_key(key) });
    let entry = entry.ok_or(CommandError::NO_SUCH_KEY)?;

    // Redis shares the objects of small integers among all keys, and shows how many references it counts then.
    const SHARED_INTEGERS: std::ops::Range<i64> = 0..10_000;
    let refcount = match entry.value() {
        ValueRef::Int(number) if SHARED_INTEGERS.contains(&number) => i32::MAX,
        ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => 1,
    };
    let place = KeyPlace::of(ctx.call.db, key);
    let serialized_len_bytes = serialized_len(entry.value(), place, shard.config.rdbcompression);
    let idle_s = shard.access.idle_s(entry.access());
    let text = format!(
        "Value at:{:p} refcount:{refcount} encoding:{} serializedlength:{serialized_len_bytes} lru:{} \
         lru_seconds_idle:{idle_s}",
        entry.key().as_ptr(),
        entry.encoding().name(),
        entry.access(),
    );

    ctx.reply.simple(&text);
    Ok(())
}

/// Length of a value in a file, without its type.
fn serialized_len(value: ValueRef<'_>, place: KeyPlace<'_>, compress: bool) -> usize {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, compress).at(place).value(value);
    bytes.len() - 1
}

/// What POPULATE is to create.
struct Population<'a> {
    count: u64,
    prefix: &'a [u8],
    value_len: Option<usize>,
}

impl<'a> Population<'a> {
    fn parse(args: Argv<'a>) -> CommandResult<Population<'a>> {
        let number = |text: &[u8]| {
            let number = parse_i64(text).and_then(|number| u64::try_from(number).ok());
            number.ok_or(CommandError::fixed("ERR value is out of range, must be positive"))
        };
        let count = number(args.arg(2))?;
        let prefix = args.get(3).unwrap_or(b"key");
        let value_len = args.get(4).map(number).transpose()?.map(|len| len as usize).filter(|&len| len > 0);
        Ok(Population { count, prefix, value_len })
    }

    fn key(&self, n: u64, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix);
        key.push(b':');
        key.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }

    fn value(&self, n: u64, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(b"value:");
        value.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        if let Some(len) = self.value_len {
            value.resize(len, 0);
        }
    }
}

/// POPULATE count [prefix [size]]. Each shard creates the keys `prefix:n` that are its own and not there yet. Reply: OK.
/// Errors: negative numbers. O(count) on every shard.
fn populate(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let population = Population::parse(ctx.args)?;

    let (mut key, mut value) = (Vec::new(), Vec::new());
    for n in 0..population.count {
        population.key(n, &mut key);
        let shard = &mut ctx.worker.shard;
        if !shard.owns(&key) {
            continue;
        }
        let key = Key { bytes: &key, hash: hash_key(&key) };
        if !shard.exists(ctx.call.db, key) {
            population.value(n, &mut value);
            shard.set_uncounted(ctx.call, key, NewValue::Str(&value), Event::NEW);
        }
    }

    ctx.reply.ok();
    Ok(())
}

/// What RELOAD is to do.
struct Reload {
    saves: bool,
    flushes: bool,
    duplicates: Duplicates,
}

impl Reload {
    fn parse(args: Argv<'_>) -> CommandResult<Reload> {
        let mut wanted = Reload { saves: true, flushes: true, duplicates: Duplicates::Refused };
        for option in args.iter().skip(2) {
            if args::is(option, "merge") {
                wanted.duplicates = Duplicates::Replaced;
            } else if args::is(option, "noflush") {
                wanted.flushes = false;
            } else if args::is(option, "nosave") {
                wanted.saves = false;
            } else {
                return Err(CommandError::fixed(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
        Ok(wanted)
    }
}

/// RELOAD [NOSAVE] [NOFLUSH] [MERGE]. Saves, and loads what was saved in place of what is there; each shard its own keys. With
/// NOSAVE the present file is loaded, with NOFLUSH what is there stays, with MERGE keys of the file replace such. Reply: OK.
/// Errors: options; the file cannot be written or read. O(bytes).
fn reload(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let wanted = Reload::parse(ctx.args)?;
    if reload::is_by_thread(ctx.args) {
        return reload::begin(ctx, &wanted);
    }
    // All shards do this, and one of them tells the modules.
    let tells = ctx.worker.shard.index == 0;
    if tells && wanted.saves {
        events::tell_saving(Saving::Rdb);
    }

    let mut chunks = Vec::new();
    if wanted.saves {
        chunks.push(ctx.worker.save_aux(AuxPlace::BeforeKeys));
    }
    if wanted.saves
        && let Some(Err(_)) = ctx.worker.save_part(&mut |chunk| chunks.push(chunk.to_vec()))
    {
        return Err(CommandError::fixed("ERR"));
    }
    if wanted.saves {
        chunks.push(ctx.worker.save_aux(AuxPlace::AfterKeys));
    }
    if tells && wanted.saves {
        events::tell_saving(Saving::Ended);
    }
    if wanted.flushes {
        ctx.worker.shard.flush_all(Freeing::Now);
    }
    if tells {
        events::tell_loading(Loading::Rdb);
    }
    let outcome = if wanted.saves {
        let outcome = chunks.iter().try_for_each(|chunk| ctx.worker.reload_chunk(chunk, wanted.duplicates));
        // Those that were flushed would come back as they were.
        outcome.and_then(|()| match wanted.flushes {
            true => Ok(()),
            false => ctx.worker.reload_libraries(wanted.duplicates),
        })
    } else {
        if wanted.flushes {
            ctx.worker.drop_libraries();
        }
        reload_file(ctx.worker, wanted.duplicates)
    };
    if tells {
        events::tell_loading(if outcome.is_ok() { Loading::Ended } else { Loading::Failed });
    }

    outcome.map_err(|why| not_loaded(&why))?;
    log::warning(format_args!("DB reloaded by DEBUG RELOAD"));
    ctx.reply.ok();
    Ok(())
}

fn not_loaded(why: &LoadError) -> CommandError {
    log::warning(format_args!("DEBUG RELOAD: {why}"));
    CommandError::fixed("ERR Error trying to load the RDB dump")
}

fn reload_file(worker: &mut Worker, duplicates: Duplicates) -> Result<(), LoadError> {
    let config = &worker.shard.config;
    let mut reader = FileReader::new(config.rdbchecksum);
    let not_read = |why: String| LoadError::File(FileError::Io(std::io::Error::other(why)));
    let opened = files::open_if_there(config.dbfilename.as_path()).map_err(not_read)?;
    let (mut file, _) = opened.ok_or_else(|| not_read("there is no such file".to_owned()))?;
    worker.reload(&mut file, &mut reader, duplicates)
}

/// SET-SKIP-CHECKSUM-VALIDATION 0|1. Whether RESTORE takes payloads whatever their checksum. Reply: OK.
fn set_skip_checksum_validation(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.shard.skips_checksums = switch(ctx.arg(2));
    ctx.reply.ok();
    Ok(())
}

/// SET-DISABLE-DENY-SCRIPTS 0|1. Whether scripts may call commands that they must not call otherwise. Reply: OK.
fn set_disable_deny_scripts(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.globals.scripts_are_trusted.store(switch(ctx.arg(2)), Ordering::Relaxed);
    ctx.reply.ok();
    Ok(())
}

/// SET-ACTIVE-EXPIRE 0|1. Reply: OK.
fn set_active_expire(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.globals.active_expire.store(switch(ctx.arg(2)), Ordering::Relaxed);
    ctx.reply.ok();
    Ok(())
}

/// LONGEST-WAIT. Reply: integer, microseconds.
fn longest_wait(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let clock = ctx.worker.clock();
    let connection = ctx.conn.and_then(|at| ctx.worker.connections[at].as_deref_mut());
    let ticks = connection.map_or(0, |connection| connection.take_longest_wait_ticks());
    ctx.reply.integer((clock.ticks_to_nanos(ticks) / 1000) as i64);
    Ok(())
}

/// PAUSE-CRON 0|1. Reply: OK.
fn pause_cron(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.globals.pause_cron(switch(ctx.arg(2)));
    ctx.reply.ok();
    Ok(())
}

/// REPLYBUFFER PEAK-RESET-TIME NEVER|RESET|milliseconds, or RESIZING 0|1. Reply: OK. Errors: not a time.
fn replybuffer(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (setting, value) = (ctx.arg(2), ctx.arg(3));
    let globals = ctx.worker.globals;
    if args::is(setting, "peak-reset-time") {
        let reset_ms = if args::is(value, "never") {
            -1
        } else if args::is(value, "reset") {
            REPLY_PEAK_RESET_MS
        } else {
            parse_i64(value).ok_or(CommandError::NOT_INTEGER)?
        };
        globals.reply_peak_reset_ms.store(reset_ms, Ordering::Relaxed);
    } else if args::is(setting, "resizing") {
        globals.reply_buffers_resize.store(switch(value), Ordering::Relaxed);
    } else {
        return Err(unknown(ctx.arg(1)));
    }

    ctx.reply.ok();
    Ok(())
}

/// CONFIG-REWRITE-FORCE-ALL. As CONFIG REWRITE, with a line for every directive. Reply: OK.
fn config_rewrite_force_all(ctx: &mut SessionCtx<'_>) -> CommandResult {
    rewrite_file(&ctx.worker.shard.config, &user_lines(ctx.worker), Append::All)?;
    ctx.reply.ok();
    Ok(())
}

/// DIGEST. Reply: a status of 40 hexadecimal digits that stands for all keys of all databases; zeros if there are none. As
/// in Redis, keys whose time is up count until they are removed. O(bytes).
fn digest_keyspace(ctx: &mut SessionCtx<'_>) -> CommandResult {
    // One shard's share, for the merge: the numbers of the databases in which it has keys, each with a digest.
    let shard = &ctx.worker.shard;
    let mut shares = Vec::new();
    for db in 0..shard.db_count() as u32 {
        let mut sum = DbDigest::default();
        shard.for_each_key(db, &mut |entry| sum.add_key(db, entry));
        shares.extend(sum.share().map(|share| (db, share)));
    }

    ctx.reply.array(2 * shares.len());
    for (db, share) in shares {
        ctx.reply.integer(i64::from(db));
        share.write(&mut ctx.reply);
    }
    Ok(())
}

/// What the shards' shares of DIGEST make.
fn merge_digests(replies: &[&[u8]]) -> Digest {
    let mut dbs: Vec<DbDigest> = Vec::new();
    for reply in replies {
        let mut parts = split_array(reply).expect("a shard answers with an array");
        while let (Some(db), Some(share)) = (parts.next(), parts.next()) {
            let db = parse_i64(&db[1..db.len() - 2]).expect("a database is an integer") as usize;
            dbs.resize(dbs.len().max(db + 1), DbDigest::default());
            dbs[db].add_share(Digest::parse(share));
        }
    }
    digest::of_databases(&dbs)
}

/// DIGEST-VALUE [key ...]. Reply: array of digests of the keys' values; zeros for a key that is not there. One whose time
/// is up is, until it is removed.
fn digest_value(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.reply.array(ctx.args.len() - 2);
    for key in ctx.args.iter().skip(2) {
        let shard = &mut ctx.worker.shard;
        let entry = if shard.owns(key) {
            shard.lookup_stored(ctx.call.db, Key { bytes: key, hash: hash_key(key) })
        } else {
            None
        };
        entry.map_or(Digest::default(), |entry| Digest::of_value(ctx.call.db, entry)).write(&mut ctx.reply);
    }
    Ok(())
}

/// Redis' sample of a double.
#[allow(clippy::approx_constant, reason = "it is three digits long")]
const SAMPLE_DOUBLE: f64 = 3.141;

/// PROTOCOL type. Reply: a sample of that type. Errors: unknown type; push in RESP2.
fn protocol(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let reply = &mut ctx.reply;
    match until_nul(ctx.args.arg(2)).to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(SAMPLE_DOUBLE),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.integer(n);
                reply.boolean(n == 1);
            }
        }
        b"attrib" => {
            if reply.resp == Resp::V3 {
                reply.attribute(1);
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if reply.resp == Resp::V2 {
                return Err(CommandError::fixed("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        b"bignum" => reply.bignum(b"1234567999999999999999999999999999999"),
        _ => {
            return Err(CommandError::fixed(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

/// ERROR text. Reply: an error of that text, code included, with blanks for line ends. It does not count as one.
fn error(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let is_line_end = |byte: u8| matches!(byte, b'\r' | b'\n');
    let text: Vec<u8> = ctx.arg(2).iter().map(|&byte| if is_line_end(byte) { b' ' } else { byte }).collect();

    ctx.reply.raw(&[b"-", text.as_slice(), b"\r\n"].concat());
    Ok(())
}

/// LOG message. Reply: OK.
fn write_log(ctx: &mut SessionCtx<'_>) -> CommandResult {
    log::warning(format_args!("DEBUG LOG: {}", String::from_utf8_lossy(ctx.arg(2))));
    ctx.reply.ok();
    Ok(())
}

/// SEGFAULT. The server crashes by a signal.
fn segfault(_ctx: &mut SessionCtx<'_>) -> CommandResult {
    host::segfault()
}

/// PANIC. The server crashes by a panic.
fn panic(_ctx: &mut SessionCtx<'_>) -> CommandResult {
    panic!("called by DEBUG PANIC");
}

/// ASSERT. The server crashes by an assertion.
fn assert(ctx: &mut SessionCtx<'_>) -> CommandResult {
    assert!(ctx.args.is_empty(), "ASSERTION FAILED: called by DEBUG ASSERT");
    Ok(())
}

/// Rounds of STRINGMATCH-TEST, and the longest text and pattern in them.
const STRINGMATCH_ROUNDS: usize = 100_000;
const STRINGMATCH_LEN_MAX: u64 = 33;

/// STRINGMATCH-TEST. Matches random texts with random patterns. Reply: a status, if the server survives it.
fn stringmatch_test(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let shard = &mut ctx.worker.shard;
    let mut random_text = || -> Vec<u8> {
        let len = shard.random() % STRINGMATCH_LEN_MAX;
        (0..len).map(|_| shard.random() as u8 & 0x7F).collect()
    };
    for _ in 0..STRINGMATCH_ROUNDS {
        std::hint::black_box(glob_matches(&random_text(), &random_text()));
    }
    ctx.reply.simple("Apparently the server did not crash: test passed");
    Ok(())
}

/// STRUCTSIZE. Reply: a status, sizes of a few structures in bytes.
fn structsize(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let text = format!(
        "bits:{} connection:{} call:{} slowlog:{} ",
        usize::BITS,
        size_of::<crate::worker::Connection>(),
        size_of::<crate::command::Call>(),
        size_of::<crate::shard::slowlog::SlowLogEntry>(),
    );
    ctx.reply.simple(&text);
    Ok(())
}

/// HELP. Reply: array of lines.
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "DEBUG",
        &[
            "ASSERT",
            "    Crash by a failed assertion.",
            "CHANGE-REPL-ID",
            "    Change the replication IDs of the instance.",
            "    Dangerous: should be used only for testing the replication subsystem.",
            "CONFIG-REWRITE-FORCE-ALL",
            "    As CONFIG REWRITE, with a line for every directive.",
            "DIGEST",
            "    Show a hexadecimal signature of all data.",
            "DIGEST-VALUE <key> [<key> ...]",
            "    Show hexadecimal signatures of the keys' values.",
            "ERROR <string>",
            "    Reply with an error of this text, for tests of clients.",
            "LOG <message>",
            "    Write <message> to the log.",
            "LONGEST-WAIT",
            "    Show the longest time, in microseconds, from the receipt of a request of this",
            "    connection to its reply, since this was asked last.",
            "OBJECT <key>",
            "    Describe how <key> and its value are stored.",
            "PANIC",
            "    Crash by a panic.",
            "PAUSE-CRON <0|1>",
            "    Stop periodic work (1), or take it up again (0).",
            "POPULATE <count> [<prefix>] [<size>]",
            "    Create <count> strings named <prefix>:<n>; the prefix is 'key' by default, the",
            "    values have <size> bytes.",
            "PROTOCOL <type>",
            "    Reply with a sample of: string, integer, double, bignum, null, array, set, map,",
            "    attrib, push, verbatim, true, false.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Set from which length on list elements are nodes by themselves. 0: default.",
            "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
            "    Save, and load what was saved in place of what is there. With NOSAVE, load the",
            "    file as it is; with NOFLUSH, keep what is there; with MERGE, replace such keys.",
            "REPLICATE <word> [<word> ...]",
            "    Send <word> ... to the replicas as a request, whatever becomes of their data.",
            "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|time>",
            "    Forget clients' longest replies after so many milliseconds, never, or after the",
            "    default time.",
            "REPLYBUFFER RESIZING <0|1>",
            "    Fit the room for clients' replies to their length, or leave it.",
            "SEGFAULT",
            "    Crash by a signal.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Whether keys expire that nobody asks for.",
            "SET-DISABLE-DENY-SCRIPTS <0|1>",
            "    Whether scripts may call all commands.",
            "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
            "    Whether RESTORE takes payloads with a wrong checksum.",
            "SLEEP <seconds>",
            "    Stop all shards for so long. Fractions are fine.",
            "STRINGMATCH-TEST",
            "    Try random patterns on random strings.",
            "STRUCTSIZE",
            "    Show the sizes of a few structures.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn merged(args: &[&str], replies: &[&str]) -> String {
        let replies: Vec<&[u8]> = replies.iter().map(|reply| reply.as_bytes()).collect();
        let mut out = Vec::new();
        merge_debug(&replies, OwnedArgv::from_slices(args).as_argv(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn status(digit: char) -> String {
        format!("+{}\r\n", digit.to_string().repeat(40))
    }

    #[test]
    fn digests_of_the_shards_add_up_by_exclusive_or() {
        let share = |db, digit| format!("*2\r\n:{db}\r\n{}", status(digit));
        let whole = merged(&["DEBUG", "DIGEST"], &[&share(3, '6')]);
        assert_eq!(merged(&["DEBUG", "DIGEST"], &[&share(3, '3'), "*0\r\n", &share(3, '5')]), whole);
        assert_ne!(merged(&["DEBUG", "DIGEST"], &[&share(2, '6')]), whole, "the database counts");
        let value = |a, b| format!("*2\r\n{}{}", status(a), status(b));
        assert_eq!(
            merged(&["DEBUG", "digest-value", "a", "b"], &[&value('a', '0'), &value('0', '7')]),
            value('a', '7')
        );
        assert_eq!(merged(&["DEBUG", "POPULATE", "1"], &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
    }

    #[test]
    fn a_verb_is_refused_with_the_wrong_number_of_arguments() {
        let refused = |args: &[&str]| find_verb(OwnedArgv::from_slices(args).as_argv()).err();
        assert_eq!(refused(&["DEBUG", "Sleep", "1"]), None);
        assert_eq!(refused(&["DEBUG", "digest-value"]), None);
        assert_eq!(
            refused(&["DEBUG", "SLEEP"]).unwrap().text(),
            "ERR unknown subcommand or wrong number of arguments for 'SLEEP'. Try DEBUG HELP."
        );
        assert!(refused(&["DEBUG", "nosuch"]).is_some());
    }

    #[test]
    fn populate_makes_keys_and_values_of_the_wanted_shape() {
        let args = OwnedArgv::from_slices(&["DEBUG", "POPULATE", "2", "p", "9"]);
        let population = Population::parse(args.as_argv()).unwrap();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        population.key(12, &mut key);
        population.value(1, &mut value);
        assert_eq!((key.as_slice(), value.as_slice()), (&b"p:12"[..], &b"value:1\0\0"[..]));

        let args = OwnedArgv::from_slices(&["DEBUG", "POPULATE", "-1"]);
        assert!(Population::parse(args.as_argv()).is_err());
    }

    #[test]
    fn serialized_lengths_are_those_of_a_dump() {
        let integers = [5, 300, 70_000, 5_000_000_000].map(ValueRef::Int);
        assert_eq!(integers.map(|value| serialized_len(value, KeyPlace::default(), true)), [2, 3, 5, 11]);
        let strings = [3, 64, 20_000]
            .map(|len| serialized_len(ValueRef::Str(&vec![b'x'; len]), KeyPlace::default(), false));
        assert_eq!(strings, [4, 66, 20_005]);
    }
}
