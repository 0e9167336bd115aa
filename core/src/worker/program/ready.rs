//! Which suspended program runs when.

use crate::shard::lock::LockRequestId;
use crate::worker::Worker;

impl Worker {
    /// To be called once a turn. Runs a slice of the first frame that is ready, unless that is put off: it is likely to be long.
    pub(in crate::worker) fn run_ready_program(&mut self) {
        if !(self.programs.puts_off_long_slices && self.programs.is_next_long()) {
            self.run_slice_of_next();
        }
    }

    /// To be called behind a turn, when what that has produced was sent: if a slice was put off, it is a turn without events.
    /// Returns whether there was one. What it has produced is to be sent, too.
    pub fn run_long_slice(&mut self) -> bool {
        if !(self.programs.puts_off_long_slices && self.programs.is_next_long()) {
            return false;
        }
        self.before_wait();
        self.begin_turn();
        self.programs.puts_off_long_slices = false;
        self.end_turn();
        self.programs.puts_off_long_slices = true;
        true
    }

    /// From here on, who drives this worker calls [`run_long_slice`](Worker::run_long_slice).
    pub fn put_off_long_slices(&mut self) {
        self.programs.puts_off_long_slices = true;
    }

    /// Has the killed programs that wait for locks go on, to end.
    pub(super) fn resume_killed(&mut self) {
        let awaiting = &mut self.programs.awaiting_locks;
        let mut killed: Vec<LockRequestId> =
            awaiting.iter().filter(|(_, frame)| frame.stopped.is_some()).map(|(&id, _)| id).collect();
        killed.sort_unstable();
        for lock_request in killed {
            self.program_is_granted(lock_request);
        }
    }

    /// A lock request was granted. If a program has waited for that, it goes on, before others, because they may wait for it.
    /// Returns whether one has.
    pub(in crate::worker) fn program_is_granted(&mut self, lock_request: LockRequestId) -> bool {
        let Some(mut frame) = self.programs.awaiting_locks.remove(&lock_request) else {
            // It may have been killed while it waited, and has to end.
            return self.programs.ready.iter().any(|frame| frame.lock_request == Some(lock_request));
        };
        frame.awaits_locks = false;
        self.programs.ready.push_front(frame);
        true
    }
}
