//! The macro bench: operations x pipelines x connections x values, every server in every round, medians over rounds.
//!
//! All servers stay up on the same core while one of them is driven; idle ones cost it nothing that can be measured.
//! Rounds are interleaved because the machine's speed drifts within seconds: the servers of a round share its weather,
//! so ratios hold where absolute figures do not.

use clap::Args;

use crate::bench::{
    CommonArgs, Contender, Lane, Role, RoundArgs, Rounds, Setup, at_least_one, interleaved, load_keys,
};
use crate::error::{BenchError, Result};
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
    /// Runs exactly the rows that have a bar, and says whether they hold it
    #[arg(long, conflicts_with_all = ["ops", "pipelines", "connections", "values"])]
    pub bars: bool,
    /// Measures a server that does nothing as well: what the kernel and a bare epoll loop cost. Knows get and set only
    #[arg(long)]
    pub floor: bool,
    /// get, set, get:set, incr, mget10, mset10, exec5
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

/// Server CPU of ours over that of the best peer, at most.
const BARS: [(Op, usize, f64); 6] = [
    (Op::GetSet, 1, 0.75),
    (Op::GetSet, 16, 0.45),
    (Op::GetSet, 64, 0.35),
    (Op::Get, 1, 0.75),
    (Op::Get, 16, 0.55),
    (Op::Get, 64, 0.45),
];
const BAR_VALUE_LEN_BYTES: usize = 64;
const BAR_CONNECTIONS: usize = 50;

/// Cells with more bytes than this under way would measure the kernel's socket buffers.
const IN_FLIGHT_BYTES_MAX: usize = 128 << 20;

fn bar_of(cell: Cell) -> Option<f64> {
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
        return (BARS.map(cell).to_vec(), Vec::new());
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
    let beyond_floor = |cell: &&Cell| !matches!(cell.op, Op::Get | Op::Set | Op::GetSet);
    if let Some(cell) = cells.iter().find(beyond_floor).filter(|_| args.floor) {
        return Err(BenchError::new(format!(
            "--floor cannot answer {}: give --ops get,set,get:set",
            cell.op
        )));
    }
    let (name, title) =
        if args.bars { ("bars", "Macro bench: the rows with a bar") } else { ("macro", "Macro bench") };
    let mut setup = Setup::new(&args.common, name, title)?;
    if args.floor {
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
        "best peer us/op",
        "ratio",
        "by round",
        "(min-max)",
        "bar",
        "",
        "floor to best peer",
    ]);
    let mut loaded_value_len = None;
    for (at, &cell) in cells.iter().enumerate() {
        if loaded_value_len != Some(cell.value_len_bytes) {
            let with_counters = loaded_value_len.is_none() && cells.iter().any(|cell| cell.op == Op::Incr);
            load(&setup, &servers, args.rounds.keyspace, cell.value_len_bytes, with_counters)?;
            loaded_value_len = Some(cell.value_len_bytes);
        }
        let rounds = run_cell(&setup, &servers, cell, &args.rounds)?;
        add_rows(&mut table, cell, &servers, &rounds, setup.server_cores.len());
        if args.bars {
            add_bar(&mut bars, &mut setup.report, cell, &servers, &rounds);
        }
        progress(at + 1, cells.len(), cell, &servers, &rounds);
    }

    if !bars.is_empty() {
        setup.report.table("Bars: server CPU, ours to the best peer", &bars);
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
        .map(|(_, server)| Lane::connect(server, cell.connections, &setup.generator))
        .collect::<Result<Vec<_>>>()?;
    interleaved(&mut lanes, &pool, args)
}

/// CPU us/op, round by round, of each server of a role.
fn rounds_of<'a>(
    role: Role,
    servers: &'a [(Contender, Server)],
    rounds: &'a [Rounds],
) -> impl Iterator<Item = &'a [f64]> {
    let of_role = servers.iter().zip(rounds).filter(move |((contender, _), _)| contender.role == role);
    of_role.map(|(_, rounds)| &rounds.cpu_us_per_op[..])
}

/// Our CPU us/op and the best peer's, by medians.
fn ours_and_best_peer(servers: &[(Contender, Server)], rounds: &[Rounds]) -> Option<(f64, f64)> {
    let best_of = |role| stats::best_median(rounds_of(role, servers, rounds));
    Some((best_of(Role::Ours)?, best_of(Role::Peer)?))
}

fn add_rows(
    table: &mut Table,
    cell: Cell,
    servers: &[(Contender, Server)],
    rounds: &[Rounds],
    server_cores: usize,
) {
    let best_peer = ours_and_best_peer(servers, rounds).map(|(_, best)| best);
    for ((contender, server), rounds) in servers.iter().zip(rounds) {
        let cpu = stats::median(&rounds.cpu_us_per_op);
        let (low, high) = stats::spread(&rounds.cpu_us_per_op);
        let ratio = best_peer.filter(|_| contender.is_ours()).map(|best| format!("{:.2}", cpu / best));
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
            figure(stats::median(&rounds.p50_us)),
            figure(stats::median(&rounds.p99_us)),
            figure(stats::median(&rounds.p999_us)),
            format!("{:.0} %", stats::median(&rounds.server_cores_busy) * 100.0),
            format!("{:.0} %", stats::median(&rounds.generator_busy) * 100.0),
            rounds.limit(server_cores).to_string(),
        ]);
    }
}

fn add_bar(
    table: &mut Table,
    report: &mut Report,
    cell: Cell,
    servers: &[(Contender, Server)],
    rounds: &[Rounds],
) {
    let (Some(bar), Some((ours, best))) = (bar_of(cell), ours_and_best_peer(servers, rounds)) else { return };
    let ratio = ours / best;
    let by_round = stats::ratios_by_round(
        rounds_of(Role::Ours, servers, rounds).next().unwrap_or(&[]),
        &rounds_of(Role::Peer, servers, rounds).collect::<Vec<_>>(),
    );
    let (low, high) = stats::spread(&by_round);
    let floor = stats::best_median(rounds_of(Role::Floor, servers, rounds));
    let verdict = Verdict::at_most(ratio, bar);
    report.verdict(&format!("{} at pipeline {}", cell.op, cell.pipeline), verdict);
    table.row([
        cell.op.to_string(),
        cell.pipeline.to_string(),
        figure(ours),
        figure(best),
        format!("{ratio:.3}"),
        format!("{:.3}", stats::median(&by_round)),
        format!("({low:.2}-{high:.2})"),
        format!("<= {bar}"),
        verdict.text().to_string(),
        floor.map_or(String::new(), |floor| format!("{:.3}", floor / best)),
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
        assert_eq!((cells.len(), left_out.len()), (BARS.len(), 0));
        assert!(cells.iter().all(|&cell| bar_of(cell).is_some()));
        assert_eq!(bar_of(Cell { connections: 1000, ..cells[0] }), None);
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
