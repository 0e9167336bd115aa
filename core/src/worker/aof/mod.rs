//! The append-only file: every shard's effects go to a thread that merges them ([`merger`](crate::shard::effects::merger))
//! and writes them to disk. No shard ever waits for the disk.
//!
//! ```text
//! shard 0 ──batches──┐
//! shard 1 ──batches──┼─► writer thread: merge ─► write ─► fdatasync ─► safe_seq, bells
//! shard 2 ──batches──┘                                                     │
//!    ▲  output whose ticket is safe leaves                                 │
//!    └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Replies wait
//!
//! Nothing that shows a change leaves before the change is safe: with `appendfsync always` on disk, otherwise written, so that
//! it survives the process. At the end of each turn a shard draws the sequence
//! number of its batch, before anything leaves it. Its *ticket* is the number of batches that must be safe before what
//! it knows may be shown: one more than the number of its last batch, or the ticket of a shard that it has had a message
//! from, whichever is higher. A shard publishes its ticket before its messages leave. So a shard that learns of a change
//! in any way that matters, by a reply, a check-in, a transaction, or the stream for replicas, has at least the ticket
//! that covers it. What a connection is to be sent is marked with the ticket of the turn, and leaves when
//! [`Aof::safe_seq`] has reached it. Meanwhile commands run on: the writer makes one write and one fdatasync for all
//! batches that have come in during the last one.
//!
//! The changes of a transaction over several shards are written when all its pieces have arrived. Until then no later
//! batch counts as safe, so nobody is told of a part of it.
//!
//! With `everysec` the file is synchronized by a third thread, and the writer writes meanwhile. What the disk refuses, and,
//! while the writer is behind, what it has not got to, counts as safe then: as in Redis, -MISCONF and the stalling of those
//! who write take the place of waiting.
//!
//! # Back-pressure
//!
//! The queue to the writer is bounded in this way: when [`QUEUED_BYTES_MAX`] wait, or the writer has been busy with one
//! write or synchronization for [`BEHIND_MS`], clients that write are stalled as by CLIENT PAUSE WRITE, and no longer read; reads go on. What
//! a turn may add once the bound is reached is what was under way between the shards.
//!
//! # Parts
//!
//! A rewrite begins a new part of the stream at its barrier ([`snapshot`](crate::worker::snapshot)), which goes to a new
//! file. When the base is complete, the writer puts it in its place and makes the files before that part history (`parts`).
//! Until then what could be loaded before can be loaded still, with the new file as one more.
//!
//! # Errors
//!
//! As in Redis: with `always` an error ends the process, and no reply was sent for what is not on disk. Otherwise writes
//! get -MISCONF until the writer has succeeded; it tries again every [`RETRY`]. An fdatasync that has failed says nothing
//! about what was written before, even if the next one succeeds, so that ends the process, too, and the next start finds
//! what is really there.

pub mod files;
mod hold;
pub mod load;
mod parts;
pub mod writer;

pub(super) use hold::Outlet;
pub(super) use parts::NewBase;

use self::writer::Writer;
use crate::runtime::clock::Clock;
use crate::runtime::disk::SystemDisk;
use crate::runtime::driver::BellHandle;
use crate::shard::effects::EffectBatch;
use crate::worker::Globals;
use crate::worker::snapshot::SNAPSHOT_SHARD;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// So many bytes of effects may wait for the writer before clients that write are stalled.
pub const QUEUED_BYTES_MAX: u64 = 64 << 20;

/// So long the writer may be busy with one write before clients that write are stalled.
pub const BEHIND_MS: i64 = 2000;

/// After an error the writer tries again when so much time has passed.
pub const RETRY: Duration = Duration::from_millis(100);

/// What the writer is told.
pub enum ToWriter {
    /// A shard's effects of a turn.
    Batch { seq: u64, batch: Arc<EffectBatch> },
    /// To answer when all batches before it are written.
    Flush(SyncSender<()>),
    /// The base of a rewrite is complete, or has failed.
    Base(NewBase),
    /// The file ends here: CONFIG SET appendonly no. `last_part`: the last one that was begun, or will be all the same.
    Off { last_part: u64 },
    /// To write and synchronize what is there, and to end.
    Stop,
}

/// What all shards and the writer share of the append-only file.
pub struct Aof {
    sender: Mutex<Sender<ToWriter>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Until the writer takes it.
    receiver: Mutex<Option<Receiver<ToWriter>>>,
    /// The file is written, or is going to be once the data set is loaded.
    is_on: AtomicBool,
    /// It is, or was.
    has_begun: AtomicBool,
    next_seq: AtomicU64,
    safe_seq: AtomicU64,
    /// By shard: see the module's documentation.
    tickets: Vec<AtomicU64>,
    /// By shard: it holds output back, and wants to be woken when `safe_seq` rises.
    is_waiting: Vec<AtomicBool>,
    bells: OnceLock<Vec<BellHandle>>,
    /// Bytes of batches that the writer has not written yet.
    queued_bytes: AtomicU64,
    /// When the writer began with the write or the synchronization that it is busy with; 0: it is not busy.
    busy_since_ms: AtomicI64,
    /// It has been reported that the writer is behind.
    is_behind_reported: AtomicBool,
    delayed_fsyncs: AtomicU64,
    /// Why writes are refused at present.
    has_error: AtomicBool,
    error: Mutex<String>,
    base_bytes: AtomicU64,
    current_bytes: AtomicU64,
    /// DEBUG AOF-FLUSH-SLEEP.
    flush_sleep_us: AtomicU64,
    /// The number of the last part of the stream that was begun.
    last_part: AtomicU64,
    /// The file was turned on while the server runs, and its first base is not complete: nothing could be loaded.
    awaits_base: AtomicBool,
}

impl Aof {
    pub fn new(shard_count: usize) -> Aof {
        let (sender, receiver) = channel();
        Aof {
            sender: Mutex::new(sender),
            writer: Mutex::new(None),
            receiver: Mutex::new(Some(receiver)),
            is_on: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            next_seq: AtomicU64::new(0),
            safe_seq: AtomicU64::new(0),
            tickets: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
            is_waiting: (0..shard_count).map(|_| AtomicBool::new(false)).collect(),
            bells: OnceLock::new(),
            queued_bytes: AtomicU64::new(0),
            busy_since_ms: AtomicI64::new(0),
            is_behind_reported: AtomicBool::new(false),
            delayed_fsyncs: AtomicU64::new(0),
            has_error: AtomicBool::new(false),
            error: Mutex::new(String::new()),
            base_bytes: AtomicU64::new(0),
            current_bytes: AtomicU64::new(0),
            flush_sleep_us: AtomicU64::new(0),
            last_part: AtomicU64::new(0),
            awaits_base: AtomicBool::new(false),
        }
    }

    /// The bells of the shards, by which the writer wakes them.
    pub fn set_bells(&self, bells: Vec<BellHandle>) {
        let _ = self.bells.set(bells);
    }

    /// A shard's bell, for other threads; `None`: there are none.
    pub fn bell(&self, shard: usize) -> Option<BellHandle> {
        self.bells.get().map(|bells| bells[shard].clone())
    }

    /// Wakes a shard.
    pub fn ring(&self, shard: usize) {
        if let Some(bells) = self.bells.get() {
            bells[shard].ring();
        }
    }

    /// Whether the file is written, or is going to be once the data set is loaded.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub fn set_on(&self, is_on: bool) {
        if is_on {
            // First, so that every shard on which a part of the file has begun, and who hears from it, knows it.
            self.has_begun.store(true, Ordering::SeqCst);
        }
        self.is_on.store(is_on, Ordering::SeqCst);
    }

    /// Whether the file is written, or was since the server was started.
    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    fn sender(&self) -> Sender<ToWriter> {
        self.sender.lock().expect("no holder of the writer's queue panics").clone()
    }

    fn take_receiver(&self) -> Option<Receiver<ToWriter>> {
        self.receiver.lock().expect("no holder of the writer's queue panics").take()
    }

    /// All batches with lower numbers are as safe as appendfsync promises: with `always` on disk, otherwise written, or
    /// refused by the disk, which is reported.
    #[inline]
    pub fn safe_seq(&self) -> u64 {
        self.safe_seq.load(Ordering::SeqCst)
    }

    /// Batches with lower numbers are safe. Wakes the shards that wait for that.
    fn publish_safe(&self, seq: u64) {
        if self.safe_seq.swap(seq, Ordering::SeqCst) == seq {
            return;
        }
        for (shard, is_waiting) in self.is_waiting.iter().enumerate() {
            // The shard sets the flag before it looks at `safe_seq` for the last time.
            if is_waiting.load(Ordering::SeqCst) && is_waiting.swap(false, Ordering::SeqCst) {
                self.ring(shard);
            }
        }
    }

    /// Whether clients that write are to be stalled. Counts and reports it when it begins.
    fn is_behind(&self, now_ms: i64) -> bool {
        let since_ms = self.busy_since_ms.load(Ordering::Relaxed);
        let is_slow = since_ms != 0 && now_ms - since_ms > BEHIND_MS;
        let is_behind = is_slow || self.queued_bytes.load(Ordering::Relaxed) > QUEUED_BYTES_MAX;
        if is_behind && !self.is_behind_reported.swap(true, Ordering::Relaxed) {
            self.delayed_fsyncs.fetch_add(1, Ordering::Relaxed);
            crate::runtime::log::notice(format_args!(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting \
                 for fsync to complete, this may slow down Shardis."
            ));
        }
        is_behind
    }

    /// The writer begins something that may take long, or has ended it.
    fn set_busy(&self, since_ms: Option<i64>) {
        self.busy_since_ms.store(since_ms.unwrap_or(0), Ordering::Relaxed);
        if since_ms.is_none() {
            self.is_behind_reported.store(false, Ordering::Relaxed);
        }
    }

    /// Whether writes are refused because the file cannot be written.
    #[inline]
    pub fn has_error(&self) -> bool {
        self.has_error.load(Ordering::Relaxed)
    }

    /// Why the file cannot be written, in the system's words.
    pub fn error_text(&self) -> String {
        self.error.lock().expect("no holder of the error panics").clone()
    }

    fn set_error(&self, text: Option<String>) {
        let is_error = text.is_some();
        *self.error.lock().expect("no holder of the error panics") = text.unwrap_or_default();
        self.has_error.store(is_error, Ordering::Relaxed);
    }

    /// The length of the base and the files of commands at the last rewrite, or at the start, in bytes.
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes.load(Ordering::Relaxed)
    }

    /// The length of the base and the files of commands now, in bytes.
    pub fn current_bytes(&self) -> u64 {
        self.current_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are not written yet.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Acquire)
    }

    /// How often the writer was behind.
    pub fn delayed_fsyncs(&self) -> u64 {
        self.delayed_fsyncs.load(Ordering::Relaxed)
    }

    /// The number of a new part of the stream, for [`EffectLog::begin_part`].
    ///
    /// [`EffectLog::begin_part`]: crate::shard::effects::EffectLog::begin_part
    pub fn next_part(&self) -> u64 {
        self.last_part.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of the part of the stream that was begun last.
    pub fn current_part(&self) -> u64 {
        self.last_part.load(Ordering::Relaxed)
    }

    /// So many bytes are in the files at the start.
    pub fn set_sizes(&self, bytes: u64) {
        self.base_bytes.store(bytes, Ordering::Relaxed);
        self.current_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Has the writer wait for so long before each write (DEBUG AOF-FLUSH-SLEEP), in microseconds.
    pub fn set_flush_sleep_us(&self, sleep_us: u64) {
        self.flush_sleep_us.store(sleep_us, Ordering::Relaxed);
    }

    /// Waits until all that has been sent to the writer is written. Returns at once if it was never started: then nothing
    /// was sent.
    pub fn flush(&self) {
        if self.writer.lock().expect("no holder of the writer panics").is_none() {
            return;
        }
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        if self.sender().send(ToWriter::Flush(done)).is_ok() {
            // If the writer has ended, nothing is left to be waited for.
            let _ = is_done.recv();
        }
    }

    /// Starts the writer, unless it runs. `begin` gives it what it begins with.
    pub fn start_writer(
        globals: &'static Globals,
        clock: &'static dyn Clock,
        begin: impl FnOnce(&mut Writer),
    ) {
        let aof = &globals.aof;
        let Some(inbox) = aof.take_receiver() else { return };
        let mut writer = Writer::new(Box::new(SystemDisk), clock, Arc::clone(&globals.latency));
        begin(&mut writer);
        let thread = std::thread::Builder::new().name("aof-writer".to_owned());
        let thread =
            thread.spawn(move || writer.run(globals, &inbox)).expect("the system can start a thread");
        *aof.writer.lock().expect("no holder of the writer panics") = Some(thread);
    }

    /// Has the writer write and synchronize what is there, and waits for its end, unless it has ended already.
    pub fn stop_writer(&self) {
        let writer = self.writer.lock().expect("no holder of the writer panics").take();
        let Some(writer) = writer else { return };
        if self.is_on() {
            crate::runtime::log::notice(format_args!("Calling fsync() on the AOF file."));
        }
        let _ = self.sender().send(ToWriter::Stop);
        let _ = writer.join();
    }

    /// Whether nothing could be loaded yet: the file was turned on, and its first base is not complete.
    pub fn awaits_base(&self) -> bool {
        self.awaits_base.load(Ordering::Relaxed)
    }

    /// Hands the base of a rewrite over to the writer, which answers by [`NewBase::done`].
    pub(super) fn hand_over(globals: &'static Globals, clock: &'static dyn Clock, base: NewBase) {
        Aof::start_writer(globals, clock, |_| {});
        // After the end of the writer the base is not used.
        let _ = globals.aof.sender().send(ToWriter::Base(base));
    }

    /// CONFIG SET appendonly yes: the file begins with a rewrite. It is under way when this returns, unless another
    /// snapshot is; then it follows that.
    pub fn turn_on(globals: &'static Globals, clock: &'static dyn Clock) {
        let aof = &globals.aof;
        aof.awaits_base.store(true, Ordering::Relaxed);
        aof.set_on(true);
        Aof::start_writer(globals, clock, |_| {});
        globals.persistence.snapshots.request_rewrite();
        aof.ring(SNAPSHOT_SHARD);
    }

    /// CONFIG SET appendonly no: the file stays as it is.
    pub fn turn_off(globals: &Globals) {
        let aof = &globals.aof;
        globals.persistence.snapshots.end_rewrites(|| {
            aof.awaits_base.store(false, Ordering::Relaxed);
            aof.set_on(false);
            // Not waited for: the caller has the configuration locked, which the writer reads.
            let _ = aof.sender().send(ToWriter::Off { last_part: aof.current_part() });
        });
    }
}

/// The present unix time in milliseconds, for the writer.
fn wall_ms(clock: &dyn Clock) -> i64 {
    clock.wall_ms()
}
