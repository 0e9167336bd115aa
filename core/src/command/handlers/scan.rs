//! What the arguments of SCAN, HSCAN, SSCAN and ZSCAN have in common: a cursor, MATCH, COUNT and TYPE.

use crate::command::args;
use crate::command::{CommandError, CommandResult};
use crate::protocol::{Argv, until_nul};
use crate::types::Entry;
use crate::types::glob::glob_matches;

/// Parses a cursor: an unsigned number up to a NUL, as C's `strtoul` does but without blanks. An empty string is 0, and
/// signs are accepted.
///
/// # Errors
/// Anything else.
pub(super) fn parse_cursor(text: &[u8]) -> CommandResult<u64> {
    let text = until_nul(text);
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let only_digits = digits.iter().all(u8::is_ascii_digit) && (text.is_empty() || !digits.is_empty());
    let number = digits.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0')))
    });
    let number = number.filter(|_| only_digits).ok_or(CommandError::fixed("ERR invalid cursor"))?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// A glob pattern, or the one that matches everything.
#[derive(Clone, Copy)]
pub(super) enum Pattern<'a> {
    All,
    Glob(&'a [u8]),
}

impl<'a> Pattern<'a> {
    pub(super) fn new(pattern: &'a [u8]) -> Pattern<'a> {
        if pattern == b"*" { Pattern::All } else { Pattern::Glob(pattern) }
    }

    pub(super) fn matches(self, name: &[u8]) -> bool {
        match self {
            Pattern::All => true,
            Pattern::Glob(pattern) => glob_matches(pattern, name),
        }
    }
}

/// COUNT if it is not given: how many elements a call tries to return.
const SCAN_COUNT: u64 = 10;

/// Whether the command takes TYPE, which only SCAN does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeOption {
    Taken,
    Refused,
}

pub(super) struct ScanOptions<'a> {
    pub(super) pattern: Pattern<'a>,
    pub(super) count: u64,
    pub(super) type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options that follow the cursor.
    ///
    /// # Errors
    /// Syntax; COUNT is not an integer.
    pub(super) fn parse(args: Argv<'a>, type_option: TypeOption) -> CommandResult<ScanOptions<'a>> {
        let mut options = ScanOptions { pattern: Pattern::All, count: SCAN_COUNT, type_name: None };
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let value = rest.next().ok_or(CommandError::SYNTAX)?;
            if args::is(option, "count") {
                options.count = u64::try_from(args::integer(value)?)
                    .ok()
                    .filter(|&count| count > 0)
                    .ok_or(CommandError::SYNTAX)?;
            } else if args::is(option, "match") {
                options.pattern = Pattern::new(value);
            } else if type_option == TypeOption::Taken && args::is(option, "type") {
                options.type_name = Some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    pub(super) fn admits(&self, entry: Entry<'_>) -> bool {
        self.type_name.is_none_or(|name| args::is(name, entry.value().value_type().name()))
    }
}
