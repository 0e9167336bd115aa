//! BGSAVE and save points: the file is of the moment at which the save began, clients go on meanwhile, and what fails is said.

use crate::harness::{Connection, SETUPS, wait_until};
use crate::rdb::{Dir, check_rdb, digest, fill, with_redis};
use std::fs;

const STARTED: &str = "+Background saving started\r\n";

fn wait_for_the_end(client: &mut Connection) {
    wait_until("the save ends", || client.info("persistence", "rdb_bgsave_in_progress") == "0");
}

fn number(client: &mut Connection, section: &str, field: &str) -> u64 {
    client.info(section, field).parse().expect("a number")
}

#[test]
fn a_background_save_is_of_its_beginning_although_everything_changes_meanwhile() {
    for (setup, next) in SETUPS.into_iter().zip(SETUPS.into_iter().rev()) {
        let dir = Dir::new("bgsave");
        let at_beginning = {
            let server = dir.start(setup, &["--save", "", "--rdb-key-save-delay", "200"]);
            let mut client = server.connect();
            fill(&mut client);
            assert_eq!(client.call(&["DEBUG", "POPULATE", "2000"]), "+OK\r\n");
            let at_beginning = digest(&mut client);
            assert_eq!(client.call(&["BGSAVE"]), STARTED);
            assert_eq!(client.call(&["BGSAVE"]), "-ERR Background save already in progress\r\n");
            assert_eq!(client.call(&["SAVE"]), "-ERR Background save already in progress\r\n");
            assert_eq!(client.info("persistence", "rdb_bgsave_in_progress"), "1");
            for n in 0..1500 {
                let (key, other) = (format!("key:{n}"), format!("key:{}", n + 400));
                match n % 4 {
                    0 => client.call(&["APPEND", &key, "more"]),
                    1 => client.call(&["DEL", &key]),
                    2 => client.call(&["RENAME", &key, &other]),
                    _ => client.call(&["PEXPIRE", &key, "1"]),
                };
            }
            client.call(&["SWAPDB", "0", "9"]);
            client.call(&["FLUSHDB"]);
            client.call(&["SET", "new", "v"]);
            wait_for_the_end(&mut client);
            assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "ok");
            assert!(number(&mut client, "persistence", "rdb_last_cow_size") > 0, "{setup:?}");
            assert!(number(&mut client, "persistence", "rdb_changes_since_last_save") > 1000, "{setup:?}");
            assert_eq!(client.info("stats", "total_forks"), "1");
            assert_ne!(digest(&mut client), at_beginning);
            at_beginning
        };
        assert_eq!(fs::read_dir(&dir.0).expect("it is there").count(), 1, "nothing is left beside the file");
        let (is_sound, said) = check_rdb(&dir.file());
        assert!(is_sound, "{setup:?}: {said}");
        let server = dir.start(next, &["--save", ""]);
        assert_eq!(digest(&mut server.connect()), at_beginning, "{setup:?}");
        with_redis(&dir, |redis| assert_eq!(digest(redis), at_beginning, "{setup:?}"));
    }
}

#[test]
fn a_save_point_saves_and_resets_the_changes() {
    for setup in SETUPS {
        let dir = Dir::new("points");
        let mut server = dir.start(setup, &["--save", "1 5"]);
        let mut client = server.connect();
        (0..5).for_each(|n| assert_eq!(client.call(&["SET", &format!("k{n}"), "v"]), "+OK\r\n"));
        server.wait_for_line("5 changes in 1 seconds. Saving...");
        wait_until("the changes are saved", || {
            client.info("persistence", "rdb_changes_since_last_save") == "0"
        });
        assert!(check_rdb(&dir.file()).0, "{setup:?}");
    }
}

#[test]
fn a_background_save_that_fails_stops_writes_until_one_succeeds() {
    for setup in SETUPS {
        let (gone, good) = (Dir::new("bgfail"), Dir::new("bggood"));
        let server = gone.start(setup, &["--save", "3600 1", "--enable-protected-configs", "yes"]);
        let mut client = server.connect();
        assert_eq!(client.call(&["SET", "a", "1"]), "+OK\r\n");
        fs::remove_dir_all(&gone.0).expect("it is there");
        assert_eq!(client.call(&["BGSAVE"]), STARTED);
        wait_for_the_end(&mut client);
        assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "err");
        for refused in [&["SET", "a", "2"][..], &["PING"], &["EVAL", "return redis.call('INCR', 'a')", "0"]] {
            let reply = client.call(refused);
            assert!(reply.starts_with("-MISCONF Redis is configured to save RDB snapshots"), "{reply}");
        }
        assert_eq!(client.call(&["GET", "a"]), "$1\r\n1\r\n");
        assert_eq!(client.call(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]), "+OK\r\n");
        assert_eq!(client.call(&["SET", "a", "2"]), "+OK\r\n");
        assert_eq!(client.call(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "yes"]), "+OK\r\n");
        assert_eq!(client.call(&["CONFIG", "SET", "dir", good.path()]), "+OK\r\n");
        assert_eq!(client.call(&["BGSAVE"]), STARTED);
        wait_for_the_end(&mut client);
        assert_eq!(client.call(&["SET", "a", "3"]), "+OK\r\n", "{setup:?}");
    }
}

/// Big values that are removed while a background save has still to write them count towards snapshot-memory-limit. Above it, a save
/// that the disk keeps up with goes on, and one that it does not keep up with is given up. Clients do not wait in either case.
#[test]
fn a_save_is_given_up_if_too_much_waits_for_a_disk_that_hangs() {
    for setup in SETUPS {
        let dir = Dir::new("bglate");
        let server =
            dir.start(setup, &["--save", "", "--snapshot-memory-limit", "5mb", "--rdbcompression", "no"]);
        let mut client = server.connect();
        let fill = |client: &mut Connection| {
            for n in 0..40 {
                let value = "v".repeat(400_000);
                assert_eq!(client.call(&["SET", &format!("big:{n}"), &value]), "+OK\r\n");
            }
            assert_eq!(client.call(&["DEBUG", "POPULATE", "100000", "key", "100"]), "+OK\r\n");
        };
        let remove = |client: &mut Connection| {
            (0..40).for_each(|n| assert_eq!(client.call(&["DEL", &format!("big:{n}")]), ":1\r\n"));
        };
        fill(&mut client);
        let at_beginning = digest(&mut client);
        assert_eq!(client.call(&["BGSAVE"]), STARTED);
        remove(&mut client);
        wait_for_the_end(&mut client);
        assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "ok", "{setup:?}");
        assert_eq!(digest(&mut dir.start(setup, &["--save", ""]).connect()), at_beginning, "{setup:?}");

        // The next file is a pipe that nobody reads.
        fill(&mut client);
        let pipe = dir.0.join(format!("temp-bg-{}-1.rdb", server.pid()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("it can be run");
        assert!(made.success());
        let used_before = number(&mut client, "memory", "used_memory");
        assert_eq!(client.call(&["BGSAVE"]), STARTED);
        remove(&mut client);
        wait_until("the values are free", || {
            // What the thread that writes has not taken yet, which is less, is still there.
            number(&mut client, "memory", "used_memory") < used_before
        });
        assert_eq!(client.call(&["SET", "a", "1"]), "+OK\r\n");
        assert!(fs::read(&pipe).is_ok(), "the thread that writes can be told");
        wait_for_the_end(&mut client);
        assert_eq!(client.info("persistence", "rdb_last_bgsave_status"), "err", "{setup:?}");
    }
}

#[test]
fn big_strings_are_compressed() {
    for setup in SETUPS {
        let dir = Dir::new("bglzf");
        let server = dir.start(setup, &["--save", ""]);
        let mut client = server.connect();
        let text = "a text that repeats, and ".repeat(200_000);
        let numbers: String =
            (0..400_000).map(|n| format!("{:x}", (n as u64).wrapping_mul(0x9E37_79B9_7F4A))).collect();
        for (key, value) in [("text", &text), ("numbers", &numbers), ("both", &format!("{text}{numbers}"))] {
            assert_eq!(client.call(&["SET", key, value]), "+OK\r\n");
        }
        let at_beginning = digest(&mut client);
        let mut sizes = Vec::new();
        for compression in ["yes", "no"] {
            assert_eq!(client.call(&["CONFIG", "SET", "rdbcompression", compression]), "+OK\r\n");
            assert_eq!(client.call(&["BGSAVE"]), STARTED);
            wait_for_the_end(&mut client);
            sizes.push(fs::metadata(dir.file()).expect("it is there").len() as usize);
            assert!(check_rdb(&dir.file()).0, "{setup:?}");
            assert_eq!(digest(&mut dir.start(setup, &["--save", ""]).connect()), at_beginning, "{setup:?}");
            with_redis(&dir, |redis| assert_eq!(digest(redis), at_beginning, "{setup:?}"));
        }
        // Of the text hardly anything is left.
        assert!(sizes[0] + 9 * text.len() / 5 < sizes[1], "{sizes:?}");
    }
}

#[test]
fn in_an_exec_a_background_save_is_scheduled_and_the_servers_end_cancels_it() {
    for setup in SETUPS {
        let dir = Dir::new("bgexec");
        let mut server = dir.start(setup, &["--save", ""]);
        let mut client = server.connect();
        client.call(&["MULTI"]);
        client.call(&["SET", "a", "1"]);
        client.call(&["BGSAVE"]);
        client.call(&["SET", "b", "1"]);
        assert_eq!(client.call(&["EXEC"]), "*3\r\n+OK\r\n+Background saving scheduled\r\n+OK\r\n");
        server.wait_for_line("Background saving terminated with success");
        assert_eq!(client.info("persistence", "rdb_changes_since_last_save"), "0", "{setup:?}");
        let saved = fs::read(dir.file()).expect("it is there");

        assert_eq!(client.call(&["CONFIG", "SET", "rdb-key-save-delay", "10000000"]), "+OK\r\n");
        assert_eq!(client.call(&["SET", "c", "1"]), "+OK\r\n");
        assert_eq!(client.call(&["BGSAVE", "SCHEDULE"]), STARTED);
        assert_eq!(client.call(&["BGSAVE", "NOW"]), "-ERR syntax error\r\n");
        client.request(&[b"SHUTDOWN", b"NOSAVE"]);
        assert_eq!(server.wait(), Some(0), "{setup:?}");
        assert_eq!(fs::read(dir.file()).expect("it is there"), saved);
        assert_eq!(fs::read_dir(&dir.0).expect("it is there").count(), 1, "nothing is left beside the file");
    }
}
