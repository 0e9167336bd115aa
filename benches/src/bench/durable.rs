//! What durability costs: SET with the append-only file on, and SET beside a background save.
//!
//! - `everysec`: CPU an operation at pipeline 16, all threads of the server included, less the floor's, to the best peer's. Two
//!   shards on two cores are held against one shard of ours that is driven from the same cores.
//! - `always`: operations a second of 50 connections without pipelining. What the disk takes for an fdatasync is measured beside
//!   it: the slower the disk, the less a server can gain by waiting for it more cleverly.
//! - `bgsave`: 50 connections write while a save of many keys, or of one big sorted set, goes on. Waits are taken from probes
//!   that ask the server how long their last request took by its own clock (DEBUG LONGEST-WAIT), so that they hold neither
//!   the network nor the generator; peers have no such clock, and show the generator's figures, as ours do, too. What a peer's
//!   child has copied counts as its memory.
//!
//! The files lie in the directory for temporary files, which has to be on a disk.

use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::shards::{our_contender, placements_on};
use crate::bench::{
    CommonArgs, Contender, Lane, RoundArgs, Rounds, Setup, at_least_one, interleaved, load_keys, settle,
};
use crate::error::{BenchError, Context, Result};
use crate::histogram::Histogram;
use crate::load::workload::{Collection, Op, Pool, Stored};
use crate::load::{Placement, Sample};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;
use crate::sys;

/// Own cost of one shard to the best peer's, at most.
const EVERYSEC_BAR: f64 = 0.35;
/// CPU an operation of two shards to one shard's, at most.
const TWO_SHARDS_BAR: f64 = 1.5;
const EVERYSEC_PIPELINE: usize = 16;

/// Operations a second to the best peer's, at least: on a disk whose fdatasync takes no longer than [`SLOW_DISK_MS`], and on
/// others.
const ALWAYS_BAR: f64 = 1.2;
const ALWAYS_BAR_SLOW: f64 = 1.0;
const SLOW_DISK_MS: f64 = 0.5;

/// So many of all requests are answered within that time during a save.
const WAIT_QUANTILE: f64 = 0.9999;
const WAIT_BAR_US: f64 = 5000.0;
/// Operations a second during a save to those without one, at least.
const THROUGHPUT_BAR: f64 = 0.7;
/// Growth of resident memory during a save, at most.
const MEMORY_BAR: f64 = 0.1;

const PROBES: usize = 4;
/// Between the requests of a probe.
const PROBE_PAUSE: Duration = Duration::from_micros(300);
/// How long a part of a save is that is measured by itself.
const PART: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Everysec,
    Always,
    Bgsave,
}

#[derive(Args, Clone, Debug)]
pub struct DurableArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    /// What is measured [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub parts: Option<Vec<Part>>,
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub connections: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub value: usize,
    /// Keys, or elements of the sorted set, that are saved; the bars hold for 5000000
    #[arg(long, default_value_t = 5_000_000)]
    pub saved: u64,
}

pub fn run(args: &DurableArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "durable", "Durability")?;
    let parts = args.parts.clone().unwrap_or_else(|| vec![Part::Everysec, Part::Always, Part::Bgsave]);
    setup.report.paragraph(&format!(
        "{} connections, values of {} B; {} keys and {} rounds of {} s with the append-only file.",
        args.connections,
        args.value,
        grouped(args.rounds.keyspace as f64),
        args.rounds.rounds,
        args.rounds.seconds
    ));
    for part in parts {
        match part {
            Part::Everysec => measure_everysec(args, &mut setup)?,
            Part::Always => measure_always(args, &mut setup)?,
            Part::Bgsave => measure_saves(args, &mut setup)?,
        }
    }
    setup.report.finish(&args.common.results)
}

/// Starts a server with its append-only file, and sets all keys.
fn start_with_file(
    setup: &mut Setup,
    contender: &Contender,
    (shard_count, cores): (usize, &[usize]),
    appendfsync: &str,
    args: &DurableArgs,
) -> Result<Server> {
    let server = setup.start(contender, shard_count, cores)?;
    load_keys(&server, Stored::Text { len_bytes: args.value }, args.rounds.keyspace, &setup.generator)?;
    for (directive, value) in
        [("auto-aof-rewrite-percentage", "0"), ("appendfsync", appendfsync), ("appendonly", "yes")]
    {
        server.ask(&["CONFIG", "SET", directive, value])?;
    }
    wait_while(&server, "aof_rewrite_in_progress")?;
    settle(&server)?;
    Ok(server)
}

/// Whether INFO's field is 1.
fn is_on(server: &Server, field: &str) -> Result<bool> {
    Ok(server.info("persistence", field)?.is_some_and(|value| value == "1"))
}

fn wait_while(server: &Server, field: &str) -> Result<()> {
    while is_on(server, field)? {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn measure_everysec(args: &DurableArgs, setup: &mut Setup) -> Result<()> {
    let contenders = setup.contenders.clone();
    let core = setup.server_cores.clone();
    let mut servers: Vec<(String, usize, Server, Placement)> = Vec::new();
    for contender in &contenders {
        let server = start_with_file(setup, contender, (1, &core), "everysec", args)?;
        servers.push((contender.program.name.clone(), 1, server, setup.generator.clone()));
    }
    setup.add_floor()?;
    let floor = setup.contenders.pop().expect("it was added");
    let server = setup.start(&floor, 1, &core)?;
    servers.push((floor.program.name.clone(), 1, server, setup.generator.clone()));
    let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
    if let Ok(ours) = our_contender(setup)
        && allowed.len() >= 2
    {
        let (cores, generator) = placements_on(&allowed, 2);
        for (shard_count, cores) in [(1, &cores[..1]), (2, &cores[..])] {
            let server = start_with_file(setup, &ours, (shard_count, cores), "everysec", args)?;
            servers.push((
                format!("{}, driven as two", ours.program.name),
                shard_count,
                server,
                generator.clone(),
            ));
        }
    }

    let pool = Pool::build(Op::Set, EVERYSEC_PIPELINE, args.rounds.keyspace, args.value, args.rounds.seed);
    let mut lanes = servers
        .iter()
        .map(|(_, _, server, generator)| Lane::connect(server, args.connections, generator))
        .collect::<Result<Vec<_>>>()?;
    let rounds = interleaved(&mut lanes, &pool, &args.rounds)?;
    drop(lanes);

    let cost = |at: usize| stats::median(&rounds[at].cpu_us_per_op);
    let floor_us = cost(contenders.len());
    let peers = (0..contenders.len()).filter(|at| !contenders[*at].is_ours());
    let best_peer_us = peers.map(|at| cost(at) - floor_us).reduce(f64::min);
    let mut table = Table::new(["server", "shards", "ops/s", "CPU us/op", "own", "ratio", "bar", ""]);
    for (at, (name, shard_count, ..)) in servers.iter().enumerate() {
        let own_us = cost(at) - floor_us;
        let (ratio, bar) = if at < contenders.len() && contenders[at].is_ours() {
            (best_peer_us.map(|peer_us| own_us / peer_us), Some(EVERYSEC_BAR))
        } else if *shard_count == 2 {
            (Some(cost(at) / cost(at - 1)), Some(TWO_SHARDS_BAR))
        } else {
            (None, None)
        };
        let verdict = ratio.zip(bar).map(|(ratio, bar)| Verdict::at_most(ratio, bar));
        if let Some(verdict) = verdict {
            setup.report.verdict(&format!("SET with everysec, {shard_count} shards"), verdict);
        }
        table.row([
            name.clone(),
            shard_count.to_string(),
            grouped(stats::median(&rounds[at].ops_per_s)),
            figure(cost(at)),
            figure(own_us),
            ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            verdict.and(bar).map(|bar| format!("<= {bar}")).unwrap_or_default(),
            verdict.map_or("", Verdict::text).to_string(),
        ]);
    }
    setup.report.table("SET at pipeline 16, appendfsync everysec", &table);
    Ok(())
}

const FDATASYNCS: usize = 200;

/// The median time that fdatasync takes after a small write, in milliseconds.
fn fdatasync_ms() -> Result<f64> {
    let path = std::env::temp_dir().join(format!("shardis-bench-fdatasync-{}", std::process::id()));
    let what = || path.display().to_string();
    let mut file = File::create(&path).context(what)?;
    let mut times_ms = Vec::new();
    for _ in 0..FDATASYNCS {
        file.write_all(&[b'x'; 100]).context(what)?;
        let started_at = Instant::now();
        file.sync_data().context(what)?;
        times_ms.push(started_at.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(&path).context(what)?;
    Ok(stats::median(&times_ms))
}

fn measure_always(args: &DurableArgs, setup: &mut Setup) -> Result<()> {
    let disk_ms = fdatasync_ms()?;
    let contenders = setup.contenders.clone();
    let core = setup.server_cores.clone();
    let servers = contenders
        .iter()
        .map(|contender| start_with_file(setup, contender, (1, &core), "always", args))
        .collect::<Result<Vec<_>>>()?;
    let pool = Pool::build(Op::Set, 1, args.rounds.keyspace, args.value, args.rounds.seed);
    let mut lanes = servers
        .iter()
        .map(|server| Lane::connect(server, args.connections, &setup.generator))
        .collect::<Result<Vec<_>>>()?;
    let rounds = interleaved(&mut lanes, &pool, &args.rounds)?;
    drop(lanes);

    let bar = if disk_ms > SLOW_DISK_MS { ALWAYS_BAR_SLOW } else { ALWAYS_BAR };
    let rate = |rounds: &Rounds| stats::median(&rounds.ops_per_s);
    let peers = contenders.iter().zip(&rounds).filter(|(contender, _)| !contender.is_ours());
    let best_peer = peers.map(|(_, rounds)| rate(rounds)).reduce(f64::max);
    let mut table =
        Table::new(["server", "ops/s", "p50 us", "p99.9 us", "CPU us/op", "to best peer", "bar", ""]);
    for (contender, rounds) in contenders.iter().zip(&rounds) {
        let ratio = best_peer.map(|best| rate(rounds) / best).filter(|_| contender.is_ours());
        let verdict = ratio.map(|ratio| Verdict::at_most(bar, ratio));
        if let Some(verdict) = verdict {
            setup.report.verdict("SET with always", verdict);
        }
        table.row([
            contender.program.name.clone(),
            grouped(rate(rounds)),
            figure(stats::median(&rounds.p50_us)),
            figure(stats::median(&rounds.p999_us)),
            figure(stats::median(&rounds.cpu_us_per_op)),
            ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            ratio.map(|_| format!(">= {bar}")).unwrap_or_default(),
            verdict.map_or("", Verdict::text).to_string(),
        ]);
    }
    setup.report.paragraph(&format!("fdatasync after 100 bytes: {disk_ms:.3} ms, median of {FDATASYNCS}."));
    setup.report.table("SET without pipelining, appendfsync always", &table);
    Ok(())
}

/// What is saved, besides the keys that are written.
const SAVED: [(&str, Option<Collection>); 2] =
    [("keys", None), ("a sorted set", Some(Collection::SortedSet))];

fn measure_saves(args: &DurableArgs, setup: &mut Setup) -> Result<()> {
    let mut table = Table::new([
        "saved",
        "server",
        "seconds",
        "ops/s without",
        "with",
        "p99.99 us",
        "longest us",
        "own clock: p99.99 us",
        "longest us",
        "memory",
        "",
    ]);
    for (name, collection) in SAVED {
        for contender in setup.contenders.clone() {
            let saved = measure_save(args, setup, &contender, collection)?;
            let mut verdict = None;
            if contender.is_ours() {
                let held = [
                    Verdict::at_most(saved.own_wait_us, WAIT_BAR_US),
                    Verdict::at_most(THROUGHPUT_BAR, saved.with_per_s / saved.without_per_s),
                    Verdict::at_most(saved.growth, MEMORY_BAR),
                ];
                let all = held.into_iter().find(|held| *held == Verdict::Fail).unwrap_or(Verdict::Pass);
                setup.report.verdict(&format!("BGSAVE of {} {name}", grouped(args.saved as f64)), all);
                verdict = Some(all);
            }
            table.row([
                name.to_string(),
                contender.program.name.clone(),
                figure(saved.seconds),
                grouped(saved.without_per_s),
                grouped(saved.with_per_s),
                figure(saved.latencies_ns.quantile(WAIT_QUANTILE) as f64 / 1e3),
                figure(saved.latencies_ns.max() as f64 / 1e3),
                if contender.is_ours() { figure(saved.own_wait_us) } else { String::new() },
                if contender.is_ours() { figure(saved.own_longest_us) } else { String::new() },
                format!("{:+.1} %", saved.growth * 100.0),
                verdict.map_or("", Verdict::text).to_string(),
            ]);
        }
    }
    setup.report.paragraph(&format!(
        "Bars: {WAIT_QUANTILE} of all requests within {WAIT_BAR_US} us by the server's own clock, operations a second with the \
         save at least {THROUGHPUT_BAR} of those without, memory at most {MEMORY_BAR} more."
    ));
    setup.report.table("SET beside BGSAVE", &table);
    Ok(())
}

/// How a server served its clients during a save.
struct Saved {
    seconds: f64,
    without_per_s: f64,
    with_per_s: f64,
    latencies_ns: Histogram,
    own_wait_us: f64,
    own_longest_us: f64,
    /// Of the resident memory, as a share of what there was.
    growth: f64,
}

fn measure_save(
    args: &DurableArgs,
    setup: &mut Setup,
    contender: &Contender,
    collection: Option<Collection>,
) -> Result<Saved> {
    let mut contender = contender.clone();
    if contender.is_ours() {
        contender.program.args.extend(["--enable-debug-command", "yes"].map(str::to_string));
    }
    let cores = setup.server_cores.clone();
    let server = setup.start(&contender, 1, &cores)?;
    let written_keys = match collection {
        None => args.saved,
        Some(of) => {
            load_keys(&server, Stored::Element(of), args.saved, &setup.generator)?;
            args.rounds.keyspace.min(args.saved)
        }
    };
    load_keys(&server, Stored::Text { len_bytes: args.value }, written_keys, &setup.generator)?;
    settle(&server)?;
    let pool = Pool::build(Op::Set, 1, written_keys, args.value, args.rounds.seed);
    let mut lane = Lane::connect(&server, args.connections, &setup.generator)?;
    let part = |lane: &mut Lane, seconds: Duration| -> Result<Sample> {
        lane.generator
            .run(&pool, Duration::ZERO, seconds, &server.cpu)
            .context(|| server.program.name.clone())
    };
    let before_bytes = server.rss_bytes()?;
    let (is_saving, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (without_per_s, rates, latencies_ns, seconds, peak_bytes, waits_us) =
        thread::scope(|scope| -> Result<_> {
            // They are there all the time: what they take from the server is no cost of the save.
            let probes: Vec<_> = (0..PROBES)
                .filter(|_| contender.is_ours())
                .map(|number| {
                    scope.spawn({
                        let (server, is_saving, is_over) = (&server, &is_saving, &is_over);
                        move || probe(server, number, is_saving, is_over)
                    })
                })
                .collect();
            let measured = (|| {
                let without = part(&mut lane, Duration::from_secs_f64(args.rounds.seconds.max(1.0)))?;
                let started_at = Instant::now();
                server.ask(&["BGSAVE"])?;
                is_saving.store(true, Ordering::Relaxed);
                let (mut rates, mut latencies_ns) = (Vec::new(), Histogram::default());
                let mut peak_bytes = before_bytes;
                // A part in which the save has ended counts if there is no other.
                while rates.is_empty() || is_on(&server, "rdb_bgsave_in_progress")? {
                    let sample = part(&mut lane, PART)?;
                    rates.push(sample.ops_per_s);
                    latencies_ns.merge(&sample.latencies_ns);
                    peak_bytes = peak_bytes.max(server.rss_bytes()?);
                }
                let seconds = started_at.elapsed().as_secs_f64();
                Ok::<_, BenchError>((without.ops_per_s, rates, latencies_ns, seconds, peak_bytes))
            })();
            // Whatever has failed, the probes end.
            is_over.store(true, Ordering::Relaxed);
            let mut waits_us = Histogram::default();
            for probe in probes {
                waits_us.merge(&probe.join().expect("a probe does not panic")?);
            }
            let (without_per_s, rates, latencies_ns, seconds, peak_bytes) = measured?;
            Ok((without_per_s, rates, latencies_ns, seconds, peak_bytes, waits_us))
        })?;
    if server.info("persistence", "rdb_last_bgsave_status")?.is_none_or(|status| status != "ok") {
        return Err(BenchError::new(format!("{}: the save has failed", server.program.name)));
    }
    // What a child has copied is not in the resident memory of its parent.
    let copied = server.info("persistence", "rdb_last_cow_size")?.filter(|_| !contender.is_ours());
    let copied_bytes: u64 = copied.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    let peak_bytes = peak_bytes + copied_bytes;
    Ok(Saved {
        seconds,
        without_per_s,
        with_per_s: stats::mean(&rates),
        latencies_ns,
        own_wait_us: waits_us.quantile(WAIT_QUANTILE) as f64,
        own_longest_us: waits_us.max() as f64,
        growth: peak_bytes.saturating_sub(before_bytes) as f64 / before_bytes as f64,
    })
}

/// Sets a key again and again. Returns how long each SET took by the server's clock during the save, in microseconds.
fn probe(server: &Server, number: usize, is_saving: &AtomicBool, is_over: &AtomicBool) -> Result<Histogram> {
    let what = || format!("{}: probe", server.program.name);
    let mut client = server.client()?;
    let mut waits_us = Histogram::default();
    let key = format!("probe:{number}");
    while !is_over.load(Ordering::Relaxed) {
        client.call(&["SET", &key, "value"]).context(what)?;
        let wait = client.call(&["DEBUG", "LONGEST-WAIT"]).context(what)?;
        let wait_us = wait.parse().map_err(|_| BenchError::new(format!("a wait of {wait:?}")))?;
        if is_saving.load(Ordering::Relaxed) {
            waits_us.record(wait_us);
        }
        thread::sleep(PROBE_PAUSE);
    }
    Ok(waits_us)
}
