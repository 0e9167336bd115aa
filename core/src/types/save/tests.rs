//! Collections that change while they are saved: what is written is what was there at the beginning.
//!
//! Mistakes that were made on purpose, one at a time, and found: an element is not written before it changes, or removed; it is
//! written, and not noted; what is new is not noted; a node is kept and keeps its ordinal; a node that was written is kept.

use super::*;
use crate::testing::{Rng, with_seed};
use crate::types::dict::{DictMap, DictSet};
use crate::types::list::{End, Limits, List};
use crate::types::listpack::Item;
use crate::types::zset::ZSet;
use crate::types::{Collection, Object};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What was written, element by element, and whether that was all.
#[derive(Default)]
pub(in crate::types) struct Written {
    pub(in crate::types) elements: Vec<(Vec<u8>, Vec<u8>)>,
    pub(in crate::types) is_complete: bool,
}

/// Collects the elements of a value.
#[derive(Clone, Default)]
pub(in crate::types) struct Collector(pub(in crate::types) Arc<Mutex<Written>>);

impl ElementWriter for Collector {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        let mut written = self.0.lock().unwrap();
        assert!(!written.is_complete);
        match element {
            Element::Field(field, value) => written.elements.push((field.to_vec(), value.to_vec())),
            Element::Member(member) => written.elements.push((member.to_vec(), Vec::new())),
            Element::Scored(member, score) => {
                written.elements.push((member.to_vec(), (score + 0.0).to_le_bytes().to_vec()));
            }
            Element::Bytes(_) => {}
            Element::Node(node) => {
                node.walk(0, |item| {
                    written.elements.push((item.to_vec(), Vec::new()));
                    true
                });
            }
        }
        if let Element::Bytes(bytes) = element {
            written.elements.push((bytes.to_vec(), Vec::new()));
        }
        out.push(b'.');
    }

    fn end(&mut self, _out: &mut Vec<u8>) {
        self.0.lock().unwrap().is_complete = true;
    }
}

/// The elements of a value; those of a list in order, the others sorted.
pub(in crate::types) fn elements_of(object: &Object) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut collector = Collector::default();
    object.each_element(|element| collector.write(element, &mut Vec::new()));
    let written = std::mem::take(&mut *collector.0.lock().unwrap());
    in_order(object, written.elements)
}

pub(in crate::types) fn in_order(
    object: &Object,
    mut elements: Vec<(Vec<u8>, Vec<u8>)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    if !matches!(object, Object::List(_)) {
        elements.sort();
    }
    elements
}

/// How many parts a value has.
pub(in crate::types) fn part_count(object: &Object) -> usize {
    let mut count = 0;
    object.each_element(|_| count += 1);
    count
}

fn key(rng: &mut Rng) -> Vec<u8> {
    let number = rng.below(700);
    if number % 50 == 0 { vec![b'k'; 250 + number] } else { number.to_string().into_bytes() }
}

fn change_list(list: &mut List, rng: &mut Rng, grows: bool) {
    let new = rng.below(1000).to_string().into_bytes();
    let new = if rng.one_in(20) { vec![b'n'; 300] } else { new };
    let (item, index) = (Item::of(&new), rng.below(list.len().max(1)));
    let end = *rng.pick(&[End::Head, End::Tail]);
    match rng.below(8) {
        0..3 if grows => list.push(end, item),
        3 if grows => list.insert(index, item),
        0..3 => list.remove(end, rng.below(6)),
        4 if list.len() > 0 => list.set(index, item),
        5 if list.len() > 0 => list.remove_at(index),
        6 => {
            list.remove_equal(&new, end, 1 + rng.below(3));
        }
        _ => list.push(end, item),
    }
}

/// One random change. A big part of them adds elements if `grows`, and removes some otherwise.
pub(in crate::types) fn change(object: &mut Object, rng: &mut Rng, grows: bool) {
    let (key, is_removal) = (key(rng), rng.below(8) < if grows { 2 } else { 6 });
    match object {
        Object::List(list) => change_list(list, rng, grows),
        Object::Set(set) if is_removal => drop(set.remove(&key)),
        Object::Set(set) => drop(set.insert(&key)),
        Object::ZSet(zset) if is_removal && rng.one_in(3) && zset.len() > 0 => {
            zset.remove_rank(rng.below(zset.len()), |_, _| {});
        }
        Object::ZSet(zset) if is_removal => drop(zset.remove(&key)),
        Object::ZSet(zset) => drop(zset.insert(&key, rng.below(40) as f64 - 20.0)),
        Object::Hash(hash) if is_removal => drop(hash.fields_mut().remove(&key)),
        Object::Hash(hash) => {
            let len = if rng.one_in(30) { 400 } else { rng.below(20) };
            hash.set(&key, &vec![b'v'; len]);
        }
        Object::Stream(_) | Object::Module(_) => unreachable!("none of these is made here"),
    }
}

pub(in crate::types) fn empty(kind: usize, rng: &mut Rng) -> Object {
    match kind {
        0 => Object::Set(DictSet::new()),
        1 => Object::ZSet(ZSet::new()),
        2 => Object::Hash(crate::types::hash::BigHash::default()),
        _ => {
            let node_size = *rng.pick(&[1, 2, 7, 30]);
            Object::List(List::new(Limits::new(node_size, rng.below(3) as u32, 200)))
        }
    }
}

fn run(rng: &mut Rng) {
    let mut object = empty(rng.below(4), rng);
    for _ in 0..3 {
        let grows = rng.one_in(2) || object.len() < 50;
        (0..rng.below(1500)).for_each(|_| change(&mut object, rng, grows));
        let (expected, collector, totals) = (elements_of(&object), Collector::default(), Arc::default());
        let parts = part_count(&object);
        let record = Record::new(b"head".to_vec(), parts, Box::new(collector.clone()), &totals);
        object.begin_saving(record);
        let copy = object.duplicate();
        assert!(copy.record().is_none());

        let (mut taken_bytes, mut grows) = (0, grows);
        while !object.record().is_some_and(Record::is_complete) {
            if rng.one_in(10) {
                grows = !grows;
            }
            let change_count = if rng.one_in(8) { 900 } else { 30 };
            for _ in 0..rng.below(change_count) {
                change(&mut object, rng, grows);
            }
            let mut asks_left = rng.below(4);
            let mut is_over = || {
                let is_over = asks_left == 0;
                asks_left = asks_left.saturating_sub(1);
                is_over
            };
            taken_bytes += object.save_some(&mut is_over).len();
        }
        taken_bytes += object.save_some(&mut || false).len();
        assert!(object.end_saving().is_some() && object.record().is_none());
        assert_eq!(totals.held_bytes(), 0);
        assert_eq!(taken_bytes, 4 + parts);
        let written = std::mem::take(&mut *collector.0.lock().unwrap());
        assert!(written.is_complete);
        assert_eq!(in_order(&object, written.elements), expected);
    }
}

#[test]
fn a_collection_that_changes_while_it_is_saved_is_written_as_it_was() {
    let count = if cfg!(miri) { 1 } else { 120 };
    (0..count).for_each(|_| with_seed(run));
}

#[test]
fn what_is_held_because_of_changes_is_counted_until_it_is_taken() {
    let mut fields = DictMap::new();
    (0..500).for_each(|n: u32| drop(fields.set(n.to_string().as_bytes(), b"old")));
    let (collector, totals) = (Collector::default(), Arc::default());
    fields.begin_saving(Record::new(Vec::new(), 500, Box::new(collector.clone()), &totals));
    assert_eq!((totals.held_bytes(), totals.take_forced_bytes()), (0, 0));

    fields.set(b"7", b"new");
    let held_bytes = totals.held_bytes();
    assert!(held_bytes > 1 && totals.take_forced_bytes() == held_bytes as u64);
    fields.set(b"7", b"newer");
    assert_eq!(totals.held_bytes(), held_bytes, "it was written before");
    fields.set(b"new", b"new");
    assert!(totals.held_bytes() > held_bytes);

    assert_eq!(fields.save_some(&mut || false).len(), 500);
    assert_eq!(totals.held_bytes(), 0, "nothing is noted any more");
    let written = std::mem::take(&mut *collector.0.lock().unwrap());
    let values: BTreeMap<_, _> = written.elements.into_iter().collect();
    assert!(values.len() == 500 && values.values().all(|value| value == b"old"));
    drop(fields);
    assert_eq!(totals.held_bytes(), 0);
}
