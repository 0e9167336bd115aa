//! Pure data structures: no RESP, no argv, no clock.
//!
//! - `table`: a keyspace, with `directory`, `segment`, `entry` and `slab` below it
//! - `object`: what a table needs to know of big collections; `value_mut`: how values are changed in place
//! - `blob`: bytes that are edited in the middle
//! - `save`: how a big collection is saved for a snapshot while it changes
//! - `garbage`: removed values that are freed in slices
//! - `hashing`: the hash of a key
//! - over `blob`: `listpack`, a sequence of strings and integers in one allocation, and `intset`, a sorted array of integers
//! - `dict`: the big form of hashes and sets
//! - `decimal`: strings that are integers; `double`: the text of doubles
//! - `hash`, `list`, `set`, `zset`: hashes, lists, sets and sorted sets in all their forms
//! - `module`: values that only a module understands
//! - `stream`: a log of entries, and its consumer groups
//! - `fetch`: look-ups of elements that are about to be made
//! - `glob`: patterns, as in KEYS and SCAN MATCH
//! - `lzf`: the compression of strings in dumps, and of the inner nodes of lists

pub mod append;
pub mod blob;
pub mod decimal;
pub mod dict;
pub mod double;
pub mod entry;
pub mod fetch;
pub mod glob;
pub mod hash;
pub mod hashing;
pub mod intset;
pub mod list;
pub mod listpack;
pub mod lzf;
pub mod module;
pub mod object;
pub mod save;
pub mod set;
pub mod stream;
pub mod table;
pub mod value_mut;
pub mod zset;

mod directory;
mod garbage;
mod segment;
mod slab;

pub use blob::Blob;
pub use entry::{ACCESS_MAX, Encoding, NewValue, OwnedEntry, OwnedValue, PackedKind, ValueRef};
pub use hashing::{KeyHasher, fix_hash_seed, hash_bytes, hash_key};
pub use table::{
    DetachedTable, Entry, EntryMut, ExpireProgress, Prefetches, SCAN_CURSOR_BITS, SetExpire, Table,
    TableMemory,
};

pub use object::{Collection, Object, ValueType};
pub use value_mut::{ObjectMut, PackedMut, ValueMut};

pub(crate) const CACHE_LINE_LEN: usize = 64;

/// Prefetches all cache lines of a value.
#[inline(always)]
pub(crate) fn prefetch_all<T>(value: &T) {
    let start = (&raw const *value).cast::<u8>();
    (0..size_of::<T>()).step_by(CACHE_LINE_LEN).for_each(|at| prefetch(start.wrapping_add(at)));
}

/// A number below `bound` of a random one: all of them are equally likely but for less than one part in 2^32.
#[inline]
pub(crate) fn below(bound: usize, random: u64) -> usize {
    ((u128::from(random) * bound as u128) >> u64::BITS) as usize
}

/// Whether two strings are equal. They are mostly short, and a call to memcmp costs more than comparing them. The last bytes
/// come first: names mostly begin alike.
#[inline]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    let half = |bytes: &[u8], at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().expect("4 bytes"));
    match len {
        8..=16 => same_words(a, b),
        17..=32 => {
            let differs = |at: usize| word(a, at) ^ word(b, at);
            differs(len - 8) | differs(len - 16) | differs(8) | differs(0) == 0
        }
        4..8 => half(a, len - 4) == half(b, len - 4) && half(a, 0) == half(b, 0),
        ..4 => a.iter().zip(b).all(|(a, b)| a == b),
        _ => word(a, len - 8) == word(b, len - 8) && a == b,
    }
}

/// The same for the look-up that GET does: keys of the most usual lengths are compared without a call.
#[inline(always)]
fn same_bytes_inline(a: &[u8], b: &[u8]) -> bool {
    match a.len() {
        8..=16 => a.len() == b.len() && same_words(a, b),
        _ => same_bytes(a, b),
    }
}

/// The same for strings of one length, which is from 8 to 16.
#[inline(always)]
fn same_words(a: &[u8], b: &[u8]) -> bool {
    let last = a.len() - 8;
    word(a, last) == word(b, last) && word(a, 0) == word(b, 0)
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(*bytes[at..].first_chunk().expect("8 bytes"))
}

/// Prefetches the cache line at `address`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and does not fault whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}
