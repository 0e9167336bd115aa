//! Set algebra: intersections, unions and differences of sets in any form.
//!
//! All three go through the members of one set and ask others about each of them. They do so in batches: the hashes of
//! a batch are computed first and the pages of the dicts prefetched, so that their cache misses overlap. No result is
//! collected here. It is handed over member by member, and goes straight into a reply or a new set.

use super::{Member, SetRef, find};
use crate::types::dict::{DictSet, dict_hash};
use crate::types::intset::IntSet;
use crate::types::listpack::Digits;
use smallvec::SmallVec;
use std::ops::ControlFlow;

/// Members whose look-ups overlap.
pub(super) const BATCH_LEN: usize = 16;

/// In a union, a member is looked for in the sets before its own. From so many sets on, those that were found are kept
/// instead.
const PROBED_SETS_MAX: usize = 4;

/// What a member needs of other sets to be in the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    InAll,
    InNone,
}

/// Calls `visit` with the members of all `sets`, until it breaks. Puts the sets in order of their size.
pub fn intersect<'a, B>(
    sets: &mut [SetRef<'a>],
    visit: impl FnMut(Member<'a>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    sets.sort_by_key(|set| set.len());
    match sets {
        [] => ControlFlow::Continue(()),
        [SetRef::Ints(smaller), SetRef::Ints(larger)] => intersect_ints(*smaller, *larger, visit),
        [smallest, others @ ..] => probe(*smallest, others, Wanted::InAll, visit),
    }
}

/// The same for two intsets. Both are sorted: the larger one is searched from where the last integer was found, in
/// steps that double.
fn intersect_ints<'a, B>(
    smaller: IntSet<'a>,
    larger: IntSet<'a>,
    mut visit: impl FnMut(Member<'a>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut from = 0;
    for number in smaller.iter() {
        match larger.search_from(from, number) {
            Ok(rank) => {
                from = rank + 1;
                visit(Member::Int(number))?;
            }
            Err(rank) => from = rank,
        }
    }
    ControlFlow::Continue(())
}

/// Calls `visit` with each member of any of `sets` once. Puts the sets in order of their size.
pub fn unite<'a>(sets: &mut [SetRef<'a>], mut visit: impl FnMut(Member<'a>)) {
    // The largest set is not looked for anywhere.
    sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
    if sets.len() <= PROBED_SETS_MAX {
        for (at, set) in sets.iter().enumerate() {
            if at == 0 {
                set.each(&mut visit);
            } else {
                let _: ControlFlow<()> = probe(*set, &sets[..at], Wanted::InNone, |member| {
                    visit(member);
                    ControlFlow::Continue(())
                });
            }
        }
        return;
    }
    // The largest set is asked itself, and only what the others have besides is kept.
    let (largest, others) = sets.split_first().expect("there are several sets");
    largest.each(&mut visit);
    let mut seen = DictSet::new();
    let mut digits = Digits::new();
    for set in others {
        let _: ControlFlow<()> = probe(*set, &[*largest], Wanted::InNone, |member| {
            if seen.insert(member.bytes(&mut digits)) {
                visit(member);
            }
            ControlFlow::Continue(())
        });
    }
}

/// Whether Redis finds a difference by removing the members of the other sets from a copy of the first, rather than by
/// looking for each member of the first in the others. It tells in which encoding the result is stored.
pub fn difference_is_by_removal(first: SetRef<'_>, others: &[SetRef<'_>]) -> bool {
    let looked_up = first.len() * (1 + others.len()) / 2;
    let visited = first.len() + others.iter().map(|set| set.len()).sum::<usize>();
    looked_up > visited
}

/// Calls `visit` with the members of `first` that are in none of the `others`. `by_removal`: visit the members of the
/// others, and keep those that `first` has, rather than ask the others about each member of `first`. Puts the other
/// sets in order of their size.
pub fn subtract<'a>(
    first: SetRef<'a>,
    others: &mut [SetRef<'a>],
    by_removal: bool,
    mut visit: impl FnMut(Member<'a>),
) {
    let visit = |member: Member<'a>| {
        visit(member);
        ControlFlow::<()>::Continue(())
    };
    if by_removal {
        let mut removed = DictSet::new();
        let mut digits = Digits::new();
        for set in others.iter() {
            let _: ControlFlow<()> = probe(*set, &[first], Wanted::InAll, |member| {
                removed.insert(member.bytes(&mut digits));
                if removed.len() < first.len() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        let _ = probe(first, &[SetRef::Many(&removed)], Wanted::InNone, visit);
    } else {
        // A member is most likely found in the largest set.
        others.sort_by_key(|set| std::cmp::Reverse(set.len()));
        let _ = probe(first, others, Wanted::InNone, visit);
    }
}

/// Calls `visit` with the members of `base` that are in all of the `others`, or in none.
fn probe<'a, B>(
    base: SetRef<'a>,
    others: &[SetRef<'_>],
    wanted: Wanted,
    mut visit: impl FnMut(Member<'a>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    if !others.iter().any(|set| matches!(set, SetRef::Many(_))) {
        return base.try_each(|member| {
            if is_wanted(others, wanted, 0, member) { visit(member) } else { ControlFlow::Continue(()) }
        });
    }
    let mut batch = SmallVec::<[(u64, Member<'a>); BATCH_LEN]>::new();
    let mut flush = |batch: &mut SmallVec<[(u64, Member<'a>); BATCH_LEN]>| {
        for set in others {
            if let SetRef::Many(dict) = set {
                batch.iter().for_each(|(hash, _)| dict.prefetch(*hash));
            }
        }
        batch.drain(..).try_for_each(|(hash, member)| {
            if is_wanted(others, wanted, hash, member) { visit(member) } else { ControlFlow::Continue(()) }
        })
    };
    let mut digits = Digits::new();
    base.try_each(|member| {
        batch.push((dict_hash(member.bytes(&mut digits)), member));
        if batch.len() == BATCH_LEN { flush(&mut batch) } else { ControlFlow::Continue(()) }
    })?;
    flush(&mut batch)
}

/// `hash`: that of the member, if one of the sets is a dict.
#[inline]
fn is_wanted(others: &[SetRef<'_>], wanted: Wanted, hash: u64, member: Member<'_>) -> bool {
    let has = |set: &SetRef<'_>| set.has(hash, member);
    match wanted {
        Wanted::InAll => others.iter().all(has),
        Wanted::InNone => !others.iter().any(has),
    }
}

impl SetRef<'_> {
    /// `hash`: that of the member, if the set is a dict.
    #[inline]
    fn has(&self, hash: u64, member: Member<'_>) -> bool {
        match *self {
            SetRef::Ints(set) => member.integer().is_some_and(|number| set.contains(number)),
            SetRef::Few(list) => find(list, member.bytes(&mut Digits::new())).is_some(),
            SetRef::Many(dict) => dict.place(hash, member.bytes(&mut Digits::new())).is_some(),
        }
    }

    /// Whether all members are integers.
    pub fn has_only_ints(self) -> bool {
        let found = self.try_each(|member| match member.integer() {
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        });
        found.is_continue()
    }
}
