//! Parts of strings: APPEND, GETRANGE, SETRANGE.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{Digits, StringRef, encode};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::shard::event::Event;
use crate::types::{NewValue, SetExpire};

/// The length of a string of `len` bytes grown by `more_len`.
///
/// # Errors
/// It is more than proto-max-bulk-len, `len_max`.
fn grown_len(len: usize, more_len: usize, len_max: u64) -> CommandResult<usize> {
    let grown = len.checked_add(more_len).filter(|&len| len as u64 <= len_max);
    grown.ok_or(CommandError::STRING_TOO_LONG)
}

pub(super) const APPEND: Command = Command::keys("append", 3, append)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::INSERT)])
    .docs(
        Docs::new("string", "2.0.0", "Appends to the string value of a key, or creates the key")
            .complexity("O(1) amortised, where the values are small in comparison with the string")
            .arguments("key#0 value"),
    );

/// APPEND key value. Sets the key if it does not exist; the expiry is kept. Reply: integer, the new length in bytes.
/// Errors: WRONGTYPE; result > proto-max-bulk-len. O(len(value)) amortised.
fn append(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let value = ctx.arg(2);
    let len_max = ctx.shard.string_len_max();

    let len = if let Some(mut string) = ctx.shard.change(ctx.call, key, Event::APPEND) {
        let len = StringRef::of(string.value())?.len_bytes();
        let grown_len = grown_len(len, value.len(), len_max)?;
        string.string_mut(grown_len, len..grown_len)[len..].copy_from_slice(value);
        grown_len
    } else {
        ctx.shard.set(ctx.call, key, encode(value), SetExpire::Clear, Event::APPEND);
        value.len()
    };

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const SETRANGE: Command = Command::keys("setrange", 4, setrange)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::UPDATE)])
    .docs(
        Docs::new("string", "2.2.0", "Overwrites a part of the string value of a key from an offset on")
            .complexity("O(N), where N is the length of the value and of the gap before it")
            .arguments("key#0 offset:int value"),
    );

/// SETRANGE key offset value. Fills a gap before the offset with zeros; the expiry stays; an empty value changes
/// nothing. Reply: integer, the new length in bytes. Errors: offset < 0 or no integer; WRONGTYPE;
/// result > proto-max-bulk-len. O(len(value)), and the gap.
fn setrange(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let offset = args::integer(ctx.arg(2))?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::fixed("ERR offset is out of range"))?;
    let value = ctx.arg(3);
    let len_max = ctx.shard.string_len_max();

    let len = if let Some(mut string) = ctx.shard.change(ctx.call, key, Event::SETRANGE) {
        let len = StringRef::of(string.value())?.len_bytes();
        if value.is_empty() {
            len
        } else {
            let end = grown_len(offset, value.len(), len_max)?;
            string.string_mut(end, offset..end)[offset..end].copy_from_slice(value);
            len.max(end)
        }
    } else if value.is_empty() {
        0
    } else {
        let end = grown_len(offset, value.len(), len_max)?;
        let mut bytes = vec![0; end];
        bytes[offset..].copy_from_slice(value);
        ctx.shard.set(ctx.call, key, NewValue::OwnedRaw(bytes), SetExpire::Clear, Event::SETRANGE);
        end
    };

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const GETRANGE: Command = Command::keys("getrange", 4, getrange)
    .flags(flag::READONLY)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("string", "2.4.0", "Returns a part of the string value of a key")
            .complexity("O(N), where N is the length of the reply")
            .arguments("key#0 start:int end:int"),
    );

pub(super) const SUBSTR: Command = Command::keys("substr", 4, getrange)
    .flags(flag::READONLY)
    .acl(acl::STRING)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("string", "1.0.0", "Returns a part of the string value of a key")
            .complexity("O(N), where N is the length of the reply")
            .arguments("key#0 start:int end:int")
            .deprecated("2.0.0", "`GETRANGE`"),
    );

/// GETRANGE key start end, also as SUBSTR. Both ends belong to the range; negative ones count from the string's end.
/// Reply: string, empty where the range or the key is. Errors: no integers; WRONGTYPE. O(len(reply)).
fn getrange(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let start = args::integer(ctx.arg(2))?;
    let end = args::integer(ctx.arg(3))?;

    let mut digits = Digits::new();
    let string = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => StringRef::of(entry.value())?.bytes(&mut digits),
        None => b"",
    };

    ctx.reply.bulk(part(string, start, end));
    Ok(())
}

/// The bytes from `start` to `end`, both counted as GETRANGE does.
fn part(string: &[u8], start: i64, end: i64) -> &[u8] {
    // Of two places before the string, the one further left is not made equal to the other by clipping.
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let len = string.len() as i64;
    let place = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    let start = place(start);
    let past_end = place(end).min(len - 1) + 1;
    if start < past_end { &string[start as usize..past_end as usize] } else { b"" }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn a_range_is_clipped_at_both_ends_of_the_string() {
        assert_eq!(part(b"Hello", 0, -1), b"Hello");
        assert_eq!(part(b"Hello", 1, 3), b"ell");
        assert_eq!(part(b"Hello", -3, -2), b"ll");
        assert_eq!(part(b"Hello", -100, 1), b"He");
        assert_eq!(part(b"Hello", 3, 100), b"lo");
        assert_eq!(part(b"Hello", i64::MIN, i64::MAX), b"Hello");
        assert_eq!(part(b"Hello", 5, 9), b"");
        assert_eq!(part(b"Hello", 3, 2), b"");
        assert_eq!(part(b"", 0, -1), b"");
    }

    #[test]
    fn an_end_before_the_string_still_gives_its_first_byte() {
        // Redis clips the end to 0, which is a place in the string, unless both ends are negative and crossed.
        assert_eq!(part(b"Hello", -100, -90), b"H");
        assert_eq!(part(b"Hello", -90, -100), b"");
        assert_eq!(part(b"Hello", 0, -100), b"H");
    }
}
