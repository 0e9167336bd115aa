//! Running other programs: told what was being done when one fails, and never reading our standard input.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, Trouble};

/// Runs `command` to its end with its output passed on. A failure says `what` could not be done.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(Trouble::doing(what))?;
    if status.success() {
        Ok(())
    } else {
        Err(Trouble::new(format!("{what}: {command:?} ended with {status}")))
    }
}

/// Runs `command` and gives what it wrote to standard output; its complaints become part of the error.
pub fn capture(what: &str, command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(Trouble::doing(what))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Trouble::new(format!("{what}: {command:?} ended with {}: {}", output.status, complaint.trim())))
}

/// The first `name` on PATH.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
