//! Numbers as text: a fixed count of decimals, as C's `%.4f` and `%.17f` give them.
//!
//! The digits are those of the double's exact value, rounded half to even.

use std::io::Write;

/// Decimals of distances.
const DISTANCE_DECIMALS: u32 = 4;
/// Decimals of coordinates, before zeros at the end are taken off.
const COORDINATE_DECIMALS: u32 = 17;
/// Decimals of C's `%f`.
const PLAIN_DECIMALS: u32 = 6;

/// A distance: four decimals.
pub fn push_distance(text: &mut Vec<u8>, distance: f64) {
    push_fixed(text, distance, DISTANCE_DECIMALS);
}

/// A coordinate: seventeen decimals without the zeros at their end. Never `-0`.
pub fn push_coordinate(text: &mut Vec<u8>, degrees: f64) {
    let start = text.len();
    push_fixed(text, degrees, COORDINATE_DECIMALS);
    let zeros = text[start..].iter().rev().take_while(|&&digit| digit == b'0').count();
    text.truncate(text.len() - zeros);
    if text.last() == Some(&b'.') {
        text.pop();
    }
    if text[start..] == *b"-0" {
        text.remove(start);
    }
}

/// A number as C's `%f` gives it, also infinite.
pub fn push_plain(text: &mut Vec<u8>, value: f64) {
    push_fixed(text, value, PLAIN_DECIMALS);
}

fn push_fixed(text: &mut Vec<u8>, value: f64, decimals: u32) {
    const FRACTION_BITS: u32 = 52;
    const EXPONENT_BIAS: i32 = 1023;
    /// With so many binary places, the value is too small for any of the decimals.
    const PLACES_MAX: u32 = 127;

    let bits = value.to_bits();
    let exponent = (bits >> FRACTION_BITS & 0x7ff) as i32;
    // The value is mantissa / 2^places. What is not normal (zero, too) comes without the leading bit.
    let mantissa = bits & ((1 << FRACTION_BITS) - 1) | u64::from(exponent != 0) << FRACTION_BITS;
    let places = EXPONENT_BIAS + FRACTION_BITS as i32 - exponent.max(1);
    if places < 0 {
        // Integers of more than 53 bits, and what is not finite: rare, so they need not be fast.
        write!(text, "{value:.*}", decimals as usize).expect("a Vec takes what is written");
        return;
    }
    let places = (places as u32).min(PLACES_MAX);

    if value.is_sign_negative() {
        text.push(b'-');
    }
    // Less than 2^53 * 10^17, so it fits.
    let scale = 10u128.pow(decimals);
    let whole = u128::from(mantissa) >> places;
    let scaled = (u128::from(mantissa) - (whole << places)) * scale;
    let rest = scaled & ((1 << places) - 1);
    let half = (1u128 << places) >> 1;
    let mut digits = scaled >> places;
    if rest > half || (rest == half && half > 0 && digits & 1 == 1) {
        digits += 1;
    }
    let (mut whole, mut digits) = (whole as u64, digits as u64);
    if u128::from(digits) == scale {
        whole += 1;
        digits = 0;
    }

    // The digits from the last one to the first.
    let mut buffer = [b'0'; 40];
    let mut at = buffer.len();
    for _ in 0..decimals {
        at -= 1;
        buffer[at] = b'0' + (digits % 10) as u8;
        digits /= 10;
    }
    at -= 1;
    buffer[at] = b'.';
    loop {
        at -= 1;
        buffer[at] = b'0' + (whole % 10) as u8;
        whole /= 10;
        if whole == 0 {
            break;
        }
    }
    text.extend_from_slice(&buffer[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardis_modules_testing::Random;

    fn text(push: fn(&mut Vec<u8>, f64), value: f64) -> String {
        let mut text = Vec::new();
        push(&mut text, value);
        String::from_utf8(text).expect("digits are ASCII")
    }

    #[test]
    fn coordinates_are_written_as_redis_writes_them() {
        assert_eq!(text(push_coordinate, 13.361389338970184), "13.36138933897018433");
        assert_eq!(text(push_coordinate, -0.0), "0");
        assert_eq!(text(push_coordinate, -1e-40), "0");
        assert_eq!(text(push_coordinate, 180.0), "180");
        assert_eq!(text(push_coordinate, -85.05112878), "-85.0511287799999991");
        assert_eq!(text(push_coordinate, 100.5), "100.5");
    }

    #[test]
    fn decimals_are_rounded_half_to_even() {
        assert_eq!(text(push_distance, 0.00005), "0.0001");
        assert_eq!(text(push_distance, 0.03125), "0.0312");
        assert_eq!(text(push_distance, 0.09375), "0.0938");
        assert_eq!(text(push_distance, 9.99996), "10.0000");
        assert_eq!(text(push_distance, 166274.15156960033), "166274.1516");
    }

    #[test]
    fn plain_numbers_may_be_huge_or_infinite() {
        assert_eq!(text(push_plain, 200.0), "200.000000");
        assert_eq!(text(push_plain, 1e22), "10000000000000000000000.000000");
        assert_eq!(text(push_plain, f64::INFINITY), "inf");
        assert_eq!(text(push_plain, f64::NEG_INFINITY), "-inf");
    }

    #[test]
    fn digits_are_those_of_the_exact_value() {
        let mut random = Random::new("digits_are_those_of_the_exact_value");
        for _ in 0..5_000 {
            let value = match random.below(3) {
                0 => f64::from_bits(random.bits()),
                1 => (random.unit() - 0.5) * 1e8,
                _ => (random.bits() as i64 >> random.below(60)) as f64 / f64::from(1u32 << random.below(31)),
            };
            if value.is_nan() {
                continue;
            }
            for decimals in [DISTANCE_DECIMALS, PLAIN_DECIMALS, COORDINATE_DECIMALS] {
                let mut ours = Vec::new();
                push_fixed(&mut ours, value, decimals);
                assert_eq!(String::from_utf8_lossy(&ours), format!("{value:.*}", decimals as usize));
            }
        }
    }
}
