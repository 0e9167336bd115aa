use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;
use crate::types::entry::OwnedValue;

/// A small generator whose seed is printed by a failing test.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (u128::from(self.next()) * u128::from(bound) >> 64) as u64
    }
}

fn set(table: &mut Table, key: &[u8], value: NewValue<'_>, expire: SetExpire) -> bool {
    table.set(hash_key(key), key, value, expire)
}

fn get<'a>(table: &'a Table, key: &[u8]) -> Option<Entry<'a>> {
    table.get(hash_key(key), key)
}

#[test]
fn a_value_that_was_set_is_found_and_one_that_was_not_is_not() {
    let mut table = Table::new();
    assert!(get(&table, b"a").is_none());
    assert!(set(&mut table, b"a", NewValue::Str(b"1st"), SetExpire::Clear));
    assert!(!set(&mut table, b"a", NewValue::Int(2), SetExpire::At(77)));
    assert_eq!(get(&table, b"a").unwrap().value(), ValueRef::Int(2));
    assert_eq!(get(&table, b"a").unwrap().expire_at_ms(), Some(77));
    assert!(get(&table, b"b").is_none());
    assert!(table.remove(hash_key(b"a"), b"a"));
    assert!(!table.remove(hash_key(b"a"), b"a"));
    assert_eq!((table.len(), table.expires_len()), (0, 0));
}
