//! What writes did, as commands that do it again: the effects of one shard, in order.
//!
//! An effect is a request in the wire format: the command that a client sent, or what its handler replaced it by so
//! that it means the same at any time and place (`SET k v EX 10` becomes `SET k v PXAT ...`). Replicas, and later the
//! append-only file, read them.
//!
//! # Units
//!
//! What took effect at once is a *unit*, and stays together: all effects of a command (its own, and the DELs of keys
//! whose expiry it met), or of an EXEC. A unit of several effects is wrapped in MULTI and EXEC. A transaction over
//! several shards leaves a *piece* of its unit on each shard that takes part, and one more at home if home runs commands
//! over keys that are checked out. It bears the transaction's [`TxnId`] and says how many pieces there are; the [`Merger`]
//! makes one unit of them again. A shard leaves its piece, be it empty, when it has run its last share and before it
//! releases its locks.
//!
//! # Batches and tickets
//!
//! Once a turn a shard sends what it has noted to the shard of the merger, as one [`EffectBatch`]. The batch bears a
//! *ticket*: the next number of a count that all shards share. The ticket is taken at the end of the turn, and before
//! anything else leaves the shard, be it a reply or a message. So whatever somebody does because of what happened here
//! gets a later ticket, and the order of the tickets is one that cause and effect agree with. On this rests the order
//! of the merged stream: see [`merger`].
//!
//! # Off and on
//!
//! Nothing is noted while nobody reads: that is one branch a command. A reader comes in as a transaction that holds the
//! whole keyspace of all shards (SYNC), so he gets all of a transaction or nothing; he goes without a lock, and the shards
//! learn of it one by one. Whether a transaction over several shards is noted is therefore settled once, at its lock
//! point, and holds for all its pieces whatever a shard knows by then.

pub mod merger;

use crate::call::ClientId;
use crate::protocol::{Argv, Reply, Resp};
use crate::shard::txn::TxnId;
use ahash::AHashMap;

pub use merger::Merger;

/// One effect: a request in the wire format.
#[derive(Clone, Copy, Debug)]
struct Effect {
    /// The database it is for.
    db: u32,
    /// The place of its command within the transaction.
    order: u32,
    /// Where it ends in the bytes; it begins where the one before ends.
    end: usize,
}

/// Effects in order.
#[derive(Default, Debug)]
struct Effects {
    bytes: Vec<u8>,
    list: Vec<Effect>,
}

impl Effects {
    fn push<'a>(&mut self, db: u32, order: u32, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        let mut request = Reply::new(&mut self.bytes, Resp::V2);
        request.array(args.len());
        args.for_each(|arg| request.bulk(arg));
        self.list.push(Effect { db, order, end: self.bytes.len() });
    }

    /// Moves the effects of `other` behind these.
    fn append(&mut self, other: &mut Effects) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.list.extend(other.list.iter().map(|effect| Effect { end: effect.end + offset, ..*effect }));
        other.clear();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            *self = Effects::default();
        }
    }

    /// The bytes of the effect at `at`.
    fn bytes_of(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.list[at - 1].end };
        &self.bytes[start..self.list[at].end]
    }
}

/// Buffers bigger than this are not kept for reuse.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Who reads the stream: a client, and the shard that serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    pub client: ClientId,
    pub home: usize,
}

/// What the effects of an [`Item`] are to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// They took effect at once, on this shard alone.
    Unit,
    /// They have nothing to do with each other (keys that expired).
    Apart,
    /// They are this shard's share of a transaction with so many pieces.
    Piece { id: TxnId, pieces: u32 },
    /// No effect: from here on the reader reads. Every shard says so once.
    Attach(Reader),
    /// No effect: from here on some are missing for those who read so far.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    kind: Kind,
    /// Where its effects end in the batch's list.
    end: usize,
}

/// What a shard has noted in a turn.
#[derive(Default, Debug)]
pub struct EffectBatch {
    seq: u64,
    effects: Effects,
    items: Vec<Item>,
}

impl EffectBatch {
    /// What it takes in memory, about.
    pub fn len_bytes(&self) -> usize {
        self.effects.bytes.len()
            + self.effects.list.len() * size_of::<Effect>()
            + self.items.len() * size_of::<Item>()
            + size_of::<EffectBatch>()
    }

    fn push(&mut self, kind: Kind, effects: &mut Effects) {
        self.effects.append(effects);
        self.items.push(Item { kind, end: self.effects.list.len() });
    }
}

/// A piece while it grows: what a shard does of a transaction, or, at home, what home does over the others' keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PieceId {
    pub txn: TxnId,
    pub over_checked_out: bool,
}

/// What is open, and collects effects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Scope {
    /// A command for itself.
    #[default]
    Command,
    /// A transaction on this shard alone.
    Local,
    /// This shard's share of a transaction over several shards. `was_on`: effects are noted without it, too.
    Piece { id: PieceId, was_on: bool },
}

/// A shard's effects.
#[derive(Default)]
pub struct EffectLog {
    /// Somebody reads.
    is_on: bool,
    /// The handler that runs, or ran last, has said what its effect is.
    is_replaced: bool,
    /// The command's arguments are an effect whether they changed anything or not.
    is_forced: bool,
    /// The shard's count of changes when the last command ended.
    changes_seen: u64,
    scope: Scope,
    /// The place in the transaction of what runs.
    order: u32,
    /// What the open unit has so far.
    open: Effects,
    /// Pieces of transactions that are not done here, and do not run just now.
    suspended: AHashMap<PieceId, Effects>,
    batch: EffectBatch,
    /// Who reads, and who left before he came: word of that travels on other ways.
    readers: Vec<ClientId>,
    departed: Vec<ClientId>,
}

impl EffectLog {
    /// Whether effects are noted: the one branch on the fast path.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// A reader comes, who is to get all that is noted from here on. `changes`: the shard's count of changes. Runs on
    /// every shard in one transaction that holds all keys. A reader who is there already stays.
    pub fn attach(&mut self, reader: Reader, changes: u64) {
        if self.readers.contains(&reader.client) {
            return;
        }
        match self.departed.iter().position(|&client| client == reader.client) {
            Some(at) => {
                self.departed.swap_remove(at);
            }
            None => self.readers.push(reader.client),
        }
        if !self.readers.is_empty() && !self.is_on {
            self.is_on = true;
            self.changes_seen = changes;
        }
        self.batch.push(Kind::Attach(reader), &mut Effects::default());
    }

    /// A reader is gone.
    pub fn detach(&mut self, client: ClientId) {
        match self.readers.iter().position(|&reader| reader == client) {
            Some(at) => {
                self.readers.swap_remove(at);
                let goes_on = !self.readers.is_empty();
                match &mut self.scope {
                    // The transaction that has struck him off leaves its effects whole.
                    Scope::Piece { was_on, .. } => *was_on = goes_on,
                    Scope::Command | Scope::Local => self.is_on = goes_on,
                }
            }
            None => self.departed.push(client),
        }
    }

    /// Notes an effect of the command that runs, in place of its arguments. May be called several times; in that case
    /// all are its effects. For handlers, who call it only after they have changed something.
    pub fn replace(&mut self, db: u32, args: &[&[u8]]) {
        if self.is_on {
            self.is_replaced = true;
            self.open.push(db, self.order, args.iter().copied());
        }
    }

    /// Has the arguments of the command that runs noted also if it changed nothing.
    pub fn force(&mut self) {
        self.is_forced = self.is_on;
    }

    /// A key was removed because its time was up.
    pub fn expired(&mut self, db: u32, key: &[u8], lazy_free: bool) {
        if self.is_on {
            self.open.push(db, self.order, [removal(lazy_free), key].into_iter());
        }
    }

    /// A command has ended. `args` are its effect if it has changed something and its handler has not replaced them;
    /// `None`: they are none. `changes` is the shard's count of changes. A command for itself is a unit; `apart`: its
    /// effects have nothing to do with each other.
    pub fn end_command(&mut self, db: u32, args: Option<Argv<'_>>, changes: u64, apart: bool) {
        let changed = std::mem::replace(&mut self.changes_seen, changes) != changes;
        let forced = std::mem::take(&mut self.is_forced);
        if !std::mem::take(&mut self.is_replaced)
            && (changed || forced)
            && let Some(args) = args
        {
            self.open.push(db, self.order, args.iter());
        }
        if self.scope == Scope::Command {
            self.close(if apart { Kind::Apart } else { Kind::Unit });
        }
    }

    /// What was noted outside of a command is complete; nothing of it belongs together.
    pub fn end_apart(&mut self) {
        if self.is_on && self.scope == Scope::Command {
            self.close(Kind::Apart);
        }
    }

    fn close(&mut self, kind: Kind) {
        if !self.open.list.is_empty() {
            self.batch.push(kind, &mut self.open);
        }
    }

    /// The commands from here to [`EffectLog::end_local`] are one transaction on this shard alone.
    pub fn begin_local(&mut self) {
        debug_assert_eq!(self.scope, Scope::Command, "transactions do not nest");
        self.scope = Scope::Local;
    }

    /// The same, unless what is to run is part of a transaction already, whose effects then take it in. Returns whether
    /// [`EffectLog::end_local`] has to follow.
    pub fn begin_nested(&mut self) -> bool {
        let is_outermost = self.is_on && self.scope == Scope::Command;
        if is_outermost {
            self.scope = Scope::Local;
        }
        is_outermost
    }

    /// Whether such a transaction is under way.
    pub fn is_local(&self) -> bool {
        self.scope == Scope::Local
    }

    pub fn end_local(&mut self) {
        debug_assert_eq!(self.scope, Scope::Local);
        self.scope = Scope::Command;
        self.close(Kind::Unit);
    }

    /// What runs from here to [`EffectLog::suspend_piece`] belongs to a transaction over several shards, which leaves
    /// effects: that was settled at its lock point for all its shards alike. `changes`: the shard's count of changes.
    pub fn resume_piece(&mut self, id: PieceId, changes: u64) {
        debug_assert_eq!(self.scope, Scope::Command, "transactions do not nest");
        self.scope = Scope::Piece { id, was_on: self.is_on };
        if !self.is_on {
            self.is_on = true;
            self.changes_seen = changes;
        }
        if let Some(piece) = self.suspended.remove(&id) {
            self.open = piece;
        }
    }

    /// Command `order` of the transaction runs now.
    pub fn set_order(&mut self, order: u32) {
        self.order = order;
    }

    /// The commands have run; the shard does other things now.
    pub fn suspend_piece(&mut self) {
        let Scope::Piece { id, was_on } = self.scope else { panic!("no piece is open") };
        self.scope = Scope::Command;
        self.order = 0;
        self.is_on = was_on;
        if !self.open.list.is_empty() {
            self.suspended.insert(id, std::mem::take(&mut self.open));
        }
    }

    /// Nothing more comes to this piece, which is one of `pieces` of its transaction.
    pub fn end_piece(&mut self, id: PieceId, pieces: u32) {
        let mut piece = self.suspended.remove(&id).unwrap_or_default();
        self.batch.push(Kind::Piece { id: id.txn, pieces }, &mut piece);
    }

    /// Notes no more for those who read so far, and says so to the merger.
    pub fn lose(&mut self) {
        self.is_on = false;
        self.batch.push(Kind::Lost, &mut Effects::default());
    }

    /// What was noted since the last call, if there is something; `ticket` draws the next ticket.
    pub fn take(&mut self, seq: impl FnOnce() -> u64) -> Option<Box<EffectBatch>> {
        if self.batch.items.is_empty() {
            return None;
        }
        let mut batch = Box::new(std::mem::take(&mut self.batch));
        batch.seq = seq();
        Some(batch)
    }
}

/// The command that removes a key, by whether its memory is freed behind the reply.
pub fn removal(lazy_free: bool) -> &'static [u8] {
    if lazy_free { b"UNLINK" } else { b"DEL" }
}

#[cfg(test)]
mod tests;
