//! Families of commands that are linked into the server, loaded into it as libraries instead: the official files about them are
//! to come out the same.

use std::fs;
use std::path::{Path, PathBuf};

use crate::place::Place;
use crate::server::cargo;
use crate::{Result, Trouble, command};

/// Their packages.
const PACKAGES: [&str; 3] = ["shardis-bitmap", "shardis-geo", "shardis-hyperloglog"];

/// The official files about them.
pub const FILES: [&str; 4] = ["unit/bitfield", "unit/bitops", "unit/geo", "unit/hyperloglog"];

/// Builds the libraries with cargo's `profile`. Gives a file for a configuration to include: it has them loaded, and nothing that
/// is linked in.
pub fn configuration(place: &Place, profile: &str) -> Result<PathBuf> {
    // Built without the feature they are part of the server: these have a directory of their own.
    let target_dir = place.target_dir.join("loadable");
    let profile_dir = if profile == "dev" { "debug" } else { profile };
    let mut text = String::from("builtin-modules \"\"\n");
    for package in PACKAGES {
        build(&place.workspace, &target_dir, package, profile)?;
        let library = format!("lib{}.so", package.replace('-', "_"));
        text.push_str(&format!("loadmodule {}\n", target_dir.join(profile_dir).join(library).display()));
    }
    let path = place.target_dir.join("loaded-modules.conf");
    fs::write(&path, text).map_err(Trouble::doing(format!("writing {}", path.display())))?;
    Ok(path)
}

fn build(workspace: &Path, target_dir: &Path, package: &str, profile: &str) -> Result<()> {
    let mut cargo = cargo(workspace, target_dir);
    cargo.args(["rustc", "--quiet", "--profile", profile, "--package", package, "--lib"]);
    cargo.args(["--features", "loadable", "--crate-type", "cdylib"]);
    command::run("building a module", &mut cargo)
}
