//! Eviction of a worker whose clock advances by a fixed time at each look, and whose memory is what the test says.

use super::super::tests::{Sleeper, worker_alone};
use super::*;
use crate::call::{Call, Key};
use crate::config::Config;
use crate::shard::event::Event;
use crate::shard::lock::LockSet;
use crate::types::{NewValue, SetExpire, hash_key};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const LIMIT_BYTES: u64 = 1 << 30;

/// How long each look at the clock takes: the time of 50 steps is that of a turn by default.
const LOOK_NANOS: u64 = 10_000;
const STEPS_A_TURN: u64 = 50;

/// A worker that uses so much more than it may, with so many keys, all or none of which have a time to live.
fn worker(config: Config, excess_bytes: i64, keys: usize, expires: bool) -> (Worker, &'static Sleeper) {
    let (mut worker, clock) = worker_alone();
    clock.look_nanos.store(LOOK_NANOS, Ordering::Relaxed);
    clock.allocated_bytes.store(LIMIT_BYTES as i64 + excess_bytes, Ordering::Relaxed);
    for number in 0..keys {
        let expire = if expires { SetExpire::At(1_000_000) } else { SetExpire::Clear };
        set(&mut worker, &format!("key:{number}"), NewValue::Int(1), expire);
    }
    worker.before_wait();
    worker.begin_turn();
    worker.shard.set_config(Arc::new(Config { maxmemory_bytes: LIMIT_BYTES, ..config }));
    worker.track_eviction();
    (worker, clock)
}

fn set(worker: &mut Worker, name: &str, value: NewValue<'_>, expire: SetExpire) {
    let key = Key { bytes: name.as_bytes(), hash: hash_key(name.as_bytes()) };
    worker.shard.set(&Call::default(), key, value, expire, Event::SET);
}

fn policy(maxmemory_policy: MaxmemoryPolicy) -> Config {
    Config { maxmemory_policy, ..Config::default() }
}

fn evicted(worker: &Worker) -> u64 {
    worker.shard.stats.evicted_keys.get()
}

fn next_turn(worker: &mut Worker) {
    worker.end_turn();
    worker.before_wait();
    worker.begin_turn();
}

#[test]
fn the_time_for_eviction_grows_with_the_tenacity() {
    assert_eq!([0, 1, 10].map(limit_nanos), [0, 50_000, 500_000]);
    assert_eq!(limit_nanos(11), 575_000);
    assert!(limit_nanos(99) > 100_000_000_000 && limit_nanos(99) < u64::MAX);
    assert_eq!(limit_nanos(100), u64::MAX);
}

/// Each group of a turn's commands, and the end of the turn, used to have that time anew.
#[test]
fn all_commands_of_a_turn_wait_together_for_as_long_as_the_tenacity_says() {
    let (mut worker, _) = worker(policy(MaxmemoryPolicy::AllkeysLru), 100 << 20, 10_000, false);
    let mut before = 0;
    for turn in 0..5 {
        worker.make_room(32);
        let in_turn = evicted(&worker) - before;
        // The last step begins before the time is up.
        assert!((STEPS_A_TURN - 5..=STEPS_A_TURN + 1).contains(&in_turn), "turn {turn}: {in_turn}");
        (0..100).for_each(|_| worker.make_room(32));
        worker.evict_wanted();
        assert_eq!(evicted(&worker) - before, in_turn, "turn {turn}");
        assert!(!worker.eviction.is_memory_full(), "commands run");
        assert!(worker.must_evict_more() && worker.idle_ms() == 0, "and the next turn goes on");
        before = evicted(&worker);
        next_turn(&mut worker);
        assert_eq!(evicted(&worker), before, "the end of the turn is a part of it");
    }
}

#[test]
fn what_others_want_is_evicted_in_the_time_of_the_turn() {
    let (mut worker, _) = worker(policy(MaxmemoryPolicy::AllkeysLru), -(100 << 20), 10_000, false);
    worker.globals.evictions.ask(0, 1 << 20);
    for turn in 1..4 {
        (0..10).for_each(|_| worker.evict_wanted());
        let least = turn * (STEPS_A_TURN - 5);
        assert!((least..=turn * (STEPS_A_TURN + 1)).contains(&evicted(&worker)), "{}", evicted(&worker));
        assert!(worker.must_evict_more());
        next_turn(&mut worker);
    }
}

#[test]
fn without_any_time_each_turn_does_a_step() {
    let config = Config { maxmemory_eviction_tenacity: 0, ..policy(MaxmemoryPolicy::AllkeysRandom) };
    let (mut worker, _) = worker(config, 100 << 20, 1000, false);
    for turn in 1..10 {
        (0..5).for_each(|_| worker.make_room(32));
        assert_eq!(evicted(&worker), turn);
        next_turn(&mut worker);
    }
    let before = evicted(&worker);
    (0..10).for_each(|_| next_turn(&mut worker));
    assert_eq!(evicted(&worker), before + 10);
}

/// The end of the loop went by the number of evicted keys, so that it never came where none was evicted.
#[test]
fn a_look_in_vain_ends_without_any_time_passing_or_limit() {
    let config = Config { maxmemory_eviction_tenacity: 100, ..policy(MaxmemoryPolicy::AllkeysLru) };
    let (mut worker, clock) = worker(config, 100 << 20, 1000, false);
    clock.look_nanos.store(0, Ordering::Relaxed);
    let (request, _) = worker.shard.locks.request(LockSet::Whole);
    for _ in 0..5 {
        worker.make_room(32);
        worker.globals.evictions.ask(0, 1 << 20);
        worker.evict_wanted();
        assert_eq!(worker.globals.evictions.wanted_bytes(0), 0, "others are not kept waiting for it");
        assert_eq!((evicted(&worker), worker.eviction.is_memory_full()), (0, false));
        assert_eq!(
            (worker.must_evict_more(), worker.idle_ms()),
            (true, 1),
            "it tries again, but without haste"
        );
        next_turn(&mut worker);
    }
    worker.shard.locks.release(request, &mut Vec::new());
    worker.make_room(32);
    assert_eq!((evicted(&worker), worker.eviction.is_memory_full()), (1000, true), "there is no key left");
    assert!(!worker.must_evict_more());
}

#[test]
fn commands_are_refused_if_no_key_may_be_evicted_even_when_the_time_is_up() {
    let (mut worker, _) = worker(policy(MaxmemoryPolicy::VolatileLru), 100 << 20, 1000, false);
    (worker.eviction.spent_nanos, worker.eviction.has_stepped) = (u64::MAX, true);
    worker.make_room(32);
    assert!(worker.eviction.is_memory_full() && !worker.must_evict_more());
}

#[test]
fn a_long_look_is_continued_in_the_next_turns() {
    let config = Config { maxmemory_samples: 64, ..policy(MaxmemoryPolicy::VolatileTtl) };
    let (mut worker, _) = worker(config, 100 << 20, 120_000, false);
    // One step is all that a turn has time for.
    worker.eviction.limit_nanos = 0;
    // So many that the sample of them all goes through most of the table, wherever it begins.
    for number in 0..40 {
        set(&mut worker, &format!("key:{}", 1000 * number), NewValue::Int(1), SetExpire::At(1_000_000));
    }
    let mut turns = 0;
    while evicted(&worker) == 0 && turns < 100 {
        worker.make_room(32);
        assert!(!worker.eviction.is_memory_full());
        next_turn(&mut worker);
        turns += 1;
    }
    assert!((2..100).contains(&turns), "{turns}");
}

/// Otherwise a client that sends more in a turn than is evicted in its time would have the memory grow without end.
#[test]
fn commands_wait_longer_the_more_memory_grows_while_eviction_is_behind() {
    const PART: u64 = 1 << 20;
    let behind = |spent_nanos: u64| Eviction {
        is_behind: true,
        least_excess_bytes: 10 * PART,
        limit_nanos: 500_000,
        spent_nanos,
        ..Eviction::default()
    };
    let budget =
        |spent_nanos: u64, excess_bytes: u64| behind(spent_nanos).budget_nanos(32, excess_bytes, PART);
    assert_eq!(budget(600_000, 9 * PART), 500_000);
    assert_eq!(budget(600_000, 11 * PART - 1), 500_000);
    assert_eq!(budget(600_000, 11 * PART), 600_000 + 32 * COMMAND_NANOS);
    assert_eq!(budget(600_000, 13 * PART), 600_000 + 32 * COMMAND_NANOS * 4);
    assert_eq!(budget(600_000, 100 * PART), 600_000 + 32 * 500_000, "as long as Redis has each wait");
    assert_eq!(budget(0, 11 * PART), 500_000, "there is time left");
    let in_time = Eviction { is_behind: false, ..behind(600_000) };
    assert_eq!(in_time.budget_nanos(32, 100 * PART, PART), 500_000);
    let without_time = Eviction { limit_nanos: 0, ..behind(0) };
    assert_eq!(without_time.budget_nanos(1, 100 * PART, PART), COMMAND_NANOS_MIN);
}

#[test]
fn memory_that_grows_beyond_the_slack_has_the_commands_of_a_turn_wait_longer() {
    let (mut worker, clock) = worker(policy(MaxmemoryPolicy::AllkeysLru), 100 << 20, 10_000, false);
    worker.make_room(32);
    worker.make_room(32);
    let before = evicted(&worker);
    clock.allocated_bytes.fetch_add((LIMIT_BYTES / 100) as i64 * 3, Ordering::Relaxed);
    worker.make_room(32);
    assert!(evicted(&worker) > before);
}

#[test]
fn garbage_does_not_make_the_memory_full() {
    const VALUE_BYTES: usize = 64 << 20;
    let (mut worker, clock) = worker(policy(MaxmemoryPolicy::Noeviction), -(1 << 20), 0, false);
    set(&mut worker, "big", NewValue::Owned(vec![0; VALUE_BYTES]), SetExpire::Clear);
    worker.shard.delete(&Call::default(), Key { bytes: b"big", hash: hash_key(b"big") }, Event::DEL);
    clock.allocated_bytes.fetch_add(worker.shard.garbage_bytes() as i64, Ordering::Relaxed);
    worker.make_room(32);
    assert!(!worker.eviction.is_memory_full());
    // More than the table has free.
    clock.allocated_bytes.fetch_add(32 << 20, Ordering::Relaxed);
    worker.make_room(32);
    assert!(worker.eviction.is_memory_full());
}

#[test]
fn much_garbage_is_freed_in_the_time_of_the_turn_before_more_keys_go() {
    const VALUE_BYTES: usize = 64 << 20;
    let (mut worker, clock) = worker(policy(MaxmemoryPolicy::AllkeysLru), 0, 100, false);
    set(&mut worker, "big", NewValue::Owned(vec![0; VALUE_BYTES]), SetExpire::Clear);
    worker.shard.delete(&Call::default(), Key { bytes: b"big", hash: hash_key(b"big") }, Event::DEL);
    let mut held = worker.shard.garbage_bytes();
    assert!(held >= VALUE_BYTES as u64);
    clock.allocated_bytes.fetch_add(held as i64, Ordering::Relaxed);
    for _ in 0..3 {
        (0..10).for_each(|_| worker.make_room(32));
        let freed = held - worker.shard.garbage_bytes();
        let slice_bytes = GARBAGE_SLICE as u64 * 4096;
        assert!(((STEPS_A_TURN - 5) * slice_bytes..=(STEPS_A_TURN + 1) * slice_bytes).contains(&freed));
        assert!(worker.must_evict_more());
        next_turn(&mut worker);
        clock.allocated_bytes.fetch_sub((held - worker.shard.garbage_bytes()) as i64, Ordering::Relaxed);
        held = worker.shard.garbage_bytes();
    }
    assert_eq!(evicted(&worker), 0);
}
