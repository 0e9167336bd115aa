//! The provided buffers of a shard: where the kernel puts what arrives, on any of the shard's connections.
//!
//! A receive takes a buffer only when there are bytes for it, so 10,000 idle connections hold none. Received bytes are
//! used where they lie and the buffer goes back within the same turn; so at the end of a turn all of them are the
//! kernel's again, and the pool need only be as large as what arrives in one turn. It starts small and grows when a
//! turn ran it dry. Memory is mapped once at its largest size and is real only where it was touched.
//!
//! Since Linux 6.12 a buffer can be consumed in steps (`Layout::Packed`): small requests of many connections then lie
//! side by side in few, large, cache-warm buffers. Before, each receive uses up a whole buffer (`Layout::Whole`), so
//! there are more and smaller ones.
//!
//! In the packed layout the kernel goes on to the next buffer exactly when one is full, and tells so by a flag. We
//! count bytes instead of trusting that flag: a completion without bytes (end of file) has carried the wrong one.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;

/// The only buffer group of a driver's ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC`
const FLAG_INCREMENTAL: u16 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Buffers consumed in steps. Linux 6.12.
    Packed,
    /// A buffer a receive. Linux 5.19.
    Whole,
}

impl Layout {
    /// Bytes of a buffer, buffers to begin with, buffers at most (powers of two).
    const fn dimensions(self) -> (usize, u16, u16) {
        match self {
            Layout::Packed => (64 << 10, 4, 64),
            Layout::Whole => (8 << 10, 128, 1024),
        }
    }
}

/// Memory of a shard's pool when it has grown fully and every byte was touched: 4 MiB packed, 8 MiB whole; 256 KiB
/// and 1 MiB to begin with.
pub(super) struct BufferPool {
    layout: Layout,
    buffer_len: usize,
    count: u16,
    count_max: u16,
    /// The ring the kernel takes buffers from: `count_max` entries, page-aligned. Its tail lies in the first entry.
    entries: Mapping,
    buffers: Mapping,
    /// Our side of the tail, published by `publish`.
    tail: u16,
    /// How much of each buffer was consumed (packed only).
    consumed: Vec<u32>,
}

impl BufferPool {
    /// Maps the memory and registers it with the ring. EINVAL: the kernel does not know the layout.
    pub(super) fn new(ring: &Ring, layout: Layout) -> io::Result<BufferPool> {
        let (buffer_len, count, count_max) = layout.dimensions();
        let entries = Mapping::new(usize::from(count_max) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::new(usize::from(count_max) * buffer_len)?;
        let flags = match layout {
            Layout::Packed => FLAG_INCREMENTAL,
            Layout::Whole => 0,
        };
        // SAFETY: the entries are mapped for the pool's whole life, page-aligned and zeroed, and the driver drops its
        // pool only when the ring has nothing in flight that could pick a buffer.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.base.as_ptr() as u64,
                count_max,
                BUFFER_GROUP,
                flags,
            )?;
        }
        let consumed = vec![0; usize::from(count_max)];
        let mut pool =
            BufferPool { layout, buffer_len, count: 0, count_max, entries, buffers, tail: 0, consumed };
        pool.provide_up_to(count);
        pool.publish();
        Ok(pool)
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The `len` bytes a completion put into buffer `bid`. Must be followed by `consume` before the next completion
    /// is looked at.
    #[inline]
    pub(super) fn bytes(&self, bid: u16, len: usize) -> &[u8] {
        let at = self.consumed[usize::from(bid)] as usize;
        assert!(at + len <= self.buffer_len && bid < self.count, "the kernel wrote past a provided buffer");
        // SAFETY: in bounds of the mapping by the assertion (`count` buffers are mapped). The kernel has written these
        // bytes and does not write them again before they are provided again, which takes `&mut self`.
        unsafe {
            let start = self.buffers.base.as_ptr().add(usize::from(bid) * self.buffer_len + at);
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Does `consume` for a completion whose bytes are still to be looked at, which [`BufferPool::claimed`] finds by what
    /// this returns. The kernel gets no buffer back before the next `publish`.
    #[inline]
    pub(super) fn claim(&mut self, bid: u16, len: usize) -> usize {
        let at = self.consumed[usize::from(bid)] as usize;
        assert!(at + len <= self.buffer_len && bid < self.count, "the kernel wrote past a provided buffer");
        self.consume(bid, len);
        usize::from(bid) * self.buffer_len + at
    }

    /// The `len` bytes of a claim.
    #[inline]
    pub(super) fn claimed(&self, claim: usize, len: usize) -> &[u8] {
        assert!(claim + len <= usize::from(self.count) * self.buffer_len);
        // SAFETY: in bounds of the mapping by the assertion. The kernel has written these bytes and does not write them
        // again before they are published again, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.buffers.base.as_ptr().add(claim), len) }
    }

    /// The completion's bytes are done with: the buffer goes back if nothing is left of it.
    #[inline]
    pub(super) fn consume(&mut self, bid: u16, len: usize) {
        match self.layout {
            Layout::Whole => self.provide(bid),
            Layout::Packed => {
                let consumed = &mut self.consumed[usize::from(bid)];
                *consumed += len as u32;
                if *consumed as usize == self.buffer_len {
                    *consumed = 0;
                    self.provide(bid);
                }
            }
        }
    }

    /// Doubles the buffers, up to the layout's limit. For when a turn ran out of them.
    pub(super) fn grow(&mut self) {
        self.provide_up_to((self.count * 2).min(self.count_max));
    }

    fn provide_up_to(&mut self, count: u16) {
        for bid in self.count..count {
            self.provide(bid);
        }
        self.count = count;
    }

    #[inline]
    fn provide(&mut self, bid: u16) {
        let at = usize::from(self.tail & (self.count_max - 1));
        // SAFETY: `at` is below `count_max`, the number of entries mapped. The kernel reads an entry only between the
        // published tail and its own head, and there are never more than `count_max` buffers, so this one is ours.
        // Only addr, len and bid are written: in the first entry the fourth field is the ring's tail.
        unsafe {
            let entry = &mut *self.entries.base.cast::<BufRingEntry>().as_ptr().add(at);
            entry.set_addr(self.buffers.base.as_ptr().add(usize::from(bid) * self.buffer_len) as u64);
            entry.set_len(self.buffer_len as u32);
            entry.set_bid(bid);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel the buffers given back since the last call.
    #[inline]
    pub(super) fn publish(&mut self) {
        // SAFETY: the tail is a u16 in the first entry, aligned and mapped; the kernel reads it with acquire, so the
        // entries written above are visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.base.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous memory, zeroed, not backed before it is touched.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        // SAFETY: a new private anonymous mapping; no existing memory is concerned.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: NonNull::new(base.cast()).expect("mmap does not return null"), len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference into it can outlive its owner.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
