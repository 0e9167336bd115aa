//! A single worker under a clock that moves only when it sleeps. For tests of measurements, each reading of its ticks
//! advances them by `look_nanos`.

use super::*;
use crate::command::admission::PauseKind;
use crate::config::Config;
use crate::runtime::driver::{Events, PeerAddr};
use crate::session::FAMILIES;
use crate::shard::slot::shard_of;
use crate::worker::GlobalsInit;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
pub(super) struct Sleeper {
    now_ms: AtomicI64,
    ticks: AtomicU64,
    pub(super) look_nanos: AtomicU64,
    pub(super) allocated_bytes: AtomicI64,
}

impl Clock for Sleeper {
    fn wall_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn wall_us(&self) -> i64 {
        self.wall_ms() * 1000
    }

    fn ticks(&self) -> u64 {
        self.ticks.fetch_add(self.look_nanos.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    fn ticks_to_nanos(&self, ticks: u64) -> u64 {
        ticks
    }

    fn thread_allocated_bytes(&self) -> i64 {
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    fn sleep(&self, duration: Duration) {
        self.now_ms.fetch_add(duration.as_millis() as i64, Ordering::Relaxed);
    }
}

pub(super) fn worker_alone() -> (Worker, &'static Sleeper) {
    first_of(1)
}

/// A connection that nothing is known of.
pub(super) fn plain_connection() -> NewConnectionInfo {
    NewConnectionInfo {
        addr: String::new(),
        laddr: String::new(),
        unix_socket: false,
        tls: false,
        is_denied: false,
        is_server: false,
    }
}

/// The first of so many shards; the others are not there.
pub(super) fn first_of(shard_count: usize) -> (Worker, &'static Sleeper) {
    let globals: &'static Globals = Box::leak(Box::new(Globals::new(GlobalsInit {
        tls: crate::runtime::tls::Tls::default(),
        config: Config::default(),
        table: CommandTable::new(FAMILIES, &[]).expect("nothing is renamed"),
        shard_count,
        seed: 1,
        run_id: String::new(),
        started_at_ms: 0,
        io_backend: "none",
        executable: String::new(),
    })));
    let clock: &'static Sleeper = Box::leak(Box::default());
    (Worker::new(0, globals, clock), clock)
}

/// A paused client that was killed used to be counted once more with the client that took its connection index.
#[test]
fn a_client_that_is_paused_and_killed_is_not_counted_as_blocked_any_more() {
    let (mut worker, _) = worker_alone();
    worker.globals.set_pause(1_000_000, PauseKind::All, PauseReason::Client, 0);
    let conns = [ConnId::new(0, 0), ConnId::new(0, 1)];
    for (n, conn) in conns.into_iter().enumerate() {
        worker.connected(conn, n as i32, plain_connection());
        worker.begin_turn();
        worker.received(conn, b"PING\r\n");
        worker.end_turn();
        assert_eq!(worker.shard.stats.blocked_clients.get(), 1);
        if n == 0 {
            worker.close_now(conn.index());
            worker.end_turn();
            assert_eq!(worker.shard.stats.blocked_clients.get(), 0);
            worker.requests.clear();
        }
    }
}

#[test]
fn a_shard_sleeps_through_a_stall_before_it_does_anything_else() {
    let (mut worker, _) = worker_alone();

    worker.globals.stall(500);
    worker.before_wait();
    worker.begin_turn();
    assert_eq!(worker.shard.now_ms, 500);

    worker.before_wait();
    worker.begin_turn();
    assert_eq!(worker.shard.now_ms, 500, "a stall is slept through once");
}

/// What a client has under way at other shards is bounded in bytes, too.
#[test]
fn fewer_big_requests_than_small_ones_are_under_way_to_other_shards() {
    for (value_len, under_way) in [(10, 1024), (20_000, 16)] {
        let (mut worker, _) = first_of(2);
        let conn = ConnId::new(0, 0);
        worker.connected(conn, 0, plain_connection());
        let elsewhere = (0..).map(|n| format!("key:{n}")).filter(|key| shard_of(key.as_bytes(), 2) == 1);
        let value = "x".repeat(value_len);
        let requests: String = elsewhere.take(2_000).map(|key| format!("SET {key} {value}\r\n")).collect();
        worker.connections[0].as_deref_mut().unwrap().pending_max = 1024;
        worker.begin_turn();
        worker.received(conn, requests.as_bytes());
        let connection = worker.connections[0].as_deref().unwrap();
        assert_eq!(connection.pending.len(), under_way, "values of {value_len} bytes");
    }
}

/// Before the handshake there is nothing that could be said to an encrypted client: it is told afterwards, by the layer that
/// encrypts, and none of its requests runs.
#[test]
fn protected_mode_refuses_encrypted_clients_from_elsewhere_too() {
    let (mut worker, _) = worker_alone();
    const TLS_LISTENER: usize = 7;
    worker.set_tls_listeners(vec![TLS_LISTENER]);
    let [here, elsewhere] =
        ["127.0.0.1:1000", "192.0.2.1:1000"].map(|addr| PeerAddr::Tcp(addr.parse().unwrap()));
    let mut accept = |listener: usize, peer: PeerAddr| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        worker.accepted(listener, ours.into(), peer);
        let adopted = worker.requests.pop();
        // Of a connection that is still open, reading finds nothing.
        let said = std::io::read_to_string(theirs).unwrap_or_default();
        (adopted, said)
    };
    let (refused, said) = accept(1, elsewhere);
    assert!(refused.is_none() && said.starts_with("-DENIED "), "a plain client is told at once: {said}");
    let (Some(IoRequest::Adopt(welcome)), _) = accept(TLS_LISTENER, here) else { panic!("it is served") };
    assert!(welcome.tls && !welcome.is_denied);
    let (Some(IoRequest::Adopt(denied)), said) = accept(TLS_LISTENER, elsewhere) else {
        panic!("it is told later")
    };
    assert!(denied.tls && denied.is_denied && said.is_empty(), "{said}");

    let (_fd, number, info) = NewConnectionInfo::split(*denied);
    let conn = ConnId::new(0, 0);
    worker.begin_turn();
    worker.connected(conn, number, info);
    worker.received(conn, b"SET a 1\r\n");
    worker.end_turn();
    let Some(IoRequest::Send(_, bytes)) = worker.requests.pop() else { panic!("it is told") };
    assert!(bytes.starts_with(b"-DENIED ") && bytes.ends_with(b" from the outside.\r\n"));
    assert!(worker.requests.is_empty() && worker.shard.stats.dbs[0].keys.get() == 0);
    worker.begin_turn();
    worker.sent(conn, bytes);
    worker.end_turn();
    assert!(matches!(worker.requests.pop(), Some(IoRequest::Close(_))));
    assert_eq!(worker.shard.stats.rejected_connections.get(), 2);
}

#[test]
fn each_pause_ends_by_itself_and_the_strictest_counts() {
    let (worker, _) = worker_alone();
    let globals = worker.globals;
    globals.set_pause(100, PauseKind::All, PauseReason::Client, 0);
    globals.set_pause(i64::MAX, PauseKind::Write, PauseReason::Shutdown, 0);
    assert_eq!((globals.pause(50), globals.pause(200)), (Some(PauseKind::All), Some(PauseKind::Write)));
    globals.set_pause(60, PauseKind::Write, PauseReason::Client, 50);
    assert_eq!(globals.pause(90), Some(PauseKind::All), "it is not shortened");
    globals.end_pause(PauseReason::Client);
    assert_eq!(globals.pause(50), Some(PauseKind::Write));
    globals.end_pause(PauseReason::Shutdown);
    assert_eq!(globals.pause(50), None);
}
