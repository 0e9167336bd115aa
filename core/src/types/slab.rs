//! Slab: where the entries of a table live.
//!
//! General-purpose allocators round a size up to one of a few classes (jemalloc: 80, 96, 112, 128, 160 ...), which
//! costs an entry of 88 bytes another 8. A key-value server allocates millions of small things that live long, so
//! the classes here are 8 bytes apart up to [`SLAB_SIZE_MAX`]; anything bigger goes to the global allocator.
//!
//! ```text
//! chunk (CHUNK_LEN bytes, aligned to its length, from the global allocator)
//! +--------+---------------------+--------------+-- ... --+--------------+
//! | header | page 0 (what's left)| page 1       |         | page 127     |
//! +--------+---------------------+--------------+-- ... --+--------------+
//! ```
//!
//! A page holds cells of one class. The header holds all bookkeeping, so that cells carry none: a cell's address,
//! rounded down, is its chunk. A page first hands out the cells of its free list, a list linked through the free cells
//! themselves, and then those of its tail that was never used. An empty page is returned to its chunk and can serve
//! another class; an empty chunk is returned to the global allocator.
//!
//! *Huge pages.* A look-up in a table that does not fit into the caches waits for memory twice, for the index and for
//! the entry, and with pages of 4 KiB each time the translation of the address has to be fetched as well: measured, a
//! fifth of a pipelined GET. So a chunk is as long as a huge page, the table's segments live in chunks too, and
//! [`Slab::back_by_huge_page`] asks the kernel to move a full chunk to one. To ask for one when the chunk is new would
//! save that copy, but the first access to a huge page clears 2 MiB, in the middle of a SET. This way no chunk uses
//! more memory than the pages that were touched. (With huge pages enabled for the whole process, every allocation of it
//! is rounded up to 2 MiB: measured, 174 bytes a key against 102.)

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

/// Biggest size served from pages.
pub(super) const SLAB_SIZE_MAX: usize = 1024;
/// Distance of two size classes, and the alignment of every cell.
pub(super) const SLAB_STEP: usize = 8;

/// The class of blocks: see [`Slab::allocate_block`].
const BLOCK_CLASS: usize = SLAB_SIZE_MAX / SLAB_STEP + 1;
const CLASS_COUNT: usize = BLOCK_CLASS + 1;
/// Length of a block, and its alignment.
pub(super) const BLOCK_LAYOUT: Layout = match Layout::from_size_align(4096, 64) {
    Ok(layout) => layout,
    Err(_) => panic!("64 is a power of two"),
};
const PAGE_LEN: usize = 16 * 1024;
pub(super) const CHUNK_LEN: usize = 2 * 1024 * 1024;
/// A slab of fewer chunks stays on small pages. The translation buffers of a core are large enough for some chunks more, but
/// shards that share a core share these, too.
const HUGE_FROM_CHUNKS: usize = 2;
const PAGE_COUNT: usize = CHUNK_LEN / PAGE_LEN;
/// Cell positions are counted in steps, to fit 16 bits.
const PAGE_STEPS: u16 = (PAGE_LEN / SLAB_STEP) as u16;
/// Rounded up so that the blocks of page 0 are aligned.
const HEADER_STEPS: u16 = (size_of::<Chunk>().next_multiple_of(BLOCK_LAYOUT.align()) / SLAB_STEP) as u16;
/// End of a free list. Position 0 of page 0 is the chunk's header, but of another page it is a cell.
const NO_CELL: u16 = u16::MAX;

const _: () = assert!(CHUNK_LEN.is_power_of_two() && CHUNK_LEN.is_multiple_of(PAGE_LEN));
const _: () = assert!(PAGE_COUNT <= u128::BITS as usize && CLASS_COUNT <= u8::MAX as usize);
const _: () = assert!((HEADER_STEPS as usize) * SLAB_STEP + BLOCK_LAYOUT.size() <= PAGE_LEN);
const _: () = assert!(PAGE_LEN.is_multiple_of(BLOCK_LAYOUT.size()) && SLAB_SIZE_MAX <= BLOCK_LAYOUT.size());

#[repr(C)]
struct Page {
    /// Neighbours in the list of its class's pages that have room.
    next: *mut Page,
    prev: *mut Page,
    /// The head of the free list, or NO_CELL.
    free: u16,
    /// The start of the tail that was never used, in steps.
    fresh: u16,
    used: u16,
    class: u8,
    /// Which page of its chunk this is.
    index: u8,
}

#[repr(C)]
struct Chunk {
    /// Neighbours in the list of chunks that have pages to give.
    next: *mut Chunk,
    prev: *mut Chunk,
    /// Place in `Slab::chunks`.
    position: usize,
    /// It is on small pages, and the kernel was not asked yet to change that.
    small_paged: bool,
    /// A bit for each page that serves no class.
    free_pages: u128,
    pages: [Page; PAGE_COUNT],
}

const ALL_PAGES: u128 = u128::MAX >> (u128::BITS as usize - PAGE_COUNT);

/// An allocator for the entries of one table. Dropping it frees its chunks without visiting the cells; cells above
/// [`SLAB_SIZE_MAX`] must be freed by their owner before.
pub(super) struct Slab {
    /// By class: the pages with room. Empty until the first allocation, because most databases stay empty.
    roomy: Vec<*mut Page>,
    chunks: Vec<*mut Chunk>,
    roomy_chunks: *mut Chunk,
    /// Chunks of which `small_paged` is set.
    small_paged: usize,
    /// Where the search for a full one of them continues.
    next_small_paged: usize,
    /// The last search found that none of them was full.
    searched_in_vain: bool,
    /// A chunk was added since the last call of `take_growth`.
    has_grown: bool,
    used_bytes: usize,
    block_count: usize,
    large_count: usize,
    large_bytes: usize,
    /// Makes every cell its own allocation, so that a sanitizer can see a cell's bounds.
    #[cfg(test)]
    pub(super) plain: bool,
}

// SAFETY: the slab owns its chunks alone; nothing in it is tied to the thread that made it.
unsafe impl Send for Slab {}

fn class_of(size: usize) -> usize {
    size.div_ceil(SLAB_STEP)
}

/// Cell length of a class.
#[inline]
fn steps_of(class: usize) -> usize {
    if class == BLOCK_CLASS { BLOCK_LAYOUT.size() / SLAB_STEP } else { class }
}

/// The size that an allocation of `size` bytes really takes. Sizes with the same result can share an allocation.
#[inline]
pub(super) fn rounded(size: usize) -> usize {
    size.next_multiple_of(SLAB_STEP)
}

fn large_layout(size: usize) -> Layout {
    Layout::from_size_align(rounded(size), SLAB_STEP).expect("no entry comes near isize::MAX")
}

const CHUNK_LAYOUT: Layout = match Layout::from_size_align(CHUNK_LEN, CHUNK_LEN) {
    Ok(layout) => layout,
    Err(_) => panic!("a chunk's length is a power of two"),
};

impl Slab {
    pub(super) const fn new() -> Self {
        Self {
            roomy: Vec::new(),
            chunks: Vec::new(),
            roomy_chunks: ptr::null_mut(),
            small_paged: 0,
            next_small_paged: 0,
            searched_in_vain: false,
            has_grown: false,
            used_bytes: 0,
            block_count: 0,
            large_count: 0,
            large_bytes: 0,
            #[cfg(test)]
            plain: false,
        }
    }

    /// Whether a chunk was added since the last call.
    pub(super) fn take_growth(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }

    /// Moves one more full chunk to a huge page. That takes as long as copying it, and longer if the kernel has to find
    /// contiguous memory first. Returns whether there was a chunk to try.
    pub(super) fn back_by_huge_page(&mut self) -> bool {
        if self.chunks.len() < HUGE_FROM_CHUNKS || self.small_paged == 0 || self.searched_in_vain {
            return false;
        }
        for _ in 0..self.chunks.len() {
            self.next_small_paged = (self.next_small_paged + 1) % self.chunks.len();
            let chunk = self.chunks[self.next_small_paged];
            // SAFETY: chunks in the list are live.
            unsafe {
                if (*chunk).small_paged && (*chunk).free_pages == 0 {
                    // Cleared even if the kernel fails: it is asked once for each chunk.
                    (*chunk).small_paged = false;
                    self.small_paged -= 1;
                    collapse(chunk);
                    return true;
                }
            }
        }
        self.searched_in_vain = true;
        false
    }

    /// Bytes in cells that are in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes + self.large_bytes
    }

    /// Of those, bytes in blocks.
    pub(super) fn block_bytes(&self) -> usize {
        self.block_count * BLOCK_LAYOUT.size()
    }

    /// Bytes allocated from the global allocator.
    pub(super) fn reserved_bytes(&self) -> usize {
        self.chunks.len() * CHUNK_LEN
            + self.chunks.capacity() * size_of::<*mut Chunk>()
            + self.roomy.capacity() * size_of::<*mut Page>()
            + self.large_bytes
    }

    /// Cells that have an allocation of their own, which only their owner can free.
    pub(super) fn large_count(&self) -> usize {
        self.large_count
    }

    #[inline]
    fn is_large(&self, size: usize) -> bool {
        #[cfg(test)]
        if self.plain {
            return true;
        }
        size > SLAB_SIZE_MAX
    }

    /// Allocates `size` (> 0) bytes, aligned to [`SLAB_STEP`] and not initialized. The provenance of the cell is
    /// exposed, so that its owner may keep the bare address.
    #[inline]
    pub(super) fn allocate(&mut self, size: usize) -> NonNull<u8> {
        debug_assert!(size > 0);
        if self.is_large(size) {
            return self.allocate_large(size);
        }
        self.allocate_of(class_of(size))
    }

    /// Allocates a block of [`BLOCK_LAYOUT`], for the table's index.
    pub(super) fn allocate_block(&mut self) -> NonNull<u8> {
        #[cfg(test)]
        if self.plain {
            // SAFETY: the layout's size is not 0.
            return NonNull::new(unsafe { alloc::alloc(BLOCK_LAYOUT) }).expect("a test has memory");
        }
        self.block_count += 1;
        self.allocate_of(BLOCK_CLASS)
    }

    /// Frees a block.
    ///
    /// # Safety
    /// It came from `allocate_block` of this slab and is not used again.
    pub(super) unsafe fn free_block(&mut self, block: NonNull<u8>) {
        #[cfg(test)]
        if self.plain {
            // SAFETY: as promised by the caller.
            return unsafe { alloc::dealloc(block.as_ptr(), BLOCK_LAYOUT) };
        }
        self.block_count -= 1;
        // SAFETY: as promised by the caller.
        unsafe { self.free_of(block, BLOCK_CLASS) };
    }

    /// Whether blocks must be freed one by one before the slab is dropped.
    pub(super) fn blocks_outlive_it(&self) -> bool {
        #[cfg(test)]
        if self.plain {
            return true;
        }
        false
    }

    #[inline]
    fn allocate_of(&mut self, class: usize) -> NonNull<u8> {
        let page = match self.roomy.get(class) {
            Some(&page) if !page.is_null() => page,
            _ => self.refill(class),
        };
        self.used_bytes += steps_of(class) * SLAB_STEP;
        // SAFETY: a page in `roomy` is in a live chunk of this slab and has a free or a fresh cell; its cells and its
        // bookkeeping are apart, and `&mut self` is the only way to either.
        unsafe {
            (*page).used += 1;
            let position = (*page).free;
            let cell = if position == NO_CELL {
                let position = (*page).fresh;
                (*page).fresh += steps_of(class) as u16;
                cell_at(page, position)
            } else {
                let cell = cell_at(page, position);
                (*page).free = cell.cast::<u16>().read();
                cell
            };
            if !has_room(page) {
                self.unlink(page);
            }
            NonNull::new_unchecked(cell)
        }
    }

    /// Frees a cell.
    ///
    /// # Safety
    /// `cell` came from `allocate` of this slab with a size of the same [`rounded`] value, and is not used again.
    #[inline]
    pub(super) unsafe fn free(&mut self, cell: NonNull<u8>, size: usize) {
        if self.is_large(size) {
            // SAFETY: as promised by the caller, and `is_large` was as true when the cell was allocated.
            unsafe { self.free_large(cell, size) };
            return;
        }
        // SAFETY: as promised by the caller.
        unsafe { self.free_of(cell, class_of(size)) };
    }

    /// # Safety
    /// As `free`, for a cell of that class.
    #[inline]
    unsafe fn free_of(&mut self, cell: NonNull<u8>, class: usize) {
        self.used_bytes -= steps_of(class) * SLAB_STEP;
        // SAFETY: the cell lies in a chunk of ours, whose header is found at the rounded-down address. The chunk's
        // provenance was exposed when it was made.
        unsafe {
            let address = cell.as_ptr().expose_provenance();
            let chunk = ptr::with_exposed_provenance_mut::<Chunk>(address & !(CHUNK_LEN - 1));
            let page = &raw mut (*chunk).pages[(address & (CHUNK_LEN - 1)) / PAGE_LEN];
            debug_assert_eq!(usize::from((*page).class), class);
            let had_room = has_room(page);
            cell.cast::<u16>().write((*page).free);
            (*page).free = ((address & (PAGE_LEN - 1)) / SLAB_STEP) as u16;
            (*page).used -= 1;
            if !had_room {
                self.link(page);
            }
            if (*page).used == 0 {
                self.page_emptied(page);
            }
        }
    }

    /// As `free`, but does nothing to a cell that lies in a chunk: for when the whole slab is dropped next.
    ///
    /// # Safety
    /// As for `free`.
    pub(super) unsafe fn free_if_large(&mut self, cell: NonNull<u8>, size: usize) {
        if self.is_large(size) {
            // SAFETY: as promised by the caller.
            unsafe { self.free_large(cell, size) };
        }
    }

    #[cold]
    fn allocate_large(&mut self, size: usize) -> NonNull<u8> {
        let layout = large_layout(size);
        // SAFETY: the layout's size is not 0.
        let Some(cell) = NonNull::new(unsafe { alloc::alloc(layout) }) else {
            alloc::handle_alloc_error(layout)
        };
        cell.as_ptr().expose_provenance();
        self.large_count += 1;
        self.large_bytes += layout.size();
        cell
    }

    /// # Safety
    /// As `free`, for a large cell.
    #[cold]
    unsafe fn free_large(&mut self, cell: NonNull<u8>, size: usize) {
        let layout = large_layout(size);
        self.large_count -= 1;
        self.large_bytes -= layout.size();
        // SAFETY: the cell came from `allocate_large` with this layout.
        unsafe { alloc::dealloc(cell.as_ptr(), layout) };
    }

    /// Gives `class` an empty page.
    #[cold]
    fn refill(&mut self, class: usize) -> *mut Page {
        if self.roomy.is_empty() {
            self.roomy = vec![ptr::null_mut(); CLASS_COUNT];
        }
        if self.roomy_chunks.is_null() {
            self.add_chunk();
        }
        let chunk = self.roomy_chunks;
        // SAFETY: a chunk in the list is live and has a bit set in `free_pages`.
        unsafe {
            let index = (*chunk).free_pages.trailing_zeros() as usize;
            (*chunk).free_pages &= !(1 << index);
            if (*chunk).free_pages == 0 {
                self.searched_in_vain = false;
                self.unlink_chunk(chunk);
            }
            let page = &raw mut (*chunk).pages[index];
            (*page).class = class as u8;
            (*page).used = 0;
            (*page).free = NO_CELL;
            (*page).fresh = first_step(index);
            self.link(page);
            page
        }
    }

    fn add_chunk(&mut self) {
        // SAFETY: the layout's size is not 0.
        let Some(chunk) = NonNull::new(unsafe { alloc::alloc(CHUNK_LAYOUT) }) else {
            alloc::handle_alloc_error(CHUNK_LAYOUT)
        };
        let chunk = chunk.as_ptr().cast::<Chunk>();
        chunk.expose_provenance();
        self.has_grown = true;
        self.small_paged += 1;
        // SAFETY: the chunk is ours, big and aligned enough for its header; every field is written before it is read.
        unsafe {
            (&raw mut (*chunk).position).write(self.chunks.len());
            (&raw mut (*chunk).small_paged).write(true);
            (&raw mut (*chunk).free_pages).write(ALL_PAGES);
            for index in 0..PAGE_COUNT {
                (&raw mut (*chunk).pages[index]).write(Page {
                    next: ptr::null_mut(),
                    prev: ptr::null_mut(),
                    free: NO_CELL,
                    fresh: 0,
                    used: 0,
                    class: 0,
                    index: index as u8,
                });
            }
            self.link_chunk(chunk);
        }
        self.chunks.push(chunk);
    }

    /// Returns a page without cells in use to its chunk, unless its class has no other page with room: then it is kept,
    /// so that a key which is repeatedly added and deleted does not allocate and free a page, or a chunk, each time.
    ///
    /// # Safety
    /// `page` is in the list of its class and has no cell in use.
    #[cold]
    unsafe fn page_emptied(&mut self, page: *mut Page) {
        // SAFETY: as promised by the caller; a page's chunk is live as long as the page has a class.
        unsafe {
            if (*page).next.is_null() && (*page).prev.is_null() {
                return;
            }
            self.unlink(page);
            let chunk = chunk_of(page);
            let had_pages = (*chunk).free_pages != 0;
            (*chunk).free_pages |= 1 << (*page).index;
            if !had_pages {
                self.link_chunk(chunk);
            }
            // One spare is kept, for the same reason as above.
            let only_roomy = (*chunk).next.is_null() && (*chunk).prev.is_null();
            if (*chunk).free_pages == ALL_PAGES && !only_roomy {
                self.unlink_chunk(chunk);
                let position = (*chunk).position;
                self.chunks.swap_remove(position);
                self.small_paged -= usize::from((*chunk).small_paged);
                if let Some(&moved) = self.chunks.get(position) {
                    (*moved).position = position;
                }
                alloc::dealloc(chunk.cast(), CHUNK_LAYOUT);
            }
        }
    }

    /// # Safety
    /// `page` is of a live chunk, has a class, and is in no list.
    unsafe fn link(&mut self, page: *mut Page) {
        // SAFETY: as promised by the caller; pages in the list are live.
        unsafe {
            let head = &mut self.roomy[usize::from((*page).class)];
            (*page).prev = ptr::null_mut();
            (*page).next = *head;
            if !(*head).is_null() {
                (**head).prev = page;
            }
            *head = page;
        }
    }

    /// # Safety
    /// `page` is in the list of its class.
    unsafe fn unlink(&mut self, page: *mut Page) {
        // SAFETY: as promised by the caller; pages in the list are live.
        unsafe {
            let (prev, next) = ((*page).prev, (*page).next);
            if prev.is_null() {
                self.roomy[usize::from((*page).class)] = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
        }
    }

    /// # Safety
    /// `chunk` is live and in no list.
    unsafe fn link_chunk(&mut self, chunk: *mut Chunk) {
        // SAFETY: as promised by the caller; chunks in the list are live.
        unsafe {
            (&raw mut (*chunk).prev).write(ptr::null_mut());
            (&raw mut (*chunk).next).write(self.roomy_chunks);
            if !self.roomy_chunks.is_null() {
                (*self.roomy_chunks).prev = chunk;
            }
        }
        self.roomy_chunks = chunk;
    }

    /// # Safety
    /// `chunk` is in the list.
    unsafe fn unlink_chunk(&mut self, chunk: *mut Chunk) {
        // SAFETY: as promised by the caller; chunks in the list are live.
        unsafe {
            let (prev, next) = ((*chunk).prev, (*chunk).next);
            if prev.is_null() {
                self.roomy_chunks = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
        }
    }
}

impl Slab {
    /// Frees one of the chunks without looking at its cells.
    ///
    /// # Safety
    /// No cell of any chunk is used again, nor the slab but for this and being dropped.
    pub(super) unsafe fn release_chunk(&mut self) {
        let Some(chunk) = self.chunks.pop() else { return };
        // SAFETY: the chunk came from `add_chunk`, and its cells are not used again.
        unsafe { alloc::dealloc(chunk.cast(), CHUNK_LAYOUT) };
    }

    /// Whether all chunks have been freed.
    pub(super) fn is_released(&self) -> bool {
        self.chunks.is_empty()
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        debug_assert_eq!(self.large_count, 0, "large cells are their owner's to free");
        while !self.is_released() {
            // SAFETY: no cell is used once the slab is dropped.
            unsafe { self.release_chunk() };
        }
    }
}

/// Asks the kernel to move a chunk to a huge page, and returns whether it did. That copies the chunk once.
fn collapse(chunk: *mut Chunk) -> bool {
    // SAFETY: the range is a chunk of ours, and nothing of its contents changes. A kernel that cannot refuses.
    #[cfg(all(target_os = "linux", not(miri)))]
    unsafe {
        libc::madvise(chunk.cast(), CHUNK_LEN, libc::MADV_COLLAPSE) == 0
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = chunk;
        false
    }
}

fn first_step(index: usize) -> u16 {
    if index == 0 { HEADER_STEPS } else { 0 }
}

/// # Safety
/// `page` is of a live chunk and has a class.
#[inline]
unsafe fn has_room(page: *mut Page) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        let steps = steps_of(usize::from((*page).class)) as u16;
        (*page).free != NO_CELL || (*page).fresh + steps <= PAGE_STEPS
    }
}

#[inline]
fn chunk_of(page: *mut Page) -> *mut Chunk {
    // From the exposed chunk, because `page` itself may only reach the page's bookkeeping.
    ptr::with_exposed_provenance_mut(page.addr() & !(CHUNK_LEN - 1))
}

/// # Safety
/// `page` is of a live chunk, and `position` is within it.
#[inline]
unsafe fn cell_at(page: *mut Page, position: u16) -> *mut u8 {
    // SAFETY: as promised by the caller: the sum stays within the chunk.
    unsafe {
        let offset = usize::from((*page).index) * PAGE_LEN + usize::from(position) * SLAB_STEP;
        chunk_of(page).cast::<u8>().add(offset)
    }
}

#[cfg(test)]
mod tests;
