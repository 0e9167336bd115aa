//! Claiming pending entries of other consumers.

use super::{DELETE, UPDATE, ids, read_group, record_group_id, reply_entry, reply_id};
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::typed::stream_mut;
use crate::command::{CommandError, CommandResult, Ctx, Key, args};
use crate::protocol::{Argv, Reply};
use crate::shard::event::Event;
use crate::types::stream::{ConsumerId, GroupMut, Log, Pending, Stream, StreamId};
use smallvec::SmallVec;

/// Which entries a consumer may claim, and how they are pending then.
struct Claim<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    /// Only entries that were delivered so long ago are claimed; 0: any.
    min_idle_ms: i64,
    now_ms: i64,
    delivery_time_ms: i64,
    /// `None`: the number of deliveries is increased, unless only the IDs are asked for.
    delivery_count: Option<u64>,
    /// Entries that are not pending are claimed as well.
    force: bool,
    /// The reply contains only IDs.
    just_ids: bool,
}

/// What happened to an entry.
enum Outcome {
    Claimed,
    /// It was deleted from the stream, and is no longer pending.
    Cleared,
    /// Nothing.
    Left,
}

/// An effect on the group: XCLAIM.
struct ClaimEffect {
    /// The text of the entry's ID.
    id: Box<[u8]>,
    consumer: Box<[u8]>,
    pending: Pending,
    last_id: StreamId,
}

/// A claim under way.
struct Claiming<'a, 'g> {
    claim: &'a Claim<'a>,
    log: &'a Log,
    group: GroupMut<'g>,
    /// `None`: nothing was claimed so far. A consumer that gets nothing is not created.
    consumer: Option<ConsumerId>,
    created_consumer: bool,
    /// `None`: effects are not recorded.
    effects: Option<Vec<ClaimEffect>>,
    changes: usize,
}

impl Claiming<'_, '_> {
    /// Claims an entry if it may be, and replies with it. `text`: its ID, for the effect.
    fn claim(&mut self, id: StreamId, text: &[u8], reply: &mut Reply<'_>) -> Outcome {
        let Claim { min_idle_ms, now_ms, .. } = *self.claim;
        let before = self.group.pending(id).copied();
        let Some(entry) = self.log.get(id) else {
            let Some(before) = before else { return Outcome::Left };
            self.record(text, before);
            self.group.remove_pending(id);
            return Outcome::Cleared;
        };
        let is_idle =
            |before: Pending| min_idle_ms == 0 || now_ms.wrapping_sub(before.delivery_time_ms) >= min_idle_ms;
        let delivered_before = match before {
            Some(before) if is_idle(before) => before.delivery_count,
            None if self.claim.force => 1,
            _ => return Outcome::Left,
        };
        let deliveries = delivered_before.wrapping_add(u64::from(!self.claim.just_ids));
        let pending = Pending {
            consumer: self.consumer(),
            delivery_time_ms: self.claim.delivery_time_ms,
            delivery_count: self.claim.delivery_count.unwrap_or(deliveries),
        };
        self.group.set_pending(id, pending);
        self.record(text, pending);
        if self.claim.just_ids {
            reply_id(reply, id);
        } else {
            reply_entry(reply, &entry);
        }
        Outcome::Claimed
    }

    /// The consumer, which is created if it does not exist.
    fn consumer(&mut self) -> ConsumerId {
        if let Some(consumer) = self.consumer {
            return consumer;
        }
        let Claim { consumer: name, now_ms, .. } = *self.claim;
        let created = self.group.create_consumer(name, now_ms);
        self.created_consumer = created.is_some();
        self.changes += usize::from(self.created_consumer);
        let consumer = created.or_else(|| self.group.find_consumer(name)).expect("it exists or was created");
        self.group.see_consumer(consumer, now_ms);
        self.consumer = Some(consumer);
        consumer
    }

    fn record(&mut self, id: &[u8], pending: Pending) {
        self.changes += 1;
        if let Some(effects) = &mut self.effects {
            let consumer = self.group.consumer(pending.consumer).name().into();
            effects.push(ClaimEffect { id: id.into(), consumer, pending, last_id: self.group.last_id() });
        }
    }
}

/// Runs `act` on the group of a claim, and records the changes and their effects. The caller has seen that there is the
/// group.
fn with_claim(ctx: &mut Ctx<'_>, claim: &Claim<'_>, act: impl FnOnce(&mut Claiming<'_, '_>, &mut Reply<'_>)) {
    let key = ctx.key(1);
    let notes_effects = ctx.notes_effects();
    let Ctx { shard, call, reply, .. } = ctx;
    let Some(mut guard) = shard.change_unobserved(call, key) else { return };
    let mut value = guard.value_mut();
    let mut object = value.object();
    let Stream { log, groups } = stream_mut(&mut object);
    let Some(group) = groups.get_mut(claim.group) else { return };

    let effects = notes_effects.then(Vec::new);
    let mut claiming =
        Claiming { claim, log, group, consumer: None, created_consumer: false, effects, changes: 0 };
    act(&mut claiming, reply);
    let Claiming { effects, changes, created_consumer, .. } = claiming;
    drop(object);
    guard.count(changes);
    drop(guard);

    if created_consumer {
        ctx.shard.notify_event(ctx.call, ctx.call.db, key, Event::XGROUP_CREATECONSUMER);
    }
    ctx.no_effect();
    for effect in effects.into_iter().flatten() {
        record_claim(ctx, key, claim.group, &effect);
    }
}

fn record_claim(ctx: &mut Ctx<'_>, key: Key<'_>, group: &[u8], effect: &ClaimEffect) {
    let ClaimEffect { id, consumer, pending, last_id } = effect;
    let mut digits = [itoa::Buffer::new(), itoa::Buffer::new()];
    let [time, count] = &mut digits;
    ctx.effect(&[
        b"XCLAIM",
        key.bytes,
        group,
        consumer,
        b"0",
        id,
        b"TIME",
        time.format(pending.delivery_time_ms).as_bytes(),
        b"RETRYCOUNT",
        count.format(pending.delivery_count as i64).as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        last_id.text().as_bytes(),
    ]);
}

pub(super) const XCLAIM: Command =
    Command::keys("xclaim", -6, xclaim).flags(flag::WRITE | flag::FAST).acl(acl::STREAM).at(UPDATE).docs(
        Docs::new("stream", "5.0.0", "Makes entries that are pending at other consumers pending at this one")
            .complexity("O(log N), where N is the number of pending entries of the group")
            .arguments(
                "key#0 group consumer min-idle-time id... [IDLE ms:int] [TIME unix-time-milliseconds:unix] \
                 [RETRYCOUNT count:int] [FORCE] [JUSTID] [LASTID id]",
            )
            .tips(&["nondeterministic_output"]),
    );

/// The arguments of XCLAIM from the idle time on.
struct ClaimOptions {
    min_idle_ms: i64,
    ids: SmallVec<[StreamId; 8]>,
    /// As given by IDLE or TIME, unless it is in the future or before 1970.
    delivery_time_ms: Option<i64>,
    delivery_count: Option<u64>,
    force: bool,
    just_ids: bool,
    last_id: StreamId,
}

/// Which argument is the first ID of XCLAIM.
const FIRST_ID_AT: usize = 5;

impl ClaimOptions {
    /// The IDs end at the first argument that is none.
    ///
    /// # Errors
    /// Unknown options; invalid values.
    fn parse(args: Argv<'_>, now_ms: i64) -> CommandResult<ClaimOptions> {
        let min_idle_ms = integer(args.arg(4), "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
        let ids = args.iter().skip(FIRST_ID_AT).map_while(|id| ids::strict(id, 0).ok());
        let mut options = ClaimOptions {
            min_idle_ms,
            ids: ids.collect(),
            delivery_time_ms: None,
            delivery_count: None,
            force: false,
            just_ids: false,
            last_id: StreamId::MIN,
        };
        let mut rest = args.iter().skip(FIRST_ID_AT + options.ids.len());
        while let Some(option) = rest.next() {
            let unknown = || CommandError::quoting("ERR Unrecognized XCLAIM option '", option, "'");
            if args::is(option, "force") {
                options.force = true;
                continue;
            }
            if args::is(option, "justid") {
                options.just_ids = true;
                continue;
            }
            let value = rest.next().ok_or_else(unknown)?;
            if args::is(option, "idle") {
                let idle_ms = integer(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                options.delivery_time_ms = Some(now_ms.wrapping_sub(idle_ms));
            } else if args::is(option, "time") {
                options.delivery_time_ms =
                    Some(integer(value, "ERR Invalid TIME option argument for XCLAIM")?);
            } else if args::is(option, "retrycount") {
                let count = integer(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                options.delivery_count = u64::try_from(count).ok();
            } else if args::is(option, "lastid") {
                options.last_id = ids::strict(value, 0)?;
            } else {
                return Err(unknown());
            }
        }
        options.delivery_time_ms = options.delivery_time_ms.filter(|ms| (0..=now_ms).contains(ms));
        Ok(options)
    }
}

fn integer(arg: &[u8], error: &'static str) -> CommandResult<i64> {
    args::integer(arg).map_err(|_| CommandError::fixed(error))
}

/// XCLAIM key group consumer min-idle-time id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT n] [FORCE] [JUSTID] [LASTID id].
/// Entries that were deleted are no longer pending after it. Reply: array of the claimed entries, or of their IDs.
/// Errors: WRONGTYPE; NOGROUP; invalid values; unknown options. O(log pending) for each ID.
fn xclaim(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, group, now_ms) = (ctx.key(1), ctx.arg(2), ctx.shard.wall_ms);
    let last_id = read_group(ctx.shard, ctx.call, key, group)?.1.last_id();
    let args = ctx.args;
    let options = ClaimOptions::parse(args, now_ms)?;
    let claim = Claim {
        group,
        consumer: ctx.arg(3),
        min_idle_ms: options.min_idle_ms,
        now_ms,
        delivery_time_ms: options.delivery_time_ms.unwrap_or(now_ms),
        delivery_count: options.delivery_count,
        force: options.force,
        just_ids: options.just_ids,
    };

    let mut read = None;
    with_claim(ctx, &claim, |claiming, reply| {
        let sets_last_id = options.last_id > last_id;
        if sets_last_id {
            let entries_read = claiming.group.entries_read();
            claiming.group.set_read(options.last_id, entries_read);
        }
        let changes = claiming.changes;
        let mark = reply.begin_about(options.ids.len());
        let mut claimed = 0;
        for (n, &id) in options.ids.iter().enumerate() {
            let outcome = claiming.claim(id, args.arg(FIRST_ID_AT + n), reply);
            claimed += usize::from(matches!(outcome, Outcome::Claimed));
        }
        reply.end_array(mark, claimed);
        // The effect of a claim contains the last ID.
        if sets_last_id && claiming.changes == changes {
            claiming.changes += 1;
            read = Some(claiming.group.entries_read());
        }
    });
    if let Some(entries_read) = read {
        record_group_id(ctx, key, group, options.last_id, entries_read);
    }
    Ok(())
}

pub(super) const XAUTOCLAIM: Command = Command::keys("xautoclaim", -6, xautoclaim)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::STREAM)
    .at(DELETE)
    .docs(
        Docs::new(
            "stream",
            "6.2.0",
            "Claims the next entries that are pending at other consumers for this one",
        )
        .complexity("O(1) if COUNT is small")
        .arguments("key#0 group consumer min-idle-time start [COUNT count:int] [JUSTID]")
        .tips(&["nondeterministic_output"])
        .history(&[("7.0.0", "The reply tells which entries were deleted, and are no longer pending")]),
    );

/// The greatest COUNT.
const COUNT_MAX: i64 = i64::MAX / 16;

/// So many entries are looked at for each that is asked for.
const ATTEMPTS_FACTOR: u64 = 10;

/// XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID]. Claims entries from an ID on, and removes
/// deleted ones from those that are pending. Reply: array of the ID to go on from (0-0 at the end), an array of the
/// claimed entries or their IDs, and an array of the IDs of deleted ones. Errors: invalid values; syntax; WRONGTYPE;
/// NOGROUP. O(count).
fn xautoclaim(ctx: &mut Ctx<'_>) -> CommandResult {
    let (key, group, now_ms) = (ctx.key(1), ctx.arg(2), ctx.shard.wall_ms);
    // As in Redis it is looked up, and missed, whatever the other arguments are; these fail first.
    let found = read_group(ctx.shard, ctx.call, key, group).map(|_| ());
    let min_idle_ms = integer(ctx.arg(4), "ERR Invalid min-idle-time argument for XAUTOCLAIM")?.max(0);
    let start = ids::interval_start(ctx.arg(5))?;
    let (mut count, mut just_ids) = (100, false);
    let mut rest = ctx.args.iter().skip(6);
    while let Some(option) = rest.next() {
        if args::is(option, "justid") {
            just_ids = true;
            continue;
        }
        let value = rest.next().filter(|_| args::is(option, "count")).ok_or(CommandError::SYNTAX)?;
        let value = args::integer(value).ok().filter(|count| (1..=COUNT_MAX).contains(count));
        count = value.ok_or(CommandError::fixed("ERR COUNT must be > 0"))? as u64;
    }
    found?;
    let claim = Claim {
        group,
        consumer: ctx.arg(3),
        min_idle_ms,
        now_ms,
        delivery_time_ms: now_ms,
        delivery_count: None,
        force: false,
        just_ids,
    };

    with_claim(ctx, &claim, |claiming, reply| claim_from(claiming, start, count, reply));
    Ok(())
}

/// Claims up to `count` entries from `start` on, and writes the reply of XAUTOCLAIM.
fn claim_from(claiming: &mut Claiming<'_, '_>, start: StreamId, count: u64, reply: &mut Reply<'_>) {
    let mut entries = Vec::new();
    let mut entries = Reply::new(&mut entries, reply.resp);
    let (mut claimed, mut cleared) = (0, Vec::new());
    let mut attempts = count.saturating_mul(ATTEMPTS_FACTOR);
    let mut cursor = Some(start);
    let mut next = None;
    loop {
        let from = cursor.and_then(|from| claiming.group.pending_range(from, StreamId::MAX).next());
        let Some((id, _)) = from else { break };
        if attempts == 0 || claimed + cleared.len() as u64 == count {
            next = Some(id);
            break;
        }
        attempts -= 1;
        cursor = id.next();
        match claiming.claim(id, id.text().as_bytes(), &mut entries) {
            Outcome::Claimed => claimed += 1,
            Outcome::Cleared => cleared.push(id),
            Outcome::Left => {}
        }
    }

    reply.array(3);
    reply_id(reply, next.unwrap_or_default());
    reply.array(claimed as usize);
    reply.raw(entries.out);
    reply.array(cleared.len());
    cleared.into_iter().for_each(|id| reply_id(reply, id));
}
