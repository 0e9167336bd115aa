//! Commands: rows and handlers, and the straight line a request takes to them.
//!
//! `table` says what there is, `gate` whether it may run, `route` where; `handlers/` holds the rows over keys
//! with their functions, a file a family. A handler over keys gets a [`Ctx`], a program a
//! [`ProgramCtx`](program::ProgramCtx). It replies, or returns a [`CommandError`] having changed nothing. Commands over
//! connections stand in the session room.

pub mod admission;
pub mod args;
pub mod docs;
pub mod error;
pub mod gate;
pub mod handlers;
pub mod keys;
pub mod placement;
pub mod program;
pub mod route;
pub mod syntax;
pub mod table;
pub mod typed;

pub use crate::call::{Call, Key, queue};
pub use error::{CommandError, CommandResult};

use crate::protocol::Argv;
use crate::protocol::reply::Reply;
use crate::shard::Shard;
use crate::shard::blocking::{BlockRequest, TimeoutReply};
use crate::types::hash::hash_key;
use smallvec::SmallVec;
use std::ops::Range;

/// What a command over keys sees: the shard that holds them, its arguments, and where to reply.
pub struct Ctx<'a> {
    pub shard: &'a mut Shard,
    pub call: &'a Call,
    pub args: Argv<'a>,
    /// The hashes of its keys, in order, if these have been fetched from memory already; else none.
    pub fetched: &'a [u64],
    /// For a blocking command that has waited: the argument that is the key it is served from.
    pub served_from: Option<u32>,
    pub reply: Reply<'a>,
}

impl<'a> Ctx<'a> {
    /// The keys at every `step`th argument, from the first one on.
    pub fn key_run(&self, step: usize) -> KeyRun<'a> {
        let (args, fetched, db) = (self.args, self.fetched, self.call.db);
        KeyRun { args, fetched, db, next: 1, step, block: SmallVec::new(), given: 0 }
    }

    /// Argument `index` as a key.
    #[inline]
    pub fn key(&self, index: usize) -> Key<'a> {
        let bytes = self.args.arg(index);
        let hash = if index == self.call.hashed_arg as usize && index != 0 {
            self.call.hash
        } else {
            hash_key(bytes)
        };
        Key { bytes, hash }
    }

    /// Argument `index`; panics past the end, so only behind an arity or length check.
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// Whether anybody wants to know effects: see [`Ctx::effect`].
    #[inline]
    pub fn notes_effects(&self) -> bool {
        self.shard.effects.is_on()
    }

    /// Says what the command has done, where its arguments would not do the same at another time or place. Each call
    /// adds an effect; the first one takes the arguments' place. Not before something has changed.
    pub fn effect(&mut self, args: &[&[u8]]) {
        self.shard.effects.replace(self.call.db, args);
    }

    /// Where a blocking command may look for something to take. `keys`: the arguments that are the keys it waits for.
    /// That is all of them, or, if it has waited and one of them is there for it now, that one.
    pub fn takes_from(&self, keys: Range<usize>) -> Range<usize> {
        match self.served_from {
            Some(position) => position as usize..position as usize + 1,
            None => keys,
        }
    }

    /// What a blocking command returns that has found nothing to take, changed nothing and replied nothing: it waits
    /// until one of `keys` (arguments) is there, at most until `deadline_ms`. Its client gets `on_timeout` when the time is
    /// up, and at once where a command must not wait (in EXEC).
    pub fn block(
        &self,
        keys: Range<usize>,
        deadline_ms: Option<i64>,
        on_timeout: TimeoutReply,
    ) -> CommandResult<Option<BlockRequest>> {
        Ok(Some(BlockRequest { keys: keys.start as u32..keys.end as u32, deadline_ms, on_timeout }))
    }
}

/// The keys of a command with many, in order. Unless that has been done, they are hashed, and fetched from memory, a
/// block at a time, so that looking one up does not wait for memory while nothing is under way for the others.
pub struct KeyRun<'a> {
    args: Argv<'a>,
    /// As [`Ctx::fetched`], of the keys to come.
    fetched: &'a [u64],
    db: u32,
    /// The argument of the next block's first key, and how far the keys are apart.
    next: usize,
    step: usize,
    block: SmallVec<[(usize, Key<'a>); KEY_BLOCK_LEN]>,
    /// How many of the block have been given out.
    given: usize,
}

const KEY_BLOCK_LEN: usize = 16;

impl<'a> KeyRun<'a> {
    /// The next key and its argument's place.
    #[inline]
    pub fn next(&mut self, shard: &Shard) -> Option<(usize, Key<'a>)> {
        if let Some((&hash, rest)) = self.fetched.split_first() {
            self.fetched = rest;
            let (at, bytes) = (self.next, self.args.arg(self.next));
            debug_assert_eq!(hash, hash_key(bytes), "the hashes come in the order of the keys");
            self.next += self.step;
            return Some((at, Key { bytes, hash }));
        }
        if self.given == self.block.len() {
            self.fetch(shard);
        }
        let next = self.block.get(self.given).copied();
        self.given += 1;
        next
    }

    fn fetch(&mut self, shard: &Shard) {
        self.block.clear();
        self.given = 0;
        while self.next < self.args.len() && self.block.len() < KEY_BLOCK_LEN {
            let bytes = self.args.arg(self.next);
            self.block.push((self.next, Key { bytes, hash: hash_key(bytes) }));
            self.next += self.step;
        }
        shard.prefetch(self.block.iter().map(|(_, key)| (self.db, key.hash)));
    }
}
