//! Members that are too long for the arena: an allocation each, named by a number.

/// Members in a chunk of the table. The table grows by chunks, because to copy a table of millions would take too long.
const CHUNK_LEN: usize = 1 << 10;

#[derive(Clone)]
enum Slot {
    Used(Box<[u8]>),
    /// With the next unused slot.
    Unused(Option<u32>),
}

const _: () = assert!(size_of::<Slot>() <= 24);

#[derive(Clone, Default)]
pub(super) struct LongMembers {
    chunks: Vec<Vec<Slot>>,
    unused: Option<u32>,
    /// Bytes of the members and of the table's chunks.
    bytes: usize,
}

impl LongMembers {
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.chunks.capacity() * size_of::<Vec<Slot>>()
    }

    pub(super) fn duplicate(&self) -> LongMembers {
        let mut copy = self.clone();
        let slots: usize = copy.chunks.iter().map(Vec::capacity).sum();
        let used = copy.chunks.iter().flatten();
        let members: usize =
            used.map(|slot| if let Slot::Used(member) = slot { member.len() } else { 0 }).sum();
        copy.bytes = slots * size_of::<Slot>() + members;
        copy
    }

    pub(super) fn free_cost(&self) -> usize {
        self.chunks.len() * CHUNK_LEN
    }

    pub(super) fn get(&self, number: u32) -> &[u8] {
        match &self.chunks[number as usize / CHUNK_LEN][number as usize % CHUNK_LEN] {
            Slot::Used(member) => member,
            Slot::Unused(_) => unreachable!("an element names a member that exists"),
        }
    }

    pub(super) fn add(&mut self, member: &[u8]) -> u32 {
        self.bytes += member.len();
        if let Some(number) = self.unused {
            let slot = &mut self.chunks[number as usize / CHUNK_LEN][number as usize % CHUNK_LEN];
            if let Slot::Unused(next) = slot {
                self.unused = *next;
            }
            *slot = Slot::Used(member.into());
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::new());
        }
        let chunk = self.chunks.len() - 1;
        let slots = &mut self.chunks[chunk];
        let before = slots.capacity();
        slots.push(Slot::Used(member.into()));
        self.bytes += (slots.capacity() - before) * size_of::<Slot>();
        (chunk * CHUNK_LEN + slots.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, number: u32) {
        let slot = &mut self.chunks[number as usize / CHUNK_LEN][number as usize % CHUNK_LEN];
        if let Slot::Used(member) = slot {
            self.bytes -= member.len();
        }
        *slot = Slot::Unused(self.unused.replace(number));
    }

    /// Frees members from the end, each for a cost of one. Returns whether nothing is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while let Some(chunk) = self.chunks.last_mut() {
            let left = chunk.len().saturating_sub(*budget);
            *budget -= chunk.len() - left;
            chunk.truncate(left);
            if left > 0 {
                return false;
            }
            self.chunks.pop();
        }
        self.bytes = 0;
        true
    }
}
