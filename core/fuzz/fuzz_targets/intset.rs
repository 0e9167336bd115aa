//! Intsets from outside: what passes the check is read and changed without a panic, and stays what the check passes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::types::intset::{IntSet, IntSetMut, validate};

fuzz_target!(|input: (bool, Vec<i64>, Vec<u8>)| {
    let (deep, values, mut bytes) = input;
    if validate(&bytes, deep).is_err() {
        return;
    }
    let set = IntSet::new(&bytes);
    assert_eq!(set.iter().count(), set.len());
    assert!(!deep || set.iter().all(|value| set.contains(value)));
    for value in values {
        let had = IntSet::new(&bytes).contains(value);
        let is_new = IntSetMut::new(&mut bytes).insert(value);
        let removed = IntSetMut::new(&mut bytes).remove(value);
        assert!(!deep || (is_new != had && removed && validate(&bytes, true).is_ok()) || bytes.len() <= 8);
    }
});
