//! Directives: one declarative table behind redis.conf, CONFIG GET/SET/REWRITE and the command line.

mod check;
mod load;
mod rewrite;
mod set;
mod special;
mod table;
mod title;
mod value;
mod warning;

use std::sync::OnceLock;

pub use load::{Files, LoadError, Sources, directive_lines};
pub use rewrite::{Append, rewrite, rewrite_modules, rewrite_users};
pub use set::{Caller, Change, SetError, Update};
pub use special::*;
pub use table::*;
pub use title::expand as expand_proc_title;
pub use value::*;
pub use warning::warnings;

use crate::protocol::OwnedArgv;
use crate::protocol::inline::{UnbalancedQuotes, split_words};

/// The version of Redis whose behaviour this is.
pub const REDIS_VERSION: &str = "7.0.15";

/// The row of a directive, by either of its names, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|row| row.names().any(|known| known.as_bytes().eq_ignore_ascii_case(name)))
}

impl Config {
    /// The values of a server without any configuration.
    pub fn defaults() -> &'static Config {
        static DEFAULTS: OnceLock<Config> = OnceLock::new();
        DEFAULTS.get_or_init(Config::default)
    }

    /// Whether memory is limited.
    pub fn has_maxmemory(&self) -> bool {
        self.maxmemory_bytes != 0
    }

    /// By how much so many bytes are more than maxmemory, which is set.
    pub fn beyond_maxmemory(&self, used_bytes: u64) -> u64 {
        used_bytes.saturating_sub(self.maxmemory_bytes)
    }

    /// How much of maxmemory so many bytes are, as a part of 1; 0 without a limit.
    pub fn maxmemory_ratio(&self, used_bytes: u64) -> f32 {
        if self.maxmemory_bytes == 0 { 0.0 } else { (used_bytes as f64 / self.maxmemory_bytes as f64) as f32 }
    }

    /// The port by which the server is known: that for plain connections, or else that for TLS.
    pub fn shown_port(&self) -> u16 {
        if self.port == 0 { self.tls_port } else { self.port }
    }

    /// So many percent of maxmemory, in bytes; 0 without a limit.
    pub fn maxmemory_share_bytes(&self, percent: u8) -> u64 {
        (self.maxmemory_bytes as f64 * f64::from(percent) / 100.0) as u64
    }

    /// How many bytes one run of a script may allocate without a script-memory-limit: a quarter of maxmemory, or else of the
    /// machine's memory. A small maxmemory keeps no script from running.
    pub fn default_script_limit_bytes(&self, machine_bytes: u64) -> u64 {
        const BY_MAXMEMORY_MIN: u64 = 16 << 20;
        match self.maxmemory_bytes {
            0 => machine_bytes / 4,
            maxmemory_bytes => (maxmemory_bytes / 4).max(BY_MAXMEMORY_MIN),
        }
    }

    /// Gives a directive a value, judged by all its rules. Errors: why the value cannot be, in Redis' words where Redis
    /// has any; this configuration is then fit to be thrown away only.
    pub fn assign(&mut self, directive: &Directive, args: &[&[u8]], origin: Origin) -> Result<(), Why> {
        let is_multi = directive.flags.contains(Flags::MULTI);
        if !is_multi && args.len() != 1 {
            return Err("wrong number of arguments".into());
        }
        let owned: OwnedArgv;
        let words: Vec<&[u8]> = match (args, origin) {
            // Several words in one argument: CONFIG SET has a space between them and no quotes, a file may quote.
            ([one], Origin::Set) if is_multi => one.split(|&byte| byte == b' ').collect(),
            ([one], Origin::Load { .. }) if is_multi => match split_words(one) {
                Ok(split) => {
                    owned = split;
                    owned.as_argv().iter().collect()
                }
                Err(UnbalancedQuotes) => args.to_vec(),
            },
            _ => args.to_vec(),
        };
        let nothing = is_multi && words == [b""];
        (directive.assign)(self, if nothing { &[] } else { &words }, origin)?;
        if let Some(check) = directive.check {
            check(self)?;
        }
        match directive.status {
            Status::Refused(feature) if !directive.is_default(self) => Err(feature.refusal()),
            Status::Refused(_) | Status::Inert(_) | Status::Live => Ok(()),
        }
    }

    /// The lines, less the name, that CONFIG REWRITE would write for a directive.
    pub fn lines(&self, directive: &Directive) -> Vec<Vec<u8>> {
        (directive.lines)(self)
    }
}

#[cfg(test)]
mod tests;
