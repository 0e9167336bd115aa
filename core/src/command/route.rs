//! Keys -> plan: on which shard or shards a command runs. Computed once, where the client is.

use crate::command::keys::{self, key_flag};
use crate::command::table::{Command, Entry, KeyShape, KeyspaceLock, Merge, Scope};
use crate::protocol::{Argv, OwnedArgv};
use crate::shard::lock::{KeyLock, LockSet};
use crate::shard::slot::shard_of;
use crate::shard::txn::{Part, TxnKind, Work};
use crate::types::hash::hash_key;
use smallvec::SmallVec;

/// Where a command runs.
pub enum Route {
    /// At home, over the session.
    Session,
    /// Whole, on one shard.
    One(usize),
    /// Over keys of several shards: see [`plan`].
    Many,
    /// On every shard.
    Every(KeyspaceLock),
}

/// Where this request runs.
#[inline]
pub fn route(entry: &Entry, args: Argv<'_>, home: usize, shard_count: usize) -> Route {
    match entry.shape {
        KeyShape::First => Route::One(shard_of(args.arg(1), shard_count)),
        KeyShape::None => Route::One(home),
        KeyShape::Range { first, last, step } => {
            if shard_count == 1 {
                return Route::One(home);
            }
            let end = args.len().saturating_add_signed(last + 1);
            // A key without its value: the handler refuses it, which must be before any shard has set a key.
            if !end.saturating_sub(first).is_multiple_of(step) {
                return Route::One(home);
            }
            one_or_many((first..end).step_by(step).map(|at| args.arg(at)), home, shard_count)
        }
        KeyShape::Complex => complex(entry.row, args, home, shard_count),
    }
}

fn complex(row: &Command, args: Argv<'_>, home: usize, shard_count: usize) -> Route {
    let scope = match row.scope {
        Scope::Custom(choose) => choose(args, shard_count),
        scope => scope,
    };
    match scope {
        Scope::Session => Route::Session,
        Scope::Every(lock) => Route::Every(lock),
        Scope::Shard(shard) => Route::One(shard),
        Scope::Custom(_) => unreachable!("a custom scope names a plain one"),
        Scope::Keys => {
            let keys = keys::positions(row, args);
            one_or_many(keys.iter().map(|&(at, _)| args.arg(at)), home, shard_count)
        }
    }
}

fn one_or_many<'a>(mut keys: impl Iterator<Item = &'a [u8]>, home: usize, shard_count: usize) -> Route {
    let Some(first) = keys.next() else { return Route::One(home) };
    let shard = shard_of(first, shard_count);
    if shard_count == 1 || keys.all(|key| shard_of(key, shard_count) == shard) {
        Route::One(shard)
    } else {
        Route::Many
    }
}

/// The locks a command needs on a shard which runs it whole, for the moment of its run.
pub fn instant_locks(row: &Command, args: Argv<'_>) -> SmallVec<[KeyLock; 4]> {
    keys::positions(row, args).iter().map(|&(at, flags)| lock(args.arg(at), flags)).collect()
}

fn lock(key: &[u8], flags: u32) -> KeyLock {
    KeyLock { id: hash_key(key), exclusive: flags & key_flag::RO == 0 }
}

/// The parts of a command over several shards, in ascending order of shards.
pub fn plan(
    row: &Command,
    args: Argv<'_>,
    db: u32,
    db_count: usize,
    shard_count: usize,
) -> (TxnKind, Vec<Option<Part>>) {
    let positions = keys::positions(row, args);
    match row.merge {
        Merge::CheckOut => {
            (TxnKind::CheckOut, check_out_parts(row, args, &positions, db, db_count, shard_count))
        }
        Merge::Sum | Merge::Gather | Merge::AllOk | Merge::ConcatArrays | Merge::With(_) => {
            (TxnKind::FanOut, fan_out_parts(args, &positions, shard_count))
        }
    }
}

/// Splits a request whose keys recur in groups (`MSET k v k v`): each shard gets the head and its groups.
fn fan_out_parts(args: Argv<'_>, positions: &[(usize, u32)], shard_count: usize) -> Vec<Option<Part>> {
    let head_len = positions[0].0;
    let mut shares: Vec<Option<(OwnedArgv, SmallVec<[KeyLock; 4]>)>> =
        (0..shard_count).map(|_| None).collect();
    for (n, &(at, flags)) in positions.iter().enumerate() {
        let end = positions.get(n + 1).map_or(args.len(), |&(next, _)| next);
        let (argv, locks) = shares[shard_of(args.arg(at), shard_count)].get_or_insert_with(|| {
            let mut argv = OwnedArgv::new();
            (0..head_len).for_each(|head| argv.push_arg(args.arg(head)));
            (argv, SmallVec::new())
        });
        (at..end).for_each(|member| argv.push_arg(args.arg(member)));
        locks.push(lock(args.arg(at), flags));
    }
    shares
        .into_iter()
        .enumerate()
        .filter_map(|(shard, share)| {
            let (argv, locks) = share?;
            Some(Some(Part { shard, locks: LockSet::Keys(locks), work: Work::Run(argv) }))
        })
        .collect()
}

/// What a shard locks and hands over: (database, hash, key) each.
type CheckOutShare = (SmallVec<[KeyLock; 4]>, Vec<(u32, u64, Vec<u8>)>);

/// The parts of a command whose keys at `positions` are checked out to its home. (One that waits for several keys and is
/// served by one of them leaves the others where they are.)
pub fn check_out_parts(
    row: &Command,
    args: Argv<'_>,
    positions: &[(usize, u32)],
    db: u32,
    db_count: usize,
    shard_count: usize,
) -> Vec<Option<Part>> {
    let mut shares: Vec<CheckOutShare> = (0..shard_count).map(|_| Default::default()).collect();
    for &(at, _) in positions {
        let key = args.arg(at);
        let db = (row.key_db)(args, at, db, db_count);
        let (locks, entries) = &mut shares[shard_of(key, shard_count)];
        let hash = hash_key(key);
        if !entries.iter().any(|(other_db, _, other)| *other_db == db && other == key) {
            entries.push((db, hash, key.to_vec()));
        }
        // A key that is checked out is away for the time being: nobody else may even read it.
        locks.push(KeyLock { id: hash, exclusive: true });
    }
    shares
        .into_iter()
        .enumerate()
        .filter(|(_, (locks, _))| !locks.is_empty())
        .map(|(shard, (locks, entries))| {
            Some(Part { shard, locks: LockSet::Keys(locks), work: Work::CheckOut(entries) })
        })
        .collect()
}

/// Finds where each key's element of a gathered reply comes from: for every key in order, its shard.
pub fn gather_order(row: &Command, args: Argv<'_>, shard_count: usize) -> Vec<usize> {
    keys::positions(row, args).iter().map(|&(at, _)| shard_of(args.arg(at), shard_count)).collect()
}
