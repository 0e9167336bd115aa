//! Programs as people write them, over a server of four shards: a job queue whose workers crash, a leaderboard, and a stream
//! with consumer groups, by a client library, from many threads.

use crate::harness::{Server, Setup};
use redis::{Connection, Value, cmd};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const FOUR_SHARDS: Setup = Setup { shards: 4, io_backend: "auto" };

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).expect("an address");
    client.get_connection().expect("a connection")
}

const QUEUES: usize = 5;
const JOBS: usize = 1_000;

/// Waits for a job of a queue and moves it to the worker's own list.
fn take_job(connection: &mut Connection, queue: usize, worker: &str) -> Option<String> {
    let mut blmove = cmd("BLMOVE");
    blmove.arg(format!("jobs:{queue}")).arg(format!("working:{worker}")).arg("RIGHT").arg("LEFT").arg(0.05);
    blmove.query(connection).expect("BLMOVE")
}

/// Removes a job from the worker's list and notes that it is done, at one moment.
fn finish_job(connection: &mut Connection, worker: &str, job: &str) {
    let (removed, _): (i64, i64) = redis::pipe()
        .atomic()
        .cmd("LREM")
        .arg(format!("working:{worker}"))
        .arg(1)
        .arg(job)
        .cmd("HINCRBY")
        .arg("done")
        .arg(job)
        .arg(1)
        .query(connection)
        .expect("EXEC");
    assert_eq!(removed, 1, "{job} was on the list of {worker}");
}

#[test]
fn jobs_of_crashed_workers_are_done_once_by_others() {
    let server = Server::start(FOUR_SHARDS);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for producer in 0..2 {
            let mut connection = connect(&server);
            scope.spawn(move || {
                for n in (producer..JOBS).step_by(2) {
                    let mut push = cmd("LPUSH");
                    push.arg(format!("jobs:{}", n % QUEUES)).arg(format!("job:{n}"));
                    let _: i64 = push.query(&mut connection).expect("LPUSH");
                }
            });
        }
        for worker in 0..2 * QUEUES {
            let (done, server) = (&done, &server);
            scope.spawn(move || {
                let mut taken = 0;
                let mut life = 0;
                let mut name = format!("{worker}.{life}");
                let mut connection = connect(server);
                while done.load(Ordering::Relaxed) < JOBS {
                    let Some(job) = take_job(&mut connection, worker % QUEUES, &name) else { continue };
                    taken += 1;
                    if taken % 20 != 0 {
                        finish_job(&mut connection, &name, &job);
                        done.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    // It crashes with the job in its hands. Who watches over the workers gives the job back.
                    connection = connect(server);
                    let mut give_back = cmd("LMOVE");
                    give_back.arg(format!("working:{name}")).arg(format!("jobs:{}", worker % QUEUES));
                    let back: Option<String> =
                        give_back.arg("LEFT").arg("RIGHT").query(&mut connection).expect("LMOVE");
                    assert_eq!(back, Some(job));
                    life += 1;
                    name = format!("{worker}.{life}");
                }
            });
        }
    });

    let mut connection = connect(&server);
    let counts: BTreeMap<String, i64> = cmd("HGETALL").arg("done").query(&mut connection).expect("HGETALL");
    assert_eq!(counts.len(), JOBS);
    assert!(counts.values().all(|&count| count == 1), "each job is done once");
    let left: Vec<String> = cmd("KEYS").arg("*").query(&mut connection).expect("KEYS");
    assert_eq!(left, ["done"], "no job is left on any list");
}

#[test]
fn a_leaderboard_adds_up_over_days_and_threads() {
    const PLAYERS: usize = 200;
    const DAYS: usize = 7;
    const THREADS: usize = 4;
    let server = Server::start(FOUR_SHARDS);
    thread::scope(|scope| {
        for at in 0..THREADS {
            let mut connection = connect(&server);
            scope.spawn(move || {
                for day in 0..DAYS {
                    let mut pipe = redis::pipe();
                    for player in 0..PLAYERS {
                        let points = (player * 7 + day * 3 + at) % 50;
                        let member = format!("player:{player}");
                        pipe.cmd("ZINCRBY").arg(format!("day:{day}")).arg(points).arg(member).ignore();
                    }
                    let _: () = pipe.query(&mut connection).expect("a pipeline");
                }
            });
        }
    });

    let points = |player: usize| -> usize {
        let each = (0..DAYS).flat_map(|day| (0..THREADS).map(move |at| (player * 7 + day * 3 + at) % 50));
        each.sum()
    };
    let mut expected: Vec<(String, usize)> =
        (0..PLAYERS).map(|player| (format!("player:{player}"), points(player))).collect();
    expected.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));

    let mut connection = connect(&server);
    let mut union = cmd("ZUNIONSTORE");
    union.arg("week").arg(DAYS);
    (0..DAYS).for_each(|day| {
        union.arg(format!("day:{day}"));
    });
    assert_eq!(union.query::<usize>(&mut connection), Ok(PLAYERS));
    let mut range = cmd("ZRANGE");
    range.arg("week").arg(0).arg(-1).arg("REV").arg("WITHSCORES");
    let board: Vec<(String, usize)> = range.query(&mut connection).expect("ZRANGE");
    assert_eq!(board, expected);
    for (rank, (player, _)) in expected.iter().enumerate().step_by(17) {
        let mut revrank = cmd("ZREVRANK");
        assert_eq!(revrank.arg("week").arg(player).query::<usize>(&mut connection), Ok(rank), "{player}");
    }
    let mut best = cmd("ZMPOP");
    best.arg(2).arg("none").arg("week").arg("MAX").arg("COUNT").arg(3);
    let (key, popped): (String, Vec<(String, usize)>) = best.query(&mut connection).expect("ZMPOP");
    assert_eq!((key.as_str(), popped.as_slice()), ("week", &expected[..3]));
}

/// The IDs and the numbers of entries, as XREADGROUP and XAUTOCLAIM reply with them.
type Entries = Vec<(String, (String, usize))>;

const STREAMS: usize = 3;
const ENTRIES: usize = 600;

/// Acknowledges entries, and notes the number of each that was not acknowledged by another consumer before.
fn process(connection: &mut Connection, stream: &str, entries: &Entries) {
    for (id, (_, number)) in entries {
        let acknowledged: i64 =
            cmd("XACK").arg(stream).arg("workers").arg(id).query(connection).expect("XACK");
        if acknowledged == 1 {
            let mut note = cmd("HINCRBY");
            let _: i64 = note
                .arg("processed")
                .arg(format!("{stream}:{number}"))
                .arg(1)
                .query(connection)
                .expect("HINCRBY");
        }
    }
}

fn read(connection: &mut Connection, stream: &str, consumer: &str) -> Entries {
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg("workers").arg(consumer).arg("COUNT").arg(7).arg("BLOCK").arg(50);
    read.arg("STREAMS").arg(stream).arg(">");
    let streams: Option<Vec<(String, Entries)>> = read.query(connection).expect("XREADGROUP");
    streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect()
}

/// Takes over what others have had in their hands for too long.
fn claim(connection: &mut Connection, stream: &str, consumer: &str) -> Entries {
    let mut claim = cmd("XAUTOCLAIM");
    claim.arg(stream).arg("workers").arg(consumer).arg(100).arg("0").arg("COUNT").arg(20);
    let (_, entries, deleted): (String, Entries, Vec<String>) = claim.query(connection).expect("XAUTOCLAIM");
    assert_eq!(deleted, [""; 0]);
    entries
}

#[test]
fn entries_of_crashed_consumers_are_claimed_and_each_is_processed_once() {
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    for stream in 0..STREAMS {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(format!("stream:{stream}")).arg("workers").arg("$").arg("MKSTREAM");
        let _: () = create.query(&mut connection).expect("XGROUP CREATE");
    }
    let is_done = |connection: &mut Connection| {
        let processed: usize = cmd("HLEN").arg("processed").query(connection).expect("HLEN");
        processed == STREAMS * ENTRIES
    };
    thread::scope(|scope| {
        for stream in 0..STREAMS {
            let server = &server;
            let stream = format!("stream:{stream}");
            let (steady, fragile) = (stream.clone(), stream.clone());
            scope.spawn(move || {
                let mut connection = connect(server);
                for number in 0..ENTRIES {
                    let mut add = cmd("XADD");
                    add.arg(&stream).arg("*").arg("number").arg(number);
                    let _: String = add.query(&mut connection).expect("XADD");
                }
            });
            scope.spawn(move || {
                let mut connection = connect(server);
                while !is_done(&mut connection) {
                    let entries = read(&mut connection, &steady, "steady");
                    process(&mut connection, &steady, &entries);
                    let entries = claim(&mut connection, &steady, "steady");
                    process(&mut connection, &steady, &entries);
                }
            });
            scope.spawn(move || {
                let mut life = 0;
                let mut connection = connect(server);
                while !is_done(&mut connection) {
                    let entries = read(&mut connection, &fragile, &format!("fragile:{life}"));
                    if life % 3 == 0 {
                        process(&mut connection, &fragile, &entries);
                    } else {
                        // It crashes with the entries in its hands.
                        connection = connect(server);
                    }
                    life += 1;
                }
            });
        }
    });

    let counts: BTreeMap<String, i64> =
        cmd("HGETALL").arg("processed").query(&mut connection).expect("HGETALL");
    assert_eq!(counts.len(), STREAMS * ENTRIES);
    assert!(counts.values().all(|&count| count == 1), "each entry is processed once");
    for stream in 0..STREAMS {
        let mut pending = cmd("XPENDING");
        let (count, ..): (i64, Value, Value, Value) =
            pending.arg(format!("stream:{stream}")).arg("workers").query(&mut connection).expect("XPENDING");
        assert_eq!(count, 0);
    }
}
