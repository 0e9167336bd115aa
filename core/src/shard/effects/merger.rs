//! Makes one stream of the effects of all shards.
//!
//! # The order
//!
//! Batches are taken in the order of their tickets, the items of a batch in the order in which they stand: that is one
//! row of all items of all shards. They are written in this order. A transaction over several shards is written whole
//! where its first piece stands; until the others have come, nothing goes on, which is not long: when there is a first
//! piece, all locks are held, and nothing is in the way of the others.
//!
//! *Effects of a shard keep their order*, but that a piece may be written before what stands before it on its shard,
//! when another piece of its transaction stands further in front.
//!
//! *That changes nothing.* Let the first piece of transaction T stand in the row before item X, and the piece of T on X's
//! shard behind X. When T left its first piece it had passed its lock point, so it held its locks on X's shard since then
//! at the latest, and until its piece there. If X ran there after the lock point, it ran while T held its locks, so
//! it touches none of T's keys, and the two may be swapped. X did not run before the lock point. For then the message by
//! which the lock passed on from X's shard left behind X's ticket (on the last shard of the chain: the word that T may
//! run), the first piece came after this message, and X would have the earlier ticket.
//!
//! *Transactions stand in the order of their lock points if they conflict.* The later one got the lock that both want
//! after the earlier one had released it, so after the earlier one's piece there. Its lock point, and with it all its
//! pieces, come after that, and have later tickets, or stand later in the same batch.
//!
//! *The stream respects cause and effect.* A reply leaves its shard after the ticket of all that led to it. What anybody
//! does upon the reply has a later ticket. So every prefix of the stream is a state which a client could have
//! seen, also one with several connections to several shards.
//!
//! # Readers
//!
//! A reader begins where the first of the shards says so. The transaction that brings him in holds all keys, so what ran
//! before its lock point stands before that place, and what ran after it behind. Without readers nothing is kept: items
//! are counted and dropped.

use super::{EffectBatch, Kind, Reader};
use crate::call::ClientId;
use crate::protocol::{Reply, Resp};
use crate::shard::txn::TxnId;
use ahash::AHashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// What the stream brings, in order.
#[derive(PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Requests in the wire format, for all readers attached so far.
    Bytes(Vec<u8>),
    /// What follows is also for this reader. `offset`: how many bytes were there before.
    Attach { reader: Reader, offset: u64 },
    /// Nothing more comes for this reader.
    Cut(Reader),
}

/// A batch in its place in the row.
struct Taken {
    batch: EffectBatch,
    /// The item that is next.
    next_item: usize,
    len_bytes: usize,
}

/// Where a piece lies: the batch, counted from the first ever, and its effects there.
#[derive(Clone, Copy)]
struct Piece {
    seq: u64,
    start: usize,
    end: usize,
}

/// A transaction of which pieces are there.
#[derive(Default)]
struct Transaction {
    pieces: Vec<Piece>,
    /// It has been written, or dropped; so many of its pieces have been passed.
    passed: usize,
}

/// A reader, until he is gone and all shards have spoken of him.
struct ReaderState {
    client: ClientId,
    /// So many shards have.
    spoken: u32,
    /// The shard that serves him, while he reads.
    reads_at: Option<usize>,
    is_gone: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Merger {
    shard_count: u32,
    /// The ticket that the row goes on with.
    next_seq: u64,
    /// Batches whose time has not come.
    early: BTreeMap<u64, EffectBatch>,
    row: VecDeque<Taken>,
    /// Bytes in `early` and `row`.
    held_bytes: usize,
    transactions: AHashMap<TxnId, Transaction>,
    readers: Vec<ReaderState>,
    /// How many read.
    reading: usize,
    out: Vec<u8>,
    deliveries: Vec<Delivery>,
    /// The database that the end of the stream has selected.
    db: Option<u32>,
    /// Bytes of the stream, ever.
    offset: u64,
    /// For a transaction's effects: (order, ticket, effect).
    sorting: Vec<(u32, u64, usize)>,
}

impl Merger {
    pub fn new(shard_count: usize) -> Merger {
        Merger { shard_count: shard_count as u32, ..Merger::default() }
    }

    /// Takes a batch, and writes what can be written.
    pub fn push(&mut self, batch: EffectBatch) {
        self.held_bytes += batch.len_bytes();
        self.early.insert(batch.seq, batch);
        while let Some(batch) = self.early.remove(&self.next_seq) {
            self.next_seq += 1;
            self.record_pieces(&batch);
            let len_bytes = batch.len_bytes();
            self.row.push_back(Taken { batch, next_item: 0, len_bytes });
        }
        self.advance();
    }

    /// Whether something has been written since the last [`Merger::take`].
    pub fn has_deliveries(&self) -> bool {
        !self.out.is_empty() || !self.deliveries.is_empty()
    }

    /// The shards that serve readers, each once.
    pub fn homes(&self) -> SmallVec<[usize; 4]> {
        let mut homes: SmallVec<[usize; 4]> =
            self.readers.iter().filter_map(|state| state.reads_at).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    /// What has been written since the last call.
    pub fn take(&mut self) -> Vec<Delivery> {
        self.cut_bytes();
        std::mem::take(&mut self.deliveries)
    }

    /// A reader is gone.
    pub fn detach(&mut self, client: ClientId) {
        let at = self.reader(client);
        let state = &mut self.readers[at];
        state.is_gone = true;
        if state.reads_at.take().is_some() {
            self.reading -= 1;
        }
        self.forget_if_over(at);
        // Without readers nothing waits.
        self.advance();
    }

    /// Cuts off the readers that are served by the shards of which `is_cut` says so.
    pub fn cut(&mut self, is_cut: impl Fn(usize) -> bool) {
        self.cut_readers(is_cut);
        self.advance();
    }

    /// Writes a request that has nothing to do with keys.
    pub fn write(&mut self, args: &[&[u8]]) {
        if self.reading > 0 {
            let start = self.out.len();
            push_request(&mut self.out, args);
            self.offset += (self.out.len() - start) as u64;
        }
    }

    /// Whether somebody reads.
    pub fn is_read(&self) -> bool {
        self.reading > 0
    }

    /// Bytes that wait for others to come before them.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many bytes the stream has had, ever.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Nothing waits.
    pub fn is_idle(&self) -> bool {
        self.row.is_empty() && self.early.is_empty() && self.transactions.is_empty()
    }

    fn record_pieces(&mut self, batch: &EffectBatch) {
        let mut start = 0;
        for item in &batch.items {
            if let Kind::Piece { id, .. } = item.kind {
                let piece = Piece { seq: batch.seq, start, end: item.end };
                self.transactions.entry(id).or_default().pieces.push(piece);
            }
            start = item.end;
        }
    }

    /// Goes along the row, as far as it is complete.
    fn advance(&mut self) {
        while let Some(front) = self.row.front() {
            let Some(item) = front.batch.items.get(front.next_item) else {
                self.held_bytes -= front.len_bytes;
                self.row.pop_front();
                continue;
            };
            let start = front.next_item.checked_sub(1).map_or(0, |before| front.batch.items[before].end);
            match item.kind {
                Kind::Unit => self.write_front(start, item.end, true),
                Kind::Apart => self.write_front(start, item.end, false),
                Kind::Piece { id, pieces } => {
                    if !self.pass_piece(id, pieces as usize) {
                        return;
                    }
                }
                Kind::Attach(reader) => self.attach(reader),
                Kind::Lost => self.cut_readers(|_| true),
            }
            self.row.front_mut().expect("it was there just now").next_item += 1;
        }
    }

    fn attach(&mut self, reader: Reader) {
        let at = self.reader(reader.client);
        let state = &mut self.readers[at];
        state.spoken += 1;
        if state.spoken == 1 && !state.is_gone {
            state.reads_at = Some(reader.home);
            self.reading += 1;
            // Who begins here has not seen the last SELECT.
            self.db = None;
            self.cut_bytes();
            self.deliveries.push(Delivery::Attach { reader, offset: self.offset });
        }
        self.forget_if_over(at);
    }

    /// Where the reader is in the list, also one of whom nobody has spoken yet.
    fn reader(&mut self, client: ClientId) -> usize {
        self.readers.iter().position(|state| state.client == client).unwrap_or_else(|| {
            self.readers.push(ReaderState { client, spoken: 0, reads_at: None, is_gone: false });
            self.readers.len() - 1
        })
    }

    /// Forgets a reader who is gone and of whom nobody will speak any more.
    fn forget_if_over(&mut self, at: usize) {
        let state = &self.readers[at];
        if state.is_gone && state.spoken == self.shard_count {
            self.readers.swap_remove(at);
        }
    }

    fn cut_readers(&mut self, is_cut: impl Fn(usize) -> bool) {
        self.cut_bytes();
        for state in &mut self.readers {
            if let Some(home) = state.reads_at.take_if(|home| is_cut(*home)) {
                self.reading -= 1;
                self.deliveries.push(Delivery::Cut(Reader { client: state.client, home }));
            }
        }
    }

    fn cut_bytes(&mut self) {
        if !self.out.is_empty() {
            self.deliveries.push(Delivery::Bytes(std::mem::take(&mut self.out)));
        }
    }

    /// Writes effects `start..end` of the first batch. `whole`: they are one unit.
    fn write_front(&mut self, start: usize, end: usize, whole: bool) {
        if self.reading == 0 {
            return;
        }
        let front = self.row.front().expect("the caller has looked at it");
        let mut writer = Writer { out: &mut self.out, db: &mut self.db };
        let len_before = writer.out.len();
        let effects = &front.batch.effects;
        if whole && end - start > 1 {
            writer.open(effects.list[start].db);
        }
        for at in start..end {
            writer.effect(effects.list[at].db, effects.bytes_of(at));
        }
        if whole && end - start > 1 {
            writer.close();
        }
        self.offset += (self.out.len() - len_before) as u64;
    }

    /// Passes a piece: the first one stands for its transaction, the others have been written with it. False if pieces
    /// are missing for that.
    fn pass_piece(&mut self, id: TxnId, pieces: usize) -> bool {
        let transaction = self.transactions.get_mut(&id).expect("its pieces were noted as they came");
        if transaction.passed == 0 && self.reading > 0 {
            if transaction.pieces.len() < pieces {
                return false;
            }
            let parts = std::mem::take(&mut transaction.pieces);
            self.write_transaction(&parts);
        }
        let transaction = self.transactions.get_mut(&id).expect("it was there just now");
        transaction.passed += 1;
        if transaction.passed == pieces {
            self.transactions.remove(&id);
        }
        true
    }

    fn write_transaction(&mut self, pieces: &[Piece]) {
        let first_ticket = self.row.front().expect("a piece is being passed").batch.seq;
        let mut sorting = std::mem::take(&mut self.sorting);
        for piece in pieces {
            let batch = &self.row[(piece.seq - first_ticket) as usize].batch;
            sorting.extend((piece.start..piece.end).map(|at| (batch.effects.list[at].order, piece.seq, at)));
        }
        // Stable: what a command did on one shard stays in order; on several shards it did different things.
        sorting.sort_by_key(|&(order, ..)| order);
        let mut writer = Writer { out: &mut self.out, db: &mut self.db };
        let len_before = writer.out.len();
        for (n, &(_, seq, at)) in sorting.iter().enumerate() {
            let effects = &self.row[(seq - first_ticket) as usize].batch.effects;
            if n == 0 && sorting.len() > 1 {
                writer.open(effects.list[at].db);
            }
            writer.effect(effects.list[at].db, effects.bytes_of(at));
        }
        if sorting.len() > 1 {
            writer.close();
        }
        self.offset += (self.out.len() - len_before) as u64;
        sorting.clear();
        self.sorting = sorting;
    }
}

/// Appends effects, with the SELECTs they need.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    db: &'a mut Option<u32>,
}

impl Writer<'_> {
    fn select(&mut self, db: u32) {
        if *self.db != Some(db) {
            *self.db = Some(db);
            push_request(self.out, &[b"SELECT", itoa::Buffer::new().format(db).as_bytes()]);
        }
    }

    fn effect(&mut self, db: u32, bytes: &[u8]) {
        self.select(db);
        self.out.extend_from_slice(bytes);
    }

    /// Begins a transaction whose first effect is for database `db`.
    fn open(&mut self, db: u32) {
        self.select(db);
        push_request(self.out, &[b"MULTI"]);
    }

    fn close(&mut self) {
        push_request(self.out, &[b"EXEC"]);
    }
}

fn push_request(out: &mut Vec<u8>, args: &[&[u8]]) {
    let mut request = Reply::new(out, Resp::V2);
    request.array(args.len());
    args.iter().for_each(|arg| request.bulk(arg));
}

#[cfg(test)]
mod tests;
