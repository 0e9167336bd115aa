//! Made keys: those that a script does not declare, and that are known all the same before it runs.
//!
//! Many scripts make their keys: `redis.call('INCR', 'user:' .. ARGV[1])`. Where the analysis of the script's source shows all of
//! them ([`shardis_scripting::KeyTemplate`]), the script is run as if it had declared them: its keys are locked before it runs,
//! and it needs no token. So it costs what any narrow program costs, and joins coalesced pipelines.
//!
//! For that, a hidden command runs in the place of the client's, with the made keys behind the declared ones:
//!
//! ```text
//! EVALSHA sha 1 key arg          what the client has sent
//! evalsha-made sha 2 key made arg 1      and what is placed, sent to another shard, locked and parked
//! ```
//!
//! Its last argument is the number of keys as the client has written it. All that looks for a command's keys finds them where it
//! looks anyway. The frame of the program has the client's command again, and so have logs, statistics and those who watch.
//!
//! A server of one shard has nothing to gain by it: there a wide program runs at once.

use super::frame::handler_of;
use super::{ProgramCtx, Reach};
use crate::command::keys;
use crate::command::table::CommandEntry;
use crate::protocol::{Argv, OwnedArgv};
use crate::types::hashing::hash_key;
use crate::worker::Worker;
use smallvec::SmallVec;

/// Keys that a program makes.
pub type MadeKeys = SmallVec<[Vec<u8>; 4]>;

/// Longer keys are not made before the program makes them itself.
const MADE_BYTES_MAX: usize = 64 << 10;

/// The first key behind a script, and the number of its keys.
const FIRST_KEY: usize = 3;

/// The hidden command in the place of a client's.
pub(in crate::worker) struct WithMadeKeys {
    pub(in crate::worker) entry: &'static CommandEntry,
    pub(in crate::worker) args: OwnedArgv,
    /// The hash of the first key, and which argument that is; 0: there is none.
    pub(in crate::worker) hash: u64,
    pub(in crate::worker) hashed_arg: u8,
}

/// How a program joins others of its pipeline, to run behind them with the keys of all of them in hand.
pub(in crate::worker) enum Joining {
    No,
    AsCalled,
    WithMadeKeys(WithMadeKeys),
}

impl Worker {
    /// Whether a command is a script or function that may run now, over keys that are known. `refused`: the flags of commands
    /// that may not.
    pub(in crate::worker) fn may_join_as_program(
        &mut self,
        entry: &CommandEntry,
        args: Argv<'_>,
        refused: u64,
    ) -> Joining {
        let Some(handler) = handler_of(entry).filter(|handler| handler.kind.is_script()) else {
            return Joining::No;
        };
        if (handler.flags)(self, entry.row.flags, args) & refused != 0 {
            return Joining::No;
        }
        match self.reach_of(entry, args) {
            Some(Reach::Declared) => Joining::AsCalled,
            Some(Reach::Made { .. }) => {
                self.with_made_keys(entry, args).map_or(Joining::No, Joining::WithMadeKeys)
            }
            Some(Reach::Any { .. } | Reach::Unknown) | None => Joining::No,
        }
    }

    /// What is to run in the place of a command that makes keys. `None`: they are not known after all.
    pub(in crate::worker) fn with_made_keys(
        &mut self,
        entry: &CommandEntry,
        args: Argv<'_>,
    ) -> Option<WithMadeKeys> {
        let stand_in = entry.with_made_keys?;
        let made = (handler_of(entry)?.made_keys)(self, args)?;
        if made.iter().map(Vec::len).sum::<usize>() > MADE_BYTES_MAX {
            return None;
        }
        let entry = self.table.entry(stand_in);
        let (declared_text, declared_count) = declared_count(args)?;
        let count = (declared_count + made.len()).to_string();
        let behind = FIRST_KEY + declared_count;
        let mut all: SmallVec<[&[u8]; 16]> = SmallVec::new();
        all.extend([args.arg(0), args.arg(1), count.as_bytes()]);
        all.extend((FIRST_KEY..behind).map(|at| args.arg(at)));
        all.extend(made.iter().map(Vec::as_slice));
        all.extend((behind..args.len()).map(|at| args.arg(at)));
        all.push(declared_text);
        let first = (count != "0").then(|| hash_key(all[FIRST_KEY]));
        let args = self.programs.copy_args(all.iter().copied());
        let hashed_arg = if first.is_some() { FIRST_KEY as u8 } else { 0 };
        Some(WithMadeKeys { entry, args, hash: first.unwrap_or_default(), hashed_arg })
    }

    /// The arguments are not needed any more.
    pub(in crate::worker) fn give_made_args(&mut self, args: OwnedArgv) {
        self.programs.give_args(args);
    }

    /// The command in whose place this one runs, with its arguments, and the hashes of all keys. `None`: it is a client's own.
    pub(super) fn as_called<'a>(
        &self,
        entry: &CommandEntry,
        args: Argv<'a>,
    ) -> Option<(&'static CommandEntry, SmallVec<[&'a [u8]; 8]>, SmallVec<[u64; 8]>)> {
        let called = self.table.entry(entry.stands_for?);
        let mut hashes = SmallVec::new();
        keys::each(entry.row, args, |at, _| hashes.push(hash_key(args.arg(at))));
        let last = args.len() - 1;
        let declared_text = args.arg(last);
        let declared_count: usize =
            std::str::from_utf8(declared_text).ok().and_then(|text| text.parse().ok()).expect("it was one");
        let mut called_args: SmallVec<[&[u8]; 8]> = SmallVec::new();
        called_args.extend([args.arg(0), args.arg(1), declared_text]);
        called_args.extend((FIRST_KEY..FIRST_KEY + declared_count).map(|at| args.arg(at)));
        called_args.extend((FIRST_KEY + hashes.len()..last).map(|at| args.arg(at)));
        Some((called, called_args, hashes))
    }
}

impl ProgramCtx<'_> {
    /// Whether these keys are locked for the program.
    pub fn has_in_hand(&mut self, keys: &[Vec<u8>]) -> bool {
        let declared = self.lent.worker().programs.running().declared.as_ref();
        declared.is_some_and(|declared| keys.iter().all(|key| declared.contains(&hash_key(key))))
    }
}

/// The number of keys that a call declares, as it is written, if it is one.
fn declared_count(args: Argv<'_>) -> Option<(&[u8], usize)> {
    let text = args.get(2)?;
    let count = std::str::from_utf8(text).ok()?.parse().ok()?;
    (count <= args.len() - FIRST_KEY).then_some((text, count))
}
