//! XREAD and XREADGROUP: reading what several streams have behind an ID, and waiting for it.

use super::{ids, read, record_group_id, reply_entries, reply_entry, reply_id};
use crate::call::{Call, Key};
use crate::command::docs::Docs;
use crate::command::keys::{BeginSearch, FindKeys, KeyPositions, KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{stream_mut, stream_of};
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::protocol::reply::{Mark, Resp};
use crate::protocol::{Argv, OwnedArgv, Reply};
use crate::shard::Shard;
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::shard::event::Event;
use crate::types::stream::{ConsumerId, Group, GroupMut, Log, Pending, Stream, StreamId};
use smallvec::SmallVec;
use std::ops::Range;

/// How many entries a client gets that has waited for them, unless COUNT tells.
const WAITED_COUNT: u64 = 1000;

/// The keys of XREAD or XREADGROUP: half of the arguments behind STREAMS, which is searched for `from` an argument on.
const fn keys_from(from: isize, flags: u32) -> KeySpec {
    KeySpec {
        flags,
        begin: BeginSearch::Keyword { keyword: "STREAMS", from },
        find: FindKeys::Range { last: -1, step: 1, limit: 2 },
        notes: "",
    }
}

pub(super) const XREAD: Command = Command::blocking("xread", -4, xread)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::STREAM)
    .at(&[keys_from(1, key_flag::RO | key_flag::ACCESS)])
    .find_keys(read_keys)
    .ready(xread_is_ready)
    .docs(
        Docs::new(
            "stream",
            "5.0.0",
            "Returns the entries of several streams behind an ID, or waits for them",
        )
        .complexity("O(N), where N is the number of entries returned")
        .arguments("[COUNT count:int] [BLOCK milliseconds:int] STREAMS streams{key#0... id...}"),
    );

pub(super) const XREADGROUP: Command = Command::blocking("xreadgroup", -7, xreadgroup)
    .flags(flag::WRITE | flag::MOVABLEKEYS)
    .acl(acl::STREAM)
    .at(&[keys_from(4, key_flag::RO | key_flag::ACCESS)])
    .find_keys(read_keys)
    .ready(xreadgroup_is_ready)
    .docs(
        Docs::new(
            "stream",
            "5.0.0",
            "Returns entries that no consumer of the group has got yet, or waits for them, or those that are pending \
             at the consumer",
        )
        .complexity("O(N), where N is the number of entries returned")
        .arguments(
            "GROUP group_consumer{group consumer} [COUNT count:int] [BLOCK milliseconds:int] [NOACK] \
             STREAMS streams{key#0... id...}",
        ),
    );

/// The arguments of XREAD and XREADGROUP.
struct Options<'a> {
    /// `None`: does not block.
    block: Option<&'a [u8]>,
    /// `None`: all entries.
    count: Option<u64>,
    /// The group and the consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    no_ack: bool,
    /// Which arguments are the keys. So many IDs follow.
    keys: Range<usize>,
}

/// Which option stands at argument `at`, and which argument follows it.
enum ReadOption<'a> {
    Block(&'a [u8]),
    Count(&'a [u8]),
    Group(&'a [u8], &'a [u8]),
    NoAck,
    Streams,
}

impl<'a> ReadOption<'a> {
    fn at(args: Argv<'a>, at: usize) -> Option<(ReadOption<'a>, usize)> {
        let option = args.get(at)?;
        let next = args.get(at + 1);
        Some(match next {
            Some(value) if args::is(option, "block") => (ReadOption::Block(value), at + 2),
            Some(value) if args::is(option, "count") => (ReadOption::Count(value), at + 2),
            Some(_) if args::is(option, "streams") => (ReadOption::Streams, at + 1),
            Some(group) if args::is(option, "group") => (ReadOption::Group(group, args.get(at + 2)?), at + 3),
            _ if args::is(option, "noack") => (ReadOption::NoAck, at + 1),
            _ => return None,
        })
    }
}

impl<'a> Options<'a> {
    /// # Errors
    /// Syntax; invalid values.
    fn parse(ctx: &Ctx<'a>, is_group: bool) -> CommandResult<Options<'a>> {
        let args = ctx.args;
        let mut options = Options { block: None, count: None, group: None, no_ack: false, keys: 0..0 };
        let mut at = 1;
        while at < args.len() {
            let (option, next) = ReadOption::at(args, at).ok_or(CommandError::SYNTAX)?;
            at = next;
            match option {
                ReadOption::Block(_) if ctx.call.in_script => {
                    let text = " command is not allowed with BLOCK option from scripts";
                    return Err(CommandError::quoting("ERR ", args.arg(0), text));
                }
                ReadOption::Block(timeout) => {
                    deadline_ms(timeout, ctx.shard.now_ms)?;
                    options.block = Some(timeout);
                }
                ReadOption::Count(count) => {
                    options.count = Some(args::integer(count)?.max(0) as u64).filter(|&count| count > 0);
                }
                ReadOption::Group(..) if !is_group => {
                    return Err(CommandError::fixed(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                ReadOption::Group(group, consumer) => options.group = Some((group, consumer)),
                ReadOption::NoAck if !is_group => {
                    return Err(CommandError::fixed(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                ReadOption::NoAck => options.no_ack = true,
                ReadOption::Streams => {
                    let rest = args.len() - at;
                    if !rest.is_multiple_of(2) {
                        return Err(CommandError::fixed(
                            "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
                        ));
                    }
                    options.keys = at..at + rest / 2;
                    at = args.len();
                }
            }
        }
        if options.keys.is_empty() {
            return Err(CommandError::SYNTAX);
        }
        if is_group && options.group.is_none() {
            return Err(CommandError::fixed("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(options)
    }

    /// The argument that is the ID for the key at an argument.
    fn id_at(&self, key_at: usize) -> usize {
        key_at + self.keys.len()
    }

    /// The return value of the command that has found nothing.
    fn wait(&self, ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
        match self.block {
            Some(timeout) => {
                let deadline_ms = deadline_ms(timeout, ctx.shard.now_ms)?;
                ctx.block(self.keys.clone(), deadline_ms, TimeoutReply::NullArray)
            }
            None => {
                ctx.reply.null_array();
                Ok(None)
            }
        }
    }

    /// How many entries to reply of each stream.
    fn count(&self, ctx: &Ctx<'_>) -> Option<u64> {
        if ctx.served_from.is_some() { self.count.or(Some(WAITED_COUNT)) } else { self.count }
    }
}

/// The deadline of a timeout in milliseconds; `None`: there is none.
fn deadline_ms(timeout: &[u8], now_ms: i64) -> CommandResult<Option<i64>> {
    let ms = args::integer(timeout)
        .map_err(|_| CommandError::fixed("ERR timeout is not an integer or out of range"))?;
    match ms {
        ..0 => Err(CommandError::fixed("ERR timeout is negative")),
        0 => Ok(None),
        ms => now_ms.checked_add(ms).map(Some).ok_or(CommandError::fixed("ERR timeout is out of range")),
    }
}

/// The keys are where the handlers see them: an option's value may be the word that the key spec searches for.
fn read_keys(args: Argv<'_>, found: &mut KeyPositions) {
    let mut at = 1;
    while let Some((option, next)) = ReadOption::at(args, at) {
        at = next;
        if let ReadOption::Streams = option {
            let count = (args.len() - at) / 2;
            found.extend((at..at + count).map(|at| (at, key_flag::RO | key_flag::ACCESS)));
            return;
        }
    }
}

/// Writes the header of the reply with its first stream, and the key of each stream.
struct StreamsReply {
    mark: Option<Mark>,
    len: usize,
}

impl StreamsReply {
    fn new() -> StreamsReply {
        StreamsReply { mark: None, len: 0 }
    }

    /// The next stream of the reply. Its entries follow.
    fn stream(&mut self, reply: &mut Reply<'_>, key: &[u8]) {
        self.mark.get_or_insert_with(|| reply.begin());
        self.len += 1;
        if reply.resp == Resp::V2 {
            reply.array(2);
        }
        reply.bulk(key);
    }

    /// Ends the reply. False: there is none.
    fn end(self, reply: &mut Reply<'_>) -> bool {
        let Some(mark) = self.mark else { return false };
        match reply.resp {
            Resp::V2 => reply.end_array(mark, self.len),
            Resp::V3 => reply.end_map(mark, self.len),
        }
        true
    }
}

/// XREAD [COUNT count] [BLOCK ms] STREAMS key [key ...] id [id ...]. `$` is the last ID of the stream. Reply: array
/// (RESP3: map) of each key whose stream has entries behind the ID, and these entries; null if there are none, with
/// BLOCK after the timeout. Errors: syntax; invalid IDs; WRONGTYPE. O(entries).
fn xread(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let options = Options::parse(ctx, false)?;
    let keys = ctx.takes_from(options.keys.clone());
    let has_waited = ctx.served_from.is_some();
    let mut after: SmallVec<[StreamId; 4]> = SmallVec::new();
    for at in keys.clone() {
        let key = ctx.key(at);
        let last_id = look_up(ctx.shard, ctx.call, key, has_waited)?.map(|stream| stream.log.last_id);
        after.push(match ctx.arg(options.id_at(at)) {
            b"$" => last_id.unwrap_or_default(),
            b">" => {
                return Err(CommandError::fixed(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> \
                     option.",
                ));
            }
            id => ids::strict(id, 0)?,
        });
    }
    let count = options.count(ctx);

    let mut streams = StreamsReply::new();
    for (at, &after) in keys.clone().zip(&after) {
        let key = ctx.key(at);
        // As in Redis, each stream counts as read twice, or, by a client that has waited, not at all.
        let Ctx { shard, call, reply, .. } = &mut *ctx;
        let Some(Stream { log, .. }) = look_up(shard, call, key, has_waited)? else { continue };
        if let Some(start) = unread_from(log, after, has_waited) {
            streams.stream(reply, key.bytes);
            reply_entries(reply, log.range(start, StreamId::MAX), count, log.len());
        }
    }
    if streams.end(&mut ctx.reply) {
        return Ok(None);
    }

    let mut request = options.wait(ctx)?;
    if let Some(request) = &mut request {
        request.args = with_last_ids(ctx.args, &options, keys, &after);
    }
    Ok(request)
}

/// Looks up a stream to read. `None`: there is no such key.
fn look_up<'a>(
    shard: &'a mut Shard,
    call: &Call,
    key: Key<'_>,
    has_waited: bool,
) -> CommandResult<Option<&'a Stream>> {
    if !has_waited {
        return read(shard, call, key);
    }
    let entry = shard.lookup_silent(call.db, key);
    entry.map(|entry| stream_of(entry.value())).transpose()
}

/// The ID from which on a stream has entries behind `after`, if it has any. To a client that `has_waited` counts what
/// was added since, even if it was deleted by the same EXEC; it gets no entries then.
fn unread_from(log: &Log, after: StreamId, has_waited: bool) -> Option<StreamId> {
    let is_there = || has_waited || log.last().is_some_and(|last| last.id > after);
    after.next().filter(|_| log.last_id > after && is_there())
}

/// The arguments with IDs instead of `$`: what comes later is behind the last ID of now.
fn with_last_ids(
    args: Argv<'_>,
    options: &Options<'_>,
    keys: Range<usize>,
    after: &[StreamId],
) -> Option<OwnedArgv> {
    if !keys.clone().any(|at| args.arg(options.id_at(at)) == b"$") {
        return None;
    }
    let mut words: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
    for (at, after) in keys.zip(after) {
        words[options.id_at(at)] = after.text().as_bytes().to_vec();
    }
    Some(OwnedArgv::from_slices(&words))
}

/// Whether the stream at argument `position` has entries that a waiting XREAD asks for.
fn xread_is_ready(ctx: &mut Ctx<'_>, position: usize) -> bool {
    let Ok(options) = Options::parse(ctx, false) else { return true };
    let Ok(after) = ids::strict(ctx.arg(options.id_at(position)), 0) else { return true };
    let key = ctx.key(position);
    let Some(entry) = ctx.shard.lookup_silent(ctx.call.db, key) else { return false };
    stream_of(entry.value()).is_ok_and(|stream| unread_from(&stream.log, after, true).is_some())
}

/// What XREADGROUP reads of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReadFrom {
    /// `>`: what the group has not read.
    New,
    /// What is pending at the consumer behind an ID.
    PendingAfter(StreamId),
}

/// XREADGROUP GROUP group consumer [COUNT count] [BLOCK ms] [NOACK] STREAMS key [key ...] id [id ...]. `>` delivers
/// entries that the group has not got yet; an ID returns what is pending at the consumer behind it. Reply: as XREAD; a
/// pending entry that was deleted has null instead of its fields. Errors: syntax; invalid IDs; WRONGTYPE; NOGROUP, also
/// when the group is removed while the client waits; UNBLOCKED when the stream is. O(entries).
fn xreadgroup(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let options = Options::parse(ctx, true)?;
    let (group, _) = options.group.unwrap_or_default();
    let keys = ctx.takes_from(options.keys.clone());
    let mut from: SmallVec<[ReadFrom; 4]> = SmallVec::new();
    for at in keys.clone() {
        check_group(ctx, at, group)?;
        from.push(match ctx.arg(options.id_at(at)) {
            b"$" => {
                return Err(CommandError::fixed(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this \
                     consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just \
                     return an empty result set.",
                ));
            }
            b">" => ReadFrom::New,
            id => match ids::strict(id, 0)? {
                StreamId::MAX => ReadFrom::New,
                id => ReadFrom::PendingAfter(id),
            },
        });
    }
    let count = options.count(ctx);

    ctx.no_effect();
    let mut streams = StreamsReply::new();
    for (at, &from) in keys.zip(&from) {
        read_as_consumer(ctx, &options, at, from, count, &mut streams);
    }
    if streams.end(&mut ctx.reply) {
        return Ok(None);
    }

    let mut request = options.wait(ctx)?;
    if let Some(request) = &mut request {
        request.ends_with_key = true;
    }
    Ok(request)
}

/// # Errors
/// The key at argument `at` is no stream with this group. The error tells a client that has waited what has happened.
fn check_group(ctx: &mut Ctx<'_>, at: usize, group: &[u8]) -> CommandResult {
    const GONE: CommandError = CommandError::fixed("UNBLOCKED the stream key no longer exists");
    let (key, has_waited) = (ctx.key(at), ctx.served_from.is_some());
    let stream = match look_up(ctx.shard, ctx.call, key, has_waited) {
        Ok(None) | Err(_) if has_waited => return Err(GONE),
        found => found?,
    };
    if stream.is_some_and(|stream| stream.groups.get(group).is_some()) {
        return Ok(());
    }
    if has_waited {
        return Err(CommandError::fixed(
            "NOGROUP the consumer group this client was blocked on no longer exists",
        ));
    }
    let text = ["NOGROUP No such key '", "' or consumer group '", "' in XREADGROUP with GROUP option"];
    Err(CommandError::quoting_two(text, [key.bytes, group]))
}

/// What a read has done to a group.
#[derive(Default)]
struct Delivery {
    created_consumer: bool,
    /// The delivered entries, and the last ID of the group after each; only if effects are recorded.
    delivered: Vec<(StreamId, StreamId)>,
    /// How far the group has read, if that has changed.
    read: Option<(StreamId, Option<i64>)>,
}

/// Reads the stream at argument `at` for a consumer of the group, which exists.
fn read_as_consumer(
    ctx: &mut Ctx<'_>,
    options: &Options<'_>,
    at: usize,
    from: ReadFrom,
    count: Option<u64>,
    streams: &mut StreamsReply,
) {
    let (group_name, consumer_name) = options.group.unwrap_or_default();
    let (key, now_ms, notes_effects) = (ctx.key(at), ctx.shard.wall_ms, ctx.notes_effects());
    let has_waited = ctx.served_from.is_some();
    // See `xread`.
    let _ = look_up(ctx.shard, ctx.call, key, has_waited);
    let Ctx { shard, call, reply, .. } = ctx;
    let Some(mut guard) = shard.change_unobserved(call, key) else { return };
    let Ok(Stream { log, groups }) = stream_of(guard.value()) else { return };
    let Some(group) = groups.get(group_name) else { return };
    let start = match from {
        ReadFrom::New => unread_from(log, group.last_id(), has_waited),
        ReadFrom::PendingAfter(id) => id.next(),
    };
    // A consumer that gets nothing is not created.
    let Some(start) = start else { return };

    let mut value = guard.value_mut();
    let mut object = value.object();
    let Stream { log, groups } = stream_mut(&mut object);
    let Some(mut group) = groups.get_mut(group_name) else { return };
    let created = group.create_consumer(consumer_name, now_ms);
    let Some(consumer) = created.or_else(|| group.find_consumer(consumer_name)) else { return };
    group.see_consumer(consumer, now_ms);

    let mut delivery = Delivery { created_consumer: created.is_some(), ..Delivery::default() };
    streams.stream(reply, key.bytes);
    let reader = Reader { log, consumer, now_ms, count, no_ack: options.no_ack, notes_effects };
    match from {
        ReadFrom::New => reader.deliver(&mut group, start, reply, &mut delivery),
        ReadFrom::PendingAfter(_) => reader.reply_pending(&mut group, start, reply),
    }
    drop(object);
    guard.count(1 + usize::from(delivery.created_consumer));
    drop(guard);
    record(ctx, options, at, delivery);
}

/// A consumer that reads a stream.
struct Reader<'a> {
    log: &'a Log,
    consumer: ConsumerId,
    now_ms: i64,
    count: Option<u64>,
    no_ack: bool,
    notes_effects: bool,
}

impl Reader<'_> {
    /// Replies with new entries, which are pending at the consumer then, unless NOACK is given.
    fn deliver(
        &self,
        group: &mut GroupMut<'_>,
        start: StreamId,
        reply: &mut Reply<'_>,
        delivery: &mut Delivery,
    ) {
        let mark = reply.begin();
        let mut replied = 0;
        for entry in self.log.range(start, StreamId::MAX) {
            let read: &Group = group;
            let entries_read = self.log.count_read(read, entry.id);
            group.set_read(entry.id, entries_read);
            delivery.read = Some((entry.id, entries_read));
            reply_entry(reply, &entry);
            if !self.no_ack {
                let (consumer, delivery_time_ms) = (self.consumer, self.now_ms);
                group.set_pending(entry.id, Pending { consumer, delivery_time_ms, delivery_count: 1 });
                if self.notes_effects {
                    delivery.delivered.push((entry.id, group.last_id()));
                }
            }
            replied += 1;
            if self.count == Some(replied) {
                break;
            }
        }
        reply.end_array(mark, replied as usize);
    }

    /// Replies with entries that are pending at the consumer, whose delivery this counts as.
    fn reply_pending(&self, group: &mut GroupMut<'_>, start: StreamId, reply: &mut Reply<'_>) {
        let count = self.count.map_or(usize::MAX, |count| count as usize);
        let pending = group.pending_of(self.consumer, start, StreamId::MAX);
        let pending: Vec<(StreamId, Pending)> =
            pending.take(count).map(|(id, pending)| (id, *pending)).collect();
        reply.array(pending.len());
        for (id, pending) in pending {
            let Some(entry) = self.log.get(id) else {
                reply.array(2);
                reply_id(reply, id);
                reply.null_array();
                continue;
            };
            reply_entry(reply, &entry);
            let delivery_count = pending.delivery_count.wrapping_add(1);
            group.set_pending(id, Pending { delivery_time_ms: self.now_ms, delivery_count, ..pending });
        }
    }
}

/// Notifies of a new consumer, and records the effects of a read. They are not the command: it would read what is new
/// at another time.
fn record(ctx: &mut Ctx<'_>, options: &Options<'_>, at: usize, delivery: Delivery) {
    let (group, consumer) = options.group.unwrap_or_default();
    let key = ctx.key(at);
    if delivery.created_consumer {
        ctx.shard.notify_event(ctx.call, ctx.call.db, key, Event::XGROUP_CREATECONSUMER);
    }
    if !ctx.notes_effects() {
        return;
    }
    // Otherwise the first claim creates it.
    if delivery.created_consumer && options.no_ack {
        ctx.effect(&[b"XGROUP", b"CREATECONSUMER", key.bytes, group, consumer]);
    }
    for (id, last_id) in &delivery.delivered {
        let mut time = itoa::Buffer::new();
        let time = time.format(ctx.shard.wall_ms).as_bytes();
        let (id, last_id) = (id.text(), last_id.text());
        let (id, last_id) = (id.as_bytes(), last_id.as_bytes());
        let words: [&[u8]; 14] = [
            b"XCLAIM",
            key.bytes,
            group,
            consumer,
            b"0",
            id,
            b"TIME",
            time,
            b"RETRYCOUNT",
            b"1",
            b"FORCE",
            b"JUSTID",
            b"LASTID",
            last_id,
        ];
        ctx.effect(&words);
    }
    if let Some((last_id, entries_read)) = delivery.read
        && options.no_ack
    {
        record_group_id(ctx, key, group, last_id, entries_read);
    }
}

/// Whether a waiting XREADGROUP has something to get at argument `position`: entries, or an error.
fn xreadgroup_is_ready(ctx: &mut Ctx<'_>, position: usize) -> bool {
    let Ok(options) = Options::parse(ctx, true) else { return true };
    let (group, _) = options.group.unwrap_or_default();
    let key = ctx.key(position);
    let Some(entry) = ctx.shard.lookup_silent(ctx.call.db, key) else { return true };
    let Ok(stream) = stream_of(entry.value()) else { return true };
    match stream.groups.get(group) {
        Some(group) => unread_from(&stream.log, group.last_id(), true).is_some(),
        None => true,
    }
}
