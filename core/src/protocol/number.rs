//! Numbers as Redis reads and prints them.
//!
//! Integers are strict: a text is one only if printing the number gives the same text again. Doubles are what `strtod`
//! takes and `%.17g` prints. For `long double` see [`extended`](super::extended).
use super::extended::parse_magnitude;
pub use crate::types::decimal::parse_i64;
pub use crate::types::double::F64Text;
use crate::types::double::parse_short_f64;
use rustc_apfloat::Float;
use rustc_apfloat::ieee::Double;

/// A double as C's `strtod` reads it, the whole text, no blank before it: decimal or hexadecimal, `inf`, `infinity`.
/// Not one: `nan`, a number too big for a double, and one so small that it would become zero.
#[inline]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    parse_short_f64(text).or_else(|| parse_long_f64(text))
}

fn parse_long_f64(text: &[u8]) -> Option<f64> {
    let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    match unsigned {
        [b'0', b'x' | b'X', ..] => {
            let magnitude: Double = parse_magnitude(unsigned)?;
            let magnitude = f64::from_bits(magnitude.to_bits() as u64);
            Some(if text[0] == b'-' { -magnitude } else { magnitude })
        }
        [b'0'..=b'9' | b'.', ..] => {
            let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
            // Digits give an infinity by overflow alone, and a zero by underflow unless they all are zero.
            let mantissa = unsigned.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
            let underflow = value == 0.0 && mantissa.iter().any(|byte| matches!(byte, b'1'..=b'9'));
            (value.is_finite() && !underflow).then_some(value)
        }
        _ if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") => {
            Some(if text[0] == b'-' { f64::NEG_INFINITY } else { f64::INFINITY })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
