//! The order of a sorted set, and places in it.

use super::arena::{Arena, Handle};

/// A score as a number in the order of the scores. Both zeros are the same score.
#[inline]
pub(super) fn order_key(score: f64) -> u64 {
    const SIGN: u64 = 1 << 63;
    // Minus zero and zero make zero.
    let bits = (score + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// A place between two elements: some lie before it.
#[derive(Clone, Copy)]
pub(super) enum Bound<'a> {
    /// Behind the elements of lower scores, and behind those of this one if `with` it.
    Score { key: u64, with: bool },
    /// Behind the elements up to this one, which is there or not.
    Element { key: u64, member: &'a [u8] },
    /// Behind the members that are less, and behind this one if `with` it. All scores are the same.
    Member { member: &'a [u8], with: bool },
}

impl Bound<'_> {
    /// Whether an element of the same score lies before it.
    #[inline]
    pub(super) fn is_behind_equal(&self, handle: Handle, arena: &Arena) -> bool {
        match *self {
            Bound::Score { with, .. } => with,
            Bound::Element { member, .. } => arena.member(handle) <= member,
            Bound::Member { .. } => self.is_behind_member(handle, arena),
        }
    }

    #[inline]
    pub(super) fn is_behind_member(&self, handle: Handle, arena: &Arena) -> bool {
        match *self {
            Bound::Member { member, with: true } | Bound::Element { member, .. } => {
                arena.member(handle) <= member
            }
            Bound::Member { member, with: false } => arena.member(handle) < member,
            Bound::Score { .. } => unreachable!("a score's bound is found by the score"),
        }
    }

    /// The score, unless members alone decide.
    #[inline]
    pub(super) fn key(&self) -> Option<u64> {
        match *self {
            Bound::Score { key, .. } | Bound::Element { key, .. } => Some(key),
            Bound::Member { .. } => None,
        }
    }
}
