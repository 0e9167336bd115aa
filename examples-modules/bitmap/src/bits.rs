//! Bits of a string of bytes: bit 0 is the highest bit of byte 0.
//!
//! What goes over many bytes is written as plain loops, which the compiler turns into vector code; they are compiled once
//! more for processors with AVX2 or with what AVX-512 has for counting, which is asked of the processor at run time.

use std::ops::RangeInclusive;

/// Whether a bit is set; bits past the end are not.
pub fn get(bytes: &[u8], bit: u64) -> bool {
    let byte = usize::try_from(bit / 8).ok().and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte & mask(bit) != 0)
}

/// Sets or clears a bit that there is. Gives whether it was set.
pub fn set(bytes: &mut [u8], bit: u64, is_on: bool) -> bool {
    let byte = &mut bytes[(bit / 8) as usize];
    let before = *byte & mask(bit) != 0;
    *byte = if is_on { *byte | mask(bit) } else { *byte & !mask(bit) };
    before
}

fn mask(bit: u64) -> u8 {
    0x80 >> (bit % 8)
}

/// The number of bits that are set, of a range within the bytes.
pub fn count(bytes: &[u8], bits: RangeInclusive<u64>) -> u64 {
    let Edges { first, whole, last } = Edges::of(bytes, bits);
    u64::from(first.count_ones()) + count_all(whole) + u64::from(last.count_ones())
}

/// The first bit that is `wanted`, of a range within the bytes.
pub fn position(bytes: &[u8], bits: RangeInclusive<u64>, wanted: bool) -> Option<u64> {
    let (begin, end) = (*bits.start(), *bits.end());
    let begin_byte = (begin / 8) as usize;
    // With the bits inverted, the search is for a bit that is set.
    let inversion = if wanted { 0x00 } else { 0xff };
    let first = (bytes[begin_byte] ^ inversion) & (0xff >> (begin % 8));
    let (at, byte) = if first != 0 {
        (begin_byte, first)
    } else {
        let rest = &bytes[begin_byte + 1..=(end / 8) as usize];
        let at = position_of_other(rest, inversion)?;
        (begin_byte + 1 + at, rest[at] ^ inversion)
    };
    Some(at as u64 * 8 + u64::from(byte.leading_zeros())).filter(|bit| *bit <= end)
}

/// The first byte that is not `common`.
fn position_of_other(bytes: &[u8], common: u8) -> Option<usize> {
    const BLOCK: usize = 32;
    let blocks = bytes.as_chunks::<BLOCK>().0;
    let skipped = blocks.iter().take_while(|block| **block == [common; BLOCK]).count() * BLOCK;
    bytes[skipped..].iter().position(|byte| *byte != common).map(|at| skipped + at)
}

/// A range of bits: the whole bytes of it, and what it takes of a byte before and a byte after them.
struct Edges<'b> {
    first: u8,
    whole: &'b [u8],
    last: u8,
}

impl Edges<'_> {
    fn of(bytes: &[u8], bits: RangeInclusive<u64>) -> Edges<'_> {
        let (begin, end) = (*bits.start(), *bits.end());
        let bytes = &bytes[(begin / 8) as usize..=(end / 8) as usize];
        let (begin_mask, end_mask) = (0xff >> (begin % 8), 0xff << (7 - end % 8));
        match bytes {
            [] => Edges { first: 0, whole: &[], last: 0 },
            [only] => Edges { first: only & begin_mask & end_mask, whole: &[], last: 0 },
            [first, whole @ .., last] => Edges { first: first & begin_mask, whole, last: last & end_mask },
        }
    }
}

fn count_all(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if avx512::counts_bits() {
        // SAFETY: the processor has what `count_all` is compiled for.
        return unsafe { avx512::count_all(bytes) };
    }
    count_without_avx512(bytes)
}

fn count_without_avx512(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::count_all(bytes) };
    }
    portable::count_all(bytes)
}

/// How the bytes of several strings are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    And,
    Or,
    Xor,
    /// Of the first string alone.
    Not,
}

/// Combines strings, the shorter ones as if zeros followed, into `result`, which is as long as the longest of them. What was
/// in it does not matter.
pub fn combine(operation: Operation, sources: &[&[u8]], result: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::combine(operation, sources, result) };
    }
    portable::combine(operation, sources, result);
}

mod portable {
    use super::Operation;

    #[inline(always)]
    pub fn count_all(bytes: &[u8]) -> u64 {
        let (words, tail) = bytes.as_chunks::<8>();
        let in_words: u64 = words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
        in_words + tail.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
    }

    /// As many bytes of the result as stay in the processor's nearest cache while source after source is added.
    const BLOCK_LEN_BYTES: usize = 8 << 10;

    #[inline(always)]
    pub fn combine(operation: Operation, sources: &[&[u8]], result: &mut [u8]) {
        for (number, result) in result.chunks_mut(BLOCK_LEN_BYTES).enumerate() {
            let len = result.len();
            let mut blocks = sources.iter().map(|source| {
                let rest = source.get(number * BLOCK_LEN_BYTES..).unwrap_or_default();
                &rest[..rest.len().min(len)]
            });
            let first = blocks.next().unwrap_or_default();
            match operation {
                Operation::Not => not(first, result),
                Operation::And => fold(first, blocks, result, |a, b| a & b),
                Operation::Or => fold(first, blocks, result, |a, b| a | b),
                Operation::Xor => fold(first, blocks, result, |a, b| a ^ b),
            }
        }
    }

    #[inline(always)]
    fn not(source: &[u8], result: &mut [u8]) {
        let (inverted, rest) = result.split_at_mut(source.len());
        inverted.iter_mut().zip(source).for_each(|(result, byte)| *result = !byte);
        rest.fill(!0);
    }

    #[inline(always)]
    fn fold<'b>(
        first: &[u8],
        mut others: impl Iterator<Item = &'b [u8]>,
        result: &mut [u8],
        combined: impl Fn(u8, u8) -> u8,
    ) {
        let second = others.next();
        match second {
            Some(second) if second.len() == result.len() && first.len() == result.len() => {
                let pairs = first.iter().zip(second);
                result.iter_mut().zip(pairs).for_each(|(result, (a, b))| *result = combined(*a, *b));
            }
            _ => {
                let (copied, rest) = result.split_at_mut(first.len());
                copied.copy_from_slice(first);
                rest.fill(0);
                second.into_iter().for_each(|second| add(second, result, &combined));
            }
        }
        others.for_each(|other| add(other, result, &combined));
    }

    #[inline(always)]
    fn add(source: &[u8], result: &mut [u8], combined: impl Fn(u8, u8) -> u8) {
        let (both, rest) = result.split_at_mut(source.len());
        both.iter_mut().zip(source).for_each(|(result, byte)| *result = combined(*result, *byte));
        rest.iter_mut().for_each(|result| *result = combined(*result, 0));
    }
}

/// For processors that count the bits of each word of a vector by one instruction.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::portable;

    pub fn counts_bits() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512vpopcntdq")
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    pub fn count_all(bytes: &[u8]) -> u64 {
        portable::count_all(bytes)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Operation, portable};

    #[target_feature(enable = "avx2")]
    pub fn count_all(bytes: &[u8]) -> u64 {
        portable::count_all(bytes)
    }

    #[target_feature(enable = "avx2")]
    pub fn combine(operation: Operation, sources: &[&[u8]], result: &mut [u8]) {
        portable::combine(operation, sources, result);
    }
}

#[cfg(test)]
mod tests;
