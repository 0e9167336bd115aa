//! BITFIELD and BITFIELD_RO: integers of any number of bits, anywhere in a string.

use crate::field::{FieldType, Overflow};
use crate::{GROUP, parse_bit_offset};
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags, KeySpec, ModuleStr,
    NotifyClass, Row, parse_integer,
};

const NOT_A_TYPE: Error = Error::from_text(
    c"ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
);
const NOT_AN_OVERFLOW: Error = Error::from_text(c"ERR Invalid OVERFLOW type specified");
const ONLY_GET: Error = Error::from_text(c"ERR BITFIELD_RO only supports the GET subcommand");

const ENCODING: Argument = Argument::new("encoding", ArgumentKind::String);
const OFFSET: Argument = Argument::new("offset", ArgumentKind::Integer);

/// BITFIELD key [GET type offset | [OVERFLOW WRAP|SAT|FAIL] SET type offset value | INCRBY type offset increment ...]. All
/// arguments are checked before anything is done. Zero-pads the string up to the last bit that a SET or an INCRBY may write.
/// Reply: array with an integer each: GET, the value; SET, the value before; INCRBY, the value after; or null, if it did
/// not fit and FAIL was said. Errors: WRONGTYPE; syntax error; a type, offset or value out of range. O(subcommands).
pub struct BitField;

impl Command for BitField {
    const ROW: Row = Row {
        flags: "write deny-oom getkeys-api",
        find_keys: Some(find_key),
        keys: &[KeySpec {
            notes: "This command allows both access and modification of the key",
            ..KeySpec::at(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE).and(KeyFlags::VARIABLE))
        }],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Perform arbitrary bitfield integer operations on strings",
        complexity: "O(1) for each subcommand specified",
        since: "3.2.0",
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument {
                is_optional: true,
                is_multiple: true,
                parts: &[
                    Argument {
                        token: "GET",
                        parts: &[ENCODING, OFFSET],
                        ..Argument::new("encoding_offset", ArgumentKind::Block)
                    },
                    Argument { parts: &[OVERFLOW, WRITE], ..Argument::new("write", ArgumentKind::Block) },
                ],
                ..Argument::new("operation", ArgumentKind::OneOf)
            },
        ],
        ..Row::new("bitfield", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let operations = parse_operations(&args[2..])?;

        let Some(len) = operations.iter().filter_map(Operation::written_len).max() else {
            return reply_values(ctx, &args[1], &operations);
        };
        let mut key = ctx.open_for_writing(&args[1])?;
        let mut bytes = key.string_mut()?;
        let grows = len > bytes.len();
        if grows {
            bytes.resize(len)?;
        }

        let mut is_changed = false;
        let mut replies = Vec::with_capacity(operations.len());
        for operation in &operations {
            let before = operation.field.get(&bytes, operation.offset);
            let (reply, stored) = operation.result(before);
            if let Some(stored) = stored {
                operation.field.set(&mut bytes, operation.offset, stored);
                is_changed |= grows || stored != before;
            }
            replies.push(reply);
        }

        // Redis 7.0 tells nobody of a string that was only made longer, because what was to be written did not fit.
        if !is_changed && !grows {
            key.set_unchanged();
        }
        drop(key);
        if is_changed || grows {
            ctx.replicate_verbatim();
        }
        if is_changed {
            ctx.notify(NotifyClass::String, c"setbit", &args[1]);
        }
        ctx.reply().array(replies.len());
        for reply in replies {
            match reply {
                Some(value) => ctx.reply().integer(value),
                None => ctx.reply().null(),
            }
        }
        Ok(())
    }
}

/// What BITFIELD does with its key: nothing but reading it, if all its subcommands are GET. A request that is malformed may do
/// everything.
fn find_key(args: Args<'_>, found: &mut dyn FnMut(usize, KeyFlags)) {
    let mut rest = &args[2..];
    let only_reads = loop {
        rest = match rest {
            [] => break true,
            [word, _, _, rest @ ..] if word.is_word("get") => rest,
            [word, _, rest @ ..] if word.is_word("overflow") => rest,
            _ => break false,
        }
    };
    let changes = KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE);
    found(1, if only_reads { KeyFlags::RO.and(KeyFlags::ACCESS) } else { changes });
}

const OVERFLOW: Argument = Argument {
    token: "OVERFLOW",
    is_optional: true,
    parts: &[
        Argument { token: "WRAP", ..Argument::new("wrap", ArgumentKind::PureToken) },
        Argument { token: "SAT", ..Argument::new("sat", ArgumentKind::PureToken) },
        Argument { token: "FAIL", ..Argument::new("fail", ArgumentKind::PureToken) },
    ],
    ..Argument::new("wrap_sat_fail", ArgumentKind::OneOf)
};

const WRITE: Argument = Argument {
    parts: &[
        Argument {
            token: "SET",
            parts: &[ENCODING, OFFSET, Argument::new("value", ArgumentKind::Integer)],
            ..Argument::new("encoding_offset_value", ArgumentKind::Block)
        },
        Argument {
            token: "INCRBY",
            parts: &[ENCODING, OFFSET, Argument::new("increment", ArgumentKind::Integer)],
            ..Argument::new("encoding_offset_increment", ArgumentKind::Block)
        },
    ],
    ..Argument::new("write_operation", ArgumentKind::OneOf)
};

/// BITFIELD_RO key [GET type offset ...]. Reply: array of integers. Errors: as BITFIELD; any subcommand that would write.
pub struct BitFieldRo;

impl Command for BitFieldRo {
    const ROW: Row = Row {
        flags: "readonly fast",
        keys: &[KeySpec::at(1, KeyFlags::RO.and(KeyFlags::ACCESS))],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Perform arbitrary bitfield integer operations on strings. Read-only variant of BITFIELD",
        complexity: "O(1) for each subcommand specified",
        since: "6.0.0",
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument {
                token: "GET",
                is_optional: true,
                is_multiple: true,
                is_multiple_token: true,
                parts: &[ENCODING, OFFSET],
                ..Argument::new("encoding_offset", ArgumentKind::Block)
            },
        ],
        ..Row::new("bitfield_ro", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let operations = parse_operations(&args[2..])?;
        if operations.iter().any(|operation| operation.written_len().is_some()) {
            return Err(ONLY_GET);
        }

        reply_values(ctx, &args[1], &operations)
    }
}

/// One GET, SET or INCRBY.
struct Operation {
    field: FieldType,
    offset: u64,
    action: Action,
    overflow: Overflow,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    IncrBy(i64),
}

impl Operation {
    /// How many bytes a string has at least in which it can write.
    fn written_len(&self) -> Option<usize> {
        match self.action {
            Action::Get => None,
            Action::Set(_) | Action::IncrBy(_) => {
                Some(((self.offset + self.field.bits() - 1) / 8) as usize + 1)
            }
        }
    }

    /// What it replies and what it stores, by the value that is there; nothing if that would not fit and is to fail.
    fn result(&self, before: i64) -> (Option<i64>, Option<i64>) {
        match self.action {
            Action::Get => (Some(before), None),
            Action::Set(value) => {
                let stored = self.field.assign(value, self.overflow);
                (stored.map(|_| before), stored)
            }
            Action::IncrBy(by) => {
                let stored = self.field.add(before, by, self.overflow);
                (stored, stored)
            }
        }
    }
}

/// Errors: syntax error; a type, an offset, a value or an overflow that is none.
fn parse_operations(mut args: &[ModuleStr<'_>]) -> Result<Vec<Operation>, Error> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    while let [word, rest @ ..] = args {
        let (field, offset, number, rest) = match rest {
            [kind, rest @ ..] if word.is_word("overflow") => {
                overflow = parse_overflow(kind)?;
                args = rest;
                continue;
            }
            [field, offset, rest @ ..] if word.is_word("get") => (field, offset, None, rest),
            [field, offset, number, rest @ ..] if word.is_word("set") || word.is_word("incrby") => {
                (field, offset, Some(number), rest)
            }
            _ => return Err(Error::SYNTAX),
        };
        let field = FieldType::parse(field.as_bytes(), parse_integer).ok_or(NOT_A_TYPE)?;
        let offset = parse_bit_offset(offset.as_bytes(), Some(field.bits()))?;
        let action = match number {
            None => Action::Get,
            Some(number) if word.is_word("set") => Action::Set(number.to_integer()?),
            Some(number) => Action::IncrBy(number.to_integer()?),
        };
        operations.push(Operation { field, offset, action, overflow });
        args = rest;
    }
    Ok(operations)
}

fn parse_overflow(word: &ModuleStr<'_>) -> Result<Overflow, Error> {
    const NAMES: [(&str, Overflow); 3] =
        [("wrap", Overflow::Wrap), ("sat", Overflow::Saturate), ("fail", Overflow::Fail)];
    let named = NAMES.iter().find(|(name, _)| word.is_word(name));
    named.map(|(_, overflow)| *overflow).ok_or(NOT_AN_OVERFLOW)
}

/// Replies to operations that only read.
fn reply_values(ctx: &Context<'_>, key: &ModuleStr<'_>, operations: &[Operation]) -> CommandResult {
    let key = ctx.open(key)?;
    let bytes = key.string()?.unwrap_or_default();

    ctx.reply().array(operations.len());
    for operation in operations {
        ctx.reply().integer(operation.field.get(bytes, operation.offset));
    }
    Ok(())
}
