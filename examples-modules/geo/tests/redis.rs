//! The module in redis-server 7.0, beside Redis' own geo commands: random commands go to both, and the replies are compared
//! byte for byte. SEED is the seed of the random commands, COUNT their number.

use shardis_modules_testing::{Library, PREFIX, Random, Server, from_environment};
use std::fs;

const COMMANDS: [&str; 10] = [
    "geoadd",
    "geodist",
    "geohash",
    "geopos",
    "geosearch",
    "geosearchstore",
    "georadius",
    "georadius_ro",
    "georadiusbymember",
    "georadiusbymember_ro",
];

/// A server with the module. None if there is none to compare with.
fn start(options: &[&str]) -> Option<Server> {
    Server::start(Library::Package("shardis-geo"), &["PREFIX", PREFIX], options)
}

/// Makes commands, many of which are wrong in some way.
struct Commands(Random);

impl Commands {
    fn chance(&mut self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    fn one(&mut self, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        words[self.0.below(words.len() as u64) as usize].to_string()
    }

    fn key(&mut self) -> String {
        if self.chance(93) { self.one("k1 k2 k3 d1 d2") } else { self.one("string none") }
    }

    fn member(&mut self) -> String {
        match self.0.below(10) {
            0 => self.one("12 3.5 -7 \u{e9}"),
            1 => "long".repeat(30),
            _ => format!("m{}", self.0.below(60)),
        }
    }

    /// A coordinate in -max..=max, or something else.
    fn coordinate(&mut self, max: f64) -> String {
        let value = (2.0 * self.0.unit() - 1.0) * max;
        match self.0.below(20) {
            0 => self.one(
                "nan inf -inf abc  1e2 0x10 +5 -0 1e400 .5 5. --1 1_0 - 181 -86 1e-5 180 -180 85.05112878 -85.05112878",
            ),
            1..10 => format!("{value:.*}", self.0.below(7) as usize),
            10..13 => format!("{:.0}", value / 10.0),
            13..16 => format!("{}", value / 1000.0),
            _ => format!("{value}"),
        }
    }

    fn position(&mut self) -> Vec<String> {
        vec![self.coordinate(180.0), self.coordinate(85.0)]
    }

    fn size(&mut self) -> String {
        match self.0.below(25) {
            0 => self.one("-1 abc 0 inf nan 1e300 -0 0.0 0x1p4"),
            1..18 => format!("{:.*}", self.0.below(4) as usize, 10f64.powf(5.0 * self.0.unit())),
            _ => self.0.below(20_000).to_string(),
        }
    }

    fn unit(&mut self) -> String {
        if self.chance(97) { self.one("m km ft mi M Km KM FT Mi") } else { self.one("cm kmm ") }
    }

    fn word(&mut self, word: &str) -> String {
        if self.chance(70) { word.to_string() } else { word.to_lowercase() }
    }

    fn centre(&mut self) -> Vec<String> {
        match self.0.below(20) {
            0 => vec![],
            1 => vec!["FROMMEMBER".into(), self.member(), "FROMLONLAT".into(), "1".into(), "1".into()],
            2..12 => vec![self.word("FROMMEMBER"), self.member()],
            _ => [vec![self.word("FROMLONLAT")], self.position()].concat(),
        }
    }

    fn extent(&mut self) -> Vec<String> {
        match self.0.below(20) {
            0 => vec![],
            1 => {
                let more = self.one("BYRADIUS,5,m,BYRADIUS,7,km BYRADIUS,1,m,BYBOX,1,1,m BYBOX,1,m");
                more.split(',').map(str::to_string).collect()
            }
            2..11 => vec![self.word("BYRADIUS"), self.size(), self.unit()],
            _ => vec![self.word("BYBOX"), self.size(), self.size(), self.unit()],
        }
    }

    fn options(&mut self, details: bool, stores: bool) -> Vec<String> {
        let mut options = Vec::new();
        for _ in 0..self.0.below(5) {
            match self.0.below(if details { 9 } else { 4 }) {
                0 => options.push(self.word("ASC")),
                1 => options.push(self.word("DESC")),
                2 => options
                    .extend([self.word("COUNT"), self.one("1 2 3 5 10 1000 0 -1 x 99999999999999999999")]),
                3 => options.extend([self.word("COUNT"), self.one("1 2 5 10"), self.word("ANY")]),
                4 | 5 => options.push(self.word("WITHDIST")),
                6 => options.push(self.word("WITHHASH")),
                7 => options.push(self.word("WITHCOORD")),
                _ if self.chance(10) => options.push(self.one("ANY bad STORE STOREDIST COUNT")),
                _ => {}
            }
        }
        if stores {
            for _ in 0..1 + self.0.below(5) / 4 {
                options.extend([self.one("STORE STOREDIST storeDist"), self.key()]);
            }
        }
        options
    }

    fn next(&mut self) -> Vec<String> {
        let stores = self.chance(35);
        let details = !stores || self.chance(20);
        let read_only = if self.chance(30) { "_RO" } else { "" };
        match self.0.below(100) {
            0..22 => {
                let mut words = vec!["GEOADD".into(), self.key()];
                for option in ["NX", "XX", "CH"] {
                    if self.chance(20) {
                        words.push(self.word(option));
                    }
                }
                for _ in 0..1 + self.0.below(4) * self.0.below(3) {
                    words.extend(self.position());
                    words.push(self.member());
                }
                if self.chance(2) {
                    words.pop();
                }
                words
            }
            22..27 => {
                let mut words = vec!["GEODIST".into(), self.key(), self.member(), self.member()];
                for _ in 0..self.0.below(5) / 2 {
                    words.push(self.unit());
                }
                words
            }
            27..37 => {
                let mut words = vec![self.one("GEOHASH GEOPOS"), self.key()];
                for _ in 0..self.0.below(5) {
                    words.push(self.member());
                }
                words
            }
            37..57 => {
                let mut parts = [self.centre(), self.extent(), self.options(true, false)];
                parts.rotate_left(self.0.below(3) as usize);
                [vec!["GEOSEARCH".into(), self.key()], parts.concat()].concat()
            }
            57..69 => {
                let mut parts = [self.centre(), self.extent(), self.options(false, false), vec![]];
                if self.chance(40) {
                    parts[3].push(self.word("STOREDIST"));
                }
                parts.rotate_left(self.0.below(4) as usize);
                [vec!["GEOSEARCHSTORE".into(), self.key(), self.key()], parts.concat()].concat()
            }
            69..80 => [
                vec![format!("GEORADIUS{read_only}"), self.key()],
                self.position(),
                vec![self.size(), self.unit()],
                self.options(details, stores),
            ]
            .concat(),
            80..91 => [
                vec![
                    format!("GEORADIUSBYMEMBER{read_only}"),
                    self.key(),
                    self.member(),
                    self.size(),
                    self.unit(),
                ],
                self.options(details, stores),
            ]
            .concat(),
            91..93 => vec!["DEL".into(), self.key()],
            93 => vec!["SET".into(), self.one("string d1"), "x".into()],
            94 => vec!["EXPIRE".into(), self.key(), "1000".into()],
            95 => vec!["TTL".into(), self.key()],
            // Scores that no position has.
            96 | 97 => {
                let score = self.one("-1 1e300 inf -inf 0.5 3479099956230698 1e17 -1e17 9223372036854775808");
                vec!["ZADD".into(), self.key(), score, self.member()]
            }
            _ => vec!["ZRANGE".into(), self.key(), "0".into(), "-1".into(), "WITHSCORES".into()],
        }
    }
}

/// The same command for the module: it has Redis' names behind the prefix.
fn of_module(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    if words[0].starts_with("GEO") {
        words[0] = format!("{PREFIX}{}", words[0]);
    }
    words
}

/// Error texts have the command's name in them.
fn without_prefix(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply)
        .replace(&format!("for {PREFIX}"), "for ")
        .replace(&format!("'{PREFIX}"), "'")
}

#[test]
fn replies_and_keys_are_those_of_the_commands_of_redis() {
    let Some(server) = start(&[]) else { return };
    let count = from_environment("COUNT").unwrap_or(10_000);
    let (mut redis, mut module) = (server.connect(), server.connect());
    module.line("SELECT 1");
    let mut commands = Commands(Random::new("replies_and_keys_are_those_of_the_commands_of_redis"));
    let (mut answered, mut refused) = (0, 0);
    for at in 0..count {
        if at % 1000 == 0 {
            let hello = if at / 1000 % 2 == 0 { "HELLO 2" } else { "HELLO 3" };
            redis.line(hello);
            module.line(hello);
        }
        let words = commands.next();
        let (expected, reply) = (redis.call(&words), module.call(&of_module(&words)));
        assert_eq!(without_prefix(&reply), String::from_utf8_lossy(&expected), "{at}: {words:?}");
        if expected.starts_with(b"-") {
            refused += 1;
        } else {
            answered += 1;
        }
        if at % 100 == 0 {
            for key in ["k1", "k2", "k3", "d1", "d2"] {
                let digest = format!("DEBUG DIGEST-VALUE {key}");
                assert_eq!(module.line(&digest), redis.line(&digest), "{at}: {key} after {words:?}");
            }
        }
    }
    assert!(answered > count / 3 && refused > count / 20, "{answered} {refused}");
}

#[test]
fn descriptions_are_those_of_the_commands_of_redis() {
    let Some(server) = start(&[]) else { return };
    let mut client = server.connect();
    for command in COMMANDS {
        // What only Shardis takes from a module: group, deprecation, and, until 7.2, ACL categories.
        let docs = |reply: String| {
            let lines: Vec<String> = reply.lines().map(str::to_string).collect();
            let mut kept = Vec::new();
            let mut at = 2;
            while at < lines.len() {
                at += match lines[at].as_str() {
                    "group" | "module" | "replaced_by" | "deprecated_since" => 4,
                    "doc_flags" => 4,
                    line => {
                        if !line.starts_with(['$', '*', '%']) {
                            kept.push(line.to_string());
                        }
                        1
                    }
                };
            }
            kept[1..].join("\n")
        };
        let expected = docs(client.line(&format!("COMMAND DOCS {command}")));
        assert_eq!(docs(client.line(&format!("COMMAND DOCS {PREFIX}{command}"))), expected, "{command}");

        let info = |reply: String| {
            let reply = reply.replace("+module\r\n", "");
            let lines =
                reply.lines().filter(|line| !line.starts_with(['*', '$', '@']) && !line.starts_with("+@"));
            lines.skip(1).map(str::to_string).collect::<Vec<_>>().join("\n")
        };
        let expected = info(client.line(&format!("COMMAND INFO {command}")));
        assert!(expected.contains("index"), "{expected}");
        assert_eq!(info(client.line(&format!("COMMAND INFO {PREFIX}{command}"))), expected);
    }
    for arguments in [
        "georadius k 0 0 1 m store a",
        "georadius k 0 0 1 m asc storedist a",
        "georadiusbymember k m 1 m",
        "geosearchstore d s frommember a bybox 1 1 m",
        "geoadd k 0 0 m",
    ] {
        let expected = client.line(&format!("COMMAND GETKEYSANDFLAGS {arguments}"));
        assert_eq!(
            client.line(&format!("COMMAND GETKEYSANDFLAGS {PREFIX}{arguments}")),
            expected,
            "{arguments}"
        );
    }
}

/// What changes keys, and what tries to but does not.
const WRITES: [&str; 14] = [
    "GEOADD k 13.361389 38.115556 a 15.087269 37.502669 b",
    "GEOADD k 13.361389 38.115556 a",
    "GEOADD k NX CH 1 1 a 2 2 c",
    "GEOADD k XX CH 1 1 a 2 2 d",
    "GEOADD none XX 1 1 a",
    "GEOSEARCHSTORE d k FROMMEMBER b BYRADIUS 1 km",
    "GEOSEARCHSTORE d k FROMLONLAT 50 50 BYRADIUS 1 km",
    "GEOSEARCHSTORE d k FROMLONLAT 50 50 BYRADIUS 1 km",
    "GEOSEARCHSTORE d k FROMMEMBER b BYBOX 9000 9000 km STOREDIST",
    "GEORADIUS k 15 37 200 km STORE d",
    "GEORADIUSBYMEMBER k b 200 km STOREDIST e",
    "GEORADIUS none 15 37 200 km STORE d",
    "GEOSEARCHSTORE k k FROMMEMBER b BYRADIUS 1 km",
    "GEORADIUS k 15 37 200 km",
];

#[test]
fn watchers_of_the_keyspace_see_the_same_events() {
    let Some(server) = start(&["--notify-keyspace-events", "EA"]) else { return };
    let mut client = server.connect();
    let mut events = |db: &str, prefix: &str| {
        let mut watcher = server.connect();
        watcher.line(&format!("PSUBSCRIBE __keyevent@{db}__:*"));
        client.line(&format!("SELECT {db}"));
        for write in WRITES {
            client.line(&format!("{prefix}{write}"));
        }
        client.line("SET last x");
        let mut seen = Vec::new();
        loop {
            let message = watcher.read().replace(&format!("@{db}_"), "@_");
            let is_last = message.contains("last");
            seen.push(message);
            if is_last {
                return seen;
            }
        }
    };
    let expected = events("0", "");
    assert_eq!(expected.len(), 11, "{expected:?}");
    assert_eq!(events("1", PREFIX), expected);
}

#[test]
fn the_append_only_file_has_the_same_effects() {
    let Some(server) = start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let mut client = server.connect();
    for (db, prefix) in [("0", ""), ("1", PREFIX)] {
        client.line(&format!("SELECT {db}"));
        for write in WRITES {
            client.line(&format!("{prefix}{write}"));
        }
    }
    let mut effects = String::new();
    for entry in fs::read_dir(server.directory().join("appendonlydir")).expect("it is there") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().ends_with(".incr.aof") {
            effects = String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned();
        }
    }
    let words: Vec<&str> = effects.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    let effects = words.join(" ").replace(PREFIX, "");
    let (_, after) = effects.split_once("SELECT 0 ").expect("the first database");
    let (redis, module) = after.split_once(" SELECT 1 ").expect("the second database");
    assert!(redis.starts_with("zadd k 3479099956230698 a "), "{redis}");
    assert!(redis.contains("GEOSEARCHSTORE") && redis.contains("STOREDIST"), "{redis}");
    assert_eq!(module, redis);
}
