//! Starting, stopping, and starting wrongly.

use crate::aof::Dir;
use crate::harness::{SETUPS, Server, free_port, wait_until};
use std::net::TcpListener;

#[test]
fn sigterm_and_sigint_end_the_server_in_order() {
    for setup in SETUPS {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let mut server = Server::start(setup);
            let mut client = server.connect();
            assert_eq!(client.call(&["SET", "a", "1"]), "+OK\r\n");
            server.signal(signal);
            server.wait_for_line("ready to exit, bye bye");
            assert_eq!(server.wait(), Some(0), "{setup:?}");
        }
    }
}

#[test]
fn a_panic_ends_the_server_by_a_signal_or_as_use_exit_on_panic_says() {
    for setup in SETUPS {
        for options in [&[][..], &["--use-exit-on-panic", "yes"]] {
            for change in [None, Some("no"), Some("yes")] {
                let mut server = Server::start_with(setup, options);
                let mut client = server.connect();
                if let Some(exits) = change {
                    assert_eq!(client.call(&["CONFIG", "SET", "use-exit-on-panic", exits]), "+OK\r\n");
                }
                client.request(&[b"DEBUG", b"PANIC"]);
                let exits = change.unwrap_or(if options.is_empty() { "no" } else { "yes" });
                assert_eq!(server.wait(), (exits == "yes").then_some(1), "{options:?}, {change:?}");
            }
        }
    }
}

#[test]
fn the_log_has_the_logo_if_it_is_wanted_and_says_what_scripts_do_not_get() {
    let options = ["--always-show-logo", "yes", "--lua-enable-deprecated-api", "yes"];
    let mut server = Server::spawn(SETUPS[0], free_port(), &options);
    let warning = server.wait_for_line("lua-enable-deprecated-api");
    assert!(warning.contains("no newproxy, setfenv and getfenv in scripts"), "{warning}");
    server.wait_for_line("Running in standalone mode");
    server.wait_for_line(&format!("Port: {}", server.port));
    server.wait_for_line(&format!("PID: {}", server.pid()));
    server.wait_for_line("Ready to accept");
}

#[test]
fn a_killed_server_leaves_its_port_free_for_the_next_one() {
    for setup in SETUPS {
        let mut server = Server::start(setup);
        let port = server.port;
        let mut client = server.connect();
        assert_eq!(client.call(&["PING"]), "+PONG\r\n");
        server.signal(libc::SIGKILL);
        assert_eq!(server.wait(), None);
        let mut next = Server::spawn(setup, port, &[]);
        next.wait_for_line("Ready to accept");
        assert_eq!(next.connect().call(&["PING"]), "+PONG\r\n");
    }
}

#[test]
fn a_port_in_use_is_an_error_at_start() {
    for setup in SETUPS {
        let port = free_port();
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("it was free just now");
        let mut server = Server::spawn(setup, port, &["--bind", "127.0.0.1"]);
        server.wait_for_line(&format!("Failed listening on port {port} (TCP), aborting."));
        assert!(server.wait().is_some_and(|code| code != 0), "{setup:?}");
    }
}

#[test]
fn what_would_promise_too_much_is_refused_at_start() {
    for args in [["--tls-port", "6380"], ["--cluster-enabled", "yes"], ["--dir", "/nowhere/at/all"]] {
        let mut server = Server::spawn(SETUPS[0], free_port(), &args);
        assert!(server.wait().is_some_and(|code| code != 0), "{args:?}");
    }
}

#[test]
fn a_shard_that_stands_still_is_reported_with_its_command() {
    for setup in SETUPS {
        let mut server = Server::start(setup);
        let mut client = server.connect();
        assert_eq!(client.call(&["CONFIG", "SET", "watchdog-period", "200"]), "+OK\r\n");
        assert_eq!(client.call(&["DEBUG", "SLEEP", "1"]), "+OK\r\n");
        let line = server.wait_for_line("in debugCommand");
        assert!(line.contains("Shard: "), "{setup:?}: {line}");
        server.wait_for_line("STACK TRACE");
        assert_eq!(client.call(&["CONFIG", "SET", "watchdog-period", "0"]), "+OK\r\n");
    }
}

#[test]
fn a_signal_that_the_server_has_not_come_to_yet_is_taken_back() {
    for setup in SETUPS {
        let mut server = Server::start(setup);
        let mut client = server.connect();
        assert_eq!(client.call(&["SHUTDOWN", "ABORT"]), "-ERR No shutdown in progress.\r\n");
        assert_eq!(client.call(&["DEBUG", "PAUSE-CRON", "1"]), "+OK\r\n");
        server.signal(libc::SIGTERM);
        server.wait_for_line("Received SIGTERM scheduling shutdown");
        assert_eq!(client.call(&["SHUTDOWN", "ABORT"]), "+OK\r\n");
        server.wait_for_line("Shutdown manually aborted");
        assert_eq!(client.call(&["SHUTDOWN", "ABORT"]), "-ERR No shutdown in progress.\r\n");
        assert_eq!(client.call(&["DEBUG", "PAUSE-CRON", "0"]), "+OK\r\n");
        assert_eq!(client.call(&["PING"]), "+PONG\r\n");
    }
}

#[test]
fn a_second_sigint_breaks_the_last_save_off_and_leaves_no_file_behind() {
    for setup in SETUPS {
        let dir = Dir::new("insist");
        let place = dir.0.to_str().expect("a plain path");
        let mut server = Server::start_with(setup, &["--dir", place, "--save", "900 1"]);
        let mut client = server.connect();
        for key in ["a", "b", "c", "d"] {
            assert_eq!(client.call(&["SET", key, "1"]), "+OK\r\n");
        }
        assert_eq!(client.call(&["CONFIG", "SET", "rdb-key-save-delay", "10000000"]), "+OK\r\n");
        let temporary = dir.path(&format!("temp-{}.rdb", server.pid()));
        server.signal(libc::SIGINT);
        wait_until("it saves", || temporary.exists());
        server.signal(libc::SIGINT);
        server.wait_for_line("You insist... exiting now.");
        assert_eq!(server.wait(), Some(1), "{setup:?}");
        assert!(!temporary.exists() && !dir.path("dump.rdb").exists(), "{setup:?}");
    }
}

#[test]
fn shutdown_nosave_ends_the_server() {
    for setup in SETUPS {
        let mut server = Server::start(setup);
        let mut client = server.connect();
        client.send(b"SHUTDOWN NOSAVE\r\n");
        assert_eq!(client.rest(), b"", "{setup:?}");
        assert_eq!(server.wait(), Some(0), "{setup:?}");
    }
}

/// As unit files and the official suite call it; what it says about its configuration is true.
#[test]
fn a_link_named_redis_server_starts_it() {
    let link = std::env::temp_dir().join(format!("shardis-test-{}/redis-server", std::process::id()));
    std::fs::create_dir_all(link.parent().expect("it has one")).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_shardis"), &link).expect("a link");
    let mut server = Server::spawn_binary(&link, SETUPS[1], free_port(), &[]);
    server.wait_for_line("Configuration loaded");
    server.wait_for_line("Ready to accept");
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).expect("it runs");
    let executable = link.to_str().expect("a path in UTF-8");
    assert!(title.starts_with(&format!("{executable} *:{}", server.port)), "{title}");
    assert_eq!(server.connect().call(&["PING"]), "+PONG\r\n");
    assert!(server.connect().call(&["INFO", "server"]).contains(&format!("\r\nexecutable:{executable}\r\n")));
    std::fs::remove_dir_all(link.parent().expect("it has one")).expect("it is ours");
}

/// A program that lowers its limit on open files and then becomes the server.
fn with_open_files(count: usize) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("shardis-{}-files-{count}", std::process::id()));
    let script = format!("#!/bin/sh\nulimit -n {count}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_shardis"));
    std::fs::write(&path, script).expect("a temporary file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

/// Lines and numbers as Redis 7.0.15 has them.
#[test]
fn a_low_limit_on_open_files_lowers_maxclients_and_a_very_low_one_is_an_error() {
    for setup in SETUPS {
        let program = with_open_files(64);
        let mut server = Server::spawn_binary(&program, setup, free_port(), &[]);
        server.wait_for_line("Ready to accept");
        let reply = server.connect().call(&["CONFIG", "GET", "maxclients"]);
        std::fs::remove_file(program).expect("it is there");
        if reply.contains("10000") {
            eprintln!("left out: this process may raise its limit on open files");
            return;
        }
        // Redis sets 32 aside. Three shards have more of their own.
        let reduced = if setup.shards == 1 { "32" } else { "24" };
        assert!(reply.ends_with(&format!("\r\n{reduced}\r\n")), "{setup:?}: {reply}");

        let program = with_open_files(30);
        let mut server = Server::spawn_binary(&program, setup, free_port(), &[]);
        let line = server.wait_for_line("Your current 'ulimit -n'");
        std::fs::remove_file(program).expect("it is there");
        if setup.shards == 1 {
            let text = "of 30 is not enough for the server to start. Please increase your open file limit to at least \
                        10032. Exiting.";
            assert!(line.contains(text), "{line}");
        }
        assert_eq!(server.wait(), Some(1));
    }
}

#[test]
fn a_crash_report_names_the_command() {
    for setup in SETUPS {
        let mut server = Server::start(setup);
        server.connect().request(&[b"DEBUG", b"SEGFAULT"]);
        let line = server.wait_for_line(", command: ");
        assert!(line.contains("command: debug"), "{setup:?}: {line}");
        assert_eq!(server.wait(), None);
    }
}
