//! Thousands of connections at once, and thousands that come and go: nobody else notices, memory stays bounded, and
//! every descriptor comes back.

use crate::harness::{
    Connection, Server, Setup, StopOnDrop, encode, end_with_a_reset, raise_open_files_limit, wait_until,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const CROWD: usize = 10_000;

/// Descriptors of this process, and of a server, that are not for the crowd. Other tests run beside this one.
const RESERVED_FILES: usize = 2_000;

/// An idle connection costs its server at most so much memory.
const IDLE_BYTES_MAX: usize = 2 << 10;

const SETUPS: [Setup; 2] =
    [Setup { shards: 3, io_backend: "uring" }, Setup { shards: 3, io_backend: "epoll" }];

/// As many as this machine allows.
pub fn crowd_size() -> usize {
    let size = CROWD.min(raise_open_files_limit().saturating_sub(RESERVED_FILES));
    if size < CROWD {
        eprintln!("{size} connections instead of {CROWD}: the limit on open files allows no more");
    }
    assert!(size >= 100, "a crowd of {size} shows nothing");
    size
}

/// Somebody who works while `during` runs, and finds everything as it should be.
fn with_a_worker(server: &Server, during: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut client = server.connect();
            let mut rounds = 0u32;
            while !stop.load(Ordering::Relaxed) {
                let value = rounds.to_string();
                assert_eq!(client.call(&["MSET", "a", &value, "b", &value, "c", &value]), "+OK\r\n");
                let expected = format!("${}\r\n{value}\r\n", value.len());
                assert_eq!(client.call(&["GET", "b"]), expected);
                assert_eq!(client.call(&["MGET", "c", "a"]), format!("*2\r\n{expected}{expected}"));
                rounds += 1;
            }
            rounds
        });
        let stop_at_end = StopOnDrop(&stop);
        during();
        drop(stop_at_end);
        assert!(worker.join().expect("its replies were right") > 0, "the worker was never served");
    });
}

fn connected(client: &mut Connection) -> usize {
    client.info("clients", "connected_clients").parse().expect("a number")
}

/// Descriptors of the server when every shard has begun to serve and only the administrator is connected.
fn settled_file_count(server: &Server, admin: &mut Connection, setup: Setup) -> usize {
    let mut clients: Vec<Connection> = (0..2 * setup.shards).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.call(&["PING"]), "+PONG\r\n");
    }
    drop(clients);
    wait_until("only the administrator is left", || connected(admin) == 1);
    server.open_file_count()
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_are_all_served() {
    let size = crowd_size();
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--maxclients", &(size + 100).to_string()]);
        let mut admin = server.connect();
        let (files, memory) = (settled_file_count(&server, &mut admin, setup), server.rss_bytes());

        let mut crowd = Vec::with_capacity(size);
        with_a_worker(&server, || {
            for _ in 0..size {
                crowd.push(TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts"));
            }
            // The worker is the one beside the crowd and the administrator.
            wait_until("all are there", || connected(&mut admin) == size + 2);
        });
        wait_until("the worker has left", || connected(&mut admin) == size + 1);
        let grown = server.rss_bytes().saturating_sub(memory);
        assert!(grown < size * IDLE_BYTES_MAX, "{setup:?}: {} bytes a connection", grown / size);
        assert!(server.open_file_count() >= files + size);

        with_a_worker(&server, || {
            for (n, client) in crowd.iter_mut().enumerate() {
                client.write_all(&encode(&[b"ECHO", n.to_string().as_bytes()])).expect("the server reads");
            }
            for (n, client) in crowd.iter_mut().enumerate() {
                let expected = format!("${}\r\n{n}\r\n", n.to_string().len());
                let mut reply = vec![0; expected.len()];
                client.read_exact(&mut reply).expect("a reply");
                assert_eq!(reply, expected.as_bytes(), "{setup:?}");
            }
        });

        drop(crowd);
        wait_until("all have left", || connected(&mut admin) == 1);
        wait_until("their descriptors are back", || server.open_file_count() <= files);
    }
}

/// Leaves in one of the ways in which connections end.
fn come_and_go(port: u16, n: usize) {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
    let key = format!("churn:{}", n % 50);
    match n % 6 {
        0 => {}
        1 => {
            client.write_all(b"PING\r\n").expect("the server reads");
            let mut reply = [0; 7];
            client.read_exact(&mut reply).expect("a reply");
            assert_eq!(&reply, b"+PONG\r\n");
        }
        // Half a request.
        2 => client.write_all(b"*3\r\n$3\r\nSET\r\n$5\r\nchu").expect("the server reads"),
        // Replies that nobody reads.
        3 => {
            client.write_all(&encode(&[b"MGET", key.as_bytes(), b"a", b"b", b"c"])).expect("the server reads")
        }
        4 => {
            let requests = encode(&[b"SET", key.as_bytes(), b"x"]).repeat(20);
            client.write_all(&requests).expect("the server reads");
            end_with_a_reset(&client);
        }
        _ => {
            client.write_all(b"QUIT\r\n").expect("the server reads");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).expect("an end");
            assert_eq!(rest, b"+OK\r\n");
        }
    }
}

#[test]
fn ten_thousand_churning_connections_leave_nothing_behind() {
    const THREADS: usize = 8;
    let size = crowd_size();
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        let files = settled_file_count(&server, &mut admin, setup);
        let mut memory = Vec::new();
        for _ in 0..3 {
            with_a_worker(&server, || {
                thread::scope(|scope| {
                    for first in 0..THREADS {
                        let port = server.port;
                        scope
                            .spawn(move || (first..size).step_by(THREADS).for_each(|n| come_and_go(port, n)));
                    }
                });
            });
            // Who comes now is accepted behind all of them.
            assert_eq!(server.connect().call(&["PING"]), "+PONG\r\n");
            wait_until("all have left", || connected(&mut admin) == 1);
            wait_until("their descriptors are back", || server.open_file_count() <= files);
            memory.push(server.rss_bytes());
        }
        // The kernel loses those that reset while its queue of new connections is full.
        let received: usize = admin.info("stats", "total_connections_received").parse().expect("a number");
        assert!(received > 3 * size * 9 / 10, "{setup:?}: {received} of {}", 3 * size);
        // What the first crowd needed, the later ones use again.
        let leaked = memory[2].saturating_sub(memory[0]);
        assert!(leaked < size * 400, "{setup:?}: {memory:?}");
    }
}
