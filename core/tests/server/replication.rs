//! Replication with real Redis: what it gets from this server is the data set of one moment, and all writes from there on.

use crate::harness::{Connection, Server, Setup, StopOnDrop, leave_out, wait_until};
use crate::random::Random;
use crate::rdb::{Dir, digest, fill};
use crate::redis::Redis;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub const ONE: Setup = Setup { shards: 1, io_backend: "uring" };
pub const TWO: Setup = Setup { shards: 2, io_backend: "epoll" };
pub const FOUR: Setup = Setup { shards: 4, io_backend: "uring" };

const SETUPS: [Setup; 3] = [ONE, TWO, FOUR];

/// Whether a replica follows its master.
pub fn is_up(replica: &mut Connection) -> bool {
    replica.info("replication", "master_link_status") == "up"
}

/// Writes of all kinds to a few keys, most of them over several shards.
pub fn write_at_random(client: &mut Connection, seed: u64, goes_on: &dyn Fn(usize) -> bool) {
    let mut random = Random::new(seed);
    for n in 0.. {
        if !goes_on(n) {
            return;
        }
        let mut key = |kind: &str| format!("{kind}:{}", random.below(12));
        let (text, hash, set, other, zset, list) =
            (key("text"), key("hash"), key("s"), key("s"), key("zset"), key("list"));
        let value = format!("{seed}.{n}");
        match random.below(20) {
            0 => drop(client.call(&["SET", &text, &value])),
            1 => drop(client.call(&["SET", &text, &value, "PX", "100000"])),
            2 => drop(client.call(&["HSET", &hash, &value, &value, "same", &value])),
            3 => drop(client.call(&["SADD", &set, &value, "common"])),
            4 => drop(client.call(&["SPOP", &set])),
            5 => drop(client.call(&["SUNIONSTORE", &set, &other, "s:0"])),
            6 => drop(client.call(&["ZADD", &zset, &format!("{n}.5"), &value])),
            7 => drop(client.call(&["ZPOPMIN", &zset])),
            8 => drop(client.call(&["RPUSH", &list, &value])),
            9 => drop(client.call(&["LMOVE", &list, "list:0", "RIGHT", "LEFT"])),
            10 => drop(client.call(&["RENAME", &set, &other])),
            11 => drop(client.call(&["COPY", &list, "list:1", "REPLACE"])),
            12 => drop(client.call(&["MSET", &text, &value, "text:a", &value, "text:b", &value])),
            13 => drop(client.call(&["DEL", &text, &set, &zset])),
            14 => drop(client.call(&["XADD", "stream", "MAXLEN", "50", "*", "field", &value])),
            15 => drop(client.call(&["INCRBYFLOAT", "float", "0.5"])),
            16 => {
                client.call(&["MULTI"]);
                for request in
                    [vec!["INCR", "count:a"], vec!["INCR", "count:b"], vec!["LPUSH", &list, &value]]
                {
                    assert_eq!(client.call(&request), "+QUEUED\r\n");
                }
                client.call(&["EXEC"]);
            }
            17 => {
                let script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('APPEND', 'undeclared', 'x')";
                client.call(&["EVAL", script, "1", &text, &value]);
            }
            18 => {
                client.call(&["SELECT", &random.below(3).to_string()]);
            }
            _ => drop(client.call(&["PEXPIRE", &hash, "100000"])),
        }
    }
}

/// Waits until the replica has the master's stream, and its data.
#[track_caller]
pub fn wait_until_alike(master: &mut Connection, replica: &mut Connection, what: &str) {
    wait_until(what, || {
        is_up(replica)
            && master.info("replication", "master_repl_offset")
                == replica.info("replication", "slave_repl_offset")
    });
    assert_eq!(digest(master), digest(replica), "{what}");
}

/// Writes meanwhile go into the snapshot or into the stream, and each into one of them.
#[test]
fn redis_follows_as_a_replica_from_the_midst_of_writes_on() {
    for (setup, diskless) in SETUPS.into_iter().flat_map(|setup| [(setup, "yes"), (setup, "no")]) {
        let dir = Dir::new("master");
        let options = ["--repl-diskless-sync-delay", "0", "--repl-diskless-sync", diskless];
        let server = dir.start(setup, &options);
        let Some(redis) = Redis::start("replica", &[]) else { return };
        let (mut master, mut replica) = (server.connect(), redis.connect());
        fill(&mut master);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = StopOnDrop(&is_over);
            for seed in 1..4 {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let mut client = server.connect();
                    write_at_random(&mut client, seed, &|_| !is_over.load(Ordering::Relaxed));
                });
            }
            replica.call(&["REPLICAOF", "127.0.0.1", &server.port.to_string()]);
            wait_until("the link is up", || is_up(&mut replica));
            let mut client = server.connect();
            write_at_random(&mut client, 9, &|n| n < 300);
        });
        let what = format!("{setup:?}, diskless {diskless}");
        wait_until_alike(&mut master, &mut replica, &what);
        assert_eq!(master.info("stats", "sync_full"), "1", "{what}");
        let info = master.call(&["INFO", "replication"]);
        assert!(info.contains(&format!("port={},state=online", redis.port)), "{what}: {info}");
    }
}

#[test]
fn a_replica_whose_link_was_cut_goes_on_from_where_it_was() {
    for setup in SETUPS {
        let dir = Dir::new("partial");
        let server = dir.start(setup, &["--repl-diskless-sync-delay", "0"]);
        let Some(redis) = Redis::start("partial-replica", &[]) else { return };
        let (mut master, mut replica) = (server.connect(), redis.connect());
        replica.call(&["REPLICAOF", "127.0.0.1", &server.port.to_string()]);
        wait_until("the link is up", || is_up(&mut replica));
        for round in 0..3 {
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                let _stop = StopOnDrop(&is_over);
                scope.spawn(|| {
                    let mut client = server.connect();
                    write_at_random(&mut client, round, &|_| !is_over.load(Ordering::Relaxed));
                });
                let killed = master.call(&["CLIENT", "KILL", "TYPE", "replica"]);
                assert_eq!(killed, ":1\r\n", "{setup:?}");
                wait_until("it is back", || {
                    master.info("stats", "sync_partial_ok") == (round + 1).to_string()
                });
            });
            wait_until_alike(&mut master, &mut replica, &format!("{setup:?}"));
        }
        assert_eq!(master.info("stats", "sync_full"), "1", "{setup:?}");
    }
}

#[test]
fn replicas_that_come_in_time_share_a_snapshot() {
    for setup in SETUPS {
        let server = Server::start_with(
            setup,
            &["--repl-diskless-sync-delay", "1000", "--repl-diskless-sync-max-replicas", "3"],
        );
        let mut master = server.connect();
        fill(&mut master);
        let replicas = [(); 3].map(|()| Redis::start("shared", &[]));
        let before: u64 = master.info("stats", "total_forks").parse().expect("a number");
        for redis in replicas.iter().flatten() {
            redis.connect().call(&["REPLICAOF", "127.0.0.1", &server.port.to_string()]);
        }
        for redis in replicas.iter().flatten() {
            wait_until_alike(&mut master, &mut redis.connect(), &format!("{setup:?}"));
        }
        if replicas.iter().flatten().count() > 0 {
            assert_eq!(master.info("stats", "total_forks"), (before + 1).to_string(), "{setup:?}");
        }
    }
}

/// redis-cli with these words, if it is there. Returns what it says.
fn redis_cli(port: u16, words: &[&str]) -> Option<String> {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output();
    let Ok(output) = output else {
        leave_out("no redis-cli");
        return None;
    };
    let all = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&all));
    Some(String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn redis_cli_gets_the_data_set_as_a_file() {
    for setup in SETUPS {
        let dir = Dir::new("cli");
        let server = dir.start(setup, &["--repl-diskless-sync-delay", "0"]);
        let mut client = server.connect();
        fill(&mut client);
        client.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=lib\nredis.register_function('f', function() return 7 end)",
        ]);
        let other = Dir::new("cli-files");
        let (all, functions) = (other.file(), other.0.join("functions.rdb"));
        let Some(_) = redis_cli(server.port, &["--rdb", all.to_str().expect("plain")]) else { return };
        redis_cli(server.port, &["--functions-rdb", functions.to_str().expect("plain")]);
        let expected = digest(&mut client);

        let copy = other.start(setup, &[]);
        let mut client = copy.connect();
        assert_eq!(digest(&mut client), expected, "{setup:?}");
        assert_eq!(client.call(&["FCALL", "f", "0"]), ":7\r\n");
        let name = ["--dbfilename", "functions.rdb"];
        let copy = other.start(setup, &name);
        let mut client = copy.connect();
        assert_eq!(client.call(&["DBSIZE"]), ":0\r\n");
        assert_eq!(client.call(&["FCALL", "f", "0"]), ":7\r\n");
    }
}
