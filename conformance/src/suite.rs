//! Getting the official suite: the pristine tests of Redis 7.0.15.
//!
//! `REDIS_SRC` names an unpacked source tree. Otherwise the upstream tarball comes from Debian's source package, and is
//! checked against a hash, whoever served it. Pristine matters: the package's own patches change ten test files, and
//! some tests they add fail with the very server they ship with. Nothing of the suite is committed; it is kept in
//! conformance/cache.
//!
//! apt works here without root and without touching the machine's lists: with a private state directory and source
//! lines derived from the machine's own binary lines, so that a mirror in use stays in use.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{capture, find_on_path, is_executable, is_root, run};
use crate::{Result, Trouble};

const TARBALL: &str = "redis_7.0.15.orig.tar.gz";
const TARBALL_SHA256: &str = "4b1dc4ee6d622a09fff9c6777191209750fb5e5a725ef78ea012d6eef4c22982";

/// Programs that the suite or its harness starts, and the Debian package of each.
const PROGRAMS: [(&str, &str); 8] = [
    ("tclsh", "tcl"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("redis-sentinel", "redis-sentinel"),
    ("kill", "procps"),
    ("pgrep", "procps"),
    ("openssl", "openssl"),
];

/// What the suite expects in its src/ that the judged server is, by its names.
pub const OURS: [&str; 3] = ["redis-server", "redis-check-aof", "redis-check-rdb"];

/// What the suite expects beside these.
pub const HELPERS: [&str; 3] = ["redis-cli", "redis-benchmark", "redis-sentinel"];

#[derive(Debug, Clone)]
pub struct Suite {
    /// Has tests/ and src/ below it.
    pub root: PathBuf,
}

impl Suite {
    /// Finds the suite or gets it, and whatever else it needs, where this user may. `cache` is made if need be.
    pub fn get(cache: &Path) -> Result<Suite> {
        install_programs()?;
        let suite = match std::env::var_os("REDIS_SRC") {
            Some(root) => Suite { root: fs::canonicalize(&root).map_err(Trouble::doing("REDIS_SRC"))? },
            None => Suite { root: unpacked(cache)? },
        };
        if suite.root.join("tests/test_helper.tcl").is_file() {
            Ok(suite)
        } else {
            let root = suite.root.display();
            Err(Trouble::new(format!("{root} is no Redis source tree: it has no tests/test_helper.tcl")))
        }
    }

    /// The helper program `name`: the tree's own if it was built there, else the machine's.
    pub fn helper(&self, name: &str) -> Result<PathBuf> {
        let built = self.root.join("src").join(name);
        if is_executable(&built) {
            return Ok(built);
        }
        find_on_path(name).ok_or_else(|| Trouble::new(format!("{name} is not installed")))
    }
}

/// Installs the programs that the suite and the workspace's own tests need, those of a real Redis among them.
fn install_programs() -> Result<()> {
    let mut missing: BTreeSet<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !has_tcl_tls() {
        missing.insert("tcl-tls");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.into_iter().collect();
    install(&packages)
}

/// Whether Tcl has its TLS, for the suite's `--tls`.
fn has_tcl_tls() -> bool {
    let Ok(mut tclsh) =
        Command::new("tclsh").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    else {
        return false;
    };
    // In Tcl's own words, whose error does not end the interpreter.
    if let Some(mut stdin) = tclsh.stdin.take() {
        let _ = stdin.write_all(b"exit [catch {package require tls}]\n");
    }
    tclsh.wait().is_ok_and(|status| status.success())
}

/// Installs what the server's default features are built with: OpenSSL's headers. To be called before cargo builds it.
pub fn install_build_needs() -> Result<()> {
    // Whoever says where OpenSSL is knows.
    if std::env::var_os("OPENSSL_DIR").is_some() {
        return Ok(());
    }
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.args(["--exists", "openssl"]).stderr(Stdio::null());
    if pkg_config.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    install(&["libssl-dev", "pkg-config"])
}

/// What the workspace's own tests need for modules of others, and the packages: a C module that they load, and what the crate
/// `redis-module` is built with.
const TESTED_MODULES: [(&str, &str); 2] = [
    ("/usr/lib/redis/modules/redisearch.so", "redis-redisearch"),
    ("/usr/share/doc/libclang-dev", "libclang-dev"),
];

/// Installs what the workspace's own tests need for modules. Where that is not possible the tests that need it fail.
pub fn install_tested_modules() {
    let missing = TESTED_MODULES.iter().filter(|(path, _)| !Path::new(path).exists());
    for (_, package) in missing {
        if let Err(trouble) = install(&[package]) {
            eprintln!("{trouble}");
        }
    }
}

fn install(packages: &[&str]) -> Result<()> {
    if !is_root() || find_on_path("apt-get").is_none() {
        let packages = packages.join(" ");
        return Err(Trouble::new(format!(
            "there are packages missing; install them (Debian: apt-get install {packages})"
        )));
    }
    eprintln!("installing {}", packages.join(" "));
    let mut apt = Command::new("apt-get");
    run("updating apt's lists", apt.args(["-qq", "update"]))?;
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    run("installing packages", apt.args(["-qq", "install", "-y", "--no-install-recommends"]).args(packages))
}

fn unpacked(cache: &Path) -> Result<PathBuf> {
    let root = cache.join("redis-7.0.15");
    // The marker is written last, so that a half unpacked tree is unpacked again.
    let marker = root.join(".unpacked");
    if marker.is_file() {
        return Ok(root);
    }
    fs::create_dir_all(cache).map_err(Trouble::doing(format!("making {}", cache.display())))?;
    let tarball = cache.join(TARBALL);
    if !tarball.is_file() {
        download(cache)?;
    }
    check_hash(&tarball)?;
    let mut tar = Command::new("tar");
    run("unpacking the suite", tar.arg("-xzf").arg(&tarball).arg("-C").arg(cache))?;
    fs::write(&marker, "").map_err(Trouble::doing(format!("writing {}", marker.display())))?;
    Ok(root)
}

fn check_hash(tarball: &Path) -> Result<()> {
    let sum = capture("hashing the suite", Command::new("sha256sum").arg(tarball))?;
    if sum.split_whitespace().next() == Some(TARBALL_SHA256) {
        return Ok(());
    }
    // Not left behind, so that the next run downloads it anew.
    let _ = fs::remove_file(tarball);
    Err(Trouble::new(format!("{} is not the tarball of Redis 7.0.15: its SHA256 differs", tarball.display())))
}

/// Has apt put [`TARBALL`] into `cache`.
fn download(cache: &Path) -> Result<()> {
    let by_hand = "set REDIS_SRC to an unpacked source tree of Redis 7.0.15";
    if find_on_path("apt-get").is_none() {
        return Err(Trouble::new(format!("there is no apt-get to fetch the suite with; {by_hand}")));
    }
    let apt_dir = cache.join("apt");
    for dir in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt_dir.join(dir)).map_err(Trouble::doing("making apt's directories"))?;
    }
    let sources = source_lines()?;
    if sources.is_empty() {
        return Err(Trouble::new(format!(
            "apt knows no Debian or Ubuntu archive to get the suite from; {by_hand}"
        )));
    }
    fs::write(apt_dir.join("sources.list"), sources).map_err(Trouble::doing("writing apt's sources"))?;

    eprintln!("getting the official suite");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .current_dir(cache)
            .arg(format!("-oDir::Etc::SourceList={}", apt_dir.join("sources.list").display()))
            .arg("-oDir::Etc::SourceParts=/dev/null")
            .arg(format!("-oDir::State::Lists={}", apt_dir.join("lists").display()))
            .arg(format!("-oDir::Cache={}", apt_dir.join("cache").display()))
            // Root would hand the download to a user who may not write here.
            .arg("-oAPT::Sandbox::User=root")
            .arg("-qq")
            .args(arguments);
        command
    };
    run("reading the archive's list of sources", &mut apt(&["update"]))?;
    let mut source = apt(&["source", "--download-only", "--tar-only", "redis"]);
    run("downloading the suite", &mut source)
        .map_err(|trouble| Trouble::new(format!("{trouble}; {by_hand}")))?;
    if cache.join(TARBALL).is_file() {
        Ok(())
    } else {
        Err(Trouble::new(format!("apt-get fetched no {TARBALL}; {by_hand}")))
    }
}

/// A deb-src line for each archive that the machine has a deb line for. `trusted`, because the tarball is checked
/// against our own hash, and a machine may lack the archive's key.
fn source_lines() -> Result<String> {
    let list = || {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"]);
        capture("asking apt for its archives", apt.arg("Identifier: Packages"))
    };
    let mut targets = list()?;
    if targets.trim().is_empty() && is_root() {
        // A fresh image has no lists, and apt names only archives that it has a list of.
        run("updating apt's lists", Command::new("apt-get").args(["-qq", "update"]))?;
        targets = list()?;
    }
    let lines: BTreeSet<String> = targets.lines().filter_map(source_line).collect();
    Ok(lines.into_iter().collect())
}

fn source_line(target: &str) -> Option<String> {
    let [uri, release, component, origin] = target.split('|').collect::<Vec<_>>().try_into().ok()?;
    let has_redis = matches!((origin, component), ("Debian", "main") | ("Ubuntu", "universe"));
    has_redis.then(|| format!("deb-src [trusted=yes] {uri} {release} {component}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_archives_that_carry_redis_become_source_lines() {
        let line = source_line("http://mirror.example/debian/|bookworm|main|Debian");

        assert_eq!(line.unwrap(), "deb-src [trusted=yes] http://mirror.example/debian/ bookworm main\n");
        assert_eq!(source_line("http://mirror.example/debian/|bookworm|contrib|Debian"), None);
        assert_eq!(source_line("http://node.example/|nodistro|main|. nodistro"), None);
        assert_eq!(source_line("nonsense"), None);
    }
}
