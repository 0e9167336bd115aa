//! The active expiry cycle: it removes the keys that are due, keeps the others, and looks at few of these.

use super::*;

/// Runs the cycle at `now_ms` in steps of `limit` and returns the keys it removed.
fn expire(table: &mut Table, now_ms: i64, limit: usize) -> Vec<Vec<u8>> {
    let mut gone = Vec::new();
    while table
        .expire_due(now_ms, limit, &mut |entry| {
            assert!(entry.expire_at_ms().unwrap() <= now_ms);
            gone.push(entry.key().to_vec());
            true
        })
        .more
    {}
    gone
}

#[test]
fn the_expiry_cycle_removes_what_is_due_and_nothing_else() {
    // From times long before the table's clock to times beyond the reach of a bucket's mark.
    let start_ms = 1_700_000_000_000;
    for (seed, told_first) in [(21, false), (22, true)] {
        let mut random = Random::new(seed);
        let mut table = Table::new();
        if told_first {
            table.expire_due(start_ms, 1, &mut |_| true);
        }
        let mut known: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let mut now_ms = start_ms;
        for _ in 0..60 {
            for _ in 0..rounds(2_000) {
                let key = number_key(random.below(20_000) as usize);
                let after_ms = match random.below(4) {
                    0 => -10,
                    1 => random.below(1_000) as i64,
                    2 => random.below(600_000) as i64,
                    _ => random.below(100_000_000) as i64,
                };
                match random.below(8) {
                    0 => {
                        table.remove(hash_key(&key), &key);
                        known.remove(&key);
                    }
                    1 => {
                        table.set_expire(hash_key(&key), &key, None);
                        known.remove(&key);
                    }
                    _ => {
                        set(&mut table, &key, NewValue::Int(1), SetExpire::At(now_ms + after_ms));
                        known.insert(key, now_ms + after_ms);
                    }
                }
            }
            assert!(next_expiry_ms(&table) <= known.values().copied().min());
            now_ms += random.below(400_000) as i64;
            let mut gone = expire(&mut table, now_ms, 100);
            let mut expected: Vec<Vec<u8>> =
                known.iter().filter(|&(_, &at_ms)| at_ms <= now_ms).map(|(key, _)| key.clone()).collect();
            gone.sort();
            expected.sort();
            assert_eq!(gone, expected);
            known.retain(|_, at_ms| *at_ms > now_ms);
            assert_eq!(table.expires_len(), known.len());
        }
    }
}

#[test]
fn the_expiry_cycle_looks_at_little_more_than_what_is_due() {
    let now_ms = 1_700_000_000_000;
    let mut table = Table::new();
    table.expire_due(now_ms, 1, &mut |_| true);
    let count = rounds(100_000) as i64;
    for number in 0..count {
        // One is due each 36 ms.
        let at_ms = now_ms + 1 + number * 3_600_000 / count;
        set(&mut table, &number_key(number as usize), NewValue::Int(1), SetExpire::At(at_ms));
    }
    assert_eq!(table.expire_due(now_ms, usize::MAX, &mut |_| true), ExpireProgress::default());
    let (mut looked_at, mut removed) = (0, 0);
    for second in 1..=600 {
        let progress = table.expire_due(now_ms + second * 1_000, usize::MAX, &mut |_| true);
        looked_at += progress.looked_at;
        removed += progress.removed;
    }
    assert_eq!(removed, (count as usize).div_ceil(6));
    assert!(looked_at < removed * 9 || cfg!(miri), "{looked_at} for {removed}");
}

#[test]
fn the_expiry_cycle_stops_at_its_limit_and_goes_on_from_there() {
    let mut table = Table::new();
    let count = rounds(50_000);
    for number in 0..count {
        set(&mut table, &number_key(number), NewValue::Int(1), SetExpire::At(10));
    }
    let mut calls = 0;
    let mut removed = 0;
    loop {
        let progress = table.expire_due(10, 100, &mut |_| true);
        calls += 1;
        removed += progress.removed;
        assert!(progress.looked_at <= 100 + SEGMENT_SLOTS);
        if !progress.more {
            break;
        }
    }
    assert_eq!((removed, table.len()), (count, 0));
    assert!(calls > 20 || cfg!(miri), "{calls} calls");
    assert_eq!(next_expiry_ms(&table), None);
}

#[test]
fn keys_that_the_caller_does_not_release_remain_due() {
    let mut table = Table::new();
    for number in 0..1_000 {
        set(&mut table, &number_key(number), NewValue::Int(1), SetExpire::At(10));
    }
    let seen = |table: &mut Table, now_ms: i64, answer: bool| {
        let mut count = 0;
        table.expire_due(now_ms, usize::MAX, &mut |_| {
            count += 1;
            answer
        });
        count
    };
    assert_eq!(seen(&mut table, 9, true), 0);
    assert_eq!(seen(&mut table, 10, false), 1_000);
    assert_eq!(seen(&mut table, 11, false), 1_000);
    assert_eq!(seen(&mut table, 12, true), 1_000);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_clock_that_is_set_back_delays_expiry_and_loses_none() {
    let mut table = Table::new();
    let later_ms = 1_700_000_000_000;
    table.expire_due(later_ms, 1, &mut |_| true);
    let earlier_ms = later_ms - 86_400_000;
    set(&mut table, b"a", NewValue::Int(1), SetExpire::At(earlier_ms + 5_000));
    set(&mut table, b"b", NewValue::Int(1), SetExpire::At(later_ms));
    assert!(expire(&mut table, earlier_ms, 100).is_empty());
    assert_eq!(expire(&mut table, earlier_ms + 5_000, 100), [b"a"]);
    assert_eq!(expire(&mut table, later_ms, 100), [b"b"]);
}
