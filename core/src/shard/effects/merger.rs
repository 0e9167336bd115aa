//! Merges the effects of all shards into one stream.
//!
//! # The order
//!
//! Batches are taken in the order of their sequence numbers, and the items of a batch in their order within it. That
//! gives one row of all items of all shards, and they are written in this order. A transaction over several shards is
//! written as a whole in the place of its first piece. Until its other pieces have arrived, nothing after it is
//! written. That does not take long: when there is a first piece, the transaction holds all its locks, and nothing
//! delays its other pieces.
//!
//! *Effects of a shard keep their order*, with one exception: a piece may be written before items that precede it on
//! its shard, if another piece of its transaction is further ahead in the row.
//!
//! *The exception does no harm.* Let the first piece of transaction T precede item X in the row, and let T's piece on
//! X's shard follow X. T held its locks on X's shard from their grant until it left its piece there. If X ran after
//! the grant, it ran while T held these locks. So X touches none of T's keys, and the two may be swapped. X cannot
//! have run before the grant: in that case X's sequence number was drawn before X's shard sent T's next message (the
//! plan passed on or, from the last shard of the chain, the message that T may run). T left its first piece after
//! that message, so X would precede that piece in the row. (What home runs over checked-out entries belongs to keys
//! of their owners, for which the owners' pieces count.)
//!
//! *Conflicting transactions are in the order of their lock points.* The later one got the lock that both want after
//! the earlier one had released it, so after the earlier one had left its piece on that shard. The later one's lock
//! point, and so all its pieces, come after that: they have later sequence numbers, or come later in the same batch.
//!
//! *The stream respects causality.* A reply leaves its shard after the sequence numbers of all effects that led to it
//! were drawn. Whatever a client does because of that reply gets a later number. So every prefix of the stream is a
//! state that a client could have seen, even a client with several connections to several shards.
//!
//! # Beginnings and ends
//!
//! The first shard's item of a full synchronization is the place from which its replicas read: the transaction that
//! left the items had the whole keyspace locked, so everything that ran before it on any shard precedes that item, and
//! everything that ran after it follows. While nobody reads nothing is kept: pieces are counted, and all items are dropped.
//!
//! The merger of the append-only file works likewise: the first shard's item that begins a part of the file ends the
//! part before, and every part begins without a selected database.

use super::{Consumer, EffectBatch, Kind};
use crate::protocol::{Reply, Resp};
use crate::shard::txn::TxnId;
use ahash::AHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What the merger hands out, in order.
#[derive(PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Requests in the wire format.
    Bytes(Vec<u8>),
    /// What follows is also for the replicas of this full synchronization. `offset`: how many bytes the stream had before.
    Sync { number: u64, offset: u64 },
    /// Effects are missing from here on: nobody can read on. The synchronizations up to this one are over.
    Lost { last_number: u64 },
    /// What follows is of another part of the file.
    NewPart { number: u64 },
}

/// A batch whose turn has come, in the row.
struct Taken {
    seq: u64,
    batch: Arc<EffectBatch>,
    /// The next item to be written.
    next_item: usize,
    len_bytes: usize,
}

/// Where a piece is: the sequence number of its batch, and its effects there.
#[derive(Clone, Copy)]
struct Piece {
    seq: u64,
    start: usize,
    end: usize,
}

/// A transaction some of whose pieces have arrived.
#[derive(Default)]
struct Transaction {
    pieces: Vec<Piece>,
    /// It is written without MULTI and EXEC.
    is_apart: bool,
    /// How many of its pieces have been passed in the row. With the first one it is written, or dropped if there are no
    /// readers.
    passed: usize,
}

/// See the module's documentation.
pub struct Merger {
    consumer: Consumer,
    /// The sequence number of the next batch in the row.
    next_seq: u64,
    /// Batches that arrived before one with a smaller number.
    early: BTreeMap<u64, Arc<EffectBatch>>,
    row: VecDeque<Taken>,
    /// Bytes in `early` and `row`.
    held_bytes: usize,
    transactions: AHashMap<TxnId, Transaction>,
    /// Somebody reads: a part or a synchronization has begun, and it has not ended.
    is_read: bool,
    /// The number of the one that has begun last, or of a later one that is not to begin any more.
    last_number: u64,
    out: Vec<u8>,
    deliveries: Vec<Delivery>,
    /// The database that is selected at the end of the stream.
    db: Option<u32>,
    /// How many bytes the stream has had so far.
    offset: u64,
    /// Reused to sort a transaction's effects: (order, sequence number of the batch, effect).
    sorting: Vec<((u32, u32), u64, usize)>,
}

impl Merger {
    pub fn new(consumer: Consumer) -> Merger {
        Merger {
            consumer,
            next_seq: 0,
            early: BTreeMap::new(),
            row: VecDeque::new(),
            held_bytes: 0,
            transactions: AHashMap::new(),
            is_read: false,
            last_number: 0,
            out: Vec::new(),
            deliveries: Vec::new(),
            db: None,
            offset: 0,
            sorting: Vec::new(),
        }
    }

    /// Takes the batch with this sequence number, and writes as many items as can be written.
    pub fn push(&mut self, seq: u64, batch: Arc<EffectBatch>) {
        self.held_bytes += batch.len_bytes();
        self.early.insert(seq, batch);
        while let Some(batch) = self.early.remove(&self.next_seq) {
            let seq = self.next_seq;
            self.next_seq += 1;
            self.record_pieces(seq, &batch);
            let len_bytes = batch.len_bytes();
            self.row.push_back(Taken { seq, batch, next_item: 0, len_bytes });
        }
        self.advance();
    }

    /// All batches with lower numbers are written as a whole.
    pub fn written_seq(&self) -> u64 {
        self.row.front().map_or(self.next_seq, |front| front.seq)
    }

    /// Whether something has been written since the last [`Merger::take`].
    pub fn has_deliveries(&self) -> bool {
        !self.out.is_empty() || !self.deliveries.is_empty()
    }

    /// What has been written since the last call.
    pub fn take(&mut self) -> Vec<Delivery> {
        self.cut_bytes();
        std::mem::take(&mut self.deliveries)
    }

    /// Gives a buffer back that [`Merger::take`] has returned, when its bytes are not needed any more.
    pub fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.out.is_empty() && self.out.capacity() < buffer.capacity() {
            buffer.clear();
            self.out = buffer;
        }
    }

    /// Gives up what is written now: see [`Delivery::Lost`].
    pub fn lose(&mut self) {
        self.end_lost();
        self.advance();
    }

    fn end_lost(&mut self) {
        if std::mem::take(&mut self.is_read) {
            self.cut_bytes();
            self.deliveries.push(Delivery::Lost { last_number: self.last_number });
        }
    }

    /// Writes a request that has nothing to do with keys.
    pub fn write(&mut self, args: &[&[u8]]) {
        if self.is_read {
            let start = self.out.len();
            push_request(&mut self.out, args);
            self.offset += (self.out.len() - start) as u64;
        }
    }

    /// Whether somebody reads.
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// Bytes of batches that wait for earlier batches or for pieces.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many bytes the stream has had so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The stream goes on at this offset. Nobody reads at present.
    pub fn set_offset(&mut self, offset: u64) {
        debug_assert!(!self.is_read);
        self.offset = offset;
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.row.is_empty() && self.early.is_empty() && self.transactions.is_empty()
    }

    fn record_pieces(&mut self, seq: u64, batch: &EffectBatch) {
        let mut start = 0;
        for item in &batch.items {
            if let Kind::Piece { id, is_apart, .. } = item.kind {
                let transaction = self.transactions.entry(id).or_default();
                transaction.pieces.push(Piece { seq, start, end: item.end });
                transaction.is_apart |= is_apart;
            }
            start = item.end;
        }
    }

    /// Writes items of the row up to the first one that has to wait.
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
                Kind::Piece { id, pieces, .. } => {
                    if !self.pass_piece(id, pieces as usize) {
                        return;
                    }
                }
                Kind::Sync { number } if self.consumer == Consumer::Replicas => {
                    let offset = self.offset;
                    self.begin(number, Delivery::Sync { number, offset });
                }
                Kind::Lost if self.consumer == Consumer::Replicas => self.end_lost(),
                Kind::NewPart { number } if self.consumer == Consumer::File => {
                    self.begin(number, Delivery::NewPart { number });
                }
                Kind::Sync { .. } | Kind::Lost | Kind::NewPart { .. } => {}
            }
            self.row.front_mut().expect("found just now").next_item += 1;
        }
    }

    fn begin(&mut self, number: u64, delivery: Delivery) {
        if number <= self.last_number {
            return;
        }
        self.last_number = number;
        self.is_read = true;
        // Who reads from here on has not seen the last SELECT.
        self.db = None;
        self.cut_bytes();
        self.deliveries.push(delivery);
    }

    /// Nobody reads any more: nothing is written until one begins whose number is greater than `last_number`.
    pub fn end(&mut self, last_number: u64) {
        self.last_number = self.last_number.max(last_number);
        if std::mem::take(&mut self.is_read) {
            self.advance();
        }
    }

    fn cut_bytes(&mut self) {
        if !self.out.is_empty() {
            self.deliveries.push(Delivery::Bytes(std::mem::take(&mut self.out)));
        }
    }

    /// Writes effects `start..end` of the first batch in the row. `whole`: they are one unit.
    fn write_front(&mut self, start: usize, end: usize, whole: bool) {
        if !self.is_read {
            return;
        }
        let front = self.row.front().expect("the caller found it");
        let mut writer = Writer { out: &mut self.out, db: &mut self.db };
        let len_before = writer.out.len();
        let effects = &front.batch.effects;
        let consumer = self.consumer;
        let mut meant = (start..end).filter(|&at| effects.list[at].is_for(consumer)).peekable();
        let is_wrapped = whole && meant.clone().nth(1).is_some();
        if let Some(&first) = meant.peek().filter(|_| is_wrapped) {
            writer.open(effects.list[first].db);
        }
        while let Some(first) = meant.next() {
            let db = effects.list[first].db;
            let mut end = first + 1;
            while meant.next_if(|&at| at == end && effects.list[at].db == db).is_some() {
                end += 1;
            }
            writer.effect(db, effects.bytes_of_all(first..end));
        }
        if is_wrapped {
            writer.close();
        }
        self.offset += (self.out.len() - len_before) as u64;
    }

    /// Passes a piece. The first piece of a transaction writes all its pieces, and the others then write nothing.
    /// Returns false, and does nothing, if the transaction cannot be written yet because pieces are missing.
    fn pass_piece(&mut self, id: TxnId, pieces: usize) -> bool {
        let transaction = self.transactions.get_mut(&id).expect("its pieces were recorded when they arrived");
        if transaction.passed == 0 && self.is_read {
            if transaction.pieces.len() < pieces {
                return false;
            }
            let (parts, is_whole) = (std::mem::take(&mut transaction.pieces), !transaction.is_apart);
            self.write_transaction(&parts, is_whole);
        }
        let transaction = self.transactions.get_mut(&id).expect("found just now");
        transaction.passed += 1;
        if transaction.passed == pieces {
            self.transactions.remove(&id);
        }
        true
    }

    /// Writes the effects of a transaction. `whole`: they are one unit.
    fn write_transaction(&mut self, pieces: &[Piece], whole: bool) {
        let first_ticket = self.row.front().expect("a piece is being passed").seq;
        let mut sorting = std::mem::take(&mut self.sorting);
        for piece in pieces {
            let batch = &self.row[(piece.seq - first_ticket) as usize].batch;
            let list = &batch.effects.list;
            let meant = (piece.start..piece.end).filter(|&at| list[at].is_for(self.consumer));
            sorting.extend(meant.map(|at| (list[at].order, piece.seq, at)));
        }
        // The sort is stable: effects of one command on one shard keep their order. Those on different shards concern
        // different keys, and may come in any order.
        sorting.sort_by_key(|&(order, ..)| order);
        let is_wrapped = whole && sorting.len() > 1;
        let mut writer = Writer { out: &mut self.out, db: &mut self.db };
        let len_before = writer.out.len();
        for (n, &(_, seq, at)) in sorting.iter().enumerate() {
            let effects = &self.row[(seq - first_ticket) as usize].batch.effects;
            if n == 0 && is_wrapped {
                writer.open(effects.list[at].db);
            }
            writer.effect(effects.list[at].db, effects.bytes_of(at));
        }
        if is_wrapped {
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
