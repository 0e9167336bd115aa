//! A simulated server: any number of workers in one thread, without sockets, clock or rings, scheduled by a seed.
//!
//! Messages between a pair of shards keep their order. Messages of different pairs, and the input of clients, are
//! delayed and reordered at random. The real mesh allows the same orders, and no others.

#[allow(dead_code, reason = "not every test draws fresh seeds")]
#[path = "../common/random.rs"]
pub mod random;
#[path = "rows.rs"]
pub mod rows;

pub use random::Random;

use shardis_core::call::Key;
use shardis_core::command::table::CommandTable;

use shardis_core::config::{Config, ProtectedAccess, SavePoints};
use shardis_core::runtime::clock::Clock;
use shardis_core::runtime::driver::{CloseReason, ConnId, Events};
use shardis_core::session::FAMILIES;
use shardis_core::shard::blocking::WaitId;
use shardis_core::shard::lock::{KeyLock, LockRequestId};
use shardis_core::shard::message::Message;
use shardis_core::shard::slot::shard_of;
use shardis_core::types::{ValueRef, fix_hash_seed, hash_key};
use shardis_core::worker::feed::FEED_SHARD;
use shardis_core::worker::{Globals, GlobalsInit, IoRequest, NewConnectionInfo, Worker};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A clock that only the test advances. It ends the slices of programs at random.
pub struct ManualClock {
    now_us: AtomicI64,
    random: AtomicU64,
}

impl ManualClock {
    pub fn advance_ms(&self, ms: i64) {
        self.now_us.fetch_add(ms * 1000, Ordering::Relaxed);
    }
}

impl ManualClock {
    /// Random, with this chance.
    fn one_in(&self, count: usize) -> bool {
        let mut random = Random::new(self.random.load(Ordering::Relaxed));
        self.random.fetch_add(1, Ordering::Relaxed);
        random.below(count) == 0
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.wall_us() / 1000
    }

    fn wall_us(&self) -> i64 {
        self.now_us.load(Ordering::Relaxed)
    }

    fn ticks(&self) -> u64 {
        self.wall_us() as u64
    }

    fn ticks_to_nanos(&self, ticks: u64) -> u64 {
        ticks * 1000
    }

    fn ends_slice(&self, _ran_nanos: u64) -> bool {
        self.one_in(3)
    }

    fn ends_snapshot_slice(&self, _ran_nanos: u64, _nanos_max: u64) -> bool {
        // Most of a segment's buckets are empty.
        self.one_in(30)
    }

    fn thread_allocated_bytes(&self) -> i64 {
        0
    }

    fn sleep(&self, duration: Duration) {
        self.now_us.fetch_add(duration.as_micros() as i64, Ordering::Relaxed);
    }
}

/// A client: what it has received and not sent yet, and which shard serves it.
struct Peer {
    shard: usize,
    conn: ConnId,
    inbox: Vec<u8>,
    unsent: VecDeque<Vec<u8>>,
    is_open: bool,
}

/// A request in RESP.
pub fn request_bytes(args: &[impl AsRef<str>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    bytes
}

pub struct Cluster {
    pub workers: Vec<Worker>,
    pub clock: &'static ManualClock,
    pub random: Random,
    wires: HashMap<(usize, usize), VecDeque<Message>>,
    /// Wires on which nothing arrives at present: see `hold`.
    held: HashSet<(usize, usize)>,
    peers: Vec<Peer>,
    next_conn: Vec<u32>,
    /// Where snapshots go. The append-only file is in the directory of this name with `.aof` at its end.
    pub file: PathBuf,
    _leaked: Leaked,
}

/// What the workers borrow as `'static`. Freed here after they were dropped, or runs of many seeds would use more and
/// more memory.
struct Leaked {
    clock: *mut ManualClock,
    globals: *mut Globals,
}

impl Drop for Leaked {
    fn drop(&mut self) {
        // SAFETY: both come from `Box::into_raw` in `Cluster::new`. Only the workers of the cluster and its `clock`,
        // and threads that have ended then, borrow them. The workers were dropped before, as fields are dropped in the
        // order of declaration, and tests use the clock only through the cluster.
        unsafe {
            // They have threads that write files.
            (*self.globals).aof.stop_writer();
            (*self.globals).persistence.snapshots.abandon();
            drop(Box::from_raw(self.globals));
            drop(Box::from_raw(self.clock));
        }
    }
}

/// Enough steps for any test. More of them mean that messages are sent without end.
const STEPS_MAX: usize = 1_000_000;

/// The commands of the server, and those of `rows.rs`.
pub fn table() -> CommandTable {
    CommandTable::new(&[FAMILIES, &[rows::COMMANDS]].concat(), &[]).expect("the families fit together")
}

/// Whether a worker has something to do in its next turn although nothing arrives.
fn can_go_on(worker: &Worker) -> bool {
    worker.has_ready_programs() || worker.owes_turn() || worker.has_seen_handoffs_end()
}

impl Cluster {
    pub fn new(shard_count: usize, seed: u64) -> Cluster {
        Cluster::with_table(shard_count, seed, table())
    }

    /// The same, with these commands.
    pub fn with_table(shard_count: usize, seed: u64, table: CommandTable) -> Cluster {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("shardis-sim-{}-{number}.rdb", std::process::id()));
        // Thousands of servers log the same.
        shardis_core::runtime::log::silence_stdout();
        // The same for all clusters of the process: otherwise SCAN and RANDOMKEY would differ from run to run of a
        // seed.
        fix_hash_seed(1);
        let clock = Box::into_raw(Box::new(ManualClock {
            now_us: AtomicI64::new(1_700_000_000_000_000),
            random: AtomicU64::new(seed.wrapping_mul(1 << 20)),
        }));
        // SAFETY: it was allocated just now, is only used by shared reference, and `Leaked` frees it after the
        // borrowers.
        let borrowed_clock: &'static ManualClock = unsafe { &*clock };
        let globals = Box::into_raw(Box::new(Globals::new(GlobalsInit {
            tls: shardis_core::runtime::tls::Tls::default(),
            // Without the latency histograms, which would take most of a cluster's memory.
            config: Config {
                latency_tracking: false,
                enable_debug_command: ProtectedAccess::Yes,
                // FLUSHALL would write a file.
                save: SavePoints(Vec::new()),
                dbfilename: file.to_string_lossy().as_bytes().into(),
                appenddirname: file.with_extension("aof").to_string_lossy().as_bytes().into(),
                ..Config::default()
            },
            table,
            shard_count,
            seed,
            run_id: "0".repeat(40),
            started_at_ms: borrowed_clock.wall_ms(),
            io_backend: "simulated",
            executable: "sim".to_string(),
        })));
        // SAFETY: as for the clock.
        let borrowed_globals: &'static Globals = unsafe { &*globals };
        let worker = |index| {
            let mut worker = Worker::new(index, borrowed_globals, borrowed_clock);
            if seed % 4 >= 2 {
                worker.put_off_long_slices();
            }
            worker
        };
        Cluster {
            workers: (0..shard_count).map(worker).collect(),
            clock: borrowed_clock,
            random: Random::new(seed),
            wires: HashMap::new(),
            held: HashSet::new(),
            peers: Vec::new(),
            next_conn: vec![0; shard_count],
            file,
            _leaked: Leaked { clock, globals },
        }
    }

    /// A new client on a shard. Returns its number.
    pub fn connect(&mut self, shard: usize) -> usize {
        let conn = ConnId::new(self.next_conn[shard], 0);
        self.next_conn[shard] += 1;
        let info = NewConnectionInfo {
            addr: format!("127.0.0.1:{}", 1000 + self.peers.len()),
            laddr: "127.0.0.1:6379".to_string(),
            unix_socket: false,
            tls: false,
            is_denied: false,
            is_server: false,
        };
        self.workers[shard].connected(conn, 10, info);
        self.peers.push(Peer { shard, conn, inbox: Vec::new(), unsent: VecDeque::new(), is_open: true });
        self.peers.len() - 1
    }

    /// Queues bytes that the client sends. They arrive in a later step.
    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        self.peers[client].unsent.push_back(bytes.to_vec());
    }

    /// Queues one request.
    pub fn request(&mut self, client: usize, args: &[&str]) {
        self.send(client, &request_bytes(args));
    }

    /// Makes everything that the client has sent arrive at once.
    pub fn hand_over(&mut self, client: usize) {
        let peer = &mut self.peers[client];
        let bytes: Vec<u8> = std::mem::take(&mut peer.unsent).into_iter().flatten().collect();
        let (shard, conn) = (peer.shard, peer.conn);
        self.turn(shard, |worker| worker.received(conn, &bytes));
    }

    /// Closes the client's connection, even with requests or replies under way.
    pub fn disconnect(&mut self, client: usize) {
        let peer = &mut self.peers[client];
        if !std::mem::replace(&mut peer.is_open, false) {
            return;
        }
        peer.unsent.clear();
        let (shard, conn) = (peer.shard, peer.conn);
        self.turn(shard, |worker| {
            worker.send_failed(conn, libc::EPIPE);
            worker.input_ended(conn, CloseReason::Eof);
        });
    }

    /// Makes everything that the client has sent arrive at once, followed by the end of its input. It still reads.
    pub fn end_input(&mut self, client: usize) {
        let peer = &mut self.peers[client];
        let bytes: Vec<u8> = std::mem::take(&mut peer.unsent).into_iter().flatten().collect();
        let (shard, conn) = (peer.shard, peer.conn);
        self.turn(shard, |worker| {
            if !bytes.is_empty() {
                worker.received(conn, &bytes);
            }
            worker.input_ended(conn, CloseReason::Eof);
        });
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// Whether messages or input of clients are under way, or programs.
    pub fn is_busy(&self) -> bool {
        self.workers.iter().any(can_go_on)
            || self.wires.values().any(|queue| !queue.is_empty())
            || self.peers.iter().any(|peer| !peer.unsent.is_empty())
    }

    /// Whether input of a client is under way.
    pub fn is_sending(&self, client: usize) -> bool {
        !self.peers[client].unsent.is_empty()
    }

    /// The wait of a blocked client, and whether it is being served.
    pub fn wait_of(&self, client: usize) -> Option<(WaitId, bool)> {
        let peer = &self.peers[client];
        self.workers[peer.shard].wait_of(peer.conn.index())
    }

    /// The client id that the server has given to a client.
    pub fn client_id(&self, client: usize) -> u64 {
        let Peer { shard, conn, .. } = self.peers[client];
        let connection = self.workers[shard].connections[conn.index()].as_deref();
        connection.expect("it is open").client.id
    }

    /// Looks at the value of a key, if it exists.
    pub fn see<T>(&self, db: usize, key: &str, see: impl FnOnce(Option<ValueRef<'_>>) -> T) -> T {
        let shard = &self.workers[shard_of(key.as_bytes(), self.workers.len())].shard;
        let key = Key { bytes: key.as_bytes(), hash: hash_key(key.as_bytes()) };
        let entry = shard.lookup_stored(db as u32, key);
        see(entry.as_ref().map(|entry| entry.value()))
    }

    /// Runs a turn of the shard that applies the stream of a master.
    pub fn run_feed(&mut self) {
        self.turn(FEED_SHARD, |worker| {
            worker.run_feed();
        });
    }

    /// Runs a turn of all workers, without events.
    pub fn tick(&mut self) {
        (0..self.workers.len()).for_each(|shard| self.turn(shard, |_| {}));
    }

    /// Has a shard hold keys as a suspended program does, if they are free there. They are read, or changed (`exclusive`).
    pub fn suspend_program(&mut self, shard: usize, keys: &[&str], exclusive: bool) -> Option<LockRequestId> {
        let locks: SmallVec<[KeyLock; 4]> =
            keys.iter().map(|key| KeyLock { id: hash_key(key.as_bytes()), exclusive }).collect();
        if self.workers[shard].shard.locks.conflicts(&locks) {
            return None;
        }
        let mut held = None;
        self.turn(shard, |worker| held = Some(worker.hold_for_program(locks)));
        held
    }

    /// Ends what `suspend_program` has begun.
    pub fn end_program(&mut self, shard: usize, held: LockRequestId) {
        self.turn(shard, |worker| worker.end_program_hold(held));
    }

    /// Whether there are no locks, no lock requests and no blocked clients.
    pub fn is_at_rest(&self) -> bool {
        self.workers.iter().all(|worker| worker.shard.locks.is_empty() && worker.shard.blocking.is_empty())
    }

    /// Takes what the client has received so far.
    pub fn received(&mut self, client: usize) -> Vec<u8> {
        std::mem::take(&mut self.peers[client].inbox)
    }

    /// Holds back messages from shard `from` to shard `to` until `release`.
    pub fn hold(&mut self, from: usize, to: usize) {
        self.held.insert((from, to));
    }

    pub fn release(&mut self, from: usize, to: usize) {
        self.held.remove(&(from, to));
    }

    pub fn is_open(&self, client: usize) -> bool {
        self.peers[client].is_open
    }

    /// One random step: messages or input of clients arrive at a shard, or it only takes a turn because it has programs
    /// to run. False if nothing is under way.
    pub fn step(&mut self) -> bool {
        let mut wires: Vec<(usize, usize)> =
            self.wires.iter().filter(|(_, queue)| !queue.is_empty()).map(|(&wire, _)| wire).collect();
        wires.retain(|wire| !self.held.contains(wire));
        wires.sort_unstable();
        let senders: Vec<usize> =
            (0..self.peers.len()).filter(|&client| !self.peers[client].unsent.is_empty()).collect();
        let running: Vec<usize> =
            (0..self.workers.len()).filter(|&shard| can_go_on(&self.workers[shard])).collect();
        let choices = wires.len() + senders.len() + running.len();
        if choices == 0 {
            return false;
        }
        let choice = self.random.below(choices);
        if let Some(&shard) = running.get(choice.wrapping_sub(wires.len() + senders.len())) {
            self.turn(shard, |_| {});
        } else if let Some(&(from, to)) = wires.get(choice) {
            let queue = self.wires.get_mut(&(from, to)).expect("it was listed");
            let count = 1 + self.random.below(queue.len());
            let mut inbox: Vec<(usize, Message)> =
                queue.drain(..count).map(|message| (from, message)).collect();
            self.turn(to, |worker| worker.deliver_all(&mut inbox));
        } else {
            // Input of other clients of the shard, and more of the same client, may arrive in the same turn.
            let first = senders[choice - wires.len()];
            let shard = self.peers[first].shard;
            let mut inputs = Vec::new();
            for &client in std::iter::once(&first).chain(&senders) {
                let joins = inputs.is_empty() || self.random.below(2) == 0;
                let peer = &mut self.peers[client];
                if joins
                    && peer.shard == shard
                    && let Some(bytes) = peer.unsent.pop_front()
                {
                    inputs.push((peer.conn, bytes));
                }
            }
            let inputs: Vec<(ConnId, &[u8])> =
                inputs.iter().map(|(conn, bytes)| (*conn, bytes.as_slice())).collect();
            self.turn(shard, |worker| worker.received_many(&inputs));
        }
        true
    }

    /// Steps until nothing is under way.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Sends one request and returns its reply.
    pub fn call(&mut self, client: usize, args: &[&str]) -> String {
        self.request(client, args);
        self.settle();
        let aof = &self.workers[0].globals.aof;
        if aof.is_on() {
            // The reply waits for the thread that writes.
            aof.flush();
            self.tick();
            self.settle();
        }
        String::from_utf8_lossy(&self.received(client)).into_owned()
    }

    fn turn(&mut self, shard: usize, events: impl FnOnce(&mut Worker)) {
        let worker = &mut self.workers[shard];
        worker.before_wait();
        worker.begin_turn();
        events(worker);
        worker.end_turn();
        self.send_all(shard);
        if self.workers[shard].run_long_slice() {
            self.send_all(shard);
        }
    }

    /// Sends what a turn has produced.
    fn send_all(&mut self, shard: usize) {
        loop {
            let requests = std::mem::take(&mut self.workers[shard].requests);
            if requests.is_empty() {
                break;
            }
            for request in requests {
                self.carry_out(shard, request);
            }
            self.workers[shard].end_turn();
        }
        for (to, message) in self.workers[shard].outbox.drain() {
            self.wires.entry((shard, to)).or_default().push_back(message);
        }
    }

    fn carry_out(&mut self, shard: usize, request: IoRequest) {
        let peer_of = |conn: ConnId| move |peer: &&mut Peer| peer.shard == shard && peer.conn == conn;
        match request {
            IoRequest::Send(conn, buf) => {
                if let Some(peer) = self.peers.iter_mut().find(peer_of(conn)) {
                    peer.inbox.extend_from_slice(&buf);
                }
                self.workers[shard].sent(conn, buf);
            }
            IoRequest::Close(conn) => {
                if let Some(peer) = self.peers.iter_mut().find(peer_of(conn)) {
                    peer.is_open = false;
                    peer.unsent.clear();
                }
            }
            IoRequest::RecvExact { .. } => panic!("the simulated clients send no big arguments"),
            IoRequest::Adopt(new) if new.is_server => {
                let conn = ConnId::new(self.next_conn[shard], 0);
                self.next_conn[shard] += 1;
                let info = NewConnectionInfo {
                    addr: new.addr,
                    laddr: new.laddr,
                    unix_socket: new.unix_socket,
                    tls: false,
                    is_denied: false,
                    is_server: true,
                };
                self.workers[shard].connected(conn, 10, info);
            }
            IoRequest::Pause(_) | IoRequest::Resume(_) | IoRequest::Adopt(_) | IoRequest::Listen(_) => {}
        }
    }
}
