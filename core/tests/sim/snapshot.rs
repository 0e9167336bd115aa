//! Background saves under random schedules: the file has what all shards had at the barrier, whatever goes on meanwhile.
//!
//! Mistakes that were made on purpose, one at a time, and found: an element that changes is not written before; an element that was
//! written is not noted; a value that moves leaves its record behind; a shard writes big values while another one saves buckets.

use crate::cluster::{Cluster, Random};
use crate::replay::{Crowd, random_unit};
use crate::seeds;
use shardis_core::persist::rdb::read::{ReadResult, Reader};
use shardis_core::persist::rdb::window::{FileError, for_each_item};
use shardis_core::persist::rdb::write::end_of_file;
use shardis_core::persist::rdb::{FileReader, Item, ValueKind};
use shardis_core::shard::snapshot::SnapshotLimits;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

/// The keys of a file, each with its database: kind and bytes of the value, and the expiry.
type Keys = BTreeMap<(u64, Vec<u8>), (ValueKind, Vec<u8>, Option<i64>)>;

fn read(source: &mut dyn Read, mut reader: FileReader, seed: u64) -> Keys {
    let mut keys = Keys::new();
    let outcome = for_each_item::<FileError>(source, &mut reader, |item, _| {
        if let Item::Record(record) = item {
            let mut room = Vec::new();
            let name = (record.db, record.key.bytes(&mut room)?.to_vec());
            let value = (record.kind, canonical(record.kind, record.value)?, record.expire_at_ms);
            assert!(keys.insert(name.clone(), value).is_none(), "seed {seed}: {name:?} is there twice");
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
    keys
}

/// The elements in order, if that they are in another one makes no difference.
fn canonical(kind: ValueKind, value: &[u8]) -> ReadResult<Vec<u8>> {
    let mut reader = Reader::new(value, 0);
    let (string_count, score_len) = match kind {
        ValueKind::Set => (1, 0),
        ValueKind::Hash => (2, 0),
        ValueKind::ZSet2 => (1, size_of::<f64>()),
        _ => return Ok(value.to_vec()),
    };
    let mut elements = Vec::new();
    for _ in 0..reader.length()? {
        let start = reader.position();
        for _ in 0..string_count {
            reader.string()?;
        }
        reader.take(score_len)?;
        elements.push(reader.since(start));
    }
    elements.sort();
    Ok(elements.concat())
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

/// How many elements collections get that are to be big.
const MEMBER_COUNT: usize = 300;

/// Has every collection be a big value, whose parts make a chunk each, and gives some keys many elements.
fn fill(cluster: &mut Cluster, random: &mut Random) {
    let client = cluster.connect(0);
    let limits = SnapshotLimits { chunk_len: 1, big_value_bytes: 0 };
    cluster.workers.iter_mut().for_each(|worker| worker.shard.snapshot_limits = limits);
    let set = "CONFIG SET hash-max-listpack-entries 2 zset-max-listpack-entries 2 list-max-listpack-size 3";
    assert_eq!(cluster.call(client, &set.split(' ').collect::<Vec<_>>()), "+OK\r\n");
    for (command, letter, parts) in [("SADD", 's', 1), ("HSET", 'h', 2), ("ZADD", 'z', 2), ("RPUSH", 'l', 1)]
    {
        let mut words = vec![command.to_string(), format!("{letter}{}", random.below(3))];
        for _ in 0..1 + random.below(MEMBER_COUNT) {
            let member = format!("m{}", random.below(MEMBER_COUNT));
            let other = random.below(10).to_string();
            match (command, parts) {
                ("ZADD", _) => words.extend([other, member]),
                (_, 2) => words.extend([member, other]),
                (_, _) => words.push(member),
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cluster.call(client, &words);
    }
}

/// A command that changes a big value, or many of its elements.
fn change_big(random: &mut Random) -> Vec<Vec<String>> {
    const TEMPLATES: &[&str] = &[
        "SADD $s $m $m $m",
        "SREM $s $m $m $m",
        "SPOP $s 20",
        "SPOP $s 250",
        "HSET $h $m $n $m $n",
        "HDEL $h $m $m $m",
        "HINCRBY $h $m 1",
        "ZADD $z $n $m $n $m",
        "ZREM $z $m $m",
        "ZPOPMIN $z 10",
        "ZPOPMAX $z 10",
        "ZREMRANGEBYSCORE $z 2 3",
        "LPUSH $l $m $m $m",
        "RPUSH $l $m",
        "LPOP $l 9",
        "LSET $l $n $m",
        "LSET $l -$n $m",
        "LINSERT $l BEFORE $m $n",
        "LREM $l 0 $m",
        "LTRIM $l 5 -5",
        "DEL $a",
        "UNLINK $a",
        "SET $a v",
        "PEXPIRE $a 2",
        "RENAME $s s9",
        "RENAME s9 $s",
        "RENAME $z z0",
        "RENAME $h h0",
        "RENAME $l l0",
        "MOVE $a 1",
        "COPY $a s8 REPLACE",
        "SWAPDB 0 1",
        "SUNIONSTORE $s $s $s",
        "ZUNIONSTORE $z 2 $z $s",
        "SORT $l BY nosort STORE l1",
        "FLUSHDB",
    ];
    let is_flush_out = random.below(8) > 0;
    let template = TEMPLATES[random.below(TEMPLATES.len() - usize::from(is_flush_out))];
    let mut word = |word: &str| match word.trim_start_matches('-').strip_prefix('$') {
        None => word.to_string(),
        Some("m") => format!("m{}", random.below(MEMBER_COUNT)),
        Some("n") => format!("{}{}", &word[..word.find('$').unwrap_or(0)], 1 + random.below(40)),
        Some("a") => format!("{}{}", ["s", "h", "z", "l"][random.below(4)], random.below(3)),
        Some(letter) => format!("{letter}{}", random.below(3)),
    };
    vec![template.split(' ').map(|text| word(text)).collect()]
}

/// Returns how many keys the snapshots had.
fn run_seed(seed: u64) -> usize {
    let mut random = Random::new(seed ^ 0x5A7E);
    let shard_count = 1 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let mut crowd = Crowd::new(&mut cluster, &mut random);
    let mut key_count = 0;
    let is_big = random.below(2) == 0;
    let act: fn(&mut Random) -> Vec<Vec<String>> = match is_big {
        true => |random| if random.below(4) == 0 { change(random) } else { change_big(random) },
        false => change,
    };
    for _ in 0..3 {
        if is_big {
            fill(&mut cluster, &mut random);
        }
        (0..30).for_each(|_| crowd.act(&mut cluster, &mut random, act));
        let saver = cluster.connect(random.below(shard_count));
        cluster.request(saver, &["TSNAPSHOT"]);
        let act_count = if is_big { 20 + random.below(150) } else { 40 };
        (0..act_count).for_each(|_| crowd.act(&mut cluster, &mut random, act));
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

/// A background save writes to a file that is named by the process and by its number on the server, beside the one that it
/// replaces. Those of two servers of this process would write to the same.
static SAVES: Mutex<()> = Mutex::new(());

#[test]
fn a_background_save_has_the_state_of_its_barrier() {
    let _alone = SAVES.lock().unwrap_or_else(PoisonError::into_inner);
    let seeds = seeds(300);
    let keys: usize = seeds.iter().map(|&seed| run_seed(seed)).sum();
    assert!(keys > 10 * seeds.len(), "hardly anything was saved: {keys} keys");
}

#[test]
fn flushall_cancels_a_background_save() {
    let _alone = SAVES.lock().unwrap_or_else(PoisonError::into_inner);
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
