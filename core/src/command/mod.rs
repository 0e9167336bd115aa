//! Commands: their rows and handlers, and how a request gets to them.
//!
//! `table` has the rows, `gate` finds the one that a request calls, `admission` decides whether it may run, and
//! `route` on which shards. `handlers/` has the rows and functions of commands over keys, one file a family. A
//! handler over keys gets a [`Ctx`]. It replies, or returns a [`CommandError`] and has changed nothing. Commands over
//! connections, and programs, are in the `session` room.

pub mod admission;
pub mod args;
pub mod docs;
pub mod error;
pub mod gate;
pub mod handlers;
pub mod key_use;
pub mod keys;
pub mod placement;
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
use crate::types::hashing::hash_key;
use smallvec::SmallVec;
use std::ops::Range;

/// What the handler of a command over keys gets: the shard that holds the keys, the arguments, and the reply to write.
pub struct Ctx<'a> {
    pub shard: &'a mut Shard,
    pub call: &'a Call,
    pub args: Argv<'a>,
    /// The hashes of its keys, in order, if these have been prefetched already; else empty.
    pub fetched: &'a [u64],
    /// For a blocked command that is being served: the argument that is the key it is served from.
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
        self.call.key(self.args, index)
    }

    /// Argument `index`. Panics past the end, so it is called only after an arity or length check.
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args.arg(index)
    }

    /// The length from which on a reply is of no use, because its client is disconnected for it: the limit of
    /// `client-output-buffer-limit`, and the output buffer that does not count for it. A handler whose reply may be of
    /// any length may end it early then.
    pub fn reply_bytes_max(&self) -> usize {
        const BUFFER_BYTES_MAX: usize = 64 << 10;
        match self.shard.config.client_output_buffer_limit.normal.hard_bytes {
            0 => usize::MAX,
            hard_bytes => (hard_bytes as usize).saturating_add(BUFFER_BYTES_MAX),
        }
    }

    /// Whether effects are recorded: see [`Ctx::effect`].
    #[inline]
    pub fn notes_effects(&self) -> bool {
        self.shard.effects.is_on()
    }

    /// Records an effect of the command, for commands whose arguments would not do the same at another time or on a
    /// replica. Each call adds an effect; together they replace the arguments. Call it only after something has
    /// changed.
    pub fn effect(&mut self, args: &[&[u8]]) {
        self.shard.effects.replace(self.call.db, args);
    }

    /// Nothing that the command changes is an effect, besides what [`Ctx::effect`] records.
    pub fn no_effect(&mut self) {
        self.shard.effects.omit();
    }

    /// The keys from which a blocking command may take something. `keys`: the arguments that are the keys it waits for.
    /// At the first run that is all of them, and when it is served the one key that it is served from.
    pub fn takes_from(&self, keys: Range<usize>) -> Range<usize> {
        match self.served_from {
            Some(position) => position as usize..position as usize + 1,
            None => keys,
        }
    }

    /// Blocks the client: the return value of a blocking command that has found nothing to take, and has changed
    /// nothing and replied nothing. It waits until one of `keys` (arguments) can be used, at most until
    /// `deadline_ms`. The client gets `on_timeout` at the timeout, and at once where commands must not block (in
    /// EXEC).
    pub fn block(
        &self,
        keys: Range<usize>,
        deadline_ms: Option<i64>,
        on_timeout: TimeoutReply,
    ) -> CommandResult<Option<BlockRequest>> {
        let keys = keys.start as u32..keys.end as u32;
        Ok(Some(BlockRequest { keys, deadline_ms, on_timeout, args: None, ends_with_key: false }))
    }
}

/// The keys of a command with many keys, in order. Unless that was done before, they are hashed and prefetched a
/// block at a time, so that the cache misses of several look-ups overlap.
pub struct KeyRun<'a> {
    args: Argv<'a>,
    /// As [`Ctx::fetched`], of the remaining keys.
    fetched: &'a [u64],
    db: u32,
    /// The argument that is the first key of the next block, and the distance between keys.
    next: usize,
    step: usize,
    block: SmallVec<[(usize, Key<'a>); KEY_BLOCK_LEN]>,
    /// How many keys of the block have been returned.
    given: usize,
}

const KEY_BLOCK_LEN: usize = 16;

impl<'a> KeyRun<'a> {
    /// The next key, and which argument it is.
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
