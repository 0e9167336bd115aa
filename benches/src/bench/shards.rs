//! What sharding costs and what it gives: one shard against several, on two cores and on many.
//!
//! `shards` asks for the cost: server CPU an operation with N shards, keys on all of them, over our own one shard. Where
//! there are no cores left for it the generator shares the shards' cores, so one shard is measured twice: as in the macro
//! bench with the generator beside it, which the bar is judged by, and under the shared conditions.
//! With `--counts` it asks how the cost grows with the number of shards on the same cores (`crowd`).
//! `scale` asks for the gain: operations a second with more and more shards, the generator on the other cores.

use clap::Args;

use crate::bench::{
    CommonArgs, Contender, Lane, RoundArgs, Rounds, Setup, at_least_one, crowd, interleaved, leave_scene,
    load_collections, load_for, placement_on,
};
use crate::error::{BenchError, Context, Result};
use crate::load::Placement;
use crate::load::named::{Judged, NAMED};
use crate::load::workload::{Op, Pool};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;
use crate::sys;

/// CPU an operation, several shards to one, at most: (operation, pipeline, ratio).
const SHARDS_BARS: [(Op, usize, f64); 4] =
    [(Op::GetSet, 16, 1.35), (Op::Mget, 4, 1.6), (Op::Mset, 4, 1.6), (Op::Exec, 8, 2.5)];

/// On windows of an ordinary length there would be few operations that take long.
const LONG_SECONDS: f64 = 6.0;

fn bar_of(op: Op, pipeline: usize) -> Option<f64> {
    if let Some(named) = op.named() {
        let is_it = named.bar.judged == Judged::SeveralToOne && named.bar.pipeline == pipeline;
        return is_it.then_some(named.bar.limit);
    }
    let bar = SHARDS_BARS.iter().find(|bar| (bar.0, bar.1) == (op, pipeline))?;
    Some(bar.2)
}

#[derive(Args, Clone, Debug)]
pub struct ShardsArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    /// Shards to compare with one, each on its core
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..))]
    pub shards: u16,
    /// Measures servers with so many shards, all on the same cores: those of --server-cores [default: the first one]
    #[arg(long, value_delimiter = ',', value_parser = at_least_one, conflicts_with = "shards")]
    pub counts: Option<Vec<usize>>,
    /// There are bars for get:set at pipeline 16, mget10 and mset10 at 4, exec5 at 8, publish100-shards,
    /// script-declared, script-undeclared, lmove, sunion1m and zunionstore1m.
    /// Operations over collections run at the pipeline of their bar, without --pipelines
    /// [default: get:set,get,set,mget10,mset10,publish100-shards,script-declared,script-undeclared,lmove,sunion1m,zunionstore1m; with --counts: get]
    #[arg(long, value_delimiter = ',')]
    pub ops: Option<Vec<Op>>,
    /// Requests that a connection has under way [default: 16; with --counts: 1,16,64]
    #[arg(long, alias = "pipeline", value_delimiter = ',', value_parser = at_least_one)]
    pub pipelines: Option<Vec<usize>>,
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub connections: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub value: usize,
}

pub fn run_shards(args: &ShardsArgs) -> Result<Verdict> {
    match &args.counts {
        Some(counts) => crowd::run(args, counts),
        None => run_several_to_one(args),
    }
}

/// Cores for a server with a shard on each, and a generator: on as many cores beside them, or where those are missing on
/// the same.
pub fn placements_on(allowed: &[usize], shard_count: usize) -> (Vec<usize>, Placement) {
    let (cores, free) = allowed.split_at(shard_count.min(allowed.len()));
    let generator = if free.len() >= shard_count { free[..shard_count].to_vec() } else { cores.to_vec() };
    (cores.to_vec(), placement_on(generator, cores))
}

fn run_several_to_one(args: &ShardsArgs) -> Result<Verdict> {
    let shard_count = usize::from(args.shards);
    let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
    if allowed.len() < shard_count {
        return Err(BenchError::new(format!(
            "{shard_count} shards need as many cores; there are {}",
            allowed.len()
        )));
    }
    let all_ops =
        [Op::GetSet, Op::Get, Op::Set, Op::Mget, Op::Mset].into_iter().chain(Op::judged_by_shards());
    let ops = args.ops.clone().unwrap_or_else(|| all_ops.collect());
    let mut setup = Setup::new(&args.common, "shards", &format!("{shard_count} shards to one"))?;
    let ours = our_contender(&setup)?;

    let many_cores = match &args.common.server_cores {
        Some(list) if list.0.len() == shard_count => list.0.clone(),
        Some(list) => {
            let text = format!("--server-cores {:?} is not one core a shard", list.0);
            return Err(BenchError::new(text));
        }
        None => allowed[..shard_count].to_vec(),
    };
    let free: Vec<usize> = allowed.iter().copied().filter(|core| !many_cores.contains(core)).collect();
    let many_generator =
        if free.len() >= shard_count { free[..shard_count].to_vec() } else { many_cores.clone() };
    let many_generator = placement_on(many_generator, &many_cores);
    let one_core = vec![many_cores[0]];
    let beside = free.first().copied().unwrap_or(many_cores[1]);
    let one_generator = placement_on(vec![beside], &one_core);
    // One shard on the first of the same cores, driven from the same cores in the same way.
    let one_as_many = many_generator.clone();

    let one = setup.start(&ours, 1, &one_core)?;
    let many = setup.start(&ours, shard_count, &many_cores)?;
    let conditions = format!(
        "One shard on core {one_core:?} driven from core {:?}; {shard_count} shards on cores {many_cores:?} driven from \
         cores {:?}; {} connections, values of {} B, {} rounds of {} s.",
        one_generator.cores,
        many_generator.cores,
        args.connections,
        args.value,
        args.rounds.rounds,
        args.rounds.seconds
    );
    setup.report.paragraph(&conditions);
    let (collections, strings): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(|op| op.named().is_some());
    if !strings.is_empty() {
        for server in [&one, &many] {
            load_for(server, &strings, args.value, args.rounds.keyspace, &many_generator)?;
        }
    }

    let mut table = Table::new([
        "op",
        "pipeline",
        "1 shard us/op",
        "1 shard, shared",
        "several us/op",
        "ratio",
        "shared ratio",
        "bar",
        "",
    ]);
    let cells = strings.into_iter().chain(collections).flat_map(|op| {
        let usual = op.named().map_or(16, |named| named.bar.pipeline);
        args.pipelines.clone().unwrap_or_else(|| vec![usual]).into_iter().map(move |pipeline| (op, pipeline))
    });
    for (op, pipeline) in cells {
        let lanes = [(&one, &one_generator), (&one, &one_as_many), (&many, &many_generator)];
        let rounds = measure_cell(args, op, pipeline, lanes)?;
        let cpu: Vec<f64> = rounds.iter().map(|rounds| stats::median(&rounds.cpu_us_per_op)).collect();
        let ratio = cpu[2] / cpu[0];
        let bar = bar_of(op, pipeline);
        let verdict = bar.map(|bar| Verdict::at_most(ratio, bar));
        if let Some(verdict) = verdict {
            setup.report.verdict(&format!("{shard_count} shards, {op} at pipeline {pipeline}"), verdict);
        }
        table.row([
            op.to_string(),
            pipeline.to_string(),
            figure(cpu[0]),
            figure(cpu[1]),
            figure(cpu[2]),
            format!("{ratio:.2}"),
            format!("{:.2}", cpu[2] / cpu[1]),
            bar.map_or(String::new(), |bar| format!("<= {bar}")),
            verdict.map_or("", Verdict::text).to_string(),
        ]);
    }
    setup.report.table("Server CPU an operation", &table);
    setup.report.finish(&args.common.results)
}

/// Drives servers from their placements. Collections are loaded from the last of these.
fn measure_cell(
    args: &ShardsArgs,
    op: Op,
    pipeline: usize,
    driven: [(&Server, &Placement); 3],
) -> Result<Vec<Rounds>> {
    let pool = Pool::build(op, pipeline, args.rounds.keyspace, args.value, args.rounds.seed);
    let (mut connections, mut round_args) = (args.connections, args.rounds.clone());
    if let Op::Named(row) = op {
        let [_, (one, _), (many, loader)] = driven;
        for server in [one, many] {
            load_collections(server, row, loader)?;
        }
        if NAMED[row].is_long {
            connections = 1;
            round_args.seconds = round_args.seconds.max(LONG_SECONDS);
        }
    }
    let lanes =
        driven.iter().map(|(server, placement)| Lane::connect_for(op, server, connections, placement));
    let rounds = interleaved(&mut lanes.collect::<Result<Vec<_>>>()?, &pool, &round_args)?;
    if let Op::Named(row) = op {
        let [_, (one, _), (many, _)] = driven;
        for server in [one, many] {
            leave_scene(server, row)?;
        }
    }
    Ok(rounds)
}

#[derive(Args, Clone, Debug)]
pub struct ScaleArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    /// Numbers of shards to measure; those without as many cores, and one more for the generator, are left out
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = at_least_one)]
    pub shards: Vec<usize>,
    #[arg(long, value_delimiter = ',', default_value = "get:set,get,mget10,mset10")]
    pub ops: Vec<Op>,
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_parser = at_least_one)]
    pub pipelines: Vec<usize>,
    /// Connections for every shard
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub connections_per_shard: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub value: usize,
}

/// A server of the scaling table, with the cores for it and for its generator.
struct Step {
    label: String,
    server: Server,
    cores: usize,
    connections: usize,
    generator: Placement,
}

pub fn run_scale(args: &ScaleArgs) -> Result<Verdict> {
    let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
    let mut setup = Setup::new(&args.common, "scale", "Scaling over shards")?;
    let mut steps = Vec::new();
    for contender in setup.contenders.clone() {
        // A peer is measured once, on the cores of its choice among all but the generator's.
        let counts = if contender.is_ours() { args.shards.clone() } else { vec![1] };
        for shard_count in counts {
            if shard_count >= allowed.len() {
                let text = format!("{shard_count} shards left out: there are {} cores.", allowed.len());
                setup.report.paragraph(&text);
                continue;
            }
            steps.push(start_step(&mut setup, &contender, shard_count, &allowed, args)?);
        }
    }
    if steps.is_empty() {
        return Err(BenchError::new("there are not enough cores for any of it"));
    }

    let mut table = Table::new([
        "op",
        "pipeline",
        "server",
        "cores",
        "generator cores",
        "ops/s",
        "to the first",
        "CPU us/op",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "limit",
    ]);
    for &op in &args.ops {
        for &pipeline in &args.pipelines {
            let pool = Pool::build(op, pipeline, args.rounds.keyspace, args.value, args.rounds.seed);
            let mut lanes = steps
                .iter()
                .map(|step| Lane::connect(&step.server, step.connections, &step.generator))
                .collect::<Result<Vec<_>>>()?;
            let rounds = interleaved(&mut lanes, &pool, &args.rounds)?;
            add_scale_rows(&mut table, op, pipeline, &steps, &rounds);
            println!("{op}, pipeline {pipeline}: done");
        }
    }
    setup.report.table("Operations a second by shards", &table);
    drop(steps);
    setup.report.finish(&args.common.results)
}

fn start_step(
    setup: &mut Setup,
    contender: &Contender,
    shard_count: usize,
    allowed: &[usize],
    args: &ScaleArgs,
) -> Result<Step> {
    let (server_cores, rest) = allowed.split_at(shard_count);
    // A shard is dearer than its load, so as many generator cores as shards are plenty.
    let generator_cores = rest[..rest.len().min(shard_count.max(2))].to_vec();
    let generator = placement_on(generator_cores, server_cores);
    let server = setup.start(contender, shard_count, server_cores)?;
    load_for(&server, &args.ops, args.value, args.rounds.keyspace, &generator)?;
    let label = if contender.is_ours() {
        format!("{}, {shard_count} shards", server.program.name)
    } else {
        server.program.name.clone()
    };
    Ok(Step {
        label,
        server,
        cores: shard_count,
        connections: args.connections_per_shard * shard_count,
        generator,
    })
}

fn add_scale_rows(table: &mut Table, op: Op, pipeline: usize, steps: &[Step], rounds: &[Rounds]) {
    let first = stats::median(&rounds[0].ops_per_s);
    for (step, rounds) in steps.iter().zip(rounds) {
        let ops_per_s = stats::median(&rounds.ops_per_s);
        table.row([
            op.to_string(),
            pipeline.to_string(),
            step.label.clone(),
            step.cores.to_string(),
            step.generator.cores.len().to_string(),
            grouped(ops_per_s),
            format!("{:.2}", ops_per_s / first),
            figure(stats::median(&rounds.cpu_us_per_op)),
            figure(stats::median(&rounds.p50_us)),
            figure(stats::median(&rounds.p99_us)),
            figure(stats::median(&rounds.p999_us)),
            rounds.limit(step.cores).to_string(),
        ]);
    }
}

pub fn our_contender(setup: &Setup) -> Result<Contender> {
    let ours = setup.contenders.iter().find(|contender| contender.is_ours()).cloned();
    ours.ok_or_else(|| BenchError::new("this bench measures our server: leave out --no-ours"))
}
