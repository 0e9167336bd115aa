//! The server is killed at random moments while clients write, move, wait, read, save and rewrite. After a restart, with
//! another number of shards, what was acknowledged to anybody is there, and no transaction by half. That holds for every
//! `appendfsync`, for the machine goes on: what was written is there, whether it was synchronized or not.
//!
//! `SHARDIS_CRASH_ROUNDS=1000 cargo test --test server crash` kills more often.

use crate::aof::Dir;
use crate::harness::{Connection, SETUPS, Server};
use crate::random::Random;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROUNDS: u64 = 20;
/// Counters of one writer, pairs of counters, and lists that pass tokens on.
const COUNTERS: usize = 8;
const PAIRS: usize = 4;
const LISTS: usize = 4;
const TOKENS: usize = 24;

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Of each counter: the highest value that a client got as a reply, of a write or of a read.
    counters: Mutex<BTreeMap<String, i64>>,
}

impl Told {
    fn add(&self, key: &str, value: i64) {
        let mut counters = self.counters.lock().expect("no client panics here");
        let told = counters.entry(key.to_owned()).or_default();
        *told = value.max(*told);
    }
}

/// A client of one round.
struct Actor<'a> {
    port: u16,
    round: u64,
    random: Random,
    told: &'a Told,
    stops: &'a AtomicBool,
}

impl Actor<'_> {
    /// Acts until the server has gone.
    fn run(mut self, mut act: impl FnMut(&mut Self, &mut Connection)) {
        // That the server goes is a panic of the connection.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let mut client = Connection::to(self.port);
            while !self.stops.load(Ordering::Relaxed) {
                act(&mut self, &mut client);
            }
        }));
    }

    fn counter(&self, writer: usize, n: usize) -> String {
        format!("counter:{}:{writer}:{}", self.round, n % COUNTERS)
    }

    fn add_told(&self, keys: &[String], reply: &str) {
        let numbers = reply.lines().filter_map(|line| line.strip_prefix(':')?.trim_end().parse().ok());
        keys.iter().zip(numbers).for_each(|(key, number)| self.told.add(key, number));
    }

    /// Single commands, transactions and scripts over one or two shards.
    fn write(&mut self, writer: usize, client: &mut Connection) {
        let at = self.random.below(COUNTERS);
        let keys = [self.counter(writer, at), self.counter(writer, at + 1)];
        let reply = match self.random.below(4) {
            0 => client.call(&["INCR", &keys[0]]),
            1 => client.call(&["EVAL", "return redis.call('INCR', KEYS[1])", "1", &keys[0]]),
            2 => {
                let script = "return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}";
                client.call(&["EVAL", script, "2", &keys[0], &keys[1]])
            }
            _ => transaction(client, &[&["INCR", &keys[0]], &["INCR", &keys[1]]]),
        };
        self.add_told(&keys, &reply);
    }

    /// Two counters that are always equal.
    fn write_pair(&mut self, client: &mut Connection) {
        let keys = pair(self.random.below(PAIRS));
        if self.random.below(2) == 0 {
            transaction(client, &[&["INCR", &keys[0]], &["INCR", &keys[1]]]);
        } else {
            let script = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])";
            client.call(&["EVAL", script, "2", &keys[0], &keys[1]]);
        }
    }

    /// Moves tokens between lists, and waits for some.
    fn pass_token(&mut self, client: &mut Connection) {
        let (from, to) = (list(self.random.below(LISTS)), list(self.random.below(LISTS)));
        match self.random.below(3) {
            0 => client.call(&["LMOVE", &from, &to, "LEFT", "RIGHT"]),
            1 => client.call(&["BLMOVE", &from, &to, "RIGHT", "LEFT", "0.02"]),
            _ => client.call(&["RPOPLPUSH", &from, &to]),
        };
    }

    /// Reads what others write: what it is shown counts as told, too.
    fn read(&mut self, client: &mut Connection) {
        let at = self.random.below(COUNTERS);
        let keys: Vec<String> = (0..3).map(|writer| self.counter(writer, at)).collect();
        let reply = client.call(&["MGET", &keys[0], &keys[1], &keys[2]]);
        let mut lines = reply.lines().skip(1);
        for key in &keys {
            let len = lines.next().unwrap_or("$-1");
            if len != "$-1" {
                self.told.add(key, lines.next().expect("a value").parse().expect("a number"));
            }
        }
    }

    /// Has the file rewritten, and the data set saved.
    fn administrate(&mut self, client: &mut Connection) {
        match self.random.below(20) {
            0..4 => drop(client.call(&["BGREWRITEAOF"])),
            4 => drop(client.call(&["BGSAVE"])),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn pair(n: usize) -> [String; 2] {
    [format!("pair:a:{n}"), format!("pair:b:{n}")]
}

fn list(n: usize) -> String {
    format!("tokens:{n}")
}

/// The reply to EXEC.
fn transaction(client: &mut Connection, commands: &[&[&str]]) -> String {
    client.call(&["MULTI"]);
    commands.iter().for_each(|command| drop(client.call(command)));
    client.call(&["EXEC"])
}

/// The number that a key has.
fn number(client: &mut Connection, key: &str) -> i64 {
    let reply = client.call(&["GET", key]);
    reply.lines().nth(1).map_or(0, |text| text.parse().expect("a number"))
}

/// Whether all is there that was told, and nothing by half.
fn check(client: &mut Connection, told: &Told, what: &str) {
    for (key, &at_least) in told.counters.lock().expect("no client panics here").iter() {
        let stored = number(client, key);
        // One more may have been under way.
        assert!((at_least..=at_least + 1).contains(&stored), "{what}: {key} is {stored} of {at_least}");
    }
    for n in 0..PAIRS {
        let [first, second] = pair(n).map(|key| number(client, &key));
        assert_eq!(first, second, "{what}: half a transaction");
    }
    let mut tokens: Vec<usize> = Vec::new();
    for n in 0..LISTS {
        let reply = client.call(&["LRANGE", &list(n), "0", "-1"]);
        tokens.extend(reply.lines().filter_map(|line| line.strip_prefix("token:")?.parse::<usize>().ok()));
    }
    tokens.sort_unstable();
    assert_eq!(tokens, (0..TOKENS).collect::<Vec<_>>(), "{what}: a token is lost or there twice");
}

/// Lets clients act for a while, and kills the server.
fn round(server: &mut Server, round: u64, random: &mut Random) -> Told {
    let (told, stops) = (Told::default(), AtomicBool::new(false));
    let seeds: Vec<u64> = (0..9).map(|_| random.below(usize::MAX / 2) as u64).collect();
    std::thread::scope(|scope| {
        let actor = |n: usize| Actor {
            port: server.port,
            round,
            random: Random::new(seeds[n]),
            told: &told,
            stops: &stops,
        };
        for writer in 0..3 {
            let actor = actor(writer);
            scope.spawn(move || actor.run(|actor, client| actor.write(writer, client)));
        }
        let (pairs, reader, admin) = (actor(3), actor(4), actor(5));
        scope.spawn(move || pairs.run(Actor::write_pair));
        scope.spawn(move || reader.run(Actor::read));
        scope.spawn(move || admin.run(Actor::administrate));
        for n in 6..9 {
            let mover = actor(n);
            scope.spawn(move || mover.run(Actor::pass_token));
        }
        std::thread::sleep(Duration::from_millis(50 + random.below(300) as u64));
        server.signal(libc::SIGKILL);
        stops.store(true, Ordering::Relaxed);
    });
    assert_eq!(server.wait(), None);
    told
}

#[test]
fn nothing_that_was_told_is_lost_when_the_server_is_killed() {
    let rounds = std::env::var("SHARDIS_CRASH_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("SHARDIS_CRASH_ROUNDS is a number"));
    let seed = crate::random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let dir = Dir::new("kill");
    let mut told = Told::default();
    let mut told_count = 0;
    let mut before = "";
    for number in 0..=rounds {
        let setup = SETUPS[random.below(SETUPS.len())];
        let preamble = ["yes", "no"][random.below(2)];
        let fsync = ["always", "everysec", "no"][random.below(3)];
        let mut server =
            dir.start(setup, &["--appendfsync", fsync, "--aof-use-rdb-preamble", preamble, "--save", ""]);
        let mut client = server.connect();
        if number == 0 {
            for token in 0..TOKENS {
                client.call(&["RPUSH", &list(token % LISTS), &format!("token:{token}")]);
            }
        }
        check(&mut client, &told, &format!("seed {seed}, round {number}, {setup:?}, {before}"));
        before = fsync;
        if number < rounds {
            told = round(&mut server, number, &mut random);
            told_count += told.counters.lock().expect("no client panics here").len() as u64;
        }
    }
    assert!(told_count > rounds, "seed {seed}: hardly anything was acknowledged: {told_count} counters");
}

/// Who sees the end of its connection may rely on that all is on disk.
#[test]
fn a_shutdown_writes_the_file_before_it_closes_connections() {
    for setup in SETUPS {
        let dir = Dir::new("last-sync");
        let mut server = dir.start(setup, &["--save", ""]);
        let (mut client, mut other) = (server.connect(), server.connect());
        assert_eq!(client.call(&["DEBUG", "AOF-FLUSH-SLEEP", "200000"]), "+OK\r\n");
        let keys = ["a-key", "b-key", "c-key"];
        assert_eq!(client.call(&["MSET", keys[0], "1", keys[1], "2", keys[2], "3"]), "+OK\r\n");
        other.send(b"SHUTDOWN NOSAVE\r\n");
        assert!(client.rest().is_empty());
        let file = dir.read("appendonlydir/appendonly.aof.1.incr.aof");
        assert!(keys.iter().all(|key| file.contains(key)), "{setup:?}: {file}");
        assert_eq!(server.wait(), Some(0));
    }
}
