//! Runs commands on this shard. All of them run through [`Worker::run_untimed`], whoever calls them: a client of this
//! shard or of another, an EXEC, a transaction over several shards, a program, or a key handed off to a blocked client.
//! A program itself runs by [`program`](super::program).
//!
//! A *unit* is what runs without interruption: a single command, or an EXEC. Before each unit, the keys that the last
//! one changed are handed off to the clients blocked on them ([`Worker::serve_due_first`]). A unit whose keys are
//! locked waits in the lock table. Its keys follow from the commands' key specs and scopes, not from the context they
//! run in.

use super::connection::StallReason;
use super::pipeline::Flow;
use super::transact::{ParkedCommand, merge};
use super::{SessionCtx, SessionHandler, Worker};
use crate::client::ClientId;
use crate::command::admission::{Measures, ProgramKind};
use crate::command::route;
use crate::command::table::{CommandEntry, Native, Run, Scope, flag};
use crate::command::{Call, CommandError, CommandResult, Ctx};
use crate::protocol::reply::Reply;
use crate::protocol::{Argv, OwnedArgv};
use crate::runtime::{crash, log};
use crate::shard::blocking::BlockRequest;
use crate::shard::lock::LockSet;
use crate::shard::message::ReplyId;
use crate::worker::divergence::{self, Sender};
use crate::worker::latency::event;

/// A replica that cannot write to disk says so this often.
const DISK_ERROR_TOLD_AFTER_MS: i64 = 10_000;

/// A command to run on this shard.
#[derive(Clone, Copy)]
pub(super) struct Invocation<'a> {
    pub(super) entry: &'static CommandEntry,
    pub(super) call: &'a Call,
    pub(super) args: Argv<'a>,
    /// See [`Ctx`].
    pub(super) fetched: &'a [u64],
    /// The calling connection, if it is one of this shard.
    pub(super) conn: Option<usize>,
    /// See [`Ctx`].
    pub(super) served_from: Option<u32>,
    /// Whether it is counted here. A command that several shards run is counted once, at home.
    pub(super) is_counted: bool,
}

impl<'a> Invocation<'a> {
    #[inline]
    pub(super) fn new(
        entry: &'static CommandEntry,
        call: &'a Call,
        args: Argv<'a>,
        conn: Option<usize>,
    ) -> Invocation<'a> {
        Invocation { entry, call, args, fetched: &[], conn, served_from: None, is_counted: true }
    }
}

/// The outcome of a command that has run.
pub(super) struct Ran {
    pub(super) nanos: u64,
    /// It has not replied, and blocks on keys.
    pub(super) waits: Option<BlockRequest>,
}

/// Where the reply of a unit goes.
#[derive(Clone, Copy)]
pub(super) enum ReplyTo {
    /// It is the next reply of this connection of this shard.
    Connection(usize),
    /// It fulfils a pending reply of a connection of shard `home`.
    Place { home: usize, reply_id: ReplyId },
}

/// The outcome of starting a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Started {
    Replied,
    /// It waits for locks or for a key: the reply comes later.
    Later,
    /// It is a program that was suspended, and keeps its locks: the reply comes later.
    Suspended,
}

// Units.
impl Worker {
    /// To be called before each unit: hands the keys that the last unit changed off to the clients blocked on them.
    #[inline]
    pub(super) fn serve_due_first(&mut self) {
        if self.shard.has_due_waits() {
            self.serve_due();
        }
    }

    /// The locks that a command needs on this shard if it has to wait for them; `None`: it can run now.
    #[inline]
    pub(super) fn locks_in_the_way(
        &self,
        entry: &CommandEntry,
        args: Argv<'_>,
        client: ClientId,
    ) -> Option<LockSet> {
        if self.shard.locks.is_empty() { None } else { self.conflicting_locks(entry, args, client) }
    }

    #[cold]
    fn conflicting_locks(&self, entry: &CommandEntry, args: Argv<'_>, client: ClientId) -> Option<LockSet> {
        let locks = self.locks_of(entry, args);
        let conflicts = match &locks {
            // SCAN must not miss a key that is checked out to another shard at the moment.
            LockSet::Whole => true,
            LockSet::Keys(keys) => {
                !keys.is_empty() && self.shard.locks.is_in_the_way(keys, client)
                    || self.must_run_in_turn(client)
            }
        };
        conflicts.then_some(locks)
    }

    /// Whether a client's command must not run now, although its keys are free: an earlier one of the same client waits for locks, and
    /// whoever is told what they do would hear of this one first.
    pub(super) fn must_run_in_turn(&self, client: ClientId) -> bool {
        self.is_observed() && self.shard.locks.awaits_unit_of(client)
    }

    /// Runs a command as a unit; if its keys are locked, parks it until its own locks are granted. The caller has
    /// called [`serve_due_first`](Self::serve_due_first).
    #[inline]
    pub(super) fn start(&mut self, command: &Invocation<'_>, to: ReplyTo, out: &mut Vec<u8>) -> Started {
        if self.must_await_token() && self.is_wide_unit(command.entry, command.args) {
            self.await_token_as_unit(command, to);
            return Started::Later;
        }
        if let Some(locks) = self.locks_in_the_way(command.entry, command.args, command.call.client) {
            let (home, reply_id) = self.place_of_reply(command, to);
            let args = OwnedArgv::from_argv(command.args);
            let user = self.globals.acl.user_of(command.call);
            self.park(locks, ParkedCommand { home, reply_id, call: *command.call, args, user });
            return Started::Later;
        }
        self.run_unit(command, to, out)
    }

    /// Runs a command as a unit, whose keys are free or locked by itself.
    #[inline]
    pub(super) fn run_unit(&mut self, command: &Invocation<'_>, to: ReplyTo, out: &mut Vec<u8>) -> Started {
        let Invocation { entry, call, args, .. } = *command;
        let is_over_keys = matches!(entry.row.scope, Scope::Keys);
        if !is_over_keys
            && self.shard.shard_count == 1
            && matches!(route::scope(entry.row, args, 1), Scope::Every(_))
        {
            self.run_every(command, out);
            return Started::Replied;
        }
        if matches!(entry.row.run, Run::Program(_)) {
            return self.start_program(command, to, out);
        }
        let Some(request) = self.run(command, out).waits else { return Started::Replied };
        let (home, reply_id) = self.place_of_reply(command, to);
        self.wait_here(home, reply_id, *call, args, request);
        Started::Later
    }

    /// For a reply that comes later: its home and id, pending from now on.
    pub(super) fn place_of_reply(&mut self, command: &Invocation<'_>, to: ReplyTo) -> (usize, ReplyId) {
        match to {
            ReplyTo::Place { home, reply_id } => (home, reply_id),
            ReplyTo::Connection(at) => {
                let connection =
                    self.connections[at].as_deref_mut().expect("its requests are being executed");
                let reply_id = connection.await_reply(at);
                if command.entry.row.has(flag::BLOCKING) {
                    let args = OwnedArgv::from_argv(command.args);
                    self.stall_for_blocking(command.entry, *command.call, reply_id, args);
                }
                (self.shard.index, reply_id)
            }
        }
    }

    /// Runs a command for every shard on a server with a single shard.
    pub(super) fn run_every(&mut self, command: &Invocation<'_>, out: &mut Vec<u8>) {
        let mut reply = self.pools.take_buffer();
        self.run(command, &mut reply);
        merge(command.entry, command.args, &[0], &[], &[&reply], out);
        self.pools.give_buffer(reply);
    }

    /// Runs a connection's command as a unit, and puts its reply in order behind the earlier ones.
    pub(super) fn run_here(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        call: &Call,
        args: Argv<'_>,
    ) -> Flow {
        let (direct, mut out) = self.lend_output(at);
        let start = out.len();
        let command = Invocation::new(entry, call, args, Some(at));
        let started = self.start(&command, ReplyTo::Connection(at), &mut out);
        if started != Started::Replied {
            self.put_output_back(at, direct, out);
            let is_stalled = self.stall_in_order(at);
            if is_stalled {
                // It may wait for nothing but the token, which is free.
                self.deliver_local();
            }
            return if entry.row.has(flag::BLOCKING) || is_stalled { Flow::Stop } else { Flow::Next };
        }
        self.spread_to_caller(at);
        self.take_back_output(at, direct, start, out)
    }

    /// The reply to a connection's unit comes later. With one shard its later requests wait for that, for there a pipeline
    /// runs in order, as in Redis; with several shards, requests over different keys do not wait for each other. Returns
    /// whether the connection is stalled, or was closed.
    pub(super) fn stall_in_order(&mut self, at: usize) -> bool {
        let Some(connection) = self.connections[at].as_deref_mut() else { return true };
        if self.shard.shard_count == 1 && !connection.pending.is_empty() {
            connection.stall.get_or_insert(StallReason::Transaction);
        }
        connection.stall.is_some()
    }
}

// Commands.
impl Worker {
    /// Runs a command and appends its reply, or its error, to `out`. Times it, and counts it if `is_counted`.
    pub(super) fn run(&mut self, command: &Invocation<'_>, out: &mut Vec<u8>) -> Ran {
        let waits = self.run_for_client_or_master(command, out);
        if self.shard.has_flushed_all {
            self.end_flush();
        }
        if command.is_counted && self.is_monitored() {
            self.show_command(command);
        }
        let nanos = self.time.take_nanos();
        let Invocation { entry, call, args, .. } = *command;
        let stats = &self.shard.stats;
        // A blocking command that waited was counted when it was called, but the slow log has a command once it has replied.
        let is_served = command.served_from.is_some() && waits.is_none();
        if command.is_counted {
            stats.command(entry.id).record(nanos, self.shard.config.latency_tracking);
            stats.commands_processed.add(1);
        } else if is_served {
            stats.command(entry.id).nanos.add(nanos);
        }
        if nanos >= self.time.noted_from_nanos {
            match (command.is_counted, is_served) {
                (true, _) if waits.is_some() => self.note_late(nanos, entry),
                (true, _) => self.note_slow(args, nanos, call, entry),
                (false, true) => {
                    self.sample_latency(event::COMMAND_UNBLOCKING, nanos);
                    self.note_for_slowlog(args, nanos, call, entry);
                }
                (false, false) => {}
            }
        }
        Ran { nanos, waits }
    }

    /// Runs a command, which may be the master's, without timing it.
    pub(super) fn run_for_client_or_master(
        &mut self,
        command: &Invocation<'_>,
        out: &mut Vec<u8>,
    ) -> Option<BlockRequest> {
        if command.call.client == 0 && self.shard.is_replica {
            self.run_for_master(command, out)
        } else {
            self.run_untimed(command, out)
        }
    }

    /// Runs a command of the master's. To it no key has expired: what has, it deletes by a command of its own.
    #[cold]
    fn run_for_master(&mut self, command: &Invocation<'_>, out: &mut Vec<u8>) -> Option<BlockRequest> {
        if command.entry.row.has(flag::WRITE) && self.has_disk_error() {
            self.tell_disk_error();
        }
        let now_ms = std::mem::replace(&mut self.shard.now_ms, 0);
        let was_replaying = std::mem::replace(&mut self.shard.is_replaying, true);
        let waits = self.run_untimed(command, out);
        (self.shard.now_ms, self.shard.is_replaying) = (now_ms, was_replaying);
        waits
    }

    /// A command of the master's changes what cannot be written to disk: replica-ignore-disk-write-errors.
    #[cold]
    fn tell_disk_error(&mut self) {
        if !self.shard.config.replica_ignore_disk_write_errors {
            panic!("Replica was unable to write command to disk.");
        }
        // The shard's own time stands still for the master's commands.
        let now_ms = self.time.clock.wall_ms();
        if now_ms > self.stream.disk_error_told_at_ms + DISK_ERROR_TOLD_AFTER_MS {
            self.stream.disk_error_told_at_ms = now_ms;
            log::warning(format_args!(
                "Replica is applying a command even though it is unable to write to disk."
            ));
        }
    }

    /// As `run`, but leaves timing and counting to the caller, and [`end_flush`](Self::end_flush). Returns what the command blocks on, if it has not
    /// replied.
    #[inline(always)]
    pub(super) fn run_untimed(
        &mut self,
        command: &Invocation<'_>,
        out: &mut Vec<u8>,
    ) -> Option<BlockRequest> {
        let Invocation { entry, call, args, fetched, .. } = *command;
        let Run::Keys(run) = entry.row.run else {
            crash::set_current_command(&entry.full_name);
            return self.run_otherwise(command, out);
        };
        let start = out.len();
        if let Err(error) = self.run_over_keys(run, entry, call, args, fetched, out) {
            self.fail(command, &error, start, out);
        }
        None
    }

    /// Runs a handler that is a plain function over keys.
    #[inline(always)]
    fn run_over_keys(
        &mut self,
        run: fn(&mut Ctx<'_>) -> CommandResult,
        entry: &'static CommandEntry,
        call: &Call,
        args: Argv<'_>,
        fetched: &[u64],
        out: &mut Vec<u8>,
    ) -> CommandResult {
        crash::set_current_command(&entry.full_name);
        let reply = Reply::new(out, call.resp);
        let result = run(&mut Ctx { shard: &mut self.shard, call, args, fetched, served_from: None, reply });
        self.shard.assert_all_signalled();
        if self.shard.effects.is_on() | call.tracks {
            self.record_run(entry, call, args);
        }
        result
    }

    /// As `run_untimed`, for a command of the fast path. What only others need is not put together for a plain function
    /// that succeeds.
    #[inline(always)]
    pub(super) fn run_on_fast_path(
        &mut self,
        entry: &'static CommandEntry,
        call: &Call,
        args: Argv<'_>,
        out: &mut Vec<u8>,
    ) {
        let Run::Keys(run) = entry.row.run else {
            crash::set_current_command(&entry.full_name);
            self.run_otherwise(&Invocation::new(entry, call, args, None), out);
            return;
        };
        self.run_plainly(run, entry, call, args, out);
    }

    /// The same, for a handler that is a plain function over keys.
    #[inline(always)]
    pub(super) fn run_plainly(
        &mut self,
        run: fn(&mut Ctx<'_>) -> CommandResult,
        entry: &'static CommandEntry,
        call: &Call,
        args: Argv<'_>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        if let Err(error) = self.run_over_keys(run, entry, call, args, &[], out) {
            self.fail(&Invocation::new(entry, call, args, None), &error, start, out);
        }
    }

    /// Runs a command whose handler is not a plain function over keys.
    #[inline(never)]
    fn run_otherwise(&mut self, command: &Invocation<'_>, out: &mut Vec<u8>) -> Option<BlockRequest> {
        let Invocation { entry, call, args, fetched, conn, served_from, .. } = *command;
        let start = out.len();
        let result = match entry.row.run {
            Run::Native(Native { run, data }) => {
                let reply = Reply::new(out, call.resp);
                let mut ctx = Ctx { shard: &mut self.shard, call, args, fetched, served_from, reply };
                run(&mut ctx, self.table, data).map(|()| None)
            }
            Run::Blocking(run) => {
                let reply = Reply::new(out, call.resp);
                let mut ctx = Ctx { shard: &mut self.shard, call, args, fetched, served_from, reply };
                run(&mut ctx).map(|request| {
                    // In an EXEC a command must not block: it replies at once as if it had timed out.
                    request.filter(|request| {
                        if call.in_exec {
                            request.on_timeout.write(&mut ctx.reply);
                        }
                        !call.in_exec
                    })
                })
            }
            Run::Session(run) => {
                let reply = Reply::new(out, call.resp);
                let run = run.downcast_ref::<SessionHandler>().expect("a session row holds its handler");
                run(&mut SessionCtx { worker: self, conn, own: None, call, args, reply }).map(|()| None)
            }
            Run::Program(_) => unreachable!("programs run on frames of their own"),
            Run::Keys(_) => unreachable!("run_untimed runs these itself"),
            Run::Container => unreachable!("gate::resolve returns a subcommand, never its container"),
        };
        self.shard.assert_all_signalled();
        if self.shard.effects.is_on() | call.tracks {
            self.record_run(entry, call, args);
        }
        match result {
            Ok(request) => request,
            Err(error) => {
                self.fail(command, &error, start, out);
                None
            }
        }
    }

    /// A command has run whose effects are recorded, or what it has read.
    #[inline]
    fn record_run(&mut self, entry: &CommandEntry, call: &Call, args: Argv<'_>) {
        if self.shard.effects.is_on() {
            self.record_effects(entry, call, args);
        }
        if call.tracks {
            self.track(entry, call, args);
        }
    }

    /// Replies with a command's error, in place of what it wrote from `start` on, and counts it.
    #[cold]
    fn fail(&self, command: &Invocation<'_>, error: &CommandError, start: usize, out: &mut Vec<u8>) {
        out.truncate(start);
        Reply::new(out, command.call.resp).error(error.as_bytes());
        // A command that has waited was counted when it was called, but its error was not.
        if command.is_counted || command.served_from.is_some() {
            self.shard.stats.command(command.entry.id).failed.add(1);
            self.shard.stats.error(error.code());
        }
        if command.call.client == 0 && self.shard.is_replaying {
            let sender = if self.shard.is_replica { Sender::Master } else { Sender::File };
            divergence::tell(self.globals, sender, Some(&command.entry.full_name), &error.text());
        }
    }
}

impl Measures for Worker {
    fn good_replicas(&self) -> usize {
        Worker::good_replicas(self)
    }

    fn disk_error(&self) -> CommandError {
        if self.has_save_failed() {
            return CommandError::SAVE_FAILED;
        }
        let why = self.globals.aof.error_text();
        CommandError::new(format!("MISCONF Errors writing to the AOF file: {why}"))
    }

    fn busy_error(&self, kind: ProgramKind) -> CommandError {
        Worker::busy_error(self, kind)
    }
}
