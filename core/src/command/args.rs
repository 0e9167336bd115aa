//! Parsing of arguments: numbers and keywords, with Redis' errors for them.

use crate::command::{CommandError, CommandResult};
use crate::protocol::extended::Extended;
use crate::protocol::number::{parse_f64, parse_i64};
use std::ops::RangeInclusive;

/// A strict decimal integer of 64 bits.
///
/// # Errors
/// Anything else.
#[inline]
pub fn integer(arg: &[u8]) -> CommandResult<i64> {
    parse_i64(arg).ok_or(CommandError::NOT_INTEGER)
}

/// A strict decimal integer of a range.
///
/// # Errors
/// Not a 64-bit integer; beyond the range.
pub fn integer_in(arg: &[u8], range: RangeInclusive<i64>) -> CommandResult<i64> {
    let value = integer(arg)?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (min, max) = range.into_inner();
    Err(CommandError::new(format!("ERR value is out of range, value must between {min} and {max}")))
}

/// A strict decimal integer of 32 bits.
///
/// # Errors
/// Not a 64-bit integer; beyond 32 bits.
pub fn integer_32(arg: &[u8]) -> CommandResult<i32> {
    integer_in(arg, i64::from(i32::MIN)..=i64::from(i32::MAX)).map(|value| value as i32)
}

/// The number of a database.
///
/// # Errors
/// Not an integer of 32 bits; not one of the `db_count` databases.
pub fn database(arg: &[u8], db_count: usize) -> CommandResult<u32> {
    let index = u32::try_from(integer_32(arg)?).ok();
    index.filter(|&index| (index as usize) < db_count).ok_or(CommandError::DB_OUT_OF_RANGE)
}

/// The deadline of a blocking command, whose timeout argument is a number of seconds with fractions: unix time in
/// milliseconds, rounded up, or `None` for a timeout of 0, which means that it never times out. Redis 7.0 does not look
/// at overflows: milliseconds beyond 64 bits become negative, and a deadline beyond 64 bits never comes.
///
/// # Errors
/// Not a number; negative, or beyond 64 bits of milliseconds.
pub fn deadline_ms(arg: &[u8], now_ms: i64) -> CommandResult<Option<i64>> {
    let seconds = parse_f64(arg).or_else(|| Extended::parse(arg).map(Extended::to_f64));
    let seconds = seconds.ok_or(CommandError::fixed("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    // The first double beyond 64 bits is 2^63.
    if ms < 0.0 || ms >= i64::MAX as f64 {
        return Err(CommandError::fixed("ERR timeout is negative"));
    }
    match ms as i64 {
        0 => Ok(None),
        ms => Ok(now_ms.checked_add(ms)),
    }
}

/// The same of a command whose timeout argument is an integer of milliseconds.
///
/// # Errors
/// Not an integer; negative; a deadline beyond 64 bits.
pub fn deadline_of_ms(arg: &[u8], now_ms: i64) -> CommandResult<Option<i64>> {
    let not_integer = CommandError::fixed("ERR timeout is not an integer or out of range");
    match parse_i64(arg).ok_or(not_integer)? {
        0 => Ok(None),
        ..0 => Err(CommandError::fixed("ERR timeout is negative")),
        ms => now_ms.checked_add(ms).map(Some).ok_or(CommandError::fixed("ERR timeout is out of range")),
    }
}

/// Whether an argument is `keyword`, in upper or lower case. The argument ends at a NUL, as a C string.
#[inline]
pub fn is(arg: &[u8], keyword: &str) -> bool {
    let (len, keyword) = (keyword.len(), keyword.as_bytes());
    match arg.get(len) {
        None | Some(0) => arg.get(..len).is_some_and(|word| word.eq_ignore_ascii_case(keyword)),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_beyond_32_bits_gets_an_error_of_its_own() {
        assert_eq!(integer_32(b"-2147483648"), Ok(i32::MIN));
        assert_eq!(integer_32(b"1.0"), Err(CommandError::NOT_INTEGER));
        assert_eq!(integer_32(b"99999999999999999999"), Err(CommandError::NOT_INTEGER));
        let error = integer_32(b"2147483648").unwrap_err();
        assert_eq!(error.text(), "ERR value is out of range, value must between -2147483648 and 2147483647");
    }

    #[test]
    fn a_timeout_is_in_seconds_and_ends_at_a_millisecond() {
        assert_eq!(deadline_ms(b"0", 1000), Ok(None));
        assert_eq!(deadline_ms(b"2", 1000), Ok(Some(3000)));
        assert_eq!(deadline_ms(b"0.0001", 1000), Ok(Some(1001)));
        let text = |arg: &[u8]| deadline_ms(arg, 1000).unwrap_err().text().to_string();
        assert_eq!(text(b"soon"), "ERR timeout is not a float or out of range");
        assert_eq!(text(b"-1"), "ERR timeout is negative");
        for too_long in [&b"0x7FFFFFFFFFFFFF"[..], b"inf", b"9223372036854775807", b"1e400", b"-1e4000"] {
            assert_eq!(text(too_long), "ERR timeout is negative");
        }
        assert_eq!(text(b"1e5000"), "ERR timeout is not a float or out of range");
        assert_eq!(deadline_ms(b"9223372036854774", 1 << 40), Ok(None));
    }

    #[test]
    fn a_keyword_ends_at_a_nul() {
        assert!(is(b"Ex", "ex") && is(b"EX\0x", "ex"));
        for other in [&b""[..], b"e", b"exat", b"e\0", b"\0ex", b"px"] {
            assert!(!is(other, "ex"), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn a_database_must_exist() {
        assert_eq!(database(b"15", 16), Ok(15));
        assert_eq!(database(b"16", 16), Err(CommandError::DB_OUT_OF_RANGE));
        assert_eq!(database(b"-1", 16), Err(CommandError::DB_OUT_OF_RANGE));
    }
}
