//! Sets in all forms against trees: building, algebra, random members.

use super::*;
use crate::testing::Rng;
use std::collections::BTreeSet;

type Model = BTreeSet<Vec<u8>>;

/// A random member out of `range` integers and as many strings; only integers if `ints`.
fn member(random: &mut Rng, range: usize, ints: bool) -> Vec<u8> {
    let number = random.below(range) as i64 - 3;
    match random.below(if ints { 2 } else { 8 }) {
        0..2 => (number * number * number).to_string().into_bytes(),
        2 => format!("0{number}").into_bytes(),
        3 => vec![b'x'; number.unsigned_abs() as usize],
        _ => format!("member:{number:010}").into_bytes(),
    }
}

fn model_of(set: SetRef<'_>) -> Model {
    let mut model = Model::new();
    let mut count = 0;
    set.each(|member| {
        model.insert(member.bytes(&mut Digits::new()).to_vec());
        count += 1;
    });
    assert_eq!(model.len(), count, "each member is there once");
    assert_eq!((set.len(), set.is_empty()), (count, count == 0));
    model
}

fn build<T: AsRef<[u8]>>(members: &[T], limits: SetLimits) -> SetBuilder {
    let mut builder = SetBuilder::new(limits);
    for member in members {
        builder.add(Member::Bytes(member.as_ref()));
    }
    builder
}

/// A random set in any of the forms.
fn random_set(random: &mut Rng) -> SetBuilder {
    let limits = SetLimits::new(*random.pick(&[0, 3, 512]));
    let (range, ints) = (1 + random.below(300), random.one_in(2));
    let members: Vec<Vec<u8>> = (0..random.below(2 * range)).map(|_| member(random, range, ints)).collect();
    if random.one_in(4) {
        let mut table = SetBuilder::new_table();
        members.iter().for_each(|member| {
            table.add(Member::Bytes(member));
        });
        return table;
    }
    build(&members, limits)
}

#[test]
fn a_set_that_is_built_has_the_members_that_a_tree_has_and_the_encoding_that_redis_reports() {
    for seed in 0..if cfg!(miri) { 3 } else { 300 } {
        let mut random = Rng::new(seed);
        let ints_max = *random.pick(&[0, 1, 3, 100, 512]);
        let limits = SetLimits::new(ints_max);
        let (range, ints) = (1 + random.below(700), random.one_in(2));
        let mut builder = SetBuilder::new(limits);
        let mut model = Model::new();
        let mut is_intset = true;
        for _ in 0..random.below(900) {
            let member = member(&mut random, range, ints);
            is_intset &= parse_i64(&member).is_some();
            let is_new = builder.add(Member::Bytes(&member));
            assert_eq!(is_new, model.insert(member.clone()), "seed {seed}");
            is_intset &= model.len() as u64 <= ints_max;
            assert_eq!(matches!(builder.get(), SetRef::Ints(_)), is_intset, "seed {seed}");
            assert!(builder.get().contains(&member), "seed {seed}");
        }
        assert_eq!(model_of(builder.get()), model, "seed {seed}");
        let other = member(&mut random, range, ints);
        assert_eq!(builder.get().contains(&other), model.contains(&other), "seed {seed}");

        let copy = SetBuilder::from_copy(builder.get(), limits);
        assert_eq!(model_of(copy.get()), model, "seed {seed}");
        assert_eq!(matches!(copy.get(), SetRef::Ints(_)), is_intset, "seed {seed}");
    }
}

#[test]
fn few_members_are_a_listpack_and_many_or_long_ones_a_dict() {
    let limits = SetLimits::new(512);
    let members: Vec<String> = (0..=FEW_LEN_MAX).map(|n| format!("m{n}")).collect();
    assert!(matches!(build(&members[..FEW_LEN_MAX], limits).get(), SetRef::Few(_)));
    assert!(matches!(build(&members, limits).get(), SetRef::Many(_)));
    let long = ["x".repeat(FEW_BYTES_MAX / 2), "y".repeat(FEW_BYTES_MAX / 2)];
    assert!(matches!(build(&long[..1], limits).get(), SetRef::Few(_)));
    assert!(matches!(build(&long, limits).get(), SetRef::Many(_)));
    let ints: Vec<String> = (0..FEW_LEN_MAX).map(|n| n.to_string()).collect();
    assert!(matches!(build(&ints, SetLimits::new(10)).get(), SetRef::Few(_)));
}

#[test]
fn algebra_is_that_of_trees() {
    for seed in 0..if cfg!(miri) { 3 } else { 400 } {
        let mut random = Rng::new(seed);
        let count = 1 + random.below(7);
        let mut owned: Vec<SetBuilder> = (0..count).map(|_| random_set(&mut random)).collect();
        if random.one_in(4) {
            let copy = SetBuilder::from_copy(owned[0].get(), SetLimits::new(512));
            owned.push(copy);
        }
        let sets = || owned.iter().map(SetBuilder::get).collect::<Vec<_>>();
        let models: Vec<Model> = sets().into_iter().map(model_of).collect();
        let collected = |run: &mut dyn FnMut(&mut dyn FnMut(Member<'_>))| {
            let mut found = Vec::new();
            run(&mut |member| found.push(member.bytes(&mut Digits::new()).to_vec()));
            let model: Model = found.iter().cloned().collect();
            assert_eq!(model.len(), found.len(), "seed {seed}: a member twice");
            model
        };

        let in_all = |member: &&Vec<u8>| models.iter().all(|other| other.contains(*member));
        let expected: Model = models[0].iter().filter(in_all).cloned().collect();
        let found = collected(&mut |visit| {
            let _: ControlFlow<()> = algebra::intersect(&mut sets(), |member| {
                visit(member);
                ControlFlow::Continue(())
            });
        });
        assert_eq!(found, expected, "seed {seed}: intersection");

        let expected: Model = models.iter().flatten().cloned().collect();
        let found = collected(&mut |visit| algebra::unite(&mut sets(), visit));
        assert_eq!(found, expected, "seed {seed}: union");

        let in_none = |member: &&Vec<u8>| !models[1..].iter().any(|other| other.contains(*member));
        let expected: Model = models[0].iter().filter(in_none).cloned().collect();
        for by_removal in [false, true] {
            let found = collected(&mut |visit| {
                algebra::subtract(owned[0].get(), &mut sets()[1..], by_removal, visit);
            });
            assert_eq!(found, expected, "seed {seed}: difference, by removal {by_removal}");
        }
    }
}

#[test]
fn an_intersection_ends_when_it_is_told_to() {
    let limits = SetLimits::new(1000);
    let ints: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let strings: Vec<String> = (0..1000).map(|n| format!("m{n}")).collect();
    for members in [ints, strings] {
        let (a, b) = (build(&members[..700], limits), build(&members[300..], limits));
        let mut count = 0;
        let ended = algebra::intersect(&mut [a.get(), b.get()], |_| {
            count += 1;
            if count < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert_eq!((count, ended), (10, ControlFlow::Break(())));
    }
}

/// `len` integers, and as many strings.
fn ints_and_strings(len: usize) -> [SetBuilder; 2] {
    ["", "m"].map(|prefix| {
        let names: Vec<String> = (0..len).map(|n| format!("{prefix}{n}")).collect();
        build(&names, SetLimits::new(512))
    })
}

/// Chi-square of counts that should all be equal.
fn chi2(counts: &[usize]) -> f64 {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    counts.iter().map(|&seen| (seen as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn random_members_are_evenly_distributed() {
    let mut rng = Rng::new(5);
    let random = &mut || rng.next();
    for len in [20, 60, 200] {
        for set in ints_and_strings(len) {
            let set = set.get();
            let name_of = |member: Member<'_>| {
                let mut digits = Digits::new();
                let bytes = member.bytes(&mut digits);
                let name = std::str::from_utf8(bytes).expect("text").trim_start_matches('m');
                name.parse::<usize>().expect("a number")
            };
            let mut counts = vec![vec![0; len]; 5];
            for _ in 0..len * 20 {
                counts[0][name_of(set.random(random))] += 1;
                set.sample(3, random, |member| counts[1][name_of(member)] += 1);
                set.split(len / 2, random, |member, is_chosen| {
                    counts[2][name_of(member)] += usize::from(is_chosen);
                });
                for (at, count) in [(3, 2), (4, 100)] {
                    let _: ControlFlow<()> = set.draw(count, random, |member| {
                        counts[at][name_of(member)] += 1;
                        ControlFlow::Continue(())
                    });
                }
            }
            for (at, counts) in counts.iter().enumerate() {
                // The mean is `len`, and the deviation the root of 2 len.
                let bound = len as f64 + 6.0 * (2.0 * len as f64).sqrt();
                assert!(chi2(counts) < bound, "{len} members, way {at}: {} of {bound}", chi2(counts));
            }
        }
    }
}

#[test]
fn a_sample_has_different_members_and_as_many_as_there_are() {
    let mut rng = Rng::new(6);
    for len in [1, 2, 50, 300] {
        for set in ints_and_strings(len) {
            let all = model_of(set.get());
            for count in [0, 1, len / 5, len / 2, len, len + 1, 10 * len] {
                let mut found = Vec::new();
                set.get().sample(count, &mut || rng.next(), |member| {
                    found.push(member.bytes(&mut Digits::new()).to_vec());
                });
                assert_eq!(found.len(), count.min(len));
                let found: Model = found.into_iter().collect();
                assert_eq!(found.len(), count.min(len));
                assert!(found.is_subset(&all));
            }
        }
    }
}
