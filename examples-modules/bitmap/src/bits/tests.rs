//! Bits against looking at each of them.

use super::*;
use shardis_modules_testing::Random;

/// Mostly runs of equal bytes: others are where searches end.
fn random_bytes(random: &mut Random) -> Vec<u8> {
    let common = [0x00, 0xff, 0x5a][random.below(3) as usize];
    let mut bytes = vec![common; random.below(300) as usize + 1];
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.below(256) as u8;
    }
    bytes
}

fn random_range(random: &mut Random, bytes: &[u8]) -> RangeInclusive<u64> {
    let begin = random.below(bytes.len() as u64 * 8);
    begin..=begin + random.below(bytes.len() as u64 * 8 - begin)
}

#[test]
fn a_bit_is_what_it_was_set_to() {
    let mut random = Random::new("a_bit_is_what_it_was_set_to");
    for _ in 0..1000 {
        let mut bytes = random_bytes(&mut random);
        let bit = random.below(bytes.len() as u64 * 8);
        let (before, is_on) = (get(&bytes, bit), random.below(2) == 1);
        assert_eq!(set(&mut bytes, bit, is_on), before);
        assert_eq!(get(&bytes, bit), is_on);
        assert!(!get(&bytes, bytes.len() as u64 * 8 + bit));
    }
    assert!(get(&[0x80], 0) && get(&[0x00, 0x01], 15));
}

#[test]
fn counting_and_searching_agree_with_looking_at_each_bit() {
    let mut random = Random::new("counting_and_searching_agree_with_looking_at_each_bit");
    for _ in 0..3000 {
        let bytes = random_bytes(&mut random);
        let range = random_range(&mut random, &bytes);
        let set_bits = || range.clone().filter(|bit| get(&bytes, *bit));
        assert_eq!(count(&bytes, range.clone()), set_bits().count() as u64, "{range:?} of {bytes:x?}");
        assert_eq!(position(&bytes, range.clone(), true), set_bits().next(), "{range:?} of {bytes:x?}");
        let first_clear = range.clone().find(|bit| !get(&bytes, *bit));
        assert_eq!(position(&bytes, range.clone(), false), first_clear, "{range:?} of {bytes:x?}");
    }
}

#[test]
fn strings_of_any_lengths_are_combined_byte_by_byte() {
    let mut random = Random::new("strings_of_any_lengths_are_combined_byte_by_byte");
    for _ in 0..300 {
        let lens = [0, random.below(10), random.below(100), random.below(40_000)];
        let sources: Vec<Vec<u8>> = (0..random.below(4) + 1)
            .map(|_| (0..lens[random.below(4) as usize]).map(|_| random.below(256) as u8).collect())
            .collect();
        let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
        let len = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        let byte = |source: &[u8], at: usize| source.get(at).copied().unwrap_or(0);
        let expected = |combined: fn(u8, u8) -> u8| -> Vec<u8> {
            let column = |at| sources.iter().map(move |source| byte(source, at)).reduce(combined);
            (0..len).map(|at| column(at).expect("there is a source")).collect()
        };
        for (operation, expected) in [
            (Operation::And, expected(|a, b| a & b)),
            (Operation::Or, expected(|a, b| a | b)),
            (Operation::Xor, expected(|a, b| a ^ b)),
            (Operation::Not, (0..len).map(|at| !byte(sources[0], at)).collect()),
        ] {
            let (mut result, mut by_portable) = (vec![0x77; len], vec![0x88; len]);
            combine(operation, &sources, &mut result);
            portable::combine(operation, &sources, &mut by_portable);
            assert_eq!(result, expected, "{operation:?}");
            assert_eq!(by_portable, expected, "{operation:?}");
        }
    }
}

#[test]
fn counting_with_vectors_gives_what_the_portable_loop_gives() {
    let mut random = Random::new("counting_with_vectors_gives_what_the_portable_loop_gives");
    for len in (0..200).chain([4096, 100_003]) {
        let bytes: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
        let expected = portable::count_all(&bytes);
        assert_eq!(count_all(&bytes), expected);
        assert_eq!(count_without_avx512(&bytes), expected);
    }
}
