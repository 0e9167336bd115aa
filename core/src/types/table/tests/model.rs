//! The table compared with a BTreeMap by random operations.

use super::*;
use crate::types::{Blob, PackedKind, ValueMut};

/// A key's value and metadata in the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) value: OwnedValue,
    pub(super) expire_at_ms: Option<i64>,
}

/// Runs random operations on a table and on a BTreeMap, and compares everything observable.
pub(super) struct Model {
    pub(super) table: Table,
    pub(super) known: BTreeMap<Vec<u8>, Known>,
    pub(super) random: Random,
    key_count: u64,
}

impl Model {
    pub(super) fn new(seed: u64, key_count: u64) -> Self {
        Self { table: Table::new(), known: BTreeMap::new(), random: Random::new(seed), key_count }
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(self.key_count);
        // Some keys are long enough for wider length fields, and one is empty.
        match number % 64 {
            0 => vec![b'k'; number as usize / 64],
            1 => format!("{number:0300}").into_bytes(),
            2 => format!("{number:01100}").into_bytes(),
            _ => format!("key:{number}").into_bytes(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.below(12) {
            0 => 0,
            1..=6 => self.random.below(100),
            7..=9 => self.random.below(1100),
            10 => 200 + self.random.below(100),
            _ => self.random.below(5000),
        };
        let first = self.random.next();
        (0..len).map(|at| (first.wrapping_add(at) % 251) as u8).collect()
    }

    fn int(&mut self) -> i64 {
        let shift = self.random.below(64);
        (self.random.next() as i64) >> shift
    }

    fn value(&mut self) -> OwnedValue {
        match self.random.below(5) {
            0 => OwnedValue::Int(self.int()),
            // The table does not look into the bytes.
            4 => OwnedValue::Packed(PackedKind::Hash, self.bytes()),
            1 => OwnedValue::Raw(self.bytes()),
            _ => OwnedValue::Str(self.bytes()),
        }
    }

    fn set(&mut self, key: Vec<u8>) {
        let hash = hash_key(&key);
        let value = self.value();
        let at_ms = self.random.below(100_000) as i64;
        let expire = match self.random.below(3) {
            0 => SetExpire::Keep,
            1 => SetExpire::Clear,
            _ => SetExpire::At(at_ms),
        };
        let before = self.known.get(&key);
        let expire_at_ms = match expire {
            SetExpire::Keep => before.and_then(|known| known.expire_at_ms),
            SetExpire::Clear => None,
            SetExpire::At(at_ms) => Some(at_ms),
        };
        let owned = self.random.below(2) == 0;
        let is_new = match (&value, owned) {
            (OwnedValue::Str(bytes), false) => self.table.set(hash, &key, NewValue::Str(bytes), expire),
            (OwnedValue::Raw(bytes), false) => self.table.set(hash, &key, NewValue::Raw(bytes), expire),
            (OwnedValue::Packed(kind, bytes), false) => {
                self.table.set(hash, &key, NewValue::Packed(*kind, bytes), expire)
            }
            _ => self.table.set(hash, &key, value.clone().into(), expire),
        };
        assert_eq!(is_new, before.is_none());
        self.known.insert(key, Known { value, expire_at_ms });
    }

    pub(super) fn step(&mut self) {
        let key = self.key();
        let hash = hash_key(&key);
        self.table.will_change(hash);
        match self.random.below(20) {
            0..=5 => self.set(key),
            6..=9 => assert_eq!(self.table.remove(hash, &key), self.known.remove(&key).is_some()),
            10 => {
                let taken = self.table.take(hash, &key).map(|(entry, _)| entry);
                let known = self.known.get(&key);
                assert_eq!(taken.is_some(), known.is_some());
                if let (Some(taken), Some(known)) = (taken, known) {
                    assert_eq!(*taken.key, key);
                    assert_eq!(as_string(&taken.value), as_string(&known.value));
                    assert_eq!(taken.expire_at_ms, known.expire_at_ms);
                    if self.random.below(2) == 0 {
                        self.table.put(hash, taken);
                    } else {
                        self.known.remove(&key);
                    }
                }
            }
            11..=12 => {
                let at_ms = match self.random.below(3) {
                    0 => None,
                    _ => Some(self.random.below(100_000) as i64),
                };
                assert_eq!(self.table.set_expire(hash, &key, at_ms), self.known.contains_key(&key));
                if let Some(known) = self.known.get_mut(&key) {
                    known.expire_at_ms = at_ms;
                }
            }
            13..=14 => {
                let number = self.int();
                if let Some(mut entry) = self.table.get_mut(hash, &key) {
                    entry.set_int(number);
                    self.known.get_mut(&key).unwrap().value = OwnedValue::Int(number);
                }
            }
            15..=17 if matches!(self.known.get(&key), Some(Known { value: OwnedValue::Packed(..), .. })) => {
                self.splice(&key);
            }
            15..=16 => {
                let more = self.bytes();
                let len = append(&mut self.table, &key, &more);
                assert_eq!(len.is_some(), self.known.contains_key(&key));
                if let Some(known) = self.known.get_mut(&key) {
                    let mut all = as_string(&known.value);
                    all.extend(more);
                    assert_eq!(len, Some(all.len()));
                    known.value = OwnedValue::Raw(all);
                }
            }
            17 => {
                let bytes = self.bytes();
                let offset = self.random.below(1500) as usize;
                let len = set_range(&mut self.table, &key, offset, &bytes);
                if let Some(known) = self.known.get_mut(&key) {
                    let mut all = as_string(&known.value);
                    all.resize(all.len().max(offset + bytes.len()), 0);
                    all[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    assert_eq!(len, Some(all.len()));
                    known.value = OwnedValue::Raw(all);
                }
            }
            18 => {
                let access = self.random.next() as u32 & crate::types::ACCESS_MAX;
                if let Some(entry) = self.table.get(hash, &key) {
                    entry.touch(access);
                    assert_eq!(entry.access(), access);
                }
            }
            _ => {
                let found = self.table.get(hash, &key);
                match self.known.get(&key) {
                    None => assert!(found.is_none()),
                    Some(known) => assert_same(&found.unwrap(), &key, known),
                }
            }
        }
    }

    /// Replaces a random range of a packed value by random bytes.
    fn splice(&mut self, key: &[u8]) {
        let new = self.bytes();
        let Some(Known { value: OwnedValue::Packed(_, known), .. }) = self.known.get_mut(key) else { return };
        let start = self.random.below(known.len() as u64 + 1) as usize;
        let end = start + self.random.below((known.len() - start) as u64 + 1) as usize;
        known.splice(start..end, new.iter().copied());
        let mut entry = self.table.get_mut(hash_key(key), key).expect("the model has it");
        ValueMut::new(&mut entry).packed().splice(start..end, new.len()).copy_from_slice(&new);
    }

    pub(super) fn check(&self) {
        assert_eq!(self.table.len(), self.known.len());
        let expires = self.known.values().filter(|known| known.expire_at_ms.is_some()).count();
        assert_eq!(self.table.expires_len(), expires);
        let first = self.known.values().filter_map(|known| known.expire_at_ms).min();
        assert!(first.is_none() || next_expiry_ms(&self.table) <= first);
        for (key, known) in &self.known {
            assert_same(&get(&self.table, key).unwrap(), key, known);
        }
        let mut seen = 0;
        let mut entry_bytes = 0;
        let mut external = 0;
        self.table.for_each(&mut |entry| {
            seen += 1;
            assert!(self.known.contains_key(entry.key()));
            external += entry.ptr.outside_bytes();
            entry_bytes += rounded(entry.ptr.len());
        });
        assert_eq!(seen, self.known.len());
        let memory = self.table.memory();
        assert_eq!((memory.entries, memory.external), (entry_bytes, external));
        assert!(memory.slab >= memory.entries);
    }
}

pub(super) fn as_string(value: &OwnedValue) -> Vec<u8> {
    match value {
        OwnedValue::Int(number) => number.to_string().into_bytes(),
        OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) | OwnedValue::Packed(_, bytes) => bytes.clone(),
        OwnedValue::Object(_) => unreachable!("the model has none"),
    }
}

fn assert_same(entry: &Entry<'_>, key: &[u8], known: &Known) {
    assert_eq!(entry.key(), key);
    assert_eq!(entry.expire_at_ms(), known.expire_at_ms);
    let (value, encoding) = match &known.value {
        OwnedValue::Int(number) => (ValueRef::Int(*number), Encoding::Int),
        OwnedValue::Str(bytes) if bytes.len() <= 44 => (ValueRef::Str(bytes), Encoding::Embstr),
        OwnedValue::Str(bytes) | OwnedValue::Raw(bytes) => (ValueRef::Str(bytes), Encoding::Raw),
        OwnedValue::Packed(kind, bytes) => (ValueRef::Packed(*kind, bytes), Encoding::Listpack),
        OwnedValue::Object(_) => unreachable!("the model has none"),
    };
    assert_eq!((entry.value(), entry.encoding()), (value, encoding), "of {key:?}");
}

#[test]
fn random_operations_agree_with_a_map() {
    for (seed, key_count) in [(1, 10), (2, 300), (3, 3_000), (4, 50_000)] {
        let mut model = Model::new(seed, key_count);
        for round in 0..10 {
            for _ in 0..rounds(20_000) {
                model.step();
            }
            model.check();
            if round == 7 {
                model.table.clear();
                model.known.clear();
                model.check();
            }
        }
    }
}

#[test]
fn random_operations_agree_with_a_map_when_every_entry_is_its_own_allocation() {
    let mut model = Model::new(5, 2_000);
    model.table.slab.plain = true;
    for _ in 0..5 {
        for _ in 0..rounds(20_000) {
            model.step();
        }
        model.check();
    }
}
