//! The effects of one shard's writes, in order. An effect is a command that repeats what a write did.
//!
//! It is a request in the wire format: the command that a client sent, or what its handler replaced it by so that it
//! means the same at any time and place (`SET k v EX 10` becomes `SET k v PXAT ...`). Replicas and the append-only
//! file read them.
//!
//! # Units
//!
//! Effects that happened atomically are a *unit*, and stay together: all effects of a command (its own, and the DELs of
//! expired keys that it met), or of an EXEC. A unit of several effects is wrapped in MULTI and EXEC, unless it is
//! [said to be apart](EffectLog::be_apart). A transaction over
//! several shards leaves a *piece* of its unit on each participant, and one more at home if home runs commands over
//! checked-out entries. A piece carries the transaction's [`TxnId`] and the number of pieces; the [`Merger`] puts the
//! pieces together into one unit again. A shard leaves its piece, even an empty one, when it has run its last share and
//! before it releases its locks.
//!
//! # Batches and sequence numbers
//!
//! Once a turn a shard sends the effects that it has recorded to the mergers, as one [`EffectBatch`]. There are two
//! mergers, which do the same work for different [consumers](Consumer): one on a shard, for the replicas, and one on the
//! thread that writes the append-only file. For each of them a batch has a *sequence number*, from a counter that all
//! shards share. The number is drawn at the end of the turn, before anything else (a reply or a message) leaves the
//! shard. So anything that a client or another shard does as a consequence of these effects gets a later number: the
//! order of the numbers respects causality. The order of the merged stream relies on this: see [`merger`].
//!
//! # Readers
//!
//! Effects are recorded only while somebody reads them; a command pays one branch to see that. Replicas and the file begin
//! in a transaction that locks the whole keyspace of all shards, so they get all effects of a transaction or none; the
//! file may also begin before the first command. Each such beginning has a number, and all shards record one item for
//! it: for replicas it is the position of a full synchronization in their stream, which goes on for those that read
//! it already. The stream ends without locks, and the shards learn of it one by
//! one. Whether a transaction over several shards is recorded is therefore decided once, at its lock point, and applies
//! to all its pieces, whatever a shard has learnt by then.

pub mod merger;

use crate::protocol::{Argv, Reply, Resp};
use crate::shard::txn::TxnId;
use ahash::AHashMap;
use std::ops::Range;
use std::sync::Arc;

pub use merger::Merger;

/// For whom a merger works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consumer {
    /// Clients that have called SYNC.
    Replicas,
    /// The append-only file.
    File,
}

/// For whom an effect is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readers {
    pub replicas: bool,
    pub file: bool,
}

impl Readers {
    pub const ALL: Readers = Readers { replicas: true, file: true };
    pub const NONE: Readers = Readers { replicas: false, file: false };
    const REPLICAS: Readers = Readers { replicas: true, file: false };

    /// Those that are among both.
    pub fn both(self, other: Readers) -> Readers {
        Readers { replicas: self.replicas && other.replicas, file: self.file && other.file }
    }
}

impl Default for Readers {
    fn default() -> Readers {
        Readers::ALL
    }
}

/// One effect: a request in the wire format.
#[derive(Clone, Copy, Debug)]
struct Effect {
    /// The database it applies to.
    db: u32,
    /// The place of its command within the transaction, and which of the commands that this one has called it is.
    order: (u32, u32),
    /// Where it ends in the bytes; it begins where the previous one ends.
    end: usize,
    readers: Readers,
    /// It removes a key that had expired, or was evicted.
    is_removal: bool,
}

impl Effect {
    fn is_for(&self, consumer: Consumer) -> bool {
        match consumer {
            Consumer::Replicas => self.readers.replicas,
            Consumer::File => self.readers.file,
        }
    }
}

/// Effects in order.
#[derive(Default, Debug)]
struct Effects {
    bytes: Vec<u8>,
    list: Vec<Effect>,
    /// The transaction that they are of has no MULTI and EXEC around it: see [`EffectLog::be_apart`].
    is_apart: bool,
}

impl Effects {
    fn push<'a>(
        &mut self,
        db: u32,
        order: (u32, u32),
        readers: Readers,
        args: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        if readers == Readers::NONE {
            return;
        }
        let mut request = Reply::new(&mut self.bytes, Resp::V2);
        request.array(args.len());
        args.for_each(|arg| request.bulk(arg));
        self.list.push(Effect { db, order, end: self.bytes.len(), readers, is_removal: false });
    }

    /// Takes the effects from this one on.
    fn split_off(&mut self, at: usize) -> Effects {
        if at >= self.list.len() {
            return Effects::default();
        }
        let start = if at == 0 { 0 } else { self.list[at - 1].end };
        let bytes = self.bytes.split_off(start);
        let mut list = self.list.split_off(at);
        list.iter_mut().for_each(|effect| effect.end -= start);
        Effects { bytes, list, is_apart: false }
    }

    /// Appends the effects of `other`, and empties it.
    fn append(&mut self, other: &mut Effects) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.list.extend(other.list.iter().map(|effect| Effect { end: effect.end + offset, ..*effect }));
        other.clear();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        self.is_apart = false;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            *self = Effects::default();
        }
    }

    /// The bytes of the effect at `at`.
    fn bytes_of(&self, at: usize) -> &[u8] {
        self.bytes_of_all(at..at + 1)
    }

    /// The requests of effects that follow each other, of which there is at least one.
    fn bytes_of_all(&self, effects: Range<usize>) -> &[u8] {
        let start = if effects.start == 0 { 0 } else { self.list[effects.start - 1].end };
        &self.bytes[start..self.list[effects.end - 1].end]
    }
}

/// Buffers bigger than this are not kept for reuse.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// How the effects of an [`Item`] are related.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// They are one unit, of this shard alone. There are several: one by itself is [`Kind::Apart`].
    Unit,
    /// They are independent of each other: commands by themselves, keys that expired.
    Apart,
    /// They are a piece of a transaction that has `pieces` pieces. `is_apart`: they are independent of each other all the same.
    Piece { id: TxnId, pieces: u32, is_apart: bool },
    /// No effect: the replicas of this full synchronization read from here on. Every shard leaves one such item for each.
    Sync { number: u64 },
    /// No effect: the file begins here, or goes on in another part. Every shard leaves one such item for each part.
    NewPart { number: u64 },
    /// No effect: some effects are missing from here on, so the replicas that read so far are cut off.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    kind: Kind,
    /// Where its effects end in the batch's list.
    end: usize,
}

/// What a shard has recorded in a turn.
#[derive(Default, Debug)]
pub struct EffectBatch {
    effects: Effects,
    items: Vec<Item>,
}

impl EffectBatch {
    /// About how much memory what is in it takes, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.effects.bytes.len()
            + self.effects.list.len() * size_of::<Effect>()
            + self.items.len() * size_of::<Item>()
            + size_of::<EffectBatch>()
    }

    /// What it has allocated, in bytes, be it used or not.
    pub fn held_bytes(&self) -> usize {
        self.effects.bytes.capacity()
            + self.effects.list.capacity() * size_of::<Effect>()
            + self.items.capacity() * size_of::<Item>()
    }

    fn push(&mut self, kind: Kind, effects: &mut Effects) {
        // A unit of one effect is one that is independent of others.
        let is_apart = kind == Kind::Unit && effects.list.len() == 1;
        self.effects.append(effects);
        self.end_item(if is_apart { Kind::Apart } else { kind });
    }

    /// What was added to the effects since the last item is an item, or more of the last one.
    #[inline]
    fn end_item(&mut self, kind: Kind) {
        let end = self.effects.list.len();
        match self.items.last_mut() {
            Some(last) if kind == Kind::Apart && last.kind == Kind::Apart => last.end = end,
            _ => self.items.push(Item { kind, end }),
        }
    }
}

/// How much a batch has held: about as much is reserved for the next one, so that it does not grow step by step.
#[derive(Clone, Copy, Default)]
struct BatchSize {
    bytes: usize,
    effects: usize,
}

/// More is not reserved for a batch.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// What a shard has recorded in a turn, and whose mergers are to get it.
pub struct TakenBatch {
    pub batch: Arc<EffectBatch>,
    pub for_replicas: bool,
    pub for_file: bool,
}

/// The effects of a transaction on one shard that is interrupted, or some of them that are recorded later.
#[derive(Default, Debug)]
pub struct OpenUnit(Effects);

impl OpenUnit {
    /// Takes the first effect if that removes a key which had expired, or was evicted.
    pub fn take_removal(&mut self) -> OpenUnit {
        if !self.0.list.first().is_some_and(|effect| effect.is_removal) {
            return OpenUnit::default();
        }
        let rest = self.0.split_off(1);
        OpenUnit(std::mem::replace(&mut self.0, rest))
    }
}

/// Identifies a piece: a shard's own share of a transaction, or (`over_checked_out`) what home runs over checked-out
/// entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PieceId {
    pub txn: TxnId,
    pub over_checked_out: bool,
}

/// To what the effects that are recorded now belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Scope {
    /// A command by itself.
    #[default]
    Command,
    /// A transaction on this shard alone.
    Local,
    /// This shard's share of a transaction over several shards. `was_on`: the shard records effects outside it, too.
    Piece { id: PieceId, was_on: bool },
}

/// A shard's effects.
#[derive(Default)]
pub struct EffectLog {
    /// Effects are recorded: the stream has readers, or a recorded transaction runs.
    is_on: bool,
    /// The handler that runs, or ran last, has replaced its arguments as the effect.
    is_replaced: bool,
    /// The command's arguments are an effect whether they changed anything or not.
    is_forced: bool,
    /// They mean something to replicas only: PUBLISH.
    skips_file: bool,
    /// For whom the commands that run leave effects of their own.
    readers: Readers,
    /// The shard's count of changes when the last command ended.
    changes_seen: u64,
    scope: Scope,
    /// The place of the running command in its transaction.
    order: u32,
    /// Its number among the commands that a program has called.
    call_number: u32,
    /// The effects of the open unit so far.
    open: Effects,
    /// Pieces of transactions that have not ended here and do not run at the moment.
    suspended: AHashMap<PieceId, Effects>,
    batch: EffectBatch,
    last_batch: BatchSize,
    /// The batch has something for the replicas' merger, and for the file's.
    batch_is_for_replicas: bool,
    batch_is_for_file: bool,
    /// The stream for replicas goes on, and has all effects so far.
    has_replicas: bool,
    /// The numbers of the last synchronization that has begun here, and of the last one whose stream has ended.
    last_sync: u64,
    last_ended_sync: u64,
    /// The file is attached.
    has_file: bool,
}

impl EffectLog {
    /// Whether effects are recorded: the one branch on the fast path.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// A full synchronization of replicas, which get everything that is recorded from here on. `changes`: the shard's
    /// count of changes. Runs on every shard, in one transaction that locks all keys. The numbers rise.
    pub fn begin_sync(&mut self, number: u64, changes: u64) {
        self.last_sync = self.last_sync.max(number);
        // The message that its stream has ended may have come first.
        if number > self.last_ended_sync {
            self.has_replicas = true;
            self.turn_on(changes);
        }
        self.batch_is_for_replicas = true;
        self.batch.push(Kind::Sync { number }, &mut Effects::default());
    }

    fn turn_on(&mut self, changes: u64) {
        if let Scope::Piece { was_on, .. } = &mut self.scope {
            *was_on = true;
        }
        if !self.is_on {
            self.is_on = true;
            self.changes_seen = changes;
        }
    }

    /// Attaches the append-only file, or has it go on in another part. Runs on every shard, before the first command or
    /// in one transaction that locks all keys. `changes`: the shard's count of changes.
    pub fn begin_part(&mut self, number: u64, changes: u64) {
        self.has_file = true;
        self.batch_is_for_file = true;
        self.turn_on(changes);
        self.batch.push(Kind::NewPart { number }, &mut Effects::default());
    }

    /// Detaches the file.
    pub fn end_file(&mut self) {
        self.has_file = false;
        self.readers_have_gone();
    }

    /// Whether the file is attached.
    pub fn has_file(&self) -> bool {
        self.has_file
    }

    /// Stops recording if there are no readers any more.
    fn readers_have_gone(&mut self) {
        let goes_on = self.has_file || self.has_replicas;
        match &mut self.scope {
            // The running transaction is recorded to its end; only then may recording stop.
            Scope::Piece { was_on, .. } => *was_on = goes_on,
            Scope::Command | Scope::Local => self.is_on = goes_on,
        }
    }

    /// The stream of the synchronizations up to this one has ended: nobody reads it.
    pub fn end_syncs(&mut self, number: u64) {
        self.last_ended_sync = self.last_ended_sync.max(number);
        if self.last_sync <= self.last_ended_sync && self.has_replicas {
            self.has_replicas = false;
            self.readers_have_gone();
        }
    }

    /// Records an effect of the running command in place of its arguments. If it is called several times, all are
    /// effects of the command. For handlers, which call it only after they have changed something.
    pub fn replace(&mut self, db: u32, args: &[&[u8]]) {
        if self.is_on {
            self.is_replaced = true;
            self.open.push(db, (self.order, self.call_number), self.readers, args.iter().copied());
        }
    }

    /// Records an effect beside what the running command and those that it calls leave: a module says itself what is to be
    /// recorded of its command, and for whom. `changes`: the shard's count of changes, those for this effect included.
    pub fn add<'a>(
        &mut self,
        db: u32,
        readers: Readers,
        args: impl ExactSizeIterator<Item = &'a [u8]>,
        changes: u64,
    ) {
        if self.is_on {
            self.open.push(db, (self.order, self.call_number), readers, args);
            self.changes_seen = changes;
        }
    }

    /// The same, for replicas alone.
    pub fn add_for_replicas<'a>(
        &mut self,
        db: u32,
        args: impl ExactSizeIterator<Item = &'a [u8]>,
        changes: u64,
    ) {
        if self.has_replicas {
            self.add(db, Readers::REPLICAS, args, changes);
        }
    }

    /// The arguments of the running command are no effect.
    pub fn omit(&mut self) {
        self.is_replaced = self.is_on;
    }

    /// Has the arguments of the running command recorded even if it changes nothing.
    pub fn force(&mut self) {
        self.is_forced = self.is_on;
    }

    /// Has the arguments of the running command recorded for replicas, although it changes nothing.
    pub fn force_for_replicas(&mut self) {
        (self.is_forced, self.skips_file) = (self.is_on, self.is_on);
    }

    /// For whom the commands that run from here on leave effects: a program may want its writes recorded for some readers only,
    /// or for none. Keys that expire leave them for all.
    pub fn record_for(&mut self, readers: Readers) {
        self.readers = readers;
    }

    /// For whom they leave effects now.
    pub fn readers(&self) -> Readers {
        self.readers
    }

    /// The memory of what the turn has recorded so far.
    pub fn held_bytes(&self) -> usize {
        self.batch.held_bytes()
    }

    /// Records the removal of a key that no command has removed: it had expired, or was evicted.
    pub fn removed(&mut self, db: u32, key: &[u8], lazy_free: bool) {
        if self.is_on {
            let words = [removal(lazy_free), key];
            self.open.push(db, (self.order, self.call_number), Readers::ALL, words.into_iter());
            if let Some(effect) = self.open.list.last_mut() {
                effect.is_removal = true;
            }
        }
    }

    /// How many effects the open unit has so far: for [`EffectLog::take_from`].
    pub fn open_len(&self) -> usize {
        self.open.list.len()
    }

    /// Takes the effects that the open unit has got since it had so many, so that others can come before them. They have to be
    /// given back before the unit ends.
    pub fn take_from(&mut self, open_len: usize) -> OpenUnit {
        OpenUnit(self.open.split_off(open_len))
    }

    /// Gives effects back, which are behind those that the open unit has now. `call_number`: as which of the calls of a program's,
    /// if these have numbers.
    pub fn give_back(&mut self, mut unit: OpenUnit, call_number: Option<u32>) {
        if let Some(number) = call_number {
            unit.0.list.iter_mut().for_each(|effect| effect.order.1 = number);
        }
        self.open.append(&mut unit.0);
    }

    /// A command has ended. `args` are its effect if it has changed something and its handler has not replaced them;
    /// `None`: its arguments are never an effect. `changes` is the shard's count of changes. A command by itself is a
    /// unit, unless its effects are independent of each other (`apart`).
    pub fn end_command(&mut self, db: u32, args: Option<Argv<'_>>, changes: u64, apart: bool) {
        let changed = std::mem::replace(&mut self.changes_seen, changes) != changes;
        let forced = std::mem::take(&mut self.is_forced);
        let skips_file = std::mem::take(&mut self.skips_file);
        if !std::mem::take(&mut self.is_replaced)
            && (changed || forced)
            && let Some(args) = args
        {
            let meant = if skips_file { Readers::REPLICAS } else { Readers::ALL };
            let (order, readers) = ((self.order, self.call_number), self.readers.both(meant));
            if self.scope == Scope::Command && self.open.list.is_empty() && readers != Readers::NONE {
                // It is all of its unit.
                self.reserve();
                self.batch.effects.push(db, order, readers, args.iter());
                self.end_item(Kind::Apart);
                return;
            }
            self.open.push(db, order, readers, args.iter());
        }
        if self.scope == Scope::Command {
            self.close(if apart { Kind::Apart } else { Kind::Unit });
        }
    }

    /// Ends what was recorded outside a command; these effects are independent of each other.
    pub fn end_apart(&mut self) {
        if self.is_on && self.scope == Scope::Command {
            self.close(Kind::Apart);
        }
    }

    fn close(&mut self, kind: Kind) {
        if !self.open.list.is_empty() {
            self.note_readers();
            self.batch.push(kind, &mut self.open);
        }
        self.open.is_apart = false;
    }

    /// The effects of the transaction that runs are written without MULTI and EXEC, as Redis does it for keys that are removed by no
    /// command.
    pub fn be_apart(&mut self) {
        self.open.is_apart = self.is_on && self.scope != Scope::Command;
    }

    fn end_item(&mut self, kind: Kind) {
        self.note_readers();
        self.batch.end_item(kind);
    }

    fn note_readers(&mut self) {
        self.batch_is_for_replicas |= self.has_replicas;
        self.batch_is_for_file |= self.has_file;
    }

    /// Makes room for what the turn may record.
    #[inline]
    fn reserve(&mut self) {
        let effects = &mut self.batch.effects;
        if effects.bytes.capacity() == 0 {
            effects.bytes.reserve(self.last_batch.bytes.min(RESERVED_BYTES_MAX));
            effects.list.reserve(self.last_batch.effects.min(RESERVED_BYTES_MAX / size_of::<Effect>()));
        }
    }

    /// Begins a transaction on this shard alone, to which all commands up to [`EffectLog::end_local`] belong.
    pub fn begin_local(&mut self) {
        debug_assert_eq!(self.scope, Scope::Command, "transactions do not nest");
        self.scope = Scope::Local;
    }

    /// The same, unless a transaction is open already, to which the effects then belong. Returns whether
    /// [`EffectLog::end_local`] has to follow.
    pub fn begin_nested(&mut self) -> bool {
        let is_outermost = self.is_on && self.scope == Scope::Command;
        if is_outermost {
            self.scope = Scope::Local;
        }
        is_outermost
    }

    /// Ends what [`EffectLog::begin_nested`] has begun within a command: its effects are of the command's unit.
    pub fn leave_nested(&mut self) {
        debug_assert_eq!(self.scope, Scope::Local);
        self.scope = Scope::Command;
    }

    /// Whether a transaction on this shard alone is open.
    pub fn is_local(&self) -> bool {
        self.scope == Scope::Local
    }

    pub fn end_local(&mut self) {
        debug_assert_eq!(self.scope, Scope::Local);
        self.scope = Scope::Command;
        self.close(if self.open.is_apart { Kind::Apart } else { Kind::Unit });
    }

    /// Interrupts a transaction on this shard alone, while the shard goes on with other work. Returns its effects so far,
    /// for [`EffectLog::resume_local`].
    pub fn suspend_local(&mut self) -> OpenUnit {
        debug_assert_eq!(self.scope, Scope::Local);
        self.scope = Scope::Command;
        OpenUnit(std::mem::take(&mut self.open))
    }

    pub fn resume_local(&mut self, unit: OpenUnit) {
        debug_assert_eq!(self.scope, Scope::Command, "transactions do not nest");
        self.scope = Scope::Local;
        self.open = unit.0;
    }

    /// Everything up to [`EffectLog::suspend_piece`] belongs to a transaction over several shards that is recorded,
    /// as was decided at its lock point for all its shards. `changes`: the shard's count of changes.
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

    /// Command `order` of the transaction runs next.
    pub fn set_order(&mut self, place: u32) {
        self.order = place;
    }

    /// Call `number` of the running command, a program, runs next.
    pub fn set_call_number(&mut self, number: u32) {
        self.call_number = number;
    }

    /// The commands of the piece have run for now, and the shard goes on with other work.
    pub fn suspend_piece(&mut self) {
        let Scope::Piece { id, was_on } = self.scope else { panic!("no piece is open") };
        self.scope = Scope::Command;
        (self.order, self.call_number) = (0, 0);
        self.is_on = was_on;
        if !self.open.list.is_empty() || self.open.is_apart {
            self.suspended.insert(id, std::mem::take(&mut self.open));
        }
    }

    /// Completes a piece, which is one of `pieces` of its transaction. `file_has_begun`: the file is attached on any shard, or was
    /// before. What home runs over checked-out entries may come before home itself, whose keys are not locked, has attached the file
    /// that the shards of these keys have.
    pub fn end_piece(&mut self, id: PieceId, pieces: u32, file_has_begun: bool) {
        let mut piece = self.suspended.remove(&id).unwrap_or_default();
        // A merger needs all pieces or none, and other shards may know of another set of readers than this one does.
        self.batch_is_for_replicas = true;
        self.batch_is_for_file |= file_has_begun;
        let is_apart = piece.is_apart;
        self.batch.push(Kind::Piece { id: id.txn, pieces, is_apart }, &mut piece);
    }

    /// Stops recording for replicas, and tells their merger that those so far miss effects.
    pub fn lose(&mut self) {
        self.has_replicas = false;
        self.is_on = self.has_file;
        self.batch_is_for_replicas = true;
        self.batch.push(Kind::Lost, &mut Effects::default());
    }

    /// Whether effects are recorded for replicas.
    pub fn has_replicas(&self) -> bool {
        self.has_replicas
    }

    /// Whether anything was recorded since it was last taken.
    pub fn has_batch(&self) -> bool {
        !self.batch.items.is_empty()
    }

    /// Takes what was recorded since the last call, if there is anything.
    pub fn take(&mut self) -> Option<TakenBatch> {
        if self.batch.items.is_empty() {
            return None;
        }
        let Effects { bytes, list, .. } = &self.batch.effects;
        self.last_batch = BatchSize { bytes: bytes.len(), effects: list.len() };
        Some(TakenBatch {
            batch: Arc::new(std::mem::take(&mut self.batch)),
            for_replicas: std::mem::take(&mut self.batch_is_for_replicas),
            for_file: std::mem::take(&mut self.batch_is_for_file),
        })
    }
}

/// The effect that removes a key: UNLINK if the lazyfree option for the case is on, or else DEL.
pub fn removal(lazy_free: bool) -> &'static [u8] {
    if lazy_free { b"UNLINK" } else { b"DEL" }
}

#[cfg(test)]
mod tests;
