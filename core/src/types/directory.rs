//! Directory: from a hash to its segment, by extendible hashing in two levels.
//!
//! ```text
//! root            page (PAGE_LEN pointers)         segments
//! [ 0 ] --------> [ ][ ][ ][ ] ... [ ] ----------> each is pointed at by 2^k neighbouring entries
//! [ 1 ] --------> [ ][ ][ ][ ] ... [ ]             of one page
//! ...
//! ```
//!
//! A plain directory doubles as a whole, and at 100 million keys that is a copy of 8 MiB in the middle of a SET. Here a
//! page covers a range of hashes and splits on its own, which copies 4 KiB; only the root, which is 256 times smaller,
//! doubles as a whole. The top `root_depth` bits of a hash choose the root's entry, and a page of depth `d` is chosen
//! by the first `d` of these, so that 2^(root_depth - d) neighbouring entries point at it. The 8 bits after the first
//! `d` choose the entry of the page. How far to shift the hash for that is in the low bits of the root entry's pointer,
//! so that a look-up reads nothing of the page but the entry.
//!
//! Pages also keep a lower bound of the first expiry of their segments, the middle level between the table's
//! and the segments'.

use super::segment::{NEVER, Segment};
use super::slab::{BLOCK_LAYOUT, Slab};
use std::ptr::NonNull;

const PAGE_BITS: u32 = 8;
const PAGE_LEN: usize = 1 << PAGE_BITS;
/// The low bits of a root entry: the page's shift.
const SHIFT_MASK: usize = 63;
/// The depth at which no segment splits further. Only a table of more than 2^40 keys, or a bad hash, would need to.
pub(super) const DEPTH_MAX: u32 = 40;

#[repr(C, align(64))]
struct Page {
    segments: [*mut Segment; PAGE_LEN],
    /// Lower bound of the first expiry in the page's segments.
    next_expiry_ms: i64,
    /// Bits of the hash that choose this page.
    depth: u32,
    /// How many segments fill just one entry. With none, the page could be half as long.
    single_count: u32,
}

const _: () = assert!(align_of::<Page>() > SHIFT_MASK && DEPTH_MAX + PAGE_BITS < u64::BITS);

impl Page {
    fn shift(&self) -> u32 {
        u64::BITS - PAGE_BITS - self.depth
    }

    /// Depth of a segment that fills just one entry of this page.
    fn single_depth(&self) -> u32 {
        self.depth + PAGE_BITS
    }
}

/// Owns the segments, which live in the table's slab, but not their entries. Empty until there is a first segment.
pub(super) struct Directory {
    root: Vec<*mut Page>,
    /// log2 of the root's length.
    root_depth: u32,
    page_count: usize,
}

// SAFETY: the directory owns its pages and segments alone; nothing in them is tied to a thread.
unsafe impl Send for Directory {}

#[inline]
fn page_of(entry: *mut Page) -> *mut Page {
    entry.map_addr(|address| address & !SHIFT_MASK)
}

/// The hashes with the same `depth` top bits as `hash` end before this one; None at the end of all hashes.
pub(super) fn end_of_prefix(hash: u64, depth: u32) -> Option<u64> {
    if depth == 0 {
        return None;
    }
    let unit = 1u64 << (u64::BITS - depth);
    (hash & !(unit - 1)).checked_add(unit)
}

impl Directory {
    pub(super) const fn new() -> Self {
        Self { root: Vec::new(), root_depth: 0, page_count: 0 }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    #[cfg(test)]
    pub(super) fn segment_count(&self) -> usize {
        self.segments().count()
    }

    /// Bytes of root and pages.
    pub(super) fn bytes(&self) -> usize {
        self.root.capacity() * size_of::<*mut Page>() + self.page_count * size_of::<Page>()
    }

    /// Makes a first segment cover all hashes.
    pub(super) fn start(&mut self, segment: Segment, slab: &mut Slab) {
        assert!(self.is_empty() && segment.depth() == 0);
        let first = new_segment(slab);
        // SAFETY: the block is ours and made for a segment.
        unsafe { first.write(segment) };
        let page = Page { segments: [first; PAGE_LEN], next_expiry_ms: NEVER, depth: 0, single_count: 0 };
        self.page_count = 1;
        self.root_depth = 0;
        self.root = vec![std::ptr::null_mut()];
        self.point_at(page);
    }

    /// Boxes a page and points the root at it, for the hashes of its segments.
    fn point_at(&mut self, page: Page) -> *mut Page {
        // SAFETY: a page's segments are live.
        let prefix = unsafe { (*page.segments[0]).prefix() };
        let (shift, depth) = (page.shift(), page.depth);
        let page = Box::into_raw(Box::new(page));
        let entry = page.map_addr(|address| address | shift as usize);
        let first = self.root_index(prefix);
        self.root[first..first + (1 << (self.root_depth - depth))].fill(entry);
        page
    }

    #[inline]
    fn root_index(&self, hash: u64) -> usize {
        // In two steps, because a depth of 0 would shift by 64.
        (hash >> 1 >> (u64::BITS - 1 - self.root_depth)) as usize
    }

    /// The segment of a hash. Must not be called on an empty directory.
    #[inline]
    pub(super) fn segment(&self, hash: u64) -> *mut Segment {
        debug_assert!(!self.is_empty());
        // SAFETY: `root_depth` bits cannot exceed the root's length, which is 2^root_depth unless it is empty.
        let entry = unsafe { *self.root.get_unchecked(self.root_index(hash)) };
        let index = (hash >> (entry.addr() & SHIFT_MASK)) as usize % PAGE_LEN;
        // SAFETY: the root points at live pages only. The entry is read through a raw pointer, without a reference.
        unsafe { (*page_of(entry)).segments[index] }
    }

    #[inline]
    fn page(&self, hash: u64) -> *mut Page {
        page_of(self.root[self.root_index(hash)])
    }

    /// Lowers the bound of the page of `hash`. Returns whether it was lowered.
    #[inline]
    pub(super) fn record_expiry(&mut self, hash: u64, at_ms: i64) -> bool {
        // SAFETY: the root points at live pages only, and `&mut self` is the only way to them.
        let page = unsafe { &mut *self.page(hash) };
        let is_first = at_ms < page.next_expiry_ms;
        if is_first {
            page.next_expiry_ms = at_ms;
        }
        is_first
    }

    /// The bound of the page of `hash`, and the page's depth.
    pub(super) fn page_expiry(&self, hash: u64) -> (i64, u32) {
        // SAFETY: the root points at live pages only.
        let page = unsafe { &*self.page(hash) };
        (page.next_expiry_ms, page.depth)
    }

    /// Computes the bound of the page of `hash` anew from its segments.
    pub(super) fn refresh_page_expiry(&mut self, hash: u64) {
        let page = self.page(hash);
        // SAFETY: the root points at live pages only, and these at live segments only. A segment in several
        // entries is read several times, which changes nothing.
        unsafe {
            let first = (*page).segments.iter().map(|&segment| (*segment).next_expiry_ms()).min();
            (*page).next_expiry_ms = first.unwrap_or(NEVER);
        }
    }

    /// The lowest bound of all pages.
    pub(super) fn first_expiry(&self) -> i64 {
        // SAFETY: the root points at live pages only.
        let bounds = self.root.iter().map(|&entry| unsafe { (*page_of(entry)).next_expiry_ms });
        bounds.min().unwrap_or(NEVER)
    }

    /// Splits the segment of `hash` into two.
    pub(super) fn split(&mut self, hash: u64, slab: &mut Slab) {
        let segment = self.segment(hash);
        // SAFETY: the directory's segments are live, and `&mut self` is the only way to them.
        let depth = unsafe { (*segment).depth() };
        assert!(depth < DEPTH_MAX, "a segment's hashes have {depth} bits in common");
        let mut page = self.page(hash);
        // SAFETY: the root points at live pages only; as above for the rest of this function.
        if depth == unsafe { (*page).single_depth() } {
            self.split_page(hash);
            page = self.page(hash);
        }
        // SAFETY: as above. The upper half's entries are the second half of those that point at the segment.
        unsafe {
            let upper = new_segment(slab);
            (*segment).split(&mut *upper.cast());
            let first = ((*upper).prefix() >> (*page).shift()) as usize % PAGE_LEN;
            let count = 1 << ((*page).single_depth() - (*upper).depth());
            if count == 1 {
                (*page).single_count += 2;
            }
            (&mut (*page).segments)[first..first + count].fill(upper);
        }
    }

    /// Splits the page of `hash` into two, each with every segment at twice the entries.
    fn split_page(&mut self, hash: u64) {
        let page = self.page(hash);
        // SAFETY: the page is live, and no longer used once the root points at its halves.
        let page = unsafe { Box::from_raw(page) };
        if page.depth == self.root_depth {
            let doubled = self.root.iter().flat_map(|&entry| [entry, entry]).collect();
            self.root = doubled;
            self.root_depth += 1;
        }
        for half in page.segments.chunks_exact(PAGE_LEN / 2) {
            self.point_at(Page {
                segments: std::array::from_fn(|index| half[index / 2]),
                next_expiry_ms: page.next_expiry_ms,
                depth: page.depth + 1,
                single_count: 0,
            });
        }
        self.page_count += 1;
    }

    /// Merges the segment of `hash` with its buddy, the other half of the split that made it, if the buddy has not
    /// split further and both together have no more than `len_max` entries. Returns whether it did.
    pub(super) fn merge(&mut self, hash: u64, len_max: usize, slab: &mut Slab) -> bool {
        let segment = self.segment(hash);
        // SAFETY: the directory's pages and segments are live, and `&mut self` is the only way to them. The upper
        // segment is freed after its entries in the page were overwritten.
        unsafe {
            let depth = (*segment).depth();
            if depth == 0 {
                return false;
            }
            let bit = 1 << (u64::BITS - depth);
            let buddy = self.segment(hash ^ bit);
            if (*buddy).depth() != depth || (*segment).len() + (*buddy).len() > len_max {
                return false;
            }
            let (lower, upper) = if hash & bit == 0 { (segment, buddy) } else { (buddy, segment) };
            let Some(merged) = Segment::merged(&*lower, &*upper) else { return false };
            // Both halves are in one page: a page whose segments all are longer than it merges at once, below.
            let page = self.page(hash);
            let first = (merged.prefix() >> (*page).shift()) as usize % PAGE_LEN;
            let count = 1 << ((*page).single_depth() - merged.depth());
            if count == 2 {
                (*page).single_count -= 2;
            }
            lower.write(merged);
            (&mut (*page).segments)[first..first + count].fill(lower);
            slab.free_block(NonNull::new_unchecked(upper.cast()));
        }
        while self.merge_page(hash) {}
        true
    }

    /// Merges the page of `hash` with its buddy if neither needs its full length. Returns whether it did.
    fn merge_page(&mut self, hash: u64) -> bool {
        let page = self.page(hash);
        // SAFETY: the root's pages are live; the two are freed after the root's entries were overwritten.
        unsafe {
            if (*page).depth == 0 || (*page).single_count > 0 {
                return false;
            }
            let bit = 1 << (u64::BITS - (*page).depth);
            let buddy = self.page(hash ^ bit);
            if (*buddy).depth != (*page).depth || (*buddy).single_count > 0 {
                return false;
            }
            let (lower, upper) = if hash & bit == 0 { (page, buddy) } else { (buddy, page) };
            let (lower, upper) = (Box::from_raw(lower), Box::from_raw(upper));
            let depth = lower.depth - 1;
            let mut merged = Page {
                segments: std::array::from_fn(|index| {
                    let half = if index < PAGE_LEN / 2 { &lower } else { &upper };
                    half.segments[index * 2 % PAGE_LEN]
                }),
                next_expiry_ms: lower.next_expiry_ms.min(upper.next_expiry_ms),
                depth,
                single_count: 0,
            };
            let single_depth = merged.single_depth();
            merged.single_count =
                merged.segments.iter().filter(|&&segment| (*segment).depth() == single_depth).count() as u32;
            self.point_at(merged);
        }
        self.page_count -= 1;
        // SAFETY: as above.
        let depths = self.root.iter().map(|&entry| unsafe { (*page_of(entry)).depth });
        let depth_max = depths.max().unwrap_or(0);
        while self.root_depth > depth_max {
            self.root = self.root.iter().copied().step_by(2).collect();
            self.root_depth -= 1;
        }
        true
    }

    /// All segments, in the order of their hashes.
    pub(super) fn segments(&self) -> impl Iterator<Item = *mut Segment> + '_ {
        let mut next = if self.is_empty() { None } else { Some(0) };
        std::iter::from_fn(move || {
            let hash = next?;
            let segment = self.segment(hash);
            // SAFETY: the directory's segments are live.
            next = end_of_prefix(hash, unsafe { (*segment).depth() });
            Some(segment)
        })
    }
}

impl Directory {
    /// Frees the pages, and the segments, which live in `slab`, unless dropping the slab frees these itself.
    pub(super) fn free(&mut self, slab: &mut Slab) {
        let mut next = if self.is_empty() || !slab.blocks_outlive_it() { None } else { Some(0) };
        while let Some(hash) = next {
            let segment = self.segment(hash);
            // SAFETY: each segment is reached once, by the first hash that it covers, and its depth read before it
            // is freed.
            unsafe {
                next = end_of_prefix(hash, (*segment).depth());
                slab.free_block(NonNull::new_unchecked(segment.cast()));
            }
        }
        self.root.dedup();
        for entry in self.root.drain(..) {
            // SAFETY: after `dedup` each page is there once, and its segments are not used any more.
            drop(unsafe { Box::from_raw(page_of(entry)) });
        }
        self.page_count = 0;
    }
}

/// Memory for a segment.
fn new_segment(slab: &mut Slab) -> *mut Segment {
    const { assert!(size_of::<Segment>() == BLOCK_LAYOUT.size() && align_of::<Segment>() == BLOCK_LAYOUT.align()) };
    slab.allocate_block().as_ptr().cast()
}

impl Drop for Directory {
    fn drop(&mut self) {
        debug_assert!(
            self.is_empty(),
            "the table frees its directory, because the segments live in its slab"
        );
    }
}
