//! The effect stream from outside: who reads it has the data set.

use crate::harness::{Connection, SETUPS, Server};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A replica of few commands: plain maps, and a reader of the stream.
struct Replica {
    connection: Connection,
    dbs: Vec<BTreeMap<String, String>>,
    db: usize,
    in_transaction: bool,
    /// Whole transactions that have come.
    transactions: usize,
    /// Values that the keys of one MSET have had outside of transactions.
    torn: BTreeSet<String>,
}

/// Keys that are only ever set together, on all shards.
const TOGETHER: [&str; 6] = ["w:a", "w:b", "w:c", "w:d", "w:e", "w:f"];

impl Replica {
    fn attach(server: &Server) -> Replica {
        let mut connection = server.connect();
        assert_eq!(connection.call(&["REPLCONF", "capa", "eof"]), "+OK\r\n");
        connection.send(b"SYNC\r\n");
        let snapshot = connection.payload();
        assert!(snapshot.starts_with(b"REDIS"), "{snapshot:?}");
        connection.send(b"REPLCONF ACK 0\r\n");
        let dbs = vec![BTreeMap::new(); 16];
        Replica { connection, dbs, db: 0, in_transaction: false, transactions: 0, torn: BTreeSet::new() }
    }

    /// Reads and applies the stream up to the write of the key `end`.
    fn follow(&mut self) {
        while !self.dbs[0].contains_key("end") {
            let request = self.connection.reply();
            let text = String::from_utf8(request).expect("the effects here are text");
            let words: Vec<&str> = text.split("\r\n").skip(1).filter(|word| !word.starts_with('$')).collect();
            self.apply(&words[..words.len() - 1]);
            if !self.in_transaction {
                self.look_for_tears();
            }
        }
    }

    fn look_for_tears(&mut self) {
        for db in &self.dbs {
            let values: BTreeSet<Option<&String>> = TOGETHER.iter().map(|key| db.get(*key)).collect();
            if values.len() > 1 {
                self.torn.insert(format!("{values:?}"));
            }
        }
    }

    fn apply(&mut self, words: &[&str]) {
        let db = &mut self.dbs[self.db];
        match (words[0], &words[1..]) {
            ("SELECT", [index]) => self.db = index.parse().expect("a database"),
            ("MULTI", []) => assert!(!std::mem::replace(&mut self.in_transaction, true)),
            ("EXEC", []) => {
                assert!(std::mem::replace(&mut self.in_transaction, false));
                self.transactions += 1;
            }
            ("SET", [key, value]) => {
                db.insert(key.to_string(), value.to_string());
            }
            ("MSET" | "MSETNX", pairs) => {
                db.extend(pairs.chunks(2).map(|pair| (pair[0].to_string(), pair[1].to_string())));
            }
            ("DEL", keys) => keys.iter().for_each(|key| {
                db.remove(*key);
            }),
            ("RENAME", [from, to]) => {
                let value = db.remove(*from).expect("it was there for the server");
                db.insert(to.to_string(), value);
            }
            ("COPY", [from, to, "REPLACE"]) => {
                let value = db[*from].clone();
                db.insert(to.to_string(), value);
            }
            ("INCR", [key]) => {
                let value = db.get(*key).map_or(0, |value| value.parse().expect("a counter"));
                db.insert(key.to_string(), (value + 1i64).to_string());
            }
            ("APPEND", [key, value]) => db.entry(key.to_string()).or_default().push_str(value),
            ("SWAPDB", [first, second]) => {
                let index = |text: &str| text.parse::<usize>().expect("a database");
                self.dbs.swap(index(first), index(second));
            }
            ("FLUSHDB", []) => db.clear(),
            _ => panic!("nobody sent {words:?}"),
        }
    }
}

/// A client that writes at random over all shards.
fn write_at_random(connection: &mut Connection, seed: u64, count: usize) {
    let mut random = Random::new(seed);
    let mut below = |n: usize| random.below(n);
    for n in 0..count {
        let (first, second) = (format!("k:{}", below(20)), format!("k:{}", below(20)));
        let counter = format!("c:{}", below(8));
        let value = format!("{seed}.{n}");
        match below(200) {
            0..40 => drop(connection.call(&["SET", &first, &value])),
            40..80 => drop(connection.call(&["INCR", &counter])),
            80..100 => drop(connection.call(&["APPEND", &first, "x"])),
            100..120 => drop(connection.call(&["MSET", &first, &value, &second, &value])),
            120..130 => drop(connection.call(&["MSETNX", &first, &value, &second, &value])),
            130..140 => drop(connection.call(&["DEL", &first, &second])),
            140..155 => drop(connection.call(&["RENAME", &first, &second])),
            155..170 if first != second => drop(connection.call(&["COPY", &first, &second, "REPLACE"])),
            170..185 => {
                connection.call(&["MULTI"]);
                let mut queue =
                    vec![vec!["INCR", &counter], vec!["RENAME", &first, &second], vec!["GET", &first]];
                queue.extend(TOGETHER.iter().map(|key| vec!["SET", key, &value]));
                queue.push(vec!["MSET", &first, &value, &second, "x"]);
                queue.push(vec!["APPEND", &counter, "0"]);
                queue.iter().for_each(|request| assert_eq!(connection.call(request), "+QUEUED\r\n"));
                assert!(connection.call(&["EXEC"]).starts_with("*11\r\n"));
            }
            185..198 => {
                let mut args = vec!["MSET"];
                TOGETHER.iter().for_each(|key| args.extend([*key, &value]));
                assert_eq!(connection.call(&args), "+OK\r\n");
            }
            198 => assert_eq!(connection.call(&["SWAPDB", "0", "1"]), "+OK\r\n"),
            199 => assert_eq!(connection.call(&["FLUSHDB"]), "+OK\r\n"),
            _ => drop(connection.call(&["GET", &first])),
        }
    }
}

#[test]
fn who_reads_the_stream_has_the_data_set() {
    const WRITERS: usize = 4;
    const WRITES: usize = 1_500;
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--repl-diskless-sync-delay", "0"]);
        let mut replica = Replica::attach(&server);
        let left = AtomicUsize::new(WRITERS);
        thread::scope(|scope| {
            let (server, left) = (&server, &left);
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let mut connection = server.connect();
                    write_at_random(&mut connection, writer as u64 + 1, WRITES);
                    // The last one out: all writes have been answered, so this one stands behind them.
                    if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                        assert_eq!(connection.call(&["SET", "end", "here"]), "+OK\r\n");
                    }
                });
            }
            replica.follow();
        });
        let mut client = server.connect();
        for db in 0..2 {
            client.call(&["SELECT", &db.to_string()]);
            let expected = &replica.dbs[db];
            assert_eq!(client.call(&["DBSIZE"]), format!(":{}\r\n", expected.len()), "{setup:?}");
            for (key, value) in expected {
                let reply = client.call(&["GET", key]);
                assert_eq!(reply, format!("${}\r\n{value}\r\n", value.len()), "{setup:?} {key}");
            }
        }
        assert!(setup.shards == 1 || replica.transactions > 100, "{setup:?}: {}", replica.transactions);
        assert!(replica.torn.is_empty(), "{setup:?}: torn transactions: {:?}", replica.torn);
    }
}

#[test]
fn a_reader_that_does_not_read_is_cut_off_and_nobody_waits_for_it() {
    for setup in SETUPS {
        let limits = ["--client-output-buffer-limit", "replica 4mb 0 0", "--repl-diskless-sync-delay", "0"];
        let server = Server::start_with(setup, &limits);
        let mut deaf = Replica::attach(&server);
        let mut client = server.connect();
        let before = server.rss_bytes();
        let value = "x".repeat(100_000);
        let replicas = |client: &mut Connection| {
            let info = client.call(&["INFO", "replication"]);
            info.lines().find_map(|line| line.strip_prefix("connected_slaves:")).expect("a count") == "1"
        };
        let mut written = 0;
        while replicas(&mut client) {
            assert_eq!(client.call(&["SET", &format!("k{}", written % 8), &value]), "+OK\r\n");
            written += 1;
            // What the kernel takes for a socket comes on top of the limit.
            assert!(written < 2_000, "{setup:?}: it is not cut off");
        }
        assert!(written > 40, "{setup:?}: {written} writes are within the limit");
        assert!(server.rss_bytes().saturating_sub(before) < 100 << 20, "{setup:?}");
        let rest = deaf.connection.rest();
        assert!(rest.starts_with(b"*2\r\n$6\r\nSELECT\r\n"), "{setup:?}: it gets what was sent before");

        let mut next = Replica::attach(&server);
        assert_eq!(client.call(&["SET", "end", "here"]), "+OK\r\n");
        next.follow();
        assert_eq!(next.dbs[0].len(), 1, "{setup:?}: it reads from its beginning on");
    }
}
