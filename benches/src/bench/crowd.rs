//! More and more shards beside each other on the same cores: what an operation costs when nothing but their number grows.
//!
//! With every shard added there are more rings to look at, fewer commands in a turn and in a message, and more sleeps and
//! wake-ups. Threads that share a core pay for the last in the kernel, and would not if each had its own. What they spend
//! in user space they would spend on any number of cores, so that is what is judged.

use crate::bench::shards::{ShardsArgs, our_contender};
use crate::bench::{Lane, Rounds, Setup, interleaved, load_for};
use crate::error::Result;
use crate::load::workload::{Op, Pool};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;

/// User-space CPU us/op with this many shards at this pipeline, at most: so much, or so many times one shard's,
/// whichever is more.
const BAR_OP: Op = Op::Get;
const BAR_SHARDS: usize = 16;
const BAR_PIPELINE: usize = 16;
const BAR_US: f64 = 0.25;
const BAR_TO_ONE: f64 = 2.5;

/// What an operation costs with some number of shards.
#[derive(Clone, Copy)]
struct Cost {
    whole_us: f64,
    user_us: f64,
}

impl Cost {
    /// The kernel samples at its ticks how the time of a thread divides, some hundred times in a round. So the share is the
    /// mean over the rounds, and the time that it is a share of the median.
    fn of(rounds: &Rounds) -> Cost {
        let whole_us = stats::median(&rounds.cpu_us_per_op);
        Cost { whole_us, user_us: whole_us * (1.0 - stats::mean(&rounds.kernel_share)) }
    }
}

/// What the user-space cost may be in a row, if it has a bar.
fn bar_of(op: Op, pipeline: usize, shard_count: usize, one: Cost) -> Option<f64> {
    let has_bar = (op, pipeline, shard_count) == (BAR_OP, BAR_PIPELINE, BAR_SHARDS);
    has_bar.then(|| BAR_US.max(BAR_TO_ONE * one.user_us))
}

/// `counts`: numbers of shards; the first is what the others are held against.
pub fn run(args: &ShardsArgs, counts: &[usize]) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "crowd", "Shards beside each other on the same cores")?;
    let ours = our_contender(&setup)?;
    let cores = setup.server_cores.clone();
    let ops = args.ops.clone().unwrap_or_else(|| vec![BAR_OP]);
    let pipelines = args.pipelines.clone().unwrap_or_else(|| vec![1, 16, 64]);
    let servers =
        counts.iter().map(|&count| setup.start(&ours, count, &cores)).collect::<Result<Vec<Server>>>()?;
    for server in &servers {
        load_for(server, &ops, args.value, args.rounds.keyspace, &setup.generator)?;
    }
    setup.report.paragraph(&format!(
        "Servers on cores {cores:?}, generator on cores {:?}; {} connections, values of {} B, {} rounds of {} s, {} keys. \
         CPU in microseconds an operation.",
        setup.generator.cores,
        args.connections,
        args.value,
        args.rounds.rounds,
        args.rounds.seconds,
        args.rounds.keyspace
    ));

    let mut table = Table::new([
        "op",
        "pipeline",
        "shards",
        "ops/s",
        "whole",
        "to the first",
        "in user space",
        "to the first",
        "limit",
        "bar",
        "",
    ]);
    for &op in &ops {
        for &pipeline in &pipelines {
            let pool = Pool::build(op, pipeline, args.rounds.keyspace, args.value, args.rounds.seed);
            let mut lanes = servers
                .iter()
                .map(|server| Lane::connect(server, args.connections, &setup.generator))
                .collect::<Result<Vec<_>>>()?;
            let rounds = interleaved(&mut lanes, &pool, &args.rounds)?;
            let first = Cost::of(&rounds[0]);
            for (&shard_count, rounds) in counts.iter().zip(&rounds) {
                let cost = Cost::of(rounds);
                let bar = bar_of(op, pipeline, shard_count, first);
                let verdict = bar.map(|bar| Verdict::at_most(cost.user_us, bar));
                if let Some(verdict) = verdict {
                    setup
                        .report
                        .verdict(&format!("{op}, {shard_count} shards, pipeline {pipeline}"), verdict);
                }
                table.row([
                    op.to_string(),
                    pipeline.to_string(),
                    shard_count.to_string(),
                    grouped(stats::median(&rounds.ops_per_s)),
                    figure(cost.whole_us),
                    format!("{:.2}", cost.whole_us / first.whole_us),
                    figure(cost.user_us),
                    format!("{:.2}", cost.user_us / first.user_us),
                    rounds.limit(cores.len()).to_string(),
                    bar.map(|bar| format!("<= {bar:.3}")).unwrap_or_default(),
                    verdict.map_or("", Verdict::text).to_string(),
                ]);
            }
            println!("{op}, pipeline {pipeline}: done");
        }
    }
    setup.report.table("Server CPU an operation by shards", &table);
    drop(servers);
    setup.report.finish(&args.common.results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_the_higher_of_a_time_and_a_multiple_of_one_shards() {
        let one = |user_us| Cost { whole_us: 1.0, user_us };
        assert_eq!(bar_of(Op::Get, 16, 16, one(0.08)), Some(0.25));
        assert_eq!(bar_of(Op::Get, 16, 16, one(0.2)), Some(0.5));
        assert_eq!(bar_of(Op::Get, 64, 16, one(0.2)), None);
        assert_eq!(bar_of(Op::Get, 16, 8, one(0.2)), None);
    }

    #[test]
    fn time_in_user_space_is_what_the_kernel_has_not_used() {
        let rounds = Rounds {
            cpu_us_per_op: vec![1.0, 2.0, 9.0],
            kernel_share: vec![0.5, 0.75, 1.0],
            ..Rounds::default()
        };
        assert!((Cost::of(&rounds).user_us - 0.5).abs() < 1e-9);
    }
}
