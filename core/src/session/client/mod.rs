//! CLIENT: what the server knows of its connections, and what it is told to do with them.
//!
//! Each shard knows its own connections, so LIST and KILL ask all shards; the rest concerns the calling connection, or
//! the pause that all shards share.

mod filter;
mod tracking;

use self::filter::{KillFilter, ListFilter};
use self::tracking::{CACHING, GETREDIR, TRACKING, TRACKINGINFO};
use super::connection::{check_printable, set_name};
use crate::client::{ClientId, ReplyMode};
use crate::command::admission::PauseKind;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::number::parse_i64;
use crate::protocol::{Argv, Reply, Resp, split_array};
use crate::session::session;
use crate::worker::PauseReason;
use crate::worker::client_line::{flag_watch_change, write_line};
use crate::worker::feed::FEED_SHARD;
use crate::worker::{SessionCtx, SessionHandler};
use ahash::AHashSet;

pub const COMMANDS: &[Command] = &[CLIENT];

const CLIENT: Command = Command::container(
    "client",
    &[
        CACHING,
        GETNAME,
        GETREDIR,
        HELP,
        ID,
        INFO,
        KILL,
        LIST,
        NO_EVICT,
        NO_TOUCH,
        PAUSE,
        REPLY,
        SETINFO,
        SETNAME,
        TRACKING,
        TRACKINGINFO,
        UNBLOCK,
        UNPAUSE,
    ],
)
.docs(
    Docs::new("connection", "2.4.0", "A container for commands about client connections")
        .complexity("Depends on subcommand."),
);

const ANYONE: u64 = flag::NOSCRIPT | flag::LOADING | flag::STALE;
const ADMIN: u64 = ANYONE | flag::ADMIN;

const ID: Command = session("id", 2, &(id as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(Docs::new("connection", "5.0.0", "Answers the connection's number").complexity("O(1)"));

/// CLIENT ID. Reply: integer, unique in the life of the process. O(1).
fn id(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.reply.integer(ctx.call.client as i64);
    Ok(())
}

const INFO: Command = session("info", 2, &(info as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::With(merge_lists))
    .constant_time()
    .docs(
        Docs::new("connection", "6.2.0", "Describes the calling connection")
            .complexity("O(1)")
            .tips(&["nondeterministic_output"]),
    );

/// CLIENT INFO. Reply: text, the connection's line in CLIENT LIST. O(clients).
fn info(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let own = ListFilter::Ids(vec![ctx.call.client as i64]);

    reply_lines(ctx, &own);
    Ok(())
}

const GETNAME: Command = session("getname", 2, &(getname as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(Docs::new("connection", "2.6.9", "Answers the connection's name").complexity("O(1)"));

/// CLIENT GETNAME. Reply: the name, or null if it has none. O(1).
fn getname(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let name = ctx.client().name.clone();
    if name.is_empty() {
        ctx.reply.null();
    } else {
        ctx.reply.bulk(&name);
    }
    Ok(())
}

const SETNAME: Command = session("setname", 3, &(setname as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "2.6.9", "Names the connection")
            .complexity("O(1)")
            .arguments("connection-name"),
    );

/// CLIENT SETNAME name. An empty name takes the name away. Reply: OK. Errors: blanks or unprintable bytes. O(1).
fn setname(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let name = ctx.arg(2);

    set_name(ctx.client(), name)?;

    ctx.reply.ok();
    Ok(())
}

const SETINFO: Command = session("setinfo", 4, &(setinfo as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "7.2.0", "Notes which library the client uses, and its version")
            .complexity("O(1)")
            .arguments("attr(LIB-NAME libname | LIB-VER libver)")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    );

/// CLIENT SETINFO LIB-NAME|LIB-VER value. Reply: OK. Errors: blanks or unprintable bytes; another attribute. O(1).
fn setinfo(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (attribute, value) = (ctx.arg(2), ctx.arg(3));
    let client = ctx.client();
    if args::is(attribute, "lib-name") {
        check_printable(value, "ERR lib-name cannot contain spaces, newlines or special characters.")?;
        client.lib_name = value.to_vec();
    } else if args::is(attribute, "lib-ver") {
        check_printable(value, "ERR lib-ver cannot contain spaces, newlines or special characters.")?;
        client.lib_ver = value.to_vec();
    } else {
        return Err(CommandError::quoting("ERR Unrecognized option '", attribute, "'"));
    }

    ctx.reply.ok();
    Ok(())
}

const NO_EVICT: Command = session("no-evict", 3, &(no_evict as SessionHandler))
    .flags(ADMIN)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "7.0.0", "Says whether the connection may be closed to win memory")
            .complexity("O(1)")
            .arguments("enabled(ON | OFF)"),
    );

/// CLIENT NO-EVICT ON|OFF. Reply: OK. O(1).
fn no_evict(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.client().no_evict = on_or_off(ctx.arg(2))?;
    ctx.reply.ok();
    Ok(())
}

const NO_TOUCH: Command = session("no-touch", 3, &(no_touch as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "7.2.0", "Says whether the connection's reads count as accesses of the keys")
            .complexity("O(1)")
            .arguments("enabled(ON | OFF)"),
    );

/// CLIENT NO-TOUCH ON|OFF. Reply: OK. O(1).
fn no_touch(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.client().no_touch = on_or_off(ctx.arg(2))?;
    ctx.reply.ok();
    Ok(())
}

fn on_or_off(word: &[u8]) -> CommandResult<bool> {
    if args::is(word, "on") {
        Ok(true)
    } else if args::is(word, "off") {
        Ok(false)
    } else {
        Err(CommandError::SYNTAX)
    }
}

const REPLY: Command =
    session("reply", 3, &(reply as SessionHandler)).flags(ANYONE).acl(acl::CONNECTION).constant_time().docs(
        Docs::new("connection", "3.2.0", "Says whether the connection gets replies")
            .complexity("O(1)")
            .arguments("<ON | OFF | SKIP>"),
    );

/// CLIENT REPLY ON|OFF|SKIP. Reply: OK to ON, nothing to the others. SKIP leaves out the next command's reply. A replica
/// gets none whatever it says. O(1).
fn reply(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let word = ctx.arg(2);
    if ctx.client().is_replica() {
        return Ok(());
    }
    let mode = ctx.client().reply_mode;
    if args::is(word, "on") {
        ctx.client().reply_mode = ReplyMode::On;
        ctx.reply.ok();
    } else if args::is(word, "off") {
        ctx.client().reply_mode = ReplyMode::Off;
    } else if args::is(word, "skip") {
        if mode != ReplyMode::Off {
            ctx.client().reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(CommandError::SYNTAX);
    }
    Ok(())
}

const PAUSE: Command =
    session("pause", -3, &(pause as SessionHandler)).flags(ADMIN).acl(acl::CONNECTION).constant_time().docs(
        Docs::new("connection", "2.9.50", "Holds the commands of all clients back for some time")
            .complexity("O(1)")
            .arguments("timeout:int [mode(WRITE | ALL)@6.2.0]")
            .history(&[("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option.")]),
    );

/// CLIENT PAUSE milliseconds [WRITE|ALL]. Reply: OK. Errors: not a time; neither mode. O(1).
fn pause(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.len() > 4 {
        return Err(CommandError::wrong_subcommand("CLIENT", ctx.arg(1)));
    }
    let kind = match ctx.args.get(3) {
        None => PauseKind::All,
        Some(mode) if args::is(mode, "write") => PauseKind::Write,
        Some(mode) if args::is(mode, "all") => PauseKind::All,
        Some(_) => return Err(CommandError::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let duration_ms =
        parse_i64(ctx.arg(2)).ok_or(CommandError::fixed("ERR timeout is not an integer or out of range"))?;
    if duration_ms < 0 {
        return Err(CommandError::fixed("ERR timeout is negative"));
    }

    let now_ms = ctx.worker.shard.now_ms;
    ctx.worker.globals.set_pause(now_ms.saturating_add(duration_ms), kind, PauseReason::Client, now_ms);

    ctx.reply.ok();
    Ok(())
}

const UNPAUSE: Command =
    session("unpause", 2, &(unpause as SessionHandler)).flags(ADMIN).acl(acl::CONNECTION).docs(
        Docs::new("connection", "6.2.0", "Ends CLIENT PAUSE before its time")
            .complexity("O(N) Where N is the number of paused clients"),
    );

/// CLIENT UNPAUSE. Reply: OK, whether there was a pause or not.
fn unpause(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.globals.end_pause(PauseReason::Client);
    ctx.reply.ok();
    Ok(())
}

const UNBLOCK: Command = session("unblock", -3, &(unblock as SessionHandler))
    .flags(ADMIN | flag::AFTER_HANDOFFS)
    .acl(acl::CONNECTION)
    .scope(Scope::Custom(unblock_scope))
    .merge(Merge::Sum)
    .docs(
        Docs::new("connection", "5.0.0", "Ends the waiting of a client that is in a blocking command")
            .complexity("O(log N) where N is the number of client connections")
            .arguments("client-id:int [TIMEOUT | ERROR]"),
    );

/// Bad arguments are refused at home, once.
fn unblock_scope(args: Argv<'_>, _shard_count: usize) -> Scope {
    if parse_unblock(args).is_ok() { Scope::Every(KeyspaceLock::None) } else { Scope::Session }
}

/// Which client, and whether with an error.
fn parse_unblock(args: Argv<'_>) -> CommandResult<(ClientId, bool)> {
    if args.len() > 4 {
        return Err(CommandError::wrong_subcommand("CLIENT", args.arg(1)));
    }
    let with_error = match args.get(3) {
        None => false,
        Some(reason) if args::is(reason, "timeout") => false,
        Some(reason) if args::is(reason, "error") => true,
        Some(_) => {
            return Err(CommandError::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = parse_i64(args.arg(2)).ok_or(CommandError::NOT_INTEGER)?;
    // No client has a negative one.
    Ok((ClientId::try_from(id).unwrap_or(0), with_error))
}

/// CLIENT UNBLOCK client-id [TIMEOUT|ERROR]. A client that waits for a key gets what it would get when its time is up, or
/// an error. Reply: integer, 1 or, if it does not wait, 0. Errors: a bad id or reason. O(clients).
fn unblock(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (id, with_error) = parse_unblock(ctx.args)?;

    let unblocked = ctx.worker.unblock(id, with_error);

    ctx.reply.integer(i64::from(unblocked));
    Ok(())
}

const LIST: Command = session("list", -2, &(list as SessionHandler))
    .flags(ADMIN | flag::AFTER_HANDOFFS)
    .acl(acl::CONNECTION)
    .scope(Scope::Custom(list_scope))
    .merge(Merge::With(merge_lists))
    .docs(
        Docs::new("connection", "2.4.0", "Describes the connections, a line each")
            .complexity("O(N) where N is the number of client connections")
            .arguments("[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>@5.0.0] [ID{client-id:int...}@6.2.0]")
            .tips(&["nondeterministic_output"])
            .history(&[
                ("2.8.12", "Added unique client `id` field."),
                ("5.0.0", "Added optional `TYPE` filter."),
                ("6.0.0", "Added `user` field."),
                (
                    "6.2.0",
                    "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and the optional `ID` filter.",
                ),
                ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
                ("7.0.3", "Added `ssub` field."),
            ]),
    );

/// Bad arguments are refused at home, once.
fn list_scope(args: Argv<'_>, _shard_count: usize) -> Scope {
    if ListFilter::parse(args).is_ok() { Scope::Every(KeyspaceLock::None) } else { Scope::Session }
}

/// CLIENT LIST [TYPE type | ID id ...]. Reply: text, a line for each client, in the order of their ids. Errors: unknown
/// type, bad id. O(clients).
fn list(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let filter = ListFilter::parse(ctx.args)?;

    reply_lines(ctx, &filter);
    Ok(())
}

/// One shard's part, for [`merge_lists`]: array of the text that describes its connections, and the ids of all clients
/// that watch keys of this shard which have changed.
fn reply_lines(ctx: &mut SessionCtx<'_>, filter: &ListFilter) {
    let now_ms = ctx.worker.shard.now_ms;
    let mut lines = Vec::new();
    for (at, connection) in ctx.worker.clients().filter(|(_, connection)| filter.takes(&connection.client)) {
        let is_caller = connection.client.id == ctx.call.client;
        let running_args_bytes = if is_caller { ctx.args.total_len_bytes() } else { 0 };
        let is_served = ctx.worker.wait_of(at).is_some_and(|(_, is_served)| is_served);
        write_line(&mut lines, connection, ctx.worker.table, now_ms, running_args_bytes, is_served);
    }
    let changed: Vec<ClientId> = ctx.worker.shard.observers.watch().clients_of_changed().collect();

    ctx.reply.array(2);
    ctx.reply.verbatim("txt", &lines);
    ctx.reply.array(changed.len());
    changed.into_iter().for_each(|client| ctx.reply.integer(client as i64));
}

/// The shards' texts as one, their lines in the order of ids.
fn merge_lists(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let mut resp = Resp::V2;
    let mut lines: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut changed: AHashSet<u64> = AHashSet::new();
    for reply in replies {
        let mut parts = split_array(reply).expect("a shard answers with an array");
        let text = parts.next().expect("a text comes first");
        if text.starts_with(b"=") {
            resp = Resp::V3;
        }
        let of_shard = text_of(text).split_inclusive(|&byte| byte == b'\n');
        lines.extend(of_shard.map(|line| (line_id(line), line.to_vec())));
        let ids = split_array(parts.next().expect("ids come second")).expect("they are an array");
        changed.extend(ids.map(|id| leading_number(&id[1..])));
    }
    lines.sort_by_key(|&(id, _)| id);
    for (_, line) in lines.iter_mut().filter(|(id, _)| changed.contains(id)) {
        flag_watch_change(line);
    }
    let text: Vec<u8> = lines.into_iter().flat_map(|(_, line)| line).collect();
    Reply::new(out, resp).verbatim("txt", &text);
}

/// The text in a bulk or verbatim string.
fn text_of(reply: &[u8]) -> &[u8] {
    let header_end = memchr::memchr(b'\n', reply).expect("a string reply has a header") + 1;
    let text = &reply[header_end..reply.len() - 2];
    text.strip_prefix(b"txt:").unwrap_or(text)
}

fn line_id(line: &[u8]) -> u64 {
    leading_number(line.strip_prefix(b"id=").unwrap_or_default())
}

fn leading_number(text: &[u8]) -> u64 {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |id, digit| id * 10 + u64::from(digit - b'0'))
}

const KILL: Command = session("kill", -3, &(kill as SessionHandler))
    .flags(ADMIN | flag::AFTER_HANDOFFS)
    .acl(acl::CONNECTION)
    .scope(Scope::Custom(kill_scope))
    .merge(Merge::With(merge_kills))
    .docs(
        Docs::new("connection", "2.4.0", "Closes connections")
            .complexity("O(N) where N is the number of client connections")
            .arguments(
                "filter(ip_port | new-format([ID client-id:int@2.8.12] | \
                 [TYPE <NORMAL | MASTER@3.2.0 | SLAVE | REPLICA@5.0.0 | PUBSUB>@2.8.12] | [USER username] | \
                 [ADDR ip_port] | [LADDR ip_port@6.2.0] | [SKIPME yes/no])...)",
            )
            .history(&[
                ("2.8.12", "Added new filter format."),
                ("2.8.12", "`ID` option."),
                ("3.2.0", "Added `master` type in for `TYPE` option."),
                (
                    "5.0.0",
                    "Replaced `slave` `TYPE` with `replica`. `slave` still supported for backward compatibility.",
                ),
                ("6.2.0", "`LADDR` option."),
            ]),
    );

fn kill_scope(args: Argv<'_>, _shard_count: usize) -> Scope {
    if KillFilter::parse(args).is_ok() { Scope::Every(KeyspaceLock::None) } else { Scope::Session }
}

/// CLIENT KILL addr | filter value ... Reply: OK in the first form, else integer, the number of clients killed. Who
/// kills itself gets the reply first. Errors: no such client, in the first form; bad filters. O(clients).
fn kill(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let filter = KillFilter::parse(ctx.args)?;

    if filter.user.is_some_and(|user| ctx.worker.users().get(user).is_none()) {
        ctx.reply.integer(NO_SUCH_USER);
        return Ok(());
    }
    let caller = ctx.call.client;
    let doomed: Vec<usize> = ctx
        .worker
        .clients()
        .filter(|(_, connection)| filter.takes(&connection.client, caller))
        .map(|(at, _)| at)
        .collect();
    for &at in &doomed {
        if ctx.conn == Some(at) {
            ctx.worker.close_after_reply(at);
        } else {
            ctx.worker.close_now(at);
        }
    }

    let link = &ctx.worker.globals.link;
    let kills_master =
        ctx.worker.shard.index == FEED_SHARD && link.ends().is_some_and(|ends| filter.takes_master(&ends));
    if kills_master {
        link.cut();
        ctx.worker.tell_link(false);
    }

    ctx.reply.integer(doomed.len() as i64 + i64::from(kills_master));
    Ok(())
}

/// What a shard answers with to CLIENT KILL if there is no user of the name that was asked for.
const NO_SUCH_USER: i64 = -1;

/// Adds the shards' counts up.
fn merge_kills(replies: &[&[u8]], args: Argv<'_>, out: &mut Vec<u8>) {
    let count = |reply: &&[u8]| parse_i64(&reply[1..reply.len() - 2]).expect("a shard answers with a count");
    let mut reply = Reply::new(out, Resp::V2);
    let filter = KillFilter::parse(args).ok();
    if replies.iter().map(count).any(|count| count == NO_SUCH_USER) {
        let user = filter.and_then(|filter| filter.user).unwrap_or_default();
        reply.error(CommandError::quoting("ERR No such user '", user, "'").as_bytes());
        return;
    }
    let killed: i64 = replies.iter().map(count).sum();
    let is_old_form = filter.is_some_and(|filter| filter.is_old_form);
    match (is_old_form, killed) {
        (false, _) => reply.integer(killed),
        (true, 0) => reply.error("ERR No such client"),
        (true, _) => reply.ok(),
    }
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(Docs::new("connection", "5.0.0", "Explains the subcommands").complexity("O(1)"));

/// CLIENT HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Say whether the keys of the next command are tracked, with OPTIN or OPTOUT.",
            "GETREDIR",
            "    Answer the ID of the client that gets this one's invalidation messages.",
            "GETNAME",
            "    Answer the name of the current connection.",
            "ID",
            "    Answer the ID of the current connection.",
            "INFO",
            "    Describe the current connection.",
            "KILL <ip:port>",
            "    Close the connection from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Close the connections that fit all of these options:",
            "    * ID <client-id>",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Where the connection comes from.",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Where it came to.",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "    * USER <username>",
            "    * SKIPME (YES|NO)",
            "      Whether to spare the current connection (default: yes).",
            "LIST [options ...]",
            "    Describe the connections, all or those that fit an option:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "    * ID <client-id> [<client-id> [...]]",
            "UNPAUSE",
            "    End the pause.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Hold back all commands, or those that write, for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Choose whether the current connection gets replies.",
            "SETINFO (LIB-NAME|LIB-VER) <value>",
            "    Note the client library of the current connection.",
            "SETNAME <name>",
            "    Name the current connection.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Be told when keys change that the current connection has read.",
            "TRACKINGINFO",
            "    Answer what the current connection is told of.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    End the waiting of a blocked client.",
            "NO-EVICT (ON|OFF)",
            "    Protect the current connection from being closed to win memory.",
            "NO-TOUCH (ON|OFF)",
            "    Leave the access times of keys alone when the current connection reads them.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn text_reply(text: &str, resp: Resp) -> Vec<u8> {
        let mut out = Vec::new();
        Reply::new(&mut out, resp).verbatim("txt", text.as_bytes());
        out
    }

    fn shard_reply(text: &str, changed: &[i64], resp: Resp) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, resp);
        reply.array(2);
        reply.verbatim("txt", text.as_bytes());
        reply.array(changed.len());
        changed.iter().for_each(|&id| reply.integer(id));
        out
    }

    #[test]
    fn the_lists_of_all_shards_become_one_in_the_order_of_ids() {
        for resp in [Resp::V2, Resp::V3] {
            let replies = [
                shard_reply("id=3 flags=N db=0\nid=10 flags=x db=0\n", &[2], resp),
                shard_reply("", &[10, 7], resp),
                shard_reply("id=2 flags=N db=0\n", &[10], resp),
            ];
            let args = OwnedArgv::from_slices(&["CLIENT", "LIST"]);
            let mut out = Vec::new();

            merge_lists(&replies.each_ref().map(Vec::as_slice), args.as_argv(), &mut out);

            let merged = "id=2 flags=d db=0\nid=3 flags=N db=0\nid=10 flags=xd db=0\n";
            assert_eq!(out, text_reply(merged, resp));
        }
    }

    #[test]
    fn the_old_form_of_kill_must_find_somebody() {
        let merged = |args: &[&str], replies: &[&str]| {
            let replies: Vec<&[u8]> = replies.iter().map(|reply| reply.as_bytes()).collect();
            let mut out = Vec::new();
            merge_kills(&replies, OwnedArgv::from_slices(args).as_argv(), &mut out);
            String::from_utf8(out).unwrap()
        };

        let old = ["CLIENT", "KILL", "1.1.1.1:1"];
        assert_eq!(merged(&old, &[":0\r\n", ":0\r\n"]), "-ERR No such client\r\n");
        assert_eq!(merged(&old, &[":0\r\n", ":1\r\n"]), "+OK\r\n");
        assert_eq!(merged(&["CLIENT", "KILL", "TYPE", "normal"], &[":2\r\n", ":3\r\n"]), ":5\r\n");
    }
}
