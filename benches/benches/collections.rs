//! Big collections: elements far beyond the caches, one at a time and as many together as a pipeline brings.
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardis_core::types::Object;
use shardis_core::types::dict::DictSet;
use shardis_core::types::fetch::{Fetches, Sought};
use shardis_core::types::hash::BigHash;
use shardis_core::types::zset::ZSet;

const COUNT: u64 = 1_000_000;
const VALUE: [u8; 16] = [b'v'; 16];

/// Elements used in turn. Drawn once: to draw one costs too much.
const PICKS_LEN: usize = 1 << 19;

/// As many requests as a connection has under way in the macro bench.
const BATCH_LEN: usize = 16;

struct Pick {
    member: [u8; 16],
    score: f64,
}

fn member(number: u64) -> [u8; 16] {
    let mut member = [0; 16];
    member.copy_from_slice(format!("mem:{number:012}").as_bytes());
    member
}

/// A score as the macro bench has them: of six digits.
fn score(random: &mut fastrand::Rng) -> f64 {
    random.u64(100_000..1_000_000) as f64
}

fn picks() -> Vec<Pick> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..PICKS_LEN).map(|_| Pick { member: member(random.u64(..COUNT)), score: score(&mut random) }).collect()
}

/// Runs `work` over the picks, batch by batch: without a fetch before, and with it.
fn bench(
    criterion: &mut Criterion,
    name: &str,
    object: &mut Object,
    sought: fn(&Pick) -> Sought,
    mut work: impl FnMut(&mut Object, &Pick) -> bool,
) {
    let picks = picks();
    let mut batches = picks.chunks_exact(BATCH_LEN).cycle();
    let mut group = criterion.benchmark_group("collections_1M");
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    for is_fetched in [false, true] {
        let name = if is_fetched { format!("{name}_fetched") } else { name.to_string() };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let batch = black_box(batches.next().expect("it goes round and round"));
                if is_fetched {
                    let mut fetches = Fetches::default();
                    batch.iter().for_each(|pick| fetches.push(object, &pick.member, sought(pick)));
                    fetches.finish();
                }
                batch.iter().filter(|pick| work(object, pick)).count()
            });
        });
    }
    group.finish();
}

fn bench_collections(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(2);
    let mut set = ZSet::new();
    for number in 0..COUNT {
        set.insert(&member(number), score(&mut random));
    }
    let mut set = Object::ZSet(set);
    bench(
        criterion,
        "zscore",
        &mut set,
        |_| Sought::Element,
        |object, pick| matches!(object, Object::ZSet(set) if set.score(&pick.member).is_some()),
    );
    bench(
        criterion,
        "zadd",
        &mut set,
        |pick| Sought::NewScore(pick.score),
        |object, pick| match object {
            Object::ZSet(set) => set.insert(&pick.member, pick.score),
            _ => false,
        },
    );

    let mut set = DictSet::new();
    for number in 0..COUNT {
        set.insert(&member(number));
    }
    bench(
        criterion,
        "sismember",
        &mut Object::Set(set),
        |_| Sought::Element,
        |object, pick| matches!(object, Object::Set(set) if set.contains(&pick.member)),
    );

    let mut hash = BigHash::default();
    for number in 0..COUNT {
        hash.set(&member(number), &VALUE);
    }
    bench(
        criterion,
        "hset",
        &mut Object::Hash(hash),
        |_| Sought::Element,
        |object, pick| match object {
            Object::Hash(hash) => hash.set(&pick.member, &VALUE),
            _ => false,
        },
    );
}

criterion_group!(benches, bench_collections);
criterion_main!(benches);
