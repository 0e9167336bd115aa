//! The integers of BITFIELD: any number of bits from any bit of a string on, the highest bit first.

/// The type of an integer in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldType {
    is_signed: bool,
    bits: u32,
}

/// A reply has no unsigned integers of 64 bits.
const UNSIGNED_BITS_MAX: i64 = 63;
const SIGNED_BITS_MAX: i64 = 64;

/// What becomes of a result that its type does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Its low bits are kept.
    Wrap,
    /// The nearest value of the type is.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl FieldType {
    /// `i` or `u`, and the number of bits as `parse` understands it: up to i64 and u63.
    pub fn parse(word: &[u8], parse: impl Fn(&[u8]) -> Option<i64>) -> Option<FieldType> {
        let (is_signed, bits_max) = match word.first()? {
            b'i' => (true, SIGNED_BITS_MAX),
            b'u' => (false, UNSIGNED_BITS_MAX),
            _ => return None,
        };
        let bits = parse(&word[1..]).filter(|bits| (1..=bits_max).contains(bits))?;
        Some(FieldType { is_signed, bits: bits as u32 })
    }

    pub fn bits(self) -> u64 {
        u64::from(self.bits)
    }

    /// The integer from bit `offset` on; bits past the end of the bytes are zeros.
    pub fn get(self, bytes: &[u8], offset: u64) -> i64 {
        let window = window(bytes, offset);
        self.truncated((window >> self.shift(offset)) as i128)
    }

    /// Writes an integer from bit `offset` on. Its bits all lie within the bytes.
    pub fn set(self, bytes: &mut [u8], offset: u64, value: i64) {
        let begin = (offset / 8) as usize;
        let mask = ((1u128 << self.bits) - 1) << self.shift(offset);
        let value = ((value as u128) << self.shift(offset)) & mask;
        let window = (window(bytes, offset) & !mask) | value;
        let end = bytes.len().min(begin + WINDOW_LEN_BYTES);
        bytes[begin..end].copy_from_slice(&window.to_be_bytes()[..end - begin]);
    }

    /// How far the integer lies from the low end of its window.
    fn shift(self, offset: u64) -> u32 {
        u128::BITS - (offset % 8) as u32 - self.bits
    }

    /// What is stored for `value` with an increment of `by`; `None` if overflow makes it fail.
    pub fn add(self, value: i64, by: i64, overflow: Overflow) -> Option<i64> {
        self.fit(i128::from(value) + i128::from(by), overflow)
    }

    /// What is stored when a field is set to `value`; `None` if overflow makes it fail. A negative value is, for an unsigned
    /// type, one far above its greatest.
    pub fn assign(self, value: i64, overflow: Overflow) -> Option<i64> {
        let value = if self.is_signed { i128::from(value) } else { i128::from(value as u64) };
        self.fit(value, overflow)
    }

    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (least, greatest) = if self.is_signed {
            (-1i128 << (self.bits - 1), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        };
        if (least..=greatest).contains(&value) {
            return Some(value as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.truncated(value)),
            Overflow::Saturate => Some(value.clamp(least, greatest) as i64),
            Overflow::Fail => None,
        }
    }

    /// The low bits, as an integer of this type.
    fn truncated(self, value: i128) -> i64 {
        let unused = u128::BITS - self.bits;
        if self.is_signed {
            ((value << unused) >> unused) as i64
        } else {
            (((value as u128) << unused) >> unused) as i64
        }
    }
}

/// 64 bits that begin within a byte lie in 9 bytes.
const WINDOW_LEN_BYTES: usize = 16;

/// The bytes from the one with bit `offset` on, and zeros where there are none.
fn window(bytes: &[u8], offset: u64) -> u128 {
    let rest = usize::try_from(offset / 8).ok().and_then(|begin| bytes.get(begin..)).unwrap_or_default();
    let mut window = [0; WINDOW_LEN_BYTES];
    let len = rest.len().min(WINDOW_LEN_BYTES);
    window[..len].copy_from_slice(&rest[..len]);
    u128::from_be_bytes(window)
}

#[cfg(test)]
mod tests;
