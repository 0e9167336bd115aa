//! The effect stream under random schedules: it is a sequential order of the writes that results in what the shards
//! contain in the end, and it is the same for all readers.

use crate::cluster::{Cluster, Random};
use crate::commands::{KEYS, random_command};
use crate::model::Model;
use crate::seeds;
use shardis_core::shard::slot::shard_of;
use std::collections::BTreeMap;

/// Asks for the stream, without keys before it.
fn ask(cluster: &mut Cluster, client: usize) {
    cluster.request(client, &["REPLCONF", "capa", "eof", "rdb-filter-only", ""]);
    cluster.request(client, &["SYNC"]);
    // The stream begins behind the mark, in what it receives, whenever this comes.
    cluster.request(client, &["REPLCONF", "ACK", "0"]);
}

/// A client that reads the stream.
pub struct Reader {
    client: usize,
    received: Vec<u8>,
}

impl Reader {
    pub fn begin(cluster: &mut Cluster, shard: usize) -> Reader {
        let client = cluster.connect(shard);
        ask(cluster, client);
        Reader { client, received: Vec::new() }
    }

    pub fn receive(&mut self, cluster: &mut Cluster) {
        self.received.extend(cluster.received(self.client));
    }

    /// The bytes of the stream so far.
    pub fn stream(&self) -> &[u8] {
        let Some(received) = self.received.strip_prefix(b"+OK\r\n$EOF:") else { return &[] };
        let mark = &received[..40];
        let end = received[40..].windows(40).position(|bytes| bytes == mark);
        end.map_or(&[], |end| &received[40 + end + 40..])
    }

    /// The units received so far, each a list of requests; without SELECT, as all writes here are to one database.
    pub fn units(&self) -> Vec<Vec<Vec<String>>> {
        let mut lines = std::str::from_utf8(self.stream()).expect("the effects here are text").split("\r\n");
        let mut units: Vec<Vec<Vec<String>>> = Vec::new();
        let mut is_open = false;
        while let Some(count) = lines.next().filter(|line| !line.is_empty()) {
            let count: usize = count[1..].parse().expect("a count");
            let words: Vec<String> = (0..count).map(|_| lines.nth(1).expect("a word").to_string()).collect();
            match words[0].as_str() {
                "SELECT" => assert_eq!(words[1], "0"),
                "MULTI" => {
                    assert!(!std::mem::replace(&mut is_open, true));
                    units.push(Vec::new());
                }
                "EXEC" => assert!(std::mem::replace(&mut is_open, false)),
                _ if is_open => units.last_mut().expect("it was opened").push(words),
                _ => units.push(vec![words]),
            }
        }
        assert!(!is_open);
        units
    }
}

/// How many commands and transactions the writers of a seed call.
const COMMANDS: usize = 240;

/// Runs one seed: random writers, a reader from the beginning on, one that attaches later, and one that disconnects
/// again. Returns how many values were written.
fn run_seed(seed: u64) -> usize {
    let mut random = Random::new(seed ^ 0x57AE);
    let shard_count = 1 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let mut first = Reader::begin(&mut cluster, random.below(shard_count));
    cluster.settle();
    let mut clients: Vec<usize> = (0..4).map(|_| cluster.connect(random.below(shard_count))).collect();
    let (comes_at, dies_at) = (random.below(COMMANDS), random.below(COMMANDS));
    let mut later = None;
    let mut dying = None;
    let mut unique = 0;
    // For each value that is written, the number of the command or transaction that writes it.
    let mut together = BTreeMap::new();
    for n in 0..COMMANDS {
        if n == comes_at {
            later = Some(Reader::begin(&mut cluster, random.below(shard_count)));
        }
        if n == dies_at / 2 {
            dying = Some(Reader::begin(&mut cluster, random.below(shard_count)));
        }
        if n == dies_at {
            cluster.disconnect(dying.as_ref().expect("it has come").client);
        }
        let at = random.below(clients.len());
        if cluster.wait_of(clients[at]).is_some() {
            // It is blocked and may be served later. Another client takes its place.
            clients[at] = cluster.connect(random.below(shard_count));
        }
        let client = clients[at];
        let count = if random.below(3) == 0 { 1 + random.below(5) } else { 1 };
        let commands: Vec<Vec<String>> =
            (0..count).map(|_| random_command(&mut random, &mut unique)).collect();
        for command in &commands {
            if let ("SET" | "MSET" | "MSETNX", Some(value)) = (command[0].as_str(), command.get(2)) {
                together.insert(value.clone(), n);
            }
        }
        if random.below(3) == 0 {
            // A program that touches keys of any shard.
            let mut program = vec!["TWIDE", "0"];
            for command in &commands {
                program.push("/");
                program.extend(command.iter().map(String::as_str));
            }
            cluster.request(client, &program);
            continue;
        }
        if count > 1 {
            cluster.request(client, &["MULTI"]);
        }
        for command in &commands {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            cluster.request(client, &words);
        }
        if count > 1 {
            cluster.request(client, &["EXEC"]);
        }
        for _ in 0..random.below(8) {
            cluster.step();
        }
    }
    cluster.settle();
    let mut later = later.expect("it has come");
    first.receive(&mut cluster);
    later.receive(&mut cluster);

    let units = first.units();
    let mut model = Model::default();
    for command in units.iter().flatten() {
        let reply = model.apply(0, command);
        let is_done = !reply.starts_with(['-', '*']) && reply != "$-1\r\n";
        assert!(is_done || reply.starts_with("*2"), "seed {seed}: {command:?} does nothing: {reply}");
    }
    let asking = cluster.connect(0);
    for key in KEYS {
        let expected = model.apply(0, &["GET".to_string(), key.to_string()]);
        assert_eq!(cluster.call(asking, &["GET", key]), expected, "seed {seed}: {key}");
    }
    let since = later.units();
    let before = units.len().checked_sub(since.len()).expect("no reader has more units than the first one");
    assert_eq!(since, units[before..], "seed {seed}");
    check_transactions(seed, &units, &together)
}

/// Asserts that everything that one command wrote on several shards, or one EXEC, is in one unit.
fn check_transactions(seed: u64, units: &[Vec<Vec<String>>], together: &BTreeMap<String, usize>) -> usize {
    let mut unit_of = BTreeMap::new();
    for (at, unit) in units.iter().enumerate() {
        for value in unit.iter().filter_map(|command| together.get(command.get(2)?)) {
            let place = *unit_of.entry(value).or_insert(at);
            assert_eq!(place, at, "seed {seed}: a transaction is in several units, of which one is {unit:?}");
        }
    }
    unit_of.len()
}

#[test]
fn the_stream_is_an_order_of_all_writes_for_all_readers() {
    let seeds = seeds(300);
    let written: usize = seeds.iter().map(|&seed| run_seed(seed)).sum();
    assert!(written > 20 * seeds.len(), "hardly anything was written: {written} values");
}

/// Applies an effect to what is known of the keys: a value, none, or `?` for a key that has not occurred in the stream.
fn learn(known: &mut BTreeMap<String, Option<String>>, command: &[String]) {
    let args = &command[1..];
    match command[0].as_str() {
        "SET" | "MSET" | "MSETNX" => {
            known.extend(args.chunks(2).map(|pair| (pair[0].clone(), Some(pair[1].clone()))));
        }
        "DEL" => known.extend(args.iter().map(|key| (key.clone(), None))),
        "RENAME" => {
            let value = known.insert(args[0].clone(), None).expect("all keys are there");
            known.insert(args[1].clone(), Some(value.expect("it was renamed")));
        }
        "COPY" => {
            let value = known[&args[0]].clone();
            known.insert(args[1].clone(), Some(value.expect("it was copied")));
        }
        "FLUSHALL" => known.values_mut().for_each(|value| *value = None),
        other => panic!("nobody sends {other}"),
    }
}

/// The first reader attaches while clients write: the shards begin to record effects at different times, and yet a
/// transaction is recorded as a whole or not at all.
#[test]
fn a_reader_that_attaches_in_the_middle_gets_all_that_follows() {
    for seed in 1..500 {
        let mut random = Random::new(seed);
        let mut cluster = Cluster::new(4, seed);
        let clients: Vec<usize> = (0..8).map(|n| cluster.connect(n % 4)).collect();
        let mut reader = None;
        for n in 0..32 {
            if n == 8 {
                reader = Some(Reader::begin(&mut cluster, random.below(4)));
            }
            let (from, to) = (KEYS[random.below(KEYS.len())], KEYS[random.below(KEYS.len())]);
            let client = clients[random.below(clients.len())];
            match random.below(5) {
                4 => {
                    let value = format!("v{n}");
                    cluster
                        .request(client, &["TWIDE", "0", "/", "SET", from, &value, "/", "SET", to, &value]);
                }
                0 => cluster.request(client, &["MSET", from, &format!("v{n}"), to, &format!("v{n}")]),
                1 => cluster.request(client, &["COPY", from, to]),
                _ => cluster.request(client, &["RENAME", from, to]),
            }
            for _ in 0..random.below(4) {
                cluster.step();
            }
        }
        cluster.settle();
        let mut reader = reader.expect("it has come");
        reader.receive(&mut cluster);

        let mut known: BTreeMap<String, Option<String>> =
            KEYS.iter().map(|key| (key.to_string(), Some("?".to_string()))).collect();
        reader.units().iter().flatten().for_each(|command| learn(&mut known, command));
        let asking = cluster.connect(0);
        for (key, value) in known {
            let reply = cluster.call(asking, &["GET", &key]);
            let expected = match value.as_deref() {
                Some("?") => continue,
                Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                None => "$-1\r\n".to_string(),
            };
            assert_eq!(reply, expected, "seed {seed}: {key}");
        }
    }
}

#[test]
fn readers_that_come_and_go_leave_nothing_behind() {
    for seed in 1..200 {
        let mut cluster = Cluster::new(3, seed);
        let writer = cluster.connect(0);
        for _ in 0..6 {
            let reader = cluster.connect(cluster.workers.len() - 1);
            ask(&mut cluster, reader);
            cluster.request(writer, &["MSET", "a", "1", "b", "1", "c", "1", "d", "1"]);
            cluster.request(writer, &["RENAME", "a", "b"]);
            for _ in 0..cluster.random.below(20) {
                cluster.step();
            }
            cluster.disconnect(reader);
        }
        cluster.settle();
        assert!(cluster.workers.iter().all(|worker| !worker.shard.effects.is_on()), "seed {seed}");
        assert_eq!(cluster.workers[0].globals.stream.replica_count(), 0, "seed {seed}");

        let mut last = Reader::begin(&mut cluster, 1);
        cluster.settle();
        cluster.received(writer);
        assert_eq!(cluster.call(writer, &["MSET", "a", "2", "b", "2", "c", "2"]), "+OK\r\n");
        last.receive(&mut cluster);
        let units = last.units();
        assert_eq!(units.len(), 1, "seed {seed}: {units:?}");
        assert_eq!(units[0].iter().map(|command| (command.len() - 1) / 2).sum::<usize>(), 3, "{units:?}");
    }
}

/// With three shards, `a` is on the last one, `b` on the first, `c` on the second: see [`shard_of`].
const KEY_OF: [&str; 3] = ["b", "c", "a"];

fn cluster_of_three() -> Cluster {
    for (shard, key) in KEY_OF.iter().enumerate() {
        assert_eq!(shard_of(key.as_bytes(), 3), shard);
    }
    Cluster::new(3, 1)
}

#[test]
fn a_home_without_the_attach_message_records_effects_if_the_other_shards_do() {
    let mut cluster = cluster_of_three();
    let client = cluster.connect(0);
    cluster.call(client, &["SET", KEY_OF[1], "v"]);
    cluster.hold(2, 0);
    let mut reader = Reader::begin(&mut cluster, 1);
    cluster.settle();
    assert!(cluster.workers[1].shard.effects.is_on() && !cluster.workers[0].shard.effects.is_on());

    cluster.request(client, &["RENAME", KEY_OF[1], KEY_OF[2]]);
    cluster.settle();
    cluster.release(2, 0);
    cluster.settle();
    reader.receive(&mut cluster);
    assert_eq!(cluster.received(client), b"+OK\r\n");
    assert_eq!(reader.units(), [[["RENAME", KEY_OF[1], KEY_OF[2]]]]);
}

/// A client of shard `shard` writes 40 KiB at a time, `count` times, to a key of that shard.
fn write_much(cluster: &mut Cluster, shard: usize, count: usize) {
    let client = cluster.connect(shard);
    let value = "x".repeat(40 << 10);
    for _ in 0..count {
        assert_eq!(cluster.call(client, &["SET", KEY_OF[shard], &value]), "+OK\r\n");
    }
}

/// A cluster whose replicas may be 100 KiB behind, and one that reads at `home`.
fn cluster_with_reader(home: usize) -> (Cluster, Reader) {
    let mut cluster = cluster_of_three();
    let client = cluster.connect(0);
    let limits =
        ["CONFIG", "SET", "client-output-buffer-limit", "replica 100kb 0 0", "repl-backlog-size", "16kb"];
    assert_eq!(cluster.call(client, &limits), "+OK\r\n");
    let reader = Reader::begin(&mut cluster, home);
    cluster.settle();
    (cluster, reader)
}

/// Asserts that the reader was disconnected, and that a new one gets the stream.
fn assert_cut(cluster: &mut Cluster, reader: &Reader) {
    assert!(!cluster.is_open(reader.client), "it has fallen behind");
    assert!(cluster.workers.iter().all(|worker| !worker.shard.effects.is_on()));
    let mut next = Reader::begin(cluster, 2);
    cluster.settle();
    let client = cluster.connect(0);
    assert_eq!(cluster.call(client, &["MSET", "a", "1", "b", "1", "c", "1"]), "+OK\r\n");
    next.receive(cluster);
    assert_eq!(next.units().iter().map(Vec::len).collect::<Vec<_>>(), [3]);
}

#[test]
fn readers_are_disconnected_when_too_much_piles_up_before_the_merger() {
    let (mut cluster, reader) = cluster_with_reader(2);
    cluster.hold(1, 0);
    write_much(&mut cluster, 1, 2);
    assert!(cluster.workers[1].shard.effects.is_on(), "that is within the limit");
    write_much(&mut cluster, 1, 3);
    assert!(!cluster.workers[1].shard.effects.is_on(), "nothing more is recorded");
    assert!(cluster.is_open(reader.client), "its home does not know of that yet");

    cluster.release(1, 0);
    cluster.settle();
    assert_cut(&mut cluster, &reader);
}

#[test]
fn readers_are_disconnected_when_too_much_piles_up_behind_a_missing_piece() {
    let (mut cluster, reader) = cluster_with_reader(2);
    let client = cluster.connect(1);
    cluster.request(client, &["MSET", KEY_OF[0], "1", KEY_OF[1], "1"]);
    // The second shard is the last of the chain: it has run its share, and the first one has not been told yet.
    while cluster.workers[1].shard.stats.dirty.get() == 0 {
        assert!(cluster.step());
    }
    cluster.hold(1, 0);
    write_much(&mut cluster, 2, 2);
    cluster.settle();
    assert!(cluster.is_open(reader.client), "that is within the limit");
    write_much(&mut cluster, 2, 3);
    cluster.settle();
    assert!(!cluster.is_open(reader.client));

    cluster.release(1, 0);
    cluster.settle();
    assert_cut(&mut cluster, &reader);
}

#[test]
fn only_the_reader_before_whose_own_shard_too_much_piles_up_is_disconnected() {
    let (mut cluster, reader) = cluster_with_reader(2);
    let other = Reader::begin(&mut cluster, 1);
    cluster.settle();
    cluster.hold(0, 2);
    write_much(&mut cluster, 1, 6);
    assert!(cluster.is_open(other.client) && cluster.is_open(reader.client));

    cluster.release(0, 2);
    cluster.settle();
    assert!(cluster.is_open(other.client) && !cluster.is_open(reader.client));
    cluster.disconnect(other.client);
    cluster.settle();
    assert_cut(&mut cluster, &reader);
}
