//! A C module that is unloaded while others call it: `gone.c`. What it does wrong is in [`wrong`](super::wrong).

use super::waits::{reply, request};
use super::{ENABLED, KEYS, compiled, expect};
use crate::harness::{Connection, SETUPS, Server, Setup, StopOnDrop, wait_until};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the module is loaded as: one that sees one callback at a time, and one whose commands are handlers of their shards.
const KINDS: [&[&str]; 2] = [&[], &["safe"]];

fn load(client: &mut Connection, path: &str, arguments: &[&str]) {
    let words: Vec<&str> = ["MODULE", "LOAD", path].iter().chain(arguments).copied().collect();
    assert_eq!(client.call(&words), "+OK\r\n", "{words:?}");
}

fn unload(client: &mut Connection) {
    expect(client, &["MODULE", "UNLOAD", "gone"], "+OK\r\n");
}

/// On several shards, commands are on their way when the module goes, and others run.
#[test]
fn a_module_is_unloaded_while_clients_of_all_shards_call_it() {
    let path = compiled("gone", "load");
    let path = path.to_str().expect("a path in UTF-8");
    const ROUNDS: usize = 40;
    let kinds: [&[&str]; 4] = [&["filter"], &["safe"], &["safe", "filter"], &["safe", "filter"]];
    for (setup, arguments) in SETUPS.into_iter().zip(kinds) {
        let server = Server::start_with(setup, &ENABLED);
        let mut admin = server.connect();
        KEYS.iter().for_each(|key| expect(&mut admin, &["SET", key, "12345"], "+OK\r\n"));
        let (stops, served) = (AtomicBool::new(false), AtomicU32::new(0));
        let act = |key: &str| {
            let mut client = server.connect();
            while !stops.load(Ordering::Relaxed) {
                (0..16).for_each(|_| request(&mut client, &["GONE.LEN", key]));
                for _ in 0..16 {
                    let reply = reply(&mut client);
                    let is_served = reply == ":5\r\n";
                    assert!(is_served || reply.starts_with("-ERR unknown command 'GONE.LEN'"), "{reply}");
                    served.fetch_add(u32::from(is_served), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stops);
            KEYS.iter().for_each(|key| drop(scope.spawn(|| act(key))));
            for _ in 0..ROUNDS {
                let before = served.load(Ordering::Relaxed);
                load(&mut admin, path, arguments);
                wait_until("clients are served", || served.load(Ordering::Relaxed) > before);
                unload(&mut admin);
            }
        });
        expect(&mut admin, &["GET", "unloads"], &format!("${}\r\n{ROUNDS}\r\n", ROUNDS.to_string().len()));
        expect(&mut admin, &["MODULE", "LIST"], "*0\r\n");
    }
}

#[test]
fn what_was_queued_when_a_module_went_is_unknown() {
    let path = compiled("gone", "queue");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        for arguments in KINDS {
            let server = Server::start_with(setup, &ENABLED);
            let (mut admin, mut client) = (server.connect(), server.connect());
            expect(&mut admin, &["SET", KEYS[1], "12345"], "+OK\r\n");
            load(&mut admin, path, arguments);
            expect(&mut client, &["MULTI"], "+OK\r\n");
            for words in [&["GONE.LEN", KEYS[1]][..], &["GONE.KEYS", "x", KEYS[2]], &["GET", KEYS[1]]] {
                expect(&mut client, words, "+QUEUED\r\n");
            }
            unload(&mut admin);
            let unknown = |name: &str, args: &str| {
                format!("-ERR unknown command '{name}', with args beginning with: {args} \r\n")
            };
            let len = unknown("GONE.LEN", "'key1'");
            let keys = unknown("GONE.KEYS", "'x' 'key2'");
            expect(&mut client, &["EXEC"], &format!("*3\r\n{len}{keys}$5\r\n12345\r\n"));

            // In one EXEC with what is before it and behind it.
            load(&mut admin, path, arguments);
            expect(&mut client, &["MULTI"], "+OK\r\n");
            for words in [&["GONE.LEN", KEYS[1]][..], &["MODULE", "UNLOAD", "gone"], &["GONE.LEN", KEYS[1]]] {
                expect(&mut client, words, "+QUEUED\r\n");
            }
            expect(&mut client, &["EXEC"], &format!("*3\r\n:5\r\n+OK\r\n{len}"));

            // A queue from before the module was loaded again calls the one that is there now.
            load(&mut admin, path, arguments);
            expect(&mut client, &["MULTI"], "+OK\r\n");
            expect(&mut client, &["GONE.LEN", KEYS[1]], "+QUEUED\r\n");
            unload(&mut admin);
            load(&mut admin, path, arguments);
            expect(&mut client, &["EXEC"], "*1\r\n:5\r\n");
        }
    }
}

/// A thread of another module has the lock, and a key. Behind it wait, in this order: the end of the module, a command of
/// it, and one that wants the key.
#[test]
fn what_waited_when_a_module_went_is_unknown() {
    let (path, waits) = (compiled("gone", "parked"), compiled("waits", "parked"));
    let path = path.to_str().expect("a path in UTF-8");
    let waits = waits.to_str().expect("a path in UTF-8");
    let until = std::env::temp_dir().join(format!("shardis-gone-{}", std::process::id()));
    let begun = until.with_extension("begun");
    for setup in SETUPS {
        for arguments in KINDS {
            let server = Server::start_with(setup, &[&ENABLED[..], &["--loadmodule", waits]].concat());
            let [mut admin, mut working, mut going, mut parked, mut on_key] =
                [(); 5].map(|()| server.connect());
            load(&mut admin, path, arguments);
            request(&mut working, &["WAIT.WORK", KEYS[0], "0", until.to_str().expect("a path in UTF-8")]);
            wait_until("the thread has the lock", || begun.exists());
            let has_begun = |admin: &mut Connection, command: &str| {
                wait_until(command, || admin.call(&["CLIENT", "LIST"]).contains(&format!(" cmd={command} ")));
            };
            request(&mut going, &["MODULE", "UNLOAD", "gone"]);
            has_begun(&mut admin, "module|unload");
            request(&mut parked, &["GONE.CALLS"]);
            has_begun(&mut admin, "gone.calls");
            request(&mut on_key, &["GONE.LEN", KEYS[0]]);
            has_begun(&mut admin, "gone.len");
            std::fs::write(&until, "").expect("the file can be written");
            assert_eq!(reply(&mut working), ":2\r\n");
            assert_eq!(reply(&mut going), "+OK\r\n");
            for (client, served) in [(&mut parked, ":1\r\n"), (&mut on_key, ":1\r\n")] {
                let reply = reply(client);
                // Those that wait on other shards, or for the key, may come first.
                assert!(reply == served || reply.starts_with("-ERR unknown command 'GONE."), "{reply}");
            }
            expect(
                &mut admin,
                &["MODULE", "UNLOAD", "gone"],
                "-ERR Error unloading module: no such module with that name\r\n",
            );
            for file in [&until, &begun] {
                std::fs::remove_file(file).expect("it is there");
            }
        }
    }
}

/// The library is closed before the client has its reply: what it had in its memory is not there any more.
#[test]
fn a_module_that_is_loaded_again_is_as_new() {
    let path = compiled("gone", "again");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        for arguments in KINDS {
            let server = Server::start_with(setup, &ENABLED);
            let mut client = server.connect();
            for _ in 0..10 {
                load(&mut client, path, arguments);
                expect(&mut client, &["GONE.CALLS"], ":1\r\n");
                expect(&mut client, &["GONE.CALLS"], ":2\r\n");
                unload(&mut client);
            }
            expect(&mut client, &["GET", "unloads"], "$2\r\n10\r\n");
        }
    }
}

/// One that fails while it is loaded may have registered anything.
#[test]
fn a_module_that_fails_in_the_end_is_called_for_nothing() {
    let path = compiled("gone", "fail");
    let path = path.to_str().expect("a path in UTF-8");
    let failed = "-ERR Error loading the extension. Please check the server logs.\r\n";
    for setup in [SETUPS[0], Setup { shards: 3, io_backend: "epoll" }] {
        let server = Server::start_with(setup, &ENABLED);
        let mut client = server.connect();
        for _ in 0..10 {
            expect(&mut client, &["MODULE", "LOAD", path, "filter", "type", "fail"], failed);
            expect(&mut client, &["SET", KEYS[2], "x"], "+OK\r\n");
            assert!(client.call(&["GONE.CALLS"]).starts_with("-ERR unknown command"));
        }
        expect(&mut client, &["MODULE", "LIST"], "*0\r\n");
        load(&mut client, path, &["filter"]);
        expect(&mut client, &["GONE.CALLS"], ":1\r\n");
    }
}
