//! Pipelines of commands and EXECs over many keys, from their bytes to their replies: the workers of one shard and of two,
//! turn by turn in one thread, without sockets. What two shards take more than one is what the work over several costs; the
//! lines that travel between cores are not in it.
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use shardis_core::command::table::CommandTable;
use shardis_core::config::Config;
use shardis_core::runtime::clock::{Clock, SystemClock};
use shardis_core::runtime::driver::{ConnId, Events};
use shardis_core::runtime::tls::Tls;
use shardis_core::session::FAMILIES;
use shardis_core::worker::{Globals, GlobalsInit, IoRequest, NewConnectionInfo, Worker};

/// More than the caches hold.
const KEY_COUNT: u64 = 300_000;
const KEYS_PER_OP: usize = 10;
const SETS_PER_EXEC: usize = 5;
/// Connections of each shard that have sent something at a turn.
const BUSY_CONNECTIONS: usize = 8;
/// Pipelines built ahead for each connection.
const ROUNDS: usize = 64;

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

fn random_key(random: &mut Rng) -> String {
    key(random.u64(..KEY_COUNT))
}

fn value() -> String {
    "v".repeat(64)
}

fn push(bytes: &mut Vec<u8>, request: &[String]) {
    bytes.extend(format!("*{}\r\n", request.len()).as_bytes());
    for arg in request {
        bytes.extend(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
}

fn mget(random: &mut Rng) -> Vec<Vec<String>> {
    vec![std::iter::once("MGET".to_string()).chain((0..KEYS_PER_OP).map(|_| random_key(random))).collect()]
}

fn mset(random: &mut Rng) -> Vec<Vec<String>> {
    let pairs = (0..KEYS_PER_OP).flat_map(|_| [random_key(random), value()]);
    vec![std::iter::once("MSET".to_string()).chain(pairs).collect()]
}

fn exec(random: &mut Rng) -> Vec<Vec<String>> {
    let sets = (0..SETS_PER_EXEC).map(|_| vec!["SET".to_string(), random_key(random), value()]);
    let word = |name: &str| vec![name.to_string()];
    std::iter::once(word("MULTI")).chain(sets).chain([word("EXEC")]).collect()
}

struct Cluster {
    workers: Vec<Worker>,
    /// What one turn of all of them has brought back.
    reply_bytes: usize,
}

impl Cluster {
    fn new(shard_count: usize) -> Cluster {
        let clock = SystemClock::get();
        let globals: &'static Globals = Box::leak(Box::new(Globals::new(GlobalsInit {
            config: Config::default(),
            tls: Tls::default(),
            table: CommandTable::new(FAMILIES, &[]).expect("the families fit together"),
            shard_count,
            seed: 1,
            run_id: "0".repeat(40),
            started_at_ms: clock.wall_ms(),
            io_backend: "none",
            executable: "bench".to_string(),
        })));
        let mut workers: Vec<Worker> =
            (0..shard_count).map(|index| Worker::new(index, globals, clock)).collect();
        for (shard, worker) in workers.iter_mut().enumerate() {
            for index in 0..BUSY_CONNECTIONS {
                let info = NewConnectionInfo {
                    addr: format!("127.0.0.1:{}", 1000 + shard * BUSY_CONNECTIONS + index),
                    laddr: "127.0.0.1:6379".to_string(),
                    unix_socket: false,
                    tls: false,
                    is_denied: false,
                    is_server: false,
                };
                worker.connected(ConnId::new(index as u32, 0), 10, info);
            }
        }
        let mut cluster = Cluster { workers, reply_bytes: 0 };
        let mut bytes = Vec::new();
        for number in 0..KEY_COUNT {
            push(&mut bytes, &["SET".to_string(), key(number), value()]);
            if bytes.len() > 64 << 10 {
                cluster.round(|shard, connection| if shard + connection == 0 { &bytes } else { &[] });
                bytes.clear();
            }
        }
        cluster.round(|shard, connection| if shard + connection == 0 { &bytes } else { &[] });
        cluster
    }

    /// Hands over what the connections have sent, and turns until all is answered. Returns how long the replies are.
    fn round<'a>(&mut self, input: impl Fn(usize, usize) -> &'a [u8]) -> usize {
        self.reply_bytes = 0;
        for shard in 0..self.workers.len() {
            let inputs: Vec<(ConnId, &[u8])> = (0..BUSY_CONNECTIONS)
                .map(|index| (ConnId::new(index as u32, 0), input(shard, index)))
                .filter(|(_, bytes)| !bytes.is_empty())
                .collect();
            self.workers[shard].received_many(&inputs);
        }
        loop {
            let mut is_busy = false;
            for shard in 0..self.workers.len() {
                is_busy |= self.turn(shard);
            }
            if !is_busy {
                return self.reply_bytes;
            }
        }
    }

    /// Ends a shard's turn, and hands what it sends to the others. Returns whether that was anything.
    fn turn(&mut self, shard: usize) -> bool {
        self.workers[shard].end_turn();
        let mut is_busy = false;
        for request in std::mem::take(&mut self.workers[shard].requests) {
            if let IoRequest::Send(conn, buf) = request {
                self.reply_bytes += buf.len();
                self.workers[shard].sent(conn, buf);
                is_busy = true;
            }
        }
        for (to, message) in self.workers[shard].outbox.drain().collect::<Vec<_>>() {
            self.workers[to].begin_turn();
            self.workers[to].deliver(shard, message);
            is_busy = true;
        }
        self.workers[shard].before_wait();
        is_busy
    }
}

type MakeOp = fn(&mut Rng) -> Vec<Vec<String>>;

fn bench_pipelines(criterion: &mut Criterion) {
    let ops: [(&str, usize, MakeOp); 3] =
        [("mget_10_by_4", 4, mget), ("mset_10_by_4", 4, mset), ("exec_5_by_8", 8, exec)];
    for shard_count in [1, 2] {
        let mut cluster = Cluster::new(shard_count);
        let mut group = criterion.benchmark_group(format!("{shard_count}_shards"));
        for (name, pipeline_len, make) in ops {
            let mut random = Rng::with_seed(1);
            let mut pipeline = || {
                let mut bytes = Vec::new();
                for _ in 0..pipeline_len {
                    make(&mut random).iter().for_each(|request| push(&mut bytes, request));
                }
                bytes
            };
            // The same work for any number of shards.
            let pipelines: Vec<Vec<u8>> = (0..ROUNDS * BUSY_CONNECTIONS).map(|_| pipeline()).collect();
            let mut round = 0;
            let per_round = BUSY_CONNECTIONS * shard_count * pipeline_len;
            group.throughput(Throughput::Elements(per_round as u64));
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    round += 1;
                    let reply_bytes = cluster.round(|shard, connection| {
                        let at = (round * shard_count + shard) * BUSY_CONNECTIONS + connection;
                        &pipelines[at % pipelines.len()]
                    });
                    assert!(reply_bytes >= per_round * b"+OK\r\n".len());
                    black_box(reply_bytes)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench_pipelines);
criterion_main!(benches);
