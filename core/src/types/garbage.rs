//! Garbage: removed values whose memory is freed in slices.
//!
//! To free a hash of a million fields, or a string of 512 MiB, takes longer than clients should be kept waiting. So a
//! value whose cost is above `FREE_AT_ONCE_MAX` is added to its table's garbage, whether DEL, an overwrite or an expiry
//! removed it, and the shard frees a slice of the garbage each turn. Cheaper values are freed at once. (Measured: 512
//! MiB take 115 ms at once, and 0.27 ms per MiB in slices. The allocator moved nothing.)
//!
//! Clients that overwrite big values could produce garbage faster than it is freed. So above [`PENDING_COST_MAX`], each
//! removal that adds garbage frees about as much as it adds, but for no longer than a few milliseconds. Eviction is
//! exempt: it frees garbage in slices of its own when there is much of it.

use super::entry::OwnedValue;
use super::object::{Collection, Object};
use std::collections::VecDeque;

/// Values up to this cost are freed at once. In units of [`OwnedValue::free_cost`].
pub(super) const FREE_AT_ONCE_MAX: usize = 64;

/// Bytes of an allocation that cost as much to free as one element: a page.
pub(super) const BYTES_PER_COST: usize = 4 << 10;

/// What an element of a module's value takes, about.
const BYTES_PER_ELEMENT: usize = 64;

/// Above this much garbage, adding to it frees some: 256 MiB of strings.
const PENDING_COST_MAX: usize = 1 << 16;
/// The most that one such addition frees: 16 MiB of strings.
const PAID_COST_MAX: usize = 1 << 12;

impl OwnedValue {
    /// How much work it is to free the value: 1 for each element, and for each page of a string.
    pub(super) fn free_cost(&self) -> usize {
        match self {
            OwnedValue::Int(_) => 1,
            OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) | OwnedValue::Packed(_, bytes) => {
                1 + bytes.capacity() / BYTES_PER_COST
            }
            OwnedValue::Object(object) => 1 + object.free_cost(),
        }
    }

    /// The bytes that freeing it sets free, about.
    fn held_bytes(&self) -> usize {
        match self {
            OwnedValue::Int(_) => 0,
            OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) | OwnedValue::Packed(_, bytes) => {
                bytes.capacity()
            }
            OwnedValue::Object(object) => match **object {
                // What a module has allocated is known to the module.
                Object::Module(ref module) => module.free_cost() * BYTES_PER_ELEMENT,
                ref collection => collection.heap_bytes(),
            },
        }
    }

    /// Frees a part of the value that costs no more than `budget`, and subtracts its cost. Returns whether nothing is
    /// left. The value can only be freed further after this.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        let cost = self.free_cost();
        if cost <= *budget {
            *budget -= cost;
            *self = OwnedValue::Int(0);
            return true;
        }
        match self {
            OwnedValue::Int(_) => {}
            OwnedValue::Object(object) => {
                object.free_some(budget);
            }
            OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) | OwnedValue::Packed(_, bytes) => {
                // The allocator frees the end of a big allocation without moving its beginning.
                bytes.clear();
                bytes.shrink_to(bytes.capacity() - *budget * BYTES_PER_COST);
            }
        }
        *budget = 0;
        false
    }
}

/// A removed value that is not completely freed yet.
struct Discarded {
    value: OwnedValue,
    /// The cost of freeing the rest of it.
    cost: usize,
    /// What the rest holds. A collection that is being freed does not know, so that it is taken to be a part of the bytes as
    /// big as that of the cost.
    bytes: usize,
}

impl Discarded {
    fn new(value: OwnedValue) -> Discarded {
        Discarded { cost: value.free_cost(), bytes: value.held_bytes(), value }
    }

    /// See [`OwnedValue::free_some`].
    fn free_some(&mut self, budget: &mut usize) -> bool {
        if self.value.free_some(budget) {
            (self.cost, self.bytes) = (0, 0);
            return true;
        }
        let cost_left = self.value.free_cost().min(self.cost);
        let bytes_left = self.bytes as u128 * cost_left as u128 / self.cost.max(1) as u128;
        (self.cost, self.bytes) = (cost_left, bytes_left as usize);
        false
    }
}

/// Removed values that are not freed yet.
#[derive(Default)]
pub(super) struct Garbage {
    values: VecDeque<Discarded>,
    /// The cost of freeing them all.
    cost: usize,
    /// What they hold.
    bytes: usize,
    /// Whether no addition frees anything, however much there is.
    defers_all: bool,
}

impl Garbage {
    pub(super) const fn new() -> Self {
        Self { values: VecDeque::new(), cost: 0, bytes: 0, defers_all: false }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether from now on no addition frees anything, however much there is.
    pub(super) fn set_defers_all(&mut self, defers_all: bool) {
        self.defers_all = defers_all;
    }

    /// Frees a value, now or later.
    pub(super) fn discard(&mut self, value: OwnedValue) {
        let cost = value.free_cost();
        if cost <= FREE_AT_ONCE_MAX {
            return;
        }
        let discarded = Discarded::new(value);
        self.bytes += discarded.bytes;
        self.cost += cost;
        self.values.push_back(discarded);
        if self.cost > PENDING_COST_MAX && !self.defers_all {
            self.free_some(&mut cost.min(PAID_COST_MAX));
        }
    }

    /// Frees values, or parts of them, that cost no more than `budget`, and subtracts their cost. Returns whether
    /// nothing is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while *budget > 0
            && let Some(first) = self.values.front_mut()
        {
            let (cost, bytes) = (first.cost, first.bytes);
            let is_freed = first.free_some(budget);
            self.cost -= cost - first.cost;
            self.bytes -= bytes - first.bytes;
            if is_freed {
                self.values.pop_front();
            }
        }
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::BigHash;

    #[test]
    fn a_big_value_is_freed_by_its_budget_and_a_small_one_at_once() {
        let mut garbage = Garbage::new();
        garbage.discard(OwnedValue::Str(vec![0; 64 * BYTES_PER_COST - 1]));
        garbage.discard(OwnedValue::Int(1));
        assert_eq!(garbage.len(), 0);
        garbage.discard(OwnedValue::Raw(vec![0; 640 * BYTES_PER_COST]));
        garbage.discard(OwnedValue::Str(vec![0; 64 * BYTES_PER_COST]));
        assert_eq!(garbage.len(), 2);
        let mut slices = 0;
        loop {
            let mut budget = 100;
            let done = garbage.free_some(&mut budget);
            slices += 1;
            assert!(done || budget == 0);
            if done {
                break;
            }
        }
        // The two values cost 641 and 65.
        assert_eq!((slices, garbage.len(), garbage.cost, garbage.bytes()), (8, 0, 0, 0));
    }

    /// An element of a hash takes far less than its page, by which the cost goes: eviction that counted the pages as elements
    /// saw little room come of a big hash, and removed other keys for want of it.
    #[test]
    fn a_collection_counts_with_all_its_memory_and_less_as_it_is_freed() {
        let mut hash = BigHash::default();
        for number in 0..if cfg!(miri) { 2000 } else { 20_000 } {
            hash.set(format!("field:{number}").as_bytes(), b"a value of some length");
        }
        let object = Object::Hash(hash);
        let heap_bytes = object.heap_bytes();
        let mut garbage = Garbage::new();
        garbage.discard(OwnedValue::Object(Box::new(object)));
        assert_eq!(garbage.bytes(), heap_bytes);
        let mut before = heap_bytes;
        while !garbage.free_some(&mut 100) {
            assert!(garbage.bytes() < before, "{} after {before}", garbage.bytes());
            before = garbage.bytes();
        }
        assert_eq!((garbage.bytes(), garbage.cost), (0, 0));
    }

    #[test]
    fn while_all_is_deferred_an_addition_frees_nothing() {
        const COST: usize = PENDING_COST_MAX / 2;
        let mut garbage = Garbage::new();
        let big = || OwnedValue::Str(Vec::with_capacity((COST - 1) * BYTES_PER_COST));
        garbage.set_defers_all(true);
        (0..4).for_each(|_| garbage.discard(big()));
        assert_eq!(garbage.cost, 4 * COST);
        garbage.set_defers_all(false);
        garbage.discard(big());
        assert!(garbage.cost < 5 * COST);
    }

    #[test]
    fn a_removal_that_adds_to_too_much_garbage_frees_as_much() {
        const COST: usize = 300;
        let mut garbage = Garbage::new();
        for _ in 0..PENDING_COST_MAX / COST * 2 {
            garbage.discard(OwnedValue::Str(Vec::with_capacity((COST - 1) * BYTES_PER_COST)));
            assert!(garbage.cost <= PENDING_COST_MAX + COST, "{}", garbage.cost);
        }
        assert!(garbage.cost > PENDING_COST_MAX - COST, "{}", garbage.cost);
    }
}
