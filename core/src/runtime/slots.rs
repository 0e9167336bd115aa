//! A slab whose entries are named by index and generation.
//!
//! The index is dense (freed places are taken again, the last freed first), so that code which keeps something beside a
//! connection can keep it in a plain vector. The generation counts how often a place was emptied: a name that
//! outlived its entry finds nothing, never the successor.

/// A place in [`Slots`], with the generation its entry had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotName {
    pub(super) index: u32,
    pub(super) generation: u32,
}

struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

/// Indices must fit a token of the kernel interfaces, see `driver::Token`.
pub(super) const SLOTS_MAX: usize = 1 << 28;

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    /// Places an entry. Panics at `SLOTS_MAX` entries, far past any limit on open files.
    pub(super) fn insert(&mut self, entry: T) -> SlotName {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            debug_assert!(slot.entry.is_none());
            slot.entry = Some(entry);
            return SlotName { index, generation: slot.generation };
        }
        assert!(self.slots.len() < SLOTS_MAX, "more than {SLOTS_MAX} connections in one shard");
        let index = self.slots.len() as u32;
        self.slots.push(Slot { generation: 0, entry: Some(entry) });
        SlotName { index, generation: 0 }
    }

    #[inline]
    pub(super) fn get(&self, name: SlotName) -> Option<&T> {
        let slot = self.slots.get(name.index as usize)?;
        if slot.generation == name.generation { slot.entry.as_ref() } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: SlotName) -> Option<&mut T> {
        let slot = self.slots.get_mut(name.index as usize)?;
        if slot.generation == name.generation { slot.entry.as_mut() } else { None }
    }

    /// Takes the entry out and makes its name stale.
    pub(super) fn remove(&mut self, name: SlotName) -> Option<T> {
        let slot = self.slots.get_mut(name.index as usize)?;
        if slot.generation != name.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(name.index);
        Some(entry)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The names of all entries, in index order.
    pub(super) fn names(&self) -> Vec<SlotName> {
        let named = self.slots.iter().enumerate().filter(|(_, slot)| slot.entry.is_some());
        named.map(|(index, slot)| SlotName { index: index as u32, generation: slot.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_never_finds_the_successor() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");

        assert_eq!(second.index, first.index, "the freed place is taken again");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn indices_stay_dense() {
        let mut slots = Slots::new();
        let names: Vec<_> = (0..10).map(|n| slots.insert(n)).collect();
        slots.remove(names[3]);
        slots.remove(names[7]);
        assert_eq!(slots.len(), 8);
        let again = [slots.insert(70).index, slots.insert(30).index];
        assert_eq!(again, [7, 3]);
        assert_eq!(slots.insert(10).index, 10);
        assert_eq!(slots.names().len(), 11);
    }
}
