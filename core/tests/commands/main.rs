//! Commands: requests to a simulated server of one shard and of three, whose replies must be those of Redis 7.0.15.

#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../sim/cluster.rs"]
mod cluster;
#[path = "../common/stub_type.rs"]
mod stub_type;

mod blocking;
mod client_memory;
mod coalesce;
mod dump;
mod effects;
mod errors;
mod events;
mod expire;
mod function;
mod hash;
mod keyspace;
mod latency;
mod list;
mod module_values;
mod monitor;
mod object;
mod program;
mod pubsub;
mod rights;
mod script;
mod session;
mod set;
mod sort;
mod stream;
mod string;
mod table;
mod task;
mod tracking;
mod transaction;
mod zset;

use cluster::Cluster;
// The stub of a module's type names it as within the crate.
use shardis_core::types;

/// A server and its one client.
struct Server {
    cluster: Cluster,
    client: usize,
}

impl Server {
    fn new(shard_count: usize) -> Server {
        let mut cluster = Cluster::new(shard_count, 1);
        let client = cluster.connect(shard_count - 1);
        Server { cluster, client }
    }

    /// The reply to a request of words.
    fn call(&mut self, words: &str) -> String {
        self.call_args(&words.split(' ').collect::<Vec<_>>())
    }

    /// The reply to a request with bytes that are no text.
    fn call_bytes(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.cluster.send(self.client, &request);
        self.cluster.settle();
        self.cluster.received(self.client)
    }

    /// The reply to a request of any arguments.
    fn call_args(&mut self, args: &[&str]) -> String {
        self.cluster.call(self.client, args)
    }

    /// Asserts that requests get replies, given without their last line end.
    #[track_caller]
    fn expect(&mut self, dialog: &[(&str, &str)]) {
        for (words, reply) in dialog {
            assert_eq!(self.call(words), format!("{reply}\r\n"), "{words}");
        }
    }

    /// The same for any bytes. The arguments of a request are separated by blanks.
    #[track_caller]
    fn expect_bytes(&mut self, dialog: &[(&[u8], &[u8])]) {
        for (words, reply) in dialog {
            let args: Vec<&[u8]> = words.split(|&byte| byte == b' ').collect();
            let mut request = format!("*{}\r\n", args.len()).into_bytes();
            for arg in args {
                request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                request.extend_from_slice(arg);
                request.extend_from_slice(b"\r\n");
            }
            self.cluster.send(self.client, &request);
            self.cluster.settle();
            let received = self.cluster.received(self.client);
            let expected = [*reply, b"\r\n"].concat();
            assert_eq!(
                received.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{}",
                words.escape_ascii()
            );
        }
    }

    fn wait_ms(&mut self, ms: i64) {
        self.cluster.clock.advance_ms(ms);
    }

    /// A counter, summed over the shards.
    fn sum(&self, counter: impl Fn(&shardis_core::shard::stats::ShardStats) -> u64) -> u64 {
        self.cluster.workers.iter().map(|worker| counter(&worker.shard.stats)).sum()
    }

    fn changes(&self) -> u64 {
        self.sum(|stats| stats.dirty.get())
    }
}

/// Runs a test on one shard, and on three, where most keys are not on the client's shard.
fn on_one_and_three_shards(test: impl Fn(&mut Server)) {
    for shard_count in [1, 3] {
        test(&mut Server::new(shard_count));
    }
}

/// A bulk string without its last line end.
fn bulk(text: &str) -> String {
    format!("${}\r\n{text}", text.len())
}

const NULL: &str = "$-1";
const WRONG_ARITY: &str = "-ERR wrong number of arguments for";
