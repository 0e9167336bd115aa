//! Commands of replicas and about them: SYNC and PSYNC, REPLCONF, ROLE, WAIT.
//!
//! A replica gets a snapshot of the data set, and then the effect stream from there on, for ever. The snapshot is of no
//! keys: this version does not write any to RDB yet. Each PSYNC gets it anew, as no past of the stream is kept.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::inline::split_words;
use crate::protocol::number::parse_i64;
use crate::protocol::until_nul;
use crate::session::session;
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::shard::effects::Reader;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[PSYNC, REPLCONF, ROLE, SYNC, WAIT];

const SYNC_FLAGS: u64 = flag::NO_ASYNC_LOADING | flag::ADMIN | flag::NO_MULTI | flag::NOSCRIPT;

const SYNC: Command = session("sync", 1, &(sync as SessionHandler))
    .flags(SYNC_FLAGS)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::AllOk)
    .docs(
        Docs::new("server", "1.0.0", "Makes the client a replica, as old ones ask for it")
            .complexity("O(N), where N is the size of the data set"),
    );

/// SYNC. Of a client that is a replica already: nothing. Reply: `$` and the length of the snapshot, the snapshot, and the
/// effects of all that happens from here on, as requests. O(1).
fn sync(ctx: &mut SessionCtx<'_>) -> CommandResult {
    begin(ctx);
    Ok(())
}

const PSYNC: Command = session("psync", -3, &(psync as SessionHandler))
    .flags(SYNC_FLAGS)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::AllOk)
    .docs(
        Docs::new("server", "2.8.0", "Makes the client a replica")
            .complexity("O(N), where N is the size of the data set")
            .arguments("replicationid offset:int"),
    );

/// PSYNC replicationid offset. As SYNC, whatever part of the stream the client has. Reply: the status `FULLRESYNC`, the
/// name of the data set and the length of the stream so far; then as SYNC. Errors: the offset is no integer; FAILOVER.
/// O(1).
fn psync(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.get(3).is_some_and(|word| args::is(word, "failover")) {
        return Err(CommandError::fixed("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    args::integer(ctx.arg(2))?;

    if ctx.conn.is_some() && ctx.arg(1) != b"?" {
        ctx.worker.shard.stats.sync_partial_err.add(1);
    }
    begin(ctx);
    Ok(())
}

/// One shard's share of SYNC. The stream begins when all have done theirs.
fn begin(ctx: &mut SessionCtx<'_>) {
    if let Some(at) = ctx.conn {
        ctx.worker.introduce_reader(at);
    }
    let changes = ctx.worker.shard.stats.dirty.get();
    let reader = Reader { client: ctx.call.client, home: usize::from(ctx.call.home) };
    ctx.worker.shard.effects.attach(reader, changes);
}

const REPLCONF: Command = session("replconf", -1, &(replconf as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY)
    .constant_time()
    .docs(Docs::new("server", "3.0.0", "Tells about a replica").complexity("O(1)").internal());

/// The longest address of a replica.
const IP_LEN_MAX: usize = 255;

/// REPLCONF [option value ...]. What a replica says of itself before it syncs: `listening-port`, `ip-address`, `capa`,
/// `rdb-only`, `rdb-filter-only`; and after that `ack` how far it is. Reply: OK; nothing after `ack` and `getack`. Errors:
/// syntax; an option that does not exist; a value that does not fit it. O(1).
fn replconf(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }

    for at in (1..ctx.args.len()).step_by(2) {
        let (option, value) = (ctx.arg(at), ctx.arg(at + 1));
        if args::is(option, "listening-port") {
            // Redis keeps any number; one that is no port is of no use.
            let port = u16::try_from(args::integer(value)?).unwrap_or(0);
            ctx.client().replica.get_or_insert_default().listening_port = port;
        } else if args::is(option, "ip-address") {
            if value.len() > IP_LEN_MAX {
                return Err(CommandError::new(format!(
                    "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                )));
            }
            ctx.client().replica.get_or_insert_default().ip = until_nul(value).to_vec();
        } else if args::is(option, "ack") {
            acknowledge(ctx, value);
            return Ok(());
        } else if args::is(option, "getack") {
            return Ok(());
        } else if args::is(option, "rdb-only") {
            if !(0..=1).contains(&args::integer(value)?) {
                return Err(CommandError::fixed("ERR value is out of range, value must between 0 and 1"));
            }
        } else if args::is(option, "rdb-filter-only") {
            check_filter(value)?;
        } else if !args::is(option, "capa") {
            return Err(CommandError::quoting("ERR Unrecognized REPLCONF option: ", option, ""));
        }
    }

    ctx.reply.ok();
    Ok(())
}

/// What a snapshot is to be limited to: words, in the syntax of inline commands. `functions` is the only one there is, and
/// none means nothing at all; a snapshot of this version has neither keys nor functions.
fn check_filter(words: &[u8]) -> CommandResult {
    let words = split_words(words).map_err(|_| CommandError::fixed("ERR Missing rdb-filter-only values"))?;
    match words.as_argv().iter().find(|word| !args::is(word, "functions")) {
        None => Ok(()),
        Some(word) => Err(CommandError::quoting("ERR Unsupported rdb-filter-only option: ", word, "")),
    }
}

/// A replica says that it has the stream up to an offset.
fn acknowledge(ctx: &mut SessionCtx<'_>, offset: &[u8]) {
    let Some(offset) = parse_i64(offset).and_then(|offset| u64::try_from(offset).ok()) else { return };
    let now_ms = ctx.worker.shard.now_ms;
    ctx.worker.globals.stream.change_replica(ctx.call.client, |replica| {
        replica.ack_offset = replica.ack_offset.max(offset);
        replica.ack_at_ms = now_ms;
    });
}

const ROLE: Command = session("role", 1, &(role as SessionHandler))
    .flags(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST)
    .acl(acl::ADMIN | acl::DANGEROUS)
    .constant_time()
    .docs(Docs::new("server", "2.8.12", "Tells the server's part in replication").complexity("O(1)"));

/// ROLE. Reply: array of `master`, the length of the effect stream, and the replicas that read it: an array of address,
/// port and offset each. O(replicas).
fn role(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let stream = &ctx.worker.globals.stream;
    let replicas = stream.replicas();

    ctx.reply.array(3);
    ctx.reply.bulk(b"master");
    ctx.reply.integer(stream.offset() as i64);
    let online = || replicas.iter().filter(|replica| replica.is_online);
    ctx.reply.array(online().count());
    for replica in online() {
        ctx.reply.array(3);
        ctx.reply.bulk(&replica.ip);
        ctx.reply.bulk_display(replica.port);
        ctx.reply.bulk_display(replica.ack_offset);
    }
    Ok(())
}

const WAIT: Command =
    Command::blocking("wait", 3, wait).flags(flag::NOSCRIPT).acl(acl::CONNECTION).constant_time().docs(
        Docs::new("generic", "3.0.0", "Waits until replicas have the client's writes")
            .complexity("O(1)")
            .arguments("numreplicas:int timeout:int")
            .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
    );

/// WAIT numreplicas timeout. Waits until that many replicas have acknowledged all that this client wrote, at most `timeout`
/// milliseconds, 0: for ever; in EXEC it does not wait. No replica acknowledges anything in this version. Reply: integer,
/// the number of replicas that have. Errors: not integers; a negative timeout. O(1).
fn wait(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    let wanted = args::integer(ctx.arg(1))?;
    let deadline_ms = args::deadline_of_ms(ctx.arg(2), ctx.shard.now_ms)?;

    let acknowledged = 0;
    if wanted <= acknowledged {
        ctx.reply.integer(acknowledged);
        return Ok(None);
    }
    ctx.block(0..0, deadline_ms, TimeoutReply::Integer(acknowledged))
}
