//! Snapshots that are taken while commands go on: BGSAVE, save points, the base of a rewritten append-only file, and what
//! replicas get first.
//!
//! How the shards save one moment without standing still is described in [`crate::shard::snapshot`]. Here is what
//! happens around it:
//!
//! - BGSAVE and BGREWRITEAOF are units over all shards. The first shard that runs one decides for all what it does
//!   ([`Worker::take_snapshot`]) and begins the snapshot, each shard begins its part, and the last one starts the thread that
//!   writes the file. What was scheduled or is due starts the same commands without a client ([`Worker::begin_due_snapshot`]).
//! - In each turn a shard saves a slice of its tables ([`Worker::run_snapshot`]), and hands complete chunks over to the
//!   writing thread, by a bounded queue. The shard never waits: while the queue is full, the walk pauses.
//! - The records of big values come last: when all shards have handed over what else they have, one shard after the other
//!   writes those whose values it has. A record has to be contiguous in the file, and takes many turns: if its value goes to
//!   another shard meanwhile, the turn to write goes there, too. A shard is done when there are no records any more on any.
//! - The queue ends when all shards have handed over their parts. The writing thread then completes the file and puts it in
//!   place, unless a shard has dropped its part: a file is never a part of the data set. A shard looks in each turn whether
//!   the thread has ended, and takes in the outcome.
//!
//! A rewrite begins a new part of the effect stream under the same barrier. What ran before the barrier is in the tables
//! then, and precedes the part in the stream; what runs after it follows. So the base and the file of that part together
//! have every unit once. The one exception are libraries of functions, which are no keys: the base has them as they are when
//! all shards have begun, so a change of them at that moment may be in both, where it does no harm.
//!
//! FLUSHALL and a shutdown cancel a save: whoever has done so may rely on that no file of it appears from then on. A rewrite
//! is cancelled by a shutdown, DEBUG LOADAOF, and CONFIG SET appendonly no.

mod compress;
mod file;
mod part;

pub(super) use file::{FilePlan, Progress};
pub(super) use part::SnapshotPart;

use self::file::Current;
use crate::command::CommandError;
use crate::runtime::log;
use crate::worker::stream::Sync;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The shard that begins what is due, and takes in outcomes.
pub const SNAPSHOT_SHARD: usize = 0;

/// After so many rewrites in a row that have failed, automatic ones are delayed, ...
const FAILURES_MAX: u64 = 3;
/// ... by a minute, then two, and so on up to so many.
const DELAY_MIN_MAX: i64 = 60;

/// What a snapshot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The RDB file.
    Save,
    /// The base of the append-only file.
    Rewrite,
}

/// What a command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Save,
    /// A save, later if it cannot begin now.
    ScheduledSave,
    Rewrite,
    /// Nothing but that no background save is under way: SAVE.
    SaveAtOnce,
    /// A save for replicas, if they still need one.
    Synchronization,
}

/// What a unit over all shards does, decided once for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Begin(Purpose),
    /// A full synchronization, with a save for the replicas if it is one of keys.
    Synchronize(Sync),
    /// Nothing; the reply is this status.
    Status(&'static str),
    Refuse(&'static str),
}

/// What the process knows of its snapshots, of which one is under way at a time.
#[derive(Default)]
pub struct Snapshots {
    state: Mutex<State>,
    /// What for: 0 for nothing, or the number of the purpose and one more.
    under_way: AtomicU8,
    /// A rewrite is to begin with the next turn of [`SNAPSHOT_SHARD`].
    is_rewrite_requested: AtomicBool,
    /// When one was started without a client that has not begun yet; 0: none.
    started_at_ms: AtomicI64,
    /// The keys that the present one is to save.
    keys_total: AtomicU64,
    /// How many have begun.
    count: AtomicU64,
    /// How long the last barrier took.
    barrier_us: AtomicU64,
    saves: Series,
    rewrites: Series,
    /// After several rewrites have failed: the next automatic one may begin at this unix time.
    retry_at_s: AtomicI64,
}

/// What is known of saves, or of rewrites.
#[derive(Default)]
struct Series {
    is_scheduled: AtomicBool,
    /// Unix time in seconds.
    begun_at_s: AtomicI64,
    /// How long the last one took, and one second more; 0: there was none.
    last_duration_s: AtomicI64,
    begun_count: AtomicU64,
    /// How many have failed since the last one that did not.
    failures_in_a_row: AtomicU64,
    /// What the last one had to save because it was about to change.
    last_forced_bytes: AtomicU64,
}

/// What INFO shows of saves, or of rewrites.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub is_under_way: bool,
    pub is_scheduled: bool,
    /// -1: there was none.
    pub last_duration_s: i64,
    /// -1: none is under way.
    pub running_s: i64,
    pub begun_count: u64,
    pub failures_in_a_row: u64,
    pub last_forced_bytes: u64,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// The verdicts on units that some shards have not run yet, by their numbers, and how many these shards are.
    verdicts: BTreeMap<u64, (Verdict, usize)>,
}

impl Snapshots {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the snapshots panics")
    }

    #[inline]
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) != 0
    }

    /// What the snapshot is for that is under way.
    pub fn under_way(&self) -> Option<Purpose> {
        let number = usize::from(self.under_way.load(Ordering::Relaxed));
        [None, Some(Purpose::Save), Some(Purpose::Rewrite)][number]
    }

    fn set_under_way(&self, purpose: Option<Purpose>) {
        self.under_way.store(purpose.map_or(0, |purpose| purpose as u8 + 1), Ordering::SeqCst);
    }

    /// One begins. From here on it is under way, and no longer scheduled.
    fn set_begun(&self, purpose: Purpose, now_ms: i64) {
        let series = self.of(purpose);
        series.begun_at_s.store(now_ms / 1000, Ordering::Relaxed);
        series.begun_count.fetch_add(1, Ordering::Relaxed);
        self.keys_total.store(0, Ordering::Relaxed);
        self.set_under_way(Some(purpose));
        series.is_scheduled.store(false, Ordering::SeqCst);
        if purpose == Purpose::Rewrite {
            self.is_rewrite_requested.store(false, Ordering::SeqCst);
        }
    }

    fn of(&self, purpose: Purpose) -> &Series {
        match purpose {
            Purpose::Save => &self.saves,
            Purpose::Rewrite => &self.rewrites,
        }
    }

    /// What INFO shows of one kind.
    pub fn figures(&self, purpose: Purpose, now_ms: i64) -> Figures {
        let series = self.of(purpose);
        // Before the others are: one that begins is scheduled until it is under way.
        let is_scheduled = series.is_scheduled.load(Ordering::SeqCst);
        let is_requested = purpose == Purpose::Rewrite && self.is_rewrite_requested.load(Ordering::SeqCst);
        let is_under_way = self.under_way() == Some(purpose);
        let running_s = now_ms / 1000 - series.begun_at_s.load(Ordering::Relaxed);
        Figures {
            is_under_way: is_under_way || is_requested,
            // One that has ended may be scheduled again.
            is_scheduled: is_scheduled || series.is_scheduled.load(Ordering::SeqCst),
            last_duration_s: series.last_duration_s.load(Ordering::Relaxed) - 1,
            running_s: if is_under_way { running_s } else { -1 },
            begun_count: series.begun_count.load(Ordering::Relaxed),
            failures_in_a_row: series.failures_in_a_row.load(Ordering::Relaxed),
            last_forced_bytes: series.last_forced_bytes.load(Ordering::Relaxed),
        }
    }

    /// The keys that the present one is to save; 0: there is none.
    pub fn keys_total(&self) -> u64 {
        if self.is_under_way() { self.keys_total.load(Ordering::Relaxed) } else { 0 }
    }

    /// How many have begun.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long all shards together were held up by the beginning of the last one, in microseconds.
    pub fn barrier_us(&self) -> u64 {
        self.barrier_us.load(Ordering::Relaxed)
    }

    /// Has a rewrite begin at once, in place of one that is under way, or behind a save. The caller wakes
    /// [`SNAPSHOT_SHARD`].
    pub(super) fn request_rewrite(&self) {
        log::notice(format_args!("AOF was enabled. An AOF background was scheduled to start when possible."));
        let state = self.state();
        match state.current.as_ref().map(|current| (current.purpose(), current)) {
            Some((Purpose::Save, _)) => {
                self.rewrites.is_scheduled.store(true, Ordering::Relaxed);
                return;
            }
            Some((Purpose::Rewrite, current)) => current.progress().cancel(),
            None => {}
        }
        self.is_rewrite_requested.store(true, Ordering::Relaxed);
    }

    /// Cancels the rewrite that is under way, and drops what was asked for. `end`: runs while none can begin.
    pub(super) fn end_rewrites(&self, end: impl FnOnce()) {
        let state = self.state();
        self.is_rewrite_requested.store(false, Ordering::Relaxed);
        self.rewrites.is_scheduled.store(false, Ordering::Relaxed);
        end();
        let current = state.current.as_ref().filter(|current| current.purpose() == Purpose::Rewrite);
        if let Some(current) = current {
            log::notice(format_args!("Killing AOF child: the rewrite ends"));
            current.progress().cancel();
        }
    }

    /// Whether automatic rewrites have to wait, because several have failed. Sets how long, and says so in the log.
    fn is_limited(&self, now_s: i64) -> bool {
        let failures = self.rewrites.failures_in_a_row.load(Ordering::Relaxed);
        if failures < FAILURES_MAX {
            return false;
        }
        match self.retry_at_s.load(Ordering::Relaxed) {
            0 => {
                let minutes = 1i64.checked_shl((failures - FAILURES_MAX) as u32).unwrap_or(DELAY_MIN_MAX);
                let minutes = minutes.clamp(1, DELAY_MIN_MAX);
                self.retry_at_s.store(now_s + minutes * 60, Ordering::Relaxed);
                log::warning(format_args!(
                    "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {minutes} minutes"
                ));
                true
            }
            at_s if now_s < at_s => true,
            _ => {
                self.retry_at_s.store(0, Ordering::Relaxed);
                false
            }
        }
    }

    /// What a command does now, without regard to other shards.
    fn decide(&self, current: Option<Purpose>, wanted: Wanted, in_exec: bool) -> Verdict {
        let can_begin = current.is_none() && !in_exec;
        match wanted {
            Wanted::Save | Wanted::ScheduledSave | Wanted::SaveAtOnce if current == Some(Purpose::Save) => {
                Verdict::Refuse("ERR Background save already in progress")
            }
            Wanted::SaveAtOnce => Verdict::Status("OK"),
            Wanted::Synchronization => unreachable!("it is decided with the replicas"),
            Wanted::Save | Wanted::ScheduledSave if can_begin => Verdict::Begin(Purpose::Save),
            Wanted::Save if !in_exec => Verdict::Refuse(
                "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
                 schedule a BGSAVE whenever possible.",
            ),
            Wanted::Save | Wanted::ScheduledSave => {
                self.saves.is_scheduled.store(true, Ordering::Relaxed);
                Verdict::Status("Background saving scheduled")
            }
            Wanted::Rewrite if current == Some(Purpose::Rewrite) => {
                Verdict::Refuse("ERR Background append only file rewriting already in progress")
            }
            Wanted::Rewrite if can_begin => Verdict::Begin(Purpose::Rewrite),
            Wanted::Rewrite => {
                self.rewrites.is_scheduled.store(true, Ordering::SeqCst);
                self.is_rewrite_requested.store(false, Ordering::SeqCst);
                // Who asks for one knows better than the failures before.
                self.rewrites.failures_in_a_row.store(0, Ordering::Relaxed);
                Verdict::Status("Background append only file rewriting scheduled")
            }
        }
    }

    /// The process ends: waits for the writing thread, which leaves no file behind.
    pub fn abandon(&self) {
        let current = self.state().current.take();
        if let Some(current) = current {
            current.abandon();
        }
    }
}

impl State {
    /// The verdict on unit `number`: all shards get the one that the first one got.
    fn judge(
        &mut self,
        number: u64,
        shard_count: usize,
        decide: impl FnOnce(Option<Purpose>) -> Verdict,
    ) -> Verdict {
        let current = self.current.as_ref().map(Current::purpose);
        let verdict = self.verdicts.entry(number).or_insert_with(|| (decide(current), shard_count));
        verdict.1 -= 1;
        let (verdict, left) = *verdict;
        if left == 0 {
            self.verdicts.remove(&number);
        }
        verdict
    }
}

impl Verdict {
    /// The status that is the reply.
    fn status(self) -> Result<&'static str, CommandError> {
        match self {
            Verdict::Begin(Purpose::Save) => Ok("Background saving started"),
            Verdict::Begin(Purpose::Rewrite) => Ok("Background append only file rewriting started"),
            Verdict::Synchronize(_) => Ok("OK"),
            Verdict::Status(status) => Ok(status),
            Verdict::Refuse(error) => Err(CommandError::fixed(error)),
        }
    }
}

#[cfg(test)]
mod tests;
