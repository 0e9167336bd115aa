//! The lock table against a model that recomputes from the order of arrival who is granted.

use super::*;

fn keys(wanted: &[(u64, bool)]) -> LockSet {
    LockSet::Keys(wanted.iter().map(|&(id, exclusive)| KeyLock { id, exclusive }).collect())
}

fn release(table: &mut LockTable, ticket: Ticket) -> Vec<Ticket> {
    let mut granted = Vec::new();
    table.release(ticket, &mut granted);
    granted
}

#[test]
fn shared_requests_stand_together_and_an_exclusive_one_waits_for_all_of_them() {
    let mut table = LockTable::default();
    let (a, a_now) = table.request(keys(&[(1, false)]));
    let (b, b_now) = table.request(keys(&[(1, false)]));
    let (c, c_now) = table.request(keys(&[(1, true)]));
    let (d, d_now) = table.request(keys(&[(1, false)]));
    assert!(a_now && b_now && !c_now && !d_now, "a reader must not overtake a waiting writer");
    assert_eq!(release(&mut table, a), vec![]);
    assert_eq!(release(&mut table, b), vec![c]);
    assert_eq!(release(&mut table, c), vec![d]);
    assert_eq!(release(&mut table, d), vec![]);
    assert!(table.is_empty());
}

#[test]
fn a_key_named_twice_is_locked_once_and_exclusively() {
    let mut table = LockTable::default();
    let (a, now) = table.request(keys(&[(1, false), (1, true), (1, false)]));
    assert!(now);
    assert!(table.conflicts(&[KeyLock { id: 1, exclusive: false }]));
    assert_eq!(release(&mut table, a), vec![]);
    assert!(table.is_empty());
}

#[test]
fn the_whole_keyspace_waits_for_the_earlier_and_holds_back_the_later() {
    let mut table = LockTable::default();
    let (a, _) = table.request(keys(&[(1, true)]));
    let (whole, now) = table.request(LockSet::Whole);
    assert!(!now);
    let (b, b_now) = table.request(keys(&[(2, true)]));
    let (second, _) = table.request(LockSet::Whole);
    let (c, _) = table.request(keys(&[(2, true)]));
    assert!(!b_now && table.conflicts(&[KeyLock { id: 9, exclusive: false }]));
    assert_eq!(release(&mut table, a), vec![whole]);
    assert_eq!(release(&mut table, whole), vec![b]);
    assert_eq!(release(&mut table, b), vec![second]);
    assert_eq!(release(&mut table, second), vec![c]);
    assert_eq!(release(&mut table, c), vec![]);
    assert!(table.is_empty());
}

/// Random requests against a model that recomputes from scratch who is granted: whoever conflicts with
/// nobody that arrived before him and has not left.
#[test]
fn grants_are_those_of_the_arrival_order_model() {
    for seed in 1..200u64 {
        let mut state = seed;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut table = LockTable::default();
        let mut alive: Vec<(Ticket, LockSet, bool)> = Vec::new();
        for _ in 0..300 {
            if random(2) == 0 || alive.is_empty() {
                let wanted = (0..1 + random(4)).map(|_| KeyLock { id: random(5), exclusive: random(2) == 0 });
                let wanted = LockSet::Keys(wanted.collect());
                let set = if random(12) == 0 { LockSet::Whole } else { wanted };
                let (ticket, granted) = table.request(set.clone());
                alive.push((ticket, set, granted));
            } else {
                let held: Vec<usize> = (0..alive.len()).filter(|&n| alive[n].2).collect();
                assert!(!held.is_empty(), "seed {seed}: nobody is granted: deadlock");
                let (ticket, ..) = alive.remove(held[random(held.len() as u64) as usize]);
                for granted in release(&mut table, ticket) {
                    let entry = alive.iter_mut().find(|entry| entry.0 == granted).expect("granted is alive");
                    assert!(!entry.2, "seed {seed}: granted twice");
                    entry.2 = true;
                }
            }
            for (place, (ticket, set, granted)) in alive.iter().enumerate() {
                let expected = alive[..place].iter().all(|(_, earlier, _)| !conflict(earlier, set));
                assert_eq!(*granted, expected, "seed {seed}: ticket {ticket}");
            }
            assert_eq!(table.is_empty(), alive.is_empty(), "seed {seed}");
        }
    }
}

fn conflict(a: &LockSet, b: &LockSet) -> bool {
    match (a, b) {
        (LockSet::Keys(a), LockSet::Keys(b)) => {
            a.iter().any(|x| b.iter().any(|y| x.id == y.id && (x.exclusive || y.exclusive)))
        }
        _ => true,
    }
}
