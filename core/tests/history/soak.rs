//! Nobody waits for ever: not those who want the same keys in opposite orders, and not the one who wants all keys while
//! everybody else wants two of them. Who wants other keys does not notice.
//!
//! A reply that does not come in [`PATIENCE`](crate::harness::PATIENCE) fails the test. That was seen where a lock that is
//! given up is not passed on.

use crate::harness::{Connection, Server, StopOnDrop};
use crate::{Random, SETUPS};
use shardis_core::shard::slot::shard_of;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const HOT_KEYS: [&str; 8] = ["hot:a", "hot:b", "hot:c", "hot:d", "hot:e", "hot:f", "hot:g", "hot:h"];

fn are_on_all_shards(keys: &[&str]) -> bool {
    keys.iter().map(|key| shard_of(key.as_bytes(), 4)).collect::<BTreeSet<usize>>().len() == 4
}

/// Some hot keys in any order.
fn shuffled(random: &mut Random, count: usize) -> Vec<&'static str> {
    let mut keys = HOT_KEYS;
    for n in 0..count {
        keys.swap(n, n + random.below(HOT_KEYS.len() - n));
    }
    keys[..count].to_vec()
}

fn with_values<'a>(command: &'a str, keys: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(command).chain(keys.iter().flat_map(|key| [*key, "x"])).collect()
}

/// One command over hot keys, and whatever Redis replies to it.
fn grab(client: &mut Connection, random: &mut Random) {
    let count = 2 + random.below(HOT_KEYS.len() - 1);
    let keys = shuffled(random, count);
    let reply = match random.below(8) {
        0..=2 => client.call(&with_values("MSET", &keys)),
        3 => client.call(&[&["MGET"], &keys[..]].concat()),
        4 => client.call(&[&["DEL"], &keys[..]].concat()),
        5 => client.call(&["RENAME", keys[0], keys[1]]),
        6 => client.call(&["COPY", keys[0], keys[1], "REPLACE"]),
        _ => {
            assert_eq!(client.call(&["WATCH", keys[0]]), "+OK\r\n");
            assert_eq!(client.call(&["MULTI"]), "+OK\r\n");
            for key in &keys {
                assert_eq!(client.call(&["SET", key, "y"]), "+QUEUED\r\n");
            }
            assert_eq!(client.call(&with_values("MSET", &keys)), "+QUEUED\r\n");
            client.call(&["EXEC"])
        }
    };
    assert!(!reply.starts_with('-') || reply == "-ERR no such key\r\n", "{reply}");
}

#[test]
fn those_who_want_the_same_keys_in_opposite_orders_all_get_them() {
    const CLIENTS: u64 = 8;
    const COMMANDS: usize = 600;
    assert!(are_on_all_shards(&HOT_KEYS));
    for setup in SETUPS {
        let server = Server::start(setup);
        thread::scope(|scope| {
            for n in 0..CLIENTS {
                let server = &server;
                scope.spawn(move || {
                    let (mut client, mut random) = (server.connect(), Random::new(n));
                    (0..COMMANDS).for_each(|_| grab(&mut client, &mut random));
                });
            }
        });
        let mut client = server.connect();
        assert_eq!(client.call(&with_values("MSET", &HOT_KEYS)), "+OK\r\n", "{setup:?}: no lock was left");
        assert_eq!(client.call(&["FLUSHALL"]), "+OK\r\n", "{setup:?}");
        assert_eq!(client.call(&["DBSIZE"]), ":0\r\n", "{setup:?}");
    }
}

#[test]
fn a_wide_transaction_gets_through_a_storm_of_narrow_ones_and_other_keys_do_not_notice() {
    const STORM_CLIENTS: u64 = 6;
    const WIDE_COMMANDS: usize = 500;
    /// So much less than a client of the storm, which has to wait for locks, may one get done who has not.
    const SHARE_MIN: usize = 4;
    let others: Vec<String> = (0..56).map(|n| format!("cold:{n}")).collect();
    let mut wide: Vec<&str> = HOT_KEYS.to_vec();
    wide.extend(others.iter().map(String::as_str));
    for setup in SETUPS {
        let server = Server::start(setup);
        let stop = AtomicBool::new(false);
        let (storm, unrelated) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let stop_at_end = StopOnDrop(&stop);
            for n in 0..STORM_CLIENTS {
                let (server, stop, storm) = (&server, &stop, &storm);
                scope.spawn(move || {
                    let (mut client, mut random) = (server.connect(), Random::new(n));
                    while !stop.load(Ordering::Relaxed) {
                        let keys = shuffled(&mut random, 2);
                        assert_eq!(client.call(&with_values("MSET", &keys)), "+OK\r\n");
                        storm.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                let mut client = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("unrelated:{}", unrelated.load(Ordering::Relaxed) % 100);
                    assert_eq!(client.call(&["SET", &key, "x"]), "+OK\r\n");
                    unrelated.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut client = server.connect();
            for _ in 0..WIDE_COMMANDS {
                assert_eq!(client.call(&with_values("MSET", &wide)), "+OK\r\n", "{setup:?}");
            }
            drop(stop_at_end);
        });

        let (storm, unrelated) = (storm.into_inner(), unrelated.into_inner());
        assert!(storm > WIDE_COMMANDS, "{setup:?}: {storm} commands are no storm");
        let of_each = storm / STORM_CLIENTS as usize;
        assert!(unrelated * SHARE_MIN > of_each, "{setup:?}: {unrelated} against {of_each}");
    }
}
