//! CLIENT TRACKING and its kin: client-side caching, which is described in [`shard::tracking`](crate::shard::tracking).

use super::ANYONE;
use crate::client::{Tracking, TrackingMode};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::Argv;
use crate::protocol::number::parse_i64;
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};

pub(super) const TRACKING: Command = session("tracking", -3, &(tracking as SessionHandler))
    .flags(ANYONE | flag::CHANGES_TRACKING)
    .acl(acl::CONNECTION)
    .docs(
        Docs::new("connection", "6.0.0", "Has the connection told of changes of keys that it has read")
            .complexity("O(1). Some options may introduce additional complexity.")
            .arguments(
                "status(ON | OFF) [REDIRECT client-id:int] [PREFIX prefix...+] [BCAST'BCAST'] [OPTIN'OPTIN'] \
                 [OPTOUT'OPTOUT'] [NOLOOP'NOLOOP']",
            ),
    );

/// What CLIENT TRACKING asks for.
#[derive(Default)]
struct Options<'a> {
    /// The client that is to be told; 0: the caller.
    redirect: i64,
    is_broadcast: bool,
    opts_in: bool,
    opts_out: bool,
    noloop: bool,
    prefixes: Vec<&'a [u8]>,
}

/// CLIENT TRACKING ON|OFF [REDIRECT client-id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]. Reply: OK. Errors: no such
/// client; options that exclude each other, or what is on already; prefixes that overlap; the caller is a module. O(prefixes).
fn tracking(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (options, redirect_home) = parse(ctx)?;
    let is_on = match ctx.arg(2) {
        word if args::is(word, "on") => true,
        word if args::is(word, "off") => false,
        _ => return Err(CommandError::SYNTAX),
    };
    let Some(at) = ctx.conn else {
        return Err(CommandError::fixed("ERR TRACKING isn't allowed for a client without a connection"));
    };
    if is_on {
        let mode = check(&options, ctx.client().tracking.as_deref())?;
        let redirect = options.redirect as u64;
        let noloop = options.noloop;
        ctx.worker
            .begin_tracking(at, Tracking { redirect, redirect_home, mode, noloop, ..Tracking::default() });
        if mode == TrackingMode::Broadcast {
            let prefixes = if options.prefixes.is_empty() { &[&b""[..]][..] } else { &options.prefixes };
            ctx.worker.track_prefixes(at, prefixes);
        }
    } else {
        ctx.worker.end_tracking(at);
    }

    ctx.reply.ok();
    Ok(())
}

/// The options, and the shard of the client that they redirect to.
fn parse<'a>(ctx: &SessionCtx<'a>) -> CommandResult<(Options<'a>, u16)> {
    let args: Argv<'a> = ctx.args;
    let mut options = Options::default();
    let mut redirect_home = 0;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        if args::is(word, "redirect")
            && let Some(id) = value
        {
            if options.redirect != 0 {
                return Err(CommandError::fixed("ERR A client can only redirect to a single other client"));
            }
            options.redirect = parse_i64(id).ok_or(CommandError::NOT_INTEGER)?;
            let home = u64::try_from(options.redirect).ok().and_then(|id| ctx.worker.home_of(id));
            redirect_home =
                home.ok_or(CommandError::fixed("ERR The client ID you want redirect to does not exist"))?;
            at += 1;
        } else if args::is(word, "prefix")
            && let Some(prefix) = value
        {
            options.prefixes.push(prefix);
            at += 1;
        } else if args::is(word, "bcast") {
            options.is_broadcast = true;
        } else if args::is(word, "optin") {
            options.opts_in = true;
        } else if args::is(word, "optout") {
            options.opts_out = true;
        } else if args::is(word, "noloop") {
            options.noloop = true;
        } else {
            return Err(CommandError::SYNTAX);
        }
        at += 1;
    }
    Ok((options, redirect_home))
}

/// The mode that the options ask for, if they fit each other and what is on already.
fn check(options: &Options<'_>, present: Option<&Tracking>) -> CommandResult<TrackingMode> {
    let Options { is_broadcast, opts_in, opts_out, .. } = *options;
    let present_mode = present.map(|tracking| tracking.mode);
    if !is_broadcast && !options.prefixes.is_empty() {
        return Err(CommandError::fixed("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if present_mode.is_some_and(|mode| (mode == TrackingMode::Broadcast) != is_broadcast) {
        return Err(CommandError::fixed(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    if is_broadcast && (opts_in || opts_out) {
        return Err(CommandError::fixed("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if opts_in && opts_out {
        return Err(CommandError::fixed("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if opts_in && present_mode == Some(TrackingMode::OptOut)
        || opts_out && present_mode == Some(TrackingMode::OptIn)
    {
        return Err(CommandError::fixed(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    if is_broadcast {
        check_prefixes(&options.prefixes, present)?;
    }
    Ok(match options {
        Options { is_broadcast: true, .. } => TrackingMode::Broadcast,
        Options { opts_in: true, .. } => TrackingMode::OptIn,
        Options { opts_out: true, .. } => TrackingMode::OptOut,
        _ => TrackingMode::Read,
    })
}

/// No prefix of a client may begin another one of it, or be the same.
fn check_prefixes(prefixes: &[&[u8]], present: Option<&Tracking>) -> CommandResult {
    let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
    let error = |one: &[u8], which: &str, other: &[u8]| {
        let text = ["ERR Prefix '", which, "'. Prefixes for a single client must not overlap."];
        Err(CommandError::quoting_two(text, [one, other]))
    };
    for (n, &prefix) in prefixes.iter().enumerate() {
        let mut known = present.into_iter().flat_map(|tracking| &tracking.prefixes);
        if let Some(known) = known.find(|known| overlap(known, prefix)) {
            return error(prefix, "' overlaps with an existing prefix '", known);
        }
        if let Some(later) = prefixes[n + 1..].iter().find(|later| overlap(prefix, later)) {
            return error(prefix, "' overlaps with another provided prefix '", later);
        }
    }
    Ok(())
}

pub(super) const CACHING: Command = session("caching", 3, &(caching as SessionHandler))
    .flags(ANYONE | flag::CHANGES_TRACKING)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "6.0.0", "Says whether the connection's next command is tracked")
            .complexity("O(1)")
            .arguments("mode(YES | NO)"),
    );

/// CLIENT CACHING YES|NO. Reply: OK. Errors: the connection does not track, or not with OPTIN or OPTOUT, whichever it is that
/// the answer makes sense for. O(1).
fn caching(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (word, in_exec) = (ctx.arg(2), ctx.call.in_exec);
    let client = ctx.client();
    let Some(tracking) = client.tracking.as_deref() else {
        return Err(CommandError::fixed(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    match tracking.mode {
        TrackingMode::OptIn if args::is(word, "yes") => {}
        TrackingMode::OptOut if args::is(word, "no") => {}
        _ if args::is(word, "yes") => {
            return Err(CommandError::fixed(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        _ if args::is(word, "no") => {
            return Err(CommandError::fixed(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        _ => return Err(CommandError::SYNTAX),
    }
    // In an EXEC it is over with that, whose commands were queued accordingly: see `CommandQueue::changes_tracking`.
    client.set_caching_given(!in_exec);

    ctx.reply.ok();
    Ok(())
}

pub(super) const GETREDIR: Command = session("getredir", 2, &(getredir as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "6.0.0", "Answers to which client invalidation messages go, if to any")
            .complexity("O(1)"),
    );

/// CLIENT GETREDIR. Reply: integer, the client that is told; 0: the connection itself; -1: it tracks no keys. O(1).
fn getredir(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let redirect = redirect(ctx);
    ctx.reply.integer(redirect);
    Ok(())
}

fn redirect(ctx: &mut SessionCtx<'_>) -> i64 {
    ctx.client().tracking.as_deref().map_or(-1, |tracking| tracking.redirect as i64)
}

pub(super) const TRACKINGINFO: Command = session("trackinginfo", 2, &(trackinginfo as SessionHandler))
    .flags(ANYONE)
    .acl(acl::CONNECTION)
    .constant_time()
    .docs(
        Docs::new("connection", "6.2.0", "Answers what the connection is told of changed keys")
            .complexity("O(1)"),
    );

/// CLIENT TRACKINGINFO. Reply: map of `flags`, a set of words; `redirect`, as CLIENT GETREDIR; `prefixes`, an array.
/// O(prefixes).
fn trackinginfo(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let redirect = redirect(ctx);
    let client = ctx.client();
    let caching_given = client.caching_given();
    let tracking = client.tracking.as_deref().cloned();
    let mut flags = vec![if tracking.is_some() { "on" } else { "off" }];
    let mode = tracking.as_ref().map(|tracking| tracking.mode);
    flags.extend(match mode {
        Some(TrackingMode::Broadcast) => Some("bcast"),
        Some(TrackingMode::OptIn) => Some("optin"),
        Some(TrackingMode::OptOut) => Some("optout"),
        Some(TrackingMode::Read) | None => None,
    });
    flags.extend(match mode.filter(|_| caching_given) {
        Some(TrackingMode::OptIn) => Some("caching-yes"),
        Some(TrackingMode::OptOut) => Some("caching-no"),
        Some(TrackingMode::Read | TrackingMode::Broadcast) | None => None,
    });
    let tracking = tracking.unwrap_or_default();
    flags.extend(tracking.noloop.then_some("noloop"));
    flags.extend(tracking.is_broken.then_some("broken_redirect"));

    let reply = &mut ctx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect);
    reply.bulk(b"prefixes");
    reply.array(tracking.prefixes.len());
    tracking.prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}
