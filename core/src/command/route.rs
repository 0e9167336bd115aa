//! Routing: on which shard or shards a command runs, by its keys. Decided once, at the client's home.

use crate::command::Call;
use crate::command::keys::{self, key_flag};
use crate::command::table::{Command, CommandEntry, CommandTable, KeyShape, KeyspaceLock, Scope, flag};
use crate::protocol::Argv;
use crate::shard::lock::{KeyLock, LockSet};
use crate::shard::slot::shard_of;
use crate::types::hashing::hash_key;
use smallvec::SmallVec;

/// Where a command runs.
pub enum Route {
    /// At home, over the session.
    Session,
    /// On one shard.
    One(usize),
    /// Over keys of several shards, as a transaction.
    Many,
    /// On every shard.
    Every(KeyspaceLock),
    /// On one shard, unless the database is so small that it runs on all: see [`Scope::Walk`].
    Walk { shard: usize, keys_max: u64 },
    /// On the shards of its keys, which home remembers (WATCH).
    Watch,
}

/// Where a request runs.
#[inline]
pub fn route(entry: &CommandEntry, args: Argv<'_>, home: usize, shard_count: usize) -> Route {
    match entry.shape {
        KeyShape::First => Route::One(shard_of(args.arg(1), shard_count)),
        KeyShape::None => Route::One(home),
        KeyShape::Range { first, last, step } => {
            if shard_count == 1 {
                return Route::One(home);
            }
            if !range_fits(entry, args) {
                return Route::One(home);
            }
            let end = args.len().saturating_add_signed(last + 1);
            one_or_many((first..end).step_by(step).map(|at| args.arg(at)), home, shard_count)
        }
        KeyShape::Complex => complex(entry.row, args, home, shard_count),
    }
}

/// Whether a command with a repeated group of arguments, such as key and value, has only complete groups. If not, its
/// handler will fail, and must do so before any shard has set a key.
pub fn range_fits(entry: &CommandEntry, args: Argv<'_>) -> bool {
    let KeyShape::Range { first, last, step } = entry.shape else { return true };
    let end = args.len().saturating_add_signed(last + 1);
    end.saturating_sub(first).is_multiple_of(step)
}

/// A row's scope for these arguments; never a custom one.
pub fn scope(row: &Command, args: Argv<'_>, shard_count: usize) -> Scope {
    match row.scope {
        Scope::Custom(choose) => choose(args, shard_count),
        scope => scope,
    }
}

fn complex(row: &Command, args: Argv<'_>, home: usize, shard_count: usize) -> Route {
    match scope(row, args, shard_count) {
        Scope::Session | Scope::Multi | Scope::Exec => Route::Session,
        Scope::Watch => Route::Watch,
        Scope::Every(lock) => Route::Every(lock),
        Scope::Shard(shard) => Route::One(shard),
        Scope::Walk { shard, .. } if shard_count == 1 => Route::One(shard),
        Scope::Walk { shard, keys_max } => Route::Walk { shard, keys_max },
        Scope::Custom(_) => unreachable!("a custom scope chooses a plain one"),
        Scope::Keys if shard_count == 1 => Route::One(home),
        Scope::Keys if row.derives_keys(args) => Route::Many,
        Scope::Keys => {
            let keys = keys::positions(row, args);
            one_or_many(keys.iter().map(|&(at, _)| args.arg(at)), home, shard_count)
        }
    }
}

fn one_or_many<'a>(mut keys: impl Iterator<Item = &'a [u8]>, home: usize, shard_count: usize) -> Route {
    let Some(first) = keys.next() else { return Route::One(home) };
    let shard = shard_of(first, shard_count);
    if keys.all(|key| shard_of(key, shard_count) == shard) { Route::One(shard) } else { Route::Many }
}

/// The locks that a command which runs on a single shard needs there while it runs. `has_programs`: programs are suspended
/// on the shard.
pub fn lock_set(entry: &CommandEntry, args: Argv<'_>, shard_count: usize, has_programs: bool) -> LockSet {
    // On the only shard DBSIZE counts the keys of one moment, and so not what a program has done halfway.
    let counts_keys = entry.row.has(flag::AFTER_HANDOFFS) && !entry.row.is_over_session();
    if needs_whole_shard(entry, args, shard_count) || has_programs && shard_count == 1 && counts_keys {
        return LockSet::Whole;
    }
    let mut locks = SmallVec::new();
    keys::each_locked(entry.row, args, |at, flags| locks.push(lock(args.arg(at), flags)));
    LockSet::Keys(locks)
}

/// The same for several commands.
pub fn queue_locks<'a>(
    table: &CommandTable,
    commands: impl Iterator<Item = (&'a Call, Argv<'a>)>,
    shard_count: usize,
    has_programs: bool,
) -> LockSet {
    let mut locks = SmallVec::new();
    for (call, args) in commands {
        match lock_set(table.entry(call.command), args, shard_count, has_programs) {
            LockSet::Whole => return LockSet::Whole,
            LockSet::Keys(keys) => locks.extend(keys),
        }
    }
    LockSet::Keys(locks)
}

/// Whether a command reads or changes keys that none of its arguments names.
fn needs_whole_shard(entry: &CommandEntry, args: Argv<'_>, shard_count: usize) -> bool {
    entry.row.has(flag::TOUCHES_ARBITRARY_KEYS)
        || entry.row.derives_keys(args)
        || entry.shape == KeyShape::Complex
            && matches!(complex(entry.row, args, 0, shard_count), Route::Every(KeyspaceLock::All))
}

fn lock(key: &[u8], flags: u32) -> KeyLock {
    KeyLock { id: hash_key(key), exclusive: flags & key_flag::RO == 0 }
}

/// The shards of a command's keys, in ascending order, each once.
pub fn key_shards(row: &Command, args: Argv<'_>, shard_count: usize) -> SmallVec<[u16; 4]> {
    let positions = keys::positions(row, args);
    let mut shards: SmallVec<[u16; 4]> =
        positions.iter().map(|&(at, _)| shard_of(args.arg(at), shard_count) as u16).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}
