//! Commands of replicas and about them: SYNC and PSYNC, REPLCONF, REPLICAOF, ROLE, WAIT.
//!
//! A replica gets a snapshot of the data set, and then the effect stream from there on, for ever; or, if it comes back in time,
//! the stream alone, from where it was: see `worker/stream`.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::protocol::inline::split_words;
use crate::protocol::number::parse_i64;
use crate::protocol::until_nul;
use crate::runtime::log;
use crate::session::session;
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::worker::link::{LinkGlobals, Master};
use crate::worker::{FailoverOptions, SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[FAILOVER, PSYNC, REPLCONF, REPLICAOF, ROLE, SLAVEOF, SYNC, WAIT];

const SYNC_FLAGS: u64 = flag::NO_ASYNC_LOADING | flag::ADMIN | flag::NO_MULTI | flag::NOSCRIPT;

const SYNC: Command = session("sync", 1, &(sync as SessionHandler)).flags(SYNC_FLAGS).docs(
    Docs::new("server", "1.0.0", "Makes the client a replica, as old ones ask for it")
        .complexity("O(N), where N is the size of the data set"),
);

/// SYNC. Of a client that is a replica already: nothing. Reply: `$` and the length of the snapshot, the snapshot, and the
/// effects of all that happens from there on, as requests. Errors: those of a snapshot that is limited. O(1), and the snapshot.
fn sync(ctx: &mut SessionCtx<'_>) -> CommandResult {
    begin(ctx, None)
}

const PSYNC: Command = session("psync", -3, &(psync as SessionHandler)).flags(SYNC_FLAGS).docs(
    Docs::new("server", "2.8.0", "Makes the client a replica")
        .complexity("O(N), where N is the size of the data set")
        .arguments("replicationid offset:int"),
);

/// PSYNC replicationid offset [FAILOVER]. Reply: the status `CONTINUE` with the name of the data set's history, if the stream is there
/// from that offset on, and then the stream. Otherwise the status `FULLRESYNC`, that name and the length of the stream so
/// far; then as SYNC. FAILOVER, from the master of this server: it becomes a master before that. Errors: the offset is no
/// integer; FAILOVER, and this is a master, or has another history; as SYNC. O(1), and the snapshot.
fn psync(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let offset = args::integer(ctx.arg(2)).inspect_err(|_| {
        let name = ctx.client().addr.clone();
        log::warning(format_args!("Replica {name} asks for synchronization but with a wrong offset"));
    })?;
    if ctx.args.get(3).is_some_and(|word| args::is(word, "failover")) && !ctx.client().is_replica() {
        return promote(ctx, offset);
    }

    begin(ctx, Some((ctx.arg(1), offset)))
}

/// The master of this server hands its part over.
fn promote(ctx: &mut SessionCtx<'_>, offset: i64) -> CommandResult {
    let (id, globals) = (ctx.arg(1), ctx.worker.globals);
    log::warning(format_args!("Failover request received for replid {}.", id.escape_ascii()));
    if !globals.link.is_replica() {
        return Err(CommandError::fixed("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if !id.eq_ignore_ascii_case(globals.stream.ids().id.as_bytes()) {
        return Err(CommandError::fixed("ERR PSYNC FAILOVER replid must match my replid."));
    }
    if let Some(at) = ctx.conn {
        ctx.worker.promote_for(at, id, offset);
    }
    Ok(())
}

/// `has`: the history of PSYNC, and the offset.
fn begin(ctx: &mut SessionCtx<'_>, has: Option<(&[u8], i64)>) -> CommandResult {
    if ctx.client().is_replica() {
        return Ok(());
    }
    if ctx.worker.globals.failover.is_on() {
        return Err(CommandError::fixed("NOMASTERLINK Can't SYNC while failing over"));
    }
    let link = &ctx.worker.globals.link;
    if link.is_replica() && !link.is_up() {
        return Err(CommandError::fixed("NOMASTERLINK Can't SYNC while not connected with my master"));
    }
    let replica = ctx.client().replica.get_or_insert_default();
    if (replica.filters_keys || replica.filters_functions) && !replica.takes_mark {
        return Err(CommandError::fixed("ERR Filtered replica requires EOF capability"));
    }
    if let Some(at) = ctx.conn {
        ctx.worker.add_replica(at, has);
    }
    Ok(())
}

const FAILOVER: Command = session("failover", -1, &(failover as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::STALE)
    .constant_time()
    .docs(
        Docs::new("server", "6.2.0", "Hands the part of the master over to a replica")
            .complexity("O(1)")
            .arguments("[target(TO host port:int [FORCE])] [ABORT] [TIMEOUT milliseconds:int]"),
    );

/// FAILOVER [TO host port [FORCE]] [TIMEOUT milliseconds] | ABORT. Clients may not write from here on, until a replica, or this one,
/// has all of the stream, and has become the master of this server; or until the time is over, with FORCE the failover begins
/// then nevertheless. Reply: OK, at once. Errors: syntax; a timeout that is none; there is a failover already, or, with ABORT, none;
/// this server is a replica, or has none; the target is no replica, or not online; FORCE without the other two. O(replicas).
fn failover(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.len() == 2 && args::is(ctx.arg(1), "abort") {
        if ctx.worker.abort_failover(ctx.conn)? {
            ctx.reply.ok();
        }
        return Ok(());
    }
    let options = parse_failover(ctx.args)?;

    ctx.worker.begin_failover(options)?;

    ctx.reply.ok();
    Ok(())
}

fn parse_failover(args: Argv<'_>) -> CommandResult<FailoverOptions> {
    let mut options = FailoverOptions::default();
    let mut at = 1;
    while at < args.len() {
        let word = args.arg(at);
        if args::is(word, "timeout") && at + 1 < args.len() && options.timeout_ms.is_none() {
            let timeout_ms = args::integer(args.arg(at + 1))?;
            if timeout_ms <= 0 {
                return Err(CommandError::fixed("ERR FAILOVER timeout must be greater than 0"));
            }
            options.timeout_ms = Some(timeout_ms);
            at += 2;
        } else if args::is(word, "to") && at + 2 < args.len() && options.target.is_none() {
            // Where no port is, no replica is.
            let port = u16::try_from(args::integer(args.arg(at + 2))?).unwrap_or(0);
            options.target =
                Some(Master { host: String::from_utf8_lossy(args.arg(at + 1)).into_owned(), port });
            at += 3;
        } else if args::is(word, "force") && !options.force {
            options.force = true;
            at += 1;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(options)
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
            let value = args::integer(value)?;
            if !(0..=1).contains(&value) {
                return Err(CommandError::fixed("ERR value is out of range, value must between 0 and 1"));
            }
            ctx.client().replica.get_or_insert_default().rdb_only = value == 1;
        } else if args::is(option, "rdb-filter-only") {
            let has_functions = has_functions(value)?;
            let replica = ctx.client().replica.get_or_insert_default();
            (replica.filters_keys, replica.filters_functions) = (true, !has_functions);
        } else if args::is(option, "capa") {
            // Other capabilities may be of later versions.
            let (takes_mark, takes_new_id) = (args::is(value, "eof"), args::is(value, "psync2"));
            let replica = ctx.client().replica.get_or_insert_default();
            replica.takes_mark |= takes_mark;
            replica.takes_new_id |= takes_new_id;
        } else {
            return Err(CommandError::quoting("ERR Unrecognized REPLCONF option: ", option, ""));
        }
    }

    ctx.reply.ok();
    Ok(())
}

/// What a snapshot is to be limited to: words, in the syntax of inline commands. `functions` is the only one there is, and
/// none means nothing at all. Returns whether it is there.
fn has_functions(words: &[u8]) -> CommandResult<bool> {
    let words = split_words(words).map_err(|_| CommandError::fixed("ERR Missing rdb-filter-only values"))?;
    match words.as_argv().iter().find(|word| !args::is(word, "functions")) {
        None => Ok(words.as_argv().iter().next().is_some()),
        Some(word) => Err(CommandError::quoting("ERR Unsupported rdb-filter-only option: ", word, "")),
    }
}

/// A replica says that it has the stream up to an offset.
fn acknowledge(ctx: &mut SessionCtx<'_>, offset: &[u8]) {
    let Some(offset) = parse_i64(offset).and_then(|offset| u64::try_from(offset).ok()) else { return };
    ctx.worker.acknowledge(ctx.call.client, offset);
}

const REPLICAOF_FLAGS: u64 = flag::NO_ASYNC_LOADING | flag::ADMIN | flag::NOSCRIPT | flag::STALE;

const REPLICAOF: Command =
    session("replicaof", 3, &(replicaof as SessionHandler)).flags(REPLICAOF_FLAGS).constant_time().docs(
        Docs::new("server", "5.0.0", "Makes the server a replica of another one, or a master")
            .complexity("O(1)")
            .arguments("host port:int"),
    );

const SLAVEOF: Command =
    session("slaveof", 3, &(replicaof as SessionHandler)).flags(REPLICAOF_FLAGS).constant_time().docs(
        Docs::new("server", "1.0.0", "Makes the server a replica of another one, or a master")
            .complexity("O(1)")
            .deprecated("5.0.0", "`REPLICAOF`")
            .arguments("host port:int"),
    );

/// REPLICAOF host port, or NO ONE. Makes the server a replica of that one: writes of clients are refused from here on, and its data is
/// replaced when the other has sent its own. Or a master: with all data that it has. Reply: OK; `OK Already connected to
/// specified master`. Errors: the port is none; the caller is a replica itself. O(1).
fn replicaof(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (globals, clock) = (ctx.worker.globals, ctx.worker.clock());
    if globals.failover.is_on() {
        return Err(CommandError::fixed("ERR REPLICAOF not allowed while failing over."));
    }
    let is_none = args::is(ctx.arg(1), "no") && args::is(ctx.arg(2), "one");
    let master = match is_none {
        true => None,
        false if ctx.client().is_replica() => {
            return Err(CommandError::fixed("ERR Command is not valid when client is a replica."));
        }
        false => {
            let port = args::integer(ctx.arg(2)).ok().and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or(CommandError::fixed("ERR Invalid master port"))?;
            Some(Master { host: String::from_utf8_lossy(ctx.arg(1)).into_owned(), port })
        }
    };
    let present = globals.link.master();
    if master.is_some() && master == present && !globals.link.is_given_up() {
        ctx.reply.simple("OK Already connected to specified master");
        return Ok(());
    }
    LinkGlobals::remember(globals, master.as_ref());
    // What comes after it in an EXEC goes by it: CONFIG REWRITE.
    ctx.worker.adopt_config();
    match (&master, ctx.conn) {
        (None, Some(at)) if globals.link.is_replica() => {
            let reply_id = ctx.worker.reply_later(at);
            LinkGlobals::order(globals, clock, None, Some((ctx.worker.shard.index, reply_id)));
            return Ok(());
        }
        (None, _) if globals.link.is_replica() => LinkGlobals::order(globals, clock, None, None),
        (None, _) => {}
        (Some(Master { host, port }), _) => {
            log::notice(format_args!("REPLICAOF {host}:{port} enabled (user request)"));
            LinkGlobals::order(globals, clock, master.clone(), None);
            ctx.worker.follow_role();
            ctx.worker.tell_link(false);
            ctx.worker.tell_role(true);
        }
    }
    ctx.reply.ok();
    Ok(())
}

const ROLE: Command = session("role", 1, &(role as SessionHandler))
    .flags(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST)
    .acl(acl::ADMIN | acl::DANGEROUS)
    .constant_time()
    .docs(Docs::new("server", "2.8.12", "Tells the server's part in replication").complexity("O(1)"));

/// ROLE. Reply: array of `master`, the length of the effect stream, and the replicas that read it: an array of address,
/// port and offset each. Of a replica: `slave`, its master's host and port, how the link stands, and how much of the stream it has.
/// O(replicas).
fn role(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let link = &ctx.worker.globals.link;
    if let Some(Master { host, port }) = link.master().filter(|_| link.is_replica()) {
        let (state, offset) = (link.figures().state, ctx.worker.globals.stream.offset());
        ctx.reply.array(5);
        ctx.reply.bulk(b"slave");
        ctx.reply.bulk(host.as_bytes());
        ctx.reply.integer(i64::from(port));
        ctx.reply.bulk(state.name().as_bytes());
        ctx.reply.integer(offset as i64);
        return Ok(());
    }
    let stream = &ctx.worker.globals.stream;
    let replicas = stream.replicas();

    ctx.reply.array(3);
    ctx.reply.bulk(b"master");
    ctx.reply.integer(stream.offset() as i64);
    let online = || replicas.iter().filter(|replica| replica.is_online());
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

/// WAIT numreplicas timeout. Waits until that many replicas have acknowledged all that this client has written, at most
/// `timeout` milliseconds, 0: for ever; in EXEC it does not wait. Reply: integer, the number of replicas that have; in EXEC 0, as
/// nobody has been asked. Errors: not integers; a negative timeout. O(1).
fn wait(ctx: &mut Ctx<'_>) -> CommandResult<Option<BlockRequest>> {
    args::integer(ctx.arg(1))?;
    let deadline_ms = args::deadline_of_ms(ctx.arg(2), ctx.shard.now_ms)?;
    if ctx.shard.is_replica {
        return Err(CommandError::fixed(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured \
             to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }

    ctx.block(0..0, deadline_ms, TimeoutReply::Replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn parsed(args: &[&str]) -> CommandResult<FailoverOptions> {
        parse_failover(OwnedArgv::from_slices(args).as_argv())
    }

    #[test]
    fn failover_takes_its_words_in_any_order_and_each_once() {
        let target = Some(Master { host: "h".to_owned(), port: 6379 });
        let all = FailoverOptions { target, timeout_ms: Some(100), force: true };
        assert_eq!(parsed(&["FAILOVER"]), Ok(FailoverOptions::default()));
        assert_eq!(parsed(&["FAILOVER", "to", "h", "6379", "FORCE", "TIMEOUT", "100"]), Ok(all.clone()));
        assert_eq!(parsed(&["FAILOVER", "TIMEOUT", "100", "force", "TO", "h", "6379"]), Ok(all));
        for bad in
            [&["FAILOVER", "TO", "h"][..], &["FAILOVER", "FORCE", "FORCE"], &["FAILOVER", "ABORT", "x"]]
        {
            assert_eq!(parsed(bad), Err(CommandError::SYNTAX), "{bad:?}");
        }
        let error = parsed(&["FAILOVER", "TIMEOUT", "0"]).expect_err("it is no time");
        assert_eq!(error.text(), "ERR FAILOVER timeout must be greater than 0");
    }
}
