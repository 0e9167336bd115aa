//! What happens in the server, as C modules are told of it: `events.c`.

use super::waits::{reply, request};
use super::{KEYS, compiled, expect};
use crate::harness::{Connection, SETUPS, Server, Setup, wait_until};
use crate::rdb::Dir;

#[test]
fn a_module_is_told_of_flushes_swaps_saves_modules_clients_and_time() {
    let (path, other) = (compiled("events", "told"), compiled("probe", "told"));
    let (path, other) = (path.to_str().expect("a path in UTF-8"), other.to_str().expect("a path in UTF-8"));
    let dir = std::env::temp_dir().join(format!("shardis-told-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("it can be made");
    for setup in SETUPS {
        let dir = dir.to_str().expect("a path in UTF-8");
        let server = Server::start_with(
            setup,
            &[
                "--enable-module-command",
                "yes",
                "--loadmodule",
                path,
                "--dir",
                dir,
                "--enable-debug-command",
                "yes",
            ],
        );
        let mut client = server.connect();
        // The file of the setup before was loaded.
        client.call(&["TOLD"]);
        for (command, noted) in [
            (&["FLUSHALL"][..], "flush(-1,1) flushed(-1,1) "),
            (&["FLUSHALL", "NONSENSE"], ""),
            (&["FLUSHDB", "ASYNC"], "flush(0,0) flushed(0,0) "),
            (&["SWAPDB", "0", "1"], "swap(0,1) "),
            (&["SWAPDB", "0", "99"], ""),
            (&["SAVE"], "save(2,0) save(3,0) "),
            (&["DEBUG", "RELOAD"], "save(2,0) save(3,0) load(0,0) load(3,0) "),
            (&["MODULE", "LOAD", other], "probe(3,0) "),
            (&["MODULE", "UNLOAD", "probe"], "probe(3,1) "),
        ] {
            let refused = command.contains(&"NONSENSE") || command.contains(&"99");
            assert_eq!(client.call(command).starts_with('-'), refused, "{command:?}");
            expect(&mut client, &["TOLD"], &format!("+{noted}\r\n"));
        }
        expect(&mut client, &["MULTI"], "+OK\r\n");
        expect(&mut client, &["FLUSHDB"], "+QUEUED\r\n");
        expect(&mut client, &["TOLD"], "+QUEUED\r\n");
        expect(&mut client, &["EXEC"], "*2\r\n+OK\r\n+flush(0,1) flushed(0,1) \r\n");
        expect(&mut client, &["EVAL", "return redis.call('FLUSHALL', 'ASYNC')", "0"], "+OK\r\n");
        expect(&mut client, &["TOLD"], "+flush(-1,0) flushed(-1,0) \r\n");

        // It is told each 2 MB.
        client.call(&["CONFIG", "SET", "rdbcompression", "no"]);
        for key in ["1", "2", "3"] {
            expect(&mut client, &["SET", key, &"x".repeat(1 << 20)], "+OK\r\n");
        }
        expect(&mut client, &["SAVE"], "+OK\r\n");
        expect(&mut client, &["DEBUG", "RELOAD", "NOSAVE"], "+OK\r\n");
        expect(&mut client, &["TOLD.COUNT", "progressed"], ":1\r\n");
        client.call(&["FLUSHALL"]);
        client.call(&["TOLD"]);

        client.call(&["BGSAVE"]);
        wait_until("it is saved", || client.info("persistence", "rdb_bgsave_in_progress") == "0");
        wait_until("it is told", || client.call(&["TOLD"]).ends_with("save(3,0) \r\n"));

        drop(server.connect());
        for what in ["connected", "disconnected", "cron"] {
            wait_until(what, || client.call(&["TOLD.COUNT", what]) != ":0\r\n");
        }
        // A command that has become a program is counted once, and its error, too.
        client.call(&["CONFIG", "RESETSTAT"]);
        expect(&mut client, &["SWAPDB", "0", "99"], "-ERR DB index is out of range\r\n");
        let counts = client.info("commandstats", "cmdstat_swapdb");
        assert!(counts.starts_with("calls=1,") && counts.trim_end().ends_with("failed_calls=1"), "{counts}");
        assert_eq!(client.info("errorstats", "errorstat_ERR").trim(), "count=1");
    }
    std::fs::remove_dir_all(dir).expect("it can be removed");
}

#[test]
fn what_a_module_has_done_to_keys_is_told_before_its_call_returns() {
    let path = compiled("events", "within");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--loadmodule", path]);
        let mut client = server.connect();
        for (at, key) in (1..).zip(KEYS) {
            let expected = format!("*2\r\n$1\r\n{at}\r\n$1\r\n{at}\r\n");
            assert_eq!(client.call(&["TOLD.WITHIN", key]), expected, "{setup:?}");
        }
        expect(&mut client, &["MULTI"], "+OK\r\n");
        expect(&mut client, &["TOLD.WITHIN", KEYS[0]], "+QUEUED\r\n");
        expect(&mut client, &["EXEC"], "*1\r\n*2\r\n$1\r\n4\r\n$1\r\n4\r\n");
        // What a client does itself is told before it has the reply.
        expect(&mut client, &["SET", KEYS[2], "2"], "+OK\r\n");
        wait_until("it is noted", || client.call(&["GET", "noted:changed"]) == "$1\r\n5\r\n");
    }
}

/// A thread of a module has the lock. Commands that need a callback of a type wait for it, and stop no shard. Others do not wait,
/// even if they change a key whose bucket has a value of the module that a background save has not come to, or that key.
#[test]
fn commands_over_a_modules_values_wait_for_its_lock_and_others_go_on() {
    let (values, waits) = (compiled("values", "guarded"), compiled("waits", "guarded"));
    let (values, waits) =
        (values.to_str().expect("a path in UTF-8"), waits.to_str().expect("a path in UTF-8"));
    let dir = std::env::temp_dir().join(format!("shardis-guarded-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("it can be made");
    let options =
        ["--loadmodule", values, "--loadmodule", waits, "--dir", dir.to_str().expect("a path in UTF-8")];
    for setup in ["epoll", "uring"].map(|io_backend| Setup { shards: 3, io_backend }) {
        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        let numbers: Vec<String> = (0..60).map(|n| format!("numbers:{n}")).collect();
        for key in KEYS.into_iter().chain(numbers.iter().map(String::as_str)) {
            expect(&mut client, &["SEQ.ADD", key, "7"], ":1\r\n");
        }
        // It has not come to the values when the thread takes the lock.
        expect(&mut client, &["CONFIG", "SET", "rdb-key-save-delay", "200000"], "+OK\r\n");
        expect(&mut client, &["BGSAVE"], "+Background saving started\r\n");
        let until = dir.join("until");
        let begun = until.with_extension("begun");
        let mut working = server.connect();
        request(&mut working, &["WAIT.WORK", "n", "0", until.to_str().expect("a path in UTF-8")]);
        wait_until("the thread has the lock", || begun.exists());

        let [a, b, c] = KEYS;
        let commands = [&["DUMP", a][..], &["COPY", b, "copy"], &["MEMORY", "USAGE", c]];
        let mut waiting: Vec<_> = commands.map(|command| (server.connect(), command)).into_iter().collect();
        for (connection, command) in &mut waiting {
            request(connection, command);
        }
        // Some of these share a bucket with a value.
        for n in 0..2000 {
            expect(&mut client, &["SET", &format!("plain:{n}"), "1"], "+OK\r\n");
        }
        for (n, key) in numbers.iter().enumerate() {
            match n % 3 {
                0 => expect(&mut client, &["DEL", key], ":1\r\n"),
                1 => expect(&mut client, &["RENAME", key, &format!("renamed:{n}")], "+OK\r\n"),
                _ => expect(&mut client, &["EXPIRE", key, "1000"], ":1\r\n"),
            }
        }
        assert_eq!(client.info("clients", "blocked_clients"), "1", "the thread still has the lock");
        assert_eq!(client.info("persistence", "rdb_bgsave_in_progress"), "1");
        std::fs::write(&until, "").expect("the file can be written");
        assert_eq!(reply(&mut working), ":2\r\n");
        for (connection, command) in &mut waiting {
            let reply = connection.reply();
            let is_good = !reply.starts_with(b"-") && reply != b"$-1\r\n";
            assert!(is_good, "{command:?}: {}", reply.escape_ascii());
        }
        // What a module changes while the save has not come to it.
        expect(&mut client, &["SEQ.ADD", a, "8"], ":2\r\n");
        expect(&mut client, &["CONFIG", "SET", "rdb-key-save-delay", "0"], "+OK\r\n");
        wait_until("it is saved", || client.info("persistence", "rdb_bgsave_in_progress") == "0");
        assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "ok");
        drop(client);
        drop(server);

        // The file has the values of the beginning.
        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        expect(&mut client, &["DBSIZE"], &format!(":{}\r\n", KEYS.len() + numbers.len()));
        for key in KEYS.into_iter().chain(numbers.iter().map(String::as_str)) {
            expect(&mut client, &["SEQ.SUM", key], ":7\r\n");
            expect(&mut client, &["TTL", key], ":-1\r\n");
        }
        expect(&mut client, &["SAVE"], "+OK\r\n");
        expect(&mut client, &["FLUSHALL"], "+OK\r\n");
        expect(&mut client, &["DBSIZE"], ":0\r\n");
        drop(server);
        std::fs::remove_dir_all(&dir).expect("it can be removed");
        std::fs::create_dir_all(&dir).expect("it can be made");
    }
    std::fs::remove_dir_all(dir).expect("it can be removed");
}

#[test]
fn a_module_is_told_of_masters_and_replicas() {
    let path = compiled("events", "replicas");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dirs = ["master", "replica"]
            .map(|name| Dir::new(&format!("told-{name}-{}-{}", setup.shards, setup.io_backend)));
        let start = |dir: &Dir| dir.start(setup, &["--loadmodule", path, "--repl-diskless-sync-delay", "0"]);
        let servers = [start(&dirs[0]), start(&dirs[1])];
        let [mut master, mut replica] = [servers[0].connect(), servers[1].connect()];
        for client in [&mut master, &mut replica] {
            client.call(&["TOLD"]);
        }
        let wait_for = |client: &mut Connection, what: &str, expected: &str| {
            let mut seen = String::new();
            wait_until(what, || {
                let reply = client.call(&["TOLD"]);
                // While the snapshot is loaded, nothing is told but that.
                let words = reply.strip_prefix('+').unwrap_or_default().split_whitespace();
                // The snapshot for the replica is saved at the same time.
                words.filter(|word| !word.starts_with("save(")).for_each(|word| {
                    seen.push_str(word);
                    seen.push(' ');
                });
                seen.len() >= expected.len()
            });
            assert_eq!(seen, expected, "{setup:?}: {what}");
        };
        let port = servers[0].port.to_string();
        assert_eq!(replica.call(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
        expect(&mut replica, &["TOLD"], "+127.0.0.1(1,0) \r\n");
        wait_for(&mut replica, "the link is up", "load(2,0) load(3,0) link(0,0) ");
        wait_for(&mut master, "the replica is there", "replica(0,0) ");
        assert_eq!(replica.call(&["CLIENT", "KILL", "TYPE", "master"]), ":1\r\n");
        wait_for(&mut replica, "it is up again", "link(1,0) link(0,0) ");
        wait_for(&mut master, "the replica is there again", "replica(1,0) replica(0,0) ");
        assert_eq!(replica.call(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
        expect(&mut replica, &["TOLD"], "+link(1,0) none(0,1) \r\n");
        wait_for(&mut master, "the replica is gone", "replica(1,0) ");
    }
}
