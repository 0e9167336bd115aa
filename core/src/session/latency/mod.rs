//! LATENCY: what has taken long lately, on any shard, and how long commands take.
//!
//! The samples are those of the [monitor](crate::worker::latency) that all shards share; the histograms are sums over the
//! shards' counters.

mod doctor;
mod sparkline;

use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, CommandEntry, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::Reply;
use crate::session::session;
use crate::shard::latency::LatencyCounts;
use crate::worker::latency::Sample;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[LATENCY];

const LATENCY: Command =
    Command::container("latency", &[DOCTOR, GRAPH, HELP, HISTOGRAM, HISTORY, LATEST, RESET]).docs(
        Docs::new("server", "2.8.13", "A container for commands about latency")
            .complexity("Depends on subcommand."),
    );

const READER: u64 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

const REPORT_TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

const DOCTOR: Command = session("doctor", 2, &(doctor as SessionHandler)).flags(READER).constant_time().docs(
    Docs::new("server", "2.8.13", "Says what was slow, and what may help")
        .complexity("O(1)")
        .tips(REPORT_TIPS),
);

/// LATENCY DOCTOR. Reply: text for people. O(1).
fn doctor(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let events = ctx.worker.globals.latency.all();
    let now_s = ctx.worker.clock().wall_ms() / 1000;
    let report = doctor::report(&events, &ctx.worker.shard.config, now_s);
    ctx.reply.verbatim("txt", &report);
    Ok(())
}

const GRAPH: Command = session("graph", 3, &(graph as SessionHandler)).flags(READER).constant_time().docs(
    Docs::new("server", "2.8.13", "Draws the samples of an event")
        .complexity("O(1)")
        .arguments("event")
        .tips(REPORT_TIPS),
);

/// LATENCY GRAPH event. Reply: text. Errors: there are no samples. O(1).
fn graph(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let event = ctx.arg(2);
    let Some(series) = ctx.worker.globals.latency.series(event) else {
        return Err(CommandError::quoting("ERR No samples available for event '", event, "'"));
    };

    let now_s = ctx.worker.clock().wall_ms() / 1000;
    ctx.reply.verbatim("txt", &sparkline::graph(event, &series, now_s));
    Ok(())
}

const HISTORY: Command =
    session("history", 3, &(history as SessionHandler)).flags(READER).constant_time().docs(
        Docs::new("server", "2.8.13", "Shows the samples of an event")
            .complexity("O(1)")
            .arguments("event")
            .tips(REPORT_TIPS),
    );

/// LATENCY HISTORY event. Reply: array of unix times and milliseconds, the oldest first. O(1).
fn history(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let series = ctx.worker.globals.latency.series(ctx.arg(2)).unwrap_or_default();

    ctx.reply.array(series.samples.len());
    for &Sample { at_s, latency_ms } in &series.samples {
        ctx.reply.array(2);
        ctx.reply.integer(at_s);
        ctx.reply.integer(latency_ms as i64);
    }
    Ok(())
}

const LATEST: Command = session("latest", 2, &(latest as SessionHandler)).flags(READER).constant_time().docs(
    Docs::new("server", "2.8.13", "Shows the last sample of each event").complexity("O(1)").tips(REPORT_TIPS),
);

/// LATENCY LATEST. Reply: array of events: name, unix time and milliseconds of the last sample, and the most milliseconds
/// ever. O(events).
fn latest(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let events = ctx.worker.globals.latency.all();

    ctx.reply.array(events.len());
    for (event, series) in &events {
        let last = series.samples.back().expect("a series begins with a sample");
        ctx.reply.array(4);
        ctx.reply.bulk(event);
        ctx.reply.integer(last.at_s);
        ctx.reply.integer(last.latency_ms as i64);
        ctx.reply.integer(series.latency_max_ms as i64);
    }
    Ok(())
}

const RESET: Command = session("reset", -2, &(reset as SessionHandler)).flags(READER).constant_time().docs(
    Docs::new("server", "2.8.13", "Forgets the samples of events, or of all")
        .complexity("O(1)")
        .arguments("[event...]")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
);

/// LATENCY RESET [event ...]. Reply: integer, how many events had samples. O(events).
fn reset(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let args = ctx.args;
    let is_named =
        |event: &[u8]| args.len() == 2 || args.iter().skip(2).any(|name| name.eq_ignore_ascii_case(event));
    let count = ctx.worker.globals.latency.reset(is_named);
    ctx.reply.integer(count as i64);
    Ok(())
}

const HISTOGRAM: Command = session("histogram", -2, &(histogram as SessionHandler)).flags(READER).docs(
    Docs::new("server", "7.0.0", "Tells how many calls of commands took how long")
        .complexity("O(N) where N is the number of commands with latency information being retrieved.")
        .arguments("[COMMAND...]")
        .tips(REPORT_TIPS),
);

/// LATENCY HISTOGRAM [command ...]. Reply: map of commands that have run: how many calls there were, and how many took no
/// longer than some microseconds; of a container, its subcommands. Unknown names are passed over. O(commands x shards).
fn histogram(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (table, globals) = (ctx.worker.table, ctx.worker.globals);
    let names = ctx.args.iter().skip(2);
    let asked: Vec<&CommandEntry> = match ctx.args.len() {
        2 => table.all().collect(),
        _ => names.flat_map(|name| named(table.all(), name)).collect(),
    };
    let shown: Vec<(&CommandEntry, LatencyCounts)> =
        asked.into_iter().filter_map(|entry| Some((entry, globals.latency_counts(entry.id)?))).collect();

    ctx.reply.map(shown.len());
    for (entry, counts) in &shown {
        ctx.reply.bulk(entry.full_name.as_bytes());
        write_counts(&mut ctx.reply, counts);
    }
    Ok(())
}

/// The command of that name, and its subcommands.
fn named<'a>(
    all: impl Iterator<Item = &'a CommandEntry>,
    name: &[u8],
) -> impl Iterator<Item = &'a CommandEntry> {
    let name = name.to_ascii_lowercase();
    all.filter(move |entry| match entry.full_name.as_bytes().strip_prefix(&name[..]) {
        Some(rest) => rest.is_empty() || rest[0] == b'|',
        None => false,
    })
}

fn write_counts(reply: &mut Reply<'_>, counts: &LatencyCounts) {
    let distribution = counts.distribution();
    reply.map(2);
    reply.bulk(b"calls");
    reply.integer(counts.total() as i64);
    reply.bulk(b"histogram_usec");
    reply.map(distribution.len());
    for (micros, calls) in distribution {
        reply.integer(micros as i64);
        reply.integer(calls as i64);
    }
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "2.8.13", "Explains the subcommands").complexity("O(1)"));

/// LATENCY HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "LATENCY",
        &[
            "DOCTOR",
            "    Say what was slow, and what may help.",
            "GRAPH <event>",
            "    Draw the samples of <event>.",
            "HISTORY <event>",
            "    Show the samples of <event>: unix time, milliseconds.",
            "LATEST",
            "    Show the last sample of each event: name, unix time, milliseconds, most milliseconds.",
            "RESET [<event> ...]",
            "    Forget the samples of each <event> (default: of all).",
            "HISTOGRAM [<command> ...]",
            "    Tell how many calls of each <command> (default: of all) took how long.",
        ],
    );
    Ok(())
}
