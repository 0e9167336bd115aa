//! A full synchronization: the master's snapshot takes the place of all data.
//!
//! It is always loaded beside the present data set, by all shards, and takes its place in a unit over all of them. What
//! `repl-diskless-load` says is whether it goes by way of a file, and whether the present data is removed before, so that there
//! are never two data sets in memory, or is kept until then (`swapdb`). If it is kept, and is of the same history, it is served
//! meanwhile; otherwise commands are refused with -LOADING.

use super::handshake::Talk;
use super::{Ended, LinkThread};
use crate::config::ReplDisklessLoad;
use crate::persist::rdb::window::FileError;
use crate::runtime::disk::{Disk, SystemDisk};
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use crate::worker::aof::Aof;
use crate::worker::feed::AtEnd;
use crate::worker::hooks::SnapshotEvent;
use crate::worker::load::{self, LoadError};
use crate::worker::persistence::removes_sync_files;
use std::io::{self, Read};
use std::path::Path;

/// What becomes of the snapshot, and of the present data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// It is received into the RDB file, and loaded from there.
    File,
    /// It is loaded as it comes. `keeps_data`: the present data is there until it is complete.
    Socket { keeps_data: bool },
}

impl Way {
    fn keeps_data(self) -> bool {
        self == Way::Socket { keeps_data: true }
    }

    /// Where it is loaded from, for the log.
    fn source_name(self) -> &'static str {
        match self {
            Way::File => "disk",
            Way::Socket { .. } => "socket",
        }
    }
}

/// Reads what is left.
fn drain(source: &mut dyn Read) -> Result<(), FileError> {
    io::copy(source, &mut io::sink()).map(drop).map_err(FileError::Io)
}

impl LinkThread {
    /// Gets the snapshot, which begins this history, and puts it in the place of all data.
    pub(super) fn synchronize(&self, talk: &mut Talk<'_>, id: &str) -> Result<(), Ended> {
        let payload = talk.begin_payload()?;
        let way = self.way();
        payload.log(way != Way::File);
        if way == Way::File {
            let (path, len_bytes) = talk.receive(payload)?;
            let (_, config) = self.globals.config();
            self.check_file(&path)?;
            SystemDisk.rename(&path, config.dbfilename.as_path())?;
            let mut file = SystemDisk.reader(config.dbfilename.as_path())?;
            let loaded = self.load(&mut file, way, len_bytes, id);
            if removes_sync_files(&config) {
                log::notice(format_args!(
                    "Removing the RDB file obtained from the master. This replica has persistence disabled"
                ));
                SystemDisk.remove(config.dbfilename.as_path())?;
            }
            return loaded;
        }
        let len_bytes = payload.total_bytes();
        let mut source = talk.payload_source(payload);
        self.load(&mut source, way, len_bytes, id)
    }

    /// The data of before, in memory and on the disk, is given up only for a snapshot that can be loaded. One that has
    /// something unknown would come again and again.
    fn check_file(&self, path: &Path) -> Result<(), Ended> {
        let Err(error) = load::check_known(&mut SystemDisk.reader(path)?, self.globals) else {
            return Ok(());
        };
        let line = format!(
            "MASTER <-> REPLICA sync: The snapshot of the master cannot be loaded, and the data is as it was: {error}"
        );
        if let Err(error) = SystemDisk.remove(path) {
            log::warning(format_args!("{} cannot be removed: {}", path.display(), error_text(&error)));
        }
        Err(if error.is_of_unknown() { Ended::Hopeless(line) } else { Ended::Failed(line) })
    }

    fn way(&self) -> Way {
        let globals = self.globals;
        let keys = || (0..globals.config().1.databases as u32).map(|db| globals.key_count(db)).sum::<u64>();
        let support = globals.hooks.load_support();
        match globals.config().1.repl_diskless_load {
            ReplDisklessLoad::Disabled => Way::File,
            ReplDisklessLoad::Swapdb if !support.handles_async => {
                log::warning(format_args!(
                    "Skipping diskless-load because there are modules that are not aware of async replication."
                ));
                Way::File
            }
            ReplDisklessLoad::Swapdb => Way::Socket { keeps_data: true },
            ReplDisklessLoad::OnEmptyDb
                if keys() > 0 || globals.scripts.functions.get().1.function_count() > 0 =>
            {
                Way::File
            }
            ReplDisklessLoad::OnEmptyDb if !support.handles_errors => {
                log::warning(format_args!(
                    "Skipping diskless-load because there are modules that don't handle read errors."
                ));
                Way::File
            }
            ReplDisklessLoad::OnEmptyDb => Way::Socket { keeps_data: false },
        }
    }

    /// Puts a snapshot in the place of all data.
    fn load(&self, source: &mut dyn Read, way: Way, len_bytes: u64, id: &str) -> Result<(), Ended> {
        let (globals, now_ms) = (self.globals, self.clock.wall_ms());
        let (_, config) = globals.config();
        let loading = &globals.persistence.loading;
        let has_file = config.appendonly;
        loading.take_stream_db();
        match way.keeps_data() && globals.stream.ids().id == id {
            true => loading.begin_async(len_bytes, now_ms),
            false => loading.begin(len_bytes, now_ms),
        }
        globals.hooks.tell_snapshot(SnapshotEvent::Begins, way.keeps_data());
        if !way.keeps_data() {
            log::notice(format_args!("MASTER <-> REPLICA sync: Flushing old data"));
            if has_file {
                Aof::turn_off(globals);
            }
        }
        let wakes = (0..globals.stats.len())
            .map(|shard| Box::new(move || globals.aof.ring(shard)) as Box<dyn Fn() + Send>);
        let (queues, incoming, done) = load::queues(wakes, true);
        loading.offer(incoming);
        let present = if way.keeps_data() { "KEEP" } else { "FLUSH" };
        self.run_own(&[&["DEBUG", "REPLICA-LOAD", present]], AtEnd::Nothing).ok_or(Ended::Ordered)?;
        log::notice(format_args!("MASTER <-> REPLICA sync: Loading DB in memory"));
        let loaded = load::load_file(source, globals, queues, &done, self.clock);
        // Behind the snapshot there is only its mark, and without that it is not complete.
        let loaded = loaded.and_then(|_| drain(source).map_err(LoadError::from));
        if let Err(error) = loaded {
            return Err(self.give_up(&error, way));
        }
        if way.keeps_data() {
            log::notice(format_args!("MASTER <-> REPLICA sync: Swapping active DB with loaded DB"));
            if has_file {
                Aof::turn_off(globals);
            }
        }
        let is_done = self.run_own(&[&["DEBUG", "REPLICA-SWAP"]], AtEnd::Nothing);
        loading.end();
        is_done.ok_or(Ended::Ordered)?;
        globals.hooks.tell_snapshot(SnapshotEvent::Loaded, way.keeps_data());
        if way.keeps_data() {
            log::notice(format_args!("MASTER <-> REPLICA sync: Discarding old DB in background"));
        }
        globals.link.set_stream_db(loading.take_stream_db());
        if way == Way::File {
            globals.persistence.count_as_saved(globals.sum(|stats| stats.dirty.get()));
        }
        if has_file {
            Aof::turn_on(globals, self.clock);
        }
        Ok(())
    }

    /// The snapshot cannot be loaded: a part of it is none.
    fn give_up(&self, error: &LoadError, way: Way) -> Ended {
        let globals = self.globals;
        let is_stopping = matches!(error, LoadError::Stopped) && globals.is_stopping();
        if !is_stopping {
            log::warning(format_args!("Internal error in RDB reading: {error}"));
            log::warning(format_args!(
                "Failed trying to load the MASTER synchronization DB from {}, check server logs.",
                way.source_name()
            ));
        }
        globals.hooks.tell_snapshot(SnapshotEvent::Failed, way.keeps_data());
        let is_done = self.run_own(&[&["DEBUG", "REPLICA-DISCARD"]], AtEnd::Nothing);
        globals.persistence.loading.end();
        if is_done.is_none() || self.has_order() {
            return Ended::Ordered;
        }
        if way.keeps_data() {
            log::notice(format_args!("MASTER <-> REPLICA sync: Discarding temporary DB in background"));
        }
        match error.is_of_unknown() {
            true => Ended::Hopeless("The snapshot of the master cannot be loaded".to_owned()),
            false => Ended::Again,
        }
    }
}
