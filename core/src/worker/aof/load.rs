//! Loading the append-only file: the base as an RDB file is loaded, and then the commands, which shard 0 runs or sends to
//! the shards of their keys ([`feed`](crate::worker::feed)).
//!
//! A unit is run only when all of it was read. So where a file is cut off, within a command or a transaction, the data set
//! is as after the last whole unit, and that is also where the file is truncated.

use super::files::AofFiles;
use crate::persist::aof::FileInfo;
use crate::persist::aof::read::{AofError, AofItem, AofReader, Commands as UnitCommands};
use crate::persist::aof::rewrite::write_request;
use crate::persist::rdb::file::FileReader;
use crate::persist::rdb::window::{FileError, for_each_item};
use crate::runtime::clock::Clock;
use crate::runtime::disk::Disk;
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use crate::shard::message::ReplyId;
use crate::worker::Globals;
use crate::worker::feed::{AtEnd, CHUNK_LEN, CHUNKS_WAITING_MAX, Chunk, FEED_SHARD, Feed};
use crate::worker::load::{LoadKind, Pacing, TOLD_AFTER_COMMANDS};
use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

/// The way of commands to the shards.
pub struct Commands<'a> {
    globals: &'a Globals,
    chunks: SyncSender<Chunk>,
    done: Receiver<bool>,
    chunk: Vec<u8>,
}

impl<'a> Commands<'a> {
    /// Begins to feed commands. `ends_reload`: with the last of them the data set is loaded, and this client gets its reply.
    pub fn begin(globals: &'a Globals, ends_reload: Option<(usize, ReplyId)>) -> Commands<'a> {
        let at_end = ends_reload.map_or(AtEnd::Nothing, |(home, reply_id)| AtEnd::Reload(home, reply_id));
        Commands::begin_with(globals, at_end)
    }

    /// Begins to feed commands.
    pub fn begin_with(globals: &'a Globals, at_end: AtEnd) -> Commands<'a> {
        let (chunks, inbox) = sync_channel(CHUNKS_WAITING_MAX);
        let (done, is_done) = channel();
        globals.feed.put(Feed { chunks: inbox, done, at_end, is_stream: false });
        globals.aof.ring(FEED_SHARD);
        Commands { globals, chunks, done: is_done, chunk: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_LEN { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Failure> {
        let bytes = std::mem::take(&mut self.chunk);
        if self.chunks.send(Chunk { bytes, is_joined: false }).is_err() {
            // The shard takes no more commands.
            return outcome(&self.done);
        }
        self.globals.aof.ring(FEED_SHARD);
        Ok(())
    }

    /// Adds a command of the server's.
    ///
    /// # Errors
    /// The server stops, or a command has ended the connection.
    pub fn request(&mut self, words: &[&str]) -> Result<(), Failure> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut bytes = Vec::new();
        write_request(&mut bytes, &words);
        self.push(&bytes)
    }

    /// Waits until all commands have run.
    ///
    /// # Errors
    /// As for [`Commands::request`].
    pub fn finish(mut self) -> Result<(), Failure> {
        self.send()?;
        let Commands { globals, chunks, done, .. } = self;
        drop(chunks);
        globals.aof.ring(FEED_SHARD);
        outcome(&done)
    }
}

/// How the commands have ended, when the shard says so.
fn outcome(done: &Receiver<bool>) -> Result<(), Failure> {
    match done.recv() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Line(
            "Fatal error loading the append only file: one of its commands has ended the connection over which they are \
             run. shardis --check-aof shows whether the file is damaged."
                .to_owned(),
        )),
        Err(_) => Err(Failure::Stopped),
    }
}

/// Why the file cannot be loaded.
pub enum Failure {
    Stopped,
    /// The operator's line.
    Line(String),
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
/// Those of [`read_units`]; an unknown command.
pub fn run_commands(
    files: &AofFiles,
    disk: &dyn Disk,
    rdb_end: u64,
    commands: &mut Commands<'_>,
    pacing: &Pacing,
) -> Result<(), Failure> {
    let globals = commands.globals;
    let accepts_truncated = globals.config().1.aof_load_truncated;
    let loading = &globals.persistence.loading;
    let on_progress = loading.on_progress();
    let (mut command_count, mut told_at) = (0, 0);
    read_units(files, disk, rdb_end, accepts_truncated, pacing.clock, &mut |unit| {
        for argv in unit.commands.iter() {
            let name = argv.arg(0);
            if !globals.knows_command(name) {
                let (name, file) = (name.escape_ascii(), unit.file_name());
                let line = format!("Unknown command '{name}' reading the append only file {file}");
                return Err(Failure::Line(line));
            }
            command_count += 1;
            pacing.pause(command_count);
        }
        commands.push(unit.bytes)?;
        loading.record_bytes(unit.read_bytes);
        if let Some(on_progress) = on_progress
            && command_count >= told_at + TOLD_AFTER_COMMANDS
        {
            told_at = command_count;
            on_progress(LoadKind::Commands, loading.progress());
        }
        Ok(())
    })
}

/// A unit that was read.
pub(super) struct Unit<'u> {
    /// All of it.
    pub(super) bytes: &'u [u8],
    commands: UnitCommands<'u>,
    info: &'u FileInfo,
    /// Up to its end, of all files.
    read_bytes: u64,
}

impl Unit<'_> {
    fn file_name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.info.name)
    }
}

/// Reads the units of all files in their order. `accepts_truncated`: aof-load-truncated.
///
/// # Errors
/// A file is damaged; it is truncated, and that is not to be accepted or others follow that are not empty; what `each` says.
pub(super) fn read_units(
    files: &AofFiles,
    disk: &dyn Disk,
    rdb_end: u64,
    accepts_truncated: bool,
    clock: &dyn Clock,
    each: &mut dyn FnMut(&Unit<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut read_bytes = 0;
    for (at, info) in files.manifest.files().enumerate() {
        let started_us = clock.wall_us();
        let start = if at == 0 { rdb_end } else { 0 };
        let part = Part { files, disk, info, start, read_before: read_bytes, accepts_truncated };
        read_bytes += part.read(each)?;
        let elapsed_s = (clock.wall_us() - started_us) as f64 / 1e6;
        let kind = if files.manifest.base.as_ref() == Some(info) { "base" } else { "incr" };
        let name = String::from_utf8_lossy(&info.name);
        log::notice(format_args!("DB loaded from {kind} file {name}: {elapsed_s:.3} seconds"));
    }
    Ok(())
}

/// A file to be read.
struct Part<'a> {
    files: &'a AofFiles,
    disk: &'a dyn Disk,
    info: &'a FileInfo,
    /// Where its commands begin.
    start: u64,
    /// Bytes of the files before it.
    read_before: u64,
    accepts_truncated: bool,
}

impl Part<'_> {
    /// Returns how long the file is.
    fn read(&self, each: &mut dyn FnMut(&Unit<'_>) -> Result<(), Failure>) -> Result<u64, Failure> {
        let mut source = open(self.files, self.disk, self.info).map_err(Failure::Line)?;
        io::copy(&mut (&mut source).take(self.start), &mut io::sink())
            .map_err(|error| Failure::Line(cannot_read(self.info, &error)))?;
        let mut reader = AofReader::new(&mut source, self.start);
        let mut end = self.start;
        loop {
            match reader.next_item() {
                Ok(Some(AofItem::Unit { bytes, commands })) => {
                    end += bytes.len() as u64;
                    each(&Unit { bytes, commands, info: self.info, read_bytes: self.read_before + end })?;
                }
                Ok(Some(AofItem::Annotation(_))) => {}
                Ok(None) => return Ok(reader.offset()),
                Err(error) => {
                    self.handle(error)?;
                    return Ok(reader.offset());
                }
            }
            end = reader.offset();
        }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.info.name).into_owned()
    }

    /// Whether no unit can stand in a later file. One may be there and empty: the manifest that names it was written, but
    /// may not have got to the disk, and so the writer has stayed with this file.
    fn is_last(&self) -> io::Result<bool> {
        let later = self.files.manifest.files().skip_while(|info| *info != self.info).skip(1);
        for info in later {
            if self.disk.len(&self.files.path(info))?.unwrap_or(0) > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The file cannot be read further. Truncates it if that is all that is wrong with it, and configured.
    fn handle(&self, error: AofError) -> Result<(), Failure> {
        let name = self.name();
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
                if !self.accepts_truncated {
                    return Err(Failure::Line(format!(
                        "Unexpected end of file reading the append only file {name} at offset {offset}. You can: 1) \
                         Make a backup of your AOF file, then use shardis --check-aof --fix <filename.manifest>. 2) \
                         Alternatively you can set the 'aof-load-truncated' configuration option to yes and restart \
                         the server."
                    )));
                }
                log::warning(format_args!("!!! Warning: short read while loading the AOF file {name}!!!"));
                log::warning(format_args!("AOF {name} loaded anyway because aof-load-truncated is enabled"));
                if !self.is_last().map_err(|error| Failure::Line(cannot_read(self.info, &error)))? {
                    return Err(Failure::Line(format!(
                        "Fatal error: the truncated file {name} is not the last file. Use shardis --check-aof \
                         <filename.manifest> to see what is missing."
                    )));
                }
                log::warning(format_args!("Truncating the AOF {name} at offset {offset}"));
                // On disk it is when the file is opened to be written: see `AofFiles::open_for_writing`.
                let path = self.files.path(self.info);
                let outcome = self.disk.open(&path).and_then(|mut file| file.truncate(offset));
                outcome.map_err(|error| {
                    Failure::Line(format!("Error truncating the AOF file {name}: {}", error_text(&error)))
                })
            }
        }
    }
}
