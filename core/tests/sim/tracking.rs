//! Client-side caching under random schedules: no client keeps a stale value.
//!
//! Some clients read keys by all sorts of commands and keep what they have read, in every mode of CLIENT TRACKING: told by
//! pushes on their connection, or redirected to another connection, of another shard as a rule. Others change the keys, in
//! every way. Every invalidation is applied when it arrives. Whenever nothing is under way, what each client has kept must be
//! what is there. (Of two connections, what has come to the reading one in a step is looked at first: its bytes were sent
//! before.)
//!
//! To test the checker, mistakes were made on purpose, one at a time. The number is the first seed that failed:
//!
//! | mistake | seed |
//! |---|---|
//! | an invalidation does not wait for pending replies (`push_behind_reads`) | 1 |
//! | the same, as if every client were blocked on keys (`reads_later`) | 1 |
//! | a redirected one waits neither for these nor for what is being sent (`next_redirect`) | 1 |
//! | a redirected one does not wait for what is being sent | 1 |
//! | reads of checked-out keys are not recorded (`record_read`) | 1 |
//! | changes of checked-out keys are not told (`Observers::note`) | 1 |
//! | shards do not look for new prefixes (`follow_prefixes`) | 2 |
//! | the same before messages alone, but at the beginning of turns (`Worker::deliver`) | none |
//! | the calls of an EXEC do not track (`CommandQueue::add`) | 2 |
//! | keys that are dropped for `tracking-table-max-keys` are not told (`Tracking::limit`) | 1 |
//! | nobody is told of flushed databases (`Tracking::replaced_all`) | 1 |

use crate::cluster::{Cluster, Random, request_bytes};
use crate::replies::strings;
use crate::seeds;
use shardis_core::protocol::skip::skip_reply;
use std::collections::{BTreeMap, VecDeque};

const KEYS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "{a}1", "{b}2"];

/// A client waits with further requests when it awaits so many replies.
const UNANSWERED_MAX: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Read,
    OptIn,
    OptOut,
    Broadcast,
}

/// What is done with a reply.
enum Awaited {
    Nothing,
    /// These are the values of the keys.
    Values(Vec<&'static str>),
}

/// A client that keeps what it has read.
struct Tracker {
    client: usize,
    /// The connection that is told in its place.
    listener: Option<usize>,
    mode: Mode,
    unanswered: VecDeque<Awaited>,
    cache: BTreeMap<&'static str, Option<String>>,
    /// How many invalidations have come.
    told: usize,
}

fn is_invalidation(strings: &[Option<String>]) -> bool {
    let word = |at: usize| strings.get(at).and_then(|word| word.as_deref());
    word(0) == Some("invalidate") || word(0) == Some("message") && word(1) == Some("__redis__:invalidate")
}

impl Tracker {
    fn new(cluster: &mut Cluster, random: &mut Random) -> Tracker {
        let shard_count = cluster.workers.len();
        let client = cluster.connect(random.below(shard_count));
        let by_resp3 = random.below(2) == 0;
        let mut redirect = String::new();
        let mut listener = None;
        if !by_resp3 || random.below(3) == 0 {
            let other = cluster.connect(random.below(shard_count));
            if random.below(2) == 0 {
                cluster.call(other, &["HELLO", "3"]);
            } else {
                cluster.call(other, &["SUBSCRIBE", "__redis__:invalidate"]);
            }
            redirect = format!(" REDIRECT {}", cluster.client_id(other));
            listener = Some(other);
        }
        if by_resp3 {
            cluster.call(client, &["HELLO", "3"]);
        }
        let (mode, option) = match random.below(5) {
            0 => (Mode::OptIn, " OPTIN"),
            1 => (Mode::OptOut, " OPTOUT"),
            2 => (Mode::Broadcast, " BCAST"),
            _ => (Mode::Read, ""),
        };
        let words = format!("CLIENT TRACKING ON{redirect}{option}");
        // Its first reads may come at once behind it.
        cluster.send(client, &request_bytes(&words.split(' ').collect::<Vec<_>>()));
        let unanswered = VecDeque::from([Awaited::Nothing]);
        Tracker { client, listener, mode, unanswered, cache: BTreeMap::new(), told: 0 }
    }

    /// Sends a request that reads, or several.
    fn read(&mut self, cluster: &mut Cluster, random: &mut Random) {
        if self.unanswered.len() > UNANSWERED_MAX {
            return;
        }
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(3) {
            self.add_read(&mut bytes, random);
        }
        cluster.send(self.client, &bytes);
    }

    fn add_read(&mut self, bytes: &mut Vec<u8>, random: &mut Random) {
        let mut key = || KEYS[random.below(KEYS.len())];
        let (one, two, three) = (key(), key(), key());
        let mut request =
            |words: &str| bytes.extend_from_slice(&request_bytes(&words.split(' ').collect::<Vec<_>>()));
        let is_kept = match self.mode {
            Mode::Read | Mode::Broadcast => true,
            Mode::OptIn => random.below(2) == 0,
            Mode::OptOut => random.below(3) != 0,
        };
        match self.mode {
            Mode::OptIn if is_kept => request("CLIENT CACHING YES"),
            Mode::OptOut if !is_kept => request("CLIENT CACHING NO"),
            _ => {}
        }
        if (self.mode == Mode::OptIn) == is_kept && matches!(self.mode, Mode::OptIn | Mode::OptOut) {
            self.unanswered.push_back(Awaited::Nothing);
        }
        let values =
            |keys: &[&'static str]| if is_kept { Awaited::Values(keys.to_vec()) } else { Awaited::Nothing };
        match random.below(9) {
            0 | 1 => {
                request(&format!("GET {one}"));
                self.unanswered.push_back(values(&[one]));
            }
            2 => {
                request(&format!("MGET {one} {two} {three}"));
                self.unanswered.push_back(values(&[one, two, three]));
            }
            3 => {
                request("MULTI");
                request(&format!("GET {one}"));
                request(&format!("MGET {two} {three}"));
                request("EXEC");
                self.unanswered.extend([Awaited::Nothing, Awaited::Nothing, Awaited::Nothing]);
                self.unanswered.push_back(values(&[one, two, three]));
            }
            4 => {
                // A command over keys of several shards at home, in between.
                request("MULTI");
                request(&format!("COPY {one} {two}"));
                request(&format!("GET {two}"));
                request("EXEC");
                self.unanswered.extend([Awaited::Nothing, Awaited::Nothing, Awaited::Nothing]);
                self.unanswered.push_back(values(&[two]));
            }
            5 => {
                let script = "return redis.call('MGET',KEYS[1],KEYS[2],KEYS[3])";
                bytes.extend_from_slice(&request_bytes(&["EVAL", script, "3", one, two, three]));
                self.unanswered.push_back(values(&[one, two, three]));
            }
            6 => {
                let script = "return {redis.call('GET',ARGV[1]),redis.call('GET',KEYS[1])}";
                bytes.extend_from_slice(&request_bytes(&["EVAL", script, "1", two, one]));
                self.unanswered.push_back(values(&[one, two]));
            }
            7 => {
                request("BLPOP nothing 0.005");
                self.unanswered.push_back(Awaited::Nothing);
            }
            _ => {
                request(&format!("INCR {one}"));
                self.unanswered.push_back(Awaited::Nothing);
            }
        }
    }

    /// Looks at what has come.
    fn take(&mut self, cluster: &mut Cluster) {
        let received = cluster.received(self.client);
        let mut left = &received[..];
        while !left.is_empty() {
            let (reply, rest) = left.split_at(skip_reply(left).expect("replies are sent whole"));
            left = rest;
            let text = String::from_utf8_lossy(reply);
            let strings = strings(&text);
            if text.starts_with('>') {
                assert!(is_invalidation(&strings), "{text}");
                self.invalidate(&strings[1..]);
                continue;
            }
            match self.unanswered.pop_front().expect("it has asked for it") {
                Awaited::Nothing => {}
                Awaited::Values(_) if text.starts_with('-') => panic!("{text}"),
                Awaited::Values(keys) => self.cache.extend(keys.into_iter().zip(strings)),
            }
        }
        if let Some(listener) = self.listener {
            let received = cluster.received(listener);
            let mut left = &received[..];
            while !left.is_empty() {
                let (message, rest) = left.split_at(skip_reply(left).expect("messages are sent whole"));
                left = rest;
                let text = String::from_utf8_lossy(message);
                let strings = strings(&text);
                assert!(is_invalidation(&strings), "{text}");
                let names = if text.starts_with('>') { 1 } else { 2 };
                self.invalidate(&strings[names..]);
            }
        }
    }

    fn invalidate(&mut self, keys: &[Option<String>]) {
        self.told += 1;
        for key in keys {
            match key {
                None => self.cache.clear(),
                Some(key) => self.cache.retain(|known, _| known != key),
            }
        }
    }
}

/// A request that changes keys.
fn change(random: &mut Random, unique: &mut u32) -> Vec<u8> {
    let mut key = || KEYS[random.below(KEYS.len())];
    let (one, two) = (key(), key());
    *unique += 1;
    let value = *unique;
    let text = match random.below(16) {
        0 | 1 => format!("SET {one} {value}"),
        2 => format!("SET {one} {value} PX {}", 1 + random.below(20)),
        3 => format!("MSET {one} {value} {two} {value}"),
        4 => format!("DEL {one} {two}"),
        5 => format!("INCR {one}"),
        6 => format!("PEXPIRE {one} {}", random.below(10)),
        7 => format!("RENAME {one} {two}"),
        8 => format!("COPY {one} {two} REPLACE"),
        9 => format!("MULTI|SET {one} {value}|INCR {one}|EXEC"),
        10 => format!("MULTI|SET {one} {value}|COPY {one} {two} REPLACE|DEL {one}|EXEC"),
        11 if random.below(4) == 0 => ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1"][random.below(3)].to_string(),
        12 if random.below(4) == 0 => format!("MULTI|SET {one} {value}|FLUSHDB|SET {two} {value}|EXEC"),
        13 => format!("CONFIG SET tracking-table-max-keys {}", 1 + random.below(12)),
        14 => {
            let script = "redis.call('INCR',KEYS[1]) return redis.call('INCR',KEYS[2])";
            return request_bytes(&["EVAL", script, "2", one, two]);
        }
        15 => {
            let script =
                "redis.call('GET',KEYS[1]) redis.call('INCR',ARGV[1]) return redis.call('DEL',KEYS[1])";
            return request_bytes(&["EVAL", script, "1", one, two]);
        }
        _ => format!("APPEND {one} 1"),
    };
    text.split('|').flat_map(|words| request_bytes(&words.split(' ').collect::<Vec<_>>())).collect()
}

/// Returns how many values were kept at the checks, and how many invalidations have come.
fn run_seed(seed: u64) -> (usize, usize) {
    let mut random = Random::new(seed ^ 0x7AC4);
    let shard_count = 1 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let observer = cluster.connect(0);
    let mut trackers: Vec<Tracker> = (0..3).map(|_| Tracker::new(&mut cluster, &mut random)).collect();
    let writers: Vec<usize> = (0..3).map(|_| cluster.connect(random.below(shard_count))).collect();
    let mut unique = 0;
    let mut kept = 0;
    for _ in 0..6 {
        for _ in 0..60 {
            match random.below(8) {
                0 | 1 => {
                    let at = random.below(trackers.len());
                    trackers[at].read(&mut cluster, &mut random);
                }
                2 => {
                    let writer = writers[random.below(writers.len())];
                    cluster.send(writer, &change(&mut random, &mut unique));
                }
                3 if random.below(4) == 0 => {
                    cluster.clock.advance_ms(1 + random.below(4) as i64);
                    cluster.tick();
                }
                _ => {
                    cluster.step();
                }
            }
            trackers.iter_mut().for_each(|tracker| tracker.take(&mut cluster));
        }
        // Blocked clients get their replies, and keys whose time has come are found.
        let mut idle = 0;
        while idle < 20 {
            if !cluster.step() {
                idle += 1;
                cluster.clock.advance_ms(5);
                cluster.tick();
            }
            trackers.iter_mut().for_each(|tracker| tracker.take(&mut cluster));
        }
        let mut present = BTreeMap::new();
        for key in KEYS {
            let reply = cluster.call(observer, &["GET", key]);
            present.insert(key, strings(&reply)[0].clone());
        }
        for tracker in &mut trackers {
            tracker.take(&mut cluster);
            let Tracker { client, mode, listener, unanswered, cache, .. } = tracker;
            assert!(unanswered.is_empty(), "seed {seed}: client {client} has no reply");
            for (key, value) in cache {
                let text = format!("seed {seed}, client {client}, {mode:?}, listener {listener:?}: {key}");
                assert_eq!(*value, present[key], "{text}");
                kept += 1;
            }
        }
    }
    let clients = trackers.len() as u64;
    assert_eq!(cluster.workers[0].globals.tracking.clients(), clients, "seed {seed}");
    (kept, trackers.iter().map(|tracker| tracker.told).sum())
}

#[test]
fn no_client_keeps_a_stale_value() {
    let seeds = seeds(300);
    let runs = seeds.iter().map(|&seed| run_seed(seed));
    let (kept, told) = runs.fold((0, 0), |(kept, told), run| (kept + run.0, told + run.1));
    assert!(
        kept > 20 * seeds.len() && told > 20 * seeds.len(),
        "hardly anything was tracked: {kept}, {told}"
    );
}
