//! Blob: bytes that grow and shrink in place, wherever they lie. The packed structures are written over it.

use std::ops::Range;

/// Bytes that are changed in place.
pub trait Blob {
    fn bytes(&self) -> &[u8];

    fn bytes_mut(&mut self) -> &mut [u8];

    /// Replaces `range` by `len` bytes, whose contents are unspecified, and returns these, to be written.
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

    #[inline]
    fn splice(&mut self, range: Range<usize>, len: usize) -> &mut [u8] {
        let (start, end, old_len) = (range.start, range.end, self.len());
        assert!(start <= end && end <= old_len, "{range:?} of {old_len} bytes");
        let new_end = start + len;
        if new_end > end {
            self.resize(old_len + (new_end - end), 0);
            self.copy_within(end..old_len, new_end);
        } else {
            self.copy_within(end..old_len, new_end);
            self.truncate(old_len - (end - new_end));
        }
        &mut self[start..new_end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spliced_range_gets_longer_shorter_or_stays_as_it_is() {
        for len in 0..6 {
            let mut blob = b"abcdefg".to_vec();
            Blob::splice(&mut blob, 2..5, len).fill(b'x');
            assert_eq!(blob, [&b"ab"[..], &b"xxxxx"[..len], b"fg"].concat());
        }
    }
}
