//! The C `long double` of x86-64, as far as INCRBYFLOAT and HINCRBYFLOAT show it: `strtold`, one addition, and
//! `%.17Lf` without its trailing zeros.
//!
//! Redis reckons these commands in the x87 extended format (64 bits of mantissa), and users see the difference: in
//! doubles 3 + 0.1 prints seventeen digits of noise, in extended it prints `3.1`, because the 17th decimal place lies
//! beyond the error. The arithmetic is `rustc_apfloat`'s; what a number looks like, to read and to print, is Redis'.
use std::cmp::Ordering;
use std::fmt::Write;

use rustc_apfloat::ieee::{Double, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert, Round, Status};

/// A text as long as this or longer is no number to Redis, whatever it says.
const TEXT_LEN_MAX: usize = 5 * 1024;
/// Digits behind the decimal point in [`Extended::to_human`].
const HUMAN_DECIMALS: u32 = 17;
/// The longest whole part: 2^16384 has so many digits.
const WHOLE_DIGITS_MAX: usize = 4933;

/// A value of the x87 extended format that is not NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extended(X87DoubleExtended);

impl Extended {
    /// The whole of `text` as `strtold` reads it: decimal or hexadecimal, `inf`, `infinity`, no blank before it. `None` as
    /// for Redis: anything else, `nan`, overflow, underflow to zero, and texts of 5 KiB and more.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_LEN_MAX {
            return None;
        }
        let (is_negative, unsigned) = match text {
            [b'-', unsigned @ ..] => (true, unsigned),
            [b'+', unsigned @ ..] => (false, unsigned),
            unsigned => (false, unsigned),
        };
        let magnitude = if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity")
        {
            X87DoubleExtended::INFINITY
        } else {
            parse_magnitude(unsigned)?
        };
        Some(Self(if is_negative { -magnitude } else { magnitude }))
    }

    /// The nearest double, which may be infinite.
    pub fn to_f64(self) -> f64 {
        let double: Double = self.0.convert(&mut false).value;
        f64::from_bits(double.to_bits() as u64)
    }

    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    /// The rounded sum. `None`: it is infinite or not a number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let sum = (self.0 + other.0).value;
        sum.is_finite().then_some(Self(sum))
    }

    /// `%.17Lf` without trailing zeros, without a trailing point, and without the sign of a zero: what INCRBYFLOAT
    /// stores and replies. Infinities are `inf` and `-inf`.
    pub fn to_human(self) -> String {
        let is_negative = self.0.is_negative();
        if self.0.is_infinite() {
            return if is_negative { "-inf".to_owned() } else { "inf".to_owned() };
        }
        let (mantissa, exp) = self.parts();
        if exp > 0 {
            // A whole number, with all its digits.
            return format!("{:width$.width$}", self.0, width = WHOLE_DIGITS_MAX);
        }

        let (whole, decimals) = split_point(mantissa, exp.unsigned_abs());
        let mut text = String::new();
        if is_negative && (whole != 0 || decimals != 0) {
            text.push('-');
        }
        write!(text, "{whole}").expect("a String takes what is written");
        if decimals != 0 {
            write!(text, ".{decimals:0width$}", width = HUMAN_DECIMALS as usize)
                .expect("a String takes what is written");
            text.truncate(text.trim_end_matches('0').len());
        }
        text
    }

    /// The magnitude of a finite value is `mantissa * 2^exp`.
    fn parts(self) -> (u64, i32) {
        const EXP_BIAS: i32 = 16383;
        const FRACTION_BITS: i32 = 63;
        let bits = self.0.to_bits();
        let biased_exp = (bits >> 64) as i32 & 0x7FFF;
        (bits as u64, biased_exp.max(1) - EXP_BIAS - FRACTION_BITS)
    }
}

/// An unsigned number as C reads it, decimal or hexadecimal. `None`: the text is none, or overflows, or would become zero.
pub fn parse_magnitude<F: Float>(text: &[u8]) -> Option<F> {
    let text = std::str::from_utf8(text).ok()?;
    let is_hex = matches!(text.as_bytes(), [b'0', b'x' | b'X', ..]);
    let has_exp = text.contains(if is_hex { ['p', 'P'] } else { ['e', 'E'] });
    // What the crate takes and C does not: names, and an exponent without digits.
    let starts_well = text.starts_with(|first: char| first == '.' || first.is_ascii_digit());
    if !starts_well || (has_exp && !text.ends_with(|last: char| last.is_ascii_digit())) {
        return None;
    }
    let parsed = if is_hex && !has_exp {
        F::from_str_r(&format!("{text}p0"), Round::NearestTiesToEven)
    } else {
        F::from_str_r(text, Round::NearestTiesToEven)
    };
    let parsed = parsed.ok()?;
    let is_lost = parsed.status.contains(Status::OVERFLOW)
        || (parsed.status.contains(Status::UNDERFLOW) && parsed.value.is_zero());
    (!is_lost).then_some(parsed.value)
}

/// `mantissa / 2^shift` as a whole number and [`HUMAN_DECIMALS`] decimals, rounded half to even.
fn split_point(mantissa: u64, shift: u32) -> (u64, u64) {
    const SCALE: u128 = 10u128.pow(HUMAN_DECIMALS);
    const _: () = assert!(SCALE < 1 << 57, "a mantissa's fraction in decimals has at most 121 bits");
    if shift >= 122 {
        return (0, 0); // Less than half of the last decimal.
    }
    let whole = mantissa.checked_shr(shift).unwrap_or(0);
    let fraction = u128::from(mantissa) & ((1 << shift) - 1);
    let scaled = fraction * SCALE;
    let decimals = scaled >> shift;
    let rest = scaled & ((1 << shift) - 1);
    let round_up = match rest.cmp(&(1u128 << shift >> 1)) {
        _ if shift == 0 => false,
        Ordering::Less => false,
        Ordering::Equal => decimals & 1 == 1,
        Ordering::Greater => true,
    };
    match decimals + u128::from(round_up) {
        SCALE => (whole + 1, 0),
        decimals => (whole, decimals as u64),
    }
}

#[cfg(test)]
mod tests;
