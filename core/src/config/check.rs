//! Rules for single values that a type or bounds cannot say. Each looks at its directive in a configuration where it
//! has just been assigned; the texts are Redis'.

use super::Config;
use super::title;
use super::value::{Text, Why};

/// What periodic work can be made to do, whatever is asked for.
const HZ_MAX: u32 = 500;
/// Redis keeps no smaller backlog than this, whatever is asked for.
const REPL_BACKLOG_SIZE_MIN_BYTES: u64 = 16 << 10;
/// A host name with its terminator fits in the 256 bytes that cluster nodes exchange.
const HOSTNAME_LEN_MAX: usize = 255;

pub(super) fn hz(config: &mut Config) -> Result<(), Why> {
    config.hz = config.hz.clamp(1, HZ_MAX);
    Ok(())
}

pub(super) fn repl_backlog_size(config: &mut Config) -> Result<(), Why> {
    config.repl_backlog_size_bytes = config.repl_backlog_size_bytes.max(REPL_BACKLOG_SIZE_MIN_BYTES);
    Ok(())
}

pub(super) fn activedefrag(config: &mut Config) -> Result<(), Why> {
    if config.activedefrag {
        // Redis' own text where its allocator cannot do it; clients and the official tests know it.
        return Err(
            "Active defragmentation cannot be enabled: it requires a Redis server compiled with a modified \
                    Jemalloc like the one shipped by default with the Redis source distribution"
                .into(),
        );
    }
    Ok(())
}

pub(super) fn proc_title_template(config: &mut Config) -> Result<(), Why> {
    // Judged with an empty title, as what is left must not be empty.
    match title::expand(config, b"") {
        Some(expanded) if !expanded.is_empty() => Ok(()),
        Some(_) | None => Err("template format is invalid or contains unknown variables".into()),
    }
}

pub(super) fn dbfilename(config: &mut Config) -> Result<(), Why> {
    if is_path(&config.dbfilename) {
        Err("dbfilename can't be a path, just a filename".into())
    } else {
        Ok(())
    }
}

pub(super) fn appendfilename(config: &mut Config) -> Result<(), Why> {
    if config.appendfilename.is_empty() {
        return Err("appendfilename can't be empty".into());
    }
    if is_path(&config.appendfilename) {
        Err("appendfilename can't be a path, just a filename".into())
    } else {
        Ok(())
    }
}

pub(super) fn appenddirname(config: &mut Config) -> Result<(), Why> {
    if config.appenddirname.is_empty() {
        return Err("appenddirname can't be empty".into());
    }
    if is_path(&config.appenddirname) {
        Err("appenddirname can't be a path, just a dirname".into())
    } else {
        Ok(())
    }
}

pub(super) fn cluster_announce_hostname(config: &mut Config) -> Result<(), Why> {
    let hostname = config.cluster_announce_hostname.as_bytes();
    if hostname.len() > HOSTNAME_LEN_MAX {
        return Err("Hostnames must be less than 256 characters".into());
    }
    if !hostname.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
        return Err("Hostnames may only contain alphanumeric characters, hyphens or dots".into());
    }
    Ok(())
}

fn is_path(name: &Text) -> bool {
    name.as_bytes().contains(&b'/')
}
