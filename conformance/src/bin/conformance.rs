//! `cargo conformance`: the official Redis 7.0.15 suite against Shardis, or against the server that is its control.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shardis_conformance::catalogue::{Catalogue, SuiteFile};
use shardis_conformance::expect::{Expectations, FileExpectations};
use shardis_conformance::output::Verdict;
use shardis_conformance::place::Place;
use shardis_conformance::report::{self, Tally};
use shardis_conformance::run::{Configuration, Done, Job, Workshop};
use shardis_conformance::server::Server;
use shardis_conformance::suite::Suite;
use shardis_conformance::{Result, Trouble, interrupt, lane, loaded, update};

/// Run the official Redis 7.0.15 test suite against Shardis.
///
/// Gets the suite (REDIS_SRC names an unpacked source tree; otherwise Debian's source package is fetched), builds the
/// server, runs every file in its own process, and compares what happened with conformance/expectations.tsv, which
/// lists every test that does not pass or is not run, with the reason. An unexpected failure fails the run, and so does
/// an unexpected pass. The raw output of each file is kept under the target directory, in conformance-runs/raw.
///
/// The exit code is 0 if everything was as expected, 1 if not, 2 if the run could not be done.
#[derive(Parser)]
#[command(name = "conformance", bin_name = "cargo conformance", version)]
struct Arguments {
    /// Files to run, such as unit/type/incr or incr; all of them by default.
    #[arg(value_name = "FILE")]
    files: Vec<String>,

    /// Shards of the server [default: 1; with a control, nothing is passed on].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,

    /// I/O backend of the server [default: its own choice].
    #[arg(long, value_name = "BACKEND", value_parser = ["auto", "uring", "epoll"])]
    io_backend: Option<String>,

    /// Run the suite with its `--tls`: clients and servers speak TLS, with certificates made by the suite's own script.
    #[arg(long)]
    tls: bool,

    /// Load the geo, HyperLogLog and bitmap commands as libraries, which are built first, in place of those that are linked in.
    #[arg(long)]
    loaded: bool,

    /// Only the files about Sentinel, which have a runner of their own.
    #[arg(long, conflicts_with = "files")]
    sentinel: bool,

    /// A server binary to use instead of building ours. Unless it says that it is Shardis, it is a control: everything
    /// has to pass but for what conformance/control.tsv lists.
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,

    /// Cargo profile to build the server with.
    #[arg(long, default_value = "release", conflicts_with = "server")]
    profile: String,

    /// Files to run at the same time [default: the number of cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    lanes: Option<u16>,

    /// First port of the first lane.
    #[arg(long, value_name = "PORT", default_value_t = lane::BASEPORT)]
    baseport: u16,

    /// Leave out the files that take real Redis more than 10 seconds.
    #[arg(long)]
    quick: bool,

    /// Run the tests that are listed as `skip`, too, and the files that are listed as a whole.
    #[arg(long)]
    include_skipped: bool,

    /// Rewrite the expectations of the files that are run from what happens.
    #[arg(long)]
    update: bool,

    /// Rewrite the catalogue's names and times of the files that are run from what a control does.
    #[arg(long, requires = "server", conflicts_with = "update")]
    record: bool,
}

/// The longest file of a `--quick` run.
const QUICK_SECS_MAX: u64 = 10;

fn main() -> ExitCode {
    interrupt::kill_everything_on_signals();
    match conform(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(trouble) => {
            eprintln!("conformance: {trouble}");
            ExitCode::from(2)
        }
    }
}

/// Whether the run was clean.
fn conform(arguments: &Arguments) -> Result<bool> {
    let place = Place::of_this_program()?;
    let catalogue = Catalogue::load()?;
    let files = chosen(arguments, &catalogue)?;
    let server = match &arguments.server {
        Some(path) => Server::at(path)?,
        None => Server::build(&place.workspace, &place.target_dir, &arguments.profile)?,
    };
    let expectations_path = place.expectations(&server);
    let expectations_text = place.read(&expectations_path)?;
    let mut expectations =
        Expectations::parse(&expectations_path.display().to_string(), &expectations_text, &catalogue)?;
    let suite = Suite::get(&place.cache())?;

    let shard_count = arguments.shards.or(server.is_shardis.then_some(1));
    let loaded_modules =
        arguments.loaded.then(|| loaded::configuration(&place, &arguments.profile)).transpose()?;
    let io_backend = arguments.io_backend.clone();
    let configuration = Configuration { shard_count, io_backend, tls: arguments.tls, loaded_modules };
    report::say(&format!("{} ({}), {}", server.version, server.path.display(), configuration.label()));
    let jobs = files.iter().map(|file| {
        let expected = expectations.of_file(file, shard_count.unwrap_or(1), arguments.tls);
        let expected: FileExpectations =
            if arguments.include_skipped { expected.without_skips() } else { expected };
        Job { file: (*file).clone(), configuration: configuration.clone(), expected }
    });
    let workshop = Workshop {
        suite,
        server,
        dir: place.work_dir(),
        lane_count: arguments.lanes.map_or_else(Place::core_count, usize::from),
        first_baseport: arguments.baseport,
    };
    let done = run(&workshop, jobs.collect())?;

    if arguments.update {
        for file in &done {
            update::update(&mut expectations, file, shard_count.unwrap_or(1));
        }
        let text = update::to_tsv(&expectations, &expectations_text, &catalogue);
        place.write(&expectations_path, &text)?;
    }
    if arguments.record {
        record(&place, catalogue.clone(), &done)?;
    }
    let mut tally = Tally::default();
    done.iter().for_each(|file| tally.add(file));
    let problems: String = done.iter().map(report::problems).collect();
    let unsteady: String = done.iter().map(report::unsteady).collect();
    if !unsteady.is_empty() {
        report::say(&format!("wrong at first, and clean when run again:\n{unsteady}"));
    }
    report::say(&format!("{problems}{}{}", tally.listed(), tally.closing()));
    Ok(tally.problem_count == 0)
}

fn chosen<'a>(arguments: &Arguments, catalogue: &'a Catalogue) -> Result<Vec<&'a SuiteFile>> {
    let mut files: Vec<&SuiteFile> = if arguments.files.is_empty() {
        catalogue.files.iter().collect()
    } else {
        arguments.files.iter().map(|wanted| catalogue.find(wanted)).collect::<Result<_>>()?
    };
    if arguments.sentinel {
        files.retain(|file| file.is_of_sentinel());
    }
    if arguments.quick {
        files.retain(|file| file.baseline_secs <= QUICK_SECS_MAX);
    }
    if files.is_empty() { Err(Trouble::new("no file is left to run")) } else { Ok(files) }
}

/// Runs the jobs, showing each as it ends, and gives them in the order of the suite.
fn run(workshop: &Workshop, jobs: Vec<Job>) -> Result<Vec<Done>> {
    let order: Vec<String> = jobs.iter().map(|job| job.file.name.clone()).collect();
    let mut all = Vec::new();
    report::say(&report::heading());
    workshop.run(jobs, |done| {
        if done.output.is_some() {
            report::say(&report::row(&done));
        }
        all.push(done);
    })?;
    all.sort_by_key(|done| order.iter().position(|name| *name == done.job.file.name));
    Ok(all)
}

/// Takes names and times from `done`. A file in which anything went wrong is left as it is.
fn record(place: &Place, mut catalogue: Catalogue, done: &[Done]) -> Result<()> {
    for file in &mut catalogue.files {
        let Some(done) = done.iter().find(|done| done.job.file.name == file.name) else { continue };
        let Some((output, _)) = &done.output else { continue };
        if output.reports.iter().any(|report| matches!(report.verdict, Verdict::Failed(_) | Verdict::Hung)) {
            eprintln!("{} is not recorded: something failed in it", file.name);
            continue;
        }
        file.baseline_secs = (done.secs.ceil() as u64).max(1);
        // What this control is excused from is a test all the same.
        file.tests.retain(|(name, _)| done.job.expected.of_test(name, 1).is_some());
        for report in output.reports.iter().filter(|report| report.verdict == Verdict::Passed) {
            match file.tests.iter_mut().find(|(name, _)| *name == report.name) {
                Some((_, occurrences)) => *occurrences = report.occurrence,
                None => file.tests.push((report.name.clone(), report.occurrence)),
            }
        }
    }
    let (files_tsv, names_tsv) = catalogue.to_tsv();
    place.write(&place.conformance().join("files.tsv"), &files_tsv)?;
    place.write(&place.conformance().join("names.tsv"), &names_tsv)
}
