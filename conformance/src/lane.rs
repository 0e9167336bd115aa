//! A lane: everything one file of the suite needs for itself while it runs. The harness deletes tests/tmp/server.* of
//! its tree whenever it starts, and picks ports from its base up, so two of them share neither a tree nor ports.
//!
//! A port block is claimed for the whole machine by a lock file, which also gives the lane its directory's name: two
//! runs at the same time, of this checkout or of another, never meet.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{capture, run};
use crate::harness;
use crate::suite::{HELPERS, OURS, Suite};
use crate::{Result, Trouble};

/// Where the first block starts by default: the suite's own default.
pub const BASEPORT: u16 = 21111;
/// From one block to the next.
const BLOCK_STRIDE: u16 = 1000;
/// Ports of a block that servers are given.
pub const PORTCOUNT: u16 = 800;
/// Ports below a block's base among which the harness finds its own.
const CONTROL_PORTS: u16 = 32;
/// Blocks there are: the last one ends below the range from which the kernel hands out ports by itself.
const BLOCKS_MAX: u16 = 11;

const _: () = assert!(PORTCOUNT + CONTROL_PORTS <= BLOCK_STRIDE);
const _: () = assert!(BASEPORT + BLOCKS_MAX * BLOCK_STRIDE < 32768);

#[derive(Debug)]
pub struct Lane {
    /// A copy of the suite's tests/ and a src/ of links. The harness' working directory.
    pub dir: PathBuf,
    pub baseport: u16,
    modules_built: bool,
    has_certificates: bool,
    /// Held for as long as the lane lives.
    _claim: File,
}

impl Lane {
    /// Claims the first free port block from `first_baseport` on, and lays out a fresh tree under `target_dir`.
    pub fn prepare(suite: &Suite, server: &Path, target_dir: &Path, first_baseport: u16) -> Result<Lane> {
        let (baseport, claim) = claim_ports(first_baseport)?;
        let dir = target_dir.join(format!("lane-{baseport}"));
        // A run that was killed may have left servers behind, which would hold the block's ports.
        harness::kill_processes_below(&dir);
        lay_out(suite, server, &dir)?;
        Ok(Lane { dir, baseport, modules_built: false, has_certificates: false, _claim: claim })
    }

    /// Compiles the suite's test modules, once.
    pub fn build_modules(&mut self) -> Result<()> {
        if !self.modules_built {
            let mut make = Command::new("make");
            make.arg("-s").arg("-C").arg(self.dir.join("tests/modules"));
            run("compiling the suite's test modules", &mut make)?;
            self.modules_built = true;
        }
        Ok(())
    }

    /// Puts the suite's certificates where it looks for them, once.
    pub fn take_certificates(&mut self, suite: &Suite, target_dir: &Path) -> Result<()> {
        if !self.has_certificates {
            let made = certificates(suite, target_dir)?;
            copy_tree(&made, &self.dir.join("tests/tls")).map_err(Trouble::doing("copying certificates"))?;
            self.has_certificates = true;
        }
        Ok(())
    }
}

/// The suite's own script makes certificates for a year; they are made anew after this time.
const CERTIFICATES_AGE_MAX: Duration = Duration::from_secs(300 * 24 * 3600);

/// The directory of the suite's certificates, made by its own script if there are none that are young enough. That takes
/// up to a minute, so they are kept below `target_dir`.
fn certificates(suite: &Suite, target_dir: &Path) -> Result<PathBuf> {
    let place = target_dir.join("certificates");
    let making = || format!("making certificates in {}", place.display());
    fs::create_dir_all(&place).map_err(Trouble::doing(making()))?;
    let lock = File::create(place.join("lock")).map_err(Trouble::doing(making()))?;
    lock.lock().map_err(Trouble::doing(making()))?;
    let dir = place.join("tests/tls");
    // The script's last file.
    let made = fs::metadata(dir.join("redis.dh")).and_then(|file| file.modified());
    let is_young = made.is_ok_and(|made| made.elapsed().unwrap_or_default() < CERTIFICATES_AGE_MAX);
    if !is_young {
        let _ = fs::remove_dir_all(&dir);
        let mut script = Command::new("bash");
        script.arg(suite.root.join("utils/gen-test-certs.sh")).current_dir(&place);
        capture("making the suite's certificates", &mut script)?;
    }
    Ok(dir)
}

fn claim_ports(first_baseport: u16) -> Result<(u16, File)> {
    for block in 0..BLOCKS_MAX {
        let Some(baseport) = first_baseport.checked_add(block * BLOCK_STRIDE) else { break };
        let path = std::env::temp_dir().join(format!("shardis-conformance-ports-{baseport}.lock"));
        let file = File::create(&path).map_err(Trouble::doing(format!("making {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => return Ok((baseport, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(Trouble::new(format!("locking {}: {error}", path.display())));
            }
        }
    }
    Err(Trouble::new(format!(
        "all {BLOCKS_MAX} port blocks from {first_baseport} on are in use by other runs"
    )))
}

fn lay_out(suite: &Suite, server: &Path, dir: &Path) -> Result<()> {
    let laying_out = || format!("laying out {}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(Trouble::doing(laying_out()))?;
    }
    let src = dir.join("src");
    fs::create_dir_all(&src).map_err(Trouble::doing(laying_out()))?;
    copy_tree(&suite.root.join("tests"), &dir.join("tests")).map_err(Trouble::doing(laying_out()))?;
    fs::create_dir_all(dir.join("tests/tmp")).map_err(Trouble::doing(laying_out()))?;

    // Links, not copies: users start the server through links of these names, too.
    let mut links: Vec<(&str, PathBuf)> = OURS.map(|name| (name, server.to_owned())).to_vec();
    for helper in HELPERS {
        links.push((helper, suite.helper(helper)?));
    }
    links.push(("redismodule.h", suite.root.join("src/redismodule.h")));
    for (name, target) in links {
        symlink(target, src.join(name)).map_err(Trouble::doing(laying_out()))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if entry.path().is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_block_is_not_given_twice() {
        // Far from the blocks of real runs, which may go on beside this test.
        let first = 51000;
        let (one, claim) = claim_ports(first).unwrap();
        let (two, _claim_two) = claim_ports(first).unwrap();
        drop(claim);
        let (three, _claim_three) = claim_ports(first).unwrap();

        assert_eq!((one, two, three), (first, first + BLOCK_STRIDE, first));
    }

    #[test]
    fn a_tree_is_laid_out_anew_with_the_server_behind_its_usual_name() {
        use std::os::unix::fs::PermissionsExt;
        let root = std::env::temp_dir().join(format!("shardis-lane-{}", std::process::id()));
        let suite = Suite { root: root.join("redis") };
        fs::create_dir_all(suite.root.join("tests/unit")).unwrap();
        fs::create_dir_all(suite.root.join("src")).unwrap();
        fs::write(suite.root.join("tests/unit/quit.tcl"), "test").unwrap();
        for helper in HELPERS {
            let path = suite.root.join("src").join(helper);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let dir = root.join("lane-1");
        fs::create_dir_all(dir.join("tests/tmp/server.1")).unwrap();

        lay_out(&suite, Path::new("/somewhere/shardis"), &dir).unwrap();
        let copied = fs::read_to_string(dir.join("tests/unit/quit.tcl")).unwrap();
        let ours = OURS.map(|name| fs::read_link(dir.join("src").join(name)).unwrap());
        let helper = fs::read_link(dir.join("src/redis-cli")).unwrap();
        let left = fs::read_dir(dir.join("tests/tmp")).unwrap().count();
        fs::remove_dir_all(&root).unwrap();

        assert_eq!(copied, "test");
        assert_eq!(ours, OURS.map(|_| Path::new("/somewhere/shardis")));
        assert_eq!(helper, suite.root.join("src/redis-cli"));
        assert_eq!(left, 0, "what an earlier run left behind is gone");
    }
}
