//! What the handler of a program sees.

use super::call::{Callee, NotCalled};
use super::frame::handler_of;
use super::stack::Lent;
use super::{ProgramKind, Reach};
use crate::acl::User;
use crate::command::Call;
use crate::command::table::CommandEntry;
use crate::protocol::{Argv, OwnedArgv, Reply, Resp};
use crate::shard::effects::{OpenUnit, Readers};
use crate::shard::event::Event;
use crate::shard::observe::{KEY_EVENTS_CLIENT, KeyNotice};
use crate::worker::Worker;
use std::any::Any;
use std::sync::Arc;

/// What a program gets: its arguments, the reply to write, the worker, and a way to call commands.
pub struct ProgramCtx<'a> {
    pub call: &'a Call,
    pub args: Argv<'a>,
    pub reply: Reply<'a>,
    /// That of its [`ProgramHandler`](super::ProgramHandler).
    pub data: &'static (dyn Any + Send + Sync),
    /// The arguments of the program that the frame was made for: its own, unless another program has called it.
    pub(super) outermost: Argv<'a>,
    pub(super) lent: Lent<'a>,
}

/// How a program calls a command.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// The protocol version of the reply.
    pub resp: Resp,
    /// For whom the command's writes are recorded as effects.
    pub readers: Readers,
    /// A command that writes is refused.
    pub is_read_only: bool,
    /// The command may run when memory is full.
    pub allows_oom: bool,
    /// The command is refused if scripts may not call it, or if it could not run in a script now.
    pub is_as_script: bool,
}

/// Whether a program may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Control {
    GoOn,
    /// It has to end now, with this error: it was killed, or its run must not count. It is told so again at each further
    /// tick and call, until it has returned.
    Stop(&'static str),
}

impl<'a> ProgramCtx<'a> {
    /// Argument `index`. Panics past the end, so it is called only after an arity or length check.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// The worker. What is kept of it does not outlive the next call or tick, in which other work may run.
    pub fn worker(&mut self) -> &mut Worker {
        self.lent.worker()
    }

    /// Whether what has this reach may run here. If not, it came to be after the call was placed, when there was nothing of
    /// its name, or something that keeps to its declared keys: its keys are not all here. The caller ends, and the call is
    /// placed again. In an EXEC, whose other commands may have run, its error is the reply, as if there were nothing: that is
    /// so only if something else had its name when the EXEC was placed.
    pub fn reaches(&mut self, reach: Reach) -> bool {
        let worker = self.lent.worker();
        let has_made_keys = worker.programs.running().has_made_keys;
        let reaches = match reach {
            Reach::Declared => true,
            Reach::Made { .. } if has_made_keys => true,
            Reach::Made { .. } | Reach::Any { .. } | Reach::Unknown => {
                worker.shard.shard_count == 1 || worker.wide_caller().is_some()
            }
        };
        if !reaches && !self.call.in_exec {
            worker.programs.running().is_misplaced = true;
        }
        reaches
    }

    /// Calls the command `args`, which has at least a name, and appends its reply to `reply`. It may be an error: also of a
    /// command that does not exist, or that the program may not call. The program may be suspended meanwhile.
    pub fn call(&mut self, args: &[&[u8]], options: CallOptions, reply: &mut Vec<u8>) -> Control {
        let args = self.lent.worker().programs.copy_args(args.iter().copied());
        let control = self.call_argv(args.as_argv(), options, reply);
        self.lent.worker().programs.give_args(args);
        control
    }

    /// The same with arguments that lie together already.
    pub fn call_argv(&mut self, args: Argv<'_>, options: CallOptions, reply: &mut Vec<u8>) -> Control {
        if self.call_at_once(args, options, reply) {
            return self.end_call();
        }
        let called = self.call_by(options, reply, |worker, declared, options, reply| {
            worker.call_for_program(declared, args, options, reply)
        });
        match called {
            Ok(control) => control,
            Err(refused) => {
                let error = refused.into_script_error();
                self.lent.worker().shard.stats.error(error.code());
                Reply::new(reply, options.resp).error(error.as_bytes());
                self.end_slice();
                self.control()
            }
        }
    }

    /// Calls a command that nothing stands in the way of, as of most that scripts call. Returns whether it is one.
    #[inline]
    fn call_at_once(&mut self, args: Argv<'_>, options: CallOptions, reply: &mut Vec<u8>) -> bool {
        let declared = self.outermost;
        self.lent.worker().call_at_once(declared, args, &options, reply)
    }

    /// As [`call`](ProgramCtx::call), for callers that say in their own words why a command was not called.
    ///
    /// # Errors
    /// The command was not called.
    pub fn try_call(
        &mut self,
        args: &[&[u8]],
        options: CallOptions,
        reply: &mut Vec<u8>,
    ) -> Result<Control, NotCalled> {
        let args = self.lent.worker().programs.copy_args(args.iter().copied());
        let called = self.call_by(options, reply, |worker, declared, options, reply| {
            worker.call_for_program(declared, args.as_argv(), options, reply)
        });
        self.lent.worker().programs.give_args(args);
        called
    }

    /// Runs what the program's own command was before its row was replaced (see
    /// [`CommandTable::replacing`](crate::command::table::CommandTable::replacing)), with the same arguments. Its reply, which may
    /// be an error, is appended to `reply`. The program may be suspended meanwhile.
    pub fn call_plain(&mut self, reply: &mut Vec<u8>) -> Control {
        let (call, args) = (*self.call, self.args);
        let plain = self.worker().table.entry(call.command).plain.expect("its row was replaced");
        let options = CallOptions {
            resp: call.resp,
            readers: Readers::ALL,
            is_read_only: false,
            allows_oom: true,
            is_as_script: false,
        };
        let called = self.call_by(options, reply, |worker, declared, options, reply| {
            worker.run_plain_for_program(declared, plain, args, &options, reply);
            Ok(None)
        });
        called.unwrap_or_else(|_| unreachable!("it is called whatever it is"))
    }

    /// Runs a command that no client can call, over keys that the program has declared. Its reply, which may be an error, is
    /// appended to `reply`. The program may be suspended meanwhile.
    pub fn call_hidden(&mut self, args: &[&[u8]], reply: &mut Vec<u8>) -> Control {
        let options = CallOptions {
            resp: Resp::V2,
            readers: Readers::ALL,
            is_read_only: false,
            allows_oom: true,
            is_as_script: false,
        };
        let args = OwnedArgv::from_slices(args);
        let called = self.call_by(options, reply, |worker, declared, options, reply| {
            worker.run_hidden_for_program(declared, args.as_argv(), &options, reply);
            Ok(None)
        });
        called.unwrap_or_else(|_| unreachable!("it is called whatever it is"))
    }

    /// Does something, and has what that has done to keys told before this returns, if somebody wants to be told and the program
    /// may come to any key. What is done then comes before the effects of `act`, as it does in Redis, which tells at once.
    /// `readers`: for whom it leaves effects.
    pub fn told_within<T>(&mut self, readers: Readers, act: impl FnOnce(&mut Self) -> T) -> T {
        let worker = self.lent.worker();
        let tells = worker.shard.observers.told_classes() != 0;
        if !tells || !(worker.programs.running().is_wide_unit || worker.wide_caller().is_some()) {
            return act(self);
        }
        let earlier = worker.shard.observers.take_notices();
        let open_len = worker.shard.effects.open_len();
        let result = act(self);
        let observers = &mut self.lent.worker().shard.observers;
        let notices = observers.take_notices();
        observers.return_notices(earlier);
        if !notices.is_empty() {
            self.tell_keys(notices, open_len, readers);
        }
        result
    }

    /// Tells of what has been done to keys since the open unit had so many effects.
    fn tell_keys(&mut self, notices: Vec<KeyNotice>, open_len: usize, readers: Readers) {
        let worker = self.lent.worker();
        let Some(on_events) = worker.globals.hooks.on_key_events() else { return };
        let mut own = worker.shard.effects.take_from(open_len);
        let frame = worker.programs.running();
        let outer_readers = std::mem::replace(&mut frame.readers, readers);
        let outer_client = std::mem::replace(&mut frame.call.client, KEY_EVENTS_CLIENT);
        for notice in notices {
            let is_expired = notice.event == Event::EXPIRED;
            on_events(self, vec![notice]);
            if is_expired {
                // The key was removed before what else the command has done.
                let removal = own.take_removal();
                self.give_effects_back(removal);
            }
        }
        let frame = self.lent.worker().programs.running();
        (frame.readers, frame.call.client) = (outer_readers, outer_client);
        self.give_effects_back(own);
    }

    fn give_effects_back(&mut self, unit: OpenUnit) {
        let worker = self.lent.worker();
        let call_number = worker.next_call_number();
        worker.shard.effects.give_back(unit, call_number);
    }

    /// Calls what `place` runs, or sends to where its keys are; what that has done to keys is told before it returns.
    fn call_by(
        &mut self,
        options: CallOptions,
        reply: &mut Vec<u8>,
        place: impl FnMut(&mut Worker, Argv<'_>, CallOptions, &mut Vec<u8>) -> Result<Option<Callee>, NotCalled>,
    ) -> Result<Control, NotCalled> {
        let options = CallOptions { readers: options.readers.both(self.readers()), ..options };
        self.told_within(options.readers, |program| program.call_placed(options, reply, place))
    }

    fn call_placed(
        &mut self,
        options: CallOptions,
        reply: &mut Vec<u8>,
        mut place: impl FnMut(
            &mut Worker,
            Argv<'_>,
            CallOptions,
            &mut Vec<u8>,
        ) -> Result<Option<Callee>, NotCalled>,
    ) -> Result<Control, NotCalled> {
        let outermost = self.outermost;
        let worker = self.lent.worker();
        if let Some(text) = worker.programs.running().stopped {
            return Ok(Control::Stop(text));
        }
        let mut callee = place(worker, outermost, options, reply)?;
        while self.lent.worker().programs.running().awaits_locks {
            self.suspend();
            if let Control::Stop(text) = self.control() {
                return Ok(Control::Stop(text));
            }
            callee = place(self.lent.worker(), outermost, options, reply)?;
        }
        if let Some(Callee { entry, args }) = callee {
            self.run_called(entry, args, options, reply);
        }
        if self.lent.worker().programs.running().awaits_call {
            self.suspend();
            let frame = self.lent.worker().programs.running();
            frame.awaits_call = false;
            reply.append(&mut frame.called_reply);
            Ok(self.control())
        } else {
            Ok(self.end_call())
        }
    }

    /// A command has been called. The clock was read when it ended, or when one ended a few calls before, if this one was not timed.
    #[inline]
    fn end_call(&mut self) -> Control {
        let worker = self.lent.worker();
        if worker.time.ticks >= worker.programs.running().asks_from_ticks {
            self.end_slice();
        }
        self.control()
    }

    /// Runs a program that this one has called, on the same stack.
    fn run_called(
        &mut self,
        entry: &'static CommandEntry,
        args: OwnedArgv,
        options: CallOptions,
        reply: &mut Vec<u8>,
    ) {
        let handler = handler_of(entry).expect("the caller has seen that it is a program");
        let (call, caller) = self.lent.worker().enter_called(entry, handler.kind, &options);
        let start = reply.len();
        let mut called = ProgramCtx {
            call: &call,
            args: args.as_argv(),
            reply: Reply::new(reply, options.resp),
            data: handler.data,
            outermost: self.outermost,
            lent: self.lent.relend(),
        };
        let result = (handler.run)(&mut called);
        let lent = called.lent;
        self.lent.take_back(lent);
        if let Err(error) = &result {
            reply.truncate(start);
            Reply::new(reply, options.resp).error(error.as_bytes());
        }
        let worker = self.lent.worker();
        worker.leave_called(entry, args.as_argv(), caller, &result);
        worker.programs.give_args(args);
    }

    /// For whom anything that the program does may leave effects: whoever has called it may have wanted it otherwise.
    pub fn readers(&mut self) -> Readers {
        self.lent.worker().programs.running().readers
    }

    /// Whether another program has called this one.
    pub fn is_called(&mut self) -> bool {
        self.lent.worker().programs.running().depth > 0
    }

    /// Whether an EXEC has started it, or what has called it.
    pub fn is_in_exec(&mut self) -> bool {
        self.lent.worker().programs.running().is_in_exec
    }

    /// Selects a database for the program, and not for its client.
    pub fn select(&mut self, db: u32) {
        self.lent.worker().programs.running().call.db = db;
    }

    /// The program's client has logged in as another user: one that has a name of its own, or the default one.
    pub fn note_named_user(&mut self, is_named: bool) {
        let worker = self.lent.worker();
        worker.programs.running().call.has_named_user = is_named;
        let call = worker.programs.running().call;
        worker.programs.running().user = worker.restricted_user_of(&call);
    }

    /// Calls of programs within `act` are made by the rights of this user; without, their rights are not checked.
    pub fn as_user<T>(&mut self, user: Option<Arc<User>>, act: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.lent.worker().programs.running().called_as, user);
        let result = act(self);
        self.lent.worker().programs.running().called_as = outer;
        result
    }

    /// The arguments of the client's command at these positions are not shown in the slow log. Nothing is shown of those of a
    /// command that another program has called.
    pub fn redact(&mut self, positions: &[usize]) {
        if !self.is_called() {
            self.lent.worker().programs.running().redacted.extend_from_slice(positions);
        }
    }

    /// Has a key here, if it is of another shard: see [`Worker::bring_key`]. Returns whether the program has to wait for it,
    /// by [`await_brought`](ProgramCtx::await_brought).
    pub fn bring(&mut self, db: u32, key: &[u8]) -> bool {
        let worker = self.lent.worker();
        worker.shard.shard_count > 1 && worker.bring_key(db, key)
    }

    /// The same of several keys of one database.
    pub fn bring_all(&mut self, db: u32, keys: &[&[u8]]) -> bool {
        let worker = self.lent.worker();
        worker.shard.shard_count > 1 && worker.bring_keys(db, keys)
    }

    /// Waits for the keys that [`bring`](ProgramCtx::bring) has sent for. The program is suspended meanwhile.
    pub fn await_brought(&mut self) {
        self.suspend();
        self.lent.worker().programs.running().awaits_call = false;
    }

    /// To be called now and then by a program that computes. The program may be suspended meanwhile.
    pub fn tick(&mut self) -> Control {
        self.lent.worker().read_program_clock();
        self.end_slice();
        self.control()
    }

    /// Lets the shard do other work, and goes on when it is the program's turn again. `busy_reply`: what others are told once it
    /// is over busy-reply-threshold; empty: what Redis tells them; `None`: they wait for what it has locked, and on one shard for
    /// its end, however long it takes.
    pub fn give_way(&mut self, busy_reply: Option<&[u8]>) {
        let outermost = self.outermost;
        let worker = self.lent.worker();
        worker.read_program_clock();
        if let Some(text) = busy_reply {
            worker.globals.busy_programs.set_reply(text);
            worker.ends_slice(outermost);
        }
        self.suspend_before_clients();
    }

    /// Suspends the program. On a server of one shard it has locked all keys, and, as in Redis, nothing at all is done for clients
    /// before it goes on, unless it is over busy-reply-threshold: modules may rely on that.
    fn suspend_before_clients(&mut self) {
        let worker = self.lent.worker();
        let frame = worker.programs.running();
        let is_before = frame.kind == ProgramKind::Module && frame.busy_as.is_none();
        let count = usize::from(is_before && worker.shard.shard_count == 1);
        worker.programs.before_clients += count;
        self.suspend();
        self.lent.worker().programs.before_clients -= count;
    }

    /// Whether it was started as one that touches no keys but those that it declares. One that another program has called may
    /// touch what that may.
    pub fn is_narrow(&mut self) -> bool {
        let worker = self.lent.worker();
        let frame = worker.programs.running();
        frame.depth == 0 && !frame.is_wide_unit && worker.wide_caller().is_none()
    }

    /// Suspends the program if it has had the shard for long enough. Code of modules is not suspended for that: it may rely
    /// on nothing else of its module running meanwhile.
    fn end_slice(&mut self) {
        let declared = self.args;
        let worker = self.lent.worker();
        if worker.programs.running().kind != ProgramKind::Module && worker.ends_slice(declared) {
            self.suspend();
        }
    }

    fn control(&mut self) -> Control {
        match self.lent.worker().programs.running().stopped {
            Some(text) => Control::Stop(text),
            None => Control::GoOn,
        }
    }

    pub(super) fn suspend(&mut self) {
        let outermost = self.outermost;
        self.lent.worker().show_program(outermost);
        self.lent.worker().want_locks(outermost);
        self.lent.suspend();
    }
}
