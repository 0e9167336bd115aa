//! Growth stalls: the longest that an insertion waits while ten million keys go in, and whose fault that was.
//!
//! Few connections with short pipelines keep the queue in front of the server near a hundred microseconds, so a wait of
//! a millisecond stands out. From such a wait is taken off the time in which our own loop stood still, and the time in
//! which the server was ready to run and the machine did not let it. What remains is the server's: at work, or asleep
//! for a reason of its own. A hypervisor that takes the time from under a running server cannot be told from that. So the
//! same load runs again over keys that exist, where nothing grows, and the whole is repeated: growth stalls come back
//! in every fill, bad luck does not.

use std::collections::VecDeque;

use clap::Args;

use crate::bench::{CommonArgs, Contender, Setup, at_least_one, in_thread};
use crate::error::{Context, Result};
use crate::histogram::Histogram;
use crate::load::driver::{Driver, Observer, Window};
use crate::load::workload::{SetSequence, Stored};
use crate::proc::RunDelay;
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;

#[derive(Args, Clone, Debug)]
pub struct GrowthArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[arg(long, default_value_t = 10_000_000)]
    pub keys: u64,
    /// Fresh servers filled, one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub fills: u32,
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub connections: usize,
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub pipeline: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    pub value: usize,
}

/// Waits from here on are stalls, and the bar: growth makes none.
const STALL_NS: u64 = 1_000_000;
/// Gaps of our own loop from here on are remembered, to be held against stalls.
const GAP_NS: u64 = 200_000;
/// So many of them: more than any stall that is one holds.
const GAPS_MAX: usize = 16;
/// The server's run delay is read this often: seldom enough to leave the load alone.
const DELAY_READ_EVERY_NS: u64 = 100_000;
/// Stalls of each pass that are listed.
const LISTED_STALLS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Server,
    Generator,
    Machine,
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    wait_ns: u64,
    /// How much of it is the server's.
    server_ns: u64,
    /// Keys sent when the stalled pipeline went out.
    keys: u64,
    cause: Cause,
}

impl Stall {
    /// Tells whose fault a wait was: how long our own loop stood still in it, and how long the server waited for a core.
    fn of(wait_ns: u64, generator_ns: u64, machine_ns: u64, keys: u64) -> Stall {
        let server_ns = wait_ns.saturating_sub(generator_ns).saturating_sub(machine_ns);
        let cause = if server_ns > STALL_NS {
            Cause::Server
        } else if generator_ns > machine_ns {
            Cause::Generator
        } else {
            Cause::Machine
        };
        Stall { wait_ns, server_ns, keys, cause }
    }
}

/// Watches a load for stalls.
struct StallWatch {
    server: RunDelay,
    /// The server's run delay, and when it was read.
    delay_ns: u64,
    delay_read_at_ns: u64,
    /// The run delay and the keys sent at the start of each connection's pipeline.
    at_send: Vec<(u64, u64)>,
    pipeline: u64,
    batches_sent: u64,
    last_turn_ns: u64,
    /// Ends and lengths of our own loop's latest gaps.
    gaps: VecDeque<(u64, u64)>,
    stalls: Vec<Stall>,
}

impl StallWatch {
    fn new(server: RunDelay, connections: usize, pipeline: usize) -> StallWatch {
        StallWatch {
            server,
            delay_ns: 0,
            delay_read_at_ns: 0,
            at_send: vec![(0, 0); connections],
            pipeline: pipeline as u64,
            batches_sent: 0,
            last_turn_ns: 0,
            gaps: VecDeque::new(),
            stalls: Vec::new(),
        }
    }
}

impl Observer for StallWatch {
    fn turn(&mut self, now_ns: u64) {
        if self.last_turn_ns > 0 && now_ns - self.last_turn_ns > GAP_NS {
            self.gaps.push_back((now_ns, now_ns - self.last_turn_ns));
            if self.gaps.len() > GAPS_MAX {
                self.gaps.pop_front();
            }
        }
        self.last_turn_ns = now_ns;
    }

    fn batch_sent(&mut self, index: usize, now_ns: u64) {
        if now_ns - self.delay_read_at_ns > DELAY_READ_EVERY_NS {
            self.delay_ns = self.server.total_ns();
            self.delay_read_at_ns = now_ns;
        }
        self.at_send[index] = (self.delay_ns, self.batches_sent * self.pipeline);
        self.batches_sent += 1;
    }

    fn batch_done(&mut self, index: usize, sent_at_ns: u64, now_ns: u64) {
        let wait_ns = now_ns - sent_at_ns;
        if wait_ns <= STALL_NS {
            return;
        }
        let (delay_ns, keys) = self.at_send[index];
        let machine_ns = self.server.total_ns().saturating_sub(delay_ns);
        let overlap = |&(end_ns, len_ns): &(u64, u64)| {
            let start_ns = (end_ns - len_ns).max(sent_at_ns);
            end_ns.min(now_ns).saturating_sub(start_ns)
        };
        // The gap may be this very turn's: we may have lost our core between the look and the read.
        let this_turn = (now_ns, now_ns - self.last_turn_ns);
        let this_turn = Some(this_turn).filter(|&(_, len_ns)| len_ns > GAP_NS);
        let generator_ns = self.gaps.iter().chain(&this_turn).map(overlap).sum();
        self.stalls.push(Stall::of(wait_ns, generator_ns, machine_ns, keys));
    }
}

/// One pass of the load over all keys.
struct Pass {
    latencies_ns: Histogram,
    stalls: Vec<Stall>,
}

impl Pass {
    fn worst_by_server_ns(&self) -> u64 {
        let by_server = self.stalls.iter().filter(|stall| stall.cause == Cause::Server);
        by_server.map(|stall| stall.server_ns).max().unwrap_or(0)
    }

    fn count_by(&self, cause: Cause) -> usize {
        self.stalls.iter().filter(|stall| stall.cause == cause).count()
    }

    /// The worst ones, the server's first: pipelines that waited for the same stall are told once.
    fn listed(&self) -> String {
        let mut worst: Vec<Stall> = Vec::new();
        let mut stalls = self.stalls.clone();
        stalls.sort_by_key(|stall| std::cmp::Reverse((stall.server_ns, stall.wait_ns)));
        for stall in stalls {
            let is_told = |told: &Stall| told.keys.abs_diff(stall.keys) < 1_000;
            if worst.len() < LISTED_STALLS && !worst.iter().any(is_told) {
                worst.push(stall);
            }
        }
        let text = |stall: &Stall| {
            let cause = match stall.cause {
                Cause::Server => &format!("server {} ms", figure(stall.server_ns as f64 / 1e6)),
                Cause::Generator => "generator",
                Cause::Machine => "machine",
            };
            format!("{} ms at {} ({cause})", figure(stall.wait_ns as f64 / 1e6), grouped(stall.keys as f64))
        };
        worst.iter().map(text).collect::<Vec<_>>().join("; ")
    }
}

/// The worst stall of the server that came back in every pass: the smallest of the passes' worst ones.
fn recurring_ns(passes: &[Pass]) -> u64 {
    passes.iter().map(|pass| pass.worst_by_server_ns()).min().unwrap_or(0)
}

pub fn run(args: &GrowthArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "growth", "Growth stalls")?;
    let conditions = format!(
        "{} keys of 16 B with values of {} B, {} connections, pipeline {}. Waits are of whole pipelines.",
        grouped(args.keys as f64),
        args.value,
        args.connections,
        args.pipeline
    );
    setup.report.paragraph(&conditions);
    let mut passes_table = Table::new([
        "server",
        "pass",
        "p50 us",
        "p99.99 us",
        "max ms",
        "stalls: server",
        "generator",
        "machine",
        "worst, at key",
    ]);
    let mut bars = Table::new(["server", "recurring stall, inserting, ms", "rewriting, ms", "bar ms", ""]);
    for contender in setup.contenders.clone() {
        let (mut inserting, mut rewriting) = (Vec::new(), Vec::new());
        for fill in 1..=args.fills {
            let cores = setup.server_cores.clone();
            let server = setup.start(&contender, 1, &cores)?;
            for (what, passes) in [("insert", &mut inserting), ("rewrite", &mut rewriting)] {
                let pass = load(&setup, &server, args)?;
                add_pass(&mut passes_table, &contender, &format!("{what} {fill}"), &pass);
                println!("{} {what} {fill}: {}", contender.program.name, pass.listed());
                passes.push(pass);
            }
        }
        let (inserting_ns, rewriting_ns) = (recurring_ns(&inserting), recurring_ns(&rewriting));
        // What rewriting shows as well is not growth's doing.
        let bar_ns = STALL_NS.max(rewriting_ns);
        let verdict = contender.is_ours().then(|| Verdict::at_most(inserting_ns as f64, bar_ns as f64));
        if let Some(verdict) = verdict {
            setup.report.verdict("growth stalls", verdict);
        }
        bars.row([
            contender.program.name.clone(),
            figure(inserting_ns as f64 / 1e6),
            figure(rewriting_ns as f64 / 1e6),
            verdict.map(|_| format!("<= {}", figure(bar_ns as f64 / 1e6))).unwrap_or_default(),
            verdict.map_or("", Verdict::text).to_string(),
        ]);
    }
    setup.report.table("Stalls over 1 ms by the server that came back in every fill", &bars);
    setup.report.table("All passes", &passes_table);
    setup.report.finish(&args.common.results)
}

fn load(setup: &Setup, server: &Server, args: &GrowthArgs) -> Result<Pass> {
    let what = || format!("{}: growth load", server.program.name);
    let placement = &setup.generator;
    let mut driver =
        Driver::connect(server.address, args.connections, &placement.cores, placement.wait).context(what)?;
    let mut source = SetSequence::new(Stored::Text { len_bytes: args.value }, args.keys, args.pipeline, 1);
    let delay = RunDelay::of(server.pid()).context(what)?;
    let mut watch = StallWatch::new(delay, args.connections, args.pipeline);
    let tally = in_thread(|| driver.run(&mut source, Window::whole_source(), &mut watch)).context(what)?;
    Ok(Pass { latencies_ns: tally.latencies_ns, stalls: watch.stalls })
}

fn add_pass(table: &mut Table, contender: &Contender, name: &str, pass: &Pass) {
    table.row([
        contender.program.name.clone(),
        name.to_string(),
        figure(pass.latencies_ns.quantile(0.5) as f64 / 1e3),
        figure(pass.latencies_ns.quantile(0.9999) as f64 / 1e3),
        figure(pass.latencies_ns.max() as f64 / 1e6),
        pass.count_by(Cause::Server).to_string(),
        pass.count_by(Cause::Generator).to_string(),
        pass.count_by(Cause::Machine).to_string(),
        pass.listed(),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stall of which the generator and the machine have no part.
    fn by_server(wait_ns: u64, keys: u64) -> Stall {
        Stall::of(wait_ns, 0, 0, keys)
    }

    fn pass(stalls: &[Stall]) -> Pass {
        Pass { latencies_ns: Histogram::default(), stalls: stalls.to_vec() }
    }

    #[test]
    fn a_wait_is_the_servers_less_what_the_generator_and_the_machine_took() {
        let of = |wait_ns, generator_ns, machine_ns| {
            let stall = Stall::of(wait_ns, generator_ns, machine_ns, 0);
            (stall.cause, stall.server_ns)
        };
        assert_eq!(of(2_000_000, 0, 0), (Cause::Server, 2_000_000));
        assert_eq!(of(2_000_000, 0, 1_500_000), (Cause::Machine, 500_000));
        assert_eq!(of(2_000_000, 1_500_000, 0), (Cause::Generator, 500_000));
        assert_eq!(of(9_000_000, 1_500_000, 2_000_000), (Cause::Server, 5_500_000));
        // Both can wait at the same time, so the parts can be more than the whole.
        assert_eq!(of(2_000_000, 1_500_000, 1_900_000), (Cause::Machine, 0));
    }

    #[test]
    fn only_a_stall_of_the_server_in_every_pass_recurs() {
        let growth = by_server(30_000_000, 4_000_000);
        let bad_luck = by_server(90_000_000, 123_456);
        assert_eq!(recurring_ns(&[pass(&[growth, bad_luck]), pass(&[growth])]), 30_000_000);
        assert_eq!(recurring_ns(&[pass(&[bad_luck]), pass(&[])]), 0);
        assert_eq!(recurring_ns(&[pass(&[Stall::of(5_000_000, 0, 4_500_000, 1)])]), 0);
    }

    #[test]
    fn pipelines_caught_in_the_same_stall_are_told_once_and_the_servers_stalls_first() {
        let pass = pass(&[
            Stall::of(9_000_000, 0, 9_000_000, 5_000_000),
            by_server(3_000_000, 1_000_016),
            by_server(3_100_000, 1_000_000),
        ]);
        assert_eq!(pass.listed(), "3.10 ms at 1,000,000 (server 3.10 ms); 9.00 ms at 5,000,000 (machine)");
    }
}
