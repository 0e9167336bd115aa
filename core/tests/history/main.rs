//! Histories of the real server, four shards on either backend, checked for strict serializability.
//!
//! Clients call random commands, alone, in scripts and in transactions with and without WATCH, over few keys in two databases.
//! Every call and every reply is recorded with its moment on one monotonic clock; then [`linear`] looks for one order of
//! all of it that a sequential server could have had. Between rounds nobody calls anything and the whole keyspace is
//! read, so each round begins with a known state.
//!
//! `SHARDIS_HISTORY_ROUNDS=2000 cargo test --test history` checks longer histories. In the first half of the rounds the
//! clients call what they always call, in the second half what a fresh seed says; it is printed, and
//! `SHARDIS_HISTORY_SEED` gives it again. The schedule is the machine's, so a seed repeats the calls and not the history.
//!
//! That the check can fail was seen, each time within twenty rounds:
//! - commands of one shard do not look at its lock table (`Worker::must_park` always answers false): the first round;
//! - an EXEC takes no notice of what it finds about its watched keys, on one shard or along the chain: the first round;
//! - the chain does not lock the keys that are watched (`Worker::lock_participant`): nothing holds between the look at them and
//!   the moment of the transaction. It takes some ten rounds.

mod bank;
mod model;
mod soak;

#[allow(dead_code, reason = "the tests of the server use more of it")]
#[path = "../server/harness.rs"]
mod harness;
mod linear;
#[path = "../common/random.rs"]
mod random;

use harness::{Connection, Server, Setup, encode};
use linear::{Operation, linearize};
use model::{CLIENT_COUNT, Command, DB_COUNT, KEYS, Key, State};
use random::{Random, fresh_seed};
use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

const SETUPS: [Setup; 2] =
    [Setup { shards: 4, io_backend: "uring" }, Setup { shards: 4, io_backend: "epoll" }];

/// Of each backend, unless the environment says otherwise.
const ROUNDS: usize = 60;

/// What each client does in a round. A transaction counts as one.
const ACTS: usize = 60;

/// Operations shown on either side of where the search for an order ended.
const SHOWN: usize = 4;

struct Recorded {
    client: usize,
    db: usize,
    command: Command,
    reply: String,
    /// Nanoseconds since the clock's origin.
    called_at: u64,
    replied_at: u64,
}

impl Operation<State> for Recorded {
    fn called_at(&self) -> u64 {
        self.called_at
    }

    fn replied_at(&self) -> Option<u64> {
        Some(self.replied_at)
    }

    fn outcomes(&self, state: &State) -> Vec<State> {
        let mut next = state.clone();
        if next.apply(self.client, self.db, &self.command) == self.reply { vec![next] } else { Vec::new() }
    }
}

/// A client with its connection. Each has a database of its own choice and stays there.
struct Client {
    index: usize,
    db: usize,
    connection: Connection,
    random: Random,
    origin: Instant,
    /// Makes values that nobody else sets; far apart, because they are counted up.
    last_value: i64,
    history: Vec<Recorded>,
}

impl Client {
    fn new(server: &Server, index: usize, origin: Instant) -> Client {
        let mut connection = server.connect();
        let db = index % DB_COUNT;
        assert_eq!(connection.call(&["SELECT", &db.to_string()]), "+OK\r\n");
        let random = Random::new(index as u64);
        Client { index, db, connection, random, origin, last_value: index as i64, history: Vec::new() }
    }

    /// Calls a command and records it.
    fn call(&mut self, command: Command) -> &str {
        let requests = command.requests(self.db);
        let mut bytes = Vec::new();
        for words in &requests {
            let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            bytes.extend(encode(&args));
        }
        let called_at = self.origin.elapsed().as_nanos() as u64;
        self.connection.send(&bytes);
        for n in 1..requests.len() {
            let expected: &[u8] = if n == 1 { b"+OK\r\n" } else { b"+QUEUED\r\n" };
            assert_eq!(self.connection.reply(), expected, "{}", command.text(self.db));
        }
        let reply = String::from_utf8(self.connection.reply()).expect("replies here are text");
        let replied_at = self.origin.elapsed().as_nanos() as u64;
        let (client, db) = (self.index, self.db);
        self.history.push(Recorded { client, db, command, reply, called_at, replied_at });
        &self.history.last().expect("it was pushed just now").reply
    }

    fn value(&mut self) -> i64 {
        self.last_value += (1000 * CLIENT_COUNT) as i64;
        self.last_value
    }

    /// Some keys, each once.
    fn keys(&mut self, count_max: usize) -> Vec<Key> {
        let count = 1 + self.random.below(count_max);
        let drawn: BTreeSet<Key> = (0..count).map(|_| self.random.below(KEYS.len())).collect();
        drawn.into_iter().collect()
    }

    fn two_keys(&mut self) -> (Key, Key) {
        let first = self.random.below(KEYS.len());
        (first, (first + 1 + self.random.below(KEYS.len() - 1)) % KEYS.len())
    }

    fn pairs(&mut self) -> Vec<(Key, i64)> {
        self.keys(4).into_iter().map(|key| (key, self.value())).collect()
    }

    /// Any command but those about transactions.
    fn command(&mut self) -> Command {
        let key = self.random.below(KEYS.len());
        match self.random.below(40) {
            0..=5 => Command::Get(key),
            6..=9 => Command::Set(key, self.value()),
            10..=12 => Command::SetGet(key, self.value()),
            13..=16 => Command::Incr(key),
            17..=22 => Command::Mget(self.keys(KEYS.len())),
            23..=26 => Command::Mset(self.pairs()),
            27 => Command::Msetnx(self.pairs()),
            28..=29 => Command::Del(self.keys(3)),
            30..=32 => {
                let (from, to) = self.two_keys();
                Command::Rename(from, to)
            }
            33..=35 => {
                let (from, to) = self.two_keys();
                Command::Copy(from, to, self.random.below(DB_COUNT))
            }
            36 => Command::Move(key),
            37 => Command::Dbsize,
            38 => Command::Swapdb,
            _ => match self.random.below(6) {
                0 => Command::Flushall,
                _ => Command::Mget((0..KEYS.len()).collect()),
            },
        }
    }

    /// A script.
    fn script(&mut self) -> Command {
        if self.random.below(3) == 0 {
            let (from, to) = self.two_keys();
            return Command::CountTo(from, to);
        }
        let commands = (0..1 + self.random.below(4)).map(|_| self.command()).collect();
        // Some are suspended on the way.
        let loops = if self.random.below(4) == 0 { 150_000 } else { 0 };
        Command::Script(commands, loops)
    }

    /// One command, a script, or a transaction, perhaps with what leads to it.
    fn act(&mut self) {
        if self.random.below(6) == 0 {
            let script = self.script();
            self.call(script);
            return;
        }
        if self.random.below(4) > 0 {
            let command = match self.command() {
                // On its own it sees each shard at a moment of its own.
                Command::Dbsize => Command::Exec(vec![Command::Dbsize]),
                command => command,
            };
            self.call(command);
            return;
        }
        if self.random.below(2) > 0 {
            let watched = self.keys(3);
            self.call(Command::Watch(watched.clone()));
            self.call(Command::Mget(watched));
            if self.random.below(10) == 0 {
                self.call(Command::Unwatch);
            }
        }
        let mut commands: Vec<Command> = (0..self.random.below(5)).map(|_| self.command()).collect();
        if self.random.below(4) == 0 {
            commands.push(self.script());
        }
        self.call(Command::Exec(commands));
    }
}

/// Reads the whole keyspace, while nobody changes it.
fn read_all(reader: &mut Client) -> State {
    let mut values = [[None; KEYS.len()]; DB_COUNT];
    for (db, values) in values.iter_mut().enumerate() {
        assert_eq!(reader.connection.call(&["SELECT", &db.to_string()]), "+OK\r\n");
        reader.db = db;
        let reply = reader.call(Command::Mget((0..KEYS.len()).collect()));
        let mut lines = reply.lines().skip(1);
        for value in values {
            if lines.next().expect("a reply for every key") != "$-1" {
                *value = lines.next().map(|text| text.parse().expect("values are numbers"));
            }
        }
    }
    State::new(values)
}

/// What the clients did where the search for an order got stuck.
fn show(clients: &[Vec<Recorded>], placed: &[usize]) -> String {
    let mut shown: Vec<(&Recorded, bool)> = Vec::new();
    for (history, &placed) in clients.iter().zip(placed) {
        let range = placed.saturating_sub(SHOWN)..(placed + SHOWN).min(history.len());
        shown.extend(range.map(|n| (&history[n], n < placed)));
    }
    shown.sort_by_key(|(recorded, _)| recorded.called_at);
    let mut text = String::new();
    for (Recorded { client, db, command, reply, called_at, replied_at }, is_placed) in shown {
        let mark = if is_placed { ' ' } else { '?' };
        let command = command.text(*db);
        text += &format!(
            "{mark} {called_at:>12}..{replied_at:>12} client {client} db {db}: {command} -> {reply:?}\n"
        );
    }
    text
}

#[test]
fn every_history_of_four_shards_has_a_serial_order() {
    let shards: BTreeSet<usize> =
        KEYS.iter().map(|key| shardis_core::shard::slot::shard_of(key.as_bytes(), 4)).collect();
    assert_eq!(shards.len(), 4, "the keys are on all shards");
    let rounds = std::env::var("SHARDIS_HISTORY_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("SHARDIS_HISTORY_ROUNDS is a number"));
    let seed = std::env::var("SHARDIS_HISTORY_SEED").ok();
    let seed = seed.map_or_else(fresh_seed, |seed| seed.parse().expect("SHARDIS_HISTORY_SEED is a number"));
    for setup in SETUPS {
        let server = Server::start(setup);
        let origin = Instant::now();
        let mut clients: Vec<Client> =
            (0..CLIENT_COUNT).map(|index| Client::new(&server, index, origin)).collect();
        let mut reader = Client::new(&server, CLIENT_COUNT, origin);
        let mut state = read_all(&mut reader);
        reader.history.clear();
        for round in 0..rounds {
            if round == rounds / 2 {
                for client in &mut clients {
                    client.random = Random::new(seed.wrapping_add(client.index as u64));
                }
            }
            thread::scope(|scope| {
                for client in &mut clients {
                    scope.spawn(move || {
                        (0..ACTS).for_each(|_| client.act());
                        client.call(Command::Unwatch);
                    });
                }
            });
            let end = read_all(&mut reader);
            let take = |client: &mut Client| std::mem::take(&mut client.history);
            let history: Vec<Vec<Recorded>> = clients.iter_mut().chain([&mut reader]).map(take).collect();
            if let Err(refusal) = linearize(&state, &history) {
                let text = match &refusal {
                    linear::Refusal::NotLinearizable { placed } => show(&history, placed),
                    linear::Refusal::TooHard { .. } => String::new(),
                };
                panic!("{setup:?}, round {round}, SHARDIS_HISTORY_SEED={seed}: {refusal:?}\n{text}");
            }
            state = end;
        }
    }
}
