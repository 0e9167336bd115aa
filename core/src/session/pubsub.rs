//! SUBSCRIBE, UNSUBSCRIBE and their forms for patterns and shard channels: what a connection listens to. How a subscription
//! begins and ends is described in [`crate::pubsub`].

use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::{Reply, Resp};
use crate::pubsub::Kind;
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    PSUBSCRIBE, PUNSUBSCRIBE, SSUBSCRIBE, SUBSCRIBE, SUNSUBSCRIBE, UNSUBSCRIBE,
];

const LISTENS: u64 = flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::WHEN_SUBSCRIBED;

const SUBSCRIBE: Command = session("subscribe", -2, &(subscribe as SessionHandler)).flags(LISTENS).docs(
    Docs::new("pubsub", "2.0.0", "Listens to channels")
        .complexity("O(N) where N is the number of channels to subscribe to.")
        .arguments("channel..."),
);

/// SUBSCRIBE channel [channel ...]. Reply: for each channel a message of its own: `subscribe`, the channel, and how many
/// channels and patterns the client now listens to. Errors: the caller is a module. O(channels).
fn subscribe(ctx: &mut SessionCtx<'_>) -> CommandResult {
    begin(ctx, Kind::Channel, "subscribe")
}

const PSUBSCRIBE: Command = session("psubscribe", -2, &(psubscribe as SessionHandler)).flags(LISTENS).docs(
    Docs::new("pubsub", "2.0.0", "Listens to all channels that match patterns")
        .complexity("O(N) where N is the number of patterns the client is already subscribed to.")
        .arguments("pattern{pattern:pattern}..."),
);

/// PSUBSCRIBE pattern [pattern ...]. Reply: as for SUBSCRIBE. Errors: the caller is a module. O(patterns).
fn psubscribe(ctx: &mut SessionCtx<'_>) -> CommandResult {
    begin(ctx, Kind::Pattern, "psubscribe")
}

const SSUBSCRIBE: Command = session("ssubscribe", -2, &(ssubscribe as SessionHandler))
    .flags(LISTENS)
    .at(&[KeySpec::range(1, -1, 1, key_flag::NOT_KEY)])
    .docs(
        Docs::new("pubsub", "7.0.0", "Listens to shard channels")
            .complexity("O(N) where N is the number of shard channels to subscribe to.")
            .arguments("shardchannel..."),
    );

/// SSUBSCRIBE shardchannel [shardchannel ...]. Reply: as for SUBSCRIBE, with the number of shard channels alone. Errors: the
/// caller is a module, or an EXEC. O(channels).
fn ssubscribe(ctx: &mut SessionCtx<'_>) -> CommandResult {
    // Unlike the others, for which Redis makes an exception.
    if ctx.call.in_exec {
        return Err(denied("ssubscribe"));
    }
    begin(ctx, Kind::ShardChannel, "ssubscribe")
}

/// The caller has to get one reply.
fn denied(verb: &str) -> CommandError {
    let verb = verb.to_ascii_uppercase();
    CommandError::new(format!("ERR {verb} isn't allowed for a DENY BLOCKING client"))
}

const UNSUBSCRIBE: Command =
    session("unsubscribe", -1, &(unsubscribe as SessionHandler)).flags(LISTENS).docs(
        Docs::new("pubsub", "2.0.0", "Listens to channels no more")
            .complexity("O(N) where N is the number of clients already subscribed to a channel.")
            .arguments("[channel...]"),
    );

/// UNSUBSCRIBE [channel ...]. Without channels it means all that the client listens to. Reply: for each channel a message of
/// its own: `unsubscribe`, the channel, and how many channels and patterns are left; one with null for no channel. O(channels).
fn unsubscribe(ctx: &mut SessionCtx<'_>) -> CommandResult {
    end(ctx, Kind::Channel, "unsubscribe")
}

const PUNSUBSCRIBE: Command =
    session("punsubscribe", -1, &(punsubscribe as SessionHandler)).flags(LISTENS).docs(
        Docs::new("pubsub", "2.0.0", "Listens to what matches patterns no more")
            .complexity(
                "O(N+M) where N is the number of patterns the client is already subscribed and M is the number of \
                 total patterns subscribed in the system (by any client).",
            )
            .arguments("[pattern:pattern...]"),
    );

/// PUNSUBSCRIBE [pattern ...]. Reply: as for UNSUBSCRIBE. O(patterns).
fn punsubscribe(ctx: &mut SessionCtx<'_>) -> CommandResult {
    end(ctx, Kind::Pattern, "punsubscribe")
}

const SUNSUBSCRIBE: Command = session("sunsubscribe", -1, &(sunsubscribe as SessionHandler))
    .flags(LISTENS)
    .at(&[KeySpec::range(1, -1, 1, key_flag::NOT_KEY)])
    .docs(
        Docs::new("pubsub", "7.0.0", "Listens to shard channels no more")
            .complexity("O(N) where N is the number of clients already subscribed to a shard channel.")
            .arguments("[shardchannel...]"),
    );

/// SUNSUBSCRIBE [shardchannel ...]. Reply: as for UNSUBSCRIBE, with the number of shard channels alone. O(channels).
fn sunsubscribe(ctx: &mut SessionCtx<'_>) -> CommandResult {
    end(ctx, Kind::ShardChannel, "sunsubscribe")
}

/// Adds subscriptions to the names that are the command's arguments.
fn begin(ctx: &mut SessionCtx<'_>, kind: Kind, verb: &str) -> CommandResult {
    // A module's call has one reply, and a connection of its own only while it lasts.
    let Some(at) = ctx.conn else { return Err(denied(verb)) };
    let resp = ctx.client().resp;
    let position = ctx.worker.position_to_subscribe();

    let mut text = Vec::new();
    for name in ctx.args.slice(1..).iter() {
        ctx.worker.subscribe(at, kind, name, position);
        write_confirmation(&mut text, resp, verb, Some(name), subscription_count(ctx, kind));
    }

    ctx.worker.confirm(at, (position, Vec::new()), text, ctx.call.in_exec, &mut ctx.reply);
    Ok(())
}

/// Ends subscriptions to the names that are the command's arguments; without any, to all.
fn end(ctx: &mut SessionCtx<'_>, kind: Kind, verb: &str) -> CommandResult {
    let resp = ctx.client().resp;
    let Some(at) = ctx.conn else {
        // A module listens to nothing.
        write_confirmation(ctx.reply.out, resp, verb, ctx.args.get(1), 0);
        return Ok(());
    };
    let mut text = Vec::new();
    let mut ended = Vec::new();
    let mut end_one = |ctx: &mut SessionCtx<'_>, name: &[u8]| {
        ended.extend(ctx.worker.unsubscribe(at, kind, name));
        write_confirmation(&mut text, resp, verb, Some(name), subscription_count(ctx, kind));
    };
    if ctx.args.len() > 1 {
        ctx.args.slice(1..).iter().for_each(|name| end_one(ctx, name));
    } else {
        ctx.worker.subscribed_names(at, kind).iter().for_each(|name| end_one(ctx, name));
    }
    if text.is_empty() {
        write_confirmation(&mut text, resp, verb, None, subscription_count(ctx, kind));
    }

    // Read after the last change: what has counted the client comes before that position.
    let position = ctx.worker.position_to_subscribe();
    ctx.worker.confirm(at, (position, ended), text, ctx.call.in_exec, &mut ctx.reply);
    Ok(())
}

/// How many names the client listens to, as confirmations show it: channels and patterns together, shard channels apart.
fn subscription_count(ctx: &mut SessionCtx<'_>, kind: Kind) -> usize {
    let Some(all) = ctx.client().subscriptions.as_deref() else { return 0 };
    match kind {
        Kind::Channel | Kind::Pattern => all.count(Kind::Channel) + all.count(Kind::Pattern),
        Kind::ShardChannel | Kind::Commands | Kind::KeyPrefix => all.count(kind),
    }
}

fn write_confirmation(out: &mut Vec<u8>, resp: Resp, verb: &str, name: Option<&[u8]>, count: usize) {
    let mut push = Reply::new(out, resp);
    push.push(3);
    push.bulk(verb.as_bytes());
    match name {
        Some(name) => push.bulk(name),
        None => push.null(),
    }
    push.integer(count as i64);
}
