//! Both drivers through the same tests.
//!
//! A test is a function over any driver; `through_every_driver!` makes one `#[test]` of it for io_uring with either
//! buffer layout and for epoll. A variant that this kernel does not have is left out, saying so. The peers are plain
//! sockets. No verdict depends on time: [`PATIENCE`] only ends a test that would hang.

mod conduct;
mod faults;
mod process;
mod random;
#[cfg(feature = "tls")]
mod tls;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::driver::{BellHandle, CloseReason, ConnId, Driver, Events, PeerAddr};
use super::epoll::EpollDriver;
use super::uring::{Layout, UringDriver};

const PATIENCE: Duration = Duration::from_secs(30);

fn uring_packed() -> Option<UringDriver> {
    uring(Layout::Packed)
}

fn uring_whole() -> Option<UringDriver> {
    uring(Layout::Whole)
}

fn uring(layout: Layout) -> Option<UringDriver> {
    match UringDriver::with_layout(BellHandle::new().unwrap(), layout) {
        Ok(driver) => Some(driver),
        Err(error) => {
            eprintln!("left out: io_uring with {layout:?} buffers: {error}");
            None
        }
    }
}

fn epoll() -> Option<EpollDriver> {
    Some(EpollDriver::new(BellHandle::new().unwrap()).unwrap())
}

macro_rules! through_every_driver {
    ($($test:ident)*) => {
        mod uring_packed { $(#[test] fn $test() {
            if let Some(driver) = $crate::runtime::tests::uring_packed() { super::$test(driver) }
        })* }
        mod uring_whole { $(#[test] fn $test() {
            if let Some(driver) = $crate::runtime::tests::uring_whole() { super::$test(driver) }
        })* }
        mod epoll { $(#[test] fn $test() {
            if let Some(driver) = $crate::runtime::tests::epoll() { super::$test(driver) }
        })* }
    };
}
use through_every_driver;

#[derive(Debug)]
enum Event {
    Accepted(usize, OwnedFd, PeerAddr),
    Received(ConnId, Vec<u8>),
    Filled(ConnId, Vec<u8>),
    Sent(ConnId, Vec<u8>),
    InputEnded(ConnId, CloseReason),
    SendFailed(ConnId, i32),
    Bell,
}

/// Notes everything, in order.
#[derive(Default)]
struct Log(Vec<Event>);

impl Events for Log {
    fn accepted(&mut self, listener: usize, fd: OwnedFd, peer: PeerAddr) {
        self.0.push(Event::Accepted(listener, fd, peer));
    }

    fn accept_failed(&mut self, listener: usize, error: io::Error) {
        panic!("listener {listener}: {error}");
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        self.0.push(Event::Received(conn, bytes.to_vec()));
    }

    fn filled(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.0.push(Event::Filled(conn, buf));
    }

    fn sent(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.0.push(Event::Sent(conn, buf));
    }

    fn input_ended(&mut self, conn: ConnId, reason: CloseReason) {
        self.0.push(Event::InputEnded(conn, reason));
    }

    fn send_failed(&mut self, conn: ConnId, errno: i32) {
        self.0.push(Event::SendFailed(conn, errno));
    }

    fn bell(&mut self) {
        self.0.push(Event::Bell);
    }
}

/// The events of the first turn that has any. Panics when nothing comes.
fn turn<D: Driver>(driver: &mut D) -> Vec<Event> {
    let deadline = Instant::now() + PATIENCE;
    let mut log = Log::default();
    while log.0.is_empty() {
        assert!(Instant::now() < deadline, "nothing happened");
        let count = driver.turn(Some(PATIENCE), &mut log).unwrap();
        assert_eq!(count, log.0.len(), "a turn returns the number of its events");
    }
    log.0
}

/// The events of a turn that only looks.
fn glance<D: Driver>(driver: &mut D) -> Vec<Event> {
    let mut log = Log::default();
    driver.turn(Some(Duration::ZERO), &mut log).unwrap();
    log.0
}

/// Turns until `len` bytes were received from `conn` and nobody else; anything else is a failure.
fn receive<D: Driver>(driver: &mut D, conn: ConnId, len: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < len {
        for event in turn(driver) {
            match event {
                Event::Received(from, bytes) if from == conn => received.extend(bytes),
                event => panic!("expected bytes of {conn:?}, got {event:?}"),
            }
        }
    }
    received
}

/// Turns until the one event that is expected came.
fn expect_one<D: Driver>(driver: &mut D) -> Event {
    let mut events = turn(driver);
    assert_eq!(events.len(), 1, "{events:?}");
    events.pop().unwrap()
}

/// Closes a connection and sees the kernel let go of it.
fn close_and_drain<D: Driver>(driver: &mut D, conn: ConnId) {
    let before = driver.conn_count();
    driver.close(conn);
    for _ in 0..1000 {
        if driver.conn_count() < before {
            return;
        }
        let events = glance(driver);
        assert!(events.is_empty(), "no event names a closed connection: {events:?}");
        std::thread::yield_now();
    }
    panic!("the connection is still there");
}

/// A TCP connection: the driver's end, non-blocking, and the peer's, blocking with PATIENCE.
fn tcp_pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    ours.set_nodelay(true).unwrap();
    peer.set_nodelay(true).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    (ours.into(), peer)
}

fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener.into(), addr)
}

/// `len` bytes of an endless sequence, from `at` on, in which every 8-byte word differs.
fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len)
        .map(|at| {
            let word = (at / 8) as u64;
            (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 8 * 8)) as u8
        })
        .collect()
}

/// Makes closing a socket send RST instead of FIN.
fn reset(peer: TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: setsockopt reads one linger, the local above.
    let outcome = unsafe {
        libc::setsockopt(
            peer.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(outcome, 0);
    drop(peer);
}

/// Reads until the peer's end of a connection is at its own, whatever way it ended.
fn read_to_its_end(mut peer: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    match peer.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    all
}
