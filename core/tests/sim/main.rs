//! The deterministic simulator: the real workers and shards under seeded schedules, checked against a
//! sequential model.
//!
//! Clients send random commands over one key or several, on any shard, several at a time. Each client's
//! replies are taken with the step numbers of call and reply; then a search looks for one order of all
//! commands that agrees with these intervals and with a plain map (Wing and Gong's algorithm, with memory of
//! the states it has already refuted). A failure prints its seed.
//!
//! That the check can fail was seen: where commands of one shard do not look at the lock table
//! (`Worker::must_park` always answers false), seed 7 has no sequential order.

mod cluster;
mod stream;

use cluster::{Cluster, Random};
use std::collections::{BTreeMap, HashSet};

/// What a command does to a plain map: the model.
fn apply(model: &mut BTreeMap<String, String>, command: &[String]) -> String {
    let bulk = |value: Option<&String>| match value {
        Some(value) => format!("${}\r\n{value}\r\n", value.len()),
        None => "$-1\r\n".to_string(),
    };
    let keys = &command[1..];
    match command[0].as_str() {
        "GET" => bulk(model.get(&command[1])),
        "SET" => {
            model.insert(command[1].clone(), command[2].clone());
            "+OK\r\n".to_string()
        }
        "MGET" => {
            let values: String = keys.iter().map(|key| bulk(model.get(key))).collect();
            format!("*{}\r\n{values}", keys.len())
        }
        "MSET" => {
            for pair in keys.chunks(2) {
                model.insert(pair[0].clone(), pair[1].clone());
            }
            "+OK\r\n".to_string()
        }
        "MSETNX" => {
            let free = keys.chunks(2).all(|pair| !model.contains_key(&pair[0]));
            if free {
                for pair in keys.chunks(2) {
                    model.insert(pair[0].clone(), pair[1].clone());
                }
            }
            format!(":{}\r\n", i32::from(free))
        }
        "DEL" => {
            let removed = keys.iter().filter(|key| model.remove(*key).is_some()).count();
            format!(":{removed}\r\n")
        }
        "EXISTS" => format!(":{}\r\n", keys.iter().filter(|key| model.contains_key(*key)).count()),
        "RENAME" => match model.remove(&command[1]) {
            Some(value) => {
                model.insert(command[2].clone(), value);
                "+OK\r\n".to_string()
            }
            None => "-ERR no such key\r\n".to_string(),
        },
        "COPY" => {
            let source = model.get(&command[1]).cloned();
            let copied = source.filter(|_| !model.contains_key(&command[2]));
            let done = i32::from(copied.is_some());
            if let Some(value) = copied {
                model.insert(command[2].clone(), value);
            }
            format!(":{done}\r\n")
        }
        "DBSIZE" => format!(":{}\r\n", model.len()),
        "FLUSHALL" => {
            model.clear();
            "+OK\r\n".to_string()
        }
        other => panic!("the model does not know {other}"),
    }
}

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn random_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    let value = format!("v{unique}");
    let words: Vec<String> = match random.below(16) {
        0..=2 => vec!["GET".into(), first],
        3..=5 => vec!["SET".into(), first, value],
        6..=7 => vec!["MGET".into(), first, second, third],
        8..=9 => vec!["MSET".into(), first, value.clone(), second, value],
        10 => vec!["MSETNX".into(), first, value.clone(), second, value],
        11 => vec!["DEL".into(), first, second],
        12 => vec!["EXISTS".into(), first, second, third],
        13 if first != second => vec!["RENAME".into(), first, second],
        14 if first != second => vec!["COPY".into(), first, second],
        13 | 14 => vec!["GET".into(), first],
        _ => match random.below(6) {
            0 => vec!["FLUSHALL".into()],
            _ => vec!["DBSIZE".into()],
        },
    };
    words
}

struct Operation {
    command: Vec<String>,
    called_at: usize,
    replied_at: usize,
    reply: String,
}

/// Whether the operations can be put in one order that respects call and reply times and the model.
fn is_linearizable(operations: &[Operation]) -> bool {
    fn search(
        operations: &[Operation],
        done: u128,
        model: &BTreeMap<String, String>,
        refuted: &mut HashSet<(u128, Vec<(String, String)>)>,
    ) -> bool {
        if done == (1 << operations.len()) - 1 {
            return true;
        }
        let state = (done, model.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        if refuted.contains(&state) {
            return false;
        }
        let open = || (0..operations.len()).filter(|n| done & (1 << n) == 0);
        let first_reply = open().map(|n| operations[n].replied_at).min().expect("one is open");
        for n in open().filter(|&n| operations[n].called_at <= first_reply) {
            let mut next = model.clone();
            if apply(&mut next, &operations[n].command) == operations[n].reply
                && search(operations, done | (1 << n), &next, refuted)
            {
                return true;
            }
        }
        refuted.insert(state);
        false
    }
    assert!(operations.len() < 128);
    search(operations, 0, &BTreeMap::new(), &mut HashSet::new())
}

/// Runs one seed: random clients, random commands, random schedule.
fn run_seed(seed: u64) {
    let mut random = Random::new(seed ^ 0x5EED);
    let shard_count = 2 + random.below(4);
    let client_count = 2 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let clients: Vec<usize> = (0..client_count)
        .map(|_| {
            let shard = random.below(shard_count);
            cluster.connect(shard)
        })
        .collect();
    let mut unique = 0;
    let mut waiting: Vec<Option<(Vec<String>, usize)>> = vec![None; client_count];
    let mut operations: Vec<Operation> = Vec::new();
    let mut issued = 0;
    let mut step = 0;
    while issued < 60 || waiting.iter().any(Option::is_some) {
        step += 1;
        // Time goes on, so that the work that time demands is done in between.
        cluster.clock.advance_ms((step % 3) as i64);
        let n = random.below(client_count);
        if waiting[n].is_none() && issued < 60 {
            issued += 1;
            let command = random_command(&mut random, &mut unique);
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            cluster.request(clients[n], &words);
            waiting[n] = Some((command, step));
        }
        cluster.step();
        for n in 0..client_count {
            let reply = cluster.received(clients[n]);
            if reply.is_empty() {
                continue;
            }
            let (command, called_at) = waiting[n].take().expect("a reply answers a request");
            let reply = String::from_utf8(reply).expect("replies here are text");
            operations.push(Operation { command, called_at, replied_at: step, reply });
        }
        assert!(step < 100_000, "seed {seed}: no progress");
    }
    if !is_linearizable(&operations) {
        for operation in &operations {
            let Operation { command, called_at, replied_at, reply } = operation;
            eprintln!("{called_at:4}..{replied_at:4} {command:?} -> {reply:?}");
        }
        panic!("seed {seed}: no sequential order explains this history of {shard_count} shards");
    }
}

#[test]
fn random_schedules_of_several_shards_are_linearizable() {
    let (first, count) = match std::env::var("SHARDIS_SIM_SEED") {
        Ok(seed) => (seed.parse().expect("SHARDIS_SIM_SEED is a number"), 1),
        Err(_) => {
            let count = std::env::var("SHARDIS_SIM_SEEDS").ok();
            (1, count.map_or(300, |count| count.parse().expect("SHARDIS_SIM_SEEDS is a number")))
        }
    };
    for seed in first..first + count {
        run_seed(seed);
    }
}

#[test]
fn a_pipeline_of_one_client_is_answered_in_order_and_sees_its_own_writes() {
    for seed in 1..50 {
        let mut cluster = Cluster::new(3, seed);
        let client = cluster.connect(0);
        for n in 0..20 {
            let key = KEYS[n % KEYS.len()];
            cluster.request(client, &["SET", key, &n.to_string()]);
            cluster.request(client, &["GET", key]);
            cluster.request(client, &["MGET", key, "a", "b"]);
        }
        cluster.settle();
        let replies = String::from_utf8(cluster.received(client)).expect("text");
        let mut model = BTreeMap::new();
        let mut expected = String::new();
        for n in 0..20 {
            let key = KEYS[n % KEYS.len()].to_string();
            for command in [
                vec!["SET".to_string(), key.clone(), n.to_string()],
                vec!["GET".to_string(), key.clone()],
                vec!["MGET".to_string(), key.clone(), "a".to_string(), "b".to_string()],
            ] {
                expected += &apply(&mut model, &command);
            }
        }
        assert_eq!(replies, expected, "seed {seed}");
    }
}

#[test]
fn a_client_that_dies_in_the_middle_leaves_no_lock() {
    for seed in 1..200 {
        let mut cluster = Cluster::new(4, seed);
        let (dying, living) = (cluster.connect(0), cluster.connect(3));
        cluster.request(dying, &["MSET", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1"]);
        cluster.request(dying, &["RENAME", "a", "b"]);
        for _ in 0..cluster.random.below(12) {
            cluster.step();
        }
        cluster.disconnect(dying);
        cluster.settle();
        cluster.tick();
        assert!(cluster.is_at_rest(), "seed {seed}");
        assert_eq!(cluster.call(living, &["MSET", "a", "2", "b", "2", "c", "2", "d", "2"]), "+OK\r\n");
        assert_eq!(cluster.call(living, &["GET", "b"]), "$1\r\n2\r\n", "seed {seed}");
        assert!(cluster.is_at_rest(), "seed {seed}");
    }
}

#[test]
fn any_number_of_commands_may_wait_for_one_lock() {
    let mut cluster = Cluster::new(2, 1);
    let reader = cluster.connect(0);
    let crowd: Vec<usize> = (0..5000).map(|n| cluster.connect(n % 2)).collect();
    cluster.request(reader, &["MGET", "a", "b", "c", "d"]);
    while cluster.workers.iter().all(|worker| worker.shard.locks.is_empty()) {
        cluster.step();
    }
    for &client in &crowd {
        for _ in 0..8 {
            cluster.request(client, &["INCR", "a"]);
            cluster.request(client, &["INCR", "b"]);
        }
        cluster.hand_over(client);
    }
    assert!(cluster.workers.iter().any(|worker| worker.shard.locks.len() > 20_000));
    cluster.settle();
    assert!(!cluster.received(reader).is_empty());
    for key in ["a", "b"] {
        assert_eq!(cluster.call(reader, &["GET", key]), "$5\r\n40000\r\n");
    }
}
