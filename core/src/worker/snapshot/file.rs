//! The file of a snapshot, and the thread that writes it.

use super::compress::Compressor;
use super::{Purpose, Snapshots};
use crate::config::Config;
use crate::persist::aof::rewrite::write_request;
use crate::persist::crc64::Crc64;
use crate::persist::rdb::module::write_aux;
use crate::persist::rdb::write::{Writer, end_of_file};
use crate::runtime::clock::Clock;
use crate::runtime::disk::{Disk, DiskFile, SystemDisk, append_all, create_dir_on, dir_of, open_empty_on};
use crate::runtime::log;
use crate::shard::snapshot::{DbSize, Format};
use crate::types::module::AuxPlace;
use crate::types::save::Chunk;
use crate::worker::Globals;
use crate::worker::aof::{Aof, NewBase};
use crate::worker::persistence::{header, removes_sync_files, write_sizes};
use crate::worker::stream::{Payload, push_to_all};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// How many chunks may wait for the writing thread.
const CHUNKS_WAITING_MAX: usize = 16;

/// The file is flushed to disk whenever this much was written (rdb-save-incremental-fsync, aof-rewrite-incremental-fsync).
const SYNC_INTERVAL_BYTES: usize = 32 << 20;

/// The snapshot that is under way.
pub(super) struct Current {
    progress: Arc<Progress>,
    /// Until all shards have begun.
    queue: Option<(SyncSender<Chunk>, Receiver<Chunk>)>,
    plan: Option<FilePlan>,
    writer: Option<JoinHandle<io::Result<bool>>>,
    sizes: BTreeMap<u32, DbSize>,
    parts_begun: usize,
    /// The sum of the shards' `dirty` at the barrier.
    pub(super) changes: u64,
    /// Its number among the snapshots.
    pub(super) number: u64,
    pub(super) begun_at_ticks: u64,
    pub(super) target: Target,
    pub(super) format: Format,
}

/// Where the file goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Rdb,
    /// The RDB file, which is then sent to the replicas of this full synchronization.
    SentRdb {
        sync: u64,
    },
    /// The replicas of this full synchronization.
    Replicas {
        sync: u64,
    },
    /// The append-only file, in front of this part of the stream; 0: it is off.
    Base {
        part: u64,
    },
}

/// How a snapshot stands, as far as all that take part have to know.
#[derive(Default)]
pub struct Progress {
    /// It is to end without a file. Set under the lock of `place`.
    is_cancelled: AtomicBool,
    /// It does not keep up with the changes.
    pub(super) is_late: AtomicBool,
    /// Parts that were begun and are not complete. The queue also ends when shards drop their parts because they end.
    pub(super) parts_missing: AtomicUsize,
    /// Shards whose buckets are not all saved and handed over, those that have not begun included.
    pub(super) buckets_missing: AtomicUsize,
    /// Whose turn it is to write the records of big values.
    turn: Mutex<ValueTurn>,
    /// Records of big values that are not finished, of all shards.
    pub(super) unfinished: Arc<AtomicUsize>,
    /// Held while the file is put in its place.
    place: Mutex<()>,
}

/// The records of big values are written by one shard at a time.
#[derive(Default)]
pub(super) struct ValueTurn {
    pub(super) is_taken: bool,
    /// The record that was begun last, if it is not complete. Whoever has its value is to continue it.
    pub(super) open: Option<u64>,
}

impl Progress {
    pub(super) fn lock_turn(&self) -> MutexGuard<'_, ValueTurn> {
        self.turn.lock().expect("no holder of the turn panics")
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || self.is_late.load(Ordering::Relaxed)
    }

    /// Whether no file is to be put in place. Looked at while the place is locked.
    pub(in crate::worker) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    pub(in crate::worker) fn lock_place(&self) -> MutexGuard<'_, ()> {
        self.place.lock().expect("no holder of the place panics")
    }

    /// From the return on, no file is put in place.
    pub(in crate::worker) fn cancel(&self) {
        let _place = self.lock_place();
        self.is_cancelled.store(true, Ordering::SeqCst);
    }
}

/// What the writing thread needs besides the chunks.
pub(in crate::worker) struct FilePlan {
    /// Of an RDB file: where it is in the end.
    path: PathBuf,
    temporary: PathBuf,
    header: Vec<u8>,
    /// What modules have to be behind the keys.
    footer: Vec<u8>,
    target: Target,
    format: Format,
    has_checksum: bool,
    syncs_meanwhile: bool,
}

impl FilePlan {
    /// Writes what comes, and puts the file in its place, unless the snapshot was cancelled: then `false`.
    fn run(
        self,
        chunks: &Receiver<Chunk>,
        progress: &Arc<Progress>,
        globals: &'static Globals,
        clock: &'static dyn Clock,
    ) -> io::Result<bool> {
        let mut counted_bytes = 0;
        // Each chunk is freed before the next one is taken.
        let counted = chunks.iter().inspect(|_| globals.count_other_thread(&mut counted_bytes, clock));
        let mut compressor = Compressor::default();
        let counted = counted.flat_map(|chunk| compressor.take(chunk));
        let outcome = match self.target {
            Target::Base { part } => {
                let written = self.write(&SystemDisk, counted, progress);
                let outcome = self.hand_over(written, part, progress, globals, clock);
                self.clean_up(&SystemDisk, &outcome);
                outcome
            }
            Target::Rdb => self.save(&SystemDisk, counted, progress),
            Target::SentRdb { sync } => {
                let payloads = globals.stream.payloads_of(sync);
                let outcome = self.save(&SystemDisk, counted, progress).and_then(|is_complete| {
                    if is_complete {
                        self.send_file(&SystemDisk, &payloads)?;
                        if removes_sync_files(&globals.config().1) {
                            log::notice(format_args!(
                                "Removing the RDB file used to feed replicas in a persistence-less instance"
                            ));
                            // Those that send it have it open.
                            SystemDisk.remove(&self.path)?;
                        }
                        globals.stream.set_receiving(sync);
                    }
                    Ok(is_complete)
                });
                end_all(&payloads, &outcome);
                outcome
            }
            Target::Replicas { sync } => {
                let payloads = globals.stream.payloads_of(sync);
                let outcome = self.send(&payloads, counted, progress);
                end_all(&payloads, &outcome);
                outcome
            }
        };
        globals.count_other_thread(&mut counted_bytes, clock);
        outcome
    }

    /// The RDB file of a save that holds the shards up until it is complete. The chunks have what modules have to be behind the
    /// keys.
    pub(in crate::worker) fn at_once(temporary: PathBuf, header: Vec<u8>, config: &Config) -> FilePlan {
        FilePlan {
            path: config.dbfilename.as_path().to_owned(),
            temporary,
            header,
            footer: Vec::new(),
            target: Target::Rdb,
            format: Format::Rdb,
            has_checksum: config.rdbchecksum,
            syncs_meanwhile: config.rdb_save_incremental_fsync,
        }
    }

    /// Hands what comes over to replicas. Returns whether that is a whole snapshot.
    fn send(
        &self,
        payloads: &[Arc<Payload>],
        chunks: impl IntoIterator<Item = Vec<u8>>,
        progress: &Progress,
    ) -> io::Result<bool> {
        let mut checksum = self.has_checksum.then(Crc64::new);
        let is_over = || progress.has_ended();
        let mut send = |bytes: Vec<u8>| {
            if let Some(checksum) = &mut checksum {
                checksum.update(&bytes);
            }
            push_to_all(payloads, bytes, &is_over)
        };
        let mut goes_on = send(self.header.clone());
        for chunk in chunks {
            goes_on = goes_on && send(chunk);
            if !goes_on {
                break;
            }
        }
        goes_on = goes_on && send(self.footer.clone());
        if progress.is_late.load(Ordering::SeqCst) {
            return Err(io::Error::other("the replicas do not keep up with the changes of the data set"));
        }
        if !goes_on || progress.is_cancelled() || progress.parts_missing.load(Ordering::SeqCst) > 0 {
            return Ok(false);
        }
        push_to_all(payloads, end_of_file(checksum).to_vec(), &is_over);
        Ok(true)
    }

    /// Has the file sent to replicas.
    fn send_file(&self, disk: &dyn Disk, payloads: &[Arc<Payload>]) -> io::Result<()> {
        for payload in payloads {
            let len_bytes = disk.len(&self.path)?.ok_or(io::ErrorKind::NotFound)?;
            payload.send_file(disk.reader(&self.path)?, len_bytes);
        }
        Ok(())
    }

    /// Writes what comes to the RDB file, unless the snapshot was cancelled: then `false`.
    ///
    /// # Errors
    /// Those of the system. The old file is in its place then, or the new one, complete.
    pub(in crate::worker) fn save(
        &self,
        disk: &dyn Disk,
        chunks: impl IntoIterator<Item = Vec<u8>>,
        progress: &Progress,
    ) -> io::Result<bool> {
        let outcome = self.write(disk, chunks, progress).and_then(|is_complete| match is_complete {
            true => self.put_in_place(disk, progress),
            false => Ok(false),
        });
        self.clean_up(disk, &outcome);
        outcome
    }

    fn clean_up(&self, disk: &dyn Disk, outcome: &io::Result<bool>) {
        if !matches!(outcome, Ok(true)) {
            // It may not even have been made.
            let _ = disk.remove(&self.temporary);
        }
    }

    /// Writes what comes. Returns whether that is a whole snapshot.
    fn write(
        &self,
        disk: &dyn Disk,
        chunks: impl IntoIterator<Item = Vec<u8>>,
        progress: &Progress,
    ) -> io::Result<bool> {
        let path: &Path = &self.temporary;
        if matches!(self.target, Target::Base { .. }) {
            create_dir_on(disk, &dir_of(path))?;
        }
        // A process of the same id may have left something behind when it was killed.
        let mut file = open_empty_on(disk, path)?;
        let checksum = (self.format == Format::Rdb && self.has_checksum).then(Crc64::new);
        let mut out = Output { file: &mut *file, checksum, unsynced_bytes: 0, syncs: self.syncs_meanwhile };
        out.write(&self.header)?;
        for chunk in chunks {
            if progress.has_ended() {
                break;
            }
            out.write(&chunk)?;
        }
        if progress.is_late.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk does not keep up with the changes of the data set"));
        }
        out.write(&self.footer)?;
        if self.format == Format::Rdb {
            let end = end_of_file(out.checksum.take());
            out.write(&end)?;
        }
        // The long wait, before the place is locked: who cancels does not wait for it.
        file.sync()?;
        Ok(!progress.is_cancelled() && progress.parts_missing.load(Ordering::SeqCst) == 0)
    }

    fn put_in_place(&self, disk: &dyn Disk, progress: &Progress) -> io::Result<bool> {
        let _place = progress.lock_place();
        if progress.is_cancelled() {
            return Ok(false);
        }
        disk.rename(&self.temporary, &self.path)?;
        disk.sync_dir(&dir_of(&self.path))?;
        Ok(true)
    }

    /// Has the writer of the append-only file take the base over, and waits for that. It is told of a failure, too: the file
    /// behind a first base is of no use then.
    fn hand_over(
        &self,
        written: io::Result<bool>,
        part: u64,
        progress: &Arc<Progress>,
        globals: &'static Globals,
        clock: &'static dyn Clock,
    ) -> io::Result<bool> {
        let is_complete = matches!(written, Ok(true));
        let (done, is_done) = sync_channel(1);
        let base = NewBase {
            part,
            path: is_complete.then(|| self.temporary.clone()),
            extension: self.format.extension(),
            progress: Arc::clone(progress),
            done,
        };
        Aof::hand_over(globals, clock, base);
        // The writer ends with the server, and the base is not used then.
        let is_used = is_done.recv().unwrap_or(Ok(false));
        if is_complete { is_used } else { written }
    }
}

/// A snapshot for replicas has ended. What is sent from a file ends by itself.
fn end_all(payloads: &[Arc<Payload>], outcome: &io::Result<bool>) {
    payloads.iter().for_each(|payload| payload.end_unless_sent(matches!(outcome, Ok(true))));
}

/// The file while it is written.
struct Output<'a> {
    file: &'a mut dyn DiskFile,
    checksum: Option<Crc64>,
    unsynced_bytes: usize,
    syncs: bool,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        append_all(self.file, bytes)?;
        self.unsynced_bytes += bytes.len();
        if self.syncs && self.unsynced_bytes >= SYNC_INTERVAL_BYTES {
            self.unsynced_bytes = 0;
            self.file.sync()?;
        }
        Ok(())
    }
}

impl Current {
    /// What the first shard does.
    pub(super) fn begin(
        target: Target,
        config: &Config,
        number: u64,
        begun_at_ticks: u64,
        shard_count: usize,
    ) -> Current {
        let path = config.dbfilename.as_path().to_owned();
        let process = std::process::id();
        let (temporary, format, syncs_meanwhile) = match target {
            Target::Rdb | Target::SentRdb { .. } | Target::Replicas { .. } => {
                let name = format!("temp-bg-{process}-{number}.rdb");
                (path.with_file_name(name), Format::Rdb, config.rdb_save_incremental_fsync)
            }
            Target::Base { .. } => {
                let format = if config.aof_use_rdb_preamble { Format::Rdb } else { Format::Commands };
                let name = format!("temp-rewriteaof-bg-{process}.aof");
                (config.appenddirname.as_path().join(name), format, config.aof_rewrite_incremental_fsync)
            }
        };
        let plan =
            FilePlan { target, format, syncs_meanwhile, ..FilePlan::at_once(temporary, Vec::new(), config) };
        Current {
            progress: Arc::new(Progress {
                buckets_missing: AtomicUsize::new(shard_count),
                ..Progress::default()
            }),
            queue: Some(sync_channel(CHUNKS_WAITING_MAX)),
            plan: Some(plan),
            writer: None,
            sizes: BTreeMap::new(),
            parts_begun: 0,
            changes: 0,
            number,
            begun_at_ticks,
            target,
            format,
        }
    }

    pub(super) fn purpose(&self) -> Purpose {
        match self.target {
            Target::Rdb | Target::SentRdb { .. } | Target::Replicas { .. } => Purpose::Save,
            Target::Base { .. } => Purpose::Rewrite,
        }
    }

    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What each shard does, besides beginning with its tables. Returns where its chunks go.
    pub(super) fn begin_part(&mut self, sizes: &[DbSize], changes: u64) -> SyncSender<Chunk> {
        for &size in sizes {
            let sum = self.sizes.entry(size.db).or_insert(DbSize { keys: 0, expires: 0, ..size });
            sum.keys += size.keys;
            sum.expires += size.expires;
        }
        self.changes += changes;
        self.parts_begun += 1;
        self.progress.parts_missing.fetch_add(1, Ordering::SeqCst);
        let (chunks, _) = self.queue.as_ref().expect("it is there until all shards have begun");
        chunks.clone()
    }

    /// Starts the writing thread if all shards have begun. Returns whether that is so.
    pub(super) fn start_writer_if_begun(
        &mut self,
        globals: &'static Globals,
        clock: &'static dyn Clock,
        config: &Config,
        now_ms: i64,
    ) -> bool {
        if self.parts_begun < globals.stats.len() {
            return false;
        }
        let mut plan = self.plan.take().expect("the writing thread is started once");
        let (_, inbox) = self.queue.take().expect("as above");
        let compresses = config.rdbcompression;
        match plan.format {
            Format::Rdb => {
                plan.header = header(globals, compresses, now_ms, self.purpose() == Purpose::Rewrite);
                if globals.link.is_replica() {
                    let db = globals.link.sync_db().to_string();
                    Writer::new(&mut plan.header, compresses).aux("repl-stream-db", &db);
                }
                let sizes: Vec<DbSize> = self.sizes.values().copied().collect();
                write_sizes(&sizes, compresses, &mut plan.header);
                write_aux(&globals.module_types, AuxPlace::AfterKeys, compresses, &mut plan.footer);
            }
            Format::Commands => {
                if config.aof_timestamp_enabled {
                    plan.header.extend_from_slice(format!("#TS:{}\r\n", now_ms / 1000).as_bytes());
                }
                let (_, functions) = globals.scripts.functions.get();
                functions.libraries().for_each(|library| {
                    write_request(&mut plan.header, &[b"FUNCTION", b"LOAD", &library.text]);
                });
            }
        }
        let progress = Arc::clone(&self.progress);
        let writer = std::thread::Builder::new()
            .name("rdb-writer".to_owned())
            .spawn(move || plan.run(&inbox, &progress, globals, clock))
            .expect("the system can start a thread");
        self.writer = Some(writer);
        let what = match self.target {
            Target::Rdb | Target::SentRdb { .. } => "Background saving",
            Target::Replicas { .. } => "Background RDB transfer",
            Target::Base { .. } => "Background append only file rewriting",
        };
        log::notice(format_args!("{what} started by pid {}", std::process::id()));
        true
    }

    /// Whether the writing thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.writer.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// The outcome of the writing thread, which has ended. `false`: the snapshot was cancelled.
    pub(super) fn outcome(&mut self) -> io::Result<bool> {
        let writer = self.writer.take().expect("it was started, and is asked once");
        writer.join().expect("the writing thread does not panic")
    }

    /// Waits for the writing thread, which leaves no file behind.
    pub(super) fn abandon(self) {
        self.progress.cancel();
        drop(self.queue);
        if let Some(writer) = self.writer {
            // It has nothing to report any more.
            let _ = writer.join();
        }
    }
}

impl Snapshots {
    /// Takes in how a snapshot has ended, as far as that is the same for all.
    pub(super) fn record_end(&self, purpose: Purpose, forced_bytes: u64, now_ms: i64) {
        let series = self.of(purpose);
        let duration_s = (now_ms / 1000 - series.begun_at_s.load(Ordering::Relaxed)).max(0);
        series.last_duration_s.store(duration_s + 1, Ordering::Relaxed);
        series.last_forced_bytes.store(forced_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::testing::{Call, Fault, ModelDisk};
    use crate::testing::Rng;

    const ALL_CALLS: &[Call] =
        &[Call::Append, Call::Sync, Call::Open, Call::Rename, Call::Remove, Call::SyncDir];

    /// Saves two chunks of this number.
    fn save(disk: &ModelDisk, number: u8) -> io::Result<bool> {
        let config = Config::default();
        let plan = FilePlan::at_once(PathBuf::from("temp-1-1.rdb"), vec![number; 100], &config);
        let (chunks, inbox) = sync_channel(2);
        (0..2).for_each(|_| chunks.send(vec![number; 100]).expect("there is room"));
        drop(chunks);
        plan.save(disk, &inbox, &Progress::default())
    }

    /// Of which save the file is. It is whole.
    fn number_in(disk: &ModelDisk) -> u8 {
        let bytes = disk.read(Path::new("dump.rdb")).expect("it can be read").expect("it is there");
        let number = bytes[0];
        assert!(bytes.len() == 309 && bytes[..300] == [number; 300], "it is no whole file");
        number
    }

    /// Each call fails once, or is the last one of a process that is killed, or the last one before a power cut.
    #[test]
    fn whatever_fails_the_file_is_the_old_one_or_the_new_one() {
        let (mut new, mut failed) = (0, 0);
        for (after, seed) in (0..14).flat_map(|after| (0..30).map(move |seed| (after, seed))) {
            let disk = ModelDisk::default();
            assert!(save(&disk, 1).expect("there is room"));
            match seed % 3 {
                0 => disk.fail(Fault {
                    of: ALL_CALLS,
                    after,
                    count: 1,
                    writes_part: seed % 2 == 0,
                    ..Fault::default()
                }),
                _ => disk.die_after(after),
            }
            let outcome = save(&disk, 2);
            let is_dead = disk.is_dead();
            match seed % 3 {
                0 | 1 => disk.revive(),
                _ => disk.cut_power(&mut Rng::new(seed)),
            }
            let number = number_in(&disk);
            assert!(
                number == 2 || !matches!(outcome, Ok(true)),
                "call {after}, seed {seed}: it is not there"
            );
            new += usize::from(number == 2);
            failed += usize::from(outcome.is_err());
            if !is_dead {
                assert_eq!(disk.names(), [PathBuf::from("dump.rdb")], "call {after}, seed {seed}");
            }
            assert!(save(&disk, 3).expect("there is room") && number_in(&disk) == 3);
        }
        assert!(new > 50 && failed > 50, "{new} new files, {failed} saves that failed");
    }
}
