//! A module's commands against the commands of the same names in the server: the module is loaded with a prefix, the same
//! commands go both ways, each to a database of its own, and everything that a client can see is compared.

use crate::client::{Client, request};
use crate::server::Server;

/// What the names of the module's commands begin with.
pub const PREFIX: &str = "x.";

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
        side.client.line(&format!("SELECT {database}"));
        side.subscriber.line(&format!("PSUBSCRIBE __keyevent@{database}__:*"));
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
        self.subscriber.send("PING");
        loop {
            let message = self.subscriber.read();
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
    /// The server notifies of all events (`--notify-keyspace-events EA`).
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
