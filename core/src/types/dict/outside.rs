//! The elements of a dict that are too long for its pages: an allocation each, found by a number.
//!
//! Numbers are given out in order; those of removed elements are given out again first. A chunk of [`CHUNK_LEN`]
//! elements never moves, so that adding one does not copy all the others.

use super::page::size_class;

const CHUNK_BITS: u32 = 8;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;

/// Bytes of an allocation that cost as much to free as one element.
const BYTES_PER_COST: usize = 4 << 10;

#[derive(Clone)]
enum Slot {
    Used(Box<[u8]>),
    /// The next number in the list of free ones.
    Free(Option<u32>),
}

const _: () = assert!(size_of::<Slot>() == 16);

#[derive(Clone, Default)]
pub(super) struct Outside {
    chunks: Vec<Vec<Slot>>,
    free: Option<u32>,
    /// Bytes of the elements' allocations.
    used_bytes: usize,
    len: usize,
}

impl Outside {
    pub(super) fn heap_bytes(&self) -> usize {
        let chunks = self.chunks.len().saturating_sub(1) * CHUNK_LEN;
        let last = self.chunks.last().map_or(0, Vec::capacity);
        self.used_bytes
            + (chunks + last) * size_of::<Slot>()
            + self.chunks.capacity() * size_of::<Vec<Slot>>()
    }

    /// What it costs to free them all.
    pub(super) fn free_cost(&self) -> usize {
        let chunks = self.chunks.len().saturating_sub(1) * CHUNK_LEN;
        chunks + self.chunks.last().map_or(0, Vec::len) + self.used_bytes / BYTES_PER_COST
    }

    fn slot_mut(&mut self, number: u32) -> &mut Slot {
        &mut self.chunks[(number >> CHUNK_BITS) as usize][number as usize % CHUNK_LEN]
    }

    pub(super) fn get(&self, number: u32) -> &[u8] {
        match &self.chunks[(number >> CHUNK_BITS) as usize][number as usize % CHUNK_LEN] {
            Slot::Used(bytes) => bytes,
            Slot::Free(_) => unreachable!("a page has the numbers of elements that are there"),
        }
    }

    /// Adds an element and returns its number.
    pub(super) fn add(&mut self, bytes: Box<[u8]>) -> u32 {
        self.used_bytes += size_class(bytes.len());
        self.len += 1;
        if let Some(number) = self.free {
            let slot = self.slot_mut(number);
            let Slot::Free(next) = *slot else { unreachable!("the list has only free numbers") };
            *slot = Slot::Used(bytes);
            self.free = next;
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::new());
        }
        let before = self.chunks.len() - 1;
        let chunk = &mut self.chunks[before];
        chunk.push(Slot::Used(bytes));
        u32::try_from(before * CHUNK_LEN + chunk.len() - 1).expect("longer elements than memory can hold")
    }

    pub(super) fn replace(&mut self, number: u32, bytes: Box<[u8]>) {
        self.used_bytes += size_class(bytes.len());
        let before = std::mem::replace(self.slot_mut(number), Slot::Used(bytes));
        if let Slot::Used(before) = before {
            self.used_bytes -= size_class(before.len());
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        let next = self.free;
        let before = std::mem::replace(self.slot_mut(number), Slot::Free(next));
        if let Slot::Used(before) = before {
            self.used_bytes -= size_class(before.len());
        }
        self.free = Some(number);
        self.len -= 1;
        if self.len == 0 {
            *self = Outside::default();
        }
    }

    /// Frees elements, or a part of one, that cost no more than `budget`. Returns whether nothing is left. Nothing else
    /// can be done with what is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while let Some(chunk) = self.chunks.last_mut() {
            let Some(slot) = chunk.last_mut() else {
                self.chunks.pop();
                continue;
            };
            if *budget == 0 {
                return false;
            }
            if let Slot::Used(bytes) = slot {
                let cost = 1 + bytes.len() / BYTES_PER_COST;
                let before = size_class(bytes.len());
                if cost > *budget {
                    // The allocator frees the end of a big allocation without moving its beginning.
                    let mut rest = std::mem::take(bytes).into_vec();
                    rest.truncate(rest.len() - *budget * BYTES_PER_COST);
                    *bytes = rest.into_boxed_slice();
                    self.used_bytes -= before - size_class(bytes.len());
                    *budget = 0;
                    return false;
                }
                *budget -= cost;
                self.used_bytes -= before;
            } else {
                *budget -= 1;
            }
            chunk.pop();
        }
        true
    }
}
