//! Memory: what modules allocate comes from the server's allocator, and so counts.

use super::given::{Ctx, Str, Text, abi_functions};
use crate::runtime::allocator;
use shardis_modules_api::abi::Served;
use shardis_modules_api::served;
use std::ffi::{c_char, c_void};

pub(super) const SERVED: &[Served] = served! {
    Alloc = alloc,
    TryAlloc = try_alloc,
    Calloc = calloc,
    Realloc = realloc,
    Free = free,
    Strdup = strdup,
    PoolAlloc = pool_alloc,
    MallocSize = malloc_size,
    MallocUsableSize = malloc_size,
    MallocSizeString = malloc_size_string,
    GetUsedMemoryRatio = get_used_memory_ratio,
};

abi_functions! {
    /// Allocates memory, or ends the process.
    fn alloc(bytes: usize) -> *mut c_void {
        allocator::or_abort(allocator::allocate(bytes), bytes)
    }

    /// Allocates memory, or returns NULL.
    fn try_alloc(bytes: usize) -> *mut c_void {
        allocator::allocate(bytes)
    }

    fn calloc(count: usize, size: usize) -> *mut c_void {
        allocator::or_abort(allocator::allocate_zeroed(count, size), count.saturating_mul(size))
    }

    fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void {
        // SAFETY: the module passes memory of these functions, or NULL.
        allocator::or_abort(unsafe { allocator::reallocate(memory, bytes) }, bytes)
    }

    fn free(memory: *mut c_void) {
        // SAFETY: as in `realloc`; it is not used any more.
        unsafe { allocator::free(memory) };
    }

    fn strdup(text: Text) -> *mut c_char {
        let bytes = text.as_c().to_bytes_with_nul();
        let copy = allocator::or_abort(allocator::allocate(bytes.len()), bytes.len());
        // SAFETY: it has been allocated for so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast(), bytes.len()) };
        copy.cast()
    }

    /// Memory that is freed when the callback has ended.
    fn pool_alloc(ctx: Ctx, bytes: usize) -> *mut c_void {
        if bytes == 0 {
            return std::ptr::null_mut();
        }
        // Aligned for anything that C code may put there.
        const ALIGN: usize = 16;
        let mut memory = vec![0u8; bytes + ALIGN].into_boxed_slice();
        let start = memory.as_mut_ptr();
        let offset = start.align_offset(ALIGN);
        ctx.pool.push(memory);
        start.wrapping_add(offset).cast()
    }

    /// How much memory an allocation takes.
    fn malloc_size(memory: *mut c_void) -> usize {
        // SAFETY: as in `realloc`.
        unsafe { allocator::usable_bytes(memory) }
    }

    fn malloc_size_string(string: Str) -> usize {
        string.alloc_bytes()
    }

    /// The part of maxmemory that is in use; 0 without a limit.
    fn get_used_memory_ratio() -> f32 {
        crate::modules::server::used_memory_ratio()
    }
}
