//! The mesh between shards: what a message, an idle look and a wake-up cost, and what it takes to pack a batch of
//! commands. The figures between two threads need two cores.
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardis_core::command::Call;
use shardis_core::protocol::OwnedArgv;
use shardis_core::runtime::driver::{BellHandle, CloseReason, ConnId, Driver, Events, PeerAddr};
use shardis_core::runtime::epoll::EpollDriver;
use shardis_core::runtime::mesh::{MeshEnd, Parcel, build};
use shardis_core::shard::message::{Batch, ReplyId};
use std::os::fd::OwnedFd;

/// Messages a ring holds.
const CAPACITY: usize = 1024;

/// A message; it is made anew for each sending, which the server's are not.
type Letter = [u64; 4];
type End = MeshEnd<Letter, Letter>;

fn parcel(letter: Letter) -> Parcel<Letter, Letter> {
    Parcel::There(Box::new(letter))
}

fn letter(parcel: Parcel<Letter, Letter>) -> Letter {
    match parcel {
        Parcel::There(letter) | Parcel::Back(letter) | Parcel::Other(letter) => *letter,
    }
}

/// Commands in a batch.
const BATCH_LEN: usize = 64;

/// Round trips of one measurement that are too few to tell from starting a thread are not made.
const ROUNDS_MIN: u64 = 1000;

/// How long a sleeper waits for its bell, which is always rung before.
const PATIENCE: Duration = Duration::from_secs(10);

fn mesh(shard_count: usize) -> (Vec<End>, Vec<BellHandle>) {
    let bells: Vec<BellHandle> =
        (0..shard_count).map(|_| BellHandle::new().expect("there are descriptors left")).collect();
    (build(&bells, CAPACITY), bells)
}

fn bench_rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    for count in [1, 16, 256] {
        let (mut ends, _bells) = mesh(2);
        let (mut receiver, mut sender) = (ends.pop().expect("two ends"), ends.pop().expect("two ends"));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("send_and_drain_{count}"), |bencher| {
            bencher.iter(|| {
                (0..count).for_each(|n| sender.send(1, black_box(parcel([n as u64; 4]))));
                sender.flush();
                receiver.drain(CAPACITY, |_, parcel| assert_ne!(letter(black_box(parcel))[0], u64::MAX))
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    for shard_count in [2, 16] {
        let (mut ends, _bells) = mesh(shard_count);
        let end = &mut ends[0];
        group.bench_function(format!("idle_turn_of_{shard_count}"), |bencher| {
            bencher.iter(|| {
                end.flush();
                end.drain(CAPACITY, |_, parcel| assert_ne!(letter(black_box(parcel))[0], u64::MAX))
            });
        });
    }
    group.finish();
}

struct BellOnly;

impl Events for BellOnly {
    fn accepted(&mut self, _: usize, _: OwnedFd, _: PeerAddr) {}
    fn accept_failed(&mut self, _: usize, _: std::io::Error) {}
    fn received(&mut self, _: ConnId, _: &[u8]) {}
    fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
    fn sent(&mut self, _: ConnId, _: Vec<u8>) {}
    fn input_ended(&mut self, _: ConnId, _: CloseReason) {}
    fn send_failed(&mut self, _: ConnId, _: i32) {}
    fn bell(&mut self) {}
}

/// One side of a round trip: waits for the letter that says `awaited`.
fn await_letter(end: &mut End, driver: Option<&mut EpollDriver>, awaited: u64) {
    let mut heard = 0;
    let mut driver = driver;
    loop {
        end.drain(CAPACITY, |_, parcel| heard = letter(parcel)[0]);
        if heard == awaited {
            return;
        }
        match &mut driver {
            None => std::hint::spin_loop(),
            Some(driver) => {
                if end.prepare_sleep() {
                    driver.turn(Some(PATIENCE), &mut BellOnly).expect("the driver works");
                }
                end.woke();
            }
        }
    }
}

/// The time of `rounds` round trips between two threads that spin, or sleep, while they wait.
fn round_trips(rounds: u64, asleep: bool) -> Duration {
    let (mut ends, mut bells) = mesh(2);
    let driver = move |bell| asleep.then(|| EpollDriver::new(bell).expect("an epoll set"));
    let (mut pong, pong_bell) = (ends.pop().expect("two ends"), bells.pop().expect("two bells"));
    let (mut ping, ping_bell) = (ends.pop().expect("two ends"), bells.pop().expect("two bells"));
    let answering = thread::spawn(move || {
        let mut driver = driver(pong_bell);
        for round in 1..=rounds {
            await_letter(&mut pong, driver.as_mut(), round);
            pong.send(0, parcel([round; 4]));
            pong.flush();
        }
    });
    let mut driver = driver(ping_bell);
    let started = Instant::now();
    for round in 1..=rounds {
        ping.send(1, parcel([round; 4]));
        ping.flush();
        await_letter(&mut ping, driver.as_mut(), round);
    }
    let elapsed = started.elapsed();
    answering.join().expect("it answered every letter");
    elapsed
}

fn bench_round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh_round_trip");
    group.sample_size(10);
    for (name, asleep) in [("spinning", false), ("asleep", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let made = rounds.max(ROUNDS_MIN);
                round_trips(made, asleep).mul_f64(rounds as f64 / made as f64)
            });
        });
    }
    group.finish();
}

fn bench_batches(criterion: &mut Criterion) {
    let call = Call { client: 1, hash: 1, hashed_arg: 1, ..Call::default() };
    let reply_id = ReplyId { conn: 1, generation: 1, place: 1 };
    let value = "v".repeat(64);
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    for (name, words) in
        [("get", &["GET", "key:000000000000"][..]), ("set_64", &["SET", "key:000000000000", &value])]
    {
        let argv = OwnedArgv::from_slices(words);
        let mut batch = Batch::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH_LEN {
                    batch.push(black_box(reply_id), black_box(call), argv.as_argv());
                }
                let len: usize =
                    batch.commands.iter().map(|command| batch.args(&command.args).arg(1).len()).sum();
                batch.clear();
                len
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_rings, bench_round_trips, bench_batches);
criterion_main!(benches);
