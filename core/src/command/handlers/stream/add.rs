//! Adding entries, deleting them, and what a stream remembers of both.

use super::ids::{self, PartialId};
use super::trim::{Trim, TrimOptions, trim_syntax};
use super::{DELETE, UPDATE};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{stream_mut, stream_of};
use crate::command::{Call, CommandError, CommandResult, Ctx, Key, args};
use crate::protocol::Argv;
use crate::shard::Shard;
use crate::shard::change::ChangeGuard;
use crate::shard::event::Event;
use crate::types::Object;
use crate::types::stream::{AppendError, IdText, NewEntry, NewId, NodeLimits, Stream, StreamId};
use smallvec::SmallVec;

pub(super) const XADD: Command = Command::keys("xadd", -5, xadd)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::STREAM)
    .at(&[KeySpec {
        notes: "UPDATE instead of INSERT because of the optional trimming feature",
        ..KeySpec::one(1, key_flag::RW | key_flag::UPDATE)
    }])
    .docs(
        // In Redis' words: a module of its test suite says the same, and compares.
        Docs::new("stream", "5.0.0", "Appends a new entry to a stream")
            .complexity(
                "O(1) when adding a new entry, O(N) when trimming where N being the number of entries evicted.",
            )
            .arguments(concat!(
                "key#0 [NOMKSTREAM@6.2.0] [",
                trim_syntax!(),
                "] id_or_auto(auto_id'*' | id) field_value{field value}..."
            ))
            .tips(&["nondeterministic_output"])
            .history(&[
                (
                    "6.2.0",
                    "Added the `NOMKSTREAM` option, `MINID` trimming strategy and the `LIMIT` option.",
                ),
                ("7.0.0", "Added support for the `<ms>-*` explicit ID form."),
            ]),
    );

/// The arguments of XADD before the fields.
struct AddOptions {
    /// Which argument the ID is.
    id_at: usize,
    /// `None`: `*`.
    id: Option<PartialId>,
    creates: bool,
    trim: Option<Trim>,
}

impl AddOptions {
    /// # Errors
    /// Invalid options or ID; fields that are no pairs.
    fn parse(args: Argv<'_>, shard: &Shard) -> CommandResult<AddOptions> {
        let mut options = AddOptions { id_at: 2, id: None, creates: true, trim: None };
        let mut trim = TrimOptions::default();
        loop {
            let at = options.id_at;
            // Options may go on to the end.
            let Some(option) = args.get(at) else { break };
            if option == b"*" {
                break;
            } else if let Some(next) = trim.parse(args, at)? {
                options.id_at = next;
            } else if args::is(option, "nomkstream") {
                options.creates = false;
                options.id_at += 1;
            } else {
                options.id = Some(ids::partial(option)?);
                break;
            }
        }
        options.trim = trim.finish(shard, false)?;
        let fields = args.len().saturating_sub(options.id_at + 1);
        if fields < 2 || !fields.is_multiple_of(2) {
            return Err(CommandError::wrong_arity("xadd"));
        }
        if options.id == Some(PartialId::Full(StreamId::MIN)) {
            return Err(CommandError::fixed("ERR The ID specified in XADD must be greater than 0-0"));
        }
        Ok(options)
    }

    fn new_id(&self, now_ms: i64) -> NewId {
        match self.id {
            None => NewId::Now { ms: now_ms as u64 },
            Some(PartialId::AnyIn { ms }) => NewId::InMillisecond(ms),
            Some(PartialId::Full(id)) => NewId::Exactly(id),
        }
    }
}

/// XADD key [NOMKSTREAM] [(MAXLEN | MINID) [= | ~] threshold [LIMIT count]] (* | id) field value [field value ...].
/// Adds an entry, and trims the stream. Reply: string, the ID; null if NOMKSTREAM prevents it. Errors: syntax; an ID
/// that is not greater than the last one; WRONGTYPE. O(1), with a trim O(removed nodes).
fn xadd(ctx: &mut Ctx<'_>) -> CommandResult {
    let options = AddOptions::parse(ctx.args, ctx.shard)?;
    let key = ctx.key(1);
    let mut entry = NewEntry::default();
    ctx.args.iter().skip(options.id_at + 1).for_each(|arg| entry.push(arg));
    let limits = NodeLimits {
        max_bytes: ctx.shard.config.stream_node_max_bytes,
        max_entries: ctx.shard.config.stream_node_max_entries as u64,
    };
    let new_id = options.new_id(ctx.shard.wall_ms);

    let Some(mut guard) = change(ctx.shard, ctx.call, key, options.creates) else {
        ctx.reply.null();
        return Ok(());
    };
    if stream_of(guard.value())?.log.last_id == StreamId::MAX {
        return Err(CommandError::fixed(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }

    let mut value = guard.value_mut();
    let mut object = value.object();
    let log = &mut stream_mut(&mut object).log;
    let appended = log.append(new_id, &entry, limits);
    let mut removed = 0;
    let mut exact = None;
    if let (Ok(_), Some(trim)) = (appended, options.trim) {
        removed = log.trim(trim.to, trim.precision);
        exact = trim.exact_threshold(log);
    }
    drop(object);
    let id = match appended {
        Ok(id) => id.text(),
        Err(error) => {
            guard.count(0);
            return Err(append_error(error));
        }
    };
    drop(guard);
    if removed > 0 {
        ctx.shard.notify_event(ctx.call, ctx.call.db, key, Event::XTRIM);
    }

    let is_given = matches!(options.id, Some(PartialId::Full(_)));
    if ctx.notes_effects() && (!is_given || exact.is_some()) {
        let mut words: SmallVec<[&[u8]; 16]> = ctx.args.iter().collect();
        words[options.id_at] = id.as_bytes();
        if let Some(exact) = &exact {
            exact.write(&mut words);
        }
        ctx.effect(&words);
    }
    ctx.reply.bulk(IdText::as_bytes(&id));
    Ok(())
}

/// The stream to add to. `None`: there is none, and it must not be created.
fn change<'a>(shard: &'a mut Shard, call: &'a Call, key: Key<'a>, creates: bool) -> Option<ChangeGuard<'a>> {
    if !creates {
        return shard.change(call, key, Event::XADD);
    }
    let new = || Box::new(Object::Stream(Stream::default()));
    Some(shard.change_or_add_object(call, key, Event::XADD, new))
}

fn append_error(error: AppendError) -> CommandError {
    match error {
        AppendError::IdTooSmall => CommandError::fixed(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ),
        AppendError::TooLarge => CommandError::fixed("ERR Elements are too large to be stored"),
    }
}

pub(super) const XDEL: Command =
    Command::keys("xdel", -3, xdel).flags(flag::WRITE | flag::FAST).acl(acl::STREAM).at(DELETE).docs(
        Docs::new("stream", "5.0.0", "Deletes entries of a stream, and returns how many there were")
            .complexity("O(1) for each entry")
            .arguments("key#0 id..."),
    );

/// XDEL key id [id ...]. Reply: integer, how many entries were deleted; 0 without a key. Errors: WRONGTYPE; invalid IDs,
/// if the key exists. O(log n) for each ID.
fn xdel(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::XDEL) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    stream_of(guard.value())?;
    let ids = ctx.args.iter().skip(2).map(|id| ids::strict(id, 0));
    let ids: SmallVec<[StreamId; 8]> = ids.collect::<CommandResult<_>>()?;

    let mut value = guard.value_mut();
    let deleted = stream_mut(&mut value.object()).log.delete(ids.into_iter());
    guard.count(deleted as usize);

    ctx.reply.integer(deleted as i64);
    Ok(())
}

pub(super) const XSETID: Command = Command::keys("xsetid", -3, xsetid)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::STREAM)
    .at(UPDATE)
    .constant_time()
    .docs(
        Docs::new("stream", "5.0.0", "Sets the last ID of a stream, for replication")
            .complexity("O(1)")
            .arguments(
                "key#0 last-id [ENTRIESADDED entries_added:int@7.0.0] \
                 [MAXDELETEDID max_deleted_entry_id@7.0.0]",
            )
            .history(&[("7.0.0", "Options `ENTRIESADDED` and `MAXDELETEDID`")]),
    );

/// XSETID key last-id [ENTRIESADDED count] [MAXDELETEDID id]. Reply: OK. Errors: syntax; no such key; WRONGTYPE; an ID
/// that is smaller than that of an entry or the given one of a deleted entry; fewer entries added than there are. O(1).
fn xsetid(ctx: &mut Ctx<'_>) -> CommandResult {
    let last_id = ids::strict(ctx.arg(2), 0)?;
    let (mut entries_added, mut max_deleted_id) = (None, StreamId::MIN);
    let mut at = 3;
    while at < ctx.args.len() {
        let value = ctx.args.get(at + 1).ok_or(CommandError::SYNTAX)?;
        if args::is(ctx.arg(at), "entriesadded") {
            let count = u64::try_from(args::integer(value)?);
            entries_added =
                Some(count.map_err(|_| CommandError::fixed("ERR entries_added must be positive"))?);
        } else if args::is(ctx.arg(at), "maxdeletedid") {
            max_deleted_id = ids::strict(value, 0)?;
            if last_id < max_deleted_id {
                return Err(CommandError::fixed(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(CommandError::SYNTAX);
        }
        at += 2;
    }
    let key = ctx.key(1);

    let Some(mut guard) = ctx.shard.change_unobserved(ctx.call, key) else {
        return Err(CommandError::NO_SUCH_KEY);
    };
    let log = &stream_of(guard.value())?.log;
    if log.last().is_some_and(|last| last_id < last.id) {
        return Err(CommandError::fixed(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if entries_added.is_some_and(|count| count < log.len()) {
        return Err(CommandError::fixed(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }

    let mut value = guard.value_mut();
    let mut object = value.object();
    let log = &mut stream_mut(&mut object).log;
    log.last_id = last_id;
    log.entries_added = entries_added.unwrap_or(log.entries_added);
    if max_deleted_id != StreamId::MIN {
        log.max_deleted_id = max_deleted_id;
    }
    drop(object);
    drop(guard);
    ctx.shard.notify_event(ctx.call, ctx.call.db, key, Event::XSETID);

    ctx.reply.ok();
    Ok(())
}
