//! Where the commands of a transaction run, and which keys they lock there. This is computed once, at the
//! transaction's home, when a command is queued or when the transaction begins: to find a key's shard and hash costs
//! more than most of what is then done with the key.

use crate::command::keys::{self, KeyPositions, key_flag};
use crate::command::queue::{KEPT_BYTES_MAX, Queue};
use crate::command::route;
use crate::command::table::{
    Command, CommandEntry, CommandTable, KeyShape, KeyspaceLock, Merge, Run, Scope, flag,
};
use crate::protocol::Argv;
use crate::shard::lock::{KeyLock, LockSet};
use crate::shard::slot::shard_of;
use crate::shard::txn::CheckedOutKey;
use crate::types::hashing::hash_key;
use ahash::AHashSet;
use smallvec::SmallVec;
use std::ops::Range;

/// Where a command of a transaction runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// It has no keys: on any participant.
    Anywhere,
    /// On one shard.
    One(usize),
    /// On the shards of its keys, on each with that shard's keys.
    Split,
    /// On every shard.
    Every(KeyspaceLock),
    /// At home, over keys that are checked out to home. A program may have no keys.
    CheckOut,
    /// The same, but some of the keys are known only after a look at the others ([`DerivedKeys`]): every shard takes part
    /// with all its keys locked.
    ///
    /// [`DerivedKeys`]: crate::command::table::DerivedKeys
    CheckOutDerived,
    /// At home, over the session.
    Session,
    /// At home, over the session; what it changes there is known before it runs (SELECT).
    SessionPrecomputed,
}

/// A key of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoutedKey {
    pub hash: u64,
    /// Which argument it is.
    pub arg: u32,
    /// The shard on which it is locked: its own, or, for a command that runs elsewhere because it will fail, the
    /// shard where that runs.
    pub shard: u16,
    pub exclusive: bool,
}

/// Where the commands of a transaction run, and their keys, by their places in the queue.
#[derive(Default, Debug)]
pub struct Routes {
    placements: Vec<Placement>,
    /// For each command: where its keys end. They begin where those of the previous command end.
    ends: Vec<u32>,
    keys: Vec<RoutedKey>,
}

impl Placement {
    /// Whether it runs at home over the session.
    pub fn is_over_session(self) -> bool {
        matches!(self, Placement::Session | Placement::SessionPrecomputed)
    }

    /// Whether it runs at home over checked-out keys.
    pub fn is_checked_out(self) -> bool {
        matches!(self, Placement::CheckOut | Placement::CheckOutDerived)
    }
}

/// The number of shards of the process, and the home of the transaction's client.
#[derive(Clone, Copy, Debug)]
pub struct Shards {
    pub home: usize,
    pub count: usize,
}

impl Routes {
    /// Adds a command. `known`: the hash and the shard of its key, if it has a single key and they are known.
    pub fn add(
        &mut self,
        entry: &CommandEntry,
        args: Argv<'_>,
        known: Option<(u64, usize)>,
        shards: Shards,
    ) -> Placement {
        let row = entry.row;
        if matches!(row.run, Run::Program(_)) {
            self.add_program(row, args, shards);
            return Placement::CheckOut;
        }
        let placement = match entry.shape {
            KeyShape::None => Placement::Anywhere,
            KeyShape::First => {
                let (hash, shard) = known.unwrap_or_else(|| {
                    let key = args.arg(1);
                    (hash_key(key), shard_of(key, shards.count))
                });
                let flags = match row.find_keys {
                    Some(_) => keys::positions(row, args).first().map_or(0, |&(_, flags)| flags),
                    None => row.keys[0].flags,
                };
                let exclusive = flags & key_flag::RO == 0;
                self.keys.push(RoutedKey { hash, arg: 1, shard: shard as u16, exclusive });
                Placement::One(shard)
            }
            KeyShape::Range { .. } if !route::range_fits(entry, args) => {
                self.add_keys_on(shards.home, row, args)
            }
            KeyShape::Range { .. } => self.add_keys(row, args, shards),
            KeyShape::Complex => match route::scope(row, args, shards.count) {
                Scope::Session | Scope::Multi | Scope::Exec if row.selects.is_some() => {
                    Placement::SessionPrecomputed
                }
                Scope::Session | Scope::Multi | Scope::Exec => Placement::Session,
                // In a transaction it must run at the same moment on all shards.
                Scope::Every(_) if row.has(flag::AFTER_HANDOFFS) => Placement::Every(KeyspaceLock::All),
                Scope::Every(lock) => Placement::Every(lock),
                Scope::Shard(shard) | Scope::Walk { shard, .. } => self.add_keys_on(shard, row, args),
                Scope::Keys if shards.count > 1 && row.derives_keys(args) => {
                    self.add_keys(row, args, shards);
                    Placement::CheckOutDerived
                }
                Scope::Keys | Scope::Watch => self.add_keys(row, args, shards),
                Scope::Custom(_) => unreachable!("a custom scope chooses a plain one"),
            },
        };
        self.end(placement);
        placement
    }

    /// Adds a program. It runs at home, wherever its keys are, because it may be suspended.
    fn add_program(&mut self, row: &Command, args: Argv<'_>, shards: Shards) {
        keys::each(row, args, |at, _| self.add_key(args, at, shards.count, true));
        self.end(Placement::CheckOut);
    }

    /// Adds a command that runs over checked-out keys, but only over those at `positions`.
    pub fn add_check_out(&mut self, args: Argv<'_>, positions: &KeyPositions, shards: Shards) {
        for &(at, _) in positions {
            self.add_key(args, at, shards.count, true);
        }
        self.end(Placement::CheckOut);
    }

    /// For commands that all run in one stage: if any of them runs over checked-out keys, so do those of the others that
    /// use one of its keys, those that use a key of these, and so on. `queue` must have the same commands.
    pub fn check_out_overlapping(&mut self, queue: &Queue, shard_count: usize) {
        let is_checked_out = |placement: &Placement| *placement == Placement::CheckOut;
        let count = self.placements.iter().filter(|placement| is_checked_out(placement)).count();
        if count == 0 || count == self.len() {
            return;
        }
        let mut hashes: AHashSet<u64> = AHashSet::new();
        for at in (0..self.len()).filter(|&at| is_checked_out(&self.placements[at])) {
            hashes.extend(self.keys(at).iter().map(|key| key.hash));
        }
        loop {
            let mut has_changed = false;
            for at in 0..self.len() {
                if is_checked_out(&self.placements[at])
                    || !self.keys(at).iter().any(|key| hashes.contains(&key.hash))
                {
                    continue;
                }
                let args = queue.args(at);
                let is_with_owner = |key: &RoutedKey| {
                    shard_of(args.arg(key.arg as usize), shard_count) == usize::from(key.shard)
                };
                if !self.keys(at).iter().all(is_with_owner) {
                    // It runs elsewhere because it will fail, whatever its keys are.
                    continue;
                }
                self.placements[at] = Placement::CheckOut;
                let (start, end) = self.range_of(at..at + 1);
                self.keys[start..end].iter_mut().for_each(|key| key.exclusive = true);
                hashes.extend(self.keys[start..end].iter().map(|key| key.hash));
                has_changed = true;
            }
            if !has_changed {
                return;
            }
        }
    }

    /// Has all commands run at home over checked-out keys, one after the other, if they all can. `queue` must have the same
    /// commands. Returns whether they do.
    pub fn check_out_all(&mut self, queue: &Queue, shard_count: usize) -> bool {
        if !(0..self.len()).all(|at| self.can_run_at_home(queue, shard_count, at)) {
            return false;
        }
        self.placements.fill(Placement::CheckOut);
        self.keys.iter_mut().for_each(|key| key.exclusive = true);
        true
    }

    /// Has those commands over keys run at home over checked-out keys that can, each as a stage by itself: one after the
    /// other.
    pub fn check_out_each(&mut self, queue: &Queue, shard_count: usize) {
        for at in 0..self.len() {
            if !self.keys(at).is_empty() && self.can_run_at_home(queue, shard_count, at) {
                self.placements[at] = Placement::CheckOut;
                let (start, end) = self.range_of(at..at + 1);
                self.keys[start..end].iter_mut().for_each(|key| key.exclusive = true);
            }
        }
    }

    fn can_run_at_home(&self, queue: &Queue, shard_count: usize, at: usize) -> bool {
        let is_with_owner = |key: &RoutedKey| {
            shard_of(queue.args(at).arg(key.arg as usize), shard_count) == usize::from(key.shard)
        };
        match self.placement(at) {
            Placement::Anywhere | Placement::Split | Placement::CheckOut => true,
            // Without keys it runs there for another reason, or will fail.
            Placement::One(_) => !self.keys(at).is_empty() && self.keys(at).iter().all(is_with_owner),
            Placement::CheckOutDerived
            | Placement::Every(_)
            | Placement::Session
            | Placement::SessionPrecomputed => false,
        }
    }

    /// Adds a command that runs on every shard.
    pub fn add_every(&mut self, lock: KeyspaceLock) {
        self.end(Placement::Every(lock));
    }

    fn end(&mut self, placement: Placement) {
        self.placements.push(placement);
        self.ends.push(self.keys.len() as u32);
    }

    fn add_key(&mut self, args: Argv<'_>, at: usize, shard_count: usize, exclusive: bool) {
        let key = args.arg(at);
        let shard = shard_of(key, shard_count) as u16;
        self.keys.push(RoutedKey { hash: hash_key(key), arg: at as u32, shard, exclusive });
    }

    /// Adds the keys of a command that runs on their shards.
    fn add_keys(&mut self, row: &Command, args: Argv<'_>, shards: Shards) -> Placement {
        let first = self.keys.len();
        keys::each(row, args, |at, flags| {
            self.add_key(args, at, shards.count, flags & key_flag::RO == 0);
        });
        let added = &mut self.keys[first..];
        let Some(shard) = added.first().map(|key| key.shard) else { return Placement::One(shards.home) };
        let is_one = added.iter().all(|key| key.shard == shard) && !matches!(row.scope, Scope::Watch);
        match row.merge {
            _ if is_one => Placement::One(usize::from(shard)),
            Merge::CheckOut => {
                // A checked-out key is missing on its shard, so other commands must not even read it.
                added.iter_mut().for_each(|key| key.exclusive = true);
                Placement::CheckOut
            }
            Merge::Sum | Merge::Gather | Merge::AllOk | Merge::ConcatArrays | Merge::With(_) => {
                Placement::Split
            }
        }
    }

    /// Adds the keys of a command that runs on `shard`, whichever shard owns them.
    fn add_keys_on(&mut self, shard: usize, row: &Command, args: Argv<'_>) -> Placement {
        keys::each_locked(row, args, |at, flags| {
            self.keys.push(RoutedKey {
                hash: hash_key(args.arg(at)),
                arg: at as u32,
                shard: shard as u16,
                exclusive: flags & key_flag::RO == 0,
            });
        });
        Placement::One(shard)
    }

    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    pub fn placement(&self, at: usize) -> Placement {
        self.placements[at]
    }

    pub fn len(&self) -> usize {
        self.placements.len()
    }

    pub fn is_empty(&self) -> bool {
        self.placements.is_empty()
    }

    /// The keys of the command `at`, in the order of its arguments.
    pub fn keys(&self, at: usize) -> &[RoutedKey] {
        self.keys_of(at..at + 1)
    }

    /// The keys of several commands, in order.
    pub fn keys_of(&self, commands: Range<usize>) -> &[RoutedKey] {
        let (start, end) = self.range_of(commands);
        &self.keys[start..end]
    }

    /// Where the keys of several commands begin and end.
    fn range_of(&self, commands: Range<usize>) -> (usize, usize) {
        let end_of = |at: usize| self.ends[at] as usize;
        (commands.start.checked_sub(1).map_or(0, end_of), commands.end.checked_sub(1).map_or(0, end_of))
    }

    /// Removes all commands but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.placements.truncate(len);
        self.ends.truncate(len);
        self.keys.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    /// Removes all commands. The memory is kept for reuse unless it is oversized, as in their queue.
    pub fn clear(&mut self) {
        if self.heap_len_bytes() > KEPT_BYTES_MAX {
            *self = Routes::default();
        }
        self.truncate(0);
    }

    /// Its heap bytes, for memory accounting.
    pub fn heap_len_bytes(&self) -> usize {
        self.placements.capacity() * size_of::<Placement>()
            + self.ends.capacity() * size_of::<u32>()
            + self.keys.capacity() * size_of::<RoutedKey>()
    }

    /// What the commands need of each shard. `queue` must have the same commands.
    pub fn needs(&self, table: &CommandTable, queue: &Queue, shard_count: usize) -> Vec<Need> {
        let mut needs = vec![Need::default(); shard_count];
        if self.keys.len() > needs[0].locks.inline_size() {
            let mut counts = vec![0; shard_count];
            self.keys.iter().for_each(|key| counts[usize::from(key.shard)] += 1);
            needs.iter_mut().zip(counts).for_each(|(need, count)| need.locks.reserve_exact(count));
        }
        for (at, (&placement, queued)) in self.placements.iter().zip(queue.commands()).enumerate() {
            match placement {
                Placement::Anywhere | Placement::Session | Placement::SessionPrecomputed => {}
                Placement::One(shard) => {
                    let row = table.entry(queued.call.command).row;
                    needs[shard].takes_part = true;
                    needs[shard].whole |=
                        row.has(flag::TOUCHES_ARBITRARY_KEYS) || row.derives_keys(queue.args(at));
                }
                Placement::Every(lock) => needs.iter_mut().for_each(|need| {
                    need.takes_part = true;
                    need.whole |= lock == KeyspaceLock::All;
                }),
                Placement::CheckOutDerived => needs.iter_mut().for_each(|need| {
                    need.takes_part = true;
                    need.whole = true;
                }),
                Placement::Split | Placement::CheckOut => {}
            }
            for key in self.keys(at) {
                let need = &mut needs[usize::from(key.shard)];
                need.takes_part = true;
                need.locks.push(KeyLock { id: key.hash, exclusive: key.exclusive });
            }
        }
        needs
    }
}

/// What a transaction needs of one shard.
#[derive(Clone, Default)]
pub struct Need {
    pub takes_part: bool,
    /// It locks the shard's whole keyspace.
    pub whole: bool,
    pub locks: SmallVec<[KeyLock; 4]>,
}

impl Need {
    /// Makes all its locks exclusive.
    pub fn make_exclusive(&mut self) {
        self.locks.iter_mut().for_each(|lock| lock.exclusive = true);
    }

    pub fn into_lock_set(self) -> LockSet {
        if self.whole { LockSet::Whole } else { LockSet::Keys(self.locks) }
    }
}

/// The shards of keys, in ascending order, each once.
pub fn shards_of(keys: &[RoutedKey]) -> SmallVec<[u16; 4]> {
    // Nearly always there are at most 64 shards: a bit for each.
    let (mut low, mut high) = (0u64, SmallVec::<[u16; 4]>::new());
    for key in keys {
        match key.shard {
            shard @ 0..64 => low |= 1 << shard,
            shard => high.push(shard),
        }
    }
    let mut shards = SmallVec::new();
    while low != 0 {
        shards.push(low.trailing_zeros() as u16);
        low &= low - 1;
    }
    high.sort_unstable();
    high.dedup();
    shards.extend(high);
    shards
}

/// Adds the keys that have to be checked out for a command, by shard; some may be there already. `keys`: all that it
/// needs. (A blocked command that is served from one of its keys does not need the others that it waits for.) Those of `home`
/// stay where they are. Returns whether there are any of these.
pub fn add_check_out_keys(
    row: &Command,
    args: Argv<'_>,
    keys: &[RoutedKey],
    home: usize,
    db: u32,
    db_count: usize,
    shards: &mut [Vec<CheckedOutKey>],
) -> bool {
    let mut has_own = false;
    for routed in keys {
        if usize::from(routed.shard) == home {
            has_own = true;
            continue;
        }
        let at = routed.arg as usize;
        let db = (row.key_db)(args, at, db, db_count);
        let other_db = row.other_db.and_then(|other_db| other_db(args, db_count));
        for db in std::iter::once(db).chain(other_db) {
            shards[usize::from(routed.shard)].push((db, routed.hash, args.arg(at).to_vec()));
        }
    }
    has_own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_keeps_memory_for_reuse_unless_it_is_oversized() {
        let mut routes = Routes::default();
        routes.add_every(KeyspaceLock::None);
        routes.clear();
        assert!(routes.is_empty() && routes.heap_len_bytes() > 0);
        (0..KEPT_BYTES_MAX).for_each(|_| routes.add_every(KeyspaceLock::None));
        routes.clear();
        assert_eq!((routes.len(), routes.heap_len_bytes()), (0, 0));
    }

    #[test]
    fn shards_are_ordered_and_unique_however_many_there_are() {
        let keys = |shards: &[u16]| {
            let key = |&shard| RoutedKey { hash: 0, arg: 1, shard, exclusive: false };
            shards.iter().map(key).collect::<Vec<_>>()
        };
        assert_eq!(shards_of(&keys(&[])).to_vec(), [0u16; 0]);
        assert_eq!(shards_of(&keys(&[1, 0, 1, 1])).to_vec(), [0, 1]);
        assert_eq!(shards_of(&keys(&[200, 63, 64, 0, 200, 64, 63])).to_vec(), [0, 63, 64, 200]);
    }
}
