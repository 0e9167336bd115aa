//! Modules against the commands of the same names in a real redis-server 7.0: the module's library is loaded there with a
//! prefix, random commands go both ways, each to a database of its own, and everything a client can see is compared.
//!
//! Without a redis-server on PATH, or where REDIS_SERVER says, there is nothing to compare with, and the test says so.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the names of the module's commands begin with.
const PREFIX: &str = "x.";

/// A request: the name and the arguments.
pub type Request = Vec<Vec<u8>>;

/// A request in words.
pub fn request(text: &str) -> Request {
    text.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

/// xorshift64*, of a printed seed.
pub struct Random(u64);

impl Random {
    /// With a fresh seed, or the one in the environment's SEED; prints it.
    pub fn new(test: &str) -> Random {
        let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("{test}: SEED={seed}");
        Random(seed | 1)
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 31) % bound
    }

    pub fn pick<'l>(&mut self, list: &[&'l str]) -> &'l str {
        list[self.below(list.len() as u64) as usize]
    }
}

pub struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// A redis-server with the library of this package. None if there is no redis-server.
    pub fn start(package: &str) -> Option<Server> {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_string());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--save", "", "--notify-keyspace-events", "EA"]);
        command.arg("--loadmodule").arg(library(package)).args(["PREFIX", PREFIX]);
        let process = match command.stdout(Stdio::null()).spawn() {
            Ok(process) => process,
            Err(error) => {
                eprintln!("nothing was tested, for redis-server does not start: {error}");
                return None;
            }
        };
        let server = Server { process, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        Client { stream: BufReader::new(stream) }
    }
}

/// The library that a server loads. A test alone would not build it.
fn library(package: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("target/profile/deps");
    let profile = match target.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => panic!("{} has no name", target.display()),
    };
    let dir: &Path = target.parent().expect("target");
    let dir = dir.join("loadable");
    let built = Command::new(env!("CARGO"))
        .args(["rustc", "--quiet", "--package", package, "--features", "loadable", "--profile", profile])
        .args(["--crate-type", "cdylib"])
        .arg("--target-dir")
        .arg(&dir)
        .status();
    assert!(built.expect("cargo runs").success(), "{package} does not compile");
    let name = format!("lib{}.so", package.replace('-', "_"));
    dir.join(target.file_name().expect("a profile")).join(name)
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// The replies as they came.
    fn call_all(&mut self, requests: &[Request]) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend(format!("*{}\r\n", request.len()).bytes());
            for argument in request {
                bytes.extend(format!("${}\r\n", argument.len()).bytes());
                bytes.extend(argument);
                bytes.extend(b"\r\n");
            }
        }
        self.stream.get_mut().write_all(&bytes).expect("the server reads");
        requests.iter().map(|_| self.reply()).collect()
    }

    /// The same, of requests in words.
    fn text(&mut self, requests: &[&str]) -> Vec<String> {
        let requests: Vec<Request> = requests.iter().map(|text| request(text)).collect();
        let replies = self.call_all(&requests);
        replies.iter().map(|reply| String::from_utf8_lossy(reply).into_owned()).collect()
    }

    fn reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        let mut missing = 1;
        while missing > 0 {
            missing -= 1;
            let begin = reply.len();
            self.stream.read_until(b'\n', &mut reply).expect("the server replies");
            let line = String::from_utf8_lossy(&reply[begin..]).trim_end().to_string();
            let Some((kind, rest)) = line.split_at_checked(1) else {
                panic!("the server is gone: {reply:?}")
            };
            let len: i64 = rest.parse().unwrap_or(0);
            match kind {
                "$" if len >= 0 => {
                    let end = reply.len();
                    reply.resize(end + len as usize + 2, 0);
                    self.stream.read_exact(&mut reply[end..]).expect("as long as it said");
                }
                "*" => missing += len.max(0),
                _ => {}
            }
        }
        reply
    }
}

/// One of the two that are compared, with a database of its own.
struct Side {
    database: usize,
    prefix: &'static str,
    client: Client,
    subscriber: Client,
}

/// What a command did, as far as clients can see it.
#[derive(PartialEq, Eq)]
pub struct Outcome {
    pub reply: String,
    /// Whether a transaction that watches all keys fails.
    pub touches: bool,
    /// Whether it counts as a change, which is then propagated.
    pub is_dirty: bool,
    /// Type, bytes and whether it expires, of each key.
    keys: Vec<String>,
}

impl Outcome {
    /// Without what is too long to be read.
    fn short(&self) -> String {
        let cut = |text: &str| text.chars().take(400).collect::<String>();
        let keys: Vec<String> = self.keys.iter().map(|key| cut(key)).collect();
        let Outcome { reply, touches, is_dirty, .. } = self;
        format!("{:?}, touches {touches}, is dirty {is_dirty}, {keys:#?}", cut(reply))
    }
}

impl Side {
    fn new(server: &Server, database: usize, prefix: &'static str) -> Side {
        let mut side = Side { database, prefix, client: server.connect(), subscriber: server.connect() };
        side.client.text(&[&format!("SELECT {database}")]);
        side.subscriber.text(&[&format!("PSUBSCRIBE __keyevent@{database}__:*")]);
        side
    }

    fn run(&mut self, request: &[Vec<u8>], keys: &[&str]) -> Outcome {
        let mut request = request.to_vec();
        if request[0].iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_') {
            request[0].splice(..0, self.prefix.bytes());
        }
        let words = |text: &str| self::request(text);
        let watch = format!("WATCH {}", keys.join(" "));
        let mut requests = vec![words("INFO persistence"), words(&watch), request];
        requests.extend(["MULTI", "EXEC", "INFO persistence"].map(words));
        for key in keys {
            requests.extend(["TYPE", "TTL", "GET"].map(|name| words(&format!("{name} {key}"))));
        }

        let replies = self.client.call_all(&requests);

        let [before, _, reply, _, transaction, after, looks @ ..] = &replies[..] else { panic!("replies") };
        let look = |(key, replies): (&&str, &[Vec<u8>])| {
            let expires = !replies[1].starts_with(b":-");
            format!("{key}: {} expires: {expires} {}", replies[0].escape_ascii(), replies[2].escape_ascii())
        };
        Outcome {
            reply: String::from_utf8_lossy(reply).replace(PREFIX, ""),
            touches: transaction == b"*-1\r\n",
            is_dirty: changes(before) != changes(after),
            keys: keys.iter().zip(looks.chunks(3)).map(look).collect(),
        }
    }

    /// Which events were notified, for which keys.
    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        self.subscriber.stream.get_mut().write_all(b"PING\r\n").expect("the server reads");
        loop {
            let message = String::from_utf8_lossy(&self.subscriber.reply()).into_owned();
            if message.contains("pong") {
                return events;
            }
            events.push(message.replace(&format!("@{}__", self.database), ""));
        }
    }
}

/// The number of changes, by INFO.
fn changes(info: &[u8]) -> u64 {
    let info = String::from_utf8_lossy(info);
    let (_, rest) = info.split_once("rdb_changes_since_last_save:").expect("INFO has it");
    rest.lines().next().and_then(|line| line.parse().ok()).expect("a number")
}

/// The module's commands, and those of the server.
pub struct Pair {
    theirs: Side,
    ours: Side,
}

impl Pair {
    pub fn new(server: &Server) -> Pair {
        Pair { theirs: Side::new(server, 0, ""), ours: Side::new(server, 1, PREFIX) }
    }

    /// Runs a request on both sides, and compares what came of it for these keys. Names in lower case are those of the
    /// module's commands; in upper case, of others. `settle` may remove differences that are as they should be.
    pub fn check(&mut self, request: &[Vec<u8>], keys: &[&str], settle: fn(&mut Outcome, &mut Outcome)) {
        let mut theirs = self.theirs.run(request, keys);
        let mut ours = self.ours.run(request, keys);
        settle(&mut theirs, &mut ours);
        let words: Vec<_> = request.iter().map(|word| word.escape_ascii().to_string()).collect();
        assert!(
            ours == theirs,
            "{}\nthe module: {}\nRedis:      {}",
            words.join(" "),
            ours.short(),
            theirs.short()
        );
    }

    /// Compares the events that were notified since it was last asked for.
    pub fn check_events(&mut self) {
        assert_eq!(self.ours.events(), self.theirs.events(), "left is the module, right is Redis");
    }
}
