//! Arena: the elements of a big sorted set, and their 32-bit handles.
//!
//! ```text
//! chunk of 64 KiB: [len | score | member.. ] [len | score | member..] [free | units | next | prev ..] ...
//! handle = chunk << 14 | offset in units of 4 bytes
//! ```
//!
//! An element is one byte of length, the score and the member, rounded up to units. An allocation of its own would cost
//! a pointer of 8 bytes in each place that names it, and the allocator's rounding. A member that is too long for that
//! (`INLINE_LEN_MAX`) lies in an allocation of its own, and the element has its number.
//!
//! A removed element's slot is put in the free list of its size, where the next element of that size finds it. When
//! more than half of the arena is free, each removal moves a few elements out of the last chunk into free slots, until
//! that chunk can be given back. So the arena shrinks with its set, and no call does much work.

use super::long::LongMembers;
use crate::types::{CACHE_LINE_LEN, prefetch};

/// Names an element. It is valid until the element is removed or moved.
pub(super) type Handle = u32;

/// No handle: the end of a free list.
const NONE: Handle = Handle::MAX;

/// Bytes in a unit.
const UNIT: usize = 4;
const CHUNK_BITS: u32 = 14;
const CHUNK_UNITS: usize = 1 << CHUNK_BITS;
const CHUNK_BYTES: usize = CHUNK_UNITS * UNIT;
/// More would not have handles. 16 GiB, which half a billion short elements fill.
const CHUNKS_MAX: usize = (1 << (Handle::BITS - CHUNK_BITS)) - 1;

/// Bytes before the member: its length, or a tag, and the score.
const HEADER: usize = 9;
/// The longest member that lies in the arena.
pub(super) const INLINE_LEN_MAX: usize = UNITS_MAX * UNIT - HEADER;
/// The longest slot.
const UNITS_MAX: usize = 32;
/// The shortest: an element with an empty member, or a free slot with its links.
const UNITS_MIN: usize = HEADER.div_ceil(UNIT);

/// The tags that stand in place of a length.
const LONG: u8 = 255;
const FREE: u8 = 254;
/// Unused units that are in no free list.
const FILLER: u8 = 253;

const _: () = assert!(INLINE_LEN_MAX < FILLER as usize && UNITS_MIN * UNIT >= 12);

/// A chunk grows in steps up to its full length, the first ones so that a small set does not own 64 KiB.
const GROWTH_MIN: usize = 1 << 10;
/// ... and by this share of what is there.
const GROWTH_SHARE: usize = 8;

#[derive(Clone)]
pub(super) struct Arena {
    chunks: Vec<Vec<u8>>,
    /// The first free slot of each length in units.
    free: Box<[Handle; UNITS_MAX + 1]>,
    /// Units of all free slots.
    free_units: usize,
    long: LongMembers,
    /// Bytes allocated by the chunks.
    chunk_bytes: usize,
    /// How far the last chunk is evacuated, in bytes.
    evacuated: usize,
    /// Evacuation starts when more units than this are free; raised when it did not succeed.
    evacuate_above: usize,
}

impl Arena {
    pub(super) fn new() -> Self {
        Arena {
            chunks: Vec::new(),
            free: Box::new([NONE; UNITS_MAX + 1]),
            free_units: 0,
            long: LongMembers::default(),
            chunk_bytes: 0,
            evacuated: 0,
            evacuate_above: 0,
        }
    }

    /// Bytes that it owns outside of itself.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.free)
            + self.chunk_bytes
            + self.chunks.capacity() * size_of::<Vec<u8>>()
            + self.long.heap_bytes()
    }

    /// A copy in which all handles are the same.
    pub(super) fn duplicate(&self) -> Arena {
        let mut copy = Arena { long: self.long.duplicate(), ..self.clone() };
        copy.chunk_bytes = copy.chunks.iter().map(Vec::capacity).sum();
        copy
    }

    #[inline]
    fn slot(&self, handle: Handle) -> &[u8] {
        &self.chunks[handle as usize >> CHUNK_BITS][offset(handle)..]
    }

    #[inline]
    fn slot_mut(&mut self, handle: Handle) -> &mut [u8] {
        &mut self.chunks[handle as usize >> CHUNK_BITS][offset(handle)..]
    }

    #[inline]
    pub(super) fn score(&self, handle: Handle) -> f64 {
        let slot = self.slot(handle);
        f64::from_le_bytes(slot[1..HEADER].try_into().expect("a slot is longer than its header"))
    }

    #[inline]
    pub(super) fn set_score(&mut self, handle: Handle, score: f64) {
        self.slot_mut(handle)[1..HEADER].copy_from_slice(&score.to_le_bytes());
    }

    #[inline]
    pub(super) fn member(&self, handle: Handle) -> &[u8] {
        let slot = self.slot(handle);
        match slot[0] {
            LONG => self.long.get(word(slot, HEADER)),
            len => &slot[HEADER..HEADER + len as usize],
        }
    }

    /// Fetches an element into the cache.
    #[inline]
    pub(super) fn prefetch(&self, handle: Handle) {
        let slot = self.slot(handle).as_ptr();
        prefetch(slot);
        // An element of usual length reaches into the next line from here.
        if slot.addr() % CACHE_LINE_LEN > CACHE_LINE_LEN / 2 {
            prefetch(slot.wrapping_add(CACHE_LINE_LEN));
        }
    }

    /// Adds an element.
    pub(super) fn add(&mut self, member: &[u8], score: f64) -> Handle {
        let is_long = member.len() > INLINE_LEN_MAX;
        let len = if is_long { size_of::<u32>() } else { member.len() };
        let handle = self.allocate((HEADER + len).div_ceil(UNIT));
        let long = if is_long { self.long.add(member) } else { 0 };
        let slot = self.slot_mut(handle);
        slot[1..HEADER].copy_from_slice(&score.to_le_bytes());
        if is_long {
            slot[0] = LONG;
            slot[HEADER..HEADER + len].copy_from_slice(&long.to_le_bytes());
        } else {
            slot[0] = len as u8;
            slot[HEADER..HEADER + len].copy_from_slice(member);
        }
        handle
    }

    /// Frees an element's slot.
    pub(super) fn remove(&mut self, handle: Handle) {
        let slot = self.slot(handle);
        if slot[0] == LONG {
            let long = word(slot, HEADER);
            self.long.remove(long);
        }
        let units = units_at(self.slot(handle));
        self.link(handle, units);
    }

    /// A slot of so many units, from a free list or from the end of the last chunk.
    fn allocate(&mut self, units: usize) -> Handle {
        let free = self.free[units];
        if free != NONE {
            self.unlink(free, units);
            return free;
        }
        let room = self.chunks.last().map_or(0, |chunk| CHUNK_BYTES - chunk.len());
        if room < units * UNIT {
            self.start_chunk();
        }
        let last = self.chunks.len() - 1;
        let grown = self.chunk_bytes / GROWTH_SHARE;
        let chunk = &mut self.chunks[last];
        let at = chunk.len();
        let end = at + units * UNIT;
        if end > chunk.capacity() {
            let grown = grown.clamp(GROWTH_MIN, CHUNK_BYTES).next_multiple_of(GROWTH_MIN);
            let before = chunk.capacity();
            chunk.reserve_exact((before + grown).min(CHUNK_BYTES) - at);
            self.chunk_bytes += chunk.capacity() - before;
        }
        chunk.resize(end, 0);
        (last << CHUNK_BITS | at / UNIT) as Handle
    }

    /// Starts a chunk, and leaves what is left of the last one to the free lists.
    fn start_chunk(&mut self) {
        assert!(self.chunks.len() < CHUNKS_MAX, "a sorted set's elements are beyond 16 GiB");
        if let Some(chunk) = self.chunks.last_mut() {
            let at = chunk.len();
            let units = (CHUNK_BYTES - at) / UNIT;
            if units > 0 {
                chunk.resize(CHUNK_BYTES, 0);
                let handle = ((self.chunks.len() - 1) << CHUNK_BITS | at / UNIT) as Handle;
                if units >= UNITS_MIN { self.link(handle, units) } else { self.fill(handle, units) }
            }
        }
        self.chunks.push(Vec::new());
        self.evacuated = 0;
    }

    /// Adds a slot to the free list of its length.
    fn link(&mut self, handle: Handle, units: usize) {
        let next = self.free[units];
        if next != NONE {
            set_word(self.slot_mut(next), 8, handle);
        }
        let slot = self.slot_mut(handle);
        (slot[0], slot[1]) = (FREE, units as u8);
        set_word(slot, 4, next);
        set_word(slot, 8, NONE);
        self.free[units] = handle;
        self.free_units += units;
    }

    /// Takes a slot out of its free list.
    fn unlink(&mut self, handle: Handle, units: usize) {
        let slot = self.slot(handle);
        let (next, previous) = (word(slot, 4), word(slot, 8));
        if next != NONE {
            set_word(self.slot_mut(next), 8, previous);
        }
        match previous {
            NONE => self.free[units] = next,
            previous => set_word(self.slot_mut(previous), 4, next),
        }
        self.free_units -= units;
    }

    fn fill(&mut self, handle: Handle, units: usize) {
        let slot = self.slot_mut(handle);
        (slot[0], slot[1]) = (FILLER, units as u8);
    }

    /// The next element that should be moved, so that the last chunk can be given back; `None` if there is nothing to
    /// do, or no longer.
    pub(super) fn next_to_move(&mut self) -> Option<Handle> {
        let last = self.chunks.len().checked_sub(1).filter(|&last| last > 0)?;
        let units = last * CHUNK_UNITS + self.chunks[last].len() / UNIT;
        if self.free_units * 2 <= units || self.free_units <= self.evacuate_above {
            return None;
        }
        while self.evacuated < self.chunks[last].len() {
            let handle = (last << CHUNK_BITS | self.evacuated / UNIT) as Handle;
            let slot = self.slot(handle);
            let units = units_at(slot);
            match slot[0] {
                FILLER => {}
                FREE => {
                    self.unlink(handle, units);
                    self.fill(handle, units);
                }
                _ => return Some(handle),
            }
            self.evacuated += units * UNIT;
        }
        self.chunk_bytes -= self.chunks[last].capacity();
        self.chunks.pop();
        self.evacuated = 0;
        self.evacuate_above = 0;
        None
    }

    /// Moves the element that [`Arena::next_to_move`] has returned. Returns its new handle, or `None` if there is no
    /// slot for it. The old handle stays valid until [`Arena::leave`] is called with it.
    pub(super) fn move_down(&mut self, handle: Handle) -> Option<Handle> {
        let units = units_at(self.slot(handle));
        let Some(to) = self.allocate_below(handle, units) else {
            self.evacuate_above = self.free_units + CHUNK_UNITS;
            self.evacuated = 0;
            return None;
        };
        let mut copy = [0; UNITS_MAX * UNIT];
        copy[..units * UNIT].copy_from_slice(&self.slot(handle)[..units * UNIT]);
        self.slot_mut(to)[..units * UNIT].copy_from_slice(&copy[..units * UNIT]);
        Some(to)
    }

    /// Gives up the slot that an element was moved out of.
    pub(super) fn leave(&mut self, handle: Handle) {
        let units = units_at(self.slot(handle));
        self.fill(handle, units);
        self.evacuated += units * UNIT;
    }

    /// A free slot of so many units, or a part of a longer one, that is not in the chunk of `handle`.
    fn allocate_below(&mut self, handle: Handle, units: usize) -> Option<Handle> {
        let chunk = handle >> CHUNK_BITS;
        for longer in units..=UNITS_MAX {
            if longer != units && longer < units + UNITS_MIN {
                continue;
            }
            while self.free[longer] != NONE {
                let free = self.free[longer];
                self.unlink(free, longer);
                if free >> CHUNK_BITS == chunk {
                    self.fill(free, longer);
                    continue;
                }
                if longer > units {
                    self.link(free + units as Handle, longer - units);
                }
                return Some(free);
            }
        }
        None
    }

    /// Frees the chunks one after the other, each for a cost of one. Returns whether nothing is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while *budget > 0
            && let Some(chunk) = self.chunks.pop()
        {
            self.chunk_bytes -= chunk.capacity();
            *budget -= 1;
        }
        self.chunks.is_empty() && self.long.free_some(budget)
    }

    /// How many steps of `free_some` it takes to free it, at most.
    pub(super) fn free_cost(&self) -> usize {
        self.chunks.len() + self.long.free_cost()
    }
}

#[inline]
fn offset(handle: Handle) -> usize {
    (handle as usize & (CHUNK_UNITS - 1)) * UNIT
}

fn units_at(slot: &[u8]) -> usize {
    match slot[0] {
        LONG => (HEADER + size_of::<u32>()).div_ceil(UNIT),
        FREE | FILLER => slot[1] as usize,
        len => (HEADER + len as usize).div_ceil(UNIT),
    }
}

fn word(slot: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(slot[at..at + 4].try_into().expect("of four bytes"))
}

fn set_word(slot: &mut [u8], at: usize, word: u32) {
    slot[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

#[cfg(test)]
impl Arena {
    /// Checks what is counted.
    pub(super) fn check(&self) {
        assert_eq!(self.chunk_bytes, self.chunks.iter().map(Vec::capacity).sum::<usize>());
        let mut free_units = 0;
        for units in UNITS_MIN..=UNITS_MAX {
            let mut handle = self.free[units];
            while handle != NONE {
                let slot = self.slot(handle);
                assert_eq!((slot[0], slot[1]), (FREE, units as u8));
                free_units += units;
                handle = word(slot, 4);
            }
        }
        assert_eq!(self.free_units, free_units);
    }
}
