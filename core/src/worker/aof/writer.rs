//! The thread that writes the append-only file: it takes the shards' effects, merges them, and writes what comes out.

use super::files::AofFiles;
use super::parts::NewBase;
use super::{Aof, RETRY, ToWriter, wall_ms};
use crate::call::queue::KEPT_BYTES_MAX;
use crate::config::AppendFsync;
use crate::runtime::clock::Clock;
use crate::runtime::disk::{Disk, DiskFile};
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use crate::shard::effects::merger::Delivery;
use crate::shard::effects::{Consumer, Merger};
use crate::worker::Globals;
use crate::worker::latency::{LatencyMonitor, event};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

/// How often the file is synchronized with `appendfsync everysec`.
const SYNC_INTERVAL_MS: i64 = 1000;

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
    /// A snapshot is being written to the same disk.
    pub is_saving: bool,
}

/// The file that is written.
pub(super) struct Target {
    pub(super) file: Box<dyn DiskFile>,
    /// Its length, all of it whole units.
    pub(super) len_bytes: u64,
    /// How much of it is on the disk for certain.
    pub(super) synced_bytes: u64,
    /// The part of the stream that it begins with; 0: it was there when the server started.
    pub(super) part: u64,
    /// It has a temporary name, and no manifest names it: the base before it is not complete.
    pub(super) is_temporary: bool,
}

/// A thread that synchronizes the file while the writer goes on.
struct Syncer {
    jobs: Sender<Box<dyn DiskFile>>,
    outcomes: Receiver<io::Result<()>>,
    under_way: Option<SyncJob>,
}

/// A synchronization that was begun.
#[derive(Clone, Copy)]
struct SyncJob {
    /// Of the file: the part of the stream, and how long it was.
    part: u64,
    len_bytes: u64,
    began_at_ms: i64,
}

impl Syncer {
    fn start() -> Syncer {
        let (jobs, inbox) = channel::<Box<dyn DiskFile>>();
        let (done, outcomes) = channel();
        let run = move || {
            for mut file in inbox {
                if done.send(file.sync()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("aof-sync".to_owned());
        thread.spawn(run).expect("the system can start a thread");
        Syncer { jobs, outcomes, under_way: None }
    }
}

/// What comes behind the bytes that are written next.
enum Later {
    Delivered(Delivery),
    /// The file ends here.
    Off,
}

/// The writer's state.
pub struct Writer {
    pub(super) disk: Box<dyn Disk>,
    pub(super) clock: &'static dyn Clock,
    latency: Arc<LatencyMonitor>,
    merger: Merger,
    /// Read when they are needed first.
    pub(super) files: Option<AofFiles>,
    /// `None` while the append-only file is off, or waits for its first base.
    pub(super) target: Option<Target>,
    /// The part of the stream that was begun last.
    pub(super) part: u64,
    /// A base that is complete, or has failed.
    pub(super) base: Option<NewBase>,
    /// What is to be written next.
    pending: Vec<u8>,
    /// What comes behind that, from the beginning of another part, or the end of the file, on.
    later: VecDeque<Later>,
    /// Bytes of batches that were taken since the last write.
    taken_bytes: u64,
    /// Bytes of batches that were written, and are still said to be queued.
    written_bytes: u64,
    /// No message had come when it was looked for last.
    is_idle: bool,
    /// With everysec; `None`: the writer does that itself.
    syncer: Option<Syncer>,
    /// Something was written since the last synchronization began.
    is_unsynced: bool,
    /// Some of it was written with `appendfsync no`.
    is_left_to_system: bool,
    synced_at_ms: i64,
    last_sync: Duration,
    /// The last write has failed.
    has_failed: bool,
    logged_at_ms: i64,
    /// The second of the last annotation of the time in this file.
    pub(super) stamped_s: i64,
    /// Who is to be told when all is written.
    flushes: Vec<SyncSender<()>>,
}

impl Writer {
    /// A writer without a file.
    pub fn new(disk: Box<dyn Disk>, clock: &'static dyn Clock, latency: Arc<LatencyMonitor>) -> Writer {
        Writer {
            disk,
            clock,
            latency,
            merger: Merger::new(Consumer::File),
            files: None,
            target: None,
            part: 0,
            base: None,
            pending: Vec::new(),
            later: VecDeque::new(),
            taken_bytes: 0,
            written_bytes: 0,
            is_idle: true,
            syncer: None,
            is_unsynced: false,
            is_left_to_system: false,
            synced_at_ms: wall_ms(clock),
            last_sync: Duration::ZERO,
            has_failed: false,
            logged_at_ms: 0,
            stamped_s: 0,
            flushes: Vec::new(),
        }
    }

    /// Begins at the end of the last file of commands: of the file and its length that [`AofFiles::open_for_writing`]
    /// returns.
    pub fn begin_at(&mut self, files: AofFiles, (file, len_bytes): (Box<dyn DiskFile>, u64)) {
        self.files = Some(files);
        self.target = Some(Target { file, len_bytes, synced_bytes: len_bytes, part: 0, is_temporary: false });
    }

    /// Writes until it is told to stop. Ends the process if it cannot go on.
    pub fn run(mut self, globals: &Globals, inbox: &Receiver<ToWriter>) {
        let aof = &globals.aof;
        let mut counted_bytes = 0;
        self.syncer = Some(Syncer::start());
        loop {
            let goes_on = self.gather(inbox, policy_of(globals));
            // It may have waited for long. What has come was sent under the present configuration, or an earlier one.
            let policy = policy_of(globals);
            self.collect(policy);
            if !self.later.is_empty() {
                self.read_files(&globals.config().1);
            }
            let sleep_us = aof.flush_sleep_us.load(Ordering::Relaxed);
            if sleep_us > 0 && !self.pending.is_empty() {
                self.disk.sleep(Duration::from_micros(sleep_us));
            }
            let outcome = self.write(aof, policy, !goes_on);
            if let Err(Fatal(line)) = outcome {
                log::warning(format_args!("{line}"));
                std::process::exit(1);
            }
            self.take_base_in(globals);
            // In this order: what is queued does not count for eviction.
            globals.count_other_thread(&mut counted_bytes, self.clock);
            aof.queued_bytes.fetch_sub(std::mem::take(&mut self.written_bytes), Ordering::Release);
            if !goes_on {
                return;
            }
        }
    }

    /// Takes the messages that have come, and waits for the first one if there is nothing to do. Returns false when the
    /// writer is to stop.
    fn gather(&mut self, inbox: &Receiver<ToWriter>, policy: Policy) -> bool {
        if policy.fsync == AppendFsync::Always {
            self.disk.sleep((self.last_sync / REGATHER_SHARE).min(REGATHER_MAX));
        }
        let mut goes_on = self.take_all(inbox);
        if goes_on && self.is_idle && (self.pending.is_empty() || self.has_failed) {
            let until_sync_ms = self.synced_at_ms + SYNC_INTERVAL_MS - wall_ms(self.clock);
            let longest = match self.is_unsynced && policy.fsync == AppendFsync::Everysec {
                _ if self.has_failed => RETRY,
                true => Duration::from_millis(until_sync_ms.clamp(1, SYNC_INTERVAL_MS) as u64),
                false => IDLE,
            };
            match inbox.recv_timeout(longest) {
                Ok(message) => goes_on = self.take(message) && self.take_all(inbox),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => goes_on = false,
            }
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
                self.taken_bytes += batch.held_bytes() as u64;
                self.merger.push(seq, batch);
                true
            }
            ToWriter::Flush(done) => {
                self.flushes.push(done);
                true
            }
            ToWriter::Base(base) => {
                self.base = Some(base);
                true
            }
            ToWriter::Off { last_part } => {
                self.later.extend(self.merger.take().into_iter().map(Later::Delivered));
                self.later.push_back(Later::Off);
                self.merger.end(last_part);
                self.part = self.part.max(last_part);
                true
            }
            ToWriter::Stop => false,
        }
    }

    /// Takes what the merger has written.
    pub fn collect(&mut self, policy: Policy) {
        for delivery in self.merger.take() {
            match delivery {
                Delivery::Bytes(bytes) if self.later.is_empty() => self.append(bytes, policy),
                Delivery::Bytes(_) | Delivery::NewPart { .. } => {
                    self.later.push_back(Later::Delivered(delivery));
                }
                Delivery::Sync { .. } | Delivery::Lost { .. } => unreachable!("this merger works for a file"),
            }
        }
    }

    fn append(&mut self, bytes: Vec<u8>, policy: Policy) {
        self.stamp(policy);
        if self.pending.is_empty() {
            self.merger.reuse(std::mem::replace(&mut self.pending, bytes));
        } else {
            self.pending.extend_from_slice(&bytes);
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
        self.take_sync_outcome(policy, false)?;
        aof.set_busy(Some(self.sync_began_at_ms().unwrap_or_else(|| wall_ms(self.clock))));
        let is_written = self.write_all(aof, policy)?;
        if policy.fsync != AppendFsync::Always {
            aof.publish_safe(self.merger.written_seq());
        }
        // Also if some of it could not be written: the rest has been promised for long.
        let is_due = wall_ms(self.clock) - self.synced_at_ms >= SYNC_INTERVAL_MS;
        match policy.fsync {
            _ if is_last => self.sync(policy)?,
            AppendFsync::Always => self.sync(policy)?,
            AppendFsync::Everysec if is_due => self.begin_sync(policy)?,
            AppendFsync::Everysec | AppendFsync::No => {}
        }
        if is_written {
            self.is_left_to_system |= self.is_unsynced && policy.fsync == AppendFsync::No;
            if policy.fsync == AppendFsync::Always {
                aof.publish_safe(self.merger.written_seq());
            }
            self.written_bytes += std::mem::take(&mut self.taken_bytes);
            // Nobody may wait any more.
            for done in self.flushes.drain(..) {
                let _ = done.send(());
            }
        }
        aof.set_busy(self.sync_began_at_ms());
        Ok(())
    }

    /// Writes what is there, each part to its file. Returns false if something is left, because the disk refuses it.
    fn write_all(&mut self, aof: &Aof, policy: Policy) -> Result<bool, Fatal> {
        loop {
            if let Err(error) = self.write_pending_timed(aof, policy) {
                self.fail(&error, aof, policy)?;
                return Ok(false);
            }
            match self.later.pop_front() {
                None => break,
                Some(Later::Delivered(Delivery::NewPart { number })) => self.begin_part(number, policy)?,
                Some(Later::Delivered(Delivery::Bytes(bytes))) => self.append(bytes, policy),
                Some(Later::Delivered(Delivery::Sync { .. } | Delivery::Lost { .. })) => {
                    unreachable!("this merger works for a file")
                }
                Some(Later::Off) => {
                    self.sync(policy)?;
                    self.turn_off();
                }
            }
        }
        if std::mem::take(&mut self.has_failed) {
            log::warning(format_args!("AOF write error looks solved, Shardis can write again."));
            aof.set_error(None);
        }
        Ok(true)
    }

    fn write_pending_timed(&mut self, aof: &Aof, policy: Policy) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let began_ticks = self.clock.ticks();
        let outcome = self.write_pending(aof);
        let during = match self.sync_began_at_ms() {
            Some(_) => event::AOF_WRITE_PENDING_FSYNC,
            None if policy.is_saving => event::AOF_WRITE_ACTIVE_CHILD,
            None => event::AOF_WRITE_ALONE,
        };
        self.sample_latency(during, began_ticks);
        self.sample_latency(event::AOF_WRITE, began_ticks);
        outcome
    }

    /// Tells the latency monitor of what has begun then and ended now.
    pub(super) fn sample_latency(&self, event: &str, began_ticks: u64) {
        self.latency.sample(event, self.clock.nanos_since(began_ticks) / 1_000_000, self.clock);
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
        if self.pending.is_empty() && self.pending.capacity() > KEPT_BYTES_MAX {
            self.pending = Vec::new();
        }
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

    /// Since when the other thread is busy with a synchronization.
    fn sync_began_at_ms(&self) -> Option<i64> {
        Some(self.syncer.as_ref()?.under_way?.began_at_ms)
    }

    /// Has the other thread synchronize the file, unless it is busy still.
    fn begin_sync(&mut self, policy: Policy) -> Result<(), Fatal> {
        let Some(syncer) = &mut self.syncer else { return self.sync(policy) };
        let Some(target) = self.target.as_ref().filter(|_| self.is_unsynced && syncer.under_way.is_none())
        else {
            return Ok(());
        };
        let Ok(file) = target.file.handle() else { return self.sync(policy) };
        let began_at_ms = wall_ms(self.clock);
        syncer.jobs.send(file).expect("the other thread ends with this one");
        syncer.under_way = Some(SyncJob { part: target.part, len_bytes: target.len_bytes, began_at_ms });
        (self.is_unsynced, self.synced_at_ms) = (false, began_at_ms);
        Ok(())
    }

    /// Takes in how the other thread's synchronization has ended, or will, if that is to be waited for.
    fn take_sync_outcome(&mut self, policy: Policy, waits: bool) -> Result<(), Fatal> {
        let Some(syncer) = &mut self.syncer else { return Ok(()) };
        let Some(job) = syncer.under_way else { return Ok(()) };
        let outcome = if waits { syncer.outcomes.recv().ok() } else { syncer.outcomes.try_recv().ok() };
        let Some(outcome) = outcome else { return Ok(()) };
        syncer.under_way = None;
        // The file may be another one by now, if that one was dropped.
        let Some(target) = self.target.as_mut().filter(|target| target.part == job.part) else {
            return Ok(());
        };
        match outcome {
            Ok(()) => {
                target.synced_bytes = job.len_bytes;
                self.is_left_to_system &= self.is_unsynced;
                Ok(())
            }
            Err(error) => Err(self.end_unsynced(&error, policy)),
        }
    }

    pub(super) fn sync(&mut self, policy: Policy) -> Result<(), Fatal> {
        self.take_sync_outcome(policy, true)?;
        let Some(target) = self.target.as_mut().filter(|_| self.is_unsynced) else { return Ok(()) };
        let started = self.clock.ticks();
        let outcome = target.file.sync();
        self.last_sync = Duration::from_nanos(self.clock.nanos_since(started));
        self.synced_at_ms = wall_ms(self.clock);
        if let Err(error) = outcome {
            return Err(self.end_unsynced(&error, policy));
        }
        if policy.fsync == AppendFsync::Always {
            let took_ms = self.last_sync.as_millis() as u64;
            self.latency.sample(event::AOF_FSYNC_ALWAYS, took_ms, self.clock);
        }
        target.synced_bytes = target.len_bytes;
        (self.is_unsynced, self.is_left_to_system) = (false, false);
        Ok(())
    }

    /// A synchronization has failed. Another call may succeed although what was written before it is lost, and the next start
    /// would find it in memory, tell clients of it, and write behind it. So the file is cut off behind what is on the disk for
    /// certain; but what was left to the system for long may well be there.
    fn end_unsynced(&mut self, error: &io::Error, policy: Policy) -> Fatal {
        if let Some(target) = self.target.as_mut().filter(|_| !self.is_left_to_system) {
            log::warning(format_args!(
                "The AOF file is cut off behind what is on the disk for certain, at {} of {} bytes.",
                target.synced_bytes, target.len_bytes
            ));
            if let Err(error) = target.file.truncate(target.synced_bytes) {
                log::warning(format_args!("Could not cut the AOF file off: {}", error_text(&error)));
            }
        }
        Fatal(format!(
            "Can't persist AOF for fsync error when the AOF fsync policy is '{}': {}. Exiting...",
            policy.fsync.as_str(),
            error_text(error)
        ))
    }
}

fn policy_of(globals: &Globals) -> Policy {
    let (_, config) = globals.config();
    let is_saving = globals.persistence.snapshots.is_under_way();
    let spares_disk = config.no_appendfsync_on_rewrite && is_saving;
    let fsync = if spares_disk { AppendFsync::No } else { config.appendfsync };
    Policy { fsync, has_timestamps: config.aof_timestamp_enabled, is_saving }
}

#[cfg(test)]
mod tests;
