//! The modules that are linked into the server: families of commands that clients do not know to be modules.

use super::load::{OnLoad, load_linked};
use crate::command::table::Command;
use crate::config::Config;
use std::sync::OnceLock;

/// Their names, and their entries.
const LINKED: &[(&str, OnLoad)] = &[
    ("bitmap", shardis_bitmap::on_load),
    ("geo", shardis_geo::on_load),
    ("hyperloglog", shardis_hyperloglog::on_load),
];

/// The names of their commands, for rename-command, which is read before they are loaded.
const COMMANDS: &[&str] = &[
    "bitcount",
    "bitfield",
    "bitfield_ro",
    "bitop",
    "bitpos",
    "geoadd",
    "geodist",
    "geohash",
    "geopos",
    "georadius",
    "georadius_ro",
    "georadiusbymember",
    "georadiusbymember_ro",
    "geosearch",
    "geosearchstore",
    "getbit",
    "pfadd",
    "pfcount",
    "pfdebug",
    "pfmerge",
    "pfselftest",
    "setbit",
];

/// Whether a built-in module has a command of this name.
pub fn has_command(name: &[u8]) -> bool {
    COMMANDS.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// The rows of the built-in modules that the configuration names. A module is loaded once in a process, with the configuration
/// of the first server that names it; one that is not named may be loaded as a library.
pub fn rows(config: &Config) -> Vec<&'static [Command]> {
    static LOADED: [OnceLock<Vec<Command>>; LINKED.len()] = [const { OnceLock::new() }; LINKED.len()];
    let wanted = config.builtin_modules.to_str_lossy();
    let is_wanted = |name: &str| wanted.split([' ', ',']).any(|wanted| wanted == name);
    let linked = LINKED.iter().zip(&LOADED).filter(|((name, _), _)| is_wanted(name));
    linked
        .map(|((_, on_load), rows)| rows.get_or_init(|| load_linked(b"", *on_load, config)).as_slice())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_that_may_be_renamed_are_those_that_there_are() {
        let rows = rows(Config::defaults());
        let mut names: Vec<&str> = rows.iter().flat_map(|rows| rows.iter()).map(|row| row.name).collect();
        names.sort_unstable();
        assert_eq!(names, COMMANDS);
    }
}
