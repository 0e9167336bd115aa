//! A shard's part of a snapshot that is taken while commands go on: BGSAVE, save points, and the base of a rewritten
//! append-only file.
//!
//! *Barrier.* A unit over all shards locks the whole keyspace, as SAVE does; under it each shard only begins
//! ([`Shard::begin_snapshot`]), and nothing is written. From the moment at which all locks are granted until a shard has
//! begun, nothing of its keyspace changes, and no entry of it is checked out. So the snapshot of all shards is of that
//! moment, although they do not begin at the same time.
//!
//! *Walk and changes.* Each table then saves its buckets, one slice after the other ([`Shard::walk_snapshot`]), and a
//! bucket that is about to change before that ([`Table::will_change`](crate::types::Table::will_change)). Every entry
//! that was there at the barrier is written exactly once:
//!
//! - Its bucket was not stamped then. Whatever takes it out or changes it stamps the bucket first, which saves it as it
//!   was.
//! - From then on its bucket is stamped, and what is in a stamped bucket is not written. The same holds for the bucket that
//!   it may move to (RENAME, MOVE, SORT STORE, check-out, and check-in of an entry that changed elsewhere), because
//!   putting it in stamps that one, too. A table that was empty at the barrier takes no part.
//! - A module changes its values through pointers, which it has from keys that it has opened to write: opening one is the
//!   change ([`Shard::will_change`]).
//! - SWAPDB moves a table with its snapshot, which knows the number that the database had at the barrier. FLUSHDB and
//!   FLUSHALL leave the table that they have taken out to the walk, before it is freed.
//!
//! *Big values.* A collection of some size, or a string, is not written with its bucket. It gets a record, which it carries from then on,
//! and is written part by part ([`Shard::save_values`]), or before a part of it changes: see
//! [`save`](crate::types::save). What is held because of changes travels with the value. Where the value is removed or replaced,
//! it is left to the snapshot, which frees it afterwards. Where it goes to another shard (check-out) its record goes with it, and
//! that shard writes it while it is there. So no shard is done before all records are. While a suspended program has such
//! a value, and when it is on its way, nobody writes it: that delays the snapshot, and nobody else. A shard may even get one before its own
//! part has begun.
//!
//! A value of a module has no parts. Where the module cannot be called when its bucket changes, because a thread has it to itself, the
//! value gets a record as well, and is written when it can be, or before the module changes it: the change of a plain key in
//! the same bucket does not wait.
//!
//! *Output.* What is written is RDB records, or commands, in chunks, each of which begins with its database. What the walk writes is
//! bounded, because it stops while a chunk waits to be handed over. What changes force out is not: the caller counts
//! those bytes ([`Shard::forced_waiting_bytes`]) and gives the snapshot up when there are too many. The record of a big value
//! has to be contiguous in the file. So these records are written when all shards have saved all buckets, and by one shard at a
//! time: nobody has anything else to write then. If the value of the record that was begun last goes to another shard, that
//! one has to be the next to write.

use super::Shard;
use super::access::Access;
use crate::config::MaxmemoryPolicy;
use crate::persist::aof::rewrite::{CommandBytes, CommandElements, CommandModule, write_entry, write_select};
use crate::persist::rdb::objects::{RecordElements, RecordModule};
use crate::persist::rdb::write::Writer;
use crate::shard::stats::ShardStats;
use crate::types::module::KeyPlace;
use crate::types::save::{Chunk, ElementWriter, PIECE_LEN, Record, StringAt, Totals};
use crate::types::table::{EntryWriter, TableSnapshot};
use crate::types::{Collection, DetachedTable, Entry, Object, Table, ValueRef};
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// From which sizes on something is done otherwise.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotLimits {
    /// A chunk is complete when it has this many bytes. A value that is longer makes a longer chunk.
    pub chunk_len: usize,
    /// A collection that takes so many bytes is saved part by part.
    pub big_value_bytes: usize,
}

impl Default for SnapshotLimits {
    fn default() -> SnapshotLimits {
        SnapshotLimits { chunk_len: 256 << 10, big_value_bytes: 16 << 10 }
    }
}

/// A snapshot that is under way, or about to begin here. See the module's documentation.
#[derive(Default)]
pub(super) struct ShardSnapshot {
    number: u64,
    /// Tables that were taken out by FLUSHDB or FLUSHALL, each with the keys for which it counts when it is freed.
    detached: VecDeque<(DetachedTable, u64)>,
    output: Output,
    totals: Arc<Totals>,
    /// What was written of big values.
    values: Chunk,
}

/// What is to be handed over.
#[derive(Default)]
struct Output {
    /// Chunks, and whether changes have forced them out.
    chunks: VecDeque<(Chunk, bool)>,
    forced_waiting_bytes: usize,
}

/// How many keys a database had at the barrier, and how many of these had a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DbSize {
    pub db: u32,
    pub keys: u64,
    pub expires: u64,
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The records of an RDB file.
    Rdb,
    /// Commands that make the keys anew, for an append-only file.
    Commands,
}

impl Format {
    /// Of a file's name in the directory of the append-only file.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Rdb => "rdb",
            Format::Commands => "aof",
        }
    }
}

/// Writes the entries of one database as commands.
struct CommandWriter {
    /// Its number at the barrier.
    db: u32,
    compress: bool,
    big_value_bytes: usize,
    totals: Arc<Totals>,
}

/// A value that is written part by part.
enum Big<'a> {
    Object(&'a Object),
    String(&'a [u8]),
    /// Of a module that cannot be called at present.
    Module,
}

/// The value of an entry, if it is big.
fn big_value(entry: Entry<'_>, big_value_bytes: usize) -> Option<Big<'_>> {
    match entry.value() {
        ValueRef::Object(Object::Module(value)) => {
            (!value.module_type().is_callable()).then_some(Big::Module)
        }
        ValueRef::Object(object) => (object.heap_bytes() >= big_value_bytes).then_some(Big::Object(object)),
        // Up to this length it is compressed at once.
        ValueRef::Str(bytes) => (bytes.len() > PIECE_LEN).then_some(Big::String(bytes)),
        ValueRef::Int(_) | ValueRef::Packed(..) => None,
    }
}

impl EntryWriter for CommandWriter {
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) {
        if out.is_empty() {
            write_select(out, self.db);
        }
        write_entry(out, self.db, entry, self.compress);
    }

    fn begin(&mut self, entry: Entry<'_>) -> Option<Record> {
        let value = big_value(entry, self.big_value_bytes)?;
        let (key, expire_at_ms, mut head) = (entry.key(), entry.expire_at_ms(), Vec::new());
        write_select(&mut head, self.db);
        let (count, writer): (usize, Box<dyn ElementWriter>) = match value {
            Big::Object(object) => {
                let (elements, count) = CommandElements::new(key, object, expire_at_ms)?;
                (count, Box::new(elements))
            }
            Big::String(bytes) => {
                let writer = CommandBytes::begin(&mut head, key, bytes.len(), expire_at_ms);
                (bytes.len().div_ceil(PIECE_LEN), Box::new(writer))
            }
            Big::Module => (1, Box::new(CommandModule::new(self.db, key, expire_at_ms, self.compress))),
        };
        Some(Record::new(head, count, writer, &self.totals))
    }
}

/// Writes the entries of one database as RDB records.
struct RecordWriter {
    /// Its number at the barrier.
    db: u32,
    compress: bool,
    /// As of the barrier.
    access: Access,
    policy: MaxmemoryPolicy,
    big_value_bytes: usize,
    totals: Arc<Totals>,
}

impl EntryWriter for RecordWriter {
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) {
        if out.is_empty() {
            Writer::new(out, self.compress).select_db(self.db);
        }
        let access = self.access.saved(self.policy, entry.access());
        Writer::new(out, self.compress).at(KeyPlace::of(self.db, entry.key())).record(
            entry.key(),
            entry.value(),
            entry.expire_at_ms(),
            access,
        );
    }

    fn begin(&mut self, entry: Entry<'_>) -> Option<Record> {
        let value = big_value(entry, self.big_value_bytes)?;
        let access = self.access.saved(self.policy, entry.access());
        let mut head = Vec::new();
        let mut writer = Writer::new(&mut head, self.compress);
        writer.select_db(self.db);
        let count = match value {
            Big::Object(object) => writer.begin_record(entry.key(), object, entry.expire_at_ms(), access)?,
            Big::String(bytes) => {
                let at = writer.begin_string(entry.key(), bytes.len(), entry.expire_at_ms(), access);
                let (count, elements) =
                    (bytes.len().div_ceil(PIECE_LEN), RecordElements { compress: self.compress });
                let record = Record::new(head, count, Box::new(elements), &self.totals);
                return Some(match self.compress {
                    true => record.with_string(StringAt { at, len: bytes.len() }),
                    false => record,
                });
            }
            Big::Module => {
                writer.begin_module(entry.key(), entry.expire_at_ms(), access);
                let elements = RecordModule::new(self.db, entry.key(), self.compress);
                return Some(Record::new(head, 1, Box::new(elements), &self.totals));
            }
        };
        Some(Record::new(head, count, Box::new(RecordElements { compress: self.compress }), &self.totals))
    }
}

impl Output {
    /// Takes what a table has written, if it is at least `len_min` bytes, and counts what it has saved.
    fn collect(&mut self, table: Option<&mut TableSnapshot>, len_min: usize, stats: &ShardStats) {
        let Some(table) = table else { return };
        let saved = table.take_saved();
        stats.snapshot_keys.add(saved.entries);
        stats.snapshot_forced_bytes.add(saved.forced_bytes);
        if let Some(chunk) = table.take_forced(len_min) {
            self.forced_waiting_bytes += chunk.len();
            self.chunks.push_back((Chunk { bytes: chunk, strings: Vec::new() }, true));
        }
        if let Some(chunk) = table.take_walked(len_min) {
            self.chunks.push_back((Chunk { bytes: chunk, strings: Vec::new() }, false));
        }
    }
}

impl Shard {
    /// The sizes of the databases that have keys.
    pub fn db_sizes(&self) -> Vec<DbSize> {
        let tables = self.dbs.iter().map(|db| db.table());
        let size = |(db, table): (u32, &Table)| DbSize {
            db,
            keys: table.len() as u64,
            expires: table.expires_len() as u64,
        };
        (0..).zip(tables).map(size).filter(|size| size.keys > 0).collect()
    }

    /// Begins this shard's part of the process' snapshot of this number, under the lock of the whole keyspace. The numbers
    /// are consecutive, from 0 on. `unfinished` counts the records of big values of all shards.
    pub fn begin_snapshot(&mut self, number: u64, format: Format, unfinished: &Arc<AtomicUsize>) {
        debug_assert!(self.checked_out.is_empty());
        if self.snapshot.as_ref().is_some_and(|last| last.number != number) {
            self.drop_snapshot();
        }
        self.snapshots_begun = number + 1;
        let versions = u64::from(u16::MAX);
        let version = NonZeroU16::new((number % versions) as u16 + 1).expect("it is at least 1");
        if number > 0 && version.get() == 1 {
            // All versions have been used.
            self.dbs.iter_mut().for_each(|db| db.reset_versions());
        }
        let compress = self.config.rdbcompression;
        let mut snapshot = self.snapshot.take().unwrap_or_default();
        snapshot.number = number;
        snapshot.totals = Arc::new(Totals::new(number, self.index, Arc::clone(unfinished)));
        let (big_value_bytes, totals) = (self.snapshot_limits.big_value_bytes, &snapshot.totals);
        for (db, of_db) in (0..).zip(self.dbs.iter_mut()) {
            of_db.begin_snapshot(version, || match format {
                Format::Rdb => Box::new(RecordWriter {
                    db,
                    compress,
                    access: self.access.clone(),
                    policy: self.config.maxmemory_policy,
                    big_value_bytes,
                    totals: Arc::clone(totals),
                }),
                Format::Commands => {
                    Box::new(CommandWriter { db, compress, big_value_bytes, totals: Arc::clone(totals) })
                }
            });
        }
        self.stats.snapshot_keys.set(0);
        self.stats.snapshot_forced_bytes.set(0);
        self.stats.snapshot_slice_us_max.set(0);
        self.snapshot = Some(snapshot);
    }

    /// Saves buckets until `is_over` says that it is enough, which is asked before each. Returns whether all buckets are saved;
    /// then there may still be big values that are not ([`Shard::save_values`]), and chunks to be handed over.
    pub fn walk_snapshot(&mut self, is_over: &mut dyn FnMut() -> bool) -> bool {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return true };
        let chunk_len = self.snapshot_limits.chunk_len;
        let mut is_complete = true;
        for (detached, _) in &mut snapshot.detached {
            is_complete = is_complete && detached.contents().walk_snapshot(is_over);
            let len_min = if is_complete { 1 } else { chunk_len };
            snapshot.output.collect(detached.contents().snapshot_mut(), len_min, &self.stats);
        }
        for db in self.dbs.iter_mut().filter(|db| db.table().is_in_snapshot()) {
            is_complete = is_complete && db.walk_snapshot(is_over);
            let len_min = if is_complete { 1 } else { chunk_len };
            snapshot.output.collect(db.snapshot_mut(), len_min, &self.stats);
            let has_unsaved = db.snapshot_mut().is_some_and(|snapshot| snapshot.has_unsaved(None));
            if is_complete && !has_unsaved {
                db.end_snapshot();
            }
        }
        if is_complete {
            self.free_saved_tables();
        }
        self.count_forced();
        is_complete
    }

    /// Writes parts of big values until `is_over` says that it is enough. Returns whether there is none that could be continued here:
    /// `open` is the record that was begun last and is not complete, which comes first. To be called when all buckets of all shards are
    /// saved, on one shard at a time: until the last part is handed over, no shard makes other chunks, so that what comes from it is
    /// contiguous.
    pub fn save_values(&mut self, open: &mut Option<u64>, is_over: &mut dyn FnMut() -> bool) -> bool {
        let chunk_len = self.snapshot_limits.chunk_len;
        let is_complete = loop {
            let Some(snapshot) = self.snapshot.as_deref_mut() else { return true };
            let ShardSnapshot { detached, values, .. } = snapshot;
            let detached = detached.iter_mut().map(|(detached, _)| detached.contents());
            let mut tables = detached.chain(self.dbs.iter_mut().map(|db| db.table_mut()));
            let table = tables.find_map(|table| {
                let has_next = table.snapshot_mut().is_some_and(|snapshot| snapshot.has_unsaved(*open));
                has_next.then_some(table)
            });
            let Some(table) = table else { break true };
            if !table.save_value(open, values, is_over) {
                break false;
            }
        };
        if let Some(ShardSnapshot { values, output, .. }) = self.snapshot.as_deref_mut()
            && values.bytes.len() >= if is_complete { 1 } else { chunk_len }
        {
            output.chunks.push_back((std::mem::take(values), false));
        }
        if is_complete {
            self.free_saved_tables();
        }
        self.count_forced();
        is_complete
    }

    /// Whether there are big values here that are not completely written; with a number, whether there is the one with this
    /// record.
    pub fn has_unsaved_values(&mut self, open: Option<u64>) -> bool {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return false };
        let has_unsaved = |snapshot: Option<&mut TableSnapshot>| {
            snapshot.is_some_and(|snapshot| snapshot.has_unsaved(open))
        };
        snapshot.detached.iter_mut().any(|(detached, _)| has_unsaved(detached.contents().snapshot_mut()))
            || self.dbs.iter_mut().any(|db| has_unsaved(db.snapshot_mut()))
    }

    /// Frees tables that were taken out and are completely saved.
    fn free_saved_tables(&mut self) {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return };
        for (mut detached, key_count) in std::mem::take(&mut snapshot.detached) {
            let table = detached.contents();
            if table.snapshot_mut().is_some_and(|snapshot| snapshot.has_unsaved(None)) {
                snapshot.detached.push_back((detached, key_count));
            } else {
                table.end_snapshot();
                self.lazyfree.free_later(detached, key_count);
            }
        }
    }

    fn count_forced(&mut self) {
        if let Some(snapshot) = self.snapshot.as_deref() {
            self.stats.snapshot_forced_bytes.add(snapshot.totals.take_forced_bytes());
        }
    }

    /// The next chunk that is to be handed over.
    pub fn next_snapshot_chunk(&mut self) -> Option<Chunk> {
        let output = &mut self.snapshot.as_deref_mut()?.output;
        let (chunk, is_forced) = output.chunks.pop_front()?;
        if is_forced {
            output.forced_waiting_bytes -= chunk.bytes.len();
        }
        Some(chunk)
    }

    /// Bytes that changes have forced out and that wait, behind a chunk that waits as well, or beside a value that is not yet
    /// written, to be handed over.
    pub fn forced_waiting_bytes(&self) -> usize {
        let held =
            |snapshot: &ShardSnapshot| snapshot.output.forced_waiting_bytes + snapshot.totals.held_bytes();
        self.snapshot.as_deref().map_or(0, held)
    }

    /// Those among them that are removed values.
    pub fn kept_bytes(&self) -> usize {
        self.snapshot.as_deref().map_or(0, |snapshot| snapshot.totals.kept_bytes())
    }

    /// Leaves a table that was taken out to the walk, which frees it afterwards. `Err`: it is not part of a snapshot.
    pub(super) fn keep_for_snapshot(
        &mut self,
        mut detached: DetachedTable,
        key_count: u64,
    ) -> Result<(), DetachedTable> {
        match self.snapshot.as_deref_mut() {
            Some(snapshot) if detached.contents().is_in_snapshot() => {
                snapshot.detached.push_back((detached, key_count));
                Ok(())
            }
            Some(_) | None => Err(detached),
        }
    }

    /// A value has come here that the snapshot of this number has not completely written. Returns whether this shard takes part in
    /// it; otherwise it has ended.
    pub(super) fn joins_snapshot(&mut self, number: u64) -> bool {
        if number >= self.snapshots_begun && self.snapshot.as_ref().is_none_or(|last| last.number < number) {
            // It is about to begin here, too, and the last one has ended.
            self.drop_snapshot();
            self.snapshot = Some(Box::new(ShardSnapshot { number, ..ShardSnapshot::default() }));
        }
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.number == number)
    }

    /// Ends the snapshot of this number, complete or not. Chunks that were not handed over are lost.
    pub fn end_snapshot(&mut self, number: u64) {
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.number == number) {
            self.drop_snapshot();
        }
    }

    fn drop_snapshot(&mut self) {
        let Some(snapshot) = self.snapshot.take() else { return };
        self.dbs.iter_mut().for_each(|db| db.end_snapshot());
        for (mut detached, key_count) in snapshot.detached {
            detached.contents().end_snapshot();
            self.lazyfree.free_later(detached, key_count);
        }
    }
}
