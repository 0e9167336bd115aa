//! `cargo differ`: random commands to a real Redis and to Shardis, compared.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shardis_conformance::differ::fleet::Fleet;
use shardis_conformance::differ::{self, Plan};
use shardis_conformance::place::Place;
use shardis_conformance::server::Server;
use shardis_conformance::{Result, interrupt, report};

/// Compare Shardis with a real Redis 7.0.15: random commands of all families (conformance/commands.txt) to both, alone,
/// in pipelines, in MULTI and with clients that wait; then what is left in the end.
///
/// A difference is shrunk and printed as a script for redis-cli, with its seed. The exit code is 0 if there was none, 1 if
/// there was, 2 if the run could not be done.
#[derive(Parser)]
#[command(name = "differ", bin_name = "cargo differ", version)]
struct Arguments {
    /// The seed of the first sequence [default: a new one each time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// How many sequences.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    count: u64,

    /// As many sequences as this many minutes allow.
    #[arg(long, value_name = "N", conflicts_with = "count")]
    minutes: Option<u64>,

    /// Families of conformance/commands.txt to choose from, with commas in between [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    families: Vec<String>,

    /// The numbers of shards to run with.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,4")]
    shards: Vec<u32>,

    /// Have each server followed by a replica of the other make, and compare these with their masters: a Redis behind ours,
    /// and ours behind a Redis.
    #[arg(long)]
    replicas: bool,

    /// End after this many different failures.
    #[arg(long, value_name = "N", default_value_t = 10)]
    failures: usize,

    /// A server binary to use instead of building ours. Another Redis 7.0.15 is the control: it must not differ.
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,

    /// Cargo profile to build the server with.
    #[arg(long, default_value = "release", conflicts_with = "server")]
    profile: String,

    /// The redis-server 7.0.15 to compare with [default: the one on PATH].
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,

    /// First of the ports to use.
    #[arg(long, value_name = "PORT", default_value_t = differ::PORT)]
    port: u16,
}

fn main() -> ExitCode {
    interrupt::kill_everything_on_signals();
    match compare(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(trouble) => {
            eprintln!("differ: {trouble}");
            ExitCode::from(2)
        }
    }
}

/// Whether there was no difference.
fn compare(arguments: &Arguments) -> Result<bool> {
    let place = Place::of_this_program()?;
    let server = match &arguments.server {
        Some(path) => Server::at(path)?,
        None => Server::build(&place.workspace, &place.target_dir, &arguments.profile)?,
    };
    let reference = differ::reference(arguments.reference.as_deref())?;
    let dir = place.target_dir.join("differ-runs");
    let mut fleet = Fleet::start(&reference, &server, &arguments.shards, arguments.port, &dir)?;
    if arguments.replicas {
        fleet = fleet.with_replicas(&dir)?;
    }
    let families = differ::families(&fleet, &arguments.families)?;
    let plan = Plan {
        first_seed: arguments.seed.unwrap_or_else(differ::fresh_seed),
        sequence_count: if arguments.minutes.is_some() { u64::MAX } else { arguments.count },
        time_max: arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        failures_max: arguments.failures,
    };
    report::say(&format!(
        "{} against {}, seeds from {}",
        server.version,
        reference.display(),
        plan.first_seed
    ));
    let outcome = differ::judge(&mut fleet, &families, &plan)?;
    report::say(&outcome.closing());
    Ok(outcome.failure_count == 0)
}
