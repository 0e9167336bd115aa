//! A sorted set that is being changed, whether it is small or big.

use super::packed::{self, Packed};
use super::{ZSet, ZSetView};
use crate::types::entry::{NewValue, PackedKind, ValueRef};
use crate::types::listpack::{self, Item};
use crate::types::object::{Collection, Object};
use crate::types::value_mut::{ObjectMut, ValueMut};
use std::ops::Range;

/// What a small set may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZSetLimits {
    /// Elements.
    pub len_max: u64,
    /// Bytes of a member.
    pub member_len_max: u64,
}

impl ZSetLimits {
    /// Bytes of a listpack that leave room for a score.
    const BYTES_MAX: usize = listpack::LEN_BYTES_MAX - (1 << 10);

    /// Whether a small set may get one more member.
    #[inline]
    fn admit(&self, packed: Packed<'_>, member: &[u8]) -> bool {
        (packed.len() as u64) < self.len_max
            && member.len() as u64 <= self.member_len_max
            && packed.as_bytes().len() + member.len() <= Self::BYTES_MAX
    }

    /// Whether a set may be small.
    fn admit_all(&self, set: &ZSet) -> bool {
        let mut bytes = 0;
        set.len() as u64 <= self.len_max
            && set.iter(0..set.len()).all(|(member, _)| {
                bytes += member.len();
                member.len() as u64 <= self.member_len_max && bytes <= Self::BYTES_MAX
            })
    }
}

/// What became of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Added,
    Changed,
    Unchanged,
    /// It was decided not to set the score.
    Skipped,
}

impl Outcome {
    fn of(old: Option<f64>, new: Option<f64>) -> Outcome {
        match (old, new) {
            (_, None) => Outcome::Skipped,
            (None, Some(_)) => Outcome::Added,
            (Some(old), Some(new)) if old == new => Outcome::Unchanged,
            (Some(_), Some(_)) => Outcome::Changed,
        }
    }
}

/// A sorted set that is being changed.
pub struct ZSetMut<'v, 'b, 'a> {
    value: &'v mut ValueMut<'b, 'a>,
}

impl<'v, 'b, 'a> ZSetMut<'v, 'b, 'a> {
    /// The value is a sorted set.
    #[inline]
    pub fn new(value: &'v mut ValueMut<'b, 'a>) -> ZSetMut<'v, 'b, 'a> {
        debug_assert!(ZSetView::of(value.value()).is_some(), "the caller has seen a sorted set");
        ZSetMut { value }
    }

    /// The set to read.
    #[inline]
    pub fn get(&self) -> ZSetView<'_> {
        ZSetView::of(self.value.value()).expect("it stays a sorted set")
    }

    /// Sets the score of a member. `decide` gets the present score, if the member is there, and returns the new one, or
    /// `None` to leave everything as it is.
    #[inline]
    pub fn update(
        &mut self,
        member: &[u8],
        limits: ZSetLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Outcome {
        let ValueRef::Packed(_, bytes) = self.value.value() else {
            let mut object = self.value.object();
            let set = big_mut(&mut object);
            let spot = set.find(member);
            let old = set.score_at(spot);
            let new = decide(old);
            let outcome = Outcome::of(old, new);
            if let (Outcome::Added | Outcome::Changed, Some(score)) = (outcome, new) {
                set.set(spot, member, score);
            }
            return outcome;
        };
        let packed = Packed::new(bytes);
        let pos = packed.find(member);
        let old = pos.map(|pos| packed.score_at(pos));
        let new = decide(old);
        let outcome = Outcome::of(old, new);
        match (outcome, pos, new) {
            (Outcome::Changed, Some(pos), Some(score)) => {
                packed::PackedMut::new(&mut self.value.packed()).set_score(pos, member, score);
            }
            (Outcome::Added, None, Some(score)) if limits.admit(packed, member) => {
                packed::PackedMut::new(&mut self.value.packed()).insert(member, score);
            }
            (Outcome::Added, None, Some(score)) => {
                let mut set = ZSetView::Packed(packed).to_big();
                set.insert(member, score);
                self.value.set(NewValue::Object(Box::new(Object::ZSet(set))));
            }
            _ => {}
        }
        outcome
    }

    /// Removes a member. Returns whether it was there.
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self.get() {
            ZSetView::Packed(packed) => {
                let pos = packed.find(member);
                if let Some(pos) = pos {
                    packed::PackedMut::new(&mut self.value.packed()).remove(pos);
                }
                pos.is_some()
            }
            ZSetView::Big(_) => big_mut(&mut self.value.object()).remove(member).is_some(),
        }
    }

    /// Removes the elements of some ranks, which exist. `removed` gets them before they go, in order or, if `reverse`,
    /// from the last one on.
    pub fn remove_ranks(
        &mut self,
        ranks: Range<usize>,
        reverse: bool,
        mut removed: impl FnMut(Item<'_>, f64),
    ) {
        match self.get() {
            packed @ ZSetView::Packed(_) => {
                packed.for_each(ranks.clone(), reverse, removed);
                packed::PackedMut::new(&mut self.value.packed()).remove_ranks(ranks);
            }
            ZSetView::Big(_) => {
                let mut object = self.value.object();
                let set = big_mut(&mut object);
                for done in 0..ranks.len() {
                    let rank = if reverse { ranks.end - 1 - done } else { ranks.start };
                    set.remove_rank(rank, |member, score| removed(Item::Str(member), score));
                }
            }
        }
    }
}

fn big_mut<'o>(object: &'o mut ObjectMut<'_>) -> &'o mut ZSet {
    match &mut **object {
        Object::ZSet(set) => set,
        _ => unreachable!("the caller has seen a sorted set"),
    }
}

/// A set that is to be stored, in the form that the limits give it.
pub fn into_value(set: ZSet, limits: ZSetLimits) -> NewValue<'static> {
    if limits.admit_all(&set) {
        return NewValue::OwnedPacked(PackedKind::ZSet, ZSetView::Big(&set).to_packed());
    }
    NewValue::Object(Box::new(Object::ZSet(set)))
}
