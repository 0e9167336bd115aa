//! The server under test: our own, built by cargo, or another binary, which is then the control.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{capture, is_executable, run};
use crate::{Result, Trouble, suite};

#[derive(Debug, Clone)]
pub struct Server {
    pub path: PathBuf,
    /// What it says to `--version`.
    pub version: String,
    /// A Shardis, which knows our directives and which our expectations are about. Anything else is a control.
    pub is_shardis: bool,
}

impl Server {
    /// Asks the binary at `path` what it is.
    pub fn at(path: &Path) -> Result<Server> {
        // Not resolved: a link named redis-server says what the file behind it is to be.
        let path = std::path::absolute(path).map_err(Trouble::doing(path.display()))?;
        if !is_executable(&path) {
            return Err(Trouble::new(format!("{} is no program", path.display())));
        }
        let version = capture("asking the server for its version", Command::new(&path).arg("--version"))?;
        let version = version.trim().to_owned();
        let is_shardis = version.to_ascii_lowercase().contains("shardis");
        Ok(Server { path, version, is_shardis })
    }

    /// Builds ours with cargo's `profile` and gives it.
    pub fn build(workspace: &Path, target_dir: &Path, profile: &str) -> Result<Server> {
        suite::install_build_needs()?;
        let mut cargo = cargo(workspace, target_dir);
        cargo.args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "--package",
            "shardis-core",
            "--bin",
            "shardis",
        ]);
        run("building the server", &mut cargo)?;
        // Cargo's own names for the directories of its built-in profiles.
        let profile_dir = if profile == "dev" { "debug" } else { profile };
        let mut server = Server::at(&target_dir.join(profile_dir).join("shardis"))?;
        server.is_shardis = true;
        Ok(server)
    }
}

/// The workspace's cargo, building into the directory that this program was built into.
pub fn cargo(workspace: &Path, target_dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).env("CARGO_TARGET_DIR", target_dir);
    command
}
