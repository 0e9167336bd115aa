//! Running commands on this shard. All commands run by [`Worker::run_untimed`], whoever called them: clients of this shard
//! or another, an EXEC, a transaction over several shards, a program, or the serving of a client that waits.
//!
//! What runs as one is a *unit*: a command by itself, or an EXEC. Before each unit it is the turn of the clients that
//! wait for what the last one has changed ([`Worker::serve_due_first`]). A unit whose keys are locked waits in the lock
//! table; which keys those are follows from the command's key specs and scope, and not from the context that it runs in.

use super::pipeline::Flow;
use super::transact::merge;
use super::{SessionCtx, SessionHandler, Worker};
use crate::command::admission::{self, Caller, Measures};
use crate::command::program::{ProgramCtx, ProgramHost};
use crate::command::route;
use crate::command::table::{CommandEntry, Run, Scope, flag};
use crate::command::{Call, CommandError, Ctx, gate, keys};
use crate::protocol::reply::{Reply, Resp};
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::blocking::BlockRequest;
use crate::shard::lock::LockSet;
use crate::shard::message::{ParkedCommand, ReplyId};

/// A command that is to run on this shard.
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
    /// Whether it is counted here. What several shards run is counted at home, where all its shares come together.
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

/// What came of a command that has run.
pub(super) struct Ran {
    pub(super) nanos: u64,
    /// It has not replied, and waits for a key.
    pub(super) waits: Option<BlockRequest>,
}

/// Where the reply to a command goes that runs as a unit.
#[derive(Clone, Copy)]
pub(super) enum ReplyTo {
    /// A connection of this shard: its next reply.
    Connection(usize),
    /// A reply that a shard awaits.
    Place { home: usize, reply_id: ReplyId },
}

/// What became of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Started {
    Replied,
    /// It stands behind locks, or waits for a key: the reply comes later.
    Later,
}

// Units.
impl Worker {
    /// Before a unit it is the turn of those who wait for what the last one has changed.
    #[inline]
    pub(super) fn serve_due_first(&mut self) {
        if self.shard.blocking.has_due() {
            self.serve_due();
        }
    }

    /// The locks that a command has to wait for on this shard, if there are any in its way.
    pub(super) fn locks_in_the_way(&self, entry: &CommandEntry, args: Argv<'_>) -> Option<LockSet> {
        if self.shard.locks.is_empty() {
            return None;
        }
        let locks = route::lock_set(entry, args, self.shard.shard_count);
        let conflicts = match &locks {
            // SCAN must not pass by a key that is away to another shard just now.
            LockSet::Whole => true,
            LockSet::Keys(keys) => !keys.is_empty() && self.shard.locks.conflicts(keys),
        };
        conflicts.then_some(locks)
    }

    /// Runs a command by itself, unless its keys are locked: then it waits for them. The caller has served those whose turn
    /// it was before.
    pub(super) fn start(&mut self, command: Invocation<'_>, to: ReplyTo, out: &mut Vec<u8>) -> Started {
        if let Some(locks) = self.locks_in_the_way(command.entry, command.args) {
            let (home, reply_id) = self.place_of_reply(&command, to);
            let args = OwnedArgv::from_argv(command.args);
            self.park(locks, ParkedCommand { home, reply_id, call: *command.call, args });
            return Started::Later;
        }
        self.run_unit(command, to, out)
    }

    /// Runs a command by itself, whose keys are free or locked for it.
    pub(super) fn run_unit(&mut self, command: Invocation<'_>, to: ReplyTo, out: &mut Vec<u8>) -> Started {
        let Invocation { entry, call, args, .. } = command;
        if self.shard.shard_count == 1 && matches!(route::scope(entry.row, args, 1), Scope::Every(_)) {
            self.run_every(command, out);
            return Started::Replied;
        }
        let Some(request) = self.run(command, out).waits else { return Started::Replied };
        let (home, reply_id) = self.place_of_reply(&command, to);
        self.wait_here(home, reply_id, *call, args, request);
        Started::Later
    }

    /// The place of a reply that comes later, which is awaited from now on.
    fn place_of_reply(&mut self, command: &Invocation<'_>, to: ReplyTo) -> (usize, ReplyId) {
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

    /// Runs a command for every shard, where there is only this one.
    pub(super) fn run_every(&mut self, command: Invocation<'_>, out: &mut Vec<u8>) {
        let mut reply = self.pools.take_buffer();
        self.run(command, &mut reply);
        merge(command.entry, command.args, &[0], &[], &[&reply], out);
        self.pools.give_buffer(reply);
    }

    /// Runs a command of a connection as a unit, and puts its reply in its place.
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
        let started = self.start(command, ReplyTo::Connection(at), &mut out);
        if started == Started::Later {
            self.put_output_back(at, direct, out);
            return if entry.row.has(flag::BLOCKING) { Flow::Stop } else { Flow::Next };
        }
        self.take_back_output(at, direct, start, out)
    }
}

// Commands.
impl Worker {
    /// Runs a command and appends its reply, or its error, to `out`. Times it, and counts it unless that is done
    /// elsewhere.
    pub(super) fn run(&mut self, command: Invocation<'_>, out: &mut Vec<u8>) -> Ran {
        let waits = self.run_untimed(command, out);
        let nanos = self.time.take_nanos();
        let Invocation { entry, call, args, .. } = command;
        if command.is_counted {
            let stats = &self.shard.stats;
            stats.command(entry.id).record(nanos, self.shard.config.latency_tracking);
            stats.commands_processed.add(1);
            if nanos >= self.time.slow_from_nanos && !entry.row.has(flag::SKIP_SLOWLOG) {
                self.record_slow(args, nanos / 1000, call, entry);
            }
        }
        Ran { nanos, waits }
    }

    /// The same, but that whoever calls it counts and times the command. Returns what it waits for, if it has not replied.
    #[inline(always)]
    pub(super) fn run_untimed(&mut self, command: Invocation<'_>, out: &mut Vec<u8>) -> Option<BlockRequest> {
        let Invocation { entry, call, args, fetched, .. } = command;
        let Run::Keys(run) = entry.row.run else { return self.run_otherwise(command, out) };
        let start = out.len();
        let reply = Reply::new(out, call.resp);
        let ctx = &mut Ctx { shard: &mut self.shard, call, args, fetched, served_from: None, reply };
        let result = run(ctx);
        self.shard.assert_all_signalled();
        if self.shard.effects.is_on() {
            self.record_effects(entry, call, args);
        }
        if let Err(error) = &result {
            self.fail(command, error, start, out);
        }
        None
    }

    /// Runs a command that is not over keys alone.
    #[inline(never)]
    fn run_otherwise(&mut self, command: Invocation<'_>, out: &mut Vec<u8>) -> Option<BlockRequest> {
        let Invocation { entry, call, args, fetched, conn, served_from, .. } = command;
        let start = out.len();
        let result = match entry.row.run {
            Run::Blocking(run) => {
                let reply = Reply::new(out, call.resp);
                let mut ctx = Ctx { shard: &mut self.shard, call, args, fetched, served_from, reply };
                run(&mut ctx).map(|request| {
                    // It must not wait in an EXEC: its time is up at once.
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
                run(&mut SessionCtx { worker: self, conn, call, args, reply }).map(|()| None)
            }
            Run::Program(run) => {
                let is_outermost = self.shard.effects.begin_nested();
                let reply = Reply::new(out, call.resp);
                let result = run(&mut ProgramCtx { host: self, call, args, reply });
                if is_outermost {
                    self.shard.effects.end_local();
                }
                result.map(|()| None)
            }
            Run::Keys(_) => unreachable!("it has a way of its own"),
            Run::Container => unreachable!("the gate lets only a container's subcommands through"),
        };
        self.shard.assert_all_signalled();
        if self.shard.effects.is_on() {
            self.record_effects(entry, call, args);
        }
        match result {
            Ok(request) => request,
            Err(error) => {
                self.fail(command, &error, start, out);
                None
            }
        }
    }

    /// Replies with a command's error, in place of what it wrote from `start` on, and counts it.
    #[cold]
    fn fail(&self, command: Invocation<'_>, error: &CommandError, start: usize, out: &mut Vec<u8>) {
        out.truncate(start);
        Reply::new(out, command.call.resp).error(error.as_bytes());
        if command.is_counted {
            self.shard.stats.command(command.entry.id).failed.add(1);
            self.shard.stats.error(error.code());
        }
    }
}

impl Measures for Worker {
    fn used_memory_bytes(&self) -> u64 {
        self.globals.used_memory()
    }

    fn good_replicas(&self) -> usize {
        self.globals.stream.good_replicas(&self.shard.config, self.shard.now_ms)
    }
}

impl ProgramHost for Worker {
    fn call(&mut self, program: &Call, declared: Argv<'_>, args: Argv<'_>, reply: &mut Vec<u8>) {
        match self.callee(program, declared, args) {
            Ok(entry) => {
                let call = Call {
                    command: entry.id,
                    resp: Resp::V2,
                    in_exec: true,
                    hash: 0,
                    hashed_arg: 0,
                    ..*program
                };
                self.run(Invocation::new(entry, &call, args, None), reply);
            }
            Err(error) => {
                self.shard.stats.error(error.code());
                Reply::new(reply, Resp::V2).error(error.as_bytes());
            }
        }
    }
}

impl Worker {
    /// The command that a program calls, if it may.
    ///
    /// # Errors
    /// No such command; one that programs may not call; what admission refuses; keys that the program has not declared.
    fn callee(
        &self,
        program: &Call,
        declared: Argv<'_>,
        args: Argv<'_>,
    ) -> Result<&'static CommandEntry, CommandError> {
        let entry = gate::resolve(self.table, args)?;
        // What asks for its session, or for every shard, is not in a program's hand.
        let is_over_its_keys = matches!(route::scope(entry.row, args, self.shard.shard_count), Scope::Keys);
        if entry.row.has(flag::NOSCRIPT) || entry.row.is_over_session() || !is_over_its_keys {
            self.shard.stats.command(entry.id).rejected.add(1);
            return Err(CommandError::fixed("ERR This Redis command is not allowed from script"));
        }
        let caller = Caller { authenticated: true, is_local: false, queued_flags: None };
        admission::admit_call(entry.row, &caller, &self.conditions(), self).inspect_err(|_| {
            self.shard.stats.command(entry.id).rejected.add(1);
        })?;
        let program_row = self.table.entry(program.command).row;
        let in_hand = keys::positions(program_row, declared);
        let is_in_hand = |key: &[u8]| in_hand.iter().any(|&(at, _)| declared.arg(at) == key);
        if keys::positions(entry.row, args).iter().any(|&(at, _)| !is_in_hand(args.arg(at))) {
            return Err(CommandError::fixed("ERR The program has not declared all keys of the command"));
        }
        Ok(entry)
    }
}
