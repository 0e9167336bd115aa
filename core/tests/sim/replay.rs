//! Effects of all families under random schedules: a server that runs them becomes equal to the one that they are of.

use crate::cluster::{Cluster, Random};
use crate::seeds;
use crate::stream::Reader;
use std::collections::BTreeSet;

/// Commands that write. `$` and a letter stand for a random key of a type (`t` text, `n` number, `l` list, `s` set, `h` hash,
/// `z` sorted set, `x` stream, `a` any of these), a member (`m`), a value (`v`), or an ID (`i`).
const WRITES: &[&str] = &[
    "SET $t $v",
    "SET $t $v PX 100000 GET",
    "SETEX $t 100 $v",
    "SETRANGE $t 3 $v",
    "APPEND $t $v",
    "GETSET $t $v",
    "GETDEL $t",
    "GETEX $t PERSIST",
    "GETEX $t EX 100",
    "MSET $t $v $t $v $n 5",
    "MSETNX $t $v $t $v",
    "INCR $n",
    "DECRBY $n 3",
    "INCRBYFLOAT $n 1.5",
    "DEL $a $a",
    "UNLINK $a",
    "RENAME $a $a",
    "RENAMENX $a $a",
    "COPY $a $a REPLACE",
    "EXPIRE $a 100",
    "PEXPIREAT $a 1",
    "PERSIST $a",
    "SORT $l ALPHA STORE $l",
    "SORT $s ALPHA LIMIT 0 3 STORE $l",
    "SORT $z BY nosort GET # STORE $l",
    "RPUSH $l $m $m",
    "LPUSH $l $m $m $m",
    "RPUSHX $l $m",
    "LPOP $l",
    "RPOP $l 2",
    "LSET $l 0 $m",
    "LINSERT $l BEFORE $m $v",
    "LREM $l -1 $m",
    "LTRIM $l 0 5",
    "LMOVE $l $l LEFT RIGHT",
    "RPOPLPUSH $l $l",
    "LMPOP 2 $l $l LEFT COUNT 2",
    "SADD $s $m $m 12",
    "SREM $s $m $m",
    "SPOP $s",
    "SPOP $s 2",
    "SPOP $s 100",
    "SMOVE $s $s $m",
    "SINTERSTORE $s $s $s",
    "SUNIONSTORE $s $s $s",
    "SDIFFSTORE $s $s $s",
    "HSET $h $m $v $m $v",
    "HMSET $h $m $v",
    "HSETNX $h $m $v",
    "HDEL $h $m $m",
    "HINCRBY $h n 2",
    "HINCRBYFLOAT $h n 0.25",
    "ZADD $z 1 $m 2.5 $m",
    "ZADD $z GT CH 3 $m",
    "ZADD $z NX INCR 1 $m",
    "ZINCRBY $z 1.5 $m",
    "ZREM $z $m $m",
    "ZPOPMIN $z",
    "ZPOPMAX $z 2",
    "ZMPOP 2 $z $z MIN COUNT 2",
    "ZREMRANGEBYRANK $z 0 0",
    "ZREMRANGEBYSCORE $z 2 (3",
    "ZREMRANGEBYLEX $z - [m1",
    "ZRANGESTORE $z $z 0 2",
    "ZUNIONSTORE $z 2 $z $z WEIGHTS 2 1",
    "ZINTERSTORE $z 2 $z $s",
    "ZDIFFSTORE $z 2 $z $z",
    "XADD $x * f $v",
    "XADD $x $i f $v g $v",
    "XADD $x MAXLEN 3 * f $v",
    "XADD $x NOMKSTREAM MINID ~ $i * f $v",
    "XTRIM $x MAXLEN 2",
    "XDEL $x $i $i",
    "XSETID $x 9999999999999-1",
    "XGROUP CREATE $x g 0 MKSTREAM",
    "XGROUP CREATE $x g 0 MKSTREAM",
    "XGROUP CREATE $x g $ MKSTREAM ENTRIESREAD 2",
    "XGROUP DESTROY $x g",
    "XGROUP SETID $x g $i",
    "XGROUP CREATECONSUMER $x g e",
    "XGROUP DELCONSUMER $x g c",
    "XREADGROUP GROUP g c COUNT 2 STREAMS $x >",
    "XREADGROUP GROUP g d STREAMS $x $x > >",
    "XREADGROUP GROUP g c NOACK STREAMS $x >",
    "XACK $x g $i $i",
    "XCLAIM $x g d 0 $i $i",
    "XCLAIM $x g c 0 $i FORCE JUSTID",
    "XAUTOCLAIM $x g c 0 0 COUNT 3",
    "FLUSHDB",
];

/// Commands that block, but for the last ones, which serve them more often than `WRITES` would.
const BLOCKING: &[&str] = &[
    "BLPOP $l $l 0",
    "BRPOP $l $l $l 0.01",
    "BLMOVE $l $l RIGHT LEFT 0",
    "BRPOPLPUSH $l $l 0.01",
    "BLMPOP 0 2 $l $l LEFT COUNT 2",
    "BZPOPMIN $z $z 0",
    "BZPOPMAX $z 0.01",
    "BZMPOP 0 2 $z $z MAX COUNT 3",
    "XREADGROUP GROUP g c BLOCK 0 STREAMS $x >",
    "XREADGROUP GROUP g d BLOCK 10 NOACK STREAMS $x $x > >",
    "RPUSH $l $m $m",
    "ZADD $z 1 $m 2 $m",
    "XADD $x * f $v",
];

/// The letters of keys.
const TYPES: [char; 7] = ['t', 'n', 'l', 's', 'h', 'z', 'x'];
const KEYS_PER_TYPE: usize = 3;

/// A command of a template.
fn command(random: &mut Random, template: &str) -> Vec<String> {
    let mut word = |word: &str| match word.strip_prefix('$').and_then(|rest| rest.chars().next()) {
        None => word.to_string(),
        Some('m') => format!("m{}", random.below(6)),
        Some('v') => format!("v{}", random.below(1000)),
        Some('i') => format!("{}-0", 1 + random.below(12)),
        Some('a') => format!("{}{}", TYPES[random.below(TYPES.len())], random.below(KEYS_PER_TYPE)),
        Some(letter) => format!("{letter}{}", random.below(KEYS_PER_TYPE)),
    };
    template.split(' ').map(|text| word(text)).collect()
}

fn is_key(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|letter| TYPES.contains(&letter))
        && letters.next().is_some_and(|digit| digit.is_ascii_digit())
        && letters.next().is_none()
}

/// One program, one transaction, or one command.
pub fn random_unit(random: &mut Random) -> Vec<Vec<String>> {
    let write = |random: &mut Random| {
        let template = WRITES[random.below(WRITES.len())];
        command(random, template)
    };
    match random.below(8) {
        0 => {
            let calls: Vec<Vec<String>> = (0..1 + random.below(3)).map(|_| write(random)).collect();
            let calls: Vec<Vec<String>> = calls.into_iter().filter(|call| call[0] != "FLUSHDB").collect();
            let keys: BTreeSet<String> =
                calls.iter().flatten().filter(|word| is_key(word)).cloned().collect();
            let head = ["TPROGRAM".to_string(), keys.len().to_string()].into_iter().chain(keys);
            let calls = calls.into_iter().flat_map(|call| std::iter::once("/".to_string()).chain(call));
            vec![head.chain(calls).collect()]
        }
        1 => {
            let begin = vec!["MULTI".to_string()];
            let commands = (0..1 + random.below(5)).map(|_| write(random));
            let commands: Vec<Vec<String>> = std::iter::once(begin).chain(commands).collect();
            [commands, vec![vec!["EXEC".to_string()]]].concat()
        }
        2..=4 => {
            let template = BLOCKING[random.below(BLOCKING.len())];
            vec![command(random, template)]
        }
        _ => vec![write(random)],
    }
}

/// Clients that are busy at random.
pub struct Crowd {
    clients: [usize; 4],
}

impl Crowd {
    pub fn new(cluster: &mut Cluster, random: &mut Random) -> Crowd {
        let shard_count = cluster.workers.len();
        Crowd { clients: std::array::from_fn(|_| cluster.connect(random.below(shard_count))) }
    }

    /// One of them sends the unit of commands that `choose` gives, the server takes some steps, and perhaps time passes.
    pub fn act(
        &mut self,
        cluster: &mut Cluster,
        random: &mut Random,
        choose: fn(&mut Random) -> Vec<Vec<String>>,
    ) {
        let at = random.below(self.clients.len());
        if cluster.wait_of(self.clients[at]).is_some() {
            // It may be served later. Another client takes its place.
            self.clients[at] = cluster.connect(random.below(cluster.workers.len()));
        }
        for words in choose(random) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            cluster.request(self.clients[at], &words);
        }
        for _ in 0..random.below(8) {
            cluster.step();
        }
        if random.below(6) == 0 {
            cluster.clock.advance_ms(1 + random.below(5) as i64);
            cluster.tick();
        }
    }
}

fn call(cluster: &mut Cluster, client: usize, words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    cluster.call(client, &words)
}

/// The values behind these names in a reply.
fn fields(reply: &str, names: &[&str]) -> Vec<String> {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    let named = lines.iter().enumerate().filter(|(_, line)| names.contains(line));
    named
        .map(|(at, name)| {
            let value = if lines[at + 1].starts_with('$') { lines[at + 2] } else { lines[at + 1] };
            format!("{name} {value}")
        })
        .collect()
}

/// All that a server has and that effects have to reproduce. Not how much a group has read, nor when a consumer was seen.
pub fn contents(cluster: &mut Cluster) -> Vec<String> {
    let client = cluster.connect(0);
    let mut all = vec![cluster.call(client, &["DEBUG", "DIGEST"])];
    for n in 0..KEYS_PER_TYPE {
        let key = format!("x{n}");
        let key = key.as_str();
        let stream = cluster.call(client, &["XINFO", "STREAM", key]);
        let names = ["length", "last-generated-id", "max-deleted-entry-id", "entries-added", "groups"];
        all.extend(fields(&stream, &names));
        let groups = cluster.call(client, &["XINFO", "GROUPS", key]);
        all.extend(fields(&groups, &["name", "consumers", "pending", "last-delivered-id"]));
        let consumers = cluster.call(client, &["XINFO", "CONSUMERS", key, "g"]);
        all.extend(fields(&consumers, &["name", "pending"]));
        all.push(cluster.call(client, &["XPENDING", key, "g", "-", "+", "1000"]));
    }
    all
}

/// How many commands, transactions and programs the clients of a seed call.
const UNITS: usize = 150;

/// Returns how many units of effects there were.
fn run_seed(seed: u64) -> usize {
    let mut random = Random::new(seed ^ 0xEFFE);
    let shard_count = 1 + random.below(4);
    let mut cluster = Cluster::new(shard_count, seed);
    let mut reader = Reader::begin(&mut cluster, random.below(shard_count));
    cluster.settle();
    let mut crowd = Crowd::new(&mut cluster, &mut random);
    (0..UNITS).for_each(|_| crowd.act(&mut cluster, &mut random, random_unit));
    cluster.settle();
    // Clients whose time is over go.
    cluster.clock.advance_ms(20);
    cluster.tick();
    cluster.settle();
    reader.receive(&mut cluster);

    let units = reader.units();
    let mut replica = Cluster::new(1, seed);
    replica.clock.advance_ms(cluster.now_ms() - replica.now_ms());
    let client = replica.connect(0);
    for effect in units.iter().flatten() {
        let reply = call(&mut replica, client, effect);
        assert!(!reply.is_empty() && !reply.starts_with('-'), "seed {seed}: {effect:?} replies {reply:?}");
    }
    let (expected, found) = (contents(&mut cluster), contents(&mut replica));
    assert_eq!(found, expected, "seed {seed}: {units:#?}");
    units.len()
}

#[test]
fn effects_of_all_families_make_another_server_equal() {
    let seeds = seeds(300);
    let units: usize = seeds.iter().map(|&seed| run_seed(seed)).sum();
    assert!(units > 20 * seeds.len(), "hardly anything was written: {units} units");
}
