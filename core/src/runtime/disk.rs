//! The file system as the append-only file sees it: a few operations, so that tests can put a disk in its place that
//! fails, or that forgets what was not synchronized.

#[cfg(test)]
pub(crate) mod testing;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that is written at its end.
pub trait DiskFile: Send {
    /// Writes some of the bytes at the end, at least one. Returns how many.
    ///
    /// # Errors
    /// Nothing was written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when all that was written is on the disk, and the length with it.
    ///
    /// # Errors
    /// What was written since the last call that succeeded may be lost, now or later.
    fn sync(&mut self) -> io::Result<()>;

    /// Another handle of the file, for another thread.
    ///
    /// # Errors
    /// Those of the system.
    fn handle(&self) -> io::Result<Box<dyn DiskFile>>;

    /// Cuts the file off behind so many bytes.
    ///
    /// # Errors
    /// The file is as it was.
    fn truncate(&mut self, len_bytes: u64) -> io::Result<()>;
}

/// The operations on a directory of files. All paths are relative to the working directory.
pub trait Disk: Send {
    /// Creates a directory, unless it is there. Its name is on the disk when the directory around it is synchronized.
    ///
    /// # Errors
    /// Those of the system.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a file to write at its end, and creates it if it is not there.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// All bytes of a file; `None`: there is no such file.
    ///
    /// # Errors
    /// Those of the system.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// The length of a file in bytes; `None`: there is no such file.
    ///
    /// # Errors
    /// Those of the system.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Opens a file to read it from its beginning.
    ///
    /// # Errors
    /// Those of the system; one of them is that there is no such file.
    fn reader(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Gives a file another name, in one step. A file of that name is replaced.
    ///
    /// # Errors
    /// Those of the system; nothing has changed then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in a directory are on the disk.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Waits.
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The machine's file system.
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Box::new(SystemFile(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        if_there(fs::read(path))
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(if_there(fs::metadata(path))?.map(|metadata| metadata.len()))
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

struct SystemFile(File);

impl DiskFile for SystemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn handle(&self) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SystemFile(self.0.try_clone()?)))
    }

    fn truncate(&mut self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len(len_bytes)
    }
}

/// The directory of a path, for [`Disk::sync_dir`].
pub fn dir_of(path: &Path) -> PathBuf {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file's contents in one step: whoever looks, now or after a crash, finds the old ones or the new ones.
///
/// # Errors
/// Those of the system; the file then has its old contents, or the new ones that may not be on the disk yet.
pub fn replace_on(disk: &dyn Disk, path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    if disk.len(temporary)?.is_some() {
        disk.remove(temporary)?;
    }
    let mut file = disk.open(temporary)?;
    append_all(&mut *file, bytes)?;
    file.sync()?;
    disk.rename(temporary, path)?;
    disk.sync_dir(&dir_of(path))
}

/// Creates a directory, unless it is there, and returns when its name is on the disk: files in it are not before that.
///
/// # Errors
/// Those of the system.
pub fn create_dir_on(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.create_dir(path)?;
    disk.sync_dir(&dir_of(path))
}

/// Opens a file that is empty, also on the disk, whatever was left there under its name.
///
/// # Errors
/// Those of the system. The name stays in any case: a list of files that names it may be on the disk already.
pub fn open_empty_on(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn DiskFile>> {
    let was_there = disk.len(path)?.is_some();
    let mut file = disk.open(path)?;
    if was_there {
        file.truncate(0)?;
        // Otherwise the old bytes could come back in place of new ones that are lost. Also if it is empty already: then
        // this may have failed before.
        file.sync()?;
    }
    disk.sync_dir(&dir_of(path))?;
    Ok(file)
}

/// Writes all bytes at the end of a file.
///
/// # Errors
/// Those of the system; a part may have been written.
pub fn append_all(file: &mut dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.append(bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = std::env::temp_dir().join(format!("shardis-disk-{}", std::process::id()));
        SystemDisk.create_dir(&dir).expect("a new directory");
        SystemDisk.create_dir(&dir).expect("it is there already");
        let (path, temporary) = (dir.join("manifest"), dir.join("temp-manifest"));
        fs::write(&temporary, "left behind").expect("a file");
        for text in ["old", "new"] {
            replace_on(&SystemDisk, &path, &temporary, text.as_bytes()).expect("it can be written");
            assert_eq!(SystemDisk.read(&path).expect("it can be read"), Some(text.as_bytes().to_vec()));
        }
        assert_eq!(fs::read_dir(&dir).expect("it is there").count(), 1);
        fs::remove_dir_all(&dir).expect("it can be removed");
        assert_eq!(SystemDisk.read(&path).expect("that is no error"), None);
        assert!(replace_on(&SystemDisk, &path, &temporary, b"x").is_err());
    }

    #[test]
    fn a_file_is_written_at_its_end_and_cut_off() {
        let path = std::env::temp_dir().join(format!("shardis-disk-file-{}", std::process::id()));
        let mut file = SystemDisk.open(&path).expect("a new file");
        append_all(&mut *file, b"one two").expect("there is room");
        file.truncate(4).expect("it can be cut off");
        append_all(&mut *file, b"three").expect("there is room");
        file.sync().expect("it can be synchronized");
        assert_eq!(SystemDisk.read(&path).expect("it can be read"), Some(b"one three".to_vec()));
        assert_eq!(SystemDisk.len(&path).expect("it is there"), Some(9));
        SystemDisk.remove(&path).expect("it can be removed");
    }
}
