//! Builds collections of their elements: packed up to the limits, and big ones beyond.

use super::packed::has_duplicates;
use super::value::{Limits, PackedLimits};
use crate::types::hash::BigHash;
use crate::types::listpack::{self, Digits, Item, Listpack, ListpackMut};
use crate::types::{Object, OwnedValue, PackedKind, zset};
use smallvec::SmallVec;
use std::ops::Range;

/// Collections whose elements have more bytes are not packed, whatever the limits say.
const PACKED_BYTES_MAX: usize = listpack::LEN_BYTES_MAX / 4;

/// A hash.
pub enum HashBuilder {
    Few { bytes: Vec<u8>, limits: PackedLimits },
    Many(BigHash),
}

impl HashBuilder {
    /// Of `count` fields that are to come.
    pub fn new(limits: &Limits, count: usize) -> HashBuilder {
        if count as u64 > limits.hash.entries {
            HashBuilder::Many(BigHash::default())
        } else {
            HashBuilder::Few { bytes: listpack::EMPTY.to_vec(), limits: limits.hash }
        }
    }

    /// Adds a field. Returns false if it is known to be there already.
    pub fn add(&mut self, field: &[u8], value: &[u8]) -> bool {
        match self {
            HashBuilder::Many(hash) => hash.set(field, value),
            HashBuilder::Few { bytes, limits } => {
                let len_bytes = field.len() + value.len();
                let is_small = field.len().max(value.len()) as u64 <= limits.value_bytes
                    && bytes.len() + len_bytes <= PACKED_BYTES_MAX;
                if is_small {
                    ListpackMut::new(bytes).append_many([field, value].into_iter());
                    return true;
                }
                let mut hash = BigHash::default();
                let (mut digits, mut value_digits) = (Digits::new(), Digits::new());
                let mut items = Listpack::new(bytes).iter().map(|(_, item)| item);
                while let (Some(field), Some(value)) = (items.next(), items.next()) {
                    if !hash.set(field.bytes(&mut digits), value.bytes(&mut value_digits)) {
                        return false;
                    }
                }
                let is_new = hash.set(field, value);
                *self = HashBuilder::Many(hash);
                is_new
            }
        }
    }

    /// `None`: there is a field twice.
    pub fn finish(self) -> Option<OwnedValue> {
        match self {
            HashBuilder::Many(hash) => Some(OwnedValue::Object(Box::new(Object::Hash(hash)))),
            HashBuilder::Few { bytes, .. } => {
                let is_sound = !has_duplicates(Listpack::new(&bytes), 2);
                is_sound.then_some(OwnedValue::Packed(PackedKind::Hash, bytes))
            }
        }
    }
}

/// A sorted set. Small ones are put in order at the end, as elements come in any order.
pub struct ZSetBuilder {
    limits: PackedLimits,
    /// All elements, or those that are not in `many` yet.
    few: Few,
    many: Option<zset::Builder>,
}

/// So many elements of a big sorted set are added together.
const ADDED_TOGETHER: usize = 16;

/// Elements of a sorted set, in the order in which they came.
#[derive(Default)]
struct Few {
    members: Vec<u8>,
    elements: Vec<(f64, Range<usize>)>,
}

impl Few {
    fn iter(&self) -> impl Iterator<Item = (f64, &[u8])> {
        self.elements.iter().map(|(score, member)| (*score, &self.members[member.clone()]))
    }
}

impl ZSetBuilder {
    /// Of `count` members that are to come.
    pub fn new(limits: &Limits, count: usize) -> ZSetBuilder {
        let many = (count as u64 > limits.zset.entries).then(zset::Builder::new);
        ZSetBuilder { limits: limits.zset, few: Few::default(), many }
    }

    /// Adds a member. Returns false if one is known to be there twice.
    pub fn add(&mut self, member: &[u8], score: f64) -> bool {
        let start = self.few.members.len();
        let is_small =
            member.len() as u64 <= self.limits.value_bytes && start + member.len() <= PACKED_BYTES_MAX;
        if self.many.is_none() && !is_small {
            self.many = Some(zset::Builder::new());
        }
        self.few.members.extend_from_slice(member);
        self.few.elements.push((score, start..self.few.members.len()));
        self.many.is_none() || self.few.elements.len() < ADDED_TOGETHER || self.add_to_many()
    }

    /// Moves the elements to `many`, if there is one. Returns false if a member is there twice.
    fn add_to_many(&mut self) -> bool {
        let Some(many) = &mut self.many else { return true };
        let are_new = self.few.elements.chunks(ADDED_TOGETHER).all(|elements| {
            let elements = elements.iter().map(|(score, member)| (&self.few.members[member.clone()], *score));
            many.add_new(&elements.collect::<SmallVec<[_; ADDED_TOGETHER]>>())
        });
        self.few.members.clear();
        self.few.elements.clear();
        are_new
    }

    /// `None`: there is a member twice.
    pub fn finish(mut self) -> Option<OwnedValue> {
        if !self.add_to_many() {
            return None;
        }
        if let Some(many) = self.many {
            return Some(OwnedValue::Object(Box::new(Object::ZSet(many.finish()))));
        }
        let mut elements: Vec<(f64, &[u8])> = self.few.iter().collect();
        elements.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        let mut bytes = listpack::EMPTY.to_vec();
        for (score, member) in elements {
            zset::packed::PackedMut::new(&mut bytes).push(Item::of(member), score);
        }
        let is_sound = !has_duplicates(Listpack::new(&bytes), 2);
        is_sound.then_some(OwnedValue::Packed(PackedKind::ZSet, bytes))
    }
}
