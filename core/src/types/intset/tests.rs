//! Intsets against a tree, their bytes against Redis', and damaged ones.

use super::*;
use crate::testing::{Rng, with_seed};
use std::collections::BTreeSet;

fn filled(values: &[i64]) -> Vec<u8> {
    let mut bytes = EMPTY.to_vec();
    for &value in values {
        IntSetMut::new(&mut bytes).insert(value);
    }
    bytes
}

/// Values of all widths, close together and at the limits.
fn value(random: &mut Rng, width_max: usize) -> i64 {
    let value = random.next() as i64;
    match random.below(width_max + 1) {
        0 => value >> 58,
        1 => value >> 48,
        2 => value >> 32,
        3 => value,
        4 => i64::from(i16::MAX) + (value >> 62),
        5 => i64::from(i16::MIN) + (value >> 62),
        6 => i64::from(i32::MAX) + (value >> 62),
        7 => i64::from(i32::MIN) + (value >> 62),
        _ => *random.pick(&[i64::MIN, i64::MAX, -1, 0]),
    }
}

#[test]
fn it_holds_what_a_tree_holds_in_the_same_order() {
    for seed in 0..400 {
        let mut random = Rng::new(seed);
        let width_max = random.below(9);
        let mut bytes = EMPTY.to_vec();
        let mut model = BTreeSet::new();
        for _ in 0..300 {
            let value = value(&mut random, width_max);
            match random.below(5) {
                0..3 => {
                    assert_eq!(IntSetMut::new(&mut bytes).insert(value), model.insert(value), "seed {seed}")
                }
                3 => {
                    assert_eq!(IntSetMut::new(&mut bytes).remove(value), model.remove(&value), "seed {seed}")
                }
                _ if !model.is_empty() => {
                    let rank = random.below(model.len());
                    let value = *model.iter().nth(rank).expect("a rank");
                    assert_eq!(IntSet::new(&bytes).get(rank), value, "seed {seed}");
                    IntSetMut::new(&mut bytes).remove_rank(rank);
                    model.remove(&value);
                }
                _ => {}
            }
            let set = IntSet::new(&bytes);
            assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()), "seed {seed}");
            assert_eq!(set.contains(value), model.contains(&value), "seed {seed}");
            assert_eq!(validate(&bytes, true).is_ok(), !model.is_empty(), "seed {seed}");
        }
        assert!(IntSet::new(&bytes).iter().eq(model.iter().copied()), "seed {seed}");
        let mut from = 0;
        for value in -40..40 {
            let found = IntSet::new(&bytes).search_from(from, value);
            let before = model.range(..value).count();
            assert_eq!(found, if model.contains(&value) { Ok(before) } else { Err(before) }, "seed {seed}");
            from = before;
        }
        assert!(IntSet::new(&bytes).iter().rev().eq(model.iter().rev().copied()), "seed {seed}");
    }
}

/// As Redis 7.0.15 writes them in DUMP.
#[test]
fn the_bytes_are_those_of_redis() {
    assert_eq!(filled(&[3, -1, 2]), b"\x02\0\0\0\x03\0\0\0\xff\xff\x02\0\x03\0");
    assert_eq!(filled(&[-1, 70_000]), b"\x04\0\0\0\x02\0\0\0\xff\xff\xff\xff\x70\x11\x01\0");
    assert_eq!(
        filled(&[5, -5_000_000_000]),
        b"\x08\0\0\0\x02\0\0\0\x00\x0e\xfa\xd5\xfe\xff\xff\xff\x05\0\0\0\0\0\0\0"
    );
}

#[test]
fn items_stay_wide_when_the_one_that_needed_it_is_removed() {
    let mut bytes = filled(&[1, 2, 70_000]);
    assert!(IntSetMut::new(&mut bytes).remove(70_000));
    assert_eq!(bytes, b"\x04\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\0\0");
}

#[test]
fn damage_is_found() {
    let bytes = filled(&[1, 2, 3]);
    let damaged = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        validate(&bytes, true)
    };
    assert_eq!(validate(&bytes, true), Ok(()));
    for len in 0..HEADER_LEN {
        assert_eq!(validate(&bytes[..len], true), Err(Damage::Header));
    }
    assert_eq!(damaged(0, 3), Err(Damage::Width(3)));
    assert_eq!(damaged(3, 1), Err(Damage::Width(1 << 24 | 2)));
    assert_eq!(damaged(0, 4), Err(Damage::Length { items: 3, bytes: 14 }));
    assert_eq!(damaged(4, 4), Err(Damage::Length { items: 4, bytes: 14 }));
    assert_eq!(validate(&bytes[..13], true), Err(Damage::Length { items: 3, bytes: 13 }));
    assert_eq!(validate(&EMPTY, true), Err(Damage::Empty));
    assert_eq!(damaged(HEADER_LEN, 2), Err(Damage::Order(1)));
    assert_eq!(damaged(HEADER_LEN + 5, 0x80), Err(Damage::Order(2)));
}

/// CVE-2021-32687: a length whose product with the width overflows 32 bits.
#[test]
fn a_length_that_overflows_is_damage() {
    for (width, items) in [(2u32, 0x8000_0001u32), (4, 0x4000_0001), (8, 0x2000_0001), (8, u32::MAX)] {
        let mut bytes = [width.to_le_bytes(), items.to_le_bytes()].concat();
        bytes.resize(HEADER_LEN + width as usize, 0);
        let found = validate(&bytes, false);
        assert_eq!(found, Err(Damage::Length { items, bytes: bytes.len() }), "{items} of {width}");
    }
}

#[test]
fn any_bytes_that_pass_are_read_without_a_panic() {
    with_seed(|random| {
        let mut passed = 0;
        for _ in 0..if cfg!(miri) { 50 } else { 2000 } {
            let mut bytes = filled(&(0..1 + random.below(20) as i64).map(|n| n * n * n).collect::<Vec<_>>());
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            let deep = random.one_in(2);
            if validate(&bytes, deep).is_err() {
                continue;
            }
            passed += 1;
            let values: Vec<i64> = IntSet::new(&bytes).iter().collect();
            let found = values.iter().filter(|&&value| IntSet::new(&bytes).contains(value)).count();
            assert!(!deep || found == values.len());
            IntSetMut::new(&mut bytes).insert(random.next() as i64);
            IntSetMut::new(&mut bytes).remove(values[0]);
        }
        assert!(passed > 100, "{passed}");
    });
}
