//! Hash: fields with values.
//!
//! A small hash is *packed*: a listpack in its entry, each field followed by its value (Redis' layout, and its thresholds
//! [`HashLimits`]). A bigger one is a [`BigHash`], a [`DictMap`], and stays one when it shrinks.
//!
//! A value is given out as an [`Item`]: that of a big hash is always a string, also if it is the digits of an integer.

use super::below;
use super::dict::{self, DictMap, Place};
use super::entry::{Encoding, NewValue, PackedKind, ValueRef};
use super::listpack::{Digits, Item, LEN_BYTES_MAX, Listpack, ListpackMut};
use super::object::{Collection, Object};
use super::value_mut::ValueMut;
use std::collections::HashSet;

/// Up to which size a hash is packed.
#[derive(Clone, Copy, Debug)]
pub struct HashLimits {
    /// Most fields.
    pub len: usize,
    /// Longest field or value.
    pub string_len_bytes: usize,
}

/// A big hash.
#[derive(Clone, Default)]
pub struct BigHash {
    fields: DictMap,
}

impl BigHash {
    /// Sets a field. Returns whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.fields.set(field, value)
    }

    #[inline]
    pub(super) fn fetch(&self, field: &[u8]) -> dict::Fetch<'_, true> {
        dict::Fetch::new(&self.fields, field)
    }

    pub(super) fn fields_mut(&mut self) -> &mut DictMap {
        &mut self.fields
    }

    pub(super) fn fields(&self) -> &DictMap {
        &self.fields
    }

    fn from_packed(packed: Listpack<'_>) -> BigHash {
        let mut hash = BigHash::default();
        let (mut field_digits, mut value_digits) = (Digits::new(), Digits::new());
        for_each_packed(packed, |field, value| {
            hash.set(field.bytes(&mut field_digits), value.bytes(&mut value_digits));
        });
        hash
    }
}

impl Collection for BigHash {
    fn len(&self) -> usize {
        self.fields.len()
    }

    fn heap_bytes(&self) -> usize {
        self.fields.heap_bytes()
    }

    fn free_cost(&self) -> usize {
        self.fields.free_cost()
    }

    fn free_some(&mut self, budget: &mut usize) -> bool {
        self.fields.free_some(budget)
    }

    fn duplicate(&self) -> BigHash {
        self.clone()
    }

    fn encoding(&self) -> Encoding {
        Encoding::Hashtable
    }
}

/// A hash to read.
#[derive(Clone, Copy)]
pub enum HashRef<'a> {
    Packed(Listpack<'a>),
    Big(&'a BigHash),
}

/// What a visitor of a hash gets: a field and its value.
pub type Visit<'v> = &'v mut dyn FnMut(Item<'_>, Item<'_>);

impl<'a> HashRef<'a> {
    /// `None`: the value is no hash.
    #[inline]
    pub fn of(value: ValueRef<'a>) -> Option<HashRef<'a>> {
        match value {
            ValueRef::Packed(PackedKind::Hash, bytes) => Some(HashRef::Packed(Listpack::new(bytes))),
            ValueRef::Object(Object::Hash(hash)) => Some(HashRef::Big(hash)),
            ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => None,
        }
    }

    /// How many fields it has.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            HashRef::Packed(packed) => packed.len() / 2,
            HashRef::Big(hash) => hash.len(),
        }
    }

    /// The value of a field.
    #[inline]
    pub fn get(self, field: &[u8]) -> Option<Item<'a>> {
        match self {
            HashRef::Packed(packed) => {
                let value = packed.next(packed.find(field, packed.first()?, 1)?)?;
                Some(packed.at(value))
            }
            HashRef::Big(hash) => hash.fields.get(field).map(Item::Str),
        }
    }

    /// Visits all fields.
    #[inline]
    pub fn for_each(self, mut visit: impl FnMut(Item<'a>, Item<'a>)) {
        match self {
            HashRef::Packed(packed) => for_each_packed(packed, visit),
            HashRef::Big(hash) => {
                hash.fields.iter().for_each(|(field, value)| visit(Item::Str(field), Item::Str(value)));
            }
        }
    }

    /// Visits some fields, and returns the cursor at which the next call continues; 0 is both the beginning and the end.
    /// Any number is a valid cursor. See [`DictMap::scan`]; a packed hash is visited as a whole.
    pub fn scan(self, cursor: u64, visit: Visit<'_>) -> u64 {
        match self {
            HashRef::Packed(packed) => {
                for_each_packed(packed, visit);
                0
            }
            HashRef::Big(hash) => {
                hash.fields.scan(cursor, &mut |field, value| visit(Item::Str(field), Item::Str(value)))
            }
        }
    }

    /// Visits `count` random fields, each time any with equal probability. The hash is not empty.
    pub fn draw(self, count: usize, random: &mut dyn FnMut() -> u64, visit: Visit<'_>) {
        match self {
            HashRef::Packed(packed) => {
                let positions: Vec<usize> = packed.iter().step_by(2).map(|(pos, _)| pos).collect();
                for _ in 0..count {
                    let pos = positions[below(positions.len(), random())];
                    visit_at(packed, pos, visit);
                }
            }
            HashRef::Big(hash) => {
                for _ in 0..count {
                    let Some(place) = hash.fields.random(random) else { return };
                    let (field, value) = hash.fields.at(place);
                    visit(Item::Str(field), Item::Str(value));
                }
            }
        }
    }

    /// Visits `count` different fields, or all if there are no more, each such choice with equal probability, in no
    /// particular order.
    pub fn sample(self, count: usize, random: &mut dyn FnMut() -> u64, visit: Visit<'_>) {
        // To walk over all fields costs less than to draw again and again what was drawn already.
        const WALK_FROM: usize = 3;
        match self {
            HashRef::Big(hash) if count < hash.len() / WALK_FROM => {
                let mut seen: HashSet<Place> = HashSet::with_capacity(count);
                while seen.len() < count
                    && let Some(place) = hash.fields.random(random)
                {
                    if seen.insert(place) {
                        let (field, value) = hash.fields.at(place);
                        visit(Item::Str(field), Item::Str(value));
                    }
                }
            }
            HashRef::Big(_) | HashRef::Packed(_) => {
                let (mut wanted, mut left) = (count, self.len());
                self.for_each(|field, value| {
                    if below(left, random()) < wanted {
                        wanted -= 1;
                        visit(field, value);
                    }
                    left -= 1;
                });
            }
        }
    }
}

#[inline]
fn for_each_packed<'a>(packed: Listpack<'a>, mut visit: impl FnMut(Item<'a>, Item<'a>)) {
    let mut items = packed.iter();
    while let (Some((_, field)), Some((_, value))) = (items.next(), items.next()) {
        visit(field, value);
    }
}

fn visit_at(packed: Listpack<'_>, field: usize, visit: Visit<'_>) {
    let value = packed.next(field).expect("a field is followed by its value");
    visit(packed.at(field), packed.at(value));
}

/// A hash to change.
pub struct HashMut<'b, 'a> {
    value: ValueMut<'b, 'a>,
    limits: HashLimits,
}

impl<'b, 'a> HashMut<'b, 'a> {
    /// The value is a hash.
    #[inline]
    pub fn new(value: ValueMut<'b, 'a>, limits: HashLimits) -> HashMut<'b, 'a> {
        debug_assert!(HashRef::of(value.value()).is_some(), "the caller has looked at the type");
        HashMut { value, limits }
    }

    /// Sets a field. Returns whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let Some(packed) = self.packed() else { return self.set_big(field, value) };
        let fits = field.len().max(value.len()) <= self.limits.string_len_bytes
            && packed.bytes_len() + field.len() + value.len() < LEN_BYTES_MAX / 2;
        if !fits {
            self.make_big();
            return self.set_big(field, value);
        }

        let found = packed.first().and_then(|first| packed.find(field, first, 1));
        let value_pos = found.and_then(|pos| packed.next(pos));
        let len = packed.len() / 2;
        let mut bytes = self.value.packed();
        let mut packed = ListpackMut::new(&mut bytes);
        match value_pos {
            Some(pos) => {
                packed.replace(pos, value);
            }
            None => packed.append_many([field, value].into_iter()),
        }
        let is_new = value_pos.is_none();
        if len + usize::from(is_new) > self.limits.len {
            self.make_big();
        }
        is_new
    }

    /// Removes a field. Returns whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let Some(packed) = self.packed() else {
            return big_mut(&mut self.value.object()).fields.remove(field);
        };
        let found = packed.first().and_then(|first| packed.find(field, first, 1));
        if let Some(pos) = found {
            ListpackMut::new(&mut self.value.packed()).remove(pos, 2);
        }
        found.is_some()
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        HashRef::of(self.value.value()).map_or(0, HashRef::len)
    }

    #[inline]
    fn packed(&self) -> Option<Listpack<'_>> {
        match self.value.value() {
            ValueRef::Packed(_, bytes) => Some(Listpack::new(bytes)),
            ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Object(_) => None,
        }
    }

    fn set_big(&mut self, field: &[u8], value: &[u8]) -> bool {
        big_mut(&mut self.value.object()).set(field, value)
    }

    fn make_big(&mut self) {
        if let Some(packed) = self.packed() {
            let hash = BigHash::from_packed(packed);
            self.value.set(NewValue::Object(Box::new(Object::Hash(hash))));
        }
    }
}

fn big_mut(object: &mut Object) -> &mut BigHash {
    let Object::Hash(hash) = object else { unreachable!("the caller has looked at the type") };
    hash
}

#[cfg(test)]
mod tests;
