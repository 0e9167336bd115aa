//! Rewrites of the append-only file under random schedules: base and file of commands make another server equal, wherever the
//! barrier was, and whatever went on meanwhile.
//!
//! The threads that write the files are no part of the simulation. They cannot change what is in the files: that is decided
//! at the barrier and by the order of the effects.

use crate::cluster::{Cluster, Random};
use crate::replay::{Crowd, contents, random_unit};
use crate::seeds;
use shardis_core::persist::aof::Manifest;
use shardis_core::persist::aof::read::{AofItem, AofReader};
use shardis_core::persist::rdb::dump::seal;
use shardis_core::persist::rdb::window::{FileError, for_each_item};
use shardis_core::persist::rdb::{FileReader, Item};
use shardis_core::shard::slot::shard_of;
use shardis_core::shard::snapshot::SnapshotLimits;
use shardis_core::worker::aof::Aof;
use shardis_core::worker::snapshot::Purpose;
use std::path::Path;

const UNITS: usize = 120;

/// Waits until no rewrite is under way.
fn wait_for_rewrites(cluster: &mut Cluster) {
    cluster.settle();
    loop {
        let now_ms = cluster.now_ms();
        let figures = cluster.workers[0].globals.persistence.snapshots.figures(Purpose::Rewrite, now_ms);
        if !figures.is_under_way && !figures.is_scheduled {
            return;
        }
        // Scheduled ones begin when some time has passed.
        cluster.clock.advance_ms(1);
        cluster.tick();
        cluster.settle();
        std::thread::yield_now();
    }
}

/// A client's request, of any bytes.
fn call(replica: &mut Cluster, client: usize, words: &[&[u8]], seed: u64) {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    replica.send(client, &bytes);
    replica.settle();
    let reply = replica.received(client);
    let shown: Vec<String> = words.iter().map(|word| word.escape_ascii().to_string()).collect();
    assert!(!reply.is_empty() && reply[0] != b'-', "seed {seed}: {shown:?}: {}", reply.escape_ascii());
}

/// Restores what is in an RDB file.
fn load_rdb(replica: &mut Cluster, client: usize, bytes: &[u8], seed: u64) {
    let mut source = bytes;
    let outcome = for_each_item::<FileError>(&mut source, &mut FileReader::new(true), |item, _| {
        if let Item::Record(record) = item {
            let mut room = Vec::new();
            let mut payload = vec![record.kind as u8];
            payload.extend_from_slice(record.value);
            seal(&mut payload, 0);
            call(replica, client, &[b"SELECT", record.db.to_string().as_bytes()], seed);
            let key = record.key.bytes(&mut room)?;
            let expiry = record.expire_at_ms.unwrap_or(0).to_string();
            call(replica, client, &[b"RESTORE", key, expiry.as_bytes(), &payload, b"ABSTTL"], seed);
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
}

/// Runs what the append-only file has on another server. Returns how many units of commands there were.
fn load(replica: &mut Cluster, dir: &Path, seed: u64) -> usize {
    let client = replica.connect(0);
    let manifest = std::fs::read(dir.join("appendonly.aof.manifest"));
    let manifest = manifest.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let manifest = Manifest::parse(&manifest).expect("it is sound");
    let mut unit_count = 0;
    for info in manifest.files() {
        let name = String::from_utf8_lossy(&info.name).into_owned();
        let bytes = std::fs::read(dir.join(name)).expect("what is named is there");
        if bytes.starts_with(b"REDIS") {
            load_rdb(replica, client, &bytes, seed);
            continue;
        }
        let mut source = bytes.as_slice();
        let mut reader = AofReader::new(&mut source, 0);
        while let Some(item) = reader.next_item().expect("it is sound") {
            let AofItem::Unit { commands, .. } = item else { continue };
            unit_count += 1;
            for argv in commands.iter() {
                call(replica, client, &argv.iter().collect::<Vec<_>>(), seed);
            }
        }
    }
    unit_count
}

/// A unit of commands that change keys, or one that has the file rewritten, or turned on or off.
fn change(random: &mut Random) -> Vec<Vec<String>> {
    let text = match random.below(60) {
        0 => "CONFIG SET appendonly no",
        1..4 => "CONFIG SET appendonly yes",
        4..10 => "BGREWRITEAOF",
        _ => return random_unit(random),
    };
    vec![text.split(' ').map(str::to_owned).collect()]
}

fn run_seed(seed: u64) -> usize {
    let mut random = Random::new(seed ^ 0xBA5E);
    let shard_count = 1 + random.below(4);
    let has_preamble = random.below(2) == 0;
    let mut cluster = Cluster::new(shard_count, seed);
    let dir = cluster.file.with_extension("aof");
    let globals = cluster.workers[0].globals;
    let admin = cluster.connect(random.below(shard_count));
    if !has_preamble {
        assert_eq!(cluster.call(admin, &["CONFIG", "SET", "aof-use-rdb-preamble", "no"]), "+OK\r\n");
    }
    if random.below(2) == 0 {
        // Every collection that is not packed is written part by part.
        let limits = SnapshotLimits { chunk_len: 1, big_value_bytes: 0 };
        cluster.workers.iter_mut().for_each(|worker| worker.shard.snapshot_limits = limits);
        let set =
            "CONFIG SET hash-max-listpack-entries 1 zset-max-listpack-entries 1 list-max-listpack-size 1";
        assert_eq!(cluster.call(admin, &set.split(' ').collect::<Vec<_>>()), "+OK\r\n");
    }
    let mut crowd = Crowd::new(&mut cluster, &mut random);
    Aof::turn_on(globals, cluster.clock);
    (0..UNITS).for_each(|_| crowd.act(&mut cluster, &mut random, change));
    cluster.settle();
    // Clients whose time is over go, and what they have sent besides runs: perhaps other commands that wait.
    for _ in 0..20 {
        cluster.clock.advance_ms(20);
        cluster.tick();
        cluster.settle();
    }
    assert_eq!(cluster.call(admin, &["CONFIG", "SET", "appendonly", "yes"]), "+OK\r\n");
    wait_for_rewrites(&mut cluster);
    globals.aof.flush();

    let mut replica = Cluster::new(1, seed);
    replica.clock.advance_ms(cluster.now_ms() - replica.now_ms());
    let unit_count = load(&mut replica, &dir, seed);
    let (mut expected, mut found) = (contents(&mut cluster), contents(&mut replica));
    if !has_preamble {
        // Commands do not restore entries that are pending although they were deleted.
        expected.truncate(1);
        found.truncate(1);
    }
    assert_eq!(found, expected, "seed {seed}");
    drop(cluster);
    let _ = std::fs::remove_dir_all(dir);
    unit_count
}

#[test]
fn a_rewritten_file_makes_another_server_equal() {
    let seeds = seeds(100);
    let units: usize = seeds.iter().map(|&seed| run_seed(seed)).sum();
    assert!(units > 5 * seeds.len(), "hardly anything was written: {units} units");
}

/// A transaction's home has no keys in it, and so attaches the file later than the shards that have them. Its piece was not sent to the
/// writer, which waited for it, and every client waited for the writer.
#[test]
fn a_transaction_is_written_whose_home_attaches_the_file_last() {
    const HOME: usize = 2;
    // One of the shards says that all of them have attached it: its message is late.
    let was_late = [0, 1, 3].map(|teller| {
        let mut cluster = Cluster::new(4, 1);
        let dir = cluster.file.with_extension("aof");
        let globals = cluster.workers[0].globals;
        let client = cluster.connect(HOME);
        let mut others = (0..4).filter(|&shard| shard != HOME && shard != teller);
        let mut key_on_another = || {
            let shard = others.next().expect("there are two");
            (0..1000).map(|n| format!("k{n}")).find(|key| shard_of(key.as_bytes(), 4) == shard)
        };
        let [from, to] = [(); 2].map(|()| key_on_another().expect("each shard has some of them"));
        assert_eq!(cluster.call(client, &["SET", &from, "value"]), "+OK\r\n");
        cluster.hold(teller, HOME);
        Aof::turn_on(globals, cluster.clock);
        cluster.tick();
        cluster.settle();
        let mut with_file = cluster.workers.iter().filter(|worker| worker.shard.effects.has_file());
        let is_late = !cluster.workers[HOME].shard.effects.has_file() && with_file.next().is_some();
        cluster.request(client, &["RENAME", &from, &to]);
        cluster.settle();
        cluster.release(teller, HOME);
        cluster.settle();
        wait_for_rewrites(&mut cluster);
        globals.aof.flush();
        cluster.tick();
        cluster.settle();
        assert_eq!(cluster.received(client), b"+OK\r\n", "the reply leaves");

        let mut replica = Cluster::new(1, 1);
        load(&mut replica, &dir, 1);
        assert_eq!(contents(&mut replica), contents(&mut cluster));
        drop(cluster);
        let _ = std::fs::remove_dir_all(dir);
        is_late
    });
    assert!(was_late.contains(&true), "no message makes home the last one: {was_late:?}");
}
