//! The commands that programs call: which of them may run, and over which keys.

use super::ProgramKind;
use super::Reach;
use super::ctx::CallOptions;
use crate::command::admission::{self, ProgramCall};
use crate::command::table::{CommandEntry, KeyShape, Resolved, Run, Scope, flag};
use crate::command::{Call, CommandError, keys, route};
use crate::protocol::{Argv, Reply};
use crate::types::hashing::hash_key;
use crate::worker::Worker;
use crate::worker::run::Invocation;
use crate::worker::transact::{CallPlace, WideCaller};
use smallvec::SmallVec;
use std::sync::atomic::Ordering;

const NOT_ALLOWED: CommandError = CommandError::fixed("ERR This Redis command is not allowed from script");
const UNDECLARED: CommandError =
    CommandError::fixed("ERR The program has not declared all keys of the command");

impl Worker {
    /// Runs a command for the running program, whose own arguments are `declared`. Appends its reply, which may be an
    /// error.
    pub(super) fn call_for_program(
        &mut self,
        declared: Argv<'_>,
        args: &[&[u8]],
        options: CallOptions,
        reply: &mut Vec<u8>,
    ) {
        // What the program did before is not the command's time.
        self.read_program_clock();
        let copy = self.programs.copy_args(args.iter().copied());
        let argv = copy.as_argv();
        match self.callee(declared, argv, &options) {
            Ok((entry, hash)) => self.run_callee(entry, hash, argv, &options, reply),
            Err(error) => {
                self.shard.stats.error(error.code());
                Reply::new(reply, options.resp).error(error.as_bytes());
            }
        }
        self.programs.give_args(copy);
    }

    fn run_callee(
        &mut self,
        entry: &'static CommandEntry,
        hash: Option<u64>,
        args: Argv<'_>,
        options: &CallOptions,
        reply: &mut Vec<u8>,
    ) {
        if entry.row.has(flag::WRITE) {
            self.programs.running().has_written = true;
            self.note_growing_dbs(entry, args);
        }
        let frame = self.programs.running();
        let call = Call {
            command: entry.id,
            resp: options.resp,
            in_exec: true,
            in_script: frame.kind != ProgramKind::Module,
            hash: hash.unwrap_or_default(),
            hashed_arg: u8::from(hash.is_some()),
            ..frame.call
        };
        if entry.row.selects.is_some() {
            self.select_for_program(entry, args, options, reply);
            return;
        }
        if let Some(caller) = self.wide_caller() {
            let caller = WideCaller { is_muted: !options.is_recorded, ..caller };
            if self.place_call(caller, entry, call, args) == CallPlace::Elsewhere {
                self.programs.running().awaits_call = true;
                return;
            }
        }
        if !options.is_recorded {
            self.shard.effects.mute(true);
        }
        let command = Invocation::new(entry, &call, args, None);
        match route::scope(entry.row, args, self.shard.shard_count) {
            Scope::Every(_) => self.run_every(command, reply),
            Scope::Keys
            | Scope::Session
            | Scope::Shard(_)
            | Scope::Walk { .. }
            | Scope::Watch
            | Scope::Multi
            | Scope::Exec
            | Scope::Custom(_) => {
                self.run(command, reply);
            }
        }
        self.shard.effects.mute(false);
    }

    /// Notes the databases whose number of keys a command may change.
    fn note_growing_dbs(&mut self, entry: &CommandEntry, args: Argv<'_>) {
        let (selected, db_count) = (self.programs.running().call.db, self.shard.db_count());
        self.note_growing(selected);
        let row = entry.row;
        if matches!(row.scope, Scope::Every(_)) {
            (0..db_count as u32).for_each(|db| self.note_growing(db));
        }
        if let Some(other_db) = row.other_db
            && let Some(db) = other_db(args, db_count)
        {
            self.note_growing(db);
        }
        if entry.shape != KeyShape::First {
            for (at, _) in keys::positions(row, args) {
                self.note_growing((row.key_db)(args, at, selected, db_count));
            }
        }
    }

    /// SELECT: the program selects a database for itself, and not for its client.
    fn select_for_program(
        &mut self,
        entry: &'static CommandEntry,
        args: Argv<'_>,
        options: &CallOptions,
        reply: &mut Vec<u8>,
    ) {
        let selects = entry.row.selects.expect("the caller has seen it");
        let mut reply = Reply::new(reply, options.resp);
        match selects(args, self.shard.db_count()) {
            Ok(db) => {
                self.programs.running().call.db = db;
                reply.ok();
            }
            Err(error) => {
                reply.error(error.as_bytes());
                self.shard.stats.command(entry.id).failed.add(1);
                self.shard.stats.error(error.code());
            }
        }
        let nanos = self.time.take_nanos();
        self.shard.stats.command(entry.id).record(nanos, self.shard.config.latency_tracking);
        self.shard.stats.commands_processed.add(1);
    }

    /// The command that a program calls, if it may, and the hash of its first argument if that is its only key.
    ///
    /// # Errors
    /// No such command; a wrong number of arguments; one that programs may not call; what admission refuses; keys that the
    /// program has not declared.
    fn callee(
        &mut self,
        declared: Argv<'_>,
        args: Argv<'_>,
        options: &CallOptions,
    ) -> Result<(&'static CommandEntry, Option<u64>), CommandError> {
        let table = self.table;
        let entry = match table.resolve(args) {
            Resolved::Command(entry) => entry,
            Resolved::UnknownSubcommand(_) | Resolved::Unknown => {
                return Err(CommandError::fixed("ERR Unknown Redis command called from script"));
            }
        };
        let reject = |error: CommandError| {
            self.shard.stats.command(entry.id).rejected.add(1);
            Err(error)
        };
        let arity = entry.row.arity;
        let len = args.len() as i32;
        if if arity >= 0 { len != arity } else { len < -arity } || matches!(entry.row.run, Run::Container) {
            return reject(CommandError::fixed("ERR Wrong number of args calling Redis command from script"));
        }
        let is_denied =
            entry.row.has(flag::NOSCRIPT) && !self.globals.scripts_are_trusted.load(Ordering::Relaxed);
        if is_denied || matches!(entry.row.run, Run::Program(_)) {
            return reject(NOT_ALLOWED);
        }
        let program = ProgramCall {
            is_read_only: options.is_read_only,
            allows_oom: options.allows_oom,
            has_written: self.programs.running().has_written,
        };
        if let Err(error) = admission::admit_call(entry.row, program, &self.conditions(), self) {
            self.shard.stats.command(entry.id).rejected.add(1);
            return Err(error);
        }
        let hash = (entry.shape == KeyShape::First).then(|| hash_key(args.arg(1)));
        self.check_in_hand(declared, entry, args, hash)?;
        Ok((entry, hash))
    }

    /// Checks that all keys of a command are in the running program's hand. A wide program may call
    /// for any: on a server of one shard it has all keys in hand.
    ///
    /// # Errors
    /// A key that the program has not declared, or a command over the whole keyspace.
    fn check_in_hand(
        &mut self,
        declared: Argv<'_>,
        entry: &CommandEntry,
        args: Argv<'_>,
        hash: Option<u64>,
    ) -> Result<(), CommandError> {
        let shard_count = self.shard.shard_count;
        let has_all = shard_count == 1 && self.programs.running().reach != Reach::Declared;
        if has_all || self.wide_caller().is_some() {
            return Ok(());
        }
        match route::scope(entry.row, args, shard_count) {
            Scope::Keys if hash.is_some() => {}
            Scope::Keys if !entry.row.has(flag::TOUCHES_ARBITRARY_KEYS) && !entry.row.derives_keys(args) => {}
            Scope::Session => {}
            Scope::Keys
            | Scope::Every(_)
            | Scope::Shard(_)
            | Scope::Walk { .. }
            | Scope::Watch
            | Scope::Multi
            | Scope::Exec
            | Scope::Custom(_) => return Err(NOT_ALLOWED),
        }
        let frame = self.programs.running();
        let in_hand = frame.declared.get_or_insert_with(|| {
            let mut hashes = SmallVec::new();
            keys::each(frame.entry.row, declared, |at, _| hashes.push(hash_key(declared.arg(at))));
            hashes
        });
        if let Some(hash) = hash {
            return if in_hand.contains(&hash) { Ok(()) } else { Err(UNDECLARED) };
        }
        let mut is_in_hand = true;
        keys::each(entry.row, args, |at, _| is_in_hand &= in_hand.contains(&hash_key(args.arg(at))));
        if is_in_hand { Ok(()) } else { Err(UNDECLARED) }
    }
}
