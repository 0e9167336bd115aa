//! Clients that are held: their program has ended and they get their replies later, as when a module has blocked them.
//!
//! A held client is blocked as one that waits for keys: it has a deadline, CLIENT UNBLOCK ends its wait, and its later
//! requests stand behind. However the wait ends, a [task](super::task) runs, and what that replies is the client's reply.
//! A client that waits for keys as well does not accept offers, as a blocked command does: the offer of a key has a
//! [task](super::task) run that looks whether the client can go on, and the key is kept for it until the task has ended.

use super::ProgramCtx;
use super::task::Task;
use crate::command::Call;
use crate::command::docs::Docs;
use crate::command::table::{Command, CommandEntry, flag};
use crate::protocol::OwnedArgv;
use crate::shard::message::ReplyId;
use crate::worker::Worker;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the wait of a held client ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldEnd {
    /// By [`Worker::release_hold`].
    Released,
    TimedOut,
    /// The client is gone, or has got another reply.
    Gone,
}

/// What is done at the end of a wait: makes the task that replies.
pub type OnHoldEnd = Box<dyn FnOnce(HoldEnd) -> Task + Send>;

/// Identifies a hold in the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HoldId(u64);

/// How a client is to be held.
pub struct HoldOn {
    /// Unix time in milliseconds. `None`: the wait has no end.
    pub deadline_ms: Option<i64>,
    /// The wait may end as if its deadline had come: CLIENT UNBLOCK.
    pub may_time_out: bool,
    pub keys: Option<WaitForKeys>,
    pub on_end: OnHoldEnd,
}

/// Keys for which a held client waits.
pub struct WaitForKeys {
    /// As the arguments of a command, whose name is that of [`KEY_WAITS`].
    pub(in crate::worker) args: OwnedArgv,
    /// Whether the client is to look also when one of them was removed.
    pub(in crate::worker) ends_with_key: bool,
    /// Makes the task that looks whether the client can go on with a key. It ends the hold then.
    pub(in crate::worker) on_ready: OnKeyReady,
}

/// Gets the name of a key that has changed.
pub type OnKeyReady = Box<dyn Fn(Vec<u8>) -> Task + Send>;

impl WaitForKeys {
    pub fn new(keys: &[&[u8]], ends_with_key: bool, on_ready: OnKeyReady) -> WaitForKeys {
        let mut args = OwnedArgv::from_slices(&[KEY_WAIT_NAME]);
        keys.iter().for_each(|key| args.push_arg(key));
        WaitForKeys { args, ends_with_key, on_ready }
    }
}

/// The row under which held clients wait for keys. It counts as one that takes something, so that keys are offered.
pub const KEY_WAITS: &[Command] = &[Command::keys(KEY_WAIT_NAME, -2, |_| Ok(()))
    .flags(flag::WRITE | flag::BLOCKING | flag::SKIP_SLOWLOG)
    .hidden()
    .docs(Docs::new("server", "7.0.0", "Waits for keys").complexity("It does not run.").internal())];

const KEY_WAIT_NAME: &str = "keywait";

/// A client that is held.
pub(in crate::worker) struct Hold {
    pub(in crate::worker) id: HoldId,
    pub(in crate::worker) on: HoldOn,
}

/// The holds of a shard's clients that have not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HoldState {
    /// The program that holds the client has not ended.
    Beginning,
    /// The same, but the client is not held any more.
    Released,
    Waiting(ReplyId),
}

static NEXT_HOLD: AtomicU64 = AtomicU64::new(1);

impl ProgramCtx<'_> {
    /// Has the client get no reply when the program ends, but that of the task that `on.on_end` makes. `None`, if there is
    /// no client that could wait: in an EXEC, in a script, in a task, for a client of another shard, or if it is held already.
    pub fn hold_client(&mut self, on: HoldOn) -> Option<HoldId> {
        let (in_exec, in_script) = (self.call.in_exec, self.call.in_script);
        let worker = self.lent.worker();
        let frame = worker.programs.running();
        if in_exec || in_script || !frame.has_client_here || frame.hold.is_some() {
            return None;
        }
        let id = HoldId(NEXT_HOLD.fetch_add(1, Ordering::Relaxed));
        frame.hold = Some(Box::new(Hold { id, on }));
        frame.holds_client = true;
        worker.programs.holds.insert(id, HoldState::Beginning);
        Some(id)
    }

    /// The client is held by this program no more: it gets the program's reply.
    pub fn forget_hold(&mut self, id: HoldId) {
        let programs = &mut self.lent.worker().programs;
        programs.holds.remove(&id);
        let frame = programs.running();
        if frame.hold.as_ref().is_some_and(|hold| hold.id == id) {
            frame.hold = None;
            frame.holds_client = false;
        }
    }
}

impl Worker {
    /// The program of a client has ended, and holds it.
    pub(in crate::worker) fn begin_hold(
        &mut self,
        reply_id: ReplyId,
        entry: &'static CommandEntry,
        call: Call,
        args: OwnedArgv,
        hold: Box<Hold>,
    ) {
        let id = hold.id;
        let state = self.programs.holds.remove(&id).expect("it lasts at least as long as its program");
        if self.connection_of(reply_id).is_none() {
            self.add_task_for(ReplyId::NOBODY, Call::default(), (hold.on.on_end)(HoldEnd::Gone));
            return;
        }
        self.programs.holds.insert(id, HoldState::Waiting(reply_id));
        self.block_held(reply_id, entry, call, args, hold);
        if state == HoldState::Released {
            self.release_hold(id);
        }
    }

    /// Ends a hold of one of this shard's clients. Returns whether there was one.
    pub fn release_hold(&mut self, id: HoldId) -> bool {
        match self.programs.holds.get_mut(&id) {
            Some(state @ HoldState::Beginning) => {
                *state = HoldState::Released;
                true
            }
            Some(HoldState::Released) | None => false,
            Some(&mut HoldState::Waiting(reply_id)) => {
                self.end_hold(reply_id, HoldEnd::Released);
                true
            }
        }
    }

    /// The wait of a held client ends: a task will reply to it.
    pub(in crate::worker) fn end_hold(&mut self, reply_id: ReplyId, end: HoldEnd) {
        let Some((hold, call)) = self.take_hold(reply_id) else { return };
        self.end_taken_hold(reply_id, call, hold, end);
    }

    /// The same when the hold was taken from its client.
    pub(in crate::worker) fn end_taken_hold(
        &mut self,
        reply_id: ReplyId,
        call: Call,
        hold: Box<Hold>,
        end: HoldEnd,
    ) {
        let Hold { id, on } = *hold;
        self.programs.holds.remove(&id);
        let reply_id = if end == HoldEnd::Gone { ReplyId::NOBODY } else { reply_id };
        self.add_task_for(reply_id, call, (on.on_end)(end));
    }
}
