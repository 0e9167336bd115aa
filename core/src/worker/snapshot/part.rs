//! A shard's part in snapshots: the barrier, the walk, and the turns of the shard that begins what is due.

use super::file::{Current, Progress, Target};
use super::{Purpose, SNAPSHOT_SHARD, Verdict, Wanted};
use crate::command::CommandResult;
use crate::config::SavePoint;
use crate::runtime::log;
use crate::shard::Shard;
use crate::types::save::Chunk;
use crate::worker::Worker;
use crate::worker::hooks::SaveEvent;
use crate::worker::stream::Sync;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};

/// A slice of the walk lasts at most this long, and what it has written is moved, and the memory for that is found, after that, which may
/// take as long; while commands come, ...
const SLICE_NANOS_MAX: u64 = 300_000;
/// ... at most one in so many parts of the time since the last one, ...
const SLICE_SHARE_BUSY: u64 = 4;
/// ... but at least this long.
const SLICE_NANOS_MIN: u64 = 20_000;

/// How many bytes that changes have forced out may wait for the disk if `snapshot-memory-limit` does not say: a tenth of the
/// memory in use, and at least this much.
const WAITING_BYTES_MIN: u64 = 64 << 20;

/// So long a disk may take nothing while removed values wait for it, at the bound.
const PATIENCE_NANOS: u64 = 1_000_000_000;

/// After a save that failed, the next one is not tried sooner.
const RETRY_DELAY_S: i64 = 5;

/// A snapshot that was started without a client is taken as lost if it has not begun by then.
const START_PATIENCE_MS: i64 = 10_000;

/// A shard's part of the snapshot that is under way.
pub(in crate::worker) struct SnapshotPart {
    progress: Arc<Progress>,
    chunks: SyncSender<Chunk>,
    /// A chunk that found the queue full.
    waiting: Option<Chunk>,
    stage: Stage,
    /// In [`Stage::Values`]: the record that was begun last, if it is not complete.
    open: Option<u64>,
    /// More waits for the disk than may: the shards do more for the snapshot, and less for others.
    is_urgent: bool,
    number: u64,
    /// When something was handed over last, or could have been.
    progress_at_ticks: u64,
    begun_at_ticks: u64,
    slice_ended_at_ticks: u64,
    commands_at_slice: u64,
}

/// What a shard is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It saves its buckets.
    Buckets,
    /// It waits until it may write the records of big values that it has, or until there are none any more.
    Waits,
    /// It writes them, and no other shard writes anything.
    Values,
}

/// How slowly keys are saved, for tests: see rdb-key-save-delay.
#[derive(Clone, Copy)]
struct KeyDelay {
    /// Microseconds for a key, or, if negative, a microsecond for so many keys.
    us: i64,
}

impl KeyDelay {
    /// Whether so many keys are too many after so many nanoseconds.
    fn is_ahead(self, keys: u64, nanos: u64) -> bool {
        let wanted_us = match self.us {
            us @ 0.. => keys.saturating_mul(us.unsigned_abs()),
            keys_per_us => keys / keys_per_us.unsigned_abs(),
        };
        nanos / 1000 < wanted_us
    }
}

/// What a shard does when all that it could save at present was handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is something to save in this turn already.
    Saves,
    Waits,
    Ends,
}

/// Returns whether all of the stage is saved.
fn save_until(shard: &mut Shard, part: &mut SnapshotPart, is_over: &mut dyn FnMut() -> bool) -> bool {
    match part.stage {
        Stage::Buckets | Stage::Waits => shard.walk_snapshot(is_over),
        Stage::Values => shard.save_values(&mut part.open, is_over),
    }
}

impl Worker {
    /// Runs this shard's share of a unit over all shards that takes a snapshot. Returns the status that is the reply.
    ///
    /// # Errors
    /// A snapshot is under way.
    pub fn take_snapshot(&mut self, wanted: Wanted, in_exec: bool) -> CommandResult<&'static str> {
        let globals = self.globals;
        let snapshots = &globals.persistence.snapshots;
        let number = self.next_snapshot_number();
        // Whoever changes the configuration may wait for the lock of the snapshots.
        let (_, config) = globals.config();
        let (now_ms, ticks) = (self.time.clock.wall_ms(), self.time.now_ticks());
        let mut state = snapshots.state();
        let verdict = state.judge(number, self.shard.shard_count, |current| {
            match (globals.persistence.loading.is_on(), wanted) {
                (true, _) => Verdict::Refuse("LOADING Redis is loading the dataset in memory"),
                (false, Wanted::Synchronization) => {
                    let sync = globals.stream.take_due_sync(&config, now_ms, current.is_none());
                    let is_of_master = globals.link.is_replica();
                    sync.map_or(Verdict::Status("OK"), |sync| {
                        Verdict::Synchronize(Sync { is_of_master, ..sync })
                    })
                }
                (false, _) => snapshots.decide(current, wanted, in_exec),
            }
        });
        if wanted != Wanted::Synchronization {
            snapshots.started_at_ms.store(0, Ordering::Relaxed);
        }
        let (purpose, sync) = match verdict {
            Verdict::Begin(purpose) => (purpose, None),
            Verdict::Synchronize(sync) => {
                let changes = self.shard.stats.dirty.get();
                match sync.is_of_master {
                    false => self.shard.effects.begin_sync(sync.number, changes),
                    true => self.begin_sync_of_master(sync.number),
                }
                if !sync.keys {
                    return verdict.status();
                }
                (Purpose::Save, Some(sync))
            }
            Verdict::Status(_) | Verdict::Refuse(_) => return verdict.status(),
        };
        // What is left of one that has ended.
        self.drop_snapshot_part();
        let current = state.current.get_or_insert_with(|| {
            let target = match purpose {
                Purpose::Save => match sync {
                    Some(Sync { number: sync, is_diskless: true, .. }) => Target::Replicas { sync },
                    Some(Sync { number: sync, .. }) => {
                        globals.persistence.count_save();
                        Target::SentRdb { sync }
                    }
                    None => {
                        globals.persistence.count_save();
                        Target::Rdb
                    }
                },
                Purpose::Rewrite => {
                    Target::Base { part: if globals.aof.is_on() { globals.aof.next_part() } else { 0 } }
                }
            };
            snapshots.set_begun(purpose, now_ms);
            let number = snapshots.count.fetch_add(1, Ordering::Relaxed);
            Current::begin(target, &config, number, ticks, self.shard.shard_count)
        });
        self.begin_snapshot_part(current);
        let (clock, begun_at_ticks) = (self.time.clock, current.begun_at_ticks);
        if current.start_writer_if_begun(globals, clock, &config, now_ms) {
            let nanos = self.time.nanos(self.time.now_ticks().saturating_sub(begun_at_ticks));
            snapshots.barrier_us.store(nanos / 1000, Ordering::Relaxed);
            drop(state);
            self.tell_save(SaveEvent::Begins(purpose));
        }
        verdict.status()
    }

    fn begin_snapshot_part(&mut self, current: &mut Current) {
        let sizes = self.shard.db_sizes();
        let changes = self.shard.stats.dirty.get();
        let keys_total = &self.globals.persistence.snapshots.keys_total;
        keys_total.fetch_add(sizes.iter().map(|size| size.keys).sum(), Ordering::Relaxed);
        if let Target::Base { part: part @ 1.. } = current.target {
            self.shard.effects.begin_part(part, changes);
        }
        let ticks = self.time.now_ticks();
        self.snapshot_part = Some(Box::new(SnapshotPart {
            chunks: current.begin_part(&sizes, changes),
            progress: Arc::clone(current.progress()),
            waiting: None,
            stage: Stage::Buckets,
            open: None,
            is_urgent: false,
            number: current.number,
            progress_at_ticks: ticks,
            begun_at_ticks: ticks,
            slice_ended_at_ticks: ticks,
            commands_at_slice: 0,
        }));
        self.shard.begin_snapshot(current.number, current.format, &current.progress().unfinished);
    }

    /// In how many milliseconds the snapshot needs this shard's next turn.
    pub(in crate::worker) fn snapshot_wait_ms(&self) -> Option<i64> {
        let part = self.snapshot_part.as_deref()?;
        let waits = part.waiting.is_some() || part.stage == Stage::Waits || self.key_delay().us != 0;
        Some(i64::from(waits))
    }

    /// Saves a slice of this shard's tables, and hands over what is complete. Counts how long the longest one took.
    #[cold]
    pub(in crate::worker) fn run_snapshot(&mut self) {
        let started = self.time.clock.thread_cpu_nanos();
        self.run_snapshot_slice();
        let spent_us = self.time.clock.thread_cpu_nanos().saturating_sub(started) / 1000;
        let longest = &self.shard.stats.snapshot_slice_us_max;
        longest.set(longest.get().max(spent_us));
    }

    /// Saves a slice of this shard's tables, and hands over what is complete.
    fn run_snapshot_slice(&mut self) {
        let Some(mut part) = self.snapshot_part.take() else { return };
        if part.progress.has_ended() {
            self.end_snapshot_part(&part);
            return;
        }
        let started = self.time.now_ticks();
        let goes_on = loop {
            let is_complete = self.save_slice(&mut part, started);
            if !self.hand_over(&mut part) {
                break false;
            }
            if !is_complete || part.waiting.is_some() || self.is_ahead(&part) {
                break true;
            }
            match self.next_stage(&mut part) {
                // At once, as the value may be on another shard by the next turn.
                Next::Saves => {}
                Next::Waits => break true,
                Next::Ends => {
                    part.progress.parts_missing.fetch_sub(1, Ordering::SeqCst);
                    break false;
                }
            }
        };
        if !goes_on {
            self.end_snapshot_part(&part);
            return;
        }
        part.slice_ended_at_ticks = self.time.now_ticks();
        part.commands_at_slice = self.shard.stats.commands_processed.get();
        self.snapshot_part = Some(part);
    }

    /// Hands over what is complete. Returns whether the snapshot goes on.
    fn hand_over(&mut self, part: &mut SnapshotPart) -> bool {
        while let Some(chunk) = part.waiting.take().or_else(|| self.shard.next_snapshot_chunk()) {
            match part.chunks.try_send(chunk) {
                Ok(()) => part.progress_at_ticks = self.time.now_ticks(),
                Err(TrySendError::Full(chunk)) => {
                    part.waiting = Some(chunk);
                    break;
                }
                // The writing thread has failed, and says why itself.
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        !self.is_late(part)
    }

    /// Whether too much waits, and the snapshot is given up: at the bound, as soon as that has been copied and the disk does not take
    /// it. What was not copied took the memory before, too, and may wait for some time.
    fn is_late(&self, part: &mut SnapshotPart) -> bool {
        let (stats, now_ticks) = (&self.shard.stats, self.time.now_ticks());
        stats.snapshot_waiting_bytes.set(self.shard.forced_waiting_bytes() as u64);
        stats.snapshot_kept_bytes.set(self.shard.kept_bytes() as u64);
        let all_bytes = self.globals.sum(|stats| stats.snapshot_waiting_bytes.get());
        let max_bytes = if all_bytes > 0 { self.waiting_max() } else { 0 };
        part.is_urgent = all_bytes > max_bytes;
        if part.waiting.is_none() && self.can_call_modules() {
            part.progress_at_ticks = now_ticks;
            return false;
        }
        if !part.is_urgent {
            return false;
        }
        let copied_bytes =
            all_bytes.saturating_sub(self.globals.sum(|stats| stats.snapshot_kept_bytes.get()));
        let stalled_nanos = self.time.nanos(now_ticks.saturating_sub(part.progress_at_ticks));
        let is_late = copied_bytes > max_bytes || stalled_nanos > PATIENCE_NANOS;
        if is_late {
            part.progress.is_late.store(true, Ordering::SeqCst);
        }
        is_late
    }

    /// All that could be saved in this stage was handed over: goes on to the next one, if that may begin.
    fn next_stage(&mut self, part: &mut SnapshotPart) -> Next {
        let progress = &part.progress;
        match part.stage {
            Stage::Buckets => {
                progress.buckets_missing.fetch_sub(1, Ordering::SeqCst);
            }
            Stage::Waits => {}
            Stage::Values => {
                let mut turn = progress.lock_turn();
                (turn.is_taken, turn.open) = (false, part.open.take());
            }
        }
        part.stage = Stage::Waits;
        // From then on there are no new records.
        if progress.buckets_missing.load(Ordering::SeqCst) > 0 {
            return Next::Waits;
        }
        if progress.unfinished.load(Ordering::SeqCst) == 0 {
            return Next::Ends;
        }
        let mut turn = progress.lock_turn();
        if turn.is_taken || !self.shard.has_unsaved_values(turn.open) {
            return Next::Waits;
        }
        turn.is_taken = true;
        (part.stage, part.open) = (Stage::Values, turn.open);
        Next::Saves
    }

    /// Whether values of modules can be saved: not while a thread of a module has that module to itself.
    fn can_call_modules(&self) -> bool {
        self.globals.module_types.all().iter().all(|of| of.is_callable())
    }

    /// Saves a slice, unless there is something to wait for. Returns whether all of this stage is saved.
    fn save_slice(&mut self, part: &mut SnapshotPart, started: u64) -> bool {
        let has_to_wait = part.waiting.is_some() || self.is_ahead(part) || !self.can_call_modules();
        if has_to_wait || part.stage == Stage::Waits {
            return save_until(&mut self.shard, part, &mut || true);
        }
        let (clock, time) = (self.time.clock, &self.time);
        let is_busy = self.shard.stats.commands_processed.get() != part.commands_at_slice;
        let since_last = time.nanos(started.saturating_sub(part.slice_ended_at_ticks));
        let nanos_max = match is_busy && !part.is_urgent {
            true => (since_last / SLICE_SHARE_BUSY).clamp(SLICE_NANOS_MIN, SLICE_NANOS_MAX),
            false => SLICE_NANOS_MAX,
        };
        let is_delayed = self.key_delay().us != 0;
        let mut is_first = true;
        save_until(&mut self.shard, part, &mut || {
            let ran_nanos = time.nanos(time.now_ticks().saturating_sub(started));
            !std::mem::replace(&mut is_first, false)
                && (is_delayed || clock.ends_snapshot_slice(ran_nanos, nanos_max))
        })
    }

    /// Whether the walk has to wait because of rdb-key-save-delay.
    fn is_ahead(&self, part: &SnapshotPart) -> bool {
        let nanos = self.time.nanos(self.time.now_ticks().saturating_sub(part.begun_at_ticks));
        self.key_delay().is_ahead(self.shard.stats.snapshot_keys.get(), nanos)
    }

    /// rdb-key-save-delay, for the share of one shard.
    fn key_delay(&self) -> KeyDelay {
        KeyDelay { us: i64::from(self.shard.config.rdb_key_save_delay_us) * self.shard.shard_count as i64 }
    }

    /// How many bytes that changes have forced out may wait for the disk.
    fn waiting_max(&self) -> u64 {
        match self.shard.config.snapshot_memory_limit_bytes {
            0 => WAITING_BYTES_MIN.max(self.globals.used_memory() / 10),
            limit_bytes => limit_bytes,
        }
    }

    fn drop_snapshot_part(&mut self) {
        if let Some(part) = self.snapshot_part.take() {
            self.end_snapshot_part(&part);
        }
    }

    fn end_snapshot_part(&mut self, part: &SnapshotPart) {
        self.shard.end_snapshot(part.number);
        self.shard.stats.snapshot_waiting_bytes.set(0);
        self.shard.stats.snapshot_kept_bytes.set(0);
    }

    /// Ends the snapshot that is under way without a file, if it is for one of these purposes. To be called on all shards.
    pub fn cancel_snapshot(&mut self, purposes: &[Purpose]) {
        let state = self.globals.persistence.snapshots.state();
        let Some(current) = &state.current else { return };
        if purposes.contains(&current.purpose()) {
            current.progress().cancel();
            drop(state);
            self.drop_snapshot_part();
        }
    }

    /// A replica has gone: ends the snapshot that is under way if nobody waits for it any more, nor is it made for the disk.
    pub(in crate::worker) fn cancel_useless_snapshot(&self) {
        let globals = self.globals;
        let state = globals.persistence.snapshots.state();
        let Some(current) = &state.current else { return };
        let is_waited_for = |sync| !globals.stream.payloads_of(sync).is_empty();
        match current.target {
            Target::Replicas { sync } if !is_waited_for(sync) => {
                log::notice(format_args!("Diskless rdb transfer, last replica dropped, killing fork child."))
            }
            Target::SentRdb { sync } if !is_waited_for(sync) && self.shard.config.save.0.is_empty() => {}
            Target::Replicas { .. } | Target::SentRdb { .. } | Target::Rdb | Target::Base { .. } => return,
        }
        current.progress().cancel();
    }

    /// Takes in the outcome of the snapshot that is under way, if its writing thread has ended. On one shard.
    #[cold]
    pub(in crate::worker) fn end_snapshot(&mut self) {
        let persistence = &self.globals.persistence;
        let snapshots = &persistence.snapshots;
        let mut state = snapshots.state();
        let Some(mut current) = state.current.take_if(|current| current.has_ended()) else { return };
        let outcome = current.outcome();
        let (purpose, now_ms) = (current.purpose(), self.shard.now_ms);
        let forced_bytes = self.globals.sum(|stats| stats.snapshot_forced_bytes.get());
        snapshots.record_end(purpose, forced_bytes, now_ms);
        let event = if matches!(outcome, Ok(true)) { SaveEvent::Ended } else { SaveEvent::Failed };
        match purpose {
            Purpose::Save if let Target::Replicas { sync } = current.target => match outcome {
                Ok(true) => {
                    let left = self.globals.stream.payloads_of(sync).len();
                    log::warning(format_args!(
                        "Diskless rdb transfer, done reading from pipe, {left} replicas still up."
                    ));
                    log::notice(format_args!("Background RDB transfer terminated with success"));
                }
                Ok(false) => log::warning(format_args!("Background transfer was cancelled")),
                Err(error) => log::warning(format_args!("Background transfer error: {error}")),
            },
            Purpose::Save => match outcome {
                Ok(true) => {
                    log::notice(format_args!("DB saved on disk"));
                    log::notice(format_args!("Saved {forced_bytes} bytes of RDB before they changed"));
                    log::notice(format_args!("Background saving terminated with success"));
                    persistence.record(&Ok(()), current.changes, now_ms);
                }
                Ok(false) => log::warning(format_args!("Background saving was cancelled")),
                Err(error) => {
                    log::warning(format_args!("Write error saving DB on disk: {error}"));
                    log::warning(format_args!("Background saving error"));
                    persistence.record_failure();
                }
            },
            Purpose::Rewrite => {
                let failures = &snapshots.rewrites.failures_in_a_row;
                match outcome {
                    Ok(true) => {
                        failures.store(0, Ordering::Relaxed);
                        log::notice(format_args!(
                            "Saved {forced_bytes} bytes of the AOF's base before they changed"
                        ));
                        log::notice(format_args!("Background AOF rewrite terminated with success"));
                    }
                    Ok(false) => log::warning(format_args!("Background AOF rewrite was cancelled")),
                    Err(error) => {
                        failures.fetch_add(1, Ordering::Relaxed);
                        log::warning(format_args!("Write error writing append only file on disk: {error}"));
                        log::warning(format_args!("Background AOF rewrite terminated with error"));
                    }
                }
                if self.globals.aof.awaits_base() {
                    snapshots.rewrites.is_scheduled.store(true, Ordering::Relaxed);
                }
            }
        }
        snapshots.set_under_way(None);
        drop(state);
        self.tell_save(event);
    }

    /// Whether [`Worker::begin_due_snapshot`] is to be called in this turn already.
    #[inline]
    pub(in crate::worker) fn is_rewrite_requested(&self) -> bool {
        self.shard.index == SNAPSHOT_SHARD
            && self.globals.persistence.snapshots.is_rewrite_requested.load(Ordering::Relaxed)
    }

    /// Starts the snapshot that is due: one that was asked for or scheduled, a save point that is reached, an append-only file
    /// that has grown. On one shard.
    pub(in crate::worker) fn begin_due_snapshot(&mut self) {
        let persistence = &self.globals.persistence;
        let snapshots = &persistence.snapshots;
        let now_ms = self.shard.now_ms;
        if snapshots.is_under_way()
            || persistence.loading.is_on()
            || now_ms - snapshots.started_at_ms.load(Ordering::Relaxed) < START_PATIENCE_MS
        {
            return;
        }
        let command = match self.due_snapshot(now_ms / 1000) {
            None => return,
            Some(Purpose::Save) => "bgsave",
            Some(Purpose::Rewrite) => "bgrewriteaof",
        };
        snapshots.started_at_ms.store(now_ms, Ordering::Relaxed);
        let table = self.table;
        if let Some(entry) = table.all().find(|entry| entry.row.name == command) {
            self.begin_every_for_nobody(entry);
        }
    }

    fn due_snapshot(&self, now_s: i64) -> Option<Purpose> {
        let snapshots = &self.globals.persistence.snapshots;
        let is_set = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
        if is_set(&snapshots.is_rewrite_requested)
            || is_set(&snapshots.rewrites.is_scheduled) && !snapshots.is_limited(now_s)
        {
            return Some(Purpose::Rewrite);
        }
        let since_try_s = now_s - snapshots.saves.begun_at_s.load(Ordering::Relaxed);
        let may_save = !self.globals.persistence.has_last_save_failed() || since_try_s > RETRY_DELAY_S;
        if may_save && self.is_save_point_reached(now_s) {
            return Some(Purpose::Save);
        }
        if self.has_file_grown(now_s) {
            return Some(Purpose::Rewrite);
        }
        (may_save && is_set(&snapshots.saves.is_scheduled)).then_some(Purpose::Save)
    }

    fn is_save_point_reached(&self, now_s: i64) -> bool {
        if self.shard.config.save.0.is_empty() {
            return false;
        }
        let persistence = &self.globals.persistence;
        let changes = persistence.unsaved_changes(self.globals.sum(|stats| stats.dirty.get()));
        let since_save_s = now_s - persistence.last_save_at_s();
        let is_reached = |point: &&SavePoint| {
            changes as i64 >= i64::from(point.change_count) && since_save_s > point.period_s
        };
        let Some(point) = self.shard.config.save.0.iter().find(is_reached) else { return false };
        log::notice(format_args!("{} changes in {} seconds. Saving...", point.change_count, point.period_s));
        true
    }

    /// Whether the append-only file has grown by auto-aof-rewrite-percentage.
    fn has_file_grown(&self, now_s: i64) -> bool {
        let (aof, config) = (&self.globals.aof, &self.shard.config);
        let percentage = u64::from(config.auto_aof_rewrite_percentage);
        let bytes = aof.current_bytes();
        if !aof.is_on()
            || aof.awaits_base()
            || percentage == 0
            || bytes <= config.auto_aof_rewrite_min_size_bytes
        {
            return false;
        }
        let growth = (bytes.saturating_mul(100) / aof.base_bytes().max(1)).saturating_sub(100);
        if growth < percentage || self.globals.persistence.snapshots.is_limited(now_s) {
            return false;
        }
        log::notice(format_args!("Starting automatic rewriting of AOF on {growth}% growth"));
        true
    }
}
