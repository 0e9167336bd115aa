//! Streams against a model: a BTreeMap of entries, and maps of what is pending.

use super::node::Node;
use super::*;
use crate::testing::{Rng, with_seed};
use crate::types::listpack::{Digits, Item};
use std::collections::BTreeMap;

mod groups;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn entry<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> NewEntry<'a> {
    let mut entry = NewEntry::default();
    for (name, value) in fields {
        entry.push(name);
        entry.push(value);
    }
    entry
}

fn new_entry(fields: &Fields) -> NewEntry<'_> {
    entry(fields.iter().map(|(name, value)| (&name[..], &value[..])))
}

fn fields(entry: &Entry<'_>) -> Fields {
    let bytes = |item: Item<'_>| item.bytes(&mut Digits::new()).to_vec();
    entry.fields().map(|(name, value)| (bytes(name), bytes(value))).collect()
}

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId { ms, seq }
}

struct Model {
    log: Log,
    known: BTreeMap<StreamId, Fields>,
    max_deleted_id: StreamId,
    added: u64,
    limits: NodeLimits,
}

impl Model {
    fn new(limits: NodeLimits) -> Model {
        let (log, known) = (Log::default(), BTreeMap::new());
        Model { log, known, max_deleted_id: StreamId::MIN, added: 0, limits }
    }

    fn any_fields(rng: &mut Rng) -> Fields {
        let count = *rng.pick(&[1, 1, 1, 2, 3, 20]);
        let text = |rng: &mut Rng, kind: usize| match kind {
            0 => rng.next().to_string().into_bytes(),
            1 => (rng.below(300) as i64 - 150).to_string().into_bytes(),
            2 => {
                let len = rng.below(100);
                rng.bytes(len)
            }
            _ => format!("value{}", rng.below(1000)).into_bytes(),
        };
        let same_names = !rng.one_in(3);
        (0..count)
            .map(|n| {
                let kind = rng.below(5);
                let name = if same_names { format!("name{n}").into_bytes() } else { text(rng, n % 4) };
                (name, text(rng, kind))
            })
            .collect()
    }

    fn append(&mut self, rng: &mut Rng) {
        let fields = Self::any_fields(rng);
        let last_id = self.log.last_id;
        let new = match rng.below(5) {
            0 => NewId::InMillisecond(last_id.ms + rng.below(2) as u64),
            1 => NewId::Now { ms: rng.below(10) as u64 },
            2 => NewId::Exactly(id(last_id.ms + rng.next() % 1_000_000, rng.next())),
            _ => NewId::Now { ms: last_id.ms.saturating_add(rng.below(3) as u64) },
        };
        let expected = self.log.next_id(new);
        let appended = self.log.append(new, &new_entry(&fields), self.limits);
        assert_eq!(appended, expected);
        if let Ok(id) = appended {
            assert!(id > last_id);
            self.known.insert(id, fields);
            self.added += 1;
        }
    }

    /// An ID of an entry mostly, or one near by.
    fn any_id(&self, rng: &mut Rng) -> StreamId {
        let at = rng.below(self.known.len() + 1);
        let known = self.known.keys().nth(at).copied().unwrap_or(self.log.last_id);
        match rng.below(8) {
            0 => known.next().unwrap_or(known),
            1 => known.previous().unwrap_or(known),
            2 => id(rng.next() >> rng.below(64), rng.next() >> rng.below(64)),
            _ => known,
        }
    }

    fn delete(&mut self, rng: &mut Rng) {
        let ids: Vec<StreamId> = (0..1 + rng.below(4)).map(|_| self.any_id(rng)).collect();
        let mut deleted = 0;
        for id in &ids {
            if self.known.remove(id).is_some() {
                deleted += 1;
                self.max_deleted_id = self.max_deleted_id.max(*id);
            }
        }
        assert_eq!(self.log.delete(ids.into_iter()), deleted);
    }

    fn trim(&mut self, rng: &mut Rng) {
        let to = match rng.below(2) {
            0 => TrimTo::Len(self.known.len().saturating_sub(rng.below(20)) as u64),
            _ => TrimTo::MinId(*self.known.keys().nth(rng.below(20)).unwrap_or(&self.log.last_id)),
        };
        let excess = match to {
            TrimTo::Len(len) => self.known.len().saturating_sub(len as usize),
            TrimTo::MinId(min_id) => self.known.range(..min_id).count(),
        };
        let limit = rng.below(20) as u64;
        let (precision, at_most) = match rng.below(3) {
            0 => (Precision::Nodes { limit }, if limit == 0 { excess } else { excess.min(limit as usize) }),
            _ => (Precision::Exact, excess),
        };
        let nodes_before = self.log.node_count();
        let removed = self.log.trim(to, precision) as usize;
        if precision == Precision::Exact {
            assert_eq!(removed, excess);
        } else {
            assert!(removed <= at_most, "{removed} of {excess} removed, limit {limit}");
            assert_eq!(removed > 0, self.log.node_count() < nodes_before);
        }
        for _ in 0..removed {
            self.known.pop_first();
        }
    }

    fn check(&self, rng: &mut Rng) {
        assert_eq!(self.log.len() as usize, self.known.len());
        assert_eq!(self.log.entries_added, self.added);
        assert_eq!(self.log.max_deleted_id, self.max_deleted_id);
        assert_eq!(self.log.first_id(), self.known.keys().next().copied().unwrap_or_default());
        assert_eq!(self.log.last().map(|entry| entry.id), self.known.keys().next_back().copied());
        let (start, end) = (self.any_id(rng), self.any_id(rng));
        let (start, end) = (start.min(end), start.max(end));
        self.check_range(&self.log, start, end);
        let probe = self.any_id(rng);
        assert_eq!(self.log.get(probe).as_ref().map(fields).as_ref(), self.known.get(&probe));
    }

    fn check_range(&self, log: &Log, start: StreamId, end: StreamId) {
        let mut expected = self.known.range(start..=end);
        let mut found = log.range(start, end);
        for entry in &mut found {
            let (known_id, known_fields) = expected.next().expect("no more than the model has");
            assert_eq!((entry.id, &fields(&entry)), (*known_id, known_fields));
        }
        assert_eq!(expected.next(), None);
        let back: Vec<StreamId> = log.range_back(start, end).map(|entry| entry.id).collect();
        assert!(back.iter().eq(self.known.range(start..=end).rev().map(|(id, _)| id)));
    }

    /// What takes long: the whole stream, its account, its copies.
    fn check_all(&self) {
        self.check_range(&self.log, StreamId::MIN, StreamId::MAX);
        assert_eq!(self.log.nodes.heap_bytes(), self.log.nodes.counted_heap_bytes());
        assert_eq!(self.log.nodes().count(), self.log.node_count());
        self.check_range(&self.log.duplicate(), StreamId::MIN, StreamId::MAX);

        let mut read = Log::default();
        for (key, node) in self.log.nodes() {
            read.push_node(key, node.as_bytes().to_vec(), true).expect("a node of a stream is valid");
        }
        assert_eq!((read.len(), read.first_id()), (self.log.len(), self.log.first_id()));
        self.check_range(&read, StreamId::MIN, StreamId::MAX);
    }
}

fn run(rng: &mut Rng, operations: usize) {
    let max_entries = *rng.pick(&[0, 1, 3, 10, 100, 200]);
    let max_bytes = *rng.pick(&[0, 1, 100, 1000, 4096]);
    let mut model = Model::new(NodeLimits { max_bytes, max_entries });
    let appends_of_10 = 4 + rng.below(5);
    for _ in 0..operations {
        match rng.below(10) {
            n if n < appends_of_10 => model.append(rng),
            0 => model.trim(rng),
            _ => model.delete(rng),
        }
        model.check(rng);
    }
    model.check_all();
}

#[test]
fn a_stream_behaves_as_a_map_of_entries() {
    let operations = if cfg!(miri) { 30 } else { 600 };
    for seed in 1..if cfg!(miri) { 2 } else { 30 } {
        run(&mut Rng::new(seed), operations);
    }
    with_seed(|rng| run(rng, operations));
}

/// The bytes that Redis 7.0.15 has for this stream in DUMP.
#[test]
fn a_node_has_the_bytes_of_redis() {
    let limits = NodeLimits { max_bytes: 4096, max_entries: 100 };
    let mut log = Log::default();
    for (id, fields) in [
        (id(5, 1), vec![("name", "a"), ("age", "7")]),
        (id(6, 0), vec![("name", "b"), ("age", "-3")]),
        (id(7, 0), vec![("other", "123456")]),
    ] {
        let entry = entry(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        log.append(NewId::Exactly(id), &entry, limits).unwrap();
    }
    log.delete([id(6, 0)].into_iter());
    let (_, node) = log.nodes().next().unwrap();
    let expected = b"\x4d\0\0\0\x19\0\x02\x01\x01\x01\x02\x01\x84name\x05\x83age\x04\0\x01\x02\x01\0\x01\0\x01\x81a\x02\
        \x07\x01\x05\x01\x03\x01\x01\x01\xdf\xff\x02\x81b\x02\xdf\xfd\x02\x05\x01\0\x01\x02\x01\xdf\xff\x02\x01\x01\
        \x85other\x06\xf2@\xe2\x01\x04\x06\x01\xff";
    assert_eq!(node.as_bytes().escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn a_node_that_was_changed_at_random_is_refused_or_read_without_a_panic() {
    let changes = if cfg!(miri) { 50 } else { 20_000 };
    with_seed(|rng| {
        let mut model = Model::new(NodeLimits { max_bytes: 4096, max_entries: 10 });
        for _ in 0..10 {
            model.append(rng);
        }
        model.delete(rng);
        let Some((key, node)) = model.log.nodes().next() else { return };
        let mut refused = 0;
        for _ in 0..changes {
            let mut bytes = node.as_bytes().to_vec();
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
            match Node::from_listpack(bytes, key, true) {
                Ok((node, count)) => {
                    assert_eq!(node.as_ref().entries(key).map(|e| fields(&e)).count() as u64, count)
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0 || cfg!(miri), "no damage was found");
    });
}

#[test]
fn ids_follow_each_other_and_sort_as_their_bytes() {
    assert_eq!(id(3, u64::MAX).next(), Some(id(4, 0)));
    assert_eq!(StreamId::MAX.next(), None);
    assert_eq!(id(4, 0).previous(), Some(id(3, u64::MAX)));
    assert_eq!(StreamId::MIN.previous(), None);
    assert_eq!(StreamId::MAX.text().as_bytes(), b"18446744073709551615-18446744073709551615");
    assert_eq!(id(0, 7).text().as_bytes(), b"0-7");
    assert!(id(1, 2).to_bytes() < id(2, 1).to_bytes());
    assert_eq!(StreamId::from_bytes(id(1, 2).to_bytes()), id(1, 2));
}

#[test]
fn an_id_is_never_given_twice() {
    let limits = NodeLimits { max_bytes: 0, max_entries: 0 };
    let fields = vec![(b"f".to_vec(), b"v".to_vec())];
    let mut log = Log::default();
    assert_eq!(log.next_id(NewId::InMillisecond(0)), Ok(id(0, 1)));
    assert_eq!(log.next_id(NewId::Exactly(StreamId::MIN)), Err(AppendError::IdTooSmall));
    assert_eq!(log.next_id(NewId::Now { ms: 0 }), Ok(id(0, 1)));
    log.append(NewId::Exactly(id(5, u64::MAX)), &new_entry(&fields), limits).unwrap();
    assert_eq!(log.next_id(NewId::InMillisecond(5)), Err(AppendError::IdTooSmall));
    assert_eq!(log.next_id(NewId::InMillisecond(4)), Err(AppendError::IdTooSmall));
    assert_eq!(log.next_id(NewId::Now { ms: 3 }), Ok(id(6, 0)));
    assert_eq!(log.next_id(NewId::Exactly(id(5, 9))), Err(AppendError::IdTooSmall));
    log.delete([id(5, u64::MAX)].into_iter());
    assert_eq!(log.next_id(NewId::Exactly(id(5, 9))), Err(AppendError::IdTooSmall));
}
