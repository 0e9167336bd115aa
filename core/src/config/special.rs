//! Values of several words: save points, buffer limits, addresses, percentiles, flag sets.
//!
//! Each type is one directive's value (see `value.rs` for the trait). A directive of several words may come as
//! separate words or, as CONFIG SET has it, as one with single spaces between them; the caller has split it by then, and
//! an empty text has become no words at all.

use super::value::{Kind, Origin, Text, Value, Why, memory_with_unit, not_one_of, parse_memory};
use crate::protocol::inline::quote;
use crate::protocol::number::{parse_f64, parse_i64};
use crate::protocol::until_nul;

const WRONG_NUMBER: Why = Why::Borrowed("wrong number of arguments");

/// A number as C's strtoll reads it: blanks before it, a sign, leading zeros; beyond 64 bits it is the nearest number,
/// and no text at all is zero.
fn parse_long(text: &[u8]) -> Option<i64> {
    let text = until_nul(text);
    if text.is_empty() {
        return Some(0);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let number = &text[text.iter().take_while(|byte| is_blank(byte)).count()..];
    let (is_negative, digits) = match number {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sign = if is_negative { -1 } else { 1 };
    let with_digit =
        |number: i64, digit: &u8| number.checked_mul(10)?.checked_add(sign * i64::from(digit - b'0'));
    Some(digits.iter().try_fold(0, with_digit).unwrap_or(if is_negative { i64::MIN } else { i64::MAX }))
}

/// Joins words with spaces.
fn joined<I: IntoIterator<Item = Vec<u8>>>(words: I) -> Vec<u8> {
    words.into_iter().collect::<Vec<_>>().join(&b' ')
}

/// `save <seconds> <changes> ...`: a snapshot is due after so many changes in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    pub period_s: i64,
    pub change_count: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavePoints(pub Vec<SavePoint>);

impl Default for SavePoints {
    fn default() -> Self {
        SavePoints(
            [(3600, 1), (300, 100), (60, 10000)]
                .map(|(period_s, change_count)| SavePoint { period_s, change_count })
                .to_vec(),
        )
    }
}

impl Value for SavePoints {
    /// The first `save` line of all files and arguments replaces the default, the next ones add to it; an empty
    /// one clears what was there. CONFIG SET replaces.
    fn assign(&mut self, _: Kind, args: &[&[u8]], origin: Origin) -> Result<(), Why> {
        if args.is_empty() || matches!(args, [only] if until_nul(only).is_empty()) {
            self.0.clear();
            return Ok(());
        }
        let points: Option<Vec<SavePoint>> = args
            .chunks(2)
            .map(|pair| {
                let [period, changes] = pair else { return None };
                let period_s = parse_long(period).filter(|&period_s| period_s >= 1)?;
                // Redis judges it in 64 bits and keeps 32 of them.
                let change_count = parse_long(changes).filter(|&count| count >= 0)? as i32;
                Some(SavePoint { period_s, change_count })
            })
            .collect();
        let points = points.ok_or("Invalid save parameters")?;
        match origin {
            Origin::Load { first: false } => self.0.extend(points),
            Origin::Load { first: true } | Origin::Set => self.0 = points,
        }
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        joined(self.0.iter().map(|point| format!("{} {}", point.period_s, point.change_count).into_bytes()))
    }

    fn lines(&self, _: Kind) -> Vec<Vec<u8>> {
        if self.0.is_empty() {
            return vec![b"\"\"".to_vec()];
        }
        let line = |point: &SavePoint| format!("{} {}", point.period_s, point.change_count).into_bytes();
        self.0.iter().map(line).collect()
    }
}

/// How much unsent reply a client may have: no more than `hard_bytes` ever, no more than `soft_bytes` for longer
/// than `soft_seconds`. Zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferLimit {
    pub hard_bytes: u64,
    pub soft_bytes: u64,
    pub soft_seconds: u32,
}

/// client-output-buffer-limit, by class of client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    pub normal: BufferLimit,
    pub replica: BufferLimit,
    pub pubsub: BufferLimit,
}

impl Default for BufferLimits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        BufferLimits {
            normal: BufferLimit::default(),
            replica: BufferLimit { hard_bytes: 256 * MIB, soft_bytes: 64 * MIB, soft_seconds: 60 },
            pubsub: BufferLimit { hard_bytes: 32 * MIB, soft_bytes: 8 * MIB, soft_seconds: 60 },
        }
    }
}

impl BufferLimits {
    fn classes(&self) -> [(&'static str, &'static str, BufferLimit); 3] {
        // Redis shows `slave` to clients and writes `replica` to files.
        [
            ("normal", "normal", self.normal),
            ("slave", "replica", self.replica),
            ("pubsub", "pubsub", self.pubsub),
        ]
    }
}

impl Value for BufferLimits {
    /// Groups of `class hard soft seconds`; the classes that are not named keep their limits.
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        if !args.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        let mut limits = self.clone();
        for group in args.chunks_exact(4) {
            let slot = match until_nul(group[0]).to_ascii_lowercase().as_slice() {
                b"normal" => &mut limits.normal,
                b"slave" | b"replica" => &mut limits.replica,
                b"pubsub" => &mut limits.pubsub,
                _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
            };
            let limit = || {
                Some(BufferLimit {
                    hard_bytes: parse_memory(group[1])?,
                    soft_bytes: parse_memory(group[2])?,
                    // An int in Redis, judged when it is one.
                    soft_seconds: u32::try_from(parse_long(group[3])? as i32).ok()?,
                })
            };
            *slot = limit()
                .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
        }
        *self = limits;
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        joined(self.classes().map(|(class, _, limit)| {
            format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds).into_bytes()
        }))
    }

    fn lines(&self, _: Kind) -> Vec<Vec<u8>> {
        let unit = |bytes: u64| memory_with_unit(i128::from(bytes));
        let usual = BufferLimits::default();
        let classes = self.classes().into_iter().zip(usual.classes());
        classes
            .filter(|(class, usual)| class != usual)
            .map(|((_, class, limit), _)| {
                let (hard, soft) = (unit(limit.hard_bytes), unit(limit.soft_bytes));
                format!("{class} {hard} {soft} {}", limit.soft_seconds).into_bytes()
            })
            .collect()
    }
}

/// oom-score-adj-values: what is added to, or used as, the OOM score of a master, a replica and a background child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScoreAdjValues(pub [i32; 3]);

impl OomScoreAdjValues {
    const MAX: i64 = 2000;
}

impl Value for OomScoreAdjValues {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        let args: [&[u8]; 3] = args.try_into().map_err(|_| WRONG_NUMBER)?;
        let mut values = [0; 3];
        for (value, arg) in values.iter_mut().zip(args) {
            *value = parse_long(arg)
                .filter(|value| (-Self::MAX..=Self::MAX).contains(value))
                .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")?
                as i32;
        }
        self.0 = values;
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        joined(self.0.map(|value| value.to_string().into_bytes()))
    }
}

/// notify-keyspace-events: which events are published, and to which kind of channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyEvents(pub u16);

impl NotifyEvents {
    pub const GENERIC: u16 = 1 << 0;
    pub const STRING: u16 = 1 << 1;
    pub const LIST: u16 = 1 << 2;
    pub const SET: u16 = 1 << 3;
    pub const HASH: u16 = 1 << 4;
    pub const ZSET: u16 = 1 << 5;
    pub const EXPIRED: u16 = 1 << 6;
    pub const EVICTED: u16 = 1 << 7;
    pub const STREAM: u16 = 1 << 8;
    pub const MODULE: u16 = 1 << 9;
    pub const NEW: u16 = 1 << 10;
    /// Publish to `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: u16 = 1 << 11;
    /// Publish to `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: u16 = 1 << 12;
    pub const KEY_MISS: u16 = 1 << 13;
    /// What `A` stands for: every class but misses and new keys.
    pub const ALL: u16 = Self::NEW - 1;

    const CLASSES: [(u8, u16); 11] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::ZSET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW),
    ];
    const REST: [(u8, u16); 3] = [(b'K', Self::KEYSPACE), (b'E', Self::KEYEVENT), (b'm', Self::KEY_MISS)];

    pub fn contains(self, flags: u16) -> bool {
        self.0 & flags == flags
    }

    fn letters(self, classes: &[(u8, u16)]) -> impl Iterator<Item = u8> {
        classes.iter().filter(move |(_, flag)| self.contains(*flag)).map(|(letter, _)| *letter)
    }
}

impl Value for NotifyEvents {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        let mut flags = 0;
        for letter in until_nul(args[0]) {
            let known = Self::CLASSES.iter().chain(&Self::REST).find(|(known, _)| known == letter);
            flags |= match (letter, known) {
                (b'A', _) => Self::ALL,
                (_, Some((_, flag))) => *flag,
                (_, None) => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
            };
        }
        self.0 = flags;
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        // `A` hides `n`, which it does not include: Redis 7.0 answers this.
        let classes: Vec<u8> =
            if self.contains(Self::ALL) { b"A".to_vec() } else { self.letters(&Self::CLASSES).collect() };
        classes.into_iter().chain(self.letters(&Self::REST)).collect()
    }

    fn lines(&self, _: Kind) -> Vec<Vec<u8>> {
        // In a file nothing may be lost, so here `A` does not hide `n`.
        let classes: Vec<u8> = if self.contains(Self::ALL) {
            let new = self.contains(Self::NEW).then_some(b'n');
            b"A".iter().copied().chain(new).collect()
        } else {
            self.letters(&Self::CLASSES).collect()
        };
        let letters: Vec<u8> = classes.into_iter().chain(self.letters(&Self::REST)).collect();
        vec![quote(&letters)]
    }
}

/// bind: addresses to listen on. One with a leading `-` may be missing from the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindAddresses(pub Vec<Text>);

impl BindAddresses {
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(|address| address.to_str_lossy().into_owned()).collect()
    }
}

/// Redis takes no more listening addresses than this.
pub const BIND_ADDRESS_COUNT_MAX: usize = 16;

impl Default for BindAddresses {
    fn default() -> Self {
        BindAddresses(["*", "-::*"].map(Text::from).to_vec())
    }
}

impl Value for BindAddresses {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        if args.len() > BIND_ADDRESS_COUNT_MAX {
            return Err("Too many bind addresses specified.".into());
        }
        self.0 = args.iter().map(|&address| Text::from(until_nul(address))).collect();
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        joined(self.0.iter().map(|address| address.as_bytes().to_vec()))
    }

    fn lines(&self, kind: Kind) -> Vec<Vec<u8>> {
        let is_plain = |address: &Text| {
            let bytes = address.as_bytes();
            !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(byte))
        };
        vec![if !self.0.is_empty() && self.0.iter().all(is_plain) {
            self.show(kind)
        } else {
            // No address is written so, but whatever was taken is given back: one argument of quoted words.
            quote(&joined(self.0.iter().map(|address| quote(address.as_bytes()))))
        }]
    }
}

/// replicaof: the master this server copies, if any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaOf(pub Option<(Text, u16)>);

impl Value for ReplicaOf {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        let [host, port] = args else { return Err(WRONG_NUMBER) };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            self.0 = None;
            return Ok(());
        }
        let port = parse_i64(port).and_then(|port| u16::try_from(port).ok()).ok_or("Invalid master port")?;
        self.0 = Some((Text::from(*host), port));
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        match &self.0 {
            Some((host, port)) => [host.as_bytes(), b" ", port.to_string().as_bytes()].concat(),
            None => Vec::new(),
        }
    }

    fn lines(&self, kind: Kind) -> Vec<Vec<u8>> {
        self.0.iter().map(|_| self.show(kind)).collect()
    }
}

/// latency-tracking-info-percentiles: which ones INFO latencystats shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Default for Percentiles {
    fn default() -> Self {
        Percentiles(vec![50.0, 99.0, 99.9])
    }
}

impl Percentiles {
    /// Six decimals at most, no trailing zeros: how INFO and CONFIG GET name a percentile.
    pub fn name(percentile: f64) -> String {
        let text = format!("{percentile:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl Value for Percentiles {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        let mut percentiles = Vec::with_capacity(args.len());
        for arg in args {
            let percentile = parse_f64(arg)
                .filter(|p| !p.is_nan())
                .ok_or("Invalid latency-tracking-info-percentiles parameters")?;
            if !(0.0..=100.0).contains(&percentile) {
                return Err(
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into()
                );
            }
            percentiles.push(percentile);
        }
        self.0 = percentiles;
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        joined(self.0.iter().map(|&percentile| Self::name(percentile).into_bytes()))
    }

    fn lines(&self, _: Kind) -> Vec<Vec<u8>> {
        // In a file nothing may be lost, so here are all the digits.
        let line = joined(self.0.iter().map(|percentile| percentile.to_string().into_bytes()));
        vec![if self.0.is_empty() { b"\"\"".to_vec() } else { line }]
    }
}

/// shutdown-on-sigint, shutdown-on-sigterm: the options of SHUTDOWN that the signal stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownOnSignal {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
}

impl Value for ShutdownOnSignal {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        const WORDS: &[&str] = &["default", "save", "nosave", "now", "force"];
        let mut options = ShutdownOnSignal::default();
        if args.is_empty() {
            return Err(not_one_of(WORDS));
        }
        for arg in args {
            match until_nul(arg).to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => options.save = true,
                b"nosave" => options.nosave = true,
                b"now" => options.now = true,
                b"force" => options.force = true,
                _ => return Err(not_one_of(WORDS)),
            }
        }
        if options.save && options.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *self = options;
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        let words = [(self.save, "save"), (self.nosave, "nosave"), (self.now, "now"), (self.force, "force")];
        let set: Vec<&str> = words.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word).collect();
        if set.is_empty() { b"default".to_vec() } else { set.join(" ").into_bytes() }
    }
}

/// maxmemory-clients: what all client buffers together may take; zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMemoryLimit {
    Bytes(u64),
    /// Of maxmemory; 1..=100.
    Percent(u8),
}

impl Value for ClientMemoryLimit {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        // As in Redis a percentage is a negative number, which a number of bytes beyond 63 bits becomes, too.
        let percent = |text: &[u8]| parse_i64(text.strip_suffix(b"%")?).filter(|&percent| percent >= 0);
        let number = match parse_memory(args[0]) {
            Some(bytes) => bytes as i64,
            None => -percent(args[0]).ok_or("argument must be a memory or percent value")?,
        };
        *self = match number {
            0.. => ClientMemoryLimit::Bytes(number as u64),
            -100..0 => ClientMemoryLimit::Percent(-number as u8),
            ..-100 => return Err("percentage argument must be less or equal to 100".into()),
        };
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        match self {
            ClientMemoryLimit::Bytes(bytes) => bytes.to_string().into_bytes(),
            ClientMemoryLimit::Percent(percent) => format!("{percent}%").into_bytes(),
        }
    }

    fn lines(&self, kind: Kind) -> Vec<Vec<u8>> {
        vec![match self {
            ClientMemoryLimit::Bytes(bytes) => memory_with_unit(i128::from(*bytes)).into_bytes(),
            ClientMemoryLimit::Percent(_) => self.show(kind),
        }]
    }
}
