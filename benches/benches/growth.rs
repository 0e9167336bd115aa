//! The slowest insertion while a table grows to 10M keys.
//!
//! A single fill cannot tell: on a virtual machine any insertion may be the one at which the hypervisor gives the core to
//! somebody else, for milliseconds. But the same keys in the same order make the table split and double at the same
//! insertions, fill after fill. So what counts for an insertion is the least it has taken in several fills: what is left
//! is its own work. (Not the faults of memory that is touched for the first time, as later fills may get what the ones
//! before gave back. They are in `cargo measure growth`, with the noise.)
use std::process::ExitCode;
use std::time::Instant;

use shardis_core::types::{NewValue, SetExpire, Table, hash_key};

const KEY_COUNT: u64 = 10_000_000;
const FILL_COUNT: usize = 5;
const VALUE: [u8; 8] = [b'v'; 8];
const WORST_SHOWN: usize = 5;

/// No insertion may take longer because the table grows.
const BAR_NANOS: u32 = 1_000_000;

fn nanos_since(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

/// Fills a table, and lowers `least` to what each insertion took.
fn fill(least: &mut [u32]) {
    let mut table = Table::new();
    for (number, least) in least.iter_mut().enumerate() {
        let key = format!("key:{number:012}");
        let hash = hash_key(key.as_bytes());
        let start = Instant::now();
        table.set(hash, key.as_bytes(), NewValue::Str(&VALUE), SetExpire::Clear);
        *least = nanos_since(start).min(*least);
    }
    assert_eq!(table.len() as u64, KEY_COUNT);
}

/// As in Criterion's benches, a word on the command line selects by name.
fn is_selected() -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    words.next().is_none_or(|word| "growth".contains(&word))
}

fn main() -> ExitCode {
    if !is_selected() {
        return ExitCode::SUCCESS;
    }
    let mut least = vec![u32::MAX; KEY_COUNT as usize];
    (0..FILL_COUNT).for_each(|_| fill(&mut least));

    let mut by_length: Vec<(u32, usize)> =
        least.iter().enumerate().map(|(number, &nanos)| (nanos, number)).collect();
    by_length.sort_unstable();
    let micros = |nanos: u32| f64::from(nanos) / 1000.0;
    let at = |share: f64| micros(by_length[(by_length.len() as f64 * share) as usize].0);
    println!(
        "growth to {KEY_COUNT} keys, the least of {FILL_COUNT} fills for each insertion, in microseconds:"
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
        worst.map(|&(nanos, number)| format!("{:.1} at key {number}", micros(nanos))).collect();
    println!("  longest: {}", worst.join(", "));
    let longest = by_length.last().map_or(0, |&(nanos, _)| nanos);
    if longest <= BAR_NANOS { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
