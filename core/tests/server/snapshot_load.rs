//! A replica loads its master's snapshot, by all values of repl-diskless-load.

use crate::harness::{Connection, wait_until};
use crate::link::Node;
use crate::rdb::fill;
use crate::replication::{FOUR, ONE, TWO, is_up, wait_until_alike, write_at_random};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const WAYS: [&str; 3] = ["disabled", "on-empty-db", "swapdb"];

const HELLO: [&str; 4] = [
    "FUNCTION",
    "LOAD",
    "REPLACE",
    "#!lua name=hello\nredis.register_function{function_name='hello', flags={'no-writes'}, \
     callback=function() return 'of the master' end}",
];

#[test]
fn the_masters_data_takes_the_place_of_all_data_whichever_way_it_comes() {
    for (setup, way) in [ONE, FOUR].into_iter().flat_map(|setup| WAYS.map(|way| (setup, way))) {
        for diskless in ["yes", "no"] {
            let what = format!("{setup:?}, {way}, diskless of the master: {diskless}");
            let master = Node::ours_with("load-master", TWO, &["--repl-diskless-sync", diskless]);
            let replica = Node::ours_with("load", setup, &["--repl-diskless-load", way]);
            let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
            fill(&mut at_master);
            at_master.call(&HELLO);
            if way != "on-empty-db" {
                at_replica.call(&["SET", "of the replica", "1"]);
            }
            replica.follow(&master);
            wait_until("the link is up", || is_up(&mut at_replica));
            write_at_random(&mut at_master, 1, &|n| n < 100);
            wait_until_alike(&mut at_master, &mut at_replica, &what);
            assert_eq!(at_replica.call(&["EXISTS", "of the replica"]), ":0\r\n", "{what}");
            assert_eq!(at_replica.call(&["FCALL_RO", "hello", "0"]), "$13\r\nof the master\r\n", "{what}");
        }
    }
}

/// The master has other data than its replica, of the same history or of another one, and saves it slowly.
fn synchronizes_slowly(master: &Node, replica: &Node, is_of_same_history: bool) -> (Connection, Connection) {
    let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
    if is_of_same_history {
        replica.follow(master);
        wait_until("the link is up", || is_up(&mut at_replica));
    }
    for request in [
        &["DEBUG", "POPULATE", "2000", "master", "1000"][..],
        &[
            "CONFIG",
            "SET",
            "rdb-key-save-delay",
            "10000",
            "rdbcompression",
            "no",
            "repl-backlog-size",
            "16384",
        ],
    ] {
        assert_eq!(at_master.call(request), "+OK\r\n");
    }
    assert_eq!(at_replica.call(&["SET", "of the replica", "1"]), "+OK\r\n");
    if is_of_same_history {
        // More than the backlog has room for, while the replica is not there.
        at_master.call(&["MULTI"]);
        at_master.call(&["CLIENT", "KILL", "TYPE", "replica"]);
        for n in 0..10 {
            at_master.call(&["SET", &format!("filling:{n}"), &"x".repeat(16384)]);
        }
        assert!(at_master.call(&["EXEC"]).starts_with("*11\r\n"));
    } else {
        replica.follow(master);
    }
    (at_master, at_replica)
}

#[test]
fn swapdb_serves_the_data_from_before_until_the_snapshot_is_complete() {
    let options = ["--repl-diskless-load", "swapdb", "--replica-read-only", "no"];
    for setup in [ONE, FOUR] {
        let (master, replica) = (Node::ours("slow", ONE), Node::ours_with("swap", setup, &options));
        let (mut at_master, mut at_replica) = synchronizes_slowly(&master, &replica, true);
        wait_until("it loads", || at_replica.info("persistence", "async_loading") == "1");
        assert_eq!(at_replica.info("persistence", "loading"), "0", "{setup:?}");
        assert_eq!(at_replica.call(&["GET", "of the replica"]), "$1\r\n1\r\n", "{setup:?}");
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        assert_eq!(at_replica.call(&["REPLICAOF", "NO", "ONE"]), loading, "{setup:?}");
        assert_eq!(at_replica.call(&["CONFIG", "SET", "appendonly", "no"]), loading, "{setup:?}");

        // The snapshot is cut off.
        at_master.call(&["CONFIG", "SET", "repl-diskless-sync-delay", "1000"]);
        assert_eq!(at_master.call(&["CLIENT", "KILL", "TYPE", "replica"]), ":1\r\n");
        wait_until("it is given up", || at_replica.info("persistence", "async_loading") == "0");
        assert_eq!(at_replica.call(&["DBSIZE"]), ":1\r\n", "{setup:?}: not a part of it");
        assert_eq!(at_replica.call(&["GET", "of the replica"]), "$1\r\n1\r\n", "{setup:?}");

        at_master.call(&["CONFIG", "SET", "repl-diskless-sync-delay", "0", "rdb-key-save-delay", "0"]);
        wait_until("the link is up", || is_up(&mut at_replica));
        wait_until_alike(&mut at_master, &mut at_replica, &format!("{setup:?}"));
        assert_eq!(at_replica.call(&["EXISTS", "of the replica"]), ":0\r\n", "{setup:?}");
    }
}

#[test]
fn swapdb_shows_no_data_of_another_history_while_it_loads_and_keeps_it_all_the_same() {
    for setup in [ONE, FOUR] {
        let replica = Node::ours_with("other-history", setup, &["--repl-diskless-load", "swapdb"]);
        let master = Node::ours("other-slow", ONE);
        let (mut at_master, mut at_replica) = synchronizes_slowly(&master, &replica, false);
        wait_until("it loads", || at_replica.info("persistence", "loading") == "1");
        assert_eq!(at_replica.info("persistence", "async_loading"), "0", "{setup:?}");
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        assert_eq!(at_replica.call(&["GET", "of the replica"]), loading, "{setup:?}");
        at_master.call(&["CONFIG", "SET", "repl-diskless-sync-delay", "1000"]);
        assert_eq!(at_master.call(&["CLIENT", "KILL", "TYPE", "replica"]), ":1\r\n");
        wait_until("it is given up", || at_replica.info("persistence", "loading") == "0");
        assert_eq!(at_replica.call(&["GET", "of the replica"]), "$1\r\n1\r\n", "{setup:?}");
        assert_eq!(at_replica.call(&["DBSIZE"]), ":1\r\n", "{setup:?}");
    }
}

/// A master whose snapshot is these bytes. Returns its port, and how many it has been asked for.
fn master_of(snapshot: Vec<u8>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let reader = BufReader::new(stream.try_clone().expect("a handle"));
            for line in reader.lines().map_while(Result::ok) {
                let id = "a".repeat(40);
                let reply = match &*line {
                    "PING" => b"+PONG\r\n".to_vec(),
                    "REPLCONF" => b"+OK\r\n".to_vec(),
                    "PSYNC" => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let head = format!("+FULLRESYNC {id} 0\r\n${}\r\n", snapshot.len());
                        [head.as_bytes(), &snapshot].concat()
                    }
                    _ => continue,
                };
                if stream.write_all(&reply).is_err() {
                    break;
                }
            }
        }
    });
    (port, asked)
}

/// A snapshot with something that is not known here is refused by its name. It does not come again, and the data from before is
/// there, also after a restart.
#[test]
fn a_snapshot_with_something_unknown_is_refused_and_the_data_stays() {
    let of_version = |version: &str| [b"REDIS", version.as_bytes(), b"\xff", &[0; 8]].concat();
    let with_type = [&b"REDIS0010\xfe\x00\xc8\x01k\x01v\xff"[..], &[0; 8]].concat();
    let of_db = [&b"REDIS0010\xfe\x14\x00\x01k\x01v\xff"[..], &[0; 8]].concat();
    for (setup, way) in [ONE, FOUR].into_iter().flat_map(|setup| WAYS.map(|way| (setup, way))) {
        for (snapshot, why) in [
            (of_version("0099"), "RDB version 99"),
            (with_type.clone(), "Unknown RDB type or opcode 200"),
            (of_db.clone(), "more databases than the 16"),
        ] {
            let what = format!("{setup:?}, {way}, {why}");
            let mut replica = Node::ours_with("unknown", setup, &["--repl-diskless-load", way]);
            let mut client = replica.connect();
            for request in [&["SET", "of the replica", "1"][..], &["SAVE"], &["SET", "later", "1"]] {
                assert_eq!(client.call(request), "+OK\r\n", "{what}");
            }
            let (master, asked) = master_of(snapshot);
            assert_eq!(client.call(&["REPLICAOF", "127.0.0.1", &master.to_string()]), "+OK\r\n", "{what}");
            let Node::Ours { server, .. } = &mut replica else { unreachable!("it is ours") };
            let line = server.wait_for_line(why);
            let end = "The link is given up";
            assert!(line.contains(end) || server.wait_for_line(end).contains(end), "{what}");
            assert_eq!(asked.load(Ordering::Relaxed), 1, "{what}");
            assert_eq!(client.call(&["DBSIZE"]), ":2\r\n", "{what}");
            // Its own snapshot is what a restart finds.
            client.call(&["REPLICAOF", "NO", "ONE"]);
            assert_eq!(client.call(&["DEBUG", "RELOAD", "NOSAVE", "NOFLUSH", "MERGE"]), "+OK\r\n", "{what}");
            assert_eq!(client.call(&["DBSIZE"]), ":2\r\n", "{what}");
        }
    }
}

/// What fails on a replica is not the master's data set any more.
#[test]
fn a_command_of_the_master_that_fails_is_told_of() {
    for setup in [ONE, FOUR] {
        let (master, replica) = (Node::ours("fails", TWO), Node::ours("diverges", setup));
        let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
        replica.follow(&master);
        wait_until("the link is up", || is_up(&mut at_replica));
        let errors = |client: &mut Connection| client.info("stats", "unexpected_error_replies");
        assert_eq!(at_master.call(&["SET", "before", "1"]), "+OK\r\n");
        assert_eq!(at_master.call(&["DEBUG", "REPLICATE", "no-such-command", "1"]), "+OK\r\n");
        assert_eq!(at_master.call(&["SET", "behind", "1"]), "+OK\r\n");
        wait_until("the link is given up", || errors(&mut at_replica) == "1" && !is_up(&mut at_replica));
        assert_eq!(at_replica.call(&["MGET", "before", "behind"]), "*2\r\n$1\r\n1\r\n$-1\r\n", "{setup:?}");
        at_replica.call(&["CONFIG", "SET", "propagation-error-behavior", "ignore"]);
        replica.follow(&master);
        wait_until_alike(&mut at_master, &mut at_replica, &format!("{setup:?}"));
        assert_eq!(errors(&mut at_replica), "2", "{setup:?}: it goes on");
        at_replica.call(&["CONFIG", "SET", "replica-read-only", "no"]);
        at_replica.call(&["SET", "number", "none"]);
        at_master.call(&["INCR", "number"]);
        wait_until("it is told of", || errors(&mut at_replica) == "3");

        at_replica.call(&[
            "CONFIG",
            "SET",
            "replica-read-only",
            "yes",
            "propagation-error-behavior",
            "panic",
        ]);
        at_master.call(&["INCR", "number"]);
        let Node::Ours { mut server, _dir } = replica else { unreachable!("it is ours") };
        server.wait_for_line("This replica panicked sending an error to its master");
        assert_ne!(server.wait(), Some(0), "{setup:?}");
    }
}

/// replica-ignore-disk-write-errors
#[test]
fn a_replica_that_cannot_write_to_disk_ends_unless_it_is_to_go_on() {
    for setup in [ONE, FOUR] {
        let options = ["--save", "3600 100000", "--replica-ignore-disk-write-errors", "yes"];
        let (master, replica) =
            (Node::ours("of-full-disk", ONE), Node::ours_with("full-disk", setup, &options));
        let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
        replica.follow(&master);
        wait_until("the link is up", || is_up(&mut at_replica));
        let Node::Ours { _dir: dir, .. } = &replica else { unreachable!("it is ours") };
        std::fs::remove_dir_all(&dir.0).expect("it is there");
        at_replica.call(&["BGSAVE"]);
        wait_until("it fails", || at_replica.info("persistence", "rdb_last_bgsave_status") == "err");
        assert_eq!(at_master.call(&["SET", "a", "1"]), "+OK\r\n");
        wait_until_alike(&mut at_master, &mut at_replica, &format!("{setup:?}"));
        at_replica.call(&["CONFIG", "SET", "replica-ignore-disk-write-errors", "no"]);
        assert_eq!(at_master.call(&["SET", "a", "2"]), "+OK\r\n");
        let Node::Ours { mut server, _dir } = replica else { unreachable!("it is ours") };
        server.wait_for_line("Replica was unable to write command to disk.");
        assert_ne!(server.wait(), Some(0), "{setup:?}");
    }
}
