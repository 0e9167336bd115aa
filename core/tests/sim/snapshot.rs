//! Background saves under random schedules: the file has what all shards had at the barrier, whatever goes on meanwhile.

use crate::cluster::{Cluster, Random};
use crate::replay::{Crowd, random_unit};
use crate::seeds;
use shardis_core::persist::rdb::window::{FileError, for_each_item};
use shardis_core::persist::rdb::write::end_of_file;
use shardis_core::persist::rdb::{FileReader, Item, ValueKind};
use std::collections::BTreeMap;
use std::io::Read;

/// The keys of a file, each with its database: kind and bytes of the value, and the expiry.
type Keys = BTreeMap<(u64, Vec<u8>), (ValueKind, Vec<u8>, Option<i64>)>;

fn read(source: &mut dyn Read, mut reader: FileReader, seed: u64) -> Keys {
    let mut keys = Keys::new();
    let outcome = for_each_item::<FileError>(source, &mut reader, |item, _| {
        if let Item::Record(record) = item {
            let mut room = Vec::new();
            let name = (record.db, record.key.bytes(&mut room)?.to_vec());
            let value = (record.kind, record.value.to_vec(), record.expire_at_ms);
            assert!(keys.insert(name.clone(), value).is_none(), "seed {seed}: {name:?} is there twice");
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
    keys
}

/// The bulk strings of a reply, joined.
fn joined(mut reply: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(rest) = reply.strip_prefix(b"$") {
        let digits = rest.iter().position(|&byte| byte == b'\r').expect("a length ends with CRLF");
        let len: usize = std::str::from_utf8(&rest[..digits]).expect("digits").parse().expect("a number");
        all.extend_from_slice(&rest[digits + 2..digits + 2 + len]);
        reply = &rest[digits + 2 + len + 2..];
    }
    assert!(reply.is_empty(), "{}", reply.escape_ascii());
    all
}

/// Commands that move keys, whole databases included, besides those of [`random_unit`].
fn mover(random: &mut Random) -> Vec<String> {
    let key = || "tnlshzx".chars();
    let letter = key().nth(random.below(7)).expect("there are seven");
    let key = format!("{letter}{}", random.below(3));
    let text = match random.below(6) {
        0 => "SWAPDB 0 1".to_string(),
        1 => "FLUSHDB ASYNC".to_string(),
        2 => format!("COPY {key} {key} DB 1"),
        3 => format!("RENAME {key} {letter}9"),
        _ => format!("MOVE {key} 1"),
    };
    text.split(' ').map(str::to_string).collect()
}

fn is_running(cluster: &Cluster) -> bool {
    cluster.workers[0].globals.persistence.snapshots.is_under_way()
}

/// A unit of commands that change keys, or move them.
fn change(random: &mut Random) -> Vec<Vec<String>> {
    if random.below(4) == 0 { vec![mover(random)] } else { random_unit(random) }
}

/// Returns how many keys the snapshots had.
fn run_seed(seed: u64) -> usize {
    let mut random = Random::new(seed ^ 0x5A7E);
    let shard_count = 1 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let mut crowd = Crowd::new(&mut cluster, &mut random);
    let mut key_count = 0;
    for _ in 0..3 {
        (0..30).for_each(|_| crowd.act(&mut cluster, &mut random, change));
        let saver = cluster.connect(random.below(shard_count));
        cluster.request(saver, &["TSNAPSHOT"]);
        (0..40).for_each(|_| crowd.act(&mut cluster, &mut random, change));
        cluster.settle();
        while is_running(&cluster) {
            // The writing thread is no part of the simulation.
            cluster.tick();
            std::thread::yield_now();
        }
        let reply = cluster.received(saver);
        assert!(!reply.is_empty(), "seed {seed}: the save has not begun");
        let at_barrier = joined(&reply);
        let end = end_of_file(None);
        let expected = read(&mut at_barrier.as_slice().chain(&end[..]), FileReader::behind_header(), seed);
        let file = std::fs::read(&cluster.file).expect("the file was written");
        let found = read(&mut file.as_slice(), FileReader::new(true), seed);
        assert_eq!(found, expected, "seed {seed}");
        key_count += found.len();
    }
    let _ = std::fs::remove_file(&cluster.file);
    key_count
}

#[test]
fn a_background_save_has_the_state_of_its_barrier() {
    let seeds = seeds(300);
    let keys: usize = seeds.iter().map(|&seed| run_seed(seed)).sum();
    assert!(keys > 10 * seeds.len(), "hardly anything was saved: {keys} keys");
}

#[test]
fn flushall_cancels_a_background_save() {
    let mut cluster = Cluster::new(2, 1);
    let client = cluster.connect(0);
    assert_eq!(cluster.call(client, &["DEBUG", "POPULATE", "20000"]), "+OK\r\n");
    assert_eq!(cluster.call(client, &["BGSAVE"]), "+Background saving started\r\n");
    assert_eq!(cluster.call(client, &["BGSAVE"]), "-ERR Background save already in progress\r\n");
    assert_eq!(cluster.call(client, &["SAVE"]), "-ERR Background save already in progress\r\n");
    assert_eq!(cluster.call(client, &["FLUSHALL"]), "+OK\r\n");
    while is_running(&cluster) {
        cluster.tick();
        std::thread::yield_now();
    }
    assert!(!cluster.file.exists());
    assert_eq!(cluster.call(client, &["SAVE"]), "+OK\r\n");
    assert!(cluster.file.exists());
    let _ = std::fs::remove_file(&cluster.file);
}
