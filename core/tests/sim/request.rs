//! What clients send: commands, alone or in transactions; the keys of each, what it blocks on, and its reply in the form
//! that the model produces.

use super::model::bulks;
use shardis_core::protocol::skip::skip_reply;
use shardis_core::shard::slot::shard_of;
use shardis_core::types::ValueType;
use std::collections::BTreeSet;

/// A key and its database.
pub type Key = (usize, String);

/// One operation of a client: a command, or a transaction with its MULTI and EXEC.
#[derive(Clone, Debug)]
pub enum Request {
    One(Vec<String>),
    Watch(Vec<String>),
    /// MULTI, these commands, EXEC.
    Exec {
        commands: Vec<Vec<String>>,
        /// The keys that its client watches.
        watched: Vec<Key>,
    },
    /// CLIENT UNBLOCK of a client; `id` is its client id.
    Unblock {
        client: usize,
        id: u64,
        with_error: bool,
    },
    /// CLIENT KILL of a client.
    Kill {
        client: usize,
        id: u64,
    },
}

impl Request {
    /// The commands that are sent for it.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        match self {
            Request::One(command) => vec![command.clone()],
            Request::Watch(keys) => vec![[words(&["WATCH"]), keys.clone()].concat()],
            Request::Exec { commands, .. } => {
                [&[words(&["MULTI"])], &commands[..], &[words(&["EXEC"])]].concat()
            }
            Request::Unblock { id, with_error, .. } => {
                let how = if *with_error { "ERROR" } else { "TIMEOUT" };
                vec![words(&["CLIENT", "UNBLOCK", &id.to_string(), how])]
            }
            Request::Kill { id, .. } => vec![words(&["CLIENT", "KILL", "ID", &id.to_string()])],
        }
    }

    /// The keys that it may block on.
    pub fn awaited(&self) -> &[String] {
        match self {
            Request::One(command) => awaited(command),
            // In a transaction commands do not block.
            Request::Watch(_) | Request::Exec { .. } | Request::Unblock { .. } | Request::Kill { .. } => &[],
        }
    }

    /// The client that it unblocks or kills.
    pub fn ends_wait_of(&self) -> Option<usize> {
        match self {
            Request::Unblock { client, .. } | Request::Kill { client, .. } => Some(*client),
            Request::One(_) | Request::Watch(_) | Request::Exec { .. } => None,
        }
    }

    /// The database that is selected after it, if `db` is selected before.
    pub fn selects(&self, db: usize) -> usize {
        match self {
            Request::One(command) => selected(command, db),
            _ => db,
        }
    }

    /// All keys that it depends on or changes, if `db` is selected. `None`: it is about the whole keyspace.
    pub fn keys(&self, mut db: usize) -> Option<Vec<Key>> {
        match self {
            Request::One(command) => keys_of(db, command),
            Request::Watch(keys) => Some(keys.iter().map(|key| (db, key.clone())).collect()),
            Request::Exec { commands, watched } => {
                let mut keys = watched.clone();
                for command in commands {
                    db = selected(command, db);
                    keys.extend(keys_of(db, command)?);
                }
                Some(keys)
            }
            Request::Unblock { .. } | Request::Kill { .. } => Some(Vec::new()),
        }
    }

    /// Whether no other request of its connection runs at the same time.
    fn is_alone(&self, shard_count: usize) -> bool {
        let Some(keys) = self.keys(0) else { return true };
        let shards: BTreeSet<usize> =
            keys.into_iter().map(|(_, key)| shard_of(key.as_bytes(), shard_count)).collect();
        shards.len() > 1
            || !self.awaited().is_empty()
            || self.ends_wait_of().is_some()
            || matches!(self, Request::Watch(_))
    }

    /// Whether a connection keeps the order of this request, with `db` selected, and the later request `other`, with
    /// `other_db` selected: not if each is about a single shard and they share no key, as the README says of pipelines.
    /// (An empty EXEC is about no shard at all.) A server with one shard keeps all requests in order.
    pub fn is_before(&self, db: usize, (other_db, other): (usize, &Request), shard_count: usize) -> bool {
        let (mine, others) = (self.keys(db).unwrap_or_default(), other.keys(other_db).unwrap_or_default());
        shard_count == 1
            || self.is_alone(shard_count)
            || other.is_alone(shard_count)
            || mine.iter().any(|key| others.contains(key))
    }

    /// Its reply in the form that the model produces: what has no order is sorted, and there are no addresses.
    pub fn canonical(&self, reply: String) -> String {
        match self {
            Request::One(command) => canonical(command, reply),
            Request::Exec { commands, .. } => canonical_each(commands, reply),
            Request::Watch(_) | Request::Unblock { .. } | Request::Kill { .. } => reply,
        }
    }
}

fn canonical(command: &[String], reply: String) -> String {
    match command[0].as_str() {
        "KEYS" | "SMEMBERS" | "SINTER" if reply.starts_with('*') => sorted(&reply, 1),
        "HGETALL" if reply.starts_with('*') => sorted(&reply, 2),
        "SCAN" => {
            sorted(reply.strip_prefix("*2\r\n$1\r\n0\r\n").expect("so few keys are scanned at once"), 1)
        }
        "DEBUG" if reply.starts_with("+Value at:") => VALUE.to_string(),
        "SCRIPT" if !reply.starts_with("-BUSY") => "+OK\r\n".to_string(),
        "TPROGRAM" | "TMADE" | "TWIDE" | "MCALL" | "MCALLKEY" => {
            let calls = calls_of(command).map(<[String]>::to_vec);
            canonical_each(&calls.collect::<Vec<_>>(), reply)
        }
        _ => reply,
    }
}

/// The reply to several commands, an array of theirs.
fn canonical_each(commands: &[Vec<String>], reply: String) -> String {
    let mut canonical_reply = format!("*{}\r\n", commands.len());
    let Some(mut rest) = reply.strip_prefix(&canonical_reply) else { return reply };
    for command in commands {
        let (first, others) = rest.split_at(skip_reply(rest.as_bytes()).expect("a reply to each command"));
        canonical_reply += &canonical(command, first.to_string());
        rest = others;
    }
    canonical_reply
}

/// An array of strings, in order. `group`: so many belong together.
fn sorted(reply: &str, group: usize) -> String {
    let names: Vec<String> = reply.split("\r\n").skip(2).step_by(2).map(str::to_string).collect();
    let mut groups: Vec<&[String]> = names.chunks(group).collect();
    groups.sort();
    bulks(&groups.concat())
}

/// The commands that a program calls, and what it does that is like such a command.
pub fn calls_of(program: &[String]) -> impl Iterator<Item = &[String]> {
    let separator = if program[0].starts_with("MCALL") { ";" } else { "/" };
    let steps = program.split(move |word| word == separator).skip(1);
    let calls = steps.filter(|step| !matches!(step[0].as_str(), "SPIN" | "YIELD" | "KEEP"));
    calls.map(|call| if call[0] == "OPEN" { &call[1..] } else { call })
}

/// What stands in a history for a program that was killed before it wrote anything.
pub const KILLED: &str = "killed";

/// The reply to it.
pub const KILLED_REPLY: &str = "-Script killed by user with SCRIPT KILL.\r\n";

/// Replaces the programs of an EXEC that were killed, by its reply.
pub fn replace_killed(commands: &mut [Vec<String>], reply: &str) {
    let Some(mut rest) = reply.strip_prefix(&format!("*{}\r\n", commands.len())) else { return };
    for command in commands {
        let (first, others) = rest.split_at(skip_reply(rest.as_bytes()).expect("a reply to each command"));
        if first == KILLED_REPLY {
            *command = vec![KILLED.to_string()];
        }
        rest = others;
    }
}

/// What is left of the reply to DEBUG OBJECT.
pub const VALUE: &str = "+Value\r\n";

/// The database that is selected after a command.
pub fn selected(command: &[String], db: usize) -> usize {
    if command[0] == "SELECT" { database(&command[1]) } else { db }
}

fn database(text: &str) -> usize {
    text.parse().expect("the number of a database")
}

/// The keys that a command may block on.
pub fn awaited(command: &[String]) -> &[String] {
    match command[0].as_str() {
        "BTAKE" | "HTAKE" | "BLPOP" | "BZPOPMIN" => &command[1..command.len() - 1],
        "BMOVE" => &command[1..command.len() - 2],
        "BLMOVE" => &command[1..2],
        "BLMPOP" | "BZMPOP" => counted_keys(&command[2..]),
        "XREAD" | "XREADGROUP" if command.iter().any(|word| word == "BLOCK") => streams(command).0,
        _ => &[],
    }
}

/// The timeout of a command that may block, in milliseconds; 0: there is none.
pub fn timeout_ms(command: &[String]) -> f64 {
    let number = |text: &String| text.parse::<f64>().expect("a timeout is a number");
    match command[0].as_str() {
        "BLMPOP" | "BZMPOP" => number(&command[1]) * 1000.0,
        "XREAD" | "XREADGROUP" => {
            let at = command.iter().position(|word| word == "BLOCK").expect("it may block");
            number(&command[at + 1])
        }
        _ => number(&command[command.len() - 1]) * 1000.0,
    }
}

/// The keys of XREAD or XREADGROUP, and the ID for each.
pub fn streams(command: &[String]) -> (&[String], &[String]) {
    let at = command.iter().position(|word| word == "STREAMS").expect("it reads streams") + 1;
    command[at..].split_at((command.len() - at) / 2)
}

/// A number of keys, and the keys.
pub fn counted_keys(words: &[String]) -> &[String] {
    let count: usize = words[0].parse().expect("the number of keys");
    &words[1..=count]
}

/// The type of the values that a command takes and blocks on.
pub fn type_of(command: &[String]) -> ValueType {
    match command[0].as_str() {
        "RPUSH" | "LPOP" | "LRANGE" | "LMOVE" | "BLPOP" | "BLMOVE" | "BLMPOP" => ValueType::List,
        "ZADD" | "ZPOPMIN" | "ZRANGE" | "ZUNIONSTORE" | "BZPOPMIN" | "BZMPOP" => ValueType::ZSet,
        "SADD" | "SREM" | "SMEMBERS" | "SMOVE" | "SINTER" | "SUNIONSTORE" | "SINTERSTORE" | "SDIFFSTORE" => {
            ValueType::Set
        }
        "HSET" | "HSETNX" | "HDEL" | "HGETALL" | "HINCRBY" => ValueType::Hash,
        name if name.starts_with('X') => ValueType::Stream,
        _ => ValueType::String,
    }
}

/// A command and its arguments.
pub fn words(name: &str, args: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|word| word.to_string());
    std::iter::once(name.to_string()).chain(args.iter().cloned()).chain(more).collect()
}

/// The keys of a command. `None`: it is about the whole keyspace.
pub fn keys_of(db: usize, command: &[String]) -> Option<Vec<Key>> {
    let words = &command[1..];
    let keys: Vec<&String> = match command[0].as_str() {
        "GET" | "SET" | "TPUSH" | "TTAKE" | "RPUSH" | "LPOP" | "LRANGE" | "ZADD" | "ZPOPMIN" | "ZRANGE" => {
            vec![&words[0]]
        }
        "SADD" | "SREM" | "SMEMBERS" | "HSET" | "HSETNX" | "HDEL" | "HGETALL" | "HINCRBY" => vec![&words[0]],
        "XADD" | "XRANGE" | "XDEL" | "XACK" | "XPENDING" | "XAUTOCLAIM" => vec![&words[0]],
        "XGROUP" => vec![&words[1]],
        "XREAD" | "XREADGROUP" => streams(command).0.iter().collect(),
        "SMOVE" => words[..2].iter().collect(),
        "SINTER" | "SUNIONSTORE" | "SINTERSTORE" | "SDIFFSTORE" => words.iter().collect(),
        "ZUNIONSTORE" => [&words[0]].into_iter().chain(counted_keys(&words[1..])).collect(),
        "LMOVE" | "BLMOVE" => words[..2].iter().collect(),
        "BLMPOP" | "BZMPOP" => counted_keys(&words[1..]).iter().collect(),
        "MGET" | "DEL" | "EXISTS" | "RENAME" | "TJOIN" => words.iter().collect(),
        "MSET" | "MSETNX" => words.iter().step_by(2).collect(),
        "BTAKE" | "HTAKE" | "BMOVE" | "BLPOP" | "BZPOPMIN" => words[..words.len() - 1].iter().collect(),
        "DEBUG" => vec![&words[1]],
        "TMADE" => words[2..].iter().take_while(|word| *word != "/").collect(),
        "TPROGRAM" => words[1..].iter().take_while(|word| *word != "/").collect(),
        "TWIDE" | "MCALL" | "MCALLKEY" => {
            let mut keys = Vec::new();
            for call in calls_of(command) {
                keys.extend(keys_of(db, call)?);
            }
            return Some(keys);
        }
        "SELECT" | "SCRIPT" | KILLED => Vec::new(),
        "COPY" | "MOVE" => {
            let (from, to) = relocation(db, command);
            return Some(vec![from, to]);
        }
        "DBSIZE" | "FLUSHALL" | "FLUSHDB" | "KEYS" | "RANDOMKEY" | "SCAN" | "SWAPDB" => return None,
        other => panic!("the model does not know {other}"),
    };
    Some(keys.into_iter().map(|key| (db, key.clone())).collect())
}

/// Source and destination of COPY and MOVE.
pub fn relocation(db: usize, command: &[String]) -> (Key, Key) {
    let from = (db, command[1].clone());
    match (command[0].as_str(), command.len()) {
        ("MOVE", _) => (from, (database(&command[2]), command[1].clone())),
        (_, 3) => (from, (db, command[2].clone())),
        _ => (from, (database(&command[4]), command[2].clone())),
    }
}
