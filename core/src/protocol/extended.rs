//! The C `long double` of x86-64, as far as INCRBYFLOAT, HINCRBYFLOAT and GEOPOS show it: `strtold`, one addition, and
//! `%.17Lf` without its trailing zeros.
//!
//! Redis reckons these commands in the x87 extended format (64 bits of mantissa), and users see the difference: in
//! doubles 3 + 0.1 prints seventeen digits of noise, in extended it prints `3.1`, because the 17th decimal place lies
//! beyond the error. So the format itself is computed here, in integers: a finite value is `mantissa * 2^exp` with a
//! 64-bit mantissa, every operation is exact in wider integers and rounded once, half to even, as the hardware and the C
//! library do it. Everyday numbers stay within 128 bits; numbers of hundreds of digits take `Natural`.
use std::cmp::Ordering;
use std::fmt::Write;

/// A text as long as this or longer is no number to Redis, whatever it says.
const TEXT_LEN_MAX: usize = 5 * 1024;
/// Digits behind the decimal point in [`Extended::to_human`].
const HUMAN_DECIMALS: u32 = 17;
/// An exponent beyond this, up or down, is beyond every format; it is held there so that no sum of exponents overflows.
const EXP_BEYOND_ALL: i64 = 1 << 24;

/// A binary floating point format with an integer mantissa below `2^precision`, times `2^exp`.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    precision: i32,
    exp_min: i32,
    exp_max: i32,
}

impl Format {
    pub const EXTENDED: Format = Format { precision: 64, exp_min: -16445, exp_max: 16320 };
    pub const DOUBLE: Format = Format { precision: 53, exp_min: -1074, exp_max: 971 };
}

/// A magnitude before rounding: `mantissa * 2^exp`, and if `sticky` a little more (less than one in the last place). A
/// sticky mantissa has at least two bits more than the format it is rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrounded {
    mantissa: u128,
    exp: i64,
    sticky: bool,
}

impl Unrounded {
    const ZERO: Unrounded = Unrounded { mantissa: 0, exp: 0, sticky: false };
    /// Overflows in every format.
    const HUGE: Unrounded = Unrounded { mantissa: 1, exp: EXP_BEYOND_ALL, sticky: false };
    /// Rounds to zero in every format.
    const TINY: Unrounded = Unrounded { mantissa: 1, exp: -EXP_BEYOND_ALL, sticky: false };

    /// Half to even. `None`: too big for the format. The top bit of the mantissa is set unless the exponent is the
    /// format's least.
    fn round(self, format: Format) -> Option<(u64, i32)> {
        let Unrounded { mut mantissa, mut exp, mut sticky } = self;
        if mantissa == 0 {
            return Some((0, format.exp_min));
        }
        // Two bits of room, so that half of the last place is a u128 too, however many bits are dropped.
        if mantissa.leading_zeros() < 2 {
            sticky |= mantissa & 3 != 0;
            mantissa >>= 2;
            exp += 2;
        }

        let bits = 128 - i64::from(mantissa.leading_zeros());
        let precision = i64::from(format.precision);
        let dropped = (bits - precision).max(i64::from(format.exp_min) - exp);
        if dropped <= 0 {
            debug_assert!(!sticky, "a sticky mantissa has bits to drop");
            mantissa <<= -dropped;
        } else if dropped > 126 {
            return Some((0, format.exp_min));
        } else {
            let rest = mantissa & ((1 << dropped) - 1);
            let half = 1u128 << (dropped - 1);
            mantissa >>= dropped;
            if rest > half || (rest == half && (sticky || mantissa & 1 == 1)) {
                mantissa += 1;
            }
        }
        exp += dropped;
        if mantissa >> precision != 0 {
            mantissa >>= 1;
            exp += 1;
        }
        (exp <= i64::from(format.exp_max)).then_some((mantissa as u64, exp as i32))
    }

    /// The nearest double. `None`: it overflows, or is not zero and would become it.
    pub fn to_f64(self) -> Option<f64> {
        const STORED_BITS: i32 = Format::DOUBLE.precision - 1;
        let (mantissa, exp) = self.round(Format::DOUBLE)?;
        if mantissa == 0 && self.mantissa != 0 {
            return None;
        }
        let stored = mantissa & ((1 << STORED_BITS) - 1);
        let biased = if mantissa >> STORED_BITS == 0 { 0 } else { exp - Format::DOUBLE.exp_min + 1 };
        Some(f64::from_bits((biased as u64) << STORED_BITS | stored))
    }
}

/// A value of the x87 extended format that is not NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// `mantissa * 2^exp`; the mantissa's top bit is set unless `exp` is the format's least.
    Finite {
        negative: bool,
        mantissa: u64,
        exp: i32,
    },
    Infinite {
        negative: bool,
    },
}

impl Extended {
    /// The whole of `text` as `strtold` reads it: decimal or hexadecimal, `inf`, `infinity`, no blank before it. `None` as
    /// for Redis: anything else, `nan`, overflow, underflow to zero, and texts of 5 KiB and more.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_LEN_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', unsigned @ ..] => (true, unsigned),
            [b'+', unsigned @ ..] => (false, unsigned),
            unsigned => (false, unsigned),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite { negative });
        }
        let unrounded = match unsigned {
            [b'0', b'x' | b'X', digits @ ..] => parse_hex(digits)?,
            digits => parse_decimal(digits)?,
        };
        let (mantissa, exp) = unrounded.round(Format::EXTENDED)?;
        (mantissa != 0 || unrounded.mantissa == 0).then_some(Self::Finite { negative, mantissa, exp })
    }

    /// Exact. Panics on NaN.
    pub fn from_f64(value: f64) -> Self {
        assert!(!value.is_nan(), "NaN has no extended value");
        let negative = value.is_sign_negative();
        if value.is_infinite() {
            return Self::Infinite { negative };
        }
        let bits = value.abs().to_bits();
        let stored = bits & ((1 << 52) - 1);
        let (mantissa, exp) = match (bits >> 52) as i64 {
            0 => (stored, i64::from(Format::DOUBLE.exp_min)),
            biased => (stored | 1 << 52, biased - 1 + i64::from(Format::DOUBLE.exp_min)),
        };
        let unrounded = Unrounded { mantissa: mantissa.into(), exp, sticky: false };
        let (mantissa, exp) = unrounded.round(Format::EXTENDED).expect("every double is an extended value");
        Self::Finite { negative, mantissa, exp }
    }

    pub fn is_finite(self) -> bool {
        matches!(self, Self::Finite { .. })
    }

    /// The rounded sum. `None`: it is infinite or not a number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (
            Self::Finite { negative: n1, mantissa: m1, exp: e1 },
            Self::Finite { negative: n2, mantissa: m2, exp: e2 },
        ) = (self, other)
        else {
            return None;
        };
        if (e1, m1) < (e2, m2) {
            return other.checked_add(self);
        }

        // The bigger one at the top with a bit to carry into, the smaller one as far below it as it belongs.
        const ROOM: u32 = 63;
        let big = u128::from(m1) << ROOM;
        let small = u128::from(m2) << ROOM;
        let apart = e1.abs_diff(e2).min(127);
        // What falls off the end leaves its trace in the last bit. That rounds right also when subtracting: numbers so
        // far apart lose at most one leading bit to each other.
        let jam = u128::from(small & ((1 << apart) - 1) != 0);
        let small = small >> apart | jam;

        let mantissa = if n1 == n2 { big + small } else { big - small };
        let unrounded = Unrounded { mantissa, exp: i64::from(e1) - i64::from(ROOM), sticky: false };
        let (mantissa, exp) = unrounded.round(Format::EXTENDED)?;
        let negative = if mantissa == 0 { n1 && n2 } else { n1 };
        Some(Self::Finite { negative, mantissa, exp })
    }

    /// `%.17Lf` without trailing zeros, without a trailing point, and without the sign of a zero: what INCRBYFLOAT
    /// stores and replies. Infinities are `inf` and `-inf`.
    pub fn to_human(self) -> String {
        let (negative, mantissa, exp) = match self {
            Self::Infinite { negative: false } => return "inf".to_owned(),
            Self::Infinite { negative: true } => return "-inf".to_owned(),
            Self::Finite { negative, mantissa, exp } => (negative, mantissa, exp),
        };
        let (whole, decimals) = if exp > 0 { (0, 0) } else { split_point(mantissa, exp.unsigned_abs()) };

        let mut text = String::new();
        if negative && (exp > 0 || whole != 0 || decimals != 0) {
            text.push('-');
        }
        if exp > 0 {
            text.push_str(&Natural::from(mantissa).shifted_left(exp.unsigned_abs()).into_decimal());
        } else {
            write!(text, "{whole}").expect("a String takes what is written");
        }
        if decimals != 0 {
            write!(text, ".{decimals:0width$}", width = HUMAN_DECIMALS as usize)
                .expect("a String takes what is written");
            text.truncate(text.trim_end_matches('0').len());
        }
        text
    }
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

/// INCRBYFLOAT's and HINCRBYFLOAT's sum could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrByFloatError {
    /// The stored value is not a float.
    Current,
    /// The increment is not a float.
    Increment,
    /// The sum is infinite or not a number.
    NotFinite,
}

/// `current + incr` as Redis on x86-64 computes and prints it.
pub fn incr_by_float(current: &[u8], incr: &[u8]) -> Result<String, IncrByFloatError> {
    let current = Extended::parse(current).ok_or(IncrByFloatError::Current)?;
    let incr = Extended::parse(incr).ok_or(IncrByFloatError::Increment)?;
    let sum = current.checked_add(incr).ok_or(IncrByFloatError::NotFinite)?;
    Ok(sum.to_human())
}

/// What stands behind `0x`: hexadecimal digits, at most one point, and perhaps `p` with a decimal exponent of two.
pub fn parse_hex(text: &[u8]) -> Option<Unrounded> {
    /// Digits past this many bits only count as `sticky`: more than any format's precision, with room for one digit.
    const BITS_KEPT: u32 = 120;
    let (digits, exp) = split_exponent(text, b'p')?;
    let (whole, decimals) = split_digits(digits);
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let mut unrounded = Unrounded { mantissa: 0, exp: exp - 4 * decimals.len() as i64, sticky: false };
    for &byte in whole.iter().chain(decimals) {
        let digit = char::from(byte).to_digit(16)?;
        if unrounded.mantissa >> BITS_KEPT == 0 {
            unrounded.mantissa = unrounded.mantissa << 4 | u128::from(digit);
        } else {
            unrounded.exp += 4;
            unrounded.sticky |= digit != 0;
        }
    }
    Some(unrounded)
}

/// Decimal digits, at most one point, and perhaps `e` with an exponent of ten.
fn parse_decimal(text: &[u8]) -> Option<Unrounded> {
    let (digits, exp) = split_exponent(text, b'e')?;
    let (whole, decimals) = split_digits(digits);
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    if !whole.iter().chain(decimals).all(u8::is_ascii_digit) {
        return None;
    }
    let mut exp = exp - decimals.len() as i64;
    let mut digits = [whole, decimals].concat();
    while digits.last() == Some(&b'0') {
        digits.pop();
        exp += 1;
    }
    let leading_zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    let digits = &digits[leading_zeros..];
    Some(scale_decimal(digits, exp))
}

/// `digits * 10^exp`; the digits neither start nor end with a zero.
fn scale_decimal(digits: &[u8], exp: i64) -> Unrounded {
    /// So many digits fit a u64, and so does this power of ten.
    const DIGITS_OF_U64: usize = 19;
    /// 10^4933 overflows an extended value, and 10^-4951 is less than half of the least.
    const MAGNITUDE_MAX: i64 = 5_000;

    if digits.is_empty() {
        return Unrounded::ZERO;
    }
    let magnitude = exp + digits.len() as i64;
    if magnitude > MAGNITUDE_MAX {
        return Unrounded::HUGE;
    }
    if magnitude < -MAGNITUDE_MAX {
        return Unrounded::TINY;
    }

    if digits.len() <= DIGITS_OF_U64 && exp.unsigned_abs() <= DIGITS_OF_U64 as u64 {
        let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        let power = u128::from(10u64.pow(exp.unsigned_abs() as u32));
        if exp >= 0 {
            return Unrounded { mantissa: u128::from(number) * power, exp: 0, sticky: false };
        }
        // With its top bit set the dividend is at least 2^127 and the divisor is below 2^64, so the quotient has 64 bits or
        // more; two more bits of it make sure of some to round by. They fit: the divisor is at least ten.
        let shift = number.leading_zeros() + 64;
        let dividend = u128::from(number) << shift;
        let rest = (dividend % power) << 2;
        let mantissa = ((dividend / power) << 2) | (rest / power);
        return Unrounded { mantissa, exp: -i64::from(shift) - 2, sticky: rest % power != 0 };
    }

    let numerator = Natural::from_decimal(digits);
    if exp >= 0 {
        numerator.times_power_of_ten(exp as u32).ratio(Natural::from(1))
    } else {
        numerator.ratio(Natural::from(1).times_power_of_ten(exp.unsigned_abs() as u32))
    }
}

/// `text` before `marker` (of either case), and the decimal exponent behind it; 0 where there is none.
fn split_exponent(text: &[u8], marker: u8) -> Option<(&[u8], i64)> {
    let Some(at) = text.iter().position(|byte| byte.to_ascii_lowercase() == marker) else {
        return Some((text, 0));
    };
    let (negative, digits) = match &text[at + 1..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let exp =
        digits.iter().fold(0, |exp: i64, digit| (exp * 10 + i64::from(digit - b'0')).min(EXP_BEYOND_ALL));
    Some((&text[..at], if negative { -exp } else { exp }))
}

/// The digits before and behind the point.
fn split_digits(digits: &[u8]) -> (&[u8], &[u8]) {
    match digits.iter().position(|&byte| byte == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &[]),
    }
}

/// A natural number of any size: 32-bit limbs, the least first, the last not zero. Numbers here have at most
/// [`TEXT_LEN_MAX`] digits, so quadratic algorithms do.
#[derive(Clone, PartialEq, Eq)]
struct Natural {
    limbs: Vec<u32>,
}

impl From<u64> for Natural {
    fn from(number: u64) -> Self {
        let mut natural = Self { limbs: vec![number as u32, (number >> 32) as u32] };
        natural.trim();
        natural
    }
}

impl Natural {
    const LIMB_BITS: u32 = 32;
    /// The biggest power of ten in a limb.
    const CHUNK: u32 = 1_000_000_000;
    const CHUNK_DIGITS: usize = 9;

    fn from_decimal(digits: &[u8]) -> Self {
        let mut natural = Self { limbs: Vec::with_capacity(digits.len() / Self::CHUNK_DIGITS + 1) };
        for chunk in digits.chunks(Self::CHUNK_DIGITS) {
            let number = chunk.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
            natural.multiply_add(10u32.pow(chunk.len() as u32), number);
        }
        natural
    }

    fn into_decimal(mut self) -> String {
        let mut chunks = Vec::new();
        while !self.limbs.is_empty() {
            chunks.push(self.divide(Self::CHUNK));
        }
        let mut text = chunks.pop().unwrap_or(0).to_string();
        for chunk in chunks.iter().rev() {
            write!(text, "{chunk:0width$}", width = Self::CHUNK_DIGITS)
                .expect("a String takes what is written");
        }
        text
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }

    fn bits(&self) -> u32 {
        self.limbs.last().map_or(0, |top| self.limbs.len() as u32 * Self::LIMB_BITS - top.leading_zeros())
    }

    /// `self * factor + addend`, in place.
    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= Self::LIMB_BITS;
        }
        if carry != 0 {
            self.limbs.push(carry as u32);
        }
    }

    fn times_power_of_ten(mut self, power: u32) -> Self {
        let chunks = power / Self::CHUNK_DIGITS as u32;
        for _ in 0..chunks {
            self.multiply_add(Self::CHUNK, 0);
        }
        self.multiply_add(10u32.pow(power % Self::CHUNK_DIGITS as u32), 0);
        self
    }

    /// Divides in place; returns the rest.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for limb in self.limbs.iter_mut().rev() {
            rest = rest << Self::LIMB_BITS | u64::from(*limb);
            *limb = (rest / u64::from(divisor)) as u32;
            rest %= u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    fn shifted_left(self, by: u32) -> Self {
        let (limbs, bits) = (by / Self::LIMB_BITS, by % Self::LIMB_BITS);
        let mut shifted = Self { limbs: vec![0; limbs as usize] };
        shifted.limbs.extend(self.limbs);
        if bits != 0 {
            let mut carry = 0;
            for limb in &mut shifted.limbs[limbs as usize..] {
                let wide = u64::from(*limb) << bits | carry;
                *limb = wide as u32;
                carry = wide >> Self::LIMB_BITS;
            }
            if carry != 0 {
                shifted.limbs.push(carry as u32);
            }
        }
        shifted.trim();
        shifted
    }

    fn is_below(&self, other: &Self) -> bool {
        let by_size = self.limbs.len().cmp(&other.limbs.len());
        by_size.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev())).is_lt()
    }

    /// `self - other`, in place; `other` is not the bigger one.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (i, limb) in self.limbs.iter_mut().enumerate() {
            let (less, borrowed) = limb.overflowing_sub(other.limbs.get(i).copied().unwrap_or(0));
            let (less, borrowed_again) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = borrowed || borrowed_again;
        }
        debug_assert!(!borrow, "a natural number is not below zero");
        self.trim();
    }

    /// `self / divisor`, to more bits than any format has. Neither is zero.
    fn ratio(self, divisor: Self) -> Unrounded {
        const BITS: u32 = 72;
        const _: () = assert!(BITS as i32 >= Format::EXTENDED.precision + 2);
        // Both get the same number of bits, so the quotient lies between 1/2 and 2; then one bit a step.
        let shift = i64::from(self.bits()) - i64::from(divisor.bits());
        let mut rest = self.shifted_left(shift.min(0).unsigned_abs() as u32);
        let divisor = divisor.shifted_left(shift.max(0) as u32);
        let mut mantissa = 0u128;
        for _ in 0..BITS {
            mantissa <<= 1;
            if !rest.is_below(&divisor) {
                rest.subtract(&divisor);
                mantissa |= 1;
            }
            rest.multiply_add(2, 0);
        }
        Unrounded { mantissa, exp: shift - i64::from(BITS - 1), sticky: !rest.limbs.is_empty() }
    }
}

#[cfg(test)]
mod tests;
