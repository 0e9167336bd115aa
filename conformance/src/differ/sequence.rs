//! What is sent in one go from empty servers: settings, and calls over a few connections. All of it follows from a seed.

use std::cell::RefCell;

use super::compare::How;
use super::grammar::{Family, Pattern, World};
use super::listen::{EVENTS_DIRECTIVE, LISTENERS_MAX};
use super::random::Random;
use super::resp::quoted;
use super::scripts::Inner;
use super::values::JUNK;

#[derive(Debug, Clone)]
pub struct Sequence {
    pub seed: u64,
    pub resp: u8,
    /// Otherwise only what is left in the end is compared: replies may be random, and clients run at the same time.
    pub compares_replies: bool,
    /// Directives, set before.
    pub settings: Vec<(&'static str, &'static str)>,
    pub calls: Vec<Call>,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub args: Vec<Vec<u8>>,
    pub how: How,
    pub over: Over,
    /// The replies up to this one are read before the next call is sent.
    pub ends_batch: bool,
    /// Left out inside MULTI.
    pub alone: bool,
    /// [`CLEARING`] goes before it.
    pub clears_errno: bool,
}

/// Redis' SORT takes an error number that an earlier command has left for one of its own. SCAN leaves none.
pub const CLEARING: [&str; 2] = ["SCAN", "0"];

/// Which connection a call goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Main,
    /// A second client, whose writes make WATCH fail.
    Other,
    /// One of several that may be blocked.
    Waiter,
    /// One of several that listen to channels.
    Listener(usize),
}

impl Call {
    /// The command in upper case.
    pub fn name(&self) -> Vec<u8> {
        self.args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default()
    }

    /// A call by itself over the first connection, with a reply that is laid down.
    pub fn exact(args: Vec<Vec<u8>>) -> Call {
        Call { args, how: How::Exact, over: Over::Main, ends_batch: true, alone: false, clears_errno: false }
    }

    #[cfg(test)]
    pub fn of_words(line: &str) -> Call {
        Call::exact(line.split(' ').map(|word| word.as_bytes().to_vec()).collect())
    }

    /// As a line for redis-cli.
    pub fn line(&self) -> String {
        let words: Vec<String> = self.args.iter().map(|arg| quoted(arg)).collect();
        match self.over {
            Over::Main if self.clears_errno => format!("{}\n    {}", CLEARING.join(" "), words.join(" ")),
            Over::Main => words.join(" "),
            Over::Other => format!("# another client: {}", words.join(" ")),
            Over::Waiter => format!("# a client that waits: {}", words.join(" ")),
            Over::Listener(number) => format!("# client {number} that listens: {}", words.join(" ")),
        }
    }
}

/// Calls of a sequence.
const CALLS_MAX: usize = 80;
/// Families of a sequence besides `keys`.
const FAMILIES_MAX: usize = 2;

/// Redis' defaults, and values so small that collections outgrow them at once.
pub const SETTINGS: [(&str, [&str; 4]); 12] = [
    ("list-max-listpack-size", ["-2", "-2", "3", "1"]),
    ("list-compress-depth", ["0", "0", "1", "2"]),
    ("hash-max-listpack-entries", ["512", "512", "4", "0"]),
    ("hash-max-listpack-value", ["64", "64", "64", "8"]),
    ("set-max-intset-entries", ["512", "512", "3", "0"]),
    ("zset-max-listpack-entries", ["128", "128", "4", "0"]),
    ("zset-max-listpack-value", ["64", "64", "64", "8"]),
    ("stream-node-max-entries", ["100", "100", "3", "1"]),
    ("stream-node-max-bytes", ["4096", "4096", "64", "0"]),
    // Without `new`: BITOP over a key with a time to live says that there is a new one, where Redis replaces it.
    (EVENTS_DIRECTIVE, ["", "", "KEA", "KEA"]),
    // Everything or nothing: how long a command takes is its server's own.
    ("slowlog-log-slower-than", ["-1", "-1", "0", "0"]),
    // The questions between the calls are logged, too.
    ("slowlog-max-len", ["100000"; 4]),
];

/// Whether clients wait in a sequence. Which of several keys on several shards that change at one moment serves a client
/// is not laid down, nor is the order in which several shards run what a client has sent ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nobody,
    /// On keys that share a hash tag. There are no pipelines.
    OnOneShard,
    /// On any keys, while these change one by one: there are no transactions either.
    OneByOne,
    /// On any keys, whatever else goes on: replies are not compared.
    Anyhow,
}

impl Waiting {
    /// Whether clients wait, and all servers have to serve the same ones.
    fn is_bound(self) -> bool {
        matches!(self, Waiting::OnOneShard | Waiting::OneByOne)
    }
}

/// The tag of the keys of [`Waiting::OnOneShard`].
const TAG: &[u8] = b"{w}";

/// The sequence of `seed` out of what `families` can call.
pub fn generate(seed: u64, families: &[Family]) -> Sequence {
    let mut random = Random::new(seed);
    let waits = [Waiting::Nobody, Waiting::Nobody, Waiting::OnOneShard, Waiting::OneByOne];
    generate_with(seed, &mut random, families, waits)
}

/// The same for a fleet with replicas. Every other one goes without comparing replies.
pub fn generate_for_replicas(seed: u64, families: &[Family]) -> Sequence {
    if seed.is_multiple_of(2) {
        return generate(seed, families);
    }
    generate_with(seed, &mut Random::new(seed), families, [Waiting::Anyhow; 4])
}

fn generate_with(seed: u64, random: &mut Random, families: &[Family], waits: [Waiting; 4]) -> Sequence {
    let resp = if random.chance(50) { 2 } else { 3 };
    let settings = SETTINGS.map(|(name, values)| (name, values[random.below(values.len())])).to_vec();
    let waiting = waits[random.below(waits.len())];
    let mut chosen = choose_families(random, families);
    let mut batch_len_max = [1, 2, 5, 20, 60][random.below(5)];
    if waiting.is_bound() {
        batch_len_max = 1;
    }
    if waiting == Waiting::OneByOne {
        let one_by_one = |family: &Family| !family.has_programs() && family.name != "transactions";
        chosen.retain(|&at| one_by_one(&families[at]));
    }
    let call_count = 10 + random.below(CALLS_MAX - 10);

    let mut maker = Maker { families, chosen, batch_len_max, waiting, in_multi: false };
    let mut calls: Vec<Call> = Vec::with_capacity(call_count);
    if waiting == Waiting::Anyhow {
        calls.extend(groups(families, &maker.chosen));
    }
    while calls.len() < call_count {
        calls.extend(maker.next(random));
    }
    let compares_replies = waiting != Waiting::Anyhow;
    Sequence { seed, resp, compares_replies, settings, calls }
}

/// A group for each stream, if streams take part: most of what consumers do needs one, and seldom meets one at random.
fn groups(families: &[Family], chosen: &[usize]) -> Vec<Call> {
    let streams = chosen.iter().map(|&at| &families[at]).find(|family| family.name == "streams");
    let keys = streams.map_or(&[][..], |family| &family.keys);
    keys.iter()
        .map(|key| {
            let words: [&[u8]; 6] = [b"XGROUP", b"CREATE", key, b"g1", b"0", b"MKSTREAM"];
            Call::exact(words.map(<[u8]>::to_vec).to_vec())
        })
        .collect()
}

/// Indexes into `families`. Keys always take part, and one or two others.
fn choose_families(random: &mut Random, families: &[Family]) -> Vec<usize> {
    let data = |family: &Family| {
        !family.has_programs() && !matches!(family.name.as_str(), "keys" | "transactions" | "dump")
    };
    let others: Vec<usize> = (0..families.len()).filter(|&at| data(&families[at])).collect();
    let rest = (0..families.len()).filter(|&at| !data(&families[at]));
    let mut chosen: Vec<usize> =
        rest.filter(|&at| families[at].name == "keys" || random.chance(50)).collect();
    if !others.is_empty() {
        for _ in 0..1 + random.below(FAMILIES_MAX) {
            // Several times, so that most calls are theirs.
            let at = others[random.below(others.len())];
            chosen.extend([at, at, at]);
        }
    }
    chosen
}

struct Maker<'a> {
    families: &'a [Family],
    chosen: Vec<usize>,
    batch_len_max: usize,
    waiting: Waiting,
    in_multi: bool,
}

impl Maker<'_> {
    /// The next call, unless it would have to be alone in a transaction.
    fn next(&mut self, random: &mut Random) -> Option<Call> {
        let family = &self.families[self.chosen[random.below(self.chosen.len())]];
        let weights: Vec<u32> = family.patterns.iter().map(|pattern| pattern.weight).collect();
        let pattern = &family.patterns[random.weighted(&weights)];
        if pattern.waits && self.waiting == Waiting::Nobody {
            return None;
        }
        let over = match pattern {
            Pattern { waits: true, .. } => Over::Waiter,
            Pattern { listens: true, .. } => Over::Listener(random.below(LISTENERS_MAX)),
            Pattern { is_others: true, .. } => Over::Other,
            Pattern { alone: false, .. } if random.chance(self.others_percent()) => Over::Other,
            _ => Over::Main,
        };
        let mut args = pattern.call(random, &Within { maker: self, family });
        if self.waiting == Waiting::Anyhow {
            leave_to_server(&mut args, random);
        }
        match pattern.name.as_str() {
            // It changes all keys at one moment.
            "swapdb" if self.waiting.is_bound() => return None,
            // Once served they change a key of another shard, whose clients may be served first.
            "blmove" | "brpoplpush" if pattern.waits && self.waiting == Waiting::OneByOne => return None,
            _ if over != Over::Main => {}
            "multi" => self.in_multi = true,
            "exec" | "discard" => self.in_multi = false,
            _ if pattern.alone && self.in_multi && self.waiting != Waiting::Anyhow => return None,
            _ => {}
        }
        let is_fixed = pattern.alone || pattern.fixed || family.keeps_apart;
        if over == Over::Main && !is_fixed && random.chance(3) {
            disturb(&mut args, random);
        }
        let ends_batch = over != Over::Main || pattern.alone || random.below(self.batch_len_max) == 0;
        let Pattern { how, alone, clears_errno, .. } = *pattern;
        Some(Call { args, how, over, ends_batch, alone, clears_errno })
    }

    /// How many of a hundred calls go over the second client: more if it may have rights of its own.
    fn others_percent(&self) -> usize {
        let has_users = self.chosen.iter().any(|&at| self.families[at].name == "acl");
        if has_users { 30 } else { 7 }
    }

    /// Mostly one of the family's own keys; often enough one of another's that wrong types are met.
    fn key(&self, own: &Family, random: &mut Random) -> Vec<u8> {
        let any = &self.families[self.chosen[random.below(self.chosen.len())]];
        let strays = !own.keeps_apart && !any.keeps_apart;
        let family = if own.keys.is_empty() && strays || strays && random.chance(12) { any } else { own };
        let key: &[u8] =
            if family.keys.is_empty() { b"a" } else { &family.keys[random.below(family.keys.len())] };
        if self.waiting == Waiting::OnOneShard { [TAG, key].concat() } else { key.to_vec() }
    }
}

/// Names of commands that a script may not call, or that are of no interest in one.
const NOT_INNER: [&str; 7] = ["multi", "exec", "discard", "watch", "unwatch", "junk", "debug"];

/// Where a call of a family gets its keys, and a script the calls that it makes.
struct Within<'a> {
    maker: &'a Maker<'a>,
    family: &'a Family,
}

impl World for Within<'_> {
    fn key(&self, random: &mut Random) -> Vec<u8> {
        self.maker.key(self.family, random)
    }

    fn inner(&self, random: &mut Random) -> Option<Inner> {
        let Maker { families, chosen, waiting, .. } = self.maker;
        let family = &families[chosen[random.below(chosen.len())]];
        let weights: Vec<u32> = family.patterns.iter().map(|pattern| pattern.weight).collect();
        let pattern = &family.patterns[random.weighted(&weights)];
        let is_inner = !family.has_programs()
            && (!pattern.alone || *waiting == Waiting::Anyhow)
            && !pattern.waits
            && !pattern.listens
            && !pattern.is_others
            && !pattern.clears_errno
            && !NOT_INNER.contains(&pattern.name.as_str());
        let disturbs_who_waits = matches!(pattern.name.as_str(), "swapdb" | "xsetid") && waiting.is_bound();
        if !is_inner || disturbs_who_waits {
            return None;
        }
        let keys = Keys { within: Within { maker: self.maker, family }, given: RefCell::default() };
        let mut args = pattern.call(random, &keys);
        if *waiting == Waiting::Anyhow {
            leave_to_server(&mut args, random);
        }
        if !pattern.fixed && !family.keeps_apart && random.chance(3) {
            disturb(&mut args, random);
        }
        Some(Inner { args, keys: keys.given.into_inner(), how: pattern.how })
    }
}

/// Remembers the keys that it gives.
struct Keys<'a> {
    within: Within<'a>,
    given: RefCell<Vec<Vec<u8>>>,
}

impl World for Keys<'_> {
    fn key(&self, random: &mut Random) -> Vec<u8> {
        let key = self.within.key(random);
        self.given.borrow_mut().push(key.clone());
        key
    }

    fn inner(&self, _random: &mut Random) -> Option<Inner> {
        None
    }
}

/// Milliseconds after which keys may expire while a sequence runs.
const SOON_MS_MAX: usize = 3;

/// Puts in what a server decides: IDs of entries by its clock, and keys that expire meanwhile.
fn leave_to_server(args: &mut [Vec<u8>], random: &mut Random) {
    let name = args[0].to_ascii_uppercase();
    for at in 2..args.len() {
        let is_id = name == b"XADD" && args[at].contains(&b'-') && args[at][0].is_ascii_digit();
        let is_ms = args[at - 1].eq_ignore_ascii_case(b"PX")
            || at == 2 && matches!(name.as_slice(), b"PEXPIRE" | b"PSETEX");
        if is_id && random.chance(50) {
            args[at] = b"*".to_vec();
        } else if is_ms && random.chance(70) {
            args[at] = (1 + random.below(SOON_MS_MAX)).to_string().into_bytes();
        }
    }
}

/// An argument goes away, comes twice, or becomes another.
fn disturb(args: &mut Vec<Vec<u8>>, random: &mut Random) {
    if args.len() < 2 {
        return;
    }
    let at = 1 + random.below(args.len() - 1);
    match random.below(4) {
        0 => {
            args.remove(at);
        }
        1 => args.insert(at, args[at].clone()),
        2 => args[at] = random.pick(&JUNK).as_bytes().to_vec(),
        _ => args.push(random.pick(&JUNK).as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_decide_on_ids_and_on_what_has_expired() {
        let mut random = Random::new(1);
        let mut made = |line: &str| -> Vec<String> {
            let mut args = Call::of_words(line).args;
            leave_to_server(&mut args, &mut random);
            args.into_iter().map(|arg| String::from_utf8(arg).expect("ASCII")).collect()
        };

        let added: Vec<String> = (0..20).map(|_| made("xadd k 1-1 f v").join(" ")).collect();
        assert!(
            added.iter().any(|line| line == "xadd k * f v")
                && added.iter().any(|line| line == "xadd k 1-1 f v")
        );
        let set: Vec<String> = (0..20).map(|_| made("SET k v PX 100000").remove(4)).collect();
        assert!(set.iter().any(|ms| ms.len() <= 2) && set.iter().any(|ms| ms == "100000"));
        assert_eq!(made("SET k 1-1"), ["SET", "k", "1-1"]);
    }
}
