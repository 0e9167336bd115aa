//! The last part of the end of a server by SHUTDOWN or a signal, behind that of [`shutdown`](super::shutdown), if it saves its data
//! set first, or has an append-only file.
//!
//! All shards stand still for it. They read nothing from their clients any more, and exchange messages, round by round,
//! until none is under way: so every transaction and program that has begun has ended, and no entry is checked out. Then
//! each writes its part of the snapshot, if one is wanted. If the file cannot be written, or a program is over
//! busy-reply-threshold and may never end, they go on as if nothing had happened. What they replied
//! meanwhile has not been sent: a client knows of no change that the file does not have. At last the append-only file is
//! written and synchronized, before any connection is closed: who sees the end of its connection finds everything on disk.

use super::Worker;
use crate::runtime::log;
use crate::shard::message::Message;
use crate::worker::shutdown::fail_shutdown;
use crate::worker::snapshot::Purpose;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

const NOT_ASKED_FOR: u8 = 0;
const ASKED_FOR: u8 = 1;
/// It ends even if the file cannot be written.
const FORCED: u8 = 2;

/// A shard that waits for the others looks this often whether the server has been stopped meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the shards agree on.
#[derive(Default)]
pub struct Closing {
    request: AtomicU8,
    /// A snapshot is to be written.
    saves: AtomicBool,
    /// How many shards wait, and how often all have come together.
    meeting: Mutex<(usize, u64)>,
    met: Condvar,
    /// A shard had something to do in this round.
    is_busy: AtomicBool,
    has_failed: AtomicBool,
}

impl Closing {
    /// Asks all shards to stand still, save if that is wanted, and stop.
    fn ask(&self, saves: bool, forced: bool) {
        self.saves.store(saves, Ordering::SeqCst);
        self.request.fetch_max(if forced { FORCED } else { ASKED_FOR }, Ordering::SeqCst);
    }

    #[inline]
    pub fn is_asked_for(&self) -> bool {
        self.request.load(Ordering::Relaxed) != NOT_ASKED_FOR
    }

    /// Waits until all shards have come here. Returns false if the server stops instead.
    fn meet(&self, shard_count: usize, is_stopping: impl Fn() -> bool) -> bool {
        let mut meeting = self.meeting.lock().expect("no holder of the meeting panics");
        meeting.0 += 1;
        let number = meeting.1;
        if meeting.0 == shard_count {
            *meeting = (0, number + 1);
            self.met.notify_all();
            return true;
        }
        while meeting.1 == number {
            if is_stopping() {
                return false;
            }
            (meeting, _) =
                self.met.wait_timeout(meeting, LOOK_INTERVAL).expect("no holder of the meeting panics");
        }
        true
    }
}

/// What a shard that stands still needs of its mesh.
pub trait Exchange {
    /// Hands over what has arrived.
    fn receive(&mut self, inbox: &mut Vec<(usize, Message)>);
    fn send(&mut self, to: usize, message: Message);
    /// Sends what has not found room. Returns whether something is left.
    fn flush(&mut self) -> bool;
}

impl Worker {
    /// Whether the server is to save and stop. All shards then call [`Worker::close`].
    #[inline]
    pub fn is_server_closing(&self) -> bool {
        self.globals.closing.is_asked_for()
    }

    /// Whether a shutdown saves: as it says itself, or else if there are save points. While the data set is being loaded
    /// there is nothing to save that is not in the file.
    pub fn saves_at_end(&self, save: bool, nosave: bool) -> bool {
        let wants_it = save || !nosave && !self.shard.config.save.0.is_empty();
        wants_it && !self.globals.persistence.loading.is_under_way()
    }

    /// Ends the server, behind a snapshot if it `saves`. If that fails, it goes on, unless it is `forced`.
    pub(super) fn close_server(&mut self, saves: bool, forced: bool) {
        // While a file is loaded, nothing was added to it.
        let has_file = self.globals.aof.is_on() && !self.globals.persistence.loading.is_on();
        if !saves && !has_file {
            self.globals.stop();
            return;
        }
        self.globals.closing.ask(saves, forced || !saves);
    }

    /// Stands still with all other shards, and saves. Returns whether the server stops.
    pub fn close(&mut self, mesh: &mut dyn Exchange) -> bool {
        let globals = self.globals;
        let closing = &globals.closing;
        let shard_count = self.shard.shard_count;
        let meet = || closing.meet(shard_count, || globals.is_stopping());
        if !meet() {
            return true;
        }
        let Some(is_quiet) = self.finish_transactions(mesh, &meet) else { return true };
        self.cancel_snapshot(&[Purpose::Save, Purpose::Rewrite]);
        let saves = closing.saves.load(Ordering::SeqCst);
        if self.shard.index == 0 && saves {
            log::notice(format_args!("Saving the final RDB snapshot before exiting."));
        }
        if is_quiet
            && saves
            && let Some(Err(_)) = self.save_part(&mut |_| {})
        {
            closing.has_failed.store(true, Ordering::SeqCst);
        }
        if !meet() {
            return true;
        }
        let has_failed = closing.has_failed.load(Ordering::SeqCst);
        let stops = !has_failed || closing.request.load(Ordering::SeqCst) == FORCED;
        // The others have read the outcome before it is reset.
        if !meet() {
            return true;
        }
        if self.shard.index == 0 {
            if has_failed && saves {
                let consequence = if stops { ". Exit anyway." } else { ", can't exit." };
                log::warning(format_args!("Error trying to save the DB{consequence}"));
            }
            if stops {
                globals.aof.stop_writer();
                globals.stop();
            } else {
                closing.has_failed.store(false, Ordering::SeqCst);
                closing.request.store(NOT_ASKED_FOR, Ordering::SeqCst);
                fail_shutdown(globals);
            }
        }
        if !meet() || stops {
            return true;
        }
        self.begin_turn();
        self.watch_shutdown();
        false
    }

    /// Exchanges messages until none is under way. Returns whether that is so: not if a program is busy. `None`: the
    /// server stops.
    fn finish_transactions(&mut self, mesh: &mut dyn Exchange, meet: &dyn Fn() -> bool) -> Option<bool> {
        let closing = &self.globals.closing;
        let mut inbox = Vec::new();
        loop {
            self.before_wait();
            self.begin_turn();
            mesh.receive(&mut inbox);
            let mut is_busy = !inbox.is_empty();
            self.deliver_all(&mut inbox);
            self.settle_feed();
            self.end_turn();
            self.run_long_slice();
            for (to, message) in self.outbox.drain() {
                is_busy = true;
                mesh.send(to, message);
            }
            is_busy |= mesh.flush() || self.has_ready_programs();
            if is_busy {
                closing.is_busy.store(true, Ordering::SeqCst);
            }
            if self.busy_program().is_some() {
                // It might never end.
                closing.has_failed.store(true, Ordering::SeqCst);
            }
            if !meet() {
                return None;
            }
            let has_failed = closing.has_failed.load(Ordering::SeqCst);
            let was_busy = !has_failed && closing.is_busy.load(Ordering::SeqCst);
            if !meet() {
                return None;
            }
            if self.shard.index == 0 {
                closing.is_busy.store(false, Ordering::SeqCst);
            }
            if !meet() {
                return None;
            }
            if !was_busy {
                return Some(!has_failed);
            }
        }
    }
}
