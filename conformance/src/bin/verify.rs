//! `cargo verify`: everything that has to hold, in one number. The workspace's own tests, then random commands compared with
//! a real Redis, and masters with replicas of the other make, then the official suite with one shard and with several, on both
//! I/O backends; some of its files again with TLS, and those about our modules with these loaded as libraries. Ends with the
//! line `N passed, N failed`.
//!
//! A test of the official suite that the expectations list counts neither as passed nor as failed; one that does
//! otherwise than listed counts as failed. Many official tests judge by wall time, and two of them run at once: a file that
//! is not clean is run again, alone, and what is wrong then counts. What was wrong only at first is named, and counts,
//! too, if there is more of it than machines explain.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use shardis_conformance::catalogue::{Catalogue, SuiteFile};
use shardis_conformance::differ::fleet::Fleet;
use shardis_conformance::differ::{self, Plan};
use shardis_conformance::expect::Expectations;
use shardis_conformance::place::Place;
use shardis_conformance::report::{self, Tally};
use shardis_conformance::run::{Configuration, Job, Workshop};
use shardis_conformance::server::Server;
use shardis_conformance::suite::{self, Suite};
use shardis_conformance::verify::{Sum, workspace_tests};
use shardis_conformance::{Result, interrupt, lane, loaded};

/// Run everything that has to hold: the workspace's tests and the official Redis 7.0.15 suite with 1, 2 and 4 shards.
///
/// Installs what the suite needs where it may (Debian, as root). The last line is `N passed, N failed`, and the exit code
/// is 0 only if nothing failed.
#[derive(Parser)]
#[command(name = "verify", bin_name = "cargo verify", version)]
struct Arguments {
    /// First port of the first lane of the official suite; what else needs ports takes some below it.
    #[arg(long, value_name = "PORT", default_value_t = lane::BASEPORT)]
    baseport: u16,
}

/// Shards and backend of each run of the suite. `auto` is io_uring wherever the machine has it.
const CONFIGURATIONS: [(u32, &str); 3] = [(1, "auto"), (2, "epoll"), (4, "auto")];

/// Files of the official suite that may be clean only when they are run again.
const UNSTEADY_FILES_MAX: usize = 5;

/// The runs with certificates, of files that say something about TLS.
const TLS_CONFIGURATIONS: [(u32, &str); 2] = [(1, "auto"), (4, "epoll")];
const TLS_FILES: [&str; 4] = ["unit/tls", "unit/protocol", "unit/networking", "integration/redis-benchmark"];

/// With how many shards the files about Sentinel are run: they wait for most of their time.
const SENTINEL_SHARDS: [Option<u32>; 2] = [Some(1), Some(4)];

/// The workspace's tests run optimised, but without the link-time optimisation of what is shipped.
const TEST_PROFILE: &str = "quick";
/// The official suite judges what is shipped.
const SERVER_PROFILE: &str = "release";

fn main() -> ExitCode {
    interrupt::kill_everything_on_signals();
    let arguments = Arguments::parse();
    let mut sum = Sum::default();
    for part in [own_tests, differential, differential_of_replicas, official_suite] {
        match part(&arguments) {
            Ok(more) => sum.add(more),
            // What could not be run did not hold.
            Err(trouble) => sum.add(Sum { passed: 0, failed: 1, failures: format!("verify: {trouble}\n") }),
        }
    }
    if sum.failed > 0 {
        report::say(&format!("What failed:\n{}", sum.failures));
    }
    report::say(&format!("{} passed, {} failed", sum.passed, sum.failed));
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn own_tests(_: &Arguments) -> Result<Sum> {
    let place = Place::of_this_program()?;
    suite::install_build_needs()?;
    // The workspace's tests need its programs, and its header for modules.
    Suite::get(&place.cache())?;
    suite::install_tested_modules();
    workspace_tests(&place.workspace, &place.target_dir, TEST_PROFILE)
}

/// Random commands to a real Redis and to ours with 1 and with 4 shards, from fixed seeds: `cargo differ` takes new ones. A
/// difference is a failure; a seed without one is not counted as a test.
fn differential(arguments: &Arguments) -> Result<Sum> {
    compare(arguments, "differential", differ::FIXED_SEQUENCES, |fleet, _| Ok(fleet))
}

/// The same, with each of these servers followed by replicas of the other make, which are compared with their masters.
fn differential_of_replicas(arguments: &Arguments) -> Result<Sum> {
    compare(arguments, "differential, replicas", differ::FIXED_REPLICA_SEQUENCES, Fleet::with_replicas)
}

fn compare(
    arguments: &Arguments,
    name: &str,
    sequence_count: u64,
    complete: impl FnOnce(Fleet, &Path) -> Result<Fleet>,
) -> Result<Sum> {
    let place = Place::of_this_program()?;
    let server = Server::build(&place.workspace, &place.target_dir, SERVER_PROFILE)?;
    // What the suite needs includes a redis-server.
    Suite::get(&place.cache())?;
    let reference = differ::reference(None)?;
    let dir = place.target_dir.join("differ-runs");
    let port = arguments.baseport - (lane::BASEPORT - differ::PORT);
    let mut fleet = complete(Fleet::start(&reference, &server, &[1, 4], port, &dir)?, &dir)?;
    let families = differ::families(&fleet, &[])?;
    let plan = Plan { first_seed: 1, sequence_count, time_max: None, failures_max: 10 };
    let outcome = differ::judge(&mut fleet, &families, &plan)?;
    report::say(&format!("{name}, seeds from {}: {}", plan.first_seed, outcome.closing()));
    Ok(Sum {
        passed: u32::from(outcome.failure_count == 0),
        failed: outcome.failure_count as u32,
        failures: outcome.failures,
    })
}

fn official_suite(arguments: &Arguments) -> Result<Sum> {
    let place = Place::of_this_program()?;
    let catalogue = Catalogue::load()?;
    let server = Server::build(&place.workspace, &place.target_dir, SERVER_PROFILE)?;
    let path = place.expectations(&server);
    let expectations = Expectations::parse(&path.display().to_string(), &place.read(&path)?, &catalogue)?;
    let suite = Suite::get(&place.cache())?;

    let configuration = |(shard_count, io_backend): (u32, &str), tls| Configuration {
        shard_count: Some(shard_count),
        io_backend: Some(io_backend.to_owned()),
        tls,
        loaded_modules: None,
    };
    let plain = CONFIGURATIONS.map(|setup| configuration(setup, false));
    let encrypted = TLS_CONFIGURATIONS.map(|setup| configuration(setup, true));
    // The workspace's tests have built these already.
    let modules = loaded::configuration(&place, TEST_PROFILE)?;
    let loaded = plain.clone().map(|plain| Configuration { loaded_modules: Some(modules.clone()), ..plain });
    let configurations = [&plain[..], &encrypted[..], &loaded[..]].concat();
    let jobs = configurations.iter().flat_map(|configuration| {
        let is_run = |file: &&SuiteFile| {
            let name = file.name.as_str();
            (!file.is_of_sentinel() || SENTINEL_SHARDS.contains(&configuration.shard_count))
                && (!configuration.tls || TLS_FILES.contains(&name))
                && (configuration.loaded_modules.is_none() || loaded::FILES.contains(&name))
        };
        catalogue.files.iter().filter(is_run).map(|file| {
            let shard_count = configuration.shard_count.unwrap_or(1);
            let expected = expectations.of_file(file, shard_count, configuration.tls);
            Job { file: file.clone(), configuration: configuration.clone(), expected }
        })
    });
    let workshop = Workshop {
        suite,
        server,
        dir: place.work_dir(),
        lane_count: Place::core_count(),
        first_baseport: arguments.baseport,
    };

    let mut all = Vec::new();
    report::say(&report::heading());
    workshop.run(jobs.collect(), |done| {
        if done.output.is_some() {
            report::say(&format!("{}  {}", report::row(&done), done.job.configuration.label()));
        }
        all.push(done);
    })?;
    let mut sum = Sum::default();
    let unsteady: Vec<String> = all.iter().map(report::unsteady).filter(|text| !text.is_empty()).collect();
    if !unsteady.is_empty() {
        report::say(&format!("\nwrong at first, and clean when run again alone:\n{}", unsteady.concat()));
    }
    if unsteady.len() > UNSTEADY_FILES_MAX {
        sum.failed += unsteady.len() as u32;
        let count = unsteady.len();
        let more_than = format!("{count} official files were clean only when run again:\n");
        sum.failures.push_str(&(more_than + &unsteady.concat()));
    }
    for configuration in &configurations {
        let mut tally = Tally::default();
        let mut problems = String::new();
        for done in all.iter().filter(|done| done.job.configuration == *configuration) {
            problems.push_str(&report::problems(done));
            tally.add(done);
        }
        let heading = format!("official suite, {}:", configuration.label());
        report::say(&format!("\n{heading}\n{problems}{}{}", tally.listed(), tally.closing()));
        if !problems.is_empty() {
            sum.failures.push_str(&format!("{heading}\n{problems}"));
        }
        sum.passed += tally.counts.passed - tally.unexpected_passes;
        sum.failed += tally.problem_count;
    }
    report::say("");
    Ok(sum)
}
