//! The ranges of BITCOUNT and BITPOS: in bytes or bits, from the begin or the end of the string.

use std::ops::RangeInclusive;

/// What start and end count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Byte,
    Bit,
}

/// The bits from `start` to `end`, both included, of a string; negative ones count from its end, -1 being the last. What
/// lies outside of the string is cut off. `None` if nothing is left.
pub fn resolve(start: i64, end: i64, unit: Unit, len_bytes: usize) -> Option<RangeInclusive<u64>> {
    let bits_a_unit = match unit {
        Unit::Byte => 8,
        Unit::Bit => 1,
    };
    let count = (len_bytes as i64).saturating_mul(8) / bits_a_unit;
    let from_begin = |position: i64| if position < 0 { (count + position).max(0) } else { position };
    let (start, end) = (from_begin(start), from_begin(end).min(count - 1));
    let is_empty = start > end;
    (!is_empty).then(|| (start * bits_a_unit) as u64..=(end * bits_a_unit + bits_a_unit - 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_both_ends() {
        assert_eq!(resolve(0, -1, Unit::Byte, 3), Some(0..=23));
        assert_eq!(resolve(1, 1, Unit::Byte, 3), Some(8..=15));
        assert_eq!(resolve(-2, -2, Unit::Byte, 3), Some(8..=15));
        assert_eq!(resolve(5, -5, Unit::Bit, 3), Some(5..=19));
        assert_eq!(resolve(-1, -1, Unit::Bit, 3), Some(23..=23));
    }

    #[test]
    fn what_is_outside_is_cut_off() {
        assert_eq!(resolve(i64::MIN, i64::MAX, Unit::Bit, 3), Some(0..=23));
        assert_eq!(resolve(i64::MIN, i64::MAX, Unit::Byte, 3), Some(0..=23));
        assert_eq!(resolve(3, 9, Unit::Byte, 3), None);
        assert_eq!(resolve(2, 1, Unit::Byte, 3), None);
        assert_eq!(resolve(i64::MIN, i64::MIN, Unit::Byte, 3), Some(0..=7));
        assert_eq!(resolve(0, -1, Unit::Byte, 0), None);
        assert_eq!(resolve(i64::MIN, i64::MIN, Unit::Bit, 0), None);
    }
}
