//! Canonical integers: the strings that Redis stores as integers, and no others.

/// Longest canonical i64, `-9223372036854775808`.
const I64_STRING_LEN_MAX: usize = 20;

/// The number that `text` is, if printing that number gives `text` back byte for byte: no sign but `-`, no
/// leading zeros or spaces, no `-0`, nothing outside i64. Anything else must stay a string, because GET has to
/// answer what SET was given.
#[inline]
pub fn parse_canonical_i64(text: &[u8]) -> Option<i64> {
    let &first = text.first()?;
    // Most values that are not numbers are told apart by length or first byte.
    if text.len() > I64_STRING_LEN_MAX || (!first.is_ascii_digit() && first != b'-') {
        return None;
    }
    parse_digits(text, first)
}

fn parse_digits(text: &[u8], first: u8) -> Option<i64> {
    let negative = first == b'-';
    let digits = &text[usize::from(negative)..];
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    // At most 20 digits are left, and 20 digits can overflow u64: hence the checked last step.
    let (head, last) = digits.split_at(digits.len() - 1);
    let mut magnitude = 0u64;
    for &byte in head {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    let digit = last[0].wrapping_sub(b'0');
    if digit > 9 {
        return None;
    }
    let magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit))?;
    if negative {
        (magnitude <= i64::MIN.unsigned_abs()).then(|| (magnitude as i64).wrapping_neg())
    } else {
        i64::try_from(magnitude).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::parse_canonical_i64;

    #[test]
    fn every_canonical_number_is_recognised() {
        let mut numbers = vec![0, 1, -1, 9, 10, -10, 99, 100, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1];
        for shift in 0..63 {
            numbers.extend([1i64 << shift, -(1i64 << shift), (1i64 << shift) - 1]);
        }
        for power in 0..19 {
            let ten = 10i64.pow(power);
            numbers.extend([ten, ten - 1, ten + 1, -ten]);
        }
        for number in numbers {
            assert_eq!(parse_canonical_i64(number.to_string().as_bytes()), Some(number));
        }
    }

    #[test]
    fn what_would_not_print_back_the_same_is_no_number() {
        for text in [
            "",
            "-",
            "--1",
            "+1",
            " 1",
            "1 ",
            "01",
            "-01",
            "-0",
            "00",
            "1a",
            "a1",
            "1.0",
            "1e3",
            "0x10",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999",
            "-99999999999999999999",
            "184467440737095516160",
            "1-",
            "1\0",
        ] {
            assert_eq!(parse_canonical_i64(text.as_bytes()), None, "{text:?}");
        }
    }
}
