//! Big lists against a deque of strings.

use super::*;
use crate::testing::{Rng, with_seed};
use std::collections::VecDeque;

type Model = VecDeque<Vec<u8>>;

/// Small nodes of all kinds, so that few elements make many nodes.
fn limits(rng: &mut Rng) -> Limits {
    let node_size = *rng.pick(&[1, 2, 3, 7, 30, -1, -2]);
    let element_bytes_max = *rng.pick(&[0, 3, 40, Limits::ELEMENT_BYTES_MAX]);
    Limits::new(node_size, rng.below(4) as u32, element_bytes_max)
}

fn element(rng: &mut Rng) -> Vec<u8> {
    match rng.below(10) {
        0..5 => format!("item:{}", rng.below(6)).into_bytes(),
        5..7 => rng.below(20).to_string().into_bytes(),
        7 => vec![b'x'; rng.below(200)],
        8 if rng.one_in(5) => vec![b'y'; 3000 + rng.below(7000)],
        _ => {
            let len = rng.below(60);
            rng.bytes(len)
        }
    }
}

fn contents(list: &List) -> Model {
    let mut all = Model::new();
    list.walk(0, |item| {
        all.push_back(item.to_vec());
        true
    });
    all
}

fn check(list: &List, model: &Model) {
    list.nodes.check();
    assert_eq!(contents(list), *model);
    assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
    let bytes = |item: Option<Item<'_>>| item.map(Item::to_vec);
    assert_eq!(bytes(list.peek(End::Head)).as_ref(), model.front());
    assert_eq!(bytes(list.peek(End::Tail)).as_ref(), model.back());

    let depth = list.limits.compress_depth;
    let count = list.node_count();
    let mut nodes = 0;
    for (n, node) in list.nodes.iter().enumerate() {
        let is_outer = n < depth || n + depth >= count;
        assert!(!node.is_compressed() || (depth > 0 && !is_outer), "node {n} of {count}, depth {depth}");
        if node.len() > 1 {
            assert!(node.is_compressed() || node.is_within(&list.limits));
        }
        nodes += 1;
    }
    assert_eq!(nodes, count);
}

fn change(rng: &mut Rng, list: &mut List, model: &mut Model) {
    let new = element(rng);
    let item = Item::of(&new);
    let index = rng.below(model.len() + 1);
    match rng.below(16) {
        0..4 => {
            list.push(End::Tail, item);
            model.push_back(new);
        }
        4..6 => {
            list.push(End::Head, item);
            model.push_front(new);
        }
        6..10 => {
            list.insert(index, item);
            model.insert(index, new);
        }
        10 | 11 if index < model.len() => {
            list.set(index, item);
            model[index] = new;
        }
        12 => {
            let count = rng.below(4);
            list.remove(End::Head, count);
            model.drain(..count.min(model.len()));
        }
        13 => {
            let count = if rng.one_in(10) { index } else { rng.below(4) };
            list.remove(End::Tail, count);
            model.truncate(model.len().saturating_sub(count));
        }
        14 => {
            let count = if rng.one_in(2) { rng.below(3) } else { usize::MAX };
            let from = *rng.pick(&[End::Head, End::Tail]);
            assert_eq!(list.remove_equal(&new, from, count), remove_equal(model, &new, from, count));
        }
        _ => {
            let copy = list.clone();
            assert_eq!(contents(&copy), *model);
            *list = copy;
        }
    }
}

fn remove_equal(model: &mut Model, element: &[u8], from: End, count: usize) -> usize {
    let mut removed = 0;
    for _ in 0..count {
        let found = match from {
            End::Head => model.iter().position(|other| other == element),
            End::Tail => model.iter().rposition(|other| other == element),
        };
        let Some(found) = found else { break };
        model.remove(found);
        removed += 1;
    }
    removed
}

fn look(rng: &mut Rng, list: &List, model: &Model) {
    let index = rng.below(model.len() + 2);
    let mut count = 1 + rng.below(10);
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    list.walk(index, |item| {
        forwards.push(item.to_vec());
        forwards.len() < count
    });
    list.walk_back(index, |item| {
        backwards.push(item.to_vec());
        backwards.len() < count
    });
    let expected: Vec<_> = model.iter().skip(index).take(count).cloned().collect();
    assert_eq!(forwards, expected);
    if index >= model.len() {
        count = 0;
    }
    let expected: Vec<_> = model.iter().take(index + 1).rev().take(count).cloned().collect();
    assert_eq!(backwards, expected);

    let pivot = element(rng);
    assert_eq!(ListRef::Big(list).position(&pivot), model.iter().position(|other| *other == pivot));
}

#[test]
fn a_list_does_what_a_deque_does() {
    with_seed(|rng| {
        for _ in 0..if cfg!(miri) { 2 } else { 150 } {
            let mut list = List::new(limits(rng));
            let mut model = Model::new();
            for _ in 0..if cfg!(miri) { 60 } else { 400 } {
                change(rng, &mut list, &mut model);
                look(rng, &list, &model);
                check(&list, &model);
            }
            let mut budget = 0;
            while !list.free_some(&mut budget) {
                list.nodes.check();
                budget = 1 + rng.below(3);
            }
            assert!(list.is_empty() && list.node_count() == 0);
        }
    });
}

#[test]
fn many_nodes_are_held_in_blocks() {
    with_seed(|rng| {
        let mut list = List::new(Limits::new(1, 0, Limits::ELEMENT_BYTES_MAX));
        let mut model = Model::new();
        let count = if cfg!(miri) { 200 } else { 3000 };
        for n in 0..count {
            let index = *rng.pick(&[0, n / 2, n]);
            let word = n.to_string().into_bytes();
            list.insert(index, Item::of(&word));
            model.insert(index, word);
        }
        check(&list, &model);
        for _ in 0..count / 2 {
            let word = rng.below(count).to_string().into_bytes();
            let from = *rng.pick(&[End::Head, End::Tail]);
            assert_eq!(list.remove_equal(&word, from, 1), remove_equal(&mut model, &word, from, 1));
        }
        check(&list, &model);
        for _ in 0..100 {
            look(rng, &list, &model);
        }
    });
}

#[test]
fn a_list_packs_its_elements_densely() {
    let mut list = List::new(Limits::new(-2, 0, Limits::ELEMENT_BYTES_MAX));
    let count = if cfg!(miri) { 2_000 } else { 1_000_000 };
    for n in 0..count {
        list.push(End::Tail, Item::Str(format!("item:{n:010}").as_bytes()));
    }
    let bytes_an_element = list.heap_bytes() as f64 / f64::from(count);
    assert!(bytes_an_element < if cfg!(miri) { 20.0 } else { 17.2 }, "{bytes_an_element}");
}

#[test]
#[cfg_attr(miri, ignore = "takes long")]
fn inner_nodes_are_compressed() {
    let limits = Limits::new(-1, 1, Limits::ELEMENT_BYTES_MAX);
    let mut list = List::new(limits);
    for n in 0..3000 {
        list.push(End::Tail, Item::Str(format!("the same words again {n:04}").as_bytes()));
    }
    let compressed = list.nodes.iter().filter(|node| node.is_compressed()).count();
    assert_eq!(compressed, list.node_count() - 2);
    assert!(list.heap_bytes() < 40_000, "{}", list.heap_bytes());
    list.set(1500, Item::Str(b"another"));
    assert_eq!(list.nodes.iter().filter(|node| node.is_compressed()).count(), compressed);
}

#[test]
fn the_limits_of_nodes_are_those_of_redis() {
    let limits = |node_size| Limits::new(node_size, 0, Limits::ELEMENT_BYTES_MAX);
    assert!(limits(-1).allow(4096, 4000) && !limits(-1).allow(4097, 2));
    assert!(limits(-5).allow(65536, 2) && !limits(-5).allow(65537, 2));
    assert_eq!(limits(-5), limits(i32::MIN));
    assert!(limits(3).allow(8192, 3) && !limits(3).allow(10, 4) && !limits(3).allow(8193, 2));
    assert_eq!((limits(0), limits(32_767)), (limits(1), limits(i32::MAX)));
    assert!(limits(-1).allow(1 << 20, 1), "one element is a node, however long");
}
