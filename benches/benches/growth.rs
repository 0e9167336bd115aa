//! The slowest insertion while a table grows to 10M keys, and a hash, a set and a sorted set to 10M elements.
//!
//! A single fill cannot tell: on a virtual machine any insertion may be the one at which the hypervisor gives the core to
//! somebody else, for milliseconds. But the same keys in the same order make a structure split and double at the same
//! insertions, fill after fill. So what counts for an insertion is the least it has taken in several fills: what is left
//! is its own work. (Not the faults of memory that is touched for the first time, as later fills may get what the ones
//! before gave back. They are in `cargo measure growth`, with the noise.)
use std::process::ExitCode;
use std::time::Instant;

use shardis_core::types::dict::{DictMap, DictSet};
use shardis_core::types::zset::ZSet;
use shardis_core::types::{Collection, NewValue, SetExpire, Table, hash_key};

const COUNT: u64 = 10_000_000;
const FILL_COUNT: usize = 5;
const VALUE: [u8; 8] = [b'v'; 8];
const WORST_SHOWN: usize = 5;

/// No insertion may take longer because the structure grows.
const BAR_NANOS: u32 = 1_000_000;

/// What grows.
struct Subject {
    name: &'static str,
    /// Fills one, and lowers `least` to what each insertion took.
    fill: fn(least: &mut [u32]),
}

const SUBJECTS: [Subject; 4] = [
    Subject { name: "table", fill: fill_table },
    Subject { name: "hash", fill: fill_hash },
    Subject { name: "set", fill: fill_set },
    Subject { name: "zset", fill: fill_zset },
];

fn nanos_since(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

fn time_each(least: &mut [u32], mut insert: impl FnMut(u64, &[u8])) {
    for (number, least) in least.iter_mut().enumerate() {
        let key = format!("key:{number:012}");
        let start = Instant::now();
        insert(number as u64, key.as_bytes());
        *least = nanos_since(start).min(*least);
    }
}

fn fill_table(least: &mut [u32]) {
    let mut table = Table::new();
    time_each(least, |_, key| {
        table.set(hash_key(key), key, NewValue::Str(&VALUE), SetExpire::Clear);
    });
    assert_eq!(table.len() as u64, COUNT);
}

fn fill_hash(least: &mut [u32]) {
    let mut hash = DictMap::new();
    time_each(least, |_, field| {
        hash.set(field, &VALUE);
    });
    assert_eq!(hash.len() as u64, COUNT);
}

fn fill_set(least: &mut [u32]) {
    let mut set = DictSet::new();
    time_each(least, |_, member| {
        set.insert(member);
    });
    assert_eq!(set.len() as u64, COUNT);
}

/// Scores in no order, so that leaves split everywhere.
fn fill_zset(least: &mut [u32]) {
    const STRIDE: u64 = 6_180_339;
    let mut set = ZSet::new();
    time_each(least, |number, member| {
        set.insert(member, (number * STRIDE % COUNT) as f64);
    });
    assert_eq!(set.len() as u64, COUNT);
}

/// Fills, and prints what it took. Returns whether the bar is held.
fn measure(subject: &Subject) -> bool {
    let mut least = vec![u32::MAX; COUNT as usize];
    (0..FILL_COUNT).for_each(|_| (subject.fill)(&mut least));

    let mut by_length: Vec<(u32, usize)> =
        least.iter().enumerate().map(|(number, &nanos)| (nanos, number)).collect();
    by_length.sort_unstable();
    let micros = |nanos: u32| f64::from(nanos) / 1000.0;
    let at = |share: f64| micros(by_length[(by_length.len() as f64 * share) as usize].0);
    println!(
        "growth of a {} to {COUNT}, the least of {FILL_COUNT} fills for each insertion, in microseconds:",
        subject.name
    );
    println!(
        "  p50 {:.2}   p99 {:.2}   p99.9 {:.2}   p99.99 {:.2}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999)
    );
    let worst = by_length.iter().rev().take(WORST_SHOWN);
    let worst: Vec<String> =
        worst.map(|&(nanos, number)| format!("{:.1} at {number}", micros(nanos))).collect();
    println!("  longest: {}", worst.join(", "));
    by_length.last().map_or(0, |&(nanos, _)| nanos) <= BAR_NANOS
}

/// As in Criterion's benches, a word on the command line selects by name: `growth` all, `growth/hash` one.
fn is_selected(subject: &Subject) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    words.next().is_none_or(|word| format!("growth/{}", subject.name).contains(&word))
}

fn main() -> ExitCode {
    let mut is_held = true;
    for subject in SUBJECTS.iter().filter(|subject| is_selected(subject)) {
        is_held &= measure(subject);
    }
    if is_held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
