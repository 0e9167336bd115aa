//! Loading an RDB file: one thread takes it apart, and the shards build their keys' values.
//!
//! The thread that reads the file finds out where each key's value ends and which shard it belongs to, and copies it into
//! the shard's next batch as it stands in the file. So the work that costs most, to decompress, check and build values, is
//! done by all shards at once, and each allocates its own memory. The queues are bounded: the reader waits for the slowest
//! shard.
//!
//! A value of a module whose callbacks exclude each other is built by the thread that reads, one after the other as they would be
//! anyway. Such a callback may take long, and let others run meanwhile (`RM_Yield`): no shard waits for it.
//!
//! DEBUG RELOAD does both on each shard, with the keys that are its own ([`Worker::reload`]), unless modules have types whose callbacks
//! it would wait for: then a thread reads, as of a file.

use super::stream::REPLICATION_ID_LEN;
use super::{Globals, Worker};
use crate::call::Key;
use crate::persist::aof::rewrite::write_request;
use crate::persist::rdb::ValueKind;
use crate::persist::rdb::file::{FileReader, Item, Record, SavedAccess};
use crate::persist::rdb::module::{AuxData, Modules, aux_type, read_aux, write_aux};
use crate::persist::rdb::read::{RdbString, ReadError};
use crate::persist::rdb::value::Limits;
use crate::persist::rdb::window::{FileError, for_each_item};
use crate::persist::rdb::write::end_of_file;
use crate::runtime::clock::Clock;
use crate::runtime::log;
use crate::script::FunctionSet;
use crate::script::shebang::LibraryHeader;
use crate::shard::effects::removal;
use crate::shard::slot::shard_of;
use crate::types::module::{AuxPlace, KeyPlace, ModuleTypeId, ModuleTypes};
use crate::types::{NewValue, OwnedValue, hash_key};
use smallvec::SmallVec;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A batch is handed over when it has this many bytes.
pub const BATCH_LEN: usize = 256 << 10;
/// How many batches may wait for a shard.
const BATCHES_WAITING_MAX: usize = 4;
/// How many empty keys are named in the log.
const EMPTY_KEYS_LOGGED_MAX: u64 = 10;
/// The shard that loads what all shards share: the libraries of functions and, in DEBUG RELOAD, modules' own data.
const SHARED_SHARD: usize = 0;

/// How far loading is, for INFO.
#[derive(Default)]
pub struct Loading {
    is_on: AtomicBool,
    /// A master's snapshot is loaded while the data from before, a part of the same history, is still served.
    is_async: AtomicBool,
    /// What is loaded is a replica's. It keeps keys whose time is up: its master deletes them.
    keeps_expired: AtomicBool,
    /// For each shard: what it is to load beside its data set.
    offered: Mutex<Vec<Option<Incoming>>>,
    /// What each shard has saved that is loaded again: DEBUG RELOAD.
    saved: Mutex<Vec<(usize, Vec<u8>)>>,
    /// The deletions of keys that had expired in a file from which a master's stream goes on, as requests.
    expired: Mutex<Expired>,
    /// An append-only file is loaded. Time stands still for all shards meanwhile, so that no key expires, nor is one left out
    /// of the base: what had expired when the file was written was deleted by a command of its own.
    is_replaying: AtomicBool,
    started_at_s: AtomicI64,
    total_bytes: AtomicU64,
    loaded_bytes: AtomicU64,
    /// The memory that the server which wrote the file used.
    used_mem_bytes: AtomicU64,
    /// Of the last file that was loaded.
    keys_loaded: AtomicU64,
    keys_expired: AtomicU64,
    keys_empty: AtomicU64,
    /// Where in which history of replication the file is, as far as it says so.
    history: Mutex<(Option<String>, Option<u64>)>,
    /// Which database is selected where the stream goes on behind the file.
    stream_db: AtomicU32,
    on_progress: Mutex<Option<OnProgress>>,
}

/// Is told how far loading is: what is loaded, and which part of all bytes was read, out of 1024; -1: it is not known.
pub type OnProgress = fn(kind: LoadKind, progress: i32);

/// What is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadKind {
    Rdb,
    /// A file of commands.
    Commands,
}

/// Each time that as much of an RDB file was read, or as many commands, it is told how far loading is.
const TOLD_AFTER_BYTES: u64 = 2 << 20;
pub(super) const TOLD_AFTER_COMMANDS: u64 = 1000;

impl Loading {
    /// Where in which history of replication the file was that was loaded last, if it says so.
    pub fn take_history(&self) -> Option<(String, u64)> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, offset) = std::mem::take(&mut *history);
        id.zip(offset)
    }

    /// Which database is selected where the stream goes on behind the file that was loaded last.
    pub fn take_stream_db(&self) -> u32 {
        self.stream_db.swap(0, Ordering::Relaxed)
    }

    fn note_history(&self, id: Option<String>, offset: Option<u64>) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        *history = (id.or(history.0.take()), offset.or(history.1));
    }

    /// Has it told how far loading is, from the next file on, or no more. It is told on the thread that loads.
    pub fn tell_progress(&self, on_progress: Option<OnProgress>) {
        *self.on_progress.lock().unwrap_or_else(PoisonError::into_inner) = on_progress;
    }

    pub(super) fn on_progress(&self) -> Option<OnProgress> {
        *self.on_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far loading is: see [`OnProgress`].
    pub(super) fn progress(&self) -> i32 {
        let part = (self.loaded_bytes() << 10).checked_div(self.total_bytes());
        part.map_or(-1, |part| i32::try_from(part).unwrap_or(i32::MAX))
    }

    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Loading begins: commands are refused from here on.
    pub fn begin(&self, total_bytes: u64, now_ms: i64) {
        self.begin_counting(total_bytes, now_ms);
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Loading begins, and most commands go on, over the data from before.
    pub(super) fn begin_async(&self, total_bytes: u64, now_ms: i64) {
        self.begin_counting(total_bytes, now_ms);
        self.is_async.store(true, Ordering::Relaxed);
    }

    fn begin_counting(&self, total_bytes: u64, now_ms: i64) {
        self.started_at_s.store(now_ms / 1000, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.reset_counts();
    }

    /// Whether something is loaded while the data from before is served.
    #[inline(always)]
    pub fn is_async(&self) -> bool {
        self.is_async.load(Ordering::Relaxed)
    }

    /// Whether anything is loaded, whatever is served meanwhile.
    pub fn is_under_way(&self) -> bool {
        self.is_on() || self.is_async()
    }

    /// Whether what is loaded from here on is a replica's.
    pub fn set_keeps_expired(&self, keeps: bool) {
        self.keeps_expired.store(keeps, Ordering::Relaxed);
    }

    /// Each shard finds here what it is to load, by [`Worker::load_offered`].
    pub fn offer(&self, incoming: Vec<Incoming>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) =
            incoming.into_iter().map(Some).collect();
    }

    /// A shard has saved what is to be loaded again.
    pub fn put_saved(&self, shard: usize, saved: Vec<u8>) {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).push((shard, saved));
    }

    /// What all shards have saved, that of the first shard, which has what modules have before all keys, at first.
    pub fn take_saved(&self) -> Vec<u8> {
        let mut saved = std::mem::take(&mut *self.saved.lock().unwrap_or_else(PoisonError::into_inner));
        saved.sort_by_key(|(shard, _)| *shard);
        saved.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    fn take_offered(&self, shard: usize) -> Option<Incoming> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).get_mut(shard)?.take()
    }

    /// The deletions of the keys that had expired in the file that was loaded last, as requests.
    pub fn take_expired(&self) -> Vec<u8> {
        std::mem::take(&mut *self.expired.lock().unwrap_or_else(PoisonError::into_inner)).requests
    }

    #[inline(always)]
    pub fn is_replaying(&self) -> bool {
        self.is_replaying.load(Ordering::Relaxed)
    }

    /// From here on an append-only file is loaded, up to [`Loading::end`].
    pub fn begin_replay(&self) {
        self.is_replaying.store(true, Ordering::Relaxed);
    }

    /// So many bytes of all files have been read.
    pub fn record_bytes(&self, loaded_bytes: u64) {
        self.loaded_bytes.store(loaded_bytes, Ordering::Relaxed);
    }

    fn reset_counts(&self) {
        self.loaded_bytes.store(0, Ordering::Relaxed);
        self.keys_loaded.store(0, Ordering::Relaxed);
        self.keys_expired.store(0, Ordering::Relaxed);
        self.keys_empty.store(0, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.is_replaying.store(false, Ordering::Relaxed);
        self.is_async.store(false, Ordering::Relaxed);
        // DEBUG RELOAD does not say how much it loads.
        self.total_bytes.store(0, Ordering::Relaxed);
        self.is_on.store(false, Ordering::Relaxed);
    }

    pub fn started_at_s(&self) -> i64 {
        self.started_at_s.load(Ordering::Relaxed)
    }

    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    pub fn loaded_bytes(&self) -> u64 {
        self.loaded_bytes.load(Ordering::Relaxed)
    }

    pub fn used_mem_bytes(&self) -> u64 {
        self.used_mem_bytes.load(Ordering::Relaxed)
    }

    pub fn keys_loaded(&self) -> u64 {
        self.keys_loaded.load(Ordering::Relaxed)
    }

    pub fn keys_expired(&self) -> u64 {
        self.keys_expired.load(Ordering::Relaxed)
    }

    /// The line that says what was loaded.
    pub fn log_counts(&self) {
        let (loaded, expired) = (self.keys_loaded(), self.keys_expired());
        let empty = self.keys_empty.load(Ordering::Relaxed);
        let skipped = if empty > 0 { format!(", empty keys skipped: {empty}") } else { String::new() };
        log::notice(format_args!(
            "Done loading RDB, keys loaded: {loaded}, keys expired: {expired}{skipped}."
        ));
    }
}

/// Deletions, as requests.
#[derive(Default)]
struct Expired {
    requests: Vec<u8>,
    /// The database that is selected at their end.
    db: Option<u64>,
}

impl Expired {
    fn add(&mut self, db: u64, key: &[u8], lazy_free: bool) {
        if self.db.replace(db) != Some(db) {
            write_request(&mut self.requests, &[b"SELECT", db.to_string().as_bytes()]);
        }
        write_request(&mut self.requests, &[removal(lazy_free), key]);
    }
}

/// Why a file cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    File(FileError),
    DuplicateKey {
        key: Vec<u8>,
        db: u32,
    },
    /// A key of a database that the configuration does not have.
    NoSuchDb {
        db_count: usize,
    },
    /// A library of functions cannot be loaded, or is there already.
    Library {
        error: String,
    },
    /// The server stops.
    Stopped,
}

impl LoadError {
    /// Whether the file may be sound, and only this server, as it is configured, does not know what is in it.
    pub fn is_of_unknown(&self) -> bool {
        match self {
            LoadError::File(FileError::Read(error)) => error.is_of_unknown(),
            LoadError::NoSuchDb { .. } => true,
            LoadError::File(FileError::Io(_) | FileError::Truncated { .. })
            | LoadError::DuplicateKey { .. }
            | LoadError::Library { .. }
            | LoadError::Stopped => false,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::File(error) => write!(f, "{error}"),
            LoadError::DuplicateKey { key, db } => {
                write!(f, "RDB has duplicated key '{}' in DB {db}", key.escape_ascii())
            }
            LoadError::NoSuchDb { db_count } => {
                write!(f, "the file has keys of more databases than the {db_count} that are configured")
            }
            LoadError::Library { error } => write!(f, "Failed creating the library: {error}"),
            LoadError::Stopped => write!(f, "the server stops"),
        }
    }
}

impl From<FileError> for LoadError {
    fn from(error: FileError) -> LoadError {
        LoadError::File(error)
    }
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> LoadError {
        LoadError::File(FileError::Read(error))
    }
}

/// What a file says of itself, for the log.
struct Origin {
    now_ms: i64,
    /// lazyfree-lazy-expire
    lazy_free: bool,
}

impl Origin {
    fn log(&self, name: &[u8], value: &[u8], loading: &Loading) {
        let text = value.escape_ascii();
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
        match name {
            b"redis-ver" => log::notice(format_args!("Loading RDB produced by version {text}")),
            b"valkey-ver" => log::notice(format_args!("Loading RDB produced by Valkey version {text}")),
            b"ctime" => {
                let age_s = (self.now_ms / 1000 - number().unwrap_or(0)).max(0);
                log::notice(format_args!("RDB age {age_s} seconds"));
            }
            b"used-mem" => {
                let used_bytes = number().unwrap_or(0);
                let used_mib = used_bytes as f64 / (1024.0 * 1024.0);
                log::notice(format_args!("RDB memory usage when created {used_mib:.2} Mb"));
                loading.used_mem_bytes.store(used_bytes.max(0) as u64, Ordering::Relaxed);
            }
            b"repl-id" if value.len() == REPLICATION_ID_LEN => {
                loading.note_history(Some(text.to_string()), None);
            }
            b"repl-offset" => {
                loading.note_history(None, number().and_then(|offset| u64::try_from(offset).ok()));
            }
            _ => {}
        }
    }
}

/// What was read.
enum Loaded<'a> {
    /// A key, with its name.
    Key(&'a Record<'a>, &'a [u8]),
    /// The text of a library of functions.
    Library(Vec<u8>),
    /// A module's data that belongs to no key.
    Aux(AuxData<'a>),
}

/// Reads a file to its end. Keys whose time is up at `now_ms` are left out, and counted, unless the file is the base of an
/// append-only file: its commands may give such a key another time.
fn read_items(
    source: &mut dyn Read,
    reader: &mut FileReader,
    loading: &Loading,
    origin: Option<&Origin>,
    on_progress: Option<OnProgress>,
    now_ms: i64,
    each: &mut dyn FnMut(Loaded<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let (mut key, mut unpacked) = (Vec::new(), Vec::new());
    let mut told_at = 0;
    for_each_item(source, reader, |item, offset| {
        loading.loaded_bytes.store(offset, Ordering::Relaxed);
        if let Some(on_progress) = on_progress
            && offset >= told_at + TOLD_AFTER_BYTES
        {
            told_at = offset;
            on_progress(LoadKind::Rdb, loading.progress());
        }
        match item {
            Item::Record(record)
                if record.expire_at_ms.is_some_and(|at_ms| at_ms < now_ms)
                    && !loading.is_replaying()
                    && !loading.keeps_expired.load(Ordering::Relaxed) =>
            {
                loading.keys_expired.fetch_add(1, Ordering::Relaxed);
                if let Some(origin) = origin {
                    let mut expired = loading.expired.lock().unwrap_or_else(PoisonError::into_inner);
                    expired.add(record.db, record.key.bytes(&mut key)?, origin.lazy_free);
                }
                Ok(())
            }
            Item::Record(record) => each(Loaded::Key(&record, record.key.bytes(&mut key)?)),
            Item::Library { text } => each(Loaded::Library(text.into_vec()?)),
            Item::ModuleAux(aux) => each(Loaded::Aux(aux)),
            Item::Aux { name, value } => {
                let (name, value) = (name.bytes(&mut key)?, value.bytes(&mut unpacked)?);
                if name == b"repl-stream-db" {
                    let db = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    loading.stream_db.store(db.unwrap_or(0), Ordering::Relaxed);
                }
                if let Some(origin) = origin {
                    origin.log(name, value, loading);
                }
                Ok(())
            }
            Item::Header { .. }
            | Item::SelectDb { .. }
            | Item::ResizeDb { .. }
            | Item::SlotInfo
            | Item::End => Ok(()),
        }
    })
}

/// How many keys are fetched from memory together.
const PREFETCHED_TOGETHER: usize = 32;

/// Keys with their values, as they stand in a file, and, for one shard, libraries of functions.
#[derive(Default)]
pub struct LoadBatch {
    bytes: Vec<u8>,
    records: Vec<LoadRecord>,
    /// The values of those records that say so, in order.
    built: Vec<OwnedValue>,
    /// By their texts.
    libraries: Vec<Vec<u8>>,
}

/// One of them: what a [`Record`] is, with ranges of the batch's bytes.
struct LoadRecord {
    db: u64,
    expire_at_ms: Option<i64>,
    access: SavedAccess,
    kind: ValueKind,
    key: Range<usize>,
    value: Range<usize>,
    offset: u64,
    is_built: bool,
}

impl LoadBatch {
    /// `built`: its value, if that was built already.
    fn push(&mut self, record: &Record<'_>, key: &[u8], built: Option<OwnedValue>) {
        let is_built = built.is_some();
        self.built.extend(built);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        // Also if it is built: these bytes are what limits a batch.
        self.bytes.extend_from_slice(record.value);
        let &Record { db, expire_at_ms, access, kind, offset, .. } = record;
        let (key, value) = (start..middle, middle..self.bytes.len());
        self.records.push(LoadRecord { db, expire_at_ms, access, kind, key, value, offset, is_built });
    }

    /// One of its `records`, as it stands in the file.
    fn record(&self, record: &LoadRecord) -> Record<'_> {
        Record {
            db: record.db,
            expire_at_ms: record.expire_at_ms,
            access: record.access,
            key: RdbString::Bytes(&self.bytes[record.key.clone()]),
            kind: record.kind,
            value: &self.bytes[record.value.clone()],
            offset: record.offset,
        }
    }
}

/// Where a shard's batches go.
pub struct LoadQueue {
    pub batches: SyncSender<Box<LoadBatch>>,
    /// Wakes the shard.
    pub wake: Box<dyn Fn() + Send>,
}

impl LoadQueue {
    fn send(&self, batch: LoadBatch) -> Result<(), LoadError> {
        self.batches.send(Box::new(batch)).map_err(|_| LoadError::Stopped)?;
        (self.wake)();
        Ok(())
    }
}

/// key-load-delay and rdb-key-save-delay, which tests use to have a load or a save that takes long.
pub struct Pacing {
    /// Microseconds for each key, or, if negative, a microsecond for so many keys.
    pub delay_us: i32,
    pub clock: &'static dyn Clock,
}

impl Pacing {
    /// Waits as long as this key costs.
    pub fn pause(&self, key_number: u64) {
        let micros = match self.delay_us {
            0 => return,
            delay_us @ 1.. => u64::from(delay_us.unsigned_abs()),
            per_keys => u64::from(key_number.is_multiple_of(u64::from(per_keys.unsigned_abs()))),
        };
        if micros > 0 {
            self.clock.sleep(Duration::from_micros(micros));
        }
    }
}

/// What modules have in a file after the keys, to be read when all shards have loaded these.
#[derive(Default)]
struct AuxAfterKeys(Vec<(ModuleTypeId, Vec<u8>, u64)>);

impl AuxAfterKeys {
    fn push(&mut self, aux: &AuxData<'_>) {
        self.0.push((aux.id, aux.bytes.to_vec(), aux.offset));
    }

    /// # Errors
    /// A module does not accept what it gets.
    fn read(self, types: &ModuleTypes) -> Result<(), LoadError> {
        for (id, bytes, offset) in self.0 {
            read_aux(&AuxData { id, when: AuxPlace::AfterKeys, bytes: &bytes, offset }, types)?;
        }
        Ok(())
    }
}

/// Builds the value of a record that its shard is not to build, if it is such a one.
///
/// # Errors
/// Those of reading it.
fn build_here(record: &Record<'_>, key: &[u8], types: &ModuleTypes) -> Result<Option<OwnedValue>, LoadError> {
    if record.module_type(types)?.is_none_or(|of| of.is_concurrent()) {
        return Ok(None);
    }
    // The shard says that there is no such database.
    let Ok(db) = u32::try_from(record.db) else { return Ok(None) };
    let modules = Modules { types, place: KeyPlace::of(db, key) };
    Ok(Some(record.read_value(&Limits::default(), &modules)?))
}

/// Reads a file and hands its keys to the shards that own them. What modules have before the keys is read here. Returns what
/// they have behind them, and where the file ends.
///
/// # Errors
/// Those of reading; a shard that has given up says why itself.
fn distribute(
    source: &mut dyn Read,
    check_checksum: bool,
    globals: &Globals,
    queues: Vec<LoadQueue>,
    pacing: Pacing,
    now_ms: i64,
) -> Result<(AuxAfterKeys, u64), LoadError> {
    let loading = &globals.persistence.loading;
    let mut after_keys = AuxAfterKeys::default();
    let mut batches: Vec<LoadBatch> = queues.iter().map(|_| LoadBatch::default()).collect();
    let mut reader = FileReader::new(check_checksum);
    let origin = Origin { now_ms, lazy_free: globals.config().1.lazyfree_lazy_expire };
    *loading.expired.lock().unwrap_or_else(PoisonError::into_inner) = Expired::default();
    let mut key_count = 0;
    let on_progress = loading.on_progress();
    read_items(source, &mut reader, loading, Some(&origin), on_progress, now_ms, &mut |loaded| {
        let (record, key) = match loaded {
            Loaded::Key(record, key) => (record, key),
            Loaded::Library(text) => {
                batches[SHARED_SHARD].libraries.push(text);
                return Ok(());
            }
            Loaded::Aux(aux) => {
                match aux.when {
                    AuxPlace::BeforeKeys => read_aux(&aux, &globals.module_types)?,
                    AuxPlace::AfterKeys => after_keys.push(&aux),
                }
                return Ok(());
            }
        };
        key_count += 1;
        pacing.pause(key_count);
        let shard = shard_of(key, queues.len());
        let batch = &mut batches[shard];
        batch.push(record, key, build_here(record, key, &globals.module_types)?);
        if batch.bytes.len() >= BATCH_LEN {
            queues[shard].send(std::mem::take(batch))?;
        }
        Ok(())
    })?;
    for (queue, batch) in queues.iter().zip(batches) {
        queue.send(batch)?;
    }
    let wakes: Vec<_> = queues.into_iter().map(|queue| queue.wake).collect();
    // The queues have ended: the shards see that when they are woken.
    wakes.iter().for_each(|wake| wake());
    Ok((after_keys, reader.offset()))
}

/// What a shard is to load, and where it says how that ended.
pub struct Incoming {
    pub batches: Receiver<Box<LoadBatch>>,
    pub done: Sender<Result<(), LoadError>>,
    /// It is loaded beside the present data set, whose place it takes later: see [`Worker::load_aside`].
    pub is_aside: bool,
}

/// What shards say of their share.
pub type Done = Receiver<Result<(), LoadError>>;

/// The ways of a file to the shards, in their order, and what each of them is to get. `wake`: wakes a shard.
pub fn queues(
    wakes: impl Iterator<Item = Box<dyn Fn() + Send>>,
    is_aside: bool,
) -> (Vec<LoadQueue>, Vec<Incoming>, Done) {
    let (done, outcomes) = channel();
    let (queues, incoming) = wakes
        .map(|wake| {
            let (batches, inbox) = sync_channel(BATCHES_WAITING_MAX);
            (LoadQueue { batches, wake }, Incoming { batches: inbox, done: done.clone(), is_aside })
        })
        .unzip();
    (queues, incoming, outcomes)
}

/// Reads an RDB file without loading it, to see whether what is in it is known here: its version, the kinds of its values, types
/// of modules, numbers of databases. Values themselves are not read.
///
/// # Errors
/// Those of reading.
pub fn check_known(source: &mut dyn Read, globals: &Globals) -> Result<(), LoadError> {
    let (_, config) = globals.config();
    let (types, db_count) = (&globals.module_types, config.databases as usize);
    for_each_item(source, &mut FileReader::new(config.rdbchecksum), |item, _| match item {
        Item::Record(record) if record.db >= db_count as u64 => Err(LoadError::NoSuchDb { db_count }),
        Item::Record(record) => Ok(record.module_type(types).map(drop)?),
        Item::ModuleAux(aux) => Ok(aux_type(&aux, types).map(drop)?),
        Item::Library { .. }
        | Item::Aux { .. }
        | Item::Header { .. }
        | Item::SelectDb { .. }
        | Item::ResizeDb { .. }
        | Item::SlotInfo
        | Item::End => Ok(()),
    })
}

/// Loads an RDB file, which others may follow in the same source, by all shards. Returns where it ends.
///
/// # Errors
/// Those of reading, and of each shard.
pub fn load_file(
    source: &mut dyn Read,
    globals: &Globals,
    queues: Vec<LoadQueue>,
    done: &Done,
    clock: &'static dyn Clock,
) -> Result<u64, LoadError> {
    let shard_count = queues.len();
    let (_, config) = globals.config();
    let pacing = Pacing { delay_us: config.key_load_delay_us, clock };
    let distributed = distribute(source, config.rdbchecksum, globals, queues, pacing, clock.wall_ms());
    let (mut outcome, after_keys, end) = match distributed {
        Ok((after_keys, end)) => (Ok(()), after_keys, end),
        Err(error) => (Err(error), AuxAfterKeys::default(), 0),
    };
    // A shard that gives up ends its queue, which is all that the reader sees of it.
    let shards = done.iter().take(shard_count);
    for of_shard in shards.filter(|_| matches!(outcome, Ok(()) | Err(LoadError::Stopped))).collect::<Vec<_>>()
    {
        if of_shard.is_err() {
            outcome = of_shard;
        }
    }
    outcome?;
    after_keys.read(&globals.module_types)?;
    globals.persistence.loading.log_counts();
    Ok(end)
}

/// Whether a key that is there already is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    Refused,
    Replaced,
}

impl Worker {
    /// From here on, the shard loads what comes in.
    pub fn load_from(&mut self, incoming: Incoming) {
        self.incoming = Some(incoming);
    }

    /// Whether there is something to be loaded, or commands that the server itself runs.
    pub fn is_loading(&self) -> bool {
        self.incoming.is_some() || self.feed.is_some() || self.globals.feed.is_full()
    }

    /// Loads the next batch, or runs the next commands of a file, if there are any. Returns whether there were.
    pub fn load_next(&mut self) -> bool {
        if self.run_feed() {
            return true;
        }
        let Some(incoming) = &self.incoming else { return false };
        let is_aside = incoming.is_aside;
        let outcome = match incoming.batches.try_recv() {
            Ok(mut batch) if is_aside => {
                let outcome = self.prepare_libraries(&batch.libraries);
                self.shard.exchange_aside();
                let outcome = outcome.and_then(|()| self.load_batch(&mut batch));
                self.shard.exchange_aside();
                outcome.map(|()| true)
            }
            Ok(mut batch) => {
                let outcome = self.load_libraries(&batch.libraries, Duplicates::Refused);
                outcome.and_then(|()| self.load_batch(&mut batch)).map(|()| true)
            }
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Ok(false),
        };
        if let Ok(true) = outcome {
            return true;
        }
        let incoming = self.incoming.take().expect("it was there just now");
        // If nobody listens, the server stops.
        let _ = incoming.done.send(outcome.map(drop));
        false
    }

    fn load_batch(&mut self, batch: &mut LoadBatch) -> Result<(), LoadError> {
        let limits = self.shard.limits();
        let mut built = std::mem::take(&mut batch.built).into_iter();
        let batch = &*batch;
        let mut loaded = 0;
        let outcome = batch.records.chunks(PREFETCHED_TOGETHER).try_for_each(|records| {
            let hashes = self.prefetch_for_load(batch, records);
            records.iter().zip(hashes).try_for_each(|(record, hash)| {
                let built = record.is_built.then(|| built.next().expect("there is one for each"));
                let record = batch.record(record);
                loaded += self.load_record(&record, built, hash, &limits, Duplicates::Refused)?;
                Ok(())
            })
        });
        self.globals.persistence.loading.keys_loaded.fetch_add(loaded, Ordering::Relaxed);
        outcome
    }

    /// From here on, the shard loads what it was offered, beside its data set.
    pub fn load_aside(&mut self) {
        self.shard.begin_aside();
        self.aside_libraries = FunctionSet::default();
        self.load_offered();
    }

    /// The same, into its data set.
    pub fn load_offered(&mut self) {
        self.incoming = self.globals.persistence.loading.take_offered(self.shard.index);
    }

    /// Drops what was loaded beside the data set.
    pub fn discard_aside(&mut self) {
        self.shard.discard_aside();
        self.aside_libraries = FunctionSet::default();
    }

    /// Puts what was loaded beside the data set in its place, and the libraries that were loaded, on one of the shards, in the
    /// place of those that are there.
    pub fn adopt_aside(&mut self) {
        self.shard.adopt_aside();
        let libraries = std::mem::take(&mut self.aside_libraries);
        if self.shard.index == SHARED_SHARD {
            let adopted = self.globals.scripts.functions.update(|_| Ok(libraries));
            adopted.expect("nothing is refused here");
        }
    }

    /// Adds libraries of functions to those that will take the place of the present ones.
    fn prepare_libraries(&mut self, texts: &[Vec<u8>]) -> Result<(), LoadError> {
        for text in texts {
            let outcome = LibraryHeader::parse(text).and_then(|header| {
                let library = self.load_library(header, text)?;
                self.aside_libraries.with(library, false)
            });
            self.aside_libraries =
                outcome.map_err(|error| LoadError::Library { error: error.text().into_owned() })?;
        }
        Ok(())
    }

    /// Fetches the places of keys in the tables, so that the cache misses of the records overlap. Returns the keys' hashes.
    fn prefetch_for_load(
        &self,
        batch: &LoadBatch,
        records: &[LoadRecord],
    ) -> SmallVec<[u64; PREFETCHED_TOGETHER]> {
        let db_count = self.shard.db_count() as u64;
        let hash = |record: &LoadRecord| hash_key(&batch.bytes[record.key.clone()]);
        let hashes: SmallVec<[u64; PREFETCHED_TOGETHER]> = records.iter().map(hash).collect();
        let places = records.iter().zip(&hashes).filter(|(record, _)| record.db < db_count);
        self.shard.prefetch(places.map(|(record, &hash)| (record.db as u32, hash)));
        hashes
    }

    /// Builds the value of a key with this hash, unless it is `built`, and puts it in. Returns how many keys that makes: none if it
    /// is a collection without elements.
    fn load_record(
        &mut self,
        record: &Record<'_>,
        built: Option<OwnedValue>,
        hash: u64,
        limits: &Limits,
        duplicates: Duplicates,
    ) -> Result<u64, LoadError> {
        let RdbString::Bytes(bytes) = record.key else { unreachable!("keys come unpacked") };
        let loading = &self.globals.persistence.loading;
        let db_count = self.shard.db_count();
        let db = u32::try_from(record.db).ok().filter(|&db| (db as usize) < db_count);
        let db = db.ok_or(LoadError::NoSuchDb { db_count })?;
        let modules = Modules { types: &self.globals.module_types, place: KeyPlace::of(db, bytes) };
        let plain = built.map(NewValue::from).or_else(|| record.plain_string()).map(Ok);
        let value = plain.unwrap_or_else(|| record.read_value(limits, &modules).map(NewValue::from));
        let value = match value {
            Ok(value) => value,
            Err(ReadError::EmptyKey) => {
                if loading.keys_empty.fetch_add(1, Ordering::Relaxed) < EMPTY_KEYS_LOGGED_MAX {
                    log::warning(format_args!("skipping empty key: {}", bytes.escape_ascii()));
                }
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let key = Key { bytes, hash };
        if duplicates == Duplicates::Refused && self.shard.is_stored(db, key) {
            return Err(LoadError::DuplicateKey { key: bytes.to_vec(), db });
        }
        let access = self.shard.loaded_access(record.access);
        self.shard.load(db, key, value, record.expire_at_ms, access);
        Ok(1)
    }

    /// Loads the libraries of functions that are there once more, on one of the shards.
    ///
    /// # Errors
    /// There are any, and they are not to be replaced.
    pub fn reload_libraries(&mut self, duplicates: Duplicates) -> Result<(), LoadError> {
        if self.shard.index != SHARED_SHARD {
            return Ok(());
        }
        let (_, set) = self.globals.scripts.functions.get();
        let texts: Vec<_> = set.libraries().map(|library| library.text.to_vec()).collect();
        self.load_libraries(&texts, duplicates)
    }

    /// Removes all libraries of functions, on one of the shards, before others are loaded.
    pub fn drop_libraries(&mut self) {
        if self.shard.index == SHARED_SHARD {
            self.globals.scripts.functions.clear();
        }
    }

    /// Adds libraries of functions, by their texts.
    fn load_libraries(&mut self, texts: &[Vec<u8>], duplicates: Duplicates) -> Result<(), LoadError> {
        for text in texts {
            let outcome = LibraryHeader::parse(text).and_then(|header| {
                let library = self.load_library(header, text)?;
                let functions = &self.globals.scripts.functions;
                functions.update(|set| set.with(library, duplicates == Duplicates::Replaced))
            });
            outcome.map_err(|error| LoadError::Library { error: error.text().into_owned() })?;
        }
        Ok(())
    }

    /// Loads those keys of a file that are this shard's: DEBUG RELOAD. One of the shards loads the libraries.
    ///
    /// # Errors
    /// The file is damaged, or has a key that is there already.
    pub fn reload(
        &mut self,
        source: &mut dyn Read,
        reader: &mut FileReader,
        duplicates: Duplicates,
    ) -> Result<(), LoadError> {
        let limits = self.shard.limits();
        let (globals, now_ms) = (self.globals, self.shard.now_ms);
        let loading = &globals.persistence.loading;
        // Each shard reads the whole file.
        let on_progress = loading.on_progress().filter(|_| self.shard.index == SHARED_SHARD);
        read_items(source, reader, loading, None, on_progress, now_ms, &mut |loaded| {
            let (record, key) = match loaded {
                Loaded::Key(record, key) if self.shard.owns(key) => (record, key),
                Loaded::Library(text) if self.shard.index == SHARED_SHARD => {
                    return self.load_libraries(&[text], duplicates);
                }
                Loaded::Aux(aux) if self.shard.index == SHARED_SHARD => {
                    return Ok(read_aux(&aux, &globals.module_types)?);
                }
                Loaded::Key(..) | Loaded::Library(_) | Loaded::Aux(_) => return Ok(()),
            };
            let record = Record { key: RdbString::Bytes(key), ..*record };
            let loaded = self.load_record(&record, None, hash_key(key), &limits, duplicates)?;
            globals.persistence.loading.keys_loaded.fetch_add(loaded, Ordering::Relaxed);
            Ok(())
        })
    }

    /// What modules have in a file before or after its keys, on one of the shards: a chunk for
    /// [`Worker::reload_chunk`].
    pub fn save_aux(&self, when: AuxPlace) -> Vec<u8> {
        let mut chunk = Vec::new();
        if self.shard.index == SHARED_SHARD {
            write_aux(&self.globals.module_types, when, self.shard.config.rdbcompression, &mut chunk);
        }
        chunk
    }

    /// Loads a chunk of a snapshot, as [`write_shard`](super::persistence::write_shard) makes them.
    ///
    /// # Errors
    /// Those of [`Worker::reload`].
    pub fn reload_chunk(&mut self, chunk: &[u8], duplicates: Duplicates) -> Result<(), LoadError> {
        let end = end_of_file(None);
        self.reload(&mut chunk.chain(&end[..]), &mut FileReader::behind_header(), duplicates)
    }
}
