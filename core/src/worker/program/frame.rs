//! A frame: the run of a program, from its start to its end, over any number of slices.

use super::call::names_its_keys;
use super::stack::{Fiber, Stopped};
use super::{Hold, ProgramCtx, ProgramHandler, ProgramKind, ProgramName, Reach};
use crate::acl::User;
use crate::call::Key;
use crate::command::table::{CommandEntry, Run, flag};
use crate::command::{Call, CommandResult, keys, route};
use crate::protocol::{Argv, OwnedArgv, Reply};
use crate::pubsub::OpenMessages;
use crate::runtime::crash;
use crate::shard::checkout::MovedEntry;
use crate::shard::effects::{OpenUnit, Readers};
use crate::shard::lock::{KeyLock, LockRequestId, LockSet};
use crate::shard::message::ReplyId;
use crate::shard::observe::CheckedOutEvent;
use crate::shard::program_stats::ProgramCounts;
use crate::shard::slowlog::REDACTED;
use crate::shard::txn::{CheckedOutKey, TxnId};
use crate::types::hashing::hash_key;
use crate::worker::Worker;
use crate::worker::run::{Invocation, ReplyTo, Started};
use crate::worker::transact::WideCaller;
use smallvec::SmallVec;
use std::sync::Arc;

/// A program under way.
pub(in crate::worker) struct Frame {
    /// `None` while it runs, and when it has ended.
    fiber: Option<Fiber<Done>>,
    pub(super) entry: &'static CommandEntry,
    /// That of the program that runs on it at the moment, which another may have called.
    pub(super) kind: ProgramKind,
    pub(super) reach: Reach,
    /// See [`Worker::is_wide_unit`].
    pub(super) is_wide_unit: bool,
    /// The flags of the commands that admission has to check when it calls them, as of the beginning of its slice.
    pub(super) checked_flags: u64,
    /// It is a script of a client with all rights, needs nothing of other shards, and nobody looks at what it calls, as of the
    /// beginning of its slice: see [`Worker::call_at_once`].
    pub(super) calls_at_once: bool,
    /// The user by whose rights it calls commands, as of the beginning of its slice, if that may not do everything.
    pub(super) user: Option<Arc<User>>,
    /// The user by whose rights programs call that it has called, if these are checked.
    pub(super) called_as: Option<Arc<User>>,
    /// Which of its arguments the slow log does not show.
    pub(super) redacted: SmallVec<[usize; 2]>,
    /// The call that started it. The database is the one that the program has selected.
    pub(super) call: Call,
    /// The hash of the first key that it declares, if that is known.
    pub(super) first_declared: Option<u64>,
    /// The hashes of all of them, once they were needed.
    pub(super) declared: Option<SmallVec<[u64; 8]>>,
    /// Keys that it [makes](super::made) are among these.
    pub(super) has_made_keys: bool,
    /// How many programs it is in that have called one another, besides the first.
    pub(super) depth: u32,
    /// It was started by an EXEC.
    pub(super) is_in_exec: bool,
    /// It has called a command over keys that it does not declare.
    pub(super) has_left_keys: bool,
    /// How many of its calls ran on other shards, or waited for their keys.
    pub(super) calls_elsewhere: u32,
    /// It has called a command that writes.
    pub(super) has_written: bool,
    /// Its declared keys have been noted as read.
    pub(super) has_tracked: bool,
    /// For a module's command that reads, of a client that tracks: its declared keys, until its first slice.
    reads: Vec<Box<[u8]>>,
    /// For whom what it does may leave effects.
    pub(super) readers: Readers,
    /// It is over busy-reply-threshold: as what, because then that ran on it.
    pub(super) busy_as: Option<ProgramKind>,
    /// Its arguments, for those who look at the programs under way: from its first suspension on.
    pub(super) shown_args: Option<OwnedArgv>,
    /// It waits for the reply to a command that it has called on other shards; and the reply, when that is there.
    pub(super) awaits_call: bool,
    pub(super) called_reply: Vec<u8>,
    /// It turned out that it may touch keys which are not here: nothing has run, and the call has to be placed again.
    pub(super) is_misplaced: bool,
    /// It waits for the locks of a command that it calls: `wanted`.
    pub(super) awaits_locks: bool,
    /// Its client is one of this shard.
    pub(super) has_client_here: bool,
    /// Its client gets its reply later.
    pub(super) hold: Option<Box<Hold>>,
    /// The same, also when the hold has been passed on.
    pub(super) holds_client: bool,
    /// Its slice was over, and it waits for nothing else.
    pub(super) was_preempted: bool,
    /// It waits until a thread outside of the shards hands this ticket over.
    pub(super) waits_outside: Option<u64>,
    /// It was shown to those who watch all commands.
    pub(super) is_shown: bool,
    /// It has to end, with this error.
    pub(super) stopped: Option<&'static str>,
    role: Role,
    /// The locks of its keys, if it is a unit and was suspended or may have to hand off keys.
    pub(super) lock_request: Option<LockRequestId>,
    /// The locks that it takes, or has to wait for, as soon as its stack has been left.
    wanted: Option<LockSet>,
    /// It releases its locks itself. Until its first suspension, locks that were waited for are its starter's.
    owns_locks: bool,
    /// It holds the token, up to its end: it is a wide unit, and has locks.
    holds_token: bool,
    /// The keys that a wide unit has touched while it had no locks.
    touched: Touched,
    /// All that it does happens at this time.
    now_ms: i64,
    slice_began_ticks: u64,
    /// Before, it is not asked whether its slice ends.
    pub(super) asks_from_ticks: u64,
    pub(super) ran_nanos: u64,
    /// The databases that it may have changed.
    growths: SmallVec<[Growth; 1]>,
    /// For a unit whose effects are recorded: those so far, while it is suspended.
    is_recorded: bool,
    open_unit: OpenUnit,
    /// What it has published so far, while it is suspended. That leaves at its end.
    open_messages: OpenMessages,
}

/// Keys that a wide unit has touched.
#[derive(Default)]
struct Touched {
    hashes: SmallVec<[u64; 8]>,
    /// It has touched keys that no argument names.
    all: bool,
}

impl Touched {
    #[inline]
    fn add(&mut self, hash: u64) {
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
            self.all |= self.hashes.len() > TOUCHED_MAX;
        }
    }
}

/// A wide unit that has touched more keys takes the whole keyspace.
const TOUCHED_MAX: usize = 100_000;

/// How a program has changed the number of this shard's keys in a database. DBSIZE shows it only after its end.
struct Growth {
    db: u32,
    /// The number of keys when its slice began.
    len: usize,
    /// By how much it has grown in the earlier slices.
    earlier: isize,
}

/// What a frame is to its shard.
enum Role {
    /// A unit, in its first slice: who has started it takes its reply.
    Starting,
    /// A unit that was suspended. It owes its reply to a connection of shard `home`.
    Unit { home: usize, reply_id: ReplyId },
    /// A stage of a transaction of this shard.
    Stage { checked_out: Box<CheckedOut> },
}

/// The keys of a stage of transaction `txn` that were moved here. Their entries are in the tables only while the program
/// runs.
pub(in crate::worker) struct CheckedOut {
    pub(in crate::worker) txn: TxnId,
    /// Which command of the transaction the program is.
    pub(in crate::worker) at: usize,
    /// Another program runs over them behind it.
    pub(in crate::worker) has_more: bool,
    /// Its effects are a piece of the transaction's.
    pub(in crate::worker) is_recorded: bool,
    /// The transaction is wide: the program may touch any key.
    pub(in crate::worker) is_wide: bool,
    /// For each shard that takes part: the keys that were moved here; `None`: it has no keys in the stage.
    pub(in crate::worker) keys: Vec<Option<Vec<CheckedOutKey>>>,
    /// The entries of these, unless they are in the tables.
    pub(in crate::worker) entries: Vec<Vec<Option<MovedEntry>>>,
    /// They are there from the end of a program to the beginning of the next one. Nothing else runs in between.
    pub(in crate::worker) are_in_tables: bool,
    /// What has happened to them.
    pub(in crate::worker) events: Vec<CheckedOutEvent>,
    /// Keys of a wide transaction that were brought here while the program ran: for each shard that owns any.
    pub(in crate::worker) brought: Vec<Brought>,
}

/// Keys of one shard that were brought to a program, and their entries while these are not in the tables.
pub(in crate::worker) struct Brought {
    pub(in crate::worker) shard: usize,
    pub(in crate::worker) keys: Vec<CheckedOutKey>,
    pub(in crate::worker) entries: Vec<Option<MovedEntry>>,
}

/// What a program leaves behind.
pub(super) struct Done {
    args: OwnedArgv,
    reply: Vec<u8>,
    result: CommandResult,
}

/// The outcome of a program that was a stage of a transaction.
pub(in crate::worker) struct EndedStage {
    pub(in crate::worker) checked_out: Box<CheckedOut>,
    pub(in crate::worker) reply: Vec<u8>,
    pub(in crate::worker) ran_nanos: u64,
    /// It has not run, and the transaction has to be placed again as a wide one.
    pub(in crate::worker) is_misplaced: bool,
    /// The client gets its reply later.
    pub(in crate::worker) hold: Option<Box<Hold>>,
}

/// A frame after a slice.
enum AfterSlice {
    Ended(Box<Frame>, Done),
    Suspended(Box<Frame>),
}

/// The arguments as they are shown when those at these positions are secret.
pub fn redact(args: Argv<'_>, secrets: &[usize]) -> OwnedArgv {
    let shown = |(at, arg)| if secrets.contains(&at) { REDACTED } else { arg };
    let shown: Vec<&[u8]> = args.iter().enumerate().map(shown).collect();
    OwnedArgv::from_slices(&shown)
}

impl Frame {
    /// Whether it is noted that it may change the number of keys of this database, which is the first or only one.
    #[inline]
    pub(super) fn notes_growth_of(&self, db: u32) -> bool {
        self.growths.first().is_some_and(|first| first.db == db)
    }

    /// The user by whose rights its script calls commands, if they are checked.
    pub(super) fn calling_user(&self) -> Option<&Arc<User>> {
        if self.depth > 0 { self.called_as.as_ref() } else { self.user.as_ref() }
    }

    /// Its arguments as the slow log shows them, if that does not show all of them.
    fn redacted_args(&self, args: Argv<'_>) -> Option<OwnedArgv> {
        if self.redacted.is_empty() {
            return None;
        }
        Some(redact(args, &self.redacted))
    }
}

/// The handler of a program's row.
pub(super) fn handler_of(entry: &CommandEntry) -> Option<&'static ProgramHandler> {
    match entry.row.run {
        Run::Program(handler) => {
            Some(handler.downcast_ref::<ProgramHandler>().expect("a program's row holds its handler"))
        }
        Run::Keys(_) | Run::Native(_) | Run::Blocking(_) | Run::Session(_) | Run::Container => None,
    }
}

/// What a command touches that a wide unit calls.
fn locks_of_call(entry: &CommandEntry, args: Argv<'_>) -> LockSet {
    if names_its_keys(entry, args, 1) && !is_of_module(entry) {
        route::lock_set(entry, args, 1, false)
    } else {
        LockSet::Whole
    }
}

/// Whether a command is a module's that is run as a program.
fn is_of_module(entry: &CommandEntry) -> bool {
    handler_of(entry).is_some_and(|handler| handler.kind == ProgramKind::Module)
}

/// What a program is called in statistics and logs. `args`: its own.
pub(in crate::worker) fn program_name(entry: &'static CommandEntry, args: Argv<'_>) -> ProgramName {
    let name = handler_of(entry).and_then(|handler| (handler.name)(args));
    name.unwrap_or(ProgramName::Command(&entry.full_name))
}

impl Worker {
    /// The flags by which admission judges a command.
    #[inline]
    pub(in crate::worker) fn call_flags(&mut self, entry: &CommandEntry, args: Argv<'_>) -> u64 {
        match handler_of(entry) {
            Some(handler) => (handler.flags)(self, entry.row.flags, args),
            None => entry.row.flags,
        }
    }

    /// What is known of the keys of a program; `None`: the command is none.
    #[inline]
    pub(in crate::worker) fn reach_of(&mut self, entry: &CommandEntry, args: Argv<'_>) -> Option<Reach> {
        Some(match (handler_of(entry)?.reach)(self, args) {
            // They are among those that it declares.
            Reach::Made { .. } if entry.stands_for.is_some() => Reach::Declared,
            reach => reach,
        })
    }

    /// Whether a command is a program that may touch keys that it does not declare.
    pub(in crate::worker) fn is_wide(&mut self, entry: &CommandEntry, args: Argv<'_>) -> bool {
        self.reach_of(entry, args).is_some_and(Reach::is_wide)
    }

    /// Whether a command is a program that may send messages to channels.
    pub(in crate::worker) fn program_may_publish(&mut self, entry: &CommandEntry, args: Argv<'_>) -> bool {
        handler_of(entry).is_some_and(|handler| (handler.may_publish)(self, args))
    }

    /// The same of a command in an EXEC, where a program that is not there yet may be wide when it runs.
    pub(in crate::worker) fn may_be_wide_in_exec(&mut self, entry: &CommandEntry, args: Argv<'_>) -> bool {
        self.reach_of(entry, args).is_some_and(|reach| reach != Reach::Declared)
    }

    /// The locks that a command needs on this shard, as far as its arguments tell.
    pub(in crate::worker) fn locks_of(&self, entry: &CommandEntry, args: Argv<'_>) -> LockSet {
        route::lock_set(entry, args, self.shard.shard_count, self.has_suspended_programs())
    }

    /// Whether modules are loaded whose commands are run as programs.
    pub(in crate::worker) fn has_programs_of_modules(&self) -> bool {
        self.table.all().any(|entry| entry.row.has(flag::MODULE) && is_of_module(entry))
    }

    /// The locks that a wide unit needs to begin with. A module opens keys without calling commands, so it gets them all.
    pub(in crate::worker) fn locks_of_unit(&self, entry: &CommandEntry, args: Argv<'_>) -> LockSet {
        if is_of_module(entry) { LockSet::Whole } else { self.locks_of(entry, args) }
    }

    /// Whether a command is a *wide unit*: a program that may touch any key, on a server of one shard.
    #[inline]
    pub(in crate::worker) fn is_wide_unit(&mut self, entry: &CommandEntry, args: Argv<'_>) -> bool {
        self.shard.shard_count == 1 && matches!(entry.row.run, Run::Program(_)) && self.is_wide(entry, args)
    }

    /// Runs a program as a unit, whose keys are free or locked by itself.
    pub(in crate::worker) fn start_program(
        &mut self,
        command: &Invocation<'_>,
        to: ReplyTo,
        out: &mut Vec<u8>,
    ) -> Started {
        let waited_for = self.shard.running.take();
        let mut frame = self.new_frame(command, Role::Starting, waited_for);
        let is_wide = frame.is_wide_unit;
        if is_wide && let Some(lock_request) = waited_for {
            frame.holds_token = self.transact.take_program_with_token(lock_request);
            if !frame.holds_token {
                // It was narrow when it began to wait.
                self.programs.give_frame(frame);
                self.shard.running = waited_for;
                self.await_token_as_unit(command, to);
                return Started::Later;
            }
        }
        if waited_for.is_none() && !self.shard.blocking.is_empty() {
            // What it changes may have to be handed off, but not before its end.
            let locks = if is_wide {
                self.locks_of_unit(command.entry, command.args)
            } else {
                self.locks_of(command.entry, command.args)
            };
            (frame.lock_request, frame.owns_locks) = (self.lock_unit(locks, is_wide), true);
            if is_wide {
                self.hold_token_for(&mut frame, command.args);
            }
        }
        let after = self.run_slice(frame);
        self.shard.running = waited_for;
        match after {
            AfterSlice::Ended(mut frame, done) => {
                let (is_misplaced, hold) = (frame.is_misplaced, frame.hold.take());
                if !is_misplaced && hold.is_none() {
                    out.extend_from_slice(&done.reply);
                }
                let reply = self.end_unit(frame, done);
                self.pools.give_buffer(reply);
                if is_misplaced {
                    let (home, reply_id) = self.place_of_reply(command, to);
                    self.send_to_place_again(home, reply_id, command);
                    return Started::Later;
                }
                let Some(hold) = hold else { return Started::Replied };
                let (_, reply_id) = self.place_of_reply(command, to);
                let args = OwnedArgv::from_argv(command.args);
                self.begin_hold(reply_id, command.entry, *command.call, args, hold);
                Started::Later
            }
            AfterSlice::Suspended(mut frame) => {
                let (home, reply_id) = self.place_of_reply(command, to);
                frame.role = Role::Unit { home, reply_id };
                if is_wide {
                    self.stall_for_program(reply_id);
                    if !frame.holds_token {
                        self.hold_token_for(&mut frame, command.args);
                    }
                }
                self.hold_suspended_unit(frame, is_wide);
                Started::Suspended
            }
        }
    }

    /// Runs a program as a stage of a transaction, or as a part of it. `None`: it was suspended, and
    /// [`program_stage_ended`](Worker::program_stage_ended) will be told.
    pub(in crate::worker) fn start_stage_program(
        &mut self,
        command: &Invocation<'_>,
        checked_out: Box<CheckedOut>,
    ) -> Option<EndedStage> {
        let narrow = (!checked_out.is_wide).then_some(checked_out.txn);
        let frame = self.new_frame(command, Role::Stage { checked_out }, None);
        match self.run_slice(frame) {
            AfterSlice::Ended(frame, done) => Some(self.end_stage_frame(frame, done)),
            AfterSlice::Suspended(frame) => {
                self.put_aside(frame);
                // The locks of a wide transaction are marked from the beginning.
                if let Some(txn) = narrow {
                    self.mark_transaction(txn);
                }
                None
            }
        }
    }

    fn new_frame(
        &mut self,
        command: &Invocation<'_>,
        role: Role,
        lock_request: Option<LockRequestId>,
    ) -> Box<Frame> {
        let Invocation { entry, call, args, conn, .. } = *command;
        let has_client_here = conn.is_some();
        let handler = handler_of(entry).expect("the caller has seen that it is a program");
        let reach = self.reach_of(entry, args).expect("it is one");
        let is_unit = matches!(role, Role::Starting);
        let is_wide_unit = self.shard.shard_count == 1 && is_unit && reach.is_wide();
        let call = *call;
        // With no keys, what stands in the place of the first is none.
        let has_key = call.hashed_arg != 0 && !(handler.kind.is_script() && args.arg(2) == b"0");
        let first_declared = has_key.then_some(call.hash);
        let mut reads = Vec::new();
        if call.tracks && handler.kind == ProgramKind::Module && entry.row.has(flag::READONLY) {
            keys::each(entry.row, args, |at, _| reads.push(args.arg(at).into()));
        }
        let (entry, args, declared) = self.copy_of_call(entry, args);
        let has_made_keys = declared.is_some();
        let call = Call { command: entry.id, ..call };
        let reply = self.pools.take_buffer();
        let fiber = Fiber::new(self.programs.stacks.take(), move |lent| {
            let mut reply = reply;
            let mut ctx = ProgramCtx {
                call: &call,
                args: args.as_argv(),
                reply: Reply::new(&mut reply, call.resp),
                data: handler.data,
                outermost: args.as_argv(),
                lent,
            };
            let result = (handler.run)(&mut ctx);
            if let Err(error) = &result {
                reply.clear();
                Reply::new(&mut reply, call.resp).error(error.as_bytes());
            }
            Done { args, reply, result }
        });
        let frame = Frame {
            fiber: Some(fiber),
            entry,
            kind: handler.kind,
            reach,
            is_wide_unit,
            checked_flags: 0,
            user: None,
            called_as: None,
            redacted: SmallVec::new(),
            call,
            first_declared,
            declared,
            has_made_keys,
            depth: 0,
            is_in_exec: call.in_exec,
            has_left_keys: false,
            calls_elsewhere: 0,
            has_written: false,
            has_tracked: false,
            reads,
            readers: Readers::ALL,
            busy_as: None,
            shown_args: None,
            awaits_call: false,
            called_reply: Vec::new(),
            is_misplaced: false,
            awaits_locks: false,
            has_client_here,
            hold: None,
            holds_client: false,
            was_preempted: false,
            waits_outside: None,
            is_shown: false,
            stopped: None,
            role,
            lock_request,
            wanted: None,
            owns_locks: false,
            holds_token: false,
            touched: Touched::default(),
            now_ms: self.shard.now_ms,
            slice_began_ticks: 0,
            asks_from_ticks: 0,
            calls_at_once: false,
            ran_nanos: 0,
            growths: SmallVec::new(),
            is_recorded: false,
            open_unit: OpenUnit::default(),
            open_messages: OpenMessages::default(),
        };
        match self.programs.spare_frames.pop() {
            Some(mut spare) => {
                *spare = frame;
                spare
            }
            None => Box::new(frame),
        }
    }

    /// A command that a program runs for, and a copy of its arguments, as the client has called it; and if it makes keys, the hashes
    /// of all its keys.
    fn copy_of_call(
        &mut self,
        entry: &'static CommandEntry,
        args: Argv<'_>,
    ) -> (&'static CommandEntry, OwnedArgv, Option<SmallVec<[u64; 8]>>) {
        match self.as_called(entry, args) {
            None => (entry, self.programs.copy_argv(args), None),
            Some((entry, args, hashes)) => {
                (entry, self.programs.copy_args(args.iter().copied()), Some(hashes))
            }
        }
    }

    /// The running frame is about to be suspended: notes which locks it needs, if it has none. They are taken when its
    /// stack has been left, because that may let others run. `declared`: its arguments.
    pub(super) fn want_locks(&mut self, declared: Argv<'_>) {
        let frame = self.programs.running();
        if frame.lock_request.is_none() && matches!(frame.role, Role::Starting) {
            let Touched { hashes, all } = std::mem::take(&mut frame.touched);
            let (entry, is_wide) = (frame.entry, frame.is_wide_unit);
            let all = all || is_wide && is_of_module(entry);
            let made = if frame.has_made_keys { frame.declared.clone() } else { None };
            let mut locks = match made {
                _ if all => LockSet::Whole,
                Some(hashes) => {
                    LockSet::Keys(hashes.into_iter().map(|id| KeyLock { id, exclusive: true }).collect())
                }
                None => self.locks_of(entry, declared),
            };
            if let LockSet::Keys(keys) = &mut locks {
                keys.extend(hashes.into_iter().map(|id| KeyLock { id, exclusive: true }));
            }
            self.programs.running().wanted = Some(locks);
        }
    }

    /// Notes the key that a command touches which the running wide unit calls. False: the unit has locks, and nothing is noted.
    #[inline]
    pub(super) fn note_key_of_unit(&mut self, hash: u64) -> bool {
        let frame = self.programs.running();
        let has_locks = frame.lock_request.is_some();
        if !has_locks {
            frame.touched.add(hash);
        }
        !has_locks
    }

    /// Notes what a command touches that the running wide unit calls, or locks it. False: the program has to wait for it,
    /// and to call the command again then. `hash`: of its only key.
    pub(super) fn take_for_unit(&mut self, entry: &CommandEntry, args: Argv<'_>, hash: Option<u64>) -> bool {
        let frame = self.programs.running();
        let Some(lock_request) = frame.lock_request else {
            match hash.filter(|_| !is_of_module(entry)) {
                Some(hash) => frame.touched.add(hash),
                None => match locks_of_call(entry, args) {
                    LockSet::Whole => frame.touched.all = true,
                    LockSet::Keys(keys) => keys.iter().for_each(|key| frame.touched.add(key.id)),
                },
            }
            return true;
        };
        let mut set = match hash.filter(|_| !is_of_module(entry)) {
            Some(id) => LockSet::Keys(SmallVec::from_slice(&[KeyLock { id, exclusive: true }])),
            None => locks_of_call(entry, args),
        };
        let locks = &mut self.shard.locks;
        match &mut set {
            LockSet::Whole if locks.set_of(lock_request) == LockSet::Whole => return true,
            LockSet::Whole => {}
            LockSet::Keys(keys) => {
                keys.iter_mut().for_each(|key| key.exclusive = true);
                keys.retain(|key| !locks.is_in_hand(lock_request, *key));
                if keys.is_empty() {
                    return true;
                }
            }
        }
        if let LockSet::Keys(keys) = &set {
            if locks.held_by(lock_request).len() + keys.len() > TOUCHED_MAX {
                set = LockSet::Whole;
            } else if !locks.conflicts(keys) {
                self.extend_free(lock_request, set);
                return true;
            }
        }
        let frame = self.programs.running();
        (frame.wanted, frame.awaits_locks) = (Some(set), true);
        false
    }

    /// A unit has been suspended for the first time: locks its keys, which are free, unless they are locked for it already,
    /// and has those who wait for them give way.
    fn hold_suspended_unit(&mut self, mut frame: Box<Frame>, is_wide: bool) {
        frame.owns_locks = true;
        if frame.lock_request.is_none()
            && let Some(locks) = frame.wanted.take()
        {
            frame.lock_request = self.lock_unit(locks, is_wide);
        }
        // One that waits for more locks has been marked already, because it has the token.
        let to_mark = frame.lock_request.filter(|_| !frame.awaits_locks);
        self.put_aside(frame);
        if let Some(lock_request) = to_mark {
            self.mark_as_program(lock_request);
        }
    }

    /// Locks the keys of a program, which are free. `None`: it has none, and will have none.
    fn lock_unit(&mut self, locks: LockSet, is_wide: bool) -> Option<LockRequestId> {
        if !is_wide && matches!(&locks, LockSet::Keys(keys) if keys.is_empty()) {
            return None;
        }
        let (lock_request, granted) = self.shard.locks.request(locks);
        assert!(granted, "the keys of a unit are free until others run");
        Some(lock_request)
    }

    /// A wide unit takes the token, which is free, because no other program has locks.
    fn hold_token_for(&mut self, frame: &mut Frame, args: Argv<'_>) {
        self.transact.take_free_token();
        frame.holds_token = true;
        self.shard.stats.programs.set_token_holder(Some(program_name(frame.entry, args)));
        if let Some(lock_request) = frame.lock_request {
            self.mark_as_program(lock_request);
        }
    }

    /// Puts a suspended frame where it waits: for its next slice, for the reply to a call, or for locks.
    fn put_aside(&mut self, mut frame: Box<Frame>) {
        match (&frame.role, frame.lock_request) {
            (Role::Stage { checked_out }, _) if frame.awaits_call => {
                self.programs.calling.insert(checked_out.txn, frame);
            }
            (Role::Starting | Role::Unit { .. }, Some(lock_request)) if frame.awaits_locks => {
                let wanted = frame.wanted.take().expect("it knows what it waits for");
                self.programs.awaiting_locks.insert(lock_request, frame);
                self.extend_waiting(lock_request, wanted);
            }
            _ if frame.waits_outside.is_some() => self.programs.waiting.push(frame),
            _ => {
                frame.was_preempted = true;
                self.programs.ready.push_back(frame);
            }
        }
    }

    /// Runs a slice of the first frame that is ready.
    pub(super) fn run_slice_of_next(&mut self) {
        let Some(mut frame) = self.programs.ready.pop_front() else { return };
        frame.was_preempted = false;
        self.serve_due_first();
        // What the turn has done so far is not the program's time.
        self.read_program_clock();
        match self.run_slice(frame) {
            AfterSlice::Ended(frame, done) => match frame.role {
                Role::Stage { .. } => {
                    let ended = self.end_stage_frame(frame, done);
                    self.program_stage_ended(ended);
                }
                Role::Starting | Role::Unit { .. } => self.end_suspended_unit(frame, done),
            },
            AfterSlice::Suspended(frame) => self.put_aside(frame),
        }
        self.deliver_local();
    }

    /// Runs a frame until it is suspended or ends.
    fn run_slice(&mut self, mut frame: Box<Frame>) -> AfterSlice {
        crash::set_current_command(&frame.entry.full_name);
        let fiber = frame.fiber.take().expect("a frame that does not run has its fiber");
        let now_ms = self.shard.now_ms;
        if now_ms != frame.now_ms {
            self.shard.set_now(frame.now_ms);
        }
        frame.slice_began_ticks = self.time.ticks;
        frame.asks_from_ticks = self.time.ticks + self.time.unasked_ticks;
        frame.checked_flags = self.flags_checked_for(frame.kind, frame.call.client);
        frame.user = self.restricted_user_of(&frame.call);
        frame.calls_at_once = self.may_call_at_once(&frame);
        self.enter(&mut frame);
        for bytes in std::mem::take(&mut frame.reads) {
            let hash = hash_key(&bytes);
            self.shard.track_read(&frame.call, Key { bytes: &bytes, hash });
        }
        self.programs.running = Some(frame);
        let stopped = fiber.resume(self);
        let mut frame = self.programs.running.take().expect("it ran");
        self.shard.assert_all_signalled();
        self.count_untimed();
        let has_ended = matches!(stopped, Stopped::Ended(..));
        self.leave(&mut frame, has_ended);
        self.read_program_clock();
        frame.ran_nanos += self.time.nanos_since(frame.slice_began_ticks);
        if now_ms != frame.now_ms {
            self.shard.set_now(now_ms);
        }
        match stopped {
            Stopped::Ended(done, stack) => {
                self.programs.stacks.give(stack);
                AfterSlice::Ended(frame, done)
            }
            Stopped::Suspended(fiber) => {
                frame.fiber = Some(fiber);
                AfterSlice::Suspended(frame)
            }
        }
    }

    /// To be called when the running program is another than before.
    pub(super) fn see_what_may_call_at_once(&mut self) {
        let frame = self.programs.running.as_deref().expect("a program runs");
        let may_call = self.may_call_at_once(frame);
        self.programs.running().calls_at_once = may_call;
    }

    /// See [`Frame::calls_at_once`].
    fn may_call_at_once(&self, frame: &Frame) -> bool {
        let is_wide_stage = matches!(&frame.role, Role::Stage { checked_out } if checked_out.is_wide);
        let is_of_client = frame.kind.is_script() && frame.call.client != 0;
        let has_all_rights = frame.user.is_none() && frame.stopped.is_none();
        let is_watched = frame.call.tracks || self.has_filters() || self.is_monitored();
        is_of_client && has_all_rights && !is_wide_stage && !is_watched && frame.depth == 0
    }

    /// The running program may change the number of keys of a database.
    #[inline]
    pub(super) fn note_growing(&mut self, db: u32) {
        if self.programs.running().growths.iter().any(|growth| growth.db == db) {
            return;
        }
        let len = self.shard.key_count(db);
        self.programs.running().growths.push(Growth { db, len, earlier: 0 });
    }

    /// Before a slice: what the frame works on is where commands look for it.
    fn enter(&mut self, frame: &mut Frame) {
        if let Role::Stage { checked_out } = &frame.role
            && frame.growths.is_empty()
        {
            // While moved keys are in the tables, the shard's own cannot be counted.
            let growth = |db| Growth { db, len: 0, earlier: 0 };
            let keeps_to_db = !checked_out.is_wide && frame.kind.is_script();
            let db = frame.call.db;
            let dbs = if keeps_to_db { db..db + 1 } else { 0..self.shard.db_count() as u32 };
            frame.growths.extend(dbs.map(growth));
        }
        for growth in &mut frame.growths {
            self.shard.hide_growth(growth.db, -growth.earlier);
            growth.len = self.shard.key_count(growth.db);
        }
        match &mut frame.role {
            Role::Starting => frame.is_recorded = self.shard.effects.begin_nested(),
            Role::Unit { .. } if frame.is_recorded => {
                self.shard.effects.resume_local(std::mem::take(&mut frame.open_unit));
            }
            Role::Unit { .. } => {}
            Role::Stage { checked_out, .. } => {
                let CheckedOut {
                    txn, at, is_recorded, keys, entries, are_in_tables, events, brought, ..
                } = &mut **checked_out;
                if !std::mem::take(are_in_tables) {
                    for (keys, entries) in keys.iter().zip(std::mem::take(entries)) {
                        self.shard.receive_checked_out(keys.as_deref().unwrap_or_default(), entries);
                    }
                }
                for Brought { keys, entries, .. } in brought {
                    self.shard.receive_checked_out(keys, std::mem::take(entries));
                }
                self.shard.observers.begin_checked_out(std::mem::take(events));
                if *is_recorded {
                    let (txn, at) = (*txn, *at as u32);
                    self.resume_piece(txn, true);
                    self.shard.effects.set_order(at);
                    // What it records itself is behind what it has called.
                    self.count_call_of(txn);
                }
            }
        }
        self.shard.resume_publishing(std::mem::take(&mut frame.open_messages));
        self.shard.running = frame.lock_request;
    }

    /// After a slice: the shard is as for other work.
    fn leave(&mut self, frame: &mut Frame, has_ended: bool) {
        self.shard.running = None;
        if has_ended {
            self.shard.end_publishing();
        } else {
            frame.open_messages = self.shard.suspend_publishing();
        }
        match &mut frame.role {
            Role::Starting | Role::Unit { .. } if !frame.is_recorded => {}
            Role::Starting | Role::Unit { .. } if has_ended => self.shard.effects.end_local(),
            Role::Starting | Role::Unit { .. } => frame.open_unit = self.shard.effects.suspend_local(),
            Role::Stage { checked_out, .. } => {
                if checked_out.is_recorded {
                    self.shard.effects.suspend_piece();
                }
                checked_out.events = self.shard.observers.end_checked_out();
                if has_ended && checked_out.has_more {
                    checked_out.are_in_tables = true;
                } else {
                    self.take_out_of_tables(checked_out);
                }
                for Brought { keys, entries, .. } in &mut checked_out.brought {
                    *entries = self.shard.send_checked_out_back(keys);
                }
            }
        }
        if has_ended {
            return;
        }
        for growth in &mut frame.growths {
            if frame.awaits_call {
                // A command that it has called, and that counts keys, counts its own, too.
                growth.earlier = 0;
                continue;
            }
            growth.earlier += self.shard.key_count(growth.db) as isize - growth.len as isize;
            self.shard.hide_growth(growth.db, growth.earlier);
        }
    }

    /// Takes the entries of checked-out keys out of the tables of this shard, which shows only its own then.
    pub(in crate::worker) fn take_out_of_tables(&mut self, checked_out: &mut CheckedOut) {
        let take_out = |keys: &Option<Vec<CheckedOutKey>>| {
            self.shard.send_checked_out_back(keys.as_deref().unwrap_or_default())
        };
        checked_out.entries = checked_out.keys.iter().map(take_out).collect();
    }

    /// For a program of a wide transaction: the keys that were brought to it.
    pub(in crate::worker) fn brought(&mut self) -> Option<&mut Vec<Brought>> {
        match &mut self.programs.running().role {
            Role::Stage { checked_out } if checked_out.is_wide => Some(&mut checked_out.brought),
            Role::Stage { .. } | Role::Starting | Role::Unit { .. } => None,
        }
    }

    /// Entries have come for the program of a wide transaction, which waits for them.
    pub(in crate::worker) fn program_got(&mut self, txn: TxnId, brought: Vec<Brought>) {
        let frame = self.programs.calling.get_mut(&txn).expect("a program waits for the entries");
        let Role::Stage { checked_out } = &mut frame.role else {
            unreachable!("a program of a transaction is a stage of it");
        };
        checked_out.brought = brought;
    }

    /// For a program of a wide transaction: as whom it calls commands.
    pub(in crate::worker) fn wide_caller(&mut self) -> Option<WideCaller> {
        let frame = self.programs.running();
        match &frame.role {
            Role::Stage { checked_out } if checked_out.is_wide => {
                let CheckedOut { txn, at, is_recorded, .. } = **checked_out;
                let (place, now_ms) = (at as u32, frame.now_ms);
                Some(WideCaller { txn, place, is_recorded, readers: Readers::ALL, now_ms })
            }
            Role::Stage { .. } | Role::Starting | Role::Unit { .. } => None,
        }
    }

    /// The reply has come to a command that a program of transaction `txn` has called. The program goes on before others,
    /// because they may wait for it.
    pub(in crate::worker) fn program_called(
        &mut self,
        txn: TxnId,
        reply: Vec<u8>,
        mut messages: OpenMessages,
    ) {
        let mut frame = self.programs.calling.remove(&txn).expect("a program waits for the call");
        frame.called_reply = reply;
        frame.open_messages.append(&mut messages);
        self.programs.ready.push_front(frame);
    }

    /// Whether the running program has had the shard for long enough. The clock was read just now.
    /// `declared`: its arguments.
    pub(super) fn ends_slice(&mut self, declared: Argv<'_>) -> bool {
        let &mut Frame { slice_began_ticks, ran_nanos, .. } = self.programs.running();
        let slice_nanos = self.time.nanos_since(slice_began_ticks);
        self.becomes_busy(ran_nanos + slice_nanos, declared) || self.time.clock.ends_slice(slice_nanos)
    }

    /// Reads the clock: what follows is not the time of what was before.
    #[inline]
    pub(super) fn read_program_clock(&mut self) {
        self.time.ticks = self.time.now_ticks();
    }

    /// Counts a program that has ended.
    fn count_program(&mut self, frame: &Frame, done: &Done) {
        if frame.is_misplaced {
            return;
        }
        // What stands in the place of a plain command has run that, which was shown and counted.
        let stands_for_plain = frame.entry.plain.is_some();
        if !frame.is_shown && !stands_for_plain && self.is_monitored() {
            self.show_program_call(frame.entry, frame.kind, &frame.call, done.args.as_argv());
        }
        if let Some(kind) = frame.busy_as {
            self.ends_busy(kind);
        }
        let entry = frame.entry;
        let stats = &self.shard.stats;
        if frame.has_left_keys || frame.calls_elsewhere > 0 {
            let counts = ProgramCounts {
                left_keys: u64::from(frame.has_left_keys),
                calls_elsewhere: u64::from(frame.calls_elsewhere),
                ..ProgramCounts::default()
            };
            stats.programs.count(program_name(entry, done.args.as_argv()), &counts);
        }
        let command = stats.command(entry.id);
        // How long a held client has taken is known in the end.
        command.record(frame.ran_nanos, self.shard.config.latency_tracking && !frame.holds_client);
        stats.commands_processed.add(u64::from(!stands_for_plain));
        if let Err(error) = &done.result {
            command.failed.add(1);
            stats.error(error.code());
        }
        if frame.ran_nanos >= self.time.noted_from_nanos {
            let redacted = frame.redacted_args(done.args.as_argv());
            let args = redacted.as_ref().map_or(done.args.as_argv(), OwnedArgv::as_argv);
            self.note_slow(args, frame.ran_nanos, &frame.call, entry);
        }
    }

    /// Ends a unit. Returns its reply.
    fn end_unit(&mut self, frame: Box<Frame>, done: Done) -> Vec<u8> {
        self.count_program(&frame, &done);
        if frame.owns_locks
            && let Some(lock_request) = frame.lock_request
        {
            self.release(lock_request);
        }
        if frame.holds_token {
            self.shard.stats.programs.set_token_holder(None);
            self.return_token();
        }
        self.programs.give_frame(frame);
        let Done { args, reply, .. } = done;
        self.programs.give_args(args);
        reply
    }

    fn end_suspended_unit(&mut self, mut frame: Box<Frame>, done: Done) {
        let Role::Unit { home, reply_id } = frame.role else {
            unreachable!("a unit that was suspended knows its client");
        };
        match frame.hold.take() {
            None => self.answer(home, reply_id, &done.reply),
            Some(hold) => self.begin_hold(reply_id, frame.entry, frame.call, done.args.clone(), hold),
        }
        let reply = self.end_unit(frame, done);
        self.pools.give_buffer(reply);
    }

    fn end_stage_frame(&mut self, mut frame: Box<Frame>, done: Done) -> EndedStage {
        self.count_program(&frame, &done);
        let role = std::mem::replace(&mut frame.role, Role::Starting);
        let Role::Stage { checked_out, .. } = role else {
            unreachable!("the caller has seen that it is a stage")
        };
        let (ran_nanos, is_misplaced, hold) = (frame.ran_nanos, frame.is_misplaced, frame.hold.take());
        self.programs.give_frame(frame);
        let Done { args, reply, .. } = done;
        self.programs.give_args(args);
        EndedStage { checked_out, reply, ran_nanos, is_misplaced, hold }
    }
}
