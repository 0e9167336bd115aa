//! The directory: how many subscribers of which channel and pattern each shard has. All shards of the process share it.
//!
//! It consists of parts, by a hash of the name. A part is immutable: a change makes a new one and raises its version, and
//! whoever has a copy of the old one takes the new one when it sees that. So looking something up takes no lock, but for the
//! first time after a change.

use super::names::{Counts, Names};
use crate::types::glob::glob_matches;
use crate::types::hashing::hash_key;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a client subscribes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A channel of SPUBLISH and SSUBSCRIBE.
    ShardChannel,
    /// The commands that the server runs (MONITOR). The only name is empty.
    Commands,
    /// The changes of keys with a prefix (CLIENT TRACKING). Nothing is published to it: see
    /// [`shard::tracking`](crate::shard::tracking).
    KeyPrefix,
}

impl Kind {
    pub const COUNT: usize = 5;

    /// The number of its parts. One has all patterns, as a published message is compared with each of them.
    const fn part_count(self) -> usize {
        match self {
            Kind::Channel | Kind::ShardChannel => 256,
            Kind::Pattern | Kind::Commands | Kind::KeyPrefix => 1,
        }
    }

    /// Where its parts begin.
    const fn first_part(self) -> usize {
        match self {
            Kind::Channel => 0,
            Kind::ShardChannel => Kind::Channel.part_count(),
            Kind::Pattern => Kind::ShardChannel.first_part() + Kind::ShardChannel.part_count(),
            Kind::Commands => Kind::Pattern.first_part() + Kind::Pattern.part_count(),
            Kind::KeyPrefix => Kind::Commands.first_part() + Kind::Commands.part_count(),
        }
    }

    /// The index of the part that has a name of this kind.
    pub(super) fn part_of(self, name: &[u8]) -> usize {
        match self {
            Kind::Pattern | Kind::Commands | Kind::KeyPrefix => self.first_part(),
            Kind::Channel | Kind::ShardChannel => {
                self.first_part() + (hash_key(name) % self.part_count() as u64) as usize
            }
        }
    }
}

/// How many parts there are.
pub(super) const PART_COUNT: usize = Kind::KeyPrefix.first_part() + Kind::KeyPrefix.part_count();

#[derive(Default)]
struct Part {
    version: AtomicU64,
    names: Mutex<Arc<Names>>,
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Arc<Names>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter that has a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Position(AtomicU64);

/// See the module's documentation.
pub struct Directory {
    parts: Vec<Part>,
    /// By kind: how many names there are.
    name_counts: [AtomicU64; Kind::COUNT],
    /// By shard: the position of what is published next to it.
    positions: Vec<Position>,
}

impl Directory {
    pub fn new(shard_count: usize) -> Directory {
        Directory {
            parts: (0..PART_COUNT).map(|_| Part::default()).collect(),
            name_counts: Default::default(),
            positions: (0..shard_count).map(|_| Position::default()).collect(),
        }
    }

    /// A shard has one more subscriber of this name. Returns the part's version from which on this is known.
    pub fn add(&self, kind: Kind, name: &[u8], shard: usize) -> u64 {
        self.change(kind, kind.part_of(name), [name], |counts| add_to(counts, shard))
    }

    /// A shard has one subscriber of this name less. Returns the part's version from which on this is known.
    pub fn remove(&self, kind: Kind, name: &[u8], shard: usize) -> u64 {
        self.change(kind, kind.part_of(name), [name], |counts| take_from(counts, shard))
    }

    /// The same as [`add`](Self::add) for many prefixes of keys, which become known at once.
    pub fn add_key_prefixes<'a>(&self, prefixes: impl IntoIterator<Item = &'a [u8]>, shard: usize) {
        let part = Kind::KeyPrefix.first_part();
        self.change(Kind::KeyPrefix, part, prefixes, |counts| add_to(counts, shard));
    }

    /// The same as [`remove`](Self::remove) for many prefixes of keys.
    pub fn remove_key_prefixes<'a>(&self, prefixes: impl IntoIterator<Item = &'a [u8]>, shard: usize) {
        let part = Kind::KeyPrefix.first_part();
        self.change(Kind::KeyPrefix, part, prefixes, |counts| take_from(counts, shard));
    }

    /// Changes the counts of names that lie in one part. Returns the part's version from which on this is known.
    fn change<'a>(
        &self,
        kind: Kind,
        part: usize,
        names: impl IntoIterator<Item = &'a [u8]>,
        change: impl Fn(&mut Counts),
    ) -> u64 {
        let part = &self.parts[part];
        let mut changed = names.into_iter().peekable();
        let mut names = part.lock();
        if changed.peek().is_none() {
            return part.version.load(Ordering::SeqCst);
        }
        let names = Arc::make_mut(&mut names);
        let name_count = &self.name_counts[kind as usize];
        for name in changed {
            match names.change(name, &change) {
                1 => name_count.fetch_add(1, Ordering::SeqCst),
                -1 => name_count.fetch_sub(1, Ordering::SeqCst),
                _ => continue,
            };
        }
        part.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many channels, or patterns, have subscribers.
    #[inline]
    pub fn name_count(&self, kind: Kind) -> u64 {
        self.name_counts[kind as usize].load(Ordering::SeqCst)
    }

    /// Whether anybody listens to channels.
    pub fn has_listeners(&self) -> bool {
        [Kind::Channel, Kind::Pattern, Kind::ShardChannel].into_iter().any(|kind| self.name_count(kind) > 0)
    }

    /// The names with subscribers that match a pattern.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Arc<[u8]>> {
        let parts = &self.parts[kind.first_part()..][..kind.part_count()];
        let is_meant = |name: &&Arc<[u8]>| pattern.is_none_or(|pattern| glob_matches(pattern, name));
        let names = parts.iter().map(|part| Arc::clone(&part.lock()));
        names.flat_map(|names| names.keys().filter(is_meant).cloned().collect::<Vec<_>>()).collect()
    }

    /// How many clients have subscribed to this very name.
    pub fn subscriber_count(&self, kind: Kind, name: &[u8]) -> u64 {
        let names = self.parts[kind.part_of(name)].lock();
        names.get(name).map_or(0, count_of)
    }

    /// The version of a part.
    #[inline]
    pub(super) fn version(&self, part: usize) -> u64 {
        self.parts[part].version.load(Ordering::SeqCst)
    }

    /// The version of the prefixes of keys.
    #[inline]
    pub fn key_prefixes_version(&self) -> u64 {
        self.version(Kind::KeyPrefix.first_part())
    }

    /// The prefixes of keys, each with the shards of its clients, and their version.
    pub fn key_prefixes(&self) -> (u64, Vec<(Arc<[u8]>, SmallVec<[u16; 8]>)>) {
        let (version, names) = self.part(Kind::KeyPrefix.first_part());
        let shards = |counts: &Counts| counts.iter().map(|&(shard, _)| shard).collect();
        (version, names.iter().map(|(name, counts)| (Arc::clone(name), shards(counts))).collect())
    }

    /// A part's names, and its version.
    pub(super) fn part(&self, part: usize) -> (u64, Arc<Names>) {
        let names = self.parts[part].lock();
        (self.version(part), Arc::clone(&names))
    }

    /// The position that is drawn next for a shard.
    pub fn position(&self, shard: usize) -> u64 {
        self.positions[shard].0.load(Ordering::SeqCst)
    }

    pub(super) fn draw_position(&self, shard: usize) -> u64 {
        self.positions[shard].0.fetch_add(1, Ordering::SeqCst)
    }
}

/// A shard has one subscriber more.
fn add_to(counts: &mut Counts, shard: usize) {
    match counts.iter_mut().find(|(of, _)| usize::from(*of) == shard) {
        Some((_, count)) => *count += 1,
        None => counts.push((shard as u16, 1)),
    }
}

/// A shard has one subscriber less.
fn take_from(counts: &mut Counts, shard: usize) {
    let at = counts.iter().position(|(of, _)| usize::from(*of) == shard);
    let at = at.expect("only a subscription that was added is removed");
    counts[at].1 -= 1;
    if counts[at].1 == 0 {
        counts.remove(at);
    }
}

/// How many subscribers all shards together have.
pub(super) fn count_of(counts: &Counts) -> u64 {
    counts.iter().map(|&(_, count)| u64::from(count)).sum()
}
