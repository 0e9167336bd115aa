//! The sequential server: two databases of a few keys whose values are numbers, and the clients that watch some of them.
//!
//! It says what Redis would reply if it did one thing after the other. WATCH is part of it: every change of a key marks
//! the clients which watch it, so an EXEC that runs though it must not, or does not run though it could, has no place
//! in any order.

/// The keys: over all of four shards, some on the same one.
pub const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

pub const DB_COUNT: usize = 2;

pub const CLIENT_COUNT: usize = 6;

/// A key's place in [`KEYS`].
pub type Key = usize;

#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    Get(Key),
    Set(Key, i64),
    /// SET with the option GET.
    SetGet(Key, i64),
    Incr(Key),
    Mget(Vec<Key>),
    Mset(Vec<(Key, i64)>),
    Msetnx(Vec<(Key, i64)>),
    Del(Vec<Key>),
    Rename(Key, Key),
    /// To a key of a database.
    Copy(Key, Key, usize),
    /// To the other database.
    Move(Key),
    Swapdb,
    Flushall,
    Dbsize,
    Watch(Vec<Key>),
    Unwatch,
    /// MULTI, these, EXEC.
    Exec(Vec<Command>),
    /// A script that calls these, and computes a while before the first one and the last one. It declares no keys.
    Script(Vec<Command>, u32),
    /// A script that keeps to its declared keys: it counts the first one up, and stores that in the second one.
    CountTo(Key, Key),
}

/// Calls the commands that are in its arguments, separated by slashes, and returns their replies.
const SCRIPT: &str = "local function compute() for _ = 1, tonumber(ARGV[1]) do end end
local calls, call = {}, {}
for n = 2, #ARGV do
    if ARGV[n] == '/' then calls[#calls + 1] = call call = {} else call[#call + 1] = ARGV[n] end
end
local replies = {}
for n, words in ipairs(calls) do
    if n == 1 or n == #calls then compute() end
    replies[n] = redis.pcall(unpack(words))
end
return replies";

const COUNT_TO: &str = "local count = redis.call('incr', KEYS[1])
redis.call('set', KEYS[2], count)
return count";

/// A client's watched keys, a bit for each key of each database.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Watches {
    keys: u16,
    is_broken: bool,
}

const _: () = assert!(KEYS.len() * DB_COUNT <= u16::BITS as usize);

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    values: [[Option<i64>; KEYS.len()]; DB_COUNT],
    watches: [Watches; CLIENT_COUNT],
}

impl State {
    /// What is there when nobody watches anything.
    pub fn new(values: [[Option<i64>; KEYS.len()]; DB_COUNT]) -> State {
        State { values, watches: [Watches::default(); CLIENT_COUNT] }
    }

    /// Executes a client's command in its database. Returns the reply, as RESP2 has it.
    pub fn apply(&mut self, client: usize, db: usize, command: &Command) -> String {
        match command {
            Command::Get(key) => bulk(self.values[db][*key]),
            Command::Set(key, value) => {
                self.put(db, *key, Some(*value));
                ok()
            }
            Command::SetGet(key, value) => {
                let old = self.values[db][*key];
                self.put(db, *key, Some(*value));
                bulk(old)
            }
            Command::Incr(key) => {
                let value = self.values[db][*key].unwrap_or(0) + 1;
                self.put(db, *key, Some(value));
                integer(value)
            }
            Command::Mget(keys) => array(keys.iter().map(|&key| bulk(self.values[db][key]))),
            Command::Mset(pairs) => {
                pairs.iter().for_each(|&(key, value)| self.put(db, key, Some(value)));
                ok()
            }
            Command::Msetnx(pairs) => {
                let free = pairs.iter().all(|&(key, _)| self.values[db][key].is_none());
                if free {
                    pairs.iter().for_each(|&(key, value)| self.put(db, key, Some(value)));
                }
                integer(free.into())
            }
            Command::Del(keys) => {
                integer(keys.iter().filter(|&&key| self.remove(db, key).is_some()).count() as i64)
            }
            Command::Rename(from, to) => match self.remove(db, *from) {
                Some(value) => {
                    self.put(db, *to, Some(value));
                    ok()
                }
                None => "-ERR no such key\r\n".to_string(),
            },
            Command::Copy(from, to, to_db) => self.copy(self.values[db][*from], *to_db, *to),
            Command::Move(key) => {
                let done = self.copy(self.values[db][*key], 1 - db, *key);
                if done == integer(1) {
                    self.remove(db, *key);
                }
                done
            }
            Command::Swapdb => {
                self.touch_all();
                self.values.swap(0, 1);
                ok()
            }
            Command::Flushall => {
                self.touch_all_of_their_own();
                self.values = Default::default();
                ok()
            }
            Command::Dbsize => integer(self.values[db].iter().flatten().count() as i64),
            Command::Watch(keys) => {
                let bits = keys.iter().fold(0, |bits, &key| bits | bit(db, key));
                self.watches[client].keys |= bits;
                ok()
            }
            Command::Unwatch => {
                self.watches[client] = Watches::default();
                ok()
            }
            Command::Exec(commands) => {
                if std::mem::take(&mut self.watches[client]).is_broken {
                    return "*-1\r\n".to_string();
                }
                array(commands.iter().map(|command| self.apply(client, db, command)))
            }
            Command::Script(commands, _) => {
                array(commands.iter().map(|command| self.apply(client, db, command)))
            }
            Command::CountTo(from, to) => {
                let count = self.values[db][*from].unwrap_or(0) + 1;
                self.put(db, *from, Some(count));
                self.put(db, *to, Some(count));
                integer(count)
            }
        }
    }

    /// Changes a key, and tells those who watch it.
    fn put(&mut self, db: usize, key: Key, value: Option<i64>) {
        self.values[db][key] = value;
        self.touch(bit(db, key));
    }

    fn remove(&mut self, db: usize, key: Key) -> Option<i64> {
        let old = self.values[db][key]?;
        self.put(db, key, None);
        Some(old)
    }

    fn copy(&mut self, value: Option<i64>, to_db: usize, to: Key) -> String {
        let done = value.is_some() && self.values[to_db][to].is_none();
        if done {
            self.put(to_db, to, value);
        }
        integer(done.into())
    }

    fn touch(&mut self, keys: u16) {
        for watches in &mut self.watches {
            watches.is_broken |= watches.keys & keys != 0;
        }
    }

    /// Every key that is there in either database is another one now.
    fn touch_all(&mut self) {
        for key in 0..KEYS.len() {
            if self.values.iter().any(|values| values[key].is_some()) {
                (0..DB_COUNT).for_each(|db| self.touch(bit(db, key)));
            }
        }
    }

    /// Every key that is there goes.
    fn touch_all_of_their_own(&mut self) {
        for db in 0..DB_COUNT {
            for key in 0..KEYS.len() {
                if self.values[db][key].is_some() {
                    self.touch(bit(db, key));
                }
            }
        }
    }
}

fn bit(db: usize, key: Key) -> u16 {
    1 << (db * KEYS.len() + key)
}

fn ok() -> String {
    "+OK\r\n".to_string()
}

fn integer(value: i64) -> String {
    format!(":{value}\r\n")
}

fn bulk(value: Option<i64>) -> String {
    match value.map(|value| value.to_string()) {
        Some(text) => format!("${}\r\n{text}\r\n", text.len()),
        None => "$-1\r\n".to_string(),
    }
}

fn array(items: impl ExactSizeIterator<Item = String>) -> String {
    format!("*{}\r\n", items.len()) + &items.collect::<String>()
}

impl Command {
    /// The requests that make it, for a client of a database.
    pub fn requests(&self, db: usize) -> Vec<Vec<String>> {
        match self {
            Command::Exec(commands) => {
                let queued = commands.iter().flat_map(|command| command.requests(db));
                let [multi, exec] = ["MULTI", "EXEC"].map(|word| vec![word.to_string()]);
                std::iter::once(multi).chain(queued).chain([exec]).collect()
            }
            command => vec![command.words(db)],
        }
    }

    /// What a person would type to make it.
    pub fn text(&self, db: usize) -> String {
        self.requests(db).iter().map(|words| words.join(" ")).collect::<Vec<String>>().join("; ")
    }

    fn words(&self, db: usize) -> Vec<String> {
        let word = |text: &str| text.to_string();
        let name = |key: &Key| KEYS[*key].to_string();
        let with_keys = |command: &str, keys: &[Key]| {
            std::iter::once(word(command)).chain(keys.iter().map(name)).collect()
        };
        let with_pairs = |command: &str, pairs: &[(Key, i64)]| {
            let words = pairs.iter().flat_map(|(key, value)| [name(key), value.to_string()]);
            std::iter::once(word(command)).chain(words).collect()
        };
        match self {
            Command::Get(key) => with_keys("GET", &[*key]),
            Command::Set(key, value) => with_pairs("SET", &[(*key, *value)]),
            Command::SetGet(key, value) => vec![word("SET"), name(key), value.to_string(), word("GET")],
            Command::Incr(key) => with_keys("INCR", &[*key]),
            Command::Mget(keys) => with_keys("MGET", keys),
            Command::Mset(pairs) => with_pairs("MSET", pairs),
            Command::Msetnx(pairs) => with_pairs("MSETNX", pairs),
            Command::Del(keys) => with_keys("DEL", keys),
            Command::Rename(from, to) => with_keys("RENAME", &[*from, *to]),
            Command::Copy(from, to, db) => {
                vec![word("COPY"), name(from), name(to), word("DB"), db.to_string()]
            }
            Command::Move(key) => vec![word("MOVE"), name(key), (1 - db).to_string()],
            Command::Swapdb => vec![word("SWAPDB"), word("0"), word("1")],
            Command::Flushall => vec![word("FLUSHALL")],
            Command::Dbsize => vec![word("DBSIZE")],
            Command::Watch(keys) => with_keys("WATCH", keys),
            Command::Unwatch => vec![word("UNWATCH")],
            Command::Script(commands, loops) => {
                let head = [word("EVAL"), word(SCRIPT), word("0"), loops.to_string()];
                let calls = commands.iter().flat_map(|command| {
                    let mut words = command.words(db);
                    words.push("/".to_string());
                    words
                });
                head.into_iter().chain(calls).collect()
            }
            Command::CountTo(from, to) => {
                vec![word("EVAL"), word(COUNT_TO), word("2"), name(from), name(to)]
            }
            Command::Exec(_) => unreachable!("these are several requests"),
        }
    }
}
