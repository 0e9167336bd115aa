//! A snapshot of the table, taken while it changes.
//!
//! From [`Table::begin_snapshot`] on, each home bucket is saved once: its entries are passed to an [`EntryWriter`] and
//! the bucket is stamped with the snapshot's version. That happens when [`Table::walk_snapshot`] reaches the bucket, or
//! before the bucket's first change, whichever comes first. So a bucket that is not stamped has exactly the entries, with
//! the values, that it had when the snapshot began; and one that is stamped is never saved again.
//!
//! - The walk goes through the buckets in the order of their hashes. Its position is a hash and the number of a bucket,
//!   which stay valid when segments split: both halves of a split keep the versions of their buckets, so what the walk
//!   meets a second time is stamped.
//! - Segments are not merged during a snapshot.
//! - A big collection is not written with its bucket: it gets a [`Record`], which it carries from then on, and is written part
//!   by part ([`Table::save_value`]) when the walk is over, or before a part of it changes (see [`save`](crate::types::save)).
//!   A value that is removed or replaced before all of it is written is left to the snapshot, and freed afterwards. Where one
//!   moves to another place, or another table, its record goes with it ([`Table::take`], [`Table::take_record_over`]).
//! - So is a value of a module that cannot be written at that moment, because a thread of the module has the module to itself: it is
//!   written later, as a whole, and before the module changes it.
//! - A bucket may be saved before anything in it really changes: saving early changes nothing in what is saved.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;
use std::ops::Range;

use super::super::directory::end_of_prefix;
use super::super::entry::{OwnedValue, ValueRef};
use super::super::module::ModuleValue;
use super::super::object::{Collection, Object};
use super::super::save::{Chunk, Element, Held, Record, StringAt, Text};
use super::super::segment::{HOME_COUNT, Segment, home_of};
use super::{Entry, Table, hash_key};

/// The record of a value that moves.
#[must_use]
pub struct SavedElsewhere {
    number: u64,
    snapshot: u64,
    beside: Option<Beside>,
}

impl SavedElsewhere {
    /// The number of the snapshot.
    pub fn snapshot(&self) -> u64 {
        self.snapshot
    }
}

/// The record of a value that does not carry it itself.
enum Beside {
    Text(Text),
    Module(Record),
}

impl Beside {
    fn record(&self) -> &Record {
        match self {
            Beside::Text(text) => text.record(),
            Beside::Module(record) => record,
        }
    }
}

/// The record of a value that is not completely written: beside it, or else carried by it.
fn record_of<'a>(value: &'a OwnedValue, beside: Option<&'a Beside>) -> &'a Record {
    let carried = || match value {
        OwnedValue::Object(object) => object.record(),
        OwnedValue::Int(_) | OwnedValue::Raw(_) | OwnedValue::Str(_) | OwnedValue::Packed(..) => None,
    };
    beside.map(Beside::record).or_else(carried).expect("it has one, or carries it")
}

/// Writes entries down. The table knows nothing of the format.
pub trait EntryWriter: Send {
    /// Appends an entry to `out`, which is empty at first, and again whenever its contents were taken.
    fn write(&mut self, entry: Entry<'_>, out: &mut Vec<u8>);

    /// Begins the record of an entry whose value is an object, or a string outside of its entry. `None`: it is to be written as
    /// a whole, at once. A value of a module has one part.
    fn begin(&mut self, entry: Entry<'_>) -> Option<Record>;
}

/// Where a value is that is not completely written.
enum Unsaved {
    /// In the table, under this key.
    Present { hash: u64, key: Box<[u8]>, beside: Option<Beside> },
    /// It was removed from the table. What it takes counts as held.
    Removed { value: OwnedValue, beside: Option<Beside>, _held: Held },
    /// The record is complete, and the value is elsewhere.
    Complete(Record),
}

impl Unsaved {
    fn is_module(&self) -> bool {
        let (Unsaved::Present { beside, .. } | Unsaved::Removed { beside, .. }) = self else { return false };
        matches!(beside, Some(Beside::Module(_)))
    }
}

/// What a snapshot of a table has saved so far and is yet to be taken.
pub struct TableSnapshot {
    /// `None`: the table has got values of another one that are to be written, and no others.
    writer: Option<Box<dyn EntryWriter>>,
    /// Where the walk continues: a hash, and the home bucket in its segment. `None`: at the end.
    next: Option<(u64, usize)>,
    walked: Vec<u8>,
    forced: Vec<u8>,
    saved: Saved,
    /// By the numbers of the records.
    unsaved: BTreeMap<u64, Unsaved>,
    /// Those that are present and do not carry their record, by their keys.
    by_key: HashMap<Box<[u8]>, u64>,
}

/// What was saved since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub entries: u64,
    /// The memory of those entries that had to be saved because their bucket was about to change.
    pub forced_bytes: u64,
}

impl TableSnapshot {
    fn new(writer: Option<Box<dyn EntryWriter>>, next: Option<(u64, usize)>) -> Box<TableSnapshot> {
        Box::new(TableSnapshot {
            writer,
            next,
            walked: Vec::new(),
            forced: Vec::new(),
            saved: Saved::default(),
            unsaved: BTreeMap::new(),
            by_key: HashMap::new(),
        })
    }

    /// Whether there are values that are not completely written; with a number, whether there is one with this record.
    pub fn has_unsaved(&self, number: Option<u64>) -> bool {
        number.map_or(!self.unsaved.is_empty(), |number| self.unsaved.contains_key(&number))
    }

    /// What the walk has written, once it is at least `len_min` bytes (> 0).
    pub fn take_walked(&mut self, len_min: usize) -> Option<Vec<u8>> {
        take(&mut self.walked, len_min)
    }

    /// The same for what was saved because it was about to change.
    pub fn take_forced(&mut self, len_min: usize) -> Option<Vec<u8>> {
        take(&mut self.forced, len_min)
    }

    /// What was saved since the last call.
    pub fn take_saved(&mut self) -> Saved {
        std::mem::take(&mut self.saved)
    }

    /// The record of a value that is not completely written and was under this key, which it is no more.
    fn number_of(&mut self, value: &OwnedValue, key: &[u8]) -> Option<u64> {
        match value {
            OwnedValue::Object(object) if object.record().is_some() => object.record().map(Record::number),
            OwnedValue::Str(_) | OwnedValue::Object(_) => self.by_key.remove(key),
            OwnedValue::Int(_) | OwnedValue::Raw(_) | OwnedValue::Packed(..) => None,
        }
    }

    /// Saves the entries of a home bucket.
    fn save(&mut self, segment: &Segment, home: usize, is_forced: bool) {
        let TableSnapshot { writer, walked, forced, saved, unsaved, by_key, .. } = self;
        let Some(writer) = writer else { return };
        let out = if is_forced { forced } else { walked };
        segment.visit_home(home, &mut |_, ptr| {
            let entry = Entry::new(ptr);
            saved.entries += 1;
            let may_be_big = ptr.is_object() || ptr.is_big();
            if let Some(record) = may_be_big.then(|| writer.begin(entry)).flatten() {
                let (hash, key, number) = (hash_key(entry.key()), entry.key(), record.number());
                let beside = match entry.value() {
                    ValueRef::Str(bytes) => Some(Beside::Text(Text::new(record, bytes.len()))),
                    ValueRef::Object(Object::Module(_)) => Some(Beside::Module(record)),
                    ValueRef::Int(_) | ValueRef::Packed(..) | ValueRef::Object(_) => {
                        // SAFETY: the entry owns the object, and nothing else refers to it: the table is borrowed exclusively.
                        unsafe { &mut *ptr.object_ptr() }.begin_saving(record);
                        None
                    }
                };
                if beside.is_some() {
                    by_key.insert(key.into(), number);
                }
                unsaved.insert(number, Unsaved::Present { hash, key: key.into(), beside });
                return;
            }
            writer.write(entry, out);
            if is_forced {
                saved.forced_bytes += entry.alloc_size() as u64;
            }
        });
    }
}

/// Writes parts of a string. Returns whether all is written.
fn save_text(text: &mut Text, bytes: &[u8], out: &mut Chunk, is_over: &mut dyn FnMut() -> bool) -> bool {
    let Chunk { bytes: written, strings } = text.save_some(bytes, is_over);
    let start = out.bytes.len();
    out.strings.extend(strings.iter().map(|string| StringAt { at: start + string.at, ..*string }));
    append(&mut out.bytes, written);
    text.is_complete()
}

/// Writes a value of a module. Returns whether that is done: it is not while the module cannot be called.
fn save_module(record: &mut Record, value: &ModuleValue, out: &mut Chunk) -> bool {
    if !value.module_type().is_callable() {
        return false;
    }
    record.write(Element::Module(value));
    append(&mut out.bytes, record.take());
    true
}

fn module_of(object: &Object) -> &ModuleValue {
    let Object::Module(value) = object else { unreachable!("it is a value of a module") };
    value
}

/// Writes parts of an object. Returns whether all is written; then the value no longer carries its record.
fn save_object(object: &mut Object, out: &mut Chunk, is_over: &mut dyn FnMut() -> bool) -> bool {
    append(&mut out.bytes, object.save_some(is_over));
    let is_complete = object.record().is_some_and(Record::is_complete);
    if is_complete {
        object.end_saving();
    }
    is_complete
}

fn append(out: &mut Vec<u8>, written: Vec<u8>) {
    if out.is_empty() {
        *out = written;
    } else {
        out.extend_from_slice(&written);
    }
}

fn take(bytes: &mut Vec<u8>, len_min: usize) -> Option<Vec<u8>> {
    (bytes.len() >= len_min.max(1)).then(|| std::mem::take(bytes))
}

impl Table {
    /// Begins a snapshot. The version must not have been used since the last [`Table::reset_versions`], and no snapshot may
    /// be under way. A table without entries has nothing to save and takes no part.
    pub fn begin_snapshot(&mut self, version: NonZeroU16, writer: Box<dyn EntryWriter>) {
        if self.is_empty() {
            return;
        }
        // It may have got values of a table whose snapshot has begun already, and has to keep what was removed of them.
        let snapshot = self.snapshot.get_or_insert_with(|| TableSnapshot::new(None, None));
        assert!(snapshot.writer.is_none(), "a table has one snapshot at a time");
        (snapshot.writer, snapshot.next) = (Some(writer), Some((0, 0)));
        self.snapshot_version = version.get();
    }

    /// The snapshot that is under way.
    pub fn snapshot_mut(&mut self) -> Option<&mut TableSnapshot> {
        self.snapshot.as_deref_mut()
    }

    #[inline]
    pub fn is_in_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Saves bucket after bucket until `is_over` says that it is enough, which is asked before each. Returns whether all
    /// is saved.
    pub fn walk_snapshot(&mut self, is_over: &mut dyn FnMut() -> bool) -> bool {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return true };
        while let Some((hash, home)) = snapshot.next {
            if is_over() {
                return false;
            }
            // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
            let segment = unsafe { &mut *self.directory.segment(hash) };
            if segment.stamp(home, self.snapshot_version) {
                snapshot.save(segment, home, false);
            }
            snapshot.next = match home + 1 {
                HOME_COUNT => end_of_prefix(hash, segment.depth()).map(|hash| (hash, 0)),
                home => Some((hash, home)),
            };
        }
        true
    }

    /// Writes parts of a big value until `is_over` says that it is enough, and returns whether all of it is written. `open`:
    /// the number of the record that was begun last and is not complete, which has to be continued. To be called when the walk is
    /// over, and there are such values.
    pub fn save_value(
        &mut self,
        open: &mut Option<u64>,
        out: &mut Chunk,
        is_over: &mut dyn FnMut() -> bool,
    ) -> bool {
        let Some(mut snapshot) = self.snapshot.take() else { return true };
        let unsaved = &mut snapshot.unsaved;
        let next = match open.take() {
            Some(number) => unsaved.remove_entry(&number),
            None => unsaved.pop_first(),
        };
        let Some((number, mut unsaved)) = next else { unreachable!("the caller has seen that there is one") };
        let is_complete = match &mut unsaved {
            Unsaved::Present { hash, key, beside: Some(Beside::Text(text)) } => {
                save_text(text, self.unsaved_bytes(*hash, key), out, is_over)
            }
            Unsaved::Present { hash, key, beside: Some(Beside::Module(record)) } => {
                save_module(record, self.unsaved_module(*hash, key), out)
            }
            Unsaved::Present { hash, key, beside: None } => {
                save_object(self.unsaved_object(*hash, key, number), out, is_over)
            }
            Unsaved::Removed { value: OwnedValue::Str(bytes), beside: Some(Beside::Text(text)), .. } => {
                save_text(text, bytes, out, is_over)
            }
            Unsaved::Removed {
                value: OwnedValue::Object(object),
                beside: Some(Beside::Module(record)),
                ..
            } => save_module(record, module_of(object), out),
            Unsaved::Removed { value: OwnedValue::Object(object), .. } => save_object(object, out, is_over),
            Unsaved::Removed { .. } => unreachable!("only strings and objects are left to a snapshot"),
            Unsaved::Complete(record) => {
                append(&mut out.bytes, record.take());
                true
            }
        };
        if !is_complete {
            // Of a module's value, which is written as a whole, nothing is.
            *open = (!unsaved.is_module()).then_some(number);
            snapshot.unsaved.insert(number, unsaved);
        } else {
            match unsaved {
                Unsaved::Removed { value, .. } => self.garbage.discard(value),
                Unsaved::Present { key, beside: Some(_), .. } => drop(snapshot.by_key.remove(&key)),
                Unsaved::Present { beside: None, .. } | Unsaved::Complete(_) => {}
            }
        }
        self.snapshot = Some(snapshot);
        is_complete
    }

    /// The string under this key, which is not completely written.
    fn unsaved_bytes(&self, hash: u64, key: &[u8]) -> &[u8] {
        let (_, _, entry) = self.locate(hash, key).expect("a value that is not written is where it was left");
        let ValueRef::Str(bytes) = entry.value() else { unreachable!("it is a string") };
        bytes
    }

    /// The value of a module under this key.
    fn unsaved_module(&self, hash: u64, key: &[u8]) -> &ModuleValue {
        let (_, _, entry) = self.locate(hash, key).expect("a value that is not written is where it was left");
        let ValueRef::Object(object) = entry.value() else { unreachable!("it is a value of a module") };
        module_of(object)
    }

    /// The value under this key, which carries the record of this number.
    fn unsaved_object(&mut self, hash: u64, key: &[u8], number: u64) -> &mut Object {
        let (_, _, entry) = self.locate(hash, key).expect("a value that is not written is where it was left");
        assert!(entry.is_object(), "it is a big collection");
        // SAFETY: the entry owns the object, and the table is borrowed exclusively for the result's lifetime.
        let object = unsafe { &mut *entry.object_ptr() };
        assert!(object.record().is_some_and(|record| record.number() == number), "it carries its record");
        object
    }

    /// A value has left the table, and will not be used again. Returns it if it is not part of a snapshot.
    #[inline]
    pub(super) fn keep_unsaved(&mut self, value: OwnedValue, key: &[u8]) -> Option<OwnedValue> {
        if self.snapshot.is_none() { Some(value) } else { self.keep_in_snapshot(value, key) }
    }

    #[cold]
    fn keep_in_snapshot(&mut self, value: OwnedValue, key: &[u8]) -> Option<OwnedValue> {
        let snapshot = self.snapshot.as_deref_mut()?;
        let Some(number) = snapshot.number_of(&value, key) else { return Some(value) };
        let unsaved = snapshot.unsaved.get_mut(&number).expect("it has all records that are not complete");
        let Unsaved::Present { beside, .. } = unsaved else { unreachable!("the value was present") };
        let beside = beside.take();
        let len = match &value {
            OwnedValue::Str(bytes) => bytes.len(),
            OwnedValue::Object(object) => object.heap_bytes(),
            OwnedValue::Int(_) | OwnedValue::Raw(_) | OwnedValue::Packed(..) => 0,
        };
        let mut held = record_of(&value, beside.as_ref()).held_elsewhere();
        held.keep(len);
        *unsaved = Unsaved::Removed { value, beside, _held: held };
        None
    }

    /// A module is about to change its value under this key: it is written now, if a snapshot has put that off.
    pub fn save_module_value(&mut self, hash: u64, key: &[u8]) {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return };
        let Some(&number) = snapshot.by_key.get(key) else { return };
        if !snapshot.unsaved.get(&number).is_some_and(Unsaved::is_module) {
            return;
        }
        snapshot.by_key.remove(key);
        let Some(Unsaved::Present { beside: Some(Beside::Module(mut record)), .. }) =
            snapshot.unsaved.remove(&number)
        else {
            unreachable!("what is found by its key is present")
        };
        record.write(Element::Module(self.unsaved_module(hash, key)));
        record.count_held(0);
        if let Some(snapshot) = self.snapshot.as_deref_mut() {
            snapshot.unsaved.insert(number, Unsaved::Complete(record));
        }
    }

    /// A range of the string under this key is about to change in place.
    #[cold]
    pub(super) fn keep_text(&mut self, key: &[u8], bytes: &[u8], changed: Range<usize>) {
        let Some(snapshot) = self.snapshot.as_deref_mut() else { return };
        let Some(number) = snapshot.by_key.get(key) else { return };
        if let Some(Unsaved::Present { beside: Some(Beside::Text(text)), .. }) =
            snapshot.unsaved.get_mut(number)
        {
            text.keep(bytes, changed);
        }
    }

    /// The record of a value that was under this key, which is out of the table now and will be put in elsewhere.
    pub(super) fn take_record(&mut self, value: &OwnedValue, key: &[u8]) -> Option<Box<SavedElsewhere>> {
        let snapshot = self.snapshot.as_deref_mut()?;
        let number = snapshot.number_of(value, key)?;
        let unsaved = snapshot.unsaved.remove(&number).expect("it has all records that are not complete");
        let Unsaved::Present { beside, .. } = unsaved else { unreachable!("the value was present") };
        let snapshot = record_of(value, beside.as_ref()).snapshot();
        Some(Box::new(SavedElsewhere { number, snapshot, beside }))
    }

    /// The value of this key was taken out by [`Table::take`], of this table or another one, maybe of another shard.
    pub fn take_record_over(&mut self, saved: SavedElsewhere, hash: u64, key: &[u8]) {
        let SavedElsewhere { number, beside, .. } = saved;
        let snapshot = self.snapshot.get_or_insert_with(|| TableSnapshot::new(None, None));
        if beside.is_some() {
            snapshot.by_key.insert(key.into(), number);
        }
        snapshot.unsaved.insert(number, Unsaved::Present { hash, key: key.into(), beside });
    }

    /// Ends the snapshot, complete or not. What was not taken is lost.
    pub fn end_snapshot(&mut self) {
        self.snapshot_version = 0;
        let Some(snapshot) = self.snapshot.take() else { return };
        for (number, unsaved) in snapshot.unsaved {
            match unsaved {
                Unsaved::Present { hash, key, beside: None } => {
                    self.unsaved_object(hash, &key, number).end_saving();
                }
                Unsaved::Removed { mut value, .. } => {
                    value.end_saving();
                    self.garbage.discard(value);
                }
                Unsaved::Present { beside: Some(_), .. } | Unsaved::Complete(_) => {}
            }
        }
    }

    /// Clears all versions, to be called when their numbers are used up. Not during a snapshot.
    pub fn reset_versions(&mut self) {
        debug_assert_eq!(self.snapshot_version, 0);
        for segment in self.directory.segments() {
            // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
            unsafe { (*segment).reset_versions() };
        }
    }

    /// To be called before the entry of a key is added, changed or removed: during a snapshot, the first change of a bucket
    /// has its entries saved.
    #[inline]
    pub fn will_change(&mut self, hash: u64) {
        // A table that takes part in a snapshot has segments.
        if self.snapshot_version == 0 {
            return;
        }
        let segment = self.directory.segment(hash);
        self.will_change_at(segment, hash);
    }

    /// The same where the segment is known.
    #[inline]
    pub(super) fn will_change_at(&mut self, segment: *mut Segment, hash: u64) {
        let version = self.snapshot_version;
        // SAFETY: the segment is one of the table's, which is borrowed exclusively.
        if version != 0 && unsafe { (*segment).stamp(home_of(hash), version) } {
            self.save_before_change(segment, home_of(hash));
        }
    }

    #[cold]
    #[inline(never)]
    fn save_before_change(&mut self, segment: *mut Segment, home: usize) {
        let snapshot = self.snapshot.as_deref_mut().expect("a table with a version has a snapshot");
        // SAFETY: the segment is one of the table's, which is borrowed exclusively.
        snapshot.save(unsafe { &*segment }, home, true);
    }

    /// During a snapshot: saves the buckets of a segment in which an entry may have expired.
    pub(super) fn save_before_expiry(&mut self, segment: *mut Segment, now_ms: i64) {
        let version = self.snapshot_version;
        if version == 0 {
            return;
        }
        // SAFETY: the segment is one of the table's, which is borrowed exclusively.
        let due = unsafe { (*segment).due_homes(now_ms) };
        for home in (0..HOME_COUNT).filter(|&home| due[home]) {
            // SAFETY: as above.
            if unsafe { (*segment).stamp(home, version) } {
                self.save_before_change(segment, home);
            }
        }
    }
}
