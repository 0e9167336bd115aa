//! Clients that a C module blocks, its threads, timers and events: `waits.c`.

use super::{KEYS, compiled, expect};
use crate::harness::{Connection, SETUPS, Server, wait_until};

fn start(setup: crate::harness::Setup, name: &str, argument: &[&str]) -> Server {
    let path = compiled("waits", name);
    let mut options =
        vec!["--enable-module-command", "yes", "--loadmodule", path.to_str().expect("a path in UTF-8")];
    options.extend(argument);
    Server::start_with(setup, &options)
}

pub fn request(connection: &mut Connection, words: &[&str]) {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    connection.request(&words);
}

pub fn reply(connection: &mut Connection) -> String {
    String::from_utf8(connection.reply()).expect("it is text")
}

fn wait_until_blocked(client: &mut Connection, count: &str) {
    wait_until("clients are blocked", || client.info("clients", "blocked_clients") == count);
}

#[test]
fn threads_of_a_module_work_for_blocked_clients_one_at_a_time() {
    for setup in SETUPS {
        let server = start(setup, "work", &[]);
        let mut clients: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
        for (client, key) in clients.iter_mut().zip(["n", "n", KEYS[1]]) {
            request(client, &["WAIT.WORK", key, "20"]);
        }
        let mut replies: Vec<String> = clients.iter_mut().map(reply).collect();
        replies.sort_unstable();
        assert_eq!(replies, [":2\r\n", ":2\r\n", ":4\r\n"], "nobody comes between two increments");
        let client = &mut clients[0];
        expect(client, &["MGET", "n", KEYS[1]], "*2\r\n$1\r\n4\r\n$1\r\n2\r\n");
        expect(client, &["WAIT.COUNT", "freed"], ":3\r\n");
        assert!(client.info("commandstats", "cmdstat_wait.work").starts_with("calls=3,"));
        expect(client, &["MULTI"], "+OK\r\n");
        expect(client, &["WAIT.FOR", "0"], "+QUEUED\r\n");
        let refused = "-ERR Blocking module command called from transaction\r\n";
        expect(client, &["EXEC"], &format!("*1\r\n{refused}"));
        assert!(
            client
                .call(&["EVAL", "return redis.call('wait.for', 0)", "0"])
                .contains("called from Lua script")
        );
    }
}

/// On several shards: what a thread has used is locked until it gives up the lock, and nothing else.
#[test]
fn a_thread_that_has_the_lock_for_long_stops_nobody_who_wants_other_keys() {
    let setup = crate::harness::Setup { shards: 3, io_backend: "epoll" };
    let server = start(setup, "lock", &[]);
    let (mut working, mut waiting, mut client) = (server.connect(), server.connect(), server.connect());
    let until = std::env::temp_dir().join(format!("shardis-until-{}", std::process::id()));
    let begun = until.with_extension("begun");
    request(&mut working, &["WAIT.WORK", KEYS[0], "0", until.to_str().expect("a path in UTF-8")]);
    wait_until("the thread has the lock", || begun.exists());
    request(&mut waiting, &["INCRBY", KEYS[0], "0"]);
    for _ in 0..100 {
        for key in [KEYS[1], KEYS[2], "other"] {
            expect(&mut client, &["SET", key, "1"], "+OK\r\n");
        }
    }
    assert_eq!(client.info("clients", "blocked_clients"), "1", "it still works");
    std::fs::write(&until, "").expect("the file can be written");
    assert_eq!(reply(&mut working), ":2\r\n");
    assert_eq!(reply(&mut waiting), ":2\r\n");
    for path in [until, begun] {
        std::fs::remove_file(path).expect("it is there");
    }
}

#[test]
fn a_blocked_client_is_unblocked_times_out_or_goes() {
    for setup in SETUPS {
        let server = start(setup, "for", &[]);
        let (mut blocked, mut client) = (server.connect(), server.connect());
        request(&mut blocked, &["WAIT.FOR", "0"]);
        wait_until_blocked(&mut client, "1");
        let unload = client.call(&["MODULE", "UNLOAD", "waits"]);
        assert!(unload.contains("the module has blocked clients"), "{unload}");
        expect(&mut client, &["WAIT.END", "12"], "+OK\r\n");
        assert_eq!(reply(&mut blocked), ":12\r\n");

        request(&mut blocked, &["WAIT.FOR", "30"]);
        assert_eq!(reply(&mut blocked), "+LATE\r\n");
        expect(&mut client, &["WAIT.END", "1"], "+OK\r\n");
        wait_until("the late data is freed", || client.call(&["WAIT.COUNT", "freed"]) == ":2\r\n");

        request(&mut blocked, &["WAIT.FOR", "0"]);
        wait_until_blocked(&mut client, "1");
        drop(blocked);
        wait_until("the module is told", || client.call(&["WAIT.COUNT", "disconnected"]) == ":1\r\n");
        wait_until("it can be unloaded", || client.call(&["MODULE", "UNLOAD", "waits"]) == "+OK\r\n");
    }
}

/// In Redis the module looks at the key before any other command runs.
#[test]
fn a_key_is_kept_for_a_client_that_a_module_blocks_until_the_module_has_looked() {
    for setup in SETUPS {
        let server = start(setup, "kept", &[]);
        let (mut blocked, mut client) = (server.connect(), server.connect());
        for key in KEYS.repeat(10) {
            request(&mut blocked, &["WAIT.POP", key]);
            wait_until_blocked(&mut client, "1");
            request(&mut client, &["RPUSH", key, "x"]);
            request(&mut client, &["DEL", key]);
            assert_eq!([reply(&mut client), reply(&mut client)], [":1\r\n", ":0\r\n"]);
            assert_eq!(reply(&mut blocked), "$1\r\nx\r\n");
        }
    }
}

#[test]
fn clients_that_a_module_blocks_on_keys_are_served_when_these_are_ready() {
    for setup in SETUPS {
        let server = start(setup, "pop", &[]);
        let mut client = server.connect();
        let [a, b, c] = KEYS;
        expect(&mut client, &["RPUSH", b, "there"], ":1\r\n");
        expect(&mut client, &["WAIT.POP", a, b, c], "$5\r\nthere\r\n");
        let mut blocked = [server.connect(), server.connect()];
        for (at, connection) in blocked.iter_mut().enumerate() {
            request(connection, &["WAIT.POP", a, b, c]);
            wait_until_blocked(&mut client, &(at + 1).to_string());
        }
        expect(&mut client, &["SADD", a, "no list"], ":1\r\n");
        expect(&mut client, &["RPUSH", c, "x"], ":1\r\n");
        assert_eq!(reply(&mut blocked[0]), "$1\r\nx\r\n", "first come, first served");
        expect(&mut client, &["RPUSH", b, "y", "z"], ":2\r\n");
        assert_eq!(reply(&mut blocked[1]), "$1\r\ny\r\n");
        wait_until_blocked(&mut client, "0");
        expect(&mut client, &["LRANGE", b, "0", "-1"], "*1\r\n$1\r\nz\r\n");
        expect(&mut client, &["EXISTS", c], ":0\r\n");
    }
}

/// Of 7.2. Without the flag a client waits on.
#[test]
fn a_client_that_a_module_blocks_on_keys_may_learn_that_one_is_removed() {
    for setup in SETUPS {
        let server = start(setup, "removed", &[]);
        let (mut told, mut other, mut client) = (server.connect(), server.connect(), server.connect());
        let [a, b, c] = KEYS;
        for removal in [&["DEL", b][..], &["PEXPIREAT", b, "1"], &["FLUSHALL"], &["RENAME", b, "z"]] {
            expect(&mut client, &["MSET", a, "1", b, "2", c, "3"], "+OK\r\n");
            request(&mut other, &["WAIT.REMOVED", "0", a, b, c]);
            request(&mut told, &["WAIT.REMOVED", "1", a, b, c]);
            wait_until_blocked(&mut client, "2");
            expect(&mut client, &["SET", b, "changed"], "+OK\r\n");
            assert!(!client.call(removal).starts_with('-'), "{removal:?}");
            assert_eq!(reply(&mut told), "+REMOVED\r\n", "{removal:?}");
            wait_until_blocked(&mut client, "1");
            let id = other_client(&mut client, "wait.removed");
            expect(&mut client, &["CLIENT", "UNBLOCK", &id], ":1\r\n");
            assert_eq!(reply(&mut other), "+LATE\r\n");
        }
    }
}

/// The id of the client whose last command this is.
fn other_client(client: &mut Connection, command: &str) -> String {
    let list = client.call(&["CLIENT", "LIST"]);
    let line = list.lines().find(|line| line.contains(&format!("cmd={command}")) && line.contains("flags=b"));
    let line = line.unwrap_or_else(|| panic!("it is not there:\n{list}"));
    line.split(' ').find_map(|word| word.strip_prefix("id=")).expect("it has an id").to_string()
}

#[test]
fn errors_that_a_blocked_client_gets_are_counted() {
    for setup in SETUPS {
        let server = start(setup, "fail", &[]);
        let mut client = server.connect();
        expect(&mut client, &["WAIT.FAIL"], "-THREAD it has failed\r\n");
        expect(&mut client, &["WAIT.FAIL", "later"], "-LATER it has failed\r\n");
        let counts = client.info("commandstats", "cmdstat_wait.fail");
        assert!(counts.starts_with("calls=2,") && counts.trim_end().ends_with("failed_calls=2"), "{counts}");
        for code in ["THREAD", "LATER"] {
            assert_eq!(client.info("errorstats", &format!("errorstat_{code}")).trim(), "count=1");
        }
    }
}

/// A module that does not know of several threads makes programs of some of the server's commands.
#[test]
fn commands_that_become_programs_count_on() {
    let path = compiled("waits", "counts");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--enable-module-command", "yes"]);
        let mut client = server.connect();
        expect(&mut client, &["DUMP", "nothing"], "$-1\r\n");
        expect(&mut client, &["MODULE", "LOAD", path], "+OK\r\n");
        expect(&mut client, &["DUMP", "nothing"], "$-1\r\n");
        let counts = client.info("commandstats", "cmdstat_dump");
        assert!(counts.starts_with("calls=2,"), "{setup:?}: {counts}");
    }
}

#[test]
fn timers_and_descriptors_of_a_module_have_it_called() {
    for setup in SETUPS {
        let server = start(setup, "timer", &[]);
        let mut client = server.connect();
        for key in KEYS {
            expect(&mut client, &["WAIT.TIMER", key, "10"], "+OK\r\n");
        }
        for key in KEYS {
            wait_until("the timer fires", || client.call(&["GET", key]) == "$1\r\n1\r\n");
        }
        expect(&mut client, &["WAIT.TIMER", "later", "100000"], "+OK\r\n");
        let unload = client.call(&["MODULE", "UNLOAD", "waits"]);
        assert!(unload.contains("holds timer that is not fired"), "{unload}");
        expect(&mut client, &["WAIT.PIPE"], "+OK\r\n");
        wait_until("the pipe is read", || client.call(&["WAIT.COUNT", "events"]) == ":1000\r\n");
    }
}

#[test]
fn a_module_is_told_of_events_of_keys_on_all_shards() {
    for setup in SETUPS {
        let server = start(setup, "events", &["told"]);
        let mut client = server.connect();
        let [a, b, c] = KEYS;
        expect(&mut client, &["MSET", a, "1", b, "2", c, "3"], "+OK\r\n");
        expect(&mut client, &["RPUSH", "list", "x"], ":1\r\n");
        expect(&mut client, &["SADD", "set", "x"], ":1\r\n");
        wait_until("it was told", || client.call(&["WAIT.COUNT", "events"]) == ":4\r\n");
        assert_eq!(client.call(&["SCARD", "noted"]), ":3\r\n", "of what it does itself it is not told");
    }
}
