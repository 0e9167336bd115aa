//! RediSearch 1.2.2 as Debian ships it, a C module with threads and types of its own that knows nothing of this server: it gives
//! the answers that it gives in redis-server 7.0.15.

use super::expect;
use crate::harness::{Connection, PATIENCE, Server, Setup, free_port, leave_out, wait_until};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const MODULE: &str = "/usr/lib/redis/modules/redisearch.so";

const SETUPS: [Setup; 2] =
    [Setup { shards: 1, io_backend: "auto" }, Setup { shards: 4, io_backend: "epoll" }];

const WORDS: [&str; 20] = [
    "red", "green", "blue", "fast", "slow", "car", "bike", "house", "tree", "river", "stone", "cloud",
    "apple", "pear", "lemon", "query", "index", "shard", "core", "memory",
];

/// Whether the module is here; says so if not.
fn is_installed() -> bool {
    let is_here = Path::new(MODULE).exists();
    if !is_here {
        leave_out(&format!("no {MODULE} (apt-get install redis-redisearch)"));
    }
    is_here
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }

    fn words(&mut self, count: usize) -> String {
        (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }
}

/// How far an answer is determined.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Compared {
    Whole,
    /// The fields of a document come in the order of a hash table.
    WithoutOrder,
    /// Two real servers differ in more: with an optional word, the module ranks documents by memory that it has not set.
    Count,
}

fn words_of(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_string).collect()
}

fn commands(seed: u64) -> Vec<(Vec<String>, Compared)> {
    let mut random = Random(seed);
    let mut all = Vec::new();
    let mut add = |line: Vec<String>, compared| all.push((line, compared));
    let schema = "FT.CREATE idx SCHEMA title TEXT WEIGHT 5.0 body TEXT price NUMERIC SORTABLE tag TAG";
    for line in [schema, "FT.CREATE idx SCHEMA x TEXT", "FT.INFO nosuch"] {
        add(words_of(line), Compared::Whole);
    }
    for number in 0..150 {
        let mut line = words_of(&format!("FT.ADD idx doc{number} 1.0 FIELDS title"));
        line.push(random.words(3));
        line.extend(["body".into(), random.words(20)]);
        line.extend(words_of(&format!("price {} tag {}", random.below(1000), random.words(1))));
        add(line, Compared::Whole);
    }
    for line in [
        "FT.ADD idx doc1 1.0 FIELDS title again",
        "FT.ADD idx doc1 1.0 REPLACE FIELDS title lemon body x price 7 tag red",
        "FT.AGGREGATE idx * GROUPBY 1 @tag REDUCE COUNT 0 AS n SORTBY 2 @tag ASC",
        "FT.AGGREGATE idx red GROUPBY 1 @tag REDUCE SUM 1 @price AS s SORTBY 2 @tag ASC",
    ] {
        add(words_of(line), Compared::Whole);
    }
    for _ in 0..40 {
        let (a, b) = (random.words(1), random.words(1));
        let (query, is_optional) = match random.below(6) {
            0 => (format!("{a} {b}"), false),
            1 => (format!("{a}|{b}"), false),
            2 => (format!("{a} -{b}"), false),
            3 => (format!("@title:{a} {b}"), false),
            4 => (format!("\"{a} {b}\""), false),
            _ => (format!("{a} ~{b}"), true),
        };
        let search = |rest: &str| {
            [&["FT.SEARCH".to_string(), "idx".into(), query.clone()][..], &words_of(rest)].concat()
        };
        let ranked = if is_optional { Compared::Count } else { Compared::Whole };
        add(search("NOCONTENT LIMIT 0 20"), ranked);
        add(search("SORTBY price LIMIT 0 5"), Compared::WithoutOrder);
        add(vec!["FT.EXPLAIN".into(), "idx".into(), query.clone()], Compared::Whole);
        let from = random.below(500);
        let prices = format!("@price:[{from} {}]", from + 200);
        let line = ["FT.SEARCH", "idx", &prices, "SORTBY", "price", "NOCONTENT"].map(String::from);
        add(line.to_vec(), Compared::Whole);
        let tags = format!("@tag:{{{a}}}");
        let line =
            ["FT.SEARCH", "idx", &tags, "SORTBY", "price", "WITHSCORES", "NOCONTENT"].map(String::from);
        add(line.to_vec(), Compared::Whole);
    }
    for word in WORDS {
        add(words_of(&format!("FT.SUGADD sug {word} {}", 1 + random.below(9))), Compared::Whole);
    }
    for line in ["FT.SUGGET sug s", "FT.SUGGET sug re FUZZY WITHSCORES", "FT.SUGLEN sug", "FT.SUGDEL sug red"]
    {
        add(words_of(line), Compared::Whole);
    }
    for (line, compared) in [
        ("FT.DEL idx doc5", Compared::Whole),
        ("FT.DEL idx doc5", Compared::Whole),
        ("FT.GET idx doc6", Compared::WithoutOrder),
        ("FT.MGET idx doc6 doc7 nosuch", Compared::WithoutOrder),
        ("FT.TAGVALS idx tag", Compared::WithoutOrder),
        ("HGETALL doc8", Compared::WithoutOrder),
        ("DBSIZE", Compared::Whole),
        ("SAVE", Compared::Whole),
        ("FT.SEARCH idx red NOCONTENT", Compared::Whole),
        ("FT.DROP idx", Compared::Whole),
        ("FT.SEARCH idx red", Compared::Whole),
        ("DBSIZE", Compared::Whole),
    ] {
        add(words_of(line), compared);
    }
    all
}

fn answers(client: &mut Connection, commands: &[(Vec<String>, Compared)]) -> Vec<Vec<String>> {
    let answer = |(words, compared): &(Vec<String>, Compared)| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let reply = client.call(&words);
        let mut lines: Vec<String> = reply.split("\r\n").map(str::to_string).collect();
        match compared {
            Compared::Whole => {}
            Compared::WithoutOrder => lines.sort_unstable(),
            Compared::Count => lines.truncate(2),
        }
        lines
    };
    commands.iter().map(answer).collect()
}

/// The answers of redis-server.
fn of_redis(dir: &str, commands: &[(Vec<String>, Compared)]) -> Vec<Vec<String>> {
    let port = free_port();
    let mut redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--save", "", "--dir", dir, "--loadmodule", MODULE])
        .stdout(Stdio::null())
        .spawn()
        .expect("the module's package needs redis-server");
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "it starts");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let answers = answers(&mut Connection::to(port), commands);
    redis.kill().expect("it runs");
    redis.wait().expect("it was a child");
    answers
}

fn dir(name: &str) -> String {
    let dir = std::env::temp_dir().join(format!("shardis-search-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("it can be made");
    dir.to_str().expect("a path in UTF-8").to_string()
}

#[test]
fn redisearch_answers_as_in_redis() {
    if !is_installed() {
        return;
    }
    for seed in 1..=2 {
        let commands = commands(seed);
        let dir_of_redis = dir(&format!("redis-{seed}"));
        let expected = of_redis(&dir_of_redis, &commands);
        std::fs::remove_dir_all(dir_of_redis).expect("it can be removed");
        for setup in SETUPS {
            let dir = dir(&format!("answers-{seed}-{}", setup.shards));
            let server = Server::start_with(setup, &["--loadmodule", MODULE, "--dir", &dir, "--save", ""]);
            let mut client = server.connect();
            let found = answers(&mut client, &commands);
            for ((command, expected), found) in commands.iter().zip(&expected).zip(&found) {
                assert_eq!(found, expected, "{setup:?}, seed {seed}: {command:?}");
            }
            drop(server);
            std::fs::remove_dir_all(dir).expect("it can be removed");
        }
    }
}

#[test]
fn redisearch_serves_many_clients_and_finds_its_index_after_a_restart() {
    const CLIENTS: usize = 4;
    const DOCUMENTS: usize = 60;
    if !is_installed() {
        return;
    }
    for setup in SETUPS {
        let dir = dir("clients");
        let options = ["--loadmodule", MODULE, "--dir", dir.as_str(), "--save", ""];
        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        expect(
            &mut client,
            &["FT.CREATE", "idx", "SCHEMA", "body", "TEXT", "n", "NUMERIC", "SORTABLE"],
            "+OK\r\n",
        );
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    for at in 0..DOCUMENTS {
                        let (name, n) = (format!("doc:{number}:{at}"), (number * DOCUMENTS + at).to_string());
                        let body = format!("common word{number}");
                        let add = ["FT.ADD", "idx", &name, "1.0", "FIELDS", "body", &body, "n", &n];
                        expect(&mut client, &add, "+OK\r\n");
                        let found =
                            client.call(&["FT.SEARCH", "idx", "common", "NOCONTENT", "LIMIT", "0", "1"]);
                        assert!(found.starts_with("*2\r\n:"), "{found}");
                        expect(&mut client, &["SET", &format!("plain:{number}:{at}"), "x"], "+OK\r\n");
                    }
                });
            }
        });
        let asked = |client: &mut Connection| {
            let mut all = Vec::new();
            for number in 0..CLIENTS {
                let word = format!("word{number}");
                all.push(client.call(&[
                    "FT.SEARCH",
                    "idx",
                    &word,
                    "NOCONTENT",
                    "SORTBY",
                    "n",
                    "LIMIT",
                    "0",
                    "100",
                ]));
            }
            all
        };
        let before = asked(&mut client);
        assert_eq!(before[0].matches("doc:").count(), DOCUMENTS);
        expect(&mut client, &["SAVE"], "+OK\r\n");
        drop(server);

        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        wait_until("it has loaded", || client.call(&["PING"]) == "+PONG\r\n");
        assert_eq!(asked(&mut client), before, "{setup:?}");
        drop(server);
        std::fs::remove_dir_all(dir).expect("it can be removed");
    }
}
