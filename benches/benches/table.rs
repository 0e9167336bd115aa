//! The table: keys in the caches and far beyond them, one look-up at a time and as many as a pipeline brings.
use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use shardis_core::types::{NewValue, Prefetches, SetExpire, Table, hash_key};

/// Keys that fit the caches, and keys that do not.
const SIZES: [(&str, u64); 2] = [("10k", 10_000), ("1M", 1_000_000)];

/// Keys looked up in turn. Drawn once: to draw one costs as much as to look it up.
const PICKS_LEN: usize = 1 << 19;

/// Look-ups whose cache misses overlap, as those of a pipeline's requests do.
const BATCH_LEN: usize = 32;

const KEY_LEN: usize = 16;
const VALUE: [u8; 64] = [b'v'; 64];

#[derive(Clone, Copy)]
struct Pick {
    hash: u64,
    key: [u8; KEY_LEN],
}

impl Pick {
    fn new(n: u64) -> Pick {
        let mut key = [0; KEY_LEN];
        key.copy_from_slice(format!("key:{n:012}").as_bytes());
        Pick { hash: hash_key(&key), key }
    }
}

/// `PICKS_LEN` of the keys `from .. from + count`, in no order.
fn picks(from: u64, count: u64) -> Vec<Pick> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..PICKS_LEN).map(|_| Pick::new(from + random.u64(..count))).collect()
}

fn filled(count: u64, expire: SetExpire) -> Table {
    let mut table = Table::default();
    for n in 0..count {
        let Pick { hash, key } = Pick::new(n);
        table.set(hash, &key, NewValue::Str(&VALUE), expire);
    }
    table
}

/// Runs `work` over the picks, batch by batch, round and round.
fn bench_batches(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    picks: &[Pick],
    mut work: impl FnMut(&[Pick]) -> usize,
) {
    let mut batches = picks.chunks_exact(BATCH_LEN).cycle();
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| work(black_box(batches.next().expect("it goes round and round"))));
    });
}

fn bench_point_access(criterion: &mut Criterion) {
    for (size, count) in SIZES {
        let mut table = filled(count, SetExpire::Clear);
        let present = picks(0, count);
        let absent = picks(count, count);
        let mut group = criterion.benchmark_group(format!("table_{size}"));

        let get = |table: &Table, picks: &[Pick]| {
            picks.iter().filter(|pick| table.get(pick.hash, &pick.key).is_some()).count()
        };
        bench_batches(&mut group, "get", &present, |batch| get(&table, batch));
        bench_batches(&mut group, "get_prefetched", &present, |batch| {
            let mut prefetches = Prefetches::default();
            batch.iter().for_each(|pick| prefetches.begin(&table, pick.hash));
            prefetches.finish();
            get(&table, batch)
        });
        bench_batches(&mut group, "get_absent", &absent, |batch| get(&table, batch));
        bench_batches(&mut group, "set_same_length", &present, |batch| {
            let mut set =
                |pick: &&Pick| table.set(pick.hash, &pick.key, NewValue::Str(&VALUE), SetExpire::Clear);
            batch.iter().filter(|pick| set(pick)).count()
        });
        bench_batches(&mut group, "take_and_put", &present, |batch| {
            for pick in batch {
                let (entry, _) = table.take(pick.hash, &pick.key).expect("it is there");
                table.put(pick.hash, entry);
            }
            table.len()
        });
        bench_batches(&mut group, "insert_and_remove", &absent, |batch| {
            for pick in batch {
                table.set(pick.hash, &pick.key, NewValue::Str(&VALUE), SetExpire::Clear);
            }
            batch.iter().filter(|pick| table.remove(pick.hash, &pick.key)).count()
        });
        let mut cursor = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function("scan_step", |bencher| {
            bencher.iter(|| {
                let mut seen = 0;
                cursor = table.scan(cursor, &mut |entry| seen += entry.key().len());
                seen
            });
        });
        group.finish();
    }
}

fn bench_growth(criterion: &mut Criterion) {
    const COUNT: u64 = 100_000;
    let keys: Vec<Pick> = (0..COUNT).map(Pick::new).collect();
    let mut group = criterion.benchmark_group("table_whole");
    group.sample_size(20).throughput(Throughput::Elements(COUNT));
    group.bench_function("fill_100k", |bencher| {
        bencher.iter_batched(
            Table::default,
            |mut table| {
                for pick in &keys {
                    table.set(pick.hash, &pick.key, NewValue::Str(&VALUE), SetExpire::Clear);
                }
                table
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("empty_100k", |bencher| {
        bencher.iter_batched(
            || filled(COUNT, SetExpire::Clear),
            |mut table| {
                keys.iter().for_each(|pick| assert!(table.remove(pick.hash, &pick.key)));
                table
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("expire_100k", |bencher| {
        bencher.iter_batched(
            || filled(COUNT, SetExpire::At(1000)),
            |mut table| {
                while table.expire_due(2000, 64, &mut |_| true).more {}
                assert!(table.is_empty());
                table
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench_point_access, bench_growth);
criterion_main!(benches);
