//! Big values that are saved part by part, while they change, move, and go.
//!
//! Mistakes that were made on purpose, one at a time, and found: a value that is removed is freed; a value that moves leaves its
//! record behind, or what was kept of its string; a record that is begun is not continued first; a string changes before its
//! pieces are kept; a module changes a value before it is written.

use super::*;
use crate::testing::{Rng, with_seed};
use crate::types::dict::DictSet;
use crate::types::module::{
    AuxPlace, DigestSink, LoadSource, ModulePtr, ModuleType, ModuleTypeId, ModuleValue, NotCopied, SaveSink,
};
use crate::types::save::tests::{change, elements_of, empty, is_ordered, pairs};
use crate::types::save::{Chunk, Element, ElementWriter, PIECE_LEN, Record, Totals};
use crate::types::{Collection, OwnedEntry, ValueMut};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A database, a key, its value as one string, and its expiry.
type Saved = (u32, Vec<u8>, Vec<u8>, Option<i64>);
type Written = Arc<Mutex<Vec<Saved>>>;

/// The whole of a value.
fn contents(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Int(number) => number.to_string().into_bytes(),
        ValueRef::Str(bytes) | ValueRef::Packed(_, bytes) => bytes.to_vec(),
        ValueRef::Object(Object::Module(value)) => value.ptr().0.addr().to_string().into_bytes(),
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

/// A module's type: its values are numbers, and at times it cannot be called.
#[derive(Default)]
struct Numbers {
    is_busy: AtomicBool,
}

impl ModuleType for Numbers {
    fn name(&self) -> &'static str {
        "numbers__"
    }

    fn id(&self) -> ModuleTypeId {
        ModuleTypeId::of(b"numbers__", 0).expect("a good name")
    }

    fn is_callable(&self) -> bool {
        !self.is_busy.load(Ordering::Relaxed)
    }

    fn save(&self, _value: ModulePtr, _place: KeyPlace<'_>, _sink: &mut dyn SaveSink) {}

    fn load(&self, _source: &mut dyn LoadSource, _encver: u16, _place: KeyPlace<'_>) -> Option<ModulePtr> {
        None
    }

    fn saves_aux(&self, _when: AuxPlace) -> bool {
        false
    }

    fn save_aux(&self, _when: AuxPlace, _sink: &mut dyn SaveSink) {}

    fn load_aux(&self, _source: &mut dyn LoadSource, _encver: u16, _when: AuxPlace) -> bool {
        false
    }

    fn copy(&self, _value: ModulePtr, _: KeyPlace<'_>, _: KeyPlace<'_>) -> Result<ModulePtr, NotCopied> {
        Err(NotCopied::NotSupported)
    }

    fn digest(&self, _value: ModulePtr, _place: KeyPlace<'_>, _sink: &mut dyn DigestSink) -> bool {
        false
    }

    fn memory_usage(&self, _value: ModulePtr, _place: KeyPlace<'_>, _samples: usize) -> usize {
        0
    }

    fn free_effort(&self, _value: ModulePtr, _place: KeyPlace<'_>) -> usize {
        1
    }

    fn unlink(&self, _value: ModulePtr, _place: KeyPlace<'_>) {}

    fn free(&self, _value: ModulePtr) {}
}

fn number(rng: &mut Rng) -> ModulePtr {
    ModulePtr(std::ptr::without_provenance_mut(1 + rng.below(1000)))
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
            ValueRef::Object(Object::Module(value)) if value.module_type().is_callable() => return None,
            ValueRef::Object(Object::Module(_)) => (true, false, 1),
            ValueRef::Object(object) => (false, is_ordered(object), object.element_count()),
            ValueRef::Int(_) | ValueRef::Packed(..) => return None,
        };
        // Another one for each value.
        let digits = entry.key().iter().filter(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + (digit - b'0')) + self.db as u8 * 100 + 1;
        let saved = (self.db, entry.key().to_vec(), Vec::new(), entry.expire_at_ms());
        let written = Arc::clone(&self.written);
        let parts = ValueCollector { saved, parts: Vec::new(), is_text, is_ordered, number, written };
        Some(Record::new(vec![number], count, Box::new(parts), &self.totals))
    }
}

/// Two databases, and a type of their values.
struct Pair {
    tables: [Table; 2],
    numbers: &'static Numbers,
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
        let value = match rng.below(6) {
            0 | 1 => OwnedValue::Str(string(rng)),
            2 => OwnedValue::Object(Box::new(Object::Module(ModuleValue::new(self.numbers, number(rng))))),
            _ => {
                let mut object = empty(rng.below(5), rng);
                (0..20 + rng.below(200)).for_each(|_| change(&mut object, rng, true));
                OwnedValue::Object(Box::new(object))
            }
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
        self.numbers.is_busy.store(rng.one_in(2), Ordering::Relaxed);
        match rng.below(12) {
            0 => self.add(rng),
            1 => {
                self.tables[db].remove(hash, &key);
            }
            2..=4 => {
                if let Some((entry, saved)) = self.tables[db].take(hash, &key) {
                    self.tables[to_db].put(to_hash, OwnedEntry { key: to.clone().into(), ..entry });
                    if let Some(saved) = saved {
                        self.tables[to_db].take_record_over(*saved, to_hash, &to);
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
                let copy = self.tables[db].get(hash, &key).and_then(|entry| match entry.value() {
                    ValueRef::Object(Object::Module(_)) => None,
                    ValueRef::Object(object) => Some(OwnedValue::Object(Box::new(object.duplicate()))),
                    value => Some(OwnedValue::Str(contents(value))),
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
        // As a module does that opens the key to write.
        self.tables[db].save_module_value(hash_key(key), key);
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
                if let Object::Module(value) = &mut *object {
                    value.replace(number(rng));
                    return;
                }
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
    fn save_values(&mut self, open: &mut Option<u64>, out: &mut Chunk, rng: &mut Rng) -> bool {
        self.save_some_values(open, out, rng.below(6))
    }

    /// The same, until it was asked so often whether it is enough.
    fn save_some_values(&mut self, open: &mut Option<u64>, out: &mut Chunk, mut asks_left: usize) -> bool {
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
    let mut pair = Pair { tables: [Table::new(), Table::new()], numbers: Box::leak(Box::default()) };
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
        let (mut open, mut out) = (None, Chunk::default());
        let mut slices_left = if is_given_up { rng.below(10) } else { usize::MAX };
        while slices_left > 0 && !pair.save_values(&mut open, &mut out, rng) {
            pair.numbers.is_busy.store(false, Ordering::Relaxed);
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
    const MEMBER_COUNT: u32 = 100;
    let (written, totals) = (Written::default(), Arc::<Totals>::default());
    let mut tables = [Table::new(), Table::new()];
    // The records of the table that is written first have the greater numbers.
    for (db, table) in (0..).zip(&mut tables).collect::<Vec<_>>().into_iter().rev() {
        for number in 0..4 {
            let key = format!("key:{number}").into_bytes();
            let object = Object::Set((0..MEMBER_COUNT).fold(DictSet::new(), |mut set, member: u32| {
                set.insert(member.to_string().as_bytes());
                set
            }));
            table.set(hash_key(&key), &key, NewValue::Object(Box::new(object)), SetExpire::Clear);
        }
        let collector = Collector { db, written: Arc::clone(&written), totals: Arc::clone(&totals) };
        table.begin_snapshot(NonZeroU16::MIN, Box::new(collector));
        assert!(table.walk_snapshot(&mut || false));
    }
    let mut pair = Pair { tables, numbers: Box::leak(Box::default()) };
    let (mut open, mut out) = (None, Chunk::default());
    let (mut moves, mut moved_open) = (0, 0);
    // A page at a time, so that each record is open for several slices.
    while !pair.save_some_values(&mut open, &mut out, 1) {
        moved_open += usize::from(open.is_some());
        // Wherever the value of the open record is, it is moved to the other database.
        let (from, to) = (moves % 2, (moves + 1) % 2);
        for number in 0..4 {
            let key = format!("key:{number}").into_bytes();
            let hash = hash_key(&key);
            if let Some((entry, Some(saved))) = pair.tables[from].take(hash, &key) {
                let to_key = format!("moved:{number}:{moves}").into_bytes();
                pair.tables[to].put(hash_key(&to_key), OwnedEntry { key: to_key.clone().into(), ..entry });
                pair.tables[to].take_record_over(*saved, hash_key(&to_key), &to_key);
            }
        }
        moves += 1;
    }
    assert_eq!(written.lock().unwrap().len(), 8);
    assert!(moved_open > 8, "{moved_open}");
    // The head, all members and the end of each record are contiguous.
    let records: Vec<&[u8]> = out.bytes.chunk_by(|a, b| a == b).collect();
    assert_eq!(records.len(), 8, "all have different numbers: {records:?}");
    assert!(records.iter().all(|record| record.len() == MEMBER_COUNT as usize + 2), "{records:?}");
}

#[test]
fn a_removed_value_counts_as_held_until_it_is_written() {
    let (written, totals) = (Written::default(), Arc::<Totals>::default());
    let mut table = Table::new();
    let values = [OwnedValue::Str(vec![b'x'; 50_000]), {
        let mut rng = Rng::new(3);
        let mut object = empty(2, &mut rng);
        (0..500).for_each(|_| change(&mut object, &mut rng, true));
        OwnedValue::Object(Box::new(object))
    }];
    let lens = values.each_ref().map(|value| match value {
        OwnedValue::Object(object) => object.heap_bytes(),
        _ => 50_000,
    });
    for (key, value) in [b"a", b"b"].into_iter().zip(values) {
        table.set(hash_key(key), key, NewValue::from(value), SetExpire::Clear);
    }
    let collector = Collector { db: 0, written: Arc::clone(&written), totals: Arc::clone(&totals) };
    table.begin_snapshot(NonZeroU16::MIN, Box::new(collector));
    let mut held_bytes = 0;
    for (key, len) in [b"a", b"b"].into_iter().zip(lens) {
        table.will_change(hash_key(key));
        table.remove(hash_key(key), key);
        held_bytes += len;
        assert!(totals.held_bytes() >= held_bytes, "{} of {held_bytes}", totals.held_bytes());
    }
    assert!(totals.held_bytes() < held_bytes + 1000, "{} of {held_bytes}", totals.held_bytes());
    assert!(table.walk_snapshot(&mut || false));
    let (mut open, mut out) = (None, Chunk::default());
    while table.snapshot_mut().is_some_and(|snapshot| snapshot.has_unsaved(open)) {
        table.save_value(&mut open, &mut out, &mut || false);
    }
    assert_eq!(totals.held_bytes(), 0);
    assert_eq!(totals.take_forced_bytes(), 0, "nothing was copied");
    assert_eq!(written.lock().unwrap().len(), 2);
    table.end_snapshot();
}
