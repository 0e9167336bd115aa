//! The differential fuzzer: random commands to a real Redis 7.0.15 and to ours, with equal replies and equal data in the end.
//!
//! ```text
//!   commands.txt   what calls look like, a line a command     values    arguments
//!   grammar        the language of its lines                  random    from a seed
//!   scripts        scripts that call them                     lua       the expressions in these
//!   sequence       calls over some connections, from a seed
//!   fleet          the servers                                resp      a client that keeps replies as they came
//!   run            a sequence to all of them at once          compare   when replies count as equal
//!   drive          ... to one of them
//!   listen         who is told of messages and of keys
//!   state          what is left in the end                   replicas  ... by a master's stream
//!   shrink         a failing sequence made small
//! ```
//!
//! A sequence begins with empty servers and small thresholds of encodings. Its calls go alone and in pipelines, in MULTI and
//! over clients that wait, by RESP2 or RESP3. Other clients listen to channels and to what happens to keys, and are told the
//! same by all servers. In the end the digests, types, encodings and times of all keys are compared, and each key's DUMP is
//! restored by the other server. Commands that a server does not have are left out.
//!
//! Where the servers have replicas of the other make, each replica is compared with its master instead. Every other sequence
//! then goes without comparing replies, so that masters may decide what the other makes would decide otherwise.

pub mod compare;
pub mod drive;
pub mod fleet;
pub mod grammar;
pub mod listen;
pub mod lua;
pub mod random;
pub mod replicas;
pub mod resp;
pub mod run;
pub mod scripts;
pub mod sequence;
pub mod shrink;
pub mod state;
pub mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::fleet::Fleet;
use self::grammar::Family;
use self::run::Difference;
use self::sequence::{Over, Sequence};
use self::shrink::Shrunk;
use crate::command::{capture, find_on_path};
use crate::{Result, Trouble, report};

const COMMANDS: &str = include_str!("../../commands.txt");

/// The version of the server that the others are held against.
const REFERENCE_VERSION: &str = "v=7.0.15";

/// The first port of `cargo differ`: below the official suite's.
pub const PORT: u16 = 20_400;

/// The sequences that `cargo verify` runs, the same each time.
pub const FIXED_SEQUENCES: u64 = 2_500;

/// The same, of those with replicas.
pub const FIXED_REPLICA_SEQUENCES: u64 = 1_000;

/// Which sequences are run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of the first; those of the others follow.
    pub first_seed: u64,
    pub sequence_count: u64,
    /// No more are begun then.
    pub time_max: Option<Duration>,
    /// Different failures after which it ends.
    pub failures_max: usize,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sequence_count: u64,
    pub call_count: u64,
    pub failure_count: u64,
    /// Failures that did not show again: the clock's, mostly. They are printed, and no more. None of them are of replicas.
    pub unsteady_count: u64,
    /// The failures, as they were printed.
    pub failures: String,
}

impl Outcome {
    pub fn closing(&self) -> String {
        let Outcome { call_count, sequence_count, failure_count, unsteady_count, .. } = self;
        format!(
            "{call_count} commands in {sequence_count} sequences, {failure_count} of which failed, {unsteady_count} only once"
        )
    }
}

/// A seed that was not used before: the time in milliseconds.
pub fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |elapsed| elapsed.as_millis() as u64)
}

/// A real redis-server 7.0.15, at `path` or on PATH.
pub fn reference(path: Option<&Path>) -> Result<std::path::PathBuf> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => {
            find_on_path("redis-server").ok_or_else(|| Trouble::new("there is no redis-server on PATH"))?
        }
    };
    let mut command = std::process::Command::new(&path);
    let version = capture("asking the reference for its version", command.arg("--version"))?;
    if !version.contains(REFERENCE_VERSION) {
        return Err(Trouble::new(format!(
            "{} is not {REFERENCE_VERSION}: {}",
            path.display(),
            version.trim()
        )));
    }
    Ok(path)
}

/// The families of the table, as far as every server of `fleet` has their commands. Says what is left out.
pub fn families(fleet: &Fleet, chosen: &[String]) -> Result<Vec<Family>> {
    let mut families = grammar::families(COMMANDS)?;
    if let Some(name) = chosen.iter().find(|name| families.iter().all(|family| family.name != **name)) {
        return Err(Trouble::new(format!("commands.txt has no family {name}")));
    }
    let always = ["keys", "transactions"];
    families.retain(|family| {
        chosen.is_empty() || chosen.contains(&family.name) || always.contains(&family.name.as_str())
    });
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    for name in families.iter().flat_map(|family| &family.patterns).map(|pattern| pattern.name.clone()) {
        if !known.contains_key(&name) {
            let knows = fleet.knows(&name)? || sequence_words().contains(name.as_str());
            known.insert(name, knows);
        }
    }
    for family in &mut families {
        family.patterns.retain(|pattern| known[&pattern.name]);
    }
    families.retain(|family| !family.patterns.is_empty());
    let missing: Vec<&str> =
        known.iter().filter(|(_, known)| !**known).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        report::say(&format!("left out, because not every server has it: {}", missing.join(" ")));
    }
    Ok(families)
}

/// Lines of the table that begin with a generator, and call no command of that name.
fn sequence_words() -> BTreeSet<&'static str> {
    BTreeSet::from(["junk"])
}

/// Runs the sequences of `plan`, and prints each different failure, shrunk.
pub fn judge(fleet: &mut Fleet, families: &[Family], plan: &Plan) -> Result<Outcome> {
    let started = Instant::now();
    let mut outcome = Outcome::default();
    // Signatures as found, and as shown.
    let (mut met, mut seen) = (BTreeSet::new(), BTreeSet::new());
    while outcome.sequence_count < plan.sequence_count && seen.len() < plan.failures_max {
        if plan.time_max.is_some_and(|time_max| started.elapsed() > time_max) {
            break;
        }
        let seed = plan.first_seed.wrapping_add(outcome.sequence_count);
        let sequence = if fleet.replicas.is_empty() {
            sequence::generate(seed, families)
        } else {
            replicas::comparable(sequence::generate_for_replicas(seed, families))
        };
        outcome.sequence_count += 1;
        outcome.call_count += sequence.calls.len() as u64;
        let Some(difference) = run::run(fleet, &sequence, false) else { continue };

        let died = fleet.revive()?;
        if !met.insert(signature(&sequence, &difference)) {
            outcome.failure_count += 1;
            continue;
        }
        let mut trouble = None;
        let shrunk = shrink::shrink(&sequence, |candidate, one_by_one| {
            let difference = run::run(fleet, candidate, one_by_one);
            if difference.is_some()
                && let Err(cause) = fleet.revive()
            {
                trouble = Some(cause);
            }
            difference
        });
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        // What a replica has does not depend on the clock: it must never be otherwise.
        let is_of_replica = !fleet.replicas.is_empty() && difference.at == sequence.calls.len();
        let is_steady = shrunk.is_some() || !died.is_empty() || is_of_replica;
        *(if is_steady { &mut outcome.failure_count } else { &mut outcome.unsteady_count }) += 1;
        let text = match shrunk {
            Some(shrunk) if seen.insert(signature(&shrunk.sequence, &shrunk.difference)) => shown(&shrunk),
            Some(_) if died.is_empty() => continue,
            Some(shrunk) => shown(&shrunk),
            None => {
                let whole = Shrunk { sequence, difference, only_in_a_pipeline: false };
                format!("{}  It did not show again.\n", shown(&whole))
            }
        };
        let deaths: String = died.iter().map(|label| format!("\n  died: {label}")).collect();
        let text = format!("{text}{deaths}");
        report::say(&text);
        if is_steady {
            outcome.failures.push_str(&text);
            outcome.failures.push('\n');
        }
    }
    Ok(outcome)
}

/// Failures of one signature are taken for the same.
fn signature(sequence: &Sequence, difference: &Difference) -> String {
    let name =
        sequence.calls.get(difference.at).map(|call| String::from_utf8_lossy(&call.name()).into_owned());
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).take(24).collect()
    };
    let [(_, a), (_, b)] = &difference.answers;
    match name {
        Some(name) => format!("{name} {} {}", plain(a), plain(b)),
        None => {
            let what: Vec<&str> = difference.what.split_whitespace().take(2).collect();
            format!(
                "state {} {}",
                what.join(" "),
                if what.contains(&"OBJECT") { format!("{a} {b}") } else { String::new() }
            )
        }
    }
}

/// A failure as a script for redis-cli, and what differs.
fn shown(shrunk: &Shrunk) -> String {
    let Shrunk { sequence, difference, only_in_a_pipeline } = shrunk;
    let mut text = format!("DIFFERENCE (seed {}, RESP{}", sequence.seed, sequence.resp);
    if *only_in_a_pipeline {
        text.push_str(", only in a pipeline");
    }
    if !sequence.compares_replies {
        text.push_str(", replies not compared");
    }
    text.push_str(")\n");
    let resp3 = if sequence.resp == 3 { " -3" } else { "" };
    text.push_str(&format!("    redis-cli{resp3} <<'END'\n"));
    for (name, value) in &sequence.settings {
        text.push_str(&format!("    CONFIG SET {name} {value}\n"));
    }
    for call in &sequence.calls {
        let pipelined =
            if *only_in_a_pipeline && call.over == Over::Main && !call.ends_batch { " # ..." } else { "" };
        text.push_str(&format!("    {}{pipelined}\n", call.line()));
    }
    text.push_str("    END\n");
    let of_call =
        sequence.calls.get(difference.at).map_or(String::new(), |call| format!(" to {}", call.line()));
    text.push_str(&format!("  {}{of_call}:\n", difference.what));
    for (label, answer) in &difference.answers {
        text.push_str(&format!("    {label:<9} {}\n", brief(answer)));
    }
    text
}

const ANSWER_CHARS_MAX: usize = 1_500;

fn brief(answer: &str) -> String {
    let mut chars = answer.chars();
    let text: String = chars.by_ref().take(ANSWER_CHARS_MAX).collect();
    if chars.next().is_some() { format!("{text}...") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_commands_is_read() {
        let families = grammar::families(COMMANDS).expect("a table without mistakes");

        assert!(families.iter().all(|family| !family.patterns.is_empty()));
        for seed in 0..200 {
            assert!(!sequence::generate(seed, &families).calls.is_empty());
        }
    }

    #[test]
    fn with_replicas_every_other_sequence_leaves_replies_aside() {
        let families = grammar::families(COMMANDS).expect("a table without mistakes");
        let of = |seed| sequence::generate_for_replicas(seed, &families);

        assert!(of(16).compares_replies && !of(17).compares_replies);
        let picks = |sequence: &Sequence| sequence.calls.iter().any(|call| call.name() == b"SPOP");
        assert!((0..200).map(|n| of(2 * n + 1)).any(|sequence| picks(&sequence)));
    }

    #[test]
    fn a_seed_means_the_same_calls() {
        let families = grammar::families(COMMANDS).expect("a table without mistakes");
        let lines = |seed| -> Vec<String> {
            let sequence = sequence::generate(seed, &families);
            sequence.calls.iter().map(|call| String::from_utf8_lossy(&call.name()).into_owned()).collect()
        };

        assert_eq!(lines(17), lines(17));
        assert_ne!(lines(17), lines(18));
    }
}
