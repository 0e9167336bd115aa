//! Single bits: SETBIT and GETBIT.

use crate::{GROUP, bits, parse_bit_offset};
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags, KeySpec, NotifyClass, Row,
};

const NOT_A_BIT: Error = Error::from_text(c"ERR bit is not an integer or out of range");

/// SETBIT key offset value. Zero-pads the string up to the bit. Reply: integer, the bit before. Nothing is propagated if the
/// bit was that already. Errors: WRONGTYPE; offset or value out of range.
pub struct SetBit;

impl Command for SetBit {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE))],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Sets or clears the bit at offset in the string value stored at key",
        complexity: "O(1)",
        since: "2.2.0",
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument::new("offset", ArgumentKind::Integer),
            Argument::new("value", ArgumentKind::Integer),
        ],
        ..Row::new("setbit", 4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let bit = parse_bit_offset(args[2].as_bytes(), None)?;
        let is_on = match args[3].as_bytes() {
            b"0" => false,
            b"1" => true,
            _ => return Err(NOT_A_BIT),
        };

        let mut key = ctx.open_for_writing(&args[1])?;
        let mut bytes = key.string_mut()?;
        let len = (bit / 8) as usize + 1;
        let grows = len > bytes.len();
        if grows {
            bytes.resize(len)?;
        }

        let before = bits::set(&mut bytes, bit, is_on);
        let is_changed = grows || before != is_on;
        if !is_changed {
            key.set_unchanged();
        }
        drop(key);
        if is_changed {
            ctx.replicate_verbatim();
            ctx.notify(NotifyClass::String, c"setbit", &args[1]);
        }

        ctx.reply().integer(before.into());
        Ok(())
    }
}

/// GETBIT key offset. Reply: integer, the bit; 0 past the end. Errors: WRONGTYPE; offset out of range.
pub struct GetBit;

impl Command for GetBit {
    const ROW: Row = Row {
        flags: "readonly fast",
        keys: &[KeySpec::at(1, KeyFlags::RO.and(KeyFlags::ACCESS))],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Returns the bit value at offset in the string value stored at key",
        complexity: "O(1)",
        since: "2.2.0",
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument::new("offset", ArgumentKind::Integer),
        ],
        ..Row::new("getbit", 3)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let bit = parse_bit_offset(args[2].as_bytes(), None)?;

        let key = ctx.open(&args[1])?;
        let is_on = key.string()?.is_some_and(|bytes| bits::get(bytes, bit));

        ctx.reply().integer(is_on.into());
        Ok(())
    }
}
