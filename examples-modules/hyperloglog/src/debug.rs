//! PFDEBUG, which looks into a string, and PFSELFTEST.

use crate::commands::InKey;
use crate::registers::{self, DENSE_LEN_BYTES, REGISTER_COUNT, REGISTER_MAX};
use crate::string::{self, Content};
use crate::{GROUP, estimate, hash};
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags, KeySpec, Row,
};

const NO_KEY: Error = Error::from_text(c"ERR The specified key does not exist");
const NOT_SPARSE: Error = Error::from_text(c"ERR HLL encoding is not sparse");

/// PFDEBUG GETREG|DECODE|ENCODING|TODENSE key. GETREG turns the string into the dense form; reply: array, all registers.
/// DECODE of one in the sparse form; reply: bulk string, its opcodes in words. ENCODING; reply: `dense` or `sparse`.
/// TODENSE; reply: integer, 1 if it was in the sparse form. Errors: no such key; WRONGTYPE, also of a string that is no
/// HyperLogLog; INVALIDOBJ; an unknown subcommand.
pub struct PfDebug;

impl Command for PfDebug {
    const ROW: Row = Row {
        flags: "write deny-oom admin",
        keys: &[KeySpec::at(2, KeyFlags::RW.and(KeyFlags::ACCESS))],
        group: GROUP,
        acl_categories: "hyperloglog",
        summary: "Internal commands for debugging HyperLogLog values",
        complexity: "N/A",
        since: "2.8.9",
        is_internal: true,
        arguments: &[
            Argument::new("subcommand", ArgumentKind::String),
            Argument::new("key", ArgumentKind::Key(0)),
        ],
        ..Row::new("pfdebug", 3)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let (subcommand, name) = (&args[1], &args[2]);

        // Opened so, nobody is told that there is no such key, as in Redis.
        let key = ctx.open_for_writing(name)?;
        let content = string::open(key.string()?.ok_or(NO_KEY)?)?;
        let encoding = if content.is_dense() { c"dense" } else { c"sparse" };
        let described = match content {
            Content::Sparse(opcodes) if subcommand.is_word("decode") => Some(string::describe(opcodes)),
            _ => None,
        };
        drop(key);

        if subcommand.is_word("encoding") {
            ctx.reply().simple(encoding);
        } else if subcommand.is_word("decode") {
            ctx.reply().bytes(described.ok_or(NOT_SPARSE)?.as_bytes());
        } else if subcommand.is_word("todense") {
            let is_changed = make_dense(ctx, args)?;
            ctx.reply().integer(is_changed.into());
        } else if subcommand.is_word("getreg") {
            make_dense(ctx, args)?;
            let mut registers = [0; REGISTER_COUNT];
            let key = ctx.open(name)?;
            string::open(key.string()?.unwrap_or_default())?.merge_into(&mut registers);
            ctx.reply().array(REGISTER_COUNT);
            registers.into_iter().for_each(|register| ctx.reply().integer(register.into()));
        } else {
            let text = [b"ERR Unknown PFDEBUG subcommand '", subcommand.as_c_bytes(), b"'"];
            return Err(Error::new(text.concat()));
        }
        Ok(())
    }
}

/// Gives whether the string was in the sparse form.
fn make_dense(ctx: &mut Context<'_>, args: Args<'_>) -> Result<bool, Error> {
    let mut key = ctx.open_for_writing(&args[2])?;
    let is_changed = string::make_dense(&mut InKey::of(&mut key)?)?;
    drop(key);
    if is_changed {
        ctx.replicate_verbatim();
    }
    Ok(is_changed)
}

/// PFSELFTEST. Tries registers and estimates. Reply: OK. Errors: TESTFAILED, which never happens.
pub struct PfSelfTest;

impl Command for PfSelfTest {
    const ROW: Row = Row {
        flags: "admin",
        group: GROUP,
        acl_categories: "hyperloglog",
        summary: "An internal command for testing HyperLogLog values",
        complexity: "N/A",
        since: "2.8.9",
        is_internal: true,
        ..Row::new("pfselftest", 1)
    };

    fn run(ctx: &mut Context<'_>, _args: Args<'_>) -> CommandResult {
        if let Some(index) = wrong_register() {
            return Err(Error::new(format!("TESTFAILED Register {index} is not what it was set to")));
        }
        if let Some((count, estimated)) = wrong_estimate() {
            return Err(Error::new(format!("TESTFAILED {count} elements are estimated as {estimated}")));
        }

        ctx.reply().ok();
        Ok(())
    }
}

/// A register that is not what it was set to, in the dense form.
fn wrong_register() -> Option<usize> {
    let value = |index: usize| hash::place(&index.to_le_bytes()).0 as u8 & REGISTER_MAX;
    let mut dense = [0xff; DENSE_LEN_BYTES];
    (0..REGISTER_COUNT).for_each(|index| registers::set(&mut dense, index, value(index)));
    let mut unpacked = [0; REGISTER_COUNT];
    registers::merge(&mut unpacked, &[&dense]);
    (0..REGISTER_COUNT)
        .find(|&index| registers::get(&dense, index) != value(index) || unpacked[index] != value(index))
}

/// A number of elements whose estimate is off by more than 6 standard errors, and the estimate.
fn wrong_estimate() -> Option<(u64, u64)> {
    /// Takes about a millisecond.
    const ELEMENTS: u64 = 100_000;
    let standard_error = 1.04 / (REGISTER_COUNT as f64).sqrt();
    let mut registers = [0; REGISTER_COUNT];
    let mut checkpoint = 1;
    for count in 1..=ELEMENTS {
        let (index, value) = hash::place(&count.to_le_bytes());
        registers[index] = value.max(registers[index]);
        if count == checkpoint {
            let estimated = estimate::cardinality(&registers::histogram(&registers));
            if count.abs_diff(estimated) as f64 > (6.0 * standard_error * count as f64).ceil() {
                return Some((count, estimated));
            }
            checkpoint *= 10;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_test_passes() {
        assert_eq!(wrong_register(), None);
        assert_eq!(wrong_estimate(), None);
    }
}
