//! What LMPOP, ZMPOP and their blocking forms have in common: `numkeys key [key ...] end [COUNT count]`.

use crate::command::{CommandError, CommandResult, args};
use crate::protocol::Argv;
use std::ops::Range;

/// These arguments; `E` is an end to pop from.
pub struct MultiPop<E> {
    /// The arguments that are keys.
    pub keys: Range<usize>,
    pub end: E,
    pub count: usize,
}

impl<E> MultiPop<E> {
    /// `at`: the argument that is the number of keys. `end` reads an end.
    ///
    /// # Errors
    /// A number of keys, or a count, that is not positive; syntax.
    pub fn parse(args: Argv<'_>, at: usize, end: impl Fn(&[u8]) -> Option<E>) -> CommandResult<MultiPop<E>> {
        let key_count = positive(args.arg(at), "ERR numkeys should be greater than 0")?;
        let end_at = key_count.saturating_add(at + 1);
        let end = args.get(end_at).and_then(end).ok_or(CommandError::SYNTAX)?;

        let mut count = None;
        let mut rest = args.slice(end_at + 1..).iter();
        while let Some(option) = rest.next() {
            let value = rest.next().filter(|_| count.is_none() && args::is(option, "count"));
            let value = value.ok_or(CommandError::SYNTAX)?;
            count = Some(positive(value, "ERR count should be greater than 0")?);
        }
        Ok(MultiPop { keys: at + 1..end_at, end, count: count.unwrap_or(1) })
    }
}

fn positive(arg: &[u8], error: &'static str) -> CommandResult<usize> {
    let number = args::integer(arg).ok().and_then(|number| usize::try_from(number).ok());
    number.filter(|&number| number > 0).ok_or(CommandError::fixed(error))
}
