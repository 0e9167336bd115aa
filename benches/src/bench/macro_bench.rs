//! The macro bench: operations x pipelines x connections x values, every server in every round, medians over rounds.
//!
//! All servers stay up on the same core while one of them is driven; idle ones cost it nothing that can be measured.
//! Rounds are interleaved because the machine's speed drifts within seconds: the servers of a round share its weather,
//! so ratios hold where absolute figures do not.
//!
//! The kernel's TCP is most of a small request's cost and the same for every server. So beside the whole cost stands a
//! server's *own cost*: in each round its CPU an operation less that of the floor, and of these differences the median.
//! Bars are bars on own cost; without a pipeline, where nearly all is the kernel's, on the whole cost to the floor's.

use clap::Args;

use crate::bench::{
    CommonArgs, Contender, Lane, Role, RoundArgs, Rounds, Setup, at_least_one, interleaved, leave_scene,
    load_collections, load_keys, settle,
};
use crate::error::{BenchError, Result};
use crate::floor;
use crate::load::named::{self, Answer, Arg, Judged, NAMED, Request};
use crate::load::workload::{Op, Pool, Stored};
use crate::report::{Report, Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;

#[derive(Args, Clone, Debug)]
pub struct MacroArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    /// Runs exactly the rows that have a bar, with the floor, and says whether they hold it
    #[arg(long, conflicts_with_all = ["ops", "pipelines", "connections", "values"])]
    pub bars: bool,
    /// Measures a server that does nothing as well, and so own costs: what servers cost beyond the kernel and a bare
    /// epoll loop. It knows get, set and the operations over collections only
    #[arg(long)]
    pub floor: bool,
    /// get, set, get:set, incr, mget10, mset10, exec5, copy, and the operations over collections of `named.rs`: lpush,
    /// lpush:rpop, lrange100 ...
    #[arg(long, value_delimiter = ',', default_value = "get,set,incr,mget10,mset10")]
    pub ops: Vec<Op>,
    /// Requests that a connection has under way
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = at_least_one)]
    pub pipelines: Vec<usize>,
    #[arg(long, value_delimiter = ',', default_value = "50,1000", value_parser = at_least_one)]
    pub connections: Vec<usize>,
    /// Bytes of a value
    #[arg(long, value_delimiter = ',', default_value = "8,64,1024", value_parser = at_least_one)]
    pub values: Vec<usize>,
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    op: Op,
    value_len_bytes: usize,
    connections: usize,
    pipeline: usize,
}

/// The most that something of ours may be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bar {
    /// Our CPU an operation, to the floor's of the same round.
    ToFloor(f64),
    /// Our own cost, to that of the peer with the lowest.
    OwnToBestPeer(f64),
}

impl Bar {
    fn limit(self) -> f64 {
        match self {
            Bar::ToFloor(limit) | Bar::OwnToBestPeer(limit) => limit,
        }
    }
}

const BARS: [(Op, usize, Bar); 6] = [
    (Op::GetSet, 1, Bar::ToFloor(1.12)),
    (Op::GetSet, 16, Bar::OwnToBestPeer(0.25)),
    (Op::GetSet, 64, Bar::OwnToBestPeer(0.20)),
    (Op::Get, 1, Bar::ToFloor(1.12)),
    (Op::Get, 16, Bar::OwnToBestPeer(0.25)),
    (Op::Get, 64, Bar::OwnToBestPeer(0.20)),
];
const BAR_VALUE_LEN_BYTES: usize = 64;
const BAR_CONNECTIONS: usize = 50;

/// Cells with more bytes than this under way would measure the kernel's socket buffers.
const IN_FLIGHT_BYTES_MAX: usize = 128 << 20;

fn bar_of(cell: Cell) -> Option<Bar> {
    if let Some(named) = cell.op.named() {
        let named::Bar { pipeline, judged, limit } = named.bar;
        let is_it = judged == Judged::OwnToBestPeer
            && cell.connections == BAR_CONNECTIONS
            && cell.pipeline == pipeline;
        return is_it.then_some(Bar::OwnToBestPeer(limit));
    }
    if cell.value_len_bytes != BAR_VALUE_LEN_BYTES || cell.connections != BAR_CONNECTIONS {
        return None;
    }
    BARS.iter().find(|(op, pipeline, _)| (*op, *pipeline) == (cell.op, cell.pipeline)).map(|(_, _, bar)| *bar)
}

/// The cells to run, by value size first, so that keys are loaded as seldom as possible; and those left out.
fn cells_of(args: &MacroArgs) -> (Vec<Cell>, Vec<Cell>) {
    if args.bars {
        let cell = |(op, pipeline, _)| Cell {
            op,
            value_len_bytes: BAR_VALUE_LEN_BYTES,
            connections: BAR_CONNECTIONS,
            pipeline,
        };
        let rows = NAMED.iter().enumerate().filter(|(_, named)| named.bar.judged == Judged::OwnToBestPeer);
        let named = rows.map(|(row, named)| Cell {
            op: Op::Named(row),
            value_len_bytes: BAR_VALUE_LEN_BYTES,
            connections: BAR_CONNECTIONS,
            pipeline: named.bar.pipeline,
        });
        return (BARS.map(cell).into_iter().chain(named).collect(), Vec::new());
    }
    let mut cells = Vec::new();
    for (at, &value_len_bytes) in args.values.iter().enumerate() {
        // One size stands for all where values play no part.
        for &op in args.ops.iter().filter(|op| at == 0 || op.has_values()) {
            for &connections in &args.connections {
                for &pipeline in &args.pipelines {
                    cells.push(Cell { op, value_len_bytes, connections, pipeline });
                }
            }
        }
    }
    let fits = |cell: &Cell| {
        cell.connections * cell.pipeline * cell.op.wire_len_bytes(cell.value_len_bytes) <= IN_FLIGHT_BYTES_MAX
    };
    cells.into_iter().partition(fits)
}

pub fn run(args: &MacroArgs) -> Result<Verdict> {
    let (cells, left_out) = cells_of(args);
    // The bars are judged by it.
    let with_floor = args.floor || args.bars;
    let beyond_floor = |cell: &&Cell| !matches!(cell.op, Op::Get | Op::Set | Op::GetSet | Op::Named(_));
    if let Some(cell) = cells.iter().find(beyond_floor).filter(|_| with_floor) {
        return Err(BenchError::new(format!(
            "--floor cannot answer {}: give --ops get,set,get:set, or operations over collections",
            cell.op
        )));
    }
    let (name, title) =
        if args.bars { ("bars", "Macro bench: the rows with a bar") } else { ("macro", "Macro bench") };
    let mut setup = Setup::new(&args.common, name, title)?;
    if with_floor {
        setup.add_floor()?;
    }
    let servers = setup.start_all()?;
    let rounds = &args.rounds;
    let per_round_s = rounds.seconds + rounds.warm_up + 0.02;
    let total_s = (cells.len() * servers.len()) as f64 * f64::from(rounds.rounds) * per_round_s;
    println!(
        "{} cells x {} servers: about {:.0} minutes",
        cells.len(),
        servers.len(),
        (total_s / 60.0).ceil()
    );
    let conditions = format!(
        "Servers on core {:?}, generator on core {:?}; {} rounds of {} s, {} keys; medians over the rounds.",
        setup.server_cores, setup.generator.cores, rounds.rounds, rounds.seconds, rounds.keyspace
    );
    setup.report.paragraph(&conditions);

    let mut table = Table::new([
        "op",
        "value B",
        "connections",
        "pipeline",
        "server",
        "ops/s",
        "CPU us/op",
        "(min-max)",
        "in the kernel",
        "to best peer",
        "own us/op",
        "own to best peer",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "server busy",
        "generator busy",
        "limit",
    ]);
    let mut bars = Table::new([
        "op",
        "pipeline",
        "ours us/op",
        "floor us/op",
        "own us/op",
        "best peer's own us/op",
        "judged",
        "ratio",
        "rounds (min-max)",
        "bar",
        "",
    ]);
    let mut loaded_value_len = None;
    for (at, &cell) in cells.iter().enumerate() {
        if let Op::Named(row) = cell.op {
            prepare_named(&setup, &servers, row)?;
            loaded_value_len = None;
        } else if loaded_value_len != Some(cell.value_len_bytes) {
            let with_counters = loaded_value_len.is_none() && cells.iter().any(|cell| cell.op == Op::Incr);
            load(&setup, &servers, args.rounds.keyspace, cell.value_len_bytes, with_counters)?;
            loaded_value_len = Some(cell.value_len_bytes);
        }
        let rounds = run_cell(&setup, &servers, cell, &args.rounds)?;
        if let Op::Named(row) = cell.op {
            leave_named(&mut setup, &servers, row)?;
        }
        add_rows(&mut table, cell, &servers, &rounds, setup.server_cores.len());
        if args.bars {
            add_bar(&mut bars, &mut setup.report, cell, &Costs::of(&servers, &rounds));
        }
        progress(at + 1, cells.len(), cell, &servers, &rounds);
    }

    if !bars.is_empty() {
        setup.report.table("Bars: CPU to the floor's, own cost to the best peer's", &bars);
    }
    setup.report.table("All figures", &table);
    if !left_out.is_empty() {
        let text = format!(
            "Left out: {} cells with more than {} MiB under way.",
            left_out.len(),
            IN_FLIGHT_BYTES_MAX >> 20
        );
        setup.report.paragraph(&text);
    }
    drop(servers);
    setup.report.finish(&args.common.results)
}

fn load(
    setup: &Setup,
    servers: &[(Contender, Server)],
    keyspace: u64,
    value_len_bytes: usize,
    with_counters: bool,
) -> Result<()> {
    for (_, server) in servers {
        if with_counters {
            load_keys(server, Stored::Counter, keyspace, &setup.generator)?;
        }
        load_keys(server, Stored::Text { len_bytes: value_len_bytes }, keyspace, &setup.generator)?;
    }
    servers.iter().try_for_each(|(_, server)| settle(server))
}

/// Fills the servers anew with the collections of a named operation, and tells the floor what to answer to its requests.
fn prepare_named(setup: &Setup, servers: &[(Contender, Server)], row: usize) -> Result<()> {
    let named = &NAMED[row];
    for (contender, server) in servers {
        if contender.role == Role::Floor {
            for request in named.requests {
                let Arg::Word(command) = request.args[0] else {
                    unreachable!("a command begins with its name")
                };
                let answer = String::from_utf8(request.answer.bytes()).expect("answers are text");
                server.ask(&[floor::ANSWER, command, &answer])?;
            }
            if let [Request { answer: Answer::Payload(len), .. }] = named.requests {
                // It answers to GET with what was last set, whatever it is told.
                server.ask(&["SET", "col:000000000000", &"x".repeat(*len)])?;
            }
        } else {
            load_collections(server, row, &setup.generator)?;
        }
    }
    Ok(())
}

/// Servers are as they were before, but for the collections.
fn leave_named(setup: &mut Setup, servers: &[(Contender, Server)], row: usize) -> Result<()> {
    for (_, server) in servers.iter().filter(|(contender, _)| contender.role != Role::Floor) {
        if let Some(remark) = leave_scene(server, row)? {
            println!("{}: {remark}", NAMED[row].name);
            setup.report.paragraph(&format!("{}: {remark}.", NAMED[row].name));
        }
    }
    Ok(())
}

fn run_cell(
    setup: &Setup,
    servers: &[(Contender, Server)],
    cell: Cell,
    args: &RoundArgs,
) -> Result<Vec<Rounds>> {
    let pool = Pool::build(cell.op, cell.pipeline, args.keyspace, cell.value_len_bytes, args.seed);
    let mut lanes = servers
        .iter()
        .map(|(_, server)| Lane::connect_for(cell.op, server, cell.connections, &setup.generator))
        .collect::<Result<Vec<_>>>()?;
    interleaved(&mut lanes, &pool, args)
}

/// What the servers of a cell cost: CPU us/op, a value a round.
struct Costs<'a> {
    ours: Option<&'a [f64]>,
    peers: Vec<&'a [f64]>,
    floor: Option<&'a [f64]>,
}

impl<'a> Costs<'a> {
    fn of(servers: &[(Contender, Server)], rounds: &'a [Rounds]) -> Costs<'a> {
        let mut costs = Costs { ours: None, peers: Vec::new(), floor: None };
        for ((contender, _), rounds) in servers.iter().zip(rounds) {
            let cost = &rounds.cpu_us_per_op[..];
            match contender.role {
                Role::Ours => costs.ours = Some(cost),
                Role::Peer => costs.peers.push(cost),
                Role::Floor => costs.floor = Some(cost),
            }
        }
        costs
    }

    /// The own cost of a server of the cell, round by round; None without the floor.
    fn own(&self, cost: &[f64]) -> Option<Vec<f64>> {
        Some(stats::own_costs_by_round(cost, self.floor?))
    }

    fn peers_own(&self) -> Vec<Vec<f64>> {
        self.peers.iter().filter_map(|cost| self.own(cost)).collect()
    }

    /// The whole cost of the best peer, by medians.
    fn best_peer(&self) -> Option<f64> {
        stats::best_median(self.peers.iter().copied())
    }

    /// The own cost of the peer whose own cost is lowest, by medians.
    fn best_peer_own(&self) -> Option<f64> {
        stats::best_median(self.peers_own().iter().map(Vec::as_slice))
    }

    /// What `bar` is about: the ratio that is judged, and the same ratio round by round. None where one of the servers
    /// is missing.
    fn judged(&self, bar: Bar) -> Option<(f64, Vec<f64>)> {
        let ours = self.ours?;
        match bar {
            Bar::ToFloor(_) => {
                let by_round = stats::ratios_by_round(ours, &[self.floor?]);
                Some((stats::median(&by_round), by_round))
            }
            Bar::OwnToBestPeer(_) => {
                let own = self.own(ours)?;
                let peers_own = self.peers_own();
                let peers_own: Vec<&[f64]> = peers_own.iter().map(Vec::as_slice).collect();
                // A peer that costs less than the floor makes no figure: NaN holds no bar.
                let best = self.best_peer_own().map(|best| if best > 0.0 { best } else { f64::NAN })?;
                let ratio = stats::median(&own) / best;
                Some((ratio, stats::ratios_by_round(&own, &peers_own)))
            }
        }
    }
}

fn add_rows(
    table: &mut Table,
    cell: Cell,
    servers: &[(Contender, Server)],
    rounds: &[Rounds],
    server_cores: usize,
) {
    let costs = Costs::of(servers, rounds);
    let to_best = |cost: f64, best: Option<f64>| best.map(|best| format!("{:.2}", cost / best));
    for ((contender, server), rounds) in servers.iter().zip(rounds) {
        let cpu = stats::median(&rounds.cpu_us_per_op);
        let (low, high) = stats::spread(&rounds.cpu_us_per_op);
        let own = costs.own(&rounds.cpu_us_per_op).filter(|_| contender.role != Role::Floor);
        let own = own.map(|own| stats::median(&own));
        let ratio = to_best(cpu, costs.best_peer()).filter(|_| contender.is_ours());
        let own_ratio =
            own.and_then(|own| to_best(own, costs.best_peer_own())).filter(|_| contender.is_ours());
        table.row([
            cell.op.to_string(),
            if cell.op.has_values() { cell.value_len_bytes.to_string() } else { "-".to_string() },
            cell.connections.to_string(),
            cell.pipeline.to_string(),
            server.program.name.clone(),
            grouped(stats::median(&rounds.ops_per_s)),
            figure(cpu),
            format!("({}-{})", figure(low), figure(high)),
            format!("{:.0} %", stats::median(&rounds.kernel_share) * 100.0),
            ratio.unwrap_or_default(),
            own.map(figure).unwrap_or_default(),
            own_ratio.unwrap_or_default(),
            figure(stats::median(&rounds.p50_us)),
            figure(stats::median(&rounds.p99_us)),
            figure(stats::median(&rounds.p999_us)),
            format!("{:.0} %", stats::median(&rounds.server_cores_busy) * 100.0),
            format!("{:.0} %", stats::median(&rounds.generator_busy) * 100.0),
            rounds.limit(server_cores).to_string(),
        ]);
    }
}

fn add_bar(table: &mut Table, report: &mut Report, cell: Cell, costs: &Costs) {
    let Some(bar) = bar_of(cell) else { return };
    let Some((ratio, by_round)) = costs.judged(bar) else { return };
    let (low, high) = stats::spread(&by_round);
    let verdict = Verdict::at_most(ratio, bar.limit());
    report.verdict(&format!("{} at pipeline {}", cell.op, cell.pipeline), verdict);
    let median = |cost: Option<&[f64]>| cost.map(|cost| figure(stats::median(cost))).unwrap_or_default();
    let own = costs.ours.and_then(|ours| costs.own(ours));
    table.row([
        cell.op.to_string(),
        cell.pipeline.to_string(),
        median(costs.ours),
        median(costs.floor),
        median(own.as_deref()),
        costs.best_peer_own().map(figure).unwrap_or_default(),
        match bar {
            Bar::ToFloor(_) => "ours to floor",
            Bar::OwnToBestPeer(_) => "own to best peer's",
        }
        .to_string(),
        format!("{ratio:.3}"),
        format!("({low:.2}-{high:.2})"),
        format!("<= {}", bar.limit()),
        verdict.text().to_string(),
    ]);
}

fn progress(done: usize, cells: usize, cell: Cell, servers: &[(Contender, Server)], rounds: &[Rounds]) {
    let figures: Vec<String> = servers
        .iter()
        .zip(rounds)
        .map(|((_, server), rounds)| {
            format!("{} {} us/op", server.program.name, figure(stats::median(&rounds.cpu_us_per_op)))
        })
        .collect();
    println!(
        "{done:>3}/{cells} {} {} B, {} connections, pipeline {}: {}",
        cell.op,
        cell.value_len_bytes,
        cell.connections,
        cell.pipeline,
        figures.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: MacroArgs,
    }

    fn args(words: &[&str]) -> MacroArgs {
        Cli::try_parse_from([&["bench"], words].concat()).unwrap().args
    }

    #[test]
    fn the_bar_rows_are_the_rows_with_a_bar() {
        let (cells, left_out) = cells_of(&args(&["--bars"]));
        assert_eq!(
            (cells.len(), left_out.len()),
            (BARS.len() + NAMED.iter().filter(|named| named.bar.judged == Judged::OwnToBestPeer).count(), 0)
        );
        assert!(cells.iter().all(|&cell| bar_of(cell).is_some()));
        assert_eq!(bar_of(Cell { connections: 1000, ..cells[0] }), None);
    }

    #[test]
    fn bars_are_judged_by_the_floor_of_the_same_round_and_by_the_better_peers_own_cost() {
        // The machine halves its speed in the last round.
        let (ours, floor) = ([1.2, 1.2, 2.4], [1.0, 1.0, 2.0]);
        let (redis, valkey) = ([3.0, 3.0, 6.0], [2.0, 2.0, 4.0]);
        let costs = Costs { ours: Some(&ours), peers: vec![&redis, &valkey], floor: Some(&floor) };
        let judged = |bar| costs.judged(bar).map(|(ratio, _)| (ratio * 1000.0).round());
        assert_eq!(judged(Bar::ToFloor(1.12)), Some(1200.0));
        assert_eq!(judged(Bar::OwnToBestPeer(0.25)), Some(200.0));

        let without_floor = Costs { floor: None, ..costs };
        assert!(without_floor.judged(Bar::ToFloor(1.12)).is_none());
        assert!(without_floor.judged(Bar::OwnToBestPeer(0.25)).is_none());
    }

    #[test]
    fn the_matrix_is_the_product_but_operations_without_values_run_once() {
        let (cells, left_out) = cells_of(&args(&[]));
        let incr = cells.iter().filter(|cell| cell.op == Op::Incr).count();
        assert_eq!(incr, 6);
        assert_eq!(cells.len() + left_out.len(), 4 * 3 * 2 * 3 + incr);
    }

    #[test]
    fn cells_that_would_measure_socket_buffers_are_left_out() {
        let (cells, left_out) =
            cells_of(&args(&["--ops", "mset10", "--connections", "1000", "--pipelines", "64"]));
        assert_eq!(cells.iter().map(|cell| cell.value_len_bytes).collect::<Vec<_>>(), [8, 64]);
        assert_eq!(left_out.iter().map(|cell| cell.value_len_bytes).collect::<Vec<_>>(), [1024]);
    }
}
