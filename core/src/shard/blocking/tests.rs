//! Waits on one shard: single handoffs step by step, and random ones against a model of who is blocked on what.

use super::*;
use crate::config::Config;
use crate::shard::event::Event;
use crate::shard::stats::ShardStats;
use crate::testing::Rng;
use crate::types::NewValue;
use std::sync::Arc;

fn shard() -> Shard {
    let config = Arc::new(Config::default());
    let stats = Arc::new(ShardStats::new(0, config.databases as usize));
    Shard::new(0, 1, config, stats, 1)
}

fn id(place: u64) -> WaitId {
    WaitId { home: 0, reply_id: ReplyId { conn: 0, generation: 0, place } }
}

fn call(db: u32) -> Call {
    let command = crate::command::table::CommandId::default();
    Call { command, db, client: 1, ..Call::default() }
}

fn key(name: &str) -> Key<'_> {
    Key { bytes: name.as_bytes(), hash: hash_key(name.as_bytes()) }
}

fn wait(shard: &mut Shard, place: u64, db: u32, keys: &[&str]) {
    let args = OwnedArgv::from_slices(&[&["TAKE"], keys].concat());
    let positions = (1..=keys.len() as u32).collect();
    shard.wait(id(place), Wait { call: call(db), args, positions, ends_with_key: false, is_tried: false });
}

/// Sets a key and signals the change.
fn change(shard: &mut Shard, db: u32, name: &str) {
    shard.set_uncounted(&call(db), key(name), NewValue::Int(1), Event::SET);
    shard.signal(db, key(name));
}

fn due(shard: &mut Shard) -> Option<u64> {
    shard.blocking.next_due(&shard.locks)
}

fn is_locked(shard: &Shard, name: &str) -> bool {
    shard.locks.conflicts(&[KeyLock { id: key(name).hash, exclusive: false }])
}

#[test]
fn a_changed_key_is_locked_and_offered_to_the_first_waiter() {
    let mut shard = shard();
    wait(&mut shard, 1, 0, &["a", "b"]);
    wait(&mut shard, 2, 0, &["b", "a", "b"]);
    change(&mut shard, 0, "b");
    assert!(is_locked(&shard, "b") && !is_locked(&shard, "a"));

    let lock = due(&mut shard).expect("b has changed");
    assert_eq!(lock, key("b").hash);
    assert_eq!(shard.blocking.next(lock), Next::Ask { wait: id(1), position: 2 });
    let number = shard.blocking.offer(lock, id(1));
    assert_eq!(shard.blocking.next(lock), Next::Pause, "one offer at a time");
    shard.blocking.forget(id(1));
    shard.blocking.end_offer(OfferId { shard: 0, lock, number, position: 2 });
    assert_eq!(due(&mut shard), Some(lock));
    assert_eq!(shard.blocking.next(lock), Next::Ask { wait: id(2), position: 1 });
    shard.blocking.pass(lock, id(2));
    let Next::End(lock_request) = shard.blocking.next(lock) else { panic!("no waiter is left to ask") };
    shard.locks.release(lock_request, &mut Vec::new());

    assert_eq!(shard.blocking.waits_on(0, b"a"), [id(2)]);
    assert_eq!(shard.blocking.waits_on(0, b"b"), [id(2)], "a wait that is passed over keeps its place");
    shard.blocking.forget(id(2));
    assert!(shard.blocking.is_empty() && shard.locks.is_empty());
}

#[test]
fn a_key_that_is_missing_or_awaited_in_another_database_is_not_offered() {
    let mut shard = shard();
    wait(&mut shard, 1, 3, &["a"]);
    change(&mut shard, 0, "a");
    shard.signal(3, key("a"));
    assert!(shard.locks.is_empty() && due(&mut shard).is_none());

    shard.dbs.swap(0, 3);
    shard.signal_all(0);
    shard.signal_all(3);
    assert_eq!(due(&mut shard), Some(key("a").hash));
}

#[test]
fn no_request_gets_between_a_transaction_and_the_waiters_for_a_key_it_changed() {
    let mut shard = shard();
    wait(&mut shard, 1, 0, &["a"]);
    let exclusive = |name| KeyLock { id: key(name).hash, exclusive: true };
    let (transaction, _) = shard.locks.request(LockSet::Keys(smallvec![exclusive("a"), exclusive("b")]));
    let (behind, _) = shard.locks.request(LockSet::Keys(smallvec![exclusive("a")]));

    shard.running = Some(transaction);
    change(&mut shard, 0, "a");
    change(&mut shard, 0, "a");
    shard.running = None;
    assert_eq!(due(&mut shard), None, "the transaction has not ended");
    let mut granted = Vec::new();
    shard.locks.release(transaction, &mut granted);
    assert_eq!(granted, []);

    let lock = due(&mut shard).expect("the transaction has ended");
    assert_eq!(due(&mut shard), None, "one handoff for both changes");
    assert_eq!(shard.blocking.next(lock), Next::Ask { wait: id(1), position: 1 });
    shard.blocking.pass(lock, id(1));
    let Next::End(lock_request) = shard.blocking.next(lock) else { panic!("no waiter is left to ask") };
    shard.locks.release(lock_request, &mut granted);
    assert_eq!(granted, [behind]);
}

#[test]
fn a_lent_lock_is_split_off_the_transaction_that_took_the_key() {
    let mut shard = shard();
    wait(&mut shard, 1, 0, &["a"]);
    wait(&mut shard, 2, 0, &["a"]);
    change(&mut shard, 0, "a");
    let lock = due(&mut shard).expect("a has changed");
    let number = shard.blocking.offer(lock, id(1));
    let offer = OfferId { shard: 0, lock, number, position: 1 };
    let stale = OfferId { number: number + 1, ..offer };
    assert_eq!(shard.blocking.lend(stale), None, "not the pending offer");

    let lock_request = shard.blocking.lend(offer).expect("the lock is held");
    assert_eq!(shard.blocking.lend(offer), None, "it is lent already");
    assert!(shard.locks.extend(lock_request, &[KeyLock { id: key("b").hash, exclusive: true }]));
    shard.take_back(lock, lock_request);
    shard.blocking.end_offer(offer);
    shard.locks.release(lock_request, &mut Vec::new());
    assert!(is_locked(&shard, "a") && !is_locked(&shard, "b"));
    assert_eq!(shard.blocking.next(lock), Next::Ask { wait: id(2), position: 1 }, "the first is passed over");

    // This time the lock is released early, and another request gets it.
    let number = shard.blocking.offer(lock, id(2));
    let offer = OfferId { number, ..offer };
    let lock_request = shard.blocking.lend(offer).expect("the lock is held");
    shard.locks.release(lock_request, &mut Vec::new());
    let own = LockSet::Keys(smallvec![KeyLock { id: lock, exclusive: true }]);
    let (other, _) = shard.locks.request(own.clone());
    let (lock_request, granted) = shard.locks.request(own);
    assert!(!granted && shard.blocking.next(lock) == Next::Pause);
    shard.locks.release(other, &mut Vec::new());
    shard.take_back(lock, lock_request);
    shard.blocking.end_offer(offer);
    let Next::End(_) = shard.blocking.next(lock) else { panic!("both have been asked") };
}

#[test]
fn a_handoff_waits_for_its_lock_if_that_is_not_free() {
    let mut shard = shard();
    wait(&mut shard, 1, 0, &["a"]);
    let reading = LockSet::Keys(smallvec![KeyLock { id: key("a").hash, exclusive: false }]);
    let (reader, _) = shard.locks.request(reading);
    change(&mut shard, 0, "a");
    let lock = due(&mut shard).expect("a has changed");
    assert_eq!(shard.blocking.next(lock), Next::Pause);
    let mut granted = Vec::new();
    shard.locks.release(reader, &mut granted);
    shard.blocking.granted(granted[0]);
    assert_eq!(due(&mut shard), Some(lock));
    assert_eq!(shard.blocking.next(lock), Next::Ask { wait: id(1), position: 1 });
}

/// The waits with their keys, in order of arrival, and the changed keys with the waits that have been asked since.
#[derive(Default)]
struct Model {
    waits: Vec<(WaitId, u32, Vec<&'static str>)>,
    changed: Vec<(u32, &'static str, Vec<WaitId>)>,
}

impl Model {
    fn stands(&self, db: u32, key: &str) -> impl Iterator<Item = WaitId> {
        let on_key = move |(_, other, keys): &&(WaitId, u32, Vec<&str>)| *other == db && keys.contains(&key);
        self.waits.iter().filter(on_key).map(|(id, ..)| *id)
    }

    /// The wait that is to be asked next about a key.
    fn next(&self, db: u32, key: &str) -> Option<WaitId> {
        let (.., asked) =
            self.changed.iter().find(|(other_db, other, _)| *other_db == db && *other == key)?;
        self.stands(db, key).find(|id| !asked.contains(id))
    }
}

#[test]
fn every_waiter_is_asked_in_order_after_each_change() {
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    for seed in 1..200u64 {
        let mut rng = Rng::new(seed);
        let mut random = |n: usize| rng.below(n);
        let (mut shard, mut model) = (shard(), Model::default());
        for place in 0..200 {
            let (db, name) = (random(2) as u32, KEYS[random(KEYS.len())]);
            match random(5) {
                0 | 1 => {
                    let mut keys: Vec<&str> = (0..1 + random(3)).map(|_| KEYS[random(KEYS.len())]).collect();
                    // A key in a handoff is locked, so no new command can have run and blocked on it.
                    keys.retain(|name| !is_locked(&shard, name));
                    wait(&mut shard, place, db, &keys);
                    model.waits.push((id(place), db, keys));
                }
                2 if !model.waits.is_empty() => {
                    let (gone, ..) = model.waits.remove(random(model.waits.len()));
                    assert!(shard.blocking.forget(gone).is_some());
                }
                _ => {
                    change(&mut shard, db, name);
                    model.changed.retain(|(other_db, other, _)| *other_db != db || *other != name);
                    if model.stands(db, name).next().is_some() {
                        model.changed.push((db, name, Vec::new()));
                    }
                }
            }
            if random(3) == 0
                && let Some(lock) = due(&mut shard)
            {
                ask_some(&mut shard, &mut model, lock, random(4), seed);
            }
            for (db, name) in (0..2).flat_map(|db| KEYS.map(|name| (db, name))) {
                let stands: Vec<WaitId> = model.stands(db, name).collect();
                assert_eq!(shard.blocking.waits_on(db, name.as_bytes()), stands, "seed {seed}");
            }
            assert_eq!(shard.blocking.len(), model.waits.len(), "seed {seed}");
        }
        while let Some(lock) = due(&mut shard) {
            ask_some(&mut shard, &mut model, lock, usize::MAX, seed);
        }
        assert!(shard.locks.is_empty(), "seed {seed}");
        for (waiting, ..) in model.waits {
            shard.blocking.forget(waiting);
        }
        assert!(shard.blocking.is_empty(), "seed {seed}");
    }
}

/// Asks up to `count` of the waiters for the keys of a lock. Half of them take the key, and their waits end.
fn ask_some(shard: &mut Shard, model: &mut Model, lock: u64, count: usize, seed: u64) {
    let of_lock = |name: &str| key(name).hash == lock;
    for n in 0..count {
        let expected = |model: &Model| {
            let changed = model.changed.iter().filter(|(_, name, _)| of_lock(name));
            changed.filter_map(|(db, name, _)| model.next(*db, name)).collect::<Vec<_>>()
        };
        match shard.blocking.next(lock) {
            Next::Pause => panic!("seed {seed}: nothing delays the handoff"),
            Next::End(lock_request) => {
                assert_eq!(expected(model), [], "seed {seed}: a waiter was not asked");
                model.changed.retain(|(_, name, _)| !of_lock(name));
                shard.locks.release(lock_request, &mut Vec::new());
                return;
            }
            Next::Ask { wait, position } => {
                assert!(expected(model).contains(&wait), "seed {seed}: {wait:?} is not the next");
                let number = shard.blocking.offer(lock, wait);
                if n % 2 == 0 {
                    shard.blocking.forget(wait);
                    model.waits.retain(|(id, ..)| *id != wait);
                } else {
                    let (_, db, keys) =
                        model.waits.iter().find(|(id, ..)| *id == wait).expect("the wait exists");
                    let name = keys[position as usize - 1];
                    let asked = model.changed.iter_mut().find(|(other, key, _)| other == db && *key == name);
                    asked.expect("the key has changed").2.push(wait);
                }
                shard.blocking.end_offer(OfferId { shard: 0, lock, number, position });
                assert_eq!(shard.blocking.due.pop_front(), Some(lock));
            }
        }
    }
    shard.blocking.due.push_back(lock);
}
