//! Programs: commands that call other commands, as scripts, functions and module commands do.
//!
//! A program runs on the shard of its keys, like any command over keys; keys of several shards are checked out to the
//! client's home. The commands that it calls go through the same table, admission and handlers as a client's, and their
//! effects are one unit.
//!
//! # Frames
//!
//! A program has a [stack of its own](stack), so that it can stop in the middle: it is suspended, its shard does other
//! work, and it is resumed later. Its run is a [`Frame`](frame::Frame). Nearly always a frame ends within the unit that
//! started it; then it has taken no lock and no allocation (stacks and buffers are pooled), and its reply is where a plain
//! command's would be.
//!
//! A frame is either a unit of its shard (a program by itself), or a stage of a transaction (a program with keys on
//! several shards, or any program in an EXEC: see [`Placement::CheckOut`]). Programs in a coalesced pipeline are one stage: they run
//! one after the other over the keys of all of them. When they have had the shard for long enough together, these go back, and
//! the others run one by one, so that nobody waits for the keys of a program that waits itself.
//!
//! # Programs that call programs
//!
//! A module's command may call scripts, and commands of modules, and a script may call a module's command. The one that is
//! called runs on the caller's frame and stack. What it touches was the caller's to touch, so such a caller is wide.
//!
//! A command of the server's own that waits for something outside of it is a program, too ([`ProgramKind::Command`]): MIGRATE. It
//! keeps to its declared keys, and any program may call it like a plain command. What it does to keys is done by commands that
//! nobody else can call ([`ProgramCtx::call_hidden`]).
//!
//! # Slices
//!
//! A program has the shard for about a millisecond at a time ([`Clock::ends_slice`](crate::runtime::clock::Clock::ends_slice)).
//! It is asked at every [`ProgramCtx::tick`] and after each command that a script has called. Then it is suspended, and goes to
//! the end of the shard's queue of ready frames. A turn runs one slice, of the first frame in the queue: where it has used up its
//! last one, when what the turn has produced was sent, so that no reply waits for it; and otherwise between messages
//! and clients; the driver does not sleep while there is any.
//!
//! # Why nobody sees half a program
//!
//! *Its keys are locked.* A unit runs only if its keys are free, or locked for it. Until its first suspension nothing else
//! runs on the shard. At that moment the frame takes the locks of its keys, which are free still, and keeps them to its
//! end. If it is wide, these are the keys that it has touched so far, and later ones are locked as it comes to them: see
//! [`token`](crate::shard::token). Whoever wants one of them, or the whole keyspace, waits in the [lock table](crate::shard::lock). A frame that is a
//! stage runs under its transaction's locks. While it is suspended the checked-out entries lie in the frame and not in the
//! tables, so the shard shows only its own keys, and those that are checked out count where they belong.
//!
//! *It sees one moment.* All slices of a frame run at the time at which it began: a key that expires while it is under way
//! does so after its end. (Locked keys are not expired by others.) As the keys of a narrow program are locked from the
//! beginning to the end, it takes effect at the moment of its beginning; so the later requests of its connection, which need
//! not wait for it, are behind it in any order. A wide one takes effect when it holds the last of its locks, and they wait.
//!
//! *Its effects are one unit.* They are taken out of the shard's effects at a suspension and put back at the next slice.
//! Nobody attaches to the stream meanwhile, because that locks the whole keyspace.
//!
//! *Its keys are handed off after its end.* If clients are blocked on keys of the shard, a frame takes its locks at its
//! beginning. A key that it changes is locked for the clients blocked on it by a part that is split off those locks, and is
//! offered to them only when the rest has been released (see [`blocking`](crate::shard::blocking)).
//!
//! # Why there is no deadlock
//!
//! A narrow frame waits for nothing: it holds all locks that it will ever need, and is ready to run at any time. Who waits
//! for its locks waits for its end, as for the end of a transaction past its lock point. A wide one may wait for locks while
//! it holds others, because it has the token. That it changes nothing makes no difference: it sees one moment only if it keeps
//! what it has read locked, and two that read, or one that reads and a writer, would wait for each other.
//!
//! [`Placement::CheckOut`]: crate::command::placement::Placement::CheckOut

mod busy;
mod call;
mod ctx;
mod frame;
mod hold;
pub mod made;
mod ready;
mod removal;
mod sample;
mod shown;
mod stack;
mod task;

pub use crate::command::admission::ProgramKind;
pub use crate::shard::program_stats::ProgramName;
pub use busy::{BusyPrograms, Killed, merge_killed};
pub use call::NotCalled;
pub use ctx::{CallOptions, Control, ProgramCtx};
pub use frame::redact;
pub use hold::{HoldEnd, HoldId, HoldOn, KEY_WAITS, OnHoldEnd, OnKeyReady, WaitForKeys};
pub use made::MadeKeys;
pub use task::{Outside, TASKS, Task, new_ticket};

pub(in crate::worker) use frame::{Brought, CheckedOut, EndedStage, program_name};
pub(in crate::worker) use hold::Hold;

use super::Worker;
use crate::command::CommandResult;
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::lock::LockRequestId;
use crate::shard::txn::TxnId;
use ahash::AHashMap;
use frame::Frame;
use std::any::Any;
use std::collections::VecDeque;

/// The handler of a program, as [`Run::Program`](crate::command::table::Run) holds it.
pub struct ProgramHandler {
    pub kind: ProgramKind,
    /// The flags by which [admission](crate::command::admission) judges a call: the row's, which it gets, unless what is to
    /// run has others.
    pub flags: fn(worker: &mut Worker, row_flags: u64, args: Argv<'_>) -> u64,
    /// What it is called in statistics and logs; `None`: by the name of its command.
    pub name: fn(args: Argv<'_>) -> Option<ProgramName>,
    /// What is known before a run about the keys that it may touch.
    pub reach: fn(worker: &mut Worker, args: Argv<'_>) -> Reach,
    /// For one that [makes](Reach::Made) keys: these. `None`: they are not known after all.
    pub made_keys: fn(worker: &mut Worker, args: Argv<'_>) -> Option<MadeKeys>,
    /// Whether it may send messages to channels: then it does not run before what its client has sent before it.
    pub may_publish: fn(worker: &mut Worker, args: Argv<'_>) -> bool,
    pub run: fn(&mut ProgramCtx<'_>) -> CommandResult,
    /// What distinguishes it from other programs with the same functions: [`ProgramCtx::data`].
    pub data: &'static (dyn Any + Send + Sync),
}

/// Which keys a program may touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Those that it declares, and no others: it is *narrow*.
    Declared,
    /// Those that it declares, and others that are known before it runs: see [`made`]. `is_read_only`: it changes nothing.
    Made { is_read_only: bool },
    /// Any: it is *wide*.
    Any { is_read_only: bool },
    /// There is nothing of its name now. In an EXEC a command before it may bring it.
    Unknown,
}

impl Reach {
    /// Whether it may touch keys that it does not declare.
    pub fn is_wide(self) -> bool {
        matches!(self, Reach::Made { .. } | Reach::Any { .. })
    }
}

/// The programs of a worker.
#[derive(Default)]
pub(super) struct Programs {
    /// The frame that runs at the moment.
    running: Option<Box<Frame>>,
    /// The frames that are suspended, in the order in which they run next.
    ready: VecDeque<Box<Frame>>,
    /// A slice of a frame that has used up its last one is a turn of its own: see [`Worker::run_long_slice`].
    puts_off_long_slices: bool,
    /// The frames that wait for the reply to a call, by their transactions.
    calling: AHashMap<TxnId, Box<Frame>>,
    /// The wide units that wait for locks: see [`token`](crate::shard::token).
    awaiting_locks: AHashMap<LockRequestId, Box<Frame>>,
    /// How many frames of modules are suspended while clients have to wait: see [`ProgramCtx::suspend_before_clients`].
    before_clients: usize,
    /// The frames that wait for threads outside of the shards.
    #[allow(clippy::vec_box, reason = "they move between here and the frames that are ready")]
    waiting: Vec<Box<Frame>>,
    /// The clients of this shard that are held, or will be when their programs end.
    holds: AHashMap<HoldId, hold::HoldState>,
    due_tasks: Vec<task::DueTask>,
    /// The tasks that are on their way to their frames, by their numbers, and how many there have been.
    tasks: AHashMap<u64, Task>,
    task_count: u64,
    removals: removal::Removals,
    samples: sample::Samples,
    stacks: stack::Stacks,
    #[allow(clippy::vec_box, reason = "they move between here and those that run in their boxes")]
    spare_frames: Vec<Box<Frame>>,
    spare_args: Vec<OwnedArgv>,
}

/// How many frames, and how many vectors of arguments, are kept for reuse.
const SPARES_MAX: usize = 32;

/// Arguments with more bytes than this are not kept for reuse.
const SPARE_ARGS_BYTES_MAX: usize = 64 << 10;

impl Programs {
    fn is_next_long(&self) -> bool {
        self.ready.front().is_some_and(|frame| frame.was_preempted)
    }

    fn running(&mut self) -> &mut Frame {
        self.running.as_deref_mut().expect("a program runs")
    }

    /// A copy of arguments, in reused memory.
    #[inline]
    fn copy_args<'a>(&mut self, args: impl Iterator<Item = &'a [u8]> + Clone) -> OwnedArgv {
        let mut copy = self.spare_args.pop().unwrap_or_default();
        copy.refill(args);
        copy
    }

    /// The same of those of a request.
    #[inline]
    fn copy_argv(&mut self, args: Argv<'_>) -> OwnedArgv {
        let mut copy = self.spare_args.pop().unwrap_or_default();
        copy.refill_from(args);
        copy
    }

    fn give_args(&mut self, mut args: OwnedArgv) {
        if self.spare_args.len() < SPARES_MAX && args.heap_len_bytes() <= SPARE_ARGS_BYTES_MAX {
            args.clear();
            self.spare_args.push(args);
        }
    }

    fn give_frame(&mut self, frame: Box<Frame>) {
        if self.spare_frames.len() < SPARES_MAX {
            self.spare_frames.push(frame);
        }
    }
}

impl Worker {
    /// Whether programs were suspended that run on in the next turns, or tasks are to be started.
    pub fn has_ready_programs(&self) -> bool {
        !self.programs.ready.is_empty() || !self.programs.due_tasks.is_empty()
    }

    /// Whether clients have to wait for code of a module that is suspended.
    #[inline]
    pub(super) fn is_module_before_clients(&self) -> bool {
        self.programs.before_clients > 0
    }

    /// Whether there are suspended programs, ready or not.
    pub fn has_suspended_programs(&self) -> bool {
        let Programs { ready, calling, awaiting_locks, waiting, .. } = &self.programs;
        !(ready.is_empty() && calling.is_empty() && awaiting_locks.is_empty() && waiting.is_empty())
    }
}
