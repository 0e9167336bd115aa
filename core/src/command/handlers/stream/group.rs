//! XGROUP: creating, changing and removing consumer groups and their consumers.

use super::ids;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{stream_mut, stream_of};
use crate::command::{Call, CommandError, CommandResult, Ctx, Key, args};
use crate::shard::Shard;
use crate::shard::change::ChangeGuard;
use crate::shard::event::Event;
use crate::types::Object;
use crate::types::stream::{Stream, StreamId};

pub(super) const XGROUP: Command = Command::container("xgroup", SUBCOMMANDS).docs(
    Docs::new("stream", "5.0.0", "Changes the consumer groups of a stream")
        .complexity("Depends on the subcommand"),
);

const SUBCOMMANDS: &[Command] = &[CREATE, CREATECONSUMER, DELCONSUMER, DESTROY, HELP, SETID];

const INSERT: &[KeySpec] = &[KeySpec::one(2, key_flag::RW | key_flag::INSERT)];
const UPDATE: &[KeySpec] = &[KeySpec::one(2, key_flag::RW | key_flag::UPDATE)];
const DELETE: &[KeySpec] = &[KeySpec::one(2, key_flag::RW | key_flag::DELETE)];

const NO_STREAM: CommandError = CommandError::fixed(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
     option to create an empty stream automatically.",
);

fn no_group(ctx: &Ctx<'_>) -> CommandError {
    let text = ["NOGROUP No such consumer group '", "' for key name '", "'"];
    CommandError::quoting_two(text, [ctx.arg(3), ctx.arg(2)])
}

/// The options of CREATE and SETID.
struct Options {
    makes_stream: bool,
    entries_read: Option<i64>,
}

impl Options {
    /// # Errors
    /// Syntax; invalid values.
    fn parse(ctx: &Ctx<'_>, takes_mkstream: bool) -> CommandResult<Options> {
        let mut options = Options { makes_stream: false, entries_read: None };
        let mut at = 5;
        while at < ctx.args.len() {
            if takes_mkstream && args::is(ctx.arg(at), "mkstream") {
                options.makes_stream = true;
                at += 1;
            } else if args::is(ctx.arg(at), "entriesread") && at + 1 < ctx.args.len() {
                let count = args::integer(ctx.arg(at + 1))?;
                if count < -1 {
                    return Err(CommandError::fixed("ERR value for ENTRIESREAD must be positive or -1"));
                }
                options.entries_read = (count >= 0).then_some(count);
                at += 2;
            } else {
                return Err(CommandError::wrong_subcommand("XGROUP", ctx.arg(1)));
            }
        }
        Ok(options)
    }
}

/// The stream of a key, to change. Its observers are not told of the change.
///
/// # Errors
/// There is none; WRONGTYPE.
fn change<'a>(shard: &'a mut Shard, call: &'a Call, key: Key<'a>) -> CommandResult<ChangeGuard<'a>> {
    let guard = shard.change_unobserved(call, key).ok_or(NO_STREAM)?;
    stream_of(guard.value())?;
    Ok(guard)
}

/// Notifies of an event of the key at argument 2.
fn notify(ctx: &mut Ctx<'_>, event: Event) {
    let key = ctx.key(2);
    ctx.shard.notify_event(ctx.call, ctx.call.db, key, event);
}

const CREATE: Command = Command::keys("create", -5, create)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STREAM)
    .at(INSERT)
    .constant_time()
    .docs(
        Docs::new("stream", "5.0.0", "Creates a consumer group")
            .complexity("O(1)")
            .arguments("key#0 groupname id(id | new_id'$') [MKSTREAM] [ENTRIESREAD entries_read:int]")
            .history(&[("7.0.0", "Option `ENTRIESREAD`")]),
    );

/// XGROUP CREATE key group (id | $) [MKSTREAM] [ENTRIESREAD count]. The group's readers get what is behind the ID. Reply:
/// OK. Errors: syntax; no such key without MKSTREAM; WRONGTYPE; an invalid ID; BUSYGROUP. O(log groups).
fn create(ctx: &mut Ctx<'_>) -> CommandResult {
    const ARGS_MAX: usize = 8;
    let options = Options::parse(ctx, true)?;
    let (key, name) = (ctx.key(2), ctx.arg(3));

    let last_id = match ctx.shard.lookup_silent(ctx.call.db, key) {
        Some(entry) => Some(stream_of(entry.value())?.log.last_id),
        None => None,
    };
    if last_id.is_none() && !options.makes_stream {
        return Err(NO_STREAM);
    }
    if ctx.args.len() > ARGS_MAX {
        return Err(CommandError::wrong_subcommand("XGROUP", ctx.arg(1)));
    }
    let id = group_id(ctx.arg(4), last_id.unwrap_or_default())?;

    // The group changes no entries, which is what observers are told of; a new key does.
    let is_new = last_id.is_none();
    let mut guard = if is_new {
        let new = || Box::new(Object::Stream(Stream::default()));
        ctx.shard.change_or_add_object(ctx.call, key, Event::XGROUP_CREATE, new)
    } else {
        ctx.shard.change_unobserved(ctx.call, key).expect("it was there just now")
    };
    let mut value = guard.value_mut();
    let mut object = value.object();
    let is_created = stream_mut(&mut object).groups.create(name, id, options.entries_read).is_some();
    drop(object);
    if !is_created {
        guard.count(0);
        return Err(CommandError::fixed("BUSYGROUP Consumer Group name already exists"));
    }
    drop(guard);
    if !is_new {
        notify(ctx, Event::XGROUP_CREATE);
    }

    ctx.reply.ok();
    Ok(())
}

/// The ID from which on a group reads: `$` is the last one of the stream.
fn group_id(arg: &[u8], last_id: StreamId) -> CommandResult<StreamId> {
    if arg == b"$" { Ok(last_id) } else { ids::strict(arg, 0) }
}

const SETID: Command =
    Command::keys("setid", -5, setid).flags(flag::WRITE).acl(acl::STREAM).at(UPDATE).constant_time().docs(
        Docs::new("stream", "5.0.0", "Sets the last ID that was delivered to a consumer group")
            .complexity("O(1)")
            .arguments("key#0 groupname id(id | new_id'$') [ENTRIESREAD entries_read:int]")
            .history(&[("7.0.0", "Option `ENTRIESREAD`")]),
    );

/// XGROUP SETID key group (id | $) [ENTRIESREAD count]. Reply: OK. Errors: syntax; no such key; WRONGTYPE; NOGROUP; an
/// invalid ID. O(log groups).
fn setid(ctx: &mut Ctx<'_>) -> CommandResult {
    let options = Options::parse(ctx, false)?;
    let (key, id, name) = (ctx.key(2), ctx.arg(4), ctx.arg(3));
    let sub = ctx.arg(1);
    let argc = ctx.args.len();
    let no_group = no_group(ctx);

    let mut guard = change(ctx.shard, ctx.call, key)?;
    let stream = stream_of(guard.value())?;
    let last_id = stream.log.last_id;
    if stream.groups.get(name).is_none() {
        return Err(no_group);
    }
    if argc != 5 && argc != 7 {
        return Err(CommandError::wrong_subcommand("XGROUP", sub));
    }
    let id = if id == b"$" { last_id } else { ids::extended(id, 0)? };

    let mut value = guard.value_mut();
    if let Some(mut group) = stream_mut(&mut value.object()).groups.get_mut(name) {
        group.set_read(id, options.entries_read);
    }
    drop(guard);
    notify(ctx, Event::XGROUP_SETID);

    ctx.reply.ok();
    Ok(())
}

const DESTROY: Command =
    Command::keys("destroy", 4, destroy).flags(flag::WRITE).acl(acl::STREAM).at(DELETE).docs(
        Docs::new("stream", "5.0.0", "Removes a consumer group")
            .complexity("O(N), where N is the number of the group's pending entries")
            .arguments("key#0 groupname"),
    );

/// XGROUP DESTROY key group. Clients that are blocked on the group get an error. Reply: 1, or 0 if there is no such
/// group. Errors: no such key; WRONGTYPE. O(pending entries).
fn destroy(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, name) = (ctx.key(2), ctx.arg(3));

    let mut guard = change(ctx.shard, ctx.call, key)?;
    let is_there = stream_of(guard.value())?.groups.get(name).is_some();

    if is_there {
        let mut value = guard.value_mut();
        stream_mut(&mut value.object()).groups.remove(name);
        drop(guard);
        notify(ctx, Event::XGROUP_DESTROY);
        ctx.shard.signal_waits(ctx.call.db, key);
    }

    ctx.reply.integer(i64::from(is_there));
    Ok(())
}

const CREATECONSUMER: Command = Command::keys("createconsumer", 5, createconsumer)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STREAM)
    .at(INSERT)
    .constant_time()
    .docs(
        Docs::new("stream", "6.2.0", "Creates a consumer of a group")
            .complexity("O(1)")
            .arguments("key#0 groupname consumername"),
    );

/// XGROUP CREATECONSUMER key group consumer. Reply: 1, or 0 if there is such a consumer already. Errors: no such key;
/// WRONGTYPE; NOGROUP. O(log consumers).
fn createconsumer(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, name, consumer, now_ms) = (ctx.key(2), ctx.arg(3), ctx.arg(4), ctx.shard.wall_ms);
    let no_group = no_group(ctx);

    let mut guard = change(ctx.shard, ctx.call, key)?;
    let found = stream_of(guard.value())?.groups.get(name).map(|group| group.find_consumer(consumer));
    let is_created = found.ok_or(no_group)?.is_none();

    if is_created {
        let mut value = guard.value_mut();
        if let Some(mut group) = stream_mut(&mut value.object()).groups.get_mut(name) {
            group.create_consumer(consumer, now_ms);
        }
        drop(guard);
        notify(ctx, Event::XGROUP_CREATECONSUMER);
    }

    ctx.reply.integer(i64::from(is_created));
    Ok(())
}

const DELCONSUMER: Command = Command::keys("delconsumer", 5, delconsumer)
    .flags(flag::WRITE)
    .acl(acl::STREAM)
    .at(DELETE)
    .constant_time()
    .docs(
        Docs::new("stream", "5.0.0", "Removes a consumer of a group, and its pending entries")
            .complexity("O(1)")
            .arguments("key#0 groupname consumername"),
    );

/// XGROUP DELCONSUMER key group consumer. Reply: integer, how many entries were pending at the consumer. Errors: no such
/// key; WRONGTYPE; NOGROUP. O(pending entries).
fn delconsumer(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, name, consumer) = (ctx.key(2), ctx.arg(3), ctx.arg(4));
    let no_group = no_group(ctx);

    let mut guard = change(ctx.shard, ctx.call, key)?;
    let found = stream_of(guard.value())?.groups.get(name).map(|group| group.find_consumer(consumer));
    let is_there = found.ok_or(no_group)?.is_some();

    let mut pending = 0;
    if is_there {
        let mut value = guard.value_mut();
        let mut object = value.object();
        let group = stream_mut(&mut object).groups.get_mut(name);
        pending = group.and_then(|mut group| group.remove_consumer(consumer)).unwrap_or(0);
        drop(object);
        drop(guard);
        notify(ctx, Event::XGROUP_DELCONSUMER);
    }

    ctx.reply.integer(pending as i64);
    Ok(())
}

const HELP: Command = Command::keys("help", 2, help)
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::STREAM)
    .constant_time()
    .docs(Docs::new("stream", "5.0.0", "Returns what the subcommands do").complexity("O(1)"));

/// XGROUP HELP. Reply: array of status lines.
fn help(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "XGROUP",
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create a new consumer group. Options are:",
            "    * MKSTREAM",
            "      Create the empty stream if it does not exist.",
            "    * ENTRIESREAD entries_read",
            "      Set the group's entries_read counter (internal use).",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a new consumer in the specified group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove the specified consumer.",
            "DESTROY <key> <groupname>",
            "    Remove the specified group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the current group ID and entries_read counter.",
        ],
    );
    Ok(())
}
