//! The guarantee of SCAN: keys that exist from beginning to end are returned, however the table grows and shrinks.

use super::*;

/// Scans to the end and counts how often each key was returned. `meanwhile` is called between two steps.
fn scan_all(table: &mut Table, mut meanwhile: impl FnMut(&mut Table)) -> BTreeMap<Vec<u8>, usize> {
    let mut seen = BTreeMap::new();
    let mut cursor = 0;
    loop {
        cursor = table.scan(cursor, &mut |entry| *seen.entry(entry.key().to_vec()).or_default() += 1);
        assert!(cursor < 1 << SCAN_CURSOR_BITS);
        if cursor == 0 {
            return seen;
        }
        meanwhile(table);
    }
}

#[test]
fn a_scan_of_a_table_at_rest_returns_every_key_once() {
    for key_count in [0, 1, 500, rounds(100_000)] {
        let mut table = Table::new();
        fill(&mut table, 0..key_count);
        let seen = scan_all(&mut table, |_| {});
        assert_eq!(seen.len(), key_count);
        assert!(seen.values().all(|&times| times == 1));
    }
}

#[test]
fn a_scan_of_a_growing_table_returns_what_was_there_before_exactly_once() {
    let kept = rounds(20_000);
    let mut table = Table::new();
    fill(&mut table, 0..kept);
    let mut next = kept;
    let seen = scan_all(&mut table, |table| {
        fill(table, next..next + 20);
        next += 20;
    });
    assert!(table.len() > 3 * kept, "it grew to {}", table.len());
    for number in 0..kept {
        assert_eq!(seen.get(&number_key(number)), Some(&1), "key {number}");
    }
}

#[test]
fn a_scan_of_a_shrinking_table_returns_the_keys_that_remain() {
    let (kept, all) = (rounds(2_000), rounds(100_000));
    let mut table = Table::new();
    fill(&mut table, 0..all);
    let segments = table.directory.segment_count();
    let mut next = kept;
    let seen = scan_all(&mut table, |table| {
        let end = (next + 20).min(all);
        drain(table, next..end);
        next = end;
    });
    assert!(table.directory.segment_count() * 4 <= segments || cfg!(miri));
    for number in 0..kept {
        assert!(seen.contains_key(&number_key(number)), "key {number}");
    }
}

#[test]
fn a_scan_of_a_table_that_grows_and_shrinks_in_turns_returns_the_keys_that_remain() {
    let (kept, wave) = (rounds(3_000), rounds(40_000));
    let mut table = Table::new();
    fill(&mut table, 0..kept);
    let mut at = 0;
    let seen = scan_all(&mut table, |table| {
        let number = kept + at % wave;
        if (at / wave).is_multiple_of(2) {
            fill(table, number..number + 50);
        } else {
            drain(table, number..number + 50);
        }
        at += 50;
    });
    assert!(at > 3 * wave || cfg!(miri), "{at}");
    for number in 0..kept {
        assert!(seen.contains_key(&number_key(number)), "key {number}");
    }
}

#[test]
fn any_number_is_a_cursor() {
    let mut table = Table::new();
    assert_eq!(table.scan(u64::MAX, &mut |_| {}), 0);
    fill(&mut table, 0..rounds(20_000));
    let mut random = Random::new(11);
    for _ in 0..rounds(10_000) {
        table.scan(random.next(), &mut |_| {});
        assert!(table.scan(random.next() >> 18, &mut |_| {}) < 1 << SCAN_CURSOR_BITS);
    }
}

#[test]
fn random_entries_are_about_evenly_distributed() {
    let mut table = Table::new();
    assert!(table.random(&mut || 0).is_none());
    let count = if cfg!(miri) { 10 } else { 2_000 };
    fill(&mut table, 0..count);
    let mut random = Random::new(12);
    let draws = count * 100;
    let mut drawn: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for _ in 0..draws {
        let entry = table.random(&mut || random.next()).unwrap();
        *drawn.entry(entry.key().to_vec()).or_default() += 1;
    }
    assert_eq!(drawn.len(), count);
    let (least, most) = (drawn.values().min().unwrap(), drawn.values().max().unwrap());
    assert!(*least > 30 && *most < 230, "of 100 expected: {least} to {most}");
}

#[test]
fn a_random_entry_is_found_when_nearly_all_were_removed() {
    let mut table = Table::new();
    let count = rounds(20_000);
    fill(&mut table, 0..count);
    drain(&mut table, 1..count);
    let mut random = Random::new(13);
    for _ in 0..100 {
        assert_eq!(table.random(&mut || random.next()).unwrap().value(), ValueRef::Int(0));
    }
}
