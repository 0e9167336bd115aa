//! Sorted sets against a model, on random operations.

use super::*;
use crate::testing::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// A map, and a set in the order of scores.
#[derive(Default)]
struct Model {
    scores: BTreeMap<Vec<u8>, f64>,
    order: BTreeSet<(u64, Vec<u8>)>,
}

impl Model {
    fn insert(&mut self, member: &[u8], score: f64) -> bool {
        let old = self.scores.insert(member.to_vec(), score);
        if let Some(old) = old {
            self.order.remove(&(order_key(old), member.to_vec()));
        }
        self.order.insert((order_key(score), member.to_vec()));
        old.is_none()
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        self.order.remove(&(order_key(score), member.to_vec()));
        Some(score)
    }

    fn elements(&self) -> Vec<(&[u8], f64)> {
        self.order.iter().map(|(_, member)| (&member[..], self.scores[member])).collect()
    }
}

fn check(set: &ZSet, model: &Model, what: &str) {
    let expected = model.elements();
    assert_eq!(set.len(), expected.len(), "{what}");
    assert!(set.iter(0..set.len()).eq(expected.iter().copied()), "{what}: forwards");
    assert!(set.iter(0..set.len()).rev().eq(expected.iter().rev().copied()), "{what}: backwards");
    for (rank, &(member, score)) in expected.iter().enumerate() {
        assert_eq!(set.rank(member), Some((rank, score)), "{what}");
        assert_eq!(set.at(rank), (member, score), "{what}");
    }
    set.check();
}

impl ZSet {
    /// Checks that the parts agree with each other, and with what they count.
    fn check(&self) {
        self.index.check(self.tree.len());
        self.arena.check();
        self.tree.check(&self.arena);
    }
}

/// What scores are like.
#[derive(Clone, Copy, Debug)]
enum Scores {
    Few,
    Unit,
    Wide,
    Times,
    Same,
    /// Whole numbers, many of them several times, and few that are the next possible number above one.
    Beside,
}

impl Scores {
    fn draw(self, random: &mut Rng) -> f64 {
        match self {
            Scores::Few => random.below(10) as f64 - 5.0,
            Scores::Unit => random.next() as f64 / u64::MAX as f64,
            Scores::Wide => match random.below(8) {
                0 => f64::INFINITY,
                1 => f64::NEG_INFINITY,
                2 => -0.0,
                3 => 0.0,
                _ => {
                    let score = f64::from_bits(random.next());
                    if score.is_nan() { 1.0 } else { score }
                }
            },
            Scores::Times => 1.7e12 + random.below(1_000_000) as f64,
            Scores::Same => 0.0,
            Scores::Beside => {
                let whole = 500_000.0 + random.below(300) as f64;
                if random.below(300) == 0 { whole.next_up() } else { whole }
            }
        }
    }
}

fn member(random: &mut Rng, count: usize) -> Vec<u8> {
    let n = random.below(count);
    // Some are long, and one in a while is too long for the arena.
    let mut member = format!("m{n}").into_bytes();
    if n % 7 == 0 {
        member.resize(n % 200 + 8, b'x');
    }
    member
}

fn run(seed: u64, steps: usize, keys: usize, scores: Scores) {
    let mut random = Rng::new(seed);
    let (mut set, mut model) = (ZSet::new(), Model::default());
    let what = format!("seed {seed}, {scores:?}");
    for step in 0..steps {
        // It grows, and then it shrinks.
        let grows = step < steps * 2 / 3;
        let name = member(&mut random, keys);
        match random.below(10) {
            0..6 if grows => {
                let score = scores.draw(&mut random);
                assert_eq!(set.insert(&name, score), model.insert(&name, score), "{what}");
            }
            0..2 => {
                let score = scores.draw(&mut random);
                assert_eq!(set.insert(&name, score), model.insert(&name, score), "{what}");
            }
            2..8 => assert_eq!(set.remove(&name), model.remove(&name), "{what}"),
            8 => {
                let score = scores.draw(&mut random);
                let with = random.below(2) == 0;
                let (key, up_to) = (order_key(score), usize::from(with));
                let expected = model.order.range(..(key + up_to as u64, Vec::new())).count();
                assert_eq!(set.count_to_score(score, with), expected, "{what}");
                if matches!(scores, Scores::Same) {
                    let less = model.scores.range(..name.clone()).count();
                    let equal = usize::from(model.scores.contains_key(&name));
                    assert_eq!(set.count_to_member(&name, false), less, "{what}");
                    assert_eq!(set.count_to_member(&name, true), less + equal, "{what}");
                }
            }
            _ => {
                assert_eq!(set.score(&name), model.scores.get(&name).copied(), "{what}");
                let len = set.len();
                let start = random.below(len + 1);
                let end = start + random.below((len - start).min(20) + 1);
                let expected: Vec<(Vec<u8>, f64)> = model.elements()[start..end]
                    .iter()
                    .map(|&(member, score)| (member.to_vec(), score))
                    .collect();
                assert!(set.iter(start..end).eq(expected.iter().map(|(m, s)| (&m[..], *s))), "{what}");
                if !grows {
                    let mut removed = Vec::new();
                    for _ in start..end {
                        set.remove_rank(start, |member, score| removed.push((member.to_vec(), score)));
                    }
                    assert_eq!(removed, expected, "{what}");
                    removed.iter().for_each(|(member, _)| assert!(model.remove(member).is_some()));
                }
            }
        }
        if step % (steps / 20).max(1) == 0 {
            check(&set, &model, &what);
        }
    }
    check(&set, &model, &what);
    check(&set.duplicate(), &model, &what);
    let mut budget = 3;
    while !set.free_some(&mut budget) {
        assert_eq!(budget, 0);
        budget = 3;
    }
}

#[test]
fn a_sorted_set_is_what_its_model_is() {
    let (seeds, steps) = if cfg!(miri) { (1, 300) } else { (2, 6000) };
    let fresh = std::collections::hash_map::RandomState::new();
    let fresh = std::hash::BuildHasher::hash_one(&fresh, 0);
    println!("fresh seed {fresh}");
    for seed in (0..seeds).chain([fresh]) {
        for scores in [Scores::Few, Scores::Unit, Scores::Wide, Scores::Times, Scores::Same, Scores::Beside] {
            run(seed, steps, steps / 4, scores);
        }
    }
}

#[test]
fn a_set_that_is_built_at_once_is_what_its_model_is() {
    for count in [0, 1, 2, 61, 62, 63, 200, 2000, 5000] {
        let mut random = Rng::new(count as u64);
        let (mut builder, mut model) = (Builder::new(), Model::default());
        for _ in 0..count {
            let (member, score) = (member(&mut random, count), Scores::Few.draw(&mut random));
            let spot = builder.find(&member);
            assert_eq!(builder.score_at(spot), model.scores.get(&member).copied());
            builder.set(spot, &member, score);
            model.insert(&member, score);
        }
        assert_eq!(builder.len(), model.scores.len());
        let mut set = builder.finish();
        check(&set, &model, &format!("{count}"));
        for _ in 0..count {
            let (member, score) = (member(&mut random, count), Scores::Few.draw(&mut random));
            assert_eq!(set.insert(&member, score), model.insert(&member, score));
        }
        check(&set, &model, &format!("{count}, and more"));
    }
}

#[test]
fn a_scan_visits_all_that_is_there_while_the_set_changes() {
    let rounds = if cfg!(miri) { 1 } else { 20 };
    for seed in 0..rounds {
        let mut random = Rng::new(seed);
        let mut set = ZSet::new();
        let stays = |n: usize| n % 3 == 0;
        let mut len = if cfg!(miri) { 60 } else { [300, 6000][seed as usize % 2] };
        for n in 0..len {
            set.insert(format!("{n}").as_bytes(), n as f64);
        }
        let expected: BTreeSet<usize> = (0..len).filter(|&n| stays(n)).collect();
        let mut seen = BTreeSet::new();
        let (mut cursor, mut calls) = (0, 0);
        loop {
            cursor = set.scan(cursor, 10, |member, score| {
                assert_eq!(member, format!("{score}").as_bytes());
                seen.insert(score as usize);
            });
            calls += 1;
            if cursor == 0 {
                break;
            }
            assert!(cursor < 1 << CURSOR_BITS);
            for _ in 0..random.below(if cfg!(miri) { 20 } else { 120 }) {
                if seed % 2 == 0 {
                    set.insert(format!("{len}").as_bytes(), len as f64);
                    len += 1;
                } else {
                    let n = random.below(len);
                    if !stays(n) {
                        set.remove(format!("{n}").as_bytes());
                    }
                }
            }
        }
        assert!(calls > 20, "seed {seed}: {calls}");
        assert!(expected.is_subset(&seen), "seed {seed}");
        // A set that does not change is visited once.
        let mut seen = 0;
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, 7, |_, _| seen += 1);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, set.len(), "seed {seed}");
    }
}

#[test]
fn ascending_and_descending_scores_fill_the_leaves() {
    let count = if cfg!(miri) { 500 } else { 20_000 };
    for ascending in [true, false] {
        let mut set = ZSet::new();
        for n in 0..count {
            let score = if ascending { n } else { count - n } as f64;
            set.insert(format!("member:{n:010}").as_bytes(), score);
        }
        set.check();
        let nodes = set.tree.node_count();
        assert!(nodes < count / 45, "{nodes} nodes for {count} elements");
    }
}

#[test]
fn the_arena_shrinks_with_its_set() {
    if cfg!(miri) {
        return;
    }
    let (mut set, count) = (ZSet::new(), 50_000);
    for n in 0..count {
        let member = if n % 10 == 0 { format!("a:longer:member:{n:010}") } else { format!("member:{n:010}") };
        set.insert(member.as_bytes(), n as f64);
    }
    let full = set.heap_bytes();
    let mut random = Rng::new(1);
    while set.len() > count / 100 {
        let rank = random.below(set.len());
        set.remove_rank(rank, |_, _| {});
    }
    set.check();
    assert!(set.heap_bytes() < full / 8, "{} of {full}", set.heap_bytes());
}

/// The elements of a small set, with their members as bytes.
fn unpacked(bytes: &[u8]) -> Vec<(Vec<u8>, f64)> {
    let packed = packed::Packed::new(bytes);
    packed.iter(0..packed.len()).map(|(member, score)| (member.to_vec(), score)).collect()
}

#[test]
fn a_small_set_is_what_its_model_is() {
    let (seeds, steps) = if cfg!(miri) { (1, 200) } else { (20, 2000) };
    for seed in 0..seeds {
        let mut random = Rng::new(seed);
        let (mut bytes, mut model) = (crate::types::listpack::EMPTY.to_vec(), Model::default());
        let kinds = [Scores::Few, Scores::Unit, Scores::Wide, Scores::Times, Scores::Same];
        let scores = kinds[seed as usize % kinds.len()];
        for _ in 0..steps {
            // Some members are numbers.
            let n = random.below(60);
            let name = if n % 2 == 0 { format!("{}", n * 1000) } else { format!("member:{n}") }.into_bytes();
            let packed = packed::Packed::new(&bytes);
            let found = packed.find(&name);
            assert_eq!(
                found.map(|pos| packed.score_at(pos)),
                model.scores.get(&name).copied(),
                "seed {seed}"
            );
            match (random.below(3), found) {
                (0, Some(pos)) => {
                    packed::PackedMut::new(&mut bytes).remove(pos);
                    model.remove(&name);
                }
                (0, None) => {
                    let len = packed.len();
                    let start = random.below(len + 1);
                    let end = start + random.below((len - start).min(3) + 1);
                    for (member, _) in unpacked(&bytes).drain(start..end) {
                        model.remove(&member);
                    }
                    packed::PackedMut::new(&mut bytes).remove_ranks(start..end);
                }
                (_, found) => {
                    // A small set has no minus zero.
                    let score = scores.draw(&mut random) + 0.0;
                    match found {
                        Some(pos) => packed::PackedMut::new(&mut bytes).set_score(pos, &name, score),
                        None => packed::PackedMut::new(&mut bytes).insert(&name, score),
                    }
                    model.insert(&name, score);
                }
            }
            let expected = model.elements();
            let elements = unpacked(&bytes);
            assert!(elements.iter().map(|(member, score)| (&member[..], *score)).eq(expected), "seed {seed}");
        }
        packed::validate(&bytes, true).unwrap();
        let packed = packed::Packed::new(&bytes);
        let view = ZSetView::Packed(packed);
        let big = view.to_big();
        check(&big, &model, &format!("seed {seed}"));
        assert_eq!(ZSetView::Big(&big).to_packed(), bytes);
        let elements = unpacked(&bytes);
        for (rank, (member, score)) in elements.iter().enumerate() {
            assert_eq!(view.rank(member), Some((rank, *score)));
            assert_eq!((view.at(rank).0.to_vec(), view.at(rank).1), (member.clone(), *score));
            for with in [false, true] {
                assert_eq!(view.count_to_score(*score, with), big.count_to_score(*score, with));
            }
            let rest = view.iter(rank..elements.len()).rev().map(|(member, score)| (member.to_vec(), score));
            assert!(rest.eq(elements[rank..].iter().rev().cloned()));
        }
    }
}

#[test]
fn a_damaged_small_set_is_found() {
    let mut bytes = crate::types::listpack::EMPTY.to_vec();
    packed::PackedMut::new(&mut bytes).insert(b"a", 1.5);
    packed::PackedMut::new(&mut bytes).insert(b"b", 2.0);
    assert_eq!(packed::validate(&bytes, true), Ok(()));
    let push = |bytes: &[u8], item: &[u8]| {
        let mut bytes = bytes.to_vec();
        crate::types::listpack::ListpackMut::new(&mut bytes).push_back(item);
        bytes
    };
    assert!(packed::validate(&push(&bytes, b"c"), false).is_err(), "a member without a score");
    assert!(packed::validate(&push(&push(&bytes, b"c"), b"x"), true).is_err(), "a score that is no number");
    assert!(packed::validate(&push(&push(&bytes, b"c"), b"nan"), true).is_err(), "a score that is NaN");
    assert!(packed::validate(&push(&push(&bytes, b"a"), b"3"), true).is_err(), "a member twice");
    assert!(packed::validate(&bytes[..bytes.len() - 1], false).is_err());
}
