//! The generator held against redis-benchmark: the same server, the same operation, in turns, on the same core.
//!
//! Two generators agree when the server spends the same CPU an operation under both. redis-benchmark sleeps between
//! replies, so it is compared with ours sleeping too. Ours spinning, as the benches use it on a core of its own, is shown
//! beside them: it keeps the server busy where redis-benchmark is the slower side, and then the server finds more
//! requests at every look and pays less for sleeping and waking.

use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::bench::{CommonArgs, Lane, RoundArgs, Rounds, Setup, at_least_one, interleaved, load_keys};
use crate::error::{BenchError, Context, Result};
use crate::load::workload::{Op, Pool, Stored};
use crate::load::{Placement, Wait};
use crate::proc;
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;
use crate::sys;

/// Difference of the server's CPU an operation between the two generators, at most, either way.
const AGREEMENT: f64 = 0.15;

#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    #[arg(long, default_value = "redis-benchmark")]
    pub redis_benchmark: String,
    /// get, set or incr
    #[arg(long, value_delimiter = ',', default_value = "get,set")]
    pub ops: Vec<Op>,
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = at_least_one)]
    pub pipelines: Vec<usize>,
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub connections: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub value: usize,
}

/// What redis-benchmark measured, and what its run cost the server.
#[derive(Default)]
struct Theirs {
    ops_per_s: Vec<f64>,
    cpu_us_per_op: Vec<f64>,
    p50_us: Vec<f64>,
}

pub fn run(args: &VerifyArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "verify", "The load generator against redis-benchmark")?;
    let servers = setup.start_all()?;
    setup.report.paragraph(&format!(
        "{} connections, values of {} B, {} keys, both on core {:?}, {} rounds in turns; medians.",
        args.connections, args.value, args.rounds.keyspace, setup.generator.cores, args.rounds.rounds
    ));
    let mut table = Table::new([
        "server",
        "op",
        "pipeline",
        "CPU us/op: redis-benchmark",
        "ours, sleeping",
        "ratio",
        "ours, spinning",
        "ops/s: redis-benchmark",
        "ours, sleeping",
        "ours, spinning",
        "p50 us: redis-benchmark",
        "ours, sleeping",
        "ours, spinning",
        "limit of ours, spinning",
        "",
    ]);
    let mut clocks = Table::new(["server", "CPU clock s", "task/*/schedstat s", "utime+stime s"]);
    for (_, server) in &servers {
        if args.ops.contains(&Op::Incr) {
            load_keys(server, Stored::Counter, args.rounds.keyspace, &setup.generator)?;
        }
        load_keys(server, Stored::Text { len_bytes: args.value }, args.rounds.keyspace, &setup.generator)?;
        for &op in &args.ops {
            for &pipeline in &args.pipelines {
                compare(&mut setup, args, server, op, pipeline, &mut table)?;
            }
        }
        let cpu = proc::cpu_by_three_ways(server.pid()).context(|| "CPU".to_string())?;
        let seconds = |ns: u64| format!("{:.3}", ns as f64 / 1e9);
        clocks.row([
            server.program.name.clone(),
            seconds(cpu.clock_ns),
            seconds(cpu.schedstat_ns),
            seconds(cpu.stat_ns),
        ]);
    }
    setup.report.table("Both generators", &table);
    setup.report.table("CPU of the servers by the three ways that the kernel tells it", &clocks);
    drop(servers);
    setup.report.finish(&args.common.results)
}

fn compare(
    setup: &mut Setup,
    args: &VerifyArgs,
    server: &Server,
    op: Op,
    pipeline: usize,
    table: &mut Table,
) -> Result<()> {
    let pool = Pool::build(op, pipeline, args.rounds.keyspace, args.value, args.rounds.seed);
    let mut theirs = Theirs::default();
    let (mut sleeping, mut spinning) = (Rounds::default(), Rounds::default());
    let one_round = RoundArgs { rounds: 1, ..args.rounds.clone() };
    for _ in 0..args.rounds.rounds {
        for (wait, ours) in [(Wait::Block, &mut sleeping), (Wait::Spin, &mut spinning)] {
            // Connections are opened anew each time, as redis-benchmark does.
            let placement = Placement { wait, ..setup.generator.clone() };
            let mut lanes = [Lane::connect(server, args.connections, &placement)?];
            ours.append(interleaved(&mut lanes, &pool, &one_round)?.remove(0));
        }
        let last_ops_per_s = sleeping.ops_per_s.last().copied().unwrap_or(0.0);
        let requests = (last_ops_per_s * args.rounds.seconds) as u64;
        run_redis_benchmark(setup, args, server, op, pipeline, requests.max(1000), &mut theirs)?;
    }

    let (our_cpu, their_cpu) = (stats::median(&sleeping.cpu_us_per_op), stats::median(&theirs.cpu_us_per_op));
    let verdict = Verdict::at_most((our_cpu / their_cpu).ln().abs(), (1.0 + AGREEMENT).ln());
    setup.report.verdict(&format!("{op} at pipeline {pipeline}"), verdict);
    println!(
        "{} {op} pipeline {pipeline}: {} and {} us/op",
        server.program.name,
        figure(our_cpu),
        figure(their_cpu)
    );
    table.row([
        server.program.name.clone(),
        op.to_string(),
        pipeline.to_string(),
        figure(their_cpu),
        figure(our_cpu),
        format!("{:.2}", our_cpu / their_cpu),
        figure(stats::median(&spinning.cpu_us_per_op)),
        grouped(stats::median(&theirs.ops_per_s)),
        grouped(stats::median(&sleeping.ops_per_s)),
        grouped(stats::median(&spinning.ops_per_s)),
        figure(stats::median(&theirs.p50_us)),
        figure(stats::median(&sleeping.p50_us)),
        figure(stats::median(&spinning.p50_us)),
        spinning.limit(setup.server_cores.len()).to_string(),
        verdict.text().to_string(),
    ]);
    Ok(())
}

fn run_redis_benchmark(
    setup: &Setup,
    args: &VerifyArgs,
    server: &Server,
    op: Op,
    pipeline: usize,
    requests: u64,
    theirs: &mut Theirs,
) -> Result<()> {
    let (Op::Get | Op::Set | Op::Incr) = op else {
        return Err(BenchError::new(format!("redis-benchmark has no test that is the same as {op}")));
    };
    let mut command = Command::new(&args.redis_benchmark);
    let number = |flag: &str, value: u64| [flag.to_string(), value.to_string()];
    command.args(["-h", "127.0.0.1", "-t", op.name(), "--csv"]);
    command.args(number("-p", u64::from(server.address.port())));
    command.args(number("-c", args.connections as u64));
    command.args(number("-P", pipeline as u64));
    command.args(number("-d", args.value as u64));
    command.args(number("-r", args.rounds.keyspace));
    command.args(number("-n", requests));
    sys::confine(&mut command, &setup.generator.cores);

    let cpu_ns = || server.cpu.clock.used_ns().context(|| server.program.name.clone());
    let (before_ns, started_at) = (cpu_ns()?, Instant::now());
    let output = command.output().context(|| args.redis_benchmark.clone())?;
    let used_ns = cpu_ns()? - before_ns;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = parse_csv(&text).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let elapsed = started_at.elapsed().as_secs_f32();
        BenchError::new(format!("{} after {elapsed} s: {text}{errors}", args.redis_benchmark))
    })?;
    theirs.ops_per_s.push(figures.ops_per_s);
    theirs.cpu_us_per_op.push(used_ns as f64 / 1e3 / requests as f64);
    theirs.p50_us.push(figures.p50_ms * 1e3);
    Ok(())
}

#[derive(Debug, PartialEq)]
struct CsvFigures {
    ops_per_s: f64,
    p50_ms: f64,
}

/// The line of the one test in what `redis-benchmark --csv` prints.
fn parse_csv(text: &str) -> Option<CsvFigures> {
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let header: Vec<&str> = lines.next()?.split(',').map(|cell| cell.trim_matches('"')).collect();
    let cells: Vec<&str> = lines.next()?.split(',').map(|cell| cell.trim_matches('"')).collect();
    let column = |name: &str| cells.get(header.iter().position(|&title| title == name)?)?.parse().ok();
    Some(CsvFigures { ops_per_s: column("rps")?, p50_ms: column("p50_latency_ms")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csv_of_redis_benchmark_is_read_by_its_header() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
            \"p99_latency_ms\",\"max_latency_ms\"\n\"SET\",\"166666.67\",\"0.153\",\"0.072\",\"0.151\",\"0.175\",\
            \"0.255\",\"0.447\"\n";
        let expected = CsvFigures { ops_per_s: 166_666.67, p50_ms: 0.151 };
        assert_eq!(parse_csv(text), Some(expected));
        assert_eq!(parse_csv("Could not connect\n"), None);
    }
}
