//! Commands over the keyspace: counting, scanning, renaming, copying, flushing.

use super::{NULL, Server, bulk, on_one_and_three_shards};
use crate::cluster::Cluster;
use std::collections::{BTreeMap, BTreeSet};

/// The bulk strings of an array reply.
fn strings(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\r\n");
    let header = lines.next().expect("an array has a header");
    let count: usize = header.strip_prefix('*').expect("an array").parse().expect("its length");
    let strings: Vec<String> =
        (0..count).map(|_| lines.nth(1).expect("a string follows its length").to_string()).collect();
    assert_eq!(lines.next(), Some(""), "nothing follows: {reply}");
    strings
}

/// One call of SCAN: the next cursor and the keys.
fn scan(server: &mut Server, cursor: &str, options: &str) -> (String, Vec<String>) {
    parse_scan(&server.call(&format!("SCAN {cursor}{options}")))
}

fn parse_scan(reply: &str) -> (String, Vec<String>) {
    let rest = reply.strip_prefix("*2\r\n$").unwrap_or_else(|| panic!("no SCAN reply: {reply}"));
    let mut parts = rest.splitn(3, "\r\n");
    let cursor = parts.nth(1).expect("a cursor").to_string();
    (cursor, strings(parts.next().expect("an array")))
}

/// All calls of a scan.
fn scan_all(server: &mut Server, options: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_string();
    for _ in 0..100_000 {
        let (next, keys) = scan(server, &cursor, options);
        found.extend(keys);
        if next == "0" {
            return found;
        }
        cursor = next;
    }
    panic!("the scan does not end");
}

fn fill(server: &mut Server, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        server.call(&format!("SET {key} {key}"));
    }
    keys
}

#[test]
fn keys_of_several_shards_are_counted_together() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("MSET a 1 b 2 c 3 d 4 e 5", "+OK"),
            ("EXISTS a b c none a", ":4"),
            ("TOUCH a b none", ":2"),
            ("DBSIZE", ":5"),
            ("DEL a b none a", ":2"),
            ("UNLINK c d none", ":2"),
            ("DBSIZE", ":1"),
            ("TYPE e", "+string"),
            ("TYPE none", "+none"),
        ]);
    });
}

#[test]
fn keys_come_from_all_shards_by_pattern() {
    on_one_and_three_shards(|server| {
        let all = fill(server, 200);
        let found: BTreeSet<String> = strings(&server.call("KEYS *")).into_iter().collect();
        assert_eq!(found, all);
        let found: BTreeSet<String> = strings(&server.call("KEYS key:1[0-4]")).into_iter().collect();
        assert_eq!(found, (10..15).map(|n| format!("key:{n}")).collect());
        server.expect(&[("KEYS nothing*", "*0")]);
        server.call("PEXPIRE key:0 10");
        server.wait_ms(11);
        assert_eq!(strings(&server.call("KEYS *")).len(), 199);
    });
}

#[test]
fn a_scan_returns_every_key_and_its_options_choose() {
    on_one_and_three_shards(|server| {
        let all = fill(server, 1000);
        for options in ["", " COUNT 1", " COUNT 5000", " TYPE string", " TYPE STRING COUNT 100", " MATCH *"] {
            let found = scan_all(server, options);
            assert_eq!(found.len(), all.len(), "{options}: nothing changed, so nothing comes twice");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all, "{options}");
        }
        let found: BTreeSet<String> = scan_all(server, " MATCH key:1?? COUNT 7").into_iter().collect();
        assert_eq!(found, (100..200).map(|n| format!("key:{n}")).collect());
        assert_eq!(scan_all(server, " TYPE list"), Vec::<String>::new());
    });
}

#[test]
fn a_scan_returns_about_as_many_keys_as_its_count() {
    on_one_and_three_shards(|server| {
        fill(server, 3000);
        for count in [1, 10, 100] {
            let (_, keys) = scan(server, "0", &format!(" COUNT {count}"));
            assert!((1..count + 16).contains(&keys.len()), "COUNT {count}: {} keys", keys.len());
        }
    });
}

#[test]
fn a_scan_of_no_more_keys_than_its_count_is_one_call() {
    on_one_and_three_shards(|server| {
        assert_eq!(scan(server, "0", ""), ("0".to_string(), Vec::new()));
        let all = fill(server, 9);
        for options in ["", " COUNT 10", " COUNT 5000", " MATCH key:*", " TYPE string"] {
            let (next, keys) = scan(server, "0", options);
            assert_eq!(next, "0", "{options}");
            assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), all, "{options}");
        }
        server.call("SELECT 1");
        assert_eq!(scan(server, "0", ""), ("0".to_string(), Vec::new()), "each database by its own size");
        server.call("SELECT 0");
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_string();
        loop {
            server.expect(&[("MULTI", "+OK"), (&format!("SCAN {cursor}"), "+QUEUED")]);
            let reply = server.call("EXEC");
            let (next, keys) = parse_scan(reply.strip_prefix("*1\r\n").expect("one reply"));
            found.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
        }
        assert_eq!(found, all, "in a transaction a call is for one shard");
    });
}

#[test]
fn a_scan_misses_no_key_that_remains_while_the_table_grows_and_shrinks() {
    on_one_and_three_shards(|server| {
        let mut stay = fill(server, 500);
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_string();
        let mut round = 0;
        loop {
            let (next, keys) = scan(server, &cursor, " COUNT 5");
            found.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
            round += 1;
            if round % 2 == 0 {
                let extra: Vec<String> = (0..40).map(|n| format!("extra:{round}:{n} x")).collect();
                server.call(&format!("MSET {}", extra.join(" ")));
            } else if stay.len() > 100 {
                let gone: Vec<String> = stay.iter().take(5).cloned().collect();
                server.call(&format!("DEL {}", gone.join(" ")));
                gone.iter().for_each(|key| assert!(stay.remove(key)));
            }
        }
        let missed: Vec<&String> = stay.difference(&found).collect();
        assert!(missed.is_empty(), "{missed:?}");
    });
}

#[test]
fn a_scan_does_not_miss_a_key_that_is_checked_out_for_a_copy() {
    let mut waited = 0;
    for seed in 1..100 {
        let mut cluster = Cluster::new(3, seed);
        let (copier, scanner) = (cluster.connect(0), cluster.connect(1));
        let pairs: Vec<String> = (0..12).map(|n| format!("key:{n} x")).collect();
        let mset = format!("MSET {}", pairs.join(" "));
        cluster.call(copier, &mset.split(' ').collect::<Vec<_>>());
        for n in 0..40 {
            cluster.request(copier, &["COPY", &format!("key:{}", n % 12), "copy", "REPLACE"]);
        }

        let mut found = BTreeSet::new();
        let mut cursor = "0".to_string();
        loop {
            cluster.request(scanner, &["SCAN", &cursor, "COUNT", "100"]);
            let mut reply = Vec::new();
            while reply.is_empty() && cluster.step() {
                reply = cluster.received(scanner);
            }
            let (next, keys) = parse_scan(&String::from_utf8(reply).expect("text"));
            found.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
        }
        (0..12).for_each(|n| assert!(found.contains(&format!("key:{n}")), "seed {seed}: key:{n}"));
        waited += cluster.workers.iter().map(|worker| worker.shard.stats.lock_waits.get()).sum::<u64>();
    }
    assert!(waited > 0, "the scans came never in between");
}

#[test]
fn a_scan_removes_the_expired_keys_it_finds() {
    on_one_and_three_shards(|server| {
        fill(server, 100);
        server.expect(&[("SET gone x PX 1", "+OK"), ("DBSIZE", ":101")]);
        // The active expiry cycle must not remove them.
        server.cluster.workers.iter().for_each(|worker| {
            worker.globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        });
        server.wait_ms(5);
        assert_eq!(scan_all(server, "").len(), 100);
        server.expect(&[("DBSIZE", ":100")]);
    });
}

#[test]
fn a_cursor_is_any_number() {
    on_one_and_three_shards(|server| {
        fill(server, 10);
        for cursor in ["x", "1x", " 1", "-", "99999999999999999999", "1.5"] {
            assert_eq!(server.call_args(&["SCAN", cursor]), "-ERR invalid cursor\r\n", "{cursor}");
        }
        for cursor in ["", "+0", "18446744073709551615", "-1"] {
            assert!(server.call_args(&["SCAN", cursor]).starts_with("*2\r\n$"), "{cursor}");
        }
        server.expect(&[
            ("SCAN 0 COUNT 0", "-ERR syntax error"),
            ("SCAN 0 COUNT -1", "-ERR syntax error"),
            ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range"),
            ("SCAN 0 MATCH", "-ERR syntax error"),
            ("SCAN 0 FOO bar", "-ERR syntax error"),
            ("SCAN 18446744073709551615", "*2\r\n$1\r\n0\r\n*0"),
        ]);
    });
}

#[test]
fn a_random_key_is_each_about_as_often_as_any_other() {
    on_one_and_three_shards(|server| {
        server.expect(&[("RANDOMKEY", NULL)]);
        let all = fill(server, 20);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..2000 {
            let reply = server.call("RANDOMKEY");
            *counts.entry(reply.split("\r\n").nth(1).expect("a string").to_string()).or_default() += 1;
        }
        assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), all);
        // A hundred each is expected; the seed is fixed.
        assert!(counts.values().all(|count| (40..250).contains(count)), "{counts:?}");
    });
}

#[test]
fn a_random_key_is_not_an_expired_one() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        server.expect(&[("SET e 1", "+OK")]);
        let expire_some = |server: &mut Server| {
            for key in ["a", "b", "c", "d"] {
                server.call(&format!("SET {key} 1 PX 1"));
            }
            server.wait_ms(5);
        };
        expire_some(server);
        for _ in 0..40 {
            server.expect(&[("RANDOMKEY", &bulk("e"))]);
        }
        // The same where all keys are locked for it.
        expire_some(server);
        for _ in 0..40 {
            server.expect(&[("MULTI", "+OK"), ("RANDOMKEY", "+QUEUED")]);
            server.expect(&[("EXEC", &format!("*1\r\n{}", bulk("e")))]);
        }
        server.expect(&[("DEL e", ":1"), ("RANDOMKEY", NULL)]);
    });
}

#[test]
fn rename_takes_value_and_expiry_along_and_replaces() {
    on_one_and_three_shards(|server| {
        for other in ["b", "c", "d", "{a}x"] {
            server.expect(&[
                ("FLUSHALL", "+OK"),
                ("SET a 1 EX 100", "+OK"),
                (&format!("SET {other} 2 EX 50"), "+OK"),
                (&format!("RENAMENX a {other}"), ":0"),
                (&format!("RENAME a {other}"), "+OK"),
                ("EXISTS a", ":0"),
                (&format!("GET {other}"), &bulk("1")),
                (&format!("TTL {other}"), ":100"),
                (&format!("RENAME a {other}"), "-ERR no such key"),
                ("RENAME a a", "-ERR no such key"),
                (&format!("RENAME {other} {other}"), "+OK"),
                (&format!("RENAMENX {other} {other}"), ":0"),
                (&format!("RENAMENX {other} a"), ":1"),
                ("TTL a", ":100"),
                ("DBSIZE", ":1"),
            ]);
        }
    });
}

#[test]
fn copy_leaves_the_source_and_needs_replace_for_a_destination() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("COPY a b", ":0"),
            ("APPEND a x", ":1"),
            ("APPEND a y", ":2"),
            ("EXPIRE a 100", ":1"),
            ("COPY a b", ":1"),
            ("GET b", &bulk("xy")),
            ("TTL b", ":100"),
            ("OBJECT ENCODING b", &bulk("raw")),
            ("GET a", &bulk("xy")),
            ("SET a new", "+OK"),
            ("COPY a b", ":0"),
            ("COPY a b REPLACE", ":1"),
            ("GET b", &bulk("new")),
            ("TTL b", ":-1"),
            ("COPY a a", "-ERR source and destination objects are the same"),
            ("COPY a a DB 0", "-ERR source and destination objects are the same"),
            ("COPY a b FOO", "-ERR syntax error"),
            ("COPY a b DB", "-ERR syntax error"),
            ("COPY a b DB x", "-ERR value is not an integer or out of range"),
            ("COPY a b DB 16", "-ERR DB index is out of range"),
            ("COPY a b DB -1", "-ERR DB index is out of range"),
            (
                "COPY a b DB 4294967296",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
        ]);
    });
}

#[test]
fn keys_move_between_databases() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("MSET a 1 b 2", "+OK"),
            ("EXPIRE a 100", ":1"),
            ("COPY a a DB 3", ":1"),
            ("COPY a b DB 3", ":1"),
            ("MOVE a 3", ":0"),
            ("MOVE a 4", ":1"),
            ("MOVE a 4", ":0"),
            ("MOVE b 0", "-ERR source and destination objects are the same"),
            ("MOVE b 16", "-ERR DB index is out of range"),
            ("MOVE b x", "-ERR value is not an integer or out of range"),
            ("DBSIZE", ":1"),
            ("SWAPDB 0 4", "+OK"),
            ("TTL a", ":100"),
            ("DBSIZE", ":1"),
            ("SWAPDB 0 3", "+OK"),
            ("MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n1"),
            ("SWAPDB 0 0", "+OK"),
            ("DBSIZE", ":2"),
            ("SWAPDB x 1", "-ERR invalid first DB index"),
            ("SWAPDB 1 4294967296", "-ERR invalid second DB index"),
            ("SWAPDB 1 16", "-ERR DB index is out of range"),
        ]);
    });
}

#[test]
fn flushing_empties_one_database_or_all() {
    on_one_and_three_shards(|server| {
        for option in ["", " ASYNC", " sync"] {
            server.expect(&[
                ("MSET a 1 b 2 c 3", "+OK"),
                ("COPY a a DB 1", ":1"),
                (&format!("FLUSHDB{option}"), "+OK"),
                ("DBSIZE", ":0"),
                ("SWAPDB 0 1", "+OK"),
                ("DBSIZE", ":1"),
                ("MSET a 1 b 2 c 3", "+OK"),
                ("COPY a a DB 1", ":1"),
                (&format!("FLUSHALL{option}"), "+OK"),
                ("DBSIZE", ":0"),
                ("SWAPDB 0 1", "+OK"),
                ("DBSIZE", ":0"),
            ]);
        }
        server.expect(&[
            ("SET a 1", "+OK"),
            ("FLUSHALL FOO", "-ERR syntax error"),
            ("FLUSHDB SYNC ASYNC", "-ERR syntax error"),
            ("DBSIZE", ":1"),
        ]);
    });
}

#[test]
fn a_flush_counts_each_key_as_a_change() {
    on_one_and_three_shards(|server| {
        fill(server, 50);
        let before = server.changes();
        server.call("FLUSHALL");
        assert_eq!(server.changes() - before, 50);
    });
}

#[test]
fn a_swap_counts_as_one_change_whatever_the_number_of_shards() {
    on_one_and_three_shards(|server| {
        let before = server.changes();
        server.expect(&[("SWAPDB 0 1", "+OK"), ("SWAPDB 0 0", "+OK")]);
        assert_eq!(server.changes() - before, 2);
    });
}

#[test]
fn memory_usage_also_works_on_an_expired_key_that_was_not_removed_yet() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        server.expect(&[("SET a x PX 1", "+OK")]);
        server.wait_ms(5);
        assert!(server.call("MEMORY USAGE a").starts_with(':'));
        server.expect(&[("OBJECT ENCODING a", NULL), ("MEMORY USAGE a", NULL)]);
    });
}

#[test]
fn a_scan_that_asks_for_a_type_counts_each_key_it_looks_at_as_a_hit() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        server.expect(&[("MSET a 1 b 2 ax 3", "+OK")]);
        for (request, hits, misses) in [
            ("SCAN 0", 0, 0),
            ("SCAN 0 TYPE string", 3, 0),
            ("SCAN 0 TYPE list", 3, 0),
            ("SCAN 0 MATCH a* TYPE string", 2, 0),
            ("PEXPIRE b 1", 0, 0),
            ("SCAN 0 MATCH a* TYPE string", 2, 0),
            ("SCAN 0 TYPE string", 2, 1),
        ] {
            let counts = |server: &Server| {
                (
                    server.sum(|stats| stats.keyspace_hits.get()),
                    server.sum(|stats| stats.keyspace_misses.get()),
                )
            };
            let before = counts(server);
            server.call(request);
            let after = counts(server);
            assert_eq!((after.0 - before.0, after.1 - before.1), (hits, misses), "{request}");
            server.wait_ms(5);
        }
    });
}

#[test]
fn a_lazy_flush_frees_memory_in_later_turns() {
    on_one_and_three_shards(|server| {
        let big = "x".repeat(1500);
        for n in 0..8000 {
            server.call(&format!("SET key:{n} {big}"));
        }
        server.expect(&[("FLUSHALL ASYNC", "+OK")]);
        let pending = server.sum(|stats| stats.lazyfree_pending_objects.get());
        assert!(pending > 0, "a slice is smaller than this");
        for _ in 0..40 {
            server.cluster.workers.iter_mut().for_each(|worker| worker.end_turn());
        }
        assert_eq!(server.sum(|stats| stats.lazyfree_pending_objects.get()), 0);
        assert_eq!(server.sum(|stats| stats.lazyfreed_objects.get()), 8000);
        assert!(server.cluster.workers.iter().all(|worker| !worker.shard.is_freeing()));
    });
}

/// `b`, `c` and `a` are on shards 0, 1 and 2.
#[test]
fn dbsize_and_randomkey_wait_for_no_transaction_and_dbsize_counts_checked_out_keys() {
    let mut cluster = Cluster::new(3, 1);
    let (mover, reader) = (cluster.connect(0), cluster.connect(1));
    assert_eq!(cluster.call(reader, &["MSET", "a", "1", "b", "2", "c", "3"]), "+OK\r\n");
    // Shard 2 has checked out `a`, and the entry is on its way to shard 0.
    cluster.hold(2, 0);
    cluster.request(mover, &["RENAME", "a", "b"]);
    cluster.settle();
    assert!(cluster.see(0, "a", |value| value.is_none()));

    assert_eq!(cluster.call(reader, &["DBSIZE"]), ":3\r\n");
    let reply = cluster.call(reader, &["RANDOMKEY"]);
    assert!(["$1\r\nb\r\n", "$1\r\nc\r\n"].contains(&reply.as_str()), "{reply}");
    assert!(cluster.received(mover).is_empty());

    cluster.release(2, 0);
    cluster.settle();
    assert_eq!(cluster.received(mover), b"+OK\r\n");
    assert_eq!(cluster.call(reader, &["DBSIZE"]), ":2\r\n");
}
