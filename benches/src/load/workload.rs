//! What is asked: operations, keys and values, built as request bytes ahead of time but for the digits of the keys.
//!
//! Fresh digits are written over the old ones before a pipeline goes out: a few nanoseconds a key. Building the keys
//! ahead as well would take a pool of tens of megabytes, and streaming through that drives the server's data out of
//! the cache that both share: measured, it made SETs at pipeline 64 a third dearer for the server.
//!
//! Keys are `key:` and twelve digits, 16 bytes, as redis-benchmark writes them, without a hash tag: they spread over
//! all shards. Values are printable bytes that are no integer, so no server can store them as a number.

use std::fmt;
use std::str::FromStr;

use crate::load::named::{Judged, MEMBER_PREFIX, NAMED, Named};
use crate::resp::write_command;
use fastrand::Rng;

pub const KEY_LEN_BYTES: usize = 16;
const KEY_PREFIX_LEN_BYTES: usize = 4;
/// Keys of one MGET or MSET, and SETs of one EXEC.
const KEYS_PER_MULTI_KEY_OP: usize = 10;
const SETS_PER_EXEC: usize = 5;

/// One operation of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Get,
    Set,
    /// GET and SET, each with a chance of one half.
    GetSet,
    Incr,
    Mget,
    Mset,
    /// MULTI, five SETs, EXEC: one operation.
    Exec,
    /// COPY of a key: where source and destination are on different shards, one of them is checked out.
    Copy,
    /// An operation over collections: a row of [`NAMED`].
    Named(usize),
}

impl Op {
    pub const ALL: [Op; 8] = [Op::Get, Op::Set, Op::GetSet, Op::Incr, Op::Mget, Op::Mset, Op::Exec, Op::Copy];

    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Set => "set",
            Op::GetSet => "get:set",
            Op::Incr => "incr",
            Op::Mget => "mget10",
            Op::Mset => "mset10",
            Op::Exec => "exec5",
            Op::Copy => "copy",
            Op::Named(row) => NAMED[row].name,
        }
    }

    /// The row of an operation over collections.
    pub fn named(self) -> Option<&'static Named> {
        match self {
            Op::Named(row) => Some(&NAMED[row]),
            _ => None,
        }
    }

    /// Every operation that there is.
    pub fn all() -> impl Iterator<Item = Op> {
        Op::ALL.into_iter().chain((0..NAMED.len()).map(Op::Named))
    }

    /// The operations over collections whose bar is one of two shards to one.
    pub fn judged_by_shards() -> impl Iterator<Item = Op> {
        let rows = (0..NAMED.len()).filter(|&row| NAMED[row].bar.judged == Judged::SeveralToOne);
        rows.map(Op::Named)
    }

    /// Whether a reply may be null: a list may be empty for a while.
    pub fn may_miss(self) -> bool {
        self.named().is_some()
    }

    fn replies(self) -> usize {
        match self {
            Op::Get | Op::Set | Op::GetSet | Op::Incr | Op::Mget | Op::Mset | Op::Copy | Op::Named(_) => 1,
            Op::Exec => SETS_PER_EXEC + 2,
        }
    }

    /// Whether the size of values makes a difference.
    pub fn has_values(self) -> bool {
        !matches!(self, Op::Incr | Op::Named(_))
    }

    /// About how many bytes one operation and its reply put on the wire.
    pub fn wire_len_bytes(self, value_len_bytes: usize) -> usize {
        let (keys, values) = match self {
            Op::Get | Op::Set | Op::GetSet => (1, 1),
            Op::Incr => (1, 0),
            Op::Mget | Op::Mset => (KEYS_PER_MULTI_KEY_OP, KEYS_PER_MULTI_KEY_OP),
            Op::Exec => (SETS_PER_EXEC, SETS_PER_EXEC),
            Op::Copy => (2, 0),
            Op::Named(row) => return NAMED[row].wire_len_bytes(),
        };
        keys * (KEY_LEN_BYTES + 20) + values * (value_len_bytes + 10)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Op, String> {
        let names = || Op::all().map(Op::name).collect::<Vec<_>>().join(", ");
        Op::all().find(|op| op.name() == text).ok_or_else(|| format!("expected one of {}", names()))
    }
}

/// The decimal digits of 0..100, two for each.
const DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Fills `digits`, an even number of them, with `number` and leading zeroes.
#[inline]
pub fn write_digits(number: u64, digits: &mut [u8]) {
    let mut rest = number;
    for pair in digits.rchunks_exact_mut(2) {
        pair.copy_from_slice(&DIGIT_PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
}

fn key_with(prefix: &[u8; KEY_PREFIX_LEN_BYTES], number: u64) -> [u8; KEY_LEN_BYTES] {
    let mut key = [0; KEY_LEN_BYTES];
    key[..KEY_PREFIX_LEN_BYTES].copy_from_slice(prefix);
    write_digits(number, &mut key[KEY_PREFIX_LEN_BYTES..]);
    key
}

fn key_of(number: u64) -> [u8; KEY_LEN_BYTES] {
    key_with(b"key:", number)
}

/// Keys of INCR live apart.
fn counter_key_of(number: u64) -> [u8; KEY_LEN_BYTES] {
    key_with(b"ctr:", number)
}

/// Keys that COPY copies to live apart: a key over itself is an error.
fn copy_key_of(number: u64) -> [u8; KEY_LEN_BYTES] {
    key_with(b"cpy:", number)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_0123456789";
/// The letters of the alphabet come first.
const LETTERS: u64 = 52;

/// Fills `value` with printable bytes that start with a letter.
pub fn fill_text_value(rng: &mut Rng, value: &mut [u8]) {
    for piece in value.chunks_mut(10) {
        let mut word = rng.u64(..);
        for byte in piece {
            *byte = ALPHABET[(word & 63) as usize];
            word >>= 6;
        }
    }
    if let Some(first) = value.first_mut() {
        *first = ALPHABET[rng.u64(..LETTERS) as usize];
    }
}

/// Fills `value` with the digits of an integer; at most 18 of them, so that it fits 64 bits.
pub fn fill_integer_value(rng: &mut Rng, value: &mut [u8]) {
    assert!(value.len() <= 18, "an integer value has at most 18 digits");
    for (at, digit) in value.iter_mut().enumerate() {
        let lowest = u64::from(at == 0);
        *digit = b'0' + (lowest + rng.u64(..10 - lowest)) as u8;
    }
}

/// One pipeline, ready to be written.
pub struct Batch<'a> {
    pub bytes: &'a [u8],
    pub replies: usize,
}

/// Where a driver gets its pipelines from.
pub trait Source {
    /// The next pipeline, which may be built in `scratch`; None at the end.
    fn next_batch<'a>(&'a mut self, scratch: &'a mut Vec<u8>) -> Option<Batch<'a>>;
}

/// About how many bytes a pool takes: they should stay in the generator's own cache.
const POOL_LEN_BYTES: usize = 256 * 1024;
/// So many operations at most, and at least so many pipelines.
const POOL_OPS_MAX: usize = 4096;
const POOL_PIPELINES_MIN: usize = 2;

/// Requests of one operation, one behind the other: any run of them is a pipeline. Where the keys are is known.
#[derive(Clone)]
pub struct Pool {
    op: Op,
    bytes: Vec<u8>,
    /// Where each operation starts, and which is its first key; one more at the end.
    ops: Vec<(usize, usize)>,
    /// Where each key or member starts, and from how many it is drawn.
    keys: Vec<(usize, u64)>,
    pipeline: usize,
    seed: u64,
}

impl Pool {
    /// Pipelines of a command without arguments, whose reply is a line.
    pub fn of_command(name: &str, pipeline: usize) -> Pool {
        let request = format!("*1\r\n${}\r\n{name}\r\n", name.len());
        let ops = (0..=pipeline).map(|at| (at * request.len(), 0)).collect();
        let bytes = request.repeat(pipeline).into_bytes();
        Pool { op: Op::Get, bytes, ops, keys: Vec::new(), pipeline, seed: 0 }
    }

    /// Pipelines of `pipeline` operations over the keys 0..keyspace.
    pub fn build(op: Op, pipeline: usize, keyspace: u64, value_len_bytes: usize, seed: u64) -> Pool {
        let ops = (POOL_LEN_BYTES / op.wire_len_bytes(value_len_bytes)).clamp(1, POOL_OPS_MAX);
        let ops = ops.max(POOL_PIPELINES_MIN * pipeline);
        let mut rng = Rng::with_seed(seed);
        let mut value = vec![0; value_len_bytes];
        let keyspace = op.named().map_or(keyspace, |named| named.keys);
        let mut pool = Pool { op, bytes: Vec::new(), ops: Vec::new(), keys: Vec::new(), pipeline, seed };
        for turn in 0..ops {
            let start = pool.bytes.len();
            pool.ops.push((start, pool.keys.len()));
            match op.named() {
                Some(named) => named.write(&mut pool.bytes, turn, &mut rng),
                None => write_op(&mut pool.bytes, op, keyspace, &mut value, &mut rng),
            }
            let members = op.named().map_or(0, |named| named.members);
            let keys = key_starts(&pool.bytes[start..]).map(|at| start + at);
            let range =
                |at: usize| if pool.bytes[at..].starts_with(MEMBER_PREFIX) { members } else { keyspace };
            let keys: Vec<(usize, u64)> = keys.map(|at| (at, range(at))).collect();
            pool.keys.extend(keys);
        }
        pool.ops.push((pool.bytes.len(), pool.keys.len()));
        pool
    }

    /// Operations in the pool.
    pub fn len(&self) -> usize {
        self.ops.len() - 1
    }

    pub fn replies_per_op(&self) -> usize {
        self.op.replies()
    }

    /// Whether a reply may be null.
    pub fn may_miss(&self) -> bool {
        self.op.may_miss()
    }
}

/// Where the keys of some requests start: behind the header of an argument of a key's length and with a key's prefix.
/// (A value that by chance is such an argument gets other digits as well, which does no harm.)
fn key_starts(requests: &[u8]) -> impl Iterator<Item = usize> {
    const HEADERS: [&[u8]; 5] =
        [b"$16\r\nkey:", b"$16\r\nctr:", b"$16\r\ncpy:", b"$16\r\ncol:", b"$16\r\nmem:"];
    let header_len = HEADERS[0].len();
    let is_key = |window: &[u8]| HEADERS.contains(&window);
    let windows = requests.windows(header_len).enumerate();
    windows
        .filter(move |(_, window)| is_key(window))
        .map(move |(at, _)| at + header_len - KEY_PREFIX_LEN_BYTES)
}

fn write_op(out: &mut Vec<u8>, op: Op, keyspace: u64, value: &mut [u8], rng: &mut Rng) {
    match op {
        Op::Get => write_command(out, &[b"GET", &key_of(rng.u64(..keyspace))]),
        Op::Set => {
            fill_text_value(rng, value);
            write_command(out, &[b"SET", &key_of(rng.u64(..keyspace)), value]);
        }
        Op::GetSet => {
            let half = if rng.u64(..2) == 0 { Op::Get } else { Op::Set };
            write_op(out, half, keyspace, value, rng);
        }
        Op::Incr => write_command(out, &[b"INCR", &counter_key_of(rng.u64(..keyspace))]),
        Op::Mget => {
            let keys: Vec<_> = (0..KEYS_PER_MULTI_KEY_OP).map(|_| key_of(rng.u64(..keyspace))).collect();
            let mut args: Vec<&[u8]> = vec![b"MGET"];
            args.extend(keys.iter().map(|key| &key[..]));
            write_command(out, &args);
        }
        Op::Mset => {
            let pairs: Vec<_> = (0..KEYS_PER_MULTI_KEY_OP)
                .map(|_| {
                    fill_text_value(rng, value);
                    (key_of(rng.u64(..keyspace)), value.to_vec())
                })
                .collect();
            let mut args: Vec<&[u8]> = vec![b"MSET"];
            args.extend(pairs.iter().flat_map(|(key, value)| [&key[..], &value[..]]));
            write_command(out, &args);
        }
        Op::Exec => {
            write_command(out, &[b"MULTI"]);
            for _ in 0..SETS_PER_EXEC {
                write_op(out, Op::Set, keyspace, value, rng);
            }
            write_command(out, &[b"EXEC"]);
        }
        Op::Copy => {
            let (source, destination) = (key_of(rng.u64(..keyspace)), copy_key_of(rng.u64(..keyspace)));
            write_command(out, &[b"COPY", &source, &destination, b"REPLACE"]);
        }
        Op::Named(_) => unreachable!("its row writes it"),
    }
}

/// Pipelines out of a pool, round and round, each time with other keys, drawn uniformly.
pub struct PoolSource {
    pool: Pool,
    next: usize,
    rng: Rng,
}

impl PoolSource {
    /// Sources of different `stream`s draw different keys.
    pub fn new(pool: Pool, stream: u64) -> PoolSource {
        let rng = Rng::with_seed(Rng::with_seed(pool.seed).u64(..) ^ stream);
        PoolSource { pool, next: 0, rng }
    }
}

impl Source for PoolSource {
    #[inline]
    fn next_batch<'a>(&'a mut self, _scratch: &'a mut Vec<u8>) -> Option<Batch<'a>> {
        let pool = &mut self.pool;
        if self.next + pool.pipeline > pool.len() {
            self.next = 0;
        }
        let (start, first_key) = pool.ops[self.next];
        let (end, end_key) = pool.ops[self.next + pool.pipeline];
        self.next += pool.pipeline;
        for &(key, range) in &pool.keys[first_key..end_key] {
            let digits = &mut pool.bytes[key + KEY_PREFIX_LEN_BYTES..key + KEY_LEN_BYTES];
            write_digits(self.rng.u64(..range), digits);
        }
        Some(Batch { bytes: &pool.bytes[start..end], replies: pool.pipeline * pool.op.replies() })
    }
}

/// What a sequence of SETs stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Text {
        len_bytes: usize,
    },
    TextWithTtl {
        len_bytes: usize,
    },
    Integer {
        digits: usize,
    },
    /// Keys of INCR, which live apart.
    Counter,
    /// Elements of one collection.
    Element(Collection),
    /// A key with a hash of few short fields.
    SmallHash,
    /// The collections of a named operation.
    Named(usize),
}

/// Types of collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
}

/// Fields of [`Stored::SmallHash`].
const SMALL_HASH_FIELDS: u64 = 5;

/// Adds element `number` to a collection.
fn write_element(out: &mut Vec<u8>, collection: Collection, number: u64) {
    let member = format!("member:{number:010}");
    let value = format!("value{:06}", number % 1_000_000);
    match collection {
        Collection::Hash => {
            let field = format!("field:{number:010}");
            write_command(out, &[b"HSET", b"hash", field.as_bytes(), value.as_bytes()]);
        }
        Collection::List => write_command(out, &[b"RPUSH", b"list", format!("item:{number:010}").as_bytes()]),
        Collection::Set => write_command(out, &[b"SADD", b"set", member.as_bytes()]),
        Collection::SortedSet => {
            write_command(out, &[b"ZADD", b"zset", number.to_string().as_bytes(), member.as_bytes()]);
        }
        Collection::Stream => write_command(out, &[b"XADD", b"stream", b"*", b"field", value.as_bytes()]),
    }
}

fn write_small_hash(out: &mut Vec<u8>, number: u64) {
    let key = format!("user:{number:011}");
    let pairs: Vec<(String, String)> = (0..SMALL_HASH_FIELDS)
        .map(|n| (format!("field{n}"), format!("value{:06}", (number + n) % 1_000_000)))
        .collect();
    let mut args: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
    args.extend(pairs.iter().flat_map(|(field, value)| [field.as_bytes(), value.as_bytes()]));
    write_command(out, &args);
}

/// Seconds of the TTL that `TextWithTtl` sets: beyond any run.
const TTL_S: &[u8] = b"1000000";

/// SETs of the keys 0..end, or additions of so many elements, each once, in order.
pub struct SetSequence {
    stored: Stored,
    next: u64,
    end: u64,
    pipeline: usize,
    rng: Rng,
    value: Vec<u8>,
}

impl SetSequence {
    pub fn new(stored: Stored, keys: u64, pipeline: usize, seed: u64) -> SetSequence {
        let value_len_bytes = match stored {
            Stored::Text { len_bytes } | Stored::TextWithTtl { len_bytes } => len_bytes,
            Stored::Integer { digits } => digits,
            Stored::Counter | Stored::Element(_) | Stored::SmallHash | Stored::Named(_) => 1,
        };
        SetSequence {
            stored,
            next: 0,
            end: keys,
            pipeline,
            rng: Rng::with_seed(seed),
            value: vec![0; value_len_bytes],
        }
    }
}

impl Source for SetSequence {
    fn next_batch<'a>(&'a mut self, scratch: &'a mut Vec<u8>) -> Option<Batch<'a>> {
        let last = self.end.min(self.next + self.pipeline as u64);
        let replies = (last - self.next) as usize;
        if replies == 0 {
            return None;
        }
        scratch.clear();
        for number in self.next..last {
            match self.stored {
                Stored::Text { .. } => {
                    fill_text_value(&mut self.rng, &mut self.value);
                    write_command(scratch, &[b"SET", &key_of(number), &self.value]);
                }
                Stored::TextWithTtl { .. } => {
                    fill_text_value(&mut self.rng, &mut self.value);
                    write_command(scratch, &[b"SET", &key_of(number), &self.value, b"EX", TTL_S]);
                }
                Stored::Integer { .. } => {
                    fill_integer_value(&mut self.rng, &mut self.value);
                    write_command(scratch, &[b"SET", &key_of(number), &self.value]);
                }
                Stored::Counter => write_command(scratch, &[b"SET", &counter_key_of(number), b"0"]),
                Stored::Element(collection) => write_element(scratch, collection, number),
                Stored::SmallHash => write_small_hash(scratch, number),
                Stored::Named(row) => NAMED[row].write_load(scratch, number, &mut self.rng),
            }
        }
        self.next = last;
        Some(Batch { bytes: scratch, replies })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn commands(bytes: &[u8]) -> Vec<Vec<String>> {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut lines = text.split_terminator("\r\n");
        let mut commands = Vec::new();
        while let Some(header) = lines.next() {
            let args = header.strip_prefix('*').unwrap().parse::<usize>().unwrap();
            let arg = |_| {
                let len: usize = lines.next().unwrap().strip_prefix('$').unwrap().parse().unwrap();
                let arg = lines.next().unwrap();
                assert_eq!(arg.len(), len);
                arg.to_string()
            };
            commands.push((0..args).map(arg).collect());
        }
        commands
    }

    /// The next pipeline as commands, each a list of its arguments.
    fn next_commands(source: &mut impl Source) -> Vec<Vec<String>> {
        let mut scratch = Vec::new();
        commands(source.next_batch(&mut scratch).unwrap().bytes)
    }

    fn first_batch(op: Op, pipeline: usize) -> Vec<Vec<String>> {
        let mut source = PoolSource::new(Pool::build(op, pipeline, 1_000, 8, 1), 1);
        let mut scratch = Vec::new();
        let batch = source.next_batch(&mut scratch).unwrap();
        assert_eq!(batch.replies, pipeline * op.replies());
        commands(batch.bytes)
    }

    #[test]
    fn every_operation_is_its_command_with_keys_of_sixteen_bytes() {
        for (op, name, args) in [
            (Op::Get, "GET", 2),
            (Op::Set, "SET", 3),
            (Op::Incr, "INCR", 2),
            (Op::Mget, "MGET", 11),
            (Op::Mset, "MSET", 21),
            (Op::Copy, "COPY", 4),
        ] {
            let batch = first_batch(op, 16);
            assert_eq!(batch.len(), 16);
            for command in batch {
                assert_eq!((command[0].as_str(), command.len()), (name, args));
                assert_eq!(command[1].len(), KEY_LEN_BYTES);
            }
        }
        let names: Vec<String> = first_batch(Op::Exec, 1).iter().map(|command| command[0].clone()).collect();
        assert_eq!(names, ["MULTI", "SET", "SET", "SET", "SET", "SET", "EXEC"]);
    }

    #[test]
    fn the_mix_is_half_and_half_within_the_luck_of_the_draw() {
        let pool = Pool::build(Op::GetSet, 16, 1_000, 8, 1);
        let gets = commands(&pool.bytes).iter().filter(|command| command[0] == "GET").count();
        assert!(gets.abs_diff(pool.len() / 2) < pool.len() / 20, "{gets} of {}", pool.len());
    }

    #[test]
    fn every_key_of_every_pipeline_is_drawn_anew_from_the_whole_keyspace() {
        for (op, keys_per_op) in [(Op::Get, 1), (Op::Set, 1), (Op::Incr, 1), (Op::Mget, 10), (Op::Mset, 10)] {
            let pipeline = 100;
            let mut source = PoolSource::new(Pool::build(op, pipeline, 50, 16, 1), 1);
            let mut seen = HashSet::new();
            let mut first_keys = HashSet::new();
            for _ in 0..100 {
                let commands = next_commands(&mut source);
                assert_eq!(commands.len(), pipeline);
                first_keys.insert(commands[0][1].clone());
                let keys = commands
                    .iter()
                    .flatten()
                    .filter(|arg| arg.starts_with("key:") || arg.starts_with("ctr:"));
                let keys: Vec<&String> = keys.collect();
                assert_eq!(keys.len(), pipeline * keys_per_op);
                seen.extend(keys.into_iter().cloned());
            }
            assert_eq!(seen.len(), 50, "{op}");
            assert!(first_keys.len() > 25, "{op}: the first key of a pipeline changes");
        }
    }

    #[test]
    fn a_pool_is_small_and_holds_at_least_two_pipelines() {
        for (op, pipeline, value) in [(Op::Get, 1, 8), (Op::Set, 64, 64), (Op::Set, 64, 1024)] {
            let pool = Pool::build(op, pipeline, 1_000, value, 1);
            assert!(pool.len() >= 2 * pipeline);
            assert!(pool.bytes.len() <= POOL_LEN_BYTES + POOL_LEN_BYTES / 4, "{}", pool.bytes.len());
        }
        assert!(Pool::build(Op::Mset, 64, 1_000, 1024, 1).len() >= 128);
    }

    #[test]
    fn the_same_seed_sends_the_same_bytes_and_another_stream_does_not() {
        let first =
            |stream| next_commands(&mut PoolSource::new(Pool::build(Op::Set, 16, 1_000, 64, 1), stream));
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn text_values_are_printable_and_never_an_integer() {
        let mut rng = Rng::with_seed(5);
        for len in [1, 8, 64, 1024] {
            let mut value = vec![0; len];
            for _ in 0..200 {
                fill_text_value(&mut rng, &mut value);
                assert!(value[0].is_ascii_alphabetic());
                assert!(value.iter().all(u8::is_ascii_graphic));
            }
        }
    }

    #[test]
    fn integer_values_are_integers_of_that_many_digits() {
        let mut rng = Rng::with_seed(5);
        let mut value = [0; 8];
        for _ in 0..200 {
            fill_integer_value(&mut rng, &mut value);
            let text = std::str::from_utf8(&value).unwrap();
            assert_eq!(text.parse::<i64>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_sequence_sets_every_key_once_and_ends() {
        let mut source = SetSequence::new(Stored::TextWithTtl { len_bytes: 64 }, 10, 4, 1);
        let mut scratch = Vec::new();
        let mut keys = Vec::new();
        let mut sizes = Vec::new();
        while let Some(batch) = source.next_batch(&mut scratch) {
            sizes.push(batch.replies);
            for command in commands(batch.bytes) {
                assert_eq!((command[0].as_str(), command[3].as_str(), command[2].len()), ("SET", "EX", 64));
                keys.push(command[1].clone());
            }
        }
        assert_eq!(sizes, [4, 4, 2]);
        let expected: Vec<String> = (0..10).map(|number| format!("key:{number:012}")).collect();
        assert_eq!(keys, expected);
    }
}
