//! The sequential model that histories are checked against: what each command does to a plain map, and to those who
//! watch its keys. And random commands.

use super::cluster::Random;
use shardis_core::shard::slot::shard_of;
use std::collections::{BTreeMap, BTreeSet};

/// What a client asks for that is answered as a whole.
#[derive(Clone, Debug)]
pub enum Request {
    One(Vec<String>),
    Watch(Vec<String>),
    /// MULTI, these, EXEC.
    Exec {
        commands: Vec<Vec<String>>,
        /// What its client watches.
        watched: Vec<String>,
    },
}

impl Request {
    /// The requests that make it.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        match self {
            Request::One(command) => vec![command.clone()],
            Request::Watch(keys) => vec![[words(&["WATCH"]), keys.clone()].concat()],
            Request::Exec { commands, .. } => {
                [&[words(&["MULTI"])], &commands[..], &[words(&["EXEC"])]].concat()
            }
        }
    }

    /// The keys that it waits for.
    pub fn awaited(&self) -> &[String] {
        match self {
            Request::One(command) => awaited(command),
            // In a transaction nobody waits.
            Request::Watch(_) | Request::Exec { .. } => &[],
        }
    }

    /// All keys that matter to it. `None`: it is about the whole keyspace.
    pub fn keys(&self) -> Option<Vec<&String>> {
        match self {
            Request::One(command) => keys_of(command),
            Request::Watch(keys) => Some(keys.iter().collect()),
            Request::Exec { commands, watched } => {
                let keys: Option<Vec<_>> = commands.iter().map(|command| keys_of(command)).collect();
                Some(keys?.into_iter().flatten().chain(watched).collect())
            }
        }
    }

    /// Whether nothing of its connection runs beside it.
    fn is_alone(&self, shard_count: usize) -> bool {
        let Some(keys) = self.keys() else { return true };
        let shards: BTreeSet<usize> =
            keys.into_iter().map(|key| shard_of(key.as_bytes(), shard_count)).collect();
        shards.len() > 1 || !self.awaited().is_empty() || matches!(self, Request::Watch(_))
    }

    /// Whether a connection keeps it in order with one behind it: not if both are about single shards, and no key is of
    /// interest to both. (So the README says of pipelines. An EXEC of nothing is about no shard at all.)
    pub fn is_before(&self, other: &Request, shard_count: usize) -> bool {
        let (mine, others) = (self.keys().unwrap_or_default(), other.keys().unwrap_or_default());
        self.is_alone(shard_count)
            || other.is_alone(shard_count)
            || mine.iter().any(|key| others.contains(key))
    }
}

/// The keys that a command waits for.
pub fn awaited(command: &[String]) -> &[String] {
    match command[0].as_str() {
        "BTAKE" => &command[1..command.len() - 1],
        "BMOVE" => &command[1..command.len() - 2],
        _ => &[],
    }
}

/// `None`: it is about the whole keyspace.
fn keys_of(command: &[String]) -> Option<Vec<&String>> {
    let words = &command[1..];
    let keys = match command[0].as_str() {
        "GET" | "SET" | "TPUSH" | "TTAKE" => vec![&words[0]],
        "MGET" | "DEL" | "EXISTS" | "RENAME" | "COPY" | "TJOIN" => words.iter().collect(),
        "MSET" | "MSETNX" => words.iter().step_by(2).collect(),
        "BTAKE" | "BMOVE" => words[..words.len() - 1].iter().collect(),
        "DBSIZE" | "FLUSHALL" => return None,
        other => panic!("the model does not know {other}"),
    };
    Some(keys)
}

/// What a client watches.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct Watch {
    keys: BTreeSet<String>,
    is_broken: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Model {
    values: BTreeMap<String, String>,
    /// By client.
    watches: BTreeMap<usize, Watch>,
}

impl Model {
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A client's request. Its last reply, in the bytes of RESP2.
    pub fn request(&mut self, client: usize, request: &Request) -> String {
        match request {
            Request::One(command) => self.apply(command),
            Request::Watch(keys) => {
                let watch = self.watches.entry(client).or_default();
                if !watch.is_broken {
                    watch.keys.extend(keys.iter().cloned());
                }
                "+OK\r\n".to_string()
            }
            Request::Exec { commands, watched } => {
                // One that watches nothing may run before an earlier one on another shard that does.
                let watch = if watched.is_empty() { None } else { self.watches.remove(&client) };
                if watch.is_some_and(|watch| watch.is_broken) {
                    return "*-1\r\n".to_string();
                }
                let replies: String = commands.iter().map(|command| self.apply(command)).collect();
                format!("*{}\r\n{replies}", commands.len())
            }
        }
    }

    /// A command and its reply. A blocking one that finds nothing replies what a client gets whose time is up.
    pub fn apply(&mut self, command: &[String]) -> String {
        let keys = &command[1..];
        match command[0].as_str() {
            "GET" => bulk(self.values.get(&keys[0])),
            "MGET" => {
                let values: String = keys.iter().map(|key| bulk(self.values.get(key))).collect();
                format!("*{}\r\n{values}", keys.len())
            }
            "SET" | "MSET" => {
                keys.chunks(2).for_each(|pair| self.put(&pair[0], pair[1].clone()));
                "+OK\r\n".to_string()
            }
            "MSETNX" => {
                let free = keys.chunks(2).all(|pair| !self.has(&pair[0]));
                if free {
                    keys.chunks(2).for_each(|pair| self.put(&pair[0], pair[1].clone()));
                }
                format!(":{}\r\n", i32::from(free))
            }
            "DEL" => format!(":{}\r\n", keys.iter().filter(|key| self.remove(key).is_some()).count()),
            "EXISTS" => format!(":{}\r\n", keys.iter().filter(|key| self.has(key)).count()),
            "RENAME" => match self.remove(&keys[0]) {
                Some(value) => {
                    self.put(&keys[1], value);
                    "+OK\r\n".to_string()
                }
                None => "-ERR no such key\r\n".to_string(),
            },
            "COPY" => {
                let copied = self.values.get(&keys[0]).cloned().filter(|_| !self.has(&keys[1]));
                let reply = format!(":{}\r\n", i32::from(copied.is_some()));
                copied.into_iter().for_each(|value| self.put(&keys[1], value));
                reply
            }
            "DBSIZE" => format!(":{}\r\n", self.values.len()),
            "FLUSHALL" => {
                let all: Vec<String> = self.values.keys().cloned().collect();
                all.iter().for_each(|key| drop(self.remove(key)));
                "+OK\r\n".to_string()
            }
            "TPUSH" => {
                let pushed = self.words(&keys[0]).into_iter().chain(keys[1..].iter().cloned()).collect();
                self.store(&keys[0], pushed)
            }
            "TTAKE" => bulk(self.take(&keys[0]).as_ref()),
            "TJOIN" => {
                let joined = [self.words(&keys[0]), self.words(&keys[1])].concat();
                self.store(&keys[2], joined)
            }
            "BTAKE" | "BMOVE" => self.apply_to(command, awaited(command)),
            other => panic!("the model does not know {other}"),
        }
    }

    /// A blocking command that takes from the first of these keys that is there.
    pub fn apply_to(&mut self, command: &[String], keys: &[String]) -> String {
        let Some(key) = keys.iter().find(|key| self.has(key)) else { return "*-1\r\n".to_string() };
        let word = self.take(key).expect("a key that is there has a word");
        if command[0] == "BMOVE" {
            let destination = &command[command.len() - 2];
            let moved = [self.words(destination), vec![word.clone()]].concat();
            self.store(destination, moved);
        }
        format!("*2\r\n{}{}", bulk(Some(key)), bulk(Some(&word)))
    }

    fn put(&mut self, key: &str, value: String) {
        self.values.insert(key.to_string(), value);
        self.touch(key);
    }

    fn remove(&mut self, key: &str) -> Option<String> {
        let value = self.values.remove(key)?;
        self.touch(key);
        Some(value)
    }

    fn touch(&mut self, key: &str) {
        for watch in self.watches.values_mut() {
            if watch.keys.contains(key) {
                *watch = Watch { keys: BTreeSet::new(), is_broken: true };
            }
        }
    }

    /// A value of the commands in `rows.rs`: words with commas between.
    fn words(&self, key: &str) -> Vec<String> {
        self.values.get(key).map_or(Vec::new(), |value| value.split(',').map(str::to_string).collect())
    }

    fn store(&mut self, key: &str, words: Vec<String>) -> String {
        if words.is_empty() {
            self.remove(key);
        } else {
            self.put(key, words.join(","));
        }
        format!(":{}\r\n", words.len())
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let mut left = self.words(key);
        if left.is_empty() {
            return None;
        }
        let first = left.remove(0);
        self.store(key, left);
        Some(first)
    }
}

fn bulk(value: Option<&String>) -> String {
    match value {
        Some(value) => format!("${}\r\n{value}\r\n", value.len()),
        None => "$-1\r\n".to_string(),
    }
}

pub const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A random command of Redis. `unique` numbers the values: what is read tells who wrote it.
fn plain_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    let value = format!("v{unique}");
    match random.below(16) {
        0..=2 => vec!["GET".into(), first],
        3..=5 => vec!["SET".into(), first, value],
        6..=7 => vec!["MGET".into(), first, second, third],
        8..=9 => vec!["MSET".into(), first, value.clone(), second, value],
        10 => vec!["MSETNX".into(), first, value.clone(), second, value],
        11 => vec!["DEL".into(), first, second],
        12 => vec!["EXISTS".into(), first, second, third],
        13 if first != second => vec!["RENAME".into(), first, second],
        14 if first != second => vec!["COPY".into(), first, second],
        13 | 14 => vec!["GET".into(), first],
        _ => match random.below(6) {
            0 => vec!["FLUSHALL".into()],
            _ => vec!["DBSIZE".into()],
        },
    }
}

/// A random command of a crowd that waits for few keys.
pub fn crowd_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let timeout = ["0", "0", "0.005", "0.02"][random.below(4)].to_string();
    let mut key = || KEYS[random.below(3)].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    match random.below(20) {
        0..=3 => vec!["BTAKE".into(), first, timeout],
        4..=6 => vec!["BTAKE".into(), first, second, timeout],
        7 => vec!["BMOVE".into(), first, second, timeout],
        8..=11 => vec!["BMOVE".into(), first, second, third, timeout],
        12..=13 => vec!["TPUSH".into(), first, format!("v{unique}")],
        14..=15 => vec!["TPUSH".into(), first, format!("v{unique}a"), format!("v{unique}b")],
        16..=17 if first != second => vec!["RENAME".into(), first, second],
        18 => vec!["MSET".into(), first, format!("v{unique}"), second, format!("v{unique}")],
        _ => vec!["TTAKE".into(), first],
    }
}

/// A random command, one that waits among them.
pub fn random_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    if random.below(7) < 4 {
        return plain_command(random, unique);
    }
    let timeout = ["0", "0", "0.005", "0.02", "0.1"][random.below(5)].to_string();
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    match random.below(12) {
        0..=3 => vec!["TPUSH".into(), first, format!("v{unique}a"), format!("v{unique}b")],
        4 => vec!["TTAKE".into(), first],
        5 => vec!["TJOIN".into(), first, second, third],
        6..=7 => vec!["BTAKE".into(), first, timeout],
        8..=9 => vec!["BTAKE".into(), first, second, third, timeout],
        10 => vec!["BMOVE".into(), first, second, timeout],
        _ => vec!["BMOVE".into(), first, second, third, timeout],
    }
}
