//! Saving a string: piece after piece. A piece that is about to change is copied until its turn has come.

use super::{Chunk, Element, Record};
use std::collections::BTreeMap;
use std::ops::Range;

/// The length of all pieces but the last.
pub const PIECE_LEN: usize = if cfg!(test) { 64 } else { 64 << 10 };

/// How far a string is written.
pub(in crate::types) struct Text {
    record: Record,
    /// Pieces that are still to be written as they were, by their numbers.
    kept: BTreeMap<usize, Box<[u8]>>,
    kept_bytes: usize,
    /// Of the string as it was.
    len: usize,
}

impl Text {
    /// The record's parts are the pieces of the string.
    pub(in crate::types) fn new(record: Record, len: usize) -> Text {
        Text { record, kept: BTreeMap::new(), kept_bytes: 0, len }
    }

    fn piece(&self, number: usize) -> Range<usize> {
        let start = number * PIECE_LEN;
        start..self.len.min(start + PIECE_LEN)
    }

    /// A range of the string is about to change. What is appended is no part of it.
    pub(in crate::types) fn keep(&mut self, bytes: &[u8], changed: Range<usize>) {
        let end = changed.end.min(self.len);
        let first = self.record.written_count().max(changed.start / PIECE_LEN);
        for number in first..end.div_ceil(PIECE_LEN) {
            let piece = self.piece(number);
            let kept_bytes = &mut self.kept_bytes;
            self.kept.entry(number).or_insert_with(|| {
                *kept_bytes += piece.len();
                bytes[piece].into()
            });
        }
        self.record.count_held(self.kept_bytes);
    }

    /// Writes pieces until `is_over` says that it is enough, which is asked before each, and returns what is written.
    pub(in crate::types) fn save_some(&mut self, bytes: &[u8], is_over: &mut dyn FnMut() -> bool) -> Chunk {
        while !self.record.is_complete() && !is_over() {
            let number = self.record.written_count();
            match self.kept.remove(&number) {
                Some(piece) => {
                    self.kept_bytes -= piece.len();
                    self.record.write(Element::Bytes(&piece));
                }
                None => {
                    let piece = self.piece(number);
                    self.record.write(Element::Bytes(&bytes[piece]));
                }
            }
        }
        let strings = self.record.string.take().into_iter().collect();
        let written = Chunk { bytes: self.record.take(), strings };
        self.record.count_held(self.kept_bytes);
        written
    }

    pub(in crate::types) fn is_complete(&self) -> bool {
        self.record.is_complete()
    }

    pub(in crate::types) fn record(&self) -> &Record {
        &self.record
    }
}
