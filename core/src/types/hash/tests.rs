//! Both forms of a hash compared with a map.

use super::*;
use crate::testing::Rng;
use crate::types::{Table, hash_key};
use std::collections::BTreeMap;

const LIMITS: HashLimits = HashLimits { len: 16, string_len_bytes: 32 };

/// A number or a text, now and then one that is too long to be packed.
fn string(random: &mut Rng, long_one_in: usize) -> Vec<u8> {
    if random.one_in(long_one_in) {
        return vec![b'x'; 33 + random.below(500)];
    }
    let number = random.below(40).to_string();
    if random.one_in(2) { number.into_bytes() } else { format!("text:{number}").into_bytes() }
}

/// A table whose only key is a hash.
struct OneHash(Table);

impl OneHash {
    fn new() -> OneHash {
        OneHash(Table::new())
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut HashMut<'_, '_>) -> T) -> T {
        let new = || NewValue::Packed(PackedKind::Hash, PackedKind::Hash.empty());
        let (mut entry, _) = self.0.get_or_add(hash_key(b"h"), b"h", 0, new);
        entry.will_change();
        change(&mut HashMut::new(ValueMut::new(&mut entry), LIMITS))
    }

    fn read(&self) -> HashRef<'_> {
        let entry = self.0.get(hash_key(b"h"), b"h").expect("it was added");
        HashRef::of(entry.value()).expect("it is a hash")
    }
}

fn contents(hash: HashRef<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut contents = BTreeMap::new();
    hash.for_each(|field, value| assert!(contents.insert(field.to_vec(), value.to_vec()).is_none()));
    contents
}

#[test]
fn a_hash_does_what_a_model_does_packed_and_big() {
    for seed in [1, 2, 3, std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)] {
        println!("seed {seed}");
        let mut random = Rng::new(seed);
        for long_one_in in [1000, 20] {
            let (mut hash, mut model) = (OneHash::new(), BTreeMap::new());
            let mut is_big = false;
            for _ in 0..if cfg!(miri) { 50 } else { 2000 } {
                let field = string(&mut random, long_one_in);
                if random.below(3) == 0 {
                    let is_removed = hash.change(|hash| hash.remove(&field));
                    assert_eq!(is_removed, model.remove(&field).is_some());
                } else {
                    let value = string(&mut random, long_one_in);
                    is_big |= field.len().max(value.len()) > LIMITS.string_len_bytes;
                    let is_new = hash.change(|hash| hash.set(&field, &value));
                    assert_eq!(is_new, model.insert(field, value).is_none());
                    is_big |= model.len() > LIMITS.len;
                }
                let read = hash.read();
                assert_eq!(matches!(read, HashRef::Big(_)), is_big);
                assert_eq!(read.len(), model.len());
                assert_eq!(hash.change(|hash| hash.len()), model.len());
                let probe = string(&mut random, long_one_in);
                assert_eq!(hash.read().get(&probe).map(Item::to_vec), model.get(&probe).cloned());
            }
            assert_eq!(contents(hash.read()), model);
            let mut scanned = BTreeMap::new();
            let mut cursor = 0;
            loop {
                cursor = hash.read().scan(cursor, &mut |field, value| {
                    scanned.insert(field.to_vec(), value.to_vec());
                });
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, model);
        }
    }
}

#[test]
fn fields_are_drawn_and_sampled_evenly() {
    for len in [10, 100] {
        let mut hash = OneHash::new();
        (0..len).for_each(|n| assert!(hash.change(|hash| hash.set(format!("f{n}").as_bytes(), b"v"))));
        let hash = hash.read();
        let mut random = Rng::new(5);
        for count in [1, 3, len / 2, len - 1] {
            let (mut drawn, mut sampled) = (BTreeMap::new(), BTreeMap::new());
            let rounds = 20_000 / count;
            for _ in 0..rounds {
                hash.draw(count, &mut || random.next(), &mut |field, _| {
                    *drawn.entry(field.to_vec()).or_insert(0) += 1;
                });
                let mut seen = BTreeMap::new();
                hash.sample(count, &mut || random.next(), &mut |field, value| {
                    assert!(seen.insert(field.to_vec(), value.to_vec()).is_none());
                });
                assert_eq!(seen.len(), count);
                seen.into_keys().for_each(|field| *sampled.entry(field).or_insert(0) += 1);
            }
            for counts in [drawn, sampled] {
                let expected = (rounds * count) as f64 / len as f64;
                let chi2: f64 =
                    counts.values().map(|&seen| (f64::from(seen) - expected).powi(2) / expected).sum();
                // 9 and 99 degrees of freedom.
                assert!(
                    counts.len() == len && chi2 < if len == 10 { 35.0 } else { 170.0 },
                    "{count}: {chi2}"
                );
            }
        }
    }
}

#[test]
fn a_copy_of_a_big_hash_is_its_own() {
    let mut hash = BigHash::default();
    (0..1000).for_each(|n| assert!(hash.set(format!("f{n}").as_bytes(), b"v")));
    let copy = hash.duplicate();
    assert!(!hash.set(b"f1", b"w") && hash.set(b"f1000", b"v"));
    assert_eq!((hash.len(), copy.len()), (1001, 1000));
    assert_eq!(HashRef::Big(&copy).get(b"f1"), Some(Item::Str(b"v")));
    assert!(hash.heap_bytes() >= copy.heap_bytes());
    let mut budget = hash.free_cost();
    assert!(hash.free_some(&mut budget) && budget == 0);
}
