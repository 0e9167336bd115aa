//! The link to a master: this server is a replica of another one.
//!
//! ```text
//! master ──socket──► link thread: handshake, snapshot to a file, units of the stream
//!                         │ runs of commands, in order
//!                         ▼
//!                    shard 0: a connection of the server to itself (`feed`) ──► the shards of their keys
//! ```
//!
//! *Every read sees a prefix of the master's order.* The thread makes *runs* of the stream's units: commands that one shard alone
//! runs, one after the other; or units of any shards, which are *joined* to transactions as a client's pipeline is
//! ([`coalesce`](super::coalesce)), and which the shards apply at the same time. Shard 0 begins a run when all replies to the run before have come. So
//! there is never a moment at which a later unit has taken effect and an earlier one has not, whatever connection looks: a
//! transaction takes effect at one moment. And what has been applied is known exactly: what REPLCONF ACK, INFO and WAIT name is
//! the end of a run. A unit that has not come as a whole is not begun. A run is what has come, so it is short when the
//! master writes little, and as long as a pipeline may be when it writes more than can be applied at once.
//!
//! *The stream is the master's own.* What has been applied goes byte by byte into the backlog, from which the replicas of this server read, so
//! that all of them have the same history under the same name, and can go on with each other. Meanwhile no effects are recorded for
//! replicas.
//!
//! *A full synchronization* is loaded beside the old data, or when that was removed; in a unit over all shards it then takes its place
//! ([`snapshot`]).
//!
//! *Promotion* (REPLICAOF NO ONE): the thread ends the link, all that was received as a whole is applied, and in a unit over
//! all shards they begin to record effects, which continue the stream under a new name; the old one stays valid up to there.
//!
//! The thread takes its orders from REPLICAOF, one after the other, and does everything that takes time.

mod apply;
mod follow;
mod handshake;
pub mod runs;
mod snapshot;

pub use self::follow::continue_stream;

use crate::config::{Config, ReplicaOf, Text};
use crate::persist::aof::rewrite::write_request;
use crate::runtime::clock::Clock;
use crate::runtime::host;
use crate::runtime::log;
use crate::runtime::outgoing::Outgoing;
use crate::shard::message::ReplyId;
use crate::worker::feed::{AtEnd, FEED_SHARD};
use crate::worker::{Globals, failover};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// After a link has ended, the next one is tried when so much time has passed.
const RETRY: Duration = Duration::from_secs(1);

/// The same if a snapshot was cut off: the master is there, and has to notice first.
const RETRY_AFTER_CUT: Duration = Duration::from_millis(100);

/// What REPLICAOF has ordered last.
#[derive(Default)]
struct Orders {
    master: Option<Master>,
    /// Clients that wait until this server is a master: of which shards they are.
    replies: Vec<(usize, ReplyId)>,
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
    /// It is open, and what the master sends has been agreed upon, or will be.
    Handshake,
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
            LinkState::Handshake => "handshake",
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
    /// There is an order that the thread has not taken yet. Changes while the orders are locked.
    has_order: AtomicBool,
    /// Whether the link was up when that was last told.
    was_told_up: AtomicBool,
    /// It is not opened again until there is an order.
    is_given_up: AtomicBool,
    orders: Mutex<Orders>,
    changed: Condvar,
    figures: Mutex<LinkFigures>,
    /// The socket of the link that is up.
    socket: Mutex<Option<Arc<Outgoing>>>,
    /// An acknowledgement was asked for, at this offset and one more; 0: none.
    ack_wanted: AtomicU64,
    input_bytes: AtomicU64,
    read_offset: AtomicU64,
    /// The shards stand still, and a part of the stream is applied of which not all has run.
    is_applying: AtomicBool,
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

    /// It is a replica no more: what comes next are its own writes. Returns whether it was one.
    pub(super) fn set_master(&self, config: &Config) -> bool {
        let was_replica = self.is_replica.swap(false, Ordering::SeqCst);
        if was_replica {
            host::follow_oom_score(config, false);
        }
        was_replica
    }

    /// Whether the link to the master has ended for good, until REPLICAOF.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::SeqCst)
    }

    /// Whether it is to be told that the link is up or down: it has not been told yet.
    pub(super) fn takes_event(&self, is_up: bool) -> bool {
        self.was_told_up.swap(is_up, Ordering::SeqCst) != is_up
    }

    /// Ends the connection to the master, as CLIENT KILL does. Returns whether there was one.
    pub fn cut(&self) -> bool {
        let socket = self.socket.lock().expect("no holder of the socket panics").clone();
        if let Some(socket) = &socket {
            socket.shut();
        }
        socket.is_some()
    }

    /// Whether REPLICAOF has ordered something that is not carried out yet.
    pub(super) fn has_order(&self) -> bool {
        self.has_order.load(Ordering::SeqCst)
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

    /// Whether the data is of no certain place in the stream, although the shards stand still.
    pub(super) fn is_applying(&self) -> bool {
        self.is_applying.load(Ordering::SeqCst)
    }

    pub(super) fn set_applying(&self, is_applying: bool) {
        self.is_applying.store(is_applying, Ordering::SeqCst);
    }

    /// The stream stands still until a full synchronization has begun.
    pub(super) fn mark_sync_db(&self) {
        self.sync_db.store(self.stream_db(), Ordering::SeqCst);
    }

    /// Which database was selected where the last full synchronization began.
    pub(super) fn sync_db(&self) -> u32 {
        self.sync_db.load(Ordering::SeqCst)
    }

    pub fn set_stream_db(&self, db: u32) {
        self.stream_db.store(db, Ordering::Relaxed);
    }

    /// What was received of the stream, whether it is applied or not.
    pub fn read_offset(&self) -> u64 {
        self.read_offset.load(Ordering::Relaxed)
    }

    /// How many bytes have come from masters since the last CONFIG RESETSTAT.
    pub fn input_bytes(&self) -> u64 {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// CONFIG RESETSTAT.
    pub fn reset_input_bytes(&self) {
        self.input_bytes.store(0, Ordering::Relaxed);
    }

    fn set_socket(&self, socket: Option<Arc<Outgoing>>) {
        *self.socket.lock().expect("no holder of the socket panics") = socket;
    }

    /// The master as a client of this server, if the link is up: the addresses of both ends.
    pub fn ends(&self) -> Option<(String, String)> {
        let socket = self.socket.lock().expect("no holder of the socket panics");
        socket.as_deref().filter(|_| self.is_up()).and_then(Outgoing::ends)
    }

    /// Whether the link is up, and the master has not ended it without the link's having seen that yet.
    pub fn is_connected(&self) -> bool {
        let socket = self.socket.lock().expect("no holder of the socket panics");
        self.is_up() && !socket.as_deref().is_some_and(Outgoing::has_ended)
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

    /// So that CONFIG GET and REWRITE know of the master.
    pub fn remember(globals: &Globals, master: Option<&Master>) {
        let value = master.map(|master| (Text::from(master.host.as_bytes()), master.port));
        let changed = globals.update_config(|config| {
            Ok::<_, Infallible>((Config { replicaof: ReplicaOf(value), ..config.clone() }, ()))
        });
        match changed {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// From here on this server is a replica of another one, or, with `None`, of nobody. `reply`: the client of this shard
    /// that gets OK when it is none any more, or when a later order has come before this one was carried out.
    pub fn order(
        globals: &'static Globals,
        clock: &'static dyn Clock,
        master: Option<Master>,
        reply: Option<(usize, ReplyId)>,
    ) {
        let link = &globals.link;
        let mut orders = link.orders();
        orders.master = master;
        orders.replies.extend(reply);
        link.is_given_up.store(false, Ordering::SeqCst);
        if orders.master.is_some() {
            link.change_figures(|figures| {
                *figures = LinkFigures { down_since_ms: clock.wall_ms(), ..LinkFigures::default() };
            });
            link.is_up.store(false, Ordering::SeqCst);
            link.is_replica.store(true, Ordering::SeqCst);
            host::follow_oom_score(&globals.config().1, true);
        }
        link.has_order.store(true, Ordering::SeqCst);
        if !std::mem::replace(&mut orders.has_thread, true) {
            let thread = std::thread::Builder::new().name("replica-link".to_owned());
            let run = move || LinkThread { globals, clock }.run();
            thread.spawn(run).expect("the system can start a thread");
        }
        drop(orders);
        link.changed.notify_all();
        // Whoever reads from the link finds its end, and looks for the order.
        link.cut();
    }
}

/// The thread of the link.
struct LinkThread {
    globals: &'static Globals,
    clock: &'static dyn Clock,
}

/// Why the thread goes on with something else.
enum Ended {
    /// There is another order, or the server stops.
    Ordered,
    /// It has ended, and the log says why. It is tried again soon.
    Again,
    /// The replica to which this server hands its part over does not become a master.
    Rejected,
    /// The link has failed; the log's line.
    Failed(String),
    /// The same, and to try again would be of no use.
    Hopeless(String),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Ended {
        Ended::Failed(format!(
            "Error condition on socket for SYNC: {}",
            crate::runtime::os_error::error_text(&error)
        ))
    }
}

impl LinkThread {
    fn run(self) {
        let mut was_master = true;
        loop {
            let (master, replies) = self.await_order();
            match master {
                None => {
                    was_master = true;
                    if self.promote(replies).is_none() {
                        return;
                    }
                }
                Some(master) => {
                    if !replies.is_empty() && self.run_own(&[], AtEnd::Answer(replies)).is_none() {
                        return;
                    }
                    if std::mem::take(&mut was_master) && self.demote().is_none() {
                        return;
                    }
                    self.follow(&master);
                }
            }
        }
    }

    /// The next order, and the clients that are to get OK with it.
    fn await_order(&self) -> (Option<Master>, Vec<(usize, ReplyId)>) {
        let link = &self.globals.link;
        let mut orders = link.orders();
        while !link.has_order() {
            orders = link.changed.wait(orders).expect("no holder of the orders panics");
        }
        link.has_order.store(false, Ordering::SeqCst);
        (orders.master.clone(), std::mem::take(&mut orders.replies))
    }

    /// See [`Worker::tell_link`](super::Worker::tell_link).
    fn tell_link(&self, is_up: bool) {
        if self.globals.link.takes_event(is_up)
            && let Some(task) = self.globals.hooks.link_task(is_up)
        {
            self.globals.outside[FEED_SHARD].start(task);
        }
    }

    fn has_order(&self) -> bool {
        self.globals.link.has_order() || self.globals.is_stopping()
    }

    /// Sleeps until the time that DEBUG SLEEP has set: nothing of the server happens meanwhile.
    fn wait_out_stall(&self) {
        if let Some(left) = self.globals.stall_left(self.clock.wall_ms()) {
            self.clock.sleep(left);
        }
    }

    /// Follows a master until there is another order.
    fn follow(&self, master: &Master) {
        let link = &self.globals.link;
        let mut begins = "Connecting";
        while !self.has_order() {
            link.set_state(LinkState::Connect);
            self.wait_out_stall();
            log::notice(format_args!("{begins} to MASTER {}:{}", master.host, master.port));
            let ended = self.follow_once(master);
            link.set_socket(None);
            // Before anybody sees that the link is down, and tries again.
            if matches!(ended, Ended::Hopeless(_)) && !self.has_order() {
                link.is_given_up.store(true, Ordering::SeqCst);
            }
            let was_up = link.is_up();
            link.set_state(LinkState::Connect);
            begins = if was_up { "Reconnecting" } else { "Connecting" };
            self.tell_link(false);
            if was_up {
                let now_ms = self.clock.wall_ms();
                link.change_figures(|figures| figures.down_since_ms = now_ms);
                log::warning(format_args!("Connection with master lost."));
                log::notice(format_args!("Caching the disconnected master state."));
            }
            let retries_after = if matches!(ended, Ended::Again) { RETRY_AFTER_CUT } else { RETRY };
            match ended {
                Ended::Ordered => return,
                Ended::Again => {}
                Ended::Rejected => {
                    failover::abort(self.globals, self.clock, "Failover target rejected psync request", None);
                    return;
                }
                Ended::Failed(why) => log::warning(format_args!("{why}")),
                Ended::Hopeless(why) => {
                    log::warning(format_args!("{why}. The link is given up until REPLICAOF."));
                    return;
                }
            }
            let orders = link.orders();
            if !link.has_order() && !was_up {
                // Woken by an order before that.
                drop(
                    link.changed.wait_timeout(orders, retries_after).expect("no holder of the orders panics"),
                );
            }
        }
    }
}
