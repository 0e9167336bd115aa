//! LZF, Redis' compression of strings in RDB files and of the inner nodes of long lists. Fast and simple: a sequence of
//!
//! ```text
//! 000nnnnn  n + 1 bytes                      literals
//! lllooooo  [more length, if l = 7]  offset  l + 2 (at most 264) bytes from `offset + 1` (13 bits) back
//! ```

/// How far back a match may lie.
const DISTANCE_MAX: usize = 1 << 13;
/// Longest match: 7 + 255 + 2.
const MATCH_LEN_MAX: usize = 264;
const LITERAL_RUN_MAX: usize = 32;

/// Bytes that one compressed byte makes at most: three bytes are a match of the longest kind.
const EXPANSION_MAX: usize = MATCH_LEN_MAX / 3;

/// From this length on, the input is compressed with a big table. The table is cleared for each input.
const BIG_INPUT_LEN: usize = 512;
const SMALL_TABLE_BITS: u32 = 8;
const BIG_TABLE_BITS: u32 = 13;

/// Appends the compressed input to `output`. Returns false, and appends nothing, if it would not be at least `gain` bytes
/// (at least 1) shorter, or is longer than 4 GiB.
pub fn compress(input: &[u8], gain: usize, output: &mut Vec<u8>) -> bool {
    debug_assert!(gain >= 1);
    let Some(len_max) = input.len().checked_sub(gain) else { return false };
    if u32::try_from(input.len()).is_err() {
        return false;
    }
    if input.len() < BIG_INPUT_LEN {
        compress_with::<{ 1 << SMALL_TABLE_BITS }>(input, len_max, output)
    } else {
        compress_with::<{ 1 << BIG_TABLE_BITS }>(input, len_max, output)
    }
}

/// `LEN`: of the table, a power of two.
fn compress_with<const LEN: usize>(input: &[u8], len_max: usize, output: &mut Vec<u8>) -> bool {
    // Where three bytes of that hash were seen last, plus one.
    let mut seen = [0u32; LEN];
    let slot = |at: usize| {
        let three = u32::from_le_bytes([0, input[at], input[at + 1], input[at + 2]]);
        (three.wrapping_mul(0x9E37_79B1) >> (u32::BITS - LEN.trailing_zeros())) as usize
    };
    let start = output.len();
    output.reserve(len_max);
    let (mut at, mut literals_from) = (0, 0);
    while at + 2 < input.len() {
        let slot = slot(at);
        let candidate = std::mem::replace(&mut seen[slot], at as u32 + 1) as usize;
        let distance = at + 1 - candidate;
        let is_match = candidate != 0
            && distance <= DISTANCE_MAX
            && input[candidate - 1..candidate + 2] == input[at..at + 3];
        if !is_match {
            at += 1;
            continue;
        }
        let len = 3 + same_len(&input[candidate + 2..], &input[at + 3..], MATCH_LEN_MAX - 3);
        push_literals(&input[literals_from..at], output);
        push_match(distance - 1, len, output);
        if output.len() - start > len_max {
            output.truncate(start);
            return false;
        }
        at += len;
        literals_from = at;
    }
    push_literals(&input[literals_from..], output);
    if output.len() - start > len_max {
        output.truncate(start);
        return false;
    }
    true
}

/// How long so many bytes are that are not compressed.
pub fn literals_len(len: usize) -> usize {
    len + len.div_ceil(LITERAL_RUN_MAX)
}

/// How many of the first `max` bytes are the same.
fn same_len(a: &[u8], b: &[u8], max: usize) -> usize {
    a.iter().zip(b).take(max).take_while(|(a, b)| a == b).count()
}

/// Appends the input as it is, in the form of what is compressed. That is [`literals_len`] bytes.
pub fn push_literals(literals: &[u8], output: &mut Vec<u8>) {
    for run in literals.chunks(LITERAL_RUN_MAX) {
        output.push((run.len() - 1) as u8);
        output.extend_from_slice(run);
    }
}

/// `offset`: the distance less one.
fn push_match(offset: usize, len: usize, output: &mut Vec<u8>) {
    let (len, high, low) = (len - 2, (offset >> 8) as u8, offset as u8);
    if len < 7 {
        output.extend_from_slice(&[(len as u8) << 5 | high, low]);
    } else {
        output.extend_from_slice(&[7 << 5 | high, (len - 7) as u8, low]);
    }
}

/// Appends what the input was made of, `len` bytes, to `output`. Returns false, with `output` as it was, if the input is
/// damaged. Allocates `len` bytes only if the input is long enough to make that many.
#[must_use]
pub fn decompress(input: &[u8], len: usize, output: &mut Vec<u8>) -> bool {
    if len > input.len().saturating_mul(EXPANSION_MAX) {
        return false;
    }
    let start = output.len();
    output.reserve_exact(len);
    if append(input, start, start + len, output).is_none() {
        output.truncate(start);
        return false;
    }
    true
}

/// `start`: the beginning of the decompressed bytes in `output`; `end`: where they have to end.
fn append(mut input: &[u8], start: usize, end: usize, output: &mut Vec<u8>) -> Option<()> {
    while let Some((&control, rest)) = input.split_first() {
        let control = usize::from(control);
        if control < LITERAL_RUN_MAX {
            let (literals, rest) = rest.split_at_checked(control + 1)?;
            if output.len() + literals.len() > end {
                return None;
            }
            output.extend_from_slice(literals);
            input = rest;
            continue;
        }
        let (more, rest) = if control >> 5 == 7 {
            let (&more, rest) = rest.split_first()?;
            (usize::from(more), rest)
        } else {
            (0, rest)
        };
        let (&low, rest) = rest.split_first()?;
        let len = (control >> 5) + more + 2;
        let distance = ((control & 0x1F) << 8 | usize::from(low)) + 1;
        let from = output.len().checked_sub(distance).filter(|&from| from >= start)?;
        if output.len() + len > end {
            return None;
        }
        if distance >= len {
            output.extend_from_within(from..from + len);
        } else {
            // The match overlaps what it makes: it repeats.
            let mut left = len;
            while left > 0 {
                let part = left.min(output.len() - from);
                output.extend_from_within(from..from + part);
                left -= part;
            }
        }
        input = rest;
    }
    (output.len() == end).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn round(input: &[u8]) -> Option<usize> {
        let mut packed = b"before".to_vec();
        if !compress(input, 1, &mut packed) {
            assert_eq!(packed, b"before");
            return None;
        }
        let packed = &packed[6..];
        assert!(packed.len() < input.len());
        let mut output = b"kept".to_vec();
        assert!(decompress(packed, input.len(), &mut output));
        assert_eq!(&output[4..], input);
        for wrong in [input.len() - 1, input.len() + 1] {
            let mut output = b"kept".to_vec();
            assert!(!decompress(packed, wrong, &mut output));
            assert_eq!(output, b"kept");
        }
        Some(packed.len())
    }

    #[test]
    fn what_repeats_gets_shorter_and_comes_back() {
        assert!(round(&[b'x'; 10_000]).is_some_and(|len| len < 150));
        assert!(round(b"abcabcabcabcabcabcabcabc").is_some());
        let text = "the quick brown fox jumps over the lazy dog; ".repeat(300);
        assert!(round(text.as_bytes()).is_some_and(|len| len < text.len() / 20));
        assert_eq!(round(b""), None);
        assert_eq!(round(b"abc"), None);
    }

    #[test]
    fn random_texts_of_few_letters_come_back() {
        let mut random = Rng::new(7);
        for _ in 0..if cfg!(miri) { 10 } else { 500 } {
            let (len, letters) = (random.below(3000), random.below(20) + 1);
            let input: Vec<u8> = (0..len).map(|_| random.below(letters) as u8).collect();
            round(&input);
        }
    }

    #[test]
    fn what_redis_compressed_is_read() {
        // 60 times `a`, as DUMP shows it.
        let mut output = Vec::new();
        assert!(decompress(&[1, b'a', b'a', 0xE0, 47, 0, 1, b'a', b'a'], 60, &mut output));
        assert_eq!(output, [b'a'; 60]);
    }

    #[test]
    fn damage_is_found_and_a_length_that_cannot_be_is_not_allocated() {
        let mut output = Vec::new();
        for damaged in [&[5u8, 1, 2][..], &[0x20, 0], &[0xE0], &[0xE0, 1], &[0, b'a', 0x20, 1]] {
            assert!(!decompress(damaged, 4, &mut output), "{damaged:?}");
        }
        assert!(!decompress(&[0xE0, 255, 0], usize::MAX, &mut output));
        assert!(!decompress(&[0, b'a'], 1 << 40, &mut output));
        assert_eq!(output.capacity(), output.capacity().min(4096));
    }
}
