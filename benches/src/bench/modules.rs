//! Commands of modules that do nothing, to PING: what it costs to come through the ABI.

use std::path::PathBuf;

use clap::Args;

use crate::bench::{CommonArgs, Contender, Lane, PipelineArgs, RoundArgs, Setup, interleaved_each};
use crate::error::Result;
use crate::load::workload::Pool;
use crate::report::{Table, Verdict, figure};
use crate::server::Server;
use crate::stats;

/// CPU an operation beyond PING's on one shard of ours, at most.
const BAR_NANOS: f64 = 150.0;

#[derive(Args, Clone, Debug)]
pub struct ModulesArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    #[command(flatten)]
    pub load: PipelineArgs,
    /// A command without arguments that answers a line, and the module that has it; may be given several times
    #[arg(long = "module", value_name = "COMMAND=PATH", value_parser = module, required = true)]
    pub modules: Vec<(String, PathBuf)>,
    /// Numbers of shards of ours; the bar is that of one
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub shards: Vec<usize>,
}

fn module(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let (command, path) = text.split_once('=').ok_or("expected COMMAND=PATH")?;
    let path = std::fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?;
    Ok((command.to_uppercase(), path))
}

pub fn run(args: &ModulesArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "modules", "Empty commands of modules")?;
    let mut servers: Vec<(Contender, usize, Server)> = Vec::new();
    for mut contender in setup.contenders.clone() {
        for (_, path) in &args.modules {
            contender.program.args.extend(["--loadmodule".to_string(), path.display().to_string()]);
        }
        let numbers = if contender.is_ours() { args.shards.as_slice() } else { &[1] };
        for &shards in numbers {
            let server = setup.start(&contender, shards, &setup.server_cores.clone())?;
            servers.push((contender.clone(), shards, server));
        }
    }

    let commands: Vec<&str> =
        std::iter::once("PING").chain(args.modules.iter().map(|(command, _)| command.as_str())).collect();
    let mut lanes = Vec::new();
    let mut pools = Vec::new();
    for (_, _, server) in &servers {
        for command in &commands {
            lanes.push(Lane::connect(server, args.load.connections, &setup.generator)?);
            pools.push(Pool::of_command(command, args.load.pipeline));
        }
    }
    let rounds = interleaved_each(&mut lanes, &pools, &args.rounds)?;
    drop(lanes);

    let mut table =
        Table::new(["server", "shards", "command", "CPU ns/op", "beyond PING", "(min-max)", "bar", ""]);
    for ((contender, shards, server), rounds) in servers.iter().zip(rounds.chunks(commands.len())) {
        let ping = &rounds[0].cpu_us_per_op;
        for (command, rounds) in commands.iter().zip(rounds) {
            // By rounds, as the machine's speed changes between them.
            let pairs = rounds.cpu_us_per_op.iter().zip(ping);
            let beyond: Vec<f64> = pairs.map(|(cost, ping)| (cost - ping) * 1e3).collect();
            let (lowest, highest) = stats::spread(&beyond);
            let median = stats::median(&beyond);
            let is_judged = contender.is_ours() && *shards == 1 && *command != "PING";
            let verdict = is_judged.then(|| Verdict::at_most(median, BAR_NANOS));
            if let Some(verdict) = verdict {
                setup.report.verdict(command, verdict);
            }
            table.row([
                server.program.name.clone(),
                shards.to_string(),
                (*command).to_string(),
                figure(stats::median(&rounds.cpu_us_per_op) * 1e3),
                figure(median),
                format!("({lowest:.0}-{highest:.0})"),
                verdict.map(|_| format!("<= {BAR_NANOS}")).unwrap_or_default(),
                verdict.map(|verdict| verdict.text().to_string()).unwrap_or_default(),
            ]);
        }
    }
    setup.report.paragraph(&format!(
        "{} connections, pipeline {}; {} rounds of {} s; medians over the rounds, and of the rounds' differences.",
        args.load.connections, args.load.pipeline, args.rounds.rounds, args.rounds.seconds
    ));
    setup.report.table("CPU an operation", &table);
    drop(servers);
    setup.report.finish(&args.common.results)
}
