//! What the process owes to the file system and to its limits, before the first thread starts.

use super::log;
use super::os_error::error_text;
use crate::config::Files;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Descriptors beside those of clients, as in Redis, if these are enough: see [`reserved_fds`].
const RESERVED_FDS_MIN: u64 = 32;

/// Those of the process: standard streams, listeners, log, data files.
const PROCESS_FDS: u64 = 16;

/// Those of one shard: under io_uring seven, its rings, event descriptors and bell.
const FDS_PER_SHARD: u64 = 8;

/// Descriptors that are kept free of clients.
fn reserved_fds(shard_count: usize) -> u64 {
    RESERVED_FDS_MIN.max(PROCESS_FDS + FDS_PER_SHARD * shard_count as u64)
}

/// The file system, as the configuration's loader asks for it.
pub struct SystemFiles;

impl Files for SystemFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        std::fs::read(path).map_err(|error| error_text(&error))
    }

    fn expand(&self, pattern: &Path) -> Vec<PathBuf> {
        let Ok(pattern) = CString::new(pattern.as_os_str().as_bytes()) else { return Vec::new() };
        // SAFETY: all-zeroes is a valid glob_t. glob reads a terminated string and fills the structure, whose
        // `gl_pathc` paths are terminated strings until globfree, which is called in every case.
        unsafe {
            let mut found: libc::glob_t = std::mem::zeroed();
            let mut paths = Vec::new();
            if libc::glob(pattern.as_ptr(), 0, None, &mut found) == 0 {
                for index in 0..found.gl_pathc {
                    let path = CStr::from_ptr(*found.gl_pathv.add(index));
                    paths.push(PathBuf::from(OsStr::from_bytes(path.to_bytes())));
                }
            }
            libc::globfree(&mut found);
            paths
        }
    }

    fn resolve_dir(&self, path: &Path) -> Result<PathBuf, String> {
        let resolved = std::fs::canonicalize(path).map_err(|error| error_text(&error))?;
        // A name in it can be looked up only if it is a directory and may be entered.
        std::fs::metadata(resolved.join(".")).map_err(|error| error_text(&error))?;
        Ok(resolved)
    }
}

/// Whether the owner, the group or others may execute a file.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// All of standard input.
pub fn read_stdin() -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).map_err(|error| error_text(&error))?;
    Ok(text)
}

/// Changes the working directory, as `dir` says. The error is the text after `CONFIG SET failed` or the directive.
pub fn change_dir(dir: &str) -> Result<(), String> {
    std::env::set_current_dir(dir).map_err(|error| error_text(&error))
}

/// The bytes of a file, none if there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error_text(&error)),
    }
}

/// A file that takes another one's place when it is complete, in one step: whoever looks, now or after a crash, finds the
/// old one or the new one. Dropped before that, it leaves nothing behind.
struct Replacement {
    file: std::fs::File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Replacement {
    /// An empty file, at present at `temporary`, which is to take the place of `path`, in the same directory.
    fn create(path: &Path, temporary: &Path) -> io::Result<Replacement> {
        // What a process of the same id left behind when it was killed.
        let _ = std::fs::remove_file(temporary);
        let file = std::fs::File::create_new(temporary)?;
        Ok(Replacement { file, temporary: temporary.to_owned(), path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Puts the file in its place when it is on disk.
    fn commit(self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.path)?;
        // The new name is on disk when its directory is.
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir)?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Not there any more if it has taken its place.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Puts a file of these bytes in a file's place, with its permissions, as [`Replacement`] does. A symbolic link stays one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let target = std::fs::canonicalize(path);
    let path = target.as_deref().unwrap_or(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut new = Replacement::create(path, &path.with_file_name(name))?;
        if let Ok(old) = std::fs::metadata(path) {
            new.file.set_permissions(old.permissions())?;
        }
        new.write(bytes)?;
        new.commit()
    };
    write().map_err(|error| error_text(&error))
}

/// A file to be read from its beginning, and its length. `None`: there is none.
pub fn open_if_there(path: &Path) -> Result<Option<(std::fs::File, u64)>, String> {
    let open = || -> io::Result<(std::fs::File, u64)> {
        let file = std::fs::File::open(path)?;
        let len_bytes = file.metadata()?.len();
        Ok((file, len_bytes))
    };
    match open() {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error_text(&error)),
    }
}

/// Writes the process id to a file.
pub fn create_pidfile(path: &Path) -> io::Result<()> {
    std::fs::write(path, format!("{}\n", std::process::id()))
}

/// Removes the file again; that it is gone already is fine.
pub fn remove_pidfile(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// Leaves the terminal: the caller goes on in a child process in a session of its own, without standard streams; the
/// parent ends here with success. Must be called while the process has one thread.
pub fn daemonize() -> io::Result<()> {
    // SAFETY: there is one thread, so the child has all of the process' state. `_exit` in the parent runs nothing
    // that belongs to the child. open reads a literal; dup2, close and setsid take no pointers.
    unsafe {
        match libc::fork() {
            -1 => return Err(io::Error::last_os_error()),
            0 => {}
            _ => libc::_exit(0),
        }
        libc::setsid();
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null >= 0 {
            libc::dup2(null, libc::STDIN_FILENO);
            libc::dup2(null, libc::STDOUT_FILENO);
            libc::dup2(null, libc::STDERR_FILENO);
            if null > libc::STDERR_FILENO {
                libc::close(null);
            }
        }
    }
    log::silence_stdout();
    Ok(())
}

/// Makes room for `maxclients` connections in the process' limit on open files. Returns the clients there is room for,
/// having logged it if those are fewer. The error is the operator's line.
pub fn raise_open_files_limit(maxclients: u32, shard_count: usize) -> Result<u32, String> {
    let reserved = reserved_fds(shard_count);
    let wanted = u64::from(maxclients) + reserved;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit, the local.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        log::warning(format_args!(
            "Unable to obtain the current NOFILE limit ({}), assuming 1024 and setting the max clients \
             configuration accordingly.",
            error_text(&io::Error::last_os_error())
        ));
        return Ok(maxclients.min(1024u64.saturating_sub(reserved) as u32));
    }
    let before = limit.rlim_cur;
    if before >= wanted {
        return Ok(maxclients);
    }

    let refusal = match set_open_files_limit(wanted, limit.rlim_max.max(wanted)) {
        Ok(()) => {
            log::notice(format_args!(
                "Increased maximum number of open files to {wanted} (it was originally set to {before})."
            ));
            return Ok(maxclients);
        }
        Err(error) => error,
    };
    // Only root may raise the hard limit; up to it anybody may go.
    let granted = match set_open_files_limit(limit.rlim_max, limit.rlim_max) {
        Ok(()) => limit.rlim_max.max(before),
        Err(_) => before,
    };
    if granted <= reserved {
        return Err(format!(
            "Your current 'ulimit -n' of {before} is not enough for the server to start. Please increase your \
             open file limit to at least {wanted}. Exiting."
        ));
    }
    let reduced = (granted - reserved) as u32;
    log::warning(format_args!(
        "You requested maxclients of {maxclients} requiring at least {wanted} max file descriptors."
    ));
    log::warning(format_args!(
        "Server can't set maximum open files to {wanted} because of OS error: {}.",
        error_text(&refusal)
    ));
    log::warning(format_args!(
        "Current maximum open files is {granted}. maxclients has been reduced to {reduced} to compensate for low \
         ulimit. If you need higher maxclients increase 'ulimit -n'."
    ));
    Ok(reduced)
}

fn set_open_files_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: setrlimit reads one rlimit, the local.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_holds_the_process_id_and_goes() {
        let path = std::env::temp_dir().join(format!("shardis-pidfile-{}", std::process::id()));
        create_pidfile(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        remove_pidfile(&path);
        assert!(!path.exists());
        remove_pidfile(&path);
        assert!(create_pidfile(Path::new("/no such directory/pid")).is_err());
    }

    #[test]
    fn only_a_directory_can_be_worked_in() {
        let file = std::env::temp_dir().join(format!("shardis-no-dir-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        assert_eq!(SystemFiles.resolve_dir(&file), Err("Not a directory".to_owned()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(SystemFiles.resolve_dir(&file), Err("No such file or directory".to_owned()));
        assert_eq!(SystemFiles.resolve_dir(Path::new("/usr/..")), Ok(PathBuf::from("/")));
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions_and_leaves_nothing_beside_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("shardis-replace-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("redis.conf");
        assert_eq!(read_if_there(&path), Ok(None));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();

        let link = dir.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();

        replace(&link, b"new").unwrap();

        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        std::fs::remove_file(&link).unwrap();
        assert_eq!(read_if_there(&path), Ok(Some(b"new".to_vec())));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(replace(&path, b"x"), Err("No such file or directory".to_string()));
    }

    #[test]
    fn a_limit_that_suffices_is_left_alone() {
        assert_eq!(raise_open_files_limit(10, 1), Ok(10));
    }

    #[test]
    fn a_directory_that_is_not_there_is_said_in_the_systems_words() {
        assert_eq!(change_dir("/no such directory"), Err("No such file or directory".to_string()));
    }
}
