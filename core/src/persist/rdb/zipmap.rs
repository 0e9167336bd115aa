//! Zipmaps: what small hashes were before Redis 2.6. Read only.
//!
//! ```text
//! fields   [length of the field, field, length of the value, unused bytes (u8), value, unused] ...   0xFF
//! u8       length: a byte below 254, or 254 and a u32
//! ```

const END: u8 = 0xFF;
const LONG_LEN: u8 = 254;
/// The number of fields from which on it is unknown.
const COUNT_UNKNOWN: usize = 254;

/// Visits the fields of a zipmap and their values. Returns how many there are, or `None` if the bytes are not a zipmap;
/// some fields may have been visited before that was seen.
pub fn for_each<'a>(bytes: &'a [u8], visit: &mut dyn FnMut(&'a [u8], &'a [u8])) -> Option<usize> {
    let (&counted, mut rest) = bytes.split_first()?;
    let mut count = 0;
    while *rest.first()? != END {
        let (field, behind) = string(rest, 0)?;
        let (value, behind) = string(behind, 1)?;
        visit(field, value);
        rest = behind;
        count += 1;
    }
    let is_counted = usize::from(counted) >= COUNT_UNKNOWN || usize::from(counted) == count;
    (rest.len() == 1 && is_counted).then_some(count)
}

/// The string at the beginning of `bytes`, and what follows it. `free_len`: bytes that say how many unused ones there are.
fn string(bytes: &[u8], free_len: usize) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (len, rest) = match first {
        LONG_LEN => {
            let (len, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        END => return None,
        len => (usize::from(len), rest),
    };
    let (free, rest) = rest.split_at_checked(free_len)?;
    let (string, rest) = rest.split_at_checked(len)?;
    let unused = free.first().map_or(0, |&unused| usize::from(unused));
    Some((string, rest.get(unused..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
        let mut found = Vec::new();
        let count = for_each(bytes, &mut |field, value| found.push((field, value)))?;
        assert_eq!(count, found.len());
        Some(found)
    }

    #[test]
    fn fields_have_values_with_unused_bytes_behind() {
        let bytes = b"\x02\x01a\x02\x01xy-\xFE\x03\0\0\0abc\x00\x00\xFF";
        assert_eq!(read(bytes), Some(vec![(&b"a"[..], &b"xy"[..]), (b"abc", b"")]));
        assert_eq!(read(b"\x00\xFF"), Some(Vec::new()));
    }

    #[test]
    fn damage_is_found() {
        let sound = b"\x02\x01a\x02\x01xy-\xFE\x03\0\0\0abc\x00\x00\xFF";
        for len in 0..sound.len() {
            assert_eq!(read(&sound[..len]), None);
        }
        for (at, value) in [(0, 1), (1, 0xFF), (3, 200), (4, 200), (8, 200), (18, 0)] {
            let mut damaged = sound.to_vec();
            damaged[at] = value;
            assert_eq!(read(&damaged), None, "byte {at} is {value}");
        }
    }
}
