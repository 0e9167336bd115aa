//! Replies that are many bytes: when Redis cuts their client off, and what they cost others.

use crate::harness::{Connection, SETUPS, Server, encode, wait_until};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Whether a new client gets all the replies to its requests, or is cut off without a byte.
fn is_answered(server: &Server, requests: &[u8], replies_len: usize) -> bool {
    let mut client = server.connect();
    client.send(requests);
    let mut replies = vec![0; replies_len];
    client.stream.read_exact(&mut replies).is_ok()
}

/// Redis has a reply buffer of 16 KiB, which does not count, and behind it blocks, which do, with 20,504 bytes each. The
/// values are those of Redis 7.0.15.
#[test]
fn client_output_buffer_limit_counts_what_is_beyond_the_reply_buffer() {
    // (limit, length of a value, whether GET is answered)
    let cases = [
        ("1 1 1", 10_000, true),
        ("1 1 1", 16_374, true),
        ("1 1 1", 16_375, false),
        ("5000 0 0", 10_000, true),
        ("5000 0 0", 16_375, false),
        ("20504 0 0", 16_375, false),
        ("20505 0 0", 16_375, true),
        ("20505 0 0", 36_838, true),
        ("20505 0 0", 36_839, false),
        ("41008 0 0", 36_839, false),
        ("41009 0 0", 36_839, true),
    ];
    for setup in SETUPS {
        let server = Server::start(setup);
        for (limit, len, answered) in cases {
            let mut other = server.connect();
            assert_eq!(other.call(&["SET", "v", &"x".repeat(len)]), "+OK\r\n");
            let set = ["CONFIG", "SET", "client-output-buffer-limit", &format!("normal {limit}")];
            assert_eq!(other.call(&set), "+OK\r\n");
            let reply_len = format!("${len}\r\n").len() + len + 2;
            let is = is_answered(&server, &encode(&[b"GET", b"v"]), reply_len);
            assert_eq!(is, answered, "{setup:?}: limit {limit}, {len} bytes");
            assert_eq!(other.call(&["PING"]), "+PONG\r\n", "short replies do not count");
            let unlimited = ["CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0"];
            assert_eq!(other.call(&unlimited), "+OK\r\n");
        }
    }
}

/// What stands behind the command that went beyond the limit does not run.
#[test]
fn a_pipeline_ends_where_its_replies_exceed_the_limit() {
    for setup in SETUPS.into_iter().filter(|setup| setup.shards == 1) {
        let server = Server::start_with(setup, &["--client-output-buffer-limit", "normal 100000 0 0"]);
        let mut other = server.connect();
        assert_eq!(other.call(&["SET", "big", &"x".repeat(10_000)]), "+OK\r\n");
        let mut client = server.connect();
        let mut bytes = encode(&[b"SET", b"k1", b"v1"]);
        bytes.extend(encode(&[b"GET", b"big"]).repeat(20));
        bytes.extend(encode(&[b"SET", b"k2", b"v2"]));
        client.send(&bytes);
        assert!(client.rest().is_empty(), "{setup:?}");
        assert_eq!(other.call(&["MGET", "k1", "k2"]), "*2\r\n$2\r\nv1\r\n$-1\r\n");
    }
}

/// 300 GETs of a megabyte are read as one input. They neither hold up others nor pile up.
#[test]
fn a_pipeline_of_big_replies_holds_nobody_up_and_does_not_pile_up() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut other = server.connect();
        let value = "x".repeat(1_000_000);
        assert_eq!(other.call(&["SET", "big", &value]), "+OK\r\n");
        let before = server.rss_bytes();
        let mut client = server.connect();
        client.send(&encode(&[b"GET", b"big"]).repeat(300));
        let mut reply = vec![0; value.len() + "$1000000\r\n\r\n".len()];
        let (mut worst, mut peak) = (Duration::ZERO, 0);
        for _ in 0..300 {
            let asked_at = Instant::now();
            assert_eq!(other.call(&["PING"]), "+PONG\r\n");
            worst = worst.max(asked_at.elapsed());
            peak = peak.max(server.rss_bytes());
            client.stream.read_exact(&mut reply).expect("all replies");
            assert!(reply.starts_with(b"$1000000\r\nxx") && reply.ends_with(b"xx\r\n"), "{setup:?}");
        }
        let grown = peak.saturating_sub(before);
        assert!(grown < 60 << 20, "{setup:?}: {grown} bytes");
        // All of them together take longer on any machine that this runs on at all busy.
        assert!(worst < Duration::from_secs(2), "{setup:?}: {worst:?}");
    }
}

/// It reads nothing before it has sent everything, which is more than all buffers on the way hold.
#[test]
fn a_client_that_sends_everything_before_it_reads_is_served() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        assert_eq!(client.call(&["SET", "k", &"x".repeat(200)]), "+OK\r\n");
        const COUNT: usize = 500_000;
        client.stream.write_all(&encode(&[b"GET", b"k"]).repeat(COUNT)).expect("the server reads");
        let mut left = COUNT * 208;
        let mut piece = vec![0; 1 << 20];
        while left > 0 {
            let len = client.stream.read(&mut piece).expect("more replies");
            assert!(len > 0, "{setup:?}: {left} bytes are missing");
            left -= len;
        }
        wait_until("it is done with", || client.call(&["PING"]) == "+PONG\r\n");
    }
}

/// It asks for replies, and never reads: it waits, with what it asked for, and costs others nothing.
#[test]
fn a_client_without_a_limit_that_never_reads_does_not_pile_up() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut other = server.connect();
        assert_eq!(other.call(&["SET", "big", &"x".repeat(1_000_000)]), "+OK\r\n");
        let before = server.rss_bytes();
        let mut deaf: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
        for client in &mut deaf {
            client.send(&encode(&[b"GET", b"big"]).repeat(300));
        }
        std::thread::sleep(Duration::from_millis(300));
        let grown = server.rss_bytes().saturating_sub(before);
        assert!(grown < 120 << 20, "{setup:?}: {grown} bytes");
        // Who goes away then is forgotten.
        drop(deaf);
        wait_until("they are gone", || other.info("clients", "connected_clients") == "1");
    }
}
