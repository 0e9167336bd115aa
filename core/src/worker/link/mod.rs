//! The link to a master: this server is a replica of another one.
//!
//! ```text
//! master ──socket──► link thread: handshake, snapshot to a file, units of the stream
//!                         │ runs of commands, in order
//!                         ▼
//!                    shard 0: a connection of the server to itself (`feed`) ──► the shards of their keys
//! ```
//!
//! *Every read sees a prefix of the master's order.* The thread splits the stream into units, and these into *runs*: commands
//! that one shard alone runs, one after the other, or a single unit over several shards, which is a transaction. Shard 0 begins a run when all
//! replies to the run before have come. So there is never a moment at which a later unit has taken effect and an earlier
//! one has not, whatever connection looks; and what has been applied is known exactly: what REPLCONF ACK, INFO and WAIT
//! name is the end of a run. A unit that has not come as a whole is not begun.
//!
//! *The stream is the master's own.* What has been applied goes byte by byte into the backlog, from which the replicas of this server read, so
//! that all of them have the same history under the same name, and can go on with each other. Meanwhile no effects are recorded for
//! replicas.
//!
//! *A full synchronization* is received into a file while the old data is still served. Then commands are refused with -LOADING, and
//! each shard replaces its keys by those of the file, in a unit over all shards.
//!
//! *Promotion* (REPLICAOF NO ONE): the thread ends the link, all that was received as a whole is applied, and in a unit over
//! all shards they begin to record effects, which continue the stream under a new name; the old one stays valid up to there.
//!
//! The thread takes its orders from REPLICAOF, one after the other, and does everything that takes time.

mod apply;
mod follow;
mod handshake;
pub mod runs;

pub use self::follow::continue_stream;

use crate::persist::aof::rewrite::write_request;
use crate::runtime::clock::Clock;
use crate::runtime::log;
use crate::runtime::outgoing::Outgoing;
use crate::shard::message::ReplyId;
use crate::worker::Globals;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// After a link has ended, the next one is tried when so much time has passed.
const RETRY: Duration = Duration::from_secs(1);

/// What REPLICAOF has ordered last.
#[derive(Default)]
struct Orders {
    version: u64,
    master: Option<Master>,
    /// A client of this shard waits until the order is carried out.
    reply: Option<(usize, ReplyId)>,
    has_thread: bool,
}

/// Where a master is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Master {
    pub host: String,
    pub port: u16,
}

/// How the link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkState {
    /// It is to be opened.
    #[default]
    Connect,
    Connecting,
    /// The snapshot comes.
    Sync,
    Connected,
}

impl LinkState {
    /// As ROLE names it.
    pub fn name(self) -> &'static str {
        match self {
            LinkState::Connect => "connect",
            LinkState::Connecting => "connecting",
            LinkState::Sync => "sync",
            LinkState::Connected => "connected",
        }
    }
}

/// What INFO shows of the link.
#[derive(Clone, Copy, Default, Debug)]
pub struct LinkFigures {
    pub state: LinkState,
    /// When something came last, and since when the link has been down; unix time in milliseconds.
    pub last_io_ms: i64,
    pub down_since_ms: i64,
    /// Of the snapshot that comes: its length, if it is known, and how much is there.
    pub sync_total_bytes: u64,
    pub sync_read_bytes: u64,
}

/// What all shards and the link's thread share.
#[derive(Default)]
pub struct LinkGlobals {
    is_replica: AtomicBool,
    is_up: AtomicBool,
    orders: Mutex<Orders>,
    changed: Condvar,
    figures: Mutex<LinkFigures>,
    /// The socket of the link that is up.
    socket: Mutex<Option<Arc<Outgoing>>>,
    /// An acknowledgement was asked for, at this offset and one more; 0: none.
    ack_wanted: AtomicU64,
    /// Why the last snapshot could not be loaded.
    load_error: Mutex<Option<String>>,
    input_bytes: AtomicU64,
    read_offset: AtomicU64,
    /// Which database is selected at the end of what has been applied.
    stream_db: AtomicU32,
    /// The same where the last full synchronization of a replica of this server began.
    sync_db: AtomicU32,
}

impl LinkGlobals {
    /// Whether this server is a replica.
    #[inline]
    pub fn is_replica(&self) -> bool {
        self.is_replica.load(Ordering::Relaxed)
    }

    /// Whether the link to the master is up, and the data is the master's.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// The server starts as a replica: it refuses writes from the beginning. [`LinkGlobals::order`] follows.
    pub fn begin_as_replica(&self) {
        self.is_replica.store(true, Ordering::SeqCst);
    }

    /// It is a replica no more: what comes next are its own writes.
    pub(super) fn set_master(&self) {
        self.is_replica.store(false, Ordering::SeqCst);
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no holder of the orders panics")
    }

    /// The master of this server.
    pub fn master(&self) -> Option<Master> {
        self.orders().master.clone()
    }

    pub fn figures(&self) -> LinkFigures {
        *self.figures.lock().expect("no holder of the figures panics")
    }

    fn change_figures(&self, change: impl FnOnce(&mut LinkFigures)) {
        change(&mut self.figures.lock().expect("no holder of the figures panics"));
    }

    fn set_state(&self, state: LinkState) {
        self.change_figures(|figures| figures.state = state);
        self.is_up.store(state == LinkState::Connected, Ordering::SeqCst);
    }

    /// Which database is selected at the end of what has been applied of the stream.
    pub(super) fn stream_db(&self) -> u32 {
        self.stream_db.load(Ordering::Relaxed)
    }

    /// The stream stands still until a full synchronization has begun.
    pub(super) fn mark_sync_db(&self) {
        self.sync_db.store(self.stream_db(), Ordering::SeqCst);
    }

    /// Which database was selected where the last full synchronization began.
    pub(super) fn sync_db(&self) -> u32 {
        self.sync_db.load(Ordering::SeqCst)
    }

    pub(super) fn set_stream_db(&self, db: u32) {
        self.stream_db.store(db, Ordering::Relaxed);
    }

    /// What was received of the stream, whether it is applied or not.
    pub fn read_offset(&self) -> u64 {
        self.read_offset.load(Ordering::Relaxed)
    }

    /// How many bytes have come from masters.
    pub fn input_bytes(&self) -> u64 {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// The snapshot could not be loaded on a shard.
    pub fn set_load_error(&self, why: String) {
        *self.load_error.lock().expect("no holder of the error panics") = Some(why);
    }

    fn take_load_error(&self) -> Option<String> {
        self.load_error.lock().expect("no holder of the error panics").take()
    }

    fn set_socket(&self, socket: Option<Arc<Outgoing>>) {
        *self.socket.lock().expect("no holder of the socket panics") = socket;
    }

    /// Tells the master how much of the stream is applied.
    pub(super) fn acknowledge(&self, offset: u64) {
        let socket = self.socket.lock().expect("no holder of the socket panics").clone();
        if let Some(socket) = socket {
            let mut request = Vec::new();
            write_request(&mut request, &[b"REPLCONF", b"ACK", offset.to_string().as_bytes()]);
            socket.try_send(&request);
        }
    }

    /// From here on this server is a replica of another one, or, with `None`, of nobody. `reply`: the client of this shard
    /// that gets OK when it is none any more.
    pub fn order(
        globals: &'static Globals,
        clock: &'static dyn Clock,
        master: Option<Master>,
        reply: Option<(usize, ReplyId)>,
    ) {
        let link = &globals.link;
        let mut orders = link.orders();
        orders.version += 1;
        orders.master = master;
        orders.reply = reply;
        if orders.master.is_some() {
            link.change_figures(|figures| {
                *figures = LinkFigures { down_since_ms: clock.wall_ms(), ..LinkFigures::default() };
            });
            link.is_up.store(false, Ordering::SeqCst);
            link.is_replica.store(true, Ordering::SeqCst);
        }
        if !std::mem::replace(&mut orders.has_thread, true) {
            let thread = std::thread::Builder::new().name("replica-link".to_owned());
            let run = move || LinkThread { globals, clock, version: 0 }.run();
            thread.spawn(run).expect("the system can start a thread");
        }
        drop(orders);
        link.changed.notify_all();
        // Whoever reads from the link finds its end, and looks for the order.
        if let Some(socket) = &*link.socket.lock().expect("no holder of the socket panics") {
            socket.shut();
        }
    }
}

/// The thread of the link.
struct LinkThread {
    globals: &'static Globals,
    clock: &'static dyn Clock,
    /// Of the order that is being carried out.
    version: u64,
}

/// Why the thread goes on with something else.
enum Ended {
    /// There is another order, or the server stops.
    Ordered,
    /// The link has failed; the log's line.
    Failed(String),
    /// The same, and to try again would be of no use.
    Hopeless(String),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Ended {
        Ended::Failed(crate::runtime::os_error::error_text(&error))
    }
}

impl LinkThread {
    fn run(mut self) {
        let mut was_master = true;
        loop {
            let (master, reply) = self.await_order();
            match master {
                None => {
                    was_master = true;
                    if self.promote(reply).is_none() {
                        return;
                    }
                }
                Some(master) => {
                    if std::mem::take(&mut was_master) && self.demote().is_none() {
                        return;
                    }
                    self.follow(&master);
                }
            }
        }
    }

    /// The next order.
    fn await_order(&mut self) -> (Option<Master>, Option<(usize, ReplyId)>) {
        let link = &self.globals.link;
        let mut orders = link.orders();
        while orders.version == self.version {
            orders = link.changed.wait(orders).expect("no holder of the orders panics");
        }
        self.version = orders.version;
        (orders.master.clone(), orders.reply.take())
    }

    fn has_order(&self) -> bool {
        self.globals.link.orders().version != self.version || self.globals.is_stopping()
    }

    /// Follows a master until there is another order.
    fn follow(&mut self, master: &Master) {
        let link = &self.globals.link;
        while !self.has_order() {
            link.set_state(LinkState::Connect);
            let ended = self.follow_once(master);
            link.set_socket(None);
            let was_up = link.is_up();
            link.set_state(LinkState::Connect);
            if was_up {
                let now_ms = self.clock.wall_ms();
                link.change_figures(|figures| figures.down_since_ms = now_ms);
                log::warning(format_args!("Connection with master lost."));
            }
            match ended {
                Ended::Ordered => return,
                Ended::Failed(why) => log::warning(format_args!("MASTER <-> REPLICA link: {why}")),
                Ended::Hopeless(why) => {
                    log::warning(format_args!("MASTER <-> REPLICA link is given up until REPLICAOF: {why}"));
                    return;
                }
            }
            let orders = link.orders();
            if orders.version == self.version && !was_up {
                // Woken by an order before that.
                drop(link.changed.wait_timeout(orders, RETRY).expect("no holder of the orders panics"));
            }
        }
    }
}
