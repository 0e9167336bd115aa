//! The worker: one core's whole server, without its I/O.
//!
//! A driver passes it the bytes that clients sent and sends the bytes it returns; other workers exchange messages
//! with it. In between it is a synchronous state machine:
//!
//! - `input` keeps what a connection sent, `pipeline` parses and executes it, most of it by `fast_path`; `replies`
//!   puts replies in the order of the requests;
//! - `run` runs commands, whoever calls them; `fetch` fetches the elements that they will look up in big collections;
//! - `remote` gathers commands for other shards into one batch a turn, and runs the batches of others;
//! - `multi` queues transactions, `exec` runs them, `transact` runs commands and transactions over several shards,
//!   `coalesce` turns a pipeline of these into one transaction; `acl` knows who the clients are;
//! - `program` runs programs, a slice at a time;
//! - `persistence` saves while commands wait, `snapshot` while they go on; `shutdown` and `closing` end the server;
//! - `pubsub` delivers what is published to subscribers, `tracking` tells clients what has changed that they have read, `monitor` shows commands to those who watch them all;
//! - `blocked` handles blocked clients, `stream` the replicas that read the effect stream, `link` the master, `failover` the change of both, `aof` the append-only file,
//!   `feed` the commands that the server itself runs: of a file, of a master's stream, and `divergence` those of them that fail; `peers` the
//!   servers that keys are sent to; `handoffs` what has to come behind changed keys' blocked clients; `cron` periodic work and timeouts.
//!
//! The same code runs under io_uring, under epoll and in a simulator.
//!
//! One turn: `begin_turn`, events from the driver (`received`, ...), messages from the mesh (`deliver`),
//! `end_turn`; then the runtime carries out `requests` and hands the messages of `outbox` to the mesh.

pub mod acl;
pub mod aof;
mod blocked;
pub mod client_line;
pub mod client_memory;
mod clients;
mod closing;
mod coalesce;
mod connection;
mod cron;
mod divergence;
mod events;
mod evict;
mod exec;
mod failover;
mod fast_path;
pub mod feed;
mod fetch;
mod globals;
mod handoffs;
pub mod hooks;
mod input;
pub mod latency;
pub mod link;
pub mod load;
mod monitor;
mod multi;
mod outbox;
pub mod peers;
pub mod persistence;
mod pipeline;
mod pools;
pub mod program;
mod pubsub;
mod remote;
mod replies;
mod run;
pub mod scripts;
mod session;
mod shutdown;
mod slow;
pub mod snapshot;
mod stream;
mod timing;
mod tracking;
mod transact;

pub use closing::{Closing, Exchange};
pub use connection::Connection;
pub use cron::TURN_INTERVAL_MS_MAX;
pub use events::NewConnectionInfo;
pub use failover::FailoverOptions;
pub use globals::{Globals, GlobalsInit, PauseReason, REPLY_PEAK_RESET_MS};
pub use outbox::Outbox;
pub use pipeline::PING_AS_MESSAGE;
pub use session::{SessionCtx, SessionHandler};
pub use shutdown::ShutdownOptions;
pub use stream::{ReplicaInfo, ReplicaState, ReplicationIds, SYNC_BARRIER, StreamGlobals, show_replicas};

use self::handoffs::{HandoffWait, Looks};
use self::pools::Pools;
use self::timing::Timing;
use crate::acl::Users;
use crate::client::ClientId;
use crate::command::admission::{Conditions, PauseKind, ReplicaConditions};
use crate::command::table::CommandTable;
use crate::config::BusyScriptScope;
use crate::pubsub::{Publisher, Subscribers};
use crate::runtime::clock::Clock;
use crate::runtime::driver::ConnId;
use crate::runtime::watchdog::{self, Watched};
use crate::runtime::{crash, log};
use crate::script::{FunctionSet, Scripts};
use crate::shard::Shard;
use crate::shard::message::{Listeners, Message, ReplyId};
use crate::shard::slowlog::SlowLog;
use ahash::AHashMap;
use std::sync::Arc;

/// What the worker asks of its driver.
pub enum IoRequest {
    Send(ConnId, Vec<u8>),
    RecvExact {
        conn: ConnId,
        buf: Vec<u8>,
        want: usize,
    },
    Pause(ConnId),
    Resume(ConnId),
    Close(ConnId),
    /// Listen on these TCP sockets instead of the present ones.
    Listen(Listeners),
    /// Serve this connection.
    Adopt(Box<crate::shard::message::NewConnection>),
}

/// One shard with its connections.
pub struct Worker {
    pub shard: Shard,
    pub globals: &'static Globals,
    pub table: &'static CommandTable,
    /// Indexed by [`ConnId::index`].
    pub connections: Vec<Option<Box<Connection>>>,
    /// Where each client's connection is.
    by_client: AHashMap<ClientId, u32>,
    pub requests: Vec<IoRequest>,
    pub outbox: Outbox,
    pub(crate) slowlog: SlowLog,
    pub scripts: Scripts,
    pools: Pools,
    /// Connections with output to send.
    dirty: Vec<u32>,
    /// Connections whose output must not be sent yet; they are still marked dirty.
    deferred: Vec<u32>,
    /// Connections whose stalled requests can be executed again.
    runnable: Vec<u32>,
    /// Connections stalled by CLIENT PAUSE.
    paused: Vec<u32>,
    /// Connections stalled because keys are being handed off to blocked clients, or because other shards are to look at their
    /// clients' requests first.
    behind_handoffs: Vec<(u32, HandoffWait)>,
    looks: Looks,
    /// Connections stalled because they had much output in this turn.
    yielded: Vec<u32>,
    /// Connections whose big argument the driver starts to read at the end of this turn.
    fills: Vec<u32>,
    /// Connections whose big argument the driver is reading, and how much of it was there before.
    filling: Vec<(ConnId, usize)>,
    transact: transact::Transactions,
    programs: program::Programs,
    blocked: blocked::BlockedClients,
    subscribers: Subscribers<ReplyId>,
    trackers: tracking::Trackers,
    stream: stream::Stream,
    outlet: aof::Outlet,
    /// The commands of a file that this shard runs.
    feed: Option<feed::OpenFeed>,
    /// While the shard is loading: what is to be loaded.
    incoming: Option<load::Incoming>,
    /// The libraries of what is loaded beside the data set, on one of the shards.
    aside_libraries: FunctionSet,
    /// How many units the shard has run that save: see [`Worker::next_snapshot_number`].
    snapshots_begun: u64,
    /// The shard's part of the background save that is under way, until it has handed it over.
    snapshot_part: Option<Box<snapshot::SnapshotPart>>,
    /// The replies that SHUTDOWN owes if it fails, and how many had failed when it was called.
    shutdowns: Vec<(ReplyId, u64)>,
    /// Replicas that wait until this server is a master: see [`Worker::promote_for`].
    awaiting_promotion: Vec<stream::AwaitingPromotion>,
    cron: cron::Cron,
    eviction: evict::Eviction,
    client_memory: client_memory::ClientMemory,
    /// How many bytes the shard had received when it last told that it ends a turn: see [`hooks::WorkerEvents`].
    input_bytes_told: u64,
    gathered: Vec<pipeline::Gathered>,
    /// Groups to come that are not examined for look-ups in big collections.
    unexamined_groups: u32,
    alikes: pipeline::Alikes,
    ahead: coalesce::Ahead,
    config_version: u64,
    table_version: u64,
    users: Arc<Users>,
    users_version: u64,
    user_changes: acl::OpenChanges,
    /// The default user is on and needs no password.
    default_is_open: bool,
    time: Timing,
    /// A connection with this much output is near its limit, and is checked after every command, so that no further
    /// command runs after the one that exceeds the limit.
    output_limit_near_bytes: usize,
    /// Whether commands are refused while a program is over busy-reply-threshold (busy-script-scope).
    refuses_while_busy: bool,
    /// On the accepting shard: how many connections it has assigned to each shard.
    assigned: Vec<u64>,
    /// On the accepting shard: the driver's numbers of the listeners whose peers are to speak TLS.
    tls_listeners: Vec<usize>,
}

/// The shard that accepts connections for all shards.
pub const ACCEPTING_SHARD: usize = 0;

impl Worker {
    pub fn new(index: usize, globals: &'static Globals, clock: &'static dyn Clock) -> Worker {
        let shard_count = globals.stats.len();
        let (config_version, config) = globals.config();
        let (table_version, table) = globals.table();
        let slowlog_len_max = config.slowlog_max_len as usize;
        let mut shard = Shard::new(
            index,
            shard_count,
            config,
            std::sync::Arc::clone(&globals.stats[index]),
            globals.seed,
        );
        shard.module_types = std::sync::Arc::clone(&globals.module_types);
        shard.publisher = Publisher::new(std::sync::Arc::clone(&globals.directory));
        shard.observers.change_tracking(|tracking| tracking.set_totals(Arc::clone(&globals.tracking)));
        let mut worker = Worker {
            shard,
            globals,
            table,
            connections: Vec::new(),
            by_client: AHashMap::new(),
            requests: Vec::new(),
            outbox: Outbox::new(index, shard_count),
            slowlog: SlowLog::new(slowlog_len_max),
            scripts: scripts::new_scripts(globals, globals.seed.wrapping_add(index as u64)),
            pools: Pools::default(),
            dirty: Vec::new(),
            deferred: Vec::new(),
            runnable: Vec::new(),
            paused: Vec::new(),
            behind_handoffs: Vec::new(),
            looks: Looks::new(shard_count),
            yielded: Vec::new(),
            fills: Vec::new(),
            filling: Vec::new(),
            transact: transact::Transactions::default(),
            programs: program::Programs::default(),
            blocked: blocked::BlockedClients::default(),
            subscribers: Subscribers::default(),
            trackers: tracking::Trackers::default(),
            stream: stream::Stream::new(),
            outlet: aof::Outlet::default(),
            feed: None,
            incoming: None,
            aside_libraries: FunctionSet::default(),
            input_bytes_told: 0,
            snapshots_begun: 0,
            snapshot_part: None,
            shutdowns: Vec::new(),
            awaiting_promotion: Vec::new(),
            cron: cron::Cron::default(),
            eviction: evict::Eviction::default(),
            client_memory: client_memory::ClientMemory::default(),
            gathered: Vec::new(),
            unexamined_groups: 0,
            alikes: pipeline::Alikes::new(table),
            ahead: coalesce::Ahead::default(),
            config_version,
            table_version,
            users: Arc::default(),
            users_version: 0,
            user_changes: acl::OpenChanges::default(),
            default_is_open: true,
            time: Timing::new(clock),
            output_limit_near_bytes: 0,
            refuses_while_busy: true,
            assigned: vec![0; shard_count],
            tls_listeners: Vec::new(),
        };
        worker.track_config();
        worker.adopt_users(None);
        worker.begin_turn();
        worker
    }

    pub fn clock(&self) -> &'static dyn Clock {
        self.time.clock
    }

    /// Whether writes are refused because the last background save has failed (stop-writes-on-bgsave-error).
    #[inline(always)]
    fn has_save_failed(&self) -> bool {
        let config = &self.shard.config;
        self.globals.persistence.has_last_save_failed()
            && config.stop_writes_on_bgsave_error
            && !config.save.0.is_empty()
    }

    /// Whether writes cannot be written to disk.
    #[inline(always)]
    fn has_disk_error(&self) -> bool {
        self.globals.aof.has_error() || self.has_save_failed()
    }

    /// The server's state that [`admission`](crate::command::admission) depends on.
    #[inline(always)]
    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            config: &self.shard.config,
            default_is_open: self.default_is_open,
            is_loading: self.globals.persistence.loading.is_on(),
            is_async_loading: self.globals.persistence.loading.is_async(),
            is_memory_full: self.eviction.is_memory_full(),
            has_disk_error: self.has_disk_error(),
            busy: self.globals.busy_programs.kind().filter(|_| self.refuses_while_busy),
            pause: self.pause(),
            is_observed: self.is_observed(),
            replica: self.replica_conditions(),
        }
    }

    /// Takes over whether this server is a replica.
    #[inline]
    pub fn follow_role(&mut self) {
        if self.shard.is_replica != self.globals.link.is_replica() {
            self.shard.is_replica = self.globals.link.is_replica();
            self.globals.persistence.loading.set_keeps_expired(self.shard.is_replica);
            self.track_expiry();
            self.track_eviction();
            match self.shard.is_replica {
                true => self.unblock_all(),
                false => self.shard.forget_local_expires(),
            }
        }
    }

    /// Whether keys that have expired are removed: not during a pause, and on a replica only by its master.
    fn track_expiry(&mut self) {
        let is_paused = self.are_clients_paused(self.shard.now_ms);
        let told_classes = self.shard.observers.told_classes();
        self.shard.set_expiry(is_paused || self.shard.is_replica, told_classes);
        self.shard.is_writable_replica =
            self.shard.is_replica && !self.shard.config.replica_read_only && !is_paused;
    }

    /// What is refused because this server is a replica.
    #[inline(always)]
    fn replica_conditions(&self) -> ReplicaConditions {
        let (link, config) = (&self.globals.link, &self.shard.config);
        match self.shard.is_replica {
            false => ReplicaConditions::default(),
            true => ReplicaConditions {
                is_read_only: config.replica_read_only,
                is_stale: !link.is_up() && !config.replica_serve_stale_data,
            },
        }
    }

    /// Which commands are delayed at present: by CLIENT PAUSE, by a module, or those that write because the writer of the
    /// append-only file is behind.
    #[inline(always)]
    fn pause(&self) -> Option<PauseKind> {
        if self.is_module_before_clients() {
            return Some(PauseKind::All);
        }
        let asked_for = self.globals.pause(self.shard.now_ms);
        if self.outlet.is_behind { asked_for.or(Some(PauseKind::Write)) } else { asked_for }
    }

    /// Whether a pause holds clients up, whatever it is for.
    fn are_clients_paused(&self, now_ms: i64) -> bool {
        self.globals.pause(now_ms).is_some()
    }

    /// The driver is about to wait for events, so the next event needs a new reading of the clock.
    pub fn before_wait(&mut self) {
        self.time.turn_begun = false;
        crash::clear_current_command();
    }

    /// Reads the clock, and the configuration if it has changed, at the first event or message of a turn.
    #[inline]
    pub fn begin_turn(&mut self) {
        if std::mem::replace(&mut self.time.turn_begun, true) {
            return;
        }
        let now_ms = self.time.clock.wall_ms();
        self.shard.set_now(now_ms);
        self.shard.is_replaying = self.globals.persistence.loading.is_replaying();
        if self.shard.is_replaying {
            self.shard.now_ms = 0;
        }
        self.time.ticks = self.time.clock.ticks();
        self.shard.stats.turns.add(1);
        self.follow_role();
        self.watch_writer();
        if self.limits_memory() {
            self.eviction.begin_turn();
            self.look_at_others_memory();
        }
        if self.globals.config_version() != self.config_version {
            self.adopt_config();
        }
        self.follow_client_memory();
        self.follow_users();
        self.follow_prefixes();
        self.adopt_hooks();
    }

    /// Updates the values that are derived from the configuration.
    fn track_config(&mut self) {
        self.track_aof();
        self.limit_scripts();
        self.track_backlog();
        if self.shard.index == 0 && self.shard.config.watchdog_period_ms > 0 {
            self.start_watchdog();
        }
        self.track_eviction();
        self.track_client_memory();
        self.track_slowness();
        self.refuses_while_busy = self.shard.config.busy_script_scope == BusyScriptScope::Server;
        self.output_limit_near_bytes = match self.shard.config.client_output_buffer_limit.normal.hard_bytes {
            0 => usize::MAX,
            hard_bytes => (hard_bytes as usize / 4 * 3).max(connection::REPLY_BUFFER_BYTES_MIN),
        };
    }

    #[cold]
    pub fn adopt_config(&mut self) {
        let (version, config) = self.globals.config();
        self.config_version = version;
        self.shard.set_config(config);
        self.adopt_table();
        self.track_config();
        self.slowlog.set_len_max(self.shard.config.slowlog_max_len as usize);
        self.track_expiry();
        self.have_tracking_limited();
        self.wake_paused();
        self.wait_out_stall();
    }

    #[cold]
    fn start_watchdog(&self) {
        let globals = self.globals;
        let watched = Watched {
            shard_count: globals.stats.len(),
            period_ms: Box::new(|| globals.config().1.watchdog_period_ms),
            turns: Box::new(|shard| globals.stats[shard].turns.get()),
        };
        if let Err(error) = watchdog::start(watched) {
            log::warning(format_args!("Can't start the watchdog: {error}"));
        }
    }

    #[cold]
    fn adopt_table(&mut self) {
        let earlier = self.table;
        (self.table_version, self.table) = self.globals.table();
        for entry in self.table.all() {
            if let Some(before) = self.table.predecessor(entry.id, earlier) {
                self.shard.stats.replace_command(before, entry.id);
            }
        }
    }

    /// Adds or removes commands: see [`Globals::update_table`].
    ///
    /// # Errors
    /// Those of `change`; the table is then as before.
    pub fn update_table<E>(
        &mut self,
        change: impl FnOnce(&CommandTable) -> Result<CommandTable, E>,
    ) -> Result<(), E> {
        self.globals.update_table(change)?;
        self.adopt_table();
        Ok(())
    }

    /// Finishes a turn: runs a slice of a program, resumes stalled requests, does time-driven work, then sends everything
    /// that the turn produced.
    pub fn end_turn(&mut self) {
        debug_assert!(!self.shard.has_flushed_all, "whoever runs a command calls `end_flush`");
        self.resume_runnable();
        self.run_cron();
        self.tell_key_events();
        self.tell_iteration();
        self.run_due_tasks();
        self.run_ready_program();
        self.start_fills();
        self.spread_published();
        self.resume_runnable();
        self.spread_published();
        self.limit_tracking();
        self.spread_invalidations();
        self.send_held_redirects();
        self.flush_batches();
        self.publish();
        self.tell_looked();
        self.log_warnings();
        self.flush_effects();
        self.flush_dirty();
        self.watch_client_memory();
        self.release_yielded();
    }

    /// Writes what the shard has for the log.
    fn log_warnings(&mut self) {
        for line in self.shard.warnings.drain(..) {
            log::warning(format_args!("{line}"));
        }
    }

    /// All shards but this one.
    fn other_shards(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.shard.index;
        (0..self.shard.shard_count).filter(move |&shard| shard != own)
    }

    /// Handles the messages of a turn from other shards, in the order of `inbox`, which is emptied.
    pub fn deliver_all(&mut self, inbox: &mut Vec<(usize, Message)>) {
        if inbox.is_empty() {
            return;
        }
        self.prefetch_messages(inbox);
        self.follow_senders();
        let mut messages = inbox.drain(..);
        while let Some((from, message)) = messages.next() {
            self.time.batch_follows = does_batch_follow(messages.as_slice());
            self.deliver_followed(from, message);
        }
    }

    /// Handles a message from another shard.
    pub fn deliver(&mut self, from: usize, message: Message) {
        self.follow_senders();
        self.deliver_followed(from, message);
    }

    /// To be called once messages have come, before the first is handled. Their senders may already use a newer command table
    /// than this shard, and name a command that only that one has; or newer users. Each of these is published before any
    /// shard uses it, so the versions read here are at least the senders'.
    fn follow_senders(&mut self) {
        if self.globals.table_version() != self.table_version {
            self.adopt_table();
        }
        self.follow_users();
        self.follow_prefixes();
    }

    #[inline]
    fn deliver_followed(&mut self, from: usize, message: Message) {
        self.take_ticket_of(from);
        self.handle(from, message);
        self.deliver_local();
    }

    fn handle(&mut self, from: usize, message: Message) {
        match message {
            Message::Commands(batch) => self.execute_batch(from, batch),
            Message::Replies(batch) => self.take_replies(batch),
            Message::Txn(message) => self.handle_txn(message),
            Message::Token(message) => self.handle_token(message),
            Message::Wait(message) => self.handle_wait(from, *message),
            Message::Adopt(connection) => self.requests.push(IoRequest::Adopt(connection)),
            Message::Listen(listeners) => self.requests.push(IoRequest::Listen(*listeners)),
            Message::Slow { client, entry } => self.keep_slow(client, *entry),
            Message::Effects { seq, batch } => self.merge_effects(from, seq, batch),
            Message::Stream(message) => self.handle_stream(message),
            Message::Published(deliveries) => self.receive_published(deliveries),
            Message::Tracking(message) => self.handle_tracking(message),
            // They were adopted before the message was looked at.
            Message::Users { version } => self.send(from, Message::UsersAdopted { version }),
            Message::UsersAdopted { version } => self.users_are_adopted(version),
            Message::Refused(refused) => self.log_refused(*refused),
            Message::Decided { client } => {
                self.act_on_decision(client);
            }
            Message::Evict => self.evict_wanted(),
            Message::EvictClients => self.evict_clients(),
            Message::Unwatch { client } => self.unwatch(client, &[self.shard.index as u16]),
            Message::Look { number } => self.looks.asked_for(from, number),
            Message::Looked { number } => self.looks.taken(from, number),
        }
    }

    /// Makes the accepting shard listen on these TCP sockets instead of the present ones.
    pub fn listen(&mut self, listeners: Listeners) {
        self.send(ACCEPTING_SHARD, Message::Listen(Box::new(listeners)));
        self.deliver_local();
    }

    /// Takes the driver's numbers of the listeners whose peers are to speak TLS.
    pub fn set_tls_listeners(&mut self, numbers: Vec<usize>) {
        self.tls_listeners = numbers;
    }

    /// Sends a message to a shard, this one included.
    fn send(&mut self, to: usize, message: Message) {
        self.outbox.send(to, message);
    }

    /// Handles the messages that this shard has sent to itself. Each may send more of them, without bound, so they are
    /// handled in a loop rather than where they are sent.
    fn deliver_local(&mut self) {
        while let Some(message) = self.outbox.next_local() {
            self.handle(self.shard.index, message);
        }
    }
}

/// Whether a batch of commands comes before anything else that may run commands.
#[inline]
fn does_batch_follow(messages: &[(usize, Message)]) -> bool {
    let other = messages.iter().find(|(_, message)| !matches!(message, Message::Replies(_)));
    matches!(other, Some((_, Message::Commands(_))))
}

#[cfg(test)]
mod tests;
