//! Lua's memory: one allocator function for a VM. It counts what the VM holds, and what the run that is on adds to
//! it, so that one script that allocates without end fails without the server.
//!
//! A refused allocation is Lua's own "not enough memory" error. A run that wants too much is marked to end with it: what
//! catches the error gets it again ([`crate::run`]). While no run is on, nothing is refused, so that the engine itself may
//! allocate outside of a protected call.
//!
//! Freed small blocks are kept for the next of their size: a run makes a dozen, and a cycle of the collector frees those of
//! some hundred runs.

use std::alloc::Layout;
use std::cell::Cell;
use std::ffi::c_void;

use crate::run::Ending;
use crate::vm::Shared;

/// The alignment of all blocks: what Lua asks of malloc.
const BLOCK_ALIGN_BYTES: usize = 16;
/// Longer blocks are not kept.
const SMALL_BYTES_MAX: usize = 256;
const CLASS_COUNT: usize = SMALL_BYTES_MAX / BLOCK_ALIGN_BYTES;
/// How many bytes of freed blocks of a size are kept.
const KEPT_BYTES: usize = 64 << 10;

/// Freed blocks of a few lengths: a list through the blocks themselves, for each length that is a multiple of 16.
#[derive(Default)]
pub(crate) struct SmallBlocks {
    first: [Cell<*mut Kept>; CLASS_COUNT],
    count: [Cell<u32>; CLASS_COUNT],
}

struct Kept {
    next: *mut Kept,
}

impl SmallBlocks {
    /// A block of `len` bytes, or null. `len` is not 0.
    fn take(&self, len: usize) -> *mut u8 {
        if len <= SMALL_BYTES_MAX {
            let class = (len - 1) / BLOCK_ALIGN_BYTES;
            let first = self.first[class].get();
            if !first.is_null() {
                // SAFETY: a kept block is one that Lua has freed; its link was written when it was.
                self.first[class].set(unsafe { (*first).next });
                self.count[class].set(self.count[class].get() - 1);
                return first.cast();
            }
        }
        // SAFETY: the length is not 0.
        unsafe { std::alloc::alloc(layout(len)) }
    }

    /// # Safety
    /// `block` came from `take` or `grow` with the length `len`, and is used no more.
    unsafe fn give(&self, block: *mut u8, len: usize) {
        if len <= SMALL_BYTES_MAX {
            let class = (len - 1) / BLOCK_ALIGN_BYTES;
            let count = self.count[class].get();
            if count < (KEPT_BYTES / ((class + 1) * BLOCK_ALIGN_BYTES)) as u32 {
                let kept: *mut Kept = block.cast();
                // SAFETY: the block has at least 16 bytes, is aligned, and belongs to nobody.
                unsafe { kept.write(Kept { next: self.first[class].get() }) };
                self.first[class].set(kept);
                self.count[class].set(count + 1);
                return;
            }
        }
        // SAFETY: by the contract.
        unsafe { std::alloc::dealloc(block, layout(len)) }
    }

    /// Changes the length of a block. Null, and the block as it was, if there is no memory.
    ///
    /// # Safety
    /// As [`SmallBlocks::give`].
    unsafe fn resize(&self, block: *mut u8, old_len: usize, new_len: usize) -> *mut u8 {
        // SAFETY: by the contract; the two blocks do not overlap.
        unsafe {
            if old_len > SMALL_BYTES_MAX && new_len > SMALL_BYTES_MAX {
                return std::alloc::realloc(block, layout(old_len), layout(new_len).size());
            }
            if layout(old_len) == layout(new_len) {
                return block;
            }
            let new_block = self.take(new_len);
            if !new_block.is_null() {
                std::ptr::copy_nonoverlapping(block, new_block, old_len.min(new_len));
                self.give(block, old_len);
            }
            new_block
        }
    }
}

impl Drop for SmallBlocks {
    fn drop(&mut self) {
        for (class, first) in self.first.iter().enumerate() {
            let mut kept = first.get();
            while !kept.is_null() {
                // SAFETY: the list holds freed blocks of this length alone.
                unsafe {
                    let next = (*kept).next;
                    std::alloc::dealloc(kept.cast(), layout((class + 1) * BLOCK_ALIGN_BYTES));
                    kept = next;
                }
            }
        }
    }
}

pub(crate) unsafe extern "C" fn allocate(
    shared: *mut c_void,
    block: *mut c_void,
    old_len: usize,
    new_len: usize,
) -> *mut c_void {
    // SAFETY: `shared` is what `Vm::new` handed to `lua_newstate`, and lives longer than the VM. Lua hands in a block
    // that this function returned, with its length.
    unsafe {
        let shared = &*shared.cast::<Shared>();
        if new_len == 0 {
            if !block.is_null() {
                shared.blocks.give(block.cast(), old_len);
                shared.count_memory(old_len, 0);
            }
            return std::ptr::null_mut();
        }
        let run = shared.current.get();
        if new_len > old_len && !run.is_null() {
            if (*run).refuses_next {
                (*run).refuses_next = false;
                return std::ptr::null_mut();
            }
            if (*run).exceeds(new_len - old_len) {
                // If it is ending already, it is so for that reason.
                if (*run).ending == Ending::None {
                    (*run).ending = Ending::Memory;
                }
                return std::ptr::null_mut();
            }
        }
        let new_block = if block.is_null() {
            shared.blocks.take(new_len)
        } else {
            shared.blocks.resize(block.cast(), old_len, new_len)
        };
        if new_block.is_null() {
            if run.is_null() {
                std::alloc::handle_alloc_error(layout(new_len));
            }
            (*run).ending = Ending::Memory;
            return std::ptr::null_mut();
        }
        shared.count_memory(old_len, new_len);
        new_block.cast()
    }
}

/// The layout of a block: a small one has a length that is a multiple of 16.
fn layout(len: usize) -> Layout {
    let len = if len <= SMALL_BYTES_MAX { len.next_multiple_of(BLOCK_ALIGN_BYTES) } else { len };
    // Lua's largest block is far below `isize::MAX`: MAX_SIZET is checked by it, and the limit of a run by us.
    Layout::from_size_align(len, BLOCK_ALIGN_BYTES).expect("a block of Lua's is shorter than isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_through_all_lengths() {
        let blocks = SmallBlocks::default();
        let mut held: Vec<(*mut u8, usize, u8)> = Vec::new();
        let mut state = 1_u64;
        for round in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len = (state >> 40) as usize % 400 + 1;
            let byte = round as u8;
            // SAFETY: each block is used within its length, and given back once with it.
            unsafe {
                if held.len() < 200 && state >> 63 == 0 {
                    let block = blocks.take(len);
                    block.write_bytes(byte, len);
                    held.push((block, len, byte));
                } else if let Some(&(block, old_len, byte)) =
                    held.get((state >> 50) as usize % held.len().max(1))
                {
                    let at = (state >> 50) as usize % held.len();
                    if round % 3 == 0 {
                        blocks.give(block, old_len);
                        held.swap_remove(at);
                        continue;
                    }
                    let block = blocks.resize(block, old_len, len);
                    assert!((0..len.min(old_len)).all(|index| *block.add(index) == byte));
                    block.write_bytes(byte, len);
                    held[at] = (block, len, byte);
                }
            }
        }
        for (block, len, byte) in held {
            // SAFETY: as above.
            unsafe {
                assert!((0..len).all(|index| *block.add(index) == byte));
                blocks.give(block, len);
            }
        }
    }
}
