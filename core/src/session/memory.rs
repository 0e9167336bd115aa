//! MEMORY: what a key costs, what the server takes, and what the allocator makes of it.

use super::info::MemoryFigures;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, Scope, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::number::parse_i64;
use crate::runtime::allocator;
use crate::session::session;
use crate::types::module::KeyPlace;
use crate::types::{Object, ValueRef};
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[MEMORY];

const MEMORY: Command = Command::container("memory", &[DOCTOR, HELP, MALLOC_STATS, PURGE, STATS, USAGE])
    .docs(
        Docs::new("server", "4.0.0", "A container for memory diagnostics commands")
            .complexity("Depends on subcommand."),
    );

const REPORT_TIPS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

const USAGE: Command =
    Command::keys("usage", -3, usage).flags(flag::READONLY).at(&[KeySpec::one(2, key_flag::RO)]).docs(
        Docs::new("server", "4.0.0", "Tells what memory a key and its value take")
            .complexity("O(N) where N is the number of samples.")
            .arguments("key#0 [SAMPLES count:int]"),
    );

/// A key's share of the index: a slot of 8 bytes in a segment that is two thirds full, as it is on average.
const INDEX_SHARE_BYTES: usize = 12;

/// How many elements of a module's value are looked at unless a number is given.
const SAMPLES_DEFAULT: usize = 5;

/// MEMORY USAGE key [SAMPLES count]. Reply: integer, bytes; null if there is no such key. Only modules sample.
/// Errors: a bad option or count. O(1), and what a module does.
fn usage(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut samples = SAMPLES_DEFAULT;
    let mut at = 3;
    while at < ctx.args.len() {
        let count = ctx.args.get(at + 1).filter(|_| args::is(ctx.arg(at), "samples"));
        let count = parse_i64(count.ok_or(CommandError::SYNTAX)?).ok_or(CommandError::NOT_INTEGER)?;
        samples = usize::try_from(count).map_err(|_| CommandError::SYNTAX)?;
        at += 2;
    }
    let (db, key) = (ctx.call.db, ctx.key(2));

    let bytes = ctx.shard.lookup_stored(db, key).map(|entry| {
        let of_module = match entry.value() {
            ValueRef::Object(Object::Module(value)) => {
                value.memory_usage(KeyPlace::of(db, key.bytes), samples)
            }
            ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => 0,
        };
        entry.alloc_size() + of_module + INDEX_SHARE_BYTES
    });

    match bytes {
        Some(bytes) => ctx.reply.integer(bytes as i64),
        None => ctx.reply.null(),
    }
    Ok(())
}

const STATS: Command =
    session("stats", 2, &(stats as SessionHandler)).scope(Scope::Session).constant_time().docs(
        Docs::new("server", "4.0.0", "Tells in detail what the server's memory is used for")
            .complexity("O(1)")
            .tips(REPORT_TIPS),
    );

/// MEMORY STATS. Reply: map of figures, bytes and ratios. O(databases).
fn stats(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.publish();
    let figures = MemoryFigures::take(ctx.worker.globals);
    let globals = ctx.worker.globals;
    let dbs: Vec<(usize, u64)> = (0..ctx.worker.shard.db_count())
        .map(|db| (db, globals.sum(|shard| shard.dbs[db].keys.get())))
        .filter(|&(_, keys)| keys > 0)
        .collect();
    let keys: u64 = dbs.iter().map(|&(_, keys)| keys).sum();

    let reply = &mut ctx.reply;
    let mark = reply.begin();
    let mut len = 0;
    let mut bytes = |reply: &mut crate::protocol::Reply<'_>, name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
        len += 1;
    };
    bytes(reply, "peak.allocated", figures.peak as i64);
    bytes(reply, "total.allocated", figures.used as i64);
    bytes(reply, "startup.allocated", figures.startup as i64);
    bytes(reply, "replication.backlog", figures.replication_backlog as i64);
    bytes(reply, "clients.slaves", figures.clients_slaves as i64);
    bytes(reply, "clients.normal", figures.clients as i64);
    bytes(reply, "cluster.links", 0);
    bytes(reply, "aof.buffer", figures.aof_buffer as i64);
    bytes(reply, "lua.caches", figures.scripts as i64);
    bytes(reply, "functions.caches", figures.functions as i64);
    let mut pair_count = len;
    // The index belongs to the shards, not to single databases; it is shown with each by its share of the keys.
    for &(db, db_keys) in &dbs {
        reply.bulk(format!("db.{db}").as_bytes());
        reply.map(3);
        for (name, value) in [
            ("overhead.hashtable.main", figures.indexes * db_keys / keys),
            ("overhead.hashtable.expires", 0),
            ("overhead.hashtable.slot-to-keys", 0),
        ] {
            reply.bulk(name.as_bytes());
            reply.integer(value as i64);
        }
        pair_count += 1;
    }
    let rest: [(&str, Figure); 17] = [
        ("overhead.total", Figure::Bytes(figures.overhead() as i64)),
        ("keys.count", Figure::Bytes(keys as i64)),
        ("keys.bytes-per-key", Figure::Bytes(figures.net().checked_div(keys).unwrap_or(0) as i64)),
        ("dataset.bytes", Figure::Bytes(figures.dataset() as i64)),
        ("dataset.percentage", Figure::Ratio(figures.dataset_percent())),
        ("peak.percentage", Figure::Ratio(figures.peak_percent())),
        ("allocator.allocated", Figure::Bytes(figures.allocator.allocated as i64)),
        ("allocator.active", Figure::Bytes(figures.allocator.active as i64)),
        ("allocator.resident", Figure::Bytes(figures.allocator.resident as i64)),
        ("allocator-fragmentation.ratio", Figure::Ratio(figures.frag_ratio())),
        ("allocator-fragmentation.bytes", Figure::Bytes(figures.frag_bytes())),
        ("allocator-rss.ratio", Figure::Ratio(figures.allocator_rss_ratio())),
        ("allocator-rss.bytes", Figure::Bytes(figures.allocator_rss_bytes())),
        ("rss-overhead.ratio", Figure::Ratio(figures.rss_overhead_ratio())),
        ("rss-overhead.bytes", Figure::Bytes(figures.rss_overhead_bytes())),
        ("fragmentation", Figure::Ratio(figures.total_ratio())),
        ("fragmentation.bytes", Figure::Bytes(figures.total_bytes())),
    ];
    for (name, figure) in rest {
        reply.bulk(name.as_bytes());
        match figure {
            Figure::Bytes(value) => reply.integer(value),
            Figure::Ratio(value) => reply.double(value),
        }
        pair_count += 1;
    }
    reply.end_map(mark, pair_count);
    Ok(())
}

enum Figure {
    Bytes(i64),
    Ratio(f64),
}

const DOCTOR: Command = session("doctor", 2, &(doctor as SessionHandler)).constant_time().docs(
    Docs::new("server", "4.0.0", "Says what looks wrong with the server's memory")
        .complexity("O(1)")
        .tips(REPORT_TIPS),
);

/// MEMORY DOCTOR. Reply: text for people. O(1).
fn doctor(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.publish();
    let globals = ctx.worker.globals;
    let replicas = globals.stream.replica_count() as u64;
    let counts = Counts {
        clients: globals.sum(|shard| shard.clients.get()).saturating_sub(replicas),
        replicas,
        scripts: globals.scripts.scripts.len() as u64,
    };
    let figures = MemoryFigures::take(globals);
    ctx.reply.verbatim("txt", diagnosis(&figures, &counts).as_bytes());
    Ok(())
}

/// Below this the fixed costs of a process are all there is to see.
const DIAGNOSIS_BYTES_MIN: u64 = 5 << 20;
/// Differences below this are no trouble, whatever the ratio.
const WASTE_BYTES_MIN: i64 = 10 << 20;
/// So much is usual: of the buffers for replicas, and of those of a client on average; and so many cached scripts.
const REPLICA_BUFFERS_MAX: u64 = 10 << 20;
const CLIENT_BYTES_MAX: u64 = 200 << 10;
const SCRIPTS_MAX: u64 = 1000;

/// How many there are.
struct Counts {
    /// Without replicas.
    clients: u64,
    replicas: u64,
    scripts: u64,
}

fn diagnosis(figures: &MemoryFigures, counts: &Counts) -> String {
    if figures.used < DIAGNOSIS_BYTES_MIN {
        return "There is too little data in this server for a diagnosis: the fixed costs of the process outweigh it.\n"
            .to_string();
    }
    let mut findings = Vec::new();
    if figures.peak as f64 / figures.used as f64 > 1.5 {
        findings.push(
            "Peak: the server once used more than 150% of the memory it uses now, and the allocator may not have given \
             all of the rest back. If this goes on, MEMORY PURGE asks it to.",
        );
    }
    if figures.total_ratio() > 1.4 && figures.total_bytes() > WASTE_BYTES_MIN {
        findings.push(
            "Fragmentation: the process has more than 140% of the memory in use. This is normal for some time after \
             many keys have been deleted.",
        );
    }
    if figures.frag_ratio() > 1.1 && figures.frag_bytes() > WASTE_BYTES_MIN {
        findings.push(
            "Allocator: more than 10% of the memory lies unused between values, as their sizes have changed.",
        );
    }
    if figures.allocator_rss_ratio() > 1.1 && figures.allocator_rss_bytes() > WASTE_BYTES_MIN {
        findings.push("Allocator: it keeps pages that hold nothing. MEMORY PURGE asks it to give them back.");
    }
    if figures.rss_overhead_ratio() > 1.1 && figures.rss_overhead_bytes() > WASTE_BYTES_MIN {
        findings.push("Process: more than 10% of its memory is not the allocator's.");
    }
    if counts.replicas > 0 && figures.clients_slaves > REPLICA_BUFFERS_MAX {
        findings.push(
            "Replicas: more than 10 MB wait to be sent to replicas, so one of them may be too slow, or its network. INFO \
             shows how far each is behind, and CLIENT LIST its output.",
        );
    }
    if figures.clients.checked_div(counts.clients).is_some_and(|bytes| bytes > CLIENT_BYTES_MAX) {
        findings.push(
            "Clients: their buffers take more than 200 KB a client on average. They may read more slowly than they are sent \
             messages or replies, or send very long pipelines. CLIENT LIST shows which.",
        );
    }
    if counts.scripts > SCRIPTS_MAX {
        findings.push(
            "Scripts: more than 1000 are cached. They may be generated instead of taking what differs as KEYS and ARGV. \
             SCRIPT FLUSH removes them.",
        );
    }
    if findings.is_empty() {
        return "No trouble with memory was found.\n".to_string();
    }
    findings.iter().map(|finding| format!(" * {finding}\n")).collect()
}

const PURGE: Command = session("purge", 2, &(purge as SessionHandler)).docs(
    Docs::new("server", "4.0.0", "Asks the allocator to give unused memory back")
        .complexity("Depends on how much memory is allocated, could be slow")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
);

/// MEMORY PURGE. Reply: OK.
fn purge(ctx: &mut SessionCtx<'_>) -> CommandResult {
    allocator::purge();
    ctx.reply.ok();
    Ok(())
}

const MALLOC_STATS: Command = session("malloc-stats", 2, &(malloc_stats as SessionHandler)).docs(
    Docs::new("server", "4.0.0", "Shows what the allocator says of itself")
        .complexity("Depends on how much memory is allocated, could be slow")
        .tips(REPORT_TIPS),
);

/// MEMORY MALLOC-STATS. Reply: jemalloc's text.
fn malloc_stats(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.reply.verbatim("txt", &allocator::allocator_report());
    Ok(())
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "4.0.0", "Explains the subcommands").complexity("O(1)"));

/// MEMORY HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "MEMORY",
        &[
            "DOCTOR",
            "    Say what looks wrong.",
            "MALLOC-STATS",
            "    Show the allocator's own report.",
            "PURGE",
            "    Ask the allocator to give unused memory back.",
            "STATS",
            "    Show what the memory is used for.",
            "USAGE <key> [SAMPLES <count>]",
            "    Tell the bytes that <key> and its value take. Of nested values, <count> are looked",
            "    at (default: 5; 0: all).",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::allocator::AllocatorStats;

    fn figures(used: u64, rss: u64) -> MemoryFigures {
        let allocator = AllocatorStats { allocated: used, active: used, resident: used };
        MemoryFigures {
            used,
            rss,
            peak: used,
            startup: 1 << 20,
            indexes: 0,
            clients: 0,
            replication_backlog: 0,
            clients_slaves: 0,
            aof_buffer: 0,
            scripts: 0,
            functions: 0,
            script_vms: 0,
            function_vms: 0,
            allocator,
        }
    }

    #[test]
    fn the_doctor_finds_what_is_wrong_and_nothing_else() {
        let counts = Counts { clients: 10, replicas: 2, scripts: 1000 };
        let diagnosis = |figures: &MemoryFigures| diagnosis(figures, &counts);
        assert!(diagnosis(&figures(1 << 20, 1 << 24)).starts_with("There is too little data"));
        assert_eq!(diagnosis(&figures(100 << 20, 101 << 20)), "No trouble with memory was found.\n");
        let fragmented = diagnosis(&figures(100 << 20, 200 << 20));
        assert!(fragmented.contains("Fragmentation:") && fragmented.contains("Process:"), "{fragmented}");
        assert!(!fragmented.contains("Peak:"), "{fragmented}");
    }

    #[test]
    fn the_doctor_looks_at_replicas_clients_and_scripts() {
        const LIMITS: (u64, u64, u64) = (10 << 20, 10 * (200 << 10), 1000);
        let found = |clients_slaves, clients, replicas, scripts| {
            let figures = MemoryFigures { clients_slaves, clients, ..figures(100 << 20, 101 << 20) };
            let told = diagnosis(&figures, &Counts { clients: 10, replicas, scripts });
            ["Replicas:", "Clients:", "Scripts:"].map(|name| told.contains(name))
        };
        let (buffers, clients, scripts) = LIMITS;
        assert_eq!(found(buffers, clients, 1, scripts), [false; 3]);
        assert_eq!(found(buffers + 1, clients, 1, scripts), [true, false, false]);
        assert_eq!(found(buffers + 1, clients, 0, scripts), [false; 3]);
        // The average is rounded down.
        assert_eq!(found(buffers, clients + 9, 1, scripts), [false; 3]);
        assert_eq!(found(buffers, clients + 10, 1, scripts), [false, true, false]);
        assert_eq!(found(buffers, clients, 1, scripts + 1), [false, false, true]);
        let nobody = Counts { clients: 0, replicas: 0, scripts: 0 };
        assert!(diagnosis(&figures(100 << 20, 101 << 20), &nobody).starts_with("No trouble"));
    }
}
