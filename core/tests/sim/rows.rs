//! Commands for tests only. They show how a handler with several keys, or a blocking one, is written: it uses the keys
//! of its arguments, and contains nothing about shards.
//!
//! A value here is a list of words separated by commas, so that several clients can take from one key.

use shardis_core::command::keys::{KeyPositions, KeySpec, key_flag};
use shardis_core::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use shardis_core::command::typed::{Digits, StringRef};
use shardis_core::command::{CommandError, CommandResult, Ctx, args};
use shardis_core::protocol::{Argv, Reply, Resp};
use shardis_core::shard::blocking::{BlockRequest, TimeoutReply};
use shardis_core::shard::effects::Readers;
use shardis_core::shard::event::Event;
use shardis_core::types::{NewValue, SetExpire};
use shardis_core::worker::persistence::write_shard;
use shardis_core::worker::program::{
    CallOptions, Control, HoldEnd, HoldId, HoldOn, MadeKeys, ProgramCtx, ProgramHandler, ProgramKind, Reach,
    Task, WaitForKeys,
};
use shardis_core::worker::snapshot::Wanted;
use shardis_core::worker::{SessionCtx, SessionHandler};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

pub const COMMANDS: &[Command] =
    &[BMOVE, BTAKE, HOLD, HTAKE, JOIN, MADE, MADE_PLACED, PROGRAM, PUSH, RELEASE, SNAPSHOT, TAKE, WIDE];

const SNAPSHOT: Command = Command::session("tsnapshot", 1, &(snapshot as SessionHandler))
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::With(merge_snapshot));

/// TSNAPSHOT. Begins a background save, as BGSAVE does. Reply: for each shard a bulk string, what is to be in its part.
/// Errors: one is running.
fn snapshot(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let mut all = Vec::new();
    write_shard(&ctx.worker.shard, &mut |chunk| all.extend(chunk), &mut || {});
    ctx.worker.take_snapshot(Wanted::Save, false)?;

    ctx.reply.bulk(&all);
    Ok(())
}

/// The replies, one behind the other.
fn merge_snapshot(replies: &[&[u8]], _: Argv<'_>, out: &mut Vec<u8>) {
    replies.iter().for_each(|reply| out.extend_from_slice(reply));
}

const TAKEN: u32 = key_flag::RW | key_flag::ACCESS | key_flag::DELETE;
const ADDED: u32 = key_flag::RW | key_flag::INSERT;

const PUSH: Command = Command::keys("tpush", -3, push)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, ADDED)]);

/// TPUSH key word [word ...]. Adds the words at the end. Reply: integer, how many there are.
fn push(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut words = words_at(ctx, 1)?;
    words.extend(ctx.args.iter().skip(2).map(<[u8]>::to_vec));

    store(ctx, 1, &words);

    ctx.reply.integer(words.len() as i64);
    Ok(())
}

const TAKE: Command =
    Command::keys("ttake", 2, take).flags(flag::WRITE).acl(acl::STRING).at(&[KeySpec::one(1, TAKEN)]);

/// TTAKE key. Takes the first word. Reply: the word, or null.
fn take(ctx: &mut Ctx<'_>) -> CommandResult {
    match take_first(ctx, 1)? {
        Some(word) => ctx.reply.bulk(&word),
        None => ctx.reply.null(),
    }
    Ok(())
}

const BTAKE: Command = Command::blocking("btake", -3, btake)
    .flags(flag::WRITE)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, -2, 1, TAKEN)]);

/// BTAKE key [key ...] timeout. Takes the first word of the first key that exists, or blocks until one does. Reply:
/// array of key and word, or null after the timeout.
fn btake(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let keys = 1..ctx.args.len() - 1;
    let deadline_ms = args::deadline_ms(ctx.arg(keys.end), ctx.shard.now_ms)?;

    for at in ctx.takes_from(keys.clone()) {
        if let Some(word) = take_first(ctx, at)? {
            ctx.effect(&[b"TTAKE", ctx.args.arg(at)]);
            ctx.reply.array(2);
            ctx.reply.bulk(ctx.args.arg(at));
            ctx.reply.bulk(&word);
            return Ok(None);
        }
    }

    ctx.block(keys, deadline_ms, TimeoutReply::NullArray)
}

const BMOVE: Command = Command::blocking("bmove", -4, bmove)
    .flags(flag::WRITE)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, -3, 1, TAKEN), KeySpec::range(2, -2, 1, ADDED)])
    .find_keys(bmove_keys);

/// BMOVE source [source ...] destination timeout. Moves the first word of the first source that exists to the end of
/// the destination, or blocks until a source exists. Reply: array of source and word, or null after the timeout.
fn bmove(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let sources = 1..ctx.args.len() - 2;
    let deadline_ms = args::deadline_ms(ctx.arg(sources.end + 1), ctx.shard.now_ms)?;

    for at in ctx.takes_from(sources.clone()) {
        if let Some(word) = take_first(ctx, at)? {
            let mut words = words_at(ctx, sources.end)?;
            words.push(word.clone());
            store(ctx, sources.end, &words);
            ctx.effect(&[b"BMOVE", ctx.args.arg(at), ctx.args.arg(sources.end), b"0"]);

            ctx.reply.array(2);
            ctx.reply.bulk(ctx.args.arg(at));
            ctx.reply.bulk(&word);
            return Ok(None);
        }
    }

    ctx.block(sources, deadline_ms, TimeoutReply::NullArray)
}

fn bmove_keys(args: Argv<'_>, found: &mut KeyPositions) {
    let destination = args.len().saturating_sub(2).max(2);
    found.extend((1..destination).map(|at| (at, TAKEN)));
    found.push((destination, ADDED));
}

const JOIN: Command =
    Command::keys("tjoin", 4, join).flags(flag::WRITE | flag::DENYOOM).acl(acl::STRING).at(&[
        KeySpec::range(1, 1, 1, key_flag::RO | key_flag::ACCESS),
        KeySpec::one(3, key_flag::OW | key_flag::UPDATE),
    ]);

/// TJOIN first second destination. Stores the words of the first key followed by those of the second. Reply: integer,
/// how many.
fn join(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut words = words_at(ctx, 1)?;
    words.extend(words_at(ctx, 2)?);

    store(ctx, 3, &words);

    ctx.reply.integer(words.len() as i64);
    Ok(())
}

fn words_at(ctx: &mut Ctx<'_>, at: usize) -> CommandResult<Vec<Vec<u8>>> {
    let key = ctx.key(at);
    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else { return Ok(Vec::new()) };
    let mut digits = Digits::new();
    let bytes = StringRef::of(entry.value())?.bytes(&mut digits);
    Ok(bytes.split(|&byte| byte == b',').map(<[u8]>::to_vec).collect())
}

fn store(ctx: &mut Ctx<'_>, at: usize, words: &[Vec<u8>]) {
    let key = ctx.key(at);
    if words.is_empty() {
        ctx.shard.delete(ctx.call, key, Event::DEL);
    } else {
        let value = words.join(&b","[..]);
        ctx.shard.set(ctx.call, key, NewValue::Str(&value), SetExpire::Keep, Event::SET);
    }
}

fn take_first(ctx: &mut Ctx<'_>, at: usize) -> CommandResult<Option<Vec<u8>>> {
    let mut words = words_at(ctx, at)?;
    if words.is_empty() {
        return Ok(None);
    }
    let first = words.remove(0);
    store(ctx, at, &words);
    Ok(Some(first))
}

const PROGRAM: Command = Command::program("tprogram", -3, &NARROW)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SCRIPTING)
    .at(&[KeySpec::counted(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)]);

const NARROW: ProgramHandler = ProgramHandler {
    kind: ProgramKind::Script,
    flags: |_, flags, _| flags,
    name: |_| None,
    reach: |_, _| Reach::Declared,
    made_keys: |_, _| None,
    may_publish: |_, _| true,
    run: program,
    data: &(),
};

/// TWIDE is the same, but may use any keys.
const WIDE: Command = Command::program("twide", -3, &ANY_KEYS)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SCRIPTING)
    .at(&[KeySpec::counted(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)]);

const ANY_KEYS: ProgramHandler = ProgramHandler {
    kind: ProgramKind::Script,
    flags: |_, flags, _| flags,
    name: |_| None,
    reach: |_, _| Reach::Any { is_read_only: false },
    made_keys: |_, _| None,
    may_publish: |_, _| true,
    run: program,
    data: &(),
};

/// TMADE is the same, but keeps to keys that it declares and to others that are known before it runs.
const MADE: Command = Command::program("tmade", -4, &MAKES)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SCRIPTING)
    .at(&[KeySpec::counted(2, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)]);

const MADE_PLACED: Command =
    Command::program("tmade-made", -4, &MAKES).flags(MADE.flags).at(MADE.keys).in_place_of("tmade");

const MAKES: ProgramHandler = ProgramHandler {
    reach: |_, _| Reach::Made { is_read_only: false },
    made_keys: |_, args| made_keys(args).ok(),
    run: made,
    ..NARROW
};

/// The keys that TMADE makes.
fn made_keys(args: Argv<'_>) -> CommandResult<MadeKeys> {
    let range = made_range(args)?;
    Ok(range.map(|at| args.arg(at).to_vec()).collect())
}

fn made_range(args: Argv<'_>) -> CommandResult<std::ops::Range<usize>> {
    let count = |at| usize::try_from(args::integer(args.arg(at))?).map_err(|_| CommandError::SYNTAX);
    let first = 3 + count(2)?;
    Ok(first..first + count(1)?)
}

/// TMADE nummade numkeys [key ...] [made-key ...] [/ command [argument ...]]... As TPROGRAM, but it declares only the first
/// keys, and makes the others.
fn made(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let first = made_range(ctx.args)?.end;
    call_all(ctx, first)
}

const OPTIONS: CallOptions = CallOptions {
    resp: Resp::V2,
    readers: Readers::ALL,
    is_read_only: false,
    allows_oom: false,
    is_as_script: true,
};

/// TPROGRAM numkeys [key ...] [/ command [argument ...]]... Calls the commands, which may use only these keys. It computes
/// a little between them, so that it may be suspended at any moment. Reply: array of their replies, including errors.
/// Errors: a bad numkeys; the program is stopped.
fn program(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let numkeys = args::integer(ctx.arg(1))?;
    let first = 2 + usize::try_from(numkeys).map_err(|_| CommandError::SYNTAX)?;
    call_all(ctx, first)
}

/// Calls the commands that stand from this argument on.
fn call_all(ctx: &mut ProgramCtx<'_>, first: usize) -> CommandResult {
    let words: Vec<&[u8]> = ctx.args.iter().skip(first).collect();
    if words.first() != Some(&&b"/"[..]) {
        return Err(CommandError::SYNTAX);
    }

    let mut replies = Vec::new();
    let mut count = 0;
    for call in words[1..].split(|word| *word == b"/") {
        if let [b"SPIN", times] = call {
            spin(ctx, args::integer(times)?)?;
            continue;
        }
        go_on(ctx.tick())?;
        go_on(ctx.call(call, OPTIONS, &mut replies))?;
        count += 1;
    }

    ctx.reply.array(count);
    ctx.reply.raw(&replies);
    Ok(())
}

/// SPIN times, among the commands: computes for so many milliseconds of the clock, which it moves.
fn spin(ctx: &mut ProgramCtx<'_>, times: i64) -> CommandResult {
    (0..times).try_for_each(|_| {
        ctx.worker().clock().sleep(Duration::from_millis(1));
        go_on(ctx.tick())
    })
}

fn go_on(control: Control) -> CommandResult {
    match control {
        Control::GoOn => Ok(()),
        Control::Stop(text) => Err(CommandError::new(text)),
    }
}

const HOLD: Command = Command::program("thold", 3, &HOLDS).flags(flag::WRITE);

const HOLDS: ProgramHandler = ProgramHandler {
    kind: ProgramKind::Module,
    flags: |_, flags, _| flags,
    name: |_| None,
    reach: any_keys,
    made_keys: |_, _| None,
    may_publish: |_, _| true,
    run: hold,
    data: &(),
};

fn any_keys(_worker: &mut shardis_core::worker::Worker, _args: Argv<'_>) -> Reach {
    Reach::Any { is_read_only: false }
}

/// The clients that are held by THOLD, by the names that it was given: their shards and holds. All servers of the process
/// share it.
static HELD: Mutex<BTreeMap<Vec<u8>, (usize, HoldId)>> = Mutex::new(BTreeMap::new());

/// THOLD name timeout. Sets `began:name`, and has the client wait for TRELEASE, at most so many milliseconds; 0: for ever, also
/// if CLIENT UNBLOCK ends it. At the end `ended:name` is set to how it ended. Reply: that. Errors: the client cannot wait.
fn hold(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let name = ctx.arg(1).to_vec();
    let timeout_ms = args::integer(ctx.arg(2))?;
    let (began, ended) = ([b"began:", &name[..]].concat(), [b"ended:", &name[..]].concat());
    go_on(ctx.call(&[b"SET", &began, b"1"], OPTIONS, &mut Vec::new()))?;
    let now_ms = ctx.worker().shard.now_ms;
    let deadline_ms = (timeout_ms > 0).then_some(now_ms + timeout_ms);
    let on_end = Box::new(move |end: HoldEnd| -> Task {
        Box::new(move |ctx: &mut ProgramCtx<'_>| {
            let how = format!("{end:?}");
            let _ = ctx.call(&[b"SET", &ended, how.as_bytes()], OPTIONS, &mut Vec::new());
            ctx.reply.simple(&how);
        })
    });

    let id = ctx.hold_client(HoldOn { deadline_ms, may_time_out: timeout_ms > 0, keys: None, on_end });
    let id = id.ok_or(CommandError::fixed("ERR the client cannot wait"))?;
    let shard = ctx.worker().shard.index;
    HELD.lock().expect("its users do not panic").insert(name, (shard, id));
    Ok(())
}

const HTAKE: Command = Command::program("htake", -3, &HOLDS_FOR_KEYS)
    .flags(flag::WRITE)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, -2, 1, TAKEN)]);

const HOLDS_FOR_KEYS: ProgramHandler = ProgramHandler { run: htake, ..HOLDS };

/// HTAKE key [key ...] timeout. As BTAKE, but a program that holds its client, as a module's command that blocks on keys does.
fn htake(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let keys: Vec<&[u8]> = (1..ctx.args.len() - 1).map(|at| ctx.arg(at)).collect();
    let deadline_ms = args::deadline_ms(ctx.arg(ctx.args.len() - 1), ctx.worker().shard.now_ms)?;
    for key in &keys {
        if let Some(taken) = take_held(ctx, key)? {
            ctx.reply.raw(&taken);
            return Ok(());
        }
    }

    let db = ctx.call.db;
    let id_of_hold = Arc::new(OnceLock::new());
    let taken_later = Arc::new(Mutex::new(Vec::new()));
    let (id, taken) = (Arc::clone(&id_of_hold), Arc::clone(&taken_later));
    let on_ready = move |key: Vec<u8>| -> Task {
        let (id, taken) = (Arc::clone(&id), Arc::clone(&taken));
        Box::new(move |ctx: &mut ProgramCtx<'_>| {
            ctx.select(db);
            if let Ok(Some(reply)) = take_held(ctx, &key) {
                *taken.lock().expect("its users do not panic") = reply;
                let id = id.get().expect("it is set before the client is held");
                assert!(ctx.worker().release_hold(*id), "nothing ends the hold during a try");
            }
        })
    };
    let on_end = Box::new(move |end: HoldEnd| -> Task {
        Box::new(move |ctx: &mut ProgramCtx<'_>| match end {
            HoldEnd::Released => ctx.reply.raw(&taken_later.lock().expect("its users do not panic")),
            HoldEnd::TimedOut => ctx.reply.null_array(),
            HoldEnd::Gone => {}
        })
    });
    let keys = Some(WaitForKeys::new(&keys, false, Box::new(on_ready)));
    match ctx.hold_client(HoldOn { deadline_ms, may_time_out: true, keys, on_end }) {
        Some(id) => id_of_hold.set(id).expect("it is set once"),
        None => ctx.reply.null_array(),
    }
    Ok(())
}

/// Takes the first word of a key. Returns the reply of BTAKE.
fn take_held(ctx: &mut ProgramCtx<'_>, key: &[u8]) -> CommandResult<Option<Vec<u8>>> {
    let mut word = Vec::new();
    go_on(ctx.call(&[b"TTAKE", key], OPTIONS, &mut word))?;
    if word.starts_with(b"-") {
        return Err(CommandError::new(str::from_utf8(&word[1..]).expect("errors are text").trim_end()));
    }
    if word == b"$-1\r\n" {
        return Ok(None);
    }
    let mut reply = Vec::new();
    let mut writer = Reply::new(&mut reply, Resp::V2);
    writer.array(2);
    writer.bulk(key);
    writer.raw(&word);
    Ok(Some(reply))
}

const RELEASE: Command = Command::program("trelease", 2, &RELEASES);

const RELEASES: ProgramHandler = ProgramHandler {
    kind: ProgramKind::Module,
    flags: |_, flags, _| flags,
    name: |_| None,
    reach: any_keys,
    made_keys: |_, _| None,
    may_publish: |_, _| true,
    run: release,
    data: &(),
};

/// TRELEASE name. Ends the wait of a client of THOLD, as a thread would. Reply: OK. Errors: there was never such a client.
fn release(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let held = HELD.lock().expect("its users do not panic").get(ctx.arg(1)).copied();
    let (shard, id) = held.ok_or(CommandError::fixed("ERR no such client"))?;

    ctx.worker().globals.outside[shard].release(id);

    ctx.reply.ok();
    Ok(())
}
