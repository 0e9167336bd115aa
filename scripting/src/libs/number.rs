//! Numbers as text: what C's `printf("%.14g")` writes, and what its `strtod` reads.

use std::fmt::Write;

use std::ffi::{c_char, c_double};

/// More than `%.14g` ever writes: a sign, 14 digits, a point, up to 4 zeros after it, an exponent.
pub const NUMBER_LEN_MAX: usize = 32;

/// The most digits that are asked for.
const PRECISION_MAX: usize = 14;

const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Text of bounded length that is written from its beginning.
struct Text<'t> {
    bytes: &'t mut [u8; NUMBER_LEN_MAX],
    len: usize,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push_zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Writes `value` as `printf("%.PRECISIONg")` does in the C locale, with 1 to 14 digits. Returns the length.
pub(crate) fn format_g(value: f64, precision: usize, bytes: &mut [u8; NUMBER_LEN_MAX]) -> usize {
    debug_assert!((1..=PRECISION_MAX).contains(&precision));
    let mut text = Text { bytes, len: 0 };
    if value.is_sign_negative() {
        text.push(b"-");
    }
    let magnitude = value.abs();
    if !magnitude.is_finite() {
        text.push(if magnitude.is_nan() { b"nan" } else { b"inf" });
    } else if magnitude < POWERS_OF_TEN[precision] && magnitude.trunc() == magnitude {
        push_digits(&mut text, magnitude as u64);
    } else if let Some((digits, decimals)) = as_short_decimal(magnitude, precision) {
        push_decimal(&mut text, digits, decimals);
    } else {
        push_rounded(&mut text, magnitude, precision);
    }
    text.len
}

/// `magnitude` as `digits / 10^decimals`, if few decimals give just this number and `precision` digits are enough for it.
///
/// Then these digits are what rounding to `precision` digits gives: the number is the closest of its kind to them, so it
/// lies nearer to them than half the distance of two numbers, and further from all other decimals of such length.
fn as_short_decimal(magnitude: f64, precision: usize) -> Option<(u64, usize)> {
    const DECIMALS_MAX: usize = 6;
    if magnitude < 1e-3 || magnitude >= POWERS_OF_TEN[precision] {
        return None;
    }
    for decimals in 1..=DECIMALS_MAX {
        let digits = (magnitude * POWERS_OF_TEN[decimals]).round();
        if digits >= POWERS_OF_TEN[precision] {
            return None;
        }
        // Both are exact, so the quotient is the number that is closest to the decimal.
        if digits / POWERS_OF_TEN[decimals] == magnitude {
            return Some((digits as u64, decimals));
        }
    }
    None
}

fn push_decimal(text: &mut Text<'_>, digits: u64, decimals: usize) {
    let scale = 10_u64.pow(decimals as u32);
    push_digits(text, digits / scale);
    text.push(b".");
    let mut fraction = digits % scale;
    for at in (0..decimals).rev() {
        text.bytes[text.len + at] = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    text.len += decimals;
}

fn push_digits(text: &mut Text<'_>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    text.push(&digits[start..]);
}

/// The general case: rounds exactly, by way of `d.ddde-x`.
fn push_rounded(text: &mut Text<'_>, magnitude: f64, precision: usize) {
    let mut bytes = [0; NUMBER_LEN_MAX];
    let mut scientific = Text { bytes: &mut bytes, len: 0 };
    // Cannot fail: the longest is 1 + 1 + 13 + 5 bytes.
    let _ = write!(scientific, "{:.*e}", precision - 1, magnitude);
    let len = scientific.len;
    let e = bytes[..len].iter().position(|byte| *byte == b'e').unwrap_or(len);
    let exponent = parse_exponent(bytes.get(e + 1..len).unwrap_or_default());

    let mut digits = [0; PRECISION_MAX];
    let mut count = 0;
    for byte in bytes[..e].iter().filter(|byte| byte.is_ascii_digit()) {
        digits[count] = *byte;
        count += 1;
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    place_point(text, &digits[..count], exponent, precision);
}

/// Writes `d.ddd * 10^exponent` in the form that `%g` chooses.
fn place_point(text: &mut Text<'_>, digits: &[u8], exponent: i32, precision: usize) {
    if exponent < -4 || exponent >= precision as i32 {
        text.push(&digits[..1]);
        if digits.len() > 1 {
            text.push(b".");
            text.push(&digits[1..]);
        }
        text.push(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            text.push(b"0");
        }
        push_digits(text, u64::from(exponent.unsigned_abs()));
    } else if exponent < 0 {
        text.push(b"0.");
        text.push_zeros(exponent.unsigned_abs() as usize - 1);
        text.push(digits);
    } else {
        let whole = exponent as usize + 1;
        text.push(&digits[..whole.min(digits.len())]);
        if digits.len() > whole {
            text.push(b".");
            text.push(&digits[whole..]);
        } else {
            text.push_zeros(whole - digits.len());
        }
    }
}

fn parse_exponent(text: &[u8]) -> i32 {
    let (is_negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    let value = digits.iter().fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
    if is_negative { -value } else { value }
}

/// Reads the longest number that `text` begins with, as C's `strtod`: with `inf`, `nan`, hexadecimal. Returns it with its
/// length, which is 0 if there is none. The last byte of `text` is a zero; no white space is at its beginning.
pub fn parse(text: &[u8]) -> (f64, usize) {
    let sign_len = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let whole = count_digits(&text[sign_len..]);
    if whole == 1 && text[sign_len] == b'0' && matches!(text.get(sign_len + 1), Some(b'x' | b'X')) {
        return parse_as_c(text);
    }
    let mut len = sign_len + whole;
    let mut decimals = 0;
    if text.get(len) == Some(&b'.') {
        decimals = count_digits(&text[len + 1..]);
        if whole + decimals > 0 {
            len += 1 + decimals;
        }
    }
    if whole + decimals == 0 {
        return parse_as_c(text);
    }
    let mantissa_len = len;
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'-' | b'+')));
        let digits = count_digits(text.get(len + 1 + sign..).unwrap_or_default());
        if digits > 0 {
            len += 1 + sign + digits;
        }
    }

    let value = if len == mantissa_len { parse_short(&text[sign_len..len], decimals) } else { None };
    if let Some(value) = value {
        return (if text[0] == b'-' { -value } else { value }, len);
    }
    let parsed = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.parse().ok());
    parsed.map_or_else(|| parse_as_c(text), |value| (value, len))
}

/// Digits with at most one point among them, `decimals` after it, if there are so few that a division gives the value.
fn parse_short(text: &[u8], decimals: usize) -> Option<f64> {
    const DIGITS_MAX: usize = 15;
    if text.len() > DIGITS_MAX + 1 {
        return None;
    }
    let mut value = 0_u64;
    for byte in text {
        if *byte != b'.' {
            value = value * 10 + u64::from(byte - b'0');
        }
    }
    // Exact if below 2^53; then one division rounds once.
    (value < 1 << 53).then(|| value as f64 / POWERS_OF_TEN[decimals])
}

fn count_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// What is rare: `inf`, `nan(...)`, hexadecimal.
fn parse_as_c(text: &[u8]) -> (f64, usize) {
    unsafe extern "C" {
        fn strtod(text: *const c_char, end: *mut *const c_char) -> c_double;
    }
    if text.last() != Some(&0) {
        return (0.0, 0);
    }
    let start: *const c_char = text.as_ptr().cast();
    let mut end = start;
    // SAFETY: the text ends with a zero, and `strtod` stops there at the latest; `end` is within the text.
    unsafe {
        let value = strtod(start, &raw mut end);
        (value, end.offset_from(start) as usize)
    }
}

#[cfg(test)]
mod tests;
