//! Random members: one, several different ones, or several that may repeat. Each member is as likely as any other.

use super::{Member, SetRef};
use crate::types::below;
use ahash::AHashSet;
use std::ops::ControlFlow;

/// A part of less than one in so many members is drawn member by member; for a larger one, all members are visited.
const DRAWN_PART: usize = 4;

impl<'a> SetRef<'a> {
    /// A random member. The set has one.
    pub fn random(self, random: &mut dyn FnMut() -> u64) -> Member<'a> {
        match self {
            SetRef::Ints(set) => Member::Int(set.get(below(set.len(), random()))),
            SetRef::Few(list) => {
                let rank = below(list.len(), random());
                list.get(rank as isize).expect("a rank below the length").into()
            }
            SetRef::Many(dict) => {
                let place = dict.random(random).expect("the set has a member");
                Member::Bytes(dict.at(place).0)
            }
        }
    }

    /// Calls `visit` with `count` different random members, or with all if there are no more. O(count) for a small
    /// part of a big set, else O(len).
    pub fn sample(self, count: usize, random: &mut dyn FnMut() -> u64, mut visit: impl FnMut(Member<'a>)) {
        match self {
            SetRef::Ints(set) if count < set.len() / DRAWN_PART => {
                let mut drawn = AHashSet::with_capacity(count);
                while drawn.len() < count {
                    let number = set.get(below(set.len(), random()));
                    if drawn.insert(number) {
                        visit(Member::Int(number));
                    }
                }
            }
            SetRef::Many(dict) if count < dict.len() / DRAWN_PART => {
                let mut drawn = AHashSet::with_capacity(count);
                while drawn.len() < count {
                    let place = dict.random(random).expect("the set has a member");
                    if drawn.insert(place) {
                        visit(Member::Bytes(dict.at(place).0));
                    }
                }
            }
            SetRef::Ints(_) | SetRef::Few(_) | SetRef::Many(_) => {
                self.split(count, random, |member, is_chosen| {
                    if is_chosen {
                        visit(member);
                    }
                });
            }
        }
    }

    /// Calls `visit` with all members, and whether each is one of `count` that are chosen at random. Selection sampling
    /// (Knuth, The Art of Computer Programming 2, algorithm 3.4.2 S).
    pub fn split(
        self,
        count: usize,
        random: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Member<'a>, bool),
    ) {
        let (mut left, mut wanted) = (self.len(), count);
        self.each(|member| {
            let is_chosen = below(left, random()) < wanted;
            visit(member, is_chosen);
            left -= 1;
            wanted -= usize::from(is_chosen);
        });
    }

    /// Calls `visit` with `count` random members, each drawn from all of them, until it breaks.
    pub fn draw<B>(
        self,
        count: u64,
        random: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Member<'a>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        // A listpack is walked for each member, and drawing from a dict takes several attempts: if there are many to
        // draw, it pays to list the members first.
        if count >= (self.len() / DRAWN_PART) as u64 && !matches!(self, SetRef::Ints(_)) {
            let mut members = Vec::with_capacity(self.len());
            self.each(|member| members.push(member));
            (0..count).try_for_each(|_| visit(members[below(members.len(), random())]))
        } else {
            (0..count).try_for_each(|_| visit(self.random(random)))
        }
    }
}
