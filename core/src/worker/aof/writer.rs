//! The thread that writes the append-only file: it takes the shards' effects, merges them, and writes what comes out.

use super::{Aof, RETRY, ToWriter, wall_ms};
use crate::config::AppendFsync;
use crate::runtime::clock::Clock;
use crate::runtime::disk::{Disk, DiskFile};
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use crate::shard::effects::merger::Delivery;
use crate::shard::effects::{Consumer, Merger};
use crate::worker::Globals;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// How often the file is synchronized with `appendfsync everysec`.
const SYNC_INTERVAL_MS: i64 = 1000;

/// Unless every write is synchronized, the writer gathers for so long before it writes again, which saves it and the shards
/// most of the calls to the system.
const GATHER: Duration = Duration::from_millis(1);

/// With `always`, the writer waits for this share of the time that the last synchronization took before it begins the
/// next one: the clients that were just answered send their next commands meanwhile, and one synchronization is enough
/// for all of them.
const REGATHER_SHARE: u32 = 8;
const REGATHER_MAX: Duration = Duration::from_micros(500);

/// How long the writer sleeps at most when there is nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// An error is logged again only after so much time.
const LOG_INTERVAL_MS: i64 = 30_000;

/// Why the process must end.
#[derive(Debug)]
pub struct Fatal(pub String);

/// What the configuration says of the writing.
#[derive(Clone, Copy)]
pub struct Policy {
    pub fsync: AppendFsync,
    pub has_timestamps: bool,
}

/// The file that is written.
struct Target {
    file: Box<dyn DiskFile>,
    /// Its length, all of it whole units.
    len_bytes: u64,
}

/// The writer's state.
pub struct Writer {
    disk: Box<dyn Disk>,
    clock: &'static dyn Clock,
    merger: Merger,
    /// `None` while the append-only file is off.
    target: Option<Target>,
    /// What is to be written next.
    pending: Vec<u8>,
    /// Bytes of batches that were taken since the last write.
    taken_bytes: u64,
    /// No message had come when it was looked for last.
    is_idle: bool,
    /// Something was written that is not synchronized.
    is_unsynced: bool,
    synced_at_ms: i64,
    last_sync: Duration,
    /// The last write has failed.
    has_failed: bool,
    logged_at_ms: i64,
    /// The second of the last annotation of the time.
    stamped_s: i64,
    /// The file is to end here.
    is_off: bool,
    /// Who is to be told when all is written.
    flushes: Vec<SyncSender<()>>,
}

impl Writer {
    /// A writer without a file.
    pub fn new(disk: Box<dyn Disk>, clock: &'static dyn Clock, shard_count: usize) -> Writer {
        Writer {
            disk,
            clock,
            merger: Merger::new(Consumer::File, shard_count),
            target: None,
            pending: Vec::new(),
            taken_bytes: 0,
            is_idle: true,
            is_unsynced: false,
            synced_at_ms: wall_ms(clock),
            last_sync: Duration::ZERO,
            has_failed: false,
            logged_at_ms: 0,
            stamped_s: 0,
            is_off: false,
            flushes: Vec::new(),
        }
    }

    /// Begins at the end of a file, which is so long.
    pub fn begin_at(&mut self, (file, len_bytes): (Box<dyn DiskFile>, u64)) {
        self.target = Some(Target { file, len_bytes });
    }

    /// Writes until it is told to stop. Ends the process if it cannot go on.
    pub fn run(mut self, globals: &Globals, inbox: &Receiver<ToWriter>) {
        let aof = &globals.aof;
        loop {
            let goes_on = self.gather(inbox, policy_of(globals));
            // It may have waited for long. What has come was sent under the present configuration, or an earlier one.
            let policy = policy_of(globals);
            self.collect(policy);
            let sleep_us = aof.flush_sleep_us.load(Ordering::Relaxed);
            if sleep_us > 0 && !self.pending.is_empty() {
                self.disk.sleep(Duration::from_micros(sleep_us));
            }
            let outcome = self.write(aof, policy, !goes_on);
            if std::mem::take(&mut self.is_off) {
                self.target = None;
            }
            if let Err(Fatal(line)) = outcome {
                log::warning(format_args!("{line}"));
                std::process::exit(1);
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Takes the messages that have come, and waits for the first one if there is nothing to do. Returns false when the
    /// writer is to stop.
    fn gather(&mut self, inbox: &Receiver<ToWriter>, policy: Policy) -> bool {
        match policy.fsync {
            AppendFsync::Always => self.disk.sleep((self.last_sync / REGATHER_SHARE).min(REGATHER_MAX)),
            AppendFsync::Everysec | AppendFsync::No => self.disk.sleep(GATHER),
        }
        let mut goes_on = self.take_all(inbox);
        if goes_on && self.pending.is_empty() && self.is_idle {
            let until_sync_ms = self.synced_at_ms + SYNC_INTERVAL_MS - wall_ms(self.clock);
            let longest = match self.is_unsynced && policy.fsync == AppendFsync::Everysec {
                true => Duration::from_millis(until_sync_ms.clamp(1, SYNC_INTERVAL_MS) as u64),
                false => IDLE,
            };
            match inbox.recv_timeout(longest) {
                Ok(message) => goes_on = self.take(message) && self.take_all(inbox),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => goes_on = false,
            }
        } else if self.has_failed {
            self.disk.sleep(RETRY);
        }
        goes_on
    }

    /// Takes the messages that are there. Returns false if one of them says that the writer is to stop.
    fn take_all(&mut self, inbox: &Receiver<ToWriter>) -> bool {
        self.is_idle = true;
        while let Ok(message) = inbox.try_recv() {
            self.is_idle = false;
            if !self.take(message) {
                return false;
            }
        }
        true
    }

    /// Takes a message in. Returns false if it says that the writer is to stop.
    pub fn take(&mut self, message: ToWriter) -> bool {
        match message {
            ToWriter::Batch { seq, batch } => {
                self.taken_bytes += batch.len_bytes() as u64;
                self.merger.push(seq, batch);
                true
            }
            ToWriter::Flush(done) => {
                self.flushes.push(done);
                true
            }
            ToWriter::Off => {
                self.merger.end_file();
                self.is_off = true;
                true
            }
            ToWriter::Stop => false,
        }
    }

    /// Takes what the merger has written.
    pub fn collect(&mut self, policy: Policy) {
        for delivery in self.merger.take() {
            match delivery {
                Delivery::Bytes(bytes) => {
                    self.stamp(policy);
                    self.pending.extend_from_slice(&bytes);
                }
                // There is one file, which is open already.
                Delivery::NewPart { .. } => {}
                Delivery::Attach { .. } | Delivery::Cut(_) => unreachable!("this merger works for a file"),
            }
        }
    }

    /// Adds an annotation of the time, if the second is another one.
    fn stamp(&mut self, policy: Policy) {
        let now_s = wall_ms(self.clock) / 1000;
        if policy.has_timestamps && now_s > self.stamped_s {
            self.stamped_s = now_s;
            self.pending.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
    }

    /// Writes what is there, synchronizes it as appendfsync says, or in any case if `is_last`, and tells the shards what is
    /// safe.
    ///
    /// # Errors
    /// The process must end.
    pub fn write(&mut self, aof: &Aof, policy: Policy, is_last: bool) -> Result<(), Fatal> {
        aof.set_busy(Some(wall_ms(self.clock)));
        let is_written = self.write_all(aof, policy)?;
        if is_written {
            let is_due = wall_ms(self.clock) - self.synced_at_ms >= SYNC_INTERVAL_MS;
            let syncs = match policy.fsync {
                AppendFsync::Always => true,
                AppendFsync::Everysec => is_due,
                AppendFsync::No => false,
            };
            if syncs || is_last {
                self.sync(policy)?;
            }
            aof.publish_safe(self.merger.written_seq());
            aof.queued_bytes.fetch_sub(std::mem::take(&mut self.taken_bytes), Ordering::Relaxed);
            // Nobody may wait any more.
            for done in self.flushes.drain(..) {
                let _ = done.send(());
            }
        }
        aof.set_busy(None);
        Ok(())
    }

    /// Writes what is there. Returns false if something is left, because the disk refuses it.
    fn write_all(&mut self, aof: &Aof, policy: Policy) -> Result<bool, Fatal> {
        if let Err(error) = self.write_pending(aof) {
            self.fail(&error, aof, policy)?;
            return Ok(false);
        }
        if std::mem::take(&mut self.has_failed) {
            log::warning(format_args!("AOF write error looks solved, Shardis can write again."));
            aof.set_error(None);
        }
        Ok(true)
    }

    /// Writes the pending bytes. If that fails, the file has all of them or none, if that can be arranged.
    fn write_pending(&mut self, aof: &Aof) -> io::Result<()> {
        let Some(target) = &mut self.target else {
            self.pending.clear();
            return Ok(());
        };
        let mut written = 0;
        let outcome = loop {
            if written == self.pending.len() {
                break Ok(());
            }
            match target.file.append(&self.pending[written..]) {
                Ok(len) => written += len,
                Err(error) => break Err(error),
            }
        };
        if outcome.is_err() && written > 0 {
            let expected = self.pending.len();
            log::warning(format_args!(
                "Short write while writing to the AOF file: (nwritten={written}, expected={expected})"
            ));
            match target.file.truncate(target.len_bytes) {
                Ok(()) => written = 0,
                // What was written stays, and the rest comes behind it.
                Err(error) => log::warning(format_args!(
                    "Could not remove short write from the append-only file. Shardis may refuse to load the AOF the \
                     next time it starts. ftruncate: {}",
                    error_text(&error)
                )),
            }
        }
        self.is_unsynced |= written > 0;
        target.len_bytes += written as u64;
        aof.current_bytes.fetch_add(written as u64, Ordering::Relaxed);
        self.pending.drain(..written);
        outcome
    }

    /// A write has failed.
    fn fail(&mut self, error: &io::Error, aof: &Aof, policy: Policy) -> Result<(), Fatal> {
        let now_ms = wall_ms(self.clock);
        let why = error_text(error);
        if now_ms - self.logged_at_ms >= LOG_INTERVAL_MS {
            self.logged_at_ms = now_ms;
            log::warning(format_args!("Error writing to the AOF file: {why}"));
        }
        if policy.fsync == AppendFsync::Always {
            return Err(Fatal(
                "Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting..."
                    .to_owned(),
            ));
        }
        self.has_failed = true;
        aof.set_error(Some(why));
        Ok(())
    }

    fn sync(&mut self, policy: Policy) -> Result<(), Fatal> {
        let Some(target) = self.target.as_mut().filter(|_| self.is_unsynced) else { return Ok(()) };
        let started = self.clock.ticks();
        let outcome = target.file.sync();
        self.last_sync = Duration::from_nanos(self.clock.ticks_to_nanos(self.clock.ticks() - started));
        self.synced_at_ms = wall_ms(self.clock);
        match outcome {
            Ok(()) => {
                self.is_unsynced = false;
                Ok(())
            }
            // Another call may succeed although what was written before it is lost.
            Err(error) => Err(Fatal(format!(
                "Can't persist AOF for fsync error when the AOF fsync policy is '{}': {}. Exiting...",
                policy.fsync.as_str(),
                error_text(&error)
            ))),
        }
    }
}

fn policy_of(globals: &Globals) -> Policy {
    let (_, config) = globals.config();
    Policy { fsync: config.appendfsync, has_timestamps: config.aof_timestamp_enabled }
}

#[cfg(test)]
mod tests;
