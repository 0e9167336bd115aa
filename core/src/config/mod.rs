//! Directives: one declarative table behind redis.conf, CONFIG GET/SET/REWRITE and the command line.

mod check;
mod special;
mod table;
mod title;
mod value;

use std::sync::OnceLock;

pub use special::*;
pub use table::*;
pub use title::expand as expand_proc_title;
pub use value::*;

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

    /// Gives a directive a value, judged by all its rules. Errors: why the value cannot be, in Redis' words where Redis
    /// has any; this configuration is then fit to be thrown away only.
    pub fn assign(&mut self, directive: &Directive, args: &[&[u8]], origin: Origin) -> Result<(), Why> {
        let words: Vec<&[u8]>;
        let args = if directive.flags.contains(Flags::MULTI) {
            // Several words in one argument, which is how CONFIG SET takes them, are separated by one space each.
            match args {
                [b""] => &[],
                [one] => {
                    words = one.split(|&byte| byte == b' ').collect();
                    &words[..]
                }
                _ => args,
            }
        } else if args.len() == 1 {
            args
        } else {
            return Err("wrong number of arguments".into());
        };
        (directive.assign)(self, args, origin)?;
        if let Some(check) = directive.check {
            check(self)?;
        }
        match directive.status {
            Status::Refused(feature) if !directive.is_default(self) => {
                Err(format!("this version of Shardis has {}", feature.absence()).into())
            }
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
