//! Tasks: programs that no client has called, for what a module does at a timer, on an event, or on a thread of its own.
//!
//! A task is a wide program under a row that no client can call. So what it calls goes the way of every program's calls, and
//! its effects are one unit. Its reply goes to nobody, as that of a client which has disconnected, or to a client that is
//! [held](super::hold). Tasks start at the end of a turn, between units.
//!
//! Threads that are no shard's hand tasks over through [`Outside`], and a task may wait there for its thread
//! ([`ProgramCtx::wait_outside`]): suspended, with all that it holds.

use super::hold::HoldId;
use super::removal::{EVICT, EXPIRE};
use super::{ProgramCtx, ProgramHandler, ProgramKind, Reach};
use crate::client::ClientId;
use crate::command::docs::Docs;
use crate::command::table::{Command, flag};
use crate::command::{Call, CommandResult};
use crate::protocol::OwnedArgv;
use crate::protocol::number::parse_i64;
use crate::shard::message::ReplyId;
use crate::worker::Worker;
use crate::worker::run::{Invocation, ReplyTo, Started};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What a task does, on the shard that it was given to.
pub type Task = Box<dyn FnOnce(&mut ProgramCtx<'_>) + Send>;

/// The row of tasks.
pub const TASKS: &[Command] = &[TASK, EVICT, EXPIRE];

const TASK: Command = Command::program(TASK_NAME, 2, &TASK_HANDLER)
    .flags(flag::NOSCRIPT | flag::MAY_REPLICATE | flag::SKIP_SLOWLOG)
    .hidden()
    .docs(
        Docs::new("server", "7.0.0", "Runs what no client has called")
            .complexity("Depends on the task.")
            .internal(),
    );

const TASK_NAME: &str = "task";

static TASK_HANDLER: ProgramHandler = ProgramHandler {
    kind: ProgramKind::Module,
    flags: |_, flags, _| flags,
    name: |_| None,
    reach: |_, _| Reach::Any { is_read_only: false },
    made_keys: |_, _| None,
    may_publish: |_, _| true,
    run: run_task,
    data: &(),
};

/// TASK number. Reply: what the task replies, if it is for a client.
fn run_task(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let number = parse_i64(ctx.arg(1)).expect("start_task has written it") as u64;
    let task = ctx.worker().programs.tasks.remove(&number).expect("a task runs once");

    task(ctx);
    Ok(())
}

/// A task that has not begun.
pub(super) struct DueTask {
    reply_id: ReplyId,
    /// Of the client that gets its reply.
    call: Call,
    task: Task,
}

impl Worker {
    /// Has a task start at the end of the turn.
    pub fn add_task(&mut self, task: Task) {
        self.add_task_for(ReplyId::NOBODY, Call::default(), task);
    }

    /// The same on behalf of a client, which need not be there.
    pub(in crate::worker) fn add_task_as(&mut self, client: ClientId, task: Task) {
        self.add_task_for(ReplyId::NOBODY, Call { client, ..Call::default() }, task);
    }

    /// The same for a task that replies to a held client.
    pub(super) fn add_task_for(&mut self, reply_id: ReplyId, call: Call, task: Task) {
        self.programs.due_tasks.push(DueTask { reply_id, call, task });
    }

    /// Starts the tasks that are due. They may be suspended, and end later. Those that they make due start in the next turn:
    /// they may go on and on.
    pub(in crate::worker) fn run_due_tasks(&mut self) {
        self.take_from_outside();
        for due in std::mem::take(&mut self.programs.due_tasks) {
            self.start_task(due);
        }
    }

    fn start_task(&mut self, due: DueTask) {
        let DueTask { reply_id, call, task } = due;
        self.programs.task_count += 1;
        let number = self.programs.task_count;
        self.programs.tasks.insert(number, task);
        let entry = self.table.hidden(TASK_NAME);
        let mut args = OwnedArgv::default();
        args.push_arg(TASK_NAME.as_bytes());
        args.push_arg(itoa::Buffer::new().format(number).as_bytes());
        let call = Call { command: entry.id, ..call };
        if self.shard.shard_count > 1 {
            self.begin_task(reply_id, entry, call, args.as_argv());
            return;
        }
        self.serve_due_first();
        let mut reply = self.pools.take_buffer();
        let to = ReplyTo::Place { home: self.shard.index, reply_id };
        let started = self.start(&Invocation::new(entry, &call, args.as_argv(), None), to, &mut reply);
        if started == Started::Replied {
            self.fulfil(reply_id, &reply);
        }
        self.pools.give_buffer(reply);
        self.deliver_local();
    }

    /// Takes what other threads have handed over: tasks, the ends of holds, and what waits for them goes on.
    fn take_from_outside(&mut self) {
        let outside = &self.globals.outside[self.shard.index];
        if !outside.has_some.swap(false, Ordering::Acquire) {
            return;
        }
        let Inbox { tasks, ready, released } = std::mem::take(&mut *outside.inbox());
        for ticket in ready {
            // One that is not found has not begun to wait, and looks for itself before it does.
            let waiting = &mut self.programs.waiting;
            if let Some(at) = waiting.iter().position(|frame| frame.waits_outside == Some(ticket)) {
                let frame = waiting.swap_remove(at);
                self.programs.ready.push_back(frame);
            }
        }
        for id in released {
            self.release_hold(id);
        }
        tasks.into_iter().for_each(|task| self.add_task(task));
    }
}

/// A number for [`ProgramCtx::wait_outside`] that nobody else in the process has.
pub fn new_ticket() -> u64 {
    static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);
    NEXT_TICKET.fetch_add(1, Ordering::Relaxed)
}

impl ProgramCtx<'_> {
    /// Suspends the program until [`Outside::resume`] is called with this ticket. It may return earlier, too.
    pub fn wait_outside(&mut self, ticket: u64) {
        let worker = self.lent.worker();
        worker.read_program_clock();
        let began_ticks = worker.time.ticks;
        worker.programs.running().waits_outside = Some(ticket);
        self.suspend();
        let worker = self.lent.worker();
        let nanos = worker.time.nanos_since(began_ticks);
        let frame = worker.programs.running();
        frame.waits_outside = None;
        if frame.kind == ProgramKind::Module {
            // Code of the module's runs there.
            frame.ran_nanos += nanos;
        }
    }
}

/// What threads that are no shard's have handed over to a shard.
#[derive(Default)]
pub struct Outside {
    inbox: Mutex<Inbox>,
    /// There is something in it: what the shard looks at each turn.
    has_some: AtomicBool,
    /// Wakes the shard.
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Inbox {
    tasks: Vec<Task>,
    /// The tickets of those that can go on.
    ready: Vec<u64>,
    released: Vec<HoldId>,
}

impl Outside {
    /// Sets how the shard is woken. Without, it looks at each of its turns.
    pub fn set_bell(&self, bell: Box<dyn Fn() + Send + Sync>) {
        // A shard is given its bell once.
        let _ = self.bell.set(bell);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the shard start a task.
    pub fn start(&self, task: Task) {
        self.inbox().tasks.push(task);
        self.ring();
    }

    /// Has a task go on that waits with this ticket.
    pub fn resume(&self, ticket: u64) {
        self.inbox().ready.push(ticket);
        self.ring();
    }

    /// Ends the hold of one of the shard's clients, if it has not ended.
    pub fn release(&self, id: HoldId) {
        self.inbox().released.push(id);
        self.ring();
    }

    fn ring(&self) {
        self.has_some.store(true, Ordering::Release);
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }
}
