//! Two builds of our server against each other: whether a change has made a command dearer.
//!
//! Every cell is a pair: old and new visited in turn, so that the two figures of a round are of the same weather, and
//! what is judged is the median of the rounds' ratios. A server keeps for its life what memory it happened to get, which
//! is worth a percent or two; so each is started several times and the rounds are shared among the starts.

use std::path::PathBuf;

use clap::Args;

use crate::bench::shards::{our_contender, placements_on};
use crate::bench::{
    CommonArgs, Contender, Lane, RoundArgs, Rounds, Setup, at_least_one, interleaved, load_for, placement_on,
};
use crate::error::{BenchError, Context, Result};
use crate::load::Placement;
use crate::load::workload::{Op, Pool};
use crate::report::{Table, Verdict, figure};
use crate::server::Program;
use crate::stats;
use crate::sys;

/// The geometric mean of all ratios, and each single one, at most.
const MEAN_BAR: f64 = 1.00;
const CELL_BAR: f64 = 1.05;

#[derive(Args, Clone, Debug)]
#[command(mut_arg("rounds", |arg| arg.default_value("9")), mut_arg("seconds", |arg| arg.default_value("0.9")))]
pub struct BuildsArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    /// The binary that the one of --ours is compared with
    #[arg(long, value_name = "PATH")]
    pub base: PathBuf,
    /// Times that the servers are started; the rounds are shared among the starts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub starts: u32,
    #[arg(long, value_delimiter = ',', default_value = "get,set,incr,mget10,mset10,exec5")]
    pub ops: Vec<Op>,
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = at_least_one)]
    pub pipelines: Vec<usize>,
    /// Numbers of shards, each on its core; more than there are cores share the first one
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = at_least_one)]
    pub shards: Vec<usize>,
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub connections: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub value: usize,
}

/// A row of the result, with the rounds of both builds so far.
struct Cell {
    shard_count: usize,
    op: Op,
    pipeline: usize,
    base: Rounds,
    new: Rounds,
}

impl Cell {
    /// New to old, round by round.
    fn ratios(&self) -> Vec<f64> {
        stats::ratios_by_round(&self.new.cpu_us_per_op, &[&self.base.cpu_us_per_op])
    }
}

pub fn run(args: &BuildsArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "builds", "Two builds of Shardis")?;
    let new = our_contender(&setup)?;
    let program = Program { name: "base".to_string(), path: args.base.clone(), args: Vec::new() };
    let base = Contender { program, role: new.role };
    let mut cells = Vec::new();
    for &shard_count in &args.shards {
        for &op in &args.ops {
            for &pipeline in &args.pipelines {
                let (base, new) = (Rounds::default(), Rounds::default());
                cells.push(Cell { shard_count, op, pipeline, base, new });
            }
        }
    }

    let per_start = RoundArgs { rounds: args.rounds.rounds.div_ceil(args.starts), ..args.rounds.clone() };
    let visits = cells.len() as f64 * 2.0 * f64::from(per_start.rounds * args.starts);
    let total_s = visits * (args.rounds.seconds + args.rounds.warm_up + 0.02);
    println!("{} cells x 2 builds: about {:.0} minutes", cells.len(), (total_s / 60.0).ceil());
    for start in 0..args.starts {
        for &shard_count in &args.shards {
            let of_count = cells.iter_mut().filter(|cell| cell.shard_count == shard_count);
            run_start(&mut setup, args, &per_start, [&base, &new], shard_count, of_count)?;
        }
        println!("start {} of {}: done", start + 1, args.starts);
    }
    report(&mut setup, args, &per_start, &cells);
    setup.report.finish(&args.common.results)
}

/// Starts both builds with `shard_count` shards, and visits them in turn for the rounds of one start of each cell.
fn run_start<'a>(
    setup: &mut Setup,
    args: &BuildsArgs,
    rounds: &RoundArgs,
    contenders: [&Contender; 2],
    shard_count: usize,
    cells: impl Iterator<Item = &'a mut Cell>,
) -> Result<()> {
    let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
    let (cores, generator) = places_for(&allowed, shard_count)?;
    let [base, new] = contenders;
    let servers = [setup.start(base, shard_count, &cores)?, setup.start(new, shard_count, &cores)?];
    for server in &servers {
        load_for(server, &args.ops, args.value, rounds.keyspace, &generator)?;
    }
    for cell in cells {
        let pool = Pool::build(cell.op, cell.pipeline, rounds.keyspace, args.value, rounds.seed);
        let mut lanes = servers
            .iter()
            .map(|server| Lane::connect(server, args.connections, &generator))
            .collect::<Result<Vec<_>>>()?;
        let mut measured = interleaved(&mut lanes, &pool, rounds)?.into_iter();
        cell.base.append(measured.next().expect("a lane for each build"));
        cell.new.append(measured.next().expect("a lane for each build"));
    }
    Ok(())
}

/// Cores for the shards and for the generator. More shards than there are cores share the first one.
fn places_for(allowed: &[usize], shard_count: usize) -> Result<(Vec<usize>, Placement)> {
    match allowed {
        [] | [_] if shard_count > allowed.len() => Err(BenchError::new("there is one core only")),
        [first, others @ ..] if shard_count > allowed.len() => {
            Ok((vec![*first], placement_on(vec![others[0]], &[*first])))
        }
        _ => Ok(placements_on(allowed, shard_count)),
    }
}

/// The median of the rounds' CPU us/op, and how much of it was spent in user space: the kernel samples that at its ticks,
/// so its share is the mean over the rounds.
fn whole_and_user_us(rounds: &Rounds) -> (f64, f64) {
    let whole = stats::median(&rounds.cpu_us_per_op);
    (whole, whole * (1.0 - stats::mean(&rounds.kernel_share)))
}

fn report(setup: &mut Setup, args: &BuildsArgs, per_start: &RoundArgs, cells: &[Cell]) {
    let allowed = sys::allowed_cores().unwrap_or_default();
    let places: Vec<String> = args
        .shards
        .iter()
        .map(|&shard_count| {
            let Ok((cores, generator)) = places_for(&allowed, shard_count) else { return String::new() };
            format!("{shard_count} shards on cores {cores:?} driven from cores {:?}", generator.cores)
        })
        .collect();
    setup.report.paragraph(&format!(
        "Base: {}. {}; {} connections, values of {} B, {} rounds of {} s over {} starts. The ratio is new to base: the \
         median of the rounds'.",
        args.base.display(),
        places.join(", "),
        args.connections,
        args.value,
        per_start.rounds * args.starts,
        per_start.seconds,
        args.starts
    ));

    let mut table = Table::new([
        "op",
        "shards",
        "pipeline",
        "base us/op",
        "new us/op",
        "ratio",
        "rounds (min-max)",
        "",
        "in user space",
    ]);
    let mut medians = Vec::new();
    for cell in cells {
        let by_round = cell.ratios();
        let (low, high) = stats::spread(&by_round);
        let ratio = stats::median(&by_round);
        medians.push(ratio);
        let verdict = Verdict::at_most(ratio, CELL_BAR);
        setup.report.verdict(
            &format!("{}, {} shards, pipeline {}", cell.op, cell.shard_count, cell.pipeline),
            verdict,
        );
        let ((base_us, base_user_us), (new_us, new_user_us)) =
            (whole_and_user_us(&cell.base), whole_and_user_us(&cell.new));
        table.row([
            cell.op.to_string(),
            cell.shard_count.to_string(),
            cell.pipeline.to_string(),
            figure(base_us),
            figure(new_us),
            format!("{ratio:.3}"),
            format!("({low:.2}-{high:.2})"),
            verdict.text().to_string(),
            format!("{} to {}", figure(new_user_us), figure(base_user_us)),
        ]);
    }
    setup.report.table("Server CPU an operation", &table);

    let mean = stats::geometric_mean(&medians);
    let (low, high) = stats::spread(&medians);
    let verdict = Verdict::at_most(mean, MEAN_BAR);
    setup.report.verdict("geometric mean", verdict);
    setup.report.paragraph(&format!(
        "Geometric mean of the ratios: {mean:.3} (bar: <= {MEAN_BAR:.2}, {}); the lowest {low:.3}, the highest {high:.3} \
         (bar: <= {CELL_BAR:.2}).",
        verdict.text()
    ));
}
