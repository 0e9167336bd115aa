//! The benches, and what they have in common: which programs, on which cores, how many rounds.

pub mod builds;
pub mod crowd;
pub mod durable;
pub mod growth;
pub mod hits;
pub mod idle;
pub mod load_file;
pub mod macro_bench;
pub mod memory;
pub mod modules;
pub mod replication;
pub mod shards;
pub mod slow_script;
pub mod tls;
pub mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use openssl::ssl::SslContext;

use crate::error::{BenchError, Context, Result};
use crate::floor;
use crate::load::driver::{Driver, NoObserver, Window};
use crate::load::named::{NAMED, Named};
use crate::load::workload::{Op, Pool, SetSequence, Stored};
use crate::load::{Generator, Placement, Sample, Wait};
use crate::proc;
use crate::report::Report;
use crate::server::{Ports, Program, Server};
use crate::stats;
use crate::sys;

/// Options of every bench.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// A server to compare with; may be given several times. Without any: the redis-server and valkey-server in PATH
    #[arg(long = "peer", value_name = "NAME=PATH[,arg...]")]
    pub peers: Vec<Program>,
    /// Our server: a binary, and arguments for it. Without it: built from this workspace
    #[arg(long, value_name = "PATH[,arg...]")]
    pub ours: Option<String>,
    /// Measures the peers only
    #[arg(long, conflicts_with = "ours")]
    pub no_ours: bool,
    /// Cores that servers run on [default: the first one]
    #[arg(long, value_name = "LIST", value_parser = core_list)]
    pub server_cores: Option<CoreList>,
    /// Cores that the load generator runs on, a thread each [default: the next one]
    #[arg(long, value_name = "LIST", value_parser = core_list)]
    pub generator_cores: Option<CoreList>,
    /// How the generator waits for replies [default: it spins where it has cores of its own]
    #[arg(long, value_enum)]
    pub wait: Option<Wait>,
    /// First port to try
    #[arg(long, default_value_t = 30_100)]
    pub base_port: u16,
    /// Where the result is written
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    pub results: PathBuf,
    /// Name in the result's file name [default: the bench's]
    #[arg(long)]
    pub name: Option<String>,
}

/// Options of the benches that compare throughput in rounds.
#[derive(Args, Clone, Debug)]
pub struct RoundArgs {
    /// Times that every server is visited; figures are medians over the visits
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Measured time of a visit
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = positive_seconds)]
    pub seconds: f64,
    /// Load before the measured time of a visit
    #[arg(long, value_name = "SECONDS", default_value_t = 0.15, value_parser = positive_seconds)]
    pub warm_up: f64,
    /// Keys, all of them there before the first round
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keyspace: u64,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Options of the benches that drive servers in one way.
#[derive(Args, Clone, Debug)]
pub struct PipelineArgs {
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    pub connections: usize,
    /// Requests that a connection has under way
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub pipeline: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

fn core_list(text: &str) -> std::result::Result<CoreList, String> {
    proc::parse_core_list(text).map(CoreList).ok_or_else(|| "expected a list such as 0,2-3".to_string())
}

pub fn positive_seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_string())?;
    if seconds > 0.0 && seconds < 86_400.0 {
        Ok(seconds)
    } else {
        Err("expected 0 < seconds < 86400".to_string())
    }
}

pub fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&count| count >= 1).ok_or_else(|| "expected a number from 1 on".to_string())
}

/// What a program is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ours,
    Peer,
    /// The server that does nothing.
    Floor,
}

/// A program of the comparison.
#[derive(Clone, Debug)]
pub struct Contender {
    pub program: Program,
    pub role: Role,
}

impl Contender {
    pub fn is_ours(&self) -> bool {
        self.role == Role::Ours
    }
}

/// The arguments resolved against this machine.
pub struct Setup {
    pub contenders: Vec<Contender>,
    pub server_cores: Vec<usize>,
    pub generator: Placement,
    pub ports: Ports,
    pub report: Report,
}

impl Setup {
    /// `name` and `title` are the report's. Builds our server when it is to be measured and none was given.
    pub fn new(args: &CommonArgs, name: &str, title: &str) -> Result<Setup> {
        sys::raise_open_files_limit().context(|| "limit of open files".to_string())?;
        let mut contenders = Vec::new();
        if !args.no_ours {
            contenders.push(Contender { program: our_program(args.ours.as_deref())?, role: Role::Ours });
        }
        let peers = if args.peers.is_empty() { peers_in_path() } else { args.peers.clone() };
        contenders.extend(peers.into_iter().map(|program| Contender { program, role: Role::Peer }));
        if contenders.is_empty() {
            return Err(BenchError::new("nothing to measure: no --ours, no --peer, and no peer in PATH"));
        }

        let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
        let server_cores = args.server_cores.as_ref().map_or_else(|| vec![allowed[0]], |list| list.0.clone());
        let generator_cores = match &args.generator_cores {
            Some(list) => list.0.clone(),
            None => {
                vec![allowed.iter().copied().find(|core| !server_cores.contains(core)).unwrap_or(allowed[0])]
            }
        };
        if let Some(core) = server_cores.iter().chain(&generator_cores).find(|core| !allowed.contains(core)) {
            return Err(BenchError::new(format!("core {core} is not one of the cores at hand, {allowed:?}")));
        }
        let mut generator = placement_on(generator_cores, &server_cores);
        let shared = generator.wait == Wait::Block;
        generator.wait = args.wait.unwrap_or(generator.wait);

        let mut report = Report::new(args.name.as_deref().unwrap_or(name), title);
        if shared {
            report.paragraph(
                "The load generator shares cores with the servers: operations a second say nothing here, \
                 CPU an operation does.",
            );
        }
        Ok(Setup { contenders, server_cores, generator, ports: Ports::from(args.base_port), report })
    }

    /// Starts one server of the comparison on `cores`.
    pub fn start(&mut self, contender: &Contender, shard_count: usize, cores: &[usize]) -> Result<Server> {
        let shards = shard_count.to_string();
        let extra: &[&str] = if contender.is_ours() { &["--shards", &shards] } else { &[] };
        let server = Server::start(&contender.program, extra, cores, &mut self.ports)?;
        self.report.server(&server);
        Ok(server)
    }

    /// Adds the server that does nothing to the comparison.
    pub fn add_floor(&mut self) -> Result<()> {
        let path = std::env::current_exe().context(|| "the path of this program".to_string())?;
        let args = vec![floor::NAME.to_string()];
        let program = Program { name: floor::NAME.to_string(), path, args };
        self.contenders.push(Contender { program, role: Role::Floor });
        Ok(())
    }

    /// Starts every server of the comparison, ours with one shard, on the servers' cores.
    pub fn start_all(&mut self) -> Result<Vec<(Contender, Server)>> {
        let cores = self.server_cores.clone();
        let contenders = self.contenders.clone();
        contenders
            .into_iter()
            .map(|contender| {
                let server = self.start(&contender, 1, &cores)?;
                Ok((contender, server))
            })
            .collect()
    }
}

/// A generator on cores of its own spins; one that shares a core with a server has to let go of it.
pub fn placement_on(cores: Vec<usize>, server_cores: &[usize]) -> Placement {
    let shared = cores.iter().any(|core| server_cores.contains(core));
    Placement { cores, wait: if shared { Wait::Block } else { Wait::Spin } }
}

fn peers_in_path() -> Vec<Program> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    [("redis", "redis-server"), ("valkey", "valkey-server")]
        .into_iter()
        .filter(|(_, binary)| folders.iter().any(|folder| folder.join(binary).is_file()))
        .map(|(name, binary)| Program {
            name: name.to_string(),
            path: PathBuf::from(binary),
            args: Vec::new(),
        })
        .collect()
}

/// Our server as given, or built from this workspace into the folder that holds this binary.
fn our_program(given: Option<&str>) -> Result<Program> {
    if let Some(given) = given {
        return format!("shardis={given}")
            .parse()
            .map_err(|error| BenchError::new(format!("--ours: {error}")));
    }
    println!("building our server ...");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let build = [
        "build",
        "--release",
        "--quiet",
        "--manifest-path",
        manifest,
        "-p",
        "shardis-core",
        "--bin",
        "shardis",
    ];
    let exe = std::env::current_exe().context(|| "the path of this program".to_string())?;
    // exe is TARGET/PROFILE/shardis-benches.
    let target = exe.parent().and_then(|profile| profile.parent());
    let target =
        target.ok_or_else(|| BenchError::new("this program does not lie in a target folder: give --ours"))?;
    let status = Command::new(&cargo)
        .args(build)
        .arg("--target-dir")
        .arg(target)
        .status()
        .context(|| cargo.clone())?;
    if !status.success() {
        return Err(BenchError::new("our server does not build"));
    }
    let path = target.join("release/shardis");
    Ok(Program { name: "shardis".to_string(), path, args: Vec::new() })
}

/// Connections and pipeline of loads whose speed does not matter.
const LOADER_CONNECTIONS: usize = 4;
const LOADER_PIPELINE: usize = 64;

/// Sets the keys 0..keys of `stored` on one server.
pub fn load_keys(server: &Server, stored: Stored, keys: u64, placement: &Placement) -> Result<()> {
    let what = || format!("{}: load", server.program.name);
    let mut driver =
        Driver::connect(server.address, LOADER_CONNECTIONS, &placement.cores, Wait::Block).context(what)?;
    let mut source = SetSequence::new(stored, keys, LOADER_PIPELINE, 1);
    in_thread(|| driver.run(&mut source, Window::whole_source(), &mut NoObserver)).context(what)?;
    Ok(())
}

/// Waits until a server has done what it does when it is left alone after a load: ours moves its table to huge pages, which
/// is worth more than what is measured here.
pub fn settle(server: &Server) -> Result<()> {
    /// Ours begins after a rest of two seconds.
    const REST: Duration = Duration::from_millis(3000);
    const UNCHANGED: Duration = Duration::from_millis(500);
    const CHECKS_MAX: usize = 40;
    let huge_page_bytes =
        || proc::huge_page_bytes(server.pid()).context(|| format!("memory of {}", server.program.name));
    std::thread::sleep(REST);
    let mut before = huge_page_bytes()?;
    for _ in 0..CHECKS_MAX {
        std::thread::sleep(UNCHANGED);
        let now = huge_page_bytes()?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Puts the keys there that `ops` use.
pub fn load_for(
    server: &Server,
    ops: &[Op],
    value_len_bytes: usize,
    keys: u64,
    placement: &Placement,
) -> Result<()> {
    if ops.contains(&Op::Incr) {
        load_keys(server, Stored::Counter, keys, placement)?;
    }
    load_keys(server, Stored::Text { len_bytes: value_len_bytes }, keys, placement)?;
    settle(server)
}

/// The user of a scene that has one.
const USER: &str = "bench";

/// Fills a server anew with the collections of a named operation, loads its scripts, and sets its scene.
pub fn load_collections(server: &Server, row: usize, placement: &Placement) -> Result<()> {
    let scene = &NAMED[row].scene;
    server.ask(&["FLUSHALL"])?;
    for script in NAMED[row].scripts() {
        server.ask(&["SCRIPT", "LOAD", script])?;
    }
    load_keys(server, Stored::Named(row), NAMED[row].load_count(), placement)?;
    for (name, value, _) in scene.directives {
        server.ask(&["CONFIG", "SET", name, value])?;
    }
    if !scene.user_rules.is_empty() {
        server.ask(&[&["ACL", "SETUSER", USER], scene.user_rules].concat())?;
    }
    if scene.is_full {
        settle(server)?;
        let used = server.used_memory_bytes()?;
        let used = used.ok_or_else(|| BenchError::new("INFO has no used_memory"))?;
        server.ask(&["CONFIG", "SET", "maxmemory", &used.to_string()])?;
    }
    Ok(())
}

/// Undoes what `load_collections` has set beside keys. Returns what there is to say about the scene: how many keys a full
/// server held.
pub fn leave_scene(server: &Server, row: usize) -> Result<Option<String>> {
    let scene = &NAMED[row].scene;
    let mut remark = None;
    if scene.is_full {
        if server.info("stats", "evicted_keys")?.is_none_or(|evicted| evicted == "0") {
            return Err(BenchError::new(format!("{}: no key was evicted", server.program.name)));
        }
        remark = Some(format!("{} held {} keys", server.program.name, server.ask(&["DBSIZE"])?));
        server.ask(&["CONFIG", "SET", "maxmemory", "0"])?;
        server.ask(&["FLUSHALL"])?;
    }
    for (name, _, default) in scene.directives {
        server.ask(&["CONFIG", "SET", name, default])?;
    }
    if !scene.user_rules.is_empty() {
        server.ask(&["ACL", "DELUSER", USER])?;
    }
    Ok(remark)
}

/// Runs `work` on a thread of its own: drivers pin the thread they run on, and the main thread starts servers.
pub fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().expect("a generator thread does not panic"))
}

/// The figures of one server in one cell of a matrix, a value a round.
#[derive(Default)]
pub struct Rounds {
    pub ops_per_s: Vec<f64>,
    pub cpu_us_per_op: Vec<f64>,
    pub kernel_share: Vec<f64>,
    pub p50_us: Vec<f64>,
    pub p99_us: Vec<f64>,
    pub p999_us: Vec<f64>,
    pub server_cores_busy: Vec<f64>,
    pub generator_busy: Vec<f64>,
}

impl Rounds {
    fn push(&mut self, sample: &Sample) {
        let quantile_us = |quantile| sample.latencies_ns.quantile(quantile) as f64 / 1e3;
        self.ops_per_s.push(sample.ops_per_s);
        self.cpu_us_per_op.push(sample.cpu_us_per_op);
        self.kernel_share.push(sample.kernel_share);
        self.p50_us.push(quantile_us(0.5));
        self.p99_us.push(quantile_us(0.99));
        self.p999_us.push(quantile_us(0.999));
        self.server_cores_busy.push(sample.server_cores_busy);
        self.generator_busy.push(sample.generator_busy);
    }

    /// Takes the rounds of `other` over behind these.
    pub fn append(&mut self, mut other: Rounds) {
        self.ops_per_s.append(&mut other.ops_per_s);
        self.cpu_us_per_op.append(&mut other.cpu_us_per_op);
        self.kernel_share.append(&mut other.kernel_share);
        self.p50_us.append(&mut other.p50_us);
        self.p99_us.append(&mut other.p99_us);
        self.p999_us.append(&mut other.p999_us);
        self.server_cores_busy.append(&mut other.server_cores_busy);
        self.generator_busy.append(&mut other.generator_busy);
    }

    /// What kept the figure from being higher: the server when its cores were full, the generator when it was.
    pub fn limit(&self, server_cores: usize) -> &'static str {
        const FULL: f64 = 0.95;
        if stats::median(&self.server_cores_busy) >= FULL * server_cores as f64 {
            "server"
        } else if stats::median(&self.generator_busy) >= FULL {
            "generator"
        } else {
            "neither"
        }
    }
}

/// A server with the generator's connections to it.
pub struct Lane<'a> {
    pub server: &'a Server,
    pub generator: Generator,
}

impl<'a> Lane<'a> {
    pub fn connect(server: &'a Server, connections: usize, placement: &Placement) -> Result<Lane<'a>> {
        let generator = Generator::connect(server.address, connections, placement)
            .context(|| format!("{}: {connections} connections", server.program.name))?;
        Ok(Lane { server, generator })
    }

    /// As `connect`, in the scene of the operation: its user's connections, and subscribers beside them.
    pub fn connect_for(
        op: Op,
        server: &'a Server,
        connections: usize,
        placement: &Placement,
    ) -> Result<Lane<'a>> {
        let mut lane = Lane::connect(server, connections, placement)?;
        let Some(Named { scene, .. }) = op.named() else { return Ok(lane) };
        let what = || format!("{}: scene", server.program.name);
        if !scene.user_rules.is_empty() {
            lane.generator.authenticate(USER).context(what)?;
        }
        if let Some(subscribers) = scene.subscribers {
            lane.generator.with_subscribers(server.address, subscribers);
        }
        Ok(lane)
    }

    /// By TLS, to another port of the server.
    pub fn connect_tls(
        server: &'a Server,
        address: SocketAddr,
        connections: usize,
        placement: &Placement,
        context: &SslContext,
    ) -> Result<Lane<'a>> {
        let generator = Generator::connect_by(address, connections, placement, Some(context))
            .context(|| format!("{}: {connections} encrypted connections", server.program.name))?;
        Ok(Lane { server, generator })
    }
}

/// Drives every lane in every round, the order rotated by one each time, so that no server always runs first or
/// always after the same other. Returns the figures in the order of the lanes.
pub fn interleaved(lanes: &mut [Lane], pool: &Pool, args: &RoundArgs) -> Result<Vec<Rounds>> {
    interleaved_each(lanes, std::slice::from_ref(pool), args)
}

/// The same with a pool for each lane; fewer are taken in turn.
pub fn interleaved_each(lanes: &mut [Lane], pools: &[Pool], args: &RoundArgs) -> Result<Vec<Rounds>> {
    let mut rounds: Vec<Rounds> = lanes.iter().map(|_| Rounds::default()).collect();
    let (warm_up, window) = (Duration::from_secs_f64(args.warm_up), Duration::from_secs_f64(args.seconds));
    for round in 0..args.rounds as usize {
        for step in 0..lanes.len() {
            let at = (round + step) % lanes.len();
            let (lane, pool) = (&mut lanes[at], &pools[at % pools.len()]);
            let name = &lane.server.program.name;
            let sample =
                lane.generator.run(pool, warm_up, window, &lane.server.cpu).context(|| name.clone())?;
            if sample.nulls > 0 && !pool.may_miss() {
                return Err(BenchError::new(format!("{name}: {} keys were not there", sample.nulls)));
            }
            rounds[at].push(&sample);
        }
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_shares_a_core_with_a_server_does_not_spin() {
        assert_eq!(placement_on(vec![1], &[0]).wait, Wait::Spin);
        assert_eq!(placement_on(vec![0, 1], &[0]).wait, Wait::Block);
    }

    #[test]
    fn the_limit_is_named_by_who_was_busy() {
        let rounds = |server, generator| Rounds {
            server_cores_busy: vec![server],
            generator_busy: vec![generator],
            ..Rounds::default()
        };
        assert_eq!(rounds(0.99, 0.99).limit(1), "server");
        assert_eq!(rounds(0.80, 0.99).limit(1), "generator");
        assert_eq!(rounds(0.99, 0.50).limit(2), "neither");
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(positive_seconds("0.5"), Ok(0.5));
        for bad in ["0", "-1", "x", "NaN", "inf"] {
            assert!(positive_seconds(bad).is_err(), "{bad}");
        }
    }
}
