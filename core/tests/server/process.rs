//! Starting, stopping, and starting wrongly.

use crate::harness::{SETUPS, Server, free_port};
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
    for args in [["--appendonly", "yes"], ["--cluster-enabled", "yes"], ["--dir", "/nowhere/at/all"]] {
        let mut server = Server::spawn(SETUPS[0], free_port(), &args);
        assert!(server.wait().is_some_and(|code| code != 0), "{args:?}");
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
