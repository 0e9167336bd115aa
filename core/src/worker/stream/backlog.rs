//! The replication stream in memory: its last part, for replicas that read it, and for those that come back.
//!
//! It stands there once, in blocks that do not change, however many replicas read it. Each replica has its own place; its
//! shard takes the blocks from there on, and holds the lock only while it takes references to them. At least
//! `repl-backlog-size` bytes are kept, and what a replica that is being served has not got yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// No block is longer, so that what is dropped is never held by much that is kept. As in Redis.
const BLOCK_LEN: usize = 16 << 10;

/// A part of the stream.
struct Block {
    start: u64,
    bytes: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// It is to be no longer than [`BLOCK_LEN`] with these. Room doubles up to that.
    fn append(&mut self, part: &[u8]) {
        let len = self.bytes.len() + part.len();
        if len > self.bytes.capacity() {
            let room = len.max(2 * self.bytes.capacity()).min(BLOCK_LEN);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
    }

    /// What it takes of memory.
    fn memory_bytes(&self) -> u64 {
        (self.bytes.capacity() + BLOCK_OVERHEAD_BYTES) as u64
    }
}

/// What a block takes besides its bytes: itself, two counts of references, and its place in the list.
const BLOCK_OVERHEAD_BYTES: usize = size_of::<Block>() + 3 * size_of::<usize>();

#[derive(Default)]
struct Blocks {
    list: VecDeque<Arc<Block>>,
    /// The offset of the first byte that is there.
    first: u64,
    memory_bytes: u64,
}

impl Blocks {
    /// None, of a stream that goes on at this offset.
    fn none_from(first: u64) -> Blocks {
        Blocks { first, ..Blocks::default() }
    }

    /// Fills the last block, unless somebody is reading it, and goes on in new ones.
    fn append(&mut self, mut start: u64, mut bytes: &[u8]) {
        if let Some(last) = self.list.back_mut().and_then(Arc::get_mut) {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK_LEN - last.bytes.len()));
            self.memory_bytes -= last.memory_bytes();
            last.append(part);
            self.memory_bytes += last.memory_bytes();
            (start, bytes) = (last.end(), rest);
        }
        for part in bytes.chunks(BLOCK_LEN) {
            let block = Block { start, bytes: part.to_vec() };
            start = block.end();
            self.memory_bytes += block.memory_bytes();
            self.list.push_back(Arc::new(block));
        }
    }

    fn drop_first(&mut self) {
        if let Some(front) = self.list.pop_front() {
            self.memory_bytes -= front.memory_bytes();
            self.first = front.end();
        }
    }
}

/// See the module's documentation. Offsets count the stream's bytes from 0 on.
#[derive(Default)]
pub struct Backlog {
    blocks: Mutex<Blocks>,
    end: AtomicU64,
    is_active: AtomicBool,
    /// What all of it takes of memory beyond what is to be kept, as of the last change.
    excess_bytes: AtomicU64,
}

/// What INFO shows of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BacklogFigures {
    pub is_active: bool,
    pub first: u64,
    pub len_bytes: u64,
    /// What all of it takes of memory, and not only the part that is kept for `repl-backlog-size`.
    pub memory_bytes: u64,
}

impl Backlog {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().expect("no holder of the backlog panics")
    }

    /// The length of the stream so far.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// What it takes of memory only because replicas have not read it yet: more than is kept in any case.
    #[inline]
    pub fn excess_bytes(&self) -> u64 {
        self.excess_bytes.load(Ordering::Relaxed)
    }

    /// Whether the stream is kept.
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// Begins to keep the stream, from its end on, unless it is kept already.
    pub fn begin(&self) {
        let mut blocks = self.blocks();
        if !self.is_active.swap(true, Ordering::AcqRel) {
            *blocks = Blocks::none_from(self.end());
        }
    }

    /// The stream goes on at this offset, and is kept from there on.
    pub fn restart(&self, offset: u64) {
        let mut blocks = self.blocks();
        *blocks = Blocks::none_from(offset);
        self.excess_bytes.store(0, Ordering::Relaxed);
        self.end.store(offset, Ordering::Release);
        self.is_active.store(true, Ordering::Release);
    }

    /// Frees what is kept, and keeps nothing from here on.
    pub fn end_keeping(&self) {
        let mut blocks = self.blocks();
        self.is_active.store(false, Ordering::Release);
        self.excess_bytes.store(0, Ordering::Relaxed);
        *blocks = Blocks::none_from(self.end());
    }

    /// Appends the next bytes of the stream.
    pub fn append(&self, bytes: &[u8]) {
        let mut blocks = self.blocks();
        let start = self.end();
        let end = start + bytes.len() as u64;
        if bytes.is_empty() {
            return;
        }
        if self.is_active() {
            blocks.append(start, bytes);
        } else {
            blocks.first = end;
        }
        self.end.store(end, Ordering::Release);
    }

    /// Drops the blocks of which all is more than `keep_bytes` before the end, and before `needed_from`.
    pub fn trim(&self, keep_bytes: u64, needed_from: u64) {
        let mut blocks = self.blocks();
        let from = self.end().saturating_sub(keep_bytes).min(needed_from);
        while blocks.list.front().is_some_and(|front| front.end() <= from) {
            blocks.drop_first();
        }
        self.excess_bytes.store(blocks.memory_bytes.saturating_sub(keep_bytes), Ordering::Relaxed);
    }

    /// Whether the stream can be read on from `offset`.
    pub fn has(&self, offset: u64) -> bool {
        let blocks = self.blocks();
        self.is_active() && (blocks.first..=self.end()).contains(&offset)
    }

    /// Appends to `out` what stands from `from` up to `to`, about `len_max` bytes at most. Returns where that ends. `None`: it is
    /// not there any more.
    pub fn read(&self, from: u64, to: u64, len_max: usize, out: &mut Vec<u8>) -> Option<u64> {
        let mut taken: Vec<Arc<Block>> = Vec::new();
        {
            let blocks = self.blocks();
            if from < blocks.first {
                return None;
            }
            let place = blocks.list.partition_point(|block| block.end() <= from);
            let mut left = len_max as u64;
            for block in blocks.list.iter().skip(place).take_while(|block| block.start < to) {
                taken.push(Arc::clone(block));
                let len = block.end().min(to) - block.start.max(from);
                left = left.saturating_sub(len);
                if left == 0 {
                    break;
                }
            }
        }
        let mut at = from;
        for block in &taken {
            let end = block.end().min(to);
            let range = (at - block.start) as usize..(end - block.start) as usize;
            let part = &block.bytes[range];
            let room = (from + len_max as u64).saturating_sub(at) as usize;
            let part = &part[..part.len().min(room)];
            out.extend_from_slice(part);
            at += part.len() as u64;
        }
        Some(at)
    }

    pub fn figures(&self) -> BacklogFigures {
        let blocks = self.blocks();
        let is_active = self.is_active();
        let len_bytes = if is_active { self.end() - blocks.first } else { 0 };
        BacklogFigures { is_active, first: blocks.first, len_bytes, memory_bytes: blocks.memory_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn text(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    /// A replica that has fallen behind by one big value, and is disconnected for it, would otherwise go on from there, and be
    /// disconnected again, for ever.
    #[test]
    fn a_part_of_what_was_appended_at_once_goes_like_any_other() {
        let backlog = Backlog::default();
        backlog.begin();
        backlog.append(&[1; 20 * BLOCK_LEN]);
        backlog.trim(BLOCK_LEN as u64, u64::MAX);
        let figures = backlog.figures();
        assert_eq!(figures.len_bytes, BLOCK_LEN as u64);
        assert_eq!(figures.memory_bytes, (BLOCK_LEN + BLOCK_OVERHEAD_BYTES) as u64);
        assert!(!backlog.has(0) && backlog.has(19 * BLOCK_LEN as u64));
        assert_eq!(backlog.read(0, 20, 20, &mut Vec::new()), None);
        let needed = BLOCK_LEN as u64 + 1;
        let backlog = Backlog::default();
        backlog.begin();
        backlog.append(&[1; 20 * BLOCK_LEN]);
        backlog.trim(0, needed);
        assert!(backlog.has(needed) && !backlog.has(0));
    }

    #[test]
    fn what_is_kept_reads_as_it_was_appended() {
        let mut random = Rng::new(7);
        let backlog = Backlog::default();
        backlog.append(&[1; 100]);
        assert!(!backlog.has(100), "it is not kept");
        backlog.begin();
        let (mut reader, mut needed) = (100, 100);
        for _ in 0..2_000 {
            let start = backlog.end();
            let len_max = if random.one_in(20) { 40_000 } else { 300 };
            let len = random.below(len_max) as u64;
            backlog.append(&(start..start + len).map(text).collect::<Vec<u8>>());
            if random.one_in(3) {
                let (to, mut out) = (backlog.end(), Vec::new());
                let len_max = 1 + random.below(30_000);
                let end =
                    backlog.read(reader, to, len_max, &mut out).expect("it is needed, and so it is there");
                assert!(out.len() <= len_max && end == reader + out.len() as u64);
                assert!(end == to || out.len() == len_max);
                assert!(out.iter().zip(reader..).all(|(&byte, offset)| byte == text(offset)));
                (reader, needed) = (end, end);
            }
            backlog.trim(20_000, needed);
            let figures = backlog.figures();
            assert!(figures.len_bytes >= 20_000.min(backlog.end() - 100) && figures.first <= needed);
            assert!(backlog.has(figures.first) && !backlog.has(figures.first - 1));
            let longest = 20_000.max(backlog.end() - needed) + BLOCK_LEN as u64;
            assert!(figures.len_bytes <= longest, "{figures:?}");
            let taken: u64 = backlog.blocks().list.iter().map(|block| block.memory_bytes()).sum();
            assert!(backlog.blocks().list.iter().all(|block| block.bytes.capacity() <= BLOCK_LEN));
            assert!(figures.memory_bytes == taken && taken >= figures.len_bytes);
        }
        backlog.end_keeping();
        assert_eq!(backlog.figures().memory_bytes, 0);
        assert_eq!(
            backlog.read(reader, backlog.end(), 1, &mut Vec::new()).is_some(),
            reader == backlog.end()
        );
    }
}
