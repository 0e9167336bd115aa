//! What a driver does when everybody behaves.

use super::*;

through_every_driver! {
    small_messages_are_echoed
    a_burst_arrives_whole_and_in_order
    replies_of_a_turn_leave_without_another_event
    a_slow_reader_gets_all_of_a_big_reply
    a_fill_takes_exactly_what_it_wants
    a_fill_of_nothing_completes
    a_fill_shows_its_progress
    many_big_arguments_in_a_row
    a_pause_loses_nothing
    a_pause_is_felt_by_the_peer
    a_pause_does_not_hold_up_a_fill
    listeners_accept_and_stop
    unix_sockets_work_too
    a_connection_moves_to_another_thread
    a_bell_ends_a_wait
    rings_before_a_turn_are_one_bell
    an_idle_turn_waits_instead_of_spinning
    a_glance_at_nothing_returns
}

fn small_messages_are_echoed<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    for round in 0..200 {
        let message = pattern(round, 1 + round);
        peer.write_all(&message).unwrap();
        let received = receive(&mut driver, conn, message.len());
        assert_eq!(received, message);

        driver.send(conn, received);
        let Event::Sent(to, buf) = expect_one(&mut driver) else { panic!("not sent") };
        assert_eq!(to, conn);
        assert_eq!(buf, message, "the buffer comes back as it was");
        assert_eq!(driver.pending_out(conn), 0);
        let mut echo = vec![0; message.len()];
        peer.read_exact(&mut echo).unwrap();
        assert_eq!(echo, message);
    }
    close_and_drain(&mut driver, conn);
    assert!(read_to_its_end(peer).is_empty());
}

fn a_burst_arrives_whole_and_in_order<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    let len = 20 << 20;
    let writer = std::thread::spawn(move || {
        // Pieces of all sizes, so that they end everywhere within the driver's buffers.
        let mut at = 0;
        let mut step = 1;
        while at < len {
            step = (step * 5 + 3) % 70_001;
            let piece = pattern(at, step.min(len - at));
            peer.write_all(&piece).unwrap();
            at += piece.len();
        }
        peer
    });
    assert!(receive(&mut driver, conn, len) == pattern(0, len));
    writer.join().unwrap();
}

fn replies_of_a_turn_leave_without_another_event<D: Driver>(mut driver: D) {
    let pairs: Vec<_> = (0..50).map(|_| tcp_pair()).collect();
    let mut peers = Vec::new();
    for (ours, peer) in pairs {
        let conn = driver.add(ours);
        driver.send(conn, b"+PONG\r\n".to_vec());
        peers.push(peer);
    }
    let mut sent = 0;
    while sent < peers.len() {
        sent += turn(&mut driver).iter().filter(|event| matches!(event, Event::Sent(..))).count();
    }
    for peer in &mut peers {
        let mut reply = [0; 7];
        peer.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
    }
}

fn a_slow_reader_gets_all_of_a_big_reply<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    let len = 32 << 20;
    driver.send(conn, pattern(0, len));
    assert!(glance(&mut driver).is_empty());
    let pending = driver.pending_out(conn);
    assert!(pending > 0 && pending < len, "{pending} of {len} bytes pending: more than a socket takes");

    let reader = std::thread::spawn(move || {
        let mut reply = vec![0; len];
        let mut at = 0;
        while at < len {
            let piece = (len - at).min(300_007);
            peer.read_exact(&mut reply[at..at + piece]).unwrap();
            at += piece;
        }
        (reply, peer)
    });
    let Event::Sent(_, buf) = expect_one(&mut driver) else { panic!("not sent") };
    assert_eq!(buf.len(), len);
    assert_eq!(driver.pending_out(conn), 0);
    let (reply, _peer) = reader.join().unwrap();
    assert!(reply == pattern(0, len));
}

fn a_fill_takes_exactly_what_it_wants<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    let (head_len, body_len, tail_len) = (20, 6 << 20, 33);
    peer.write_all(&pattern(0, head_len)).unwrap();
    let mut buf = receive(&mut driver, conn, head_len);
    buf.reserve(1);

    let writer = std::thread::spawn(move || {
        peer.write_all(&pattern(head_len, body_len + tail_len)).unwrap();
        peer
    });
    driver.recv_exact(conn, buf, body_len);
    let Event::Filled(of, buf) = expect_one(&mut driver) else { panic!("not filled") };
    assert_eq!(of, conn);
    assert!(buf == pattern(0, head_len + body_len), "what the buffer held, and the wanted bytes behind");
    assert_eq!(receive(&mut driver, conn, tail_len), pattern(head_len + body_len, tail_len));
    writer.join().unwrap();
}

fn a_fill_of_nothing_completes<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.recv_exact(conn, b"all of it".to_vec(), 0);
    let Event::Filled(_, buf) = expect_one(&mut driver) else { panic!("not filled") };
    assert_eq!(buf, b"all of it");
    peer.write_all(b"more").unwrap();
    assert_eq!(receive(&mut driver, conn, 4), b"more");
}

fn a_fill_shows_its_progress<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.recv_exact(conn, Vec::new(), 100_000);
    let mut last = 0;
    for at in (0..90_000).step_by(30_000) {
        peer.write_all(&pattern(at, 30_000)).unwrap();
        while driver.filling(conn) < at + 30_000 {
            assert!(glance(&mut driver).is_empty());
            std::thread::yield_now();
        }
        assert!(driver.filling(conn) > last);
        last = driver.filling(conn);
    }
    peer.write_all(&pattern(90_000, 10_000)).unwrap();
    let Event::Filled(_, buf) = expect_one(&mut driver) else { panic!("not filled") };
    assert!(buf == pattern(0, 100_000));
    assert_eq!(driver.filling(conn), 0);
}

/// As a worker does it: a short head says how long the argument is; what came with the head is part of it.
fn many_big_arguments_in_a_row<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    let lens: Vec<usize> = (0..60).map(|n| 1 + n * n * 997 % 400_000).collect();
    let sent_lens = lens.clone();
    let writer = std::thread::spawn(move || {
        let mut at = 0;
        for len in sent_lens {
            peer.write_all(&(len as u32).to_le_bytes()).unwrap();
            peer.write_all(&pattern(at, len)).unwrap();
            at += len;
        }
        peer
    });

    let mut rest = Vec::new();
    let mut at = 0;
    for len in lens {
        while rest.len() < 4 {
            rest.extend(receive(&mut driver, conn, 1));
        }
        assert_eq!(u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize, len);
        let mut argument = rest.split_off(4);
        rest = if argument.len() > len { argument.split_off(len) } else { Vec::new() };
        let want = len - argument.len();
        if want > 0 {
            driver.recv_exact(conn, argument, want);
            argument = Vec::new();
            while argument.is_empty() {
                for event in turn(&mut driver) {
                    match event {
                        Event::Filled(_, buf) => argument = buf,
                        Event::Received(_, bytes) if !argument.is_empty() => rest.extend(bytes),
                        event => panic!("in the middle of a fill: {event:?}"),
                    }
                }
            }
        }
        assert!(argument == pattern(at, len));
        at += len;
    }
    assert!(rest.is_empty());
    writer.join().unwrap();
}

fn a_pause_loses_nothing<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    let len = 8 << 20;
    let writer = std::thread::spawn(move || {
        peer.write_all(&pattern(0, len)).unwrap();
        peer
    });
    let mut received = Vec::new();
    let mut pauses = 0;
    while received.len() < len {
        for event in turn(&mut driver) {
            let Event::Received(_, bytes) = event else { panic!("{event:?}") };
            received.extend(bytes);
        }
        driver.pause(conn);
        for _ in 0..pauses % 4 {
            assert!(glance(&mut driver).is_empty(), "no event while paused");
        }
        driver.resume(conn);
        if pauses % 3 == 0 {
            driver.pause(conn);
            driver.resume(conn);
        }
        pauses += 1;
    }
    assert!(received == pattern(0, len));
    assert!(pauses > 1);
    writer.join().unwrap();
}

fn a_pause_is_felt_by_the_peer<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    assert!(glance(&mut driver).is_empty());
    driver.pause(conn);
    peer.set_nonblocking(true).unwrap();

    // Writes until the socket has taken nothing in a hundred turns.
    let mut written = 0;
    let mut refused = 0;
    while refused < 100 {
        match peer.write(&pattern(written, 256 << 10)) {
            Ok(len) => {
                written += len;
                refused = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(glance(&mut driver).is_empty());
        assert!(written < 64 << 20, "the peer can write without end");
    }
    driver.resume(conn);
    assert!(receive(&mut driver, conn, written) == pattern(0, written));
}

fn a_pause_does_not_hold_up_a_fill<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    driver.pause(conn);
    peer.write_all(&pattern(0, 5000)).unwrap();
    // Long enough for the bytes to come while nobody wants them, on a loopback; the test holds either way.
    for _ in 0..10 {
        assert!(glance(&mut driver).is_empty());
        std::thread::sleep(Duration::from_millis(1));
    }
    driver.recv_exact(conn, Vec::new(), 4000);
    let Event::Filled(_, buf) = expect_one(&mut driver) else { panic!("not filled") };
    assert!(buf == pattern(0, 4000));
    assert!(glance(&mut driver).is_empty(), "the rest is still on hold");
    driver.resume(conn);
    assert_eq!(receive(&mut driver, conn, 1000), pattern(4000, 1000));
}

fn listeners_accept_and_stop<D: Driver>(mut driver: D) {
    let (first, first_addr) = listener();
    let (second, second_addr) = listener();
    let first = driver.listen(first);
    let second = driver.listen(second);
    assert_ne!(first, second);

    for (number, addr) in [(first, first_addr), (second, second_addr), (first, first_addr)] {
        let mut peer = TcpStream::connect(addr).unwrap();
        let Event::Accepted(from, ours, peer_addr) = expect_one(&mut driver) else { panic!("not accepted") };
        assert_eq!(from, number);
        assert_eq!(peer_addr, PeerAddr::Tcp(peer.local_addr().unwrap()));
        let conn = driver.add(ours);
        peer.write_all(b"hello").unwrap();
        assert_eq!(receive(&mut driver, conn, 5), b"hello");
        close_and_drain(&mut driver, conn);
    }

    driver.unlisten(first);
    assert!(glance(&mut driver).is_empty());
    assert!(TcpStream::connect(first_addr).is_err(), "nobody listens any more");
    let again = TcpListener::bind(first_addr).expect("the port is free");
    again.set_nonblocking(true).unwrap();
    let third = driver.listen(again.into());
    assert!(third != first && third != second, "numbers are not used again");
    for (number, addr) in [(third, first_addr), (second, second_addr)] {
        let _peer = TcpStream::connect(addr).unwrap();
        let Event::Accepted(from, ..) = expect_one(&mut driver) else { panic!("not accepted") };
        assert_eq!(from, number);
    }
}

fn unix_sockets_work_too<D: Driver>(mut driver: D) {
    let path = std::env::temp_dir().join(format!("shardis-driver-{}-{:p}", std::process::id(), &driver));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let number = driver.listen(listener.into());
    let mut peer = UnixStream::connect(&path).unwrap();
    let Event::Accepted(from, ours, peer_addr) = expect_one(&mut driver) else { panic!("not accepted") };
    assert_eq!((from, peer_addr), (number, PeerAddr::Unix));
    let conn = driver.add(ours);
    peer.write_all(b"over a file").unwrap();
    let received = receive(&mut driver, conn, 11);
    driver.send(conn, received);
    assert!(matches!(expect_one(&mut driver), Event::Sent(..)));
    let mut echo = [0; 11];
    peer.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"over a file");
    std::fs::remove_file(path).unwrap();
}

/// Accepted here, served there: what spreads connections over the shards.
fn a_connection_moves_to_another_thread<D: Driver>(mut driver: D) {
    let (ours, addr) = listener();
    driver.listen(ours);
    let mut peer = TcpStream::connect(addr).unwrap();
    peer.write_all(b"before the move").unwrap();
    let Event::Accepted(_, ours, _) = expect_one(&mut driver) else { panic!("not accepted") };
    let served = std::thread::spawn(move || {
        let mut other = EpollDriver::new(BellHandle::new().unwrap()).unwrap();
        let conn = other.add(ours);
        receive(&mut other, conn, 15)
    });
    assert_eq!(served.join().unwrap(), b"before the move");
}

fn a_bell_ends_a_wait<D: Driver>(mut driver: D) {
    let bell = driver.bell_handle();
    for _ in 0..20 {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let bell = bell.clone();
        let ringer = std::thread::spawn(move || {
            wait.recv().unwrap();
            std::thread::yield_now();
            bell.ring();
        });
        go.send(()).unwrap();
        assert!(matches!(expect_one(&mut driver), Event::Bell));
        ringer.join().unwrap();
    }
}

fn rings_before_a_turn_are_one_bell<D: Driver>(mut driver: D) {
    assert!(glance(&mut driver).is_empty());
    for _ in 0..5 {
        driver.bell_handle().ring();
    }
    assert!(matches!(expect_one(&mut driver), Event::Bell));
    assert!(glance(&mut driver).is_empty(), "a bell that was heard does not ring on");
}

fn an_idle_turn_waits_instead_of_spinning<D: Driver>(mut driver: D) {
    let (ours, _peer) = tcp_pair();
    driver.add(ours);
    let (listener, _) = listener();
    driver.listen(listener);
    let bell = driver.bell_handle();
    let ringer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        bell.ring();
    });
    let mut log = Log::default();
    let mut turns = 0;
    while log.0.is_empty() {
        driver.turn(None, &mut log).unwrap();
        turns += 1;
    }
    assert!(matches!(log.0[..], [Event::Bell]));
    assert!(turns <= 3, "{turns} turns to wait for one event");
    ringer.join().unwrap();

    // And with a limit: at least the time asked for passes.
    let start = std::time::Instant::now();
    assert_eq!(driver.turn(Some(Duration::from_millis(30)), &mut log).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

fn a_glance_at_nothing_returns<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let conn = driver.add(ours);
    for _ in 0..1000 {
        assert!(glance(&mut driver).is_empty());
    }
    // Glances alone find what arrives.
    peer.write_all(b"x").unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        events = glance(&mut driver);
    }
    assert!(matches!(&events[..], [Event::Received(from, bytes)] if *from == conn && bytes == b"x"));
}
