//! MurmurHash64A (Austin Appleby, public domain), and which register an element falls into.

use crate::registers::REGISTER_COUNT;

/// Redis' seed. Another one would count the same element twice in strings exchanged with Redis.
const SEED: u64 = 0xadc8_3b19;

/// How many bits of the hash choose the register.
const INDEX_BITS: u32 = REGISTER_COUNT.trailing_zeros();

/// The remaining bits, in which the run of zeros is counted.
pub const PATTERN_BITS: u32 = u64::BITS - INDEX_BITS;

/// The register of an element, and the value that it raises the register to: one more than the zeros at the low end of
/// the remaining bits of the hash, 1 to `PATTERN_BITS + 1`.
pub fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, SEED);
    let index = hash as usize & (REGISTER_COUNT - 1);
    // A bit beyond the pattern ends the run when all of the pattern is zero.
    let pattern = (hash >> INDEX_BITS) | (1 << PATTERN_BITS);
    (index, pattern.trailing_zeros() as u8 + 1)
}

fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut mixed = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = (hash ^ mixed.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> SHIFT)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_murmur64a() {
        // From the reference implementation, and from what Redis 7.0.15 shows of a string with this element.
        assert_eq!(murmur64a(b"", 0), 0);
        assert_eq!(place(b"x"), (16374, 2));
        // One word and tails of each length give different hashes.
        let text = b"0123456789abcdef";
        let mut hashes: Vec<u64> = (0..=text.len()).map(|len| murmur64a(&text[..len], SEED)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), text.len() + 1);
    }

    #[test]
    fn values_stay_within_what_a_dense_register_holds() {
        for number in 0..100_000u32 {
            let (index, value) = place(&number.to_le_bytes());
            assert!(index < REGISTER_COUNT && (1..=PATTERN_BITS as u8 + 1).contains(&value));
        }
    }
}
