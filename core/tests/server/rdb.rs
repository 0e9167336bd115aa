//! Snapshots: what is saved comes back, what cannot be loaded does not start, and files go both ways between this server
//! and Redis.

use crate::harness::{Connection, SETUPS, Server, Setup, free_port, wait_until};
use crate::random::Random;
use crate::redis::Redis;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory that goes when it is dropped.
pub struct Dir(pub PathBuf);

impl Dir {
    /// Tests that run at the same time may use the same name.
    pub fn new(name: &str) -> Dir {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardis-rdb-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a place for files");
        Dir(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("dump.rdb")
    }

    pub fn start(&self, setup: Setup, extra: &[&str]) -> Server {
        Server::start_with(setup, &[&["--dir", self.path()], extra].concat())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Keys of all types, small and big, in two databases, some with an expiry.
pub fn fill(client: &mut Connection) {
    let expect_ok = |reply: String| assert!(!reply.starts_with('-'), "{reply}");
    let mut call = |args: &[&str]| expect_ok(client.call(args));
    let long = "a long text that repeats; ".repeat(40);
    call(&["MSET", "int", "12", "text", "hello", "long", &long, "", "empty key"]);
    call(&["SETEX", "later", "10000", "v"]);
    call(&["APPEND", "raw", "x"]);
    for n in 0..700 {
        let (name, number) = (format!("name{n}"), n.to_string());
        let key = |kind: &str| format!("{kind}:{}", if n % 100 < 5 { "small" } else { "big" });
        call(&["HSET", &key("hash"), &name, &number]);
        call(&["SADD", &key("set"), &name]);
        call(&["SADD", &key("ints"), &number]);
        call(&["ZADD", &key("zset"), &format!("{n}.25"), &name]);
        call(&["RPUSH", &key("list"), &name, &number]);
        call(&["XADD", "stream", &format!("{}-{n}", n / 7 + 1), "field", &name]);
    }
    call(&["RPUSH", "list:long", &long, &"x".repeat(20_000)]);
    call(&["HSET", "hash:long", "field", &long]);
    call(&["XGROUP", "CREATE", "stream", "group", "3-0"]);
    call(&["XREADGROUP", "GROUP", "group", "alice", "COUNT", "5", "STREAMS", "stream", ">"]);
    call(&["XREADGROUP", "GROUP", "group", "bob", "COUNT", "5", "STREAMS", "stream", ">"]);
    call(&["XDEL", "stream", "1-0"]);
    call(&["SELECT", "9"]);
    call(&["SET", "elsewhere", "v"]);
    call(&["SELECT", "0"]);
}

pub fn digest(client: &mut Connection) -> String {
    client.call(&["DEBUG", "DIGEST"])
}

#[test]
fn what_was_saved_is_there_after_a_restart_with_any_number_of_shards() {
    for (setup, next) in SETUPS.into_iter().zip(SETUPS.into_iter().rev()) {
        let dir = Dir::new("restart");
        let before = {
            let server = dir.start(setup, &[]);
            let mut client = server.connect();
            fill(&mut client);
            assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
            assert_eq!(client.info("persistence", "rdb_changes_since_last_save"), "0");
            assert_eq!(client.info("persistence", "rdb_saves"), "1");
            let saved_at = client.call(&["LASTSAVE"]);
            assert_eq!(saved_at, format!(":{}\r\n", client.info("persistence", "rdb_last_save_time")));
            digest(&mut client)
        };
        let server = dir.start(next, &[]);
        let mut client = server.connect();
        assert_eq!(digest(&mut client), before, "{setup:?}");
        assert_eq!(client.info("persistence", "rdb_changes_since_last_save"), "0");
        let ttl = client.call(&["TTL", "later"]);
        let ttl_s: i64 = ttl[1..].trim_end().parse().expect("a number");
        assert!((9_000..=10_000).contains(&ttl_s), "{ttl_s}");
        assert_eq!(fs::read_dir(&dir.0).expect("it is there").count(), 1, "nothing is left beside the file");
    }
}

#[test]
fn debug_reload_changes_nothing() {
    for setup in SETUPS {
        let dir = Dir::new("reload");
        let server = dir.start(setup, &[]);
        let mut client = server.connect();
        fill(&mut client);
        let before = digest(&mut client);
        assert_eq!(client.call(&["DEBUG", "RELOAD"]), "+OK\r\n");
        assert_eq!(digest(&mut client), before);
        assert_eq!(client.call(&["SET", "new", "v"]), "+OK\r\n");
        assert_eq!(client.call(&["DEBUG", "RELOAD", "NOSAVE"]), "+OK\r\n");
        assert_eq!(digest(&mut client), before, "{setup:?}");
        assert_eq!(client.call(&["SET", "int", "v"]), "+OK\r\n");
        assert_eq!(client.call(&["DEBUG", "RELOAD", "NOSAVE", "NOFLUSH", "MERGE"]), "+OK\r\n");
        assert_eq!(digest(&mut client), before);
        assert!(
            client.call(&["DEBUG", "RELOAD", "NOSAVE", "NOFLUSH"]).starts_with("-ERR Error trying to load")
        );
        assert!(client.call(&["DEBUG", "RELOAD", "FAST"]).starts_with("-ERR DEBUG RELOAD only supports"));
    }
}

/// How a server is told to stop, by a client or a signal.
fn stop(server: &Server, how: &str) {
    match how {
        "SIGTERM" => server.signal(libc::SIGTERM),
        "SIGINT" => server.signal(libc::SIGINT),
        words => server.connect().send(format!("SHUTDOWN {words}\r\n").as_bytes()),
    }
}

#[test]
fn a_server_saves_at_its_end_if_there_are_save_points_or_it_is_told_so() {
    const POINTS: &[&str] = &["--save", "3600 1"];
    for setup in SETUPS {
        for (points, how, saves) in [
            (POINTS, "SIGTERM", true),
            (POINTS, "SIGINT", true),
            (POINTS, "", true),
            (POINTS, "NOSAVE", false),
            (&[], "SAVE", true),
            (&[], "SIGTERM", false),
            (&[], "", false),
        ] {
            let dir = Dir::new("end");
            let mut server = dir.start(setup, points);
            assert_eq!(server.connect().call(&["MSET", "a", "1", "b", "2", "c", "3"]), "+OK\r\n");
            stop(&server, how);
            server.wait_for_line("ready to exit, bye bye");
            assert_eq!(server.wait(), Some(0));
            assert_eq!(dir.file().exists(), saves, "{setup:?} {points:?} {how}");
        }
    }
}

#[test]
fn what_was_acknowledged_is_saved_when_the_server_ends_under_load() {
    for setup in SETUPS {
        let dir = Dir::new("load");
        let mut server = dir.start(setup, &["--save", "3600 1"]);
        let port = server.port;
        let clients: Vec<_> = (0..4)
            .map(|n| {
                std::thread::spawn(move || {
                    let mut client = Connection::to(port);
                    let (a, b) = (format!("a{n}"), format!("b{n}"));
                    for round in 1.. {
                        let value = round.to_string();
                        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                            client.call(&["MSET", &a, &value, &b, &value])
                        }));
                        if !outcome.is_ok_and(|reply| reply == "+OK\r\n") {
                            return round - 1;
                        }
                    }
                    unreachable!("the server ends")
                })
            })
            .collect();
        let mut watch = server.connect();
        wait_until("all clients write", || watch.call(&["DBSIZE"]) == ":8\r\n");
        std::thread::sleep(std::time::Duration::from_millis(50));
        server.signal(libc::SIGTERM);
        assert_eq!(server.wait(), Some(0));
        let server = dir.start(setup, &[]);
        let mut client = server.connect();
        for (n, acknowledged) in clients.into_iter().enumerate() {
            let acknowledged: u64 = acknowledged.join().expect("it counts");
            let values = client.call(&["MGET", &format!("a{n}"), &format!("b{n}")]);
            let mut values =
                values.lines().skip(2).step_by(2).map(|text| text.parse::<u64>().expect("a number"));
            let (a, b) = (values.next().expect("a"), values.next().expect("b"));
            assert_eq!(a, b, "{setup:?}: an MSET is saved whole");
            assert!(a >= acknowledged, "{setup:?}: {acknowledged} was acknowledged, {a} was saved");
        }
    }
}

#[test]
fn a_server_that_cannot_save_goes_on() {
    for setup in SETUPS {
        let dir = Dir::new("gone");
        let mut server = dir.start(setup, &["--save", "3600 1"]);
        let mut client = server.connect();
        assert_eq!(client.call(&["SET", "a", "1"]), "+OK\r\n");
        fs::remove_dir_all(&dir.0).expect("it is there");
        assert_eq!(client.call(&["SAVE"]), "-ERR\r\n");
        assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "ok", "that is about BGSAVE");
        assert_eq!(client.call(&["SHUTDOWN"]), "-ERR Errors trying to SHUTDOWN. Check logs.\r\n");
        server.signal(libc::SIGTERM);
        server.wait_for_line("Error trying to save the DB, can't exit.");
        assert_eq!(client.call(&["GET", "a"]), "$1\r\n1\r\n", "{setup:?}");
        stop(&server, "SAVE FORCE");
        server.wait_for_line("Error trying to save the DB. Exit anyway.");
        assert_eq!(server.wait(), Some(0), "{setup:?}");
    }
}

/// Otherwise the keys of the file would come back at the next start. On several shards the one that is the last to be
/// emptied writes it, whichever way FLUSHALL gets there.
#[test]
fn flushall_empties_the_file_where_there_are_save_points() {
    for setup in SETUPS {
        let dir = Dir::new("flush");
        let server = dir.start(setup, &["--save", "3600 1"]);
        let mut client = server.connect();
        let flushes: [&[&[&str]]; 4] = [
            &[&["FLUSHALL"]],
            &[&["FLUSHALL", "ASYNC"]],
            &[&["MULTI"], &["SET", "b", "1"], &["FLUSHALL"], &["INCR", "c"], &["EXEC"]],
            &[&[
                "EVAL",
                "redis.call('SET', 'x', 1) redis.call('FLUSHALL') return redis.call('INCR', 'c')",
                "0",
            ]],
        ];
        for flush in flushes {
            assert_eq!(client.call(&["MSET", "a", "1", "b", "2", "c", "3"]), "+OK\r\n");
            assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
            assert_eq!(client.call(&["SET", "d", "4"]), "+OK\r\n");
            let full = fs::read(dir.file()).expect("it was saved");
            for command in flush {
                let reply = client.call(command);
                assert!(!reply.contains('-'), "{reply}");
            }
            let changes_after = if flush.len() > 1 || flush[0][0] == "EVAL" { "1" } else { "0" };
            assert_eq!(client.info("persistence", "rdb_changes_since_last_save"), changes_after, "{flush:?}");
            assert!(fs::read(dir.file()).expect("it was saved") != full, "{setup:?} {flush:?}");
            let checked = check_rdb(&dir.file());
            assert!(checked.0 && checked.1.contains("0 keys read"), "{}", checked.1);
        }
        assert_eq!(client.info("persistence", "rdb_saves"), "4", "these were by SAVE");
        // Without save points the file stays, and so do the changes.
        assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
        let kept = fs::read(dir.file()).expect("it was saved");
        assert_eq!(client.call(&["CONFIG", "SET", "save", ""]), "+OK\r\n");
        assert_eq!(client.call(&["FLUSHALL"]), "+OK\r\n");
        assert_eq!(fs::read(dir.file()).expect("it was saved"), kept);
        assert_eq!(client.info("persistence", "rdb_changes_since_last_save"), "1");
    }
}

#[test]
fn a_damaged_file_is_named_and_the_server_does_not_start() {
    let dir = Dir::new("damage");
    {
        let server = dir.start(SETUPS[1], &[]);
        let mut client = server.connect();
        fill(&mut client);
        assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
    }
    let sound = fs::read(dir.file()).expect("it was saved");
    let mut random = Random::new(7);
    let refused = |bytes: &[u8], what: &str| {
        fs::write(dir.file(), bytes).expect("it can be replaced");
        for setup in [SETUPS[0], SETUPS[1]] {
            let mut server = Server::spawn(setup, free_port(), &["--dir", dir.path()]);
            let line = server.wait_for_line("Fatal error loading the DB");
            assert!(
                line.contains(dir.path()) && line.contains(what) && line.contains("--check-rdb"),
                "{line}"
            );
            assert_eq!(server.wait(), Some(1));
        }
        let check = check_rdb(&dir.file());
        assert!(!check.0 && check.1.contains("RDB ERROR DETECTED"), "{}", check.1);
    };
    refused(b"", "at byte 0");
    refused(b"not an RDB file at all", "Wrong signature");
    refused(&sound[..sound.len() / 2], "a part is missing");
    let mut flipped = sound.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    refused(&flipped, &format!("CRC error: the checksum at byte {} is", last - 7));
    for _ in 0..5 {
        let mut damaged = sound.clone();
        let at = 9 + random.below(damaged.len() - 9);
        damaged[at] ^= 0x55;
        refused(&damaged, "");
    }
    let newer = [b"REDIS0042".as_slice(), &sound[9..]].concat();
    refused(&newer, "RDB version 42, which is not read here, at byte 5");
}

/// `shardis --check-rdb`: whether the file is sound, and what it says.
pub fn check_rdb(file: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shardis")).arg("--check-rdb").arg(file).output();
    let output = output.expect("the binary starts");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_sound_file_is_checked_also_by_a_link_of_redis_name() {
    let dir = Dir::new("check");
    let server = dir.start(SETUPS[1], &[]);
    let mut client = server.connect();
    fill(&mut client);
    assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
    let (is_sound, said) = check_rdb(&dir.file());
    assert!(is_sound && said.contains("RDB looks OK!") && said.contains("[info] 1 expires"), "{said}");
    let link = dir.0.join("redis-check-rdb");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_shardis"), &link).expect("a link");
    let output = Command::new(&link).arg(dir.file()).output().expect("the binary starts");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), said);
}

#[test]
fn while_a_file_is_loaded_most_commands_are_refused() {
    let dir = Dir::new("loading");
    {
        let server = dir.start(SETUPS[1], &[]);
        let mut client = server.connect();
        assert_eq!(client.call(&["DEBUG", "POPULATE", "20000"]), "+OK\r\n");
        assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
    }
    for setup in SETUPS {
        let args = ["--dir", dir.path(), "--key-load-delay", "50", "--save", "3600 1"];
        let mut server = Server::spawn(setup, free_port(), &args);
        server.wait_for_line("Loading RDB produced by version");
        let mut client = server.connect();
        assert_eq!(client.call(&["GET", "key:1"]), "-LOADING Redis is loading the dataset in memory\r\n");
        assert_eq!(client.info("persistence", "loading"), "1");
        let total = client.info("persistence", "loading_total_bytes");
        assert_eq!(total, fs::metadata(dir.file()).expect("it is there").len().to_string());
        let saved_at = fs::metadata(dir.file()).and_then(|file| file.modified()).expect("it is there");
        stop(&server, "SIGTERM");
        assert_eq!(server.wait(), Some(0), "{setup:?}");
        let now = fs::metadata(dir.file()).and_then(|file| file.modified()).expect("it is there");
        assert_eq!(saved_at, now, "a part of the data set does not replace the whole");
    }
}

/// A real Redis on the same directory, if there is one on this machine.
pub fn with_redis(dir: &Dir, run: impl FnOnce(&mut Connection)) -> bool {
    let Some(redis) = Redis::start_in(dir, free_port(), &[]) else { return false };
    let mut client = redis.connect();
    wait_until("it has loaded", || client.call(&["PING"]) == "+PONG\r\n");
    run(&mut client);
    true
}

/// The bytes of a file in hexadecimal digits, with comments.
fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::bytes).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal digits") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn a_file_of_valkey_is_loaded() {
    for setup in SETUPS {
        let dir = Dir::new("valkey");
        fs::write(dir.file(), from_hex(include_str!("valkey-9.1.2.rdb.hex"))).expect("it can be written");
        let server = dir.start(setup, &[]);
        let mut client = server.connect();
        // What Redis 7.0.15 says after the commands by which the file came to be.
        assert_eq!(digest(&mut client), "+937742039ad2c549a9c9837b523acad10b39f36d\r\n", "{setup:?}");
        assert_eq!(client.call(&["DBSIZE"]), ":23\r\n");
        assert_eq!(
            client.call(&["XPENDING", "stream:120:0", "g1"]),
            "*4\r\n:4\r\n$6\r\n1000-3\r\n$6\r\n1002-7\r\n*2\r\n*2\r\n$5\r\nalice\r\n$1\r\n2\r\n*2\r\n$3\r\nbob\r\n$1\r\n2\r\n"
        );
        let groups = client.call(&["XINFO", "GROUPS", "stream:120:0"]);
        for field in
            ["$9\r\nconsumers\r\n:3", "$6\r\n1002-7", "$12\r\nentries-read\r\n:120", "$3\r\nlag\r\n:0"]
        {
            assert!(groups.contains(field), "{field:?}: {groups}");
        }
        let stream = client.call(&["XINFO", "STREAM", "stream:120:0"]);
        assert!(stream.contains("$20\r\nmax-deleted-entry-id\r\n$6\r\n1001-5\r\n"), "{stream}");
    }
}

#[test]
fn files_go_both_ways_between_redis_and_this_server() {
    let dir = Dir::new("redis");
    let mut theirs = String::new();
    let is_there = with_redis(&dir, |redis| {
        fill(redis);
        theirs = digest(redis);
        assert_eq!(redis.call(&["SAVE"]), "+OK\r\n");
    });
    if !is_there {
        return;
    }
    for setup in SETUPS {
        let server = dir.start(setup, &[]);
        let mut client = server.connect();
        assert_eq!(digest(&mut client), theirs, "{setup:?}");
        assert_eq!(client.call(&["SAVE"]), "+OK\r\n");
        drop(server);
        with_redis(&dir, |redis| assert_eq!(digest(redis), theirs, "{setup:?}"));
        let checked = Command::new("redis-check-rdb").arg(dir.file()).output();
        assert!(checked.is_ok_and(|output| output.status.success()));
    }
}
