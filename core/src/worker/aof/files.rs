//! The files of the append-only file and their manifest: found at the start, or made, or taken over from a version before
//! 7, which has one file in the working directory.

use crate::config::Config;
use crate::persist::aof::{FileInfo, FileKind, Manifest};
use crate::runtime::disk::{Disk, DiskFile, append_all, create_dir_on, dir_of, open_empty_on, replace_on};
use crate::runtime::log;
use crate::runtime::os_error::error_text;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How much of a file is copied at once.
const COPY_LEN: usize = 1 << 20;

/// The directory, and what is in it.
pub struct AofFiles {
    dir: PathBuf,
    /// appendfilename
    prefix: Vec<u8>,
    pub manifest: Manifest,
}

impl AofFiles {
    /// Reads the manifest. A single file of a version before 7 is taken over as the base.
    ///
    /// # Errors
    /// The operator's line.
    pub fn open(disk: &dyn Disk, config: &Config) -> Result<AofFiles, String> {
        let mut files = AofFiles::read(disk, config)?;
        files.take_over_old_file(disk)?;
        Ok(files)
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// The operator's line.
    pub fn read(disk: &dyn Disk, config: &Config) -> Result<AofFiles, String> {
        let mut files = AofFiles {
            dir: config.appenddirname.as_path().to_owned(),
            prefix: config.appendfilename.as_bytes().to_vec(),
            manifest: Manifest::default(),
        };
        let path = files.manifest_path();
        let shown = path.display().to_string();
        let cannot = |error: io::Error| {
            let why = error_text(&error);
            format!("Fatal error: can't open the AOF manifest file {shown} for reading: {why}")
        };
        if let Some(text) = disk.read(&path).map_err(cannot)? {
            files.manifest = Manifest::parse(&text).map_err(|error| {
                log::warning(format_args!("*** FATAL AOF MANIFEST FILE ERROR ***"));
                log::warning(format_args!(
                    "Reading the manifest file {shown}, at line {}",
                    error.line_number
                ));
                log::warning(format_args!(">>> '{}'", error.line.escape_ascii()));
                error.why.to_owned()
            })?;
        }
        Ok(files)
    }

    fn take_over_old_file(&mut self, disk: &dyn Disk) -> Result<(), String> {
        let old = PathBuf::from(OsStr::from_bytes(&self.prefix));
        let new = self.path_of_name(&self.prefix);
        let fails = |error: io::Error| {
            format!(
                "Error trying to move the old AOF file {} into dir {}: {}",
                old.display(),
                self.dir.display(),
                error_text(&error)
            )
        };
        // An earlier start may have been interrupted between the manifest and the move.
        let is_under_way = self.manifest.incrs.is_empty()
            && self.manifest.base.as_ref().is_some_and(|base| base.name == self.prefix);
        let is_wanted = self.manifest.is_empty() || is_under_way && disk.len(&new).map_err(fails)?.is_none();
        if !is_wanted || disk.len(&old).map_err(fails)?.is_none() {
            return Ok(());
        }
        create_dir_on(disk, &self.dir).map_err(fails)?;
        if !is_under_way {
            let base = FileInfo { name: self.prefix.clone(), seq: 1, kind: FileKind::Base };
            self.manifest.set_base(base);
            self.save(disk).map_err(fails)?;
        }
        disk.rename(&old, &new).map_err(fails)?;
        disk.sync_dir(&self.dir).map_err(fails)?;
        disk.sync_dir(&dir_of(&old)).map_err(fails)?;
        log::notice(format_args!(
            "Successfully migrated an old-style AOF configuration ({}) into the AOF directory ({}).",
            old.display(),
            self.dir.display()
        ));
        Ok(())
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// Those of the system.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let temporary = [b"temp-", &self.prefix[..], b".manifest"].concat();
        let temporary = self.path_of_name(&temporary);
        replace_on(disk, &self.manifest_path(), &temporary, &self.manifest.to_bytes())
    }

    fn manifest_path(&self) -> PathBuf {
        self.path_of_name(&[&self.prefix[..], b".manifest"].concat())
    }

    fn path_of_name(&self, name: &[u8]) -> PathBuf {
        self.dir.join(OsStr::from_bytes(name))
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// appendfilename
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Where the commands behind the first base are while that is not complete.
    pub(super) fn temporary_incr(&self) -> PathBuf {
        self.path_of_name(&[b"temp-", &self.prefix[..], b".incr"].concat())
    }

    /// Where a file of the manifest is.
    pub fn path(&self, info: &FileInfo) -> PathBuf {
        self.path_of_name(&info.name)
    }

    /// The sum of the lengths of the files that are loaded, in bytes.
    ///
    /// # Errors
    /// The operator's line: one of them is not there.
    pub fn total_bytes(&self, disk: &dyn Disk) -> Result<u64, String> {
        let mut total = 0;
        for info in self.manifest.files() {
            let missing = || io::Error::from_raw_os_error(crate::runtime::os_error::NO_ENTRY);
            let len = disk.len(&self.path(info)).and_then(|len| len.ok_or_else(missing));
            total += len.map_err(|error| {
                let (name, why) = (String::from_utf8_lossy(&info.name), error_text(&error));
                format!("Fatal error: can't open the append log file {name} for reading: {why}")
            })?;
        }
        Ok(total)
    }

    /// Opens the last file of commands to write at its end. What is missing is made: the directory, a base for an empty data
    /// set, `base` being its bytes, and a file of commands. Returns the file and its length in bytes.
    ///
    /// # Errors
    /// The operator's line.
    pub fn open_for_writing(
        &mut self,
        disk: &dyn Disk,
        base: &[u8],
        base_extension: &str,
    ) -> Result<(Box<dyn DiskFile>, u64), String> {
        self.try_open_for_writing(disk, base, base_extension)
            .map_err(|error| format!("Can't open the append-only file: {}", error_text(&error)))
    }

    fn try_open_for_writing(
        &mut self,
        disk: &dyn Disk,
        base: &[u8],
        base_extension: &str,
    ) -> io::Result<(Box<dyn DiskFile>, u64)> {
        create_dir_on(disk, &self.dir)?;
        let mut is_new = false;
        if self.manifest.is_empty() {
            let info = self.manifest.add_base(&self.prefix, base_extension);
            let path = self.path(&info);
            log::notice(format_args!(
                "Creating AOF base file {} on server start",
                String::from_utf8_lossy(&info.name)
            ));
            let mut file = open_empty_on(disk, &path)?;
            append_all(&mut *file, base)?;
            file.sync()?;
            is_new = true;
        }
        let (info, is_found) = match self.manifest.incrs.last() {
            Some(info) => (info.clone(), true),
            None => (self.manifest.add_incr(&self.prefix), false),
        };
        is_new |= !is_found;
        let path = self.path(&info);
        let what = if is_new { "Creating" } else { "Opening" };
        let name = String::from_utf8_lossy(&info.name);
        log::notice(format_args!("{what} AOF incr file {name} on server start"));
        let file = match is_found {
            true => self.sync_found(disk)?,
            // One that no manifest names is a leftover.
            false => open_empty_on(disk, &path)?,
        };
        if is_new {
            self.save(disk)?;
        }
        let len_bytes = disk.len(&path)?.unwrap_or(0);
        Ok((file, len_bytes))
    }

    /// Returns when what was loaded is on the disk, and with the last file. A process that was killed may have written to
    /// files, or have given them their names, and not have got to their synchronization: nobody may be told before that.
    fn sync_found(&self, disk: &dyn Disk) -> io::Result<Box<dyn DiskFile>> {
        disk.sync_dir(&self.dir)?;
        let mut last = None;
        for info in self.manifest.files() {
            let path = self.path(info);
            let mut file = disk.open(&path)?;
            if let Err(error) = file.sync() {
                // The next call would succeed although the bytes are not on the disk. They are in memory: a copy has them.
                let (name, why) = (String::from_utf8_lossy(&info.name), error_text(&error));
                log::warning(format_args!("Can't synchronize the AOF file {name}, which is copied: {why}"));
                file = copy_on(disk, &path, &self.temporary_incr())?;
            }
            last = Some(file);
        }
        last.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes the files that are history.
    pub fn remove_history(&mut self, disk: &dyn Disk) {
        if self.manifest.history.is_empty() {
            return;
        }
        let history = std::mem::take(&mut self.manifest.history);
        // First the manifest, so that it never names a file that is gone.
        if let Err(error) = self.save(disk) {
            log::warning(format_args!("Can't remove history AOF files: {}", error_text(&error)));
            self.manifest.history = history;
            return;
        }
        for info in &history {
            let name = String::from_utf8_lossy(&info.name);
            match disk.remove(&self.path(info)) {
                Ok(()) => log::notice(format_args!("Removing the history file {name} in the background")),
                Err(error) => {
                    log::warning(format_args!("Can't remove history file {name}: {}", error_text(&error)));
                }
            }
        }
    }
}

/// Puts a copy of a file in its place, which is on the disk.
fn copy_on(disk: &dyn Disk, path: &Path, temporary: &Path) -> io::Result<Box<dyn DiskFile>> {
    let mut copy = open_empty_on(disk, temporary)?;
    let mut source = disk.reader(path)?;
    let mut chunk = vec![0; COPY_LEN];
    loop {
        match source.read(&mut chunk)? {
            0 => break,
            len => append_all(&mut *copy, &chunk[..len])?,
        }
    }
    copy.sync()?;
    disk.rename(temporary, path)?;
    disk.sync_dir(&dir_of(path))?;
    Ok(copy)
}
