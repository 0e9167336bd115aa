//! Lua's memory: one allocator function for a VM. It counts what the VM holds, and what the run that is on adds to
//! it, so that one script that allocates without end fails without the server.
//!
//! A refused allocation is Lua's own "not enough memory" error. A run that wants too much is marked to end with it: what
//! catches the error gets it again ([`crate::run`]). While no run is on, nothing is refused, so that the engine itself may
//! allocate outside of a protected call.

use std::alloc::Layout;
use std::ffi::c_void;

use crate::run::Ending;
use crate::vm::Shared;

/// The alignment of all blocks: what Lua asks of malloc.
const BLOCK_ALIGN_BYTES: usize = 16;

pub(crate) unsafe extern "C" fn allocate(
    shared: *mut c_void,
    block: *mut c_void,
    old_len: usize,
    new_len: usize,
) -> *mut c_void {
    // SAFETY: `shared` is what `Vm::new` handed to `lua_newstate`, and lives longer than the VM.
    let shared = unsafe { &*shared.cast::<Shared>() };
    // SAFETY: Lua hands in a block that this function returned, with its length.
    unsafe {
        if new_len == 0 {
            if !block.is_null() {
                std::alloc::dealloc(block.cast(), layout(old_len));
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
            std::alloc::alloc(layout(new_len))
        } else {
            std::alloc::realloc(block.cast(), layout(old_len), new_len)
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

fn layout(len: usize) -> Layout {
    // Lua's largest block is far below `isize::MAX`: MAX_SIZET is checked by it, and the limit of a run by us.
    Layout::from_size_align(len, BLOCK_ALIGN_BYTES).expect("a block of Lua's is shorter than isize::MAX")
}
