//! A master and its replica, each with any number of shards, under random schedules: whatever the replica's clients read, one after the
//! other on any connections, are beginnings of the master's stream, each at least as long as the one before. The link is cut at
//! any byte and goes on where the replica is.
//!
//! The thread of the link is no part of the simulation, but what it makes of the stream's bytes is ([`Runs`]), and so is all that the
//! shards do with that.
//!
//! Mistakes that were made on purpose, and found: the next run begins while commands of the one before are under way; commands of several
//! shards are in one run, and are not joined to a transaction.

use crate::cluster::{Cluster, Random};
use crate::commands::{KEYS, random_command};
use crate::model::Model;
use crate::seeds;
use crate::stream::Reader;
use shardis_core::persist::aof::read::{AofError, AofItem, AofReader};
use shardis_core::worker::feed::{AtEnd, Chunk, Feed};
use shardis_core::worker::link::runs::Runs;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A server that follows a stream.
struct Replica {
    cluster: Cluster,
    link: Option<Link>,
}

/// What the link's thread has.
struct Link {
    chunks: Sender<Chunk>,
    done: Receiver<bool>,
    runs: Runs,
    /// The beginning of a unit.
    rest: Vec<u8>,
}

impl Replica {
    fn new(shard_count: usize, seed: u64) -> Replica {
        let mut cluster = Cluster::new(shard_count, seed);
        let globals = cluster.workers[0].globals;
        globals.link.begin_as_replica();
        globals.stream.backlog.begin();
        cluster.tick();
        Replica { cluster, link: None }
    }

    /// How many bytes of the stream are applied.
    fn applied(&self) -> usize {
        self.cluster.workers[0].globals.stream.backlog.end() as usize
    }

    fn connect(&mut self) {
        let globals = self.cluster.workers[0].globals;
        let (chunks, inbox) = channel();
        let (done, is_done) = channel();
        globals.feed.put(Feed { chunks: inbox, done, at_end: AtEnd::Nothing, is_stream: true });
        self.link = Some(Link { chunks, done: is_done, runs: Runs::new(globals), rest: Vec::new() });
    }

    /// The next bytes of the stream arrive. Those that are no whole unit wait for more.
    fn receive(&mut self, bytes: &[u8], seed: u64) {
        let link = self.link.as_mut().expect("it is connected");
        link.rest.extend_from_slice(bytes);
        let mut hand_over = |run| link.chunks.send(run).map_err(|_| ());
        let mut taken = 0;
        let mut source = link.rest.as_slice();
        let mut reader = AofReader::of_stream(&mut source, 0);
        loop {
            match reader.next_item() {
                Ok(Some(AofItem::Unit { bytes, commands })) => {
                    taken += bytes.len();
                    link.runs.add(bytes, commands, &mut hand_over).expect("the shard listens");
                }
                Ok(None) | Err(AofError::Truncated { .. }) => break,
                Ok(Some(AofItem::Annotation(_))) | Err(_) => panic!("seed {seed}: the stream is damaged"),
            }
        }
        link.runs.end(&mut hand_over).expect("the shard listens");
        link.rest.drain(..taken);
    }

    /// The link is cut: what has come as a whole is applied.
    fn cut(&mut self, seed: u64) {
        let Some(Link { chunks, done, .. }) = self.link.take() else { return };
        drop(chunks);
        let is_done = self.settle_until(|_| done.try_recv().ok());
        assert!(is_done, "seed {seed}: a command of the stream has closed the connection");
    }

    /// Takes a step, which may be that the shard takes a run, or sees that one is applied.
    fn step(&mut self, random: &mut Random) {
        if random.below(3) == 0 {
            self.cluster.run_feed();
        } else {
            self.cluster.step();
        }
    }

    fn settle_until<T>(&mut self, mut is_there: impl FnMut(&mut Cluster) -> Option<T>) -> T {
        for _ in 0..100_000 {
            self.cluster.run_feed();
            self.cluster.settle();
            if let Some(it) = is_there(&mut self.cluster) {
                return it;
            }
        }
        panic!("it does not come")
    }
}

/// What a client has seen: keys, and the reply to GET of each.
type Read = (Vec<&'static str>, Vec<String>);

/// A random read of one key or several, while the stream is being applied.
fn read(replica: &mut Replica, random: &mut Random, client: usize) -> Read {
    let count = if random.below(3) == 0 { 2 + random.below(3) } else { 1 };
    let keys: Vec<&str> = (0..count).map(|_| KEYS[random.below(KEYS.len())]).collect();
    let name = if count == 1 { "GET" } else { "MGET" };
    replica.cluster.request(client, &[&[name], keys.as_slice()].concat());
    let mut reply = Vec::new();
    for _ in 0..100_000 {
        replica.step(random);
        reply.extend(replica.cluster.received(client));
        if !reply.is_empty() {
            break;
        }
    }
    let reply = String::from_utf8(reply).expect("values here are text");
    let values = if count == 1 { reply.as_str() } else { reply.split_once("\r\n").expect("an array").1 };
    let mut lines = values.split_inclusive("\r\n");
    let values: Vec<String> = keys
        .iter()
        .map(|_| {
            let len = lines.next().unwrap_or_else(|| panic!("{keys:?}: {reply:?}"));
            if len == "$-1\r\n" { len.to_string() } else { len.to_string() + lines.next().expect("a value") }
        })
        .collect();
    (keys, values)
}

/// The replies to GET of all keys, before the stream and behind each of its units.
fn states(units: &[Vec<Vec<String>>]) -> Vec<[String; KEYS.len()]> {
    let mut model = Model::default();
    let state = |model: &mut Model| KEYS.map(|key| model.apply(0, &["GET".to_string(), key.to_string()]));
    let mut states = vec![state(&mut model)];
    for unit in units {
        unit.iter().for_each(|command| drop(model.apply(0, command)));
        states.push(state(&mut model));
    }
    states
}

/// Asserts that the reads, one after the other, are of beginnings of the stream that do not become shorter.
fn check(reads: &[Read], states: &[[String; KEYS.len()]], seed: u64) {
    let mut at = 0;
    for (n, (keys, values)) in reads.iter().enumerate() {
        let place_of = |key: &str| KEYS.iter().position(|it| *it == key).expect("it is one of them");
        let fits = |state: &[String; KEYS.len()]| {
            keys.iter().zip(values).all(|(key, value)| state[place_of(key)] == *value)
        };
        let Some(ahead) = states[at..].iter().position(fits) else {
            panic!(
                "seed {seed}: read {n} has {values:?} for {keys:?}, and no beginning with {at} units or more of {} has",
                states.len() - 1
            );
        };
        at += ahead;
    }
}

const UNITS: usize = 150;

/// Returns how many units there were, and how many reads.
fn run_seed(seed: u64) -> (usize, usize) {
    let mut random = Random::new(seed ^ 0x4E97);
    let mut master = Cluster::new(1 + random.below(4), seed);
    let mut reader = Reader::begin(&mut master, 0);
    master.settle();
    let shard_count = master.workers.len();
    let mut writers: Vec<usize> = (0..4).map(|_| master.connect(random.below(shard_count))).collect();
    let mut replica = Replica::new(1 + random.below(4), seed);
    let shard_count = replica.cluster.workers.len();
    let clients: Vec<usize> = (0..4).map(|_| replica.cluster.connect(random.below(shard_count))).collect();
    let (mut unique, mut received, mut reads) = (0, 0, Vec::new());
    for _ in 0..UNITS {
        write(&mut master, &mut random, &mut writers, &mut unique);
        for _ in 0..random.below(12) {
            master.step();
        }
        reader.receive(&mut master);
        if replica.link.is_none() {
            replica.connect();
            received = replica.applied();
        }
        let stream = reader.stream();
        if received < stream.len() {
            let len = 1 + random.below((stream.len() - received).min(400));
            replica.receive(&stream[received..received + len], seed);
            received += len;
        }
        (0..random.below(8)).for_each(|_| replica.step(&mut random));
        for _ in 0..random.below(3) {
            let client = clients[random.below(clients.len())];
            reads.push(read(&mut replica, &mut random, client));
        }
        if random.below(25) == 0 {
            replica.cut(seed);
        }
    }
    master.settle();
    reader.receive(&mut master);
    if replica.link.is_none() {
        replica.connect();
        received = replica.applied();
    }
    let stream = reader.stream().to_vec();
    replica.receive(&stream[received..], seed);
    replica.cut(seed);
    assert_eq!(replica.applied(), stream.len(), "seed {seed}");
    reads.extend((0..6).map(|_| read(&mut replica, &mut random, clients[0])));

    let units = reader.units();
    let states = states(&units);
    check(&reads, &states, seed);
    let last = states.last().expect("there is the one before the stream");
    let asking = master.connect(0);
    for (key, expected) in KEYS.iter().zip(last) {
        assert_eq!(replica.cluster.call(clients[0], &["GET", key]), *expected, "seed {seed}: {key}");
        assert_eq!(master.call(asking, &["GET", key]), *expected, "seed {seed}: {key}");
    }
    (units.len(), reads.len())
}

/// A client of the master writes: a command, an EXEC, or a program over keys of any shards.
fn write(master: &mut Cluster, random: &mut Random, writers: &mut [usize], unique: &mut u32) {
    let at = random.below(writers.len());
    if master.wait_of(writers[at]).is_some() {
        // It is blocked and may be served later. Another client takes its place.
        writers[at] = master.connect(random.below(master.workers.len()));
    }
    let count = if random.below(3) == 0 { 1 + random.below(5) } else { 1 };
    let commands: Vec<Vec<String>> = (0..count).map(|_| random_command(random, unique)).collect();
    let words = commands.iter().map(|command| command.iter().map(String::as_str).collect::<Vec<_>>());
    if random.below(4) == 0 {
        let program: Vec<&str> = words.flat_map(|words| std::iter::once("/").chain(words)).collect();
        master.request(writers[at], &[&["TWIDE", "0"], program.as_slice()].concat());
        return;
    }
    if count > 1 {
        master.request(writers[at], &["MULTI"]);
    }
    words.for_each(|words| master.request(writers[at], &words));
    if count > 1 {
        master.request(writers[at], &["EXEC"]);
    }
}

#[test]
fn what_a_replica_shows_are_beginnings_of_its_masters_stream() {
    let seeds = seeds(300);
    let (mut units, mut reads) = (0, 0);
    for &seed in &seeds {
        let (unit_count, read_count) = run_seed(seed);
        (units, reads) = (units + unit_count, reads + read_count);
    }
    assert!(units > 20 * seeds.len(), "hardly anything was written: {units} units");
    assert!(reads > 50 * seeds.len(), "hardly anything was read: {reads} reads");
}
