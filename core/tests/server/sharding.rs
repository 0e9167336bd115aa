//! Many shards answer like one.

use crate::harness::{SETUPS, Server, StopOnDrop, encode};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[test]
fn a_deep_pipeline_over_all_shards_is_answered_in_order() {
    const COUNT: usize = 20_000;
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        let mut writer = client.stream.try_clone().expect("a second handle");
        let sender = thread::spawn(move || {
            use std::io::Write;
            for n in 0..COUNT {
                let (key, value) = (format!("key:{n}"), format!("value:{n}"));
                let mut bytes = encode(&[b"SET", key.as_bytes(), value.as_bytes()]);
                bytes.extend(encode(&[b"GET", key.as_bytes()]));
                writer.write_all(&bytes).expect("the server reads");
            }
        });
        for n in 0..COUNT {
            assert_eq!(client.reply(), b"+OK\r\n", "{setup:?} {n}");
            let value = format!("value:{n}");
            assert_eq!(
                client.reply(),
                format!("${}\r\n{value}\r\n", value.len()).into_bytes(),
                "{setup:?} {n}"
            );
        }
        sender.join().expect("it sent all");
        assert_eq!(client.call(&["DBSIZE"]), format!(":{COUNT}\r\n"));
    }
}

#[test]
fn a_scan_over_all_shards_returns_every_key_that_stays() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        let stays: BTreeSet<String> = (0..3_000).map(|n| format!("stays:{n}")).collect();
        for key in &stays {
            assert_eq!(client.call(&["SET", key, "x"]), "+OK\r\n");
        }
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_string();
        let mut round = 0;
        loop {
            let reply = client.call(&["SCAN", &cursor, "COUNT", "50"]);
            let mut lines = reply.split("\r\n").skip(2);
            cursor = lines.next().expect("a cursor").to_string();
            found.extend(lines.skip(1).filter(|line| line.starts_with("stays:")).map(str::to_string));
            if cursor == "0" {
                break;
            }
            // Grow and shrink the tables meanwhile.
            for n in 0..40 {
                let key = format!("comes:{}", (round * 40 + n) % 2_000);
                client.call(
                    &[if round % 3 == 0 { "DEL" } else { "SET" }, &key, "y"]
                        [..if round % 3 == 0 { 2 } else { 3 }],
                );
            }
            round += 1;
            assert!(round < 10_000, "{setup:?}: the scan does not end");
        }
        assert!(found.is_superset(&stays), "{setup:?}: {} of {} found", found.len(), stays.len());
    }
}

/// MSET of the same value to keys on all shards, and MGET of them, at the same time: a reader must never see
/// two values at once.
#[test]
fn a_reader_sees_all_of_an_mset_or_nothing() {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for setup in SETUPS {
        let server = Server::start(setup);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..3 {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        let value = format!("{writer}:{n}");
                        let mut args = vec!["MSET"];
                        keys.iter().for_each(|key| args.extend([*key, &value]));
                        assert_eq!(client.call(&args), "+OK\r\n");
                    }
                });
            }
            let stop_at_end = StopOnDrop(&stop);
            let mut client = server.connect();
            let mut args = vec!["MGET"];
            args.extend(keys);
            let mut changes = BTreeSet::new();
            for _ in 0..2_000 {
                let reply = client.call(&args);
                let values: BTreeSet<&str> =
                    reply.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).collect();
                assert!(values.len() <= 2, "{setup:?}: torn read: {values:?}");
                changes.extend(values.into_iter().map(str::to_string));
            }
            drop(stop_at_end);
            assert!(changes.len() > 2, "{setup:?}: nobody wrote: {changes:?}");
        });
    }
}

#[test]
fn rename_and_copy_carry_value_and_expiry_across_shards() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        for n in 0..50 {
            let (from, to) = (format!("from:{n}"), format!("to:{n}"));
            client.call(&["SET", &from, "value", "EX", "1000"]);
            assert_eq!(client.call(&["RENAME", &from, &to]), "+OK\r\n", "{setup:?}");
            assert_eq!(client.call(&["GET", &from]), "$-1\r\n");
            assert_eq!(client.call(&["GET", &to]), "$5\r\nvalue\r\n");
            let ttl: i64 = client.call(&["TTL", &to])[1..].trim_end().parse().expect("an integer");
            assert!((1..=1000).contains(&ttl), "{setup:?}: {ttl}");
            assert_eq!(client.call(&["COPY", &to, &from]), ":1\r\n");
            assert_eq!(client.call(&["MSETNX", &from, "1", "new", "2"]), ":0\r\n");
        }
        assert_eq!(client.call(&["DBSIZE"]), ":100\r\n");
        assert_eq!(client.call(&["FLUSHALL"]), "+OK\r\n");
        assert_eq!(client.call(&["DBSIZE"]), ":0\r\n");
    }
}

#[test]
fn connections_are_spread_evenly_even_when_they_are_few() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let clients: Vec<_> = (0..setup.shards * 2).map(|_| server.connect()).collect();
        let mut asking = server.connect();
        // Every connection is served before INFO counts them.
        for mut client in clients.iter().map(|client| client.stream.try_clone().expect("a second handle")) {
            use std::io::{Read, Write};
            client.write_all(b"PING\r\n").expect("the server reads");
            let mut pong = [0; 7];
            client.read_exact(&mut pong).expect("a reply");
        }
        let info = asking.call(&["INFO", "shards"]);
        let counts: Vec<usize> = info
            .split(['\r', '\n', ','])
            .filter_map(|field| field.rsplit_once("clients=")?.1.parse().ok())
            .collect();
        assert_eq!(counts.len(), setup.shards, "{setup:?}: {info}");
        assert_eq!(counts.iter().sum::<usize>(), setup.shards * 2 + 1);
        assert!(counts.iter().all(|&count| count >= 2), "{setup:?}: {counts:?}");
    }
}

#[test]
fn a_redis_client_library_finds_nothing_unusual() {
    use redis::Commands;
    for setup in SETUPS {
        let server = Server::start(setup);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).expect("an address");
        let mut connection = client.get_connection().expect("a connection");
        let _: () = connection.set("counter", 41).expect("SET");
        let counter: i64 = connection.incr("counter", 1).expect("INCR");
        assert_eq!(counter, 42);
        let _: () = connection.mset(&[("x", "1"), ("y", "2"), ("z", "3")]).expect("MSET");
        let values: Vec<Option<String>> = connection.mget(&["x", "y", "z", "none"]).expect("MGET");
        assert_eq!(values, [Some("1".into()), Some("2".into()), Some("3".into()), None]);
        let (first, second): (String, i64) =
            redis::pipe().get("x").incr("counter", 1).query(&mut connection).expect("a pipeline");
        assert_eq!((first.as_str(), second), ("1", 43));
        let removed: i64 = connection.del(&["x", "y", "none"]).expect("DEL");
        assert_eq!(removed, 2);
    }
}
