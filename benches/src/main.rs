//! Measures Shardis against its peers: throughput and CPU an operation, sharding, memory, loading, growth, idling.
//!
//! ```text
//! main -> bench/*   what is measured, one file a bench
//!           |  \
//!           |   server.rs    a server process: cores, start, identity, end
//!           |   floor.rs     the server that does nothing, for comparison
//!         load/              the generator: workload (requests built ahead), driver (epoll loop)
//!           |
//!         resp.rs histogram.rs stats.rs report.rs proc.rs sys.rs (the only unsafe code)
//! ```
//!
//! What every bench keeps to:
//! - Servers run with their defaults less persistence, pinned, each checked to be the process we started.
//! - What is compared is the servers' CPU an operation, by medians over interleaved rounds: it holds on a noisy machine
//!   and does not depend on how fast the generator is, as long as the generator is not the limit, which is shown.
//! - An error reply or a missing key ends the bench. Figures of commands that did not do their work are worth nothing.
//! - No server outlives the bench, however it ends.
//! - The exit status is 0 when every bar is held, 1 when one is not, 2 on an error.

mod bench;
mod error;
mod floor;
mod histogram;
mod load;
mod proc;
mod report;
mod resp;
mod server;
mod stats;
mod sys;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::{
    builds, durable, growth, hits, idle, load_file, macro_bench, memory, modules, replication, shards,
    slow_script, tls, verify,
};
use crate::error::Context;
use crate::report::Verdict;

#[derive(Parser)]
#[command(name = "shardis-benches", about = "Measures Shardis against its peers", version)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Operations x pipelines x connections x values, against the peers; --bars for the rows with a bar
    Macro(macro_bench::MacroArgs),
    /// CPU an operation of several shards, to one; with --counts, of more and more of them on the same cores
    Shards(shards::ShardsArgs),
    /// CPU an operation of two builds of ours
    Builds(builds::BuildsArgs),
    /// Operations a second with more and more shards
    Scale(shards::ScaleArgs),
    /// Resident bytes a key, or an element of a collection
    Memory(memory::MemoryArgs),
    /// CPU time to load an RDB file
    Load(load_file::LoadArgs),
    /// SET with an append-only file, and beside a background save
    Durable(durable::DurableArgs),
    /// SET with a replica: what it costs the master, and the replica
    Replication(replication::ReplicationArgs),
    /// Longest wait while keys go in
    Growth(growth::GrowthArgs),
    /// The longest wait of plain commands while a script runs for seconds
    SlowScript(slow_script::SlowScriptArgs),
    /// CPU an operation of GET over TLS
    Tls(tls::TlsArgs),
    /// Empty commands of modules, to PING
    Modules(modules::ModulesArgs),
    /// Hit rates of a cache under eviction, to Redis'
    Hits(hits::HitsArgs),
    /// CPU of a server that nobody asks anything
    Idle(idle::IdleArgs),
    /// The load generator against redis-benchmark
    Verify(verify::VerifyArgs),
    /// Serves as the floor of the comparison; started by --floor
    #[command(hide = true, name = floor::NAME)]
    Floor {
        #[arg(long)]
        port: u16,
        /// What every server is started with
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().bench {
        Bench::Macro(args) => macro_bench::run(&args),
        Bench::Shards(args) => shards::run_shards(&args),
        Bench::Builds(args) => builds::run(&args),
        Bench::Scale(args) => shards::run_scale(&args),
        Bench::Memory(args) => memory::run(&args),
        Bench::Load(args) => load_file::run(&args),
        Bench::Durable(args) => durable::run(&args),
        Bench::Replication(args) => replication::run(&args),
        Bench::Growth(args) => growth::run(&args),
        Bench::SlowScript(args) => slow_script::run(&args),
        Bench::Tls(args) => tls::run(&args),
        Bench::Modules(args) => modules::run(&args),
        Bench::Hits(args) => hits::run(&args),
        Bench::Idle(args) => idle::run(&args),
        Bench::Verify(args) => verify::run(&args),
        Bench::Floor { port, ignored: _ } => {
            floor::serve(port).context(|| format!("port {port}")).map(|()| Verdict::Pass)
        }
    };
    match result {
        Ok(Verdict::Pass) => ExitCode::SUCCESS,
        Ok(Verdict::Fail) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
