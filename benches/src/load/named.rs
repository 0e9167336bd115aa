//! Named operations: one command, or a few in turn, over keys that hold collections. A row of the table is all that an
//! operation is.
//!
//! Scripts are such operations as well: what is in their keys may be strings.
//!
//! The keys are `col:` and twelve digits, and members `mem:` and twelve digits, 16 bytes both, drawn anew for each
//! pipeline like those of the other operations. Values are text of 16 bytes that is no integer.

use crate::load::workload::{fill_text_value, write_digits};
use crate::resp::write_command;
use fastrand::Rng;
use sha1_smol::Sha1;

pub const KEY_PREFIX: &[u8; 4] = b"col:";
pub const MEMBER_PREFIX: &[u8; 4] = b"mem:";
const TEXT_LEN_BYTES: usize = 16;

/// Where a circle of some radius, among places whose degrees are drawn at random, has about as many of them as at the equator.
const LATITUDE_MAX: f64 = 45.0;

/// An argument of a command.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    Word(&'static str),
    /// One of the operation's keys.
    Key,
    /// A key of that number with this hash tag.
    Tagged(&'static str),
    /// One of the operation's members.
    Member,
    /// Text of 16 bytes.
    Value,
    /// Text of so many bytes.
    Payload(usize),
    /// A number of six digits.
    Score,
    /// A number from 0 to one less than this.
    Below(u64),
    /// Degrees, with six digits behind the point. Latitudes are those of [`LATITUDE_MAX`] and less.
    Longitude,
    Latitude,
    /// A string of 1 MiB, half of whose bits are set.
    Mebibyte,
    /// The SHA-1 of a script, which the servers have loaded.
    Script(&'static str),
}

/// What replies look like: the floor answers with as many bytes.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Integer,
    Ok,
    /// So many strings of 16 bytes, as an array.
    Texts(usize),
    /// A string of 16 bytes.
    Text,
    /// A string of so many bytes.
    Payload(usize),
    /// So many entries of a stream, with one field each.
    Entries(usize),
    /// A number of six digits, as a string.
    Score,
    /// So many numbers of six digits, as an array.
    Scores(usize),
    /// So many strings of 16 bytes, each with a number behind it, as an array.
    Scored(usize),
}

impl Answer {
    pub fn bytes(self) -> Vec<u8> {
        let (text, score) = ("$16\r\nabcdefghijklmnop\r\n", "$6\r\n123456\r\n");
        match self {
            Answer::Integer => b":10\r\n".to_vec(),
            Answer::Ok => b"+OK\r\n".to_vec(),
            Answer::Text => text.as_bytes().to_vec(),
            Answer::Payload(len) => format!("${len}\r\n{}\r\n", "x".repeat(len)).into_bytes(),
            Answer::Entries(count) => {
                let entry = format!("*2\r\n$15\r\n1700000000000-0\r\n*2\r\n$5\r\nfield\r\n{text}");
                format!("*{count}\r\n{}", entry.repeat(count)).into_bytes()
            }
            Answer::Texts(count) => format!("*{count}\r\n{}", text.repeat(count)).into_bytes(),
            Answer::Score => score.as_bytes().to_vec(),
            Answer::Scores(count) => format!("*{count}\r\n{}", score.repeat(count)).into_bytes(),
            Answer::Scored(count) => {
                format!("*{}\r\n{}", 2 * count, [text, score].concat().repeat(count)).into_bytes()
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The first one is the command's name, a word.
    pub args: &'static [Arg],
    pub answer: Answer,
}

/// How the collection of a key is made: a command with its key, and elements of the given arguments. Members are
/// 0, 1, 2 ... If there is a single key, or keys with names of their own, such commands make collections of all the
/// operation's members; of two named keys, the second one has the upper half of the first one's members, and as many more.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub command: &'static str,
    pub element: &'static [Arg],
    pub count: u64,
    pub named_keys: &'static [&'static str],
}

impl Load {
    /// Whether a command adds a single element: XADD. The keys get theirs in turn.
    fn is_one_by_one(&self) -> bool {
        self.command == "XADD"
    }
}

#[derive(Debug)]
pub struct Named {
    pub name: &'static str,
    /// In turn.
    pub requests: &'static [Request],
    pub load: Load,
    pub keys: u64,
    /// Members are drawn from so many.
    pub members: u64,
    pub bar: Bar,
    /// An operation takes a good part of a second, and its reply may have megabytes: it is measured on one connection,
    /// and longer.
    pub is_long: bool,
    pub scene: Scene,
}

/// What there is around an operation, beside its keys.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Directives: name, value while the operation is measured, default.
    pub directives: &'static [(&'static str, &'static str, &'static str)],
    /// Rules of the user that the generator's connections are; none: they are the default user.
    pub user_rules: &'static [&'static str],
    pub subscribers: Option<Subscribers>,
    /// Every other key is loaded, and `maxmemory` is what the server takes then: half of the keys have room.
    pub is_full: bool,
}

impl Scene {
    pub const USUAL: Scene = Scene { directives: &[], user_rules: &[], subscribers: None, is_full: false };
}

/// Connections that are subscribed to a channel to which each operation sends one message.
#[derive(Clone, Copy, Debug)]
pub struct Subscribers {
    pub count: usize,
    pub channel: &'static str,
    pub payload_len_bytes: usize,
}

impl Subscribers {
    pub fn message_len_bytes(&self) -> u64 {
        message(self.channel.as_bytes(), &vec![b'x'; self.payload_len_bytes]).len() as u64
    }

    /// What a server replies to SUBSCRIBE.
    pub fn confirmation(&self) -> Vec<u8> {
        confirmation(self.channel.as_bytes())
    }
}

/// The reply to SUBSCRIBE of a connection that has no other subscription.
pub fn confirmation(channel: &[u8]) -> Vec<u8> {
    let mut out = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n", channel.len()).into_bytes();
    out.extend_from_slice(channel);
    out.extend_from_slice(b"\r\n:1\r\n");
    out
}

/// A message as a subscriber gets it.
pub fn message(channel: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_command(&mut out, &[b"message", channel, payload]);
    out
}

/// What an operation may cost at most.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bar {
    pub pipeline: usize,
    pub judged: Judged,
    pub limit: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    /// Our own cost to the best peer's: by the macro bench.
    OwnToBestPeer,
    /// Our CPU with two shards to that with one: by `shards`.
    SeveralToOne,
}

const fn own(pipeline: usize, limit: f64) -> Bar {
    Bar { pipeline, judged: Judged::OwnToBestPeer, limit }
}

const fn several(pipeline: usize, limit: f64) -> Bar {
    Bar { pipeline, judged: Judged::SeveralToOne, limit }
}

use Arg::{Below, Key, Latitude, Longitude, Mebibyte, Payload, Score, Script, Value, Word};

const LIST_OF_10: Load = Load { command: "RPUSH", element: &[Value], count: 10, named_keys: &[] };
const LPUSH: Request = Request { args: &[Word("LPUSH"), Key, Value], answer: Answer::Integer };
const RPOP: Request = Request { args: &[Word("RPOP"), Key], answer: Answer::Text };

const SET_OF_10: Load = Load { command: "SADD", element: &[Arg::Member], count: 10, named_keys: &[] };
const SADD: Request = Request { args: &[Word("SADD"), Key, Arg::Member], answer: Answer::Integer };
const SREM: Request = Request { args: &[Word("SREM"), Key, Arg::Member], answer: Answer::Integer };
const SISMEMBER: Request = Request { args: &[Word("SISMEMBER"), Key, Arg::Member], answer: Answer::Integer };

const ZSET_OF_10: Load = Load { command: "ZADD", element: &[Score, Arg::Member], count: 10, named_keys: &[] };
const ZADD: Request = Request { args: &[Word("ZADD"), Key, Score, Arg::Member], answer: Answer::Integer };

const ENTRY: &[Arg] = &[Word("*"), Word("field"), Value];

const HASH_OF_10: Load = Load { command: "HSET", element: &[Arg::Member, Value], count: 10, named_keys: &[] };

const STRING: Load = Load { command: "SET", element: &[Value], count: 1, named_keys: &[] };
const NUMBER: Load = Load { element: &[Word("1")], ..STRING };

const GEO_OF_10: Load =
    Load { command: "GEOADD", element: &[Longitude, Latitude, Arg::Member], count: 10, named_keys: &[] };
const HYPERLOGLOG_OF_10: Load = Load { command: "PFADD", ..SET_OF_10 };
const STRING_OF_1_MIB: Load = Load { element: &[Mebibyte], ..STRING };

const SET: Request = Request { args: &[Word("SET"), Key, Payload(64)], answer: Answer::Ok };
const STRING_OF_64: Load = Load { element: &[Payload(64)], ..STRING };

const PUBLISH: Request =
    Request { args: &[Word("PUBLISH"), Word("channel"), Payload(64)], answer: Answer::Integer };
const SUBSCRIBERS_OF_PUBLISH: Subscribers =
    Subscribers { count: 100, channel: "channel", payload_len_bytes: 64 };

/// A JSON document of about 1 KB.
const DOCUMENT: &str = include_str!("document.json");

/// Keys that lie on different shards, if there are two: their slots differ in the highest bit.
const TWO_SHARDS: [&str; 2] = ["side:a", "side:c"];

/// The operations, and their bars. Pushes and pops alternate, or lists would grow, or be empty, while a server is measured.
pub const NAMED: &[Named] = &[
    Named {
        name: "lpush:rpop",
        requests: &[LPUSH, RPOP],
        load: LIST_OF_10,
        keys: 100_000,
        members: 0,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "lpush",
        requests: &[LPUSH],
        load: LIST_OF_10,
        keys: 100_000,
        members: 0,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "lrange100",
        requests: &[Request {
            args: &[Word("LRANGE"), Key, Word("0"), Word("99")],
            answer: Answer::Texts(100),
        }],
        load: Load { command: "RPUSH", element: &[Value], count: 100, named_keys: &[] },
        keys: 10_000,
        members: 0,
        bar: own(4, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "sort10k",
        requests: &[Request { args: &[Word("SORT"), Key], answer: Answer::Scores(10_000) }],
        load: Load { command: "RPUSH", element: &[Score], count: 10_000, named_keys: &[] },
        keys: 100,
        members: 0,
        bar: own(1, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    // Half of the members are there.
    Named {
        name: "sadd:srem",
        requests: &[SADD, SREM],
        load: SET_OF_10,
        keys: 100_000,
        members: 20,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "sismember",
        requests: &[SISMEMBER],
        load: SET_OF_10,
        keys: 100_000,
        members: 20,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "smembers50",
        requests: &[Request { args: &[Word("SMEMBERS"), Key], answer: Answer::Texts(50) }],
        load: Load { count: 50, ..SET_OF_10 },
        keys: 10_000,
        members: 0,
        bar: own(4, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "sinter10k",
        requests: &[Request { args: &[Word("SINTER"), Key, Key], answer: Answer::Texts(10_000) }],
        load: Load { count: 10_000, ..SET_OF_10 },
        keys: 100,
        members: 0,
        bar: own(1, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zadd",
        requests: &[ZADD],
        load: ZSET_OF_10,
        keys: 100_000,
        members: 10,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zscore",
        requests: &[Request { args: &[Word("ZSCORE"), Key, Arg::Member], answer: Answer::Score }],
        load: ZSET_OF_10,
        keys: 100_000,
        members: 10,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zpopmin:zadd",
        requests: &[Request { args: &[Word("ZPOPMIN"), Key], answer: Answer::Scored(1) }, ZADD],
        load: ZSET_OF_10,
        keys: 100_000,
        members: 20,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zincrby",
        requests: &[Request { args: &[Word("ZINCRBY"), Key, Word("1"), Arg::Member], answer: Answer::Score }],
        load: ZSET_OF_10,
        keys: 100_000,
        members: 10,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zrange100",
        requests: &[Request {
            args: &[Word("ZRANGE"), Key, Word("0"), Word("99"), Word("WITHSCORES")],
            answer: Answer::Scored(100),
        }],
        load: Load { count: 100, ..ZSET_OF_10 },
        keys: 10_000,
        members: 0,
        bar: own(4, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zunionstore10k",
        requests: &[Request {
            args: &[Word("ZUNIONSTORE"), Word("union"), Word("2"), Key, Key],
            answer: Answer::Integer,
        }],
        load: Load { count: 10_000, ..ZSET_OF_10 },
        keys: 100,
        members: 0,
        bar: own(1, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "zadd1m",
        requests: &[ZADD],
        load: Load { count: 10_000, ..ZSET_OF_10 },
        keys: 1,
        members: 1_000_000,
        bar: own(16, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "xadd",
        requests: &[Request {
            args: &[Word("XADD"), Key, Word("*"), Word("field"), Value],
            answer: Answer::Text,
        }],
        load: Load { command: "XADD", element: ENTRY, count: 10, named_keys: &[] },
        keys: 1000,
        members: 0,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "xrange100",
        requests: &[Request {
            args: &[Word("XRANGE"), Key, Word("-"), Word("+"), Word("COUNT"), Word("100")],
            answer: Answer::Entries(100),
        }],
        load: Load { command: "XADD", element: ENTRY, count: 100, named_keys: &[] },
        keys: 10_000,
        members: 0,
        bar: own(4, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "hset",
        requests: &[Request { args: &[Word("HSET"), Key, Arg::Member, Value], answer: Answer::Integer }],
        load: HASH_OF_10,
        keys: 100_000,
        members: 10,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "hget",
        requests: &[Request { args: &[Word("HGET"), Key, Arg::Member], answer: Answer::Text }],
        load: HASH_OF_10,
        keys: 100_000,
        members: 10,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "hgetall20",
        requests: &[Request { args: &[Word("HGETALL"), Key], answer: Answer::Texts(40) }],
        load: Load { count: 20, ..HASH_OF_10 },
        keys: 10_000,
        members: 0,
        bar: own(4, 0.60),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "setbit",
        requests: &[Request { args: &[Word("SETBIT"), Key, Below(128), Word("1")], answer: Answer::Integer }],
        load: STRING,
        keys: 100_000,
        members: 0,
        bar: own(16, 0.50),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "getbit",
        requests: &[Request { args: &[Word("GETBIT"), Key, Below(128)], answer: Answer::Integer }],
        load: STRING,
        keys: 100_000,
        members: 0,
        bar: own(16, 0.50),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "bitcount1mb",
        requests: &[Request { args: &[Word("BITCOUNT"), Key], answer: Answer::Integer }],
        load: STRING_OF_1_MIB,
        keys: 16,
        members: 0,
        bar: own(16, 1.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "bitop-and1mb",
        requests: &[Request {
            args: &[Word("BITOP"), Word("AND"), Word("both"), Key, Key],
            answer: Answer::Integer,
        }],
        load: STRING_OF_1_MIB,
        keys: 16,
        members: 0,
        bar: own(16, 1.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "geoadd",
        requests: &[Request {
            args: &[Word("GEOADD"), Key, Longitude, Latitude, Arg::Member],
            answer: Answer::Integer,
        }],
        load: GEO_OF_10,
        keys: 100_000,
        members: 10,
        bar: own(16, 0.50),
        is_long: false,
        scene: Scene::USUAL,
    },
    // Of a million places, about a hundred are in such a circle.
    Named {
        name: "geosearch100",
        requests: &[Request {
            args: &[
                Word("GEOSEARCH"),
                Key,
                Word("FROMLONLAT"),
                Longitude,
                Latitude,
                Word("BYRADIUS"),
                Word("107"),
                Word("km"),
            ],
            answer: Answer::Texts(100),
        }],
        load: Load { count: 10_000, ..GEO_OF_10 },
        keys: 1,
        members: 1_000_000,
        bar: own(16, 0.80),
        is_long: false,
        scene: Scene::USUAL,
    },
    // Most of the members are there, or nothing would keep the strings as short as they are.
    Named {
        name: "pfadd",
        requests: &[Request { args: &[Word("PFADD"), Key, Arg::Member], answer: Answer::Integer }],
        load: HYPERLOGLOG_OF_10,
        keys: 100_000,
        members: 100,
        bar: own(16, 1.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "pfmerge-dense",
        requests: &[Request { args: &[Word("PFMERGE"), Word("union"), Key, Key], answer: Answer::Ok }],
        load: Load { count: 10_000, ..HYPERLOGLOG_OF_10 },
        keys: 100,
        members: 0,
        bar: own(16, 1.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "script-get",
        requests: &[Request {
            args: &[Word("EVALSHA"), Script("return redis.call('GET', KEYS[1])"), Word("1"), Key],
            answer: Answer::Text,
        }],
        load: STRING,
        keys: 100_000,
        members: 0,
        bar: own(16, 0.35),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "script-limiter",
        requests: &[Request {
            args: &[
                Word("EVALSHA"),
                Script(
                    "local count = redis.call('INCR', KEYS[1]) redis.call('EXPIRE', KEYS[1], ARGV[1]) return count",
                ),
                Word("1"),
                Key,
                Word("1000"),
            ],
            answer: Answer::Integer,
        }],
        load: NUMBER,
        keys: 100_000,
        members: 0,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "script-100-calls",
        requests: &[Request {
            args: &[
                Word("EVALSHA"),
                Script("for _ = 1, 100 do redis.call('INCR', KEYS[1]) end return redis.call('GET', KEYS[1])"),
                Word("1"),
                Key,
            ],
            answer: Answer::Score,
        }],
        load: NUMBER,
        keys: 10_000,
        members: 0,
        bar: own(16, 0.40),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "script-cjson",
        requests: &[Request {
            args: &[
                Word("EVALSHA"),
                Script("return #cjson.encode(cjson.decode(redis.call('GET', KEYS[1])))"),
                Word("1"),
                Key,
            ],
            answer: Answer::Integer,
        }],
        load: Load { element: &[Word(DOCUMENT)], ..STRING },
        keys: 1000,
        members: 0,
        bar: own(16, 1.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "publish100",
        requests: &[PUBLISH],
        load: STRING,
        keys: 1,
        members: 0,
        bar: own(16, 0.50),
        is_long: false,
        scene: Scene { subscribers: Some(SUBSCRIBERS_OF_PUBLISH), ..Scene::USUAL },
    },
    Named {
        name: "set-event",
        requests: &[SET],
        load: STRING_OF_64,
        keys: 1_000_000,
        members: 0,
        bar: own(16, 0.60),
        is_long: false,
        scene: Scene {
            directives: &[("notify-keyspace-events", "KEA", "")],
            subscribers: Some(Subscribers {
                count: 1,
                channel: "__keyevent@0__:set",
                payload_len_bytes: TEXT_LEN_BYTES,
            }),
            ..Scene::USUAL
        },
    },
    Named {
        name: "get-acl",
        requests: &[Request { args: &[Word("GET"), Key], answer: Answer::Payload(64) }],
        load: STRING_OF_64,
        keys: 1_000_000,
        members: 0,
        bar: own(16, 0.50),
        is_long: false,
        scene: Scene {
            user_rules: &[
                "on",
                "nopass",
                "+@all",
                "~cache:*",
                "~cart:*",
                "~coupon:*",
                "~count:*",
                "~cookie:*",
                "~code:*",
                "~comment:*",
                "~company:*",
                "~city:*",
                "~col:*",
            ],
            ..Scene::USUAL
        },
    },
    // A key of two is there, and each other SET drives one out.
    Named {
        name: "set-evict",
        requests: &[SET],
        load: STRING_OF_64,
        keys: 2_000_000,
        members: 0,
        bar: own(16, 0.50),
        is_long: false,
        scene: Scene {
            directives: &[("maxmemory-policy", "allkeys-lru", "noeviction")],
            is_full: true,
            ..Scene::USUAL
        },
    },
    // Of two shards, either has half of the subscribers.
    Named {
        name: "publish100-shards",
        requests: &[PUBLISH],
        load: STRING,
        keys: 1,
        members: 0,
        bar: several(16, 1.4),
        is_long: false,
        scene: Scene { subscribers: Some(SUBSCRIBERS_OF_PUBLISH), ..Scene::USUAL },
    },
    Named {
        name: "script-declared",
        requests: &[Request {
            args: &[
                Word("EVALSHA"),
                Script("redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])"),
                Word("2"),
                Arg::Tagged(TWO_SHARDS[0]),
                Arg::Tagged(TWO_SHARDS[1]),
            ],
            answer: Answer::Integer,
        }],
        load: NUMBER,
        keys: 100_000,
        members: 0,
        bar: several(16, 3.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    // Every call leaves the keys that it has declared: none.
    Named {
        name: "script-undeclared",
        requests: &[Request {
            args: &[
                Word("EVALSHA"),
                Script(
                    "redis.call('INCR', '{side:a}'..ARGV[1]) return redis.call('INCR', '{side:c}'..ARGV[1])",
                ),
                Word("0"),
                Below(100_000),
            ],
            answer: Answer::Integer,
        }],
        load: NUMBER,
        keys: 100_000,
        members: 0,
        bar: several(16, 4.0),
        is_long: false,
        scene: Scene::USUAL,
    },
    // Of two shards, half of the pairs are on both.
    Named {
        name: "lmove",
        requests: &[Request {
            args: &[Word("LMOVE"), Key, Key, Word("LEFT"), Word("RIGHT")],
            answer: Answer::Text,
        }],
        load: LIST_OF_10,
        keys: 100_000,
        members: 0,
        bar: several(16, 2.5),
        is_long: false,
        scene: Scene::USUAL,
    },
    Named {
        name: "sunion1m",
        requests: &[Request {
            args: &[Word("SUNION"), Word(TWO_SHARDS[0]), Word(TWO_SHARDS[1])],
            answer: Answer::Texts(1_500_000),
        }],
        load: Load { count: 10_000, named_keys: &TWO_SHARDS, ..SET_OF_10 },
        keys: 2,
        members: 1_000_000,
        bar: several(1, 1.5),
        is_long: true,
        scene: Scene::USUAL,
    },
    Named {
        name: "zunionstore1m",
        requests: &[Request {
            args: &[Word("ZUNIONSTORE"), Word("union"), Word("2"), Word(TWO_SHARDS[0]), Word(TWO_SHARDS[1])],
            answer: Answer::Integer,
        }],
        load: Load { count: 10_000, named_keys: &TWO_SHARDS, ..ZSET_OF_10 },
        keys: 2,
        members: 1_000_000,
        bar: several(1, 1.5),
        is_long: true,
        scene: Scene::USUAL,
    },
];

fn numbered(prefix: &[u8; 4], number: u64) -> [u8; TEXT_LEN_BYTES] {
    let mut text = [0; TEXT_LEN_BYTES];
    text[..4].copy_from_slice(prefix);
    write_digits(number, &mut text[4..]);
    text
}

/// An argument's bytes.
fn arg_bytes(arg: Arg, key: u64, member: u64, rng: &mut Rng) -> Vec<u8> {
    match arg {
        Word(word) => word.as_bytes().to_vec(),
        Key => numbered(KEY_PREFIX, key).to_vec(),
        Arg::Tagged(tag) => format!("{{{tag}}}{key}").into_bytes(),
        Arg::Member => numbered(MEMBER_PREFIX, member).to_vec(),
        Value => text(TEXT_LEN_BYTES, rng),
        Payload(len) => text(len, rng),
        Score => rng.u64(100_000..1_000_000).to_string().into_bytes(),
        Below(end) => rng.u64(..end).to_string().into_bytes(),
        Longitude => degrees(180.0, rng),
        Latitude => degrees(LATITUDE_MAX, rng),
        Mebibyte => {
            let mut bytes = vec![0; 1 << 20];
            rng.fill(&mut bytes);
            bytes
        }
        Script(text) => Sha1::from(text).digest().to_string().into_bytes(),
    }
}

fn text(len_bytes: usize, rng: &mut Rng) -> Vec<u8> {
    let mut value = vec![0; len_bytes];
    fill_text_value(rng, &mut value);
    value
}

/// Degrees in -max..max.
fn degrees(max: f64, rng: &mut Rng) -> Vec<u8> {
    format!("{:.6}", (2.0 * rng.f64() - 1.0) * max).into_bytes()
}

impl Named {
    /// Appends the request of turn `turn`.
    pub fn write(&self, out: &mut Vec<u8>, turn: usize, rng: &mut Rng) {
        let request = &self.requests[turn % self.requests.len()];
        let args: Vec<Vec<u8>> = request
            .args
            .iter()
            .map(|&arg| arg_bytes(arg, rng.u64(..self.keys), rng.u64(..self.members.max(1)), rng))
            .collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        write_command(out, &args);
    }

    /// The scripts that its requests run by their SHA-1.
    pub fn scripts(&self) -> impl Iterator<Item = &'static str> {
        let args = self.requests.iter().flat_map(|request| request.args);
        args.filter_map(|arg| match arg {
            Script(text) => Some(*text),
            Word(_)
            | Key
            | Arg::Tagged(_)
            | Arg::Member
            | Value
            | Payload(_)
            | Score
            | Below(_)
            | Longitude
            | Latitude
            | Mebibyte => None,
        })
    }

    /// How many commands make the collections.
    pub fn load_count(&self) -> u64 {
        match self.keys {
            keys if self.load.is_one_by_one() => keys * self.load.count,
            keys if !self.load.named_keys.is_empty() => keys * self.members.div_ceil(self.load.count),
            1 => self.members.div_ceil(self.load.count).max(1),
            keys if self.scene.is_full => keys / 2,
            keys => keys,
        }
    }

    /// Appends command `number` of those that make the collections.
    pub fn write_load(&self, out: &mut Vec<u8>, number: u64, rng: &mut Rng) {
        let Load { command, element, count, named_keys } = self.load;
        let (key, members) = match self.keys {
            keys if self.load.is_one_by_one() => (number % keys, 0..1),
            keys if !named_keys.is_empty() => {
                let (key, first) = (number % keys, number / keys * count + number % keys * self.members / 2);
                (key, first..first + count)
            }
            1 => (0, number * count..(number + 1) * count),
            _ if self.scene.is_full => (2 * number, 0..count),
            _ => (number, 0..count),
        };
        let name = match named_keys.get(key as usize) {
            Some(name) => name.as_bytes().to_vec(),
            None => numbered(KEY_PREFIX, key).to_vec(),
        };
        let mut args = vec![command.as_bytes().to_vec(), name];
        for member in members {
            args.extend(element.iter().map(|&arg| arg_bytes(arg, key, member, rng)));
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        write_command(out, &args);
    }

    /// About how many bytes one request and its reply put on the wire.
    pub fn wire_len_bytes(&self) -> usize {
        let arg_len = |arg: &Arg| match arg {
            Payload(len) => len + 10,
            _ => TEXT_LEN_BYTES + 10,
        };
        let len = |request: &Request| {
            request.args.iter().map(arg_len).sum::<usize>() + request.answer.bytes().len()
        };
        self.requests.iter().map(len).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_requests_begin_with_their_command() {
        let names: BTreeSet<&str> = NAMED.iter().map(|named| named.name).collect();
        assert_eq!(names.len(), NAMED.len());
        for named in NAMED {
            assert!(
                named.requests.iter().all(|request| matches!(request.args[0], Word(_))),
                "{}",
                named.name
            );
        }
    }

    #[test]
    fn a_script_is_asked_for_by_its_sha() {
        let named = NAMED.iter().find(|named| named.name == "script-get").unwrap();
        assert_eq!(named.scripts().collect::<Vec<_>>(), ["return redis.call('GET', KEYS[1])"]);
        let mut out = Vec::new();
        named.write(&mut out, 0, &mut Rng::with_seed(1));
        let text = String::from_utf8(out).unwrap();
        let beginning =
            "*4\r\n$7\r\nEVALSHA\r\n$40\r\nd3c21d0c2b9ca22f82737626a27bcaf5d288f99f\r\n$1\r\n1\r\n";
        assert!(text.starts_with(beginning), "{text}");
    }

    #[test]
    fn the_requests_of_an_operation_come_in_turn() {
        let mut out = Vec::new();
        NAMED[0].write(&mut out, 0, &mut Rng::with_seed(1));
        NAMED[0].write(&mut out, 1, &mut Rng::with_seed(1));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("*3\r\n$5\r\nLPUSH\r\n$16\r\ncol:"), "{text}");
        assert!(text.contains("*2\r\n$4\r\nRPOP\r\n$16\r\ncol:"), "{text}");
    }
}
