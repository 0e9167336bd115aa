//! The driver against servers of a few lines: what is sent, what is counted, and what ends a run.

use super::*;
use std::net::TcpListener;
use std::thread;

use crate::load::workload::{Op, Pool, PoolSource, SetSequence, Stored};

/// A server in a thread which answers every command with `reply`, its bytes cut into pieces of `piece_len`.
fn fake_server(reply: &'static [u8], piece_len: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                // A command is an array of bulk strings, so the reply scanner counts commands as well.
                let mut scanner = ReplyScanner::default();
                let mut buffer = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    let replies = reply.repeat(scanner.scan(&buffer[..len]).unwrap());
                    for piece in replies.chunks(piece_len) {
                        if stream.write_all(piece).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn driver(address: SocketAddr, connections: usize) -> Driver {
    Driver::connect(address, connections, &sys::allowed_cores().unwrap(), Wait::Block).unwrap()
}

/// Counts what a driver tells its observer.
#[derive(Default)]
struct Counter {
    opened: usize,
    closed: usize,
    sent: usize,
    done: usize,
}

impl Observer for Counter {
    fn window_opens(&mut self) {
        self.opened += 1;
    }
    fn window_closes(&mut self) {
        self.closed += 1;
    }
    fn batch_sent(&mut self, _index: usize, _now_ns: u64) {
        self.sent += 1;
    }
    fn batch_done(&mut self, _index: usize, sent_at_ns: u64, now_ns: u64) {
        assert!(sent_at_ns <= now_ns);
        self.done += 1;
    }
}

#[test]
fn a_source_that_ends_is_sent_whole_and_every_reply_is_counted() {
    for piece_len in [1, 3, 4096] {
        let mut source = SetSequence::new(Stored::Text { len_bytes: 8 }, 1_003, 10, 1);
        let mut counter = Counter::default();
        let tally = driver(fake_server(b"+OK\r\n", piece_len), 7)
            .run(&mut source, Window::whole_source(), &mut counter)
            .unwrap();
        assert_eq!(tally.replies, 1_003);
        assert_eq!(tally.latencies_ns.count(), 101, "one record for each pipeline");
        assert_eq!((counter.sent, counter.done, counter.opened, counter.closed), (101, 101, 1, 1));
    }
}

#[test]
fn a_window_that_closes_stops_the_sending_and_every_reply_is_waited_for() {
    let mut driver = driver(fake_server(b"$3\r\nabc\r\n", 4096), 3);
    let pool = Pool::build(Op::Get, 5, 100, 8, 1);
    // Twice over the same connections: nothing of the first run may be left in them for the second.
    for _ in 0..2 {
        let mut counter = Counter::default();
        let window = Window { opens_at_ns: 0, len_ns: 20_000_000, batches_min: 0 };
        let tally = driver.run(&mut PoolSource::new(pool.clone(), 1), window, &mut counter).unwrap();
        assert_eq!((counter.sent, counter.opened, counter.closed), (counter.done, 1, 1));
        assert!(tally.replies <= counter.done as u64 * 5, "{} of {}", tally.replies, counter.done);
        assert!((0.0..=1.0).contains(&tally.busy_share()));
    }
}

#[test]
fn replies_outside_the_window_are_not_counted() {
    let pool = Pool::build(Op::Get, 5, 100, 8, 1);
    let mut counter = Counter::default();
    let closed = Window { opens_at_ns: 0, len_ns: 0, batches_min: 0 };
    let tally = driver(fake_server(b"$3\r\nabc\r\n", 4096), 3)
        .run(&mut PoolSource::new(pool, 1), closed, &mut counter)
        .unwrap();
    assert_eq!((counter.done, tally.replies, tally.latencies_ns.count()), (3, 0, 0));
}

#[test]
fn a_window_stays_open_until_enough_pipelines_are_answered() {
    let pool = Pool::build(Op::Get, 5, 100, 8, 1);
    let short = Window { opens_at_ns: 0, len_ns: 0, batches_min: 40 };
    let tally = driver(fake_server(b"$3\r\nabc\r\n", 4096), 3)
        .run(&mut PoolSource::new(pool, 1), short, &mut NoObserver)
        .unwrap();
    assert!(tally.latencies_ns.count() >= 40 && tally.replies >= 200, "{}", tally.replies);
}

#[test]
fn requests_bigger_than_the_socket_takes_at_once_arrive_whole() {
    let mut source = SetSequence::new(Stored::Text { len_bytes: 1 << 20 }, 24, 12, 1);
    let tally = driver(fake_server(b"+OK\r\n", 4096), 2)
        .run(&mut source, Window::whole_source(), &mut NoObserver)
        .unwrap();
    assert_eq!(tally.replies, 24);
}

#[test]
fn nulls_are_counted_and_error_replies_end_the_run() {
    let mut source = SetSequence::new(Stored::Text { len_bytes: 8 }, 100, 10, 1);
    let tally = driver(fake_server(b"$-1\r\n", 4096), 2)
        .run(&mut source, Window::whole_source(), &mut NoObserver)
        .unwrap();
    assert_eq!(tally.nulls, 100);

    let mut source = SetSequence::new(Stored::Text { len_bytes: 8 }, 100, 10, 1);
    let error = driver(fake_server(b"-OOM no\r\n", 4096), 1)
        .run(&mut source, Window::whole_source(), &mut NoObserver)
        .err()
        .unwrap();
    assert!(error.to_string().contains("OOM no"), "{error}");
}

#[test]
fn more_replies_than_requests_are_an_error() {
    let mut source = SetSequence::new(Stored::Text { len_bytes: 8 }, 100, 10, 1);
    let error = driver(fake_server(b"+OK\r\n+OK\r\n", 4096), 1)
        .run(&mut source, Window::whole_source(), &mut NoObserver)
        .err()
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_server_that_closes_the_connection_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Read the request first: closing with bytes unread would reset the connection instead.
        let mut buffer = [0; 4096];
        stream.read(&mut buffer).unwrap()
    });
    let mut source = SetSequence::new(Stored::Text { len_bytes: 8 }, 5, 5, 1);
    let error = driver(address, 1).run(&mut source, Window::whole_source(), &mut NoObserver).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(closer.join().unwrap() > 0);
}

#[test]
fn subscribers_are_read_while_others_are_driven_and_their_bytes_are_counted() {
    const MESSAGES: u64 = 40;
    let subscribers = Subscribers { count: 2, channel: "news", payload_len_bytes: 3 };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).unwrap();
            stream.write_all(&subscribers.confirmation()).unwrap();
            for _ in 0..MESSAGES {
                stream.write_all(&crate::load::named::message(b"news", b"abc")).unwrap();
            }
            thread::spawn(move || stream.read(&mut buffer));
        }
    });
    let len = subscribers.message_len_bytes();
    let mut driver = driver(fake_server(b"+OK\r\n", 4096), 1);
    driver.subscribe(address, subscribers).unwrap();
    driver.end_subscriptions(MESSAGES * len).unwrap();
    driver.subscribe(address, subscribers).unwrap();
    assert!(driver.end_subscriptions((MESSAGES - 1) * len).is_err(), "there is one more");
}
