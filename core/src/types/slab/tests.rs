//! The slab: cells never overlap, and empty pages and chunks are returned.

use super::*;
use crate::testing::Rng;

/// Cells that are each filled with one byte value, to detect overlapping writes.
struct Cells {
    slab: Slab,
    live: Vec<(NonNull<u8>, usize, u8)>,
}

impl Cells {
    fn new() -> Self {
        Self { slab: Slab::new(), live: Vec::new() }
    }

    fn allocate(&mut self, size: usize, mark: u8) {
        let cell = self.slab.allocate(size);
        assert_eq!(cell.as_ptr().addr() % SLAB_STEP, 0);
        // SAFETY: the cell has `size` bytes.
        unsafe { cell.write_bytes(mark, size) };
        self.live.push((cell, size, mark));
    }

    fn free(&mut self, at: usize) {
        let (cell, size, mark) = self.live.swap_remove(at);
        // SAFETY: the cell is live, was written with `size` bytes, and is freed with its size.
        unsafe {
            assert!(std::slice::from_raw_parts(cell.as_ptr(), size).iter().all(|&byte| byte == mark));
            self.slab.free(cell, size);
        }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        while !self.live.is_empty() {
            self.free(0);
        }
    }
}

#[test]
fn a_freed_cell_is_the_next_of_its_class() {
    let mut slab = Slab::new();
    let first = slab.allocate(30);
    let second = slab.allocate(32);
    assert_ne!(first, second);
    // SAFETY: the cell came from this slab with a size of the same class.
    unsafe { slab.free(first, 32) };
    assert_eq!(slab.allocate(25), first);
    assert_eq!(slab.used_bytes(), 64);
}

#[test]
fn cells_of_random_sizes_never_overlap() {
    let seed = 7u64;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut next = |bound: usize| rng.below(bound);
    let mut cells = Cells::new();
    let (rounds, live_max) = if cfg!(miri) { (1_000, 200) } else { (200_000, 5_000) };
    for round in 0..rounds {
        // Growing and shrinking in turns, so that pages and chunks are allocated and freed.
        let grows = (round / live_max) % 2 == 0;
        if cells.live.is_empty() || next(8) < if grows { 6 } else { 2 } {
            let size_max = if next(20) == 0 { 3 * SLAB_SIZE_MAX } else { 200 };
            let size = 1 + next(size_max);
            cells.allocate(size, round as u8);
        } else {
            let at = next(cells.live.len());
            cells.free(at);
        }
    }
    let used: usize = cells.live.iter().map(|&(_, size, _)| rounded(size)).sum();
    assert_eq!(cells.slab.used_bytes(), used);
}

#[test]
fn empty_pages_serve_other_classes_and_empty_chunks_go_back() {
    let mut cells = Cells::new();
    let count = 4 * CHUNK_LEN / 96;
    (0..count).for_each(|at| cells.allocate(96, at as u8));
    let full = cells.slab.reserved_bytes();
    assert!(cells.slab.chunks.len() >= 4);
    assert!(full < count * 96 * 102 / 100 + CHUNK_LEN + 4096, "{full} bytes for {count} cells of 96");
    while !cells.live.is_empty() {
        cells.free(cells.live.len() / 2);
    }
    assert_eq!(cells.slab.used_bytes(), 0);
    // One page of the class is kept in one chunk, and one spare chunk.
    assert!(cells.slab.chunks.len() <= 2, "{} chunks are left", cells.slab.chunks.len());
    let kept = cells.slab.chunks.len();
    (0..CHUNK_LEN / 64 / 2).for_each(|at| cells.allocate(64, at as u8));
    assert_eq!(cells.slab.chunks.len(), kept, "what was freed serves another class");
}

#[test]
fn a_slab_without_cells_has_nothing_allocated() {
    assert_eq!(Slab::new().reserved_bytes(), 0);
}

#[test]
fn sizes_beyond_the_largest_class_have_allocations_of_their_own() {
    let mut cells = Cells::new();
    cells.allocate(SLAB_SIZE_MAX, 1);
    assert_eq!(cells.slab.large_count(), 0);
    cells.allocate(SLAB_SIZE_MAX + 1, 2);
    cells.allocate(70_000, 3);
    assert_eq!(cells.slab.large_count(), 2);
    assert_eq!(cells.slab.used_bytes(), SLAB_SIZE_MAX + SLAB_SIZE_MAX + SLAB_STEP + 70_000);
    cells.free(1);
    assert_eq!(cells.slab.large_count(), 1);
}

#[test]
fn full_chunks_go_to_huge_pages_once_and_keep_what_is_in_them() {
    let mut cells = Cells::new();
    (0..HUGE_FROM_CHUNKS * CHUNK_LEN / 96).for_each(|at| cells.allocate(96, at as u8));
    assert!(cells.slab.take_growth() && !cells.slab.take_growth());
    let full = cells.slab.chunks.len() - 1;
    let moved = (0..).take_while(|_| cells.slab.back_by_huge_page()).count();
    assert_eq!(moved, full, "of {} chunks", cells.slab.chunks.len());
    assert_eq!(cells.slab.small_paged, 1, "the one that is not full");
    // Dropping the cells looks at their bytes.
}
