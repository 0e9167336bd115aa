//! Intset: a small set of integers as a sorted array, in Redis' byte layout.
//!
//! ```text
//! | width: u32 | length: u32 | item 0 | item 1 | ...      all little-endian, items ascending
//! ```
//!
//! All items have the same width, 2, 4 or 8 bytes: the smallest that the largest item ever needed. An item that needs
//! more widens all of them, and goes to one of the ends; they never get narrower again. So the bytes are what Redis
//! would have, and DUMP copies them.

use super::blob::Blob;
use std::cmp::Ordering;
use std::fmt;

const HEADER_LEN: usize = 8;

/// The bytes of an intset without items.
pub const EMPTY: [u8; HEADER_LEN] = [2, 0, 0, 0, 0, 0, 0, 0];

/// Bytes of an item. The discriminants are the numbers in the header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Width {
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl Width {
    #[inline]
    fn of(value: i64) -> Width {
        if i16::try_from(value).is_ok() {
            Width::Two
        } else if i32::try_from(value).is_ok() {
            Width::Four
        } else {
            Width::Eight
        }
    }

    const fn len(self) -> usize {
        self as usize
    }
}

#[inline]
fn decode<const WIDTH: usize>(item: &[u8; WIDTH]) -> i64 {
    let mut word = [0; 8];
    word[8 - WIDTH..].copy_from_slice(item);
    i64::from_le_bytes(word) >> (64 - 8 * WIDTH)
}

#[inline]
fn search<const WIDTH: usize>(items: &[u8], value: i64) -> Result<usize, usize> {
    items.as_chunks::<WIDTH>().0.binary_search_by(|item| decode(item).cmp(&value))
}

/// An intset to read. Its bytes are trusted: those from outside have passed [`validate`].
#[derive(Clone, Copy, Debug)]
pub struct IntSet<'a> {
    width: Width,
    items: &'a [u8],
}

impl<'a> IntSet<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> IntSet<'a> {
        let width = match bytes[0] {
            2 => Width::Two,
            4 => Width::Four,
            _ => Width::Eight,
        };
        IntSet { width, items: &bytes[HEADER_LEN..] }
    }

    #[inline]
    pub fn len(self) -> usize {
        self.items.len() / self.width.len()
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.items.is_empty()
    }

    /// Where the value is, or else where it would be inserted.
    #[inline]
    fn position(self, value: i64) -> Result<usize, usize> {
        match self.width {
            Width::Two => search::<2>(self.items, value),
            Width::Four => search::<4>(self.items, value),
            Width::Eight => search::<8>(self.items, value),
        }
    }

    #[inline]
    pub fn contains(self, value: i64) -> bool {
        Width::of(value) <= self.width && self.position(value).is_ok()
    }

    /// Looks for a value among the items from rank `from` on, in steps that double: the rank where it is, or else where
    /// it would be. For values that are looked for in ascending order. O(log distance).
    #[inline]
    pub fn search_from(self, from: usize, value: i64) -> Result<usize, usize> {
        let len = self.len();
        let (mut low, mut step) = (from, 1);
        while low + step <= len && self.get(low + step - 1) < value {
            low += step;
            step *= 2;
        }
        let mut high = len.min(low + step);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(&value) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The item of a rank. Panics if there are not so many.
    #[inline]
    pub fn get(self, rank: usize) -> i64 {
        match self.width {
            Width::Two => decode(&self.items.as_chunks::<2>().0[rank]),
            Width::Four => decode(&self.items.as_chunks::<4>().0[rank]),
            Width::Eight => decode(&self.items.as_chunks::<8>().0[rank]),
        }
    }

    /// The items, ascending.
    #[inline]
    pub fn iter(self) -> impl ExactSizeIterator<Item = i64> + DoubleEndedIterator + Clone + 'a {
        (0..self.len()).map(move |rank| self.get(rank))
    }
}

/// An intset to change.
pub struct IntSetMut<'b, B: Blob + ?Sized>(&'b mut B);

impl<'b, B: Blob + ?Sized> IntSetMut<'b, B> {
    /// `blob` holds a valid intset.
    #[inline]
    pub fn new(blob: &'b mut B) -> Self {
        Self(blob)
    }

    #[inline]
    fn read(&self) -> IntSet<'_> {
        IntSet::new(self.0.bytes())
    }

    /// Adds a value. Returns whether it was not there yet. O(n).
    pub fn insert(&mut self, value: i64) -> bool {
        let set = self.read();
        let (len, width) = (set.len(), set.width);
        if width < Width::of(value) {
            self.widen(Width::of(value), value);
            return true;
        }
        // Many sets are filled in ascending order.
        let rank = if len > 0 && value > set.get(len - 1) {
            len
        } else {
            match set.position(value) {
                Ok(_) => return false,
                Err(rank) => rank,
            }
        };
        let at = HEADER_LEN + rank * width.len();
        let item = self.0.splice(at..at, width.len());
        item.copy_from_slice(&value.to_le_bytes()[..width.len()]);
        self.set_len(len + 1);
        true
    }

    /// Removes a value. Returns whether it was there. O(n).
    pub fn remove(&mut self, value: i64) -> bool {
        let set = self.read();
        match set.position(value) {
            Ok(rank) => {
                self.remove_rank(rank);
                true
            }
            Err(_) => false,
        }
    }

    /// Removes the item of a rank. Panics if there are not so many. O(n).
    pub fn remove_rank(&mut self, rank: usize) {
        let set = self.read();
        let (len, width) = (set.len(), set.width.len());
        assert!(rank < len, "item {rank} of {len}");
        let at = HEADER_LEN + rank * width;
        self.0.splice(at..at + width, 0);
        self.set_len(len - 1);
    }

    fn set_len(&mut self, len: usize) {
        let len = u32::try_from(len).expect("an intset has fewer items than 2^32");
        self.0.bytes_mut()[4..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
    }

    /// Gives all items a greater width, and adds `value`, which needs it and so is beyond all of them.
    #[cold]
    fn widen(&mut self, width: Width, value: i64) {
        let len = self.read().len();
        let old_end = self.0.bytes().len();
        let (old, new) = (self.read().width.len(), width.len());
        self.0.splice(old_end..old_end, len * (new - old) + new);
        let bytes = self.0.bytes_mut();
        // From the last to the first: an item is written behind all that are still to be read.
        let shift = usize::from(value < 0);
        for rank in (0..len).rev() {
            let from = HEADER_LEN + rank * old;
            let mut word = [if bytes[from + old - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
            word[..old].copy_from_slice(&bytes[from..from + old]);
            let to = HEADER_LEN + (rank + shift) * new;
            bytes[to..to + new].copy_from_slice(&word[..new]);
        }
        let at = HEADER_LEN + if value < 0 { 0 } else { len * new };
        bytes[at..at + new].copy_from_slice(&value.to_le_bytes()[..new]);
        bytes[..4].copy_from_slice(&(width as u32).to_le_bytes());
        self.set_len(len + 1);
    }
}

/// What is wrong with bytes that should be an intset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The bytes end within the header.
    Header,
    /// The width is none of 2, 4 and 8.
    Width(u32),
    /// The bytes are not those of so many items.
    Length { items: u32, bytes: usize },
    /// There are no items: such a set is never stored.
    Empty,
    /// This item is not greater than the one before it.
    Order(usize),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Damage::Header => write!(f, "too few bytes for an intset"),
            Damage::Width(width) => write!(f, "an intset of items of {width} bytes"),
            Damage::Length { items, bytes } => write!(f, "an intset of {items} items in {bytes} bytes"),
            Damage::Empty => write!(f, "an intset without items"),
            Damage::Order(rank) => write!(f, "item {rank} of an intset is not in order"),
        }
    }
}

/// Checks bytes from outside. Only `deep` looks at the items themselves: without it, look-ups may go wrong, but nothing
/// out of bounds is read.
///
/// # Errors
/// The first damage.
pub fn validate(bytes: &[u8], deep: bool) -> Result<(), Damage> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (width, items) = word(0).zip(word(4)).ok_or(Damage::Header)?;
    if !matches!(width, 2 | 4 | 8) {
        return Err(Damage::Width(width));
    }
    // Both are below 2^32, so that the product fits (CVE-2021-32687: where it does not, a length that is far too large
    // passes for a small one).
    if u64::from(items) * u64::from(width) != (bytes.len() - HEADER_LEN) as u64 {
        return Err(Damage::Length { items, bytes: bytes.len() });
    }
    if items == 0 {
        return Err(Damage::Empty);
    }
    if deep {
        let set = IntSet::new(bytes);
        if let Some(rank) = (1..set.len()).find(|&rank| set.get(rank - 1) >= set.get(rank)) {
            return Err(Damage::Order(rank));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
