//! Ziplists: what small lists, hashes and sorted sets were before Redis 7.0. Read only.
//!
//! ```text
//! total bytes   offset of the last entry   entries   entry ...                      end
//! u32           u32                        u16       [length before, encoding, contents]   0xFF
//!
//! length before: of the entry before this one, in a byte below 254, or 254 and a u32
//! encoding       contents                       encoding       contents
//! 00nnnnnn       string of up to 63 bytes       11000000       i16
//! 01nnnnnn +8    string of up to 16,383 bytes   11010000       i32
//! 10000000 +32   string                         11100000       i64
//! 1111nnnn       n - 1, for n from 1 to 13      11110000       i24
//!                                               11111110       i8
//! ```

use crate::types::listpack::Item;

const HEADER_LEN: usize = 10;
const END: u8 = 0xFF;
/// The number of entries from which on it is unknown.
const COUNT_UNKNOWN: usize = u16::MAX as usize;
/// The first byte of a length that does not fit a byte.
const LONG_LEN: u8 = 254;

/// Visits the entries of a ziplist. Returns how many there are, or `None` if the bytes are not a ziplist; some entries
/// may have been visited before that was seen.
pub fn for_each<'a>(bytes: &'a [u8], visit: &mut dyn FnMut(Item<'a>)) -> Option<usize> {
    let end = bytes.len().checked_sub(1)?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    if u32_at(0)? != bytes.len() || end < HEADER_LEN || bytes[end] != END {
        return None;
    }
    let last = u32_at(4)?;
    let counted = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));

    let (mut at, mut before, mut last_at, mut count) = (HEADER_LEN, 0, HEADER_LEN, 0);
    while at < end {
        let (item, entry_len) = entry(&bytes[at..end], before)?;
        visit(item);
        (last_at, before) = (at, entry_len);
        at += entry_len;
        count += 1;
    }
    let is_counted = counted == COUNT_UNKNOWN || counted == count;
    (last == last_at && is_counted).then_some(count)
}

/// The first entry of `bytes`, and its length. `before`: the length of the entry before it.
fn entry(bytes: &[u8], before: usize) -> Option<(Item<'_>, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (told, rest) = match first {
        LONG_LEN => {
            let (told, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*told) as usize, rest)
        }
        END => return None,
        told => (usize::from(told), rest),
    };
    if told != before {
        return None;
    }
    let (item, rest) = contents(rest)?;
    Some((item, bytes.len() - rest.len()))
}

/// The element that the encoding at the beginning of `bytes` tells, and what follows it.
fn contents(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (&encoding, rest) = bytes.split_first()?;
    fn int<const N: usize>(rest: &[u8]) -> Option<(Item<'_>, &[u8])> {
        let (low, rest) = rest.split_first_chunk::<N>()?;
        let mut wide = [0; 8];
        wide[8 - N..].copy_from_slice(low);
        Some((Item::Int(i64::from_le_bytes(wide) >> (8 * (8 - N))), rest))
    }
    let (len, rest) = match encoding {
        0..0x40 => (usize::from(encoding), rest),
        0x40..0x80 => {
            let (&low, rest) = rest.split_first()?;
            (usize::from(encoding & 0x3F) << 8 | usize::from(low), rest)
        }
        0x80 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u32::from_be_bytes(*len) as usize, rest)
        }
        0xC0 => return int::<2>(rest),
        0xD0 => return int::<4>(rest),
        0xE0 => return int::<8>(rest),
        0xF0 => return int::<3>(rest),
        0xFE => return int::<1>(rest),
        0xF1..=0xFD => return Some((Item::Int(i64::from(encoding & 0x0F) - 1), rest)),
        _ => return None,
    };
    let (string, rest) = rest.split_at_checked(len)?;
    Some((Item::of(string), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// The entries, written down by hand, in a ziplist.
    fn ziplist(entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let mut last = HEADER_LEN;
        for entry in entries {
            last = bytes.len();
            bytes.extend_from_slice(entry);
        }
        bytes.push(END);
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes[4..8].copy_from_slice(&(last as u32).to_le_bytes());
        bytes[8..10].copy_from_slice(&(entries.len() as u16).to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        let count = for_each(bytes, &mut |item| found.push(item.to_vec()))?;
        assert_eq!(count, found.len());
        Some(found)
    }

    fn long_string() -> Vec<u8> {
        let mut entry = vec![10, 0x41, 0x00];
        entry.extend_from_slice(&[b'x'; 256]);
        entry
    }

    fn sample() -> Vec<u8> {
        ziplist(&[
            &[0, 3, b'a', b'b', b'c'],
            &[5, 0xF1],
            &[2, 0xFD],
            &[2, 0xFE, 0x80],
            &[3, 0xC0, 0x00, 0x80],
            &[4, 0xF0, 0xFF, 0xFF, 0x7F],
            &[5, 0xD0, 0, 0, 0, 0x80],
            &[6, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            &long_string(),
            &[LONG_LEN, 3, 1, 0, 0, 0x80, 0, 0, 0, 1, b'y'],
        ])
    }

    #[test]
    fn all_encodings_are_read() {
        let expected: Vec<Vec<u8>> =
            ["abc", "0", "12", "-128", "-32768", "8388607", "-2147483648", "9223372036854775807"]
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .chain([vec![b'x'; 256], b"y".to_vec()])
                .collect();
        assert_eq!(read(&sample()), Some(expected));
        assert_eq!(read(&ziplist(&[])), Some(Vec::new()));
    }

    #[test]
    fn damage_is_found() {
        let sound = sample();
        for (at, value) in [(0, 1), (4, 11), (8, 9), (10, 1), (15, 4), (sound.len() - 1, 0), (11, 0xBF)] {
            let mut damaged = sound.clone();
            damaged[at] = value;
            assert_eq!(read(&damaged), None, "byte {at} is {value}");
        }
        for len in 0..sound.len() {
            assert_eq!(read(&sound[..len]), None);
        }
    }

    #[test]
    fn whatever_the_bytes_it_does_not_panic() {
        let sound = sample();
        let mut random = Rng::new(1);
        for _ in 0..20_000 {
            let mut damaged = sound.clone();
            for _ in 0..3 {
                let at = random.below(damaged.len());
                damaged[at] = random.next() as u8;
            }
            let _ = read(&damaged);
        }
    }
}
