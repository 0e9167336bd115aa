//! Saving a big collection for a snapshot: in slices, and while it changes.
//!
//! A value of which a snapshot needs the present state gets a [`Record`], and carries it until all is written. From then on
//! the snapshot writes some elements now and then, and a change first writes what it is about to take away: of a hash, set or
//! sorted set the element, of a list the node. So the old state travels with the value, wherever that moves, and a change
//! costs no more than what it changes.
//!
//! Hashes, sets and sorted sets are written in one direction, a [`Sweep`]. What lies before its position is written. Of what
//! lies behind it all is still to be written, but for the keys that are noted: their elements were written because of a change,
//! or are new. RDB files, and commands, may have the elements in any order.
//!
//! A string is written in pieces, and its record does not lie in the value: see [`Text`].
//!
//! The number of elements is written first. So it is known how many are left, and that is the end: what is added meanwhile
//! need not be visited.

mod text;

pub use text::PIECE_LEN;
pub(super) use text::Text;

use super::dict::DictSet;
use super::list::NodeRef;
use super::module::ModuleValue;
use super::stream::{self, ConsumerHead, Counters, GroupHead, Pending, StreamId};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A part of a value.
#[derive(Clone, Copy)]
pub enum Element<'a> {
    Field(&'a [u8], &'a [u8]),
    Member(&'a [u8]),
    Scored(&'a [u8], f64),
    Node(NodeRef<'a>),
    /// Of a string.
    Bytes(&'a [u8]),
    /// Of a stream, with its key.
    Entries(StreamId, stream::NodeRef<'a>),
    /// Of a stream, behind all entries, and how many groups it has. Each of these is written by what follows, in this order.
    Counters(Counters, usize),
    Group(&'a GroupHead),
    /// Some of the group's pending entries.
    Pending(&'a [(StreamId, Pending)]),
    /// Behind them.
    Consumers(&'a GroupHead),
    Consumer(&'a GroupHead, &'a ConsumerHead),
    /// Some of the consumer's pending entries.
    ConsumerPending(&'a GroupHead, &'a ConsumerHead, &'a [(StreamId, Pending)]),
    /// A value of a module, as a whole.
    Module(&'a ModuleValue),
}

/// What is written of a snapshot, in the order in which it is written.
#[derive(Default)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    /// Strings that begin in it and that may be compressed on their way to the file.
    pub strings: Vec<StringAt>,
}

/// A string that is not compressed: where its length is, which its bytes follow, maybe in later chunks as well.
#[derive(Clone, Copy, Debug)]
pub struct StringAt {
    pub at: usize,
    pub len: usize,
}

/// Writes the parts of one value, one after the other.
pub trait ElementWriter: Send + Sync {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>);

    /// What follows the last one.
    fn end(&mut self, out: &mut Vec<u8>);
}

/// So many bits of a record's number count the records of one shard.
const NUMBER_BITS: u32 = 48;

/// What the records that a shard has begun for a snapshot have in common.
#[derive(Default)]
pub struct Totals {
    /// The number of the snapshot.
    snapshot: u64,
    /// The number of the next record.
    next_number: AtomicU64,
    /// How many records there are that are not finished, of all shards.
    unfinished: Arc<AtomicUsize>,
    /// Bytes that are held because of changes.
    held_bytes: AtomicUsize,
    /// Those among them that are removed values, of which nothing was copied.
    kept_bytes: AtomicUsize,
    /// Bytes that were ever held because of changes.
    forced_bytes: AtomicU64,
}

impl Totals {
    /// Of this shard. `unfinished` counts the records of all shards.
    pub fn new(snapshot: u64, shard: usize, unfinished: Arc<AtomicUsize>) -> Totals {
        // No two shards give a number twice: values move between them with their records.
        let next_number = AtomicU64::new((shard as u64) << NUMBER_BITS);
        Totals { snapshot, next_number, unfinished, ..Totals::default() }
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that changes have forced since the last call.
    pub fn take_forced_bytes(&self) -> u64 {
        self.forced_bytes.swap(0, Ordering::Relaxed)
    }
}

/// The record of a value that is written part by part.
pub struct Record {
    number: u64,
    writer: Box<dyn ElementWriter>,
    /// What was written and is yet to be taken.
    out: Vec<u8>,
    /// Of what was not taken yet.
    string: Option<StringAt>,
    /// How many parts there are, and how many are still to be written.
    count: usize,
    left: usize,
    held: Held,
}

/// What is counted in the totals because of one value.
pub(super) struct Held {
    bytes: usize,
    kept_bytes: usize,
    totals: Arc<Totals>,
}

impl Held {
    pub(super) fn set(&mut self, bytes: usize) {
        let Totals { held_bytes, forced_bytes, .. } = &*self.totals;
        held_bytes.fetch_add(bytes, Ordering::Relaxed);
        held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        forced_bytes.fetch_add(bytes.saturating_sub(self.bytes) as u64, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Counts a removed value of so many bytes.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.totals.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.totals.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        self.kept_bytes += bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.totals.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.totals.kept_bytes.fetch_sub(self.kept_bytes, Ordering::Relaxed);
    }
}

impl Record {
    /// `head`: what precedes the first of `count` parts.
    pub fn new(head: Vec<u8>, count: usize, writer: Box<dyn ElementWriter>, totals: &Arc<Totals>) -> Record {
        let number = totals.next_number.fetch_add(1, Ordering::Relaxed);
        totals.unfinished.fetch_add(1, Ordering::SeqCst);
        let mut record = Record {
            number,
            writer,
            out: head,
            string: None,
            count,
            left: count,
            held: Held { bytes: 0, kept_bytes: 0, totals: Arc::clone(totals) },
        };
        if count == 0 {
            record.writer.end(&mut record.out);
        }
        record
    }

    /// Has the string compressed whose length, in the head, is at `string.at`.
    #[must_use]
    pub fn with_string(mut self, string: StringAt) -> Record {
        self.string = Some(string);
        self
    }

    /// Its number among the records of the snapshot.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The number of the snapshot.
    pub(super) fn snapshot(&self) -> u64 {
        self.held.totals.snapshot
    }

    /// How many parts are written.
    fn written_count(&self) -> usize {
        self.count - self.left
    }

    /// Whether one part is still to be written.
    pub(super) fn is_last(&self) -> bool {
        self.left == 1
    }

    pub(super) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Writes a part that was not written yet.
    pub(super) fn write(&mut self, element: Element<'_>) {
        self.write_within(element);
        self.end_part();
    }

    /// Writes a piece of a part that consists of many.
    pub(super) fn write_within(&mut self, element: Element<'_>) {
        self.writer.write(element, &mut self.out);
    }

    /// A part is written.
    pub(super) fn end_part(&mut self) {
        self.left = self.left.checked_sub(1).expect("no part is written twice");
        if self.left == 0 {
            self.writer.end(&mut self.out);
        }
    }

    /// Counts what is held because of changes: this much besides what was written.
    pub(super) fn count_held(&mut self, besides_bytes: usize) {
        self.held.set(self.out.len() + besides_bytes);
    }

    /// Counts what is held elsewhere, beside the record.
    pub(super) fn held_elsewhere(&self) -> Held {
        Held { bytes: 0, kept_bytes: 0, totals: Arc::clone(&self.held.totals) }
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// It is finished, or given up.
impl Drop for Record {
    fn drop(&mut self) {
        self.held.totals.unfinished.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where a value has what it carries while it is saved. A copy of the value is not saved.
pub(super) struct Slot<T>(Option<Box<T>>);

impl<T> Slot<T> {
    pub(super) const EMPTY: Slot<T> = Slot(None);

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    pub(super) fn take(&mut self) -> Slot<T> {
        Slot(self.0.take())
    }

    pub(super) fn into_inner(self) -> Option<T> {
        self.0.map(|inner| *inner)
    }

    pub(super) fn set(&mut self, inner: T) {
        self.0 = Some(Box::new(inner));
    }
}

impl<P> Slot<Sweep<P>> {
    pub(super) fn record(&self) -> Option<&Record> {
        self.get().map(|sweep| &sweep.record)
    }

    /// The value is no longer saved.
    pub(super) fn end(&mut self) -> Option<Record> {
        self.take().into_inner().map(|sweep| sweep.record)
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Slot<T> {
        Slot::EMPTY
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot::EMPTY
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "not saved" } else { "being saved" })
    }
}

/// How far a hash, set or sorted set is written. See the module's documentation.
pub(super) struct Sweep<P> {
    pub(super) record: Record,
    /// Where the sweep continues.
    pub(super) position: P,
    /// Keys behind the position whose elements are not to be written any more. In pages, so that a million of them are soon freed.
    noted: DictSet,
    noted_bytes: usize,
}

impl<P> Sweep<P> {
    pub(super) fn new(record: Record, position: P) -> Sweep<P> {
        Sweep { record, position, noted: DictSet::new(), noted_bytes: 0 }
    }

    /// The sweep has come to an element.
    pub(super) fn visit(&mut self, key: &[u8], element: Element<'_>) {
        if self.noted.is_empty() || !self.forget(key) {
            self.record.write(element);
        }
    }

    /// An element behind the position is about to be changed, or removed.
    pub(super) fn before_change(&mut self, key: &[u8], element: Element<'_>) {
        if !self.record.is_complete() && !self.noted.contains(key) {
            self.record.write(element);
            self.record.count_held(self.noted_bytes);
        }
    }

    /// What has this key from now on, behind the position, is not part of the snapshot.
    pub(super) fn note(&mut self, key: &[u8]) {
        if !self.record.is_complete() && self.noted.insert(key) {
            self.noted_bytes += noted_cost(key);
            self.record.count_held(self.noted_bytes);
        }
    }

    /// Nothing behind the position has this key any more.
    pub(super) fn forget(&mut self, key: &[u8]) -> bool {
        let was_noted = self.noted.remove(key);
        if was_noted {
            self.noted_bytes -= noted_cost(key);
        }
        was_noted
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        if self.record.is_complete() {
            self.noted = DictSet::new();
            self.noted_bytes = 0;
        }
        let written = self.record.take();
        self.record.count_held(self.noted_bytes);
        written
    }
}

/// What a noted key takes, about: its bytes, and its place in a page that is not full.
fn noted_cost(key: &[u8]) -> usize {
    key.len() + 16
}

#[cfg(test)]
pub(in crate::types) mod tests;
