//! The first part of the end: SHUTDOWN and signals wait until all replicas have the stream, at most for `shutdown-timeout`.
//!
//! Meanwhile clients may not write, so the end of the stream stands still. Whether a replica has it is known at the merging shard
//! alone: all that was written before is there when it has merged all batches that have a number. What happens then is
//! [`closing`](super::closing).

use super::stream::STREAM_SHARD;
use super::{Globals, Worker};
use crate::command::admission::PauseKind;
use crate::protocol::{Reply, Resp};
use crate::runtime::{log, signals};
use crate::worker::globals::PauseReason;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What SHUTDOWN's words ask for, or `shutdown-on-sigterm`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ShutdownOptions {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
}

/// A shutdown that waits for replicas.
#[derive(Default)]
pub struct ShutdownWait {
    /// What was asked for, and how many turns each shard had taken when clients were paused.
    wanted: Mutex<(ShutdownOptions, Vec<u64>)>,
    /// Until when it waits, unix time in milliseconds; 0: there is none.
    until_ms: AtomicI64,
    /// How many have failed, or were given up.
    given_up: AtomicU64,
}

impl ShutdownWait {
    /// Until when a shutdown waits, unix time in milliseconds.
    #[inline]
    pub fn until_ms(&self) -> Option<i64> {
        match self.until_ms.load(Ordering::SeqCst) {
            0 => None,
            until_ms => Some(until_ms),
        }
    }

    fn begin(&self, options: ShutdownOptions, until_ms: i64, turns: Vec<u64>) {
        *self.wanted() = (options, turns);
        self.until_ms.store(until_ms, Ordering::SeqCst);
    }

    fn wanted(&self) -> MutexGuard<'_, (ShutdownOptions, Vec<u64>)> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.until_ms.store(0, Ordering::SeqCst);
    }
}

/// The shutdown has failed.
pub(super) fn fail_shutdown(globals: &Globals) {
    log::warning(format_args!("Errors trying to shut down the server. Check the logs for more information."));
    give_up_shutdown(globals);
}

/// The shutdown that was asked for does not happen: clients go on, and those that have asked for it are told.
fn give_up_shutdown(globals: &Globals) {
    globals.shutdown.end();
    globals.shutdown.given_up.fetch_add(1, Ordering::SeqCst);
    globals.end_pause(PauseReason::Shutdown);
    signals::withdraw_stop();
    globals.ring_all();
}

impl Worker {
    /// SHUTDOWN, of the client at `conn`, or a signal. The client gets a reply only if the server goes on.
    pub fn begin_shutdown(&mut self, conn: Option<usize>, options: ShutdownOptions) {
        let globals = self.globals;
        let given_up = globals.shutdown.given_up.load(Ordering::SeqCst);
        if let Some(at) = conn {
            let reply_id = self.reply_later(at);
            self.shutdowns.push((reply_id, given_up));
        }
        if globals.shutdown.until_ms().is_some() || self.is_server_closing() {
            return;
        }
        log::warning(format_args!("User requested shutdown..."));
        let timeout_ms = i64::from(self.shard.config.shutdown_timeout_s) * 1000;
        if options.now || timeout_ms == 0 || globals.stream.replica_count() == 0 {
            self.finish_shutdown(options);
            return;
        }
        globals.set_pause(i64::MAX, PauseKind::Write, PauseReason::Shutdown, self.shard.now_ms);
        globals.shutdown.begin(options, self.shard.now_ms + timeout_ms, globals.turn_counts());
        globals.ring_all();
    }

    /// SHUTDOWN ABORT. False: none waits.
    pub fn abort_shutdown(&mut self) -> bool {
        if self.is_server_closing() {
            return false;
        }
        if self.globals.shutdown.until_ms().is_none() {
            // A signal that was not seen yet.
            let is_asked_for = signals::stop_requested().is_some();
            signals::withdraw_stop();
            return is_asked_for;
        }
        give_up_shutdown(self.globals);
        true
    }

    /// Each turn: on the merging shard, whether the replicas have all of the stream; on all, whether a shutdown was given up.
    #[inline]
    pub(super) fn watch_shutdown(&mut self) {
        if !self.shutdowns.is_empty() {
            self.answer_shutdowns();
        }
        if self.shard.index == STREAM_SHARD
            && let Some(until_ms) = self.globals.shutdown.until_ms()
            && (self.time.clock.wall_ms() >= until_ms || self.replicas_are_in_sync())
        {
            let options = self.globals.shutdown.wanted().0;
            self.globals.shutdown.end();
            self.finish_shutdown(options);
        }
    }

    #[cold]
    fn answer_shutdowns(&mut self) {
        let given_up = self.globals.shutdown.given_up.load(Ordering::SeqCst);
        let (waiting, failed) =
            std::mem::take(&mut self.shutdowns).into_iter().partition(|&(_, asked_at)| asked_at == given_up);
        self.shutdowns = waiting;
        for (reply_id, _) in failed {
            let mut reply = Vec::new();
            Reply::new(&mut reply, Resp::V2).error(b"ERR Errors trying to SHUTDOWN. Check logs.");
            self.fulfil(reply_id, &reply);
        }
    }

    /// On the merging shard: whether all that was written is in the stream, and all replicas have acknowledged all of it.
    fn replicas_are_in_sync(&self) -> bool {
        let offset = self.settled_offset(&self.globals.shutdown.wanted().1);
        offset.is_some_and(|offset| {
            self.globals.stream.replicas().iter().all(|replica| replica.ack_offset == offset)
        })
    }

    /// Ends the server, or says why not.
    fn finish_shutdown(&mut self, options: ShutdownOptions) {
        let globals = self.globals;
        self.log_replicas();
        if globals.aof.awaits_base() {
            if !options.force {
                log::warning(format_args!("Writing initial AOF, can't exit."));
                fail_shutdown(globals);
                return;
            }
            log::warning(format_args!("Writing initial AOF. Exit anyway."));
        }
        let saves = self.saves_at_end(options.save, options.nosave);
        self.close_server(saves, options.force);
    }

    /// Which replicas do not have all of the stream.
    fn log_replicas(&self) {
        let (offset, now_ms) = (self.globals.stream.offset(), self.shard.now_ms);
        let replicas = self.globals.stream.replicas();
        let lagging = || replicas.iter().filter(|replica| replica.ack_offset != offset);
        for replica in lagging() {
            log::warning(format_args!(
                "Lagging replica {}:{} reported offset {} behind master, lag={}, state={}.",
                String::from_utf8_lossy(&replica.ip),
                replica.port,
                offset as i64 - replica.ack_offset as i64,
                replica.lag_s(now_ms),
                replica.state.name(),
            ));
        }
        if !replicas.is_empty() {
            let in_sync = replicas.len() - lagging().count();
            log::notice(format_args!(
                "{in_sync} of {} replicas are in sync when shutting down.",
                replicas.len()
            ));
        }
    }
}
