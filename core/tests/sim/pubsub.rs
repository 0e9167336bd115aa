//! Publish and subscribe under random schedules: who was counted gets a message, and everybody sees an order that one
//! server could have made.
//!
//! Some clients subscribe to channels and patterns and end that again, others publish: alone, in an EXEC, in a script. Of
//! what comes to the subscribers:
//!
//! - Nothing comes before the confirmation of its subscription, nor behind that of its end, and nothing twice.
//! - Who had its subscription confirmed when a message was sent, and did not ask to end it before that was replied to, gets it.
//! - PUBLISH returns how many have got the message.
//! - The messages of a publisher keep their order, and those of an EXEC come one behind the other.
//! - Two subscribers of one shard get what both get in the same order.

use crate::cluster::{Cluster, Random, request_bytes};
use crate::replies::strings;
use crate::seeds;
use shardis_core::protocol::skip::skip_reply;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CHANNELS: [&str; 4] = ["a", "ab", "b", "c"];
const PATTERNS: [&str; 3] = ["a*", "?", "c"];

/// A subscription: whether it is one to a pattern, and the name.
type Name = (bool, &'static str);

/// A message: the publisher, and how many it had published before.
type MessageId = (usize, usize);

fn matches((is_pattern, name): Name, channel: &str) -> bool {
    match (is_pattern, name) {
        (true, "a*") => channel.starts_with('a'),
        (true, "?") => channel.len() == 1,
        (true, _) | (false, _) => name == channel,
    }
}

struct Listener {
    client: usize,
    shard: usize,
    /// By the confirmations that have come.
    confirmed: BTreeSet<Name>,
    /// How often it has asked for the end of a subscription without a confirmation as yet.
    ending: BTreeMap<Name, usize>,
    /// What has come: the messages, and by which subscriptions.
    heard: Vec<(MessageId, Name)>,
}

impl Listener {
    fn ask(&mut self, cluster: &mut Cluster, random: &mut Random) -> Option<Name> {
        let is_pattern = random.below(3) == 0;
        let names: &[&str] = if is_pattern { &PATTERNS } else { &CHANNELS };
        let name = names[random.below(names.len())];
        let (ends, prefix) = (random.below(2) == 0, if is_pattern { "P" } else { "" });
        let command = if ends { "UNSUBSCRIBE" } else { "SUBSCRIBE" };
        cluster.request(self.client, &[&format!("{prefix}{command}"), name]);
        if ends {
            *self.ending.entry((is_pattern, name)).or_default() += 1;
        }
        ends.then_some((is_pattern, name))
    }

    fn take(&mut self, cluster: &mut Cluster, seed: u64) {
        let received = cluster.received(self.client);
        let mut left = &received[..];
        while !left.is_empty() {
            let (push, rest) = left.split_at(skip_reply(left).expect("messages are sent whole"));
            left = rest;
            let text = String::from_utf8_lossy(push);
            let words: Vec<String> = strings(&text).into_iter().map(Option::unwrap_or_default).collect();
            let known = |is_pattern: bool, word: &str| {
                let names: &[&str] = if is_pattern { &PATTERNS } else { &CHANNELS };
                (is_pattern, *names.iter().find(|name| **name == word).expect("it has asked for it"))
            };
            let what = format!("seed {seed}, client {}: {text}", self.client);
            match words[0].as_str() {
                "subscribe" | "psubscribe" => {
                    self.confirmed.insert(known(words[0].starts_with('p'), &words[1]));
                }
                "unsubscribe" | "punsubscribe" => {
                    let name = known(words[0].starts_with('p'), &words[1]);
                    self.confirmed.remove(&name);
                    *self.ending.get_mut(&name).expect("it has asked for it") -= 1;
                }
                "message" | "pmessage" => {
                    let name = known(words[0].starts_with('p'), &words[1]);
                    assert!(self.confirmed.contains(&name), "{what}");
                    let (from, number) =
                        words.last().and_then(|word| word.split_once(':')).expect("a message");
                    let id = (from.parse().expect("a number"), number.parse().expect("a number"));
                    self.heard.push((id, name));
                }
                _ => panic!("{what}"),
            }
        }
    }

    fn has_confirmed(&self, name: Name) -> bool {
        self.confirmed.contains(&name) && self.ending.get(&name).is_none_or(|&count| count == 0)
    }
}

struct Published {
    id: MessageId,
    /// Messages of one EXEC or script have the same.
    unit: usize,
    /// Who must get it: the listener's place, and by which subscription.
    must: BTreeSet<(usize, Name)>,
    /// It was published by itself, and PUBLISH has returned this.
    count: Option<usize>,
    is_answered: bool,
}

struct Publisher {
    client: usize,
    number: usize,
    sent: usize,
    /// For each reply to come: of which messages it is the reply, as places in the list of what was published, and whether
    /// it is a count.
    unanswered: VecDeque<(Vec<usize>, bool)>,
}

impl Publisher {
    fn publish(
        &mut self,
        cluster: &mut Cluster,
        listeners: &[Listener],
        all: &mut Vec<Published>,
        random: &mut Random,
    ) {
        let mut message = |random: &mut Random, all: &mut Vec<Published>, unit: usize| {
            let channel = CHANNELS[random.below(CHANNELS.len())];
            let id = (self.number, self.sent);
            self.sent += 1;
            let names =
                CHANNELS.map(|name| (false, name)).into_iter().chain(PATTERNS.map(|name| (true, name)));
            let names: Vec<Name> = names.filter(|&name| matches(name, channel)).collect();
            let mut must = BTreeSet::new();
            for (at, listener) in listeners.iter().enumerate() {
                must.extend(
                    names.iter().filter(|&&name| listener.has_confirmed(name)).map(|&name| (at, name)),
                );
            }
            all.push(Published { id, unit, must, count: None, is_answered: false });
            (channel, format!("{}:{}", id.0, id.1), all.len() - 1)
        };
        match random.below(4) {
            0 => {
                let mut bytes = request_bytes(&["MULTI"]);
                let mut places = Vec::new();
                self.unanswered.push_back((Vec::new(), false));
                let unit = all.len();
                for _ in 0..2 + random.below(3) {
                    let (channel, payload, place) = message(random, all, unit);
                    bytes.extend(request_bytes(&["PUBLISH", channel, &payload]));
                    bytes.extend(request_bytes(&["INCR", &format!("k{}", random.below(9))]));
                    places.push(place);
                    self.unanswered.extend([(Vec::new(), false), (Vec::new(), false)]);
                }
                bytes.extend(request_bytes(&["EXEC"]));
                self.unanswered.push_back((places, false));
                cluster.send(self.client, &bytes);
            }
            1 => {
                let unit = all.len();
                let (channel, payload, place) = message(random, all, unit);
                let script = "redis.call('INCR', ARGV[3]) return redis.call('PUBLISH', ARGV[1], ARGV[2])";
                let key = format!("k{}", random.below(9));
                cluster.request(self.client, &["EVAL", script, "0", channel, &payload, &key]);
                self.unanswered.push_back((vec![place], false));
            }
            _ => {
                let mut bytes = Vec::new();
                for _ in 0..1 + random.below(6) {
                    let unit = all.len();
                    let (channel, payload, place) = message(random, all, unit);
                    bytes.extend(request_bytes(&["PUBLISH", channel, &payload]));
                    self.unanswered.push_back((vec![place], true));
                    if random.below(3) == 0 {
                        bytes.extend(request_bytes(&["INCR", &format!("k{}", random.below(9))]));
                        self.unanswered.push_back((Vec::new(), false));
                    }
                }
                cluster.send(self.client, &bytes);
            }
        }
    }

    fn take(&mut self, cluster: &mut Cluster, all: &mut [Published]) {
        let received = cluster.received(self.client);
        let mut left = &received[..];
        while !left.is_empty() {
            let (reply, rest) = left.split_at(skip_reply(left).expect("replies are sent whole"));
            left = rest;
            let (places, is_count) = self.unanswered.pop_front().expect("it has asked for it");
            for place in places {
                all[place].is_answered = true;
                if is_count {
                    let text = String::from_utf8_lossy(reply);
                    all[place].count = text.trim_start_matches(':').trim_end().parse().ok();
                    assert!(all[place].count.is_some(), "{text}");
                }
            }
        }
    }
}

/// What has come at rest, against what was published. Returns how many messages have come.
fn check(seed: u64, listeners: &[Listener], all: &[Published]) -> usize {
    let mut deliveries: BTreeMap<MessageId, Vec<(usize, Name)>> = BTreeMap::new();
    let units: BTreeMap<MessageId, usize> =
        all.iter().map(|published| (published.id, published.unit)).collect();
    for (at, listener) in listeners.iter().enumerate() {
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let (mut unit, mut ended) = (usize::MAX, BTreeSet::new());
        for &(id, name) in &listener.heard {
            assert!(seen.insert((id, name)), "seed {seed}: {id:?} comes twice to listener {at}");
            if units[&id] != unit {
                ended.insert(unit);
                unit = units[&id];
                assert!(
                    !ended.contains(&unit),
                    "seed {seed}: {id:?} is apart from its EXEC at listener {at}"
                );
            }
            deliveries.entry(id).or_default().push((at, name));
            let before = last.insert(id.0, id.1);
            assert!(
                before.is_none_or(|before| before <= id.1),
                "seed {seed}: {id:?} is late at listener {at}"
            );
        }
    }
    for Published { id, must, count, is_answered, .. } in all {
        let got = deliveries.get(id).map(Vec::as_slice).unwrap_or_default();
        assert!(is_answered, "seed {seed}: {id:?} has no reply");
        for due in must {
            assert!(got.contains(due), "seed {seed}: {id:?} did not come to {due:?}");
        }
        if let Some(count) = count {
            assert_eq!(got.len(), *count, "seed {seed}: {id:?}");
        }
    }
    for (at, one) in listeners.iter().enumerate() {
        for other in listeners[at + 1..].iter().filter(|other| other.shard == one.shard) {
            let order = |of: &Listener, with: &Listener| {
                let common: BTreeSet<MessageId> = with.heard.iter().map(|(id, _)| *id).collect();
                let mut order: Vec<MessageId> = of.heard.iter().map(|(id, _)| *id).collect();
                order.retain(|id| common.contains(id));
                order.dedup();
                order
            };
            assert_eq!(order(one, other), order(other, one), "seed {seed}");
        }
    }
    listeners.iter().map(|listener| listener.heard.len()).sum()
}

fn run_seed(seed: u64) -> usize {
    let mut random = Random::new(seed ^ 0x9B5B);
    let shard_count = 1 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let mut listeners: Vec<Listener> = (0..4)
        .map(|_| {
            let shard = random.below(shard_count);
            let client = cluster.connect(shard);
            cluster.call(client, &["HELLO", "3"]);
            Listener { client, shard, confirmed: BTreeSet::new(), ending: BTreeMap::new(), heard: Vec::new() }
        })
        .collect();
    let mut publishers: Vec<Publisher> = (0..3)
        .map(|number| Publisher {
            client: cluster.connect(random.below(shard_count)),
            number,
            sent: 0,
            unanswered: VecDeque::new(),
        })
        .collect();
    let mut all = Vec::new();
    let mut heard = 0;
    for _ in 0..4 {
        for _ in 0..80 {
            match random.below(8) {
                0 => {
                    let at = random.below(listeners.len());
                    if let Some(name) = listeners[at].ask(&mut cluster, &mut random) {
                        // What is under way may come before the end or not.
                        for published in
                            all.iter_mut().filter(|published: &&mut Published| !published.is_answered)
                        {
                            published.must.remove(&(at, name));
                        }
                    }
                }
                1 => {
                    let at = random.below(publishers.len());
                    publishers[at].publish(&mut cluster, &listeners, &mut all, &mut random);
                }
                _ => {
                    cluster.step();
                }
            }
            listeners.iter_mut().for_each(|listener| listener.take(&mut cluster, seed));
            publishers.iter_mut().for_each(|publisher| publisher.take(&mut cluster, &mut all));
        }
        cluster.settle();
        listeners.iter_mut().for_each(|listener| listener.take(&mut cluster, seed));
        publishers.iter_mut().for_each(|publisher| publisher.take(&mut cluster, &mut all));
        heard = check(seed, &listeners, &all);
    }
    heard
}

#[test]
fn subscribers_see_an_order_that_one_server_could_have_made() {
    let seeds = seeds(300);
    let heard: usize = seeds.iter().map(|&seed| run_seed(seed)).sum();
    assert!(heard > 20 * seeds.len(), "hardly anything was published: {heard}");
}
