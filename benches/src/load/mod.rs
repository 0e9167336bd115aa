//! The load generator: closed loops of pipelined requests over many connections, cheap enough not to be the limit.
//!
//! What makes it cheap: requests are built before the clock starts (`workload`), so sending a pipeline is a few digits
//! and one write; replies are counted by their headers only (`resp::ReplyScanner`); one thread
//! a core serves all its connections from one edge-triggered epoll set, and spins on it, so that the server never pays
//! for waking us up (`driver`). What it costs and whether it was the limit is part of every figure: the share of time
//! in which it found nothing to do.

pub mod driver;
pub mod named;
pub mod wire;
pub mod workload;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use openssl::ssl::SslContext;

use crate::histogram::Histogram;
use crate::load::driver::{Driver, Observer, Tally, Window};
use crate::load::named::Subscribers;
use crate::load::workload::{Pool, PoolSource};
use crate::proc;
use crate::sys::{self, CpuClock};

/// How a generator thread waits for replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// Never sleeps. For a core of its own.
    Spin,
    /// Sleeps in the kernel. For a core that it shares with the server.
    Block,
}

/// Where the generator runs: one thread pinned on each core.
#[derive(Clone, Debug)]
pub struct Placement {
    pub cores: Vec<usize>,
    pub wait: Wait,
}

/// What one round of load measured on one server.
pub struct Sample {
    pub ops_per_s: f64,
    pub cpu_us_per_op: f64,
    /// Share of that CPU that was spent in the kernel.
    pub kernel_share: f64,
    /// One record for a pipeline: from before its write to after the read of its last reply.
    pub latencies_ns: Histogram,
    /// Cores' worth of CPU that the server used.
    pub server_cores_busy: f64,
    /// Share of its time in which a generator thread had something to do, on average over the threads.
    pub generator_busy: f64,
    pub nulls: u64,
    /// Operations of the whole run, those before and after the window included.
    pub ops_of_run: u64,
}

/// All connections to one server, spread over the generator's threads. They stay open between rounds.
pub struct Generator {
    drivers: Vec<Driver>,
    /// Opened for each run: other generators drive the same server.
    subscribers: Option<(SocketAddr, Subscribers)>,
}

/// How many of so many a thread has.
fn share(count: usize, threads: usize, thread: usize) -> usize {
    count / threads + usize::from(thread < count % threads)
}

impl Generator {
    /// Opens `connections` connections, each thread its share.
    pub fn connect(address: SocketAddr, connections: usize, placement: &Placement) -> io::Result<Generator> {
        Generator::connect_by(address, connections, placement, None)
    }

    /// As `connect`; with a context, by TLS.
    pub fn connect_by(
        address: SocketAddr,
        connections: usize,
        placement: &Placement,
        tls: Option<&SslContext>,
    ) -> io::Result<Generator> {
        let threads = placement.cores.len().min(connections).max(1);
        let drivers = (0..threads).map(|thread| {
            let share = share(connections, threads, thread);
            Driver::connect_by(address, share, &placement.cores[thread..=thread], placement.wait, tls)
        });
        Ok(Generator { drivers: drivers.collect::<io::Result<_>>()?, subscribers: None })
    }

    /// Makes the connections those of a user.
    pub fn authenticate(&mut self, user: &str) -> io::Result<()> {
        self.drivers.iter_mut().try_for_each(|driver| driver.authenticate(user))
    }

    /// From now on each run has subscribers, and each operation is taken to be one message.
    pub fn with_subscribers(&mut self, address: SocketAddr, subscribers: Subscribers) {
        self.subscribers = Some((address, subscribers));
    }

    /// Opens the subscribers' connections, each thread its share.
    fn subscribe(&mut self) -> io::Result<()> {
        let Some((address, subscribers)) = self.subscribers else { return Ok(()) };
        let threads = self.drivers.len();
        for (thread, driver) in self.drivers.iter_mut().enumerate() {
            let count = share(subscribers.count, threads, thread);
            driver.subscribe(address, Subscribers { count, ..subscribers })?;
        }
        Ok(())
    }

    /// Waits until every subscriber has got so many messages, and closes their connections.
    fn end_subscriptions(&mut self, messages: u64) -> io::Result<()> {
        let Some((_, subscribers)) = self.subscribers else { return Ok(()) };
        let expected_bytes = messages * subscribers.message_len_bytes();
        self.drivers.iter_mut().try_for_each(|driver| driver.end_subscriptions(expected_bytes))
    }

    /// Drives the server for `warm_up`, then for the measured `window`, then until every reply is there.
    pub fn run(
        &mut self,
        pool: &Pool,
        warm_up: Duration,
        window: Duration,
        server: &ServerCpu,
    ) -> io::Result<Sample> {
        self.subscribe()?;
        let opens_at_ns = sys::now_ns() + warm_up.as_nanos() as u64;
        let len_ns = window.as_nanos() as u64;
        let threads = self.drivers.len();
        let results: Vec<io::Result<(Tally, CpuProbe)>> = thread::scope(|scope| {
            let spawn = |(index, driver)| {
                // Threads draw different keys.
                let mut source = PoolSource::new(pool.clone(), index as u64);
                let driver: &mut Driver = driver;
                let times = Window { opens_at_ns, len_ns, batches_min: driver.connections() };
                let mut probe = CpuProbe::new(server);
                scope.spawn(move || {
                    let tally = driver.run(&mut source, times, &mut probe)?;
                    Ok((tally, probe))
                })
            };
            let handles: Vec<_> = self.drivers.iter_mut().enumerate().map(spawn).collect();
            handles
                .into_iter()
                .map(|handle| handle.join().expect("a generator thread does not panic"))
                .collect()
        });

        let results = results.into_iter().collect::<io::Result<Vec<_>>>()?;
        self.end_subscriptions(results.iter().map(|(tally, _)| tally.replies_of_run).sum())?;
        let mut results = results.into_iter();
        let (first, probe) = results.next().expect("there is at least one thread");
        let (cpu_ns, kernel_share) = probe.used()?;
        // The windows of the threads are the same but for moments, so rates are added up, not counts.
        let server_cores_busy = cpu_ns / first.elapsed_ns.max(1) as f64;
        let mut sample = Sample {
            ops_per_s: first.replies_per_s(),
            cpu_us_per_op: 0.0,
            kernel_share,
            server_cores_busy,
            generator_busy: first.busy_share(),
            nulls: first.nulls,
            ops_of_run: first.replies_of_run,
            latencies_ns: first.latencies_ns,
        };
        for (tally, _) in results {
            sample.ops_per_s += tally.replies_per_s();
            sample.generator_busy += tally.busy_share();
            sample.nulls += tally.nulls;
            sample.ops_of_run += tally.replies_of_run;
            sample.latencies_ns.merge(&tally.latencies_ns);
        }
        sample.ops_per_s /= pool.replies_per_op() as f64;
        sample.ops_of_run /= pool.replies_per_op() as u64;
        sample.generator_busy /= threads as f64;
        sample.cpu_us_per_op = server_cores_busy / sample.ops_per_s * 1e6;
        Ok(sample)
    }
}

/// Where a server's CPU time is read.
#[derive(Clone, Copy, Debug)]
pub struct ServerCpu {
    pub pid: u32,
    pub clock: CpuClock,
}

/// One reading of it.
struct CpuReading {
    clock_ns: u64,
    user_ticks: u64,
    system_ticks: u64,
}

impl ServerCpu {
    fn read(&self) -> io::Result<CpuReading> {
        let (user_ticks, system_ticks) = proc::user_and_system_ticks(self.pid)?;
        Ok(CpuReading { clock_ns: self.clock.used_ns()?, user_ticks, system_ticks })
    }
}

/// Reads the server's CPU time where the window opens and where it closes.
struct CpuProbe {
    server: ServerCpu,
    opened: Option<io::Result<CpuReading>>,
    closed: Option<io::Result<CpuReading>>,
}

impl CpuProbe {
    fn new(server: &ServerCpu) -> CpuProbe {
        CpuProbe { server: *server, opened: None, closed: None }
    }

    /// Nanoseconds used in the window, and the share of them that the kernel used.
    fn used(self) -> io::Result<(f64, f64)> {
        let never = || Err(io::Error::other("the measured window never opened"));
        let (opened, closed) = (self.opened.unwrap_or_else(never)?, self.closed.unwrap_or_else(never)?);
        let user = closed.user_ticks.saturating_sub(opened.user_ticks) as f64;
        let system = closed.system_ticks.saturating_sub(opened.system_ticks) as f64;
        Ok(((closed.clock_ns - opened.clock_ns) as f64, system / (user + system).max(1.0)))
    }
}

impl Observer for CpuProbe {
    fn window_opens(&mut self) {
        self.opened = Some(self.server.read());
    }

    fn window_closes(&mut self) {
        self.closed = Some(self.server.read());
    }
}
