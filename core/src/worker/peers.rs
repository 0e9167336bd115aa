//! Connections to the servers that keys are sent to.
//!
//! No shard waits for another server: each connection belongs to a thread, which connects, sends, reads the replies, and hands the
//! [outcome](Transferred) back. After a transfer the connection is kept for a while, and the next transfer to the same server
//! takes it over with its thread; transfers at the same time have connections of their own.
//!
//! A connection that was kept may have been closed by the other side. So a transfer of which nothing was answered is tried a
//! second time, on a new connection, unless it took too long.

use crate::protocol::{Reply, Resp};
use crate::runtime::clock::Clock;
use crate::runtime::log;
use crate::runtime::outgoing::{Outgoing, Target};
use crate::worker::{Globals, Worker};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a connection is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// So many connections are kept at most.
const KEPT_MAX: usize = 64;
/// The stack of a connection's thread.
const STACK_LEN: usize = 256 << 10;
/// So much is sent, or read, within one timeout.
const CHUNK_LEN: usize = 64 << 10;
/// A line of the other server's is not longer than this.
const LINE_LEN_MAX: usize = 64 << 10;

/// What another server is to do.
pub struct Transfer {
    pub host: String,
    /// As the client has written it: it may be no port at all.
    pub port: i64,
    pub db: i64,
    /// The arguments of AUTH; none: it is not called.
    pub credentials: Vec<Vec<u8>>,
    /// How long a connect, a write or a read may take.
    pub timeout: Duration,
    /// Complete requests, one behind the other, each of which has one line as its reply.
    pub requests: Vec<u8>,
    pub request_count: usize,
}

/// What has become of a transfer.
pub struct Transferred {
    /// Its own again, so that the memory is freed where it was allocated.
    pub transfer: Transfer,
    /// For each request that was answered: whether that was no error.
    pub accepted: Vec<bool>,
    pub failure: Option<TransferFailure>,
}

/// Why a transfer, or a part of it, has failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferFailure {
    Connecting,
    Writing,
    Reading,
    /// The other server's first error, without the leading `-`.
    Refused(Vec<u8>),
}

/// Gets the outcome on the thread of the connection.
pub type OnTransferred = Box<dyn FnOnce(Transferred) + Send>;

struct Job {
    transfer: Transfer,
    on_end: OnTransferred,
}

/// The connections to other servers.
#[derive(Default)]
pub struct Peers {
    /// Those that nobody uses, the one that has been kept for the longest time first.
    kept: Mutex<Vec<Kept>>,
    next_id: AtomicU64,
    connected: AtomicU64,
}

/// A connection that nobody uses.
struct Kept {
    id: u64,
    host: String,
    port: i64,
    /// To its thread. Without that, the thread closes the connection.
    jobs: Sender<Job>,
}

impl Peers {
    /// How many connections there are.
    pub fn count(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection to a server that was used last.
    fn take(&self, transfer: &Transfer) -> Option<Kept> {
        let mut kept = self.kept();
        let at = kept.iter().rposition(|kept| kept.port == transfer.port && kept.host == transfer.host)?;
        Some(kept.remove(at))
    }

    /// Keeps a connection. Returns its number, and where its next job comes.
    fn keep(&self, host: String, port: i64) -> (u64, Receiver<Job>) {
        let (jobs, inbox) = channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept();
        kept.push(Kept { id, host, port, jobs });
        if kept.len() > KEPT_MAX {
            kept.remove(0);
        }
        (id, inbox)
    }

    /// Keeps a connection no longer. False: it has been taken, or closed.
    fn forget(&self, id: u64) -> bool {
        let mut kept = self.kept();
        let count = kept.len();
        kept.retain(|kept| kept.id != id);
        kept.len() < count
    }
}

impl Worker {
    /// Has another server do something. `on_end` runs on another thread.
    pub fn send_to_peer(&self, transfer: Transfer, on_end: OnTransferred) {
        let kept = self.globals.peers.take(&transfer);
        let mut job = Job { transfer, on_end };
        if let Some(kept) = kept {
            match kept.jobs.send(job) {
                Ok(()) => return,
                // Its thread has ended.
                Err(unsent) => job = unsent.0,
            }
        }
        let (globals, clock) = (self.globals, self.time.clock);
        let (first, inbox) = channel();
        let thread = PeerThread { globals, clock, connection: None, counted_bytes: 0 };
        let builder = std::thread::Builder::new().name("peer".to_owned()).stack_size(STACK_LEN);
        let is_started = builder.spawn(move || thread.run(&inbox)).is_ok();
        let unsent = if is_started { first.send(job).err().map(|unsent| unsent.0) } else { Some(job) };
        // Clients may ask for more threads than there can be.
        if let Some(Job { transfer, on_end }) = unsent {
            on_end(Transferred {
                transfer,
                accepted: Vec::new(),
                failure: Some(TransferFailure::Connecting),
            });
        }
    }
}

/// The thread of a connection.
struct PeerThread {
    globals: &'static Globals,
    clock: &'static dyn Clock,
    connection: Option<Connection>,
    /// See [`Globals::count_other_thread`].
    counted_bytes: i64,
}

impl PeerThread {
    fn run(mut self, first: &Receiver<Job>) {
        let mut next = first.recv().ok();
        while let Some(Job { transfer, on_end }) = next {
            let mut transferred = transfer_with_retry(&mut self.connection, self.globals, transfer);
            // Before the outcome is known: whoever knows it finds the connection.
            let kept = self.connection.is_some().then(|| {
                let Transfer { host, port, .. } = &mut transferred.transfer;
                self.globals.peers.keep(std::mem::take(host), *port)
            });
            on_end(transferred);
            self.globals.count_other_thread(&mut self.counted_bytes, self.clock);
            next = kept.and_then(|(id, inbox)| self.next_job(id, &inbox));
        }
    }

    /// Waits for a job. `None`: the connection is kept no longer.
    fn next_job(&self, id: u64, inbox: &Receiver<Job>) -> Option<Job> {
        match inbox.recv_timeout(KEPT_FOR) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) if self.globals.peers.forget(id) => None,
            // Somebody has taken it at this moment.
            Err(RecvTimeoutError::Timeout) => inbox.recv().ok(),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

/// A connection to another server.
struct Connection {
    socket: Outgoing,
    /// Read, and not used yet.
    buffer: Vec<u8>,
    /// The database that is selected there for certain.
    db: Option<i64>,
    peers: &'static Peers,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peers.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection is of no use any more.
struct Broken {
    failure: TransferFailure,
    /// The other side has closed it: a new one may be better.
    is_closed: bool,
}

impl Broken {
    fn new(failure: TransferFailure, error: &io::Error) -> Broken {
        // So a read or a write ends that has waited for its timeout.
        let is_timeout = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        Broken { failure, is_closed: !is_timeout }
    }
}

impl Connection {
    fn open(globals: &'static Globals, transfer: &Transfer) -> Result<Connection, TransferFailure> {
        let peers = &globals.peers;
        if globals.config().1.tls_cluster {
            log::warning(format_args!("No key is sent in the clear while tls-cluster is on"));
            return Err(TransferFailure::Connecting);
        }
        let port = u16::try_from(transfer.port).map_err(|_| TransferFailure::Connecting)?;
        let target =
            Target { host: &transfer.host, port, source: "", connector: None, timeout: transfer.timeout };
        let socket = Outgoing::connect(target).map_err(|error| {
            match error.kind() {
                // Redis learns that nobody listens when it writes.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable => TransferFailure::Writing,
                _ => TransferFailure::Connecting,
            }
        })?;
        peers.connected.fetch_add(1, Ordering::Relaxed);
        Ok(Connection { socket, buffer: Vec::new(), db: None, peers })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut chunks = bytes.chunks(CHUNK_LEN);
        chunks
            .try_for_each(|chunk| (&self.socket).write_all(chunk))
            .map_err(|error| Broken::new(TransferFailure::Writing, &error))
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Vec<u8>, Broken> {
        let reading = |error: io::Error| Broken::new(TransferFailure::Reading, &error);
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(line.trim_ascii_end().to_vec());
            }
            if self.buffer.len() > LINE_LEN_MAX {
                return Err(reading(io::ErrorKind::InvalidData.into()));
            }
            let start = self.buffer.len();
            self.buffer.resize(start + CHUNK_LEN, 0);
            let outcome = (&self.socket).read(&mut self.buffer[start..]);
            self.buffer.truncate(start + outcome.as_ref().map_or(0, |&len| len));
            match outcome {
                Ok(0) => return Err(reading(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(reading(error)),
            }
        }
    }

    /// Sends all, and reads the replies. `accepted` and `refusal` have what was answered, also if it fails.
    fn attempt(
        &mut self,
        transfer: &Transfer,
        accepted: &mut Vec<bool>,
        refusal: &mut Option<Vec<u8>>,
    ) -> Result<(), Broken> {
        self.socket
            .set_timeouts(transfer.timeout)
            .map_err(|error| Broken::new(TransferFailure::Writing, &error))?;
        let mut preamble = Vec::new();
        let mut preamble_replies = 0;
        if !transfer.credentials.is_empty() {
            let words = transfer.credentials.iter().map(Vec::as_slice);
            append_request(&mut preamble, std::iter::once(b"AUTH".as_slice()).chain(words));
            preamble_replies += 1;
        }
        if self.db != Some(transfer.db) {
            append_request(&mut preamble, [b"SELECT".as_slice(), transfer.db.to_string().as_bytes()]);
            preamble_replies += 1;
        }
        // From here on nothing is certain, until all is answered.
        self.db = None;
        self.write(&preamble)?;
        self.write(&transfer.requests)?;
        for _ in 0..preamble_replies {
            let reply = self.line()?;
            note_refusal(&reply, refusal);
        }
        let is_let_in = refusal.is_none();
        for _ in 0..transfer.request_count {
            let reply = self.line()?;
            accepted.push(is_let_in && !reply.starts_with(b"-"));
            note_refusal(&reply, refusal);
        }
        self.db = refusal.is_none().then_some(transfer.db);
        Ok(())
    }
}

fn append_request<'a>(out: &mut Vec<u8>, words: impl IntoIterator<Item = &'a [u8]>) {
    let words: Vec<&[u8]> = words.into_iter().collect();
    Reply::new(out, Resp::V2).bulk_array(&words);
}

/// The first error counts.
fn note_refusal(reply: &[u8], refusal: &mut Option<Vec<u8>>) {
    if let (Some(text), None) = (reply.strip_prefix(b"-"), &refusal) {
        *refusal = Some(text.to_vec());
    }
}

fn transfer_with_retry(
    connection: &mut Option<Connection>,
    globals: &'static Globals,
    transfer: Transfer,
) -> Transferred {
    let mut may_retry = true;
    loop {
        let (mut accepted, mut refusal) = (Vec::new(), None);
        if connection.is_none() {
            match Connection::open(globals, &transfer) {
                Ok(opened) => *connection = Some(opened),
                Err(failure) => return Transferred { transfer, accepted, failure: Some(failure) },
            }
        }
        let open = connection.as_mut().expect("it was opened");
        let outcome = open.attempt(&transfer, &mut accepted, &mut refusal);
        let mut failure = refusal.map(TransferFailure::Refused);
        if let Err(broken) = outcome {
            *connection = None;
            if broken.is_closed && failure.is_none() && accepted.is_empty() && may_retry {
                may_retry = false;
                continue;
            }
            failure = failure.or(Some(broken.failure));
        }
        return Transferred { transfer, accepted, failure };
    }
}
