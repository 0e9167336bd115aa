//! Bits of a range: BITCOUNT and BITPOS.

use crate::range::{Unit, resolve};
use crate::{GROUP, bits};
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags, KeySpec, ModuleStr, Row,
};

const NOT_ZERO_OR_ONE: Error = Error::from_text(c"ERR The bit argument must be 1 or 0.");

const HISTORY: &[(&str, &str)] = &[("7.0.0", "Added the `BYTE|BIT` option.")];

const UNIT: Argument = Argument {
    since: "7.0.0",
    is_optional: true,
    parts: &[
        Argument { token: "BYTE", ..Argument::new("byte", ArgumentKind::PureToken) },
        Argument { token: "BIT", ..Argument::new("bit", ArgumentKind::PureToken) },
    ],
    ..Argument::new("index_unit", ArgumentKind::OneOf)
};

/// Errors: syntax error.
fn parse_unit(word: &ModuleStr<'_>) -> Result<Unit, Error> {
    if word.is_word("byte") {
        Ok(Unit::Byte)
    } else if word.is_word("bit") {
        Ok(Unit::Bit)
    } else {
        Err(Error::SYNTAX)
    }
}

/// BITCOUNT key [start end [BYTE|BIT]]. Reply: integer, how many bits are set; 0 without a key, whatever else is given.
/// Errors: WRONGTYPE; syntax error; a position that is not an integer. O(length of the range).
pub struct BitCount;

impl Command for BitCount {
    const ROW: Row = Row {
        flags: "readonly",
        keys: &[KeySpec::at(1, KeyFlags::RO.and(KeyFlags::ACCESS))],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Count set bits in a string",
        complexity: "O(N)",
        since: "2.6.0",
        history: HISTORY,
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument {
                is_optional: true,
                parts: &[
                    Argument::new("start", ArgumentKind::Integer),
                    Argument::new("end", ArgumentKind::Integer),
                    UNIT,
                ],
                ..Argument::new("index", ArgumentKind::Block)
            },
        ],
        ..Row::new("bitcount", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let key = ctx.open(&args[1])?;
        let Some(bytes) = key.string()? else {
            ctx.reply().integer(0);
            return Ok(());
        };

        // As in Redis, the range is looked at only if there is a string.
        let (start, end, unit) = match &args[2..] {
            [] => (0, -1, Unit::Byte),
            [start, end] => (start.to_integer()?, end.to_integer()?, Unit::Byte),
            [start, end, unit] => {
                let (start, end) = (start.to_integer()?, end.to_integer()?);
                // Redis sees that such a range is empty before it looks at the unit.
                if start < 0 && end < start {
                    ctx.reply().integer(0);
                    return Ok(());
                }
                (start, end, parse_unit(unit)?)
            }
            _ => return Err(Error::SYNTAX),
        };
        // Both are cut off to the begin otherwise, where there may be something to count.
        let is_reversed = start < 0 && end < 0 && start > end;
        let range = resolve(start, end, unit, bytes.len()).filter(|_| !is_reversed);
        let count = range.map_or(0, |range| bits::count(bytes, range));

        ctx.reply().integer(count as i64);
        Ok(())
    }
}

/// BITPOS key bit [start [end [BYTE|BIT]]]. Reply: integer, the position of the first bit that is `bit`, from the begin of the
/// string; -1 if there is none. Zeros follow the string, unless an end is given. Without a key: 0 for a clear bit and -1 for
/// a set one. Errors: WRONGTYPE; syntax error; `bit` or a position that is not an integer. O(length of the range).
pub struct BitPos;

impl Command for BitPos {
    const ROW: Row = Row {
        flags: "readonly",
        keys: &[KeySpec::at(1, KeyFlags::RO.and(KeyFlags::ACCESS))],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Find first bit set or clear in a string",
        complexity: "O(N)",
        since: "2.8.7",
        history: HISTORY,
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument::new("bit", ArgumentKind::Integer),
            Argument {
                is_optional: true,
                parts: &[
                    Argument::new("start", ArgumentKind::Integer),
                    Argument {
                        is_optional: true,
                        parts: &[Argument::new("end", ArgumentKind::Integer), UNIT],
                        ..Argument::new("end_index", ArgumentKind::Block)
                    },
                ],
                ..Argument::new("index", ArgumentKind::Block)
            },
        ],
        ..Row::new("bitpos", -3)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let wanted = match args[2].to_integer()? {
            0 => false,
            1 => true,
            _ => return Err(NOT_ZERO_OR_ONE),
        };

        let key = ctx.open(&args[1])?;
        let Some(bytes) = key.string()? else {
            ctx.reply().integer(if wanted { -1 } else { 0 });
            return Ok(());
        };

        // As in Redis, the range is looked at only if there is a string, and the unit before the end.
        let (start, end, unit) = match &args[3..] {
            [] => (0, -1, Unit::Byte),
            [start] => (start.to_integer()?, -1, Unit::Byte),
            [start, end] => (start.to_integer()?, end.to_integer()?, Unit::Byte),
            [start, end, unit] => {
                let (start, unit) = (start.to_integer()?, parse_unit(unit)?);
                (start, end.to_integer()?, unit)
            }
            _ => return Err(Error::SYNTAX),
        };
        let has_end = args.len() > 4;
        let position = match resolve(start, end, unit, bytes.len()) {
            None => -1,
            Some(range) => match bits::position(bytes, range, wanted) {
                Some(bit) => bit as i64,
                None if wanted || has_end => -1,
                None => bytes.len() as i64 * 8,
            },
        };

        ctx.reply().integer(position);
        Ok(())
    }
}
