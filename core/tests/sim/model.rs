//! The sequential model that histories are checked against: the effect of each command on plain maps, one per database,
//! and on the clients that watch its keys. The commands of `rows.rs` take strings for lists of words separated by commas.

mod streams;

use super::commands::DB_COUNT;
use super::request::{
    KILLED, KILLED_REPLY, Key, Request, VALUE, awaited, calls_of, relocation, selected, type_of,
};
use shardis_core::types::ValueType;
use std::collections::{BTreeMap, BTreeSet};
use streams::Stream;

/// What a client watches.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct Watch {
    keys: BTreeSet<Key>,
    is_broken: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Value {
    Text(String),
    List(Vec<String>),
    /// The members, in order.
    ZSet(Vec<String>),
    Set(BTreeSet<String>),
    Hash(BTreeMap<String, String>),
    Stream(Stream),
}

impl Value {
    fn type_of(&self) -> ValueType {
        match self {
            Value::Text(_) => ValueType::String,
            Value::List(_) => ValueType::List,
            Value::ZSet(_) => ValueType::ZSet,
            Value::Set(_) => ValueType::Set,
            Value::Hash(_) => ValueType::Hash,
            Value::Stream(_) => ValueType::Stream,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Model {
    values: BTreeMap<Key, Value>,
    /// By client.
    watches: BTreeMap<usize, Watch>,
    /// The keys whose change blocked clients have not been told of yet.
    signalled: BTreeSet<Key>,
}

impl Model {
    pub fn has(&self, db: usize, key: &str) -> bool {
        self.values.contains_key(&(db, key.to_string()))
    }

    /// Whether a command that blocks on a key could use it.
    pub fn has_for(&self, command: &[String], db: usize, key: &str) -> bool {
        let value = self.values.get(&(db, key.to_string()));
        value.is_some_and(|value| value.type_of() == type_of(command))
    }

    /// Whether a blocked command is served from a key, or ended by what has happened to it.
    pub fn serves(&self, command: &[String], db: usize, key: &str) -> bool {
        match type_of(command) {
            ValueType::Stream => self.has_unread(db, command, key),
            _ => self.has_for(command, db, key),
        }
    }

    /// Whether a command may take effect as one that has waited for this key.
    pub fn may_serve(&self, command: &[String], db: usize, key: &str) -> bool {
        match type_of(command) {
            ValueType::Stream => self.has_unread(db, command, key),
            _ => self.has(db, key),
        }
    }

    /// Applies a command that has waited, and takes from this key.
    pub fn serve(&mut self, db: usize, command: &[String], key: &String) -> String {
        match type_of(command) {
            ValueType::Stream => self.read_after_wait(db, command, key),
            _ => self.apply_to(db, command, std::slice::from_ref(key)),
        }
    }

    /// Whether a key has changed since the last [`Model::forget_signals`].
    pub fn is_signalled(&self, db: usize, key: &str) -> bool {
        self.signalled.contains(&(db, key.to_string()))
    }

    pub fn forget_signals(&mut self) {
        self.signalled.clear();
    }

    /// Whether a command finds a value of another type.
    fn is_wrong(&self, command: &[String], db: usize, key: &str) -> bool {
        self.has(db, key) && !self.has_for(command, db, key)
    }

    /// A string.
    fn get(&self, db: usize, key: &str) -> Option<&String> {
        match self.values.get(&(db, key.to_string())) {
            Some(Value::Text(text)) => Some(text),
            Some(_) | None => None,
        }
    }

    /// The names of a database's keys, sorted.
    pub fn names(&self, db: usize) -> Vec<String> {
        self.values.keys().filter(|(other, _)| *other == db).map(|(_, key)| key.clone()).collect()
    }

    /// Applies a request of a client that has selected `db`. Returns its last reply, in RESP2.
    pub fn request(&mut self, client: usize, mut db: usize, request: &Request) -> String {
        match request {
            Request::One(command) => self.apply(db, command),
            Request::Watch(keys) => {
                let watch = self.watches.entry(client).or_default();
                if !watch.is_broken {
                    watch.keys.extend(keys.iter().map(|key| (db, key.clone())));
                }
                "+OK\r\n".to_string()
            }
            Request::Exec { commands, watched } => {
                // An EXEC whose client watches nothing may run before an earlier EXEC of it, on another shard, that
                // watches.
                let watch = if watched.is_empty() { None } else { self.watches.remove(&client) };
                if watch.is_some_and(|watch| watch.is_broken) {
                    return "*-1\r\n".to_string();
                }
                let mut replies = String::new();
                for command in commands {
                    db = selected(command, db);
                    let reply = self.apply(db, command);
                    let finds_nothing = command[0] == "BLMOVE" && reply == "*-1\r\n";
                    replies += if finds_nothing { "$-1\r\n" } else { &reply };
                }
                format!("*{}\r\n{replies}", commands.len())
            }
            Request::Unblock { .. } | Request::Kill { .. } => {
                unreachable!("the model does not contain blocked clients")
            }
        }
    }

    /// Applies a command and returns its reply. A blocking command that finds nothing replies as after a timeout.
    pub fn apply(&mut self, db: usize, command: &[String]) -> String {
        let keys = &command[1..];
        let is_of_one_type =
            matches!(command[0].as_str(), "GET" | "TPUSH" | "TTAKE" | "TJOIN" | "BTAKE" | "HTAKE" | "BMOVE");
        if type_of(command) == ValueType::Stream {
            return self.apply_to_streams(db, command);
        }
        if is_of_one_type || type_of(command) != ValueType::String {
            return self.apply_to_type(db, command);
        }
        match command[0].as_str() {
            "MGET" => {
                let values: String = keys.iter().map(|key| bulk(self.get(db, key))).collect();
                format!("*{}\r\n{values}", keys.len())
            }
            "SET" | "MSET" => {
                self.put_pairs(db, keys);
                ok()
            }
            "MSETNX" => {
                let free = keys.chunks(2).all(|pair| !self.has(db, &pair[0]));
                if free {
                    self.put_pairs(db, keys);
                }
                integer(usize::from(free))
            }
            "DEL" => integer(keys.iter().filter(|key| self.remove(db, key).is_some()).count()),
            "EXISTS" => integer(keys.iter().filter(|key| self.has(db, key)).count()),
            "RENAME" => match self.remove(db, &keys[0]) {
                Some(value) => {
                    self.put(db, &keys[1], value);
                    ok()
                }
                None => NO_SUCH_KEY.to_string(),
            },
            "COPY" | "MOVE" => self.relocate(db, command),
            "TPROGRAM" | "TMADE" | "TWIDE" | "MCALL" | "MCALLKEY" => {
                let replies: Vec<String> = calls_of(command).map(|call| self.apply(db, call)).collect();
                format!("*{}\r\n{}", replies.len(), replies.concat())
            }
            "SCRIPT" => ok(),
            KILLED => KILLED_REPLY.to_string(),
            _ => self.apply_to_all(db, command),
        }
    }

    /// The same for commands that take values of one type.
    fn apply_to_type(&mut self, db: usize, command: &[String]) -> String {
        let keys = &command[1..];
        let is_wrong = |at: usize| self.is_wrong(command, db, &keys[at]);
        let wrong = match command[0].as_str() {
            "TJOIN" => is_wrong(0) || is_wrong(1),
            "LMOVE" | "SMOVE" => is_wrong(0) || self.has(db, &keys[0]) && is_wrong(1),
            "SINTER" => is_wrong(0) || is_wrong(1),
            "SUNIONSTORE" | "SINTERSTORE" | "SDIFFSTORE" => is_wrong(1) || is_wrong(2),
            "ZUNIONSTORE" => is_wrong(2) || is_wrong(3),
            "BTAKE" | "HTAKE" | "BMOVE" | "BLPOP" | "BLMOVE" | "BLMPOP" | "BZPOPMIN" | "BZMPOP" => {
                return self.apply_to(db, command, awaited(command));
            }
            _ => is_wrong(0),
        };
        if wrong {
            return WRONG_TYPE.to_string();
        }
        match command[0].as_str() {
            "GET" => bulk(self.get(db, &keys[0])),
            "TPUSH" | "RPUSH" => {
                let pushed = self.words(db, &keys[0]).into_iter().chain(keys[1..].iter().cloned()).collect();
                self.store(command, db, &keys[0], pushed)
            }
            "TTAKE" | "LPOP" => bulk(self.take(command, db, &keys[0]).as_ref()),
            "LRANGE" | "ZRANGE" => bulks(&self.words(db, &keys[0])),
            "ZADD" => {
                let old = self.words(db, &keys[0]);
                let members = keys[1..].chunks(2).map(|pair| pair[1].clone());
                let new: Vec<String> = members.filter(|member| !old.contains(member)).collect();
                let added = new.len();
                self.store(command, db, &keys[0], [old, new].concat());
                integer(added)
            }
            "ZPOPMIN" => match self.take(command, db, &keys[0]) {
                Some(member) => bulks(&scored(member)),
                None => bulks(&[]),
            },
            "ZUNIONSTORE" => {
                let mut joined = [self.words(db, &keys[2]), self.words(db, &keys[3])].concat();
                joined.sort();
                joined.dedup();
                self.store(command, db, &keys[0], joined)
            }
            "TJOIN" => {
                let joined = [self.words(db, &keys[0]), self.words(db, &keys[1])].concat();
                self.store(command, db, &keys[2], joined)
            }
            "HSET" | "HSETNX" | "HDEL" | "HGETALL" | "HINCRBY" => self.apply_to_hash(db, command),
            name if name.starts_with('S') => self.apply_to_sets(db, command),
            "LMOVE" => match self.take(command, db, &keys[0]) {
                Some(word) => {
                    self.append(command, db, &keys[1], &word);
                    bulk(Some(&word))
                }
                None => bulk(None),
            },
            other => panic!("the model does not know {other}"),
        }
    }

    /// The same for commands over sets, which have the right type.
    fn apply_to_sets(&mut self, db: usize, command: &[String]) -> String {
        let keys = &command[1..];
        let set = |model: &Model, at: usize| -> BTreeSet<String> {
            model.words(db, &keys[at]).into_iter().collect()
        };
        let old = set(self, 0);
        let mut new = old.clone();
        match command[0].as_str() {
            "SADD" => new.extend(keys[1..].iter().cloned()),
            "SREM" => new.retain(|member| !keys[1..].contains(member)),
            "SMOVE" if keys[0] != keys[1] && new.remove(&keys[2]) => {
                if !set(self, 1).contains(&keys[2]) {
                    self.append(command, db, &keys[1], &keys[2]);
                }
            }
            "SMOVE" => return integer(usize::from(new.contains(&keys[2]))),
            "SMEMBERS" => return bulks(&self.words(db, &keys[0])),
            "SINTER" => return bulks(&old.intersection(&set(self, 1)).cloned().collect::<Vec<_>>()),
            name => {
                let (first, second) = (set(self, 1), set(self, 2));
                let result: Vec<String> = match name {
                    "SUNIONSTORE" => first.union(&second).cloned().collect(),
                    "SINTERSTORE" => first.intersection(&second).cloned().collect(),
                    "SDIFFSTORE" => first.difference(&second).cloned().collect(),
                    other => panic!("the model does not know {other}"),
                };
                return self.store(command, db, &keys[0], result);
            }
        }
        let changed = new.len().abs_diff(old.len());
        if changed > 0 {
            self.store(command, db, &keys[0], new.into_iter().collect());
        }
        integer(changed)
    }

    /// The same for commands over a hash, which has the right type.
    fn apply_to_hash(&mut self, db: usize, command: &[String]) -> String {
        let (key, args) = (&command[1], &command[2..]);
        let old = match self.values.get(&(db, key.clone())) {
            Some(Value::Hash(hash)) => hash.clone(),
            Some(_) | None => BTreeMap::new(),
        };
        let mut new = old.clone();
        let reply = match command[0].as_str() {
            "HGETALL" => {
                return bulks(&old.into_iter().flat_map(|(field, value)| [field, value]).collect::<Vec<_>>());
            }
            "HSETNX" if old.contains_key(&args[0]) => return integer(0),
            "HSET" | "HSETNX" => {
                new.extend(args.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
                integer(new.len() - old.len())
            }
            "HDEL" => {
                new.retain(|field, _| !args.contains(field));
                if new.len() == old.len() {
                    return integer(0);
                }
                integer(old.len() - new.len())
            }
            "HINCRBY" => {
                let number = |text: &String| text.parse::<usize>().expect("only this command sets it");
                let sum = old.get(&args[0]).map_or(0, number) + number(&args[1]);
                new.insert(args[0].clone(), sum.to_string());
                integer(sum)
            }
            other => panic!("the model does not know {other}"),
        };
        if new.is_empty() {
            self.remove(db, key);
        } else {
            self.put(db, key, Value::Hash(new));
        }
        reply
    }

    /// The same for commands about the session or about whole databases.
    fn apply_to_all(&mut self, db: usize, command: &[String]) -> String {
        match command[0].as_str() {
            "SELECT" => ok(),
            "DEBUG" if self.has(db, &command[2]) => VALUE.to_string(),
            "DEBUG" => NO_SUCH_KEY.to_string(),
            "DBSIZE" => integer(self.names(db).len()),
            "KEYS" | "SCAN" => bulks(&self.names(db)),
            "RANDOMKEY" => bulk(self.names(db).first()),
            "FLUSHALL" | "FLUSHDB" => {
                for db in if command[0] == "FLUSHDB" { db..db + 1 } else { 0..DB_COUNT } {
                    self.names(db).iter().for_each(|key| drop(self.remove(db, key)));
                }
                ok()
            }
            "SWAPDB" => {
                // A key that is in either database counts as changed in both.
                let keys: Vec<String> = self.values.keys().map(|(_, key)| key.clone()).collect();
                keys.iter().for_each(|key| (0..DB_COUNT).for_each(|db| self.touch(db, key)));
                let values = std::mem::take(&mut self.values).into_iter();
                self.values = values.map(|((db, key), value)| ((1 - db, key), value)).collect();
                ok()
            }
            other => panic!("the model does not know {other}"),
        }
    }

    /// Applies a blocking command that takes from the first of `keys` that exists.
    pub fn apply_to(&mut self, db: usize, command: &[String], keys: &[String]) -> String {
        let Some(key) = keys.iter().find(|key| self.has(db, key)) else { return "*-1\r\n".to_string() };
        let destination = match command[0].as_str() {
            "BMOVE" => Some(&command[command.len() - 2]),
            "BLMOVE" => Some(&command[2]),
            _ => None,
        };
        let is_wrong = |key: &String| self.is_wrong(command, db, key);
        if is_wrong(key) || destination.is_some_and(is_wrong) {
            return WRONG_TYPE.to_string();
        }
        let word = self.take(command, db, key).expect("a key that exists has a word");
        if let Some(destination) = destination {
            self.append(command, db, destination, &word);
        }
        match command[0].as_str() {
            "BLMOVE" => bulk(Some(&word)),
            "BLMPOP" => {
                let words: Vec<String> =
                    [Some(word), self.take(command, db, key)].into_iter().flatten().collect();
                format!("*2\r\n{}{}", bulk(Some(key)), bulks(&words))
            }
            "BZPOPMIN" => bulks(&[&[key.clone()][..], &scored(word)].concat()),
            "BZMPOP" => {
                let members = [Some(word), self.take(command, db, key)].into_iter().flatten();
                let pairs: Vec<String> = members.map(|member| bulks(&scored(member))).collect();
                format!("*2\r\n{}*{}\r\n{}", bulk(Some(key)), pairs.len(), pairs.concat())
            }
            _ => format!("*2\r\n{}{}", bulk(Some(key)), bulk(Some(&word))),
        }
    }

    /// COPY and MOVE.
    fn relocate(&mut self, db: usize, command: &[String]) -> String {
        let (from, to) = relocation(db, command);
        if from == to {
            return "-ERR source and destination objects are the same\r\n".to_string();
        }
        let Some(value) = self.values.get(&from).cloned().filter(|_| !self.values.contains_key(&to)) else {
            return integer(0);
        };
        if command[0] == "MOVE" {
            self.remove(from.0, &from.1);
        }
        self.put(to.0, &to.1, value);
        integer(1)
    }

    fn put(&mut self, db: usize, key: &str, value: Value) {
        self.values.insert((db, key.to_string()), value);
        self.touch(db, key);
    }

    fn put_pairs(&mut self, db: usize, pairs: &[String]) {
        pairs.chunks(2).for_each(|pair| self.put(db, &pair[0], Value::Text(pair[1].clone())));
    }

    fn remove(&mut self, db: usize, key: &str) -> Option<Value> {
        let value = self.values.remove(&(db, key.to_string()))?;
        self.touch(db, key);
        Some(value)
    }

    /// A key has changed.
    fn touch(&mut self, db: usize, key: &str) {
        self.signalled.insert((db, key.to_string()));
        self.touch_watches(db, key);
    }

    /// The same, if that concerns no client that is blocked on the key.
    fn touch_watches(&mut self, db: usize, key: &str) {
        let key = (db, key.to_string());
        for watch in self.watches.values_mut() {
            if watch.keys.contains(&key) {
                *watch = Watch { keys: BTreeSet::new(), is_broken: true };
            }
        }
    }

    /// The words of a list, or of a string as the commands in `rows.rs` have it: separated by commas.
    fn words(&self, db: usize, key: &str) -> Vec<String> {
        match self.values.get(&(db, key.to_string())) {
            Some(Value::Text(text)) => text.split(',').map(str::to_string).collect(),
            Some(Value::List(words) | Value::ZSet(words)) => words.clone(),
            Some(Value::Set(members)) => members.iter().cloned().collect(),
            Some(Value::Hash(_) | Value::Stream(_)) => unreachable!("the type was checked"),
            None => Vec::new(),
        }
    }

    fn store(&mut self, command: &[String], db: usize, key: &str, mut words: Vec<String>) -> String {
        let len = words.len();
        let value = match type_of(command) {
            ValueType::String => Value::Text(words.join(",")),
            ValueType::List => Value::List(words),
            ValueType::Set => Value::Set(words.into_iter().collect()),
            ValueType::Hash | ValueType::Stream | ValueType::Module(_) => {
                unreachable!("these are stored otherwise")
            }
            ValueType::ZSet => {
                words.sort_by_key(|member| (score_of(member), member.clone()));
                Value::ZSet(words)
            }
        };
        if len == 0 {
            self.remove(db, key);
        } else {
            self.put(db, key, value);
        }
        integer(len)
    }

    fn append(&mut self, command: &[String], db: usize, key: &str, word: &str) {
        let words = [self.words(db, key), vec![word.to_string()]].concat();
        self.store(command, db, key, words);
    }

    fn take(&mut self, command: &[String], db: usize, key: &str) -> Option<String> {
        let mut left = self.words(db, key);
        if left.is_empty() {
            return None;
        }
        let first = left.remove(0);
        self.store(command, db, key, left);
        Some(first)
    }
}

/// The score of a member, by which it is named: so a member has the same score in all sets.
pub fn score_of(member: &str) -> u32 {
    let digits: String = member.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u32>().expect("a member has digits") % 5
}

/// A member and its score.
fn scored(member: String) -> [String; 2] {
    let score = score_of(&member).to_string();
    [member, score]
}

const NO_SUCH_KEY: &str = "-ERR no such key\r\n";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

fn ok() -> String {
    "+OK\r\n".to_string()
}

fn integer(number: usize) -> String {
    format!(":{number}\r\n")
}

pub fn bulk(value: Option<&String>) -> String {
    match value {
        Some(value) => format!("${}\r\n{value}\r\n", value.len()),
        None => "$-1\r\n".to_string(),
    }
}

pub fn bulks(values: &[String]) -> String {
    let bulks: String = values.iter().map(|value| bulk(Some(value))).collect();
    format!("*{}\r\n{bulks}", values.len())
}
