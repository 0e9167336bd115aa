//! CPU time that a server takes to load an RDB file at its start: strings, small hashes, and one big sorted set.
//!
//! The first server of the comparison writes the files, ours if it takes part: its format is that of Redis 7.0, which every
//! peer reads. A round starts every server once with the file and takes its CPU clock at its first answer, which is only
//! given when all is loaded. What a start without a file costs is taken off.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::bench::{CommonArgs, Contender, Setup, load_keys};
use crate::error::{BenchError, Context, Result};
use crate::load::workload::{Collection, Stored};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;

#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Keys, or elements of the sorted set; the bars hold for 5000000
    #[arg(long, default_value_t = 5_000_000)]
    pub keys: u64,
    /// Times that every server loads each file; figures are medians over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Only the files whose names contain this
    #[arg(long, default_value = "")]
    pub only: String,
}

struct File {
    name: &'static str,
    stored: Stored,
    /// Ours with one shard to the best peer, at most.
    bar: f64,
}

const FILES: [File; 3] = [
    File { name: "strings of 64 B", stored: Stored::Text { len_bytes: 64 }, bar: 0.6 },
    File { name: "hashes of 5 fields", stored: Stored::SmallHash, bar: 1.0 },
    File { name: "a sorted set", stored: Stored::Element(Collection::SortedSet), bar: 0.6 },
];

/// Two shards on two cores to one, both cores together.
const BAR_OF_TWO: f64 = 1.2;

/// A server of the comparison, with its number of shards.
struct Loader {
    contender: Contender,
    shard_count: usize,
    cores: Vec<usize>,
    /// Seconds, a value a round.
    cpu_s: Vec<f64>,
}

pub fn run(args: &LoadArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "load", "Loading an RDB file")?;
    let dir = std::env::temp_dir().join(format!("shardis-bench-files-{}", std::process::id()));
    fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
    let outcome = compare(args, &mut setup, &dir);
    let removed = fs::remove_dir_all(&dir).context(|| dir.display().to_string());
    outcome.and(removed)?;
    setup.report.finish(&args.common.results)
}

fn compare(args: &LoadArgs, setup: &mut Setup, dir: &Path) -> Result<()> {
    let mut table = Table::new(["file", "server", "shards", "CPU s", "of the best peer", "bar", ""]);
    for file in FILES.iter().filter(|file| file.name.contains(&args.only)) {
        let (file_dir, len_bytes) = write_file(setup, dir, file.stored, args.keys)?;
        println!("{}, {}: {} bytes", file.name, grouped(args.keys as f64), grouped(len_bytes as f64));
        let mut loaders = loaders(setup);
        for _ in 0..args.rounds {
            for loader in &mut loaders {
                let empty_s = start(setup, loader, dir)?.1;
                let (server, cpu_s) = start(setup, loader, &file_dir)?;
                check_count(&server, file.stored, args.keys)?;
                loader.cpu_s.push(cpu_s - empty_s);
            }
        }
        report(setup, &mut table, file, &loaders, args.keys);
        fs::remove_dir_all(&file_dir).context(|| file_dir.display().to_string())?;
    }
    setup.report.table("CPU time to load", &table);
    Ok(())
}

/// Has the first server write a file. Returns the directory of its own that it lies in, and its length.
fn write_file(setup: &mut Setup, dir: &Path, stored: Stored, keys: u64) -> Result<(PathBuf, u64)> {
    let file_dir = dir.join("file");
    fs::create_dir_all(&file_dir).context(|| file_dir.display().to_string())?;
    let contender = setup.contenders[0].clone();
    let writer = Loader { contender, shard_count: 1, cores: setup.server_cores.clone(), cpu_s: Vec::new() };
    let (server, _) = start(setup, &writer, &file_dir)?;
    load_keys(&server, stored, keys, &setup.generator)?;
    server.ask(&["SAVE"])?;
    let path = file_dir.join("dump.rdb");
    let len_bytes = fs::metadata(&path).context(|| path.display().to_string())?.len();
    Ok((file_dir, len_bytes))
}

/// Every server on the first core, and ours with two shards on two.
fn loaders(setup: &Setup) -> Vec<Loader> {
    let cores = setup.server_cores.clone();
    let loader = |contender: &Contender, shard_count, cores: &[usize]| Loader {
        contender: contender.clone(),
        shard_count,
        cores: cores.to_vec(),
        cpu_s: Vec::new(),
    };
    let mut loaders: Vec<Loader> =
        setup.contenders.iter().map(|contender| loader(contender, 1, &cores)).collect();
    let more_cores = [&cores[..], &setup.generator.cores[..]].concat();
    if let Some(ours) =
        setup.contenders.iter().find(|contender| contender.is_ours()).filter(|_| more_cores.len() > 1)
    {
        loaders.push(loader(ours, 2, &more_cores));
    }
    loaders
}

/// Starts a server in a directory, and returns what CPU it has used at its first answer, in seconds.
fn start(setup: &mut Setup, loader: &Loader, dir: &Path) -> Result<(Server, f64)> {
    let (shards, dir) = (loader.shard_count.to_string(), dir.display().to_string());
    let extra: &[&str] = match loader.contender.is_ours() {
        true => &["--dir", &dir, "--shards", &shards],
        false => &["--dir", &dir],
    };
    let server = Server::start(&loader.contender.program, extra, &loader.cores, &mut setup.ports)?;
    let used_ns = server.cpu.clock.used_ns().context(|| format!("{}: CPU", loader.contender.program.name))?;
    setup.report.server(&server);
    Ok((server, used_ns as f64 / 1e9))
}

fn check_count(server: &Server, stored: Stored, keys: u64) -> Result<()> {
    let wanted = if matches!(stored, Stored::Element(_)) { 1 } else { keys };
    let found = server.ask(&["DBSIZE"])?;
    if found == wanted.to_string() {
        return Ok(());
    }
    Err(BenchError::new(format!("{}: {found} keys are there after loading {wanted}", server.program.name)))
}

fn report(setup: &mut Setup, table: &mut Table, file: &File, loaders: &[Loader], keys: u64) {
    let median = |loader: &Loader| stats::median(&loader.cpu_s);
    let best_peer_s =
        loaders.iter().filter(|loader| !loader.contender.is_ours()).map(median).reduce(f64::min);
    let ours_s = loaders.iter().find(|loader| loader.contender.is_ours()).map(median);
    for loader in loaders {
        let cpu_s = median(loader);
        let to_peer = best_peer_s.map(|peer_s| cpu_s / peer_s);
        let (bar, verdict) = match (loader.contender.is_ours(), loader.shard_count) {
            (false, _) => (None, None),
            (true, 1) => {
                (Some(format!("<= {}", file.bar)), to_peer.map(|ratio| Verdict::at_most(ratio, file.bar)))
            }
            (true, _) => (
                Some(format!("<= {BAR_OF_TWO} x one shard")),
                ours_s.map(|one_s| Verdict::at_most(cpu_s / one_s, BAR_OF_TWO)),
            ),
        };
        if let Some(verdict) = verdict {
            setup.report.verdict(&format!("{}, {} shards", file.name, loader.shard_count), verdict);
        }
        table.row([
            format!("{}, {}", file.name, grouped(keys as f64)),
            loader.contender.program.name.clone(),
            loader.shard_count.to_string(),
            figure(cpu_s),
            to_peer.map(figure).unwrap_or_default(),
            bar.unwrap_or_default(),
            verdict.map_or("", Verdict::text).to_string(),
        ]);
    }
}
