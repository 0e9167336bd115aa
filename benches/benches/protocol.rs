//! The request parser and the reply writer, a request or a reply at a time, as a pipeline brings them.
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shardis_core::protocol::number::{F64Text, parse_i64};
use shardis_core::protocol::{ArgRange, Limits, Parsed, Reply, RequestParser, Resp, split_array};

/// Requests in a pipeline and replies in a buffer.
const BATCH_LEN: usize = 64;

fn pipeline(request: impl Fn(usize) -> Vec<String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..BATCH_LEN {
        let args = request(i);
        bytes.extend(format!("*{}\r\n", args.len()).as_bytes());
        for arg in args {
            bytes.extend(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
        }
    }
    bytes
}

/// Reads all requests of `bytes`, their arguments into one vector; returns how many there are.
fn parse_all(bytes: &[u8], limits: &Limits, args: &mut Vec<ArgRange>) -> usize {
    let mut parser = RequestParser::default();
    let mut at = 0;
    let mut count = 0;
    args.clear();
    while at < bytes.len() {
        match parser.parse(&bytes[at..], limits, args) {
            Parsed::Request { consumed } => at += consumed,
            other => panic!("these requests are whole: {other:?}"),
        }
        count += 1;
    }
    count
}

fn bench_parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    let inline: Vec<u8> = b"PING\r\n".repeat(BATCH_LEN);
    let pipelines = [
        ("get", pipeline(|i| vec!["GET".into(), format!("key:{i:012}")])),
        ("set_64", pipeline(|i| vec!["SET".into(), format!("key:{i:012}"), "v".repeat(64)])),
        ("set_1024", pipeline(|i| vec!["SET".into(), format!("key:{i:012}"), "v".repeat(1024)])),
        ("mset_10", pipeline(|i| vec![format!("key:{i:012}"); 21])),
        ("inline_ping", inline),
    ];
    let limits = Limits::default();
    let mut args = Vec::new();
    for (name, bytes) in &pipelines {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| parse_all(black_box(bytes), black_box(&limits), &mut args));
        });
    }
    group.finish();

    // A request that a socket brings in pieces: the parser must not start over with each.
    let mset = {
        let mut bytes = b"*2001\r\n".to_vec();
        bytes.extend(b"$16\r\nkey:000000000000\r\n".repeat(2001));
        bytes
    };
    let mut group = criterion.benchmark_group("parse_pieces");
    group.throughput(Throughput::Bytes(mset.len() as u64));
    group.bench_function("mset_1000_by_1460", |bencher| {
        bencher.iter(|| {
            let mut parser = RequestParser::default();
            args.clear();
            for end in (1460..mset.len()).step_by(1460) {
                black_box(parser.parse(&mset[..end], &limits, &mut args));
            }
            parser.parse(black_box(&mset), &limits, &mut args)
        });
    });
    group.finish();
}

fn bench_reply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reply");
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    let mut out = Vec::with_capacity(1 << 20);
    let mut bench = |name: &str, write: &dyn Fn(&mut Reply<'_>)| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                write(&mut Reply::new(&mut out, black_box(Resp::V2)));
                out.len()
            })
        });
    };
    /// `$expr` once for each reply of the buffer.
    macro_rules! each {
        ($reply:ident => $expr:expr) => {
            &|$reply: &mut Reply<'_>| {
                for _ in 0..BATCH_LEN {
                    $expr;
                }
            }
        };
    }
    bench("ok", each!(r => r.ok()));
    bench("null", each!(r => r.null()));
    bench("integer_small", each!(r => r.integer(black_box(7))));
    bench("integer_big", each!(r => r.integer(black_box(1_234_567_890))));
    for len in [3, 8, 64, 99, 1024] {
        let value = vec![b'v'; len];
        bench(&format!("bulk_{len}"), each!(r => r.bulk(black_box(&value))));
    }
    bench("double", each!(r => r.double(black_box(0.1))));
    bench("error", each!(r => r.error(black_box("ERR syntax error"))));
    bench(
        "array_deferred_10",
        each!(r => {
            let mark = r.begin();
            for _ in 0..10 {
                r.bulk(black_box(b"key:000000000000"));
            }
            r.end_array(mark, black_box(10));
        }),
    );
    group.finish();
}

fn bench_others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("number");
    group.bench_function("parse_i64", |bencher| bencher.iter(|| parse_i64(black_box(b"1234567890"))));
    group.bench_function("f64_text_short", |bencher| bencher.iter(|| F64Text::new(black_box(3.25))));
    group.bench_function("f64_text_long", |bencher| bencher.iter(|| F64Text::new(black_box(0.1))));
    group.finish();

    let mut replies = Vec::new();
    Reply::new(&mut replies, Resp::V2).bulk_array(vec!["key:000000000000"; BATCH_LEN]);
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    group.bench_function("split_array", |bencher| {
        bencher.iter_batched(
            || &replies[..],
            |replies| split_array(black_box(replies)).expect("an array").map(<[u8]>::len).sum::<usize>(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, bench_parser, bench_reply, bench_others);
criterion_main!(benches);
