//! PUBLISH, SPUBLISH and PUBSUB: what does not concern the subscriptions of the calling connection. A message goes to the
//! shards that have subscribers by way of the shard's [`Publisher`](crate::pubsub::Publisher).

use super::help::reply_help;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::pubsub::Kind;

pub const COMMANDS: &[Command] = &[PUBLISH, PUBSUB, SPUBLISH];

const PUBLISHES: u64 = flag::PUBSUB | flag::LOADING | flag::STALE | flag::FAST | flag::MAY_REPLICATE;

const PUBLISH: Command = Command::keys("publish", 3, publish).flags(PUBLISHES).docs(
    Docs::new("pubsub", "2.0.0", "Sends a message to a channel")
        .complexity(
            "O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number of \
             subscribed patterns (by any client).",
        )
        .arguments("channel message"),
);

/// PUBLISH channel message. Reply: integer, how many clients get the message; one that has also subscribed to patterns
/// counts for each of them that matches. O(subscribers + patterns).
fn publish(ctx: &mut Ctx<'_>) -> CommandResult {
    publish_to(ctx, Kind::Channel)
}

const SPUBLISH: Command =
    Command::keys("spublish", 3, spublish).flags(PUBLISHES).at(&[KeySpec::one(1, key_flag::NOT_KEY)]).docs(
        Docs::new("pubsub", "7.0.0", "Sends a message to a shard channel")
            .complexity("O(N) where N is the number of clients subscribed to the receiving shard channel.")
            .arguments("shardchannel message"),
    );

/// SPUBLISH shardchannel message. Reply: integer, how many clients get the message. O(subscribers).
fn spublish(ctx: &mut Ctx<'_>) -> CommandResult {
    publish_to(ctx, Kind::ShardChannel)
}

fn publish_to(ctx: &mut Ctx<'_>, kind: Kind) -> CommandResult {
    let count = ctx.shard.publish_message(kind, ctx.args.arg(1), ctx.args.arg(2));

    // A replica has subscribers of its own. To a file it means nothing.
    ctx.shard.effects.force_for_replicas();
    ctx.reply.integer(count as i64);
    Ok(())
}

const PUBSUB: Command =
    Command::container("pubsub", &[CHANNELS, HELP, NUMPAT, NUMSUB, SHARDCHANNELS, SHARDNUMSUB]).docs(
        Docs::new("pubsub", "2.8.0", "A container for commands about channels and their subscribers")
            .complexity("Depends on subcommand."),
    );

const ASKS: u64 = flag::PUBSUB | flag::LOADING | flag::STALE;

const CHANNELS: Command = Command::keys("channels", -2, channels).flags(ASKS).docs(
    Docs::new("pubsub", "2.8.0", "Lists the channels that have subscribers")
        .complexity(
            "O(N) where N is the number of active channels, and assuming constant time pattern matching (relatively \
             short channels and patterns)",
        )
        .arguments("[pattern:pattern]"),
);

/// PUBSUB CHANNELS [pattern]. Reply: array of the channels with subscribers, those of patterns aside. O(channels).
fn channels(ctx: &mut Ctx<'_>) -> CommandResult {
    list_names(ctx, Kind::Channel)
}

const SHARDCHANNELS: Command = Command::keys("shardchannels", -2, shardchannels).flags(ASKS).docs(
    Docs::new("pubsub", "7.0.0", "Lists the shard channels that have subscribers")
        .complexity(
            "O(N) where N is the number of active shard channels, and assuming constant time pattern matching \
             (relatively short shard channels).",
        )
        .arguments("[pattern:pattern]"),
);

/// PUBSUB SHARDCHANNELS [pattern]. Reply: array of the shard channels with subscribers. O(shard channels).
fn shardchannels(ctx: &mut Ctx<'_>) -> CommandResult {
    list_names(ctx, Kind::ShardChannel)
}

fn list_names(ctx: &mut Ctx<'_>, kind: Kind) -> CommandResult {
    if ctx.args.len() > 3 {
        return Err(CommandError::wrong_subcommand("PUBSUB", ctx.args.arg(1)));
    }
    let names = ctx.shard.publisher.directory().names(kind, ctx.args.get(2));

    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Ok(())
}

const NUMPAT: Command = Command::keys("numpat", 2, numpat)
    .flags(ASKS)
    .constant_time()
    .docs(Docs::new("pubsub", "2.8.0", "Counts the patterns that have subscribers").complexity("O(1)"));

/// PUBSUB NUMPAT. Reply: integer, how many different patterns clients have subscribed to. O(1).
fn numpat(ctx: &mut Ctx<'_>) -> CommandResult {
    ctx.reply.integer(ctx.shard.publisher.directory().name_count(Kind::Pattern) as i64);
    Ok(())
}

const NUMSUB: Command = Command::keys("numsub", -2, numsub).flags(ASKS).docs(
    Docs::new("pubsub", "2.8.0", "Counts the subscribers of channels")
        .complexity("O(N) for the NUMSUB subcommand, where N is the number of requested channels")
        .arguments("[channel...]"),
);

/// PUBSUB NUMSUB [channel ...]. Reply: array of each channel and the number of its subscribers, those of patterns aside.
/// O(channels).
fn numsub(ctx: &mut Ctx<'_>) -> CommandResult {
    count_subscribers(ctx, Kind::Channel)
}

const SHARDNUMSUB: Command = Command::keys("shardnumsub", -2, shardnumsub).flags(ASKS).docs(
    Docs::new("pubsub", "7.0.0", "Counts the subscribers of shard channels")
        .complexity("O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard channels")
        .arguments("[shardchannel...]"),
);

/// PUBSUB SHARDNUMSUB [shardchannel ...]. Reply: array of each shard channel and the number of its subscribers. O(channels).
fn shardnumsub(ctx: &mut Ctx<'_>) -> CommandResult {
    count_subscribers(ctx, Kind::ShardChannel)
}

fn count_subscribers(ctx: &mut Ctx<'_>, kind: Kind) -> CommandResult {
    let names = ctx.args.slice(2..);
    let directory = ctx.shard.publisher.directory();

    ctx.reply.array(names.len() * 2);
    for name in names.iter() {
        ctx.reply.bulk(name);
        ctx.reply.integer(directory.subscriber_count(kind, name) as i64);
    }
    Ok(())
}

const HELP: Command = Command::keys("help", 2, help)
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("pubsub", "6.2.0", "Explains the subcommands").complexity("O(1)"));

/// PUBSUB HELP. Reply: array of lines. O(1).
fn help(ctx: &mut Ctx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    List the channels that have subscribers and match <pattern> (default: '*').",
            "NUMPAT",
            "    Count the patterns that have subscribers.",
            "NUMSUB [<channel> ...]",
            "    Count the subscribers of each channel, those of patterns aside.",
            "SHARDCHANNELS [<pattern>]",
            "    List the shard channels that have subscribers and match <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Count the subscribers of each shard channel.",
        ],
    );
    Ok(())
}
