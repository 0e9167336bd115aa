//! What modules do that they must not do: `gone.c`, and the SDK's tour.

use super::{ENABLED, KEYS, compiled, expect};
use crate::harness::{SETUPS, Server, Setup};
use shardis_modules_testing::Library;

const FAILED: &str = "-ERR Error loading the extension. Please check the server logs.\r\n";

/// The report of the crash says what the words are that end it, and names the module and what it was called for.
#[test]
fn a_report_names_the_module_and_the_callback_whatever_kind_of_module_it_is() {
    let path = compiled("gone", "report");
    let path = path.to_str().expect("a path in UTF-8");
    let wrong = |what: &'static str| vec!["GONE.WRONG", what, KEYS[1]];
    let command = "Module: gone, callback: command";
    for (request, told) in [
        (wrong("crash"), vec![command]),
        (
            vec!["COMMAND", "GETKEYS", "GONE.KEYS", "crash", KEYS[1]],
            vec!["Module: gone, callback: key positions"],
        ),
        (wrong("thread"), vec!["Crashed in: ", "gone-report.so"]),
        (wrong("thread-with-lock"), vec!["Module: gone, callback: thread with the lock"]),
        (wrong("free-twice"), vec!["a module has freed a string once more than it may", command]),
        (wrong("free-argument"), vec!["the module \"gone\" has freed an argument"]),
    ] {
        for setup in [SETUPS[0], Setup { shards: 3, io_backend: "epoll" }] {
            for arguments in [&["--loadmodule", path][..], &["--loadmodule", path, "safe"]] {
                let mut server = Server::start_with(setup, arguments);
                let words: Vec<&[u8]> = request.iter().map(|word| word.as_bytes()).collect();
                server.connect().request(&words);
                let line = server.wait_for_line(told[0]);
                for text in &told[1..] {
                    assert!(line.contains(text) || server.wait_for_line(text).contains(text), "{request:?}");
                }
                assert_eq!(server.wait(), None, "{setup:?} {request:?}");
            }
        }
    }
}

/// The entry of the SDK lets no panic unwind into the server.
#[test]
fn a_panic_in_a_module_in_rust_ends_the_server_and_names_module_and_command() {
    let path = Library::Example("shardis-modules-api", "tour").path();
    for setup in SETUPS {
        let mut server =
            Server::start_with(setup, &["--loadmodule", path.to_str().expect("a path in UTF-8")]);
        let mut client = server.connect();
        client.request(&[b"TOUR.PANIC"]);
        // What has panicked says so on the standard error, and aborts.
        server.wait_for_line("Module: tour, callback: command");
        assert!(client.rest().is_empty());
        assert_eq!(server.wait(), None);
    }
}

/// As in Redis, which leaves it to the module to ask what the server has.
#[test]
fn a_module_for_another_version_of_the_api_is_loaded_and_says_so() {
    let path = compiled("gone", "api");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &ENABLED);
        let mut client = server.connect();
        expect(&mut client, &["MODULE", "LOAD", path, "api"], "+OK\r\n");
        assert!(client.call(&["INFO", "modules"]).contains("name=gone,ver=1,api=99,"));
        expect(&mut client, &["GONE.CALLS"], ":1\r\n");
    }
}

#[test]
fn the_name_of_a_type_is_taken_while_its_module_is_there() {
    let (path, other) = (compiled("gone", "type"), compiled("values", "type"));
    let path = path.to_str().expect("a path in UTF-8");
    let other = other.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &[&ENABLED[..], &["--loadmodule", other]].concat());
        let mut client = server.connect();
        KEYS.iter().for_each(|key| expect(&mut client, &["SEQ.ADD", key, "7"], ":1\r\n"));
        for kind in [&["type"][..], &["safe", "type"]] {
            expect(&mut client, &[&["MODULE", "LOAD", path][..], kind].concat(), FAILED);
        }
        assert!(client.call(&["GONE.CALLS"]).starts_with("-ERR unknown command"));
        // The other one has it still.
        KEYS.iter().for_each(|key| expect(&mut client, &["SEQ.ADD", key, "8"], ":2\r\n"));
        expect(&mut client, &["MODULE", "LOAD", path], "+OK\r\n");

        let server = Server::start_with(setup, &ENABLED);
        let mut client = server.connect();
        expect(&mut client, &["MODULE", "LOAD", path, "type"], "+OK\r\n");
        expect(&mut client, &["MODULE", "LOAD", other], FAILED);
        expect(
            &mut client,
            &["MODULE", "UNLOAD", "gone"],
            "-ERR Error unloading module: the module exports one or more module-side data types, can't unload\r\n",
        );
    }
}
