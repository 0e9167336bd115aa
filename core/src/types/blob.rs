//! Blob: bytes that are edited in the middle. The packed collections (listpack, intset) are written over it, so that the
//! same code changes one that lies within its entry and one that lies in a vector.

use std::ops::Range;

/// Bytes that can grow and shrink at any place.
pub trait Blob {
    fn bytes(&self) -> &[u8];

    fn bytes_mut(&mut self) -> &mut [u8];

    /// Replaces `range` by `len` bytes, whose contents are unspecified, and returns these to be written.
    fn splice(&mut self, range: Range<usize>, len: usize) -> &mut [u8];
}

impl Blob for Vec<u8> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn splice(&mut self, range: Range<usize>, len: usize) -> &mut [u8] {
        let old_len = self.len();
        assert!(range.start <= range.end && range.end <= old_len, "{range:?} of {old_len} bytes");
        if len > range.len() {
            let added = len - range.len();
            if self.capacity() - old_len < added {
                self.reserve_exact(grown_capacity(old_len + added) - old_len);
            }
            self.resize(old_len + added, 0);
        }
        self.copy_within(range.end..old_len, range.start + len);
        self.truncate(old_len - range.len() + len);
        &mut self[range.start..range.start + len]
    }
}

/// Room for a blob of `len` bytes that grows: an eighth more, so that growing byte by byte stays cheap and little memory
/// is wasted.
fn grown_capacity(len: usize) -> usize {
    const ROOM_MIN: usize = 64;
    len + ROOM_MIN.max(len / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_splice_replaces_a_range_and_moves_the_rest() {
        let mut bytes = b"abcdef".to_vec();
        Blob::splice(&mut bytes, 1..3, 4).copy_from_slice(b"1234");
        assert_eq!(bytes, b"a1234def");
        Blob::splice(&mut bytes, 0..5, 1).copy_from_slice(b"x");
        assert_eq!(bytes, b"xdef");
        Blob::splice(&mut bytes, 4..4, 2).copy_from_slice(b"yz");
        assert_eq!(bytes, b"xdefyz");
        Blob::splice(&mut bytes, 0..6, 0);
        assert!(bytes.is_empty());
    }
}
