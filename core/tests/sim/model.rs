//! The sequential model that histories are checked against: the effect of each command on plain maps, one per database,
//! and on the clients that watch its keys. Also generates random commands.
//!
//! Values are strings, lists and sorted sets. The commands of `rows.rs` take strings for lists of words; [`over_lists`] makes
//! Redis' list commands of them, and [`over_zsets`] commands over sorted sets.

use super::cluster::Random;
use shardis_core::shard::slot::shard_of;
use std::collections::{BTreeMap, BTreeSet};

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

    /// Its reply in the form that the model produces: names sorted, and no addresses.
    pub fn canonical(&self, reply: String) -> String {
        let Request::One(command) = self else { return reply };
        let sorted = |names: &str| {
            let mut names: Vec<String> = names.split("\r\n").skip(2).step_by(2).map(str::to_string).collect();
            names.sort();
            bulks(&names)
        };
        match command[0].as_str() {
            "KEYS" => sorted(&reply),
            "SCAN" => {
                sorted(reply.strip_prefix("*2\r\n$1\r\n0\r\n").expect("so few keys are scanned at once"))
            }
            "DEBUG" if reply.starts_with("+Value at:") => VALUE.to_string(),
            _ => reply,
        }
    }
}

/// What is left of the reply to DEBUG OBJECT.
const VALUE: &str = "+Value\r\n";

/// The database that is selected after a command.
fn selected(command: &[String], db: usize) -> usize {
    if command[0] == "SELECT" { database(&command[1]) } else { db }
}

fn database(text: &str) -> usize {
    text.parse().expect("the number of a database")
}

/// The keys that a command may block on.
pub fn awaited(command: &[String]) -> &[String] {
    match command[0].as_str() {
        "BTAKE" | "BLPOP" | "BZPOPMIN" => &command[1..command.len() - 1],
        "BMOVE" => &command[1..command.len() - 2],
        "BLMOVE" => &command[1..2],
        "BLMPOP" | "BZMPOP" => counted_keys(&command[2..]),
        _ => &[],
    }
}

/// The timeout of a command that may block, in seconds.
pub fn timeout(command: &[String]) -> &str {
    match command[0].as_str() {
        "BLMPOP" | "BZMPOP" => &command[1],
        _ => &command[command.len() - 1],
    }
}

/// A number of keys, and the keys.
fn counted_keys(words: &[String]) -> &[String] {
    let count: usize = words[0].parse().expect("the number of keys");
    &words[1..=count]
}

/// A type of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Text,
    List,
    ZSet,
}

/// The type of the values that a command takes and blocks on.
fn type_of(command: &[String]) -> Type {
    match command[0].as_str() {
        "RPUSH" | "LPOP" | "LRANGE" | "LMOVE" | "BLPOP" | "BLMOVE" | "BLMPOP" => Type::List,
        "ZADD" | "ZPOPMIN" | "ZRANGE" | "ZUNIONSTORE" | "BZPOPMIN" | "BZMPOP" => Type::ZSet,
        _ => Type::Text,
    }
}

/// The score of a member, by which it is named: so a member has the same score in all sets.
fn score_of(member: &str) -> u32 {
    let digits: String = member.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u32>().expect("a member has digits") % 5
}

/// A command and its arguments.
fn words(name: &str, args: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|word| word.to_string());
    std::iter::once(name.to_string()).chain(args.iter().cloned()).chain(more).collect()
}

/// ZADD of some members.
pub fn zadd(key: &str, members: &[String]) -> Vec<String> {
    let pairs = members.iter().flat_map(|member| [score_of(member).to_string(), member.clone()]);
    ["ZADD".to_string(), key.to_string()].into_iter().chain(pairs).collect()
}

/// The command of Redis over sorted sets that is like one over strings of words; often also a set in place of a string.
pub fn over_zsets(random: &mut Random, command: Vec<String>, is_in_program: bool) -> Vec<String> {
    let is_often = random.below(2) == 0;
    match command[0].as_str() {
        "TPROGRAM" | "TWIDE" => {
            let mut parts = command.split(|word| word == "/");
            let mut mapped = parts.next().expect("a command has words").to_vec();
            for call in parts {
                mapped.push("/".to_string());
                mapped.extend(over_zsets(random, call.to_vec(), true));
            }
            mapped
        }
        "SET" if is_often => zadd(&command[1], &command[2..]),
        "GET" if is_often => words("ZRANGE", &command[1..], &["0", "-1"]),
        "TPUSH" => zadd(&command[1], &command[2..]),
        "TTAKE" => words("ZPOPMIN", &command[1..], &[]),
        "TJOIN" => {
            let args = [command[3].clone(), "2".to_string(), command[1].clone(), command[2].clone()];
            words("ZUNIONSTORE", &args, &["AGGREGATE", "MAX"])
        }
        "BTAKE" | "BMOVE" if is_often || is_in_program => {
            let keys = awaited(&command);
            let head = [timeout(&command).to_string(), keys.len().to_string()];
            words("BZMPOP", &[&head[..], keys].concat(), &["MIN", "COUNT", "2"])
        }
        "BTAKE" | "BMOVE" => words("BZPOPMIN", awaited(&command), &[timeout(&command)]),
        _ => command,
    }
}

/// The command of Redis that does to a list what a command does to a string of words; often also a list in place of a
/// string. A program may not call all of those.
pub fn over_lists(random: &mut Random, command: Vec<String>, is_in_program: bool) -> Vec<String> {
    let is_often = random.below(2) == 0;
    match command[0].as_str() {
        "TPROGRAM" | "TWIDE" => {
            let mut parts = command.split(|word| word == "/");
            let mut mapped = parts.next().expect("a command has words").to_vec();
            for call in parts {
                mapped.push("/".to_string());
                mapped.extend(over_lists(random, call.to_vec(), true));
            }
            mapped
        }
        "SET" if is_often => words("RPUSH", &command[1..], &[]),
        "GET" if is_often => words("LRANGE", &command[1..], &["0", "-1"]),
        "TPUSH" => words("RPUSH", &command[1..], &[]),
        "TTAKE" => words("LPOP", &command[1..], &[]),
        "TJOIN" => words("LMOVE", &[command[1].clone(), command[3].clone()], &["LEFT", "RIGHT"]),
        "BTAKE" if is_often || is_in_program => {
            let keys = awaited(&command);
            let head = [timeout(&command).to_string(), keys.len().to_string()];
            words("BLMPOP", &[&head[..], keys].concat(), &["LEFT", "COUNT", "2"])
        }
        "BTAKE" => words("BLPOP", &command[1..], &[]),
        "BMOVE" => {
            let pair = [command[1].clone(), command[command.len() - 2].clone()];
            match is_in_program {
                true => words("LMOVE", &pair, &["LEFT", "RIGHT"]),
                false => words("BLMOVE", &pair, &["LEFT", "RIGHT", timeout(&command)]),
            }
        }
        _ => command,
    }
}

/// The keys of a command. `None`: it is about the whole keyspace.
fn keys_of(db: usize, command: &[String]) -> Option<Vec<Key>> {
    let words = &command[1..];
    let keys: Vec<&String> = match command[0].as_str() {
        "GET" | "SET" | "TPUSH" | "TTAKE" | "RPUSH" | "LPOP" | "LRANGE" | "ZADD" | "ZPOPMIN" | "ZRANGE" => {
            vec![&words[0]]
        }
        "ZUNIONSTORE" => [&words[0]].into_iter().chain(counted_keys(&words[1..])).collect(),
        "LMOVE" | "BLMOVE" => words[..2].iter().collect(),
        "BLMPOP" | "BZMPOP" => counted_keys(&words[1..]).iter().collect(),
        "MGET" | "DEL" | "EXISTS" | "RENAME" | "TJOIN" => words.iter().collect(),
        "MSET" | "MSETNX" => words.iter().step_by(2).collect(),
        "BTAKE" | "BMOVE" | "BLPOP" | "BZPOPMIN" => words[..words.len() - 1].iter().collect(),
        "DEBUG" => vec![&words[1]],
        "TPROGRAM" => words[1..].iter().take_while(|word| *word != "/").collect(),
        "TWIDE" => {
            let mut keys = Vec::new();
            for call in command.split(|word| word == "/").skip(1) {
                keys.extend(keys_of(db, call)?);
            }
            return Some(keys);
        }
        "SELECT" => Vec::new(),
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
fn relocation(db: usize, command: &[String]) -> (Key, Key) {
    let from = (db, command[1].clone());
    match (command[0].as_str(), command.len()) {
        ("MOVE", _) => (from, (database(&command[2]), command[1].clone())),
        (_, 3) => (from, (db, command[2].clone())),
        _ => (from, (database(&command[4]), command[2].clone())),
    }
}

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
}

impl Value {
    fn type_of(&self) -> Type {
        match self {
            Value::Text(_) => Type::Text,
            Value::List(_) => Type::List,
            Value::ZSet(_) => Type::ZSet,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Model {
    values: BTreeMap<Key, Value>,
    /// By client.
    watches: BTreeMap<usize, Watch>,
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

    /// Whether a command finds a value of another type.
    fn is_wrong(&self, command: &[String], db: usize, key: &str) -> bool {
        self.has(db, key) && !self.has_for(command, db, key)
    }

    /// A string.
    fn get(&self, db: usize, key: &str) -> Option<&String> {
        match self.values.get(&(db, key.to_string())) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::List(_) | Value::ZSet(_)) | None => None,
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
            matches!(command[0].as_str(), "GET" | "TPUSH" | "TTAKE" | "TJOIN" | "BTAKE" | "BMOVE");
        if is_of_one_type || type_of(command) != Type::Text {
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
            "TPROGRAM" | "TWIDE" => {
                let calls = command.split(|word| word == "/").skip(1);
                let replies: Vec<String> = calls.map(|call| self.apply(db, call)).collect();
                format!("*{}\r\n{}", replies.len(), replies.concat())
            }
            _ => self.apply_to_all(db, command),
        }
    }

    /// The same for commands that take values of one type.
    fn apply_to_type(&mut self, db: usize, command: &[String]) -> String {
        let keys = &command[1..];
        let is_wrong = |at: usize| self.is_wrong(command, db, &keys[at]);
        let wrong = match command[0].as_str() {
            "TJOIN" => is_wrong(0) || is_wrong(1),
            "LMOVE" => is_wrong(0) || self.has(db, &keys[0]) && is_wrong(1),
            "ZUNIONSTORE" => is_wrong(2) || is_wrong(3),
            "BTAKE" | "BMOVE" | "BLPOP" | "BLMOVE" | "BLMPOP" | "BZPOPMIN" | "BZMPOP" => {
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

    fn touch(&mut self, db: usize, key: &str) {
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
            None => Vec::new(),
        }
    }

    fn store(&mut self, command: &[String], db: usize, key: &str, mut words: Vec<String>) -> String {
        let len = words.len();
        let value = match type_of(command) {
            Type::Text => Value::Text(words.join(",")),
            Type::List => Value::List(words),
            Type::ZSet => {
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

fn bulks(values: &[String]) -> String {
    let bulks: String = values.iter().map(|value| bulk(Some(value))).collect();
    format!("*{}\r\n{bulks}", values.len())
}

/// How many databases are used.
pub const DB_COUNT: usize = 2;

pub const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A random command of Redis. `unique` numbers the values, so that each value identifies the command that wrote it.
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

/// A random command over few keys, many of them blocking.
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

/// A random command, blocking or not.
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

/// A random TWIDE, which calls other commands. It declares some key or none.
fn wide_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let mut command = vec!["TWIDE".to_string(), random.below(2).to_string()];
    if command[1] == "1" {
        command.push(KEYS[random.below(KEYS.len())].to_string());
    }
    for _ in 0..1 + random.below(4) {
        let call = match random.below(6) {
            0 => WHOLE_CALLS[random.below(WHOLE_CALLS.len())].split(' ').map(str::to_string).collect(),
            _ => random_command(random, unique),
        };
        command.extend(std::iter::once("/".to_string()).chain(call));
    }
    command
}

/// Commands about the whole keyspace whose replies programs pass on as the model has them.
const WHOLE_CALLS: [&str; 4] = ["FLUSHDB", "SWAPDB 0 1", "DBSIZE", "FLUSHALL"];

/// A random program, which calls other commands: TPROGRAM or TWIDE.
pub fn program_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    if random.below(2) == 0 {
        return wide_command(random, unique);
    }
    let mut calls = Vec::new();
    let mut keys = BTreeSet::new();
    for _ in 0..1 + random.below(3) {
        let call = random_command(random, unique);
        // A program must not call commands about the whole keyspace.
        if let Some(of_call) = keys_of(0, &call) {
            keys.extend(of_call.into_iter().map(|(_, key)| key));
            calls.extend(std::iter::once("/".to_string()).chain(call));
        }
    }
    if calls.is_empty() {
        return vec!["GET".to_string(), KEYS[0].to_string()];
    }
    let head = vec!["TPROGRAM".to_string(), keys.len().to_string()];
    head.into_iter().chain(keys).chain(calls).collect()
}

/// A random command about the whole keyspace or another database, or a session command about a key. Some of them create
/// keys in databases where clients are blocked.
pub fn whole_command(random: &mut Random) -> Vec<String> {
    let db = random.below(DB_COUNT).to_string();
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second) = (key(), key());
    let command = match random.below(14) {
        0 => "FLUSHALL",
        1 => "FLUSHDB",
        2 | 3 => "SWAPDB 0 1",
        4 => "DBSIZE",
        5 => "KEYS *",
        6 => "RANDOMKEY",
        7 => "SCAN 0 COUNT 100",
        8 | 9 => &format!("DEBUG OBJECT {first}"),
        10 => &format!("COPY {first} {second} DB {db}"),
        11 => &format!("MOVE {first} {db}"),
        _ => &format!("SELECT {db}"),
    };
    command.split(' ').map(str::to_string).collect()
}
