//! Modules in C and in Rust, compiled here and loaded into the server: on one shard and on several.

mod events;
mod gone;
mod notes;
mod official;
mod search;
mod told;
mod tour;
mod users;
mod values;
mod waits;
mod wrong;
mod yields;

use crate::harness::{Connection, SETUPS, Server, Setup};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `modules/probe.c` once for this test. Returns where the library is.
fn probe(name: &str) -> PathBuf {
    compiled("probe", name)
}

/// Compiles one of the modules once for the test of this name. Returns where the library is.
pub fn compiled(module: &str, name: &str) -> PathBuf {
    compiled_with(module, name, &[])
}

/// The same with further words for the compiler.
pub fn compiled_with(module: &str, name: &str, words: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/server/modules/{module}.c"));
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{module}-{name}.so"));
    // Another run of the tests may be loading it.
    let fresh = library.with_extension(std::process::id().to_string());
    let status = Command::new("cc")
        .args(["-std=gnu99", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread"])
        .args(words)
        .arg("-o")
        .arg(&fresh)
        .arg(&source)
        .status()
        .expect("there is a C compiler");
    assert!(status.success());
    std::fs::rename(fresh, &library).expect("both are in one directory");
    library
}

const ENABLED: [&str; 2] = ["--enable-module-command", "yes"];

#[track_caller]
pub fn expect(connection: &mut Connection, args: &[&str], reply: &str) {
    assert_eq!(connection.call(args), reply, "{args:?}");
}

/// Keys that are on three different shards of three: of slots in each third of the range.
pub const KEYS: [&str; 3] = ["key0", "key1", "key2"];

#[test]
fn a_c_module_is_loaded_runs_its_commands_and_is_unloaded() {
    let path = probe("life");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &ENABLED);
        let mut client = server.connect();
        expect(&mut client, &["MODULE", "LIST"], "*0\r\n");
        expect(&mut client, &["MODULE", "LOAD", path], "+OK\r\n");
        let list = client.call(&["MODULE", "LIST"]);
        assert!(list.contains("probe"));
        let hello = client.call(&["HELLO", "2"]);
        assert!(hello.ends_with(&format!("$7\r\nmodules\r\n{list}")), "{hello}");
        expect(&mut client, &["PROBE.PING"], "+PONG\r\n");
        expect(
            &mut client,
            &["probe.ping", "x"],
            "-ERR wrong number of arguments for 'probe.ping' command\r\n",
        );
        expect(&mut client, &["PROBE.LIST", "a", "b"], "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        expect(
            &mut client,
            &["PROBE.CALL", "NOSUCH"],
            "-ERR unknown command 'NOSUCH', with args beginning with: \r\n",
        );
        let twice = "-ERR Error loading the extension. Please check the server logs.\r\n";
        expect(&mut client, &["MODULE", "LOAD", path], twice);

        // The module's command has to return to the module.
        let within = "-ERR Error unloading module: a module's command cannot unload modules\r\n";
        expect(&mut client, &["PROBE.CALL", "MODULE", "UNLOAD", "probe"], within);
        expect(&mut client, &["PROBE.PING"], "+PONG\r\n");
        expect(&mut client, &["MODULE", "UNLOAD", "probe"], "+OK\r\n");
        assert!(client.call(&["PROBE.PING"]).starts_with("-ERR unknown command"));
        let missing = "-ERR Error unloading module: no such module with that name\r\n";
        expect(&mut client, &["MODULE", "UNLOAD", "probe"], missing);
        expect(&mut client, &["MODULE", "LOAD", path], "+OK\r\n");
        expect(&mut client, &["PROBE.PING"], "+PONG\r\n");
    }
}

#[test]
fn a_module_opens_keys_of_any_shard_and_calls_commands_for_them() {
    let path = probe("keys");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--loadmodule", path]);
        let mut client = server.connect();
        let [a, b, c] = KEYS;
        for (from, to) in [(a, b), (b, c), (c, a), (a, c)] {
            expect(&mut client, &["SET", from, "twelve bytes"], "+OK\r\n");
            expect(&mut client, &["PROBE.COPY", from, to], ":12\r\n");
            expect(&mut client, &["GET", to], "$12\r\ntwelve bytes\r\n");
            expect(&mut client, &["GET", from], "$12\r\ntwelve bytes\r\n");
            expect(&mut client, &["DBSIZE"], ":2\r\n");
            expect(&mut client, &["FLUSHALL"], "+OK\r\n");
        }
        expect(&mut client, &["PROBE.COPY", a, b], "$-1\r\n");

        expect(&mut client, &["PROBE.PUSH", "x", a, b, c, a], ":4\r\n");
        expect(&mut client, &["LLEN", a], ":2\r\n");
        expect(&mut client, &["LLEN", c], ":1\r\n");
        expect(&mut client, &["PROBE.CALL", "LPOP", b], "$1\r\nx\r\n");
        expect(&mut client, &["EXISTS", a, b, c], ":2\r\n");
        expect(&mut client, &["PROBE.CALL", "RENAME", c, b], "+OK\r\n");
        expect(&mut client, &["PROBE.CALL", "PROBE.CALL", "LLEN", b], ":1\r\n");
        expect(
            &mut client,
            &["EVAL", "return redis.call('probe.push', 'y', KEYS[1], ARGV[1])", "1", a, b],
            ":2\r\n",
        );
        expect(&mut client, &["LRANGE", b, "0", "-1"], "*2\r\n$1\r\nx\r\n$1\r\ny\r\n");
        expect(&mut client, &["MULTI"], "+OK\r\n");
        expect(&mut client, &["PROBE.PUSH", "z", b, c], "+QUEUED\r\n");
        expect(&mut client, &["LLEN", b], "+QUEUED\r\n");
        expect(&mut client, &["EXEC"], "*2\r\n:2\r\n:3\r\n");
    }
}

/// What INFO counts of a command, and the errors, since the last CONFIG RESETSTAT.
fn counts(client: &mut Connection, command: &str) -> String {
    let fields = client.info("commandstats", &format!("cmdstat_{command}"));
    let counts = fields.split(',').filter(|field| !field.contains("usec"));
    let errors = client.call(&["INFO", "errorstats"]);
    let errors = errors.lines().filter_map(|line| line.strip_prefix("errorstat_"));
    counts.chain(errors).map(str::trim).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_error_of_a_modules_command_is_counted_once() {
    let path = probe("errors");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--loadmodule", path]);
        let mut client = server.connect();
        KEYS.iter().for_each(|key| expect(&mut client, &["SET", key, "text"], "+OK\r\n"));
        expect(&mut client, &["CONFIG", "RESETSTAT"], "+OK\r\n");
        // The module of GEOADD is shard-safe. It is called by itself, by a script, and in an EXEC over several shards.
        for key in KEYS {
            assert!(client.call(&["GEOADD", key, "1", "2", "m"]).starts_with("-WRONGTYPE"));
            let body = format!("return redis.call('geoadd', '{key}', 1, 2, 'm')");
            assert!(client.call(&["EVAL", &body, "0"]).starts_with("-WRONGTYPE"));
        }
        expect(&mut client, &["MULTI"], "+OK\r\n");
        KEYS.iter().for_each(|key| expect(&mut client, &["GEOADD", key, "1", "2", "m"], "+QUEUED\r\n"));
        assert_eq!(client.call(&["EXEC"]).matches("-WRONGTYPE").count(), 3);
        assert_eq!(
            counts(&mut client, "geoadd"),
            "calls=9 rejected_calls=0 failed_calls=9 WRONGTYPE:count=9",
            "{setup:?}"
        );

        // Errors of a foreign module: its own, and that of a command which it has called.
        expect(&mut client, &["CONFIG", "RESETSTAT"], "+OK\r\n");
        assert!(client.call(&["PROBE.CALL"]).starts_with("-ERR wrong number"));
        for key in KEYS {
            assert!(client.call(&["PROBE.CALL", "INCR", key]).starts_with("-ERR value"));
        }
        assert_eq!(
            counts(&mut client, "probe.call"),
            "calls=4 rejected_calls=0 failed_calls=4 ERR:count=4",
            "{setup:?}"
        );
        assert_eq!(
            counts(&mut client, "incr"),
            "calls=3 rejected_calls=0 failed_calls=3 ERR:count=4",
            "{setup:?}"
        );
    }
}

/// A client that is blocked on a list is served by what a module pushes on it, and a watched key that a module writes
/// fails the EXEC.
#[test]
fn what_a_module_writes_is_seen_by_those_who_wait_for_it_or_watch_it() {
    let path = probe("observers");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--loadmodule", path]);
        let (mut client, mut waiting) = (server.connect(), server.connect());
        for key in KEYS {
            waiting.request(&[b"BLPOP", key.as_bytes(), b"0"]);
            crate::harness::wait_until("the client blocks", || {
                client.info("clients", "blocked_clients") == "1"
            });
            expect(&mut client, &["PROBE.PUSH", "x", key], ":1\r\n");
            let served = String::from_utf8(waiting.reply()).expect("it is text");
            assert_eq!(served, format!("*2\r\n${}\r\n{key}\r\n$1\r\nx\r\n", key.len()));

            expect(&mut client, &["WATCH", key], "+OK\r\n");
            expect(&mut waiting, &["PROBE.PUSH", "y", key], ":1\r\n");
            expect(&mut client, &["MULTI"], "+OK\r\n");
            expect(&mut client, &["PING"], "+QUEUED\r\n");
            expect(&mut client, &["EXEC"], "*-1\r\n");
        }
    }
}

#[test]
fn a_module_that_does_not_load_leaves_nothing() {
    let path = probe("hostile");
    let path = path.to_str().expect("a path in UTF-8");
    for shards in [1, 3] {
        let server = Server::start_with(Setup { shards, io_backend: "epoll" }, &ENABLED);
        let mut client = server.connect();
        let failed = "-ERR Error loading the extension. Please check the server logs.\r\n";
        for wish in ["fail", "flags", "taken"] {
            expect(&mut client, &["MODULE", "LOAD", path, wish], failed);
        }
        let no_code = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/modules/probe.c");
        expect(&mut client, &["MODULE", "LOAD", no_code], failed);
        expect(&mut client, &["MODULE", "LOAD", "/nonexistent.so"], failed);
        expect(&mut client, &["MODULE", "LIST"], "*0\r\n");
        assert!(client.call(&["PROBE.PING"]).starts_with("-ERR unknown command"));
        expect(&mut client, &["GET", "x"], "$-1\r\n");
    }
}

#[test]
fn modules_are_loaded_only_where_the_configuration_allows_it() {
    let path = probe("guarded");
    let path = path.to_str().expect("a path in UTF-8");
    let server = Server::start_with(Setup { shards: 2, io_backend: "epoll" }, &[]);
    let mut client = server.connect();
    let reply = client.call(&["MODULE", "LOAD", path]);
    assert!(
        reply.starts_with("-ERR MODULE command not allowed. If the enable-module-command option"),
        "{reply}"
    );
    expect(&mut client, &["MODULE", "LIST"], "*0\r\n");
}

#[test]
fn a_crash_in_a_module_is_reported_with_its_name_and_what_was_called() {
    let path = probe("crash");
    for setup in SETUPS {
        let mut server =
            Server::start_with(setup, &["--loadmodule", path.to_str().expect("a path in UTF-8")]);
        server.connect().request(&[b"PROBE.CRASH"]);
        let line = server.wait_for_line("Module: ");
        assert!(line.contains("Module: probe, callback: command"), "{setup:?}: {line}");
        assert_eq!(server.wait(), None);
    }
}
