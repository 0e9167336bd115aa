//! Big values that are saved part by part, while they change, move, and go.
//!
//! Mistakes that were made on purpose, one at a time, and found: a value that is removed is freed; a value that moves leaves its
//! record behind, or what was kept of its string; a record that is begun is not continued first; a string changes before its
//! pieces are kept.

use super::*;
use crate::testing::{Rng, with_seed};
use crate::types::dict::DictSet;
use crate::types::save::tests::{change, elements_of, empty, is_ordered, pairs};
use crate::types::save::{Element, ElementWriter, PIECE_LEN, Record, Totals};
use crate::types::{Collection, OwnedEntry, ValueMut};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

/// A database, a key, its value as one string, and its expiry.
type Saved = (u32, Vec<u8>, Vec<u8>, Option<i64>);
type Written = Arc<Mutex<Vec<Saved>>>;

/// The whole of a value.
fn contents(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Int(number) => number.to_string().into_bytes(),
        ValueRef::Str(bytes) | ValueRef::Packed(_, bytes) => bytes.to_vec(),
        ValueRef::Object(object) => joined(
            elements_of(object).into_iter().map(|(key, value)| [key, value].join(&b'=')),
            &is_ordered(object),
        ),
    }
}

fn joined(parts: impl Iterator<Item = Vec<u8>>, is_ordered: &bool) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = parts.collect();
    if !is_ordered {
        parts.sort();
    }
    parts.join(&b' ')
}

/// Collects the entries of a database.
struct Collector {
    db: u32,
    written: Written,
    totals: Arc<Totals>,
}

/// Collects the parts of a value. What it writes tells of which value it is.
struct ValueCollector {
    saved: Saved,
    parts: Vec<Vec<u8>>,
    is_text: bool,
    is_ordered: bool,
    number: u8,
    written: Written,
}

impl ElementWriter for ValueCollector {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        for (key, value) in pairs(element) {
            self.parts.push(if self.is_text { key } else { [key, value].join(&b'=') });
        }
        out.push(self.number);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let parts = std::mem::take(&mut self.parts);
        self.saved.2 =
            if self.is_text { parts.concat() } else { joined(parts.into_iter(), &self.is_ordered) };
        self.written.lock().unwrap().push(self.saved.clone());
        out.push(self.number);
    }
}

impl EntryWriter for Collector {
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>) {
        let value = contents(entry.value());
        self.written.lock().unwrap().push((self.db, entry.key().to_vec(), value, entry.expire_at_ms()));
        out.push(0);
    }

    fn begin(&mut self, entry: Entry<'_>) -> Option<Record> {
        let (is_text, is_ordered, count) = match entry.value() {
            ValueRef::Str(bytes) => (true, false, bytes.len().div_ceil(PIECE_LEN)),
            ValueRef::Object(object) => (false, is_ordered(object), object.element_count()),
            ValueRef::Int(_) | ValueRef::Packed(..) => return None,
        };
        // The same for no two values that are written one after the other.
        let number = 1 + (hash_key(entry.key()) % 200) as u8;
        let saved = (self.db, entry.key().to_vec(), Vec::new(), entry.expire_at_ms());
        let written = Arc::clone(&self.written);
        let parts = ValueCollector { saved, parts: Vec::new(), is_text, is_ordered, number, written };
        Some(Record::new(vec![number], count, Box::new(parts), &self.totals))
    }
}

/// Two databases.
struct Pair {
    tables: [Table; 2],
}

const KEYS: usize = 12;

fn key(rng: &mut Rng) -> Vec<u8> {
    format!("key:{}", rng.below(KEYS)).into_bytes()
}

fn string(rng: &mut Rng) -> Vec<u8> {
    let len = 2_000 + rng.below(3_000);
    vec![rng.next() as u8; len]
}

impl Pair {
    fn add(&mut self, rng: &mut Rng) {
        let (db, key) = (rng.below(2), key(rng));
        let value = if rng.one_in(3) {
            OwnedValue::Str(string(rng))
        } else {
            let mut object = empty(rng.below(5), rng);
            (0..20 + rng.below(200)).for_each(|_| change(&mut object, rng, true));
            OwnedValue::Object(Box::new(object))
        };
        let table = &mut self.tables[db];
        table.will_change(hash_key(&key));
        table.set(hash_key(&key), &key, NewValue::from(value), SetExpire::Clear);
    }

    fn step(&mut self, rng: &mut Rng) {
        let (db, key, to) = (rng.below(2), key(rng), key(rng));
        let (hash, to_hash, to_db) = (hash_key(&key), hash_key(&to), rng.below(2));
        self.tables[db].will_change(hash);
        self.tables[to_db].will_change(to_hash);
        match rng.below(12) {
            0 => self.add(rng),
            1 => {
                self.tables[db].remove(hash, &key);
            }
            2 => {
                if let Some(entry) = self.tables[db].take(hash, &key) {
                    self.tables[to_db].put(to_hash, OwnedEntry { key: to.into(), ..entry });
                }
            }
            3 | 4 => {
                if let Some((entry, saved)) = self.tables[db].take_with_record(hash, &key) {
                    self.tables[to_db].put(to_hash, OwnedEntry { key: to.clone().into(), ..entry });
                    if let Some(saved) = saved {
                        self.tables[to_db].take_record_over(saved, to_hash, &to);
                    }
                }
            }
            5 => {
                self.tables[db].set_expire(hash, &key, Some(rng.below(100) as i64));
            }
            6 => {
                let due = rng.below(100) as i64;
                while self.tables[db].expire_due(due, 20, &mut |_| true).more {}
            }
            7 => {
                let copy = self.tables[db].get(hash, &key).map(|entry| match entry.value() {
                    ValueRef::Object(object) => OwnedValue::Object(Box::new(object.duplicate())),
                    value => OwnedValue::Str(contents(value)),
                });
                if let Some(copy) = copy {
                    self.tables[to_db].set(to_hash, &to, NewValue::from(copy), SetExpire::Clear);
                }
            }
            8 if rng.one_in(4) => self.tables.swap(0, 1),
            _ => self.change_value(db, &key, rng),
        }
        for table in &mut self.tables {
            table.take_writes();
        }
    }

    fn change_value(&mut self, db: usize, key: &[u8], rng: &mut Rng) {
        let Some(mut entry) = self.tables[db].get_mut(hash_key(key), key) else { return };
        match entry.value() {
            ValueRef::Str(bytes) => {
                let (start, len) = (rng.below(bytes.len()), rng.below(300));
                let byte = rng.next() as u8;
                entry.string_mut(start + len, start..start + len)[start..start + len].fill(byte);
            }
            ValueRef::Object(_) => {
                let mut value = ValueMut::new(&mut entry);
                let mut object = value.object();
                let grows = rng.one_in(2);
                (0..rng.below(40)).for_each(|_| change(&mut object, rng, grows));
                let is_emptied = object.is_emptied();
                drop(object);
                if is_emptied {
                    entry.remove();
                }
            }
            ValueRef::Int(_) | ValueRef::Packed(..) => {}
        }
    }

    fn state(&self) -> Vec<Saved> {
        let mut all = Vec::new();
        for (db, table) in (0..).zip(&self.tables) {
            for number in 0..KEYS {
                let key = format!("key:{number}").into_bytes();
                if let Some(entry) = table.get(hash_key(&key), &key) {
                    all.push((db, key, contents(entry.value()), entry.expire_at_ms()));
                }
            }
        }
        all.sort();
        all
    }

    /// Writes some more of the values. Returns whether all is written.
    fn save_values(&mut self, open: &mut Option<u64>, out: &mut Vec<u8>, rng: &mut Rng) -> bool {
        let mut asks_left = rng.below(6);
        let mut is_over = || {
            let is_over = asks_left == 0;
            asks_left = asks_left.saturating_sub(1);
            is_over
        };
        loop {
            let next = self.tables.iter_mut().find_map(|table| {
                let has_next = table.snapshot_mut().is_some_and(|snapshot| snapshot.has_unsaved(*open));
                has_next.then_some(table)
            });
            let Some(table) = next else { return true };
            if !table.save_value(open, out, &mut is_over) {
                return false;
            }
        }
    }
}

fn run(rng: &mut Rng) {
    let mut pair = Pair { tables: [Table::new(), Table::new()] };
    for round in 1..=3 {
        (0..rng.below(16)).for_each(|_| pair.add(rng));
        let (written, totals) = (Written::default(), Arc::<Totals>::default());
        for (db, table) in (0..).zip(&mut pair.tables) {
            let collector = Collector { db, written: Arc::clone(&written), totals: Arc::clone(&totals) };
            table.begin_snapshot(NonZeroU16::new(round).unwrap(), Box::new(collector));
        }
        let expected = pair.state();

        let is_given_up = rng.one_in(5);
        let steps = rng.below(60);
        (0..steps).for_each(|_| pair.step(rng));
        for db in [0, 1] {
            let mut asked = 0;
            while !pair.tables[db].walk_snapshot(&mut || {
                asked += 1;
                asked % 50 == 0
            }) {
                pair.step(rng);
            }
        }
        let (mut open, mut out) = (None, Vec::new());
        let mut slices_left = if is_given_up { rng.below(10) } else { usize::MAX };
        while slices_left > 0 && !pair.save_values(&mut open, &mut out, rng) {
            (0..rng.below(4)).for_each(|_| pair.step(rng));
            slices_left -= 1;
        }
        if slices_left > 0 {
            let mut written = std::mem::take(&mut *written.lock().unwrap());
            written.sort();
            let keys = |all: &[Saved]| all.iter().map(|(db, key, ..)| (*db, key.clone())).collect::<Vec<_>>();
            assert_eq!(keys(&written), keys(&expected), "round {round}");
            let differing = written.iter().zip(&expected).find(|(written, expected)| written != expected);
            assert!(differing.is_none(), "round {round}: {:?}", differing.map(|(written, _)| &written.1));
            assert_eq!((open, totals.held_bytes()), (None, 0));
        }
        pair.tables.iter_mut().for_each(Table::end_snapshot);
        assert_eq!(totals.held_bytes(), 0);
        (0..20).for_each(|_| pair.step(rng));
    }
}

#[test]
fn big_values_are_saved_as_they_were_wherever_they_go_meanwhile() {
    let count = if cfg!(miri) { 1 } else { 60 };
    (0..count).for_each(|_| with_seed(run));
}

#[test]
fn the_record_that_is_begun_is_continued_before_others() {
    let mut rng = Rng::new(5);
    let (written, totals) = (Written::default(), Arc::<Totals>::default());
    let mut tables = [Table::new(), Table::new()];
    // The records of the table that is written first have the greater numbers.
    for (db, table) in (0..).zip(&mut tables).collect::<Vec<_>>().into_iter().rev() {
        for number in 0..4 {
            let key = format!("key:{number}").into_bytes();
            let object = Object::Set((0..100).fold(DictSet::new(), |mut set, member: u32| {
                set.insert(member.to_string().as_bytes());
                set
            }));
            table.set(hash_key(&key), &key, NewValue::Object(Box::new(object)), SetExpire::Clear);
        }
        let collector = Collector { db, written: Arc::clone(&written), totals: Arc::clone(&totals) };
        table.begin_snapshot(NonZeroU16::MIN, Box::new(collector));
        assert!(table.walk_snapshot(&mut || false));
    }
    let mut pair = Pair { tables };
    let (mut open, mut out) = (None, Vec::new());
    let mut moves = 0;
    while !pair.save_values(&mut open, &mut out, &mut rng) {
        // Wherever the value of the open record is, it is moved to the other database.
        let (from, to) = (moves % 2, (moves + 1) % 2);
        for number in 0..4 {
            let key = format!("key:{number}").into_bytes();
            let hash = hash_key(&key);
            if let Some((entry, Some(saved))) = pair.tables[from].take_with_record(hash, &key) {
                let to_key = format!("moved:{number}:{moves}").into_bytes();
                pair.tables[to].put(hash_key(&to_key), OwnedEntry { key: to_key.clone().into(), ..entry });
                pair.tables[to].take_record_over(saved, hash_key(&to_key), &to_key);
            }
        }
        moves += 1;
    }
    assert_eq!(written.lock().unwrap().len(), 8);
    // The head, a hundred members and the end of each record are contiguous.
    let records: Vec<&[u8]> = out.chunk_by(|a, b| a == b).collect();
    assert!(records.iter().all(|record| record.len() % 102 == 0), "{records:?}");
}
