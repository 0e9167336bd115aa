//! The worker: one core's whole server, without its I/O.
//!
//! A driver gives it bytes and takes bytes from it; other workers send it messages and take messages from
//! it. In between it is a synchronous state machine: `input` keeps what a connection sent, `pipeline` parses and executes it, most of it
//! by `fast_path`, the short way; `run` runs commands, whoever called them; `replies` puts replies in order; `remote` gathers commands for other shards into
//! one batch a turn and answers theirs; `multi` queues transactions, `exec` runs them, `transact` runs what is over several
//! shards, `coalesce` several of that at once;
//! `blocked` is about clients that wait for keys, `stream` about those that read the effects, `cron` does what time
//! demands. The same code runs under io_uring, under epoll and in a simulator.
//!
//! One turn: `begin_turn`, events from the driver (`received`, ...), messages from the mesh (`deliver`),
//! `end_turn`; then the runtime carries out `requests` and hands `outgoing` to the mesh.

mod blocked;
mod clients;
mod coalesce;
mod connection;
mod cron;
mod events;
mod exec;
mod fast_path;
mod globals;
mod input;
mod multi;
mod outbox;
mod pipeline;
mod pools;
mod remote;
mod replies;
mod run;
mod session;
mod slow;
mod stream;
mod timing;
mod transact;

pub use connection::{Connection, REPLY_BUFFER_BYTES_MAX};
pub use cron::TURN_INTERVAL_MS_MAX;
pub use events::NewConnectionInfo;
pub use globals::{Globals, GlobalsInit, REPLY_PEAK_RESET_MS};
pub use outbox::Outbox;
pub use session::{SessionCtx, SessionHandler};
pub use stream::{ReplicaInfo, StreamGlobals};

use self::pools::Pools;
use self::timing::Timing;
use crate::command::admission::Conditions;
use crate::command::table::CommandTable;
use crate::runtime::clock::Clock;
use crate::runtime::driver::ConnId;
use crate::shard::Shard;
use crate::shard::message::Message;
use crate::shard::slowlog::SlowLog;
use std::os::fd::OwnedFd;

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
    /// Listen on these sockets, in place of those for TCP so far.
    Listen(Vec<OwnedFd>),
    /// Serve this connection.
    Adopt(Box<crate::shard::message::NewConnection>),
}

/// One shard with its connections.
pub struct Worker {
    pub shard: Shard,
    pub globals: &'static Globals,
    pub table: &'static CommandTable,
    /// By the index of their [`ConnId`].
    pub connections: Vec<Option<Box<Connection>>>,
    pub requests: Vec<IoRequest>,
    pub outbox: Outbox,
    pub(crate) slowlog: SlowLog,
    pools: Pools,
    /// Connections with output to send.
    dirty: Vec<u32>,
    /// Connections whose output is held back; they are still marked dirty.
    deferred: Vec<u32>,
    /// Connections whose held requests may go on.
    runnable: Vec<u32>,
    /// Connections held by CLIENT PAUSE.
    paused: Vec<u32>,
    /// Connections whose big argument the driver is to read from the end of this turn on.
    fills: Vec<u32>,
    transact: transact::Transactions,
    blocked: blocked::BlockedClients,
    stream: stream::Stream,
    cron: cron::Cron,
    gathered: Vec<pipeline::Gathered>,
    ahead: coalesce::Ahead,
    config_version: u64,
    table_version: u64,
    time: Timing,
    /// Connections given out by the accepting shard so far, by shard.
    assigned: Vec<u64>,
}

/// The shard that accepts connections for all.
pub const ACCEPTING_SHARD: usize = 0;

impl Worker {
    pub fn new(index: usize, globals: &'static Globals, clock: &'static dyn Clock) -> Worker {
        let shard_count = globals.stats.len();
        let (config_version, config) = globals.config();
        let (table_version, table) = globals.table();
        let slowlog_len_max = config.slowlog_max_len as usize;
        let shard = Shard::new(
            index,
            shard_count,
            config,
            std::sync::Arc::clone(&globals.stats[index]),
            globals.seed,
        );
        let mut worker = Worker {
            shard,
            globals,
            table,
            connections: Vec::new(),
            requests: Vec::new(),
            outbox: Outbox::new(index, shard_count),
            slowlog: SlowLog::new(slowlog_len_max),
            pools: Pools::default(),
            dirty: Vec::new(),
            deferred: Vec::new(),
            runnable: Vec::new(),
            paused: Vec::new(),
            fills: Vec::new(),
            transact: transact::Transactions::default(),
            blocked: blocked::BlockedClients::default(),
            stream: stream::Stream::new(shard_count),
            cron: cron::Cron::default(),
            gathered: Vec::new(),
            ahead: coalesce::Ahead::default(),
            config_version,
            table_version,
            time: Timing::new(clock),
            assigned: vec![0; shard_count],
        };
        worker.track_config();
        worker.begin_turn();
        worker
    }

    pub fn clock(&self) -> &'static dyn Clock {
        self.time.clock
    }

    /// What admission goes by.
    #[inline(always)]
    fn conditions(&self) -> Conditions<'_> {
        Conditions { config: &self.shard.config, pause: self.globals.pause(self.shard.now_ms) }
    }

    /// The driver waits now: the time of the last turn is not that of the next event.
    pub fn before_wait(&mut self) {
        self.time.turn_begun = false;
    }

    /// Reads the clock, and the configuration if it has changed, at the first event or message of a turn.
    #[inline]
    pub fn begin_turn(&mut self) {
        if std::mem::replace(&mut self.time.turn_begun, true) {
            return;
        }
        let now_ms = self.time.clock.wall_ms();
        self.shard.set_now(now_ms);
        self.time.ticks = self.time.clock.ticks();
        self.shard.stats.turns.add(1);
        if self.globals.config_version() != self.config_version {
            self.adopt_config();
        }
    }

    /// Takes over what is kept of the configuration in the form in which it is asked for.
    fn track_config(&mut self) {
        let slower_than_us = self.shard.config.slowlog_log_slower_than_us;
        self.time.slow_from_nanos =
            u64::try_from(slower_than_us).map_or(u64::MAX, |us| us.saturating_mul(1000));
    }

    #[cold]
    pub fn adopt_config(&mut self) {
        let (version, config) = self.globals.config();
        self.config_version = version;
        self.shard.set_config(config);
        self.adopt_table();
        self.track_config();
        self.slowlog.set_len_max(self.shard.config.slowlog_max_len as usize);
        self.shard.expire_paused = self.globals.pause(self.shard.now_ms).is_some();
        self.wake_paused();
        self.sit_out_stall();
    }

    #[cold]
    fn adopt_table(&mut self) {
        (self.table_version, self.table) = self.globals.table();
    }

    /// Finishes a turn: held requests that may go on, time-driven work, then everything that is to leave.
    pub fn end_turn(&mut self) {
        self.resume_runnable();
        self.run_cron();
        self.start_fills();
        self.resume_runnable();
        self.flush_batches();
        self.publish();
        self.flush_effects();
        self.flush_dirty();
    }

    /// The messages of a turn from other shards, in the order of `inbox`, which is emptied.
    pub fn deliver_all(&mut self, inbox: &mut Vec<(usize, Message)>) {
        self.prefetch_messages(inbox);
        for (from, message) in inbox.drain(..) {
            self.deliver(from, message);
        }
    }

    /// A message from another shard.
    pub fn deliver(&mut self, from: usize, message: Message) {
        // Its sender may have a newer table than this shard had when its turn began, and name a command of that. The table was
        // published before the sender took it over, and so before it sent this: the version read here is that one's or
        // a later one's.
        if self.globals.table_version() != self.table_version {
            self.adopt_table();
        }
        self.handle(from, message);
        self.deliver_local();
    }

    fn handle(&mut self, from: usize, message: Message) {
        match message {
            Message::Commands(batch) => self.execute_batch(from, batch),
            Message::Replies(batch) => self.take_replies(batch),
            Message::Txn(message) => self.handle_txn(message),
            Message::Wait(message) => self.handle_wait(from, *message),
            Message::Adopt(connection) => self.requests.push(IoRequest::Adopt(connection)),
            Message::Listen(listeners) => self.requests.push(IoRequest::Listen(listeners)),
            Message::Slow { client, entry } => self.keep_slow(client, *entry),
            Message::Effects(batch) => self.merge_effects(from, *batch),
            Message::Stream(message) => self.handle_stream(message),
            Message::Unwatch { client } => self.unwatch(client, &[self.shard.index as u16]),
        }
    }

    /// Has the accepting shard listen on these sockets, in place of those for TCP so far.
    pub fn listen(&mut self, listeners: Vec<OwnedFd>) {
        self.send(ACCEPTING_SHARD, Message::Listen(listeners));
        self.deliver_local();
    }

    /// Sends a message to a shard, this one included.
    fn send(&mut self, to: usize, message: Message) {
        self.outbox.send(to, message);
    }

    /// What this shard has sent to itself. One answers the other without end, but never one within the other.
    fn deliver_local(&mut self) {
        while let Some(message) = self.outbox.next_local() {
            self.handle(self.shard.index, message);
        }
    }
}

#[cfg(test)]
mod tests;
