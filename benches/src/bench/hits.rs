//! Hit rates of a cache under eviction: the same trace against every server, with `maxmemory` set so that all hold the same
//! number of keys. What counts is which keys a server keeps, so the figures do not depend on the machine. A trace has its own
//! times, `--rate` requests a second: under LRU, servers know the seconds in which keys were last accessed, so that one
//! that is driven faster would know less.
//!
//! The trace asks for keys whose popularity is Zipf's: the key of rank n is asked for in proportion to n^-exponent. A miss is
//! followed by a SET, as a cache's user would send it. In the trace `one slot`, the more popular half of what is
//! held shares a hash tag, so that of several shards one has all of it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;

use crate::bench::{CommonArgs, Role, Setup, at_least_one};
use crate::error::{BenchError, Context, Result};
use crate::report::{Table, Verdict};
use crate::resp::write_command;
use crate::server::Server;

/// How many points of a hundred our hit rate may be below Redis'.
const BAR_POINTS: f64 = 0.5;

/// A trace that ends later than this was not played at its times.
const LATE_MAX: Duration = Duration::from_secs(1);

const VALUE_LEN_BYTES: usize = 64;
const PIPELINE: usize = 64;

/// `maxmemory` is adapted at most so often, until the number of keys is as near to what it should be.
const ADAPTATIONS_MAX: usize = 12;
const HELD_TOLERANCE: f64 = 0.005;

#[derive(Args, Clone, Debug)]
pub struct HitsArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Keys of the trace
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one)]
    pub keys: usize,
    /// Keys that a server has room for
    #[arg(long, default_value_t = 25_000, value_parser = at_least_one)]
    pub held: usize,
    /// Measured requests; half as many come before
    #[arg(long, default_value_t = 1_000_000, value_parser = at_least_one)]
    pub requests: usize,
    /// Requests a second
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    #[arg(long, default_value_t = 0.99)]
    pub exponent: f64,
    #[arg(long, value_delimiter = ',', default_value = "allkeys-lru,allkeys-lfu")]
    pub policies: Vec<String>,
    /// Shards of our server
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = at_least_one)]
    pub shards: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trace {
    Spread,
    OneSlot,
}

impl Trace {
    fn name(self) -> &'static str {
        match self {
            Trace::Spread => "spread",
            Trace::OneSlot => "one slot",
        }
    }
}

/// Draws ranks.
struct Zipf {
    /// The sums of the weights up to each rank.
    sums: Vec<f64>,
    rng: Rng,
}

impl Zipf {
    fn new(keys: usize, exponent: f64, seed: u64) -> Zipf {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Zipf { sums: (1..=keys).map(add).collect(), rng: Rng::with_seed(seed) }
    }

    fn draw(&mut self) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let at = self.rng.f64() * total;
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1)
    }
}

/// One connection that sends pipelines of requests.
struct Player {
    stream: BufReader<TcpStream>,
    /// Of the next request.
    due_at: Instant,
    request_interval: Duration,
    trace: Trace,
    hot: usize,
    value: Vec<u8>,
}

impl Player {
    fn connect(address: SocketAddr, trace: Trace, args: &HitsArgs) -> io::Result<Player> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Player {
            stream: BufReader::new(stream),
            due_at: Instant::now(),
            request_interval: Duration::from_secs(1) / args.rate,
            trace,
            hot: args.held / 2,
            value: vec![b'v'; VALUE_LEN_BYTES],
        })
    }

    fn key(&self, rank: usize) -> String {
        match self.trace {
            Trace::OneSlot if rank < self.hot => format!("{{hot}}:{rank:010}"),
            Trace::OneSlot | Trace::Spread => format!("cold-:{rank:010}"),
        }
    }

    /// Asks for so many keys, and sets those that are not there. Returns how many were.
    fn play(&mut self, zipf: &mut Zipf, requests: usize) -> io::Result<usize> {
        let mut hits = 0;
        let mut out = Vec::new();
        for begin in (0..requests).step_by(PIPELINE) {
            let ranks: Vec<usize> = (begin..requests.min(begin + PIPELINE)).map(|_| zipf.draw()).collect();
            std::thread::sleep(self.due_at.saturating_duration_since(Instant::now()));
            self.due_at += self.request_interval * ranks.len() as u32;
            out.clear();
            for &rank in &ranks {
                write_command(&mut out, &[b"GET", self.key(rank).as_bytes()]);
            }
            self.stream.get_mut().write_all(&out)?;
            out.clear();
            let mut missed = 0;
            for &rank in &ranks {
                if self.read_reply()? {
                    hits += 1;
                } else {
                    missed += 1;
                    write_command(&mut out, &[b"SET", self.key(rank).as_bytes(), &self.value]);
                }
            }
            self.stream.get_mut().write_all(&out)?;
            for _ in 0..missed {
                self.read_reply()?;
            }
        }
        Ok(hits)
    }

    /// Whether the reply is something.
    fn read_reply(&mut self) -> io::Result<bool> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line[..] {
            [b'$', b'-', ..] => Ok(false),
            [b'$', ..] => {
                let mut value = [0; VALUE_LEN_BYTES + 2];
                self.stream.read_exact(&mut value)?;
                Ok(true)
            }
            [b'+', ..] => Ok(true),
            _ => Err(io::Error::other(String::from_utf8_lossy(&line).into_owned())),
        }
    }
}

fn used_memory(server: &Server) -> Result<f64> {
    let used_bytes = server.used_memory_bytes()?;
    used_bytes.map(|bytes| bytes as f64).ok_or_else(|| BenchError::new("INFO has no used_memory"))
}

fn key_count(server: &Server) -> Result<f64> {
    let count = server.ask(&["DBSIZE"])?;
    count.parse().map_err(|_| BenchError::new(format!("no number: {count:?}")))
}

/// Percent of hits, and how many keys the server held at the end.
fn measure(server: &Server, policy: &str, trace: Trace, args: &HitsArgs) -> Result<(f64, f64)> {
    let what = || format!("{}: {policy}, {}", server.program.name, trace.name());
    server.ask(&["CONFIG", "SET", "maxmemory", "0"])?;
    server.ask(&["FLUSHALL"])?;
    server.ask(&["CONFIG", "SET", "maxmemory-policy", policy])?;
    let mut zipf = Zipf::new(args.keys, args.exponent, args.seed);
    let mut player = Player::connect(server.address, trace, args).context(what)?;
    let empty_bytes = used_memory(server)?;
    while key_count(server)? < args.held as f64 {
        player.play(&mut zipf, PIPELINE).context(what)?;
    }
    let held = args.held as f64;
    let mut limit = used_memory(server)?;
    let key_bytes = (limit - empty_bytes) / held;
    for _ in 0..ADAPTATIONS_MAX {
        server.ask(&["CONFIG", "SET", "maxmemory", &(limit as u64).to_string()])?;
        player.play(&mut zipf, args.requests / 2 / ADAPTATIONS_MAX).context(what)?;
        let missing = held - key_count(server)?;
        if missing.abs() > held * HELD_TOLERANCE {
            limit += missing * key_bytes;
        }
    }
    let hits = player.play(&mut zipf, args.requests).context(what)?;
    let late = player.due_at.elapsed();
    if late > LATE_MAX {
        let late_s = late.as_secs_f64();
        return Err(BenchError::new(format!("{}: the trace ended {late_s:.1} s late: lower --rate", what())));
    }
    Ok((hits as f64 * 100.0 / args.requests as f64, key_count(server)?))
}

pub fn run(args: &HitsArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "hits", "Hit rates under eviction")?;
    let cores = setup.server_cores.clone();
    let mut servers = Vec::new();
    for contender in setup.contenders.clone() {
        let shards: &[usize] = if contender.is_ours() { &args.shards } else { &[1] };
        for &shards in shards {
            let server = setup.start(&contender, shards, &cores)?;
            servers.push((contender.clone(), shards, server));
        }
    }
    // Ours come behind what they are compared with.
    servers.sort_by_key(|(contender, ..)| contender.is_ours());

    let mut table =
        Table::new(["policy", "trace", "server", "shards", "keys held", "hits %", "below Redis", "bar", ""]);
    for policy in &args.policies {
        for trace in [Trace::Spread, Trace::OneSlot] {
            let mut redis: Option<f64> = None;
            for (contender, shards, server) in &servers {
                let name = &contender.program.name;
                let (percent, held) = measure(server, policy, trace, args)?;
                println!(
                    "{policy}, {}: {}, {shards} shards: {percent:.2} % of {held} keys",
                    trace.name(),
                    name
                );
                if contender.role == Role::Peer && name == "redis" {
                    redis = Some(percent);
                }
                let below = redis.map(|redis| redis - percent).filter(|_| contender.is_ours());
                let verdict = below.map(|below| Verdict::at_most(below, BAR_POINTS));
                if let Some(verdict) = verdict {
                    let what = format!("{policy}, {}, {shards} shards", trace.name());
                    setup.report.verdict(&what, verdict);
                }
                table.row([
                    policy.clone(),
                    trace.name().to_string(),
                    name.clone(),
                    shards.to_string(),
                    format!("{held}"),
                    format!("{percent:.2}"),
                    below.map(|below| format!("{below:.2}")).unwrap_or_default(),
                    verdict.map(|_| format!("<= {BAR_POINTS}")).unwrap_or_default(),
                    verdict.map_or("", Verdict::text).to_string(),
                ]);
            }
        }
    }
    setup.report.paragraph(&format!(
        "{} keys, room for {}, exponent {}, {} requests, {} a second, values of {VALUE_LEN_BYTES} B.",
        args.keys, args.held, args.exponent, args.requests, args.rate
    ));
    setup.report.table("Hit rates", &table);
    drop(servers);
    setup.report.finish(&args.common.results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_ranks_are_drawn_as_often_as_zipf_says() {
        let mut zipf = Zipf::new(1000, 1.0, 1);
        let draws: Vec<usize> = (0..100_000).map(|_| zipf.draw()).collect();
        let share = |rank| draws.iter().filter(|&&drawn| drawn == rank).count() as f64 / 100_000.0;
        // The sum of 1/n up to 1000.
        let total = 7.485;
        assert!((share(0) - 1.0 / total).abs() < 0.01, "{}", share(0));
        assert!((share(1) - 0.5 / total).abs() < 0.01, "{}", share(1));
        assert!(draws.iter().all(|&rank| rank < 1000));
    }
}
