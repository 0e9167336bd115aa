//! Commands about the connection itself: who the client is, which database it works on, which RESP it speaks.

use crate::REDIS_VERSION;
use crate::acl::DEFAULT_USER;
use crate::client::{Client, ReplyMode};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::modules::list_loaded;
use crate::protocol::number::parse_i64;
use crate::protocol::{Argv, Resp};
use crate::session::session;
use crate::worker::{PING_AS_MESSAGE, SessionCtx, SessionHandler};
use smallvec::SmallVec;

pub const COMMANDS: &[Command] = &[AUTH, ECHO, HELLO, PING, PING_MESSAGE, QUIT, RESET, SELECT];

/// Before a client has logged in, and whatever else goes on.
const ANYTIME: u64 =
    flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY;

const PING: Command = Command::keys("ping", -1, ping)
    .flags(flag::FAST | flag::TELLS_HEALTH | flag::WHEN_SUBSCRIBED | flag::REPLIES_AS_MESSAGE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "1.0.0", "Answers PONG, or the message it is given")
            .complexity("O(1)")
            .arguments("[message]")
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    );

/// PING [message]. Reply: the status PONG, or the message. O(1).
fn ping(ctx: &mut Ctx<'_>) -> CommandResult {
    match ctx.args.len() {
        1 => ctx.reply.simple("PONG"),
        2 => ctx.reply.bulk(ctx.args.arg(1)),
        _ => return Err(CommandError::wrong_arity("ping")),
    }
    Ok(())
}

const PING_MESSAGE: Command = Command::keys(PING_AS_MESSAGE, -1, ping_message)
    .flags(flag::FAST)
    .constant_time()
    .hidden()
    .docs(Docs::new("connection", "3.0.0", "Answers as a message of pub/sub").complexity("O(1)"));

/// PING [message] of a client that listens to channels by RESP2. Reply: array of `pong` and the message, or an empty
/// string. O(1).
fn ping_message(ctx: &mut Ctx<'_>) -> CommandResult {
    if ctx.args.len() > 2 {
        return Err(CommandError::wrong_arity("ping"));
    }
    ctx.reply.array(2);
    ctx.reply.bulk(b"pong");
    ctx.reply.bulk(ctx.args.get(1).unwrap_or_default());
    Ok(())
}

const ECHO: Command = Command::keys("echo", 2, echo)
    .flags(flag::LOADING | flag::STALE | flag::FAST)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "1.0.0", "Answers the message it is given")
            .complexity("O(1)")
            .arguments("message"),
    );

/// ECHO message. Reply: the message. O(1).
fn echo(ctx: &mut Ctx<'_>) -> CommandResult {
    ctx.reply.bulk(ctx.args.arg(1));
    Ok(())
}

const AUTH: Command = session("auth", -2, &(auth as SessionHandler))
    .flags(ANYTIME | flag::CHANGES_RIGHTS)
    .acl(acl::CONNECTION)
    .secrets(auth_secrets)
    .docs(
        Docs::new("connection", "1.0.0", "Logs the client in")
            .complexity("O(N) where N is the number of passwords defined for the user")
            .arguments("[username@6.0.0] password")
            .history(&[("6.0.0", "Added ACL style (username and password).")]),
    );

fn auth_secrets(args: Argv<'_>) -> SmallVec<[usize; 2]> {
    (1..args.len().min(3)).collect()
}

/// AUTH [username] password. Reply: OK. Errors: no password is set and no user named; the two do not fit. O(1).
fn auth(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (user, password) = match ctx.args.len() {
        2 => (DEFAULT_USER, ctx.arg(1)),
        3 => (ctx.arg(1), ctx.arg(2)),
        _ => return Err(CommandError::SYNTAX),
    };
    if ctx.args.len() == 2 && ctx.worker.users().default_user().needs_no_password() {
        return Err(CommandError::fixed(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ));
    }

    log_in(ctx, user, password)?;

    ctx.reply.ok();
    Ok(())
}

fn log_in(ctx: &mut SessionCtx<'_>, user: &[u8], password: &[u8]) -> CommandResult {
    let found = ctx.worker.users().log_in(user, password).cloned();
    match (found, ctx.conn) {
        (Some(user), Some(at)) => ctx.worker.log_in(at, user),
        (Some(user), None) => ctx.client().log_in(user),
        (None, at) => {
            if let Some(at) = at {
                ctx.worker.log_auth_failure(at, user, ctx.args);
            }
            return Err(CommandError::fixed("WRONGPASS invalid username-password pair or user is disabled."));
        }
    }
    Ok(())
}

const HELLO: Command = session("hello", -1, &(hello as SessionHandler))
    .flags(ANYTIME | flag::CHANGES_RIGHTS)
    .acl(acl::CONNECTION)
    .secrets(hello_secrets)
    .constant_time()
    .docs(
        Docs::new("connection", "6.0.0", "Chooses the protocol version, and introduces client and server")
            .complexity("O(1)")
            .arguments("[arguments{protover:int [AUTH{username password}] [SETNAME clientname]}]")
            .history(&[(
                "6.2.0",
                "`protover` made optional; when called without arguments the command reports the current \
                 connection's context.",
            )]),
    );

fn hello_secrets(args: Argv<'_>) -> SmallVec<[usize; 2]> {
    let mut secrets = SmallVec::new();
    for option in hello_options(args) {
        match option {
            Ok(HelloOption::Auth { at }) => secrets.extend([at + 1, at + 2]),
            Ok(HelloOption::SetName { .. }) | Err(_) => {}
        }
    }
    secrets
}

/// The version that HELLO asks for, if it asks for one.
fn hello_version(args: Argv<'_>) -> CommandResult<Option<Resp>> {
    match args.get(1).map(parse_i64) {
        None => Ok(None),
        Some(Some(2)) => Ok(Some(Resp::V2)),
        Some(Some(3)) => Ok(Some(Resp::V3)),
        Some(Some(_)) => Err(CommandError::fixed("NOPROTO unsupported protocol version")),
        Some(None) => Err(CommandError::fixed("ERR Protocol version is not an integer or out of range")),
    }
}

/// An option of HELLO, and where it stands; its arguments stand behind it.
#[derive(PartialEq, Eq, Debug)]
enum HelloOption {
    Auth { at: usize },
    SetName { at: usize },
}

/// HELLO's options in order. The first that is none ends them.
fn hello_options(args: Argv<'_>) -> impl Iterator<Item = CommandResult<HelloOption>> {
    let mut next = 2;
    std::iter::from_fn(move || {
        let (at, option) = (next, args.get(next)?);
        if args::is(option, "auth") && at + 2 < args.len() {
            next = at + 3;
            Some(Ok(HelloOption::Auth { at }))
        } else if args::is(option, "setname") && at + 1 < args.len() {
            next = at + 2;
            Some(Ok(HelloOption::SetName { at }))
        } else {
            next = args.len();
            Some(Err(CommandError::quoting("ERR Syntax error in HELLO option '", option, "'")))
        }
    })
}

/// HELLO [protover [AUTH username password] [SETNAME clientname]]. Reply: a map of what the server is, in the version
/// asked for. Errors: NOPROTO; WRONGPASS; NOAUTH where a login is due and none is given; a bad name. The options before
/// a bad one have taken effect, as in Redis. O(1).
fn hello(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let args = ctx.args;
    let version = hello_version(args)?;

    for option in hello_options(args) {
        match option? {
            HelloOption::Auth { at } => log_in(ctx, args.arg(at + 1), args.arg(at + 2))?,
            HelloOption::SetName { at } => set_name(ctx.client(), args.arg(at + 1))?,
        }
    }
    let client = ctx.client();
    if !client.authenticated {
        return Err(CommandError::fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same \
             time",
        ));
    }
    if let Some(resp) = version {
        client.resp = resp;
    }
    let (id, resp) = (client.id, client.resp);
    let role = if ctx.worker.globals.link.is_replica() { "replica" } else { "master" };

    let reply = &mut ctx.reply;
    reply.resp = resp;
    reply.map(7);
    // The product's own name and version are in INFO: clients tell features by these fields.
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(match resp {
        Resp::V2 => 2,
        Resp::V3 => 3,
    });
    reply.bulk(b"id");
    reply.integer(id as i64);
    for (field, value) in [("mode", "standalone"), ("role", role)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    list_loaded(reply);
    Ok(())
}

/// Names a client. An empty name takes the name away.
///
/// # Errors
/// Blanks or unprintable bytes.
pub(super) fn set_name(client: &mut Client, name: &[u8]) -> CommandResult {
    check_printable(name, "ERR Client names cannot contain spaces, newlines or special characters.")?;
    client.name = name.to_vec();
    Ok(())
}

/// Names of clients stand unquoted in a line of CLIENT LIST, so they are printable ASCII without blanks.
pub(super) fn check_printable(text: &[u8], error: &'static str) -> CommandResult {
    if text.iter().all(u8::is_ascii_graphic) { Ok(()) } else { Err(CommandError::fixed(error)) }
}

const QUIT: Command = session("quit", -1, &(quit as SessionHandler))
    .flags(ANYTIME | flag::RUNS_IN_MULTI | flag::WHEN_SUBSCRIBED)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(Docs::new("connection", "1.0.0", "Closes the connection").complexity("O(1)"));

/// QUIT. Reply: OK, and behind it the end of the connection. What the client sent after it is not run. O(1).
fn quit(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.reply.ok();
    let at = ctx.conn.expect("a session command runs beside its connection");
    ctx.worker.close_after_reply(at);
    Ok(())
}

const RESET: Command = session("reset", 1, &(reset as SessionHandler))
    .flags(ANYTIME | flag::RUNS_IN_MULTI | flag::WHEN_SUBSCRIBED | flag::CHANGES_RIGHTS)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "6.2.0", "Makes the connection as it was when it was new").complexity("O(1)"),
    );

/// RESET. Reply: the status RESET. Errors: the client is a replica. O(1).
fn reset(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.client().is_replica() {
        return Err(CommandError::fixed("ERR can only reset normal connections"));
    }
    let at = ctx.conn.expect("a session command runs beside its connection");
    ctx.worker.discard(at);
    ctx.worker.unsubscribe_all(at);
    ctx.worker.end_tracking(at);
    ctx.worker.log_out(at);
    reset_client(ctx.client());

    ctx.reply.resp = Resp::V2;
    ctx.reply.simple("RESET");
    Ok(())
}

/// What the client library said of itself stays true, and as in Redis 7.0, NO-EVICT stays; all else is forgotten.
fn reset_client(client: &mut Client) {
    client.db = 0;
    client.resp = Resp::V2;
    client.name = Vec::new();
    client.reply_mode = ReplyMode::On;
    client.no_touch = false;
}

const SELECT: Command = session("select", 2, &(select as SessionHandler))
    .flags(flag::LOADING | flag::STALE | flag::FAST)
    .acl(acl::CONNECTION)
    .selects(selected)
    .constant_time()
    .docs(
        Docs::new("connection", "1.0.0", "Chooses the database that the connection works on")
            .complexity("O(1)")
            .arguments("index:int"),
    );

fn selected(args: Argv<'_>, db_count: usize) -> CommandResult<u32> {
    args::database(args.arg(1), db_count)
}

/// SELECT index. Reply: OK. Errors: not an integer of 32 bits; no such database. O(1).
fn select(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let db = selected(ctx.args, ctx.worker.shard.config.databases as usize)?;

    ctx.client().db = db;

    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    #[test]
    fn hello_takes_its_options_in_any_order_and_case_up_to_one_that_is_none() {
        let args =
            OwnedArgv::from_slices(&["hello", "3", "setname", "auth", "Auth", "default", "pw", "AUTH", "x"]);
        let mut options = hello_options(args.as_argv());
        assert_eq!(options.next(), Some(Ok(HelloOption::SetName { at: 2 })));
        assert_eq!(options.next(), Some(Ok(HelloOption::Auth { at: 4 })));
        assert!(options.next().is_some_and(|option| option.is_err()));
        assert_eq!(options.next(), None);
        assert_eq!(hello_secrets(args.as_argv())[..], [5, 6]);
    }

    #[test]
    fn reset_forgets_the_session_but_not_the_library() {
        let mut client = Client::new(7, 0, true);
        client.db = 3;
        client.resp = Resp::V3;
        client.name = b"me".to_vec();
        client.lib_name = b"lib".to_vec();
        client.reply_mode = ReplyMode::Off;

        reset_client(&mut client);

        assert_eq!((client.db, client.resp), (0, Resp::V2));
        assert_eq!((client.name.len(), client.lib_name.as_slice()), (0, &b"lib"[..]));
        assert!(client.reply_mode == ReplyMode::On);
    }
}
