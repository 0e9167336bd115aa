//! Numbers as Redis reads them, and the `long double` that it writes some with.

/// The integer that these bytes stand for, if they are what Redis itself would write for it: decimal digits without leading
/// zeros, spaces or a plus sign.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits are less than 2^64.
        value = value * 10 + u64::from(digit);
    }
    if is_negative { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// A number as the x87 `long double` of the same value: sign and exponent of 16 bits over a significand of 64, whose highest
/// bit is the one before the point.
#[cfg(target_arch = "x86_64")]
pub(crate) fn to_x87(value: f64) -> [u8; 10] {
    const BIAS_DIFFERENCE: u64 = 16383 - 1023;
    let bits = value.to_bits();
    let (sign, exponent, fraction) = (bits >> 63, bits >> 52 & 0x7ff, bits << 12);
    let (exponent, significand) = match (exponent, fraction) {
        (0, 0) => (0, 0),
        // A subnormal number of 64 bits is a normal one of 80.
        (0, fraction) => {
            let shift = u64::from(fraction.leading_zeros());
            (BIAS_DIFFERENCE - shift, fraction << shift)
        }
        (0x7ff, fraction) => (0x7fff, 1 << 63 | fraction >> 1),
        (exponent, fraction) => (exponent + BIAS_DIFFERENCE, 1 << 63 | fraction >> 1),
    };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&significand.to_le_bytes());
    bytes[8..].copy_from_slice(&((sign << 15 | exponent) as u16).to_le_bytes());
    bytes
}

/// The double nearest to an x87 `long double` that came from one; others are not rounded well.
#[cfg(all(target_arch = "x86_64", any(test, feature = "fake")))]
pub(crate) fn from_x87(bytes: [u8; 10]) -> f64 {
    let significand = u64::from_le_bytes(std::array::from_fn(|at| bytes[at]));
    let sign_and_exponent = u16::from_le_bytes([bytes[8], bytes[9]]);
    let sign = if sign_and_exponent >> 15 == 0 { 1.0 } else { -1.0 };
    match sign_and_exponent & 0x7fff {
        0x7fff if significand << 1 == 0 => sign * f64::INFINITY,
        0x7fff => f64::NAN,
        // In two steps, for a power of two that takes a subnormal number to its place is none itself.
        exponent => {
            let power = i32::from(exponent) - 16383 - 63;
            sign * significand as f64 * 2_f64.powi(power / 2) * 2_f64.powi(power - power / 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_what_redis_would_write() {
        for value in [0, 7, -7, 1234567890, i64::MAX, i64::MIN, -1, 10] {
            assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }
        let wrong = [
            "",
            "-",
            "-0",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "x",
        ];
        for text in wrong {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_integer("9".repeat(20).as_bytes()), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_long_double_has_the_value_of_the_double() {
        let text =
            |value: f64| to_x87(value).iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
        // As gcc writes them.
        assert_eq!(text(0.0), "00000000000000000000");
        assert_eq!(text(-0.0), "80000000000000000000");
        assert_eq!(text(1.0), "3fff8000000000000000");
        assert_eq!(text(-1.5), "bfffc000000000000000");
        assert_eq!(text(0.1), "3ffbccccccccccccd000");
        assert_eq!(text(f64::INFINITY), "7fff8000000000000000");
        assert_eq!(text(f64::MAX), "43fefffffffffffff800");
        assert_eq!(text(f64::MIN_POSITIVE), "3c018000000000000000");
        assert_eq!(text(f64::from_bits(1)), "3bcd8000000000000000");
        for value in [0.0, 1.0, -1.5, 0.1, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(1)]
        {
            assert_eq!(from_x87(to_x87(value)), value);
        }
    }
}
