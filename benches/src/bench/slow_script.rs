//! How long plain commands wait while a script runs for seconds.
//!
//! One client runs a slow script over one key, again and again. Others send what has to wait for it: commands over the whole
//! keyspace, and MSETs that touch its key. Probes read and write other keys, on all shards, and ask the server at the end how
//! long their requests took by its own clock, from receipt to reply (DEBUG LONGEST-WAIT). So the figure holds what the server
//! lets a request wait for, and not how the machine schedules the probes; a machine that takes the server off its cores still
//! shows in it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::shards::our_contender;
use crate::bench::{CommonArgs, Setup, at_least_one, positive_seconds};
use crate::error::{BenchError, Context, Result};
use crate::report::{Table, Verdict, figure, grouped};
use crate::resp::{ReplyScanner, write_command};
use crate::server::Server;
use crate::sys;

/// Microseconds, at most.
const WAIT_BAR_US: f64 = 5000.0;

/// Plain commands are over so many keys, `probe:0` and so on.
const PROBED_KEYS: usize = 64;
const PROBES: usize = 4;
/// Between the requests of a probe.
const PROBE_PAUSE: Duration = Duration::from_micros(300);

/// Calls in a script whose length is measured, to find out how many make a slow one.
const TRIAL_CALLS: u64 = 200_000;

/// A script over the key `slow`, which calls GET so many times, in two forms.
const SCRIPTS: [(&str, &str); 2] = [
    ("declared", "for i = 1, tonumber(ARGV[1]) do redis.call('get', KEYS[1]) end return 1"),
    (
        "undeclared",
        "local key = 'sl'..'ow' for i = 1, tonumber(ARGV[1]) do redis.call('get', key) end return 1",
    ),
];

#[derive(Args, Clone, Debug)]
pub struct SlowScriptArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Numbers of shards to measure
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = at_least_one)]
    pub shards: Vec<usize>,
    /// How long a script runs, about
    #[arg(long, default_value_t = 2.0, value_parser = positive_seconds)]
    pub script_seconds: f64,
    /// How long a row is measured
    #[arg(long, default_value_t = 8.0, value_parser = positive_seconds)]
    pub seconds: f64,
}

pub fn run(args: &SlowScriptArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "slow-script", "Plain commands beside a slow script")?;
    let ours = our_contender(&setup)?;
    let allowed = sys::allowed_cores().context(|| "cores of this process".to_string())?;
    let mut table = Table::new(["shards", "key", "scripts", "requests", "longest wait us", "bar", ""]);
    for &shard_count in &args.shards {
        let cores: Vec<usize> = allowed.iter().copied().take(shard_count).collect();
        let mut ours = ours.clone();
        ours.program.args.extend(["--enable-debug-command", "yes"].map(str::to_string));
        let server = setup.start(&ours, shard_count, &cores)?;
        server.ask(&["CONFIG", "SET", "busy-reply-threshold", "0"])?;
        for (name, script) in SCRIPTS {
            let row = measure(&server, script, args)?;
            let verdict = Verdict::at_most(row.longest_wait_us, WAIT_BAR_US);
            setup.report.verdict(&format!("{shard_count} shards, {name} key"), verdict);
            table.row([
                shard_count.to_string(),
                name.to_string(),
                row.scripts.to_string(),
                grouped(row.requests as f64),
                figure(row.longest_wait_us),
                format!("<= {WAIT_BAR_US}"),
                verdict.text().to_string(),
            ]);
        }
    }
    setup.report.table("Longest wait of plain commands over other keys, by the server's clock", &table);
    setup.report.finish(&args.common.results)
}

struct Row {
    scripts: u64,
    requests: u64,
    longest_wait_us: f64,
}

fn measure(server: &Server, script: &str, args: &SlowScriptArgs) -> Result<Row> {
    server.ask(&["SET", "slow", "1"])?;
    let started_at = Instant::now();
    server.ask(&["EVAL", script, "1", "slow", &TRIAL_CALLS.to_string()])?;
    let calls = args.script_seconds / started_at.elapsed().as_secs_f64() * TRIAL_CALLS as f64;
    let calls = (calls as u64).to_string();

    let stop = AtomicBool::new(false);
    let is_over = || stop.load(Ordering::Relaxed);
    let others: [&[&str]; 5] = [
        &["DBSIZE"],
        &["SCAN", "0", "COUNT", "1000"],
        &["FLUSHALL"],
        &["MSET", "slow", "2", "probe:x", "1", "probe:y", "1"],
        &["MSET", "probe:z", "1", "slow", "3"],
    ];
    thread::scope(|scope| {
        let slow = scope.spawn(|| -> Result<u64> {
            let mut client = Connection::new(server)?;
            let mut count = 0;
            while !is_over() {
                client.call(&["EVAL", script, "1", "slow", &calls])?;
                count += 1;
            }
            Ok(count)
        });
        let others = others.map(|request| {
            scope.spawn(move || -> Result<()> {
                let mut client = Connection::new(server)?;
                while !is_over() {
                    client.call(request)?;
                    thread::sleep(PROBE_PAUSE);
                }
                Ok(())
            })
        });
        let probes: Vec<_> = (0..PROBES).map(|n| scope.spawn(move || probe(server, n, is_over))).collect();
        thread::sleep(Duration::from_secs_f64(args.seconds));
        stop.store(true, Ordering::Relaxed);

        let join = |_| BenchError::new("a client has panicked");
        let mut row = Row { scripts: slow.join().map_err(join)??, requests: 0, longest_wait_us: 0.0 };
        for other in others {
            other.join().map_err(join)??;
        }
        for probe in probes {
            let (requests, longest_wait_us) = probe.join().map_err(join)??;
            row.requests += requests;
            row.longest_wait_us = row.longest_wait_us.max(longest_wait_us);
        }
        Ok(row)
    })
}

/// Sends plain commands one by one. Returns how many, and the longest wait.
fn probe(server: &Server, n: usize, is_over: impl Fn() -> bool) -> Result<(u64, f64)> {
    let mut client = server.client()?;
    let mut ask = |args: &[&str]| client.call(args).context(|| args.join(" "));
    ask(&["DEBUG", "LONGEST-WAIT"])?;
    let mut count = 0;
    while !is_over() {
        let key = format!("probe:{}", (count as usize * PROBES + n) % PROBED_KEYS);
        match count % 2 {
            0 => ask(&["SET", &key, "1"])?,
            _ => ask(&["GET", &key])?,
        };
        count += 1;
        thread::sleep(PROBE_PAUSE);
    }
    let longest = ask(&["DEBUG", "LONGEST-WAIT"])?;
    let longest = longest.parse().map_err(|_| BenchError::new(format!("not a time: {longest}")))?;
    Ok((count, longest))
}

/// A connection whose replies are of any kind, and may take long.
struct Connection {
    stream: TcpStream,
    scanner: ReplyScanner,
}

impl Connection {
    fn new(server: &Server) -> Result<Connection> {
        let stream = TcpStream::connect(server.address).context(|| server.program.name.clone())?;
        stream.set_nodelay(true).context(|| server.program.name.clone())?;
        Ok(Connection { stream, scanner: ReplyScanner::default() })
    }

    /// Sends a command and waits for its reply.
    fn call(&mut self, args: &[&str]) -> Result<()> {
        let mut request = Vec::new();
        let bytes: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        write_command(&mut request, &bytes);
        let what = || args.join(" ");
        self.stream.write_all(&request).context(what)?;
        let mut piece = [0; 4096];
        loop {
            let len = self.stream.read(&mut piece).context(what)?;
            if len == 0 {
                return Err(BenchError::new(format!("{}: the server closed the connection", what())));
            }
            let is_whole = self.scanner.scan(&piece[..len]).context(what)? > 0;
            if let Some(error) = self.scanner.first_error.take() {
                return Err(BenchError::new(format!("{}: {error}", what())));
            }
            if is_whole {
                return Ok(());
            }
        }
    }
}
