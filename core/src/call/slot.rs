//! Hash slots, as Redis Cluster defines them, and the slot ranges of the shards.
//!
//! slot = CRC16/XMODEM(hash tag or key) mod 16384; shard = the slot's place in `shard_count` equal ranges.
//! So `{tag}` co-locates keys on one core exactly as it does on one node of a Redis Cluster.

pub const SLOT_COUNT: u32 = 16_384;

/// Bytes that one step takes. More would not be faster for keys of usual length, and take more of the L1 cache.
const STEP_LEN: usize = 4;

static CRC16: [[u16; 256]; STEP_LEN] = crc16_tables();

/// The CRCs of each byte; in table `n`, of the byte followed by `n` zero bytes.
const fn crc16_tables() -> [[u16; 256]; STEP_LEN] {
    let mut tables = [[0u16; 256]; STEP_LEN];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < STEP_LEN {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[zeros - 1][byte];
            tables[zeros][byte] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// CRC16 with polynomial 0x1021, initial value 0.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut steps = bytes.chunks_exact(STEP_LEN);
    for step in &mut steps {
        let [high, low] = crc.to_be_bytes();
        crc = CRC16[3][usize::from(high ^ step[0])]
            ^ CRC16[2][usize::from(low ^ step[1])]
            ^ CRC16[1][usize::from(step[2])]
            ^ CRC16[0][usize::from(step[3])];
    }
    for &byte in steps.remainder() {
        crc = (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc
}

/// The bytes that decide a key's slot: between the first `{` and the next `}`, if there are any there.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    // Nearly every key is short and has none. A call to memchr takes longer than to look at all its bytes.
    match key.len() {
        8..=16 if !(has_brace(key, 0) | has_brace(key, key.len() - 8)) => key,
        _ => tag_in(key),
    }
}

/// Whether one of the eight bytes from `at` on is a `{`.
#[inline(always)]
fn has_brace(key: &[u8], at: usize) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let bytes = u64::from_ne_bytes(*key[at..].first_chunk().expect("8 bytes"));
    // A byte is zero where it was a brace. Only of a zero byte, or of one above it, does the subtraction set the top bit
    // that was not set.
    let zeroed = bytes ^ ONES * b'{' as u64;
    zeroed.wrapping_sub(ONES) & !zeroed & ONES << 7 != 0
}

#[inline(never)]
fn tag_in(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let inner = &key[open + 1..];
    match memchr::memchr(b'}', inner) {
        Some(close) if close > 0 => &inner[..close],
        _ => key,
    }
}

/// A key's slot, 0..16384.
#[inline]
pub fn slot(key: &[u8]) -> u32 {
    u32::from(crc16(hash_tag(key))) & (SLOT_COUNT - 1)
}

/// The shard that owns a key.
#[inline]
pub fn shard_of(key: &[u8], shard_count: usize) -> usize {
    if shard_count == 1 {
        return 0;
    }
    (slot(key) as usize * shard_count) >> 14
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_of_the_check_string_is_that_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }

    #[test]
    fn steps_of_several_bytes_give_the_same_as_single_bytes() {
        let bytes: Vec<u8> = (0..64u32).map(|n| (n * 89 + 7) as u8).collect();
        for len in 0..bytes.len() {
            let one_by_one = bytes[..len]
                .iter()
                .fold(0u16, |crc, &byte| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)]);
            assert_eq!(crc16(&bytes[..len]), one_by_one, "{len} bytes");
        }
    }

    #[test]
    fn only_the_first_nonempty_tag_counts() {
        assert_eq!(hash_tag(b"user:{1000}.following"), b"1000");
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(slot(b"foo"), 12182);
    }

    #[test]
    fn a_tag_is_found_wherever_it_is_in_keys_of_any_length() {
        for len in 0..40 {
            for open in 0..len {
                // Neighbours of the brace in the alphabet, and the highest byte.
                for filling in [0, b'z', b'|', 0x7f, 0xfb, 0xff] {
                    let mut key = vec![filling; len];
                    assert_eq!(hash_tag(&key), key);
                    key[open] = b'{';
                    assert_eq!(hash_tag(&key), key);
                    if open + 2 < len {
                        key[len - 1] = b'}';
                        assert_eq!(hash_tag(&key), &key[open + 1..len - 1]);
                    }
                }
            }
        }
    }

    #[test]
    fn every_slot_has_a_shard_and_ranges_are_even() {
        for shard_count in [1usize, 2, 3, 7, 64] {
            let mut counts = vec![0usize; shard_count];
            for slot in 0..SLOT_COUNT as usize {
                counts[(slot * shard_count) >> 14] += 1;
            }
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(max - min <= 1, "{shard_count} shards: {counts:?}");
        }
    }
}
