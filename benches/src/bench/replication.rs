//! What replication costs: SET on a master with one replica of its own make, CPU an operation of both processes.
//!
//! The floor of the master writes what it is sent to a replica as well, and that of the replica reads it and acknowledges it. Own
//! costs are held against the best peer's. Two shards on two cores are held against one shard of ours that is driven from the
//! same cores, all threads included. Master and replica share their cores; their CPU clocks count each by itself.

use std::thread;
use std::time::Duration;

use clap::Args;

use crate::bench::shards::{our_contender, placements_on};
use crate::bench::{
    CommonArgs, Contender, Lane, PipelineArgs, RoundArgs, Setup, at_least_one, load_keys, settle,
};
use crate::error::{BenchError, Context, Result};
use crate::load::Placement;
use crate::load::workload::{Op, Pool, Stored};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;
use crate::sys;

/// Own cost of a master with a replica, and of the replica, to the best peer's, at most.
const MASTER_BAR: f64 = 0.5;
const REPLICA_BAR: f64 = 0.6;
/// CPU an operation of two shards to one shard's, at most.
const TWO_SHARDS_BAR: f64 = 1.6;

/// How often a replica is asked how far it is, and for how long.
const ASK_PAUSE: Duration = Duration::from_millis(5);
const ASKS_MAX: usize = 4000;

#[derive(Args, Clone, Debug)]
pub struct ReplicationArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    #[command(flatten)]
    pub load: PipelineArgs,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub value: usize,
}

/// A master and its replica.
struct Pair {
    name: String,
    shard_count: usize,
    master: Server,
    replica: Server,
    generator: Placement,
}

/// CPU an operation, a value a round.
#[derive(Default)]
struct Costs {
    master_us: Vec<f64>,
    replica_us: Vec<f64>,
    ops_per_s: Vec<f64>,
}

impl Pair {
    fn start(
        setup: &mut Setup,
        contender: &Contender,
        (shard_count, cores): (usize, &[usize]),
        generator: &Placement,
        args: &ReplicationArgs,
    ) -> Result<Pair> {
        let master = setup.start(contender, shard_count, cores)?;
        let replica = setup.start(contender, shard_count, cores)?;
        load_keys(&master, Stored::Text { len_bytes: args.value }, args.rounds.keyspace, &setup.generator)?;
        for (directive, value) in
            [("repl-diskless-sync-delay", "0"), ("client-output-buffer-limit", "replica 0 0 0")]
        {
            master.ask(&["CONFIG", "SET", directive, value])?;
        }
        replica.ask(&["REPLICAOF", "127.0.0.1", &master.address.port().to_string()])?;
        let name = contender.program.name.clone();
        let pair = Pair { name, shard_count, master, replica, generator: generator.clone() };
        pair.wait_until("comes up", |pair| {
            Ok(pair.replica.info("replication", "master_link_status")?.is_some_and(|status| status == "up"))
        })?;
        settle(&pair.master)?;
        settle(&pair.replica)?;
        Ok(pair)
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Pair) -> Result<bool>) -> Result<()> {
        for _ in 0..ASKS_MAX {
            if is_so(self)? {
                return Ok(());
            }
            thread::sleep(ASK_PAUSE);
        }
        Err(BenchError::new(format!("{}: the replica never {what}", self.name)))
    }

    fn offset(server: &Server, field: &str) -> Result<u64> {
        let offset = server.info("replication", field)?;
        let offset = offset.and_then(|offset| offset.parse().ok());
        offset.ok_or_else(|| BenchError::new(format!("INFO has no {field}")))
    }

    fn wait_for_replica(&self) -> Result<()> {
        let end = Pair::offset(&self.master, "master_repl_offset")?;
        self.wait_until("catches up", |pair| Ok(Pair::offset(&pair.replica, "slave_repl_offset")? >= end))
    }

    fn replica_ns(&self) -> Result<u64> {
        self.replica.cpu.clock.used_ns().context(|| format!("CPU clock of {}", self.name))
    }
}

pub fn run(args: &ReplicationArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "replication", "Replication")?;
    setup.add_floor()?;
    let (contenders, core, generator) =
        (setup.contenders.clone(), setup.server_cores.clone(), setup.generator.clone());
    let mut pairs = Vec::new();
    for contender in &contenders {
        pairs.push(Pair::start(&mut setup, contender, (1, &core), &generator, args)?);
    }
    let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
    if let Ok(ours) = our_contender(&setup)
        && allowed.len() >= 2
    {
        let (cores, generator) = placements_on(&allowed, 2);
        for (shard_count, cores) in [(1, &cores[..1]), (2, &cores[..])] {
            let mut pair = Pair::start(&mut setup, &ours, (shard_count, cores), &generator, args)?;
            pair.name = format!("{}, driven as two", pair.name);
            pairs.push(pair);
        }
    }

    let costs = measure(&pairs, args)?;
    let floor = contenders.len() - 1;
    report(&mut setup, &pairs, &costs, &contenders[..floor], args);
    drop(pairs);
    setup.report.finish(&args.common.results)
}

fn measure(pairs: &[Pair], args: &ReplicationArgs) -> Result<Vec<Costs>> {
    let pool = Pool::build(Op::Set, args.load.pipeline, args.rounds.keyspace, args.value, args.rounds.seed);
    let (warm_up, window) =
        (Duration::from_secs_f64(args.rounds.warm_up), Duration::from_secs_f64(args.rounds.seconds));
    let mut lanes = pairs
        .iter()
        .map(|pair| Lane::connect(&pair.master, args.load.connections, &pair.generator))
        .collect::<Result<Vec<_>>>()?;
    let mut costs: Vec<Costs> = pairs.iter().map(|_| Costs::default()).collect();
    for round in 0..args.rounds.rounds as usize {
        for step in 0..pairs.len() {
            let at = (round + step) % pairs.len();
            let pair = &pairs[at];
            let before_ns = pair.replica_ns()?;
            let sample = lanes[at]
                .generator
                .run(&pool, warm_up, window, &pair.master.cpu)
                .context(|| pair.name.clone())?;
            pair.wait_for_replica()?;
            let replica_ns = pair.replica_ns()? - before_ns;
            costs[at].master_us.push(sample.cpu_us_per_op);
            costs[at].replica_us.push(replica_ns as f64 / 1e3 / sample.ops_of_run as f64);
            costs[at].ops_per_s.push(sample.ops_per_s);
        }
    }
    Ok(costs)
}

/// `contenders`: those whose pairs come first, in their order; the floor's is the next.
fn report(
    setup: &mut Setup,
    pairs: &[Pair],
    costs: &[Costs],
    contenders: &[Contender],
    args: &ReplicationArgs,
) {
    setup.report.paragraph(&format!(
        "SET with {} connections, pipeline {}, values of {} B, {} keys; {} rounds of {} s; medians over the rounds.",
        args.load.connections,
        args.load.pipeline,
        args.value,
        grouped(args.rounds.keyspace as f64),
        args.rounds.rounds,
        args.rounds.seconds
    ));
    type CostOf = fn(&Costs) -> &[f64];
    let sides: [(&str, CostOf, f64); 2] = [
        ("master", |costs| &costs.master_us, MASTER_BAR),
        ("replica", |costs| &costs.replica_us, REPLICA_BAR),
    ];
    for (side, cost_of, own_bar) in sides {
        let cost = |at: usize| stats::median(cost_of(&costs[at]));
        let floor_us = cost(contenders.len());
        let peers = (0..contenders.len()).filter(|at| !contenders[*at].is_ours());
        let best_peer_us = peers.map(|at| cost(at) - floor_us).reduce(f64::min);
        let mut table = Table::new(["server", "shards", "ops/s", "CPU us/op", "own", "ratio", "bar", ""]);
        for (at, pair) in pairs.iter().enumerate() {
            let own_us = cost(at) - floor_us;
            let judged = if contenders.get(at).is_some_and(Contender::is_ours) {
                best_peer_us.map(|peer_us| (own_us / peer_us, own_bar))
            } else if pair.shard_count == 2 {
                Some((cost(at) / cost(at - 1), TWO_SHARDS_BAR))
            } else {
                None
            };
            let verdict = judged.map(|(ratio, bar)| Verdict::at_most(ratio, bar));
            if let Some(verdict) = verdict {
                setup.report.verdict(&format!("{side}, {} shards", pair.shard_count), verdict);
            }
            table.row([
                pair.name.clone(),
                pair.shard_count.to_string(),
                grouped(stats::median(&costs[at].ops_per_s)),
                figure(cost(at)),
                figure(own_us),
                judged.map(|(ratio, _)| format!("{ratio:.3}")).unwrap_or_default(),
                judged.map(|(_, bar)| format!("<= {bar}")).unwrap_or_default(),
                verdict.map_or("", Verdict::text).to_string(),
            ]);
        }
        setup.report.table(&format!("What it costs the {side}"), &table);
    }
}
