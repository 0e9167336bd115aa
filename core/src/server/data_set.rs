//! The files that have the data set: found at the start, loaded once the shards run, checked by `--check-rdb` and
//! `--check-aof`.

use crate::modules::events::{self, Loading, Saving};
use crate::persist::aof::check::{CheckFiles, Repair, check as check_aof_files};
use crate::persist::rdb::check::check as check_rdb_file;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::disk::{Disk, SystemDisk};
use crate::runtime::os_error::error_text;
use crate::runtime::{files, log};
use crate::worker::Globals;
use crate::worker::aof::Aof;
use crate::worker::aof::files::AofFiles;
use crate::worker::aof::load::{self as aof_load, Commands, Failure};
use crate::worker::link::continue_stream;
use crate::worker::load::{self, Done, LoadError, LoadQueue, Pacing};
use crate::worker::persistence::snapshot_without_keys;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// Where the data set is.
pub(super) enum DataSet {
    /// It is empty.
    None,
    /// In an RDB file.
    Rdb { file: std::fs::File, path: String },
    /// In an append-only file, which is written from then on.
    Aof(AofFiles),
}

/// What was found at the start.
pub(super) enum Found {
    DataSet(DataSet),
    /// The data set is empty, and an append-only file is to be made for it.
    NewAof(AofFiles),
}

impl DataSet {
    /// Looks for it. From here on the server counts as loading, if there is anything to be loaded.
    pub(super) fn find(globals: &Globals) -> Result<Found, String> {
        let (_, config) = globals.config();
        let now_ms = SystemClock::get().wall_ms();
        let loading = &globals.persistence.loading;
        if config.appendonly {
            let files = AofFiles::open(&SystemDisk, &config)?;
            let total_bytes = files.total_bytes(&SystemDisk)?;
            globals.aof.set_on(true);
            globals.aof.set_sizes(total_bytes);
            if files.manifest.is_empty() {
                return Ok(Found::NewAof(files));
            }
            loading.begin(total_bytes, now_ms);
            return Ok(Found::DataSet(DataSet::Aof(files)));
        }
        let name = config.dbfilename.as_path();
        let path = config.dir.as_path().join(name).to_string_lossy().into_owned();
        match files::open_if_there(name) {
            Ok(None) => Ok(Found::DataSet(DataSet::None)),
            Ok(Some((file, len_bytes))) => {
                loading.begin(len_bytes, now_ms);
                Ok(Found::DataSet(DataSet::Rdb { file, path }))
            }
            Err(why) => Err(format!("Fatal error loading the DB: {path}: {why}. Exiting.")),
        }
    }

    /// Whether the shards have something to load.
    pub(super) fn is_loaded(&self) -> bool {
        match self {
            DataSet::None => false,
            DataSet::Rdb { .. } | DataSet::Aof(_) => true,
        }
    }

    /// Loads it. The error is the operator's line.
    pub(super) fn load(
        self,
        globals: &'static Globals,
        queues: Vec<LoadQueue>,
        done: &Done,
    ) -> Result<(), String> {
        match self {
            DataSet::None => Ok(()),
            DataSet::Rdb { mut file, path } => {
                let started_us = SystemClock::get().wall_us();
                globals.persistence.loading.set_keeps_expired(globals.link.is_replica());
                events::tell_loading(Loading::Rdb);
                match load::load_file(&mut file, globals, queues, done, SystemClock::get()) {
                    Ok(_) => {}
                    Err(LoadError::Stopped) if globals.is_stopping() => return Ok(()),
                    Err(error) => {
                        events::tell_loading(Loading::Failed);
                        return Err(fatal(&error, &path));
                    }
                }
                let elapsed_s = (SystemClock::get().wall_us() - started_us) as f64 / 1e6;
                log::notice(format_args!("DB loaded from disk: {elapsed_s:.3} seconds"));
                globals.persistence.count_as_saved(globals.sum(|stats| stats.dirty.get()));
                resume_history(globals);
                globals.persistence.loading.end();
                events::tell_loading(Loading::Ended);
                Ok(())
            }
            DataSet::Aof(files) => match load_aof(files, globals, queues, done) {
                Ok(()) | Err(Failure::Stopped) => Ok(()),
                Err(Failure::Line(line)) => {
                    events::tell_loading(Loading::Failed);
                    Err(line)
                }
            },
        }
    }
}

impl Found {
    /// Makes the files of an append-only file that is new, before any client may write. Returns what is left to be loaded,
    /// and the part of the append-only file to which the shards' first effects belong; `None`: there is no file, or what is
    /// loaded comes first. The error is the operator's line.
    pub(super) fn make_new(self, globals: &'static Globals) -> Result<(DataSet, Option<u64>), String> {
        match self {
            Found::NewAof(files) => {
                start_writer(files, globals)?;
                Ok((DataSet::None, Some(globals.aof.next_part())))
            }
            Found::DataSet(data_set) => Ok((data_set, None)),
        }
    }
}

/// The operator's line for an RDB file that cannot be loaded.
fn fatal(error: &LoadError, path: &str) -> String {
    log::warning(format_args!("Internal error in RDB reading: {error}"));
    log::warning(format_args!("Terminating server after rdb file reading failure."));
    format!(
        "Fatal error loading the DB: {path}: {error}. Check the file with shardis --check-rdb, put another one in its \
         place, or move it away to start without data. Exiting."
    )
}

fn pacing(globals: &Globals) -> Pacing {
    let (_, config) = globals.config();
    Pacing { delay_us: config.key_load_delay_us, clock: SystemClock::get() }
}

/// If the file says where in which history of replication it is, that goes on: replicas that were there need no full
/// synchronization.
fn resume_history(globals: &'static Globals) {
    let loading = &globals.persistence.loading;
    // They are of no use if nobody can go on from before them.
    let expired = loading.take_expired();
    let Some((id, offset)) = loading.take_history() else { return };
    globals.stream.set_history(id, offset);
    match globals.link.is_replica() {
        true => globals.link.set_stream_db(loading.take_stream_db()),
        // `None`: the server stops, as it does without this.
        false => drop(continue_stream(globals, SystemClock::get().wall_ms(), &expired)),
    }
}

/// Loads the append-only file and starts the thread that writes it.
fn load_aof(
    files: AofFiles,
    globals: &'static Globals,
    queues: Vec<LoadQueue>,
    done: &Done,
) -> Result<(), Failure> {
    let loading = &globals.persistence.loading;
    loading.begin_replay();
    let first = files.manifest.files().next().cloned();
    events::tell_loading(Loading::Aof);
    let mut rdb_end = 0;
    let has_rdb = match &first {
        Some(info) => aof_load::begins_with_rdb(&files, &SystemDisk, info).map_err(Failure::Line)?,
        None => false,
    };
    match first.filter(|_| has_rdb) {
        Some(info) => {
            let path = files.path(&info).to_string_lossy().into_owned();
            let mut source = aof_load::open(&files, &SystemDisk, &info).map_err(Failure::Line)?;
            rdb_end = match load::load_file(&mut source, globals, queues, done, SystemClock::get()) {
                Ok(end) => end,
                Err(LoadError::Stopped) if globals.is_stopping() => return Err(Failure::Stopped),
                Err(error) => return Err(Failure::Line(fatal(&error, &path))),
            };
        }
        None => {
            let shard_count = queues.len();
            let wakes: Vec<_> = queues.into_iter().map(|queue| queue.wake).collect();
            wakes.iter().for_each(|wake| wake());
            done.iter().take(shard_count).for_each(drop);
        }
    }
    let mut commands = Commands::begin(globals, None);
    aof_load::run_commands(&files, &SystemDisk, rdb_end, &mut commands, &pacing(globals))?;
    commands.request(&["DEBUG", "AOF-PART", &globals.aof.next_part().to_string(), "RESETSTAT"])?;
    commands.finish()?;
    globals.persistence.count_as_saved(globals.sum(|stats| stats.dirty.get()));

    events::tell_loading(Loading::Ended);
    start_writer(files, globals).map_err(Failure::Line)?;
    loading.end();
    Ok(())
}

/// Opens the file of commands, makes what is missing before it, and starts the thread that writes it. The error is the
/// operator's line.
fn start_writer(mut files: AofFiles, globals: &'static Globals) -> Result<(), String> {
    let clock = SystemClock::get();
    let (_, config) = globals.config();
    let (base, extension) = match config.aof_use_rdb_preamble {
        true => (snapshot_without_keys(globals, config.rdbcompression, clock.wall_ms(), true, true), "rdb"),
        false => (Vec::new(), "aof"),
    };
    let is_new = files.manifest.is_empty();
    if is_new {
        events::tell_saving(Saving::Aof);
    }
    let open = files.open_for_writing(&SystemDisk, &base, extension)?;
    if is_new {
        events::tell_saving(Saving::Ended);
    }
    globals.aof.set_sizes(files.total_bytes(&SystemDisk)?);
    if !config.aof_disable_auto_gc {
        files.remove_history(&SystemDisk);
    }
    Aof::start_writer(globals, clock, |writer| writer.begin_at(files, open));
    Ok(())
}

/// Checks an RDB file, in place of serving.
pub(super) fn check_rdb(path: &Path) -> ExitCode {
    let name = path.display().to_string();
    let why = match files::open_if_there(path) {
        Ok(Some((mut file, _))) => {
            let now_ms = SystemClock::get().wall_ms();
            match check_rdb_file(&mut file, &name, now_ms, &mut io::stdout().lock()) {
                Ok(Some(_)) => return ExitCode::SUCCESS,
                Ok(None) => return ExitCode::FAILURE,
                Err(error) => error.to_string(),
            }
        }
        Ok(None) => "No such file or directory".to_owned(),
        Err(why) => why,
    };
    eprintln!("Cannot open file {name}: {why}");
    ExitCode::FAILURE
}

/// The files that `--check-aof` looks at, and its user.
struct CheckedFiles;

impl CheckFiles for CheckedFiles {
    fn open(&self, path: &[u8]) -> io::Result<(Box<dyn Read>, u64)> {
        let path = Path::new(OsStr::from_bytes(path));
        let not_there = || io::Error::from_raw_os_error(crate::runtime::os_error::NO_ENTRY);
        let len = SystemDisk.len(path)?.ok_or_else(not_there)?;
        Ok((SystemDisk.reader(path)?, len))
    }

    fn truncate(&self, path: &[u8], len_bytes: u64) -> io::Result<()> {
        let mut file = SystemDisk.open(Path::new(OsStr::from_bytes(path)))?;
        file.truncate(len_bytes)?;
        file.sync()
    }

    fn confirms(&self) -> bool {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).is_ok() && line.to_ascii_lowercase().starts_with('y')
    }
}

/// Checks an append-only file, in place of serving.
pub(super) fn check_aof(path: &Path, repair: Repair) -> ExitCode {
    let now_ms = SystemClock::get().wall_ms();
    let bytes = path.as_os_str().as_bytes();
    match check_aof_files(bytes, repair, &CheckedFiles, now_ms, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("Cannot open file {}: {}", path.display(), error_text(&error));
            ExitCode::FAILURE
        }
    }
}
