//! Consumer groups against a model, and the lag.

use super::*;

/// What is pending, by ID: at which consumer, since when, how often delivered.
#[derive(Default)]
struct Model {
    pending: BTreeMap<StreamId, (String, i64, u64)>,
    consumers: BTreeMap<String, i64>,
}

fn check(model: &Model, group: &Group) {
    let name_of = |id| String::from_utf8(group.consumer(id).name().to_vec()).unwrap();
    let consumers = group
        .consumers()
        .map(|(_, consumer)| (String::from_utf8(consumer.name().to_vec()).unwrap(), consumer.seen_time_ms));
    assert!(consumers.eq(model.consumers.clone()));
    let pending = group.pending_range(StreamId::MIN, StreamId::MAX).map(|(id, pending)| {
        (id, (name_of(pending.consumer), pending.delivery_time_ms, pending.delivery_count))
    });
    assert!(pending.eq(model.pending.clone()));
    for (id, consumer) in group.consumers() {
        let own = group.pending_of(id, StreamId::MIN, StreamId::MAX).map(|(id, _)| id);
        let expected = model.pending.iter().filter(|(_, (name, ..))| name.as_bytes() == consumer.name());
        assert!(own.eq(expected.map(|(id, _)| *id)));
        let count = model.pending.values().filter(|(name, ..)| name.as_bytes() == consumer.name()).count();
        assert_eq!(consumer.pending_count(), count);
    }
    assert_eq!((group.pending_count(), group.consumer_count()), (model.pending.len(), model.consumers.len()));
}

fn run(rng: &mut Rng, operations: usize) {
    let mut groups = Groups::default();
    groups.create(b"g", StreamId::MIN, None).unwrap();
    assert!(groups.create(b"g", StreamId::MIN, None).is_none());
    let empty_bytes = groups.heap_bytes();
    let mut model = Model::default();
    for now_ms in 0..operations as i64 {
        let mut group = groups.get_mut(b"g").unwrap();
        let name = format!("consumer{}", rng.below(5));
        let id = id(rng.below(40) as u64, rng.below(2) as u64);
        match rng.below(6) {
            0 => {
                let created = group.create_consumer(name.as_bytes(), now_ms);
                assert_eq!(created.is_some(), !model.consumers.contains_key(&name));
                model.consumers.entry(name).or_insert(now_ms);
            }
            1 if rng.one_in(3) => {
                let removed = group.remove_consumer(name.as_bytes());
                let pending = model.pending.values().filter(|(owner, ..)| *owner == name).count();
                assert_eq!(removed, model.consumers.remove(&name).map(|_| pending));
                model.pending.retain(|_, (owner, ..)| *owner != name);
            }
            2 => assert_eq!(group.remove_pending(id), model.pending.remove(&id).is_some()),
            _ => {
                let Some(consumer) = group.find_consumer(name.as_bytes()) else { continue };
                let delivery_count = rng.next();
                group.set_pending(id, Pending { consumer, delivery_time_ms: now_ms, delivery_count });
                group.see_consumer(consumer, now_ms);
                model.pending.insert(id, (name.clone(), now_ms, delivery_count));
                model.consumers.insert(name, now_ms);
            }
        }
        check(&model, groups.get(b"g").unwrap());
    }

    let mut copy = groups.duplicate();
    assert_eq!(copy.heap_bytes(), groups.heap_bytes());
    check(&model, copy.get(b"g").unwrap());
    let mut group = groups.get_mut(b"g").unwrap();
    for name in model.consumers.keys() {
        group.remove_consumer(name.as_bytes());
    }
    assert_eq!(groups.heap_bytes(), empty_bytes);
    assert!(copy.remove(b"g") && !copy.remove(b"g"));
    assert_eq!(copy.heap_bytes(), 0);
}

#[test]
fn a_group_behaves_as_a_map_of_pending_entries() {
    let operations = if cfg!(miri) { 40 } else { 2000 };
    (1..if cfg!(miri) { 2 } else { 8 }).for_each(|seed| run(&mut Rng::new(seed), operations));
    with_seed(|rng| run(rng, operations));
}

#[test]
fn a_stream_is_freed_in_slices() {
    let limits = NodeLimits { max_bytes: 100, max_entries: 3 };
    let mut stream = Stream::default();
    let fields = vec![(b"f".to_vec(), b"v".to_vec())];
    for ms in 1..100 {
        stream.log.append(NewId::Now { ms }, &new_entry(&fields), limits).unwrap();
    }
    for name in [b"g", b"h"] {
        let mut group = stream.groups.create(name, StreamId::MIN, None).unwrap();
        let consumer = group.create_consumer(b"c", 0).unwrap();
        for ms in 1..100 {
            let pending = Pending { consumer, delivery_time_ms: 0, delivery_count: 1 };
            group.set_pending(id(ms, 0), pending);
        }
    }
    assert!(stream.free_cost() > 200);
    let mut slices = 0;
    while !stream.free_some(&mut 20) {
        slices += 1;
    }
    assert!(slices >= 10, "{slices} slices");
    assert_eq!(stream.heap_bytes(), size_of::<Stream>());
}

#[test]
fn the_lag_is_known_unless_an_unread_entry_was_deleted() {
    let limits = NodeLimits { max_bytes: 4096, max_entries: 100 };
    let fields = vec![(b"f".to_vec(), b"v".to_vec())];
    let mut stream = Stream::default();
    for ms in 1..=5 {
        stream.log.append(NewId::Now { ms }, &new_entry(&fields), limits).unwrap();
    }
    let lag_at = |stream: &mut Stream, ms: u64, read: Option<i64>| {
        stream.groups.remove(b"g");
        let _ = stream.groups.create(b"g", id(ms, 0), read);
        stream.log.lag(stream.groups.get(b"g").unwrap())
    };
    assert_eq!(lag_at(&mut stream, 0, None), Some(5));
    assert_eq!(lag_at(&mut stream, 1, None), Some(4));
    assert_eq!(lag_at(&mut stream, 3, None), None);
    assert_eq!(lag_at(&mut stream, 3, Some(3)), Some(2));
    assert_eq!(lag_at(&mut stream, 5, None), Some(0));
    // As in Redis 7.0, what was deleted before the first entry counts as not read.
    stream.log.delete([id(1, 0)].into_iter());
    assert_eq!(lag_at(&mut stream, 0, Some(0)), Some(5));
    assert_eq!(lag_at(&mut stream, 0, None), Some(4));
    stream.log.delete([id(4, 0)].into_iter());
    assert_eq!(lag_at(&mut stream, 3, Some(3)), None);
    assert_eq!(lag_at(&mut stream, 4, Some(4)), None);
    assert_eq!(lag_at(&mut stream, 5, Some(5)), Some(0));
}
