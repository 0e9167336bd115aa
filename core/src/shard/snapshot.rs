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
//! *Output.* What is written is RDB records, or commands, in chunks, each of which begins with its database. What the walk writes is
//! bounded, because it stops while a chunk waits to be handed over. What changes force out is not: the caller counts
//! those bytes ([`Shard::forced_waiting_bytes`]) and gives the snapshot up when there are too many.
//!
//! *Not there yet.* A big value is written as a whole: by the walk, and in the middle of a command when its bucket
//! changes. So a slice lasts as long as the longest value takes to be encoded, which for collections of many thousand
//! elements is more than a millisecond.

use super::Shard;
use super::access::Access;
use crate::config::MaxmemoryPolicy;
use crate::persist::aof::rewrite::{write_entry, write_select};
use crate::persist::rdb::write::Writer;
use crate::shard::stats::ShardStats;
use crate::types::module::KeyPlace;
use crate::types::table::{EntryWriter, TableSnapshot};
use crate::types::{DetachedTable, Entry, Table};
use std::collections::VecDeque;
use std::num::NonZeroU16;

/// A chunk is complete when it has this many bytes. A value that is longer makes a longer chunk.
const CHUNK_LEN: usize = 256 << 10;

/// A snapshot that is under way. See the module's documentation.
#[derive(Default)]
pub(super) struct ShardSnapshot {
    /// Tables that were taken out by FLUSHDB or FLUSHALL, each with the keys for which it counts when it is freed.
    detached: VecDeque<(DetachedTable, u64)>,
    output: Output,
}

/// What is to be handed over.
#[derive(Default)]
struct Output {
    /// Chunks, and whether changes have forced them out.
    chunks: VecDeque<(Vec<u8>, bool)>,
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
}

impl EntryWriter for CommandWriter {
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) {
        if out.is_empty() {
            write_select(out, self.db);
        }
        write_entry(out, self.db, entry, self.compress);
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
            self.chunks.push_back((chunk, true));
        }
        if let Some(chunk) = table.take_walked(len_min) {
            self.chunks.push_back((chunk, false));
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
    /// are consecutive, from 0 on.
    pub fn begin_snapshot(&mut self, number: u64, format: Format) {
        debug_assert!(self.snapshot.is_none() && self.checked_out.is_empty());
        let versions = u64::from(u16::MAX);
        let version = NonZeroU16::new((number % versions) as u16 + 1).expect("it is at least 1");
        if number > 0 && version.get() == 1 {
            // All versions have been used.
            self.dbs.iter_mut().for_each(|db| db.reset_versions());
        }
        let compress = self.config.rdbcompression;
        for (db, of_db) in (0..).zip(&mut self.dbs) {
            of_db.begin_snapshot(version, || match format {
                Format::Rdb => Box::new(RecordWriter {
                    db,
                    compress,
                    access: self.access.clone(),
                    policy: self.config.maxmemory_policy,
                }),
                Format::Commands => Box::new(CommandWriter { db, compress }),
            });
        }
        self.stats.snapshot_keys.set(0);
        self.stats.snapshot_forced_bytes.set(0);
        self.snapshot = Some(Box::default());
    }

    /// Saves buckets until `is_over` says that it is enough, which is asked before each. Returns whether the tables are
    /// saved completely; the last chunks may still have to be handed over.
    pub fn walk_snapshot(&mut self, is_over: &mut dyn FnMut() -> bool) -> bool {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return true };
        let mut is_complete = true;
        while let Some((detached, key_count)) = snapshot.detached.front_mut() {
            is_complete = detached.contents().walk_snapshot(is_over);
            let len_min = if is_complete { 1 } else { CHUNK_LEN };
            snapshot.output.collect(detached.contents().snapshot_mut(), len_min, &self.stats);
            if !is_complete {
                break;
            }
            detached.contents().end_snapshot();
            let key_count = *key_count;
            if let Some((detached, _)) = snapshot.detached.pop_front() {
                self.lazyfree.free_later(detached, key_count);
            }
        }
        for db in self.dbs.iter_mut().filter(|db| db.table().is_in_snapshot()) {
            is_complete = is_complete && db.walk_snapshot(is_over);
            let len_min = if is_complete { 1 } else { CHUNK_LEN };
            snapshot.output.collect(db.snapshot_mut(), len_min, &self.stats);
            if is_complete {
                db.end_snapshot();
            }
        }
        is_complete
    }

    /// The next chunk that is to be handed over.
    pub fn next_snapshot_chunk(&mut self) -> Option<Vec<u8>> {
        let output = &mut self.snapshot.as_deref_mut()?.output;
        let (chunk, is_forced) = output.chunks.pop_front()?;
        if is_forced {
            output.forced_waiting_bytes -= chunk.len();
        }
        Some(chunk)
    }

    /// Bytes that changes have forced out and that wait, behind a chunk that waits as well, to be handed over.
    pub fn forced_waiting_bytes(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.output.forced_waiting_bytes)
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

    /// Ends the snapshot, complete or not. Chunks that were not handed over are lost.
    pub fn end_snapshot(&mut self) {
        let Some(snapshot) = self.snapshot.take() else { return };
        self.dbs.iter_mut().for_each(|db| db.end_snapshot());
        for (mut detached, key_count) in snapshot.detached {
            detached.contents().end_snapshot();
            self.lazyfree.free_later(detached, key_count);
        }
    }
}
