//! The memory of a fake server: blocks with their length in front.

use crate::abi::*;
use crate::served;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::c_void;

/// The length of a block stands so many bytes before it, which keeps the block aligned for anything.
const HEADER_BYTES: usize = 16;

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len + HEADER_BYTES, HEADER_BYTES).expect("a length of what is in memory")
}

pub(super) unsafe extern "C" fn allocate(len: usize) -> *mut c_void {
    let layout = layout(len);
    // SAFETY: the layout has a header at least, and so has the block.
    unsafe {
        let whole = alloc(layout);
        if whole.is_null() {
            handle_alloc_error(layout);
        }
        whole.cast::<usize>().write(len);
        whole.add(HEADER_BYTES).cast()
    }
}

/// The length of a block.
///
/// # Safety
/// `block` was given by `allocate`.
unsafe fn len_of(block: *mut c_void) -> usize {
    // SAFETY: as promised.
    unsafe { block.cast::<u8>().sub(HEADER_BYTES).cast::<usize>().read() }
}

unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: the module gives a block back that it got from `allocate`.
    unsafe {
        let layout = layout(len_of(block));
        dealloc(block.cast::<u8>().sub(HEADER_BYTES), layout);
    }
}

/// Moves a block to another place.
pub(super) unsafe extern "C" fn move_block(
    _ctx: *mut RedisModuleDefragCtx,
    block: *mut c_void,
) -> *mut c_void {
    // SAFETY: the module gives a block that it got from `allocate`, and uses the new one from here on.
    unsafe {
        let len = len_of(block);
        let moved = allocate(len);
        moved.cast::<u8>().copy_from_nonoverlapping(block.cast::<u8>(), len);
        free(block);
        moved
    }
}

pub(super) static SERVED: &[Served] = served! {
    Alloc = allocate,
    Free = free,
    DefragAlloc = move_block,
};
