//! Clients that misbehave: the server answers as Redis does, bounds what it keeps, and serves the others.

use crate::harness::{Connection, PATIENCE, SETUPS, Server, encode, wait_until};
use std::io::Write;
use std::time::Instant;

/// (what is sent, what the last line of the answer starts with); the connection is closed afterwards.
const FATAL: [(&[u8], &str); 8] = [
    (b"*3000000000\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*1\r\nfoo\r\n", "-ERR Protocol error: expected '$', got 'f'"),
    (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "-ERR Protocol error: expected '$', got 'f'"),
    (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2000000000\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$blabla\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"set x \"unbalanced\r\n", "-ERR Protocol error: unbalanced quotes in request"),
    (b"*99999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length"),
];

#[test]
fn bytes_that_are_no_request_get_redis_error_and_end_the_connection() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut other = server.connect();
        for (bytes, expected) in FATAL {
            let mut client = server.connect();
            client.send(b"PING\r\n");
            client.send(bytes);
            let rest = String::from_utf8_lossy(&client.rest()).into_owned();
            let answer = rest.strip_prefix("+PONG\r\n").unwrap_or_else(|| panic!("{setup:?}: {rest:?}"));
            assert!(
                answer.starts_with(expected),
                "{setup:?} {:?}: {answer:?}",
                bytes.escape_ascii().to_string()
            );
            assert_eq!(other.call(&["PING"]), "+PONG\r\n");
        }
    }
}

#[test]
fn a_declared_length_costs_nothing_until_its_bytes_arrive() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let before = server.rss_bytes();
        let mut clients: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$500000000\r\nabc");
        }
        assert_eq!(server.connect().call(&["PING"]), "+PONG\r\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let grown = server.rss_bytes().saturating_sub(before);
        assert!(grown < 100 << 20, "{setup:?}: {grown} bytes for promises");
    }
}

#[test]
fn an_endless_inline_line_is_cut_off() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let before = server.rss_bytes();
        let mut client = server.connect();
        let chunk = vec![b'A'; 1 << 20];
        let mut sent = 0usize;
        // The server hangs up after 64 KiB; what is on its way then is lost.
        while sent < 1 << 30 && client.stream.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 1 << 30, "{setup:?}: the server read a gigabyte of one line");
        assert!(server.rss_bytes().saturating_sub(before) < 64 << 20);
        assert_eq!(server.connect().call(&["PING"]), "+PONG\r\n");
    }
}

#[test]
fn values_of_many_megabytes_go_in_and_out_unharmed() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        for (n, len) in [100, 16 << 10, 32 << 10, (32 << 10) + 1, 1 << 20, 40 << 20].into_iter().enumerate() {
            let key = format!("big:{n}");
            let value: Vec<u8> = (0..len).map(|i| (i * 31 + n) as u8).collect();
            // Two requests behind it in the same write: they must not be swallowed by the big one.
            let mut bytes = encode(&[b"SET", key.as_bytes(), &value]);
            bytes.extend(encode(&[b"STRLEN", key.as_bytes()]));
            bytes.extend(encode(&[b"PING"]));
            client.send(&bytes);
            assert_eq!(client.reply(), b"+OK\r\n", "{setup:?} {len}");
            assert_eq!(client.reply(), format!(":{len}\r\n").into_bytes());
            assert_eq!(client.reply(), b"+PONG\r\n");
            client.request(&[b"GET", key.as_bytes()]);
            let reply = client.reply();
            let start = reply.iter().position(|&byte| byte == b'\n').expect("a length line") + 1;
            assert!(reply[start..reply.len() - 2] == value[..], "{setup:?}: {len} bytes came back changed");
        }
    }
}

#[test]
fn a_client_that_never_reads_is_cut_off_at_its_limit_and_nobody_else() {
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--client-output-buffer-limit", "normal 20mb 0 0"]);
        let mut other = server.connect();
        let value = "x".repeat(1 << 20);
        assert_eq!(other.call(&["SET", "big", &value]), "+OK\r\n");
        let before = server.rss_bytes();
        let mut deaf = server.connect();
        let request = encode(&[b"GET", b"big"]);
        let deadline = Instant::now() + PATIENCE;
        while deaf.stream.write_all(&request).is_ok() {
            assert!(Instant::now() < deadline, "{setup:?}: it is not cut off");
            assert!(server.rss_bytes().saturating_sub(before) < 200 << 20, "{setup:?}");
            assert_eq!(other.call(&["PING"]), "+PONG\r\n");
        }
        assert_eq!(other.call(&["STRLEN", "big"]), format!(":{}\r\n", value.len()));
    }
}

/// The replies of a pipeline that arrived in one piece are many times its length, and the limit holds for them, too.
#[test]
fn a_pipeline_of_small_requests_for_big_replies_is_cut_off_at_its_limit() {
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--client-output-buffer-limit", "normal 20mb 0 0"]);
        let mut other = server.connect();
        let value = "x".repeat(1 << 20);
        for n in 0..setup.shards * 4 {
            assert_eq!(other.call(&["SET", &format!("big:{n}"), &value]), "+OK\r\n");
        }
        let before = server.rss_bytes();
        for n in 0..setup.shards * 4 {
            let mut deaf = server.connect();
            assert_eq!(deaf.call(&["PING"]), "+PONG\r\n");
            let request = encode(&[b"GET", format!("big:{n}").as_bytes()]);
            // The server may hang up while this is being sent.
            let _ = deaf.stream.write_all(&request.repeat(2_000));
            wait_until("it is cut off", || {
                let grown = server.rss_bytes().saturating_sub(before);
                assert!(grown < 150 << 20, "{setup:?}: {grown} bytes for a client that reads nothing");
                other.info("clients", "connected_clients") == "1"
            });
        }
    }
}

#[test]
fn connections_that_die_in_the_middle_of_a_pipeline_disturb_nobody() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut other = server.connect();
        for n in 0..300 {
            let mut client = server.connect();
            let mut bytes = Vec::new();
            for m in 0..50 {
                bytes.extend(encode(&[
                    b"MSET",
                    format!("k{m}").as_bytes(),
                    b"1",
                    format!("l{n}").as_bytes(),
                    b"2",
                ]));
                bytes.extend(encode(&[b"GET", format!("k{n}").as_bytes()]));
            }
            client.send(&bytes[..bytes.len() - n % 40]);
            drop(client);
            if n % 20 == 0 {
                assert_eq!(other.call(&["PING"]), "+PONG\r\n");
            }
        }
        assert_eq!(
            other.call(&["MSET", "k1", "a", "l1", "b", "k2", "c"]),
            "+OK\r\n",
            "{setup:?}: a lock was left"
        );
    }
}

#[test]
fn unknown_commands_and_wrong_arity_change_nothing() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        assert_eq!(
            client.call(&["NOSUCH", "a", "b"]),
            "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' \r\n"
        );
        assert_eq!(client.call(&["GET"]), "-ERR wrong number of arguments for 'get' command\r\n");
        assert_eq!(
            client.call(&["CLIENT", "NOSUCH"]),
            "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n"
        );
        assert_eq!(
            client.call(&["MSET", "a", "1", "b"]),
            "-ERR wrong number of arguments for 'mset' command\r\n"
        );
        assert_eq!(client.call(&["DBSIZE"]), ":0\r\n", "{setup:?}");
    }
}
