//! Snapshots of all shards in one file, and what the process knows of them.
//!
//! This is about those that hold commands up until they are complete; for BGSAVE see [`snapshot`](super::snapshot). Such a
//! snapshot is taken while all shards have their whole keyspace locked (SAVE), or stand still (a shutdown), so it is of
//! one moment. Each shard writes its own part, in chunks, to a thread that writes the file; the chunks of several shards
//! mix, so each begins with its database. The shard that is the last one to be done waits for the file to be on disk, and
//! has the outcome. A shard waits for nobody but the writing thread, which waits for no shard but to get chunks.

use super::Worker;
use crate::REDIS_VERSION;
use crate::config::Config;
use crate::persist::rdb::module::write_aux;
use crate::persist::rdb::write::{Writer, end_of_file};
use crate::runtime::disk::SystemDisk;
use crate::runtime::log;
use crate::shard::Shard;
use crate::shard::snapshot::DbSize;
use crate::types::module::{AuxPlace, KeyPlace};
use crate::worker::Globals;
use crate::worker::load::{Loading, Pacing};
use crate::worker::snapshot::{FilePlan, Progress, Purpose, Snapshots};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A chunk is handed over when it has this many bytes. A value that is longer makes a longer chunk.
const CHUNK_LEN: usize = 1 << 20;
/// How many chunks may wait for the writing thread.
const CHUNKS_WAITING_MAX: usize = 8;

/// What the process knows of its snapshots.
pub struct Persistence {
    pub loading: Loading,
    pub snapshots: Snapshots,
    /// Unix time in seconds; at first the time of the start.
    last_save_at_s: AtomicI64,
    last_save_failed: AtomicBool,
    save_count: AtomicU64,
    /// The changes of all shards up to the last save: their sum of `dirty`.
    saved_changes: AtomicU64,
    /// Those that are being written, by their numbers. A shard may begin with the next one while others are still busy
    /// with one.
    saves_at_once: Mutex<BTreeMap<u64, Snapshot>>,
    /// FLUSHALLs that not all shards have run yet, numbered with the snapshots.
    flushes: Mutex<BTreeMap<u64, Flush>>,
}

/// A FLUSHALL under way.
#[derive(Default)]
struct Flush {
    shards_emptied: usize,
    /// The sum of `dirty` of these shards, when they had been emptied.
    changes: u64,
}

/// A snapshot that is being written.
struct Snapshot {
    chunks: SyncSender<Vec<u8>>,
    writer: JoinHandle<io::Result<()>>,
    temporary: PathBuf,
    /// The shards whose parts are missing.
    parts_missing: usize,
    /// The sum of their `dirty`, of the shards that have written theirs.
    changes: u64,
    /// rdbcompression
    compresses: bool,
}

impl Persistence {
    pub fn new(started_at_ms: i64) -> Persistence {
        Persistence {
            loading: Loading::default(),
            snapshots: Snapshots::default(),
            last_save_at_s: AtomicI64::new(started_at_ms / 1000),
            last_save_failed: AtomicBool::new(false),
            save_count: AtomicU64::new(0),
            saved_changes: AtomicU64::new(0),
            saves_at_once: Mutex::new(BTreeMap::new()),
            flushes: Mutex::new(BTreeMap::new()),
        }
    }

    pub fn last_save_at_s(&self) -> i64 {
        self.last_save_at_s.load(Ordering::Relaxed)
    }

    pub fn has_last_save_failed(&self) -> bool {
        self.last_save_failed.load(Ordering::Relaxed)
    }

    pub fn save_count(&self) -> u64 {
        self.save_count.load(Ordering::Relaxed)
    }

    /// A snapshot was begun. As in Redis, those that FLUSHALL and DEBUG RELOAD write do not count.
    pub fn count_save(&self) {
        self.save_count.fetch_add(1, Ordering::Relaxed);
    }

    /// The changes since the last save, if there have been `changes` in all.
    pub fn unsaved_changes(&self, changes: u64) -> u64 {
        changes.saturating_sub(self.saved_changes.load(Ordering::Relaxed))
    }

    /// A background save has failed.
    pub(super) fn record_failure(&self) {
        self.last_save_failed.store(true, Ordering::Relaxed);
    }

    /// From here on the data set is as the file has it: it was loaded.
    pub fn count_as_saved(&self, changes: u64) {
        self.saved_changes.store(changes, Ordering::Relaxed);
    }

    /// Where the chunks of snapshot `number` go. The first shard that asks opens its file.
    fn chunks_of(&self, number: u64, globals: &Globals, now_ms: i64) -> SyncSender<Vec<u8>> {
        let mut snapshots = self.saves_at_once.lock().expect("no holder of the snapshots panics");
        let temporary = if snapshots.is_empty() { temporary_file() } else { numbered_file(number) };
        let begin = || Snapshot::begin(temporary, globals, now_ms, &db_sizes(globals));
        let snapshot = snapshots.entry(number).or_insert_with(begin);
        snapshot.chunks.clone()
    }

    /// A shard has handed over its part of snapshot `number`. Returns the snapshot if that was the last part.
    fn end_part(&self, number: u64, changes: u64) -> Option<Snapshot> {
        let mut snapshots = self.saves_at_once.lock().expect("no holder of the snapshots panics");
        let snapshot = snapshots.get_mut(&number).expect("it is there until its last part");
        snapshot.changes += changes;
        snapshot.parts_missing -= 1;
        if snapshot.parts_missing > 0 { None } else { snapshots.remove(&number) }
    }

    /// FLUSHALL number `number` has emptied a shard. Returns the changes of all shards if that was the last of `shard_count`.
    fn end_flush(&self, number: u64, changes: u64, shard_count: usize) -> Option<u64> {
        let mut flushes = self.flushes.lock().expect("no holder of the flushes panics");
        let flush = flushes.entry(number).or_default();
        flush.shards_emptied += 1;
        flush.changes += changes;
        if flush.shards_emptied < shard_count {
            return None;
        }
        flushes.remove(&number).map(|flush| flush.changes)
    }

    /// Takes in how a snapshot has ended. As in Redis, a failure counts only if it was in the background.
    pub(super) fn record(&self, outcome: &io::Result<()>, changes: u64, now_ms: i64) {
        if outcome.is_ok() {
            self.last_save_failed.store(false, Ordering::Relaxed);
            self.last_save_at_s.store(now_ms / 1000, Ordering::Relaxed);
            self.saved_changes.store(changes, Ordering::Relaxed);
        }
    }
}

impl Snapshot {
    fn begin(temporary: PathBuf, globals: &Globals, now_ms: i64, sizes: &[DbSize]) -> Snapshot {
        let (_, config) = globals.config();
        let (chunks, inbox) = sync_channel(CHUNKS_WAITING_MAX);
        let mut header = header(globals, config.rdbcompression, now_ms, false);
        // No shard does anything any more, so the file is of the end of the stream.
        let is_replica = globals.link.is_replica();
        if globals.closing.is_asked_for()
            && globals.stream.backlog.is_active()
            && !(is_replica && globals.link.is_applying())
        {
            let mut writer = Writer::new(&mut header, config.rdbcompression);
            let db = if is_replica { globals.link.stream_db() } else { 0 };
            writer.aux("repl-stream-db", &db.to_string());
            writer.aux("repl-id", &globals.stream.ids().id);
            writer.aux("repl-offset", &globals.stream.offset().to_string());
        }
        write_sizes(sizes, config.rdbcompression, &mut header);
        let plan = FilePlan::at_once(temporary.clone(), header, &config);
        let writer = std::thread::Builder::new()
            .name("rdb-writer".to_owned())
            .spawn(move || plan.save(&SystemDisk, &inbox, &Progress::default()).map(drop))
            .expect("the system can start a thread");
        let (parts_missing, compresses) = (globals.stats.len(), config.rdbcompression);
        Snapshot { chunks, writer, temporary, parts_missing, changes: 0, compresses }
    }

    /// Writes what modules have to be behind the keys, and waits until the file is on disk.
    fn end(self, globals: &Globals) -> io::Result<()> {
        let mut aux = Vec::new();
        write_aux(&globals.module_types, AuxPlace::AfterKeys, self.compresses, &mut aux);
        if !aux.is_empty() {
            // If it has failed, the thread is gone, and says so below.
            let _ = self.chunks.send(aux);
        }
        drop(self.chunks);
        let outcome = self.writer.join().expect("the writing thread does not panic");
        match &outcome {
            Ok(()) => log::notice(format_args!("DB saved on disk")),
            Err(error) => log::warning(format_args!(
                "Write error saving DB on disk, to the temporary file {}: {error}",
                self.temporary.display()
            )),
        }
        outcome
    }
}

/// The beginning of a file: its version, what Redis says of itself there, what modules have to be before the keys, and the
/// libraries of functions. `for_aof`: it is the base of an append-only file.
pub(super) fn header(globals: &Globals, compress: bool, now_ms: i64, for_aof: bool) -> Vec<u8> {
    let mut header = Vec::new();
    let mut writer = Writer::new(&mut header, compress);
    writer.header();
    writer.aux("redis-ver", REDIS_VERSION);
    writer.aux("redis-bits", &usize::BITS.to_string());
    writer.aux("ctime", &(now_ms / 1000).to_string());
    writer.aux("used-mem", &globals.used_memory().to_string());
    writer.aux("aof-base", if for_aof { "1" } else { "0" });
    write_aux(&globals.module_types, AuxPlace::BeforeKeys, compress, &mut header);
    let mut writer = Writer::new(&mut header, compress);
    let (_, functions) = globals.scripts.functions.get();
    functions.libraries().for_each(|library| writer.library(&library.text));
    header
}

/// What tells a reader how many keys to expect.
pub(super) fn write_sizes(sizes: &[DbSize], compress: bool, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out, compress);
    for size in sizes {
        writer.select_db(size.db);
        writer.resize_db(size.keys, size.expires);
    }
}

/// Whether an RDB file that was written or received for replication is to be removed when it was used: nobody wants it, as nothing
/// is persistent here.
pub(super) fn removes_sync_files(config: &Config) -> bool {
    config.rdb_del_sync_files && config.save.0.is_empty() && !config.appendonly
}

/// Where several saves are under way, those behind the first one write to files of these names.
fn numbered_file(number: u64) -> PathBuf {
    PathBuf::from(format!("temp-{}-{number}.rdb", std::process::id()))
}

/// The sizes of the databases that have keys.
fn db_sizes(globals: &Globals) -> Vec<DbSize> {
    let db_count = globals.stats.first().map_or(0, |stats| stats.dbs.len());
    let size = |db: usize| DbSize {
        db: db as u32,
        keys: globals.sum(|stats| stats.dbs[db].keys.get()),
        expires: globals.sum(|stats| stats.dbs[db].expires.get()),
    };
    (0..db_count).map(size).filter(|size| size.keys > 0).collect()
}

/// An RDB file without keys. Its checksum is 0, which means that none is checked. `for_aof`: it is the base of an append-only
/// file.
pub fn snapshot_without_keys(
    globals: &Globals,
    compress: bool,
    now_ms: i64,
    for_aof: bool,
    has_functions: bool,
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, compress);
    writer.header();
    writer.aux("redis-ver", REDIS_VERSION);
    writer.aux("redis-bits", &usize::BITS.to_string());
    writer.aux("ctime", &(now_ms / 1000).to_string());
    writer.aux("aof-base", if for_aof { "1" } else { "0" });
    if has_functions {
        let (_, functions) = globals.scripts.functions.get();
        functions.libraries().for_each(|library| writer.library(&library.text));
    }
    file.extend_from_slice(&end_of_file(None));
    file
}

/// The file that a save at once writes first, in the working directory.
pub fn temporary_file() -> PathBuf {
    PathBuf::from(format!("temp-{}.rdb", std::process::id()))
}

/// Writes a shard's keys in chunks, each of which can be read by itself. `after_key` runs behind each key.
pub fn write_shard(shard: &Shard, each: &mut dyn FnMut(Vec<u8>), after_key: &mut dyn FnMut()) {
    let compress = shard.config.rdbcompression;
    for db in 0..shard.db_count() as u32 {
        let mut chunk = Vec::new();
        shard.for_each_key(db, &mut |entry| {
            if chunk.is_empty() {
                Writer::new(&mut chunk, compress).select_db(db);
            }
            let access = shard.saved_access(&entry);
            Writer::new(&mut chunk, compress).at(KeyPlace::of(db, entry.key())).record(
                entry.key(),
                entry.value(),
                entry.expire_at_ms(),
                access,
            );
            after_key();
            if chunk.len() >= CHUNK_LEN {
                each(std::mem::take(&mut chunk));
            }
        });
        if !chunk.is_empty() {
            each(chunk);
        }
    }
}

impl Worker {
    /// The number of a unit over all shards that saves, or removes what was saved. All shards run these in the same order,
    /// and so give a unit the same number.
    pub(super) fn next_snapshot_number(&mut self) -> u64 {
        let number = self.snapshots_begun;
        self.snapshots_begun += 1;
        number
    }

    /// Writes this shard's part of the next snapshot. All shards do so, in the same order of snapshots. The one that is
    /// done last returns the outcome. `each` gets a look at each chunk.
    pub fn save_part(&mut self, each: &mut dyn FnMut(&[u8])) -> Option<io::Result<()>> {
        let persistence = &self.globals.persistence;
        let number = self.next_snapshot_number();
        let chunks = persistence.chunks_of(number, self.globals, self.shard.now_ms);
        let pacing = Pacing { delay_us: self.shard.config.rdb_key_save_delay_us, clock: self.time.clock };
        let mut key_count = 0;
        let mut send = |chunk: Vec<u8>| {
            each(&chunk);
            // If it has failed, the thread is gone, and says so in the end.
            let _ = chunks.send(chunk);
        };
        write_shard(&self.shard, &mut send, &mut || {
            key_count += 1;
            pacing.pause(key_count);
        });
        drop(chunks);
        let snapshot = persistence.end_part(number, self.shard.stats.dirty.get())?;
        let changes = snapshot.changes;
        let outcome = snapshot.end(self.globals);
        persistence.record(&outcome, changes, self.shard.now_ms);
        Some(outcome)
    }

    /// Does what FLUSHALL does besides, once it has emptied this shard: where there are save points, the shard that is the
    /// last one writes a file without keys, as otherwise those in the file would come back at the next start.
    #[cold]
    pub(super) fn end_flush(&mut self) {
        let persistence = &self.globals.persistence;
        self.shard.has_flushed_all = false;
        self.cancel_snapshot(&[Purpose::Save]);
        let number = self.next_snapshot_number();
        let changes = self.shard.stats.dirty.get();
        let Some(changes) = persistence.end_flush(number, changes, self.shard.shard_count) else { return };
        // Not this shard's own configuration, which another shard may not have yet.
        let (_, config) = self.globals.config();
        if !config.save.0.is_empty() {
            let snapshot = Snapshot::begin(numbered_file(number), self.globals, self.shard.now_ms, &[]);
            let outcome = snapshot.end(self.globals);
            persistence.record(&outcome, changes, self.shard.now_ms);
        }
    }
}
