//! The append-only file: what was acknowledged is there after any end of the process, files that are cut off or damaged
//! are treated as configured, and directories go both ways between this server and Redis.

use crate::harness::{Connection, PATIENCE, SETUPS, Server, Setup, encode, free_port, wait_until};
use crate::rdb::{digest, fill};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A working directory that goes when it is dropped.
pub struct Dir(pub PathBuf);

pub const MANIFEST: &str = "appendonlydir/appendonly.aof.manifest";
const BASE: &str = "appendonlydir/appendonly.aof.1.base.rdb";
const INCR: &str = "appendonlydir/appendonly.aof.1.incr.aof";

impl Dir {
    pub fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("shardis-aof-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("appendonlydir")).expect("a place for files");
        Dir(path)
    }

    pub fn start(&self, setup: Setup, extra: &[&str]) -> Server {
        Server::start_with(setup, &self.args(extra))
    }

    fn args<'a>(&'a self, extra: &[&'a str]) -> Vec<&'a str> {
        let dir = self.0.to_str().expect("a plain path");
        [&["--dir", dir, "--appendonly", "yes"], extra].concat()
    }

    /// Starts a server that does not come up, and waits for this line of its log.
    fn start_in_vain(&self, setup: Setup, line: &str, extra: &[&str]) -> String {
        let mut server = Server::spawn(setup, free_port(), &self.args(extra));
        let found = server.wait_for_line(line);
        assert_eq!(server.wait(), Some(1), "{found}");
        found
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("it can be written");
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).expect("it is there")).into_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn commands(commands: &[&[&str]]) -> Vec<u8> {
    let encoded =
        commands.iter().map(|args| encode(&args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>()));
    encoded.flatten().collect()
}

#[test]
fn what_was_written_is_there_after_a_restart_with_any_number_of_shards() {
    for (setup, next) in SETUPS.into_iter().zip(SETUPS.into_iter().rev()) {
        let dir = Dir::new("restart");
        let before = {
            let mut server = dir.start(setup, &[]);
            let mut client = server.connect();
            fill(&mut client);
            assert!(
                client.call(&["EVAL", "return redis.call('INCR', KEYS[1])", "1", "script"]).starts_with(':')
            );
            assert_eq!(client.call(&["RENAME", "text", "renamed"]), "+OK\r\n");
            // What it is trimmed to depends on its nodes. The file has the exact length, and still the LIMIT.
            assert_eq!(client.call(&["CONFIG", "SET", "stream-node-max-entries", "10"]), "+OK\r\n");
            for _ in 0..30 {
                client.call(&["XADD", "trimmed", "*", "field", "value"]);
            }
            client.call(&["XADD", "trimmed", "MAXLEN", "~", "5", "LIMIT", "10", "*", "field", "value"]);
            assert_eq!(client.call(&["XLEN", "trimmed"]), ":21\r\n");
            assert_eq!(client.call(&["MULTI"]), "+OK\r\n");
            for key in ["a", "b", "c", "d"] {
                assert_eq!(client.call(&["INCR", key]), "+QUEUED\r\n");
            }
            assert!(client.call(&["EXEC"]).starts_with("*4"));
            let load = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
            assert_eq!(client.call(&["FUNCTION", "LOAD", load]), "$3\r\nlib\r\n");
            let before = digest(&mut client);
            client.send(b"SHUTDOWN\r\n");
            assert_eq!(server.wait(), Some(0));
            before
        };
        assert_eq!(
            dir.read(MANIFEST),
            "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
        );
        let server = dir.start(next, &[]);
        let mut client = server.connect();
        assert_eq!(digest(&mut client), before, "{setup:?}");
        assert_eq!(client.call(&["FCALL", "f", "0"]), ":1\r\n");
        assert_eq!(client.info("persistence", "aof_enabled"), "1");
        assert_eq!(client.info("persistence", "rdb_changes_since_last_save"), "0");
        let size: u64 = client.info("persistence", "aof_current_size").parse().expect("a number");
        assert_eq!(
            size,
            [BASE, INCR].map(|name| fs::metadata(dir.path(name)).expect("it is there").len()).iter().sum()
        );
        assert_eq!(client.call(&["SET", "new", "v"]), "+OK\r\n");
        let before = digest(&mut client);
        assert_eq!(client.call(&["DEBUG", "LOADAOF"]), "+OK\r\n");
        assert_eq!(digest(&mut client), before, "{next:?}");
        assert_eq!(client.call(&["SET", "newer", "v"]), "+OK\r\n");
        wait_until("the file has it", || dir.read(INCR).contains("newer"));
    }
}

#[test]
fn debug_loadaof_without_an_append_only_file_is_an_error_that_changes_nothing() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        assert_eq!(client.call(&["SET", "key", "value"]), "+OK\r\n");
        assert_eq!(client.call(&["DEBUG", "LOADAOF"]), "-ERR There is no append-only file\r\n");
        assert_eq!(client.call(&["GET", "key"]), "$5\r\nvalue\r\n", "{setup:?}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_loaded_up_to_there_if_that_is_configured() {
    let incr = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    let whole = commands(&[&["SELECT", "0"], &["INCR", "n"], &["INCR", "n"]]);
    let half = commands(&[&["MULTI"], &["INCR", "n"], &["SET", "k", "v"]]);
    for setup in [SETUPS[0], SETUPS[1]] {
        for rest in [&half[..], &commands(&[&["INCR", "n"]])[..20]] {
            let dir = Dir::new("cut");
            dir.write(MANIFEST, incr.as_bytes());
            dir.write(INCR, &[&whole[..], rest].concat());
            let line = dir.start_in_vain(setup, "Unexpected end of file", &["--aof-load-truncated", "no"]);
            assert!(
                line.contains(&format!("{} at offset {}", "appendonly.aof.1.incr.aof", whole.len())),
                "{line}"
            );
            {
                let mut server = dir.start(setup, &[]);
                let mut client = server.connect();
                assert_eq!(client.call(&["GET", "n"]), "$1\r\n2\r\n");
                assert_eq!(client.call(&["EXISTS", "k"]), ":0\r\n");
                assert_eq!(client.call(&["INCR", "n"]), ":3\r\n");
                client.send(b"SHUTDOWN\r\n");
                assert_eq!(server.wait(), Some(0));
            }
            let server = dir.start(setup, &["--aof-load-truncated", "no"]);
            assert_eq!(
                server.connect().call(&["GET", "n"]),
                "$1\r\n3\r\n",
                "it goes on behind what was whole"
            );
        }
    }
}

#[test]
fn what_cannot_be_loaded_is_named_and_the_server_does_not_start() {
    let setup = SETUPS[1];
    let incr = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    let set = commands(&[&["SET", "a", "1"]]);
    let bad = [&set[..], b"!!!", &set[..]].concat();
    let unknown = commands(&[&["BLA", "a", "1"]]);
    for (manifest, bytes, line) in [
        (incr, &bad[..], format!("appendonly.aof.1.incr.aof at offset {}", set.len())),
        (
            incr,
            &unknown[..],
            "Unknown command 'BLA' reading the append only file appendonly.aof.1.incr.aof".into(),
        ),
        ("", &set[..], "Found an empty AOF manifest".into()),
        (
            "file x seq 1 type b\n",
            &set[..],
            "the append log file x for reading: No such file or directory".into(),
        ),
    ] {
        let dir = Dir::new("bad");
        dir.write(MANIFEST, manifest.as_bytes());
        dir.write(INCR, bytes);
        dir.start_in_vain(setup, &line, &[]);
        assert_eq!(fs::read(dir.path(INCR)).expect("it is there"), bytes, "nothing was changed");
    }
    let dir = Dir::new("bad-first");
    let manifest = format!("file appendonly.aof.1.base.aof seq 1 type b\n{incr}");
    dir.write(MANIFEST, manifest.as_bytes());
    dir.write("appendonlydir/appendonly.aof.1.base.aof", &set[..set.len() - 1]);
    dir.write(INCR, &set);
    dir.start_in_vain(setup, "appendonly.aof.1.base.aof is not the last file", &[]);
}

#[test]
fn limits_and_times_of_the_present_do_not_apply_to_what_is_loaded() {
    let long = "x".repeat(3 << 20);
    let commands = commands(&[
        &["SELECT", "0"],
        // Its time is up by the base, but not by what follows.
        &["PEXPIREAT", "key", "9999999999999"],
        &["SET", "long", &long],
        &["APPEND", "long", &long],
        &["MULTI"],
        &["SET", "first", &long],
        &["SET", "second", &long],
        &["EXEC"],
    ]);
    for setup in SETUPS {
        let dir = Dir::new("limits");
        {
            let server =
                Server::start_with(setup, &["--dir", dir.0.to_str().expect("a plain path"), "--save", ""]);
            let mut client = server.connect();
            assert_eq!(client.call(&["SET", "key", "v", "PX", "200"]), "+OK\r\n");
            assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
            wait_until("the time is up", || client.call(&["EXISTS", "key"]) == ":0\r\n");
        }
        fs::rename(dir.path("dump.rdb"), dir.path(BASE)).expect("it was saved");
        dir.write(INCR, &commands);
        dir.write(
            MANIFEST,
            b"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n",
        );
        let limits =
            ["--proto-max-bulk-len", "1mb", "--client-query-buffer-limit", "1mb", "--maxmemory", "1mb"];
        let server = dir.start(setup, &limits);
        let mut client = server.connect();
        wait_until("it is loaded", || client.info("persistence", "loading") == "0");
        assert_eq!(client.call(&["GET", "key"]), "$1\r\nv\r\n", "{setup:?}");
        let len = long.len();
        for (key, len) in [("long", 2 * len), ("first", len), ("second", len)] {
            assert_eq!(client.call(&["STRLEN", key]), format!(":{len}\r\n"), "{setup:?}");
        }
    }
}

#[test]
fn a_single_file_of_redis_6_is_taken_over() {
    let dir = Dir::new("old");
    fs::remove_dir(dir.path("appendonlydir")).expect("it is empty");
    // Verbatim scripts and keys whose time was up are in files of old servers.
    let script = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])";
    let old = commands(&[
        &["SELECT", "3"],
        &["RPUSH", "list", "foo"],
        &["PEXPIREAT", "list", "1000"],
        &["RPUSH", "list", "bar"],
        &["EVAL", script, "2", "k1", "k2", "v"],
        &["MSET", "a", "1", "b", "2", "c", "3"],
    ]);
    dir.write("appendonly.aof", &old);
    for setup in SETUPS {
        let mut server = dir.start(setup, &[]);
        let mut client = server.connect();
        client.call(&["SELECT", "3"]);
        assert_eq!(
            client.call(&["MGET", "k1", "k2", "a", "c"]),
            "*4\r\n$1\r\nv\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n3\r\n"
        );
        assert_eq!(client.call(&["EXISTS", "list"]), ":0\r\n");
        client.send(b"SHUTDOWN\r\n");
        assert_eq!(server.wait(), Some(0));
    }
    assert!(!dir.path("appendonly.aof").exists());
    let manifest = "file appendonly.aof seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";
    assert_eq!(dir.read(MANIFEST), manifest);
}

#[test]
fn commands_are_refused_while_a_file_is_loaded_and_progress_is_shown() {
    let dir = Dir::new("loading");
    dir.write(MANIFEST, b"file appendonly.aof.1.incr.aof seq 1 type i\n");
    let mut bytes = Vec::new();
    for n in 0..2000 {
        bytes.extend_from_slice(&commands(&[&["SET", &format!("key{n}"), "v"]]));
    }
    dir.write(INCR, &bytes);
    let port = free_port();
    let setup = SETUPS[1];
    let mut server = Server::spawn(setup, port, &dir.args(&["--key-load-delay", "1000"]));
    server.wait_for_line("Shards: 3");
    let mut client = Connection::to(port);
    assert!(client.call(&["GET", "key1"]).starts_with("-LOADING"));
    assert!(client.call(&["PING"]).starts_with("-LOADING"));
    assert!(client.call(&["CONFIG", "SET", "appendonly", "no"]).starts_with("-LOADING"));
    assert_eq!(client.call(&["CONFIG", "SET", "loglevel", "notice"]), "+OK\r\n");
    assert_eq!(client.info("persistence", "loading"), "1");
    assert_eq!(client.info("persistence", "loading_total_bytes"), bytes.len().to_string());
    assert_eq!(client.call(&["CLIENT", "LIST"]).lines().filter(|line| line.starts_with("id=")).count(), 1);
    server.wait_for_line("Ready to accept");
    assert_eq!(client.call(&["DBSIZE"]), ":2000\r\n");
    assert_eq!(client.info("stats", "total_connections_received"), "0", "counts begin when it is loaded");
    assert_eq!(client.info("clients", "connected_clients"), "1");
}

/// A server of Redis 7.0 with this directory, if there is one on this machine.
pub fn start_redis(dir: &Dir, port: u16) -> Option<std::process::Child> {
    let binary = Path::new("/usr/bin/redis-server");
    let version = Command::new(binary).arg("--version").output().ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains("v=7.0.") {
        return None;
    }
    let child = Command::new(binary)
        .args(["--port", &port.to_string(), "--save", "", "--enable-debug-command", "yes"])
        .args(dir.args(&[]))
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            && Connection::to(port).call(&["PING"]) == "+PONG\r\n"
        {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("redis-server does not start");
}

#[test]
fn directories_go_to_redis_and_come_back() {
    for (setup, preamble) in [(SETUPS[0], "yes"), (SETUPS[1], "no"), (SETUPS[1], "yes")] {
        let dir = Dir::new("exchange");
        let ours = {
            let mut server = dir.start(setup, &["--aof-use-rdb-preamble", preamble]);
            let mut client = server.connect();
            fill(&mut client);
            let load = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
            client.call(&["FUNCTION", "LOAD", load]);
            client.call(&["RENAME", "text", "renamed"]);
            client.call(&["SPOP", "set:big", "3"]);
            let ours = digest(&mut client);
            client.send(b"SHUTDOWN\r\n");
            assert_eq!(server.wait(), Some(0));
            ours
        };
        let checked = Command::new("/usr/bin/redis-check-aof").arg(dir.path(MANIFEST)).output();
        let port = free_port();
        let Some(mut redis) = start_redis(&dir, port) else { return };
        let said = checked.expect("it comes with the server").stdout;
        assert!(String::from_utf8_lossy(&said).contains("All AOF files and manifest are valid"));
        let mut client = Connection::to(port);
        assert_eq!(client.call(&["DEBUG", "DIGEST"]), ours, "{setup:?} {preamble}");
        client.call(&["LPUSH", "list:big", "of redis"]);
        client.call(&["BGREWRITEAOF"]);
        wait_until("its rewrite ends", || client.info("persistence", "aof_rewrite_in_progress") == "0");
        client.call(&["SET", "theirs", "v"]);
        client.call(&["EVAL", "redis.call('INCR', KEYS[1]) redis.call('INCR', KEYS[2])", "2", "x", "y"]);
        let theirs = client.call(&["DEBUG", "DIGEST"]);
        client.send(b"SHUTDOWN\r\n");
        redis.wait().expect("it ends");
        let server = dir.start(setup, &[]);
        let mut client = server.connect();
        assert_eq!(digest(&mut client), theirs, "{setup:?} {preamble}");
        assert_eq!(client.call(&["FCALL", "f", "0"]), ":1\r\n");
    }
}

/// The writer waits before each write, so whoever is told of a change too early finds that the file does not have it.
#[test]
fn with_always_nobody_is_told_of_a_change_that_is_not_in_the_file() {
    for setup in SETUPS {
        let dir = Dir::new("readers");
        let server = dir.start(setup, &["--appendfsync", "always"]);
        let (mut writer, mut reader, mut blocked) = (server.connect(), server.connect(), server.connect());
        assert_eq!(writer.call(&["DEBUG", "AOF-FLUSH-SLEEP", "20000"]), "+OK\r\n");
        for n in 0..10 {
            let (key, other) = (format!("key{n}"), format!("other{n}"));
            let value = format!("value-{n}");
            blocked.request(&[b"BLPOP", format!("list{n}").as_bytes(), b"0"]);
            writer.request(&[b"SET", key.as_bytes(), value.as_bytes()]);
            writer.request(&[b"MSET", other.as_bytes(), value.as_bytes(), b"last", value.as_bytes()]);
            wait_until("the reader sees it", || {
                reader.call(&["MGET", &other, &key]).matches(&value).count() == 2
            });
            assert!(dir.read(INCR).matches(&value).count() >= 3, "{setup:?}: a reader was told too early");
            writer.request(&[b"RPUSH", format!("list{n}").as_bytes(), b"element"]);
            assert!(blocked.reply().ends_with(b"element\r\n"));
            let served = format!("list{n}\r\n");
            assert!(
                dir.read(INCR).matches(&served).count() >= 1,
                "{setup:?}: a blocked client was told too early"
            );
            (0..3).for_each(|_| drop(writer.reply()));
        }
    }
}
