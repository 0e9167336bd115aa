//! Leaf: up to `LEAF_LEN` elements in order, for each a handle and 32 bits of its score.
//!
//! The 32 bits are the score's distance from the leaf's base, in steps of 2^shift. Within a leaf scores are close
//! together, so that they nearly always tell elements apart, and a search need not fetch the elements. The distances are
//! exact as long as all scores are whole steps away from the base: with a shift of 0, and with whole numbers and other
//! scores of few digits, whose last bits are all zero. Otherwise an equal distance leaves open which score is less, and
//! the elements are asked.
//!
//! Base and shift (the leaf's *frame*) change when a score does not fit, and when a split has left a leaf with scores
//! that use too little of the frame.

use super::arena::{Arena, Handle};
use super::order::{Bound, order_key};
use crate::types::prefetch_all;
use std::ops::Range;

/// 512 bytes, of which four are unused.
pub(super) const LEAF_LEN: usize = 62;

#[derive(Clone)]
pub(super) struct Leaf {
    base: u64,
    len: u8,
    shift: u8,
    /// Whether all distances are exact.
    is_exact: bool,
    distances: [u32; LEAF_LEN],
    handles: [Handle; LEAF_LEN],
}

const _: () = assert!(size_of::<Leaf>() == 512);

/// A frame whose scores lie within this distance of each other, and have a shift, is too wide.
const NARROW: u32 = 1 << 14;

impl Leaf {
    pub(super) fn new() -> Box<Leaf> {
        let (distances, handles) = ([0; LEAF_LEN], [0; LEAF_LEN]);
        Box::new(Leaf { base: 0, len: 0, shift: 0, is_exact: true, distances, handles })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles[..self.len as usize]
    }

    #[inline]
    fn distances(&self) -> &[u32] {
        &self.distances[..self.len as usize]
    }

    /// The score of an element, as a key.
    #[inline]
    pub(super) fn key(&self, at: usize, arena: &Arena) -> u64 {
        if self.is_exact {
            self.base + (u64::from(self.distances[at]) << self.shift)
        } else {
            order_key(arena.score(self.handles[at]))
        }
    }

    /// The distance of a score from the base; `None` if it does not fit.
    #[inline]
    fn distance(&self, key: u64) -> Option<u32> {
        u32::try_from(key.checked_sub(self.base)? >> self.shift).ok()
    }

    /// Whether a score that is not below the base is whole steps away from it.
    #[inline]
    fn is_whole(&self, key: u64) -> bool {
        (key - self.base) & ((1 << self.shift) - 1) == 0
    }

    /// Sets the score of a place. It fits.
    #[inline]
    fn set_key(&mut self, at: usize, key: u64) {
        self.distances[at] = self.distance(key).expect("the frame was changed so that it fits");
        self.is_exact &= self.is_whole(key);
    }

    /// The elements with a distance: all before the range have lower ones.
    #[inline]
    fn run_of(&self, distance: u32) -> Range<usize> {
        let distances = self.distances();
        let start = distances.partition_point(|&other| other < distance);
        let mut run = start..start;
        while distances.get(run.end) == Some(&distance) {
            run.end += 1;
            if run.len() > SHORT_RUN {
                run.end += distances[run.end..].partition_point(|&other| other == distance);
                break;
            }
        }
        run
    }

    /// The elements of a score: all before the range have lower scores.
    #[inline]
    fn equal_run(&self, key: u64, arena: &Arena) -> Range<usize> {
        let Some(distance) = self.distance(key) else {
            let at = if key < self.base { 0 } else { self.len() };
            return at..at;
        };
        let run = self.run_of(distance);
        if self.is_exact {
            // Otherwise the score is in the midst of a step, and those of the run at its beginning.
            return if self.is_whole(key) { run } else { run.end..run.end };
        }
        if run.is_empty() {
            return run;
        }
        // Several scores have this distance.
        let key_of = |handle: Handle| order_key(arena.score(handle));
        let run_start = run.start + self.handles[run.clone()].partition_point(|&handle| key_of(handle) < key);
        let equal = self.handles[run_start..run.end].partition_point(|&handle| key_of(handle) == key);
        run_start..run_start + equal
    }

    /// Fetches all of it.
    pub(super) fn prefetch(&self) {
        prefetch_all(self);
    }

    /// Fetches some of the elements whose scores are equal to this one, or seem to be.
    pub(super) fn prefetch_equal(&self, key: u64, arena: &Arena) {
        let Some(distance) = self.distance(key) else { return };
        let distances = self.distances();
        let start = distances.partition_point(|&other| other < distance);
        let equal = distances[start..].iter().take_while(|&&other| other == distance);
        equal.zip(&self.handles[start..]).take(SHORT_RUN).for_each(|(_, &handle)| arena.prefetch(handle));
    }

    /// How many elements lie before a bound.
    pub(super) fn position(&self, bound: Bound<'_>, arena: &Arena) -> usize {
        let Some(key) = bound.key() else {
            return self.handles().partition_point(|&handle| bound.is_behind_member(handle, arena));
        };
        let run = self.equal_run(key, arena);
        let equal = &self.handles[run.clone()];
        run.start + equal.partition_point(|&handle| bound.is_behind_equal(handle, arena))
    }

    /// Where an element is that is there.
    pub(super) fn find(&self, key: u64, handle: Handle) -> usize {
        let run = self.run_of(self.distance(key).expect("the leaf has the element, whose score fits"));
        let at = self.handles[run.clone()].iter().position(|&other| other == handle);
        run.start + at.expect("the leaf has the element")
    }

    /// Adds an element. There is room for it.
    pub(super) fn insert(&mut self, key: u64, handle: Handle, arena: &Arena) {
        if self.distance(key).is_none() {
            self.reframe(Some(key), arena);
        }
        let member = arena.member(handle);
        let at = self.position(Bound::Element { key, member }, arena);
        self.insert_at(at, key, handle);
    }

    fn insert_at(&mut self, at: usize, key: u64, handle: Handle) {
        let len = self.len();
        self.distances.copy_within(at..len, at + 1);
        self.handles.copy_within(at..len, at + 1);
        self.set_key(at, key);
        self.handles[at] = handle;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        let len = self.len();
        self.distances.copy_within(at + 1..len, at);
        self.handles.copy_within(at + 1..len, at);
        self.len -= 1;
    }

    pub(super) fn replace(&mut self, at: usize, handle: Handle) {
        self.handles[at] = handle;
    }

    /// Changes the score of an element if its neighbours show that it keeps its place. Returns whether they do. The
    /// first and the last element have no neighbours here, and stay as they are.
    pub(super) fn change_within(&mut self, at: usize, key: u64) -> bool {
        if at == 0 || at + 1 >= self.len() {
            return false;
        }
        let Some(distance) = self.distance(key) else { return false };
        let keeps_place = self.distances[at - 1] < distance && distance < self.distances[at + 1];
        if keeps_place {
            self.set_key(at, key);
        }
        keeps_place
    }

    /// Fills an empty leaf with elements in order.
    pub(super) fn fill(&mut self, elements: &[(u64, Handle)]) {
        let (first, last) = (elements[0].0, elements[elements.len() - 1].0);
        self.set_frame(first, last);
        self.len = elements.len() as u8;
        for (at, &(key, handle)) in elements.iter().enumerate() {
            self.set_key(at, key);
            self.handles[at] = handle;
        }
    }

    /// Chooses another frame: one that has room for `key`, and for more on both sides.
    #[cold]
    fn reframe(&mut self, key: Option<u64>, arena: &Arena) {
        let keys: [u64; LEAF_LEN] =
            std::array::from_fn(|at| if at < self.len() { self.key(at, arena) } else { 0 });
        let ends = keys[..self.len()].first().into_iter().chain(keys[..self.len()].last());
        let (low, high) =
            ends.copied().chain(key).fold((u64::MAX, 0), |(low, high), key| (low.min(key), high.max(key)));
        self.set_frame(low, high);
        for (at, &key) in keys[..self.len()].iter().enumerate() {
            self.set_key(at, key);
        }
    }

    /// Chooses the frame for scores between two. All distances are to be set anew.
    fn set_frame(&mut self, low: u64, high: u64) {
        (self.base, self.shift) = frame(low, high);
        self.is_exact = true;
    }

    fn has_frame_of(&self, other: &Leaf) -> bool {
        self.base == other.base && self.shift == other.shift
    }

    /// Chooses another frame if the present one is much too wide.
    fn narrow(&mut self, arena: &Arena) {
        if let ([first, ..], [.., last]) = (self.distances(), self.distances())
            && self.shift > 0
            && last - first < NARROW
        {
            self.reframe(None, arena);
        }
    }

    /// Moves the elements from `at` on to a new leaf.
    pub(super) fn split_off(&mut self, at: usize, arena: &Arena) -> Box<Leaf> {
        let mut right = Leaf::new();
        (right.base, right.shift) = (self.base, self.shift);
        right.take_front(self, at, arena);
        self.narrow(arena);
        right.narrow(arena);
        right
    }

    /// Moves the elements from `at` on to the front of the next leaf.
    pub(super) fn move_to_next(&mut self, at: usize, next: &mut Leaf, arena: &Arena) {
        next.take_front(self, at, arena);
    }

    fn take_front(&mut self, left: &mut Leaf, at: usize, arena: &Arena) {
        let (count, len) = (left.len() - at, self.len());
        if count == 0 {
            return;
        }
        self.make_fit(left, at..left.len(), arena);
        self.distances.copy_within(..len, count);
        self.handles.copy_within(..len, count);
        self.copy_from(0, left, at..left.len(), arena);
        self.len += count as u8;
        left.len = at as u8;
    }

    /// Moves the first `count` elements to the end of the previous leaf.
    pub(super) fn move_to_previous(&mut self, count: usize, previous: &mut Leaf, arena: &Arena) {
        let (len, previous_len) = (self.len(), previous.len());
        if count == 0 {
            return;
        }
        previous.make_fit(self, 0..count, arena);
        previous.copy_from(previous_len, self, 0..count, arena);
        previous.len += count as u8;
        self.distances.copy_within(count..len, 0);
        self.handles.copy_within(count..len, 0);
        self.len -= count as u8;
    }

    /// Changes the frame so that it has room for elements of another leaf.
    fn make_fit(&mut self, other: &Leaf, range: Range<usize>, arena: &Arena) {
        if self.has_frame_of(other) {
            return;
        }
        for at in [range.start, range.end - 1] {
            let key = other.key(at, arena);
            if self.distance(key).is_none() {
                self.reframe(Some(key), arena);
            }
        }
    }

    fn copy_from(&mut self, to: usize, other: &Leaf, range: Range<usize>, arena: &Arena) {
        let end = to + range.len();
        self.handles[to..end].copy_from_slice(&other.handles[range.clone()]);
        if self.has_frame_of(other) {
            self.distances[to..end].copy_from_slice(&other.distances[range]);
            self.is_exact &= other.is_exact;
            return;
        }
        for (to, at) in (to..end).zip(range) {
            self.set_key(to, other.key(at, arena));
        }
    }
}

/// Equal distances that are counted one by one before they are searched.
const SHORT_RUN: usize = 4;

/// Base and shift for scores from `low` to `high`: a frame four times as wide, if it is not exact anyway. `low` is whole
/// steps away from the base, so that the distances are exact if all scores have the last bits in common.
fn frame(low: u64, high: u64) -> (u64, u8) {
    const SIDES: u64 = 4;
    let range = high - low;
    let width = range.saturating_mul(SIDES).max(u64::from(u32::MAX));
    let shift = (u64::BITS - width.leading_zeros()).saturating_sub(u32::BITS);
    let step = 1 << shift;
    // A shift wastes less than half of the 32 bits, and the frame ends with the keys.
    let width = (u64::from(u32::MAX) << shift) | (step - 1);
    let below = ((width - range) / 2).min(low) / step * step;
    (low - below, shift as u8)
}
