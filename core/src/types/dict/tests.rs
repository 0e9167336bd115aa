//! A dict compared with a map, its scans, its random elements and its memory.

use super::*;
use crate::testing::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A string of random length, mostly short.
fn string(random: &mut Rng) -> Vec<u8> {
    let len = match random.below(20) {
        0 => random.below(600),
        1 => 200 + random.below(100),
        _ => random.below(24),
    };
    vec![random.next() as u8; len]
}

const STEPS: usize = if cfg!(miri) { 80 } else { 20_000 };

/// Fixed seeds, and a fresh one, which is printed when a test fails.
fn seeds() -> Vec<u64> {
    let fresh = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    if cfg!(miri) { vec![1] } else { vec![1, 2, 3, fresh] }
}

impl<const VALUES: bool> Dict<VALUES> {
    /// Checks everything that must hold between two operations.
    fn check(&self) {
        let pages: Vec<&Page> = self.chunks.iter().flatten().collect();
        assert_eq!(pages.len(), self.page_count);
        assert!(self.chunks.iter().rev().skip(1).all(|chunk| chunk.len() == CHUNK_LEN));
        assert_eq!(pages.iter().map(|page| page.count()).sum::<usize>(), self.len);
        assert_eq!(pages.iter().map(|page| page.data_len()).sum::<usize>(), self.data_bytes);
        assert_eq!(pages.iter().map(|page| page.alloc_len()).sum::<usize>(), self.page_bytes);
        assert!(pages.iter().all(|page| page.count() <= self.count_max));
        for (index, page) in pages.iter().enumerate() {
            for slot in 0..page.count() {
                let (key, _) = self.split_element(page.get(slot));
                assert_eq!(self.page_index(dict_hash(key)), index);
            }
        }
    }
}

#[test]
fn a_map_does_what_a_model_does() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Rng::new(seed);
        let (mut dict, mut model) = (DictMap::new(), BTreeMap::new());
        // Grows, shrinks to nothing, and grows again.
        for (phase, adds) in [7, 3, 1, 7, 1].into_iter().enumerate() {
            for step in 0..STEPS {
                let mut key = string(&mut random);
                key.extend_from_slice(&random.below(STEPS / 4).to_le_bytes()[..2]);
                if random.below(8) < adds {
                    let value = string(&mut random);
                    assert_eq!(dict.set(&key, &value), model.insert(key.clone(), value).is_none());
                } else if random.below(2) == 0 {
                    assert_eq!(dict.remove(&key), model.remove(&key).is_some());
                } else if let Some(place) = dict.random(&mut || random.next()) {
                    let key = dict.at(place).0.to_vec();
                    dict.remove_at(place);
                    assert!(model.remove(&key).is_some());
                }
                let probe = string(&mut random);
                assert_eq!(dict.get(&probe), model.get(&probe).map(Vec::as_slice));
                assert_eq!(dict.len(), model.len());
                if step % (STEPS / 10) == 0 {
                    dict.check();
                }
            }
            dict.check();
            let elements: BTreeMap<_, _> = dict.iter().collect();
            assert!(
                elements.into_iter().eq(model.iter().map(|(key, value)| (&key[..], &value[..]))),
                "{phase}"
            );
        }
        let copy = dict.clone();
        copy.check();
        while let Some(place) = dict.random(&mut || random.next()) {
            dict.remove_at(place);
        }
        dict.check();
        assert!((dict.page_count, dict.page_bytes, dict.data_bytes) == (1, 0, 0));
        assert!(copy.iter().collect::<BTreeMap<_, _>>().len() == model.len());
    }
}

#[test]
fn a_set_does_what_a_model_does() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Rng::new(seed);
        let (mut dict, mut model) = (DictSet::new(), BTreeSet::new());
        for adds in [7, 1, 5] {
            for _ in 0..STEPS {
                let mut member = string(&mut random);
                member.extend_from_slice(&random.below(STEPS / 4).to_le_bytes()[..2]);
                if random.below(8) < adds {
                    assert_eq!(dict.insert(&member), model.insert(member.clone()));
                } else {
                    assert_eq!(dict.remove(&member), model.remove(&member));
                }
                let probe = string(&mut random);
                assert_eq!(dict.contains(&probe), model.contains(&probe));
            }
            dict.check();
            let members: BTreeSet<_> = dict.iter().map(|(member, _)| member).collect();
            assert!(members.into_iter().eq(model.iter().map(Vec::as_slice)));
        }
    }
}

#[test]
fn a_scan_returns_what_is_there_throughout_while_the_dict_grows_and_shrinks() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Rng::new(seed);
        for case in 0..if cfg!(miri) { 2 } else { 200 } {
            let mut dict = DictSet::new();
            let stays = random.below(if cfg!(miri) { 100 } else { 500 });
            let passing = random.below(5000) / if cfg!(miri) { 20 } else { 1 };
            (0..stays).for_each(|n| assert!(dict.insert(format!("stays:{n}").as_bytes())));
            if case % 2 == 0 {
                (0..passing).for_each(|n| assert!(dict.insert(format!("passing:{n}").as_bytes())));
            }
            let (mut cursor, mut seen, mut at) = (0, BTreeSet::new(), 0);
            let mut calls = 0;
            loop {
                cursor = dict.scan(cursor, &mut |member, _| {
                    seen.insert(member.to_vec());
                });
                assert!(cursor < 1 << DICT_CURSOR_BITS);
                calls += 1;
                if cursor == 0 {
                    break;
                }
                for _ in 0..random.below(200) {
                    let member = format!("passing:{at}");
                    at += 1;
                    if case % 2 == 0 {
                        dict.remove(member.as_bytes())
                    } else {
                        dict.insert(member.as_bytes())
                    };
                }
            }
            assert!((0..stays).all(|n| seen.contains(format!("stays:{n}").as_bytes())));
            assert!(calls <= dict.page_count.max(passing / (SPLIT_LEN / 4) + stays) + 1);
        }
        let dict = DictSet::new();
        (0..1000).for_each(|_| assert!(dict.scan(random.next(), &mut |_, _| unreachable!()) == 0));
    }
}

#[test]
fn a_scan_of_a_dict_that_stays_as_it_is_returns_each_element_once() {
    let mut dict = DictSet::new();
    for n in 0..if cfg!(miri) { 200 } else { 1000 } {
        dict.insert(format!("member:{n}").as_bytes());
        if n % 37 != 0 {
            continue;
        }
        let (mut cursor, mut seen, mut calls) = (0, BTreeSet::new(), 0);
        loop {
            cursor = dict.scan(cursor, &mut |member, _| assert!(seen.insert(member.to_vec())));
            calls += 1;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!((seen.len(), calls), (dict.len(), dict.page_count));
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long")]
fn random_elements_are_evenly_distributed() {
    let mut dict = DictSet::new();
    (0..1000u32).for_each(|n| assert!(dict.insert(&n.to_le_bytes())));
    (0..800u32).for_each(|n| assert!(dict.remove(&n.to_le_bytes())));
    let mut counts = BTreeMap::new();
    let mut random = Rng::new(7);
    for _ in 0..200 * 1000 {
        let place = dict.random(&mut || random.next()).expect("it is not empty");
        *counts.entry(dict.at(place).0.to_vec()).or_insert(0u32) += 1;
    }
    let chi2: f64 = counts.values().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
    // 199 degrees of freedom.
    assert!(counts.len() == 200 && chi2 < 290.0, "{chi2}");
}

#[test]
fn a_dict_is_freed_by_its_budget() {
    let count: u32 = if cfg!(miri) { 300 } else { 3000 };
    let mut dict = DictMap::new();
    for n in 0..count {
        dict.set(&n.to_le_bytes(), &vec![0; if n % 10 == 0 { 10_000 } else { 10 }]);
    }
    let (cost, budget) = (dict.free_cost(), 16);
    assert!((count as usize / 4..count as usize).contains(&cost), "{cost}");
    let mut spent = 0;
    let mut slices = 0;
    loop {
        let mut left = budget;
        let done = dict.free_some(&mut left);
        spent += budget - left;
        slices += 1;
        if done {
            break;
        }
        assert_eq!(left, 0);
    }
    assert!(spent <= cost && slices <= cost / budget + 1, "{spent} of {cost} in {slices}");
    assert!(dict.page_bytes == 0 && dict.outside.heap_bytes() < 1000);
}

#[test]
#[cfg_attr(miri, ignore = "takes long")]
fn the_first_leaf_is_always_about_twice_as_full_as_the_last() {
    let mut dict = DictSet::new();
    for n in 1..200_000u32 {
        dict.insert(&n.to_le_bytes());
        if n > 50_000 && n % 10_000 == 0 {
            let counts = |leaves: std::ops::Range<u64>| -> usize {
                leaves.map(|leaf| dict.page(DictSet::page_of_leaf(leaf)).count()).sum()
            };
            let (first, some) = (dict.page_count as u64, 100);
            let ratio = counts(first..first + some) as f64 / counts(2 * first - some..2 * first) as f64;
            assert!((1.7..2.3).contains(&ratio), "{ratio}");
        }
    }
}

#[test]
fn a_long_element_moves_outside_and_back() {
    let mut dict = DictMap::new();
    let key = vec![b'k'; 100];
    for len in [0, 155, 156, 1000, 70_000, 155, 156, 0] {
        dict.set(&key, &vec![b'v'; len]);
        dict.set(b"other", b"value");
        assert_eq!(dict.get(&key).map(<[u8]>::len), Some(len));
        assert_eq!(dict.outside.heap_bytes() > 0, 1 + key.len() + len > INLINE_LEN_MAX);
        dict.check();
    }
    assert!(dict.remove(&key) && dict.len() == 1);
}

#[test]
#[cfg_attr(miri, ignore = "takes long")]
fn an_element_of_a_big_dict_takes_little_more_than_its_bytes() {
    let (mut set, mut map) = (DictSet::new(), DictMap::new());
    let mut most = 0.0f64;
    for n in 0..200_000usize {
        set.insert(format!("member:{n:010}").as_bytes());
        map.set(format!("field:{n:010}").as_bytes(), format!("value{n:06}").as_bytes());
        if n >= 100_000 && n % 1000 == 0 {
            let per_element = |bytes: usize| bytes as f64 / n as f64;
            most = most.max(per_element(set.heap_bytes()) / 24.0).max(per_element(map.heap_bytes()) / 36.0);
        }
    }
    assert!(most <= 1.0, "{most}");
}
