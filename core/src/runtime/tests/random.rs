//! Random worker and random peers against a model: every byte either side sent arrives at the other, in order, once.
//!
//! A failure prints its seed; `SHARDIS_SEED` replays one (the kernel's timing is not replayed, the decisions are).

use super::*;
use crate::testing::Rng;
use std::collections::HashMap;

through_every_driver! {
    random_conduct_loses_and_invents_nothing
}

/// Makes decisions.
struct Dice(Rng);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0.below(below)
    }

    /// Mostly small, sometimes huge.
    fn len(&mut self) -> usize {
        let below = [50, 5_000, 40_000, 600_000][self.roll(4)];
        1 + self.roll(below)
    }
}

/// One connection, both ends, and how far each direction has come.
struct Line {
    peer: TcpStream,
    /// Written by the peer; seen by the worker.
    up_written: usize,
    up_seen: usize,
    /// Given to the driver; read by the peer.
    down_sent: usize,
    down_read: usize,
    sending: bool,
    paused: bool,
    /// Bytes that a fill under way wants.
    filling: Option<usize>,
    peer_left: bool,
}

impl Line {
    fn new(peer: TcpStream) -> Line {
        peer.set_nonblocking(true).unwrap();
        Line {
            peer,
            up_written: 0,
            up_seen: 0,
            down_sent: 0,
            down_read: 0,
            sending: false,
            paused: false,
            filling: None,
            peer_left: false,
        }
    }

    fn peer_writes(&mut self, len: usize) {
        if self.peer_left {
            return;
        }
        match self.peer.write(&pattern(self.up_written, len)) {
            Ok(len) => self.up_written += len,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }

    /// Returns whether there was anything.
    fn peer_reads(&mut self, len: usize) -> bool {
        let mut bytes = vec![0; len];
        match self.peer.read(&mut bytes) {
            Ok(len) => {
                assert!(
                    bytes[..len] == pattern(self.down_read, len),
                    "downwards, behind byte {}",
                    self.down_read
                );
                self.down_read += len;
                assert!(self.down_read <= self.down_sent);
                len > 0
            }
            Err(error) => {
                let expected = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionReset];
                assert!(expected.contains(&error.kind()), "{error}");
                false
            }
        }
    }

    fn worker_sees(&mut self, bytes: &[u8]) {
        assert!(bytes == pattern(self.up_seen, bytes.len()), "upwards, behind byte {}", self.up_seen);
        self.up_seen += bytes.len();
        assert!(self.up_seen <= self.up_written);
    }
}

type Lines = HashMap<ConnId, Line>;

fn check<D: Driver>(event: Event, lines: &mut Lines, driver: &mut D) {
    match event {
        Event::Received(conn, bytes) => {
            let line = lines.get_mut(&conn).unwrap();
            assert!(!line.paused && line.filling.is_none());
            line.worker_sees(&bytes);
        }
        Event::Filled(conn, buf) => {
            let line = lines.get_mut(&conn).unwrap();
            let (begin, bytes) = buf.split_at(8);
            assert_eq!(begin, (line.up_seen as u64).to_le_bytes());
            assert_eq!(line.filling.take(), Some(bytes.len()));
            line.worker_sees(bytes);
        }
        Event::Sent(conn, buf) => {
            // In the turn in which its input ended, and it was closed, a send may have come to its end as well.
            let Some(line) = lines.get_mut(&conn) else { return };
            assert!(std::mem::take(&mut line.sending));
            assert!(buf == pattern(line.down_sent - buf.len(), buf.len()));
        }
        Event::InputEnded(conn, reason) => {
            let line = lines.remove(&conn).unwrap();
            assert!(line.peer_left);
            assert_eq!(reason, CloseReason::Eof);
            // All that came before the end was seen, but for a fill that could not be completed.
            let unseen = line.up_written - line.up_seen;
            assert!(line.filling.map_or(unseen == 0, |want| unseen < want), "{unseen} bytes never seen");
            driver.close(conn);
        }
        event => panic!("{event:?}"),
    }
}

fn random_conduct_loses_and_invents_nothing<D: Driver>(mut driver: D) {
    let seed = match std::env::var("SHARDIS_SEED") {
        Ok(seed) => seed.parse().expect("SHARDIS_SEED is a number"),
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    eprintln!("SHARDIS_SEED={seed}");
    let mut dice = Dice(Rng::new(seed));
    let mut lines = Lines::new();

    for _ in 0..6000 {
        if lines.len() < 12 {
            let (ours, peer) = tcp_pair();
            assert!(lines.insert(driver.add(ours), Line::new(peer)).is_none());
        }
        step(&mut dice, &mut lines, &mut driver);
        if dice.roll(3) == 0 {
            for event in glance(&mut driver) {
                check(event, &mut lines, &mut driver);
            }
        }
    }

    // Everybody says the rest, hears the rest, and leaves.
    while !lines.is_empty() {
        for (conn, line) in &mut lines {
            driver.resume(*conn);
            line.paused = false;
            match line.filling {
                Some(want) if line.up_written - line.up_seen < want => line.peer_writes(want),
                _ if !line.peer_left => {
                    line.peer_left = true;
                    line.peer.shutdown(std::net::Shutdown::Write).unwrap();
                }
                _ => {}
            }
            line.peer_reads(1 << 20);
        }
        for event in glance(&mut driver) {
            check(event, &mut lines, &mut driver);
        }
    }
}

fn step<D: Driver>(dice: &mut Dice, lines: &mut Lines, driver: &mut D) {
    let mut conns: Vec<_> = lines.keys().copied().collect();
    conns.sort_by_key(|conn| conn.index());
    let conn = conns[dice.roll(conns.len())];
    let line = lines.get_mut(&conn).unwrap();
    match dice.roll(200) {
        0..60 => line.peer_writes(dice.len()),
        60..110 => {
            line.peer_reads(dice.len());
        }
        110..140 if !line.sending => {
            let len = dice.len();
            driver.send(conn, pattern(line.down_sent, len));
            line.down_sent += len;
            line.sending = true;
        }
        140..155 => {
            driver.pause(conn);
            line.paused = true;
        }
        155..175 => {
            driver.resume(conn);
            line.paused = false;
        }
        175..195 if line.filling.is_none() => {
            let want = dice.len();
            // The prefix says where the fill begins.
            driver.recv_exact(conn, (line.up_seen as u64).to_le_bytes().to_vec(), want);
            line.filling = Some(want);
        }
        197 => {
            driver.close(conn);
            let mut line = lines.remove(&conn).unwrap();
            while line.peer_reads(1 << 20) {}
        }
        198 | 199 if !line.peer_left => {
            line.peer_left = true;
            line.peer.shutdown(std::net::Shutdown::Write).unwrap();
        }
        _ => {}
    }
}
