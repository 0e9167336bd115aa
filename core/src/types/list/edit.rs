//! Changes of a big list elsewhere than at its ends.

use super::node::{End, Node};
use super::nodes::Place;
use super::{Limits, List, NEW_NODES_MAX};
use crate::types::Collection;
use crate::types::listpack::Item;

impl List {
    /// Replaces element `index`, which exists.
    pub fn set(&mut self, index: usize, item: Item<'_>) {
        let (place, at) = self.nodes.locate(index).expect("the caller has looked at the length");
        self.decompress(place);
        let limits = self.limits;
        if self.nodes.at(place).len() == 1 {
            self.nodes.change(place, |node| *node = Node::of(item, &limits));
        } else if limits.is_packed(item) {
            self.nodes.change(place, |node| {
                node.change(|listpack| {
                    let pos = listpack.as_ref().seek(at as isize).expect("the node has this element");
                    listpack.replace(pos, item);
                });
            });
            if !self.nodes.at(place).is_within(&limits) {
                let place = self.isolate(place, at);
                self.merge_around(place);
            }
        } else {
            let place = self.isolate(place, at);
            self.nodes.change(place, |node| *node = Node::of(item, &limits));
        }
        self.compress_near(index);
    }

    /// Splits a node so that its element `at` is a node by itself. Returns the place of that.
    fn isolate(&mut self, mut place: Place, at: usize) -> Place {
        if at > 0 {
            let behind = self.nodes.change(place, |node| node.split_off(at));
            place = self.nodes.insert_after(place, behind);
        }
        if self.nodes.at(place).len() > 1 {
            let behind = self.nodes.change(place, |node| node.split_off(1));
            let behind = self.nodes.insert_after(place, behind);
            place = self.nodes.prev(behind).expect("the node was split");
        }
        place
    }

    /// Inserts an element before element `index`, or at the end if there is none.
    pub fn insert(&mut self, index: usize, item: Item<'_>) {
        if index == 0 {
            return self.push(End::Head, item);
        }
        if index >= self.len() {
            return self.push(End::Tail, item);
        }
        let limits = self.limits;
        let (place, at) = self.nodes.locate(index).expect("the index is within the list");
        self.decompress(place);
        if self.nodes.at(place).accepts(item, &limits) {
            self.nodes.change(place, |node| {
                node.reserve(item, &limits);
                node.change(|listpack| {
                    let pos = listpack.as_ref().seek(at as isize).expect("the node has this element");
                    listpack.insert_before(pos, item);
                });
            });
        } else if at == 0 {
            let before = self.nodes.prev(place).expect("it is not the first element");
            self.decompress(before);
            if self.nodes.at(before).accepts(item, &limits) {
                self.nodes.change(before, |node| node.push(End::Tail, item, &limits));
            } else {
                self.nodes.insert_before(place, Node::of(item, &limits));
            }
        } else {
            self.insert_splitting(place, at, item, &limits);
        }
        self.compress_near(index);
    }

    /// Splits a node before its element `at`, which is not the first, and inserts an element there.
    fn insert_splitting(&mut self, place: Place, at: usize, item: Item<'_>, limits: &Limits) {
        let behind = self.nodes.change(place, |node| node.split_off(at));
        let second = self.nodes.insert_after(place, behind);
        let mut first = self.nodes.prev(second).expect("the node was split");
        if self.nodes.at(first).accepts(item, limits) {
            self.nodes.change(first, |node| node.push(End::Tail, item, limits));
        } else if self.nodes.at(second).accepts(item, limits) {
            self.nodes.change(second, |node| node.push(End::Head, item, limits));
        } else {
            let between = self.nodes.insert_before(second, Node::of(item, limits));
            first = self.nodes.prev(between).expect("the node was split");
        }
        self.merge_around(first);
    }

    /// Merges a node with the one before it, and the one after it with the one after that, where the limits allow it.
    fn merge_around(&mut self, place: Place) {
        if let Some(after) = self.nodes.next(place) {
            self.merge_next(after);
        }
        if let Some(before) = self.nodes.prev(place) {
            self.merge_next(before);
        }
    }

    /// Appends the next node to a node if the limits allow it. Returns whether they did.
    fn merge_next(&mut self, place: Place) -> bool {
        let Some(next) = self.nodes.next(place) else { return false };
        let is_compressed = self.nodes.at(place).is_compressed() || self.nodes.at(next).is_compressed();
        if is_compressed || !self.nodes.at(place).accepts_all(self.nodes.at(next), &self.limits) {
            return false;
        }
        let (appended, _) = self.nodes.take(next);
        self.nodes.change(place, |node| node.append(&appended));
        true
    }

    /// Compresses what a change around element `index` has decompressed or made, and puts the ends right.
    fn compress_near(&mut self, index: usize) {
        if self.limits.compress_depth == 0 {
            return;
        }
        self.compress_inner();
        let Some((mut place, _)) = self.nodes.locate(index) else { return };
        for _ in 0..NEW_NODES_MAX {
            place = self.nodes.prev(place).unwrap_or(place);
        }
        for _ in 0..=2 * NEW_NODES_MAX {
            self.compress(place);
            let Some(next) = self.nodes.next(place) else { return };
            place = next;
        }
    }

    /// Removes element `index`, which exists.
    pub fn remove_at(&mut self, index: usize) {
        let (place, at) = self.nodes.locate(index).expect("the caller has looked at the length");
        self.decompress(place);
        let place = self.isolate(place, at);
        let before = self.nodes.prev(place);
        self.nodes.remove(place);
        if let Some(before) = before {
            self.merge_next(before);
        }
        self.compress_near(index);
    }

    /// Removes the first `count` elements, from an end, that equal `element`. Returns how many there were.
    pub fn remove_equal(&mut self, element: &[u8], from: End, count: usize) -> usize {
        let mut left = count;
        let mut place = self.nodes.end(from);
        while let Some(at) = place.filter(|_| left > 0) {
            let (removed, next) = self.remove_equal_in(at, element, from, left);
            left -= removed;
            place = next;
        }
        self.compress_inner();
        count - left
    }

    /// The same in one node. Returns also the place to go on at.
    fn remove_equal_in(
        &mut self,
        place: Place,
        element: &[u8],
        from: End,
        count: usize,
    ) -> (usize, Option<Place>) {
        if !self.nodes.at(place).read(&mut Vec::new()).has(element) {
            return (0, self.nodes.away_from(from, place));
        }

        self.decompress(place);
        let removed = self.nodes.change(place, |node| node.remove_equal(element, from, count));
        if self.nodes.at(place).len() == 0 {
            let before = self.nodes.prev(place);
            let after = self.nodes.remove(place);
            return (removed, if from == End::Head { after } else { before });
        }
        let mut left = place;
        match (from, self.nodes.prev(place)) {
            (End::Head, Some(before)) => {
                if self.merge_next(before) {
                    left = before;
                }
            }
            (End::Head, None) => {}
            (End::Tail, _) => {
                self.merge_next(place);
            }
        }
        self.compress(left);
        (removed, self.nodes.away_from(from, left))
    }
}
