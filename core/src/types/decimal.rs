//! Strict decimal integers: strings that are kept as the number, because printing it gives the same bytes again.

/// So many digits are less than `u64::MAX`, whatever they are.
const DIGITS_WITHOUT_OVERFLOW: usize = 19;

/// A strict decimal integer: no blanks, no `+`, no leading zeros, no `-0`. Printing it gives `text` back byte for byte,
/// so a string that is one may be kept as the number.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= DIGITS_WITHOUT_OVERFLOW => {}
        _ => return None,
    }
    let mut magnitude = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}
