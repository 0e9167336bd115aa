//! Peers that go away at the worst moment, crowds, and workers that close in the middle of everything.

use super::*;
use std::collections::HashSet;

through_every_driver! {
    a_peer_that_leaves_at_once
    a_peer_that_leaves_after_its_last_words
    a_peer_that_only_listens_is_still_sent_to
    what_was_sent_before_a_failed_send_is_received
    a_peer_that_resets
    a_peer_that_leaves_in_the_middle_of_a_fill
    a_peer_that_leaves_during_a_fill_under_way
    a_peer_that_resets_while_it_is_sent_to
    the_end_waits_behind_bytes_on_hold
    the_end_of_a_quiet_paused_connection_is_reported
    a_fill_is_served_from_bytes_on_hold_before_the_end
    closing_with_everything_under_way
    closing_right_after_adding
    closing_while_bytes_arrive
    a_stale_name_does_nothing
    two_thousand_connections_come_and_go
    more_arrives_in_a_turn_than_the_buffers_hold
    more_requests_in_a_turn_than_the_queue_holds
    dropping_a_driver_with_everything_under_way
}

fn expect_input_end<D: Driver>(driver: &mut D, conn: ConnId) -> CloseReason {
    match expect_one(driver) {
        Event::InputEnded(of, reason) if of == conn => reason,
        event => panic!("expected the end of {conn:?}, got {event:?}"),
    }
}

fn a_peer_that_leaves_at_once<D: Driver>(mut driver: D) {
    let (ours, peer) = tcp_pair();
    let conn = driver.add(ours);
    drop(peer);
    assert_eq!(expect_input_end(&mut driver, conn), CloseReason::Eof);
    for _ in 0..10 {
        assert!(glance(&mut driver).is_empty(), "the end is reported once");
    }
    assert_eq!(driver.conn_count(), 1, "the name is taken until the worker closes");
    close_and_drain(&mut driver, conn);
    assert_eq!(driver.conn_count(), 0);
}

fn a_peer_that_leaves_after_its_last_words<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    peer.write_all(&pattern(0, 700_000)).unwrap();
    drop(peer);
    assert!(receive_up_to_the_end(&mut driver, conn) == (pattern(0, 700_000), None, CloseReason::Eof));
    close_and_drain(&mut driver, conn);
}

/// What comes until the input ends, the errno by which sends were over (before it or by it), and why it ended.
fn receive_up_to_the_end<D: Driver>(driver: &mut D, conn: ConnId) -> (Vec<u8>, Option<i32>, CloseReason) {
    let mut received = Vec::new();
    let mut failed_by = None;
    loop {
        for event in turn(driver) {
            match event {
                Event::Received(from, bytes) if from == conn => received.extend(bytes),
                Event::SendFailed(of, errno) if of == conn => {
                    assert!(failed_by.replace(errno).is_none(), "said once");
                }
                Event::InputEnded(of, reason) if of == conn => {
                    if let CloseReason::Errno(errno) = reason {
                        failed_by.get_or_insert(errno);
                    }
                    return (received, failed_by, reason);
                }
                event => panic!("{event:?}"),
            }
        }
    }
}

/// A peer that has shut down its write side, and reads.
fn a_peer_that_only_listens_is_still_sent_to<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    peer.write_all(b"last words").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let (received, failed_by, reason) = receive_up_to_the_end(&mut driver, conn);
    assert_eq!((received, failed_by, reason), (b"last words".to_vec(), None, CloseReason::Eof));

    let len = 8 << 20;
    driver.send(conn, pattern(0, len));
    let reader = std::thread::spawn(move || {
        let mut reply = vec![0; len];
        peer.read_exact(&mut reply).unwrap();
        (reply, peer)
    });
    assert!(matches!(expect_one(&mut driver), Event::Sent(of, _) if of == conn));
    let (reply, peer) = reader.join().unwrap();
    assert!(reply == pattern(0, len));
    driver.send(conn, b"and more".to_vec());
    assert!(matches!(expect_one(&mut driver), Event::Sent(..)));
    close_and_drain(&mut driver, conn);
    assert_eq!(read_to_its_end(peer), b"and more");
}

/// What a peer had sent before it went away is received, also when a send has found out already that it has gone.
fn what_was_sent_before_a_failed_send_is_received<D: Driver>(mut driver: D) {
    for is_paused in [false, true] {
        let (ours, mut peer) = tcp_pair();
        let conn = driver.add(ours);
        if is_paused {
            driver.pause(conn);
        }
        driver.send(conn, vec![b'x'; 32 << 20]);
        peer.write_all(&pattern(0, 40_000)).unwrap();
        reset(peer);
        let mut sends_failed = false;
        let mut events = Vec::new();
        for _ in 0..20 {
            events.extend(glance(&mut driver));
            std::thread::sleep(Duration::from_millis(1));
        }
        driver.resume(conn);
        let mut received = Vec::new();
        let mut has_ended = false;
        while !has_ended {
            for event in events.drain(..) {
                match event {
                    Event::Received(_, bytes) => received.extend(bytes),
                    Event::SendFailed(..) => assert!(!std::mem::replace(&mut sends_failed, true)),
                    Event::InputEnded(..) => has_ended = true,
                    event => panic!("{event:?}"),
                }
            }
            if !has_ended {
                events = turn(&mut driver);
            }
        }
        assert!(received == pattern(0, 40_000), "paused {is_paused}: {} bytes", received.len());
        for _ in 0..10 {
            assert!(glance(&mut driver).is_empty());
        }
        close_and_drain(&mut driver, conn);
    }
}

fn a_peer_that_resets<D: Driver>(mut driver: D) {
    let (ours, peer) = tcp_pair();
    let conn = driver.add(ours);
    reset(peer);
    assert_eq!(expect_input_end(&mut driver, conn), CloseReason::Errno(libc::ECONNRESET));
    close_and_drain(&mut driver, conn);
}

fn a_peer_that_leaves_in_the_middle_of_a_fill<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.recv_exact(conn, Vec::new(), 1 << 20);
    peer.write_all(&pattern(0, 1000)).unwrap();
    drop(peer);
    assert_eq!(expect_input_end(&mut driver, conn), CloseReason::Eof);
    close_and_drain(&mut driver, conn);
}

fn a_peer_that_leaves_during_a_fill_under_way<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.recv_exact(conn, Vec::new(), 1 << 20);
    peer.write_all(&pattern(0, 1000)).unwrap();
    while driver.filling(conn) < 1000 {
        assert!(glance(&mut driver).is_empty());
    }
    reset(peer);
    assert_eq!(expect_input_end(&mut driver, conn), CloseReason::Errno(libc::ECONNRESET));
    assert_eq!(driver.filling(conn).min(1000), driver.filling(conn));
    close_and_drain(&mut driver, conn);
}

fn a_peer_that_resets_while_it_is_sent_to<D: Driver>(mut driver: D) {
    let (ours, peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.send(conn, vec![b'x'; 32 << 20]);
    assert!(glance(&mut driver).is_empty());
    assert!(driver.pending_out(conn) > 0);
    reset(peer);
    let (received, failed_by, _) = receive_up_to_the_end(&mut driver, conn);
    assert!(received.is_empty());
    assert!(matches!(failed_by, Some(libc::ECONNRESET | libc::EPIPE)), "{failed_by:?}");
    for _ in 0..10 {
        assert!(glance(&mut driver).is_empty(), "neither sent nor ended again");
    }
    driver.send(conn, b"too late".to_vec());
    driver.recv_exact(conn, Vec::new(), 10);
    assert!(glance(&mut driver).is_empty());
    close_and_drain(&mut driver, conn);
}

fn the_end_waits_behind_bytes_on_hold<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.pause(conn);
    peer.write_all(b"last words").unwrap();
    drop(peer);
    for _ in 0..20 {
        assert!(glance(&mut driver).is_empty());
        std::thread::sleep(Duration::from_millis(1));
    }
    driver.resume(conn);
    let (received, _, reason) = receive_up_to_the_end(&mut driver, conn);
    assert_eq!((received, reason), (b"last words".to_vec(), CloseReason::Eof));
    close_and_drain(&mut driver, conn);
}

fn the_end_of_a_quiet_paused_connection_is_reported<D: Driver>(mut driver: D) {
    let (ours, peer) = tcp_pair();
    let conn = driver.add(ours);
    assert!(glance(&mut driver).is_empty());
    driver.pause(conn);
    drop(peer);
    assert_eq!(expect_input_end(&mut driver, conn), CloseReason::Eof);
    close_and_drain(&mut driver, conn);
}

fn a_fill_is_served_from_bytes_on_hold_before_the_end<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.pause(conn);
    peer.write_all(&pattern(0, 5000)).unwrap();
    drop(peer);
    for _ in 0..20 {
        assert!(glance(&mut driver).is_empty());
        std::thread::sleep(Duration::from_millis(1));
    }
    driver.recv_exact(conn, Vec::new(), 3000);
    let Event::Filled(_, buf) = expect_one(&mut driver) else { panic!("not filled") };
    assert_eq!(buf, pattern(0, 3000));
    driver.recv_exact(conn, Vec::new(), 3000);
    assert_eq!(expect_input_end(&mut driver, conn), CloseReason::Eof);
    close_and_drain(&mut driver, conn);
}

fn closing_with_everything_under_way<D: Driver>(mut driver: D) {
    for fills in [false, true] {
        let (ours, mut peer) = tcp_pair();
        let conn = driver.add(ours);
        driver.send(conn, pattern(0, 32 << 20));
        if fills {
            driver.recv_exact(conn, Vec::new(), 1 << 20);
            peer.write_all(&pattern(0, 1000)).unwrap();
            while driver.filling(conn) < 1000 {
                assert!(glance(&mut driver).is_empty());
            }
        } else {
            assert!(glance(&mut driver).is_empty());
        }
        assert!(driver.pending_out(conn) > 0);
        close_and_drain(&mut driver, conn);
        let got = read_to_its_end(peer);
        assert!(got.len() < 32 << 20 && got == pattern(0, got.len()), "a true beginning, and then the end");
    }
}

fn closing_right_after_adding<D: Driver>(mut driver: D) {
    let (ours, peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.send(conn, b"-ERR max number of clients reached\r\n".to_vec());
    close_and_drain(&mut driver, conn);
    let got = read_to_its_end(peer);
    assert!(b"-ERR max number of clients reached\r\n".starts_with(&got));
}

fn closing_while_bytes_arrive<D: Driver>(mut driver: D) {
    for _ in 0..50 {
        let (ours, mut peer) = tcp_pair();
        let conn = driver.add(ours);
        let writer = std::thread::spawn(move || while peer.write_all(&[b'x'; 10_000]).is_ok() {});
        receive(&mut driver, conn, 20_000);
        driver.close(conn);
        while driver.conn_count() > 0 {
            assert!(glance(&mut driver).is_empty(), "no event names a closed connection");
        }
        writer.join().unwrap();
    }
}

fn a_stale_name_does_nothing<D: Driver>(mut driver: D) {
    let (ours, _peer) = tcp_pair();
    let stale = driver.add(ours);
    close_and_drain(&mut driver, stale);
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    assert_eq!(conn.index(), stale.index());
    assert_ne!(conn, stale);

    driver.send(stale, b"to nobody".to_vec());
    driver.recv_exact(stale, Vec::new(), 5);
    driver.pause(stale);
    driver.resume(stale);
    driver.close(stale);
    assert_eq!(driver.pending_out(stale), 0);
    assert_eq!(driver.filling(stale), 0);
    peer.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut driver, conn, 5), b"hello");
}

fn two_thousand_connections_come_and_go<D: Driver>(mut driver: D) {
    const TOTAL: usize = 2000;
    const AT_ONCE: usize = 40;
    let (ours, addr) = listener();
    driver.listen(ours);
    let peers = std::thread::spawn(move || {
        for round in 0..TOTAL / AT_ONCE {
            let mut peers: Vec<_> = (0..AT_ONCE).map(|_| TcpStream::connect(addr).unwrap()).collect();
            for (at, peer) in peers.iter_mut().enumerate() {
                peer.set_read_timeout(Some(PATIENCE)).unwrap();
                peer.write_all(&pattern(round * AT_ONCE + at, 100)).unwrap();
            }
            for (at, mut peer) in peers.into_iter().enumerate() {
                let mut echo = [0; 100];
                // Every fourth leaves without its answer, and half of those rudely.
                match at % 8 {
                    0 => drop(peer),
                    4 => reset(peer),
                    _ => {
                        peer.read_exact(&mut echo).unwrap();
                        assert_eq!(&echo[..], pattern(round * AT_ONCE + at, 100));
                    }
                }
            }
        }
    });

    let mut seen = HashSet::new();
    let mut index_max = 0;
    let mut unanswered = std::collections::HashMap::new();
    let mut ended = 0;
    while ended < TOTAL {
        for event in turn(&mut driver) {
            match event {
                Event::Accepted(_, ours, _) => {
                    let conn = driver.add(ours);
                    assert!(seen.insert(conn), "a name is never used again");
                    index_max = index_max.max(conn.index());
                    unanswered.insert(conn, Vec::new());
                }
                Event::Received(conn, bytes) => {
                    let question: &mut Vec<u8> = unanswered.get_mut(&conn).unwrap();
                    question.extend(bytes);
                    if question.len() == 100 {
                        let question = unanswered.insert(conn, Vec::new()).unwrap();
                        driver.send(conn, question);
                    }
                }
                Event::Sent(conn, _) => assert!(unanswered.contains_key(&conn)),
                Event::InputEnded(conn, _) => {
                    assert!(unanswered.remove(&conn).is_some());
                    driver.close(conn);
                    ended += 1;
                }
                Event::SendFailed(..) => {}
                event => panic!("{event:?}"),
            }
        }
    }
    peers.join().unwrap();
    assert_eq!(seen.len(), TOTAL);
    assert!(index_max < 5 * AT_ONCE, "places are taken again: {index_max}");
    while driver.conn_count() > 0 {
        assert!(glance(&mut driver).is_empty());
    }
}

fn more_arrives_in_a_turn_than_the_buffers_hold<D: Driver>(mut driver: D) {
    const PEERS: usize = 400;
    let len = 48 << 10;
    let mut conns = std::collections::HashMap::new();
    let mut peers = Vec::new();
    for at in 0..PEERS {
        let (ours, mut peer) = tcp_pair();
        peer.write_all(&pattern(at * 1000, len)).unwrap();
        peers.push(peer);
        conns.insert(driver.add(ours), (at, Vec::new()));
    }
    let mut whole = 0;
    while whole < PEERS {
        for event in turn(&mut driver) {
            let Event::Received(conn, bytes) = event else { panic!("{event:?}") };
            let (_, received) = conns.get_mut(&conn).unwrap();
            received.extend(bytes);
            whole += usize::from(received.len() == len);
        }
    }
    for (at, received) in conns.values() {
        assert!(*received == pattern(at * 1000, len));
    }
}

fn more_requests_in_a_turn_than_the_queue_holds<D: Driver>(mut driver: D) {
    const PEERS: usize = 2500;
    let mut pairs: Vec<_> = (0..PEERS).map(|_| UnixStream::pair().unwrap()).collect();
    let mut peers = Vec::new();
    let mut expected = HashSet::new();
    for (ours, peer) in pairs.drain(..) {
        ours.set_nonblocking(true).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let conn = driver.add(ours.into());
        driver.send(conn, (conn.index() as u64).to_le_bytes().to_vec());
        expected.insert(conn);
        peers.push(peer);
    }
    let conns: Vec<_> = expected.iter().copied().collect();
    while !expected.is_empty() {
        for event in turn(&mut driver) {
            let Event::Sent(conn, _) = event else { panic!("{event:?}") };
            assert!(expected.remove(&conn));
        }
    }
    for (at, peer) in peers.iter_mut().enumerate() {
        let mut index = [0; 8];
        peer.read_exact(&mut index).unwrap();
        assert_eq!(u64::from_le_bytes(index), at as u64);
        peer.write_all(&index).unwrap();
    }
    let mut answered = HashSet::new();
    while answered.len() < PEERS {
        for event in turn(&mut driver) {
            let Event::Received(conn, bytes) = event else { panic!("{event:?}") };
            assert_eq!(bytes, (conn.index() as u64).to_le_bytes());
            answered.insert(conn);
        }
    }
    for conn in conns {
        driver.close(conn);
    }
    while driver.conn_count() > 0 {
        assert!(glance(&mut driver).is_empty());
    }
}

fn dropping_a_driver_with_everything_under_way<D: Driver>(mut driver: D) {
    let (listener, addr) = listener();
    driver.listen(listener);
    let mut peers = Vec::new();
    for at in 0..20 {
        let (ours, mut peer) = tcp_pair();
        let conn = driver.add(ours);
        driver.send(conn, pattern(0, 8 << 20));
        if at % 2 == 0 {
            driver.recv_exact(conn, Vec::new(), 1 << 20);
        }
        peer.write_all(&pattern(0, 1000)).unwrap();
        peers.push(peer);
    }
    glance(&mut driver);
    drop(driver);
    for peer in peers {
        read_to_its_end(peer);
    }
    assert!(TcpStream::connect(addr).is_err());
}
