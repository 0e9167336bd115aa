//! The writer's changes of files: a new part of the stream goes to a new file, and a new base makes those before it history.

use super::files::AofFiles;
use super::writer::{Fatal, Policy, Target, Writer};
use crate::config::Config;
use crate::runtime::disk::{create_dir_on, open_empty_on};
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use crate::worker::Globals;
use crate::worker::latency::event;
use crate::worker::snapshot::Progress;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

/// A base that was written, or has failed.
pub struct NewBase {
    /// The part of the stream behind it; 0: there is none, as the append-only file is off.
    pub part: u64,
    /// Where it is, synchronized; `None`: it has failed.
    pub path: Option<PathBuf>,
    /// Of its name in the directory.
    pub extension: &'static str,
    pub progress: Arc<Progress>,
    /// Told whether it is used; an error says why not.
    pub done: SyncSender<io::Result<bool>>,
}

impl Writer {
    /// A new part of the stream begins. If its file cannot be opened, it goes into the present one, and the base before it
    /// will not be used.
    pub(super) fn begin_part(&mut self, number: u64, policy: Policy) -> Result<(), Fatal> {
        self.part = self.part.max(number);
        if number == 1 && self.target.as_ref().is_some_and(|target| target.part == 0) {
            // The server has started, and that file is open already.
            return Ok(());
        }
        self.sync(policy)?;
        let outcome = match &self.target {
            Some(Target { is_temporary: false, .. }) => self.open_next(number),
            // One with a temporary name is of a rewrite that has failed: nothing in it can be loaded.
            Some(Target { is_temporary: true, .. }) | None => self.open_temporary(number),
        };
        match outcome {
            Ok(target) => {
                self.target = Some(target);
                self.stamped_s = 0;
            }
            Err(error) => {
                log::warning(format_args!("Can't open the next AOF file: {}", error_text(&error)));
            }
        }
        Ok(())
    }

    /// Opens the next file of commands, which the manifest names from now on.
    fn open_next(&mut self, part: u64) -> io::Result<Target> {
        let Some(files) = &mut self.files else { return Err(io::ErrorKind::NotFound.into()) };
        let (disk, prefix) = (&*self.disk, files.prefix().to_vec());
        let before = files.manifest.clone();
        let info = files.manifest.add_incr(&prefix);
        let outcome = match open_empty_on(disk, &files.path(&info)) {
            Ok(file) => files.save(disk).map(|()| file).inspect_err(|_| {
                files.manifest.give_up_last_incr();
                // If this fails, too, the file stays: it may be the new manifest that is found.
                if files.save(disk).is_ok() {
                    let _ = disk.remove(&files.path(&info));
                }
            }),
            Err(error) => {
                files.manifest = before;
                Err(error)
            }
        };
        let name = String::from_utf8_lossy(&info.name);
        log::notice(format_args!("Creating AOF incr file {name} on background rewrite"));
        Ok(Target { file: outcome?, len_bytes: 0, synced_bytes: 0, part, is_temporary: false })
    }

    /// Opens a file for what comes behind the first base, which is not complete yet.
    fn open_temporary(&mut self, part: u64) -> io::Result<Target> {
        let Some(files) = &self.files else { return Err(io::ErrorKind::NotFound.into()) };
        create_dir_on(&*self.disk, files.dir())?;
        let path = files.temporary_incr();
        let file = open_empty_on(&*self.disk, &path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        log::notice(format_args!("Creating AOF incr file {name} on background rewrite"));
        Ok(Target { file, len_bytes: 0, synced_bytes: 0, part, is_temporary: true })
    }

    /// Takes the base over that waits, once its part of the stream has begun here, and says how that went.
    pub(super) fn take_base_in(&mut self, globals: &Globals) {
        let part = self.part;
        let Some(base) = self.base.take_if(|base| base.part <= part) else { return };
        let (_, config) = globals.config();
        self.read_files(&config);
        let began_ticks = self.clock.ticks();
        let outcome = self.adopt(&base, &config);
        self.sample_latency(event::AOF_RENAME, began_ticks);
        if !matches!(outcome, Ok(true)) {
            self.drop_temporary();
        }
        let sizes = self.files.as_ref().map(|files| files.total_bytes(&*self.disk));
        if let (Ok(true), Some(Ok(bytes))) = (&outcome, sizes) {
            globals.aof.set_sizes(bytes);
            if self.target.is_some() {
                globals.aof.awaits_base.store(false, Ordering::Relaxed);
            }
        }
        // Who has begun the rewrite may have ended with the server.
        let _ = base.done.send(outcome);
    }

    /// Puts a base in its place. `false`: it has failed before, or was cancelled.
    ///
    /// # Errors
    /// Those of the system; its part of the stream is in no file of its own. What could be loaded before can be loaded still.
    pub(super) fn adopt(&mut self, base: &NewBase, config: &Config) -> io::Result<bool> {
        let Some(path) = &base.path else { return Ok(false) };
        // Whoever cancels relies on that nothing is put in place from then on.
        let _place = base.progress.lock_place();
        if base.progress.is_cancelled() {
            return Ok(false);
        }
        let is_followed = match &self.target {
            Some(target) => target.part == base.part,
            None => base.part == 0,
        };
        let Some(files) = self.files.as_mut().filter(|_| is_followed) else {
            return Err(io::Error::other("the manifest or the file behind the base cannot be opened"));
        };
        let (disk, prefix) = (&*self.disk, files.prefix().to_vec());
        create_dir_on(disk, files.dir())?;
        let mut manifest = files.manifest.clone();
        let info = manifest.add_base(&prefix, base.extension);
        let base_path = files.path(&info);
        disk.rename(path, &base_path)?;
        log::notice(format_args!(
            "Successfully renamed the temporary AOF base file {} into {}",
            path.display(),
            base_path.display()
        ));
        let is_temporary = self.target.as_ref().is_some_and(|target| target.is_temporary);
        manifest.retire_incrs(usize::from(self.target.is_some() && !is_temporary));
        let incr_path = is_temporary.then(|| files.path(&manifest.add_incr(&prefix)));
        let name_incr = || {
            if let Some(path) = &incr_path {
                disk.rename(&files.temporary_incr(), path)?;
            }
            disk.sync_dir(files.dir())
        };
        if let Err(error) = name_incr() {
            // No manifest names them yet. If they stay, they are removed when others get their names.
            let _ = disk.remove(&base_path);
            let _ = incr_path.map(|path| disk.rename(&path, &files.temporary_incr()));
            return Err(error);
        }
        if let Some(target) = &mut self.target {
            target.is_temporary = false;
        }
        // If this fails, one of the two manifests is on disk, and the files of both are there. The next one that is written
        // continues from the new one.
        files.manifest = manifest;
        files.save(disk)?;
        log::notice(format_args!("Background AOF rewrite finished successfully"));
        if !config.aof_disable_auto_gc {
            files.remove_history(disk);
        }
        Ok(true)
    }

    /// Drops the file behind a first base that is not used. Until the next rewrite nothing is written.
    pub(super) fn drop_temporary(&mut self) {
        let Some(files) = &self.files else { return };
        if self.target.take_if(|target| target.is_temporary).is_some() {
            let path = files.temporary_incr();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            log::notice(format_args!("Removing the temp incr aof file {name} in the background"));
            // What is left of it is removed when the next one is made.
            let _ = self.disk.remove(&path);
        }
    }

    /// The file was turned off. It stays as it is.
    pub(super) fn turn_off(&mut self) {
        self.drop_temporary();
        self.target = None;
    }

    /// Reads the manifest, if that was not done.
    pub(super) fn read_files(&mut self, config: &Config) {
        if self.files.is_none() {
            match AofFiles::read(&*self.disk, config) {
                Ok(files) => self.files = Some(files),
                Err(line) => log::warning(format_args!("{line}")),
            }
        }
    }
}
