//! The text of doubles.

use super::decimal::parse_i64;
use std::io::Write;

/// The double of a short text of digits, with or without a point and a sign, as most scores are written. `None`: another
/// text, which may be a double all the same.
///
/// Both the digits as an integer and the power of ten that they are divided by are exact, so that the quotient is the double
/// that is nearest to the text.
#[inline]
pub fn parse_short_f64(text: &[u8]) -> Option<f64> {
    /// Integers of so many digits are exact.
    const DIGITS_MAX: usize = 15;
    const POWERS: [f64; DIGITS_MAX + 1] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (is_negative, unsigned) = match text {
        [b'-', unsigned @ ..] => (true, unsigned),
        unsigned => (false, unsigned),
    };
    if unsigned.len() > DIGITS_MAX {
        return None;
    }
    let (mut number, mut point_at) = (0u64, None);
    for (at, &byte) in unsigned.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
            b'.' if point_at.is_none() => point_at = Some(at),
            _ => return None,
        }
    }
    let decimals = point_at.map_or(0, |at| unsigned.len() - 1 - at);
    if unsigned.len() == usize::from(point_at.is_some()) {
        return None;
    }
    let magnitude = number as f64 / POWERS[decimals];
    Some(if is_negative { -magnitude } else { magnitude })
}

/// The text of a double as `%.17g` gives it, which is how Redis shows scores and RESP3 doubles. Infinities are `inf` and
/// `-inf`; NaN is `nan` whatever its sign.
#[derive(Clone)]
pub struct F64Text {
    bytes: [u8; F64_TEXT_LEN_MAX],
    len: usize,
}

/// Longest text of a double: `-1.7976931348623157e+308` has 24 bytes.
const F64_TEXT_LEN_MAX: usize = 24;
/// Significant digits of `%.17g`.
const F64_DIGITS: usize = 17;

impl F64Text {
    pub fn new(value: f64) -> Self {
        let mut text = Self { bytes: [0; F64_TEXT_LEN_MAX], len: 0 };
        if value.is_nan() {
            text.push(b"nan");
        } else if value.is_infinite() {
            text.push(if value > 0.0 { b"inf" } else { b"-inf" });
        } else if value == 0.0 {
            text.push(if value.is_sign_negative() { b"-0" } else { b"0" });
        } else if !text.push_short(value) {
            text.push_general(value);
        }
        text
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a number's text is ASCII")
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// A number with few binary places has as many decimal ones, and is shown whole if its digits are few: integers and
    /// halves, quarters, eighths of them, which most scores are. False, and nothing done, for any other number.
    fn push_short(&mut self, value: f64) -> bool {
        /// An integer part below this and so many decimals stay within [`F64_DIGITS`] digits.
        const SCALED_WHOLE_MAX: f64 = 1e9;
        const DECIMALS_MAX: u32 = 8;
        /// Integers below this have no more than [`F64_DIGITS`] digits themselves.
        const WHOLE_MAX: f64 = 1e17;
        let magnitude = value.abs();
        if magnitude >= WHOLE_MAX {
            return false;
        }
        // By integers, because rounding is a call into the C library where the processor is any x86-64.
        let whole = magnitude as i64;
        let rest = magnitude - whole as f64;
        if rest != 0.0 && (magnitude >= SCALED_WHOLE_MAX || magnitude < 1.0) {
            return false;
        }
        // The fraction in 256ths is exact, and whole if it has no more than eight binary places.
        let scaled = rest * f64::from(1 << DECIMALS_MAX);
        let fraction = scaled as i64;
        if fraction as f64 != scaled {
            return false;
        }

        if value < 0.0 {
            self.push(b"-");
        }
        self.push(itoa::Buffer::new().format(whole).as_bytes());
        if fraction != 0 {
            // n / 2^8 = n * 5^8 / 10^8.
            let mut decimals = fraction * 5i64.pow(DECIMALS_MAX);
            let mut digits = [b'0'; DECIMALS_MAX as usize];
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (decimals % 10) as u8;
                decimals /= 10;
            }
            let significant = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
            self.push(b".");
            self.push(&digits[..significant]);
        }
        true
    }

    /// C's `%g`: the digits, without trailing zeros, around the point where the exponent is small, else behind a first
    /// digit with the exponent in at least two digits.
    fn push_general(&mut self, value: f64) {
        // `D.DDDDDDDDDDDDDDDDeEXP`: Rust's exact digits are the C library's, both round half to even.
        let mut scientific = [0u8; 32];
        let mut unused = &mut scientific[..];
        write!(unused, "{:.*e}", F64_DIGITS - 1, value.abs())
            .expect("32 bytes hold 17 digits and an exponent");
        let len = 32 - unused.len();
        let exponent_at = F64_DIGITS + 2;
        let exponent = parse_i64(&scientific[exponent_at..len]).expect("an exponent is an integer") as i32;
        let mut digits = [0u8; F64_DIGITS];
        digits[0] = scientific[0];
        digits[1..].copy_from_slice(&scientific[2..exponent_at - 1]);
        let significant = digits.iter().rposition(|&digit| digit != b'0').map_or(1, |last| last + 1);
        let digits = &digits[..significant];

        if value < 0.0 {
            self.push(b"-");
        }
        if exponent < -4 || exponent >= F64_DIGITS as i32 {
            self.push(&digits[..1]);
            if significant > 1 {
                self.push(b".");
                self.push(&digits[1..]);
            }
            self.push(if exponent < 0 { b"e-" } else { b"e+" });
            if exponent.abs() < 10 {
                self.push(b"0");
            }
            self.push(itoa::Buffer::new().format(exponent.abs()).as_bytes());
        } else if exponent < 0 {
            self.push(&b"0.000"[..1 + exponent.unsigned_abs() as usize]);
            self.push(digits);
        } else {
            let whole = exponent as usize + 1;
            self.push(&digits[..whole.min(significant)]);
            for _ in significant..whole {
                self.push(b"0");
            }
            if significant > whole {
                self.push(b".");
                self.push(&digits[whole..]);
            }
        }
    }
}
