//! Bytes a key: growth of resident memory while a fresh server takes a million keys of 16 bytes, or a collection of a
//! million elements, or a million small hashes.
//!
//! Resident memory is what the operator pays; what the server itself reports is shown beside it. Every variant starts a
//! fresh server, so nothing is reused from the one before. Values are text that cannot be stored as a number; integers,
//! which Redis shares or packs into the pointer, are a variant of their own.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::{CommonArgs, Contender, Setup, load_keys};
use crate::error::{BenchError, Result};
use crate::load::workload::{Collection, Stored};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;

#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Numbers of keys, or of elements; the bars hold for 1000000
    #[arg(long, value_delimiter = ',', default_value = "1000000")]
    pub keys: Vec<u64>,
    /// Only the variants whose names contain this
    #[arg(long, default_value = "")]
    pub only: String,
}

struct Variant {
    name: &'static str,
    stored: Stored,
    /// Bytes a key at a million keys, at most.
    bar: Option<f64>,
}

const VARIANTS: [Variant; 10] = [
    Variant { name: "8 B", stored: Stored::Text { len_bytes: 8 }, bar: Some(52.0) },
    Variant { name: "64 B", stored: Stored::Text { len_bytes: 64 }, bar: Some(105.0) },
    Variant { name: "64 B and a TTL", stored: Stored::TextWithTtl { len_bytes: 64 }, bar: Some(115.0) },
    Variant { name: "8-digit integer", stored: Stored::Integer { digits: 8 }, bar: None },
    Variant { name: "hash of 5 fields", stored: Stored::SmallHash, bar: Some(150.0) },
    Variant { name: "field of a hash", stored: Stored::Element(Collection::Hash), bar: Some(48.0) },
    Variant { name: "item of a list", stored: Stored::Element(Collection::List), bar: Some(17.8) },
    Variant { name: "member of a set", stored: Stored::Element(Collection::Set), bar: Some(38.0) },
    Variant {
        name: "member of a sorted set",
        stored: Stored::Element(Collection::SortedSet),
        bar: Some(54.0),
    },
    Variant { name: "entry of a stream", stored: Stored::Element(Collection::Stream), bar: Some(21.9) },
];
const BAR_KEYS: u64 = 1_000_000;

/// Enough to use all buffers that requests are received in.
const FIRST_LOAD_KEYS: u64 = 20_000;

struct Growth {
    rss_bytes_per_key: f64,
    used_memory_bytes_per_key: Option<f64>,
}

pub fn run(args: &MemoryArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "memory", "Memory of a key")?;
    let mut table =
        Table::new(["value", "keys or elements", "server", "RSS B/key", "used_memory B/key", "bar", ""]);
    for &keys in &args.keys {
        for variant in VARIANTS.iter().filter(|variant| variant.name.contains(&args.only)) {
            for contender in setup.contenders.clone() {
                let growth = measure(&mut setup, &contender, variant.stored, keys)?;
                let rss = growth.rss_bytes_per_key;
                let bar = variant.bar.filter(|_| contender.is_ours() && keys == BAR_KEYS);
                let verdict = bar.map(|bar| Verdict::at_most(rss, bar));
                if let Some(verdict) = verdict {
                    setup.report.verdict(variant.name, verdict);
                }
                println!(
                    "{} keys, {}, {}: {} B/key",
                    grouped(keys as f64),
                    variant.name,
                    contender.program.name,
                    figure(rss)
                );
                table.row([
                    variant.name.to_string(),
                    grouped(keys as f64),
                    contender.program.name.clone(),
                    figure(rss),
                    growth.used_memory_bytes_per_key.map(figure).unwrap_or_default(),
                    bar.map(|bar| format!("<= {bar}")).unwrap_or_default(),
                    verdict.map_or("", Verdict::text).to_string(),
                ]);
            }
        }
    }
    setup.report.table("Growth of memory over keys of 16 B, or elements of a collection", &table);
    setup.report.finish(&args.common.results)
}

fn measure(setup: &mut Setup, contender: &Contender, stored: Stored, keys: u64) -> Result<Growth> {
    let cores = setup.server_cores.clone();
    let server = setup.start(contender, 1, &cores)?;
    // A first small load of the same kind and its removal bring the connections' buffers, the program's code and the
    // allocator's arenas into the baseline.
    load_keys(&server, stored, FIRST_LOAD_KEYS, &setup.generator)?;
    server.ask(&["FLUSHALL"])?;
    server.ask(&["MEMORY", "PURGE"])?;
    let rss_before = settled_rss_bytes(&server)?;
    let used_before = server.used_memory_bytes()?;

    load_keys(&server, stored, keys, &setup.generator)?;
    let count = server.ask(&["DBSIZE"])?;
    let is_collection = matches!(stored, Stored::Element(_));
    if count != if is_collection { 1 } else { keys }.to_string() {
        let text = format!("{}: {count} keys are there after loading {keys}", contender.program.name);
        return Err(BenchError::new(text));
    }
    let rss_after = settled_rss_bytes(&server)?;
    let used_after = server.used_memory_bytes()?;

    let per_key = |before: u64, after: u64| after.saturating_sub(before) as f64 / keys as f64;
    Ok(Growth {
        rss_bytes_per_key: per_key(rss_before, rss_after),
        used_memory_bytes_per_key: used_before.zip(used_after).map(|(before, after)| per_key(before, after)),
    })
}

/// Resident memory once it stands still: tables may still be growing, and allocators give back with a delay.
fn settled_rss_bytes(server: &Server) -> Result<u64> {
    const STILL: Duration = Duration::from_millis(1500);
    const PATIENCE: Duration = Duration::from_secs(20);
    const STEP: Duration = Duration::from_millis(100);
    /// Changes below this are buffers that come and go.
    const SMALL_BYTES: u64 = 128 * 1024;

    let started_at = Instant::now();
    let mut settled = server.rss_bytes()?;
    let mut still_since = started_at;
    while still_since.elapsed() < STILL && started_at.elapsed() < PATIENCE {
        thread::sleep(STEP);
        let now = server.rss_bytes()?;
        if now.abs_diff(settled) > SMALL_BYTES {
            settled = now;
            still_since = Instant::now();
        }
    }
    Ok(settled)
}
