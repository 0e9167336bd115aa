//! The table compared with a model, and its promises about memory, versions and access bits.

mod expire;
mod model;
mod scan;
mod snapshot;
mod values;

use std::collections::BTreeMap;

use super::*;
use crate::testing::Rng;
use crate::types::entry::OwnedValue;

/// A random generator whose seed a failing test prints.
struct Random(Rng);

impl Random {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(Rng::new(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound as usize) as u64
    }
}

fn set(table: &mut Table, key: &[u8], value: NewValue<'_>, expire: SetExpire) -> bool {
    table.will_change(hash_key(key));
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

/// No key expires before this time.
fn next_expiry_ms(table: &Table) -> Option<i64> {
    (table.expires_len > 0).then_some(table.next_expiry_ms)
}

/// As APPEND to an existing key.
fn append(table: &mut Table, key: &[u8], bytes: &[u8]) -> Option<usize> {
    let len = match get(table, key)?.value() {
        ValueRef::Int(number) => number.to_string().len(),
        ValueRef::Str(bytes) => bytes.len(),
        ValueRef::Packed(..) | ValueRef::Object(_) => unreachable!("the caller has seen a string"),
    };
    set_range(table, key, len, bytes)
}

/// As SETRANGE on an existing key.
fn set_range(table: &mut Table, key: &[u8], offset: usize, bytes: &[u8]) -> Option<usize> {
    let mut entry = table.get_mut(hash_key(key), key)?;
    let end = offset + bytes.len();
    let string = entry.string_mut(end, offset..end);
    string[offset..end].copy_from_slice(bytes);
    Some(string.len())
}

/// A smaller number under Miri, which runs about a thousand times slower than the machine.
fn rounds(count: usize) -> usize {
    if cfg!(miri) { count / 100 } else { count }
}

fn number_key(number: usize) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn fill(table: &mut Table, numbers: std::ops::Range<usize>) {
    for number in numbers {
        set(table, &number_key(number), NewValue::Int(number as i64), SetExpire::Clear);
    }
}

fn drain(table: &mut Table, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let key = number_key(number);
        table.will_change(hash_key(&key));
        assert!(table.remove(hash_key(&key), &key));
    }
}

#[test]
fn keys_and_values_of_extreme_lengths_are_stored_and_freed() {
    let mut table = Table::new();
    let key_lens = [0, 1, 7, 8, 16, 17, 32, 33, 255, 256, 300, 1_000, 1_100, 65_535, 65_536, 70_000];
    let value_lens = [0, 1, 44, 45, 255, 256, 900, 1_000, 1_024, 1_025, 65_536, 2 << 20];
    for key_len in key_lens {
        let key = vec![b'k'; key_len];
        let hash = hash_key(&key);
        for value_len in value_lens {
            let value = vec![b'v'; value_len];
            for expire in [SetExpire::At(5), SetExpire::Keep, SetExpire::Clear] {
                table.set(hash, &key, NewValue::Str(&value), expire);
                let entry = table.get(hash, &key).unwrap();
                assert_eq!((entry.key(), entry.value()), (&key[..], ValueRef::Str(&value)));
                assert_eq!(entry.expire_at_ms().is_some(), expire != SetExpire::Clear);
                assert!(entry.alloc_size() >= key_len + value_len);
            }
        }
        let taken = table.take(hash, &key).unwrap().0;
        assert_eq!(taken.value, OwnedValue::Str(vec![b'v'; 2 << 20]));
        table.put(hash, taken);
    }
    assert_eq!(table.len(), key_lens.len());
    table.clear();
    assert_eq!(table.memory(), TableMemory::default());
}

#[test]
fn integers_of_every_width_come_back_and_can_be_overwritten() {
    let mut table = Table::new();
    let hash = hash_key(b"n");
    let mut numbers = vec![0, i64::MAX, i64::MIN];
    numbers.extend((0..63).flat_map(|shift| [1i64 << shift, -(1i64 << shift), (1i64 << shift) - 1]));
    table.set(hash, b"n", NewValue::Int(0), SetExpire::At(9));
    for number in numbers {
        table.get_mut(hash, b"n").unwrap().set_int(number);
        let entry = table.get(hash, b"n").unwrap();
        assert_eq!(entry.value(), ValueRef::Int(number));
        assert_eq!((entry.encoding(), entry.expire_at_ms()), (Encoding::Int, Some(9)));
    }
}

#[test]
fn encodings_are_those_that_redis_reports() {
    let mut table = Table::new();
    let hash = hash_key(b"s");
    let encoding = |table: &Table| table.get(hash, b"s").unwrap().encoding().name();
    table.set(hash, b"s", NewValue::Int(12), SetExpire::Clear);
    assert_eq!(encoding(&table), "int");
    table.set(hash, b"s", NewValue::Str(&[b'x'; 44]), SetExpire::Clear);
    assert_eq!(encoding(&table), "embstr");
    table.set(hash, b"s", NewValue::Str(&[b'x'; 45]), SetExpire::Clear);
    assert_eq!(encoding(&table), "raw");
    table.set(hash, b"s", NewValue::Str(b"short"), SetExpire::Clear);
    append(&mut table, b"s", b"er").unwrap();
    assert_eq!(encoding(&table), "raw");
    let taken = table.take(hash, b"s").unwrap().0;
    table.put(hash, taken);
    assert_eq!(encoding(&table), "raw");
    table.set(hash, b"s", NewValue::Int(12), SetExpire::Clear);
    assert_eq!(set_range(&mut table, b"s", 1, b""), Some(2));
    assert_eq!(table.get(hash, b"s").unwrap().value(), ValueRef::Str(b"12"));
    assert_eq!(encoding(&table), "raw");
}

#[test]
fn a_big_string_grows_with_few_moves_and_is_handed_over_without_a_copy() {
    let mut table = Table::new();
    let hash = hash_key(b"s");
    let owned = vec![b'a'; 100_000];
    let address = owned.as_ptr();
    table.set(hash, b"s", NewValue::Owned(owned), SetExpire::Clear);
    let ValueRef::Str(bytes) = table.get(hash, b"s").unwrap().value() else { panic!("a string") };
    assert_eq!(bytes.as_ptr(), address);
    let mut moves = 0;
    let mut last = address;
    for _ in 0..rounds(100_000) {
        append(&mut table, b"s", b"0123456789").unwrap();
        let ValueRef::Str(bytes) = table.get(hash, b"s").unwrap().value() else { panic!("a string") };
        moves += usize::from(bytes.as_ptr() != last);
        last = bytes.as_ptr();
    }
    assert!(moves < 10, "{moves} moves");
    let OwnedValue::Str(taken) = table.take(hash, b"s").unwrap().0.value else { panic!("a string") };
    assert_eq!((taken.as_ptr(), taken.len()), (last, 100_000 + 10 * rounds(100_000)));
    assert_eq!(table.memory().external, 0);
}

#[test]
fn a_table_frees_its_index_when_keys_are_removed() {
    let mut table = Table::new();
    let count = rounds(300_000);
    fill(&mut table, 0..count);
    let full = table.memory();
    drain(&mut table, 0..count);
    let empty = table.memory();
    assert_eq!((table.len(), empty.entries), (0, 0));
    assert_eq!(table.directory.segment_count(), 1);
    // One chunk holds the last segment, and one is spare.
    assert!(
        empty.total() < (5 << 20) && full.total() > 2 * empty.total() || cfg!(miri),
        "{empty:?} of {full:?}"
    );
    fill(&mut table, 0..count);
    assert_eq!(table.len(), count);
}

#[test]
fn the_load_stays_in_a_narrow_band_while_the_table_grows() {
    const LOAD_MIN: f64 = 0.60;
    const LOAD_MAX: f64 = 0.74;
    if cfg!(miri) {
        return;
    }
    let mut table = Table::new();
    fill(&mut table, 0..60_000);
    for number in 60_000..500_000 {
        fill(&mut table, number..number + 1);
        if number % 500 == 0 {
            let load = table.len() as f64 / (table.directory.segment_count() * SEGMENT_SLOTS) as f64;
            assert!((LOAD_MIN..LOAD_MAX).contains(&load), "{load} at {number} keys");
        }
    }
}

#[test]
fn a_detached_table_is_freed_in_slices() {
    let mut table = Table::new();
    let count = rounds(20_000);
    for number in 0..count {
        let value = if number % 10 == 0 { vec![b'v'; 5_000] } else { vec![b'v'; 50] };
        set(&mut table, &number_key(number), NewValue::Str(&value), SetExpire::At(1));
    }
    let mut detached = table.detach();
    assert_eq!((table.len(), table.expires_len(), next_expiry_ms(&table)), (0, 0, None));
    assert_eq!(table.memory(), TableMemory::default());
    fill(&mut table, 0..100);
    // It may be freed by another thread, and be dropped half-way.
    std::thread::spawn(move || {
        assert!(!detached.free_some(1) || cfg!(miri));
        let mut slices = 1;
        while slices < 5 && !detached.free_some(1_000) {
            slices += 1;
        }
        assert!(slices == 5 || cfg!(miri));
    })
    .join()
    .unwrap();
    assert_eq!(table.len(), 100);
}

#[test]
fn a_slice_of_a_detached_table_respects_its_budget_within_a_segment_and_within_a_value() {
    const BUDGET: usize = 50;
    let mut table = Table::new();
    for number in 0..300 {
        set(&mut table, &number_key(number), NewValue::Str(&[b'v'; 5_000]), SetExpire::Clear);
    }
    let big_len = 200 * BYTES_PER_COST;
    set(&mut table, b"big", NewValue::Owned(vec![0; big_len]), SetExpire::Clear);
    let mut detached = table.detach();
    let mut slices = 0;
    let mut left = detached.table.memory().external;
    assert_eq!(left, 300 * 5_000 + big_len);
    while !detached.free_some(BUDGET) {
        slices += 1;
        let external = detached.table.memory().external;
        assert!(left - external <= BUDGET * 5_000 + big_len, "{left} {external}");
        left = external;
    }
    // 300 small values, a big one that costs 200, and a chunk.
    assert!((300 + 200) / BUDGET <= slices && slices <= (300 + 200) / BUDGET + 4, "{slices}");
}

#[test]
fn a_removed_or_overwritten_value_that_is_big_is_freed_in_slices() {
    let mut table = Table::new();
    let big = || NewValue::Owned(vec![0; 300 * BYTES_PER_COST]);
    let hash = hash_key(b"a");
    for remove in [
        &|table: &mut Table| _ = table.remove(hash, b"a"),
        &|table: &mut Table| _ = table.set(hash, b"a", NewValue::Int(1), SetExpire::Clear),
        &|table: &mut Table| table.get_mut(hash, b"a").unwrap().set_int(1),
        &|table: &mut Table| _ = table.expire_due(6, 100, &mut |_| true),
    ] as [&dyn Fn(&mut Table); 4]
    {
        table.set(hash, b"a", big(), SetExpire::At(5));
        assert_eq!((table.garbage_len(), table.memory().external), (0, 300 * BYTES_PER_COST));
        remove(&mut table);
        assert_eq!((table.garbage_len(), table.memory().external), (1, 0));
        assert!(!table.free_garbage(200));
        assert!(table.free_garbage(200));
        assert_eq!(table.garbage_len(), 0);
    }
}

#[test]
fn an_overwrite_keeps_or_renews_access_bits_as_set() {
    let mut table = Table::new();
    table.set_new_access(5, false);
    set(&mut table, b"a", NewValue::Str(b"1st"), SetExpire::Clear);
    assert_eq!(get(&table, b"a").unwrap().access(), 5);
    table.set_new_access(6, false);
    set(&mut table, b"a", NewValue::Str(b"2nd"), SetExpire::Clear);
    assert_eq!(get(&table, b"a").unwrap().access(), 6);
    table.set_new_access(7, true);
    set(&mut table, b"a", NewValue::Str(b"third"), SetExpire::Clear);
    assert_eq!(get(&table, b"a").unwrap().access(), 6);
    let taken = table.take(hash_key(b"a"), b"a").unwrap().0;
    let mut other = Table::new();
    other.put(hash_key(b"a"), taken);
    assert_eq!(get(&other, b"a").unwrap().access(), 6);
}
