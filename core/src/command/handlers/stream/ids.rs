//! Entry IDs as arguments.

use crate::command::{CommandError, CommandResult};
use crate::protocol::number::parse_i64;
use crate::protocol::until_nul;
use crate::types::stream::StreamId;

const INVALID: CommandError =
    CommandError::fixed("ERR Invalid stream ID specified as stream command argument");

/// Longer arguments are no IDs.
const LEN_MAX: usize = 127;

/// An ID, which may leave its number to the stream: `5-*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartialId {
    Full(StreamId),
    AnyIn { ms: u64 },
}

/// `ms-seq`, or `ms` alone, which means the number `missing_seq`.
///
/// # Errors
/// Anything else.
pub(super) fn strict(arg: &[u8], missing_seq: u64) -> CommandResult<StreamId> {
    match parse(arg, missing_seq, false)? {
        PartialId::Full(id) => Ok(id),
        PartialId::AnyIn { .. } => Err(INVALID),
    }
}

/// An ID as `strict`, or `ms-*`.
///
/// # Errors
/// Anything else.
pub(super) fn partial(arg: &[u8]) -> CommandResult<PartialId> {
    parse(arg, 0, true)
}

/// An ID as `strict`, or `-` or `+` for the least and the greatest one.
///
/// # Errors
/// Anything else.
pub(super) fn extended(arg: &[u8], missing_seq: u64) -> CommandResult<StreamId> {
    match arg {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => strict(arg, missing_seq),
    }
}

/// The start of an interval, which `(` excludes.
///
/// # Errors
/// Not an ID; nothing is behind an excluded one.
pub(super) fn interval_start(arg: &[u8]) -> CommandResult<StreamId> {
    match arg {
        [b'(', id @ ..] if !id.is_empty() => {
            strict(id, 0)?.next().ok_or(CommandError::fixed("ERR invalid start ID for the interval"))
        }
        _ => extended(arg, 0),
    }
}

/// The end of an interval, which `(` excludes.
///
/// # Errors
/// Not an ID; nothing is before an excluded one.
pub(super) fn interval_end(arg: &[u8]) -> CommandResult<StreamId> {
    match arg {
        [b'(', id @ ..] if !id.is_empty() => {
            strict(id, u64::MAX)?.previous().ok_or(CommandError::fixed("ERR invalid end ID for the interval"))
        }
        _ => extended(arg, u64::MAX),
    }
}

fn parse(arg: &[u8], missing_seq: u64, any_seq: bool) -> CommandResult<PartialId> {
    if arg.len() > LEN_MAX {
        return Err(INVALID);
    }
    let text = until_nul(arg);
    let Some(dash) = text.iter().position(|&byte| byte == b'-') else {
        return Ok(PartialId::Full(StreamId { ms: number(text)?, seq: missing_seq }));
    };
    let (ms, seq) = (number(&text[..dash])?, &text[dash + 1..]);
    if any_seq && seq == b"*" {
        return Ok(PartialId::AnyIn { ms });
    }
    Ok(PartialId::Full(StreamId { ms, seq: number(seq)? }))
}

/// A number of 64 bits without a sign. What is no strict decimal integer is read as C's strtoull does: blanks in front,
/// a sign, leading zeros.
fn number(text: &[u8]) -> CommandResult<u64> {
    if let Some(number) = parse_i64(text) {
        return u64::try_from(number).map_err(|_| INVALID);
    }
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r')).unwrap_or(text.len());
    let (is_negated, digits) = match &text[start..] {
        [sign @ (b'-' | b'+'), digits @ ..] => (*sign == b'-', digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(INVALID);
    }
    let number = digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    let number = number.ok_or(INVALID)?;
    Ok(if is_negated { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        for (arg, expected) in [
            (&b"5-3"[..], id(5, 3)),
            (b"5", id(5, 7)),
            (b"18446744073709551615-18446744073709551615", StreamId::MAX),
            (b"007-01", id(7, 1)),
            (b" \t+5-3", id(5, 3)),
            (b"5-3\0x", id(5, 3)),
            (b"5--0", id(5, 0)),
            (b"5--18446744073709551615", id(5, 1)),
        ] {
            assert_eq!(strict(arg, 7), Ok(expected), "{}", arg.escape_ascii());
        }
        let long = [&b"0"[..]; 128].concat();
        for arg in [
            &b""[..],
            b"-",
            b"+",
            b"*",
            b"a",
            b"5-",
            b"-5",
            b"5-*",
            b"5-x",
            b"5-3 ",
            b"5-3-1",
            b"5--3",
            b"1e3",
            b"18446744073709551616",
            b"(5",
            &long,
        ] {
            assert_eq!(strict(arg, 7), Err(INVALID), "{}", arg.escape_ascii());
        }
        assert_eq!(strict(&long[1..], 7), Ok(id(0, 7)));
        assert_eq!(partial(b"5-*"), Ok(PartialId::AnyIn { ms: 5 }));
        assert_eq!(partial(b"5"), Ok(PartialId::Full(id(5, 0))));
    }

    #[test]
    fn an_interval_excludes_its_ends_with_a_parenthesis() {
        assert_eq!(interval_start(b"-"), Ok(StreamId::MIN));
        assert_eq!(interval_end(b"+"), Ok(StreamId::MAX));
        assert_eq!(interval_start(b"5"), Ok(id(5, 0)));
        assert_eq!(interval_end(b"5"), Ok(id(5, u64::MAX)));
        assert_eq!(interval_start(b"(5-18446744073709551615"), Ok(id(6, 0)));
        assert_eq!(interval_end(b"(5-0"), Ok(id(4, u64::MAX)));
        assert!(interval_start(b"(18446744073709551615-18446744073709551615").is_err());
        assert!(
            interval_end(b"(0-0").is_err() && interval_end(b"(-").is_err() && interval_start(b"(").is_err()
        );
    }
}
