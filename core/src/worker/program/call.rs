//! The commands that programs call: which of them may run, and over which keys.

use super::ProgramKind;
use super::Reach;
use super::ctx::CallOptions;
use super::frame::{Frame, handler_of};
use crate::client::ClientId;
use crate::command::admission::{self, ProgramCall};
use crate::command::table::{Command, CommandEntry, CommandId, KeyShape, Resolved, Run, Scope, flag};
use crate::command::{Call, CommandError, CommandResult, Ctx, keys, route};
use crate::protocol::{Argv, OwnedArgv, Reply};
use crate::shard::effects::Readers;
use crate::types::hashing::hash_key;
use crate::worker::Worker;
use crate::worker::pipeline::arity_fits;
use crate::worker::run::Invocation;
use crate::worker::transact::{CallPlace, WideCaller};
use smallvec::SmallVec;
use std::sync::atomic::Ordering;

/// So many programs may be under way that have called one another, besides the first: they share a stack.
const DEPTH_MAX: u32 = 16;

/// Why a program could not call a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotCalled {
    /// There is no such command.
    Unknown,
    /// The number of arguments is wrong, or it is a container without a subcommand.
    Arity,
    /// It is not for programs, or not for this one.
    NotAllowed,
    /// The program has not declared all its keys.
    Undeclared,
    /// It could not run now, or not in a script.
    Refused(CommandError),
}

impl NotCalled {
    /// The error that a script gets.
    pub(super) fn into_script_error(self) -> CommandError {
        match self {
            NotCalled::Unknown => CommandError::fixed("ERR Unknown Redis command called from script"),
            NotCalled::Arity => {
                CommandError::fixed("ERR Wrong number of args calling Redis command from script")
            }
            NotCalled::NotAllowed => CommandError::fixed("ERR This Redis command is not allowed from script"),
            NotCalled::Undeclared => {
                CommandError::fixed("ERR The program has not declared all keys of the command")
            }
            NotCalled::Refused(error) => error,
        }
    }
}

/// A program that a program calls: it is to be run on the same frame.
pub(super) struct Callee {
    pub(super) entry: &'static CommandEntry,
    pub(super) args: OwnedArgv,
}

/// What a frame has of a program that calls another, while that one runs.
pub(super) struct Caller {
    kind: ProgramKind,
    call: Call,
    readers: Readers,
    began_ticks: u64,
}

/// What a script gets that calls a command which does not run on a stale replica.
const STALE_FOR_SCRIPT: CommandError =
    CommandError::fixed("ERR Can not execute the command on a stale replica");

impl Worker {
    /// The flags of the commands that have to be checked when a program calls them. Nothing is refused to a script that the server
    /// itself runs: one of an append-only file.
    pub(super) fn flags_checked_for(&self, kind: ProgramKind, client: ClientId) -> u64 {
        match (kind, client) {
            (ProgramKind::Script | ProgramKind::Function, 0) => 0,
            _ => admission::flags_checked_for_program(&self.conditions()),
        }
    }

    /// Runs a command for the running program, whose own arguments are `declared`. Appends its reply, which may be an
    /// error. If it is a program, it is returned and has not run.
    ///
    /// # Errors
    /// The command was not called.
    pub(super) fn call_for_program(
        &mut self,
        declared: Argv<'_>,
        args: Argv<'_>,
        options: CallOptions,
        reply: &mut Vec<u8>,
    ) -> Result<Option<Callee>, NotCalled> {
        self.count_untimed();
        // What the program did before is not the command's time.
        self.read_program_clock();
        let frame = self.programs.running();
        let (kind, client) = (frame.kind, frame.call.client);
        // What a module calls was filtered where it is known which module that is.
        let filter = self.globals.hooks.filter().filter(|_| kind != ProgramKind::Module);
        let filtered = filter.map(|filter| filter(client, args));
        let args = filtered.as_ref().map_or(args, OwnedArgv::as_argv);
        let (entry, hash) = self.callee(declared, args, &options)?;
        if matches!(entry.row.run, Run::Program(_)) {
            if self.is_monitored() {
                self.show_running_script(declared);
            }
            self.programs.running().has_written |= entry.row.has(flag::WRITE);
            let is_wide_unit = self.programs.running().is_wide_unit;
            if is_wide_unit && !self.take_for_unit(entry, args, hash) {
                return Ok(None);
            }
            let args = self.programs.copy_argv(args);
            return Ok(Some(Callee { entry, args }));
        }
        self.run_callee(declared, entry, hash, args, &options, reply);
        Ok(None)
    }

    /// Runs a command over one key that is in the running script's hand, as [`call_for_program`](Self::call_for_program) does.
    /// Returns false if there is more to it: nothing was done then.
    #[inline]
    pub(super) fn call_at_once(
        &mut self,
        declared: Argv<'_>,
        args: Argv<'_>,
        options: &CallOptions,
        reply: &mut Vec<u8>,
    ) -> bool {
        let table = self.table;
        let Some(entry) = args.get(0).and_then(|name| table.lookup(name)) else { return false };
        let row = entry.row;
        let Run::Keys(run) = row.run else { return false };
        let frame = self.programs.running();
        let &mut Frame { call, is_wide_unit, has_written, checked_flags, first_declared, readers, .. } =
            frame;
        let (calls_at_once, is_noted) = (frame.calls_at_once, frame.notes_growth_of(call.db));
        let CallOptions { is_read_only, allows_oom, .. } = *options;
        let program = ProgramCall { is_read_only, allows_oom, has_written };
        let may_be_called = entry.shape == KeyShape::First
            && entry.plain.is_none()
            && row.other_db.is_none()
            && !row.has(flag::NOSCRIPT)
            && arity_fits(entry, args)
            && admission::is_free_to_call(row, program, checked_flags);
        if !(calls_at_once && may_be_called) {
            return false;
        }
        let hash = hash_key(args.arg(1));
        let is_in_hand =
            first_declared == Some(hash) || self.check_in_hand(declared, entry, args, Some(hash)).is_ok();
        if !is_in_hand || is_wide_unit && !self.note_key_of_unit(hash) {
            return false;
        }

        if row.has(flag::WRITE) && !(has_written && is_noted) {
            self.programs.running().has_written = true;
            self.note_growing(call.db);
        }
        let (command, resp) = (entry.id, options.resp);
        let call = Call { command, resp, in_exec: true, in_script: true, hash, hashed_arg: 1, ..call };
        self.shard.effects.record_for(options.readers.both(readers));
        self.run_counted(run, entry, &call, args, reply);
        self.shard.effects.record_for(Readers::ALL);
        true
    }

    /// Runs a command of a script's whose handler is a plain function over keys. Times and counts it, or leaves that to
    /// [`count_untimed`](Self::count_untimed).
    #[inline(always)]
    fn run_counted(
        &mut self,
        run: fn(&mut Ctx<'_>) -> CommandResult,
        entry: &'static CommandEntry,
        call: &Call,
        args: Argv<'_>,
        reply: &mut Vec<u8>,
    ) {
        let is_sampled = entry.row.is_constant_time && self.time.may_share();
        if is_sampled && self.programs.samples.leave_untimed(entry.id) {
            return self.run_plainly(run, entry, call, args, reply);
        }
        self.count_untimed();
        // What the program did before is not the command's time.
        self.read_program_clock();
        self.run_plainly(run, entry, call, args, reply);
        let nanos = self.time.take_nanos();
        let stats = &self.shard.stats;
        stats.command(entry.id).record(nanos, self.shard.config.latency_tracking);
        stats.commands_processed.add(1);
        if nanos >= self.time.noted_from_nanos {
            self.note_slow(args, nanos, call, entry);
        }
        if is_sampled {
            self.programs.samples.put(entry.id, nanos);
        }
    }

    /// Counts the commands that have run and were not timed. To be called before anybody looks at what was counted.
    #[inline]
    pub(super) fn count_untimed(&mut self) {
        if let Some((command, count, nanos)) = self.programs.samples.take_untimed() {
            self.count_alike(command, count, nanos);
        }
    }

    #[inline(never)]
    fn count_alike(&self, command: CommandId, count: u64, nanos: u64) {
        let stats = &self.shard.stats;
        stats.command(command).record_all(count, nanos, self.shard.config.latency_tracking);
        stats.commands_processed.add(count);
    }

    /// Runs the command whose row that of the running program has replaced: see [`ProgramCtx::call_plain`].
    ///
    /// [`ProgramCtx::call_plain`]: super::ProgramCtx::call_plain
    pub(super) fn run_plain_for_program(
        &mut self,
        declared: Argv<'_>,
        plain: CommandId,
        args: Argv<'_>,
        options: &CallOptions,
        reply: &mut Vec<u8>,
    ) {
        self.read_program_clock();
        let entry = self.table.entry(plain);
        let hash = (entry.shape == KeyShape::First).then(|| hash_key(args.arg(1)));
        self.run_callee(declared, entry, hash, args, options, reply);
    }

    /// Runs a command that no client can call, over keys that are in the running program's hand: see
    /// [`ProgramCtx::call_hidden`].
    ///
    /// [`ProgramCtx::call_hidden`]: super::ProgramCtx::call_hidden
    pub(super) fn run_hidden_for_program(
        &mut self,
        declared: Argv<'_>,
        args: Argv<'_>,
        options: &CallOptions,
        reply: &mut Vec<u8>,
    ) {
        self.read_program_clock();
        let name = std::str::from_utf8(args.arg(0)).expect("the server's own names are text");
        let entry = self.table.hidden(name);
        let hash = (entry.shape == KeyShape::First).then(|| hash_key(args.arg(1)));
        self.run_callee(declared, entry, hash, args, options, reply);
    }

    /// The running program has called another, which runs on its frame from here on. Returns the call of that one.
    pub(super) fn enter_called(
        &mut self,
        entry: &CommandEntry,
        kind: ProgramKind,
        options: &CallOptions,
    ) -> (Call, Caller) {
        self.read_program_clock();
        let began_ticks = self.time.ticks;
        let frame = self.programs.running();
        let in_script = frame.kind.is_script() || frame.call.in_script;
        let (hash, hashed_arg) = (0, 0);
        let resp = options.resp;
        let call = Call { command: entry.id, resp, in_exec: true, in_script, hash, hashed_arg, ..frame.call };
        frame.depth += 1;
        frame.calls_at_once = false;
        let caller = Caller {
            kind: std::mem::replace(&mut frame.kind, kind),
            call: std::mem::replace(&mut frame.call, call),
            readers: std::mem::replace(&mut frame.readers, options.readers),
            began_ticks,
        };
        (call, caller)
    }

    /// It has ended.
    pub(super) fn leave_called(
        &mut self,
        entry: &'static CommandEntry,
        args: Argv<'_>,
        caller: Caller,
        result: &CommandResult,
    ) {
        self.read_program_clock();
        let nanos = self.time.nanos_since(caller.began_ticks);
        if self.programs.running().kind == ProgramKind::Command && self.is_monitored() {
            let call = self.programs.running().call;
            self.show_command(&Invocation::new(entry, &call, args, None));
        }
        let frame = self.programs.running();
        (frame.kind, frame.call, frame.readers) = (caller.kind, caller.call, caller.readers);
        frame.depth -= 1;
        self.see_what_may_call_at_once();
        let stats = &self.shard.stats;
        let command = stats.command(entry.id);
        command.record(nanos, self.shard.config.latency_tracking);
        // What stands in the place of a plain command has run that, which was counted.
        stats.commands_processed.add(u64::from(entry.plain.is_none()));
        if let Err(error) = result {
            command.failed.add(1);
            stats.error(error.code());
        }
        if nanos >= self.time.noted_from_nanos {
            self.note_late(nanos, entry);
        }
    }

    fn run_callee(
        &mut self,
        declared: Argv<'_>,
        entry: &'static CommandEntry,
        hash: Option<u64>,
        args: Argv<'_>,
        options: &CallOptions,
        reply: &mut Vec<u8>,
    ) {
        if self.programs.running().is_wide_unit && !self.take_for_unit(entry, args, hash) {
            return;
        }
        if self.is_monitored() {
            self.show_running_script(declared);
        }
        if entry.row.has(flag::WRITE) {
            self.programs.running().has_written = true;
            self.note_growing_dbs(entry, args);
        }
        let frame = self.programs.running();
        let is_own = self.table.entry(frame.call.command).plain == Some(entry.id);
        let call = Call {
            command: entry.id,
            resp: options.resp,
            in_exec: true,
            in_script: frame.kind.is_script() || is_own && frame.call.in_script,
            hash: hash.unwrap_or_default(),
            hashed_arg: u8::from(hash.is_some()),
            ..frame.call
        };
        if call.tracks && entry.row.has(flag::READONLY) {
            self.track_declared_keys(declared);
        }
        if entry.row.selects.is_some() {
            self.select_for_program(entry, call, args, options, reply);
            return;
        }
        if let Some(caller) = self.wide_caller() {
            let caller = WideCaller { readers: options.readers, ..caller };
            if !self.programs.running().has_left_keys {
                let keeps_to_keys = self.declares_keys_of(declared, entry, args, hash);
                self.programs.running().has_left_keys = !keeps_to_keys;
            }
            if self.place_call(caller, entry, call, args) == CallPlace::Elsewhere {
                let frame = self.programs.running();
                frame.awaits_call = true;
                frame.calls_elsewhere += 1;
                return;
            }
        }
        self.shard.effects.record_for(options.readers);
        let is_counted = !entry.row.is_hidden;
        let command = Invocation { is_counted, ..Invocation::new(entry, &call, args, None) };
        let scope = match hash {
            Some(_) => Scope::Keys,
            None => route::scope(entry.row, args, self.shard.shard_count),
        };
        match scope {
            Scope::Every(_) => self.run_every(&command, reply),
            Scope::Session => {
                self.run(&command, reply);
                // It may have changed the configuration.
                let frame = self.programs.running();
                let (kind, client) = (frame.kind, frame.call.client);
                self.programs.running().checked_flags = self.flags_checked_for(kind, client);
            }
            Scope::Keys
            | Scope::Shard(_)
            | Scope::Walk { .. }
            | Scope::Watch
            | Scope::Multi
            | Scope::Exec
            | Scope::Custom(_) => {
                self.run(&command, reply);
            }
        }
        self.shard.effects.record_for(Readers::ALL);
    }

    /// A script of a client that tracks calls a command that reads: as in Redis 7.0, all its declared keys are tracked. What
    /// the command reads itself is, too, where it runs.
    #[cold]
    fn track_declared_keys(&mut self, declared: Argv<'_>) {
        let frame = self.programs.running();
        if !frame.kind.is_script() || std::mem::replace(&mut frame.has_tracked, true) {
            return;
        }
        let (entry, call) = (frame.entry, frame.call);
        self.track_declared(entry, &call, declared);
    }

    /// The running program waits for what was sent to other shards.
    pub(in crate::worker) fn await_call(&mut self) {
        self.programs.running().awaits_call = true;
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
        call: Call,
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
        if self.is_monitored() {
            let db = self.programs.running().call.db;
            self.show_command(&Invocation::new(entry, &Call { db, ..call }, args, None));
        }
        let nanos = self.time.take_nanos();
        self.shard.stats.command(entry.id).record(nanos, self.shard.config.latency_tracking);
        self.shard.stats.commands_processed.add(1);
        if nanos >= self.time.noted_from_nanos {
            self.note_slow(args, nanos, &call, entry);
        }
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
    ) -> Result<(&'static CommandEntry, Option<u64>), NotCalled> {
        let table = self.table;
        let entry = match table.resolve(args) {
            Resolved::Command(entry) => entry,
            Resolved::UnknownSubcommand(_) | Resolved::Unknown => return Err(NotCalled::Unknown),
        };
        // A program that keeps to its declared keys cannot call a wide one.
        let keeps_to_keys = self.programs.running().reach == Reach::Declared;
        let entry = entry.plain.filter(|_| keeps_to_keys).map_or(entry, |plain| table.entry(plain));
        let reject = |why: NotCalled| {
            self.shard.stats.command(entry.id).rejected.add(1);
            Err(why)
        };
        if !arity_fits(entry, args) || matches!(entry.row.run, Run::Container) {
            return reject(NotCalled::Arity);
        }
        if !self.is_for_program(entry, options) {
            self.shard.stats.command(entry.id).rejected.add(1);
            return Err(NotCalled::NotAllowed);
        }
        self.check_rights_of_program(entry, args)?;
        let has_written = self.programs.running().has_written && options.is_as_script;
        if options.is_as_script || !options.allows_oom {
            let program = ProgramCall {
                is_read_only: options.is_read_only,
                allows_oom: options.allows_oom,
                has_written,
            };
            let checked = self.programs.running().checked_flags;
            let admitted = admission::admit_call(entry.row, program, checked, || (self.conditions(), &*self));
            if let Err(error) = admitted {
                self.shard.stats.command(entry.id).rejected.add(1);
                let is_script = self.programs.running().kind.is_script();
                let is_stale = error == CommandError::MASTER_DOWN && is_script;
                return Err(NotCalled::Refused(if is_stale { STALE_FOR_SCRIPT } else { error }));
            }
        }
        if !options.is_as_script && options.allows_oom {
            self.admit_called_script(entry, args)?;
        }
        let hash = (entry.shape == KeyShape::First).then(|| hash_key(args.arg(1)));
        self.check_in_hand(declared, entry, args, hash)?;
        Ok((entry, hash))
    }

    /// Whether a script's client has the right to what the script calls. What a module calls is not checked.
    ///
    /// # Errors
    /// It has not.
    fn check_rights_of_program(&mut self, entry: &CommandEntry, args: Argv<'_>) -> Result<(), NotCalled> {
        let frame = self.programs.running();
        if !frame.kind.is_script() || frame.calling_user().is_none() {
            return Ok(());
        }
        let (user, call) = (frame.calling_user().cloned(), frame.call);
        let Some(user) = user else { return Ok(()) };
        let allowed = self.check_script_call(&user, call.client, usize::from(call.home), entry, args);
        allowed.map_err(|error| {
            self.shard.stats.command(entry.id).rejected.add(1);
            NotCalled::Refused(error)
        })
    }

    /// Whether the client of the running script has the right to a command. `None`: there is no such command.
    pub fn may_call_from_script(&mut self, args: Argv<'_>) -> Option<bool> {
        let table = self.table;
        let Resolved::Command(entry) = table.resolve(args) else { return None };
        let user = self.programs.running().calling_user().cloned();
        Some(user.is_none_or(|user| user.check(table, entry, args).is_ok()))
    }

    /// What a module calls is not checked as a client's call is, but a script is that says what it needs.
    ///
    /// # Errors
    /// The script could not run now.
    fn admit_called_script(&mut self, entry: &CommandEntry, args: Argv<'_>) -> Result<(), NotCalled> {
        const OUT_OF_MEMORY: CommandError = CommandError::fixed(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        );
        const READ_ONLY: CommandError =
            CommandError::fixed("READONLY Can not run script with write flag on readonly replica.");
        let Some(handler) = handler_of(entry) else { return Ok(()) };
        if !handler.kind.is_script() || self.programs.running().kind != ProgramKind::Module {
            return Ok(());
        }
        let flags = (handler.flags)(self, entry.row.flags, args);
        let row = Command { flags, ..*entry.row };
        let program = ProgramCall { is_read_only: false, allows_oom: false, has_written: false };
        let checked = self.programs.running().checked_flags;
        admission::admit_call(&row, program, checked, || (self.conditions(), &*self)).map_err(|error| {
            self.shard.stats.command(entry.id).rejected.add(1);
            let of_scripts =
                [(CommandError::OUT_OF_MEMORY, OUT_OF_MEMORY), (CommandError::READ_ONLY, READ_ONLY)];
            let own = of_scripts.into_iter().find(|(known, _)| *known == error);
            NotCalled::Refused(own.map_or(error, |(_, own)| own))
        })
    }

    /// Whether the running program may call a command, whatever its arguments.
    #[inline]
    fn is_for_program(&mut self, entry: &CommandEntry, options: &CallOptions) -> bool {
        let is_program = matches!(entry.row.run, Run::Program(_));
        !is_program && !entry.row.has(flag::NOSCRIPT) || self.is_specially_for_program(entry, options)
    }

    /// The same for a command that scripts may not call, and for a program.
    #[cold]
    fn is_specially_for_program(&mut self, entry: &CommandEntry, options: &CallOptions) -> bool {
        let row = entry.row;
        let frame = self.programs.running();
        let (caller, depth) = (frame.kind, frame.depth);
        let is_called_by_module = caller == ProgramKind::Module;
        if let Some(called) = handler_of(entry) {
            // One that keeps to its declared keys is called like a plain command: it is looked at later whether these are in hand.
            let is_plain = called.kind == ProgramKind::Command;
            let is_of_module = called.kind == ProgramKind::Module;
            let is_all_in_hand = is_plain || self.shard.shard_count == 1 || self.wide_caller().is_some();
            if !(is_plain || is_of_module || is_called_by_module) || depth >= DEPTH_MAX || !is_all_in_hand {
                return false;
            }
        }
        if !row.has(flag::NOSCRIPT) {
            return true;
        }
        if options.is_as_script || !is_called_by_module {
            return self.globals.scripts_are_trusted.load(Ordering::Relaxed);
        }
        // What concerns a connection needs one that the program could have for itself.
        // SUBSCRIBE and the like say themselves that they need one.
        !matches!(row.run, Run::Session(_))
            || row.has(flag::ADMIN) && !row.has(flag::NO_MULTI)
            || row.has(flag::PUBSUB)
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
    ) -> Result<(), NotCalled> {
        let shard_count = self.shard.shard_count;
        let has_all = shard_count == 1 && self.programs.running().reach != Reach::Declared;
        if has_all || self.declares_keys_of(declared, entry, args, hash) || self.wide_caller().is_some() {
            return Ok(());
        }
        Err(if names_its_keys(entry, args, shard_count) {
            NotCalled::Undeclared
        } else {
            NotCalled::NotAllowed
        })
    }

    /// Whether the running program has declared all keys that a command touches.
    fn declares_keys_of(
        &mut self,
        declared: Argv<'_>,
        entry: &CommandEntry,
        args: Argv<'_>,
        hash: Option<u64>,
    ) -> bool {
        // A command with one key in the first place touches no others.
        if hash.is_none() && !names_its_keys(entry, args, self.shard.shard_count) {
            return false;
        }
        let frame = self.programs.running();
        let in_hand = frame.declared.get_or_insert_with(|| {
            let mut hashes = SmallVec::new();
            let call = frame.call;
            keys::each(frame.entry.row, declared, |at, _| hashes.push(call.key(declared, at).hash));
            hashes
        });
        if let Some(hash) = hash {
            return in_hand.contains(&hash);
        }
        let mut is_in_hand = true;
        keys::each(entry.row, args, |at, _| is_in_hand &= in_hand.contains(&hash_key(args.arg(at))));
        is_in_hand
    }
}

/// Whether a command touches no other keys than those that its arguments name.
pub(super) fn names_its_keys(entry: &CommandEntry, args: Argv<'_>, shard_count: usize) -> bool {
    match route::scope(entry.row, args, shard_count) {
        Scope::Keys if entry.shape == KeyShape::First => true,
        Scope::Keys => !entry.row.has(flag::TOUCHES_ARBITRARY_KEYS) && !entry.row.derives_keys(args),
        Scope::Session => true,
        Scope::Every(_)
        | Scope::Shard(_)
        | Scope::Walk { .. }
        | Scope::Watch
        | Scope::Multi
        | Scope::Exec
        | Scope::Custom(_) => false,
    }
}
