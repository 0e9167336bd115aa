//! Integers against their bits.

use super::*;
use crate::bits;
use shardis_modules_testing::Random;

fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse(word: &str) -> Option<FieldType> {
    FieldType::parse(word.as_bytes(), decimal)
}

fn random_type(random: &mut Random) -> FieldType {
    let is_signed = random.below(2) == 1;
    FieldType { is_signed, bits: random.below(if is_signed { 64 } else { 63 }) as u32 + 1 }
}

#[test]
fn types_are_read_within_their_limits() {
    assert_eq!(parse("u8"), Some(FieldType { is_signed: false, bits: 8 }));
    assert_eq!(parse("i64"), Some(FieldType { is_signed: true, bits: 64 }));
    for word in ["", "i", "u0", "u64", "i65", "i-1", "8", "I8", "u8x", "u99999999999999999999"] {
        assert_eq!(parse(word), None, "{word}");
    }
}

#[test]
fn an_integer_is_read_bit_by_bit_as_it_was_written() {
    let mut random = Random::new("an_integer_is_read_bit_by_bit_as_it_was_written");
    for _ in 0..5000 {
        let field = random_type(&mut random);
        let mut bytes: Vec<u8> = (0..20).map(|_| random.below(256) as u8).collect();
        let before = bytes.clone();
        let offset = random.below(20 * 8 - field.bits() + 1);
        let value = field.truncated(i128::from(random.bits() as i64));
        field.set(&mut bytes, offset, value);

        assert_eq!(field.get(&bytes, offset), value, "{field:?} at {offset}");
        let mut by_bits = if field.is_signed && bits::get(&bytes, offset) { -1 } else { 0 };
        for bit in offset..offset + field.bits() {
            by_bits = by_bits << 1 | i64::from(bits::get(&bytes, bit));
        }
        assert_eq!(by_bits, value, "{field:?} at {offset}");
        let others = (0..20 * 8).filter(|bit| !(offset..offset + field.bits()).contains(bit));
        for bit in others {
            assert_eq!(bits::get(&bytes, bit), bits::get(&before, bit), "{field:?} at {offset}: bit {bit}");
        }
    }
}

#[test]
fn what_is_past_the_end_reads_as_zeros() {
    let byte = parse("u8").expect("a type");
    assert_eq!(byte.get(&[0xff], 4), 0xf0);
    assert_eq!(byte.get(&[0xff], 8), 0);
    assert_eq!(byte.get(&[], u64::MAX), 0);
}

#[test]
fn overflow_wraps_saturates_or_fails() {
    let all = |word: &str, value: i64, by: i64| {
        let field = parse(word).expect("a type");
        [Overflow::Wrap, Overflow::Saturate, Overflow::Fail].map(|overflow| field.add(value, by, overflow))
    };
    assert_eq!(all("u8", 250, 10), [Some(4), Some(255), None]);
    assert_eq!(all("u8", 5, -10), [Some(251), Some(0), None]);
    assert_eq!(all("i8", 120, 10), [Some(-126), Some(127), None]);
    assert_eq!(all("i8", -120, -10), [Some(126), Some(-128), None]);
    assert_eq!(all("i64", i64::MAX, i64::MAX), [Some(-2), Some(i64::MAX), None]);
    assert_eq!(all("i64", i64::MIN, i64::MIN), [Some(0), Some(i64::MIN), None]);
    assert_eq!(all("u63", i64::MAX, 1), [Some(0), Some(i64::MAX), None]);
    assert_eq!(all("u63", 0, i64::MIN), [Some(0), Some(0), None]);
    assert_eq!(all("i8", 100, 27), [Some(127); 3]);
}

#[test]
fn a_negative_value_lies_above_an_unsigned_type() {
    let assign = |word: &str, overflow| parse(word).expect("a type").assign(-1, overflow);
    assert_eq!(assign("u8", Overflow::Saturate), Some(255));
    assert_eq!(assign("u8", Overflow::Wrap), Some(255));
    assert_eq!(assign("u8", Overflow::Fail), None);
    assert_eq!(assign("i8", Overflow::Fail), Some(-1));
}
