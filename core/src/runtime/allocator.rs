//! jemalloc: what it holds, what it is asked to give back, and what it says of itself.

use std::ffi::{CStr, c_void};
use std::ptr;
use tikv_jemalloc_ctl::{epoch, stats, stats_print, version};

/// Bytes as jemalloc counts them. All zero where the allocator is another.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AllocatorStats {
    /// What the program has.
    pub allocated: u64,
    /// The pages that this lies in.
    pub active: u64,
    /// All pages that are in physical memory.
    pub resident: u64,
}

/// The state of this moment. Takes each arena's lock in turn.
pub fn allocator_stats() -> AllocatorStats {
    // The counters are snapshots, taken when the epoch advances.
    let _ = epoch::advance();
    AllocatorStats {
        allocated: stats::allocated::read().unwrap_or(0) as u64,
        active: stats::active::read().unwrap_or(0) as u64,
        resident: stats::resident::read().unwrap_or(0) as u64,
    }
}

/// Name and version: `jemalloc-5.3.0`.
pub fn allocator_name() -> String {
    let number = version::read().unwrap_or("unknown");
    format!("jemalloc-{}", number.split('-').next().unwrap_or(number))
}

/// jemalloc's own report, for people.
pub fn allocator_report() -> Vec<u8> {
    let mut report = Vec::new();
    match stats_print::stats_print(&mut report, stats_print::Options::default()) {
        Ok(()) => report,
        Err(error) => format!("jemalloc does not report: {error}").into_bytes(),
    }
}

/// Gives the pages that hold nothing back to the kernel.
pub fn purge() {
    /// MALLCTL_ARENAS_ALL of jemalloc.h: every arena.
    const PURGE_ALL_ARENAS: &CStr = c"arena.4096.purge";
    // SAFETY: the name ends with a NUL, and this control neither takes nor gives a value, which null pointers say.
    unsafe {
        let nothing: *mut c_void = ptr::null_mut();
        tikv_jemalloc_sys::mallctl(PURGE_ALL_ARENAS.as_ptr(), nothing, ptr::null_mut(), nothing, 0);
    }
}

/// Memory for C code, or NULL.
pub fn allocate(bytes: usize) -> *mut c_void {
    // SAFETY: any size may be asked for. jemalloc is the process' malloc.
    unsafe { libc::malloc(bytes.max(1)) }
}

/// The same, filled with zeros.
pub fn allocate_zeroed(count: usize, size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for, and an overflow gives NULL.
    unsafe { libc::calloc(count.max(1), size.max(1)) }
}

/// Changes the size of an allocation.
///
/// # Safety
/// `memory` comes from these functions, or is NULL.
pub unsafe fn reallocate(memory: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: as promised.
    unsafe { libc::realloc(memory, bytes.max(1)) }
}

/// # Safety
/// `memory` comes from these functions, or is NULL, and is not used any more.
pub unsafe fn free(memory: *mut c_void) {
    // SAFETY: as promised.
    unsafe { libc::free(memory) };
}

/// How much memory an allocation takes.
///
/// # Safety
/// `memory` comes from these functions, or is NULL.
pub unsafe fn usable_bytes(memory: *mut c_void) -> usize {
    // SAFETY: as promised.
    if memory.is_null() { 0 } else { unsafe { libc::malloc_usable_size(memory) } }
}

/// Memory that is there.
///
/// # Panics
/// There is none.
pub fn or_abort(memory: *mut c_void, bytes: usize) -> *mut c_void {
    assert!(!memory.is_null(), "out of memory: a module has asked for {bytes} bytes");
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_a_plain_version() {
        let name = allocator_name();
        let number = name.strip_prefix("jemalloc-").unwrap();
        assert!(number.split('.').all(|part| part.parse::<u32>().is_ok()), "{name}");
    }

    #[test]
    fn the_report_is_jemallocs() {
        assert!(allocator_report().starts_with(b"___ Begin jemalloc statistics ___"));
    }
}
