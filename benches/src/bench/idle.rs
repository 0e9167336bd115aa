//! What a server costs while nobody asks it anything: timers, polls, housekeeping.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::{CommonArgs, Contender, Setup, positive_seconds};
use crate::error::{Context, Result};
use crate::proc;
use crate::report::{Table, Verdict, figure};
use crate::server::Server;

/// Percent of a core, at most, without connections.
const IDLE_BAR_PERCENT: f64 = 0.2;
/// Start-up work and the accepting of connections end before the clock starts.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[arg(long, default_value_t = 10.0, value_parser = positive_seconds)]
    pub seconds: f64,
    /// Idle connections; the bar holds for 0
    #[arg(long, value_delimiter = ',', default_value = "0,1000")]
    pub connections: Vec<usize>,
}

pub fn run(args: &IdleArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "idle", "Idle servers")?;
    let servers = setup.start_all()?;
    let mut table =
        Table::new(["server", "connections", "CPU %", "by task/*/schedstat", "by utime+stime", "bar", ""]);
    for &connections in &args.connections {
        let open = |(_, server): &(Contender, Server)| {
            let streams: std::io::Result<Vec<TcpStream>> =
                (0..connections).map(|_| TcpStream::connect(server.address)).collect();
            streams.context(|| format!("{}: {connections} connections", server.program.name))
        };
        let streams = servers.iter().map(open).collect::<Result<Vec<_>>>()?;
        thread::sleep(SETTLE);

        let read = |(_, server): &(Contender, Server)| {
            proc::cpu_by_three_ways(server.pid()).context(|| format!("{}: CPU", server.program.name))
        };
        let started_at = Instant::now();
        let before = servers.iter().map(read).collect::<Result<Vec<_>>>()?;
        thread::sleep(Duration::from_secs_f64(args.seconds));
        let after = servers.iter().map(read).collect::<Result<Vec<_>>>()?;
        let elapsed_ns = started_at.elapsed().as_nanos() as f64;

        for (((contender, server), before), after) in servers.iter().zip(before).zip(after) {
            let percent = |before: u64, after: u64| after.saturating_sub(before) as f64 / elapsed_ns * 100.0;
            let cpu = percent(before.clock_ns, after.clock_ns);
            let verdict =
                (contender.is_ours() && connections == 0).then(|| Verdict::at_most(cpu, IDLE_BAR_PERCENT));
            if let Some(verdict) = verdict {
                setup.report.verdict("idle CPU", verdict);
            }
            table.row([
                server.program.name.clone(),
                connections.to_string(),
                figure(cpu),
                figure(percent(before.schedstat_ns, after.schedstat_ns)),
                figure(percent(before.stat_ns, after.stat_ns)),
                verdict.map(|_| format!("<= {IDLE_BAR_PERCENT}")).unwrap_or_default(),
                verdict.map_or("", Verdict::text).to_string(),
            ]);
        }
        drop(streams);
    }
    setup.report.table(&format!("CPU over {} s", args.seconds), &table);
    drop(servers);
    setup.report.finish(&args.common.results)
}
