//! A line of words, as redis-cli, redis.conf and inline requests write it.
//!
//! Words are separated by blanks. `"..."` understands `\xHH`, `\n \r \t \b \a` and takes any other escaped byte as
//! itself; `'...'` understands `\'` alone. A quote may open anywhere in a word (`a"b c"` is one word of four bytes), but
//! a blank or the line's end must follow where it closes.
use super::argv::{ArgRange, OwnedArgv};

/// A quote that does not close, or closes with a word right behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnbalancedQuotes;

/// The words of `line`, unquoted. A zero byte ends the line, as it does for Redis. O(len(line)).
pub fn split_words(line: &[u8]) -> Result<OwnedArgv, UnbalancedQuotes> {
    let line = &line[..memchr::memchr(0, line).unwrap_or(line.len())];
    let mut words = OwnedArgv::with_capacity(4, line.len());
    let mut word = Vec::with_capacity(line.len());
    let mut at = skip_blanks(line, 0);
    while at < line.len() {
        word.clear();
        at = take_word(line, at, &mut word)?;
        words.push_arg(&word);
        at = skip_blanks(line, at);
    }
    Ok(words)
}

/// A word in double quotes, from which [`split_words`] gets it back.
pub fn quote(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len() + 2);
    out.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
    out
}

/// Appends where the words of a line without quotes lie, `base` being the line's offset in its buffer.
/// The caller has seen that the line holds no `"`, no `'` and no zero byte.
pub(super) fn split_unquoted(line: &[u8], base: usize, args: &mut Vec<ArgRange>) {
    let mut at = skip_blanks(line, 0);
    while at < line.len() {
        let len = line[at..].iter().position(|&byte| ends_word(byte)).unwrap_or(line.len() - at);
        args.push(ArgRange { start: (base + at) as u32, len: len as u32 });
        at = skip_blanks(line, at + len);
    }
}

/// Appends the word at `at` to `word`; returns the offset behind it.
fn take_word(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Result<usize, UnbalancedQuotes> {
    while let Some(&byte) = line.get(at) {
        match byte {
            _ if ends_word(byte) => break,
            b'"' => return take_double_quoted(line, at + 1, word),
            b'\'' => return take_single_quoted(line, at + 1, word),
            _ => word.push(byte),
        }
        at += 1;
    }
    Ok(at)
}

fn take_double_quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Result<usize, UnbalancedQuotes> {
    loop {
        match line[at..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_value(high) << 4 | hex_value(low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                at += 2;
            }
            [b'"', ref rest @ ..] => return closed(rest, at + 1),
            [byte, ..] => {
                word.push(byte);
                at += 1;
            }
            [] => return Err(UnbalancedQuotes),
        }
    }
}

fn take_single_quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Result<usize, UnbalancedQuotes> {
    loop {
        match line[at..] {
            [b'\\', b'\'', ..] => {
                word.push(b'\'');
                at += 2;
            }
            [b'\'', ref rest @ ..] => return closed(rest, at + 1),
            [byte, ..] => {
                word.push(byte);
                at += 1;
            }
            [] => return Err(UnbalancedQuotes),
        }
    }
}

/// `rest` is what stands behind a closing quote.
fn closed(rest: &[u8], at: usize) -> Result<usize, UnbalancedQuotes> {
    match rest.first() {
        Some(&byte) if !is_blank(byte) => Err(UnbalancedQuotes),
        _ => Ok(at),
    }
}

fn skip_blanks(line: &[u8], at: usize) -> usize {
    at + line[at..].iter().take_while(|&&byte| is_blank(byte)).count()
}

/// C's `isspace` in the C locale. Wider than [`ends_word`]: `\v` and `\f` are skipped between words and kept in them.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<OwnedArgv, UnbalancedQuotes> {
        split_words(line)
    }

    fn these(words: &[&[u8]]) -> Result<OwnedArgv, UnbalancedQuotes> {
        Ok(OwnedArgv::from_slices(words))
    }

    #[test]
    fn words_stand_between_blanks() {
        assert_eq!(words(b""), these(&[]));
        assert_eq!(words(b" \t\x0b\x0c "), these(&[]));
        assert_eq!(words(b"  SET\tkey  value "), these(&[b"SET", b"key", b"value"]));
    }

    #[test]
    fn vertical_tab_and_form_feed_part_no_words() {
        assert_eq!(words(b"\x0ba\x0bb\x0cc"), these(&[b"a\x0bb\x0cc"]));
    }

    #[test]
    fn double_quotes_understand_escapes() {
        assert_eq!(words(br#""\x41\xfF\n\r\t\b\a\\\"\q""#), these(&[b"A\xff\n\r\t\x08\x07\\\"q"]));
        assert_eq!(words(br#""\xg1 \x4""#), these(&[b"xg1 x4"]));
        assert_eq!(words(br#""""#), these(&[b""]));
    }

    #[test]
    fn single_quotes_escape_themselves_only() {
        assert_eq!(words(br"'it\'s \n'"), these(&[br"it's \n"]));
        // A backslash escapes no backslash here, so the second one escapes the quote.
        assert_eq!(words(br"'\\'"), Err(UnbalancedQuotes));
    }

    #[test]
    fn a_quote_may_open_within_a_word() {
        assert_eq!(words(br#"a"b c" d'e'"#), these(&[b"ab c", b"de"]));
        assert_eq!(words(br"a\'b"), Err(UnbalancedQuotes));
    }

    #[test]
    fn a_quote_must_close_before_a_blank() {
        for line in [
            &br#"""#[..],
            b"'",
            br#""a"b"#,
            b"'a'b",
            br#""a\"#,
            br#""a\""#,
            br"'a\'",
            br#"""""#,
            br#""a"'b'"#,
        ] {
            assert_eq!(words(line), Err(UnbalancedQuotes), "{}", line.escape_ascii());
        }
        assert_eq!(words(b"\"a\"\x0b'b'"), these(&[b"a", b"b"]));
    }

    #[test]
    fn a_zero_byte_ends_the_line() {
        assert_eq!(words(b"a b\0c d"), these(&[b"a", b"b"]));
        assert_eq!(words(b"\"a\0\""), Err(UnbalancedQuotes));
    }

    #[test]
    fn lines_without_quotes_are_split_in_place() {
        let line = b"..  SET\x0b k\tv \r";
        let mut args = Vec::new();

        split_unquoted(&line[2..], 2, &mut args);

        let argv = crate::protocol::Argv::new(line, &args);
        assert_eq!(argv.iter().collect::<Vec<_>>(), [&b"SET\x0b"[..], b"k", b"v"]);
        assert_eq!(OwnedArgv::from_argv(argv), words(&line[2..]).unwrap());
    }
}
