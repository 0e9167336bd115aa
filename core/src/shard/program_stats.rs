//! Which programs leave the keys that they declare, are started anew, or wait for the token: counts for each script and
//! function, so that a user sees which of them to change.
//!
//! A shard counts what its clients have called. Its counts are locked once for each such run, and by whoever shows them. There
//! are [`NAMES_MAX`] of them at most, since clients may put values into the text of their scripts: if there are more programs,
//! those with the smallest counts are left out.

use ahash::AHashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

/// The programs that one shard counts at most.
pub const NAMES_MAX: usize = 256;

/// The programs that are shown at most.
pub const SHOWN_MAX: usize = 20;

/// What a program is called in statistics and logs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ProgramName {
    /// The SHA-1 of its text.
    Script([u8; 20]),
    /// Its name has letters, digits and underscores only.
    Function(Box<[u8]>),
    /// A command that calls others.
    Command(&'static str),
}

impl ProgramName {
    /// As Redis' log names it.
    pub fn in_log(&self) -> String {
        match self {
            ProgramName::Script(sha) => {
                let digits: String = sha.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("f_{digits}")
            }
            ProgramName::Function(name) => String::from_utf8_lossy(name).into_owned(),
            ProgramName::Command(name) => (*name).to_string(),
        }
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProgramName::Script(sha) => {
                f.write_str("script_")?;
                sha.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            ProgramName::Function(name) => write!(f, "function_{}", String::from_utf8_lossy(name)),
            ProgramName::Command(name) => write!(f, "command_{name}"),
        }
    }
}

/// What is counted of the runs of a program.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ProgramCounts {
    /// Runs in which it has called a command over keys that it had not declared.
    pub left_keys: u64,
    /// Commands that it has called on other shards, or for whose keys it has waited.
    pub calls_elsewhere: u64,
    /// How often it had to give back its locks and to start anew.
    pub restarts: u64,
    /// Runs for which the token was not free, and how long they waited for it.
    pub token_waits: u64,
    pub token_wait_nanos: u64,
}

impl ProgramCounts {
    fn add(&mut self, other: &ProgramCounts) {
        self.left_keys += other.left_keys;
        self.calls_elsewhere += other.calls_elsewhere;
        self.restarts += other.restarts;
        self.token_waits += other.token_waits;
        self.token_wait_nanos += other.token_wait_nanos;
    }

    /// Programs with greater ranks are shown first.
    fn rank(&self) -> (u64, u64, u64) {
        (self.token_wait_nanos, self.calls_elsewhere, self.left_keys)
    }
}

/// One shard's counts.
#[derive(Default)]
pub struct ProgramStats(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    by_name: AHashMap<ProgramName, ProgramCounts>,
    token_holder: Option<ProgramName>,
}

impl ProgramStats {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of the programs' counts panics")
    }

    /// Adds to the counts of a program.
    pub fn count(&self, name: ProgramName, counts: &ProgramCounts) {
        let mut inner = self.lock();
        if let Some(known) = inner.by_name.get_mut(&name) {
            known.add(counts);
            return;
        }
        if inner.by_name.len() >= NAMES_MAX {
            let least = inner.by_name.iter().min_by_key(|(name, counts)| (counts.rank(), *name));
            let least = least.map(|(name, _)| name.clone()).expect("there are many");
            inner.by_name.remove(&least);
        }
        inner.by_name.insert(name, *counts);
    }

    /// Which program of this shard's clients holds the token.
    pub fn set_token_holder(&self, name: Option<ProgramName>) {
        self.lock().token_holder = name;
    }

    pub fn token_holder(&self) -> Option<ProgramName> {
        self.lock().token_holder.clone()
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.lock().by_name.clear();
    }
}

/// The programs of several shards that cost most, the dearest first.
pub fn dearest<'a>(shards: impl Iterator<Item = &'a ProgramStats>) -> Vec<(ProgramName, ProgramCounts)> {
    let mut sums: BTreeMap<ProgramName, ProgramCounts> = BTreeMap::new();
    for shard in shards {
        for (name, counts) in &shard.lock().by_name {
            sums.entry(name.clone()).or_default().add(counts);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, counts)| Reverse(counts.rank()));
    sums.truncate(SHOWN_MAX);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> ProgramName {
        ProgramName::Function(name.as_bytes().into())
    }

    fn waited(nanos: u64) -> ProgramCounts {
        ProgramCounts { token_waits: 1, token_wait_nanos: nanos, ..ProgramCounts::default() }
    }

    #[test]
    fn the_counts_of_several_shards_are_added_up_and_the_dearest_program_is_first() {
        let shards = [ProgramStats::default(), ProgramStats::default()];
        shards[0].count(function("a"), &waited(5));
        shards[0].count(function("b"), &waited(7));
        shards[1].count(function("a"), &waited(3));
        let found = dearest(shards.iter());
        let sum = ProgramCounts { token_waits: 2, ..waited(8) };
        assert_eq!(found, [(function("a"), sum), (function("b"), waited(7))]);
        shards[0].reset();
        assert_eq!(dearest(shards.iter()), [(function("a"), waited(3))]);
    }

    #[test]
    fn among_many_programs_those_with_the_smallest_counts_are_left_out() {
        let shard = ProgramStats::default();
        shard.count(function("dear"), &waited(1000));
        for n in 0..2 * NAMES_MAX {
            shard.count(function(&format!("f{n}")), &waited(1));
        }
        assert_eq!(shard.lock().by_name.len(), NAMES_MAX);
        let found = dearest(std::iter::once(&shard));
        assert_eq!((found.len(), found[0].0.to_string().as_str()), (SHOWN_MAX, "function_dear"));
    }
}
