//! The lock table against a model that recomputes from the order of arrival which requests are granted.

use super::*;
use crate::testing::Rng;
use smallvec::smallvec;

fn keys(wanted: &[(u64, bool)]) -> LockSet {
    LockSet::Keys(wanted.iter().map(|&(id, exclusive)| KeyLock { id, exclusive }).collect())
}

fn release(table: &mut LockTable, lock_request: LockRequestId) -> Vec<LockRequestId> {
    let mut granted = Vec::new();
    table.release(lock_request, &mut granted);
    granted
}

#[test]
fn shared_requests_are_granted_together_and_an_exclusive_one_waits_for_all_of_them() {
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
fn a_key_that_occurs_twice_is_locked_once_and_exclusively() {
    let mut table = LockTable::default();
    let (a, now) = table.request(keys(&[(1, false), (1, true), (1, false)]));
    assert!(now);
    assert!(table.conflicts(&[KeyLock { id: 1, exclusive: false }]));
    assert_eq!(release(&mut table, a), vec![]);
    assert!(table.is_empty());
}

#[test]
fn a_request_for_the_whole_keyspace_waits_for_earlier_ones_and_delays_later_ones() {
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

#[test]
fn a_lock_that_is_split_off_keeps_its_place_when_the_rest_is_released() {
    let mut table = LockTable::default();
    let (a, _) = table.request(keys(&[(1, true), (2, true)]));
    let (b, _) = table.request(keys(&[(1, true)]));
    let (c, _) = table.request(keys(&[(2, true)]));
    let kept = table.split(a, 1).expect("a holds it");
    assert_eq!(table.split(a, 1), None, "a does not hold it any more");
    assert_eq!(release(&mut table, a), vec![c]);
    assert!(!table.knows(a) && table.knows(kept));
    assert_eq!(release(&mut table, c), vec![]);
    assert_eq!(release(&mut table, kept), vec![b]);
    assert_eq!(release(&mut table, b), vec![]);
    assert!(table.is_empty());
}

#[test]
fn a_key_can_be_split_off_the_whole_keyspace() {
    let mut table = LockTable::default();
    let (whole, _) = table.request(LockSet::Whole);
    let (a, _) = table.request(keys(&[(1, true)]));
    let (b, _) = table.request(keys(&[(2, true)]));
    let (second, _) = table.request(LockSet::Whole);
    let kept = table.split(whole, 1).expect("the whole keyspace is held");
    assert_eq!(table.split(whole, 1), None, "it was split off before");
    assert_eq!(release(&mut table, whole), vec![b]);
    assert_eq!(release(&mut table, b), vec![]);
    assert_eq!(release(&mut table, kept), vec![a]);
    assert_eq!(release(&mut table, a), vec![second]);
    assert_eq!(release(&mut table, second), vec![]);
    assert!(table.is_empty());
}

#[test]
fn a_lock_that_is_not_held_exclusively_cannot_be_split_off() {
    let mut table = LockTable::default();
    let (a, _) = table.request(keys(&[(1, false), (2, true)]));
    let (b, _) = table.request(keys(&[(2, true), (3, true)]));
    assert_eq!(table.split(a, 1), None);
    assert_eq!(table.split(a, 9), None);
    assert_eq!(table.split(b, 3), None, "it waits for another key");
    let (whole, _) = table.request(LockSet::Whole);
    assert_eq!(table.split(whole, 9), None, "it waits");
}

#[test]
fn a_request_is_extended_by_free_keys_only() {
    let mut table = LockTable::default();
    let (a, _) = table.request(keys(&[(1, true)]));
    let (b, _) = table.request(keys(&[(2, false)]));
    let exclusive = |id| KeyLock { id, exclusive: true };
    assert!(!table.extend(a, &[exclusive(3), exclusive(2)]), "one of them is locked");
    assert!(!table.conflicts(&[exclusive(3)]), "so none was taken");
    assert!(table.extend(a, &[KeyLock { id: 2, exclusive: false }, exclusive(3), exclusive(3)]));
    assert!(table.conflicts(&[exclusive(3)]));
    assert_eq!(release(&mut table, b), vec![]);
    assert_eq!(release(&mut table, a), vec![]);
    assert!(table.is_empty());
}

/// Random requests against a model that recomputes from scratch which are granted: those that conflict with no earlier
/// request that still exists. Keys that are split off or added have the place of the request they belong to.
#[test]
fn grants_are_those_of_the_arrival_order_model() {
    for seed in 1..200u64 {
        let mut rng = Rng::new(seed);
        let mut random = |n: u64| rng.below(n as usize) as u64;
        let mut table = LockTable::default();
        let mut alive: Vec<(LockRequestId, LockSet, bool)> = Vec::new();
        // The requests that were split off, each with the request it was originally a part of.
        let mut splits: Vec<(LockRequestId, LockRequestId)> = Vec::new();
        for _ in 0..300 {
            if random(4) == 0 && !alive.is_empty() {
                let at = random(alive.len() as u64) as usize;
                if let Some((new, of)) = alter(&mut table, &mut alive, at, &mut random, seed) {
                    let origin = splits.iter().find(|split| split.0 == of).map_or(of, |split| split.1);
                    splits.push((new, origin));
                }
            } else if random(2) == 0 || alive.is_empty() {
                let wanted = (0..1 + random(4)).map(|_| KeyLock { id: random(5), exclusive: random(2) == 0 });
                let wanted = LockSet::Keys(wanted.collect());
                let set = if random(12) == 0 { LockSet::Whole } else { wanted };
                let (lock_request, granted) = table.request(set.clone());
                alive.push((lock_request, set, granted));
            } else {
                let held: Vec<usize> = (0..alive.len()).filter(|&n| alive[n].2).collect();
                assert!(!held.is_empty(), "seed {seed}: no request is granted: deadlock");
                let (lock_request, ..) = alive.remove(held[random(held.len() as u64) as usize]);
                for granted in release(&mut table, lock_request) {
                    let entry =
                        alive.iter_mut().find(|entry| entry.0 == granted).expect("a granted request exists");
                    assert!(!entry.2, "seed {seed}: granted twice");
                    entry.2 = true;
                }
            }
            for (place, (lock_request, set, granted)) in alive.iter().enumerate() {
                let expected = alive[..place].iter().all(|(other, earlier, _)| {
                    !conflict(earlier, set) || splits.contains(&(*other, *lock_request))
                });
                assert_eq!(*granted, expected, "seed {seed}: request {lock_request}");
            }
            assert_eq!(table.is_empty(), alive.is_empty(), "seed {seed}");
        }
    }
}

/// Splits a random key off the request at `at`, or adds one to it, in the table and in the model. Returns the request
/// that was split off, and the one it was split from.
fn alter(
    table: &mut LockTable,
    alive: &mut Vec<(LockRequestId, LockSet, bool)>,
    at: usize,
    random: &mut impl FnMut(u64) -> u64,
    seed: u64,
) -> Option<(LockRequestId, LockRequestId)> {
    let key = KeyLock { id: random(5), exclusive: true };
    let only_key = LockSet::Keys(smallvec![key]);
    let (lock_request, set, granted) = alive[at].clone();
    if random(2) == 0 {
        let holds = granted
            && match &set {
                LockSet::Keys(keys) => keys.contains(&key),
                // The key may have been split off before.
                LockSet::Whole => alive[..at].iter().all(|(_, earlier, _)| !conflict(earlier, &only_key)),
            };
        let split = table.split(lock_request, key.id);
        assert_eq!(split.is_some(), holds, "seed {seed}");
        let new = split?;
        if let LockSet::Keys(keys) = &mut alive[at].1 {
            keys.retain(|held| held.id != key.id);
        }
        alive.insert(at, (new, only_key, true));
        return Some((new, lock_request));
    }
    if let LockSet::Keys(keys) = &set
        && granted
        && keys.iter().all(|held| held.id != key.id)
    {
        // Requests behind a waiting one for the whole keyspace are not granted yet, so they do not conflict.
        let is_waiting =
            |(_, set, granted): &(LockRequestId, LockSet, bool)| *set == LockSet::Whole && !granted;
        let end = alive.iter().position(is_waiting).unwrap_or(alive.len());
        let free = (0..end).all(|other| other == at || !conflict(&alive[other].1, &only_key));
        assert_eq!(table.extend(lock_request, &[key]), free, "seed {seed}");
        if free && let LockSet::Keys(keys) = &mut alive[at].1 {
            keys.push(key);
        }
    }
    None
}

fn conflict(a: &LockSet, b: &LockSet) -> bool {
    match (a, b) {
        (LockSet::Keys(a), LockSet::Keys(b)) => {
            a.iter().any(|x| b.iter().any(|y| x.id == y.id && (x.exclusive || y.exclusive)))
        }
        _ => true,
    }
}
