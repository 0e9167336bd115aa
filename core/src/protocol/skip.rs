//! Replies read back: where a value ends, and where the values in an array lie.
//!
//! This is for merging what several shards replied to their parts of one command. The bytes are [`Reply`](super::Reply)'s
//! own, so there is nothing to report about bad ones but that they are no value; foreign bytes do no harm either. Depth
//! costs nothing: a reply is as many values as are still owed, and a header owes more.

/// Length in bytes of the value that `buf` starts with, everything in it included, in RESP2 or RESP3. `None`: it goes on
/// past the buffer, or it is no value. Iterative; O(its length).
pub fn skip_reply(buf: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut owed = 1u64;
    while owed > 0 {
        let item = read_item(buf, at)?;
        at = item.end;
        owed = (owed - 1).checked_add(item.owes)?;
    }
    Some(at)
}

/// The values of the aggregate that `buf` starts with: of an array, a set or a push message in order, of a map its keys
/// and values in turn. `None`: `buf` starts with another value (an error, a null), or with none.
pub fn split_array(buf: &[u8]) -> Option<Elements<'_>> {
    match buf.first()? {
        b'*' | b'~' | b'>' | b'%' => {}
        _ => return None,
    }
    let header = read_item(buf, 0)?;
    let is_null = buf.get(1) == Some(&b'-');
    if is_null {
        return None;
    }
    Some(Elements { rest: &buf[header.end..], left: header.owes })
}

/// The values in an aggregate, each as the bytes of a whole reply. Ends early where the bytes do.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: u64,
}

impl<'a> Elements<'a> {
    /// How many values the aggregate's header promises beyond those already taken.
    pub fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let (element, rest) = self.rest.split_at(skip_reply(self.rest)?);
        self.rest = rest;
        self.left -= 1;
        Some(element)
    }
}

/// One item of a reply: a scalar with its bytes, or an aggregate's header.
struct Item {
    end: usize,
    /// Values that belong to it and follow it.
    owes: u64,
}

fn read_item(buf: &[u8], at: usize) -> Option<Item> {
    match buf.get(at)? {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {
            let newline = memchr::memchr(b'\n', &buf[at..])?;
            (buf[at + newline - 1] == b'\r').then_some(Item { end: at + newline + 1, owes: 0 })
        }
        b'$' | b'=' | b'!' => {
            let (len, end) = read_len(buf, at)?;
            let Some(len) = len else { return Some(Item { end, owes: 0 }) };
            let end = end.checked_add(usize::try_from(len).ok()?)?;
            (buf.get(end..end.checked_add(2)?)? == b"\r\n").then_some(Item { end: end + 2, owes: 0 })
        }
        b'*' | b'~' | b'>' => {
            let (len, end) = read_len(buf, at)?;
            Some(Item { end, owes: len.unwrap_or(0) })
        }
        b'%' => {
            let (len, end) = read_len(buf, at)?;
            Some(Item { end, owes: len?.checked_mul(2)? })
        }
        // An attribute is no value: the one it stands before is still to come.
        b'|' => {
            let (len, end) = read_len(buf, at)?;
            Some(Item { end, owes: len?.checked_mul(2)?.checked_add(1)? })
        }
        _ => None,
    }
}

/// The length in the line at `at`, `None` for RESP2's -1, and the offset behind the line.
fn read_len(buf: &[u8], at: usize) -> Option<(Option<u64>, usize)> {
    const DIGITS_MAX: usize = 19;
    let line = &buf[at + 1..];
    if line.starts_with(b"-1\r\n") {
        return Some((None, at + 5));
    }
    let digit_count = line.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
    let value = line[..digit_count].iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    (digit_count > 0 && line[digit_count..].starts_with(b"\r\n"))
        .then_some((Some(value), at + digit_count + 3))
}

#[cfg(test)]
mod tests;
