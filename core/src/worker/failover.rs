//! FAILOVER: a master hands its part over to one of its replicas, and becomes the replica of that one.
//!
//! Clients may not write from the command on, until it has ended: the replica gets all of the stream, and acknowledges it. Then
//! this server becomes its replica, and asks it by PSYNC FAILOVER to become a master. Only if it agrees the failover is over; if
//! not, this server is a master again, with the data that it had.
//!
//! The merging shard looks whether the replica has the stream, for it alone knows how long that is.

use super::link::{LinkGlobals, Master};
use super::stream::STREAM_SHARD;
use super::{Globals, Worker};
use crate::command::admission::PauseKind;
use crate::command::error::CommandError;
use crate::runtime::clock::Clock;
use crate::runtime::log;
use crate::shard::message::ReplyId;
use crate::worker::globals::PauseReason;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far a failover is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailoverState {
    #[default]
    None,
    /// The replica does not have all of the stream yet.
    WaitsForSync,
    /// This server is a replica, and asks the other one to become a master.
    InProgress,
}

impl FailoverState {
    /// As INFO names it.
    pub fn name(self) -> &'static str {
        match self {
            FailoverState::None => "no-failover",
            FailoverState::WaitsForSync => "waiting-for-sync",
            FailoverState::InProgress => "failover-in-progress",
        }
    }
}

/// What FAILOVER's words ask for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FailoverOptions {
    /// `None`: the first replica that has all of the stream.
    pub target: Option<Master>,
    /// How long it may wait for that, in milliseconds.
    pub timeout_ms: Option<i64>,
    /// After that time, the failover begins nevertheless.
    pub force: bool,
}

/// The failover under way.
#[derive(Default)]
pub struct Failover {
    state: AtomicU8,
    wanted: Mutex<Wanted>,
}

#[derive(Default)]
struct Wanted {
    target: Option<Master>,
    /// Unix time in milliseconds.
    until_ms: Option<i64>,
    force: bool,
    /// How many turns each shard had taken when clients were paused.
    turns: Vec<u64>,
}

impl Failover {
    #[inline]
    pub fn state(&self) -> FailoverState {
        match self.state.load(Ordering::SeqCst) {
            0 => FailoverState::None,
            1 => FailoverState::WaitsForSync,
            _ => FailoverState::InProgress,
        }
    }

    /// Whether one is under way, of which nobody else may make use.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.state() != FailoverState::None
    }

    fn set_state(&self, state: FailoverState) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for the replica.
    fn begin(&self, options: FailoverOptions, now_ms: i64, turns: Vec<u64>) {
        let FailoverOptions { target, timeout_ms, force } = options;
        let until_ms = timeout_ms.map(|timeout_ms| now_ms.saturating_add(timeout_ms));
        *self.wanted() = Wanted { target, until_ms, force, turns };
        self.set_state(FailoverState::WaitsForSync);
    }

    /// It is over, and clients go on.
    pub(super) fn end(&self, globals: &Globals) {
        self.set_state(FailoverState::None);
        *self.wanted() = Wanted::default();
        globals.end_pause(PauseReason::Failover);
        globals.ring_all();
    }

    fn log_abort(&self, why: &str) {
        let state = self.state().name();
        match &self.wanted().target {
            Some(Master { host, port }) => {
                log::notice(format_args!("Aborting failover to {host}:{port} while {state}: {why}"));
            }
            None => log::notice(format_args!("Aborting failover while {state}: {why}")),
        }
    }
}

/// Ends a failover without success. Where this server is a replica already, it becomes a master first, and the failover ends
/// with that. `reply`: the client that gets OK then.
pub(super) fn abort(
    globals: &'static Globals,
    clock: &'static dyn Clock,
    why: &str,
    reply: Option<(usize, ReplyId)>,
) {
    globals.failover.log_abort(why);
    match globals.failover.state() {
        FailoverState::InProgress => {
            LinkGlobals::remember(globals, None);
            LinkGlobals::order(globals, clock, None, reply);
        }
        FailoverState::WaitsForSync | FailoverState::None => globals.failover.end(globals),
    }
}

impl Worker {
    /// Begins a failover.
    ///
    /// # Errors
    /// There is one; this server is a replica, or has none; the one that is wanted is none, or not online.
    pub fn begin_failover(&mut self, options: FailoverOptions) -> Result<(), CommandError> {
        let globals = self.globals;
        if globals.failover.is_on() {
            return Err(CommandError::fixed("ERR FAILOVER already in progress."));
        }
        if globals.link.is_replica() {
            return Err(CommandError::fixed("ERR FAILOVER is not valid when server is a replica."));
        }
        let replicas = globals.stream.replicas();
        if replicas.is_empty() {
            return Err(CommandError::fixed("ERR FAILOVER requires connected replicas."));
        }
        if options.force && (options.timeout_ms.is_none() || options.target.is_none()) {
            return Err(CommandError::fixed(
                "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
            ));
        }
        if let Some(target) = &options.target {
            let replica = replicas.iter().find(|replica| replica.is_at(target));
            let replica =
                replica.ok_or(CommandError::fixed("ERR FAILOVER target HOST and PORT is not a replica."))?;
            if !replica.is_online() {
                return Err(CommandError::fixed("ERR FAILOVER target replica is not online."));
            }
        }
        match &options.target {
            Some(Master { host, port }) => log::notice(format_args!("FAILOVER requested to {host}:{port}.")),
            None => log::notice(format_args!("FAILOVER requested.")),
        }
        globals.set_pause(i64::MAX, PauseKind::Write, PauseReason::Failover, self.shard.now_ms);
        globals.failover.begin(options, self.shard.now_ms, globals.turn_counts());
        globals.aof.ring(STREAM_SHARD);
        Ok(())
    }

    /// FAILOVER ABORT, of the client at `conn`. Returns whether the reply is due, or comes later.
    ///
    /// # Errors
    /// There is none.
    pub fn abort_failover(&mut self, conn: Option<usize>) -> Result<bool, CommandError> {
        let globals = self.globals;
        let state = globals.failover.state();
        if state == FailoverState::None {
            return Err(CommandError::fixed("ERR No failover in progress."));
        }
        let waits = conn.filter(|_| state == FailoverState::InProgress);
        let reply = waits.map(|at| (self.shard.index, self.reply_later(at)));
        abort(globals, self.time.clock, "Failover manually aborted", reply);
        Ok(reply.is_none())
    }

    /// On the merging shard, each turn: whether the replica has all of the stream.
    #[inline]
    pub(super) fn watch_failover(&mut self) {
        if self.shard.index == STREAM_SHARD && self.globals.failover.state() == FailoverState::WaitsForSync {
            self.fail_over_if_due();
        }
    }

    #[cold]
    fn fail_over_if_due(&mut self) {
        let (globals, clock) = (self.globals, self.time.clock);
        let (target, until_ms, force, turns) = {
            let wanted = globals.failover.wanted();
            (wanted.target.clone(), wanted.until_ms, wanted.force, wanted.turns.clone())
        };
        if until_ms.is_some_and(|until_ms| clock.wall_ms() >= until_ms) {
            match target.filter(|_| force) {
                Some(target) => {
                    let Master { host, port } = &target;
                    log::notice(format_args!("Failover to {host}:{port} time out exceeded, failing over."));
                    self.fail_over(target);
                }
                None => abort(globals, clock, "Replica never caught up before timeout", None),
            }
            return;
        }
        let Some(offset) = self.settled_offset(&turns) else { return };
        let replicas = globals.stream.replicas();
        let is_wanted = |at: &Master| target.as_ref().is_none_or(|target| target == at);
        let synced = replicas.iter().filter(|replica| replica.is_online() && replica.ack_offset == offset);
        let Some(target) = synced.map(|replica| replica.place()).find(is_wanted) else { return };
        let Master { host, port } = &target;
        log::notice(format_args!("Failover target is synced, failing over to {host}:{port}."));
        self.fail_over(target);
    }

    /// This server becomes a replica of its replica.
    fn fail_over(&mut self, target: Master) {
        let globals = self.globals;
        globals.failover.wanted().target = Some(target.clone());
        globals.failover.set_state(FailoverState::InProgress);
        LinkGlobals::remember(globals, Some(&target));
        LinkGlobals::order(globals, self.time.clock, Some(target), None);
        self.follow_role();
    }
}
