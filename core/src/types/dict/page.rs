//! Page: the elements of a dict with the same hash prefix, packed into one allocation.
//!
//! ```text
//! count   tags        offsets     free     element n-1 ... element 1  element 0
//! 2       n x 1       n x 2       ...      <---------------------------------- data
//! ```
//!
//! A tag is a byte of the element's hash: 16 of them are compared at a time, and only the elements that match are
//! looked at. The data grows from the end of the page downwards, so that an element is added without moving another.
//! An offset is the distance of the element's first byte from the end of the page, which stays the same when the page
//! grows. The element ends where the one before it begins, so its length is stored nowhere. Bit 15 of an offset tells
//! that the element lies outside, and that the page has only its number there: see [`outside`](super::outside).
//!
//! A page is as long as one of the allocator's size classes, and goes from one to the next as elements are added: at
//! 17 bytes a member that is every sixth of them or so, and a copy of less than a kilobyte. It holds some 30 elements
//! on the average, see [`Dict`](super::Dict), and never one more than its offsets can tell.

use crate::types::prefetch;

const COUNT_AT: usize = 0;
const TAGS_AT: usize = COUNT_AT + 2;
/// A tag and an offset.
const SLOT_LEN: usize = 3;
/// How many tags are compared at a time.
const GROUP_LEN: usize = 16;
/// Shortest page. A group of tags that begins in a page also ends in it: beyond the first group, the offsets of its
/// elements are as long.
const PAGE_LEN_MIN: usize = 32;

const OUTSIDE: u16 = 1 << 15;
/// The most bytes of elements in one page.
pub(super) const DATA_LEN_MAX: usize = OUTSIDE as usize - 1;
/// The most elements in one page.
const COUNT_MAX: usize = u16::MAX as usize;
/// Length of an element that lies outside: its number.
pub(super) const OUTSIDE_LEN: usize = 4;

const _: () = assert!(TAGS_AT + GROUP_LEN <= PAGE_LEN_MIN && 2 * (GROUP_LEN + 1) >= GROUP_LEN);

/// An element as it lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    Inline(&'a [u8]),
    /// The number of an element outside.
    Outside(u32),
}

/// A page without elements owns no memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Page(Box<[u8]>);

/// The size that the allocator has for `len` bytes. jemalloc has four classes for each power of two, which are no
/// nearer to each other than 16 bytes.
pub(super) fn size_class(len: usize) -> usize {
    let step = if len <= 128 { 16 } else { 1 << ((len - 1).ilog2() - 2) };
    len.next_multiple_of(step)
}

/// The tags of a group that are equal to `tag`, as a bit each.
#[inline]
fn matching(group: &[u8; GROUP_LEN], tag: u8) -> u32 {
    let half = |at: usize| u64::from_le_bytes(group[at..at + 8].try_into().expect("8 bytes"));
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let tags = _mm_set_epi64x(half(8) as i64, half(0) as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // A byte of `differs` is 0 where the tags are equal. A borrow may mark the byte above such a one as well,
        // which then is compared in vain.
        let bits = |word: u64| {
            const ONES: u64 = u64::from_le_bytes([1; 8]);
            let differs = word ^ (ONES * u64::from(tag));
            let high = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
            ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
        };
        bits(half(0)) | bits(half(8)) << 8
    }
}

impl Page {
    /// A page without elements, with room for `count` elements of `data_len` bytes together.
    pub(super) fn with_room(count: usize, data_len: usize) -> Page {
        let mut page = Page::default();
        if count > 0 {
            page.reallocate(fitted(count, data_len));
        }
        page
    }

    /// Bytes of the allocation.
    #[inline]
    pub(super) fn alloc_len(&self) -> usize {
        self.0.len()
    }

    /// Where the page begins, to be prefetched.
    #[inline]
    pub(super) fn address(&self) -> *const u8 {
        self.0.as_ptr()
    }

    /// How many elements there are.
    #[inline]
    pub(super) fn count(&self) -> usize {
        match self.0.get(COUNT_AT..TAGS_AT) {
            Some(count) => usize::from(u16::from_le_bytes([count[0], count[1]])),
            None => 0,
        }
    }

    fn set_count(&mut self, count: usize) {
        self.0[COUNT_AT..TAGS_AT].copy_from_slice(&(count as u16).to_le_bytes());
    }

    /// The offset of an element, with the mark of those outside.
    #[inline]
    fn raw_offset(&self, count: usize, slot: usize) -> u16 {
        let at = TAGS_AT + count + 2 * slot;
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn set_raw_offset(&mut self, count: usize, slot: usize, offset: u16) {
        let at = TAGS_AT + count + 2 * slot;
        self.0[at..at + 2].copy_from_slice(&offset.to_le_bytes());
    }

    /// The distance from the end of the page to the first byte of an element.
    #[inline]
    fn offset(&self, count: usize, slot: usize) -> usize {
        usize::from(self.raw_offset(count, slot) & !OUTSIDE)
    }

    /// The distance from the end of the page to the end of an element.
    #[inline]
    fn end_offset(&self, count: usize, slot: usize) -> usize {
        if slot == 0 { 0 } else { self.offset(count, slot - 1) }
    }

    /// Bytes of all elements.
    #[inline]
    pub(super) fn data_len(&self) -> usize {
        self.end_offset(self.count(), self.count())
    }

    /// The element in a slot.
    #[inline]
    pub(super) fn get(&self, slot: usize) -> Stored<'_> {
        let count = self.count();
        debug_assert!(slot < count);
        let raw = self.raw_offset(count, slot);
        let (start, end) = (usize::from(raw & !OUTSIDE), self.end_offset(count, slot));
        let len = self.0.len();
        let bytes = &self.0[len - start..len - end];
        if raw & OUTSIDE == 0 {
            Stored::Inline(bytes)
        } else {
            Stored::Outside(u32::from_le_bytes(bytes.try_into().expect("a number of an element outside")))
        }
    }

    /// The bytes of an element that does not lie outside, or the number of one that does.
    pub(super) fn bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        let count = self.count();
        let (start, end) = (self.offset(count, slot), self.end_offset(count, slot));
        let len = self.0.len();
        &mut self.0[len - start..len - end]
    }

    /// The first slot with this tag whose element `is_it`.
    #[inline]
    pub(super) fn find(&self, tag: u8, mut is_it: impl FnMut(Stored<'_>) -> bool) -> Option<usize> {
        let count = self.count();
        let mut first = 0;
        while first < count {
            let group = self.0[TAGS_AT + first..].first_chunk().expect("a group ends within the page");
            let mut found = matching(group, tag);
            while found != 0 {
                let slot = first + found.trailing_zeros() as usize;
                if slot >= count {
                    return None;
                }
                if is_it(self.get(slot)) {
                    return Some(slot);
                }
                found &= found - 1;
            }
            first += GROUP_LEN;
        }
        None
    }

    /// Fetches the first element with this tag.
    #[inline]
    pub(super) fn prefetch_first(&self, tag: u8) {
        self.find(tag, |stored| {
            if let Stored::Inline(bytes) = stored {
                prefetch(bytes.as_ptr());
            }
            true
        });
    }

    /// Adds an element of `len` bytes, and returns these to be written. There is [`Page::has_room`] for it.
    pub(super) fn push(&mut self, tag: u8, len: usize, is_outside: bool) -> &mut [u8] {
        let (count, data_len) = (self.count(), self.data_len());
        debug_assert!(self.has_room(len));
        if TAGS_AT + (count + 1) * SLOT_LEN + data_len + len > self.0.len() {
            self.reallocate(fitted(count + 1, data_len + len));
        }
        let offsets = TAGS_AT + count;
        self.0.copy_within(offsets..offsets + 2 * count, offsets + 1);
        self.0[offsets] = tag;
        let mark = if is_outside { OUTSIDE } else { 0 };
        self.set_raw_offset(count + 1, count, (data_len + len) as u16 | mark);
        self.set_count(count + 1);
        let end = self.0.len() - data_len;
        &mut self.0[end - len..end]
    }

    /// Whether the page's offsets can tell one more element of `len` bytes.
    #[inline]
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.data_len() + len <= DATA_LEN_MAX && self.count() < COUNT_MAX
    }

    /// Replaces what follows the first `keep` bytes of an element, so that it has `len` bytes; or, if it moves from the
    /// page to outside or back, all of it. Returns the element's bytes. There is [`Page::has_room`] for the difference.
    pub(super) fn resize(&mut self, slot: usize, keep: usize, len: usize, is_outside: bool) -> &mut [u8] {
        let (count, data_len) = (self.count(), self.data_len());
        let old_len = self.offset(count, slot) - self.end_offset(count, slot);
        let data_len_after = data_len - old_len + len;
        if TAGS_AT + count * SLOT_LEN + data_len_after > self.0.len() {
            self.reallocate(fitted(count, data_len_after));
        }
        if len != old_len {
            // All elements after this one lie below it.
            let lowest = self.0.len() - data_len;
            let kept_end = self.0.len() - self.offset(count, slot) + keep;
            self.0.copy_within(lowest..kept_end, self.0.len() - data_len_after);
            for after in slot..count {
                let offset = usize::from(self.raw_offset(count, after)) + len - old_len;
                self.set_raw_offset(count, after, offset as u16);
            }
        }
        let mark = if is_outside { OUTSIDE } else { 0 };
        self.set_raw_offset(count, slot, self.offset(count, slot) as u16 | mark);
        self.shrink();
        self.bytes_mut(slot)
    }

    /// Removes an element. Those in the slots after it move to the slot before theirs.
    pub(super) fn remove(&mut self, slot: usize) {
        let (count, data_len) = (self.count(), self.data_len());
        let (start, end) = (self.offset(count, slot), self.end_offset(count, slot));
        let len = self.0.len();
        self.0.copy_within(len - data_len..len - start, len - data_len + (start - end));
        for after in slot + 1..count {
            let offset = self.raw_offset(count, after) - (start - end) as u16;
            self.set_raw_offset(count, after, offset);
        }
        let offsets = TAGS_AT + count;
        self.0.copy_within(offsets + 2 * (slot + 1)..offsets + 2 * count, offsets + 2 * slot);
        self.0.copy_within(TAGS_AT + slot + 1..offsets + 2 * (count - 1), TAGS_AT + slot);
        self.set_count(count - 1);
        self.shrink();
    }

    /// Moves the page to a shorter allocation if it needs no more than half of its own.
    fn shrink(&mut self) {
        let (count, data_len) = (self.count(), self.data_len());
        if count == 0 {
            *self = Page::default();
        } else if fitted(count, data_len) <= self.0.len() / 2 {
            self.reallocate(fitted(count, data_len));
        }
    }

    /// Whether the page's offsets can tell the elements of `other` as well.
    pub(super) fn has_room_for(&self, other: &Page) -> bool {
        self.data_len() + other.data_len() <= DATA_LEN_MAX && self.count() + other.count() <= COUNT_MAX
    }

    /// Appends the elements of another page. There is [`Page::has_room_for`] them.
    pub(super) fn append(&mut self, other: &Page) {
        let len = fitted(self.count() + other.count(), self.data_len() + other.data_len());
        if len > self.alloc_len() {
            self.reallocate(len);
        }
        for slot in 0..other.count() {
            self.push_copy(other, slot);
        }
    }

    /// Two pages with the elements of this one: those that do not go up, and those that do.
    pub(super) fn partitioned(&self, goes_up: &[bool]) -> [Page; 2] {
        let count = self.count();
        let (mut upper_count, mut upper_len) = (0, 0);
        for slot in (0..count).filter(|&slot| goes_up[slot]) {
            upper_count += 1;
            upper_len += self.offset(count, slot) - self.end_offset(count, slot);
        }
        let mut lower = Page::with_room(count - upper_count, self.data_len() - upper_len);
        let mut upper = Page::with_room(upper_count, upper_len);
        for slot in 0..count {
            if goes_up[slot] { &mut upper } else { &mut lower }.push_copy(self, slot);
        }
        [lower, upper]
    }

    fn push_copy(&mut self, other: &Page, slot: usize) {
        let count = other.count();
        let tag = other.0[TAGS_AT + slot];
        let (raw, end) = (other.raw_offset(count, slot), other.end_offset(count, slot));
        let start = usize::from(raw & !OUTSIDE);
        let bytes = &other.0[other.0.len() - start..other.0.len() - end];
        self.push(tag, start - end, raw & OUTSIDE != 0).copy_from_slice(bytes);
    }

    /// Moves the page to an allocation of `len` bytes.
    #[inline(never)]
    fn reallocate(&mut self, len: usize) {
        let (count, data_len) = (self.count(), self.data_len());
        let mut bytes = Vec::with_capacity(len);
        if self.0.is_empty() {
            bytes.extend_from_slice(&[0; TAGS_AT]);
        } else {
            bytes.extend_from_slice(&self.0[..TAGS_AT + count * SLOT_LEN]);
        }
        bytes.resize(len - data_len, 0);
        bytes.extend_from_slice(&self.0[self.0.len() - data_len..]);
        self.0 = bytes.into_boxed_slice();
    }
}

/// Length of a page with so many elements and bytes of elements.
fn fitted(count: usize, data_len: usize) -> usize {
    size_class((TAGS_AT + count * SLOT_LEN + data_len).max(PAGE_LEN_MIN))
}
