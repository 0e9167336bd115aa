//! One thread of the generator: its connections, in one epoll set, each with at most one pipeline under way.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use openssl::ssl::SslContext;

use crate::histogram::Histogram;
use crate::load::Wait;
use crate::load::named::Subscribers;
use crate::load::wire::Wire;
use crate::load::workload::Source;
use crate::resp::{ReplyScanner, write_command};
use crate::sys::{self, Epoll};

/// Read in one go. Bigger than any reply of the usual pipelines, so that a short read says that no more is there.
const READ_BUFFER_LEN_BYTES: usize = 256 * 1024;
/// Without any reply for this long, the server is taken for stuck.
const SILENCE_MAX_NS: u64 = 20_000_000_000;
/// Longest sleep of a blocking wait, so that deadlines are noticed.
const SLEEP_MAX_MS: u64 = 100;

/// When to measure. Load starts before and ends after.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// On the monotonic clock.
    pub opens_at_ns: u64,
    /// From the opening on.
    pub len_ns: u64,
    /// The window opens no sooner than this many pipelines are answered, and closes no sooner than as many more are:
    /// with deep pipelines on many connections a turn of all of them can take longer than the window.
    pub batches_min: usize,
}

impl Window {
    /// From now until the source ends.
    pub fn whole_source() -> Window {
        Window { opens_at_ns: 0, len_ns: u64::MAX, batches_min: 0 }
    }
}

/// Sees what the driver does, as it does it. Calls are inlined; those not wanted cost nothing.
pub trait Observer {
    fn window_opens(&mut self) {}
    fn window_closes(&mut self) {}
    /// The driver looked for replies, at `now_ns`.
    fn turn(&mut self, _now_ns: u64) {}
    /// Connection `index` is about to write a pipeline.
    fn batch_sent(&mut self, _index: usize, _now_ns: u64) {}
    /// Connection `index` read the last reply of the pipeline written at `sent_at_ns`.
    fn batch_done(&mut self, _index: usize, _sent_at_ns: u64, _now_ns: u64) {}
}

/// Sees nothing.
pub struct NoObserver;
impl Observer for NoObserver {}

/// What a run counted between the opening and the closing of its window.
#[derive(Default)]
pub struct Tally {
    pub replies: u64,
    /// One record for a pipeline.
    pub latencies_ns: Histogram,
    pub elapsed_ns: u64,
    /// Time in which no connection was ready.
    idle_ns: u64,
    /// Null replies, over the whole run.
    pub nulls: u64,
    /// Replies of the whole run, those before and after the window included.
    pub replies_of_run: u64,
}

impl Tally {
    pub fn replies_per_s(&self) -> f64 {
        self.replies as f64 / self.elapsed_ns.max(1) as f64 * 1e9
    }

    pub fn busy_share(&self) -> f64 {
        (1.0 - self.idle_ns as f64 / self.elapsed_ns.max(1) as f64).max(0.0)
    }
}

struct Connection {
    stream: Wire,
    scanner: ReplyScanner,
    /// Replies missing from the pipeline under way; 0 when there is none.
    replies_missing: usize,
    sent_at_ns: u64,
    /// What the socket did not take at once, from `backlog_at` on.
    backlog: Vec<u8>,
    backlog_at: usize,
}

/// A connection that sends nothing and is sent messages, which are read while others are driven. As the messages of a
/// run have all the same length, it counts bytes.
struct Subscriber {
    stream: Wire,
    received_bytes: u64,
}

/// The token of the first subscriber.
const SUBSCRIBERS: usize = 1 << 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Drain,
}

pub struct Driver {
    epoll: Epoll,
    connections: Vec<Connection>,
    subscribers: Vec<Subscriber>,
    read_buffer: Box<[u8]>,
    scratch: Vec<u8>,
    cores: Vec<usize>,
    wait: Wait,
}

impl Driver {
    /// Opens the connections. The thread that calls `run` will be pinned to `cores`.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        cores: &[usize],
        wait: Wait,
    ) -> io::Result<Driver> {
        Driver::connect_by(address, connections, cores, wait, None)
    }

    /// As `connect`; with a context, by TLS.
    pub fn connect_by(
        address: SocketAddr,
        connections: usize,
        cores: &[usize],
        wait: Wait,
        tls: Option<&SslContext>,
    ) -> io::Result<Driver> {
        let epoll = Epoll::new()?;
        let open = |token| {
            let stream = Wire::connect(address, tls)?;
            epoll.add(stream.as_raw_fd(), token)?;
            let scanner = ReplyScanner::default();
            Ok(Connection {
                stream,
                scanner,
                replies_missing: 0,
                sent_at_ns: 0,
                backlog: Vec::new(),
                backlog_at: 0,
            })
        };
        let connections = (0..connections).map(open).collect::<io::Result<Vec<_>>>()?;
        let read_buffer = vec![0; READ_BUFFER_LEN_BYTES].into_boxed_slice();
        Ok(Driver {
            epoll,
            connections,
            subscribers: Vec::new(),
            read_buffer,
            scratch: Vec::new(),
            cores: cores.to_vec(),
            wait,
        })
    }

    /// Makes all connections those of a user without a password.
    pub fn authenticate(&mut self, user: &str) -> io::Result<()> {
        let mut request = Vec::new();
        write_command(&mut request, &[b"AUTH", user.as_bytes(), b""]);
        self.connections.iter_mut().try_for_each(|connection| connection.stream.ask(&request, b"+OK\r\n"))
    }

    /// Opens so many connections that read the messages of a channel.
    pub fn subscribe(&mut self, address: SocketAddr, subscribers: Subscribers) -> io::Result<()> {
        let mut request = Vec::new();
        write_command(&mut request, &[b"SUBSCRIBE", subscribers.channel.as_bytes()]);
        for _ in 0..subscribers.count {
            let mut stream = Wire::connect(address, None)?;
            stream.ask(&request, &subscribers.confirmation())?;
            self.epoll.add(stream.as_raw_fd(), SUBSCRIBERS + self.subscribers.len())?;
            self.subscribers.push(Subscriber { stream, received_bytes: 0 });
        }
        Ok(())
    }

    /// Waits until each subscriber has received `expected_bytes`, and closes their connections.
    pub fn end_subscriptions(&mut self, expected_bytes: u64) -> io::Result<()> {
        let begun_at_ns = sys::now_ns();
        for mut subscriber in std::mem::take(&mut self.subscribers) {
            while subscriber.received_bytes < expected_bytes {
                subscriber.receive(&mut self.read_buffer)?;
                std::thread::yield_now();
                if sys::now_ns() - begun_at_ns > SILENCE_MAX_NS {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "messages are missing"));
                }
            }
            if subscriber.received_bytes > expected_bytes {
                return Err(io::Error::other("there are more messages than there should be"));
            }
        }
        Ok(())
    }

    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Keeps one pipeline of `source` under way on every connection until the window closes or the source ends, then
    /// waits for what is still to come. An error reply of the server is an error.
    pub fn run<S: Source, O: Observer>(
        &mut self,
        source: &mut S,
        window: Window,
        observer: &mut O,
    ) -> io::Result<Tally> {
        sys::pin_this_thread(&self.cores)?;
        let mut tally = Tally::default();
        let mut phase = Phase::WarmUp;
        let mut opened_at_ns = 0;
        let mut batches_done = 0;
        let mut turn_at_ns = sys::now_ns();
        let mut answered_at_ns = turn_at_ns;
        let mut in_flight = 0;
        let mut started = false;

        loop {
            let now_ns = sys::now_ns();
            let source_ended = started && in_flight == 0;
            let is_due = batches_done >= window.batches_min || source_ended;
            if phase == Phase::WarmUp && now_ns >= window.opens_at_ns && is_due {
                observer.window_opens();
                opened_at_ns = now_ns;
                batches_done = 0;
                phase = Phase::Measured;
            }
            let is_due = batches_done >= window.batches_min && now_ns - opened_at_ns >= window.len_ns;
            if phase == Phase::Measured && (is_due || source_ended) {
                observer.window_closes();
                tally.elapsed_ns = now_ns - opened_at_ns;
                phase = Phase::Drain;
            }
            if !started {
                for index in 0..self.connections.len() {
                    in_flight += usize::from(self.send_next(index, source, observer)?);
                }
                started = true;
            }
            if phase == Phase::Drain && in_flight == 0 {
                break;
            }

            let ready = self.epoll.wait(self.timeout_ms(phase, window, opened_at_ns, now_ns))?;
            let woken_at_ns = sys::now_ns();
            observer.turn(woken_at_ns);
            if phase == Phase::Measured {
                // A sleep is idle time whatever ends it; a poll only if it finds nothing.
                let slept_ns = if self.wait == Wait::Block { woken_at_ns - now_ns } else { 0 };
                tally.idle_ns += if ready == 0 { woken_at_ns - turn_at_ns } else { slept_ns };
            }
            if ready == 0 {
                if woken_at_ns - answered_at_ns > SILENCE_MAX_NS {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the server stopped answering"));
                }
                turn_at_ns = woken_at_ns;
                continue;
            }
            answered_at_ns = woken_at_ns;
            for at in 0..ready {
                let event = self.epoll.event(at);
                if let Some(index) = event.token.checked_sub(SUBSCRIBERS) {
                    self.subscribers[index].receive(&mut self.read_buffer)?;
                    continue;
                }
                if event.writable {
                    self.connections[event.token].flush()?;
                }
                if !event.readable {
                    continue;
                }
                let replies = self.connections[event.token].receive(&mut self.read_buffer)?;
                tally.replies_of_run += replies as u64;
                if phase == Phase::Measured {
                    tally.replies += replies as u64;
                }
                if replies == 0 || self.connections[event.token].replies_missing > 0 {
                    continue;
                }
                let done_at_ns = sys::now_ns();
                let sent_at_ns = self.connections[event.token].sent_at_ns;
                observer.batch_done(event.token, sent_at_ns, done_at_ns);
                if phase == Phase::Measured {
                    tally.latencies_ns.record(done_at_ns - sent_at_ns);
                }
                in_flight -= 1;
                batches_done += 1;
                if phase != Phase::Drain {
                    in_flight += usize::from(self.send_next(event.token, source, observer)?);
                }
            }
            turn_at_ns = sys::now_ns();
        }
        self.settle(&mut tally)?;
        Ok(tally)
    }

    fn timeout_ms(&self, phase: Phase, window: Window, opened_at_ns: u64, now_ns: u64) -> i32 {
        if self.wait == Wait::Spin {
            return 0;
        }
        let next_deadline_ns = match phase {
            Phase::WarmUp => window.opens_at_ns,
            Phase::Measured => opened_at_ns.saturating_add(window.len_ns),
            Phase::Drain => u64::MAX,
        };
        (next_deadline_ns.saturating_sub(now_ns) / 1_000_000 + 1).min(SLEEP_MAX_MS) as i32
    }

    /// Sends the next pipeline on a connection that has none under way; whether there was one.
    #[inline]
    fn send_next<S: Source, O: Observer>(
        &mut self,
        index: usize,
        source: &mut S,
        observer: &mut O,
    ) -> io::Result<bool> {
        let Some(batch) = source.next_batch(&mut self.scratch) else { return Ok(false) };
        let connection = &mut self.connections[index];
        connection.replies_missing = batch.replies;
        connection.sent_at_ns = sys::now_ns();
        observer.batch_sent(index, connection.sent_at_ns);
        connection.send(batch.bytes)?;
        Ok(true)
    }

    /// Takes the counts of odd replies over from the connections. An error reply ends the bench: figures of refused
    /// commands are worth nothing.
    fn settle(&mut self, tally: &mut Tally) -> io::Result<()> {
        for connection in &mut self.connections {
            if let Some(text) = &connection.scanner.first_error {
                let errors = connection.scanner.errors;
                return Err(io::Error::other(format!(
                    "{errors} error replies on a connection, the first: {text}"
                )));
            }
            tally.nulls += std::mem::take(&mut connection.scanner.nulls);
        }
        Ok(())
    }
}

impl Subscriber {
    /// Reads what is there.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::other("the server closed a subscriber's connection")),
                Ok(len) => {
                    self.received_bytes += len as u64;
                    if len < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Connection {
    #[inline]
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.stream.write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < bytes.len() {
            self.backlog.clear();
            self.backlog.extend_from_slice(&bytes[written..]);
            self.backlog_at = 0;
        }
        Ok(())
    }

    /// Writes as much of the backlog as the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.backlog_at < self.backlog.len() {
            match self.stream.write(&self.backlog[self.backlog_at..]) {
                Ok(written) => self.backlog_at += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; returns how many replies it completed.
    #[inline]
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut completed = 0;
        loop {
            let len = match self.stream.read(buffer) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server closed a connection",
                    ));
                }
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            completed += self.scanner.scan(&buffer[..len])?;
            // A short read empties the socket, and the next bytes make a new edge.
            if len < buffer.len() && self.stream.is_emptied_by_a_short_read() {
                break;
            }
        }
        if completed > self.replies_missing {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server sent more replies than requests",
            ));
        }
        self.replies_missing -= completed;
        Ok(completed)
    }
}

#[cfg(test)]
mod tests;
