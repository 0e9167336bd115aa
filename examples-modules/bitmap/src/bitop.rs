//! BITOP: strings combined bit by bit.

use crate::GROUP;
use crate::bits::{Operation, combine};
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, Key, KeyFlags, KeyKind, KeySpec,
    ModuleStr, NotifyClass, Row, WriteKey,
};
use std::ffi::CStr;

const NOT_OF_SEVERAL: Error = Error::from_text(c"ERR BITOP NOT must be called with a single source key.");

/// BITOP AND|OR|XOR|NOT destkey key [key ...]. Writes the result, as long as the longest string, in place of whatever was at
/// destkey; without any bytes, removes destkey. Reply: integer, the length of the result. Errors: WRONGTYPE, of a source;
/// syntax error; NOT of several keys. O(bytes of all strings).
pub struct BitOp;

impl Command for BitOp {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[
            KeySpec::at(2, KeyFlags::OW.and(KeyFlags::UPDATE)),
            KeySpec::from(3, KeyFlags::RO.and(KeyFlags::ACCESS)),
        ],
        group: GROUP,
        acl_categories: "bitmap",
        summary: "Perform bitwise operations between strings",
        complexity: "O(N)",
        since: "2.6.0",
        arguments: &[
            Argument::new("operation", ArgumentKind::String),
            Argument::new("destkey", ArgumentKind::Key(0)),
            Argument { is_multiple: true, ..Argument::new("key", ArgumentKind::Key(1)) },
        ],
        ..Row::new("bitop", -4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let operation = parse_operation(&args[1])?;
        let (destination, sources) = (&args[2], &args[3..]);
        if operation == Operation::Not && sources.len() > 1 {
            return Err(NOT_OF_SEVERAL);
        }

        let (len, event) = if sources.contains(destination) {
            let result = combined(ctx, operation, sources)?;
            let mut key = ctx.open_for_writing(destination)?;
            (result.len(), write(&mut key, result.len(), |bytes| bytes.copy_from_slice(&result))?)
        } else {
            // Right into the destination, without a copy in between.
            let (mut key, sources) = ctx.open_for_writing_beside(destination, sources)?;
            let strings = strings_of(&sources)?;
            let len = longest(&strings);
            (len, write(&mut key, len, |result| combine(operation, &strings, result))?)
        };
        if let Some((class, event)) = event {
            ctx.replicate_verbatim();
            ctx.notify(class, event, destination);
        }

        ctx.reply().integer(len as i64);
        Ok(())
    }
}

/// Errors: syntax error.
fn parse_operation(word: &ModuleStr<'_>) -> Result<Operation, Error> {
    const NAMES: [(&str, Operation); 4] =
        [("and", Operation::And), ("or", Operation::Or), ("xor", Operation::Xor), ("not", Operation::Not)];
    let named = NAMES.iter().find(|(name, _)| word.is_word(name));
    named.map(|(_, operation)| *operation).ok_or(Error::SYNTAX)
}

/// The bytes of keys that are open, none where there is no key. Errors: WRONGTYPE.
fn strings_of<'k>(keys: &'k [Key<'_>]) -> Result<Vec<&'k [u8]>, Error> {
    keys.iter().map(|key| key.string().map(Option::unwrap_or_default)).collect()
}

fn longest(strings: &[&[u8]]) -> usize {
    strings.iter().map(|string| string.len()).max().unwrap_or(0)
}

/// What happened to the destination: a class and a name of notifications. None if nothing did.
type Event = Option<(NotifyClass, &'static CStr)>;

/// Errors: WRONGTYPE.
fn combined(ctx: &Context<'_>, operation: Operation, sources: &[ModuleStr<'_>]) -> Result<Vec<u8>, Error> {
    let keys: Vec<_> = sources.iter().map(|source| ctx.open(source)).collect::<Result<_, _>>()?;
    let strings = strings_of(&keys)?;
    let mut result = vec![0; longest(&strings)];
    combine(operation, &strings, &mut result);
    Ok(result)
}

/// Puts a string of `len` bytes, which `fill` writes, in place of whatever is in the key; none if the length is 0.
fn write(key: &mut WriteKey<'_>, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Event, Error> {
    if len == 0 {
        return Ok(key.delete().then_some((NotifyClass::Generic, c"del")));
    }
    // A string is written over where it is, unless more of it than its bytes has to go. The key is there all the time: it is
    // not a new one afterwards.
    let has_more = key.kind() != KeyKind::String || key.expires_in_ms().is_some();
    if key.kind() != KeyKind::Empty && has_more {
        key.set_string(b"");
    }
    let mut bytes = key.string_mut()?;
    bytes.resize(len)?;
    fill(&mut bytes);
    Ok(Some((NotifyClass::String, c"set")))
}
