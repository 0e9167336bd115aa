//! Loading the append-only file: the base as an RDB file is loaded, and then the commands, which shard 0 runs or sends to
//! the shards of their keys ([`feed`](crate::worker::feed)).
//!
//! A unit is run only when all of it was read. So where a file is cut off, within a command or a transaction, the data set
//! is as after the last whole unit, and that is also where the file is truncated.

use super::files::AofFiles;
use crate::persist::aof::FileInfo;
use crate::persist::aof::read::{AofError, AofItem, AofReader};
use crate::persist::rdb::file::FileReader;
use crate::persist::rdb::window::{FileError, for_each_item};
use crate::runtime::disk::Disk;
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use crate::shard::message::ReplyId;
use crate::worker::Globals;
use crate::worker::feed::{CHUNK_LEN, CHUNKS_WAITING_MAX, FEED_SHARD, Feed};
use crate::worker::load::Pacing;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

/// The way of commands to the shards.
pub struct Commands<'a> {
    globals: &'a Globals,
    chunks: SyncSender<Vec<u8>>,
    done: Receiver<()>,
    chunk: Vec<u8>,
}

/// The shards have ended: the server stops.
#[derive(Debug)]
pub struct Stopped;

impl<'a> Commands<'a> {
    /// Begins to feed commands. `ends_reload`: see [`Feed`].
    pub fn begin(globals: &'a Globals, ends_reload: Option<(usize, ReplyId)>) -> Commands<'a> {
        let (chunks, inbox) = sync_channel(CHUNKS_WAITING_MAX);
        let (done, is_done) = channel();
        globals.feed.put(Feed { chunks: inbox, done, ends_reload });
        globals.aof.ring(FEED_SHARD);
        Commands { globals, chunks, done: is_done, chunk: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_LEN { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Stopped> {
        self.chunks.send(std::mem::take(&mut self.chunk)).map_err(|_| Stopped)?;
        self.globals.aof.ring(FEED_SHARD);
        Ok(())
    }

    /// Adds a command of the server's.
    ///
    /// # Errors
    /// The server stops.
    pub fn request(&mut self, words: &[&str]) -> Result<(), Stopped> {
        let mut bytes = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.push(bytes.as_bytes())
    }

    /// Waits until all commands have run.
    ///
    /// # Errors
    /// The server stops.
    pub fn finish(mut self) -> Result<(), Stopped> {
        self.send()?;
        let Commands { globals, chunks, done, .. } = self;
        drop(chunks);
        globals.aof.ring(FEED_SHARD);
        done.recv().map_err(|_| Stopped)
    }
}

/// Why the file cannot be loaded.
pub enum Failure {
    Stopped,
    /// The operator's line.
    Line(String),
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Failure {
        Failure::Stopped
    }
}

/// Whether a file begins as an RDB file.
///
/// # Errors
/// The operator's line.
pub fn begins_with_rdb(files: &AofFiles, disk: &dyn Disk, info: &FileInfo) -> Result<bool, String> {
    let mut magic = Vec::new();
    let outcome = open(files, disk, info)?.take(5).read_to_end(&mut magic);
    outcome.map_err(|error| cannot_read(info, &error))?;
    Ok(magic == b"REDIS")
}

/// Opens a file of the manifest to read it from its beginning.
///
/// # Errors
/// The operator's line.
pub fn open(files: &AofFiles, disk: &dyn Disk, info: &FileInfo) -> Result<Box<dyn Read + Send>, String> {
    disk.reader(&files.path(info)).map_err(|error| cannot_read(info, &error))
}

fn cannot_read(info: &FileInfo, error: &io::Error) -> String {
    let (name, why) = (String::from_utf8_lossy(&info.name), error_text(error));
    format!("Fatal error: can't open the append log file {name} for reading: {why}")
}

/// Where the RDB file ends that a file begins with.
///
/// # Errors
/// The operator's line.
pub fn end_of_rdb(files: &AofFiles, disk: &dyn Disk, info: &FileInfo) -> Result<u64, String> {
    let mut reader = FileReader::new(false);
    let mut source = open(files, disk, info)?;
    let outcome = for_each_item(&mut source, &mut reader, |_, _| Ok::<_, FileError>(()));
    outcome.map_err(|error| format!("{}: {error}", String::from_utf8_lossy(&info.name)))?;
    Ok(reader.offset())
}

/// Runs the commands of all files. `rdb_end`: where the RDB file ends that the first one begins with, or 0.
///
/// # Errors
/// A file is damaged, or truncated and not the last one, or that is not to be accepted; an unknown command.
pub fn run_commands(
    files: &AofFiles,
    disk: &dyn Disk,
    rdb_end: u64,
    commands: &mut Commands<'_>,
    pacing: &Pacing,
) -> Result<(), Failure> {
    let count = files.manifest.files().count();
    let mut loaded_bytes = 0;
    for (at, info) in files.manifest.files().enumerate() {
        let started_us = pacing.clock.wall_us();
        let start = if at == 0 { rdb_end } else { 0 };
        let part = Part { files, disk, info, start, loaded_before: loaded_bytes, is_last: at + 1 == count };
        loaded_bytes += part.run(commands, pacing)?;
        let elapsed_s = (pacing.clock.wall_us() - started_us) as f64 / 1e6;
        let kind = if files.manifest.base.as_ref() == Some(info) { "base" } else { "incr" };
        let name = String::from_utf8_lossy(&info.name);
        log::notice(format_args!("DB loaded from {kind} file {name}: {elapsed_s:.3} seconds"));
    }
    Ok(())
}

/// A file to be run.
struct Part<'a> {
    files: &'a AofFiles,
    disk: &'a dyn Disk,
    info: &'a FileInfo,
    /// Where its commands begin.
    start: u64,
    /// Bytes of the files before it.
    loaded_before: u64,
    is_last: bool,
}

impl Part<'_> {
    /// Returns how long the file is.
    fn run(&self, commands: &mut Commands<'_>, pacing: &Pacing) -> Result<u64, Failure> {
        let globals = commands.globals;
        let mut source = open(self.files, self.disk, self.info).map_err(Failure::Line)?;
        io::copy(&mut (&mut source).take(self.start), &mut io::sink())
            .map_err(|error| Failure::Line(cannot_read(self.info, &error)))?;
        let mut reader = AofReader::new(&mut source, self.start);
        let mut command_count = 0;
        loop {
            match reader.next_item() {
                Ok(Some(AofItem::Unit { bytes, commands: unit })) => {
                    for argv in unit.iter() {
                        self.check_command(argv.arg(0), globals)?;
                        command_count += 1;
                        pacing.pause(command_count);
                    }
                    commands.push(bytes)?;
                }
                Ok(Some(AofItem::Annotation(_))) => {}
                Ok(None) => return Ok(reader.offset()),
                Err(error) => {
                    self.handle(error, globals)?;
                    return Ok(reader.offset());
                }
            }
            globals.persistence.loading.record_bytes(self.loaded_before + reader.offset());
        }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.info.name).into_owned()
    }

    fn check_command(&self, name: &[u8], globals: &Globals) -> Result<(), Failure> {
        if globals.knows_command(name) {
            return Ok(());
        }
        let (name, file) = (name.escape_ascii(), self.name());
        Err(Failure::Line(format!("Unknown command '{name}' reading the append only file {file}")))
    }

    /// The file cannot be read further. Truncates it if that is all that is wrong with it, and configured.
    fn handle(&self, error: AofError, globals: &Globals) -> Result<(), Failure> {
        let name = self.name();
        let (_, config) = globals.config();
        match error {
            AofError::Io(error) => Err(Failure::Line(format!(
                "Unrecoverable error reading the append only file {name}: {}",
                error_text(&error)
            ))),
            AofError::Damaged { offset } => Err(Failure::Line(format!(
                "Bad file format reading the append only file {name} at offset {offset}: make a backup of your AOF \
                 file, then use shardis --check-aof --fix <filename.manifest>"
            ))),
            AofError::Truncated { offset, in_transaction } => {
                if in_transaction {
                    log::warning(format_args!(
                        "Revert incomplete MULTI/EXEC transaction from AOF file {name}"
                    ));
                }
                if !config.aof_load_truncated {
                    return Err(Failure::Line(format!(
                        "Unexpected end of file reading the append only file {name} at offset {offset}. You can: 1) \
                         Make a backup of your AOF file, then use shardis --check-aof --fix <filename.manifest>. 2) \
                         Alternatively you can set the 'aof-load-truncated' configuration option to yes and restart \
                         the server."
                    )));
                }
                log::warning(format_args!("!!! Warning: short read while loading the AOF file {name}!!!"));
                log::warning(format_args!("AOF {name} loaded anyway because aof-load-truncated is enabled"));
                if !self.is_last {
                    return Err(Failure::Line(format!(
                        "Fatal error: the truncated file {name} is not the last file. Use shardis --check-aof \
                         <filename.manifest> to see what is missing."
                    )));
                }
                log::warning(format_args!("Truncating the AOF {name} at offset {offset}"));
                let path = self.files.path(self.info);
                let outcome = self.disk.open(&path).and_then(|mut file| {
                    file.truncate(offset)?;
                    file.sync()
                });
                outcome.map_err(|error| {
                    Failure::Line(format!("Error truncating the AOF file {name}: {}", error_text(&error)))
                })
            }
        }
    }
}
