//! A snapshot has what the table had when it began, whatever is done to the table between the slices of the walk.
//!
//! Mistakes that were made on purpose, one at a time, and found: a change does not stamp its bucket; it stamps and does not
//! save; it saves after the change; the walk saves what is stamped; the expiry cycle does not save.

use super::model::{Model, as_string};
use super::*;
use crate::types::save::Record;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

/// What was saved: key, value and expiry.
type Written = Arc<Mutex<BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>>>;

/// Collects the entries that it gets, of which none may come twice.
struct Collector(Written);

impl EntryWriter for Collector {
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) {
        let value = match entry.value() {
            ValueRef::Int(number) => number.to_string().into_bytes(),
            ValueRef::Str(bytes) | ValueRef::Packed(_, bytes) => bytes.to_vec(),
            ValueRef::Object(_) => unreachable!("the model has none"),
        };
        let before = self.0.lock().unwrap().insert(entry.key().to_vec(), (value, entry.expire_at_ms()));
        assert!(before.is_none(), "{:?} is saved twice", entry.key());
        out.push(1);
    }

    fn begin(&mut self, _entry: Entry<'_>) -> Option<Record> {
        None
    }
}

fn version(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

/// Begins a snapshot and returns what is to be in it, and where it collects.
fn begin(model: &mut Model, number: u16) -> (BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>, Written) {
    let written = Written::default();
    model.table.begin_snapshot(version(number), Box::new(Collector(Arc::clone(&written))));
    let known = model.known.iter();
    let expected = known.map(|(key, known)| (key.clone(), (as_string(&known.value), known.expire_at_ms)));
    (expected.collect(), written)
}

/// Removes what has expired at a random time, and has the model forget it.
fn expire(model: &mut Model) {
    let now_ms = model.random.below(4_000) as i64;
    let known = &mut model.known;
    while model.table.expire_due(now_ms, 50, &mut |entry| known.remove(entry.key()).is_some()).more {}
}

#[test]
fn a_snapshot_has_the_state_of_its_beginning_whatever_changes_meanwhile() {
    for (seed, key_count) in [(71, 40), (72, 600), (73, 5_000), (74, 60_000)] {
        let mut model = Model::new(seed, key_count);
        for round in 1..=12 {
            // At first the table grows, so that segments split behind and before the walk.
            (0..rounds(2_000).max(200)).for_each(|_| model.step());
            let (expected, written) = begin(&mut model, round);
            let mut buckets_left = 0;
            let is_complete = |model: &mut Model, buckets_left: &mut u64| {
                model.table.walk_snapshot(&mut || {
                    *buckets_left = buckets_left.saturating_sub(1);
                    *buckets_left == 0
                })
            };
            while !is_complete(&mut model, &mut buckets_left) {
                for _ in 0..model.random.below(40) {
                    model.step();
                }
                if model.random.below(30) == 0 {
                    expire(&mut model);
                }
                buckets_left = 1 + model.random.below(key_count / 20 + 5);
            }
            model.step();
            assert_eq!(*written.lock().unwrap(), expected, "seed {seed}, round {round}");
            let taken = model.table.snapshot_mut().map(TableSnapshot::take_saved).unwrap_or_default();
            assert_eq!(taken.entries, expected.len() as u64);
            model.table.end_snapshot();
            model.check();
        }
    }
}

#[test]
fn a_table_that_is_emptied_is_saved_from_what_was_taken_out() {
    let mut model = Model::new(75, 2_000);
    (0..3_000).for_each(|_| model.step());
    let (expected, written) = begin(&mut model, 1);
    let mut asked = 0;
    assert!(!model.table.walk_snapshot(&mut || {
        asked += 1;
        asked > 30
    }));
    (0..200).for_each(|_| model.step());

    let mut detached = model.table.detach();
    model.known.clear();
    assert!(!model.table.is_in_snapshot());
    (0..200).for_each(|_| model.step());
    assert!(detached.contents().walk_snapshot(&mut || false));

    assert_eq!(*written.lock().unwrap(), expected);
    assert!(detached.contents().snapshot_mut().is_some_and(|snapshot| snapshot.take_walked(1).is_some()));
    detached.contents().end_snapshot();
    assert!(detached.free_some(usize::MAX));
    model.check();
}

#[test]
fn only_the_first_change_of_a_bucket_saves_it_and_only_what_was_there_at_the_beginning() {
    let written = Written::default();
    let mut table = Table::new();
    table.begin_snapshot(version(7), Box::new(Collector(Arc::clone(&written))));
    assert!(!table.is_in_snapshot(), "there is nothing to save");
    set(&mut table, b"a", NewValue::Str(b"old"), SetExpire::Clear);

    table.begin_snapshot(version(8), Box::new(Collector(Arc::clone(&written))));
    set(&mut table, b"a", NewValue::Str(b"new"), SetExpire::Clear);
    set(&mut table, b"a", NewValue::Str(b"newer"), SetExpire::At(5));
    fill(&mut table, 0..2_000);
    assert!(table.walk_snapshot(&mut || false));

    assert_eq!(*written.lock().unwrap(), BTreeMap::from([(b"a".to_vec(), (b"old".to_vec(), None))]));
    let snapshot = table.snapshot_mut().unwrap();
    let saved = snapshot.take_saved();
    assert!(saved.entries == 1 && saved.forced_bytes > 0, "{saved:?}");
    assert_eq!((snapshot.take_forced(2), snapshot.take_walked(1)), (None, None));
    assert_eq!(snapshot.take_forced(1), Some(vec![1]));
}

#[test]
fn segments_are_merged_again_only_after_a_snapshot() {
    let count = rounds(20_000).max(600);
    let mut table = Table::new();
    fill(&mut table, 0..count);
    let segments = table.directory.segment_count();
    table.begin_snapshot(version(1), Box::new(Collector(Written::default())));
    drain(&mut table, 0..count - 1);
    assert_eq!(table.directory.segment_count(), segments);
    table.end_snapshot();
    table.reset_versions();

    // All versions are free again.
    let written = Written::default();
    table.begin_snapshot(version(1), Box::new(Collector(Arc::clone(&written))));
    assert!(table.walk_snapshot(&mut || false));
    assert_eq!(written.lock().unwrap().len(), 1);
    table.end_snapshot();
    fill(&mut table, 0..count);
    drain(&mut table, 0..count);
    assert!(table.directory.segment_count() < segments.max(2));
}
