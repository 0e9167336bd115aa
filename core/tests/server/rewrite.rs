//! BGREWRITEAOF and an append-only file that is turned on while the server runs: base and file of commands together have
//! everything once, whatever goes on meanwhile, and Redis loads them.

use crate::aof::{Dir, MANIFEST, start_redis};
use crate::harness::{Connection, SETUPS, free_port, wait_until};
use crate::rdb::{digest, fill};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

const STARTED: &str = "+Background append only file rewriting started\r\n";

/// Waits until no snapshot is under way or scheduled, and the last ones have succeeded.
fn wait_for_snapshots(client: &mut Connection) {
    wait_until("the snapshots end", || {
        // In one call, between whose fields none begins.
        let fields = client.call(&["INFO", "persistence"]);
        ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "rdb_bgsave_in_progress:0"]
            .iter()
            .all(|field| fields.lines().any(|line| line == *field))
    });
    assert_eq!(client.info("persistence", "aof_last_bgrewrite_status"), "ok");
    assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "ok");
}

/// The manifest with a base and a file of commands.
fn manifest(base: u64, extension: &str, incr: u64) -> String {
    format!(
        "file appendonly.aof.{base}.base.{extension} seq {base} type b\nfile appendonly.aof.{incr}.incr.aof seq {incr} \
         type i\n"
    )
}

/// Has the file loaded, and compares.
fn assert_loads_the_same(client: &mut Connection, what: &str) {
    let before = digest(client);
    assert_eq!(client.call(&["DEBUG", "LOADAOF"]), "+OK\r\n");
    assert_eq!(digest(client), before, "{what}");
}

#[test]
fn a_rewrite_makes_a_base_and_the_file_goes_on_behind_it() {
    for setup in SETUPS {
        for (preamble, extension) in [("yes", "rdb"), ("no", "aof")] {
            let what = format!("{setup:?} {preamble}");
            let dir = Dir::new("rewrite");
            let mut server = dir.start(setup, &["--aof-use-rdb-preamble", preamble]);
            let mut client = server.connect();
            fill(&mut client);
            let load = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
            assert_eq!(client.call(&["FUNCTION", "LOAD", load]), "$3\r\nlib\r\n");
            assert_eq!(client.call(&["INCR", "before"]), ":1\r\n");
            assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
            assert_eq!(client.call(&["INCR", "before"]), ":2\r\n");
            wait_for_snapshots(&mut client);
            assert_eq!(client.info("persistence", "aof_rewrites"), "1");
            assert_eq!(client.call(&["INCR", "before"]), ":3\r\n");
            assert_eq!(dir.read(MANIFEST), manifest(2, extension, 2), "{what}");
            assert_eq!(fs::read_dir(dir.path("appendonlydir")).expect("it is there").count(), 3);
            assert_eq!(fs::read_dir(&dir.0).expect("it is there").count(), 1, "nothing is left beside it");
            assert_loads_the_same(&mut client, &what);
            assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
            wait_for_snapshots(&mut client);
            assert_eq!(dir.read(MANIFEST), manifest(3, extension, 3), "{what}");
            assert_eq!(client.call(&["INCR", "before"]), ":4\r\n");
            let before = digest(&mut client);
            client.send(b"SHUTDOWN\r\n");
            assert_eq!(server.wait(), Some(0));

            let port = free_port();
            if let Some(mut redis) = start_redis(&dir, port) {
                let mut client = Connection::to(port);
                assert_eq!(digest(&mut client), before, "{what}: in Redis");
                assert_eq!(client.call(&["FCALL", "f", "0"]), ":1\r\n");
                let pending = client.call(&["XPENDING", "stream", "group"]);
                assert!(pending.contains("alice") && pending.contains("bob"), "{pending}");
                client.send(b"SHUTDOWN\r\n");
                redis.wait().expect("it ends");
            }
            let server = dir.start(setup, &["--aof-use-rdb-preamble", preamble]);
            let mut client = server.connect();
            assert_eq!(digest(&mut client), before, "{what}: after a restart");
            assert_eq!(client.call(&["FCALL", "f", "0"]), ":1\r\n");
        }
    }
}

/// Increments counters until it is told to stop, by single commands, transactions and scripts over several shards.
fn count_until(client: &mut Connection, name: usize, stops: &AtomicBool) {
    let key = |n: usize| format!("count:{name}:{n}");
    let mut n = 0;
    while !stops.load(Ordering::Relaxed) {
        n = (n + 1) % 40;
        match n % 4 {
            0 => drop(client.call(&["INCR", &key(n)])),
            1 => {
                let script = "redis.call('INCR', KEYS[1]) return redis.call('RPUSH', KEYS[2], 'x')";
                drop(client.call(&["EVAL", script, "2", &key(n), &format!("list:{name}:{n}")]));
            }
            2 => drop(client.call(&["RENAME", &key(n + 1), &key(n + 1)])),
            _ => {
                client.call(&["MULTI"]);
                client.call(&["INCR", &key(n)]);
                client.call(&["INCR", &key(n - 2)]);
                client.call(&["APPEND", &format!("text:{name}"), "x"]);
                client.call(&["EXEC"]);
            }
        }
    }
}

/// The barrier is an exact position of the stream: increments that were in both, base and file, or in none, would show.
#[test]
fn base_and_file_have_every_unit_once_while_clients_write() {
    for setup in SETUPS {
        for preamble in ["yes", "no"] {
            let dir = Dir::new("exact");
            let server = dir.start(setup, &["--aof-use-rdb-preamble", preamble]);
            let mut client = server.connect();
            assert_eq!(client.call(&["DEBUG", "POPULATE", "3000"]), "+OK\r\n");
            let stops = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for name in 0..3 {
                    let mut writer = server.connect();
                    let stops = &stops;
                    scope.spawn(move || count_until(&mut writer, name, stops));
                }
                for _ in 0..6 {
                    assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
                    wait_for_snapshots(&mut client);
                }
                stops.store(true, Ordering::Relaxed);
            });
            assert_loads_the_same(&mut client, &format!("{setup:?} {preamble}"));
        }
    }
}

#[test]
fn the_file_is_turned_on_and_off_while_the_server_runs() {
    for setup in SETUPS {
        let dir = Dir::new("switch");
        let mut server = dir.start(setup, &["--appendonly", "no"]);
        let mut client = server.connect();
        fill(&mut client);
        for round in 1..4 {
            assert_eq!(client.call(&["CONFIG", "SET", "appendonly", "yes"]), "+OK\r\n");
            assert_eq!(client.info("persistence", "aof_enabled"), "1");
            assert_eq!(client.call(&["INCR", "n"]), format!(":{}\r\n", round * 2 - 1));
            wait_for_snapshots(&mut client);
            assert_eq!(dir.read(MANIFEST), manifest(round, "rdb", round), "{setup:?}");
            assert_loads_the_same(&mut client, &format!("{setup:?} {round}"));
            assert_eq!(client.call(&["CONFIG", "SET", "appendonly", "no"]), "+OK\r\n");
            assert_eq!(client.call(&["INCR", "n"]), format!(":{}\r\n", round * 2));
        }
        // Without the file a rewrite makes a base alone.
        assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
        wait_for_snapshots(&mut client);
        assert_eq!(dir.read(MANIFEST), "file appendonly.aof.4.base.rdb seq 4 type b\n");
        assert_loads_the_same(&mut client, &format!("{setup:?}: a base alone"));

        // While the first base is written, nothing could be loaded.
        assert_eq!(client.call(&["CONFIG", "SET", "rdb-key-save-delay", "10000000"]), "+OK\r\n");
        assert_eq!(client.call(&["CONFIG", "SET", "appendonly", "yes"]), "+OK\r\n");
        assert_eq!(client.call(&["SHUTDOWN"]), "-ERR Errors trying to SHUTDOWN. Check logs.\r\n");
        wait_until("it is under way", || client.info("persistence", "current_save_keys_total") != "0");
        assert_eq!(client.info("persistence", "aof_rewrite_in_progress"), "1");
        assert_eq!(client.call(&["CONFIG", "SET", "appendonly", "no"]), "+OK\r\n");
        wait_for_snapshots(&mut client);
        assert_eq!(fs::read_dir(dir.path("appendonlydir")).expect("it is there").count(), 2, "{setup:?}");
        client.send(b"SHUTDOWN NOSAVE\r\n");
        assert_eq!(server.wait(), Some(0));
        assert_eq!(fs::read_dir(&dir.0).expect("it is there").count(), 1, "{setup:?}");
    }
}

#[test]
fn a_rewrite_is_scheduled_behind_a_save_and_in_an_exec() {
    for setup in SETUPS {
        let dir = Dir::new("scheduled");
        let server = dir.start(setup, &["--save", "", "--rdb-key-save-delay", "1000"]);
        let mut client = server.connect();
        assert_eq!(client.call(&["DEBUG", "POPULATE", "300"]), "+OK\r\n");
        let scheduled = "+Background append only file rewriting scheduled\r\n";
        assert_eq!(client.call(&["BGSAVE"]), "+Background saving started\r\n");
        assert_eq!(client.call(&["BGREWRITEAOF"]), scheduled);
        assert_eq!(client.info("persistence", "aof_rewrite_scheduled"), "1");
        wait_for_snapshots(&mut client);
        assert_eq!(dir.read(MANIFEST), manifest(2, "rdb", 2));

        assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
        let in_progress = "-ERR Background append only file rewriting already in progress\r\n";
        assert_eq!(client.call(&["BGREWRITEAOF"]), in_progress);
        assert!(client.call(&["BGSAVE"]).starts_with("-ERR Another child process is active (AOF?)"));
        assert_eq!(client.call(&["BGSAVE", "SCHEDULE"]), "+Background saving scheduled\r\n");
        wait_until("the save has been", || client.info("persistence", "rdb_saves") == "2");
        wait_for_snapshots(&mut client);

        client.call(&["MULTI"]);
        client.call(&["INCR", "n"]);
        client.call(&["BGREWRITEAOF"]);
        client.call(&["INCR", "n"]);
        assert_eq!(client.call(&["EXEC"]), format!("*3\r\n:1\r\n{scheduled}:2\r\n"));
        wait_for_snapshots(&mut client);
        assert_eq!(dir.read(MANIFEST), manifest(4, "rdb", 4));
        assert_loads_the_same(&mut client, &format!("{setup:?}"));
    }
}

#[test]
fn a_file_that_has_grown_is_rewritten_and_history_is_kept_if_that_is_configured() {
    for setup in SETUPS {
        let dir = Dir::new("growth");
        let server = dir.start(
            setup,
            &[
                "--auto-aof-rewrite-percentage",
                "100",
                "--auto-aof-rewrite-min-size",
                "20kb",
                "--aof-disable-auto-gc",
                "yes",
            ],
        );
        let mut client = server.connect();
        let value = "x".repeat(1000);
        for _ in 0..30 {
            assert_eq!(client.call(&["SET", "key", &value]), "+OK\r\n");
        }
        wait_until("it is rewritten", || client.info("persistence", "aof_rewrites") != "0");
        wait_for_snapshots(&mut client);
        let listed = dir.read(MANIFEST);
        assert!(listed.contains("file appendonly.aof.1.incr.aof seq 1 type h\n"), "{listed}");
        assert!(dir.path("appendonlydir/appendonly.aof.1.incr.aof").exists());
        assert_eq!(client.call(&["CONFIG", "SET", "aof-disable-auto-gc", "no"]), "+OK\r\n");
        assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
        wait_for_snapshots(&mut client);
        assert!(!dir.read(MANIFEST).contains("type h"), "{setup:?}");
        assert_eq!(fs::read_dir(dir.path("appendonlydir")).expect("it is there").count(), 3);
        let size: u64 = client.info("persistence", "aof_current_size").parse().expect("a number");
        assert!(size < 20_000, "{size}");
    }
}

#[test]
fn a_rewrite_that_fails_is_reported_and_nothing_is_lost() {
    for setup in SETUPS {
        let dir = Dir::new("failing");
        let server = dir.start(setup, &["--rdb-key-save-delay", "10000000"]);
        let mut client = server.connect();
        assert_eq!(client.call(&["SET", "a", "1"]), "+OK\r\n");
        assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
        // Loading ends a rewrite, which has changed nothing then.
        assert_loads_the_same(&mut client, &format!("{setup:?}"));
        wait_for_snapshots(&mut client);

        let temporary = dir.path(&format!("appendonlydir/temp-rewriteaof-bg-{}.aof", server.pid()));
        fs::create_dir_all(temporary.join("in its way")).expect("it can be made");
        assert_eq!(client.call(&["CONFIG", "SET", "rdb-key-save-delay", "0"]), "+OK\r\n");
        assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
        wait_until("it has failed", || client.info("persistence", "aof_last_bgrewrite_status") == "err");
        assert_eq!(client.info("persistence", "aof_rewrites_consecutive_failures"), "1");
        assert_eq!(client.call(&["SET", "b", "1"]), "+OK\r\n");
        assert_loads_the_same(&mut client, &format!("{setup:?}"));
        fs::remove_dir_all(&temporary).expect("it is there");
        assert_eq!(client.call(&["BGREWRITEAOF"]), STARTED);
        wait_for_snapshots(&mut client);
        assert_loads_the_same(&mut client, &format!("{setup:?}"));
    }
}
