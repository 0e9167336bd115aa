//! Client-side caching on the real server: no client keeps a stale value, whatever changes the keys, with evictions and with
//! what the network adds. The simulator (`sim/tracking.rs`) does the same under more schedules, without memory.

use crate::harness::{Connection, Server, Setup, encode, wait_until};
use crate::random::{Random, fresh_seed};
use crate::replies;
use shardis_core::protocol::skip::skip_reply;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

const SETUPS: [Setup; 2] =
    [Setup { shards: 4, io_backend: "uring" }, Setup { shards: 4, io_backend: "epoll" }];

const KEY_COUNT: usize = 300;
const WRITERS: usize = 2;
const ROUNDS: u64 = 60;
/// Changes of each writer in a round.
const CHANGES: usize = 60;
/// Requests that a reader has under way.
const UNANSWERED_MAX: usize = 8;

/// What stands behind a value, so that keys are big.
const PADDING_BYTES: usize = 10_000;
/// By how much the keys of the beginning are over the limit.
const EXCESS_BYTES: usize = KEY_COUNT * PADDING_BYTES / 2;

fn key(n: usize) -> String {
    format!("key:{n}")
}

/// A connection that is read as far as there is something.
struct Stream {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Stream {
    fn new(connection: &Connection) -> Stream {
        let stream = connection.stream.try_clone().expect("a second handle");
        Stream { stream, buf: Vec::new() }
    }

    fn receive(&mut self) {
        let mut room = [0; 64 << 10];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(count) => self.buf.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next whole reply or message of what was received.
    fn next(&mut self) -> Option<String> {
        let len = skip_reply(&self.buf).filter(|&len| len <= self.buf.len())?;
        let reply = self.buf.drain(..len).collect();
        Some(String::from_utf8(reply).expect("all is text"))
    }
}

/// The strings of a reply, in order, without their padding.
fn strings(reply: &str) -> Vec<Option<String>> {
    let unpadded = |text: String| text.trim_end_matches('x').to_string();
    replies::strings(reply).into_iter().map(|string| string.map(unpadded)).collect()
}

/// A client that keeps what it has read.
struct Reader {
    main: Stream,
    /// The connection that is told in its place.
    listener: Option<Stream>,
    unanswered: VecDeque<Vec<usize>>,
    cache: BTreeMap<String, Option<String>>,
    told: usize,
}

impl Reader {
    fn new(server: &Server, redirects: bool) -> Reader {
        let (mut main, mut other) = (server.connect(), server.connect());
        let mut on = vec!["CLIENT", "TRACKING", "ON"];
        let id = other.call(&["CLIENT", "ID"]);
        let listener = if redirects {
            other.call(&["SUBSCRIBE", "__redis__:invalidate"]);
            on.extend(["REDIRECT", id.trim_matches([':', '\r', '\n'])]);
            Some(Stream::new(&other))
        } else {
            main.request(&[b"HELLO", b"3"]);
            None
        };
        let on: Vec<&[u8]> = on.iter().map(|word| word.as_bytes()).collect();
        main.request(&on);
        let main = Stream::new(&main);
        let mut reader =
            Reader { main, listener, unanswered: VecDeque::new(), cache: BTreeMap::new(), told: 0 };
        for stream in [Some(&reader.main), reader.listener.as_ref()].into_iter().flatten() {
            stream.stream.set_nonblocking(true).expect("a socket takes that");
        }
        reader.unanswered.extend((0..if redirects { 1 } else { 2 }).map(|_| Vec::new()));
        reader
    }

    fn read(&mut self, random: &mut Random) {
        let keys: Vec<usize> = (0..3).map(|_| random.below(KEY_COUNT)).collect();
        let names: Vec<String> = keys.iter().map(|&n| key(n)).collect();
        let mut bytes = Vec::new();
        let mut request = |words: &[&str], awaited: &[usize]| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            bytes.extend_from_slice(&encode(&words));
            self.unanswered.push_back(awaited.to_vec());
        };
        match random.below(4) {
            0 | 1 => request(&["GET", &names[0]], &keys[..1]),
            2 => request(&["MGET", &names[0], &names[1], &names[2]], &keys),
            _ => {
                let script = "return redis.call('MGET', KEYS[1], KEYS[2], ARGV[1])";
                request(&["EVAL", script, "2", &names[0], &names[1], &names[2]], &keys);
            }
        }
        self.main.stream.write_all(&bytes).expect("a few requests fit into the socket");
    }

    /// Takes what has come. What the listener had got before the reader's own connection is looked at was sent behind the
    /// replies that it concerns, so these are there.
    fn take(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.receive();
        }
        self.main.receive();
        while let Some(reply) = self.main.next() {
            let strings = strings(&reply);
            if reply.starts_with('>') {
                self.invalidate(&strings[1..]);
                continue;
            }
            let keys = self.unanswered.pop_front().expect("it has asked for it");
            assert!(!reply.starts_with('-'), "{reply}");
            self.cache.extend(keys.into_iter().map(key).zip(strings));
        }
        let Some(listener) = &mut self.listener else { return };
        let messages: Vec<String> = std::iter::from_fn(|| listener.next()).collect();
        messages.iter().for_each(|message| self.invalidate(&strings(message)[2..]));
    }

    fn invalidate(&mut self, keys: &[Option<String>]) {
        self.told += 1;
        for key in keys {
            match key {
                None => self.cache.clear(),
                Some(key) => drop(self.cache.remove(key)),
            }
        }
    }
}

/// Changes a key, or several.
fn change(connection: &mut Connection, random: &mut Random, value: &str) {
    let (one, two) = (key(random.below(KEY_COUNT)), key(random.below(KEY_COUNT)));
    let (one, two) = (one.as_str(), two.as_str());
    match random.below(40) {
        0..16 => drop(connection.call(&["SET", one, value])),
        16..20 => drop(connection.call(&["MSET", one, value, two, value])),
        20..24 => drop(connection.call(&["SET", one, value, "PX", "3"])),
        24..28 => drop(connection.call(&["DEL", one, two])),
        28..32 => {
            for words in [&["MULTI"][..], &["SET", one, value], &["COPY", one, two, "REPLACE"], &["EXEC"]] {
                connection.call(words);
            }
        }
        32..36 => {
            let script = "redis.call('SET', KEYS[1], ARGV[2]) return redis.call('SET', ARGV[1], ARGV[2])";
            connection.call(&["EVAL", script, "1", one, two, value]);
        }
        36..39 => drop(connection.call(&["RENAME", one, two])),
        _ if random.below(20) == 0 => drop(connection.call(&["FLUSHALL"])),
        _ => drop(connection.call(&["CONFIG", "SET", "tracking-table-max-keys", "200"])),
    }
}

/// Changes keys while the readers read.
fn run_round(server: &Server, readers: &mut [Reader], seed: u64) {
    let writing = &AtomicUsize::new(WRITERS);
    let write = move |n: u64| {
        let mut random = Random::new(seed ^ n << 32);
        let mut connection = server.connect();
        for change_n in 0..CHANGES {
            let value = format!("{seed}-{n}-{change_n}{}", "x".repeat(PADDING_BYTES));
            change(&mut connection, &mut random, &value);
        }
        writing.fetch_sub(1, Ordering::Relaxed);
    };
    let read = move |reader: &mut Reader, n: u64| {
        let mut random = Random::new(seed ^ n << 32);
        while writing.load(Ordering::Relaxed) > 0 {
            if reader.unanswered.len() < UNANSWERED_MAX {
                reader.read(&mut random);
            }
            reader.take();
        }
    };
    std::thread::scope(|scope| {
        (0..WRITERS as u64).for_each(|n| drop(scope.spawn(move || write(n))));
        readers.iter_mut().zip(8..).for_each(|(reader, n)| drop(scope.spawn(move || read(reader, n))));
    });
}

/// Asserts that a reader comes to know what is there. What is still under way arrives some time; a stale value would stay.
fn check(reader: &mut Reader, observer: &mut Connection, what: &str) {
    wait_until(what, || {
        reader.take();
        let is_stale =
            |(key, value): (&String, &Option<String>)| strings(&observer.call(&["GET", key]))[0] != *value;
        reader.unanswered.is_empty() && !reader.cache.iter().any(is_stale)
    });
}

#[test]
fn no_client_keeps_a_stale_value() {
    let seed = fresh_seed();
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut observer = server.connect();
        for n in 0..KEY_COUNT {
            observer.call(&["SET", &key(n), &"x".repeat(PADDING_BYTES)]);
        }
        let used: usize = observer.info("memory", "used_memory").parse().expect("a number");
        let limit = (used - EXCESS_BYTES).to_string();
        observer.call(&["CONFIG", "SET", "maxmemory", &limit, "maxmemory-policy", "allkeys-random"]);
        let mut readers: Vec<Reader> =
            (0..4).map(|n: usize| Reader::new(&server, n.is_multiple_of(2))).collect();
        // What is stale is soon read again, so it has to be looked for often.
        for seed in (0..ROUNDS).map(|round| seed.wrapping_add(round)) {
            run_round(&server, &mut readers, seed);
            for (n, reader) in readers.iter_mut().enumerate() {
                check(
                    reader,
                    &mut observer,
                    &format!("seed {seed}, {setup:?}, reader {n} knows what is there"),
                );
            }
        }
        let evicted: usize = observer.info("stats", "evicted_keys").parse().expect("a number");
        assert!(evicted > 0, "nothing was evicted");
        let told: Vec<usize> = readers.iter().map(|reader| reader.told).collect();
        assert!(told.iter().all(|&told| told > 100), "hardly anybody was told anything: {told:?}");
    }
}
