//! Index: from a member's hash to the element, by linear hashing.
//!
//! The hashes are divided among segments by their lowest bits. When the set has grown by a segment's worth, *one*
//! segment is split, the next in turn; when it has shrunk, the last segment is merged into the one that it was split
//! from. So growing and shrinking never rehash more than a segment, and there is no directory that doubles.
//!
//! A segment is an array of slots of 6 bytes, sorted by tag: 16 bits of the hash that follow the bits by which the
//! segment was chosen, so that the place of a hash can be interpolated and is found within a cache line or two. It is
//! always nearly full, as it grows by an eighth. The bits are taken from the hash in reverse ([`Place::order`]), the
//! lowest first. So a split cuts a segment in the middle, and the order of all elements by reversed hash is the same
//! however many segments there are: a scan's cursor is a place in this order.
//!
//! To split a segment takes one bit more of the hash. The tags have a few to spare: they start at a multiple of
//! `TAG_STEP` bits, and only when a split passes one of these, the hashes are calculated anew from the members.

use super::arena::{Arena, Handle};
use crate::types::hashing::hash_bytes;
use crate::types::{CACHE_LINE_LEN, prefetch};

const TAG_STEP: u32 = 4;
/// Elements for each segment, on average.
const SEGMENT_LEN: usize = 128;
/// Segments merge when there are fewer elements than this for each.
const SEGMENT_LEN_MIN: usize = SEGMENT_LEN / 2;
/// Segments in a chunk of the table of segments, which is never moved as a whole.
const CHUNK_LEN: usize = 1 << 10;
/// Bits of a scan's cursor: as many as tags can tell apart.
pub const CURSOR_BITS: u32 = 48;
/// No segment is deeper, so that a cursor names a place exactly.
const DEPTH_MAX: u32 = CURSOR_BITS - u16::BITS;

#[derive(Clone, Copy)]
struct Slot {
    tag: u16,
    handle: [u16; 2],
}

const _: () = assert!(size_of::<Slot>() == 6);

impl Slot {
    fn new(tag: u16, handle: Handle) -> Slot {
        Slot { tag, handle: [handle as u16, (handle >> 16) as u16] }
    }

    fn handle(self) -> Handle {
        Handle::from(self.handle[0]) | Handle::from(self.handle[1]) << 16
    }
}

type Segment = Vec<Slot>;

/// Where a hash belongs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    hash: u64,
    /// The hash's bits in reverse.
    order: u64,
}

impl Place {
    #[inline]
    pub(super) fn of(member: &[u8]) -> Place {
        let hash = hash_bytes(member);
        Place { hash, order: hash.reverse_bits() }
    }

    /// The tag in a segment of a depth.
    #[inline]
    fn tag(self, depth: u32) -> u16 {
        (self.order << (depth / TAG_STEP * TAG_STEP) >> (u64::BITS - u16::BITS)) as u16
    }
}

#[derive(Clone)]
pub(super) struct Index {
    /// The segments, in chunks.
    chunks: Vec<Vec<Segment>>,
    segment_count: usize,
    len: usize,
    /// Bytes of the segments, and of the chunks.
    bytes: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        let mut index = Index { chunks: Vec::new(), segment_count: 0, len: 0, bytes: 0 };
        index.push_segment(Segment::new());
        index
    }

    /// Bytes that it owns outside of itself.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.chunks.capacity() * size_of::<Vec<Segment>>()
    }

    /// A copy, whose arrays are as short as possible.
    pub(super) fn duplicate(&self) -> Index {
        let mut copy = self.clone();
        let slots: usize = copy.chunks.iter().flatten().map(Vec::capacity).sum();
        let segments: usize = copy.chunks.iter().map(Vec::capacity).sum();
        copy.bytes = slots * size_of::<Slot>() + segments * size_of::<Segment>();
        copy
    }

    #[inline]
    fn segment(&self, index: usize) -> &Segment {
        &self.chunks[index / CHUNK_LEN][index % CHUNK_LEN]
    }

    #[inline]
    fn segment_mut(&mut self, index: usize) -> &mut Segment {
        &mut self.chunks[index / CHUNK_LEN][index % CHUNK_LEN]
    }

    /// The segment of a hash, and its depth: how many bits of the hash all its elements have in common.
    #[inline]
    fn find_segment(&self, hash: u64) -> (usize, u32) {
        let depth = self.segment_count.ilog2();
        let whole = 1 << depth;
        let index = hash as usize & (2 * whole - 1);
        if index < self.segment_count && (index >= whole || index + whole < self.segment_count) {
            return (index, depth + 1);
        }
        (index & (whole - 1), depth)
    }

    /// The element of a member.
    #[inline]
    pub(super) fn find(&self, place: Place, arena: &Arena, member: &[u8]) -> Option<Handle> {
        let (segment, depth) = self.find_segment(place.hash);
        let (segment, tag) = (self.segment(segment), place.tag(depth));
        let from = lower_bound(segment, tag, depth);
        let found = segment[from..].iter().take_while(|slot| slot.tag == tag);
        found.map(|slot| slot.handle()).find(|&handle| arena.member(handle) == member)
    }

    /// Fetches a hash's segment: first step of [`Index::find`].
    #[inline]
    pub(super) fn prefetch_segment(&self, place: Place) {
        let (segment, _) = self.find_segment(place.hash);
        prefetch((&raw const *self.segment(segment)).cast());
    }

    /// Second step: fetches the slots about the place where the hash's is expected.
    #[inline]
    pub(super) fn prefetch_slots(&self, place: Place) {
        let (segment, depth) = self.find_segment(place.hash);
        let segment = self.segment(segment);
        let at = segment.as_ptr().wrapping_add(expected_at(segment, place.tag(depth), depth)).cast::<u8>();
        prefetch(at.wrapping_sub(CACHE_LINE_LEN / 2));
        prefetch(at.wrapping_add(CACHE_LINE_LEN / 2));
    }

    /// Third step: the element that is probably the hash's. Nothing is compared.
    #[inline]
    pub(super) fn probable(&self, place: Place) -> Option<Handle> {
        let (segment, depth) = self.find_segment(place.hash);
        let (segment, tag) = (self.segment(segment), place.tag(depth));
        let slot = segment.get(lower_bound(segment, tag, depth))?;
        (slot.tag == tag).then(|| slot.handle())
    }

    /// Adds an element that is not there yet.
    pub(super) fn insert(&mut self, place: Place, handle: Handle, arena: &Arena) {
        let (index, depth) = self.find_segment(place.hash);
        let tag = place.tag(depth);
        let segment = self.segment_mut(index);
        let at = lower_bound(segment, tag, depth);
        let before = segment.capacity();
        if segment.len() == before {
            segment.reserve_exact(grown_len(before) - before);
        }
        let after = segment.capacity();
        segment.insert(at, Slot::new(tag, handle));
        self.bytes += (after - before) * size_of::<Slot>();
        self.len += 1;
        if self.len > self.segment_count * SEGMENT_LEN && self.segment_count < 1 << DEPTH_MAX {
            self.split(arena);
        }
    }

    fn position(&self, place: Place, handle: Handle) -> (usize, usize) {
        let (index, depth) = self.find_segment(place.hash);
        let segment = self.segment(index);
        let from = lower_bound(segment, place.tag(depth), depth);
        let at = segment[from..].iter().position(|slot| slot.handle() == handle);
        (index, from + at.expect("the element is in the index"))
    }

    /// Removes an element that is there.
    pub(super) fn remove(&mut self, place: Place, handle: Handle, arena: &Arena) {
        let (index, at) = self.position(place, handle);
        let segment = self.segment_mut(index);
        segment.remove(at);
        let before = segment.capacity();
        if segment.len() * 2 < before {
            segment.shrink_to(grown_len(segment.len()));
        }
        let after = segment.capacity();
        self.bytes -= (before - after) * size_of::<Slot>();
        self.len -= 1;
        if self.segment_count > 1 && self.len < self.segment_count * SEGMENT_LEN_MIN {
            self.merge(arena);
        }
    }

    /// Replaces the handle of an element that has moved.
    pub(super) fn replace(&mut self, place: Place, old: Handle, new: Handle) {
        let (index, at) = self.position(place, old);
        let slot = &mut self.segment_mut(index)[at];
        *slot = Slot::new(slot.tag, new);
    }

    fn push_segment(&mut self, segment: Segment) {
        if self.segment_count.is_multiple_of(CHUNK_LEN) {
            self.chunks.push(Vec::new());
        }
        self.bytes += segment.capacity() * size_of::<Slot>();
        let chunk = self.chunks.last_mut().expect("the first segment of a chunk adds the chunk");
        let before = chunk.capacity();
        chunk.push(segment);
        self.bytes += (chunk.capacity() - before) * size_of::<Segment>();
        self.segment_count += 1;
    }

    fn pop_segment(&mut self) -> Segment {
        let chunk = self.chunks.last_mut().expect("there is a segment to merge");
        let segment = chunk.pop().expect("no chunk is empty");
        if chunk.is_empty() {
            self.bytes -= chunk.capacity() * size_of::<Segment>();
            self.chunks.pop();
        }
        self.bytes -= segment.capacity() * size_of::<Slot>();
        self.segment_count -= 1;
        segment
    }

    /// Splits the next segment in turn.
    fn split(&mut self, arena: &Arena) {
        let depth = self.segment_count.ilog2();
        let index = self.segment_count - (1 << depth);
        let mut lower = std::mem::take(self.segment_mut(index));
        let before = lower.capacity();
        let bit = u16::BITS - 1 - depth % TAG_STEP;
        let cut = lower.partition_point(|slot| slot.tag >> bit & 1 == 0);
        let mut upper = Segment::new();
        upper.reserve_exact(grown_len(lower.len() - cut));
        upper.extend(lower.drain(cut..));
        lower.shrink_to(grown_len(cut));
        if (depth + 1).is_multiple_of(TAG_STEP) {
            retag(&mut lower, depth + 1, arena);
            retag(&mut upper, depth + 1, arena);
        }
        self.bytes -= (before - lower.capacity()) * size_of::<Slot>();
        *self.segment_mut(index) = lower;
        self.push_segment(upper);
    }

    /// Merges the last segment into the one that it was split from.
    fn merge(&mut self, arena: &Arena) {
        let upper = self.pop_segment();
        let depth = self.segment_count.ilog2();
        let index = self.segment_count - (1 << depth);
        let mut lower = std::mem::take(self.segment_mut(index));
        let before = lower.capacity();
        lower.reserve_exact(grown_len(lower.len() + upper.len()) - lower.len());
        lower.extend(upper);
        if (depth + 1).is_multiple_of(TAG_STEP) {
            retag(&mut lower, depth, arena);
        }
        self.bytes = self.bytes - before * size_of::<Slot>() + lower.capacity() * size_of::<Slot>();
        *self.segment_mut(index) = lower;
    }

    /// Visits elements in the order of the scan from `cursor` on until about `count` have been visited. Returns where
    /// to continue, 0 at the end. Whoever is there from the first call to the last is visited.
    pub(super) fn scan(&self, cursor: u64, count: usize, visit: &mut impl FnMut(Handle)) -> u64 {
        const UNUSED: u32 = u64::BITS - CURSOR_BITS;
        let mut order = cursor << UNUSED;
        let mut visited = 0;
        loop {
            let place = Place { hash: order.reverse_bits(), order };
            let (index, depth) = self.find_segment(place.hash);
            let segment = self.segment(index);
            let mut at = lower_bound(segment, place.tag(depth), depth);
            while let Some(slot) = segment.get(at) {
                if visited >= count && (at == 0 || segment[at - 1].tag != slot.tag) {
                    // The bits before the tag are those of the segment.
                    let tag_at = depth / TAG_STEP * TAG_STEP;
                    let before = order & !(u64::MAX >> tag_at);
                    return (before | u64::from(slot.tag) << (u64::BITS - u16::BITS) >> tag_at) >> UNUSED;
                }
                visit(slot.handle());
                visited += 1;
                at += 1;
            }
            let Some(rest) = u64::MAX.checked_shr(depth) else { return 0 };
            match (order | rest).checked_add(1) {
                Some(next) if visited < count => order = next,
                Some(next) => return next >> UNUSED,
                None => return 0,
            }
        }
    }

    /// Frees segments, each for a cost of one. Returns whether nothing is left.
    pub(super) fn free_some(&mut self, budget: &mut usize) -> bool {
        while *budget > 0 && self.segment_count > 0 {
            self.pop_segment();
            *budget -= 1;
        }
        self.segment_count == 0
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segment_count
    }
}

/// About where a tag is: the place that it has between the lowest and the highest possible one. Hashes are evenly
/// distributed.
#[inline]
fn expected_at(segment: &[Slot], tag: u16, depth: u32) -> usize {
    let share = usize::from(tag << (depth % TAG_STEP));
    (share * segment.len()) >> u16::BITS
}

/// The first slot whose tag is not less than `tag`.
#[inline]
fn lower_bound(segment: &[Slot], tag: u16, depth: u32) -> usize {
    let mut at = expected_at(segment, tag, depth);
    while at > 0 && segment[at - 1].tag >= tag {
        at -= 1;
    }
    while at < segment.len() && segment[at].tag < tag {
        at += 1;
    }
    at
}

/// Calculates the tags for another depth, and sorts by them.
fn retag(segment: &mut Segment, depth: u32, arena: &Arena) {
    for slot in segment.iter() {
        arena.prefetch(slot.handle());
    }
    for slot in segment.iter_mut() {
        slot.tag = Place::of(arena.member(slot.handle())).tag(depth);
    }
    segment.sort_unstable_by_key(|slot| slot.tag);
}

/// How many slots an array of more than `len` slots should have: as many as fill an allocation of a usual size.
fn grown_len(len: usize) -> usize {
    const BYTES_MIN: usize = 64;
    let bytes = (len + 1) * size_of::<Slot>();
    if bytes <= BYTES_MIN {
        return BYTES_MIN / size_of::<Slot>();
    }
    // Allocators have four sizes between each power of two and the next.
    let step = 1 << ((bytes - 1).ilog2() - 2);
    bytes.next_multiple_of(step) / size_of::<Slot>()
}

#[cfg(test)]
impl Index {
    /// Checks that all tags are in order, and what is counted.
    pub(super) fn check(&self, len: usize) {
        assert_eq!(self.len, len);
        let segments: Vec<&Segment> = self.chunks.iter().flatten().collect();
        assert_eq!(segments.len(), self.segment_count);
        assert_eq!(segments.iter().map(|segment| segment.len()).sum::<usize>(), self.len);
        let slots: usize = segments.iter().map(|segment| segment.capacity()).sum();
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.capacity()).sum();
        assert_eq!(self.bytes, slots * size_of::<Slot>() + chunks * size_of::<Segment>());
        for segment in segments {
            assert!(segment.is_sorted_by_key(|slot| slot.tag));
        }
    }
}
