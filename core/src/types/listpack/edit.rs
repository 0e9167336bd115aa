//! Changing listpacks, in whatever holds their bytes.

use super::{COUNT_UNKNOWN, END, Encoded, HEADER_LEN, Item, Listpack, STR_6, count_in_header};
use crate::types::blob::Blob;
use std::ops::Range;

/// A listpack to change, in any [`Blob`]. Elements are `&[u8]`, which are stored as integers if they are one, `i64`, or
/// [`Item`].
///
/// # Panics
/// A listpack longer than 4 GiB: callers stay below [`super::LEN_BYTES_MAX`].
pub struct ListpackMut<'b, B: Blob + ?Sized>(&'b mut B);

impl<'b, B: Blob + ?Sized> ListpackMut<'b, B> {
    /// `blob` holds a valid listpack.
    #[inline]
    pub fn new(blob: &'b mut B) -> Self {
        Self(blob)
    }

    #[inline]
    pub fn as_ref(&self) -> Listpack<'_> {
        Listpack::new(self.0.bytes())
    }

    #[inline]
    pub fn push_back<'e>(&mut self, element: impl Into<Item<'e>>) {
        let end = self.as_ref().end();
        self.insert_before(end, element);
    }

    #[inline]
    pub fn push_front<'e>(&mut self, element: impl Into<Item<'e>>) {
        self.insert_before(HEADER_LEN, element);
    }

    /// Inserts an element before the one at `pos`, which may be the end. Returns its position, which is `pos`.
    #[inline]
    pub fn insert_before<'e>(&mut self, pos: usize, element: impl Into<Item<'e>>) -> usize {
        let encoded = Encoded::of(element.into());
        encoded.write(self.splice(pos..pos, encoded.len(), 1));
        pos
    }

    /// Inserts an element after the one at `pos`. Returns its position.
    #[inline]
    pub fn insert_after<'e>(&mut self, pos: usize, element: impl Into<Item<'e>>) -> usize {
        let next = self.as_ref().after(pos);
        self.insert_before(next, element)
    }

    /// Replaces the element at `pos`. Returns how many bytes longer the new one is.
    #[inline]
    pub fn replace<'e>(&mut self, pos: usize, element: impl Into<Item<'e>>) -> isize {
        let encoded = Encoded::of(element.into());
        let bytes = self.0.bytes_mut();
        let end = Listpack::new(bytes).after(pos);
        let grown = encoded.len() as isize - (end - pos) as isize;
        if grown == 0 {
            encoded.write(&mut bytes[pos..end]);
        } else {
            encoded.write(self.splice(pos..end, encoded.len(), 0));
        }
        grown
    }

    /// Moves the elements of a range before the one at `to`, which may be the end, and is not among them.
    pub fn move_before(&mut self, range: Range<usize>, to: usize) {
        let bytes = self.0.bytes_mut();
        if to > range.start {
            bytes[range.start..to].rotate_left(range.len());
        } else {
            bytes[to..range.end].rotate_right(range.len());
        }
    }

    /// Removes `count` elements, or as many as there are, from the one at `pos` on. Returns the position of the element
    /// that follows, if there is one.
    pub fn remove(&mut self, pos: usize, count: usize) -> Option<usize> {
        let listpack = self.as_ref();
        let (mut end, mut removed) = (pos, 0);
        while removed < count && end < listpack.end() {
            end = listpack.after(end);
            removed += 1;
        }
        self.splice(pos..end, 0, -(removed as isize));
        (pos < self.as_ref().end()).then_some(pos)
    }

    /// Removes `count` elements, or as many as there are, from element `index` on, which counts from the end if it is
    /// negative.
    pub fn remove_range(&mut self, index: isize, count: usize) {
        if let Some(pos) = self.as_ref().seek(index) {
            self.remove(pos, count);
        }
    }

    /// Appends elements, with one change of the length.
    pub fn append_many<'e, E: Into<Item<'e>>>(&mut self, elements: impl Iterator<Item = E> + Clone) {
        self.insert_many_before(self.as_ref().end(), elements);
    }

    /// Prepends elements, which keep their order, with one change of the length.
    pub fn prepend_many<'e, E: Into<Item<'e>>>(&mut self, elements: impl Iterator<Item = E> + Clone) {
        self.insert_many_before(HEADER_LEN, elements);
    }

    /// Inserts elements, in their order, before the one at `pos`, which may be the end, with one change of the length.
    pub fn insert_many_before<'e, E: Into<Item<'e>>>(
        &mut self,
        pos: usize,
        elements: impl Iterator<Item = E> + Clone,
    ) {
        let encoded = elements.map(|element| Encoded::of(element.into()));
        let (len, count) =
            encoded.clone().fold((0, 0), |(len, count), encoded| (len + encoded.len(), count + 1));
        let mut rest = self.splice(pos..pos, len, count);
        for encoded in encoded {
            let written = encoded.write(rest);
            rest = &mut rest[written..];
        }
    }
}

impl ListpackMut<'_, Vec<u8>> {
    /// As [`ListpackMut::append_many`], with each element encoded once: for callers that append often.
    #[inline]
    pub fn extend(&mut self, elements: &[Item<'_>]) {
        let bytes = &mut *self.0;
        bytes.pop();
        for &element in elements {
            match element {
                Item::Int(number @ 0..128) => bytes.extend_from_slice(&[number as u8, 1]),
                Item::Str(string) if string.len() < 64 => {
                    let len = string.len() as u8;
                    bytes.reserve(string.len() + 2);
                    bytes.push(STR_6 | len);
                    bytes.extend_from_slice(string);
                    bytes.push(len + 1);
                }
                Item::Int(_) | Item::Str(_) => {
                    let encoded = Encoded::of(element);
                    let start = bytes.len();
                    bytes.resize(start + encoded.len(), 0);
                    encoded.write(&mut bytes[start..]);
                }
            }
        }
        bytes.push(END);
        let len = bytes.len();
        write_header(bytes, len, elements.len() as isize);
    }
}

impl<B: Blob + ?Sized> ListpackMut<'_, B> {
    /// Replaces the elements of a range by `len` bytes, which are returned to be written, with `count_by` elements more than
    /// there were. The header is written first, while its bytes are at hand.
    #[inline]
    fn splice(&mut self, range: Range<usize>, len: usize, count_by: isize) -> &mut [u8] {
        let bytes = self.0.bytes_mut();
        let new_len = bytes.len() - range.len() + len;
        write_header(bytes, new_len, count_by);
        self.0.splice(range, len)
    }
}

/// Writes the header of a listpack that gets so many bytes, and `count_by` elements more.
#[inline]
fn write_header(bytes: &mut [u8], len: usize, count_by: isize) {
    let len = u32::try_from(len).expect("a listpack is shorter than 4 GiB");
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    let count = count_in_header(bytes);
    if count != COUNT_UNKNOWN {
        let count = count.checked_add_signed(count_by).expect("no more elements are removed than there are");
        bytes[4..6].copy_from_slice(&(count.min(COUNT_UNKNOWN) as u16).to_le_bytes());
    }
}
